"""Frozen values: what shares its methods behaves as what attrs makes."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import attrs
import pytest

from cas.model import values

ROWS = tuple(product((0, 1), ("a", "b"), ((), (1,))))


def classes(frozen: Any) -> list[Any]:
    """The same classes, made with either."""

    @frozen
    class Plain:
        number: int
        name: str
        more: tuple[int, ...] = ()

    @frozen
    class Partly:
        number: int = attrs.field(repr=False)
        name: str = attrs.field(eq=False)
        more: tuple[int, ...] = attrs.field(default=(), hash=False)

    @frozen
    class Single:
        number: int

    @frozen
    class Empty:
        pass

    @frozen
    class Child(Plain):
        last: int = 7

    @frozen
    class Own:
        number: int
        name: str
        more: tuple[int, ...]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and self.name == other.name

        def __repr__(self) -> str:
            return f"<{self.name}>"

    @frozen(eq=False)
    class Alike:
        number: int
        name: str
        more: tuple[int, ...]

    return [Plain, Partly, Single, Empty, Child, Own, Alike]


def made(cls: Any) -> list[Any]:
    """Values of a class."""
    count = min(3, len(attrs.fields(cls)))
    return [cls(*row[:count]) for row in ROWS]


@pytest.mark.parametrize("number", range(7))
def test_a_value_is_what_attrs_makes(number: int) -> None:
    """Equality, hash and text, of each of two values of one class or of two, are those of attrs."""
    ours, theirs = classes(values.frozen)[number], classes(attrs.frozen)[number]
    mine, known = made(ours), made(theirs)
    assert list(map(repr, mine)) == list(map(repr, known)) or ours.__name__ == "Alike"
    assert [a == b for a in mine for b in mine] == [a == b for a in known for b in known]
    assert [a != b for a in mine for b in mine] == [a != b for a in known for b in known]
    assert all(a != b for a, b in zip(mine, known, strict=True))
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)
    if ours.__hash__ is not None:
        assert len(set(mine)) == len(set(known))
        assert all(hash(a) == hash(b) for a in mine for b in mine if a == b)
    assert [copy.deepcopy(a) == a for a in mine] == [copy.deepcopy(a) == a for a in known]
    assert "__slots__" in vars(ours)


def test_a_value_that_holds_itself_has_a_text() -> None:
    """What is reached again within its own text is left out of it."""

    @values.frozen
    class Holder:
        held: list[Any]

    holder = Holder([])
    holder.held.append(holder)
    assert repr(holder).count("...") == 1


def test_values_stay_frozen() -> None:
    """No field of a value can be set."""
    value = classes(values.frozen)[0](1, "a")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.number = 2
