"""Text into the word pieces of an uncased BERT vocabulary.

Floor 7. Invariant: the ids are those that the vocabulary's own tokenizer gives, special tokens
left out, but for characters that Unicode took in after that tokenizer was made. Any thread may
use it.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from typing import Final

WORD_CHARS_MAX: Final = 100
"""A longer run of letters is one unknown piece, as the vocabulary's tokenizer has it."""

_WORDS_MAX: Final = 1 << 17
"""Words, and runs, whose pieces are remembered; then the memory begins anew."""
_RUN_BYTES_MAX: Final = 32
"""A longer run (a path, an address) is hardly met twice."""

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
_CONTROLS: Final = bytes([*range(9), 11, 12, *range(14, 32), 127])
_PARTING: Final = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x85]")
"""Controls, which part no words, though Python's `split` takes some of them for blanks."""
_LOWER: Final = bytes(range(256)).lower()


class _Runs(dict[bytes, bytes]):
    """Pieces of runs; one that is not known is cut."""

    def __init__(self, cut: Callable[[bytes], bytes]) -> None:
        self._cut = cut

    def __missing__(self, run: bytes) -> bytes:
        return self._cut(run)


class WordPieces:
    """A vocabulary, and the way from text to its ids."""

    def __init__(self, pieces: Sequence[str], unknown: str = "[UNK]") -> None:
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._unknown = (self._ids[unknown],)
        self._longest = max(map(len, pieces), default=0)
        # Of runs between blanks, marks included, and of the words in them: most runs of a text
        # were met before, and of a run that is new most words were.
        self._runs = _Runs(self._run)
        self._words: dict[str, bytes] = {}

    def ids(self, text: str) -> list[int]:
        """Ids of the pieces of a text, in order."""
        return array("q", self.packed(text)).tolist()

    def packed(self, text: str) -> bytes:
        """The same as 8 bytes an id, in the order of this machine."""
        # Without a step of Python for a run that is known.
        return b"".join(map(self._runs.__getitem__, runs_of(text)))

    def _run(self, run: bytes) -> bytes:
        known = self._words
        found: list[bytes] = []
        for word in _words(run):
            pieces = known.get(word)
            if pieces is None:
                pieces = array("q", self._cut(word)).tobytes()
                if len(known) >= _WORDS_MAX:
                    # Another thread may be reading the old one: it stays as it is.
                    known = self._words = {}
                known[word] = pieces
            found.append(pieces)
        whole = b"".join(found)
        if len(run) <= _RUN_BYTES_MAX:
            if len(self._runs) >= _WORDS_MAX:
                self._runs = _Runs(self._run)
            self._runs[run] = whole
        return whole

    def _cut(self, word: str) -> tuple[int, ...]:
        """The longest piece that fits, again and again; unknown where none fits."""
        if len(word) > WORD_CHARS_MAX:
            return self._unknown
        ids = self._ids
        found: list[int] = []
        start, end = 0, len(word)
        while start < end:
            mark = "##" if start else ""
            # No piece is longer: of a long word not every beginning is looked up.
            for stop in range(min(end, start + self._longest), start, -1):
                id = ids.get(mark + word[start:stop])
                if id is not None:
                    found.append(id)
                    start = stop
                    break
            else:
                return self._unknown
        return tuple(found)


def runs_of(text: str) -> list[bytes]:
    """What blanks divide, as UTF-8, its ASCII in lower case and without controls."""
    if text.isascii():
        return text.encode("ascii").translate(_LOWER, _CONTROLS).split()
    runs = _PARTING.sub("", text).split()
    return [run.encode("utf-8", "ignore").lower() for run in runs]


def _words(run: bytes) -> list[str]:
    if run.isascii():
        return _ASCII_WORDS.findall(run.decode("ascii"))
    return "".join(map(_spaced, _plain(run.decode("utf-8")))).split()


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
