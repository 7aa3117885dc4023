"""Plan a catalog that is made again from packs, and from what the old one still gives.

Floor 5; implements docs/design/001, "Rebuild", and docs/format.md section 5.6. Invariant: a plan
is a value and has written nothing; it names every copy that its catalog will hold, and says what is
lost and why. `renewal` carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from attrs import field, frozen

from cas.errors import CasError, NotCanonical
from cas.history.core import CommitCache, Core
from cas.history.horizon import read_horizon
from cas.history.timeline import Timeline
from cas.history.tombstones import ids_below
from cas.maintenance.repair.admission import Admission, Survey, admit, bits_of, reach
from cas.maintenance.repair.evidence import Evidence
from cas.maintenance.repair.lineages import Claim, Disagreement, Journal, Tip, choose, claim_of
from cas.model.entry import Entry
from cas.model.ids import Kind, ObjectId
from cas.model.names import HORIZON_REF, PURGED_REF
from cas.model.segment import Segment
from cas.trees.cursor import nodes_of, scan
from cas.trees.edit import apply
from cas.trees.node import DIRECTORY, EMPTY_DATA, REFS, Node, NodeStore, id_of

_BLOB: Final = int(Kind.BLOB)
NAMED_MAX: Final = 1000
"""Ids that a plan spells out."""

RefState = Mapping[str, tuple[int, bytes, int]]
"""Where refs point: kind, target, seq of the last change."""


@frozen
class Refs:
    """The refs after the newest entry, the nodes of their tree, and whether its root is the one
    that the entry names.
    """

    state: RefState
    root: bytes
    nodes: tuple[tuple[bytes, bytes], ...]
    proved: bool


@frozen
class Rebuild:
    """What the new catalog would hold.

    `journal` is None with a `disagreement`. `broken` names refs whose target is not whole;
    `loose` are blobs, and `given_up` objects of all kinds, that no entry leads to and that stay
    out; `missing` is what is named and not there. `lost_seq` is the newest entry that the old
    catalog is known to have had and that is not in the journal, else None. `undecided` says that
    nobody has told what becomes of what stays out, and no catalog can; `heads` are the commits
    among it, and among what was kept of it, that no other commit goes on from. `returned_count`
    counts what exists again although the old catalog says that it does not.
    """

    evidence: Evidence
    journal: Journal | None
    disagreement: Disagreement | None = None
    refs: Refs | None = None
    admission: Admission = field(factory=lambda: Admission(set(), set(), set()))
    alive: set[bytes] = field(factory=set)
    broken: tuple[str, ...] = ()
    loose: tuple[ObjectId, ...] = ()
    given_up_count: int = 0
    checkpoints: tuple[tuple[int, bytes], ...] = ()
    mirrored_seq: int = 0
    undecided: bool = False
    heads: tuple[ObjectId, ...] = ()
    returned_count: int = 0

    @property
    def tip(self) -> Tip | None:
        """The newest entry."""
        return None if self.journal is None else self.journal.tip

    @property
    def object_count(self) -> int:
        """Objects that exist afterwards."""
        return len(self.alive)


class _Nodes:
    """Refs nodes in memory, and those that packs hold."""

    def __init__(self, stored: NodeStore) -> None:
        self._stored = stored
        self.made: dict[bytes, Node] = {}

    def load(self, node_id: bytes) -> Node:
        node = self.made.get(node_id)
        return self._stored.load(node_id) if node is None else node

    def save(self, node: Node) -> bytes:
        id = id_of(REFS, node)
        self.made[id] = node
        return id


def plan_rebuild(
    evidence: Evidence,
    *,
    prefer: str = "",
    upto: int | None = None,
    keep_loose: bool | None = None,
    accept_loss: bool = False,
) -> Rebuild:
    """What a catalog made from this evidence holds.

    `prefer` chooses between journals that disagree, by the hash of their newest entry. `upto` ends
    the journal at an earlier entry than its newest.
    `keep_loose`: whether what no entry leads to is kept, but for what was purged; None keeps what
    a readable catalog says exists, and all of it where one is there that cannot tell. Without a
    catalog nobody can tell it from what was given up: that it stays out is `undecided` then.
    `accept_loss` admits what is reached even where something below it is missing.
    """
    found = evidence.found
    chosen = choose(_claims(evidence), prefer)
    if isinstance(chosen, Disagreement):
        return Rebuild(evidence, None, chosen)
    if upto is not None:
        chosen = _cut(chosen, upto)
    entries = [Entry.decode(row.entry, verified=True) for row in chosen.rows]
    refs = _refs(evidence, chosen, entries)
    thinned = thinned_by(evidence, refs)
    purged = purged_by(evidence, refs)
    admission = admit(found, thinned, purged)
    allowed = admission.admitted
    if accept_loss:
        allowed = admission.admitted | admission.incomplete
    roots = list(_roots(chosen, entries, found, refs))
    alive = reach(found, allowed, roots)
    rest = admission.admitted - alive
    heads = tuple(_heads(found, rest))
    blind = evidence.live is None and evidence.remains.is_store
    if keep_loose or (blind and keep_loose is None):
        kept = rest - purged
    else:
        kept = rest & evidence.live if evidence.live is not None else set()
    returned = 0
    if kept:
        returned = 0 if evidence.live is None else len(kept - evidence.live)
        alive |= reach(found, allowed, kept)
        rest -= alive
    broken = tuple(
        sorted(ref for ref, (_kind, target, _seq) in refs.state.items() if target not in alive)
        if not accept_loss
        else sorted(r for r, v in refs.state.items() if v[1] in admission.incomplete)
    )
    return Rebuild(
        evidence,
        chosen,
        None,
        refs,
        admission,
        alive,
        broken,
        tuple(_loose(found, rest)),
        len(rest),
        tuple(
            (entry.seq, entry.root)
            for entry in entries
            if entry.root in found.refs_nodes and entry.root in alive
        ),
        _mirrored(evidence, chosen),
        keep_loose is None and not evidence.remains.is_store and not _is_upkeep(found, rest),
        heads,
        returned,
    )


def vectors(plan: Rebuild) -> dict[int, bytes]:
    """Deletion vectors of the new catalog, by number in the provisional one."""
    found = plan.evidence.found
    pairs = ((s.pack.number, bits_of(found, s, plan.alive)) for s in found.sources)
    return {number: bits for number, bits in pairs if bits is not None}


def _claims(evidence: Evidence) -> list[Claim]:
    claims = []
    for _id, content, label in evidence.found.segments:
        try:
            claims.append(claim_of(Segment.decode(content, verified=True), label))
        except NotCanonical:
            continue
    remains = evidence.remains
    lineage, ancestry = remains.meta.get("lineage_id"), remains.meta.get("ancestry")
    if remains.entries:
        # Without its lineage the catalog's entries still go on from where segments end.
        newest = max(claims, key=lambda claim: len(claim.ancestry), default=None)
        if type(lineage) is not bytes:
            lineage = newest.lineage if newest is not None else bytes(16)
            ancestry = newest.ancestry if newest is not None else b""
        told = ancestry if type(ancestry) is bytes and len(ancestry) % 24 == 0 else b""
        data = tuple(row.entry for row in remains.entries)
        claims.append(Claim("the old catalog", lineage, told, data))
    return claims


def _mirrored(evidence: Evidence, journal: Journal) -> int:
    """The entry up to which segments hold the journal without a gap."""
    held: set[bytes] = set()
    for _id, content, _label in evidence.found.segments:
        held.update(Segment.decode(content, verified=True).entries)
    seq = 0
    for row in journal.rows:
        if row.seq != seq + 1 or row.entry not in held:
            break
        seq = row.seq
    return seq


def _cut(journal: Journal, upto: int) -> Journal:
    """The journal up to an entry; all of it where there is no such entry."""
    rows = tuple(row for row in journal.rows if row.seq <= upto)
    tip = journal.tip
    if tip is None or not rows or len(rows) == len(journal.rows):
        return journal
    ended = Tip(tip.lineage, tip.ancestry, rows[-1].seq, rows[-1].hash, tip.source)
    gap = journal.gap
    return Journal(ended, rows, gap if gap is None or gap[1] < rows[-1].seq else None)


# -- refs --------------------------------------------------------------------------------------


def _refs(evidence: Evidence, journal: Journal, entries: list[Entry]) -> Refs:
    """The refs as the entries leave them, from a stored tree on where some are missing."""
    nodes = _Nodes(evidence.objects.tree_nodes(REFS))
    state: dict[str, tuple[int, bytes, int]] = {}
    start = 0
    if journal.gap is not None:
        state, start = _stored_state(evidence, journal.gap[1], entries, nodes)
    for entry in entries:
        if entry.seq > start:
            for change in entry.changes:
                if change.new is None:
                    state.pop(change.ref, None)
                else:
                    state[change.ref] = change.kind, change.new, entry.seq
    edits = sorted((ref.encode(), value) for ref, value in state.items())
    root = apply(REFS, REFS.empty, edits, nodes).root if edits else REFS.empty
    if root == REFS.empty:
        made: tuple[tuple[bytes, bytes], ...] = ((root, EMPTY_DATA),)
    else:
        made = tuple((id, node.data) for id, node in nodes_of(REFS, root, nodes))
    proved = not entries or entries[-1].root == root
    return Refs(state, root, made, proved)


def _stored_state(
    evidence: Evidence, gap_end: int, entries: list[Entry], nodes: _Nodes
) -> tuple[dict[str, tuple[int, bytes, int]], int]:
    """The refs of the first state behind a gap whose tree packs hold; nothing where none is."""
    for entry in entries:
        if entry.seq > gap_end and entry.root in evidence.found.refs_nodes:
            try:
                found = list(scan(REFS, entry.root, nodes))
            except CasError:
                continue
            return {name.decode(): value for name, value in found}, entry.seq
    return {}, 0


def _roots(
    journal: Journal, entries: Iterable[Entry], found: Survey, refs: Refs
) -> Iterable[bytes]:
    for entry in entries:
        yield entry.root
        for change in entry.changes:
            if change.new is not None:
                yield change.new
            if change.old is not None:
                yield change.old
        for event in entry.events:
            if event.blob is not None:
                yield event.blob
    for _kind, target, _seq in refs.state.values():
        yield target
    held = {row.entry for row in journal.rows}
    for id, content, _label in found.segments:
        if held.issuperset(Segment.decode(content, verified=True).entries):
            yield id


def thinned_by(evidence: Evidence, refs: Refs) -> Callable[[bytes], bool]:
    """Whether a commit has given up its content, as the refs say."""
    value = refs.state.get(HORIZON_REF)
    if value is None:
        return lambda _id: False
    objects = evidence.objects
    try:
        horizon = read_horizon(core_of(evidence), None, value[1])
        names = {
            name for name, _v in scan(DIRECTORY, horizon.thinned, objects.tree_nodes(DIRECTORY))
        }
    except CasError:
        return lambda _id: False
    return partial(_is_among, frozenset(names))


def purged_by(evidence: Evidence, refs: Refs) -> frozenset[bytes]:
    """What was purged, as the refs say."""
    value = refs.state.get(PURGED_REF)
    if value is None:
        return frozenset()
    try:
        return ids_below(core_of(evidence), value[1])
    except CasError:
        return frozenset()


def core_of(evidence: Evidence) -> Core:
    """What reads commits, horizons and tombstones out of what was gathered."""
    objects = evidence.objects
    return Core(objects, Timeline(objects), CommitCache(objects))


def _is_among(names: frozenset[bytes], id: bytes) -> bool:
    return id.hex().encode() in names


def _heads(found: Survey, rest: set[bytes]) -> Iterable[ObjectId]:
    """Commits of `rest` that no other commit there is goes on from: ends of lost branches."""
    loose = found.commits.keys() & rest
    parents = {parent for id in loose for parent in found.commits[id]}
    return [ObjectId(id) for id in sorted(loose - parents)[:NAMED_MAX]]


def _is_upkeep(found: Survey, rest: set[bytes]) -> bool:
    """Whether `rest` is nothing but trees of refs and segments: nobody would miss them."""
    segments = {id for id, _content, _label in found.segments}
    return rest <= found.refs_nodes | segments


def _loose(found: Survey, rest: set[bytes]) -> Iterable[ObjectId]:
    """Some blobs among what stays out: puts that nobody had named yet, perhaps."""
    count = 0
    for source in found.sources if rest else ():
        for id, _o, _s, _r, kind, *_ in source.footer.rows():
            if kind == _BLOB and id in rest:
                yield ObjectId(id)
                count += 1
                if count == NAMED_MAX:
                    return
