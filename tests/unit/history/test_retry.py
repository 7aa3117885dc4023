"""Idempotency: a key commits once, whatever happened to the answer and to the world since."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import OutcomeUnknown, RefConflict, TransactionReused
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.model.entry import Entry, Event, request_digest, txid_from_key
from tests.unit.kit import commits, reopened, write

Work = Callable[[Store, Transaction], None]


def attempt(store: Store, work: Work, key: str = "k", **how: str) -> Entry:
    """One try of a keyed transaction."""
    with store.begin(key=key, **how) as tx:
        work(store, tx)
        return tx.commit()


def _edit(_store: Store, tx: Transaction) -> None:
    tx.branch("main")["a"] = b"1"


def _delete(_store: Store, tx: Transaction) -> None:
    del tx.branch("main")["file"]


def _events(_store: Store, tx: Transaction) -> None:
    tx.event("closed", b"s12", {"by": "planner"})
    tx.event("long", b"x" * 300)


def _tag(store: Store, tx: Transaction) -> None:
    tx.tag("v1", store.at(1).resolve("main"), "a message, so that it is an object with a time")


def _drop_ref(_store: Store, tx: Transaction) -> None:
    tx.delete("heads/main")


def _put(_store: Store, tx: Transaction) -> None:
    tx.put(b"an object of its own")


def _empty(_store: Store, tx: Transaction) -> None:
    tx.branch("main", allow_empty=True)


def _several(store: Store, tx: Transaction) -> None:
    _edit(store, tx)
    _events(store, tx)
    tx.branch("new")["b"] = b"2"
    tx.move("heads/moved", store.at(1).resolve("main"))


WORKS: dict[str, Work] = {
    "an edit": _edit,
    "a delete": _delete,
    "events": _events,
    "a tag": _tag,
    "a ref dropped": _drop_ref,
    "a put": _put,
    "an empty commit": _empty,
    "several at once": _several,
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("between", ["nothing", "elsewhere", "the same files", "the same refs"])
def test_a_retry_gives_the_entry_of_the_first_time(store: Store, work: str, between: str) -> None:
    """Whatever was asked for, and whatever was committed since: the first entry is the answer."""
    write(store, files={"file": b"0", "keep": b"k"})
    first = attempt(store, WORKS[work], author="me", message="m")
    if between == "elsewhere":
        write(store, "other")
    elif between == "the same files":
        write(store, files={"a": b"later", "file": b"later"})
    elif between == "the same refs":
        with store.begin() as tx:
            tx.branch("fresh")["x"] = b"1"
            if store.view().ref("heads/main") is not None:
                tx.delete("heads/main")
            tx.commit()
    count = len(list(store.journal()))
    assert attempt(store, WORKS[work], author="me", message="m") == first
    with reopened(store) as other:
        assert attempt(other, WORKS[work], author="me", message="m") == first
    assert len(list(store.journal())) == count
    assert store.outcome("k") == store.outcome(first.txid) == first
    assert first.txid == txid_from_key("k")


@pytest.mark.parametrize("work", WORKS)
def test_a_key_is_not_used_for_something_else(store: Store, work: str) -> None:
    """Another author, message or request under a used key is refused and nothing committed."""
    write(store, files={"file": b"0"})
    attempt(store, WORKS[work], author="me")
    count = len(list(store.journal()))
    others: list[tuple[Work, dict[str, str]]] = [
        (WORKS[work], {"author": "somebody else"}),
        (WORKS[work], {"author": "me", "message": "another"}),
    ]
    others += [(other, {"author": "me"}) for name, other in WORKS.items() if name != work]
    for other, how in others:
        with pytest.raises(TransactionReused) as caught:
            attempt(store, other, **how)
        assert caught.value.seq == 2
    assert len(list(store.journal())) == count


def test_a_failed_try_uses_no_key(store: Store) -> None:
    """A conflict or a rollback leaves the key free for the request that will commit."""
    write(store)
    tx = store.begin(key="k")
    _edit(store, tx)
    write(store, files={"a": b"2"})
    with pytest.raises(RefConflict):
        tx.commit()
    with store.begin(key="k") as rolled:
        rolled.event("never")
    assert store.outcome("k") is None
    assert attempt(store, _events).seq == 3


def test_many_that_retry_at_once_commit_once(store: Store) -> None:
    """Threads and handles that ask the same under one key get one entry between them."""
    write(store)
    found: list[Entry] = []
    odd: list[BaseException] = []
    start = threading.Barrier(6)

    with reopened(store) as other:

        def work(handle: Store) -> None:
            start.wait()
            while True:
                try:
                    found.append(attempt(handle, _several))
                    return
                except RefConflict:
                    continue
                except BaseException as error:
                    odd.append(error)
                    return

        handles = [store, other] * 3
        threads = [threading.Thread(target=work, args=(handle,)) for handle in handles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert odd == []
    assert len({entry.seq for entry in found}) == 1
    assert len(found) == 6
    assert len(list(store.journal())) == 2


def test_generated_ids_are_found_over_checkpoints(store: Store) -> None:
    """A transaction without a key is found by its id, however long ago it committed."""
    entries = commits(store, 300)
    for entry in entries[::37]:
        assert store.outcome(entry.txid) == entry
    assert store.outcome(store.begin().txid) is None


# -- the digest ------------------------------------------------------------------------------

PATHS = st.binary(min_size=1, max_size=3).filter(lambda path: b"\0" not in path)
STAGED = st.dictionaries(PATHS, st.none() | st.binary(min_size=32, max_size=32), max_size=5)
REQUESTS = st.tuples(
    st.text(max_size=5),
    st.text(max_size=5),
    st.dictionaries(st.text(min_size=1, max_size=4), st.tuples(st.booleans(), STAGED), max_size=3),
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.tuples(st.none() | st.binary(min_size=32, max_size=32), st.none() | st.text(max_size=3)),
        max_size=3,
    ),
    st.sets(st.binary(min_size=32, max_size=32), max_size=3),
    st.lists(st.builds(Event, st.text(max_size=3), st.binary(max_size=3)), max_size=3),
)


def digest_of_request(request: tuple, order: Callable[[list], list]) -> bytes:
    """The digest of a request whose unordered parts are given in some order."""
    author, message, branches, moves, puts, events = request
    return request_digest(
        author,
        message,
        [
            (
                ref,
                empty,
                order([(p, 0 if id is None else 1, id) for p, id in staged.items()]),
            )
            for ref, (empty, staged) in order(list(branches.items()))
        ],
        order([(ref, target, text) for ref, (target, text) in moves.items()]),
        order(list(puts)),
        events,
    )


@given(REQUESTS, st.randoms(use_true_random=False))
def test_the_order_of_asking_does_not_count(request: tuple, random: object) -> None:
    """Branches, paths, moves and puts in any order give one digest."""

    def shuffled(items: list) -> list:
        random.shuffle(items)  # type: ignore[attr-defined]
        return items

    assert digest_of_request(request, shuffled) == digest_of_request(request, sorted_by_text)


def sorted_by_text(items: list) -> list:
    """Some fixed order of anything."""
    return sorted(items, key=repr)


@given(REQUESTS, REQUESTS)
def test_different_requests_have_different_digests(one: tuple, two: tuple) -> None:
    """Whatever differs in what was asked for shows in the digest."""
    same = digest_of_request(one, list) == digest_of_request(two, list)
    assert same == (one == two)


def test_paths_are_ordered_as_whole_paths(memory: Store) -> None:
    """`a!` stands before `a/b`, as docs/format.md says: by the bytes of the path, not by names."""
    with memory.begin(key="k") as tx:
        edit = tx.branch("main")
        edit["a/b"] = b"1"
        edit["a!"] = b"2"
        one, two = edit.entry("a!"), edit.entry("a/b")
        assert one is not None
        assert two is not None
        entry = tx.commit()
    staged = [(b"a!", 1, bytes(one.id)), (b"a/b", 1, bytes(two.id))]
    expected = request_digest("", "", [("heads/main", False, staged)], [], [], [])
    assert entry.request == expected


def test_a_lost_answer_to_a_retry_leaves_nothing_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry whose own answer is lost is told the entry of the first time, and takes back what it
    had written for the second: its file and its session.
    """
    large = os.urandom(3_000_000)

    def work(_store: Store, tx: Transaction) -> None:
        tx.branch("main")["large"] = large

    told: list[int] = []
    with reopened(store) as other:
        retry = other.begin(key="k")
        work(other, retry)
        first = attempt(store, work)
        files = {file.name for file in store.objects.bucket.list()}
        run = other.objects.committer.run

        def lost(*words: Any, **how: Any) -> Any:
            run(*words, **how)
            raise OutcomeUnknown("The answer was lost.", txid=None)

        monkeypatch.setattr(other.objects.committer, "run", lost)
        monkeypatch.setattr(other, "_after_commit", lambda entry: told.append(entry.seq))
        retry._after_commit = other._after_commit
        with retry:
            assert retry.commit() == first
        assert not told
        assert {file.name for file in store.objects.bucket.list()} - files == set()
        with store.objects.catalog.read() as reader:
            assert list(reader.sessions()) == []
