"""A rebuild whose catalog does not fit on the disk."""

from __future__ import annotations

import errno
import os

import pytest

import cas
from cas.errors import StorageFailed
from cas.maintenance.repair import renewal
from cas.maintenance.repair.evidence import Folder, gather
from cas.maintenance.repair.rebuild import plan_rebuild
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.recorder import Injected, Recorder
from cas.testing.stores import SteppedClock, build, scratch
from tests.crash.test_rebuild import made, show


class Full:
    """Of the catalog that is being built no write to the file itself goes well, once it is
    filled: what was committed then lies in the log, and cannot be copied out of it.
    """

    def __init__(self) -> None:
        self.is_full = False

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if self.is_full and call == "write" and path.endswith(".tmp"):
            raise Injected(errno.ENOSPC)


def test_a_catalog_that_is_not_whole_is_not_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing says nothing of what it could not copy; the rebuild looks, and can be repeated."""
    with scratch() as folder:
        path = os.path.join(folder, "store")
        shown = made(path, "lost")
        clock = SteppedClock("full")
        evidence = gather(Folder(path), clock)
        assert evidence is not None
        hook = Full()
        create = renewal.create_catalog

        def created(*arguments: object, **options: object) -> None:
            create(*arguments, **options)  # type: ignore[arg-type]
            hook.is_full = True

        monkeypatch.setattr(renewal, "create_catalog", created)
        recorder = Recorder(path, hook)
        vfs = RecordingVFS(recorder)
        try:
            with pytest.raises(StorageFailed):
                renewal.carry_out(
                    plan_rebuild(evidence), clock, files=RecordingFiles(recorder), vfs=vfs.name
                )
        finally:
            vfs.close()
            evidence.objects.close()
        monkeypatch.undo()
        assert not os.path.exists(os.path.join(path, "catalog.sqlite"))
        with cas.plan_repair(path, keep_loose=False) as plan:
            plan.apply()
        with build(path, clock=SteppedClock("look")) as store:
            assert show(store) == shown
