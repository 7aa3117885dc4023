"""Contenders of the row `recall`, alone in a process: the product, SQLite by hand, LangGraph.

`python workers_recall.py KIND` talks as `workers.py` does. Invariant: all keep the same memories,
and are asked the same questions with the same embedder; each answers with texts in a budget.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench import corpus_b
from bench.workers import serve

Request = dict[str, Any]
GROUP = 1_000
STRIDE = 7_919


def memory_of(raw: bytes) -> dict[str, Any]:
    """The fields of a memory of corpus B, whichever of its two forms it has."""
    text = raw.decode()
    if not text.startswith("---\n"):
        found: dict[str, Any] = json.loads(text)
        return found
    head, _, body = text[4:].partition("---\n")
    fields: dict[str, Any] = dict(line.split(": ", 1) for line in head.strip().splitlines())
    return {**fields, "importance": int(fields["importance"]), "text": body.rstrip("\n")}


def memories(root: Path, count: int) -> Iterator[dict[str, Any]]:
    """So many memories: corpus B, then the first half of each text before the second half of
    another one's, a farther one each time; with the ids of the first and a number.
    """
    known = [memory_of(raw) for raw in corpus_b.memories(root, count)]
    yield from known
    for number in range(len(known), count):
        turn, place = divmod(number, len(known))
        first, second = known[place], known[(place + turn * STRIDE) % len(known)]
        halves = first["text"], second["text"]
        head = halves[0][: len(halves[0]) // 2].rpartition(" ")[0]
        tail = halves[1][len(halves[1]) // 2 :].partition(" ")[2]
        yield {**first, "id": f"{first['id']}-{turn}", "text": f"{head} {tail}"}


class Contender:
    """What all have in common: the memories, and the clock around each question."""

    def __init__(self, request: Request) -> None:
        self.path = Path(request["path"])
        embed: Any = importlib.import_module("cas.recall.embed")
        self.embedder: Any = embed.default_embedder()

    def groups(self, request: Request) -> Iterator[list[dict[str, Any]]]:
        every = memories(Path(request["root"]), request["count"])
        while group := list(itertools.islice(every, GROUP)):
            yield group

    def timed(self, call: Callable[[str], int], questions: Sequence[str]) -> dict[str, Any]:
        """Seconds and processor seconds of each, and how many answers came in all."""
        seconds, processor, given = [], [], 0
        for question in questions:
            started, used = time.perf_counter(), time.thread_time()
            given += call(question)
            processor.append(time.thread_time() - used)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "processor": processor, "given": given}

    def do_ask(self, request: Request) -> dict[str, Any]:
        return self.timed(lambda text: self.answer(text, request["budget"]), request["questions"])

    def do_settle(self, request: Request) -> dict[str, Any]:
        """Wait for what is read beside the first questions."""
        for thread in threading.enumerate():
            if thread.name == "cas-recall-words":
                thread.join()
        return {}

    def answer(self, question: str, budget: int) -> int:
        raise NotImplementedError


class Product(Contender):
    """`cas.Recall` over a store; commits of a thousand memories."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.cas: Any = importlib.import_module("cas")
        self.store = self.cas.open(request["path"], create=True)
        model = "default" if request.get("embed", True) else None
        self.recall = self.cas.Recall(self.store, embedder=model, index=request.get("index"))

    def do_fill(self, request: Request) -> dict[str, Any]:
        """Seconds of commits alone, and with the index following each."""
        record: Any = importlib.import_module("cas.workspace.codec").to_record
        commits = follows = raw = 0.0
        for group in self.groups(request):
            values = [self._memory(fields) for fields in group]
            raw += sum(len(value.text.encode()) for value in values)
            used = time.process_time()
            with self.store.begin(author="bench") as tx:
                edit = tx.branch("memory/main")
                for value in values:
                    edit[f"memories/{value.id}"] = record(value)
                tx.commit()
            commits += time.process_time() - used
            if request["follow"]:
                used = time.process_time()
                self.recall.follow()
                follows += time.process_time() - used
        return {"commits": commits, "follows": follows, "raw": raw}

    def do_units(self, request: Request) -> dict[str, Any]:
        """Units of work with one memory each into two stores by turns, a block each, of which one
        has an index that keeps up: seconds of both, and processor seconds. A block ends when the
        index has all of it.
        """
        groups = list(self.groups({**request, "count": request["units"]}))
        kinds = ("alone", "followed")
        stores = {kind: self.cas.open(f"{self.path}-{kind}", create=True) for kind in kinds}
        spaces = {kind: self.cas.Workspace(store) for kind, store in stores.items()}
        seconds, processor = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0.0)
        with self.cas.Recall(stores["followed"]) as recall:
            recall.keep_up()
            recall.follow()
            for number, group in enumerate(groups):
                for kind in kinds if number % 2 else reversed(kinds):
                    started, used = time.perf_counter(), time.process_time()
                    for fields in group:
                        self._note(spaces[kind], fields)
                    if kind == "followed":
                        recall.follow()
                    processor[kind] += time.process_time() - used
                    seconds[kind] += time.perf_counter() - started
            found = recall.count(self.cas.Memory)
        for store in stores.values():
            store.close()
        return {"seconds": seconds, "processor": processor, "found": found}

    def _note(self, space: Any, fields: dict[str, Any]) -> None:
        with space.unit_of_work("bench") as uow:
            uow.memories.note(
                fields["text"],
                agent=fields["agent"],
                kind=fields["kind"],
                importance=fields["importance"] / 10,
                tags=[fields["sprint"]],
            )
            uow.commit()

    def do_follow(self, request: Request) -> dict[str, Any]:
        """Processor seconds of the index, made of what others have committed."""
        used = time.process_time()
        done = self.recall.follow()
        seconds = time.process_time() - used
        self.recall.projection.read(lambda db: db.run("PRAGMA wal_checkpoint(TRUNCATE)"))
        size = Path(self.recall.projection.path).stat().st_size
        return {"processor": seconds, "records": done.records, "bytes": size}

    def _memory(self, fields: dict[str, Any]) -> Any:
        return self.cas.Memory(
            id=fields["id"],
            agent=fields["agent"],
            text=fields["text"],
            kind=fields["kind"],
            importance=fields["importance"] / 10,
            tags=frozenset([fields["sprint"]]),
        )

    def do_rebuild(self, request: Request) -> dict[str, Any]:
        """Processor seconds of the index made anew, with or without vectors."""
        embedder = self.embedder if request["embed"] else None
        with self.cas.Recall(self.store, embedder=embedder) as recall:
            used = time.process_time()
            done = recall.projection.rebuild()
            seconds = time.process_time() - used
            recall.projection.read(lambda db: db.run("PRAGMA wal_checkpoint(TRUNCATE)"))
            size = Path(recall.projection.path).stat().st_size
        self.recall.close()
        return {"seconds": seconds, "records": done.records, "bytes": size}

    def answer(self, question: str, budget: int) -> int:
        return len(self.recall.recall(question, budget_tokens=budget).items)

    def do_then(self, request: Request) -> dict[str, Any]:
        """The same questions as of half the history."""
        half = self.store.view().seq // 2

        def ask(question: str) -> int:
            found = self.recall.recall(question, budget_tokens=request["budget"], as_of=half)
            return len(found.items)

        return self.timed(ask, request["questions"])

    def do_near(self, request: Request) -> dict[str, Any]:
        """Of the ten vectors nearest to each question the share that the index finds. Others that
        are as near as the tenth are as good.
        """
        np: Any = importlib.import_module("numpy")
        vectors: Any = importlib.import_module("cas.recall.vectors")
        shares = []
        self.answer(request["questions"][0], 100)  # reads what is new
        arena = self.recall._engine.arena
        held = arena.held_at(self.recall.position())
        every = np.flatnonzero(held)
        for vector in self.embedder.embed(request["questions"]):
            (packed,) = vectors.unpack(vectors.pack_vectors([vector], len(vector), 1), len(vector))
            least = np.partition(arena.nearness(packed, every), -10)[-10]
            _, near = arena.nearest(packed, arena.choosing(packed, held)(), 10)
            shares.append(float(np.count_nonzero(near >= least)) / 10)
        return {"shares": shares}

    def do_pages(self, request: Request) -> dict[str, Any]:
        """Seconds and processor seconds of pages of 50 from the first on, whole ones; the very
        first one opens the index and is left out.
        """
        where = {"agent": request["agents"]}
        found, processor = [], []
        cursor, many = None, request.get("pages", 1 << 62)
        while len(found) <= many:
            started, used = time.perf_counter(), time.thread_time()
            page = self.recall.find(self.cas.Memory, where, order="-time", limit=50, after=cursor)
            processor.append(time.thread_time() - used)
            found.append(time.perf_counter() - started)
            cursor = page.cursor
            if cursor is None:
                break
        end = len(found) if cursor else -1
        return {"seconds": found[1:end], "processor": processor[1:end]}


class Hand(Contender):
    """A table, FTS5 and an array of vectors, as a program would have them of its own."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.np: Any = importlib.import_module("numpy")
        self.db = sqlite3.connect(self.path)
        self.db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE item(doc INTEGER PRIMARY KEY, id TEXT, agent TEXT, kind TEXT,"
            " importance INTEGER, sprint TEXT, text TEXT);"
            "CREATE INDEX item_agent ON item(agent, doc); CREATE INDEX item_id ON item(id);"
            "CREATE INDEX item_importance ON item(importance, doc);"
            "CREATE VIRTUAL TABLE full USING fts5(text, content='item', content_rowid='doc',"
            " tokenize='porter unicode61 remove_diacritics 2')"
        )
        self.vectors: Any = self.np.zeros((0, 256), self.np.float32)

    def do_fill(self, request: Request) -> dict[str, Any]:
        """Processor seconds of rows alone, and of vectors."""
        rows = embeds = 0.0
        doc, parts = 0, []
        for group in self.groups(request):
            used = time.process_time()
            names = ("id", "agent", "kind", "importance", "sprint", "text")
            values = [(doc + n, *(each[name] for name in names)) for n, each in enumerate(group)]
            with self.db:
                self.db.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                texts = [(value[0], value[-1]) for value in values]
                self.db.executemany("INSERT INTO full(rowid, text) VALUES (?, ?)", texts)
            rows += time.process_time() - used
            used = time.process_time()
            parts.append(self.embedder.embed([each["text"] for each in group]))
            embeds += time.process_time() - used
            doc += len(group)
        self.vectors = self.np.concatenate(parts)
        return {"rows": rows, "embeds": embeds}

    def answer(self, question: str, budget: int) -> int:
        np = self.np
        words = " OR ".join(f'"{word}"' for word in question.split())
        text = dict(
            self.db.execute(
                "SELECT rowid, -bm25(full) FROM full WHERE full MATCH ? ORDER BY 2 DESC LIMIT 100",
                (words,),
            ).fetchall()
        )
        near = self.vectors @ self.embedder.embed([question])[0]
        docs = np.argpartition(-near, min(100, len(near) - 1))[:100].tolist()
        most = max(text.values(), default=1.0) or 1.0
        scores = {doc: text.get(doc, 0.0) / most + float(near[doc]) for doc in {*docs, *text}}
        given, room = 0, budget
        for doc in sorted(scores, key=lambda doc: -scores[doc]):
            (body,) = self.db.execute("SELECT text FROM item WHERE doc = ?", (doc,)).fetchone()
            if len(body) // 4 > room:
                break
            given, room = given + 1, room - len(body) // 4
        return given


def load_extensions() -> None:
    """Where this interpreter's `sqlite3` loads no extensions, as that of many systems, let
    pysqlite3 stand in its place for all that is imported from now on. Raises ImportError.
    """
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        sys.modules["sqlite3"] = importlib.import_module("pysqlite3")


class LangGraph(Contender):
    """LangGraph's SqliteStore with its index of vectors (sqlite-vec) and the same embedder."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        load_extensions()
        base: Any = importlib.import_module("langgraph.store.base")
        kept: Any = importlib.import_module("langgraph.store.sqlite")
        self.put_op = base.PutOp

        def embed(texts: Sequence[str]) -> list[list[float]]:
            found: list[list[float]] = self.embedder.embed(list(texts)).tolist()
            return found

        index = {"dims": 256, "embed": embed, "fields": ["text"]}
        self.context = kept.SqliteStore.from_conn_string(str(self.path), index=index)
        self.store = self.context.__enter__()
        self.store.setup()

    def do_fill(self, request: Request) -> dict[str, Any]:
        """Processor seconds of batches of a thousand."""
        seconds = 0.0
        for group in self.groups(request):
            used = time.process_time()
            self.store.batch(
                [self.put_op(("memories", each["agent"]), each["id"], each) for each in group]
            )
            seconds += time.process_time() - used
        return {"rows": seconds}

    def answer(self, question: str, budget: int) -> int:
        given, room = 0, budget
        for item in self.store.search(("memories",), query=question, limit=100):
            size = len(item.value["text"]) // 4
            if size > room:
                break
            given, room = given + 1, room - size
        return given


KINDS: dict[str, Callable[[Request], Any]] = {
    "cas": Product,
    "hand": Hand,
    "langgraph": LangGraph,
}

if __name__ == "__main__":
    serve(KINDS[sys.argv[1]])
