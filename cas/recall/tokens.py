"""How many tokens a text is for a language model: an estimate that needs no vocabulary.

Floor 7. Invariant: the estimate grows with the text and costs no more than one pass over it. Who
wants exact numbers passes a counter of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Counter = Callable[[str], int]
"""Gives the tokens of a text. Called from any thread."""


def _kinds() -> bytes:
    """For each byte of UTF-8 what it is: a letter, a digit, a mark, a line, a blank, or none."""
    kinds = bytearray(b"x" * 256)
    for code in range(128):
        char = chr(code)
        if char.isalpha():
            kinds[code] = ord("a" if char.islower() else "A")
        elif char.isdigit():
            kinds[code] = ord("0")
        elif char.isspace():
            kinds[code] = ord(" " if char == " " else "/")
        else:
            kinds[code] = ord(".")
    return bytes(kinds)


_KINDS: Final = _kinds()


def estimate_tokens(text: str) -> int:
    """About as many tokens as the vocabularies of current models make of a text.

    Weights fitted to o200k on 4,415 texts: prose, code, JSON, base64, hex, six scripts. On 1,784
    pieces of other code and documents 98 of 100 estimates lie between 0.82 and 1.30 of the number.
    """
    if not text:
        return 0
    kinds = text.encode("utf-8", "replace").translate(_KINDS)
    count = kinds.count
    capitals = count(b"A")
    words = kinds.replace(b"A", b"a") if capitals else kinds
    starts = words.startswith(b"a") + sum(map(words.count, (b" a", b".a", b"/a", b"0a", b"xa")))
    total = 0.79 * starts + 0.044 * (count(b"a") + capitals) + 1.85 * count(b"aA")
    digits = count(b"0")
    if digits:
        numbers = sum(map(words.count, (b" 0", b".0", b"a0", b"/0")))
        total += 0.36 * digits + 0.82 * numbers
    marks = sum(map(words.count, (b" .", b"a.", b"0.", b"/.")))
    total += 0.15 * count(b".") + 0.71 * marks + 0.65 * count(b"/") + 0.2 * count(b"x")
    return max(1, round(total))
