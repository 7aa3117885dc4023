"""Comparing a snapshot with a folder, and two texts with each other.

Floor 5. Invariant: comparing writes nothing, neither to the store nor to the folder;
what it remembers for the next time is a picture in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve, frozen

from cas.history.snapshot import Change, Snapshot, classify
from cas.history.store import Store
from cas.history.text import Block, common, lines_of
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind, digest_of, digest_parts
from cas.model.names import join_path, to_bytes
from cas.model.objects import EntryKind
from cas.objects.content import Readable
from cas.objects.store import ObjectStore
from cas.trees import paths
from cas.trees.node import DIRECTORY, Node, NodeStore, id_of
from cas.worktree.importer import folder_to_read, own_folder, picture_key
from cas.worktree.scan import Notices, Walk
from cas.worktree.statcache import load, save
from cas.worktree.values import NO_OPTIONS, ImportOptions

_READ_BYTES: Final = 1 << 20
TEXT_BYTES_MAX: Final = WHOLE_BLOB_BYTES_MAX
"""A text diff of more than this takes minutes in any pure Python algorithm."""
_MODES: Final = {EntryKind.FILE: 100644, EntryKind.EXECUTABLE: 100755, EntryKind.LINK: 120000}
"""Kinds as patches have them, in the digits that are written."""
_MISREAD: Final = frozenset(' "\\')
_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


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
    options: ImportOptions = NO_OPTIONS,
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
    options: ImportOptions = NO_OPTIONS,
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
        yield classify(join_path(parts), old, new)


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
    left = "/dev/null" if old is None else _name("a/" + (path if origin is None else origin))
    right = "/dev/null" if new is None else _name("b/" + path)
    return f"--- {left}\n+++ {right}\n" + b"".join(out).decode()


def patch_text(change: Change, old: bytes | None, new: bytes | None) -> str | None:
    """A change with its two contents, as `git apply` and `patch -p1` take it; None where one of
    them is binary or too long.

    Headers say what no line of text does: files that came or went empty, modes, links, renames.
    """
    before, after = change.old, change.new
    if before is None or after is None or (before.kind == after.kind == EntryKind.LINK):
        return _section(change, old, new)
    if EntryKind.LINK not in (before.kind, after.kind):
        return _section(change, old, new)
    # A link is no file with another mode: git takes the one away and makes the other.
    gone = _section(evolve(change, new=None), old, None)
    came = _section(evolve(change, old=None), None, new)
    return None if gone is None or came is None else gone + came


def _section(change: Change, old: bytes | None, new: bytes | None) -> str | None:
    origin = change.path if change.origin is None else change.origin
    text = text_diff(old, new, change.path, origin=origin)
    if text is None:
        return None
    lines = [f"diff --git {_name('a/' + origin)} {_name('b/' + change.path)}"]
    was = None if change.old is None else _MODES[change.old.kind]
    becomes = None if change.new is None else _MODES[change.new.kind]
    if was is None:
        lines.append(f"new file mode {becomes}")
    elif becomes is None:
        lines.append(f"deleted file mode {was}")
        if not old:
            lines.append("index e69de29..0000000")  # else `patch` asks whether this is reversed
    elif was != becomes:
        lines += [f"old mode {was}", f"new mode {becomes}"]
    if origin != change.path:
        lines.append(f"similarity index {change.similarity}%")
        lines += [f"rename from {_name(origin)}", f"rename to {_name(change.path)}"]
    return "\n".join([*lines, text])


def _name(name: str) -> str:
    """A name as patches have it: in quotes, with escapes as in C, where it could be misread.

    A blank is enough: `patch` takes it for the end of a name, and would change another file.
    """
    if name.isprintable() and not _MISREAD.intersection(name):
        return name
    return '"' + "".join(map(_escaped, name)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in to_bytes(char))


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
