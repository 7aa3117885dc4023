"""One contender of a batch row, alone in its own process: memories put in thousands and got back.

`python workers_batch.py KIND` talks as `workers.py` does. Invariant: what is timed is the call
under test alone; contents, keys and the order of reads are made before the clock starts, and are
the same for every contender. A get that is said to be verified hashed what it gave, and compared.

Only the standard library is imported at the top: each kind runs under an interpreter that has that
kind's library and nothing else of the bench.
"""

from __future__ import annotations

import importlib
import os
import random
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the folder above holds the bench, and, as it
    # lies there, a package `cas` that may be newer than the one that is measured.
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.workers import Cas, serve

Request = dict[str, Any]


class Keeper:
    """Keeps memories: put in batches, durable each; got one by one or in batches."""

    def __init__(self, request: Request) -> None:
        self.path = Path(request["path"])
        self.contents: list[bytes] = []
        self.keys: list[Any] = []
        self.open()

    def open(self) -> None:
        """Open the store, or make it."""
        raise NotImplementedError

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        """Keep these, durable; the first of them is the memory of this number."""
        raise NotImplementedError

    def get(self, key: Any) -> bytes:
        """One of them."""
        raise NotImplementedError

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        """Several of them."""
        return [self.get(key) for key in keys]

    def finish(self) -> None:
        """What is left to do when all is put, up to a clean close."""
        raise NotImplementedError

    def key(self, content: bytes) -> Any:
        """What a content is asked for by."""
        from blake3 import blake3

        return blake3(content).digest()

    def do_load(self, request: Request) -> Request:
        """Read the first `count` memories of the corpus, and work out their keys."""
        with open(request["file"], "rb") as file:
            while len(self.contents) < request["count"]:
                (length,) = struct.unpack("<I", file.read(4))
                self.contents.append(file.read(length))
        self.keys = [self.key(content) for content in self.contents]
        return {}

    def do_put(self, request: Request) -> Request:
        """Seconds of one batch."""
        first = request["first"]
        contents = self.contents[first : first + request["count"]]
        started = time.perf_counter()
        self.put(first, contents)
        return {"seconds": time.perf_counter() - started}

    def do_finish(self, request: Request) -> Request:
        """Seconds of the clean close."""
        started = time.perf_counter()
        self.finish()
        return {"seconds": time.perf_counter() - started}

    def do_get(self, request: Request) -> Request:
        """Seconds of `count` random reads, one by one, and of as many in one batch."""
        rng = random.Random(request["seed"])
        numbers = [rng.randrange(len(self.keys)) for _ in range(request["count"])]
        keys = [self.keys[number] for number in numbers]
        wanted = [self.contents[number] for number in numbers]
        get = self.get
        started = time.perf_counter()
        found = [get(key) for key in keys]
        one = time.perf_counter() - started
        if found != wanted:
            raise AssertionError("get gave other bytes than were put")
        del found
        started = time.perf_counter()
        found = self.get_many(keys)
        many = time.perf_counter() - started
        if found != wanted:
            raise AssertionError("get_many gave other bytes than were put")
        return {"one": one, "many": many}

    def do_version(self, request: Request) -> Request:
        return {"version": ""}


class CasKeeper(Keeper):
    """The product: `put_many`, `get`, `get_many`; every read is verified."""

    def open(self) -> None:
        self.cas = importlib.import_module("cas")
        self.store = self.cas.open(self.path, create=not self.path.exists())

    def key(self, content: bytes) -> Any:
        return self.cas.BlobId(super().key(content))

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        self.store.put_many(contents)

    def get(self, key: Any) -> bytes:
        return self.store.get(key)  # type: ignore[no-any-return]

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        return list(self.store.get_many(keys))

    def finish(self) -> None:
        self.store.close()


class Lmdb(Keeper):
    """Raw LMDB: one synced write transaction a batch, keys are BLAKE3; nothing is verified."""

    def open(self) -> None:
        import lmdb  # type: ignore[import-not-found,unused-ignore]

        self.version = lmdb.__version__
        self.db = lmdb.open(str(self.path), map_size=16 << 30)

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        from blake3 import blake3

        with self.db.begin(write=True) as tx:
            for content in contents:
                tx.put(blake3(content).digest(), self.stored(content))

    def stored(self, content: bytes) -> bytes:
        """What a content is kept as."""
        return content

    def get(self, key: Any) -> bytes:
        with self.db.begin() as tx:
            return bytes(tx.get(key))

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        with self.db.begin() as tx:
            return [tx.get(key) for key in keys]

    def finish(self) -> None:
        self.db.close()

    def do_version(self, request: Request) -> Request:
        return {"version": self.version}


class LmdbVerified(Lmdb):
    """LMDB with values under zstd level 3, decoded and hashed at every read."""

    def open(self) -> None:
        super().open()
        import zstandard
        from blake3 import blake3

        self.hash = blake3
        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress

    def stored(self, content: bytes) -> bytes:
        return self.compress(content)

    def _checked(self, key: bytes, value: bytes) -> bytes:
        content = self.decompress(value)
        if self.hash(content).digest() != key:
            raise AssertionError("damaged")
        return content

    def get(self, key: Any) -> bytes:
        with self.db.begin() as tx:
            return self._checked(key, tx.get(key))

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        checked = self._checked
        with self.db.begin() as tx:
            return [checked(key, tx.get(key)) for key in keys]


class SqliteKeeper(Keeper):
    """Raw sqlite3: WAL, synchronous FULL, one transaction a batch, key = BLAKE3; not verified."""

    def open(self) -> None:
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS item (id BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID"
        )

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        from blake3 import blake3

        rows = [(blake3(content).digest(), content) for content in contents]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT OR IGNORE INTO item VALUES (?, ?)", rows)
        self.db.execute("COMMIT")

    def get(self, key: Any) -> bytes:
        row = self.db.execute("SELECT body FROM item WHERE id = ?", (key,)).fetchone()
        return row[0]  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.db.close()

    def do_version(self, request: Request) -> Request:
        return {"version": sqlite3.sqlite_version}


class Rocks(Keeper):
    """rocksdict with zstd: one write batch, synced, for each thousand; checksums of its own."""

    def open(self) -> None:
        import rocksdict  # type: ignore[import-not-found,unused-ignore]

        self.rocks = rocksdict
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(rocksdict.DBCompressionType.zstd())
        self.db = rocksdict.Rdict(str(self.path), options)
        self.synced = rocksdict.WriteOptions()
        self.synced.sync = True

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        from blake3 import blake3

        batch = self.rocks.WriteBatch(raw_mode=True)
        for content in contents:
            batch.put(blake3(content).digest(), content)
        self.db.write(batch, self.synced)

    def get(self, key: Any) -> bytes:
        return self.db[key]  # type: ignore[no-any-return]

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        return self.db[list(keys)]  # type: ignore[no-any-return]

    def finish(self) -> None:
        self.db.flush()
        self.db.close()


class LangGraph(Keeper):
    """LangGraph's SqliteStore: `batch` of a thousand PutOps; values are JSON, names are keys."""

    def open(self) -> None:
        from langgraph.store.base import (  # type: ignore[import-not-found,unused-ignore]
            GetOp,
            PutOp,
        )
        from langgraph.store.sqlite import (  # type: ignore[import-not-found,unused-ignore]
            SqliteStore,
        )

        self.get_op, self.put_op = GetOp, PutOp
        self.context = SqliteStore.from_conn_string(str(self.path))
        self.store = self.context.__enter__()
        self.store.setup()

    def key(self, content: bytes) -> Any:
        return super().key(content).hex()

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        keys = self.keys[first : first + len(contents)]
        self.store.batch(
            [
                self.put_op(("memories",), key, {"text": content.decode()}, index=False)
                for key, content in zip(keys, contents, strict=True)
            ]
        )

    def get(self, key: Any) -> bytes:
        return self.store.get(("memories",), key).value["text"].encode()  # type: ignore[no-any-return]

    def get_many(self, keys: Sequence[Any]) -> list[bytes]:
        found = self.store.batch([self.get_op(("memories",), key) for key in keys])
        return [item.value["text"].encode() for item in found]

    def finish(self) -> None:
        self.context.__exit__(None, None, None)


class FastImport(Keeper):
    """`git fast-import` fed with blobs; a thousand are put when it has answered `progress`.

    It syncs nothing before its end. Read with pygit2, from the one pack it leaves.
    """

    process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        self.git: Any = None
        if not self.path.exists():
            subprocess.run(["git", "init", "-q", "--bare", str(self.path)], check=True)

    def key(self, content: bytes) -> Any:
        import hashlib

        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def put(self, first: int, contents: Sequence[bytes]) -> None:
        if self.process is None:
            command = ["git", "-C", str(self.path), "fast-import", "--quiet", "--done"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            b"".join([b"blob\ndata %d\n%s\n" % (len(content), content) for content in contents])
            + b"progress %d\n" % first
        )
        self.process.stdin.flush()
        self.process.stdout.readline()

    def get(self, key: Any) -> bytes:
        if self.git is None:
            pygit2 = importlib.import_module("pygit2")
            self.git = pygit2.Repository(str(self.path))
        return self.git[key].data  # type: ignore[no-any-return]

    def finish(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(b"done\n")
            self.process.stdin.close()
            if self.process.wait():
                raise RuntimeError("git fast-import failed")
            self.process = None


class Scale(Cas):
    """The product filled with many small objects: what a batch and a look-up then cost."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.count = 0

    def content(self, number: int) -> bytes:
        """About 120 bytes that nothing else has."""
        word = random.Random(number).getrandbits(256)
        return b"memory %d says %064x and no more than that: " % (number, word) + b"." * 20

    def do_grow(self, request: Request) -> Request:
        """Put objects up to `count`; answers the seconds of the puts alone."""
        seconds = 0.0
        while self.count < request["count"]:
            until = min(request["count"], self.count + 1_000)
            contents = [self.content(number) for number in range(self.count, until)]
            started = time.perf_counter()
            self.store.put_many(contents)
            seconds += time.perf_counter() - started
            self.count = until
        return {"seconds": seconds}

    def do_find(self, request: Request) -> Request:
        """Seconds of `count` look-ups of objects that are there, and of ones that are not."""
        from blake3 import blake3

        rng = random.Random(request["seed"])
        ids = [
            self.cas.BlobId(blake3(self.content(rng.randrange(self.count))).digest())
            for _ in range(request["count"])
        ]
        has = self.store.has
        started = time.perf_counter()
        found = sum(map(has, ids))
        seconds = time.perf_counter() - started
        if found != len(ids):
            raise AssertionError(f"{len(ids) - found} objects that were put are not there")
        return {"seconds": seconds}

    def do_memory(self, request: Request) -> Request:
        """RssAnon of this process, bytes."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return {"bytes": int(line.split()[1]) * 1024}
        raise RuntimeError("the kernel does not say RssAnon")


class Threads(Cas):
    """The product, committed to by several threads of one process, on a branch each."""

    def __init__(self, request: Request) -> None:
        if request.get("slow_sync_ms"):
            slow_syncs(request["slow_sync_ms"] / 1_000)
        self.blocks = 0
        super().__init__(request)

    def do_threads(self, request: Request) -> Request:
        """Commits that `threads` threads made in `seconds`, and how long that really took."""
        counts = [0] * request["threads"]
        # Other contents in each block: what is there already makes no commit, and no sync.
        self.blocks += 1
        start = threading.Barrier(request["threads"] + 1)
        stop = time.monotonic() + request["seconds"] + 0.1

        def commit(which: int) -> None:
            rng = random.Random(f"{self.blocks} {which}")
            start.wait()
            while time.monotonic() < stop:
                with self.store.begin(author="bench", message="m") as tx:
                    tx.branch(f"thread/{which}")[f"item-{counts[which] % 500}"] = rng.randbytes(
                        1_024
                    )
                    tx.commit()
                counts[which] += 1

        threads = [threading.Thread(target=commit, args=(n,)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        start.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        return {"commits": sum(counts), "seconds": time.perf_counter() - started}


def slow_syncs(seconds: float) -> None:
    """Make every sync of this process take so much longer, as a slower disk would.

    Called before the product is loaded. A VFS of SQLite of its own sleeps before it hands the sync
    on, and so do `os.fsync` and `os.fdatasync`; other threads run meanwhile. What was not slowed
    would show: the row compares with the same work on syncs as they are.
    """
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _slowed(getattr(os, name), seconds))
    import apsw

    base = apsw.vfs_names()[0]  # the default one, by its name: from now on "" would be this one

    class File(apsw.VFSFile):
        def __init__(self, name: Any, flags: Any) -> None:
            super().__init__(base, name, flags)

        def xSync(self, flags: int) -> None:
            time.sleep(seconds)
            super().xSync(flags)

    class Slow(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("bench-slow", base, makedefault=True)

        def xOpen(self, name: Any, flags: Any) -> Any:
            return File(name, flags)

    KEPT.append(Slow())


def _slowed(sync: Callable[[int], None], seconds: float) -> Callable[[int], None]:
    def slow(handle: int) -> None:
        time.sleep(seconds)
        sync(handle)

    return slow


KEPT: list[Any] = []
"""A VFS must outlive what is opened through it."""

KINDS: dict[str, Callable[[Request], Any]] = {
    "cas": CasKeeper,
    "lmdb": Lmdb,
    "lmdb-verified": LmdbVerified,
    "sqlite3": SqliteKeeper,
    "rocksdict": Rocks,
    "langgraph": LangGraph,
    "git": FastImport,
    "scale": Scale,
    "threads": Threads,
}


if __name__ == "__main__":
    serve(KINDS[sys.argv[1]])
