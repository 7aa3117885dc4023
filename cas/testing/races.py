"""Many processes at random transactions on one store, some of them killed, and what came of it.

Invariant: what is collected is what the store shows to a handle that was opened after all of them
had ended; nothing is taken from the memory of those who wrote.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

import cas
from cas.history.store import Store
from cas.model.ids import CommitId, TreeId
from cas.model.names import join_path
from cas.testing.attempts import Attempt, History, Made, Moved, read_log
from cas.trees import paths
from cas.trees.node import DIRECTORY

PROGRAM: Final = (sys.executable, "-m", "cas.testing.mixing")
PATIENCE_S: Final = 1_200
"""A process that lives longer waits for something that never comes."""
_STATES: Final = 40
"""Points at which the whole store is compared with the model."""


@attrs.frozen
class Race:
    """Who runs: processes, threads in each, transactions of a thread, how often one is killed."""

    processes: int = 3
    threads: int = 2
    count: int = 500
    kills: int = 4
    small: bool = False
    """Thresholds that a handful of commits crosses: spills and checkpoints all the time."""
    url: str = ""
    """Of a store on a server, with its bucket; else one is made in the folder of the race."""
    bucket: str = ""
    """Of that one, where its packs are to lie in an object store."""


def run(race: Race, place: str, seed: str, program: Sequence[str] = PROGRAM) -> History:
    """Run a race in an empty folder and collect its history."""
    folder, logs = race.url or os.path.join(place, "store.cas"), os.path.join(place, "logs")
    os.mkdir(logs)
    cas.init(folder, bucket=race.bucket or None)
    draw = random.Random(f"race {seed}")
    # What this process can import, its children can.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    gone: dict[str, int] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(number: int, life: int) -> None:
        order = {
            "folder": folder,
            "logs": logs,
            "who": f"p{number}.{life}",
            "before": f"p{number}.{life - 1}",
            "seed": seed,
            "threads": race.threads,
            "count": race.count,
            "small": race.small,
        }
        running[f"p{number}.{life}"] = subprocess.Popen(
            [*program, json.dumps(order)], env=environment
        )

    for number in range(race.processes):
        start(number, 0)
    try:
        for life in range(1, race.kills + 1):
            time.sleep(draw.uniform(0.4, 1.2))
            who = draw.choice(sorted(running))
            process = running.pop(who)
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            gone[who] = time.monotonic_ns()
            if code not in (0, -signal.SIGKILL):
                raise AssertionError(f"{who} ended with {code}")
            start(int(who[1:].partition(".")[0]), life)
        for who, process in running.items():
            code = process.wait(PATIENCE_S)
            gone[who] = time.monotonic_ns()
            if code:
                raise AssertionError(f"{who} ended with {code}")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    with cas.open(folder) as store:
        return collect(store, attempts(logs, gone))


def attempts(logs: str, gone: Mapping[str, int]) -> list[Attempt]:
    """All attempts of all logs; `gone` says when each process was known to be dead."""
    found: list[Attempt] = []
    for name in sorted(os.listdir(logs)):
        who = name.removesuffix(".log")
        found += read_log(os.path.join(logs, name), who, gone[who.rpartition(".")[0]])
    return found


def collect(store: Store, tried: Sequence[Attempt]) -> History:
    """What a store shows of a history, entry by entry."""
    entries = [
        Made(entry.seq, entry.txid, tuple(_moves(store, entry.changes)))
        for entry in store.journal()
    ]
    head = len(entries)
    chosen = {round(head * at / _STATES) for at in range(1, _STATES + 1)}
    states = {seq: _state(store, seq) for seq in chosen if seq}
    folders: dict[bytes, Mapping[str, bytes]] = {}
    for op in {op for one in tried for op in one.ops if op.does == "folder" and op.value}:
        if op.value not in folders and store.has(TreeId(op.value)):
            folders[op.value] = _files(store, op.value)
    return History(tried, entries, folders, states)


def _moves(store: Store, changes: Sequence[Any]) -> Iterator[Moved]:
    commits, nodes = store.core.commits, store.objects.tree_nodes(DIRECTORY)
    for change in changes:
        old = None if change.old is None else commits.get(change.old)
        new = None if change.new is None else commits.get(change.new)
        differ = paths.diff_paths(
            DIRECTORY.empty if old is None else old.tree,
            DIRECTORY.empty if new is None else new.tree,
            nodes,
        )
        files = {
            join_path(parts): None if after is None else bytes(after.id)
            for parts, _before, after in differ
        }
        yield Moved(
            change.ref,
            None if change.old is None else bytes(change.old),
            None if change.new is None else bytes(change.new),
            files,
            () if new is None else tuple(bytes(parent) for parent in new.parents),
        )


def _state(store: Store, seq: int) -> Mapping[str, Mapping[str, bytes]]:
    view = store.at(seq)
    return {ref.name: _files(store, store.commit(CommitId(ref.target)).tree) for ref in view.refs()}


def _files(store: Store, tree: bytes) -> dict[str, bytes]:
    nodes = store.objects.tree_nodes(DIRECTORY)
    return {join_path(parts): bytes(entry.id) for parts, entry in paths.walk(tree, nodes)}
