"""Transactions: all or nothing, what one refuses, and how one ends."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

import cas
from cas.errors import (
    Closed,
    Invalid,
    InvalidName,
    LimitExceeded,
    ObjectNotFound,
    PathNotFound,
    RefConflict,
    RefExists,
    RefNotFound,
    RefProtected,
    WrongKind,
)
from cas.history import publication
from cas.history import transaction as module
from cas.history.store import Store
from cas.limits import STRUCTURED_BYTES_MAX
from cas.model.ids import CommitId, ObjectId
from cas.model.objects import Recipe
from tests.unit.kit import commits, reopened, write


def test_several_branches_move_together(store: Store) -> None:
    """Two branches and a tag of one transaction become visible in one entry."""
    with store.begin(author="planner", message="both") as tx:
        tx.branch("one")["a"] = b"1"
        tx.branch("two")["b"] = b"2"
        assert store.branches() == []
        entry = tx.commit()
    assert [change.ref for change in entry.changes] == ["heads/one", "heads/two"]
    assert (dict(store.snapshot("one")), dict(store.snapshot("two"))) == ({"a": b"1"}, {"b": b"2"})
    assert (entry.seq, entry.actor, entry.message) == (1, "planner", "both")


def test_leaving_the_block_rolls_back(store: Store) -> None:
    """Without a commit nothing of a transaction is seen, its objects neither."""
    with store.begin() as tx:
        tx.branch("main")["a"] = b"only staged"
        id = tx.put(b"staged too")
        assert tx.get(id) == b"staged too"
    assert store.branches() == []
    assert not store.has(id)
    assert list(store.journal()) == []


def test_an_exception_rolls_back_and_goes_on(store: Store) -> None:
    """What the block raises comes out unchanged, and nothing was committed."""
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        tx.branch("main")["a"] = b"%d" % (1 // 0)
    assert store.branches() == []
    assert write(store).seq == 1


def test_an_exception_drops_pack_files(store: Store) -> None:
    """A large transaction that fails leaves no file and no session row behind."""
    packs = Path(store.location) / "packs"

    def work() -> None:
        with store.begin() as tx:
            for _ in range(200):
                tx.put(os.urandom(100_000))
            assert list(packs.iterdir()) != []
            print(1 // 0)

    with pytest.raises(ZeroDivisionError):
        work()
    assert list(packs.iterdir()) == []
    with store.objects.catalog.read() as reader:
        assert reader.sessions() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_ended_transaction_refuses_everything(store: Store, end: str) -> None:
    """After its end each method of a transaction and its branches says Closed."""
    write(store)
    tx = store.begin()
    edit = tx.branch("main")
    edit["a"] = b"1"
    id = tx.put(b"x")
    getattr(tx, end)()
    head = store.resolve("main")
    for refused in (
        lambda: tx.branch("other"),
        lambda: tx.put(b"y"),
        lambda: tx.get(id),
        lambda: tx.move("heads/x", head),
        lambda: tx.delete("heads/main"),
        lambda: tx.tag("v1", head),
        lambda: tx.event("e"),
        tx.commit,
        lambda: edit.put("b", b"2"),
        lambda: edit.put_tree(store.commit("main").tree),
        lambda: edit.__delitem__("file"),
    ):
        with pytest.raises(Closed):
            refused()
    tx.rollback()
    if end == "commit":
        assert dict(store.snapshot("main")) == {"a": b"1", "file": b"1"}


def test_put_inside_a_transaction_is_independent(store: Store) -> None:
    """`store.put` in the block of a transaction is durable at once and outlives the rollback."""
    with store.begin() as tx:
        tx.branch("main")["a"] = b"1"
        id = store.put(b"kept")
    assert store.get(id) == b"kept"


def test_nothing_staged_gives_the_head(store: Store) -> None:
    """A commit that changes nothing writes no entry and answers with the newest."""
    first = write(store, files={"a": b"1"})
    with store.begin() as tx:
        tx.branch("main")["a"] = b"1"
        assert tx.commit() == first
    with store.begin() as tx, pytest.raises(PathNotFound):
        del tx.branch("main")["absent"]
    assert len(list(store.journal())) == 1


def test_nothing_staged_in_an_empty_store_is_told(store: Store) -> None:
    """There is no entry to answer with before the first one."""
    with store.begin() as tx, pytest.raises(Invalid, match="no entry"):
        tx.commit()


def test_a_moved_branch_is_a_conflict_with_both_sides(store: Store) -> None:
    """Who began before another's commit to the same branch is told what was and what is."""
    write(store, files={"a": b"0"})
    base = store.resolve("main")
    tx = store.begin()
    tx.branch("main")["a"] = b"late"
    write(store, files={"a": b"1"})
    with pytest.raises(RefConflict) as caught:
        tx.commit()
    assert (caught.value.ref, caught.value.expected) == ("heads/main", base)
    assert caught.value.actual == store.resolve("main")
    assert dict(store.snapshot("main")) == {"a": b"1"}


def test_a_branch_that_was_only_read_guards_too(store: Store) -> None:
    """Write skew is refused: a branch that was looked at may not move before the commit."""
    write(store, "one")
    write(store, "two")
    tx = store.begin()
    assert tx.branch("one")["file"] == b"1"
    tx.branch("two")["file"] = b"because one was 1"
    write(store, "one", {"file": b"2"})
    with pytest.raises(RefConflict):
        tx.commit()


def test_there_and_back_again_is_seen(store: Store) -> None:
    """A branch that moved away and back to the same commit has moved, where that matters."""
    write(store, files={"a": b"1"})
    there = store.resolve("main")
    tx = store.begin()
    tx.branch("main", on_move="conflict")["b"] = b"late"
    write(store, files={"a": b"2"})
    with store.begin() as back:
        back.move("heads/main", there)
        back.commit()
    assert store.resolve("main") == there
    with pytest.raises(RefConflict, match=f"away from {there.short}, and back"):
        tx.commit()


def test_other_branches_may_move_meanwhile(store: Store) -> None:
    """A commit elsewhere is no conflict."""
    write(store, "one")
    tx = store.begin()
    tx.branch("one")["more"] = b"x"
    write(store, "two")
    assert tx.commit().seq == 3


def test_a_long_transaction_outlives_checkpoints(store: Store) -> None:
    """Refs of the moment a transaction began are found however much was committed since."""
    for at in range(5):
        write(store, f"b{at}")
    tx = store.begin()
    commits(store, 530)
    tx.branch("b1")["more"] = b"x"
    tx.delete("heads/b2")
    assert tx.commit().seq == 536
    assert dict(store.snapshot("b1")) == {"file": b"1", "more": b"x"}


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b/c", "a"), ("x", "x/y/z")])
def test_no_ref_is_a_folder_of_another(store: Store, first: str, second: str) -> None:
    """Neither in one entry nor over two does a ref lie inside another."""
    with store.begin() as tx:
        tx.branch(first)["f"] = b"1"
        tx.branch(second)["f"] = b"2"
        with pytest.raises(RefExists):
            tx.commit()
    write(store, first)
    with pytest.raises(RefExists):
        write(store, second)
    assert [ref.short for ref in store.branches()] == [first]


@pytest.mark.parametrize(("old", "new"), [("a", "a/b"), ("a/b", "a")])
def test_a_ref_may_make_room_for_another(store: Store, old: str, new: str) -> None:
    """What the same entry deletes is not in the way."""
    write(store, old)
    with store.begin() as tx:
        tx.delete("heads/" + old)
        tx.branch(new)["f"] = b"1"
        tx.commit()
    assert [ref.short for ref in store.branches()] == [new]


def test_neighbours_of_a_prefix_are_free(store: Store) -> None:
    """`a`, `a-b`, `ab` and `tags/a/b` do not collide."""
    with store.begin() as tx:
        for name in ("a", "a-b", "ab", "a.b"):
            tx.branch(name)["f"] = b"1"
        tx.commit()
    with store.begin() as tx:
        tx.tag("a/b", store.resolve("a"))
        tx.commit()
    assert len(store.branches()) == 4


def test_a_ref_is_edited_or_moved_but_not_both(store: Store) -> None:
    """The second of two ways to set one ref is refused, in either order."""
    write(store)
    head = store.resolve("main")
    with store.begin() as tx:
        tx.move("heads/main", head)
        with pytest.raises(Invalid):
            tx.branch("main")
    with store.begin() as tx:
        tx.branch("main")["a"] = b"1"
        with pytest.raises(Invalid):
            tx.move("heads/main", head)
        with pytest.raises(Invalid):
            tx.delete("heads/main")


def test_moves_need_a_commit_or_tag_that_exists(store: Store) -> None:
    """A ref cannot point at nothing, at a blob, or at a directory."""
    write(store)
    blob = store.put(b"x")
    with store.begin() as tx:
        with pytest.raises(ObjectNotFound):
            tx.move("heads/x", CommitId(b"\7" * 32))
        for wrong in (blob, store.commit("main").tree):
            with pytest.raises(WrongKind):
                tx.move("heads/x", wrong)
        with pytest.raises(InvalidName):
            tx.move("main", store.resolve("main"))
        with pytest.raises(RefNotFound):
            tx.delete("heads/absent")


def test_tags_light_and_annotated(store: Store) -> None:
    """A tag with a message is an object of its own; both resolve to the commit."""
    write(store)
    head = store.resolve("main")
    with store.begin(author="me") as tx:
        tx.tag("light", head)
        tx.tag("heavy", head, "said why")
        tx.tag("blob", tx.put(b"data"), "a tag may name a blob")
        tx.commit()
    assert {ref.short: ref.kind.name for ref in store.tags()} == {
        "light": "COMMIT",
        "heavy": "TAG",
        "blob": "TAG",
    }
    assert store.resolve("light") == store.resolve("heavy") == head
    with pytest.raises(WrongKind):
        store.resolve("blob")


def test_what_a_tag_may_not_name_is_refused_at_once(store: Store) -> None:
    """A recipe is no target: readers would refuse such a tag for ever."""
    recipe = Recipe(0, bytes(32), (1,)).encode()
    with store.begin() as tx:
        id = ObjectId(tx._batch.put(5, recipe))
        with pytest.raises(Invalid):
            tx.tag("x", id, "message")


def test_limits_of_one_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many refs, events, or bytes in one entry are refused and nothing is committed."""
    monkeypatch.setattr(publication, "ENTRY_CHANGES_MAX", 3)
    monkeypatch.setattr(module, "EVENTS_MAX", 2)
    with store.begin() as tx:
        for at in range(4):
            tx.branch(f"b{at}")["f"] = b"1"
        with pytest.raises(LimitExceeded, match="refs"):
            tx.commit()
    with store.begin() as tx:
        tx.event("one")
        tx.event("two")
        with pytest.raises(LimitExceeded, match="events"):
            tx.event("three")
    monkeypatch.setattr(publication, "ENTRY_BYTES_MAX", 400)
    with store.begin() as tx:
        tx.event("long", b"x" * 250)
        with pytest.raises(LimitExceeded, match="entry"):
            tx.commit()
    assert list(store.journal()) == []


def test_a_long_event_is_cut_into_chunks(tmp_path: Path) -> None:
    """A body longer than a record may be harms nothing beside it: all is read again, also after
    a spill. It lay in one record, and its whole pack counted as damaged.
    """
    body = bytes(STRUCTURED_BYTES_MAX + 1)
    with cas.open(tmp_path / "store", create=True) as store:
        with store.begin() as tx:
            tx.branch("main")["a"] = b"1"
            tx.event("long", body)
            tx.commit()
        for _ in range(2):
            with reopened(store) as again:
                assert again.snapshot("main")["a"] == b"1"
                blob = again.entry(1).events[0].blob
                assert blob is not None
                assert again.get(blob) == body
                assert cas.fsck(again).ok
            store.spill()


@pytest.mark.parametrize("wrong", [{"author": "x" * 1025}, {"message": "x" * 65537}])
def test_long_texts_are_refused_when_they_are_given(store: Store, wrong: dict[str, str]) -> None:
    """An author over 1 KiB or a message over 64 KiB never reaches a commit."""
    with pytest.raises(LimitExceeded):
        store.begin(**wrong)


@pytest.mark.parametrize("wrong", [{"author": None}, {"message": b"x"}, {"author": "\udc80"}])
def test_texts_that_are_none_are_refused(store: Store, wrong: dict[str, str]) -> None:
    """Bytes, None and lone surrogates are no author and no message."""
    with pytest.raises(Invalid):
        store.begin(**wrong)


def test_many_threads_commit_to_branches_of_their_own(store: Store) -> None:
    """Concurrent commits of threads all arrive, once, on one chain of entries."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            commits(store, 25, name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.seq for entry in store.journal()] == list(range(1, 101))
    assert all(len(list(store.log(f"t{at}"))) == 25 for at in range(4))
    with reopened(store) as other:
        assert len(other.branches()) == 4


def test_threads_on_one_branch_lose_no_update(store: Store) -> None:
    """Threads that count up one file, each trying again on a conflict, miss no number."""
    write(store, files={"n": b"0"})

    def work() -> None:
        for _ in range(15):
            while True:
                try:
                    with store.begin() as tx:
                        edit = tx.branch("main")
                        edit["n"] = b"%d" % (int(edit["n"]) + 1)
                        tx.commit()
                    break
                except RefConflict:
                    continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.snapshot("main")["n"] == b"60"


def test_a_forgotten_transaction_holds_nobody_up(store: Store) -> None:
    """A transaction that was dropped without an end blocks no other."""
    tx = store.begin()
    tx.branch("main")["a"] = b"1"
    del tx
    gc.collect()
    assert write(store).seq == 1


def test_a_closed_store_refuses(store: Store) -> None:
    """After close, transactions and writes say Closed, and closing again is harmless."""
    write(store)
    tx = store.begin()
    tx.branch("main")["a"] = b"1"
    store.close()
    store.close()
    with pytest.raises(Closed):
        tx.commit()
    for refused in (store.begin, store.view, lambda: store.put(b"x"), lambda: store.at(1)):
        with pytest.raises(Closed):
            refused()
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == {"file": b"1"}


def test_rules_are_asked_for_once_a_store_has_some(store: Store) -> None:
    """A refs tree without rules is known by its root; the first rule is seen by the next commit."""
    timeline = store.core.timeline
    for turn in range(3):
        with store.begin() as tx:
            tx.branch("main")["f"] = b"%d" % turn
            tx.commit()
        assert timeline.unruled == timeline.now().root
        assert timeline.is_unruled(timeline.now().root)
    before = timeline.now().root
    store.protect("main", "frozen")
    assert not timeline.is_unruled(timeline.now().root)
    assert timeline.is_unruled(before)
    with store.begin() as tx:
        tx.branch("main")["f"] = b"more"
        with pytest.raises(RefProtected):
            tx.commit()
    assert bytes(store.snapshot("main")["f"]) == b"2"
