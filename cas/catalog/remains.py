"""What can still be read of a catalog that is damaged, old, or fit for nothing else.

Floor 2; reads docs/format.md section 7.1. Invariant: nothing is written, nothing raises for
damage, and what is given is what the file holds; whether it is true, hashes tell. `whole` says
of a table whether every row of it was read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from cas.catalog.catalog import EntryRow
from cas.catalog.engine import connect
from cas.catalog.schema import APPLICATION_ID
from cas.errors import CasError

if TYPE_CHECKING:
    import apsw

_TRIES_MAX: Final = 100_000
_FAILURES_MAX: Final = 500
"""Keys that are tried one by one where a table cannot be walked, and how many may fail in a row."""


@frozen
class RemainingPack:
    """A row of the table of packs; `body` is that of an inline one."""

    number: int
    name: bytes | None
    footer: bytes | None
    body: bytes | None


@frozen
class Remains:
    """What a catalog file gives. `is_store` says that it once was the catalog of a store.

    `sound` says that the engine finds nothing wrong and every table was read to its end.
    """

    is_store: bool = False
    sound: bool = False
    meta: Mapping[str, Any] = field(factory=dict)
    entries: tuple[EntryRow, ...] = ()
    packs: tuple[RemainingPack, ...] = ()
    packs_whole: bool = False
    vectors: Mapping[int, bytes] = field(factory=dict)
    vectors_whole: bool = False
    checkpoints: tuple[tuple[int, bytes], ...] = ()
    faults: tuple[str, ...] = ()


def read_remains(path: str) -> Remains:
    """Everything that can be read of the catalog at `path`; nothing of a file that is not there."""
    import apsw

    if not os.path.exists(path):
        return Remains()
    try:
        connection = connect(path, read_only=True)
    except (apsw.Error, CasError) as error:
        return Remains(faults=(f"it cannot be opened ({error})",))
    try:
        return _read(connection)
    except (apsw.Error, UnicodeDecodeError) as error:
        return Remains(faults=(f"it cannot be read ({error})",))
    finally:
        with suppress(apsw.Error):
            connection.close(True)


def _read(connection: apsw.Connection) -> Remains:
    faults: list[str] = []
    is_store = connection.pragma("application_id") == APPLICATION_ID
    tables = _Tables(connection, faults)
    meta, meta_whole = tables.all("SELECT key, value FROM meta")
    journal, journal_whole = tables.keyed("journal", "seq", "hash, entry")
    packs, packs_whole = tables.keyed("pack", "number", "name, footer, body")
    vectors, vectors_whole = tables.keyed("vector", "pack", "bits")
    checkpoints, checkpoints_whole = tables.keyed("checkpoint", "seq", "root")
    try:
        check: Any = connection.execute("PRAGMA integrity_check(3)").fetchall()
        faults += [str(text) for (text,) in check if text != "ok"]
    except Exception as error:
        faults.append(f"it cannot be checked ({error})")
    whole = all((meta_whole, journal_whole, packs_whole, vectors_whole, checkpoints_whole))
    return Remains(
        is_store=is_store,
        sound=is_store and whole and not faults,
        meta={str(key): value for key, value in meta},
        entries=tuple(EntryRow(*row) for row in journal if _are(row, int, bytes, bytes)),
        packs=tuple(
            RemainingPack(*row)
            for row in packs
            if type(row[0]) is int and all(v is None or type(v) is bytes for v in row[1:])
        ),
        packs_whole=packs_whole,
        vectors={row[0]: row[1] for row in vectors if _are(row, int, bytes)},
        vectors_whole=vectors_whole,
        checkpoints=tuple(row for row in checkpoints if _are(row, int, bytes)),
        faults=tuple(dict.fromkeys(faults)),
    )


def _are(row: Any, *types: type) -> bool:
    return all(type(value) is kind for value, kind in zip(row, types, strict=True))


class _Tables:
    """Walks tables as far as that goes."""

    def __init__(self, connection: apsw.Connection, faults: list[str]) -> None:
        self._run: Callable[..., Any] = connection.execute
        self._faults = faults

    def all(self, query: str) -> tuple[list[Any], bool]:
        """Rows of a small table, and whether these are all."""
        rows: list[Any] = []
        try:
            for row in self._run(query):
                rows.append(row)
        except Exception as error:
            self._faults.append(str(error))
            return rows, False
        return rows, True

    def keyed(self, table: str, key: str, columns: str) -> tuple[list[Any], bool]:
        """Rows of a table by ascending integer key: from both ends, and then one by one."""
        query = f"SELECT {key}, {columns} FROM {table}"
        rows, whole = self.all(f"{query} ORDER BY {key}")
        if whole:
            return rows, True
        after, _ = self.all(f"{query} ORDER BY {key} DESC")
        found = {row[0]: row for row in [*after, *rows] if type(row[0]) is int}
        failed = 0
        for number in self._between(rows, after):
            one = self._one(query, key, number)
            if one is None:
                failed += 1
                if failed > _FAILURES_MAX:
                    break
                continue
            failed = 0
            found.update((row[0], row) for row in one)
        return [found[number] for number in sorted(found)], False

    @staticmethod
    def _between(rows: list[Any], after: list[Any]) -> Iterator[int]:
        first = rows[-1][0] if rows and type(rows[-1][0]) is int else 0
        last = after[-1][0] if after and type(after[-1][0]) is int else first + _TRIES_MAX
        return iter(range(first + 1, min(last, first + _TRIES_MAX)))

    def _one(self, query: str, key: str, number: int) -> list[Any] | None:
        """The row of a key, as far as there is one; None where that cannot be read."""
        try:
            return list(self._run(f"{query} WHERE {key} = ?", (number,)))
        except Exception:
            return None
