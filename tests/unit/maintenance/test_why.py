"""Why an object is kept: every way from a root is found, and none is invented."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.maintenance.why import why
from cas.model.ids import Kind, ObjectId
from cas.model.names import HORIZON_REF
from cas.model.objects import Recipe
from tests.unit.kit import commits, reopened, write
from tests.unit.maintenance.test_backup import flip_object


def kinds(store: Store, id: ObjectId) -> list[str]:
    """First steps of the reasons found."""
    return [reason.kind for reason in why(store, id).reasons]


def test_a_file_is_kept_by_the_path_it_lies_at(store: Store) -> None:
    """A blob in a branch is told with branch, commit and path, the newest first."""
    write(store, "main", {"d/a": b"one", "b": b"two"})
    write(store, "main", {"d/a": b"other"})
    snapshot = store.snapshot("main~1")
    entry = snapshot.entry("d/a")
    assert entry is not None
    found = why(store, entry.id)
    (reason,) = found.reasons
    assert (found.kind, found.kept) == (Kind.BLOB, True)
    assert (reason.kind, reason.ref, reason.path) == ("ref", "heads/main", "d/a")
    assert reason.commit == store.resolve("main~1")
    assert reason.text.startswith("d/a in commit ")
    folder = snapshot.entry("d")
    assert folder is not None
    assert why(store, folder.id).reasons[0].path == "d"
    assert why(store, store.commit("main").tree).reasons[0].path == ""


def test_commits_tags_pins_holds_and_events_are_told(store: Store) -> None:
    """Each kind of root is a reason of its own kind."""
    commits(store, 3)
    old = store.resolve("main~2")
    with store.begin() as tx:
        tx.tag("v1", old, "text")
        tx.event("long", b"x" * 300)
        entry = tx.commit()
    assert kinds(store, store.resolve("main")) == ["ref"]
    # The tag leads to it, main does, and undo may.
    assert set(kinds(store, old)) >= {"undo", "tag"}
    assert kinds(store, store.tags()[0].target) == ["tag"]
    blob = entry.events[0].blob
    assert blob is not None
    (reason,) = why(store, blob).reasons
    assert (reason.kind, reason.seq) == ("event", entry.seq)
    loose = store.put(b"loose")
    assert not why(store, loose).kept
    store.pin(loose)
    store.hold(loose, "case")
    assert sorted(kinds(store, loose)) == ["hold", "pin"]


def test_what_is_only_in_the_past_is_kept_by_undo(store: Store) -> None:
    """A deleted branch keeps what it had as long as the horizon is behind it."""
    write(store, "gone", {"a": b"alone"})
    head = store.resolve("gone")
    blob = store.put(b"alone")
    with store.begin() as tx:
        tx.delete("heads/gone")
        tx.commit()
    assert {reason.kind for reason in why(store, blob).reasons} == {"undo"}
    write(store, "main", {"b": b"1"})
    store.apply(store.plan_retention(RetentionPolicy((), HorizonRule(Span(), 0))))
    assert why(store, blob).reasons == ()
    assert why(store, head).reasons == ()


def test_a_thinned_commit_says_so_and_keeps_no_files(store: Store) -> None:
    """Its record is kept by the history it is in; what only it had is kept by nothing."""
    commits(store, 3)
    old = store.resolve("main~2")
    entry = store.snapshot(old).entry("n")
    assert entry is not None
    policy = RetentionPolicy((KeepRule("heads/*", last=1),), HorizonRule(Span(), 0))
    store.apply(store.plan_retention(policy), author="ada")
    found = why(store, old)
    assert found.kept
    assert found.thinned is not None
    assert found.thinned.author == "ada"
    assert not why(store, entry.id).kept
    horizon = store.view().ref(HORIZON_REF)
    assert horizon is not None
    assert kinds(store, horizon.target) == ["policy"]


def test_parts_of_large_content_are_kept_by_it(store: Store, rng: random.Random) -> None:
    """A chunk, and the recipe, of a file that is kept are kept; of a loose one they are not."""
    content = rng.randbytes(WHOLE_BLOB_BYTES_MAX + 100_000)
    blob = store.put(content)
    copy = store.objects.find(blob)
    assert copy is not None
    recipe = ObjectId(store.objects.payload(copy)[32:64])
    chunk = ObjectId(Recipe.decode(store.objects.get(recipe, Kind.RECIPE)).span(0))
    assert why(store, chunk).exists
    assert not why(store, chunk).kept
    with store.begin() as tx:
        tx.branch("main").put("big", content)
        tx.commit()
    for part in (recipe, chunk):
        (reason,) = why(store, part).reasons
        assert (reason.kind, reason.path) == ("part", "big")


def test_damage_is_no_answer(store: Store) -> None:
    """Where a directory on the way cannot be read, nobody is told that nothing keeps the object."""
    write(store, "main", {"d/a": b"one"})
    entry = store.snapshot("main").entry("d/a")
    folder = store.snapshot("main").entry("d")
    assert entry is not None
    assert folder is not None
    write(store, "main", {"e": b"two"})
    store.spill()
    flip_object(store, folder.id)
    with reopened(store) as other, pytest.raises(cas.Corrupt):
        why(other, entry.id)


def test_what_is_not_there_is_told(store: Store) -> None:
    """An id that the store does not have exists not, and is kept by nothing."""
    write(store)
    found = why(store, ObjectId(b"\7" * 32))
    assert (found.exists, found.kept, found.kind) == (False, False, None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=8))
def test_all_that_a_branch_has_is_kept_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Objects that a walk from all branches finds are kept; loose ones beside them are not."""
    with cas.open(tmp_path_factory.mktemp("why") / "s", create=True) as store:
        wanted: set[Any] = set()
        for number, (branch, value) in enumerate(steps):
            write(store, branch, {f"d{value}/f": b"%d" % value, "n": b"%d" % number})
        for ref in store.branches():
            for id, commit in store.log(ref.short):
                wanted |= {id, commit.tree}
                wanted |= {entry.id for _p, entry in store.snapshot(id).walk(directories=True)}
        for id in wanted:
            found = why(store, id)
            assert found.kept
            for reason in found.reasons:
                if reason.commit is not None and reason.path:
                    entry = store.snapshot(reason.commit).entry(reason.path)
                    assert entry is not None
                    assert entry.id == id
        assert not why(store, store.put(b"no branch has this")).kept
