"""The row of search: what an answer costs, pages, and how fast the index is made.

Contenders are processes of their own (workers_recall.py) with the same memories of corpus B, the
same questions (six words in a row of a memory) and the same embedder; they answer by turns, a block
of questions each. Rates are of processor time, so that a busy machine does not change them.
Invariant: every question is new to every contender, and each of them answers it with texts.
"""

from __future__ import annotations

import random
import re
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
    with ExitStack() as stack:
        workers = {
            kind: stack.enter_context(
                ctx.worker(kind, program=PROGRAM, peer=kind == "langgraph", path=str(folder / kind))
            )
            for kind in kinds
        }
        filled = {kind: worker.ask("fill", **fill) for kind, worker in workers.items()}
        _rates(ctx, row, count, filled)
        questions = _questions(ctx, count, ctx.rounds * BLOCK * 2)
        seconds: dict[str, list[float]] = {kind: [] for kind in (*kinds, "then")}
        used: dict[str, list[float]] = {kind: [] for kind in (*kinds, "then")}
        for start in range(0, len(questions), BLOCK):
            asked = {"questions": questions[start : start + BLOCK], "budget": BUDGET}
            for kind, worker in workers.items():
                answer = worker.ask("ask", **asked)
                if not answer["given"]:
                    raise AssertionError(f"{kind} found nothing")
                # The first block opens what is read once.
                seconds[kind] += answer["seconds"] if start else []
                used[kind] += answer["processor"] if start else []
            answer = workers["cas"].ask("then", **asked)
            seconds["then"] += answer["seconds"] if start else []
            used["then"] += answer["processor"] if start else []
        for kind, found in seconds.items():
            name = f"{row}/cas/then" if kind == "then" else f"{row}/{kind}/seconds"
            ctx.run.add(name, Series(tuple(found), "s"))
            ctx.run.add(name + "_processor", Series(tuple(used[kind]), "s"))
            ctx.run.one(name + "_p99", sorted(found)[len(found) * 99 // 100], "s")
        pages = workers["cas"].ask("pages")
        for name, series in pages.items():
            ctx.run.add(f"{row}/cas/{name}", Series(tuple(series), "s"))
        for embed, name in ((False, "rebuild"), (True, "rebuild_vectors")):
            made = workers["cas"].ask("rebuild", embed=embed)
            ctx.run.one(f"{row}/cas/{name}", made["records"] / made["seconds"], "1/s")
        ctx.run.one(f"{row}/cas/bytes", made["bytes"], "B", "int8 vectors included")
        ctx.run.one(f"{row}/cas/raw", filled["cas"]["raw"], "B", "the texts alone")
        _units(ctx, row, workers["cas"], count // 5)


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


def _questions(ctx: Context, count: int, wanted: int) -> list[str]:
    rng = random.Random(SEED)
    found = []
    for raw in rng.sample(corpus_b.memories(ctx.root, count), min(count, 2 * wanted)):
        words = re.findall(r"[A-Za-z]{4,}", memory_of(raw)["text"])
        if len(words) >= 8:
            at = rng.randrange(len(words) - 6)
            found.append(" ".join(words[at : at + 6]))
    return found[:wanted]
