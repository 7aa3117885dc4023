"""What a restore writes, and what it never does."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import (
    CorruptObject,
    Invalid,
    LimitExceeded,
    PathNotFound,
    ReadOnly,
    StorageFailed,
    StorageFull,
    UnsafePath,
    WouldOverwrite,
)
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.model.ids import CommitId, Kind, TreeId
from cas.model.objects import EntryKind
from cas.trees.node import DIRECTORY, encode_node, id_of
from cas.worktree import checkout, plan
from cas.worktree.checkout import plan_restore, restore
from tests.unit.worktree.support import (
    Link,
    Program,
    Tree,
    become_nobody,
    read,
    same,
    save,
    scratch,
    write,
)

TREE: Tree = {
    b"a": b"1",
    b"d": {b"b": b"22", b"e": {b"c": b"333", b"empty": {}}, b"l": Link(b"../a")},
    b"p": Program(b"#!"),
}


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """A snapshot of `TREE`."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", TREE)
    save(store, tmp_path / "in")
    return store.snapshot("main")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to restore; it does not exist."""
    return tmp_path / "out"


# -- what is written -------------------------------------------------------------------------


def test_a_report_counts_what_was_there_and_what_was_written(
    store: Store, snapshot: Snapshot, out: Path
) -> None:
    """Counts are the snapshot's; written are those that were not there already."""
    report = restore(store, snapshot, "", out)
    assert (report.file_count, report.link_count, report.directory_count) == (4, 1, 3)
    assert (report.written_count, report.written_bytes) == (5, 12)
    assert report.content_bytes == 12
    assert (report.replaced, report.outside_links) == ((), ())
    again = restore(store, snapshot, "", out)
    assert (again.file_count, again.written_count, again.written_bytes) == (4, 0, 0)


def test_what_is_equal_is_left_alone(store: Store, snapshot: Snapshot, out: Path) -> None:
    """Same inode, same times: nothing that is right is written again."""

    def stamps() -> dict[Path, tuple[int, int, int]]:
        paths = [out / "a", out / "p", out / "d" / "l", out / "d" / "e" / "c"]
        found = {path: path.lstat() for path in paths}
        return {p: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for p, s in found.items()}

    restore(store, snapshot, "", out)
    (out / "d" / "b").unlink()
    before = stamps()
    assert restore(store, snapshot, "", out).written_count == 1
    assert stamps() == before
    assert same(read(out), TREE)


def test_a_part_is_restored(store: Store, snapshot: Snapshot, out: Path) -> None:
    """A directory's entries go into the folder, a file or link under its own name."""
    restore(store, snapshot, "d/e", out)
    assert same(read(out), {b"c": b"333", b"empty": {}})
    restore(store, snapshot, "p", out)
    restore(store, snapshot, "d/l", out)
    assert same(read(out), {b"c": b"333", b"empty": {}, b"p": Program(b"#!"), b"l": Link(b"../a")})


def test_a_path_that_is_not_there_is_refused(store: Store, snapshot: Snapshot, out: Path) -> None:
    """A typed error, and no folder is made."""
    with pytest.raises(PathNotFound):
        restore(store, snapshot, "d/none", out)
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(
    store: Store, snapshot: Snapshot, out: Path
) -> None:
    """The message names it."""
    out.write_bytes(b"x")
    with pytest.raises(Invalid, match="out is not a folder"):
        restore(store, snapshot, "", out)
    assert out.read_bytes() == b"x"


def test_a_plan_says_what_a_restore_does(store: Store, snapshot: Snapshot, out: Path) -> None:
    """Counts and paths of a plan are those of the report; planning writes nothing."""
    out.mkdir()
    write(out, {b"a": b"1", b"d": {b"b": b"1"}, b"p": b"unsaved"})
    before = read(out)
    planned = plan_restore(snapshot, "", out)
    assert same(read(out), before)
    assert (planned.write_count, planned.replaced, planned.unsaved) == (4, ("d/b",), ("p",))
    report = restore(store, snapshot, "", out, force=True)
    assert report.written_count == planned.write_count
    assert (report.file_count, report.content_bytes) == (planned.file_count, planned.content_bytes)
    assert sorted(report.replaced) == ["d/b", "p"]


def test_progress_is_told(store: Store, tmp_path: Path, out: Path) -> None:
    """Counts rise, and the total is known from the start."""
    (tmp_path / "many").mkdir()
    write(tmp_path / "many", {b"%d" % number: b"x" for number in range(600)})
    save(store, tmp_path / "many")
    told: list[Any] = []
    restore(store, store.snapshot("main"), "", out, progress=told.append)
    assert [(p.file_count, p.content_bytes, p.file_total) for p in told] == [
        (256, 256, 600),
        (512, 512, 600),
    ]


# -- modes -----------------------------------------------------------------------------------


def test_files_have_plain_modes_less_the_umask(store: Store, snapshot: Snapshot, out: Path) -> None:
    """644 or 755, as the executable bit says, and never a bit that the umask takes."""
    old = os.umask(0o027)
    try:
        restore(store, snapshot, "", out)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (out / "a", out / "p")}
    assert modes == {"a": 0o640, "p": 0o750}
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o750


def test_only_the_executable_bit_is_set_where_only_it_differs(
    store: Store, snapshot: Snapshot, out: Path
) -> None:
    """Contents that are equal are not written for it."""
    restore(store, snapshot, "", out)
    (out / "a").chmod(0o6755)
    (out / "p").chmod(0o640)
    inodes = (out / "a").stat().st_ino, (out / "p").stat().st_ino
    assert restore(store, snapshot, "", out).written_count == 0
    assert ((out / "a").stat().st_ino, (out / "p").stat().st_ino) == inodes
    assert stat.S_IMODE((out / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((out / "p").stat().st_mode) == 0o750


# -- unsaved work ----------------------------------------------------------------------------

OBSTACLES: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"mine"),
    "link": lambda path: path.symlink_to("mine"),
    "folder": lambda path: (path.mkdir(), (path / "mine").write_bytes(b"x")),
    "fifo": lambda path: os.mkfifo(path),
}


IN_THE_WAY = [
    (path, obstacle)
    for path in ("a", "d", "d/b", "d/l", "d/e", "p")
    for obstacle in sorted(OBSTACLES)
    if not (path in ("d", "d/e") and obstacle == "folder")  # what the snapshot has there, too
]


@pytest.mark.parametrize(("path", "obstacle"), IN_THE_WAY)
def test_unsaved_work_is_never_overwritten(
    store: Store, snapshot: Snapshot, out: Path, path: str, obstacle: str
) -> None:
    """The restore says what it would cost and writes nothing; with `force` it does it."""
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    OBSTACLES[obstacle](out / path)
    before = {p: p.lstat().st_ctime_ns for p in out.rglob("*")}
    with pytest.raises(WouldOverwrite) as refused:
        restore(store, snapshot, "", out)
    assert refused.value.paths == [path]
    assert {p: p.lstat().st_ctime_ns for p in out.rglob("*")} == before
    restore(store, snapshot, "", out, force=True)
    assert same(read(out), TREE)


def test_saved_work_is_written_over(store: Store, snapshot: Snapshot, out: Path) -> None:
    """A file whose content the store holds can be had again, so it needs no `force`."""
    out.mkdir()
    write(out, {b"a": b"22", b"d": {b"b": b"1", b"l": Link(b"../a"), b"e": b"#!"}})
    report = restore(store, snapshot, "", out)
    assert sorted(report.replaced) == ["a", "d/b", "d/e"]
    assert same(read(out), TREE)


def test_what_the_snapshot_does_not_have_stays(store: Store, snapshot: Snapshot, out: Path) -> None:
    """Other files and folders are not looked at, let alone removed."""
    out.mkdir()
    write(out, {b"mine": b"x", b"d": {b"mine": {b"y": b"z"}}})
    restore(store, snapshot, "", out)
    assert (out / "mine").read_bytes() == b"x"
    assert (out / "d" / "mine" / "y").read_bytes() == b"z"


def test_other_names_of_a_file_keep_its_content(
    store: Store, snapshot: Snapshot, out: Path, tmp_path: Path
) -> None:
    """A file is replaced, never written into: a hard link elsewhere is not touched."""
    out.mkdir()
    (tmp_path / "other").write_bytes(b"22")
    os.link(tmp_path / "other", out / "a")
    restore(store, snapshot, "", out)
    assert (tmp_path / "other").read_bytes() == b"22"
    assert (out / "a").read_bytes() == b"1"


# -- nothing outside -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["d", "d/e"])
def test_a_link_in_the_place_of_a_folder_leads_nowhere(
    store: Store, snapshot: Snapshot, out: Path, tmp_path: Path, path: str
) -> None:
    """It is unsaved work; with `force` the link goes and what it points to stays empty."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    (out / path).symlink_to(outside)
    with pytest.raises(WouldOverwrite):
        restore(store, snapshot, "", out)
    restore(store, snapshot, "", out, force=True)
    assert list(outside.iterdir()) == []
    assert same(read(out), TREE)


@pytest.mark.parametrize("moment", ["planned", "made"])
def test_a_link_that_is_put_there_meanwhile_leads_nowhere(
    store: Store,
    snapshot: Snapshot,
    out: Path,
    tmp_path: Path,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever swaps a directory for a link while the restore runs makes it fail, no more."""
    outside = tmp_path / "outside"
    outside.mkdir()
    if moment == "planned":
        real = checkout.make_plan

        def planned(*args: Any) -> Any:
            found = real(*args)
            out.mkdir()
            (out / "d").symlink_to(outside)
            return found

        monkeypatch.setattr(checkout, "make_plan", planned)
    else:
        real_make = checkout._Writer._make

        def make(self: Any, directory: plan.Directory) -> None:
            real_make(self, directory)
            if directory.path == b"d/e/":
                (out / "d").rename(tmp_path / "moved")
                (out / "d").symlink_to(outside)

        monkeypatch.setattr(checkout._Writer, "_make", make)
        monkeypatch.setattr(checkout._Way, "to", _forgetful(checkout._Way.to))
    with pytest.raises(StorageFailed, match="changed by somebody else"):
        restore(store, snapshot, "", out)
    assert list(outside.iterdir()) == []


def _forgetful(real: Callable[..., int]) -> Callable[..., int]:
    """`_Way.to` that opens every directory anew, as a longer way would have to."""

    def to(self: Any, directory: plan.Directory) -> int:
        while len(self._open) > 1:
            os.close(self._open.pop()[1])
        return real(self, directory)

    return to


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    store: Store, snapshot: Snapshot, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not there when the restore was planned is somebody's work."""
    real = checkout.make_plan

    def planned(*args: Any) -> Any:
        found = real(*args)
        out.mkdir()
        (out / "a").write_bytes(b"mine")
        return found

    monkeypatch.setattr(checkout, "make_plan", planned)
    with pytest.raises(StorageFailed, match="changed by somebody else"):
        restore(store, snapshot, "", out)
    assert (out / "a").read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["a", "d/b", "d/l"])
def test_a_file_that_changes_meanwhile_is_not_overwritten(
    store: Store, snapshot: Snapshot, out: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged to be saved when the restore was planned is not what stands there now."""
    out.mkdir()
    write(out, {b"a": b"22", b"d": {b"b": b"1", b"l": Link(b"../a")}})
    (out / "d" / "l").unlink()
    (out / "d" / "l").write_bytes(b"333")
    real = checkout.make_plan

    def planned(*args: Any) -> Any:
        found = real(*args)
        (out / path).write_bytes(b"mine")
        return found

    monkeypatch.setattr(checkout, "make_plan", planned)
    with pytest.raises(StorageFailed, match="changed by somebody else"):
        restore(store, snapshot, "", out)
    assert (out / path).read_bytes() == b"mine"
    assert not [name for name in os.listdir(out / "d") if name.startswith(".cas-")]


def test_the_stores_own_files_are_never_written(store: Store, tmp_path: Path) -> None:
    """Neither as the folder to restore into, nor by a path that leads into the store."""
    with store.begin() as tx:
        tx.branch("main")["store/catalog.sqlite"] = b"evil"
        tx.branch("main")["store/packs/x"] = b"evil"
        tx.commit()
    snapshot = store.snapshot("main")
    (tmp_path / "link").symlink_to(tmp_path / "store" / "packs")
    for place in (tmp_path, tmp_path / "store", tmp_path / "store" / "new", tmp_path / "link"):
        with pytest.raises(UnsafePath, match=r"own folder|folder of a store"):
            restore(store, snapshot, "", place, force=True)
    assert os.listdir(tmp_path / "store" / "packs") == []
    assert store.put(b"alive")


def crafted(store: Store, names: list[bytes], tag: int = 1, content: bytes = b"x") -> Snapshot:
    """A snapshot whose root node holds any names: what a foreign writer could have made."""
    with store.objects.batch() as batch:
        id = batch.put(Kind.BLOB, content)
        node = encode_node(0, names, bytes([tag]) * len(names), id * len(names), [1] * len(names))
        root = id_of(DIRECTORY, node)
        batch.add(root, Kind.TREE, node.data)
    return Snapshot(store.objects, TreeId(root), None, CommitId(bytes(32)))


HOSTILE = [
    [b".."],
    [b"."],
    [b""],
    [b"a/b"],
    [b"../up"],
    [b"/abs"],
    [b"a\0b"],
    [b"same", b"same"],
    [b".cas"],
    [b".CAS"],
    [b".cas. "],
    [b"CAS~1"],
    [".c\u200cas".encode()],
    [".\u24d2as".encode().replace("\u24d2".encode(), b"C")],
]


@pytest.mark.parametrize("names", HOSTILE, ids=repr)
def test_hostile_names_are_refused(
    store: Store, out: Path, tmp_path: Path, names: list[bytes]
) -> None:
    """Before anything is written, inside or outside."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnsafePath):
        restore(store, crafted(store, names), "", out)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 4096], ids=["empty", "nul", "long"])
def test_links_that_no_file_system_can_hold_are_refused(
    store: Store, out: Path, target: bytes
) -> None:
    """Before anything is written."""
    with pytest.raises(UnsafePath, match="target"):
        restore(store, crafted(store, [b"l"], int(EntryKind.LINK), target), "", out)
    assert not out.exists()


def test_an_unknown_kind_of_entry_is_refused(store: Store, out: Path) -> None:
    """Nothing is guessed."""
    with pytest.raises(UnsafePath, match="unknown kind"):
        restore(store, crafted(store, [b"x"], 9), "", out)


def test_a_tree_that_asks_for_endless_entries_is_refused(
    store: Store, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few nodes that name each other many times hit a limit, not the memory."""
    monkeypatch.setattr(plan, "RESTORE_ENTRIES_MAX", 10_000)
    with store.objects.batch() as batch:
        below = batch.put(Kind.TREE, encode_node(0, [], b"", b"", []).data)
        for _ in range(12):
            names = [b"%02d" % number for number in range(32)]
            node = encode_node(0, names, bytes([4]) * 32, below * 32, [0] * 32)
            below = id_of(DIRECTORY, node)
            batch.add(below, Kind.TREE, node.data)
    bomb = Snapshot(store.objects, TreeId(below), None, CommitId(bytes(32)))
    with pytest.raises(LimitExceeded):
        restore(store, bomb, "", out)
    assert not out.exists()


def test_links_lead_where_they_led_and_are_never_followed(
    store: Store, tmp_path: Path, out: Path
) -> None:
    """Targets come back byte for byte; those that lead outside are named in the report."""
    links = {
        b"in": Link(b"d/x"),
        b"up": Link(b"../up"),
        b"abs": Link(b"/etc/passwd"),
        b"d": {b"x": b"1", b"back": Link(b"../in"), b"out": Link(b"../../y"), b"odd": Link(b"../")},
        b"round": Link(b"d/../d/../../z"),
    }
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", links)
    save(store, tmp_path / "in")
    report = restore(store, store.snapshot("main"), "", out)
    assert same(read(out), links)
    assert sorted(report.outside_links) == ["abs", "d/out", "round", "up"]


def test_names_that_the_file_system_would_merge_are_refused(
    store: Store, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two names would be one file, neither is written; elsewhere both are."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b"d": {b"A": b"1", b"a": b"2"}})
    save(store, tmp_path / "in")
    restore(store, store.snapshot("main"), "", out)
    assert same(read(out), {b"d": {b"A": b"1", b"a": b"2"}})
    assert not [name for name in os.listdir(tmp_path) if "probe" in name]
    monkeypatch.setattr(plan, "merges", lambda _folder, _token: True)
    with pytest.raises(UnsafePath, match="d/A and d/a are one name"):
        restore(store, store.snapshot("main"), "", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# -- failures --------------------------------------------------------------------------------


def test_no_partial_file_stays_when_the_disk_fills(
    store: Store, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that could not be written whole is gone, whether new or in place of another."""
    noise = os.urandom(100_000)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b"a": b"old", b"b": noise})
    save(store, tmp_path / "in")
    (tmp_path / "in" / "a").write_bytes(noise[::-1])
    save(store, tmp_path / "in")
    restore(store, store.snapshot("main~1"), "a", out)
    real = os.write

    def fill(fd: int, data: Any) -> int:
        if len(data) == len(noise):
            real(fd, memoryview(data)[:1000])
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", fill)
    for path in ("a", "b"):
        with pytest.raises(StorageFull):
            restore(store, store.snapshot("main"), path, out)
    assert same(read(out), {b"a": b"old"})


def test_too_little_room_is_told_before_anything_is_written(
    store: Store, snapshot: Snapshot, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that would be written are compared with what the file system has free."""

    class Full:
        f_bavail = 0
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    with pytest.raises(StorageFull, match="12 bytes"):
        restore(store, snapshot, "", out)
    assert not out.exists()


def test_what_is_damaged_is_told_and_the_rest_is_written(tmp_path: Path, out: Path) -> None:
    """Every file that can be had is restored before the error says which could not."""
    noise = os.urandom(200_000)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b"a": b"1" * 70_000, b"b": noise, b"c": {b"d": b"2"}})
    with cas.open(tmp_path / "s", create=True) as store:
        save(store, tmp_path / "in")
    (pack,) = (tmp_path / "s" / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    at = data.index(noise[:100]) + 5000
    data[at] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    with cas.open(tmp_path / "s") as store, pytest.raises(CorruptObject) as found:
        restore(store, store.snapshot("main"), "", out)
    assert found.value.paths == ["b"]
    assert same(read(out), {b"a": b"1" * 70_000, b"c": {b"d": b"2"}})


def test_a_folder_that_may_not_be_written_is_told() -> None:
    """A typed error that names the folder."""
    with scratch() as place:
        place.chmod(0o777)
        (place / "in").mkdir()
        write(place / "in", TREE)
        (place / "out").mkdir()
        (place / "out").chmod(0o555)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                become_nobody()
                with cas.open(place / "s", create=True) as store:
                    save(store, place / "in")
                    with pytest.raises(ReadOnly, match="out"):
                        restore(store, store.snapshot("main"), "", place / "out")
                status = 0
            finally:
                os._exit(status)
        _pid, code = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(code) == 0
        assert list((place / "out").iterdir()) == []


def test_nothing_is_synced(
    store: Store, snapshot: Snapshot, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore can be run again, so no flush is paid for."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a restore syncs nothing")

    for name in ("fsync", "fdatasync", "sync"):
        monkeypatch.setattr(os, name, refuse)
    restore(store, snapshot, "", out)
    assert same(read(out), TREE)


def test_the_thread_that_reads_ahead_ends(
    store: Store, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when writing stops in the middle of many groups."""
    import threading

    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b"%04d" % number: os.urandom(9000) for number in range(1500)})
    save(store, tmp_path / "in")

    def stop(_progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(store, store.snapshot("main"), "", out, progress=stop)
    assert not [t for t in threading.enumerate() if t.name == "cas-read-ahead"]
    whole = {name: content for name, content in read(out).items() if len(content) == 9000}
    assert same(whole, read(out))
