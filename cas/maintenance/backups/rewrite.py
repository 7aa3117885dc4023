"""The chain of a vault written anew, with some of its states left out or changed.

Floor 5; implements docs/format.md section 13.3. Invariant: the chain before counts until the last
increment of the new one has its name, and the new one from then on; whatever is removed is removed
after that, and the next writer removes what one that was stopped has left.

The journal moves over whole. Of bodies and vectors those do that a state which stays needs, so that
what only other states had is in no file afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from cas.catalog.catalog import Meta
from cas.clock import Clock
from cas.limits import PACK_BYTES_TARGET
from cas.maintenance.backups.increment import (
    Held,
    Index,
    Origin,
    PackLine,
    SegmentLine,
    State,
    VectorLine,
)
from cas.maintenance.backups.vault import IncrementWriter, Vault, increment_file
from cas.model.ids import Kind
from cas.objects.packs import file_name

FRESH: Final = 0
"""In the place of an increment's number: the bytes are given with the states."""


def meta_of(origin: Origin) -> Meta:
    """What the store said of itself."""
    return Meta(
        origin.store_id,
        origin.lineage_id,
        origin.format,
        origin.features,
        origin.created_us,
        origin.ancestry,
    )


class Rewriting:
    """Writes one new chain. One thread."""

    def __init__(self, vault: Vault, clock: Clock, chain: Sequence[Index]) -> None:
        self._vault = vault
        self._clock = clock
        self._chain = chain
        self._base = vault.numbers()[-1] + 1
        self._number = self._base
        self._previous: bytes | None = None
        self._places: dict[bytes, int] = {}

    def run(self, kept: Mapping[int, Index], fresh: Mapping[bytes, bytes]) -> None:
        """Write a chain with the states of `kept`, by number of their increments before, and make
        it count. The newest increment of the chain has to be one of them.

        `fresh` are bytes that states refer to as `FRESH`. Raises `CorruptBackup` and what a write
        raises; the chain before counts then.
        """
        group: list[Index] = []
        for index in self._chain:
            group.append(index)
            staying = kept.get(index.number)
            large = sum(map(self._size, group)) >= PACK_BYTES_TARGET
            last = index is self._chain[-1]
            if staying is not None or large or last:
                self._write(group, staying, fresh, building=not last)
                group = []

    def _size(self, index: Index) -> int:
        return self._vault.reader(index.number).footer.body_bytes

    def _write(
        self,
        group: Sequence[Index],
        staying: Index | None,
        fresh: Mapping[bytes, bytes],
        *,
        building: bool,
    ) -> None:
        last = group[-1]
        writer = IncrementWriter(
            self._vault.increments, meta_of(last.origin), self._clock.wall_us()
        )
        try:
            segments = []
            for index in group:
                reader = self._vault.reader(index.number)
                for line in index.segments:
                    id = writer.add(Kind.SEGMENT, reader.get(line.id))
                    segments.append(SegmentLine(line.first_seq, line.last_seq, id))
            state = None
            if staying is not None and staying.state is not None:
                lines = [self._line(writer, line, fresh) for line in staying.state.packs]
                state = evolve(staying.state, packs=tuple(lines))
            extras: dict[str, Any] = {} if staying is None else dict(staying.extras)
            extras["base"] = self._base
            extras.pop("building", None)
            if building:
                extras["building"] = True
            new = evolve(
                last,
                number=self._number,
                previous=self._previous,
                segments=tuple(segments),
                checkpoints=tuple([row for index in group for row in index.checkpoints]),
                state=state,
                damaged=() if staying is None else staying.damaged,
                extras=extras,
            )
            writer.seal(new)
        finally:
            writer.abort()
        self._previous = self._vault.reader(self._number).index()[0]
        self._number += 1

    def _line(
        self, writer: IncrementWriter, line: PackLine, fresh: Mapping[bytes, bytes]
    ) -> PackLine:
        body = None if line.body is None else self._held(writer, line.body, fresh)
        vector = line.vector
        if vector is not None:
            vector = VectorLine(vector.version, self._held(writer, vector.bits, fresh))
        return evolve(line, body=body, vector=vector)

    def _held(self, writer: IncrementWriter, place: Held, fresh: Mapping[bytes, bytes]) -> Held:
        number = self._places.get(place.id)
        if number is None:
            content = fresh[place.id] if place.increment == FRESH else self._vault.held(place)
            id = writer.add(Kind.BLOB, content)
            number = self._places[id] = self._number
        return Held(number, place.id)


def names_of(states: Iterable[State]) -> Iterator[str]:
    """Files of the packs that states name."""
    for state in states:
        for line in state.packs:
            if line.name is not None:
                yield file_name(line.name)


def sweep(vault: Vault) -> tuple[int, int]:
    """Remove what the chain that counts does not need: pack files, then increments. (files, bytes).

    Raises `CorruptBackup` where the chain cannot be read, and nothing is removed then.
    """
    chain = vault.chain()
    named = set(names_of([index.state for index in chain if index.state is not None]))
    count = size_bytes = 0
    for file in list(vault.packs.list()):
        if file.name not in named:
            vault.packs.delete(file.name)
            count += 1
            size_bytes += file.size_bytes
    if count:
        vault.packs.sync()
    sizes = {file.name: file.size_bytes for file in vault.increments.list()}
    numbers = vault.numbers()
    going = [number for number in numbers if not chain[0].number <= number <= chain[-1].number]
    for number in going:
        vault.increments.delete(increment_file(number))
        vault.forget(number)
        count += 1
        size_bytes += sizes.get(increment_file(number), 0)
    if going:
        vault.increments.sync()
    return count, size_bytes


def is_swept(vault: Vault) -> bool:
    """Whether no increment is left of a chain that does not count; looks at names only."""
    found = vault.newest()
    if found is None:
        return True
    index = found[1]
    return all(index.base <= number <= index.number for number in vault.numbers())
