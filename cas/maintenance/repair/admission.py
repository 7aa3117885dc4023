"""Which copies a catalog may name that is made from packs, and which of them are alive.

Floor 5; implements docs/design/001, 4.12 and the rebuild of section 3. Invariant: a copy is
admitted only if what it needs is (children, base, recipe, chunks), from the bottom up; of what is
admitted, that which no root leads to is given up, so that nothing condemned comes back.

Blobs are not read: their footers are, and every structured object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from attrs import field, frozen

from cas.errors import CasError
from cas.limits import ID_BYTES
from cas.maintenance.fsck.packs import is_out_of_reach
from cas.model.ids import Kind
from cas.model.objects import Commit
from cas.objects.bulk import GROUP_BYTES, GROUP_COUNT, BulkReader
from cas.objects.chains import Place
from cas.objects.children import children
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, DICTIONARY, RECIPE
from cas.storage.pack import EDGE_BASE, EDGE_RECIPE, Footer, Slot
from cas.storage.record import TAG_BYTES

_BLOB: Final = int(Kind.BLOB)
Spot = tuple[int, int]
"""A copy: number of its pack, and its slot."""


@frozen
class Source:
    """A pack that may be named."""

    pack: PackInfo
    footer: Footer


@frozen
class Damage:
    """A structured object of which a copy does not give its content, and where that lies."""

    id: bytes
    pack: str


@frozen
class Survey:
    """All that packs hold. `edges` are the ids that a structured object names, in one string;
    `copies` are its copies that need something: (spot, depth, id of it) by the id of the object.
    """

    sources: tuple[Source, ...]
    exist: set[bytes] = field(factory=set)
    edges: dict[bytes, bytes] = field(factory=dict)
    commits: dict[bytes, tuple[bytes, ...]] = field(factory=dict)
    segments: list[tuple[bytes, bytes, str]] = field(factory=list)
    refs_nodes: set[bytes] = field(factory=set)
    deltas: list[tuple[int, bytes, bytes, Spot]] = field(factory=list)
    recipes: list[tuple[bytes, bytes, Spot]] = field(factory=list)
    users: list[tuple[bytes, bytes, Spot]] = field(factory=list)
    refused: set[Spot] = field(factory=set)
    damage: list[Damage] = field(factory=list)


def survey(
    objects: ObjectStore, sources: Sequence[Source], progress: Callable[[str], None] | None = None
) -> Survey:
    """Read all footers at hand, and every structured object. Damage is noted, never raised; a
    server of packs that does not answer is none, and raises `StorageFailed`.
    """
    found = Survey(tuple(sources))
    plain: set[bytes] = found.exist
    structured: list[tuple[Source, list[int]]] = []
    for source in sources:
        numbers = _sort(objects, source, found, plain)
        structured.append((source, numbers))
    reader = BulkReader(objects)
    for source, numbers in structured:
        if progress is not None:
            progress(source.pack.label)
        for part in _parts(source.footer, numbers):
            _read(objects, reader, source, part, found)
    _settle_storage(found)
    return found


def _sort(objects: ObjectStore, source: Source, found: Survey, plain: set[bytes]) -> list[int]:
    """Note the copies of a pack; numbers of the slots that are structured."""
    footer, number = source.footer, source.pack.number
    numbers: list[int] = []
    odd: list[int] = []
    for at, (_id, _offset, _stored, _raw, kind, codec, _depth, _flags, _group) in enumerate(
        footer.rows()
    ):
        if kind != _BLOB:
            numbers.append(at)
        if codec > 1:
            odd.append(at)
    if not odd:
        plain.update(footer.ids())
        return numbers
    bases: dict[int, bytes] = {}
    for edge in footer.edges():
        if edge.role in (EDGE_BASE, EDGE_RECIPE):
            bases[edge.slot] = edge.id
    special = set(odd)
    plain.update([id for at, id in enumerate(footer.ids()) if at not in special])
    for at in odd:
        slot = footer.slot(at)
        need = bases.get(at, b"")
        if slot.codec == DELTA:
            found.deltas.append((slot.depth, slot.id, need, (number, at)))
        elif slot.codec == RECIPE:
            found.recipes.append((slot.id, need, (number, at)))
        elif slot.codec == DICTIONARY:
            dictionary = _dictionary(objects, source, slot)
            found.users.append((slot.id, dictionary, (number, at)))
        else:
            found.refused.add((number, at))
    return numbers


def _dictionary(objects: ObjectStore, source: Source, slot: Slot) -> bytes:
    """Id of the dictionary that a copy of codec 4 needs; nothing where the footer names none."""
    named = source.footer.dictionaries()
    if len(named) == 1:
        return named[0]
    try:
        tag = objects.stored(source.pack, slot.payload_offset, TAG_BYTES)
    except CasError as error:
        if is_out_of_reach(error):
            raise
        return b""
    return next((id for id in named if id.startswith(tag)), b"")


def _parts(footer: Footer, numbers: Sequence[int]) -> Iterator[list[int]]:
    """Slots in the order in which they lie, in groups of about a MiB."""
    rows = [(footer.slot(at).offset, at) for at in numbers]
    part: list[int] = []
    size = 0
    for _offset, at in sorted(rows):
        part.append(at)
        size += footer.slot(at).raw_bytes
        if size >= GROUP_BYTES or len(part) == GROUP_COUNT:
            yield part
            part, size = [], 0
    if part:
        yield part


def _read(
    objects: ObjectStore, reader: BulkReader, source: Source, part: list[int], found: Survey
) -> None:
    slots = [source.footer.slot(at) for at in part]
    ids = [slot.id for slot in slots]
    places = [
        Place(source.pack, s.offset, s.stored_bytes, s.raw_bytes, s.kind, s.codec, s.depth, s.group)
        for s in slots
    ]
    for at, slot, item in zip(part, slots, reader.load(ids, places), strict=True):
        content = item.content
        if content is None:
            try:
                _kind, content = objects.read(slot.id)
            except CasError as error:
                if is_out_of_reach(error):
                    raise
                found.refused.add((source.pack.number, at))
                found.damage.append(Damage(slot.id, source.pack.label))
                continue
        if slot.id not in found.edges:
            _note(slot.id, slot.kind, bytes(content), source, found, (source.pack.number, at))


def _note(id: bytes, kind: int, content: bytes, source: Source, found: Survey, spot: Spot) -> None:
    try:
        named = children(kind, content, verified=True)
        if kind == Kind.COMMIT:
            found.commits[id] = tuple(Commit.decode(content, verified=True).parents)
    except CasError:
        found.refused.add(spot)
        found.damage.append(Damage(id, source.pack.label))
        return
    found.edges[id] = b"".join(named)
    if kind == Kind.REFS:
        found.refs_nodes.add(id)
    elif kind == Kind.SEGMENT:
        found.segments.append((id, content, source.pack.label))


def _settle_storage(found: Survey) -> None:
    """Which deltas and recipe copies have what they need; what has no other copy else goes."""
    exist = found.exist
    bad = {damage.id for damage in found.damage}
    # An id that only damaged copies hold does not exist; a whole copy elsewhere was read.
    exist -= {id for id in bad if id not in found.edges}
    # A dictionary needs nothing beside itself. A set of a million is 100 MB: it is made at need.
    alone = set(exist) if found.users else exist
    for id, dictionary, spot in found.users:
        if spot in found.refused:
            continue
        if dictionary in alone:
            exist.add(id)
        else:
            found.refused.add(spot)
    depths: dict[bytes, int] = {}
    for depth, id, base, spot in sorted(found.deltas):
        if spot in found.refused:
            continue
        if base in exist and base not in depths:
            depths[base] = 0
        if depths.get(base, depth) < depth:
            depths.setdefault(id, 0 if id in exist else depth)
            exist.add(id)
        else:
            found.refused.add(spot)
    for _id, recipe, spot in found.recipes:
        if recipe not in found.edges:
            found.refused.add(spot)


def split(ids: bytes) -> list[bytes]:
    """Ids that stand in one string."""
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]


@frozen
class Admission:
    """What may exist. `incomplete` are objects that lack something, directly or below them;
    `missing` is what they name and nobody has.
    """

    admitted: set[bytes]
    incomplete: set[bytes]
    missing: set[bytes]


def admit(
    found: Survey,
    thinned: Callable[[bytes], bool] = lambda _id: False,
    purged: frozenset[bytes] = frozenset(),
) -> Admission:
    """From the bottom up: what is whole. A thinned commit needs its parents and nothing else, and
    nobody lacks what was purged.
    """
    plain = found.exist
    # The same set where nothing comes and nothing goes.
    exist = set(plain) if found.recipes else plain
    exist.update(id for id, recipe, spot in found.recipes if spot not in found.refused)
    incomplete: set[bytes] = set()
    missing: set[bytes] = set()
    while True:
        lacking = {}
        for id, edges in found.edges.items():
            named = split(edges)
            if not exist.issuperset(named):
                if id in found.commits and thinned(id):
                    named = list(found.commits[id])
                lacks = [child for child in named if child not in exist and child not in purged]
                if lacks:
                    lacking[id] = lacks
        missing.update(child for lacks in lacking.values() for child in lacks)
        broken = _above(found, set(lacking), thinned) - incomplete
        incomplete |= broken
        # A blob in chunks is as whole as its recipe.
        gone = {
            id
            for id, recipe, _spot in found.recipes
            if recipe in incomplete and id not in plain and id in exist
        }
        if not gone:
            return Admission(exist - incomplete if incomplete else exist, incomplete, missing)
        exist -= gone


def _above(found: Survey, broken: set[bytes], thinned: Callable[[bytes], bool]) -> set[bytes]:
    """`broken`, and everything that needs one of it."""
    if not broken:
        return set()
    above: dict[bytes, list[bytes]] = {}
    for id, edges in found.edges.items():
        named = found.commits[id] if id in found.commits and thinned(id) else split(edges)
        for child in named:
            if child in found.edges:
                above.setdefault(child, []).append(id)
    waiting = list(broken)
    reached = set(broken)
    while waiting:
        for parent in above.get(waiting.pop(), ()):
            if parent not in reached:
                reached.add(parent)
                waiting.append(parent)
    return reached


def reach(found: Survey, allowed: set[bytes], roots: Iterable[bytes]) -> set[bytes]:
    """All of `allowed` that `roots` lead to, by names and by what copies are stored with."""
    needs: dict[bytes, list[bytes]] = {}
    for _depth, id, base, spot in found.deltas:
        if spot not in found.refused:
            needs.setdefault(id, []).append(base)
    for id, recipe, spot in found.recipes:
        if spot not in found.refused:
            needs.setdefault(id, []).append(recipe)
    for id, dictionary, spot in found.users:
        if spot not in found.refused:
            needs.setdefault(id, []).append(dictionary)
    edges = found.edges
    # What was not reached yet, and not what was: mostly all of it is in the end, and what goes out
    # of a set costs nothing.
    left = set(allowed)
    waiting = [id for id in set(roots) if id in allowed]
    left.difference_update(waiting)
    while waiting:
        id = waiting.pop()
        named = edges.get(id)
        fresh = set(split(named)) if named is not None else set()
        if needs and id in needs:
            fresh.update(needs[id])
        fresh &= left
        left -= fresh
        waiting += edges.keys() & fresh
        if needs:
            waiting += [child for child in fresh if child in needs and child not in edges]
    return allowed - left if left else allowed


def bits_of(found: Survey, source: Source, alive: set[bytes]) -> bytes | None:
    """The deletion vector of a pack of which only `alive` exist; None where all of it does."""
    number, footer = source.pack.number, source.footer
    if alive is found.exist and not found.refused:
        return None  # all that footers name
    gone = [at for at, id in enumerate(footer.ids()) if id not in alive]
    if found.refused:
        gone += [at for pack, at in found.refused if pack == number]
    if not gone:
        return None
    bits = bytearray((footer.count + 7) // 8)
    for at in gone:
        bits[at >> 3] |= 1 << (at & 7)
    return bytes(bits)
