"""`REV[:PATH]`: what people name when they mean a directory or file of a version.

Floor 8. Invariant: a target is resolved against one view, so that what its parts say belongs to
one moment of the store.
"""

from __future__ import annotations

from cas.errors import PathNotFound, Purged
from cas.history.revision import split_path
from cas.history.snapshot import Snapshot
from cas.history.view import View
from cas.model.names import printable, quoted
from cas.model.objects import TreeEntry
from cas.model.values import frozen


@frozen
class Target:
    """What `text` named: `entry` lies at `path` of `snapshot`; the path is empty for its root."""

    text: str
    snapshot: Snapshot
    path: str
    entry: TreeEntry


def at_path(error: Purged, path: str) -> Purged:
    """The same, with the path at which it was met."""
    fields = {**error.fields, "path": path}
    return Purged(f"{printable(path)}: {error.message}", **fields)


def resolve(view: View, text: str) -> Target:
    """The target that `REV[:PATH]` names.

    Raises `PathNotFound`, `InvalidName`, and what resolving a revision raises.
    """
    revision, path = split_path(text)
    snapshot = view.snapshot(revision)
    entry = snapshot.entry(path)
    if entry is None:
        raise PathNotFound(
            f"There is no {quoted(path)} in {revision}; `cas ls {revision}` lists what there is.",
            path=path,
        )
    return Target(text, snapshot, path, entry)
