"""Real processes: killed at every call, writing together, making one store together, forking."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import cas
from cas.errors import RefConflict
from cas.testing import oracle
from cas.testing.driver import Driver
from cas.testing.model import Model, Progress
from cas.testing.processes import Child, Diary, run_told
from cas.testing.recovery import recover
from cas.testing.stores import SMALL, SteppedClock, build, create, scratch
from tests.crash.reporting import Note, scaled

STEPS = ("commit", "put many", "multi", "commit file", "keyed", "commit", "spill", "commit")


def _template(folder: str) -> tuple[str, Model]:
    template = os.path.join(folder, "template")
    create(template, clock=SteppedClock("kill create"))
    driver = Driver(template, seed="kill before")
    driver.run(("commit", "commit", "put file"))
    driver.close()
    return template, driver.model


@pytest.mark.parametrize("neighbour", [False, True], ids=["alone", "beside another process"])
def test_a_process_killed_at_any_call_loses_nothing(neighbour: bool, note: Note) -> None:
    """A writer killed before any of its calls leaves a store that shows what it acknowledged."""
    findings: list[str] = []
    with scratch() as folder:
        template, model = _template(folder)
        at = kills = 0
        while found := _kill_at(folder, template, model, at, neighbour):
            findings += found[1:]
            at += 4 if scaled(4) == 1 else 1
            kills += 1
    note("kills at a call", "beside another" if neighbour else "alone", kills=kills)
    assert kills > 10
    assert findings == []


def _kill_at(folder: str, template: str, model: Model, at: int, neighbour: bool) -> list[str]:
    """Findings behind the number of the call; nothing when there was no such call any more."""
    place = os.path.join(folder, f"killed-{at}")
    shutil.copytree(template, place)
    diary = Diary(place + ".diary")
    try:
        beside, go = _start_neighbour(place, diary) if neighbour else (None, -1)
        writer = Child(lambda: run_told(place, diary, "kill", model.copy(), STEPS, at))
        finished = writer.wait() is not None
        last = diary.last()
        assert last is not None
        progress, after = last
        findings: list[str] = []
        if beside is not None:
            os.write(go, b"x")
            os.close(go)
            # What the neighbour saw and added is what the next one has to see.
            findings, after, progress = beside.wait()
        observed, _model = recover(place, after, f"after kill {at}")
        findings += oracle.judge(observed, after, progress)
    finally:
        shutil.rmtree(place)
    found = [f"killed before call {at}: {finding}" for finding in findings]
    return found if finished else [str(at), *found]


def _start_neighbour(place: str, diary: Diary) -> tuple[Child, int]:
    """A process that has the store open before, while and after another one is killed."""
    ready, opened = os.pipe()
    wait, go = os.pipe()

    def act() -> tuple[list[str], Model, Progress]:
        driver = Driver(place, seed=f"neighbour {place}")
        driver.store.view()
        os.write(opened, b"x")
        os.read(wait, 1)
        last = diary.last()
        assert last is not None
        progress, model = last
        observed = oracle.observe(driver.store, model)
        findings = oracle.judge(observed, model, progress)
        driver.model = model.copy()
        driver.model.entries = model.entries[: observed.seq + 1]
        driver.model.puts = [model.puts[number] for number in sorted(observed.puts)]
        driver.model.groups = []
        driver.acked_seq, driver.acked_puts = observed.seq, len(driver.model.puts)
        driver.run(("commit", "put"))
        findings += [f"refused: {error}" for error in driver.refused]
        result = findings, driver.model, driver.progress
        driver.close()
        return result

    child = Child(act)
    os.read(ready, 1)
    for fd in (ready, opened, wait):
        os.close(fd)
    return child, go


@pytest.mark.parametrize("number", range(30))
def test_a_process_killed_at_any_time_loses_nothing(
    number: int, rng: random.Random, note: Note
) -> None:
    """A writer killed at a random moment, again and again on one store, loses nothing."""
    # What is there is read whole after each kill, so that more stores cost less than more kills.
    rounds = scaled(30)
    with scratch() as folder:
        place, model = _template(folder)
        for turn in range(rounds):
            diary = Diary(os.path.join(folder, f"diary-{turn}"))
            steps = [rng.choice(STEPS) for _ in range(200)]
            child = Child(partial(run_told, place, diary, f"random {turn}", model, steps, None))
            while diary.last() is None:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.03)
            child.kill()
            child.wait()
            last = diary.last()
            assert last is not None
            progress, model = last
            observed, model = recover(place, model, f"random recovery {turn}")
            assert oracle.judge(observed, last[1], progress) == [], f"kill {turn} of {number}"
            model.groups = []
    note("kills at any time", "thirty stores, again and again", kills=rounds)


def test_four_processes_write_at_once(note: Note) -> None:
    """Four writers with a branch each and one in common all get their turn and lose nothing."""
    each = scaled(40)
    with scratch() as folder:
        place = os.path.join(folder, "store")
        create(place, clock=SteppedClock("four create"))
        start, started = os.pipe()

        def write(number: int) -> int:
            store = build(place, clock=SteppedClock(f"four {number}"), thresholds=SMALL)
            os.read(start, 1)
            conflicts = 0
            for turn in range(each):
                with store.begin(author=str(number)) as tx:
                    tx.branch(f"own-{number}")[f"f{turn}"] = b"%d" % turn
                    tx.commit()
                while turn % 4 == 0:
                    try:
                        with store.begin(author=str(number)) as tx:
                            tx.branch("shared")[f"{number}-{turn}"] = b"%d" % turn
                            tx.commit()
                        break
                    except RefConflict:
                        conflicts += 1
            store.close()
            return conflicts

        writers = [Child(lambda number=number: write(number)) for number in range(4)]
        os.write(started, b"xxxx")
        conflicts = sum(writer.wait() for writer in writers)
        os.close(start)
        os.close(started)
        store = build(place, clock=SteppedClock("four after"))
        shared = -(-each // 4)
        assert store.view().seq == 4 * (each + shared)
        assert len(store.snapshot("shared")) == 4 * shared
        for number in range(4):
            assert len(store.snapshot(f"own-{number}")) == each
        assert list(oracle.check_objects(store)) == []
        assert list(oracle.check_journal(store, Model())) == []
        store.close()
    note("writers", "4 processes", commits=4 * (each + shared), conflicts=conflicts)


def test_no_process_starves(note: Note) -> None:
    """While four processes commit as fast as they can, none falls far behind the others.

    The race is not scaled down: over a tenth of a second the scheduler's slices decide it. A host
    may starve a process for reasons of its own; a gate that does so does it in every race.
    """
    for _ in range(3):
        counts = _fair_race()
        note("writers", "4 processes, fairness", commits=sum(counts), least=min(counts))
        if min(counts) >= sum(counts) / 4 / 4:
            return
    pytest.fail(f"one writer stood behind in three races, the last one {counts}")


def _fair_race() -> list[int]:
    """How often each of four processes committed until there were so many entries."""
    total = 1_600
    with scratch() as folder:
        place = os.path.join(folder, "store")
        create(place, clock=SteppedClock("fair create"))
        start, started = os.pipe()
        ready, opened = os.pipe()

        def write(number: int) -> int:
            store = build(place, clock=SteppedClock(f"fair {number}"))
            store.view()
            os.write(opened, b"x")
            os.read(start, 1)
            mine = seq = 0
            while seq < total:
                with store.begin(author=str(number)) as tx:
                    tx.branch(f"own-{number}")["f"] = b"%d" % mine
                    seq = tx.commit().seq
                mine += 1
            store.close()
            return mine

        writers = [Child(lambda number=number: write(number)) for number in range(4)]
        for _ in writers:
            os.read(ready, 1)
        os.write(started, b"xxxx")
        counts = [writer.wait() for writer in writers]
        for fd in (start, started, ready, opened):
            os.close(fd)
    return counts


def test_thirty_processes_make_one_store() -> None:
    """Of thirty processes that create a store at once all find the same one, whole."""
    with scratch() as folder:
        place = os.path.join(folder, "a", "b", "store")

        def make(number: int) -> tuple[str, str]:
            with cas.open(place, create=True) as store:
                return store.id, str(store.put(b"from %d" % number))

        makers = [Child(lambda number=number: make(number)) for number in range(30)]
        made = [maker.wait() for maker in makers]
        assert len({store for store, _blob in made}) == 1
        with cas.open(place) as store:
            for number, (_store, blob) in enumerate(made):
                assert store.get(blob) == b"from %d" % number
        assert os.listdir(os.path.dirname(place)) == ["store"]


def test_threads_share_a_store(tmp_path: Path, note: Note) -> None:
    """Threads that commit through one handle at once lose nothing, on one branch or on several."""
    each = scaled(25)
    failures: list[BaseException] = []
    with cas.open(tmp_path / "store", create=True) as store:
        gate = threading.Barrier(4)

        def write(number: int) -> None:
            try:
                gate.wait()
                for turn in range(each):
                    branch = f"own-{number}" if number < 2 else "shared"
                    while True:
                        try:
                            with store.begin(author=str(number)) as tx:
                                tx.branch(branch)[f"{number}-{turn}"] = b"%d" % turn
                                tx.commit()
                            break
                        except RefConflict:
                            assert branch == "shared"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.view().seq == 4 * each
        assert len(store.snapshot("shared")) == 2 * each
        assert list(oracle.check_objects(store)) == []
        assert list(oracle.check_journal(store, Model())) == []
    note("writers", "4 threads", commits=4 * each)


def test_a_stopped_process_holds_up_no_reader() -> None:
    """A process that is stopped in the gate holds up writers, never readers; then all go on."""
    with scratch() as folder:
        place = os.path.join(folder, "store")
        create(place, clock=SteppedClock("stop create"))
        ready, opened = os.pipe()

        def hold() -> int:
            store = build(place, clock=SteppedClock("stop holder"))
            with store.objects.catalog.write() as writer:
                os.write(opened, b"x")
                os.kill(os.getpid(), signal.SIGSTOP)
                writer.set_cursor("held", 1)
            store.close()
            return 1

        def read() -> int:
            store = build(place, clock=SteppedClock("stop reader"))
            seq = store.view().seq
            store.close()
            return seq

        def write() -> int:
            store = build(place, clock=SteppedClock("stop writer"))
            with store.begin() as tx:
                tx.branch("main")["a"] = b"1"
                seq = tx.commit().seq
            store.close()
            return seq

        holder = Child(hold)
        os.read(ready, 1)
        os.close(ready)
        os.close(opened)
        os.waitpid(holder.pid, os.WUNTRACED)
        assert Child(read).wait() == 0
        writer = Child(write)
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.wait() == 1
        assert writer.wait() == 1
