"""The oracle for counts of references: a full mark beside each time they are believed.

Whatever test runs gc under `against_full_marks` fails where colors, counts or lost bases differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cas.errors import Uncounted
from cas.history.upkeep import KeptRow
from cas.maintenance.gc import coloring, counting, forward
from cas.maintenance.gc.colors import DROPPED, FREE, KEPT
from cas.maintenance.gc.columns import KEY_BYTES, entries_in, split
from cas.maintenance.gc.counting import Tally
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.reach import Marks
from cas.maintenance.gc.roots import Roots
from cas.model.ids import Kind, ObjectId
from cas.objects.store import ObjectStore


class Seen:
    """What happened under the oracle."""

    def __init__(self) -> None:
        self.compared = 0
        self.refused: list[str] = []
        self.taken = 0


def counted(counts: Counts) -> dict[bytes, int]:
    """All counts that are not 0."""
    found: dict[bytes, int] = {}
    for block in counts.column.blocks() if counts.column is not None else ():
        found.update(map(split, entries_in(block)))
    found.update(counts.changed)
    return {key: number for key, number in found.items() if number}


def full_mark(objects: ObjectStore, roots: Roots, folder: str) -> tuple[Counts, Marks]:
    """Everything marked, and counted from nothing."""
    marks = Marks(objects, roots.thinned)
    marks.begin()
    marks.deferring = True
    tally = marks.tally = Tally(folder)
    marks.keep(roots.all_kept, "a root")
    marks.keep_kind(Kind.SEGMENT)
    marks.drop([*roots.dropped, *(tree for _commit, tree in marks.given_up)])
    marks.tally = None
    elsewhere = SimpleNamespace(cache=folder, clock=objects.clock, catalog=objects.catalog)
    counts = coloring.finish(tally, cast("Any", elsewhere), roots, marks)
    tally.close()
    assert counts is not None
    return counts, marks


def compare(objects: ObjectStore, roots: Roots, counts: Counts, marks: Marks, seen: Seen) -> None:
    """Fail where a full mark says something else."""
    with TemporaryDirectory() as folder:
        expected, full = full_mark(objects, roots, folder)
        if full.version != marks.version:
            return  # somebody was at work between the two
        seen.compared += 1
        dictionaries = {id for _mark, id in counts.dictionaries}
        assert marks.colors.keys() == full.colors.keys()
        for number, colors in full.colors.items():
            footer = full.footer(number)
            assert footer is not None
            for slot, (color, own) in enumerate(zip(colors, marks.colors[number], strict=True)):
                seen.taken += own in (FREE, DROPPED)
                if color != own:
                    id = footer.id_at(slot)
                    assert id in dictionaries, (id.hex(), color, own)
                    assert own == KEPT, (id.hex(), color, own)
        # A segment that a catalog put back has lost stays counted, and keeps nothing.
        lost = counts.segments - expected.segments
        assert not any(objects.has(ObjectId(id)) for id in lost)
        keys = {id[:KEY_BYTES] for id in lost}
        found = {key: n for key, n in counted(counts).items() if key not in keys}
        assert found == counted(expected)
        assert counts.unkept == expected.unkept
        assert counts.roots - lost == expected.roots
        assert sorted(marks.lost_bases()) == sorted(full.lost_bases())
        expected.close()


@contextmanager
def against_full_marks(patch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Count in stores of any size, and compare each time that counts are believed."""
    seen = Seen()
    inner = coloring._counted

    def compared(
        objects: ObjectStore, roots: Roots, kept: Sequence[KeptRow]
    ) -> tuple[Counts, Marks]:
        try:
            counts, marks = inner(objects, roots, kept)
        except Uncounted as error:
            seen.refused.append(str(error))
            raise
        compare(objects, roots, counts, marks, seen)
        return counts, marks

    patch.setattr(coloring, "_counted", compared)
    patch.setattr(counting, "GC_COUNT_SLOTS_MIN", 0)
    patch.setattr(forward, "GC_COUNT_NEW_MAX", 2.0)
    yield seen
