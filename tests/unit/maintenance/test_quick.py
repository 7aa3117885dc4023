"""The quick judgements of a check never accept what the strict ones refuse."""

from __future__ import annotations

from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Corrupt
from cas.maintenance.fsck.graph import _are_good_leaves, _may_be_leaf
from cas.model.encoding import decode, decode_columns, decode_many, encode
from cas.model.ids import Kind, digest_of, digest_parts, digests_of
from cas.storage.codec import ZSTD, decode_frames, decode_payload, encode_payload
from cas.trees.node import decode_node

NAMES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"", b".", b"..", b"a/b", b"a\0", b"x" * 255, b"x" * 256, b"a", b"b"]),
    st.text(max_size=2),
)
NUMBERS = st.one_of(st.integers(-2, 2**64 - 1), st.booleans(), st.floats(), st.none())


@st.composite
def leaves(draw: st.DrawFn) -> list[Any]:
    """Columns of a leaf, mostly good ones."""
    names: list[Any] = draw(st.lists(st.binary(min_size=1, max_size=4), max_size=5, unique=True))
    if draw(st.booleans()):
        names = sorted(names)
    if draw(st.integers(0, 3)) == 0:
        names = draw(st.lists(NAMES, max_size=5))
    count = len(names) + draw(st.sampled_from([0] * 9 + [1, -1]))
    tags: Any = bytes(draw(st.integers(1, 4)) for _ in range(max(count, 0)))
    if draw(st.integers(0, 9)) == 0:
        tags = draw(st.one_of(st.binary(max_size=5), st.lists(st.integers(1, 4))))
    ids = bytes(32 * max(count, 0))
    numbers = [draw(st.integers(0, 300)) for _ in range(max(count, 0))]
    if draw(st.integers(0, 5)) == 0:
        numbers = draw(st.lists(NUMBERS, max_size=5))
    level = draw(st.sampled_from([0] * 12 + [1, False, 0.0, "0"]))
    extras = draw(st.sampled_from([{}] * 9 + [{"a": 1}, [], None]))
    fields = [level, names, tags, ids, numbers, extras]
    return fields[: draw(st.sampled_from([6] * 12 + [5]))]


def _are_good(nodes: list[Any]) -> bool:
    """Whether the quick judgement takes these nodes for leaves, all of them together."""
    if not all(map(_may_be_leaf, nodes)):
        return False
    levels, names, tags, ids, numbers, _extras = zip(*nodes, strict=True)
    return _are_good_leaves(levels, names, tags, ids, numbers)


@given(leaves(), st.booleans())
def test_a_leaf_taken_for_good_is_good(fields: list[Any], canonical: bool) -> None:
    """Whatever the columns say, a leaf that is recognised as good passes `decode_node`."""
    data = cbor2.dumps(fields, canonical=canonical)
    quick = decode_columns(data)
    try:
        node = decode_node(data, Kind.TREE)
    except Corrupt:
        assert not _are_good([quick])
    else:
        assert node.data == data
        if node.level == 0 and not node.extras:
            assert _are_good([quick])


@given(st.lists(leaves(), min_size=1, max_size=5))
def test_leaves_together_are_judged_as_alone(nodes: list[Any]) -> None:
    """Several leaves are taken together if, and only if, each of them is taken alone."""
    assert _are_good(nodes) == all(_are_good([node]) for node in nodes)


def test_most_leaves_are_recognised() -> None:
    """Ordinary leaves take the short way: the quick judgement is not a way to say no."""
    for count in (0, 1, 7, 64):
        names = sorted(b"name-%d" % n for n in range(count))
        fields = [0, names, bytes([1] * count), bytes(32 * count), list(range(count)), {}]
        assert _are_good([decode_columns(encode(fields))])


@given(st.binary(max_size=60))
def test_columns_of_any_bytes(data: bytes) -> None:
    """For any bytes: no exception, and what comes out encodes to the bytes that went in."""
    value = decode_columns(data)
    if value is not None:
        assert cbor2.dumps(value) == data


@given(st.lists(leaves().map(cbor2.dumps) | st.binary(max_size=12), max_size=6), st.data())
def test_items_together_come_out_as_alone(items: list[bytes], data: st.DataObject) -> None:
    """Many items in one call give the value of each, or nothing where one of them gives none,
    also where one goes on in the next.
    """
    if items and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(items) - 1))
        cut = data.draw(st.integers(0, len(items[at])))
        items[at : at + 1] = [items[at][:cut], items[at][cut:]]
    alone = [decode_columns(item) for item in items]
    found = decode_many(items)
    # A value may be null, for which `decode_columns` has no other answer.
    if found is None:
        assert None in alone
    else:
        assert [cbor2.dumps(value) for value in found] == items
    if None not in alone:
        assert decode_many(items, verified=True) == alone


@given(
    st.recursive(
        st.integers(-5, 300) | st.binary(max_size=4) | st.booleans() | st.none(),
        st.lists,
        max_leaves=8,
    )
)
def test_canonical_arrays_pass(value: Any) -> None:
    """Arrays of integers, bytes and constants pass the quick way exactly as the strict one."""
    data = encode(value)
    assert decode(data) == value
    quick = decode_columns(data)
    assert quick == value or value is None


def test_no_tag_is_followed() -> None:
    """Bytes that cbor2 would follow into dates, big numbers, patterns and cycles are refused."""
    for tag in [*range(300), 1004, 43000, 55799, 2**40]:
        for content in (0, b"\1", "a", [1, 2], []):
            data = cbor2.dumps([cbor2.CBORTag(tag, content)])
            assert decode_columns(data) is None


CONTENTS = [b"", b"a", b"hello world " * 100, bytes(5_000), bytes(range(256)) * 40]


def test_frames_come_out_as_one_by_one() -> None:
    """Many frames in one call give what `decode_payload` gives for each."""
    pairs = [
        (frame, content)
        for content in CONTENTS
        for codec, frame in [encode_payload(content)]
        if codec == ZSTD
    ]
    assert len(pairs) == 3
    decoded = decode_frames([f for f, _ in pairs], [len(c) for _, c in pairs])
    assert [bytes(found) for found in decoded] == [content for _, content in pairs]


@given(
    st.sampled_from(CONTENTS[2:]), st.integers(0, 2**20), st.integers(0, 40), st.binary(max_size=3)
)
def test_damaged_frames_are_never_taken(content: bytes, bit: int, cut: int, tail: bytes) -> None:
    """A frame that was flipped, cut or followed by bytes decodes in a group as it does alone."""
    _codec, frame = encode_payload(content)
    data = bytearray(frame)
    bit %= 8 * len(data)
    data[bit >> 3] ^= 1 << (bit & 7)
    damaged = bytes(data[: len(data) - min(cut, len(data))]) + tail
    found = decode_frames([frame, damaged], [len(content)] * 2)
    try:
        alone = decode_payload(ZSTD, damaged, len(content))
    except Corrupt:
        assert found is None
    else:
        assert found is None or bytes(found[1]) == alone


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=2_000)), max_size=12))
def test_many_digests_are_single_ones(objects: list[tuple[Kind, bytes]]) -> None:
    """Hashing many objects with one hasher a kind gives the id of each."""
    kinds, contents = [k for k, _ in objects], [c for _, c in objects]
    assert digests_of(kinds, contents) == [digest_of(k, c) for k, c in objects]
    assert digest_parts(contents) == digest_of(Kind.BLOB, b"".join(contents))
