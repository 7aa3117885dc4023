"""Revisions: what people type to name a commit.

Floor 4. Grammar: `NAME` then any number of `~N` (N-th first parent) and `^N` (N-th parent). A
name is tried as exact ref, branch, tag and abbreviated id; exactly one must match, else the
error lists them. Invariant: a revision never silently means one of two things.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cas.errors import Invalid

_STEP = re.compile(r"([~^])([0-9]{0,9})")


class Revision(NamedTuple):
    """A name and the steps to walk from it: ("~", n) or ("^", n)."""

    name: str
    steps: tuple[tuple[str, int], ...]


def parse_revision(text: str) -> Revision:
    """Split a revision. Raises `Invalid`."""
    cut = min((i for i in (text.find("~"), text.find("^")) if i >= 0), default=len(text))
    name, rest = text[:cut], text[cut:]
    steps: list[tuple[str, int]] = []
    at = 0
    while at < len(rest):
        match = _STEP.match(rest, at)
        if match is None:
            raise Invalid(
                f"{text!r} is no revision: after the name come ~N or ^N only.", revision=text
            )
        steps.append((match.group(1), int(match.group(2) or 1)))
        at = match.end()
    if not name:
        raise Invalid("A revision begins with a branch, a tag or an id.", revision=text)
    return Revision(name, tuple(steps))


def split_path(text: str) -> tuple[str, str]:
    """`REV:PATH` as (revision, path); the path is empty when there is none."""
    revision, _colon, path = text.partition(":")
    return revision, path.strip("/")
