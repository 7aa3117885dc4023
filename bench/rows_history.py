"""Rows on history: merging large trees, undo, and the log of a path against git.

The product is a worker process of its own (workers_history.py); git is the command, which has no
call. Both read the same history: a tree of corpus A and commits of one file each.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.context import Context
from bench.harness import Series

PROGRAM = Path(__file__).resolve().parent / "workers_history.py"
CHANGES = 100
ENTRIES = 10_000
UNDONE = 200


def row_merge(ctx: Context) -> None:
    """Merge of two branches with 100 changes each in 1,000,000 entries, first and warm."""
    if not ctx.has_api():
        return
    entries, path = ctx.entries_large, str(ctx.million())
    first: list[float] = []
    warm: list[float] = []
    for seed in range(max(3, ctx.rounds)):
        pairs = [[f"merge/{seed}-{turn}-a", f"merge/{seed}-{turn}-b"] for turn in range(3)]
        with ctx.worker(
            "cas", program=PROGRAM, path=path, entries=entries, seed=200 + seed
        ) as worker:
            for branches in pairs:
                worker.ask("fork", branches=branches, changes=CHANGES)
            worker.ask("close")
        with ctx.worker("cas", program=PROGRAM, path=path, entries=entries) as worker:
            for turn, branches in enumerate(pairs):
                found = worker.ask("merge", branches=branches, changes=CHANGES)["seconds"]
                (warm if turn else first).append(found)
    ctx.run.add(f"merge-{entries}/cas/first", Series(tuple(first), "s"))
    ctx.run.add(f"merge-{entries}/cas/seconds", Series(tuple(warm), "s"))


def row_undo(ctx: Context) -> None:
    """Undo of entries drawn from 10,000, each a durable entry of its own."""
    if not ctx.has_api():
        return
    count = ENTRIES // 10 if ctx.quick else ENTRIES
    path = str(ctx.fresh("undo") / "agents.cas")
    ctx.probe_flush("undo")
    with ctx.worker("cas", path=path, program=PROGRAM) as worker:
        worker.ask("entries", count=count)
        seconds = sorted(worker.ask("undo", entries=count, count=UNDONE)["seconds"])
    ctx.run.add(f"undo-{count}/cas/seconds", Series(tuple(seconds), "s"))
    ctx.run.one(f"undo-{count}/cas/longest", seconds[-1], "s")


def row_log_path(ctx: Context) -> None:
    """The log of one path over 10,000 commits of corpus A's tree, against `git log -- path`."""
    if not ctx.has_api() or not ctx.has_import_call():
        return
    count = ENTRIES // 10 if ctx.quick else ENTRIES
    folder = ctx.fresh("log-path")
    git = folder / "peer.git"
    git.mkdir()
    home = str(folder / "agents.cas")
    with ctx.worker("cas", program=PROGRAM, path=home) as worker:
        path = worker.ask("history", folder=str(ctx.source()), count=count, git=str(git))["path"]
        worker.ask("close")
    first, warm, peer = [], [], []
    for turn in range(ctx.rounds + 1):
        started = time.perf_counter()
        command = ["git", "-C", str(git), "log", "--format=%H", "main", "--", path]
        told = subprocess.run(command, capture_output=True, check=True).stdout
        seconds = time.perf_counter() - started
        with ctx.worker("cas", program=PROGRAM, path=home) as worker:
            answer = worker.ask("log", path=path, count=3)
        if answer["found"] != len(told.split()):
            raise AssertionError(f"{answer['found']} commits, git has {len(told.split())}")
        if turn:
            peer.append(seconds)
            first.append(answer["seconds"][0])
            warm += answer["seconds"][1:]
    note = f"{answer['found']} of {count + 1} commits changed the path"
    ctx.run.add(f"log-path-{count}/git/seconds", Series(tuple(peer), "s"), note)
    ctx.run.add(f"log-path-{count}/cas/seconds", Series(tuple(warm), "s"))
    ctx.run.add(f"log-path-{count}/cas/first", Series(tuple(first), "s"), "of a fresh process")
