"""Applying what retention decided: one entry that raises the horizon and thins commits.

Floor 4; implements docs/format.md section 5.8. Invariant: what is given up was planned, is
compared again with every state that can still be read, and is one journal entry.
"""

from __future__ import annotations

from collections.abc import Mapping

from cas.history.core import Core
from cas.history.horizon import Thinning, horizon_at
from cas.history.thinning import examine, stage_horizon
from cas.history.transaction import Transaction
from cas.model.ids import CommitId, ObjectId
from cas.model.names import HORIZON_REF
from cas.objects.batch import Batch


def stage_raise(core: Core, tx: Transaction, seq: int, fresh: Mapping[CommitId, Thinning]) -> None:
    """Let a transaction raise the horizon to `seq`, where it is below, and thin commits.

    Raises what `examine` raises; the commit raises it again where others were faster.
    """
    moment = core.timeline.now()
    before = horizon_at(core, moment)

    def stage(batch: Batch) -> ObjectId:
        at = max(seq, before.seq)
        target = stage_horizon(core, batch, before, at, fresh, tx.author, tx.message)
        examine(core, batch, moment, target)
        return target

    tx.move(HORIZON_REF, tx.stage(stage))
