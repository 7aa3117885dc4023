"""The rows of the workspace, alone in a process: units of work, events, aggregates, a folder.

`python workers_workspace.py KIND` talks as `workers.py` does; a peer runs under the interpreter of
the peers. Invariant: what is timed is the call under test alone, contents are made before the
clock starts, and every answer is checked.
"""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.workers import Cas, Writer, serve

Request = dict[str, Any]
EVENTS = 3
NOTES = 5
SPRINTS = 100
A_COMMIT = 100
STATES = 1_000


def memory(number: int) -> dict[str, Any]:
    """A memory as its fields: a sentence of its own, tags that many share."""
    return {
        "agent": f"agent-{number % 7}",
        "text": f"Observation {number}: module {number * 7919 % 10007} took {number % 997} ms "
        f"in run {number * 104729 % 99991}, and the reviewer asked for a smaller change.",
        "kind": "note",
        "tags": sorted({f"topic-{number % 11}", f"area-{number % 5}"}),
        "importance": number % 10 / 10,
    }


def memory_id(number: int) -> str:
    """Ids that grow, as generated ones do."""
    return f"{number:026d}"


class Space(Cas):
    """The product's workspace, all defaults as they come."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.space = self.cas.Workspace(self.store)
        self.units = 0
        # What tells apart the names of those who write to one store.
        self.writer: str = request.get("writer", "")
        events = importlib.import_module("cas.workspace.parts")

        @self.cas.aggregate("bench_budget", context="planning", event_sourced=True)  # type: ignore[untyped-decorator]
        class Budget(self.cas.Sourced):  # type: ignore[name-defined,misc]
            left: int = events.part(default=0)

            def apply(self, event: Any) -> Any:
                return self.evolve(left=self.left + event.data["amount"])

        self.budget = Budget

    def do_units(self, request: Request) -> dict[str, Any]:
        """Seconds of each unit: an artifact, five memories, a sprint change, three events."""
        if not self.units:
            self.do_sprints(request)
        return {"seconds": [self._unit() for _ in range(request["count"])]}

    def do_sprints(self, request: Request) -> dict[str, Any]:
        """The sprints that units change: of each writer some of its own."""
        with self.space.unit_of_work("bench") as uow:
            for number in range(SPRINTS):
                uow.sprints.add(self.cas.Sprint(id=f"s{self.writer}{number}", name="One"))
            uow.commit()
        return {}

    def do_race_units(self, request: Request) -> dict[str, Any]:
        """Units from `start` to `stop` (monotonic seconds), and how many were shown a conflict."""
        ahead = request["start"] - time.monotonic()
        time.sleep(max(0.0, ahead))
        units = conflicts = 0
        while time.monotonic() < request["stop"]:
            try:
                self._unit()
                units += 1
            except (self.cas.AggregateConflict, self.cas.RefConflict):
                conflicts += 1
        return {"units": units, "conflicts": conflicts, "valid": ahead >= 0}

    def _unit(self) -> float:
        self.units += 1
        number = self.units
        started = time.perf_counter()
        with self.space.unit_of_work("bench", "a unit") as uow:
            uow.artifacts.put(f"reports/{self.writer}{number}.md", b"# Report %d\n" % number)
            for turn in range(NOTES):
                fields = memory(number * NOTES + turn)
                uow.memories.note(fields["text"], agent=fields["agent"], tags=fields["tags"])
            # A sprint has tens of notes, not thousands: each is changed by a hundred units.
            sprint = uow.sprints.get(f"s{self.writer}{number // 100 % SPRINTS}")
            uow.sprints.save(
                sprint.note(f"report {number}")
                if number % 2
                else sprint.evolve(goal=f"goal {number}")
            )
            for turn in range(EVENTS):
                uow.event("report.made", {"number": number, "turn": turn})
            uow.commit()
        return time.perf_counter() - started

    def do_memories(self, request: Request) -> dict[str, Any]:
        """Memories in commits of a hundred with three events each; seconds of each commit."""
        made = self.cas.Memory
        seconds = []
        for first in range(request["first"], request["first"] + request["count"], A_COMMIT):
            values = []
            for number in range(first, first + A_COMMIT):
                fields = memory(number)
                tags = frozenset(fields.pop("tags"))
                values.append(made(id=memory_id(number), tags=tags, **fields))
            started = time.perf_counter()
            with self.space.unit_of_work("bench") as uow:
                for value in values:
                    uow.add_fresh(value)
                for turn in range(EVENTS):
                    uow.event("memories.added", {"first": first, "turn": turn})
                uow.commit()
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def do_gets(self, request: Request) -> dict[str, Any]:
        """Seconds of `count` gets by id, at random among `entries`."""
        numbers = [self.rng.randrange(request["entries"]) for _ in range(request["count"])]
        memories = self.space.now().memories
        started = time.perf_counter()
        found = [memories.get(memory_id(number)) for number in numbers]
        seconds = time.perf_counter() - started
        for number, value in zip(numbers, found, strict=True):
            if value.text != memory(number)["text"]:
                raise AssertionError(f"memory {number} is another one")
        return {"seconds": seconds}

    def do_events(self, request: Request) -> dict[str, Any]:
        """Seconds of reading the whole log of events."""
        started = time.perf_counter()
        count = sum(1 for _ in self.space.events())
        return {"seconds": time.perf_counter() - started, "count": count}

    def do_emit(self, request: Request) -> dict[str, Any]:
        """Events with pauses between; when (monotonic seconds) the commit of each returned."""
        done = []
        for number in range(request["count"]):
            time.sleep(self.rng.uniform(*request["pause"]))
            with self.space.unit_of_work("bench") as uow:
                uow.event("report.made", {"number": number})
                uow.commit()
            done.append(time.monotonic())
        return {"at": done}

    def do_follow(self, request: Request) -> dict[str, Any]:
        """When each of so many events, of somebody else, was there to be read."""
        seen: list[float] = []
        with self.store.follow(self.follow_from) as entries:
            for entry in entries:
                for event in self.space.events(entry.seq - 1, limit=len(entry.events)):
                    if event.data["number"] != len(seen):
                        raise AssertionError(f"event {event.data} after {len(seen)}")
                    seen.append(time.monotonic())
                if len(seen) >= request["count"]:
                    return {"at": seen}
        raise AssertionError("the follower ended")

    def do_stand(self, request: Request) -> dict[str, Any]:
        """Follow from here on."""
        self.follow_from = self.store.view().seq
        return {}

    def do_source(self, request: Request) -> dict[str, Any]:
        """An event-sourced aggregate of so many events, and one of which the state is all."""
        with self.space.unit_of_work("bench") as uow:
            uow.sprints.add(self.cas.Sprint(id="plain", name="One"))
            uow.commit()
        value = self.budget.begin("b1")
        for first in range(0, request["count"], 500):
            with self.space.unit_of_work("bench") as uow:
                for _ in range(first, min(first + 500, request["count"])):
                    value = uow.emit(value, "spent", {"amount": 1})
                uow.commit()
            value = self.space.collection(self.budget).get("b1")
        return {}

    def do_rebuild(self, request: Request) -> dict[str, Any]:
        """Seconds of the fold of all events, of the state as it was saved (the snapshot), and of
        an aggregate that has no events.
        """
        started = time.perf_counter()
        value = self.space.rebuild(self.budget, "b1")
        seconds = time.perf_counter() - started
        now = self.space.now()
        state, snapshot = self._timed_gets(now.collection(self.budget), "b1")
        _sprint, plain = self._timed_gets(now.sprints, "plain")
        if not value.left == state.left == request["count"]:
            raise AssertionError(f"{value.left} and {state.left} of {request['count']}")
        return {"seconds": seconds, "snapshot": snapshot, "plain": plain}

    def _timed_gets(self, collection: Any, id: str) -> tuple[Any, float]:
        started = time.perf_counter()
        for _ in range(STATES):
            found = collection.get(id)
        return found, (time.perf_counter() - started) / STATES

    def do_folder(self, request: Request) -> dict[str, Any]:
        """Artifacts, a hundred in a folder, checked out."""
        count = request["count"]
        for first in range(0, count, 1000):
            with self.space.unit_of_work("bench") as uow:
                for number in range(first, min(first + 1000, count)):
                    name = f"d{number // 100:05}/f{number % 100:02}.txt"
                    uow.artifacts.put(name, b"content of file %d\n" % number * 20)
                uow.commit()
        self.space.checkout(request["folder"], actor="bench")
        time.sleep(0.05)  # files of the same tick are another test's subject
        self.space.status(request["folder"])
        return {}

    def do_status(self, request: Request) -> dict[str, Any]:
        """Seconds of one look at the folder, in which so many paths were changed."""
        started = time.perf_counter()
        status = self.space.status(request["folder"])
        seconds = time.perf_counter() - started
        if len(status.outside) != request.get("changed", 0) or status.incoming:
            raise AssertionError(f"{len(status.outside)} changes: {status.outside[:3]}")
        return {"seconds": seconds}


class Sourcing(Writer):
    """The `eventsourcing` library on SQLite, as it comes: events alone."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        domain: Any = importlib.import_module("eventsourcing.domain")
        application: Any = importlib.import_module("eventsourcing.application")

        class Report(domain.Aggregate):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                self.left = 0

            @domain.event("Spent")  # type: ignore[untyped-decorator]
            def spend(self, number: int, amount: int) -> None:
                self.left += amount

        self.made: Any = Report
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(self.path),
        }
        self.application = application.Application(env=environment)
        self.one: Any = None

    def do_units(self, request: Request) -> dict[str, Any]:
        """Seconds of saving three events of an aggregate, each time."""
        if self.one is None:
            self.one = self.made()
            self.application.save(self.one)
        seconds = []
        for number in range(request["count"]):
            started = time.perf_counter()
            for turn in range(EVENTS):
                self.one.spend(number=number, amount=turn)
            self.application.save(self.one)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def do_source(self, request: Request) -> dict[str, Any]:
        self.one = self.made()
        for number in range(request["count"]):
            self.one.spend(number=number, amount=1)
        self.application.save(self.one)
        return {}

    def do_rebuild(self, request: Request) -> dict[str, Any]:
        started = time.perf_counter()
        found = self.application.repository.get(self.one.id)
        seconds = time.perf_counter() - started
        if found.left != request["count"]:
            raise AssertionError(f"{found.left} of {request['count']}")
        return {"seconds": seconds}

    def do_version(self, request: Request) -> dict[str, Any]:
        return {"version": importlib.import_module("importlib.metadata").version("eventsourcing")}


class Rows(Writer):
    """Stdlib sqlite3: one row an aggregate, its fields as JSON."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, body TEXT)")

    def do_memories(self, request: Request) -> dict[str, Any]:
        numbers = range(request["first"], request["first"] + request["count"])
        self.db.execute("BEGIN IMMEDIATE")
        rows = ((memory_id(number), json.dumps(memory(number))) for number in numbers)
        self.db.executemany("INSERT INTO item VALUES (?, ?)", rows)
        self.db.execute("COMMIT")
        return {}

    def do_gets(self, request: Request) -> dict[str, Any]:
        ids = [memory_id(self.rng.randrange(request["entries"])) for _ in range(request["count"])]
        query = "SELECT body FROM item WHERE id = ?"
        started = time.perf_counter()
        found = [json.loads(self.db.execute(query, (id,)).fetchone()[0]) for id in ids]
        seconds = time.perf_counter() - started
        for id, each in zip(ids, found, strict=True):
            if each["text"] != memory(int(id))["text"]:
                raise AssertionError("another row was given")
        return {"seconds": seconds}


class Graph(Writer):
    """LangGraph's SQLite store: the same records, for their size."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        sqlite: Any = importlib.import_module("langgraph.store.sqlite")
        self.put: Any = importlib.import_module("langgraph.store.base").PutOp
        self.db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        self.store = sqlite.SqliteStore(self.db)
        self.store.setup()

    def do_memories(self, request: Request) -> dict[str, Any]:
        for first in range(request["first"], request["first"] + request["count"], 1000):
            numbers = range(first, min(first + 1000, request["first"] + request["count"]))
            ops = []
            for number in numbers:
                fields = memory(number)
                ops.append(self.put(("memories", fields["agent"]), memory_id(number), fields))
            self.store.batch(ops)
        return {}

    def close(self) -> None:
        self.db.close()


KINDS = {"cas": Space, "eventsourcing": Sourcing, "sqlite": Rows, "langgraph": Graph}


if __name__ == "__main__":
    serve(KINDS[sys.argv[1]])
