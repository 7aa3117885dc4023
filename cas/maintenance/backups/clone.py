"""A whole store into an empty place: packs, journal and refs with their ids, as a fork.

Floor 5. Invariant: the copy shows one state of the original, as a backup would, and what a backup
verifies is verified; the original goes on beside it, and neither knows of the other afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import frozen

from cas.catalog.catalog import Meta
from cas.errors import Busy, CorruptPack, MissingPack
from cas.history.store import Store
from cas.maintenance.backups.capture import Captured, capture
from cas.maintenance.backups.carry import Damage, carry_packs, damaged_inline
from cas.maintenance.backups.increment import Origin
from cas.maintenance.backups.make import ROUNDS_MAX
from cas.maintenance.backups.refill import PackFill, fork_of, recheckpoint, refill
from cas.maintenance.backups.vault import origin_of
from cas.maintenance.findings import OnProgress, Progress
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket

_GROUP = 1024


@frozen
class LiveImage:
    """A captured state of a living store, as something to fill a catalog with."""

    objects: ObjectStore
    captured: Captured

    @property
    def origin(self) -> Origin:
        """The store it is of."""
        return origin_of(self.objects.meta)

    @property
    def seq(self) -> int:
        """The last entry."""
        return self.captured.head.seq

    @property
    def hash(self) -> bytes:
        """Hash of the last entry."""
        return self.captured.head.hash

    @property
    def removals(self) -> tuple[int, int]:
        """(version, condemn sequence) of the last removal."""
        return self.captured.head.removal_version, self.captured.head.condemn_seq

    @property
    def mirrored(self) -> int:
        """How far the journal stands in packs too."""
        return self.captured.mirrored

    def packs(self) -> Iterator[PackFill]:
        """Its packs, ascending by number."""
        for row in self.captured.rows:
            footer, body = self.captured.inline.get(row.number, (None, None))
            vector = self.captured.vectors.get(row.number)
            yield PackFill(row.number, row.name, row.body_bytes, footer, body, vector)

    def entries(self) -> Iterator[bytes]:
        """Its entries; the journal only grows, so they are read when they are asked for."""
        after = 0
        while after < self.seq:
            with self.objects.catalog.read() as reader:
                rows = reader.entries(after, _GROUP)
            if not rows:
                return
            yield from [row.entry for row in rows]
            after = rows[-1].seq

    def checkpoints(self) -> Iterable[tuple[int, bytes]]:
        """Checkpoints of the refs, ascending."""
        return self.captured.checkpoints


def clone(
    source: Store,
    bucket: Bucket,
    open_new: Callable[[Meta], ObjectStore],
    lineage_id: bytes,
    *,
    progress: OnProgress = None,
) -> tuple[LiveImage, int]:
    """Fill an empty place with all of a store: the state, and the bytes of pack files.

    `open_new` makes the catalog there. Raises `Corrupt` for what is damaged in the source, `Busy`
    when packs are replaced faster than they can be copied, and what either side refuses.
    """
    image, size_bytes = _bring_packs(source.objects, bucket, progress or (lambda _: None))
    objects = open_new(fork_of(image, lineage_id))
    try:
        refill(objects.catalog, image)
        recheckpoint(objects, image)
    finally:
        objects.close()
    return image, size_bytes


def _bring_packs(
    objects: ObjectStore, bucket: Bucket, say: Callable[[Progress], None]
) -> tuple[LiveImage, int]:
    size_bytes = 0
    for _ in range(ROUNDS_MAX):
        captured = capture(objects)
        there = {file.name for file in bucket.list()}
        named = {file_name(row.name): row for row in captured.rows if row.name is not None}
        lacking = [
            (row, captured.bits(row.number)) for file, row in named.items() if file not in there
        ]
        total = size_bytes + sum([row.body_bytes for row, _bits in lacking])
        try:
            for done in carry_packs(objects, lacking, bucket, accept_damage=False):
                _refuse(done.damage)
                size_bytes += done.stored_bytes
                say(Progress("packs", len(there), size_bytes, total))
        except MissingPack as error:
            with objects.catalog.read() as reader:
                alive = {row.name for row in reader.packs() if row.name is not None}
            if any(file_name(name) == error.pack for name in alive):
                raise
            continue
        for number, (footer, body) in captured.inline.items():
            _refuse(damaged_inline(objects, number, body, footer, captured.bits(number)))
        for file in there - named.keys():
            bucket.delete(file)
        bucket.sync()
        return LiveImage(objects, captured), size_bytes
    raise Busy(
        "Packs were replaced faster than they could be copied; nothing was made. Try again when "
        "less is written.",
        waited_ms=0,
    )


def _refuse(damage: Damage | None) -> None:
    if damage is not None:
        ids = ", ".join([id.hex() for id in damage.ids[:3]])
        raise CorruptPack(
            f"{damage.pack} of the store is damaged ({ids or damage.reason}); nothing was made. "
            "Run `cas fsck` and repair the store, or copy the branches that are whole.",
            pack=damage.pack,
            offset=-1,
        )
