"""The horizon and thinned commits: both only grow, and what can be read is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import pytest

from cas.errors import (
    BeforeHorizon,
    Gone,
    HorizonFixed,
    Invalid,
    NotCanonical,
    OnHold,
    RefConflict,
    Thinned,
    UndoBeforeHorizon,
)
from cas.history.horizon import (
    NO_HORIZON,
    Horizon,
    Thinning,
    decode_horizon,
    decode_thinning,
    encode_horizon,
    encode_thinning,
    horizon_now,
    thinned_commits,
)
from cas.history.live import live_targets
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.thinning import stage_horizon
from cas.maintenance.fsck.check import fsck
from cas.model.encoding import encode
from cas.model.entry import Entry
from cas.model.ids import CommitId, ObjectId
from cas.model.names import HOLDS, HORIZON_REF
from cas.trees.node import DIRECTORY
from tests.unit.kit import commits, reopened, write

WHY = Thinning("main keeps the last 2", "ada", 1_700_000_000_000_000)


def thin(store: Store, seq: int, ids: Iterable[str | CommitId] = (), author: str = "ada") -> Entry:
    """Raise the horizon and thin commits, with nothing but the rules of the gate."""
    fresh = {store.resolve(id): WHY for id in ids}
    with store.begin(author=author, message="thin") as tx:
        stage_raise(store.core, tx, seq, fresh)
        return tx.commit()


def test_a_store_begins_without_a_horizon(store: Store) -> None:
    """As long as nobody raises it, every state can be read and nothing is thinned."""
    commits(store, 3)
    assert horizon_now(store.core) == NO_HORIZON
    assert store.at(0).branches() == []
    assert list(thinned_commits(store.core, NO_HORIZON)) == []
    assert store.view().thinning("main") is None


def test_states_before_the_horizon_are_gone(store: Store) -> None:
    """`at`, `main@{..}` and restore answer from the horizon on; before, they name it."""
    entries = commits(store, 5)
    thin(store, 3)
    assert store.at(3).snapshot("main")["n"] == b"2"
    for ask in (
        lambda: store.at(2),
        lambda: store.at(time_us=entries[1].time_us),
        lambda: store.resolve("main@{2}"),
        lambda: store.restore(seq=1),
        lambda: store.plan_restore("main", seq=2),
    ):
        with pytest.raises(BeforeHorizon) as caught:
            ask()
        assert caught.value.boundary == 3
    assert [entry.seq for entry in store.journal()] == [1, 2, 3, 4, 5, 6]
    with reopened(store) as other, pytest.raises(BeforeHorizon):
        other.at(2)


def test_entries_before_the_horizon_cannot_be_taken_back(store: Store) -> None:
    """An entry can be undone when the state before it can be read; the error names the boundary."""
    commits(store, 4)
    thin(store, 2)
    for seq in (1, 2):
        with pytest.raises(UndoBeforeHorizon) as caught:
            store.undo(seq)
        assert caught.value.boundary == 2
    assert store.undo().seq == 4
    assert store.snapshot("main")["n"] == b"2"


def test_a_thinned_commit_keeps_its_record(store: Store) -> None:
    """Record, parents and log stay; content, and whatever needs it, is a typed error."""
    commits(store, 5)
    thin(store, 4, ["main~3", "main~2"])
    ids = [id for id, _commit in store.log("main")]
    assert len(ids) == 5
    assert store.commit("main~3").message == ""
    assert store.view().thinning("main~3") == WHY
    assert store.view().thinning("main~1") is None
    assert set(thinned_commits(store.core, horizon_now(store.core))) == {ids[2], ids[3]}
    for ask in (
        lambda: store.snapshot("main~3"),
        lambda: list(store.diff("main~2", "main")),
        lambda: store.view().snapshot(ids[3]),
        lambda: store.blame("main~2", "n"),
        lambda: list(store.log("main~2", path="n")),
    ):
        with pytest.raises(Thinned) as caught:
            ask()
        assert (caught.value.boundary, caught.value.reason) == (4, WHY.reason)
        assert isinstance(caught.value, Gone)
    assert store.snapshot("main~1")["n"] == b"3"


def test_a_view_from_before_sees_what_was_thinned_since(store: Store) -> None:
    """What was given up is given up for every handle and every view, however old."""
    commits(store, 5)
    with reopened(store) as other:
        view = other.view()
        thin(store, 5, ["main~3"])
        with pytest.raises(Thinned):
            view.snapshot("main~3")
        with pytest.raises(Thinned):
            other.at(5).snapshot("main~3")


def test_the_history_of_a_path_passes_thinned_commits_over(store: Store) -> None:
    """What a thinned commit changed is told of the next commit behind it that has content."""
    for number in range(6):
        write(store, "main", {"a": b"%d\n" % number, "same": b"1"})
    ids = [id for id, _commit in store.log("main")]
    thin(store, 6, ids[2:5])
    assert [id for id, _commit in store.log("main", path="a")] == [ids[0], ids[1], ids[5]]
    assert [id for id, _commit in store.log("main", path="same")] == [ids[5]]
    assert store.blame("main", "a")[0].id == ids[0]
    assert {entry.name: entry.id for entry in store.blame_entries("main~1")} == {
        "a": ids[1],
        "same": ids[5],
    }


@pytest.mark.parametrize("at", ["head", "past", "tag", "annotated", "pin"])
def test_what_a_ref_points_at_is_never_thinned(store: Store, at: str) -> None:
    """A target of a branch, tag or pin in any state that can be read keeps its content."""
    commits(store, 4)
    target = store.resolve("main~2")
    if at == "pin":
        store.pin(target)
    elif at in ("tag", "annotated"):
        with store.begin() as tx:
            tx.tag("v1", target, "text" if at == "annotated" else "")
            tx.commit()
    seq = store.view().seq
    horizon = {"head": seq, "past": 2}.get(at, seq)
    wanted = "main" if at == "head" else target
    with pytest.raises(RefConflict):
        thin(store, horizon, [wanted])
    assert horizon_now(store.core) == NO_HORIZON
    assert store.view().seq == seq


def test_no_ref_is_made_to_point_at_a_thinned_commit(store: Store) -> None:
    """A branch, a tag, a pin or a rewind to a thinned commit is refused, and nothing happens."""
    commits(store, 4)
    thin(store, 4, ["main~3"])
    old = store.resolve("main~3")

    def tag(message: str) -> None:
        with store.begin() as tx:
            tx.tag("v1", old, message)
            tx.commit()

    def branch() -> None:
        with store.begin() as tx:
            tx.move("heads/again", old)
            tx.commit()

    acts: Mapping[str, Callable[[], object]] = {
        "tag": lambda: tag(""),
        "annotated": lambda: tag("text"),
        "branch": branch,
        "pin": lambda: store.pin(old),
    }
    before = store.view()
    for act in acts.values():
        with pytest.raises(Thinned):
            act()
    assert store.view().refs() == before.refs()


def test_the_horizon_never_moves_back(store: Store) -> None:
    """Neither a lower horizon, nor a smaller set, nor deleting the ref, undo or rewind."""
    commits(store, 4)
    thin(store, 4, ["main~3"])
    now = horizon_now(store.core)
    # Never lower, although it is asked for; beside it more can be thinned.
    thin(store, 1, ["main~2"])
    assert horizon_now(store.core).seq == 4
    with store.begin() as tx:
        tx.delete(HORIZON_REF)
        with pytest.raises(HorizonFixed):
            tx.commit()
    for before in (Horizon(0, DIRECTORY.empty, now.root), Horizon(0)):
        with store.begin() as tx:
            target = tx.stage(
                lambda batch, before=before: stage_horizon(  # type: ignore[misc]
                    store.core, batch, before, 3 if before.root == now.root else 5, {}, "", ""
                )
            )
            tx.move(HORIZON_REF, target)
            with pytest.raises(HorizonFixed):
                tx.commit()
    for seq in (5, 6):
        with pytest.raises(HorizonFixed):
            store.undo(seq)
    with pytest.raises(UndoBeforeHorizon):
        store.undo()
    store.restore(seq=4)
    assert len(list(thinned_commits(store.core, horizon_now(store.core)))) == 2
    assert horizon_now(store.core).seq == 4


def test_only_a_horizon_is_a_horizon(store: Store) -> None:
    """A commit, a horizon that has not come yet, or a thinned tree: none is taken for one."""
    write(store)
    with store.begin() as tx:
        tx.move(HORIZON_REF, store.resolve("main"))
        with pytest.raises(Invalid):
            tx.commit()
    with pytest.raises(Invalid, match="newest"):
        thin(store, 9)
    tree = store.commit("main").tree
    with store.begin() as tx, pytest.raises(Invalid, match="commits"):
        stage_raise(store.core, tx, 1, {CommitId(tree): WHY})
    assert store.view().seq == 1


def test_what_is_thinned_is_compared_inside_the_gate(store: Store) -> None:
    """A branch that another handle makes after the comparison, and before the commit, counts."""
    commits(store, 4)
    old = store.resolve("main~3")
    with reopened(store) as other, store.begin() as tx:
        stage_raise(store.core, tx, 4, {old: WHY})
        with other.begin() as faster:
            faster.move("heads/kept", old)
            faster.commit()
        with pytest.raises(RefConflict):
            tx.commit()
    assert store.snapshot("kept")["n"] == b"0"


def test_a_legal_hold_keeps_all_that_led_to_it(store: Store) -> None:
    """A hold on a commit keeps the content of every commit before it too."""
    commits(store, 4)
    head, old = store.resolve("main"), store.resolve("main~3")
    with store.begin() as tx:
        tx.move(HOLDS + head.hex(), head)
        tx.commit()
    with pytest.raises(OnHold) as caught:
        thin(store, 5, [old])
    assert caught.value.hold == head
    with reopened(store) as other:
        other.undo(4)
        with pytest.raises(OnHold):
            other.undo(5)


def test_roots_are_what_refs_pointed_at_behind_the_horizon(store: Store) -> None:
    """Every target of a state at or behind the horizon is a root, and no other commit."""
    commits(store, 3)
    write(store, "gone")
    with store.begin() as tx:
        tx.delete("heads/gone")
        tx.commit()
    commits(store, 2)
    moment = store.view().moment
    everything = {t.target for t in live_targets(store.core, moment)}
    assert len(everything) == 6
    thin(store, 6)
    found = {t.target for t in live_targets(store.core, store.view().moment)}
    horizon = store.view().ref(HORIZON_REF)
    assert horizon is not None
    expected = {store.resolve("main"), store.resolve("main~1"), horizon.target}
    assert {ObjectId(id) for id in found} == {ObjectId(id) for id in expected}


def test_a_key_from_before_the_horizon_is_still_answered(store: Store) -> None:
    """A retry whose first state is gone gives the entry of the first time, or says reused."""
    first = write(store, "main", {"a": b"1"}, key="sprint")
    commits(store, 3)
    thin(store, 4)
    assert write(store, "main", {"a": b"1"}, key="sprint") == first


def test_fsck_knows_the_horizon(store: Store) -> None:
    """A store with thinned commits and a raised horizon is clean as long as nothing is missing."""
    commits(store, 5)
    thin(store, 4, ["main~4", "main~3"])
    assert fsck(store).findings == ()


def test_members_of_one_group_read_what_was_thinned(store: Store) -> None:
    """Commits of many threads beside raises of the horizon: each is done or typed refused."""
    commits(store, 6)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                if number == 0:
                    thin(store, min(step + 2, 6))
                else:
                    write(store, f"b{number}", {"x": b"%d" % step})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert horizon_now(store.core).seq == 6


@pytest.mark.parametrize("value", [[2, 1, {}], [1, "1", {}], [1, 1], {}, [1, -1, {}], [1, 1, []]])
def test_only_horizons_decode(value: object) -> None:
    """Another version, another shape: none is taken for a horizon."""
    with pytest.raises(NotCanonical):
        decode_horizon(encode(value))
    assert decode_horizon(encode_horizon(7)) == 7


@pytest.mark.parametrize("value", [[2, "a", "b", 1, {}], [1, 1, "b", 1, {}], [1, "a", "b", 1], {}])
def test_only_thinnings_decode(value: object) -> None:
    """Another version, another shape: none is taken for a reason."""
    with pytest.raises(NotCanonical):
        decode_thinning(encode(value))
    assert decode_thinning(encode_thinning(WHY)) == WHY
