"""Group commit: threads that commit at once, in one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.catalog import log
from cas.catalog.connections import Connections
from cas.clock import SystemClock
from cas.errors import OutcomeUnknown, RefConflict, TransactionReused
from cas.history.publication import Publication
from cas.history.store import Store
from cas.history.timeline import Timeline
from cas.limits import THRESHOLDS
from cas.objects.committer import Committer, Group
from cas.testing.stores import build, create
from tests.unit.crowd import in_one_group


def _commit(store: Store, branch: str, name: str) -> Callable[[], None]:
    tx = store.begin(author="a", message=name)
    tx.branch(branch)[name] = name.encode()

    def work() -> None:
        with tx:
            tx.commit()

    return work


def test_who_committed_sees_it_while_others_follow_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark names what the last of a group has left: none before it may be taken for that."""
    with cas.open(tmp_path / "s", create=True) as store:
        _commit(store, "main", "first")()
        reached = Timeline.reached

        def between(timeline: Timeline, *done: Any) -> None:
            # As if another thread of the handle followed the journal between two members.
            reached(timeline, *done)
            with store.objects.catalog.read() as reader:
                timeline.now(reader)

        monkeypatch.setattr(Timeline, "reached", between)
        seen: list[tuple[int, int]] = []

        def committed(number: int) -> Callable[[], None]:
            tx = store.begin(author="a", message="m")
            tx.branch(f"b{number}")["f"] = b"f"

            def work() -> None:
                with tx:
                    seq = tx.commit().seq
                seen.append((seq, store.view().seq))

            return work

        assert in_one_group(store, [committed(number) for number in range(6)]) == [None] * 6
        assert [shown >= seq for seq, shown in seen] == [True] * 6


def test_a_crowd_commits_in_two_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One leads; all that queue meanwhile share the next transaction and its sync."""
    with cas.open(tmp_path / "s", create=True) as store:
        _commit(store, "main", "first")()
        syncs: list[int] = []
        sync = log.sync_data
        monkeypatch.setattr(log, "sync_data", lambda fd: (syncs.append(fd), sync(fd))[1])
        ends = in_one_group(store, [_commit(store, f"b{n}", "f") for n in range(12)])
        assert ends == [None] * 12
        assert len(syncs) <= 2
        assert [entry.seq for entry in store.journal()] == list(range(1, 14))
        assert sorted(ref.name for ref in store.branches()) == sorted(
            ["heads/main", *(f"heads/b{n}" for n in range(12))]
        )
        assert len({pack.number for pack in store.objects.lookup.state.packs.values()}) == 13
    with cas.open(tmp_path / "s") as store:
        assert [bytes(store.snapshot(f"b{n}")["f"]) for n in range(12)] == [b"f"] * 12


def test_all_who_come_during_a_sync_share_the_next_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lead stays with a commit until it is durable; who comes meanwhile is in one with all."""
    with cas.open(tmp_path / "s", create=True) as store:
        _commit(store, "main", "first")()
        works = [_commit(store, f"b{n}", "f") for n in range(7)]
        queue = store.objects.committer._queue
        syncs: list[int] = []
        sync, begun, everyone = log.sync_data, threading.Event(), threading.Event()

        def slow(fd: int) -> None:
            syncs.append(len(queue))
            begun.set()
            everyone.wait(60)
            sync(fd)

        monkeypatch.setattr(log, "sync_data", slow)
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        threads[0].start()
        assert begun.wait(60)
        for thread in threads[1:]:
            thread.start()
        end = time.monotonic() + 10
        while len(queue) < 6 and time.monotonic() < end:
            time.sleep(0.001)
        queued = len(queue)
        everyone.set()
        for thread in threads:
            thread.join(60)
        assert (queued, syncs) == (6, [0, 0])
        assert [entry.seq for entry in store.journal()] == list(range(1, 9))


def test_who_is_refused_costs_the_others_nothing(store: Store) -> None:
    """Of several that write one file, the first wins, and those of other branches commit."""
    _commit(store, "main", "first")()
    works = [_commit(store, "main" if n % 2 else f"b{n}", "same") for n in range(10)]
    ends = in_one_group(store, works)
    refused = [end for end in ends if end is not None]
    assert len(refused) == 4
    assert all(isinstance(error, RefConflict) for error in refused)
    assert len(list(store.journal())) == 7
    assert list(store.diff("main~1", "main"))


def test_a_checkpoint_of_refs_ends_its_group(tmp_path: Path) -> None:
    """Refs behind a checkpoint in the same crowd are stored by the next one, and found again."""
    thresholds = THRESHOLDS._replace(checkpoint_entries=4)
    create(str(tmp_path / "s"), clock=SystemClock())
    with build(str(tmp_path / "s"), clock=SystemClock(), thresholds=thresholds) as store:
        for turn in range(5):
            works = [_commit(store, f"b{turn}-{n}", "f") for n in range(9)]
            assert in_one_group(store, works) == [None] * 9
        assert len(store.branches()) == 45
        for seq in range(1, 46):
            assert len(store.at(seq).branches()) == seq


def test_a_transaction_that_fails_as_a_whole_is_tried_again_by_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends one member's transaction before COMMIT does not end those of the others."""
    _commit(store, "main", "first")()
    calls = []
    install = Publication._install

    def fail(self: Any, *given: Any) -> Any:
        done = install(self, *given)
        if self._staged.message == "bad":
            calls.append("bad")
            raise RuntimeError("after it has written")
        return done

    monkeypatch.setattr(Publication, "_install", fail)
    names = ["f0", "f1", "bad", "f3"]
    works = [_commit(store, f"b{n}", name) for n, name in enumerate(names)]
    ends = in_one_group(store, works)
    assert [type(end).__name__ for end in ends] == [
        "NoneType",
        "NoneType",
        "RuntimeError",
        "NoneType",
    ]
    assert calls == ["bad"]
    assert sorted(ref.name for ref in store.branches()) == [
        "heads/b0",
        "heads/b1",
        "heads/b3",
        "heads/main",
    ]


def test_a_lost_answer_is_resolved_by_each_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody knows whether the group counts, each asks for itself, and the answer is yes."""
    with cas.open(tmp_path / "s", create=True) as store:
        _commit(store, "main", "first")()
        cover = Connections.cover
        lost = [True, True]

        def lose(self: Connections, number: int) -> None:
            cover(self, number)
            if lost:
                lost.pop()
                raise OutcomeUnknown("lost", txid=None)

        monkeypatch.setattr(Connections, "cover", lose)
        assert in_one_group(store, [_commit(store, f"b{n}", "f") for n in range(6)]) == [None] * 6
        assert len(list(store.journal())) == 7


def test_a_lost_answer_does_not_answer_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was used for another request is refused, though its group's answer is lost; a
    retry of the same request gets its entry.
    """

    def keyed(name: str) -> Callable[[], None]:
        tx = store.begin(author="a", message="m", key="K")
        tx.branch("k")[name] = name.encode()

        def work() -> None:
            with tx:
                seqs.append(tx.commit().seq)

        return work

    seqs: list[int] = []
    with cas.open(tmp_path / "s", create=True) as store:
        # Begun before the first has committed: its retry has something to publish as well.
        first, again, other = keyed("one"), keyed("one"), keyed("two")
        first()
        cover = Connections.cover
        lost = [True]

        def lose(self: Connections, number: int) -> None:
            cover(self, number)
            if lost:
                lost.pop()
                raise OutcomeUnknown("lost", txid=None)

        monkeypatch.setattr(Connections, "cover", lose)
        ends = in_one_group(
            store, [_commit(store, "x", "x"), again, _commit(store, "y", "y"), other]
        )
        assert not lost
        assert [type(end) for end in ends] == [type(None)] * 3 + [TransactionReused]
        assert seqs == [1, 1]
        assert [branch.name for branch in store.branches()] == ["heads/k", "heads/x", "heads/y"]
        assert list(store.snapshot("k")) == ["one"]


def test_a_lead_that_is_broken_off_is_handed_on(store: Store) -> None:
    """A leader that is interrupted inside the gate leaves neither the gate nor the queue stuck."""
    committer: Committer = store.objects.committer

    def lead() -> None:
        own = threading.get_ident()

        def interrupt(_writer: Any, _group: Group) -> None:
            if threading.get_ident() == own:
                raise KeyboardInterrupt

        committer.run(interrupt, lambda _done, _mark: None)

    works = [lead, *(_commit(store, f"b{n}", "f") for n in range(4)), lead]
    ends = in_one_group(store, works)
    assert isinstance(ends[0], KeyboardInterrupt)
    assert ends[1:5] == [None] * 4
    assert len(store.branches()) == 4
    assert not committer._queue
    assert not committer._led
