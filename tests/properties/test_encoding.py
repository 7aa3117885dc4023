"""Canonical CBOR: one value, one encoding, and no other bytes are taken."""

from __future__ import annotations

import io
import struct
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.errors import Invalid, NotCanonical
from cas.limits import STRUCTURED_BYTES_MAX, STRUCTURED_DEPTH_MAX
from cas.model.encoding import (
    decode,
    encode,
    encode_plain,
    plain_map,
    put_bytes,
    put_text,
    put_uint,
)

INTEGERS = st.integers(-(1 << 64), (1 << 64) - 1)
LEAVES = (
    INTEGERS
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.booleans()
    | st.none()
    | st.sampled_from([23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1, -1])
)
VALUES = st.recursive(
    LEAVES,
    lambda below: (
        st.lists(below, max_size=6) | st.dictionaries(st.text(max_size=6), below, max_size=6)
    ),
    max_leaves=25,
)


def depth(value: Any) -> int:
    """Arrays and maps inside each other."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def oracle(value: Any) -> bytes:
    """The encoding, written from docs/format.md section 3 alone."""

    def head(major: int, argument: int) -> bytes:
        if argument < 24:
            return bytes([major << 5 | argument])
        for info, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
            if argument < 1 << 8 * struct.calcsize(form):
                return bytes([major << 5 | info]) + struct.pack(form, argument)
        raise AssertionError(argument)

    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(oracle, value))
    pairs = sorted((oracle(key), oracle(below)) for key, below in value.items())
    return head(5, len(pairs)) + b"".join(key + below for key, below in pairs)


@given(VALUES)
def test_a_value_has_the_encoding_of_the_format(value: Any) -> None:
    """Encoding agrees with an oracle written from the format, and decoding gives the value."""
    data = oracle(value)
    assert encode(value) == data
    if depth(value) <= STRUCTURED_DEPTH_MAX:
        assert decode(data) == value
        assert decode(data, verified=True) == value


@given(st.recursive(LEAVES, lambda below: st.lists(below, max_size=6), max_leaves=25))
def test_plain_encoding_is_the_same_without_maps(value: Any) -> None:
    """Where no map has two keys, the faster way to encode gives the same bytes."""
    assert encode_plain(value) == encode(value)
    assert encode_plain([value, {}]) == encode([value, {}])


@given(
    st.integers(0, (1 << 64) - 1)
    | st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]),
    st.binary(max_size=300) | st.sampled_from([bytes(65535), bytes(65536)]),
    st.text(max_size=300) | st.sampled_from(["a" * 65535, "ä" * 32768]),
)
def test_what_is_put_together_by_hand_is_the_encoding(number: int, data: bytes, text: str) -> None:
    """Columns of nodes, commits and entries are joined from parts; each is as encoded alone."""
    assert put_text(text) == encode(text)
    assert put_uint(number) == encode(number)
    assert put_bytes(data) == encode(data)


@given(st.binary(max_size=80))
@example(b"")
@example(b"\xff")
@example(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(b"\xa1\xa1\x61a\x01\x02")
def test_any_bytes_are_refused_or_are_the_encoding(data: bytes) -> None:
    """Whatever the bytes: a typed refusal, or a value of which they are the encoding."""
    try:
        value = decode(data)
    except NotCanonical:
        return
    assert oracle(value) == data


@given(VALUES, st.data())
def test_a_changed_encoding_is_refused_or_another_value(value: Any, draw: st.DataObject) -> None:
    """Bytes changed, dropped, doubled or added never decode to what they do not encode."""
    data = bytearray(encode(value))
    at = draw.draw(st.integers(0, len(data) - 1))
    how = draw.draw(st.sampled_from(["flip", "drop", "double", "add", "cut"]))
    if how == "flip":
        data[at] ^= draw.draw(st.integers(1, 255))
    elif how == "drop":
        del data[at]
    elif how == "double":
        data.insert(at, data[at])
    elif how == "add":
        data += draw.draw(st.binary(min_size=1, max_size=3))
    else:
        del data[at:]
    try:
        found = decode(bytes(data))
    except NotCanonical:
        return
    assert oracle(found) == data


@pytest.mark.parametrize(
    ("hex", "why"),
    [
        ("1800", "a small number in two bytes"),
        ("1817", "23 in two bytes"),
        ("1900ff", "255 in three bytes"),
        ("1a0000ffff", "65,535 in five bytes"),
        ("1b00000000ffffffff", "2^32 - 1 in nine bytes"),
        ("3800", "-1 in two bytes"),
        ("5800", "an empty byte string with a long head"),
        ("7800", "an empty text with a long head"),
        ("9800", "an empty array with a long head"),
        ("b800", "an empty map with a long head"),
        ("a2616201616101", "keys out of order"),
        ("a262616101616201", "a longer key before a shorter one"),
        ("a2616101616102", "a key twice"),
        ("a10102", "a number as key"),
        ("a14161 01".replace(" ", ""), "bytes as key"),
        ("a1f601", "null as key"),
        ("a1800 1".replace(" ", ""), "an array as key"),
        ("81a1a000", "a map as key, deeper"),
        ("f90000", "a half float"),
        ("fa00000000", "a float"),
        ("fb0000000000000000", "a double"),
        ("fb7ff8000000000000", "not a number"),
        ("c11a00000000", "a tagged time"),
        ("c249010000000000000000", "a big number"),
        ("d81d00", "a reference to an earlier value"),
        ("d9d9f700", "the tag that says CBOR"),
        ("f7", "undefined"),
        ("e0", "a simple value"),
        ("f820", "a simple value in two bytes"),
        ("9fff", "an array without length"),
        ("5f4100ff", "a byte string in pieces"),
        ("7f6161ff", "a text in pieces"),
        ("bfff", "a map without length"),
        ("ff", "a break alone"),
        ("1c", "a reserved head"),
        ("fc", "another reserved head"),
        ("0000", "two values"),
        ("", "nothing"),
        ("18", "a head cut short"),
        ("4261", "a string cut short"),
        ("8201", "an array cut short"),
        ("a161", "a map cut short"),
        ("a16161", "a map without its value"),
        ("61ff", "text that is no UTF-8"),
        ("62c080", "an overlong NUL"),
        ("63eda080", "a surrogate in UTF-8"),
        ("5bffffffffffffffff", "a string of 2^64 bytes"),
        ("9bffffffffffffffff", "an array of 2^64 values"),
        ("bbffffffffffffffff", "a map of 2^64 pairs"),
        ("9a00ffffff00", "an array longer than what remains"),
        ("ba7fffffff00", "a map longer than what remains"),
    ],
)
def test_every_other_form_is_refused(hex: str, why: str) -> None:
    """Forms that other decoders take are not canonical, and the error is typed."""
    with pytest.raises(NotCanonical):
        decode(bytes.fromhex(hex))
    with pytest.raises(NotCanonical):
        decode(b"\x81" + bytes.fromhex(hex))


@pytest.mark.parametrize("open_one", [b"\x81", b"\xa1\x61a"])
def test_depth_is_bounded(open_one: bytes) -> None:
    """Sixteen levels are read; one more, or a million, is refused without recursion."""
    deepest = open_one * STRUCTURED_DEPTH_MAX + b"\x00"
    assert encode(decode(deepest)) == deepest
    for levels in (STRUCTURED_DEPTH_MAX + 1, 1_000_000):
        with pytest.raises(NotCanonical):
            decode(open_one * levels + b"\x00")


def test_size_is_bounded() -> None:
    """More than the limit of a structured object is refused before it is looked at."""
    head = b"\x5a" + (STRUCTURED_BYTES_MAX - 5).to_bytes(4, "big")
    assert len(decode(head + bytes(STRUCTURED_BYTES_MAX - 5))) == STRUCTURED_BYTES_MAX - 5
    with pytest.raises(NotCanonical):
        decode(bytes(STRUCTURED_BYTES_MAX + 1))


def test_wide_values_are_read() -> None:
    """An array of many small values is no bomb."""
    wide = encode([0] * 200_000)
    assert decode(wide) == [0] * 200_000


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_maps_of_callers(value: dict[str, Any]) -> None:
    """A caller's map that may be stored comes back equal; a deeper one is refused."""
    if depth(value) < STRUCTURED_DEPTH_MAX:
        assert plain_map(value) == value
        assert decode(encode([plain_map(value)])) == [value]
    else:
        with pytest.raises(Invalid):
            plain_map(value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.5},
        {"a": float("nan")},
        {"a": {1: 2}},
        {"a": [{b"x": 1}]},
        {1: 2},
        {"a": 1 << 64},
        {"a": -(1 << 64) - 1},
        {"a": object()},
        {"a": "\ud800"},
        {"a": {"b", "c"}},
        {"a": cbor2.undefined},
        {"a": cbor2.CBORTag(1, 0)},
        {"a": io.BytesIO()},
    ],
)
def test_maps_that_no_reader_would_take(value: dict[Any, Any]) -> None:
    """What a decoder refuses is refused when it is given, not when it is read."""
    with pytest.raises(Invalid):
        plain_map(value)
