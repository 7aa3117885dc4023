"""Bases that are not worth removing: contents that what stays is stored as a small delta of.

Floor 5. Invariant: what stays for the sake of others takes a small, stated part of what is kept: by
writing a delta whole, all that could be given back is the room of the deltas on its chain, because
the whole copy is written either way. Only blobs stay so; a directory would keep all that it names.
"""

from __future__ import annotations

from cas.limits import GC_BASE_WASTE_MAX
from cas.maintenance.gc.chains import Chains
from cas.maintenance.gc.reach import Marks
from cas.model.ids import Kind


def keep_cheap_bases(marks: Marks, chains: Chains, kept_bytes: int) -> None:
    """Keep the bases of deltas whose rewriting would give back least, as long as all of that is
    a small part of `kept_bytes`, what is kept anyway.
    """
    found: list[tuple[float, int, list[bytes]]] = []
    known: set[bytes] = set()
    for item in marks.lost_bases():
        if item.kind != Kind.BLOB:
            continue
        # One delta of a base becomes whole; the others will be deltas of that.
        spent_bytes = 0 if item.base in known else item.stored_bytes
        known.add(item.base)
        chain = []
        for id, stored_bytes, is_whole in chains.down(item.base):
            chain.append(id)
            if is_whole:
                found.append((spent_bytes / max(1, stored_bytes), spent_bytes, chain))
            spent_bytes += stored_bytes
    left_bytes = int(GC_BASE_WASTE_MAX * kept_bytes)
    wanted: set[bytes] = set()
    for _share, spent_bytes, chain in sorted(found):
        left_bytes -= spent_bytes
        if left_bytes < 0:
            break
        wanted.update(chain)
    marks.keep(wanted, "a delta")
