"""What the rooms of history share: objects, the timeline over them, and decoded commits.

Floor 4. Invariant: the parts belong to one store and live as long as its handle.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cas.catalog.catalog import NUMBER_MAX, CatalogReader, EntryRow
from cas.errors import CasError, Invalid, ReadOnly
from cas.history.timeline import Moment, Timeline
from cas.limits import KIB, LINK_TARGET_BYTES_MAX, MIB, WHOLE_BLOB_BYTES_MAX
from cas.model.entry import Entry, txid_floor, txid_from_key
from cas.model.ids import BlobId, Kind, ObjectId, digest_blob, wrong_kind
from cas.model.names import Path, quoted
from cas.model.objects import TREE, Commit, EntryKind
from cas.model.values import frozen
from cas.objects.content import Readable, put_stream, read_exactly
from cas.objects.store import ObjectStore
from cas.trees.node import DIRECTORY

if TYPE_CHECKING:
    from cas.objects.batch import Batch
    from cas.trees.node import Value

    Edits = Mapping[Path, Value | None]
    """Values of files and links by path, None for what was deleted; no directories."""

_COMMITS_KEPT: Final = 4096
_EDITS_KEPT: Final = 4096

_BUFFERS: Final = (bytes, bytearray, memoryview)

_GROUPED_BYTES_MAX: Final = 16 * KIB
_GROUP_BYTES: Final = 1 * MIB
_GROUP_COUNT: Final = 1024
"""Small contents that are hashed, looked up and staged in one go."""
_AHEAD_COUNT_MIN: Final = 256
_EVEN_BYTES_MAX: Final = 2 * KIB
"""Contents of which a group needs no bound of its own: it is twice `_GROUP_BYTES` at the most."""


def warn(text: str) -> None:
    """Tell the logger `cas`; nothing is printed where the program listens to none."""
    # Loaded here: a few milliseconds, for what hardly ever happens.
    import logging

    logger = logging.getLogger("cas")
    if not logger.handlers:
        # Else a warning that nobody listens to reaches standard error all the same.
        logger.addHandler(logging.NullHandler())
    logger.warning(text)


class CommitCache:
    """Decoded commits by id. Dropped whole when full: history is read in long runs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._commits: dict[bytes, Commit] = {}
        self._edits: dict[bytes, Edits] = {}
        self._edited = 0

    def get(self, id: bytes, batch: Batch | None = None) -> Commit:
        """The commit of this id, those that `batch` reads included. Raises `ObjectNotFound`,
        `WrongKind`, `Corrupt`.
        """
        commit = self._commits.get(id)
        if commit is None:
            if batch is None or batch.read(id) is None:
                data = self._objects.get(id, Kind.COMMIT)
            else:
                _kind, data = self._objects.staged(batch, id)
            commit = Commit.decode(data, verified=True)
            self.put(id, commit)
        return commit

    def put(self, id: bytes, commit: Commit) -> None:
        """Keep a commit."""
        if len(self._commits) >= _COMMITS_KEPT:
            self._commits.clear()
        self._commits[id] = commit

    def keep_edits(self, id: bytes, tree: bytes, edits: Edits) -> None:
        """Remember the edits of a tree that made that of a commit, where it is the tree of its only
        parent, or of none, and nothing but files and links was set.
        """
        commit = self._commits.get(id)
        if commit is None or len(commit.parents) > 1:
            return
        base = DIRECTORY.empty
        for parent in commit.parents:
            before = self._commits.get(parent)
            base = b"" if before is None else before.tree
        if tree != base:
            return
        if len(edits) > _EDITS_KEPT or TREE in [each[0] for each in edits.values() if each]:
            return
        self._edited += len(edits)
        if self._edited > _EDITS_KEPT:
            # As with commits. Who follows closely finds those that came since.
            self._edits.clear()
            self._edited = len(edits)
        self._edits[id] = edits

    def edits_of(self, id: bytes) -> Edits | None:
        """Those of a commit that was made here a little while ago; None where they are gone."""
        return self._edits.get(id)


@frozen
class Core:
    """The store behind every handle, view and transaction."""

    objects: ObjectStore
    timeline: Timeline
    commits: CommitCache

    def now(self) -> Moment:
        """The newest state, once no crash can take it back."""
        moment = self.timeline.now()
        self.objects.catalog.harden(reading=True)
        return moment

    def put_content(self, batch: Batch, content: object) -> tuple[bytes, int]:
        """Stage bytes, a path or a readable stream; (blob id, bytes). Raises `Invalid`."""
        if type(content) is bytes or isinstance(content, _BUFFERS):
            if isinstance(content, ObjectId):
                raise Invalid(
                    f"{content.short} is the id of an object, not content; put what `get` gives "
                    "for it, or name it in a branch with `put_entry`."
                )
            # Bytes stay the same ones; of anything else a copy is kept.
            data = bytes(content)
            size_bytes = len(data)
            if size_bytes > WHOLE_BLOB_BYTES_MAX:
                return put_stream(io.BytesIO(data), batch, self.objects.has)
            id = digest_blob(data)
            batch.add(id, 1, data)  # Kind.BLOB
            return id, size_bytes
        if isinstance(content, os.PathLike):
            try:
                with open(content, "rb") as stream:
                    return put_stream(stream, batch, self.objects.has)
            except OSError as error:
                raise Invalid(f"{content} cannot be read: {error.strerror}.") from error
            except ValueError as error:
                if isinstance(error, CasError):
                    raise
                raise Invalid(f"{str(content)!r} is no path: {error}.") from error
        if hasattr(content, "read"):
            if getattr(content, "closed", False) is True:
                raise Invalid("This stream is closed; open it again.")
            stream_like: Readable = content
            return put_stream(stream_like, batch, self.objects.has)
        hint = (
            "pass text.encode() for text, pathlib.Path(...) for a file"
            if isinstance(content, str)
            else "encode it first"
        )
        raise Invalid(
            f"Content is bytes, a pathlib.Path or a readable stream, not "
            f"{type(content).__name__}; {hint}."
        )

    def target_of(self, content: object, kind: EntryKind) -> bytes:
        """Where a link of this content leads. Raises `Invalid` for other kinds, and for what no
        link can hold: nothing of a branch could be restored then.
        """
        if kind != EntryKind.LINK:
            raise Invalid("A directory appears with the files in it; use `put_entry` for a tree.")
        target = content
        if not isinstance(content, _BUFFERS) and hasattr(content, "read"):
            target = read_exactly(content, LINK_TARGET_BYTES_MAX + 1)
        if not isinstance(target, _BUFFERS):
            raise Invalid(f"The target of a link is bytes, not {type(target).__name__}; encode it.")
        target = bytes(target)
        if not target or b"\0" in target or len(target) > LINK_TARGET_BYTES_MAX:
            raise Invalid(
                f"A link cannot lead to {quoted(target[:40])}: a target has 1 to "
                f"{LINK_TARGET_BYTES_MAX:,} bytes, and no NUL among them."
            )
        return target

    def put_contents(self, batch: Batch, contents: Iterable[object]) -> list[bytes]:
        """`put_content` of each; small bytes go in groups. Ids in the order given."""
        ids: list[bytes] = []
        if type(contents) is list and set(map(type, contents)) == {bytes}:
            # Whole groups, where all of them are short; a bit more than half, where the first is
            # then encoded beside what is done for the second.
            count = min(_GROUP_COUNT, max(_AHEAD_COUNT_MIN, len(contents) * 9 >> 4))
            while contents and max(map(len, contents[:count])) <= _EVEN_BYTES_MAX:
                first, contents = contents[:count], contents[count:]
                ids += batch.put_blobs(first, contents if len(contents) <= count else ())
        group: list[bytes] = []
        size_bytes = 0
        for content in contents:
            if type(content) is bytes and len(content) <= _GROUPED_BYTES_MAX:
                group.append(content)
                size_bytes += len(content)
                if size_bytes >= _GROUP_BYTES or len(group) == _GROUP_COUNT:
                    ids += batch.put_blobs(group)
                    group, size_bytes = [], 0
                continue
            ids += batch.put_blobs(group)
            group, size_bytes = [], 0
            ids.append(self.put_content(batch, content)[0])
        return ids + batch.put_blobs(group)

    def staged_blob(self, batch: Batch, id: bytes) -> bytes:
        """Content of a blob, those that `batch` has staged included. Raises `WrongKind`."""
        kind, content = self.objects.staged(batch, id)
        if kind != Kind.BLOB:
            raise wrong_kind(id, Kind.BLOB, kind)
        return content

    def outcome(self, txid: bytes) -> Entry | None:
        """The entry that a transaction id made, or None when it did not and will not commit."""

        def find(reader: CatalogReader) -> EntryRow | None:
            seq = reader.find_txid(txid, txid_floor(txid))
            return None if seq is None else reader.entry(seq)

        with self.objects.catalog.read() as reader:
            row = find(reader)
        if not self.objects.catalog.read_only:
            if row is None:
                row = self.objects.settle(find)
            else:
                self.objects.confirm()
        elif row is None and self.objects.catalog.is_distant:
            # This may be a standby, or a moment too early: only the primary can say no.
            raise ReadOnly(
                "Whether this transaction will never count only the primary can say; open the "
                "store for writing.",
                path="",
            )
        return None if row is None else self.timeline.decode(row)

    def before(self, key: str) -> Moment | None:
        """The moment before the entry that a transaction key has made, or None."""
        with self.objects.catalog.read() as reader:
            seq = reader.find_txid(txid_from_key(key), None)
            return None if seq is None else self.timeline.at(reader, seq - 1)

    def entry(self, seq: int) -> Entry | None:
        """One journal entry, its hash checked."""
        if not 0 < seq <= NUMBER_MAX:
            return None
        with self.objects.catalog.read() as reader:
            row = reader.entry(seq)
        self.objects.catalog.harden(reading=True)
        return None if row is None else self.timeline.decode(row)


class PutBatch:
    """`with store.batch() as batch`: puts that become durable together at its end."""

    def __init__(self, core: Core, batch: Batch) -> None:
        self._core = core
        self._batch = batch

    def put(self, content: bytes | Readable) -> BlobId:
        """Stage a blob; it exists when the block has ended normally."""
        id = self._core.put_content(self._batch, content)[0]
        self._batch.promise((id,))
        return BlobId(id)

    def get(self, id: ObjectId) -> bytes:
        """Content of a blob, those staged here included."""
        return self._core.staged_blob(self._batch, id)


_IDS: Final = frozenset((ObjectId, *ObjectId.__subclasses__()))


def named_ids(
    asked: list[ObjectId | str], find: Callable[[ObjectId | str], ObjectId]
) -> Sequence[ObjectId]:
    """Ids as such, those that are told as text found; looked at together, as most are ids."""
    return asked if _IDS.issuperset(map(type, asked)) else [*map(find, asked)]  # type: ignore[return-value]
