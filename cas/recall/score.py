"""How recall weighs what it found: a value, and pure functions of it.

Floor 7. Invariant: the same rows, query and scoring give the same scores and the same choice; what
is not chosen is told with the reason.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import field, fields, frozen

from cas.errors import Invalid
from cas.later import Later

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
else:
    np = Later("numpy", keep=True)

DAY_US: Final = 86_400_000_000
_VERSION: Final = 3
"""Of what the numbers of a scoring mean: a receipt of another one cannot be replayed."""
_LEAST: Final = 0.25
"""What meaning counts where some row has all words of the query."""


def _weight(_instance: Any, attribute: Any, value: object) -> None:
    if not isinstance(value, int | float) or not 0 <= value <= 1_000_000:
        raise Invalid(f"The scoring's {attribute.name} is a number from 0 on, not {value!r}.")


def _rows(_instance: Any, attribute: Any, value: object) -> None:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise Invalid(f"The scoring's {attribute.name} is a whole number from 1 on, not {value!r}.")


@frozen
class Scoring:
    """Weights, half-lives and floors. `relevance` is `text` times how well the words fit, plus
    `meaning` times how near the vectors are, plus `links` times the score of what leads there;
    both from 0 to 1. Words fit by BM25 times the share of the query that a row has. Meaning counts
    a quarter where some row has all words of the query, and fully where none has any: by the square
    of the share that the best row lacks. The score is the relevance times trust, raised by up to
    `recency`, `importance` and `feedback`: nothing is lowered below its relevance by being old.
    """

    text: float = field(default=0.6, validator=_weight)
    meaning: float = field(default=0.4, validator=_weight)
    links: float = field(default=0.1, validator=_weight)
    recency: float = field(default=0.15, validator=_weight)
    importance: float = field(default=0.15, validator=_weight)
    feedback: float = field(default=0.2, validator=_weight)
    half_life_days: float = field(default=60.0, validator=_weight)
    trusted: float = field(default=1.0, validator=_weight)
    unverified: float = field(default=0.95, validator=_weight)
    untrusted: float = field(default=0.6, validator=_weight)
    floor: float = field(default=0.08, validator=_weight)
    """What scores below is left out, as not relevant."""
    alike: float = field(default=0.95, validator=_weight)
    """Rows whose vectors are nearer than this are one: the best stands for all."""
    diversity: float = field(default=0.3, validator=_weight)
    """How much of a row's score it loses for being like what was chosen before it."""
    candidates: int = field(default=100, validator=_rows)
    """Rows of each kind (by words, by meaning) that are looked at."""

    @property
    def plain(self) -> list[float]:
        """As a receipt has it."""
        return [_VERSION, *(float(getattr(self, each.name)) for each in fields(Scoring))]

    @classmethod
    def of_plain(cls, values: Sequence[float]) -> Scoring:
        """The scoring of a receipt. Raises `Invalid` for one of another version."""
        names = [each.name for each in fields(cls)]
        if len(values) != len(names) + 1 or values[0] != _VERSION:
            raise Invalid("This receipt was made by another version of scoring.")
        made = dict(zip(names, values[1:], strict=True))
        return cls(**{**made, "candidates": int(made["candidates"])})


@frozen
class Parts:
    """What a score is made of, each from 0 to 1; `trust` is a factor."""

    text: float
    meaning: float
    links: float
    recency: float
    importance: float
    feedback: float
    trust: float


def relevance(scoring: Scoring, words: Numbers, nearness: Numbers, share: float) -> Numbers:
    """How well rows fit the query, from how their words fit and their nearness. `share`: of the
    query, in the row that has most of it.
    """
    lacking = 1.0 - share if scoring.text else 1.0
    weight = scoring.meaning * (_LEAST + (1.0 - _LEAST) * lacking**2)
    found: Numbers = scoring.text * words + weight * np.maximum(nearness, 0.0)
    return found


def recency(scoring: Scoring, now_us: int, at_us: Numbers) -> Numbers:
    """1 for what is new, half of it for each half-life that has passed."""
    age = np.maximum(now_us - at_us, 0.0) / DAY_US
    found: Numbers = np.exp2(-age / max(scoring.half_life_days, 1e-6))
    return found


def factor_of_trust(scoring: Scoring, trust: Any) -> Numbers:
    """The factor of each row's trust label (0, 1, 2)."""
    factors = np.array([scoring.untrusted, scoring.unverified, scoring.trusted])
    found: Numbers = factors[trust]
    return found


def score(
    scoring: Scoring,
    fits: Numbers,
    recent: Numbers,
    important: Numbers,
    liked: Numbers,
    trust: Numbers,
) -> Numbers:
    """The scores of rows, rounded so that they are the same wherever they are worked out."""
    raised = 1.0 + scoring.recency * recent + scoring.importance * important
    found: Numbers = np.round(fits * trust * (raised + scoring.feedback * liked), 9)
    return found


def fold(scores: Numbers, alike: Numbers, limit: float) -> list[int]:
    """For each row, best first, the place of the row that stands for it; its own if it stands
    itself.
    """
    count = len(scores)
    stands = list(range(count))
    close = np.tril(alike >= limit, -1)
    for place in np.flatnonzero(close.any(axis=1)):
        near = [int(other) for other in np.flatnonzero(close[place]) if stands[other] == other]
        if near:
            stands[place] = max(near, key=lambda other: (float(alike[place, other]), -other))
    return stands


def diverse(
    scores: Numbers, alike: Numbers, weight: float, first: Sequence[int] = ()
) -> Generator[int, bool | None, None]:
    """An order of rows: each next is the best that is left, less what it repeats of those before.

    `first` are places that were chosen already and are not given again. Send False for a row that
    was not taken after all: it repeats nothing.
    """
    left = np.ones(len(scores), np.bool_)
    repeats = np.zeros(len(scores))
    for place in first:
        left[place] = False
        repeats = np.maximum(repeats, alike[:, place])
    while left.any():
        worth = np.where(left, scores * (1.0 - weight * repeats), -np.inf)
        best = int(np.argmax(worth))
        left[best] = False
        taken = yield best
        if taken is not False:
            repeats = np.maximum(repeats, alike[:, best])
