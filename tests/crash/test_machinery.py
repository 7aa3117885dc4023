"""The machinery itself: the log is whole, the states are those that can be, failures repeat."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from cas.testing.crash import Cut, Replay
from cas.testing.driver import Driver
from cas.testing.explore import Explorer, Failure, explore, record
from cas.testing.faults import Fault, FaultFailure, Sweep
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.recorder import Image, Mark, Recorder, Sync, Write, scan
from cas.testing.stores import SteppedClock, create, scratch

STEPS = ("put", "commit", "multi", "commit file", "spill", "reopen", "wal", "tag", "second")


def _contents(image: Image) -> dict[str, bytes]:
    return {
        path: image.files.get(number, b"")
        for path, number in image.walk()
        if number not in image.folders
    }


def test_the_log_gives_what_the_folder_holds() -> None:
    """All operations of the log, applied to the base, give the folder as it is."""
    with scratch() as folder:
        place = os.path.join(folder, "store")
        recorder = Recorder(folder)
        vfs = RecordingVFS(recorder)
        files = RecordingFiles(recorder)
        create(place, clock=SteppedClock("log create"), files=files, vfs=vfs.name)
        driver = Driver(place, seed="log", recorder=recorder, files=files, vfs=vfs.name)
        driver.run(STEPS)
        open_state = scan(folder)
        replay = Replay(recorder)
        while replay.prefix < len(recorder.ops):
            replay.step()
        replayed, _key = replay.image(Cut(replay.prefix, replay.pending()))
        driver.close()
        vfs.close()
        assert driver.refused == []
        assert _contents(replayed) == _contents(open_state)
        assert len(_contents(replayed)) >= 3


def test_equal_seeds_give_equal_operations() -> None:
    """Two recordings of one workload differ in no operation but in SQLite's random salts."""

    def shape(ops: list[object]) -> list[object]:
        return [
            (op.file, op.offset, len(op.data)) if isinstance(op, Write) else op
            for op in ops
            if not isinstance(op, Mark)
        ]

    first, second = record(STEPS, 7), record(STEPS, 7)
    assert shape(list(first.recorder.ops)) == shape(list(second.recorder.ops))


@pytest.fixture
def watched(tmp_path: Path) -> Recorder:
    """A recorder of a folder with one durable file."""
    (tmp_path / "file").write_bytes(b"old")
    return Recorder(str(tmp_path))


def _states(recorder: Recorder) -> set[bytes]:
    replay = Replay(recorder)
    while replay.prefix < len(recorder.ops):
        replay.step()
    return {_contents(replay.image(cut)[0])["file"] for cut in replay.cuts()}


def test_an_unsynced_write_may_be_missing_or_torn(watched: Recorder) -> None:
    """Before its sync a write is there, is not, or is there in part; after it, it is there."""
    file = watched.file_at(watched.root + "/file")
    assert file is not None
    watched.written(file, 0, b"new!")
    assert _states(watched) == {b"old", b"new!", b"nld", b"ned"}
    watched.synced(file)
    assert _states(watched) == {b"new!"}


def test_writes_reach_the_disk_in_any_order(watched: Recorder) -> None:
    """Of several unsynced writes any may be there without the others."""
    file = watched.file_at(watched.root + "/file")
    assert file is not None
    for offset, data in ((0, b"A"), (1, b"B"), (4, b"E")):
        watched.written(file, offset, data)
    states = _states(watched)
    assert {b"old", b"Ald", b"oBd", b"old\0E", b"ABd\0E", b"oBd\0E", b"Ald\0E", b"ABd"} <= states


def test_what_a_failed_sync_covered_stays_in_doubt(watched: Recorder) -> None:
    """A later sync does not make durable what an earlier one failed to, a new write does."""
    file = watched.file_at(watched.root + "/file")
    assert file is not None
    watched.written(file, 0, b"A")
    watched.synced(file, ok=False)
    watched.written(file, 1, b"B")
    watched.synced(file)
    assert _states(watched) == {b"oBd", b"ABd"}
    watched.written(file, 0, b"A")
    watched.synced(file)
    assert _states(watched) == {b"ABd"}


def test_a_name_needs_a_sync_of_its_folder(watched: Recorder) -> None:
    """A file's sync keeps its bytes, but not its name."""
    path = watched.root + "/made"
    file = watched.created(path)
    watched.written(file, 0, b"bytes")
    watched.synced(file)

    def names() -> set[bool]:
        replay = Replay(watched)
        while replay.prefix < len(watched.ops):
            replay.step()
        return {"made" in _contents(replay.image(cut)[0]) for cut in replay.cuts()}

    assert names() == {True, False}
    watched.synced(watched.folder_of(path))
    assert names() == {True}


def test_what_was_given_up_may_hold_the_bytes_of_another(watched: Recorder) -> None:
    """Until its removal is durable a file may come back with anything in it; one that has got
    another name may not, nor what is left of one that was cut.
    """
    path = watched.root + "/file"
    file = watched.file_at(path)
    assert file is not None
    watched.renamed(path, watched.root + "/other")
    assert {_contents(image).popitem()[1] for image in _images(watched)} == {b"old"}
    watched.renamed(watched.root + "/other", path)
    watched.synced(watched.folder_of(path))
    watched.written(file, 0, b"a" * 4096 + b"b" * 4096)
    watched.synced(file)
    watched.truncated(file, 4096)
    found = {_contents(image)["file"] for image in _images(watched)}
    assert {data[:4096] for data in found} == {b"a" * 4096}
    assert len({data[4096:] for data in found}) == 3
    watched.synced(file)
    watched.unlinked(path)
    found = {_contents(image).get("file", b"") for image in _images(watched)}
    assert len(found - {b"", b"a" * 4096}) == 1
    watched.synced(watched.folder_of(path))
    assert [_contents(image) for image in _images(watched)] == [{}]


def _images(recorder: Recorder) -> list[Image]:
    replay = Replay(recorder)
    while replay.prefix < len(recorder.ops):
        replay.step()
    return [replay.image(cut)[0] for cut in replay.cuts()]


def test_a_failed_crash_state_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that was written down fails again, and passes once the bug is gone."""
    with monkeypatch.context() as patch:
        patch.setattr(RecordingFiles, "sync", lambda _self, _fd: None)
        found = explore(("commit file",), 3, fail_fast=True).failures[0]
        again = Failure.from_json(found.to_json())
        assert again == found
        recording = record(again.steps, again.seed)
        with scratch() as folder:
            (repeated,) = Explorer(recording, folder).replay(again.cut, again.inner).failures
        assert [f.split(":")[0] for f in repeated.findings] == [
            f.split(":")[0] for f in found.findings
        ]
    with scratch() as folder:
        recording = record(again.steps, again.seed)
        assert Explorer(recording, folder).replay(again.cut, again.inner).failures == []


def test_a_failed_fault_repeats() -> None:
    """The report of a fault survives being written down."""
    failure = FaultFailure(("commit",), ("put",), "1", Fault("EIO once", 3), None, ("lost",))
    assert FaultFailure.from_json(failure.to_json()) == failure
    sweep = Sweep(failure.before, failure.steps, failure.seed)
    assert sweep.run(chosen=[failure.fault]).failures == []
    assert sum(sweep.report.faults.values()) == 1


def test_a_fault_that_never_comes_is_noticed() -> None:
    """A fault at a call that is not made fails the sweep instead of passing it."""
    with pytest.raises(AssertionError, match="never came"):
        Sweep((), ("put",), 1).run(chosen=[Fault("EIO once", 10_000)])


def test_the_oracle_sees_what_is_lost() -> None:
    """A model that expects more than there is, or other than there is, gives findings."""
    recording = record(("put", "commit"), 5)
    with scratch() as folder:
        assert Explorer(recording, folder).run().failures == []
    entries = recording.model.entries
    entries[1] = attrs.evolve(entries[1], refs={"heads/main": {"other": bytes(32)}})
    recording.model.puts[0] = bytes(32)
    with scratch() as folder:
        failures = Explorer(recording, folder, written=0, nested=0).run().failures
    said = " ".join(finding for failure in failures for finding in failure.findings)
    assert "acknowledged puts are lost" in said
    assert "the refs are not those of entry 1" in said


_SYNCED = """
import sys
from cas.testing.stores import SteppedClock, build, create
create(sys.argv[1], clock=SteppedClock(1))
store = build(sys.argv[1], clock=SteppedClock(2))
store.put(b"x")
store.close()
"""


@pytest.mark.alone
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_sqlite_syncs_the_folder_with_a_new_log(tmp_path: Path) -> None:
    """What the recorder takes for granted: the first sync of a log also syncs its folder."""
    trace = tmp_path / "trace"
    place = tmp_path / "store"
    done = subprocess.run(
        [
            *("strace", "-f", "-y", "-o", trace, "-e", "trace=fsync,fdatasync,unlink"),
            *(sys.executable, "-c", _SYNCED, str(place)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here: " + done.stderr.strip().splitlines()[0])
    assert done.returncode == 0, done.stderr
    calls = [line.split(" ", 1)[1] for line in trace.read_text().splitlines() if "(" in line]
    syncs = [call for call in calls if "sync(" in call]
    first = next(i for i, call in enumerate(syncs) if f"{place}/catalog.sqlite-wal>" in call)
    assert f"<{place}>" in syncs[first + 1]


_AUDITED = """
import os, sys
touched = []
def hook(event, arguments):
    path = str(arguments[0]) if event == "open" else ""
    if "catalog.sqlite" in path and not path.endswith("-wal"):
        touched.append(str(arguments[0]))
sys.addaudithook(hook)
from cas.testing.driver import Driver
from cas.testing.stores import SteppedClock, create
create(sys.argv[1], clock=SteppedClock(1))
driver = Driver(sys.argv[1], seed=1)
driver.run(sys.argv[2].split(","))
driver.close()
assert not driver.refused, driver.refused
print(touched)
"""


def test_nothing_but_sqlite_opens_its_files(tmp_path: Path) -> None:
    """No call of the store opens the catalog or its shared memory: closing them drops locks.

    The log is opened to sync or to blank it; SQLite takes no lock on that file.
    """
    done = subprocess.run(
        [sys.executable, "-c", _AUDITED, str(tmp_path / "store"), ",".join(STEPS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_sync_that_fails_is_in_the_log() -> None:
    """A fault under a sync is recorded as a sync that made nothing durable."""
    assert Sync(1, ok=False) != Sync(1, ok=True)
    sweep = Sweep((), ("put file",), 2)
    report = sweep.run(share=0.2)
    assert report.failures == []
    assert report.faults["lost sync"] + report.faults["no sync from then on"] > 0
