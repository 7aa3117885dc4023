"""Renames: found by content and by similarity, and never at the cost of a path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.history import renames
from cas.history.snapshot import Change, ChangeKind
from cas.history.store import Store
from tests.unit.kit import write

TEXT = b"".join(b"line %d of a text\n" % at for at in range(40))


def told(store: Store) -> list[tuple[str, str | None, str, int | None]]:
    """What changed from main~1 to main, renames looked for."""
    return [
        (change.kind.value, change.origin, change.path, change.similarity)
        for change in store.diff("main~1", "main", renames=True)
    ]


def test_files_of_equal_content_were_renamed(memory: Store) -> None:
    """A file that went and one that came with the same content are one change."""
    write(memory, "main", {"a/x": TEXT, "k": b"1"})
    write(memory, "main", {"a/x": None, "b/y": TEXT, "k": b"2"})
    assert told(memory) == [("renamed", "a/x", "b/y", 100), ("modified", None, "k", None)]
    assert len(list(memory.diff("main~1", "main"))) == 3


def test_similar_files_were_renamed(memory: Store) -> None:
    """A file that was moved and edited is found, with how much of it stayed."""
    write(memory, "main", {"old.txt": TEXT, "other": b"nothing alike\n" * 50})
    write(memory, "main", {"old.txt": None, "new.txt": TEXT.replace(b"line 7 ", b"LINE 7 ")})
    ((kind, origin, path, similarity),) = told(memory)
    assert (kind, origin, path) == ("renamed", "old.txt", "new.txt")
    assert similarity is not None
    assert 90 <= similarity < 100


def test_binary_files_are_compared_too(memory: Store) -> None:
    """Content without lines is compared in pieces."""
    content = bytes(range(256)) * 20
    write(memory, "main", {"old.bin": content})
    write(memory, "main", {"old.bin": None, "new.bin": content + b"\0\1\2"})
    assert told(memory)[0][:3] == ("renamed", "old.bin", "new.bin")


def test_what_kept_its_name_is_preferred(memory: Store) -> None:
    """Of several files that would do, the one of the same name is the origin."""
    write(memory, "main", {"p/a": TEXT, "p/b": TEXT, "p/c": TEXT})
    write(memory, "main", {"p/a": None, "p/b": None, "p/c": None, "q/b": TEXT})
    assert ("renamed", "p/b", "q/b", 100) in told(memory)
    assert sorted(row[0] for row in told(memory)) == ["removed", "removed", "renamed"]


def test_a_stranger_takes_no_file_from_its_name(memory: Store) -> None:
    """Of many equal files those that kept their name are paired first, whoever comes before."""
    write(memory, "main", {"p/a": b"content", "q/b": b"content"})
    write(memory, "main", {"p/a": None, "q/b": None, "m/new": b"content", "z/a": b"content"})
    assert told(memory) == [("renamed", "q/b", "m/new", 100), ("renamed", "p/a", "z/a", 100)]


def test_empty_files_and_strangers_are_not_renames(memory: Store) -> None:
    """Two empty files, or two that share little, are an addition and a removal."""
    write(memory, "main", {"empty": b"", "one": b"some words\n" * 30})
    write(memory, "main", {"empty": None, "one": None, "void": b"", "two": b"others\n" * 30})
    assert sorted(row[0] for row in told(memory)) == ["added", "added", "removed", "removed"]


@pytest.mark.parametrize(
    ("limit", "value"), [("RENAME_PAIRS_MAX", 0), ("RENAME_BYTES_MAX", 0), ("RENAME_STEPS_MAX", 0)]
)
def test_the_search_is_bounded(
    memory: Store, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Beyond the bounds only equal content, or files of one name, are paired; no path is lost."""
    monkeypatch.setattr(renames, limit, value)
    changed = TEXT + b"more\n"
    write(memory, "main", {"a/same": TEXT, "a/else": b"1" + TEXT, "a/equal": b"2" + TEXT})
    write(
        memory,
        "main",
        {
            **dict.fromkeys(("a/same", "a/else", "a/equal")),
            "b/same": changed,
            "b/other": b"1" + changed,
            "b/new": b"2" + TEXT,
        },
    )
    found = told(memory)
    assert ("renamed", "a/equal", "b/new", 100) in found
    assert (next(row for row in found if row[2] == "b/same")[0] == "renamed") is (
        limit == "RENAME_PAIRS_MAX"
    )
    assert next(row for row in found if row[2] == "b/other")[0] == "added"


FILES = st.dictionaries(
    st.sampled_from(["a", "b", "d/a", "d/c", "e"]),
    st.sampled_from([b"", b"1\n2\n3\n", b"1\n2\n4\n", b"x" * 70, TEXT, TEXT + b"end"]),
    max_size=5,
)


@settings(max_examples=50)
@given(FILES, FILES)
def test_no_path_is_lost(old: dict[str, bytes], new: dict[str, bytes]) -> None:
    """Renames taken apart are exactly the changes without them, and ascend by path."""
    with cas.open(":memory:") as store:
        write(store, "main", {**old, "k": b""})
        write(store, "main", {**dict.fromkeys(old), **new, "k": b"1"})
        plain = list(store.diff("main~1", "main"))
        apart: list[Change] = []
        for change in store.diff("main~1", "main", renames=True):
            if change.kind == ChangeKind.RENAMED:
                assert change.origin is not None
                assert change.similarity is not None
                assert 50 <= change.similarity <= 100
                apart.append(Change(ChangeKind.REMOVED, change.origin, change.old, None))
                apart.append(Change(ChangeKind.ADDED, change.path, None, change.new))
            else:
                apart.append(change)
        assert sorted(apart, key=lambda c: c.path) == plain
