"""Fill an empty catalog with a state, so that the store around it shows what the state did.

Floor 5; implements docs/format.md section 13.2. Invariant: what is filled in has the numbers,
deletion vectors and versions of the state, so that nothing condemned in it comes back; the journal
chains from the store's id to the hash that the state names; and the catalog becomes one of a
lineage of its own, so that two stores never go on under one name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from attrs import frozen

from cas.catalog.catalog import MIRRORED, Catalog, CatalogWriter, Meta
from cas.catalog.place import ancestor
from cas.catalog.sqlite import create_catalog, open_catalog
from cas.clock import Clock
from cas.errors import CorruptBackup
from cas.limits import MIB
from cas.maintenance.backups.increment import Index, Origin, State
from cas.maintenance.backups.vault import Vault
from cas.model.entry import Entry, entry_hash, genesis_hash
from cas.objects.store import ObjectStore
from cas.trees.node import REFS

_GROUP_BYTES: Final = 8 * MIB
_GROUP_COUNT: Final = 4096


class PackFill(NamedTuple):
    """A pack row to fill in, with its deletion vector if it has one."""

    number: int
    name: bytes | None
    body_bytes: int
    footer: bytes | None
    body: bytes | None
    vector: tuple[int, bytes] | None


class Image(Protocol):
    """A state that a catalog can be filled with, up to entry `seq`."""

    @property
    def origin(self) -> Origin:
        """The store it is of."""

    @property
    def seq(self) -> int:
        """The last entry."""

    @property
    def hash(self) -> bytes | None:
        """Hash that the last entry must have, where it is known."""

    @property
    def removals(self) -> tuple[int, int]:
        """(version, condemn sequence) of the last removal."""

    @property
    def mirrored(self) -> int:
        """How far the journal stands in packs too."""

    def packs(self) -> Iterator[PackFill]:
        """Its packs, ascending by number."""

    def entries(self) -> Iterator[bytes]:
        """Its entries from the first on; those behind `seq` may be given too."""

    def checkpoints(self) -> Iterable[tuple[int, bytes]]:
        """Checkpoints of the refs, ascending; those that are gone may be given too."""


@frozen
class VaultImage:
    """A state of a vault, up to an entry inside it. `hash` only when that is its last. `lost` is
    what is wrong with increments behind its chain, where damage was accepted.
    """

    vault: Vault
    chain: tuple[Index, ...]
    state: State
    origin: Origin
    mirrored: int
    seq: int
    lost: tuple[CorruptBackup, ...] = ()

    @property
    def hash(self) -> bytes | None:
        """Hash of the last entry, where the state ends with it."""
        return self.state.hash if self.seq == self.state.seq else None

    @property
    def removals(self) -> tuple[int, int]:
        """(version, condemn sequence) of the last removal."""
        return self.state.removal_version, self.state.condemn_seq

    def packs(self) -> Iterator[PackFill]:
        """Its packs, ascending by number."""
        for line in self.state.packs:
            footer = body = vector = None
            if line.body is not None:
                whole = self.vault.held(line.body)
                body, footer = whole[: line.body_bytes], whole[line.body_bytes :]
            if line.vector is not None:
                vector = line.vector.version, self.vault.held(line.vector.bits)
            yield PackFill(line.number, line.name, line.body_bytes, footer, body, vector)

    def entries(self) -> Iterator[bytes]:
        """Every entry of the chain."""
        return self.vault.entries(self.chain)

    def checkpoints(self) -> Iterable[tuple[int, bytes]]:
        """Checkpoints of the refs, ascending."""
        return [row for index in self.chain for row in index.checkpoints]


def fork_of(image: Image, lineage_id: bytes) -> Meta:
    """What a store that is made of an image says of itself: a lineage of its own."""
    origin = image.origin
    return Meta(
        origin.store_id,
        lineage_id,
        origin.format,
        origin.features,
        origin.created_us,
        origin.ancestry + ancestor(origin.lineage_id, image.seq),
    )


def refill(catalog: Catalog, image: Image) -> int:
    """Fill an empty catalog with packs and journal; bytes of entries. `recheckpoint` comes after.

    Raises `CorruptBackup` when the journal does not chain, and what a write raises.
    """
    with catalog.write() as writer:
        fill_packs(writer, image)
        version, condemn_seq = image.removals
        if version:
            writer.record_removal(version, condemn_seq)
        # The first segment of a lineage repeats the entry that it goes on from.
        writer.set_cursor(MIRRORED, max(0, min(image.mirrored, image.seq - 1)))
    return _fill_journal(catalog, image)


@contextmanager
def rebuilt(image: VaultImage, scratch: str, clock: Clock) -> Iterator[ObjectStore]:
    """The objects of a state over the packs of its backup, by a catalog in the empty folder
    `scratch`: no pack is copied.
    """
    path, locks = os.path.join(scratch, "catalog.sqlite"), os.path.join(scratch, "locks")
    os.mkdir(locks)
    create_catalog(path, fork_of(image, clock.random(16)))
    catalog = open_catalog(path, locks, anywhere=True)
    try:
        refill(catalog, image)
        yield ObjectStore(catalog, image.vault.packs, clock)
    finally:
        catalog.close()


def fill_packs(writer: CatalogWriter, image: Image) -> None:
    """The packs of an image with their vectors, and nothing else."""
    for number, name, body_bytes, footer, body, vector in image.packs():
        writer.add_pack(number, name, body_bytes, footer, body)
        if vector is not None:
            writer.set_vector(number, *vector)


def _fill_journal(catalog: Catalog, image: Image) -> int:
    hash = genesis_hash(image.origin.store_id)
    seq = total = 0
    entries = iter(image.entries())
    while seq < image.seq:
        with catalog.write() as writer:
            size_bytes = count = 0
            while seq < image.seq and size_bytes < _GROUP_BYTES and count < _GROUP_COUNT:
                data = next(entries, None)
                if data is None:
                    raise _broken(seq + 1)
                seq += 1
                hash = _append(writer, seq, hash, data)
                size_bytes += len(data)
                count += 1
            total += size_bytes
    if image.hash not in (None, hash):
        raise _broken(seq)
    return total


def _append(writer: CatalogWriter, seq: int, hash: bytes, data: bytes) -> bytes:
    entry = Entry.decode(data)
    if entry.seq != seq or entry.previous != hash:
        raise _broken(seq)
    found = entry_hash(data)
    writer.append_entry(seq, found, entry.txid, data)
    return found


def _broken(seq: int) -> CorruptBackup:
    return CorruptBackup(
        f"Entry {seq} of the journal is missing in the backup, or does not follow the one before.",
        path="",
    )


def recheckpoint(objects: ObjectStore, image: Image) -> int:
    """Name the checkpoints whose refs trees exist in the filled catalog; how many.

    The collector may have given up old ones since the backup that told of them; a parent goes
    before its children, so that the root tells.
    """
    objects.lookup.refresh()
    rows = [
        (seq, root)
        for seq, root in image.checkpoints()
        if seq <= image.seq and (root == REFS.empty or objects.lookup.exists(root))
    ]
    with objects.catalog.write() as writer:
        for seq, root in rows:
            writer.add_checkpoint(seq, root)
    return len(rows)
