"""Rows on collecting: half of the snapshots dropped and their room given back, beside others; gc
that finds nothing; commits beside gc; a catalog made again from its packs.

Product and peers work on copies of one home each, made before the clock starts. What is measured is
all that a user has to type, in as few commands as a tool has for it: `cas retain --gc`, `restic
forget --prune`, `borg prune` and `borg compact` (no option of borg joins them), and for git the
shallow boundary, `reflog expire` and `gc --prune=now`. Files that the product removes are counted
by their names. Invariant: what was kept is compared with its state after the row, and homes of
peers with a thousand snapshots are kept for later runs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from bench import corpus, harness
from bench.context import Context
from bench.harness import Contender, Series, Step
from bench.peers import Borg, Git, Restic, Tool, output_of
from bench.product import Cas
from bench.rows_folder import differing

MANY = 1_000
MANY_QUICK = 20
MANY_PROJECT = "sympy"
PROGRAM = Path(__file__).resolve().parent / "workers_gc.py"


def row_gc_states(ctx: Context) -> None:
    """Half of corpus A's states dropped and reclaimed: seconds, size after, files deleted."""
    states = ctx.states()
    kept = len(states) // 2
    homes: list[tuple[Tool, Path]] = []
    for tool in ctx.tools("gc"):
        home = ctx.new_home(tool, "gc-states")
        for number, state in enumerate(states):
            harness.run(tool.save(home, state, f"s{number}"))
        homes.append((tool, home))
    row = f"gc-states-{len(states)}"
    after = _reclaim(ctx, row, homes, kept)
    if not ctx.has("cas"):
        return
    fresh = ctx.new_home(ctx.product, "gc-fresh")
    for number in range(len(states) - kept, len(states)):
        harness.run(ctx.product.save(fresh, states[number], f"s{number}"))
    ctx.run.one(
        f"{row}/cas/fresh_bytes", ctx.product.size(fresh).file_bytes, "B", "kept ones alone"
    )
    target = ctx.fresh("gc-restored")
    harness.run(ctx.product.restore(after["cas"], target, "", kept - 1))
    wrong = differing(states[-kept], target)
    ctx.run.one(f"{row}/cas/wrong", len(wrong), "files", " ".join(wrong[:5]))


def row_gc_many(ctx: Context) -> None:
    """A thousand snapshots of ten changed files, half of them dropped and reclaimed."""
    count = MANY_QUICK if ctx.quick else MANY
    kept = [ctx.root / "gc-many" / f"{tool.name}-{count}" for tool in ctx.tools("gc")]
    homes: list[tuple[Tool, Path]] = []
    missing: list[tuple[Tool, Path]] = []
    for tool, place in zip(ctx.tools("gc"), kept, strict=True):
        home = ctx.new_home(tool, "gc-many") if tool.name == "cas" else place
        homes.append((tool, home))
        if tool.name == "cas" or not (place / "whole").exists():
            missing.append((tool, home))
    for tool, home in missing:
        if tool.name != "cas":
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            tool.make(home)
    if missing:
        ctx.say(f"saving {count} snapshots with {', '.join(tool.name for tool, _ in missing)} …")
        # One folder at one place: the caches of the others know files by their paths.
        work = ctx.root / "gc-many" / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(ctx.source() / MANY_PROJECT, work, symlinks=True)
        for number in range(count):
            corpus.change_files(work, seed=7_000_000 + number)
            for tool, home in missing:
                harness.run(tool.save(home, work, f"s{number}"))
        for tool, home in missing:
            if tool.name != "cas":
                (home / "whole").write_text("")
    _reclaim(ctx, f"gc-many-{count}", homes, count // 2)


def _reclaim(ctx: Context, row: str, homes: list[tuple[Tool, Path]], kept: int) -> dict[str, Path]:
    """Drop all but the newest `kept` snapshots; the home of the last round of each tool."""
    copies: dict[str, Path] = {}
    before: dict[str, set[str]] = {}
    sizes: dict[str, list[float]] = {}
    deleted: list[float] = []

    def contender(tool: Tool, home: Path) -> Contender:
        def prepare(turn: int) -> Step:
            copy = copies[tool.name] = ctx.fresh(f"{tool.name}-{row}")
            shutil.copytree(home, copy, symlinks=True, dirs_exist_ok=True)
            if isinstance(tool, Cas):
                words = ("init", "--moved", str(tool.store(copy)))
                output_of(tool.command(*words), copy, tool.environment)
            before[tool.name] = _names(copy)
            return reclaiming(tool, copy, kept)

        def check(turn: int) -> None:
            copy = copies[tool.name]
            sizes.setdefault(tool.name, []).append(float(tool.size(copy).file_bytes))
            if tool.name == "cas":
                deleted.append(float(len(before["cas"] - _names(copy))))

        return Contender(tool.name, prepare, check)

    times = harness.interleave([contender(*one) for one in homes], ctx.rounds, warmup=0)
    for name, series in times.items():
        ctx.run.add(f"{row}/{name}/seconds", series)
        ctx.run.add(f"{row}/{name}/after_bytes", Series(tuple(sizes[name]), "B"))
    if deleted:
        ctx.run.add(f"{row}/cas/deleted", Series(tuple(deleted), "files", max(deleted)))
    return copies


def _names(home: Path) -> set[str]:
    """All files of a store but for caches and locks."""
    found = set()
    for folder, _folders, names in os.walk(home):
        inside = os.path.relpath(folder, home).split(os.sep)
        if not {"cache", "locks"} & set(inside):
            found.update(os.path.join(folder, name) for name in names)
    return found


def reclaiming(tool: Tool, home: Path, kept: int) -> Step:
    """What a user types to keep the newest snapshots only and have the room back."""
    if isinstance(tool, Cas):
        store = str(tool.store(home))
        rules = ("--keep-last", str(kept), "--horizon", "0h", "--horizon-entries", "0")
        retain = tool.command("retain", *rules, "--gc", "--quiet", "--store", store)
        return Step((retain,), home, tool.environment)
    if isinstance(tool, Borg):
        place = str(home / "repo")
        prune = (str(tool.program), "prune", "--keep-last", str(kept), place)
        compact = (str(tool.program), "compact", place)
        return Step((prune, compact), home, tool.save(home, home, "x").env)
    if isinstance(tool, Restic):
        base = tool.verify(home)
        words = ("forget", "--keep-last", str(kept), "--group-by", "host", "--prune")
        return Step(((*base.commands[0][:-2], *words),), home, base.env)
    assert isinstance(tool, Git)
    shallow = f'git rev-parse "main~{kept - 1}" > "$GIT_DIR/shallow"'
    commands = (
        ("sh", "-c", shallow),
        ("git", "reflog", "expire", "--expire=now", "--all"),
        ("git", "gc", "--quiet", "--prune=now"),
    )
    return Step(commands, home, tool.verify(home).env)


# -- the product alone -----------------------------------------------------------------------------


def row_gc_idle(ctx: Context) -> None:
    """gc with nothing to collect at a tenth and all of a million objects; memory of gc and fsck."""
    if ctx.product.lacks("gc") is not None:
        ctx.skip("cas gc", "this version has no gc")
        return
    stores = {"large": ctx.million(), "small": _filled(ctx, ctx.entries_large // 10)}
    row = f"gc-idle-{ctx.entries_large}"
    marked: dict[str, float] = {}
    for name, store in stores.items():
        marked[name] = _ask(ctx, "collect", store)["seconds"]
        ctx.run.one(f"{row}/cas-{name}/first", marked[name], "s", "a full mark")

    def contender(name: str, store: Path) -> Contender:
        return Contender(name, lambda turn: lambda: float(_ask(ctx, "collect", store)["seconds"]))

    for name, series in harness.interleave(
        [contender(*one) for one in stores.items()], ctx.rounds
    ).items():
        ctx.run.add(f"{row}/cas-{name}/seconds", series)
    store = stores["large"]
    for ages in (store / "cache").glob("gc-ages*"):
        ages.unlink()  # so that it has to mark again
    for quantity, words in (("gc_memory", ("gc",)), ("fsck_memory", ("fsck",))):
        command = ctx.product.command(*words, "--store", str(store))
        peak = harness.peak_anonymous(Step((command,), ctx.folder, ctx.product.environment))
        ctx.run.one(f"{row}/cas/{quantity}", peak, "B", "RssAnon, whole command")


def row_gc_beside(ctx: Context) -> None:
    """p99 of a small durable commit while gc marks and condemns in another process, and alone."""
    if ctx.product.lacks("gc") is not None:
        ctx.skip("cas gc", "this version has no gc")
        return
    store = _filled(ctx, ctx.entries_large // 10)
    ctx.probe_flush("gc-beside")
    samples: dict[str, list[float]] = {"alone": [], "beside": []}
    for _turn in range(ctx.rounds):
        for name, found in samples.items():
            found.append(_ask(ctx, name, store)["p99"])
    for name, found in samples.items():
        ctx.run.add(f"gc-beside/cas-{name}/p99", Series(tuple(found), "s"))


def row_rebuild(ctx: Context) -> None:
    """The catalog of a million objects made again from the packs alone: seconds and memory."""
    if ctx.product.lacks("repair") is not None:
        ctx.skip("cas repair", "this version has no repair")
        return
    origin = ctx.million()
    _ask(ctx, "mirror", origin)
    row = f"rebuild-{ctx.entries_large}"

    def bare() -> Path:
        copy = ctx.fresh("rebuild") / "agents.cas"
        shutil.copytree(origin, copy)
        for file in copy.glob("catalog.sqlite*"):
            file.unlink()
        shutil.rmtree(copy / "cache", ignore_errors=True)
        return copy

    def step(store: Path) -> Step:
        command = ctx.product.command("repair", "--store", str(store))
        return Step((command,), ctx.folder, ctx.product.environment)

    times = harness.interleave([Contender("cas", lambda turn: step(bare()))], ctx.rounds)
    ctx.run.add(f"{row}/cas/seconds", times["cas"])
    peak = harness.peak_anonymous(step(bare()))
    ctx.run.one(f"{row}/cas/memory", peak, "B", "RssAnon")


def _filled(ctx: Context, entries: int) -> Path:
    folder = ctx.fresh(f"entries-{entries}")
    with ctx.worker("cas", path=str(folder / "agents.cas")) as filler:
        filler.ask("fill", entries=entries)
        filler.ask("close")
    return folder / "agents.cas"


def _ask(ctx: Context, op: str, store: Path) -> dict[str, float]:
    """One operation of `workers_gc.py` in a fresh process."""
    python = ctx.product.command()[0]
    answer: dict[str, float] = json.loads(
        output_of([python, str(PROGRAM), op, str(store)], ctx.folder, ctx.product.environment)
    )
    return answer
