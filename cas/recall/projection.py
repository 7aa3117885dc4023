"""The projection: the search database of a store's workspace, kept up with the journal.

Floor 7. Invariant: after `follow` the database says what a walk over every state of the journal up
to `seq` would say: a row is a version of an aggregate, with the entries from which and before which
it held. It is disposable: missing, damaged, of another store or made for other types, it is made
anew and `notices` says so. Many processes may follow one database; each entry is taken in once.
Where the rows lie, and how that database is spoken to, is behind the port `Database`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import frozen

from cas.errors import (
    AccessDenied,
    CorruptIndex,
    Invalid,
    ReadOnly,
    StorageFailed,
    Unsupported,
)
from cas.history.core import warn
from cas.history.horizon import horizon_now
from cas.history.store import Store
from cas.later import Later
from cas.model.entry import Entry
from cas.model.names import INDEXES, PURGED_REF
from cas.recall.database import Database, Home, vector_place
from cas.recall.embed import Embedder
from cas.recall.models import Models
from cas.recall.rows import Shape, digest_of, shapes, shown_of, text_of
from cas.recall.sqlite import FileHome
from cas.recall.taker import Taker
from cas.recall.where import Codes
from cas.workspace.layout import MAIN
from cas.workspace.registry import Aggregate

if TYPE_CHECKING:
    from cas.recall import postgres
else:
    postgres = Later("cas.recall.postgres")

_STEP: Final = 8_000
"""Records a transaction; an entry is never divided between two."""
_TOLD_MAX: Final = 1_024
"""Entries that are kept until they are taken in; more are read from the journal."""
_BESIDE: Final = "database"
_CACHE: Final = "cache"
_ATTEMPTS: Final = 4
"""At one question, where others make the database anew or its connection is lost."""
_T = TypeVar("_T")


@frozen
class Followed:
    """What catching up did. `seq`: where it stands now; `records`: versions that were taken in."""

    seq: int
    entries: int
    records: int
    embedded: int
    unread: int


class Projection:
    """The search database of one branch of a workspace. Any thread; closed by its owner."""

    def __init__(
        self,
        store: Store,
        *,
        branch: str = MAIN,
        embedder: Embedder | None = None,
        former: Embedder | None = None,
        index: str | None = None,
    ) -> None:
        self.store = store
        self.branch = branch
        self.shapes: Mapping[str, Shape] = shapes()
        self.models = Models(store, self.shapes, embedder, former)
        self.notices: list[str] = []
        self.made = 0
        """Rises whenever the database is made anew, so that what was read of it is stale."""
        self._lock = threading.RLock()
        self._digest = digest_of(self.shapes, branch)
        self._falls_back = False
        self._home = self._place(index)
        self._names: dict[str, int] = {}
        self._database: Database | None = None
        self._seq = -1
        self._behind = False
        self._is_short = False
        self._told: dict[int, Entry] = {}
        self._reading: Database | None = None

    def _place(self, index: str | None) -> Home:
        if index not in (None, _BESIDE, _CACHE):
            return FileHome(index, named=True)
        catalog = self.store.objects.catalog
        if index != _CACHE and catalog.is_distant:
            home = postgres.home_beside(catalog, self.identity)
            if home is not None:
                self._falls_back = index is None
                return home
        if index == _BESIDE:
            raise Invalid(
                f"The catalog of {self.store.location} is a file, and no index lies beside it: "
                f'name a file, or "{_CACHE}".'
            )
        return self._file()

    def _file(self) -> Home:
        cache = self.store.objects.cache
        if cache is None or self.store.read_only:
            return FileHome(":memory:")
        folder = os.path.join(cache, INDEXES)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            warn(f"the search index is kept in memory: {error}")
            return FileHome(":memory:")
        return FileHome(os.path.join(folder, f"{self._digest}.db"))

    @property
    def path(self) -> str:
        """Where the database lies; ":memory:" where the store has no place for one."""
        return self._home.path

    def beside(self) -> Callable[[], Database] | None:
        """What makes another connection to the database, which lies near; else None."""
        database = self._database
        is_near = database is not None and database.chooser is None and self.path != ":memory:"
        return self._home.open if is_near else None

    def close(self) -> None:
        """Give up the database; the next use opens it again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    # -- use ---------------------------------------------------------------------------------

    def read(self, ask: Callable[[Database], _T]) -> _T:
        """What `ask` finds in the database; once more on a new one where it is damaged."""

        def work() -> _T:
            database = self._open()
            with database.reading():
                self._reading = database
                try:
                    return ask(database)
                finally:
                    self._reading = None

        with self._lock:
            if self._reading is not None:
                # Asked by who reads already: what goes wrong is for that one to do once more.
                return ask(self._reading)
            return self._anew(work, follow=True)

    def follow(self) -> Followed:
        """Catch up with the journal. Costs what changed. Raises what reading the store raises."""
        return self._anew(self._follow, follow=False)

    def tell(self, entry: Entry) -> int:
        """An entry that this store's handle has just made, so that it need not be read again; how
        many there are by now that were not taken in.
        """
        if len(self._told) < _TOLD_MAX:
            self._told[entry.seq] = entry
        return entry.seq - self._seq

    def _entries(self, after: int, head: int) -> Iterable[Entry]:
        """The entries behind one: as they were told where all were, else from the journal."""
        told, seqs = self._told, range(after + 1, head + 1)
        if len(seqs) <= _TOLD_MAX and all(map(told.__contains__, seqs)):
            return [told[seq] for seq in seqs]
        return self.store.journal(after, limit=head - after)

    def step(self, *, wait: bool = True) -> bool:
        """Catch up by one transaction; whether that was too short for all there was. Without
        `wait` nothing is done while somebody else is at it.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            if self._reading is not None:
                return False
            self._anew(lambda: self._follow(once=True), follow=False)
            return self._is_short
        finally:
            self._lock.release()

    def _anew(self, work: Callable[[], _T], *, follow: bool) -> _T:
        """Do it; where the database is damaged, make it anew and do it once more; where somebody
        else did, or the connection is gone, do it once more too.
        """
        with self._lock:
            left, renewed = _ATTEMPTS, False
            while True:
                left -= 1
                try:
                    if follow and self._behind:
                        self._follow()
                    return work()
                except StorageFailed:
                    database = self._database
                    if database is None or not database.lost or not left:
                        raise
                    self.close()
                except CorruptIndex as error:
                    database = self._database
                    if database is not None and database.replaced and left:
                        self.close()
                        self._forget()
                        continue
                    if renewed:
                        raise StorageFailed(
                            f"The search index {self.path} was made anew and is damaged again: "
                            f"{error}.",
                            path=self.path,
                            errno=None,
                        ) from error
                    renewed = True
                    self._renew(str(error))

    def rebuild(self) -> Followed:
        """Throw the database away and make it again."""
        with self._lock:
            self._open()
            self._renew("asked for")
            return self.follow()

    @property
    def seq(self) -> int:
        """The entry up to which the database goes."""
        return self._seq

    def code(self, name: str) -> int:
        """The number of a type or field in the database; -1 for one that no row has."""
        found = self._names.get(name)
        if found is None:
            row = self.read(lambda db: db.row("SELECT code FROM @name WHERE name = ?", (name,)))
            if row is None:
                return -1
            found = self._names[name] = int(row[0])
        return found

    def codes(self, type: str) -> Mapping[str, int]:
        """The searchable fields of a type that are not text, with their numbers."""
        shape = self.shapes.get(type)
        if shape is None:
            return {}
        prefix = shape.type.collection
        known = {name: self.code(f"{prefix}.{name}") for name, _how in shape.plain}
        return Codes(known, lambda name: self.code(f"{prefix}.{name}"))

    def text_of(self, type: str, data: bytes) -> str:
        """The text of a record that is searched and shown."""
        return text_of(self.shapes[type], data)

    def shown(self, type: str, data: bytes) -> tuple[str, Aggregate]:
        """The same text, and the aggregate, of a record that is decoded once."""
        return shown_of(self.shapes[type], data)

    # -- opening -----------------------------------------------------------------------------

    def _open(self) -> Database:
        try:
            return self._opened()
        except (AccessDenied, ReadOnly, Unsupported) as error:
            self.close()
            if not self._falls_back:
                raise
            self.notices.append(f"the search index is not that of all hosts: {error}")
            self._falls_back, self._home = False, self._file()
            return self._opened()
        except BaseException:
            # Without its tables it is of no use.
            self.close()
            raise

    def _opened(self) -> Database:
        database = self._database
        if database is None:
            known = self._home.is_there
            database = self._database = self._home.open()
            if database.version and not self._is_ours(database):
                self._renew("it belongs to another store")
                return self._opened()
            if not database.version:
                if known:
                    self.notices.append("the search index was empty and is made anew")
                with database.writing():
                    database.prepare(self.identity)
        return database

    @property
    def identity(self) -> str:
        """The store, its lineage, and what the database was made for."""
        meta = self.store.objects.meta
        return f"{meta.store_id.hex()}:{meta.lineage_id.hex()}:{self._digest}"

    def _is_ours(self, database: Database) -> bool:
        row = database.row("SELECT value FROM @meta WHERE key = 'store'")
        return row is not None and row[0] == self.identity

    def _renew(self, reason: str) -> None:
        notice = f"the search index is made anew: {reason}"
        self.notices.append(notice)
        if reason != "asked for":
            warn(notice)
        seen = self._database
        self.close()
        self._forget()
        self._home.remove(seen)

    def _forget(self) -> None:
        """What was read of a database that is no more says nothing."""
        self._names.clear()
        self._seq = -1
        self._behind = True
        self.models.forget()
        self.made += 1

    # -- catching up -------------------------------------------------------------------------

    def _follow(self, *, once: bool = False) -> Followed:
        database = self._open()
        head = self.store.view().seq
        done = Followed(self._seq, 0, 0, 0, 0)
        self._is_short = False
        if self._seq == head and self.models.settled(database, head):
            return done
        entries = records = embedded = unread = 0
        while True:
            try:
                with database.writing():
                    start, at, head, taken, more = self._transaction(database, head)
            except BaseException:
                self.models.undo()
                raise
            entries += max(0, at - start)
            records += taken.records
            unread += taken.unread
            embedded += more
            self._seq = at
            for seq in [seq for seq in tuple(self._told) if seq <= at]:
                del self._told[seq]
            self._is_short = at < head
            if not self._is_short:
                self._behind = False
            if once or not self._is_short:
                return Followed(at, entries, records, embedded, unread)

    def _transaction(self, database: Database, head: int) -> tuple[int, int, int, Taker, int]:
        """What one transaction takes in: from which entry, to which, of how many; what was taken,
        and how many older rows got vectors.
        """
        self.models.begin(database)
        row = database.row("SELECT value FROM @meta WHERE key = 'seq'")
        assert row is not None
        start = int(row[0])
        # Where it is greater another process has seen a newer state.
        head = max(head, start)
        taken = Taker(self, database)
        at = self._take(taken, start, head)
        if at != start:
            database.run("UPDATE @meta SET value = ? WHERE key = 'seq'", (str(at),))
        return start, at, head, taken, self.models.end(database, rest=at >= head)

    def _take(self, taker: Taker, start: int, head: int) -> int:
        """Entries behind `start` until a transaction is full; the last one taken in."""
        horizon = horizon_now(self.store.core).seq
        at = start
        if start < 0:
            at = horizon
            taker.database.run(
                "INSERT INTO @meta VALUES ('base', ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(at),),
            )
            taker.base(at)
        elif start < horizon:
            raise CorruptIndex("history was given up that it had not seen")
        for entry in self._entries(at, head) if head > at else ():
            if start >= 0 and any(change.ref == PURGED_REF for change in entry.changes):
                # Nothing of what was purged stays, in no free page either.
                raise CorruptIndex("content was purged")
            taker.entry(entry)
            at = entry.seq
            if taker.records >= _STEP:
                break
        taker.end()
        if at >= head:
            self._drop_before(taker.database, horizon)
        return at

    def _drop_before(self, database: Database, horizon: int) -> None:
        """Rows that no state inside the horizon has. The last one stays: the next would get its
        number, which handles that have read it take for the row that it was.
        """
        if horizon <= 0:
            return
        gone = database.rows(
            "SELECT doc FROM @item WHERE until <= ? AND doc < (SELECT max(doc) FROM @item)",
            (horizon,),
        )
        if not gone:
            return
        for table in ("item", "link"):
            database.many(f"DELETE FROM @{table} WHERE doc = ?", gone)
        for (code,) in database.rows("SELECT code FROM @model"):
            places = [(vector_place(code, doc),) for (doc,) in gone]
            database.many("DELETE FROM @vector WHERE place = ?", places)
        database.drop_texts([(int(doc),) for (doc,) in gone])
        database.run("DELETE FROM @value WHERE doc NOT IN (SELECT doc FROM @item)")

    def name(self, database: Database, name: str) -> int:
        """The number of a type or field, given now if it has none."""
        found = self._names.get(name)
        if found is None:
            # The next number, and no sequence: what is rolled back leaves no gap.
            database.run(
                "INSERT INTO @name(code, name) SELECT coalesce(max(code), 0) + 1, ? FROM @name "
                "WHERE TRUE ON CONFLICT (name) DO NOTHING",
                (name,),
            )
            row = database.row("SELECT code FROM @name WHERE name = ?", (name,))
            assert row is not None
            found = int(row[0])
        return found
