"""How the slots of a store get their colors: by counts of references, or by a mark of everything.

Floor 5; implements docs/design/029. Invariant: counts that cannot be brought forward, or that a
full mark does not agree with, decide nothing: what the full mark says is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cas.errors import Uncounted
from cas.history.core import Core
from cas.history.upkeep import COUNTED, FULL, KeptRow, Marked
from cas.later import Later
from cas.limits import GC_COUNT_UNKEPT_MAX, GC_COUNTED_RUNS_MAX
from cas.maintenance.gc.colors import DROPPED, FREE
from cas.maintenance.gc.counting import Tally, tally_for
from cas.maintenance.gc.counts import Counts, discard, load
from cas.maintenance.gc.kept import Shares, keep_refs
from cas.maintenance.gc.reach import Marks
from cas.maintenance.gc.roots import Roots
from cas.model.values import frozen
from cas.objects.store import ObjectStore

if TYPE_CHECKING:
    from cas.maintenance.gc import agreement, forward
else:
    # A small store is not counted, and compared is seldom.
    agreement = Later("cas.maintenance.gc.agreement")
    forward = Later("cas.maintenance.gc.forward")


@frozen
class Colored:
    """Marks in which all is kept that roots lead to, and the rest is free or dropped.

    `shares`: what each reason keeps; None where that was not asked.
    """

    marks: Marks
    shares: Shares | None
    marked: Marked


def color_store(
    core: Core,
    objects: ObjectStore,
    roots: Roots,
    kept: Sequence[KeptRow],
    *,
    full: bool,
    saving: bool = True,
) -> Colored:
    """Color the slots of a store for these roots; `kept` is what the last full mark found. Without
    `saving` no counts are written, which is for a full disk.

    Raises what a mark raises where everything is marked.
    """
    counts: Counts | None = None
    before: Marks | None = None
    reason = ""
    try:
        counts, before = _counted(objects, roots, kept)
        if full:
            reason = "asked for"
        elif counts.runs > GC_COUNTED_RUNS_MAX:
            reason = f"{GC_COUNTED_RUNS_MAX} runs have believed counts of references"
        else:
            if saving:
                counts.save(objects, before.packs)
            return Colored(before, None, Marked(COUNTED, "", ""))
    except Uncounted as error:
        reason = str(error)
    finally:
        if counts is not None:
            counts.close()
    return _marked(core, objects, roots, counts, before, reason, saving=saving)


def _counted(objects: ObjectStore, roots: Roots, kept: Sequence[KeptRow]) -> tuple[Counts, Marks]:
    """Counts brought forward, and the colors that follow. Raises `Uncounted`."""
    counts = load(objects, roots.lineage)
    try:
        if not kept:
            raise Uncounted("what keeps the rest is not known")
        with objects.catalog.read() as reader:
            forward.check_place(counts, roots, reader)
        marks = Marks(objects, roots.thinned)
        marks.deferring = True
        marks.begin_kept()
        forward.Forward(objects, counts, roots, marks).run()
    except BaseException:
        counts.close()
        raise
    return counts, marks


def _marked(
    core: Core,
    objects: ObjectStore,
    roots: Roots,
    counts: Counts | None,
    before: Marks | None,
    reason: str,
    *,
    saving: bool,
) -> Colored:
    """Mark everything, count references on the way, and compare."""
    marks = Marks(objects, roots.thinned)
    marks.begin()
    marks.deferring = True
    shares = Shares(marks)
    tally = tally_for(objects, sum(map(len, marks.colors.values()))) if saving else None
    try:
        marks.tally = tally
        keep_refs(core, shares, roots.refs, roots.kept)
        marks.drop([*roots.dropped, *(tree for _commit, tree in marks.given_up)])
        marks.tally = None
        finding = ""
        if counts is not None and before is not None:
            finding = agreement.differences(counts, before, marks)
            if finding:
                discard(objects)
        if tally is not None:
            finish(tally, objects, roots, marks)
    finally:
        if tally is not None:
            tally.close()
    # Of a small store nothing is counted, and nothing is to be said of that.
    return Colored(marks, shares, Marked(FULL, reason if tally or counts else "", finding))


def finish(tally: Tally, objects: ObjectStore, roots: Roots, marks: Marks) -> Counts | None:
    """The counts of a mark, once all that roots lead to is kept and what was given up is colored,
    saved; None where they would not be right, or where so much is loose that each run would look
    at more than a mark.
    """
    for number in list(marks.packs):
        footer = marks.footer(number)
        if footer is None:
            return None
        tally.took(marks.packs[number], footer, marks.colors[number])
    if tally.is_broken or _loose_count(marks) > GC_COUNT_UNKEPT_MAX:
        return None
    counts = tally.counts
    counts.lineage, counts.seq = roots.lineage, roots.seq
    counts.anchor, counts.purged = roots.anchor, roots.purged
    counts.thinned = roots.thinned
    counts.roots = counts.all_roots(roots.all_kept)
    try:
        tally.settle(objects)
        counts.unkept = set(counts.unnamed(marks.loose_ids()))
    except (OSError, OverflowError, Uncounted):
        return None
    counts.given = set(marks.given_up)
    counts.note_gone(marks.packs.values(), marks.colors)
    counts.save(objects, marks.packs)
    return counts


def _loose_count(marks: Marks) -> int:
    """Copies that nothing kept leads to."""
    return sum(c.count(FREE) + c.count(DROPPED) for c in marks.colors.values())
