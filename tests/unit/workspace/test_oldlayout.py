"""A folder of the old layout comes in whole, and goes out as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.errors import Invalid, UnsafePath, WouldOverwrite
from cas.workspace.oldlayout import export_folder, import_folder
from cas.workspace.planning import SprintState
from cas.workspace.workspace import Workspace


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    with cas.open(tmp_path / "s", create=True) as store:
        yield Workspace(store)


def plant(folder: Path, files: dict[str, object]) -> Path:
    """Write files: bytes as they are, anything else as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


OLD: dict[str, object] = {
    "docs/guide.md": b"# Guide\n",
    "docs/guide.md.meta.json": {"title": "Guide", "author": "ada", "tags": ["x"], "odd": 1},
    "code/run.py": b"print(1)\n",
    "data/table.bin": bytes(range(256)),
    "data/memories.json": {
        "memories": [
            {"id": "m1", "content": "prefer small PRs", "agent_id": "ada", "importance": 1},
            {"id": "m2", "text": "old", "created_at": "2025-03-01T10:00:00Z", "mood": "calm"},
            {"id": "m3"},
            "nonsense",
        ]
    },
    "sprints/s1.json": {"id": "s1", "title": "One", "status": "done"},
    "sprints/s2.json": {"id": "s2", "status": "exploded"},
    "projects.json": [{"id": "p", "name": "P"}],
    "notes.json": b"{broken",
    "loose.txt": b"loose",
}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_nothing_is_lost_and_the_rest_is_told(space: Workspace, tmp_path: Path) -> None:
    """All files come in with their bytes, known JSON becomes aggregates, the rest is named."""
    old = plant(tmp_path / "old", OLD)
    (old / "link").symlink_to("docs")
    done = import_folder(space, old, actor="mover")
    assert (done.files, done.unchanged, done.aggregates) == (len(OLD), 0, 4)
    assert {a.name: space.artifacts.read(a.name) for a in space.artifacts} == files_of(old)
    guide = space.artifacts.get("docs/guide.md")
    assert (guide.title, guide.made_by, guide.tags, guide.kind) == (
        "Guide",
        "ada",
        {"x"},
        "document",
    )
    assert space.memories.get("m1").importance == 1.0
    assert space.memories.get("m2").unknown == {"old_mood": "calm"}
    assert space.sprints.get("s1").state == SprintState.CLOSED
    assert list(space.projects.ids()) == ["p"]
    told = {each.path: each.reason for each in done.not_understood}
    assert set(told) == {
        "link",
        "docs/guide.md",
        "data/memories.json[2]",
        "data/memories.json[3]",
        "sprints/s2.json",
        "notes.json",
        "loose.txt",
    }
    assert "exploded" in told["sprints/s2.json"]
    (event,) = space.events()
    assert event.type == "workspace.imported"


def test_a_second_import_takes_what_differs(space: Workspace, tmp_path: Path) -> None:
    """Importing again changes only what changed; without a change there is no entry."""
    old = plant(tmp_path / "old", OLD)
    first = import_folder(space, old, actor="mover")
    again = import_folder(space, old, actor="mover")
    assert (again.entry, again.unchanged, again.aggregates) == (None, len(OLD), 0)
    assert first.entry is not None
    plant(old, {"docs/guide.md": b"# Guide 2\n", "sprints/s1.json": {"id": "s1", "title": "Uno"}})
    third = import_folder(space, old, actor="mover")
    assert (third.files - third.unchanged, third.aggregates) == (2, 1)
    assert space.sprints.get("s1").name == "Uno"
    assert len(list(space.artifacts.history("docs/guide.md"))) == 2


def test_what_goes_out_is_what_came_in(
    space: Workspace, tmp_path: Path, rng: random.Random
) -> None:
    """An export holds every file as it was, and goes only into an empty folder."""
    names = {
        f"data/{rng.randrange(9)}/{n}.bin": rng.randbytes(rng.randrange(99)) for n in range(60)
    }
    old = plant(tmp_path / "old", dict(names))
    import_folder(space, old, actor="mover")
    assert export_folder(space, tmp_path / "out" / "deep") == 60
    assert files_of(tmp_path / "out" / "deep") == files_of(old)
    with pytest.raises(WouldOverwrite):
        export_folder(space, tmp_path / "out")


def test_a_store_in_the_folder_stays_out(space: Workspace, tmp_path: Path) -> None:
    """The store itself, wherever it lies in the folder, and any `.cas`, are not taken in; another
    store is told.
    """
    plant(tmp_path, {"docs/a.md": b"a", ".cas/x": b"1", "docs/.cas-checkout": b"marker"})
    for _ in range(2):
        report = import_folder(space, tmp_path, actor="ada")
        assert [artifact.name for artifact in space.artifacts] == ["docs/a.md"]
        assert report.not_understood == ()
    assert report.entry is None
    cas.open(tmp_path / "docs" / "other", create=True).close()
    (told,) = import_folder(space, tmp_path, actor="ada").left_out
    assert (told.path, told.reason) == ("docs/other", "is the folder of a store; left out")


@pytest.mark.parametrize("name", [".cas", "d/.CAS/catalog.sqlite", ".cas-checkout"])
def test_nothing_goes_out_that_would_be_a_store(
    space: Workspace, tmp_path: Path, name: str
) -> None:
    """A file `.cas` would say to the next command in that folder which store is meant: an artifact
    of such a name is told, and nothing is written.
    """
    with space.unit_of_work("a") as uow:
        uow.artifacts.put("a", b"1")
        uow.artifacts.put(name, b'store = "/elsewhere"\n')
        uow.commit()
    with pytest.raises(UnsafePath) as told:
        export_folder(space, tmp_path / "out")
    assert told.value.fields["path"] == name
    assert not (tmp_path / "out").exists()


def test_what_is_said_twice_or_oddly_is_told(space: Workspace, tmp_path: Path) -> None:
    """Two memories of one id: the first is taken, the second told, in each import alike. An
    importance that is no number is kept beside, a state that no project has is told.
    """
    old = plant(
        tmp_path / "old",
        {
            "memories/a.json": {"id": "m", "text": "first", "importance": "high"},
            "memories/b.json": {"id": "m", "text": "second"},
            "memories/c.json": {"id": "m", "text": "first", "importance": "high"},
            "memories/d.json": {"id": "n", "text": "huge", "importance": 10**400},
            "projects/p.json": {"id": "p", "name": "P", "status": "exploded"},
            "projects/q.json": {"id": "q", "name": "Q", "status": "active"},
        },
    )
    for entries in (1, 1):
        told = import_folder(space, old, actor="ada").not_understood
        assert [(each.path, each.reason) for each in told] == [
            (
                "memories/b.json",
                "was kept as JSON only: has the id 'm', as memories/a.json has, and says "
                "something else.",
            ),
            (
                "memories/d.json",
                "was kept as JSON only: The field 'old_importance' of memory 'n' is too long a "
                "number, too deep, or something else that no record gives back. Nothing was "
                "stored.",
            ),
            (
                "projects/p.json",
                "was kept as JSON only: has the state 'exploded', which no project has.",
            ),
        ]
        assert space.store.view().seq == entries
    memory = space.memories.get("m")
    assert (memory.text, memory.importance, memory.unknown) == (
        "first",
        0.5,
        {"old_importance": "high"},
    )
    assert [project.id for project in space.projects] == ["q"]


def test_a_name_that_cannot_be_is_told(space: Workspace, tmp_path: Path) -> None:
    """A file whose name no artifact can have is told, and the others come in."""
    old = plant(tmp_path / "old", {"docs/a\nb": b"x", "docs/ok": b"y"})
    done = import_folder(space, old, actor="mover")
    assert done.files == 1
    assert [each.path for each in done.not_understood] == ["docs/a\\nb"]
    with pytest.raises(Invalid, match="is no folder"):
        import_folder(space, old / "docs" / "ok", actor="mover")
