"""Edits without a folder beside other writers: what was expected is what is compared."""

from __future__ import annotations

import io

import pytest

from cas.commands.edit import EditRequest, Place, Write, write_files
from cas.errors import Conflict
from cas.history.store import Store
from tests.unit.kit import write


class Meanwhile(io.BytesIO):
    """Content that is read while somebody else commits."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__(b"mine")
        self._store = store
        self._path = path
        self._done = False

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._done:
            self._done = True
            write(self._store, "main", {self._path: b"theirs"})
        return super().read(size)


def edit(store: Store, other: str, if_match: str | None) -> None:
    """Write `mine` at a while somebody else writes `theirs` at another path."""
    place = Place("heads/main", "a")
    request = EditRequest("me", if_match=if_match)
    write_files(store, [Write(place, "-")], request, Meanwhile(store, other))


def test_a_path_that_is_as_expected_at_the_commit_is_written(store: Store) -> None:
    """With the object's id others may change other paths meanwhile, but not this one."""
    write(store, "main", {"a": b"0", "b": b"0"})
    entry = store.snapshot("main").entry("a")
    assert entry is not None
    edit(store, "b", entry.id.hex())
    assert dict(store.snapshot("main")) == {"a": b"mine", "b": b"theirs"}
    write(store, "main", {"a": b"0"})
    with pytest.raises(Conflict):
        edit(store, "a", entry.id.hex())
    assert store.snapshot("main")["a"] == b"theirs"


def test_a_branch_that_has_to_be_at_a_commit_does_not_move_at_all(store: Store) -> None:
    """With the commit's id any change of the branch meanwhile is a conflict."""
    write(store, "main", {"a": b"0", "b": b"0"})
    with pytest.raises(Conflict):
        edit(store, "b", store.resolve("main").hex())
    assert store.snapshot("main")["a"] == b"0"


def test_what_must_not_be_there_is_not_there_at_the_commit(store: Store) -> None:
    """`none` is compared with what others have made meanwhile."""
    write(store, "main", {"b": b"0"})
    with pytest.raises(Conflict):
        edit(store, "a", "none")
    assert store.snapshot("main")["a"] == b"theirs"
