"""Counts of references: of each object how many kept ones name it, as of one state of a store.

Floor 5; implements docs/design/029. Invariant: what is here follows from `roots` and `thinned`,
which are kept beside it, and from objects, which never change: an id is counted if and only if
these roots lead to it, whatever became of packs and refs since. So an older file is no wrong one.
It is a cache: what is damaged, or of another lineage, was never there.

The counts themselves, and which packs hold deltas of an object, are columns on disk; the rest is
held in memory while a run is at work.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from cas.errors import Uncounted
from cas.limits import GC_COUNT_CHANGED_MAX, GC_COUNT_UNKEPT_MAX, ID_BYTES
from cas.maintenance.gc.colors import GONE
from cas.maintenance.gc.columns import (
    KEY_BYTES,
    Column,
    Gathering,
    entries_in,
    entry,
    merged_pairs,
    merged_sums,
    split,
    write_column,
)
from cas.model.ids import Kind, digest_blob
from cas.objects.packs import PackInfo, pack_name
from cas.objects.store import ObjectStore
from cas.storage.pack import EDGE_BASE, Footer
from cas.storage.slots import KIND_AT, column

_FILE: Final = "gc-counts"
_MAGIC: Final = b"casGCRC2"
_DIGEST_BYTES: Final = 32
_HEAD: Final = struct.Struct("<QQ")
_LENGTH: Final = struct.Struct("<Q")
_TOKEN_BYTES: Final = 16
_CHANGED_FEW: Final = 1024
_NO_TOKEN: Final = bytes(_TOKEN_BYTES)
_DIGITS: Final = bytes(ord("1" if color == GONE else "0") for color in range(256))

Pairs = list[tuple[bytes, bytes]]


class Counts:
    """The counts of one store, in memory and in its cache folder. One thread."""

    def __init__(self) -> None:
        self.lineage = b""
        self.seq = 0
        self.anchor = b""
        """Hash of the entry that was the newest."""
        self.purged = b""
        """What lists the tombstones."""
        self.runs = 0
        """Runs that have believed these counts since everything was marked."""
        self.packs: set[bytes] = set()
        """Marks of the packs that were taken in."""
        self.gone: dict[bytes, int] = {}
        """Mark of a pack -> those of its slots that exist no more, as bits."""
        self.roots: frozenset[bytes] = frozenset()
        self.thinned: frozenset[bytes] = frozenset()
        self.segments: set[bytes] = set()
        self.dictionaries: set[tuple[bytes, bytes]] = set()
        """(mark of a pack, dictionary that copies in it need)."""
        self.needs: dict[bytes, set[bytes]] = {}
        """What copies of an object need beside a base: its recipes."""
        self.missing: set[bytes] = set()
        """Counted, and not there: they were purged."""
        self.unkept: set[bytes] = set()
        """Objects that exist and nothing kept leads to."""
        self.given: set[tuple[bytes, bytes]] = set()
        """(commit, its directory) of the thinned commits that were met."""
        self.changed: dict[bytes, int] = {}
        self.fresh_bases: set[bytes] = set()
        self.column: Column | None = None
        self.bases: Column | None = None

    # -- asking ------------------------------------------------------------------------------

    def of(self, id: bytes) -> int:
        """How many kept objects and roots name an object; 0: nothing keeps it."""
        key = id[:KEY_BYTES]
        found = self.changed.get(key)
        if found is None:
            numbers = [] if self.column is None else self.column.numbers(key)
            found = numbers[0] if numbers else 0
        return found

    def unnamed(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of these that nothing keeps."""
        ids = sorted(ids)
        changed, column = self.changed, self.column
        keys = [id[:KEY_BYTES] for id in ids]
        there = set() if column is None else column.among(keys)
        return [id for id, key in zip(ids, keys, strict=True) if not changed.get(key, key in there)]

    def loosen(self, ids: Iterable[bytes]) -> None:
        """Note what exists and nothing keeps. Raises `Uncounted` where that is too much."""
        self.unkept.update(ids)
        if len(self.unkept) > GC_COUNT_UNKEPT_MAX:
            raise Uncounted("more is loose or new than counts are kept of")

    def put(self, id: bytes, count: int) -> None:
        """Another count of an object."""
        self.changed[id[:KEY_BYTES]] = count

    def packs_on(self, ids: Iterable[bytes]) -> set[int]:
        """Numbers of packs in which deltas of these may lie."""
        fresh: dict[bytes, set[int]] = {}
        for key, number in map(split, self.fresh_bases):
            fresh.setdefault(key, set()).add(number)
        found: set[int] = set()
        for key in sorted({id[:KEY_BYTES] for id in ids}):
            found |= fresh.get(key, set())
            if self.bases is not None:
                found.update(self.bases.numbers(key))
        return found

    # -- packs -------------------------------------------------------------------------------

    def take(self, pack: PackInfo, footer: Footer, colors: bytearray) -> Iterator[bytes]:
        """Take in what a pack says; entries of the bases that lie under its deltas. `colors`
        say which slots exist.
        """
        mark = mark_of(pack)
        self.packs.add(mark)
        self.dictionaries.update((mark, id) for id in footer.dictionaries())
        kinds = column(footer.table, KIND_AT)
        at = kinds.find(Kind.SEGMENT)
        while at >= 0:
            if colors[at] != GONE:
                self.segments.add(footer.id_at(at))
            at = kinds.find(Kind.SEGMENT, at + 1)
        if footer.has_edges:
            for slot, role, id in footer.edge_rows():
                if role == EDGE_BASE:
                    yield entry(id[:KEY_BYTES], pack.number)
                else:
                    self.needs.setdefault(footer.id_at(slot), set()).add(id)

    def note_gone(self, packs: Iterable[PackInfo], colors: Mapping[int, bytearray]) -> None:
        """Remember which slots exist no more. Raises `Uncounted` where one exists again: then an
        older catalog was put in place of the one that was counted, or lost what it had said, and
        what lies there was given up without having been counted since.
        """
        found = {mark_of(pack): _gone_in(colors[pack.number]) for pack in packs}
        if any(before & ~found.get(mark, before) for mark, before in self.gone.items()):
            raise Uncounted("objects exist again that the counts know as gone")
        self.gone = {mark: bits for mark, bits in found.items() if bits}

    def all_roots(self, kept: Iterable[bytes]) -> frozenset[bytes]:
        """What is counted as named once more: `kept`, segments of the journal, dictionaries."""
        return frozenset((*kept, *self.segments, *(id for _mark, id in self.dictionaries)))

    # -- the files ---------------------------------------------------------------------------

    def settle(self, objects: ObjectStore, sums: Gathering, bases: Gathering) -> None:
        """Write columns of what was gathered. Raises `OSError`."""
        folder = objects.cache
        assert folder is not None
        token = objects.clock.random(_TOKEN_BYTES)
        write_column(_path(folder, token), token, sums.parts())
        self.column = Column(_path(folder, token), token)
        token = objects.clock.random(_TOKEN_BYTES)
        write_column(_path(folder, token), token, bases.parts())
        self.bases = Column(_path(folder, token), token)

    def save(self, objects: ObjectStore, alive: Iterable[int]) -> None:
        """Write what changed, or all anew where that is much. Never raises for what the file
        system says: what is there is older then, and as good.
        """
        folder = objects.cache
        if folder is None or objects.catalog.read_only:
            return
        with suppress(OSError, OverflowError, Uncounted):
            self._thin_out(objects, folder, list(alive))
            data = _encode(self)
            part = os.path.join(folder, f"{_FILE}.{os.getpid()}.tmp")
            with open(part, "wb") as file:
                file.write(_MAGIC + digest_blob(_MAGIC + data) + data)
            os.replace(part, os.path.join(folder, _FILE))
            named = {_name(column.token) for column in (self.column, self.bases) if column}
            for name in os.listdir(folder):
                left = name.startswith(f"{_FILE}.") and name.endswith(".tmp")
                if left or (name.startswith(f"{_FILE}-") and name not in named):
                    os.unlink(os.path.join(folder, name))

    def _thin_out(self, objects: ObjectStore, folder: str, alive: list[int]) -> None:
        """Write columns anew beside which much has changed."""
        old = self.column
        if old is not None and _is_much(len(self.changed), old.count):
            token = objects.clock.random(_TOKEN_BYTES)
            write_column(_path(folder, token), token, merged_sums(old, self.changed))
            self.column, self.changed = Column(_path(folder, token), token), {}
            old.close()
        before = self.bases
        if before is not None and _is_much(len(self.fresh_bases), before.count):
            token = objects.clock.random(_TOKEN_BYTES)
            parts = merged_pairs(before, self.fresh_bases, alive)
            write_column(_path(folder, token), token, parts)
            self.bases, self.fresh_bases = Column(_path(folder, token), token), set()
            before.close()

    def close(self) -> None:
        """Give descriptors back."""
        for found in (self.column, self.bases):
            if found is not None:
                found.close()


def _gone_in(colors: bytearray) -> int:
    """A bit for each slot that exists no more."""
    return int(colors.translate(_DIGITS), 2) if GONE in colors else 0


def _is_much(changed: int, count: int) -> bool:
    return changed > max(_CHANGED_FEW, int(count * GC_COUNT_CHANGED_MAX))


def mark_of(pack: PackInfo) -> bytes:
    """What tells a pack from every other, also from one of the same number in a catalog that was
    put back: the name of its file, or a digest of its slots.
    """
    if pack.file is not None:
        own = pack_name(pack.file)
    else:
        assert pack.footer is not None
        own = pack.footer.table + b"".join(id for _slot, _role, id in pack.footer.edge_rows())
    return digest_blob(pack.number.to_bytes(8, "big") + own)[:KEY_BYTES]


def _name(token: bytes) -> str:
    return f"{_FILE}-{token.hex()}"


def _path(folder: str, token: bytes) -> str:
    return os.path.join(folder, _name(token))


def discard(objects: ObjectStore) -> None:
    """Throw the counts of a store away."""
    if objects.cache is not None:
        with suppress(OSError):
            os.unlink(os.path.join(objects.cache, _FILE))


def load(objects: ObjectStore, lineage: bytes) -> Counts:
    """The counts that were saved for this lineage. Raises `Uncounted`."""
    folder = objects.cache
    if folder is None:
        raise Uncounted("there is no cache folder")
    try:
        with open(os.path.join(folder, _FILE), "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise Uncounted("references were not counted yet") from error
    except OSError as error:
        raise Uncounted(f"the counts cannot be read ({error.strerror})") from error
    start = len(_MAGIC) + _DIGEST_BYTES
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : start] != digest_blob(
        _MAGIC + data[start:]
    ):
        raise Uncounted("the counts are damaged, or of another version")
    counts, tokens = _decode(data[start:])
    if counts.lineage != lineage:
        raise Uncounted("the counts are of another lineage of this store")
    try:
        counts.column = Column(_path(folder, tokens[0]), tokens[0])
        counts.bases = Column(_path(folder, tokens[1]), tokens[1])
    except Uncounted:
        counts.close()
        raise
    return counts


def _encode(counts: Counts) -> bytes:
    tokens = [_NO_TOKEN if c is None else c.token for c in (counts.column, counts.bases)]
    parts = (
        counts.lineage,
        counts.anchor,
        counts.purged,
        b"".join(tokens),
        b"".join(sorted(counts.packs)),
        b"".join(sorted(counts.roots)),
        b"".join(sorted(counts.thinned)),
        b"".join(sorted(counts.segments)),
        b"".join(mark + id for mark, id in sorted(counts.dictionaries)),
        b"".join(id + need for id, needs in counts.needs.items() for need in sorted(needs)),
        b"".join(sorted(counts.missing)),
        b"".join(sorted(counts.unkept)),
        b"".join(commit + tree for commit, tree in sorted(counts.given)),
        b"".join(entry(key, count) for key, count in counts.changed.items()),
        b"".join(sorted(counts.fresh_bases)),
        b"".join(_gone_row(mark, bits) for mark, bits in sorted(counts.gone.items())),
    )
    head = _HEAD.pack(counts.seq, counts.runs)
    return head + b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _decode(data: bytes) -> tuple[Counts, list[bytes]]:
    counts = Counts()
    counts.seq, counts.runs = _HEAD.unpack_from(data)
    parts: list[bytes] = []
    at = _HEAD.size
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += length
    counts.lineage, counts.anchor, counts.purged, tokens = parts[:4]
    counts.packs = set(_pieces(parts[4], KEY_BYTES))
    counts.roots = frozenset(_pieces(parts[5], ID_BYTES))
    counts.thinned = frozenset(_pieces(parts[6], ID_BYTES))
    counts.segments = set(_pieces(parts[7], ID_BYTES))
    counts.dictionaries = set(_pairs(parts[8], KEY_BYTES, ID_BYTES))
    for id, need in _pairs(parts[9], ID_BYTES, ID_BYTES):
        counts.needs.setdefault(id, set()).add(need)
    counts.missing = set(_pieces(parts[10], ID_BYTES))
    counts.unkept = set(_pieces(parts[11], ID_BYTES))
    counts.given = set(_pairs(parts[12], ID_BYTES, ID_BYTES))
    counts.changed = dict(map(split, entries_in(parts[13])))
    counts.fresh_bases = set(entries_in(parts[14]))
    counts.gone = dict(_gone_rows(parts[15]))
    return counts, _pieces(tokens, _TOKEN_BYTES)


def _gone_row(mark: bytes, bits: int) -> bytes:
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    return mark + _LENGTH.pack(len(data)) + data


def _gone_rows(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(data):
        start = at + KEY_BYTES + _LENGTH.size
        (length,) = _LENGTH.unpack_from(data, at + KEY_BYTES)
        yield data[at : at + KEY_BYTES], int.from_bytes(data[start : start + length], "big")
        at = start + length


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _pairs(data: bytes, first: int, second: int) -> Pairs:
    return [(piece[:first], piece[first:]) for piece in _pieces(data, first + second)]
