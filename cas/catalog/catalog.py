"""The port `Catalog`: swap the truth. The other of the two ports of the house.

Floor 2; implements docs/format.md section 7. Invariant: every write transaction is atomic and
durable when its block ends; transactions are totally ordered; a reader sees one state.
Implementations: `cas.catalog.sqlite`, `cas.catalog.postgres`. The contract is
`cas.testing.catalog_contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from cas.model.values import frozen

DELTAS: Final = "deltas"
"""Feature: objects may be stored as deltas of others."""

DICTIONARIES: Final = "dictionaries"
"""Feature: objects may be stored beside a dictionary that many of them share."""

ARCHIVE: Final = "archive"
"""Feature: entries of the journal may lie in packs alone, and rows of `archive` stand for them."""

MIRRORED: Final = "mirrored"
"""Cursor: seq of the last entry that stands in an installed segment of this lineage."""

SETTLED: Final = "settled"
"""Cursor: written anew to settle a commit whose answer was lost; nobody reads it."""

NUMBER_MAX: Final = (1 << 63) - 1
"""What a catalog can count to: packs, entries."""


@frozen
class Meta:
    """What a store is. Ids are 16 bytes; `features` are names an older reader must know.

    `ancestry` tells which lineages this one came from (docs/format.md section 7.1).
    """

    store_id: bytes
    lineage_id: bytes
    format: int
    features: tuple[str, ...]
    created_us: int
    ancestry: bytes = b""


class Head(NamedTuple):
    """The newest state. `hash` is the genesis hash while `seq` is 0."""

    seq: int
    hash: bytes
    version: int
    removal_version: int
    condemn_seq: int


class PackRow(NamedTuple):
    """One installed pack. `name` is None for an inline pack, `footer` None for a file."""

    number: int
    name: bytes | None
    body_bytes: int
    footer: bytes | None


@frozen
class EntryRow:
    """One journal entry as stored."""

    seq: int
    hash: bytes
    entry: bytes


class ArchiveRow(NamedTuple):
    """Entries that no row of the journal holds: those from `first_seq` to `last_seq`, in the
    journal segment of this id. `epoch` and `time_us` are of the first one; `pack` and `other` are
    the numbers of two pack files with a copy of the segment, which stay where they are.
    """

    first_seq: int
    last_seq: int
    epoch: int
    time_us: int
    segment: bytes
    pack: int
    other: int


Fetch = Callable[[bytes], Sequence[bytes]]
"""The entries of a journal segment by its id, verified."""


@frozen
class Checkpoint:
    """At `seq` every node of the refs tree `root` was stored."""

    seq: int
    root: bytes


@frozen
class SessionRow:
    """A writer that puts files. It relies on what it saw at condemn sequence `s0`."""

    id: bytes
    fence: int
    s0: int
    base_seq: int
    opened_us: int


@frozen
class UnlinkedRow:
    """A file that was unnamed when the newest entry was `seq`, and is still to be removed."""

    name: bytes
    seq: int


class CatalogReader(Protocol):
    """One state of the catalog. Used by one thread, inside its block."""

    def head(self) -> Head:
        """The newest entry and versions. Raises `CorruptCatalog`."""

    def entries(self, after: int, limit: int | None = None) -> Sequence[EntryRow]:
        """Entries with seq > `after`, ascending."""

    def entry(self, seq: int) -> EntryRow | None:
        """One entry."""

    def archived(self, after: int = 0, limit: int | None = None) -> Sequence[ArchiveRow]:
        """What stands for entries that are no rows, as far as `last_seq` > `after`, ascending.

        `entries` and `entry` give these entries all the same. Raises what reading a pack raises.
        """

    def weigh_entries(self, after: int) -> tuple[int, int]:
        """How many entries are rows with seq > `after`, and their bytes."""

    def find_txid(self, txid: bytes, after: int | None) -> int | None:
        """Seq of the entry with this txid. `after`: only entries behind it; None: a keyed one."""

    def checkpoint(self, at: int) -> Checkpoint | None:
        """The newest checkpoint at or before `at`."""

    def packs(self, after: int = 0) -> Sequence[PackRow]:
        """Installed packs with number > `after`, ascending; footers of inline ones."""

    def pack_numbers(self, first: int = 0, last: int = NUMBER_MAX) -> Sequence[int]:
        """Numbers of installed packs from `first` to `last`, ascending. Looks at each row."""

    def body(self, number: int) -> bytes | None:
        """Header and records of an inline pack; None when it is not installed or a file."""

    def bodies(self, after: int, limit: int) -> Sequence[tuple[int, bytes | None, bytes]]:
        """(number, footer, body) of the inline packs behind `after`, ascending, at most `limit`."""

    def vectors(self, after: int = 0) -> Sequence[tuple[int, int, bytes]]:
        """(pack, version, bits) of the deletion vectors changed after version `after`."""

    def sessions(self) -> Sequence[SessionRow]:
        """Open sessions."""

    def session(self, id: bytes) -> SessionRow | None:
        """One session."""

    def cursor(self, name: str) -> int | None:
        """Position of a named cursor."""

    def lineage(self) -> bytes:
        """The lineage that the catalog is of in this state, whatever it was at the opening."""

    def checkpoints(self, after: int = 0) -> Sequence[Checkpoint]:
        """Checkpoints with seq > `after`, ascending."""

    def unlinked(self) -> Sequence[UnlinkedRow]:
        """Files that no pack row names any more and that may still be there, by name."""


class CatalogWriter(CatalogReader, Protocol):
    """The write transaction; there is one at a time."""

    mark: int
    """After the block: `Catalog.mark` of the state that it left; 0 when nobody can tell."""

    def add_pack(
        self,
        number: int,
        name: bytes | None,
        body_bytes: int,
        footer: bytes | None,
        body: bytes | None,
    ) -> None:
        """Install a pack under a number larger than every version so far."""

    def remove_packs(self, numbers: Sequence[int], version: int, condemn_seq: int) -> None:
        """Take packs and their vectors out; records the removal under `version`."""

    def set_vector(self, number: int, version: int, bits: bytes) -> None:
        """Replace the deletion vector of a pack; the caller only ever adds bits."""

    def record_removal(self, version: int, condemn_seq: int) -> None:
        """Note that copies were removed at `version`."""

    def append_entry(self, seq: int, hash: bytes, txid: bytes, entry: bytes) -> None:
        """Append the entry after the head."""

    def archive(self, row: ArchiveRow) -> None:
        """Put `row` in the place of the journal's rows that it stands for. Keys stay known.

        Only who has found these rows in the segment, byte for byte, and the segment in both
        packs, in this transaction. On a server it takes the rights of the schema's owner.
        """

    def add_checkpoint(self, seq: int, root: bytes) -> None:
        """Note that the refs tree at `seq` is stored."""

    def put_session(self, row: SessionRow) -> None:
        """Insert or replace a session."""

    def drop_session(self, id: bytes) -> None:
        """Remove a session; nothing happens when there is none."""

    def set_cursor(self, name: str, position: int) -> None:
        """Move a named cursor."""

    def drop_checkpoints(self, before: int) -> None:
        """Remove the checkpoints with seq < `before`."""

    def add_unlinked(self, names: Sequence[bytes], seq: int) -> None:
        """List files that this transaction takes the rows of, for who removes them."""

    def drop_unlinked(self, names: Sequence[bytes]) -> None:
        """Take files off that list: they are gone, durably."""


class Turn(Protocol):
    """The right to do a task, for the length of a block. True."""

    @property
    def note(self) -> bytes:
        """What was left at the task last; empty where nothing was, or none can be kept."""

    def leave(self, note: bytes) -> None:
        """Leave a note of at most 64 bytes for whoever comes next. It may be lost."""


class Catalog(Protocol):
    """The truth of one store. Every method may be called from any thread."""

    @property
    def meta(self) -> Meta:
        """What the store is; never changes while the handle is open."""

    @property
    def read_only(self) -> bool:
        """Whether `write` is refused."""

    def read(self) -> AbstractContextManager[CatalogReader]:
        """One state, for as long as the block lasts. Never blocks and is never blocked. Where the
        catalog `is_locked` it is the state that the transaction of this thread has made so far.
        """

    def write(self, *, durable: bool = True) -> AbstractContextManager[CatalogWriter]:
        """The write transaction: queues at the gate, commits when the block ends normally.

        `durable=False`: a power failure may take back what it did, until a later transaction is
        durable; for what means nothing once this process is gone.

        The wait behind other writers has no limit: they are served in turn. An exception from
        the block rolls back and goes on. Raises `Busy` when a program that does not queue at
        the gate holds the catalog (not committed), `ReadOnly`, `StorageFull` and
        `StorageFailed` (not committed), and `OutcomeUnknown` when the answer of the commit
        itself was lost.
        """

    def harden(self, *, reading: bool = False) -> None:
        """Make durable what this handle can see. Call it before an answer that rests on what
        others wrote and that no write of this handle has followed.

        A commit can be seen a moment before it is durable; whoever acknowledges it, or shows
        it, then has to sync it. Costs two microseconds where nothing is to be done. Raises
        `OutcomeUnknown`, or, `reading`, `StorageFailed`.
        """

    def inline_body(self, number: int) -> bytes | None:
        """`CatalogReader.body` in the newest state, without a block."""

    def serve_archive(self, fetch: Fetch) -> None:
        """Ask `fetch` for the segments of archived entries from now on. Without it they cannot be
        read: it is the object store above that knows packs.
        """

    def may_archive(self) -> bool:
        """Whether this handle has the rights that `CatalogWriter.archive` takes."""

    def head_seq(self) -> int:
        """Seq of the newest entry, without a block."""

    def newer(self, after: int, limit: int) -> Sequence[EntryRow]:
        """`CatalogReader.entries` of the newest state, without a block. Never shows less than
        this handle has seen before.
        """

    @property
    def bucket(self) -> str | None:
        """Where the packs lie, as it stands in the catalog; None where the folder of the store
        says it.
        """

    @property
    def is_locked(self) -> bool:
        """Whether this thread is in a write transaction beside which nothing can be read: that of a
        catalog in memory. What it reads is then of that transaction, and nothing to keep.
        """

    @property
    def is_distant(self) -> bool:
        """Whether every question travels to a server: then what can be fetched is fetched outside
        the gate.
        """

    def listen(self, wake: Callable[[], None]) -> Callable[[], None] | None:
        """Call `wake` from another thread whenever somebody may have committed, until what is
        given is called or the catalog closed. None where nobody can tell: then one has to ask.

        A hint that can be lost: whoever relies on it looks now and then.
        """

    def mark(self) -> int:
        """A number that every commit of anybody changes, 0 when nobody can tell.

        Whoever reads the same number twice, and not 0, has the same state before it: a hint
        that spares a query, and costs a tenth of one.
        """

    def elect(self, task: str) -> AbstractContextManager[Turn | None]:
        """A turn at a task that one at a time should do, or None while it is taken; never waits.

        Economy, not safety: two that both believe it do double work and no harm.
        """

    def hold(self, number: int) -> Callable[[], None]:
        """Show that the session with this fence has a writer, until what is given is called or
        the process ends, however it ends.
        """

    def is_held(self, number: int) -> bool | None:
        """Whether somebody holds that number; None where the system cannot tell."""

    def scrub(self, *, rewrite: bool) -> bool:
        """Leave nothing in the engine's files of what was deleted: write them anew (`rewrite`),
        and cut the log. False while a reader of an older state stands in the way; then try
        again without `rewrite`. Writers wait meanwhile. Raises as `write` does.
        """

    def refuse_scrub(self) -> None:
        """Raise `AccessDenied` where this handle has not the rights that `scrub` takes."""

    def check(self) -> Iterator[str]:
        """What the engine itself finds wrong with its file, one sentence each."""

    def close(self) -> None:
        """Give up every connection; harmless when called twice."""
