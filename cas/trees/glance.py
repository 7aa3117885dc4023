"""One name of a leaf, looked for in its bytes: most of a look-up in a leaf that is not decoded.

Floor 2; implements docs/format.md section 5.1 for a leaf whose names are all of one length, as
generated ids are. Invariant: what is found is what the decoded leaf has; where the bytes cannot
show it, the answer is `UNKNOWN`, and the leaf has to be decoded.
"""

from __future__ import annotations

from typing import Final, Literal

from cas.limits import ID_BYTES
from cas.model.encoding import ARRAY, STRING, head
from cas.trees.node import EMPTY_DATA, LEVEL_HEADS

Glance = tuple[int, bytes] | None | Literal[False]

UNKNOWN: Final = False

_START: Final = LEVEL_HEADS[0]
_COUNT_AT: Final = len(_START)
_ONE_BYTE: Final = 24
_TWO_BYTES: Final = 0x100


def glance(data: bytes, name: bytes, last: bytes) -> Glance:
    """Tag and id of `name` in the leaf that these bytes encode and whose last name is `last`; None
    where it is not there.
    """
    size = len(last)
    if len(data) <= len(EMPTY_DATA) or not data.startswith(_START):
        return UNKNOWN
    count = data[_COUNT_AT] - ARRAY
    names_at = _COUNT_AT + 1
    if count == _ONE_BYTE:
        count = data[names_at]
        names_at += 1
    if not 0 < count < _TWO_BYTES or not 0 < size < _TWO_BYTES:
        return UNKNOWN
    each = head(STRING, size)
    stride = len(each) + size
    names_end = names_at + count * stride
    # The first name is as long as the last one, so that the second begins where it ends, and so on.
    if data[names_at:names_end:stride] != each[:1] * count:
        return UNKNOWN
    if size >= _ONE_BYTE and data[names_at + 1 : names_end : stride] != each[1:] * count:
        return UNKNOWN
    tags_head, ids_head = head(STRING, count), head(STRING, count * ID_BYTES)
    tags_at = names_end + len(tags_head)
    ids_at = tags_at + count + len(ids_head)
    if (
        not data.startswith(last, names_end - size)
        or not data.startswith(tags_head, names_end)
        or not data.startswith(ids_head, tags_at + count)
    ):
        return UNKNOWN
    if len(name) != size:
        return None
    first = names_at + len(each)
    at = data.find(name, first, names_end)
    while at >= 0 and (at - first) % stride:
        at = data.find(name, at + 1, names_end)
    if at < 0:
        return None
    index = (at - first) // stride
    ids_at += index * ID_BYTES
    return data[tags_at + index], data[ids_at : ids_at + ID_BYTES]
