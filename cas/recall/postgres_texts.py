"""Full text on PostgreSQL: rows of `tsvector`, which of them match, and how often.

Floor 7. Invariant: words are those of SQLite's tokenizer, and how often one stands in a text is
exact: what is found, and how it scores, is what a file gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cas.errors import CorruptIndex, Unsupported
from cas.later import Later
from cas.recall import postgres_dialect as dialect
from cas.recall.database import Match, Rows
from cas.recall.fulltext import Words
from cas.recall.text import Clause

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int64]
else:
    np = Later("numpy", keep=True)


class Asked(Protocol):
    """What is needed of the database."""

    path: str

    def rows(self, sql: str, values: Any = ()) -> Rows:
        """All rows of a statement."""


class Texts:
    """The texts of one connection. One thread at a time."""

    def __init__(self, database: Asked) -> None:
        self._database = database
        self._words = Words()
        self._ranks: Any = None

    def rows_of(self, texts: Sequence[tuple[int, str]]) -> list[tuple[int, int, str]]:
        """The rows of `@text` that texts make."""
        terms = self._words.terms
        return [row for doc, text in texts for row in dialect.parts_of(doc, terms(text))]

    def term(self, word: str) -> str | None:
        """What the full text has for a word; None for what is several, or none, there."""
        return self._words.term(word)

    def postings(self, clause: Clause, term: str | None, after: int) -> tuple[Docs, Docs]:
        """`Database.postings`."""
        if term is not None:
            return self._counted(term, after)
        terms, query = self._query(clause)
        if query is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        prefix = clause.kind == "prefix"
        return self._placed(terms, query, after, prefix=prefix)

    def match(self, clauses: Sequence[Clause]) -> Match:
        """`Database.match`."""
        queries = [self._query(each)[1] for each in clauses]
        if not queries or None in queries:
            return Match("@text m", "m.doc", ("FALSE",), ())
        one = "SELECT doc FROM @text WHERE body @@ ?::tsquery"
        source = " INTERSECT ".join([one] * len(queries))
        if len(queries) == 1:
            source = source.replace("SELECT", "SELECT DISTINCT")
        return Match(f"({source}) m", "m.doc", ("TRUE",), tuple(queries))

    def _query(self, clause: Clause) -> tuple[list[str], str | None]:
        """The words of a clause, and the `tsquery` of them; None where it has no word."""
        terms = self._words.terms(clause.text, query=True)
        if not terms:
            return terms, None
        return terms, dialect.phrase(terms, prefix=clause.kind == "prefix")

    def _counted(self, term: str, after: int) -> tuple[Docs, Docs]:
        """Rows with one word. How often it stands there the server tells as a rank, which grows
        with it; in reading the places themselves it is thirty times slower.
        """
        query = dialect.quoted(term)
        rows = self._database.rows(
            "SELECT doc, ts_rank('{1,1,1,1}', body, ?::tsquery) FROM @text"
            " WHERE body @@ ?::tsquery AND part >= 0 AND doc >= ?",
            (query, query, after),
        )
        docs = np.array([doc for doc, _ in rows], np.int64)
        ranks = np.array([rank for _, rank in rows], np.float64)
        known = self._known_ranks()
        places = np.minimum(np.searchsorted(known, ranks), len(known) - 1)
        if not (known[places] == ranks).all():
            raise CorruptIndex(
                f"{self._database.path}: a word has a rank that no number of places has"
            )
        return _summed(docs, places + 1)

    def _known_ranks(self) -> Any:
        """What the server says of a word that stands in a text once, twice, and so on."""
        if self._ranks is None:
            rows = self._database.rows(
                "SELECT ts_rank('{1,1,1,1}', ('a:' || array_to_string(ARRAY(SELECT"
                " generate_series(1, n)), ','))::tsvector, 'a'::tsquery)"
                " FROM generate_series(1, ?) n ORDER BY n",
                (dialect.PLACES_MAX,),
            )
            ranks = np.array([rank for (rank,) in rows], np.float64)
            if not (np.diff(ranks) > 0).all():
                raise Unsupported(
                    f"The server of {self._database.path} ranks words in a way that is not "
                    'known here. Have the index in a file (`index="cache"`).'
                )
            self._ranks = ranks
        return self._ranks

    def _placed(
        self, terms: list[str], query: str, after: int, *, prefix: bool
    ) -> tuple[Docs, Docs]:
        """Rows with a phrase or a beginning, and how often it stands in each, by its places."""
        whole = [dialect.stored_term(term) for term in (terms[:-1] if prefix else terms)]
        begins = terms[-1] if prefix else None
        rows = self._database.rows(
            "SELECT t.doc, t.part, u.lexeme, u.positions FROM @text t"
            " CROSS JOIN LATERAL unnest(t.body) u"
            " WHERE t.doc IN (SELECT doc FROM @text WHERE body @@ ?::tsquery AND doc >= ?)"
            " AND t.part >= 0 AND (u.lexeme = ANY(?::text[]) OR starts_with(u.lexeme, ?))",
            (query, after, whole, begins),
        )
        places: dict[int, list[set[int]]] = {}
        for doc, part, lexeme, found in rows:
            of = places.setdefault(doc, [set() for _ in terms])
            for number, term in enumerate(whole):
                if term == lexeme:
                    of[number].update(part + place - number for place in found)
            if begins is not None and lexeme.startswith(begins):
                of[-1].update(part + place - len(whole) for place in found)
        counts = {doc: len(set.intersection(*of)) for doc, of in places.items()}
        docs = sorted(doc for doc, count in counts.items() if count)
        return np.array(docs, np.int64), np.array([counts[doc] for doc in docs], np.int64)


def _summed(docs: Docs, counts: Docs) -> tuple[Docs, Docs]:
    """Rows ascending, each once, with the sums of their counts."""
    order = np.argsort(docs, kind="stable")
    docs, counts = docs[order], counts[order]
    first = np.flatnonzero(np.diff(docs, prepend=-1))
    if len(first) == len(docs):
        return docs, counts
    return docs[first], np.add.reduceat(counts, first)
