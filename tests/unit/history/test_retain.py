"""Planning and applying retention: what goes, what stays and why, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import Invalid, OnHold, RefConflict, RefNotFound, Thinned, UndoBeforeHorizon
from cas.history.horizon import Thinning, horizon_now, thinned_commits
from cas.history.live import live_targets
from cas.history.retain import stage_raise
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.history.thinning import commit_of
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId, CommitId, Kind, ObjectId, digest_of
from cas.model.names import HOLDS, RETENTION_REF
from tests.unit.kit import commits, reopened, write

NOW = HorizonRule(Span(), 0)
"""Only the present can be read."""


def keep(pattern: str = "heads/*", horizon: HorizonRule = NOW, **counts: int) -> RetentionPolicy:
    """A policy of one rule."""
    return RetentionPolicy((KeepRule(pattern, **counts),), horizon)


def thinned(store: Store) -> set[CommitId]:
    """All commits that have given up their content."""
    return set(thinned_commits(store.core, horizon_now(store.core)))


def ids_of(store: Store, revision: str = "main") -> list[CommitId]:
    """The log of a revision."""
    return [id for id, _commit in store.log(revision)]


def test_a_policy_that_says_nothing_is_refused(store: Store) -> None:
    """A short name, which no branch is like, and two rules of one pattern: when a plan is made, and
    when the policy is to be kept.
    """
    commits(store, 3)
    twice = RetentionPolicy((KeepRule("heads/*", last=1), KeepRule("heads/*", daily=2)), NOW)
    for policy, told in ((keep("main", last=1), "'heads/main'"), (twice, "join them")):
        with pytest.raises(Invalid, match=told):
            store.plan_retention(policy)
        with pytest.raises(Invalid, match=told):
            store.set_retention(policy)
    for pattern in ("heads/main", "*", "?eads/*", "[ht]*"):
        assert store.plan_retention(keep(pattern, last=1)).going


def test_a_plan_says_what_goes_and_what_stays(store: Store) -> None:
    """Each commit of a ruled branch is in one of two lists, with the reason; nothing is written."""
    commits(store, 6)
    ids = ids_of(store)
    before = store.view().seq
    plan = store.plan_retention(keep(last=2))
    assert [item.id for item in plan.going] == ids[2:]
    assert [item.id for item in plan.kept] == ids[:2]
    assert plan.going[0].reason == "main keeps last 2"
    assert plan.going[0].refs == ("main",)
    assert plan.kept[0].reasons == ("last of main", "head of main")
    assert (plan.horizon_before, plan.horizon) == (0, 6)
    assert store.view().seq == before
    assert [(found.id, found.path) for found in store.given_up(plan)] == [
        (id, "n") for id in ids[2:]
    ]


def test_applying_a_plan_thins_what_it_says(store: Store) -> None:
    """One entry, with author and message; the heads read on, and doing it again does nothing."""
    commits(store, 6)
    ids = ids_of(store)
    done = store.apply(store.plan_retention(keep(last=2)), author="ada")
    assert done.entry is not None
    assert done.entry.message == "retain: thin 4 commits, raise the horizon to entry 6"
    assert done.entry.actor == "ada"
    assert thinned(store) == set(ids[2:])
    thinning = store.view().thinning(ids[3])
    assert thinning is not None
    assert (thinning.reason, thinning.author) == ("main keeps last 2", "ada")
    assert store.snapshot("main~1")["n"] == b"4"
    with pytest.raises(Thinned):
        store.snapshot("main~2")
    plan = store.plan_retention(keep(last=2, horizon=HorizonRule(Span(days=30), 100)))
    assert plan.is_empty
    assert store.apply(plan).entry is None
    assert fsck(store).findings == ()


def test_what_can_be_undone_is_not_thinned(store: Store) -> None:
    """Commits that a state behind the horizon points at stay, whatever the rule."""
    commits(store, 8)
    plan = store.plan_retention(keep(last=1, horizon=HorizonRule(Span(), 3)))
    assert plan.horizon == 5
    ids = ids_of(store)
    assert [item.id for item in plan.going] == ids[4:]
    assert {k.id: k.reasons for k in plan.kept}[ids[2]] == ("undo back to entry 5",)
    store.apply(plan)
    assert store.undo().seq == 8
    with pytest.raises(UndoBeforeHorizon):
        store.undo(5)
    assert store.at(5).snapshot("main")["n"] == b"4"


def test_the_horizon_reaches_back_as_far_as_both_ask(store: Store) -> None:
    """Time and number of entries: whichever reaches further back decides, by the journal's time."""
    entries = commits(store, 6)
    seen = {
        (hours, count): store.plan_retention(
            keep(last=1, horizon=HorizonRule(Span(hours=hours), count))
        ).horizon
        for hours in (0, 1)
        for count in (0, 2, 99)
    }
    assert seen == {(0, 0): 6, (0, 2): 4, (0, 99): 0, (1, 0): 0, (1, 2): 0, (1, 99): 0}
    assert entries[-1].seq == 6


def test_branches_without_a_rule_keep_all(store: Store) -> None:
    """A pattern is about its branches; what another branch reaches stays for it."""
    commits(store, 4)
    with store.begin() as tx:
        tx.move("heads/other", store.resolve("main~2"))
        tx.commit()
    plan = store.plan_retention(keep("heads/main", last=1))
    ids = ids_of(store)
    assert [item.id for item in plan.going] == [ids[1]]
    assert {k.id: k.reasons for k in plan.kept}[ids[3]] == ("other has no rule",)
    assert store.plan_retention(keep("heads/agents/*", last=1)).going == ()


def test_tags_and_pins_keep_their_commit(store: Store) -> None:
    """A tag or pin keeps the commit it points at, and not what led there."""
    commits(store, 6)
    ids = ids_of(store)
    with store.begin() as tx:
        tx.tag("v1", ids[2], "release")
        tx.tag("light", ids[3])
        tx.commit()
    store.pin(ids[4])
    plan = store.plan_retention(keep(last=1))
    assert [item.id for item in plan.going] == [ids[1], ids[5]]
    reasons = {k.id: k.reasons for k in plan.kept}
    assert [reasons[ids[n]] for n in (2, 3, 4)] == [("tag v1",), ("tag light",), ("pinned",)]


def test_a_hold_keeps_all_that_led_to_it(store: Store) -> None:
    """Nothing overrides a legal hold: not retention, not undo, not rewind; `release` lifts it."""
    commits(store, 4)
    ids = ids_of(store)
    hold = store.hold("main~1", "case 12", author="ada")
    assert store.holds() == [hold]
    assert hold.reason == "case 12"
    commits(store, 1)
    plan = store.plan_retention(keep(last=1))
    assert [item.id for item in plan.going] == [ids[0]]
    assert "legal hold" in {k.id: k.reasons for k in plan.kept}[ids[3]]
    with pytest.raises(OnHold):
        store.undo(5)
    assert store.undo().seq == 6
    store.restore(seq=4)
    assert store.holds() == [hold]
    store.release(ids[1], author="bob")
    assert store.holds() == []
    with pytest.raises(RefNotFound):
        store.release(ids[1])
    with pytest.raises(Invalid):
        store.hold("main", " ")
    assert len(store.plan_retention(keep(last=1)).going) == 3


def test_where_branches_meet_stays(store: Store) -> None:
    """The commit that a merge of two branches starts from keeps its content; they merge."""
    write(store, "main", {"a": b"1\n", "b": b"1\n"})
    commits(store, 2)
    meeting = store.resolve("main")
    with store.begin() as tx:
        tx.move("heads/side", meeting)
        tx.commit()
    for number in range(3):
        write(store, "main", {"a": b"%d\n" % number})
        write(store, "side", {"b": b"%d\n" % number})
    plan = store.plan_retention(keep(last=1))
    assert {k.id: k.reasons for k in plan.kept}[meeting] == ("branches meet here",)
    assert len(plan.going) == 6
    store.apply(plan)
    result = store.merge("main", "side")
    assert result.conflicts == ()
    merged = store.snapshot("main")
    assert (merged["a"], merged["b"]) == (b"2\n", b"2\n")


def test_merging_from_a_thinned_commit_is_refused(store: Store) -> None:
    """Where the common ancestor was given up a merge is a typed error, and does nothing."""
    commits(store, 2)
    meeting = store.resolve("main~1")
    with store.begin() as tx:
        tx.move("heads/side", meeting)
        tx.commit()
    write(store, "side", {"b": b"1"})
    why = Thinning("by hand", "", 1)
    with store.begin() as tx:
        stage_raise(store.core, tx, store.view().seq, {meeting: why})
        tx.commit()
    before = store.view().refs()
    with pytest.raises(Thinned):
        store.merge("main", "side")
    assert store.view().refs() == before


def test_what_others_did_since_the_plan_counts(store: Store) -> None:
    """A plan is compared with the newest state: what is kept by then makes it a conflict."""
    commits(store, 4)
    plan = store.plan_retention(keep(last=1))
    with store.begin() as tx:
        tx.tag("v1", store.resolve("main~2"))
        tx.commit()
    with pytest.raises(RefConflict):
        store.apply(plan)
    assert thinned(store) == set()
    commits(store, 1)
    done = store.apply(store.plan_retention(keep(last=1)))
    assert done.entry is not None
    assert len(thinned(store)) == 3


def test_a_policy_is_kept_in_the_store(store: Store) -> None:
    """The policy is journaled, found by every handle, and what is none cannot take its place."""
    commits(store, 3)
    with pytest.raises(Invalid, match="no retention policy"):
        store.plan_retention()
    policy = keep(last=1)
    entry = store.set_retention(policy, author="ada")
    assert (entry.actor, entry.message) == ("ada", "set retention")
    with reopened(store) as other:
        assert other.retention() == policy
        assert len(other.plan_retention().going) == 2
    with store.begin() as tx:
        tx.move(RETENTION_REF, store.resolve("main"))
        with pytest.raises(Invalid):
            tx.commit()
    store.set_retention(None)
    assert store.retention() is None
    assert store.at(entry.seq).ref(RETENTION_REF) is not None


def test_an_empty_store_has_nothing_to_give_up(store: Store) -> None:
    """Without an entry the plan is empty, and applying it makes none."""
    plan = store.plan_retention(keep(last=1))
    assert plan.is_empty
    assert store.apply(plan).entry is None


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Steps that make branches, tags, merges, pins and holds."""
    acts = (
        "commit",
        "commit",
        "commit",
        "branch",
        "tag",
        "merge",
        "pin",
        "hold",
        "delete",
        "retain",
    )
    return draw(
        st.lists(
            st.tuples(st.sampled_from(acts), st.sampled_from(["a", "b", "c"])),
            min_size=3,
            max_size=16,
        )
    )


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 3), st.integers(0, 6))
def test_nothing_is_given_up_that_anything_keeps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], last: int, entries: int
) -> None:
    """Whatever was done in whatever order: heads, pins, tags, holds with all before them, and every
    state behind the horizon read whole; branches merge; the log is whole; fsck finds nothing.
    """
    folder: Path = tmp_path_factory.mktemp("retain") / "s"
    policy = keep(last=last, horizon=HorizonRule(Span(), entries))
    with cas.open(folder, create=True) as store:
        made: dict[CommitId, bytes] = {}
        held: dict[ObjectId, set[CommitId]] = {}
        for number, (act, name) in enumerate(steps):
            _step(store, act, name, number, policy, made)
            for hold in store.holds():
                # What was given up before a hold was made is gone.
                found = set(ids_of(store, str(hold.id))) - thinned(store)
                assert held.setdefault(hold.id, found) == found
        store.apply(store.plan_retention(policy))
        store.gc(grace_us=0)
        horizon, gone = horizon_now(store.core), thinned(store)
        for seq in range(horizon.seq, store.view().seq + 1):
            view = store.at(seq)
            for ref in view.branches() + view.tags():
                _read_all(store, view.resolve(ref.target), made)
        for hold in store.holds():
            for id in held[hold.id]:
                _read_all(store, id, made)
        for pin in store.pins():
            _read_all(store, CommitId(pin.id), made)
        for ref in store.branches():
            found = ids_of(store, ref.short)
            assert not set(found[:last]) & gone
            for id in found:
                if id in gone:
                    with pytest.raises(Thinned):
                        store.snapshot(id)
                else:
                    _read_all(store, id, made)
        for ours in store.branches():
            for theirs in store.branches():
                store.plan_merge(ours.short, theirs.short, allow_unrelated=True)
        assert not [f for f in fsck(store).findings if f.severity != Severity.NOTICE]
        _check_gone(store, made, gone)


def _check_gone(store: Store, made: dict[CommitId, bytes], gone: set[CommitId]) -> None:
    """What no commit has that anything leads to is not in the store any more."""
    kept: set[CommitId] = set()
    stack = [
        commit
        for live in live_targets(store.core, store.view().moment)
        if (commit := commit_of(store.core, None, live.kind, live.target)) is not None
    ]
    while stack:
        id = stack.pop()
        if id not in kept:
            kept.add(id)
            stack += store.core.commits.get(id).parents
    wanted = {made[id] for id in kept - gone}
    for content in set(made.values()):
        assert store.has(BlobId(digest_of(Kind.BLOB, content))) == (content in wanted)


def _step(
    store: Store, act: str, name: str, number: int, policy: RetentionPolicy,
    made: dict[CommitId, bytes],
) -> None:  # fmt: skip
    refs = {ref.short: ref for ref in store.branches()}
    if act == "commit" or not refs:
        write(store, name, {"n": b"%d" % number})
        made[store.resolve(f"heads/{name}")] = b"%d" % number
        return
    source = refs.get(name) or next(iter(refs.values()))
    target = ObjectId(source.target)
    if act == "retain":
        store.apply(store.plan_retention(policy))
    elif act == "gc":
        store.gc(grace_us=0)
    elif act == "merge":
        store.merge(source.short, next(iter(refs)), on_conflict="ours", allow_unrelated=True)
        made.setdefault(store.resolve(source.short), store.snapshot(source.short)["n"])
    elif act == "pin":
        store.pin(target)
    elif act == "hold":
        store.hold(target, "case")
    elif act == "delete" and len(refs) > 1:
        with store.begin() as tx:
            tx.delete(source.name)
            tx.commit()
    elif act in ("branch", "tag"):
        with store.begin() as tx:
            tx.move(f"{'heads' if act == 'branch' else 'tags'}/x{number}", target)
            tx.commit()


def _read_all(store: Store, id: CommitId, made: dict[CommitId, bytes]) -> None:
    assert store.snapshot(id)["n"] == made[id]


def test_holds_stand_apart_from_pins(store: Store) -> None:
    """An object can be pinned and held at once, and each is lifted by itself."""
    blob = store.put(b"evidence")
    store.pin(blob)
    store.hold(blob, "case 3")
    store.unpin(blob)
    assert [hold.id for hold in store.holds()] == [blob]
    assert store.view().ref(HOLDS + blob.hex()) is not None
