"""Counts of references that are not believed, or are found to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas.errors import Uncounted
from cas.history.store import Store
from cas.history.upkeep import COUNTED, FULL
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import coloring
from cas.maintenance.gc.coloring import color_store
from cas.maintenance.gc.counts import load
from cas.maintenance.gc.forward import check_place
from cas.maintenance.gc.roots import read_roots
from cas.maintenance.gc.whereabouts import Whereabouts
from cas.model.ids import BlobId, digest_blob
from cas.objects.pipeline import Submitted
from cas.testing.stores import build, create
from cas.testing.versions import put_on
from tests import counted as counted_room
from tests.counted import Seen
from tests.unit.kit import ManualClock, write
from tests.unit.maintenance.histories import run, thin


@pytest.fixture
def store(cached_store: Store) -> Store:
    """One with a cache, in which counts are kept."""
    return cached_store


def garbage(store: Store, at: int) -> None:
    """A commit whose content is given up."""
    write(store, "main", {"x": b"%d" % at * 90})
    write(store, "main", {"x": b"%d later" % at * 90})
    thin(store, "main~1")


def files_of(store: Store) -> list[Path]:
    """The files of the counts, the one that names the others first."""
    assert store.objects.cache is not None
    return sorted(Path(store.objects.cache).glob("gc-counts*"))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "another"])
def test_damaged_counts_are_not_believed(store: Store, seen: Seen, which: int, how: str) -> None:
    """Whatever happened to one of its files, counts are right or everything is marked."""
    write(store, "main", {f"f{at}": b"%d" % at * 90 for at in range(40)})
    put_on(store, b"0" * 90, [b"0" * 90 + b"1"])
    run(store, FULL)
    garbage(store, 1)
    files = files_of(store)
    assert len(files) == 3
    data = bytearray(files[which].read_bytes())
    if how == "gone":
        files[which].unlink()
    elif how == "another":
        files[which].write_bytes(files[which - 1].read_bytes())
    else:
        data[len(data) // 3] ^= 4
        files[which].write_bytes(data[: len(data) // 2] if how == "cut" else data)
    done = store.gc(grace_us=0)
    # A block that was not asked for may be damaged.
    assert done.marked.how == FULL or seen.compared
    assert done.object_count
    garbage(store, 2)
    store.gc(grace_us=0)
    assert all(f.severity == Severity.NOTICE for f in fsck(store).findings)
    run(store, FULL, full=True)


def test_counts_of_a_state_that_is_not_ours_are_not_believed(tmp_path: Path, seen: Seen) -> None:
    """Counts that are newer than the catalog, or of a journal that went another way, are left."""
    folder = tmp_path / "store"
    create(str(folder), clock=ManualClock())

    def opened() -> Store:
        return build(str(folder), clock=ManualClock(), cached=True)

    with opened() as store:
        write(store, "main", {f"f{at}": b"%d" % at * 90 for at in range(20)})
        run(store, FULL)
        garbage(store, 0)
    before = {path.name: path.read_bytes() for path in folder.glob("catalog*")}
    with opened() as store:
        garbage(store, 1)
        run(store, COUNTED)
        with store.objects.catalog.read() as reader:
            roots = read_roots(store.core, reader)
    for path in folder.glob("catalog*"):
        path.unlink()
    for name, data in before.items():
        (folder / name).write_bytes(data)
    with opened() as store:
        counts = load(store.objects, roots.lineage)
        with store.objects.catalog.read() as reader:
            now = read_roots(store.core, reader)
            with pytest.raises(Uncounted, match="newer"):
                check_place(counts, now, reader)
        for at in range(9):
            write(store, "main", {"other": b"%d" % at})
        with store.objects.catalog.read() as reader:
            now = read_roots(store.core, reader)
            with pytest.raises(Uncounted, match="another journal"):
                check_place(counts, now, reader)
            with pytest.raises(Uncounted, match="another lineage"):
                load(store.objects, b"another lineage!")
        counts.close()


def test_a_disagreement_is_told_and_the_full_mark_is_taken(store: Store, seen: Seen) -> None:
    """Counts that are too low lose nothing once a full mark looks: it says so, and they are
    thrown away; those that it makes itself are right.
    """
    write(store, "main", {f"d/f{at}": b"%d" % at * 90 for at in range(20)})
    run(store, FULL)
    garbage(store, 1)
    with store.objects.catalog.read() as reader:
        counts = load(store.objects, reader.lineage())
    victim = digest_blob(b"7" * 90)
    assert counts.of(victim)
    counts.put(victim, 0)
    counts.unkept.add(victim)
    counts.save(store.objects, [])
    counts.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counted_room, "compare", lambda *_words: None)
        done = store.gc(grace_us=0, full=True)
    assert "would have taken 1 object" in done.marked.finding
    assert victim.hex() in done.marked.finding
    assert store.has(BlobId(victim))
    garbage(store, 2)
    assert run(store, COUNTED).object_count


def test_a_full_mark_comes_by_itself(
    store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a number of runs that believed counts one looks at everything, and compares."""
    monkeypatch.setattr(coloring, "GC_COUNTED_RUNS_MAX", 2)
    write(store, "main", {f"f{at}": b"%d" % at * 90 for at in range(20)})
    hows = []
    for at in range(7):
        garbage(store, at)
        hows.append(store.gc(grace_us=0).marked.how)
    assert hows == [FULL, COUNTED, COUNTED, FULL, COUNTED, COUNTED, FULL]


def test_a_place_that_only_begins_alike_is_not_colored(
    store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows beginnings of ids: what is loose is never taken for what is kept, and both
    stay where a mark would keep both.
    """
    write(store, "main", {f"f{at}": b"%d" % at * 90 for at in range(20)})
    run(store, FULL)
    garbage(store, 1)
    kept, loose = digest_blob(b"7" * 90), digest_blob(b"1" * 90)
    inner = Whereabouts.places

    def places(self: Whereabouts, id: bytes) -> list[tuple[int, int]]:
        found = list(inner(self, id))
        return [*inner(self, kept), *found] if id == loose else found

    monkeypatch.setattr(Whereabouts, "places", places)
    monkeypatch.setattr(counted_room, "compare", lambda *_words: None)
    run(store, COUNTED)
    assert store.has(BlobId(kept))
    assert store.has(BlobId(loose))


def test_an_object_of_two_packs_counts_once(store: Store, seen: Seen) -> None:
    """What a directory names is counted once, however many copies of the directory there are."""
    write(store, "main", {f"d/f{at}": b"%d" % at * 90 for at in range(20)})
    id = store.snapshot("main").entry("d").id
    kind, content = store.objects.read(id)
    batch = store.objects.new_batch()
    batch.rewrite([Submitted(id, kind, bytes(content), None, len(content), 0, 0)])
    batch.seal()
    with store.objects.catalog.write() as writer:
        head = writer.head()
        rows = batch.install(writer, head)
    batch.installed(rows, head)
    assert len(list(store.objects.lookup.copies(id))) == 2
    run(store, FULL)
    with store.objects.catalog.read() as reader:
        counts = load(store.objects, reader.lineage())
    assert counts.of(digest_blob(b"7" * 90)) == 1
    counts.close()


def test_a_run_on_a_full_disk_writes_no_counts(store: Store, seen: Seen) -> None:
    """What there was is believed, and stays as it was: room is for what gives room back."""
    write(store, "main", {f"f{at}": b"%d" % at * 90 for at in range(40)})
    run(store, FULL)
    garbage(store, 1)
    before = {path: path.read_bytes() for path in files_of(store)}
    with store.objects.catalog.read() as reader:
        roots = read_roots(store.core, reader)
    kept = store.plan_gc(grace_us=0).kept
    for path in files_of(store):
        path.unlink()
    for path, data in before.items():
        path.write_bytes(data)
    for full in (False, True):
        found = color_store(store.core, store.objects, roots, kept, full=full, saving=False)
        assert found.marked.how == (FULL if full else COUNTED)
        assert {path: path.read_bytes() for path in files_of(store)} == before
