"""Frozen values: classes of attrs that share their equality, their hash and their text.

Floor 1. Invariant: what is made here behaves as `attrs.frozen` makes it: equal are values of the
very same class with equal fields. attrs writes and compiles these three for each class whenever a
program starts, which for fifty classes was a tenth of the start of a command (docs/design/018).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from attrs import frozen as frozen
else:

    def frozen(cls: Any = None, /, **how: Any) -> Any:
        """`attrs.frozen`; with arguments it is that very one."""
        if how:
            return attrs.frozen(cls, **how)
        own = vars(cls)
        if "__eq__" not in own:
            cls.__eq__ = _is_equal
            if own.get("__hash__") is None:
                cls.__hash__ = _hash
        if "__repr__" not in own:
            cls.__repr__ = _text
        return attrs.frozen(eq=False, repr=False)(cls)


_COMPARED: Final[dict[type, Callable[[Any], Any]]] = {}
_HASHED: Final[dict[type, Callable[[Any], Any]]] = {}


def _getter(names: list[str]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _value: ()


def _is_equal(self: Any, other: Any) -> Any:
    cls: Any = self.__class__
    if other.__class__ is not cls:
        return NotImplemented
    get = _COMPARED.get(cls)
    if get is None:
        get = _COMPARED[cls] = _getter([one.name for one in attrs.fields(cls) if one.eq])
    return get(self) == get(other)


def _hash(self: Any) -> int:
    cls: Any = self.__class__
    get = _HASHED.get(cls)
    if get is None:
        hashed = [
            one.name for one in attrs.fields(cls) if one.hash or (one.hash is None and one.eq)
        ]
        get = _HASHED[cls] = _getter(hashed)
    return hash((cls, get(self)))


@recursive_repr("...")
def _text(self: Any) -> str:
    cls: Any = self.__class__
    shown = [f"{one.name}={getattr(self, one.name)!r}" for one in attrs.fields(cls) if one.repr]
    return f"{cls.__qualname__.rsplit('>.', 1)[-1]}({', '.join(shown)})"
