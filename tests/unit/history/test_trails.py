"""What commits changed, remembered in a file: a cache that no answer depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cas.history import log, trails
from cas.history.store import Store
from cas.history.trails import Trails, mark_of
from cas.model.ids import CommitId
from cas.model.objects import EntryKind, TreeEntry
from cas.trees.node import DIRECTORY, EMPTY_DATA, Value
from tests.unit.kit import reopened, write

PATHS = ("a", "b", "d", "d/x", "d/y", "d/e", "many", "many/5", "gone", "nothing")


@pytest.fixture(autouse=True)
def _always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trail is worth a file here."""
    monkeypatch.setattr(trails, "TRAILS_UNSAVED_MAX", 1)


def history(store: Store) -> None:
    """Commits of every sort: edits, a merge, an empty directory, more changes than are kept."""
    write(store, "main", {"a": b"1", "d/x": b"1", "gone": b""})
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main"))
        tx.commit()
    write(store, "side", {"b": b"1"})
    write(store, "side", {"d/y": b"1"})
    write(store, "main", {"a": b"2"})
    store.merge("main", "side")
    write(store, "main", {f"many/{at}": b"%d" % at for at in range(600)})
    write(store, "main", {"many/5": b"other", "gone": None})
    with store.begin() as tx:
        tx.stage(lambda batch: CommitId(batch.put(2, EMPTY_DATA)))
        tx.branch("main")["k"] = b""
        tx.commit()
    with store.begin() as tx:
        empty = TreeEntry(EntryKind.TREE, CommitId(DIRECTORY.empty), 0)
        tx.branch("main").put_entry("d/e", empty)
        tx.commit()
    write(store, "main", {"d/x": b"2"})


def answers(store: Store) -> dict[str, list[CommitId]]:
    """The log of every path."""
    return {path: [id for id, _commit in store.log("main", path=path)] for path in PATHS}


def test_answers_are_the_same_with_and_without(store: Store) -> None:
    """Nothing remembered, all remembered, and remembered halfway give one answer."""
    history(store)
    with reopened(store, read_only=True) as other:
        plain = answers(other)
    assert [len(plain[path]) for path in PATHS] == [2, 1, 4, 2, 1, 1, 2, 2, 2, 0]
    file = Path(store.location) / "cache" / "trails"
    assert not file.exists(), "a handle that only reads keeps nothing"
    assert answers(store) == plain
    assert file.exists()
    for _ in range(2):
        with reopened(store) as other:
            assert answers(other) == plain
    write(store, "main", {"a": b"3", "d/y": b"2"})
    with reopened(store) as other:
        new = answers(other)
    file.unlink()
    with reopened(store) as other:
        assert answers(other) == new
    assert [len(new[path]) for path in ("a", "b", "d")] == [3, 1, 5]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:50] + bytes((data[50] ^ 1,)) + data[51:],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"no trails at all, but long enough to have a digest",
    ],
)
def test_a_damaged_file_is_as_good_as_none(store: Store, damage: Callable[[bytes], bytes]) -> None:
    """What is not whole is not believed, and is written anew."""
    history(store)
    expected = answers(store)
    file = Path(store.location) / "cache" / "trails"
    file.write_bytes(damage(file.read_bytes()))
    with reopened(store) as other:
        assert answers(other) == expected
    with reopened(store) as other:
        assert len(Trails(other.core)._trails) == len(list(other.log("main")))


def test_a_file_that_grew_too_long_is_begun_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its bound the file goes; answers stay."""
    history(store)
    expected = answers(store)
    monkeypatch.setattr(trails, "TRAILS_BYTES_MAX", 10)
    write(store, "main", {"k": b"again"})
    assert answers(store) == expected
    assert not (Path(store.location) / "cache" / "trails").exists()


def test_a_trail_marks_every_path_that_changed(store: Store) -> None:
    """Each changed path, and each directory above it, has its mark; others have none."""
    write(store, "main", {"d/x": b"1", "k": b""})
    write(store, "main", {"d/x": b"2", "new/e/f": b""})
    known = Trails(store.core)
    head = store.resolve("main")
    for path in ("d", "d/x", "new", "new/e", "new/e/f"):
        assert known.differs(head, mark_of(tuple(path.encode().split(b"/"))))
    for path in ("k", "d/y", "x"):
        assert not known.differs(head, mark_of(tuple(path.encode().split(b"/"))))


def test_a_commit_whose_trail_has_the_mark_is_given_without_a_look_at_trees(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first commit has to be looked at: it has no parent to differ from."""
    for number in range(5):
        write(store, "main", {"d/x": b"%d" % number})
        write(store, "main", {"d/y": b"%d" % number})
    expected = [id for id, _commit in store.log("main", path="d/x")]
    assert len(expected) == 5
    looked: list[bytes] = []
    find = log.PathFinder.find

    def counting(self: log.PathFinder, root: bytes) -> Value | None:
        looked.append(root)
        return find(self, root)

    monkeypatch.setattr(log.PathFinder, "find", counting)
    assert [id for id, _commit in store.log("main", path="d/x")] == expected
    assert looked == [store.commit(expected[-1]).tree]
