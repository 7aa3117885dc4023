"""The row of search: what an answer costs, pages, and how fast the index is made.

Contenders are processes of their own (workers_recall.py) with the same memories of corpus B, the
same questions (six words in a row of a memory) and the same embedder; they answer by turns, a block
of questions each. Rates are of processor time, so that a busy machine does not change them.
Invariant: every question is new to every contender, and each of them answers it with texts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import corpus_b
from bench.context import Context, Worker
from bench.harness import Series
from bench.workers_recall import memory_of

PROGRAM = Path(__file__).resolve().parent / "workers_recall.py"
COUNT = 100_000
BUDGET = 2_000
BLOCK = 20
SEED = 20_261_130
PAGES = 20
"""At either end, whose median is taken."""


def row_recall(ctx: Context) -> None:
    """100,000 memories: recall p50 and p99, as of half the history, pages, rates of the index."""
    if not ctx.has_api():
        return
    count = COUNT // 20 if ctx.quick else COUNT
    row, folder = f"recall-{count}", ctx.fresh("recall")
    kinds = ["cas", "hand"]
    if ctx.has_module("langgraph.store.sqlite", "sqlite_vec", "pysqlite3", "numpy", "attrs"):
        kinds.append("langgraph")
    fill = {"root": str(ctx.root), "count": count, "follow": True}
    _words(ctx, row, folder, fill)
    with ExitStack() as stack:
        workers = {
            kind: stack.enter_context(
                ctx.worker(kind, program=PROGRAM, peer=kind == "langgraph", path=str(folder / kind))
            )
            for kind in kinds
        }
        filled = {kind: worker.ask("fill", **fill) for kind, worker in workers.items()}
        _rates(ctx, row, count, filled)
        cas = workers["cas"]
        questions = questions_of(ctx, count, ctx.rounds * BLOCK * 2)
        ask_by_turns(
            ctx,
            questions,
            {
                **{f"{row}/{kind}/seconds": (each, "ask") for kind, each in workers.items()},
                f"{row}/cas/then": (cas, "then"),
            },
        )
        add_near(ctx, f"{row}/cas", cas, questions)
        pages = cas.ask("pages", agents=["planner"])
        for name, part in (("first", slice(PAGES)), ("last", slice(-PAGES, None))):
            for what, end in (("seconds", ""), ("processor", "_processor")):
                ctx.run.add(f"{row}/cas/page_{name}{end}", Series(tuple(pages[what][part]), "s"))
        for embed, name in ((False, "rebuild"), (True, "rebuild_vectors")):
            made = cas.ask("rebuild", embed=embed)
            ctx.run.one(f"{row}/cas/{name}", made["records"] / made["seconds"], "1/s")
        ctx.run.one(f"{row}/cas/bytes", made["bytes"], "B", "int8 vectors included")
        ctx.run.one(f"{row}/cas/raw", filled["cas"]["raw"], "B", "the texts alone")
        _units(ctx, row, cas, count // 5)


def ask_by_turns(
    ctx: Context, questions: list[str], asked: Mapping[str, tuple[Worker, str]]
) -> None:
    """Ask all, a block each by turns, and record median and p99 by key; the first block does not
    count, which reads what is read once, and what goes on being read beside it is waited for.
    """
    seconds: dict[str, list[float]] = {key: [] for key in asked}
    used: dict[str, list[float]] = {key: [] for key in asked}
    for start in range(0, len(questions), BLOCK):
        for key, (worker, how) in asked.items():
            block = questions[start : start + BLOCK]
            answer = worker.ask(how, questions=block, budget=BUDGET)
            if not answer["given"]:
                raise AssertionError(f"{key}: nothing was found")
            if not start:
                worker.ask("settle")
            seconds[key] += answer["seconds"] if start else []
            used[key] += answer["processor"] if start else []
    for key, found in seconds.items():
        ctx.run.add(key, Series(tuple(found), "s"))
        ctx.run.add(key + "_processor", Series(tuple(used[key]), "s"))
        ctx.run.one(key + "_p99", sorted(found)[len(found) * 99 // 100], "s")


def add_near(ctx: Context, name: str, worker: Worker, questions: list[str]) -> None:
    """Recall@10 of the index of vectors against all of them compared."""
    shares = worker.ask("near", questions=questions)["shares"]
    note = f"the mean of {len(shares)} questions"
    ctx.run.one(f"{name}/recall_at_10", sum(shares) / len(shares), "of exact", note)


def _words(ctx: Context, row: str, folder: Path, fill: dict[str, object]) -> None:
    """An index without vectors that follows each commit of a thousand."""
    with ctx.worker("cas", program=PROGRAM, path=str(folder / "words"), embed=False) as worker:
        follows = worker.ask("fill", **fill)["follows"]
    ctx.run.one(f"{row}/cas/catch_up_words", float(str(fill["count"])) / follows, "1/s")


def _units(ctx: Context, row: str, worker: Worker, count: int) -> None:
    """Commits of one memory each, with an index that keeps up and without."""
    units = worker.ask("units", root=str(ctx.root), units=count)
    if units["found"] != count:
        raise AssertionError(f"the index has {units['found']} of {count}")
    for kind, name in (("alone", "units"), ("followed", "units_followed")):
        ctx.run.one(f"{row}/cas/{name}", units["processor"][kind], "s", "processor time")
        ctx.run.one(f"{row}/cas/{name}_seconds", units["seconds"][kind], "s")


def _rates(ctx: Context, row: str, count: int, filled: dict[str, dict[str, float]]) -> None:
    product, hand = filled["cas"], filled["hand"]
    ctx.run.one(f"{row}/cas/commits", product["commits"], "s", "processor time, without the index")
    both = product["commits"] + product["follows"]
    ctx.run.one(f"{row}/cas/commits_followed", both, "s", "the index with vectors follows each")
    ctx.run.one(f"{row}/cas/catch_up", count / product["follows"], "1/s", "with vectors")
    ctx.run.one(f"{row}/hand/rows", count / hand["rows"], "1/s", "without vectors")
    ctx.run.one(f"{row}/hand/all", count / (hand["rows"] + hand["embeds"]), "1/s")
    if "langgraph" in filled:
        ctx.run.one(f"{row}/langgraph/all", count / filled["langgraph"]["rows"], "1/s")


def questions_of(ctx: Context, count: int, wanted: int) -> list[str]:
    """Six words in a row of a memory, drawn by seed, each of another one."""
    rng = random.Random(SEED)
    found = []
    for raw in rng.sample(corpus_b.memories(ctx.root, count), min(count, 2 * wanted)):
        words = re.findall(r"[A-Za-z]{4,}", memory_of(raw)["text"])
        if len(words) >= 8:
            at = rng.randrange(len(words) - 6)
            found.append(" ".join(words[at : at + 6]))
    return found[:wanted]
