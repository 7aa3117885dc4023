"""Rows on corpus A: first snapshot, again, ten files changed, restore, check.

Whole commands in fresh processes, warm page cache, in turn (product, borg, cp, git; git last for
its loose files). Every restore goes into a new folder and is compared with its source once a tool.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench import corpus, harness
from bench.context import Context, Worker
from bench.harness import Contender, Series, Step
from bench.peers import Git, Tool, copy_step, tar_step
from tools import releases

MEMORY_RUNS = 3


def row_import(ctx: Context) -> None:
    """First snapshot of the newest state: seconds, sync calls, memory, size."""
    source = ctx.source()
    homes: dict[str, Path] = {}

    def contender(tool: Tool) -> Contender:
        def prepare(turn: int) -> Step:
            homes[tool.name] = ctx.new_home(tool, "import")
            return tool.save(homes[tool.name], source, "s0")

        return Contender(tool.name, prepare)

    contenders = [contender(tool) for tool in ctx.tools()]
    if missing := harness.missing("tar", "zstd"):
        ctx.skip("tar-zstd", f"{missing[0]} is not on the path; run.py --setup installs it")
    else:
        contenders.insert(1, Contender("tar-zstd", _archive(ctx, source)))
    times = harness.interleave(contenders, ctx.rounds)
    if "tar-zstd" in times:
        ctx.run.add("import/tar-zstd/seconds", times["tar-zstd"], "synced by nobody")
    for tool in ctx.tools():
        home = homes[tool.name]
        ctx.adopt(tool, "imported", home)
        ctx.run.add(f"import/{tool.name}/seconds", times[tool.name])
        found = tool.size(home)
        ctx.run.one(f"import/{tool.name}/bytes", found.file_bytes, "B", f"{found.files} files")
        ctx.run.one(f"import/{tool.name}/cache_bytes", found.cache_bytes, "B")
    for tool in ctx.tools():
        if ctx.has_strace():
            calls = harness.count_syncs(
                tool.save(ctx.new_home(tool, "import-syncs"), source, "s0"), ctx.folder
            )
            note = ", ".join(f"{name} {count}" for name, count in sorted(calls.items()))
            ctx.run.one(f"import/{tool.name}/syncs", calls.total(), "calls", note or "none")
        if isinstance(tool, Git):  # a hundredth of the bar, and 15,000 more files a run
            continue
        peaks = [
            harness.peak_anonymous(tool.save(ctx.new_home(tool, "import-memory"), source, "s0"))
            for _ in range(MEMORY_RUNS)
        ]
        ctx.run.add(f"import/{tool.name}/memory", Series(tuple(peaks), "B", max(peaks)))


def _archive(ctx: Context, source: Path) -> Callable[[int], Step]:
    return lambda turn: tar_step(source, ctx.fresh("tar-zstd") / "archive.tar.zst")


def row_again(ctx: Context) -> None:
    """The same folder again, nothing changed: whole command, and as a call in a warm process."""
    _saved_again(ctx, "again", lambda turn: None)


def row_ten(ctx: Context) -> None:
    """Ten files changed by one line each: seconds, and bytes that each such snapshot adds."""
    work = ctx.work()

    def change(turn: int) -> None:
        corpus.change_files(work, seed=ctx.next_seed())
        time.sleep(0.05)  # a change in the same tick as a snapshot is another test's subject

    _saved_again(ctx, "ten", change)


def _saved_again(ctx: Context, row: str, before: Callable[[int], None]) -> None:
    work = ctx.work()
    added: dict[str, list[float]] = {}
    homes = {tool.name: ctx.home_with(tool, work, "work") for tool in ctx.tools()}

    def contender(tool: Tool) -> Contender:
        sizes: list[int] = []

        def prepare(turn: int) -> Step:
            sizes.append(tool.size(homes[tool.name]).file_bytes)
            return tool.save(homes[tool.name], work, f"{row}-{time.monotonic_ns()}")

        def check(turn: int) -> None:
            grown = tool.size(homes[tool.name]).file_bytes - sizes[-1]
            added.setdefault(tool.name, []).append(grown)

        return Contender(tool.name, prepare, check)

    contenders = [contender(tool) for tool in ctx.tools()]
    in_process = ctx.has("cas") and ctx.has_import_call()
    rounds = 2 * ctx.rounds + 1
    if in_process:
        home = ctx.home_with(ctx.product, work, "work-in-process")
        with ctx.worker("cas", path=str(ctx.product.store(home))) as worker:
            contenders.insert(1, Contender("cas-call", lambda turn: _call(worker, work)))
            times = harness.interleave(contenders, rounds, before_turn=before)
    else:
        times = harness.interleave(contenders, rounds, before_turn=before)
    for name, series in times.items():
        ctx.run.add(f"{row}/{name}/seconds", series)
    for name, grown in added.items():
        counted = tuple(grown[1:])
        ctx.run.add(f"{row}/{name}/added_bytes", Series(counted, "B", max(counted)))


def _call(worker: Worker, work: Path) -> Callable[[], float]:
    def measured() -> float:
        return float(worker.ask("snapshot", folder=str(work))["seconds"])

    return measured


def row_restore(ctx: Context) -> None:
    """Write the newest state back into an empty folder, byte for byte."""
    source = ctx.source()
    expected = corpus.PINNED[-1]
    wrong: dict[str, list[str]] = {}
    targets: dict[str, Path] = {}

    def contender(name: str, step: Callable[[Path], Step]) -> Contender:
        def prepare(turn: int) -> Step:
            targets[name] = ctx.fresh(f"{name}-restored")
            return step(targets[name])

        def check(turn: int) -> None:
            if turn == 0 and releases.count(targets[name]) != expected:
                wrong[name] = differing(source, targets[name])

        return Contender(name, prepare, check)

    contenders = []
    for tool in ctx.tools("restore"):
        home = ctx.home_with(tool, source, "imported")
        contenders.append(contender(tool.name, _restore(tool, home)))
        if isinstance(tool, Git):
            packed = _packed(ctx, tool)
            contenders.insert(-1, contender("git-packed", _restore(tool, packed)))
    at = next((i for i, found in enumerate(contenders) if found.name.startswith("git")), None)
    contenders.insert(
        len(contenders) if at is None else at,
        contender("cp", lambda target: copy_step(source, target)),
    )
    times = harness.interleave(contenders, ctx.rounds)
    for name, series in times.items():
        files = wrong.get(name, [])
        ctx.run.add(f"restore/{name}/seconds", series)
        ctx.run.one(f"restore/{name}/wrong_files", len(files), "files", " ".join(files[:5]))


def _restore(tool: Tool, home: Path) -> Callable[[Path], Step]:
    return lambda target: tool.restore(home, target, "s0")


def differing(expected: Path, found: Path) -> list[str]:
    """Relative paths whose presence, kind, executable bit or content differ."""

    def table(tree: Path) -> dict[str, tuple[str, bytes]]:
        rows = {}
        for path in tree.rglob("*"):
            if path.is_symlink():
                rows[str(path.relative_to(tree))] = ("link", str(path.readlink()).encode())
            elif path.is_file():
                kind = "executable" if path.stat().st_mode & 0o100 else "file"
                rows[str(path.relative_to(tree))] = (kind, path.read_bytes())
        return rows

    left, right = table(expected), table(found)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def row_fsck(ctx: Context) -> None:
    """Read and check every byte of a store with one snapshot of the newest state."""
    source = ctx.source()

    def contender(name: str, tool: Tool, home: Path) -> Contender:
        return Contender(name, lambda turn: tool.verify(home))

    contenders = []
    for tool in ctx.tools("fsck"):
        home = ctx.home_with(tool, source, "imported")
        contenders.append(contender(tool.name, tool, home))
        if isinstance(tool, Git):
            contenders.insert(-1, contender("git-packed", tool, _packed(ctx, tool)))
    for name, series in harness.interleave(contenders, ctx.rounds).items():
        ctx.run.add(f"fsck/{name}/seconds", series)


def _packed(ctx: Context, git: Git) -> Path:
    """A home with the imported history in one pack; made once a run, nothing deleted."""
    key = "git-packed"
    if not (ctx.folder / key).exists():
        git.pack(ctx.home_with(git, ctx.source(), "imported"), ctx.folder / key)
    return ctx.folder / key
