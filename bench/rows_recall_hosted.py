"""The row of search on a store on PostgreSQL: one index that hosts share, against one a host.

A server of its own runs beside the workers. *Shared* follows into the tables beside the catalog,
*own* into a file; both answer the same questions by turns. *Join* is a new process that asks its
first question: of a shared index that others have made, and with an index of its own still to be
made. Invariant: each of them answers, and the answers are as many.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.context import Context
from bench.harness import Series
from bench.rows_hosted import _server, _urls
from bench.rows_recall import BLOCK, BUDGET, PROGRAM, questions_of

COUNT = 20_000


def row_recall_hosted(ctx: Context) -> None:
    """20,000 memories on PostgreSQL: following, answers and joining, shared against own index."""
    if not ctx.has_api():
        return
    count = COUNT // 10 if ctx.quick else COUNT
    row = f"recall-hosted-{count}"
    with _server(ctx) as server, ExitStack() as stack:
        if server is None:
            return
        (url,) = _urls(ctx, server, "recall", 1)

        def worker(index: str) -> Any:
            return stack.enter_context(ctx.worker("cas", program=PROGRAM, path=url, index=index))

        shared, own = worker("database"), worker(str(ctx.fresh("own") / "index.db"))
        filled = shared.ask("fill", root=str(ctx.root), count=count, follow=True)
        ctx.run.one(f"{row}/shared/catch_up", count / filled["follows"], "1/s", "of the client")
        made = own.ask("follow")
        ctx.run.one(f"{row}/own/catch_up", made["records"] / made["processor"], "1/s")
        questions = questions_of(ctx, count, ctx.rounds * BLOCK * 2)
        found: dict[str, list[float]] = {}
        for start in range(0, len(questions), BLOCK):
            asked = {"questions": questions[start : start + BLOCK], "budget": BUDGET}
            given = set()
            for name, each in (("shared", shared), ("own", own)):
                answer = each.ask("ask", **asked)
                given.add(answer["given"])
                for what in ("seconds", "processor"):
                    # The first block opens what is read once.
                    found.setdefault(f"{name}/{what}", []).extend(answer[what] if start else [])
            if len(given) != 1:
                raise AssertionError("a shared index and one of its own give other answers")
        for name, series in found.items():
            ctx.run.add(f"{row}/{name}", Series(tuple(series), "s"))
        for name, index in (("shared", "database"), ("own", str(ctx.fresh("own") / "new.db"))):
            answer = worker(index).ask("ask", questions=questions[:1], budget=BUDGET)
            ctx.run.one(f"{row}/{name}/join", answer["seconds"][0], "s")
        ((size,),) = server.run(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relnamespace = 'cas_search'::regnamespace AND relkind = 'r'"
        )
        ctx.run.one(f"{row}/shared/bytes", float(size), "B", "tables and indexes")
        ctx.run.one(f"{row}/own/bytes", made["bytes"], "B")
        ctx.run.one(f"{row}/texts/bytes", filled["raw"], "B", "the texts alone")
