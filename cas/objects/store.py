"""The object store: immutable objects by id, over a bucket and a catalog.

Floor 3. Invariant: a read gives bytes that hash to the id that was asked for, or an error. A
look-up that meets a missing or damaged copy tries the next one, and says no only from a
snapshot that stood still while all of them were tried.

Any thread may read and begin batches; a batch belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from cas.catalog.catalog import SETTLED, Catalog, CatalogReader, CatalogWriter, Head, Meta, PackRow
from cas.clock import Clock
from cas.errors import (
    CasError,
    Corrupt,
    CorruptObject,
    MissingPack,
    NotFound,
    ObjectNotFound,
    OutcomeUnknown,
)
from cas.later import Later
from cas.limits import ID_BYTES, NODE_CACHE_BYTES, SPILL_BYTES, THRESHOLDS, Thresholds
from cas.model.ids import Kind, digest_of, wrong_kind
from cas.objects.absent import Absent
from cas.objects.beside import Beside
from cas.objects.bodies import BytesCache
from cas.objects.committer import Committer, Group, not_committed
from cas.objects.content import BlobReader, check_whole, read_spans
from cas.objects.dictionaries import Dictionaries
from cas.objects.lookup import Lookup
from cas.objects.nodes import NodeCache, TreeNodes
from cas.objects.packs import Copy, PackInfo
from cas.objects.parts import Parts
from cas.objects.promises import stale_copies
from cas.objects.quick import GROUP_COUNT, Loaded, QuickReader
from cas.objects.room import Room
from cas.objects.segments import segment_reader
from cas.storage.bucket import Bucket
from cas.storage.codec import DELTA, DICTIONARY, RECIPE, decode_payload
from cas.storage.delta import decode_delta, delta_base
from cas.storage.pack import Footer
from cas.storage.record import RECIPE_PAYLOAD_BYTES, RECORD_HEADER_BYTES, encode_record_header
from cas.trees.node import Flavour

if TYPE_CHECKING:
    from cas.objects import batch as batches
    from cas.objects.batch import Batch
else:
    # With it come the writers of packs, compressors and deltas, which nobody needs who only reads.
    batches = Later("cas.objects.batch", keep=True)

_T = TypeVar("_T")

Installed = tuple[list[tuple[PackRow, Footer]], Head]
"""What a batch has named, and the head it found."""

_KINDS: Final = frozenset(map(int, Kind))

_BODIES_BYTES: Final = 2 * SPILL_BYTES
"""All that is inline between two spills, and what a slow spill leaves."""


class ObjectStore:
    """Put, get and look up objects of one store."""

    def __init__(
        self,
        catalog: Catalog,
        bucket: Bucket,
        clock: Clock,
        cache: str | None = None,
        *,
        thresholds: Thresholds = THRESHOLDS,
    ) -> None:
        self.catalog = catalog
        self.bucket = bucket
        self.clock, self.thresholds = clock, thresholds
        self.cache = cache
        """Folder for files that may be deleted at any time, or None."""
        self.lookup = Lookup(catalog, bucket, clock, cache, thresholds)
        self.committer, self.absent = Committer(catalog), Absent()
        self.room = Room(catalog, self.lookup, clock, cache)
        self.dictionaries = Dictionaries(self.lookup, bucket, self.stored)
        self._parts = Parts(
            catalog, bucket, clock, self.lookup, thresholds, self.absent, self.dictionaries
        )
        self._nodes = NodeCache(NODE_CACHE_BYTES)
        self._bodies: BytesCache[int] = BytesCache(_BODIES_BYTES)
        self._beside = Beside(self.lookup, self._load)
        self.quick = QuickReader(
            self.lookup, bucket, self.dictionaries, self.stored, self._nodes.data_of
        )
        catalog.serve_archive(segment_reader(self.get))

    @property
    def meta(self) -> Meta:
        """What the store is."""
        return self.catalog.meta

    # -- reading -----------------------------------------------------------------------------

    def read(self, id: bytes) -> tuple[int, bytes]:
        """(kind, content) of an object, verified. Raises `ObjectNotFound`, `Purged`, `Corrupt`.

        For a blob stored as a recipe the whole content is put together in memory.
        """
        copy = self.lookup.find(id)
        if copy is not None:
            try:
                return self._load(copy)
            except (Corrupt, NotFound):
                pass
        return self._read_again(id)

    def get(self, id: bytes, kind: Kind) -> bytes:
        """Content of an object of `kind`. Raises `ObjectNotFound`, `WrongKind`, `Corrupt`."""
        found, content = self.read(id)
        if found != kind:
            raise wrong_kind(id, kind, found)
        return content

    def blobs(
        self, ids: Iterable[_T], named: Callable[[list[_T]], Sequence[bytes]]
    ) -> Iterator[bytes]:
        """`get` of each blob, in the order given; reads lie in pack order.

        Raises as `get` does, when it comes to the id. Groups bound memory, and no more is taken
        of `ids` than the next group; `named` gives the ids that a group of what is asked for has.
        """
        for group, kinds, contents in self._groups(ids, named):
            if None not in contents and kinds.count(1) == len(kinds):
                yield from contents  # type: ignore[misc]
                continue
            for id, kind, content in zip(group, kinds, contents, strict=True):
                yield self.get(id, Kind.BLOB) if content is None or kind != 1 else content

    def get_many(self, ids: Iterable[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
        """(id, kind, content) of each id, as `blobs` gives them, of any kind."""
        for group, kinds, contents in self._groups(ids, list):
            for id, kind, content in zip(group, kinds, contents, strict=True):
                if content is None:
                    yield id, *self._read_again(id)
                else:
                    yield id, kind, content

    def _groups(
        self, ids: Iterable[_T], named: Callable[[list[_T]], Sequence[bytes]]
    ) -> Iterator[tuple[Sequence[bytes], *Loaded]]:
        waiting = iter(ids)
        while asked := list(islice(waiting, GROUP_COUNT)):
            group = named(asked)
            start = 0
            for kinds, contents in self.quick.get_many(group):
                yield group[start : start + len(kinds)], kinds, contents
                start += len(kinds)

    def _read_again(self, id: bytes) -> tuple[int, bytes]:
        """Read with every copy there is."""
        return self._use_copy(id, self._load)

    def _use_copy(self, id: bytes, use: Callable[[Copy], _T]) -> _T:
        """`use` of the first copy that serves; no is said only from a snapshot that stood still.

        One refresh is not enough: while a reader tries the copies of one state, spill and gc can
        move them again (docs/design/001, finding on E8).
        """
        again = False
        while True:
            stamp = self.lookup.stamp()
            failure: Corrupt | None = None
            for copy in self.lookup.copies(id):
                try:
                    return use(copy)
                except Corrupt as error:
                    failure = error
                except NotFound:
                    continue
            if self.lookup.is_certain(stamp, again=again):
                raise failure or self._missing(id)
            again = True

    def _missing(self, id: bytes) -> CasError:
        if (purged := self.absent.error(id)) is not None:
            return purged
        if (hidden := self.lookup.hidden_by(id)) is not None:
            return CorruptObject(
                f"Object {id.hex()} cannot be found while a pack is damaged: {hidden}",
                id=id,
                pack=hidden.fields.get("pack"),
            )
        return ObjectNotFound(f"There is no object {id.hex()} in this store.", id=id)

    def _load(self, copy: Copy, tried: set[tuple[int, int]] | None = None) -> tuple[int, bytes]:
        """Kind and content of one copy, verified against its id. `tried`: copies that failed."""
        slot = copy.slot
        payload = self.payload(copy)
        if slot.codec == DELTA:
            content = self._beside.delta(copy, payload, set() if tried is None else tried)
        elif slot.codec == DICTIONARY:
            content = self.dictionaries.of(copy.pack, payload, slot.group).decode(
                payload, slot.raw_bytes
            )
        elif slot.codec == RECIPE:
            recipe = self._recipe(copy, payload)
            check_whole(slot.raw_bytes)
            try:
                parts = [part for _at, part in read_spans(recipe, slot.raw_bytes, self._part)]
            except ObjectNotFound as error:
                raise CorruptObject(
                    f"Object {slot.id.hex()} cannot be put together ({error}); run `cas fsck`.",
                    id=slot.id,
                    pack=copy.pack.label,
                ) from error
            content = b"".join(parts)
        else:
            content = decode_payload(slot.codec, payload, slot.raw_bytes)
        if slot.kind not in _KINDS or digest_of(slot.kind, content) != slot.id:
            raise copy.damaged()
        return slot.kind, content

    def _recipe(self, copy: Copy, payload: bytes) -> bytes:
        """Id of the recipe of a recipe copy. Raises `CorruptObject`."""
        if len(payload) != RECIPE_PAYLOAD_BYTES or payload[:ID_BYTES] != copy.slot.id:
            raise copy.damaged()
        return payload[ID_BYTES:]

    def _part(self, id: bytes, kind: Kind) -> bytes:
        """Content of what a recipe names: a chunk is never put together itself.

        Otherwise a crafted recipe could name its own blob, or double itself at each step.
        """
        found, content = self._use_copy(id, self._load_whole)
        if found != kind:
            raise CorruptObject(
                f"A recipe names {id.hex()}, which is no {kind.name.lower()}; run `cas fsck`.",
                id=id,
            )
        return content

    def _load_whole(self, copy: Copy) -> tuple[int, bytes]:
        if copy.slot.codec == RECIPE:
            raise copy.damaged()
        return self._load(copy)

    def verified(self, copy: Copy) -> tuple[int, bytes]:
        """(kind, content) of one copy, hashed; a recipe copy gives its payload's recipe only.

        Raises `Corrupt`. For those that look at copies, not at objects: spill and fsck.
        """
        if copy.slot.codec == RECIPE:
            return copy.slot.kind, self._recipe(copy, self.payload(copy))
        return self._load(copy)

    def payload(self, copy: Copy) -> bytes:
        """Stored bytes of one copy, not verified. Raises `MissingPack`, `CorruptPack`."""
        pack, slot = copy
        return self.stored(pack, slot.payload_offset, slot.stored_bytes)

    def stored(self, pack: PackInfo, start: int, length: int) -> bytes:
        """Bytes of a pack, not verified. Raises `MissingPack`, `CorruptPack`."""
        if pack.file is not None:
            return self.bucket.read(pack.file, start, length)
        body = self._bodies.get(pack.number)
        if body is None:
            body = self.catalog.inline_body(pack.number)
            if body is None:
                raise MissingPack(f"The {pack.label} was removed.", pack=pack.label)
            self._bodies.put(pack.number, body)
        return body[start : start + length]

    def open(self, id: bytes) -> BlobReader:
        """A blob as a stream. Raises `ObjectNotFound`, `WrongKind`, `Corrupt`."""
        return self._use_copy(id, self._open)

    def _open(self, copy: Copy) -> BlobReader:
        if copy.slot.codec == RECIPE:
            recipe = self._recipe(copy, self.payload(copy))
            return BlobReader(self._measure(copy)[1], recipe, b"", self._part)
        kind, content = self._load(copy)
        if kind != Kind.BLOB:
            raise wrong_kind(copy.slot.id, Kind.BLOB, kind)
        return BlobReader(len(content), None, content, self.get)

    def tree_nodes(self, flavour: Flavour, batch: Batch | None = None) -> TreeNodes:
        """Nodes of trees of one flavour; those saved go into `batch`."""
        quick = self.quick
        return TreeNodes(self._nodes, self.staged, flavour, batch, quick.get_many, quick.get)

    def require(self, id: bytes) -> None:
        """Raise `ObjectNotFound` unless the store holds the object."""
        if self.find(id) is None:
            raise self._missing(id)

    def find(self, id: bytes) -> Copy | None:
        """A copy of `id`; None is said only from a snapshot in which nothing moved."""
        again = False
        while True:
            stamp = self.lookup.stamp()
            copy = self.lookup.find(id)
            if copy is not None or self.lookup.is_certain(stamp, again=again):
                return copy
            again = True

    def measure(self, batch: Batch | None, id: bytes) -> tuple[int, int]:
        """(kind, bytes) of an object, those that `batch` has staged included; nothing is decoded.

        Raises `ObjectNotFound`, `Corrupt`.
        """
        staged = None if batch is None else batch.read(id)
        if staged is not None:
            return staged[0], staged[3]
        return self._use_copy(id, self._measure)

    def _measure(self, copy: Copy) -> tuple[int, int]:
        """(kind, bytes) that the footer states, if the record itself states the same.

        A slot is read by itself, without the footer's digest; what it says of a content that is
        not read with it would otherwise be believed. Raises `CorruptObject`.
        """
        _id, offset, stored, raw, kind, codec, depth, _flags, group = copy.slot
        head = self.stored(copy.pack, offset, RECORD_HEADER_BYTES)
        if head != encode_record_header(kind, codec, depth, group, stored, raw):
            raise copy.damaged()
        return kind, raw

    def has(self, id: bytes) -> bool:
        """Whether the store holds the object."""
        return self.quick.has(id) or self.find(id) is not None

    def staged(self, batch: Batch | None, id: bytes) -> tuple[int, bytes]:
        """`read`, but what `batch` has staged comes first."""
        found = None if batch is None else batch.read(id)
        if found is None:
            return self.read(id)
        kind, codec, payload, raw_bytes = found
        if codec == DELTA:
            # A base is never staged with what is made of it, but perhaps by a member before.
            _kind, base = self.staged(batch, delta_base(payload))
            return kind, decode_delta(memoryview(payload)[ID_BYTES:], base, raw_bytes)
        if codec == RECIPE:
            spans = read_spans(
                payload[ID_BYTES:], raw_bytes, lambda part, _kind: self.staged(batch, part)[1]
            )
            return kind, b"".join(part for _at, part in spans)
        return kind, decode_payload(codec, payload, raw_bytes)

    # -- writing -----------------------------------------------------------------------------

    def new_batch(self) -> Batch:
        """A batch that the caller installs or abandons."""
        return batches.Batch(self._parts, self.staged)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Stage objects; they are durable and exist when the block ends normally."""
        batch = self.new_batch()
        try:
            yield batch
            self.commit(batch)
        except BaseException as error:
            batch.abandon(error)
            raise

    def commit(self, batch: Batch) -> None:
        """Install a batch in a transaction of its own. Raises `OutcomeUnknown` when the store
        cannot even be asked; putting the same again is harmless and settles it.
        """
        for record in stale_copies(self, batch.promised):
            batch.copy_again(record)
        if batch.is_empty:
            with self.catalog.read() as reader:
                batch.confirm(reader)
            batch.abandon()
            self.catalog.harden()
            return
        batch.seal(direct=True)

        def install(writer: CatalogWriter, _group: Group) -> Installed:
            head = writer.head()
            return batch.install(writer, head), head

        def finish(done: Installed, _mark: int) -> None:
            batch.installed(*done)

        try:
            self.committer.run(install, finish)
        except OutcomeUnknown as error:
            try:
                happened = self.settle(batch.is_installed)
            except CasError as failure:
                raise OutcomeUnknown(
                    "The answer of the commit was lost and the store cannot be asked "
                    f"({failure}). Putting the same again is harmless, and settles it.",
                    txid=None,
                ) from error
            if not happened:
                batch.abandon()
                raise not_committed(error) from error
            batch.resolved()

    def confirm(self) -> None:
        """Return once what an earlier commit has left, and can be seen, is as durable as its
        acknowledgement would have made it.

        A server shows what its standby may lack, where the wait for that one was cut short: a
        commit of this handle stands behind it, and waits for both.
        """
        if self.catalog.is_distant and not self.catalog.read_only:
            self.settle(lambda _reader: None)
        else:
            self.catalog.harden()

    def settle(self, happened: Callable[[CatalogReader], _T]) -> _T:
        """What a commit whose answer was lost has done, as `happened` reads it, for good.

        A commit that failed while it was synced can stand whole in the engine's log: nobody
        sees it, but a crash would bring it back. The commit made here overwrites it; and it
        syncs one that is seen and was not synced by who made it.
        """
        with self.catalog.write() as writer:
            found = happened(writer)
            writer.set_cursor(SETTLED, writer.head().version)
        return found

    def close(self) -> None:
        """Give up the handles of the bucket and the catalog."""
        self._bodies.clear()
        self._beside.clear()
        self.catalog.close()
        self.bucket.close()
