"""Callbacks after commits, and followers of the journal."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

import cas
from cas.errors import Closed, Invalid, RefConflict
from cas.history import watch
from cas.history.store import Store
from cas.model.entry import Entry
from tests.tidy.source import ROOT
from tests.unit.kit import commits, reopened, write


def test_a_callback_hears_of_each_commit_when_it_stands(store: Store) -> None:
    """It is called once an entry, after the entry is durable and before `commit` returns."""
    heard: list[tuple[int, int]] = []
    store.on_commit(lambda entry: heard.append((entry.seq, store.view().seq)))
    entries = commits(store, 3)
    store.put(b"no entry")
    with store.begin() as tx:
        tx.branch("main")["n"] = b"2"
        tx.commit()  # changes nothing
    assert heard == [(entry.seq, entry.seq) for entry in entries]


def test_a_callback_may_use_the_store(store: Store) -> None:
    """It runs outside the gate: it can read and commit, also from other threads."""
    seen: list[str] = []

    def echo(entry: Entry) -> None:
        if entry.actor != "echo":
            write(store, "echo", {"of": b"%d" % entry.seq}, author="echo")
        seen.append(entry.actor)

    store.on_commit(echo)
    write(store, author="ada")
    assert seen == ["echo", "ada"]
    assert store.snapshot("echo")["of"] == b"1"


def test_what_a_callback_raises_is_logged_and_hides_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit returns its entry, the other callbacks run, and the log names the culprit."""
    heard: list[int] = []

    def broken(entry: Entry) -> None:
        raise RuntimeError("not my day")

    store.on_commit(broken)
    store.on_commit(lambda entry: heard.append(entry.seq))
    with caplog.at_level(logging.WARNING, logger="cas"):
        entry = write(store)
    assert heard == [entry.seq]
    assert "broken" in caplog.text
    assert "not my day" in caplog.text
    assert store.entry(entry.seq) == entry


def test_nobody_hears_of_what_did_not_happen(store: Store) -> None:
    """A conflict, a rollback and a repeated key call nobody."""
    write(store, key="once")
    heard: list[Entry] = []
    store.on_commit(heard.append)
    assert write(store, key="once").seq == 1
    with store.begin() as tx:
        tx.branch("main")["a"] = b"1"
    with store.begin() as slow:
        slow.move("heads/main", store.resolve("main"))
        write(store, "main", {"b": b"1"})
        slow.move("heads/main", store.view().snapshot("main~1").id or store.resolve("main"))
        with pytest.raises(RefConflict):
            slow.commit()
    assert [entry.seq for entry in heard] == [2]


def test_a_subscription_ends(store: Store) -> None:
    """After `close`, or the end of its block, a callback hears no more; others go on."""
    first: list[Entry] = []
    second: list[Entry] = []
    with store.on_commit(first.append) as subscription:
        store.on_commit(second.append)
        write(store)
        subscription.close()
    write(store, "main", {"x": b"2"})
    assert (len(first), len(second)) == (1, 2)
    with pytest.raises(Invalid):
        store.on_commit("no function")  # type: ignore[arg-type]


def test_a_callback_may_end_itself_and_add_others(store: Store) -> None:
    """Changing the callbacks while they are called changes the next call, not this one."""
    heard: list[str] = []

    def once(entry: Entry) -> None:
        heard.append("once")
        subscription.close()
        store.on_commit(lambda entry: heard.append("late"))

    subscription = store.on_commit(once)
    write(store)
    write(store, "main", {"x": b"2"})
    assert heard == ["once", "late"]


def test_a_follower_gives_each_entry_once_in_order(store: Store) -> None:
    """What is there comes first, then what comes, without a gap, and nothing twice."""
    commits(store, 300)
    follower = store.follow(after=0)
    assert [next(follower).seq for _ in range(300)] == list(range(1, 301))
    assert follower.poll() is None
    entry = write(store, "main", {"x": b"1"})
    assert follower.poll() == entry
    assert follower.poll(5) is None
    assert store.follow().seq == entry.seq


def test_a_follower_wakes_for_this_handle_and_for_others(store: Store) -> None:
    """It waits without end, and goes on at a commit of a thread, a handle, or a process."""
    got: list[int] = []
    follower = store.follow()
    thread = threading.Thread(target=lambda: got.extend(entry.seq for entry in follower))
    thread.start()
    write(store)
    with reopened(store) as other:
        write(other, "main", {"x": b"2"})
    program = (
        "import sys, cas\n"
        "with cas.open(sys.argv[1]) as store, store.begin() as tx:\n"
        "    tx.branch('main')['y'] = b'3'\n"
        "    tx.commit()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, store.location], cwd=ROOT, check=True, timeout=60
    )
    with store.follow(after=0) as second:
        assert [second.poll(30_000).seq for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
    while len(got) < 3:
        thread.join(0.01)
    follower.close()
    thread.join(30)
    assert not thread.is_alive()
    assert got == [1, 2, 3]


def test_a_mark_is_seen_without_a_query(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another handle commits is given although the next query is hours away."""
    monkeypatch.setattr(watch, "POLL_MIN_MS", 10_000_000)
    monkeypatch.setattr(watch, "POLL_MAX_MS", 10_000_000)
    waiting = threading.Event()
    real = watch.Hooks.wait

    def wait(self: watch.Hooks, seen: int, wait_ms: float) -> None:
        waiting.set()
        real(self, seen, wait_ms)

    monkeypatch.setattr(watch.Hooks, "wait", wait)
    got: list[int] = []
    with store.follow() as follower, reopened(store) as other:
        thread = threading.Thread(target=lambda: got.append(next(follower).seq), daemon=True)
        thread.start()
        assert waiting.wait(60)
        write(other)
        thread.join(60)
        assert got == [1]


def test_closing_the_store_ends_its_followers(tmp_path: object) -> None:
    """A follower that waits in another thread ends with its store; a new one is refused."""
    store = cas.open(":memory:")
    write(store)
    follower = store.follow(after=0)
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(entry.seq for entry in follower))
    thread.start()
    while not got:
        thread.join(0.01)
    store.close()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(Closed):
        store.follow()


def test_a_place_that_is_not_there_is_refused(store: Store) -> None:
    """Nobody waits behind an entry that does not exist."""
    for bad in (1, -1):
        with pytest.raises(Invalid):
            store.follow(after=bad)
