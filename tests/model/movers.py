"""Spill and compaction: copy outside the gate, then install with E4's bits.

Invariant: the install believes nothing that the copying saw. Implements
docs/design/001-what-the-model-taught.md, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import attrs

from tests.model.acts import (
    Steps,
    named,
    remember,
    shown,
    sync_file,
    transact,
    unlinked,
    write_file,
)
from tests.model.protocol import (
    ANY,
    WHOLE,
    Copy,
    Packs,
    Rules,
    Segment,
    Slot,
    State,
    World,
    has_session,
    segment_of,
    with_bits,
    with_pack,
    with_session,
    without_session,
)


class Moving(NamedTuple):
    at: str = "idle"
    used: int = 0
    key: str = ""
    sources: tuple[tuple[int, int], ...] = ()
    output: tuple[Slot, ...] = ()
    since: int = 0
    file: str = ""
    segment: Segment | None = None


@attrs.frozen
class Mover:
    """Spill (from inline packs) or compaction (from file packs): copy outside, then install.

    `reencode` names the base that an id is stored against, '' for whole. A spill mirrors the
    journal: its file carries a segment. The old copies go later, by the janitor's hand.
    """

    name: str
    from_files: bool = False
    reencode: Mapping[str, str] = attrs.field(factory=dict)
    only: str = ""  # the ids to move; all when empty
    tries: int = 1

    def start(self) -> Moving:
        return Moving()

    def crashed(self, memory: Moving) -> Moving | None:
        if memory.at in ("idle", "done"):
            return None
        return Moving("idle" if memory.used < self.tries else "done", memory.used)

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Moving = state.actors[me]
        if memory.at == "idle":
            yield from self._copy(world, state, me, memory)
        elif memory.at == "copied":
            written = write_file(state, memory.file, memory.output, memory.key, memory.segment)
            if world.power:
                after = remember(written, me, memory._replace(at="written"))
                yield f"{self.name} writes file {memory.file}", after
            else:
                written = sync_file(written, memory.file)
                after = remember(written, me, memory._replace(at="synced"))
                yield f"{self.name} writes and syncs file {memory.file}", after
        elif memory.at == "written":
            synced = sync_file(state, memory.file)
            after = remember(synced, me, memory._replace(at="synced"))
            yield f"{self.name} syncs file {memory.file}", after
        elif memory.at == "synced":
            yield from self._install(world, state, me, memory)
        elif memory.at == "sweeping":
            yield from self._sweep_blindly(world, state, me, memory)

    def _copy(self, world: World, state: State, me: int, memory: Moving) -> Steps:
        catalog = state.catalog
        if memory.used >= self.tries:
            return
        sources: list[Copy] = []
        for copies in world.live(catalog.packs).values():
            for copy in copies:
                wanted = bool(copy.file) == self.from_files
                if wanted and (not self.only or copy.slot.oid in self.only):
                    sources.append(copy)
        if not sources:
            return
        sources.sort()
        output = tuple(self._encoded(world, catalog.packs, copy.slot) for copy in sources)
        used = memory.used + 1
        key = f"{self.name}#{used}"
        segment = None
        if world.rebuilds and not self.from_files and not self.only:
            segment = segment_of(catalog)
        since = 0 if world.rules.outputs_newer else min(copy.since for copy in sources)
        places = tuple((copy.number, copy.slot_no) for copy in sources)
        planned = Moving("copied", used, key, places, output, since, f"{self.name}.{used}", segment)
        opened = transact(world, state, with_session(catalog, key))
        label = f"{self.name} opens session {key}, copies {named(sources)}"
        yield label, remember(opened, me, planned)

    def _encoded(self, world: World, packs: Packs, slot: Slot) -> Slot:
        base = self.reencode.get(slot.oid, slot.base)
        if not base:
            return Slot(slot.oid, WHOLE, "")
        if slot.oid in self.reencode and world.rank(packs, base) < ANY:
            return Slot(slot.oid, world.rank(packs, base) + 1, base)
        return slot

    def _install(self, world: World, state: State, me: int, memory: Moving) -> Steps:
        catalog, rules = state.catalog, world.rules
        over = Moving("idle" if memory.used < self.tries else "done", memory.used)
        if rules.fence and not has_session(catalog, memory.key):
            yield f"{self.name} is-refused: its session was fenced", remember(state, me, over)
            return
        if rules.stones_refuse and any(s.oid in catalog.stones for s in memory.output):
            state = unlinked(world, state, memory.file)
            state = transact(world, state, without_session(state.catalog, memory.key))
            yield f"{self.name} is-refused: it holds what was purged", remember(state, me, over)
            return
        there = {
            (copy.number, copy.slot_no)
            for copies in world.live(catalog.packs).values()
            for copy in copies
        }
        dead = 0
        if rules.dead_sources:
            for index, place in enumerate(memory.sources):
                dead |= (place not in there) << index
        after = with_pack(catalog, rules, memory.file, memory.output, dead, memory.since)
        while rules.output_edges and world.wants(after.packs):  # the newest pack's copies only
            for _, index in world.wants(after.packs):
                dead |= 1 << index
            after = with_pack(catalog, rules, memory.file, memory.output, dead, memory.since)
        after = without_session(after, memory.key)
        state = transact(world, state, after)
        if memory.segment is not None:
            state = state._replace(mirror=newest(rules, state.mirror, memory.segment))
        clear = [s for i, s in enumerate(memory.output) if not dead >> i & 1]
        label = f"{self.name} installs {memory.file} as pack {after.packs[-1].number}"
        label += f" with {' '.join(shown(slot) for slot in clear) or 'all bits set'}"
        if rules.looks_in_transaction:
            yield label, remember(state, me, over)
        else:
            yield label, remember(state, me, memory._replace(at="sweeping"))

    def _sweep_blindly(self, world: World, state: State, me: int, memory: Moving) -> Steps:
        """What must not be done: remove the sources on the strength of the install alone."""
        dead: dict[int, int] = {}
        for number, index in memory.sources:
            dead[number] = dead.get(number, 0) | 1 << index
        catalog = with_bits(state.catalog, world, dead, condemned=False)
        over = Moving("idle" if memory.used < self.tries else "done", memory.used)
        label = f"{self.name} removes the rows it copied, without looking"
        yield label, remember(transact(world, state, catalog), me, over)


def newest(rules: Rules, one: Segment | None, other: Segment | None) -> Segment | None:
    """Of two segments the one that a rebuild believes; the first where they are equal."""
    standing = [segment for segment in (one, other) if segment is not None]
    if rules.lineages_ordered:
        return max(standing, key=lambda segment: (segment.lineage, segment.seq), default=None)
    return max(standing, key=lambda segment: segment.seq, default=None)
