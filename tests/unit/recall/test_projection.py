"""The search database: incremental equals made anew; damage, other models and handles, purge."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import Invalid, Unsupported
from cas.history.store import Store
from cas.recall import models
from cas.recall.arena import Arena
from cas.recall.database import Database
from cas.recall.recall import Recall
from cas.recall.receipts import Receipt
from cas.recall.text import Clause
from cas.recall.vectors import (
    cosines,
    lengths_of,
    nearness_of_all,
    pack_vectors,
)
from cas.workspace.memories import Memory
from tests.unit.recall.kit import SENTENCES, commit, memory

TABLES = ("item", "value", "link", "feedback", "vector", "name")


def dump(recall: Recall) -> dict[str, list[Any]]:
    """All rows of all tables, and what the full text says of each word."""
    recall.follow()
    found = {}
    for table in TABLES:
        rows = recall.projection.read(lambda db, t=table: db.rows(f"SELECT * FROM @{t}"))
        found[table] = sorted(rows, key=repr)
    words = "temp.places" if recall.projection.path.endswith(".db") else "@text"
    rows = recall.projection.read(lambda db: db.rows(f"SELECT * FROM {words}"))
    found["places"] = sorted(rows, key=repr)
    return found


def edits(store: Store, rng: random.Random, count: int) -> None:
    """Entries that add, change and remove memories."""
    there: set[str] = set()
    for _ in range(count):
        ids = rng.sample("abcdefgh", 3)
        gone = [memory(id, "") for id in ids[:1] if id in there]
        new = [memory(id, rng.choice(SENTENCES), importance=rng.random()) for id in ids[1:]]
        commit(store, *new, gone=gone)
        there = (there | set(ids[1:])) - {each.id for each in gone}


def test_made_anew_it_says_the_same(store: Store, recall: Recall, rng: random.Random) -> None:
    """A database that followed entry by entry equals one that is made at once."""
    for _ in range(5):
        edits(store, rng, 4)
        recall.follow()
    followed = dump(recall)
    assert len(followed["item"]) > 20
    recall.projection.rebuild()
    assert dump(recall) == followed


@pytest.mark.parametrize("harm", ["missing", "garbage", "cut", "middle", "empty"])
def test_damage_is_made_good_and_said(folder: Store, rng: random.Random, harm: str) -> None:
    """A missing or damaged database is made anew with equal answers, and the handle says so."""
    store = folder
    edits(store, rng, 10)
    with Recall(store) as recall:
        before = recall.recall("releases and tokens")
        path = Path(recall.projection.path)
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    else:
        if harm == "garbage":
            data[:100] = b"x" * 100
        elif harm == "cut":
            del data[len(data) // 2 :]
        elif harm == "middle":
            for place in range(4096, len(data), 4096):
                data[place : place + 64] = rng.randbytes(64)
        else:
            data.clear()
        path.write_bytes(data)
    with Recall(store) as recall:
        after = recall.recall("releases and tokens")
        assert after == before
        assert recall.find(Memory, order="importance").items
        assert bool(recall.projection.notices) == (harm != "missing")


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE vector SET data = NULL WHERE place % 3 = 0",
        "UPDATE vector SET data = x'00' WHERE place % 3 = 0",
        "UPDATE item SET words = 'many' WHERE doc = 3",
        "UPDATE item SET since = 1e300 WHERE doc = 3",
    ],
)
def test_what_could_not_have_been_written_is_damage(
    folder: Store, rng: random.Random, harm: str
) -> None:
    """What SQLite reads without a word, and ranking cannot use, is made good as well."""
    edits(folder, rng, 10)
    with Recall(folder) as recall:
        before = recall.recall("releases and tokens")
        path = recall.projection.path
    with closing(sqlite3.connect(path)) as index, index:
        index.execute(harm)
    with Recall(folder) as recall:
        assert recall.recall("releases and tokens") == before
        assert recall.projection.notices


def test_it_is_made_anew_for_another_store(store: Store, tmp_path: Path) -> None:
    """A database of another store is not read, though it lies where this one's would."""
    place = str(tmp_path / "index.db")
    commit(store, memory("a", "mine"))
    with Recall(store, index=place) as recall:
        assert recall.count(Memory) == 1
    with cas.open(":memory:") as other, Recall(other, index=place) as recall:
        assert recall.count(Memory) == 0
        assert "another store" in recall.projection.notices[0]


@pytest.mark.parametrize("version", [None, 0, 7])
def test_a_file_that_is_no_index_stays_as_it_is(
    store: Store, tmp_path: Path, version: int | None
) -> None:
    """Whoever names a file by mistake keeps it: a text, or a database of something else."""
    place = tmp_path / "app.db"
    if version is None:
        place.write_text("precious\n" * 100)
    else:
        with closing(sqlite3.connect(place)) as app:
            app.execute("CREATE TABLE users(name)")
            app.execute(f"PRAGMA user_version={version}")
    before = place.read_bytes()
    with Recall(store, index=str(place)) as recall:
        for ask in (lambda: recall.count(Memory), recall.projection.rebuild):
            with pytest.raises(Invalid, match="stays as it is"):
                ask()
    assert place.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if "app" in path.name) == ["app.db"]


def test_an_index_that_was_named_is_made_anew_where_it_is_damaged(
    store: Store, tmp_path: Path
) -> None:
    """The mark of an index is enough; an empty file is one to be."""
    place = tmp_path / "index.db"
    place.touch()
    commit(store, memory("a", "mine"))
    with Recall(store, index=str(place)) as recall:
        assert recall.count(Memory) == 1
    data = bytearray(place.read_bytes())
    data[100:] = bytes(len(data) - 100)
    place.write_bytes(data)
    with Recall(store, index=str(place)) as recall:
        assert recall.count(Memory) == 1
        assert "made anew" in recall.projection.notices[0]


def test_two_handles_follow_one_database(store: Store) -> None:
    """Each entry is taken in once, whoever is first."""
    with Recall(store) as one, Recall(store) as two:
        for n in range(6):
            commit(store, memory(f"m{n}", SENTENCES[n]))
            assert (one, two)[n % 2].count(Memory) == n + 1
            assert (two, one)[n % 2].recall("the", budget_tokens=500).seq == n + 1
        assert one.projection.path == two.projection.path
        assert len(dump(one)["item"]) == 6


def test_what_cannot_be_read_is_told_and_left_out(store: Store, recall: Recall) -> None:
    """A file that is no record stops nothing."""
    commit(store, memory("a", "fine"))
    with store.begin() as tx:
        tx.branch("memory/main")["memories/bad"] = b"\xff not a record"
        tx.commit()
    commit(store, memory("b", "fine too"))
    assert recall.follow().unread == 1
    assert [m.id for m in recall.find(Memory).items] == ["a", "b"]


def test_purged_content_leaves_the_database(store: Store, recall: Recall) -> None:
    """After a purge no file of the search database holds the text, and no table of one."""
    secret = "correct horse battery staple"
    commit(store, memory("a", f"The passphrase is {secret}."), memory("b", "Harmless."))
    assert [i.link.id for i in recall.recall("passphrase").items][:1] == ["a"]
    blob = recall.recall("passphrase").items[0].link.pin
    assert blob is not None
    commit(store, memory("a", "Nothing to see."))
    cas.purge(store, blob, reason="leaked")
    assert {i.link.id for i in recall.recall("passphrase").items} <= {"a", "b"}
    if store.objects.catalog.is_distant:
        assert "passphras" not in repr(dump(recall))
        return
    folder = Path(recall.projection.path).parent
    for file in folder.iterdir():
        assert b"passphras" not in file.read_bytes()


def test_a_purge_that_has_ended_leaves_no_index(folder: Store) -> None:
    """No file of the store holds the text then, not that of an index which nobody asks any more;
    who has one open goes on, without what was purged.
    """
    commit(folder, memory("a", "geheime schluessel"), memory("b", "staging is pink"))
    with Recall(folder, embedder=None) as former:
        assert former.find(Memory, match="schluessel").items
        path = Path(former.projection.path)
    path.rename(path.with_stem("0123456789abcdef"))  # as that of a program with other types
    with Recall(folder, embedder=None) as recall:
        (found,) = recall.find(Memory, match="schluessel").items
        assert len(list(path.parent.glob("*.db"))) == 2
        record = folder.snapshot("memory/main").entry("memories/a")
        assert found.id == "a"
        cas.purge(folder, record.id, reason="leaked")
        files = [file for file in Path(folder.location).rglob("*") if file.is_file()]
        assert [file.name for file in files if b"schluessel" in file.read_bytes()] == []
        assert not recall.find(Memory, match="schluessel").items
        assert [each.id for each in recall.find(Memory, match="pink").items] == ["b"]


class OtherModel:
    """An embedder of three dimensions, to change to."""

    identity = "other:1"
    dimensions = 3

    def embed(self, texts: Any) -> Any:
        return [[len(text), text.count("e"), 1] for text in texts]


def test_a_new_model_embeds_what_is_there(store: Store, rng: random.Random) -> None:
    """With another embedder the rows get vectors of it, and those of the first stay."""
    edits(store, rng, 5)
    commit(store, memory("t", "A token of thanks."))
    with Recall(store) as recall:
        before = recall.recall("token")
    with Recall(store, embedder=OtherModel()) as recall:
        recall.follow()
        assert recall.recall("token").notices == ()
        models = recall.projection.read(
            lambda db: db.rows("SELECT identity, upto FROM @model ORDER BY 2")
        )
        assert len(models) == 2
        assert models[0][1] == models[1][1]
    with Recall(store) as recall:
        assert recall.recall("token") == before
    with Recall(store, embedder=None) as recall:
        assert {i.parts.meaning for i in recall.recall("token").items} == {0.0}


def test_the_old_model_serves_while_a_new_one_embeds(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second handle embeds some rows with each catching up, those that come meanwhile too; the
    first one answers as before, until the second has a vector of each row.
    """
    monkeypatch.setattr(models, "_STEP", 4)
    commit(store, *(memory(f"m{n}", f"{rng.choice(SENTENCES)} {n}") for n in range(19)))
    with Recall(store) as old, Recall(store, embedder=OtherModel()) as new:
        before = old.recall("shipping a new version", budget_tokens=100)
        assert before.notices == ()
        assert before.items[0].parts.meaning > 0
        steps = 0
        while new.follow().embedded:
            steps += 1
            if steps == 2:
                assert old.recall("shipping a new version", budget_tokens=100) == before
                assert "no vector of other:1" in new.recall("release").notices[0]
                commit(store, memory("late", "Versions of the app are shipped late."))
                late = old.recall("shipping a new version", where={"id": "late"})
                assert late.notices == ()
                assert late.items[0].parts.meaning > 0
        assert steps >= 4
        assert new.recall("release").notices == ()


class Tired(OtherModel):
    """An embedder that is interrupted behind a number of texts, as by ^C: no fault of its own."""

    def __init__(self, left: int) -> None:
        self.left = left

    def embed(self, texts: Any) -> Any:
        self.left -= len(texts)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().embed(texts)


def test_one_handle_changes_its_model(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former model serves, what comes meanwhile included, until the new one has a vector of
    each row; then the new one serves, and the vectors of the former are gone. What was embedded
    before an interruption, or by a handle before, is not embedded again.
    """
    monkeypatch.setattr(models, "_BESIDE", 4)
    commit(store, *(memory(f"m{n}", f"{rng.choice(SENTENCES)} {n}") for n in range(19)))
    with Recall(store) as recall:
        recall.recall("shipping a new version", receipt=True)
        (receipt,) = recall.find(Receipt).items
        before = recall.recall("shipping a new version", budget_tokens=100)
    old = before.request.model
    tired = Tired(left=10)
    with Recall(store, embedder=tired, former="default") as recall:
        first = recall.recall("shipping a new version", budget_tokens=100)
        assert (first.items, first.request.model) == (before.items, old)
        assert "serves until other:1 has a vector of each row: 4 of 20" in first.notices[0]
        assert recall.follow().embedded == 4
        with pytest.raises(KeyboardInterrupt):
            recall.follow()
        # What was rolled back is not told as done, and the former serves on.
        state = {each.identity: each for each in recall.projection.read(recall_states(recall))}
        assert (state[old].serves, state["other:1"].embedded) == (True, 8)
        assert recall.recall("shipping", as_of=1).request.model == old
    with Recall(store, embedder=Tired(left=1_000), former="default") as recall:
        commit(store, memory("late", "Versions of the app are shipped late."))
        late = recall.recall("shipping a new version", where={"id": "late"})
        assert (late.request.model, len(late.items)) == (old, 1)
        assert late.items[0].parts.meaning > 0
        assert recall.replay(receipt).digest == receipt.digest
        steps = []
        while (done := recall.follow()).embedded:
            steps.append(done.embedded)
        assert steps == [4, 4]
        (state,) = recall.models()
        assert (state.identity, state.serves, state.embedded) == ("other:1", True, state.rows)
        after = recall.recall("shipping a new version")
        assert (after.request.model, after.notices) == ("other:1", ())
        with pytest.raises(Unsupported):
            recall.replay(receipt)
        made = dump(recall)
        recall.projection.rebuild()
        assert [row[1] for row in dump(recall)["vector"]] == [row[1] for row in made["vector"]]
    with Recall(store) as recall:
        while recall.follow().embedded:
            pass
        assert recall.replay(receipt).digest == receipt.digest
        assert {each.identity for each in recall.models()} == {"other:1", old}


def recall_states(recall: Recall) -> Any:
    """How far models are, without catching up."""
    return recall.projection.models.states


def test_a_former_model_that_left_nothing_does_not_serve(store: Store) -> None:
    """In a new index the new model embeds each row at once, and nothing is made of the former."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    with Recall(store, embedder=OtherModel(), former="default") as recall:
        assert recall.recall("releases").request.model == "other:1"
        assert [each.identity for each in recall.models()] == ["other:1"]


def test_vectors_of_a_wrong_size_are_refused(store: Store) -> None:
    """An embedder that does not give what it states is a typed error, and nothing is stored."""

    class Wrong(OtherModel):
        def embed(self, texts: Any) -> Any:
            return [[1, 2]] * len(texts)

    commit(store, memory("a", "x"))
    with Recall(store, embedder=Wrong()) as recall, pytest.raises(Invalid, match="dimensions"):
        recall.recall("x")
    with pytest.raises(Invalid, match="finite"):
        pack_vectors([[float("nan"), 1.0]], 2, 1)


def test_arrays_that_grew_equal_arrays_read_at_once(
    store: Store, recall: Recall, rng: random.Random
) -> None:
    """What ranking holds in memory is the same, however often it took in what was new."""
    for _ in range(4):
        edits(store, rng, 3)
        recall.recall("token release")
    grown = recall._engine._arena
    fresh = Arena()
    serving = recall.projection.models.serving
    assert serving is not None
    recall.projection.read(lambda db: fresh.refresh(db, recall.projection.seq, serving.code))
    assert grown.size == fresh.size
    for name in ("type", "since", "until", "words", "tokens", "importance", "flags"):
        assert np.array_equal(getattr(grown, name), getattr(fresh, name), equal_nan=True)
    assert np.array_equal(grown._vectors[: grown.size], fresh._vectors[: fresh.size])


def places(recall: Recall, clause: Clause) -> tuple[Any, Any]:
    """Rows of any state that match a clause, and how often it stands in each."""

    def read(db: Database) -> tuple[Any, Any]:
        term = db.term(clause.text) if clause.kind == "word" else None
        return db.postings(clause, term, 0)

    return recall.projection.read(read)


def test_places_of_words_are_those_of_a_match(
    store: Store, recall: Recall, rng: random.Random
) -> None:
    """What is read of a word's index at once is what a match of each row gives, forms of the word
    and rows of the past included; phrases, prefixes and words of two parts are matched.
    """
    edits(store, rng, 8)
    commit(store, memory("odd", "Requests request_id requests; na\u00efve requested, reQUEST"))
    recall.follow()
    matched = "SELECT rowid, occurrences(text) FROM text WHERE text MATCH ? ORDER BY rowid"
    words = ["request", "requests", "the", "Naive", "request_id", "nowhere", "of"]
    clauses = [Clause("word", word) for word in words]
    clauses += [Clause("phrase", "pull requests"), Clause("prefix", "re")]
    with Recall(store, index=":memory:") as file:
        file.follow()
        for clause in clauses:
            docs, counts = places(recall, clause)
            rows = file.projection.read(lambda db, c=clause: db.rows(matched, (c.expression,)))
            assert list(zip(docs.tolist(), counts.tolist(), strict=True)) == rows
    assert recall.projection.read(lambda db: db.term("request_id")) is None


def test_products_in_parts_are_exact(rng: random.Random) -> None:
    """How near many rows are to each other is, to the bit, what each is to another alone."""
    numpy = np.random.default_rng(rng.randrange(1 << 30))
    rows = numpy.integers(-127, 128, (150, 256)).astype(np.int8)
    lengths = lengths_of(rows)
    every = nearness_of_all(rows, lengths)
    for at in (0, 7, 8, 149):
        assert (every[at] == cosines(rows, lengths, rows[at])).all()
    assert nearness_of_all(rows[:0], lengths[:0]).shape == (0, 0)
