"""A backup beside living writers: a state is captured, then its files are copied one by one.

Invariant: a backup that is finished holds everything that its refs lead to.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from tests.model.acts import Steps, remember
from tests.model.protocol import UNLINKED, Packs, Refs, State, World


class Copying(NamedTuple):
    at: str = "idle"
    refs: Refs = ()
    packs: Packs = ()  # as captured; those copied keep their slots
    left: tuple[str, ...] = ()  # files to copy
    stones: tuple[str, ...] = ()
    thinned: tuple[str, ...] = ()


@attrs.frozen
class Backup:
    """Captures refs, packs and inline bodies, copies files, and begins again where one has gone."""

    name: str = "backup"

    def start(self) -> Copying:
        return Copying()

    def crashed(self, memory: Copying) -> Copying | None:
        return None if memory.at in ("idle", "done") else Copying()

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Copying = state.actors[me]
        catalog, rules = state.catalog, world.rules
        if memory.at == "idle":
            left = tuple(pack.file for pack in catalog.packs if pack.file)
            at = "copying" if rules.backup_one_snapshot else "late"
            found = Copying(at, catalog.refs, catalog.packs, left, catalog.stones, catalog.thinned)
            yield f"{self.name} captures at {catalog.seq}", remember(state, me, found)
        elif memory.at == "late":
            later = memory._replace(
                at="copying", refs=catalog.refs, stones=catalog.stones, thinned=catalog.thinned
            )
            yield f"{self.name} reads the refs at {catalog.seq}", remember(state, me, later)
        elif memory.at == "copying" and memory.left:
            yield self._copy(world, state, me, memory)
        elif memory.at == "copying":
            yield f"{self.name} finishes", remember(state, me, memory._replace(at="done"))

    def _copy(self, world: World, state: State, me: int, memory: Copying) -> tuple[str, State]:
        name, rest = memory.left[0], memory.left[1:]
        if any(file.name == name and file.status != UNLINKED for file in state.files):
            return f"{self.name} copies {name}", remember(state, me, memory._replace(left=rest))
        if world.rules.backup_starts_again:
            return f"{self.name} begins-again: {name} has gone", remember(state, me, Copying())
        packs = tuple(pack for pack in memory.packs if pack.file != name)
        skipped = memory._replace(left=rest, packs=packs)
        return f"{self.name} leaves {name} out", remember(state, me, skipped)


def backup_breach(world: World, state: State) -> str | None:
    """What a finished backup lacks."""
    for memory in state.actors:
        if isinstance(memory, Copying) and memory.at == "done":
            roots = {oid for _, oid in memory.refs}
            live = world.live(memory.packs)
            wanted = world.closure(memory.packs, roots, True, memory.thinned)
            for oid in sorted(wanted - live.keys() - set(memory.stones)):
                return f"the backup lacks {oid}"
    return None
