"""Rows on packs in an object store: a first snapshot of corpus A, and cold reads of small objects.

The server is a real one, SeaweedFS, on the loopback interface of the same machine: it shares the
cores with what is measured. `first`: a snapshot into a store whose packs lie there, its catalog in
the folder or (`cas-postgres`) on a PostgreSQL server, beside one into a folder and beside restic on
the same server; whole commands. Requests are counted by a proxy between client and server in a run
of its own. `cold`: a thousand of 100,000 small objects, drawn by seed, read with one call by a
process that begins with an empty cache; beside it one range request each, of the same ranges, one
after the other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import harness
from bench.context import Context
from bench.harness import Contender, Step
from bench.peers import Restic, output_of
from tests.servers.proxy import FaultProxy, faulty
from tools.postgres_server import NoServer, PostgresServer, serving
from tools.services import S3Server, Unavailable, seaweed

OBJECTS = 100_000
OBJECTS_QUICK = 10_000
READS = 1_000

_FILL = """
import json, random, sys, cas
draw = random.Random(11)
with cas.open(sys.argv[1]) as store:
    ids = []
    for _ in range(int(sys.argv[2]) // 10_000):
        batch = [draw.randbytes(draw.randrange(100, 600)) for _ in range(10_000)]
        ids += store.put_many(batch)
json.dump([str(id) for id in draw.sample(ids, int(sys.argv[3]))], open(sys.argv[4], "w"))
"""

_COLD = """
import json, sys, time, cas
ids = [cas.BlobId.parse(text) for text in json.load(open(sys.argv[2]))]
with cas.open(sys.argv[1], read_only=True) as store:
    store.has(ids[0])
    started = time.perf_counter()
    assert sum(1 for _ in store.get_many(ids)) == len(ids)
    print(time.perf_counter() - started)
"""

_SINGLE = """
import json, sys, time, cas, obstore
from cas.storage.connect import connect
from cas.storage.address import parse_address
from cas.storage.place import address_in
from cas.clock import SystemClock
ids = [cas.BlobId.parse(text) for text in json.load(open(sys.argv[2]))]
with cas.open(sys.argv[1], read_only=True) as store:
    copies = [store.objects.find(bytes(id)) for id in ids]
parts = [(c.pack.file, c.slot.payload_offset, c.slot.stored_bytes) for c in copies]
bucket = connect(parse_address(address_in(sys.argv[1])), SystemClock())
started = time.perf_counter()
for part in parts:
    bucket.read(*part)
print(time.perf_counter() - started)
"""


def row_bucket(ctx: Context) -> None:
    """Corpus A into a bucket, and cold reads of small objects."""
    try:
        with seaweed(ctx.fresh("seaweed")) as server:
            with _catalogs(ctx) as postgres:
                _first(ctx, server, postgres)
            _cold(ctx, server)
    except Unavailable as error:
        ctx.skip("bucket", str(error))


def _url(server: S3Server, name: str, endpoint: str | None = None) -> str:
    return f"s3://{server.bucket}/{name}?endpoint={endpoint or server.endpoint}"


def _environment(ctx: Context, server: S3Server) -> dict[str, str]:
    return {**ctx.product.environment, **server.environment()}


def _made(ctx: Context, server: S3Server, name: str, endpoint: str | None = None) -> Path:
    """A home with an empty store whose packs lie in the bucket."""
    home = ctx.fresh(name)
    words = ("init", str(ctx.product.store(home)), "--bucket", _url(server, home.name, endpoint))
    output_of(ctx.product.command(*words), home, _environment(ctx, server))
    return home


@contextmanager
def _catalogs(ctx: Context) -> Iterator[PostgresServer | None]:
    """A server for catalogs; None, and said so, where there is none."""
    try:
        with serving() as server:
            yield server
    except NoServer as error:
        ctx.skip("cas-postgres", str(error))
        yield None


def _on_postgres(
    ctx: Context, server: S3Server, postgres: PostgresServer, endpoint: str | None = None
) -> Step:
    """A snapshot into a new store with packs in the bucket and its catalog on a server."""
    home = ctx.fresh("postgres")
    environment = {**_environment(ctx, server), "CAS_CACHE": str(home / "cache")}
    url = postgres.url(store=home.name)
    made = ctx.product.command("init", url, "--bucket", _url(server, home.name, endpoint))
    output_of(made, home, environment)
    words = ("snapshot", ".", "-m", "first", "--store", url)
    return Step((ctx.product.command(*words),), ctx.source(), environment)


def _first(ctx: Context, server: S3Server, postgres: PostgresServer | None) -> None:
    environment = _environment(ctx, server)

    def bucket(turn: int) -> Step:
        step = ctx.product.save(_made(ctx, server, "bucket"), ctx.source(), "first")
        return Step(step.commands, step.cwd, environment)

    def folder(turn: int) -> Step:
        home = ctx.fresh("folder")
        ctx.product.make(home)
        return ctx.product.save(home, ctx.source(), "first")

    def restic(turn: int) -> Step:
        home = ctx.fresh("restic-s3")
        place = f"s3:{server.endpoint}/{server.bucket}/{home.name}"
        command = ("restic", "--quiet", "--repo", place)
        env = {
            **server.environment(),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(home / "cache"),
        }
        output_of([*command, "init"], home, env)
        return Step(((*command, "backup", "--host", "bench", "."),), ctx.source(), env)

    contenders = [Contender("cas", bucket), Contender("cas-folder", folder)]
    if postgres is not None:
        contenders.append(
            Contender("cas-postgres", lambda turn: _on_postgres(ctx, server, postgres))
        )
    reason = Restic().missing_because()
    if reason is None:
        contenders.append(Contender("restic", restic))
    else:
        ctx.skip("restic", reason)
    for name, series in harness.interleave(contenders, ctx.rounds).items():
        ctx.run.add(f"bucket-first/{name}/seconds", series)
    with faulty(server.endpoint) as proxy:
        home = _made(ctx, server, "counted", proxy.endpoint)
        step = ctx.product.save(home, ctx.source(), "first")
        _count(ctx, "cas", proxy, Step(step.commands, step.cwd, environment))
        if postgres is not None:
            _count(ctx, "cas-postgres", proxy, _on_postgres(ctx, server, postgres, proxy.endpoint))


def _count(ctx: Context, name: str, proxy: FaultProxy, step: Step) -> None:
    """Requests of one snapshot, for each pack that it made."""
    proxy.reset()
    harness.run(step)
    puts = sum(method == "PUT" for method, _path in proxy.seen)
    ctx.run.one(f"bucket-first/{name}/requests", len(proxy.seen), "")
    ctx.run.one(f"bucket-first/{name}/packs", puts, "")


def _cold(ctx: Context, server: S3Server) -> None:
    count = OBJECTS_QUICK if ctx.quick else OBJECTS
    environment = _environment(ctx, server)
    home = _made(ctx, server, "cold")
    store, ids = str(ctx.product.store(home)), str(home / "ids.json")
    python = ctx.product.command()[0]
    fill = (python, "-c", _FILL, store, str(count), str(READS), ids)
    harness.run(Step((fill,), home, environment))
    assert len(json.loads(Path(ids).read_text())) == READS

    def call(code: str) -> Callable[[int], Callable[[], float]]:
        def prepare(turn: int) -> Callable[[], float]:
            shutil.rmtree(os.path.join(store, "cache", "ranges"), ignore_errors=True)
            answer = ctx.fresh("answer") / "seconds"

            def measured() -> float:
                harness.run(
                    Step(((python, "-c", code, store, ids),), home, environment, output=answer)
                )
                return float(answer.read_text())

            return measured

        return prepare

    contenders = [Contender("cas", call(_COLD)), Contender("single", call(_SINGLE))]
    for name, series in harness.interleave(contenders, ctx.rounds).items():
        ctx.run.add(f"bucket-cold-{count}/{name}/seconds", series)
