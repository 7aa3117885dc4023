"""The type Memory: what an agent remembers, where it comes from, and how long it holds.

Floor 6. Invariant: an edit makes a new version and erases none; what a memory replaces it names.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from cas.workspace.links import Link
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, not_valid

ARCHIVED: Final = "archived"
"""The tag of a memory that was forgotten, and not yet removed."""


class Trust(StrEnum):
    """How far what a memory says is relied on."""

    TRUSTED = "trusted"
    UNVERIFIED = "unverified"
    UNTRUSTED = "untrusted"


def _within_one(instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise not_valid("memory", instance.id, attribute.name, f"lies from 0.0 to 1.0, not {value}")


@aggregate("memory", collection="memories", context="memory")
class Memory(Aggregate):
    """Something that an agent remembers.

    `importance` lies from 0.0 to 1.0. `source` is what it was learnt from, pinned where it
    matters which version. `valid_from` and `valid_to` say when what it says is true, `at` when it
    was written down; `supersedes` names the memories that it takes the place of.
    """

    agent: str = part(searchable="keyword")
    text: str = part(rule="text", searchable="text")
    kind: str = part(default="note", rule="last", searchable="keyword")
    importance: float = part(
        default=0.5, rule="greatest", searchable="number", validator=_within_one
    )
    tags: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    source: Link | None = part(default=None, searchable="keyword")
    trust: Trust = part(default=Trust.UNVERIFIED, searchable="keyword")
    at: datetime | None = part(default=None, searchable="time")
    valid_from: datetime | None = part(default=None, searchable="time")
    valid_to: datetime | None = part(default=None, searchable="time")
    supersedes: frozenset[Link] = part(default=frozenset(), rule="union", searchable="keyword")

    def holds_at(self, time: datetime) -> bool:
        """Whether what it says is true at a time, as far as it says so itself."""
        return (self.valid_from is None or self.valid_from <= time) and (
            self.valid_to is None or time < self.valid_to
        )
