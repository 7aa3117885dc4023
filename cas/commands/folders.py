"""Save a folder as a commit, and write a revision into a folder.

Floor 8. Invariant: what a result calls saved is durable; what stood in a folder and was not
saved is never overwritten unless the request says so.
"""

from __future__ import annotations

import attrs

from cas.commands.target import resolve
from cas.history.store import Store
from cas.worktree.checkout import RestorePlan, RestoreReport, plan_restore, restore
from cas.worktree.importer import ImportReport, import_folder
from cas.worktree.values import ImportOptions, OnProgress

NO_OPTIONS = ImportOptions()


@attrs.frozen
class SnapshotRequest:
    """Save `folder` as the next commit of `branch`."""

    folder: str
    branch: str
    author: str
    message: str = ""
    options: ImportOptions = NO_OPTIONS


def save_folder(
    store: Store, request: SnapshotRequest, progress: OnProgress = None
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
    )


def restore_folder(
    store: Store, target: str, folder: str, *, force: bool = False, progress: OnProgress = None
) -> RestoreReport:
    """Write the directory or file that `REV[:PATH]` names into a folder.

    Raises as resolving a target does, `WouldOverwrite`, `UnsafePath`, and what writing raises.
    """
    found = resolve(store.view(), target)
    return restore(store, found.snapshot, found.path, folder, force=force, progress=progress)


def plan_folder(store: Store, target: str, folder: str) -> RestorePlan:
    """What `restore_folder` would do; writes nothing. Raises as it does."""
    found = resolve(store.view(), target)
    return plan_restore(found.snapshot, found.path, folder)
