"""The SQL of the PostgreSQL catalog: tables, roles, and every statement.

Floor 2; implements docs/format.md section 7.1 in the dialect of PostgreSQL. Invariant: what a
statement says of one store names that store by its number, the first column of each key; nothing
takes its order from a sequence, and a commit touches append tables and the one row of the head.

`@` in front of a table stands for the schema. Parameters are `$1`, `$2` …; `$1` is the store.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

from cas.catalog.postgres_place import search_schema

SCHEMA_VERSION: Final = 3

# Many stores in one database are many rows, not many tables: ten thousand schemas would be some
# four hundred thousand relations. Numbers are all `bigint`: next to others they cost no more.
#
# `head` is what SQLite's catalog reads as maxima of append tables. Here it is a row, because it
# is what writers queue at (FOR UPDATE), and who waits there is given the newest version of it in
# the same statement. It is rewritten by each commit: pages of it are left mostly empty, so that
# its versions stay on one page and need no index entries.
#
# Bodies and footers are compressed already, where that pays: EXTERNAL keeps the server from
# trying it again.
_TABLES: Final = (
    "CREATE SCHEMA IF NOT EXISTS @@",
    "CREATE TABLE @schema_version (version bigint NOT NULL)",
    "CREATE TABLE @store (no bigint PRIMARY KEY, name text NOT NULL UNIQUE,"
    " store_id bytea NOT NULL, lineage_id bytea NOT NULL, format bigint NOT NULL,"
    " features text NOT NULL, created_us bigint NOT NULL, ancestry bytea NOT NULL,"
    " bucket text NOT NULL)",
    "CREATE TABLE @head (store bigint PRIMARY KEY, seq bigint NOT NULL, hash bytea NOT NULL,"
    " version bigint NOT NULL, removal_version bigint NOT NULL, condemn_seq bigint NOT NULL,"
    " told_seq bigint NOT NULL) WITH (fillfactor = 10)",
    "CREATE TABLE @pack (store bigint, number bigint, name bytea, body_bytes bigint NOT NULL,"
    " footer bytea, body bytea, PRIMARY KEY (store, number))",
    "ALTER TABLE @pack ALTER COLUMN footer SET STORAGE EXTERNAL",
    "ALTER TABLE @pack ALTER COLUMN body SET STORAGE EXTERNAL",
    "CREATE TABLE @vector (store bigint, pack bigint, version bigint NOT NULL,"
    " bits bytea NOT NULL, PRIMARY KEY (store, pack))",
    "CREATE INDEX vector_version ON @vector (store, version)",
    "CREATE TABLE @removal (store bigint, version bigint, condemn_seq bigint NOT NULL,"
    " PRIMARY KEY (store, version))",
    "CREATE TABLE @journal (store bigint, seq bigint, hash bytea NOT NULL, txid bytea NOT NULL,"
    " entry bytea NOT NULL, PRIMARY KEY (store, seq))",
    "CREATE UNIQUE INDEX journal_key ON @journal (store, txid) WHERE txid >= '\\x80'",
    "CREATE TABLE @checkpoint (store bigint, seq bigint, root bytea NOT NULL,"
    " PRIMARY KEY (store, seq))",
    "CREATE TABLE @session (store bigint, id bytea, fence bigint NOT NULL, s0 bigint NOT NULL,"
    " base_seq bigint NOT NULL, opened_us bigint NOT NULL, PRIMARY KEY (store, id))",
    "CREATE TABLE @unlinked (store bigint, name bytea, seq bigint NOT NULL,"
    " PRIMARY KEY (store, name))",
    "CREATE TABLE @position (store bigint, name text, position bigint NOT NULL,"
    " PRIMARY KEY (store, name))",
    "CREATE TABLE @note (store bigint, task text, note bytea NOT NULL, PRIMARY KEY (store, task))",
)

# Entries move from `journal` to `archive` and their keys to `key`. Who could read the journal can
# read these too: roles that were given their rights before have none on tables that come later.
_ARCHIVE: Final = (
    "CREATE TABLE @archive (store bigint, last_seq bigint, first_seq bigint NOT NULL,"
    " epoch bigint NOT NULL, time_us bigint NOT NULL, segment bytea NOT NULL,"
    " pack bigint NOT NULL, other bigint NOT NULL, PRIMARY KEY (store, last_seq))",
    "CREATE TABLE @key (store bigint, txid bytea, seq bigint NOT NULL, PRIMARY KEY (store, txid))",
    "DO $$ DECLARE who text; BEGIN FOR who IN"
    " SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC'"
    " ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
    " FROM pg_class c, aclexplode(c.relacl) a"
    " WHERE c.oid = '@journal'::regclass AND a.privilege_type = 'SELECT'"
    " AND a.grantee <> c.relowner"
    " LOOP EXECUTE 'GRANT SELECT ON @archive, @key TO ' || who; END LOOP; END $$",
)

STORE_TABLES: Final = (
    *("head", "pack", "vector", "removal", "journal", "archive", "key", "checkpoint"),
    *("session", "unlinked", "position", "note"),
)
"""Tables whose rows belong to one store each."""

# The number of a store that was removed is not given again: a handle of it may still be open.
_NUMBERS: Final = (
    "ALTER TABLE @schema_version ADD COLUMN last_store bigint NOT NULL DEFAULT 0",
    "UPDATE @schema_version SET last_store = (SELECT coalesce(max(no), 0) FROM @store)",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_TABLES, _ARCHIVE, _NUMBERS)
"""What makes version n+1 of version n; nothing is ever taken back."""

assert len(MIGRATIONS) == SCHEMA_VERSION

READER_ROLE: Final = (
    "GRANT USAGE ON SCHEMA @@ TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA @@ TO {role}",
)
"""What who only reads may do."""

WRITER_ROLE: Final = (
    *READER_ROLE,
    "GRANT UPDATE ON @head TO {role}",
    "GRANT INSERT ON @pack, @journal, @checkpoint, @removal TO {role}",
    "GRANT INSERT, UPDATE, DELETE ON @session, @position, @note TO {role}",
    # A spill moves inline packs into a file and takes their rows out, with their vectors.
    "GRANT DELETE ON @pack, @vector, @unlinked TO {role}",
    "GRANT INSERT, UPDATE ON @vector, @unlinked, @removal TO {role}",
)
"""What who commits may do. No entry of the journal can be changed or removed by it."""

COLLECTOR_ROLE: Final = (
    *WRITER_ROLE,
    "GRANT DELETE ON @checkpoint TO {role}",
)
"""What who runs gc, retain and compaction may do; a purge needs the owner of the tables."""

SEARCHER_ROLE: Final = (
    # Tables there are made by whoever is first, and open to all who may use the schema.
    "CREATE SCHEMA IF NOT EXISTS @@search",
    "GRANT USAGE, CREATE ON SCHEMA @@search TO {role}",
)
"""What who searches may do beside, with the index on the server that hosts share."""

ROLES: Final = {
    "reader": READER_ROLE,
    "writer": WRITER_ROLE,
    "collector": COLLECTOR_ROLE,
    "searcher": SEARCHER_ROLE,
}


class Statements(NamedTuple):
    """The statements, as templates; `statements` gives them for the tables of one schema."""

    # Text of its own, sent without parameters: with BEGIN in front it is one round trip.
    begin_write: str = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        # A writer that stands still with the head in its hands would hold up all others.
        " SET LOCAL idle_in_transaction_session_timeout = '{idle}';"
        " SELECT seq, hash, version, removal_version, condemn_seq, told_seq FROM @head"
        " WHERE store = {store} FOR UPDATE"
    )
    begin_read: str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    head: str = (
        "SELECT seq, hash, version, removal_version, condemn_seq FROM @head WHERE store = $1"
    )
    head_seq: str = "SELECT seq FROM @head WHERE store = $1"
    entries: str = (
        "SELECT seq, hash, entry FROM @journal WHERE store = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    )
    # The head stands in each row, and in one without an entry where there is none newer: one
    # question that is also its own answer.
    newer: str = (
        "SELECT h.seq, j.seq, j.hash, j.entry FROM @head h LEFT JOIN LATERAL (SELECT seq, hash,"
        " entry FROM @journal WHERE store = $1 AND seq > $2 ORDER BY seq LIMIT $3) j ON true"
        " WHERE h.store = $1 ORDER BY j.seq"
    )
    entry: str = "SELECT seq, hash, entry FROM @journal WHERE store = $1 AND seq = $2"
    weigh_entries: str = (
        "SELECT count(*), coalesce(sum(length(entry)), 0)::int8 FROM @journal"
        " WHERE store = $1 AND seq > $2"
    )
    keyed_txid: str = (
        "SELECT seq FROM @journal WHERE store = $1 AND txid = $2 AND txid >= '\\x80'"
        " UNION ALL SELECT seq FROM @key WHERE store = $1 AND txid = $2"
    )
    may_archive: str = (
        "SELECT has_table_privilege('@journal', 'DELETE')"
        " AND has_table_privilege('@archive', 'INSERT') AND has_table_privilege('@store', 'UPDATE')"
    )
    oldest: str = "SELECT coalesce(min(seq), 0) FROM @journal WHERE store = $1"
    archived: str = (
        "SELECT first_seq, last_seq, epoch, time_us, segment, pack, other FROM @archive"
        " WHERE store = $1 AND last_seq > $2 ORDER BY last_seq LIMIT $3"
    )
    keep_keys: str = (
        "INSERT INTO @key (store, txid, seq) SELECT store, txid, seq FROM @journal"
        " WHERE store = $1 AND seq BETWEEN $2 AND $3 AND txid >= '\\x80'"
    )
    drop_entries: str = "DELETE FROM @journal WHERE store = $1 AND seq BETWEEN $2 AND $3"
    archive: str = (
        "INSERT INTO @archive (store, first_seq, last_seq, epoch, time_us, segment, pack, other)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (store, last_seq) DO UPDATE SET"
        " pack = excluded.pack, other = excluded.other"
    )
    add_feature: str = (
        "UPDATE @store SET features = concat_ws(' ', nullif(features, ''), $2::text)"
        " WHERE no = $1 AND NOT $2::text = ANY(string_to_array(features, ' '))"
    )
    made_txid: str = "SELECT seq FROM @journal WHERE store = $1 AND seq > $3 AND txid = $2 LIMIT 1"
    checkpoint: str = (
        "SELECT seq, root FROM @checkpoint WHERE store = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1"
    )
    checkpoints: str = (
        "SELECT seq, root FROM @checkpoint WHERE store = $1 AND seq > $2 ORDER BY seq"
    )
    packs: str = (
        "SELECT number, name, body_bytes, footer FROM @pack WHERE store = $1 AND number > $2"
        " ORDER BY number"
    )
    pack_numbers: str = (
        "SELECT number FROM @pack WHERE store = $1 AND number BETWEEN $2 AND $3 ORDER BY number"
    )
    body: str = "SELECT body FROM @pack WHERE store = $1 AND number = $2"
    bodies: str = (
        "SELECT number, footer, body FROM @pack WHERE store = $1 AND number > $2"
        " AND body IS NOT NULL ORDER BY number LIMIT $3"
    )
    vectors: str = (
        "SELECT pack, version, bits FROM @vector WHERE store = $1 AND version > $2 ORDER BY pack"
    )
    sessions: str = (
        "SELECT id, fence, s0, base_seq, opened_us FROM @session WHERE store = $1 ORDER BY id"
    )
    session: str = (
        "SELECT id, fence, s0, base_seq, opened_us FROM @session WHERE store = $1 AND id = $2"
    )
    cursor: str = "SELECT position FROM @position WHERE store = $1 AND name = $2"
    lineage: str = "SELECT lineage_id FROM @store WHERE no = $1"
    unlinked: str = "SELECT name, seq FROM @unlinked WHERE store = $1 ORDER BY name"

    # All that a commit writes, whatever number of packs and entries it has: one statement.
    publish: str = (
        "WITH p AS (INSERT INTO @pack (store, number, name, body_bytes, footer, body)"
        " SELECT $1, * FROM unnest($2::int8[], $3::bytea[], $4::int8[], $5::bytea[],"
        " $6::bytea[])),"
        " j AS (INSERT INTO @journal (store, seq, hash, txid, entry)"
        " SELECT $1, * FROM unnest($7::int8[], $8::bytea[], $9::bytea[], $10::bytea[]))"
        " UPDATE @head SET seq = $11, hash = $12, version = $13, removal_version = $14,"
        " condemn_seq = $15 WHERE store = $1"
    )
    # The same for what most commits are: one pack and one entry. Arrays cost the client more.
    publish_one: str = (
        "WITH p AS (INSERT INTO @pack (store, number, name, body_bytes, footer, body)"
        " VALUES ($1, $2, $3, $4, $5, $6)),"
        " j AS (INSERT INTO @journal (store, seq, hash, txid, entry)"
        " VALUES ($1, $7, $8, $9, $10))"
        " UPDATE @head SET seq = $11, hash = $12, version = $13, removal_version = $14,"
        " condemn_seq = $15 WHERE store = $1"
    )
    remove_packs: str = "DELETE FROM @pack WHERE store = $1 AND number = ANY($2::int8[])"
    remove_vectors: str = "DELETE FROM @vector WHERE store = $1 AND pack = ANY($2::int8[])"
    set_vector: str = (
        "INSERT INTO @vector (store, pack, version, bits) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (store, pack) DO UPDATE SET version = excluded.version,"
        " bits = excluded.bits"
    )
    record_removal: str = (
        "INSERT INTO @removal (store, version, condemn_seq) VALUES ($1, $2, $3)"
        " ON CONFLICT (store, version) DO UPDATE SET condemn_seq = excluded.condemn_seq"
    )
    add_checkpoint: str = "INSERT INTO @checkpoint (store, seq, root) VALUES ($1, $2, $3)"
    drop_checkpoints: str = "DELETE FROM @checkpoint WHERE store = $1 AND seq < $2"
    put_session: str = (
        "INSERT INTO @session (store, id, fence, s0, base_seq, opened_us)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (store, id) DO UPDATE SET"
        " fence = excluded.fence, s0 = excluded.s0, base_seq = excluded.base_seq,"
        " opened_us = excluded.opened_us"
    )
    drop_session: str = "DELETE FROM @session WHERE store = $1 AND id = $2"
    set_cursor: str = (
        "INSERT INTO @position (store, name, position) VALUES ($1, $2, $3)"
        " ON CONFLICT (store, name) DO UPDATE SET position = excluded.position"
    )
    add_unlinked: str = (
        "INSERT INTO @unlinked (store, name, seq) SELECT $1, name, $3"
        " FROM unnest($2::bytea[]) AS name"
        " ON CONFLICT (store, name) DO UPDATE SET seq = excluded.seq"
    )
    drop_unlinked: str = "DELETE FROM @unlinked WHERE store = $1 AND name = ANY($2::bytea[])"

    note: str = "SELECT note FROM @note WHERE store = $1 AND task = $2"
    leave_note: str = (
        "INSERT INTO @note (store, task, note) VALUES ($1, $2, $3)"
        " ON CONFLICT (store, task) DO UPDATE SET note = excluded.note"
    )
    ask_to_be_told: str = "UPDATE @head SET told_seq = seq + $2 WHERE store = $1 RETURNING told_seq"

    schema_version: str = "SELECT version FROM @schema_version"
    find_store: str = (
        "SELECT s.no, s.store_id, s.lineage_id, s.format, s.features, s.created_us,"
        " s.ancestry, s.bucket, h.seq, h.hash,"
        " (SELECT note FROM @note n WHERE n.store = s.no AND n.task = 'bucket')"
        " FROM @store s JOIN @head h ON h.store = s.no WHERE s.name = $1"
    )
    seen: str = (
        "SELECT h.seq, (SELECT hash FROM @journal j WHERE j.store = $1 AND j.seq = $2),"
        " pg_is_in_recovery() FROM @head h WHERE h.store = $1"
    )
    add_store: str = (
        "WITH given AS (UPDATE @schema_version SET last_store = last_store + 1"
        " RETURNING last_store) INSERT INTO @store (no, name, store_id, lineage_id, format,"
        " features, created_us, ancestry, bucket)"
        " SELECT last_store, $1, $2, $3, $4, $5, $6, $7, $8 FROM given RETURNING no"
    )
    add_head: str = (
        "INSERT INTO @head (store, seq, hash, version, removal_version, condemn_seq, told_seq)"
        " VALUES ($1, 0, $2, 0, 0, 0, 0)"
    )
    count_stores: str = "SELECT count(*) FROM @store WHERE name = $1"
    rename_store: str = "UPDATE @store SET name = $2 WHERE name = $1"
    drop_store: str = "DELETE FROM @store WHERE name = $1"
    contradictions: str = (
        "SELECT h.seq, coalesce((SELECT max(seq) FROM @journal WHERE store = $1), 0),"
        " h.version, greatest((SELECT max(number) FROM @pack WHERE store = $1),"
        " (SELECT max(version) FROM @removal WHERE store = $1), 0),"
        " h.hash = coalesce((SELECT hash FROM @journal WHERE store = $1 AND seq = h.seq),"
        " h.hash), (SELECT count(*) FROM @journal WHERE store = $1)"
        " + (SELECT coalesce(sum(last_seq - first_seq + 1), 0)::int8 FROM @archive"
        " WHERE store = $1),"
        " (SELECT count(*) FROM @vector v WHERE store = $1 AND NOT EXISTS (SELECT FROM @pack p"
        " WHERE p.store = $1 AND p.number = v.pack))"
        " FROM @head h WHERE h.store = $1"
    )


DROP_ROWS: Final = tuple(
    f"DELETE FROM @{table} WHERE store = (SELECT no FROM @store WHERE name = $1)"
    for table in STORE_TABLES
)

# Whether anybody holds an advisory lock of this key (two halves of it).
IS_LOCKED: Final = (
    "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
    " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 1"
    " AND l.classid = $1::int8::oid AND l.objid = $2::int8::oid AND l.granted)"
)
LOCK: Final = "SELECT pg_advisory_lock($1)"
TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1)"
UNLOCK: Final = "SELECT pg_advisory_unlock($1)"
LOCK_TRANSACTION: Final = "SELECT pg_advisory_xact_lock($1)"

SETTLE_IN: Final = (
    "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int8,"
    # What is acknowledged has to last, on a synchronous standby too, whatever the default of this
    # database is (`local` and `remote_write` are less); the one stronger setting is left.
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)"
)


def qualified(text: str, schema: str) -> str:
    """SQL with the schema in front of its tables."""
    text = text.replace("@@search", f'"{search_schema(schema)}"')
    return text.replace("@@", f'"{schema}"').replace("@", f'"{schema}".')


@functools.lru_cache(maxsize=64)
def statements(schema: str) -> Statements:
    """The statements over one schema. Formatted once: a process may open many stores in it."""
    return Statements(*[qualified(text, schema) for text in Statements()])
