"""Single paths brought up: each only if it is what it was, nothing outside, nothing by half."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from cas.errors import StorageFull
from cas.history.store import Store
from cas.model.ids import BlobId
from cas.model.objects import EntryKind, TreeEntry
from cas.worktree import update as room
from cas.worktree.below import Below
from cas.worktree.update import Step, Updated, update


def entry(store: Store, content: bytes, kind: EntryKind = EntryKind.FILE) -> TreeEntry:
    """An entry whose content the store has."""
    return TreeEntry(kind, BlobId(store.put(content)), len(content))


def step(path: str, old: TreeEntry | None, new: TreeEntry | None) -> Step:
    """A step at a path."""
    return Step(tuple(path.encode().split(b"/")), old, new)


def bring(store: Store, folder: Path, *steps: Step) -> Updated:
    """Do steps."""
    return update(store.objects, os.fsencode(folder), steps)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_files_links_and_folders_come_and_go(memory: Store, folder: Path) -> None:
    """New paths are made with the folders above them; removed ones go with those they empty."""
    one, link = entry(memory, b"one"), entry(memory, b"a/b", EntryKind.LINK)
    run = entry(memory, b"#!", EntryKind.EXECUTABLE)
    steps = [step("a/b", None, one), step("l", None, link), step("a/run", None, run)]
    assert len(bring(memory, folder, *steps).done) == 3
    assert (folder / "a" / "b").read_bytes() == (folder / "l").read_bytes() == b"one"
    assert (folder / "a" / "run").stat().st_mode & 0o100
    plain = entry(memory, b"#!")
    bring(memory, folder, step("a/run", run, plain), step("l", link, one))
    assert not (folder / "a" / "run").stat().st_mode & 0o100
    assert not (folder / "l").is_symlink()
    gone = [step("a/b", one, None), step("a/run", plain, None), step("l", one, None)]
    assert len(bring(memory, folder, *gone).done) == 3
    assert os.listdir(folder) == []


def test_a_file_becomes_a_folder_in_one_go(memory: Store, folder: Path) -> None:
    """Removals come first, so that a name is free for what takes it."""
    one, two = entry(memory, b"one"), entry(memory, b"two")
    bring(memory, folder, step("a", None, one))
    bring(memory, folder, step("a/x", None, two), step("a", one, None))
    assert (folder / "a" / "x").read_bytes() == b"two"


def test_what_is_not_as_expected_stays_and_is_told(memory: Store, folder: Path) -> None:
    """Another content, kind or bit, a file where none was, none where one was, a folder in its
    place: left, and told. What already is as it shall be is done.
    """
    one, two = entry(memory, b"one"), entry(memory, b"two")
    (folder / "other").write_bytes(b"somebody's")
    (folder / "there").write_bytes(b"somebody's")
    (folder / "bit").write_bytes(b"one")
    (folder / "bit").chmod(0o755)
    (folder / "link").symlink_to("other")
    (folder / "dir").mkdir()
    (folder / "dir" / "in").write_bytes(b"kept")
    (folder / "already").write_bytes(b"two")
    steps = [
        step("other", one, two),
        step("there", None, two),
        step("bit", one, two),
        step("link", one, two),
        step("dir", one, two),
        step("missing", one, two),
        step("other/below", None, two),
        step("already", None, two),
    ]
    found = bring(memory, folder, *steps)
    assert [each.text for each in found.done] == ["already"]
    assert {each.path for each in found.left} == {each.text for each in steps[:-1]}
    assert {each.reason for each in found.left} == {"changed"}
    removed = bring(memory, folder, *(step(each.text, one, None) for each in steps[:5]))
    assert len(removed.left) == 5
    assert (folder / "other").read_bytes() == (folder / "there").read_bytes() == b"somebody's"
    assert sorted(os.listdir(folder)) == ["already", "bit", "dir", "link", "other", "there"]


def test_nothing_is_written_outside_or_for_a_store(
    memory: Store, folder: Path, tmp_path: Path
) -> None:
    """A link in the place of a folder is not followed; names of stores and markers are refused."""
    one = entry(memory, b"one")
    (tmp_path / "elsewhere").mkdir()
    (folder / "d").symlink_to(tmp_path / "elsewhere")
    names = ["d/x", ".cas/x", ".cas-checkout", "s/.CAS-checkout"]
    found = bring(memory, folder, *(step(name, None, one) for name in names))
    assert found.done == ()
    assert sorted(each.reason for each in found.left) == ["changed", "name", "name", "name"]
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(folder) == ["d"]


def test_an_impossible_link_and_a_missing_content_are_told(memory: Store, folder: Path) -> None:
    """What cannot be made leaves nothing of itself, and the others are made."""
    bad = entry(memory, b"a\0b", EntryKind.LINK)
    lost = TreeEntry(EntryKind.FILE, BlobId(bytes(32)), 3)
    steps = [step("bad", None, bad), step("lost", None, lost), step("z", None, entry(memory, b"z"))]
    found = bring(memory, folder, *steps)
    assert {each.path: each.reason for each in found.left} == {"bad": "link", "lost": "damaged"}
    assert os.listdir(folder) == ["z"]


def test_without_hard_links_it_works_the_same(
    memory: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that has none costs the second look, and nothing else."""

    def no_links(*_words: object, **_how: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(room.os, "link", no_links)
    one, two = entry(memory, b"one"), entry(memory, b"two")
    bring(memory, folder, step("a", None, one), step("b", None, one))
    found = bring(memory, folder, step("a", one, two), step("b", two, one), step("b", None, two))
    assert [each.text for each in found.done] == ["a"]
    assert bring(memory, folder, step("b", two, None)).done == ()
    assert (folder / "a").read_bytes() == b"two"
    assert (folder / "b").read_bytes() == b"one"
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_a_full_disk_ends_it_with_every_file_whole(memory: Store, small_disk: Path) -> None:
    """No space is an error; what was written is whole, what was not is absent."""
    large = [entry(memory, os.urandom(1 << 20)) for _ in range(4)]
    steps = [step(f"f{number}", None, each) for number, each in enumerate(large)]
    with pytest.raises(StorageFull):
        bring(memory, small_disk, *steps)
    written = sorted(small_disk.iterdir())
    assert len(written) < 4
    assert all(path.stat().st_size == 1 << 20 for path in written)


def test_folders_are_reached_and_pruned(tmp_path: Path) -> None:
    """Directories are opened below each other, made when asked, removed while empty."""
    below = Below(os.fsencode(tmp_path))
    try:
        with pytest.raises(FileNotFoundError):
            below.to((b"a", b"b"))
        below.to((b"a", b"b", b"c"), make=True)
        below.to((b"a", b"x"), make=True)
        below.prune((b"a", b"b", b"c"))
        assert os.listdir(tmp_path / "a") == ["x"]
        below.prune((b"a", b"x"))
        assert os.listdir(tmp_path) == []
    finally:
        below.close()


def test_what_is_done_is_on_the_disk(
    memory: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and each directory on the way to it is synced; of many, everything at once."""
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real(fd)

    monkeypatch.setattr(room.os, "fsync", fsync)
    monkeypatch.setattr(room.os, "sync", lambda: synced.append("all"))
    one = entry(memory, b"one")
    bring(memory, folder, step("a/b/c", None, one), step("d", None, one))
    assert synced == ["file", "file", "directory", "directory", "directory"]
    synced.clear()
    bring(memory, folder, *(step(f"m/{number}", None, one) for number in range(200)))
    assert synced == ["all"]
