"""Deltas: any content beside any base comes back, and nothing else ever does."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptObject
from cas.limits import DELTA_BYTES_MAX, ID_BYTES
from cas.storage.delta import decode_delta, decode_deltas, delta_base, encode_delta

MAGIC_DICTIONARY = bytes.fromhex("37a430ec")
"""What a trained dictionary begins with; as a base it is content like any other."""

CONTENTS = st.binary(min_size=1, max_size=400) | st.builds(
    lambda head, unit, count: head + unit * count,
    st.sampled_from([b"", MAGIC_DICTIONARY]),
    st.binary(min_size=1, max_size=30),
    st.integers(1, 3000),
)


def edited(content: bytes, rng: random.Random) -> bytes:
    """A later version: some places written over, some cut, some longer."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        at = rng.randrange(len(data))
        data[at : at + rng.randint(0, 300)] = rng.randbytes(rng.randint(0, 200))
    return bytes(data)


def with_dictionary(frame: bytes, base: bytes, size: int) -> bytes:
    """What a reader that knows RFC 8878 and nothing of this package decodes."""
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 27)
    return decompressor.decompress(frame, max_output_size=size)


@given(CONTENTS, CONTENTS)
def test_any_content_beside_any_base_comes_back(content: bytes, base: bytes) -> None:
    """Alone, in a call for many, and with a plain dictionary as the format says."""
    frame = encode_delta(content, base)
    assert frame is not None
    assert decode_delta(frame, base, len(content)) == content
    many = decode_deltas([frame, frame], [base, memoryview(base)], [len(content)] * 2)
    assert many is not None
    assert [bytes(made) for made in many] == [content, content]
    assert with_dictionary(frame, base, len(content)) == content


@pytest.mark.parametrize("size", [1, 1023, 1024, 131_071, 131_072, 131_073, 300_000, 3_000_000])
def test_versions_of_every_size(size: int) -> None:
    """Bases on both sides of the edges of blocks and windows; a small change is a small delta."""
    rng = random.Random(size)
    base = rng.randbytes(size)
    content = edited(base, rng)
    frame = encode_delta(content, base)
    assert frame is not None
    assert decode_delta(frame, base, len(content)) == content
    assert with_dictionary(frame, base, len(content)) == content
    assert len(frame) < 8_000


def test_the_longest_base_and_content() -> None:
    """A match may lie anywhere in 8 MiB of base."""
    rng = random.Random(8)
    base = rng.randbytes(DELTA_BYTES_MAX)
    content = base[1 << 20 :] + base[: 1 << 20]
    frame = encode_delta(content, base)
    assert frame is not None
    assert decode_delta(frame, base, len(content)) == content
    assert len(frame) < 100_000


def test_every_flipped_byte_is_told_or_gives_other_bytes_of_the_same_length() -> None:
    """A damaged frame or base never gives more or less than the record states."""
    rng = random.Random(1)
    base = b"".join(b"line %d of the base\n" % at for at in range(60))
    content = edited(base, rng)
    frame = encode_delta(content, base)
    assert frame is not None
    for at in range(len(frame)):
        for bit in (1, 0x80):
            broken = bytearray(frame)
            broken[at] ^= bit
            try:
                assert len(decode_delta(bytes(broken), base, len(content))) == len(content)
            except CorruptObject:
                continue


@pytest.mark.parametrize("wrong", [-1, 1, 1000, -1000])
def test_lengths_that_lie_are_refused(wrong: int) -> None:
    """A raw length that is not that of the content is damage."""
    base, content = b"abc" * 1000, b"abd" * 1000
    frame = encode_delta(content, base)
    assert frame is not None
    with pytest.raises(CorruptObject):
        decode_delta(frame, base, len(content) + wrong)
    assert decode_deltas([frame], [base], [len(content) + wrong]) is None


@pytest.mark.parametrize("size", [0, -1, DELTA_BYTES_MAX + 1, 1 << 40])
def test_lengths_no_delta_has_are_refused_before_anything_is_allocated(size: int) -> None:
    """Neither nothing nor more than the limit, of content or of base."""
    frame = encode_delta(b"content" * 9, b"base" * 9)
    assert frame is not None
    with pytest.raises(CorruptObject):
        decode_delta(frame, b"base" * 9, size)
    with pytest.raises(CorruptObject):
        decode_delta(frame, b"", 63)
    with pytest.raises(CorruptObject):
        decode_delta(frame, bytes(DELTA_BYTES_MAX + 1), 63)


def test_a_bomb_is_bounded_by_what_the_record_states() -> None:
    """A frame that unfolds to gigabytes is refused at the stated length."""
    bomb = zstandard.ZstdCompressor(level=19, write_content_size=False).compress(bytes(1 << 28))
    assert len(bomb) < 40_000
    with pytest.raises(CorruptObject):
        decode_delta(bomb, b"base", 1000)
    assert decode_deltas([bomb], [b"base"], [1000]) is None


def test_frames_of_another_make_are_refused() -> None:
    """A content size, a checksum, a dictionary id, two frames, bytes behind: no writer makes it."""
    content, base = b"content of a frame " * 20, b"base of it " * 20
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    good = encode_delta(content, base)
    assert good is not None
    sized = zstandard.ZstdCompressor(dict_data=dictionary, write_content_size=True)
    summed = zstandard.ZstdCompressor(
        dict_data=dictionary, write_checksum=True, write_content_size=False
    )
    for frame in (
        sized.compress(content),
        summed.compress(content),
        good + good,
        good + b"x",
        good[:-1],
        good[:5],
        b"",
        bytes(40),
    ):
        with pytest.raises(CorruptObject):
            decode_delta(frame, base, len(content))
        assert decode_deltas([frame], [base], [len(content)]) is None


def test_one_that_is_damaged_stops_the_call_for_many() -> None:
    """None: the caller asks one by one and learns which it is."""
    base, content = b"abc" * 1000, b"abd" * 1000
    frame = encode_delta(content, base)
    assert frame is not None
    assert decode_deltas([frame, frame[:-4]], [base, base], [len(content)] * 2) is None


def test_a_payload_names_its_base() -> None:
    """The first 32 bytes, and something behind them."""
    assert delta_base(bytes(range(ID_BYTES)) + b"f") == bytes(range(ID_BYTES))
    with pytest.raises(CorruptObject):
        delta_base(bytes(ID_BYTES))
