"""Text into the word pieces of an uncased BERT vocabulary.

Floor 7. Invariant: the ids are those that the vocabulary's own tokenizer gives, special tokens
left out, but for characters that Unicode took in after that tokenizer was made. Any thread may
use it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

WORD_CHARS_MAX: Final = 100
"""A longer run of letters is one unknown piece, as the vocabulary's tokenizer has it."""

_WORDS_MAX: Final = 1 << 17
"""Words whose pieces are remembered; then the memory begins anew."""

# A word is letters and digits; every mark stands alone. For text of ASCII only.
_ASCII_WORDS: Final = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_CONTROLS: Final = {**dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127]), 9: " ", 10: " "}


class WordPieces:
    """A vocabulary, and the way from text to its ids."""

    def __init__(self, pieces: Sequence[str], unknown: str = "[UNK]") -> None:
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._unknown = (self._ids[unknown],)
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Ids of the pieces of a text, in order."""
        found: list[int] = []
        known = self._known
        for word in words_of(text):
            pieces = known.get(word)
            if pieces is None:
                pieces = self._remember(word)
            found += pieces
        return found

    def _remember(self, word: str) -> tuple[int, ...]:
        pieces = self._cut(word)
        if len(self._known) >= _WORDS_MAX:
            # Another thread may be reading the old one: it stays as it is.
            self._known = {}
        self._known[word] = pieces
        return pieces

    def _cut(self, word: str) -> tuple[int, ...]:
        """The longest piece that fits, again and again; unknown where none fits."""
        if len(word) > WORD_CHARS_MAX:
            return self._unknown
        ids = self._ids
        found: list[int] = []
        start, end = 0, len(word)
        while start < end:
            mark = "##" if start else ""
            for stop in range(end, start, -1):
                id = ids.get(mark + word[start:stop])
                if id is not None:
                    found.append(id)
                    start = stop
                    break
            else:
                return self._unknown
        return tuple(found)


def words_of(text: str) -> list[str]:
    """Lower-case words and single marks of a text, accents left out."""
    if text.isascii():
        return _ASCII_WORDS.findall(text.translate(_CONTROLS).lower())
    return "".join(map(_spaced, _plain(text))).split()


def _plain(text: str) -> str:
    kept = "".join(char for char in text if not _is_control(char))
    bare = "".join(
        char for char in unicodedata.normalize("NFD", kept) if unicodedata.category(char) != "Mn"
    )
    # Letter by letter: a whole word may end in another sigma than its letters do.
    return "".join(char.lower() for char in bare)


def _is_control(char: str) -> bool:
    if char in "\t\n\r":
        return False
    return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs")


def _spaced(char: str) -> str:
    code = ord(char)
    if code < 128:
        return f" {char} " if _ASCII_WORDS.match(char) and not char.isalnum() else char
    if any(low <= code <= high for low, high in _IDEOGRAPHS):
        return f" {char} "
    return f" {char} " if unicodedata.category(char).startswith("P") else char
