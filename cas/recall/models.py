"""The models of a projection: whose vectors serve, and how those of a new one are made beside.

Floor 7. Invariant: a question is answered with the vectors of one model. A model that takes the
place of another serves from the transaction on that gave its last row a vector; the same one takes
the former's vectors away. Under the projection's lock; what is said in the database survives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from cas.errors import CasError, Invalid, ModelUnavailable
from cas.history.core import warn
from cas.history.store import Store
from cas.model.ids import BlobId
from cas.recall.database import Database, vector_place
from cas.recall.embed import Embedder, StaticEmbedder
from cas.recall.rows import Shape, text_of
from cas.recall.vectors import pack_vectors

_STEP: Final = 5_000
"""Texts that are embedded beside each catching up where rows have no vector yet."""
_BESIDE: Final = 250
"""The same while a former model serves: questions wait for it, and lose nothing by time."""
_DIMENSIONS_MAX: Final = 1 << 16
"""Numbers in a vector; known models have some thousands."""


@frozen
class Model:
    """A model that the database knows: all rows up to `upto` have a vector of it."""

    code: int
    embedder: Embedder
    upto: int


@frozen
class ModelState:
    """How far a model is: `embedded` of `rows` versions of aggregates have a vector of it.

    `serves`: questions are answered with it.
    """

    identity: str
    serves: bool
    embedded: int
    rows: int


class Models:
    """The model that a handle asks for, and the `former` that it takes the place of, if any."""

    def __init__(
        self,
        store: Store,
        shapes: Mapping[str, Shape],
        embedder: Embedder | None,
        former: Embedder | None,
    ) -> None:
        same = former is None or embedder is None or former.identity == embedder.identity
        self.embedder = embedder
        self._former = None if same else former
        self._store, self._shapes = store, shapes
        self._mine: Model | None = None
        self._old: Model | None = None
        self._rows = 0
        self._settled_at = -1
        # Models that could not be asked in this transaction: what came waits for its vectors.
        self._absent: set[int] = set()
        self._before: tuple[Model | None, Model | None, int] = None, None, 0

    @property
    def is_quick(self) -> bool:
        """Whether all are the model of the package: others take long, or wait for a server."""
        asked = (self.embedder, self._former)
        return all(isinstance(each, StaticEmbedder) for each in asked if each is not None)

    def forget(self) -> None:
        """The database was made anew: it knows no model."""
        self._mine = self._old = None
        self._settled_at = -1

    # -- what serves -------------------------------------------------------------------------

    @property
    def serving(self) -> Model | None:
        """The model whose vectors answer: the former as long as it is further."""
        return self._mine if self._old is None else self._old

    @property
    def notice(self) -> str | None:
        """What is told with each answer while a former model serves."""
        if self._old is None or self._mine is None:
            return None
        return (
            f"{self._old.embedder.identity} serves until {self._mine.embedder.identity} has a "
            f"vector of each row: {self._mine.upto:,} of {self._rows:,} by now"
        )

    def of(self, identity: str) -> Model | None:
        """A model by identity; None where this handle, or the database, does not have it."""
        for model in (self._mine, self._old):
            if model is not None and model.embedder.identity == identity:
                return model
        return None

    def states(self, database: Database) -> list[ModelState]:
        """How far each model of the database is."""
        rows = int(database.rows("SELECT count(*) FROM @item")[0][0])
        serving = self.serving
        found = []
        for code, identity in database.rows("SELECT code, identity FROM @model ORDER BY code"):
            ends = vector_place(code, 0), vector_place(code + 1, 0)
            every = database.rows(
                "SELECT count(*) FROM @vector WHERE place >= ? AND place < ?", ends
            )
            serves = serving is not None and serving.code == code
            found.append(ModelState(str(identity), serves, int(every[0][0]), rows))
        return found

    # -- catching up -------------------------------------------------------------------------

    def settled(self, database: Database, seq: int) -> bool:
        """Whether each row up to an entry has a vector of what this handle asks for."""
        if self.embedder is None or self._settled_at == seq:
            return True
        if self._mine is None or self._old is not None:
            return False
        row = database.row(
            "SELECT 1 FROM @model WHERE identity = ? AND upto >= "
            "(SELECT coalesce(max(doc), 0) FROM @item)",
            (self.embedder.identity,),
        )
        if row is not None:
            self._settled_at = seq
        return row is not None

    def begin(self, database: Database) -> None:
        """At the beginning of a transaction: which models there are and how far each is."""
        self._before = self._mine, self._old, self._rows
        self._absent = set()
        if self.embedder is None:
            return
        _check(self.embedder)
        database.run(
            "INSERT INTO @model(code, identity, dimensions, upto) SELECT coalesce(max(code), 0) "
            "+ 1, ?, ?, 0 FROM @model WHERE TRUE ON CONFLICT (identity) DO NOTHING",
            (self.embedder.identity, self.embedder.dimensions),
        )
        known = {}
        for identity, code, upto, width in database.rows(
            "SELECT identity, code, upto, dimensions FROM @model"
        ):
            known[str(identity)] = int(code), int(upto)
            for embedder in (self.embedder, self._former):
                if embedder and embedder.identity == identity and embedder.dimensions != width:
                    raise Invalid(
                        f"The search index has vectors of {identity!r} with {width} numbers, and "
                        f"this embedder gives {embedder.dimensions}: it is another model. Give it "
                        "another identity."
                    )
        self._rows = _last(database)
        code, upto = known[self.embedder.identity]
        self._mine, self._old = Model(code, self.embedder, upto), None
        if self._former is not None and self._former.identity in known:
            code, upto = known[self._former.identity]
            if upto > self._mine.upto:
                self._old = Model(code, self._former, upto)

    def undo(self) -> None:
        """The transaction was rolled back."""
        self._mine, self._old, self._rows = self._before

    def add(self, database: Database, docs: list[int], texts: list[str]) -> None:
        """Vectors of rows that were taken in, by each model that is kept."""
        for model in (self._mine, self._old):
            if model is not None and docs and not _embed(database, model, docs, texts):
                self._absent.add(model.code)

    def end(self, database: Database, *, rest: bool) -> int:
        """At the end of a transaction: rows that were taken in have their vectors. With `rest`
        some that have none get theirs; how many texts were embedded.
        """
        before, self._rows = self._rows, _last(database)
        mine, old = self._mine, self._old
        if mine is None:
            return 0
        # Who lacked nothing before lacks nothing now: what came has its vectors.
        mine, old = (
            Model(each.code, each.embedder, self._rows)
            if each and each.upto >= before and each.code not in self._absent
            else each
            for each in (mine, old)
        )
        assert mine is not None
        count = 0
        if rest:
            if old is not None and old.upto < self._rows:
                old, count = self._embed_rest(database, old, _BESIDE)
            if mine.upto < self._rows:
                mine, more = self._embed_rest(database, mine, _BESIDE if old else _STEP)
                count += more
        for model in (mine, old):
            if model is not None:
                database.run("UPDATE @model SET upto = ? WHERE code = ?", (model.upto, model.code))
        if old is not None and mine.upto >= old.upto:
            _drop(database, old)
            old = None
        self._mine, self._old = mine, old
        return count

    def _embed_rest(self, database: Database, model: Model, limit: int) -> tuple[Model, int]:
        """Vectors of rows that another model, or none, was there for; some at a time."""
        rows = database.rows(
            "SELECT i.doc, i.type, i.blob FROM @item i LEFT JOIN @vector v ON v.place = ? + i.doc "
            "WHERE v.place IS NULL AND i.doc > ? ORDER BY i.doc LIMIT ?",
            (vector_place(model.code, 0), model.upto, limit),
        )
        if rows:
            names = {
                int(code): str(name) for code, name in database.rows("SELECT code, name FROM @name")
            }
            contents = self._store.get_many([BlobId(blob) for _, _, blob in rows])
            texts = [
                text_of(self._shapes[names[type]], data)
                for (_, type, _), data in zip(rows, contents, strict=True)
            ]
            if not _embed(database, model, [int(doc) for doc, _, _ in rows], texts):
                return model, 0
        upto = int(rows[-1][0]) if len(rows) == limit else self._rows
        return Model(model.code, model.embedder, upto), len(rows)


def _last(database: Database) -> int:
    return int(database.rows("SELECT coalesce(max(doc), 0) FROM @item")[0][0])


def vectors_of(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """The packed vectors of texts. Raises `ModelUnavailable`, also for whatever goes wrong in the
    embedder; `Invalid` for what are no such vectors.
    """
    try:
        vectors = embedder.embed(texts)
    except CasError:
        raise
    except Exception as error:
        identity = embedder.identity
        message = f"The embedder {identity!r} failed: {type(error).__name__}: {error}."
        warn(message)
        raise ModelUnavailable(message, path=identity) from error
    return pack_vectors(vectors, embedder.dimensions, len(texts))


def _embed(database: Database, model: Model, docs: list[int], texts: list[str]) -> bool:
    """Store a vector of each text; False when the model cannot be asked now."""
    try:
        packed = vectors_of(model.embedder, texts)
    except ModelUnavailable:
        return False
    base = vector_place(model.code, 0)
    database.insert(
        "vector",
        [(base + doc, data) for doc, data in zip(docs, packed, strict=True)],
        "ON CONFLICT (place) DO UPDATE SET data = excluded.data",
    )
    return True


def _check(embedder: Embedder) -> None:
    """Refuse what is no embedder, before a row says that it is one. Raises `Invalid`."""
    identity = getattr(embedder, "identity", None)
    width = getattr(embedder, "dimensions", None)
    named = isinstance(identity, str) and identity and callable(getattr(embedder, "embed", None))
    if not named or type(width) is not int or not 1 <= width <= _DIMENSIONS_MAX:
        raise Invalid(
            f"{embedder!r} is no embedder: that has an `identity` of text, `dimensions` from 1 to "
            f"{_DIMENSIONS_MAX}, and `embed(texts)`."
        )


def _drop(database: Database, model: Model) -> None:
    ends = vector_place(model.code, 0), vector_place(model.code + 1, 0)
    database.run("DELETE FROM @vector WHERE place >= ? AND place < ?", ends)
    database.run("DELETE FROM @model WHERE code = ?", (model.code,))
