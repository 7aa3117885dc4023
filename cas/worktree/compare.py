"""Comparing a snapshot with a folder, and two texts with each other.

Floor 5. Invariant: comparing writes nothing, neither to the store nor to the folder;
what it remembers for the next time is a picture in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from cas.history.snapshot import Change, Snapshot, classify
from cas.history.store import Store
from cas.history.text import Block, common, lines_of
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind, digest_of, digest_parts
from cas.model.names import printable, to_text
from cas.objects.content import Readable
from cas.objects.store import ObjectStore
from cas.trees import paths
from cas.trees.node import DIRECTORY, Node, NodeStore, id_of
from cas.worktree.importer import folder_to_read, own_folder, picture_key
from cas.worktree.scan import Notices, Walk
from cas.worktree.statcache import load, save
from cas.worktree.values import ImportOptions

_DEFAULTS = ImportOptions()
_READ_BYTES: Final = 1 << 20
TEXT_BYTES_MAX: Final = WHOLE_BLOB_BYTES_MAX
"""A text diff of more than this takes minutes in any pure Python algorithm."""


class _HashSink:
    """Hashes content and keeps directory nodes in memory; the store is only read."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._stored = objects.tree_nodes(DIRECTORY)
        self._made: dict[bytes, Node] = {}

    def nodes(self, prefix: bytes) -> NodeStore:
        return self

    def blob(self, content: bytes, prefix: bytes, name: bytes) -> bytes:
        return digest_of(Kind.BLOB, content)

    def stream(self, stream: Readable) -> tuple[bytes, int]:
        size_bytes = 0

        def parts() -> Iterator[bytes]:
            nonlocal size_bytes
            while part := stream.read(_READ_BYTES):
                size_bytes += len(part)
                yield part

        return digest_parts(parts()), size_bytes

    def kept(self, id: bytes) -> bool:
        return True  # a comparison needs the id of a content, and never the content

    def known(self, id: bytes) -> bool:
        return id in self._made or self._objects.has(id)

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        self._made[id] = node
        return id

    def load(self, node_id: bytes) -> Node:
        node = self._made.get(node_id)
        return self._stored.load(node_id) if node is None else node


@frozen
class Look:
    """A folder as it was seen: the root of its tree, and the nodes to read that with.

    The tree need not be in the store. `notices` are those of entries that were read now.
    """

    root: bytes
    nodes: NodeStore
    notices: Notices


def look_at(
    store: Store,
    folder: bytes,
    options: ImportOptions = _DEFAULTS,
    *,
    keep: Callable[[bytes], bool] | None = None,
    mark: bytes = b"",
    remember: bool = False,
    on_read: Callable[[bytes], None] | None = None,
) -> Look:
    """See what stands in a folder, a real path; reads only what changed since the last picture.

    `keep` tells of a path whether it counts although ignore files leave it out; pictures of one
    folder with another `mark` are kept apart. With `remember` the next look begins from this one.
    `on_read` hears the path of each file and link that had to be read; what it raises ends the
    look. Raises `Invalid`.
    """
    objects = store.objects
    sink = _HashSink(objects)
    started_ns = objects.clock.wall_us() * 1000
    cache = objects.cache if options.stat_cache else None
    key = picture_key(store, folder, options, mark)
    before = None if cache is None else load(cache, key)
    own = own_folder(store)
    walk = Walk(
        folder,
        sink,
        options,
        started_ns=started_ns,
        old=before,
        own=own,
        keep=keep,
        on_read=on_read,
    )
    picture = walk.run()
    if remember and cache is not None and not picture.equals(before):
        save(cache, key, picture, objects.clock.random(8))
    return Look(picture.id(0), sink, walk.notices)


def diff_folder(
    store: Store,
    snapshot: Snapshot,
    folder: str | os.PathLike[str],
    options: ImportOptions = _DEFAULTS,
    on_notices: Callable[[Notices], None] | None = None,
) -> Iterator[Change]:
    """What changes from a snapshot to a folder as it is now, in order of path.

    `new` of a change has the id that the content would get; it need not be in the store.
    Entries that an import would leave out count as not there; `on_notices` hears of them before
    the first change. Raises `Invalid`.
    """
    seen = look_at(store, folder_to_read(store, folder), options)
    if on_notices is not None:
        on_notices(seen.notices)
    for parts, old, new in paths.diff_paths(snapshot.tree, seen.root, seen.nodes):
        yield classify(to_text(b"/".join(parts)), old, new)


def text_diff(
    old: bytes | None, new: bytes | None, path: str, context: int = 3, *, origin: str | None = None
) -> str | None:
    """Unified diff of two contents, "" when they are equal, None when one is binary or too long.

    A content that is None stands for no file at all; `origin` is the path that the old one had,
    where it had another. Content is binary when it has a NUL byte in its first 8,000 or is not
    UTF-8.
    """
    before, after = (lines_of(side or b"", TEXT_BYTES_MAX) for side in (old, new))
    if before is None or after is None:
        return None
    out: list[bytes] = []
    for line in _unified(before, after, context):
        out.append(line)
        if not line.endswith(b"\n"):
            out.append(b"\n\\ No newline at end of file\n")
    if not out:
        return ""
    left = "/dev/null" if old is None else f"a/{printable(path if origin is None else origin)}"
    right = "/dev/null" if new is None else f"b/{printable(path)}"
    return f"--- {left}\n+++ {right}\n" + b"".join(out).decode()


def _unified(before: list[bytes], after: list[bytes], context: int) -> Iterator[bytes]:
    """The hunks of a unified diff. Common lines are searched for within bounds: what difflib
    does with lines of a hundred sorts takes hours for a file of some MiB.
    """
    groups: list[list[tuple[int, int, int, int]]] = []
    start = other = 0
    for block in (*common(before, after), Block(len(before), len(after), 0)):
        if (start, other) != (block.old, block.new):
            if not groups or start - groups[-1][-1][1] > 2 * context:
                groups.append([])
            groups[-1].append((start, block.old, other, block.new))
        start, other = block.old + block.size, block.new + block.size
    for group in groups:
        lead = min(context, group[0][0])
        at = group[0][0] - lead
        end = min(group[-1][1] + context, len(before))
        last = group[-1][3] + end - group[-1][1]
        yield b"@@ -%s +%s @@\n" % (_extent(at, end), _extent(group[0][2] - lead, last))
        for a, b, c, d in group:
            yield from (b" " + line for line in before[at:a])
            yield from (b"-" + line for line in before[a:b])
            yield from (b"+" + line for line in after[c:d])
            at = b
        yield from (b" " + line for line in before[at:end])


def _extent(start: int, stop: int) -> bytes:
    if stop - start == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + (stop > start), stop - start)
