"""Which commits rules keep: properties of the decision, durations, and the bytes of a policy."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Invalid, NotCanonical
from cas.history.retention import (
    COUNTS,
    FOREVER,
    Candidate,
    HorizonRule,
    KeepRule,
    RetentionPolicy,
    Span,
    branch_pattern,
    decide,
    decode_retention,
    encode_retention,
)
from cas.limits import RETENTION_RULES_MAX
from cas.model.encoding import encode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000

# Two years of hours, and now and then a time that only a broken clock gives.
times = st.one_of(
    st.integers(0, 2 * 366 * 24).map(lambda hours: 1_700_000_000_000_000 + hours * HOUR_US // 2),
    st.sampled_from([0, 1, (1 << 64) - 1]),
)
histories = st.lists(times, min_size=1, max_size=60).map(
    lambda found: [
        Candidate(number.to_bytes(4, "big"), time_us) for number, time_us in enumerate(found)
    ]
)
counts = st.sampled_from([0, 0, 1, 2, 3, 7, FOREVER])
spans = st.builds(
    Span, st.integers(0, 2), st.integers(0, 14), st.integers(0, 400), st.integers(0, 50)
)


@st.composite
def rules(draw: st.DrawFn) -> KeepRule:
    """A rule that keeps something."""
    given = {name: draw(counts) for name in COUNTS}
    within = draw(st.none() | spans)
    if within is None and not any(given.values()):
        given[draw(st.sampled_from(COUNTS))] = draw(st.sampled_from([1, 2, FOREVER]))
    return KeepRule("heads/*", within=within, **given)


def when(time_us: int) -> datetime:
    """A time in UTC."""
    return EPOCH + timedelta(microseconds=time_us)


PERIODS: dict[str, Any] = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: t.isocalendar()[:2],
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: t.year,
}


@given(histories, rules())
def test_deciding_again_keeps_all_that_was_kept(history: list[Candidate], rule: KeepRule) -> None:
    """What a rule has kept it keeps the next time, so that running it twice gives up no more."""
    kept = decide(history, rule)
    left = [candidate for candidate in history if candidate.id in kept]
    assert decide(left, rule).keys() == kept.keys()


@given(histories, rules())
def test_the_newest_commit_stays(history: list[Candidate], rule: KeepRule) -> None:
    """Whatever the rule, the newest commit is kept, and nothing is kept that was not given."""
    kept = decide(history, rule)
    newest = max(history, key=lambda candidate: candidate.time_us)
    assert newest.id in kept
    assert kept.keys() <= {candidate.id for candidate in history}
    assert all(kept.values())


@given(histories, rules(), st.sampled_from(COUNTS), st.integers(1, 5))
def test_asking_for_more_keeps_more(
    history: list[Candidate], rule: KeepRule, name: str, more: int
) -> None:
    """A larger count, or one more rule, never gives up what the smaller one kept."""
    number = getattr(rule, name)
    larger = FOREVER if number == FOREVER else number + more
    # The oldest commit is kept for want of others only: with more to keep it may not be needed.
    oldest = min(reversed(history), key=lambda candidate: candidate.time_us).id
    before = decide(history, rule).keys() - {oldest}
    assert before <= decide(history, attrs.evolve(rule, **{name: larger})).keys()


@given(histories, st.sampled_from(list(PERIODS)), st.integers(1, 9))
def test_each_period_is_kept_by_its_newest_commit(
    history: list[Candidate], name: str, count: int
) -> None:
    """The newest commits of the newest periods stay, found here by the calendar of the library."""
    history = [candidate for candidate in history if candidate.time_us < 1 << 60]
    ordered = sorted(history, key=lambda candidate: -candidate.time_us)
    expected: dict[object, bytes] = {}
    for candidate in ordered:
        expected.setdefault(PERIODS[name](when(candidate.time_us)), candidate.id)
    wanted = list(expected.values())[:count]
    if ordered and len(expected) < count and ordered[-1].id not in wanted:
        wanted.append(ordered[-1].id)
    assert list(decide(history, KeepRule("heads/*", **{name: count}))) == wanted


@given(histories, rules(), st.randoms())
def test_the_order_of_asking_does_not_count(
    history: list[Candidate], rule: KeepRule, chance: Any
) -> None:
    """Commits of different times are decided on alike in whatever order they come."""
    unique = list({candidate.time_us: candidate for candidate in history}.values())
    shuffled = list(unique)
    chance.shuffle(shuffled)
    assert decide(shuffled, rule) == decide(unique, rule)


@given(histories, spans)
def test_within_counts_from_the_newest_commit(history: list[Candidate], span: Span) -> None:
    """A duration reaches back from the newest commit, not from the clock of the host."""
    newest_us = max(candidate.time_us for candidate in history)
    kept = decide(history, KeepRule("heads/*", within=span))
    since_us = span.before(newest_us)
    assert kept.keys() == {c.id for c in history if c.time_us >= since_us}


def test_a_day_of_an_agent_is_kept_as_it_says() -> None:
    """Of a commit every ten minutes for ten days, last 3, hourly 4 and daily 5 keep these."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    history = [
        Candidate(b"%d" % number, _us(start + timedelta(minutes=10 * number)))
        for number in range(10 * 144)
    ]
    kept = decide(reversed(history), KeepRule("heads/*", last=3, hourly=4, daily=5))
    shown = sorted(when(c.time_us) for c in history if c.id in kept)
    expected = [f"03-0{day} 23:50" for day in (6, 7, 8, 9)] + [
        "03-10 20:50", "03-10 21:50", "03-10 22:50", "03-10 23:30", "03-10 23:40", "03-10 23:50",
    ]  # fmt: skip
    assert [f"{moment:%m-%d %H:%M}" for moment in shown] == expected


def _us(moment: datetime) -> int:
    return int((moment - EPOCH).total_seconds()) * 1_000_000


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.integers(0, 300), st.integers(0, 9)
)
def test_months_are_those_of_the_calendar(moment: datetime, months: int, days: int) -> None:
    """A month back is the same day of the month before, or its last day; then days are counted."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    month += 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    expected = moment.replace(year=year, month=month, day=day) - timedelta(days=days)
    found = Span(months=months, days=days).before(_us(moment))
    assert found == max(0, _us(expected))


@given(spans)
def test_durations_are_read_as_they_are_written(span: Span) -> None:
    """The text of a duration gives it back."""
    assert Span.parse(str(span)) == span
    assert span.before(5) <= 5


@pytest.mark.parametrize(
    "text", ["", "d", "5", "-1d", "1.5h", "1d1d", "5x", " 1d", "1d ", "12345678d", "1D", "٣d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A unit without a number, one twice, signs and fractions: each is told how to write it."""
    with pytest.raises(Invalid):
        Span.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"last": 0}, {"last": -2}, {"daily": 1 << 40}, {"last": True}, {"weekly": "3"}],
)
def test_a_rule_keeps_something_that_can_be_counted(wrong: dict[str, Any]) -> None:
    """A rule that keeps nothing, or no number, is refused: it would give up everything."""
    with pytest.raises(Invalid):
        KeepRule("heads/*", **wrong)


def test_the_longest_pattern_rules() -> None:
    """Of several patterns a branch is like, the longest one is its rule; none keeps all."""
    policy = RetentionPolicy()
    for pattern in ("heads/*", "heads/agents/*", "heads/agents/a", "tags/n*"):
        policy = policy.with_rule(KeepRule(pattern, last=1))
    for ref, pattern in {
        "heads/main": "heads/*",
        "heads/agents/b": "heads/agents/*",
        "heads/agents/a": "heads/agents/a",
        "tags/nightly": "tags/n*",
    }.items():
        rule = policy.rule_for(ref)
        assert rule is not None
        assert rule.pattern == pattern
    assert policy.rule_for("tags/v1") is None
    again = policy.with_rule(KeepRule("heads/*", last=9))
    assert len(again.rules) == len(policy.rules)
    assert branch_pattern("x/*") == "heads/x/*"
    for bad in ("", "a\nb", "x" * 300):
        with pytest.raises(Invalid):
            branch_pattern(bad)


def _policy(found: Iterable[KeepRule], horizon: HorizonRule) -> RetentionPolicy:
    policy = RetentionPolicy(horizon=horizon)
    for number, rule in enumerate(found):
        policy = policy.with_rule(attrs.evolve(rule, pattern=f"heads/{number}*"))
    return policy


@given(
    st.builds(
        _policy, st.lists(rules(), max_size=4), st.builds(HorizonRule, spans, st.integers(0, 9))
    )
)
def test_a_policy_is_read_as_it_was_written(policy: RetentionPolicy) -> None:
    """Encoding and decoding give the same policy."""
    assert decode_retention(encode_retention(policy)) == policy


@pytest.mark.parametrize(
    "value",
    [
        [2, [], [[0, 0, 30, 0], 100], {}],
        [1, [], [[0, 0, 30], 100], {}],
        [1, [], [[0, 0, 30, 0], -1], {}],
        [1, [["heads/*", {}]], [[0, 0, 30, 0], 1], {}],
        [1, [["heads/*", {"last": 0}]], [[0, 0, 30, 0], 1], {}],
        [1, [["heads/*", {"last": -2}]], [[0, 0, 30, 0], 1], {}],
        [1, [["heads/*", {"often": 1}]], [[0, 0, 30, 0], 1], {}],
        [1, [["heads/*", {"last": 1}], ["heads/*", {"last": 1}]], [[0, 0, 30, 0], 1], {}],
        [1, [["b", {"last": 1}], ["a", {"last": 1}]], [[0, 0, 30, 0], 1], {}],
        [1, [["a", {"within": [1, 2, 3, 1 << 50]}]], [[0, 0, 30, 0], 1], {}],
        [1, [["a", 1]], [[0, 0, 30, 0], 1], {}],
        [1, [[b"a", {"last": 1}]], [[0, 0, 30, 0], 1], {}],
        {},
    ],
)
def test_only_policies_decode(value: object) -> None:
    """Another version, another shape, a count that is none: nothing else is taken for a policy."""
    with pytest.raises(NotCanonical):
        decode_retention(encode(value))


def test_a_policy_has_a_bounded_number_of_rules() -> None:
    """More patterns than each branch can be held against are refused."""
    policy = RetentionPolicy(
        tuple(KeepRule(f"heads/{n}", last=1) for n in range(RETENTION_RULES_MAX + 1))
    )
    with pytest.raises(Invalid):
        encode_retention(policy)
