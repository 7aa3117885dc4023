"""The statements of the PostgreSQL catalog: one transaction's reads and writes.

Floor 2; implements docs/format.md section 7.1. Invariant: nothing here begins or ends a
transaction. What is written is gathered and sent with the COMMIT; a read in between sends what
was gathered first, so that a block sees what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cas.catalog.archived import archived_entry, archived_txid, entries_before
from cas.catalog.catalog import (
    ARCHIVE,
    NUMBER_MAX,
    ArchiveRow,
    Checkpoint,
    EntryRow,
    Fetch,
    Head,
    PackRow,
    SessionRow,
    UnlinkedRow,
)
from cas.catalog.postgres_dialect import Statements
from cas.errors import CorruptCatalog

Rows = list[tuple[Any, ...]]
Statement = tuple[str, tuple[Any, ...]]


class Ask(Protocol):
    """Runs one statement in the transaction, and gives its rows."""

    def __call__(self, statement: str, arguments: tuple[Any, ...]) -> Rows:
        """All rows."""


class PostgresReader:
    """Statements of one transaction on one store."""

    __slots__ = ("_ask", "_fetch", "_saw", "_sql", "_store")

    def __init__(
        self,
        ask: Ask,
        sql: Statements,
        store: int,
        saw: Callable[[int, bytes], None],
        fetch: Fetch | None,
    ) -> None:
        self._ask = ask
        self._sql = sql
        self._store = store
        self._saw = saw
        self._fetch = fetch

    def _rows(self, statement: str, *arguments: object) -> Rows:
        return self._ask(statement, (self._store, *arguments))

    def head(self) -> Head:
        for row in self._rows(self._sql.head):
            head = Head(*row)
            self._saw(head.seq, head.hash)
            return head
        raise CorruptCatalog("The catalog has lost the head of this store.", detail="head")

    def entries(self, after: int, limit: int | None = None) -> Sequence[EntryRow]:
        rows = self._rows(self._sql.entries, after, NUMBER_MAX if limit is None else limit)
        found = [EntryRow(*row) for row in rows]
        if found and found[0].seq > after + 1:
            return entries_before(self, self._fetch, after, found, limit)
        return found

    def entry(self, seq: int) -> EntryRow | None:
        for row in self._rows(self._sql.entry, seq):
            return EntryRow(*row)
        return archived_entry(self, self._fetch, seq)

    def archived(self, after: int = 0, limit: int | None = None) -> Sequence[ArchiveRow]:
        rows = self._rows(self._sql.archived, after, NUMBER_MAX if limit is None else limit)
        return [ArchiveRow(*row) for row in rows]

    def weigh_entries(self, after: int) -> tuple[int, int]:
        ((count, weight),) = self._rows(self._sql.weigh_entries, after)
        return count, weight

    def find_txid(self, txid: bytes, after: int | None) -> int | None:
        if after is None:
            rows = self._rows(self._sql.keyed_txid, txid)
        else:
            ((oldest,),) = self._rows(self._sql.oldest)
            if after + 1 < oldest:
                found = archived_txid(self, self._fetch, txid, after)
                if found is not None:
                    return found
            rows = self._rows(self._sql.made_txid, txid, after)
        for (seq,) in rows:
            return int(seq)
        return None

    def checkpoint(self, at: int) -> Checkpoint | None:
        for row in self._rows(self._sql.checkpoint, at):
            return Checkpoint(*row)
        return None

    def packs(self, after: int = 0) -> Sequence[PackRow]:
        return [PackRow(*row) for row in self._rows(self._sql.packs, after)]

    def pack_numbers(self, first: int = 0, last: int = NUMBER_MAX) -> Sequence[int]:
        return [number for (number,) in self._rows(self._sql.pack_numbers, first, last)]

    def body(self, number: int) -> bytes | None:
        for (body,) in self._rows(self._sql.body, number):
            return body  # type: ignore[no-any-return]
        return None

    def bodies(self, after: int, limit: int) -> Sequence[tuple[int, bytes | None, bytes]]:
        return self._rows(self._sql.bodies, after, limit)

    def vectors(self, after: int = 0) -> Sequence[tuple[int, int, bytes]]:
        return self._rows(self._sql.vectors, after)

    def sessions(self) -> Sequence[SessionRow]:
        return [SessionRow(*row) for row in self._rows(self._sql.sessions)]

    def session(self, id: bytes) -> SessionRow | None:
        for row in self._rows(self._sql.session, id):
            return SessionRow(*row)
        return None

    def cursor(self, name: str) -> int | None:
        for (position,) in self._rows(self._sql.cursor, name):
            return int(position)
        return None

    def lineage(self) -> bytes:
        for (value,) in self._rows(self._sql.lineage):
            return value  # type: ignore[no-any-return]
        raise CorruptCatalog("The catalog does not say of which lineage it is.", detail="lineage")

    def checkpoints(self, after: int = 0) -> Sequence[Checkpoint]:
        return [Checkpoint(*row) for row in self._rows(self._sql.checkpoints, after)]

    def unlinked(self) -> Sequence[UnlinkedRow]:
        return [UnlinkedRow(*row) for row in self._rows(self._sql.unlinked)]


class PostgresWriter(PostgresReader):
    """The write transaction. `found` is the head, own writes included."""

    __slots__ = ("_before", "_entries", "_others", "_packs", "_send", "found", "mark")

    def __init__(
        self,
        ask: Ask,
        send: Callable[[list[Statement]], None],
        sql: Statements,
        store: int,
        head: Head,
        fetch: Fetch | None,
    ) -> None:
        super().__init__(ask, sql, store, _nobody, fetch)
        self._send = send
        self.found = self._before = head
        self.mark = 0
        self._packs: list[tuple[Any, ...]] = []
        self._entries: list[tuple[Any, ...]] = []
        self._others: list[Statement] = []

    def _rows(self, statement: str, *arguments: object) -> Rows:
        pending = self.take_pending()
        if pending:
            self._send(pending)
        return super()._rows(statement, *arguments)

    def head(self) -> Head:
        """The newest state, what this transaction has written included."""
        return self.found

    def take_pending(self) -> list[Statement]:
        """What was gathered and not sent yet, as statements."""
        pending = []
        if len(self._packs) == 1 and len(self._entries) == 1:
            row = (self._store, *self._packs[0], *self._entries[0], *self.found)
            pending.append((self._sql.publish_one, row))
            self._packs, self._entries, self._before = [], [], self.found
        elif self._packs or self._entries or self.found != self._before:
            packs = zip(*self._packs, strict=True) if self._packs else ((),) * 5
            entries = zip(*self._entries, strict=True) if self._entries else ((),) * 4
            columns = [list(column) for column in (*packs, *entries)]
            pending.append((self._sql.publish, (self._store, *columns, *self.found)))
            self._packs, self._entries, self._before = [], [], self.found
        pending += self._others
        self._others = []
        return pending

    def _later(self, statement: str, *arguments: object) -> None:
        self._others.append((statement, (self._store, *arguments)))

    def add_pack(
        self,
        number: int,
        name: bytes | None,
        body_bytes: int,
        footer: bytes | None,
        body: bytes | None,
    ) -> None:
        self._packs.append((number, name, body_bytes, footer, body))
        seq, hash, version, removal_version, condemn_seq = self.found
        self.found = Head(seq, hash, max(version, number), removal_version, condemn_seq)

    def remove_packs(self, numbers: Sequence[int], version: int, condemn_seq: int) -> None:
        if numbers:
            self._later(self._sql.remove_packs, list(numbers))
            self._later(self._sql.remove_vectors, list(numbers))
        self.record_removal(version, condemn_seq)

    def set_vector(self, number: int, version: int, bits: bytes) -> None:
        self._later(self._sql.set_vector, number, version, bits)

    def record_removal(self, version: int, condemn_seq: int) -> None:
        self._later(self._sql.record_removal, version, condemn_seq)
        seq, hash, newest, removal_version, condemned = self.found
        if version >= removal_version:
            removal_version, condemned = version, condemn_seq
        self.found = Head(seq, hash, max(newest, version), removal_version, condemned)

    def append_entry(self, seq: int, hash: bytes, txid: bytes, entry: bytes) -> None:
        self._entries.append((seq, hash, txid, entry))
        found = self.found
        if seq > found.seq:
            self.found = Head(seq, hash, *found[2:])

    def archive(self, row: ArchiveRow) -> None:
        self._later(self._sql.archive, *row)
        self._later(self._sql.keep_keys, row.first_seq, row.last_seq)
        self._later(self._sql.drop_entries, row.first_seq, row.last_seq)
        self._later(self._sql.add_feature, ARCHIVE)

    def add_checkpoint(self, seq: int, root: bytes) -> None:
        self._later(self._sql.add_checkpoint, seq, root)

    def put_session(self, row: SessionRow) -> None:
        self._later(self._sql.put_session, row.id, row.fence, row.s0, row.base_seq, row.opened_us)

    def drop_session(self, id: bytes) -> None:
        self._later(self._sql.drop_session, id)

    def set_cursor(self, name: str, position: int) -> None:
        self._later(self._sql.set_cursor, name, position)

    def drop_checkpoints(self, before: int) -> None:
        self._later(self._sql.drop_checkpoints, before)

    def add_unlinked(self, names: Sequence[bytes], seq: int) -> None:
        if names:
            # Twice in one statement a name could not be put.
            self._later(self._sql.add_unlinked, list(dict.fromkeys(names)), seq)

    def drop_unlinked(self, names: Sequence[bytes]) -> None:
        if names:
            self._later(self._sql.drop_unlinked, list(names))


def _nobody(_seq: int, _hash: bytes) -> None:
    """What a write transaction sees counts once it has ended."""
