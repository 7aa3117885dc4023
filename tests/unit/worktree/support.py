"""Folders as values: drawn by hypothesis, written to disk, read back, all in bytes.

A tree is a dict of entry name to: bytes (a file), `Program` (an executable file), `Link`, or
a tree again. Reading uses nothing of the package.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import strategies as st

from cas.clock import SystemClock
from cas.history.store import Store
from cas.worktree.importer import ImportOptions, ImportReport, import_folder

Tree = dict[bytes, Any]


class Program(bytes):
    """Content of an executable file."""


class Link(bytes):
    """Target of a link."""


def write(folder: Path | bytes, tree: Tree) -> None:
    """Make a tree in a folder that exists."""
    place = os.fsencode(folder)
    for name, value in tree.items():
        path = os.path.join(place, name)
        if isinstance(value, dict):
            os.mkdir(path)
            write(path, value)
        elif isinstance(value, Link):
            os.symlink(bytes(value), path)
        else:
            with open(path, "xb") as file:
                file.write(value)
            os.chmod(path, 0o755 if isinstance(value, Program) else 0o644)


def read(folder: Path | bytes) -> Tree:
    """What a folder holds."""
    place = os.fsencode(folder)
    tree: Tree = {}
    for name in os.listdir(place):
        path = os.path.join(place, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            tree[name] = read(path)
        elif stat.S_ISLNK(mode):
            tree[name] = Link(os.readlink(path))
        else:
            with open(path, "rb") as file:
                content = file.read()
            tree[name] = Program(content) if mode & 0o100 else content
    return tree


def same(left: Tree, right: Tree) -> bool:
    """Equality that tells files, programs and links apart."""
    return left.keys() == right.keys() and all(
        same(value, right[name])
        if isinstance(value, dict) and isinstance(right[name], dict)
        else type(value) is type(right[name]) and value == right[name]
        for name, value in left.items()
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder, for hypothesis, whose examples cannot share one of pytest's."""
    path = Path(mkdtemp(prefix="cas-worktree-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def become_nobody() -> None:
    """Give up root for good, so that permissions count; for a child process."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def save(store: Store, folder: Path, **options: bool) -> ImportReport:
    """Import with options."""
    return import_folder(store, folder, options=ImportOptions(**options))


names = st.one_of(
    st.sampled_from((b"a", b"b", b"A", b"c.txt", b"x y", b"\xc3\xa9", b"\xff\xfe", b"-", b"n\n")),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    ),
).filter(lambda name: b"cas" not in name.lower())

contents = st.one_of(
    st.binary(max_size=64),
    st.integers(0, 200_000).map(lambda size: b"line of text\n" * (size // 13)),
)

targets = st.one_of(
    st.sampled_from((b"a", b"../b", b"/etc/passwd", b"a/../../../x", b".")),
    st.binary(min_size=1, max_size=40).filter(lambda target: b"\0" not in target),
)

leaves = st.one_of(contents, contents.map(Program), targets.map(Link))

trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, st.one_of(leaves, below), max_size=5),
    max_leaves=20,
)


class ClockAhead(SystemClock):
    """The host's clock an hour ahead: to the racy-clean rule every stamp is an old one."""

    def wall_us(self) -> int:
        return super().wall_us() + 3_600_000_000
