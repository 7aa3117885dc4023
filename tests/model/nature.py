"""What befalls the actors, and the scenarios that are explored.

Invariant: a misfortune may strike between any two steps, as often as the scenario's budget says.
Implements docs/design/001-what-the-model-taught.md, sections 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from tests.model.acts import Actor, Steps, remember, transact
from tests.model.backing import backup_breach
from tests.model.canon import canonical
from tests.model.collectors import Marking
from tests.model.machine import Exploration, Explorer
from tests.model.movers import newest
from tests.model.protocol import (
    RECIPE,
    SYNCED,
    UNLINKED,
    WHOLE,
    Budget,
    Catalog,
    File,
    Pack,
    Rules,
    Segment,
    Slot,
    State,
    World,
    with_ref,
    without_session,
)
from tests.model.purging import purge_breach
from tests.model.readers import Reading, reader_breach, settle_readers
from tests.model.writers import Writing


@attrs.frozen
class Scenario:
    """A small store, some actors and some misfortunes; every interleaving is explored.

    `packs` are the packs at the start, oldest first: "i: P C" is an inline pack, "f1: Y<B:1" the
    file f1 with a delta of depth 1; "X@R" is a copy by recipe, "!P" a condemned copy. `refs` are
    those at the start, `leaving` those that may be deleted and leave the horizon at once.
    `lost` names files that are missing from the start. `must` lists steps ("actor verb") that the
    exploration has to meet, or it would prove nothing.
    """

    name: str
    actors: tuple[Actor, ...]
    packs: tuple[str, ...] = ()
    refs: Mapping[str, str] = attrs.field(factory=dict)
    leaving: str = ""
    children: Mapping[str, str] = attrs.field(factory=dict)
    recipes: str = ""
    crashes: int = 0
    power_losses: int = 0
    expiries: int = 0
    catalog_losses: int = 0
    relaxed: bool = False
    lost: tuple[str, ...] = ()
    must: tuple[str, ...] = ()

    def world(self, rules: Rules) -> World:
        return World(
            rules,
            self.children,
            self.recipes,
            power=self.power_losses > 0,
            relaxed=self.relaxed,
            rebuilds=self.catalog_losses > 0,
            damaged=self.lost,
        )

    def first(self) -> State:
        """The state at the start."""
        packs: list[Pack] = []
        for number, text in enumerate(self.packs, 1):
            place, _, content = text.partition(": ")
            words = content.split()
            dead = sum(word.startswith("!") << i for i, word in enumerate(words))
            slots = tuple(parsed(word.lstrip("!")) for word in words)
            packs.append(Pack(number, number, "" if place == "i" else place, slots, dead))
        files = tuple(
            File(pack.file, pack.slots, "", SYNCED, None)
            for pack in sorted(packs, key=lambda pack: pack.file)
            if pack.file and pack.file not in self.lost
        )
        refs = tuple(sorted(self.refs.items()))
        catalog = Catalog(1, len(packs), 0, 0, tuple(packs), (), refs, ())
        mirror = Segment(1, 0, refs) if self.catalog_losses else None
        left = Budget(self.crashes, self.power_losses, self.expiries, self.catalog_losses)
        started = tuple(actor.start() for actor in self.actors)
        return State(catalog, (), files, mirror, (), -1, left, started)

    def explore(
        self, rules: Rules, states_max: int = 400_000, *, merge: bool = True
    ) -> Exploration:
        """Explore all of it under `rules`, or up to the first breach.

        `merge` counts states as one that differ only in how far their counters have run.
        """
        world = self.world(rules)

        def steps(state: State) -> Iterable[tuple[str, State]]:
            for me, actor in enumerate(self.actors):
                for label, after in actor.steps(world, state, me):
                    yield label, settle(world, after)
            for label, after in self._misfortunes(world, state):
                yield label, settle(world, after)

        def breach(state: State) -> str | None:
            return (
                reader_breach(state)
                or world.breach(state)
                or purge_breach(state)
                or backup_breach(world, state)
            )

        key = canonical if merge else lambda state: state
        return Explorer(steps, breach, key, states_max).explore(self.first())

    def _misfortunes(self, world: World, state: State) -> Steps:
        left, catalog = state.left, state.catalog
        for ref, target in catalog.refs:
            if ref in self.leaving:
                dropped = transact(world, state, with_ref(catalog, ref, None))
                yield f"user deletes ref {ref} -> {target}; it leaves the horizon", dropped
        if left.crashes:
            poorer = state._replace(left=left._replace(crashes=left.crashes - 1))
            for me, actor in enumerate(self.actors):
                after = actor.crashed(state.actors[me])
                if after is not None:
                    yield f"{actor.name} crashes", remember(poorer, me, after)
        if left.expiries:
            poorer = state._replace(left=left._replace(expiries=left.expiries - 1))
            for session in catalog.sessions:
                fenced = without_session(catalog, session.key)
                label = f"gc fences session {session.key}: it has expired"
                yield label, transact(world, poorer, fenced)
        if left.power_losses:
            poorer = state._replace(left=left._replace(power_losses=left.power_losses - 1))
            yield from self._power_loss(world, poorer)
        if left.catalog_losses:
            poorer = state._replace(left=left._replace(catalog_losses=left.catalog_losses - 1))
            yield "catalog is-lost and is rebuilt from the packs", rebuilt(world, poorer)

    def _power_loss(self, world: World, state: State) -> Steps:
        memories = []
        for actor, memory in zip(self.actors, state.actors, strict=True):
            after = actor.crashed(memory)
            after = memory if after is None else after
            if isinstance(after, Writing) and world.relaxed and world.rules.cache_dropped:
                after = after._replace(cache=None)
            memories.append(Reading("done") if isinstance(after, Reading) else after)
        state = state._replace(actors=tuple(memories), shared_s0=-1)
        harsh = tuple(
            file._replace(status=SYNCED)
            for file in state.files
            if file.status in (SYNCED, UNLINKED)
        )
        mild = tuple(f._replace(status=SYNCED) for f in state.files if f.status != UNLINKED)
        for back, catalog in enumerate(reversed((*state.unsynced, state.catalog))):
            lost = f", {back} catalog transactions are lost" if back else ""
            for files, what in ((harsh, "loses what was not synced"), (mild, "keeps the files")):
                if files == mild and what.startswith("loses"):
                    continue
                after = state._replace(catalog=catalog, unsynced=(), files=files)
                yield f"power fails, {what}{lost}", after


def rebuilt(world: World, state: State) -> State:
    """Section 10: a new catalog from the pack files and the newest mirrored segment."""
    rules, old = world.rules, state.catalog
    standing = [file for file in state.files if file.status != UNLINKED]
    segment = state.mirror
    for file in standing:
        segment = newest(rules, segment, file.segment)
    refs = segment.refs if segment else ()
    packs = tuple(
        Pack(number, number, file.name, file.slots, 0) for number, file in enumerate(standing, 1)
    )
    if rules.admit_bottom_up:
        known = (segment.stones, segment.thinned) if segment and rules.rebuild_knows else ((), ())
        packs = world.admitted(packs, *known)
    if rules.unreachable_dead:
        reached = world.closure(
            packs, {oid for _, oid in refs}, True, segment.thinned if segment else ()
        )
        packs = tuple(
            pack._replace(
                dead=pack.dead
                | sum((slot.oid not in reached) << i for i, slot in enumerate(pack.slots))
            )
            for pack in packs
        )
    sessions = () if rules.rebuild_fences else old.sessions
    seq = segment.seq if segment else 0
    if segment is not None and rules.rebuild_mirrors:  # a segment opens the new lineage
        segment = segment._replace(lineage=old.lineage + 1)
    given_up = (segment.stones, segment.thinned) if segment else ((), ())
    catalog = Catalog(old.lineage + 1, len(packs), 0, seq, packs, (), refs, sessions, *given_up)
    files = state.files
    if rules.rebuild_syncs:
        files = tuple(
            file if file.status == UNLINKED else file._replace(status=SYNCED) for file in files
        )
    return state._replace(
        catalog=catalog, unsynced=(), files=files, mirror=segment, young=(), shared_s0=-1
    )


def settle(world: World, state: State) -> State:
    """Bring the notes up to date that are nobody's memory: reads under way, fresh loose puts."""
    marking = any(isinstance(m, Marking) and m.at != "idle" for m in state.actors)
    if state.young and not marking:
        state = state._replace(young=())
    return settle_readers(world, state)


def parsed(word: str) -> Slot:
    """`A`, `A<B:1` (a delta of depth 1 on B) or `X@R` (by recipe R) as a slot."""
    if "@" in word:
        oid, _, recipe = word.partition("@")
        return Slot(oid, RECIPE, recipe)
    if "<" in word:
        oid, _, rest = word.partition("<")
        base, _, depth = rest.partition(":")
        return Slot(oid, int(depth), base)
    return Slot(word, WHOLE, "")
