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
_NUL_WITHIN: Final = 8000


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


def text_diff(old: bytes, new: bytes, path: str, context: int = 3) -> str | None:
    """Unified diff of two contents, "" when they are equal, None when one is binary or too long.

    Content is binary when it has a NUL byte in its first 8,000 or is not UTF-8.
    """
    if old == new:
        return ""
    before, after = _lines(old), _lines(new)
    if before is None or after is None:
        return None
    import difflib

    shown = printable(path)
    out: list[str] = []
    for line in difflib.unified_diff(before, after, f"a/{shown}", f"b/{shown}", n=context):
        out.append(line)
        if not line.endswith("\n"):
            out.append("\n\\ No newline at end of file\n")
    return "".join(out)


def _lines(content: bytes) -> list[str] | None:
    if len(content) > TEXT_BYTES_MAX or b"\0" in content[:_NUL_WITHIN]:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    # Only "\n" ends a line: str.splitlines would break at form feeds and separators, too.
    return [line + "\n" for line in text.split("\n")[:-1]] + [
        line for line in text.split("\n")[-1:] if line
    ]
