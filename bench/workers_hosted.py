"""Stores on PostgreSQL and plain clients of the same server, alone in a process.

`python workers_hosted.py cas|row` talks as `workers.py` does. Invariant: both do the same number
of durable transactions on one server; every store is committed to with the package's public calls.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.workers import serve

Request = dict[str, Any]


def _together(threads: int, work: Callable[[int], None]) -> None:
    """Do work on so many threads at once; raises the first error of any."""
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, number) for number in range(threads)]:
            done.result()


class Hosted:
    """Threads that commit to stores on a server, a handle a store."""

    def __init__(self, request: Request) -> None:
        import cas

        self.rng = random.Random(os.getpid())
        self.branches = request["branches"]
        self.stores = [cas.open(url) for url in request["urls"]]
        for number, branch in enumerate(self.branches):
            self._commit(number, branch)

    def _commit(self, number: int, branch: str) -> None:
        store = self.stores[number % len(self.stores)]
        with store.begin(author="bench", message="m") as tx:
            tx.branch(branch)["f"] = self.rng.randbytes(1024)
            tx.commit()

    def do_race(self, request: Request) -> dict[str, Any]:
        """Transactions of each thread between two moments, and the CPU that they took."""
        return race(len(self.branches), request, lambda n: self._commit(n, self.branches[n]))

    def do_open_and_commit(self, request: Request) -> dict[str, Any]:
        """Seconds of opening each store, committing to it and closing it."""
        import cas

        took = []
        for url in request["urls"]:
            started = time.perf_counter()
            with cas.open(url) as store, store.begin(author="bench", message="m") as tx:
                tx.branch("main")["f"] = self.rng.randbytes(100)
                tx.commit()
            took.append(time.perf_counter() - started)
        return {"seconds": took}

    def do_commit(self, request: Request) -> dict[str, Any]:
        """So many commits, shared by the threads."""
        threads = len(self.branches)

        def work(number: int) -> None:
            for _ in range(request["count"] // threads):
                self._commit(number, self.branches[number])

        _together(threads, work)
        return {}

    def do_maintain(self, request: Request) -> dict[str, Any]:
        """What the package does to a store of its own accord, all of it. In a quick run fewer
        entries are young.
        """
        objects = self.stores[0].objects
        objects.thresholds = objects.thresholds._replace(journal_rows=request["newest"])
        self.stores[0].maintain(budget_ms=600_000)
        return {}

    def do_put(self, request: Request) -> dict[str, Any]:
        """Objects of about 120 bytes, a thousand a batch."""
        store = self.stores[0]
        for _ in range(request["count"] // 1000):
            store.put_many([self.rng.randbytes(120) for _ in range(1000)])
        while store.spill():
            pass
        return {}


class Row:
    """Clients with a statement that commits by itself."""

    def __init__(self, request: Request) -> None:
        import psycopg

        self.statement = request["statement"]
        self.connections: list[Any] = [
            psycopg.connect(request["url"], autocommit=True) for _ in range(request["clients"])
        ]
        self.number = request.get("first", 0)
        self.lock = threading.Lock()
        for client in range(request["clients"]):
            self._run(client)

    def _run(self, client: int) -> None:
        with self.lock:
            self.number += 1
            number = self.number
        values = {"n": number, "b": os.urandom(1024)}
        self.connections[client].execute(self.statement, values, prepare=True)

    def do_race(self, request: Request) -> dict[str, Any]:
        """As that of `Hosted`."""
        return race(len(self.connections), request, self._run)


def race(threads: int, request: Request, step: Any) -> dict[str, Any]:
    """Steps of each thread between two moments of the monotonic clock."""
    counts = [0] * threads

    def work(number: int) -> None:
        time.sleep(max(0, request["start"] - time.monotonic()))
        while time.monotonic() < request["stop"]:
            step(number)
            counts[number] += 1

    began = time.process_time()
    _together(threads, work)
    return {"counts": counts, "cpu": time.process_time() - began}


if __name__ == "__main__":
    serve({"cas": Hosted, "row": Row}[sys.argv[1]])
