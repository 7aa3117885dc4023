"""Small contents that have much in common and little in themselves: what dictionaries are for.

Invariant: equal seeds give equal contents, and no two of one seed are equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol

from cas.history.store import Store
from cas.model.ids import BlobId

_TEXT: Final = """
the sprint review was moved because of a late dependency and we decided that release notes are
written by whoever closes the issue while customers wait for an answer about billing
"""
_WORDS: Final = _TEXT.split()
_AGENTS: Final = ("planner", "critic", "coder")
ENOUGH: Final = 260
"""So many are enough for a dictionary in a store of `cas.testing.stores.SMALL`."""
PLENTY: Final = 400
"""So many in one batch there, that the batch itself makes one."""


def memories_of(rng: random.Random, count: int) -> list[bytes]:
    """Notes of an agent, about 200 bytes each."""
    return [
        b'{"id": "mem-%016x", "agent": "%s", "kind": "decision", "importance": %d, "text": "%s"}'
        % (
            rng.getrandbits(64),
            rng.choice(_AGENTS).encode(),
            rng.randrange(10),
            " ".join(rng.choices(_WORDS, k=rng.randrange(8, 32))).encode(),
        )
        for _ in range(count)
    ]


@lru_cache(64)
def _memories(seed: bytes, count: int) -> Sequence[bytes]:
    """Kept, because a sweep does one step again and again."""
    return memories_of(random.Random(seed), count)


class Putter(Protocol):
    """What `put_memories` needs of a driver."""

    @property
    def store(self) -> Store:
        """The handle at hand."""

    def fresh(self, size_bytes: int) -> bytes:
        """New content."""

    def put(self, contents: Sequence[bytes], call: Callable[[], Iterable[BlobId]]) -> None:
        """Put what `call` puts."""


def put_memories(driver: Putter) -> None:
    """Enough of what is alike for a dictionary, and for a pack file of its own."""
    _put(driver, ENOUGH)


def put_many_memories(driver: Putter) -> None:
    """A batch that makes a dictionary itself."""
    _put(driver, PLENTY)


def _put(driver: Putter, count: int) -> None:
    contents = _memories(driver.fresh(8), count)
    driver.put(contents, lambda: driver.store.put_many(contents))


MEMORY_STEPS: Final[Mapping[str, Callable[[Putter], None]]] = {
    "memories": put_memories,
    "many memories": put_many_memories,
}
