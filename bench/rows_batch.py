"""Rows on corpus B: memories put in thousands and got back, threads, ten million objects.

Each contender is a worker process of its own (workers_batch.py), asked in turn, a thousand
memories at a time, so that product and peer share every mood of the machine.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import attrs

from bench import corpus_b, harness, trace
from bench.context import BATCH_WORKERS, MILLION, Context, Worker
from bench.harness import Series, Step

BATCH = 1_000
READS = 20_000
THREADS = 8
THREAD_SECONDS = 3.0
SLOW_MS = 2
SCALE_BLOCK = 20_000


@attrs.frozen
class Peer:
    """A contender of the memory rows, and the modules that it needs."""

    name: str
    modules: tuple[str, ...] = ()
    settings: str = ""


PEERS = (
    Peer("lmdb", ("lmdb", "blake3"), "values as they are, one synced transaction a batch"),
    Peer("lmdb-verified", ("lmdb", "blake3", "zstandard"), "values under zstd -3, hashed on read"),
    Peer("sqlite3", ("blake3",), "WAL, synchronous FULL, WITHOUT ROWID, one transaction a batch"),
    Peer("rocksdict", ("rocksdict", "blake3"), "zstd, one synced write batch a batch"),
    Peer("langgraph", ("langgraph.store.sqlite", "blake3"), "SqliteStore.batch of PutOps"),
    Peer("git", ("pygit2",), "fast-import, synced once at its end; read with pygit2"),
)


def row_memories(ctx: Context) -> None:
    """Corpus B: put in thousands, durable each; got at random; the size of what lies there."""
    count = _count(ctx)
    homes: dict[str, list[Path]] = {}
    rates: dict[str, list[float]] = {}
    for turn in range(ctx.rounds + 1):  # the first warms up, and is not counted
        for name, rate in _put_round(ctx, count, homes).items():
            if turn:
                rates.setdefault(name, []).append(rate)
    settings = {peer.name: peer.settings for peer in (Peer("cas", (), "as it comes"), *PEERS)}
    for name, found in rates.items():
        note = f"{count} memories in {BATCH}s, the clean close counted; {settings[name]}"
        ctx.run.add(f"memories-{count}/{name}/put", Series(tuple(found), "/s"), note)
    for name, paths in homes.items():
        size = harness.size(paths[-1] / "store", lambda at: at.startswith("cache" + os.sep))
        if not size.files:  # one file, not a folder
            size = harness.size(paths[-1])
        ctx.run.one(f"memories-{count}/{name}/bytes", size.file_bytes, "B", f"{size.files} files")
        if name == "cas":
            share = size.cache_bytes / size.file_bytes
            ctx.run.one(f"memories-{count}/cas/cache_share", share, "of bytes")
    _reads(ctx, count, {name: paths[-1] for name, paths in homes.items()})


def _count(ctx: Context) -> int:
    return corpus_b.COUNT // 10 if ctx.quick else corpus_b.COUNT


def _contenders(ctx: Context) -> list[Peer]:
    product = [Peer("cas")] if ctx.has_api() else []
    return product + [peer for peer in PEERS if ctx.has_module(*peer.modules)]


def _open(ctx: Context, stack: ExitStack, peer: Peer, path: Path, count: int) -> Worker:
    worker = stack.enter_context(
        ctx.worker(peer.name, program=BATCH_WORKERS, peer=peer.name != "cas", path=str(path))
    )
    worker.ask("load", file=str(corpus_b.path(ctx.root)), count=count)
    if version := worker.ask("version")["version"]:
        ctx.run.versions[peer.name] = version
    return worker


def _put_round(ctx: Context, count: int, homes: dict[str, list[Path]]) -> dict[str, float]:
    """All memories into a fresh store of each contender, a batch of each in turn; puts a second."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for peer in _contenders(ctx):
            path = ctx.fresh(f"memories-{peer.name}") / "store"
            homes.setdefault(peer.name, []).append(path.parent)
            workers[peer.name] = _open(ctx, stack, peer, path, count)
        ctx.probe_flush(f"memories-{count}")
        seconds = dict.fromkeys(workers, 0.0)
        for first in range(0, count, BATCH):
            for name, worker in workers.items():
                seconds[name] += worker.ask("put", first=first, count=BATCH)["seconds"]
        for name, worker in workers.items():
            seconds[name] += worker.ask("finish")["seconds"]
    return {name: count / spent for name, spent in seconds.items()}


def _reads(ctx: Context, count: int, homes: dict[str, Path]) -> None:
    """Random reads of stores that were closed and opened again: one by one, and in batches."""
    times: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        workers = {
            peer.name: _open(ctx, stack, peer, homes[peer.name] / "store", count)
            for peer in _contenders(ctx)
        }
        for block in range(READS // BATCH + 2):
            for name, worker in workers.items():
                found = worker.ask("get", count=BATCH, seed=block)
                if block >= 2:
                    for way in ("one", "many"):
                        times.setdefault(way, {}).setdefault(name, []).append(found[way])
    for way, by_name in times.items():
        for name, spent in by_name.items():
            rates = tuple(BATCH / one for one in spent)
            headline = len(spent) * BATCH / sum(spent)
            ctx.run.add(f"memories-{count}/{name}/get_{way}", Series(rates, "/s", headline))


# -- threads ---------------------------------------------------------------------------------


def row_threads(ctx: Context) -> None:
    """Eight threads commit at once: rate against one thread, also on slow syncs; syncs a commit."""
    if not ctx.has_api():
        return
    seconds = 1.0 if ctx.quick else THREAD_SECONDS
    ctx.probe_flush("threads")
    for row, slow_ms in (("threads", 0), (f"threads-slow-{SLOW_MS}ms", SLOW_MS)):
        rates: dict[int, list[float]] = {1: [], THREADS: []}
        path = str(ctx.fresh(row) / "agents.cas")
        with ctx.worker(
            "threads", program=BATCH_WORKERS, path=path, slow_sync_ms=slow_ms
        ) as worker:
            for turn in range(ctx.rounds + 1):
                for threads, found in rates.items():
                    answer = worker.ask("threads", threads=threads, seconds=seconds)
                    if turn:
                        found.append(answer["commits"] / answer["seconds"])
        if slow_ms and max(rates[1]) > 1_000 / slow_ms:
            raise RuntimeError("one thread is faster than its syncs; they were not slowed")
        for threads, found in rates.items():
            ctx.run.add(f"{row}/cas-{threads}/rate", Series(tuple(found), "/s"))
    if ctx.has_strace():
        _count_syncs(ctx, seconds)


def _count_syncs(ctx: Context, seconds: float) -> None:
    folder = ctx.fresh("threads-syncs")
    log, mark = folder / "trace.txt", folder / "mark"
    path = str(folder / "agents.cas")
    wrap = trace.command(log)
    with ctx.worker("threads", wrap, program=BATCH_WORKERS, path=path) as worker:
        worker.ask("threads", threads=THREADS, seconds=0.2)
        worker.ask("mark", file=str(mark))
        commits = worker.ask("threads", threads=THREADS, seconds=seconds)["commits"]
        worker.ask("mark", file=str(mark))
    found = trace.read(log, mark)
    note = f"{commits} commits of {THREADS} threads, traced; "
    note += f"{found.checkpoint_syncs} syncs of WAL checkpoints apart"
    ctx.run.one(f"threads/cas-{THREADS}/syncs", found.counted_syncs / commits, "/commit", note)


# -- many objects ----------------------------------------------------------------------------


def row_scale(ctx: Context) -> None:
    """Put and look-up beside ten million objects, against a store of 100,000; memory."""
    if not ctx.has_api():
        return
    small, large = MILLION // 10, MILLION if ctx.quick else 10 * MILLION
    folder = ctx.fresh("scale")
    puts: dict[int, list[float]] = {small: [], large: []}
    finds: dict[int, list[float]] = {small: [], large: []}
    with ExitStack() as stack:
        workers = {}
        for size in (small, large):
            ctx.say(f"filling a store with {size:,} objects …")
            path = str(folder / f"{size}.cas")
            workers[size] = stack.enter_context(
                ctx.worker("scale", program=BATCH_WORKERS, path=path)
            )
            workers[size].ask("grow", count=size)
        held = dict.fromkeys(workers, 0)
        for turn in range(ctx.rounds + 1):
            for size, worker in workers.items():
                held[size] += SCALE_BLOCK
                put = worker.ask("grow", count=size + held[size])["seconds"]
                find = worker.ask("find", count=SCALE_BLOCK, seed=turn)["seconds"]
                if turn:
                    puts[size].append(SCALE_BLOCK / put)
                    finds[size].append(find / SCALE_BLOCK)
        for size, worker in workers.items():
            memory = worker.ask("memory")["bytes"]
            ctx.run.one(f"scale-{size}/cas/memory", memory, "B", "RssAnon behind the last block")
            worker.ask("close")
    for size in workers:
        ctx.run.add(f"scale-{size}/cas/put", Series(tuple(puts[size]), "/s"))
        ctx.run.add(f"scale-{size}/cas/look_up", Series(tuple(finds[size]), "s"))
    for words in ("fsck", "gc"):
        command = ctx.product.command(words, "--store", str(folder / f"{large}.cas"))
        peak = harness.peak_anonymous(Step((command,), ctx.folder, ctx.product.environment))
        ctx.run.one(f"scale-{large}/cas/{words}_memory", peak, "B", "RssAnon, whole command")
