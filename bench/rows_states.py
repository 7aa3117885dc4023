"""The row of the six states of corpus A: what they take together, what deltas cost, the way back.

Every tool saves the six states one after the other into one store, without a step in between or
afterwards; the product also into a store without deltas, which says what deltas cost. Whole
commands in fresh processes. "git-packed" is a bare clone of git's repository: one pack, made as
`git gc` makes it, and nothing is deleted. Invariant: what is restored is compared with its state.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import attrs

from bench import corpus, harness
from bench.context import MILLION, Context
from bench.harness import Contender, Series, Step
from bench.peers import Git, Tool, output_of
from bench.product import Cas
from bench.rows_folder import differing
from tools import releases

MEMORY_FOLDER = Path("/dev/shm")

Six = list[tuple[str, Tool, Path]]
"""Name, tool, and a home that holds the six states."""


@attrs.frozen
class CasWhole(Cas):
    """The product with a store in which no object is a delta."""

    name: str = "cas-whole"

    def make(self, home: Path) -> None:
        code = f"import cas; cas.init({str(self.store(home))!r}, deltas=False)"
        output_of([self.command()[0], "-c", code], home, self.environment)


def row_states(ctx: Context) -> None:
    """Six states kept: size, seconds of the later five, check of all, oldest and newest back."""
    row = f"states-{len(ctx.states())}"
    six: Six = []
    if ctx.has("cas"):
        six += _save_product(ctx, row)
    for tool in ctx.tools():
        if tool.name != "cas":
            home = ctx.new_home(tool, "states")
            later = sum(_save(tool, home, ctx.states())[1:])
            ctx.run.one(f"{row}/{tool.name}/later", later, "s", "once; not judged")
            six.append((tool.name, tool, home))
    for at, (_name, tool, home) in enumerate(six):
        if isinstance(tool, Git):  # loose files last, in every round
            packed = ctx.folder / "git-states-packed"
            tool.pack(home, packed)
            six.insert(at, ("git-packed", tool, packed))
            break
    for name, tool, home in six:
        found = tool.size(home)
        ctx.run.one(f"{row}/{name}/bytes", found.file_bytes, "B", f"{found.files} files")
    _check(ctx, row, six)
    for which, number in (("oldest", 0), ("newest", len(ctx.states()) - 1)):
        _restore(ctx, row, [one for one in six if one[0] != "cas-whole"], which, number)


def row_files(ctx: Context) -> None:
    """A folder of a million files saved, and saved again: RssAnon. The folder is in memory."""
    if ctx.product.lacks("init", "snapshot") is not None or not MEMORY_FOLDER.is_dir():
        ctx.skip("a million files", f"no snapshot yet, or no {MEMORY_FOLDER}")
        return
    count = MILLION // 100 if ctx.quick else MILLION
    folder = MEMORY_FOLDER / f"cas-bench-{os.getpid()}"
    try:
        for number in range(count):
            place = folder / f"folder-{number // 1000:04d}"
            if number % 1000 == 0:
                place.mkdir(parents=True)
            (place / f"file-{number % 1000:04d}.txt").write_bytes(b"content of file %d\n" % number)
        home = ctx.new_home(ctx.product, "files")
        for quantity in ("first_memory", "again_memory"):
            peak = harness.peak_anonymous(ctx.product.save(home, folder, quantity))
            ctx.run.one(f"files-{count}/cas/{quantity}", peak, "B", "43 bytes of path each")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save(tool: Tool, home: Path, states: list[Path]) -> list[float]:
    return [
        harness.run(tool.save(home, state, f"s{number}")) for number, state in enumerate(states)
    ]


def _save_product(ctx: Context, row: str) -> Six:
    """With and without deltas, state by state in turn; the homes of the last round."""
    tools: list[Cas] = [ctx.product, CasWhole(ctx.product.place)]
    sums: dict[str, list[float]] = {tool.name: [] for tool in tools}
    homes: dict[str, Path] = {}
    for _turn in range(ctx.rounds):
        homes = {tool.name: ctx.new_home(tool, "states") for tool in tools}
        later = dict.fromkeys(homes, 0.0)
        for number, state in enumerate(ctx.states()):
            contenders = [_saving(tool, homes[tool.name], state, number) for tool in tools]
            for name, series in harness.interleave(contenders, 1, warmup=0).items():
                later[name] += series.headline if number else 0.0
        for name, seconds in later.items():
            sums[name].append(seconds)
    for name, found in sums.items():
        ctx.run.add(f"{row}/{name}/later", Series(tuple(found), "s"), "states 2 to 6")
    return [(tool.name, tool, homes[tool.name]) for tool in tools]


def _saving(tool: Tool, home: Path, state: Path, number: int) -> Contender:
    return Contender(tool.name, lambda turn: tool.save(home, state, f"s{number}"))


def _check(ctx: Context, row: str, six: Six) -> None:
    def contender(name: str, tool: Tool, home: Path) -> Contender:
        return Contender(name, lambda turn: tool.verify(home))

    contenders = [contender(*one) for one in six]
    for name, series in harness.interleave(contenders, ctx.rounds).items():
        ctx.run.add(f"{row}/{name}/fsck", series)


def _restore(ctx: Context, row: str, six: Six, which: str, number: int) -> None:
    state, back = ctx.states()[number], len(ctx.states()) - 1 - number
    wrong: dict[str, list[str]] = {}
    targets: dict[str, Path] = {}

    def contender(name: str, tool: Tool, home: Path) -> Contender:
        def prepare(turn: int) -> Step:
            targets[name] = ctx.fresh(f"{which}-{name}")
            return tool.restore(home, targets[name], f"s{number}", back)

        def check(turn: int) -> None:
            if turn == 0 and releases.count(targets[name]) != corpus.PINNED[number]:
                wrong[name] = differing(state, targets[name])

        return Contender(name, prepare, check)

    contenders = [contender(*one) for one in six]
    for name, series in harness.interleave(contenders, ctx.rounds).items():
        files = wrong.get(name, [])
        ctx.run.add(f"{row}/{name}/{which}", series)
        ctx.run.one(f"{row}/{name}/{which}_wrong", len(files), "files", " ".join(files[:5]))
