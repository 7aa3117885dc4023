"""Ignore files in gitignore syntax: which entries of a folder are left out.

Floor 5. Invariant: the last pattern that matches an entry decides, patterns of a deeper file
stand above those of a higher one, and nothing below a directory that is left out is taken in
again. `pathspec` translates the patterns; it is loaded when the first ignore file is met, so
that folders without one never pay for it.

`pathspec` answers for a path alone, as if nobody had looked at the directories above it. A walk
has: only what a pattern says of the entry itself counts here, not what it says of a directory
on the way to it. That is what git does, and a differential test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from cas.model.names import to_text

CASIGNORE: Final = b".casignore"
GITIGNORE: Final = b".gitignore"

_DIRECTORY_MARK: Final = "(?P<ps_d>/)"
"""Where `pathspec` has a pattern match a directory, and by that all below it."""


_STARS: Final = re.compile(r"\*{3,}")
"""To git any run of stars longer than one is two."""


class _Pattern(NamedTuple):
    """One line. `slash`: whether a directory's path is to end with a slash."""

    found: re.Pattern[str]
    include: bool
    slash: bool


class Rules:
    """The patterns in effect in one directory: those of the ignore files from the top down."""

    __slots__ = ("_files",)

    def __init__(self, files: tuple[tuple[int, tuple[_Pattern, ...]], ...] = ()) -> None:
        # (length of the directory's path with its slash, patterns), deepest directory first,
        # and the last line of a file first: the first that matches decides.
        self._files = files

    def __bool__(self) -> bool:
        return bool(self._files)

    def below(self, directory: bytes, contents: Sequence[bytes]) -> Rules:
        """These rules with the ignore files of a directory (path with a slash, or empty) added.

        Of several files in one directory the later ones stand above the earlier.
        """
        lines = [line for content in contents for line in _lines(content)]
        patterns = tuple(p for p in map(_compile, reversed(lines)) if p is not None)
        if not patterns:
            return self
        return Rules(((len(to_text(directory)), patterns), *self._files))

    def leaves_out(self, path: bytes, is_directory: bool) -> bool:
        """Whether the entry at a path relative to the top is ignored."""
        text = to_text(path)
        for start, patterns in self._files:
            plain = text[start:]
            slashed = plain + "/" if is_directory else plain
            for found, include, slash in patterns:
                if found.search(slashed if slash else plain):
                    return include
        return False


def _compile(line: str) -> _Pattern | None:
    """The pattern of a line; None for comments, empty lines and, as in git, broken patterns."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        pattern = GitIgnoreSpecPattern(_plain(line))
    except ValueError:
        return None
    if pattern.include is None or pattern.regex is None:
        return None
    source = pattern.regex.pattern
    slash = _DIRECTORY_MARK in source
    # Without a mark a pattern speaks of what lies below (`a/**`), with one of the entry itself.
    return _Pattern(
        re.compile(source + r"\Z" if slash else source, re.DOTALL), pattern.include, slash
    )


def _plain(line: str) -> str:
    """A line in a form that git and `pathspec` read alike."""
    text = _STARS.sub("**", _trim(line))
    # "a/**/" is every directory below "a", and not "a" itself.
    return text + "*/" if text.endswith("/**/") else text


def _trim(line: str) -> str:
    """A line without the spaces at its end, but for one that a backslash keeps."""
    trimmed = line.rstrip(" ")
    backslashes = len(trimmed) - len(trimmed.rstrip("\\"))
    return trimmed + " " if backslashes % 2 and trimmed != line else trimmed


def _lines(content: bytes) -> list[str]:
    """Lines as git reads them: ended by LF or CRLF and by nothing else."""
    text = to_text(content.removeprefix(b"\xef\xbb\xbf"))
    return [line.removesuffix("\r") for line in text.split("\n")]
