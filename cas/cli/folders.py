"""Working folders from the command line: `cas workspace checkout`, `sync`, `watch` and the like.

Floor 9. Invariant: what is shown of a folder is what one look at it gave; a lease of somebody
else is told, never a reason to refuse.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cas.cli.options import default_author
from cas.cli.output import Output
from cas.cli.values import LETTERS
from cas.commands.folders import checkout_row, report_row, status_row
from cas.history.revision import when
from cas.history.snapshot import Change
from cas.limits import FOLDER_NEW_MAX
from cas.model.names import printable
from cas.workspace.checkouts import EXTERNAL, Checkout, now_of
from cas.workspace.folders import FolderReport, FolderStatus
from cas.workspace.workspace import Workspace
from cas.worktree.values import Problem


class Asked:
    """What the options of one invocation said of working folders."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        new_max = said["new_max"]
        self.actor = default_author()
        self.author = said["author"] or EXTERNAL
        self.sprint = said["sprint"]
        self.new_max = FOLDER_NEW_MAX if new_max is None else new_max
        self.seconds = said["seconds"]


def act(
    out: Output, space: Workspace, action: str, folder: str | None, said: Mapping[str, Any]
) -> None:
    """Do one action on a working folder and show what became of it."""
    asked = Asked(said)
    if action == "folders":
        _folders(out, space)
        return
    if folder is None:
        raise click.UsageError("Give the DIR of a working folder.")
    if action == "status":
        _status(out, space, folder, asked.actor)
        return
    if action == "watch":
        _watch(out, space, folder, asked)
        return
    if action == "checkout":
        report: FolderReport | None = space.checkout(
            folder,
            actor=asked.actor,
            sprint=asked.sprint,
            author=asked.author,
            new_max=asked.new_max,
        )
    elif action == "sync":
        report = space.sync(folder, author=asked.author, new_max=asked.new_max)
    else:
        report = space.release(
            folder, actor=asked.actor, author=asked.author, new_max=asked.new_max
        )
    if report is not None:
        _report(out, space, report, asked.actor)
    elif out.json:
        out.document("workspace", checkout=None)
    else:
        out.note(f"{folder} is gone; it is a working folder no longer")


def _status(out: Output, space: Workspace, folder: str, actor: str) -> None:
    """How a working folder stands to its branch."""
    found: FolderStatus = space.status(folder)
    if out.json:
        out.document("workspace", **status_row(found, now_of(space.store)))
        return
    _lease(out, space, found.checkout, actor)
    out.lines(_lines("outside", found.outside, found.both, "both"))
    out.lines(_lines("incoming", found.incoming, found.both, "both"))
    out.lines(f"held      C {printable(path)}" for path in found.held)
    _problems(out, found.problems)
    if found.clean:
        out.note(f"the folder and {found.checkout.branch} are the same")


def _report(out: Output, space: Workspace, report: FolderReport, actor: str) -> None:
    if out.json:
        out.document("workspace", **report_row(report, now_of(space.store)))
        return
    _lease(out, space, report.checkout, actor)
    out.lines(_lines("captured", report.captured, report.merged, "merged"))
    out.lines(_lines("written", report.written, (), ""))
    held = dict.fromkeys((*report.conflicts, *report.held))
    out.lines(f"held      C {printable(path)}" for path in held)
    if held:
        out.note("both contents are kept, the folder has its own: `cas workspace conflicts`")
    out.warn_each(
        [f"{printable(path)} looks like a secret" for path in report.secrets],
        "name it in .casignore to leave it out, and `cas purge` what was taken in",
    )
    _problems(out, report.problems)


def _lines(word: str, changes: Sequence[Change], marked: Sequence[str], mark: str) -> list[str]:
    """A line a change; those that are `marked` say so."""
    both = set(marked)
    return [
        f"{word:9} {LETTERS[each.kind]} {printable(each.path)}"
        + (f" ({mark})" if each.path in both else "")
        for each in changes
    ]


def _problems(out: Output, problems: Sequence[Problem]) -> None:
    out.warn_each([each.message for each in problems], "these stay as they are in the folder")


def _lease(out: Output, space: Workspace, checkout: Checkout, actor: str) -> None:
    """Tell of somebody else who works there."""
    if checkout.holder != actor and checkout.held_at(now_of(space.store)):
        assert checkout.until is not None
        until = when(checkout.until)
        out.note(f"{printable(checkout.holder)} works in {checkout.folder} until {until}")


def _folders(out: Output, space: Workspace) -> None:
    now = now_of(space.store)
    found = space.checkouts()
    if out.json:
        out.document("workspace", checkouts=[checkout_row(each, now) for each in found])
        return
    for each in found:
        who = printable(each.holder) if each.held_at(now) else "-"
        sprint = "" if each.sprint is None else f" {printable(each.sprint.id)}"
        out.line(f"{each.id} {printable(each.branch)} {who} {each.folder}{sprint}")


def _watch(out: Output, space: Workspace, folder: str, asked: Asked) -> None:
    """Keep a folder in step until interrupted, or for so long."""
    stop = threading.Event()

    def heard(report: FolderReport) -> None:
        _report(out, space, report, asked.actor)

    ended = until_told(stop, asked.seconds)
    try:
        space.watch(
            folder,
            actor=asked.actor,
            on_report=heard,
            stop=stop,
            author=asked.author,
            new_max=asked.new_max,
        )
    finally:
        ended()


def until_told(stop: threading.Event, seconds: float | None) -> Callable[[], None]:
    """Set `stop` at the end of the time, or at SIGTERM; gives what undoes that."""
    undo: list[Callable[[], Any]] = []
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        undo.append(lambda: signal.signal(signal.SIGTERM, before))
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()
        undo.append(timer.cancel)
    return lambda: [each() for each in undo].clear()
