"""The schema of the PostgreSQL catalog, and the stores in it: made, brought forward, found.

Floor 2. Invariant: a schema goes forward only, one transaction a version, under a lock that all
who would change it wait for; a store is there whole or not at all, and its number is never that
of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from cas.catalog.catalog import Meta
from cas.catalog.postgres_dialect import (
    DROP_ROWS,
    LOCK_TRANSACTION,
    MIGRATIONS,
    ROLES,
    Statements,
    qualified,
    statements,
)
from cas.catalog.postgres_errors import quietly_close, translate
from cas.catalog.postgres_link import connect
from cas.catalog.postgres_place import PostgresPlace
from cas.errors import CorruptCatalog, Invalid, NewerFormat, NotAStore, StoreNotFound
from cas.model.entry import genesis_hash

if TYPE_CHECKING:
    from cas.catalog.postgres_link import Connection

_UNDEFINED: Final = ("42P01", "3F000")


@frozen
class Found:
    """A store in the schema, and the newest entry of it.

    `claim` is the mark by which its bucket is known; None in stores that were made without.
    """

    number: int
    meta: Meta
    bucket: str
    claim: str | None
    seq: int
    hash: bytes


def key_of(*parts: object) -> int:
    """The key of an advisory lock: 64 bits, signed, of what it is about."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(
        hashlib.blake2b(text, digest_size=8, person=b"cas").digest(), "big", signed=True
    )


def migrate(place: PostgresPlace, steps: Sequence[Sequence[str]] = MIGRATIONS) -> int:
    """Make the schema, or bring it forward; the version that it had before, 0 for none.

    Of many that try at once one does it and the others find it done. Raises `NewerFormat`,
    `AccessDenied`, and what a connection raises.
    """
    connection: Connection | None = None
    try:
        connection = connect(place, read_only=False)
        with connection.transaction():
            connection.execute(LOCK_TRANSACTION, (key_of("schema", place.schema),))
            before = _version(connection, place)
            if before > len(steps):
                raise _newer(place, before, len(steps))
            for version in range(before + 1, len(steps) + 1):
                for statement in steps[version - 1]:
                    connection.execute(qualified(statement, place.schema))
            _set_version(connection, place, before, len(steps))
        return before
    except Exception as error:
        translate(error, place.shown)
    finally:
        if connection is not None:
            quietly_close(connection)


def _version(connection: Connection, place: PostgresPlace) -> int:
    """The version of the schema, 0 where there is none; inside the lock."""
    row = connection.execute(
        "SELECT to_regclass($1) IS NOT NULL", (f'"{place.schema}".schema_version',)
    ).fetchone()
    if row is None or not row[0]:
        return 0
    found = connection.execute(statements(place.schema).schema_version).fetchone()
    return 0 if found is None else int(found[0])


def _set_version(connection: Connection, place: PostgresPlace, before: int, now: int) -> None:
    if before == 0:
        connection.execute(
            qualified("INSERT INTO @schema_version VALUES ($1)", place.schema), (now,)
        )
    elif now != before:
        connection.execute(
            qualified("UPDATE @schema_version SET version = $1", place.schema), (now,)
        )


def _newer(place: PostgresPlace, needs: int, known: int) -> NewerFormat:
    return NewerFormat(
        f"The schema of {place.shown} has version {needs}; this version knows {known}. Install a "
        "newer version of agent-cas.",
        needs=needs,
        known=known,
    )


def find(connection: Connection, place: PostgresPlace, sql: Statements) -> Found:
    """The store of this name. Raises psycopg's errors, `StoreNotFound`, `NewerFormat`."""
    import psycopg

    try:
        row = connection.execute(sql.schema_version).fetchone()
    except psycopg.Error as error:
        if error.sqlstate in _UNDEFINED:
            raise no_store(place) from error
        raise
    version = 0 if row is None else int(row[0])
    if version > len(MIGRATIONS):
        raise _newer(place, version, len(MIGRATIONS))
    if version < len(MIGRATIONS):
        raise NotAStore(
            f"The schema of {place.shown} has version {version}, and this program needs "
            f"{len(MIGRATIONS)}; `cas init` with the rights of its owner brings it forward.",
            path=place.shown,
        )
    found = connection.execute(sql.find_store, (place.store,), binary=True).fetchone()
    if found is None:
        raise no_store(place)
    number, store_id, lineage_id, format, features, created_us, ancestry, *rest = found
    meta = Meta(store_id, lineage_id, format, tuple(features.split()), created_us, ancestry)
    bucket, seq, hash, claim = rest
    return Found(number, meta, bucket, claim and claim.decode(errors="replace"), seq, hash)


def no_store(place: PostgresPlace) -> StoreNotFound:
    """The error for a name that no store has."""
    return StoreNotFound(
        f"There is no store at {place.shown}; make one with `cas init`, naming its bucket.",
        path=place.shown,
    )


def add(place: PostgresPlace, meta: Meta, bucket: str, claim: str = "") -> bool:
    """Add a store to a schema that is there; False when it has one of this name. `claim` is the
    mark that its bucket has, by which it is known wherever it is found.

    Raises `AccessDenied`, and what a connection raises.
    """
    sql = statements(place.schema)
    connection: Connection | None = None
    try:
        connection = connect(place, read_only=False)
        with connection.transaction():
            # One after the other, so that the next free number is free.
            connection.execute(LOCK_TRANSACTION, (key_of("schema", place.schema),))
            if connection.execute(sql.find_store, (place.store,)).fetchone() is not None:
                return False
            row: Any = connection.execute(
                sql.add_store,
                (
                    place.store,
                    meta.store_id,
                    meta.lineage_id,
                    meta.format,
                    " ".join(meta.features),
                    meta.created_us,
                    meta.ancestry,
                    bucket,
                ),
            ).fetchone()
            connection.execute(sql.add_head, (row[0], genesis_hash(meta.store_id)))
            if claim:
                connection.execute(sql.leave_note, (row[0], "bucket", claim.encode()))
        return True
    except Exception as error:
        translate(error, place.shown)
    finally:
        if connection is not None:
            quietly_close(connection)


def exists(place: PostgresPlace) -> bool:
    """Whether there is a store of this name; not in a database without a schema."""
    try:
        return bool(_alone(place, statements(place.schema).count_stores, place.store)[0])
    except NotAStore:
        return False


def rename(place: PostgresPlace, name: PostgresPlace) -> bool:
    """Give a store the name of another place; False where that is taken by now."""
    try:
        _alone(place, statements(place.schema).rename_store, place.store, name.store)
    except CorruptCatalog:
        # The one thing that this statement can contradict is a name.
        return False
    return True


def drop(place: PostgresPlace) -> None:
    """Remove all rows of a store, as the owner of the schema; its bucket is left alone."""
    for statement in (*DROP_ROWS, Statements().drop_store):
        _alone(place, qualified(statement, place.schema), place.store)


def _alone(place: PostgresPlace, statement: str, *arguments: object) -> tuple[Any, ...]:
    """One statement on a connection of its own, and its first row."""
    connection: Connection | None = None
    try:
        connection = connect(place, read_only=False)
        cursor = connection.execute(statement, arguments, binary=True)
        row = cursor.fetchone() if cursor.description else None
        return row or ()
    except Exception as error:
        translate(error, place.shown)
    finally:
        if connection is not None:
            quietly_close(connection)


def grants(schema: str, kind: str, role: str) -> list[str]:
    """SQL that gives a role the rights of a `reader`, `writer`, `collector` or, beside one of
    these, `searcher`; its owner runs it.

    Raises `Invalid`.
    """
    if kind not in ROLES:
        raise Invalid(f"There is no kind of role {kind!r}; there are {', '.join(ROLES)}.")
    if not role or "\0" in role:
        raise Invalid("A role has a name.")
    quoted = '"' + role.replace('"', '""') + '"'
    return [
        qualified(text.format(role="{role}"), schema).replace("{role}", quoted)
        for text in ROLES[kind]
    ]
