"""URLs of PostgreSQL catalogs: what is taken from them, and what is never shown."""

from __future__ import annotations

import traceback

import pytest

from cas.catalog.postgres import create_store, open_postgres
from cas.catalog.postgres_dialect import MIGRATIONS, ROLES
from cas.catalog.postgres_place import parse
from cas.catalog.postgres_schema import grants, migrate
from cas.errors import (
    AccessDenied,
    CasError,
    Invalid,
    NewerFormat,
    NotAStore,
    StorageFailed,
    StoreNotFound,
)
from cas.testing.catalog_tables import META
from tests.databases import fresh_url
from tests.tidy.source import ROOT
from tools.postgres_server import PASSWORD, PostgresServer


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hush@h:5433/d", "postgresql://u@h:5433/d?store=main"),
        ("postgres://h/d?store=a/b&schema=s", "postgresql://h/d?schema=s&store=a/b"),
        (
            "postgresql://u:hush@/d?host=/run&port=1&password=hush&sslpassword=hush",
            "postgresql://u@/d?host=/run&port=1&store=main",
        ),
        ("postgresql://a:1,b:2/d?store=x", "postgresql://a:1,b:2/d?store=x"),
        ("postgresql://a,b/d?port=1", "postgresql://a,b/d?port=1&store=main"),
        ("postgresql://[::1]:1/d", "postgresql://[::1]:1/d?store=main"),
        ("postgresql:///d?host=/run", "postgresql:///d?host=/run&store=main"),
        ("postgresql://", "postgresql:///?store=main"),
        ("postgresql://a%2Fb%40c:hush@h/d%2Fe", "postgresql://a%2Fb%40c@h/d%2Fe?store=main"),
        (
            "postgresql://h1,h2/d?host=/a,/b&port=1,2",
            "postgresql:///d?host=/a,/b&port=1,2&store=main",
        ),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """What is shown of a place names server, database and store, and no password."""
    place = parse(url)
    assert place.shown == shown
    assert parse(shown).shown == shown
    secrets = ("password", "sslpassword")
    told = {name: value for name, value in place.parameters.items() if name not in secrets}
    assert parse(shown).parameters == told
    assert "hush" not in repr(place) + str(place)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush@h:port/d",
        "postgresql://u:hu/hush@h/d",
        "postgresql://u:x#hush@h/d",
        "postgresql://u:x?hush@h/d",
        "postgresql://u:x@hush@h/d",
        "postgresql://u:x/hush@h/d",
        "postgresql://u:hush@h/d?hush=1",
        "postgresql://u:hu%zzsh@h/d",
        "postgresql://u:hush@[h/d",
        "postgresql://u:hush@h/d?store=../x",
        "postgresql://u:hush@h/d?schema=Drop",
        "postgresql://u:hush@h/d?hush",
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url: str) -> None:
    """What is wrong with a URL is told without the URL, in every line of the traceback."""
    with pytest.raises(Invalid) as told:
        parse(url)
    lines = traceback.format_exception(told.value, chain=True)
    said = "".join(line for line in lines if 'File "' not in line)
    assert "hush" not in said + repr(told.value.fields)


def test_a_wrong_password_is_told_and_never_shown(postgres: PostgresServer) -> None:
    """A server that refuses a password is `AccessDenied`, which names neither it nor the right."""
    url = postgres.tcp_url(password="hush-hush")
    with pytest.raises(AccessDenied) as told:
        open_postgres(parse(url))
    text = "".join(traceback.format_exception(told.value)) + repr(told.value.fields)
    assert "hush" not in text
    assert PASSWORD not in text


def test_who_is_not_known_is_denied_and_a_database_that_is_not_there_is_named(
    postgres: PostgresServer,
) -> None:
    """Neither is told to try again when the server answers: it did."""
    for url, error in (
        (postgres.url(user="nobody"), AccessDenied),
        (postgres.url(database="nowhere"), NotAStore),
    ):
        with pytest.raises(error, match="does not exist"):
            open_postgres(parse(url))


def test_a_password_opens_and_is_in_no_word_of_the_handle(postgres: PostgresServer) -> None:
    """A catalog opened with a password over TCP shows it in no `repr`."""
    place = parse(postgres.tcp_url() + "?" + fresh_url(postgres).partition("&")[2])
    create_store(place, META, "")
    catalog = open_postgres(place)
    with catalog.read() as reader:
        assert reader.head().seq == 0
    assert PASSWORD not in repr(catalog) + repr(place) + repr(vars(catalog))
    catalog.close()


def test_a_server_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    """Nobody listens: `StorageFailed`, with the place and what libpq said."""
    url = postgres.url().replace(f"port={postgres.port}", "port=1")
    with pytest.raises(StorageFailed, match="cannot be reached"):
        open_postgres(parse(url))


def test_a_store_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    """A name without a store, and a schema that was never made, are `StoreNotFound`."""
    migrate(parse(postgres.url()))
    for url in (fresh_url(postgres), postgres.url(schema="never")):
        with pytest.raises(StoreNotFound, match="cas init"):
            open_postgres(parse(url))


def test_stores_of_one_database_do_not_see_each_other(postgres: PostgresServer) -> None:
    """Two stores of one schema have tables in common and nothing else."""
    places = [parse(fresh_url(postgres)) for _ in range(2)]
    assert [create_store(place, META, "b") for place in places] == [True, True]
    assert create_store(places[0], META, "b") is False
    one, two = (open_postgres(place) for place in places)
    with one.write() as writer:
        writer.append_entry(1, bytes(32), b"\1" * 16, b"e")
        writer.add_pack(1, None, 1, b"f", b"b")
        writer.set_cursor("n", 1)
    with two.read() as reader:
        assert (reader.head().seq, reader.head().version, reader.cursor("n")) == (0, 0, None)
        assert list(reader.packs()) == []
    assert one.bucket == "b"
    one.close()
    two.close()


def test_a_schema_goes_forward_under_a_lock_and_never_back(postgres: PostgresServer) -> None:
    """Each step is taken once, in order; a newer schema is refused by name, an older one told."""
    place = parse(postgres.url(schema="stepping"))
    first = ("CREATE SCHEMA @@", "CREATE TABLE @schema_version (version bigint NOT NULL)")
    second = ("CREATE TABLE @extra (n bigint)",)
    assert migrate(place, [first]) == 0
    assert migrate(place, [first, second]) == 1
    third = ("CREATE TABLE @more (n bigint)",)
    steps = [first, second, third, *[()] * (len(MIGRATIONS) - 2)]
    assert migrate(place, steps) == 2
    assert migrate(place, steps) == len(steps) == len(MIGRATIONS) + 1
    assert postgres.run("SELECT version FROM stepping.schema_version") == [(len(steps),)]
    assert postgres.run("SELECT count(*) FROM stepping.extra") == [(0,)]
    with pytest.raises(NewerFormat):
        migrate(place, [first])
    with pytest.raises(NewerFormat):
        open_postgres(place)
    postgres.run("UPDATE stepping.schema_version SET version = 1")
    with pytest.raises(NotAStore, match="brings it forward"):
        open_postgres(place)
    with pytest.raises(CasError):
        migrate(place, [first, second, ("CREATE TABLE @half (n bigint)", "SELECT 1 / 0")])
    assert postgres.run("SELECT to_regclass('stepping.half')") == [(None,)]


def test_roles_have_least_rights(postgres: PostgresServer) -> None:
    """A reader cannot write, a writer cannot change the journal, and neither can a collector."""
    place = parse(fresh_url(postgres))
    create_store(place, META, "")
    for kind in ("reader", "writer", "collector"):
        postgres.run(f"CREATE ROLE cas_{kind} LOGIN")
        for statement in grants("cas", kind, f"cas_{kind}"):
            postgres.run(statement)

    def opened(kind: str, **how: bool):
        return open_postgres(parse(postgres.url(user=f"cas_{kind}", store=place.store)), **how)

    reader, writer, collector = (
        opened("reader", read_only=True),
        opened("writer"),
        opened("collector"),
    )
    with writer.write() as block:
        block.append_entry(1, bytes(32), b"\1" * 16, b"e")
        block.add_pack(1, None, 1, b"f", b"b")
        block.add_unlinked([b"m" * 16], 1)  # a spill gathers small pack files
        block.drop_unlinked([b"m" * 16])
    with collector.write() as block:
        block.add_pack(2, None, 1, b"f", b"b")
        block.set_vector(2, 2, b"\1")
        block.remove_packs([2], 3, 1)
        block.add_unlinked([b"n" * 16], 1)
        block.drop_unlinked([b"n" * 16])
        block.drop_checkpoints(1)
    with reader.read() as state:
        assert state.head()[2:] == (3, 3, 1)
    refused = opened("reader")

    def write() -> None:
        with refused.write() as block:
            block.set_cursor("n", 1)

    with pytest.raises(AccessDenied):
        write()
    import psycopg

    for kind in ("writer", "collector"):
        with psycopg.connect(postgres.url(user=f"cas_{kind}"), autocommit=True) as direct:
            for statement in (
                "UPDATE cas.journal SET entry = ''",
                "DELETE FROM cas.journal",
                "UPDATE cas.pack SET body = ''",
                "UPDATE cas.store SET bucket = ''",
                "DROP TABLE cas.journal",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    direct.execute(statement)
    for catalog in (reader, writer, collector, refused):
        catalog.close()


def test_a_role_of_another_kind_is_refused() -> None:
    """`grants` knows four kinds of role, and quotes the name it is given."""
    with pytest.raises(Invalid):
        grants("cas", "owner", "x")
    assert all('"a""b"' in text for text in grants("cas", "reader", 'a"b'))


def test_the_documented_rights_are_those_that_are_tested() -> None:
    """The how-to gives the SQL of `grants`, each kind without what the one before has."""
    page = (ROOT / "docs" / "how-to" / "postgres.md").read_text()
    blocks = [part.partition("\n")[2] for part in page.split("```")[1::2]]
    sql = [block.split("\n")[:-1] for block in blocks if block.startswith(("GRANT", "CREATE"))]
    reader, writer, collector, searcher = (grants("cas", kind, "ROLE") for kind in ROLES)
    plain = [[line.replace('."', ".").replace('"', "") for line in part] for part in sql]
    assert plain == [
        [line.replace('"', "") for line in lines if line not in known]
        for lines, known in ((reader, []), (writer, reader), (collector, writer), (searcher, []))
    ]
