"""The protocol's values and what must hold of them: catalog, bucket, rules, invariants.

Invariant: a value here is immutable and hashable, so that a state of the model is one value; no
function changes its arguments. Ids are single letters; what an object's children are never
changes, as its id is its content. Implements docs/design/001-what-the-model-taught.md, 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import attrs

WHOLE = 0
RECIPE = 9  # the rank of a copy by recipe: above every delta, so a chunk may not resolve to one
ANY = 99  # a bound that every copy meets
ABSENT = 100  # the rank of an id without a copy


class Slot(NamedTuple):
    """One record: its id, its rank (depth, or RECIPE) and the id it is decoded with, or ''."""

    oid: str
    rank: int
    base: str


class Pack(NamedTuple):
    """An installed pack. `since` is its install version; the bits of `dead` are its vector."""

    number: int
    since: int
    file: str  # '' for an inline pack
    slots: tuple[Slot, ...]
    dead: int


class Copy(NamedTuple):
    """A record where it lies, with what its pack says of it."""

    number: int
    slot_no: int
    file: str
    since: int
    slot: Slot


Packs = tuple[Pack, ...]
Refs = tuple[tuple[str, str], ...]


class Session(NamedTuple):
    """A session row: its key (fence included) and the ids it pins."""

    key: str
    pins: tuple[str, ...]


class Catalog(NamedTuple):
    """The truth. `doomed` lists (file, journal position) of packs that are unnamed already."""

    lineage: int
    version: int
    condemn_seq: int
    seq: int  # journal position: rises with every entry
    packs: Packs
    doomed: tuple[tuple[str, int], ...]
    refs: Refs
    sessions: tuple[Session, ...]
    stones: tuple[str, ...] = ()  # ids that were purged
    thinned: tuple[str, ...] = ()  # ids whose children were given up


class Segment(NamedTuple):
    """What a mirrored journal says at a position: refs, and what was purged and thinned."""

    lineage: int
    seq: int
    refs: Refs
    stones: tuple[str, ...] = ()
    thinned: tuple[str, ...] = ()


UNSYNCED, SYNCED, UNLINKED = 0, 1, 2


class File(NamedTuple):
    """A file of the bucket. UNLINKED: gone, but its folder is not synced, so it may come back."""

    name: str
    slots: tuple[Slot, ...]
    owner: str  # key of the session that wrote it
    status: int
    segment: Segment | None


class Budget(NamedTuple):
    """How many of each misfortune are left."""

    crashes: int
    power_losses: int
    expiries: int
    catalog_losses: int


class State(NamedTuple):
    """Everything. `unsynced` holds the catalogs a power loss may fall back to (relaxed mode)."""

    catalog: Catalog
    unsynced: tuple[Catalog, ...]
    files: tuple[File, ...]
    mirror: Segment | None  # the newest segment in an installed pack
    young: tuple[str, ...]  # loose puts acknowledged since the running mark began
    shared_s0: int  # the one s0 of a session whose transactions share it, else -1
    left: Budget
    actors: tuple[Any, ...]


@attrs.frozen
class Rules:
    """The protocol's rules; each may be taken away. The default is the protocol as it must be."""

    # Writers and sessions
    bytes_first: bool = True  # bytes durable before the transaction that names them
    fence: bool = True  # each write transaction checks its session row
    recheck: bool = True  # hits are looked up again when condemn_seq moved
    retry_looks_again: bool = True  # what a retry puts itself brings its children as hits
    targets_are_hits: bool = True  # what a ref is moved to is a hit unless it is written here
    own_s0: bool = True  # s0 belongs to a transaction's hits, not to the session
    answers_asked: bool = True  # a lost answer is asked for before its files are removed
    unique_names: bool = True
    unique_numbers: bool = True
    orphans_listed_first: bool = True  # the scan lists the bucket, then reads the catalog
    depths: bool = True  # a base is a copy of strictly smaller depth
    # E0
    version_on_install: bool = True
    version_never_falls: bool = True  # not even when the newest pack's row goes
    version_on_removal: bool = True
    condemn_counts: bool = True
    rank_counts: bool = True  # condemn_seq also rises where an id's least rank rises
    # E1
    bits_stay: bool = True
    # E2
    all_copies: bool = True
    ids_not_packs: bool = True  # slices go by ids, not pack by pack
    parents_first: bool = True
    slices_look_again: bool = True  # each slice finds anew what must be kept
    storage_order: bool = True  # order and slices follow storage edges too
    roots_again: bool = True  # the condemn transaction reads the roots again
    pins_are_roots: bool = True
    # E3
    mark_one_snapshot: bool = True  # v0 and the roots are read in one snapshot
    newer_kept: bool = True
    newer_traced: bool = True
    outputs_newer: bool = True
    loose_fresh: bool = True  # a loose put of what nothing reaches writes a copy of its own
    # E4
    dead_sources: bool = True
    output_edges: bool = True  # storage edges that a mover adds are looked up at its install
    # E5, E6
    storage_edges: bool = True
    storage_hits: bool = True
    # E7
    fresh_hits: bool = True
    hits_by_condemn_seq: bool = False  # the weaker form: lineage and condemn_seq decide
    lineage_stamp: bool = True
    cache_dropped: bool = True  # after an unclean stop in relaxed mode
    one_snapshot: bool = True
    # E8
    next_copy: bool = True
    refresh: bool = True
    gone_is_shown: bool = True  # Gone needs a snapshot without a copy, not a second miss
    restart: bool = True  # after a refresh a delta is resolved from its top
    verify: bool = True
    # E9
    section4: bool = True
    looks_in_transaction: bool = True  # redundancy is judged where the bit is set
    newest_stays: bool = True  # the newest copy of an id is not the redundant one
    chunks_stay_whole: bool = True
    files_alone: bool = True  # a copy in a file is redundant only to copies in files
    # Removal
    run_checks_lineage: bool = True  # a collector's run ends with the lineage it began in
    late_unlink: bool = True
    durable_condemn: bool = True
    unlink_checked: bool = True  # an unlink looks at the catalog, in the gate
    # Rebuild
    mirror_covered: bool = True  # a segment never names what only an inline pack holds
    mirror_first: bool = True  # the mirror has caught up before a file goes
    admit_bottom_up: bool = True
    unreachable_dead: bool = True
    rebuild_fences: bool = True
    rebuild_syncs: bool = True
    rebuild_mirrors: bool = True  # a rebuild writes a segment of its own lineage first
    lineages_ordered: bool = True  # segments of a newer lineage win, whatever their position
    rebuild_knows: bool = True  # what was purged is read from the mirror before admitting
    # Purge
    stones_first: bool = True  # the tombstone stands before the copies are taken out
    stones_refuse: bool = True  # a purged id is not installed again, by whomever
    purge_counts: bool = True  # taking copies out counts in condemn_seq
    purge_reencodes: bool = True  # what was stored on the content is stored whole
    purge_takes_dead: bool = True  # copies that were condemned go as well
    purge_looks_at_files: bool = True  # success is told once no file holds the content
    # Thinning
    thin_checks_refs: bool = True  # refs are looked at where the thinning is written
    refs_check_thinned: bool = True  # a ref is not moved to what was thinned
    # Backup
    backup_one_snapshot: bool = True  # refs and packs are read in one transaction
    backup_starts_again: bool = True  # a pack that has gone meanwhile is not left out


class World:
    """What never changes during an exploration, and what may be derived from packs.

    `children` gives each structured id its children; `recipes` are the ids whose children are
    chunks. Not thread-safe; one a scenario.
    """

    def __init__(
        self,
        rules: Rules,
        children: Mapping[str, str],
        recipes: str = "",
        *,
        power: bool = False,
        relaxed: bool = False,
        rebuilds: bool = False,
        damaged: tuple[str, ...] = (),
    ) -> None:
        self.rules = rules
        self.children = children
        self.recipes = recipes
        self.power = power
        self.relaxed = relaxed
        self.rebuilds = rebuilds
        self.damaged = damaged
        self._live: dict[Packs, dict[str, tuple[Copy, ...]]] = {}
        self._closed: dict[tuple[Packs, frozenset[str], bool, tuple[str, ...]], frozenset[str]] = {}
        self._judged: dict[tuple[Any, ...], str | None] = {}

    # -- derived from packs ---------------------------------------------------------------

    def live(self, packs: Packs) -> dict[str, tuple[Copy, ...]]:
        """The copies that exist (E1), by id."""
        found = self._live.get(packs)
        if found is None:
            gathered: dict[str, list[Copy]] = {}
            for pack in packs:
                for index, slot in enumerate(pack.slots):
                    if not pack.dead >> index & 1:
                        copy = Copy(pack.number, index, pack.file, pack.since, slot)
                        gathered.setdefault(slot.oid, []).append(copy)
            found = {oid: tuple(copies) for oid, copies in gathered.items()}
            self._live[packs] = found
        return found

    def rank(self, packs: Packs, oid: str) -> int:
        """The least rank among the copies of an id; ABSENT when it does not exist."""
        copies = self.live(packs).get(oid)
        return min(copy.slot.rank for copy in copies) if copies else ABSENT

    def bound(self, slot: Slot) -> int:
        """The rank that a copy of the slot's base must stay below."""
        return slot.rank if self.rules.depths or slot.rank == RECIPE else ANY

    def child_bound(self, oid: str) -> int:
        """The rank that a copy of a child must stay below: a chunk is never stored by recipe."""
        return RECIPE if oid in self.recipes else ANY

    def closure(
        self, packs: Packs, start: Iterable[str], storage: bool, thinned: tuple[str, ...] = ()
    ) -> frozenset[str]:
        """The ids reached over children and, if asked, the storage edges of existing copies.

        The children of what was thinned are not reached by it.
        """
        key = (packs, frozenset(start), storage, thinned)
        found = self._closed.get(key)
        if found is None:
            live = self.live(packs)
            reached = set(key[1])
            todo = list(key[1])
            while todo:
                oid = todo.pop()
                beyond = [] if oid in thinned else list(self.children.get(oid, ""))
                if storage:
                    beyond += [copy.slot.base for copy in live.get(oid, ()) if copy.slot.base]
                for other in beyond:
                    if other not in reached:
                        reached.add(other)
                        todo.append(other)
            found = self._closed[key] = frozenset(reached)
        return found

    def wants(self, packs: Packs, *, chunks: bool = True) -> dict[tuple[int, int], str]:
        """What sections 3 and 4 ask for and is not there: copy that lacks it -> words."""
        lacking: dict[tuple[int, int], str] = {}
        for oid, copies in self.live(packs).items():
            for copy in copies:
                place, base = (copy.number, copy.slot_no), copy.slot.base
                if base and self.rank(packs, base) >= self.bound(copy.slot):
                    lacking[place] = f"a copy of {oid} has no copy of {base} of smaller depth"
                for chunk in self.children.get(oid, "") if chunks and oid in self.recipes else "":
                    if self.rank(packs, chunk) >= self.child_bound(oid):
                        lacking[place] = f"chunk {chunk} of {oid} has no copy that is no recipe"
        return lacking

    # -- what must hold -------------------------------------------------------------------

    def breach(self, state: State) -> str | None:
        """The first invariant that a state breaks, in words."""
        catalog = state.catalog
        standing = {file.name: file for file in state.files if file.status != UNLINKED}
        for pack in catalog.packs:
            if pack.file and pack.dead + 1 != 1 << len(pack.slots):
                file = standing.get(pack.file)
                if file is None and pack.file not in self.damaged:
                    return f"pack {pack.number} has copies, its file {pack.file} has gone"
                if file is not None and file.status != SYNCED:
                    return f"pack {pack.number} has copies, its file {pack.file} is not durable"
        roots = frozenset(roots_of(catalog, pins=True))
        for ref, target in catalog.refs:
            if target in catalog.thinned:
                return f"ref {ref} shows {target}, which was thinned"
        key = (catalog.packs, roots, catalog.stones, catalog.thinned)
        if key not in self._judged:
            self._judged[key] = self._judge(*key)
        if self._judged[key] is not None:
            return self._judged[key]
        live = self.live(catalog.packs)
        for oid in state.young:
            if oid not in live:
                return f"{oid}, acknowledged after the mark began, was condemned by that run"
        return None

    def _judge(
        self,
        packs: Packs,
        roots: frozenset[str],
        stones: tuple[str, ...],
        thinned: tuple[str, ...],
    ) -> str | None:
        live = self.live(packs)
        for root in sorted(roots - live.keys() - set(stones)):
            return f"root {root} does not exist"
        for oid in live:
            for child in "" if oid in thinned else self.children.get(oid, ""):
                if child not in live and child not in stones:
                    return f"{oid} exists, its child {child} does not"
        decoded: set[str] = set()
        grew = True
        while grew:
            grew = False
            for oid, copies in live.items():
                if oid not in decoded and any(
                    not copy.slot.base or copy.slot.base in decoded for copy in copies
                ):
                    decoded.add(oid)
                    grew = True
        for oid in sorted(live.keys() - decoded):
            return f"no copy of {oid} can be decoded any more"
        return next(iter(self.wants(packs).values()), None)

    def admitted(
        self, packs: Packs, stones: tuple[str, ...] = (), thinned: tuple[str, ...] = ()
    ) -> Packs:
        """Section 10: the packs with the bit set of each copy that lacks what it needs. Nobody
        needs what was purged, nor what something thinned names.

        Bottom-up: a copy counts once its base has a counted copy of smaller depth and each child
        of its id a counted copy; what never gets there is left out.
        """
        counted: dict[tuple[int, int], Slot] = {}
        ranks: dict[str, int] = {}
        grew = True
        while grew:
            grew = False
            for oid, copies in self.live(packs).items():
                bound = self.child_bound(oid)
                needs = "" if oid in thinned else self.children.get(oid, "")
                if any(ranks.get(c, ABSENT) >= bound for c in needs if c not in stones):
                    continue
                for copy in copies:
                    slot, place = copy.slot, (copy.number, copy.slot_no)
                    if place in counted or (
                        slot.base and ranks.get(slot.base, ABSENT) >= self.bound(slot)
                    ):
                        continue
                    counted[place] = slot
                    ranks[oid] = min(slot.rank, ranks.get(oid, ABSENT))
                    grew = True
        return tuple(
            pack._replace(
                dead=sum(
                    ((pack.number, index) not in counted) << index
                    for index in range(len(pack.slots))
                )
            )
            for pack in packs
        )


def roots_of(catalog: Catalog, *, pins: bool) -> set[str]:
    """Targets of refs and, if asked, what the sessions pin."""
    roots = {target for _, target in catalog.refs}
    if pins:
        for session in catalog.sessions:
            roots.update(session.pins)
    return roots


def segment_of(catalog: Catalog) -> Segment:
    """What a mirror says of this state."""
    return Segment(catalog.lineage, catalog.seq, catalog.refs, catalog.stones, catalog.thinned)


# -- transactions on a catalog: each gives the catalog after it -------------------------------


def with_session(catalog: Catalog, key: str, pins: tuple[str, ...] = ()) -> Catalog:
    """A session row more."""
    return catalog._replace(sessions=tuple(sorted((*catalog.sessions, Session(key, pins)))))


def without_session(catalog: Catalog, key: str) -> Catalog:
    """A session row less: closed, or fenced."""
    return catalog._replace(sessions=tuple(s for s in catalog.sessions if s.key != key))


def has_session(catalog: Catalog, key: str) -> bool:
    """The fence check."""
    return any(session.key == key for session in catalog.sessions)


def with_ref(catalog: Catalog, ref: str, target: str | None) -> Catalog:
    """Move a ref, or delete it: a journal entry."""
    refs = {**dict(catalog.refs), ref: target or ""}
    kept = tuple(sorted((name, oid) for name, oid in refs.items() if oid))
    return catalog._replace(refs=kept, seq=catalog.seq + 1)


def with_pack(
    catalog: Catalog,
    rules: Rules,
    file: str,
    slots: tuple[Slot, ...],
    dead: int = 0,
    since: int = 0,
) -> Catalog:
    """Install a pack. Its number is drawn from the version (E0) and is its install version."""
    version = catalog.version + rules.version_on_install
    number = catalog.version + 1
    if not rules.unique_numbers:  # what a table without AUTOINCREMENT does
        number = max((pack.number for pack in catalog.packs), default=0) + 1
    pack = Pack(number, since or version, file, slots, dead)
    return catalog._replace(version=version, packs=(*catalog.packs, pack))


def with_bits(
    catalog: Catalog, world: World, dead: Mapping[int, int], *, condemned: bool
) -> Catalog:
    """Set bits, by pack number. Counts as E0 says: versions, and ranks that rose.

    `condemned` tells the removal of ids from that of redundant copies, for the rules' sake.
    """
    packs = tuple(
        pack._replace(dead=pack.dead | dead.get(pack.number, 0)) for pack in catalog.packs
    )
    rules = world.rules
    counts = rules.condemn_counts if condemned else rules.rank_counts
    rose = any(
        world.rank(packs, oid) > world.rank(catalog.packs, oid) for oid in world.live(catalog.packs)
    )
    return catalog._replace(
        packs=packs,
        version=catalog.version + rules.version_on_removal,
        condemn_seq=catalog.condemn_seq + (counts and rose),
    )
