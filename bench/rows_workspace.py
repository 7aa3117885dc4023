"""Rows of the workspace: a working folder, units of work, one among many, events, rebuilds.

The product is a worker process of its own (workers_workspace.py), as are its peers, asked in turn;
git is the command, which has no call.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import harness, trace
from bench.context import Context, Worker, note_races, run_race
from bench.harness import Contender, Series, Step

PROGRAM = Path(__file__).resolve().parent / "workers_workspace.py"
FILES = 10_000
UNITS = 1_000
BLOCK = 50
TRACED_UNITS = 5_000
RACERS = 4
FOLLOWED = 200
PAUSE_SECONDS = (0.01, 0.3)
MEMORIES = 1_000_000
A_TIME = 10_000
GETS = 5_000
EVENTS = 10_000


def row_folder_status(ctx: Context) -> None:
    """Status of a checked-out folder of 10,000 files against `git status`; clean, ten changed."""
    if not ctx.has_api():
        return
    count = FILES // 10 if ctx.quick else FILES
    home = ctx.fresh("folder-status")
    folder, store = home / "work", home / "agents.cas"
    with ctx.worker("cas", program=PROGRAM, path=str(store)) as worker:
        worker.ask("folder", folder=str(folder), count=count)
        git = home / "git"
        shutil.copytree(folder, git)
        (git / ".cas-checkout").unlink()
        commit = (*_AS, "commit", "-q", "-m", "m")
        for done in (("init", "-q"), ("add", "-A"), commit, ("status",)):
            subprocess.run(["git", *done], cwd=git, check=True, stdout=subprocess.DEVNULL)
        words = ("workspace", "status", str(folder), "-q", "--store", str(store))
        command = Step((ctx.product.command(*words),), home, ctx.product.environment)
        for name, changed in (("clean", 0), ("ten", 10)):
            for place in (folder, git):
                for number in range(changed):
                    (place / f"d{number:05}" / "f07.txt").write_bytes(b"changed %d\n" % number)
            time.sleep(0.05)
            contenders = [
                Contender("cas", _status(worker, folder, changed)),
                Contender("git", lambda turn: _git_status(git, home / "told")),
                Contender("cas-command", lambda turn: command),
            ]
            key = f"folder-status-{count}-{name}"
            for who, series in harness.interleave(contenders, 2 * ctx.rounds + 1, 2).items():
                ctx.run.add(f"{key}/{who}/seconds", series)


_AS = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")


def _git_status(git: Path, told: Path) -> Step:
    return Step((("git", "status", "--porcelain"),), git, output=told)


def _status(worker: Worker, folder: Path, changed: int) -> Callable[[int], Callable[[], float]]:
    def measured() -> float:
        answer = worker.ask("status", folder=str(folder), changed=changed)
        return float(answer["seconds"])

    return lambda turn: measured


def row_units(ctx: Context) -> None:
    """Units of work (1 artifact, 5 memories, 1 sprint, 3 events) against the events alone."""
    if not ctx.has_api() or not ctx.has_module("eventsourcing"):
        return
    count = UNITS // 10 if ctx.quick else UNITS
    folder = ctx.fresh("units")
    ctx.probe_flush("units")
    times: dict[str, list[float]] = {"cas": [], "eventsourcing": []}
    with (
        ctx.worker("cas", program=PROGRAM, path=str(folder / "agents.cas")) as product,
        ctx.worker("eventsourcing", program=PROGRAM, peer=True, path=str(folder / "e.db")) as peer,
    ):
        ctx.run.versions["eventsourcing"] = peer.ask("version")["version"]
        for worker in (product, peer):
            worker.ask("units", count=BLOCK)
        for _block in range(count // BLOCK):
            for name, worker in (("cas", product), ("eventsourcing", peer)):
                times[name] += worker.ask("units", count=BLOCK)["seconds"]
    for name, seconds in times.items():
        rate = len(seconds) / sum(seconds)
        ctx.run.add(f"units-{count}/{name}/rate", Series((rate,), "/s"))
        ctx.run.add(f"units-{count}/{name}/seconds", Series(tuple(seconds), "s"))


def row_units_syncs(ctx: Context) -> None:
    """Syncs a unit of work over 5,000 of them, counted from system calls."""
    if not ctx.has_api() or not ctx.has_strace():
        return
    count = TRACED_UNITS // 10 if ctx.quick else TRACED_UNITS
    folder = ctx.fresh("units-syncs")
    log, mark = folder / "trace.txt", folder / "mark"
    path = str(folder / "agents.cas")
    with ctx.worker("cas", trace.command(log), program=PROGRAM, path=path) as worker:
        worker.ask("units", count=BLOCK)
        worker.ask("mark", file=str(mark))
        worker.ask("units", count=count)
        worker.ask("mark", file=str(mark))
    found = trace.read(log, mark)
    syncs = found.counted_syncs / count
    ctx.run.one(f"units-syncs-{count}/cas/syncs", syncs, "/unit", found.what_counts)


def row_units_together(ctx: Context) -> None:
    """The same unit by four processes on one store, each with aggregates of its own, and by one."""
    if not ctx.has_api():
        return
    folder = ctx.fresh("units-together")
    groups: dict[str, list[Worker]] = {}
    with ExitStack() as stack:
        for name, count in (("one", 1), ("four", RACERS)):
            path = str(folder / f"{name}.cas")
            groups[name] = [
                stack.enter_context(
                    ctx.worker("cas", program=PROGRAM, path=path, writer=f"w{number}-")
                )
                for number in range(count)
            ]
            for worker in groups[name]:
                worker.ask("sprints")
        ctx.probe_flush("units-together")
        races: dict[str, list[list[dict[str, int]]]] = {name: [] for name in groups}
        for turn in range(ctx.rounds + 1):
            for name, workers in groups.items():
                found = run_race(workers, "race_units")
                races[name] += [found] if turn else []
    note_races(ctx.run, "units-together", races, "units")


def row_follow(ctx: Context) -> None:
    """From the return of a commit to its event in another process that follows the log."""
    if not ctx.has_api():
        return
    count = FOLLOWED // 10 if ctx.quick else FOLLOWED
    path = str(ctx.fresh("follow") / "agents.cas")
    with (
        ctx.worker("cas", program=PROGRAM, path=path) as writer,
        ctx.worker("cas", program=PROGRAM, path=path) as reader,
    ):
        reader.ask("stand")
        reader.send("follow", count=count)
        done = writer.ask("emit", count=count, pause=PAUSE_SECONDS)["at"]
        seen = reader.receive()["at"]
    late = [max(0.0, there - here) for here, there in zip(done, seen, strict=True)]
    worst = sorted(late)[int(0.95 * len(late))]
    note = f"{count} events, {PAUSE_SECONDS[0]} to {PAUSE_SECONDS[1]} s apart"
    ctx.run.add(f"follow/{count}/late", Series(tuple(late), "s", worst), note)


def row_aggregates(ctx: Context) -> None:
    """1,000,000 memories in 10,000 commits: their cost, size, one of them by id, all events."""
    if not ctx.has_api():
        return
    count = MEMORIES // 100 if ctx.quick else MEMORIES
    folder, key = ctx.fresh("aggregates"), f"aggregates-{count}"
    seconds: list[float] = []
    with (
        ctx.worker("cas", program=PROGRAM, path=str(folder / "agents.cas")) as product,
        ctx.worker("sqlite", program=PROGRAM, path=str(folder / "rows.db")) as peer,
    ):
        for first in range(0, count, A_TIME):
            seconds += product.ask("memories", first=first, count=A_TIME)["seconds"]
            peer.ask("memories", first=first, count=A_TIME)
        tenth = max(1, len(seconds) // 10)
        for name, part in (("first", seconds[:tenth]), ("last", seconds[-tenth:])):
            ctx.run.add(f"{key}/cas/{name}", Series(tuple(part), "s", sum(part) / len(part)))
        gets: dict[str, list[float]] = {"cas": [], "sqlite": []}
        for turn in range(ctx.rounds + 1):
            for name, worker in (("cas", product), ("sqlite", peer)):
                took = worker.ask("gets", entries=count, count=GETS)["seconds"] / GETS
                gets[name] += [took] if turn else []
        for name, each in gets.items():
            ctx.run.add(f"{key}/{name}/get", Series(tuple(each), "s"))
        rates = []
        for _turn in range(ctx.rounds):
            answer = product.ask("events")
            rates.append(answer["count"] / answer["seconds"])
        ctx.run.add(f"{key}/cas/events", Series(tuple(rates), "/s"))
        product.ask("close")
    ctx.run.one(f"{key}/cas/bytes", _store_bytes(folder / "agents.cas"), "B")
    if ctx.has_module("langgraph.store.sqlite"):
        place = str(folder / "graph.db")
        with ctx.worker("langgraph", program=PROGRAM, peer=True, path=place) as graph:
            for first in range(0, count, A_TIME):
                graph.ask("memories", first=first, count=A_TIME)
            graph.ask("close")
        whole = sum(each.stat().st_size for each in folder.glob("graph.db*"))
        ctx.run.one(f"{key}/langgraph/bytes", whole, "B")


def _store_bytes(store: Path) -> float:
    return harness.size(store, lambda relative: relative.startswith("cache/")).file_bytes


def row_sourced(ctx: Context) -> None:
    """An event-sourced aggregate of 10,000 events, folded anew, and as it was saved, beside one
    that has no events.
    """
    if not ctx.has_api() or not ctx.has_module("eventsourcing"):
        return
    count = EVENTS // 10 if ctx.quick else EVENTS
    folder = ctx.fresh("sourced")
    kept = ("cas/seconds", "cas/snapshot", "cas/plain", "eventsourcing/seconds")
    times: dict[str, list[float]] = {name: [] for name in kept}
    with (
        ctx.worker("cas", program=PROGRAM, path=str(folder / "agents.cas")) as product,
        ctx.worker("eventsourcing", program=PROGRAM, peer=True, path=str(folder / "e.db")) as peer,
    ):
        for worker in (product, peer):
            worker.ask("source", count=count)
        for turn in range(ctx.rounds + 1):
            for name, worker in (("cas", product), ("eventsourcing", peer)):
                answer = worker.ask("rebuild", count=count)
                for what in ("seconds", "snapshot", "plain"):
                    if turn and what in answer:
                        times[f"{name}/{what}"].append(answer[what])
    for name, seconds in times.items():
        ctx.run.add(f"sourced-{count}/{name}", Series(tuple(seconds), "s"))
