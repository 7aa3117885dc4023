"""Pieces of texts around the words of a query, with these words marked.

Floor 7. Invariant: a piece is words of the text in its order, and nothing of it stays in the search
database: the engine's own `snippet` works on a table of the connection's that is empty afterwards.
One thread at a time, inside `Projection.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cas.errors import Invalid
from cas.recall.schema import TOKENIZER, Database
from cas.recall.text import clauses_of

WORDS_MAX: Final = 64
"""The engine makes no longer pieces."""
_CHARS_MAX: Final = 100_000
"""Of a longer text this much is looked through."""
_TABLE: Final = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS temp.shown USING "
    f"fts5(body, tokenize='{' '.join(TOKENIZER)}')"
)


def snippets(
    db: Database, texts: Sequence[str], match: str, words: int, marks: tuple[str, str]
) -> list[str]:
    """A piece of each text where most of the query's words stand; its beginning where none do.

    Raises `Invalid` for a number of words that is not from 1 to 64.
    """
    if not isinstance(words, int) or not 1 <= words <= WORDS_MAX:
        raise Invalid(f"A snippet has from 1 to {WORDS_MAX} words, not {words!r}.")
    asked = " OR ".join(each.expression for each in clauses_of(match)) or '""'
    with db.lock:
        db.run(_TABLE)
        try:
            rows = ((number, text[:_CHARS_MAX]) for number, text in enumerate(texts))
            db.many("INSERT INTO temp.shown(rowid, body) VALUES (?, ?)", rows)
            found = db.rows(
                "SELECT rowid, snippet(shown, 0, ?, ?, '…', ?) FROM temp.shown WHERE shown MATCH ?",
                (*marks, words, asked),
            )
        finally:
            db.run("DELETE FROM temp.shown")
    pieces = {int(number): str(piece) for number, piece in found}
    return [pieces.get(number) or _beginning(text, words) for number, text in enumerate(texts)]


def _beginning(text: str, words: int) -> str:
    parts = text[:_CHARS_MAX].split(maxsplit=words)
    return " ".join(parts[:words]) + ("…" if len(parts) > words else "")
