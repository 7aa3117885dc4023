"""Blame: which commit a line or a directory entry comes from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import Invalid, PathNotFound, WrongKind
from cas.history.store import Store
from tests.unit.kit import write


def lines(store: Store, path: str = "t", revision: str = "main") -> list[tuple[bytes, str]]:
    """(line, message of its commit)."""
    return [(line.content, line.commit.message) for line in store.blame(revision, path)]


def entries(store: Store, path: str = "", revision: str = "main") -> dict[str, str]:
    """Name -> message of the commit that made the entry what it is."""
    return {found.name: found.commit.message for found in store.blame_entries(revision, path)}


def test_each_line_names_the_commit_that_brought_it(memory: Store) -> None:
    """Lines that stay keep their commit, whatever comes before, behind or beside them."""
    write(memory, "main", {"t": b"1\n2\n3\n"}, message="first", author="ada")
    write(memory, "main", {"t": b"0\n1\n2\n3\n"}, message="above")
    write(memory, "main", {"other": b""}, message="beside")
    write(memory, "main", {"t": b"0\n1\ntwo\n3\nend"}, message="inside")
    assert lines(memory) == [
        (b"0\n", "above"),
        (b"1\n", "first"),
        (b"two\n", "inside"),
        (b"3\n", "first"),
        (b"end", "inside"),
    ]
    (second,) = [line for line in memory.blame("main", "t") if line.number == 2]
    assert (second.commit.author, second.id) == ("ada", memory.resolve("main~3"))
    assert lines(memory, revision="main~1")[2] == (b"2\n", "first")


def test_a_merge_takes_lines_from_both_parents(memory: Store) -> None:
    """Lines of a merged text belong to the commits of either side, not to the merge."""
    text = b"".join(b"%d\n" % at for at in range(9))
    write(memory, "main", {"t": text}, message="base")
    with memory.begin() as tx:
        tx.move("heads/side", memory.resolve("main"))
        tx.commit()
    write(memory, "main", {"t": text.replace(b"1\n", b"one\n")}, message="left")
    write(memory, "side", {"t": text.replace(b"7\n", b"seven\n")}, message="right")
    memory.merge("main", "side", message="merge")
    found = dict(lines(memory))
    assert found[b"one\n"] == "left"
    assert found[b"seven\n"] == "right"
    assert set(found.values()) == {"base", "left", "right"}
    assert entries(memory) == {"t": "merge"}


LONG = b"".join(b"line %d of a long text\n" % at for at in range(9))


def renamed(store: Store) -> None:
    """A text that is written, edited on a branch, renamed on main, merged, and renamed again."""
    write(store, "main", {"t": LONG, "k": b""}, message="first")
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main"))
        tx.commit()
    write(store, "main", {"t": None, "d/u": LONG.replace(b"1 of", b"one of")}, message="moved")
    write(store, "side", {"t": LONG.replace(b"7 of", b"seven of")}, message="side")
    store.merge("main", "side", message="merge")
    content = store.snapshot("main")["d/u"]
    write(store, "main", {"d/u": None, "v": content + b"more\n"}, message="moved again")


def test_lines_are_followed_through_renames(memory: Store) -> None:
    """A line that a file had before it was renamed is of the commit that wrote it, at that path."""
    renamed(memory)
    found = [(line.commit.message, line.path) for line in memory.blame("main", "v")]
    whole = [("first", "t")] * 9
    whole[1], whole[7] = ("moved", "d/u"), ("side", "t")
    assert found == [*whole, ("moved again", "v")]


def test_a_log_follows_a_file_through_renames(memory: Store) -> None:
    """With `follow` each commit that changed the file under any of its names, once; without it
    those of the one name; what is no file, or was not renamed, has one history either way.
    """
    renamed(memory)
    write(memory, "main", {"k": b"changed"}, message="beside")

    def told(path: str, **how: bool) -> list[str]:
        return [commit.message for _id, commit in memory.log("main", path=path, **how)]  # type: ignore[arg-type]

    assert told("v") == ["moved again"]
    assert told("v", follow=True) == ["moved again", "merge", "side", "moved", "first"]
    for path in ("k", "d", "none"):
        assert told(path, follow=True) == told(path)
    short = [commit.message for _id, commit in memory.log("main", path="v", follow=True, limit=2)]
    assert short == ["moved again", "merge"]
    with pytest.raises(Invalid, match="path"):
        memory.log("main", follow=True)


def test_a_name_that_comes_back_has_its_own_past_too(memory: Store) -> None:
    """A path was removed and written again: its log has both lives."""
    write(memory, "main", {"a": LONG}, message="one")
    write(memory, "main", {"a": None, "b": LONG}, message="two")
    write(memory, "main", {"a": b"other"}, message="three")
    write(memory, "main", {"b": None, "c": LONG}, message="four")
    followed = memory.log("main", path="c", follow=True)
    assert [commit.message for _id, commit in followed] == ["four", "two", "one"]
    kept = memory.log("main", path="a", follow=True)
    assert [commit.message for _id, commit in kept] == ["three", "two", "one"]


def test_entries_name_the_commit_that_made_them(memory: Store) -> None:
    """Files and directories of a folder each have the commit that changed them last."""
    write(memory, "main", {"a": b"1", "d/x": b"1", "d/y": b"1"}, message="first")
    write(memory, "main", {"a": b"2"}, message="a again")
    write(memory, "main", {"d/x": b"2", "new": b""}, message="x again")
    assert entries(memory) == {"a": "a again", "d": "x again", "new": "x again"}
    assert entries(memory, "d") == {"x": "x again", "y": "first"}
    write(memory, "main", {"a": b"1"}, message="back")
    assert entries(memory)["a"] == "back"


def test_an_entry_of_a_merge_comes_from_the_side_that_has_it(memory: Store) -> None:
    """What a merge took from a parent is that parent's."""
    write(memory, "main", {"k": b""}, message="base")
    with memory.begin() as tx:
        tx.move("heads/side", memory.resolve("main"))
        tx.commit()
    write(memory, "main", {"l": b""}, message="left")
    write(memory, "side", {"r": b""}, message="right")
    memory.merge("main", "side", message="merge")
    assert entries(memory) == {"k": "base", "l": "left", "r": "right"}


def test_what_cannot_be_blamed_is_told(memory: Store) -> None:
    """A path that is not there, a directory as text, a file as directory, binary content."""
    write(memory, "main", {"d/x": b"1", "bin": b"\0"})
    for path, error in (("nothing", PathNotFound), ("d", WrongKind), ("bin", Invalid)):
        with pytest.raises(error):
            memory.blame("main", path)
    for path, error in (("nothing", PathNotFound), ("bin", WrongKind)):
        with pytest.raises(error):
            memory.blame_entries("main", path)


LINE = st.integers(0, 30).map(lambda at: b"%d\n" % at)
VERSIONS = st.lists(st.lists(LINE, max_size=8, unique=True), min_size=1, max_size=6)


@settings(max_examples=50)
@given(VERSIONS)
def test_every_line_is_in_its_commit_and_new_there(versions: list[list[bytes]]) -> None:
    """On one line of commits: the commit of a line has it; where lines are only added at the
    end, its parent has not.
    """
    with cas.open(":memory:") as store:
        for number, version in enumerate(versions):
            with store.begin(message=str(number)) as tx:
                tx.branch("main", allow_empty=True)["t"] = b"".join(version)
                tx.commit()
        found = store.blame("main", "t")
        assert [line.content for line in found] == versions[-1]
        for line in found:
            assert line.content in versions[int(line.commit.message)]
        with store.begin(message="grown") as tx:
            tx.branch("main")["t"] = b"".join(versions[-1]) + b"new\n"
            tx.commit()
        assert [line.id for line in store.blame("main", "t")[:-1]] == [line.id for line in found]
        assert store.blame("main", "t")[-1].commit.message == "grown"
