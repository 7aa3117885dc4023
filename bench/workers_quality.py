"""Contenders of the row `recall-quality`, alone in a process: the product, and LangGraph's store.

`python workers_quality.py KIND` talks as `workers.py` does. Invariant: a ranking has ids, best
first, and of those the ones that stand within the budget.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench import workers_recall
from bench.workers import serve

Request = dict[str, Any]
BUDGET = 2_000


class Product:
    """`cas.Recall`, in each of the ways of `recall_quality.py`."""

    def __init__(self, request: Request) -> None:
        self.quality: Any = importlib.import_module("bench.recall_quality")
        cas: Any = importlib.import_module("cas")
        self.store = cas.open(request["path"], create=True)
        self.recall = cas.Recall(self.store)

    def do_put(self, request: Request) -> dict[str, Any]:
        self.quality.fill(self.store, request["texts"])
        return {}

    def do_rank(self, request: Request) -> dict[str, Any]:
        scoring = self.quality.scorings()[request["way"]]
        rank = self.quality.rank
        return {"rankings": [rank(self.recall, text, scoring) for text in request["questions"]]}


class LangGraph(workers_recall.LangGraph):
    """`SqliteStore.search`, filled into the budget in its order, with the package's estimate."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        tokens: Any = importlib.import_module("cas.recall.tokens")
        self.tokens = tokens.estimate_tokens

    def do_put(self, request: Request) -> dict[str, Any]:
        every = list(request["texts"].items())
        for start in range(0, len(every), workers_recall.GROUP):
            group = every[start : start + workers_recall.GROUP]
            self.store.batch(
                [self.put_op(("memories",), name, {"text": text}) for name, text in group]
            )
        return {}

    def do_rank(self, request: Request) -> dict[str, Any]:
        return {"rankings": [self._rank(question) for question in request["questions"]]}

    def _rank(self, question: str) -> tuple[list[str], list[str]]:
        order, given, room = [], [], BUDGET
        for item in self.store.search(("memories",), query=question, limit=100):
            order.append(item.key)
            room -= self.tokens(item.value["text"])
            if room >= 0:
                given.append(item.key)
        return order, given


if __name__ == "__main__":
    serve({"cas": Product, "langgraph": LangGraph}[sys.argv[1]])
