"""Rows on stores whose catalog is on PostgreSQL, against plain clients of the same server.

A server of its own runs for each row, with its log synced. *Row*: one client whose statement
inserts a row of 1 KB and commits by itself; *hot*: sixteen clients that update one row. Product
and peer race by turns for the same time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.context import RACE_SECONDS, Context, Worker, run_race
from bench.harness import Series
from tools.postgres_server import NoServer, PostgresServer, serving

PROGRAM = Path(__file__).with_name("workers_hosted.py")
PROCESSES, WRITERS = 4, 16
MANY, FEW = 10_000, 10
OBJECTS = 1_000_000
BRANCHES = [f"writer/{number}" for number in range(8)]
JOURNAL = ("journal", "archive", "key")
JOURNAL_SQLITE = ("journal_key", *JOURNAL)
NEWEST, OLDER = 10_000, 10_000
"""Entries of a journal that may be whole, and those before them."""

INSERT = "INSERT INTO one_row (b) VALUES (%(b)s)"
HOT = "UPDATE hot SET n = n + 1 WHERE k = 1"


@contextmanager
def _server(ctx: Context) -> Iterator[PostgresServer | None]:
    """A server with the tables of the peers; None, and said so, where there is none."""
    try:
        with serving() as server:
            server.run("CREATE TABLE one_row (n bigserial PRIMARY KEY, b bytea)")
            server.run("CREATE TABLE hot (k int PRIMARY KEY, n bigint)")
            server.run("INSERT INTO hot VALUES (1, 0)")
            yield server
    except NoServer as error:
        ctx.skip("PostgreSQL", str(error))
        yield None


def _urls(ctx: Context, server: PostgresServer, name: str, count: int) -> list[str]:
    """URLs of new stores."""
    import cas

    folder = ctx.fresh(name)
    urls = [f"{server.url(store=f'{name}{n}')}&bucket={folder / str(n)}" for n in range(count)]
    for url in urls:
        cas.init(url)
    return urls


def _record(ctx: Context, name: str, races: list[list[dict[str, Any]]]) -> None:
    each = [[count for answer in race for count in answer["counts"]] for race in races]
    ctx.run.add(f"{name}/rate", Series(tuple(sum(c) / RACE_SECONDS for c in each), "/s"))
    cpu = tuple(
        sum(answer["cpu"] for answer in race) / max(1, sum(c)) * 1e6
        for race, c in zip(races, each, strict=True)
    )
    ctx.run.add(f"{name}/cpu", Series(cpu, "µs of the client a transaction"))
    fair = tuple(min(c) / statistics.mean(c) if sum(c) else 0.0 for c in each)
    ctx.run.add(f"{name}/least", Series(fair, "of mean", min(fair)))


def row_hosted_commit(ctx: Context) -> None:
    """One small durable commit after the other, against a one-row insert transaction."""
    with _server(ctx) as server, ExitStack() as stack:
        if server is None or not ctx.has_api():
            return
        urls = _urls(ctx, server, "hosted-commit", 1)
        groups = {
            "cas": [
                stack.enter_context(
                    ctx.worker("cas", program=PROGRAM, urls=urls, branches=["main"])
                )
            ],
            "row": [
                stack.enter_context(
                    ctx.worker(
                        "row", program=PROGRAM, url=server.url(), statement=INSERT, clients=1
                    )
                )
            ],
        }
        _by_turns(ctx, "hosted-commit", groups)


def row_hosted_writers(ctx: Context) -> None:
    """Sixteen writers on one store and on sixteen, against sixteen clients of one hot row."""
    with _server(ctx) as server, ExitStack() as stack:
        if server is None or not ctx.has_api():
            return
        one = _urls(ctx, server, "hosted-one", 1)
        many = _urls(ctx, server, "hosted-many", WRITERS)
        each = WRITERS // PROCESSES
        groups: dict[str, list[Worker]] = {"one": [], "many": [], "hot": []}
        for process in range(PROCESSES):
            mine = range(process * each, (process + 1) * each)
            branches = [f"writer/{number}" for number in mine]
            for name, urls in (("one", one), ("many", [many[number] for number in mine])):
                groups[name].append(
                    stack.enter_context(
                        ctx.worker("cas", program=PROGRAM, urls=urls, branches=branches)
                    )
                )
            groups["hot"].append(
                stack.enter_context(
                    ctx.worker(
                        "row", program=PROGRAM, url=server.url(), statement=HOT, clients=each
                    )
                )
            )
        _by_turns(ctx, "hosted-writers", groups)


def _by_turns(ctx: Context, row: str, groups: dict[str, list[Worker]]) -> None:
    races: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in groups}
    for _ in range(ctx.rounds):
        for name, workers in groups.items():
            races[name].append(run_race(workers, "race", ahead_seconds=0.3))
    for name, found in races.items():
        _record(ctx, f"{row}/{name}", found)


def row_hosted_stores(ctx: Context) -> None:
    """Opening a store and committing to it, among ten stores of the database and ten thousand."""
    with _server(ctx) as server, ExitStack() as stack:
        if server is None or not ctx.has_api():
            return
        few = _urls(ctx, server, "hosted-few", FEW)
        worker = stack.enter_context(
            ctx.worker("cas", program=PROGRAM, urls=few[:1], branches=["main"])
        )
        worker.ask("open_and_commit", urls=few)
        before = [worker.ask("open_and_commit", urls=few)["seconds"] for _ in range(ctx.rounds)]
        many = MANY
        # Rows as `cas init` makes them and one commit leaves them, by the server itself.
        server.run(
            "INSERT INTO cas.store SELECT n + 1000, 'filled' || n, s.store_id, s.lineage_id,"
            " s.format, s.features, s.created_us, s.ancestry, s.bucket"
            f" FROM cas.store s, generate_series(1, {many}) n WHERE s.no = 1"
        )
        for table in ("head", "pack", "journal", "position"):
            columns = [
                name
                for (name,) in server.run(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = 'cas'"
                    f" AND table_name = '{table}' AND column_name <> 'store'"
                    " ORDER BY ordinal_position"
                )
            ]
            names = ", ".join(f"t.{name}" for name in columns)
            server.run(
                f"INSERT INTO cas.{table} SELECT n + 1000, {names}"
                f" FROM cas.{table} t, generate_series(1, {many}) n WHERE t.store = 1"
            )
        server.run("VACUUM ANALYZE")
        after = [worker.ask("open_and_commit", urls=few)["seconds"] for _ in range(ctx.rounds)]
        for name, found in ((f"{FEW}", before), (f"{many}", after)):
            medians = tuple(statistics.median(round) for round in found)
            ctx.run.add(f"hosted-stores/{name}/seconds", Series(medians, "s"))


def row_hosted_size(ctx: Context) -> None:
    """Bytes of the catalog for each million objects, the journal apart."""
    with _server(ctx) as server, ExitStack() as stack:
        if server is None or not ctx.has_api():
            return
        urls = _urls(ctx, server, "hosted-size", 1)
        worker = stack.enter_context(
            ctx.worker("cas", program=PROGRAM, urls=urls, branches=["main"])
        )
        count = OBJECTS // 20 if ctx.quick else OBJECTS
        worker.ask("put", count=count)
        server.run("VACUUM FULL")
        ((size,),) = server.run(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'cas' AND c.relkind = 'r'"
            " AND c.relname <> 'journal'"
        )
        ctx.run.one(f"hosted-size-{count}/cas/bytes", float(size), "bytes")


def row_journal_size(ctx: Context) -> None:
    """Bytes of the journal for each entry older than the newest 10,000, in both catalogs."""
    import cas

    newest, older = (NEWEST // 10, OLDER // 5) if ctx.quick else (NEWEST, OLDER)
    if not ctx.has_api():
        return

    def fill(name: str, url: str, weigh: Callable[[], float]) -> None:
        with ctx.worker("cas", program=PROGRAM, urls=[url], branches=BRANCHES) as worker:
            worker.ask("commit", count=newest)
            few = weigh()
            worker.ask("commit", count=older)
            worker.ask("maintain", newest=newest)
            ctx.run.one(f"journal-size-{newest}/{name}/bytes", (weigh() - few) / older, "bytes")

    folder = str(ctx.fresh("journal") / "agents.cas")
    cas.init(folder)
    fill("sqlite", folder, lambda: _sqlite_bytes(folder))
    with _server(ctx) as server:
        if server is not None:
            (url,) = _urls(ctx, server, "journal", 1)
            fill("postgres", url, lambda: _postgres_bytes(server))


def _sqlite_bytes(folder: str) -> float:
    """Pages of the journal and what stands for its older part."""
    import apsw

    connection = apsw.Connection(f"{folder}/catalog.sqlite", apsw.SQLITE_OPEN_READONLY)
    query = f"SELECT sum(pgsize) FROM dbstat WHERE name IN {JOURNAL_SQLITE!r}"
    ((size,),) = connection.execute(query).fetchall()
    connection.close()
    return float(size)


def _postgres_bytes(server: PostgresServer) -> float:
    total = 0.0
    for table in JOURNAL:
        server.run(f"VACUUM FULL cas.{table}")
        ((size,),) = server.run(f"SELECT pg_total_relation_size('cas.{table}')")
        total += float(size)
    return total
