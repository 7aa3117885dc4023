"""From a file of LangGraph (`SqliteStore`, `SqliteSaver`) into a workspace.

Floor 6. The tables are those of langgraph-checkpoint-sqlite 3 (migrations 0 to 4). Invariant: each
item becomes a memory that also holds, as a field it does not know, exactly what the item was; what
is no item (embeddings, checkpoints, tables of others) is told, and then the whole file is kept.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from cas.catalog.foreign import ForeignFile
from cas.errors import CasError, InvalidName
from cas.workspace.arrivals import Arrivals
from cas.workspace.links import check_id
from cas.workspace.memories import Memory

ITEMS: Final = "store"
CHECKPOINTS: Final = "checkpoints"
_COLUMNS: Final = (
    "prefix",
    "key",
    "value",
    "created_at",
    "updated_at",
    "expires_at",
    "ttl_minutes",
)
_BOOKKEEPING: Final = ("store_migrations", "vector_migrations")
_TEXTS: Final = ("text", "content", "memory", "data")
"""Where the text of an item is looked for; the first that is text counts."""
_FIELD: Final = "langgraph"


def is_langgraph(file: ForeignFile) -> bool:
    """Whether a file is one of LangGraph's, by its tables."""
    tables = file.tables
    items = {"prefix", "key", "value"} <= set(tables.get(ITEMS, ()))
    return items or {"thread_id", "checkpoint"} <= set(tables.get(CHECKPOINTS, ()))


def take_langgraph(file: ForeignFile, arrivals: Arrivals) -> None:
    """Stage what such a file holds."""
    if ITEMS in file.tables:
        for row in file.rows(ITEMS, _COLUMNS, "prefix key"):
            _take(arrivals, dict(zip(_COLUMNS, row, strict=True)))
        for column in sorted(set(file.tables[ITEMS]) - set(_COLUMNS)):
            arrivals.tell(f"{ITEMS}.{column}", "is a column of no known meaning", homeless=True)
    for table in file.tables:
        if table == ITEMS or table in _BOOKKEEPING:
            continue
        count = file.count(table)
        if count:
            arrivals.tell(table, f"{_why(table)} ({count:,} rows)", homeless=True)


def _why(table: str) -> str:
    if table == "store_vectors":
        return "holds embeddings of a model that only its program has; recall makes its own"
    if table in (CHECKPOINTS, "writes"):
        return "holds the state of runs as LangGraph packs it, which means nothing here"
    return "is a table of no known meaning"


def _take(arrivals: Arrivals, row: dict[str, Any]) -> None:
    """An item as a memory."""
    place = f"{row['prefix']}:{row['key']}"
    value = row["value"]
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        arrivals.tell(place, f"is no valid JSON ({error})", homeless=True)
        return
    item = {name: each for name, each in row.items() if each is not None} | {"value": text}
    unit = arrivals.on(Memory)
    id = _id(str(row["prefix"]), str(row["key"]))
    try:
        old = unit.find_one(Memory, id)
        if old is not None and old.unknown.get(_FIELD) == item:
            # As it was taken in before; what was made of it here since stays.
            return
        made = Memory(
            id=id,
            agent=str(row["prefix"]) or "langgraph",
            text=_text(said, text),
            kind="item",
            tags=frozenset(part for part in str(row["prefix"]).split(".") if part),
            at=_time(row["created_at"]),
            valid_to=_time(row["expires_at"]),
            unknown={_FIELD: item},
        )
        arrivals.save(made)
    except CasError as error:
        arrivals.tell(place, f"fits no memory: {error}", homeless=True)


def _id(prefix: str, key: str) -> str:
    """An id that namespace and key give, and no other pair does."""
    plain = f"{prefix}:{key}"
    try:
        if ":" not in prefix:
            return check_id(plain)
    except InvalidName:
        pass
    return "langgraph-" + sha256(f"{len(prefix)}:{plain}".encode()).hexdigest()[:32]


def _text(said: Any, text: str) -> str:
    """What an item says, as a person would read it; all of it where no field is plainly that."""
    if isinstance(said, str):
        return said
    if isinstance(said, dict):
        for name in _TEXTS:
            found = said.get(name)
            if isinstance(found, dict):
                found = found.get(name)
            if isinstance(found, str) and found:
                return found
    return text


def _time(value: Any) -> datetime | None:
    """A time of SQLite or of Python; None where it is none, since the item keeps it."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
