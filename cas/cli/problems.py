"""From an error to an exit code and one clear sentence, or one JSON problem.

Floor 9. Invariant: every exception has exactly one problem; a mistake in the program itself is
called that, and its traceback appears only when CAS_DEBUG asks for it.
"""

from __future__ import annotations

import os
from typing import Any, Final

import click
from attrs import field

from cas.cli.form import plain
from cas.errors import CasError
from cas.model.names import printable
from cas.model.values import frozen

INTERRUPTED = 130
BROKEN_PIPE = 141


@frozen
class Problem:
    """What went wrong: a stable code, one sentence with the next step, fields, the exit code."""

    code: str
    message: str
    exit_code: int
    fields: dict[str, Any] = field(factory=dict)

    def sentence(self) -> str:
        """One line for people, safe for a terminal."""
        return "cas: " + printable(" ".join(self.message.split("\n")))

    def document(self) -> str:
        """The same for programs."""
        import json

        return json.dumps(
            {
                "schema": "cas.problem",
                "version": 1,
                "code": self.code,
                "message": printable(self.message),
                "exit_code": self.exit_code,
                "fields": plain(self.fields),
            }
        )


def problem_of(error: BaseException, interrupted: str = "") -> Problem:
    """The problem of any exception. `interrupted`: what is left where it is an interrupt."""
    if isinstance(error, CasError):
        return Problem(error.code, error.message, error.exit_code, error.fields)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        left = interrupted or "what was not finished left nothing behind."
        return Problem("interrupted", f"Interrupted; {left}", INTERRUPTED)
    if isinstance(error, OSError):
        where = f" at {error.filename}" if error.filename else ""
        return Problem(
            "storage-failed",
            f"I/O failed{where}: {error.strerror or error}.",
            7,
            {"path": error.filename, "errno": error.errno},
        )
    if isinstance(error, MemoryError):
        return Problem("out-of-memory", "There is not enough memory; nothing was committed.", 1)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "cas").startswith("cas"):
        return Problem(
            "missing-library",
            f"The library {error.name} is missing; {_how_to_get(error.name or '')}.",
            1,
            {"library": error.name},
        )
    detail = f"{type(error).__name__}: {error}"
    return Problem(
        "internal",
        f"This is a mistake in cas itself ({detail}). Set CAS_DEBUG=1 and report what it shows.",
        1,
        {"error": detail},
    )


_EXTRAS: Final = {
    "numpy": "search",
    "obstore": "s3",
    "psycopg": "postgres",
    "pygit2": "git",
    "watchfiles": "watch",
}


def _how_to_get(library: str) -> str:
    extra = _EXTRAS.get(library.partition(".")[0])
    if extra is None:
        return "install agent-cas again"
    return f"run `pip install 'agent-cas[{extra}]'`"


def _usage(error: click.ClickException) -> Problem:
    # click indents lists of choices; a sentence has no lines.
    message = " ".join(error.format_message().split())
    message += "" if message.endswith((".", "?")) else "."
    if isinstance(error, click.UsageError) and error.ctx and "--help" not in message:
        message += f" Try `{error.ctx.command_path} --help`."
    return Problem("usage", message, error.exit_code)


def debugging() -> bool:
    """Whether CAS_DEBUG asks for tracebacks."""
    return bool(os.environ.get("CAS_DEBUG"))
