"""Queries: conditions, orders, pages that neither skip nor repeat, counts, facets, links."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import Invalid, UnknownType
from cas.history.store import Store
from cas.recall import find
from cas.recall.forget import Policy
from cas.recall.recall import Recall
from cas.recall.score import Scoring
from cas.recall.taint import plan_taint
from cas.recall.upkeep import plan_forget
from cas.recall.where import (
    All,
    Any_,
    Compare,
    Condition,
    Linked,
    Not,
    field,
    linked_from,
    of_text,
    to_text,
)
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate
from tests.unit.recall.kit import commit, memory

AGENTS = ("planner", "scribe", "tester")
_EVERY = Scoring(floor=0, alike=2, links=0)


def some(rng: random.Random, count: int) -> list[Memory]:
    """Memories whose fields have few values each."""
    return [
        memory(
            f"m{n:03}",
            f"text {rng.randrange(5)}",
            agent=rng.choice(AGENTS),
            importance=rng.choice([0.0, 0.25, 0.5, 1.0]),
            tags=frozenset(rng.sample(["x", "y", "z"], rng.randrange(3))),
            at=rng.choice([None, datetime(2026, 1, 1 + rng.randrange(9), tzinfo=UTC)]),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("order", [None, "-id", "time", "-time", "importance", "-importance", "at"])
def test_pages_together_are_all_in_order(
    store: Store, recall: Recall, rng: random.Random, order: str | None
) -> None:
    """Whatever the order and the size of pages, they give each row once, and those without a
    value last, although others write meanwhile.
    """
    every = some(rng, 60)
    commit(store, *every)
    found: list[Memory] = []
    cursor = None
    while True:
        page = recall.find(Memory, order=order, limit=7, after=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            break
        commit(store, memory(f"a{len(found)}", "new"), gone=[every[len(found)]])
    assert sorted(m.id for m in found) == [m.id for m in every]
    key = (order or "id").lstrip("-")
    if key == "time":
        return
    values = [getattr(m, key) for m in found]
    there = [value for value in values if value is not None]
    assert values == there + [None] * (len(values) - len(there))
    assert there == sorted(there, reverse=(order or "").startswith("-"))


@pytest.mark.parametrize("few", [0, 5, 1_500])
@pytest.mark.parametrize("order", [None, "-id", "time", "-time", "importance", "-at"])
def test_every_way_to_a_page_finds_the_same(
    store: Store,
    recall: Recall,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    order: str | None,
    few: int,
) -> None:
    """Begun with a value, a set, a match or none, sorted or walked: the pages are those of the
    rows that fit, in one order, versions of the past left out.
    """
    monkeypatch.setattr(find, "FEW_ROWS", few)
    commit(store, *some(rng, 50))
    every = [*some(rng, 40), memory("rare", "text 1", agent="once")]
    commit(store, *every)
    now = {m.id: m for m in recall.find(Memory, limit=100).items}
    assert [now[m.id] for m in every] == every
    whole = [m.id for m in recall.find(Memory, order=order, limit=100).items]
    cases: tuple[tuple[Any, str, Callable[[Memory], object]], ...] = (
        ({"agent": "once"}, "", lambda m: m.agent == "once"),
        ({"agent": "planner"}, "", lambda m: m.agent == "planner"),
        ({"agent": ["planner", "scribe"]}, "", lambda m: m.agent < "t" and m.agent != "once"),
        ({"tags": ["x", "y"]}, "", lambda m: m.tags & {"x", "y"}),
        ({"agent": "planner"}, "1", lambda m: m.agent[0] == "p" and m.text == "text 1"),
        (None, "text 1", lambda m: m.text == "text 1"),
        (None, "2 text", lambda m: m.text == "text 2"),
        ({"agent": "nobody"}, "text", lambda m: False),
    )
    for where, match, holds in cases:
        expected = [id for id in whole if holds(now[id])]
        found: list[str] = []
        cursor = None
        while True:
            page = recall.find(Memory, where, order=order, match=match, limit=6, after=cursor)
            found += [m.id for m in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == expected
        assert recall.count(Memory, where, match=match) == len(expected)


def test_a_page_of_a_known_state_asks_nothing_of_the_journal(
    store: Store, recall: Recall, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page, and a state that the index has seen, cost no replay of entries."""
    first = commit(store, *some(rng, 10))
    commit(store, memory("later", "x"))
    page = recall.find(Memory, limit=4)

    def at(*_: object, **__: object) -> None:
        raise AssertionError("a part of the journal was replayed")

    monkeypatch.setattr(store, "at", at)
    assert len(recall.find(Memory, limit=4, after=page.cursor).items) == 4
    assert recall.count(Memory, as_of=first) == 10


def test_conditions_find_what_python_would(
    store: Store, recall: Recall, rng: random.Random
) -> None:
    """And, or, not, ranges, sets, prefixes and tags find the rows that satisfy them."""
    every = some(rng, 80)
    commit(store, *every)
    day = datetime(2026, 1, 5, tzinfo=UTC)
    x, yz = field("tags").has("x"), field("tags").one_of("y", "z")
    low, scribe = field("importance") == 0, field("agent").begins("s")
    cases: tuple[tuple[Any, Callable[[Memory], object]], ...] = (
        ({"agent": "planner"}, lambda m: m.agent == "planner"),
        (
            {"agent": ["planner", "scribe"]} | {"tags": "x"},
            lambda m: m.agent < "t" and "x" in m.tags,
        ),
        (field("importance") >= 0.5, lambda m: m.importance >= 0.5),
        (field("at") < day, lambda m: m.at is not None and m.at < day),
        (~(field("at") < day), lambda m: m.at is None or m.at >= day),
        (scribe | low, lambda m: m.agent == "scribe" or m.importance == 0),
        (yz & (field("agent") != "planner"), lambda m: m.tags & {"y", "z"} and m.agent > "q"),
        (~x & ~yz, lambda m: not m.tags),
        (field("at").is_set(), lambda m: m.at is not None),
        (field("id") > "m070", lambda m: m.id > "m070"),
    )
    for where, holds in cases:
        expected = [m.id for m in every if holds(m)]
        for order in (None, "importance"):
            page = recall.find(Memory, where, order=order, limit=100)
            assert sorted(m.id for m in page.items) == expected
        assert recall.count(Memory, where) == len(expected)
        given = recall.recall("text", where=where, budget_tokens=100_000, types=[Memory])
        names = {i.link.id for i in given.items} | {i.link.id for i in given.left_out}
        names |= {link.id for i in given.items for link in i.folded}
        assert names <= set(expected)


values = st.integers(-5, 5) | st.text(max_size=3) | st.floats(allow_nan=False, allow_infinity=False)
compares: st.SearchStrategy[Condition] = st.builds(
    Compare, st.sampled_from(["agent", "at"]), st.sampled_from(["=", "<", ">="]), values
)
conditions = st.recursive(
    compares,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Linked, st.just("source"), st.just("memory"), inner, st.booleans())
        | st.builds(All, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Any_, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@given(conditions)
def test_a_condition_comes_back_from_a_receipt(condition: Condition) -> None:
    """A condition is the same after it was written down and read."""
    assert of_text(to_text(condition)) == condition


PREFIXES = ("a", "a\U0010ffff", "\U0010ffff", "\ud7ff", "")


@pytest.mark.parametrize("name", ["id", "kind"])
def test_what_begins_so_is_found_whatever_follows(store: Store, recall: Recall, name: str) -> None:
    """Prefixes before the last character that there is, and at the gap; also what begins otherwise,
    and what is one of none, of ids as of fields.
    """
    texts = ["a", "ab", "a\U0010fffe", "a\U0010fffez", "b", "\ud7ffz", "\ue000", "\U0010fffe"]
    if name == "kind":
        texts += ["a\U0010ffff", "a\U0010ffffz", "\U0010ffff\U0010ffff", ""]
        every = [memory(f"m{n}", "A text.", kind=text) for n, text in enumerate(texts)]
    else:
        texts = [text for text in texts if text.isprintable()]
        every = [memory(text, "A text.") for text in texts]
    commit(store, *every)
    scoring, room = Scoring(floor=0, alike=2, links=0, candidates=1_000), 10**6
    asked = [(~field(name).one_of(), texts), (field(name).one_of(), [])]
    for prefix in PREFIXES:
        begins = [text for text in texts if text.startswith(prefix)]
        others = [text for text in texts if not text.startswith(prefix)]
        asked += [(field(name).begins(prefix), begins), (~field(name).begins(prefix), others)]
    for condition, found in asked:
        wanted = sorted(found)
        page = recall.find(Memory, condition)
        assert sorted(getattr(m, name) for m in page.items) == wanted, condition
        assert recall.count(Memory, condition) == len(wanted)
        ranked = recall.recall("", where=condition, budget_tokens=room, scoring=scoring)
        values = [item.value for item in ranked.items]
        assert sorted(getattr(value, name) for value in values) == wanted, condition


def test_a_number_is_not_compared_with_a_text(store: Store, recall: Recall) -> None:
    """Every number would be less than it, and none equal."""
    commit(store, memory("m1", "A text.", at=datetime(2026, 1, 1, tzinfo=UTC)))
    for condition in (field("importance") < "1", field("at") == "2026", field("at").begins("2")):
        with pytest.raises(Invalid, match=r"is compared with a (number|time), not '"):
            recall.count(Memory, condition)
        with pytest.raises(Invalid, match=r"is compared with a (number|time), not '"):
            recall.recall("text", where=condition)
    with pytest.raises(Invalid, match="there are: id, agents, "):
        recall.recall("text", types=(cas.Sprint,), agent="planner")
    with pytest.raises(Invalid, match="An order is text"):
        recall.find(Memory, order=5)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="no order by '-id'"):
        recall.find(Memory, order="--id")


def test_counts_and_facets_are_of_one_state(store: Store, recall: Recall) -> None:
    """Facets count each value, most frequent first, in the state that is asked about."""
    seq = commit(store, memory("a", "x"), memory("b", "x"), memory("c", "x", agent="scribe"))
    commit(store, memory("d", "x", agent="scribe"), memory("e", "x", agent="scribe"))
    assert recall.facets(Memory, "agent") == [("scribe", 3), ("planner", 2)]
    assert recall.facets(Memory, "agent", as_of=seq) == [("planner", 2), ("scribe", 1)]
    assert recall.facets(Memory, "agent", where={"id": ["a", "e"]}, limit=1) == [("planner", 1)]


def test_archived_ones_are_found_when_asked_for(store: Store, recall: Recall) -> None:
    """What is archived is in no page unless it is asked for."""
    commit(store, memory("a", "x"), memory("b", "x", tags=frozenset({"archived"})))
    assert [m.id for m in recall.find(Memory).items] == ["a"]
    assert [m.id for m in recall.find(Memory, archived=True).items] == ["a", "b"]


def test_words_phrases_and_prefixes_match(store: Store, recall: Recall) -> None:
    """Words match in any order and form, a phrase as it stands, a prefix what begins so."""
    commit(
        store,
        memory("a", "small pull requests"),
        memory("b", "requests that pull the small cart"),
        memory("c", "pulley"),
    )

    def ids(match: str) -> list[str]:
        return [m.id for m in recall.find(Memory, match=match).items]

    assert ids("request pulling") == ["a", "b"]
    assert ids('"pull requests"') == ["a"]
    assert ids("pull*") == ["a", "b", "c"]
    assert ids("the") == ["b"]
    assert ids('"; DROP TABLE item; --') == []


def test_snippets_show_where_the_words_stand(store: Store, recall: Recall) -> None:
    """A snippet marks the words, forms of them, phrases and prefixes; a text without them begins
    at its beginning.
    """
    long = " ".join(f"filler{n}" for n in range(300))
    commit(
        store,
        memory("a", f"{long} the releases were shipped late {long}"),
        memory("b", "Small pull requests; a pull is not a request."),
        memory("c", "é " * 30),
        memory("d", ""),
    )
    items = recall.find(Memory).items
    shipped = recall.snippets(items, "release shipping", words=7)
    assert "[releases] were [shipped]" in shipped[0]
    assert len(shipped[0].split()) <= 8
    assert shipped[1] == "Small pull requests; a pull is not…"
    assert shipped[2:] == ["é " * 6 + "é…", ""]
    found = recall.snippets(items[1:2], '"pull requests" requ*', marks=("<", ">"))
    assert found == ["Small <pull requests>; a pull is not a <request>."]
    assert recall.snippets(items[1:2], '"; DROP TABLE item; --') == [items[1].text]
    assert recall.snippets([], "x") == []
    with pytest.raises(Invalid, match="from 1 to 64"):
        recall.snippets(items, "x", words=65)


def test_a_foreign_cursor_is_refused(store: Store, recall: Recall) -> None:
    """A cursor of another query or store, or no cursor at all, is a typed error."""
    commit(store, *(memory(f"m{n}", "x") for n in range(5)))
    cursor = recall.find(Memory, limit=2).cursor
    assert cursor is not None
    for wrong in ("", "abc", "é", cursor[:-4], "AAAA" + cursor):
        with pytest.raises(Invalid, match="no cursor"):
            recall.find(Memory, after=wrong)
    with pytest.raises(Invalid, match="another query"):
        recall.find(Memory, {"agent": "planner"}, after=cursor)
    with cas.open(":memory:") as other, Recall(other) as elsewhere:
        commit(other, memory("m", "x"))
        with pytest.raises(Invalid, match="another store"):
            elsewhere.find(Memory, limit=2, after=cursor)


def test_requests_that_make_no_sense_are_told(recall: Recall) -> None:
    """Unknown fields, orders, sizes and values are typed errors that name what there is."""
    for ask in (
        lambda: recall.find(Memory, {"colour": 1}),
        lambda: recall.find(Memory, order="text"),
        lambda: recall.find(Memory, limit=0),
        lambda: recall.find(Memory, {"agent": object()}),
        lambda: recall.find(Memory, "agent"),
        lambda: recall.find(Memory, {"at": datetime(2026, 1, 1)}),
        lambda: recall.facets(Memory, "text"),
    ):
        with pytest.raises(Invalid):
            ask()


def test_a_rare_value_is_looked_up_and_a_frequent_one_walked(
    store: Store, recall: Recall, rng: random.Random
) -> None:
    """`explain` tells which index a query begins with."""
    commit(store, *some(rng, 20))
    assert any("sorted" in line for line in recall.explain(Memory, {"tags": "x"}, order="at"))
    assert any("walk in order of at" in line for line in recall.explain(Memory, order="at"))


def test_links_lead_both_ways_and_onwards(store: Store, recall: Recall) -> None:
    """Direct and further links are found from both ends, in the state that is asked about."""
    a = memory("a", "root")
    b = memory("b", "from a", source=a.link)
    c = memory("c", "from b", source=b.link, supersedes=frozenset({Link("memory", "gone")}))
    seq = commit(store, a, b, c)
    commit(store, memory("b", "alone now"))
    assert [(x.target.id, x.field, x.missing) for x in recall.links_from(c)] == [
        ("b", "source", False),
        ("gone", "supersedes", True),
    ]
    assert [x.source.id for x in recall.links_to(a, depth=5)] == []
    then = recall.links_to(a, depth=5, as_of=seq)
    assert [(x.source.id, x.depth) for x in then] == [("b", 1), ("c", 2)]


def test_a_condition_follows_links_both_ways(store: Store, recall: Recall) -> None:
    """What a link leads to, and what links here, is asked for as it is in the state: by `find`, and
    by `recall` before anything is ranked; a chain of links too.
    """
    report = memory("report", "The audit", kind="report", importance=0.9)
    seq = commit(
        store,
        report,
        memory("draft", "A draft", kind="draft"),
        memory("a", "Releases are audited", source=report.link),
        memory("b", "Releases are drafted", source=Link("memory", "draft")),
        memory("c", "Releases are told", source=Link("memory", "a")),
        memory("d", "Releases are lost", source=Link("memory", "nowhere")),
    )
    rested = field("source").leads_to(Memory, field("kind") == "report")

    def ids(where: object, **how: Any) -> list[str]:
        found = [value.id for value in recall.find(Memory, where, **how).items]
        answer = recall.recall("releases are audited", where=where, scoring=_EVERY, **how)
        assert sorted(item.link.id for item in answer.items) == found
        assert recall.replay(answer.request) == answer
        return found

    assert ids(rested) == ["a"]
    assert ids(~rested) == ["b", "c", "d", "draft", "report"]
    assert ids(field("source").leads_to("memory")) == ["a", "b", "c"]
    assert ids(field("source").leads_to(Memory, rested)) == ["c"]
    assert ids(linked_from(Memory, "source")) == ["a", "draft", "report"]
    assert ids(linked_from(Memory, "source", {"id": "b"}) | rested) == ["a", "draft"]
    commit(store, memory("report", "The audit", kind="draft"))
    assert ids(rested) == []
    assert ids(rested, as_of=seq) == ["a"]
    assert recall.facets(Memory, "kind", field("source").leads_to(Memory)) == [("note", 3)]
    with pytest.raises(Invalid, match="no searchable field"):
        recall.find(Memory, field("text").leads_to(Memory))
    with pytest.raises(Invalid, match="no searchable field"):
        recall.recall("x", where=linked_from(Memory, "text"))
    with pytest.raises(UnknownType):
        field("source").leads_to("nothing")


@aggregate("machine", collection="machines", context="memory")
class Machine(Aggregate):
    """Something with a map."""

    data: dict[str, Any] = part(factory=dict, searchable="keyword")
    is_on: bool = part(default=False, searchable="keyword")


def test_a_place_in_a_map_is_a_field(store: Store, recall: Recall) -> None:
    """Values in a field that is a map are compared, ordered by and counted under their path."""
    commit(
        store,
        Machine(id="a", data={"env": {"name": "staging", "cores": 4}, "tags": ["x", "y"]}),
        Machine(id="b", data={"env": {"name": "live", "cores": 16}, "is_old": True}),
        Machine(id="c", data={}),
    )

    def ids(where: object = None, **how: Any) -> list[str]:
        return [value.id for value in recall.find(Machine, where, **how).items]

    assert ids(field("data.env.name") == "staging") == ["a"]
    assert ids(field("data.env.cores") > 4) == ["b"]
    assert ids(field("data.env.name").begins("l") | field("data.tags").has("y")) == ["a", "b"]
    assert ids({"data.is_old": True}) == ["b"]
    assert (ids({"is_on": False}), ids({"is_on": True})) == (["a", "b", "c"], [])
    assert ids(~field("data.env.name").is_set()) == ["c"]
    assert ids(field("data.nowhere") == 1) == []
    assert ids(order="-data.env.cores") == ["b", "a", "c"]
    assert recall.facets(Machine, "data.env.name") == [("live", 1), ("staging", 1)]
    commit(store, Machine(id="c", data={"new": {"key": 1}}))
    assert ids(field("data.new.key") == 1) == ["c"]
    (found,) = recall.recall("", types=[Machine], where={"data.env.cores": 4}).items
    assert found.link.id == "a"
    with pytest.raises(Invalid, match="no searchable field"):
        recall.find(Machine, field("nowhere.key") == 1)


def test_a_pinned_link_goes_stale_and_what_rests_on_it_too(store: Store, recall: Recall) -> None:
    """A link to a version is stale when its target moved on; so is what rests on its source."""
    commit(store, memory("fact", "The port is 80."))
    (row,) = recall.find(Memory).items
    pin = recall.projection.read(lambda db: db.rows("SELECT blob FROM @item"))[0][0]
    pinned = Link("memory", row.id, cas.BlobId(pin))
    seq = commit(
        store,
        memory("note", "Open port 80.", source=pinned),
        memory("plan", "Do what the note says.", source=Link("memory", "note")),
    )
    assert recall.stale() == []
    commit(store, memory("fact", "The port is 443."))
    assert [(s.link.id, s.depth, s.because.target.id) for s in recall.stale()] == [
        ("note", 1, "fact"),
        ("plan", 2, "fact"),
    ]
    assert recall.stale(as_of=seq) == []
    assert [x.stale for x in recall.links_from(Link("memory", "note"))] == [True]


@attrs.frozen
class Proof:
    """Part of an aggregate that has a link, and two texts that look like one."""

    says: str
    link: Link | None = None
    words: tuple[str, ...] = ("memory", "m1")


@aggregate("claim", context="claims")
class Claim(Aggregate):
    """An aggregate whose links lie deeper than in its fields."""

    one: Proof | None = part(default=None)
    many: tuple[Proof, ...] = part(default=())
    named: Mapping[str, Link] = part(factory=dict)
    lists: Mapping[str, frozenset[Link]] = part(factory=dict)
    words: tuple[str, ...] = part(default=("memory", "m1"))


def test_links_are_found_at_any_depth(store: Store, recall: Recall) -> None:
    """What rests on a memory by a link inside a field is tainted, stale and protects as any other;
    two texts are no link.
    """
    commit(store, memory("m1", "It is so."))
    (item,) = recall.recall("so").items
    commit(
        store,
        Claim(id="c0"),
        Claim(id="c1", one=Proof("it", item.link)),
        Claim(id="c2", many=(Proof("it"), Proof("it", item.link))),
        Claim(id="c3", named={"why": item.link}),
        Claim(id="c4", lists={"none": frozenset(), "some": frozenset({item.link})}),
    )
    found = [(one.source.id, one.field) for one in recall.links_to(item.link)]
    assert found == [("c1", "one"), ("c2", "many"), ("c3", "named"), ("c4", "lists")]
    assert [one.target for one in recall.links_from(Link("claim", "c4"))] == [item.link]
    doubt = plan_taint(recall, source=item.link)
    assert [link.id for link in doubt.tainted] == ["c1", "c2", "c3", "c4", "m1"]
    assert plan_forget(recall, Policy(count_max=0)).forgotten == ()
    commit(store, memory("m1", "It is not so."))
    assert {one.link.id for one in recall.stale()} == {"c1", "c2", "c3", "c4"}


def test_of_two_links_to_one_aggregate_the_pinned_one_counts(store: Store, recall: Recall) -> None:
    """Evidence is protected, and goes stale, whatever else leads there."""
    commit(store, memory("m1", "It is so."))
    (item,) = recall.recall("so").items
    for links in ({item.link, item.link.loose}, {item.link.loose, item.link}):
        commit(store, memory("m2", "It follows.", supersedes=frozenset(links)))
        (found,) = recall.links_to(item.link)
        assert found.target == item.link
    assert {f.link.id for f in plan_forget(recall, Policy(count_max=0)).forgotten} == {"m2"}
    commit(store, memory("m1", "It is not so."))
    assert [one.link.id for one in recall.stale()] == ["m2"]
