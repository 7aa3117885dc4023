"""Writing the tables anew, so that nothing is left in them of what was deleted.

Floor 2; implements docs/format.md section 5.9. Invariant: true is said only when the tables were
rewritten after everybody who could still need the deleted rows had gone.

PostgreSQL leaves what is deleted in its files until something else is written there. VACUUM FULL
writes a table anew, as far as nobody holds an older state; so that is looked at first. It takes
the table for itself while it works, for all stores of the schema: a purge is rare, and has to be.
What lies in the server's log (WAL), its archive, its standbys and its backups is not reached from
here; docs/how-to/postgres.md says what to do.
"""

from __future__ import annotations

from typing import Final

from cas.catalog.postgres_dialect import qualified
from cas.catalog.postgres_errors import translate
from cas.catalog.postgres_link import Link
from cas.errors import AccessDenied

_TABLES: Final = ("@pack", "@vector", "@session", "@position", "@note")
"""Those whose rows are ever deleted or replaced, but for numbers alone."""

_MAY_SEE: Final = (
    "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
    " AND (SELECT bool_and(pg_has_role(current_user, relowner, 'USAGE')) FROM pg_class"
    " WHERE oid = ANY($1::regclass[]))"
)
_NOW: Final = "SELECT pg_current_xact_id()::xid::text"
_HOLDERS: Final = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND ("
    " age(backend_xmin) >= age($1::text::xid) OR age(backend_xid) >= age($1::text::xid)))"
    " + (SELECT count(*) FROM pg_replication_slots WHERE age(xmin) >= age($1::text::xid))"
    " + (SELECT count(*) FROM pg_prepared_xacts)"
)


def refuse_scrub(link: Link) -> None:
    """Raise `AccessDenied` for a user who does not own the tables or cannot see who is at work."""
    row = link.row(_MAY_SEE, _tables(link))
    if row is None or not row[0]:
        raise AccessDenied(
            f"{link.path}: a purge has to see who reads an older state; grant its user the role "
            "pg_read_all_stats, and make it the owner of the tables.",
            path=link.path,
        )


def _tables(link: Link) -> list[str]:
    return [qualified(table, link.place.schema) for table in _TABLES]


def scrub(link: Link) -> bool:
    """Rewrite the tables; false while somebody holds an older state, and nothing was done.

    Raises `AccessDenied` for a user who does not own them or cannot see who is at work.
    """
    refuse_scrub(link)
    try:
        connection = link.take()
        try:
            tables = _tables(link)
            row = connection.execute(_NOW).fetchone()
            assert row is not None
            (now,) = row
            held = connection.execute(_HOLDERS, (now,)).fetchone()
            if held is None or held[0]:
                link.give(connection)
                return False
            for table in tables:
                connection.execute(f"VACUUM (FULL) {table}")
        except BaseException:
            link.discard(connection)
            raise
        link.give(connection)
    except Exception as error:
        translate(error, link.path)
    return True
