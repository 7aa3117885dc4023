"""A batch: objects on their way in, staged together, durable together, named together.

Floor 3; implements docs/format.md section 7.2. Invariant: nothing of a batch exists for anybody
else until one catalog transaction installs its packs, and that transaction runs only after
every byte is durable. What a batch relied on (ids it found and did not write, and what its new
objects name) is looked up again in that transaction if anything was condemned in between.

A small batch stays in memory and becomes one inline pack in the installing transaction itself.
A larger one streams through the compressors into pack files, under a session row that keeps
gc from taking them for leftovers. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import repeat

from cas.catalog.catalog import DELTAS, CatalogReader, CatalogWriter, Head, PackRow, SessionRow
from cas.clock import PROCESS
from cas.errors import CasError, Closed, ForkedStore, OutcomeUnknown, SessionExpired
from cas.limits import INLINE_OBJECT_BYTES_MAX, INLINE_TRANSACTION_BYTES_MAX
from cas.model.ids import Kind, blob_digests, digest_of
from cas.objects.packs import file_name
from cas.objects.parts import Parts
from cas.objects.patches import Origin, Patches
from cas.objects.pipeline import Submitted
from cas.objects.relied import Finder, check_relied
from cas.objects.sessions import begin_session
from cas.objects.writer import FileWriter, SealedPack
from cas.objects.young import ENCODED_FROM, Mark, Young, inline_pack
from cas.storage.codec import DELTA, RECIPE, encode_payload
from cas.storage.dictionary import Dictionary
from cas.storage.pack import SLOT_BYTES, Footer, Record
from cas.storage.record import RECORD_HEADER_BYTES

_YOUNG_RAW_BYTES_MAX = 2048
"""A young blob up to this size lies as it is: compressing it would cost a commit more than the
bytes it saves. Tree nodes that are no patches always do, until a spill."""

_RECORD_COST_BYTES = RECORD_HEADER_BYTES + SLOT_BYTES


class Batch:
    """Objects staged together. Begin one with `ObjectStore.batch`. `read` gives (kind, content) of
    an object, those staged in the batch it is passed first.
    """

    def __init__(self, parts: Parts, read: Callable[[Batch, bytes], tuple[int, bytes]]) -> None:
        self._parts = parts
        self._read = read
        self._lookup, self._recent = parts.lookup, parts.lookup.young.first
        seq = self._condemn_seq = self._lookup.ensure().condemn_seq
        parts.absent.ids(seq)  # asked for here, and not inside the gate
        # While small: id -> record, in the order given.
        self._small: dict[bytes, Record] = {}
        self._small_bytes = 0
        self._structured: list[bytes] = []
        self._hits: set[bytes] = set()
        self.finder = Finder(parts.lookup)
        self.promised: set[bytes] = set()
        """What `promise` was told of and what was found: nothing of it is written."""
        self._hints: dict[bytes, bytes] = {}
        self._file: FileWriter | None = None
        self._session: SessionRow | None = None
        self._release: Callable[[], None] | None = None
        self._sealed: list[SealedPack] | None = None
        self._young = Young(parts, seq)
        self._patches = Patches(self._lookup, DELTAS in parts.meta.features)
        self._small_sealed: SealedPack | None = None
        # Purged ids that come back on purpose; whether it counts as a removal; what it purges.
        self.counts, self.allowed, self.buried = False, set[bytes](), set[bytes]()
        # Of members before, while this is made anew in the gate: only there is what they wrote.
        self.before: Sequence[Batch] | None = None
        self._done, self._pid, self.written_count, self.written_bytes = False, PROCESS.id, 0, 0
        # Set once a transaction may have named the sealed packs: behind which version.
        self._offered, self._version = False, 0

    @property
    def inherited(self) -> bool:
        """Whether the batch belongs to the parent process; its threads and files are there."""
        return self._pid != PROCESS.id

    def check_open(self) -> None:
        """Raise `Closed` when the batch has ended: what is staged now would never exist.

        Raises `ForkedStore` in a forked child: the threads that compress and the place in the
        file are the parent's.
        """
        if self._done:
            raise Closed("This batch or transaction has ended; begin another.")
        if self._pid != PROCESS.id:
            raise ForkedStore("This transaction is the parent's; open the store again and begin.")

    # -- staging -----------------------------------------------------------------------------

    def put(self, kind: int, content: bytes, made: Origin = None) -> bytes:
        """Stage an object; gives its id. An object that exists is not written again."""
        id = digest_of(kind, content)
        self.add(id, kind, content, made)
        return id

    def add(self, id: bytes, kind: int, content: bytes, made: Origin = None) -> bool:
        """Stage an object whose id is known to be right; whether it had to be written."""
        if self._done:
            self.check_open()
        if id in self._small or (self._file is not None and self._file.holds(id)):
            return False
        # What was just made is there by chance only: a second copy is cheaper than to seek it.
        if (made is None or id in self._recent) and self.finder.has(id):
            self._hits.add(id)
            return False
        size_bytes = len(content)
        self.written_count += 1
        self.written_bytes += size_bytes
        if kind != 1:  # Kind.BLOB
            self._structured.append(id)
        if self._file is None:
            codec, payload, stored = 0, content, size_bytes
            if kind == 1:  # Kind.BLOB
                if size_bytes > _YOUNG_RAW_BYTES_MAX:
                    codec, payload = encode_payload(content)
                    stored = len(payload)
            elif made and (patch := self._patches.encode(id, made, size_bytes)):
                codec, payload, stored = DELTA, patch, len(patch)
            total = self._small_bytes + stored
            fits = stored <= INLINE_OBJECT_BYTES_MAX and total <= INLINE_TRANSACTION_BYTES_MAX
            if fits or self.before is not None:  # a file's session would wait for the gate
                self._small[id] = (id, kind, codec, payload, size_bytes)
                # Its header and its slot count too: a million tiny objects are no small row.
                self._small_bytes = total + _RECORD_COST_BYTES
                return True
        self.check_open()
        self.files().add(Submitted(id, kind, content, None, size_bytes))
        return True

    def hint(self, id: bytes, base: bytes | None) -> None:
        """Say which installed object the one that was added last may be stored as a delta of."""
        if base is not None:
            self._hints[id] = base

    def put_blobs(self, contents: Sequence[bytes], rest: Sequence[bytes] = ()) -> list[bytes]:
        """`put` of many blobs, in one go; their ids in order. `rest` is put next, and last."""
        self.check_open()
        ids = blob_digests(contents)
        known = self.finder.known(ids)
        self._hits |= known
        small, left, sizes = self._small, self._room(), list(map(len, contents))
        cost_bytes = sum(sizes) + _RECORD_COST_BYTES * len(ids)
        if not known and cost_bytes <= left and max(sizes, default=0) <= _YOUNG_RAW_BYTES_MAX:
            rows = zip(ids, repeat(1), repeat(0), contents, sizes, strict=False)
            more = dict(zip(ids, rows, strict=True))
            if len(more) == len(ids) and small.keys().isdisjoint(more):
                small.update(more)  # the common case: no step of Python for each
                self._small_bytes += cost_bytes
                self.written_count += len(ids)
                self.written_bytes += sum(sizes)
                self._young.begin(ids, contents, rest, left - cost_bytes)
                return ids
        if cost_bytes > left:
            self._young.learn(small)
        for id, content in zip(ids, contents, strict=True):
            if id in known or id in small:
                continue
            size_bytes = len(content)
            cost_bytes = size_bytes + _RECORD_COST_BYTES
            if size_bytes > _YOUNG_RAW_BYTES_MAX or cost_bytes > left:
                # What has to be compressed, or no longer fits, goes the way of a single one.
                self.add(id, Kind.BLOB, content)
                left = self._room()
                continue
            small[id] = (id, 1, 0, content, size_bytes)
            left -= cost_bytes
            self._small_bytes += cost_bytes
            self.written_count += 1
            self.written_bytes += size_bytes
        return ids

    def _room(self) -> int:
        return 0 if self._file else INLINE_TRANSACTION_BYTES_MAX - self._small_bytes

    def add_recipe_copy(self, id: bytes, recipe: bytes, size_bytes: int) -> None:
        """Stage a copy of blob `id` that is rebuilt by `recipe`."""
        payload = id + recipe
        if self._file is None:
            self._small[id] = (id, Kind.BLOB, RECIPE, payload, size_bytes)
            self._small_bytes += len(payload)
        else:
            self._file.add(Submitted(id, Kind.BLOB, payload, RECIPE, size_bytes))
        self.written_count += 1

    def rewrite(self, items: Iterable[Submitted], *, proved: bool = True) -> None:
        """Stage another copy, in a pack file, of objects that exist and are not staged yet.

        What comes encoded is taken as it is, so that the pack states no digest of its body; nor
        where contents are not `proved` to be those of their ids.
        """
        file, wanted = self.files(), list(items)
        if not proved or any(item.codec is not None for item in wanted):
            file.vouch_no_more()
        file.add_many(wanted)

    def files(self) -> FileWriter:
        """The writer of this batch's pack files, begun if there is none yet."""
        if self._file is None:
            self._file = self._begin_file()
        return self._file

    def rely(self, id: bytes) -> None:
        """Note that this batch names `id`, which exists and which it does not write."""
        if not self.holds(id):
            self._hits.add(id)

    def promise(self, ids: Iterable[bytes]) -> None:
        """Note objects staged here that are to stay for a while, though nothing may name them."""
        self.promised |= self._hits.intersection(ids)

    def copy_again(self, record: Record) -> None:
        """Stage another whole copy of an object that exists."""
        id, kind, codec, payload, raw_bytes = record
        self._hits.discard(id)
        stored, total = len(payload), self._small_bytes + len(payload)
        fits = stored <= INLINE_OBJECT_BYTES_MAX and total <= INLINE_TRANSACTION_BYTES_MAX
        if self._file is None and fits:
            self._small[id] = record
            self._small_bytes = total + _RECORD_COST_BYTES
        else:
            self.rewrite([Submitted(id, kind, payload, codec, raw_bytes)])

    def holds(self, id: bytes) -> bool:
        """Whether the batch itself has staged `id`."""
        return id in self._small or (self._file is not None and self._file.holds(id))

    def read(self, id: bytes) -> tuple[int, int, bytes, int] | None:
        """(kind, codec, payload, raw bytes) of a staged object, or of one in `before`."""
        record = self._small.get(id)
        if record is not None:
            return record[1:]
        if self._file is not None and (found := self._file.read(id)) is not None:
            return found
        return next((own for other in self.before or () if (own := other.read(id))), None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be written."""
        return not self._small and self._file is None

    # -- sealing and installing --------------------------------------------------------------

    def seal(self, *, direct: bool = False) -> list[SealedPack]:
        """Make every byte durable that does not travel in the installing transaction.

        `direct`: nothing will be added, so that much of it may become a pack file of its own.
        """
        if self._done or self._file is not None:
            self.check_open()
        if self._sealed is None and self._file is not None:
            self._sealed = self._file.finish()
        elif self._sealed is None:
            self._sealed = [self._small_pack(direct=direct)] if self._small else []
        return self._sealed

    @property
    def is_small(self) -> bool:
        """Whether all of it lies in memory, and will be one inline pack."""
        return self._file is None

    def mark(self) -> Mark:
        """What has been staged so far, for `rewind`."""
        return Mark(len(self._small), self._small_bytes, len(self._structured), self._hits.copy())

    def rewind(self, mark: Mark) -> None:
        """Forget what was staged since `mark`, as far as it is in memory.

        What went into a pack file stays there and is named by nothing; gc takes it.
        """
        if self._file is None:
            forgotten = list(self._small)[mark.records :]
            for id in forgotten:
                del self._small[id]
            self._patches.forget(forgotten)
            self._small_bytes = mark.small_bytes
            del self._structured[mark.structured :]
            self._hits = mark.hits
        self._sealed = None

    def beside(self, group: int) -> Dictionary | None:
        """The dictionary that small blobs of a group are written with, if there is one."""
        return self._young.beside(group)

    def use(self, dictionary: Dictionary, group: int) -> None:
        """Write small blobs of a group with this dictionary, of which the batch stages a copy."""
        id, kind, codec, payload, raw_bytes = self._young.use(dictionary, group)
        self.rewrite([Submitted(id, kind, payload, codec, raw_bytes, 0, group)])

    def _small_pack(self, *, direct: bool) -> SealedPack:
        small, depths = self._small, self._patches.depths
        if not direct and len(small) < ENCODED_FROM:
            self._small_sealed = inline_pack(self._parts, list(small.values()), None, depths)
            return self._small_sealed
        session = self._begin_session if direct else None
        self._small_sealed = self._young.pack(small, depths, session)
        if self._young.needs is not None:
            self.rely(self._young.needs)
        return self._small_sealed

    def add_late(self, objects: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Add small objects (id, kind, content) inside the gate, after `seal`.

        They join the inline pack; beside pack files they become an inline pack of their own.
        """
        if self._file is None:
            self._sealed = None
        for id, kind, content in objects:
            if self._lookup.has(id):
                self._hits.add(id)
            elif id not in self._small:
                self._small[id] = (id, kind, 0, content, len(content))
        if self._file is not None and self._small:
            self.seal().append(self._small_pack(direct=False))

    def install(self, writer: CatalogWriter, head: Head) -> list[tuple[PackRow, Footer]]:
        """Name the sealed packs inside a write transaction.

        Raises `SessionExpired` when gc fenced the session off, `Condemned` when what it relied
        on was condemned; the transaction must then be rolled back and the work redone.
        """
        if self._done:
            self.check_open()
        if self._session is not None:
            found = writer.session(self._session.id)
            if found is None or found.fence != self._session.fence:
                raise SessionExpired(
                    "The session was ended by gc while it was idle; nothing was committed. "
                    "Begin the work again.",
                    session=self._session.id.hex(),
                )
        if head.condemn_seq != self._condemn_seq:
            self._check_relied(writer)
        packs, rows = self.seal(), []
        self._parts.absent.refuse_packs(packs, head.condemn_seq, self.allowed)
        number = self._version = head.version
        self._offered = True
        for pack in packs:
            number += 1
            writer.add_pack(number, pack.name, pack.body_bytes, pack.footer_bytes, pack.body)
            row = PackRow(number, pack.name, pack.body_bytes, pack.footer_bytes)
            rows.append((row, pack.footer))
        if self._session is not None:
            writer.drop_session(self._session.id)
        if self.counts:
            writer.record_removal(number + 1, head.condemn_seq + 1)
        return rows

    def confirm(self, reader: CatalogReader) -> None:
        """For a batch that writes nothing: what it found must exist in this state of the
        catalog too. Raises `Condemned`.
        """
        if self._hits and reader.head().condemn_seq != self._condemn_seq:
            self._check_relied(reader)

    def _check_relied(self, writer: CatalogReader) -> None:
        """Look up again what this batch names and does not write (E6)."""
        needs = self._patches.bases()
        if self._file is not None:
            needs |= self._file.needs()
        staged = (self._read(self, id) for id in self._structured)
        purged = self._parts.absent.refuse(self._hits, writer.head().condemn_seq, self.allowed)
        self._lookup.refresh(writer)
        check_relied(self._lookup, self._hits, staged, purged | self.buried, needs, self.holds)

    def installed(self, rows: list[tuple[PackRow, Footer]], head: Head) -> None:
        """After the transaction: the packs are part of the store."""
        self._done = True
        version = head.version
        for row, footer in rows:
            self._lookup.installed(row, footer, version)
            version = row.number
        self._young.installed()
        self._close()

    def resolved(self, rows: Iterable[tuple[PackRow, Footer]] = ()) -> None:
        """After a lost answer turned out to be yes: the packs, in `rows`, are part of the store."""
        self._done = True
        for row, footer in rows:
            if row.name is not None:
                self._lookup.keep_footer(row.number, footer)
        self._lookup.refresh()
        self._young.installed()
        self._close()

    def is_installed(self, reader: CatalogReader) -> bool:
        """Whether the installing transaction has committed, as the catalog shows it.

        One pack is proof: they were named together, and a spill may have gathered another since.
        """
        rows = {(row.name, row.body_bytes, row.footer) for row in reader.packs(self._version)}
        return any((p.name, p.body_bytes, p.footer_bytes) in rows for p in self._sealed or ())

    def abandon(self, error: BaseException | None = None) -> None:
        """Forget everything staged, because of `error` if there was one. Never raises.

        Pack files are removed unless the catalog may name them: after a commit whose answer was
        lost, or that an interrupt cut short, they and the session row are left for gc. A forked
        child touches nothing: the files are its parent's.
        """
        if self._done or self._pid != PROCESS.id:
            return
        self._done = True
        # `Closed` may come from a sync behind a commit that stands.
        sure = isinstance(error, CasError) and not isinstance(error, OutcomeUnknown | Closed)
        unnamed = not self._offered or error is None or sure
        with suppress(CasError):
            if self._file is not None:
                self._file.abort(sealed=unnamed)
            small = self._small_sealed
            if small is not None and small.name is not None and unnamed:
                self._parts.bucket.delete(file_name(small.name))
        self._close()
        if self._session is not None and unnamed:
            # A row that cannot be removed now is fenced off by gc.
            with suppress(CasError), self._parts.catalog.write() as writer:
                writer.drop_session(self._session.id)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._release is not None:
            self._release()
            self._release = None

    # -- pack files --------------------------------------------------------------------------

    def _begin_session(self) -> SessionRow:
        """Say that pack files are being written which no row names yet."""
        if self._session is None:
            self._session, self._release = begin_session(self._parts, self._condemn_seq)
        return self._session

    def _begin_file(self) -> FileWriter:
        session = self._begin_session()
        file = FileWriter(self._parts, session.id, self.beside, self._hints)
        depth = self._patches.depths.get
        file.add_many(
            Submitted(id, kind, payload, codec or None, raw_bytes, depth(id, 0))
            for id, kind, codec, payload, raw_bytes in self._small.values()
        )
        self._small.clear()
        self._small_bytes = 0
        return file
