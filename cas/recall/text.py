"""What a person typed, as clauses of a full-text query: never a syntax error.

Floor 7. Invariant: any text or bytes give clauses (perhaps none), and a clause's expression is one
that FTS5 takes. A clause is a word, a phrase ("two words") or a prefix (wor*).
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from cas.errors import Invalid

CLAUSES_MAX: Final = 32
"""Words of a longer query than this are not looked for: the first ones say what it is about."""

_PART: Final = re.compile(r'"([^"]*)"(\*?)|(\w[\w\']*)(\*?)')
_WORD: Final = re.compile(r"\w")
WORDS: Final = re.compile(r"\w[\w\']*")
"""A word as a query has it."""
STOP_WORDS: Final = frozenset(
    [
        "a",
        "about",
        "after",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "before",
        "being",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "for",
        "from",
        "get",
        "got",
        "had",
        "has",
        "have",
        "having",
        "he",
        "her",
        "here",
        "him",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "just",
        "let",
        "like",
        "may",
        "me",
        "might",
        "more",
        "most",
        "must",
        "my",
        "no",
        "nor",
        "not",
        "now",
        "of",
        "off",
        "on",
        "once",
        "only",
        "or",
        "other",
        "our",
        "out",
        "over",
        "own",
        "shall",
        "she",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "to",
        "too",
        "up",
        "us",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


class Clause(NamedTuple):
    """A part of a query; `kind` says whether the words must stand as they are."""

    kind: Literal["word", "phrase", "prefix"]
    text: str

    @property
    def expression(self) -> str:
        """What FTS5 is asked for."""
        quoted = '"' + self.text.replace('"', '""') + '"'
        return quoted + "*" if self.kind == "prefix" else quoted


def clean(query: str | bytes) -> str:
    """The query as text that can be stored and searched, whatever it was."""
    if isinstance(query, bytes):
        query = query.decode("utf-8", "replace")
    if not isinstance(query, str):
        raise Invalid(f"A query is text, not {query!r}.")
    return query.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


def clauses_of(query: str | bytes) -> list[Clause]:
    """Clauses of a query in its order, each once. Words that stand in every text are left out,
    unless there is nothing else.
    """
    every = [_clause(match) for match in _PART.finditer(clean(query))]
    found = list(dict.fromkeys(each for each in every if _WORD.search(each.text)))
    telling = [each for each in found if each.kind != "word" or each.text not in STOP_WORDS]
    return (telling or found)[:CLAUSES_MAX]


def _clause(match: re.Match[str]) -> Clause:
    phrase, phrase_star, word, star = match.groups()
    if phrase is not None:
        text = " ".join(phrase.split())
        many = len(re.findall(r"\w+", text)) > 1
        if phrase_star:
            return Clause("prefix", text)
        return Clause("phrase", text) if many else Clause("word", text.lower())
    return Clause("prefix" if star else "word", word.lower())
