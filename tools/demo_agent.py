"""One simulated agent of the demo, in a process of its own: it does tasks of a sprint on a store
that others work on too, each task one unit of work.

Prints a line before and after each commit, so that whoever started it can end it in between.
Started again after that it does the same tasks under the same keys: what was committed before is
found, and nothing is done twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cas  # noqa: E402 - the checkout, wherever this is started


def task_text(agent: str, number: int) -> bytes:
    """What an agent writes in a task."""
    return b"".join(b"%s, task %d, line %d\n" % (agent.encode(), number, n) for n in range(40))


def work(space: cas.Workspace, agent: str, sprint: str, number: int) -> None:
    """One task: an artifact, a memory, a note on the sprint and an event, or none of it."""
    name = f"{agent}-{number}"

    def once(uow: cas.UnitOfWork) -> None:
        report = uow.artifacts.put(f"{sprint}/{name}.md", task_text(agent, number))
        uow.memories.note(f"{name} is done", id=name, source=report)
        plan = uow.sprints.get(sprint)
        uow.sprints.save(plan.note(name))
        uow.event("task.done", {"agent": agent, "number": number}, about=plan)
        print(f"committing {number}", flush=True)

    space.run(once, agent, name, key=name, attempts_max=100)
    print(f"done {number}", flush=True)


def main(words: list[str]) -> int:
    """STORE AGENT SPRINT COUNT: do the tasks 1 to COUNT."""
    folder, agent, sprint, count = words
    with cas.open(folder) as store:
        space = cas.Workspace(store)
        for number in range(1, int(count) + 1):
            work(space, agent, sprint, number)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
