"""One value for all states that differ only in how far their counters have run.

Invariant: two states with the same canonical value allow the same steps. Versions, pack numbers
and condemn sequences are only ever compared with each other, so they may be replaced by their
ranks; whatever this file does not know it leaves as it is, which can only keep states apart.
Implements docs/design/001-what-the-model-taught.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.model.collectors import Marking
from tests.model.movers import Moving
from tests.model.protocol import Catalog, Packs, State
from tests.model.readers import Reading
from tests.model.writers import Snapshot, Writing

Ranks = Mapping[int, int]


def canonical(state: State) -> State:
    """The state with every counter replaced by its rank; the state itself where nothing changes."""
    versions: set[int] = set()
    condemned: set[int] = set()
    for catalog in (state.catalog, *state.unsynced):
        versions.add(catalog.version)
        condemned.add(catalog.condemn_seq)
        _gather(catalog.packs, versions)
    for memory in state.actors:
        _gather_memory(memory, versions, condemned)
    if state.shared_s0 >= 0:
        condemned.add(state.shared_s0)
    if max(versions) == len(versions) - (0 in versions) and max(condemned) == len(condemned) - 1:
        return state  # every rank is its number already
    v = {version: rank for rank, version in enumerate(sorted(versions), 0 not in versions)}
    c = {number: rank for rank, number in enumerate(sorted(condemned))}
    return state._replace(
        catalog=_catalog(state.catalog, v, c),
        unsynced=tuple(_catalog(catalog, v, c) for catalog in state.unsynced),
        shared_s0=c.get(state.shared_s0, -1),
        actors=tuple(_memory(memory, v, c) for memory in state.actors),
    )


def _gather(packs: Packs, versions: set[int]) -> None:
    for pack in packs:
        versions.add(pack.number)
        versions.add(pack.since)


def _gather_memory(memory: Any, versions: set[int], condemned: set[int]) -> None:
    if isinstance(memory, Writing):
        versions.add(memory.started)
        condemned.add(memory.s0)
        if memory.cache is not None:
            versions.add(memory.cache.version)
            condemned.add(memory.cache.condemn_seq)
            _gather(memory.cache.packs, versions)
    elif isinstance(memory, Marking):
        versions.add(memory.version)
    elif isinstance(memory, Moving):
        versions.add(memory.since)
        versions.update(number for number, _ in memory.sources)
    elif isinstance(memory, Reading):
        _gather(memory.known, versions)
        _gather(memory.listed, versions)
        versions.update(number for number, _ in memory.tried)


def _packs(packs: Packs, v: Ranks) -> Packs:
    return tuple(pack._replace(number=v[pack.number], since=v[pack.since]) for pack in packs)


def _catalog(catalog: Catalog, v: Ranks, c: Ranks) -> Catalog:
    return catalog._replace(
        version=v[catalog.version],
        condemn_seq=c[catalog.condemn_seq],
        packs=_packs(catalog.packs, v),
    )


def _memory(memory: Any, v: Ranks, c: Ranks) -> Any:
    if isinstance(memory, Writing):
        cache = memory.cache
        if cache is not None:
            cache = Snapshot(
                cache.lineage, v[cache.version], c[cache.condemn_seq], _packs(cache.packs, v)
            )
        return memory._replace(started=v[memory.started], s0=c[memory.s0], cache=cache)
    if isinstance(memory, Marking):
        return memory._replace(version=v[memory.version])
    if isinstance(memory, Moving):
        sources = tuple((v[number], slot_no) for number, slot_no in memory.sources)
        return memory._replace(since=v[memory.since], sources=sources)
    if isinstance(memory, Reading):
        tried = tuple((v[number], slot_no) for number, slot_no in memory.tried)
        return memory._replace(
            known=_packs(memory.known, v), listed=_packs(memory.listed, v), tried=tried
        )
    return memory
