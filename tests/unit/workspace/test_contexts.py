"""What is declared of a bounded context: what it may hold, and what stays of its history."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import (
    AggregateConflict,
    Invalid,
    InvalidName,
    InvalidRecord,
    LimitExceeded,
    Thinned,
)
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.model.names import HEADS, RETENTION_REF
from cas.workspace.codec import Record, encode_record, from_record
from cas.workspace.contexts import Context, Keep
from cas.workspace.workspace import Workspace

NOW = HorizonRule(Span(), 0)
"""Only the present can be read, so that retention may give up all that rules do not keep."""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    with (
        cas.open(tmp_path / "home.cas", create=True) as store,
        Workspace(store, places=cas.open) as made,
    ):
        yield made


def note(space: Workspace, *ids: str, text: str = "text") -> cas.Entry:
    """Remember something."""
    with space.unit_of_work("ada") as uow:
        for id in ids:
            uow.memories.note(text, id=id)
        return uow.commit()


def edit(space: Workspace, id: str, text: str) -> cas.Entry:
    """Change what a memory says."""
    with space.unit_of_work("ada") as uow:
        uow.memories.save(uow.memories.get(id).evolve(text=text))
        return uow.commit()


def rules(store: cas.Store) -> dict[str, KeepRule]:
    """The rules of a store's policy, by pattern."""
    policy = store.retention()
    return {} if policy is None else {rule.pattern: rule for rule in policy.rules}


# -- what stays of its history -------------------------------------------------------------------


def test_what_a_context_keeps_is_a_rule_of_the_store(space: Workspace) -> None:
    """Declared, changed and taken back, the rule of a context's branches stands in the policy of
    its store by the same entry, and no other rule is touched.
    """
    other = KeepRule("heads/planning/*", daily=3)
    space.store.set_retention(RetentionPolicy((other,), NOW), author="ada")
    entry = space.declare(Context(id="memory", retention=Keep(last=2, within="30d")), "ada")
    moved = {change.ref for change in entry.changes}
    assert moved == {RETENTION_REF, f"{HEADS}workspace/main"}
    wanted = KeepRule("heads/memory/*", last=2, within=Span(days=30))
    assert rules(space.store) == {"heads/memory/*": wanted, other.pattern: other}
    assert space.contexts()["memory"].retention == Keep(last=2, within="30d")
    again = space.declare(space.contexts()["memory"].evolve(description="x"), "ada")
    assert {change.ref for change in again.changes} == {f"{HEADS}workspace/main"}
    space.store.undo(author="ada")
    space.declare(space.contexts()["memory"].evolve(retention=Keep(daily=7)), "ada")
    assert rules(space.store)["heads/memory/*"] == KeepRule("heads/memory/*", daily=7)
    space.declare(space.contexts()["memory"].evolve(retention=None), "ada")
    assert rules(space.store) == {other.pattern: other}
    policy = space.store.retention()
    assert policy is not None
    assert policy.horizon == NOW


def test_a_policy_that_was_made_for_contexts_goes_with_the_last(space: Workspace) -> None:
    """A store that had no policy has none again; a rule that somebody set stays."""
    space.declare(Context(id="memory", retention=Keep(last=2)), "ada")
    space.declare(Context(id="memory"), "ada")
    assert space.store.retention() is None
    mine = RetentionPolicy((KeepRule("heads/memory/*", last=9),))
    space.store.set_retention(mine, author="ada")
    space.declare(Context(id="memory", description="mine"), "ada")
    assert space.store.retention() == mine
    space.declare(Context(id="memory", retention=Keep(last=2)), "ada")
    space.store.set_retention(mine, author="ada")
    space.declare(Context(id="memory"), "ada")
    assert space.store.retention() == mine


def test_what_is_declared_is_planned_and_done_by_retain_and_maintain(space: Workspace) -> None:
    """Commits that the rule of one context gives up are those that a plan tells; others stay, the
    newest state is whole, and the versions that are left are told.
    """
    space.declare(Context(id="memory", retention=Keep(last=2)), "ada")
    policy = space.store.retention()
    assert policy is not None
    space.store.set_retention(RetentionPolicy(policy.rules, NOW), author="ada")
    with space.unit_of_work("ada") as uow:
        uow.sprints.add(cas.Sprint(id="s1", name="0"))
        uow.commit()
    note(space, "m1", text="0")
    for number in range(1, 6):
        edit(space, "m1", str(number))
        with space.unit_of_work("ada") as uow:
            uow.sprints.save(uow.sprints.get("s1").evolve(name=str(number)))
            uow.commit()
    plan = space.store.plan_retention()
    assert len(plan.going) == 4
    assert {item.refs for item in plan.going} == {("memory/main",)}
    report = space.store.maintain(budget_ms=60_000)
    assert [row.outcome for row in report.rows if row.name == "retain"] == ["done"]
    assert space.store.plan_retention().going == ()
    found = [v.value.text for v in space.memories.history("m1") if v.value is not None]
    assert found == ["5", "4"]
    assert len(list(space.sprints.history("s1"))) == 6
    with pytest.raises(Thinned):
        space.store.snapshot(plan.going[0].id).read("memories/m1")
    one, two = space.unit_of_work("ada"), space.unit_of_work("bob")
    for uow, tag in ((one, "a"), (two, "b")):
        memory = uow.memories.get("m1")
        uow.memories.save(memory.evolve(tags=memory.tags | {tag}))
        uow.commit()
    assert space.memories.get("m1").tags == {"a", "b"}


def test_a_context_elsewhere_keeps_by_the_policy_of_its_store(
    tmp_path: Path, space: Workspace
) -> None:
    """The rule goes where the context goes, and is no rule of the store that it left."""
    note(space, "m1")
    space.declare(Context(id="memory", retention=Keep(last=1)), "ada")
    for name in ("a", "b"):
        cas.open(tmp_path / f"{name}.cas", create=True).close()
    space.declare(space.contexts()["memory"].evolve(place="a.cas"), "ada")
    assert (space.store.retention(), len(rules(space.store_of("memory")))) == (None, 1)
    before = space.store_of("memory").view().seq
    space.declare(space.contexts()["memory"].evolve(description="x"), "ada")
    assert space.store_of("memory").view().seq == before
    space.declare(space.contexts()["memory"].evolve(place="b.cas"), "ada")
    assert rules(space.store_of("memory")) == {"heads/memory/*": KeepRule("heads/memory/*", last=1)}
    space.declare(space.contexts()["memory"].evolve(place=""), "ada")
    assert rules(space.store) == {"heads/memory/*": KeepRule("heads/memory/*", last=1)}


def test_two_who_declare_at_once_lose_no_rule(space: Workspace) -> None:
    """A policy that somebody changes while a context is declared is never written over."""
    other = RetentionPolicy((KeepRule("heads/planning/*", last=3),), NOW)
    done: list[int] = []
    real = type(space.store).retention

    def between(store: cas.Store) -> RetentionPolicy | None:
        found = real(store)
        if not done:
            done.append(1)
            store.set_retention(other, author="bob")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(space.store), "retention", between)
        space.declare(Context(id="memory", retention=Keep(last=1)), "ada")
    assert sorted(rules(space.store)) == ["heads/memory/*", "heads/planning/*"]


def test_a_rule_that_is_none_is_refused() -> None:
    """What keeps nothing, counts what is no number, or lasts no time is refused by name."""
    for wrong in (
        {},
        {"last": "3"},
        {"last": -2},
        {"within": "soon"},
        {"within": 5},
        {"daily": True},
    ):
        with pytest.raises(Invalid):
            Keep(**wrong)  # type: ignore[arg-type]


def test_a_declaration_names_what_is_wrong_with_it(space: Workspace) -> None:
    """A name with a slash, which would be a branch of another context, a limit that is no number
    from 1 on, a rule of another type: each is refused by the field.
    """
    with pytest.raises(InvalidName, match="slash"):
        Context(id="a/b")
    for name in (
        "record_bytes_max",
        "artifact_bytes_max",
        "aggregate_count_max",
        "total_bytes_max",
    ):
        for wrong in (0, -1, "9", 1.5):
            with pytest.raises(InvalidRecord, match=name):
                Context(id="x", **{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord, match="retention"):
        space.declare(Context(id="x", retention="last 3"), "ada")  # type: ignore[arg-type]
    assert space.store.view().seq == 0


# -- what it may hold ----------------------------------------------------------------------------


def test_a_limit_holds_whoever_commits_first(space: Workspace) -> None:
    """Of two units of work that both have room for one more, one commits and the other is refused
    with the limit named, although they touch nothing in common.
    """
    space.declare(Context(id="memory", aggregate_count_max=3), "ada")
    note(space, "m1", "m2")
    one, two = space.unit_of_work("ada"), space.unit_of_work("bob")
    one.memories.note("x")
    two.memories.note("y")
    one.commit()
    with pytest.raises(
        LimitExceeded, match=r"would hold 4 aggregates.*'memory' allows 3"
    ) as refused:
        two.commit()
    fields = refused.value.fields
    assert (fields["limit"], fields["value"], fields["maximum"]) == ("aggregate_count_max", 4, 3)
    assert len(list(space.memories)) == 3


def test_a_limit_of_many_is_compared_as_one_of_few(space: Workspace) -> None:
    """With thousands of aggregates, in folders and in none, the count is exact."""
    space.declare(Context(id="memory", aggregate_count_max=2_001), "ada")
    space.declare(Context(id="artifacts", aggregate_count_max=2_001), "ada")
    with space.unit_of_work("ada") as uow:
        for number in range(2_000):
            uow.memories.note("x", id=f"m{number:04}")
            uow.artifacts.put(f"d{number % 3}/a{number:04}", b"x")
        uow.commit()
    for count in (1, 2):
        for put in (
            lambda uow, n=count: uow.memories.note("y", id=f"n{n}"),
            lambda uow, n=count: uow.artifacts.put(f"d1/b{n}", b"y"),
        ):
            with space.unit_of_work("ada") as uow:
                put(uow)
                if count == 1:
                    uow.commit()
                    continue
                with pytest.raises(LimitExceeded, match="would hold 2002"):
                    uow.commit()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "grow", "shrink"]), st.integers(0, 5), st.integers(1, 400)
    ),
    min_size=1,
    max_size=14,
)


def _commit(space: Workspace, uow: cas.UnitOfWork) -> None:
    before = list(space.artifacts.ids())
    refused: LimitExceeded | None = None
    try:
        uow.commit()
    except LimitExceeded as error:
        refused = error
    except (AggregateConflict, cas.RefConflict):
        return
    if refused is not None:
        assert refused.fields["value"] > refused.fields["maximum"]
        assert list(space.artifacts.ids()) == before


@settings(max_examples=40)
@given(STEPS, st.integers(1, 4), st.integers(400, 2_000))
def test_no_history_brings_a_context_over_its_limits(
    steps: list[tuple[str, int, int]], count_max: int, total_max: int
) -> None:
    """Whatever two units of work at a time do, a branch never holds more than is declared; what is
    refused changes nothing, and would have been too much.
    """
    with cas.open(":memory:", create=True) as store:
        space = Workspace(store)
        space.declare(
            Context(id="artifacts", aggregate_count_max=count_max, total_bytes_max=total_max), "ada"
        )
        waiting: list[cas.UnitOfWork] = []
        for verb, which, size in steps:
            uow = space.unit_of_work("ada")
            name = f"d{which % 2}/a{which}"
            try:
                if verb == "remove":
                    if uow.artifacts.find_one(name) is not None:
                        uow.artifacts.remove(name)
                else:
                    uow.artifacts.put(name, bytes([which]) * (size * 3 if verb == "grow" else size))
                waiting.append(uow)
                if len(waiting) == 2:
                    for each in waiting:
                        _commit(space, each)
                    waiting = []
            finally:
                if uow not in waiting:
                    uow.rollback()
            assert len(list(space.artifacts.ids())) <= count_max
            refs = store.view().refs(f"{HEADS}artifacts/")
            assert all(store.snapshot(ref.target).size <= total_max for ref in refs)


def test_who_is_over_a_lowered_limit_may_go_on_with_less(space: Workspace) -> None:
    """A limit below what is there refuses more, and no edit of the same length, and no removal."""
    note(space, "m1", "m2", "m3")
    space.declare(Context(id="memory", aggregate_count_max=1, total_bytes_max=1), "ada")
    edit(space, "m1", "nine")
    with space.unit_of_work("ada") as uow:
        uow.memories.remove("m3")
        uow.commit()
    with pytest.raises(LimitExceeded, match="total_bytes_max"):
        note(space, "m4")
    assert list(space.memories.ids()) == ["m1", "m2"]


def test_too_long_a_content_is_refused_before_it_is_staged(
    tmp_path: Path, space: Workspace
) -> None:
    """Bytes, a file or a stream longer than the context allows is refused, read no further than
    that, and a unit of work that goes on has nothing of it.
    """
    space.declare(Context(id="artifacts", artifact_bytes_max=10), "ada")
    (tmp_path / "long").write_bytes(b"x" * 11)
    stream = io.BytesIO(b"x" * 10_000_000)
    with space.unit_of_work("ada") as uow:
        for content in (b"x" * 11, memoryview(b"x" * 11), tmp_path / "long", stream):
            with pytest.raises(LimitExceeded, match="--artifact-max"):
                uow.artifacts.put("a", content)
        with pytest.raises(Invalid, match="cannot be read"):
            uow.artifacts.put("a", tmp_path / "missing")
        uow.artifacts.put("b", b"x" * 10)
        uow.artifacts.put("c", io.BytesIO(b"x" * 10))
        entry = uow.commit()
    assert stream.tell() < 9_000_000
    assert list(space.artifacts.ids()) == ["b", "c"]
    assert space.at(entry.seq).artifacts.read("c") == b"x" * 10
    with space.unit_of_work("ada") as uow, pytest.raises(LimitExceeded):
        uow.artifacts.save(uow.artifacts.get("b").evolve(size_bytes=11))


def test_too_long_a_file_stays_in_its_working_folder(tmp_path: Path, space: Workspace) -> None:
    """A file that the context of artifacts does not allow is told and left as it is; the others are
    taken in.
    """
    space.declare(Context(id="artifacts", artifact_bytes_max=10), "ada")
    folder = tmp_path / "work"
    space.checkout(folder, actor="ada")
    (folder / "long").write_bytes(b"x" * 11)
    (folder / "short").write_bytes(b"x")
    (problem,) = space.sync(folder).problems
    assert (problem.path, problem.reason) == ("long", "refused")
    assert "allows 10" in problem.message
    assert list(space.artifacts.ids()) == ["short"]
    assert (folder / "long").read_bytes() == b"x" * 11
    space.declare(Context(id="artifacts"), "ada")
    assert space.sync(folder).problems == ()
    assert space.artifacts.read("long") == b"x" * 11


def test_a_branch_brings_no_context_over_its_limits(space: Workspace) -> None:
    """A limit is of each branch; a merge that would go over it is refused as a whole."""
    space.declare(Context(id="memory", aggregate_count_max=2), "ada")
    note(space, "m1")
    mine = space.branch("try/a", actor="ada")
    note(mine, "m2")
    note(space, "m3")
    with pytest.raises(LimitExceeded, match="3 aggregates"):
        space.merge("try/a", actor="ada")
    assert list(space.memories.ids()) == ["m1", "m3"]
    with space.unit_of_work("ada") as uow:
        uow.memories.remove("m3")
        uow.commit()
    space.merge("try/a", actor="ada")
    assert list(space.memories.ids()) == ["m1", "m2"]


def test_what_an_older_program_declared_is_read() -> None:
    """A declaration without the newer fields has no limits and keeps all."""
    fields = {
        "id": "memory",
        "description": "",
        "types": [],
        "publishes": [],
        "record_bytes_max": 9,
        "place": "",
        "store_id": "",
    }
    data = encode_record(Record("context", 1, fields))
    assert from_record(data) == Context(id="memory", record_bytes_max=9)
