"""How far back the store can be read, and which commits have given up their content.

Floor 4; implements docs/format.md section 5.8. Invariant: the horizon rises and never falls, and
a thinned commit stays thinned, so an answer that is older than the newest one only ever keeps
more; what a ref points at in a state at or behind the horizon is never thinned. `thinning` is
where both are changed.

The horizon and the thinned set are what the ref `policy/horizon` leads to: an entry that raises
the one or adds to the other moves that ref, so the journal says who did it, and every moment
knows its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from cas.errors import BeforeHorizon, Corrupt, CorruptObject, NotCanonical, Thinned
from cas.history.core import Core
from cas.history.timeline import Moment
from cas.model.encoding import decode, encode, is_extras, is_uint, shape
from cas.model.ids import CommitId, Kind, ObjectId
from cas.model.names import HORIZON_REF, short_ref
from cas.model.objects import FILE, TREE, Tag
from cas.model.values import frozen
from cas.objects.store import ObjectStore
from cas.trees.cursor import get, scan
from cas.trees.node import DIRECTORY

if TYPE_CHECKING:
    from cas.model.entry import RefChange
    from cas.objects.batch import Batch

HORIZON_FILE: Final = b"horizon"
THINNED_FOLDER: Final = b"thinned"


@frozen
class Horizon:
    """The oldest state that can be read, and the directory that lists the thinned commits.

    `at(seq)` is answered for `seq` and what came later. `thinned` is the root of a directory
    with one file for each commit, named by its id in hex; it is the empty one at first. `root`
    is the directory that holds both.
    """

    seq: int = 0
    thinned: bytes = DIRECTORY.empty
    root: bytes = DIRECTORY.empty


@frozen
class Thinning:
    """Why a commit has given up its content, who asked for it, and when (µs since 1970 UTC)."""

    reason: str
    author: str
    time_us: int


NO_HORIZON: Final = Horizon()


# -- the bytes -----------------------------------------------------------------------------------


def encode_horizon(seq: int) -> bytes:
    """Content of the file `horizon`."""
    return encode([1, seq, {}])


def decode_horizon(data: bytes) -> int:
    """The sequence number in these bytes. Raises `NotCanonical`."""
    fields: Any = decode(data)
    shape(
        type(fields) is list
        and len(fields) == 3
        and fields[0] == 1
        and is_uint(fields[1])
        and is_extras(fields[2]),
        "a horizon is a version, a sequence number and extras",
    )
    return int(fields[1])


def encode_thinning(thinning: Thinning) -> bytes:
    """Content of the file of a thinned commit."""
    return encode([1, thinning.reason, thinning.author, thinning.time_us, {}])


def decode_thinning(data: bytes) -> Thinning:
    """Why a commit was thinned. Raises `NotCanonical`."""
    fields: Any = decode(data)
    shape(
        type(fields) is list
        and len(fields) == 5
        and fields[0] == 1
        and type(fields[1]) is str
        and type(fields[2]) is str
        and is_uint(fields[3])
        and is_extras(fields[4]),
        "a thinning is a version, a reason, an author, a time and extras",
    )
    return Thinning(fields[1], fields[2], fields[3])


def read_horizon(core: Core, batch: Batch | None, target: bytes) -> Horizon:
    """What a target of `policy/horizon` says. Raises `CorruptObject` where it says nothing."""
    objects = core.objects
    try:
        kind, content = objects.staged(batch, target)
        shape(kind == Kind.TAG, "a horizon is named by a tag")
        tag = Tag.decode(content, verified=True)
        shape(tag.target_kind == Kind.TREE, "a horizon is a directory")
        nodes = objects.tree_nodes(DIRECTORY, batch)
        value = get(DIRECTORY, tag.target, HORIZON_FILE, nodes)
        shape(value is not None and value[0] == FILE, "a horizon has a file that says where")
        assert value is not None
        seq = decode_horizon(objects.staged(batch, value[1])[1])
        thinned = get(DIRECTORY, tag.target, THINNED_FOLDER, nodes)
        shape(thinned is None or thinned[0] == TREE, "thinned commits are listed in a directory")
    except NotCanonical as error:
        raise CorruptObject(
            f"The horizon of the store cannot be read ({error}); run `cas fsck`.", id=target
        ) from error
    return Horizon(seq, DIRECTORY.empty if thinned is None else thinned[1], bytes(tag.target))


# -- what holds at a moment ------------------------------------------------------------------------

# Of each store the refs tree that was asked about last, and what it says: a snapshot must not
# look into two trees to learn that nothing was thinned. Any thread: it is replaced as a whole.
_KNOWN: WeakKeyDictionary[ObjectStore, tuple[bytes, bytes | None, Horizon]] = WeakKeyDictionary()


def horizon_at(core: Core, moment: Moment) -> Horizon:
    """The horizon as of a state of the store. Raises `Corrupt`."""
    known = _KNOWN.get(core.objects)
    if known is not None and known[0] == moment.root:
        return known[2]
    value = core.timeline.value(moment, HORIZON_REF)
    target = None if value is None else bytes(value.target)
    if known is not None and known[1] == target:
        horizon = known[2]
    else:
        horizon = NO_HORIZON if target is None else read_horizon(core, None, target)
    _KNOWN[core.objects] = (moment.root, target, horizon)
    return horizon


def horizon_now(core: Core) -> Horizon:
    """The horizon as of the newest entry: what counts for whoever reads, however old the state.

    Where that cannot be read, there is none: reading what is left of a damaged store is tried.
    Who deletes asks `horizon_at`.
    """
    try:
        return horizon_at(core, core.timeline.now())
    except Corrupt:
        return NO_HORIZON


def is_thinned(core: Core, horizon: Horizon, id: bytes, batch: Batch | None = None) -> bool:
    """Whether a commit has given up its tree. Its record, and its parents, stay."""
    if horizon.thinned == DIRECTORY.empty:
        return False
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    return get(DIRECTORY, horizon.thinned, id.hex().encode(), nodes) is not None


def thinned_commits(core: Core, horizon: Horizon) -> Iterator[CommitId]:
    """All thinned commits, ascending: the commits whose edge to their tree does not count."""
    if horizon.thinned == DIRECTORY.empty:
        return
    nodes = core.objects.tree_nodes(DIRECTORY)
    for name, _value in scan(DIRECTORY, horizon.thinned, nodes):
        yield CommitId(bytes.fromhex(name.decode("ascii", "replace")))


def thinning_of(
    core: Core, horizon: Horizon, id: bytes, batch: Batch | None = None
) -> Thinning | None:
    """Why a commit was thinned; None for one that was not. Raises `Corrupt`."""
    if horizon.thinned == DIRECTORY.empty:
        return None
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    value = get(DIRECTORY, horizon.thinned, id.hex().encode(), nodes)
    if value is None:
        return None
    return decode_thinning(core.objects.staged(batch, value[1])[1])


def moves_horizon(core: Core, moment: Moment, changes: Sequence[RefChange]) -> bool:
    """Whether an entry moves the horizon, or stands in a store in which commits are thinned.

    Only then can it break a rule of `thinning`. Raises `Corrupt`.
    """
    if any(change.ref == HORIZON_REF for change in changes):
        return True
    return horizon_at(core, moment).thinned != DIRECTORY.empty


# -- what is said of it ----------------------------------------------------------------------------


def check_seq(core: Core, seq: int) -> None:
    """Raise `BeforeHorizon` for a state that cannot be read any more."""
    boundary = horizon_now(core).seq
    if seq < boundary:
        raise BeforeHorizon(
            f"The state after entry {seq} was given up: the oldest that can be read is that after "
            f"entry {boundary}. `cas journal` still tells what was done.",
            seq=seq,
            boundary=boundary,
        )


def check_content(core: Core, id: CommitId) -> None:
    """Raise `Thinned` for a commit whose content was given up."""
    horizon = horizon_now(core)
    if horizon.thinned != DIRECTORY.empty and is_thinned(core, horizon, id):
        raise thinned_error(core, horizon, id)


def thinned_error(
    core: Core,
    horizon: Horizon,
    id: ObjectId,
    ref: str | None = None,
    batch: Batch | None = None,
) -> Thinned:
    """The error for a commit whose content is asked for, or that a ref is to point at."""
    thinning = thinning_of(core, horizon, id, batch)
    reason = "" if thinning is None else thinning.reason
    what = f"The content of commit {id.short} was given up"
    if ref is not None:
        what = f"{short_ref(ref)} cannot point at commit {id.short}, whose content was given up"
    return Thinned(
        f"{what} ({reason}); its record stays, and what branches and tags have pointed at since "
        f"entry {horizon.seq} is whole.",
        id=id,
        boundary=horizon.seq,
        reason=reason,
        time_us=None if thinning is None else thinning.time_us,
    )
