"""The writer of pack files: a stream of objects in, sealed files out.

Floor 3; implements docs/format.md sections 6 and 7.2. Invariant: a file that `finish` gives is
durable under its final name, its footer was read back and is what was written, and nothing
names it yet. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from blake3 import blake3

from cas.errors import Closed, CorruptPack
from cas.limits import FOOTER_CACHE_BYTES, ID_BYTES, SENT_BYTES
from cas.model.ids import body_hasher
from cas.objects.packs import file_name
from cas.objects.parts import Parts
from cas.objects.pipeline import Beside, Pipeline, Submitted
from cas.objects.sealed import StoredFooter
from cas.objects.sending import Sending
from cas.storage.bucket import Bucket, Upload
from cas.storage.codec import DELTA, DICTIONARY, RAW
from cas.storage.header import PackHeader
from cas.storage.index import Run, prefix_of, run_of
from cas.storage.merging import due_merge, merge_runs
from cas.storage.pack import (
    Footer,
    Made,
    Row,
    Slot,
    decode_footer,
)
from cas.storage.packing import PackBuilder
from cas.storage.record import TAG_BYTES

_SLOTS_MAX: Final = 1 << 16
"""A pack of tiny objects is ended here: its slots and their numbers are 250 bytes of memory each
until it is.
"""


class SealedPack(NamedTuple):
    """A pack whose bytes are durable (a file) or at hand (inline), and which nothing names."""

    name: bytes | None
    body_bytes: int
    footer: Footer
    footer_bytes: bytes | None
    body: bytes | None


class FileWriter:
    """Streams records into pack files, rolling to the next near the target size.

    `hints` names, by id, installed objects that those given here may become deltas of; it is
    looked at some time after an object was given.
    """

    def __init__(
        self,
        parts: Parts,
        session_id: bytes,
        beside: Beside,
        hints: dict[bytes, bytes] | None = None,
    ) -> None:
        self._parts = parts
        self._session_id = session_id
        self._beside = beside
        self._pipeline = Pipeline(parts, hints, beside)
        self._in_flight: set[bytes] = set()
        self._sealed: list[SealedPack] = []
        self._sending = Sending()
        self._runs: list[Run] = []
        # Of all sealed packs; what is beyond the bound is read again when it is asked for.
        self._footer_bytes = 0
        self._upload: Upload | None = None
        self._builder: PackBuilder | None = None
        # Number of the record of each id in the pack at hand.
        self._numbers: dict[bytes, int] = {}
        self._failed = False
        # Digest of the body at hand, while every record of it was verified by who made it.
        self._hasher: blake3 | None = None
        self._vouched = True
        self.bases: dict[bytes, int] = {}
        """Installed objects that copies written here are deltas of, each with the depth that a
        copy of it has to stay below.
        """
        self.dictionaries: set[bytes] = set()
        """Those that copies written here stand beside."""

    def add(self, item: Submitted) -> None:
        """Take one object; its id must be new to this writer. Raises `Closed` after a failure."""
        if self._failed:
            raise _failed_before()
        self._in_flight.add(item.id)
        if self._pipeline.submit(item):
            self._drain()

    def _drain(self, *, everything: bool = False) -> None:
        """Write what is ready. After a failure objects are missing that were taken before, so
        that nothing of this writer may be committed, even if the caller goes on.
        """
        if self._failed:
            raise _failed_before()
        try:
            for records, dictionaries in self._pipeline.drain(everything=everything):
                self._write(records, dictionaries)
        except BaseException:
            self._failed = True
            raise

    def add_many(self, items: Iterable[Submitted]) -> None:
        """Take several."""
        for item in items:
            self.add(item)

    def copy(self, body: bytes, footer: Footer) -> None:
        """Append all records of another pack as they lie; none of its ids may be here."""
        self.vouch_no_more()
        self._drain(everything=True)
        builder = self._builder_for(footer.dictionaries())
        first = len(builder)
        builder.copy(body, footer)
        self._numbers.update(zip(footer.ids(), range(first, first + footer.count), strict=True))
        self._roll_if_full(builder)

    def copy_records(self, records: Sequence[tuple[bytes, Row]], dictionaries: list[bytes]) -> None:
        """Append single records of other packs as they lie, with what the footers name as
        dictionaries of theirs; none of their ids may be here.
        """
        self.vouch_no_more()
        builder = self._builder_for(dictionaries)
        first = len(builder)
        builder.copy_records(records)
        ids = [row[0] for _body, row in records]
        self._numbers.update(zip(ids, range(first, first + len(ids)), strict=True))
        self._roll_if_full(builder)

    def _begin(self) -> PackBuilder:
        meta = self._parts.meta
        header = PackHeader(
            meta.store_id, meta.lineage_id, self._session_id, self._parts.clock.wall_us()
        )
        self._upload = self._parts.bucket.create(self._session_id.hex())
        self._hasher = body_hasher() if self._vouched else None
        self._builder = PackBuilder(header, self._append)
        return self._builder

    def _append(self, data: bytes) -> None:
        assert self._upload is not None
        if self._hasher is not None:
            self._hasher.update(data)
        self._upload.write(data)

    def vouch_no_more(self) -> None:
        """Something that comes now was not verified: no pack from here on states a digest."""
        self._vouched = False
        self._hasher = None

    def _builder_for(self, dictionaries: list[bytes]) -> PackBuilder:
        """The pack at hand, or another where it cannot have so many dictionaries."""
        builder = self._builder or self._begin()
        if dictionaries and not builder.use(dictionaries):
            self._roll()
            builder = self._begin()
            builder.use(dictionaries)
        self.dictionaries.update(dictionaries)
        return builder

    def _write(self, records: list[Made], dictionaries: list[bytes]) -> None:
        builder = self._builder_for(dictionaries)
        records = [record for record in records if self._is_new(record[0])]
        for record in records:
            if record[2] == DELTA:
                base = record[3][:ID_BYTES]
                self.bases[base] = min(record[5], self.bases.get(base, record[5]))
        ids = [record[0] for record in records]
        self._numbers.update(zip(ids, range(len(builder), len(builder) + len(ids)), strict=True))
        builder.add_many(records)
        self._in_flight.difference_update(ids)
        self._roll_if_full(builder)

    def _is_new(self, id: bytes) -> bool:
        """Whether a record is to be written: a second copy of a base may be here already."""
        return id in self._in_flight or not self.holds(id)

    def _roll_if_full(self, builder: PackBuilder) -> None:
        most = self._parts.thresholds.pack_bytes
        if self._parts.bucket.far:
            # The first ones are short, so that they travel while the rest is made.
            most = min(most, SENT_BYTES << len(self._sealed) // 2)
        if builder.body_bytes >= most or len(builder) >= _SLOTS_MAX:
            self._roll()

    def _roll(self) -> None:
        """Seal the pack at hand: durable under its final name, its footer read back; where that
        takes requests, once `_sending` says so.
        """
        upload, builder = self._upload, self._builder
        if upload is None or builder is None:
            return
        footer_bytes = builder.footer(b"" if self._hasher is None else self._hasher.digest())
        upload.write(footer_bytes)
        name = self._parts.clock.random(16)
        file = file_name(name)
        bucket, body_bytes = self._parts.bucket, builder.body_bytes

        def seal() -> Footer:
            upload.seal(file)
            return read_back(bucket, file, builder.header, body_bytes, footer_bytes)

        if bucket.far:
            self._sending.begin(seal, body_bytes + len(footer_bytes))
            footer = decode_footer(builder.header, footer_bytes, file)
        else:
            footer = seal()
        self._upload = self._builder = None
        self._runs.append(run_of(len(self._sealed), name, footer))
        self._footer_bytes += footer.memory_bytes
        if self._footer_bytes > FOOTER_CACHE_BYTES:
            self._sending.wait()
            footer = StoredFooter(footer, partial(bucket.read, file))
        self._sealed.append(SealedPack(name, body_bytes, footer, None, None))
        self._numbers.clear()
        if due := due_merge(self._runs):
            merged = merge_runs(due, range(len(self._sealed)))
            self._runs = [run for run in self._runs if run not in due] + [merged]

    def finish(self) -> list[SealedPack]:
        """Write and seal what is left; every file is durable when this returns."""
        self._drain(everything=True)
        self._roll()
        self._sending.wait()
        self._parts.bucket.sync()
        # A list of its own: the batch adds the inline pack of a checkpoint to it.
        return list(self._sealed)

    def needs(self) -> dict[bytes, int]:
        """What copies written here need beside themselves and beside this writer, each with the
        depth that a copy of it has to stay below: a dictionary stands alone.
        """
        return self.bases | {id: 1 for id in self.dictionaries if not self.holds(id)}

    def holds(self, id: bytes) -> bool:
        """Whether this writer was given the object."""
        if id in self._in_flight or id in self._numbers:
            return True
        return bool(self._runs) and any(True for _ in self._rolled(id))

    def _rolled(self, id: bytes) -> Iterator[tuple[SealedPack, Slot]]:
        prefix = prefix_of(id)
        for run in self._runs:
            for ordinal, number in run.find(prefix):
                pack = self._sealed[ordinal]
                if pack.footer.id_at(number) == id:
                    yield pack, pack.footer.slot(number)

    def read(self, id: bytes) -> tuple[int, int, bytes, int] | None:
        """(kind, codec, payload, raw bytes) of an object this writer was given.

        What stands beside a dictionary is given as content, raw.
        """
        if id in self._in_flight:
            item = self._pipeline.pending(id)
            assert item is not None
            if item.codec == DICTIONARY:
                assert item.base is not None
                return self._plain(item.kind, item.base, item.group, item.content, item.raw_bytes)
            codec = RAW if item.codec is None else item.codec
            return item.kind, codec, item.content, item.raw_bytes
        number = self._numbers.get(id)
        if number is not None:
            assert self._builder is not None
            assert self._upload is not None
            slot = self._builder.slot(number)
            payload = self._upload.read(slot.payload_offset, slot.stored_bytes)
            if slot.codec == DICTIONARY:
                needs = self._builder.dictionary(payload)
                return self._plain(slot.kind, needs, slot.group, payload, slot.raw_bytes)
            return slot.kind, slot.codec, payload, slot.raw_bytes
        for pack, slot in self._rolled(id):
            assert pack.name is not None
            self._sending.wait()
            payload = self._parts.bucket.read(
                file_name(pack.name), slot.payload_offset, slot.stored_bytes
            )
            if slot.codec == DICTIONARY:
                named = pack.footer.dictionaries()
                needs = next(id for id in named if payload.startswith(id[:TAG_BYTES]))
                return self._plain(slot.kind, needs, slot.group, payload, slot.raw_bytes)
            return slot.kind, slot.codec, payload, slot.raw_bytes
        return None

    def _plain(
        self, kind: int, dictionary: bytes, group: int, payload: bytes, raw_bytes: int
    ) -> tuple[int, int, bytes, int]:
        found = self._beside(group)
        if found is None or found.id != dictionary:
            found = self._parts.dictionaries.get(dictionary, group)
        return kind, RAW, found.decode(payload, raw_bytes), raw_bytes

    def abort(self, *, sealed: bool) -> None:
        """Remove the file at hand, and the `sealed` ones if nothing names them."""
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        # What arrived behind its removal would stay.
        self._sending.settle()
        for pack in self._sealed if sealed else ():
            assert pack.name is not None
            self._parts.bucket.delete(file_name(pack.name))

    def close(self) -> None:
        """Stop the compressors."""
        self._pipeline.close()


def write_file(bucket: Bucket, name: bytes, body: bytes, footer_bytes: bytes) -> str:
    """A pack that is in memory as a file, its bytes durable and its name not yet; the file."""
    file = file_name(name)
    upload = bucket.create()
    try:
        upload.write(body)
        upload.write(footer_bytes)
        upload.seal(file)
    except BaseException:
        upload.abort()
        raise
    return file


def read_back(
    bucket: Bucket, file: str, header: bytes, body_bytes: int, footer_bytes: bytes
) -> Footer:
    """The footer of a file that was just sealed, if both ends are what was written. Raises
    `CorruptPack`.
    """
    if not bucket.check(file, header, body_bytes, footer_bytes):
        raise CorruptPack(
            f"The pack {file} reads back other bytes than were written; nothing was "
            "committed. Check the disk.",
            pack=file,
            offset=-1,
        )
    return decode_footer(header, footer_bytes, file)


def _failed_before() -> Closed:
    return Closed("An earlier write of this batch failed; begin another.")
