"""One operation on a store in a process of its own: `python workers_gc.py OP STORE`.

`collect`: seconds of one `gc()`. `alone` and `beside`: p99 in seconds of durable commits of one
1 KB record, alone or while another process collects without a pause, from a full mark on and with
garbage to condemn each time. `mirror`: all of the journal into packs. Answers one line of JSON.
Invariant: what is timed is the call under test alone, and a run of gc was under way throughout.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import cas

COMMITS = 2_000
RECORD_BYTES = 1024


def collect(path: str) -> dict[str, float]:
    """Seconds of one collection."""
    with cas.open(path) as store:
        started = time.perf_counter()
        store.gc()
        return {"seconds": time.perf_counter() - started}


def mirror(path: str) -> dict[str, float]:
    """The entry that packs reach."""
    with cas.open(path) as store:
        return {"seq": store.mirror()}


def churn(path: str) -> None:
    """Collect until standard input ends, each time from a full mark, with something to take."""
    draw = random.Random(3)
    ages = os.path.join(path, "cache", "gc-ages.json")
    with cas.open(path) as store:
        while True:
            store.put_many([draw.randbytes(300) for _ in range(500)])
            if os.path.exists(ages):
                os.unlink(ages)
            store.gc(grace_us=0)
            print("ran", flush=True)


def commits(path: str) -> dict[str, float]:
    """p99 of commits."""
    draw = random.Random(5)
    seconds = []
    with cas.open(path) as store:
        for number in range(COMMITS):
            content = draw.randbytes(RECORD_BYTES)
            started = time.perf_counter()
            with store.begin(message="m") as tx:
                tx.branch("beside")[f"record-{number % 500:04d}"] = content
                tx.commit()
            seconds.append(time.perf_counter() - started)
    return {"p99": sorted(seconds)[int(len(seconds) * 0.99)]}


def beside(path: str) -> dict[str, float]:
    """`commits`, while another process collects."""
    command = [sys.executable, __file__, "churn", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            if not other.stdout.readline():
                raise AssertionError("the collecting process ended")
            found = commits(path)
            if other.poll() is not None:
                raise AssertionError("the collecting process ended before the commits did")
        finally:
            other.kill()
    return found


def main() -> None:
    """Do what the command line says."""
    op, path = sys.argv[1:3]
    if op == "churn":
        churn(path)
        return
    does = {"collect": collect, "mirror": mirror, "alone": commits, "beside": beside}
    print(json.dumps(does[op](path)))


if __name__ == "__main__":
    main()
