"""A directory of a revision as an archive.

Floor 5. Invariant: the same directory gives the same bytes, whoever exports it, from which commit
and when; content is proved before it is given, and memory is bounded by what is read ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Final, NamedTuple

from cas.errors import CorruptObject, Invalid, Purged
from cas.limits import MIB
from cas.model.ids import Kind
from cas.model.names import printable, quoted, split_path, to_bytes, to_text
from cas.model.objects import EntryKind, TreeEntry
from cas.objects.bulk import Ahead, BulkReader, Content
from cas.objects.store import ObjectStore
from cas.trees import paths
from cas.trees.node import DIRECTORY
from cas.worktree import tar
from cas.worktree.zip import ZipWriter

_ROWS: Final = 2048
_GROUP_BYTES: Final = 4 * MIB
_GROUPS_AHEAD: Final = 2
_PART_BYTES: Final = 1 * MIB

Form = Callable[[ObjectStore, TreeEntry, str, list[str] | None], Iterator[bytes]]


class _Row(NamedTuple):
    """A member; `content` is None for a directory, and for what has to be read as a stream."""

    path: bytes
    entry: TreeEntry
    content: Content | None


def export_tar(
    objects: ObjectStore, entry: TreeEntry, name: str, left_out: list[str] | None = None
) -> Iterator[bytes]:
    """A directory, or one file called `name`, as a tar archive, in parts.

    Modes are 644, 755 and 777, owners 0, times 0. Files of a directory whose content was purged
    are left out and their paths added to `left_out`, where there is such a list. Raises `Invalid`
    for a link that no archive can hold, `Purged` without a list or for a file alone, `Corrupt`.
    """
    written = 0
    for row in _rows(objects, entry, name, left_out):
        link = _link(objects, row) if row.entry.kind == EntryKind.LINK else b""
        size = 0 if row.entry.kind in (EntryKind.LINK, EntryKind.TREE) else row.entry.size
        head = tar.header(row.path, row.entry.kind, size, link)
        written += len(head) + size + len(tar.padding(size))
        yield head
        if size:
            yield from _parts(objects, row)
            yield tar.padding(size)
    yield tar.end(written)


def export_zip(
    objects: ObjectStore, entry: TreeEntry, name: str, left_out: list[str] | None = None
) -> Iterator[bytes]:
    """The same as a zip archive. Contents are not compressed; times are 1980-01-01."""
    writer = ZipWriter()
    for row in _rows(objects, entry, name, left_out):
        size = 0 if row.entry.is_tree else row.entry.size
        yield from writer.member(row.path, row.entry.kind, size, _again(objects, row))
    yield from writer.end()


def _again(objects: ObjectStore, row: _Row) -> Callable[[], Iterator[bytes]]:
    """The content of a row as often as it is asked for."""
    return lambda: _parts(objects, row)


def _rows(
    objects: ObjectStore, entry: TreeEntry, name: str, left_out: list[str] | None = None
) -> Iterator[_Row]:
    found: Iterator[tuple[bytes, TreeEntry]]
    if not entry.is_tree:
        left_out = None  # an archive of nothing is no answer
    if entry.is_tree:
        walk = paths.walk(entry.id, objects.tree_nodes(DIRECTORY), directories=True)
        found = ((b"/".join(parts), below) for parts, below in walk)
    else:
        found = iter([(split_path(to_bytes(name))[-1], entry)])
    with closing(Ahead(_read(objects, found), _GROUPS_AHEAD)) as groups:
        for group in groups:
            for row in group:
                # What cannot be had in one go is long, or not there at all.
                if row.content is None and left_out is not None and _was_purged(objects, row):
                    left_out.append(to_text(row.path))
                else:
                    yield row


def _was_purged(objects: ObjectStore, row: _Row) -> bool:
    if row.entry.is_tree:
        return False
    try:
        objects.open(row.entry.id).close()
    except Purged:
        return True
    return False


def _read(objects: ObjectStore, found: Iterator[tuple[bytes, TreeEntry]]) -> Iterator[list[_Row]]:
    """Rows with their contents, in groups of bounded size."""
    reader = BulkReader(objects)
    while batch := list(islice(found, _ROWS)):
        ids = [entry.id for _path, entry in batch if not entry.is_tree]
        contents = chain.from_iterable(reader.read(ids))
        group: list[_Row] = []
        size_bytes = 0
        for path, entry in batch:
            content = None
            if not entry.is_tree:
                given = next(contents)
                content = given.content if given.kind == Kind.BLOB else None
            group.append(_Row(path, entry, content))
            size_bytes += 0 if content is None else len(content)
            if size_bytes >= _GROUP_BYTES:
                yield group
                group, size_bytes = [], 0
        yield group


def _parts(objects: ObjectStore, row: _Row) -> Iterator[bytes]:
    """The content of a file or link, of exactly the size that its directory states."""
    if row.entry.is_tree:
        return
    if row.content is not None:
        if len(row.content) != row.entry.size:
            raise _wrong_size(row)
        yield bytes(row.content)
        return
    with objects.open(row.entry.id) as reader:
        if reader.size != row.entry.size:
            raise _wrong_size(row)
        while part := reader.read(_PART_BYTES):
            yield part


def _link(objects: ObjectStore, row: _Row) -> bytes:
    target = b"".join(_parts(objects, row))
    if not target or b"\0" in target:
        raise Invalid(
            f"The link {quoted(row.path)} leads to what no archive can hold; remove it from "
            "the branch, or export directories without it.",
            path=printable(row.path),
        )
    return target


def _wrong_size(row: _Row) -> CorruptObject:
    return CorruptObject(
        f"{quoted(row.path)} has another size than its directory states; run `cas fsck`.",
        id=row.entry.id,
    )
