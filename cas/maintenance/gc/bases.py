"""Bases that are not worth removing: contents that what stays is stored as a small delta of.

Floor 5. Invariant: what stays for the sake of others takes a small, stated part of what a fresh
store would take. Only blobs stay so; a directory would keep all that it names.

Of a family (deltas whose chains end at one whole object) the newest becomes whole where it is
stored anew, and the others become deltas of that. So the whole object at the end costs nothing if
it stays: what could be given back is the room of the newest delta, and of those in between.
"""

from __future__ import annotations

from cas.limits import GC_BASE_WASTE_MAX
from cas.maintenance.gc.chains import Chains
from cas.maintenance.gc.colors import Lost
from cas.maintenance.gc.reach import Marks
from cas.model.ids import Kind


class _Family:
    """`spared`: what need not be read, made smaller and written if the bases stay, in bytes."""

    def __init__(self, end_bytes: int) -> None:
        self.end_bytes = end_bytes
        self.between: dict[bytes, int] = {}
        self.newest: Lost | None = None
        self.spared_bytes = 0

    def take(self, item: Lost) -> None:
        self.spared_bytes += item.raw_bytes
        if self.newest is None or item.number > self.newest.number:
            self.newest = item

    @property
    def spent_bytes(self) -> int:
        assert self.newest is not None
        return self.newest.stored_bytes + sum(self.between.values())


def keep_cheap_bases(marks: Marks, chains: Chains, kept_bytes: int) -> None:
    """Keep the bases of families that take least for the work that they spare, as long as all of
    that is a small part of a fresh store: `kept_bytes`, what is kept anyway, and whole copies.
    """
    families: dict[bytes, _Family] = {}
    for item in marks.lost_bases():
        if item.kind != Kind.BLOB or not (steps := list(chains.down(item.base))):
            continue
        *between, (end, end_bytes, is_whole) = steps
        if not is_whole:
            continue
        family = families.setdefault(end, _Family(end_bytes))
        family.between.update((id, size_bytes) for id, size_bytes, _whole in between)
        family.take(item)
    fresh_bytes = kept_bytes + sum(family.end_bytes for family in families.values())
    left_bytes = int(GC_BASE_WASTE_MAX * fresh_bytes)
    wanted: set[bytes] = set()
    for end, family in sorted(families.items(), key=_share):
        left_bytes -= family.spent_bytes
        if left_bytes < 0:
            break
        wanted.update(family.between, (end,))
    marks.keep(wanted, "a delta")


def _share(found: tuple[bytes, _Family]) -> float:
    family = found[1]
    return family.spent_bytes / max(1, family.spared_bytes)
