"""How values look: sizes, times and ids for people, and their forms in JSON.

Floor 9. Invariant: text for people holds no character that could move a cursor or colour a
terminal; JSON holds ids in full, sizes in bytes, times in RFC 3339 UTC, and every name without
loss.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from cas.model.names import count as count
from cas.model.names import printable, to_bytes

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size(count_bytes: int) -> str:
    """Bytes for people: `812 B`, `1.2 kB`, `45 MB`."""
    if count_bytes < 1000:
        return f"{count_bytes} B"
    value = float(count_bytes)
    for unit in _UNITS:
        value /= 1000
        if value < 999.5 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def subject(message: str) -> str:
    """First line of a message, safe for a terminal."""
    return printable(message.strip().partition("\n")[0].rstrip())


def paragraph(message: str, indent: str = "    ") -> list[str]:
    """All lines of a message, indented, safe for a terminal."""
    return [(indent + printable(line)).rstrip() for line in message.strip("\n").split("\n")]


def columns(rows: Iterable[tuple[str, ...]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as aligned lines; the columns of these numbers are flushed right."""
    table = list(rows)
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def named(key: str, name: str) -> dict[str, str]:
    """A name in JSON. One that is not UTF-8 comes twice: readable, and exactly as base64."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raw = to_bytes(name)
        return {
            key: printable(name),
            f"{key}_base64": b2a_base64(raw, newline=False).decode("ascii"),
        }
    return {key: name}


def plain(value: Any) -> Any:
    """A field of an error or a result, made of what JSON has."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return printable(value) if not value.isprintable() else value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
