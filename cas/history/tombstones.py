"""What was purged: when, why and by whom, kept where every handle and every later state sees it.

Floor 4; implements docs/format.md section 5.9. Invariant: a tombstone is made, and lifted, by an
entry of the journal; while it stands its id is read nowhere and put by nobody; it is lifted only
in the transaction that puts the content again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cas.errors import (
    CasError,
    Corrupt,
    CorruptObject,
    HorizonFixed,
    Invalid,
    NotCanonical,
    Purged,
    RefConflict,
)
from cas.history.core import Core
from cas.history.timeline import Moment, RefValue
from cas.model.encoding import decode, encode, is_extras, is_uint, shape
from cas.model.entry import RefChange
from cas.model.ids import Kind, ObjectId
from cas.model.names import HOLDS, PURGED_REF, Path
from cas.model.objects import FILE, Tag
from cas.model.values import frozen
from cas.objects.store import ObjectStore
from cas.trees.cursor import get, scan
from cas.trees.diff import diff
from cas.trees.node import DIRECTORY, EMPTY_DATA, Value
from cas.trees.paths import edit_paths

if TYPE_CHECKING:
    from cas.objects.batch import Batch


@frozen
class Tombstone:
    """An object that was purged. `size_bytes`: of its content; `time_us`: µs since 1970 UTC."""

    id: ObjectId
    kind: Kind
    size_bytes: int
    reason: str
    author: str
    time_us: int


def encode_tombstone(stone: Tombstone) -> bytes:
    """Content of the file of a purged object."""
    fields = [int(stone.kind), stone.size_bytes, stone.reason, stone.author, stone.time_us]
    return encode([1, *fields, {}])


def decode_tombstone(id: bytes, data: bytes) -> Tombstone:
    """The tombstone of an id. Raises `NotCanonical`."""
    fields: Any = decode(data)
    shape(
        type(fields) is list
        and len(fields) == 7
        and fields[0] == 1
        and is_uint(fields[1])
        and fields[1] in (Kind.BLOB,)
        and is_uint(fields[2])
        and type(fields[3]) is str
        and type(fields[4]) is str
        and is_uint(fields[5])
        and is_extras(fields[6]),
        "a tombstone is a version, a kind, a size, a reason, an author, a time and extras",
    )
    return Tombstone(ObjectId(id), Kind(fields[1]), *fields[2:6])


# -- what holds ------------------------------------------------------------------------------------

# Of each store the refs tree that was asked about last, and the directory that it leads to. Any
# thread: it is replaced as a whole.
_KNOWN: WeakKeyDictionary[ObjectStore, tuple[bytes, bytes]] = WeakKeyDictionary()


def _root(core: Core, batch: Batch | None, target: bytes) -> bytes:
    """The directory of tombstones that a ref leads to. Raises `CorruptObject`."""
    try:
        kind, content = core.objects.staged(batch, target)
        shape(kind == Kind.TAG, "tombstones are named by a tag")
        tag = Tag.decode(content, verified=True)
        shape(tag.target_kind == Kind.TREE, "tombstones lie in a directory")
    except NotCanonical as error:
        raise CorruptObject(
            f"The tombstones of the store cannot be read ({error}); run `cas fsck`.", id=target
        ) from error
    return bytes(tag.target)


def root_at(core: Core, moment: Moment) -> bytes:
    """The directory of all tombstones in a state of the store. Raises `Corrupt`."""
    known = _KNOWN.get(core.objects)
    if known is not None and known[0] == moment.root:
        return known[1]
    value = core.timeline.value(moment, PURGED_REF)
    root = DIRECTORY.empty if value is None else _root(core, None, value.target)
    _KNOWN[core.objects] = moment.root, root
    return root


def tombstones(core: Core, moment: Moment) -> Iterator[Tombstone]:
    """All tombstones of a state, ascending by id. Raises `Corrupt`."""
    return _stones(core, root_at(core, moment))


def tombstones_below(core: Core, target: bytes) -> Iterator[Tombstone]:
    """All tombstones where `policy/purged` points at this, ascending by id. Raises `Corrupt`."""
    return _stones(core, _root(core, None, target))


def _stones(core: Core, root: bytes) -> Iterator[Tombstone]:
    if root != DIRECTORY.empty:
        for name, value in scan(DIRECTORY, root, core.objects.tree_nodes(DIRECTORY)):
            id = _id_of(name)
            yield decode_tombstone(id, core.objects.get(value[1], Kind.BLOB))


def purged_ids(core: Core) -> frozenset[bytes]:
    """Ids that are purged in the newest state. Raises `Corrupt`."""
    return ids_at(core, core.timeline.now())


def ids_at(core: Core, moment: Moment) -> frozenset[bytes]:
    """Ids that are purged in a state. Raises `Corrupt`."""
    return _ids(core, root_at(core, moment))


def ids_below(core: Core, target: bytes) -> frozenset[bytes]:
    """Ids that are purged where `policy/purged` points at this. Raises `Corrupt`."""
    return _ids(core, _root(core, None, target))


def _ids(core: Core, root: bytes) -> frozenset[bytes]:
    if root == DIRECTORY.empty:
        return frozenset()
    nodes = core.objects.tree_nodes(DIRECTORY)
    return frozenset(_id_of(name) for name, _value in scan(DIRECTORY, root, nodes))


def tombstone_of(core: Core, moment: Moment, id: bytes) -> Tombstone | None:
    """The tombstone of an id in a state, if it has one. Raises `Corrupt`."""
    root = root_at(core, moment)
    if root == DIRECTORY.empty:
        return None
    value = get(DIRECTORY, root, id.hex().encode(), core.objects.tree_nodes(DIRECTORY))
    return None if value is None else decode_tombstone(id, core.objects.get(value[1], Kind.BLOB))


def purged_error(core: Core, id: bytes) -> CasError | None:
    """What to say of an id of which there is no copy; None where it was not purged."""
    try:
        stone = tombstone_of(core, core.timeline.now(), id)
    except Corrupt:
        return None  # that it is missing is true in any case
    if stone is None:
        return None
    who = f" by {stone.author}" if stone.author else ""
    return Purged(
        f"Content {stone.id.short} was purged{who}: {stone.reason}. Nothing of it is left here.",
        id=stone.id,
        reason=stone.reason,
        author=stone.author,
        time_us=stone.time_us,
    )


def follow(core: Core) -> None:
    """Let the objects of a store know what was purged."""
    core.objects.absent.follow(lambda: purged_ids(core), lambda id: purged_error(core, id))


def _id_of(name: bytes) -> bytes:
    try:
        return bytes.fromhex(name.decode("ascii"))
    except ValueError as error:
        raise CorruptObject(
            "A tombstone is named by no id; run `cas fsck`.", id=name.hex()
        ) from error


# -- changing them ---------------------------------------------------------------------------------


def stage_tombstones(
    core: Core,
    batch: Batch,
    moment: Moment,
    stones: Mapping[bytes, Tombstone | None],
    author: str,
    message: str,
) -> ObjectId:
    """Stage tombstones, or lift them (None); the tag that `policy/purged` gets."""
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    edits: dict[Path, Value | None] = {}
    for id, stone in stones.items():
        value: Value | None = None
        if stone is not None:
            data = encode_tombstone(stone)
            value = FILE, batch.put(Kind.BLOB, data), len(data)
        edits[(id.hex().encode(),)] = value
    root = edit_paths(root_at(core, moment), edits, nodes).root
    if root == DIRECTORY.empty:
        batch.put(Kind.TREE, EMPTY_DATA)
    tag = Tag(ObjectId(root), Kind.TREE, author, message, core.objects.clock.wall_us())
    # Whoever holds an older set of tombstones has to see that there is another.
    batch.counts = True
    return ObjectId(batch.put(Kind.TAG, tag.encode()))


def check_tombstones(
    core: Core,
    batch: Batch,
    moment: Moment,
    changes: Sequence[RefChange],
    holds: Mapping[str, RefValue],
) -> None:
    """Raise where an entry loses a tombstone, or buries what may be held. Called inside the gate.

    `holds` are the legal holds that the transaction has seen: what a later one covers takes long to
    find out. Raises `HorizonFixed` where a tombstone goes without its content, `RefConflict` where
    one comes and there is another hold, or `Invalid`.
    """
    for change in changes:
        if change.ref != PURGED_REF:
            continue
        if change.new is None:
            raise HorizonFixed("Tombstones stay; nothing was committed.", boundary=moment.seq)
        try:
            root = _root(core, batch, change.new)
        except CorruptObject as error:
            raise Invalid(f"{PURGED_REF} can lead to tombstones only.") from error
        nodes = core.objects.tree_nodes(DIRECTORY, batch)
        for name, _old, new in diff(DIRECTORY, root_at(core, moment), root, nodes):
            try:
                id = _id_of(name)
                if new is not None:
                    decode_tombstone(id, core.objects.staged(batch, new[1])[1])
            except (CorruptObject, NotCanonical) as error:
                raise Invalid(f"{PURGED_REF} can lead to tombstones only.") from error
            if new is not None:
                _refuse_late_holds(core, moment, holds)
            elif not batch.holds(id):
                raise HorizonFixed(
                    f"The tombstone of {id.hex()[:12]} is lifted only by putting its content "
                    "again; nothing was committed.",
                    boundary=moment.seq,
                )
        if not batch.counts:
            raise Invalid("Tombstones are changed by purge, and by a put that allows it.")


def _refuse_late_holds(core: Core, moment: Moment, holds: Mapping[str, RefValue]) -> None:
    for ref, value in core.timeline.list(moment.root, HOLDS):
        if holds.get(ref) != value:
            raise RefConflict(
                f"A legal hold, {ref}, was made since this began; nothing was committed. Begin "
                "again, and see whether it covers what is to be purged.",
                ref=ref,
                expected=None,
                actual=value.target,
            )
