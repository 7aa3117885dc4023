"""Look into versions: list directories, open files, tell what something is.

Floor 8. Invariant: nothing here writes; each answer is about one moment of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cas.commands.target import Target, resolve
from cas.errors import Invalid, RevisionNotFound, WrongKind
from cas.history.horizon import Thinning
from cas.history.lasting import lasting
from cas.history.revision import split_path
from cas.history.snapshot import Change, Snapshot
from cas.history.store import Store
from cas.history.tombstones import Tombstone, tombstone_of
from cas.history.view import View
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, is_abbreviation
from cas.model.names import TAGS, quoted
from cas.model.objects import Commit, EntryKind, Tag, TreeEntry
from cas.model.values import frozen
from cas.objects.content import BlobReader
from cas.trees.node import DIRECTORY


class Listed(NamedTuple):
    """One line of a listing. `path` is relative to what was listed."""

    path: str
    entry: TreeEntry


def list_target(store: Store, text: str, *, recursive: bool) -> tuple[Target, Iterator[Listed]]:
    """What lies in a directory of a revision, or the file itself; lazily, in order of path.

    With `recursive` every file and link below it, without the directories.
    """
    target = resolve(store.view(), text)
    if not target.entry.is_tree:
        name = target.path.rsplit("/", 1)[-1]
        return target, iter([Listed(name, target.entry)])
    if not recursive:
        entries = target.snapshot.entries(target.path)
        return target, (Listed(name, entry) for name, entry in entries)
    files = subtree(store, target).walk()
    return target, (Listed(path, entry) for path, entry in files)


def subtree(store: Store, target: Target) -> Snapshot:
    """The directory of a target as a snapshot of its own, paths relative to it."""
    if not target.entry.is_tree:
        raise WrongKind(
            f"{quoted(target.text)} is a file, not a directory.",
            id=target.entry.id,
            expected="tree",
            actual=target.entry.kind.name.lower(),
        )
    if not target.path:
        return target.snapshot
    return Snapshot(store.objects, TreeId(target.entry.id), None, None)


def nothing(store: Store) -> Snapshot:
    """A snapshot without files."""
    return Snapshot(store.objects, TreeId(DIRECTORY.empty), None, None)


def open_target(store: Store, text: str) -> tuple[Target, BlobReader]:
    """The file (or the target of the link) at `REV:PATH` as a stream."""
    _revision, path = split_path(text)
    if not path:
        raise Invalid(f"Name a file as REV:PATH; {quoted(text)} names none.", revision=text)
    target = resolve(store.view(), text)
    return target, target.snapshot.open(path)


@frozen
class CommitShown:
    """A commit, and what it changed from its first parent (from nothing when it has none).

    `base` is that parent, or the nearest before it whose content was not given up. Of a commit
    that was thinned itself there is neither a size nor a change to tell.
    """

    id: CommitId
    commit: Commit
    size_bytes: int | None
    changes: Iterator[Change]
    base: CommitId | None = None
    thinned: Thinning | None = None


@frozen
class EntryShown:
    """What lies at a path of a revision; for a link, where it leads. `purged` of content that
    was purged.
    """

    target: Target
    link: bytes | None
    entry_count: int | None
    purged: Tombstone | None = None


@frozen
class ObjectShown:
    """An object by its id. `tag` is set for a tag; `stored_bytes` is its copy's payload."""

    id: ObjectId
    kind: Kind
    size_bytes: int
    stored_bytes: int
    tag: Tag | None


Shown = CommitShown | EntryShown | ObjectShown


def show(store: Store, text: str) -> Shown:
    """Tell what `REV`, `REV:PATH` or the id of any object names; an annotated tag is itself.

    Raises `RevisionNotFound`, `PathNotFound`, `AmbiguousRevision`, `Invalid`.
    """
    view = store.view()
    revision, path = split_path(text)
    if path:
        return _show_entry(store, view, resolve(view, text))
    try:
        shown = _show_commit(store, view, revision)
    except (RevisionNotFound, WrongKind):
        if not is_abbreviation(revision.lower()):
            raise
        return _show_object(store, view.find(revision))
    tag = _tag_named(view, revision)
    return shown if tag is None else _show_object(store, tag)


def _tag_named(view: View, revision: str) -> ObjectId | None:
    """The annotated tag that a revision names, which resolving went through."""
    for ref in (view.ref(revision), view.ref(TAGS + revision)):
        if ref is not None and ref.kind == Kind.TAG:
            return ref.target
    if is_abbreviation(revision.lower()):
        id = view.find(revision)
        return None if view.resolve(id) == id else id
    return None


def _show_commit(store: Store, view: View, revision: str) -> CommitShown:
    id = view.resolve(revision)
    thinned = view.thinning(id)
    if thinned is not None:
        return CommitShown(id, view.commit(id), None, iter(()), thinned=thinned)
    snapshot = view.snapshot(id)
    assert snapshot.commit is not None
    parents = lasting(store.core).get(id).parents
    base = parents[0] if parents else None
    before = nothing(store) if base is None else view.snapshot(base)
    return CommitShown(id, snapshot.commit, snapshot.size, before.diff(snapshot), base)


def _show_entry(store: Store, view: View, target: Target) -> EntryShown:
    entry = target.entry
    stone = None if entry.is_tree else tombstone_of(store.core, view.moment, entry.id)
    if stone is not None:
        return EntryShown(target, None, None, stone)
    link = target.snapshot.read(target.path) if entry.kind == EntryKind.LINK else None
    number = sum(1 for _ in target.snapshot.entries(target.path)) if entry.is_tree else None
    return EntryShown(target, link, number)


def _show_object(store: Store, id: ObjectId) -> ObjectShown:
    store.objects.require(id)
    copy = store.objects.find(id)
    assert copy is not None
    slot = copy.slot
    tag = None
    if slot.kind == Kind.TAG:
        tag = Tag.decode(store.objects.get(id, Kind.TAG), verified=True)
    return ObjectShown(id, Kind(slot.kind), slot.raw_bytes, slot.stored_bytes, tag)
