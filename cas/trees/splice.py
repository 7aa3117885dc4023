"""Changing one node without encoding all of it anew.

Floor 2; implements docs/format.md section 5.1. Invariant: the bytes are those that `encode_node`
gives for the same columns. A changed value puts 32 bytes of id, and the numbers column, into the
kept bytes; a new name is put in its place in the kept column of names. Encoding the names is most
of what a commit would spend here.

Each node that is made so says what it took from the one before (`Node.made`), so that the store
can keep it as a patch of that one.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cas.limits import ID_BYTES
from cas.model.encoding import ARRAY, EMPTY_MAP, STRING, encode_plain, head, put_bytes
from cas.model.patch import PATCH_HEAD, PIECE, put_piece
from cas.trees.node import LEVEL_HEADS, Edit, Node, Value, assemble, foreign_extras

_SHORT_NAME_MAX: Final = 23
"""A name up to this length has a head of one byte, up to 255 of two."""

_value: Final = struct.Struct(f"<III{ID_BYTES}sIII").pack
"""Pieces of a patch with one other id: what stands before it, the id, the head of what follows."""

_RUNS_MAX: Final = 16
"""Runs of entries that a patch keeps: more, and it says where they are and little else."""


def replace_value(node: Node, index: int, value: Value) -> Node:
    """`replace_values` of one position: what a commit of one file does to each node above it."""
    tag, child, number = value
    ids_at, tags, numbers, data = node.ids_at, node.tags, node.numbers, node.data
    counts = tags[index] != tag
    if not ids_at or node.extras or (counts and not node.level):
        return replace_values(node, ((index, value),))
    at = ids_at + index * ID_BYTES
    end, numbers_at = at + ID_BYTES, ids_at + len(node.ids)
    if numbers[index] == number:
        kept, tail = len(data) - end, b""
        rest = data[end:]
    else:
        numbers = numbers.copy()
        numbers[index] = number
        kept, tail = numbers_at - end, encode_plain(numbers) + EMPTY_MAP
        rest = data[end:numbers_at] + tail
    if counts:
        # An inner node says how many entries are below each child.
        tags_at = node.tags_at
        tags = [*tags[:index], tag, *tags[index + 1 :]]
        columns = encode_plain(tags) + head(STRING, len(node.ids))
        patch = PATCH_HEAD + put_piece(0, tags_at, len(columns)) + columns
        patch += _value(ids_at, at - ids_at, ID_BYTES, child, end, kept, len(tail)) + tail
        data = b"".join((data[:tags_at], columns, data[ids_at:at], child, rest))
        ids_at = tags_at + len(columns)
    else:
        patch = PATCH_HEAD + _value(0, at, ID_BYTES, child, end, kept, len(tail)) + tail
        data = b"".join((data[:at], child, rest))
    ids = data[ids_at : ids_at + len(node.ids)]
    made = Node(node.level, node.names, tags, ids, numbers, data, node.tags_at, ids_at)
    if node.id:
        made.made = node.id, patch
    return made


def replace_values(node: Node, changes: Iterable[tuple[int, Value]]) -> Node:
    """`node` with other values at ascending positions, by splicing into its bytes."""
    if node.extras:
        raise foreign_extras(node)
    if not node.ids_at:
        _find_columns(node)
    ids_at, data = node.ids_at, node.data
    new_ids = bytearray(node.ids)
    numbers, tags = node.numbers, node.tags
    # A patch of the node before: what is kept of it, and what comes between.
    patch = [PATCH_HEAD]
    kept = 0
    for index, (tag, child, number) in changes:
        at = index * ID_BYTES
        new_ids[at : at + ID_BYTES] = child
        at += ids_at
        patch += put_piece(kept, at - kept, ID_BYTES), child
        kept = at + ID_BYTES
        if numbers[index] != number:
            if numbers is node.numbers:
                numbers = numbers.copy()
            numbers[index] = number
        if tags[index] != tag:
            tags = [*tags[:index], tag, *tags[index + 1 :]]
    ids = bytes(new_ids)
    numbers_at = ids_at + len(ids)
    if numbers is node.numbers:
        tail = data[numbers_at:]
        patch.append(put_piece(kept, len(data) - kept, 0))
    else:
        tail = encode_plain(numbers) + EMPTY_MAP
        patch += put_piece(kept, numbers_at - kept, len(tail)), tail
    start = data[:ids_at]
    if tags is not node.tags:
        if not node.level:
            tags = bytes(tags)
        columns = encode_plain(tags) + head(STRING, len(ids))
        start = start[: node.tags_at] + columns
        # Where the first piece began at 0 it begins behind the column now.
        _start, length, literal = PIECE.unpack(patch[1])
        patch[1] = put_piece(ids_at, length - ids_at, literal)
        patch[1:1] = put_piece(0, node.tags_at, len(columns)), columns
    made = Node(
        node.level,
        node.names,
        tags,
        ids,
        numbers,
        b"".join((start, ids, tail)),
        node.tags_at,
        len(start),
    )
    if node.id:
        made.made = node.id, b"".join(patch)
    return made


def replace_entries(
    node: Node,
    start: int,
    stop: int,
    made_names: Sequence[bytes],
    made_tags: Sequence[int],
    made_ids: bytes,
    made_numbers: Sequence[int],
) -> Node:
    """`node` with `start:stop` replaced by other entries, given as columns; often by one, or by
    none.
    """
    if node.extras:
        raise foreign_extras(node)
    own = b"".join(map(put_bytes, made_names))
    column, kept = _splice_names(node, start, stop, own, len(made_names))
    names, numbers = node.names.copy(), node.numbers.copy()
    names[start:stop] = made_names
    numbers[start:stop] = made_numbers
    # Of a leaf it is bytes, of an inner node a list.
    tags: Any = node.tags
    tags = tags[:start] + type(tags)(made_tags) + tags[stop:]
    ids = b"".join((node.ids[: start * ID_BYTES], made_ids, node.ids[stop * ID_BYTES :]))
    made = assemble(
        node.level,
        names,
        column or encode_plain(names),
        tags,
        ids,
        numbers,
    )
    if node.id and kept is not None:
        first, last = node.ids_at + start * ID_BYTES, node.ids_at + stop * ID_BYTES
        data, ids_at = made.data, made.ids_at
        begin = data[: len(LEVEL_HEADS[node.level]) + len(head(ARRAY, len(names)))]
        columns, tail = data[made.tags_at : ids_at], data[ids_at + len(ids) :]
        parts = (
            PATCH_HEAD,
            put_piece(0, 0, len(begin)),
            begin,
            put_piece(kept[0], kept[1] - kept[0], len(own)),
            own,
            put_piece(kept[2], node.tags_at - kept[2], len(columns)),
            columns,
            put_piece(node.ids_at, first - node.ids_at, len(made_ids)),
            made_ids,
            put_piece(last, node.ids_at + len(node.ids) - last, len(tail)),
            tail,
        )
        made.made = node.id, b"".join(parts)
    return made


def derive(node: Node, before: Node, edits: Sequence[Edit]) -> Node:
    """`node`, and of what it was made: `before`, whose entries it has as far as they lie within
    its names and `edits`, all of those that touch `before`, leave them alone.

    For edits that move ends of nodes: there columns are put together and encoded anew. Nothing is
    said where less than half of a node is kept.
    """
    if not before.id or before.extras:
        return node
    names, old = node.names, before.names
    stop = bisect_right(old, names[-1])
    at = bisect_left(old, names[0])
    runs: list[tuple[int, int]] = []
    if at < stop:
        # Most often all of them come behind the old node.
        edits = edits[: bisect_right(edits, old[stop - 1], key=_name_of)]
    for name, _value in edits:
        index = bisect_left(old, name, at, stop)
        if index > at:
            runs.append((at, index))
        at = max(at, index + (index < stop and old[index] == name))
    if at < stop:
        runs.append((at, stop))
    if len(runs) > _RUNS_MAX or 2 * sum([stop - start for start, stop in runs]) < len(names):
        return node
    if not before.ids_at:
        _find_columns(before)
    each, each_old = _name_head(node), _name_head(before)
    if not each or each != each_old:
        return node
    # Runs of bytes that are kept: (where they begin in the old node, in the new one, how many).
    places = [bisect_left(names, old[start]) for start, _stop in runs]
    begin, begin_old = _names_at(node), _names_at(before)
    kept = []
    at = place = size = size_old = 0
    for (start, stop), new in zip(runs, places, strict=True):
        size_old += sum(map(len, old[at:start]))
        size += sum(map(len, names[place:new]))
        length = sum(map(len, old[start:stop]))
        kept.append(
            (
                begin_old + size_old + each * start,
                begin + size + each * new,
                length + each * (stop - start),
            )
        )
        size_old, size = size_old + length, size + length
        at, place = stop, new + stop - start
    ids_at, ids_at_old = node.ids_at, before.ids_at
    for (start, stop), new in zip(runs, places, strict=True):
        kept.append(
            (
                ids_at_old + start * ID_BYTES,
                ids_at + new * ID_BYTES,
                (stop - start) * ID_BYTES,
            )
        )
    data, done, piece, parts = node.data, 0, (0, 0), [PATCH_HEAD]
    for start, place, length in kept:
        parts += put_piece(*piece, place - done), data[done:place]
        piece, done = (start, length), place + length
    parts += put_piece(*piece, len(data) - done), data[done:]
    node.made = before.id, b"".join(parts)
    return node


def _name_of(edit: Edit) -> bytes:
    return edit[0]


def _names_at(node: Node) -> int:
    """Where the first name of a node begins in its bytes, head included."""
    return len(LEVEL_HEADS[node.level]) + len(head(ARRAY, len(node.names)))


def _name_head(node: Node) -> int:
    """Length of the heads of all names of a node whose columns were found; 0 when they differ."""
    names, count = node.names, len(node.names)
    heads_bytes = node.tags_at - _names_at(node) - sum(map(len, names))
    if heads_bytes == count:
        return 1
    return 2 if heads_bytes == 2 * count and len(min(names, key=len)) > _SHORT_NAME_MAX else 0


def _splice_names(
    node: Node, start: int, stop: int, own: bytes, count_own: int
) -> tuple[bytes | None, tuple[int, int, int] | None]:
    """The names column with `start:stop` replaced by `count_own` encoded ones, and where in the
    old bytes names begin, what is replaced begins, and what follows it; None where that has to be
    encoded anew.

    Where the heads of all names are of one length, the place of a name follows from the lengths
    of those before it, which are added up in C.
    """
    if not node.ids_at:
        _find_columns(node)
    names = node.names
    count = len(names)
    at, each = _names_at(node), _name_head(node)
    if not each:
        return None, None
    first = at + each * start + sum(map(len, names[:start]))
    last = first + each * (stop - start) + sum(map(len, names[start:stop]))
    data = node.data
    column = b"".join(
        (
            head(ARRAY, count - (stop - start) + count_own),
            data[at:first],
            own,
            data[last : node.tags_at],
        )
    )
    return column, (at, first, last)


def _find_columns(node: Node) -> None:
    tags_at = len(LEVEL_HEADS[node.level]) + len(encode_plain(node.names))
    node.tags_at = tags_at
    node.ids_at = tags_at + len(encode_plain(node.tags)) + len(head(STRING, len(node.ids)))
