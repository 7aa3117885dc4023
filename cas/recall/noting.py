"""Duplicates at the moment of writing: told as a warning, or refused by rule, never dropped.

Floor 7. Invariant: what `note` gives is staged in the unit of work, or an error says why it is not.
What another program saves at the same moment is not seen.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from attrs import frozen

from cas.errors import AggregateExists, Invalid, ModelUnavailable
from cas.recall.models import vectors_of
from cas.recall.recall import Recall
from cas.recall.upkeep import NEAR, Duplicate, duplicates, is_same
from cas.recall.vectors import cosines, lengths_of, unpack
from cas.workspace.memories import Memory
from cas.workspace.work import UnitOfWork

Rule = Literal["warn", "refuse"]
_RULES: Final = ("warn", "refuse")


@frozen
class Noted:
    """A memory that is staged, and what says the same already."""

    memory: Memory
    duplicates: tuple[Duplicate, ...]


class Noting:
    """Notes memories and looks for duplicates first, among what there is and what this unit of work
    has noted through it. One thread.

        noting = Noting(recall, rule="refuse")
        with space.unit_of_work("planner") as uow:
            noting.note(uow, "Releases are shipped on Tuesdays.")
    """

    def __init__(self, recall: Recall, *, rule: Rule = "warn", near: float = NEAR) -> None:
        if rule not in _RULES:
            raise Invalid(f"A rule is one of {', '.join(_RULES)}, not {rule!r}.")
        self._recall, self._rule, self._near = recall, rule, near
        self._noted: WeakKeyDictionary[UnitOfWork, list[Memory]] = WeakKeyDictionary()

    def note(self, uow: UnitOfWork, text: str, **fields: Any) -> Noted:
        """`uow.memories.note`, with what says the same of the same agent. Raises as that does, and
        by the rule `AggregateExists`, which names the nearest; nothing is staged then.
        """
        agent = fields.get("agent") or uow.actor
        before = [each for each in self._noted.get(uow, ()) if each.agent == agent]
        found = duplicates(self._recall, text, agent=agent, near=self._near)
        found = [*self._among(text, before), *found]
        if found and self._rule == "refuse":
            first = found[0]
            raise AggregateExists(
                f"{first.link.loose} says {'the same' if first.exact else 'nearly the same'}: "
                f"{first.text[:80]!r}. Save what becomes of it, or note it without this rule.",
                type=first.link.type,
                id=first.link.id,
            )
        memory = uow.memories.note(text, **fields)
        self._noted.setdefault(uow, []).append(memory)
        return Noted(memory, tuple(found))

    def _among(self, text: str, before: list[Memory]) -> list[Duplicate]:
        """Those of what is staged that say the same."""
        model = self._recall.projection.models.serving
        nearness = [0.0] * len(before)
        if before and model is not None:
            texts = [text, *(each.text for each in before)]
            # One that cannot be asked leaves words alone, as it does in recall.
            with suppress(ModelUnavailable):
                rows = unpack(vectors_of(model.embedder, texts), model.embedder.dimensions)
                nearness = cosines(rows[1:], lengths_of(rows[1:]), rows[0]).tolist()
        return [
            Duplicate(each.link, each.text, near, is_same(each.text, text))
            for each, near in zip(before, nearness, strict=True)
            if near >= self._near or is_same(each.text, text)
        ]
