"""The catalog of one store among many in a PostgreSQL database.

Floor 2; implements docs/format.md sections 7 and 9.1. Invariant: the truth is on the primary: what
is decided or acknowledged rests on its answer alone, and an answer that was lost is asked for
again, by transaction id, behind the head lock that the lost transaction held.

A commit that can be seen is durable here: the server shows it to others after its log was synced
(and after a synchronous standby has it). So `harden` has nothing to do. The exception is a primary
that was restarted, or whose administrator ended the wait for its standby: it shows what the standby
may lack. So a commit in doubt is told as done behind a commit of its own, which waits for all that
stands before it (`ObjectStore.settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from cas.catalog.catalog import EntryRow, Fetch, Meta, Turn
from cas.catalog.postgres_blocks import ReadBlock, WriteBlock
from cas.catalog.postgres_errors import translate
from cas.catalog.postgres_link import Link, history_lost
from cas.catalog.postgres_locks import Attendance
from cas.catalog.postgres_notices import Notices
from cas.catalog.postgres_place import PostgresPlace
from cas.catalog.postgres_schema import add, find, key_of, migrate
from cas.catalog.postgres_scrub import refuse_scrub, scrub
from cas.catalog.postgres_seen import Seen, seen_in
from cas.catalog.schema import check_features
from cas.errors import CasError
from cas.model.entry import genesis_hash


class PostgresCatalog:
    """The catalog of one store. Connections: one for writing, some for reading, one for locks."""

    def __init__(self, place: PostgresPlace, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self._seen: Seen | None = None
        self._place = place
        self._link = link = Link(place, read_only=read_only)
        try:
            connection = link.take()
            found = find(connection, place, link.sql)
        except Exception as error:
            link.close()
            translate(error, place.shown)
        check_features(found.meta, place.shown)
        self.meta: Meta = found.meta
        self.bucket, self.claim = found.bucket, found.claim
        link.store = found.number
        link.genesis = genesis_hash(found.meta.store_id)
        link.saw(found.seq, found.hash)
        link.give(connection)
        self._attendance = Attendance(link)
        self._channel = channel = (
            f"cas_{key_of('channel', place.schema, found.number) & ((1 << 64) - 1):x}"
        )

        self._notices = Notices(link, channel)

    def __repr__(self) -> str:
        return f"<PostgresCatalog {self._link.path}>"

    @property
    def place(self) -> PostgresPlace:
        """Where it is; what else lies beside it is found by that."""
        return self._place

    def remember(self, folder: str, *, accept: bool = False) -> bool:
        """Keep in a folder of caches what is seen from now on; False where nothing was noted there
        that this server lacks.

        Raises `HistoryLost` where something was, unless `accept`: then it is forgotten. A standby
        may lag behind what was noted.
        """
        link = self._link
        seen = seen_in(folder, self._place, self.meta.lineage_id)
        if seen is None:
            return False
        try:
            lost = self._lost(seen)
            if lost is not None and not accept:
                raise lost
        except BaseException:
            seen.close()
            raise
        seen.note(*link.seen, anyway=lost is not None)
        self._seen, link.note = seen, seen.note
        return lost is not None

    def _lost(self, seen: Seen) -> CasError | None:
        """The error for what was noted and this server does not have."""
        link, noted = self._link, seen.read()
        if noted is None or noted[0] == 0 or noted == link.seen:
            return None
        seq, hash = noted
        row = link.row(link.sql.seen, link.store, seq)
        # An entry that is there and no row is archived: ten thousand have followed it.
        if row is None or row[2] or (seq <= row[0] and row[1] in (None, hash)):
            return None
        return history_lost(link.path, seq, row[0])

    # -- the port ----------------------------------------------------------------------------

    def read(self) -> ReadBlock:
        return ReadBlock(self._link)

    def write(self, *, durable: bool = True) -> WriteBlock:
        return WriteBlock(self._link, self._channel, durable=durable)

    def harden(self, *, reading: bool = False) -> None:
        """What can be seen is durable."""

    def serve_archive(self, fetch: Fetch) -> None:
        self._link.fetch = fetch

    def may_archive(self) -> bool:
        if self.read_only:
            return False
        row = self._link.row(self._link.sql.may_archive)
        return row is not None and bool(row[0])

    def inline_body(self, number: int) -> bytes | None:
        row = self._link.row(self._link.sql.body, self._link.store, number)
        return None if row is None else row[0]

    def head_seq(self) -> int:
        row = self._link.row(self._link.sql.head_seq, self._link.store)
        return 0 if row is None else int(row[0])

    def newer(self, after: int, limit: int) -> Sequence[EntryRow]:
        link = self._link
        rows = link.rows(link.sql.newer, link.store, after, limit)
        head = rows[0][0] if rows else 0
        if head < after:
            raise history_lost(link.path, after, head)
        found = [EntryRow(*row[1:]) for row in rows if row[1] is not None]
        if found and found[0].seq > after + 1:
            # What comes next is archived by now: that takes a look at more than the journal.
            with self.read() as reader:
                return reader.entries(after, limit)
        return found

    @property
    def is_locked(self) -> bool:
        return False

    @property
    def is_distant(self) -> bool:
        return True

    def listen(self, wake: Callable[[], None]) -> Callable[[], None] | None:
        self._link.check()
        return self._notices.listen(wake)

    def mark(self) -> int:
        """Nobody can tell without asking the server."""
        self._link.check()
        return 0

    def elect(self, task: str) -> AbstractContextManager[Turn | None]:
        return self._attendance.elect(task)

    def hold(self, number: int) -> Callable[[], None]:
        return self._attendance.hold(number)

    def is_held(self, number: int) -> bool | None:
        return self._attendance.is_held(number)

    def scrub(self, *, rewrite: bool) -> bool:
        return scrub(self._link)

    def refuse_scrub(self) -> None:
        refuse_scrub(self._link)

    def check(self) -> Iterator[str]:
        try:
            row = self._link.row(self._link.sql.contradictions, self._link.store)
        except CasError as error:
            yield f"The catalog cannot be checked: {error}"
            return
        if row is None:
            yield "The head of this store is missing."
            return
        seq, newest, version, newest_version, same, entries, vectors = row
        if seq != newest:
            yield f"The head is at entry {seq}, and the newest entry is {newest}."
        if version < newest_version:
            yield f"The head is at version {version}, and the newest is {newest_version}."
        if not same:
            yield f"The head has another hash than entry {seq}."
        if entries != newest:
            yield f"Of {newest} entries {entries} are there."
        if vectors:
            yield f"{vectors} deletion vectors are of packs that are not there."

    def close(self) -> None:
        self._notices.close()
        self._attendance.drop()
        self._link.close()
        if self._seen is not None:
            self._seen.close()


def create_store(place: PostgresPlace, meta: Meta, bucket: str) -> bool:
    """Make a store in a database, and the schema where there is none; False when it is there.

    Raises `AccessDenied`, `StorageFailed`, `NewerFormat`.
    """
    migrate(place)
    return add(place, meta, bucket)


def open_postgres(place: PostgresPlace, *, read_only: bool = False) -> PostgresCatalog:
    """Open the catalog of a store. Raises `StoreNotFound`, `NewerFormat`, `NotAStore`,
    `AccessDenied`, `StorageFailed`, `ReadOnly`, `Unsupported`.
    """
    return PostgresCatalog(place, read_only=read_only)
