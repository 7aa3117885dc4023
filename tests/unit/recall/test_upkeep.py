"""Receipts, forgetting, duplicates and taint: plans that change nothing, and what applying does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

import cas
from cas.errors import (
    AggregateExists,
    Corrupt,
    Invalid,
    LimitExceeded,
    NotAsExpected,
    RefNotFound,
    UnknownType,
)
from cas.history.store import Store
from cas.recall.forget import Policy
from cas.recall.noting import Noting
from cas.recall.recall import Recall
from cas.recall.receipts import Receipt
from cas.recall.taint import apply_taint, plan_taint
from cas.recall.upkeep import (
    apply_forget,
    consolidate,
    duplicates,
    plan_forget,
)
from cas.workspace.links import Link
from cas.workspace.memories import Memory, Trust
from cas.workspace.planning import Run
from cas.workspace.work import UnitOfWork
from tests.unit.recall.kit import SENTENCES, commit, memory

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def pinned(recall: Recall, id: str) -> Link:
    """A link to the newest version of a memory."""
    (item,) = recall.recall("", where={"id": id}, archived=True).items
    return item.link


def test_a_receipt_is_replayed_and_shows_who_saw_what(store: Store, recall: Recall) -> None:
    """A kept answer is given again bit for bit after everything changed; a changed one is told."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    shown = recall.recall("when are releases shipped", agent="planner", receipt=True)
    assert shown.receipt is not None
    commit(store, memory("m1", "Never."), gone=[memory("m3", SENTENCES[3])])
    (receipt,) = recall.find(Receipt).items
    assert receipt.link == shown.receipt
    assert recall.replay(receipt).items == shown.items
    assert shown.receipt.id in [x.source.id for x in recall.links_to(Link("memory", "m1"))]
    with pytest.raises(Corrupt, match="cannot be given again"):
        recall.replay(evolve(receipt, digest="0" * 64))
    with pytest.raises(Invalid, match="no request"):
        recall.replay(evolve(receipt, request="[]"))


def test_a_policy_says_what_would_go_and_why(store: Store, recall: Recall) -> None:
    """Expiry, age, fading and counts each name their memories; protection wins over all."""
    old = NOW - 200 * DAY
    commit(
        store,
        memory("expired", "Ended.", valid_to=NOW - DAY),
        memory("old", "Long ago.", at=old),
        memory("old-pinned", "Long ago, and pinned.", at=old, tags=frozenset({"pinned"})),
        memory("old-held", "Long ago, and held.", at=old, tags=frozenset({"held"})),
        memory("old-proof", "Long ago, and evidence.", at=old),
        memory("other", "Of another agent.", agent="scribe", at=old),
        memory("new", "Of today.", at=NOW),
    )
    commit(store, memory("because", "It follows.", source=pinned(recall, "old-proof"), at=NOW))
    before = store.view().seq
    plan = plan_forget(recall, Policy(agent="planner", older_than_days=100))
    assert store.view().seq == before
    assert [(f.link.id, f.action, f.because) for f in plan.forgotten] == [
        ("expired", "archive", "expired"),
        ("old", "archive", "too-old"),
    ]
    assert {link.id: why for link, why in plan.kept} == {
        "old-pinned": "pinned",
        "old-held": "held",
        "old-proof": "linked by memory:because",
    }
    done = apply_forget(recall, plan, actor="janitor")
    assert done.seq == before + 1
    assert not {"expired", "old"} & {m.id for m in recall.find(Memory).items}
    assert {"expired", "old"} <= {m.id for m in recall.find(Memory, archived=True).items}
    store.undo(done.seq)
    assert {"expired", "old"} <= {m.id for m in recall.find(Memory).items}


def test_the_least_important_go_first_and_never_below_the_floor(
    store: Store, recall: Recall
) -> None:
    """A count keeps the most important; fading stops at the floor."""
    commit(
        store,
        *(memory(f"m{n}", f"Fact {n}.", importance=n / 10, at=NOW - n * DAY) for n in range(10)),
    )
    plan = plan_forget(recall, Policy(count_max=4, half_life_days=1_000))
    assert {f.link.id for f in plan.forgotten} == {f"m{n}" for n in range(6)}
    assert {f.because for f in plan.forgotten} == {"too-many"}
    faded = plan_forget(recall, Policy(faded_below=0.05, half_life_days=0.5, floor=0.04))
    assert len(faded.forgotten) == 10 - sum(n / 10 * 2 ** (-n / 0.5) >= 0.05 for n in range(10))
    floored = plan_forget(recall, Policy(faded_below=0.05, half_life_days=0.5, floor=0.05))
    assert floored.forgotten == ()
    large = plan_forget(recall, Policy(bytes_max=21))
    assert len(large.forgotten) == 7


def test_what_a_limit_names_and_protection_keeps_is_told(store: Store, recall: Recall) -> None:
    """Beyond a count or a size as by any other rule; and each is told by the limit that it is
    beyond, where there are two.
    """
    commit(
        store,
        memory("held", "a" * 30, tags=frozenset({"held"})),
        memory("pinned", "b" * 30, tags=frozenset({"pinned"})),
        memory("first", "c" * 30, importance=0.9),
        memory("last", "d" * 30, importance=0.1),
    )
    plan = plan_forget(recall, Policy(count_max=1))
    assert {link.id for link, _why in plan.kept} == {"pinned"}
    assert plan.summary == "2 archive (too-many); 1 protected"
    plan = plan_forget(recall, Policy(bytes_max=10))
    assert {link.id for link, _why in plan.kept} == {"held", "pinned"}
    plan = plan_forget(recall, Policy(count_max=3, bytes_max=70))
    assert {each.link.id: each.because for each in plan.forgotten} == {
        "first": "too-large",
        "last": "too-many",
    }
    assert plan.kept == ()


def test_a_policy_is_for_any_type(store: Store, recall: Recall) -> None:
    """Receipts, which have no tags, are removed by age and number; artifacts are archived by the
    bytes of their content; holds win; what events make is refused.
    """
    commit(store, memory("a", "Releases are shipped on Tuesdays."))
    for _ in range(3):
        recall.recall("releases", agent="planner", receipt=True)
    plan = plan_forget(recall, Policy(type="receipt", count_max=1))
    assert [(each.action, each.because) for each in plan.forgotten] == [("remove", "too-many")] * 2
    done = apply_forget(recall, plan, actor="janitor")
    assert recall.count(Receipt) == 1
    assert recall.count(Memory) == 1
    assert done.seq is not None
    store.undo(done.seq)
    assert recall.count(Receipt) == 3
    assert plan_forget(recall, Policy(type="receipt", older_than_days=1)).forgotten == ()
    with cas.Workspace(store).unit_of_work("planner") as uow:
        uow.artifacts.put("long.txt", b"x" * 900)
        uow.artifacts.put("held.txt", b"x" * 900, tags=["held"])
        uow.commit()
    apply_forget(recall, plan_forget(recall, Policy(type="artifact", bytes_max=10)), actor="j")
    assert [value.id for value in recall.find(cas.Artifact).items] == ["held.txt"]
    assert recall.count(cas.Artifact, archived=True) == 2
    with pytest.raises(UnknownType):
        plan_forget(recall, Policy(type="nothing"))


def test_what_changed_since_the_plan_is_left_alone(store: Store, recall: Recall) -> None:
    """Applying skips a memory that was edited, removed or protected meanwhile, and says so."""
    ids = ("a", "b", "c", "d")
    commit(store, *(memory(id, "Ended.", valid_to=NOW - DAY) for id in ids))
    plan = plan_forget(recall, Policy())
    commit(
        store,
        memory("a", "Prolonged.", valid_to=NOW - DAY),
        memory("c", "Ended.", valid_to=NOW - DAY, tags=frozenset({"held"})),
        gone=[memory("b", "")],
    )
    done = apply_forget(recall, plan, actor="janitor")
    assert [link.id for link in done.done] == ["d"]
    assert {link.id for link in done.skipped} == {"a", "b", "c"}
    assert apply_forget(recall, plan, actor="janitor").seq is None


def test_archived_memories_are_removed_later(store: Store, recall: Recall) -> None:
    """What was archived long enough is removed, and stays in history."""
    seq = commit(store, memory("a", "Gone soon.", tags=frozenset({"archived"})))
    assert plan_forget(recall, Policy(remove_after_days=30)).forgotten == ()
    plan = plan_forget(recall, Policy(remove_after_days=0))
    assert [f.action for f in plan.forgotten] == ["remove"]
    apply_forget(recall, plan, actor="janitor")
    assert recall.count(Memory, archived=True) == 0
    assert recall.count(Memory, archived=True, as_of=seq) == 1


def test_one_memory_takes_the_place_of_several(store: Store, recall: Recall) -> None:
    """A consolidated memory names what it replaces; those leave recall but not history."""
    commit(
        store,
        memory("a", "Builds fail on Mondays.", importance=0.9, trust=Trust.TRUSTED),
        memory("b", "A build failed this Monday.", tags=frozenset({"ci"})),
    )
    links = [Link("memory", "a"), Link("memory", "b")]
    made = consolidate(recall, links, lambda group: f"{len(group)} notes: builds", actor="x")
    items = recall.recall("builds on Monday").items
    assert [item.link.id for item in items] == [made.id]
    value = items[0].value
    assert isinstance(value, Memory)
    assert (value.importance, value.trust, value.tags) == (0.9, Trust.UNVERIFIED, {"ci"})
    assert {x.target.id for x in recall.links_from(made)} == {"a", "b"}
    with pytest.raises(NotAsExpected):
        consolidate(recall, [Link("memory", "nope")], lambda group: "", actor="x")


def test_duplicates_are_told_before_they_are_written(store: Store, recall: Recall) -> None:
    """Equal and nearly equal memories are found; others are not."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    assert duplicates(recall, "Elephants never forget anything.") == []
    (same,) = duplicates(recall, "the api team prefers  small pull requests.")
    assert (same.link.id, same.exact) == ("m0", True)
    (near,) = duplicates(recall, "The API team prefers very small pull requests.")
    assert (near.link.id, near.exact) == ("m0", False)
    with Recall(store, embedder=None) as words:
        assert [d.exact for d in duplicates(words, SENTENCES[0])] == [True]


def test_duplicates_are_told_or_refused_when_they_are_written(store: Store, recall: Recall) -> None:
    """Equal and nearly equal memories of the agent, saved or noted in the same unit of work, are a
    warning, or by rule an error that names them; nothing is dropped.
    """
    space = cas.Workspace(store)
    warning, refusing = Noting(recall), Noting(recall, rule="refuse")
    with space.unit_of_work("planner") as uow:
        assert warning.note(uow, SENTENCES[0]).duplicates == ()
        first = warning.note(uow, SENTENCES[1])
        again = warning.note(uow, SENTENCES[1].upper() + " ")
        assert [(d.link.id, d.exact) for d in again.duplicates] == [(first.memory.id, True)]
        near = warning.note(uow, SENTENCES[0].replace("small", "tiny"))
        assert [d.exact for d in near.duplicates] == [False]
        refusing.note(uow, SENTENCES[2])
        with pytest.raises(AggregateExists):
            refusing.note(uow, SENTENCES[2])
        uow.commit()
    assert recall.count(Memory) == 5
    with space.unit_of_work("planner") as uow:
        with pytest.raises(AggregateExists, match="says the same") as error:
            refusing.note(uow, SENTENCES[2])
        assert error.value.fields["type"] == "memory"
        refusing.note(uow, SENTENCES[3])
        refusing.note(uow, SENTENCES[2], agent="scribe")
        assert len(warning.note(uow, SENTENCES[1]).duplicates) == 2
        uow.commit()
    assert recall.count(Memory) == 8
    with pytest.raises(Invalid, match="one of"):
        Noting(recall, rule="drop")  # type: ignore[arg-type]


def test_taint_finds_all_that_came_of_a_source_and_takes_it_back(
    store: Store, recall: Recall
) -> None:
    """What rests on a poisoned memory, at any distance, goes in one entry; receipts name who saw
    it; undo brings it back.
    """
    commit(
        store,
        memory("bad", "The door code is 0000."),
        memory("child", "Use 0000 at the door.", source=Link("memory", "bad")),
        memory("grand", "Tell visitors 0000.", source=Link("memory", "child")),
        memory("clean", "Lunch is at noon."),
    )
    recall.recall("which door code", agent="planner", receipt=True)
    plan = plan_taint(recall, source=Link("memory", "bad"))
    assert [link.id for link in plan.tainted] == ["bad", "child", "grand"]
    assert len(plan.receipts) == 1
    distrusted = apply_taint(recall, plan, actor="auditor", action="distrust")
    assert len(distrusted.done) == 3
    assert recall.recall("door code", untrusted=False).items == ()
    again = apply_taint(recall, plan, actor="auditor")
    assert len(again.skipped) == 3
    done = apply_taint(recall, plan_taint(recall, source=Link("memory", "bad")), actor="auditor")
    assert [m.id for m in recall.find(Memory).items] == ["clean"]
    assert done.seq is not None
    store.undo(done.seq)
    assert recall.count(Memory) == 4


def test_taint_of_an_agent_begins_at_a_moment(store: Store, recall: Recall) -> None:
    """Only what the agent wrote behind the moment is in doubt."""
    seq = commit(store, memory("before", "Fine.", agent="bot"))
    commit(store, memory("after", "Doubtful.", agent="bot"), memory("x", "Fine."))
    assert [link.id for link in plan_taint(recall, agent="bot", after=seq).tainted] == ["after"]
    assert len(plan_taint(recall, agent="bot").tainted) == 2
    with pytest.raises(Invalid, match="only one"):
        plan_taint(recall)
    with pytest.raises(Invalid, match="only one"):
        plan_taint(recall, agent="bot", actor="bot")
    with pytest.raises(Invalid, match="is one of"):
        apply_taint(recall, plan_taint(recall, agent="bot"), actor="x", action="burn")  # type: ignore[arg-type]


def test_what_an_actor_did_is_reverted_in_one_entry(store: Store, recall: Recall) -> None:
    """What somebody committed behind a moment, edits of what others own and what was made of it
    included, goes back to what it was, artifacts with their content; what is new goes.
    """
    space = cas.Workspace(store)
    with space.unit_of_work("alice") as uow:
        uow.memories.add(memory("fact", "The port is 443."))
        uow.memories.add(memory("plan", "Open what is needed."))
        uow.artifacts.put("guide.md", b"Use 443.")
        before = uow.commit().seq
    with space.unit_of_work("mallory") as uow:
        uow.memories.save(uow.memories.get("fact").evolve(text="The port is 23."))
        uow.artifacts.put("guide.md", b"Use 23.")
        uow.memories.add(memory("tip", "Telnet is fine."))
        uow.commit()
    with space.unit_of_work("bob") as uow:
        plan = uow.memories.get("plan")
        uow.memories.save(plan.evolve(text="Open 23.", source=Link("memory", "fact")))
        uow.memories.add(memory("other", "Lunch is at noon."))
        uow.commit()
    recall.recall("which port", receipt=True, agent="planner")
    found = plan_taint(recall, actor="mallory", after=before)
    links = [f"{link.type}:{link.id}" for link in found.tainted]
    assert links == ["artifact:guide.md", "memory:fact", "memory:plan", "memory:tip"]
    assert [link is None for link in found.clean] == [False, False, False, True]
    assert len(found.receipts) == 1
    done = apply_taint(recall, found, actor="auditor", action="revert")
    assert (len(done.done), done.skipped) == (4, ())
    texts = {value.id: value.text for value in recall.find(Memory).items}
    assert texts == {
        "fact": "The port is 443.",
        "plan": "Open what is needed.",
        "other": "Lunch is at noon.",
    }
    assert space.artifacts.read("guide.md") == b"Use 443."
    assert done.seq is not None
    store.undo(done.seq)
    assert space.artifacts.read("guide.md") == b"Use 23."
    assert len(apply_taint(recall, found, actor="auditor", action="revert").done) == 4
    assert plan_taint(recall, actor="mallory", after=store.view().seq).tainted == ()


def test_what_a_run_made_is_tainted_with_it(store: Store, recall: Recall) -> None:
    """Outputs of a run, and what was made of these, rest on it, from that run on."""
    commit(store, memory("old", "As it was."))
    commit(
        store,
        memory("old", "As the run left it."),
        memory("made", "New."),
        memory("next", "From it.", source=Link("memory", "made")),
        Run(
            id="r", agent="bot", outputs=frozenset({Link("memory", "old"), Link("memory", "made")})
        ),
    )
    found = plan_taint(recall, source=Link("run", "r"))
    assert [link.id for link in found.tainted] == ["made", "next", "old", "r"]
    apply_taint(recall, found, actor="auditor", action="revert")
    assert [(m.id, m.text) for m in recall.find(Memory).items] == [("old", "As it was.")]


@pytest.mark.parametrize("what", ["forget", "taint"])
@pytest.mark.parametrize("moment", ["looked", "staged"])
def test_what_is_changed_while_a_plan_is_applied_is_left_alone(
    store: Store, recall: Recall, monkeypatch: pytest.MonkeyPatch, what: str, moment: str
) -> None:
    """Whoever saves or holds a memory between the last look and the commit loses nothing by it."""
    commit(store, memory("a", "One.", importance=0.1), memory("b", "Two.", importance=0.2))
    space = cas.Workspace(store)
    held = iter([1])

    def hold() -> None:
        for _ in held:
            with space.unit_of_work("bob") as uow:
                old = uow.memories.get("a")
                uow.memories.save(old.evolve(text="Mine.", tags=frozenset({"held"})))
                begin_or_commit(uow)

    place, name = {"looked": (Store, "begin"), "staged": (UnitOfWork, "commit")}[moment]
    original = getattr(place, name)
    begin_or_commit = UnitOfWork.commit if moment == "looked" else original

    def late(self: Any, *arguments: Any, **named: Any) -> Any:
        hold()
        return original(self, *arguments, **named)

    plan = plan_forget(recall, Policy(count_max=0))
    doubt = plan_taint(recall, agent="planner")
    monkeypatch.setattr(place, name, late)
    if what == "forget":
        done = apply_forget(recall, plan, actor="janitor")
    else:
        done = apply_taint(recall, doubt, actor="auditor")
    assert [link.id for link in done.done] == ["b"]
    assert [link.id for link in done.skipped] == ["a"]
    kept = space.memories.get("a")
    assert (kept.text, kept.tags) == ("Mine.", frozenset({"held"}))
    if what == "taint":
        (told,) = [event for event in space.events() if event.type == "taint.removed"]
        assert told.data == {"count": 1, "links": ["memory:b"]}


def test_consolidating_what_changes_meanwhile_is_refused(store: Store, recall: Recall) -> None:
    """A summary of what memories no longer say does not take their place; the same memory named
    twice is one.
    """
    commit(store, memory("a", "One."), memory("b", "Two."))
    links = [Link("memory", "a"), Link("memory", "b")]
    space = cas.Workspace(store)

    def slow(group: Sequence[Memory]) -> str:
        with space.unit_of_work("bob") as uow:
            uow.memories.save(uow.memories.get("a").evolve(text="Something else."))
            uow.commit()
        return " ".join(each.text for each in group)

    with pytest.raises(NotAsExpected, match="memory:a was changed meanwhile"):
        consolidate(recall, links, slow, actor="janitor")
    assert [m.text for m in space.memories] == ["Something else.", "Two."]
    with pytest.raises(Invalid, match="two memories or more"):
        consolidate(recall, [links[0], links[0]], slow, actor="janitor")


def test_what_recall_writes_keeps_to_branches_and_limits(store: Store, recall: Recall) -> None:
    """A receipt makes no branch of the workspace, and no context holds more than was declared."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    space = cas.Workspace(store)
    refs = [ref.name for ref in store.view().refs("heads/")]
    with Recall(store, branch="try/none") as beside, pytest.raises(RefNotFound, match="try/none"):
        beside.recall("releases", receipt=True)
    assert [ref.name for ref in store.view().refs("heads/")] == refs
    types = frozenset({"receipt"})
    space.declare(cas.Context(id="recall", types=types, aggregate_count_max=1), "lead")
    assert recall.recall("releases", receipt=True).receipt is not None
    with pytest.raises(LimitExceeded, match="hold 2 aggregates"):
        recall.recall("invoices", receipt=True)


@pytest.mark.parametrize("kinds", ["fact", ["fact"], (1,), None])
def test_kinds_of_a_policy_are_a_tuple(kinds: Any) -> None:
    """One text would name every kind that is a piece of it, the empty one included."""
    with pytest.raises(Invalid, match="kinds are a tuple of texts"):
        Policy(kinds=kinds)


def test_a_text_without_words_is_found_again(store: Store, recall: Recall) -> None:
    """Marks alone, which no index knows, among many that are newer."""
    commit(store, memory("marks", "\U0001f389\U0001f389"))
    commit(store, *(memory(f"m{n}", f"Fact {n}.") for n in range(60)))
    assert [each.link.id for each in duplicates(recall, " \U0001f389\U0001f389")] == ["marks"]
    assert duplicates(recall, "\U0001f389") == []
