"""What refs point at in states that can still be read: the roots of what must be kept.

Floor 4. Invariant: nothing that a readable state names is missing from what is told here.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from cas.history.core import Core
from cas.history.horizon import horizon_at
from cas.history.timeline import Moment
from cas.model.ids import ObjectId


@frozen
class LiveTarget:
    """What a ref points at in some state that can be read: a root. `seq` set it so."""

    ref: str
    kind: int
    target: ObjectId
    seq: int


def live_targets(core: Core, moment: Moment, oldest: int | None = None) -> Iterator[LiveTarget]:
    """What refs point at in every state from the horizon (or entry `oldest`) to a moment: roots.

    A target may be given several times. With these go, for a collector: the refs checkpoints
    that states behind the horizon are replayed from, and every blob that any entry names.
    """
    timeline = core.timeline
    seq = horizon_at(core, moment).seq if oldest is None else oldest
    with core.objects.catalog.read() as reader:
        first = timeline.at(reader, min(seq, moment.seq))
    for ref, value in timeline.recall(first, lambda root: list(timeline.list(root))):
        yield LiveTarget(ref, value.kind, value.target, value.seq)
    yield from targets_since(core, first.seq, moment.seq)


def targets_since(core: Core, after: int, upto: int) -> Iterator[LiveTarget]:
    """What refs were moved to by the entries behind `after`, up to `upto`."""
    if after < upto:
        for entry in core.timeline.entries(after, upto - after):
            for change in entry.changes:
                if change.new is not None:
                    yield LiveTarget(change.ref, change.kind, change.new, entry.seq)
