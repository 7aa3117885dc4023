"""Bugs of the protocol, each planted by one small patch, and the probe that has to find it.

They are what makes the numbers of the other tests believable: a probe that finds nothing in the
code as it is, and finds the bug when it is there, looks at what it claims to look at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest

from cas.catalog import blocks, connections, engine, sqlite, trim
from cas.catalog.connections import Connections
from cas.catalog.log import Log
from cas.catalog.sqlite import SqliteCatalog
from cas.catalog.statements import SqliteWriter
from cas.errors import StorageFailed
from cas.history import publication
from cas.history.branch import BranchEdit
from cas.history.publication import Publication
from cas.history.timeline import Timeline
from cas.maintenance import newstore
from cas.objects import archive, spill, writer, young
from cas.objects import store as object_store
from cas.objects.batch import Batch
from cas.objects.spill import Spill
from cas.objects.store import ObjectStore
from cas.storage.local import LocalBucket, LocalUpload
from cas.storage.pack import decode_footer
from cas.testing.layers import RecordingFiles
from cas.testing.recorder import Recorder

Plant = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Planted:
    """A bug: what is done wrong, how it is planted, and the probe that finds it."""

    name: str
    killer: str
    plant: Plant


BUGS: Final[list[Planted]] = []


def _bug(name: str, killer: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        BUGS.append(Planted(name, killer, plant))
        return plant

    return note


def _nothing(*_args: Any, **_options: Any) -> None:
    return None


# -- bytes before names before the transaction -----------------------------------------------


@_bug("a pack file is never synced", "crash: a commit with a pack file")
def _no_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecordingFiles, "sync", _nothing)


@_bug("the folder of packs is never synced", "crash: a commit with a pack file")
def _no_folder_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalBucket, "sync", _nothing)


@_bug("the folder is synced before the pack has its name", "crash: a commit with a pack file")
def _early_folder_sync(patch: pytest.MonkeyPatch) -> None:
    seal = LocalUpload.seal

    def early(self: LocalUpload, name: str) -> None:
        self._files.sync_folder(self._folder)
        seal(self, name)

    patch.setattr(LocalUpload, "seal", early)
    patch.setattr(LocalBucket, "sync", _nothing)


def _after_the_commit(patch: pytest.MonkeyPatch, *calls: str) -> None:
    """These calls reach the disk only once the catalog has committed."""
    waiting: list[Callable[[], None]] = []
    for call in calls:
        real = getattr(Recorder, call)

        def later(self: Recorder, *args: Any, real: Any = real) -> None:
            # SQLite's own calls keep their place.
            number = args[0]
            label = self.labels.get(number, "") if isinstance(number, int) else str(number)
            if "catalog" in label or label == ".":
                real(self, *args)
            else:
                waiting.append(lambda: real(self, *args))

        patch.setattr(Recorder, call, later)
    installed = Batch.installed

    def flush(self: Batch, *args: Any) -> None:
        installed(self, *args)
        while waiting:
            waiting.pop(0)()

    patch.setattr(Batch, "installed", flush)


@_bug("a pack file is synced after the commit that names it", "crash: a commit with a pack file")
def _late_sync(patch: pytest.MonkeyPatch) -> None:
    _after_the_commit(patch, "synced")


@_bug("a pack is sealed after the commit that names it", "crash: a commit with a pack file")
def _late_seal(patch: pytest.MonkeyPatch) -> None:
    _after_the_commit(patch, "synced", "linked", "unlinked")


@_bug("a commit is acknowledged before the log is synced", "crash: inline commits")
def _unsynced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connections, "cover", _nothing)


@_bug("the log is taken away as it is", "crash: inline commits")
def _not_blank(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "blank", _nothing)


@_bug("the log is cut as it is", "crash: a log that is cut")
def _cut_as_it_is(patch: pytest.MonkeyPatch) -> None:
    # Those who close it blank it themselves: only what cuts it is wrong.
    patch.setattr(trim, "cut", _truncated)


def _truncated(connections: Connections) -> bool:
    connections.writer().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return True


@_bug("synchronous=OFF", "crash: inline commits")
def _off(patch: pytest.MonkeyPatch) -> None:
    _configured(patch, "PRAGMA synchronous=OFF")


def _configured(patch: pytest.MonkeyPatch, pragma: str) -> None:
    configure = engine._configure

    def worse(connection: Any, read_only: bool) -> None:
        configure(connection, read_only)
        connection.execute(pragma)

    patch.setattr(engine, "_configure", worse)


@_bug("the entry commits before the packs it needs", "crash: inline commits")
def _two_transactions(patch: pytest.MonkeyPatch) -> None:
    add_pack, append_entry = SqliteWriter.add_pack, SqliteWriter.append_entry
    publish = Publication._publish
    packs: list[tuple[Any, ...]] = []
    inside: list[bool] = []

    def careless(self: Publication, plan: Any) -> Any:
        inside.append(True)
        try:
            return publish(self, plan)
        finally:
            inside.pop()

    def hold(self: SqliteWriter, *row: Any) -> None:
        if inside:
            packs.append(row)
        else:
            add_pack(self, *row)

    def entry_first(self: SqliteWriter, *row: Any) -> None:
        append_entry(self, *row)
        self._run("COMMIT")
        self._run("BEGIN IMMEDIATE")
        while packs:
            add_pack(self, *packs.pop(0))

    patch.setattr(Publication, "_publish", careless)
    patch.setattr(SqliteWriter, "add_pack", hold)
    patch.setattr(SqliteWriter, "append_entry", entry_first)


@_bug("an inline pack is stored without its footer", "crash: inline commits")
def _no_footer(patch: pytest.MonkeyPatch) -> None:
    add_pack = SqliteWriter.add_pack

    def bare(
        self: SqliteWriter, number: int, name: Any, size: int, _footer: Any, body: Any
    ) -> None:
        add_pack(self, number, name, size, None, body)

    patch.setattr(SqliteWriter, "add_pack", bare)


@_bug("an entry does not carry the hash of the one before", "crash: inline commits")
def _unchained(patch: pytest.MonkeyPatch) -> None:
    real = publication.Entry

    def loose(*fields: Any) -> Any:
        return attrs.evolve(real(*fields), previous=bytes(32))

    patch.setattr(publication, "Entry", loose)


@_bug("a checkpoint row is written without its nodes", "crash: checkpoints of refs")
def _no_nodes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Publication, "_stage_checkpoint", _nothing)


# -- spill -----------------------------------------------------------------------------------


@_bug("spill removes the old packs before it installs the new one", "crash: a spill")
def _remove_first(patch: pytest.MonkeyPatch) -> None:
    install = Spill._install

    def other_way(self: Spill, run: Any) -> Any:
        self._remove(run.gathered, [])
        return install(self, run)

    patch.setattr(Spill, "_install", other_way)
    patch.setattr(spill, "still_existing", _Everything)


class _Everything:
    """Says of every id that it exists."""

    def __init__(self, *_args: Any) -> None:
        return

    def __contains__(self, id: bytes) -> bool:
        return True


@_bug("spill does not sync its pack", "crash: a spill")
def _spill_unsynced(patch: pytest.MonkeyPatch) -> None:
    guarded, sync = Spill._guarded, RecordingFiles.sync
    inside: list[bool] = []

    def careless(self: Spill, *given: Any, **how: Any) -> None:
        inside.append(True)
        try:
            guarded(self, *given, **how)
        finally:
            inside.pop()

    def unless_inside(self: RecordingFiles, fd: int) -> None:
        if not inside:
            sync(self, fd)

    patch.setattr(Spill, "_guarded", careless)
    patch.setattr(RecordingFiles, "sync", unless_inside)


@_bug("spill deletes pack files before the catalog lets go of them", "crash: a spill")
def _delete_first(patch: pytest.MonkeyPatch) -> None:
    remove = Spill._remove

    def hasty(self: Spill, wanted: Any, outputs: Any) -> Any:
        for pack in wanted:
            if pack.file is not None:
                self._objects.bucket.delete(pack.file)
        return remove(self, wanted, outputs)

    patch.setattr(Spill, "_remove", hasty)


@_bug("spill brings back what was condemned while it ran", "condemned in a spill")
def _resurrect(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spill, "still_existing", _Everything)


# -- making a store --------------------------------------------------------------------------


@_bug("a store is not renamed into its place but put together there", "crash: making a store")
def _in_place(patch: pytest.MonkeyPatch) -> None:
    def piecemeal(self: RecordingFiles, source: str, target: str) -> None:
        self.mkdir(target)
        for name in sorted(os.listdir(source)):
            old, new = os.path.join(source, name), os.path.join(target, name)
            number = self._recorder.file_at(old)
            os.rename(old, new)
            self._recorder.unlinked(old)
            self._recorder._rename(new, number)
        os.rmdir(source)

    patch.setattr(RecordingFiles, "rename", piecemeal)


@_bug("the folder that holds a new store is not synced", "crash: making a store")
def _parent_unsynced(patch: pytest.MonkeyPatch) -> None:
    _skip_folder(patch, lambda path: path.endswith("above"))


@_bug("the folders above a new store are not synced", "crash: making a store")
def _above_unsynced(patch: pytest.MonkeyPatch) -> None:
    def only_made(path: str, files: Any) -> None:
        if not os.path.isdir(path):
            only_made(os.path.dirname(path), files)
            files.mkdir(path)

    patch.setattr(newstore, "make_folders", only_made)


def _skip_folder(patch: pytest.MonkeyPatch, skipped: Callable[[str], bool]) -> None:
    sync_folder = RecordingFiles.sync_folder

    def some(self: RecordingFiles, path: str) -> None:
        if not skipped(path):
            sync_folder(self, path)

    patch.setattr(RecordingFiles, "sync_folder", some)


# -- answers ---------------------------------------------------------------------------------


@_bug("a lost answer is taken for a no", "faults: an inline commit")
def _lost_is_no(patch: pytest.MonkeyPatch) -> None:
    def no(self: Publication, error: Any) -> Any:
        raise StorageFailed("nothing was committed", path="", errno=None) from error

    patch.setattr(Publication, "_resolve", no)


@_bug("a lost answer is taken for a yes", "faults: an inline commit")
def _lost_is_yes(patch: pytest.MonkeyPatch) -> None:
    def yes(self: Publication, _error: Any) -> Any:
        with self._objects.catalog.read() as reader:
            head = reader.head()
        # What the caller reads of an entry is its number.
        return _Number(head.seq + 1)

    patch.setattr(Publication, "_resolve", yes)


@attrs.frozen
class _Number:
    seq: int


@_bug(
    "a commit that failed stays in the log, where a crash finds it",
    "faults: a commit, synced by COMMIT",
)
def _unsettled(patch: pytest.MonkeyPatch) -> None:
    def ask(self: ObjectStore, happened: Callable[[Any], Any]) -> Any:
        with self.catalog.read() as reader:
            return happened(reader)

    patch.setattr(ObjectStore, "settle", ask)


@_bug(
    "a connection whose commit failed is the last to close",
    "faults: a commit with a pack file, synced by COMMIT",
)
def _unparked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connections, "park_writer", Connections.drop_writer)


@_bug("a lost answer costs the pack files it may have named", "faults: a commit with a pack file")
def _files_removed(patch: pytest.MonkeyPatch) -> None:
    abandon = Batch.abandon

    def remove(self: Batch, error: BaseException | None = None) -> None:
        abandon(self, None)

    patch.setattr(Batch, "abandon", remove)


@_bug("the txid is not written", "kill, retry, power cut")
def _no_txid(patch: pytest.MonkeyPatch) -> None:
    append_entry = SqliteWriter.append_entry

    def other(self: SqliteWriter, seq: int, hash: bytes, txid: bytes, entry: bytes) -> None:
        append_entry(self, seq, hash, seq.to_bytes(8, "big") + bytes(8), entry)

    patch.setattr(SqliteWriter, "append_entry", other)


@_bug("a key is not looked for in the journal", "kill, retry, power cut")
def _no_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Publication, "_find_key", _nothing)


@_bug("an answer rests on what a killed process had not synced", "kill, retry, power cut")
def _soft(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteCatalog, "harden", _nothing)


@_bug("a sync of the log that failed is tried again", "faults: an inline commit")
def _log_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Log, "_write_again", Log._sync)


@_bug("a failed sync is tried again", "faults: a put of a pack file")
def _sync_again(patch: pytest.MonkeyPatch) -> None:
    sync = RecordingFiles.sync

    def stubborn(self: RecordingFiles, fd: int) -> None:
        try:
            sync(self, fd)
        except OSError:
            sync(self, fd)

    patch.setattr(RecordingFiles, "sync", stubborn)


@_bug("a write cut short goes unnoticed", "faults: a put of a pack file")
def _short(patch: pytest.MonkeyPatch) -> None:
    write = RecordingFiles.write

    def careless(self: RecordingFiles, fd: int, data: bytes) -> None:
        try:
            write(self, fd, data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def believe(_bucket: Any, file: str, header: bytes, _body_bytes: int, footer: bytes) -> Any:
        return decode_footer(header, footer, file)

    patch.setattr(RecordingFiles, "write", careless)
    for room in (writer, young):
        patch.setattr(room, "read_back", believe)


@_bug("errors of the engine come out bare", "faults: an inline commit")
def _bare(patch: pytest.MonkeyPatch) -> None:
    def as_it_is(error: BaseException, _path: str) -> None:
        raise error

    for room in (sqlite, blocks, connections):
        patch.setattr(room, "translate", as_it_is)
    patch.setattr(sqlite, "reraise", _nothing)
    patch.setattr(blocks, "reraise", _nothing)


# -- old entries -----------------------------------------------------------------------------


@_bug("rows of the journal go before what stands for them", "crash: an archive")
def _rows_first(patch: pytest.MonkeyPatch) -> None:
    archive_rows = SqliteWriter.archive

    def early(self: SqliteWriter, row: Any) -> None:
        self._run("DELETE FROM journal WHERE seq BETWEEN ? AND ?", (row.first_seq, row.last_seq))
        self._run("COMMIT")
        self._run("BEGIN IMMEDIATE")
        archive_rows(self, row)

    patch.setattr(SqliteWriter, "archive", early)


@_bug("what stands for rows of the journal comes before they go", "crash: an archive")
def _rows_last(patch: pytest.MonkeyPatch) -> None:
    archive_rows = SqliteWriter.archive

    def late(self: SqliteWriter, row: Any) -> None:
        rows = list(self._run("SELECT * FROM journal WHERE seq <= ?", (row.last_seq,)))
        archive_rows(self, row)
        for found in rows:
            self._run("INSERT INTO journal VALUES (?, ?, ?, ?)", found)
        self._run("COMMIT")
        self._run("BEGIN IMMEDIATE")
        archive_rows(self, row)

    patch.setattr(SqliteWriter, "archive", late)


@_bug("keys of archived entries are forgotten", "crash: an archive")
def _keys_forgotten(patch: pytest.MonkeyPatch) -> None:
    archive_rows = SqliteWriter.archive

    def careless(self: SqliteWriter, row: Any) -> None:
        archive_rows(self, row)
        self._run("DELETE FROM key")

    patch.setattr(SqliteWriter, "archive", careless)


@_bug("an archive rests on one pack", "crash: an archive")
def _one_copy(patch: pytest.MonkeyPatch) -> None:
    def once(objects: Any, wanted: Any) -> Any:
        archive._write(objects, wanted)
        return {run.id: archive._places(objects, run) * 2 for run in wanted}

    patch.setattr(archive, "_two_copies", once)
    patch.setattr(archive, "_stand", lambda _reader, _places: True)


@_bug("a spill takes out what the archive rests on", "crash: a spill behind an archive")
def _homes_gathered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spill, "homes", lambda _reader: frozenset())


@_bug("an archive does not wait for the mirror", "an archive ahead of the mirror")
def _not_mirrored(patch: pytest.MonkeyPatch) -> None:
    def all_but_one(objects: Any, reader: Any) -> tuple[int, int]:
        rows = reader.archived()
        return (rows[-1].last_seq if rows else 0) + 1, reader.head().seq - 1

    patch.setattr(archive, "_span", all_but_one)


# -- what is compared and verified -----------------------------------------------------------


@_bug("refs are not compared in the gate", "two writers of one ref")
def _not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Publication, "_has_moved", _nothing)


@_bug("a branch is followed although others changed what was read", "a read that others changed")
def _reads_forgotten(patch: pytest.MonkeyPatch) -> None:
    concerns = BranchEdit._concerns

    def only_written(self: BranchEdit, path: Any) -> bool:
        self._reads, self._reads_above, self._read_all = set(), set(), False
        return concerns(self, path)

    patch.setattr(BranchEdit, "_concerns", only_written)


@_bug("a branch is followed although others wrote the same file", "two writers of one ref")
def _writes_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BranchEdit, "_concerns", _nothing)


@_bug("the fence of a session is not checked", "a fenced writer")
def _unfenced(patch: pytest.MonkeyPatch) -> None:
    install = Batch.install

    def through(self: Batch, writer: Any, head: Any) -> Any:
        session, self._session = self._session, None
        try:
            return install(self, writer, head)
        finally:
            self._session = session

    patch.setattr(Batch, "install", through)


class _Same(bytes):
    """Equal to everything."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@_bug("a reader does not check that entries follow each other", "a forged entry")
def _no_chain(patch: pytest.MonkeyPatch) -> None:
    decode = Timeline.decode

    def gullible(row: Any) -> Any:
        return attrs.evolve(decode(row), previous=_Same(bytes(32)))

    patch.setattr(Timeline, "decode", staticmethod(gullible))


@_bug("a read is not verified", "a flipped byte")
def _unverified(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(object_store, "digest_of", lambda _kind, _content: _Same())


@_bug("a pack gets its name by rename, not by link", "a name sealed twice")
def _rename(patch: pytest.MonkeyPatch) -> None:
    def link(self: RecordingFiles, source: str, target: str) -> None:
        os.rename(source, target)
        self._recorder.renamed(source, target)

    patch.setattr(RecordingFiles, "link", link)
    patch.setattr(RecordingFiles, "unlink", _nothing)


@_bug("a hit that gc took meanwhile is not looked up again", "a condemned hit")
def _trusting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batch, "_check_relied", _nothing)


@_bug(
    "a forked child opens the store beside what it inherited",
    "a forked child with a store of its own",
)
def _heir(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "disinherit", _nothing)


@_bug("a forked child uses its parent's handle", "a forked child")
def _forked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connections, "check", _nothing)
