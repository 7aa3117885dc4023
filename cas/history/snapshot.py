"""A snapshot: the files of one commit as a read-only mapping of path to bytes.

Floor 4. Invariant: a snapshot never changes; whatever it gives was verified against the ids
that its commit names. Any thread may read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TypeVar, overload

from cas.errors import PathNotFound, WrongKind
from cas.model.ids import CommitId, Kind, TreeId
from cas.model.names import join_path, split_path, to_text
from cas.model.objects import Commit, EntryKind, TreeEntry
from cas.model.values import frozen
from cas.objects.content import BlobReader
from cas.objects.store import ObjectStore
from cas.trees import paths
from cas.trees.cursor import count
from cas.trees.node import DIRECTORY

_T = TypeVar("_T")


class ChangeKind(Enum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    RETYPED = "retyped"
    RENAMED = "renamed"

    def __str__(self) -> str:
        return self.value


@frozen
class Change:
    """A file or link that differs between two snapshots. `old`, `new`: None where it is not.

    A rename, where these are looked for, has its old path in `origin` and in `similarity` how
    much of its content stayed, in percent.
    """

    kind: ChangeKind
    path: str
    old: TreeEntry | None
    new: TreeEntry | None
    origin: str | None = None
    similarity: int | None = None


def classify(path: str, old: TreeEntry | None, new: TreeEntry | None) -> Change:
    """The change from one entry to another."""
    if old is None:
        kind = ChangeKind.ADDED
    elif new is None:
        kind = ChangeKind.REMOVED
    elif old.kind != new.kind:
        kind = ChangeKind.RETYPED
    else:
        kind = ChangeKind.MODIFIED
    return Change(kind, path, old, new)


class Contents(Mapping[str, bytes]):
    """Paths and their content; only what has no entry is absent."""

    @overload
    def get(self, path: str, /) -> bytes | None: ...
    @overload
    def get(self, path: str, /, default: bytes | _T) -> bytes | _T: ...
    def get(self, path: str, /, default: object = None) -> object:
        """The content at a path, or `default` where nothing is; what an entry names and the
        store does not give is raised, and never taken for that.
        """
        try:
            return self[path]
        except PathNotFound:
            return default


class Snapshot(Contents):
    """Files of one commit. `snapshot["a/b"]` is content; iteration gives paths in order."""

    def __init__(
        self, objects: ObjectStore, tree: TreeId, commit: Commit | None, id: CommitId | None
    ) -> None:
        self.objects = objects
        self._nodes = objects.tree_nodes(DIRECTORY)
        self.tree = tree
        self.commit = commit
        self.id = id

    def __repr__(self) -> str:
        name = self.id.short if self.id is not None else f"tree {self.tree.short}"
        return f"<Snapshot {name}>"

    def entry(self, path: str | bytes) -> TreeEntry | None:
        """What lies at `path`: file, link or directory; None when nothing. "" is the root."""
        parts = split_path(path) if path else ()
        return paths.lookup(self.tree, parts, self._nodes)

    def entries(self, path: str | bytes = "") -> Iterator[tuple[str, TreeEntry]]:
        """(name, entry) of the directory at `path`, in order. Raises `PathNotFound`."""
        entry = self.entry(path)
        if entry is None:
            raise self._missing(path)
        if not entry.is_tree:
            raise WrongKind(
                f"{_text(path)!r} is not a directory.",
                id=entry.id,
                expected="tree",
                actual=entry.kind.name.lower(),
            )
        for name, value in paths.list_directory(entry.id, (), self._nodes):
            yield to_text(name), value

    def walk(
        self, path: str | bytes = "", *, directories: bool = False
    ) -> Iterator[tuple[str, TreeEntry]]:
        """(path, entry) of every file and link below `path`, in order, lazily.

        With `directories=True` each directory comes before what is in it.
        """
        entry = self.entry(path)
        if entry is None:
            raise self._missing(path)
        prefix = split_path(path) if path else ()
        if not entry.is_tree:
            yield _text(path), entry
            return
        for parts, value in paths.walk(
            entry.id, self._nodes, prefix=prefix, directories=directories
        ):
            yield join_path(parts), value

    def read(self, path: str | bytes) -> bytes:
        """Content of the file, or target of the link, at `path`. Raises `PathNotFound`."""
        return self.objects.get(self._file(path).id, Kind.BLOB)

    def open(self, path: str | bytes) -> BlobReader:
        """The file at `path` as a seekable stream. Raises `PathNotFound`."""
        return self.objects.open(self._file(path).id)

    def _file(self, path: str | bytes) -> TreeEntry:
        entry = self.entry(path)
        if entry is None:
            raise self._missing(path)
        if entry.is_tree:
            raise WrongKind(
                f"{_text(path)!r} is a directory, not a file.",
                id=entry.id,
                expected="file",
                actual="tree",
            )
        return entry

    def _missing(self, path: str | bytes) -> PathNotFound:
        return PathNotFound(f"There is no {_text(path)!r} in {self!r}.", path=_text(path))

    @property
    def size(self) -> int:
        """Bytes of all files and links."""
        entry = self.entry("")
        assert entry is not None
        return entry.size

    def diff(self, other: Snapshot) -> Iterator[Change]:
        """What changes from this snapshot to `other`, in order of path, lazily."""
        nodes = self._nodes
        for parts, old, new in paths.diff_paths(self.tree, other.tree, nodes, ahead=nodes.warm):
            yield classify(join_path(parts), old, new)

    # -- Mapping -----------------------------------------------------------------------------

    def __getitem__(self, path: str) -> bytes:
        return self.read(path)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str | bytes) or not path:
            return False
        entry = self.entry(path)
        return entry is not None and entry.kind != EntryKind.TREE

    def __iter__(self) -> Iterator[str]:
        return (path for path, _entry in self.walk())

    def __len__(self) -> int:
        return paths.total(self.tree, self._nodes)

    def __bool__(self) -> bool:
        return count(DIRECTORY, self.tree, self._nodes) > 0

    def __hash__(self) -> int:
        return hash((id(self.objects), self.tree, self.id))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Snapshot):
            return self.tree == other.tree and self.id == other.id
        return NotImplemented


def _text(path: str | bytes) -> str:
    return to_text(path) if isinstance(path, bytes) else path
