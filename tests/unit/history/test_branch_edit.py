"""A branch inside a transaction: reads show what is staged, and only what can exist is staged."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cas.errors import (
    Invalid,
    InvalidName,
    LimitExceeded,
    ObjectNotFound,
    PathNotFound,
    WrongKind,
)
from cas.history.store import Store
from cas.model.ids import BlobId, TreeId
from cas.model.objects import EntryKind, TreeEntry
from cas.trees import paths
from cas.trees.node import DIRECTORY
from tests.unit.kit import write


def test_reads_show_what_is_staged(memory: Store) -> None:
    """Staged files, removals and directories are seen by the transaction at once."""
    write(memory, files={"keep": b"0", "d/x": b"1", "d/y": b"2"})
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["new/deep/file"] = b"3"
        edit["keep"] = b"changed"
        del edit["d/x"]
        assert sorted(edit) == ["d/y", "keep", "new/deep/file"]
        assert dict(edit) == {"d/y": b"2", "keep": b"changed", "new/deep/file": b"3"}
        assert (len(edit), "d/x" in edit, "d" in edit) == (3, False, False)
        directory = edit.entry("new")
        assert directory is not None
        assert (directory.kind, directory.size) == (EntryKind.TREE, 1)
        assert memory.snapshot("main")["keep"] == b"0"
        tx.commit()
    assert dict(memory.snapshot("main")) == {
        "d/y": b"2",
        "keep": b"changed",
        "new/deep/file": b"3",
    }


def test_a_directory_deleted_and_begun_again(memory: Store) -> None:
    """After a directory was deleted, files put below make a fresh one; it can be deleted again."""
    write(memory, files={"d/x": b"1", "d/y": b"2"})
    with memory.begin() as tx:
        edit = tx.branch("main")
        del edit["d"]
        assert edit.entry("d") is None
        edit["d/z"] = b"3"
        assert dict(edit) == {"d/z": b"3"}
        assert "d/x" not in edit
        found = edit.entry("d")
        assert found is not None
        assert found.size == 1
        del edit["d"]
        assert list(edit) == []
        edit["d/w"] = b"4"
        tx.commit()
    assert dict(memory.snapshot("main")) == {"d/w": b"4"}


def test_edits_on_top_of_a_staged_directory(memory: Store) -> None:
    """Below a directory that was staged whole, files can be deleted, replaced and added."""
    write(memory, "source", {"d/x": b"1", "d/y": b"2", "d/s/t": b"3"})
    directory = memory.snapshot("source").entry("d")
    assert directory is not None
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit.put_entry("copy", directory)
        del edit["copy/x"]
        del edit["copy/s"]
        edit["copy/new"] = b"4"
        assert "copy/x" not in edit
        assert dict(edit) == {"copy/y": b"2", "copy/new": b"4"}
        with pytest.raises(PathNotFound):
            del edit["copy/x"]
        tx.commit()
    assert dict(memory.snapshot("main")) == {"copy/y": b"2", "copy/new": b"4"}


def test_a_whole_tree_is_put_and_stays_open_to_edits(memory: Store) -> None:
    """`put_tree` replaces all files; what is staged later stands on top; the empty one works."""
    write(memory, "source", {"a": b"1", "b": b"2"})
    write(memory, files={"old": b"0"})
    tree = memory.commit("source").tree
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["lost"] = b"x"
        edit.put_tree(tree)
        edit["c"] = b"3"
        del edit["a"]
        tx.commit()
    assert dict(memory.snapshot("main")) == {"b": b"2", "c": b"3"}
    with memory.begin() as tx:
        tx.branch("main").put_tree(TreeId(DIRECTORY.empty))
        tx.commit()
    assert list(memory.snapshot("main")) == []


def test_a_directory_is_refused_where_its_paths_would_be_too_long(memory: Store) -> None:
    """What a transaction commits can be walked: a deep directory is not staged too far down."""
    write(memory, files={"d/" * 199 + "x": b"1"})
    tree = TreeEntry(EntryKind.TREE, memory.commit("main").tree, 1)
    with memory.begin() as tx:
        edit = tx.branch("main")
        with pytest.raises(LimitExceeded, match="256"):
            edit.put_entry("e/" * 56 + "e", tree)
        edit.put_entry("e/" * 55 + "e", tree)
        tx.commit()
    assert [len(path.split("/")) for path in memory.snapshot("main")] == [200, 256]


def test_only_what_exists_and_fits_is_staged_by_id(memory: Store) -> None:
    """An entry that names nothing, another kind, or another size is refused at once."""
    blob = memory.put(b"seven..")
    write(memory, files={"d/x": b"12"})
    tree = memory.commit("main").tree
    commit = memory.resolve("main")
    with memory.begin() as tx:
        edit = tx.branch("main")
        with pytest.raises(ObjectNotFound):
            edit.put_entry("a", TreeEntry(EntryKind.FILE, BlobId(bytes(32)), 7))
        for kind, id in ((EntryKind.TREE, blob), (EntryKind.FILE, tree), (EntryKind.LINK, commit)):
            with pytest.raises(WrongKind):
                edit.put_entry("a", TreeEntry(kind, id, 7))
        for entry in (TreeEntry(EntryKind.FILE, blob, 8), TreeEntry(EntryKind.TREE, tree, 7)):
            with pytest.raises(Invalid, match="bytes"):
                edit.put_entry("a", entry)
        for wrong in (blob, commit):
            with pytest.raises(WrongKind):
                edit.put_tree(TreeId(wrong))
        with pytest.raises(ObjectNotFound):
            edit.put_tree(TreeId(bytes(32)))
        edit.put_entry("a", TreeEntry(EntryKind.EXECUTABLE, blob, 7))
        edit.put_entry("t", TreeEntry(EntryKind.TREE, tree, 2))
        staged = tx.put(b"here only")
        edit.put_entry("s", TreeEntry(EntryKind.FILE, staged, 9))
        tx.commit()
    assert memory.snapshot("main")["s"] == b"here only"
    assert memory.snapshot("main")["t/d/x"] == b"12"


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "../a", "a\0b", b"\0", "\ud800"],
)
def test_paths_that_break_the_grammar_are_refused(memory: Store, path: str | bytes) -> None:
    """Nothing is staged under a path that could leave the tree or cannot be stored."""
    with memory.begin() as tx:
        edit = tx.branch("main")
        with pytest.raises(InvalidName):
            edit[path] = b"1"  # type: ignore[index]
        with pytest.raises(InvalidName):
            edit.entry(path)
        assert list(edit) == []


@pytest.mark.parametrize("path", ["x" * 256, "é" * 128, "a/" * 2047 + "abc", "/".join("a" * 257)])
def test_paths_beyond_a_limit_are_refused(memory: Store, path: str) -> None:
    """Names over 255 bytes, paths over 4,096 bytes or 256 names are refused."""
    with memory.begin() as tx, pytest.raises(LimitExceeded):
        tx.branch("main")[path] = b"1"


@pytest.mark.parametrize(
    "path",
    [
        "x" * 255,
        "/".join("a" * 256),
        "é" * 127,
        "with space",
        "-rf",
        "a\nb",
        ".git",
        "CON",
        "a" * 200 + "/" + "b" * 200,
        "\udc80\udcff",
    ],
)
def test_odd_but_legal_paths_survive(memory: Store, path: str) -> None:
    """Whatever the grammar allows comes back as it was given, names that are not UTF-8 too."""
    write(memory, files={path: b"1"})
    assert dict(memory.snapshot("main")) == {path: b"1"}
    assert memory.snapshot("main")[path] == b"1"


def test_case_twins_and_two_normal_forms_are_different_names(memory: Store) -> None:
    """Names are bytes: `A` and `a`, and two spellings of é, live side by side."""
    files = {"A": b"1", "a": b"2", "e\u0301": b"3", "\u00e9": b"4"}
    write(memory, files=files)
    assert dict(memory.snapshot("main")) == files


@pytest.mark.parametrize(
    ("first", "second"), [("g", "g/b"), ("g/b", "g"), ("g", "g/b/c/d"), ("d/x/y", "d/x")]
)
def test_edits_that_contradict_each_other_are_told_at_the_second(
    memory: Store, first: str, second: str
) -> None:
    """A path cannot be file and directory at once: the second is refused and not staged, however
    it is given; once the first is removed it is taken, and so is what begins anew.
    """
    write(memory, files={"d/x": b"1", "d/z": b"1", "kept": b"1"})
    entry = memory.snapshot("main").entry("kept")
    assert entry is not None
    with memory.begin() as tx:
        edit = tx.branch("main")
        if first == "d/x/y":
            del edit["d/x"]
        edit[first] = b"1"
        with pytest.raises(InvalidName, match="same edits"):
            edit[second] = b"2"
        with pytest.raises(InvalidName, match="same edits"):
            edit.put(second, io.BytesIO(b"2"), kind=EntryKind.LINK)
        with pytest.raises(InvalidName, match="same edits"):
            edit.put_entry(second, entry)
        assert edit[first] == b"1"
        assert second not in edit
        del edit[first]
        edit[second] = b"2"
        tx.commit()
    found = memory.snapshot("main")
    assert found[second] == b"2"
    assert first not in found
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit[first[:1]] = b"3"
        edit.drop(first[:1])
        edit[first[:1] + "/n"] = b"4"
        edit.drop(first[:1] + "/n")
        edit[first[:1]] = b"5"
        tx.commit()
    assert memory.snapshot("main")[first[:1]] == b"5"


def test_a_directory_that_is_put_takes_files_below_it(memory: Store) -> None:
    """In either order: what is put in a directory that is put stands on top of it."""
    write(memory, files={"d/x": b"1", "d/y": b"2"})
    entry = memory.snapshot("main").entry("d")
    assert entry is not None
    for turned in (False, True):
        with memory.begin() as tx:
            edit = tx.branch("main")
            edit.clear()
            steps = [lambda: edit.put_entry("e", entry), lambda: edit.put("e/x", b"3")]  # noqa: B023
            for step in reversed(steps) if turned else steps:
                step()
            tx.commit()
        assert dict(memory.snapshot("main")) == {"e/x": b"3", "e/y": b"2"}


def test_a_file_is_no_directory(memory: Store) -> None:
    """A write below a file fails whole; a file may replace a directory and the other way round."""
    write(memory, files={"f": b"1", "d/x": b"2"})
    with memory.begin() as tx:
        tx.branch("main")["f/below"] = b"1"
        with pytest.raises(WrongKind):
            tx.commit()
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["g"] = b"1"
        with pytest.raises(InvalidName):
            edit["g/below"] = b"2"
    assert dict(memory.snapshot("main")) == {"f": b"1", "d/x": b"2"}
    write(memory, files={"d": b"now a file"})
    assert memory.snapshot("main")["d"] == b"now a file"
    with memory.begin() as tx:
        edit = tx.branch("main")
        del edit["f"]
        edit["f/below"] = b"3"
        tx.commit()
    assert dict(memory.snapshot("main")) == {"d": b"now a file", "f/below": b"3"}


def test_empty_directories_go_with_their_last_file(memory: Store) -> None:
    """Deleting the last file below removes the directories above it."""
    write(memory, files={"a/b/c/d": b"1", "x": b"2"})
    write(memory, files={"a/b/c/d": None})
    assert [path for path, _ in memory.snapshot("main").walk(directories=True)] == ["x"]


def test_put_then_delete_is_no_change(memory: Store) -> None:
    """A branch whose edits cancel out keeps its commit."""
    write(memory, files={"a": b"1"})
    head = memory.resolve("main")
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["b"] = b"2"
        del edit["b"]
        edit["a"] = b"3"
        edit["a"] = b"1"
        tx.commit()
    assert memory.resolve("main") == head


def test_allow_empty_makes_a_commit(memory: Store) -> None:
    """With `allow_empty` a commit is made though no file changed, on a new branch too."""
    with memory.begin() as tx:
        tx.branch("main", allow_empty=True)
        tx.commit()
    assert list(memory.snapshot("main")) == []
    with memory.begin(message="again") as tx:
        tx.branch("main")
        tx.branch("main", allow_empty=True)
        tx.commit()
    assert [commit.message for _id, commit in memory.log("main")] == ["again", ""]


def test_content_comes_as_bytes_path_or_stream(memory: Store, tmp_path: Path) -> None:
    """Bytes, views of bytes, `pathlib.Path` and binary streams are all content."""
    file = tmp_path / "file"
    file.write_bytes(b"from a file")
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit.put("bytes", b"1")
        edit.put("array", bytearray(b"2"))
        edit.put("view", memoryview(b"-3-")[1:2])
        edit.put("path", file)
        edit.put("stream", io.BytesIO(b"from a stream"), kind=EntryKind.EXECUTABLE)
        edit.put("link", b"target", kind=EntryKind.LINK)
        with pytest.raises(Invalid):
            edit.put("tree", b"", kind=EntryKind.TREE)
        tx.commit()
    snapshot = memory.snapshot("main")
    assert dict(snapshot) == {
        "bytes": b"1",
        "array": b"2",
        "view": b"3",
        "path": b"from a file",
        "stream": b"from a stream",
        "link": b"target",
    }
    kinds = {path: entry.kind.name for path, entry in snapshot.walk() if entry.kind != 1}
    assert kinds == {"stream": "EXECUTABLE", "link": "LINK"}


def test_a_directory_has_no_content(memory: Store) -> None:
    """Reading a directory as a file is a WrongKind, reading nothing a PathNotFound."""
    write(memory, files={"d/x": b"1"})
    with memory.begin() as tx:
        edit = tx.branch("main")
        for mapping in (edit, memory.snapshot("main")):
            with pytest.raises(WrongKind):
                mapping["d"]
            with pytest.raises(PathNotFound):
                mapping["d/y"]
            with pytest.raises(PathNotFound):
                mapping["d/x/below"]
            assert mapping.get("d/y") is None


def test_clearing_a_branch_is_one_step(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`clear` stages one replacement however many files there are; what follows stands on top."""
    write(memory, files={f"d{at % 7}/{at}": b"%d" % at for at in range(500)})
    steps = []
    real = paths.edit_paths

    def counted(root: bytes, staged: Any, nodes: Any) -> Any:
        steps.append(len(staged))
        return real(root, staged, nodes)

    monkeypatch.setattr(paths, "edit_paths", counted)
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["d0/new"] = b"gone with the rest"
        edit.clear()
        assert steps == []
        assert list(edit) == []
        assert edit.entry("d0") is None
        edit["d1/kept"] = b"1"
        assert dict(edit) == {"d1/kept": b"1"}
        tx.commit()
    assert dict(memory.snapshot("main")) == {"d1/kept": b"1"}


def test_deleting_many_paths_looks_at_each_once(memory: Store) -> None:
    """A deletion does not go through what is staged elsewhere: a thousand stay a thousand."""

    class Counted(dict[Any, Any]):
        walked = 0

        def __iter__(self) -> Iterator[Any]:
            Counted.walked += 1
            return super().__iter__()

    files = {f"d{at % 9}/{at}": b"1" for at in range(1_000)}
    write(memory, files=files)
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit.staged = Counted()
        gone = list(files)[:900]
        for path in gone:
            del edit[path]
        assert Counted.walked == 0
        del edit["d3"]
        assert Counted.walked == 1
        edit.staged = dict(edit.staged)
        tx.commit()
    kept = set(files) - set(gone) - {path for path in files if path.startswith("d3/")}
    assert set(memory.snapshot("main")) == kept


@pytest.mark.parametrize(
    "target",
    [b"", b"a\0b", b"x" * 4096, "text", Path("x"), io.BytesIO(), io.BytesIO(b"x" * 4096)],
)
def test_a_link_that_no_folder_can_have_is_refused(store: Store, target: Any) -> None:
    """It is said when it is written: nothing of the branch could be restored with it."""
    with store.begin() as tx, pytest.raises(Invalid):
        tx.branch("main").put("l", target, kind=EntryKind.LINK)
    for longest in (b"x" * 4095, io.BytesIO(b"x" * 4095)):
        with store.begin() as tx:
            id = tx.branch("main").put("l", longest, kind=EntryKind.LINK)
            tx.commit()
        assert store.get(id) == b"x" * 4095
