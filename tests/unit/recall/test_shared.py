"""The index that hosts share on a server: the answers of a file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import cas
from cas.history.store import Store
from cas.recall import arena, sketches
from cas.recall import postgres_dialect as dialect
from cas.recall.fulltext import Words
from cas.recall.recall import Recall
from cas.recall.score import Scoring
from cas.recall.text import Clause
from cas.recall.where import field
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from tests.databases import fresh_url
from tests.unit.recall.kit import SENTENCES, commit, memory
from tests.unit.recall.test_projection import places
from tools.postgres_server import PostgresServer

# -- the same answers ----------------------------------------------------------------------------

WORDS = ["release", "Releases", "the", "naïve", "it's", "x_y", "日本", "pull", "requests"]
words = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
texts = st.one_of(words, words, st.text(max_size=30))
steps = st.lists(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.none()
        | st.tuples(
            texts,
            st.sampled_from([0.0, 0.25, 1.0]),
            st.frozensets(st.sampled_from(["x", "y", "é", "archived"])),
            st.sampled_from("abcdefz"),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=5,
)
parts = st.sampled_from([*WORDS, '"pull requests"', "rel*", '"the rel"*', "_", '"', "*", "zzz"])
queries = st.lists(parts, min_size=1, max_size=3).map(" ".join) | st.text(max_size=12)


def tell(store: Store, step: dict[str, Any], there: set[str]) -> int:
    """Save and remove memories as a step says; `there` is what there is."""
    gone = [memory(id, "") for id, values in step.items() if values is None and id in there]
    new = [
        memory(
            id,
            values[0],
            importance=values[1],
            tags=values[2],
            supersedes=frozenset({Link("memory", values[3])}) if values[3] != id else frozenset(),
            agent="scribe" if values[3] < "c" else "planner",
        )
        for id, values in step.items()
        if values is not None
    ]
    there |= {each.id for each in new}
    there -= {each.id for each in gone}
    return commit(store, *new, gone=gone)


def answers(recall: Recall, query: str, seq: int) -> list[Any]:
    """What is asked of both: recall, pages, counts, facets, links, what is stale."""
    found: list[Any] = []
    how: dict[str, Any] = {"as_of": seq}
    conditions: list[Any] = [
        None,
        {"agent": "scribe"},
        {"tags": ["x", "é"]},
        (field("importance") >= 0.25) & ~field("tags").has("y"),
        field("agent").begins("pl") | (field("id") > "c"),
        field("supersedes").is_set(),
    ]
    for where in conditions:
        given = recall.recall(query, where=where, budget_tokens=200, **how)
        found.append([given.items, given.left_out, given.counts, given.tokens, given.digest])
        for match in ("", query):
            found.append(recall.count(Memory, where, match=match, archived=True, **how))
        for name in ("tags", "importance", "agent"):
            found.append(recall.facets(Memory, name, where, **how))
        for order in (None, "-id", "time", "-time", "importance", "-importance", "agent"):
            page = recall.find(Memory, where, order=order, match=query, limit=3, **how)
            found.append([page.items, page.cursor])
            whole = recall.find(Memory, where, order=order, limit=3, **how)
            found.append([whole.items, whole.cursor])
    for id in "abz":
        link = Link("memory", id)
        found += [recall.links_from(link, depth=3, **how), recall.links_to(link, depth=3, **how)]
    return [*found, recall.stale(**how)]


@pytest.mark.slow
@given(steps, queries)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@example([{"a": ("request request pulls", 0.0, frozenset(), "b")}], '"" release')
@example([{"a": ("a\0b release", 0.0, frozenset(), "b")}], "\0 rel*")
def test_answers_are_those_of_a_file(
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    history: list[dict[str, Any]],
    query: str,
) -> None:
    """Over one store the index on the server and one in a file give equal answers of each state,
    cursors included, and one goes on where a cursor of the other ends.
    """
    folder = tmp_path_factory.mktemp("packs")
    with (
        cas.open(fresh_url(postgres), create=True, bucket=folder) as store,
        Recall(store, index="database") as shared,
        Recall(store, index=":memory:") as file,
    ):
        commit(store, memory("b", "pull requests"))
        there = {"b"}
        for step in history:
            tell(store, step, there)
            assert shared.follow().seq == file.follow().seq
        for seq in (store.view().seq, 1):
            assert answers(shared, query, seq) == answers(file, query, seq)
        cursor = shared.find(Memory, order="importance", limit=2).cursor
        if cursor is not None:
            ends = [each.find(Memory, order="importance", after=cursor) for each in (shared, file)]
            assert ends[0] == ends[1]
        assert "cas_search" in shared.projection.path
        assert not shared.projection.notices


numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False)
values = numbers | st.integers(-4, 4) | st.text(alphabet=st.characters(codec="utf-8"))


@given(st.lists(values, max_size=12))
@example([1 << 53, (1 << 53) + 1, float(1 << 53), -(1 << 53) - 1, 0.0, -0.0, "", "\0"])
def test_values_compare_as_they_do_in_a_file(found: list[Any]) -> None:
    """Numbers, whole or not, and texts have one order, and it is that of SQLite."""
    with apsw.Connection(":memory:") as connection:
        connection.execute("CREATE TABLE t(v)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in found])
        ordered = [row[0] for row in connection.execute("SELECT v FROM t ORDER BY v, typeof(v)")]
    keys = sorted(map(dialect.key_of, found))
    assert list(map(dialect.value_of, keys)) == ordered
    assert keys == list(map(dialect.key_of, ordered))


def test_a_text_of_any_length_is_found_whole(hosted: Store, rng: random.Random) -> None:
    """Words that stand in a text more often, and farther behind, than the server remembers, words
    longer than it takes, and phrases where a text is divided, are counted as in a file.
    """
    long, longer = "l" * 390, "m" * 3_000
    often = "again and again " * 700
    far = " ".join(rng.choices(["alpha", "beta", "gamma", "delta"], k=40_000))
    commit(
        hosted,
        memory("often", f"{often} needle in {long}"),
        memory("far", f"{far} needle in {longer} the end {long}"),
        memory("short", f"one needle, {longer}"),
        # The place behind the 255th of a word is where a text is divided.
        memory("seam", "left " + "same " * 254 + "same right same here " + "same " * 300),
        memory("none", ""),
    )
    clauses = [Clause("word", word) for word in ("again", "and", "alpha", "needle", long, longer)]
    clauses += [
        Clause("phrase", text)
        for text in (
            "again and",
            "again again and again",
            "alpha beta gamma",
            "same right same here",
        )
    ]
    clauses += [Clause("prefix", text) for text in ("al", "ag", "needle i", "mmm", "again an", "z")]
    with Recall(hosted) as shared, Recall(hosted, index=":memory:") as file:
        for clause in clauses:
            found = []
            for each in (shared, file):
                each.follow()
                docs, counts = places(each, clause)
                found.append([docs.tolist(), counts.tolist()])
            assert found[0] == found[1]
            assert found[0][0] or clause.text == "z"
            match = {"word": "{}", "phrase": '"{}"', "prefix": '"{}"*'}[clause.kind]
            ids = [
                [m.id for m in each.find(Memory, match=match.format(clause.text)).items]
                for each in (shared, file)
            ]
            assert ids[0] == ids[1]
    rows = dialect.parts_of(7, Words().terms(often * 2))
    assert {doc for doc, _, _ in rows} == {7}
    assert len({part for _, part, _ in rows}) == len(rows) > 8


def test_a_long_value_is_compared_by_its_beginning(hosted: Store) -> None:
    """What is longer than an index of the server takes is found by what it is, and stops nobody."""
    names = ["n" * 5_000, "n" * 5_000 + "x", "n"]
    commit(hosted, *(memory(f"m{n}", "x", agent=name) for n, name in enumerate(names)))
    with Recall(hosted) as recall:
        for number, name in enumerate(names):
            assert [m.id for m in recall.find(Memory, {"agent": name}).items] == [f"m{number}"]
        assert recall.count(Memory, field("agent").begins("nn")) == 2


@pytest.mark.parametrize("where", [None, {"agent": "scribe"}, {"agent": "nobody"}])
def test_who_asks_once_reads_few_vectors(
    hosted: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch, where: Any
) -> None:
    """The first question of a handle has the nearest of many chosen by the server, behind its
    filters, and the next one reads all vectors; both answers are those of a file.
    """
    monkeypatch.setattr(arena, "EXACT_ROWS_MAX", 20)
    monkeypatch.setattr(sketches, "NEAREST", 10)
    agents = {0: "scribe", 1: "planner"}
    commit(
        hosted,
        *(
            memory(f"m{n}", f"{rng.choice(SENTENCES)} {rng.randrange(40)}", agent=agents[n % 2])
            for n in range(300)
        ),
    )
    commit(hosted, *(memory(f"m{n}", f"{SENTENCES[n]} anew") for n in range(8)))
    how = Scoring(text=0, alike=2, floor=0)
    with Recall(hosted, index=":memory:") as file, Recall(hosted) as shared:
        for text in ("when are releases shipped", "who reviews payments"):
            expected = file.recall(text, where=where, scoring=how)
            assert shared.recall(text, where=where, scoring=how) == expected
            read = int(shared._engine.arena._has_vector.sum())
            assert read == 308 if text.startswith("who") else read <= 10
    with Recall(hosted, index=":memory:") as file, Recall(hosted) as shared:
        first = shared.recall("the main branch", as_of=1)
        assert first == file.recall("the main branch", as_of=1)


def test_the_index_works_on_the_oldest_server(
    oldest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 15 gives the same answers."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    with cas.open(fresh_url(oldest_postgres), create=True, bucket=tmp_path / "packs") as store:
        commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
        with Recall(store) as shared, Recall(store, index=":memory:") as file:
            query = "releases of the team"
            assert answers(shared, query, 1) == answers(file, query, 1)
