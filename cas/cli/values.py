"""Values of the store in JSON and in a line of text.

Floor 9. Invariant: the same value has the same keys in every document.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.cli.form import named, plain
from cas.history.horizon import Thinning
from cas.history.revision import when
from cas.history.snapshot import Change, ChangeKind
from cas.history.tombstones import Tombstone
from cas.model.entry import Entry, Event
from cas.model.ids import CommitId
from cas.model.names import printable
from cas.model.objects import Commit, TreeEntry

if TYPE_CHECKING:
    from cas.workspace.registry import Aggregate
    from cas.worktree.values import Problem

LETTERS: Final = {
    ChangeKind.ADDED: "A",
    ChangeKind.REMOVED: "D",
    ChangeKind.MODIFIED: "M",
    ChangeKind.RETYPED: "T",
    ChangeKind.RENAMED: "R",
}
COLORS: Final = {"A": "green", "D": "red", "M": "yellow", "T": "cyan", "R": "cyan"}


def entry_fields(entry: TreeEntry) -> dict[str, Any]:
    """An entry of a directory: kind, id, bytes of content."""
    return {"kind": entry.kind.name.lower(), "id": str(entry.id), "size": entry.size}


def change_fields(change: Change) -> dict[str, Any]:
    """A path that differs, with both sides; null where it is not."""
    renamed: dict[str, Any] = {}
    if change.origin is not None:
        renamed = {**named("origin", change.origin), "similarity": change.similarity}
    return {
        "change": change.kind.value,
        **named("path", change.path),
        "old": None if change.old is None else entry_fields(change.old),
        "new": None if change.new is None else entry_fields(change.new),
        **renamed,
    }


def problem_fields(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """What of a folder could not be saved or compared, and why."""
    return [
        {**named("path", p.path), "reason": p.reason, "message": printable(p.message)}
        for p in problems
    ]


def aggregate_line(value: Aggregate, piece: str | None = None) -> str:
    """An aggregate in a line: its link, and a piece of its text, else what says most of it."""
    said = " ".join(piece.split()) if piece else ""
    for name in () if piece else ("text", "title", "name"):
        said = said or getattr(value, name, None) or ""
    first = str(said).strip().splitlines()[:1]
    return f"{printable(str(value.link))}\t{printable(first[0][:120]) if first else ''}"


def commit_fields(id: CommitId, commit: Commit, thinned: Thinning | None = None) -> dict[str, Any]:
    """A commit. `thinned` is null for one that has its content."""
    return {
        "commit": str(id),
        "tree": str(commit.tree),
        "parents": [str(parent) for parent in commit.parents],
        "author": commit.author,
        "message": commit.message,
        "time": when(commit.time_us, exact=True),
        "extras": plain(commit.extras),
        "thinned": None if thinned is None else removal_fields(thinned),
    }


def removal_fields(by: Thinning | Tombstone) -> dict[str, Any]:
    """When, by whom and why content was given up or purged."""
    return {
        "reason": printable(by.reason),
        "author": printable(by.author),
        "time": when(by.time_us, exact=True),
    }


def about_removal(by: Thinning | Tombstone) -> str:
    """The same in one line."""
    who = f" by {printable(by.author)}" if by.author else ""
    return f"{when(by.time_us)}{who}: {printable(by.reason)}"


def journal_fields(entry: Entry) -> dict[str, Any]:
    """A journal entry with its ref changes and events."""
    return {
        "seq": entry.seq,
        "time": when(entry.time_us, exact=True),
        "wall_time": when(entry.wall_us, exact=True),
        "epoch": entry.epoch,
        "actor": entry.actor,
        "message": entry.message,
        "txid": entry.txid.hex(),
        "changes": [
            {
                "ref": change.ref,
                "old": None if change.old is None else str(change.old),
                "new": None if change.new is None else str(change.new),
            }
            for change in entry.changes
        ],
        "events": [_event_fields(event) for event in entry.events],
        "root": entry.root.hex(),
        "previous": entry.previous.hex(),
    }


def _event_fields(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = {"headers": dict(event.headers)}
    if event.blob is not None:
        return {"type": event.type, **body, "blob": str(event.blob)}
    content = b64encode(event.body or b"").decode("ascii")
    return {"type": event.type, **body, "body_base64": content}
