"""What a store folder shows when it is opened, and whether that may be.

Invariant: an observation says what is there without knowing what should be; `judge` compares it
with the model and the progress of the workload. Everything is read through a store opened in the
ordinary way, and every copy of every object is verified, not only those that refs reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import attrs

from cas.catalog.catalog import MIRRORED, CatalogReader
from cas.errors import CasError, CorruptPack, NotFound
from cas.history.horizon import horizon_at, horizon_now
from cas.history.store import Store
from cas.limits import ID_BYTES
from cas.model.entry import Entry, genesis_hash, txid_from_key
from cas.model.ids import BlobId, Kind, ObjectId
from cas.model.segment import Segment
from cas.objects.children import children
from cas.objects.packs import Copy, read_footer
from cas.storage.codec import RECIPE
from cas.testing.model import Model, Progress, Refs


@attrs.frozen
class Observation:
    """What one store shows: newest entry, refs, which puts of the model, and what is wrong."""

    seq: int
    refs: Refs
    puts: frozenset[int]
    findings: tuple[str, ...]


def observe(store: Store, model: Model) -> Observation:
    """Read everything. Errors of the store become findings: a store that opens has none."""
    findings: list[str] = []
    seq, refs = 0, {}
    puts: set[int] = set()
    try:
        findings += check_objects(store)
        findings += check_journal(store, model)
        findings += check_mirror(store)
        findings += check_archive(store)
        view = store.view()
        seq = view.seq
        refs = {
            ref.name: _files(store, ref.target)
            for ref in view.refs()
            if ref.name.startswith(("heads/", "tags/"))
        }
        for number, id in enumerate(model.puts):
            if store.has(BlobId(id)):
                store.get(BlobId(id))
                puts.add(number)
    except Exception as error:  # one that is not the store's own is the worse finding
        findings.append(f"{type(error).__name__}: {error}")
    return Observation(seq, refs, frozenset(puts), tuple(findings))


def _files(store: Store, revision: ObjectId) -> dict[str, bytes]:
    snapshot = store.snapshot(revision)
    files = {}
    for path, entry in snapshot.walk():
        snapshot.read(path)
        files[path] = bytes(entry.id)
    return files


def check_objects(store: Store) -> Iterator[str]:
    """Copies that do not verify, objects whose children do not exist, the engine's own check."""
    objects = store.objects
    yield from objects.catalog.check()
    state = objects.lookup.refresh()
    present: set[bytes] = set()
    needed: dict[bytes, bytes] = {}
    for pack in state.packs.values():
        try:
            footer = objects.lookup.footer(pack)
            for number, slot in enumerate(footer.slots()):
                if objects.lookup.is_gone(pack.number, number):
                    continue
                kind, content = objects.verified(Copy(pack, slot))
                present.add(slot.id)
                if slot.codec == RECIPE:
                    needed[content[:ID_BYTES]] = slot.id
                elif kind != Kind.BLOB:
                    needed.update((child, slot.id) for child in children(kind, content))
        except CasError as error:
            yield f"{pack.label} is installed and cannot be read: {type(error).__name__}: {error}"
    for child, parent in needed.items():
        if child not in present:
            yield f"object {parent.hex()[:8]} exists and its child {child.hex()[:8]} does not"


def check_mirror(store: Store) -> Iterator[str]:
    """Segments that differ from the journal, or name what no file holds; a cursor that lies."""
    objects = store.objects
    state = objects.lookup.refresh()
    there: dict[bytes, int] = {}
    for pack in state.packs.values():
        if pack.file is not None:
            for number, slot in enumerate(objects.lookup.footer(pack).slots()):
                if not objects.lookup.is_gone(pack.number, number):
                    there[slot.id] = slot.kind
    # What was condemned is in no vector that a lost catalog leaves: it counts while it lies there.
    lying = set(there)
    for file in objects.bucket.list():
        with suppress(CorruptPack):  # one that was given up holds what it likes
            lying.update(read_footer(objects.bucket, file.name)[1].ids())
    with objects.catalog.read() as reader:
        rows = {row.seq: row.entry for row in reader.entries(0)}
        reached = reader.cursor(MIRRORED) or 0
        told = _told(store, reader, reached)
    held: set[int] = set()
    wanted: list[bytes] = []
    for id, kind in there.items():
        if kind == Kind.SEGMENT:
            segment = Segment.decode(objects.get(id, Kind.SEGMENT))
            for seq, data in enumerate(segment.entries, start=segment.first_seq):
                held.add(seq)
                if data != rows.get(seq):
                    yield f"a segment holds another entry {seq} than the journal"
                entry = Entry.decode(data)
                if seq > told:
                    wanted += [change.new for change in entry.changes if change.new is not None]
                wanted += [event.blob for event in entry.events if event.blob is not None]
    if held != set(range(1, reached + 1)):
        yield f"the mirror says that it reaches {reached}, and segments hold {sorted(held)}"
    seen: set[bytes] = set()
    while wanted:
        id = wanted.pop()
        if id not in seen:
            seen.add(id)
            if id not in lying:
                yield f"a segment needs {id.hex()[:8]}, which no file holds"
            elif id in there:
                wanted += children(*objects.read(id))


def check_archive(store: Store) -> Iterator[str]:
    """Entries that are neither rows nor archived, or both; segments without their two packs."""
    objects = store.objects
    state = objects.lookup.refresh()
    with objects.catalog.read() as reader:
        rows = reader.archived()
        head = reader.head().seq
        kept = reader.weigh_entries(0)[0]
    after = 0
    for row in rows:
        if row.first_seq != after + 1 or row.last_seq < row.first_seq:
            yield f"the archive goes on with entry {row.first_seq} behind entry {after}"
        after = row.last_seq
        held = {
            copy.pack.number
            for copy in objects.lookup.copies(row.segment)
            if copy.pack.file is not None and _is_whole(store, copy)
        }
        if row.pack == row.other or not {row.pack, row.other} <= held & state.packs.keys():
            yield f"the archive of entries up to {after} lies in {held}, and not in its two packs"
    if head - after != kept:
        yield f"of {head} entries {after} are archived and {kept} are rows"


def _is_whole(store: Store, copy: Copy) -> bool:
    try:
        return store.objects.verified(copy)[0] == Kind.SEGMENT
    except CasError:
        return False


def _told(store: Store, reader: CatalogReader, seq: int) -> int:
    """The horizon as of an entry; the newest where that one was given up itself."""
    try:
        return horizon_at(store.core, store.core.timeline.at(reader, seq)).seq
    except NotFound:
        return horizon_now(store.core).seq


def check_journal(store: Store, model: Model) -> Iterator[str]:
    """Breaks of the chain, keys and events that are not the model's, checkpoints without nodes."""
    previous = genesis_hash(store.objects.meta.store_id)
    with store.objects.catalog.read() as reader:
        rows = list(reader.entries(0))
        head = reader.head()
        keys = {
            number: reader.find_txid(txid_from_key(expected.key), None)
            for number, expected in enumerate(model.entries)
            if expected.key is not None
        }
        checkpoint = reader.checkpoint(head.seq)
    entries = list(store.journal())
    if [entry.seq for entry in entries] != list(range(1, head.seq + 1)):
        yield f"the journal has entries {[e.seq for e in entries]} and its head is {head.seq}"
    for row, entry in zip(rows, entries, strict=True):
        if entry.previous != previous:
            yield f"entry {entry.seq} does not follow the one before"
        previous = row.hash
    if previous != head.hash:
        yield "the head's hash is not that of the newest entry"
    for number, seq in keys.items():
        if seq != (number if number <= head.seq else None):
            yield f"the key of entry {number} finds entry {seq}, and the head is {head.seq}"
    for entry in entries[: len(model.entries) - 1]:
        found = tuple(
            (event.type, event.body if event.blob is None else store.get(event.blob))
            for event in entry.events
        )
        if entry.actor == "driver" and found != model.entries[entry.seq].events:
            yield f"entry {entry.seq} has other events"
    if checkpoint is not None and checkpoint.seq >= max(1, horizon_now(store.core).seq):
        # A view of the checkpoint itself: nothing is replayed, so every node has to be stored.
        # One before the horizon is nobody's to look at.
        for ref in store.at(checkpoint.seq).refs():
            store.objects.require(ref.target)


def judge(observed: Observation, model: Model, progress: Progress) -> list[str]:
    """What is wrong with an observation after a crash at this point of the workload."""
    findings = list(observed.findings)
    if findings:
        return findings
    if observed.seq < progress.acked_seq:
        return [f"entry {progress.acked_seq} was acknowledged and is lost: head {observed.seq}"]
    if observed.seq > progress.begun_seq:
        return [f"entry {observed.seq} was never begun, or was refused ({progress.begun_seq})"]
    if observed.seq < 0:
        return []
    if observed.refs != model.entries[observed.seq].refs:
        findings.append(f"the refs are not those of entry {observed.seq}")
    lost = set(range(progress.acked_puts)) - observed.puts
    if lost:
        findings.append(f"acknowledged puts are lost: {sorted(lost)}")
    for start, stop in model.groups:
        seen = observed.puts & set(range(start, stop))
        if start >= progress.acked_puts and len(seen) not in (0, stop - start):
            findings.append(f"half of a batch is visible: {sorted(seen)} of {start}-{stop - 1}")
    return findings
