"""Three directories become one: by path, by line, and at the new path of what was renamed.

Floor 4. Invariant: nothing is written; what the work makes stays in a `Scratch`, which gives just
what a tree needs of it. Files that both sides changed are merged as text; a change of a file that
the other side renamed goes to its new path (`following`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from cas.errors import Invalid, Purged
from cas.history.conflicts import MergeConflict, to_conflict
from cas.history.core import Core
from cas.history.following import Followed, Sides, follow
from cas.history.text import merge_contents, merge_text, with_markers
from cas.limits import TEXT_MERGE_BYTES_MAX
from cas.model.encoding import encode
from cas.model.ids import Kind, TreeId, digest_of
from cas.model.names import Path
from cas.model.objects import FILE
from cas.trees.merge import Reason, TreeConflict, is_file, merge_trees, merged_tag, merged_value
from cas.trees.node import DIRECTORY, Node, Value, id_of
from cas.trees.paths import edit_paths

OnConflict = Literal["report", "commit", "ours", "theirs"]
"""What becomes of conflicts: only told; committed as such; settled for one side."""

POLICIES: Final = ("report", "commit", "ours", "theirs")


class Scratch:
    """A `NodeStore` that keeps what a plan makes in memory, and reads the rest from the store."""

    def __init__(self, core: Core) -> None:
        self._objects = core.objects
        self._stored = core.objects.tree_nodes(DIRECTORY)
        self._made: dict[bytes, bytes | Node] = {}

    def load(self, node_id: bytes) -> Node:
        made = self._made.get(node_id)
        return made if isinstance(made, Node) else self._stored.load(node_id)

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        self._made[id] = node
        return id

    def blob(self, id: bytes) -> bytes:
        """A content, made here or stored."""
        made = self._made.get(id)
        return made if isinstance(made, bytes) else self._objects.get(id, Kind.BLOB)

    def put(self, content: bytes) -> tuple[bytes, int]:
        """Keep a content here; its id and size."""
        id = digest_of(Kind.BLOB, content)
        self._made[id] = content
        return id, len(content)

    def below(self, ids: list[bytes]) -> dict[bytes, bytes | Node]:
        """What was made here of these objects and of all that they name."""
        found: dict[bytes, bytes | Node] = {}
        while ids:
            id = ids.pop()
            made = self._made.get(id)
            if made is not None and id not in found:
                found[id] = made
                if isinstance(made, Node):
                    ids += [made.child_id(at) for at in range(len(made))]
        return found


@frozen
class Merged:
    """Ours with the changes of theirs: the tree, the paths that differ, and what clashes."""

    tree: bytes
    paths: frozenset[Path]
    clashes: Sequence[TreeConflict]
    followed: tuple[Followed, ...] = ()


def merge_directories(
    base: bytes, ours: bytes, theirs: bytes, scratch: Scratch, renames: bool
) -> Merged:
    """Merge three directories; files that both changed as text, and at their new path where they
    were renamed.
    """
    found = merge_trees(base, ours, theirs, scratch)
    edits, clashes = found.edits, []
    for clash in found.conflicts:
        value = _settled(clash, scratch)
        if value is None:
            clashes.append(clash)
        elif value != clash.ours:
            edits[clash.path] = value
    tree = edited(ours, edits, scratch)
    if not renames or not clashes:
        return Merged(tree, frozenset(edits), clashes)
    more = follow(
        Sides(base, ours, theirs, tree),
        clashes,
        scratch,
        scratch.blob,
        lambda clash: _settled(clash, scratch),
    )
    tree = edited(tree, more.edits, scratch)
    paths = frozenset(edits).union(more.edits)
    return Merged(tree, paths, more.clashes, more.followed)


def edited(tree: bytes, edits: Mapping[Path, Value | None], scratch: Scratch) -> bytes:
    """A directory after edits by path; None removes."""
    return edit_paths(tree, edits, scratch).root if edits else tree


def _settled(clash: TreeConflict, scratch: Scratch) -> Value | None:
    """What becomes of a file that both sides changed, where that goes together."""
    base, ours, theirs = clash.base, clash.ours, clash.theirs
    if clash.reason != Reason.BOTH_CHANGED or base is None or ours is None or theirs is None:
        return None
    value = merged_value(base, ours, theirs)
    if value is None and (contents := _contents(clash, scratch)) is not None:
        text = merge_text(*contents)
        value = None if text is None else (merged_tag(base, ours, theirs), *scratch.put(text))
    return value


def _contents(clash: TreeConflict, scratch: Scratch) -> tuple[bytes, bytes, bytes] | None:
    """What the three sides hold, where all are files short enough to be text, and none purged."""
    sides = (clash.base, clash.ours, clash.theirs)
    if any(
        value is not None and (not is_file(value) or value[2] > TEXT_MERGE_BYTES_MAX)
        for value in sides
    ):
        return None
    try:
        base, ours, theirs = (b"" if value is None else scratch.blob(value[1]) for value in sides)
    except Purged:
        return None
    return base, ours, theirs


def stand_in(clash: TreeConflict, scratch: Scratch) -> Value:
    """A file that stands for a clash of two bases, and equals neither of them."""
    contents = _contents(clash, scratch)
    parts = None if contents is None else merge_contents(*contents)
    if parts is not None and clash.ours is not None and clash.theirs is not None:
        content = with_markers(parts, "one side", "other side")
    else:
        sides = (clash.base, clash.ours, clash.theirs)
        content = encode([None if value is None else value[1] for value in sides])
    return (FILE, *scratch.put(content))


@frozen
class Outcome:
    """What a merge of directories comes to, with conflicts as the caller wants them.

    `made` are the blobs and nodes that `tree` and the conflicts need and the store may not have.
    """

    tree: TreeId
    conflicts: tuple[MergeConflict, ...]
    settled: tuple[MergeConflict, ...]
    followed: tuple[Followed, ...]
    edit_count: int
    made: dict[bytes, bytes | Node]


def outcome(merged: Merged, on_conflict: OnConflict, scratch: Scratch) -> Outcome:
    """Settle what clashes for a side, or leave it to be told or committed."""
    clashes = merged.clashes
    settle = {clash.path: clash.theirs for clash in clashes if on_conflict == "theirs"}
    tree = edited(merged.tree, settle, scratch)
    conflicts = tuple(to_conflict(c.path, c.reason, c.base, c.ours, c.theirs) for c in clashes)
    is_settled = on_conflict in ("ours", "theirs")
    # What a conflict names of a virtual base is stored with the tree.
    bases_made = [clash.base[1] for clash in clashes if clash.base is not None]
    return Outcome(
        TreeId(tree),
        () if is_settled else conflicts,
        conflicts if is_settled else (),
        merged.followed,
        len(merged.paths.union(settle)),
        scratch.below([tree, *bases_made]),
    )


def check_policy(on_conflict: str) -> None:
    """Refuse a word that says nothing about conflicts. Raises `Invalid`."""
    if on_conflict not in POLICIES:
        raise Invalid(f"on_conflict is one of {', '.join(POLICIES)}, not {on_conflict!r}.")
