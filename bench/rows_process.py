"""Rows in process: durable commits, writers beside each other, diff, streams, start-up.

Each contender is a worker process of its own (workers.py) that is asked in turn, in blocks, so
that product and peer share every mood of the machine. Rates are commits over seconds of all
blocks: a single block swings with WAL checkpoints.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from blake3 import blake3

from bench import harness, trace
from bench.context import RACE_SECONDS, THOUSAND, Context, Worker, ask_all, run_race
from bench.harness import Contender, Series, Step
from bench.record import REPOSITORY_ROOT

BLOCK = 150
BLOCKS = 20
TRACED_COMMITS = 5_000
RACERS = 4
RACE_COMMITS_MAX = 40_000
PEERS = Path(__file__).resolve().parent / "workers_peers.py"
MEMORY_FOLDER = Path("/dev/shm")


def row_commit_small(ctx: Context) -> None:
    """Durable commits of 1 KB into a folder of 1,000 entries, against sqlite3, then pygit2.

    Two passes: pygit2 makes three loose files a commit, which would disturb the pair before it.
    """
    folder = ctx.fresh("commit-small")
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        if ctx.has_api():
            path = str(folder / "agents.cas")
            workers["cas"] = stack.enter_context(ctx.worker("cas", path=path))
            workers["cas"].ask("fill", entries=THOUSAND)
        sqlite = _sqlite(ctx, stack, folder)
        _commit_blocks(ctx, f"commit-{THOUSAND}", {**workers, "sqlite3": sqlite})
        if ctx.has_pygit2():
            path = str(folder / "pygit2.git")
            pygit2 = stack.enter_context(ctx.worker("pygit2", path=path))
            ctx.run.versions["pygit2"] = pygit2.ask("version")["version"]
            pygit2.ask("fill", entries=THOUSAND)
            _commit_blocks(ctx, f"commit-{THOUSAND}-loose", {**workers, "pygit2": pygit2})


def row_commit_peers(ctx: Context) -> None:
    """The same against dulwich, ZODB and agentfs-sdk, each as it comes; not judged."""
    folder = ctx.fresh("commit-peers")
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        if ctx.has_api():
            path = str(folder / "agents.cas")
            workers["cas"] = stack.enter_context(ctx.worker("cas", path=path))
        for kind, module in (("zodb", "ZODB"), ("agentfs", "agentfs_sdk"), ("dulwich", "dulwich")):
            if ctx.has_module(module):
                found = ctx.worker(kind, program=PEERS, peer=True, path=str(folder / kind))
                workers[kind] = stack.enter_context(found)
                ctx.run.versions[kind] = workers[kind].ask("version")["version"]
        for worker in workers.values():
            worker.ask("fill", entries=THOUSAND)
        _commit_blocks(ctx, f"commit-{THOUSAND}-peers", workers)


def row_commit_large(ctx: Context) -> None:
    """The same into a folder of 1,000,000 entries, against sqlite3."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        entries = ctx.entries_large
        if ctx.has_api():
            path = str(ctx.million())
            workers["cas"] = stack.enter_context(ctx.worker("cas", path=path, entries=entries))
        workers["sqlite3"] = _sqlite(ctx, stack, ctx.fresh("commit-large"))
        _commit_blocks(ctx, f"commit-{entries}", workers)


def _sqlite(ctx: Context, stack: ExitStack, folder: Path) -> Worker:
    worker = stack.enter_context(ctx.worker("sqlite", path=str(folder / "peer.db")))
    ctx.run.versions["sqlite3"] = worker.ask("version")["version"]
    return worker


def _commit_blocks(ctx: Context, row: str, workers: dict[str, Worker]) -> None:
    blocks = 4 if ctx.quick else BLOCKS
    ctx.probe_flush(row)
    seconds: dict[str, list[list[float]]] = {name: [] for name in workers}
    for turn in range(blocks + 2):
        for name, worker in workers.items():
            found = worker.ask("commits", count=BLOCK)["seconds"]
            if turn >= 2:
                seconds[name].append(found)
    for name, found in seconds.items():
        rates = tuple(BLOCK / sum(block) for block in found)
        every = sorted(one for block in found for one in block)
        note = f"{len(every)} commits, p50 {_us(every, 0.5)}, p99 {_us(every, 0.99)} us"
        ctx.run.add(f"{row}/{name}/rate", Series(rates, "/s", len(every) / sum(every)), note)
        ctx.run.add(
            f"{row}/{name}/p50",
            Series(tuple(statistics.median(block) for block in found), "s"),
        )


def _us(ordered: list[float], share: float) -> int:
    return round(1e6 * ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def row_wal(ctx: Context) -> None:
    """Syncs and WAL frames a commit over 5,000 commits, counted from system calls."""
    if not ctx.has_strace():
        return
    count = 500 if ctx.quick else TRACED_COMMITS
    kinds = {"sqlite": "sqlite3", **({"cas": "cas"} if ctx.has_api() else {})}
    for kind, name in kinds.items():
        folder = ctx.fresh(f"wal-{kind}")
        log, mark = folder / "trace.txt", folder / "mark"
        store = folder / ("agents.cas" if kind == "cas" else "peer.db")
        with ctx.worker(kind, trace.command(log), path=str(store)) as worker:
            if kind == "cas":
                worker.ask("fill", entries=THOUSAND)
            worker.ask("mark", file=str(mark))
            worker.ask("commits", count=count)
            worker.ask("mark", file=str(mark))
        found = trace.read(log, mark)
        note = f"{count} commits; {found.what_counts}"
        ctx.run.one(f"wal/{name}/syncs", found.counted_syncs / count, "/commit", note)
        groups = sorted(found.groups)
        written = ", ".join(f"{label} {size:,} B" for label, size in found.written.most_common())
        note = f"mean of {count} commits; a synced group has {statistics.median(groups):.0f} in the"
        note += f" median, {groups[-1]} at most; written: {written}"
        ctx.run.one(f"wal/{name}/frames", found.frames / count, "/commit", note)


def row_writers(ctx: Context) -> None:
    """Four processes commit 1 KB each to a branch of their own for two seconds, in turn."""
    folder = ctx.fresh("writers")
    with ExitStack() as stack:
        groups: dict[str, list[Worker]] = {}
        if ctx.has_api():
            path = str(folder / "agents.cas")
            groups["cas"] = [
                stack.enter_context(
                    ctx.worker("cas", path=path, branch=f"writer/{number}", seed=number)
                )
                for number in range(RACERS)
            ]
            for worker in groups["cas"]:
                worker.ask("fill", entries=THOUSAND)
        groups["sqlite3"] = [
            stack.enter_context(ctx.worker("sqlite", path=str(folder / "peer.db"), seed=number))
            for number in range(RACERS)
        ]
        ctx.probe_flush("writers")
        races: dict[str, list[list[list[float]]]] = {name: [] for name in groups}
        for _ in range(ctx.rounds):
            for name, workers in groups.items():
                ask_all(workers, "prepare", count=RACE_COMMITS_MAX)
                answers = run_race(workers, "race")
                races[name].append([answer["seconds"] for answer in answers])
    for name, found in races.items():
        totals = tuple(sum(map(len, race)) / RACE_SECONDS for race in found)
        fairness = tuple(min(map(len, race)) / statistics.mean(map(len, race)) for race in found)
        longest = tuple(max(max(one, default=RACE_SECONDS) for one in race) for race in found)
        ctx.run.add(f"writers/{name}/rate", Series(totals, "/s"))
        ctx.run.add(f"writers/{name}/least", Series(fairness, "of mean", min(fairness)))
        ctx.run.add(f"writers/{name}/longest", Series(longest, "s", max(longest)))


def row_cost(ctx: Context) -> None:
    """One file into a folder of 1,000,000 entries: nodes and bytes written, time without sync.

    For the time both stores lie in memory (tmpfs), where a sync call costs nothing.
    """
    if not ctx.has_api():
        return
    entries = ctx.entries_large
    place = MEMORY_FOLDER / f"cas-bench-{time.monotonic_ns()}"
    place.mkdir()
    with ExitStack() as stack:
        # A handful of files in memory, not on the disk that other rows are timed on.
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        workers = {}
        for size in (THOUSAND, entries):
            path = str(place / f"{size}.cas")
            workers[size] = stack.enter_context(ctx.worker("cas", path=path))
            workers[size].ask("fill", entries=size)
        nodes, written = [], []
        for _ in range(50 if ctx.quick else 200):
            workers[entries].ask("commits", count=1)
            found = workers[entries].ask("written")
            nodes.append(found["nodes"])
            written.append(found["bytes"])
        times: dict[int, list[float]] = {THOUSAND: [], entries: []}
        for _ in range(ctx.rounds):
            for size, worker in workers.items():
                times[size] += worker.ask("commits", count=BLOCK)["seconds"]
    ctx.run.add(f"cost-{entries}/cas/nodes", Series(tuple(nodes), "nodes"))
    ctx.run.add(f"cost-{entries}/cas/bytes", Series(tuple(written), "B"))
    for size, seconds in times.items():
        ctx.run.add(f"cost-{size}/cas/seconds", Series(tuple(seconds), "s"))


def row_diff(ctx: Context) -> None:
    """Ten changes among 1,000,000 entries: the first diff of a fresh process, and warm ones."""
    if not ctx.has_api():
        return
    entries, path = ctx.entries_large, str(ctx.million())
    cold, warm = [], []
    for seed in range(max(3, ctx.rounds)):
        with ctx.worker("cas", path=path, entries=entries, seed=100 + seed) as worker:
            worker.ask("edit", changes=10)
        with ctx.worker("cas", path=path, entries=entries) as worker:
            seconds = worker.ask("diff", count=10, changes=10)["seconds"]
        cold.append(seconds[0])
        warm += seconds[1:]
    ctx.run.add(f"diff-{entries}/cas/seconds", Series(tuple(warm), "s"))
    ctx.run.add(f"diff-{entries}/cas/first", Series(tuple(cold), "s"))


def row_stream(ctx: Context) -> None:
    """Put and get a stream of 10 GiB, half of it compressible, and compare what came back."""
    reason = ctx.product.lacks("init", "put", "get")
    if reason is not None:
        ctx.skip("cas, stream", reason)
        return
    gib = 1 if ctx.quick else 10
    home = ctx.new_home(ctx.product, "stream")
    receipt, answer, target = home / "receipt.json", home / "answer.txt", home / "out.bin"
    program = REPOSITORY_ROOT / "bench" / "workers.py"
    feed = (sys.executable, str(program), "stream", str(gib << 30), str(receipt))
    started = time.perf_counter()
    put_peak = harness.peak_anonymous(ctx.product.put_stream(home, feed, answer))
    put_seconds = time.perf_counter() - started
    expected = json.loads(receipt.read_text())
    found = answer.read_text().split()[0]
    if found != expected["blake3"]:
        raise RuntimeError(f"put printed {found}, the stream's BLAKE3 is {expected['blake3']}")
    started = time.perf_counter()
    get_peak = harness.peak_anonymous(ctx.product.get(home, found, target))
    get_seconds = time.perf_counter() - started
    if blake3(max_threads=1).update_mmap(target).hexdigest() != expected["blake3"]:
        raise RuntimeError("get wrote other bytes than were put")
    stored = ctx.product.size(home)
    for way, peak, seconds in (("put", put_peak, put_seconds), ("get", get_peak, get_seconds)):
        note = f"{expected['bytes']:,} bytes in {seconds:.0f} s, sampler running"
        ctx.run.one(f"stream-{gib}/cas/{way}_memory", peak, "B", note)
    ctx.run.one(f"stream-{gib}/cas/bytes", stored.file_bytes, "B")


def row_startup(ctx: Context) -> None:
    """Import, `--help`: whole commands minus the median of `python -I -c pass`."""
    bare = (sys.executable, "-I", "-c")
    commands: dict[str, tuple[str, ...]] = {"python": (*bare, "pass")}
    if ctx.product.api_missing_because() is None:
        place = f"import sys; sys.path.insert(0, {str(ctx.product.place)!r}); import cas"
        commands["import"] = (*bare, place)
        commands["import_and_open"] = (*bare, place + "; cas.open")  # names load on first use
    if ctx.product.has_help():
        commands["help"] = ctx.product.command("--help")
    contenders = [_command(ctx, name, command) for name, command in commands.items()]
    times = harness.interleave(contenders, 5 * ctx.rounds, warmup=3)
    base = times["python"].headline
    ctx.run.add("startup/python/seconds", times["python"])
    for name in commands.keys() - {"python"}:
        above = tuple(sample - base for sample in times[name].samples)
        ctx.run.add(f"startup/cas/{name}", Series(above, "s"))


def _command(ctx: Context, name: str, command: tuple[str, ...]) -> Contender:
    return Contender(name, lambda turn: Step((command,), ctx.folder, ctx.product.environment))


def row_open(ctx: Context) -> None:
    """`cas.open` of a store with 1,000,000 objects, each time in a fresh process."""
    if not ctx.has_api():
        return
    entries, path = ctx.entries_large, str(ctx.million())
    opened, first = [], []
    for turn in range(2 * ctx.rounds + 1):
        with ctx.worker("cas", path=path, entries=entries, create=False) as worker:
            found = worker.ask("opened")
        if turn:
            opened.append(found["seconds"])
            first.append(found["first_read"])
    ctx.run.add(f"open-{entries}/cas/seconds", Series(tuple(opened), "s"))
    ctx.run.add(f"open-{entries}/cas/first_read", Series(tuple(first), "s"))
