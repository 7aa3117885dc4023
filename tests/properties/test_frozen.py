"""Values made by `cas.model.values` behave as those that attrs makes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.model import values

NAMES = ("one", "two", "three", "_four")
KINDS = st.sampled_from(["plain", "default", "factory", "of_self", "unshown", "uncompared"])


def shape(kinds: list[str], making: Any) -> dict[str, Any]:
    """The namespace of a class with a field of each kind; those without a default come first."""
    order = sorted(kinds, key=("plain", "unshown").count, reverse=True)
    fields: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for name, kind in zip(NAMES, order, strict=False):
        fields["__annotations__"][name] = "object"
        match kind:
            case "default":
                fields[name] = 7
            case "factory":
                fields[name] = making.field(factory=list)
            case "of_self":
                fields[name] = found = making.field(init=False)
                found.default(lambda self: self.one if "one" in order else 3)
            case "unshown":
                fields[name] = making.field(repr=False)
            case "uncompared":
                fields[name] = making.field(default=None, eq=False)
    return fields


def made(kinds: list[str], making: Any, decorate: str) -> Any:
    """A class of those fields."""
    return getattr(making, decorate)(type("Made", (), shape(kinds, making)))


def outcome(call: Any) -> object:
    """What a call gives, or the kind of error that it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


@given(
    st.lists(KINDS, min_size=0, max_size=4),
    st.lists(st.integers(0, 2), max_size=5),
    st.dictionaries(st.sampled_from(["one", "two", "three", "four", "five"]), st.integers(0, 2)),
    st.sampled_from(["frozen", "define"]),
)
def test_they_behave_as_those_of_attrs(
    kinds: list[str], given_values: list[int], named: dict[str, int], decorate: str
) -> None:
    """Making, showing, comparing, hashing, setting, evolving, matching: what attrs does."""

    def tried(making: Any) -> list[object]:
        cls = made(kinds, making, decorate)
        found: list[object] = [cls.__match_args__, cls.__qualname__, attrs.has(cls)]
        value = outcome(lambda: cls(*given_values, **named))
        if isinstance(value, type):
            return [*found, value]
        again = cls(*given_values, **named)
        other = cls(*[number + 1 for number in given_values], **named)
        hashed = outcome(lambda: hash(value) == hash(again))
        found += [repr(value), value == again, value == other, value != other, hashed]
        found += [value == 1, attrs.asdict(value), outcome(lambda: setattr(value, "one", 5))]
        found += [outcome(lambda: repr(attrs.evolve(value, one=9)))]
        found += [[(a.name, a.alias, a.init, a.eq, a.repr, a.type) for a in attrs.fields(cls)]]
        found += [repr(copy.copy(value)), hasattr(value, "__dict__"), repr(copy.deepcopy(value))]
        found += [outcome(lambda: delattr(value, "two")), outcome(lambda: value.nothing)]
        return found

    assert tried(values) == tried(attrs)


@values.frozen
class Pair:
    """For pickle, which looks classes up by name."""

    left: int
    right: int = 2

    def total(self) -> int:
        """Methods and docstrings stay."""
        return self.left + self.right


def test_a_value_survives_pickle_and_evolve() -> None:
    """Pickle, `evolve`, patterns, weak references: all of a value's fields, and its class."""
    pair = Pair(1)
    assert pickle.loads(pickle.dumps(pair)) == pair == values.evolve(Pair(1, 5), right=2)
    assert pair.total() == 3
    assert Pair.__doc__ == "For pickle, which looks classes up by name."
    match pair:
        case Pair(left, right):
            assert (left, right) == (1, 2)


def test_a_value_does_not_change() -> None:
    """To set or delete a field is the error that attrs raises."""
    pair = Pair(1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        pair.left = 2  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del pair.left


def test_a_value_may_refuse_its_fields() -> None:
    """`__attrs_post_init__` is called when all fields are set, by the first making and later."""

    @values.frozen
    class Positive:
        number: int = 0

        def __attrs_post_init__(self) -> None:
            if self.number < 0:
                raise ValueError(self.number)

    for _ in range(2):
        with pytest.raises(ValueError, match="-1"):
            Positive(-1)
        assert Positive(1).number == 1
        with pytest.raises(ValueError, match="-2"):
            values.evolve(Positive(1), number=-2)
