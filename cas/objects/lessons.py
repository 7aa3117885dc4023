"""What a dictionary is worth: whether contents have enough in common for one, and making it.

Floor 3; docs/format.md section 6.5. Invariant: a dictionary is proposed only where contents that
it was not made of get so much smaller that it is paid for. Who proposes nothing has changed
nothing. Any thread; most of the work holds no GIL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cas.limits import DICTIONARY_BYTES_TARGET, DICTIONARY_SHARE, KIB
from cas.model.ids import digest_blob
from cas.storage.codec import encode_payload, encode_payloads
from cas.storage.dictionary import Dictionary, train

SAMPLE_BYTES_MAX: Final = 4 * KIB
"""What is longer teaches nothing."""

CHECKED: Final = 64
"""Contents that show whether the dictionary at hand still fits."""

COPIES: Final = 2
"""Packs that have the dictionary that is written with: all that lies beside it hangs on it."""

_REST_MAX: Final = 64
"""Looks that are left out, at the most, after one that found no dictionary worth having."""

_DICTIONARY_BYTES_MIN: Final = 1 * KIB

_TEST: Final = 16
"""One content in so many is kept apart, to see what the dictionary is worth."""

_SMALLER: Final = 8, 10
"""The test contents must take this share, at the most, of what they take with what there is."""

_FAITHFUL: Final = 3, 4
"""While they take no more than this share of plain frames, nothing better is looked for."""


class Rest:
    """Looks for a dictionary that are left out after one in vain: 1, 3, 7 … of them."""

    def __init__(self) -> None:
        self._left = self._last = 0

    def is_over(self) -> bool:
        """Whether it is time to look; each question counts."""
        self._left -= 1
        return self._left < 0

    def begin(self, *, found: bool) -> None:
        """After a look."""
        self._last = 0 if found else min(2 * self._last + 1, _REST_MAX)
        self._left = self._last


def propose(samples: Sequence[bytes], current: Dictionary | None) -> Dictionary | None:
    """A dictionary that pays for contents like these, beside the one there is; or None.

    A long one is tried first: more is to come than what it is made of.
    """
    tests = samples[::_TEST]
    plain = [len(payload) for _codec, payload in encode_payloads(tests)]
    least = sum(plain)
    if current is not None:
        least = min(least, _encoded_bytes(current, tests))
    lessons = [sample for at, sample in enumerate(samples) if at % _TEST]
    wanted = min(DICTIONARY_BYTES_TARGET, sum(map(len, lessons)) // DICTIONARY_SHARE)
    for size_bytes in (wanted, wanted // 4):
        content = train(lessons, size_bytes) if size_bytes >= _DICTIONARY_BYTES_MIN else None
        if content is None:
            return None
        found = Dictionary(digest_blob(content), content)
        total = _encoded_bytes(found, tests)
        if total * _SMALLER[1] > least * _SMALLER[0]:
            return None
        own_bytes = len(encode_payload(content)[1])
        # All samples are about to be written; the dictionary is written twice.
        if (least - total) * _TEST >= 2 * own_bytes:
            return found
    return None


def is_faithful(samples: Sequence[bytes], current: Dictionary) -> bool:
    """Whether contents are still like those that a dictionary was made of. True without any."""
    plain = sum([len(payload) for _codec, payload in encode_payloads(samples)])
    return _encoded_bytes(current, samples) * _FAITHFUL[1] <= plain * _FAITHFUL[0]


def _encoded_bytes(dictionary: Dictionary, contents: Sequence[bytes]) -> int:
    payloads = dictionary.encode(contents)
    return sum(
        len(content if payload is None else payload)
        for content, payload in zip(contents, payloads, strict=True)
    )
