"""What must be kept: the roots of one state of the catalog.

Floor 5; implements docs/design/001, "Roots". Invariant: everything that is read here is read in
one state, and what is given is never less than what the rules ask for: targets of refs in every
state inside the horizon, the refs checkpoints that these need, what open sessions began on,
journal segments (the marking finds them by kind), and every blob that any entry names. Pins and
rules are refs.

Where there is a horizon, the state at it is the oldest one that is kept, and the refs tree is
stored there, so that no older checkpoint is needed. What only older states
named is `dropped`: it may be missing already, and it waits for no grace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cas.catalog.catalog import CatalogReader
from cas.errors import CorruptJournal
from cas.history.core import Core
from cas.history.horizon import horizon_at, thinned_commits
from cas.history.tombstones import root_at
from cas.maintenance.gc.told import SegmentsTold, Told, named_in
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind
from cas.model.objects import Commit
from cas.model.values import frozen
from cas.trees.node import REFS

if TYPE_CHECKING:
    from cas.history.retain import RetentionPlan

_ENTRIES: Final = 1024


@frozen
class Roots:
    """Ids that must be kept, and ids that were given up, with the positions they were read at."""

    lineage: bytes
    seq: int
    version: int
    horizon: int
    kept: frozenset[bytes]
    dropped: frozenset[bytes]
    told: str
    """What the store says of its horizon; the same text is the same horizon and thinned set."""
    refs: tuple[tuple[str, int, bytes], ...]
    """Refs as they point now: name, kind, target; all of them are kept."""
    thinned: frozenset[bytes]
    """Commits that have given up their content: no edge leads from them to their trees."""
    anchor: bytes
    """Hash of the newest entry."""
    purged: bytes
    """The directory of all tombstones."""

    @property
    def all_kept(self) -> frozenset[bytes]:
        """`kept`, and what refs point at now."""
        return self.kept.union(target for _name, _kind, target in self.refs)


def read_roots(
    core: Core, reader: CatalogReader, after: int = 0, planned: RetentionPlan | None = None
) -> Roots:
    """All roots of this state; of the journal only what entries behind `after` have added.

    With `planned` those that there would be if that was applied, but for what says so itself.
    Raises `CorruptJournal`, `CorruptCatalog`.
    """
    head = reader.head()
    begun = [session.base_seq for session in reader.sessions()]
    now = core.timeline.now(reader, head)
    told = horizon_at(core, now)
    oldest = told.seq if planned is None else max(told.seq, planned.horizon)
    horizon = min(oldest, head.seq, *begun)
    # While a session looks back further, what it sees is whole, but for what was thinned by then.
    then = now if horizon == oldest else core.timeline.at(reader, horizon)
    thinned = set(thinned_commits(core, horizon_at(core, then)))
    if then is now:
        thinned.update([item.id for item in planned.going] if planned else ())
    else:
        late = set(thinned_commits(core, told)) - thinned
        thinned.update(id for id in late if _is_hollow(core, id))
    kept: set[bytes] = set()
    dropped: set[bytes] = set()
    if horizon and not after:
        moment = core.timeline.at(reader, horizon)
        kept.update(bytes(value.target) for _ref, value in core.timeline.list(moment.root))
    for stored in reader.checkpoints(after):
        if stored.root != REFS.empty:
            (kept if stored.seq >= horizon else dropped).add(stored.root)
    archived = 0
    for found in archived_told(core, reader, after):
        kept.update(found.blobs)
        for seq, target in found.moves:
            (kept if seq > horizon else dropped).add(target)
        archived = found.last_seq
    for entry in entries(reader, max(after, archived)):
        blobs, targets = named_in(entry)
        kept.update(blobs)
        (kept if entry.seq > horizon else dropped).update(targets)
    refs = () if after else core.timeline.list(now.root)
    return Roots(
        reader.lineage(),
        head.seq,
        head.version,
        horizon,
        frozenset(kept),
        frozenset(dropped - kept),
        told.root.hex() if horizon == told.seq else "",
        tuple((ref, value.kind, bytes(value.target)) for ref, value in refs),
        frozenset(map(bytes, thinned)),
        bytes(now.hash),
        root_at(core, now),
    )


def _is_hollow(core: Core, id: CommitId) -> bool:
    """Whether the content of a commit is not there: it came thinned, after a session began."""
    if not core.objects.has(id):
        return True  # nothing led to it, and it went itself
    commit = Commit.decode(core.objects.get(id, Kind.COMMIT), verified=True)
    return not core.objects.has(commit.tree)


def archived_told(core: Core, reader: CatalogReader, after: int) -> Iterator[Told]:
    """What archived entries tell, a segment each, as far as one of its entries is behind `after`.

    Raises `CorruptJournal` where segments do not have the entries that the catalog says.
    """
    segments = SegmentsTold(core.objects)
    before = 0
    for row in reader.archived():
        if row.last_seq > after:
            found = segments.of(row.segment)
            if (found.first_seq, found.last_seq) != (before + 1, row.last_seq):
                raise CorruptJournal(
                    f"What stands for entries {row.first_seq} to {row.last_seq} of the journal is "
                    "not what the catalog says; nothing was collected. Run `cas fsck`.",
                    seq=row.first_seq,
                )
            yield found
        before = row.last_seq


def entries(reader: CatalogReader, after: int) -> Iterator[Entry]:
    """Entries behind `after`, oldest first, their hashes checked."""
    while rows := reader.entries(after, _ENTRIES):
        for row in rows:
            yield Entry.decode(row.entry, verified=True)
        after = rows[-1].seq
