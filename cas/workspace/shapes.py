"""Ids that are paths: none lies below another, neither as a record nor as a file.

Floor 6. Invariant: looking here is recorded as a reading of the path itself and of no folder above
it, so that those who add to one folder at the same time do not disturb each other.
"""

from __future__ import annotations

from cas.errors import AggregateExists
from cas.history.branch import BranchEdit
from cas.model.names import Path, join_path, quoted, split_path
from cas.model.objects import EntryKind
from cas.trees import paths
from cas.trees.node import NodeStore
from cas.workspace.layout import file_path, record_path
from cas.workspace.registry import AggregateType


def check_room(edit: BranchEdit, nodes: NodeStore, type: AggregateType, id: str) -> None:
    """Refuse an id that is a folder of others, or has one of them for a folder, staged edits
    included. `nodes` reads what is staged, too. Raises `AggregateExists`.
    """
    if not type.path_ids:
        return
    places = [record_path(type, id)]
    if type.name == "artifact":
        places.append(file_path(id))
    for place in places:
        parts = tuple(place.encode("utf-8", "surrogateescape").split(b"/"))
        way = _file_above(edit, nodes, parts) or _first_below(edit, nodes, place, parts)
        if way is not None:
            taken = join_path(way).partition("/")[2]
            folder, other = sorted((taken, id), key=len)
            raise AggregateExists(
                f"The {type.name} {quoted(taken)} is there already, and {quoted(folder)} "
                f"cannot be both a name and the folder of {quoted(other)}; remove it first, "
                "or choose another name. Nothing was stored.",
                type=type.name,
                id=taken,
            )


def _file_above(edit: BranchEdit, nodes: NodeStore, parts: Path) -> Path | None:
    """The file that stands where a folder of this path would."""
    # A directory that is staged on the way, and how long its path is.
    root: bytes | None = None
    start = 0
    for length in range(1, len(parts)):
        above = parts[:length]
        if above in edit.staged:
            value = edit.staged[above]
            start = length
        elif not start:
            value = edit.look(above)
        else:
            value = None if root is None else paths.value_at(root, (parts[length - 1],), nodes)
        if value is not None and value[0] != EntryKind.TREE:
            return above
        root = None if value is None else value[1]
    return None


def _first_below(edit: BranchEdit, nodes: NodeStore, place: str, parts: Path) -> Path | None:
    """The first file in a folder of this path."""
    value = edit.find(split_path(place))
    if value is None or value[0] != EntryKind.TREE:
        return None
    return next((below for below, _ in paths.walk(value[1], nodes, prefix=parts)), parts)
