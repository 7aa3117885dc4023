"""`cas write`, `cas rm`, `cas mv` and `cas cp`: change files of a branch without a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from cas.cli.form import count, named
from cas.cli.front import Front, pass_front
from cas.cli.options import TARGET, CasCommand, default_author, raw_option
from cas.cli.values import entry_fields
from cas.commands.edit import (
    Edited,
    EditRequest,
    Write,
    copy_files,
    move_files,
    parse_place,
    remove_files,
    write_files,
)
from cas.model.objects import EntryKind

_F = TypeVar("_F", bound=Callable[..., Any])


def commit_options(command: _F) -> _F:
    """What every command takes that makes a commit from paths."""
    for option in (
        raw_option,
        click.option(
            "--if-match",
            metavar="ID",
            help="Only if the path is this object or its branch at this commit; `none`: not there.",
        ),
        click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host."),
        click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says."),
    ):
        command = option(command)
    return command


def request_of(message: str, author: str | None, if_match: str | None) -> EditRequest:
    """The request that these options make."""
    return EditRequest(author or default_author(), message, if_match)


@click.command("write", cls=CasCommand)
@click.argument("words", metavar="BRANCH:PATH [FILE|-] ...", nargs=-1, required=True, type=TARGET)
@click.option("-x", "--executable", is_flag=True, help="Make them executable.")
@click.option("--plain", is_flag=True, help="Make them not executable.")
@click.option("--link", is_flag=True, help="Make them links; the content is where they lead.")
@commit_options
@pass_front
def write(
    front: Front,
    words: tuple[str, ...],
    executable: bool,
    plain: bool,
    link: bool,
    message: str,
    author: str | None,
    if_match: str | None,
) -> None:
    """Write files into a branch.

    Without FILE, or with -, standard input is written. Several pairs of BRANCH:PATH and FILE make
    one commit. The id of the commit is printed; what is there already makes none.
    """
    if len(words) > 1 and len(words) % 2:
        raise click.UsageError("Give BRANCH:PATH and FILE in pairs.")
    if executable + plain + link > 1:
        raise click.UsageError("Choose one of --executable, --plain and --link.")
    pairs = [*words, "-"] if len(words) == 1 else list(words)
    writes = [Write(parse_place(at), source) for at, source in zip(*[iter(pairs)] * 2, strict=True)]
    if pairs[1::2].count("-") > 1:
        raise click.UsageError("Standard input can be written once; name - once.")
    kinds = {EntryKind.EXECUTABLE: executable, EntryKind.FILE: plain, EntryKind.LINK: link}
    kind = next((kind for kind, wanted in kinds.items() if wanted), None)
    request = request_of(message, author, if_match)
    with front.store(write=True) as store:
        front.check_branches(store, *(each.place.branch for each in writes))
        edited = write_files(store, writes, request, sys.stdin.buffer, kind=kind)
    tell_edited(front, "write", edited)


@click.command("rm", cls=CasCommand)
@click.argument("places", metavar="BRANCH:PATH...", nargs=-1, required=True, type=TARGET)
@click.option("-r", "--recursive", is_flag=True, help="Directories too, with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
@commit_options
@pass_front
def rm(
    front: Front,
    places: tuple[str, ...],
    recursive: bool,
    force: bool,
    message: str,
    author: str | None,
    if_match: str | None,
) -> None:
    """Remove files from a branch.

    All go in one commit, or none does. They stay in the revisions before it.
    """
    named_places = [parse_place(text) for text in places]
    request = request_of(message, author, if_match)
    with front.store(write=True) as store:
        front.check_branches(store, *(each.branch for each in named_places))
        edited = remove_files(store, named_places, request, recursive=recursive, force=force)
    tell_edited(front, "rm", edited)


@click.command("mv", cls=CasCommand)
@click.argument("sources", metavar="BRANCH:PATH...", nargs=-1, required=True, type=TARGET)
@click.argument("target", metavar="BRANCH:PATH", type=TARGET)
@commit_options
@pass_front
def mv(
    front: Front,
    sources: tuple[str, ...],
    target: str,
    message: str,
    author: str | None,
    if_match: str | None,
) -> None:
    """Move files within a branch, or to another.

    A target that is a directory, or ends in a slash, takes them under their own names; a file in
    the way is replaced, a directory is not. Nothing is read or copied, whatever the size.
    """
    request = request_of(message, author, if_match)
    places, place = [parse_place(text) for text in sources], parse_place(target)
    with front.store(write=True) as store:
        front.check_branches(store, *(each.branch for each in (*places, place)))
        edited = move_files(store, places, place, request)
    tell_edited(front, "mv", edited)


@click.command("cp", cls=CasCommand)
@click.argument("sources", metavar="REV:PATH...", nargs=-1, required=True, type=TARGET)
@click.argument("target", metavar="BRANCH:PATH", type=TARGET)
@commit_options
@pass_front
def cp(
    front: Front,
    sources: tuple[str, ...],
    target: str,
    message: str,
    author: str | None,
    if_match: str | None,
) -> None:
    """Copy files of any revision into a branch.

    The target is read as in `cas mv`. Nothing is read or copied, whatever the size.
    """
    request = request_of(message, author, if_match)
    place = parse_place(target)
    with front.store(write=True) as store:
        front.check_branches(store, place.branch)
        edited = copy_files(store, sources, place, request)
    tell_edited(front, "cp", edited)


def tell_edited(front: Front, command: str, edited: Edited) -> None:
    """The ids of the commits, and what they changed."""
    if front.out.json:
        changes = [
            {
                "branch": change.branch,
                **named("path", change.path),
                "old": None if change.old is None else entry_fields(change.old),
                "new": None if change.new is None else entry_fields(change.new),
            }
            for change in edited.changes
        ]
        commits = [{"branch": branch, "commit": str(id)} for branch, id in edited.commits]
        front.out.document(command, commits=commits, entry=edited.seq, changes=changes)
        return
    front.out.lines(str(id) for _branch, id in edited.commits)
    if edited.commits:
        branches = ", ".join(branch for branch, _id in edited.commits)
        front.out.note(f"{branches}: {count(len(edited.changes), 'path')} changed")
    else:
        front.out.note("nothing changed, so there is no commit")


COMMANDS: Final = {"write": write, "rm": rm, "mv": mv, "cp": cp}
