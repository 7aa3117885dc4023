"""An embedded, versioned, content-addressed object store for the workspaces of AI agents.

The face: what a program needs is `cas.open` and the types it gives; every name is loaded when
it is first used, so that `import cas` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cas.assembly import (
        init as init,
    )
    from cas.assembly import (
        open as open,
    )
    from cas.errors import (
        CasError as CasError,
    )
    from cas.errors import (
        Conflict as Conflict,
    )
    from cas.errors import (
        Corrupt as Corrupt,
    )
    from cas.errors import (
        Gone as Gone,
    )
    from cas.errors import (
        Invalid as Invalid,
    )
    from cas.errors import (
        NotAllowed as NotAllowed,
    )
    from cas.errors import (
        NotFound as NotFound,
    )
    from cas.errors import (
        OutcomeUnknown as OutcomeUnknown,
    )
    from cas.errors import (
        RefConflict as RefConflict,
    )
    from cas.errors import (
        Unavailable as Unavailable,
    )
    from cas.errors import (
        Unsupported as Unsupported,
    )
    from cas.history.snapshot import (
        Change as Change,
    )
    from cas.history.snapshot import (
        ChangeKind as ChangeKind,
    )
    from cas.history.snapshot import (
        Snapshot as Snapshot,
    )
    from cas.history.store import (
        Store as Store,
    )
    from cas.history.transaction import (
        Transaction as Transaction,
    )
    from cas.history.view import (
        Ref as Ref,
    )
    from cas.history.view import (
        View as View,
    )
    from cas.model.entry import (
        Entry as Entry,
    )
    from cas.model.entry import (
        Event as Event,
    )
    from cas.model.ids import (
        BlobId as BlobId,
    )
    from cas.model.ids import (
        CommitId as CommitId,
    )
    from cas.model.ids import (
        ObjectId as ObjectId,
    )
    from cas.model.ids import (
        TreeId as TreeId,
    )
    from cas.model.objects import (
        Commit as Commit,
    )
    from cas.model.objects import (
        EntryKind as EntryKind,
    )
    from cas.model.objects import (
        TreeEntry as TreeEntry,
    )

__version__ = "0.1.0.dev0"

_ROOMS = {
    "cas.assembly": ("init", "open"),
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
    "cas.history.snapshot": ("Change", "ChangeKind", "Snapshot"),
    "cas.history.store": ("Store",),
    "cas.history.transaction": ("Transaction",),
    "cas.history.view": ("Ref", "View"),
    "cas.model.entry": ("Entry", "Event"),
    "cas.model.ids": ("BlobId", "CommitId", "ObjectId", "TreeId"),
    "cas.model.objects": ("Commit", "EntryKind", "TreeEntry"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "__version__",
    *_HOME,
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
