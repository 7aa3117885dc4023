"""Values: small frozen classes with named fields, made without a cost at import.

Floor 1. To readers and to the type checker `frozen`, `define` and `field` are those of attrs, and
they behave alike; what differs is when the work is done. A check of all fields goes into
`__attrs_post_init__`; there are no validators. attrs writes and compiles the methods of
each class when its module is imported, 0.4 ms a class and a fifth of the start of every command
(docs/design/018). Here `__init__` is compiled when the first value is made, comparison and `repr`
are shared, and attrs itself is loaded only by who asks for it. Invariant: a class made here answers
`attrs.fields`, `attrs.evolve`, `attrs.asdict` and their like as one made by attrs does
(tests/properties/test_frozen.py).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NoReturn

__all__ = ["asdict", "define", "evolve", "field", "frozen"]

_NOTHING: Final = object()


class _Field:
    """One field that has more to say than its type."""

    __slots__ = ("compared", "factory", "given", "kind", "of_self", "shown", "standard")

    def __init__(
        self,
        *,
        default: Any = _NOTHING,
        factory: Callable[[], Any] | None = None,
        init: bool = True,
        eq: bool = True,
        repr: bool = True,
    ) -> None:
        self.standard, self.factory, self.given = default, factory, init
        self.compared, self.shown = eq, repr
        self.of_self: Callable[[Any], Any] | None = None
        self.kind: Any = None

    def default(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Decorator: the value of this field follows from those before it."""
        self.of_self = function
        return function


_Specs = dict[str, _Field]
"""Fields of a class by name, in order."""

if TYPE_CHECKING:
    from attrs import asdict, define, evolve, field, frozen
else:
    field = _Field

    def frozen(cls: type | None = None, *, eq: bool = True) -> Any:
        """Class decorator: a value that does not change, with slots."""
        return _decorator(cls, eq=eq, is_frozen=True)

    def define(cls: type | None = None, *, eq: bool = True) -> Any:
        """Class decorator: fields that may be set again, with slots; not hashable."""
        return _decorator(cls, eq=eq, is_frozen=False)

    def evolve(value: Any, **changes: Any) -> Any:
        """A copy of a value with some fields changed."""
        cls = value.__class__
        for name, spec in cls.__specs__.items():
            if spec.given and name.lstrip("_") not in changes:
                changes[name.lstrip("_")] = getattr(value, name)
        return cls(**changes)

    def asdict(value: Any) -> dict[str, Any]:
        """The fields of a value by name; what they hold is left as it is."""
        return {name: getattr(value, name) for name in value.__specs__}


def _decorator(cls: type | None, *, eq: bool, is_frozen: bool) -> Any:
    def made(cls: type) -> type:
        return _make(cls, eq=eq, is_frozen=is_frozen)

    return made if cls is None else made(cls)


def _make(source: type, *, eq: bool, is_frozen: bool) -> type:
    """The class with slots in place of defaults, and methods that are the same for all."""
    own = dict(source.__dict__)
    specs: _Specs = {}
    for name, kind in source.__annotations__.items():
        if not str(kind).startswith(("ClassVar", "typing.ClassVar")):
            given = own.pop(name, _NOTHING)
            specs[name] = given if isinstance(given, _Field) else _Field(default=given)
            specs[name].kind = kind
    for name in ("__dict__", "__weakref__"):
        own.pop(name, None)
    methods: dict[str, Any] = {
        "__repr__": _shown([name for name, spec in specs.items() if spec.shown]),
        "__getstate__": _state,
        "__setstate__": _set_state,
    }
    if eq:
        methods |= _comparison([name for name, spec in specs.items() if spec.compared])
        if not is_frozen:
            methods["__hash__"] = None
    if is_frozen:
        methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
    made: type = type(source)(
        source.__name__,
        source.__bases__,
        {
            **methods,
            **own,
            "__attrs_attrs__": _Attributes(source.__name__, specs),
            "__match_args__": tuple(name for name, spec in specs.items() if spec.given),
            "__qualname__": source.__qualname__,
            "__slots__": (*specs, "__weakref__"),
            "__specs__": specs,
        },
    )

    def __init__(self: Any, *values: Any, **named: Any) -> None:
        compiled = _compiled(made, specs)
        type.__setattr__(made, "__init__", compiled)
        compiled(self, *values, **named)

    type.__setattr__(made, "__init__", __init__)
    return made


def _compiled(cls: type, specs: _Specs) -> Callable[..., None]:
    """`__init__` of a class: sets each slot, past `__setattr__`."""
    known: dict[str, Any] = {"_nothing": _NOTHING}
    arguments, lines = ["self"], []
    for number, (name, spec) in enumerate(specs.items()):
        known[f"_set{number}"] = cls.__dict__[name].__set__
        known[f"_make{number}"] = spec.of_self or spec.factory
        known[f"_standard{number}"] = spec.standard
        argument = name.lstrip("_")
        value, standard = argument, ""
        if spec.of_self is not None or spec.factory is not None:
            value = f"_make{number}({'self' if spec.of_self is not None else ''})"
            if spec.given:
                value = f"{value} if {argument} is _nothing else {argument}"
                standard = "=_nothing"
        elif spec.standard is not _NOTHING:
            standard = f"=_standard{number}"
        if spec.given:
            arguments.append(argument + standard)
        lines.append(f"    _set{number}(self, {value})\n")
    if hasattr(cls, "__attrs_post_init__"):
        lines.append("    self.__attrs_post_init__()\n")
    text = f"def __init__({', '.join(arguments)}):\n{''.join(lines) or '    pass'}"
    exec(compile(text, f"<fields of {cls.__module__}.{cls.__qualname__}>", "exec"), known)
    method: Callable[..., None] = known["__init__"]
    method.__qualname__, method.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return method


def _comparison(names: list[str]) -> dict[str, Any]:
    """`__eq__` and `__hash__` over some fields; values of two classes are never equal."""
    get: Callable[[Any], Any] = attrgetter(*names) if names else lambda value: ()

    def __eq__(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        equal: bool = get(self) == get(other)
        return equal

    def __hash__(self: Any) -> int:
        return hash(get(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _shown(names: list[str]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:
        shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__.rsplit('>.', 1)[-1]}({shown})"

    return __repr__


def _refuse(self: Any, name: str, value: Any = None) -> NoReturn:
    raise import_module("attrs.exceptions").FrozenInstanceError


def _state(self: Any) -> dict[str, Any]:
    return {name: getattr(self, name) for name in self.__specs__}


def _set_state(self: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)


class _Attributes:
    """What attrs knows of a class, for its own functions; made when first asked for."""

    __slots__ = ("_made", "_name", "_specs")

    def __init__(self, name: str, specs: _Specs) -> None:
        self._name, self._specs = name, specs
        self._made: Any = None

    def __get__(self, value: Any, owner: type) -> Any:
        if self._made is None:
            attrs = import_module("attrs")
            fields = {}
            for name, spec in self._specs.items():
                more: dict[str, Any] = {}
                if spec.of_self is not None:
                    more["default"] = attrs.Factory(spec.of_self, takes_self=True)
                elif spec.factory is not None:
                    more["factory"] = spec.factory
                elif spec.standard is not _NOTHING:
                    more["default"] = spec.standard
                fields[name] = attrs.field(
                    init=spec.given, eq=spec.compared, repr=spec.shown, type=spec.kind, **more
                )
            self._made = attrs.make_class(self._name, fields).__attrs_attrs__
        return self._made
