"""Reading aggregates: one context's tree at one moment, typed collections over it.

Floor 6. Invariant: what a reader gives was decoded from one commit of its context; it never
changes. Any thread may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from cas.errors import AggregateNotFound
from cas.history.core import Core
from cas.history.snapshot import Snapshot
from cas.history.view import View
from cas.model.ids import BlobId, CommitId, Kind, as_blob_id
from cas.model.names import split_path
from cas.model.objects import TREE, Commit
from cas.trees import paths
from cas.trees.cursor import find
from cas.trees.node import DIRECTORY
from cas.workspace.codec import from_record, typed
from cas.workspace.layout import MAIN, context_branch, record_path, snapshot_of
from cas.workspace.links import is_plain
from cas.workspace.registry import Aggregate, AggregateType, type_of

T = TypeVar("T", bound=Aggregate)
Where = Callable[[Any], bool]
"""A predicate over aggregates."""

_GROUP: Final = 1024


@frozen
class Version(Generic[T]):
    """One version of an aggregate: the commit that made it, and what it was then, None: removed."""

    commit: CommitId
    author: str
    message: str
    time_us: int
    value: T | None


class Reader:
    """All contexts as of one view, on one branch."""

    def __init__(self, core: Core, view: View, branch: str = MAIN) -> None:
        self.core = core
        self.view = view
        self.branch = branch
        self._snapshots: dict[str, Snapshot] = {}
        # Roots of the folders of collections, so that a get walks one directory and not two.
        self._folders: dict[str, bytes | None] = {}
        self._nodes = core.objects.tree_nodes(DIRECTORY)

    @property
    def seq(self) -> int:
        """The journal entry that it stands after."""
        return self.view.seq

    def snapshot(self, context: str) -> Snapshot:
        """The files of a context; empty where nothing was written yet."""
        found = self._snapshots.get(context)
        if found is None:
            found = self._snapshots[context] = snapshot_of(self.core, self.commit(context))
        return found

    def commit(self, context: str) -> CommitId | None:
        """The commit of a context; None where nothing was written yet."""
        ref = self.view.ref("heads/" + context_branch(context, self.branch))
        return None if ref is None else CommitId(ref.target)

    def preset(self, context: str, snapshot: Snapshot) -> None:
        """Take these files for those of a context."""
        self._snapshots[context] = snapshot
        self._folders.clear()

    def _folder(self, type: AggregateType) -> bytes | None:
        """The root of the folder of a collection; None where there is none yet."""
        if type.collection not in self._folders:
            entry = self.snapshot(type.context).entry(type.collection)
            found = None if entry is None or not entry.is_tree else bytes(entry.id)
            self._folders[type.collection] = found
        return self._folders[type.collection]

    def record(self, type: AggregateType, id: str) -> BlobId | None:
        """The record of an aggregate; None where there is none."""
        root = self._folder(type)
        if root is None:
            return None
        value: tuple[int, bytes] | tuple[int, bytes, int] | None
        if is_plain(id):  # Most ids are one name.
            value = find(DIRECTORY, root, id.encode(), self._nodes)
        else:
            value = paths.value_at(root, split_path(id), self._nodes)
        return None if value is None or value[0] == TREE else as_blob_id(value[1])

    def load(self, type: AggregateType, record: BlobId) -> Aggregate:
        """The aggregate of a record."""
        objects = self.core.objects
        data = objects.quick.get(record) or objects.get(record, Kind.BLOB)
        return from_record(data, expected=type, origin=record)

    def records(self, type: AggregateType) -> Iterator[tuple[str, BlobId]]:
        """(id, record) of all aggregates of a type, in the order of ids."""
        snapshot = self.snapshot(type.context)
        folder = snapshot.entry(type.collection)
        if folder is None or not folder.is_tree:
            return
        skip = len(type.collection) + 1
        found = (
            ((path[skip:], entry) for path, entry in snapshot.walk(type.collection))
            if type.path_ids
            else snapshot.entries(type.collection)
        )
        for id, entry in found:
            yield id, BlobId(entry.id)


class Collection(Generic[T]):
    """The aggregates of one type, as of one moment."""

    def __init__(self, reader: Reader, cls: type[T]) -> None:
        self._reader = reader
        self._cls = cls
        self.type = type_of(cls)

    def __repr__(self) -> str:
        return f"<Collection {self.type.collection} after entry {self._reader.seq}>"

    def get(self, id: str) -> T:
        """The aggregate of this id. Raises `AggregateNotFound`."""
        found = self.find_one(id)
        if found is None:
            raise not_found(self.type, id)
        return found

    def find_one(self, id: str) -> T | None:
        """The aggregate of this id, or None."""
        record = self._reader.record(self.type, id)
        return None if record is None else self._load(record)

    def _load(self, record: BlobId) -> T:
        return typed(self._reader.load(self.type, record), self._cls)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._reader.record(self.type, id) is not None

    def __iter__(self) -> Iterator[T]:
        return self.find()

    def ids(self) -> Iterator[str]:
        """All ids, ascending."""
        return (id for id, _record in self._reader.records(self.type))

    def find(self, where: Where | None = None, *, holding: bytes = b"") -> Iterator[T]:
        """The aggregates of which `where` is true, all without it, in the order of ids.

        Reads the whole collection, a group of records at a time. A record without the bytes
        `holding`, such as a word that is looked for, is passed by undecoded, which is quick.
        """
        group: list[BlobId] = []
        for _id, record in self._reader.records(self.type):
            group.append(record)
            if len(group) == _GROUP:
                yield from self._matching(group, where, holding)
                group = []
        yield from self._matching(group, where, holding)

    def _matching(self, records: list[BlobId], where: Where | None, holding: bytes) -> Iterator[T]:
        contents = self._reader.core.objects.get_many(records)
        for record, (_id, _kind, data) in zip(records, contents, strict=True):
            if holding not in data:
                continue
            value = typed(from_record(data, expected=self.type, origin=record), self._cls)
            if where is None or where(value):
                yield value

    def history(self, id: str) -> Iterator[Version[T]]:
        """The versions of an aggregate, newest first, with who made each. Nothing is lost by an
        edit: what it was is here. Raises `AggregateNotFound` when there never was one.
        """
        reader, path = self._reader, record_path(self.type, id)
        snapshot = reader.snapshot(self.type.context)
        log = [] if snapshot.id is None else list(reader.view.log(snapshot.id, path=path))
        if not log:
            raise not_found(self.type, id)
        return (self._version(commit_id, commit, path) for commit_id, commit in log)

    def _version(self, id: CommitId, commit: Commit, path: str) -> Version[T]:
        entry = snapshot_of(self._reader.core, id).entry(path)
        value = None if entry is None else self._load(BlobId(entry.id))
        return Version(id, commit.author, commit.message, commit.time_us, value)


def not_found(type: AggregateType, id: str) -> AggregateNotFound:
    """The error for an aggregate that is not there."""
    return AggregateNotFound(
        f"There is no {type.name} {id!r}; list the collection {type.collection!r}, or ask for a "
        "moment at which it was there.",
        type=type.name,
        id=id,
    )
