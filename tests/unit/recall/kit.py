"""What the tests of recall share: memories put into a store as a workspace does, in few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cas.history.store import Store
from cas.workspace.codec import to_record
from cas.workspace.layout import context_branch, record_path
from cas.workspace.memories import Memory
from cas.workspace.registry import Aggregate, type_of

SENTENCES = (
    "The API team prefers small pull requests.",
    "Releases are shipped on Tuesdays from the main branch.",
    "The staging database is restored from a backup every night.",
    "Alice reviews changes of the payment service.",
    "Tokens of the deployment bot expire after ninety days.",
    "The cat of the office sleeps on the warm radiator.",
    "Latency of the search endpoint must stay below fifty milliseconds.",
    "Invoices are sent on the first working day of a month.",
)


def memory(id: str, text: str, **fields: Any) -> Memory:
    """A memory of the planner unless said otherwise."""
    return Memory(**{"agent": "planner", **fields, "id": id, "text": text})


def commit(store: Store, *values: Aggregate, gone: Sequence[Aggregate] = ()) -> int:
    """Save these aggregates and remove those, as one entry; its number."""
    if not values and not gone:
        return store.view().seq
    with store.begin(author="test") as tx:
        for value in (*values, *gone):
            type = type_of(type_(value))
            branch = tx.branch(context_branch(type.context))
            path = record_path(type, value.id)
            if value in gone:
                del branch[path]
            else:
                branch[path] = to_record(value)
        return tx.commit().seq


def type_(value: Aggregate) -> type[Aggregate]:
    """The class of a value."""
    return value.__class__
