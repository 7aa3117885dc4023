"""One contender of an in-process row, alone in its own process: sqlite, pygit2 or cas.

`python workers.py KIND` reads one JSON request a line from standard input and answers each with
one JSON line. The bench sends requests to product and peer in turn, so both are warm and neither
sees the other's memory. Invariant: what is timed is the call under test alone; contents and paths
are made before the clock starts, and seeded, so that every contender writes the same.

Only the standard library is imported at the top: each kind runs under an interpreter that has that
kind's library and nothing else of the bench.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

RECORD_BYTES = 1024
BRANCH = "main"


class Writer:
    """Durable commits of one 1 KB record each, half new names and half updates."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.path = Path(request["path"])
        self.branch: str = request.get("branch", BRANCH)
        self.rng = random.Random(request.get("seed", 1))
        self.entries = 0
        self.prepared: list[tuple[str, bytes]] = []

    def commit(self, name: str, content: bytes) -> None:
        """One durable commit; subclasses say what that is."""
        raise NotImplementedError

    def close(self) -> None:
        """A clean close."""

    def work(self, count: int) -> list[tuple[str, bytes]]:
        """`count` names and contents: by turns a new name and one of the first entries."""
        found = []
        for turn in range(count):
            known = self.rng.randrange(max(1, self.entries))
            name = entry_name(known)
            if turn % 2:
                name += f"-{self.rng.getrandbits(40):010x}"
            found.append((name, self.rng.randbytes(RECORD_BYTES)))
        return found

    def do_commits(self, request: dict[str, Any]) -> dict[str, Any]:
        """Commit `count` times; answers the seconds of each."""
        return {"seconds": [self._timed(*item) for item in self.work(request["count"])]}

    def do_prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make names and contents for a race of at most `count` commits."""
        self.prepared = self.work(request["count"])
        return {}

    def do_race(self, request: dict[str, Any]) -> dict[str, Any]:
        """Commit from `start` to `stop` (monotonic seconds, the same for all processes)."""
        ahead = request["start"] - time.monotonic()
        time.sleep(max(0.0, ahead))
        seconds = []
        for item in self.prepared:
            if time.monotonic() >= request["stop"]:
                break
            seconds.append(self._timed(*item))
        enough = len(seconds) < len(self.prepared)
        return {"seconds": seconds, "valid": enough and ahead >= 0}

    def do_mark(self, request: dict[str, Any]) -> dict[str, Any]:
        """Leave a write in the trace of system calls that no store makes: one byte to a file."""
        handle = os.open(request["file"], os.O_WRONLY | os.O_CREAT)
        os.pwrite(handle, b"m", 0)
        os.close(handle)
        return {}

    def do_close(self, request: dict[str, Any]) -> dict[str, Any]:
        self.close()
        return {}

    def _timed(self, name: str, content: bytes) -> float:
        started = time.perf_counter()
        self.commit(name, content)
        return time.perf_counter() - started


def entry_name(number: int) -> str:
    """The name of entry `number` of the folders that the bench fills."""
    return f"item-{number:07d}"


def entry_content(number: int) -> bytes:
    """Small distinct content, so that a folder of n entries is a store of n blobs."""
    return b"content of item %d\n" % number


class Sqlite(Writer):
    """The one-row peer: stdlib sqlite3, WAL, synchronous FULL, one row of 1 KB a transaction."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self.db = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, body BLOB)")

    def commit(self, name: str, content: bytes) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO item (body) VALUES (?)", (content,))
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()

    def do_version(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"version": sqlite3.sqlite_version}


class Pygit2(Writer):
    """blob + tree + commit in a folder of `entries` names, with fsync of every file written."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        import pygit2  # type: ignore[import-not-found,unused-ignore]

        self.git = pygit2
        pygit2.settings.enable_fsync_gitdir(True)
        self.store = pygit2.init_repository(str(self.path), bare=True)
        self.signature = pygit2.Signature("bench", "bench@example.invalid")
        self.head: Any = None
        self.tree: Any = None

    def do_fill(self, request: dict[str, Any]) -> dict[str, Any]:
        self.entries = request["entries"]
        builder = self.store.TreeBuilder()
        blob = self.store.create_blob(b"first content\n")
        for number in range(self.entries):
            builder.insert(entry_name(number), blob, self.git.enums.FileMode.BLOB)
        self.tree = builder.write()
        self._move()
        return {}

    def commit(self, name: str, content: bytes) -> None:
        builder = self.store.TreeBuilder(self.store[self.tree])
        blob = self.store.create_blob(content)
        builder.insert(name, blob, self.git.enums.FileMode.BLOB)
        self.tree = builder.write()
        self._move()

    def _move(self) -> None:
        parents = [self.head] if self.head else []
        self.head = self.store.create_commit(
            f"refs/heads/{self.branch}", self.signature, self.signature, "m", self.tree, parents
        )

    def do_version(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"version": self.git.__version__}


class Cas(Writer):
    """The product through its public Python API, all defaults as they come."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        self.cas: Any = importlib.import_module("cas")
        opener = self.cas.open  # names load on first use: the import is another row's
        started = time.perf_counter()
        self.store = opener(self.path, create=request.get("create", True))
        self.open_seconds = time.perf_counter() - started
        self.entries = request.get("entries", 0)

    def commit(self, name: str, content: bytes) -> None:
        with self.store.begin(author="bench", message="m") as tx:
            tx.branch(self.branch)[name] = content
            tx.commit()

    def close(self) -> None:
        self.store.close()

    def do_fill(self, request: dict[str, Any]) -> dict[str, Any]:
        """A folder of `entries` names, staged in one transaction."""
        self.entries = request["entries"]
        with self.store.begin(author="bench", message="fill") as tx:
            branch = tx.branch(self.branch)
            for number in range(self.entries):
                branch[entry_name(number)] = entry_content(number)
            tx.commit()
        return {}

    def do_snapshot(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds of one import of a folder as the next commit, in this warm interpreter."""
        import_folder = importlib.import_module("cas.worktree.importer").import_folder
        started = time.perf_counter()
        report = import_folder(self.store, request["folder"], branch=self.branch, message="m")
        seconds = time.perf_counter() - started
        if report.problems:
            raise AssertionError(f"not all was saved: {report.problems}")
        return {"seconds": seconds}

    def do_opened(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds that `cas.open` took, and then one look-up of a known path with its bytes."""
        started = time.perf_counter()
        if self.store.snapshot(self.branch)[entry_name(self.entries // 2)] != entry_content(
            self.entries // 2
        ):
            raise AssertionError("the store gave other bytes than were put")
        return {"seconds": self.open_seconds, "first_read": time.perf_counter() - started}

    def do_edit(self, request: dict[str, Any]) -> dict[str, Any]:
        """One commit with `changes` edits: updates, new names and deletes in turn."""
        names = self.rng.sample(range(self.entries), request["changes"])
        with self.store.begin(author="bench", message="edit") as tx:
            branch = tx.branch(self.branch)
            for turn, number in enumerate(names):
                if turn % 3 == 2:
                    del branch[entry_name(number)]
                else:
                    name = entry_name(number) + ("-new" if turn % 3 else "")
                    branch[name] = self.rng.randbytes(RECORD_BYTES)
            tx.commit()
        return {}

    def do_diff(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds of each of `count` diffs of the last commit; the first one meets cold nodes."""
        seconds = []
        for _ in range(request["count"]):
            started = time.perf_counter()
            changes = list(self.store.diff(f"{self.branch}~1", self.branch))
            seconds.append(time.perf_counter() - started)
            if len(changes) != request["changes"]:
                raise AssertionError(f"{len(changes)} changes, {request['changes']} were made")
        return {"seconds": seconds}

    def do_written(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the newest inline pack and journal row hold: nodes, objects, bytes.

        Read through a connection of its own, after the commit: no part of what is timed. The
        kinds stand in the footer's slots (docs/format.md section 6.3); 2 is a tree node.
        """
        import apsw

        db = apsw.Connection(str(self.path / "catalog.sqlite"), flags=apsw.SQLITE_OPEN_READONLY)
        newest = "SELECT body, footer FROM pack ORDER BY number DESC LIMIT 1"
        body, footer = next(iter(db.execute(newest)))
        ((entry,),) = db.execute("SELECT entry FROM journal ORDER BY seq DESC LIMIT 1")
        db.close()
        (count,) = struct.unpack_from("<I", footer, 8)
        kinds = [footer[24 + 56 * slot + 48] for slot in range(count)]
        return {
            "nodes": kinds.count(2),
            "objects": len(kinds),
            "bytes": len(body) + len(footer) + len(entry),
        }

    def do_version(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"version": self.cas.__version__}


KINDS: dict[str, type[Writer]] = {"sqlite": Sqlite, "pygit2": Pygit2, "cas": Cas}


def stream(count_bytes: int, seed: int) -> Iterator[bytes]:
    """Blocks of 1 MiB that never repeat: by turns random bytes and text that packs to about half.

    The text is random bytes spelt in hex digits, four bits a character.
    """
    rng = random.Random(seed)
    block = 1 << 20
    for number in range(count_bytes // block):
        yield rng.randbytes(block // 2).hex().encode() if number % 2 else rng.randbytes(block)


def pour(blocks: Iterable[bytes], receipt: Path) -> None:
    """Write blocks to standard output, and their BLAKE3 and length to `receipt` at the end."""
    import blake3

    digest, length = blake3.blake3(), 0
    for block in blocks:
        digest.update(block)
        length += len(block)
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    receipt.write_text(json.dumps({"blake3": digest.hexdigest(), "bytes": length}))


def serve(kind: Callable[[dict[str, Any]], Any]) -> None:
    """Answer requests until standard input ends. The first must be `open`."""
    answers, sys.stdout = sys.stdout, sys.stderr
    worker: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "open":
                worker, answer = kind(request), {}
            else:
                call: Callable[[dict[str, Any]], dict[str, Any]]
                call = getattr(worker, "do_" + request["op"])
                answer = call(request)
        except Exception as error:  # the bench decides what a failure means, and has the text
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1] == "stream":
        pour(stream(int(sys.argv[2]), seed=7), Path(sys.argv[3]))
    else:
        serve(KINDS[sys.argv[1]])
