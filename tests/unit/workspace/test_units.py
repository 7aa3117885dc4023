"""Units of work: all or nothing, merged by the rules of the types, refused where they must be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cas
from cas.errors import (
    AggregateConflict,
    AggregateExists,
    AggregateNotFound,
    Closed,
    ConditionFailed,
    Invalid,
    InvalidRecord,
    PathNotFound,
)
from cas.workspace.artifacts import ArtifactKind
from cas.workspace.codec import pinned
from cas.workspace.memories import Memory
from cas.workspace.planning import Run, Sprint, SprintState
from cas.workspace.registry import aggregate
from cas.workspace.unit import OnConflict, UnitCore
from cas.workspace.workspace import Workspace

NOW = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with one sprint and one artifact."""
    with cas.open(tmp_path / "s", create=True) as store:
        made = Workspace(store)
        with made.unit_of_work("setup") as uow:
            uow.sprints.save(Sprint(id="s1", name="One", goal="a\nb\nc\n"))
            uow.artifacts.put("docs/a.md", b"one\ntwo\nthree\n")
            uow.commit()
        yield made


def test_all_of_a_unit_is_one_entry(space: Workspace) -> None:
    """Aggregates of three contexts and the events are visible after commit, in one entry, and
    not at all before.
    """
    before = space.store.view().seq
    with space.unit_of_work("planner", "sprint 1 begins") as uow:
        sprint = uow.sprints.get("s1")
        uow.sprints.save(sprint.start(NOW))
        made = uow.artifacts.put("docs/b.md", b"text", cites=[sprint], kind=ArtifactKind.DOCUMENT)
        memory = uow.memories.note("Small pull requests.", source=made, tags=["team"])
        uow.event("sprint.started", {"id": "s1"}, about=sprint)
        assert "docs/b.md" not in space.artifacts
        assert space.sprints.get("s1").state == SprintState.PLANNED
        entry = uow.commit()
    assert entry.seq == before + 1
    assert (entry.actor, entry.message) == ("planner", "sprint 1 begins")
    assert [c.ref for c in entry.changes] == [
        "heads/artifacts/main",
        "heads/memory/main",
        "heads/planning/main",
    ]
    assert space.sprints.get("s1").state == SprintState.ACTIVE
    assert space.artifacts.read("docs/b.md") == b"text"
    assert space.memories.get(memory.id) == memory
    assert memory.source == pinned(made)
    (event,) = space.events(before)
    assert (event.type, event.data, event.about) == ("sprint.started", {"id": "s1"}, sprint.link)
    then = space.at(before)
    assert then.sprints.get("s1").state == SprintState.PLANNED
    assert memory.id not in then.memories


def test_without_commit_nothing_happens(space: Workspace) -> None:
    """Leaving the block, by its end or by an error, rolls back."""
    before = space.store.view().seq
    with space.unit_of_work("a") as uow:
        uow.memories.note("x")

    def fail() -> None:
        with space.unit_of_work("a") as uow:
            uow.memories.note("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(Closed):
        uow.memories.note("y")
    assert space.store.view().seq == before
    assert list(space.memories) == []


def test_a_unit_sees_what_it_staged(space: Workspace) -> None:
    """Get, find and read inside a unit show its own changes on top of what was."""
    with space.unit_of_work("a") as uow:
        uow.sprints.add(Sprint(id="s0", name="Zero"))
        uow.sprints.save(uow.sprints.get("s1").evolve(name="Uno"))
        uow.artifacts.put("docs/a.md", b"new")
        assert [s.name for s in uow.sprints.find()] == ["Zero", "Uno"] or [
            s.name for s in uow.sprints.find()
        ] == ["Uno", "Zero"]
        assert uow.artifacts.read("docs/a.md") == b"new"
        uow.sprints.remove("s1")
        assert [s.id for s in uow.sprints.find()] == ["s0"]
        assert uow.sprints.find_one("s1") is None
        with pytest.raises(AggregateNotFound, match="no sprint 's1'"):
            uow.sprints.get("s1")
        uow.commit()
    assert list(space.sprints.ids()) == ["s0"]


def test_what_is_there_cannot_be_added(space: Workspace) -> None:
    """A new aggregate with a taken id is refused, saved or added; nothing is written over."""
    with space.unit_of_work("a") as uow:
        for stage in (uow.sprints.add, uow.sprints.save):
            with pytest.raises(AggregateExists):
                stage(Sprint(id="s1", name="Other"))
        with pytest.raises(AggregateNotFound):
            uow.memories.remove("nobody")
        made = uow.sprints.save(Sprint(id="s2", name="Two"))
        uow.sprints.save(made.evolve(name="Deux"))
        uow.commit()
    assert space.sprints.get("s2").name == "Deux"


def test_different_aggregates_never_conflict(space: Workspace) -> None:
    """Units that touch different aggregates of one context all succeed, without a retry."""
    units = [space.unit_of_work(f"agent {n}") for n in range(5)]
    for number, uow in enumerate(units):
        uow.memories.note(f"m{number}")
        uow.sprints.save(Sprint(id=f"t{number}", name="T"))
    for uow in units:
        uow.commit()
    assert len(list(space.memories)) == 5
    assert len(list(space.sprints)) == 6


def race(space: Workspace, *works: object, on_conflict: str = "raise") -> list[object]:
    """Begin a unit for each work, let all work, then commit one after the other."""
    units: list[UnitCore] = []
    for number, work in enumerate(works):
        uow = space.unit_of_work(f"agent {number}", on_conflict=on_conflict)  # type: ignore[arg-type]
        work(uow)  # type: ignore[operator]
        units.append(uow)
    results: list[object] = []
    for uow in units:
        try:
            results.append(uow.commit())
        except cas.CasError as error:
            results.append(error)
    return results


def test_edits_of_different_fields_come_together(space: Workspace) -> None:
    """Two units that change different fields, or fields that merge, both succeed."""

    def first(uow):
        uow.sprints.save(uow.sprints.get("s1").start(NOW).note("one"))

    def second(uow):
        old = uow.sprints.get("s1")
        uow.sprints.save(old.note("two").evolve(tags=frozenset({"x"}), goal="a\nb\nd\n"))

    assert all(isinstance(done, cas.Entry) for done in race(space, first, second))
    found = space.sprints.get("s1")
    assert (found.state, found.notes, found.tags, found.goal) == (
        SprintState.ACTIVE,
        ("one", "two"),
        {"x"},
        "a\nb\nd\n",
    )


def test_equal_steps_of_a_counter_count_twice(space: Workspace) -> None:
    """Two units that each count one up give two, though their records are equal, byte by byte."""
    with space.unit_of_work("a") as uow:
        uow.runs.save(Run(id="r", agent="a"))
        uow.commit()

    def count(uow):
        old = uow.runs.get("r")
        uow.runs.save(old.evolve(tokens_in_count=old.tokens_in_count + 1))

    race(space, count, count, count)
    assert space.runs.get("r").tokens_in_count == 3
    branch = space.branch("b")
    race(branch, count)
    race(space, count)
    space.merge("b", actor="a")
    assert space.runs.get("r").tokens_in_count == 5


def test_edits_of_one_strict_field_conflict(space: Workspace) -> None:
    """The second of two units that change one strict field is refused with both sides, and
    nothing of it is there.
    """

    def name(text):
        def work(uow):
            uow.sprints.save(uow.sprints.get("s1").evolve(name=text))
            uow.memories.note(text)

        return work

    first, second = race(space, name("A"), name("B"))
    assert isinstance(first, cas.Entry)
    assert isinstance(second, AggregateConflict)
    (clash,) = second.conflicts
    assert (clash.field, clash.base, clash.current, clash.incoming) == ("name", "One", "A", "B")
    assert [m.text for m in space.memories] == ["A"]


def test_a_conflict_can_be_kept_and_settled(space: Workspace) -> None:
    """With `keep` the commit succeeds: what merges is merged, what stood stands, and the conflict
    is a value that can be listed and settled for either side.
    """

    def name(text):
        return lambda uow: uow.sprints.save(uow.sprints.get("s1").note(text).evolve(name=text))

    race(space, name("A"), name("B"), name("C"), on_conflict="keep")
    assert space.sprints.get("s1").name == "A"
    assert space.sprints.get("s1").notes == ("A", "B", "C")
    one, two = sorted(space.conflicts(), key=lambda c: c.clashes[0].incoming)
    assert (one.about, one.fields, one.actor) == (
        space.sprints.get("s1").link,
        ("name",),
        "agent 1",
    )
    with space.unit_of_work("human") as uow:
        uow.settle(one, take="incoming")
        uow.commit()
    assert space.sprints.get("s1").name == "B"
    assert list(space.conflicts()) == [two]
    with space.unit_of_work("human") as uow:
        uow.settle(two, values={"name": "D"})
        uow.commit()
    assert space.sprints.get("s1").name == "D"
    assert list(space.conflicts()) == []


def test_a_removal_and_an_edit_conflict(space: Workspace) -> None:
    """What one removed and the other changed is refused, or kept with a conflict that says so."""

    def remove(uow):
        uow.sprints.remove("s1")

    def change(uow):
        uow.sprints.save(uow.sprints.get("s1").note("x"))

    _first, second = race(space, change, remove)
    assert isinstance(second, AggregateConflict)
    assert second.removed == "incoming"
    race(space, remove, change, on_conflict="keep")
    (conflict,) = space.conflicts()
    assert conflict.removed == "current"
    assert space.sprints.get("s1").notes == ("x", "x")
    with space.unit_of_work("human") as uow:
        assert uow.settle(conflict, take="current") is None
        uow.commit()
    assert "s1" not in space.sprints
    assert list(space.conflicts()) == []


def test_an_old_value_is_merged_when_it_is_saved(space: Workspace) -> None:
    """A value that was read long ago brings its own changes only; what others did stays."""
    old = space.sprints.get("s1")
    with space.unit_of_work("other") as uow:
        uow.sprints.save(uow.sprints.get("s1").note("theirs"))
        uow.commit()
    with space.unit_of_work("late") as uow:
        uow.sprints.save(old.note("mine").start(NOW))
        uow.commit()
    found = space.sprints.get("s1")
    assert (found.notes, found.state) == (("theirs", "mine"), SprintState.ACTIVE)
    with space.unit_of_work("late") as uow, pytest.raises(AggregateConflict):
        uow.sprints.save(old.cancel(NOW))


def test_what_was_only_read_must_stand(space: Workspace) -> None:
    """A unit that rests on an aggregate is refused when that changes, even if it writes others."""

    def reader(uow):
        uow.sprints.get("s1")
        uow.memories.note("based on s1")

    def absent(uow):
        assert uow.sprints.find_one("s9") is None
        uow.memories.note("based on there being no s9")

    def change(uow):
        uow.sprints.save(uow.sprints.get("s1").note("x"))
        uow.sprints.add(Sprint(id="s9", name="Nine"))

    _entry, *others = race(space, change, reader, absent)
    assert all(isinstance(each, AggregateConflict) for each in others)
    assert list(space.memories) == []


def lease(memory: Memory) -> bool:
    """The memories that a condition is about."""
    return memory.kind == "lease"


def test_a_condition_guards_what_is_not_there_yet(space: Workspace) -> None:
    """A commit on condition that nothing matching came is refused when it did, whatever context
    it writes to, and goes through beside everything else.
    """

    def guarded(uow):
        assert list(uow.memories.find(lease, guard=True)) == []
        uow.artifacts.put("claim", b"mine")

    def harmless(uow):
        uow.memories.note("other")

    def taker(uow):
        uow.memories.note("mine", kind="lease")

    assert all(isinstance(e, cas.Entry) for e in race(space, harmless, guarded))
    _taken, refused = race(space, taker, guarded)
    assert isinstance(refused, ConditionFailed)
    assert "memories that were found" in refused.condition
    with space.unit_of_work("late") as uow:
        uow.ensure(Memory, lease, "nobody holds a lease")
        uow.artifacts.put("claim", b"again")
        (held,) = space.memories.find(lease)
        with space.unit_of_work("other") as faster:
            faster.memories.remove(held)
            faster.commit()
        with pytest.raises(ConditionFailed, match="nobody holds a lease"):
            uow.commit()


def test_artifacts_are_merged_with_their_content(space: Workspace) -> None:
    """Edits of different lines of one text artifact come together, record and file alike."""

    def write(content):
        return lambda uow: uow.artifacts.put("docs/a.md", content)

    race(space, write(b"ONE\ntwo\nthree\n"), write(b"one\ntwo\nTHREE\n"))
    assert space.artifacts.read("docs/a.md") == b"ONE\ntwo\nTHREE\n"
    record = space.artifacts.get("docs/a.md")
    assert space.store.get(record.content) == b"ONE\ntwo\nTHREE\n"
    assert record.size_bytes == 14
    before = space.artifacts.get("docs/a.md")
    _first, second = race(space, write(b"\x00A"), write(b"\x00B"))
    assert isinstance(second, AggregateConflict)
    assert [clash.field for clash in second.conflicts] == ["content"]
    assert space.artifacts.read("docs/a.md") == b"\x00A"
    assert space.is_stale(pinned(before))
    assert space.resolve(pinned(before)) == before
    with space.unit_of_work("a") as uow:
        uow.artifacts.remove("docs/a.md")
        uow.commit()
    with pytest.raises(PathNotFound):
        space.artifacts.read("docs/a.md")
    assert "docs/a.md" not in space.artifacts


def test_a_large_artifact_is_streamed(space: Workspace, tmp_path: Path) -> None:
    """Content of any size goes in from a file and comes out as a stream."""
    source = tmp_path / "big.bin"
    source.write_bytes(bytes(range(256)) * 50_000)
    with space.unit_of_work("a") as uow:
        made = uow.artifacts.put("data/big.bin", source, kind=ArtifactKind.DATA)
        uow.commit()
    assert made.size_bytes == 12_800_000
    with space.artifacts.open("data/big.bin") as stream:
        stream.seek(-256, 2)
        assert stream.read() == bytes(range(256))


def test_a_key_commits_once(space: Workspace) -> None:
    """Of all units with one key one commits; the others give its entry and do nothing."""

    def work(uow):
        uow.memories.note("once")

    first = space.unit_of_work("a", key="k1")
    racing = space.unit_of_work("a", key="k1")
    work(first)
    work(racing)
    entry = first.commit()
    assert racing.commit() == entry
    with space.unit_of_work("a", key="k1") as again:
        assert again.already == entry
        work(again)
        assert again.commit() == entry
    assert len(list(space.memories)) == 1


def test_run_tries_again_until_it_fits(space: Workspace) -> None:
    """`run` repeats a unit that others disturbed, and gives up after so many tries."""
    tries = []

    def disturbed(uow):
        found = uow.sprints.get("s1")
        tries.append(found.name)
        if len(tries) < 5:
            with space.unit_of_work("other") as other:
                old = other.sprints.get("s1")
                other.sprints.save(old.evolve(name=f"n{len(tries)}"))
                other.commit()
        uow.memories.note(found.name)
        return found.name

    assert space.run(disturbed, "patient") == "n4"
    assert [m.text for m in space.memories] == ["n4"]
    tries.clear()
    with pytest.raises(AggregateConflict):
        space.run(disturbed, "impatient", attempts_max=3)
    assert len(tries) == 3


def test_history_keeps_every_version(space: Workspace) -> None:
    """Edits and removals erase nothing: each version is there with who made it."""
    for text in ("one", "two"):
        with space.unit_of_work(text) as uow:
            old = uow.memories.find_one("m")
            made = Memory(id="m", agent="a", text=text)
            uow.memories.save(made if old is None else old.evolve(text=text))
            uow.commit()
    with space.unit_of_work("eraser") as uow:
        uow.memories.remove("m")
        uow.commit()
    found = [(v.author, v.value and v.value.text) for v in space.memories.history("m")]
    assert found == [("eraser", None), ("two", "two"), ("one", "one")]
    with pytest.raises(AggregateNotFound):
        space.memories.history("nobody")


def test_bad_input_is_told(space: Workspace) -> None:
    """Wrong fields, wrong events and wrong options are typed errors, and nothing is done."""
    before = space.store.view().seq
    with space.unit_of_work("a") as uow:
        with pytest.raises(InvalidRecord):
            uow.memories.note("x", importance=7.0)
        with pytest.raises(InvalidRecord):
            uow.memories.note("x", trust="blind")
        with pytest.raises(Invalid, match="no type of event"):
            uow.event("not a type")
        with pytest.raises(Invalid, match="can hold"):
            uow.event("a.b", {"x": object()})
        with pytest.raises(Invalid, match="map of plain"):
            uow.event("a.b", ["x"])  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="raise or keep"):
        space.unit_of_work("a", on_conflict="guess")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="position"):
        list(space.events("yesterday"))
    with pytest.raises(Invalid, match="collection of types"):
        list(space.events(0, "sprint.closed"))
    assert space.store.view().seq == before


def test_a_conflict_of_what_is_gone_stands_until_it_is_settled_as_gone(space: Workspace) -> None:
    """No side can become what was removed meanwhile; a refused settling has dropped nothing."""

    def name(text):
        return lambda uow: uow.sprints.save(uow.sprints.get("s1").evolve(name=text))

    race(space, name("A"), name("B"), on_conflict="keep")
    (conflict,) = space.conflicts()
    with space.unit_of_work("human") as uow:
        uow.sprints.remove("s1")
        uow.commit()
    with space.unit_of_work("human") as uow:
        with pytest.raises(AggregateNotFound):
            uow.settle(conflict, take="incoming")
        uow.memories.note("could not be settled so")
        uow.commit()
    assert list(space.conflicts()) == [conflict]
    with space.unit_of_work("human") as uow:
        assert uow.settle(conflict) is None
        uow.commit()
    assert list(space.conflicts()) == []


def test_an_artifact_is_never_apart_from_its_content(space: Workspace) -> None:
    """A record that names another content than its file has is refused by the field, and whichever
    verb removes an artifact removes its content; its other fields are saved as they are.
    """
    with space.unit_of_work("ada") as uow:
        for name in ("a", "b", "c/d"):
            uow.artifacts.put(name, b"one")
        with pytest.raises(InvalidRecord, match="'content' of artifact 'ghost'"):
            uow.add(cas.Artifact(id="ghost", content=cas.BlobId(bytes(32)), size_bytes=3))
        uow.commit()
    with space.unit_of_work("ada") as uow:
        found = uow.artifacts.get("a")
        with pytest.raises(InvalidRecord, match="content"):
            uow.artifacts.save(found.evolve(content=cas.BlobId(bytes(32))))
        with pytest.raises(InvalidRecord, match="size_bytes"):
            uow.save(found.evolve(size_bytes=4))
        uow.artifacts.save(found.evolve(title="A"))
        uow.remove(uow.artifacts.get("b"))
        uow.collection(cas.Artifact).remove("c/d")
        uow.commit()
    assert space.artifacts.get("a").title == "A"
    assert list(space.artifacts.ids()) == ["a", "docs/a.md"]
    files = [path for path in space.store.snapshot("artifacts/main") if path.startswith("files/")]
    assert files == ["files/a", "files/docs/a.md"]
    old = space.artifacts.get("a")
    with space.unit_of_work("bob") as uow:
        uow.artifacts.put("a", b"two")
        uow.commit()
    with space.unit_of_work("ada") as uow:
        uow.artifacts.save(old.evolve(tags=frozenset({"late"})))
        uow.commit()
    assert space.artifacts.read("a") == b"two"
    assert space.artifacts.get("a").tags == {"late"}


def test_a_condition_is_a_function(space: Workspace) -> None:
    """What cannot be asked is refused when it is made, not while others wait."""
    with space.unit_of_work("ada") as uow, pytest.raises(Invalid, match="condition is a function"):
        uow.ensure(Memory, "note")  # type: ignore[arg-type]


def test_a_validity_that_ends_before_it_begins_is_refused(space: Workspace) -> None:
    """A memory that could hold at no time is refused by the field; one moment is allowed."""
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    with space.unit_of_work("ada") as uow:
        with pytest.raises(InvalidRecord, match="valid_to"):
            uow.memories.note("x", valid_from=start, valid_to=end)
        uow.memories.note("x", valid_from=start, valid_to=start)
        uow.commit()


def test_units_of_a_store_in_memory_are_merged(tmp_path: Path) -> None:
    """Two edits of one aggregate are merged in a store that lives in memory as in any other."""
    for place in (":memory:", tmp_path / "s"):
        with cas.open(place, create=True) as store:
            space = Workspace(store)
            with space.unit_of_work("ada") as uow:
                uow.memories.note("x", id="m1")
                uow.commit()
            units = [space.unit_of_work(actor) for actor in ("ada", "bob")]
            for uow in units:
                memory = uow.memories.get("m1")
                uow.memories.save(memory.evolve(tags=memory.tags | {uow.actor}))
                uow.commit()
            assert space.memories.get("m1").tags == {"ada", "bob"}


@pytest.mark.parametrize("on_conflict", ["raise", "keep"])
def test_two_units_that_remove_the_same_agree(space: Workspace, on_conflict: OnConflict) -> None:
    """Also where two equal edits would be two, as of a list that is appended to or a counter."""
    with space.unit_of_work("setup") as uow:
        uow.runs.add(Run(id="r", agent="a"))
        uow.memories.note("m", id="m")
        uow.commit()
    one = space.unit_of_work("a")
    two = space.unit_of_work("b", on_conflict=on_conflict)
    for uow in (one, two):
        uow.sprints.remove(uow.sprints.get("s1"))
        uow.runs.remove(uow.runs.get("r"))
        uow.memories.remove(uow.memories.get("m"))
        uow.artifacts.remove(uow.artifacts.get("docs/a.md"))
    one.commit()
    two.commit()
    assert [len(list(each)) for each in (space.sprints, space.runs, space.memories)] == [0, 0, 0]
    assert list(space.artifacts) == list(space.conflicts()) == []


def test_a_merge_that_gives_an_older_version_again_is_committed_in_memory() -> None:
    """A catalog in memory is locked for all others in a transaction, in which the merge looks
    whether what it made is there already.
    """
    with cas.open(":memory:", create=True) as store:
        space = Workspace(store)
        with space.unit_of_work("a") as uow:
            uow.sprints.add(Sprint(id="s", name="B", goal="g2"))
            uow.commit()
        with space.unit_of_work("a") as uow:
            uow.sprints.save(uow.sprints.get("s").evolve(name="A", goal="g1"))
            uow.commit()
        one, two = space.unit_of_work("a"), space.unit_of_work("b")
        one.sprints.save(one.sprints.get("s").evolve(name="B"))
        two.sprints.save(two.sprints.get("s").evolve(goal="g2"))
        one.commit()
        two.commit()
        assert space.sprints.get("s") == Sprint(id="s", name="B", goal="g2")


@aggregate("span", context="t_spans")
class Span(cas.Aggregate):
    """A type whose fields depend on each other."""

    low: int = cas.part(default=0)
    high: int = cas.part(default=10)
    note: str = cas.part(default="", rule="last")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


def test_two_edits_that_are_wrong_together_are_a_conflict(space: Workspace) -> None:
    """What merges field by field and is refused by its type as a whole is a conflict of all that
    came: told, tried again by `run`, or kept and settled.
    """
    with space.unit_of_work("a") as uow:
        uow.save(Span(id="s"))
        uow.commit()
    one, two = space.unit_of_work("a"), space.unit_of_work("b")
    kept = space.unit_of_work("c", on_conflict="keep")
    one.save(one.get(Span, "s").evolve(low=8))
    two.save(two.get(Span, "s").evolve(high=5))
    kept.save(kept.get(Span, "s").evolve(high=7, note="late"))
    one.commit()
    with pytest.raises(AggregateConflict) as caught:
        two.commit()
    assert [each.field for each in caught.value.conflicts] == ["high"]
    kept.commit()
    (conflict,) = space.conflicts()
    assert conflict.taking("incoming") == {"high": 7, "note": "late"}
    assert space.collection(Span).get("s") == Span(id="s", low=8)
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, values={"low": 3, "high": 7})
        uow.commit()
    assert space.collection(Span).get("s") == Span(id="s", low=3, high=7)
    tries = []

    def narrow(uow: cas.UnitOfWork) -> None:
        span = uow.get(Span, "s")
        if not tries:
            with space.unit_of_work("b") as beside:
                beside.save(beside.get(Span, "s").evolve(low=6))
                beside.commit()
        tries.append(span.low)
        uow.save(span.evolve(high=max(span.low, 5)))

    space.run(narrow, "a")
    assert tries == [3, 6]
    assert space.collection(Span).get("s") == Span(id="s", low=6, high=6)
