"""Recall: what is given, what is left out and why, budgets, pins, states of the past."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import BeforeHorizon, EntryNotFound, Invalid, Unsupported
from cas.history.store import Store
from cas.recall.recall import Recall
from cas.recall.score import Scoring
from cas.recall.tokens import estimate_tokens
from cas.recall.where import field
from cas.workspace.links import Link
from cas.workspace.memories import Trust
from tests.unit.history.test_horizon import thin
from tests.unit.recall.kit import SENTENCES, commit, memory


def fill(store: Store) -> None:
    """Eight memories about different things."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))


def test_a_question_finds_what_answers_it_in_other_words(store: Store, recall: Recall) -> None:
    """A paraphrase and a question with the words themselves both find the memory first."""
    fill(store)
    assert recall.recall("shipping a new version").items[0].link.id == "m1"
    assert recall.recall("radiator cat").items[0].link.id == "m5"
    assert recall.recall("who looks at payment changes").items[0].link.id == "m3"


def test_a_handle_sees_its_own_last_commit(store: Store, recall: Recall) -> None:
    """What was committed is recalled by the next question, replaced and removed ones no more."""
    fill(store)
    assert [i.link.id for i in recall.recall("invoices", budget_tokens=40).items] == ["m7"]
    commit(store, memory("m7", "Bills go out weekly."), gone=[memory("m1", SENTENCES[1])])
    texts = [item.text for item in recall.recall("invoices and releases").items]
    assert "Bills go out weekly." in texts
    assert SENTENCES[7] not in texts
    assert SENTENCES[1] not in texts


def test_the_answer_fits_the_budget_and_names_what_did_not(store: Store, recall: Recall) -> None:
    """Tokens stay below the budget less its margin; each memory is given or told as left out."""
    fill(store)
    for budget in (0, 3, 20, 50, 100, 2_000):
        found = recall.recall("the branch of the team", budget_tokens=budget)
        assert estimate_tokens(found.text) <= max(found.tokens, 1) <= max(budget * 0.95, 1)
        given = {item.link.id for item in found.items}
        left = {each.link.id for each in found.left_out}
        assert given | left == {f"m{n}" for n in range(len(SENTENCES))}
        assert not given & left
        assert sum(found.counts.values()) == len(left)
    assert recall.recall("the branch", budget_tokens=3).items == ()


def test_a_counter_of_the_caller_counts(store: Store) -> None:
    """With an own counter the budget is in its units."""
    fill(store)
    with Recall(store, counter=len) as recall:
        found = recall.recall("main branch", budget_tokens=200)
        assert 0 < len(found.text) <= 190


def test_pinned_comes_first_and_is_never_left_out(store: Store, recall: Recall) -> None:
    """What is pinned is given whatever fits better; more than the budget takes is an error."""
    fill(store)
    pins = [Link("memory", "m5"), memory("m6", "")]
    found = recall.recall("when are releases shipped", pinned=pins, budget_tokens=60)
    assert [item.link.id for item in found.items][:2] == ["m5", "m6"]
    assert [item.pinned for item in found.items][:2] == [True, True]
    with pytest.raises(Invalid, match="pin less"):
        recall.recall("x", pinned=pins, budget_tokens=20)
    with pytest.raises(Invalid, match="there is none"):
        recall.recall("x", pinned=[Link("memory", "m99")])


def test_near_duplicates_are_one(store: Store, recall: Recall) -> None:
    """Of memories that say the same one is given, which names the others."""
    fill(store)
    commit(store, memory("twin", "Releases are shipped on Tuesdays, from the main branch!"))
    found = recall.recall("when are releases shipped")
    same = [item for item in found.items if item.link.id in ("m1", "twin")]
    assert len(same) == 1
    assert {link.id for link in same[0].folded} | {same[0].link.id} == {"m1", "twin"}
    assert found.counts["alike"] == 1


def test_what_no_longer_holds_is_left_out_and_counted(store: Store, recall: Recall) -> None:
    """Archived, expired, not yet valid, superseded, and on request untrusted memories are kept
    back, each under its name.
    """
    now = datetime.now(UTC)
    day = timedelta(days=1)
    commit(
        store,
        memory("old", "The office opens at eight.", valid_to=now - day),
        memory("soon", "The office opens at seven.", valid_from=now + day),
        memory("kept", "The office opens at nine.", tags=frozenset({"archived"})),
        memory("was", "The office opens at ten."),
        memory("is", "Offices begin work at 9:30", supersedes=frozenset({Link("memory", "was")})),
        memory("said", "Some say the office never opens.", trust=Trust.UNTRUSTED),
    )
    found = recall.recall("when does the office open", untrusted=False)
    assert [item.link.id for item in found.items] == ["is"]
    assert dict(found.counts) == {
        "archived": 1,
        "expired": 1,
        "not-yet": 1,
        "superseded": 1,
        "untrusted": 1,
    }
    more = recall.recall("when does the office open", archived=True)
    assert {item.link.id for item in more.items} == {"is", "kept", "said"}


def test_filters_apply_before_ranking(store: Store, recall: Recall) -> None:
    """An agent and a condition leave only what fits them, however well the rest would rank."""
    fill(store)
    commit(
        store,
        memory("s1", "Releases are shipped on Tuesdays.", agent="scribe"),
        memory("s2", "Lunch is at noon.", agent="scribe", tags=frozenset({"food"})),
    )
    ids = [item.link.id for item in recall.recall("releases", agent="scribe").items]
    assert ids[0] == "s1"
    assert set(ids) <= {"s1", "s2"}
    tagged = recall.recall("releases", where={"tags": "food"}, scoring=Scoring(floor=0))
    assert [item.link.id for item in tagged.items] == ["s2"]
    none = recall.recall("releases", where=field("importance") > 0.9)
    assert none.items == ()
    with pytest.raises(Invalid, match="no searchable field 'colour'"):
        recall.recall("releases", where={"colour": "red"})


def test_feedback_weighs_from_its_entry_on(store: Store, recall: Recall) -> None:
    """What was called helpful rises, what was called wrong does not, and earlier states stay."""
    fill(store)
    before = recall.recall("main branch")
    seq = recall.feedback([Link("memory", "m1")], "helpful", agent="planner")
    after = recall.recall("main branch")
    assert after.items[0].score > before.items[0].score
    assert recall.recall("main branch", as_of=seq - 1).digest == before.digest
    with pytest.raises(Invalid, match="used, helpful, wrong"):
        recall.feedback([Link("memory", "m1")], "fine", agent="planner")  # type: ignore[arg-type]


def test_an_answer_is_given_again_bit_for_bit(store: Store, recall: Recall) -> None:
    """A request replayed later, by another handle with a new index, gives the same answer."""
    fill(store)
    first = recall.recall("who reviews payments", agent="planner", budget_tokens=120)
    commit(store, memory("m3", "Nobody does."), memory("x", "Payments are reviewed by Bob."))
    assert recall.replay(first.request).digest == first.digest
    recall.projection.rebuild()
    assert recall.replay(first.request) == first
    with Recall(store, embedder=None) as other, pytest.raises(Unsupported, match="embedder"):
        other.replay(first.request)


WORDS = ("release", "branch", "payment", "token", "office", "backup")
texts = st.lists(st.sampled_from(WORDS), max_size=4)
steps = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"), st.none() | st.lists(st.sampled_from(WORDS), max_size=4)
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda step: step[0],
    ),
    min_size=1,
    max_size=6,
)


@given(steps, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), st.data())
def test_a_state_of_the_past_answers_as_a_store_that_stopped_there(
    history: list[list[tuple[str, list[str] | None]]], query: list[str], data: st.DataObject
) -> None:
    """Recall, queries and counts as of an entry equal those of a store that ended with it."""
    stop = data.draw(st.integers(1, len(history)))
    text = " ".join(query)
    with cas.open(":memory:") as whole, cas.open(":memory:") as part:
        for store in (whole, part):
            commit(store, memory("z", "first"))
        with Recall(whole) as all_of_it, Recall(part) as half:
            there: set[str] = set()
            seqs = []
            for number, step in enumerate(history, 1):
                changed = [memory(id, " ".join(words)) for id, words in step if words is not None]
                gone = [memory(id, "") for id, words in step if words is None and id in there]
                there = (there | {m.id for m in changed}) - {m.id for m in gone}
                seqs.append(commit(whole, *changed, gone=gone))
                if number <= stop:
                    commit(part, *changed, gone=gone)
            seq = seqs[stop - 1]
            # The two were written at other times.
            how = Scoring(recency=0)
            then = all_of_it.recall(text, as_of=seq, scoring=how)
            now = half.recall(text, scoring=how)
            assert [(i.link, i.parts.text, i.parts.meaning) for i in then.items] == [
                (i.link, i.parts.text, i.parts.meaning) for i in now.items
            ]
            assert [(e.link, e.reason) for e in then.left_out] == [
                (e.link, e.reason) for e in now.left_out
            ]
            for match in ("", text):
                assert all_of_it.count(cas_memory(), match=match, as_of=seq) == half.count(
                    cas_memory(), match=match
                )


def cas_memory() -> type:
    """The class of memories."""
    return type(memory("x", ""))


def test_a_revision_stands_for_the_entry_that_made_its_commit(store: Store, recall: Recall) -> None:
    """A tag, a branch and a step back name the state in which their commit was new."""
    first = commit(store, memory("a", "Releases are shipped on Tuesdays."))
    with store.begin(author="test") as tx:
        tx.tag("v1", store.resolve("memory/main"))
        tx.commit()
    last = commit(store, memory("b", "Releases are shipped on Fridays."))
    for name, seq in (("v1", first), ("memory/main~1", first), ("memory/main", last)):
        assert recall.recall("releases", as_of=name).seq == seq
        assert recall.find(cas_memory(), as_of=name).seq == seq
        assert recall.position(name) == seq


def test_a_state_that_there_is_not_is_an_error(store: Store, recall: Recall) -> None:
    """An entry to come is not found, one behind the horizon is gone, nonsense is invalid."""
    fill(store)
    with pytest.raises(EntryNotFound):
        recall.recall("x", as_of=99)
    with pytest.raises(Invalid, match="no moment"):
        recall.recall("x", as_of="yesterday")
    commit(store, memory("z", "later"))
    seq = store.view().seq
    thin(store, seq)
    with pytest.raises(BeforeHorizon):
        recall.recall("x", as_of=1)
    assert recall.recall("later", as_of=seq).items[0].link.id == "z"


def test_a_row_that_was_dropped_gives_its_number_to_nobody(store: Store, recall: Recall) -> None:
    """What comes after the newest row was given up is found by a handle that had read that row."""
    gone = memory("gone", "A word that is forgotten.")
    commit(store, memory("stays", "A word that stays."), gone)
    assert len(recall.recall("word").items) == 2
    commit(store, gone=[gone])
    thin(store, store.view().seq)
    recall.follow()
    commit(store, memory("late", "A word that came late."))
    assert {item.link.id for item in recall.recall("word").items} == {"stays", "late"}


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_are_a_query(query: bytes | str) -> None:
    """No query is a syntax error: it finds something or nothing."""
    recall = _shared()
    for found in (recall.recall(query), recall.find(cas_memory(), match=query)):
        assert len(found.items) <= len(SENTENCES)


_SHARED: list[Recall] = []


def _shared() -> Recall:
    if not _SHARED:
        store = cas.open(":memory:")
        fill(store)
        _SHARED.append(Recall(store))
    return _SHARED[0]


def test_many_memories_are_ranked_by_bits_as_exactly_enough(
    store: Store, recall: Recall, rng: random.Random
) -> None:
    """Where too many are there to compare all, the nearest are still found."""
    words = [*WORDS, "alpha", "beta", "gamma", "delta", "cat", "radiator"]
    commit(
        store,
        *(memory(f"n{n}", f"{' '.join(rng.choices(words, k=6))} {n}") for n in range(4_300)),
        memory("needle", "Elephants paint watercolours in the evening."),
    )
    found = recall.recall("watercolours elephants paint at evening", scoring=Scoring(text=0))
    assert found.items[0].link.id == "needle"


def test_a_row_with_all_words_comes_before_one_that_repeats_a_rare_one(
    store: Store, recall: Recall
) -> None:
    """How much of the query a row has counts, not only how rare and frequent its words are."""
    commit(store, *(memory(f"d{n}", f"deploy number {n} of the app on time") for n in range(10)))
    commit(store, *(memory(f"s{n}", f"service number {n} of the old app") for n in range(10)))
    commit(store, memory("rare", "rollback rollback rollback rollback rollback rollback"))
    commit(store, memory("whole", "deploy of the service: a rollback needs the key of the vault"))
    words = Scoring(meaning=0, recency=0, importance=0, links=0, diversity=0)
    found = recall.recall("service deploy rollback", scoring=words)
    assert found.items[0].link.id == "whole"


def test_meaning_breaks_the_tie_of_words(store: Store, recall: Recall) -> None:
    """Of rows that have all words of the query the one that is nearer in meaning comes first; of
    rows that have none meaning alone decides.
    """
    commit(
        store,
        memory("river", "A bank of the Thames is wet and green with moss."),
        memory("money", "A bank of the town lends cash and charges interest."),
    )
    for query in ("bank", "bank loans and credit", "borrow from a lender"):
        alone = recall.recall(query, scoring=Scoring(text=0, floor=0))
        both = recall.recall(query, scoring=Scoring(floor=0))
        assert both.items[0].link == alone.items[0].link
    assert recall.recall("green bank").items[0].link.id == "river"


@pytest.mark.parametrize("candidates", [0, -1, 1.5, True, "9", None])
def test_candidates_are_a_whole_number(candidates: Any) -> None:
    """Told when the scoring is made, and not by numpy when it is used."""
    with pytest.raises(Invalid, match="candidates is a whole number from 1 on"):
        Scoring(candidates=candidates)


def test_a_receipt_of_another_scoring_is_not_replayed() -> None:
    """The numbers of a scoring mean what their version says; another version is told."""
    plain = Scoring().plain
    assert Scoring.of_plain(plain) == Scoring()
    with pytest.raises(Invalid, match="another version of scoring"):
        Scoring.of_plain([1, *plain[1:]])


def test_words_that_were_read_before_change_no_answer(store: Store, recall: Recall) -> None:
    """A question reads the rows of its own words, forms of a word as one, and of no others; each
    answer is that of a handle that was asked nothing before.
    """
    fill(store)
    for question in ["requests of the team", "a request", "pull requests"]:
        with Recall(store) as cold:
            assert recall.recall(question) == cold.recall(question)
    remembered = recall._engine.arena._remembered
    assert ("text", "request") in remembered
    assert len(remembered) == len(["request", "team", "pull"])
    commit(store, memory("late", "A late request of the team."))
    assert "late" in [item.link.id for item in recall.recall("request").items]
