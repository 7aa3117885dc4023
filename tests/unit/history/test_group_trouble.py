"""Threads that commit in one group, when something goes wrong or runs out beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import cas
from cas.catalog.statements import SqliteWriter
from cas.errors import StorageFull
from cas.history.horizon import Thinning
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.maintenance.fsck.check import fsck
from tests.unit.crowd import in_one_group


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in a folder, with a file in it."""
    with cas.open(tmp_path / "store", create=True) as opened:
        begun(opened, "main", "first")()
        yield opened


def begun(store: Store, branch: str, name: str, message: str = "m") -> Callable[[], Any]:
    """A transaction that has begun and set one file; calling it commits."""
    tx = store.begin(author="a", message=message)
    tx.branch(branch)[name] = name.encode()
    return ended(tx)


def ended(tx: Transaction) -> Callable[[], Any]:
    """What commits a transaction."""

    def work() -> Any:
        with tx:
            return tx.commit()

    return work


def assert_whole(store: Store) -> None:
    """Nothing is damaged or lost."""
    assert not [each for each in fsck(store).findings if each.severity.name != "NOTICE"]


def test_who_followed_one_that_is_rolled_back_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is made anew upon the first; the third finds the disk full, twice. Its commit was
    named by an entry without being stored, when it was installed again as it had stood ready.
    """
    add, calls = SqliteWriter.add_pack, [0]

    def full(self: SqliteWriter, *row: Any) -> None:
        calls[0] += 1
        if calls[0] in (3, 4):
            raise apsw.FullError("database or disk is full")
        add(self, *row)

    works = [begun(store, "main", "f0"), begun(store, "main", "f1"), begun(store, "other", "f2")]
    monkeypatch.setattr(SqliteWriter, "add_pack", full)
    ends = in_one_group(store, works)
    monkeypatch.undo()
    told = [number for number, end in enumerate(ends) if isinstance(end, StorageFull)]
    assert 1 in told
    names = {"first", *(f"f{number}" for number in (0, 1) if number not in told)}
    assert set(store.snapshot("main")) == names
    begun(store, "main", "later")()
    assert set(store.snapshot("main")) == {*names, "later"}
    assert_whole(store)


def test_what_grows_inside_the_gate_waits_for_nobody(store: Store, tmp_path: Path) -> None:
    """Made anew upon a branch that moved, a transaction outgrew what an inline pack takes: it began
    a pack file, whose session waited for the gate that its own thread held.
    """
    with store.begin(author="a", message="base") as tx:
        branch = tx.branch("main")
        for number in range(3_000):
            branch[f"d{number % 4}/n{number:04d}{'x' * 60}"] = b"%d" % number
        tx.commit()
    tx = store.begin(author="a", message="large")
    left = (1 << 20) - 8_000
    while left:
        size = min(left, 50_000)
        tx.put(os.urandom(size))
        left -= min(left, size + 100)
    for number in range(4):
        tx.branch("main")[f"d{number}/zz"] = b"v"
    assert tx.batch.is_small
    with cas.open(tmp_path / "store") as other:
        for turn in range(4):
            with other.begin(author="b") as more:
                for number in range(4):
                    more.branch("main")[f"d{number}/zy"] = b"%d" % turn
                more.commit()
    (end,) = in_one_group(store, [ended(tx)])
    assert store.snapshot("main")["d3/zz"] == b"v"
    assert end.seq == store.view().seq
    assert_whole(store)


@pytest.mark.parametrize("what", ["commits", "nodes"])
def test_what_members_before_wrote_is_read_from_them(store: Store, what: str) -> None:
    """Caches may drop what no pack holds as yet, at any time: those who follow still find it."""
    works = [begun(store, "main", f"f{number}") for number in range(4)]
    committer = store.objects.committer
    install = committer._install

    def evicted(*words: Any) -> None:
        if what == "commits":
            store.core.commits._commits.clear()
        else:
            store.objects._nodes._nodes.clear()
            store.objects._nodes._bytes = 0
        install(*words)

    committer._install = evicted  # type: ignore[method-assign]
    ends = in_one_group(store, works)
    assert not [end for end in ends if isinstance(end, BaseException)]
    assert set(store.snapshot("main")) == {"first", "f0", "f1", "f2", "f3"}
    assert_whole(store)


@pytest.mark.parametrize("kept_by", ["holds/", "heads/"])
def test_a_thinning_sees_what_was_kept_just_before(store: Store, kept_by: str) -> None:
    """A hold, or a branch, and a thinning of its commit queue together: the content stays."""
    for turn in range(4):
        with store.begin(author="a", message=f"{turn}") as tx:
            tx.branch("main")["f"] = b"%d " % turn * 400
            tx.commit()
    old = list(store.log("main"))[2][0]
    keeper = store.begin(author="k", message="keep")
    keeper.move(kept_by + (old.hex() if kept_by == "holds/" else "kept"), old)
    thinner = store.begin(author="t", message="thin")
    given_up = {old: Thinning("policy", "t", 1)}
    stage_raise(store.core, thinner, store.view().seq, given_up)
    ends = in_one_group(store, [begun(store, "b", "b"), ended(keeper), ended(thinner)])
    assert not isinstance(ends[1], BaseException)
    assert isinstance(ends[2], cas.CasError)
    assert store.snapshot(str(old))["f"] == b"1 " * 400
