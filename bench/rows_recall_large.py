"""The row of search at 1,000,000 memories, beside 100,000 in the same run.

The first are corpus B; the others are made of halves of its texts (`workers_recall.memories`).
Invariant: both stores are asked the same questions by turns, and their texts are of one kind.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.context import Context
from bench.harness import Series
from bench.rows_recall import (
    BLOCK,
    COUNT,
    PAGES,
    PROGRAM,
    add_near,
    ask_by_turns,
    questions_of,
)

LARGE = 1_000_000
PAGE = 10_000
"""A page far behind: of 50 each, half of 1,000,000 memories are before it."""
AGENTS = ["planner", "reviewer", "researcher", "builder", "tester"]
"""Five of seven, so that their memories reach to that page."""


def row_recall_large(ctx: Context) -> None:
    """1,000,000 memories against 100,000: recall, page 10,000, recall@10 of the vectors."""
    if not ctx.has_api():
        return
    share = 20 if ctx.quick else 1
    small, large, page = COUNT // share, LARGE // share, PAGE // share
    row, folder = f"recall-{large}", ctx.fresh("recall-large")
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                ctx.worker("cas", program=PROGRAM, path=str(folder / f"{name}.cas"))
            )
            for name in ("small", "large")
        }
        for name, count in (("small", small), ("large", large)):
            ctx.say(f"filling a store with {count:,} memories …")
            filled = workers[name].ask("fill", root=str(ctx.root), count=count, follow=True)
            ctx.run.one(f"{row}/{name}/catch_up", count / filled["follows"], "1/s", "with vectors")
        questions = questions_of(ctx, small, ctx.rounds * BLOCK * 2)
        every = {f"{row}/{name}/seconds": (each, "ask") for name, each in workers.items()}
        ask_by_turns(ctx, questions, every)
        for name, worker in workers.items():
            add_near(ctx, f"{row}/{name}", worker, questions)
        pages = workers["large"].ask("pages", agents=AGENTS, pages=page + PAGES // 2)["seconds"]
        ctx.run.add(f"{row}/large/page_first", Series(tuple(pages[:PAGES]), "s"))
        ctx.run.add(f"{row}/large/page_far", Series(tuple(pages[-PAGES:]), "s"), f"page {page:,}")
