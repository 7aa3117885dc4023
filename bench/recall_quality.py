"""How well recall finds: words alone, meaning alone, both, both with recency and importance.

The memories are the descriptions of all modules of the pinned ansible wheel (short description and
paragraphs, about 10,000, of which hundreds are near each other); the questions are

- paraphrased: those of `recall_queries.py`, written by hand in other words;
- lexical: for 1,200 modules drawn by seed their four rarest words, as somebody types who remembers
  them; short lexical: their two rarest.

Every second question of each kind was used to choose weights; reported are the others alone: by
recall@1, recall@10, MRR@50, and budget efficiency, the share of questions whose answer stands
within 2,000 tokens of recall. `vector only` is what a store that embeds and nothing else gives
(mem0's way). Every number is printed with the weights it was made with.

    python bench/recall_quality.py            # --chosen: the half that weights were chosen on
    python bench/recall_quality.py --sentences  # the model that is an extra, some minutes
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import cas
from bench import corpus, corpus_b
from bench.recall_queries import QUESTIONS

_MODULE = re.compile(r"ansible_collections/([^/]+/[^/]+)/plugins/modules/([a-z0-9_]+)\.py$")
_SHORT = re.compile(r"^short_description:\s*(.+?)\s*$", re.MULTILINE)
_LONG = re.compile(r"^description:\s*\n((?:[ \t-].*\n|\n)+)", re.MULTILINE)
_MARKUP = re.compile(r"\b[A-Z]+\(([^)]*)\)")
_HOMES = (
    *("community/general", "ansible/posix", "community/docker", "community/postgresql"),
    *("community/mysql", "community/crypto", "community/windows"),
)
SEED = 8
DRAWN = 1_200


def descriptions(root: Path) -> dict[str, str]:
    """collection.module -> what its documentation says it does, each text once."""
    (wheel,) = (path for path in corpus_b.wheels(root) if path.name.startswith("ansible-"))
    found: dict[str, str] = {}
    seen: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            match = _MODULE.search(name)
            if match is None:
                continue
            source = archive.read(name).decode("utf-8", "replace")
            text = _description(source)
            if text and text not in seen:
                seen.add(text)
                found[f"{match[1]}/{match[2]}".replace("/", ".")] = text
    return found


def _description(source: str) -> str:
    short, long = _SHORT.search(source), _LONG.search(source)
    if short is None or long is None:
        return ""
    lines = [line.strip(" -\t\"'") for line in long[1].splitlines()]
    text = f"{short[1].strip(chr(34) + chr(39))}. {' '.join(line for line in lines if line)}"
    return _MARKUP.sub(r"\1", text)[:2_000]


def lexical(texts: dict[str, str], name: str, frequency: Counter[str], count: int) -> str:
    """The rarest words of a description that stand elsewhere too, in its order."""
    words = list(dict.fromkeys(re.findall(r"[a-z]{3,}", texts[name].lower())))
    rare = sorted((word for word in words if frequency[word] > 1), key=lambda w: frequency[w])[
        :count
    ]
    return " ".join(word for word in words if word in rare)


WAYS = {
    "words only": cas.Scoring(meaning=0, links=0, recency=0, importance=0, floor=0),
    "vector only": cas.Scoring(text=0, links=0, recency=0, importance=0, floor=0),
    "hybrid": cas.Scoring(links=0, recency=0, importance=0, floor=0),
    "hybrid, recency, importance": cas.Scoring(floor=0),
}


def measure(
    recall: cas.Recall, cases: list[tuple[str, str]], scoring: cas.Scoring
) -> dict[str, float]:
    """Recall, MRR and budget efficiency of one way of scoring."""
    first = ten = inside = 0
    reciprocal = 0.0
    for name, question in cases:
        answer = recall.recall(question, scoring=scoring, budget_tokens=2_000)
        inside += any(item.link.id == name for item in answer.items)
        inside += any(link.id == name for item in answer.items for link in item.folded)
        scored = [(item.score, item.link.id) for item in answer.items]
        scored += [(each.score, each.link.id) for each in answer.left_out if each.reason != "alike"]
        order = [id for _, id in sorted(scored, key=lambda pair: -pair[0])][:50]
        place = order.index(name) + 1 if name in order else 0
        first += place == 1
        ten += 1 <= place <= 10
        reciprocal += 1 / place if place else 0
    count = len(cases)
    return {
        "recall@1": first / count,
        "recall@10": ten / count,
        "MRR": reciprocal / count,
        "in 2,000 tokens": inside / count,
    }


def main() -> int:
    """Print a table; 1 where hybrid does not beat both of its parts on every kind."""
    texts = descriptions(corpus.ready(None))
    named = {name.rsplit(".", 1)[1]: name for name in reversed(list(texts)) if _is_home(name)}
    missing = [name for name, _ in QUESTIONS if name not in named]
    frequency = Counter(
        word for text in texts.values() for word in set(re.findall(r"[a-z]{3,}", text.lower()))
    )
    questions = [(named[name], question) for name, question in QUESTIONS if name in named]
    drawn = random.Random(SEED).sample(sorted(texts), DRAWN)
    kinds = {
        "paraphrased": questions,
        "lexical": [(name, lexical(texts, name, frequency, 4)) for name in drawn],
        "short lexical": [(name, lexical(texts, name, frequency, 2)) for name in drawn],
    }
    chosen = 0 if "--chosen" in sys.argv else 1
    kinds = {kind: cases[chosen::2] for kind, cases in kinds.items()}
    counts = ", ".join(f"{len(cases)} {kind}" for kind, cases in kinds.items())
    print(f"{len(texts)} memories; questions: {counts}; not there: {missing}")
    results: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cas-recall-") as folder,
        cas.open(Path(folder) / "s", create=True) as store,
        cas.Recall(
            store, embedder="sentences" if "--sentences" in sys.argv else "default"
        ) as recall,
    ):
        _fill(store, texts)
        while recall.follow().embedded:
            pass
        for kind, cases in kinds.items():
            for way, scoring in WAYS.items():
                results[f"{kind}: {way}"] = row = measure(recall, cases, scoring)
                print(f"{kind:14} {way:28}", *(f"{k} {v:.3f}" for k, v in row.items()))
    print(json.dumps(results))
    worse = [
        kind
        for kind in kinds
        for part in ("words only", "vector only")
        if results[f"{kind}: hybrid"]["MRR"] <= results[f"{kind}: {part}"]["MRR"]
    ]
    return 1 if worse else 0


def _is_home(name: str) -> bool:
    return name.rsplit(".", 1)[0].replace(".", "/") in _HOMES


def _fill(store: cas.Store, texts: dict[str, str]) -> None:
    space = cas.Workspace(store)
    every = list(texts.items())
    for start in range(0, len(every), 500):
        with space.unit_of_work("bench") as uow:
            for name, text in every[start : start + 500]:
                uow.memories.add(cas.Memory(id=name, agent="bench", text=text))
            uow.commit()


if __name__ == "__main__":
    raise SystemExit(main())
