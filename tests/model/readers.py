"""Readers with snapshots as stale as they like (E7, E8), and what they must never say.

Invariant: an attempt reads one place and judges by the id of what it got. Implements
docs/design/001-what-the-model-taught.md, sections 2 and 4.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from tests.model.acts import Steps, remember
from tests.model.protocol import ANY, UNLINKED, Copy, Packs, Slot, State, World


class Reading(NamedTuple):
    at: str = "idle"
    target: str = ""
    known: Packs = ()  # the index
    listed: Packs = ()
    want: str = ""
    bound: int = ANY
    tried: tuple[tuple[int, int], ...] = ()
    refreshed: bool = False
    alive: bool = True


@attrs.frozen
class Reader:
    """Reads `target` once, from a snapshot that may be as old as it likes (E7, E8)."""

    name: str
    target: str

    def start(self) -> Reading:
        return Reading()

    def crashed(self, memory: Reading) -> None:
        return None

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Reading = state.actors[me]
        packs = state.catalog.packs
        if memory.at == "idle":
            ready = Reading("ready", self.target, packs, packs)
            label = f"{self.name} snapshots version {state.catalog.version}"
            yield label, remember(state, me, ready)
        elif memory.at == "ready":
            if self.target in world.live(packs):
                begun = memory._replace(at="reading", want=self.target)
                yield f"{self.name} begins to read {self.target}", remember(state, me, begun)
        elif memory.at == "reading":
            yield from self._read(world, state, me, memory)

    def _read(self, world: World, state: State, me: int, memory: Reading) -> Steps:
        listed = world.live(memory.listed)
        there = {(copy.number, copy.slot_no) for copy in listed.get(memory.want, ())}
        usable = [
            copy
            for copy in world.live(memory.known).get(memory.want, ())
            if copy.slot.rank < memory.bound and (copy.number, copy.slot_no) in there
        ]
        left = [copy for copy in usable if (copy.number, copy.slot_no) not in memory.tried]
        if not world.rules.next_copy and memory.tried:
            left = []
        for copy in left if world.rules.next_copy else left[:1]:
            yield self._attempt(world, state, me, memory, copy)
        if not left:
            yield self._refresh(world, state, me, memory)

    def _attempt(
        self, world: World, state: State, me: int, memory: Reading, copy: Copy
    ) -> tuple[str, State]:
        got = self._bytes(state, copy)
        place = f"{memory.want} in pack {copy.number}" + (f" ({copy.file})" if copy.file else "")
        if got is None or (world.rules.verify and got.oid != memory.want):
            tried = tuple(sorted((*memory.tried, (copy.number, copy.slot_no))))
            missed = memory._replace(tried=tried)
            return f"{self.name} misses {place}", remember(state, me, missed)
        if got.oid != memory.want:
            wrong = Reading("wrong", self.target, want=memory.want)
            return f"{self.name} takes {got.oid} for {place}", remember(state, me, wrong)
        if not got.base:
            return f"{self.name} reads {place}: done", remember(state, me, Reading("done"))
        onward = memory._replace(want=got.base, bound=world.bound(got), tried=())
        return f"{self.name} reads {place}, a delta on {got.base}", remember(state, me, onward)

    def _bytes(self, state: State, copy: Copy) -> Slot | None:
        if copy.file:
            for file in state.files:
                if file.name == copy.file and file.status != UNLINKED:
                    return file.slots[copy.slot_no] if copy.slot_no < len(file.slots) else None
            return None
        for pack in state.catalog.packs:
            if pack.number == copy.number and not pack.file:
                return pack.slots[copy.slot_no] if copy.slot_no < len(pack.slots) else None
        return None

    def _refresh(self, world: World, state: State, me: int, memory: Reading) -> tuple[str, State]:
        packs, rules = state.catalog.packs, world.rules
        gone = Reading("gone", self.target, want=memory.want, alive=memory.alive)
        if not rules.refresh or (not rules.gone_is_shown and memory.refreshed):
            return f"{self.name} says Gone: {memory.want} was not found", remember(state, me, gone)
        known = packs if rules.one_snapshot else memory.listed  # the index lags behind the list
        fresh = memory._replace(known=known, listed=packs, tried=(), refreshed=True)
        if rules.restart:
            fresh = fresh._replace(want=self.target, bound=ANY)
        if rules.gone_is_shown:
            if memory.known == memory.listed == packs:  # nothing has moved: the bytes are lost
                damaged = Reading("damaged", self.target, want=memory.want, alive=memory.alive)
                return f"{self.name} says Damaged", remember(state, me, damaged)
            shown_now = world.live(packs).get(fresh.want, ())
            listed = set(world.live(known).get(fresh.want, ()))
            if not any(copy in listed and copy.slot.rank < fresh.bound for copy in shown_now):
                label = f"{self.name} says Gone: a fresh snapshot has no copy of {fresh.want}"
                return label, remember(state, me, gone._replace(want=fresh.want))
        label = f"{self.name} refreshes at version {state.catalog.version}"
        return label, remember(state, me, fresh)


def settle_readers(world: World, state: State) -> State:
    """Note for each reader under way whether its target has existed all along."""
    for me, memory in enumerate(state.actors):
        if isinstance(memory, Reading) and memory.at == "reading":
            alive = memory.alive and memory.target in world.live(state.catalog.packs)
            state = remember(state, me, memory._replace(alive=alive))
    return state


def reader_breach(state: State) -> str | None:
    """A false Gone, wrong bytes, or damage where there is none."""
    for memory in state.actors:
        if isinstance(memory, Reading):
            if memory.at in ("gone", "damaged") and memory.alive:
                return f"false {memory.at.title()}: the object existed throughout the read"
            if memory.at == "wrong":
                return f"wrong bytes for {memory.want}"
    return None
