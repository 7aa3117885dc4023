"""`cas diff`: what changed between two revisions, or in a folder since one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import click

from cas.cli.form import named, size
from cas.cli.front import Front, pass_front, tell_purged
from cas.cli.options import FOLDER, TARGET, CasCommand
from cas.cli.output import Output
from cas.cli.values import COLORS, LETTERS, change_fields, problem_fields
from cas.commands.compare import Comparison, DiffRequest, compare
from cas.commands.target import Target
from cas.errors import Purged
from cas.history.snapshot import Change
from cas.model.names import printable
from cas.worktree.values import ImportOptions


@click.command("diff", cls=CasCommand)
@click.argument("old", metavar="A", type=TARGET)
@click.argument("new", metavar="[B|DIR]", required=False, type=TARGET)
@click.option("--folder", metavar="DIR", type=FOLDER, help="Compare with this folder.")
@click.option("-p", "--patch", is_flag=True, help="Unified text of what changed.")
@click.option("-M", "--renames", is_flag=True, help="Tell files that were renamed as such.")
@click.option("-z", "--null", "nul", is_flag=True, help="Exact names, each line ended by NUL.")
@click.option("--gitignore", is_flag=True, help="In a folder, honour .gitignore too.")
@pass_front
def diff(
    front: Front,
    old: str,
    new: str | None,
    folder: str | None,
    patch: bool,
    renames: bool,
    nul: bool,
    gitignore: bool,
) -> None:
    """Show what changed between two revisions, or in a folder.

    A and B are REV or REV:PATH. Where B is no revision but a folder, A is compared with the
    folder as `cas snapshot` would see it; --folder says so outright, and ./NAME never is a
    revision. A line is A (added), D (removed), M (modified) or T (became another kind), then
    the path; with --renames also R, then the old path and the new one. The exit code says nothing
    about whether there are changes.
    """
    if (new is None) == (folder is None):
        raise click.UsageError("Give B, or a folder with --folder, and only one of them.")
    if patch and nul:
        raise click.UsageError("-z lists names only; leave out --patch.")
    request = DiffRequest(old, new, folder, ImportOptions(gitignore=gitignore), renames)
    gone: list[str] = []
    with front.store() as store:
        found = compare(store, request)
        if front.out.json:
            rows = [_fields(found, change, patch, gone) for change in found.changes]
            front.out.document(
                "diff",
                old=_side(found.old, None),
                new=_side(found.new, found.folder),
                changes=rows,
                purged=[named("path", path) for path in gone],
                problems=problem_fields(found.problems),
            )
            tell_purged(front, gone)
            return
        counts: Counter[str] = Counter()
        for change in found.changes:
            counts[change.kind.value] += 1
            _show(front.out, found, change, gone, patch=patch, nul=nul)
    told = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
    front.out.note(told or "no change")
    front.out.warn_each(
        [f"not compared: {problem.message}" for problem in found.problems],
        "these count as not there, as for `cas snapshot`",
    )
    tell_purged(front, gone)


def _show(
    out: Output, found: Comparison, change: Change, gone: list[str], *, patch: bool, nul: bool
) -> None:
    letter = LETTERS[change.kind]
    if nul:
        out.names([f"{letter} {change.path}"], nul=True)
    elif patch:
        out.lines(_patch_lines(out, found, change, gone))
    else:
        origin = "" if change.origin is None else f"{printable(change.origin)} -> "
        out.line(out.paint(letter, COLORS[letter]) + " " + origin + printable(change.path))


def _patch_lines(out: Output, found: Comparison, change: Change, gone: list[str]) -> Iterator[str]:
    text = _patch(found, change, gone)
    if text is None:
        old = "nothing" if change.old is None else change.old.kind.name.lower()
        new = "nothing" if change.new is None else change.new.kind.name.lower()
        title = f"diff {printable(change.path)} ({change.kind}: {old} -> {new})"
        yield out.paint(title, "bold")
        sizes = " -> ".join(size(e.size) for e in (change.old, change.new) if e is not None)
        yield f"no text: {sizes}"
        return
    # A terminal is protected from what files hold; a pipe gets it exactly, for `patch`.
    escape = sys.stdout.isatty()
    colors = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.split("\n")[:-1]:
        shown = "\t".join(map(printable, line.split("\t"))) if escape else line
        color = colors.get(line[:1], "bold" if line[:1].isalpha() else "")
        yield out.paint(shown, color) if color else shown


def _patch(found: Comparison, change: Change, gone: list[str]) -> str | None:
    """The text of a change; None where there is none. What was purged is added to `gone`."""
    try:
        return found.patch(change)
    except Purged:
        gone.append(change.path)
        return None


def _fields(found: Comparison, change: Change, patch: bool, gone: list[str]) -> dict[str, Any]:
    fields = change_fields(change)
    if patch:
        fields["patch"] = _patch(found, change, gone)
    return fields


def _side(target: Target | None, folder: str | None) -> dict[str, Any]:
    if target is None:
        assert folder is not None
        return named("folder", folder)
    return {"commit": str(target.snapshot.id), **named("path", target.path)}


COMMANDS: Final = {"diff": diff}
