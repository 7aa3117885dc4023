"""Who needs what is lost: refs and paths that lead to damaged or missing objects.

Floor 5. Invariant: runs only when something is lost, and stops after a bounded walk; what it
names does need the object, what it does not name may need it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cas.errors import CasError
from cas.limits import ID_BYTES
from cas.maintenance.findings import AFFECTED_MAX
from cas.model.ids import Kind, ObjectId
from cas.model.names import printable, short_ref
from cas.model.objects import Commit, EntryKind, Tag
from cas.trees.node import decode_node

Load = Callable[[bytes], tuple[int, bytes]]

READS_MAX: Final = 100_000
"""Objects that one walk reads."""


class _Walk:
    def __init__(self, wanted: set[bytes], load: Load) -> None:
        self.wanted = wanted
        self.places: dict[bytes, list[str]] = {}
        self._load = load
        self._reads = 0

    def found(self, id: bytes, place: str) -> bool:
        """Note a place of a wanted object; whether it is one."""
        if id not in self.wanted:
            return False
        places = self.places.setdefault(id, [])
        if len(places) < AFFECTED_MAX and place not in places:
            places.append(place)
        return True

    def read(self, id: bytes, kind: int) -> bytes | None:
        """Content of an object of a kind; None when it cannot be had or the walk is over."""
        if self._reads >= READS_MAX:
            return None
        self._reads += 1
        try:
            found, content = self._load(id)
        except CasError:
            return None
        return content if found == kind else None

    def commit(self, id: bytes, label: str) -> Commit | None:
        """A commit, noted if it is wanted."""
        self.found(id, label)
        content = self.read(id, Kind.COMMIT)
        try:
            return None if content is None else Commit.decode(content, verified=True)
        except CasError:
            return None

    def tag(self, id: bytes) -> Tag | None:
        """A tag, if it can be read."""
        content = self.read(id, Kind.TAG)
        try:
            return None if content is None else Tag.decode(content, verified=True)
        except CasError:
            return None

    def tree(self, root: bytes, label: str, seen: set[bytes]) -> None:
        """Note wanted objects below a directory."""
        stack = [(root, b"")]
        while stack:
            id, prefix = stack.pop()
            self.found(id, f"{label}:{printable(prefix.rstrip(b'/'))}")
            if id in seen:
                continue
            seen.add(id)
            content = self.read(id, Kind.TREE)
            if content is None:
                continue
            try:
                node = decode_node(content, Kind.TREE, verified=True)
            except CasError:
                continue
            for index, name in enumerate(node.names):
                child = node.ids[index * ID_BYTES : (index + 1) * ID_BYTES]
                if node.level:
                    stack.append((child, prefix))
                elif node.tags[index] == EntryKind.TREE:
                    stack.append((child, prefix + name + b"/"))
                else:
                    self.found(child, f"{label}:{printable(prefix + name)}")


def places_of(
    wanted: set[bytes], refs: Mapping[str, tuple[int, ObjectId]], load: Load
) -> dict[bytes, list[str]]:
    """Refs and paths (`main`, `main:docs/a.md`, `<commit>:docs/a.md`) that need each object.

    The newest states of all refs come first, then their histories.
    """
    walk = _Walk(wanted, load)
    older: list[bytes] = []
    for ref, (kind, target) in sorted(refs.items()):
        label = short_ref(ref)
        id: bytes = target
        while kind == Kind.TAG:
            walk.found(id, label)
            tag = walk.tag(id)
            if tag is None:
                break
            kind, id = tag.target_kind, tag.target
        commit = walk.commit(id, label)
        if commit is not None:
            walk.tree(commit.tree, label, set())
            older.extend(commit.parents)
    seen: set[bytes] = set()
    trees: set[bytes] = set()
    while older:
        id = older.pop()
        if id in seen:
            continue
        seen.add(id)
        label = ObjectId(id).short
        commit = walk.commit(id, label)
        if commit is not None:
            walk.tree(commit.tree, label, trees)
            older.extend(commit.parents)
    return walk.places
