"""Each call of a close, and of a cut of the log, that fails leaves a store that goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cas.catalog.sqlite import SqliteCatalog, create_catalog, open_catalog
from cas.errors import CasError
from cas.testing.catalog_contract import META
from cas.testing.faults import KINDS, Fault, FaultHook
from cas.testing.layers import RecordingVFS
from cas.testing.recorder import Recorder

ENDS: dict[str, Callable[[SqliteCatalog], object]] = {
    "close": lambda catalog: catalog.close(),
    "trim": lambda catalog: catalog.trim(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_fails_costs_no_commit(tmp_path: Path, end: str, kind: str) -> None:
    """What was committed before is there, for the same handle and the next; and the next takes the
    log away.
    """
    at = failed = 0
    is_over = False
    while not is_over:
        folder = tmp_path / str(at)
        folder.mkdir()
        path, locks = str(folder / "catalog.sqlite"), str(folder / "locks")
        create_catalog(path, META)
        hook = FaultHook(Fault(kind, at))
        vfs = RecordingVFS(Recorder(str(folder), hook))
        try:
            catalog = open_catalog(path, locks, vfs=vfs.name, anywhere=True)
            for name in "abc":
                with catalog.write() as writer:
                    writer.set_cursor(name, 1)
            hook.armed = True
            with suppress(CasError):
                ENDS[end](catalog)
            hook.armed = False
            if end == "trim":
                with catalog.write() as writer:
                    writer.set_cursor("d", 1)
            catalog.close()
        finally:
            vfs.close()
        is_over = hook.hit is None
        failed += not is_over and Fault(kind, at).fits(hook.calls[at])
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
    assert failed > 1
