"""What a record says of its length is judged before anything is allocated for it."""

from __future__ import annotations

import pytest

from cas.errors import CorruptObject, LimitExceeded
from cas.limits import STRUCTURED_BYTES_MAX
from cas.storage.codec import (
    SIZED_BYTES_MAX,
    ZSTD,
    decode_payload,
    decode_sized,
    decode_sized_many,
    encode_payload,
    encode_payloads,
    sized_frame,
)


@pytest.mark.parametrize("raw_bytes", [STRUCTURED_BYTES_MAX + 1, 1 << 40, (1 << 64) - 1])
def test_a_length_beyond_the_limit_is_damage(raw_bytes: int) -> None:
    """A frame under a length that no record may have gives `CorruptObject` and no other error."""
    codec, frame = encode_payload(bytes(100_000))
    assert codec == ZSTD
    with pytest.raises(CorruptObject, match="says that it holds"):
        decode_payload(codec, frame, raw_bytes)


def test_nothing_is_encoded_that_no_reader_takes() -> None:
    """What is longer than a record may be is refused before it is in a pack."""
    content = bytes(STRUCTURED_BYTES_MAX + 1)
    with pytest.raises(LimitExceeded):
        encode_payload(content)
    with pytest.raises(LimitExceeded):
        encode_payloads([b"x" * 100, content])
    assert encode_payload(content[1:])[0] == ZSTD


@pytest.mark.parametrize("size_bytes", [70, 255, 256, 257, 65_791, 65_792, SIZED_BYTES_MAX])
def test_a_frame_under_a_head_of_its_own_gives_the_same(size_bytes: int) -> None:
    """In every width of the length a sized frame holds what was encoded, alone and with others;
    with another length it is damage.
    """
    content = (b"%d and so on, " % size_bytes * size_bytes)[:size_bytes]
    codec, payload = encode_payload(content)
    assert codec == ZSTD
    assert decode_sized(payload, size_bytes) == content
    frames = [sized_frame(payload, size_bytes)] * 3
    assert decode_sized_many(frames, [size_bytes] * 3, 2) == [content] * 3
    for other in (size_bytes - 1, size_bytes + 1, 0, SIZED_BYTES_MAX + 1, 1 << 62):
        with pytest.raises(CorruptObject):
            decode_sized(payload, other)
    damaged = sized_frame(payload, size_bytes - 1)
    assert decode_sized_many([frames[0], damaged], [size_bytes, size_bytes - 1]) is None
    assert decode_sized_many([], []) == []
