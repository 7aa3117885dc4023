"""What actors are, the acts they share (commit, write, sync, unlink), and words for traces.

Invariant: one step is what one catalog transaction, one look at the bucket or one change of it
does; between two steps of an actor anything else may happen. An actor's memory is all it knows.
Implements docs/design/001-what-the-model-taught.md, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from tests.model.protocol import (
    RECIPE,
    SYNCED,
    UNLINKED,
    UNSYNCED,
    Catalog,
    Copy,
    File,
    Segment,
    Slot,
    State,
    World,
)

Steps = Iterator[tuple[str, State]]


class Actor(Protocol):
    """Something that takes steps; `crashed` gives the memory after a crash, None if no change."""

    @property
    def name(self) -> str: ...

    def start(self) -> Any: ...

    def steps(self, world: World, state: State, me: int) -> Steps: ...

    def crashed(self, memory: Any) -> Any | None: ...


def remember(state: State, me: int, memory: Any) -> State:
    """The state in which actor number `me` knows `memory`."""
    return state._replace(actors=(*state.actors[:me], memory, *state.actors[me + 1 :]))


def transact(world: World, state: State, catalog: Catalog) -> State:
    """Commit a catalog transaction. In relaxed mode a power loss may still undo it."""
    unsynced = (*state.unsynced, state.catalog) if world.relaxed else ()
    return state._replace(catalog=catalog, unsynced=unsynced)


def write_file(
    state: State, name: str, slots: tuple[Slot, ...], owner: str, segment: Segment | None = None
) -> State:
    """Put a file, never over another: of a name that is taken, the file there is kept."""
    if any(file.name == name and file.status != UNLINKED for file in state.files):
        return state
    others = tuple(file for file in state.files if file.name != name)
    new = File(name, slots, owner, UNSYNCED, segment)
    return state._replace(files=tuple(sorted((*others, new))))


def sync_file(state: State, name: str) -> State:
    """Make the bytes of a file and its name durable."""
    files = tuple(
        file._replace(status=SYNCED) if file.name == name and file.status == UNSYNCED else file
        for file in state.files
    )
    return state._replace(files=files)


def bits(copies: list[Copy]) -> dict[int, int]:
    """Vectors that set the bits of some copies, by pack number."""
    dead: dict[int, int] = {}
    for copy in copies:
        dead[copy.number] = dead.get(copy.number, 0) | 1 << copy.slot_no
    return dead


def unlinked(world: World, state: State, name: str) -> State:
    """The file has gone; where power may fail, its folder is not synced yet."""
    files = []
    for file in state.files:
        if file.name != name:
            files.append(file)
        elif world.power and file.status == SYNCED:
            files.append(file._replace(status=UNLINKED))
    return state._replace(files=tuple(files))


def names(oids: Iterable[str]) -> str:
    """Ids in a trace."""
    return " ".join(sorted(oids)) or "nothing"


def named(copies: list[Copy]) -> str:
    """Copies in a trace: slot and place."""
    return ", ".join(f"{shown(copy.slot)} in pack {copy.number}" for copy in copies)


def shown(slot: Slot) -> str:
    """A slot in a trace: `A`, `A<B:1` for a delta of depth 1 on B, `X@R` for a copy by recipe."""
    if slot.rank == RECIPE:
        return f"{slot.oid}@{slot.base}"
    return f"{slot.oid}<{slot.base}:{slot.rank}" if slot.base else slot.oid
