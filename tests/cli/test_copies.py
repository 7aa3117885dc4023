"""`cas init --fork` and `--moved`: a store that was copied, on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.support import Shell


def test_a_copied_store_is_told_and_settled(stocked: Shell) -> None:
    """Writing is refused with exit 6 and both ways out, reading works, `--fork` settles it."""
    copy = Path(shutil.copytree(stocked.store, stocked.folder / "copy"))
    before = stocked("log", "--json").document
    assert stocked("--store", copy, "log", "--json").document == before
    done = stocked("--store", copy, "put", "-", stdin=b"x", expect=6)
    assert f"`cas init --moved {copy}`" in done.err
    assert f"`cas init --fork {copy}`" in done.err
    problem = stocked("--json", "--store", copy, "put", "-", stdin=b"x", expect=6).problem
    assert problem["code"] == "store-moved"
    assert problem["fields"] == {"path": str(copy)}
    settled = stocked("init", "--fork", copy, "--json").document
    assert (settled["created"], settled["settled"]) == (False, "fork")
    assert stocked("init", "--fork", copy, "--json").document["settled"] is None
    stocked("--store", copy, "put", "-", stdin=b"x")


def test_a_moved_store_is_settled_where_the_store_is_named(stocked: Shell) -> None:
    """Without PATH it is the store of --store; the original is refused nothing."""
    copy = Path(shutil.copytree(stocked.store, stocked.folder / "copy"))
    done = stocked("--store", copy, "init", "--moved")
    assert done.lines == [str(copy)]
    assert "goes on here" in done.err
    stocked("--store", copy, "snapshot", "work")
    stocked("snapshot", "work")


def test_both_at_once_and_no_store_are_refused(stocked: Shell) -> None:
    """`--fork --moved` is a usage error; where there is no store none is made."""
    stocked("init", "--fork", "--moved", expect=2)
    stocked("init", "--moved", "nowhere", expect=3)
    assert not (stocked.folder / "nowhere").exists()
