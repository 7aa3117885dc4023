"""Whether counts of references and a full mark say the same.

Floor 5; part of docs/design/029. Invariant: what counts would take and a mark keeps is always
told; what they would keep and a mark takes is told unless it is known why.
"""

from __future__ import annotations

from collections.abc import Iterator

from cas.maintenance.gc.colors import DROPPED, FREE, KEPT
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.reach import Marks
from cas.model.names import count

_LOOSE = frozenset((FREE, DROPPED))


def differences(counts: Counts, counted: Marks, marked: Marks) -> str:
    """What is to be told; nothing where both agree."""
    dictionaries = {id for _mark, id in counts.dictionaries}
    taken = sorted(set(_loose_in(counted, marked)))
    spared = sorted(set(_loose_in(marked, counted)) - dictionaries)
    parts = []
    if taken:
        parts.append(f"would have taken {count(len(taken), 'object')} that something leads to")
    if spared:
        parts.append(f"would have kept {count(len(spared), 'object')} that nothing leads to")
    if not parts:
        return ""
    example = (taken or spared)[0].hex()
    return (
        f"Counts of references {' and '.join(parts)} (one is {example}); they were thrown away, "
        "and nothing was taken on their word in this run."
    )


def _loose_in(one: Marks, other: Marks) -> Iterator[bytes]:
    """Ids of slots that are loose in one and kept in the other."""
    for number, colors in list(one.colors.items()):
        others = other.colors.get(number)
        if others is None or not (FREE in colors or DROPPED in colors):
            continue
        slots = [
            slot
            for slot, (color, against) in enumerate(zip(colors, others, strict=True))
            if color in _LOOSE and against == KEPT
        ]
        footer = one.footer(number) if slots else None
        if footer is not None:
            yield from map(footer.id_at, slots)
