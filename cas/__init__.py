"""An embedded, versioned, content-addressed object store for the workspaces of AI agents.

The face: what a program needs is `cas.open` and the types it gives; every name is loaded when
it is first used, so that `import cas` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cas.assembly import adopt, init, open, plan_repair, salvage
    from cas.commands.backup import backup, prove, restore_store
    from cas.commands.copying import copy
    from cas.errors import (
        CasError,
        Conflict,
        Corrupt,
        Gone,
        Invalid,
        NotAllowed,
        NotFound,
        OutcomeUnknown,
        RefConflict,
        Unavailable,
        Unsupported,
    )
    from cas.history.blame import BlamedEntry, BlamedLine
    from cas.history.conflicts import MergeConflict
    from cas.history.merge import MergePlan, MergeResult
    from cas.history.retain import GivenUp, Retained, RetentionPlan
    from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
    from cas.history.snapshot import Change, ChangeKind, Snapshot
    from cas.history.store import Store
    from cas.history.transaction import Transaction
    from cas.history.undo import RefClash, RefMove, RestorePlan, Undone, UndoPlan
    from cas.history.upkeep import BackupReport, Damage
    from cas.history.view import Ref, View
    from cas.maintenance.backups.prove import Fault, ProofReport
    from cas.maintenance.backups.restore import RestoreReport
    from cas.maintenance.copying import CopyReport, RefCopy
    from cas.maintenance.purge import PurgePlan, PurgeResult, plan_purge, purge
    from cas.maintenance.why import Reason, Why, why
    from cas.model.entry import Entry, Event
    from cas.model.ids import BlobId, CommitId, ObjectId, TreeId
    from cas.model.objects import Commit, EntryKind, TreeEntry

__version__ = "0.1.0.dev0"

_ROOMS = {
    "cas.assembly": ("adopt", "init", "open", "plan_repair", "salvage"),
    "cas.commands.backup": ("backup", "prove", "restore_store"),
    "cas.commands.copying": ("copy",),
    "cas.maintenance.backups.prove": ("Fault", "ProofReport"),
    "cas.maintenance.backups.restore": ("RestoreReport",),
    "cas.maintenance.copying": ("CopyReport", "RefCopy"),
    "cas.maintenance.purge": ("PurgePlan", "PurgeResult", "plan_purge", "purge"),
    "cas.maintenance.why": ("Reason", "Why", "why"),
    "cas.errors": (
        "CasError",
        "Conflict",
        "Corrupt",
        "Gone",
        "Invalid",
        "NotAllowed",
        "NotFound",
        "OutcomeUnknown",
        "RefConflict",
        "Unavailable",
        "Unsupported",
    ),
    "cas.history.blame": ("BlamedEntry", "BlamedLine"),
    "cas.history.conflicts": ("MergeConflict",),
    "cas.history.merge": ("MergePlan", "MergeResult"),
    "cas.history.retain": ("GivenUp", "Retained", "RetentionPlan"),
    "cas.history.retention": ("HorizonRule", "KeepRule", "RetentionPolicy", "Span"),
    "cas.history.snapshot": ("Change", "ChangeKind", "Snapshot"),
    "cas.history.store": ("Store",),
    "cas.history.transaction": ("Transaction",),
    "cas.history.undo": ("RefClash", "RefMove", "RestorePlan", "UndoPlan", "Undone"),
    "cas.history.upkeep": ("BackupReport", "Damage"),
    "cas.history.view": ("Ref", "View"),
    "cas.model.entry": ("Entry", "Event"),
    "cas.model.ids": ("BlobId", "CommitId", "ObjectId", "TreeId"),
    "cas.model.objects": ("Commit", "EntryKind", "TreeEntry"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "BackupReport",
    "BlamedEntry",
    "BlamedLine",
    "BlobId",
    "CasError",
    "Change",
    "ChangeKind",
    "Commit",
    "CommitId",
    "Conflict",
    "CopyReport",
    "Corrupt",
    "Damage",
    "Entry",
    "EntryKind",
    "Event",
    "Fault",
    "GivenUp",
    "Gone",
    "HorizonRule",
    "Invalid",
    "KeepRule",
    "MergeConflict",
    "MergePlan",
    "MergeResult",
    "NotAllowed",
    "NotFound",
    "ObjectId",
    "OutcomeUnknown",
    "ProofReport",
    "PurgePlan",
    "PurgeResult",
    "Reason",
    "Ref",
    "RefClash",
    "RefConflict",
    "RefCopy",
    "RefMove",
    "RestorePlan",
    "RestoreReport",
    "Retained",
    "RetentionPlan",
    "RetentionPolicy",
    "Snapshot",
    "Span",
    "Store",
    "Transaction",
    "TreeEntry",
    "TreeId",
    "Unavailable",
    "UndoPlan",
    "Undone",
    "Unsupported",
    "View",
    "Why",
    "__version__",
    "adopt",
    "backup",
    "copy",
    "init",
    "open",
    "plan_purge",
    "plan_repair",
    "prove",
    "purge",
    "restore_store",
    "salvage",
    "why",
]


def __getattr__(name: str) -> Any:
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module 'cas' has no attribute {name!r}")
    value = getattr(import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
