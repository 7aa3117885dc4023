"""What new objects name and do not bring: looked up again where something was condemned (E6).

Floor 3; implements docs/design/001, rules E6 and "Deltas". Invariant: what passes here exists in
the state of the transaction that installs the new objects, in a copy of the rank that they need:
a base of less depth than what is made of it, a chunk that is no recipe itself. That an id exists
is not enough for these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cas.errors import Condemned
from cas.limits import DELTA_DEPTH_MAX
from cas.model.ids import Kind
from cas.objects.children import children
from cas.objects.lookup import Lookup
from cas.storage.codec import RECIPE

PLAIN: Final = DELTA_DEPTH_MAX + 1
"""Rank that every copy is below which is no recipe."""
ANY: Final = PLAIN + 1
"""Rank that every copy is below."""


_PLANNED_FROM: Final = 256
"""Ids that are asked for one by one before a plan of the look-up pays for being made."""


class Finder:
    """What the store has, for one batch. One thread.

    Nothing counts that was condemned before the batch found anything, however old the snapshot:
    else all that it put would be refused, for something that was over when it began.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._kept_up = False
        self._asked_count = 0

    def has(self, id: bytes) -> bool:
        """Whether the store has `id`, as far as the index knows."""
        has = self._lookup.has
        self._asked_count += 1
        if self._asked_count > _PLANNED_FROM and self._lookup.plan is None:
            self._lookup.make_plan()
        return has(id) and (not self._moved() or has(id))

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those of `ids` that `has` says yes to, in one go."""
        known = self._lookup.known(ids)
        return self._lookup.known(ids) if known and self._moved() else known

    def _moved(self) -> bool:
        if self._kept_up:
            return False
        self._kept_up = True
        return self._lookup.keep_up()


def named_by(
    hits: Iterable[bytes],
    staged: Iterable[tuple[int, bytes]],
    purged: frozenset[bytes] = frozenset(),
) -> dict[bytes, int]:
    """What was found, and what structured objects (kind, content) name, each with the rank that
    a copy of it has to be below. What names a purged object goes on naming it; a recipe cannot.
    """
    named = dict.fromkeys(hits, ANY)
    for kind, content in staged:
        rank = PLAIN if kind == Kind.RECIPE else ANY
        for child in children(kind, content):
            if rank == PLAIN or child not in purged:
                named[child] = min(rank, named.get(child, ANY))
    return named


def check_relied(
    lookup: Lookup,
    hits: Iterable[bytes],
    staged: Iterable[tuple[int, bytes]],
    purged: frozenset[bytes],
    needs: Mapping[bytes, int],
    holds: Callable[[bytes], bool],
) -> None:
    """Raise `Condemned` for the first that has no copy of less than its rank.

    `needs` are bases and dictionaries, with their ranks; they are never written with what is made
    of them, and come first, because without them what is `staged` could not be read. `holds` says
    what the transaction writes itself. The snapshot of `lookup` must be that of the transaction.
    """
    for id, rank in needs.items():
        if not _has_copy(lookup, id, rank):
            raise _condemned(id)
    for id, rank in named_by(hits, staged, purged).items():
        if not holds(id) and not _has_copy(lookup, id, rank):
            raise _condemned(id)


def _has_copy(lookup: Lookup, id: bytes, rank: int) -> bool:
    if not lookup.exists(id):
        return False
    return rank == ANY or any(
        slot.codec != RECIPE and slot.depth < rank for _pack, slot in lookup.copies(id)
    )


def _condemned(id: bytes) -> Condemned:
    return Condemned(
        f"Object {id.hex()} was condemned while this transaction ran, for nothing led to it; "
        "nothing was committed. Put it again, then begin the transaction again.",
        id=id,
    )
