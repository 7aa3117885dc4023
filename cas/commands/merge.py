"""Merge, list and settle conflicts, and tell where lines and entries come from.

Floor 8. Invariant: what is settled is settled in one transaction, all paths or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from cas.commands.target import Target, at_path, resolve
from cas.errors import Invalid, Purged
from cas.history.blame import BlamedEntry, BlamedLine
from cas.history.branch import Side
from cas.history.conflicts import MergeConflict
from cas.history.store import Store
from cas.model.entry import Entry
from cas.model.ids import CommitId
from cas.objects.content import Readable


@frozen
class Conflicted:
    """The conflicts that a commit holds, still to be settled."""

    id: CommitId
    conflicts: tuple[MergeConflict, ...]


def conflicted(store: Store, revision: str) -> Conflicted:
    """Conflicts of a revision, ascending by path. Raises what resolving a revision raises."""
    view = store.view()
    id = view.resolve(revision)
    return Conflicted(id, store.conflicts(id))


@frozen
class Resolved:
    """What settling conflicts gave: the entry, the commit, and what is still open."""

    entry: Entry
    commit: CommitId
    still_open: tuple[MergeConflict, ...]


def resolve_paths(
    store: Store,
    branch: str,
    paths: Sequence[str],
    *,
    take: Side | None = None,
    content: Readable | None = None,
    author: str,
    message: str = "",
) -> Resolved:
    """Settle the conflicts at these paths for a side, or the one path by content.

    Raises `PathNotFound` where there is no conflict, `Invalid`, `RefConflict`.
    """
    if (take is None) == (content is None):
        raise Invalid("Give a side to take, or a file with the content, and only one of them.")
    if content is not None and len(paths) != 1:
        raise Invalid("Content settles one path; name only that one.")
    about = message or f"settle {paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else "")
    with store.begin(author=author, message=about) as tx:
        edit = tx.branch(branch)
        for path in paths:
            edit.resolve(path, content, take=take)
        entry = tx.commit()
    target = entry.target(edit.ref)
    assert target is not None
    id = CommitId(target)
    return Resolved(entry, id, store.conflicts(id))


@frozen
class Blamed:
    """Where the lines of a file, or the entries of a directory, come from; one is empty."""

    target: Target
    lines: Sequence[BlamedLine]
    entries: Iterator[BlamedEntry] | None


def blame(store: Store, text: str) -> Blamed:
    """Lines of the file, or entries of the directory, at `REV[:PATH]`.

    Raises what resolving a target raises, `Invalid` for a file that is no text, `WrongKind` for
    a link.
    """
    view = store.view()
    target = resolve(view, text)
    assert target.snapshot.id is not None
    where: Any = target.snapshot.id, target.path
    if target.entry.is_tree:
        return Blamed(target, (), view.blame_entries(*where))
    try:
        return Blamed(target, view.blame(*where), None)
    except Purged as error:
        raise at_path(error, target.path) from error
