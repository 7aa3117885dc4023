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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import attrs

import cas
from bench import corpus_b
from bench.recall_queries import QUESTIONS
from tools import releases

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


WAYS: dict[str, dict[str, float]] = {
    "words_only": {"meaning": 0, "links": 0, "recency": 0, "importance": 0},
    "vector_only": {"text": 0, "links": 0, "recency": 0, "importance": 0},
    "hybrid": {"links": 0, "recency": 0, "importance": 0},
    "hybrid_recency_importance": {},
}
"""What each way of scoring leaves out; nothing is kept away as not relevant enough."""

Kinds = dict[str, list[tuple[str, str]]]
"""By kind of question: (what answers it, the question)."""


def scorings() -> dict[str, cas.Scoring]:
    """The ways as the product takes them."""
    return {way: attrs.evolve(cas.Scoring(floor=0), **weights) for way, weights in WAYS.items()}


class Ranking(NamedTuple):
    """What one question got: ids best first, and those that stand within 2,000 tokens."""

    order: list[str]
    given: list[str]


def rank(recall: cas.Recall, question: str, scoring: cas.Scoring) -> Ranking:
    """The product's answer."""
    answer = recall.recall(question, scoring=scoring, budget_tokens=2_000)
    given = [item.link.id for item in answer.items]
    given += [link.id for item in answer.items for link in item.folded]
    scored = [(item.score, item.link.id) for item in answer.items]
    scored += [(each.score, each.link.id) for each in answer.left_out if each.reason != "alike"]
    return Ranking([id for _, id in sorted(scored, key=lambda pair: -pair[0])], given)


def figures(cases: list[tuple[str, str]], rankings: Sequence[Ranking]) -> dict[str, float]:
    """Recall@1 and @10, MRR@50 and budget efficiency."""
    first = ten = inside = 0
    reciprocal = 0.0
    for (name, _), (order, given) in zip(cases, rankings, strict=True):
        place = order.index(name) + 1 if name in order[:50] else 0
        inside += name in given
        first += place == 1
        ten += 1 <= place <= 10
        reciprocal += 1 / place if place else 0
    count = len(cases)
    return {
        "recall@1": first / count,
        "recall@10": ten / count,
        "MRR": reciprocal / count,
        "in_budget": inside / count,
    }


def questions_of(root: Path) -> tuple[dict[str, str], Kinds]:
    """The texts by name, and all questions by kind."""
    texts = descriptions(root)
    named = {name.rsplit(".", 1)[1]: name for name in reversed(list(texts)) if _is_home(name)}
    frequency = Counter(
        word for text in texts.values() for word in set(re.findall(r"[a-z]{3,}", text.lower()))
    )
    drawn = random.Random(SEED).sample(sorted(texts), DRAWN)
    return texts, {
        "paraphrased": [(named[name], asked) for name, asked in QUESTIONS if name in named],
        "lexical": [(name, lexical(texts, name, frequency, 4)) for name in drawn],
        "short lexical": [(name, lexical(texts, name, frequency, 2)) for name in drawn],
    }


def of_half(kinds: Kinds, half: int) -> Kinds:
    """Every second question: 0 for the half that weights were chosen on, 1 for the other."""
    return {kind: cases[half::2] for kind, cases in kinds.items()}


def main() -> int:
    """Print a table; 1 where hybrid does not beat both of its parts on every kind."""
    texts, kinds = questions_of(releases.ready(None))
    kinds = of_half(kinds, 0 if "--chosen" in sys.argv else 1)
    counts = ", ".join(f"{len(cases)} {kind}" for kind, cases in kinds.items())
    print(f"{len(texts)} memories; questions: {counts}")
    results: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cas-recall-") as folder,
        cas.open(Path(folder) / "s", create=True) as store,
        cas.Recall(
            store, embedder="sentences" if "--sentences" in sys.argv else "default"
        ) as recall,
    ):
        fill(store, texts)
        while recall.follow().embedded:
            pass
        for kind, cases in kinds.items():
            for way, scoring in scorings().items():
                row = figures(cases, [rank(recall, asked, scoring) for _, asked in cases])
                results[f"{kind}: {way}"] = row
                print(f"{kind:14} {way:28}", *(f"{k} {v:.3f}" for k, v in row.items()))
    print(json.dumps(results))
    worse = [
        kind
        for kind in kinds
        for part in ("words_only", "vector_only")
        if results[f"{kind}: hybrid"]["MRR"] <= results[f"{kind}: {part}"]["MRR"]
    ]
    return 1 if worse else 0


def _is_home(name: str) -> bool:
    return name.rsplit(".", 1)[0].replace(".", "/") in _HOMES


def fill(store: cas.Store, texts: dict[str, str]) -> None:
    """Save the texts as memories under their names."""
    space = cas.Workspace(store)
    every = list(texts.items())
    for start in range(0, len(every), 500):
        with space.unit_of_work("bench") as uow:
            for name, text in every[start : start + 500]:
                uow.memories.add(cas.Memory(id=name, agent="bench", text=text))
            uow.commit()


if __name__ == "__main__":
    raise SystemExit(main())
