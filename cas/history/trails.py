"""What each commit changed, remembered in a file, so that the log of a path looks at few trees.

Floor 4. Invariant: a cache. Without it, or with a damaged one, every answer is the same and takes
longer: a trail says whether a commit has at a path what its first parent has, and that follows
from ids, which never change their meaning. Any process may write it; the last one wins.

A trail holds a commit's time, its parents, and a mark of 16 bytes for every path that differs from
the first parent, directories on the way included. A mark is searched in the bytes as they lie. It
is long enough for nobody to find two paths with one mark, so that a hit needs no look at the trees.
The file is a head, trails, and their digest:

    head    magic (8) ‖ count of trails (8)
    trail   commit id (32) ‖ time (8) ‖ parents p (2) ‖ marks m (2, 65535: not known) ‖ 32·p ‖ 16·m
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from cas.history.core import Core
from cas.history.lasting import Commits
from cas.limits import (
    ID_BYTES,
    TRAIL_CHANGES_MAX,
    TRAILS_BYTES_MAX,
    TRAILS_UNSAVED_MAX,
)
from cas.model.ids import CommitId, derive, digest_blob
from cas.model.names import Path
from cas.model.objects import TREE
from cas.trees.diff import Difference, diff
from cas.trees.node import DIRECTORY, NodeStore, Value

_MAGIC: Final = b"casTRAL2"
_CONTEXT: Final = "cas 2026-11 trails cache v2"
_NAME: Final = "trails"
_HEAD: Final = struct.Struct("<8sQ")
_FIXED: Final = struct.Struct("<QHH")
_COUNTS: Final = struct.Struct("<HH")
_COUNTS_AT: Final = 8
_FIRST: Final = _FIXED.size
_FIRST_END: Final = _FIRST + ID_BYTES
_UNKNOWN: Final = 0xFFFF
_MARK_BYTES: Final = 16

assert TRAIL_CHANGES_MAX < _UNKNOWN


def mark_of(parts: Path) -> bytes:
    """What stands for a path in a trail."""
    return digest_blob(b"/".join(parts))[:_MARK_BYTES]


class Trails:
    """The trails of a store, read once and added to. One thread; made for one log."""

    def __init__(self, core: Core, commits: Commits | None = None) -> None:
        self._core = core
        self._commits = commits = core.commits if commits is None else commits
        self._nodes = core.objects.tree_nodes(DIRECTORY)
        # By commit id: what stands behind it in the file.
        self._trails: dict[bytes, bytes] = {}
        self._unsaved = 0
        # What changed is worth finding out only where it can be kept.
        objects = core.objects
        self._keeps = objects.cache is not None and not objects.catalog.read_only
        # What is kept tells of commits as they were made, and not of a history with gaps.
        if commits is core.commits:
            self._load()
        else:
            self._keeps = False

    def time_us(self, id: CommitId) -> int:
        """When a commit was made, as it says."""
        time_us: int = _FIXED.unpack_from(self._get(id))[0]
        return time_us

    def skip(
        self,
        id: CommitId,
        mark: bytes,
        met: Collection[CommitId],
        within: Collection[CommitId] | None,
    ) -> CommitId | None:
        """The first commit, along first parents, that may have changed the path of a mark.

        None where one of `met`, or one that is not in `within`, comes before.
        """
        trails, counts = self._trails, _COUNTS.unpack_from
        at: bytes = id
        while True:
            trail = trails.get(at) or self._get(at)
            parent_count, mark_count = counts(trail, _COUNTS_AT)
            if (
                parent_count == 0
                or mark_count == _UNKNOWN
                or trail.find(mark, _FIXED.size + ID_BYTES * parent_count) >= 0
            ):
                return CommitId(at)
            at = trail[_FIRST:_FIRST_END]
            if at in met or (within is not None and at not in within):
                return None

    def differs(self, id: CommitId, mark: bytes) -> bool:
        """Whether a commit may have something else at a path than its first parent has."""
        trail = self._get(id)
        parent_count, mark_count = _COUNTS.unpack_from(trail, _COUNTS_AT)
        return (
            parent_count == 0
            or mark_count == _UNKNOWN
            or trail.find(mark, _FIXED.size + ID_BYTES * parent_count) >= 0
        )

    def changed(self, id: CommitId, mark: bytes) -> bool:
        """Whether a commit surely has something else at a path than its only parent has."""
        trail = self._get(id)
        parent_count, mark_count = _COUNTS.unpack_from(trail, _COUNTS_AT)
        return parent_count == 1 and mark_count != _UNKNOWN and trail.find(mark, _FIRST_END) >= 0

    def first_parent(self, id: CommitId) -> CommitId:
        """The first parent of a commit that has one."""
        return CommitId(self._get(id)[_FIRST:_FIRST_END])

    def _get(self, id: bytes) -> bytes:
        trail = self._trails.get(id)
        if trail is None:
            trail = self._trails[bytes(id)] = self._make(id)
            self._unsaved += 1
        return trail

    def _make(self, id: bytes) -> bytes:
        commits = self._commits
        commit = commits.get(id)
        marks: set[bytes] | None = set()
        if commit.parents and not self._keeps:
            marks = None
        elif commit.parents:
            marks = _changed(commits.get(commit.parents[0]).tree, commit.tree, self._nodes)
        count = _UNKNOWN if marks is None else len(marks)
        head = _FIXED.pack(commit.time_us, len(commit.parents), count)
        return b"".join((head, *commit.parents, *sorted(marks or ())))

    # -- the file ----------------------------------------------------------------------------

    def _path(self) -> str | None:
        cache = self._core.objects.cache
        return None if cache is None else os.path.join(cache, _NAME)

    def _load(self) -> None:
        path = self._path()
        if path is None:
            return
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            return
        body, digest = data[:-ID_BYTES], data[-ID_BYTES:]
        if len(body) < _HEAD.size or derive(_CONTEXT, body) != digest:
            return
        magic, count = _HEAD.unpack_from(body)
        if magic != _MAGIC:
            return
        trails = self._trails
        at = _HEAD.size
        counts = _COUNTS.unpack_from
        for _ in range(count):
            start = at + ID_BYTES
            parent_count, mark_count = counts(body, start + _COUNTS_AT)
            end = start + _FIXED.size + ID_BYTES * parent_count
            if mark_count != _UNKNOWN:
                end += _MARK_BYTES * mark_count
            trails[body[at:start]] = body[start:end]
            at = end

    def save(self) -> None:
        """Keep what was added; where that is impossible it is done without.

        A few trails more are not worth a file, and a file that is too long is begun anew.
        """
        path = self._path()
        if path is None or not self._keeps or self._unsaved < TRAILS_UNSAVED_MAX:
            return
        head = _HEAD.pack(_MAGIC, len(self._trails))
        body = b"".join((head, *(part for item in self._trails.items() for part in item)))
        if len(body) > TRAILS_BYTES_MAX:
            with suppress(OSError):
                os.unlink(path)
            return
        temporary = f"{path}.{self._core.objects.clock.random(8).hex()}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.writelines((body, derive(_CONTEXT, body)))
            os.rename(temporary, path)
            self._unsaved = 0
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)


def _changed(old: bytes, new: bytes, nodes: NodeStore) -> set[bytes] | None:
    """Marks of all paths that differ between two directories; None when they are too many."""
    marks: set[bytes] = set()
    stack: list[tuple[Path, Iterator[Difference]]] = [((), diff(DIRECTORY, old, new, nodes))]
    while stack:
        above, differences = stack[-1]
        for name, before, after in differences:
            path = (*above, name)
            marks.add(mark_of(path))
            if len(marks) > TRAIL_CHANGES_MAX:
                return None
            roots = _root(before), _root(after)
            if roots[0] != roots[1]:
                stack.append((path, diff(DIRECTORY, *roots, nodes)))
                break
        else:
            stack.pop()
    return marks


def _root(value: Value | None) -> bytes:
    return value[1] if value is not None and value[0] == TREE else DIRECTORY.empty
