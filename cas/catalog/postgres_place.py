"""Where a PostgreSQL catalog is: a URL, taken apart.

Floor 2. Invariant: what may be a secret is shown by nothing here: not by `repr`, not by an error,
not by `shown`; libpq is given it, and nobody else.
"""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import evolve, field

from cas.errors import Invalid, Unsupported
from cas.model.values import frozen

SCHEMES: Final = ("postgresql://", "postgres://")

DEFAULT_SCHEMA: Final = "cas"
DEFAULT_STORE: Final = "main"

_STORE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SEARCHED_MAX: Final = 56
_SHOWN: Final = ("host", "port", "user", "dbname")


@frozen
class PostgresPlace:
    """A store in a database. `shown` is its URL without what may be secret."""

    shown: str
    schema: str
    store: str
    bucket: str | None = field(repr=False)
    parameters: dict[str, Any] = field(repr=False, eq=False)
    """What libpq is given."""

    def at(self, *, bucket: str | None) -> PostgresPlace:
        """The same with another bucket."""
        return evolve(self, bucket=bucket)


def search_schema(schema: str) -> str:
    """The schema of search indexes beside that of a catalog."""
    return f"{schema[:_SEARCHED_MAX]}_search"


def is_postgres(place: str) -> bool:
    """Whether a place is a URL of a PostgreSQL catalog."""
    return place.startswith(SCHEMES)


def load_driver() -> None:
    """Raise `Unsupported` unless psycopg can be imported."""
    try:
        import psycopg
    except ImportError as error:
        raise Unsupported(
            "A store on PostgreSQL needs psycopg; run `pip install 'agent-cas[postgres]'`."
        ) from error
    del psycopg


def parse(url: str) -> PostgresPlace:
    """Take a URL apart. Raises `Invalid`, in whose words and causes nothing of the URL stands.

    `store`, `schema` and `bucket` in the query are ours; all other parameters are libpq's.
    """
    load_driver()
    # Loaded here: every start of the command line comes by this file.
    from urllib.parse import parse_qsl, quote, urlencode, urlsplit

    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise Invalid("This is no URL of PostgreSQL: it cannot be taken apart.") from None
    own = {name: value for name, value in pairs if name in ("store", "schema", "bucket")}
    rest = urlencode([pair for pair in pairs if pair[0] not in own], quote_via=quote)
    try:
        # Put together by hand: `urlunsplit` leaves the slashes out before an empty host.
        plain = f"{parts.scheme}://{parts.netloc}{parts.path}?{rest}"
        parameters = dict(conninfo_to_dict(plain))
    except Error:
        # libpq repeats what it does not understand, and that may be a password.
        raise _unclear() from None
    if parts.fragment or not _is_plain(parameters):
        # A character of a password that is not written as %XX cuts it in two: what is behind
        # would be taken for a host, a port or a database, and shown as such.
        raise _unclear()
    schema, store = own.get("schema", DEFAULT_SCHEMA), own.get("store", DEFAULT_STORE)
    if not _SCHEMA.fullmatch(schema):
        raise Invalid("A schema is named with lower-case letters, digits and underscores.")
    if not _STORE.fullmatch(store):
        raise Invalid(
            "A store in a database is named with letters, digits and `._/-`, at most 128."
        )
    return PostgresPlace(
        _show(parameters, schema, store), schema, store, own.get("bucket"), parameters
    )


def _is_plain(parameters: dict[str, Any]) -> bool:
    """Whether ports are numbers, and names hold nothing that belongs between them."""
    ports = str(parameters.get("port") or "").split(",")
    names = "".join(str(parameters.get(name) or "") for name in ("host", "dbname"))
    return all(not port or port.isdigit() for port in ports) and "@" not in names


def _unclear() -> Invalid:
    return Invalid(
        "This URL of PostgreSQL is not one that libpq understands; it begins with "
        "postgresql://USER@HOST/DATABASE, and special characters in it are written as %XX."
    )


def _show(parameters: dict[str, Any], schema: str, store: str) -> str:
    from urllib.parse import quote, urlencode

    told = {name: str(parameters[name]) for name in _SHOWN if parameters.get(name)}
    hosts, ports = told.get("host", "").split(","), told.get("port", "").split(",")
    query, where = {}, ""
    if any(host.startswith("/") for host in hosts):
        query["host"] = told["host"]
    elif len(hosts) == len(ports):
        where = ",".join(map(_address, hosts, ports))
    else:
        where = ",".join(_address(host, "") for host in hosts)
    if told.get("port") and not where.endswith(f":{ports[-1]}"):
        query["port"] = told["port"]
    if schema != DEFAULT_SCHEMA:
        query["schema"] = schema
    query["store"] = store
    at = f"{quote(told['user'], safe='')}@" if "user" in told else ""
    database = quote(told.get("dbname", ""), safe="")
    return f"postgresql://{at}{where}/{database}?{urlencode(query, safe='/,')}"


def _address(host: str, port: str) -> str:
    """A host as it stands in a URL."""
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if host and port else name
