"""Save a folder as a commit.

Floor 8. Invariant: what a result calls saved is durable.
"""

from __future__ import annotations

from cas.history.store import Store
from cas.model.values import frozen
from cas.worktree.glance import Glance
from cas.worktree.importer import ImportReport, import_folder
from cas.worktree.values import NO_OPTIONS, ImportOptions, OnProgress


@frozen
class SnapshotRequest:
    """Save `folder` as the next commit of `branch`."""

    folder: str
    branch: str
    author: str
    message: str = ""
    options: ImportOptions = NO_OPTIONS


def save_folder(
    store: Store,
    request: SnapshotRequest,
    progress: OnProgress = None,
    glance: Glance | None = None,
) -> ImportReport:
    """Save a folder. Raises as `import_folder` does."""
    return import_folder(
        store,
        request.folder,
        branch=request.branch,
        author=request.author,
        message=request.message,
        options=request.options,
        progress=progress,
        glance=glance,
    )
