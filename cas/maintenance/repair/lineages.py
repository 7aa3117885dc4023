"""Which journal is the newest, of all that segments and a catalog hold of it.

Floor 5; implements the choice of docs/format.md section 5.6 and docs/design/001, 4.8. Invariant: a
pure function of what was found. The newest lineage is one that no other came from; its newest entry
is the tip, and the journal is what the hashes lead back to from there. Where two claim to be the
newest and neither leads back to the other, both are shown and nobody chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from cas.catalog.catalog import EntryRow
from cas.errors import NotCanonical
from cas.model.entry import Entry, entry_hash
from cas.model.segment import Segment, split_ancestry


@frozen
class Claim:
    """What one place says of the journal: entries, and whose lineage they are of.

    `source` is the pack or catalog that says so.
    """

    source: str
    lineage: bytes
    ancestry: bytes
    entries: tuple[bytes, ...]


@frozen
class Tip:
    """A newest entry: where a journal may end. `hash` is empty before entry 1."""

    lineage: bytes
    ancestry: bytes
    seq: int
    hash: bytes
    source: str


@frozen
class Journal:
    """The journal as it can be had: rows ascending by seq, up to `tip`.

    `gap` are the first and last seq that are missing in it, None where it is whole.
    """

    tip: Tip | None
    rows: tuple[EntryRow, ...]
    gap: tuple[int, int] | None = None


@frozen
class Disagreement:
    """Two or more tips of which none is older than another."""

    tips: tuple[Tip, ...]


def claim_of(segment: Segment, source: str) -> Claim:
    """What a segment says."""
    return Claim(source, segment.lineage, segment.ancestry, segment.entries)


def choose(claims: Sequence[Claim], prefer: str = "") -> Journal | Disagreement:
    """The newest journal of these claims. `prefer`: hash (or the first digits of it) of the tip
    to take where they disagree.
    """
    pool: dict[bytes, EntryRow] = {}
    previous: dict[bytes, bytes] = {}
    tips: dict[tuple[bytes, bytes], Tip] = {}
    older = {old for claim in claims for old, _seq in split_ancestry(claim.ancestry)}
    for claim in claims:
        last: EntryRow | None = None
        for data in claim.entries:
            last = _take(data, pool, previous) or last
        seq, hash = (last.seq, last.hash) if last is not None else (0, b"")
        tip = Tip(claim.lineage, claim.ancestry, seq, hash, claim.source)
        tips.setdefault((claim.lineage, hash), tip)
    newest = [tip for tip in tips.values() if tip.lineage not in older]
    ends = _ends(newest or list(tips.values()), pool, previous)
    if prefer:
        ends = [tip for tip in ends if tip.hash.hex().startswith(prefer.lower())]
    if len(ends) > 1:
        return Disagreement(tuple(sorted(ends, key=lambda tip: (tip.seq, tip.hash))))
    return _journal(ends[0], pool, previous) if ends else Journal(None, ())


def _take(
    data: bytes, pool: dict[bytes, EntryRow], previous: dict[bytes, bytes]
) -> EntryRow | None:
    hash = entry_hash(data)
    known = pool.get(hash)
    if known is not None:
        return known
    try:
        entry = Entry.decode(data, verified=True)
    except NotCanonical:
        return None
    row = pool[hash] = EntryRow(entry.seq, hash, data)
    previous[hash] = entry.previous
    return row


def _ends(
    tips: Iterable[Tip], pool: Mapping[bytes, EntryRow], previous: Mapping[bytes, bytes]
) -> list[Tip]:
    """Those of `tips` that none of the others leads back to."""
    order = sorted(tips, key=lambda tip: -tip.seq)
    ends: list[Tip] = []
    covered: set[bytes] = set()
    reach: list[int] = []
    for tip in order:
        if tip.hash in covered or (not tip.hash and ends):
            continue
        # An entry that nothing leads back to because the ones between are lost is no other
        # history: only an entry that stands beside another one of its number is.
        if ends and all(tip.seq < low for low in reach):
            continue
        ends.append(tip)
        at, low = tip.hash, tip.seq
        while at in pool and at not in covered:
            covered.add(at)
            low = pool[at].seq
            at = previous[at]
        reach.append(low)
    return ends


def _journal(tip: Tip, pool: Mapping[bytes, EntryRow], previous: Mapping[bytes, bytes]) -> Journal:
    rows: list[EntryRow] = []
    at = tip.hash
    while at in pool:
        rows.append(pool[at])
        at = previous[at]
    low = rows[-1].seq if rows else 1
    if low <= 1:
        return Journal(tip, tuple(reversed(rows)))
    # What lies before the gap is kept as far as it follows from its own end.
    before = [row for row in pool.values() if row.seq < low]
    top = max(before, key=lambda row: row.seq, default=None)
    first = 0
    if top is not None:
        first, at = top.seq, top.hash
        while at in pool:
            rows.append(pool[at])
            at = previous[at]
    return Journal(tip, tuple(reversed(rows)), (first + 1, low - 1))
