"""How well rows fit the words of a query, and which fit best, without walking common words whole.

Floor 7. Invariant: what counts is counted among the rows of one state alone; which lists are left
out is decided by bounds, so that the answer is, to the bit, that of all of them added up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cas.later import Later

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int32]
    Counts = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]
    Numbers = NDArray[np.float64]
    Rough = NDArray[np.float32]
else:
    np = Later("numpy", keep=True)

_BYTES_MAX: Final = 128 << 20
"""Places that are remembered, five bytes a row: those of 25 million rows."""
_K1: Final = 1.2
_B: Final = 0.75
_LONG: Final = 8_192
"""Rows of a word beyond which it pays to look at few rows first."""
_SPARSE: Final = 24
"""So many times fewer rows than a word has are searched for in its list one by one."""
_SLACK: Final = 1 + 1e-4
"""Bounds are sums of float32, which are off by less than this."""


class Places(NamedTuple):
    """Rows in which something stands, ascending, and how often it does in each."""

    docs: Docs
    counts: Counts


class Remembered:
    """Places that were read, by what they are of; those that were not asked for longest go first.

    One thread at a time.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[Any, tuple[int, Places]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def of(self, key: Any, size: int, ask: Callable[[int], tuple[Any, Any]]) -> Places:
        """The places among the first `size` rows; `ask` reads those from a row on."""
        upto, known = self._held.get(key, (0, None))
        if known is None or upto < size:
            more = places_of(*ask(upto), size)
            if known is not None:
                self._bytes -= _bytes_of(known)
                docs, counts = (np.concatenate(pair) for pair in zip(known, more, strict=True))
                more = Places(docs, counts)
            known = more
            self._bytes += _bytes_of(known)
        self._held[key] = (size, known)
        self._held.move_to_end(key)
        while self._bytes > _BYTES_MAX and len(self._held) > 1:
            _, (_, dropped) = self._held.popitem(last=False)
            self._bytes -= _bytes_of(dropped)
        return known


def places_of(docs: Any, counts: Any, size: int) -> Places:
    """Places among the first `size` rows, in as few bytes as they need."""
    if len(docs) and docs.max() >= size:
        # Taken in by another handle since: they are of no state that is asked about.
        here = docs < size
        docs, counts = docs[here], counts[here]
    kind = np.uint8 if counts.max(initial=0) < 256 else np.int32
    return Places(docs.astype(np.int32), counts.astype(kind))


def _bytes_of(places: Places) -> int:
    return int(places.docs.nbytes + places.counts.nbytes)


class State:
    """What counts of the rows of one state: how many they are, how long, how frequent words are."""

    def __init__(self, held: Mask, words: Any) -> None:
        self.held, self.words = held, words
        self.count = int(np.count_nonzero(held))
        self.mean = max(float(words[held].sum()) / self.count if self.count else 1.0, 1.0)
        self.every = self.count == len(held) - 1 and not held[0]
        """Whether every row holds."""
        self._frequencies: dict[Any, int] = {}

    def rarity(self, key: Any, docs: Docs) -> float:
        """How much a word counts, by how many rows of the state it stands in."""
        count = self._frequencies.get(key)
        if count is None:
            count = len(docs) if self.every else int(np.count_nonzero(self.held[docs]))
            self._frequencies[key] = count
        return float(np.log1p((self.count - count + 0.5) / (count + 0.5)))

    def lengths(self, docs: Docs) -> Numbers:
        """What the length of each row counts."""
        found: Numbers = _B * self.words[docs]
        found /= self.mean
        found += 1 - _B
        found *= _K1
        return found


class Term(NamedTuple):
    """A word of a query: where it stands, and what it counts in a state."""

    places: Places
    rarity: float

    def fits(self, docs: Docs, counts: Counts, state: State) -> Numbers:
        """What the word adds to each row that has it."""
        found: Numbers = counts.astype(np.float64)
        weights = state.lengths(docs)
        weights += found
        found *= self.rarity
        found /= weights
        return found

    def among(self, docs: Docs) -> tuple[Any, Counts]:
        """Which of these rows have the word, as places among them, and how often."""
        rows, counts = self.places
        if not len(rows):
            return np.zeros(0, np.intp), counts
        at = np.minimum(np.searchsorted(rows, docs), len(rows) - 1)
        here = np.flatnonzero(rows[at] == docs)
        return here, counts[at[here]]

    @property
    def most(self) -> float:
        """More than it adds to any row: a row of no length that has it most often."""
        most = float(self.places.counts.max(initial=0))
        return self.rarity * most / (most + _K1 * (1 - _B))


class Fit:
    """The words of one query in one state.

    The fit of a row is BM25 by the most that any row could have, times its share of the query; a
    share counts each word by how rare it is.
    """

    def __init__(self, state: State, terms: Sequence[Term], sums: Sums) -> None:
        self._state, self._terms, self._sums = state, terms, sums
        whole = 0.0
        for term in terms:
            # One by one: `sum` rounds otherwise from one version of Python to the next.
            whole += term.rarity
        self._whole = max(whole, 1e-9)

    def of(self, docs: Any) -> tuple[Numbers, Numbers]:
        """(the fit, the share) of rows that the state has."""
        fits, shares = self._sums_of(docs.astype(np.int32))
        shares = np.minimum(shares / self._whole, 1.0)
        return fits / self._whole * shares, shares

    def _sums_of(self, docs: Docs) -> tuple[Numbers, Numbers]:
        fits, shares = np.zeros(len(docs)), np.zeros(len(docs))
        for term in self._terms:
            here, counts = self._among(term, docs)
            fits[here] += term.fits(docs[here], counts, self._state)
            shares[here] += term.rarity
        return fits, shares

    def _among(self, term: Term, docs: Docs) -> tuple[Any, Counts]:
        """Which of these rows have a word, as places among them, and how often."""
        rows, counts = term.places
        if len(docs) < _LONG or len(docs) * _SPARSE < len(rows):
            return term.among(docs)
        here, at = self._sums.both(docs, rows)
        return here, counts[at]

    def best(self, allowed: Mask, count: int) -> tuple[Any, float]:
        """The `count` allowed rows that fit best, best first, of equals the first ones; and the
        greatest share that an allowed row has.

        Words are added up from the rarest on, until those that are left can neither bring in a row
        nor a greater share by themselves. They are looked up in rows that they can still decide of.
        """
        terms = sorted(self._terms, key=lambda term: -term.rarity)
        bounds = _Bounds(terms, count)
        with self._sums as sums:
            is_long = False
            while terms and not bounds.settle:
                was_long = is_long
                docs, counts = terms[0].places
                is_long = len(docs) > _LONG
                if is_long and not was_long and len(sums) >= count:
                    self._look_ahead(bounds, *sums.all())
                    if bounds.settle:
                        break
                term = terms.pop(0)
                if not self._state.every or allowed is not self._state.held:
                    here = allowed[docs]
                    docs, counts = docs[here], counts[here]
                bounds.behind(term)
                fits, shares = sums.with_(docs, term.fits(docs, counts, self._state), term.rarity)
                if is_long:
                    self._look_ahead(bounds, docs, fits, shares)
                sums.keep(docs, fits, shares, bounds.open(fits, shares))
            docs, fits, shares = sums.all()
        for term in terms:
            here = bounds.open(fits, shares)
            docs, fits, shares = docs[here], fits[here], shares[here]
            has, counts = self._among(term, docs)
            fits[has] += term.fits(docs[has], counts, self._state)
            shares[has] += term.rarity
            bounds.behind(term)
        docs = docs[bounds.open(fits, shares)].astype(np.int64)
        worth, exact = self.of(docs)
        return best(docs, worth, count), float(exact.max(initial=0.0))

    def _look_ahead(self, bounds: _Bounds, docs: Docs, fits: Rough, shares: Rough) -> None:
        """What the best so far come to in the end tells which rows need not be walked, or kept."""
        leading = best(docs, fits * shares, 2 * bounds.count)
        # Rows in their order are found side by side.
        bounds.reached(*self._sums_of(np.sort(leading)))


class _Bounds:
    """What the words that were not added up yet can still do. All of it is rough, and safe."""

    def __init__(self, terms: Sequence[Term], count: int) -> None:
        self.count = count
        self._rest = sum(term.most for term in terms)
        self._rest_share = sum(term.rarity for term in terms)
        self._least = self._most = 0.0

    def behind(self, term: Term) -> None:
        """A word is added up."""
        self._rest = max(0.0, self._rest - term.most)
        self._rest_share = max(0.0, self._rest_share - term.rarity)

    def reached(self, fits: Numbers, shares: Numbers) -> None:
        """Rows have these sums."""
        self._most = max(self._most, float(shares.max(initial=0)))
        if 0 < self.count <= len(fits):
            place = len(fits) - self.count
            self._least = max(self._least, float(np.partition(fits * shares, place)[place]))

    @property
    def settle(self) -> bool:
        """Whether no row that has only words that are left is among the best, or has the greatest
        share.
        """
        alone = self._rest * self._rest_share
        return alone * _SLACK < self._least and self._rest_share * _SLACK < self._most

    def open(self, fits: Rough, shares: Rough) -> Mask:
        """Rows that may still be among the best, or have the greatest share."""
        upto = shares + self._rest_share
        found: Mask = ((fits + self._rest) * upto * _SLACK >= self._least) | (
            upto * _SLACK >= self._most
        )
        return found


class Sums:
    """Rough sums, a place a row, for one query after the other: outside of `with` all are zero."""

    def __init__(self) -> None:
        self._fits: Any = ()
        self._shares: Any = ()
        self._places: Any = ()
        self._marks: Any = ()
        self._met: list[Docs] = []

    def room_for(self, size: int) -> Sums:
        """The same with a place for each of so many rows."""
        if len(self._fits) < size:
            self._fits = np.zeros(size + size // 2, np.float32)
            self._shares = np.zeros(size + size // 2, np.float32)
        return self

    def __enter__(self) -> Sums:
        self._met = []
        return self

    def __exit__(self, *_: object) -> None:
        for docs in self._met:
            self._fits[docs] = self._shares[docs] = 0

    def __len__(self) -> int:
        return sum(map(len, self._met))

    def with_(self, docs: Docs, fits: Numbers, share: float) -> tuple[Rough, Rough]:
        """The sums of rows with a word's part."""
        return self._fits[docs] + fits.astype(np.float32), self._shares[docs] + np.float32(share)

    def keep(self, docs: Docs, fits: Rough, shares: Rough, here: Mask) -> None:
        """Take sums over for some of the rows. Those that are left out can no longer come to
        anything, and if they are met again it counts too little for them.
        """
        docs = docs[here]
        self._met.append(docs[self._shares[docs] == 0])
        self._fits[docs], self._shares[docs] = fits[here], shares[here]

    def both(self, docs: Docs, rows: Docs) -> tuple[Docs, Any]:
        """Where the rows that are in both lists stand in each."""
        if len(self._places) < len(self._fits):
            self._places = np.zeros(len(self._fits), np.int32)
            self._marks = np.zeros(len(self._fits), np.bool_)
        self._places[docs] = np.arange(len(docs), dtype=np.int32)
        try:
            self._marks[docs] = True
            at = np.flatnonzero(self._marks.take(rows))
        finally:
            self._marks[docs] = False
        return self._places[rows[at]], at

    def all(self) -> tuple[Docs, Rough, Rough]:
        """Rows that were met, each once, and their sums."""
        docs = np.concatenate(self._met) if self._met else np.zeros(0, np.int32)
        return docs, self._fits[docs], self._shares[docs]


def best(docs: Any, worth: Any, count: int) -> Any:
    """The `count` rows that are worth most, best first; of equals those that came first."""
    if 0 < count < len(docs):
        least = np.partition(worth, len(docs) - count)[len(docs) - count]
        here = worth >= least
        docs, worth = docs[here], worth[here]
    return docs[np.lexsort((docs, -worth))][:count]
