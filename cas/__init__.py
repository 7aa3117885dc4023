"""An embedded, versioned, content-addressed object store for the workspaces of AI agents.

The face: what a program needs is `cas.open` and the types it gives; every name is loaded when
it is first used, so that `import cas` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

# Not from `typing`: it alone takes as long as all else that the command line needs before it can
# answer an interrupt.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cas.assembly import adopt, init, open, plan_repair, salvage
    from cas.commands.backup import backup, expire, plan_expiry, prove, restore_store
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
    from cas.history.following import Followed
    from cas.history.merge import MergePlan, MergeResult
    from cas.history.retain import GivenUp, Retained, RetentionPlan
    from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
    from cas.history.snapshot import Change, ChangeKind, Snapshot
    from cas.history.store import Store
    from cas.history.transaction import Transaction
    from cas.history.undo import RefClash, RefMove, RestorePlan, Undone, UndoPlan
    from cas.history.upkeep import BackupReport, Damage
    from cas.history.view import Ref, View
    from cas.maintenance.backups.expire import BackupState, Expired, ExpiryPlan
    from cas.maintenance.backups.prove import Fault, ProofReport
    from cas.maintenance.backups.restore import RestoreReport
    from cas.maintenance.copying import CopyReport, RefCopy
    from cas.maintenance.findings import Finding, FsckReport, Severity
    from cas.maintenance.fsck.check import fsck
    from cas.maintenance.fsck.extent import FsckExtent, FsckLevel
    from cas.maintenance.purge import PurgePlan, PurgeResult, plan_purge, purge
    from cas.maintenance.stats import KindStats, StoreStats, stats
    from cas.maintenance.why import Reason, Why, why
    from cas.model.entry import Entry, Event
    from cas.model.ids import BlobId, CommitId, ObjectId, TreeId
    from cas.model.objects import Commit, EntryKind, TreeEntry
    from cas.recall.recall import Recall
    from cas.recall.recalled import Recalled
    from cas.recall.receipts import Receipt
    from cas.recall.remote import RemoteEmbedder
    from cas.recall.score import Scoring
    from cas.recall.sentences import SentenceEmbedder
    from cas.recall.tokens import exact_tokens
    from cas.workspace.artifacts import Artifact, ArtifactKind
    from cas.workspace.checkouts import Checkout
    from cas.workspace.contexts import Context, Keep
    from cas.workspace.events import DomainEvent, Position
    from cas.workspace.exchanging import Exchanged, exchange, keep_exchanging
    from cas.workspace.folders import FolderReport, FolderStatus
    from cas.workspace.links import Link
    from cas.workspace.memories import Memory, Trust
    from cas.workspace.parts import part
    from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
    from cas.workspace.projections import Projection
    from cas.workspace.registry import Aggregate, aggregate
    from cas.workspace.streams import Sourced, StreamEvent
    from cas.workspace.subscriptions import EventSubscription, carry, subscribe
    from cas.workspace.work import UnitOfWork
    from cas.workspace.workspace import Workspace

__version__ = "0.1.0.dev0"

_ROOMS = {
    "cas.assembly": ("adopt", "init", "open", "plan_repair", "salvage"),
    "cas.commands.backup": ("backup", "expire", "plan_expiry", "prove", "restore_store"),
    "cas.commands.copying": ("copy",),
    "cas.maintenance.backups.expire": ("BackupState", "Expired", "ExpiryPlan"),
    "cas.maintenance.backups.prove": ("Fault", "ProofReport"),
    "cas.maintenance.backups.restore": ("RestoreReport",),
    "cas.maintenance.copying": ("CopyReport", "RefCopy"),
    "cas.maintenance.findings": ("Finding", "FsckReport", "Severity"),
    "cas.maintenance.fsck.check": ("fsck",),
    "cas.maintenance.fsck.extent": ("FsckExtent", "FsckLevel"),
    "cas.maintenance.purge": ("PurgePlan", "PurgeResult", "plan_purge", "purge"),
    "cas.maintenance.stats": ("KindStats", "StoreStats", "stats"),
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
    "cas.history.following": ("Followed",),
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
    "cas.recall.recall": ("Recall",),
    "cas.recall.recalled": ("Recalled",),
    "cas.recall.receipts": ("Receipt",),
    "cas.recall.remote": ("RemoteEmbedder",),
    "cas.recall.score": ("Scoring",),
    "cas.recall.sentences": ("SentenceEmbedder",),
    "cas.recall.tokens": ("exact_tokens",),
    "cas.workspace.artifacts": ("Artifact", "ArtifactKind"),
    "cas.workspace.checkouts": ("Checkout",),
    "cas.workspace.contexts": ("Context", "Keep"),
    "cas.workspace.events": ("DomainEvent", "Position"),
    "cas.workspace.exchanging": ("Exchanged", "exchange", "keep_exchanging"),
    "cas.workspace.folders": ("FolderReport", "FolderStatus"),
    "cas.workspace.links": ("Link",),
    "cas.workspace.memories": ("Memory", "Trust"),
    "cas.workspace.parts": ("part",),
    "cas.workspace.planning": ("Agent", "Decision", "Project", "Run", "Sprint"),
    "cas.workspace.projections": ("Projection",),
    "cas.workspace.registry": ("Aggregate", "aggregate"),
    "cas.workspace.streams": ("Sourced", "StreamEvent"),
    "cas.workspace.subscriptions": ("EventSubscription", "carry", "subscribe"),
    "cas.workspace.work": ("UnitOfWork",),
    "cas.workspace.workspace": ("Workspace",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Agent",
    "Aggregate",
    "Artifact",
    "ArtifactKind",
    "BackupReport",
    "BackupState",
    "BlamedEntry",
    "BlamedLine",
    "BlobId",
    "CasError",
    "Change",
    "ChangeKind",
    "Checkout",
    "Commit",
    "CommitId",
    "Conflict",
    "Context",
    "CopyReport",
    "Corrupt",
    "Damage",
    "Decision",
    "DomainEvent",
    "Entry",
    "EntryKind",
    "Event",
    "EventSubscription",
    "Exchanged",
    "Expired",
    "ExpiryPlan",
    "Fault",
    "Finding",
    "FolderReport",
    "FolderStatus",
    "Followed",
    "FsckExtent",
    "FsckLevel",
    "FsckReport",
    "GivenUp",
    "Gone",
    "HorizonRule",
    "Invalid",
    "Keep",
    "KeepRule",
    "KindStats",
    "Link",
    "Memory",
    "MergeConflict",
    "MergePlan",
    "MergeResult",
    "NotAllowed",
    "NotFound",
    "ObjectId",
    "OutcomeUnknown",
    "Position",
    "Project",
    "Projection",
    "ProofReport",
    "PurgePlan",
    "PurgeResult",
    "Reason",
    "Recall",
    "Recalled",
    "Receipt",
    "Ref",
    "RefClash",
    "RefConflict",
    "RefCopy",
    "RefMove",
    "RemoteEmbedder",
    "RestorePlan",
    "RestoreReport",
    "Retained",
    "RetentionPlan",
    "RetentionPolicy",
    "Run",
    "Scoring",
    "SentenceEmbedder",
    "Severity",
    "Snapshot",
    "Sourced",
    "Span",
    "Sprint",
    "Store",
    "StoreStats",
    "StreamEvent",
    "Transaction",
    "TreeEntry",
    "TreeId",
    "Trust",
    "Unavailable",
    "UndoPlan",
    "Undone",
    "UnitOfWork",
    "Unsupported",
    "View",
    "Why",
    "Workspace",
    "__version__",
    "adopt",
    "aggregate",
    "backup",
    "carry",
    "copy",
    "exact_tokens",
    "exchange",
    "expire",
    "fsck",
    "init",
    "keep_exchanging",
    "open",
    "part",
    "plan_expiry",
    "plan_purge",
    "plan_repair",
    "prove",
    "purge",
    "restore_store",
    "salvage",
    "stats",
    "subscribe",
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
