"""Counts of references beside a catalog that was put back, where nothing in the journal says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from cas.history.upkeep import COUNTED, FULL
from cas.maintenance.copying import copy_refs
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc.roots import _is_hollow
from cas.model.ids import BlobId, CommitId, digest_blob
from cas.storage.codec import DICTIONARY
from cas.testing.memories import ENOUGH, memories_of
from cas.testing.stores import SMALL, build, create
from tests.counted import Seen
from tests.unit.kit import ManualClock, write
from tests.unit.maintenance.histories import thin

DAY_US = 86_400_000_000


def test_a_catalog_put_back_at_the_same_entry_is_noticed(
    tmp_path: Path, seen: Seen, rng: Random
) -> None:
    """gc, moves and loose puts write no entry; what they gave up was counted as gone.

    The content is then put again, so that a later run would keep a directory that it does not
    count and take the files below; another store's copy of that directory would rest on them.
    """
    clock = ManualClock()
    for name in ("source", "store"):
        create(str(tmp_path / name), clock=clock)
    source = build(str(tmp_path / "source"), clock=clock, cached=True)
    write(source, "main", {f"m/x{at}": rng.randbytes(300) for at in range(1_500)})
    old = {f"d/f{at}": rng.randbytes(300) for at in range(40)}
    write(source, "main", old)
    write(source, "feature", old)
    write(source, "main", dict.fromkeys(old))
    write(source, "main", {"later": b"1"})
    place, saved = tmp_path / "store", tmp_path / "saved"

    with build(str(place), clock=clock, cached=True) as store:
        copy_refs(source, store, ["main"])
        thin(store)
        store.spill()
        store.gc(grace_us=0)
        thin(store, "main~2", seq=store.plan_gc(grace_us=0).horizon)
    shutil.copytree(place, saved, ignore=shutil.ignore_patterns("cache", "locks"))
    with build(str(place), clock=clock, cached=True) as store:
        assert store.gc(grace_us=0).object_count > len(old)
        assert store.plan_gc(grace_us=0).marked.how == COUNTED
    for path in place.glob("catalog*"):
        path.unlink()
    shutil.copytree(saved, place, dirs_exist_ok=True)

    with build(str(place), clock=clock, cached=True) as store:
        store.put(old["d/f7"])
        clock.now_us += 10 * DAY_US
        store.put(old["d/f7"])
        run = store.plan_gc(grace_us=0)
        assert (run.marked.how, run.marked.reason) == (
            FULL,
            "objects exist again that the counts know as gone",
        )
        store.gc(grace_us=0)
        copy_refs(source, store, ["feature"])
        assert {path: store.snapshot("feature")[path] for path in old} == old
        assert not [each for each in fsck(store).findings if each.severity.name == "LOSS"]
    source.close()


def test_a_commit_that_came_thinned_beside_an_open_session_is_no_damage(tmp_path: Path) -> None:
    """What the session looks back to is whole; what came since without its content is not there."""
    clock = ManualClock()
    for name in ("source", "store"):
        create(str(tmp_path / name), clock=clock)
    source = build(str(tmp_path / "source"), clock=clock, cached=True)
    store = build(str(tmp_path / "store"), clock=clock, cached=True)
    for number in range(3):
        write(source, "main", {"x": b"%d" % number * 60})
    thin(source, "main~1", "main~2")
    source.gc(grace_us=0)
    write(store, "main", {"y": b"1"})
    with store.begin(author="a") as tx:
        tx.branch("large")["f"] = Random(1).randbytes(9_000_000)
        copy_refs(source, store, ["main"], force=True, thinned=True)
        thin(store)
        store.gc(grace_us=0)
        # One that has gone as a whole is asked for nothing.
        assert _is_hollow(store.core, CommitId(b"\1" * 32))
        tx.commit()
    store.gc(grace_us=0)
    assert not [each for each in fsck(store).findings if each.severity.name != "NOTICE"]
    source.close()
    store.close()


def test_a_put_of_what_lies_beside_a_dictionary_writes_a_copy_that_needs_none(
    tmp_path: Path,
) -> None:
    """Copies older than half the grace are written again, into a pack that names no dictionary."""
    clock = ManualClock()
    create(str(tmp_path / "store"), clock=clock)
    with build(str(tmp_path / "store"), clock=clock, cached=True, thresholds=SMALL) as store:
        contents = [*memories_of(Random(1), ENOUGH), *memories_of(Random(2), ENOUGH)]
        for name, part in (("m", contents[:ENOUGH]), ("k", contents[ENOUGH:])):
            write(store, "main", {f"{name}/{at}": text for at, text in enumerate(part)})
            store.spill()
        copies = store.objects.lookup.copies
        (id,) = (store.put(contents[0]),)
        assert {copy.slot.codec for copy in copies(id)} == {DICTIONARY}
        clock.now_us += 10 * DAY_US
        store.put(contents[0])
        assert {copy.slot.codec for copy in copies(id)} > {DICTIONARY}
        assert not [each for each in fsck(store).findings if each.severity.name != "NOTICE"]
        store.spill()
        assert store.get(id) == contents[0]


def test_an_index_of_packs_that_a_catalog_put_back_will_number_anew_is_left(
    tmp_path: Path, rng: Random
) -> None:
    """A run of the index that is ahead of the catalog speaks of other packs than those to come.

    Whoever asked for content of the lost state, or collected, was answered by an assertion.
    """
    clock = ManualClock()
    place, saved = tmp_path / "store", tmp_path / "saved"
    create(str(place), clock=clock)
    with build(str(place), clock=clock, cached=True) as store:
        write(store, "main", {"a": rng.randbytes(3_000_000)})
    shutil.copytree(place, saved, ignore=shutil.ignore_patterns("cache", "locks"))
    lost = rng.randbytes(3_000_000)
    with build(str(place), clock=clock, cached=True) as store:
        id = store.put(lost)
        assert store.get(id) == lost
        assert not store.has(BlobId(digest_blob(b"what the index is asked for")))
    for path in place.glob("catalog*"):
        path.unlink()
    shutil.copytree(saved, place, dirs_exist_ok=True)
    with build(str(place), clock=clock, cached=True) as store:
        assert not store.has(BlobId(digest_blob(b"what the index is asked for")))
        for at in range(5):
            write(store, "main", {"b": b"%d" % at})
        assert not store.has(id)
        assert store.put(lost) == id
        assert store.get(id) == lost
        store.gc(grace_us=0)
        assert not [each for each in fsck(store).findings if each.severity.name == "LOSS"]


def test_a_pack_has_no_age_of_one_that_a_catalog_put_back_has_lost(tmp_path: Path) -> None:
    """Numbers of packs are given anew; what lies in such a one is as young as it is."""
    clock = ManualClock()
    place, saved = tmp_path / "store", tmp_path / "saved"
    create(str(place), clock=clock)
    with build(str(place), clock=clock, cached=True) as store:
        write(store, "main", {"a": b"1"})
        shutil.copytree(place, saved, ignore=shutil.ignore_patterns("cache", "locks"))
    with build(str(place), clock=clock, cached=True) as store:
        store.put(b"lost")
        for _ in range(13):
            clock.now_us += DAY_US
            store.gc()
        assert store.gc().waiting_count == 1
    for path in place.glob("catalog*"):
        path.unlink()
    shutil.copytree(saved, place, dirs_exist_ok=True)
    with build(str(place), clock=clock, cached=True) as store:
        id = store.put(b"young")
        for _ in range(14):
            clock.now_us += DAY_US
            store.gc()
            assert store.has(id)
        gone = 0
        for _ in range(3):
            clock.now_us += DAY_US
            gone += store.gc().object_count
        assert gone == 1
