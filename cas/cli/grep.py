"""`cas grep`: search the files of a revision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from cas.cli.form import named
from cas.cli.front import Front, pass_front, tell_purged
from cas.cli.options import TARGET, CasCommand
from cas.cli.values import entry_fields
from cas.commands.grep import Found, GrepRequest, Line, grep
from cas.model.names import printable, to_text

_NOTHING: Final = 1


@click.command("grep", cls=CasCommand)
@click.argument("pattern", metavar="PATTERN")
@click.argument("target", metavar="REV[:PATH]", type=TARGET)
@click.option("-i", "--ignore-case", is_flag=True, help="Upper and lower case are the same.")
@click.option("-l", "--files-with-matches", "names_only", is_flag=True, help="Names only.")
@click.option("-n", "--line-number", "numbers", is_flag=True, help="With the number of each line.")
@click.option("-F", "--fixed-strings", "fixed", is_flag=True, help="PATTERN is text as it stands.")
@click.option(
    "-g", "--glob", "globs", metavar="GLOB", multiple=True, help="Only such paths; !GLOB: not them."
)
@click.option("-z", "--null", "nul", is_flag=True, help="With -l, exact names, each ended by NUL.")
@pass_front
def grep_command(
    front: Front,
    pattern: str,
    target: str,
    ignore_case: bool,
    names_only: bool,
    numbers: bool,
    fixed: bool,
    globs: tuple[str, ...],
    nul: bool,
) -> None:
    """Search the files of a revision.

    PATTERN is a regular expression of Python, held against each line. Of a binary file that
    matches only the name is told. The exit code is 1 where nothing matches, and 3 where files
    could not be searched because they were purged: they are named.
    """
    if nul and not names_only:
        raise click.UsageError("-z is for names; give -l too.")
    request = GrepRequest(pattern, ignore_case, fixed, names_only, globs)
    with front.store() as store:
        left_out: list[str] = []
        searched, found = grep(store, target, request, left_out)
        counted = _Counted(found)
        if front.out.json:
            front.out.document(
                "grep",
                commit=str(searched.snapshot.id),
                **named("path", searched.path),
                matches=[_fields(file) for file in counted],
                purged=[named("path", path) for path in sorted(left_out)],
            )
        elif names_only:
            front.out.names((file.path for file in counted), nul=nul)
        else:
            for file in counted:
                front.out.lines(_texts(front, file, numbers))
    front.exit_code = 0 if counted.any else _NOTHING
    tell_purged(front, sorted(left_out))


class _Counted:
    """What was found, and whether it was anything."""

    def __init__(self, found: Iterator[Found]) -> None:
        self._found = found
        self.any = False

    def __iter__(self) -> Iterator[Found]:
        for file in self._found:
            self.any = True
            yield file


def _texts(front: Front, file: Found, numbers: bool) -> Iterator[str]:
    path = front.out.paint(printable(file.path), "cyan")
    if file.binary:
        yield f"{path}: binary file matches"
    for line in file.lines:
        number = f"{line.number}:" if numbers else ""
        yield f"{path}:{number}{_shown(line)}"


def _shown(line: Line) -> str:
    """A line that can be written to any terminal; tabs stay."""
    text = to_text(line.text.removesuffix(b"\r"))
    return "\t".join(map(printable, text.split("\t")))


def _fields(file: Found) -> dict[str, Any]:
    lines = [{"number": line.number, **named("text", to_text(line.text))} for line in file.lines]
    return {
        **named("path", file.path),
        **entry_fields(file.entry),
        "binary": file.binary,
        "lines": lines,
    }


COMMANDS: Final = {"grep": grep_command}
