"""What a restore would write: the snapshot's tree compared with what stands in the folder.

Floor 5. Invariant: planning writes nothing (but for a probe where two names may be one), and a
plan holds no name, link or size that must not reach the file system. What the snapshot holds is
judged here, whoever made it: its nodes are proved by their ids, but an id says nothing of sense.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from attrs import define, field

from cas.errors import LimitExceeded, PathNotFound, StorageFull, UnsafePath
from cas.history.snapshot import Snapshot
from cas.limits import (
    ID_BYTES,
    LINK_TARGET_BYTES_MAX,
    PATH_DEPTH_MAX,
    RESTORE_ENTRIES_MAX,
    RESTORE_ENTRIES_UNCOUNTED,
)
from cas.model.ids import Kind, wrong_kind
from cas.model.names import printable, split_path, to_text
from cas.model.objects import EXECUTABLE, LINK, TREE
from cas.model.values import frozen
from cas.objects.bulk import BulkReader
from cas.objects.store import ObjectStore
from cas.trees.cursor import scan
from cas.trees.node import DIRECTORY, Item, Node, Value, decode_node
from cas.trees.paths import total
from cas.worktree.files import OPEN_DIRECTORY, file_id, link_id, status_of
from cas.worktree.names import (
    STORE_FOLDER,
    find_twins,
    is_store,
    is_store_name,
    is_unfinished,
    merges,
)

_NODES_AT_ONCE: Final = 512


@define(eq=False)
class Directory:
    """One directory of a plan: what is to be written straight into it."""

    name: bytes
    path: bytes
    """Path from the folder, with a slash behind it; empty for the folder itself."""
    up: Directory | None
    depth: int
    exists: bool = False
    files: list[Item] = field(factory=list)
    links: list[Item] = field(factory=list)
    below: list[Directory] = field(factory=list)
    standing: dict[bytes, os.stat_result] = field(factory=dict)
    """What stands where something else is to be."""
    modes: list[Item] = field(factory=list)
    """Files of which only the executable bit differs."""

    def walk(self) -> Iterator[Directory]:
        """This directory and all below it, each before those in it."""
        stack = [self]
        while stack:
            directory = stack.pop()
            yield directory
            stack += reversed(directory.below)


@frozen
class RestorePlan:
    """What a restore would do. Paths are relative to the folder."""

    folder: str
    file_count: int
    link_count: int
    directory_count: int
    content_bytes: int
    write_count: int
    """Files and links to be written; the others stand there already."""
    replaced: tuple[str, ...]
    """What is written over: its content is in the store."""
    unsaved: tuple[str, ...]
    """What would be lost: only written over with `force`."""
    outside_links: tuple[str, ...]
    """Links whose targets lie outside the folder; they are made and not followed."""
    leftovers: tuple[str, ...]
    """What a restore that was killed has left: nothing else uses it, and it may be removed."""
    top: Directory = field(repr=False)
    link_targets: dict[bytes, bytes] = field(repr=False)
    """Targets of the links to be made, by the ids of their blobs."""


def make_plan(snapshot: Snapshot, path: str, folder: str) -> RestorePlan:
    """Plan writing what lies at `path` of a snapshot into a folder, an absolute path.

    Raises `PathNotFound`, `UnsafePath`, `LimitExceeded`, `StorageFull`, `Corrupt`, `OSError`.
    """
    own = store_folder(snapshot.objects)
    _check_place(folder, own)
    want = _Wanted(snapshot)
    want.read(path)
    stand = _Standing(snapshot.objects, own)
    place = os.fsencode(folder)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    else:
        try:
            stand.compare(want.top, fd)
        finally:
            os.close(fd)
    if want.twins and merges(place, snapshot.objects.clock.random(8)):
        first, second = want.twins[0]
        raise UnsafePath(
            f"{printable(first)} and {printable(second)} are one name to the file system of "
            f"{printable(folder)}; nothing was written. Restore to another file system.",
            path=to_text(first),
            reason="names that differ only by case or normal form",
        )
    _check_room(folder, want.content_bytes - stand.equal_bytes)
    return RestorePlan(
        folder,
        want.file_count,
        want.link_count,
        want.directory_count,
        want.content_bytes,
        want.file_count + want.link_count - stand.equal_count,
        tuple(map(to_text, stand.replaced)),
        tuple(map(to_text, stand.unsaved)),
        tuple(map(to_text, want.outside)),
        tuple(map(to_text, sorted(stand.leftovers))),
        want.top,
        want.link_targets,
    )


def store_folder(objects: ObjectStore) -> str | None:
    """The folder of a store, or None for one that has none."""
    return None if objects.cache is None else os.path.realpath(os.path.dirname(objects.cache))


def _check_place(folder: str, own: str | None) -> None:
    """Refuse to write among the files of the store itself."""
    place = os.path.realpath(folder)
    if own is not None and (place == own or place.startswith(own + os.sep)):
        raise UnsafePath(
            f"{printable(folder)} is the store's own folder or lies in it; restore elsewhere.",
            path=folder,
            reason="the store's own folder",
        )


def _check_room(folder: str, needed_bytes: int) -> None:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        found = os.statvfs(folder)
    except OSError:
        return
    if needed_bytes > found.f_bavail * found.f_frsize:
        raise StorageFull(
            f"{needed_bytes:,} bytes are to be written and {folder} has not that much room; "
            "nothing was written. Free space, or restore elsewhere.",
            path=folder,
        )


class _Wanted:
    """The snapshot's side: all its directories, read level by level."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._objects: ObjectStore = snapshot.objects
        self._bulk = BulkReader(snapshot.objects)
        self.top = Directory(b"", b"", None, 0)
        self.file_count = 0
        self.link_count = 0
        self.directory_count = 0
        self.content_bytes = 0
        self.outside: list[bytes] = []
        self.twins: list[tuple[bytes, bytes]] = []
        self.link_targets: dict[bytes, bytes] = {}
        self._entry_count = 0
        self._root = DIRECTORY.empty
        self._counted = False

    def read(self, path: str) -> None:
        """Fill `top` with what lies at `path`: a directory's entries, or one file or link."""
        entry = self._snapshot.entry(path)
        if entry is None:
            raise PathNotFound(f"There is no {path!r} in {self._snapshot!r}.", path=path)
        if not entry.is_tree:
            name = split_path(path)[-1]
            self._take(self.top, [(name, (int(entry.kind), bytes(entry.id), entry.size))])
        else:
            self._root = bytes(entry.id)
            level = [(self.top, self._root)]
            while level:
                above, level = level, []
                for start in range(0, len(above), _NODES_AT_ONCE):
                    level += self._read_level(above[start : start + _NODES_AT_ONCE])
        self._read_links()

    def _read_level(
        self, directories: list[tuple[Directory, bytes]]
    ) -> list[tuple[Directory, bytes]]:
        """Read directories by the ids of their roots; gives those straight below them."""
        wanted = [pair for pair in directories if pair[1] != DIRECTORY.empty]
        groups = self._bulk.read([id for _, id in wanted])
        found = (item for group in groups for item in group)
        below: list[tuple[Directory, bytes]] = []
        for (directory, id), (_id, kind, content) in zip(wanted, found, strict=True):
            if content is None:
                kind, content = self._objects.read(id)
            if kind != Kind.TREE:
                raise wrong_kind(id, Kind.TREE, kind)
            node = decode_node(bytes(content), kind, verified=True)
            if node.level == 0:
                items = items_of(node)
            else:
                items = list(scan(DIRECTORY, id, self._objects.tree_nodes(DIRECTORY)))
            below += self._take(directory, items)
        return below

    def _take(self, here: Directory, items: list[Item]) -> list[tuple[Directory, bytes]]:
        """Put entries into a directory of the plan; gives the directories among them."""
        self._check(here, [name for name, _ in items])
        here.files = items
        below: list[tuple[Directory, bytes]] = []
        if any(value[0] > EXECUTABLE for _, value in items):
            here.files = [item for item in items if item[1][0] <= EXECUTABLE]
            here.links = [item for item in items if item[1][0] == LINK]
            for name, value in items:
                if value[0] == TREE:
                    path = here.path + name + b"/"
                    child = Directory(name, path, here, here.depth + 1)
                    here.below.append(child)
                    below.append((child, value[1]))
            if len(here.files) + len(here.links) + len(below) != len(items):
                raise _refuse(here.path, "has an entry of an unknown kind")
            for _name, value in here.links:
                self.link_targets[value[1]] = b""
                self.content_bytes += value[2]
        self.content_bytes += sum([value[2] for _, value in here.files])
        self.file_count += len(here.files)
        self.link_count += len(here.links)
        self.directory_count += len(below)
        return below

    def _check(self, here: Directory, names: list[bytes]) -> None:
        """Refuse names that must not reach the file system. Raises `UnsafePath`."""
        count = self._entry_count = self._entry_count + len(names)
        if count > RESTORE_ENTRIES_UNCOUNTED and not self._counted:
            # This reads each tree once; one that is named many times costs memory here.
            self._counted = True
            count = total(self._root, self._objects.tree_nodes(DIRECTORY), directories=True)
        if count > RESTORE_ENTRIES_MAX:
            raise LimitExceeded(
                f"More than {RESTORE_ENTRIES_MAX:,} entries would be written. Restore the "
                "directories one by one.",
                limit="RESTORE_ENTRIES_MAX",
                value=count,
                maximum=RESTORE_ENTRIES_MAX,
            )
        if here.depth >= PATH_DEPTH_MAX and names:
            raise _refuse(here.path + names[0], "is nested too deep")
        joined = b"/".join(names)
        if joined.count(b"/") != max(len(names) - 1, 0) or b"\0" in joined:
            bad = next(name for name in names if b"/" in name or b"\0" in name)
            raise _refuse(here.path + bad, "has a slash or NUL in a name")
        if not _NO_NAMES.isdisjoint(names) or len(set(names)) != len(names):
            raise _refuse(here.path, "has a name that names no entry, or one twice")
        if not joined.isascii() or STORE_FOLDER[1:] in joined.lower():
            for name in names:
                if is_store_name(name):
                    raise _refuse(here.path + name, "would be taken for a store's own folder")
        twins = find_twins(names)
        if twins:
            self.twins += [(here.path + a, here.path + b) for a, b in twins]

    def _read_links(self) -> None:
        targets = self.link_targets
        found = (item for group in self._bulk.read(list(targets)) for item in group)
        for id, kind, content in found:
            if content is None:
                kind, content = self._objects.read(id)
            if kind != Kind.BLOB:
                raise wrong_kind(id, Kind.BLOB, kind)
            targets[id] = bytes(memoryview(content)[: LINK_TARGET_BYTES_MAX + 1])
        for directory in self.top.walk() if targets else ():
            for name, value in directory.links:
                path, target = directory.path + name, targets[value[1]]
                if not target or b"\0" in target or len(target) > LINK_TARGET_BYTES_MAX:
                    raise _refuse(path, "is a link with a target that no link can have")
                if leads_outside(path, target):
                    self.outside.append(path)


def items_of(node: Node) -> list[Item]:
    """Entries of a leaf."""
    ids = node.ids
    split = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
    return list(zip(node.names, zip(node.tags, split, node.numbers, strict=True), strict=True))


_NO_NAMES: Final = frozenset((b"", b".", b".."))


def _refuse(path: bytes, reason: str) -> UnsafePath:
    return UnsafePath(
        f"{printable(path)} {reason}; nothing was written. Restore the other paths one by one.",
        path=to_text(path),
        reason=reason,
    )


def leads_outside(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` has a target that is absolute or climbs out of the folder."""
    if target.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


class _Standing:
    """The folder's side: what stands there, and whether it is equal, saved or unsaved."""

    def __init__(self, objects: ObjectStore, own: str | None) -> None:
        self._objects = objects
        self._own = None if own is None else os.stat(own)
        self.replaced: list[bytes] = []
        self.unsaved: list[bytes] = []
        self.leftovers: list[bytes] = []
        self.equal_count = 0
        self.equal_bytes = 0

    def compare(self, here: Directory, fd: int) -> None:
        """Compare a directory of the plan with the one open as `fd`, and all below."""
        here.exists = True
        names = set(map(os.fsencode, os.listdir(fd)))
        own = self._own is not None and os.path.samestat(os.fstat(fd), self._own)
        if own or is_store(names):
            raise _refuse(here.path[:-1] or b".", "is the folder of a store")
        if not names:
            return
        self.leftovers += [here.path + name for name in names if is_unfinished(name)]
        here.files = self._leaves(here, fd, here.files, names)
        here.links = self._leaves(here, fd, here.links, names)
        for below in here.below:
            name = below.name
            status = status_of(fd, name) if name in names else None
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                child = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
                try:
                    self.compare(below, child)
                finally:
                    os.close(child)
            else:
                self._in_the_way(here, fd, name, status)

    def _leaves(
        self, here: Directory, fd: int, leaves: list[Item], names: set[bytes]
    ) -> list[Item]:
        """Those of the files or links that have to be written."""
        missing: list[Item] = []
        for leaf in leaves:
            name, value = leaf
            status = status_of(fd, name) if name in names else None
            if status is None:
                missing.append(leaf)
            elif not self._is_equal(fd, name, value, status):
                self._in_the_way(here, fd, name, status)
                missing.append(leaf)
            else:
                self.equal_count += 1
                self.equal_bytes += value[2]
                executable = bool(status.st_mode & 0o100)
                if value[0] != LINK and executable != (value[0] == EXECUTABLE):
                    here.modes.append(leaf)
        return missing

    def _is_equal(self, fd: int, name: bytes, value: Value, status: os.stat_result) -> bool:
        tag, id, size = value
        if tag == LINK:
            return stat.S_ISLNK(status.st_mode) and link_id(fd, name) == id
        return stat.S_ISREG(status.st_mode) and status.st_size == size and file_id(fd, name) == id

    def _in_the_way(self, here: Directory, fd: int, name: bytes, status: os.stat_result) -> None:
        """Note what would be written over, and whether it could be had again."""
        here.standing[name] = status
        mode = status.st_mode
        saved = False
        if stat.S_ISDIR(mode):
            child = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            try:
                saved = not os.listdir(child)
            finally:
                os.close(child)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            id = link_id(fd, name) if stat.S_ISLNK(mode) else file_id(fd, name)
            saved = id is not None and self._objects.has(id)
        (self.replaced if saved else self.unsaved).append(here.path + name)
