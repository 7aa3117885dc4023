"""Which commits rules keep: a pure decision, and the policy that a store holds.

Floor 4; implements docs/format.md section 5.7 (`policy/retention`). Invariant: what a decision
keeps depends on the times of the commits given and on the rule, and on no clock; deciding again
about what was kept keeps all of it; the newest commit is always kept.

Times are cut into hours, days, weeks (from Monday), months and years of UTC. Of each such period
the newest commit stands for all. A rule that asks for more periods than there are keeps the oldest
commit too, so that the first state is not lost while there is room for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from attrs import evolve, frozen

from cas.errors import Invalid
from cas.limits import HORIZON_DAYS, HORIZON_ENTRIES, RETENTION_COUNT_MAX, RETENTION_RULES_MAX
from cas.model.encoding import decode, encode, is_extras, shape
from cas.model.names import HEADS, TAGS

FOREVER: Final = -1
"""A count without end."""

_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
_SPAN: Final = re.compile(r"([0-9]{1,7})([hdwmy])")
_SPAN_TEXT: Final = re.compile(r"(?:[0-9]{1,7}[hdwmy])+")


# -- durations -------------------------------------------------------------------------------------


@frozen
class Span:
    """A duration by the calendar: `2y5m7d3h`. Months are of the calendar, a day has 24 hours."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __attrs_post_init__(self) -> None:
        for name in ("years", "months", "days", "hours"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= RETENTION_COUNT_MAX:
                raise Invalid(
                    f"A duration has from 0 to {RETENTION_COUNT_MAX} {name}, not {value!r}."
                )

    @classmethod
    def parse(cls, text: str) -> Span:
        """The duration of a text like `30d`, `1y6m` or `36h` (w: weeks). Raises `Invalid`."""
        if not _SPAN_TEXT.fullmatch(text):
            raise Invalid(f"{text!r} is no duration; write one like 30d, 12h, 2w or 1y6m.")
        parts: dict[str, int] = {}
        for number, unit in _SPAN.findall(text):
            if unit in parts:
                raise Invalid(f"{text!r} names the unit {unit} twice.")
            parts[unit] = int(number)
        days = parts.get("d", 0) + 7 * parts.get("w", 0)
        return cls(parts.get("y", 0), parts.get("m", 0), days, parts.get("h", 0))

    def __str__(self) -> str:
        parts = zip((self.years, self.months, self.days, self.hours), "ymdh", strict=True)
        return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"

    def before(self, time_us: int) -> int:
        """The moment that lies this long before another; 0 at the least."""
        day, rest_us = divmod(time_us, _DAY_US)
        year, month, of_month = _civil(day)
        months = year * 12 + month - 1 - 12 * self.years - self.months
        if months < 0:
            return 0
        year, month = divmod(months, 12)
        month += 1
        of_month = min(of_month, _month_days(year, month))
        day = _days(year, month, of_month) - self.days
        return max(0, day * _DAY_US + rest_us - self.hours * _HOUR_US)


def _civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of month of a day counted from 1970-01-01, in any year."""
    era, of_era = divmod(day + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return (
        year_of_era + 400 * era + (month <= 2),
        month,
        of_year - (153 * shifted + 2) // 5 + 1,
    )


def _days(year: int, month: int, of_month: int) -> int:
    """The day counted from 1970-01-01."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + of_month - 1
    of_era = 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + of_year
    return 146_097 * era + of_era - 719_468


def _month_days(year: int, month: int) -> int:
    following = (year, month + 1) if month < 12 else (year + 1, 1)
    return _days(*following, 1) - _days(year, month, 1)


# -- rules -----------------------------------------------------------------------------------------

_PERIODS: Final[Mapping[str, Callable[[int], object]]] = {
    "hourly": lambda time_us: time_us // _HOUR_US,
    "daily": lambda time_us: time_us // _DAY_US,
    "weekly": lambda time_us: (time_us // _DAY_US + 3) // 7,
    "monthly": lambda time_us: _civil(time_us // _DAY_US)[:2],
    "yearly": lambda time_us: _civil(time_us // _DAY_US)[0],
}
COUNTS: Final = ("last", *_PERIODS)
"""The counts of a rule, by name."""


@frozen
class KeepRule:
    """What stays of the history of each branch whose full name is like `pattern`.

    A number is of commits (`last`) or of periods; `FOREVER` (-1) is without end. `within` keeps
    what is no older than this than the newest commit of the branch.
    """

    pattern: str
    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None

    def __attrs_post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int or not FOREVER <= value <= RETENTION_COUNT_MAX:
                raise Invalid(
                    f"--keep-{name} takes a number from 0 to {RETENTION_COUNT_MAX}, or "
                    f"unlimited, not {value!r}."
                )
        if self.within is None and not any(getattr(self, name) for name in COUNTS):
            raise Invalid(
                "A rule that keeps nothing is none; give it at least --keep-last 1, which keeps "
                "the newest."
            )

    def __str__(self) -> str:
        parts = [
            f"{name} {'unlimited' if number == FOREVER else number}"
            for name in COUNTS
            if (number := getattr(self, name))
        ]
        return ", ".join(parts + ([f"within {self.within}"] if self.within is not None else []))


@frozen
class HorizonRule:
    """How far back undo and `at` have to reach: `within` and `entries`, whichever is further."""

    within: Span = Span(days=HORIZON_DAYS)
    entries: int = HORIZON_ENTRIES

    def __attrs_post_init__(self) -> None:
        if type(self.entries) is not int or not 0 <= self.entries <= RETENTION_COUNT_MAX:
            raise Invalid(f"A horizon keeps 0 to {RETENTION_COUNT_MAX} entries.")


@frozen
class RetentionPolicy:
    """Rules for branches, and how far back everything is kept.

    A branch without a rule keeps all.
    """

    rules: tuple[KeepRule, ...] = ()
    horizon: HorizonRule = HorizonRule()

    def rule_for(self, ref: str) -> KeepRule | None:
        """The rule of a ref: that of the longest pattern it is like; None where all is kept."""
        found = [rule for rule in self.rules if fnmatchcase(ref, rule.pattern)]
        return max(found, key=lambda rule: (len(rule.pattern), rule.pattern), default=None)

    def with_rule(self, rule: KeepRule) -> RetentionPolicy:
        """The policy with this rule in place of one of the same pattern."""
        others = [known for known in self.rules if known.pattern != rule.pattern]
        ordered = tuple(sorted([*others, rule], key=lambda known: known.pattern.encode()))
        return evolve(self, rules=ordered)


def check_policy(policy: RetentionPolicy) -> None:
    """Refuse a policy that does not say what it seems to: rules of one pattern, and a pattern that
    no full name of a branch or tag can be like. Raises `Invalid`.
    """
    seen: set[str] = set()
    for rule in policy.rules:
        if not rule.pattern.startswith((HEADS, TAGS, "*", "?", "[")):
            raise Invalid(
                f"No branch is like {rule.pattern!r}: a rule goes by full names; write "
                f"{branch_pattern(rule.pattern)!r}."
            )
        if rule.pattern in seen:
            raise Invalid(
                f"Two rules have the pattern {rule.pattern!r}; join them, since a branch goes by "
                "one."
            )
        seen.add(rule.pattern)


def branch_pattern(pattern: str) -> str:
    """A pattern of full names of branches or tags; one that says neither is of branches.

    Raises `Invalid`.
    """
    if not pattern or not pattern.isprintable() or len(pattern) > 255:
        raise Invalid(f"{pattern!r} is no pattern of branches; write one like agents/*.")
    return pattern if pattern.startswith((HEADS, TAGS)) else HEADS + pattern


# -- the decision ----------------------------------------------------------------------------------


@frozen
class Candidate:
    """A commit about which a rule decides. `time_us`: µs since 1970 UTC, as the commit says."""

    id: bytes
    time_us: int


def decide(candidates: Iterable[Candidate], rule: KeepRule) -> dict[bytes, tuple[str, ...]]:
    """What a rule keeps of one history, and why: by id the names of the counts that ask for it.

    Commits of one time are taken in the order given, the first for the newest.
    """
    ordered = sorted(candidates, key=lambda candidate: -candidate.time_us)
    kept: dict[bytes, list[str]] = {}

    def keep(candidate: Candidate, why: str) -> None:
        reasons = kept.setdefault(candidate.id, [])
        if why not in reasons:
            reasons.append(why)

    for name in COUNTS:
        for candidate in _standing(ordered, name, getattr(rule, name)):
            keep(candidate, name)
    if rule.within is not None and ordered:
        since_us = rule.within.before(ordered[0].time_us)
        for candidate in ordered:
            if candidate.time_us < since_us:
                break
            keep(candidate, f"within {rule.within}")
    return {id: tuple(reasons) for id, reasons in kept.items()}


def _standing(ordered: Sequence[Candidate], name: str, count: int) -> Iterable[Candidate]:
    """The newest commit of each of the newest `count` periods, and the oldest while there is room.

    `last` counts commits instead of periods.
    """
    if name == "last":
        return ordered if count == FOREVER else ordered[:count]
    found: list[Candidate] = []
    period_of = _PERIODS[name]
    previous: object = None
    for candidate in ordered:
        if len(found) == count:
            return found
        period = period_of(candidate.time_us)
        if period != previous:
            found.append(candidate)
            previous = period
    if count and ordered and len(found) != count and found[-1] is not ordered[-1]:
        found.append(ordered[-1])
    return found


# -- the bytes -------------------------------------------------------------------------------------


def encode_retention(policy: RetentionPolicy) -> bytes:
    """Canonical bytes of a policy. Raises `Invalid` for one with too many rules, and what
    `check_policy` raises.
    """
    check_policy(policy)
    if len(policy.rules) > RETENTION_RULES_MAX:
        raise Invalid(f"A policy has at most {RETENTION_RULES_MAX} rules.")
    rows: list[list[Any]] = []
    for rule in sorted(policy.rules, key=lambda rule: rule.pattern.encode()):
        keep: dict[str, Any] = {n: getattr(rule, n) for n in COUNTS if getattr(rule, n)}
        if rule.within is not None:
            keep["within"] = _span(rule.within)
        rows.append([rule.pattern, keep])
    return encode([1, rows, [_span(policy.horizon.within), policy.horizon.entries], {}])


def _span(span: Span) -> list[int]:
    return [span.years, span.months, span.days, span.hours]


def decode_retention(data: bytes) -> RetentionPolicy:
    """The policy of these bytes. Raises `NotCanonical`."""
    fields: Any = decode(data)
    shape(
        type(fields) is list and len(fields) == 4 and fields[0] == 1 and is_extras(fields[3]),
        "a retention policy is of version 1",
    )
    rows, horizon = fields[1], fields[2]
    shape(
        type(rows) is list
        and len(rows) <= RETENTION_RULES_MAX
        and all(type(row) is list and len(row) == 2 for row in rows),
        "a retention policy lists patterns and what to keep",
    )
    shape(
        type(horizon) is list and len(horizon) == 2 and _is_count(horizon[1], least=0),
        "a retention policy says how far back the horizon is",
    )
    rules = tuple(_decode_rule(pattern, keep) for pattern, keep in rows)
    patterns = [rule.pattern.encode() for rule in rules]
    shape(patterns == sorted(set(patterns)), "patterns of a policy ascend")
    return RetentionPolicy(rules, HorizonRule(_decode_span(horizon[0]), horizon[1]))


def _decode_rule(pattern: Any, keep: Any) -> KeepRule:
    shape(type(pattern) is str and type(keep) is dict, "a rule has a pattern and what to keep")
    counts = {name: value for name, value in keep.items() if name != "within"}
    shape(
        bool(keep) and all(n in COUNTS and _is_count(v) and v for n, v in counts.items()),
        "a rule keeps counts that are known",
    )
    within = _decode_span(keep["within"]) if "within" in keep else None
    return KeepRule(pattern, within=within, **counts)


def _decode_span(value: Any) -> Span:
    shape(
        type(value) is list and len(value) == 4 and all(_is_count(v, least=0) for v in value),
        "a duration is years, months, days and hours",
    )
    return Span(*value)


def _is_count(value: Any, least: int = FOREVER) -> bool:
    return type(value) is int and least <= value <= RETENTION_COUNT_MAX
