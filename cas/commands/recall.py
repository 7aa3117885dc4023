"""What the fronts ask of search and recall: conditions and types out of words, answers as values.

Floor 8. Invariant: nothing is printed here; what a person typed that cannot be understood is
`Invalid` and says what could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Final

from cas.errors import Invalid
from cas.history.store import Store
from cas.recall.recall import Recall
from cas.recall.tokens import exact_tokens
from cas.recall.where import All, Compare, Condition, Not, Op, plain
from cas.workspace.artifacts import Artifact
from cas.workspace.layout import MAIN
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.registry import AggregateType, type_of, types

MEMORY: Final = type_of(Memory).context
DELIVERED: Final = (Agent, Artifact, Decision, Memory, Project, Run, Sprint)
"""What every command can find; a type of a program's own is known to that program."""
_OPERATORS: Final[dict[str, Op]] = {
    "!=": "=",
    "<=": "<=",
    ">=": ">=",
    "=": "=",
    "<": "<",
    ">": ">",
    "^": "prefix",
}


@contextmanager
def recalling(
    store: Store, branch: str = MAIN, index: str | None = None, vocabulary: str | None = None
) -> Iterator[Recall]:
    """Recall over a store, with the model of the package where numpy is there for it; tokens are
    counted with a vocabulary, if one is named.
    """
    embedder = "default" if find_spec("numpy") is not None else None
    counter = None if vocabulary is None else exact_tokens(vocabulary)
    with Recall(store, branch=branch, embedder=embedder, counter=counter, index=index) as recall:
        yield recall


def where_lives(link: str | None) -> str:
    """The context of what a link names; that of memories where it names nothing that is known."""
    name = "" if link is None else Link.parse(link).type
    return next((type.context for type in types() if type.name == name), MEMORY)


def is_there(recall: Recall, link: Link, as_of: str | None = None) -> bool:
    """Whether a link names something, of a type that this program knows: a slip gives the same
    empty answer as what has no links.
    """
    known = next((type for type in types() if type.name == link.type), None)
    return known is None or bool(
        recall.count(known.cls, {"id": link.id}, archived=True, as_of=as_of)
    )


def types_of(names: Sequence[str]) -> list[AggregateType]:
    """The types of these names. Raises `Invalid` for one that commands do not know."""
    known = {type_of(cls).name: type_of(cls) for cls in DELIVERED} | {
        type.name: type for type in types()
    }
    for name in names:
        if name not in known:
            raise Invalid(
                f"Commands know no type {name!r}; they know {', '.join(sorted(known))}. Find a "
                "type of your own from Python, with `cas.Recall`."
            )
    return [known[name] for name in names]


def condition(type: AggregateType, words: Sequence[str]) -> Condition | None:
    """What FIELD=VALUE and the like mean together: all must hold. Raises `Invalid`."""
    found = [_compare(type, word) for word in words]
    return All(tuple(found)) if found else None


def _compare(type: AggregateType, word: str) -> Condition:
    places = [(word.find(op), -len(op), op) for op in _OPERATORS if op in word]
    if not places:
        raise Invalid(
            f"{word!r} is no condition: write FIELD=VALUE, or with !=, <, <=, >, >=, or ^ for what "
            "begins so."
        )
    place, _, op = min(places)
    name, value = word[:place].strip(), word[place + len(op) :].strip()
    compare = Compare(name, _OPERATORS[op], _value(type, name, value))
    return Not(compare) if op == "!=" else compare


def _value(type: AggregateType, name: str, value: str) -> object:
    how = type.searchable.get(name)
    if how == "number":
        try:
            return float(value)
        except ValueError as error:
            raise Invalid(f"{name} is compared with a number, not {value!r}.") from error
    if how == "time":
        return plain(_time(name, value))
    return value


def _time(name: str, value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise Invalid(f"{name} is compared with a time, as 2026-10-01, not {value!r}.") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
