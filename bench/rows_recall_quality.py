"""The row of how well recall finds: words, vectors, both, and the peers' ways, on one set.

Questions and figures are those of `recall_quality.py`, on the half that nothing was tuned on.
"Vector only" is what a store gives that embeds and does nothing else (mem0's way). LangGraph's
store has the same embedder. Invariant: all answer the same questions over the same texts.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.context import Context
from bench.recall_quality import WAYS, Ranking, figures, of_half, questions_of

PROGRAM = Path(__file__).resolve().parent / "workers_quality.py"
JUDGED = tuple(
    (kind, part) for kind in ("paraphrased", "lexical") for part in ("words_only", "vector_only")
)
"""Hybrid is to be ahead of both of its parts, on both kinds."""


def row_recall_quality(ctx: Context) -> None:
    """9,855 descriptions: recall@k, MRR, share within 2,000 tokens, by words, vectors, both."""
    if not ctx.has_api():
        return
    texts, kinds = questions_of(ctx.root)
    kinds = of_half(kinds, 1)
    if ctx.quick:
        kinds = {kind: cases[:20] for kind, cases in kinds.items()}
    folder, peers = ctx.fresh("recall-quality"), {"cas": list(WAYS)}
    if ctx.has_module("langgraph.store.sqlite", "sqlite_vec", "pysqlite3", "numpy", "attrs"):
        peers["langgraph"] = ["langgraph"]
    with ExitStack() as stack:
        for peer, ways in peers.items():
            worker = stack.enter_context(
                ctx.worker(peer, program=PROGRAM, peer=peer != "cas", path=str(folder / peer))
            )
            worker.ask("put", texts=texts)
            for kind, cases in kinds.items():
                for way in ways:
                    answer = worker.ask("rank", questions=[asked for _, asked in cases], way=way)
                    found = figures(cases, [Ranking(*each) for each in answer["rankings"]])
                    for what, value in found.items():
                        name = "" if what == "MRR" else "_" + what.replace("@", "_at_")
                        key = f"recall-quality/{kind.replace(' ', '-')}/{way}{name}"
                        ctx.run.one(key, value, what, f"{len(cases)} questions")
