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

from collections.abc import Callable, Iterable, Iterator

import attrs

from cas.catalog.catalog import CatalogWriter, Head, PackRow, SessionRow
from cas.errors import Closed, CorruptPack, ObjectNotFound, SessionExpired
from cas.limits import (
    INLINE_OBJECT_BYTES_MAX,
    INLINE_TRANSACTION_BYTES_MAX,
    PACK_BYTES_TARGET,
    PACK_SLOTS_MAX,
)
from cas.model.ids import Kind, digest_of
from cas.objects.children import children
from cas.objects.lookup import file_name
from cas.objects.parts import Parts
from cas.objects.pipeline import Pipeline
from cas.storage.bucket import Upload
from cas.storage.codec import RAW, RECIPE, encode_payload
from cas.storage.index import Run, due_merge, merge_runs, prefix_of, run_of
from cas.storage.pack import (
    PACK_HEADER_BYTES,
    Footer,
    PackBuilder,
    PackHeader,
    Slot,
    build_inline,
    decode_footer,
)
from cas.storage.record import RECORD_HEADER_BYTES

_NO_SESSION = bytes(16)


@attrs.frozen(slots=True)
class SealedPack:
    """A pack whose bytes are durable (a file) or at hand (inline), and which nothing names."""

    name: bytes | None
    body_bytes: int
    footer: Footer
    footer_bytes: bytes | None
    body: bytes | None


class Batch:
    """Objects staged together. Begin one with `ObjectStore.batch`.

    `read` gives (kind, content) of an object, those staged in the batch it is passed first.
    """

    def __init__(self, parts: Parts, read: Callable[[Batch, bytes], tuple[int, bytes]]) -> None:
        self._parts = parts
        self._read = read
        self._lookup = parts.lookup
        self._condemn_seq = self._lookup.ensure().condemn_seq
        # While small: id -> (kind, codec, payload, raw bytes), in the order given.
        self._small: dict[bytes, tuple[int, int, bytes, int]] = {}
        self._small_bytes = 0
        self._structured: list[bytes] = []
        self._hits: set[bytes] = set()
        self._file: _FileWriter | None = None
        self._session: SessionRow | None = None
        self._sealed: list[SealedPack] | None = None
        self._done = False
        self.written_count = 0
        self.written_bytes = 0

    # -- staging -----------------------------------------------------------------------------

    def put(self, kind: int, content: bytes) -> bytes:
        """Stage an object; gives its id. An object that exists is not written again."""
        id = digest_of(kind, content)
        self.add(id, kind, content)
        return id

    def add(self, id: bytes, kind: int, content: bytes) -> bool:
        """Stage an object whose id is known to be right; whether it had to be written."""
        if self.holds(id):
            return False
        if self._lookup.has(id):
            self._hits.add(id)
            return False
        size_bytes = len(content)
        self.written_count += 1
        self.written_bytes += size_bytes
        if kind != Kind.BLOB:
            self._structured.append(id)
        if self._file is None:
            codec, payload = 0, content
            if size_bytes > INLINE_OBJECT_BYTES_MAX:
                codec, payload = encode_payload(content)
            if (
                len(payload) <= INLINE_OBJECT_BYTES_MAX
                and self._small_bytes + len(payload) <= INLINE_TRANSACTION_BYTES_MAX
            ):
                self._small[id] = (kind, codec, payload, size_bytes)
                self._small_bytes += len(payload)
                return True
            self._file = self._begin_file()
        self._file.add(id, kind, content)
        return True

    def add_recipe_copy(self, id: bytes, recipe: bytes, size_bytes: int) -> None:
        """Stage a copy of blob `id` that is rebuilt by `recipe`."""
        payload = id + recipe
        if self._file is None:
            self._small[id] = (Kind.BLOB, RECIPE, payload, size_bytes)
            self._small_bytes += len(payload)
        else:
            self._file.add_encoded(id, Kind.BLOB, RECIPE, payload, size_bytes)
        self.written_count += 1

    def rewrite(self, id: bytes, kind: int, codec: int, payload: bytes, raw_bytes: int) -> None:
        """Stage another copy, in a pack file, of an object that exists; its payload as stored.

        A raw payload is compressed on the way. A second copy of the same id is left out.
        """
        file = self._file
        if file is None:
            file = self._file = self._begin_file()
        if file.holds(id):
            return
        if codec == RAW:
            file.add(id, kind, payload)
        else:
            file.add_encoded(id, kind, codec, payload, raw_bytes)

    def rely(self, id: bytes) -> None:
        """Note that this batch names `id`, which exists and which it does not write."""
        if not self.holds(id):
            self._hits.add(id)

    def holds(self, id: bytes) -> bool:
        """Whether the batch itself has staged `id`."""
        return id in self._small or (self._file is not None and self._file.holds(id))

    def read(self, id: bytes) -> tuple[int, int, bytes, int] | None:
        """(kind, codec, payload, raw bytes) of a staged object."""
        found = self._small.get(id)
        if found is None and self._file is not None:
            found = self._file.read(id)
        return found

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be written."""
        return not self._small and self._file is None

    # -- sealing and installing --------------------------------------------------------------

    def seal(self) -> list[SealedPack]:
        """Make every byte durable that does not travel in the installing transaction."""
        if self._sealed is None:
            if self._file is not None:
                self._sealed = self._file.finish()
            elif self._small:
                self._sealed = [self._inline_pack()]
            else:
                self._sealed = []
        return self._sealed

    def _inline_pack(self) -> SealedPack:
        meta = self._parts.meta
        header = PackHeader(
            meta.store_id, meta.lineage_id, _NO_SESSION, self._parts.clock.wall_us()
        )
        body, footer_bytes, footer = build_inline(
            header, [(id, *record) for id, record in self._small.items()]
        )
        return SealedPack(None, footer.body_bytes, footer, footer_bytes, body)

    def add_late(self, objects: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Add small objects (id, kind, content) inside the gate, after `seal`.

        They join the inline pack; beside pack files they become an inline pack of their own.
        """
        if self._file is None:
            self._sealed = None
        for id, kind, content in objects:
            if not self._lookup.has(id) and id not in self._small:
                self._small[id] = (kind, 0, content, len(content))
        if self._file is not None and self._small:
            self.seal().append(self._inline_pack())

    def install(self, writer: CatalogWriter, head: Head) -> list[tuple[PackRow, Footer]]:
        """Name the sealed packs inside a write transaction.

        Raises `SessionExpired` when gc fenced the session off, `ObjectNotFound` when something
        relied on was condemned; the transaction must then be rolled back and the work redone.
        """
        if self._done:
            raise Closed("This batch has ended; begin another.")
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
        rows = []
        number = head.version
        for pack in self.seal():
            number += 1
            writer.add_pack(number, pack.name, pack.body_bytes, pack.footer_bytes, pack.body)
            row = PackRow(number, pack.name, pack.body_bytes, pack.footer_bytes)
            rows.append((row, pack.footer))
        if self._session is not None:
            writer.drop_session(self._session.id)
        return rows

    def _check_relied(self, writer: CatalogWriter) -> None:
        """Look up again what this batch names and does not write (E6)."""
        named = set(self._hits)
        for id in self._structured:
            kind, content = self._read(self, id)
            named.update(children(kind, content))
        lookup = self._lookup
        lookup.refresh(writer)
        for id in named:
            if not self.holds(id) and not lookup.exists(id):
                raise ObjectNotFound(
                    f"Object {id.hex()} was condemned while this transaction ran; nothing was "
                    "committed. Begin it again.",
                    id=id,
                )

    def installed(self, rows: list[tuple[PackRow, Footer]], head: Head) -> None:
        """After the transaction: the packs are part of the store."""
        self._done = True
        version = head.version
        for row, footer in rows:
            self._lookup.installed(row, footer, version)
            version = row.number
        self._close()

    def resolved(self) -> None:
        """After a lost answer turned out to be yes: the packs are part of the store."""
        self._done = True
        self._lookup.refresh()
        self._close()

    def abandon(self) -> None:
        """Forget everything staged; files without a name in the catalog are removed."""
        if self._done:
            return
        self._done = True
        if self._file is not None:
            self._file.abort()
        self._close()
        if self._session is not None:
            with self._parts.catalog.write() as writer:
                writer.drop_session(self._session.id)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    # -- pack files --------------------------------------------------------------------------

    def _begin_file(self) -> _FileWriter:
        parts = self._parts
        session = SessionRow(
            parts.clock.random(16),
            int.from_bytes(parts.clock.random(6), "big"),
            self._condemn_seq,
            0,
            parts.clock.wall_us(),
        )
        with parts.catalog.write() as writer:
            head = writer.head()
            writer.put_session(attrs.evolve(session, base_seq=head.seq))
        self._session = session
        file = _FileWriter(parts, session.id)
        for id, (kind, codec, payload, raw_bytes) in self._small.items():
            if codec == 0:
                file.add(id, kind, payload)
            else:
                file.add_encoded(id, kind, codec, payload, raw_bytes)
        self._small.clear()
        self._small_bytes = 0
        return file


class _FileWriter:
    """Streams records into pack files, rolling to the next near the target size."""

    def __init__(self, parts: Parts, session_id: bytes) -> None:
        self._parts = parts
        self._session_id = session_id
        self._pipeline = Pipeline()
        self._in_flight: set[bytes] = set()
        self._sealed: list[SealedPack] = []
        self._runs: list[Run] = []
        self._upload: Upload | None = None
        self._builder: PackBuilder | None = None
        self._places: dict[bytes, tuple[int, int, int, int, int]] = {}

    def add(self, id: bytes, kind: int, content: bytes) -> None:
        self._in_flight.add(id)
        self._pipeline.submit(id, kind, content)
        self._collect(everything=False)

    def add_encoded(self, id: bytes, kind: int, codec: int, payload: bytes, raw: int) -> None:
        self._in_flight.add(id)
        self._pipeline.submit_encoded(id, kind, codec, payload, raw)
        self._collect(everything=False)

    def _collect(self, *, everything: bool) -> None:
        for item in self._pipeline.drain(everything=everything):
            self._write(item.id, item.kind, item.codec, item.payload, item.raw_bytes)
            self._in_flight.discard(item.id)

    def _write(self, id: bytes, kind: int, codec: int, payload: bytes, raw: int) -> None:
        builder = self._builder
        if builder is None:
            meta = self._parts.meta
            header = PackHeader(
                meta.store_id, meta.lineage_id, self._session_id, self._parts.clock.wall_us()
            )
            self._upload = self._parts.bucket.create()
            self._builder = builder = PackBuilder(header, self._upload.write)
        offset = builder.add(id, kind, codec, payload, raw)
        self._places[id] = (offset, len(payload), raw, kind, codec)
        if builder.body_bytes >= PACK_BYTES_TARGET or len(builder) >= PACK_SLOTS_MAX:
            self._roll()

    def _roll(self) -> None:
        """Seal the pack at hand: durable under its final name, its footer read back."""
        upload, builder = self._upload, self._builder
        if upload is None or builder is None:
            return
        footer_bytes = builder.footer()
        upload.write(footer_bytes)
        name = self._parts.clock.random(16)
        file = file_name(name)
        upload.seal(file)
        self._upload = self._builder = None
        bucket = self._parts.bucket
        header = bucket.read(file, 0, PACK_HEADER_BYTES)
        stored = bucket.read(file, builder.body_bytes, len(footer_bytes))
        footer = decode_footer(header, stored, file)
        if header != builder.header or stored != footer_bytes:
            raise CorruptPack(
                f"The pack {file} reads back other bytes than were written; nothing was "
                "committed. Check the disk.",
                pack=file,
                offset=-1,
            )
        self._runs.append(run_of(len(self._sealed), footer))
        self._sealed.append(SealedPack(name, builder.body_bytes, footer, None, None))
        self._places.clear()
        if due := due_merge(self._runs):
            merged = merge_runs(due, range(len(self._sealed)))
            self._runs = [run for run in self._runs if run not in due] + [merged]

    def finish(self) -> list[SealedPack]:
        self._collect(everything=True)
        self._roll()
        self._parts.bucket.sync()
        return self._sealed

    def holds(self, id: bytes) -> bool:
        if id in self._in_flight or id in self._places:
            return True
        return any(True for _ in self._rolled(id))

    def _rolled(self, id: bytes) -> Iterator[tuple[SealedPack, Slot]]:
        prefix = prefix_of(id)
        for run in self._runs:
            for ordinal, number in run.find(prefix):
                pack = self._sealed[ordinal]
                if pack.footer.id_at(number) == id:
                    yield pack, pack.footer.slot(number)

    def read(self, id: bytes) -> tuple[int, int, bytes, int] | None:
        if id in self._in_flight:
            item = self._pipeline.pending(id)
            if item is not None:
                if item.codec is None:
                    return item.kind, 0, item.content, len(item.content)
                return item.kind, item.codec, item.content, item.raw_bytes
        place = self._places.get(id)
        if place is not None and self._upload is not None:
            offset, stored, raw, kind, codec = place
            payload = self._upload.read(offset + RECORD_HEADER_BYTES, stored)
            return kind, codec, payload, raw
        for pack, slot in self._rolled(id):
            assert pack.name is not None
            payload = self._parts.bucket.read(
                file_name(pack.name), slot.payload_offset, slot.stored_bytes
            )
            return slot.kind, slot.codec, payload, slot.raw_bytes
        return None

    def abort(self) -> None:
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        for pack in self._sealed:
            assert pack.name is not None
            self._parts.bucket.delete(file_name(pack.name))

    def close(self) -> None:
        self._pipeline.close()
