"""Choosing how an object is stored that has an older version: as a delta of it, or whole.

Floor 3; implements docs/format.md section 6.4. Invariant: what is chosen was decoded again and
compared; a delta's depth is one more than that of the very copy of the base that it was made
from, and at most `DELTA_DEPTH_WRITTEN`. Any thread may ask: bases are located behind a lock, read
and compressed beside each other (two that meet in the reader's tables cost time at most).

The cost is bounded: one base is read for an object, and one frame made of it; a second frame,
the whole one, only where the delta is not worth it. How long that would be, the older version
tells by its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cas.errors import CasError
from cas.limits import (
    DELTA_BYTES_MAX,
    DELTA_DEPENDANTS_MAX,
    DELTA_DEPTH_MAX,
    DELTA_DEPTH_WRITTEN,
    ID_BYTES,
    KIB,
)
from cas.objects.bulk import BulkReader, Source
from cas.objects.chains import Place
from cas.storage.codec import (
    DELTA,
    DICTIONARY,
    RECIPE,
    ZSTD,
    compressed_sizes,
    encode_payloads,
)
from cas.storage.delta import encode_deltas
from cas.storage.pack import Made
from cas.storage.record import DELTA_KINDS, NO_GROUP

TARGET_BYTES_MIN: Final = 192
"""Content below this is stored whole: a delta pays 72 bytes to name its base twice."""

EDGE_BYTES: Final = ID_BYTES + 40
"""What naming a base costs, in the payload and in the footer."""
_BASE_FACTOR: Final = 4
_BASE_SLACK_BYTES: Final = 64 * KIB
"""A base much longer than the content costs every read more than it saves."""

_READ_BYTES: Final = 256 * KIB
"""Bases read and decoded together: the memory of larger groups is new each time."""

_SURE: Final = 16
"""A delta of less than a sixteenth of the content is taken without making the whole frame."""

_DRIFTED: Final = 16
"""A version that is a shorter part than this of its content, as a delta, is near enough to what it
is made of for the next one to be made of that too: there is less to read, now and ever after."""

_SAMPLE_BYTES: Final = 16 * KIB
_SAMPLED_FROM: Final = 64 * KIB
"""Of a longer content three samples show how far it can be compressed."""

_RENEWAL: Final = 64
"""Of the deltas that go back to the whole object below a chain, one in this many."""


class Target(NamedTuple):
    """An object and the id of the older version that may be its base."""

    id: bytes
    kind: int
    content: bytes
    group: int
    base: bytes


class _Base(NamedTuple):
    """A copy that a delta is made from. `frame_bytes` is how long its frame is, 0 where it is none
    of its own.
    """

    id: bytes
    kind: int
    depth: int
    content: bytes
    frame_bytes: int


def may_have_base(kind: int, size_bytes: int) -> bool:
    """Whether an object of this kind and length is worth looking for a base."""
    return kind in DELTA_KINDS and TARGET_BYTES_MIN <= size_bytes <= DELTA_BYTES_MAX


class Deltas:
    """Makes deltas for one writer of pack files."""

    def __init__(self, source: Source) -> None:
        self._reader = BulkReader(source)
        self._lock = threading.Lock()
        self._used: Counter[bytes] = Counter()

    def encode(self, targets: Sequence[Target]) -> tuple[list[Made | None], list[Made]]:
        """For each object its delta, or None where it is better whole; and second copies.

        A second copy is one more whole copy of a base on which more than
        `DELTA_DEPENDANTS_MAX` deltas hang, for the new pack: damage to one copy then loses none.
        """
        made: list[Made | None] = [None] * len(targets)
        second: list[Made] = []
        doubtful: list[tuple[int, int]] = []
        near = [
            (at, target, base)
            for at, (target, base) in enumerate(zip(targets, self._bases(targets), strict=True))
            if base is not None and _is_near(target, base)
        ]
        frames = encode_deltas(
            [target.content for _at, target, _base in near],
            [base.content for _at, _target, base in near],
        )
        for (at, target, base), frame in zip(near, frames, strict=True):
            if frame is None:
                continue
            size_bytes = len(target.content)
            if len(frame) + EDGE_BYTES > size_bytes // 2:
                continue
            made[at] = (
                target.id,
                target.kind,
                DELTA,
                base.id + frame,
                size_bytes,
                base.depth + 1,
                target.group,
            )
            if len(frame) + EDGE_BYTES > size_bytes // _SURE:
                # An older version shows how far this one can be compressed.
                doubtful.append((at, base.frame_bytes * size_bytes // len(base.content)))
            elif self._wants_second(target, base):
                second.append(_whole(base, target.group))
        for at, whole_bytes in self._estimated(targets, doubtful):
            delta = made[at]
            assert delta is not None
            if len(delta[3]) + EDGE_BYTES - ID_BYTES > whole_bytes * 2 // 3:
                made[at] = None
        return made, second

    def _estimated(
        self, targets: Sequence[Target], doubtful: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int]]:
        """What the whole frames would take: where no frame of the base says so, samples do."""
        unknown = [at for at, whole_bytes in doubtful if not whole_bytes]
        samples = [_sample(targets[at].content) for at in unknown]
        for at, sample, sample_bytes in zip(
            unknown, samples, compressed_sizes(samples), strict=True
        ):
            yield at, sample_bytes * len(targets[at].content) // len(sample)
        yield from [each for each in doubtful if each[1]]

    def _wants_second(self, target: Target, base: _Base) -> bool:
        """Whether this delta is one too many for the copies that its base has.

        Those of this batch are counted. Those of earlier ones nobody counts, it would take a
        look at every footer: a chain that goes back to its whole object draws a lot instead.
        """
        self._used[base.id] += 1
        if self._used[base.id] == DELTA_DEPENDANTS_MAX + 1:
            return True
        return base.id != target.base and target.id[0] % _RENEWAL == 0

    # -- bases -------------------------------------------------------------------------------

    def _bases(self, targets: Sequence[Target]) -> list[_Base | None]:
        """The copy to use for each: that of its base, or the whole one below a full chain."""
        places: list[Place | None] = []
        ids: list[bytes] = []
        with self._lock:
            for target in targets:
                id, place = self._locate(target)
                ids.append(id)
                places.append(place)
        bases: list[_Base | None] = [None] * len(targets)
        first, size_bytes = 0, 0
        for at, place in enumerate(places):
            size_bytes += 0 if place is None else place.raw_bytes
            if size_bytes >= _READ_BYTES or at == len(places) - 1:
                for number, found in enumerate(
                    self._reader.load(ids[first : at + 1], places[first : at + 1]), first
                ):
                    held = places[number]
                    if held is not None and found.content is not None:
                        own = held.codec in (ZSTD, DICTIONARY)
                        bases[number] = _Base(
                            found.id,
                            found.kind,
                            held.depth,
                            bytes(found.content),
                            held.stored_bytes if own else 0,
                        )
                first, size_bytes = at + 1, 0
        return bases

    def _locate(self, target: Target) -> tuple[bytes, Place | None]:
        """(id, place) of the base to use, the older version or what that is made of; no place when
        there is none that may be one.
        """
        id = target.base
        for _ in range(DELTA_DEPTH_MAX + 1):
            place = self._reader.find(id)
            if (
                place is None
                or place.codec == RECIPE
                or place.kind != target.kind
                or place.group != target.group
                or place.group == NO_GROUP
                or place.raw_bytes > _BASE_FACTOR * len(target.content) + _BASE_SLACK_BYTES
            ):
                break
            deeper = id == target.base and place.depth < DELTA_DEPTH_WRITTEN
            if place.depth == 0 or (deeper and place.stored_bytes * _DRIFTED > place.raw_bytes):
                return id, place
            try:
                id = self._reader.base_of(id, place)
            except CasError:
                break
        return target.base, None


def _sample(content: bytes) -> bytes:
    """The content, or parts of it that compress about as far."""
    size_bytes = len(content)
    if size_bytes <= _SAMPLED_FROM:
        return content
    starts = (0, (size_bytes - _SAMPLE_BYTES) // 2, size_bytes - _SAMPLE_BYTES)
    return b"".join([content[start : start + _SAMPLE_BYTES] for start in starts])


def _is_near(target: Target, base: _Base) -> bool:
    """Whether lengths allow a delta."""
    return 0 < len(base.content) <= DELTA_BYTES_MAX and base.id != target.id


def _whole(base: _Base, group: int) -> Made:
    ((codec, payload),) = encode_payloads([base.content])
    return base.id, base.kind, codec, payload, len(base.content), 0, group
