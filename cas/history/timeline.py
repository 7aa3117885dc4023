"""The journal and the refs tree that follows from it.

Floor 4; implements docs/format.md sections 5.5 and 7.4. Invariant: a `Moment` is reached only
by applying entries whose hashes chain and whose roots are what applying their changes gives, so
whoever holds a moment has verified the refs it shows, back to a stored checkpoint.

Moments are values: threads share them, and a commit that fails leaves the old one in place.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from cas.catalog.catalog import NUMBER_MAX, CatalogReader, EntryRow, Head
from cas.errors import CorruptJournal, EntryNotFound, ObjectNotFound, RefExists
from cas.history.refnodes import RefNodes
from cas.model.entry import Entry, RefChange, entry_hash
from cas.model.ids import ObjectId
from cas.model.names import POLICIES
from cas.objects.store import ObjectStore
from cas.trees.cursor import get, nodes_of, scan
from cas.trees.edit import apply
from cas.trees.node import REFS, Edit, Node, NodeStore, Value, load_root
from cas.trees.splice import replace_value

_T = TypeVar("_T")

_REF_ENTRY_BYTES = 100
"""About what one change adds to the entries that a reader replays."""

_GROUP = 1024
"""Entries read in one state of the catalog."""

_VALUES_MAX = 64
"""Values of refs remembered beside the tree they stand in."""


class RefValue(NamedTuple):
    """Where a ref points, and the entry that moved it last."""

    kind: int
    target: ObjectId
    seq: int


class Moment(NamedTuple):
    """The state after entry `seq`: its hash and time, and the root of the refs tree.

    `stored_seq` is the newest checkpoint at or before it; `replay_bytes` about what the changes
    since then weigh.
    """

    seq: int
    hash: bytes
    time_us: int
    epoch: int
    root: bytes
    stored_seq: int
    replay_bytes: int


class Timeline:
    """Follows the journal of one store. Any thread; moves forward behind a lock."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.nodes = RefNodes(objects)
        self._lock = threading.RLock()
        self._moment: Moment | None = None
        # A mark of the catalog, and the moment that was the newest when it was read.
        self._marked: tuple[int, Moment | None] = (0, None)
        # Values of refs that were asked for in one refs tree: its root, and what it holds.
        self._values: tuple[bytes, dict[str, RefValue | None]] = (b"", {})
        self.unruled = b""
        """Root of a refs tree without any ref that says what a store goes by."""

    # -- where the journal is ----------------------------------------------------------------

    def now(self, reader: CatalogReader | None = None, head: Head | None = None) -> Moment:
        """The newest moment in the catalog (in the state of `reader` when given).

        Raises `CorruptJournal` when the chain, an entry or a root does not hold.
        """
        if reader is None:
            known, moment = self._marked
            mark = self._objects.catalog.mark()
            if moment is not None and mark and mark == known:
                return moment
            moment = self._moment
            # Another mark is a commit of somebody, most likely an entry: no need to ask first.
            if moment is None or mark or not self._catch_up(moment):
                with self._objects.catalog.read() as own:
                    self.now(own)
            moment = self._moment
            assert moment is not None
            self._marked = mark, moment
            return moment
        head, moment = head or reader.head(), self._moment
        if moment is not None and moment.seq == head.seq and moment.hash == head.hash:
            return moment
        with self._lock:
            moment = self._moment
            if (
                moment is None
                or head.seq - moment.seq > self._objects.thresholds.checkpoint_entries
            ):
                self.nodes.rotate()
                moment = self._at(reader, head.seq, self.nodes)
            elif moment.seq > head.seq:
                # A reader that began before another thread committed: only it stays behind.
                return self.at(reader, head.seq)
            elif moment.seq < head.seq:
                try:
                    moment = self._replay(moment, reader.entries(moment.seq), self.nodes)
                except ObjectNotFound:
                    # gc has taken what only states before the horizon needed: this one was
                    # among them. The newest checkpoint is there.
                    self.nodes.rotate()
                    moment = self._at(reader, head.seq, self.nodes)
                if self.checkpoint_due(moment):
                    moment = self._recheck(moment, reader)
            if moment.hash != head.hash:
                raise CorruptJournal(
                    f"The journal's entry {head.seq} is not the one read before; run `cas fsck`.",
                    seq=head.seq,
                )
            self._moment = moment
            return moment

    def _catch_up(self, moment: Moment) -> bool:
        """Follow a few entries behind `moment`, asked for in one question; whether that did it.

        What has to begin at a checkpoint is for `now` to do.
        """
        most = self._objects.thresholds.checkpoint_entries
        rows = self._objects.catalog.newer(moment.seq, most)
        if not rows:
            return True
        with self._lock:
            if len(rows) == most or self._moment is not moment:
                return False
            try:
                moved = self._replay(moment, rows, self.nodes)
            except ObjectNotFound:
                return False
            if self.checkpoint_due(moved):
                return False
            self._moment = moved
            return True

    def checkpoint_due(self, moment: Moment) -> bool:
        """Whether the entry after this moment has to store the refs tree."""
        thresholds = self._objects.thresholds
        return (
            moment.seq + 1 - moment.stored_seq >= thresholds.checkpoint_entries
            or moment.replay_bytes >= thresholds.checkpoint_bytes
        )

    def _recheck(self, moment: Moment, reader: CatalogReader) -> Moment:
        """Start again from a checkpoint that another process has stored meanwhile."""
        stored = reader.checkpoint(moment.seq)
        if stored is None or stored.seq <= moment.stored_seq:
            return moment
        self.nodes.rotate()
        return self._at(reader, moment.seq, self.nodes)

    def reached(self, moment: Moment, entry: Entry, before: bytes, mark: int) -> None:
        """Take in an entry this process has just committed, and the mark it left.

        `before` is the root of the refs tree that the entry changed; `mark` is 0 when others
        have committed behind it in the same transaction.
        """
        with self._lock:
            if self._moment is None or moment.seq > self._moment.seq:
                self._moment = moment
                self._marked = mark, moment
                root, known = self._values
                values = known.copy() if root == before and len(known) < _VALUES_MAX else {}
                for change in entry.changes:
                    new = change.new
                    values[change.ref] = (
                        None if new is None else RefValue(change.kind, new, entry.seq)
                    )
                self._values = moment.root, values
                if moment.stored_seq == moment.seq:
                    self.nodes.rotate()

    def at(self, reader: CatalogReader, seq: int) -> Moment:
        """The moment after entry `seq`. Raises `EntryNotFound`, `CorruptJournal`."""
        self.nodes.past.begin()
        return self._at(reader, seq, self.nodes.past)

    def _at(self, reader: CatalogReader, seq: int, nodes: NodeStore) -> Moment:
        stored = reader.checkpoint(seq)
        if stored is None or stored.seq == 0:
            moment = Moment(0, _genesis(reader), 0, 0, REFS.empty, 0, 0)
        else:
            row = reader.entry(stored.seq)
            if row is None:
                raise CorruptJournal(
                    f"The journal lacks entry {stored.seq}, of which a checkpoint tells; "
                    "run `cas fsck`.",
                    seq=stored.seq,
                )
            entry = self.decode(row)
            if entry.root != stored.root:
                raise CorruptJournal(
                    f"The checkpoint at entry {stored.seq} names another root than the entry; "
                    "run `cas fsck`.",
                    seq=stored.seq,
                )
            moment = Moment(
                entry.seq, row.hash, entry.time_us, entry.epoch, entry.root, entry.seq, 0
            )
        if moment.seq == seq:
            return moment
        moment = self._replay(moment, reader.entries(moment.seq, seq - moment.seq), nodes)
        if moment.seq != seq:
            raise EntryNotFound(
                f"The journal has no entry {seq}; its newest is {reader.head().seq}.", seq=seq
            )
        return moment

    def _replay(self, moment: Moment, rows: Sequence[EntryRow], nodes: NodeStore) -> Moment:
        """The moment after `rows`: the chain is checked entry by entry, the root at the end.

        One edit for all their changes: a writer that finds three entries of others in front of
        its own does this inside the gate.
        """
        root = moment.root
        edits: dict[bytes, Value | None] = {}
        for row in rows:
            entry = self.decode(row)
            if entry.seq != moment.seq + 1 or entry.previous != moment.hash:
                raise CorruptJournal(
                    f"Entry {entry.seq} of the journal does not follow entry {moment.seq}; "
                    "run `cas fsck`.",
                    seq=entry.seq,
                )
            for change in entry.changes:
                edits[change.ref.encode()] = (
                    None if change.new is None else (change.kind, change.new, entry.seq)
                )
            moment = follow(moment, entry, row.hash)
        if edits:
            root = apply(REFS, root, sorted(edits.items()), nodes).root
        if root != moment.root:
            raise CorruptJournal(
                f"Entry {moment.seq} of the journal names another root than the changes up to "
                "it give; run `cas fsck`.",
                seq=moment.seq,
            )
        return moment

    def seq_at(self, reader: CatalogReader, newest: int, time_us: int) -> int:
        """Seq of the last entry at or before a time, in the newest epoch that has one.

        Raises `EntryNotFound`. Entries ascend by (epoch, time), so each step halves the rest.
        """
        high = newest
        while high:
            epoch = self._entry(reader, high).epoch
            first = self._first(reader, high, (epoch, 0))
            after = self._first(reader, high, (epoch, time_us + 1))
            if after > first:
                return after - 1
            high = first - 1
        raise EntryNotFound("The journal has no entry as old as that.", time_us=time_us)

    def _first(self, reader: CatalogReader, high: int, moment: tuple[int, int]) -> int:
        """The first seq up to `high` at or after (epoch, time), or `high` + 1."""
        low, end = 1, high + 1
        # What stands for old entries tells when each segment begins: one is read, and not eight.
        for row in reader.archived():
            if row.first_seq > high or (row.epoch, row.time_us) >= moment:
                end = min(end, row.first_seq)
                break
            low = row.first_seq + 1
        while low < end:
            middle = (low + end) // 2
            entry = self._entry(reader, middle)
            if (entry.epoch, entry.time_us) >= moment:
                end = middle
            else:
                low = middle + 1
        return low

    def _entry(self, reader: CatalogReader, seq: int) -> Entry:
        row = reader.entry(seq)
        if row is None:
            raise CorruptJournal(f"The journal lacks entry {seq}; run `cas fsck`.", seq=seq)
        return self.decode(row)

    def entries(self, after: int, limit: int | None = None) -> Iterator[Entry]:
        """Entries behind `after`, oldest first, hash and chain checked. Raises `CorruptJournal`.

        Read in groups, each one state of the catalog: a long read holds nobody up.
        """
        previous: bytes | None = None
        after = min(max(after, 0), NUMBER_MAX)
        while limit is None or limit > 0:
            with self._objects.catalog.read() as reader:
                rows = reader.entries(after, min(limit or _GROUP, _GROUP))
            self._objects.catalog.harden(reading=True)
            for row in rows:
                entry = self.decode(row)
                if entry.seq != after + 1 or previous not in (None, entry.previous):
                    raise CorruptJournal(
                        f"Entry {entry.seq} of the journal does not follow entry {after}; "
                        "run `cas fsck`.",
                        seq=entry.seq,
                    )
                after, previous = entry.seq, row.hash
                yield entry
            if len(rows) < min(limit or _GROUP, _GROUP):
                return
            limit = None if limit is None else limit - len(rows)

    @staticmethod
    def decode(row: EntryRow) -> Entry:
        """The entry of a row. Raises `CorruptJournal`."""
        if entry_hash(row.entry) != row.hash:
            raise CorruptJournal(
                f"Entry {row.seq} of the journal is damaged; run `cas fsck`.", seq=row.seq
            )
        return Entry.decode(row.entry, verified=True)

    # -- refs --------------------------------------------------------------------------------

    def recall(self, moment: Moment, read: Callable[[bytes], _T]) -> _T:
        """`read` of the refs tree of a moment that may have passed long ago.

        Nodes that were forgotten since are made again from the entries.
        """
        try:
            return read(moment.root)
        except ObjectNotFound:
            with self._objects.catalog.read() as reader:
                self.at(reader, moment.seq)
            return read(moment.root)

    def value(self, moment: Moment, ref: str) -> RefValue | None:
        """Where a ref pointed in a moment that may have passed long ago."""
        at, known = self._values
        if at == moment.root and ref in known:
            return known[ref]
        return self.recall(moment, lambda root: self.known_value(root, ref))

    def known_value(self, root: bytes, ref: str) -> RefValue | None:
        """`get`, remembered for those who ask each new refs tree for the same ref."""
        at, known = self._values
        if at == root and ref in known:
            return known[ref]
        value = self.get(root, ref)
        if at == root and len(known) < _VALUES_MAX:
            known[ref] = value
        return value

    def edit(
        self,
        root: bytes,
        changes: Sequence[RefChange],
        seq: int,
        nodes: NodeStore | None = None,
    ) -> bytes:
        """Root of the refs tree after `changes` by entry `seq`; new nodes go to `nodes`."""
        nodes = nodes or self.nodes
        if len(changes) == 1 and (new := changes[0].new) is not None:
            # One ref that stands in a tree of one node: what most entries move.
            node, name = load_root(REFS, root, nodes), changes[0].ref.encode()
            index = bisect_left(node.names, name)
            if not node.level and name in node.names[index : index + 1]:
                return nodes.save(replace_value(node, index, (changes[0].kind, new, seq)))
        edits: list[Edit] = [
            (change.ref.encode(), None if change.new is None else (change.kind, change.new, seq))
            for change in changes
        ]
        return apply(REFS, root, edits, nodes).root if edits else root

    def is_unruled(self, root: bytes) -> bool:
        """Whether a refs tree has no rule, horizon or tombstone: it follows from the root alone."""
        if root != self.unruled and next(self.list(root, POLICIES), None) is None:
            self.unruled = root
        return root == self.unruled

    def get(self, root: bytes, ref: str) -> RefValue | None:
        """Value of a ref in the refs tree `root`."""
        # What is no UTF-8 is no ref, which is for the look-up to say.
        value = get(REFS, root, ref.encode("utf-8", "surrogatepass"), self.nodes)
        return None if value is None else RefValue(value[0], ObjectId(value[1]), value[2])

    def list(self, root: bytes, prefix: str = "") -> Iterator[tuple[str, RefValue]]:
        """Refs of a refs tree whose names begin with `prefix`, ascending."""
        for name, value in scan(
            REFS, root, self.nodes, prefix=prefix.encode("utf-8", "surrogatepass")
        ):
            yield name.decode(), RefValue(value[0], ObjectId(value[1]), value[2])

    def check_new(self, root: bytes, ref: str, made: set[str], gone: set[str]) -> None:
        """Refuse a new ref that would be a folder of another, or in one. Raises `RefExists`.

        `made` and `gone` are the refs that the same entry makes and deletes.
        """
        parts = ref.split("/")
        for length in range(2, len(parts)):
            above = "/".join(parts[:length])
            if above in made or (above not in gone and self.get(root, above) is not None):
                raise _collides(ref, above)
        for below, _value in self.list(root, ref + "/"):
            if below not in gone:
                raise _collides(ref, below)

    def nodes_to_store(self, root: bytes) -> Iterator[tuple[bytes, Node]]:
        """Every node of a refs tree that a checkpoint of it has to write."""
        young = self.nodes.is_young
        return nodes_of(REFS, root, self.nodes, skip=lambda id: not young(id))


def _collides(ref: str, other: str) -> RefExists:
    return RefExists(
        f"{ref} and {other} cannot both exist; choose another name.", ref=ref, other=other
    )


def follow(moment: Moment, entry: Entry, hash: bytes, *, stored: bool = False) -> Moment:
    """The moment after `entry`; `stored` when it carries a checkpoint."""
    if stored:
        return Moment(entry.seq, hash, entry.time_us, entry.epoch, entry.root, entry.seq, 0)
    weight = moment.replay_bytes + _REF_ENTRY_BYTES * len(entry.changes)
    return Moment(
        entry.seq, hash, entry.time_us, entry.epoch, entry.root, moment.stored_seq, weight
    )


def _genesis(reader: CatalogReader) -> bytes:
    """The hash that the first entry names as the one before it."""
    head = reader.head()
    if head.seq == 0:
        return head.hash
    first = reader.entry(1)
    if first is None:
        raise CorruptJournal("The journal lacks entry 1; run `cas fsck`.", seq=1)
    return Entry.decode(first.entry).previous
