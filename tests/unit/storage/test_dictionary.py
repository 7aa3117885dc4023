"""Dictionaries by themselves: what is encoded beside one comes back, and nothing else does."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptObject
from cas.limits import DICTIONARY_BYTES_MAX, DICTIONARY_CONTENT_BYTES_MAX, MIB
from cas.model.ids import digest_blob
from cas.storage.dictionary import Dictionary, takes_dictionary, train
from cas.testing.memories import memories_of

CONTENT = train(memories_of(random.Random(1), 600), 4096)
assert CONTENT is not None
DICTIONARY = Dictionary(digest_blob(CONTENT), CONTENT)
MEMORIES = memories_of(random.Random(2), 200)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(MEMORIES),
            st.binary(min_size=1, max_size=300),
            st.integers(1, DICTIONARY_CONTENT_BYTES_MAX).map(lambda size: b"ab" * (size // 2 + 1)),
        ),
        max_size=20,
    ),
    st.integers(1, 2),
)
def test_what_is_encoded_comes_back(contents: list[bytes], threads: int) -> None:
    """Each content is the same again, alone and with others, or is left as it was."""
    payloads = DICTIONARY.encode(contents, threads)
    assert len(payloads) == len(contents)
    pairs = [(p, c) for p, c in zip(payloads, contents, strict=True) if p is not None]
    for payload, content in pairs:
        assert len(payload) < len(content)
        assert payload.startswith(DICTIONARY.tag)
        assert DICTIONARY.decode(payload, len(content)) == content
    if pairs:
        many = DICTIONARY.decode_many([p for p, _c in pairs], [len(c) for _p, c in pairs])
        assert [bytes(found) for found in many] == [content for _p, content in pairs]


def test_it_is_worth_it() -> None:
    """Memories take less than half of what they take in frames of their own."""
    alone = zstandard.ZstdCompressor(level=3, write_content_size=False)
    beside = [len(payload or b"") for payload in DICTIONARY.encode(MEMORIES)]
    assert min(beside) > 0
    assert 2 * sum(beside) < sum(len(alone.compress(content)) for content in MEMORIES)


@pytest.mark.parametrize("by", [-1, 1, 1000, 64 * MIB, 1 << 62])
def test_a_length_that_lies_is_refused(by: int) -> None:
    """More or fewer bytes than a record states are never given, and never made."""
    (payload,) = DICTIONARY.encode(MEMORIES[:1])
    assert payload is not None
    with pytest.raises(CorruptObject):
        DICTIONARY.decode(payload, len(MEMORIES[0]) + by)
    if by < MIB:
        many = DICTIONARY.decode_many([payload], [len(MEMORIES[0]) + by])
        assert many is None or len(many[0]) != len(MEMORIES[0]) + by
    else:
        assert by == 64 * MIB or DICTIONARY.decode_many([payload], [by]) is None
    with pytest.raises(CorruptObject):
        DICTIONARY.decode(payload, 0)


@given(st.binary(max_size=80), st.integers(1, 4096))
def test_any_bytes_are_refused_or_bounded(payload: bytes, raw_bytes: int) -> None:
    """Whatever a payload holds, it gives so many bytes or an error, and the next one works."""
    with contextlib.suppress(CorruptObject):
        assert len(DICTIONARY.decode(payload, raw_bytes)) == raw_bytes
    DICTIONARY.decode_many([payload], [raw_bytes])
    (good,) = DICTIONARY.encode(MEMORIES[:1])
    assert good is not None
    assert DICTIONARY.decode(good, len(MEMORIES[0])) == MEMORIES[0]


def test_a_bomb_is_bounded_by_what_the_record_states() -> None:
    """A short payload that gives a great deal stops at the stated length."""
    data = zstandard.ZstdCompressionDict(CONTENT)
    bomb = zstandard.ZstdCompressor(dict_data=data, write_content_size=False, write_dict_id=False)
    frame = bomb.compress(bytes(64 * MIB))
    payload = DICTIONARY.tag + frame[4:]
    assert len(payload) < 16 * 1024
    with pytest.raises(CorruptObject):
        DICTIONARY.decode(payload, 1000)
    assert DICTIONARY.decode_many([payload], [1000]) is None


def test_only_plain_frames_are_taken() -> None:
    """A frame with a size, a checksum, a dictionary's number or bytes behind it is none of ours."""
    data = zstandard.ZstdCompressionDict(CONTENT)
    content = MEMORIES[0]
    for how in ("write_content_size", "write_checksum", "write_dict_id"):
        flags = {"write_content_size": False, "write_checksum": False, "write_dict_id": False}
        made = zstandard.ZstdCompressor(dict_data=data, **{**flags, how: True})
        with pytest.raises(CorruptObject):
            DICTIONARY.decode(DICTIONARY.tag + made.compress(content)[4:], len(content))
    (payload,) = DICTIONARY.encode([content])
    assert payload is not None
    for odd in (payload + b"\0", payload + payload, payload[:-1], payload[:5], b""):
        with pytest.raises(CorruptObject):
            DICTIONARY.decode(odd, len(content))
        assert DICTIONARY.decode_many([odd], [len(content)]) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no dictionary",
        CONTENT[:8],
        CONTENT[:4] + bytes(5000),
        CONTENT[:4] + b"\xff" * 5000,
        CONTENT + bytes(DICTIONARY_BYTES_MAX),
    ],
    ids=["empty", "text", "head", "zeros", "ones", "long"],
)
def test_what_is_no_dictionary_is_refused(content: bytes) -> None:
    """A blob that is named as a dictionary and is none is an error that says so."""
    with pytest.raises(CorruptObject, match="is none"):
        Dictionary(digest_blob(content), content)


@given(st.integers(8, len(CONTENT) - 1), st.integers(0, 255))
def test_a_changed_dictionary_gives_no_wrong_bytes_unseen(at: int, value: int) -> None:
    """Other tables give an error or other bytes, which an id tells apart; never a crash."""
    changed = CONTENT[:at] + bytes([value]) + CONTENT[at + 1 :]
    try:
        other = Dictionary(digest_blob(changed), changed)
    except CorruptObject:
        return
    for content, payload in zip(MEMORIES[:5], DICTIONARY.encode(MEMORIES[:5]), strict=True):
        assert payload is not None
        with contextlib.suppress(CorruptObject):
            assert len(other.decode(payload, len(content))) == len(content)
    for content, payload in zip(MEMORIES[:5], other.encode(MEMORIES[:5]), strict=True):
        assert payload is None or other.decode(payload, len(content)) == content


def test_a_dictionary_is_never_stored_beside_another() -> None:
    """What begins as a dictionary does, or is long, or no blob, stands alone."""
    assert takes_dictionary(1, MEMORIES[0])
    assert not takes_dictionary(1, CONTENT[:4] + b" and so on, whatever it is" * 4)
    assert not takes_dictionary(1, bytes(DICTIONARY_CONTENT_BYTES_MAX + 1))
    assert not takes_dictionary(2, MEMORIES[0])


@pytest.mark.parametrize(
    "samples", [[], [b""], [b"x"] * 5, [struct.pack("<Q", n) for n in range(99)]]
)
def test_training_on_too_little_gives_none(samples: list[bytes]) -> None:
    """No samples, or none that teach anything, are no error."""
    found = train(samples, 1024)
    assert found is None or Dictionary(digest_blob(found), found).encode([b"abc" * 20]) is not None
