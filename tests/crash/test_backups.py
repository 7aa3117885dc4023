"""Backups beside writers, under power cuts, kills, failing calls and full disks."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import BackupNotFound, CasError, StorageFailed
from cas.history.store import Store
from cas.maintenance.backups import carry
from cas.maintenance.backups.carry import check_file
from cas.maintenance.backups.increment import Index
from cas.maintenance.backups.vault import Vault, open_vault
from cas.maintenance.fsck.check import fsck
from cas.objects.packs import file_name
from cas.storage.bucket import Bucket, BucketFile
from cas.storage.files import OS_FILES
from cas.storage.local import LocalUpload
from cas.testing.crash import Replay
from cas.testing.faults import KINDS, Fault, FaultHook
from cas.testing.layers import RecordingFiles
from cas.testing.recorder import Image, Mark, Recorder, scan
from tests.crash.reporting import Note, scaled
from tests.tidy.source import ROOT


def fill(store: Store, round: int) -> None:
    """Something of everything: entries, inline packs, a pack file, a spill every other time."""
    draw = random.Random(f"backups {round}")
    for number in range(3):
        with store.begin() as tx:
            tx.branch("main")[f"f{number}"] = b"%d of %d" % (number, round)
            tx.commit()
    with store.batch() as batch:
        for _ in range(2):
            batch.put(draw.randbytes(70_000))
    if round % 2:
        store.spill()
    store.put(b"young %d" % round)


def check(vault: Vault) -> Index | None:
    """The newest increment, if the chain and every pack that any state of it names hold."""
    try:
        chain = vault.chain()
    except BackupNotFound:
        return None
    for index in chain:
        vault.reader(index.number).check()
        for line in () if index.state is None else index.state.packs:
            if line.name is None:
                assert line.body is not None
                vault.held(line.body)
            else:
                assert check_file(vault.packs, file_name(line.name)) == line.check
    assert sum(1 for _ in vault.entries(chain)) == chain[-1].journal_seq
    return chain[-1]


def checked(place: Path) -> Index | None:
    """`check` of a folder that may not be there."""
    try:
        with open_vault(str(place), SystemClock()) as vault:
            return check(vault)
    except BackupNotFound:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file after the other, so that calls come in the same order each time."""
    monkeypatch.setattr(carry, "_WORKERS", 1)


def images(recorder: Recorder, seed: str) -> Iterator[tuple[int, Image]]:
    """Every distinct state that a power cut can leave: how many backups were done, and it."""
    replay = Replay(recorder, seed=seed, each_max=16, subsets=4)
    seen: set[tuple[int, bytes]] = set()
    done = 0
    while replay.prefix < len(recorder.ops):
        op = replay.step()
        done += isinstance(op, Mark)
        for cut in replay.cuts():
            image, key = replay.image(cut)
            if (done, key) not in seen:
                seen.add((done, key))
                yield done, image


def test_a_power_cut_leaves_the_backup_before_or_after(
    store: Store, tmp_path: Path, note: Note, one_at_a_time: None
) -> None:
    """In every state that a power cut can leave, each backup that was done is whole, and what is
    half done is not there; the next backup goes on from it.
    """
    outer = tmp_path / "outer"
    outer.mkdir()
    recorder = Recorder(str(outer))
    for round in range(8):
        fill(store, round)
        cas_backup(store, outer / "backup", RecordingFiles(recorder))
        recorder.mark(round)
    counts: Counter[str] = Counter()
    draw = random.Random("which are gone on with")
    for number, (done, image) in enumerate(images(recorder, "backups")):
        place = tmp_path / f"cut-{number}"
        place.mkdir()
        image.write_to(str(place))
        newest = checked(place / "backup")
        assert (0 if newest is None else newest.number) >= done
        counts["states"] += 1
        counts["between two backups"] += newest is not None and newest.number > done
        if draw.random() < 0.05:
            cas.backup(store, place / "backup")
            report, _file = cas.prove(place / "backup")
            assert report.ok
            assert report.seq == store.view().seq
            counts["gone on with"] += 1
    assert counts["states"] > 100
    note("power cuts of backups", "eight backups", **counts)


def cas_backup(store: Store, place: Path, files: RecordingFiles | None = None) -> None:
    """`cas.backup` with its calls watched."""
    cas.backup(store, place, files=files or OS_FILES)


@pytest.mark.parametrize("earlier", [0, 1])
def test_every_call_may_fail(
    store: Store, tmp_path: Path, note: Note, one_at_a_time: None, earlier: int
) -> None:
    """Whatever call of a backup fails, it ends with a typed error or has succeeded; what was there
    is as good as before, and the next backup goes on.
    """
    template = tmp_path / "template"
    template.mkdir()
    fill(store, 0)
    if earlier:
        cas.backup(store, template / "backup")
        fill(store, 1)
    else:
        fill(store, 2)
    calls = _with_fault(store, template, tmp_path / "dry", None)[0].calls
    counts: Counter[str] = Counter()
    number = 0
    for kind in KINDS:
        for at, call in enumerate(calls):
            fault = Fault(kind, at)
            if not fault.fits(call):
                continue
            number += 1
            place = tmp_path / f"fault-{number}"
            hook, error = _with_fault(store, template, place, fault)
            assert not hook.findings, (fault, hook.findings)
            newest = checked(place / "backup")
            found = 0 if newest is None else newest.number
            assert found >= (earlier if error else earlier + 1), fault
            counts[kind] += 1
            assert cas.backup(store, place / "backup").increment == earlier + 1
            assert checked(place / "backup") is not None
    row = "a second backup" if earlier else "a first backup"
    note("calls of backups that fail", row, **counts)
    assert sum(counts.values()) > 40


def _with_fault(
    store: Store, template: Path, place: Path, fault: Fault | None
) -> tuple[FaultHook, CasError | None]:
    place.mkdir()
    scan(str(template)).write_to(str(place))
    hook = FaultHook(fault)
    recorder = Recorder(str(place), hook)
    hook.armed = True
    try:
        cas_backup(store, place / "backup", RecordingFiles(recorder))
    except CasError as error:
        return hook, error
    finally:
        hook.armed = False
    return hook, None


class StubbornBucket:
    """A bucket of which one read fails."""

    def __init__(self, bucket: Bucket, fail_at: int) -> None:
        self._bucket = bucket
        self._left = fail_at

    def read(self, name: str, start: int, length: int) -> bytes:
        self._left -= 1
        if self._left == 0:
            raise StorageFailed("the disk says no", path=name, errno=errno.EIO)
        return self._bucket.read(name, start, length)

    def size(self, name: str) -> int:
        return self._bucket.size(name)

    def list(self) -> Iterator[BucketFile]:
        return self._bucket.list()

    def create(self) -> object:
        return self._bucket.create()

    def sync(self) -> None:
        self._bucket.sync()

    def delete(self, name: str) -> None:
        self._bucket.delete(name)

    def close(self) -> None:
        self._bucket.close()


def test_every_read_of_the_store_may_fail(
    store: Store, tmp_path: Path, one_at_a_time: None
) -> None:
    """A read that fails is told as what it is, and not as damage; nothing is recorded then."""
    fill(store, 0)
    real = store.objects.bucket
    place = tmp_path / "backup"
    failures = 0
    for at in range(1, 1000):
        store.objects.bucket = StubbornBucket(real, at)  # type: ignore[assignment]
        try:
            cas.backup(store, place)
            break
        except StorageFailed:
            failures += 1
            assert checked(place) is None
        finally:
            store.objects.bucket = real
    assert failures > 3
    assert cas.prove(place)[0].ok


KILLED = """
import os, sys, cas
with cas.open(sys.argv[1], read_only=True) as store:
    print("open", flush=True)
    for _ in range(1000):
        cas.backup(store, sys.argv[2])
"""

WRITING = """
import os, sys, cas
number = 0
with cas.open(sys.argv[1]) as store:
    while True:
        number += 1
        content = b"%d" % number + os.urandom(40_000 if number % 5 else 200_000)
        with store.begin(author=sys.argv[2]) as tx:
            tx.branch(f"one/{sys.argv[2]}")["n"] = content
            tx.branch(f"two/{sys.argv[2]}")["n"] = content
            tx.event("wrote", b"%d" % number)
            entry = tx.commit()
        print(entry.seq, flush=True)
"""


def _child(program: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


def _restored_holds(place: Path, target: Path, least: int) -> int:
    """Make a store of the newest backup: both branches of each writer are the same there."""
    done = cas.restore_store(place, target)
    assert done.seq >= least
    with cas.open(target) as store:
        assert fsck(store).ok
        for ref in store.branches():
            name = ref.name.removeprefix("heads/")
            if name.startswith("one/"):
                other = store.snapshot("two/" + name.removeprefix("one/"))
                assert store.snapshot(name)["n"] == other["n"]
    return done.seq


def test_a_backup_beside_writers_is_one_moment(tmp_path: Path) -> None:
    """While processes commit to two branches at once, every backup has both or neither, and all
    that was acknowledged before it began.
    """
    place, folder = tmp_path / "backup", tmp_path / "store"
    cas.init(folder)
    writers = [_child(WRITING, str(folder), name) for name in ("ada", "bob")]
    try:
        with cas.open(folder, read_only=True) as store:
            for round in range(scaled(8)):
                told = [int(_line(writer)) for writer in writers for _ in range(3)]
                report = cas.backup(store, place)
                assert report.seq >= max(told)
                _restored_holds(place, tmp_path / f"restored-{round}", max(told))
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert cas.prove(place)[0].ok


COLLECTING = """
import os, sys, cas
from cas.history.retain import stage_raise
number = 0
with cas.open(sys.argv[1]) as store:
    while True:
        number += 1
        with store.begin() as tx:
            tx.branch("draft")["big"] = os.urandom(300_000)
            tx.branch("main")["n"] = os.urandom(70_000)
            tx.branch("main")["small"] = b"%d" % number
            tx.commit()
        with store.begin() as tx:
            tx.delete("heads/draft")
            entry = tx.commit()
        with store.begin() as tx:
            stage_raise(store.core, tx, entry.seq, {})
            tx.commit()
        store.put(os.urandom(80_000))
        result = store.gc(grace_us=0)
        if number % 4 == 0:
            store.spill()
        print(result.object_count, flush=True)
"""


def test_a_backup_beside_the_collector_is_whole(tmp_path: Path, note: Note) -> None:
    """While another process gives up objects and removes packs, every backup is one state: what
    its refs and its horizon need is there, what had been given up is not; older positions stay.
    """
    place, folder = tmp_path / "backup", tmp_path / "store"
    cas.init(folder)
    counts: Counter[str] = Counter()
    collector = _child(COLLECTING, str(folder))
    positions: list[int] = []
    try:
        with cas.open(folder, read_only=True) as store:
            for round in range(scaled(12)):
                counts["objects given up"] += sum(int(_line(collector)) for _ in range(2))
                report = cas.backup(store, place)
                counts["backups"] += 1
                positions.append(report.seq)
                target = tmp_path / f"restored-{round}"
                cas.restore_store(place, target)
                with cas.open(target) as other:
                    assert fsck(other).ok
                    assert len(other.snapshot("main")["n"]) == 70_000
    finally:
        collector.kill()
        collector.wait()
        assert collector.stdout is not None
        collector.stdout.close()
    assert counts["objects given up"] > counts["backups"]
    assert cas.prove(place)[0].ok
    for number, seq in enumerate(positions[:-1]):
        target = tmp_path / f"older-{number}"
        cas.restore_store(place, target, seq=seq)
        with cas.open(target) as other:
            assert fsck(other).ok
            assert len(other.snapshot("main")["n"]) == 70_000
    note("backups beside the collector", "gc in a loop", **counts)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def test_a_backup_killed_at_any_moment_is_gone_on_with(tmp_path: Path, note: Note) -> None:
    """SIGKILL while a process backs up again and again: each time the next one finds a whole
    chain, goes on with it, and copies nothing twice.
    """
    place, folder = tmp_path / "backup", tmp_path / "store"
    draw = random.Random("kills of backups")
    counts: Counter[str] = Counter()
    with cas.open(folder, create=True) as store:
        for round in range(scaled(40)):
            fill(store, round)
            child = _child(KILLED, str(folder), str(place))
            assert _line(child) == "open\n"
            time.sleep(draw.random() * 0.1)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
            before = checked(place)
            there = {file.name for file in (place / "packs").glob("*.pack")} if before else set()
            report = cas.backup(store, place)
            counts["killed"] += 1
            counts["before its increment"] += report.written
            assert report.new_packs <= report.pack_count
            assert there <= {file.name for file in (place / "packs").glob("*.pack")}
            assert not list(place.rglob("*.tmp"))
            assert checked(place) is not None
        assert cas.prove(place, source=store)[0].ok
    note("kills of backups", "SIGKILL", **counts)


LIMITED = """
import resource, signal, sys, cas
from cas.errors import Unavailable
with cas.open(sys.argv[1], read_only=True) as store:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        cas.backup(store, sys.argv[2])
    except Unavailable as error:
        print(error.code, flush=True)
"""


def test_a_backup_that_does_not_fit_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    """A file system that takes no more: a typed error, the backup before it stands, and with room
    the next one goes on.
    """
    place = tmp_path / "backup"
    fill(store, 0)
    cas.backup(store, place)
    with store.batch() as batch:
        batch.put(random.Random("long").randbytes(300_000))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store.location, place],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "storage-failed\n"
    newest = checked(place)
    assert newest is not None
    assert newest.number == 1
    assert cas.backup(store, place).increment == 2
    assert cas.prove(place)[0].ok


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "packs are never synced": lambda patch: patch.setattr(
        RecordingFiles, "sync", lambda *_words: None
    ),
    "names of packs are never synced": lambda patch: patch.setattr(
        RecordingFiles, "sync_folder", lambda *_words: None
    ),
    "a pack gets its name before its bytes": lambda patch: patch.setattr(
        LocalUpload, "seal", _named_first
    ),
}


def _named_first(self: LocalUpload, name: str) -> None:
    target = os.path.join(self._folder, name)
    self._files.link(self._path, target)
    self._flush()
    self._files.unlink(self._path)
    self._close()


@pytest.mark.parametrize("bug", PLANTED)
def test_power_cuts_find_planted_bugs(
    store: Store,
    tmp_path: Path,
    one_at_a_time: None,
    monkeypatch: pytest.MonkeyPatch,
    bug: str,
) -> None:
    """Each rule of order that is left out shows as a backup that is not whole."""
    PLANTED[bug](monkeypatch)
    outer = tmp_path / "outer"
    outer.mkdir()
    recorder = Recorder(str(outer))
    for round in range(2):
        fill(store, round)
        cas_backup(store, outer / "backup", RecordingFiles(recorder))
        recorder.mark(round)
    for number, (done, image) in enumerate(images(recorder, "planted")):
        place = tmp_path / f"cut-{number}"
        place.mkdir()
        image.write_to(str(place))
        try:
            newest = checked(place / "backup")
            assert (0 if newest is None else newest.number) >= done
        except (CasError, AssertionError):
            return
    pytest.fail(f"{bug}: nobody has noticed")
