"""Differences between a snapshot and a folder, and between two texts."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import NotFound
from cas.history.store import Store
from cas.model.ids import digest_blob
from cas.worktree.compare import diff_folder, text_diff
from cas.worktree.values import ImportOptions
from tests.unit.worktree.support import Link, Program, Tree, save, scratch, trees, write


def flat(tree: Tree, prefix: bytes = b"") -> dict[bytes, Any]:
    """Files and links of a tree by path."""
    found: dict[bytes, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found.update(flat(value, prefix + name + b"/"))
        else:
            found[prefix + name] = value
    return found


@settings(max_examples=100)
@given(trees, trees)
def test_a_folder_differs_from_a_snapshot_in_exactly_what_differs(old: Tree, new: Tree) -> None:
    """Paths, kinds of change and ids are those that the contents give, in order of path."""
    with scratch() as place, cas.open(":memory:") as store:
        (place / "old").mkdir()
        (place / "new").mkdir()
        write(place / "old", old)
        write(place / "new", new)
        save(store, place / "old")
        before, after = flat(old), flat(new)
        expected = {}
        for path in before.keys() | after.keys():
            left, right = before.get(path), after.get(path)
            if left is None or right is None:
                expected[path] = "removed" if right is None else "added"
            elif type(left) is not type(right):
                expected[path] = "retyped"
            elif left != right:
                expected[path] = "modified"
        changes = list(diff_folder(store, store.snapshot("main"), place / "new"))
        assert {os.fsencode(c.path): str(c.kind) for c in changes} == expected
        for change in changes:
            value = after.get(os.fsencode(change.path))
            assert (None if change.new is None else change.new.id) == (
                None if value is None else digest_blob(bytes(value))
            )


def test_a_comparison_writes_nothing(store: Store, tmp_path: Path) -> None:
    """Neither objects nor a stat cache; contents of any size are only hashed."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder, {b"a": b"1", b"p": Program(b"2"), b"l": Link(b"a")})
    save(store, folder, stat_cache=False)
    (folder / "a").write_bytes(bytes(9 << 20))
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "store" / "packs").iterdir())
    (change,) = diff_folder(store, store.snapshot("main"), folder)
    assert change.new is not None
    assert change.new.id == digest_blob(bytes(9 << 20))
    assert not store.has(change.new.id)
    after = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "store" / "packs").iterdir())
    assert after == before
    assert not list((tmp_path / "store" / "cache").glob("*.stat"))


def test_what_an_import_leaves_out_is_not_there(store: Store, tmp_path: Path) -> None:
    """Ignored files do not show as added, nor do secrets where they are left out."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder, {b"a": b"1"})
    save(store, folder)
    write(folder, {b".casignore": b"x\n", b"x": b"", b".env": b"", b".cas": {b"y": b""}})
    options = ImportOptions(skip_secrets=True)
    changes = diff_folder(store, store.snapshot("main"), folder, options)
    assert [change.path for change in changes] == [".casignore"]


def test_a_missing_folder_is_refused(store: Store, tmp_path: Path) -> None:
    """A typed error that names it."""
    save(store, tmp_path)
    with pytest.raises(NotFound, match="none"):
        list(diff_folder(store, store.snapshot("main"), tmp_path / "none"))


# -- text ------------------------------------------------------------------------------------

lines = st.lists(st.sampled_from(("a", "b", "c", "", "\x0c", "\r", "é", "x\x1cy")), max_size=8)
texts = st.tuples(lines, st.booleans()).map(lambda t: ("\n".join(t[0]) + "\n" * t[1]).encode())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed to apply with")
@settings(max_examples=80)
@given(texts, texts)
def test_patch_makes_the_new_text_of_the_old(old: bytes, new: bytes) -> None:
    """A unified diff is one that the tool of that name can apply, to the last byte."""
    found = text_diff(old, new, "file")
    assert found is not None
    if old == new:
        assert found == ""
        return
    assert found.startswith("--- a/file\n+++ b/file\n")
    with scratch() as place:
        (place / "file").write_bytes(old)
        (place / "diff").write_bytes(found.encode())
        subprocess.run(
            ["git", "apply", "--unsafe-paths", "--whitespace=nowarn", "diff"],
            cwd=place,
            env={**os.environ, "GIT_DIR": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            check=True,
            capture_output=True,
        )
        assert (place / "file").read_bytes() == new


def test_a_patch_says_which_side_is_no_file() -> None:
    """What came or went is beside /dev/null, so that `patch` makes and removes it; what was
    renamed has both its names.
    """
    assert text_diff(None, b"a\n", "f") == "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+a\n"
    assert text_diff(b"a\n", None, "f") == "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    moved = text_diff(b"a\nb\n", b"a\nc\n", "new", origin="old")
    assert moved == "--- a/old\n+++ b/new\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert text_diff(None, b"", "f") == ""


def test_texts_of_a_hundred_lines_in_many_orders_are_compared(rng: random.Random) -> None:
    """A table of few different lines is work for seconds; it was work for minutes."""
    old, new = (b"".join(b"%d\n" % rng.randrange(110) for _ in range(400_000)) for _ in range(2))
    found = text_diff(old, new, "f")
    assert found is not None
    kept = [line[1:] for line in found.split("\n")[3:] if line[:1] in (" ", "-")]
    assert kept[:1000] == old.decode().split("\n")[:1000]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"a\0b", b"c"), (b"a", b"\xff\xfe"), (b"a", b"x" * ((8 << 20) + 1))],
    ids=["nul", "not utf-8", "long"],
)
def test_what_is_no_text_has_no_text_diff(old: bytes, new: bytes) -> None:
    """None, in both directions."""
    assert text_diff(old, new, "f") is None
    assert text_diff(new, old, "f") is None


def test_a_path_that_could_forge_lines_is_escaped() -> None:
    """A line feed or control character in a name never reaches the output: it stands in quotes,
    as git has it.
    """
    found = text_diff(b"a\n", b"b\n", "x\n+++ b/y\x1b[31m")
    assert found is not None
    assert found.splitlines()[0] == '--- "a/x\\n+++ b/y\\033[31m"'


def test_a_name_with_a_blank_stands_in_quotes() -> None:
    """`patch` takes a blank for the end of a name, and would change another file."""
    found = text_diff(b"a\n", b"b\n", "a b")
    assert found is not None
    assert found.splitlines()[:2] == ['--- "a/a b"', '+++ "b/a b"']
