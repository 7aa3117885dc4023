"""Legal holds that come while a purge is on its way: the content that they cover stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cas.errors import OnHold, RefConflict
from cas.history.store import Store
from cas.history.tombstones import Tombstone, stage_tombstones
from cas.maintenance import purge as purging
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, Kind, digest_blob
from cas.model.names import PURGED_REF
from cas.objects.batch import Batch
from tests.unit.kit import reopened, write

SECRET = b"a secret " * 9
ID = BlobId(digest_blob(SECRET))


def before(inner: Callable[..., Any], first: Callable[[], object]) -> Callable[..., Any]:
    """`inner`, in front of which something happens, the first time."""
    left = [first]

    def both(*words: Any, **how: Any) -> Any:
        if left:
            left.pop()()
        return inner(*words, **how)

    return both


@pytest.mark.parametrize("what", ["main", "blob"])
@pytest.mark.parametrize("step", ["_bury", "stage_tombstones"])
def test_a_hold_that_comes_between_plan_and_entry_is_honoured(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, what: str
) -> None:
    """Behind the plan, or behind the last look at holds: nothing is buried, and all is there."""
    write(store, "main", {"d/secret": SECRET, "other": b"o"})
    with reopened(store) as other:

        def hold() -> None:
            other.hold(ID if what == "blob" else "main", reason="a court asks for it")

        monkeypatch.setattr(purging, step, before(getattr(purging, step), hold))
        with pytest.raises(OnHold):
            purge(store, ID, reason="asked for")
    assert store.snapshot("main")["d/secret"] == SECRET
    assert store.purged() == []
    assert fsck(store).findings == ()
    (made,) = store.holds()
    store.release(made.id)
    assert purge(store, ID, reason="asked for").entry is not None


def test_a_hold_of_something_else_delays_a_purge_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again, and the purge goes on; one that is lifted meanwhile is nobody's."""
    write(store, "main", {"d/secret": SECRET})
    write(store, "rest", {"other": b"o"})
    store.hold(store.put(b"loose"), reason="a court asks for it")
    with reopened(store) as other:

        def hold() -> None:
            other.release(digest_blob(b"loose").hex())
            other.hold("rest", reason="a court asks for it")

        staging = before(purging.stage_tombstones, hold)
        monkeypatch.setattr(purging, "stage_tombstones", staging)
        assert purge(store, ID, reason="asked for").entry is not None
    assert [stone.id for stone in store.purged()] == [ID]


def test_no_entry_buries_what_a_later_hold_may_cover(store: Store) -> None:
    """Whoever stages a tombstone is told of a hold that came since, as a conflict."""
    write(store, "main", {"d/secret": SECRET})
    core = store.core
    with store.begin() as tx:
        moment = core.timeline.now()
        stone = Tombstone(ID, Kind.BLOB, len(SECRET), "r", "a", 1)

        def stage(batch: Batch) -> Any:
            return stage_tombstones(core, batch, moment, {ID: stone}, "a", "m")

        tx.move(PURGED_REF, tx.stage(stage))
        with reopened(store) as other:
            other.hold("main", reason="a court asks for it")
        with pytest.raises(RefConflict, match="legal hold"):
            tx.commit()
    assert store.purged() == []
