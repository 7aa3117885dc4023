"""Working folders: what is done outside is taken in, merged and kept, whatever it is."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from cas.errors import AggregateNotFound, Invalid, LimitExceeded, NotCheckedOut, RefNotFound
from cas.history.store import Store
from cas.model.objects import EntryKind
from cas.workspace.checkouts import folder_branch
from cas.workspace.clashes import Take
from cas.workspace.folders import FolderReport
from cas.workspace.importing import import_path
from cas.workspace.planning import Sprint
from cas.workspace.workspace import Workspace
from cas.worktree.files import read_file
from cas.worktree.importer import import_folder
from tests.unit.workspace.test_together import child


@pytest.fixture
def space(store: Store) -> Workspace:
    """A workspace with two artifacts."""
    made = Workspace(store)
    put(made, {"reviews/a.md": b"one\ntwo\nthree\n", "x.txt": b"x"})
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test checks out."""
    return tmp_path / "work"


def put(space: Workspace, contents: dict[str, bytes], actor: str = "bob") -> None:
    """New versions of artifacts, made inside."""
    with space.unit_of_work(actor) as uow:
        for name, content in contents.items():
            uow.artifacts.put(name, content)
        uow.commit()


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file of the folder, written from outside."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """What stands in a folder, the marker left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".cas-checkout"
    }


def contents(space: Workspace) -> dict[str, bytes]:
    """What the artifacts of a workspace are; record and file have to agree."""
    found = {}
    view = space.now()
    for artifact in view.artifacts:
        found[artifact.name] = view.artifacts.read(artifact.name)
        assert artifact.size_bytes == len(found[artifact.name])
        assert space.store.get(artifact.content) == found[artifact.name]
    return found


def in_step(space: Workspace, folder: Path) -> bool:
    """Whether folder and branch are the same, and the status says so."""
    return space.status(folder).clean and files(folder) == contents(space)


# -- both ways -------------------------------------------------------------------------------


def test_a_checkout_is_the_artifacts_as_files(space: Workspace, folder: Path) -> None:
    """The folder has every artifact under its name, and nothing is to be done about it."""
    report = space.checkout(folder, actor="ada")
    assert sorted(each.path for each in report.written) == ["reviews/a.md", "x.txt"]
    assert in_step(space, folder)
    assert space.sync(folder).captured == space.sync(folder).written == ()


def test_outside_changes_become_versions_by_nobody_known(space: Workspace, folder: Path) -> None:
    """A file that was edited, added or removed outside is edited, added or removed in the branch,
    by `external`, with an event that tells which.
    """
    space.checkout(folder, actor="ada")
    write(folder, "reviews/a.md", b"edited")
    write(folder, "new/deep/b.bin", b"\x00new")
    (folder / "x.txt").unlink()
    outside = {each.path: each.kind.value for each in space.status(folder).outside}
    assert outside == {"reviews/a.md": "modified", "new/deep/b.bin": "added", "x.txt": "removed"}
    report = space.sync(folder)
    assert {each.path for each in report.captured} == set(outside)
    assert in_step(space, folder)
    assert report.entry is not None
    assert report.entry.actor == "external"
    assert space.artifacts.get("new/deep/b.bin").made_by == "external"
    (event,) = space.events(types=["folder.changed"])
    assert (event.data["count"], event.data["holder"]) == (3, "ada")
    assert next(iter(space.artifacts.history("x.txt"))).value is None


def test_an_agent_can_say_that_the_changes_are_its_own(space: Workspace, folder: Path) -> None:
    """`author` is whose version it becomes."""
    space.checkout(folder, actor="ada")
    write(folder, "x.txt", b"mine")
    space.sync(folder, author="ada")
    assert space.artifacts.get("x.txt").made_by == "ada"


def test_what_others_commit_comes_into_the_folder(space: Workspace, folder: Path) -> None:
    """Edits, additions and removals inside are written; a folder that they empty goes."""
    space.checkout(folder, actor="ada")
    put(space, {"x.txt": b"newer", "y/z.txt": b"z"})
    with space.unit_of_work("bob") as uow:
        uow.artifacts.remove("reviews/a.md")
        uow.commit()
    incoming = {each.path: each.kind.value for each in space.status(folder).incoming}
    assert incoming == {"x.txt": "modified", "y/z.txt": "added", "reviews/a.md": "removed"}
    assert len(space.sync(folder).written) == 3
    assert in_step(space, folder)
    assert not (folder / "reviews").exists()


def test_edits_of_both_sides_are_merged_by_line(space: Workspace, folder: Path) -> None:
    """A file that both changed in other lines has both changes, on both sides."""
    space.checkout(folder, actor="ada")
    write(folder, "reviews/a.md", b"ONE\ntwo\nthree\n")
    put(space, {"reviews/a.md": b"one\ntwo\nTHREE\n"})
    assert space.status(folder).both == ("reviews/a.md",)
    assert space.sync(folder).merged == ("reviews/a.md",)
    assert files(folder)["reviews/a.md"] == b"ONE\ntwo\nTHREE\n"
    assert in_step(space, folder)


@pytest.mark.parametrize(("take", "expected"), [("current", b"theirs"), ("incoming", b"mine")])
def test_a_conflict_keeps_both_and_the_folder_its_own(
    space: Workspace, folder: Path, take: str, expected: bytes
) -> None:
    """What no merge brings together is a conflict with both contents; the folder is left alone
    until it is settled, and then has what was chosen.
    """
    space.checkout(folder, actor="ada")
    write(folder, "x.txt", b"mine")
    put(space, {"x.txt": b"theirs"})
    assert space.sync(folder).conflicts == ("x.txt",)
    for _ in range(2):
        assert space.sync(folder).held == space.status(folder).held == ("x.txt",)
        assert files(folder)["x.txt"] == b"mine"
        assert space.artifacts.read("x.txt") == b"theirs"
    (conflict,) = space.conflicts()
    assert space.store.get(cas.BlobId(conflict.taking("incoming")["content"])) == b"mine"
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, take=take)  # type: ignore[arg-type]
        uow.commit()
    space.sync(folder)
    assert files(folder)["x.txt"] == expected
    assert in_step(space, folder)


@pytest.mark.parametrize("outside_removes", [True, False])
def test_a_removal_against_an_edit_is_a_conflict(
    space: Workspace, folder: Path, outside_removes: bool
) -> None:
    """What one side removed and the other changed stands, and waits for somebody to decide."""
    space.checkout(folder, actor="ada")
    if outside_removes:
        (folder / "x.txt").unlink()
        put(space, {"x.txt": b"changed"})
    else:
        write(folder, "x.txt", b"changed")
        with space.unit_of_work("bob") as uow:
            uow.artifacts.remove("x.txt")
            uow.commit()
    assert space.sync(folder).conflicts == ("x.txt",)
    assert space.artifacts.read("x.txt") == b"changed"
    assert ("x.txt" in files(folder)) is not outside_removes
    (conflict,) = space.conflicts()
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, take="incoming" if outside_removes else "current")
        uow.commit()
    space.sync(folder)
    assert "x.txt" not in files(folder)
    assert in_step(space, folder)


def test_a_conflict_keeps_its_content_in_the_tree(space: Workspace, folder: Path) -> None:
    """The content that stands nowhere is reached from the branch itself, whatever becomes of the
    folder, until the conflict is settled.
    """

    def reached() -> set[str]:
        entries = space.store.snapshot("artifacts/main").walk()
        return {path.split("/")[0] for path, entry in entries if bytes(entry.id) == lost}

    space.checkout(folder, actor="ada")
    write(folder, "x.txt", b"mine and nobody else's")
    put(space, {"x.txt": b"theirs"})
    space.sync(folder)
    space.release(folder, actor="ada")
    (conflict,) = space.conflicts()
    lost = conflict.taking("incoming")["content"]
    assert lost == digest(b"mine and nobody else's")
    assert reached() == {".contents"}
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, take="current")
        uow.commit()
    assert reached() == set()


def test_kinds_survive_the_trip(space: Workspace, folder: Path, tmp_path: Path) -> None:
    """The executable bit and links are what they were in another checkout, and stay when the
    content is put anew inside.
    """
    space.checkout(folder, actor="ada")
    write(folder, "run.sh", b"#!/bin/sh\n").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    space.sync(folder)
    put(space, {"run.sh": b"#!/bin/sh\necho\n"})
    other = tmp_path / "other"
    space.checkout(other, actor="bob")
    assert os.readlink(other / "link") == "run.sh"
    assert (other / "run.sh").stat().st_mode & 0o100
    (other / "run.sh").chmod(0o644)
    space.sync(other)
    space.sync(folder)
    assert not (folder / "run.sh").stat().st_mode & 0o100
    assert space.status(folder).clean


def test_a_file_becomes_a_folder_and_back(space: Workspace, folder: Path) -> None:
    """Names change their shape on either side, and nothing else is touched by it."""
    space.checkout(folder, actor="ada")
    (folder / "x.txt").unlink()
    write(folder, "x.txt/below", b"1")
    space.sync(folder)
    assert in_step(space, folder)
    with space.unit_of_work("bob") as uow:
        uow.artifacts.remove("x.txt/below")
        uow.artifacts.put("x.txt", b"again")
        uow.commit()
    space.sync(folder)
    assert in_step(space, folder)
    assert files(folder)["x.txt"] == b"again"


def test_names_that_clash_in_shape_are_told_and_both_stay(space: Workspace, folder: Path) -> None:
    """A file outside where the store made a folder cannot be taken in; it stays and is told."""
    space.checkout(folder, actor="ada")
    write(folder, "n", b"a file")
    put(space, {"n/below": b"in a folder"})
    for _ in range(2):
        report = space.sync(folder)
        assert {each.path: each.reason for each in report.problems} == {
            "n": "refused",
            "n/below": "changed",
        }
        assert files(folder)["n"] == b"a file"
        assert space.artifacts.read("n/below") == b"in a folder"
    (folder / "n").unlink()
    space.sync(folder)
    assert in_step(space, folder)


# -- what stood there before -------------------------------------------------------------------


def test_a_folder_with_files_is_taken_in_whole(space: Workspace, folder: Path) -> None:
    """Files that stand there become artifacts; one that clashes is a conflict and stays."""
    write(folder, "own.txt", b"own")
    write(folder, "x.txt", b"other")
    report = space.checkout(folder, actor="ada")
    assert report.conflicts == ("x.txt",)
    assert files(folder) == {
        "own.txt": b"own",
        "x.txt": b"other",
        "reviews/a.md": b"one\ntwo\nthree\n",
    }
    assert contents(space)["x.txt"] == b"x"
    assert contents(space)["own.txt"] == b"own"


def test_too_many_unknown_files_are_refused_before_anything_is_done(
    space: Workspace, folder: Path
) -> None:
    """More new files than anybody makes by hand: a limit that names itself, and nothing done;
    an ignore file, or a larger number, lets the rest through.
    """
    space.checkout(folder, actor="ada")
    write(folder, "x.txt", b"edited")
    for number in range(30):
        write(folder, f"venv/{number}", b"%d" % number)
    seq = space.store.view().seq
    with pytest.raises(LimitExceeded) as caught:
        space.sync(folder, new_max=20)
    assert (caught.value.limit, caught.value.value) == ("FOLDER_NEW_MAX", 21)
    assert space.store.view().seq == seq
    assert len(space.status(folder).outside) == 31
    write(folder, ".casignore", b"venv/\n")
    report = space.sync(folder, new_max=20)
    assert [each.path for each in report.captured] == [".casignore", "x.txt"]
    (folder / ".casignore").unlink()
    assert len(space.sync(folder, new_max=100).captured) == 31


def test_an_ignore_file_never_hides_an_artifact(space: Workspace, folder: Path) -> None:
    """What the branch has counts whatever is ignored: it is not taken for removed, and edits of
    it are seen.
    """
    space.checkout(folder, actor="ada")
    write(folder, ".casignore", b"*.txt\nreviews/\n")
    write(folder, "x.txt", b"edited")
    write(folder, "y.txt", b"ignored")
    write(folder, "reviews/b.md", b"ignored")
    report = space.sync(folder)
    assert {each.path for each in report.captured} == {".casignore", "x.txt", "reviews/b.md"}
    put(space, {"y.txt": b"inside"})
    assert space.sync(folder).conflicts == ("y.txt",)
    assert files(folder)["y.txt"] == b"ignored"


def test_what_cannot_be_kept_is_told_and_never_taken_for_removed(
    space: Workspace, folder: Path
) -> None:
    """A FIFO in the place of a file, and a name that no artifact can have, are problems."""
    space.checkout(folder, actor="ada")
    (folder / "x.txt").unlink()
    os.mkfifo(folder / "x.txt")
    write(folder, "bad\nname", b"kept where it is")
    put(space, {"x.txt": b"newer"})
    report = space.sync(folder)
    assert {each.path: each.reason for each in report.problems if each.reason != "changed"} == {
        "x.txt": "fifo",
        "bad\nname": "name",
    }
    assert report.captured == ()
    assert space.artifacts.read("x.txt") == b"newer"
    assert (folder / "bad\nname").read_bytes() == b"kept where it is"


# -- which folder it is ------------------------------------------------------------------------


def test_a_folder_that_is_no_checkout_is_told(space: Workspace, folder: Path) -> None:
    """No marker, none any more, another store's, a copy: each says what it is, and does nothing."""
    folder.mkdir()
    with pytest.raises(NotCheckedOut, match="no marker"):
        space.status(folder)
    space.checkout(folder, actor="ada")
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(NotCheckedOut, match="copy of"):
        space.sync(copy)
    with cas.open(":memory:") as other, pytest.raises(NotCheckedOut, match="another store"):
        Workspace(other).sync(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(NotCheckedOut, match="no marker"):
        space.sync(folder)
    assert set(contents(space)) == {"reviews/a.md", "x.txt"}
    write(folder.parent, "file", b"")
    with pytest.raises(Invalid, match="is no folder"):
        space.checkout(folder.parent / "file", actor="ada")
    with pytest.raises(Invalid, match="own folder"):
        space.checkout(Path(space.store.location) / "w", actor="ada")


def test_a_folder_that_was_moved_is_the_same_checkout(space: Workspace, folder: Path) -> None:
    """A move takes the checkout along; the next checkout call notes where."""
    space.checkout(folder, actor="ada")
    moved = folder.rename(folder.parent / "moved")
    write(moved, "x.txt", b"edited")
    assert len(space.sync(moved).captured) == 1
    space.checkout(moved, actor="ada")
    assert [each.folder for each in space.checkouts()] == [str(moved)]


def test_a_copy_can_be_checked_out_itself(space: Workspace, folder: Path) -> None:
    """The copy becomes a checkout of its own, and both are kept in step."""
    space.checkout(folder, actor="ada")
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    space.checkout(copy, actor="bob")
    write(copy, "x.txt", b"from the copy")
    space.sync(copy)
    space.sync(folder)
    assert files(folder) == files(copy)
    assert len(space.checkouts()) == 2


def test_a_lease_tells_and_refuses_nothing(space: Workspace, folder: Path) -> None:
    """Whoever comes second is told who works there, and may work; a lease that ran out, or was
    the own one, is taken.
    """
    first = space.checkout(folder, actor="ada", lease_ms=60_000)
    assert first.checkout.holder == "ada"
    second = space.checkout(folder, actor="bob")
    assert second.checkout.holder == "ada"
    write(folder, "x.txt", b"bob's")
    assert len(space.sync(folder, author="bob").captured) == 1
    again = space.checkout(folder, actor="ada", lease_ms=0)
    assert again.checkout.since == first.checkout.since
    third = space.checkout(folder, actor="bob")
    assert (third.checkout.holder, space.checkouts()[0].holder) == ("bob", "bob")


def test_a_checkout_names_its_sprint(space: Workspace, folder: Path) -> None:
    """The sprint is linked, events are about it, and one that there is not is refused."""
    with pytest.raises(AggregateNotFound):
        space.checkout(folder, actor="ada", sprint="s1")
    assert not folder.exists()
    with space.unit_of_work("lead") as uow:
        uow.sprints.add(Sprint(id="s1", name="One"))
        uow.commit()
    space.checkout(folder, actor="ada", sprint="s1")
    write(folder, "x.txt", b"edited")
    space.sync(folder)
    (event,) = space.events(types=["folder.changed"])
    assert str(event.about) == "sprint:s1"


def test_release_takes_in_what_was_done_and_leaves_the_files(
    space: Workspace, folder: Path
) -> None:
    """Nothing of the work is lost, the folder is an ordinary one, its history stays readable."""
    space.checkout(folder, actor="ada")
    write(folder, "x.txt", b"last words")
    report = space.release(folder, actor="ada")
    assert report is not None
    assert len(report.captured) == 1
    assert contents(space)["x.txt"] == files(folder)["x.txt"] == b"last words"
    assert sorted(os.listdir(folder)) == ["reviews", "x.txt"]
    assert space.checkouts() == []
    with pytest.raises(NotCheckedOut):
        space.sync(folder)


def test_a_folder_that_is_gone_can_be_released(space: Workspace, folder: Path) -> None:
    """Of a folder that was deleted the record goes, and no artifact."""
    space.checkout(folder, actor="ada")
    shutil.rmtree(folder)
    assert space.release(folder, actor="ada") is None
    assert space.checkouts() == []
    assert set(contents(space)) == {"reviews/a.md", "x.txt"}
    with pytest.raises(NotCheckedOut):
        space.release(folder, actor="ada")


def test_branches_have_folders_of_their_own(space: Workspace, folder: Path) -> None:
    """A folder follows its branch; going over to another brings each branch its own work."""
    space.checkout(folder, actor="ada")
    mine = space.branch("try/one", actor="ada")
    write(folder, "x.txt", b"for main")
    mine.checkout(folder, actor="ada")
    assert contents(space)["x.txt"] == b"for main"
    assert files(folder)["x.txt"] == contents(mine)["x.txt"] == b"x"
    write(folder, "x.txt", b"for try")
    mine.sync(folder)
    assert contents(space)["x.txt"] == b"for main"
    assert in_step(mine, folder)
    assert space.branches() == ["main", "try/one"]


def test_a_dropped_branch_empties_no_folder(space: Workspace, folder: Path) -> None:
    """A folder whose branch was dropped is told so and left alone; another branch takes over what
    was done in it.
    """
    mine = space.branch("try/one", actor="ada")
    mine.checkout(folder, actor="ada")
    write(folder, "x.txt", b"edited")
    space.drop_branch("try/one", actor="ada")
    with pytest.raises(RefNotFound, match="is gone"):
        mine.sync(folder)
    assert files(folder)["x.txt"] == b"edited"
    space.checkout(folder, actor="ada")
    assert contents(space)["x.txt"] == b"edited"
    assert in_step(space, folder)


@pytest.mark.parametrize("first", [True, False])
def test_a_purged_content_is_told_and_the_rest_arrives(
    space: Workspace, folder: Path, first: bool
) -> None:
    """What the store was made to forget cannot be written; everything else is."""
    if not first:
        space.checkout(folder, actor="ada")
    put(space, {"secret": b"hunter2", "z": b"z"})
    secret = space.artifacts.get("secret").content
    cas.purge(space.store, secret, reason="leaked")
    report = space.checkout(folder, actor="ada")
    assert {each.path: each.reason for each in report.problems} == {"secret": "damaged"}
    assert files(folder)["z"] == b"z"
    assert "secret" not in files(folder)


def test_a_store_in_memory_and_one_inside_the_folder_serve(tmp_path: Path) -> None:
    """A checkout needs no cache, and its folder may hold the store itself."""
    for place in (":memory:", tmp_path / "project" / ".cas"):
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        with cas.open(place, create=True) as store:
            space = Workspace(store)
            write(folder, "a.txt", b"a")
            space.checkout(folder, actor="ada")
            assert contents(space) == {"a.txt": b"a"}
            write(folder, "a.txt", b"b")
            assert len(space.sync(folder).captured) == 1


# -- others at the same time -------------------------------------------------------------------


def test_a_change_between_capture_and_overwrite_is_not_lost(
    space: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who writes just before the folder is brought up keeps what was written: it is
    seen, left, taken in by the next round and merged.
    """
    from cas.workspace import folders

    space.checkout(folder, actor="ada")
    put(space, {"x.txt": b"inside"})
    real, times = folders.update, []

    def late(*words: object) -> object:
        if not times:
            write(folder, "x.txt", b"at the last moment")
        times.append(1)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "update", late)
    report = space.sync(folder)
    assert report.conflicts == ("x.txt",)
    assert files(folder)["x.txt"] == b"at the last moment"
    assert space.artifacts.read("x.txt") == b"inside"


def test_a_commit_between_look_and_capture_is_not_written_over(
    space: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who commits the same artifact just before the capture is merged, not replaced."""
    from cas.workspace import folders

    space.checkout(folder, actor="ada")
    write(folder, "reviews/a.md", b"ONE\ntwo\nthree\n")
    write(folder, "x.txt", b"outside")
    real, times = folders.unit_on, []

    def late(*words: object) -> object:
        if not times:
            times.append(1)
            put(space, {"reviews/a.md": b"one\ntwo\nTHREE\n", "x.txt": b"inside"})
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "unit_on", late)
    report = space.sync(folder)
    assert (report.merged, report.conflicts) == (("reviews/a.md",), ("x.txt",))
    assert space.artifacts.read("reviews/a.md") == b"ONE\ntwo\nTHREE\n"
    assert space.artifacts.read("x.txt") == b"inside"
    assert files(folder)["x.txt"] == b"outside"


def test_a_writer_with_an_open_file_is_not_overwritten(
    space: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written through a handle while the file is replaced goes back under its name."""
    from cas.worktree import update

    space.checkout(folder, actor="ada")
    put(space, {"x.txt": b"inside"})
    real, rename = update.os.rename, []

    def during(source: bytes, target: bytes, **how: object) -> None:
        real(source, target, **how)  # type: ignore[arg-type]
        if target == b"x.txt" and not rename:
            rename.append(handle.write(b"through the handle"))

    with open(folder / "x.txt", "r+b", buffering=0) as handle:
        monkeypatch.setattr(update.os, "rename", during)
        space.sync(folder)
        monkeypatch.undo()
    space.sync(folder)
    known = {files(folder)["x.txt"], space.artifacts.read("x.txt")}
    assert known == {b"through the handle", b"inside"}


@pytest.mark.parametrize("moment", ["before", "between", "within", "after"])
def test_a_killed_process_loses_nothing(tmp_path: Path, moment: str) -> None:
    """Killed before the capture, between capture and overwrite, in the middle of the files, or
    before the base is noted: the next call makes it good, and every content is there.
    """
    place, folder = tmp_path / "store", tmp_path / "work"
    with cas.open(place, create=True) as store:
        space = Workspace(store)
        put(space, {f"f{number}": b"old %d\n" % number for number in range(6)})
        space.checkout(folder, actor="ada")
        for number in range(3):
            write(folder, f"f{number}", b"outside %d\n" % number)
        put(space, {f"f{number}": b"inside %d\n" % number for number in range(2, 6)})
    worker = child("sync", place, folder, moment)
    assert worker.wait(240) == -signal.SIGKILL
    with cas.open(place) as store:
        space = Workspace(store)
        report = space.sync(folder)
        assert [each for each in report.problems if each.reason != "unfinished"] == []
        now = contents(space)
        for number in range(2):
            assert now[f"f{number}"] == files(folder)[f"f{number}"] == b"outside %d\n" % number
        for number in range(3, 6):
            assert now[f"f{number}"] == files(folder)[f"f{number}"] == b"inside %d\n" % number
        assert (now["f2"], files(folder)["f2"]) == (b"inside 2\n", b"outside 2\n")
        assert [each.about.id for each in space.conflicts()] == ["f2"]
        authors = {each.author for each in space.artifacts.history("f3")}
        assert authors == {"bob"}


def test_two_that_meet_at_one_folder_end_in_step(tmp_path: Path, rng: random.Random) -> None:
    """Processes that bring the same folder up at once, while it is written to and the branch moves,
    neither fail nor leave anything undone.
    """
    place, folder = tmp_path / "store", tmp_path / "work"
    with cas.open(place, create=True) as store:
        space = Workspace(store)
        put(space, {f"f{number}": b"0\n" for number in range(10)})
        space.checkout(folder, actor="ada")
        workers = [child("syncs", place, folder, "15") for _ in range(2)]
        while any(worker.poll() is None for worker in workers):
            name, content = f"f{rng.randrange(10)}", b"%d\n" % rng.randrange(1 << 30)
            write(folder.parent, "new", content).replace(folder / name)
            put(space, {f"f{rng.randrange(10)}": b"in %d\n" % rng.randrange(1 << 30)})
        assert [worker.wait() for worker in workers] == [0, 0]
        space.sync(folder)
        status = space.status(folder)
        assert status.outside == status.incoming == ()


# -- watching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [False, True])
def test_a_watch_brings_both_ways_and_ends(
    space: Workspace, folder: Path, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of either side are brought over while the watch runs, with and without the library
    that tells of them; it ends when it is told to, and keeps the lease.
    """
    from cas.workspace import guard
    from cas.worktree import watching

    if library:
        pytest.importorskip("watchfiles")
    else:
        monkeypatch.setattr(watching, "can_watch", lambda: False)
    space.checkout(folder, actor="ada", lease_ms=1)
    stop, reports = threading.Event(), []
    arrived = threading.Condition()

    def heard(report: FolderReport) -> None:
        with arrived:
            reports.append(report)
            arrived.notify()

    def wait_for(is_there: Callable[[FolderReport], bool]) -> None:
        with arrived:
            assert arrived.wait_for(lambda: any(map(is_there, reports)), 60)

    words = (space.store, folder, "ada", heard, stop)
    worker = threading.Thread(target=guard.watch, args=words, kwargs={"interval_ms": 20})
    worker.start()
    try:
        write(folder, "x.txt", b"outside")
        wait_for(lambda report: "x.txt" in [each.path for each in report.captured])
        put(space, {"y.txt": b"inside"})
        wait_for(lambda report: "y.txt" in [each.path for each in report.written])
    finally:
        stop.set()
        worker.join(60)
    assert not worker.is_alive()
    assert in_step(space, folder)
    (checkout,) = space.checkouts()
    assert checkout.until is not None
    assert checkout.since is not None
    assert (checkout.until - checkout.since).total_seconds() > 60


# -- whatever happens --------------------------------------------------------------------------

NAMES = ["a", "b", "d/a", "d/b", "d/e/a", "a b", "ü"]


@pytest.mark.parametrize("turn", range(12))
def test_nothing_that_ever_stood_anywhere_is_lost(
    space: Workspace, folder: Path, rng: random.Random, turn: int
) -> None:
    """Random changes outside against random edits inside: everything that stood on disk when it
    was looked at, and everything that was committed, can be had from the store; what one side
    alone changed arrives at the other; and it ends in step but for conflicts.
    """
    space.checkout(folder, actor="ada")
    known: set[bytes] = set()
    for _round in range(8):
        sides: dict[str, set[str]] = {"out": set(), "in": set()}
        for _ in range(rng.randrange(6)):
            name = rng.choice(NAMES)
            text = b"".join(b"%d\n" % rng.randrange(3) for _ in range(6)) + os.urandom(2)
            path = folder / name
            if rng.random() < 0.5:
                sides["out"].add(name)
                if rng.random() < 0.25 and path.is_file():
                    path.unlink()
                else:
                    write(folder, name, text)
            else:
                sides["in"].add(name)
                if rng.random() < 0.25 and name in space.artifacts:
                    with space.unit_of_work("bob") as uow:
                        uow.artifacts.remove(name)
                        uow.commit()
                else:
                    put(space, {name: text})
        before, inside = files(folder), contents(space)
        known |= {*before.values(), *inside.values()}
        held = set(space.status(folder).held)
        report = space.sync(folder)
        after, now = files(folder), contents(space)
        assert report.problems == ()
        for name in NAMES:
            mine, theirs = name in sides["out"], name in sides["in"]
            if mine and not theirs and name not in held and name not in report.held:
                assert now.get(name) == after.get(name) == before.get(name), name
            if theirs and not mine and name not in held:
                assert after.get(name) == now.get(name) == inside.get(name), name
        differing = {name for name in NAMES if after.get(name) != now.get(name)}
        assert differing <= set(report.held)
        assert {each.about.id for each in space.conflicts()} >= set(report.held)
        if rng.random() < 0.3:
            with space.unit_of_work("lead") as uow:
                for conflict in space.conflicts():
                    take: Take = rng.choice(["current", "incoming"])
                    try:
                        uow.settle(conflict, take=take)
                    except AggregateNotFound:
                        # Settling another one has removed it: no side can become it any more.
                        assert take == "incoming"
                        uow.settle(conflict)
                uow.commit()
    store = space.store
    lost = [content for content in known if not store.has(cas.BlobId(digest(content)))]
    assert lost == []
    (checkout,) = space.checkouts()
    reached = set()
    for branch in ("artifacts/main", folder_branch(checkout.id)):
        for id, _commit in store.log(branch):
            for _path, entry in store.snapshot(id).walk():
                assert entry.kind != EntryKind.TREE
                reached.add(bytes(entry.id))
    assert {digest(content) for content in known} <= reached


def digest(content: bytes) -> bytes:
    """The id of a blob."""
    from cas.model.ids import digest_blob

    return digest_blob(content)


# -- refused before anything is done ------------------------------------------------------------


def test_a_checkout_of_too_much_does_nothing(space: Workspace, folder: Path) -> None:
    """A folder with more new files than allowed becomes no checkout, and not all are looked at."""
    for number in range(4):
        write(folder, f"big/{number}", b"%d" % number)
    seq = space.store.view().seq
    with pytest.raises(LimitExceeded, match="--new-max"):
        space.checkout(folder, actor="ada", new_max=2)
    assert space.store.view().seq == seq
    assert space.checkouts() == []
    assert not (folder / ".cas-checkout").exists()
    assert "big/0" not in space.artifacts
    space.checkout(folder, actor="ada", new_max=4)
    for number in range(4):
        write(folder, f"more/{number}", b"%d" % number)
    seq = space.store.view().seq
    for again in (
        lambda: space.checkout(folder, actor="bob", new_max=2),
        lambda: space.release(folder, actor="ada", new_max=2),
    ):
        with pytest.raises(LimitExceeded):
            again()
        assert space.store.view().seq == seq
    assert space.release(folder, actor="ada", new_max=4) is not None


def test_the_look_ends_where_the_limit_is_passed(
    space: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of very many files is not read to its end to be refused."""
    space.checkout(folder, actor="ada")
    for number in range(50):
        write(folder, f"many/{number:02}", b"%d" % number)
    read: list[bytes] = []

    def noted(fd: int, name: bytes, maximum: int) -> object:
        read.append(name)
        return read_file(fd, name, maximum)

    monkeypatch.setattr("cas.worktree.scan.read_file", noted)
    with pytest.raises(LimitExceeded):
        space.sync(folder, new_max=5)
    assert len(read) < 20


def test_a_branch_that_is_not_there_changes_nothing(space: Workspace, folder: Path) -> None:
    """Neither the record of a checkout nor anything else, whatever it was before."""
    with pytest.raises(RefNotFound, match="nobranch"):
        Workspace(space.store, branch="nobranch").checkout(folder, actor="ada")
    assert not folder.exists()
    space.checkout(folder, actor="ada")
    empty = space.branch("bare", actor="ada")
    with space.store.begin(author="ada") as tx:
        tx.delete("heads/artifacts/bare")
        tx.commit()
    seq = space.store.view().seq
    for name in ("nobranch", empty.branch_name):
        with pytest.raises(RefNotFound, match=name):
            Workspace(space.store, branch=name).checkout(folder, actor="ada")
    assert space.store.view().seq == seq
    assert [each.branch for each in space.checkouts()] == ["main"]
    assert in_step(space, folder)


def test_an_empty_name_is_no_folder(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that a program left empty is not the folder that it stands in: nothing there is taken
    in, and it becomes no working folder.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"1")
    for call in (
        lambda: space.checkout("", actor="ada"),
        lambda: import_path(space, "", actor="ada"),
        lambda: import_folder(space.store, "", branch="main", author="ada", message=""),
    ):
        with pytest.raises(Invalid, match="is empty"):
            call()
    assert "file" not in space.artifacts
    assert not (tmp_path / ".cas-checkout").exists()


def test_a_working_folder_is_in_no_other(space: Workspace, folder: Path, tmp_path: Path) -> None:
    """A folder inside or around another working folder is refused, that of another store too."""
    space.checkout(folder, actor="ada")
    other = Workspace(cas.open(tmp_path / "other", create=True))
    seq = space.store.view().seq
    for one in (space, other):
        with pytest.raises(Invalid, match="lies in the working folder"):
            one.checkout(folder / "in" / "deep", actor="ada")
    with pytest.raises(Invalid, match="has the working folder"):
        space.checkout(tmp_path, actor="ada")
    assert space.store.view().seq == seq
    assert not (folder / "in").exists()
    space.checkout(tmp_path / "work-beside", actor="ada")
    space.release(folder, actor="ada")
    space.checkout(folder / "in", actor="ada")
    other.store.close()


def test_what_is_written_past_the_workspace_deletes_nothing(space: Workspace, folder: Path) -> None:
    """A branch that something else was written over, or from which contents went without their
    records, empties no folder: the files stay, each is told, and after an undo all is in step.
    """
    space.checkout(folder, actor="ada")
    before = files(folder)
    with space.store.begin(author="eve") as tx:
        raw = tx.branch("artifacts/main")
        raw.clear()
        raw["reviews/other.md"] = b"# Something else"
        tx.commit()
    assert not space.status(folder).clean
    assert space.status(folder).incoming == ()
    report = space.sync(folder)
    assert [(each.path, each.reason) for each in report.problems] == [
        ("reviews/a.md", "unexplained"),
        ("x.txt", "unexplained"),
    ]
    assert files(folder) == before
    space.store.undo()
    assert in_step(space, folder)
    with space.store.begin(author="eve") as tx:
        del tx.branch("artifacts/main")["files/x.txt"]
        tx.commit()
    (problem,) = space.sync(folder).problems
    assert (problem.path, problem.reason) == ("x.txt", "unexplained")
    assert files(folder) == before
    space.store.undo()
    with space.unit_of_work("bob") as uow:
        uow.artifacts.remove("x.txt")
        uow.artifacts.remove("reviews/a.md")
        uow.commit()
    assert space.sync(folder).problems == ()
    assert files(folder) == {}
