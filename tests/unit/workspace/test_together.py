"""Several processes and handles on one workspace: nothing lost, nothing twice, one order."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import AggregateConflict, ConditionFailed
from cas.workspace.parts import part
from cas.workspace.planning import Run
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.workspace import Workspace
from tests.tidy.source import ROOT


def child(*words: str | Path) -> subprocess.Popen[bytes]:
    """Another process at work."""
    command = [sys.executable, "-m", "tests.unit.workspace.child", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def start(place: Path) -> None:
    """A workspace with a counter that all share."""
    with cas.open(place, create=True) as store, Workspace(store).unit_of_work("setup") as uow:
        uow.runs.save(Run(id="shared", agent="all"))
        uow.commit()


def test_processes_share_a_context_without_a_conflict(tmp_path: Path) -> None:
    """Three processes write aggregates of their own and one counter: every unit commits at its
    first try, and everything is there once.
    """
    place = tmp_path / "s"
    start(place)
    workers = [child("count", place, f"w{number}", "20") for number in range(3)]
    assert [worker.wait(240) for worker in workers] == [0, 0, 0]
    with cas.open(place) as store:
        space = Workspace(store)
        assert len(list(space.memories.ids())) == 60
        assert space.runs.get("shared").tokens_in_count == 60
        by = Counter(event.data["by"] for event in space.events(types=["counted"]))
        assert by == {"w0": 20, "w1": 20, "w2": 20}
        assert list(space.conflicts()) == []


def test_a_killed_carrier_loses_and_doubles_nothing(tmp_path: Path, rng: random.Random) -> None:
    """However often the process that carries events to another store is killed, each event
    arrives exactly once and in order.
    """
    source, target = tmp_path / "s", tmp_path / "t"
    start(source)
    with cas.open(target, create=True) as two, cas.open(source) as one:
        space, other = Workspace(one), Workspace(two)
        sent = 0
        for _round in range(3):
            for _ in range(rng.randrange(70, 140)):
                with space.unit_of_work("a") as uow:
                    uow.event("counted", {"by": "a", "number": sent})
                    uow.commit()
                sent += 1
            worker = child("carry", source, target)
            seen = two.view().seq
            with two.follow(seen) as entries:
                entries.poll(120_000)
            worker.kill()
            worker.wait()
        cas.carry(space, other, "carrier", ["counted"])
        numbers = [event.data["number"] for event in other.events(types=["counted"])]
        assert numbers == list(range(sent))


@aggregate("t_cell", collection="t_cells", context="cells")
class Cell(Aggregate):
    """A value, and whose it is: two writers never write the same."""

    value: int = part()
    writer: str = part()


class Work:
    """One unit of a history: what it saw, and where it committed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.read: dict[str, Cell | None] = {}
        self.removed: set[str] = set()
        self.found: tuple[int, list[Cell]] | None = None
        self.seq = 0


def act(space: Workspace, name: str, rng: random.Random) -> Work | None:
    """Read some cells, ask for those above a limit, write some; None when it was refused."""
    done = Work(name)
    with space.unit_of_work(name) as uow:
        for id in rng.sample("abcdef", 2):
            done.read[id] = uow.find_one(Cell, id)
        if rng.random() < 0.5:
            limit = rng.randrange(4)
            found = list(uow.find(Cell, lambda cell: cell.value > limit, guard=True))
            done.found = (limit, found)
        total = sum(cell.value for cell in done.read.values() if cell is not None)
        for id in rng.sample("abcdef", 2):
            old = uow.find_one(Cell, id)
            done.read.setdefault(id, old)
            value = (total + 1) % 7
            if old is None:
                uow.add(Cell(id=id, value=value, writer=name))
            elif rng.random() < 0.2:
                uow.remove(old)
                done.removed.add(id)
            else:
                uow.save(old.evolve(value=value, writer=name))
        try:
            done.seq = uow.commit().seq
        except (AggregateConflict, ConditionFailed):
            return None
    return done


@pytest.mark.parametrize("handles", [1, 3])
def test_units_happen_as_if_one_after_the_other(
    tmp_path: Path, rng: random.Random, handles: int
) -> None:
    """Of many units at once, each saw what it read, and found what it asked for, exactly as it
    stood just before its entry: the journal is an order that explains them all.
    """
    place = tmp_path / "s"
    cas.open(place, create=True).close()
    stores = [cas.open(place) for _ in range(handles)]
    done: list[Work] = []
    refused: list[int] = []
    seeds = [rng.randrange(1 << 32) for _ in range(4)]

    def worker(number: int) -> None:
        own = random.Random(seeds[number])
        space = Workspace(stores[number % handles])
        for step in range(25):
            work = act(space, f"w{number}.{step}", own)
            if work is None:
                refused.append(number)
            else:
                done.append(work)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    space = Workspace(stores[0])
    assert len(done) + len(refused) == 100
    assert done
    for work in done:
        before = space.at(work.seq - 1)
        cells: Any = before.collection(Cell)
        for id, seen in work.read.items():
            there = cells.find_one(id)
            # Two who remove the same agree, whatever it was when each looked.
            assert there == seen or (there is None and id in work.removed), work.name
        if work.found is not None:
            limit, found = work.found
            assert list(cells.find(lambda cell, limit=limit: cell.value > limit)) == found
    for store in stores:
        store.close()
