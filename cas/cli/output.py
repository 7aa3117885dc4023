"""Where results and notes go: results to standard output, everything else to standard error.

Floor 9. Invariant: with --json standard output is one document and standard error is empty or
one problem; without it, a result that a script reads is never mixed with a note for people.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Literal

from attrs import define

from cas.model.names import printable, to_bytes

Color = Literal["auto", "always", "never"]

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_BATCH = 512
_EACH_MAX = 20
"""Notes of one sort that are shown."""


@define
class Settings:
    """What the options that every command takes have said so far."""

    store: str | None = None
    json: bool = False
    quiet: bool = False
    color: Color = "auto"
    progress: bool | None = None


class Output:
    """Standard output and error of one invocation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def json(self) -> bool:
        """Whether one JSON document is wanted."""
        return self._settings.json

    # -- results -----------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One line of the result. The caller has escaped what came from outside."""
        sys.stdout.write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Lines of the result, as they come."""
        for batch in _batches(texts):
            sys.stdout.write("\n".join(batch) + "\n")

    def names(self, names: Iterable[str], *, nul: bool) -> None:
        """A list of paths: escaped, one a line; or exactly as they are, each ended by NUL."""
        if not nul:
            self.lines(printable(name) for name in names)
            return
        for batch in _batches(names):
            self.data(b"".join(to_bytes(name) + b"\0" for name in batch))

    def data(self, content: bytes) -> None:
        """Bytes of the result, untouched."""
        sys.stdout.flush()
        sys.stdout.buffer.write(content)

    def document(self, schema: str, **fields: Any) -> None:
        """The result as one JSON document."""
        import json

        whole = {"schema": f"cas.{schema}", "version": 1, **fields}
        sys.stdout.write(json.dumps(whole) + "\n")

    # -- notes -------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """What people like to know; not with --quiet or --json."""
        if not (self._settings.quiet or self._settings.json):
            _error_line(printable(text))

    def warn(self, text: str) -> None:
        """What people have to know; not with --json, whose document says it."""
        if not self._settings.json:
            _error_line("cas: " + printable(text))

    def warn_each(self, texts: Sequence[str], hint: str = "") -> None:
        """Warnings of one sort, up to a bound, and a hint once."""
        _each(self.warn, texts)
        if texts and hint:
            self.note(f"     ({hint})")

    def note_each(self, texts: Sequence[str], hint: str = "") -> None:
        """Notes of one sort, up to a bound, and a hint once."""
        _each(self.note, texts)
        if texts and hint:
            self.note(f"     ({hint})")

    # -- colour ------------------------------------------------------------------------------

    def paint(self, text: str, color: str) -> str:
        """Text of the result in a colour, where colours are wanted."""
        if not text or not self.colored(sys.stdout):
            return text
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m"

    def colored(self, stream: IO[str]) -> bool:
        """Whether colours are wanted: the option, NO_COLOR, FORCE_COLOR, a real terminal."""
        wanted = self._settings.color
        if wanted != "auto":
            return wanted == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return stream.isatty() and os.environ.get("TERM") != "dumb"


def _error_line(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _each(say: Callable[[str], None], texts: Sequence[str]) -> None:
    for text in texts[:_EACH_MAX]:
        say(text)
    if len(texts) > _EACH_MAX:
        say(f"and {len(texts) - _EACH_MAX:,} more of this sort; --json names all")


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
