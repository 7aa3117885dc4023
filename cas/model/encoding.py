"""Canonical CBOR: one value, one encoding; everything else is refused.

Floor 1; implements docs/format.md section 3 (RFC 8949 section 4.2.1, restricted). Invariant:
`decode(data)` succeeds only if `encode(decode(data)) == data`.

Three walls stand before foreign bytes: an iterative scan that checks depth and lengths against
the bytes that remain and lets no tag, float or indefinite length through (cbor2 follows tags
into regular expressions, MIME and cycles); cbor2 itself; and the comparison with what `encode`
makes of the result, which catches long integers, key order, duplicates and trailing bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import cbor2

from cas.errors import Invalid, NotCanonical
from cas.limits import STRUCTURED_BYTES_MAX, STRUCTURED_DEPTH_MAX
from cas.model.ids import digest_blob

_MAJOR_MAX_ITEMS: Final = 1 << 24


def encode(value: Any) -> bytes:
    """The canonical encoding of arrays, text-keyed maps, ints, bytes, text, booleans, None.

    Raises `Invalid` for what cbor2 cannot encode. Floats, other keys and what becomes a tag are
    not looked for, because that would cost a tree node more than encoding it; values that a
    caller made up pass `plain_map` before. The caller bounds the size.
    """
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, TypeError, ValueError, UnicodeEncodeError) as error:
        raise Invalid(f"This value has no canonical encoding: {error}") from error


def encode_plain(value: Any) -> bytes:
    """`encode` for a value whose maps have one key at the most: same bytes in half the time.

    What cbor2's canonical mode adds to its plain one is the order of map keys and the width of
    floats; arrays, strings and integers come out the same, as a property test shows.
    """
    try:
        return cbor2.dumps(value)
    except (cbor2.CBOREncodeError, TypeError, ValueError, UnicodeEncodeError) as error:
        raise Invalid(f"This value has no canonical encoding: {error}") from error


# How a number is written: alone in the head of its item, or in 1, 2, 4 or 8 bytes behind that.
_WIDER_FROM: Final = (24, 1 << 8, 1 << 16, 1 << 32)
_wide: Final = tuple(struct.Struct(">B" + code).pack for code in ("", *"BHIQ"))
_BYTES: Final = tuple(bytes([n]) for n in range(256))
STRING: Final = 0x40
TEXT: Final = 0x60
ARRAY: Final = 0x80
MAP: Final = 0xA0
EMPTY_MAP: Final = b"\xa0"
NULL: Final = b"\xf6"
ID_HEAD: Final = b"\x58\x20"
"""What stands before the 32 bytes of an id or a digest."""


def head(major: int, length: int) -> bytes:
    """The head of an item: `major` is its major type in place (0x40 for a byte string)."""
    if length < 24:
        return _BYTES[major + length]
    wide = bisect_right(_WIDER_FROM, length)
    return _wide[wide](major + 23 + wide, length)


def put_uint(number: int) -> bytes:
    """A number of at most 64 bits."""
    wide = bisect_right(_WIDER_FROM, number)
    return _wide[wide](23 + wide, number) if wide else _BYTES[number]


def text_order(text: str) -> tuple[int, bytes]:
    """What text is sorted by to stand in the order of its encodings: the shorter before the
    longer. So stand the keys of a map.
    """
    data = text.encode()
    return len(data), data


def put_bytes(data: bytes) -> bytes:
    """A byte string."""
    return head(STRING, len(data)) + data


@lru_cache(maxsize=16)
def put_text(text: str) -> bytes:
    """Text; what was put last is remembered: authors and refs come again. Raises `Invalid`."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"This value has no canonical encoding: {error}") from error
    return head(TEXT, len(data)) + data


def plain_map(value: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's map as it may stand in a structured object. Raises `Invalid`.

    What `decode` would refuse later (floats, tags, keys that are no text, depth) is refused here.
    """
    if not value:
        return {}
    plain = dict(value)
    data = encode(plain)
    try:
        # Wherever it stands, it stands at least one level deep.
        _scan(data, STRUCTURED_DEPTH_MAX - 1)
    except NotCanonical as error:
        raise Invalid(f"This map cannot be stored: {error.reason}.") from error
    return plain


def decode(data: bytes, *, verified: bool = False) -> Any:
    """The value of which `data` is the canonical encoding. Raises `NotCanonical`.

    `verified=True` skips the comparison and is only for bytes whose hash was compared with an id.
    Whoever chose the bytes chose their id as well, so that depth and tags are guarded there too;
    it costs 0.1 us.
    """
    if verified:
        try:
            return _load(data)
        except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
            raise NotCanonical(f"Not a canonical encoding: {error}", reason=str(error)) from error
    if len(data) > STRUCTURED_BYTES_MAX:
        raise _refuse(f"{len(data)} bytes, more than {STRUCTURED_BYTES_MAX}")
    _scan(data)
    try:
        value = cbor2.loads(data, max_depth=STRUCTURED_DEPTH_MAX + 1, allow_indefinite=False)
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError) as error:
        raise NotCanonical(f"Not a canonical encoding: {error}", reason=str(error)) from error
    if again != data:
        raise _refuse("another encoding of the same value is the canonical one")
    return value


def _refuse_tag(*_: Any) -> Any:
    raise cbor2.CBORDecodeError("tags are not allowed")


# Every tag that cbor2 would follow on its own.
_TAGS: Final = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
    _refuse_tag,
)


def _load(data: bytes, above: int = 1) -> Any:
    """The value, with no tag followed and no depth past the limit. Raises what cbor2 does."""
    return cbor2.loads(
        data,
        max_depth=STRUCTURED_DEPTH_MAX + above,
        allow_indefinite=False,
        semantic_decoders=_TAGS,
        tag_hook=_refuse_tag,
    )


def decode_columns(data: bytes) -> Any:
    """The value of `data` where encoding it gives the same bytes, else None: `decode` tells why.

    All of it in C, a sixth of the time of `decode`, for a check that reads every node of a
    store. No tag is followed, but floats and unordered maps pass: the caller takes neither.
    """
    try:
        value = _load(data)
        return value if cbor2.dumps(value) == data else None
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError):
        return None


def decode_many(items: Sequence[bytes], *, verified: bool = False) -> list[Any] | None:
    """`decode_columns` of each, in two calls for all; None where one of them gives None.

    `verified=True` does not compare what encoding them gives, as for contents that hashed to
    their ids.

    Between the items stands the hash of them all, which none of them can contain. As many marks
    come out between the values as went in, so that each value ends where its item does.
    """
    mark = digest_blob(b"".join(items))
    between = put_bytes(mark)
    data = head(ARRAY, 2 * len(items)) + b"".join([item + between for item in items])
    try:
        values = _load(data, above=2)
        if values[1::2] != [mark] * len(items):
            return None
        if not verified and cbor2.dumps(values) != data:
            return None
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError):
        return None
    found: list[Any] = values[::2]
    return found


def _scan(data: bytes, depth_max: int = STRUCTURED_DEPTH_MAX) -> None:
    """Check heads, keys, depth and lengths of one data item without recursion or allocation."""
    end = len(data)
    position = 0
    # Items still to come on each open level; a map of n pairs counts 2n items, and the next of
    # them is a key while their number is even.
    open_counts = [1]
    open_maps = [False]
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            open_maps.pop()
            continue
        is_key = open_maps[-1] and open_counts[-1] % 2 == 0
        open_counts[-1] -= 1
        if position >= end:
            raise _refuse("it ends in the middle of an item")
        head = data[position]
        major, info = head >> 5, head & 31
        position += 1
        if is_key and major != 3:
            raise _refuse("the keys of a map are text")
        if info < 24:
            argument = info
        elif info <= 27:
            width = 1 << (info - 24)
            if position + width > end:
                raise _refuse("it ends in the middle of a head")
            argument = int.from_bytes(data[position : position + width], "big")
            position += width
        else:
            raise _refuse("indefinite lengths are not allowed")
        if major in (2, 3):
            if argument > end - position:
                raise _refuse("a string is longer than the bytes that remain")
            position += argument
        elif major in (4, 5):
            items = argument if major == 4 else 2 * argument
            if items > min(end - position, _MAJOR_MAX_ITEMS):
                raise _refuse("an array or map is longer than the bytes that remain")
            if len(open_counts) > depth_max:
                raise _refuse(f"nested deeper than {depth_max}")
            open_counts.append(items)
            open_maps.append(major == 5)
        elif major == 6:
            raise _refuse("tags are not allowed")
        elif major == 7 and head not in (0xF4, 0xF5, 0xF6):
            raise _refuse("floats and simple values other than false, true, null are not allowed")
    if position != end:
        raise _refuse("bytes follow the item")


def _refuse(reason: str) -> NotCanonical:
    return NotCanonical(f"Not a canonical encoding: {reason}.", reason=reason)


def shape(condition: bool, reason: str) -> None:
    """Assert a rule about the shape of decoded bytes. Raises `NotCanonical`."""
    if not condition:
        raise NotCanonical(f"Not a valid encoding: {reason}.", reason=reason)


def is_uint(value: Any) -> bool:
    """An integer of 0 or more that fits 64 bits; `True` is none."""
    return type(value) is int and 0 <= value < 1 << 64


def is_id(value: Any) -> bool:
    """32 bytes."""
    return type(value) is bytes and len(value) == 32


def is_extras(value: Any) -> bool:
    """A map with text keys."""
    return type(value) is dict and all(type(key) is str for key in value)
