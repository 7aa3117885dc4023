"""A folder that is saved and restored is the same folder, byte for byte."""

from __future__ import annotations

import os
import random
from pathlib import Path

from hypothesis import given, settings

import cas
from cas.history.store import Store
from cas.worktree.checkout import restore
from cas.worktree.compare import diff_folder
from tests.unit.worktree.support import (
    Link,
    Program,
    Tree,
    read,
    same,
    save,
    scratch,
    trees,
    write,
)


@settings(max_examples=150)
@given(trees)
def test_import_and_restore_are_identity(tree: Tree) -> None:
    """Names of any bytes, links, executable bits, empty directories: all come back."""
    with scratch() as place, cas.open(":memory:") as store:
        (place / "in").mkdir()
        write(place / "in", tree)
        report = save(store, place / "in")
        assert report.problems == ()
        restore(store, store.snapshot("main"), "", place / "out")
        assert same(read(place / "out"), tree)
        assert list(diff_folder(store, store.snapshot("main"), place / "out")) == []


@settings(max_examples=40)
@given(trees, trees)
def test_a_restore_over_an_older_state_gives_the_newer(old: Tree, new: Tree) -> None:
    """What is saved may be written over; what the snapshot does not have stays."""
    with scratch() as place, cas.open(":memory:") as store:
        for name, tree in (("old", old), ("new", new)):
            (place / name).mkdir()
            write(place / name, tree)
            save(store, place / name)
        restore(store, store.snapshot("main~1"), "", place / "out")
        restore(store, store.snapshot("main"), "", place / "out", force=True)
        assert same(_only(read(place / "out"), new), new)


def _only(found: Tree, wanted: Tree) -> Tree:
    return {
        name: _only(value, wanted[name])
        if isinstance(value, dict) and isinstance(wanted[name], dict)
        else value
        for name, value in found.items()
        if name in wanted
    }


def test_contents_of_every_size_come_back(store: Store, tmp_path: Path) -> None:
    """Empty, around a pack's inline limit, around the size from which content is cut: all."""
    noise = random.Random(5).randbytes(9 << 20)
    sizes = (0, 1, 63, 64, 65, 2048, 2049, 65536, 65537, 1 << 20, 8 << 20, (8 << 20) + 1, 9 << 20)
    tree: Tree = {b"%d" % size: noise[:size] for size in sizes}
    tree[b"again"] = {b"same": noise[: 9 << 20], b"zeros": bytes(20 << 20)}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", tree)
    report = save(store, tmp_path / "in")
    assert report.content_bytes == 2 * (9 << 20) + (20 << 20) + sum(sizes) - (9 << 20)
    restore(store, store.snapshot("main"), "", tmp_path / "out")
    assert same(read(tmp_path / "out"), tree)


def test_a_folder_of_many_entries_comes_back(store: Store, tmp_path: Path) -> None:
    """A directory of several tree nodes is saved and restored whole."""
    tree: Tree = {b"wide": {b"%05d" % number: b"%d" % number for number in range(3000)}}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", tree)
    save(store, tmp_path / "in")
    restore(store, store.snapshot("main"), "", tmp_path / "out")
    assert same(read(tmp_path / "out"), tree)


def test_a_second_process_reads_what_the_first_saved(tmp_path: Path) -> None:
    """Nothing of an import lives in the handle: a store that is opened again has it all."""
    tree: Tree = {b"a": b"1", b"d": {b"p": Program(b"#!"), b"l": Link(b"../a")}}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", tree)
    with cas.open(tmp_path / "s", create=True) as store:
        save(store, tmp_path / "in")
    with cas.open(tmp_path / "s", read_only=True) as store:
        restore(store, store.snapshot("main"), "", tmp_path / "out")
    assert same(read(tmp_path / "out"), tree)
    assert os.listdir(tmp_path / "s" / "packs") == []
