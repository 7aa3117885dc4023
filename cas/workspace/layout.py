"""Where aggregates lie: branches of contexts, paths of records, and the way back from a diff.

Floor 6. Invariant: in a context's tree an aggregate's record is the file COLLECTION/ID, content
of artifacts is files/NAME, and all else that the workspace keeps there begins with a dot; a
context's branches are heads/CONTEXT/BRANCH. From a path alone follows what lies there, so that a
difference of two trees says which aggregates changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Literal, NamedTuple

from attrs import frozen

from cas.errors import RefNotFound
from cas.history.core import Core
from cas.history.snapshot import Snapshot
from cas.history.view import View
from cas.model.entry import Entry
from cas.model.ids import BlobId, CommitId, TreeId
from cas.model.names import HEADS, Path, check_ref_name, join_path, split_path, to_text
from cas.model.objects import TREE
from cas.trees import paths
from cas.trees.cursor import get
from cas.trees.diff import diff
from cas.trees.node import DIRECTORY, NodeStore, Value
from cas.workspace.links import is_plain
from cas.workspace.registry import AggregateType, type_in

MAIN: Final = "main"
"""The branch of a context that a workspace works on unless it says another."""
FILES: Final = "files"
_FILES: Final = FILES.encode()
CONFLICTS: Final = ".conflicts"
CONTENTS: Final = ".contents"
"""Contents that only an open conflict names, so that nothing collects them."""
STREAMS: Final = ".streams"

PlaceKind = Literal["record", "file", "conflict", "event", "other"]


@frozen
class Place:
    """What a path of a context's tree is for. `id` is that of the aggregate, or a file's name."""

    kind: PlaceKind
    collection: str
    id: str


class RecordChange(NamedTuple):
    """An aggregate whose record differs. `old` and `new` are blob ids of records, None: none.

    `type` is None where this program does not know the collection. A plain tuple: made for each.
    """

    context: str
    branch: str
    collection: str
    id: str
    old: BlobId | None
    new: BlobId | None
    type: AggregateType | None


def context_branch(context: str, branch: str = MAIN) -> str:
    """The branch of the store that a context's branch is. Raises `InvalidName`."""
    name = f"{context}/{branch}"
    check_ref_name(HEADS + name)
    return name


def context_of(ref: str) -> tuple[str, str] | None:
    """(context, branch) of a full ref name; None for a ref of no context."""
    if not ref.startswith(HEADS):
        return None
    context, slash, branch = ref[len(HEADS) :].partition("/")
    return (context, branch) if slash else None


def record_path(type: AggregateType, id: str) -> str:
    """Where the record of an aggregate lies in its context's tree."""
    return f"{type.collection}/{id}"


def record_parts(type: AggregateType, id: str) -> Path:
    """`record_path` as the names on the way. Raises `InvalidName`."""
    # Most ids are one name.
    if is_plain(id):
        return type.collection.encode(), id.encode()
    return split_path(record_path(type, id))


def file_path(name: str) -> str:
    """Where the content of an artifact lies."""
    return f"{FILES}/{name}"


def file_parts(name: str) -> Path:
    """`file_path` as the names on the way. Raises `InvalidName`."""
    return split_path(file_path(name))


def conflict_path(id: str) -> str:
    """Where an open conflict lies; its id begins with those of what it is about."""
    return f"{CONFLICTS}/{id}"


def content_path(id: str) -> str:
    """Where the content lies that an open conflict of this id holds beside the one that stands."""
    return f"{CONTENTS}/{id}"


def stream_path(type: AggregateType, id: str) -> str:
    """The folder of the events of an event-sourced aggregate."""
    return f"{STREAMS}/{type.collection}/{id}"


def place_of(path: str) -> Place:
    """What lies at a path of a context's tree."""
    first, _, rest = path.partition("/")
    if not rest:
        return Place("other", "", path)
    if first == FILES:
        return Place("file", "", rest)
    if first in (CONFLICTS, STREAMS):
        collection, _, id = rest.partition("/")
        kind: PlaceKind = "conflict" if first == CONFLICTS else "event"
        return Place(kind, collection, id.rpartition("/")[0])
    if first.startswith("."):
        return Place("other", "", path)
    return Place("record", first, rest)


def branch_names(view: View, contexts: Collection[str] | None = None) -> list[str]:
    """All branches of the workspace, or of some of its contexts, ascending."""
    found = (context_of(ref.name) for ref in view.refs(HEADS))
    every = (where for where in found if where is not None)
    return sorted({branch for context, branch in every if contexts is None or context in contexts})


def no_branch(name: str) -> RefNotFound:
    """The error for a branch that is not there."""
    return RefNotFound(
        f"The workspace has no branch {name!r}; `cas workspace branches` lists them, and `cas "
        "workspace branch` makes one.",
        ref=name,
    )


def snapshot_of(core: Core, commit: CommitId | None) -> Snapshot:
    """The files of a commit; of None an empty snapshot."""
    if commit is None:
        return Snapshot(core.objects, TreeId(DIRECTORY.empty), None, None)
    found = core.commits.get(commit)
    return Snapshot(core.objects, found.tree, found, commit)


def changed_records(
    core: Core, ref: str, old: CommitId | None, new: CommitId | None
) -> Iterator[RecordChange]:
    """Aggregates whose records differ between two commits of a context's branch, by path.

    Reads only what differs. Nothing for a ref of no context.
    """
    where = context_of(ref)
    if where is None:
        return
    nodes = core.objects.tree_nodes(DIRECTORY)
    known = _known(core, old, new, nodes)
    if known is not None:
        for parts, was, now in known:
            collection = to_text(parts[0])
            id = join_path(parts[1:])
            yield RecordChange(*where, collection, id, _blob(was), _blob(now), type_in(collection))
        return
    for name, before, after in diff(
        DIRECTORY, _tree(core, old), _tree(core, new), nodes, nodes.warm
    ):
        if name == _FILES or name.startswith(b"."):
            # Files, events and open conflicts: what differs there is not even read.
            continue
        collection = to_text(name)
        head = (*where, collection)
        type = type_in(collection)
        trees = paths.split(before)[1], paths.split(after)[1]
        for part, was, now in diff(DIRECTORY, *trees, nodes, nodes.warm, nodes.pass_by):
            if (was is None or was[0] != TREE) and (now is None or now[0] != TREE):
                # Most ids are one name.
                yield RecordChange(*head, to_text(part), _blob(was), _blob(now), type)
                continue
            (old_file, old_tree), (new_file, new_tree) = paths.split(was), paths.split(now)
            if old_file is not None or new_file is not None:
                yield RecordChange(*head, to_text(part), _blob(old_file), _blob(new_file), type)
            for parts, was_below, is_below in paths.diff_values(
                old_tree, new_tree, nodes, prefix=(name, part), ahead=nodes.warm
            ):
                id = join_path(parts[1:])
                yield RecordChange(*head, id, _blob(was_below), _blob(is_below), type)


def _known(
    core: Core, old: CommitId | None, new: CommitId | None, nodes: NodeStore
) -> list[tuple[Path, Value | None, Value | None]] | None:
    """What differs in collections, by path, from the edits that made a commit; None where these
    are not known, or say less than that: only what was there before is looked up then.
    """
    edits = None if new is None else core.commits.edits_of(new)
    if (
        new is None
        or edits is None
        or core.commits.get(new).parents != (() if old is None else (old,))
    ):
        return None
    tree = _tree(core, old)
    roots: dict[bytes, bytes] = {}
    found = []
    for parts, now in sorted(edits.items()):
        name = parts[0]
        if len(parts) == 1:
            # A whole collection may have gone.
            return None
        if name == _FILES or name.startswith(b"."):
            continue
        root = roots.get(name)
        if root is None:
            file, root = paths.split(get(DIRECTORY, tree, name, nodes))
            if file is not None:
                return None
            roots[name] = root
        was = paths.value_at(root, parts[1:], nodes)
        if was is not None and was[0] == TREE:
            return None
        if was != now:
            found.append((parts, was, now))
    return found


def _tree(core: Core, commit: CommitId | None) -> bytes:
    return DIRECTORY.empty if commit is None else core.commits.get(commit).tree


def entry_changes(core: Core, entry: Entry) -> Iterator[RecordChange]:
    """All aggregates that a journal entry changed, context by context."""
    for change in entry.changes:
        if context_of(change.ref) is not None:
            old = None if change.old is None else CommitId(change.old)
            new = None if change.new is None else CommitId(change.new)
            yield from changed_records(core, change.ref, old, new)


def _blob(value: Value | None) -> BlobId | None:
    return None if value is None else BlobId(value[1])
