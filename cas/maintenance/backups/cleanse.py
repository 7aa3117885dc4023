"""What a store has purged goes from its backups too: packs there are written anew without it.

Floor 5; implements docs/format.md section 13.4. Invariant: everything else that a state had, it
has afterwards, with the numbers and bits that it had; an increment says that nothing purged is left
only where every file of the vault was looked at. The newest state is never changed: where that
still has the content, the store's own purge has not ended, and nothing is done until it has.

Each pack is written anew once, whichever states name it: what lives in any of them moves as it
lies, but for copies that hang on what goes, which become whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from attrs import evolve, field, frozen, mutable

from cas.catalog.sqlite import memory_catalog
from cas.clock import Clock
from cas.errors import CasError, CorruptBackup
from cas.history.tombstones import Tombstone
from cas.limits import FOOTER_CACHE_BYTES
from cas.maintenance.backups.carry import look_through
from cas.maintenance.backups.increment import Held, Index, PackLine, VectorLine
from cas.maintenance.backups.refill import VaultImage, fill_packs
from cas.maintenance.backups.rewrite import FRESH, Rewriting, meta_of, sweep
from cas.maintenance.backups.stones import STONES, digest_of_stones, stone_rows, stones_in
from cas.maintenance.backups.vault import Vault, check_of
from cas.maintenance.entangled import dictionaries_of, parts_of, used_elsewhere
from cas.model.entry import Entry
from cas.model.ids import body_hasher, digest_blob
from cas.objects.packs import bit_is_set, file_name, read_footer
from cas.objects.store import ObjectStore
from cas.storage.codec import AS_THEY_LIE, RECIPE, encode_payload
from cas.storage.header import PackHeader
from cas.storage.pack import (
    EDGE_BASE,
    Footer,
    Made,
    Slot,
    decode_footer,
)
from cas.storage.packing import PackBuilder
from cas.storage.record import COMMON_GROUP

_NO_SESSION: Final = bytes(16)


@frozen
class Cleansed:
    """What became of purged content in a vault: ids that were taken out, and packs written anew;
    `left` are ids that the newest state still has, so that nothing was done.
    """

    ids: tuple[bytes, ...] = ()
    pack_count: int = 0
    left: tuple[bytes, ...] = ()


# -- looking ---------------------------------------------------------------------------------------


def _concerns(footer: Footer, ids: set[bytes]) -> bool:
    """Whether a pack holds something of it, alive or not, or hangs on it."""
    return not ids.isdisjoint(footer.ids()) or any(edge.id in ids for edge in footer.all_edges())


class _Footers:
    """Footers of the packs of a vault, as many as there is room for."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: OrderedDict[bytes, Footer] = OrderedDict()
        self._bytes = 0

    def of(self, line: PackLine) -> Footer:
        """Raises `Corrupt`."""
        footer = self._known.get(line.check)
        if footer is None:
            footer = self._known[line.check] = self._read(line)
            self._bytes += footer.memory_bytes
            while self._bytes > FOOTER_CACHE_BYTES and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].memory_bytes
        return footer

    def _read(self, line: PackLine) -> Footer:
        if line.name is not None:
            return read_footer(self._vault.packs, file_name(line.name))[1]
        assert line.body is not None
        footer = self._vault.held(line.body)[line.body_bytes :]
        return decode_footer(b"", footer, f"inline pack {line.number}", verified=True)


def is_clean(
    vault: Vault, chain: Sequence[Index], inline: Iterable[bytes], ids: set[bytes]
) -> bool:
    """Whether no pack of a vault, named or not, has any of these, and none of the `inline` ones
    whose footers are given. Raises `Corrupt`.
    """
    footers = _Footers(vault)
    for data in inline:
        if _concerns(decode_footer(b"", data, "an inline pack", verified=True), ids):
            return False
    for file in vault.packs.list():
        if _concerns(read_footer(vault.packs, file.name)[1], ids):
            return False
    seen: set[bytes] = set()
    for index in chain:
        for line in () if index.state is None else index.state.packs:
            if line.name is None and line.check not in seen:
                seen.add(line.check)
                if _concerns(footers.of(line), ids):
                    return False
    return True


# -- cleansing -------------------------------------------------------------------------------------


class _Scene:
    """A state that has some of it, and its objects, opened when they are asked for."""

    def __init__(self, vault: Vault, clock: Clock, index: Index, stack: ExitStack) -> None:
        self._vault = vault
        self._clock = clock
        self._stack = stack
        self._objects: ObjectStore | None = None
        self.index = index

    @property
    def objects(self) -> ObjectStore:
        """The objects of the state; a catalog of its packs is made for them."""
        if self._objects is None:
            index, clock = self.index, self._clock
            assert index.state is not None
            # In memory: what is purged must not be left in a file that nobody looks for.
            catalog = memory_catalog(meta_of(index.origin), clock.random(16).hex())
            self._stack.callback(catalog.close)
            image = VaultImage(self._vault, (), index.state, index.origin, 0, index.state.seq)
            with catalog.write() as writer:
                fill_packs(writer, image)
            self._objects = ObjectStore(catalog, self._vault.packs, clock)
            self._objects.lookup.refresh()
        return self._objects


@mutable
class _Pack:
    """A pack that is written anew: where it is named, and which slots live in which state."""

    line: PackLine
    footer: Footer
    states: list[tuple[_Scene, PackLine, bytes | None]] = field(factory=list)


def cleanse(vault: Vault, clock: Clock, stones: Sequence[Tombstone]) -> Cleansed:
    """Take purged content out of every state but the newest; its packs and increments go.

    Raises `CorruptBackup` where what has to be written anew is damaged; nothing has changed then.
    """
    chain = vault.chain()
    states = [index for index in chain if index.state is not None]
    goes = {bytes(stone.id) for stone in stones}
    footers = _Footers(vault)
    left = _held(footers, states[-1], goes)
    if left:
        return Cleansed(left=tuple(sorted(left)))
    with ExitStack() as stack:

        def concerned() -> list[_Scene]:
            return [
                _Scene(vault, clock, index, stack)
                for index in states[:-1]
                if any(_concerns(footers.of(line), goes) for line in _lines(index))
            ]

        scenes = concerned()
        more = _entangled(vault, clock, chain, footers, scenes, goes)
        if more:
            goes |= more - _held(footers, states[-1], more)
            scenes = concerned()
        changed = {index.number: index for index in states}
        fresh: dict[bytes, bytes] = {}
        found: set[bytes] = set()
        packs = _packs(vault, footers, scenes, goes)
        news: dict[tuple[int, int], PackLine | None] = {}
        for pack in packs:
            found.update(goes.intersection(pack.footer.ids()))
            for scene, number, line in _rewritten(vault, clock, pack, goes, fresh):
                news[scene.index.number, number] = line
        for scene in scenes:
            index = scene.index
            changed[index.number] = _changed(index, footers, news, stones)
        newest = changed[states[-1].number]
        done = {**newest.extras, "purged": digest_of_stones(stones)}
        changed[newest.number] = evolve(newest, extras=done)
        vault.packs.sync()
        Rewriting(vault, clock, chain).run(changed, fresh)
    sweep(vault)
    wanted = {bytes(stone.id) for stone in stones}
    return Cleansed(tuple(sorted(found & wanted)), len(packs))


def _lines(index: Index) -> tuple[PackLine, ...]:
    return () if index.state is None else index.state.packs


def _held(footers: _Footers, index: Index, ids: set[bytes]) -> set[bytes]:
    """Those of `ids` that packs of a state hold, alive or not."""
    found: set[bytes] = set()
    for line in _lines(index):
        found.update(ids.intersection(footers.of(line).ids()))
    return found


def _entangled(
    vault: Vault,
    clock: Clock,
    chain: Sequence[Index],
    footers: _Footers,
    scenes: Sequence[_Scene],
    goes: set[bytes],
) -> set[bytes]:
    """Parts of large content that nothing else uses in any state, and dictionaries of it."""
    parts: set[bytes] = set()
    for scene in scenes:
        for id in _large(footers, scene.index, goes):
            parts |= parts_of(scene.objects, id)
    if parts:
        named = {
            bytes(event.blob)
            for data in vault.entries(chain)
            for event in Entry.decode(data, verified=True).events
            if event.blob is not None
        }
        for index in chain:
            if index.state is not None:
                # A state without the content may use parts of it, too.
                with ExitStack() as stack:
                    objects = _Scene(vault, clock, index, stack).objects
                    parts -= used_elsewhere(objects, goes, parts, named)
    found = set(parts)
    for scene in scenes:
        if any(footers.of(line).dictionaries() for line in _lines(scene.index)):
            found |= dictionaries_of(scene.objects, goes | parts)
    return found


def _large(footers: _Footers, index: Index, ids: set[bytes]) -> set[bytes]:
    """Those of `ids` that a state has a copy of that is put together from parts."""
    found: set[bytes] = set()
    for line in _lines(index):
        footer = footers.of(line)
        for id in ids.intersection(footer.ids()):
            if footer.slot(footer.find(id)).codec == RECIPE:
                found.add(id)
    return found


def _packs(
    vault: Vault, footers: _Footers, scenes: Sequence[_Scene], goes: set[bytes]
) -> list[_Pack]:
    found: dict[bytes, _Pack] = {}
    for scene in scenes:
        for line in _lines(scene.index):
            footer = footers.of(line)
            if _concerns(footer, goes):
                pack = found.setdefault(line.check, _Pack(line, footer))
                bits = None if line.vector is None else vault.held(line.vector.bits)
                pack.states.append((scene, line, bits))
    return list(found.values())


def _changed(
    index: Index,
    footers: _Footers,
    news: dict[tuple[int, int], PackLine | None],
    stones: Sequence[Tombstone],
) -> Index:
    """A state with its new packs, and the tombstones of what it had."""
    assert index.state is not None
    held = _held(footers, index, {bytes(stone.id) for stone in stones})
    rows = {bytes(stone.id): stone for stone in stones_in(index)}
    rows.update({bytes(stone.id): stone for stone in stones if bytes(stone.id) in held})
    lines = [news.get((index.number, line.number), line) for line in index.state.packs]
    state = evolve(index.state, packs=tuple([line for line in lines if line is not None]))
    damaged = tuple([id for id in index.damaged if id not in held])
    extras = {**index.extras, STONES: stone_rows(rows.values())}
    return evolve(index, state=state, damaged=damaged, extras=extras)


# -- one pack --------------------------------------------------------------------------------------


def _rewritten(
    vault: Vault, clock: Clock, pack: _Pack, goes: set[bytes], fresh: dict[bytes, bytes]
) -> Iterator[tuple[_Scene, int, PackLine | None]]:
    """Write a pack anew: in each state that names it, the line for its number (None: no pack)."""
    body, vouched = _body(vault, pack)
    records = list(_staying(pack, body, goes))
    if not records:
        for scene, line, _bits in pack.states:
            yield scene, line.number, None
        return
    meta = pack.states[0][0].objects.meta
    header = PackHeader(meta.store_id, meta.lineage_id, _NO_SESSION, clock.wall_us())
    parts: list[bytes] = []
    builder = PackBuilder(header, parts.append)
    builder.add_many(records)
    whole = b"".join(parts)
    inline = pack.line.name is None
    hasher = body_hasher()
    hasher.update(whole)
    footer_bytes = builder.footer(hasher.digest() if vouched and not inline else b"")
    name, held, check = None, None, check_of(footer_bytes)
    if inline:
        content = whole + footer_bytes
        held = Held(FRESH, digest_blob(content))
        fresh[held.id] = content
    else:
        name = clock.random(16)
        check = digest_blob(hasher.digest() + footer_bytes)
        upload = vault.packs.create()
        try:
            upload.write(whole)
            upload.write(footer_bytes)
            upload.seal(file_name(name))
        finally:
            upload.abort()
    footer = decode_footer(b"", footer_bytes, pack.line.check.hex(), verified=True)
    for scene, line, bits in pack.states:
        vector = None
        moved = _moved_bits(pack.footer, footer, bits)
        if moved is not None and line.vector is not None:
            place = Held(FRESH, digest_blob(moved))
            fresh[place.id] = moved
            vector = VectorLine(line.vector.version, place)
        yield scene, line.number, PackLine(line.number, name, len(whole), check, held, vector)


def _body(vault: Vault, pack: _Pack) -> tuple[bytes, bool]:
    """Header and records of a pack, and whether its writer vouched for all of them.

    Raises `CorruptBackup` where it is not what was backed up.
    """
    line = pack.line
    if line.body is not None:
        return vault.held(line.body)[: line.body_bytes], False
    assert line.name is not None
    file = file_name(line.name)
    parts: list[bytes] = []
    looked = look_through(vault.packs, file, parts.append)
    if looked.check != line.check:
        raise CorruptBackup(
            f"The pack {file} of the backup is damaged, and holds content that was purged; it "
            "stays until `cas expire` drops the positions that need it.",
            path=file,
        )
    footer = pack.footer
    return b"".join(parts)[: footer.body_bytes], footer.body_digest == looked.body_digest


def _staying(pack: _Pack, body: bytes, goes: set[bytes]) -> Iterator[Made]:
    """What lives in any state and stays, in the order in which it lies."""
    hangs = {
        edge.slot for edge in pack.footer.edges() if edge.role == EDGE_BASE and edge.id in goes
    }
    for number in pack.footer.by_offset():
        slot = pack.footer.slot(number)
        living = [scene for scene, _line, bits in pack.states if not bit_is_set(bits, number)]
        if slot.id in goes or not living:
            continue
        if slot.codec in AS_THEY_LIE and number not in hangs:
            start = slot.payload_offset
            payload = body[start : start + slot.stored_bytes]
            yield slot.id, slot.kind, slot.codec, payload, slot.raw_bytes, slot.depth, slot.group
        elif (made := _whole(slot, living)) is not None:
            yield made


def _whole(slot: Slot, living: Sequence[_Scene]) -> Made | None:
    """A copy that hangs on nothing; None for what could not be read before either."""
    for scene in living:
        try:
            kind, content = scene.objects.read(slot.id)
        except CasError:
            continue
        codec, payload = encode_payload(content)
        return slot.id, kind, codec, payload, len(content), 0, COMMON_GROUP
    return None


def _moved_bits(before: Footer, after: Footer, bits: bytes | None) -> bytes | None:
    """The bits of a deletion vector for the slots that a pack has now; None where none is set."""
    if bits is None:
        return None
    moved = bytearray((after.count + 7) // 8)
    for number, id in enumerate(after.ids()):
        if bit_is_set(bits, before.find(id)):
            moved[number >> 3] |= 1 << (number & 7)
    return bytes(moved) if any(moved) else None
