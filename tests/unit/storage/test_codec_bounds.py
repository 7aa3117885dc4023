"""What a record says of its length is judged before anything is allocated for it."""

from __future__ import annotations

import pytest

from cas.errors import CorruptObject
from cas.limits import STRUCTURED_BYTES_MAX
from cas.storage.codec import ZSTD, decode_payload, encode_payload


@pytest.mark.parametrize("raw_bytes", [STRUCTURED_BYTES_MAX + 1, 1 << 40, (1 << 64) - 1])
def test_a_length_beyond_the_limit_is_damage(raw_bytes: int) -> None:
    """A frame under a length that no record may have gives `CorruptObject` and no other error."""
    codec, frame = encode_payload(bytes(100_000))
    assert codec == ZSTD
    with pytest.raises(CorruptObject, match="says that it holds"):
        decode_payload(codec, frame, raw_bytes)
