"""What a type says of its fields: how two edits of one are merged, and what a search may use.

Floor 6. Invariant: what is said stands in the metadata of the attrs field and nowhere else; a
field of which nothing is said merges strictly and is not searched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import attrs

from cas.errors import Invalid

Rule = Literal["strict", "last", "union", "counter", "append", "text", "content", "map", "greatest"]
"""How a field that both sides changed is merged.

`strict`: a conflict, unless both say the same. `last`: the side that comes in wins. `union`: a
set; additions and removals of both. `counter`: a number; both differences. `append`: a tuple;
what both added at its end. `text`: by line, a conflict where lines clash. `content`: the id of a
blob, whose text is merged by line. `map`: key by key, strictly. `greatest`: the larger value.
"""

Searchable = Literal["text", "keyword", "number", "time"]
"""What a search may do with a field.

`text`: full text and meaning. `keyword`: equal, or one of (a set or tuple: any of its members; a
link: the id it names). `number` and `time`: equal, and ranges.
"""

Unknown = Literal["keep", "refuse"]
"""What becomes of fields that a record has and its type has not: kept, or refused."""

RULES: Final = get_args(Rule)
SEARCHABLES: Final = get_args(Searchable)
RULE: Final = "cas.rule"
SEARCH: Final = "cas.searchable"


def part(
    *,
    rule: Rule = "strict",
    searchable: Searchable | None = None,
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    validator: Any = None,
) -> Any:
    """A field of an aggregate: its merge rule, what a search may do with it, its default.

    `validator` is one of attrs, called as (instance, attribute, value). Raises `Invalid` for a
    rule or a kind of search that there is not.
    """
    if rule not in RULES:
        raise Invalid(f"A merge rule is one of {', '.join(RULES)}, not {rule!r}.")
    if searchable is not None and searchable not in SEARCHABLES:
        raise Invalid(f"`searchable` is one of {', '.join(SEARCHABLES)}, not {searchable!r}.")
    metadata = {RULE: rule, SEARCH: searchable}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata, validator=validator)
    return attrs.field(default=default, metadata=metadata, validator=validator)


def rule_of(attribute: attrs.Attribute[Any]) -> Rule:
    """The merge rule of a field."""
    rule: Rule = attribute.metadata.get(RULE, "strict")
    return rule


def searchable_of(attribute: attrs.Attribute[Any]) -> Searchable | None:
    """What a search may do with a field; None for one that is not searched."""
    found: Searchable | None = attribute.metadata.get(SEARCH)
    return found
