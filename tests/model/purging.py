"""Purge and thinning: content that goes although something names it.

Invariant: a purge tells of its success only when no pack and no file holds the content; what was
thinned is shown by no ref. The copying beside a purge is that of movers and is one step here.
Implements docs/design/023-the-arsenal.md on top of docs/design/001-what-the-model-taught.md.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from tests.model.acts import Steps, remember, sync_file, transact, write_file
from tests.model.protocol import (
    UNLINKED,
    WHOLE,
    Catalog,
    Pack,
    Slot,
    State,
    World,
    has_session,
    with_pack,
)


class Purging(NamedTuple):
    at: str = "idle"
    oid: str = ""
    files: int = 0


@attrs.frozen
class Purger:
    """Purges one id: the tombstone, the copies out of their packs, the files gone, success."""

    oid: str
    name: str = "purge"

    def start(self) -> Purging:
        return Purging()

    def crashed(self, memory: Purging) -> Purging | None:
        return None if memory.at in ("idle", "done") else memory._replace(at="idle")

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Purging = state.actors[me]
        catalog, rules = state.catalog, world.rules
        if memory.at == "done":
            return
        if memory.at == "idle":
            begun = memory._replace(at="out", oid=self.oid)
            label = f"{self.name} begins to purge {self.oid}"
            if rules.stones_first and self.oid not in catalog.stones:
                state = transact(world, state, _with_stone(catalog, self.oid))
                label = f"{self.name} writes the tombstone of {self.oid}"
            yield label, remember(state, me, begun)
            return
        if rules.stones_first and self.oid not in catalog.stones:
            # The catalog was lost, and its mirror did not know yet.
            yield f"{self.name} begins-again", remember(state, me, memory._replace(at="idle"))
            return
        holding = [pack for pack in catalog.packs if self._holds(world, pack)]
        if holding:
            yield self._take_out(world, state, me, memory, holding)
            return
        if rules.purge_looks_at_files and _standing(state, self.oid):
            return
        after = catalog
        if self.oid not in catalog.stones:
            after = _with_stone(catalog, self.oid)
        told = remember(transact(world, state, after), me, memory._replace(at="done"))
        yield f"{self.name} tells that {self.oid} is gone", told

    def _holds(self, world: World, pack: Pack) -> bool:
        """Whether a pack has to be written anew."""
        return any(
            slot.oid == self.oid and (world.rules.purge_takes_dead or not pack.dead >> at & 1)
            for at, slot in enumerate(pack.slots)
        )

    def _take_out(
        self, world: World, state: State, me: int, memory: Purging, holding: list[Pack]
    ) -> tuple[str, State]:
        """Packs anew without the content, the old ones out, in one transaction."""
        rules, before = world.rules, state.catalog
        catalog = before._replace(packs=tuple(p for p in before.packs if p not in holding))
        files = memory.files
        for pack in holding:
            kept = tuple(
                self._whole(world, slot)
                for at, slot in enumerate(pack.slots)
                if slot.oid != self.oid and not pack.dead >> at & 1
            )
            file = ""
            if pack.file:
                files += 1
                doomed = (*catalog.doomed, (pack.file, catalog.seq))
                catalog = catalog._replace(doomed=tuple(sorted(doomed)))
                file = f"{self.name}.{files}" if kept else ""
            if file:
                state = sync_file(write_file(state, file, kept, self.name), file)
            if kept:
                catalog = with_pack(catalog, rules, file, kept)
        catalog = self._dependants(world, catalog)
        rose = any(
            world.rank(catalog.packs, oid) > world.rank(before.packs, oid)
            for oid in world.live(before.packs)
        )
        catalog = catalog._replace(
            version=catalog.version + 1,
            condemn_seq=catalog.condemn_seq + (rules.purge_counts and rose),
        )
        state = remember(transact(world, state, catalog), me, memory._replace(files=files))
        taken = ", ".join(str(pack.number) for pack in holding)
        return f"{self.name} takes {self.oid} out of pack {taken}", state

    def _whole(self, world: World, slot: Slot) -> Slot:
        if slot.base == self.oid and world.rules.purge_reencodes:
            return Slot(slot.oid, WHOLE, "")
        return slot

    def _dependants(self, world: World, catalog: Catalog) -> Catalog:
        """Copies elsewhere that are stored on the content are stored whole, in a pack of theirs."""
        if not world.rules.purge_reencodes:
            return catalog
        moved: list[Slot] = []
        packs: list[Pack] = []
        for pack in catalog.packs:
            dead = pack.dead
            for at, slot in enumerate(pack.slots):
                if slot.base == self.oid and not dead >> at & 1:
                    moved.append(Slot(slot.oid, WHOLE, ""))
                    dead |= 1 << at
            packs.append(pack._replace(dead=dead))
        if not moved:
            return catalog
        return with_pack(catalog._replace(packs=tuple(packs)), world.rules, "", tuple(moved))


def _with_stone(catalog: Catalog, oid: str) -> Catalog:
    stones = tuple(sorted({*catalog.stones, oid}))
    return catalog._replace(stones=stones, seq=catalog.seq + 1)


def _standing(state: State, oid: str) -> list[str]:
    """Files that hold an id."""
    return [
        file.name
        for file in state.files
        if file.status != UNLINKED and any(slot.oid == oid for slot in file.slots)
    ]


def purge_breach(state: State) -> str | None:
    """What a purge that has told of its success got wrong."""
    for memory in state.actors:
        if not isinstance(memory, Purging) or memory.at != "done":
            continue
        for pack in state.catalog.packs:
            if any(slot.oid == memory.oid for slot in pack.slots):
                return f"{memory.oid} was purged and lies in pack {pack.number}"
        for file in state.files:
            # A writer at work will be refused, and takes its file away.
            if file.name in _standing(state, memory.oid) and not has_session(
                state.catalog, file.owner
            ):
                return f"{memory.oid} was purged and lies in file {file.name}"
    return None


class Thinning(NamedTuple):
    at: str = "idle"


@attrs.frozen
class Thinner:
    """Thins one id that no ref shows: it stays, its children may go."""

    oid: str
    name: str = "thin"

    def start(self) -> Thinning:
        return Thinning()

    def crashed(self, memory: Thinning) -> Thinning | None:
        return Thinning() if memory.at == "planned" else None

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Thinning = state.actors[me]
        catalog = state.catalog
        refused = any(target == self.oid for _, target in catalog.refs)
        exists = self.oid in world.live(catalog.packs)
        if memory.at == "idle" and exists and not refused:
            yield f"{self.name} plans to thin {self.oid}", remember(state, me, Thinning("planned"))
        elif memory.at == "planned":
            over = remember(state, me, Thinning("done"))
            if not exists or (refused and world.rules.thin_checks_refs):
                yield f"{self.name} gives-up: {self.oid} is shown", over
                return
            thinned = tuple(sorted({*catalog.thinned, self.oid}))
            after = catalog._replace(thinned=thinned, seq=catalog.seq + 1)
            yield f"{self.name} thins {self.oid}", transact(world, over, after)
