"""Write a revision into a folder.

Floor 8. Invariant: what stood in the folder and was not saved is never overwritten unless the
request says so.
"""

from __future__ import annotations

from cas.commands.target import resolve
from cas.history.store import Store
from cas.worktree.checkout import RestorePlan, RestoreReport, plan_restore, restore
from cas.worktree.values import OnProgress


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
