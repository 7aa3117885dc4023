"""Ignore files in gitignore syntax: which entries of a folder are left out.

Floor 5. Invariant: the last pattern that matches decides, patterns of a deeper file stand above
those of a higher one, and nothing below a directory that is left out can be taken in again.
`pathspec` is loaded when the first ignore file is met; folders without one never pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cas.model.names import to_text

CASIGNORE: Final = b".casignore"
GITIGNORE: Final = b".gitignore"


class Rules:
    """The patterns in effect in one directory: those of the ignore files from the top down."""

    __slots__ = ("_specs",)

    def __init__(self, specs: tuple[tuple[int, Any], ...] = ()) -> None:
        # (length of the directory's path with its slash, patterns), top directory first.
        self._specs = specs

    def __bool__(self) -> bool:
        return bool(self._specs)

    def below(self, directory: bytes, contents: Sequence[bytes]) -> Rules:
        """These rules with the ignore files of a directory (path with a slash, or empty) added."""
        from pathspec import GitIgnoreSpec

        lines: list[str] = []
        for content in contents:
            lines += to_text(content.removeprefix(b"\xef\xbb\xbf")).splitlines()
        return Rules((*self._specs, (len(directory), GitIgnoreSpec.from_lines(lines))))

    def leaves_out(self, path: bytes, is_directory: bool) -> bool:
        """Whether the entry at a path relative to the top is ignored."""
        for start, spec in reversed(self._specs):
            relative = to_text(path[start:]) + ("/" if is_directory else "")
            verdict = spec.check_file(relative).include
            if verdict is not None:
                return bool(verdict)
        return False
