"""The archive of the journal as a model: entries that are rows, archived, or neither.

Invariant: a state is one immutable value; what the actors do in one transaction is one step. A
segment holds one entry. `cas/objects/archive.py` is the code, docs/design/027-old-entries.md the
reasons. Actors: who commits, who mirrors, who forks, the archiver, and a mover (a spill or a
compaction) that gathers packs. Misfortunes: the actors crash, a pack file is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from tests.model.machine import Exploration, Explorer

ENTRIES: Final = 3
KEEP: Final = 1
"""Newest entries that stay rows."""

PACKS: Final = 5
"""Pack files that are written at the most."""


@attrs.frozen
class Rules:
    """What the archive needs to be right; each may be taken away."""

    one_transaction: bool = True  # rows go in the transaction that writes what stands for them
    looks_in_gate: bool = True  # copies and limits are judged again in that transaction
    two_packs: bool = True  # a copy in each of two packs before the rows go
    removal_looks: bool = True  # what the archive rests on is not taken out, whenever it was chosen
    waits_for_mirror: bool = True  # only entries that the mirror has reached
    keeps_newest: bool = True  # never one of the newest
    own_segment_first: bool = True  # not before the lineage has a segment of its own


class Pack(NamedTuple):
    """An installed pack of segments."""

    name: int
    entries: frozenset[int]


class Archived(NamedTuple):
    """What stands for an entry: the names of two packs."""

    seq: int
    pack: int
    other: int


class Work(NamedTuple):
    """What an actor is at: a stage, an entry or pack name, and packs."""

    at: str = "idle"
    number: int = 0
    packs: tuple[int, ...] = ()


class State(NamedTuple):
    """The catalog, the files, and what the actors know."""

    head: int = 0
    rows: frozenset[int] = frozenset()
    archive: tuple[Archived, ...] = ()
    mirrored: int = 0
    covered: int = 0  # the newest entry of which all that it names lies in files
    lineage: int = 1
    forked_at: int = 0
    told: frozenset[tuple[int, int]] = frozenset()  # (lineage, entry) that segments in files say
    packs: tuple[Pack, ...] = ()
    lost: frozenset[int] = frozenset()
    made: int = 0
    archiver: Work = Work()
    mover: Work = Work()
    crashes: int = 1
    losses: int = 1
    forks: int = 1


Steps = Iterator[tuple[str, State]]


def explore(rules: Rules) -> Exploration:
    """Every interleaving under these rules, or up to the first breach."""
    return Explorer(lambda state: steps(rules, state), breach).explore(State())


def steps(rules: Rules, state: State) -> Steps:
    """What may happen next."""
    if state.head < ENTRIES:
        seq = state.head + 1
        yield f"writer commits {seq}", state._replace(head=seq, rows=state.rows | {seq})
    if state.mirrored < state.head:
        told = state.told | {(state.lineage, state.head)}
        reached = state._replace(mirrored=state.head, covered=state.head, told=told)
        yield f"mirror reaches {state.head}", reached
    yield from _archiver(rules, state)
    yield from _mover(rules, state)
    if state.forks and state.head:
        yield (
            f"fork begins at {state.head}",
            state._replace(
                lineage=state.lineage + 1,
                forked_at=state.head,
                mirrored=min(state.mirrored, state.head - 1),
                archiver=Work(),
                mover=Work(),
                forks=state.forks - 1,
            ),
        )
    if state.crashes and (state.archiver, state.mover) != (Work(), Work()):
        after = state._replace(archiver=Work(), mover=Work(), crashes=state.crashes - 1)
        yield "everybody crashes", after
    if state.losses:
        for pack in state.packs:
            after = state._replace(lost=state.lost | {pack.name}, losses=state.losses - 1)
            yield f"pack is-lost: {pack.name}", after


def _archiver(rules: Rules, state: State) -> Steps:
    work = state.archiver
    if work.at == "idle":
        seq = len(state.archive) + 1
        if _may_go(rules, state, seq):
            yield f"archiver begins {seq}", state._replace(archiver=Work("placing", seq))
    elif work.at == "placing":
        yield from _place(rules, state, work)
    elif work.at == "placed":
        if rules.looks_in_gate and not _stands(rules, state, work):
            yield f"archiver gives-up {work.number}", state._replace(archiver=Work())
        elif rules.one_transaction:
            yield f"archiver moves {work.number}", _named(_without_row(state, work), work)
        else:
            gone = _without_row(state, work)._replace(archiver=work._replace(at="removed"))
            yield f"archiver removes {work.number}", gone
    elif work.at == "removed":
        yield f"archiver names {work.number}", _named(state, work)


def _place(rules: Rules, state: State, work: Work) -> Steps:
    """A copy in each of two packs: those that there are, and new ones."""
    there = [p.name for p in state.packs if work.number in p.entries and p.name not in state.lost]
    wanted = 2 if rules.two_packs else 1
    if len(there) >= wanted:
        found = Work("placed", work.number, (there[0], there[wanted - 1]))
        yield f"archiver finds {work.number} in {there}", state._replace(archiver=found)
    elif state.made < PACKS:
        name = state.made + 1
        told = state.told | {(state.lineage, work.number)}
        packs = (*state.packs, Pack(name, frozenset({work.number})))
        yield (
            f"archiver writes {work.number} into {name}",
            state._replace(packs=packs, told=told, made=name),
        )


def _may_go(rules: Rules, state: State, seq: int) -> bool:
    if seq not in state.rows or (rules.keeps_newest and seq > state.head - KEEP):
        return False
    if rules.own_segment_first and state.mirrored < state.forked_at:
        return False
    return seq <= state.mirrored or not rules.waits_for_mirror


def _stands(rules: Rules, state: State, work: Work) -> bool:
    there = {pack.name for pack in state.packs}
    return set(work.packs) <= there and _may_go(rules, state, work.number)


def _without_row(state: State, work: Work) -> State:
    return state._replace(rows=state.rows - {work.number})


def _named(state: State, work: Work) -> State:
    row = Archived(work.number, work.packs[0], work.packs[1])
    return state._replace(archive=(*state.archive, row), archiver=Work())


def _mover(rules: Rules, state: State) -> Steps:
    work = state.mover
    homes = {name for row in state.archive for name in (row.pack, row.other)}
    if work.at == "idle":
        wanted = tuple(
            p.name for p in state.packs if p.name not in homes and p.name not in state.lost
        )
        if len(wanted) > 1 and state.made < PACKS:
            yield f"mover gathers {wanted}", state._replace(mover=Work("gathered", 0, wanted))
    elif work.at == "gathered" and state.made < PACKS:
        name = state.made + 1
        held = frozenset(e for p in state.packs if p.name in work.packs for e in p.entries)
        after = state._replace(
            packs=(*state.packs, Pack(name, held)), made=name, mover=work._replace(at="moved")
        )
        yield f"mover installs {name}", after
    elif work.at == "moved":
        going = set(work.packs) - (homes if rules.removal_looks else set())
        packs = tuple(pack for pack in state.packs if pack.name not in going)
        yield f"mover removes {sorted(going)}", state._replace(packs=packs, mover=Work())


def breach(state: State) -> str | None:
    """What is wrong with a state, in words."""
    readable = {e for pack in state.packs if pack.name not in state.lost for e in pack.entries}
    archived = {row.seq for row in state.archive}
    for seq in range(1, state.head + 1):
        if seq in state.rows:
            continue
        if seq not in archived:
            return f"entry {seq} is neither a row nor archived"
        if seq not in readable:
            return f"entry {seq} lies in no pack that can be read"
        if seq > state.covered:
            return f"entry {seq} is archived, and what it names is in no file"
    if state.head and state.head not in state.rows:
        return f"the newest entry {state.head} is no row"
    newest = max((lineage for lineage, _seq in state.told), default=0)
    tip = max((seq for lineage, seq in state.told if lineage == newest), default=0)
    if tip < state.mirrored:
        return f"a rebuild from packs ends at entry {tip}, and {state.mirrored} was mirrored"
    return None


LOSSES: Final = {
    "one_transaction": "is neither a row nor archived",
    "looks_in_gate": "lies in no pack",
    "two_packs": "lies in no pack",
    "removal_looks": "lies in no pack",
    "waits_for_mirror": "is in no file",
    "keeps_newest": "is no row",
    "own_segment_first": "a rebuild from packs ends",
}
"""Rules, and words of the breach that the loss of each has to show."""


def row_of(rule: str) -> str:
    """A line of the table in docs/design/027-old-entries.md."""
    trace = explore(attrs.evolve(Rules(), **{rule: False})).trace
    assert trace is not None
    return f"| `{rule}` | {len(trace.steps)} | {trace.breach} |"


if __name__ == "__main__":
    found = explore(Rules())
    print(found.states, found.transitions, found.depth, sorted(found.kinds), found.trace)
    for name in LOSSES:
        print(row_of(name))
        print(explore(attrs.evolve(Rules(), **{name: False})).trace)
