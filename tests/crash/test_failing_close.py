"""Each call of a close, and of a cut of the log, that fails leaves a store that goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cas.catalog.sqlite import SqliteCatalog, create_catalog, open_catalog
from cas.errors import CasError
from cas.testing.catalog_contract import META
from cas.testing.layers import RecordingVFS
from cas.testing.recorder import Injected, Recorder


class Failing:
    """The call of this number fails, and so do all behind it where `on` says so."""

    def __init__(self, at: int, error: int, *, on: bool) -> None:
        self.calls = -1
        self._failing = range(at, 1 << 30) if on else range(at, at + 1)
        self._errno = error

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if self.calls < 0 or (self._errno == errno.ENOSPC and call != "write"):
            return
        self.calls += 1
        if self.calls - 1 in self._failing:
            raise Injected(self._errno, size_bytes // 2 if call == "write" else 0)


ENDS: dict[str, Callable[[SqliteCatalog], object]] = {
    "close": lambda catalog: catalog.close(),
    "trim": lambda catalog: catalog.trim(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("on", [False, True])
def test_a_call_that_fails_costs_no_commit(tmp_path: Path, end: str, error: int, on: bool) -> None:
    """What was committed before is there, for the same handle and the next; and the next takes the
    log away.
    """
    at, done = 0, False
    while not done:
        folder = tmp_path / str(at)
        folder.mkdir()
        path, locks = str(folder / "catalog.sqlite"), str(folder / "locks")
        create_catalog(path, META)
        hook = Failing(at, error, on=on)
        vfs = RecordingVFS(Recorder(str(folder), hook))
        try:
            catalog = open_catalog(path, locks, vfs=vfs.name, anywhere=True)
            for name in "abc":
                with catalog.write() as writer:
                    writer.set_cursor(name, 1)
            hook.calls = 0
            with suppress(CasError):
                ENDS[end](catalog)
            done = hook.calls <= at
            hook.calls = -1
            if end == "trim":
                with catalog.write() as writer:
                    writer.set_cursor("d", 1)
            catalog.close()
        finally:
            vfs.close()
        names = "abc" if end == "close" else "abcd"
        for _ in range(2):
            catalog = open_catalog(path, locks, anywhere=True)
            with catalog.read() as reader:
                assert [name for name in names if reader.cursor(name) == 1] == list(names), at
            with catalog.write() as writer:
                writer.set_cursor("e", at)
            catalog.close()
            assert not os.path.exists(path + "-wal"), at
        at += 1
    assert at > 2
