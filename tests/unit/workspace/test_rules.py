"""Laws of the merge rules: nothing is lost, and order matters only where it is said to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.model.encoding import encode
from cas.model.ids import digest_blob
from cas.workspace.codec import from_fields, to_fields
from cas.workspace.parts import RULES
from cas.workspace.registry import type_named
from cas.workspace.rules import ABSENT, CLASH, SUMS, Contents, merge_fields, merge_value
from tests.unit.workspace.strategies import aggregates

BLOBS: dict[bytes, bytes] = {}


def make(content: bytes) -> bytes:
    """Keep a content; its id."""
    id = digest_blob(content)
    BLOBS[id] = content
    return id


CONTENTS = Contents(BLOBS.__getitem__, make)

SMALL = st.integers(-5, 5)
SETS = st.frozensets(st.text("abc", max_size=2), max_size=5).map(lambda s: sorted(s, key=encode))
LISTS = st.lists(SMALL, max_size=4)
LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n"]), max_size=6).map("".join)
MAPS = st.dictionaries(st.sampled_from("abc"), SMALL, max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "strict": SMALL,
    "last": SMALL,
    "union": SETS,
    "counter": SMALL,
    "append": LISTS,
    "text": LINES,
    "content": LINES.map(lambda text: make(text.encode())),
    "map": MAPS,
    "greatest": SMALL,
}
SYMMETRIC = ["strict", "union", "counter", "text", "content", "map", "greatest"]


def merged(rule: str, base: Any, current: Any, incoming: Any) -> Any:
    """What a rule makes of three values."""
    return merge_value(rule, base, current, incoming, CONTENTS)


def test_every_rule_is_tried() -> None:
    """The laws below are asked of each rule that there is."""
    assert set(VALUES) == set(RULES)


ODD = [0, 1.5, True, "a", b"a", [1, "a"], ["a", 1], {"a": 1}, {"b": [2]}, ABSENT, None]


@pytest.mark.parametrize("rule", RULES)
@given(st.sampled_from(ODD), st.sampled_from(ODD), st.sampled_from(ODD))
def test_a_rule_that_does_not_fit_the_values_is_a_conflict(
    rule: str, base: Any, current: Any, incoming: Any
) -> None:
    """A field whose values its rule can do nothing with is a conflict, or takes a side: a rule
    never fails in the middle of a commit.
    """
    if rule == "content":
        sides = [make(side) if type(side) is bytes else side for side in (base, current, incoming)]
        base, current, incoming = sides
    found = merged(rule, base, current, incoming)
    assert found is CLASH or found is ABSENT or encode(found) is not None


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_one_side_alone_is_taken(rule: str, data: st.DataObject) -> None:
    """Where one side changed nothing the other one's value stands; where both say the same that
    stands, but for rules by which two equal edits are two.
    """
    base, other = data.draw(VALUES[rule]), data.draw(VALUES[rule])
    assert merged(rule, base, base, other) == other
    assert merged(rule, base, other, base) == other
    if rule not in SUMS:
        assert merged(rule, base, other, other) == other


@pytest.mark.parametrize("rule", SYMMETRIC)
@given(data=st.data())
def test_the_order_of_the_sides_does_not_matter(rule: str, data: st.DataObject) -> None:
    """These rules give the same, or clash, whichever side came first."""
    base, one, other = (data.draw(VALUES[rule]) for _ in range(3))
    assert merged(rule, base, one, other) == merged(rule, base, other, one)


@given(SETS, SETS, SETS)
def test_a_union_has_what_either_side_added(
    base: list[str], one: list[str], two: list[str]
) -> None:
    """What a side added is there, what a side removed is gone, and all else stays."""
    found = set(merged("union", base, one, two))
    old, left, right = set(base), set(one), set(two)
    assert found == (old & left & right) | (left - old) | (right - old)


@given(SMALL, SMALL, SMALL)
def test_a_counter_counts_both(base: int, one: int, two: int) -> None:
    """The differences of both sides are in the sum."""
    assert merged("counter", base, one, two) - base == (one - base) + (two - base)


@given(LISTS, LISTS, LISTS)
def test_a_list_keeps_what_both_appended(base: list[int], one: list[int], two: list[int]) -> None:
    """What both appended is there once each, behind what was there, in each side's order."""
    found = merged("append", base, base + one, base + two)
    assert found == base + one + two


@given(MAPS, MAPS, MAPS)
def test_a_map_is_merged_key_by_key(
    base: dict[str, int], one: dict[str, int], two: dict[str, int]
) -> None:
    """Each key is merged strictly, and one that clashes is the clash of the field."""
    each = {
        key: merged("strict", *(side.get(key, ABSENT) for side in (base, one, two)))
        for key in {**base, **one, **two}
    }
    found = merged("map", base, one, two)
    if one == two:
        assert found == one
    elif CLASH in each.values():
        # A side that changed nothing at all never clashes.
        assert found is CLASH
    else:
        assert found == {key: value for key, value in each.items() if value is not ABSENT}


@given(SMALL, SMALL, SMALL)
def test_the_later_side_wins_where_the_rule_is_last(base: int, one: int, two: int) -> None:
    """With `last` the incoming side wins when it changed the field, and else what stands."""
    assert merged("last", base, one, two) == (one if two == base else two)


@given(SMALL, SMALL, SMALL)
def test_a_strict_field_never_guesses(base: int, one: int, two: int) -> None:
    """Two different edits of a strict field clash."""
    found = merged("strict", base, one, two)
    assert (found is CLASH) == (len({base, one, two}) == 3)


def test_equal_is_meant_as_stored() -> None:
    """1, 1.0 and True are three values: a change from one to the other is a change."""
    assert merged("strict", 1, 1.0, 1) == 1.0
    assert type(merged("strict", 1, 1.0, 1)) is float
    assert merged("strict", 0, 1, 1.0) is CLASH
    assert merged("strict", ABSENT, 1, 2) is CLASH
    assert merged("union", ["a"], None, ["a", "b"]) is CLASH


TYPES = ["agent", "decision", "memory", "project", "run", "sprint"]


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_merge_of_aggregates_loses_nothing(name: str, data: st.DataObject) -> None:
    """Each field of the result is what its rule gives, or stands as it stood and is told as a
    clash with what all three sides had; the result is a valid aggregate.
    """
    type = type_named(name)
    base, current, incoming = (to_fields(data.draw(aggregates(type, id="x"))) for _ in range(3))
    # Sides that share something with their base, as real ones do.
    for field in base:
        keep = data.draw(st.sampled_from(["both", "current", "incoming", "none"]))
        if keep in ("both", "current"):
            current[field] = base[field]
        if keep in ("both", "incoming"):
            incoming[field] = base[field]
    fields, clashes = merge_fields(type, base, current, incoming, CONTENTS)
    told = {clash.field: clash for clash in clashes}
    for field, rule in type.rules.items():
        sides = base[field], current[field], incoming[field]
        value = merged(rule, *sides)
        if value is CLASH:
            clash = told.pop(field)
            assert (clash.base, clash.current, clash.incoming) == sides
            assert fields[field] == current[field]
        else:
            assert fields[field] == value
    assert not told
    assert from_fields(type, fields).id == "x"
