"""Rows on what others share with us: eight writers on one branch, and a history of git taken in.

Eight processes commit to files of their own, by turns all to one branch and each to a branch of
its own; a conflict that a writer is shown is counted. The history of git is built here, or is the
folder that `CAS_BENCH_GIT` names; after the last import every tree is compared with git's.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.context import THOUSAND, Context, Worker, ask_all, note_races, run_race
from bench.harness import Series
from bench.rows_history import PROGRAM

WRITERS = 8
RACE_COMMITS_MAX = 20_000
GIT_COMMITS = 6_000
GIT_FILES = 400


def row_one_branch(ctx: Context) -> None:
    """Eight writers of different files: all on one branch, against a branch for each."""
    if not ctx.has_api():
        return
    folder = ctx.fresh("one-branch")
    groups: dict[str, list[Worker]] = {}
    with ExitStack() as stack:
        for name in ("one", "apart"):
            groups[name] = [
                stack.enter_context(
                    ctx.worker(
                        "cas",
                        program=PROGRAM,
                        path=str(folder / f"{name}.cas"),
                        branch="main" if name == "one" else f"writer/{number}",
                        seed=number,
                    )
                )
                for number in range(WRITERS)
            ]
            for number, worker in enumerate(groups[name]):
                worker.ask("room", folder=f"w{number}", entries=THOUSAND)
        ctx.probe_flush("one-branch")
        races: dict[str, list[list[dict[str, int]]]] = {name: [] for name in groups}
        for _ in range(ctx.rounds):
            for name, workers in groups.items():
                ask_all(workers, "prepare_room", count=RACE_COMMITS_MAX)
                races[name].append(run_race(workers, "race_room"))
    note_races(ctx.run, "one-branch", races, "commits")


def row_import_git(ctx: Context) -> None:
    """`import-git` of a history of 5,000 commits and more, against `git clone --no-local`."""
    if not ctx.has_api():
        return
    folder = ctx.fresh("import-git")
    named = os.environ.get("CAS_BENCH_GIT")
    source = Path(named) if named else folder / "source.git"
    if named is None:
        _build(source, GIT_COMMITS // 10 if ctx.quick else GIT_COMMITS)
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(ctx.rounds + 1):
        clone = folder / f"clone-{turn}.git"
        started = time.perf_counter()
        command = ["git", "clone", "-q", "--bare", "--no-local", str(source), str(clone)]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        with ctx.worker("cas", program=PROGRAM, path=str(folder / f"{turn}.cas")) as worker:
            answer = worker.ask("import_git", git=str(source))
            if turn == ctx.rounds:
                checked = worker.ask("compare_git")
        if turn:
            theirs.append(seconds)
            ours.append(answer["seconds"])
    note = f"{answer['commits']:,} commits; {checked['trees']:,} trees equal to git's"
    row = "import-git" if answer["commits"] >= 5_000 else "import-git-quick"
    ctx.run.add(f"{row}/git/seconds", Series(tuple(theirs), "s"))
    ctx.run.add(f"{row}/cas/seconds", Series(tuple(ours), "s"), note)


def _build(place: Path, commits: int) -> None:
    """A bare folder of git with a history of edits of text files, merged now and then."""
    place.mkdir()
    git = ["git", "-C", str(place)]
    subprocess.run([*git, "init", "-q", "--bare", "-b", "main"], check=True)
    feed = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert feed.stdin is not None
    for part in _stream(commits):
        feed.stdin.write(part)
    feed.stdin.close()
    if feed.wait():
        raise RuntimeError("git fast-import failed")
    subprocess.run([*git, "gc", "-q"], check=True)


def _stream(commits: int) -> Iterator[bytes]:
    draw = random.Random(4)
    words = [bytes(draw.choices(b"abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(3_000)]
    paths = [f"d{n % 12}/e{n % 5}/file-{n}.txt" for n in range(GIT_FILES)]
    lines = {path: [_line(draw, words) for _ in range(draw.randint(5, 600))] for path in paths}
    for number in range(commits):
        chosen = paths if number == 0 else draw.sample(paths, draw.choice((1, 1, 1, 2, 3)))
        who = b"Bench <bench@example.org> %d +0100" % (1_700_000_000 + number)
        yield b"commit refs/heads/main\nmark :%d\n" % (number + 1)
        yield b"author %b\ncommitter %b\ndata 9\nan edit.\n\n" % (who, who)
        if number > 20 and number % 25 == 0:
            yield b"merge :%d\n" % (number - 10)
        for path in chosen:
            text = lines[path]
            at = draw.randrange(len(text))
            text[at : at + draw.randint(0, 3)] = [
                _line(draw, words) for _ in range(draw.randint(1, 3))
            ]
            data = b"".join(text)
            yield b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data)
        yield b"\n"


def _line(draw: random.Random, words: list[bytes]) -> bytes:
    return b" ".join(draw.choices(words, k=draw.randint(2, 9))) + b"\n"
