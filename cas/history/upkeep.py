"""What upkeep would do and has done, as values, and who does it for a store.

Floor 4. Invariant: a plan changes nothing, and says no more than what was so when it was made;
applying it looks again, and does less where something changed. The work itself is on the floor
above (`cas.maintenance`), which `cas.assembly` hands to the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from attrs import field

from cas.model.ids import Kind
from cas.model.names import count
from cas.model.values import frozen

if TYPE_CHECKING:
    from cas.history.core import Core
    from cas.history.retain import RetentionPlan


@frozen
class GcRow:
    """Objects of one kind that go for one reason.

    `reason`: "dropped" for what only history behind the horizon led to, "loose" for what nothing
    ever led to. `content_bytes` is what they say, `stored_bytes` what their copies take.
    """

    kind: Kind
    reason: str
    object_count: int
    content_bytes: int
    stored_bytes: int


KEPT_REASONS: Final = ("newest", "hold", "pin", "history", "horizon", "journal", "young", "base")
"""Why copies stay, in the order in which a copy is counted under the first that fits."""


@frozen
class KeptRow:
    """Copies that stay for one reason, and what they take.

    `reason`: "newest" for the files that branches and tags point at now, "hold"
    for what else legal holds cover, "pin" for what else pins keep, "history" for what else older
    commits of refs need, "horizon" for what only earlier states of refs (which `at` and undo
    reach) and events need, "journal" for its segments, "young" for what nothing leads to and waits
    for its grace, with all that it names, "base" for what others are stored as small deltas of.
    """

    reason: str
    copy_count: int
    stored_bytes: int


NOT_MARKED: Final = "nothing"
COUNTED: Final = "counted"
FULL: Final = "full"


@frozen
class Marked:
    """How a run found out what goes. `how`: "nothing" where nothing can have become garbage,
    "counted" by counts of references that were brought forward, "full" by looking at all objects.

    `reason` says why it was "full", in a store that is large enough to be counted. `finding` is
    what a full mark found counts to be wrong about: they are thrown away then.
    """

    how: str
    reason: str
    finding: str


@frozen
class GcFigures:
    """What goes, in a plan, or went, in a result. `seq` and `horizon` are the entries it was made
    at and for.

    `waiting_*` are objects that nothing leads to and that stay for the grace. `pack_count` packs
    go whole. `kept` says what keeps the rest, as of the newest run that looked at all objects, and
    `marked` whether this one has. `file_*` are files that no pack row names, and `session_count`
    writers that died.
    """

    seq: int
    horizon: int
    rows: tuple[GcRow, ...]
    waiting_count: int
    waiting_bytes: int
    pack_count: int
    file_count: int
    file_bytes: int
    session_count: int
    kept: tuple[KeptRow, ...]
    marked: Marked

    @property
    def object_count(self) -> int:
        """Objects of all rows."""
        return sum(row.object_count for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        """Bytes that their copies take."""
        return sum(row.stored_bytes for row in self.rows)


@frozen
class GcPlan(GcFigures):
    """What `gc` would do, with a grace of `grace_us`."""

    grace_us: int
    mark: object = field(repr=False, eq=False)
    """What was marked; for `apply`."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.rows or self.file_count or self.session_count)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        parts = [f"{row.object_count} {_plural(row)} ({row.reason})" for row in self.rows]
        if self.file_count:
            parts.append(f"{count(self.file_count, 'file')} that nothing names")
        if self.session_count:
            parts.append(count(self.session_count, "dead writer"))
        text = f"{', '.join(parts)}: {self.stored_bytes + self.file_bytes} bytes would go"
        if not parts:
            text = "nothing would go"
        if self.waiting_count:
            text += f"; {self.waiting_count} loose objects wait for their grace to end"
        return text + "."


def _plural(row: GcRow) -> str:
    name = row.kind.name.lower()
    return name if row.object_count == 1 else name + "s"


@frozen
class GcResult(GcFigures):
    """What `gc` has done; `moved_bytes` is what was written anew to make room."""

    moved_bytes: int


@frozen
class Damage:
    """What is wrong with one pack: the objects of it that are damaged, or why all of it is."""

    pack: str
    ids: tuple[bytes, ...]
    reason: str


@frozen
class BackupReport:
    """What a backup did. `increment` is its number, and `seq` the entry that it reaches;
    `written` is False when nothing had changed since the last. Bytes are those added to the vault.
    `damaged` are objects of the store that cannot be read, known from earlier backups too.
    `purged` are those that the store has purged and that were taken out of the backup now;
    `purge_left` could not be, because the store itself still has them.
    """

    place: str
    increment: int
    seq: int
    written: bool
    pack_count: int
    new_packs: int
    new_entries: int
    new_bytes: int
    damage: tuple[Damage, ...]
    damaged: tuple[bytes, ...]
    purged: tuple[bytes, ...] = ()
    purge_left: tuple[bytes, ...] = ()


@frozen
class Chore:
    """Something that is due, and why. `name`: purge, spill, retain, mirror, archive, gc, packs,
    log, catalog or check.
    """

    name: str
    reason: str


@frozen
class ChoreRow:
    """What became of a chore. `outcome` is "done", "left" (no time, or in the way of others) or
    "failed"; `detail` says what was done, or why not. `size_bytes` were given back or moved.
    """

    name: str
    outcome: str
    detail: str
    size_bytes: int
    duration_ms: int


@frozen
class MaintenanceReport:
    """What a run of `maintain` has done, in the order in which it was done."""

    rows: tuple[ChoreRow, ...]

    @property
    def left(self) -> tuple[ChoreRow, ...]:
        """What is still due; the next run begins with it."""
        return tuple(row for row in self.rows if row.outcome != "done")


class Upkeep(Protocol):
    """Who collects for one store, and who backs it up. Any thread."""

    def backup(self, store: object, place: str, accept_damage: bool) -> BackupReport:
        """Back a `Store` up into a folder."""

    def plan_maintenance(self, store: object) -> tuple[Chore, ...]:
        """What is due for a `Store`."""

    def maintain(
        self, store: object, budget_ms: float, stopping: Callable[[], bool] | None
    ) -> MaintenanceReport:
        """Do what is due within a time. `stopping`: it runs by itself, and ends when that says
        so.
        """

    def plan_gc(self, core: Core, grace_us: int, full: bool, after: RetentionPlan | None) -> GcPlan:
        """What `collect` would do, once `after` was applied."""

    def collect(
        self,
        core: Core,
        grace_us: int,
        plan: GcPlan | None,
        mirror: Callable[[], int],
        full: bool,
    ) -> GcResult:
        """Do what `plan_gc` would say now; of a plan, what it says as well. `mirror` puts what
        exists, and the journal, into pack files: before files may go. `full`: look at all objects.
        """
