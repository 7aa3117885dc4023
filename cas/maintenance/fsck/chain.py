"""The journal: every entry, the chain of their hashes, and the refs that follow from them.

Floor 5; checks docs/format.md sections 5.5 and 7.4. Invariant: the refs are replayed from entry
1 in memory, so that nothing stored has to be believed; where an entry is damaged, the replay
goes on at the next checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cas.catalog.catalog import ArchiveRow, Catalog, CatalogReader, Checkpoint, EntryRow
from cas.errors import CasError, InvalidName, NotCanonical
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.archived import ArchiveCheck
from cas.maintenance.fsck.graph import Graph
from cas.model.entry import Entry, entry_hash, genesis_hash, txid_floor
from cas.model.ids import Kind, ObjectId
from cas.model.names import check_ref_name
from cas.trees.cursor import nodes_of, scan
from cas.trees.edit import apply
from cas.trees.node import REFS, Edit, Node, NodeStore, id_of

_GROUP: Final = 1024
_PRUNE_ENTRIES: Final = 256
_BLIND_MAX: Final = 64
"""Entries that are tried one by one where a group cannot be read."""


class _Nodes:
    """Refs nodes of the replay in memory; what it does not have comes from the store."""

    def __init__(self, stored: NodeStore) -> None:
        self._stored = stored
        self._nodes: dict[bytes, Node] = {}

    def load(self, node_id: bytes) -> Node:
        node = self._nodes.get(node_id)
        return self._stored.load(node_id) if node is None else node

    def save(self, node: Node) -> bytes:
        id = id_of(REFS, node)
        self._nodes[id] = node
        return id

    def keep(self, root: bytes) -> None:
        """Forget what is no part of this tree."""
        self._nodes = dict(nodes_of(REFS, root, self))


class JournalCheck:
    """The journal of one catalog under a check."""

    def __init__(
        self, catalog: Catalog, stored: NodeStore, graph: Graph, findings: Findings
    ) -> None:
        self._catalog = catalog
        self._graph = graph
        self._findings = findings
        self._archive = ArchiveCheck(graph, findings)
        self._nodes = _Nodes(stored)
        self._checkpoints: dict[int, bytes] = {}
        self._previous = genesis_hash(catalog.meta.store_id)
        self._seq = 0
        self._when = (0, -1)
        # Root of the refs after entry `_seq`; None while it cannot be known.
        self._root: bytes | None = REFS.empty
        self._horizon = self._oldest_stored = 0
        self.refs: dict[str, tuple[int, ObjectId]] = {}
        """Where each ref points after the newest entry."""
        self.head_seq = 0
        self.entry_count = 0
        self.newest_us = 0

    def begin(self) -> None:
        """Note what there is now: entries and checkpoints that come later are not judged."""
        try:
            with self._catalog.read() as reader:
                self.head_seq = reader.head().seq
                self._checkpoints = dict(_checkpoints(reader))
                self._archive.begin(reader)
        except CasError as error:
            self._findings.add(
                "catalog-unreadable",
                "journal",
                f"The journal cannot be read ({error}); restore the catalog from a backup.",
            )

    def run(
        self,
        on_entries: Callable[[], None],
        horizon: int = 0,
        single: Sequence[ArchiveRow] = (),
    ) -> None:
        """Check the entries that `begin` has seen. `single`: segments that lack a second copy.

        What refs pointed at only before the state `horizon` need not exist any more.
        """
        head_seq, self._horizon = self.head_seq, horizon
        self._archive.judge(single)
        self._oldest_stored = max([seq for seq in self._checkpoints if seq <= horizon], default=0)
        while self._seq < head_seq:
            rows = self._read(head_seq)
            for row in rows:
                self._check(row)
            on_entries()
        for seq in self._checkpoints:
            if seq > head_seq:
                self._tell("checkpoint", seq, f"A checkpoint names entry {seq}, which is not there")

    def _tell(self, code: str, seq: int, what: str, ids: tuple[bytes, ...] = ()) -> None:
        self._findings.add(code, f"entry {seq}", f"{what}; restore the catalog from a backup.", ids)

    # -- reading -----------------------------------------------------------------------------

    def _read(self, head_seq: int) -> list[EntryRow]:
        """The next entries. Moves over what cannot be read, telling of it."""
        after = self._seq
        try:
            with self._catalog.read() as reader:
                rows = list(reader.entries(after, min(_GROUP, head_seq - after)))
                self._check_txids(reader, rows)
        except CasError:
            rows = self._read_apart(after, head_seq)
        last = rows[-1].seq if rows else head_seq
        found = {row.seq for row in rows}
        missing = [seq for seq in range(after + 1, last + 1) if seq not in found]
        if missing:
            self._break(missing[0], missing[-1], "missing or unreadable")
        if not rows:
            self._seq = head_seq
        return rows

    def _read_apart(self, after: int, head_seq: int) -> list[EntryRow]:
        """The next entries of a segment that can be read, else rows of the journal one by one."""
        while (segment := self._archive.covering(after + 1)) is not None:
            try:
                with self._catalog.read() as reader:
                    rows = list(reader.entries(after, min(_GROUP, segment.last_seq - after)))
                    self._check_txids(reader, rows)
                    return rows
            except CasError:
                after = segment.last_seq
        return self._read_singly(after, head_seq)

    def _read_singly(self, after: int, head_seq: int) -> list[EntryRow]:
        rows: list[EntryRow] = []
        failed = 0
        for seq in range(after + 1, min(after + _GROUP, head_seq) + 1):
            try:
                with self._catalog.read() as reader:
                    row = reader.entry(seq)
                    if row is not None:
                        self._check_txids(reader, [row])
                        rows.append(row)
            except CasError:
                failed += 1
                if failed > _BLIND_MAX:
                    break
        return rows

    def _check_txids(self, reader: CatalogReader, rows: list[EntryRow]) -> None:
        """Whether the column that resolves lost answers names the txid of each entry."""
        for row in rows:
            try:
                txid = Entry.decode(row.entry, verified=True).txid
            except NotCanonical:
                continue  # told of where the entry itself is judged
            keyed = txid_floor(txid) is None
            if not keyed and row.seq <= self._archive.upto:
                continue  # no column says it: it is looked for in the segment itself
            if reader.find_txid(txid, None if keyed else row.seq - 1) != row.seq:
                self._tell(
                    "journal-row",
                    row.seq,
                    f"The transaction id beside entry {row.seq} is not the one in it",
                )

    # -- judging -----------------------------------------------------------------------------

    def _break(self, first: int, last: int, what: str) -> None:
        """Entries from `first` to `last` say nothing that can be believed."""
        span = (
            f"Entry {first} of the journal is"
            if first == last
            else (f"Entries {first} to {last} of the journal are")
        )
        self._tell("journal-entry", first, f"{span} {what}")
        self._root = None

    def _check(self, row: EntryRow) -> None:
        self.entry_count += 1
        whole = entry_hash(row.entry) == row.hash
        previous, self._previous = self._previous, row.hash
        gap = row.seq != self._seq + 1
        self._seq = row.seq
        if not whole:
            self._break(row.seq, row.seq, "damaged: its bytes do not match its hash")
            return
        try:
            entry = Entry.decode(row.entry)
        except NotCanonical as error:
            self._findings.add(
                "not-canonical",
                f"entry {row.seq}",
                f"Entry {row.seq} of the journal is no entry of the format ({error}); it was "
                "written by a faulty program: restore the catalog from a backup.",
            )
            self._root = None
            return
        self._judge(entry, row, None if gap else previous)

    def _judge(self, entry: Entry, row: EntryRow, previous: bytes | None) -> None:
        seq = row.seq
        if entry.seq != seq:
            self._tell("journal-row", seq, f"Entry {entry.seq} lies at place {seq} of the journal")
        if previous is not None and entry.previous != previous:
            self._tell("journal-chain", seq, f"Entry {seq} does not follow the entry before it")
        self._archive.compare(entry)
        when = entry.epoch, entry.time_us
        if when <= self._when or entry.time_us < entry.wall_us:
            self._tell("journal-chain", seq, f"The time of entry {seq} runs backwards")
        self._when = max(when, self._when)
        self.newest_us = max(self.newest_us, entry.time_us)
        self._judge_changes(entry)
        for event in entry.events:
            if event.blob is not None:
                self._graph.expect(event.blob, Kind.BLOB, f"an event of entry {seq}")
        self._judge_root(entry)

    def _judge_changes(self, entry: Entry) -> None:
        for change in entry.changes:
            known = self.refs.get(change.ref, (0, None))[1]
            if self._root is not None and known != change.old:
                self._tell(
                    "journal-chain",
                    entry.seq,
                    f"Entry {entry.seq} moves {change.ref} from where it was not",
                )
            if change.new is None:
                self.refs.pop(change.ref, None)
                continue
            self.refs[change.ref] = change.kind, change.new
            if entry.seq > self._horizon:
                self._graph.expect(change.new, change.kind, f"{change.ref} in entry {entry.seq}")
            try:
                check_ref_name(change.ref)
            except InvalidName as error:
                self._tell("ref-name", entry.seq, str(error).rstrip("."))
        if entry.seq == self._horizon:
            for ref, (kind, target) in self.refs.items():
                self._graph.expect(target, kind, f"{ref} after entry {entry.seq}")

    def _judge_root(self, entry: Entry) -> None:
        """Compare the root with what the changes give; begin again at a checkpoint if need be."""
        seq = entry.seq
        if self._root is not None:
            edits: list[Edit] = [
                (c.ref.encode(), None if c.new is None else (c.kind, c.new, seq))
                for c in entry.changes
            ]
            try:
                self._root = (
                    apply(REFS, self._root, edits, self._nodes).root if edits else self._root
                )
            except CasError as error:
                self._tell(
                    "journal-root", seq, f"The refs cannot be followed to entry {seq} ({error})"
                )
                self._root = None
        if self._root is not None and self._root != entry.root:
            self._tell("journal-root", seq, f"Entry {seq} names another root than its changes give")
            self._root = None
        stored = self._checkpoints.pop(seq, None)
        if stored is not None:
            self._judge_checkpoint(Checkpoint(seq, stored), entry)
        if self._root is not None and seq % _PRUNE_ENTRIES == 0:
            self._nodes.keep(self._root)

    def _judge_checkpoint(self, checkpoint: Checkpoint, entry: Entry) -> None:
        seq = checkpoint.seq
        if checkpoint.root != entry.root:
            self._tell("checkpoint", seq, f"The checkpoint at entry {seq} names another root")
            return
        if checkpoint.root != REFS.empty and seq >= self._oldest_stored:
            self._graph.expect(checkpoint.root, Kind.REFS, f"the checkpoint at entry {seq}")
        if self._root is None:
            try:
                found = list(scan(REFS, checkpoint.root, self._nodes))
            except CasError:
                return  # its nodes were told of; the next checkpoint may be whole
            self.refs = {name.decode(): (tag, ObjectId(id)) for name, (tag, id, _seq) in found}
            self._root = checkpoint.root


def _checkpoints(reader: CatalogReader) -> Iterator[tuple[int, bytes]]:
    """(seq, root) of every checkpoint, the newest first."""
    at = 1 << 62
    while (found := reader.checkpoint(at)) is not None and found.seq > 0:
        yield found.seq, found.root
        at = found.seq - 1
