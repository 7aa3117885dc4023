"""Tables of the SQLite catalog, and what a file must say to be one.

Floor 2; implements docs/format.md sections 7.1 and 8. Invariant: append tables only on the way
of a commit; a row per object in a table keyed by random ids halves the commit rate (measured),
so objects are not rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cas.catalog.catalog import ARCHIVE, DELTAS, DICTIONARIES, Meta
from cas.catalog.place import Place
from cas.errors import NewerFormat

if TYPE_CHECKING:
    import apsw

APPLICATION_ID: Final = 0x63617331
SCHEMA_VERSION: Final = 1

KNOWN_FEATURES: Final[frozenset[str]] = frozenset((DELTAS, DICTIONARIES, ARCHIVE))
"""Names of optional parts of the format that this version understands."""

FORMAT_VERSION: Final = 1


def check_features(meta: Meta, path: str) -> None:
    """Refuse a store of a format, or with a feature, that is not known. Raises `NewerFormat`."""
    if meta.format > FORMAT_VERSION:
        raise NewerFormat(
            f"The store at {path} has format {meta.format}; this version knows "
            f"{FORMAT_VERSION}. Install a newer version of agent-cas.",
            needs=meta.format,
            known=FORMAT_VERSION,
        )
    unknown = [name for name in meta.features if name not in KNOWN_FEATURES]
    if unknown:
        raise NewerFormat(
            f"The store at {path} needs {', '.join(unknown)}, which this version does not "
            "know. Install a newer version of agent-cas.",
            needs=" ".join(unknown),
            known=FORMAT_VERSION,
        )


# The body of an inline pack is the last column, so that its footer is read without it. No
# AUTOINCREMENT: numbers come from the catalog version. Generated transaction ids need no index
# (docs/format.md section 5.5), which spares each commit a page.
TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
    "CREATE TABLE pack (number INTEGER PRIMARY KEY, name BLOB, body_bytes INTEGER NOT NULL,"
    " footer BLOB, body BLOB) STRICT",
    "CREATE TABLE vector (pack INTEGER PRIMARY KEY, version INTEGER NOT NULL,"
    " bits BLOB NOT NULL) STRICT",
    "CREATE INDEX vector_version ON vector (version)",
    "CREATE TABLE removal (version INTEGER PRIMARY KEY, condemn_seq INTEGER NOT NULL) STRICT",
    "CREATE TABLE journal (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, txid BLOB NOT NULL,"
    " entry BLOB NOT NULL) STRICT",
    "CREATE UNIQUE INDEX journal_key ON journal (txid) WHERE txid >= x'80'",
    "CREATE TABLE checkpoint (seq INTEGER PRIMARY KEY, root BLOB NOT NULL) STRICT",
    "CREATE TABLE session (id BLOB PRIMARY KEY, fence INTEGER NOT NULL, s0 INTEGER NOT NULL,"
    " base_seq INTEGER NOT NULL, opened_us INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE unlinked (name BLOB PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE cursor (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)

ARCHIVE_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS archive (last_seq INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, time_us INTEGER NOT NULL, segment BLOB NOT NULL,"
    " pack INTEGER NOT NULL, other INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS key (txid BLOB PRIMARY KEY, seq INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID",
)
"""Made by the first transaction that moves entries out of the journal, which also sets the
feature: an older program refuses the store from then on, and reads it until then."""


def fill(connection: apsw.Connection, meta: Meta, place: Place) -> None:
    """Make the tables of a new catalog, and say what store it is of and where it lies."""
    connection.execute("PRAGMA page_size=8192")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    for statement in TABLES:
        connection.execute(statement)
    for key, value in (
        ("store_id", meta.store_id),
        ("lineage_id", meta.lineage_id),
        ("format", meta.format),
        ("features", " ".join(meta.features)),
        ("created_us", meta.created_us),
        *([("ancestry", meta.ancestry)] if meta.ancestry else []),
        *place.values().items(),
    ):
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))
    connection.execute("COMMIT")
