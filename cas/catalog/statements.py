"""The statements of the SQLite catalog: one transaction's reads and writes.

Floor 2; implements docs/format.md section 7.1. Invariant: nothing here begins or ends a
transaction, and a commit touches append tables only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

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
from cas.catalog.schema import ARCHIVE_TABLES
from cas.errors import CorruptCatalog

if TYPE_CHECKING:
    import apsw

# One statement, because each costs a commit two microseconds before it does anything.
_VERSIONS: Final = (
    "(SELECT max(number) FROM pack), (SELECT max(version) FROM removal),"
    " (SELECT condemn_seq FROM removal ORDER BY version DESC LIMIT 1)"
)
_HEAD: Final = f"SELECT seq, hash, {_VERSIONS} FROM journal ORDER BY seq DESC LIMIT 1"
_HEAD_OF_EMPTY: Final = f"SELECT 0, NULL, {_VERSIONS}"


_LINEAGE: Final = "SELECT value FROM meta WHERE key = 'lineage_id'"

_INT: Final = (int,)
_BLOB: Final = (bytes,)
_MAYBE_INT: Final = (int, NoneType)
_MAYBE_BLOB: Final = (bytes, NoneType)
_HEAD_TYPES: Final = (_INT, _BLOB, _MAYBE_INT, _MAYBE_INT, _MAYBE_INT)
_SESSION: Final = (_BLOB, _INT, _INT, _INT, _INT)
_ARCHIVE: Final = (_INT, _INT, _INT, _INT, _BLOB, _INT, _INT)


def _sound(rows: Any, *types: tuple[type, ...]) -> list[Any]:
    """The rows, if each value is of the type that its strict column must have.

    A damaged page can give NULL or text where the table has none. Raises `CorruptCatalog`.
    """
    found = list(rows)
    for row in found:
        if not all(map(isinstance, row, types)):
            raise CorruptCatalog(
                "A row of the catalog holds a value of another type than its column; run "
                "`cas fsck`.",
                detail=", ".join(type(value).__name__ for value in row),
            )
    return found


class SqliteReader:
    """Statements of one transaction on one connection."""

    __slots__ = ("_fetch", "_genesis", "_run")

    def __init__(
        self, connection: apsw.Connection, genesis: bytes, fetch: Fetch | None = None
    ) -> None:
        # Untyped: SQLite's values are what the strict tables say, not what apsw can promise.
        self._run: Any = connection.execute
        self._genesis = genesis
        self._fetch = fetch

    def head(self) -> Head:
        row = self._run(_HEAD).fetchone()
        if row is None:
            row = self._run(_HEAD_OF_EMPTY).fetchone()
        else:
            _sound((row,), *_HEAD_TYPES)
        seq, hash, packs, removals, condemned = row
        removals = removals or 0
        version = max(packs or 0, removals)
        return Head(seq, hash or self._genesis, version, removals, condemned or 0)

    def entries(self, after: int, limit: int | None = None) -> Sequence[EntryRow]:
        rows = self._run(
            "SELECT seq, hash, entry FROM journal WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, -1 if limit is None else limit),
        )
        found = [EntryRow(*row) for row in _sound(rows, _INT, _BLOB, _BLOB)]
        if found and found[0].seq > after + 1:
            return entries_before(self, self._fetch, after, found, limit)
        return found

    def entry(self, seq: int) -> EntryRow | None:
        rows = self._run("SELECT seq, hash, entry FROM journal WHERE seq = ?", (seq,))
        for row in _sound(rows, _INT, _BLOB, _BLOB):
            return EntryRow(*row)
        return archived_entry(self, self._fetch, seq)

    def archived(self, after: int = 0, limit: int | None = None) -> Sequence[ArchiveRow]:
        if not self._has_archive():
            return ()
        rows = self._run(
            "SELECT first_seq, last_seq, epoch, time_us, segment, pack, other FROM archive"
            " WHERE last_seq > ? ORDER BY last_seq LIMIT ?",
            (after, -1 if limit is None else limit),
        )
        return [ArchiveRow(*row) for row in _sound(rows, *_ARCHIVE)]

    def _has_archive(self) -> bool:
        """Whether this catalog has the tables; whoever asks has found entry 1 to be no row."""
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'archive'"
        return self._run(query).fetchone() is not None

    def weigh_entries(self, after: int) -> tuple[int, int]:
        query = "SELECT count(*), sum(length(entry)) FROM journal WHERE seq > ?"
        count, weight = self._run(query, (after,)).fetchone()
        return count, weight or 0

    def find_txid(self, txid: bytes, after: int | None) -> int | None:
        if after is None:
            query = "SELECT seq FROM journal WHERE txid = ? AND txid >= x'80'"
            for (seq,) in self._run(query, (txid,)):
                return int(seq)
            if self._oldest() > 1 and self._has_archive():
                for (seq,) in self._run("SELECT seq FROM key WHERE txid = ?", (txid,)):
                    return int(seq)
            return None
        if after + 1 < self._oldest():
            found = archived_txid(self, self._fetch, txid, after)
            if found is not None:
                return found
        query = "SELECT seq FROM journal WHERE seq > ? AND txid = ? LIMIT 1"
        for (seq,) in self._run(query, (after, txid)):
            return int(seq)
        return None

    def _oldest(self) -> int:
        """Seq of the oldest row of the journal, 0 where there is none."""
        return self._run("SELECT min(seq) FROM journal").fetchone()[0] or 0

    def checkpoint(self, at: int) -> Checkpoint | None:
        query = "SELECT seq, root FROM checkpoint WHERE seq <= ? ORDER BY seq DESC LIMIT 1"
        for row in _sound(self._run(query, (at,)), _INT, _BLOB):
            return Checkpoint(*row)
        return None

    def packs(self, after: int = 0) -> Sequence[PackRow]:
        rows = self._run(
            "SELECT number, name, body_bytes, footer FROM pack WHERE number > ? ORDER BY number",
            (after,),
        )
        return [PackRow(*row) for row in _sound(rows, _INT, _MAYBE_BLOB, _INT, _MAYBE_BLOB)]

    def pack_numbers(self, first: int = 0, last: int = NUMBER_MAX) -> Sequence[int]:
        query = "SELECT number FROM pack WHERE number BETWEEN ? AND ? ORDER BY number"
        return [number for (number,) in self._run(query, (first, last))]

    def body(self, number: int) -> bytes | None:
        rows = self._run("SELECT body FROM pack WHERE number = ?", (number,))
        for (body,) in _sound(rows, _MAYBE_BLOB):
            return body  # type: ignore[no-any-return]
        return None

    def bodies(self, after: int, limit: int) -> Sequence[tuple[int, bytes | None, bytes]]:
        rows = self._run(
            "SELECT number, footer, body FROM pack WHERE number > ? AND body IS NOT NULL"
            " ORDER BY number LIMIT ?",
            (after, limit),
        )
        return _sound(rows, _INT, _MAYBE_BLOB, _BLOB)

    def vectors(self, after: int = 0) -> Sequence[tuple[int, int, bytes]]:
        rows = self._run(
            "SELECT pack, version, bits FROM vector WHERE version > ? ORDER BY pack", (after,)
        )
        return _sound(rows, _INT, _INT, _BLOB)

    def sessions(self) -> Sequence[SessionRow]:
        rows = self._run("SELECT id, fence, s0, base_seq, opened_us FROM session ORDER BY id")
        return [SessionRow(*row) for row in _sound(rows, *_SESSION)]

    def session(self, id: bytes) -> SessionRow | None:
        query = "SELECT id, fence, s0, base_seq, opened_us FROM session WHERE id = ?"
        for row in _sound(self._run(query, (id,)), *_SESSION):
            return SessionRow(*row)
        return None

    def cursor(self, name: str) -> int | None:
        for (position,) in self._run("SELECT position FROM cursor WHERE name = ?", (name,)):
            return int(position)
        return None

    def lineage(self) -> bytes:
        for (value,) in _sound(self._run(_LINEAGE), _BLOB):
            return value  # type: ignore[no-any-return]
        raise CorruptCatalog("The catalog does not say of which lineage it is.", detail="lineage")

    def checkpoints(self, after: int = 0) -> Sequence[Checkpoint]:
        query = "SELECT seq, root FROM checkpoint WHERE seq > ? ORDER BY seq"
        return [Checkpoint(*row) for row in _sound(self._run(query, (after,)), _INT, _BLOB)]

    def unlinked(self) -> Sequence[UnlinkedRow]:
        rows = self._run("SELECT name, seq FROM unlinked ORDER BY name")
        return [UnlinkedRow(*row) for row in _sound(rows, _BLOB, _INT)]

    def meta(self) -> dict[str, Any]:
        """What the catalog says that it is, as it stands now."""
        return dict(self._run("SELECT key, value FROM meta").fetchall())


class SqliteWriter(SqliteReader):
    """The write transaction. `found` is the head as far as it is known, own writes included."""

    __slots__ = ("found", "mark")

    def __init__(
        self,
        connection: apsw.Connection,
        genesis: bytes,
        fetch: Fetch | None = None,
        mark: int = 0,
        found: Head | None = None,
    ) -> None:
        self._run = connection.execute
        self._genesis = genesis
        self._fetch = fetch
        self.found = found
        self.mark = mark

    def head(self) -> Head:
        """The newest state, what this transaction has written included."""
        head = self.found
        if head is None:
            head = self.found = super().head()
        return head

    def add_pack(
        self,
        number: int,
        name: bytes | None,
        body_bytes: int,
        footer: bytes | None,
        body: bytes | None,
    ) -> None:
        self._run(
            "INSERT INTO pack (number, name, body_bytes, footer, body) VALUES (?, ?, ?, ?, ?)",
            (number, name, body_bytes, footer, body),
        )
        if self.found is not None:
            seq, hash, version, removal_version, condemn_seq = self.found
            self.found = Head(seq, hash, max(version, number), removal_version, condemn_seq)

    def remove_packs(self, numbers: Sequence[int], version: int, condemn_seq: int) -> None:
        for first, last in _ranges(numbers):
            self._run("DELETE FROM pack WHERE number BETWEEN ? AND ?", (first, last))
            self._run("DELETE FROM vector WHERE pack BETWEEN ? AND ?", (first, last))
        self.record_removal(version, condemn_seq)

    def set_vector(self, number: int, version: int, bits: bytes) -> None:
        self._run(
            "INSERT OR REPLACE INTO vector (pack, version, bits) VALUES (?, ?, ?)",
            (number, version, bits),
        )

    def record_removal(self, version: int, condemn_seq: int) -> None:
        self._run(
            "INSERT OR REPLACE INTO removal (version, condemn_seq) VALUES (?, ?)",
            (version, condemn_seq),
        )
        self.found = None

    def append_entry(self, seq: int, hash: bytes, txid: bytes, entry: bytes) -> None:
        self._run(
            "INSERT INTO journal (seq, hash, txid, entry) VALUES (?, ?, ?, ?)",
            (seq, hash, txid, entry),
        )
        if self.found is not None:
            _seq, _hash, version, removal_version, condemn_seq = self.found
            self.found = Head(seq, hash, version, removal_version, condemn_seq)

    def archive(self, row: ArchiveRow) -> None:
        for statement in ARCHIVE_TABLES:
            self._run(statement)
        self._run(
            "INSERT OR REPLACE INTO archive"
            " (first_seq, last_seq, epoch, time_us, segment, pack, other)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        span = (row.first_seq, row.last_seq)
        self._run(
            "INSERT OR REPLACE INTO key (txid, seq) SELECT txid, seq FROM journal"
            " WHERE seq BETWEEN ? AND ? AND txid >= x'80'",
            span,
        )
        self._run("DELETE FROM journal WHERE seq BETWEEN ? AND ?", span)
        features = str(self.meta()["features"]).split()
        if ARCHIVE not in features:
            self.set_meta({"features": " ".join([*features, ARCHIVE])})

    def add_checkpoint(self, seq: int, root: bytes) -> None:
        self._run("INSERT INTO checkpoint (seq, root) VALUES (?, ?)", (seq, root))

    def put_session(self, row: SessionRow) -> None:
        self._run(
            "INSERT OR REPLACE INTO session (id, fence, s0, base_seq, opened_us)"
            " VALUES (?, ?, ?, ?, ?)",
            (row.id, row.fence, row.s0, row.base_seq, row.opened_us),
        )

    def drop_session(self, id: bytes) -> None:
        self._run("DELETE FROM session WHERE id = ?", (id,))

    def set_cursor(self, name: str, position: int) -> None:
        self._run("INSERT OR REPLACE INTO cursor (name, position) VALUES (?, ?)", (name, position))

    def drop_checkpoints(self, before: int) -> None:
        self._run("DELETE FROM checkpoint WHERE seq < ?", (before,))

    def add_unlinked(self, names: Sequence[bytes], seq: int) -> None:
        for name in names:
            self._run("INSERT OR REPLACE INTO unlinked (name, seq) VALUES (?, ?)", (name, seq))

    def drop_unlinked(self, names: Sequence[bytes]) -> None:
        for name in names:
            self._run("DELETE FROM unlinked WHERE name = ?", (name,))

    def set_meta(self, values: Mapping[str, int | str | bytes | None]) -> None:
        """Say it anew; nobody who has the store open is told."""
        for row in values.items():
            self._run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers: a thousand rows are removed by a few statements."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
