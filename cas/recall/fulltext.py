"""Words as the full text has them, and pieces of texts around some of them.

Floor 7. Invariant: whatever database the rows lie in, the words of a text are those that SQLite's
tokenizer makes (`porter unicode61`, without diacritics), and a piece of a text is the one that its
`snippet` gives; nothing of a text stays anywhere afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final, cast

from cas.errors import Invalid
from cas.later import Later
from cas.recall.text import clauses_of

if TYPE_CHECKING:
    import apsw
else:
    apsw = Later("apsw")

TOKENIZER: Final = ["porter", "unicode61", "remove_diacritics", "2"]
WORDS_MAX: Final = 64
"""The engine makes no longer pieces."""
_CHARS_MAX: Final = 100_000
"""Of a longer text this much is looked through."""


class Words:
    """The tokenizer, over a connection of its owner's. One thread at a time."""

    def __init__(self, connection: apsw.Connection | None = None) -> None:
        self._connection = connection or apsw.Connection(":memory:")
        self._tokenizer = self._connection.fts5_tokenizer(TOKENIZER[0], TOKENIZER[1:])

    def terms(self, text: str, *, query: bool = False) -> list[str]:
        """The words of a text in their order, in the form in which they are searched."""
        found = self._tokenizer(
            text.encode("utf-8", "replace"),
            apsw.FTS5_TOKENIZE_QUERY if query else apsw.FTS5_TOKENIZE_DOCUMENT,
            None,
            include_offsets=False,
            include_colocated=False,
        )
        return cast("list[str]", found)

    def term(self, word: str) -> str | None:
        """The one form of a word; None for what is several words, or none."""
        found = self.terms(word, query=True)
        return str(found[0]) if len(found) == 1 else None


def snippets(texts: Sequence[str], match: str, words: int, marks: tuple[str, str]) -> list[str]:
    """A piece of each text where most of the query's words stand; its beginning where none do.

    Raises `Invalid` for a number of words that is not from 1 to 64.
    """
    if not isinstance(words, int) or not 1 <= words <= WORDS_MAX:
        raise Invalid(f"A snippet has from 1 to {WORDS_MAX} words, not {words!r}.")
    asked = " OR ".join(each.expression for each in clauses_of(match)) or '""'
    with closing(apsw.Connection(":memory:")) as scratch:
        scratch.execute(
            f"CREATE VIRTUAL TABLE shown USING fts5(body, tokenize='{' '.join(TOKENIZER)}')"
        )
        rows = ((number, text[:_CHARS_MAX]) for number, text in enumerate(texts))
        scratch.executemany("INSERT INTO shown(rowid, body) VALUES (?, ?)", rows)
        found = scratch.execute(
            "SELECT rowid, snippet(shown, 0, ?, ?, '…', ?) FROM shown WHERE shown MATCH ?",
            (*marks, words, asked),
        )
        pieces = {int(number): str(piece) for number, piece in found}
    return [pieces.get(number) or _beginning(text, words) for number, text in enumerate(texts)]


def _beginning(text: str, words: int) -> str:
    parts = text[:_CHARS_MAX].split(maxsplit=words)
    return " ".join(parts[:words]) + ("…" if len(parts) > words else "")
