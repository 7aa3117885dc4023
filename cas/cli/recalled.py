"""An answer of recall as `cas recall` prints it: its reasons for people, all of it for programs."""

from __future__ import annotations

from typing import Any

from cas.model.names import printable
from cas.recall.recalled import Item, Recalled


def safe(text: str) -> str:
    """Lines of a text that a terminal may be shown."""
    return "\n".join(map(printable, text.splitlines()))


def reasons(found: Recalled) -> list[str]:
    """Scores with their parts, and what was left out and why."""
    lines = [f"-- state after entry {found.seq}, {found.tokens} tokens"]
    for item in found.items:
        parts = item.parts
        lines.append(
            f"{item.score:.3f}  {item.link.loose}  text {parts.text:.2f}, meaning "
            f"{parts.meaning:.2f}, links {parts.links:.2f}, recency {parts.recency:.2f}, "
            f"importance {parts.importance:.2f}, feedback {parts.feedback:.2f}, trust "
            f"{parts.trust:.2f}"
        )
    for each in found.left_out:
        by = "" if each.by is None else f" by {each.by.loose}"
        lines.append(f"{each.score:.3f}  {each.link.loose}  left out: {each.reason}{by}")
    return [printable(line) for line in (*lines, *left_out_lines(found))]


def left_out_lines(found: Recalled) -> list[str]:
    """How many were left out, for each reason."""
    return [f"{count} left out: {reason}" for reason, count in found.counts.items()]


def answer(found: Recalled) -> dict[str, Any]:
    """An answer as a document."""
    return {
        "seq": found.seq,
        "tokens": found.tokens,
        "digest": found.digest,
        "receipt": None if found.receipt is None else str(found.receipt),
        "items": [_item(item) for item in found.items],
        "left_out": [
            {
                "link": str(each.link),
                "reason": each.reason,
                "score": each.score,
                "by": None if each.by is None else str(each.by),
            }
            for each in found.left_out
        ],
        "counts": [{"reason": r, "count": n} for r, n in found.counts.items()],
        "notices": list(found.notices),
    }


def _item(item: Item) -> dict[str, Any]:
    names = ("text", "meaning", "links", "recency", "importance", "feedback", "trust")
    return {
        "link": str(item.link),
        "content": item.text,
        "score": item.score,
        "tokens": item.tokens,
        "pinned": item.pinned,
        "folded": [str(link) for link in item.folded],
        "parts": {name: getattr(item.parts, name) for name in names},
    }
