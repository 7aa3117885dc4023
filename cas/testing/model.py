"""The plain model beside a workload: what each entry must show, which puts must be there.

Invariant: `entries[seq]` never changes once that entry was acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

Refs = Mapping[str, Mapping[str, bytes]]
"""Full ref name -> path -> blob id."""


@attrs.frozen
class Expected:
    """What the store shows after one entry."""

    refs: Refs
    events: tuple[tuple[str, bytes], ...] = ()
    key: str | None = None


@attrs.frozen
class Progress:
    """How far the workload was: the newest entry and the number of puts, acknowledged and begun."""

    step: str
    acked_seq: int
    begun_seq: int
    acked_puts: int
    begun_puts: int


class Model:
    """`entries[seq]` is what must be seen after entry `seq`; `puts` are ids in order.

    `groups` are puts, as [start, stop), that become visible together.
    """

    def __init__(self) -> None:
        self.entries: list[Expected] = [Expected({})]
        self.puts: list[bytes] = []
        self.groups: list[tuple[int, int]] = []

    def copy(self) -> Model:
        """One that can go its own way."""
        model = Model()
        model.entries, model.puts = list(self.entries), list(self.puts)
        model.groups = list(self.groups)
        return model
