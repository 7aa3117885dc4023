"""A restore that ends in the middle: what stands under its own name is whole, the rest is told."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import StorageFailed, StorageFull
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.worktree import checkout
from cas.worktree.checkout import plan_restore, restore
from cas.worktree.importer import import_folder
from cas.worktree.names import is_unfinished, unfinished
from tests.unit.worktree.support import Link, Program, Tree, read, same, save, write

TREE: Tree = {
    b"top": b"t" * 500,
    b"zz": b"z" * 900,
    b"new": {
        b"a": b"a" * 3000,
        b"p": Program(b"#!" + b"p" * 700),
        b"deep": {b"b": b"b" * 2000, b"deeper": {b"c": b"c" * 100}, b"l": Link(b"../a")},
        b"later": b"l" * 50,
    },
    b"old": {b"kept": b"k" * 40, b"added": b"+" * 4000, b"changed": b"2" * 3000},
    b"was a file": {b"x": b"x" * 600},
}
BEFORE: Tree = {b"old": {b"kept": b"k" * 40, b"changed": b"1" * 3000}, b"was a file": b"f"}


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """A snapshot of `TREE`; `BEFORE` is in the store as well."""
    for name, tree in (("before", BEFORE), ("in", TREE)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, tree)
        save(store, tmp_path / name)
    return store.snapshot("main")


def flat(tree: Tree, prefix: bytes = b"") -> dict[bytes, Any]:
    """Path -> file or link."""
    found: dict[bytes, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, prefix + name + b"/")
        else:
            found[prefix + name] = value
    return found


def kill_at(call: int, place: str, snapshot: str, folder: Path) -> bool:
    """Restore in a child that is killed in the middle of so many-th write; whether it was."""
    child = os.fork()
    if child == 0:
        writes = 0

        def write_half(file: int, content: bytes) -> int:
            nonlocal writes
            writes += 1
            if writes == call:
                os_write(file, bytes(content)[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return os_write(file, content)

        os_write = os.write
        checkout.os.write = write_half  # type: ignore[attr-defined]
        with cas.open(place, read_only=True) as store:
            restore(store, store.snapshot(snapshot), "", folder)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("before", [{}, BEFORE], ids=["into nothing", "over an older version"])
def test_a_killed_restore_leaves_no_half_file_under_its_name(
    store: Store, snapshot: Snapshot, tmp_path: Path, before: Tree
) -> None:
    """Killed in the middle of any file: every name holds what it should, or what it held."""
    place, commit = store.location, str(snapshot.id)
    store.close()
    should, held = flat(TREE), flat(before)
    for call in range(1, 100):
        out = tmp_path / f"out {call}"
        out.mkdir()
        write(out, before)
        if not kill_at(call, place, commit, out):
            break
        stands = flat(read(out))
        left = {path for path in stands if any(map(is_unfinished, path.split(b"/")))}
        assert left, "what was being written is somewhere"
        for path, value in stands.items():
            if path not in left:
                assert value in (should.get(path), held.get(path)), path
        with cas.open(place, read_only=True) as again:
            tops = {p[: p.index(b".cas-restore-") + 29].decode() for p in left}
            plan = plan_restore(again.snapshot(commit), "", out)
            assert set(plan.leftovers) == tops
            assert plan.unsaved == ()
            assert set(restore(again, again.snapshot(commit), "", out).leftovers) == tops
        for path, value in should.items():
            assert flat(read(out))[path] == value
    assert call > 8, "each file was written and died of it"


def test_a_snapshot_leaves_out_what_a_killed_restore_has_left(store: Store, tmp_path: Path) -> None:
    """Leftovers are named as problems and not saved, each time, with and without a picture."""
    token = unfinished(b"8 bytes!").decode()
    folder = tmp_path / "work"
    write_folder = {b"a": b"1", token.encode(): b"half", b"d": {token.encode(): {b"b": b"2"}}}
    folder.mkdir()
    write(folder, write_folder)
    (folder / ".cas-restore-notes").write_bytes(b"somebody's own")
    for _ in range(2):
        report = import_folder(store, folder)
        assert [(p.path, p.reason) for p in report.problems] == [
            (token, "unfinished"),
            (f"d/{token}", "unfinished"),
        ]
        assert set(store.snapshot("main")) == {"a", ".cas-restore-notes"}


def test_an_error_keeps_what_was_written(
    store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of a new directory: its files before stand under their names."""
    out = tmp_path / "out"
    real = os.write

    def full(file: int, content: bytes) -> int:
        if bytes(content)[:1] == b"l":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkout.os, "write", full)
        with pytest.raises(StorageFull):
            restore(store, snapshot, "", out)
    assert read(out)[b"new"][b"a"] == b"a" * 3000
    assert not any(map(is_unfinished, flat(read(out))))
    again = restore(store, snapshot, "", out)
    assert again.written_count < len(flat(TREE))
    assert again.leftovers == ()
    assert same(read(out), TREE)


def put_a_file(path: Path) -> None:
    """Somebody's file."""
    path.write_bytes(b"somebody's")


def put_a_folder(path: Path) -> None:
    """Somebody's folder with something in it."""
    path.mkdir()
    (path / "work").write_bytes(b"somebody's")


@pytest.mark.parametrize("put", [put_a_file, put_a_folder])
@pytest.mark.parametrize("name", ["top", "new"])
def test_what_appears_meanwhile_is_not_replaced(
    store: Store,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    put: Callable[[Path], None],
) -> None:
    """A file or folder that somebody puts where there was nothing: an error, and it stays."""
    out = tmp_path / "out"
    out.mkdir(parents=True)
    real, done = os.write, []

    def meanwhile(file: int, content: bytes) -> int:
        if not done:
            put(out / name)
            done.append(True)
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkout.os, "write", meanwhile)
        with pytest.raises(StorageFailed):
            restore(store, snapshot, "", out)
    kept = out / name if put is put_a_file else out / name / "work"
    assert kept.read_bytes() == b"somebody's"
    assert not any(is_unfinished(os.fsencode(found)) for found in os.listdir(out))


def no_links(*_names: object, **_options: object) -> None:
    """`link` where the file system has none."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links(
    store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `link` is not allowed files are renamed; what stands there is still not replaced."""
    monkeypatch.setattr(checkout.os, "link", no_links)
    restore(store, snapshot, "", tmp_path / "out")
    assert same(read(tmp_path / "out"), TREE)
    test_what_appears_meanwhile_is_not_replaced(
        store, snapshot, tmp_path / "other", monkeypatch, "top", put_a_file
    )
