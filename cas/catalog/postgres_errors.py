"""What PostgreSQL and psycopg say, as errors of the one tree.

Floor 2. Invariant: every message is about the server and its answer; nothing of a connection
string is repeated, because libpq does not put a password into any of its own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from cas.errors import (
    AccessDenied,
    Busy,
    CorruptCatalog,
    NotAStore,
    ReadOnly,
    StorageFailed,
    StorageFull,
)

if TYPE_CHECKING:
    import psycopg

_BUSY = {
    "40001": "the server could not serialize it",
    "40P01": "the server found a deadlock",
    "55P03": "a lock was not given in time (lock_timeout)",
    "57014": "the server's statement_timeout ended it",
    "53300": "the server has too many connections",
    "25P03": "the server's idle_in_transaction_session_timeout ended it",
    "25P04": "the server's transaction_timeout ended it",
}
# A server that does not let somebody in gives no code with it.
_REFUSED = re.compile(r'password|role ".*" does not exist|no pg_hba\.conf entry')
_NO_DATABASE = re.compile(r'database ".*" does not exist')
_MISSING = ("3D000", "3F000", "42P01", "42703")


def is_lost(error: BaseException, connection: psycopg.Connection[Any] | None) -> bool:
    """Whether the connection is gone, so that nobody can say what came of a statement."""
    import psycopg

    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate or ""
    return (
        (connection is not None and (connection.closed or connection.broken))
        or state.startswith(("08", "57P"))
        or (isinstance(error, psycopg.OperationalError) and not state)
    )


def state_of(error: BaseException) -> str:
    """The SQLSTATE of what the server said; "" where it said none."""
    import psycopg

    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def said(error: BaseException) -> str:
    """The first line of what the server said."""
    import psycopg

    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reraise(error: BaseException, place: str) -> None:
    """Raise the typed error for one of psycopg's; leave every other as it is."""
    import psycopg

    if isinstance(error, psycopg.Error):
        translate(error, place)


def typed(error: BaseException, place: str) -> Exception:
    """The typed error for what psycopg said, as a value."""
    try:
        translate(error, place)
    except Exception as found:
        return found


def translate(error: BaseException, place: str) -> NoReturn:
    """Raise the typed error for what psycopg said."""
    import psycopg

    if not isinstance(error, psycopg.Error):
        raise error
    state, text = error.sqlstate or "", said(error)
    if state in _BUSY:
        raise Busy(
            f"{place}: {_BUSY[state]}; nothing was committed. Try again.", waited_ms=None
        ) from error
    if state.startswith("28") or state == "42501" or _REFUSED.search(text):
        raise AccessDenied(
            f"{place} refuses this user: {text}. See docs/how-to/postgres.md for the rights that "
            "a reader, a writer and a collector need.",
            path=place,
        ) from error
    if state in ("53100", "53200"):
        raise StorageFull(
            f"The server of {place} has no space left ({text}); nothing was committed. Free "
            "space and try again.",
            path=place,
        ) from error
    if state == "25006":
        raise ReadOnly(
            f"{place} cannot be written: the server is a standby, or read-only.", path=place
        ) from error
    if not state and _NO_DATABASE.search(text):
        raise NotAStore(
            f"There is no such database ({text}); make it with `createdb`, or name another.",
            path=place,
        ) from error
    if state in _MISSING:
        raise NotAStore(
            f"There are no stores in this database, or they are of another version ({text}); "
            f"make one with `cas init {place}`.",
            path=place,
        ) from error
    if state.startswith(("23", "XX", "22")):
        raise CorruptCatalog(
            f"The catalog {place} contradicts itself: {text}; nothing was changed.", detail=text
        ) from error
    if is_lost(error, None):
        raise StorageFailed(
            f"{place} cannot be reached: {text}. Try again when the server answers.",
            path=place,
            errno=None,
        ) from error
    raise StorageFailed(f"PostgreSQL failed at {place}: {text}.", path=place, errno=None) from error


def quietly_close(connection: psycopg.Connection[Any]) -> None:
    """Close a connection that nobody is to use again."""
    with suppress(Exception):
        connection.close()
