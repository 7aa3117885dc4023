"""The inputs from which fuzzing starts: small, real, one in a line of `corpus/NAME.hex`.

They were taken from stores that the tests make. What a search finds that another input would not
have is added by hand, with the fix.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def seeds_of(name: str) -> list[bytes]:
    """The corpus of one decoder."""
    text = (FOLDER / f"{name}.hex").read_text(encoding="ascii")
    return [bytes.fromhex(line) for line in text.splitlines()]
