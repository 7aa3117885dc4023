"""The stat cache changes how long an import takes, and never what it saves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import cas
from cas.history.store import Store
from cas.model.ids import digest_blob
from cas.worktree import scan, statcache
from cas.worktree.compare import diff_folder
from cas.worktree.looking import Status
from tests.unit.worktree.support import (
    ClockAhead,
    Link,
    Program,
    Tree,
    save,
    scratch,
    write,
)

TREE: Tree = {
    b"a": b"1",
    b"d": {b"b": b"22", b"e": {b"c": b"333", b"empty": {}}, b"l": Link(b"b")},
    b"z": {b"p": Program(b"#!")},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store whose clock is ahead, so that what a test has just written counts as old."""
    with cas.open(tmp_path / "store", create=True, clock=ClockAhead()) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a few files."""
    path = tmp_path / "work"
    path.mkdir()
    write(path, TREE)
    return path


class Reads(list[str]):
    """Names of the files that imports opened for reading."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Watches the one function that reads files; it runs as it is."""
    seen = Reads()
    real = scan.read_file

    def watch(fd: int, name: bytes, whole_max: int) -> object:
        seen.append(name.decode())
        return real(fd, name, whole_max)

    monkeypatch.setattr(scan, "read_file", watch)
    return seen


def picture_files(store: Store) -> list[Path]:
    """Files of the stat cache."""
    return sorted((Path(store.location) / "cache").glob("*.stat"))


# -- what is not read again ------------------------------------------------------------------


def test_an_unchanged_folder_is_not_read_again(store: Store, folder: Path, reads: Reads) -> None:
    """The second import opens no file and gives the same tree and the same counts."""
    first = save(store, folder)
    assert sorted(reads) == ["a", "b", "c", "p"]
    reads.clear()
    second = save(store, folder)
    assert reads == []
    assert (second.tree, second.new_count, second.new_bytes) == (first.tree, 0, 0)
    assert (second.file_count, second.link_count, second.directory_count) == (4, 1, 4)
    assert second.content_bytes == first.content_bytes


def test_only_what_changed_is_read(store: Store, folder: Path, reads: Reads) -> None:
    """An edited file is read, and a new one; their neighbours are not."""
    save(store, folder)
    reads.clear()
    (folder / "d" / "e" / "c").write_bytes(b"444")
    (folder / "z" / "new").write_bytes(b"5")
    report = save(store, folder)
    assert sorted(reads) == ["c", "new"]
    assert report.new_count == 2 + 4  # the contents; d/e, d, z and the top
    assert store.snapshot("main")["d/e/c"] == b"444"
    reads.clear()
    save(store, folder)
    assert reads == []


def test_secrets_are_named_without_being_read_again(
    store: Store, folder: Path, reads: Reads
) -> None:
    """What looks like a secret is named at each import, however it is taken over: with the whole
    folder, with a directory, alone beside a change; and no more when it is gone.
    """
    every = [".env", "d/id_rsa", "z/.netrc"]
    for name in every:
        (folder / name).write_bytes(b"k")
    assert sorted(save(store, folder).secrets) == every
    for changed in ((), ("a",), ("d/b",), ("z/new", "a")):
        for name in changed:
            (folder / name).write_bytes(name.encode() * len(reads))
        reads.clear()
        assert sorted(save(store, folder).secrets) == every
        assert sorted(reads) == sorted(Path(name).name for name in changed)
    (folder / "d" / "id_rsa").unlink()
    for _ in range(2):
        assert sorted(save(store, folder).secrets) == [".env", "z/.netrc"]


def test_without_the_option_everything_is_read(store: Store, folder: Path, reads: Reads) -> None:
    """`stat_cache=False` neither reads a picture nor keeps one."""
    for _ in range(2):
        reads.clear()
        save(store, folder, stat_cache=False)
        assert len(reads) == 4
    assert picture_files(store) == []


def test_another_branch_uses_the_same_picture(store: Store, folder: Path, reads: Reads) -> None:
    """A picture is of a folder, whatever branch it was saved to."""
    save(store, folder)
    reads.clear()
    with store.begin() as tx:
        tx.branch("other")["x"] = b"y"
        tx.commit()
    cas.worktree.importer.import_folder(store, folder, branch="other")
    assert reads == []
    assert set(store.snapshot("other")) == set(store.snapshot("main"))


def test_a_comparison_reads_only_what_changed(store: Store, folder: Path, reads: Reads) -> None:
    """`diff_folder` uses the picture that an import left, and changes nothing in it."""
    save(store, folder)
    before = [path.read_bytes() for path in picture_files(store)]
    reads.clear()
    assert list(diff_folder(store, store.snapshot("main"), folder)) == []
    assert reads == []
    (folder / "a").write_bytes(b"x")
    (change,) = diff_folder(store, store.snapshot("main"), folder)
    assert change.path == "a"
    assert reads == ["a"]
    assert [path.read_bytes() for path in picture_files(store)] == before


# -- what is -----------------------------------------------------------------------------------


def edit_in_place(path: Path) -> None:
    """Same size, same inode, modification time put back: only the change time tells."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"9")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_with_copy(path: Path) -> None:
    """Another inode of the same size and modification time."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"9" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def make_program(path: Path) -> None:
    """Only the mode changes."""
    path.chmod(0o755)


def make_link(path: Path) -> None:
    """A link takes the file's place."""
    path.unlink()
    path.symlink_to("9")


def make_directory(path: Path) -> None:
    """A directory takes the file's place."""
    path.unlink()
    path.mkdir()
    (path / "9").write_bytes(b"")


def remove(path: Path) -> None:
    """The file goes."""
    path.unlink()


def swap_names(path: Path) -> None:
    """Two files change names: no file changes, only what the directory says."""
    other = path.with_name("swapped")
    path.rename(other)
    path.with_name("fresh").write_bytes(b"9")
    path.with_name("fresh").rename(path)


EDITS = (
    edit_in_place,
    replace_with_copy,
    make_program,
    make_link,
    make_directory,
    remove,
    swap_names,
)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("path", ["a", "d/b", "d/e/c"])
def test_every_kind_of_change_is_seen(
    store: Store, folder: Path, path: str, edit: Callable[[Path], None]
) -> None:
    """The import beside a picture gives the tree that an import without one gives."""
    before = save(store, folder)
    edit(folder / path)
    after = save(store, folder)
    assert after.tree != before.tree
    assert after.tree == save(store, folder, stat_cache=False).tree


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("path", ["a", "d"])
def test_a_change_between_the_look_and_the_listing_does_no_harm(
    store: Store,
    folder: Path,
    path: str,
    edit: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The import saves one moment or the other, whole, and the next import saves the new one."""
    if path == "d":
        (folder / "d").rename(folder / "was")
        (folder / "d").write_bytes(b"1")
    save(store, folder)
    (folder / "new").write_bytes(b"so that the folder is listed anew")
    real = statcache.Picture.changed

    def meanwhile(picture: statcache.Picture) -> list[int]:
        found = real(picture)
        edit(folder / path)
        return found

    monkeypatch.setattr(statcache.Picture, "changed", meanwhile)
    save(store, folder)
    assert dict(store.snapshot("main"))  # every path can be read
    monkeypatch.undo()
    assert save(store, folder).tree == save(store, folder, stat_cache=False).tree


def test_a_folder_becomes_a_file_between_the_look_and_the_listing(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was a tree is not taken for the content of the file, nor the other way round."""
    save(store, folder)
    (folder / "new").write_bytes(b"so that the folder is listed anew")
    real = statcache.Picture.changed

    def meanwhile(picture: statcache.Picture) -> list[int]:
        found = real(picture)
        (folder / "d").rename(tmp_path / "was")
        (folder / "d").write_bytes(b"now a file")
        (folder / "a").unlink()
        (folder / "a").mkdir()
        return found

    monkeypatch.setattr(statcache.Picture, "changed", meanwhile)
    save(store, folder)
    assert dict(store.snapshot("main")) == {
        "d": b"now a file",
        "new": b"so that the folder is listed anew",
        "z/p": b"#!",
    }


def test_a_change_in_the_same_tick_is_seen(tmp_path: Path, folder: Path) -> None:
    """Racy-clean rule: an edit of the same size right after the import is never missed."""
    path = folder / "a"
    with cas.open(tmp_path / "store", create=True) as store:  # the host's own clock
        for turn in range(300):
            content = b"%03d" % turn
            with path.open("r+b") as file:
                file.write(content)
            save(store, folder)
            assert store.snapshot("main")["a"] == content


@given(
    st.integers(-(10**10), 10**10),
    st.integers(-(10**10), 10**10),
    st.booleans(),
)
def test_only_stamps_clearly_older_than_the_walk_are_trusted(
    modified_ns: int, changed_ns: int, coarse: bool
) -> None:
    """20 ms before the walk, or 2.1 s where a file system may keep whole seconds only."""
    started_ns = 1_700_000_000_500_000_000
    mtime, ctime = started_ns + modified_ns, started_ns + changed_ns
    if coarse:
        ctime -= ctime % 10**9
    status = (0o100644, 7, 1, mtime, ctime)
    margin = 2_100_000_000 if ctime % 10**9 == 0 else 20_000_000
    trusted = max(mtime, ctime) < started_ns - margin
    assert (statcache.settled(status, started_ns) == status) == trusted


# -- pictures that are not trusted -----------------------------------------------------------


def test_a_damaged_picture_is_no_picture(store: Store, folder: Path, reads: Reads) -> None:
    """Any flipped byte, and any cut, makes the import read everything and write a new one."""
    save(store, folder)
    (path,) = picture_files(store)
    whole = path.read_bytes()
    damaged = [whole[:-1], whole[:40], b"", whole + b"x"]
    for at in range(0, len(whole), 41):
        damaged.append(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
    tree = store.commit("main").tree
    for data in damaged:
        path.write_bytes(data)
        reads.clear()
        assert save(store, folder).tree == tree
        assert len(reads) == 4
        assert path.read_bytes() == whole


def test_a_picture_of_another_store_is_not_used(
    tmp_path: Path, store: Store, folder: Path, reads: Reads
) -> None:
    """Its ids may not exist here."""
    save(store, folder)
    with cas.open(tmp_path / "other", create=True, clock=ClockAhead()) as other:
        save(other, folder)
        (theirs,), (ours,) = picture_files(other), picture_files(store)
        theirs.write_bytes(ours.read_bytes())
        reads.clear()
        assert save(other, folder).problems == ()
        assert len(reads) == 4


def test_what_the_store_does_not_hold_is_read_again(
    store: Store, folder: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture is only believed about objects that exist, as after a gc, a directory at a time."""
    save(store, folder)
    gone = {digest_blob(b"333")}
    below = store.snapshot("main")
    for path in ("", "d", "d/e"):
        entry = below.entry(path)
        assert entry is not None
        gone.add(entry.id)
    lookup = store.objects.lookup
    real = lookup.has
    monkeypatch.setattr(lookup, "has", lambda id: id not in gone and real(id))
    reads.clear()
    report = save(store, folder)
    assert reads == ["c"]
    assert report.new_count == 4
    assert report.tree == below.tree


def test_pictures_of_many_folders_are_bounded(tmp_path: Path, store: Store) -> None:
    """The oldest go; a store that saves ever new folders does not fill its cache."""
    for number in range(70):
        place = tmp_path / f"work{number}"
        place.mkdir()
        save(store, place)
    assert len(picture_files(store)) == 64


def test_a_store_in_memory_has_no_pictures(memory: Store, folder: Path, reads: Reads) -> None:
    """It works without."""
    for _ in range(2):
        reads.clear()
        save(memory, folder)
        assert len(reads) == 4


def test_a_cache_that_cannot_be_written_is_done_without(store: Store, folder: Path) -> None:
    """An import never fails because of its cache."""
    cache = Path(store.location) / "cache"
    cache.rename(cache.with_name("was"))
    cache.write_bytes(b"a file in its place")
    assert save(store, folder).problems == ()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=9).filter(lambda b: b"\0" not in b),
            st.tuples(*[st.integers(0, 2**63 - 1)] * 3, *[st.integers(-(2**63), 2**63 - 1)] * 2),
            st.binary(min_size=32, max_size=32),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=20,
    ),
    st.dictionaries(st.binary(max_size=9), st.lists(st.binary(min_size=32, max_size=32))),
    st.lists(st.binary(max_size=9)),
)
def test_pictures_come_back_as_they_were(
    entries: list[tuple[bytes, Status, bytes, int]],
    rules: statcache.RulesSeen,
    secrets: list[bytes],
) -> None:
    """Save and load are inverse, for any names, numbers, rules and secrets."""
    picture = statcache.Picture()
    for entry in entries:
        picture.add(*entry)
    picture.rules, picture.secrets = rules, secrets
    key = statcache.Key(b"s" * 16, b"l" * 16, entries[0][0], b"\0\1")
    with scratch() as place:
        statcache.save(str(place), key, picture, b"t")
        found = statcache.load(str(place), key)
    assert found is not None
    assert found.equals(picture)
    assert list(found.paths) == [entry[0] for entry in entries] == list(picture.paths)
    assert found.columns() == picture.columns()
    # What was loaded lies in its file: parts of it go into the next picture.
    middle, end = len(entries) // 2, len(entries)
    again = statcache.Picture()
    again.copy(found, 0, end)
    again.truncate(middle)
    if middle < end:
        again.copy(found, middle, end)
    again.rules = rules
    assert again.equals(found) == (not secrets)
    again.secrets = found.secrets
    assert found.equals(again)
    # Runs that lie behind each other are appended together, and others are not.
    pieces = statcache.Picture()
    for at in (*range(end), *range(middle)):
        pieces.copy(found, at, at + 1)
    assert len(pieces) == end + middle
    assert list(pieces.paths) == [*found.paths, *list(found.paths)[:middle]]
    again.truncate(middle)
    assert not again.equals(found)


# -- any sequence of changes -----------------------------------------------------------------

PLACES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "x/y/z", "x/y")


class Folder(RuleBasedStateMachine):
    """Random changes to a folder: an import beside pictures always equals one without."""

    @initialize(ahead=st.booleans())
    def begin(self, ahead: bool) -> None:
        self.scope = scratch()
        self.place = self.scope.__enter__()
        self.work = self.place / "work"
        self.work.mkdir()
        clock = ClockAhead() if ahead else None
        self.store = cas.open(self.place / "store", create=True, clock=clock)
        self.bare = cas.open(":memory:")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.bare.close()
            self.scope.__exit__(None, None, None)

    def clear(self, path: str) -> Path:
        place = self.work / path
        for above in [p for p in place.parents if p != self.work and self.work in p.parents]:
            if above.is_symlink() or above.is_file():
                above.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            os.rename(place, self.place / f"gone-{os.urandom(6).hex()}")
        else:
            place.unlink(missing_ok=True)
        return place

    @rule(path=st.sampled_from(PLACES), content=st.sampled_from((b"1", b"2", b"33", b"")))
    def make_file(self, path: str, content: bytes) -> None:
        self.clear(path).write_bytes(content)

    @rule(path=st.sampled_from(PLACES), content=st.sampled_from((b"1", b"2", b"3")))
    def edit_file(self, path: str, content: bytes) -> None:
        place = self.work / path
        if place.is_file() and not place.is_symlink():
            status = place.stat()
            place.write_bytes(content)
            os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))

    @rule(path=st.sampled_from(PLACES), mode=st.sampled_from((0o644, 0o755)))
    def set_mode(self, path: str, mode: int) -> None:
        place = self.work / path
        if place.is_file() and not place.is_symlink():
            place.chmod(mode)

    @rule(path=st.sampled_from(PLACES), to=st.sampled_from(("a", "..", "d/e")))
    def make_link(self, path: str, to: str) -> None:
        self.clear(path).symlink_to(to)

    @rule(path=st.sampled_from(PLACES))
    def make_directory(self, path: str) -> None:
        self.clear(path).mkdir()

    @rule(path=st.sampled_from(PLACES))
    def remove(self, path: str) -> None:
        self.clear(path)

    @rule(old=st.sampled_from(PLACES), new=st.sampled_from(PLACES))
    def move(self, old: str, new: str) -> None:
        if os.path.lexists(self.work / old) and not f"{new}/".startswith(f"{old}/"):
            kept = self.place / f"kept-{os.urandom(6).hex()}"
            os.rename(self.work / old, kept)
            os.rename(kept, self.clear(new))

    @rule(
        where=st.sampled_from(("", "d", "d/e")),
        lines=st.sampled_from((b"a\n", b"!a\n", b"e/\n", b".casignore\nb\n", b"/d/b\n", b"")),
    )
    def ignore(self, where: str, lines: bytes) -> None:
        place = self.work / where
        if place.is_dir() and not place.is_symlink():
            (place / ".casignore").write_bytes(lines)

    @rule(where=st.sampled_from(("", "d", "d/e")))
    def ignore_nothing(self, where: str) -> None:
        place = self.work / where
        if place.is_dir() and not place.is_symlink():
            (place / ".casignore").unlink(missing_ok=True)

    @rule()
    def save(self) -> None:
        save(self.store, self.work)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "store"):
            assert save(self.store, self.work).tree == save(self.bare, self.work).tree


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
