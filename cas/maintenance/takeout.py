"""Packs are written anew without some of their objects, in one transaction.

Floor 5; part of docs/format.md section 5.9. Invariant: everything else that the packs held exists
throughout, each existing delta has its base, and nothing is taken out that came since unseen: then
nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen

from cas.catalog.catalog import CatalogWriter
from cas.errors import CasError
from cas.objects.packs import Copy, PackInfo, bit_is_set, file_name, pack_name
from cas.objects.pipeline import Submitted
from cas.objects.store import ObjectStore
from cas.storage.codec import AS_THEY_LIE, DELTA, RECIPE, encode_payload
from cas.storage.pack import EDGE_BASE, EDGE_DICTIONARY, Footer, Slot
from cas.storage.record import RECORD_HEADER_BYTES


@frozen
class Scene:
    """Where something that goes lies, in one state of the catalog. `dependants` hang on it."""

    version: int
    removal_version: int
    packs: tuple[PackInfo, ...]
    vectors: dict[int, bytes]
    dependants: frozenset[bytes]
    # Pack -> slots of delta copies whose base goes, in packs that stay.
    deltas: dict[int, tuple[int, ...]]


def survey(objects: ObjectStore, goes: set[bytes]) -> Scene:
    """Every pack that holds something of it, dead copies included, and every delta of it."""
    with objects.catalog.read() as reader:
        state = objects.lookup.refresh(reader)
    packs: list[PackInfo] = []
    dependants: set[bytes] = set()
    deltas: dict[int, tuple[int, ...]] = {}
    for number, pack in state.packs.items():
        footer, bits = objects.lookup.footer(pack), state.vectors.get(number)
        edges = [edge for edge in footer.all_edges() if edge.id in goes]
        # A pack that names a dictionary that goes is written anew as a whole.
        concerned = not goes.isdisjoint(footer.ids()) or any(
            edge.role == EDGE_DICTIONARY for edge in edges
        )
        if concerned:
            packs.append(pack)
        slots = [
            edge.slot
            for edge in edges
            if edge.role == EDGE_BASE and not bit_is_set(bits, edge.slot)
        ]
        users = {slot: footer.id_at(slot) for slot in slots}
        dependants.update(user for user in users.values() if user not in goes)
        if slots and not concerned:
            deltas[number] = tuple(slots)
    return Scene(
        state.version,
        state.removal_version,
        tuple(packs),
        dict(state.vectors),
        frozenset(dependants),
        deltas,
    )


def take_out(objects: ObjectStore, scene: Scene, goes: set[bytes]) -> bool:
    """Install what stays anew and take the packs out; False, and nothing done, if others moved."""
    if not scene.packs and not scene.deltas:
        return True
    batch = objects.new_batch()
    try:
        for group in _staying(objects, scene, goes):
            batch.rewrite(group)
        batch.seal()
        with objects.catalog.write() as writer:
            head = writer.head()
            done = head.removal_version == scene.removal_version and _is_quiet(
                objects, writer, scene, goes
            )
            if done:
                rows = [] if batch.is_empty else batch.install(writer, head)
                version = head.version + len(rows) + 1
                for number, slots in scene.deltas.items():
                    bits = _with_bits(objects, scene, number, slots)
                    writer.set_vector(number, version, bits)
                files = [pack_name(pack.file) for pack in scene.packs if pack.file is not None]
                writer.add_unlinked(files, head.seq)
                numbers = [pack.number for pack in scene.packs]
                writer.remove_packs(numbers, version, head.condemn_seq + 1)
        if done and not batch.is_empty:
            batch.resolved()
        else:
            batch.abandon()
    except BaseException as error:
        batch.abandon(error)
        raise
    objects.lookup.refresh()
    return done


def _is_quiet(objects: ObjectStore, writer: CatalogWriter, scene: Scene, goes: set[bytes]) -> bool:
    """Whether nothing that came since holds, or hangs on, what goes."""
    for row in writer.packs(scene.version):
        file = None if row.name is None else file_name(row.name)
        pack = PackInfo(row.number, file, row.body_bytes, None)
        if row.name is None:
            objects.lookup.refresh(writer)
            known = objects.lookup.ensure().packs.get(row.number)
            if known is None:
                return False
            pack = known
        footer = objects.lookup.footer(pack)
        if not goes.isdisjoint(footer.ids()) or any(edge.id in goes for edge in footer.all_edges()):
            return False
    return True


def _with_bits(objects: ObjectStore, scene: Scene, number: int, slots: Iterable[int]) -> bytes:
    footer = objects.lookup.footer(objects.lookup.ensure().packs[number])
    bits = bytearray(scene.vectors.get(number, bytes((footer.count + 7) // 8)))
    for slot in slots:
        bits[slot >> 3] |= 1 << (slot & 7)
    return bytes(bits)


def _staying(objects: ObjectStore, scene: Scene, goes: set[bytes]) -> Iterator[list[Submitted]]:
    """New copies of what the packs held besides, as it lies; what hung on it is encoded anew."""
    chosen = _choose(objects, scene, goes)
    for pack in scene.packs:
        footer = objects.lookup.footer(pack)
        body = objects.stored(pack, 0, footer.body_bytes)
        yield [
            _record(slot, body)
            if slot.codec in AS_THEY_LIE
            else _whole(slot.id, *objects.verified(Copy(pack, slot)))
            for number, slot in enumerate(footer.slots())
            if chosen.get(slot.id) == (pack.number, number)
        ]
    for id in sorted(scene.dependants):
        kind, content = objects.read(id)
        yield [_whole(id, kind, content)]


def _whole(id: bytes, kind: int, content: bytes) -> Submitted:
    """An object that needs nothing beside itself: neither a base nor a dictionary that goes."""
    codec, payload = encode_payload(content)
    return Submitted(id, kind, payload, codec, len(content))


def _choose(objects: ObjectStore, scene: Scene, goes: set[bytes]) -> dict[bytes, tuple[int, int]]:
    """Which copy of each object that stays is taken over: the lowest that reads."""
    found: dict[bytes, list[tuple[int, int, int]]] = {}
    packs = {pack.number: pack for pack in scene.packs}
    footers: dict[int, Footer] = {n: objects.lookup.footer(p) for n, p in packs.items()}
    for number, footer in footers.items():
        bits = scene.vectors.get(number)
        for at, slot in enumerate(footer.slots()):
            stays = slot.id not in goes and slot.id not in scene.dependants
            if stays and not bit_is_set(bits, at):
                rank = 255 if slot.codec == RECIPE else slot.depth if slot.codec == DELTA else 0
                found.setdefault(slot.id, []).append((rank, number, at))
    chosen = {}
    for id, copies in found.items():
        copies.sort()
        for _rank, number, at in copies if len(copies) > 1 else ():
            try:
                objects.verified(Copy(packs[number], footers[number].slot(at)))
            except CasError:
                continue
            chosen[id] = number, at
            break
        else:
            # The only one, or none reads: it is as good in its new place as in the old one.
            chosen[id] = copies[0][1:]
    return chosen


def _record(slot: Slot, body: bytes) -> Submitted:
    start = slot.offset + RECORD_HEADER_BYTES
    payload = body[start : start + slot.stored_bytes]
    return Submitted(
        slot.id, slot.kind, payload, slot.codec, slot.raw_bytes, slot.depth, slot.group
    )
