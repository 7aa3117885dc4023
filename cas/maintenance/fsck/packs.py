"""Which packs there are, what their footers list, and what lies hidden where a footer is damaged.

Floor 5; checks docs/format.md sections 6.1 and 6.3 and the pack rows of 7.1. Invariant: after
`survey` and `learn` the table of known objects holds what a reader would find, no more and no
less; whole objects of packs that a reader refuses are in `hidden`, so that a check can say what
hangs on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from cas.catalog.catalog import PackRow
from cas.errors import (
    AccessDenied,
    CasError,
    CorruptPack,
    MissingPack,
    NewerFormat,
    StorageFailed,
)
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.known import KIND_BITS, SIZE_MAX, UNREAD, Known
from cas.maintenance.scan import id_of_record, scan_records
from cas.model.ids import Kind
from cas.model.values import frozen
from cas.objects.packs import bit_is_set, file_name
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.header import PACK_HEADER_BYTES, decode_header
from cas.storage.pack import (
    TRAILER_BYTES,
    Footer,
    check_footer,
    decode_footer,
    footer_length,
)
from cas.storage.record import RECORD_HEADER_BYTES

IDS_KEPT_MAX: Final = 1 << 17
"""Ids that are remembered for what is wrong with them; more are only counted."""

_FOOTERS_KEPT_BYTES: Final = 8 << 20
_SLOTS_AT_ONCE: Final = 1 << 15
_UNREAD_TREE: Final = UNREAD << KIND_BITS | Kind.TREE


@frozen
class Pack:
    """A pack that is installed. `body_bytes` is where its footer begins, as it says itself."""

    number: int
    file: str | None
    label: str
    body_bytes: int


class PackBytes:
    """Bytes of packs, wherever they lie. One thread; keeps the inline body it read last."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._number = 0
        self._body = b""

    def inline(self, number: int) -> bytes:
        """Header and records of an inline pack. Raises `MissingPack`."""
        if number != self._number:
            body = self._objects.catalog.inline_body(number)
            if body is None:
                raise MissingPack(f"The inline pack {number} is gone.", pack=str(number))
            self._number, self._body = number, body
        return self._body

    def read(self, pack: Pack, start: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises `MissingPack`, `CorruptPack`, `StorageFailed`."""
        if pack.file is not None:
            return self._objects.bucket.read(pack.file, start, length)
        data = self.inline(pack.number)[start : start + length]
        if len(data) != length:
            raise CorruptPack(f"The {pack.label} ends too early.", pack=pack.label, offset=start)
        return data


def is_out_of_reach(error: CasError) -> bool:
    """Whether a server cannot be asked, or does not let this user in: that is no damage. A disk
    that fails gives a number of the operating system.
    """
    return isinstance(error, AccessDenied) or (
        isinstance(error, StorageFailed) and error.fields.get("errno") is None
    )


class PackSurvey:
    """The packs of one store under a check."""

    def __init__(self, objects: ObjectStore, known: Known, findings: Findings) -> None:
        self._objects = objects
        self._bytes = PackBytes(objects)
        self._known = known
        self._findings = findings
        self._footers: dict[int, Footer] = {}
        self._footers_kept_bytes = 0
        self._vectors: dict[int, bytes] = {}
        self._numbers: set[int] = set()
        self._unlearned: list[Pack] = []
        self.packs: list[Pack] = []
        self.hidden: dict[bytes, str] = {}
        """Objects that lie whole in a pack whose header or footer is damaged -> its label."""
        self.newest_birth_us = 0
        self.vanished: list[PackRow] = []
        self.refused: list[Pack] = []
        """Packs whose header or footer is damaged."""
        self.absent: list[PackRow] = []
        """Packs that the catalog names and that are not there."""

    def survey(self, rows: Iterable[PackRow], vectors: Mapping[int, bytes]) -> None:
        """Read header and footer of every pack; one that is not there goes to `vanished`."""
        self._vectors.update(vectors)
        rows = list(rows)
        for number in vectors.keys() - {row.number for row in rows} - self._numbers:
            self._findings.add(
                "pack-row",
                f"pack {number}",
                f"There is a deletion vector of pack {number}, which is not installed; rebuild the "
                "catalog from the packs.",
            )
        self._numbers.update(row.number for row in rows)
        for row in rows:
            label = _label(row)
            try:
                self._survey(row, label)
            except MissingPack:
                self.vanished.append(row)
            except CasError as error:
                if row.name is not None and is_out_of_reach(error):
                    raise
                self._findings.add(
                    "pack-unreadable",
                    label,
                    f"{label} cannot be read ({error}); check the disk, or put the file back "
                    "from a backup.",
                )

    def missing(self, row: PackRow) -> None:
        """Tell of a pack of `vanished` that the catalog still names."""
        self.absent.append(row)
        label = _label(row)
        self._findings.add(
            "pack-missing",
            label,
            f"The catalog names {label}, which is not there; put the file back from a backup.",
        )

    def _survey(self, row: PackRow, label: str) -> None:
        pack, head, tail = self._ends(row, label)
        header_fault = self._header_fault(head, label)
        footer = self._footer_or_none(pack, head, tail, header_fault is None)
        if header_fault or footer is None:
            self._tell(pack, header_fault, footer is not None)
            return
        self.packs.append(pack)
        # Spill keeps inline packs few; footers of files can be read again.
        kept = pack.file is None or self._footers_kept_bytes < _FOOTERS_KEPT_BYTES
        if kept:
            self._footers[pack.number] = footer
            self._footers_kept_bytes += footer.memory_bytes
        bits = self._vectors.get(pack.number)
        if bits is not None and len(bits) != (footer.count + 7) // 8:
            self._findings.add(
                "pack-row",
                label,
                f"The deletion vector of {label} has {len(bits)} bytes for {footer.count} slots; "
                "rebuild the catalog from the packs.",
            )
            del self._vectors[pack.number]
        if kept:
            self._unlearned.append(pack)
        else:
            self._learn(footer, pack.number)

    def learn(self) -> None:
        """Complete the table of known objects. Apart from `survey`, so that the first records
        are read and decoded beside it.
        """
        for pack in self._unlearned:
            self._learn(self._footers[pack.number], pack.number)
        self._unlearned.clear()
        self._known.freeze()

    def _learn(self, footer: Footer, number: int) -> None:
        """Note what the pack holds, some slots at a time: as tuples they take six times more."""
        bits = self._vectors.get(number)
        rows = footer.rows()
        if bits is not None:
            gone = [bit_is_set(bits, slot) for slot in range(footer.count)]
            rows = (row for row, is_gone in zip(rows, gone, strict=True) if not is_gone)
        while part := list(islice(rows, _SLOTS_AT_ONCE)):
            self._known.add(
                [
                    (id, _UNREAD_TREE if kind == 2 else min(raw, SIZE_MAX) << KIND_BITS | kind)
                    for id, _offset, _stored, raw, kind, _codec, _depth, _flags, _group in part
                ]
            )

    def has_gone(self, pack: Pack) -> bool:
        """Whether any copy of this pack may be gone."""
        return pack.number in self._vectors

    def is_gone(self, pack: Pack, slot: int) -> bool:
        """Whether the deletion vector says that this copy does not exist."""
        return bit_is_set(self._vectors.get(pack.number), slot)

    def _ends(self, row: PackRow, label: str) -> tuple[Pack, bytes, bytes]:
        """The pack, its header and its footer, as far as they are there."""
        if row.name is None:
            body = self._bytes.inline(row.number)
            if len(body) != row.body_bytes:
                self._contradict(label, row.body_bytes, len(body))
            pack = Pack(row.number, None, label, len(body))
            return pack, body[:PACK_HEADER_BYTES], row.footer or b""
        file = file_name(row.name)
        read = self._objects.bucket.read
        size = self._objects.bucket.size(file)
        length = 0
        if size >= PACK_HEADER_BYTES + TRAILER_BYTES:
            try:
                length = footer_length(read(file, size - TRAILER_BYTES, TRAILER_BYTES), label)
            except CorruptPack:
                length = 0
        if length > size - PACK_HEADER_BYTES:
            length = 0
        body_bytes = size - length
        if length and body_bytes != row.body_bytes:
            self._contradict(label, row.body_bytes, body_bytes)
        head = read(file, 0, min(PACK_HEADER_BYTES, size))
        tail = read(file, body_bytes, length) if length else b""
        return Pack(row.number, file, label, body_bytes), head, tail

    def _contradict(self, label: str, stated: int, found: int) -> None:
        self._findings.add(
            "pack-row",
            label,
            f"The catalog says that the body of {label} has {stated} bytes and it has {found}; "
            "if the file was put there by hand, put the right one there, else rebuild the catalog.",
        )

    def _header_fault(self, head: bytes, label: str) -> str | None:
        try:
            header = decode_header(head, label)
        except (CorruptPack, NewerFormat) as error:
            return str(error)
        self.newest_birth_us = max(self.newest_birth_us, header.birth_us)
        if header.store_id != self._objects.meta.store_id:
            self._findings.add(
                "pack-foreign",
                label,
                f"{label} was written for the store {header.store_id.hex()}; put the file of "
                "this store there.",
            )
        return None

    @staticmethod
    def _footer_or_none(pack: Pack, head: bytes, tail: bytes, header_ok: bool) -> Footer | None:
        """The footer, if it holds. Its digest covers the header: a damaged one spoils it."""
        try:
            footer = decode_footer(head, tail, pack.label, verified=not header_ok)
            check_footer(footer, pack.label)
        except CorruptPack:
            return None
        return footer if footer.body_bytes == pack.body_bytes else None

    def _tell(self, pack: Pack, header_fault: str | None, footer_holds: bool) -> None:
        """Tell of a pack that readers refuse, and find its objects by their records."""
        self.refused.append(pack)
        hidden, whole = self._scan(pack)
        found = (
            f"{whole} whole objects were found by their records: rebuild the store from its packs"
        )
        if header_fault:
            self._findings.add("pack-header", pack.label, f"{header_fault} {found}.", hidden)
        if not footer_holds:
            fault = f"The footer of {pack.label} is damaged."
            self._findings.add("pack-footer", pack.label, f"{fault} {found}.", hidden)

    def _scan(self, pack: Pack) -> tuple[list[bytes], int]:
        """Ids of the records of a pack, and how many of them are whole as they stand.

        A recipe copy only states its id; whether it is one shows when it is rebuilt.
        """
        found: list[bytes] = []
        whole = 0
        for offset, header in scan_records(
            lambda start, length: self._bytes.read(pack, start, length),
            pack.body_bytes,
            pack.label,
        ):
            payload = self._bytes.read(pack, offset + RECORD_HEADER_BYTES, header.stored_bytes)
            id = id_of_record(header, payload, self._objects.dictionaries)
            if id is not None and len(self.hidden) < IDS_KEPT_MAX:
                found.append(id)
                whole += header.codec != RECIPE
                self.hidden[id] = pack.label
        return found, whole

    def footer_at_hand(self, pack: Pack) -> Footer | None:
        """A footer that was kept in memory."""
        return self._footers.get(pack.number)

    def footer(self, pack: Pack, source: PackBytes) -> Footer:
        """A footer that `survey` found good. Raises `CasError` when it is not there any more."""
        footer = self._footers.get(pack.number)
        if footer is not None:
            return footer
        assert pack.file is not None
        length = self._objects.bucket.size(pack.file) - pack.body_bytes
        tail = source.read(pack, pack.body_bytes, length)
        return decode_footer(source.read(pack, 0, PACK_HEADER_BYTES), tail, pack.label)


def _label(row: PackRow) -> str:
    return f"inline pack {row.number}" if row.name is None else file_name(row.name)
