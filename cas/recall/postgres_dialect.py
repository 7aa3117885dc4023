"""What PostgreSQL says otherwise than SQLite: tables, values in one order, texts as `tsvector`.

Floor 7. Invariant: a text stands in as many rows as its limits demand (255 places of a word, 16,383
places), so that no word and no place of it is lost; a value compares as SQLite compares it; what
one projection has lies in tables of its own, so that they are thrown away as a file is.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.later import Later
from cas.recall.database import VERSION
from cas.recall.sketches import sketch
from cas.recall.vectors import unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.uint64]
else:
    np = Later("numpy", keep=True)

PLACES_MAX: Final = 255
"""Places of one word that a `tsvector` keeps."""
_PART_MAX: Final = 16_000
"""Words of a part: of later ones a `tsvector` forgets the place."""
SEAM: Final = 64
"""Words before and behind the end of a part that stand together once more, for phrases."""
_TERM_CHARS_MAX: Final = 400
"""Of a longer word its beginning and a digest stand for it: the server takes 2,046 bytes."""
_TERM_CHARS: Final = 200
_CUT: Final = "\ue000"
_TEXT_CHARS_MAX: Final = 500
"""Of a longer id the rest is left out: an index takes 2,704 bytes, and no aggregate has one."""
_KEY_BYTES_MAX: Final = 1_400
"""Of a longer text in a field its beginning and a digest are compared."""
_WHOLE_MAX: Final = float(1 << 63)

TABLES: Final = ("meta", "name", "item", "value", "link", "feedback", "model", "vector", "text")

# Texts compare by their bytes, as SQLite's do. What is stored is small and changes seldom: nothing
# is compressed, and a text of up to 8 KB stays in its row, where ranking looks at it.
MAKE: Final = (
    'CREATE TABLE @meta (key text COLLATE "C" PRIMARY KEY, value text NOT NULL)',
    'CREATE TABLE @name (code bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE)',
    'CREATE TABLE @item (doc bigint PRIMARY KEY, type bigint NOT NULL, id text COLLATE "C"'
    " NOT NULL, blob bytea NOT NULL, since bigint NOT NULL, until bigint, time_us bigint NOT NULL,"
    " words bigint NOT NULL, tokens bigint NOT NULL, importance float8, at_us bigint,"
    " from_us bigint, to_us bigint, trust bigint NOT NULL, flags bigint NOT NULL)",
    # What is taken in twice contradicts this.
    "CREATE UNIQUE INDEX ON @item (id, type, since)",
    "CREATE INDEX ON @item (until) WHERE until IS NOT NULL",
    "CREATE TABLE @value (field bigint, value bytea, doc bigint, PRIMARY KEY (field, value, doc))",
    "CREATE INDEX ON @value (doc, field)",
    'CREATE TABLE @link (doc bigint, field bigint, type text COLLATE "C", id text COLLATE "C",'
    " pin bytea, PRIMARY KEY (id, type, doc, field))",
    "CREATE INDEX ON @link (doc)",
    'CREATE TABLE @feedback (seq bigint, type text COLLATE "C", id text COLLATE "C",'
    ' worth bigint, agent text COLLATE "C")',
    "CREATE INDEX ON @feedback (id, type, seq)",
    'CREATE TABLE @model (code bigint PRIMARY KEY, identity text COLLATE "C" UNIQUE,'
    " dimensions bigint, upto bigint)",
    # `bits` are those by which the nearest of many are chosen (`vectors.sketch`).
    "CREATE TABLE @vector (place bigint PRIMARY KEY, data bytea, bits varbit)",
    "ALTER TABLE @vector ALTER COLUMN data SET STORAGE EXTERNAL",
    # `part` is the place of its first word, less than 0 for one that is there for phrases alone.
    "CREATE TABLE @text (doc bigint, part bigint, body tsvector NOT NULL, PRIMARY KEY (doc, part))"
    " WITH (toast_tuple_target = 8160)",
    "ALTER TABLE @text ALTER COLUMN body SET STORAGE EXTERNAL",
    # What waits to be put into the index is looked through by every question.
    "CREATE INDEX ON @text USING gin (body) WITH (gin_pending_list_limit = 256)",
    # Who may use the schema follows, and everybody else does not get here.
    "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {all} TO PUBLIC",
)
FILL: Final = (
    "INSERT INTO @meta VALUES ('store', ?), ('seq', '-1'), ('made', gen_random_uuid()::text),"
    f" ('version', '{VERSION}')"
)

_TYPES: Final[Mapping[str, Sequence[str]]] = {
    "item": (
        *("int8", "int8", "text", "bytea", "int8", "int8", "int8", "int8", "int8"),
        *("float8", "int8", "int8", "int8", "int8", "int8"),
    ),
    "value": ("int8", "key", "int8"),
    "link": ("int8", "int8", "text", "text", "bytea"),
    "feedback": ("int8", "text", "text", "int8", "text"),
    "vector": ("int8", "bytea", "varbit"),
}

_TABLE = re.compile(r"(?<!@)@(\w+)")
_NAMED = re.compile(r"(?<![:\w]):([a-z]+)")


def table(schema: str, key: str, name: str) -> str:
    """A table of one projection."""
    return f'"{schema}"."{name}_{key}"'


@functools.lru_cache(maxsize=2_048)
def said(sql: str, schema: str, key: str) -> tuple[str, tuple[str, ...]]:
    """A statement with its tables and `$1`, `$2` …; and names of its parameters, if it has any."""
    text = _TABLE.sub(lambda match: table(schema, key, match[1]), sql)
    if "?" in text:
        first, *rest = text.split("?")
        return first + "".join(f"${n}{part}" for n, part in enumerate(rest, 1)), ()
    names = tuple(dict.fromkeys(_NAMED.findall(text)))
    return _NAMED.sub(lambda match: f"${names.index(match[1]) + 1}", text), names


def insertion(name: str, rows: Sequence[Sequence[Any]], conflict: str) -> tuple[str, list[Any]]:
    """Rows as one statement, a column a parameter."""
    types = _TYPES[name]
    if name == "vector":
        texts = bit_texts(sketch(unpack([data for _, data in rows], len(rows[0][1]))))
        rows = [(*row, text) for row, text in zip(rows, texts, strict=True)]
        conflict = conflict and f"{conflict}, bits = excluded.bits"
    columns: list[list[Any]] = []
    for type, column in zip(types, zip(*rows, strict=True), strict=True):
        if type == "text":
            columns.append([None if value is None else clean(value) for value in column])
        elif type == "key":
            columns.append([key_of(value) for value in column])
        else:
            columns.append(list(column))
    arrays = ", ".join(f"?::{'bytea' if type == 'key' else type}[]" for type in types)
    return f"INSERT INTO @{name} SELECT * FROM unnest({arrays}) {conflict}", columns


def bit_texts(rows: Bits) -> list[str]:
    """Each row of bits as the server takes it."""
    ones = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little") + ord("0")
    return [row.tobytes().decode("ascii") for row in ones]


def clean(text: str) -> str:
    """A text as the server takes it."""
    return (text if "\0" not in text else text.replace("\0", "\ufffd"))[:_TEXT_CHARS_MAX]


# -- values ------------------------------------------------------------------------------------


def key_of(value: Any) -> bytes:
    """A text or number as bytes that compare as SQLite compares the values: numbers by what they
    are, whole or not, before texts by their bytes.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
        if len(data) > _KEY_BYTES_MAX:
            data = data[:_KEY_BYTES_MAX] + hashlib.sha256(data).digest()
        return b"\2" + data
    near, rest = float(value), 0
    if isinstance(value, int):
        if near > value:
            near = math.nextafter(near, -math.inf)
        rest = value - int(near)
    bits = int.from_bytes(struct.pack(">d", near + 0.0), "big")
    bits = bits ^ 0xFFFFFFFFFFFFFFFF if bits >> 63 else bits | 1 << 63
    # The nearest number below that a float can be, then what is missing, if anything is.
    return b"\1" + bits.to_bytes(8, "big") + (rest.to_bytes(2, "big") if rest else b"")


def value_of(key: bytes, *, real: bool = False) -> Any:
    """The value of such bytes; a number is a float if `real`, else a whole one where it is whole:
    equal numbers have equal keys, whichever type they had.
    """
    if key[:1] == b"\2":
        return key[1:].decode("utf-8", "replace")
    bits = int.from_bytes(key[1:9], "big")
    bits = bits ^ (1 << 63) if bits >> 63 else bits ^ 0xFFFFFFFFFFFFFFFF
    (near,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    if real or abs(near) > _WHOLE_MAX or near != math.floor(near):
        return near
    return int(near) + int.from_bytes(key[9:], "big")


# -- texts -------------------------------------------------------------------------------------


def stored_term(term: str) -> str:
    """A word as a `tsvector` takes it."""
    if len(term) <= _TERM_CHARS_MAX:
        return term
    digest = hashlib.sha256(term.encode("utf-8", "replace")).hexdigest()
    return term[:_TERM_CHARS] + _CUT + digest


def parts_of(doc: int, terms: Sequence[str]) -> list[tuple[int, int, str]]:
    """The rows of a text that has these words."""
    if len(terms) <= PLACES_MAX:
        return [(doc, 0, _vector(terms))]
    found, start = [], 0
    while start < len(terms):
        end = _end(terms, start)
        found.append((doc, start, _vector(terms[start:end])))
        if end < len(terms):
            found.append((doc, -end, _vector(terms[max(0, end - SEAM) : end + SEAM])))
        start = end
    return found


def _end(terms: Sequence[str], start: int) -> int:
    """Where a part ends that begins there."""
    counts: dict[str, int] = {}
    end = min(len(terms), start + _PART_MAX)
    for place in range(start, end):
        term = terms[place]
        met = counts[term] = counts.get(term, 0) + 1
        if met > PLACES_MAX:
            return place
    return end


def _vector(terms: Sequence[str]) -> str:
    places: dict[str, list[int]] = {}
    for place, term in enumerate(terms, 1):
        places.setdefault(term, []).append(place)
    return " ".join(f"{quoted(term)}:{','.join(map(str, found))}" for term, found in places.items())


def quoted(term: str) -> str:
    """A word in the text of a `tsvector` or `tsquery`. The tokenizer gives letters and digits,
    and no quote.
    """
    return "'" + stored_term(term).replace("\\", "\\\\").replace("'", "''") + "'"


def phrase(terms: Sequence[str], *, prefix: bool) -> str:
    """Words that follow each other, as a `tsquery`; with `prefix` the last is a beginning."""
    if not prefix:
        return " <-> ".join(map(quoted, terms))
    last = "'" + terms[-1][:_TERM_CHARS_MAX].replace("\\", "\\\\").replace("'", "''") + "':*"
    return " <-> ".join([*map(quoted, terms[:-1]), last])
