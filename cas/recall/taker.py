"""Taking the changes of journal entries into the search database.

Floor 7. Invariant: a record that cannot be read is told and left out, never guessed; what was taken
in of an entry stands in the transaction that says the entry was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from cas.errors import CasError, StorageFailed
from cas.history.core import warn
from cas.history.store import Store
from cas.model.entry import Entry
from cas.model.ids import BlobId, CommitId
from cas.model.names import HEADS
from cas.recall.database import Database
from cas.recall.feedback import FEEDBACK, decode_feedback
from cas.recall.models import Models
from cas.recall.rows import Row, Shape, row_of
from cas.recall.tokens import measure_many
from cas.workspace.layout import RecordChange, changed_records, entry_changes

_GROUP: Final = 2_000
"""Records read, decoded and embedded together."""


class Following(Protocol):
    """What a taker needs of the projection that it works for."""

    store: Store
    branch: str
    shapes: Mapping[str, Shape]

    def name(self, database: Database, name: str) -> int:
        """The number of a type or field, given now if it has none."""

    @property
    def models(self) -> Models:
        """What makes vectors."""


class Taker:
    """Takes changes into the database, in groups that are read and embedded together."""

    def __init__(self, projection: Following, database: Database) -> None:
        self._projection = projection
        self._branch, self._shapes = projection.branch, projection.shapes
        self.database = database
        self._waiting: list[tuple[RecordChange, int, int]] = []
        # As this transaction has them: what is rolled back has no number.
        self._names: dict[str, int] = {}
        self._types: dict[str, _Known] = {}
        row = database.row("SELECT coalesce(max(doc), 0) FROM @item")
        assert row is not None
        self._doc = int(row[0])
        self.records = 0
        self.unread = 0

    def base(self, seq: int) -> None:
        """All records of the state after an entry, as they stand."""
        store = self._projection.store
        view = store.at(seq)
        time_us = store.entry(seq).time_us if seq else 0
        for ref in view.refs(HEADS):
            for change in changed_records(store.core, ref.name, None, CommitId(ref.target)):
                self._add(change, seq, time_us)

    def entry(self, entry: Entry) -> None:
        """What an entry changed."""
        seq, time_us, add = entry.seq, entry.time_us, self._add
        for change in entry_changes(self._projection.store.core, entry):
            add(change, seq, time_us)
        for event in entry.events:
            if event.type == FEEDBACK and (said := decode_feedback(event)) is not None:
                self.database.insert("feedback", [(entry.seq, *said, entry.actor)])

    def _add(self, change: RecordChange, seq: int, time_us: int) -> None:
        type = change.type
        if type is None or change.branch != self._branch:
            return
        if type.context != change.context or type.name not in self._shapes:
            return
        self._waiting.append((change, seq, time_us))
        self.records += 1
        if len(self._waiting) >= _GROUP:
            self.end()

    def end(self) -> None:
        """Take in what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        new = [change for change, _, _ in waiting if change.new is not None]
        rows = list(self._read(new))
        measures = iter(measure_many([row.text for row in rows if row is not None]))
        made = iter(rows)
        group = _Group()
        for change, seq, time_us in waiting:
            known = self._known(change)
            if change.old is not None:
                group.close(known.code, change.id, seq)
            if change.new is not None and (row := next(made)) is not None:
                self._doc += 1
                group.add(self._doc, known, change, row, next(measures), (seq, time_us))
        group.write(self.database)
        self._projection.models.add(self.database, group.docs, group.texts)

    def _known(self, change: RecordChange) -> _Known:
        """The numbers of a type and its fields."""
        assert change.type is not None
        found = self._types.get(change.type.name)
        if found is None:
            shape = self._shapes[change.type.name]
            names = dict.fromkeys([*(name for name, _ in shape.plain), *shape.links])
            fields = _Fields(lambda name: self._name(f"{change.collection}.{name}"))
            for name in names:
                # Now, so that a field that no row has set has a number.
                fields[name]
            found = self._types[change.type.name] = _Known(self._name(change.type.name), fields)
        return found

    def _name(self, name: str) -> int:
        if not self._names:
            # All at once: asked for one by one they cost more than a small entry itself.
            rows = self.database.rows("SELECT name, code FROM @name")
            self._names = {str(each): int(code) for each, code in rows}
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self._projection.name(self.database, name)
        return found

    def _read(self, changes: list[RecordChange]) -> Iterator[Row | None]:
        ids = [change.new for change in changes if change.new is not None]
        for change, data in zip(changes, self._contents(ids), strict=True):
            assert change.type is not None
            try:
                yield None if data is None else row_of(self._shapes[change.type.name], data)
            except CasError as error:
                self.unread += 1
                warn(f"{change.collection}/{change.id} is not searched: {error}")
                yield None

    def _contents(self, ids: list[BlobId]) -> Iterable[bytes | None]:
        store = self._projection.store
        try:
            return list(store.get_many(ids))
        except CasError:
            return [self._content(id) for id in ids]

    def _content(self, id: BlobId) -> bytes | None:
        try:
            return self._projection.store.get(id)
        except StorageFailed:
            raise
        except CasError as error:
            self.unread += 1
            warn(f"a record is not searched: {error}")
            return None


class _Fields(dict[str, int]):
    """Numbers of fields by name, given when first asked for: places in maps are known then."""

    def __init__(self, ask: Callable[[str], int]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, name: str) -> int:
        found = self[name] = self._ask(name)
        return found


class _Known(NamedTuple):
    """The numbers that a type and its fields have in the database."""

    code: int
    fields: _Fields


_UNTIL: Final = 5
"""Where a row of `item` says before which entry it held."""


class _Group:
    """Rows that are written together, table by table.

    Of each as few objects as will do: what is held until all are written costs Python's collector
    as much as writing it.
    """

    def __init__(self) -> None:
        self.docs: list[int] = []
        self.texts: list[str] = []
        self.items: list[list[Any]] = []
        self.fields: list[_Fields] = []
        self.values: list[dict[str, Any]] = []
        self.links: list[tuple[Any, ...]] = []
        self.open: dict[tuple[int, str], int] = {}
        self.closed: list[tuple[int, str, int]] = []

    def close(self, type: int, id: str, seq: int) -> None:
        """The version that an aggregate had holds no longer, from this entry on."""
        place = self.open.pop((type, id), None)
        if place is None:
            self.closed.append((seq, id, type))
        else:
            self.items[place][_UNTIL] = seq

    def add(
        self,
        doc: int,
        known: _Known,
        change: RecordChange,
        row: Row,
        measure: tuple[int, int],
        when: tuple[int, int],
    ) -> None:
        """A version that holds from an entry on."""
        text, values, links, importance, at_us, from_us, to_us, trust, flags = row
        type, fields = known
        tokens, words = measure
        seq, time_us = when
        self.open[type, change.id] = len(self.items)
        self.docs.append(doc)
        self.texts.append(text)
        self.items.append(
            [
                *(doc, type, change.id, change.new, seq, None, time_us, words, tokens),
                *(importance, at_us, from_us, to_us, trust, flags),
            ]
        )
        if not values.keys() <= fields.keys():
            # Places in maps that are met for the first time.
            for name in values:
                fields[name]
        self.fields.append(fields)
        self.values.append(values)
        if links:
            self.links += [(doc, fields[of], link.type, link.id, link.pin) for of, link in links]

    def write(self, db: Database) -> None:
        """Put the rows into the database."""
        db.many(
            "UPDATE @item SET until = ? WHERE id = ? AND type = ? AND until IS NULL", self.closed
        )
        db.insert("item", self.items)
        db.add_texts(zip(self.docs, self.texts, strict=True))
        db.insert("value", self._values(), "ON CONFLICT DO NOTHING")
        db.insert("link", self.links, "ON CONFLICT DO NOTHING")

    def _values(self) -> Iterator[tuple[int, Any, int]]:
        """Rows of `value`, one after the other."""
        for doc, fields, values in zip(self.docs, self.fields, self.values, strict=True):
            for name, value in values.items():
                code = fields[name]
                if type(value) is tuple:
                    for each in value:
                        yield code, each, doc
                else:
                    yield code, value, doc
