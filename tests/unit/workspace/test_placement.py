"""Contexts that live in other stores: read, written, linked, branched, moved, told of."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cas
from cas.errors import (
    AcrossStores,
    AggregateNotFound,
    EntryNotFound,
    HistoryLost,
    Invalid,
    NotAllowed,
    NotAsExpected,
    RefConflict,
    RefExists,
    StoreNotFound,
)
from cas.history.horizon import horizon_now, thinned_commits
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.maintenance.fsck.check import fsck
from cas.workspace.codec import pinned, to_fields
from cas.workspace.contexts import Context, Keep
from cas.workspace.exchanging import exchange, keep_exchanging
from cas.workspace.memories import Memory
from cas.workspace.planning import Sprint
from cas.workspace.subscriptions import subscribe
from cas.workspace.workspace import Workspace
from tests.tidy.source import ROOT

MEMORY = Context(id="memory", place="far.cas", publishes=frozenset({"memory.*"}))
PLANNING = Context(id="planning", publishes=frozenset({"sprint.closed"}))


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace whose memories live in another store."""
    cas.open(tmp_path / "far.cas", create=True).close()
    with (
        cas.open(tmp_path / "home.cas", create=True) as store,
        Workspace(store, places=cas.open) as made,
    ):
        made.declare(MEMORY, "ada")
        made.declare(PLANNING, "ada")
        yield made


def note(space: Workspace, id: str, text: str = "text") -> cas.Entry:
    """Remember something."""
    with space.unit_of_work("ada") as uow:
        uow.memories.note(text, id=id)
        return uow.commit()


def plan(space: Workspace, id: str) -> cas.Entry:
    """Plan a sprint."""
    with space.unit_of_work("ada") as uow:
        uow.sprints.add(Sprint(id=id, name=id))
        return uow.commit()


def far(space: Workspace) -> cas.Store:
    """The store in which the memories live."""
    return space.store_of("memory")


# -- reading and writing -------------------------------------------------------------------------


def test_a_context_is_read_and_written_where_it_lives(space: Workspace) -> None:
    """One handle reads and writes both stores; each holds its own contexts and no other."""
    plan(space, "s1")
    note(space, "m1")
    assert space.memories.get("m1").text == "text"
    assert [m.id for m in space.now().memories] == ["m1"]
    assert space.sprints.get("s1").name == "s1"
    assert space.context_names() == ["memory", "planning", "workspace"]
    alone, there = Workspace(space.store), Workspace(far(space))
    assert "m1" in there.memories
    assert "s1" not in there.sprints
    assert [ref.name for ref in space.store.branches() if "memory" in ref.name] == []
    assert "s1" in alone.sprints


def test_a_unit_of_work_commits_in_one_store_and_refuses_a_second(space: Workspace) -> None:
    """Whichever store comes first, touching the other one is refused with both named, and nothing
    of the unit is visible in either.
    """
    plan(space, "s1")
    before = space.store.view().seq, far(space).view().seq
    with space.unit_of_work("ada") as uow:
        uow.sprints.save(uow.sprints.get("s1").evolve(name="new"))
        with pytest.raises(AcrossStores, match=r"far\.cas.*cas\.exchange") as refused:
            uow.memories.note("x")
    assert (refused.value.context, refused.value.path) == ("memory", far(space).location)
    with space.unit_of_work("ada") as uow:
        uow.memories.note("x")
        for touch in (
            lambda: uow.sprints.get("s1"),
            lambda: uow.event("sprint.x", about=space.sprints.get("s1")),
            lambda: uow.ensure(Sprint, lambda _sprint: True),
        ):
            with pytest.raises(AcrossStores):
                touch()
    assert (space.store.view().seq, far(space).view().seq) == before


def test_events_go_with_the_unit_of_work(space: Workspace) -> None:
    """Events of no context, recorded before or after the first aggregate, lie in its entry."""
    with space.unit_of_work("ada") as uow:
        uow.event("first")
        uow.memories.note("x", id="m1")
        uow.event("second", about=uow.memories.get("m1"))
        assert uow.store is far(space)
        entry = uow.commit()
    assert [event.type for event in entry.events] == ["first", "second"]
    assert [event.type for event in Workspace(far(space)).events()] == ["first", "second"]
    assert list(space.events()) == []
    with space.unit_of_work("ada") as uow:
        uow.event("here")
        uow.commit()
    assert [event.type for event in space.events()] == ["here"]


def test_a_key_commits_once_in_the_other_store(space: Workspace) -> None:
    """A unit with an idempotency key that was sent again gives the entry of the first time."""

    def work() -> cas.Entry:
        with space.unit_of_work("ada", key="k1") as uow:
            if "m1" not in space.memories:
                uow.memories.note("x", id="m1", at=datetime(2026, 1, 1, tzinfo=UTC))
            else:
                uow.find_one(Memory, "m1")
                assert uow.already is not None
            return uow.commit()

    assert work() == work()
    assert far(space).view().seq == 1


def test_units_in_the_other_store_are_merged_and_retried(space: Workspace) -> None:
    """Rules, conditions and retries hold there as they do at home."""
    note(space, "m1", "one\ntwo\nthree\nfour\nfive\n")
    first, second = space.unit_of_work("ada"), space.unit_of_work("bob")
    both = [(uow, uow.memories.get("m1")) for uow in (first, second)]
    for (uow, memory), tag in zip(both, "ab", strict=True):
        uow.memories.save(memory.evolve(tags=memory.tags | {tag}))
        uow.commit()
    assert space.memories.get("m1").tags == {"a", "b"}
    tried: list[int] = []

    def work(uow: cas.UnitOfWork) -> None:
        tried.append(1)
        uow.memories.get("m1")
        if len(tried) == 1:
            with space.unit_of_work("eve") as between:
                between.memories.save(between.memories.get("m1").evolve(kind="fact"))
                between.commit()
        uow.memories.note("seen", id="m2")

    space.run(work, "ada")
    assert len(tried) == 2


def test_links_are_resolved_across_stores(space: Workspace) -> None:
    """A link from one store to the other gives what it names, the pinned version where it is
    pinned, and goes stale when that changes.
    """
    note(space, "m1", "old")
    memory = space.memories.get("m1")
    with space.unit_of_work("ada") as uow:
        report = uow.artifacts.put("a.txt", b"a", cites=[memory])
        uow.commit()
    (link,) = space.artifacts.get(report.id).made_from
    assert link.pin == pinned(memory).pin
    assert not space.is_stale(link)
    with space.unit_of_work("ada") as uow:
        uow.memories.save(uow.memories.get("m1").evolve(text="new"))
        uow.commit()
    assert space.is_stale(link)
    assert (to_fields(space.resolve(link))["text"], space.memories.get("m1").text) == ("old", "new")
    assert to_fields(space.resolve(link.loose))["text"] == "new"


def test_the_past_of_both_stores_is_read(space: Workspace) -> None:
    """As of an entry, a context elsewhere is what it was at the time of that entry; before its
    store had anything, it is empty.
    """
    plan(space, "s1")
    note(space, "m1")
    middle = plan(space, "s2")
    note(space, "m2")
    then = space.at(middle.seq)
    assert (list(then.sprints.ids()), list(then.memories.ids())) == (["s1", "s2"], ["m1"])
    declared = next(e.seq for e in space.store.journal() if "context memory" in e.message)
    assert list(space.at(declared).memories.ids()) == []
    now = space.now()
    assert list(now.memories.ids()) == ["m1", "m2"]
    note(space, "m3")
    assert list(now.memories.ids()) == ["m1", "m2"]
    assert "m3" in space.memories


def test_conflicts_of_both_stores_are_told_and_settled(space: Workspace) -> None:
    """A conflict that was kept there is listed, and settled by a unit of work of this handle."""
    note(space, "m1", "one")
    first = space.unit_of_work("ada")
    second = space.unit_of_work("bob", on_conflict="keep")
    both = [(uow, uow.memories.get("m1")) for uow in (first, second)]
    for (uow, memory), text in zip(both, ("fact", "note"), strict=True):
        uow.memories.save(memory.evolve(text=text))
        uow.commit()
    (conflict,) = space.conflicts()
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, take="incoming")
        uow.commit()
    assert space.memories.get("m1").text == "note"
    assert list(space.conflicts()) == []


# -- branches and folders ------------------------------------------------------------------------


def test_a_branch_spans_all_stores(space: Workspace) -> None:
    """A branch of the workspace is one of the contexts of each store; merged, dropped, and no
    branch of the same name is written over.
    """
    plan(space, "s1")
    note(space, "m1", "one")
    mine = space.branch("try/a", actor="ada")
    with mine.unit_of_work("ada") as uow:
        uow.memories.save(uow.memories.get("m1").evolve(text="two"))
        uow.commit()
    plan(mine, "s2")
    assert (space.memories.get("m1").text, mine.memories.get("m1").text) == ("one", "two")
    done = space.merge("try/a", actor="lead")
    assert done.contexts == ("memory", "planning")
    assert space.memories.get("m1").text == "two"
    assert "s2" in space.sprints
    assert space.merge("try/a", actor="lead").contexts == ()
    space.drop_branch("try/a", actor="lead")
    assert [ref.name for ref in far(space).branches()] == ["heads/memory/main"]
    with far(space).begin(author="eve") as tx:
        tx.branch("memory/try/b")["x"] = b"of somebody else"
        tx.commit()
    with pytest.raises(RefExists):
        space.branch("try/b", actor="ada")
    assert not any("try/b" in ref.name for ref in space.store.branches())


def test_a_branch_that_was_cut_short_is_gone_on_with(space: Workspace) -> None:
    """A branch that was made in the other store only is taken up by the next who asks for it."""
    plan(space, "s1")
    note(space, "m1")
    with far(space).begin(author="ada") as tx:
        tx.move("heads/memory/try/a", far(space).resolve("memory/main"))
        tx.commit()
    mine = space.branch("try/a", actor="ada")
    assert "m1" in mine.memories


def test_artifacts_of_another_store_have_working_folders(tmp_path: Path, space: Workspace) -> None:
    """A folder is checked out of the store in which the artifacts live, for a sprint of ours."""
    cas.open(tmp_path / "files.cas", create=True).close()
    space.declare(Context(id="artifacts", place="files.cas"), "ada")
    plan(space, "s1")
    with space.unit_of_work("ada") as uow:
        uow.artifacts.put("a.txt", b"one")
        uow.commit()
    folder = tmp_path / "work"
    space.checkout(folder, actor="ada", sprint="s1")
    assert (folder / "a.txt").read_bytes() == b"one"
    (folder / "b.txt").write_bytes(b"two")
    space.sync(folder)
    assert space.artifacts.read("b.txt") == b"two"
    assert space.status(folder).clean
    (checkout,) = space.checkouts()
    assert checkout.sprint == space.sprints.get("s1").link
    space.release(folder, actor="ada")
    with pytest.raises(AggregateNotFound):
        space.checkout(folder, actor="ada", sprint="none")


# -- declaring and moving ------------------------------------------------------------------------


def test_a_context_moves_with_all_it_has(tmp_path: Path) -> None:
    """Declared elsewhere, a context that has content takes its branches and history along; what
    was is still seen as of then, and one undo brings it back.
    """
    cas.open(tmp_path / "far.cas", create=True).close()
    with cas.open(tmp_path / "home.cas", create=True) as store:
        space = Workspace(store, places=cas.open)
        before = note(space, "m1", "one")
        with space.unit_of_work("ada") as uow:
            uow.memories.save(uow.memories.get("m1").evolve(text="two"))
            uow.commit()
        space.branch("try/a", actor="ada")
        moved = space.declare(MEMORY, "ada")
        assert [ref.name for ref in store.branches() if "memory" in ref.name] == []
        assert [v.value.text for v in space.memories.history("m1") if v.value] == ["two", "one"]
        assert "m1" in space.branch("try/a", create=False).memories
        assert space.at(before.seq).memories.get("m1").text == "one"
        assert note(space, "m2")
        assert store.view().seq == moved.seq
        # And home again.
        space.declare(MEMORY.evolve(place=""), "ada")
        assert sorted(space.memories.ids()) == ["m1", "m2"]
        assert space.store_of("memory") is store
        space.close()


def test_a_context_moves_with_what_is_left_of_its_history(tmp_path: Path) -> None:
    """Versions that retention gave up stay records in the new store, told as thinned there; what is
    left is read there, by history, merges and the branches of the workspace; and comes home again.
    """
    cas.open(tmp_path / "far.cas", create=True).close()
    with cas.open(tmp_path / "home.cas", create=True) as store:
        space = Workspace(store, places=cas.open)
        note(space, "m1", "0")
        space.branch("try/a", actor="ada")
        for number in range(1, 6):
            with space.unit_of_work("ada") as uow:
                uow.memories.save(uow.memories.get("m1").evolve(text=str(number)))
                uow.commit()
        rule = RetentionPolicy((KeepRule("heads/memory/*", last=2),), HorizonRule(Span(), 0))
        store.apply(store.plan_retention(rule), author="keeper")
        store.gc(grace_us=0)
        before = [v.value.text for v in space.memories.history("m1") if v.value]
        assert before == ["5", "4", "0"]
        log = [id for id, _ in store.log("memory/main")]
        space.declare(MEMORY.evolve(retention=Keep(last=2)), "ada")
        assert [v.value.text for v in space.memories.history("m1") if v.value] == before
        assert [id for id, _ in far(space).log("memory/main")] == log
        assert len(set(thinned_commits(far(space).core, horizon_now(far(space).core)))) == 3
        mine = space.branch("try/a", create=False)
        with mine.unit_of_work("bob") as uow:
            uow.memories.save(uow.memories.get("m1").evolve(tags=frozenset({"b"})))
            uow.commit()
        space.merge("try/a", actor="lead")
        merged = space.memories.get("m1")
        assert (merged.text, merged.tags) == ("5", {"b"})
        assert fsck(far(space)).ok
        far(space).gc(grace_us=0)
        assert fsck(far(space)).ok
        space.declare(space.contexts()["memory"].evolve(place=""), "ada")
        assert [v.value.text for v in space.memories.history("m1") if v.value][-1] == "0"
        assert space.memories.get("m1") == merged
        assert fsck(store).ok
        space.close()


def test_who_writes_while_a_context_moves_is_not_lost(tmp_path: Path) -> None:
    """A unit of work that began before the move is refused and done again there; one that commits
    while branches are copied is copied too.
    """
    cas.open(tmp_path / "far.cas", create=True).close()
    with cas.open(tmp_path / "home.cas", create=True) as store:
        space = Workspace(store, places=cas.open)
        note(space, "m1")
        late = space.unit_of_work("bob")
        late.memories.note("late", id="m2")
        opened: list[str] = []

        def open_late(place: str) -> cas.Store:
            opened.append(place)
            note(Workspace(store), "m3")
            return cas.open(place)

        with Workspace(store, places=open_late) as mover:
            mover.declare(MEMORY, "ada")
        with pytest.raises(RefConflict):
            late.commit()
        space.run(lambda uow: uow.memories.note("late", id="m2"), "bob")
        assert sorted(space.memories.ids()) == ["m1", "m2", "m3"]
        assert opened
        space.close()


@pytest.mark.parametrize("branch", ["main", "try/a"])
def test_a_first_write_that_began_before_the_move_is_refused(tmp_path: Path, branch: str) -> None:
    """A context that was empty when a unit began, and has been declared elsewhere since, is not
    begun here.
    """
    cas.open(tmp_path / "far.cas", create=True).close()
    with cas.open(tmp_path / "home.cas", create=True) as store:
        space = Workspace(store, places=cas.open)
        plan(space, "s1")
        there = space if branch == "main" else space.branch(branch, actor="bob")
        late = there.unit_of_work("bob")
        late.memories.note("late", id="m2")
        space.declare(MEMORY, "ada")
        with pytest.raises(cas.Conflict):
            late.commit()
        assert list(space.memories.ids()) == []
        assert [ref.name for ref in store.branches() if "memory" in ref.name] == []
        space.close()


def test_a_store_is_found_only_as_it_was_declared(tmp_path: Path, space: Workspace) -> None:
    """No way to a store, another store at its address, an address that is none: each says so."""
    note(space, "m1")
    plan(space, "s1")
    blind = Workspace(space.store)
    with pytest.raises(StoreNotFound, match=r"places=cas\.open"):
        list(blind.memories)
    with pytest.raises(StoreNotFound), blind.unit_of_work("ada") as uow:
        uow.memories.note("x")
    assert "s1" in blind.sprints
    with pytest.raises(StoreNotFound, match="among the stores"):
        list(Workspace(space.store, places={"else": far(space)}).memories)
    given = Workspace(space.store, places={"far.cas": far(space)})
    assert "m1" in given.memories
    given.close()
    assert "m1" in given.memories
    with cas.open(tmp_path / "other", create=True) as other:
        wrong = Workspace(space.store, places={"far.cas": other})
        with pytest.raises(NotAsExpected, match="Put the right one there"):
            list(wrong.memories)
    with pytest.raises(NotAllowed):
        space.declare(Context(id="workspace", place="far.cas"), "ada")
    with pytest.raises(Invalid, match="workspace itself"):
        space.declare(Context(id="x", place="home.cas"), "ada")
    with pytest.raises(StoreNotFound):
        space.declare(Context(id="x", place="nowhere.cas"), "ada")
    with cas.open(":memory:") as loose, pytest.raises(Invalid, match="whole path"):
        Workspace(loose, places=cas.open).declare(MEMORY, "ada")


def test_a_store_that_moved_or_is_gone_is_declared_anew(tmp_path: Path) -> None:
    """A store at a new address is the same context; one that is gone is given up by force only."""
    cas.open(tmp_path / "far.cas", create=True).close()
    cas.open(tmp_path / "new.cas", create=True).close()
    with cas.open(tmp_path / "home.cas", create=True) as store:
        with Workspace(store, places=cas.open) as space:
            space.declare(MEMORY, "ada")
            note(space, "m1")
        os.rename(tmp_path / "far.cas", tmp_path / "gone.cas")
        cas.adopt(tmp_path / "gone.cas", fork=False)
        with Workspace(store, places=cas.open) as space:
            with pytest.raises(StoreNotFound):
                list(space.memories)
            space.declare(MEMORY.evolve(place="gone.cas"), "ada")
            assert "m1" in space.memories
        os.rename(tmp_path / "gone.cas", tmp_path / "lost.cas")
        with Workspace(store, places=cas.open) as space:
            with pytest.raises(StoreNotFound):
                space.declare(MEMORY.evolve(place="new.cas"), "ada")
            space.declare(MEMORY.evolve(place="new.cas"), "ada", force=True)
            assert list(space.memories.ids()) == []


# -- events between stores -----------------------------------------------------------------------


def say(space: Workspace, context: str, type: str, number: int) -> None:
    """Record an event of a context."""
    with space.unit_of_work("ada") as uow:
        uow.event(type, {"n": number}, context=context)
        uow.commit()


def numbers(space: Workspace, context: str, types: list[str]) -> list[int]:
    """The numbers of the events that a context sees."""
    return [event.data["n"] for event in space.events(seen_by=context, types=types)]


def test_what_is_published_is_carried_and_nothing_else(space: Workspace) -> None:
    """Events that a context publishes come to the other store once, with their origin; what it
    keeps to itself, and what came from there, does not.
    """
    say(space, "planning", "sprint.closed", 1)
    say(space, "planning", "sprint.secret", 2)
    say(space, "memory", "memory.added", 3)
    say(space, "memory", "other", 4)
    assert [each.count for each in exchange(space)] == [1, 1]
    assert [each.count for each in exchange(space)] == [0, 0]
    assert [e.type for e in space.events(seen_by="memory")] == [
        "memory.added",
        "other",
        "sprint.closed",
    ]
    assert [e.type for e in space.events(seen_by="planning")] == [
        "sprint.closed",
        "sprint.secret",
        "memory.added",
    ]
    carried = list(space.events(seen_by="memory"))[-1]
    assert carried.carried_from == f"{space.store.id}/3.0"
    assert (carried.context, carried.headers["carried-by"]) == ("planning", "ada")


def test_an_effect_in_the_other_store_follows_from_an_event(space: Workspace) -> None:
    """A subscription in the store of one context handles what another one published, once."""

    def remember(event: cas.DomainEvent, uow: cas.UnitOfWork) -> None:
        uow.memories.note(f"sprint {event.data['n']} is over")

    say(space, "planning", "sprint.closed", 1)
    reader = subscribe(space.place("memory"), "remember", ["sprint.closed"])
    assert reader.poll(remember) == 0
    exchange(space)
    assert (reader.poll(remember), reader.poll(remember)) == (1, 0)
    assert [memory.text for memory in space.memories] == ["sprint 1 is over"]
    assert space.place("planning") is space


def test_events_are_exchanged_until_told_to_stop(space: Workspace) -> None:
    """What is recorded while it runs comes across without being asked for."""
    stop, heard = threading.Event(), threading.Event()
    worker = threading.Thread(
        target=keep_exchanging,
        args=(space, stop),
        kwargs={"pause_ms": 5, "on_exchange": lambda _done: heard.set()},
    )
    worker.start()
    try:
        say(space, "planning", "sprint.closed", 7)
        assert heard.wait(60)
    finally:
        stop.set()
        worker.join()
    assert numbers(space, "memory", ["sprint.closed"]) == [7]


def test_a_store_that_was_set_back_is_not_passed_by(tmp_path: Path) -> None:
    """A position behind the end of the journal is told, and one behind an entry that is another
    one now: what was recorded since would be lost. Who rewinds goes on from there.
    """
    source, target = tmp_path / "s", tmp_path / "t"
    with cas.open(target, create=True) as two:
        with cas.open(source, create=True) as one:
            for number in range(3):
                say(Workspace(one), "planning", "x", number)
            cas.backup(one, tmp_path / "b")
            for number in range(3, 6):
                say(Workspace(one), "planning", "x", number)
            assert cas.carry(Workspace(one), Workspace(two), "c", ["x"]) == 6
        cas.restore_store(tmp_path / "b", tmp_path / "again")
        with cas.open(tmp_path / "again") as back:
            space, other = Workspace(back), Workspace(two)
            with pytest.raises(HistoryLost, match="set back"):
                cas.carry(space, other, "c", ["x"])
            for number in range(10, 16):
                say(space, "planning", "x", number)
            # As long as the position again, and longer: it is another history all the same.
            with pytest.raises(HistoryLost, match="set back"):
                cas.carry(space, other, "c", ["x"])
            reader = subscribe(space, "c", ["x"], target=other)
            with pytest.raises(EntryNotFound):
                reader.rewind(99)
            reader.rewind(3)
            assert cas.carry(space, other, "c", ["x"]) == 6
        numbers = [event.data["n"] for event in Workspace(two).events(types=["x"])]
        assert numbers == [0, 1, 2, 3, 4, 5, *range(10, 16)]


class Killed:
    """A process that exchanges events in processes of its own, each killed at a call."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-m", "tests.unit.workspace.child", "exchange", str(home)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def at(self, call: int) -> int | None:
        """Exchange until this call; None when it was killed, else how many calls there were."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{call}\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline().strip()
        return None if told == "killed" else int(told)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0


@pytest.mark.slow
def test_a_killed_exchange_loses_and_doubles_nothing(space: Workspace, rng: random.Random) -> None:
    """However often a process that carries events between two stores is killed, at whatever call
    of Python or C, each event comes across exactly once and in order, in both directions, and what
    follows from it there is there once.
    """
    sent = 0

    def record(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            say(space, "planning", "sprint.closed", sent)
            say(space, "memory", "memory.added", sent)
            sent += 1

    killed = Killed(Path(space.store.location))
    moved, ended = set(), 0
    for _block in range(4):
        # What a run costs that has as much to do as those that follow, and no more.
        killed.at(-1)
        record(2)
        every = killed.at(-1)
        assert every is not None
        for number in range(12):
            record(2)
            before = len(numbers(space, "memory", ["sprint.closed"]))
            # Evenly over all calls, so that each stage of a commit is met.
            call = every * number // 12 + rng.randrange(every // 12) + 1
            ended += killed.at(call) is not None
            got = numbers(space, "memory", ["sprint.closed"])
            assert got == list(range(len(got)))
            effects = sorted(int(memory.text) for memory in space.memories)
            assert effects == list(range(len(effects)))
            moved.add(len(got) > before)
    killed.at(-1)
    killed.close()
    assert ended < 24, "most runs were killed"
    assert moved == {True, False}
    assert numbers(space, "memory", ["sprint.closed"]) == list(range(sent))
    assert numbers(space, "planning", ["memory.added"]) == list(range(sent))
    assert sorted(int(memory.text) for memory in space.memories) == list(range(sent))
