"""Carry out a rebuild: new packs, a new catalog beside the old one, and the change of places.

Floor 5; implements docs/design/001, "Rebuild", and docs/format.md section 8.2. Invariant: in every
state that a crash leaves, the folder holds the old catalog whole, or the new one whole: under its
name, or ready to take it, which `finish` then does. Nothing that was there is deleted: it
lies beside the new one as `catalog.damaged-…`.

Whoever has the store open is shut out: sessions are gone, the lineage is another, and the files of
the gate are new ones, so that an old handle finds out before it writes or syncs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, cast

from cas.catalog.catalog import MIRRORED, EntryRow, Meta
from cas.catalog.gate import FileGate, NoGate
from cas.catalog.place import ancestor
from cas.catalog.sqlite import SqliteCatalog, create_catalog
from cas.catalog.statements import SqliteWriter
from cas.clock import Clock
from cas.errors import NotAsExpected, StorageFailed
from cas.maintenance.folder import ASIDE
from cas.maintenance.repair.evidence import Folder, stamp_of
from cas.maintenance.repair.rebuild import Rebuild, Refs, vectors
from cas.maintenance.repair.rescue import build_pack
from cas.model.entry import Entry
from cas.model.ids import Kind, digest_of
from cas.model.segment import Segment
from cas.objects.mirror import cut
from cas.objects.packs import pack_name
from cas.objects.writer import write_file
from cas.storage.bucket import Bucket
from cas.storage.files import OS_FILES, Files, translate
from cas.storage.header import PackHeader
from cas.storage.pack import (
    Footer,
    Made,
)
from cas.storage.place import bucket_in
from cas.storage.record import COMMON_GROUP

REBUILT: Final = "catalog.rebuilt"
"""A catalog that is whole, and waits for the name of the old one."""

_SUFFIXES: Final = ("", "-wal")


def carry_out(
    plan: Rebuild, clock: Clock, *, files: Files = OS_FILES, vfs: str | None = None
) -> None:
    """Make the catalog that was planned the catalog of the store.

    Raises `NotAsExpected` when the folder is not as it was when it was looked at, `StorageFull`,
    `StorageFailed`, `ReadOnly`; the old catalog stands then.
    """
    folder = plan.evidence.folder
    try:
        for path in (folder.locks, folder.packs):
            if not os.path.exists(path):
                files.mkdir(path)
        gate = FileGate(folder.locks)
    except OSError as error:
        translate(error, folder.path)
    gate.enter()
    try:
        bucket = bucket_in(folder.path, clock, files)
        if stamp_of(folder, bucket) != plan.evidence.stamp:
            raise NotAsExpected(
                f"{folder.path} has changed since it was looked at; nothing was done. See that "
                "no process writes to it, and plan again.",
                path=folder.path,
                expected=None,
                actual=None,
            )
        _Renewal(plan, bucket, clock, files, vfs).run()
        _swap(folder, gate, clock, files)
    except OSError as error:
        translate(error, folder.path)
    finally:
        gate.leave()
        gate.close()


def is_unfinished(folder: Folder) -> bool:
    """Whether a rebuild was cut short behind the point where its catalog is the one that counts."""
    return os.path.exists(os.path.join(folder.path, REBUILT)) and not os.path.exists(folder.catalog)


def finish(folder: Folder, clock: Clock, files: Files = OS_FILES) -> None:
    """Give the catalog of a rebuild that was cut short its name."""
    try:
        if not os.path.isdir(folder.locks):
            files.mkdir(folder.locks)
        gate = FileGate(folder.locks)
        gate.enter()
        try:
            if is_unfinished(folder):
                _swap(folder, gate, clock, files)
        finally:
            gate.leave()
            gate.close()
    except OSError as error:
        translate(error, folder.path)


def _swap(folder: Folder, gate: FileGate, clock: Clock, files: Files) -> None:
    """Put the old catalog aside, then its log, then the new one in its place.

    An old catalog without its log would be one of yesterday: it goes first, so that between the
    two there is none. Who waits at the gate, or comes later with an old handle, finds `doubt`,
    looks whether the catalog is the one that was opened, and gives up.
    """
    gate.doubt(True)
    aside = os.path.join(folder.path, ASIDE + clock.random(4).hex())
    for suffix in _SUFFIXES:
        if os.path.exists(folder.catalog + suffix):
            files.rename(folder.catalog + suffix, aside + suffix)
            files.sync_folder(folder.path)
    with suppress(FileNotFoundError):
        # What processes share of the log; it is made anew from it.
        os.unlink(folder.catalog + "-shm")
    for entry in os.listdir(folder.locks):
        with suppress(OSError):
            os.unlink(os.path.join(folder.locks, entry))
    _clear(folder.cache)
    files.rename(os.path.join(folder.path, REBUILT), folder.catalog)
    files.sync_folder(folder.path)


def _clear(cache: str) -> None:
    """Forget what was remembered of packs by the numbers of another lineage."""
    for top, _folders, names in os.walk(cache):
        for name in names:
            with suppress(OSError):
                os.unlink(os.path.join(top, name))


class _Renewal:
    """The new packs and the new catalog; nothing of them counts before the swap."""

    def __init__(
        self, plan: Rebuild, bucket: Bucket, clock: Clock, files: Files, vfs: str | None
    ) -> None:
        self._plan = plan
        self._evidence = plan.evidence
        self._bucket = bucket
        self._clock = clock
        self._files = files
        self._vfs = vfs
        tip = plan.tip
        self._ancestry = b""
        old = self._evidence.remains.meta.get("lineage_id")
        if tip is not None:
            self._ancestry = tip.ancestry + ancestor(tip.lineage, tip.seq)
        elif type(old) is bytes and len(old) == 16:
            self._ancestry = ancestor(old, 0)
        self._meta = Meta(
            self._evidence.meta.store_id,
            self._evidence.meta.lineage_id,
            self._evidence.meta.format,
            self._evidence.meta.features,
            self._evidence.meta.created_us,
            self._ancestry,
        )

    def run(self) -> None:
        """Everything durable, the catalog under the name that `_swap` looks for."""
        folder = self._evidence.folder
        bits = vectors(self._plan)
        rows = self._files_of_old(bits)
        for number, (body, footer_bytes, footer) in sorted(self._evidence.made.items()):
            rows.append((self._seal(body, footer_bytes), footer, bits.get(number)))
        refs = self._plan.refs
        assert refs is not None
        body, footer_bytes, footer = self._opening(refs)
        rows.append((self._seal(body, footer_bytes), footer, None))
        self._bucket.sync()
        building = os.path.join(folder.path, f"{REBUILT}.{self._clock.random(4).hex()}.tmp")
        create_catalog(building, self._meta, vfs=self._vfs)
        catalog = SqliteCatalog(building, NoGate(), vfs=self._vfs, anywhere=True)
        try:
            with catalog.write() as port:
                self._fill(cast("SqliteWriter", port), rows)
        finally:
            catalog.close()
        if os.path.exists(building + "-wal"):
            # Closing is silent about what could not be copied out of the log.
            raise StorageFailed(
                f"Not all of {building} could be written; the old catalog stands. See that there "
                "is room, and try again.",
                path=building,
                errno=None,
            )
        self._files.sync_file(building)
        self._files.rename(building, os.path.join(folder.path, REBUILT))
        self._files.sync_folder(folder.path)

    def _files_of_old(self, bits: dict[int, bytes]) -> list[tuple[str, Footer, bytes | None]]:
        """Every pack file that stays, synced: whoever copied the folder may not have done it."""
        rows = []
        folder = self._evidence.folder
        in_folder = os.path.isdir(folder.packs)
        for number, pack in enumerate(self._evidence.packs, start=1):
            if in_folder:  # what lies in a bucket is durable since it was put there
                self._files.sync_file(os.path.join(folder.packs, pack.file))
            rows.append((pack.file, pack.footer, bits.get(number)))
        return rows

    def _seal(self, body: bytes, footer_bytes: bytes) -> str:
        """A pack in memory as a durable file; its name."""
        return write_file(self._bucket, self._clock.random(16), body, footer_bytes)

    def _opening(self, refs: Refs) -> tuple[bytes, bytes, Footer]:
        """The first pack of the lineage: a segment that names where it comes from, those of what
        no segment held, and the refs tree of the newest entry.
        """
        records: list[Made] = []

        def add(kind: Kind, content: bytes) -> None:
            id = digest_of(kind, content)
            records.append((id, kind, 0, content, len(content), 0, COMMON_GROUP))

        for segment in self._segments():
            add(Kind.SEGMENT, segment.encode())
        for id, data in refs.nodes:
            records.append((id, Kind.REFS, 0, data, len(data), 0, COMMON_GROUP))
        header = PackHeader(
            self._meta.store_id, self._meta.lineage_id, bytes(16), self._clock.wall_us()
        )
        return build_pack(header, records)

    def _segments(self) -> Iterable[Segment]:
        rows = self._plan.journal.rows if self._plan.journal is not None else ()
        first = self._plan.mirrored_seq + 1
        wanted = [row for row in rows if row.seq >= first] or list(rows[-1:])
        for run in cut(wanted) if wanted else [()]:
            yield Segment(
                run[0].seq if run else 1,
                tuple(row.entry for row in run),
                self._meta.lineage_id,
                self._ancestry,
                self._meta.features,
            )

    def _fill(self, writer: SqliteWriter, rows: list[tuple[str, Footer, bytes | None]]) -> None:
        for number, (file, footer, bits) in enumerate(rows, start=1):
            writer.add_pack(number, pack_name(file), footer.body_bytes, None, None)
            if bits is not None:
                writer.set_vector(number, number, bits)
        plan = self._plan
        assert plan.journal is not None
        for row in plan.journal.rows:
            self._append(writer, row)
        tip = plan.tip
        if tip is not None and tip.seq and plan.refs is not None and plan.refs.proved:
            for seq, root in plan.checkpoints:
                if seq < tip.seq:
                    writer.add_checkpoint(seq, root)
            writer.add_checkpoint(tip.seq, plan.refs.root)
            writer.set_cursor(MIRRORED, tip.seq)
        if self._ancestry:
            writer.set_meta({"ancestry": self._ancestry})

    @staticmethod
    def _append(writer: SqliteWriter, row: EntryRow) -> None:
        txid = Entry.decode(row.entry, verified=True).txid
        writer.append_entry(row.seq, row.hash, txid, row.entry)
