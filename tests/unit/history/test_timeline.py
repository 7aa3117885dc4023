"""The journal and the moments it gives: by number, by time, over checkpoints and handles."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

import cas
from cas.catalog.catalog import EntryRow
from cas.clock import SystemClock
from cas.errors import Condemned, CorruptJournal, EntryNotFound, Invalid
from cas.history import refnodes
from cas.history.store import Store
from cas.history.timeline import Moment
from cas.model.entry import Entry, entry_hash, genesis_hash
from cas.testing import stores
from cas.trees.cursor import scan
from cas.trees.node import REFS, NodeStore
from tests.unit.kit import ManualClock, commits, reopened, tamper, write


def test_every_past_state_is_there(store: Store) -> None:
    """`at(seq)` shows the refs and files as they were, from the empty store on."""
    seen: list[dict[str, dict[str, bytes]]] = [{}]
    for at in range(30):
        write(store, f"b{at % 4}", {f"f{at % 7}": b"%d" % at})
        seen.append({r.short: dict(store.snapshot(r.target)) for r in store.branches()})
    for seq, expected in enumerate(seen):
        view = store.at(seq)
        assert view.seq == seq
        found = {ref.short: dict(view.snapshot(ref.target)) for ref in view.branches()}
        assert found == expected


def test_a_view_stays_where_it_is(store: Store) -> None:
    """What happens after a view was taken does not show in it, even over checkpoints."""
    write(store, files={"a": b"1"})
    view = store.view()
    commits(store, 600, "other")
    write(store, files={"a": b"2"})
    assert dict(view.snapshot("main")) == {"a": b"1"}
    assert [ref.short for ref in view.branches()] == ["main"]
    assert [ref.short for ref in store.branches()] == ["main", "other"]


def test_two_handles_cross_checkpoints_together(store: Store) -> None:
    """Commits of two handles in turn, over more than one checkpoint, make one chain."""
    with reopened(store) as other:
        for at in range(300):
            handle = (store, other)[at % 2]
            write(handle, f"b{at % 5}", {"n": b"%d" % at})
            if at % 50 == 0:
                assert other.view().moment.root == store.view().moment.root
        with store.objects.catalog.read() as reader:
            stored = reader.checkpoint(300)
            assert stored is not None
            assert stored.seq == 256
        for handle in (store, other):
            assert handle.snapshot("b4")["n"] == b"299"
            assert handle.at(256).snapshot("b0")["n"] == b"255"
            assert [entry.seq for entry in handle.journal()] == list(range(1, 301))


def test_checkpoints_store_the_whole_refs_tree(tmp_path: Path) -> None:
    """At each checkpoint a fresh handle reads every ref from stored nodes alone."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL) as store:
        for at in range(90):
            write(store, f"branch-{at * 37 % 100:03d}", {"n": b"%d" % at})
            if at % 9 == 8:
                with store.begin() as tx:
                    tx.delete(f"heads/branch-{at * 37 % 100:03d}")
                    tx.commit()
        with store.objects.catalog.read() as reader:
            checkpoints = {
                stored.seq: stored.root
                for seq in range(1, 101)
                if (stored := reader.checkpoint(seq)) is not None
            }
        assert len(checkpoints) >= 30
        for seq, root in checkpoints.items():
            nodes = store.objects.tree_nodes(REFS)
            listed = [name for name, _ in scan(REFS, root, nodes)]
            with reopened(store) as fresh:
                assert [ref.name.encode() for ref in fresh.at(seq).refs()] == listed


def test_an_emptied_refs_tree_is_a_state_like_any_other(tmp_path: Path) -> None:
    """Deleting the last ref, at a checkpoint too, leaves a store that opens and goes on."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL) as store:
        for at in range(4):
            write(store, files={"n": b"%d" % at})
            with store.begin() as tx:
                tx.delete("heads/main")
                tx.commit()
            with reopened(store) as other:
                assert other.branches() == []
                assert len(other.at(2 * at + 1).branches()) == 1


def test_a_checkpoint_relies_on_nothing_condemned(tmp_path: Path) -> None:
    """Nodes that a checkpoint finds stored already are looked up again if gc ran meanwhile."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL) as store:
        write(store, "a")
        write(store, "b")
        with store.begin() as tx:
            tx.delete("heads/b")
            tx.commit()
        with store.objects.catalog.read() as reader:
            stored = reader.checkpoint(3)
        assert stored is not None
        root = stored.root
        write(store, "b")
        tx = store.begin()
        tx.branch("c")["x"] = b"1"
        tx.commit()
        tx = store.begin()
        tx.delete("heads/b")
        tx.delete("heads/c")
        with reopened(store) as collector, collector.objects.catalog.write() as writer:
            collector.objects.lookup.refresh(writer)
            ((number, slot),) = collector.objects.lookup.young.all(root)
            version = writer.head().version + 1
            writer.record_removal(version, 1)
            writer.set_vector(number, version, bytes([1 << (slot % 8)]))
        with pytest.raises(Condemned, match="begin the transaction again"):
            tx.commit()
        with store.begin() as tx:
            tx.delete("heads/b")
            tx.delete("heads/c")
            tx.commit()
        with reopened(store) as fresh:
            assert [ref.short for ref in fresh.branches()] == ["a"]


def test_looking_back_does_not_pile_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle that visits every past state keeps a bounded number of refs nodes."""
    monkeypatch.setattr(refnodes, "_PAST_NODES", 100)
    with store.begin() as tx:
        for at in range(400):
            tx.branch(f"b{at:03d}")["f"] = b"1"
        tx.commit()
    commits(store, 500, "b200")
    with reopened(store, read_only=True) as reader:
        for seq in range(501):
            assert len(reader.at(seq).branches()) == (400 if seq else 0)
        assert len(reader.core.timeline.nodes) < 2000


def test_a_handle_that_slept_catches_up_from_a_checkpoint(store: Store) -> None:
    """A handle far behind starts at a checkpoint: it does not replay what it missed."""
    write(store)
    with reopened(store) as sleeper:
        assert sleeper.view().seq == 1
        commits(store, 600)
        decoded = []
        line = sleeper.core.timeline
        replay = line._replay

        def counted(moment: Moment, rows: Sequence[EntryRow], nodes: NodeStore) -> Moment:
            decoded.append(len(rows))
            return replay(moment, rows, nodes)

        line._replay = counted
        assert sleeper.view().seq == 601
        assert sum(decoded) < 256
        assert write(sleeper, "mine").seq == 602
        assert [ref.short for ref in store.branches()] == ["main", "mine"]


def test_readers_and_writers_of_one_handle(store: Store) -> None:
    """Threads that look at the newest state while others commit never go back in time."""
    write(store)
    odd: list[object] = []
    stop = threading.Event()

    def watch() -> None:
        last = 0
        try:
            while not stop.is_set():
                view = store.view()
                if view.seq < last or view.ref("heads/main") is None:
                    odd.append((last, view.seq))
                last = view.seq
                store.at(max(0, last - 5)).branches()
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    commits(store, 300)
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []


# -- time ------------------------------------------------------------------------------------


def test_times_find_the_last_entry_before(tmp_path: Path) -> None:
    """`at(time_us=...)` gives the last entry at or before a time, to the microsecond."""
    clock = ManualClock(1_000)
    with cas.open(tmp_path / "store", create=True, clock=clock) as store:
        for now_us in (1_000, 2_000, 3_000):
            clock.now_us = now_us
            write(store, files={"at": b"%d" % now_us})
        found = {us: store.at(time_us=us).seq for us in (1_000, 1_999, 2_000, 3_000, 10**18)}
        assert found == {1_000: 1, 1_999: 1, 2_000: 2, 3_000: 3, 10**18: 3}
        for early in (999, 0, -5):
            with pytest.raises(EntryNotFound):
                store.at(time_us=early)


def test_a_clock_that_runs_backwards(tmp_path: Path) -> None:
    """Entry times rise by a microsecond at least, wall times are kept, and times still find."""
    clock = ManualClock(10_000)
    with cas.open(tmp_path / "store", create=True, clock=clock) as store:
        walls = [10_000, 5_000, 5_000, 9_999, 10_002, 10_001, 20_000]
        for wall in walls:
            clock.now_us = wall
            write(store, files={"at": b"%d" % store.objects.catalog.head_seq()})
        entries = list(store.journal())
        assert [entry.wall_us for entry in entries] == walls
        times = [entry.time_us for entry in entries]
        assert times == [10_000, 10_001, 10_002, 10_003, 10_004, 10_005, 20_000]
        assert [store.at(time_us=us).seq for us in times] == list(range(1, 8))
        assert store.at(time_us=19_999).seq == 6


def test_a_clock_without_sense_stops_the_commit_and_not_the_store(tmp_path: Path) -> None:
    """A time before 1970 cannot be stored; nothing is committed, and the store goes on."""
    clock = ManualClock(10_000)
    with cas.open(tmp_path / "store", create=True, clock=clock) as store:
        write(store)
        clock.now_us = -1
        for refused in (lambda: write(store, files={"b": b"2"}), lambda: store.put(b"new")):
            with pytest.raises(Invalid):
                refused()
        with store.begin() as tx:
            tx.event("e")
            with pytest.raises(Invalid):
                tx.commit()
        clock.now_us = 20_000
        assert write(store, files={"b": b"2"}).seq == 2
        with reopened(store) as other:
            assert len(list(other.journal())) == 2


# -- entries ---------------------------------------------------------------------------------


def test_entries_chain_from_the_genesis(store: Store) -> None:
    """Each entry carries the hash of the one before, the first that of the store's id."""
    entries = commits(store, 5)
    previous = genesis_hash(store.objects.meta.store_id)
    for entry in entries:
        assert entry.previous == previous
        previous = entry_hash(entry.encode())
    assert list(store.journal()) == entries
    assert [store.entry(seq) for seq in range(1, 6)] == entries


@pytest.mark.parametrize("group", [1, 2, 1000])
def test_the_journal_is_read_in_groups(
    store: Store, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of a group, every entry behind a position comes once and in order."""
    monkeypatch.setattr("cas.history.timeline._GROUP", group)
    commits(store, 7)
    for after in range(9):
        for limit in (None, 0, 1, 3, 100):
            found = [entry.seq for entry in store.journal(after, limit=limit)]
            assert found == list(range(after + 1, 8))[:limit]


def test_positions_out_of_range(store: Store) -> None:
    """Positions before the first and after the last, however large, are no damage."""
    commits(store, 3)
    assert [entry.seq for entry in store.journal(-5)] == [1, 2, 3]
    assert list(store.journal(10**30)) == []
    for seq in (-1, 0, 4, 10**30, -(10**30)):
        with pytest.raises(EntryNotFound):
            store.entry(seq)
    for seq in (-1, 4, 10**30):
        with pytest.raises(EntryNotFound):
            store.at(seq)
    for wrong in ({}, {"seq": 1, "time_us": 1}):
        with pytest.raises(Invalid):
            store.at(**wrong)


def test_a_changed_entry_is_seen(store: Store) -> None:
    """Bytes of an entry that do not hash to what the row says are refused, wherever read."""
    commits(store, 5)
    store.close()
    tamper(store, "UPDATE journal SET entry = CAST(entry || x'00' AS BLOB) WHERE seq = 3")
    with cas.open(store.location) as again:
        for read in (again.view, lambda: list(again.journal()), lambda: again.entry(3)):
            with pytest.raises(CorruptJournal):
                read()
        assert again.at(2).seq == 2


@pytest.mark.parametrize("seq", [1, 3, 5])
def test_an_entry_in_the_place_of_another_is_seen(store: Store, seq: int) -> None:
    """A well-formed entry that does not follow the one before breaks the chain."""
    entries = commits(store, 5)
    store.close()
    other = Entry.decode(entries[seq - 1].encode())
    forged = attrs.evolve(other, message="forged").encode()
    tamper(
        store,
        "UPDATE journal SET entry = ?, hash = ? WHERE seq = ?",
        forged,
        entry_hash(forged),
        seq,
    )
    with cas.open(store.location) as again:
        if seq < 5:
            with pytest.raises(CorruptJournal):
                again.view()
            with pytest.raises(CorruptJournal):
                list(again.journal())
        else:
            assert again.view().seq == 5, "the newest hash is what another witness would hold"


def test_a_missing_entry_is_seen(store: Store) -> None:
    """A gap in the journal is damage, not an end."""
    commits(store, 5)
    store.close()
    tamper(store, "DELETE FROM journal WHERE seq = 3")
    with cas.open(store.location) as again:
        with pytest.raises(CorruptJournal):
            again.view()
        with pytest.raises(CorruptJournal):
            list(again.journal())


def test_a_checkpoint_that_lies_is_seen(store: Store) -> None:
    """A checkpoint whose root is not that of its entry is refused."""
    commits(store, 5)
    store.close()
    tamper(store, "INSERT INTO checkpoint (seq, root) VALUES (4, ?)", bytes(32))
    with cas.open(store.location) as again, pytest.raises(CorruptJournal):
        again.view()
