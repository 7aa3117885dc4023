"""The collector: mark, then condemn ids in slices (E2, E3, E5).

Invariant: what may go is judged anew in every condemn transaction. Implements
docs/design/001-what-the-model-taught.md, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from tests.model.acts import Steps, bits, named, names, remember, transact, unlinked
from tests.model.protocol import Catalog, Copy, Packs, State, World, roots_of, with_bits


class Marking(NamedTuple):
    at: str = "idle"
    runs: int = 0
    lineage: int = 0
    version: int = 0  # v0: catalog_version when the mark began
    marked: frozenset[str] = frozenset()
    plan: tuple[str, ...] = ()  # what is left to condemn, where slices do not look again
    settled: bool = False  # the plan was made


@attrs.frozen
class Collector:
    """Marks, then condemns in slices, or all in one transaction. `runs` bounds its runs."""

    name: str = "gc"
    runs: int = 1
    slices: bool = True

    def start(self) -> Marking:
        return Marking()

    def crashed(self, memory: Marking) -> Marking | None:
        return None if memory.at == "idle" else Marking(runs=memory.runs)

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Marking = state.actors[me]
        catalog, rules = state.catalog, world.rules
        if memory.at == "idle":
            if memory.runs < self.runs:
                roots = roots_of(catalog, pins=rules.pins_are_roots)
                marked = world.closure(catalog.packs, roots, rules.storage_edges, catalog.thinned)
                at = "marked" if rules.mark_one_snapshot else "rooted"
                begun = Marking(at, memory.runs + 1, catalog.lineage, catalog.version, marked)
                label = f"{self.name} marks at version {catalog.version}: {names(marked)}"
                yield label, remember(state, me, begun)
            return
        if rules.run_checks_lineage and memory.lineage != catalog.lineage:
            ended = Marking(runs=memory.runs)
            yield f"{self.name} gives-up its run: another lineage", remember(state, me, ended)
            return
        if memory.at == "rooted":
            late = memory._replace(at="marked", version=catalog.version)
            yield f"{self.name} reads v0 = {catalog.version}", remember(state, me, late)
            return
        doomed = self._doomed(world, catalog, memory)
        if not doomed:
            ended = Marking(runs=memory.runs)
            yield f"{self.name} ends its run", remember(state, me, ended)
            return
        if not rules.late_unlink:
            yield from self._unlink_early(world, state, doomed)
        if not rules.ids_not_packs:
            for pack in catalog.packs:
                copies = [c for oid in doomed for c in world.live(catalog.packs)[oid]]
                here = [copy for copy in copies if copy.number == pack.number]
                if here:
                    label = f"{self.name} condemns, in pack {pack.number}, {named(here)}"
                    yield label, self._condemned(world, state, me, memory, here, doomed)
            return
        for group in self._slices(world, catalog.packs, doomed):
            copies = [c for oid in group for c in world.live(catalog.packs).get(oid, ())]
            if not rules.all_copies:
                copies = [world.live(catalog.packs)[oid][0] for oid in group]
            label = f"{self.name} condemns {names(group)}: {named(copies)}"
            yield label, self._condemned(world, state, me, memory, copies, doomed - group)

    def _doomed(self, world: World, catalog: Catalog, memory: Marking) -> frozenset[str]:
        """E2, E3: the ids to condemn, judged against the catalog as it stands now."""
        rules = world.rules
        live = world.live(catalog.packs)
        if memory.settled and not rules.slices_look_again:
            return frozenset(memory.plan) & live.keys()
        kept = set(memory.marked)
        if rules.roots_again:
            kept |= roots_of(catalog, pins=rules.pins_are_roots)
        newer = {
            oid
            for oid, copies in live.items()
            if any(copy.since > memory.version for copy in copies)
        }
        if rules.newer_kept and rules.newer_traced:
            kept |= newer
        closed = world.closure(catalog.packs, kept, rules.storage_edges, catalog.thinned)
        if rules.newer_kept:
            closed |= newer
        return frozenset(live.keys() - closed)

    def _slices(self, world: World, packs: Packs, doomed: frozenset[str]) -> list[frozenset[str]]:
        """What one transaction may take: a group that nothing outside it, in `doomed`, needs."""
        rules = world.rules
        if not self.slices:
            return [doomed]
        below = {oid: world.closure(packs, [oid], rules.storage_order) & doomed for oid in doomed}
        groups = {frozenset(other for other in below[oid] if oid in below[other]) for oid in doomed}
        first = []
        for group in sorted(groups, key=sorted):
            if rules.parents_first:
                ready = all(oid in group for oid in doomed if below[oid] & group)
            else:
                ready = all(below[oid] <= group for oid in group)
            if ready:
                first.append(group)
        return first

    def _condemned(
        self,
        world: World,
        state: State,
        me: int,
        memory: Marking,
        copies: list[Copy],
        rest: frozenset[str],
    ) -> State:
        catalog = with_bits(state.catalog, world, bits(copies), condemned=True)
        after = memory._replace(plan=tuple(sorted(rest)), settled=True)
        if world.rules.slices_look_again:
            after = memory
        lost = set(state.young) - world.live(catalog.packs).keys()  # a breach must be seen first
        if not lost and not self._doomed(world, catalog, after):
            after = Marking(runs=memory.runs)
        return remember(transact(world, state, catalog), me, after)

    def _unlink_early(self, world: World, state: State, doomed: frozenset[str]) -> Steps:
        for pack in state.catalog.packs:
            if pack.file and all(slot.oid in doomed for slot in pack.slots):
                label = f"{self.name} unlinks {pack.file}, about to be condemned"
                yield label, unlinked(world, state, pack.file)
