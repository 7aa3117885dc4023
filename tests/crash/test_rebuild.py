"""Every state that a crash can leave of a rebuild is repaired to the same end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.repair.evidence import Folder, gather
from cas.maintenance.repair.rebuild import plan_rebuild
from cas.maintenance.repair.renewal import carry_out
from cas.testing.crash import Replay
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.recorder import Recorder
from cas.testing.stores import SMALL, SteppedClock, build, scratch
from tests.crash.reporting import Note
from tests.unit.kit import tamper, write

Shown = tuple[list[bytes], dict[str, bytes], dict[str, bytes]]


def made(path: str, damage: str) -> Shown:
    """A store whose catalog is gone or damaged; what a repair of it has to show."""
    cas.init(path)
    with build(path, clock=SteppedClock("made"), thresholds=SMALL) as store:
        for at in range(5):
            write(store, files={f"d/{at}": b"%d" % at, "big": os.urandom(70_000)})
        store.mirror()
        shown = show(store)
        write(store, files={"late": b"inline"})
        if damage != "lost":
            shown = show(store)
    if damage == "lost":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}/catalog.sqlite{suffix}").unlink(missing_ok=True)
    else:
        tamper(store, "DROP TABLE checkpoint")
    return shown


def show(store: Store) -> Shown:
    """The journal, the refs and the files of a branch."""
    return (
        [entry.encode() for entry in store.journal()],
        {ref.name: bytes(ref.target) for ref in store.view().refs()},
        dict(store.snapshot("main")),
    )


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_no_crash_breaks_a_rebuild(damage: str, note: Note) -> None:
    """Whatever a crash leaves of a rebuild, the next repair ends where it would have ended."""
    with scratch() as folder:
        path = os.path.join(folder, "store")
        shown = made(path, damage)
        clock = SteppedClock("rebuild")
        evidence = gather(Folder(path), clock)
        assert evidence is not None
        recorder = Recorder(path)
        vfs = RecordingVFS(recorder)
        try:
            plan = plan_rebuild(evidence)
            carry_out(plan, clock, files=RecordingFiles(recorder), vfs=vfs.name)
        finally:
            vfs.close()
            evidence.objects.close()
        replay = Replay(recorder, seed=damage, each_max=6, subsets=1)
        seen: set[bytes] = set()
        while replay.prefix < len(recorder.ops):
            replay.step()
            for cut in replay.cuts():
                image, key = replay.image(cut)
                if key in seen:
                    continue
                seen.add(key)
                place = os.path.join(folder, "crashed")
                os.mkdir(place)
                image.write_to(place)
                again_clock = SteppedClock(f"again {len(seen)}")
                loose = False if damage == "lost" else None
                with cas.plan_repair(place, clock=again_clock, keep_loose=loose) as again:
                    assert not again.blocked, (cut, again.blocked)
                    again.apply()
                with build(place, clock=SteppedClock(f"look {len(seen)}")) as store:
                    assert show(store) == shown, cut
                    assert fsck(store).ok, cut
                shutil.rmtree(place)
        note("crash states of a rebuild", damage, states=len(seen))
        assert len(seen) > 20
