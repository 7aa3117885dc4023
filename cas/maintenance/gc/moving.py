"""Installing new copies of what exists, and taking out the packs that they stand for.

Floor 5; implements docs/design/001, rules E4 and E9. Invariant: the install believes nothing that
the copying saw: a slot none of whose sources exists any more is born gone, and so is one that
needs a base which exists neither in the output nor in the store, of less depth than its own. What
is taken out goes in a transaction of its own, which looks whether all new copies still stand.

Every new copy has at most the rank of those it stands for, so that nothing which hangs on these
loses what it hangs on, and no writer has to be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from cas.catalog.catalog import CatalogReader, CatalogWriter
from cas.errors import Unavailable
from cas.objects.batch import Batch
from cas.objects.gather import stand
from cas.objects.packs import PackInfo, State, bit_is_set, pack_name
from cas.objects.segments import homes
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import EDGE_BASE, Footer
from cas.storage.slots import CODEC_AT, DEPTH_AT, column

_TOO_DEEP: Final = 256


class Output(NamedTuple):
    """A new pack: its number, its footer, and the bits it was installed with."""

    number: int
    footer: Footer
    bits: bytes


@contextmanager
def moving(objects: ObjectStore) -> Iterator[Batch]:
    """A batch for new copies; given up where the block fails. That another was faster with a
    source is no failure: the block ends there, and nothing was named.
    """
    batch = objects.new_batch()
    try:
        yield batch
    except BaseException as error:
        batch.abandon(error)
        if type(error) is not Unavailable:
            raise


def install_moved(
    objects: ObjectStore, batch: Batch, state: State, sources: Sequence[PackInfo]
) -> list[Output]:
    """Name the packs of a batch that holds new copies of objects of `sources`, as these were in
    `state`. Raises what `Batch.install` raises, and `Unavailable` where a source was taken out
    meanwhile, by whoever else moves: nothing is named then.
    """
    batch.seal()
    with objects.catalog.write() as writer:
        head = writer.head()
        gone = _died(objects, writer, state, sources)
        objects.lookup.refresh(writer)
        rows = batch.install(writer, head)
        footers = [footer for _row, footer in rows]
        dead = [bytearray((footer.count + 7) // 8) for footer in footers]
        for id in gone:
            for footer, bits in zip(footers, dead, strict=True):
                if (slot := footer.find(id)) >= 0:
                    _set(bits, slot)
        while _strike_baseless(objects, footers, dead):
            pass
        outputs = []
        for (row, footer), bits in zip(rows, dead, strict=True):
            if any(bits):
                writer.set_vector(row.number, row.number, bytes(bits))
            outputs.append(Output(row.number, footer, bytes(bits)))
    batch.resolved(rows)
    return outputs


def _died(
    objects: ObjectStore, reader: CatalogReader, state: State, sources: Sequence[PackInfo]
) -> set[bytes]:
    """Ids of which a copy in the sources stopped existing since `state`."""
    if reader.head().removal_version == state.removal_version:
        return set()
    alive = set(reader.pack_numbers())
    if any(pack.number not in alive for pack in sources):
        raise Unavailable("What was to be moved was moved by another; try again later.")
    changed = {number: bits for number, _version, bits in reader.vectors(state.version)}
    gone: set[bytes] = set()
    for pack in sources:
        bits, before = changed.get(pack.number), state.vectors.get(pack.number)
        if bits is not None:
            footer = objects.lookup.footer(pack)
            for slot in range(footer.count):
                if bit_is_set(bits, slot) and not bit_is_set(before, slot):
                    gone.add(footer.id_at(slot))
    return gone


def _set(bits: bytearray, slot: int) -> None:
    bits[slot >> 3] |= 1 << (slot & 7)


def _strike_baseless(
    objects: ObjectStore, footers: Sequence[Footer], dead: Sequence[bytearray]
) -> bool:
    """Set the bits of deltas whose base is nowhere; whether there was one.

    The snapshot is that of the transaction without the outputs: what these hold themselves is
    known from their footers.
    """
    bases = {id for footer in footers for _at, role, id in footer.edge_rows() if role == EDGE_BASE}
    lowest: dict[bytes, int] = {}
    for footer, bits in zip(footers, dead, strict=True):
        depths, codecs = column(footer.table, DEPTH_AT), column(footer.table, CODEC_AT)
        ids = footer.ids()
        for at in [at for at, id in enumerate(ids) if id in bases] if bases else ():
            if codecs[at] != RECIPE and not bit_is_set(bits, at):
                lowest[ids[at]] = min(depths[at], lowest.get(ids[at], _TOO_DEEP))
    found = False
    for footer, bits in zip(footers, dead, strict=True):
        depths = column(footer.table, DEPTH_AT)
        for slot, role, id in footer.edge_rows():
            depth = depths[slot]
            if role != EDGE_BASE or lowest.get(id, _TOO_DEEP) < depth or bit_is_set(bits, slot):
                continue
            copies = objects.lookup.copies(id)
            if not any(c.slot.codec != RECIPE and c.slot.depth < depth for c in copies):
                _set(bits, slot)
                found = True
    return found


def remove_moved(
    objects: ObjectStore, sources: Sequence[PackInfo], outputs: Sequence[Output]
) -> bool:
    """Take the sources out, if every new copy still stands; whether it was so."""
    with objects.catalog.write() as writer:
        if not stand(writer, list(outputs)):
            return False
        remove_packs(writer, _present(writer, sources))
    objects.lookup.refresh()
    return True


def _present(reader: CatalogReader, packs: Sequence[PackInfo]) -> list[PackInfo]:
    alive = set(reader.pack_numbers()) - homes(reader)
    return [pack for pack in packs if pack.number in alive]


def remove_packs(writer: CatalogWriter, packs: Sequence[PackInfo]) -> None:
    """Take out rows of packs of which every object has another copy."""
    if packs:
        head = writer.head()
        writer.add_unlinked([pack_name(p.file) for p in packs if p.file is not None], head.seq)
        writer.remove_packs([pack.number for pack in packs], head.version + 1, head.condemn_seq)
