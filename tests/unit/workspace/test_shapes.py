"""Ids that are paths: a name never takes the place of a folder of others, nor the other way."""

from __future__ import annotations

import pytest

import cas
from cas.errors import AggregateConflict, AggregateExists, RefConflict
from cas.history.store import Store
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.workspace import Workspace


@aggregate("page", collection="pages", context="wiki", path_ids=True)
class Page(Aggregate):
    """A type of the user's own whose ids are paths."""

    text: str = ""


@pytest.fixture
def space(store: Store) -> Workspace:
    """An empty workspace."""
    return Workspace(store)


def put(space: Workspace, *names: str) -> None:
    """New artifacts, in one unit of work."""
    with space.unit_of_work("ada") as uow:
        for name in names:
            uow.artifacts.put(name, name.encode())
        uow.commit()


def held(space: Workspace) -> list[str]:
    """The names of all artifacts, each of which has a file and a record."""
    names = list(space.artifacts.ids())
    assert all(space.artifacts.read(name) == name.encode() for name in names)
    return names


@pytest.mark.parametrize(
    ("before", "name", "taken"),
    [
        (["d/x", "d/y"], "d", "d/x"),
        (["d/e/x"], "d", "d/e/x"),
        (["a"], "a/b/c", "a"),
        (["a/b"], "a/b/c", "a/b"),
    ],
)
def test_a_name_and_a_folder_of_names_exclude_each_other(
    space: Workspace, before: list[str], name: str, taken: str
) -> None:
    """The refusal names the artifact that stands in the way, in a later unit of work and in the
    same one, and what stands there stays.
    """
    put(space, *before)
    with pytest.raises(AggregateExists, match=f"artifact '{taken}'") as caught:
        put(space, name)
    assert caught.value.id == taken
    assert "files/" not in str(caught.value)
    assert held(space) == before
    other = space.branch("other")
    with other.unit_of_work("bob") as uow:
        for each in before:
            uow.artifacts.remove(each)
        uow.artifacts.put(name, name.encode())
        with pytest.raises(AggregateExists):
            uow.artifacts.put(before[0], b"again")
        uow.commit()
    assert held(other) == [name]


def test_an_own_type_is_as_safe(space: Workspace) -> None:
    """Any type whose ids are paths, and a unit of work that goes on after the refusal."""
    with space.unit_of_work("ada") as uow:
        uow.save(Page(id="d/x"))
        uow.commit()
    with space.unit_of_work("ada") as uow:
        for id in ("d", "d/x/y"):
            with pytest.raises(AggregateExists, match="page 'd/x'"):
                uow.save(Page(id=id))
        uow.save(Page(id="d/z"))
        uow.commit()
    assert list(space.collection(Page).ids()) == ["d/x", "d/z"]


@pytest.mark.parametrize(("first", "second"), [("r", "r/1"), ("r/1", "r")])
def test_two_that_meet_are_told(space: Workspace, first: str, second: str) -> None:
    """One unit of work takes a name while another makes a folder of it: the later one is refused,
    and where the work is done again it is told what stands there. Merges of branches as well.
    """
    put(space, "other")
    with space.unit_of_work("bob") as late:
        late.artifacts.put(second, b"")
        put(space, first)
        with pytest.raises((AggregateConflict, RefConflict)):
            late.commit()
    with pytest.raises(AggregateExists):
        space.run(lambda uow: uow.artifacts.put(second, b""), "bob")
    branch = space.branch("try", actor="ada")
    with branch.unit_of_work("ada") as uow:
        uow.artifacts.remove(first)
        uow.artifacts.put(second, second.encode())
        uow.commit()
    for how in ("raise", "keep"):
        with space.unit_of_work("ada") as uow:
            uow.artifacts.put(first, b"touched " + how.encode())
            uow.commit()
        with pytest.raises(cas.Conflict):
            space.merge("try", actor="ada", on_conflict=how)  # type: ignore[arg-type]
    assert first in space.artifacts
    assert space.artifacts.read(first) == b"touched keep"


def test_who_adds_to_one_folder_disturbs_nobody(space: Workspace) -> None:
    """Looking whether a folder above is a name is no reading of that folder."""
    put(space, "d/1")
    one, two = space.unit_of_work("ada"), space.unit_of_work("bob")
    one.artifacts.put("d/2", b"d/2")
    two.artifacts.put("d/3", b"d/3")
    one.commit()
    two.commit()
    assert held(space) == ["d/1", "d/2", "d/3"]
