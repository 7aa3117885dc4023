"""Revisions: what people type to name a commit, a path of one, or a range of them.

Floor 4. Invariant: a revision never silently means one of two things. The grammar:

    range     REV..REV  what the second has and the first has not; REV...REV what only one has
    target    REV[:PATH]
    REV       NAME[@{WHEN}] then any number of ~N (N-th first parent), ^N (N-th parent), ^{}
    WHEN      the number of a journal entry, or a time in RFC 3339: where the ref was then

A name is tried as exact ref, branch, tag and abbreviated id; exactly one must match, else the
error lists them. A time without an offset is UTC, a date alone is its first moment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cas.errors import EntryNotFound, Invalid

_STEP: Final = re.compile(r"([~^])([0-9]{0,9})")
_PEEL: Final = re.compile(r"\^\{(commit)?\}")
_WHEN: Final = re.compile(r"@\{([^{}]*)\}")
_TARGET: Final = re.compile(r"((?:[^:{]|\{[^{}]*+\}?)*+):(.*)", re.DOTALL)
"""Possessive (`*+`): a colon between braces belongs to a time, also where no path follows."""
_RANGE: Final = re.compile(r"(?s)(.*?)(\.\.\.?)(.*)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS: Final = 19
"""So many digits no number of an entry has."""


class When(NamedTuple):
    """A moment: after entry `seq`, or as of `time_us` (µs since 1970 UTC); one of them is set."""

    seq: int | None
    time_us: int | None


AsOf = int | str | datetime
"""A moment as a caller names it: an entry's number, a time, or either as text."""


class Revision(NamedTuple):
    """A name, the moment to look it up in, and the steps to walk: ("~", n) or ("^", n)."""

    name: str
    when: When | None
    steps: tuple[tuple[str, int], ...]


class Range(NamedTuple):
    """`first..second`, or with `both` `first...second`."""

    first: str
    second: str
    both: bool


def parse_revision(text: str) -> Revision:
    """Split a revision. Raises `Invalid`."""
    if not isinstance(text, str):
        raise Invalid(f"A revision is text or an id, not {text!r}.", revision=repr(text))
    marks = (text.find("~"), text.find("^"), text.find("@{"))
    cut = min((at for at in marks if at >= 0), default=len(text))
    name = text[:cut]
    when = None
    at = cut
    match = _WHEN.match(text, at)
    if match is not None:
        when = parse_when(match.group(1))
        at = match.end()
    steps: list[tuple[str, int]] = []
    while at < len(text):
        match = _PEEL.match(text, at)
        if match is None:
            match = _STEP.match(text, at)
            if match is None or text.startswith("^{", at):
                raise Invalid(
                    f"{text!r} is no revision: after the name come @{{WHEN}}, then ~N or ^N, and "
                    "^{} only.",
                    revision=text,
                )
            steps.append((match.group(1), int(match.group(2) or 1)))
        at = match.end()
    if not name:
        raise Invalid("A revision begins with a branch, a tag or an id.", revision=text)
    if ".." in name:
        raise Invalid(f"{text!r} is a range or no name; name one revision here.", revision=text)
    return Revision(name, when, tuple(steps))


def parse_when(text: str) -> When:
    """A moment as it stands in `@{...}`. Raises `Invalid`, `EntryNotFound`."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit() and len(stripped) >= _DIGITS:
        raise EntryNotFound(f"The journal has no entry {stripped}.", seq=int(stripped[:_DIGITS]))
    if stripped.isascii() and stripped.isdigit() and len(stripped) < _DIGITS:
        return When(int(stripped), None)
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError as error:
        raise Invalid(
            f"{text!r} is no moment: give the number of an entry, as `cas journal` shows it, or a "
            "time like 2026-10-01T12:30:00Z.",
            revision=text,
        ) from error
    return _at(moment)


def _at(moment: datetime) -> When:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return When(None, max(0, (moment - _EPOCH) // timedelta(microseconds=1)))


def when_of(as_of: AsOf) -> When:
    """The moment that a caller names. Raises `Invalid`."""
    if isinstance(as_of, str):
        return parse_when(as_of)
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            # That of this host, most would think; times here are UTC.
            raise Invalid(f"A time needs a zone, as datetime.now(UTC) has: {as_of!r} has none.")
        return _at(as_of)
    if not isinstance(as_of, int) or isinstance(as_of, bool):
        raise Invalid(f"A moment is an entry's number or a time, not {as_of!r}.")
    return When(as_of, None)


def when(moment: int | datetime, *, exact: bool = False) -> str:
    """A moment as RFC 3339 UTC: of µs since 1970 UTC, or of a datetime with a zone; to the second
    or (for programs) to the microsecond. A time that no calendar has stands as its number.
    """
    if isinstance(moment, int):
        try:
            moment = _EPOCH + timedelta(microseconds=moment)
        except OverflowError:  # beyond year 9999: a wrong clock wrote it
            return f"@{moment}us"
    text = moment.astimezone(UTC).isoformat(timespec="microseconds" if exact else "seconds")
    return text.replace("+00:00", "Z")


def parse_range(text: str) -> Range | None:
    """The two ends of a range; None for a single revision. Raises `Invalid`."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, dots, second = match.groups()
    if not first or not second or ".." in second or second[0] == ".":
        raise Invalid(
            f"{text!r} is no range: name a revision on both sides of the dots.", revision=text
        )
    return Range(first, second, dots == "...")


def split_path(text: str) -> tuple[str, str]:
    """`REV:PATH` as (revision, path); the path is empty when there is none."""
    match = _TARGET.fullmatch(text)
    if match is None:
        return text, ""
    return match[1], match[2].strip("/")
