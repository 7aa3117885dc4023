"""Changing one node without encoding all of it anew.

Floor 2; implements docs/format.md section 5.1. Invariant: the bytes are those that `encode_node`
gives for the same columns. A changed value puts 32 bytes of id, and the numbers column, into the
kept bytes; a new name is put in its place in the kept column of names. Encoding the names is most
of what a commit would spend here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cas.limits import ID_BYTES
from cas.model.encoding import ARRAY, EMPTY_MAP, STRING, encode_plain, head, put_bytes
from cas.trees.node import LEVEL_HEADS, Node, Value, assemble, foreign_extras

_SHORT_NAME_MAX: Final = 23
"""A name up to this length has a head of one byte, up to 255 of two."""


def replace_values(node: Node, changes: Iterable[tuple[int, Value]]) -> Node:
    """`node` with other values at some positions, by splicing into its bytes."""
    if node.extras:
        raise foreign_extras(node)
    if not node.ids_at:
        _find_columns(node)
    ids_at, data = node.ids_at, node.data
    new_ids = bytearray(node.ids)
    numbers, tags = node.numbers, node.tags
    for index, (tag, child, number) in changes:
        at = index * ID_BYTES
        new_ids[at : at + ID_BYTES] = child
        if numbers[index] != number:
            if numbers is node.numbers:
                numbers = numbers.copy()
            numbers[index] = number
        if tags[index] != tag:
            tags = [*tags[:index], tag, *tags[index + 1 :]]
    ids = bytes(new_ids)
    if numbers is node.numbers:
        tail = data[ids_at + len(ids) :]
    else:
        tail = encode_plain(numbers) + EMPTY_MAP
    start = data[:ids_at]
    if tags is not node.tags:
        if not node.level:
            tags = bytes(tags)
        ids_head = head(STRING, len(ids))
        start = b"".join((start[: node.tags_at], encode_plain(tags), ids_head))
    return Node(
        node.level,
        node.names,
        tags,
        ids,
        numbers,
        b"".join((start, ids, tail)),
        node.tags_at,
        len(start),
    )


def replace_entry(
    node: Node, start: int, stop: int, name: bytes | None, tag: int, child: bytes, number: int
) -> Node:
    """`node` with `start:stop` replaced by one entry, or by none when `name` is None."""
    if node.extras:
        raise foreign_extras(node)
    column = _splice_names(node, start, stop, name)
    names, numbers = node.names.copy(), node.numbers.copy()
    names[start:stop] = () if name is None else (name,)
    numbers[start:stop] = () if name is None else (number,)
    tags = list(node.tags)
    tags[start:stop] = () if name is None else (tag,)
    ids = b"".join((node.ids[: start * ID_BYTES], child, node.ids[stop * ID_BYTES :]))
    return assemble(
        node.level,
        names,
        column or encode_plain(names),
        tags if node.level else bytes(tags),
        ids,
        numbers,
    )


def _splice_names(node: Node, start: int, stop: int, name: bytes | None) -> bytes | None:
    """The names column with `start:stop` replaced; None where that has to be encoded anew.

    Where the heads of all names are of one length, the place of a name follows from the lengths
    of those before it, which are added up in C.
    """
    if not node.ids_at:
        _find_columns(node)
    names = node.names
    count = len(names)
    at = len(LEVEL_HEADS[node.level]) + len(head(ARRAY, count))
    heads_bytes = node.tags_at - at - sum(map(len, names))
    if heads_bytes == count:
        each = 1
    elif heads_bytes == 2 * count and all(len(n) > _SHORT_NAME_MAX for n in names):
        each = 2
    else:
        return None
    first = at + each * start + sum(map(len, names[:start]))
    last = first + each * (stop - start) + sum(map(len, names[start:stop]))
    data = node.data
    return b"".join(
        (
            head(ARRAY, count - (stop - start) + (name is not None)),
            data[at:first],
            b"" if name is None else put_bytes(name),
            data[last : node.tags_at],
        )
    )


def _find_columns(node: Node) -> None:
    tags_at = len(LEVEL_HEADS[node.level]) + len(encode_plain(node.names))
    node.tags_at = tags_at
    node.ids_at = tags_at + len(encode_plain(node.tags)) + len(head(STRING, len(node.ids)))
