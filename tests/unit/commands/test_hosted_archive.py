"""The archive of a store on PostgreSQL: what its owner moves, everybody reads as before."""

from __future__ import annotations

from pathlib import Path

import pytest

import cas
from cas.catalog.postgres_dialect import MIGRATIONS
from cas.catalog.postgres_place import parse
from cas.catalog.postgres_schema import drop, grants, migrate
from cas.clock import SystemClock
from cas.errors import AccessDenied
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.objects.archive import archive_some, old_entries
from cas.testing.archiving import archive_all
from cas.testing.oracle import check_archive
from cas.testing.stores import SMALL, build
from tests.databases import fresh_url
from tools.postgres_server import PostgresServer

COUNT = 24
FEW = SMALL._replace(journal_rows=5, archive_entries=3)


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))


def _opened(url: str, packs: Path) -> Store:
    return build(f"{url}&bucket={packs}", clock=SystemClock(), thresholds=FEW)


def _fill(store: Store) -> None:
    for at in range(1, COUNT + 1):
        key = f"k{at}" if at % 4 == 0 else None
        with store.begin(author="ada", message=f"m{at}", key=key) as tx:
            tx.branch("main")[f"f{at % 5}"] = b"%d" % at
            tx.event("Said", b"%d" % at)
            tx.commit()


def _shown(store: Store) -> list[object]:
    entries = list(store.journal())
    states = [[ref.target for ref in store.at(entry.seq).refs()] for entry in entries]
    assert [store.outcome(entry.txid) for entry in entries] == entries
    assert [store.entry(entry.seq) for entry in entries] == entries
    assert [store.at(time_us=entry.time_us).seq for entry in entries] == list(range(1, COUNT + 1))
    return [*entries, states]


def test_the_owner_moves_old_entries_and_everybody_reads_them(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """A reader and a collector without the right to remove rows read, and write keys, through the
    archive; for them nothing is due, and what they try is refused.
    """
    url = fresh_url(postgres)
    with cas.open(url, create=True, bucket=tmp_path / "packs"):
        pass
    for kind in ("reader", "collector"):
        postgres.run(f"CREATE ROLE archive_{kind} LOGIN")
        for statement in grants("cas", kind, f"archive_{kind}"):
            postgres.run(statement)
    as_collector = url.replace("postgres@", "archive_collector@")
    with (
        _opened(url, tmp_path / "packs") as owner,
        _opened(as_collector, tmp_path / "packs") as writer,
        cas.open(url.replace("postgres@", "archive_reader@"), read_only=True) as reader,
    ):
        _fill(owner)
        before = _shown(owner)
        writer.mirror()
        assert old_entries(owner.objects) == old_entries(writer.objects) == COUNT - 5
        assert (owner.objects.catalog.may_archive(), writer.objects.catalog.may_archive()) == (
            True,
            False,
        )
        assert "archive" not in {chore.name for chore in writer.plan_maintenance()}
        with pytest.raises(AccessDenied):
            archive_some(writer.objects)
        with owner.objects.catalog.read() as state:
            assert (list(state.archived()), state.weigh_entries(0)[0]) == ([], COUNT)
        assert "archive" in {chore.name for chore in owner.plan_maintenance()}
        assert {row.outcome for row in owner.maintain().rows} == {"done"}
        for store in (owner, writer):
            assert _shown(store) == before
            assert list(check_archive(store)) == []
        assert list(reader.journal()) == before[:COUNT]
        with writer.begin(author="ada", message="m4", key="k4") as tx:
            tx.branch("main")["f4"] = b"4"
            tx.event("Said", b"4")
            assert tx.commit().seq == 4
        assert list(owner.objects.catalog.check()) == []
        assert fsck(owner).ok
        assert archive_all(owner) == 0
    with cas.open(url, read_only=True) as fresh:
        assert "archive" in fresh.objects.meta.features
        assert list(fresh.journal()) == before[:COUNT]


def test_the_number_of_a_store_is_never_given_again(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """A store that was removed leaves its number to nobody: a handle of it writes into no other,
    in a schema that was brought forward too.
    """
    place = parse(postgres.url(schema="numbers"))
    migrate(place, MIGRATIONS[:1])
    postgres.run("INSERT INTO numbers.store VALUES (4, 'old', '', '', 1, '', 0, '', '')")
    migrate(place)
    urls = [postgres.url(schema="numbers", store=name) for name in ("one", "two")]
    with cas.open(urls[0], create=True, bucket=tmp_path / "one") as store:
        drop(parse(urls[0]))
        with cas.open(urls[1], create=True, bucket=tmp_path / "two") as other:
            assert postgres.run("SELECT no, name FROM numbers.store ORDER BY no") == [
                (4, "old"),
                (6, "two"),
            ]
            with pytest.raises(cas.CasError):
                store.put(b"nobody's")
            assert list(other.objects.catalog.check()) == []


def test_who_could_read_the_journal_can_read_the_archive(postgres: PostgresServer) -> None:
    """A schema that is brought forward gives its readers what they need of the new tables."""
    place = parse(postgres.url(schema="before"))
    assert migrate(place, MIGRATIONS[:1]) == 0
    for role in ("early reader", "early_writer", "stranger"):
        postgres.run(f'CREATE ROLE "{role}" LOGIN')
    for kind, role in (("reader", "early reader"), ("writer", "early_writer")):
        for statement in grants("before", kind, role):
            postgres.run(statement)
    assert migrate(place) == 1
    for role, may in (("early reader", True), ("early_writer", True), ("stranger", False)):
        for table in ("archive", "key"):
            told = f"SELECT has_table_privilege('{role}', 'before.{table}', "
            assert postgres.run(told + "'SELECT')") == [(may,)]
            assert postgres.run(told + "'INSERT')") == [(False,)]
