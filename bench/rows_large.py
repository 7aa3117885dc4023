"""Rows on corpus C: large files, first as they are and then edited and shifted, and back again.

Whole commands in fresh processes, in turn: product, borg, casync. Each set is a folder of four
files. Every restore goes into a new folder and is compared with its source once a tool.
"""

from __future__ import annotations

from pathlib import Path

from bench import corpus_c, harness
from bench.context import Context
from bench.harness import Contender, Series, Step
from bench.peers import Casync, Git, Tool, copy_step
from bench.rows_folder import differing

QUICK_FILES = ("memories.log", "wheels.bin")


def row_large(ctx: Context) -> None:
    """Corpus C: the first set, the edited one, restore of it; what both sets take; memory."""
    base, edited = _sets(ctx)
    tools = _tools(ctx)
    row = "large-quick" if ctx.quick else "large"
    homes: dict[str, Path] = {}

    def first(tool: Tool) -> Contender:
        def prepare(turn: int) -> Step:
            homes[tool.name] = ctx.new_home(tool, "large")
            return tool.save(homes[tool.name], base, "s0")

        return Contender(tool.name, prepare)

    def second(tool: Tool) -> Contender:
        def prepare(turn: int) -> Step:
            homes[tool.name] = ctx.new_home(tool, "large-edited")
            harness.run(tool.save(homes[tool.name], base, "s0"))
            return tool.save(homes[tool.name], edited, "s1")

        return Contender(tool.name, prepare)

    for quantity, contender in (("first", first), ("edited", second)):
        times = harness.interleave([contender(tool) for tool in tools], ctx.rounds)
        for tool in tools:
            ctx.run.add(f"{row}/{tool.name}/{quantity}", times[tool.name])
            found = tool.size(homes[tool.name]).file_bytes
            ctx.run.one(f"{row}/{tool.name}/{quantity}_bytes", found, "B")
    for tool in tools:
        both = ctx.run.figures[f"{row}/{tool.name}/edited_bytes"].headline
        alone = ctx.run.figures[f"{row}/{tool.name}/first_bytes"].headline
        ctx.run.one(f"{row}/{tool.name}/new_bytes", both - alone, "B", "what the edited set adds")
    _restores(ctx, row, tools, homes, edited)
    for tool in tools:
        peak = harness.peak_anonymous(tool.save(ctx.new_home(tool, "large-memory"), base, "s0"))
        ctx.run.one(f"{row}/{tool.name}/memory", peak, "B")


def _sets(ctx: Context) -> tuple[Path, Path]:
    sets = corpus_c.sets(ctx.root)
    if not ctx.quick:
        return sets
    fewer = ctx.fresh("large-quick")
    for folder in sets:
        target = fewer / folder.name
        target.mkdir()
        for name in QUICK_FILES:
            (target / name).hardlink_to(folder / name)
    return fewer / sets[0].name, fewer / sets[1].name


def _tools(ctx: Context) -> list[Tool]:
    """The snapshot tools that are made for large files: those of the folder rows but git."""
    tools = [tool for tool in ctx.tools() if not isinstance(tool, Git)]
    casync = Casync()
    reason = casync.missing_because()
    if reason is not None:
        ctx.skip(casync.name, reason)
        return tools
    ctx.run.versions[casync.name] = casync.version()
    return [*tools, casync]


def _restores(
    ctx: Context, row: str, tools: list[Tool], homes: dict[str, Path], edited: Path
) -> None:
    targets: dict[str, Path] = {}

    def restore(tool: Tool) -> Contender:
        def prepare(turn: int) -> Step:
            targets[tool.name] = ctx.fresh(f"restored-{tool.name}")
            return tool.restore(homes[tool.name], targets[tool.name], "s1")

        return Contender(tool.name, prepare)

    def copy(turn: int) -> Step:
        return copy_step(edited, ctx.fresh("restored-cp"))

    contenders = [*(restore(tool) for tool in tools), Contender("cp", copy)]
    times = harness.interleave(contenders, ctx.rounds)
    for name, series in times.items():
        ctx.run.add(f"{row}/{name}/restore", series)
    for tool in tools:
        wrong = differing(edited, targets[tool.name])
        ctx.run.add(f"{row}/{tool.name}/wrong_files", Series((float(len(wrong)),), "files"))
