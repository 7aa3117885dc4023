"""Ignore files in gitignore syntax: which entries of a folder are left out.

Floor 5. Invariant: the last pattern that matches an entry decides, patterns of a deeper file
stand above those of a higher one, and nothing below a directory that is left out is taken in
again. `pathspec` translates the patterns; it is loaded when the first ignore file is met, so
that folders without one never pay for it.

`pathspec` answers for a path alone, as if nobody had looked at the directories above it. A walk
has: only what a pattern says of the entry itself counts here, not what it says of a directory
on the way to it. That is what git does, and a differential test holds the two together.

Git compares bytes, so text here is Latin-1: one character a byte. What `pathspec` reads otherwise
than git, brackets and blanks, it never sees: a sign stands there, and what git means by them is
put into the expression that it gives.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Final, NamedTuple

CASIGNORE: Final = b".casignore"
GITIGNORE: Final = b".gitignore"

_DIRECTORY_MARK: Final = "(?P<ps_d>/)"
"""Where `pathspec` has a pattern match a directory, and by that all below it."""


_STARS: Final = re.compile(r"\*{3,}")
"""To git any run of stars longer than one is two."""

_ANY_LETTERS: Final = "[^/]*"
_ANY_FOLDERS: Final = re.compile(r"(\(\?:\.\+/\)\?|\(\?:/\.\+\)\?)")
"""What `pathspec` makes of `*` and of `**`."""

_SIGN: Final = 0xF0000
"""The first sign; no byte is one."""
_LINE_BYTES_MAX: Final = 1 << 16
"""As many signs there are. A longer line, many times as long as any path, matches nothing."""

_CLASSES: Final = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, range(1, 32))) + "\x7f",
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
"""What is in `[:alpha:]` and the others, to git wherever it runs."""

_CLASS: Final = re.compile(r"\[:([^\]]*):\]")

_BYTES: Final = frozenset(map(chr, range(1, 256))) - {"/"}
"""What may stand in a name."""


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
        return Rules(((len(directory), patterns), *self._files))

    def leaves_out(self, path: bytes, is_directory: bool) -> bool:
        """Whether the entry at a path relative to the top is ignored."""
        text = path.decode("latin-1")
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

    signed = _signed(_trim(line)) if len(line) <= _LINE_BYTES_MAX else None
    if signed is None:
        return None
    text, meant = signed
    try:
        regex, include = GitIgnoreSpecPattern.pattern_to_regex(_plain(text))
    except ValueError:
        return None
    if include is None or regex is None:
        return None
    source = "".join([meant.get(char, char) for char in _steady(regex)])
    slash = _DIRECTORY_MARK in source
    # Without a mark a pattern speaks of what lies below (`a/**`), with one of the entry itself.
    return _Pattern(re.compile(source + r"\Z" if slash else source, re.DOTALL), include, slash)


def _steady(regex: str) -> str:
    """The same expression, which never goes back behind a wildcard once the next one is reached.

    What stands between two wildcards is taken where it is first found: a later place would let
    the rest match nothing that this one does not. Else a line of ten stars, in a folder that
    somebody sent, is work for years.
    """
    first, *others = _ANY_FOLDERS.split(regex)
    steady = _steady_names(first, last=not others)
    for at in range(0, len(others), 2):
        last = at + 2 == len(others)
        names = _steady_names(others[at + 1], last=last)
        # With fewest folders first.
        folders = others[at] if last else others[at].replace(".+", ".+?") + "?"
        steady += folders + names if last else f"(?>{folders}{names}(?=/))"
    return steady


def _steady_names(regex: str, *, last: bool) -> str:
    """`_steady` of what has wildcards within names; where it is not the `last`, `/` follows."""
    steady, *others = regex.split(_ANY_LETTERS)
    for count, fixed in enumerate(others, 1):
        final = count == len(others)
        if final and last:
            steady += _ANY_LETTERS + fixed
        else:
            steady += f"(?>{_ANY_LETTERS}?{fixed}{'(?=/)' if final else ''})"
    return steady


def _signed(text: str) -> tuple[str, dict[str, str]] | None:
    """A line with a sign in place of each bracket and blank, and the expression each stands for.

    None where brackets do not end.
    """
    parts: list[str] = []
    meant: dict[str, str] = {}
    anchored = False
    at = 0
    while at < len(text):
        char = text[at]
        end = at + 1
        if char == "\\":
            # What follows is itself, a blank too, which would be taken for the end of the line.
            char, end = text[at : at + 2], at + 2
            if char[1:].isspace():
                char = "\\" + _stand_in(re.escape(char[1:]), meant)
        elif char == "[":
            bracket = _bracket(text, at + 1)
            if bracket is None:
                return None
            found, end = bracket
            # A slash in brackets matches nothing, but ties the pattern to its folder all the same.
            anchored = anchored or "/" in text[at:end]
            char = _stand_in(
                f"[{''.join(map(re.escape, sorted(found)))}]" if found else "(?!)", meant
            )
        elif char.isspace():
            char = _stand_in(re.escape(char), meant)
        parts.append(char)
        at = end
    pattern = "".join(parts)
    if anchored:
        mark = "!" if pattern.startswith("!") else ""
        pattern = mark + "/" + pattern.removeprefix(mark).removeprefix("/")
    return pattern, meant


def _stand_in(expression: str, meant: dict[str, str]) -> str:
    sign = chr(_SIGN + len(meant))
    meant[sign] = expression
    return sign


def _bracket(text: str, at: int) -> tuple[frozenset[str], int] | None:
    """What brackets match, read as git reads them (wildmatch.c), and where the pattern goes on.

    `at` is behind the opening one. None where they do not end, or name a class that is none.
    """
    negated = text[at : at + 1] in ("!", "^")
    start = at = at + negated
    found: set[str] = set()
    before = ""
    while text[at : at + 1] != "]" or at == start:
        named = _CLASS.match(text, at)
        ranged = before and text[at : at + 1] == "-" and text[at + 1 : at + 2] != "]"
        at += bool(ranged)
        at += text[at : at + 1] == "\\" and not named
        if at >= len(text) or (named and named[1] not in _CLASSES):
            return None
        if named:
            found.update(_CLASSES[named[1]])
        elif ranged:
            # From more to less is nothing.
            found.update(map(chr, range(ord(before), ord(text[at]) + 1)))
        else:
            found.add(text[at])
        before = "" if named or ranged else text[at]
        at = named.end() if named else at + 1
    return (_BYTES - found if negated else _BYTES & found), at + 1


def _plain(line: str) -> str:
    """A line in a form that git and `pathspec` read alike."""
    text = _STARS.sub("**", line)
    # "a/**/" is every directory below "a", and not "a" itself.
    return text + "*/" if text.endswith("/**/") else text


def _trim(line: str) -> str:
    """A line without the spaces at its end, but for one that a backslash keeps."""
    trimmed = line.rstrip(" ")
    backslashes = len(trimmed) - len(trimmed.rstrip("\\"))
    return trimmed + " " if backslashes % 2 and trimmed != line else trimmed


def _lines(content: bytes) -> list[str]:
    """Lines as git reads them: ended by LF or CRLF and by nothing else."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return [line.removesuffix("\r") for line in text.split("\n")]
