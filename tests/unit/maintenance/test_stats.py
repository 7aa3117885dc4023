"""Statistics count each object once, and say where the bytes lie."""

from __future__ import annotations

from pathlib import Path

import pytest

import cas
from cas import assembly
from cas.history.store import Store
from cas.maintenance import folder
from cas.maintenance.stats import FolderBytes, StoreStats, measure, stats
from cas.model.ids import Kind
from tests.unit.kit import commits, write
from tests.unit.maintenance.plant import blob, flip, install, pack_file


def by_kind(found: StoreStats) -> dict[Kind, int]:
    """Objects of each kind."""
    return {kind.kind: kind.object_count for kind in found.kinds}


def test_an_empty_store(store: Store) -> None:
    """A new store has nothing, and no times."""
    found = stats(store)
    assert (found.object_count, found.pack_count, found.entry_count) == (0, 0, 0)
    assert found.oldest_us is None
    assert found.newest_us is None
    assert found.files.catalog > 0


def test_objects_are_counted_by_kind(store: Store) -> None:
    """Blobs, tree nodes, commits and tags are counted and summed, packs and refs too."""
    first = write(store, files={"a": b"1" * 100, "d/b": b"2" * 50, "d/c": b"1" * 100})
    with store.begin() as tx:
        tx.tag("v1", store.resolve("main"), "message")
        last = tx.commit()
    found = stats(store)
    assert by_kind(found) == {Kind.BLOB: 2, Kind.TREE: 2, Kind.COMMIT: 1, Kind.TAG: 1}
    assert found.kinds[0].content_bytes == 150
    assert found.stored_bytes <= found.content_bytes
    assert (found.inline_pack_count, found.file_pack_count) == (2, 0)
    assert (found.entry_count, found.branch_count, found.tag_count) == (2, 1, 1)
    assert (found.oldest_us, found.newest_us) == (first.time_us, last.time_us)


def test_spilling_changes_packs_and_nothing_else(store: Store) -> None:
    """Where objects lie is one thing, what they are another; only the journal is mirrored."""
    commits(store, 5)
    before = stats(store)
    store.spill()
    after = stats(store)
    assert after.kinds[:-1] == before.kinds
    assert (after.kinds[-1].kind, after.kinds[-1].object_count) == (Kind.SEGMENT, 1)
    assert (before.mirrored_seq, after.mirrored_seq) == (0, 5)
    assert (after.inline_pack_count, after.file_pack_count) == (0, 1)
    assert after.file_pack_bytes == pack_file(store).stat().st_size == after.files.packs
    assert after == stats(store)


def test_further_copies_are_told_apart(store: Store) -> None:
    """A second copy of an object is counted as a duplicate, not as an object."""
    content = b"kept twice" * 10
    install(store, [blob(content)])
    install(store, [blob(content)])
    found = stats(store)
    assert by_kind(found) == {Kind.BLOB: 1}
    assert (found.duplicate_count, found.duplicate_bytes) == (1, len(content))
    assert found.stored_bytes == 2 * len(content)


def test_condemned_copies_are_gone(store: Store) -> None:
    """What a deletion vector has given up is not counted."""
    number = install(store, [blob(b"gone"), blob(b"kept")])
    with store.objects.catalog.write() as writer:
        writer.set_vector(number, number + 1, b"\x01")
        writer.record_removal(number + 1, 1)
    assert stats(store).object_count == 1


def test_content_in_chunks_is_counted_as_its_chunks(store: Store) -> None:
    """A large blob stands in the statistics with its chunks, and beside them as what it is."""
    size = (9 << 20) + 5
    store.put(b"\0" * size)
    found = stats(store)
    assert (found.chunked_count, found.chunked_bytes) == (1, size)
    assert by_kind(found)[Kind.RECIPE] == 1
    assert found.kinds[0].content_bytes < size


def test_a_damaged_footer_is_counted(store: Store) -> None:
    """Statistics of a damaged store say how many packs could not be read."""
    commits(store, 3)
    flip(pack_file(store), -50)
    with cas.open(store.location, read_only=True) as fresh:
        found = stats(fresh)
    assert found.unreadable_pack_count == 1


def test_a_store_in_memory_has_no_files(memory: Store) -> None:
    """Without a folder the sizes of files are zero."""
    commits(memory, 2)
    found = stats(memory)
    assert found.object_count > 0
    assert found.files == FolderBytes()


def test_the_folder_is_the_one_that_is_made(store: Store) -> None:
    """Names of files are those that the assembly gives, and nothing in a good store is strange."""
    assert (folder.CATALOG, folder.PACKS) == (assembly.CATALOG, assembly.PACKS)
    assert (folder.LOCKS, folder.CACHE) == (assembly.LOCKS, assembly.CACHE)
    commits(store, 3)
    store.spill()
    assert folder.strangers(store.location) == []
    total = sum(p.stat().st_size for p in Path(store.location).rglob("*") if p.is_file())
    found = measure(store.location)
    assert found.catalog + found.packs + found.cache + found.other == total


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("packs/0123.tmp", ("packs/0123.tmp", True)),
        ("packs/notes", ("packs/notes", False)),
        ("packs/deep/" + "a" * 32 + ".pack", ("packs/deep/" + "a" * 32 + ".pack", False)),
        ("catalog.sqlite.bak", ("catalog.sqlite.bak", False)),
        ("cache/anything", None),
        ("locks/anything", None),
        ("packs/" + "a" * 32 + ".pack", None),
    ],
)
def test_strangers(store: Store, name: str, expected: tuple[str, bool] | None) -> None:
    """Files that do not belong are found, those of the cache and the locks left alone."""
    file = Path(store.location, name)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    assert folder.strangers(store.location) == ([] if expected is None else [expected])
