"""A branch inside a transaction: its files as they will be.

Floor 4. Invariant: what is staged is seen by this transaction only; reading shows the base with
the staged edits on top. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from cas.errors import Invalid, PathNotFound, WrongKind
from cas.history.core import Core
from cas.history.snapshot import Contents
from cas.history.timeline import RefValue
from cas.later import Later
from cas.limits import FOLLOW_CHANGES_MAX
from cas.model.entry import BranchRequest
from cas.model.ids import BlobId, CommitId, Kind, ObjectId, TreeId, as_blob_id, as_commit_id
from cas.model.names import Path, join_path, quoted, split_path
from cas.model.objects import TREE, Commit, EntryKind, TreeEntry
from cas.objects.batch import Batch
from cas.objects.content import Readable
from cas.trees import known, paths
from cas.trees.below import refuse_both
from cas.trees.diff import diff
from cas.trees.node import DIRECTORY, EMPTY_DATA, NodeStore, Value

if TYPE_CHECKING:
    from cas.history import clash, conflicts
    from cas.history.conflicts import MergeConflict
else:  # few branches hold conflicts, or are moved by others while somebody is at work on them
    clash, conflicts = Later("cas.history.clash"), Later("cas.history.conflicts")


OnMove = Literal["rebase", "conflict"]
"""What a commit does about a branch that moved: follow it where nothing was touched, or refuse."""
Check = Callable[[bytes, bytes, NodeStore], None]
"""Refuses, by an error, a directory in another's place: (old, new, nodes); perhaps in the gate."""
Side = Literal["base", "ours", "theirs"]
"""A side of a conflict."""


class BranchEdit(Contents, MutableMapping[str, bytes]):
    """A branch inside a transaction: the files as they will be. Begin with `tx.branch(name)`.

    `edit["a/b"] = b"..."` stages a file, `del edit["a/b"]` a removal (of a directory with all in
    it, too); reading gives what is staged first.
    """

    def __init__(
        self,
        core: Core,
        batch: Batch,
        ref: str,
        base: RefValue | None,
        allow_empty: bool,
        on_move: OnMove = "rebase",
    ) -> None:
        self._core = core
        self._batch = batch
        self._nodes = core.objects.tree_nodes(DIRECTORY, batch)
        self.ref = ref
        self.base = base
        self.allow_empty = allow_empty
        self.parents: tuple[CommitId, ...] = ()
        self.tree: bytes = DIRECTORY.empty
        self._parent: Commit | None = None
        self._resolved: set[Path] = set()
        if base is not None:
            commit = core.commits.get(base.target)
            self.parents = (as_commit_id(base.target),)
            self.tree = commit.tree
            self._parent = commit
        self._base_tree = self.tree
        self._replaced = False
        # Whether the base is known to survive a crash, so that what it holds may be told.
        self._stands = False
        self.staged: dict[Path, Value | None] = {}
        # Directories in which something is or was staged.
        self._above: set[Path] = set()
        self.on_move: OnMove = on_move
        self._based_on: bytes | None = None
        # Paths that were looked at, and the directories above them.
        self._reads: set[Path] = set()
        self._known = known.Known(self._nodes)
        self._reads_above: set[Path] = set()
        self._read_all = False
        # Directories whose every change matters here, and those above them.
        self._watched: set[Path] = set()
        self.settle: clash.Settle | None = None
        self.check: Check | None = None

    def __repr__(self) -> str:
        return f"<BranchEdit {self.ref}, {len(self.staged)} staged>"

    # -- staging -----------------------------------------------------------------------------

    def __setitem__(self, path: str | bytes, content: bytes) -> None:
        self.put(path, content)

    def put(
        self,
        path: str | bytes,
        content: bytes | Readable,
        *,
        kind: EntryKind = EntryKind.FILE,
    ) -> BlobId:
        """Stage a file (or link: the content is its target) from bytes or a readable stream.

        Raises `InvalidName` beside what else is staged for a path above or below this one, where
        one of the two would have to be file and directory at once: remove the other first.
        """
        return self.put_at(split_path(path), content, kind)

    def put_at(self, parts: Path, content: bytes | Readable, kind: EntryKind) -> BlobId:
        """`put` at a path that was taken apart, and so checked, before."""
        self._batch.check_open()
        if kind > EntryKind.EXECUTABLE:
            content = self._core.target_of(content, kind)
        refuse_both(self.staged, self._above, parts, int(kind))
        id, size_bytes = self._core.put_content(self._batch, content)
        self._stage(parts, (int(kind), id, size_bytes))
        return as_blob_id(id)

    def put_entry(self, path: str | bytes, entry: TreeEntry) -> None:
        """Stage an entry whose object exists or was put in this transaction: no bytes move.

        Of a directory each directory in it is looked at, for its depth. Raises `ObjectNotFound`,
        `WrongKind`, `Invalid` when it has another size, `LimitExceeded` when paths in it would be
        longer here than a path may be, `InvalidName` as `put` does.
        """
        self._batch.check_open()
        parts = split_path(path)
        refuse_both(self.staged, self._above, parts, int(entry.kind))
        if entry.is_tree and entry.id == DIRECTORY.empty:
            # Known to everybody, and stored by nobody before it is first used.
            self._batch.put(Kind.TREE, EMPTY_DATA)
        size_bytes = self._measure(entry.id, Kind.TREE if entry.is_tree else Kind.BLOB)
        if entry.size != size_bytes:
            raise Invalid(f"{entry.id.short} has {size_bytes} bytes, not {entry.size}.")
        if entry.is_tree:
            # A commit that nobody can walk would be no use to anybody.
            paths.check_levels(entry.id, len(parts), self._nodes)
        self._rely(entry.id)
        self._stage(parts, (int(entry.kind), bytes(entry.id), size_bytes))

    def _stage(self, parts: Path, value: Value | None) -> None:
        self.staged[parts] = value
        for length in range(len(parts) - 1, 0, -1):
            if parts[:length] in self._above:
                break
            self._above.add(parts[:length])

    def _measure(self, id: ObjectId, kind: Kind) -> int:
        """Bytes of content of a blob, or of the files of a directory."""
        found, size_bytes = self._core.objects.measure(self._batch, id)
        if found != kind:
            raise WrongKind(
                f"{id.short} is a {Kind(found).name.lower()}, not a {kind.name.lower()}.",
                id=id,
                expected=kind,
                actual=Kind(found),
            )
        if kind != Kind.TREE:
            return size_bytes
        root = paths.lookup(id, (), self._nodes)
        assert root is not None
        return root.size

    def _rely(self, id: ObjectId) -> None:
        if not self._batch.holds(id):
            self._core.objects.require(id)
            self._batch.rely(id)

    def put_tree(self, tree: TreeId) -> None:
        """Replace all files by those of a directory; paths staged later stand on top.

        Raises `ObjectNotFound`, `WrongKind`.
        """
        self._batch.check_open()
        if tree != DIRECTORY.empty:
            self._measure(tree, Kind.TREE)
            self._rely(tree)
        self.staged.clear()
        self._above.clear()
        self.tree = tree
        self._replaced = True

    def clear(self) -> None:
        """Stage the removal of everything, at once."""
        self.put_tree(TreeId(DIRECTORY.empty))

    def stage_tree(self, stage: Callable[[Batch], bytes]) -> TreeId:
        """`put_tree` of the directory that `stage` puts into this transaction's batch."""
        tree = TreeId(stage(self._batch))
        self.put_tree(tree)
        return tree

    def __delitem__(self, path: str | bytes) -> None:
        self._batch.check_open()
        parts = split_path(path)
        if self._find(parts) is None:
            raise PathNotFound(
                f"There is no {quoted(b'/'.join(parts))} in {self.ref}.",
                path=join_path(parts),
            )
        if parts in self._above:
            for staged in [p for p in self.staged if p[: len(parts)] == parts]:
                del self.staged[staged]
        else:
            self.staged.pop(parts, None)
        if self._find(parts) is not None:
            self._stage(parts, None)

    # -- conflicts ---------------------------------------------------------------------------

    def conflicts(self) -> tuple[MergeConflict, ...]:
        """Conflicts that the branch's newest commit holds, and this transaction has not settled."""
        self._batch.check_open()
        if self._parent is None or self._parent.conflicts is None:
            return ()
        found = conflicts.read_conflicts(self._core, self._parent, self._batch)
        return tuple(conflict for conflict in found if not self._touched(conflict.parts))

    def resolve(
        self,
        path: str | bytes,
        content: bytes | Readable | None = None,
        *,
        take: Side | None = None,
    ) -> None:
        """Settle the conflict at `path`: by content, by one of its sides, or as it stands.

        Writing the path by any other call settles it too. Raises `PathNotFound` when no
        conflict stands there.
        """
        parts = split_path(path)
        conflict = next((c for c in self.conflicts() if c.parts == parts), None)
        if conflict is None:
            raise PathNotFound(
                f"There is no conflict at {quoted(b'/'.join(parts))} in {self.ref}; "
                "`cas conflicts` lists those that there are.",
                path=join_path(parts),
            )
        if content is not None and take is not None:
            raise Invalid("Give content or a side to take, not both.")
        if content is not None:
            self.put(path, content)
        elif take is not None:
            if (entry := conflict.side(take)) is not None:
                refuse_both(self.staged, self._above, parts, int(entry.kind))
                self._rely(entry.id)
            self._stage(parts, conflicts.to_value(entry))
        self._resolved.add(parts)
        self.allow_empty = True

    def _touched(self, parts: Path) -> bool:
        """Whether something was written at, above or below a path."""
        return parts in self._resolved or any(
            staged[: len(parts)] == parts or parts[: len(staged)] == staged
            for staged in self.staged
        )

    def _settles(self) -> bool:
        """Whether what was written settles a conflict, even if it changed nothing."""
        if self._parent is None or self._parent.conflicts is None:
            return False
        every = conflicts.read_conflicts(self._core, self._parent, self._batch)
        return any(self._touched(conflict.parts) for conflict in every)

    def extras(self, root: bytes) -> dict[str, Any]:
        """Extras of the commit of the new tree `root`: conflicts that are still to be settled,
        and the commit that the work was begun on when the branch has moved since.
        """
        based = {} if self._based_on is None else {"based_on": self._based_on}
        if self._parent is None or self._parent.conflicts is None:
            return based
        return based | conflicts.carried(self._core, self._batch, self._parent, root, self._touched)

    def follow(self, actual: RefValue | None) -> bool:
        """Take the branch as others have left it for the base of what is staged.

        False, and nothing changed, where that touches what was read or written here, or where
        it cannot be told: the branch is gone, was replaced as a whole, or holds conflicts.
        """
        if self.on_move != "rebase" or actual is None or actual.kind != Kind.COMMIT:
            return False
        commit = self._core.commits.get(actual.target, self._batch)
        parent = self._parent
        if self._replaced or commit.conflicts or (parent is not None and parent.conflicts):
            return False
        clashes = self._clashes(commit.tree)
        if clashes is None or (clashes and self.settle is None):
            return False
        if clashes and self.settle is not None:
            self.settle(clashes)
        if self.base is not None and self._based_on is None:
            self._based_on = bytes(self.base.target)
        self.base, self._stands = actual, False
        self.parents = (CommitId(actual.target),)
        self.tree = self._base_tree = commit.tree
        self._parent = commit
        return True

    def _clashes(self, tree: bytes) -> list[clash.Clash] | None:
        """What others changed, on the way to this tree, of what was read, written or is watched.

        None where that cannot be told. Directories are entered only on the way to something of
        that: what others did elsewhere is not even read, for often everybody else waits at the
        gate meanwhile.
        """
        count = 0
        found: list[clash.Clash] = []
        stack: list[tuple[Path, bytes, bytes, bool]] = [((), self._base_tree, tree, False)]
        while stack:
            above, old_root, new_root, watched = stack.pop()
            for name, old, new in diff(DIRECTORY, old_root, new_root, self._nodes):
                path = (*above, name)
                count += 1
                if count > FOLLOW_CHANGES_MAX:
                    return None
                below = watched or path in self._watched
                before, after = paths.root_of(old), paths.root_of(new)
                is_folder = before is not None and after is not None
                if self._concerns(path) or (below and not is_folder):
                    found.append(self._clash(path, old, new, below))
                if path in self._above or path in self._reads_above or below:
                    if before is not None and after is not None:
                        stack.append((path, before, after, below))
                    elif not below:
                        return None
        return found

    def _concerns(self, path: Path) -> bool:
        return self._read_all or path in self.staged or path in self._reads

    def _clash(self, path: Path, old: Value | None, new: Value | None, below: bool) -> clash.Clash:
        read = self._read_all or path in self._reads
        before, after = (None if side is None else paths.to_entry(side) for side in (old, new))
        return clash.Clash(path, before, after, path in self.staged, read, below)

    def watch(self, path: str | bytes) -> None:
        """Tell `settle` of everything that others change below a directory, read or not."""
        parts = split_path(path)
        self._watched.add(parts)
        self._reads_above.update(parts[:length] for length in range(1, len(parts)))

    def unstage(self, path: str | bytes) -> None:
        """Forget what is staged at exactly this path: what others left there stands."""
        self.staged.pop(split_path(path), None)

    def drop(self, path: str | bytes) -> None:
        """Stage the removal of a path, whether or not something is there."""
        self._batch.check_open()
        self._stage(split_path(path), None)

    # -- reading -----------------------------------------------------------------------------

    def entry(self, path: str | bytes) -> TreeEntry | None:
        """What lies at `path`, staged edits included."""
        return None if (value := self.find(split_path(path))) is None else paths.to_entry(value)

    def find(self, parts: Path) -> Value | None:
        """`entry` by the names of a path, as the tree has it: kind, id and bytes."""
        if not self._stands:
            self._core.objects.catalog.harden(reading=True)
            self._stands = True
        return self._find(parts)

    def look(self, parts: Path) -> Value | None:
        """What the tree has at a path, without what is staged; this is no reading."""
        return self._known.look(self.tree, parts)

    def _find(self, parts: Path) -> Value | None:
        self._batch.check_open()
        if parts not in self._reads:
            self._reads.add(parts)
            self._reads_above.update(parts[:length] for length in range(1, len(parts)))
        if parts in self._above:
            return paths.value_at(self._preview(), parts, self._nodes)
        if parts in self.staged:
            return self.staged[parts]
        for length in range(len(parts) - 1, 0, -1):
            if parts[:length] in self.staged:
                value = self.staged[parts[:length]]
                if value is None or value[0] != TREE:
                    return None
                return paths.value_at(value[1], parts[length:], self._nodes)
        return self.look(parts)

    def _preview(self) -> bytes:
        """Root of the files as they stand; its nodes are staged and cost nothing if unchanged."""
        self._batch.check_open()
        return paths.edit_paths(self.tree, self.staged, self._nodes).root

    def __getitem__(self, path: str | bytes) -> bytes:
        entry = self.entry(path)
        if entry is None:
            raise PathNotFound(f"There is no {path!r} in {self.ref}.", path=path)
        if entry.is_tree:
            raise WrongKind(
                f"{path!r} is a directory, not a file.", id=entry.id, expected="file", actual="tree"
            )
        return self._core.objects.staged(self._batch, entry.id)[1]

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str | bytes) or not path:
            return False
        entry = self.entry(path)
        return entry is not None and not entry.is_tree

    def __iter__(self) -> Iterator[str]:
        self._core.objects.catalog.harden(reading=True)
        self._read_all = True
        for parts, _entry in paths.walk(self._preview(), self._nodes):
            yield join_path(parts)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    # -- ending ------------------------------------------------------------------------------

    def finish(self) -> bytes | None:
        """Root of the new tree, its nodes staged; None when nothing changes."""
        root = self.tree
        if self.staged:
            root = paths.edit_paths(root, self.staged, self._nodes).root
        if root == self._base_tree and not self.allow_empty and not self._settles():
            return None
        if self.check is not None:
            self.check(self._base_tree, root, self._nodes)
        if root == DIRECTORY.empty:
            self._batch.put(Kind.TREE, EMPTY_DATA)
        return root

    def request(self) -> BranchRequest | None:
        """What was asked of this branch, for the request digest; None if it was only read."""
        if not self.staged and not self._replaced and not self.allow_empty:
            return None
        staged: list[tuple[bytes, int, bytes | None]] = [
            (b"/".join(parts), 0, None) if value is None else (b"/".join(parts), value[0], value[1])
            for parts, value in self.staged.items()
        ]
        if self._replaced:
            staged.append((b"", TREE, bytes(self.tree)))
        return self.ref, self.allow_empty, staged
