"""Waiting to write: without end behind other writers, `Busy` behind a program that is none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import cas
from cas import limits
from cas.catalog import engine
from cas.errors import Busy
from cas.history.store import Store
from tests.unit.kit import write


def test_a_foreign_lock_gives_busy_and_commits_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program outside the gate holds SQLite's lock: `Busy` with the wait, then all goes on."""
    monkeypatch.setattr(engine, "BUSY_MS", 20)
    with cas.open(store.location) as other:
        with closing(apsw.Connection(str(Path(store.location) / "catalog.sqlite"))) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy) as caught:
                write(other)
            assert caught.value.waited_ms == engine.BUSY_MS
            assert other.view().seq == 0
            foreign.execute("ROLLBACK")
        assert write(other).seq == 1


def test_no_limit_is_promised_for_the_wait_at_the_gate() -> None:
    """The gate has no time-out (cas/catalog/gate.py says why), so that no limit names one."""
    assert not [name for name in vars(limits) if "GATE" in name.split("_")]
