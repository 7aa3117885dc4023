"""Reading the rows of common words beside questions, so that no question waits for them.

Floor 7. Invariant: it changes no answer: what it read is what a question would have read, of the
rows that there were when it began. It has a connection of its own, takes no lock, and ends with its
owner; what goes wrong is left to the question that meets it.
"""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from cas.errors import CasError
from cas.recall.database import Database
from cas.recall.fit import Places, places_of
from cas.recall.text import STOP_WORDS, WORDS, Clause

WARM_ROWS: Final = 20_000
"""Of so many rows the words that stand in many of them are read before somebody asks."""
_SAMPLE: Final = 256
"""Texts that tell which words these are: those in one of `_COMMON` of them."""
_COMMON: Final = 100


class Read(NamedTuple):
    """The rows of a term, of the first `size` rows."""

    term: str
    size: int
    places: Places


class Beforehand:
    """The thread, over a connection that it closes. Made and closed by one thread, which takes what
    was read with `take`. `texts_of` gives texts of rows, and is called on the thread.
    """

    def __init__(
        self,
        database: Database,
        texts_of: Callable[[Database, Sequence[int]], list[str]],
        size: int,
    ) -> None:
        self._database, self._texts_of, self._size = database, texts_of, size
        self._closing = threading.Event()
        self._read: SimpleQueue[Read] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="cas-recall-words", daemon=True)
        self.thread.start()

    def take(self) -> list[Read]:
        """What was read since the last time."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._read.get_nowait())
        return found

    def close(self) -> None:
        """End it, after the word that is under way."""
        self._closing.set()
        self.thread.join()

    def _run(self) -> None:
        with suppress(CasError), closing(self._database) as db:
            for word in self._common(db):
                if self._closing.is_set():
                    return
                term = db.term(word)
                if term is not None:
                    found = db.postings(Clause("word", word), term, 0)
                    self._read.put(Read(term, self._size, places_of(*found, self._size)))

    def _common(self, db: Database) -> list[str]:
        """Words that stand in many texts, those in most of them first."""
        texts = self._texts_of(db, range(1, self._size, max(1, self._size // _SAMPLE)))
        met = Counts(word for text in texts for word in frozenset(WORDS.findall(text.lower())))
        common = [word for word, count in met.most_common() if count * _COMMON >= len(texts)]
        return [word for word in common if word not in STOP_WORDS]
