"""Why an object is kept, or would go: the way from a root to it.

Floor 5; explains the roots and edges of docs/design/001. Invariant: every reason given holds; that
there is none is said only after all that could keep the object was looked at. So what was given up
is passed over, and what cannot be read is an error: a purge asks here whether a legal hold stands
in its way. It writes nothing, and reads at most what the histories of the store hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from attrs import evolve, frozen

from cas.errors import MissingPack, NotFound
from cas.history.core import Core
from cas.history.horizon import (
    Horizon,
    Thinning,
    horizon_at,
    is_thinned,
    thinning_of,
)
from cas.history.live import LiveTarget, live_targets
from cas.history.store import Store
from cas.history.timeline import Moment
from cas.history.tombstones import Tombstone, tombstone_of
from cas.model.ids import CommitId, Kind, ObjectId
from cas.model.names import HEADS, HOLDS, PINS, TAGS, short_ref, to_text
from cas.model.objects import Commit, EntryKind, Tag
from cas.objects.children import children
from cas.storage.pack import EDGE_BASE, EDGE_DICTIONARY
from cas.trees.cursor import nodes_of
from cas.trees.node import DIRECTORY, REFS, Node

REASONS_MAX: Final = 8
"""Reasons that are looked for; one is enough to be kept."""

_DEPTH_MAX: Final = 8
"""Parts of parts that are followed: recipes of recipes, bases of bases."""
_PATHS_MAX: Final = 2 * REASONS_MAX
"""Paths that are remembered of one directory."""


@frozen
class Reason:
    """One way from a root. `kind` is its first step:

    `ref` (a branch or tag), `tag`, `pin`, `hold`, `policy`, `undo` (a ref in a state that can still
    be read), `event` (of the entry `seq`), `journal` (a mirror of it), `checkpoint`, `part` (of
    what is itself kept). `path` and `commit` lead on, where the way goes through files.
    """

    kind: str
    text: str
    ref: str | None = None
    commit: CommitId | None = None
    path: str | None = None
    seq: int | None = None


@frozen
class Why:
    """What is known of an object. Without a reason it is loose: nothing keeps it but its grace.

    `thinned`: of a commit that gave up its content. `purged`: of content that was purged.
    `exists`: whether the store has it at all.
    """

    id: ObjectId
    kind: Kind | None
    reasons: tuple[Reason, ...]
    thinned: Thinning | None
    purged: Tombstone | None = None

    @property
    def exists(self) -> bool:
        """Whether the store has the object."""
        return self.kind is not None

    @property
    def kept(self) -> bool:
        """Whether anything but the grace of loose objects keeps it."""
        return bool(self.reasons)


def why(store: Store, id: ObjectId, *, limit: int = REASONS_MAX) -> Why:
    """Why an object is kept: up to `limit` reasons, the shortest ways first.

    Raises what reading the journal, histories and packs raises, `Corrupt` above all.
    """
    return _why(store.core, store.view().moment, id, limit, 0)


def _why(core: Core, moment: Moment, id: ObjectId, limit: int, depth: int) -> Why:
    copy = core.objects.find(id)
    kind = None if copy is None else Kind(copy.slot.kind)
    horizon = horizon_at(core, moment)
    reasons: list[Reason] = []
    if kind is not None:
        search = _Search(core, moment, horizon, id, kind)
        for reason in islice(search.run(), limit):
            reasons.append(reason)
        if not reasons and depth < _DEPTH_MAX:
            reasons += islice(_as_part(core, moment, id, depth), limit)
    stone = tombstone_of(core, moment, id) if kind is None else None
    return Why(id, kind, tuple(reasons), thinning_of(core, horizon, id), stone)


def held(core: Core, moment: Moment, id: ObjectId) -> Reason | None:
    """A legal hold that covers an object, with the way to it; None where none does.

    Raises what `why` raises: what cannot be read may be what is held.
    """
    copy = core.objects.find(id)
    if copy is None:
        return None
    horizon = horizon_at(core, moment)
    search = _Search(core, moment, horizon, id, Kind(copy.slot.kind))
    return next(search.under_holds(), None)


class _Search:
    """The ways to one object, each told once."""

    def __init__(
        self, core: Core, moment: Moment, horizon: Horizon, id: ObjectId, kind: Kind
    ) -> None:
        self._core = core
        self._moment = moment
        self._horizon = horizon
        self._id = bytes(id)
        self._kind = kind
        self._directories = core.objects.tree_nodes(DIRECTORY)
        self._hits: dict[bytes, tuple[bytes, ...]] = {}
        self._told: set[tuple[str, str | None]] = set()

    def run(self) -> Iterator[Reason]:
        """Reasons, as they are found."""
        if self._kind == Kind.SEGMENT:
            yield Reason("journal", "it mirrors entries of the journal")
        if self._kind == Kind.REFS:
            yield from self._checkpoints()
        starts = self._starts()
        for start in starts:
            if start.live.target == self._id:
                yield start.reason("")
        yield from self._events()
        if self._kind in (Kind.BLOB, Kind.TREE, Kind.COMMIT, Kind.TAG):
            yield from self._histories(starts)

    def under_holds(self) -> Iterator[Reason]:
        """Reasons that begin at a legal hold that stands now."""
        starts = [s for s in self._starts() if s.now and s.live.ref.startswith(HOLDS)]
        yield from self._histories(starts)

    def _starts(self) -> list[_Start]:
        """What refs point at: those of now first, then what they pointed at since the horizon."""
        timeline = self._core.timeline
        listed = timeline.recall(self._moment, lambda root: list(timeline.list(root)))
        now = {ref: value.target for ref, value in listed}
        found: dict[tuple[str, bytes], _Start] = {}
        for live in live_targets(self._core, self._moment):
            key = live.ref, bytes(live.target)
            found[key] = _Start(live, now.get(live.ref) == live.target, self._horizon.seq)
        return sorted(found.values(), key=lambda start: (not start.now, _rank(start.live.ref)))

    def _events(self) -> Iterator[Reason]:
        if self._kind != Kind.BLOB:
            return
        for entry in self._core.timeline.entries(0):
            for event in entry.events:
                if event.blob == self._id:
                    text = f"the body of an event ({event.type}) of entry {entry.seq}"
                    yield Reason("event", text, seq=entry.seq)

    def _checkpoints(self) -> Iterator[Reason]:
        nodes = self._core.objects.tree_nodes(REFS)
        at = self._moment.seq
        with self._core.objects.catalog.read() as reader:
            stored = []
            while (found := reader.checkpoint(at)) is not None and found.seq > 0:
                stored.append(found)
                if found.seq <= self._horizon.seq:
                    break
                at = found.seq - 1
        for checkpoint in stored:
            try:
                there = any(id == self._id for id, _node in nodes_of(REFS, checkpoint.root, nodes))
            except NotFound:
                continue
            if there:
                text = f"a part of the refs as of entry {checkpoint.seq}"
                yield Reason("checkpoint", text, seq=checkpoint.seq)

    # -- along histories ---------------------------------------------------------------------

    def _histories(self, starts: Sequence[_Start]) -> Iterator[Reason]:
        """Ways over tags, commits and files: from where refs are now, then from where they were;
        the newest commits of a history first.
        """
        met: set[bytes] = set()
        for now in (True, False):
            some = [start for start in starts if start.now == now]
            commits: list[tuple[_Start, CommitId]] = []
            for start in some:
                kind, target = start.live.kind, bytes(start.live.target)
                while kind == Kind.TAG and (tag := self._tag(target)) is not None:
                    kind, target = int(tag.target_kind), bytes(tag.target)
                    if target == self._id:
                        yield start.reason("")
                if kind == Kind.COMMIT:
                    commits.append((start, CommitId(target)))
                elif kind == Kind.TREE and target != self._id:
                    for path in self._below(target):
                        yield start.reason("", path=path)
            yield from self._walk(commits, met)

    def _tag(self, id: bytes) -> Tag | None:
        try:
            return Tag.decode(self._core.objects.get(id, Kind.TAG), verified=True)
        except NotFound:
            return None

    def _walk(self, starts: Sequence[tuple[_Start, CommitId]], met: set[bytes]) -> Iterator[Reason]:
        """Along the histories of these, newest commits first. Each ref is told once before any is
        told again, and the same path of it never twice. Commits of `met` are passed by.
        """
        heap: list[tuple[int, CommitId]] = []
        # Which of the starts lead to a commit, as bits, and for which of them it was looked at.
        leading: dict[CommitId, int] = {}
        looked: dict[CommitId, int] = {}

        def meet(id: CommitId, labels: int) -> None:
            known = leading.get(id, 0)
            if id not in met and known | labels != known:
                leading[id] = known | labels
                with suppress(NotFound):
                    heappush(heap, (-self._core.commits.get(id).time_us, id))

        for label, (_start, id) in enumerate(starts):
            meet(id, 1 << label)
        silent = {start.live.ref for start, _id in starts}
        later: list[Reason] = []
        while heap:
            _time, id = heappop(heap)
            labels = leading[id] & ~looked.get(id, 0)
            if not labels:
                continue
            looked[id] = leading[id]
            commit = self._core.commits.get(id)
            led = [start for n, (start, _id) in enumerate(starts) if labels >> n & 1]
            for reason in self._at(id, commit, led):
                if reason.ref in silent:
                    silent.discard(reason.ref or "")
                    yield reason
                elif not silent:
                    yield reason
                elif len(later) < REASONS_MAX:
                    later.append(reason)
            if not silent:
                yield from later
                later.clear()
            for parent in commit.parents:
                meet(parent, labels)
        yield from later
        met.update(leading)

    def _at(self, id: CommitId, commit: Commit, starts: Sequence[_Start]) -> Iterator[Reason]:
        """What a commit says of the object, for each of the starts that lead to it."""
        if id == self._id:
            for start in starts:
                if start.live.target != id and self._is_new(start, None):
                    yield start.reason("in the history of ", commit=id)
        if self._kind not in (Kind.BLOB, Kind.TREE) or is_thinned(self._core, self._horizon, id):
            return
        for root in filter(None, (commit.tree, commit.conflicts)):
            for path in self._below(root):
                for start in starts:
                    if self._is_new(start, path):
                        yield start.reason("in the history of ", commit=id, path=path)

    def _is_new(self, start: _Start, path: str | None) -> bool:
        key = start.live.ref, path
        fresh = key not in self._told
        self._told.add(key)
        return fresh

    def _below(self, root: bytes) -> list[str]:
        """Paths below a directory where the object is, some of them where they are many; what was
        found below a node is remembered.
        """
        own = [""] if root == self._id else []
        hits = self._hits
        stack: list[tuple[bytes, Node | None]] = [(root, None)]
        while stack:
            id, node = stack.pop()
            if id in hits:
                continue
            if node is None:
                try:
                    node = self._directories.load(id)
                except NotFound:
                    hits[id] = ()
                    continue
                stack.append((id, node))
                stack += [(child, None) for _name, child in _directories_in(node)]
                continue
            found = [name for name, child in _children_in(node) if child == self._id]
            for name, child in _directories_in(node):
                found += [name + path for path in hits[child]]
            hits[id] = tuple(found[:_PATHS_MAX])
        return own + [to_text(path) for path in hits[root]]


def _children_in(node: Node) -> Iterator[tuple[bytes, bytes]]:
    """What stands before paths below a child, and the child: a name, or of a part nothing."""
    for index, name in enumerate(node.names):
        yield b"" if node.level else name, node.child_id(index)


def _directories_in(node: Node) -> Iterator[tuple[bytes, bytes]]:
    """Those that are nodes themselves."""
    for index, name in enumerate(node.names):
        if node.level:
            yield b"", node.child_id(index)
        elif node.tags[index] == EntryKind.TREE:
            yield name + b"/", node.child_id(index)


def _rank(ref: str) -> int:
    """Branches first, then tags, pins, holds, and what the store goes by."""
    for rank, space in enumerate((HEADS, TAGS, PINS, HOLDS)):
        if ref.startswith(space):
            return rank
    return 4


@frozen
class _Start:
    """A ref, now or in a state behind the horizon."""

    live: LiveTarget
    now: bool
    horizon: int

    def reason(
        self, prefix: str, *, commit: CommitId | None = None, path: str | None = None
    ) -> Reason:
        ref = self.live.ref
        kind = next((kind for space, kind in _KINDS.items() if ref.startswith(space)), "policy")
        name = _NAMES.get(kind, short_ref(ref)) if kind != "ref" else short_ref(ref)
        if kind in ("pin", "hold"):
            name += f" on {ref.partition('/')[2][:12]}"
        text = f"{prefix}{name}" if prefix else f"what {name} points at"
        if commit is not None and commit != self.live.target:
            text = f"in the history of {name}"
        if path is not None:
            where = f"{path or 'the root directory'}"
            at = "" if commit is None else f" in commit {commit.short}"
            text = f"{where}{at} ({text})"
        if not self.now:
            kind = "undo"
            text += f", as of entry {self.live.seq}; undo reaches back to entry {self.horizon}"
        return Reason(kind, text, ref, commit, path, self.live.seq)


_KINDS: Final = {HEADS: "ref", TAGS: "tag", PINS: "pin", HOLDS: "hold"}
_NAMES: Final = {"pin": "the pin", "hold": "the legal hold"}


# -- parts of other objects ------------------------------------------------------------------------


def _as_part(core: Core, moment: Moment, id: ObjectId, depth: int) -> Iterator[Reason]:
    """Kept objects that are decoded with this one, or put together from it."""
    for user, what in _users(core, id):
        found = _why(core, moment, user, 1, depth + 1)
        if found.reasons:
            text = f"{what} {user.short}, which is kept: {found.reasons[0].text}"
            yield evolve(found.reasons[0], kind="part", text=text)


def _users(core: Core, id: ObjectId) -> Iterator[tuple[ObjectId, str]]:
    """Objects some copy of which needs this one."""
    lookup = core.objects.lookup
    state = lookup.ensure()
    told: set[bytes] = set()
    for number, pack in state.packs.items():
        try:
            footer = lookup.footer(pack)
        except MissingPack:
            if number in lookup.refresh().packs:
                raise
            continue  # moved meanwhile
        for edge in footer.edges() if footer.edge_count else ():
            if edge.slot >= footer.count:
                continue  # of the pack as a whole
            user = footer.id_at(edge.slot)
            if edge.id == id and user not in told and not lookup.is_gone(number, edge.slot):
                told.add(user)
                yield ObjectId(user), _ROLES.get(edge.role, "the recipe of")
        for slot_number, slot in enumerate(footer.slots()):
            if slot.kind != Kind.RECIPE or slot.id in told or lookup.is_gone(number, slot_number):
                continue
            try:
                parts = children(Kind.RECIPE, core.objects.get(slot.id, Kind.RECIPE))
            except NotFound:
                continue
            if id in parts:
                told.add(slot.id)
                yield ObjectId(slot.id), "a part of the recipe"


_ROLES: Final = {EDGE_BASE: "the base of a delta:", EDGE_DICTIONARY: "the dictionary of"}
