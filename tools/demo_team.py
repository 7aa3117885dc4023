"""The second act of the demo: four agents in processes of their own work two sprints on one store,
one of them is killed in mid-commit, and somebody edits files behind the store's back.

What is proved is read from the store afterwards: every task that an agent was told is done is
there whole and once, its artifact, memory, note and event; so it was in the middle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cas
from tools.demo_agent import task_text
from tools.stage import ROOT, note, paint, proved, run, title

TASKS: Final = 12
TEAM: Final = {"ada": "s1", "bob": "s1", "cleo": "s2", "dan": "s2"}
"""Agent -> sprint."""
UNLUCKY: Final = "dan"


def sprints(home: Path) -> None:
    """Plan two sprints, let the team work, and look at what came of it. Raises `ProofFailed`."""
    title("A team of agents works two sprints at once")
    home.mkdir()
    folder = home / ".cas"
    with cas.open(folder, create=True) as store:
        space = cas.Workspace(store)
        with space.unit_of_work("planner", "two sprints") as uow:
            for name in sorted(set(TEAM.values())):
                sprint = uow.sprints.add(cas.Sprint(id=name, name=f"Sprint {name}", goal="Ship."))
                uow.sprints.save(sprint.start(datetime(2026, 9, 1, tzinfo=UTC)))
            uow.commit()
    note(f"{len(TEAM)} processes, {TASKS} tasks each; {UNLUCKY} is killed in mid-commit.")
    killed = team_works(folder)
    again(folder, killed)
    with cas.open(folder) as store:
        whole(cas.Workspace(store))
        middle(store, cas.Workspace(store))
        desk(cas.Workspace(store), home / "desk")
    print()
    run("events", "-n", "4", folder=home)
    run("sprint", "list", folder=home)
    run("fsck", folder=home)


def started(folder: Path, agent: str) -> subprocess.Popen[str]:
    """An agent at work."""
    return subprocess.Popen(
        [sys.executable, "-m", "tools.demo_agent", str(folder), agent, TEAM[agent], str(TASKS)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def team_works(folder: Path) -> list[str]:
    """All agents at once; gives what the one that is killed had been told until then."""
    team = {agent: started(folder, agent) for agent in TEAM}
    told: list[str] = []
    unlucky = team.pop(UNLUCKY)
    assert unlucky.stdout is not None
    for line in unlucky.stdout:
        told.append(line.strip())
        if told[-1] == f"committing {TASKS // 2}":
            unlucky.kill()
            break
    told += [line.strip() for line in unlucky.stdout if line.endswith("\n")]
    unlucky.wait()
    unlucky.stdout.close()
    for agent, process in team.items():
        print(f"  {agent:5} {process.communicate()[0].count('done')} tasks done")
        proved(f"{agent} was not disturbed by who died", process.returncode == 0)
    print(f"  {UNLUCKY:5} " + paint("killed", "31") + f" behind {told[-1]!r}")
    return told


def again(folder: Path, told: list[str]) -> None:
    """The killed agent's work as the store has it; then it is started again."""
    with cas.open(folder) as store:
        there = tasks_of(cas.Workspace(store))[UNLUCKY]
    done = {int(line.split()[1]) for line in told if line.startswith("done")}
    proved("what it had been told is done, is done", done <= set(there))
    proved("the task it died in is there whole, or not at all", len(there) - len(done) in (0, 1))
    process = started(folder, UNLUCKY)
    process.communicate()
    proved("started again, it goes on under the same keys", process.returncode == 0)


def tasks_of(space: cas.Workspace, until: int | None = None) -> dict[str, Counter[int]]:
    """Agent -> how often each of its tasks is told of by an event, up to an entry."""
    found: dict[str, Counter[int]] = {agent: Counter() for agent in TEAM}
    for event in space.events(types=["task.done"]):
        if until is None or event.position.seq <= until:
            found[event.data["agent"]][event.data["number"]] += 1
    return found


def whole(space: cas.Workspace) -> None:
    """Everything of every task, once."""
    tasks = tasks_of(space)
    every = Counter(range(1, TASKS + 1))
    proved("every task of everybody is there, once", all(tasks[one] == every for one in TEAM))
    names = {f"{agent}-{number}": agent for agent in TEAM for number in every}
    proved(
        "every artifact is what its agent wrote, and every memory is there",
        all(
            space.artifacts.read(f"{TEAM[agent]}/{name}.md")
            == task_text(agent, int(name.rpartition("-")[2]))
            and space.memories.get(name).text == f"{name} is done"
            for name, agent in names.items()
        ),
    )
    notes = [line for id in ("s1", "s2") for line in space.sprints.get(id).notes]
    proved(
        "no note on a sprint that two agents wrote at once is lost", sorted(notes) == sorted(names)
    )


def middle(store: cas.Store, space: cas.Workspace) -> None:
    """The state in the middle: what had been told of by then, and nothing else."""
    title("The same sprints, in the middle of it")
    seq = store.view().seq // 2
    then = space.at(seq)
    told = tasks_of(space, seq)
    for id in ("s1", "s2"):
        notes = then.sprints.get(id).notes
        last = f", the last of them {notes[-1]}" if notes else ""
        print(f"  entry {seq}: sprint {id} has {len(notes)} notes{last}")
        wanted = sorted(f"{a}-{n}" for a, s in TEAM.items() if s == id for n in told[a])
        proved(
            f"as of entry {seq}, {id} shows what its events had told of", sorted(notes) == wanted
        )


def desk(space: cas.Workspace, folder: Path) -> None:
    """A checked-out folder, in which somebody writes who does not know of the store."""
    title("Files changed behind the store's back")
    path, other = "s1/bob-1.md", "s1/ada-1.md"
    space.checkout(folder, actor="ada", sprint="s1")
    note("$ an editor rewrites the first line of one file, and a shell removes another")
    lines = (folder / path).read_bytes().splitlines(keepends=True)
    (folder / path).write_bytes(b"".join([b"from the shell\n", *lines[1:]]))
    (folder / other).unlink()
    note("# meanwhile bob changes the last line of the same file, in the store")
    with space.unit_of_work("bob", "the last line") as uow:
        uow.artifacts.put(path, b"".join([*lines[:-1], b"from bob\n"]))
        uow.commit()
    for change in space.status(folder).outside:
        print(f"  outside change: {change.path}")
    space.sync(folder)
    merged = b"".join([b"from the shell\n", *lines[1:-1], b"from bob\n"])
    proved("both edits of one file are in the folder", (folder / path).read_bytes() == merged)
    proved("and in the store", space.artifacts.read(path) == merged)
    makers = [version.author for version in space.artifacts.history(path)]
    print(f"  {path} was written by {', '.join(reversed(makers))}")
    proved("who wrote outside is told apart", "external" in makers and "bob" in makers)
    versions = [version.value for version in space.artifacts.history(other)]
    stays = other not in space.artifacts and versions[-1] is not None
    proved("what was removed is gone, and its history stays", stays)
    space.release(folder, actor="ada")
