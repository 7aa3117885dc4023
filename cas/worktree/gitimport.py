"""Objects of a git folder become objects of the store.

Floor 5. Invariant: what was imported before is not read again: each commit says which commit of
git it came from, so that commits themselves are the record of what is here. An object of git that
is damaged stops the import.

Objects of a window of commits are found first, then contents are read, checked and hashed, then
directories are built from below, then commits: what is named is always staged before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from operator import eq, ge
from typing import Final

from cas.errors import InvalidName, LimitExceeded, NotFound, WrongKind
from cas.history.store import Store
from cas.history.view import Ref
from cas.limits import PATH_DEPTH_MAX, WHOLE_BLOB_BYTES_MAX
from cas.model.ids import CommitId, Kind, ObjectId, TreeId
from cas.model.names import check_entry_name, printable
from cas.model.objects import EntryKind, Tag
from cas.objects.batch import Batch
from cas.objects.bulk import Ahead
from cas.trees import paths
from cas.trees.build import Columns, build_columns
from cas.trees.node import DIRECTORY, Node, id_of
from cas.worktree import git
from cas.worktree.git import GitFolder, two_kinds
from cas.worktree.gitvalues import (
    KEY,
    GitCommit,
    GitEntry,
    git_id,
    make_commit,
    make_tag,
    parse_commit,
    parse_tree,
    tag_target,
)
from cas.worktree.values import Problem

_TREE: Final = int(EntryKind.TREE)
_MODES: Final = {
    b"40000": _TREE,
    b"100644": int(EntryKind.FILE),
    b"100755": int(EntryKind.EXECUTABLE),
    b"120000": int(EntryKind.LINK),
}
_SUBMODULE: Final = b"160000"
_GROUPS_AHEAD: Final = 4


class _Nodes:
    """Where nodes of directories go: into the batch, past the cache."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        self._batch.add(id, int(Kind.TREE), node.data)
        return id

    def load(self, node_id: bytes) -> Node:
        raise AssertionError("an import reads no node that it has made")


class GitImport:
    """One import: what is known of git's objects, and what was noticed."""

    def __init__(self, store: Store, folder: GitFolder) -> None:
        self._store = store
        self._folder = folder
        # git's id of a directory or file -> (id, bytes of content) here.
        self._known: dict[bytes, tuple[bytes, int]] = {}
        self._directories: set[bytes] = set()
        # Names that a directory here can hold: there are far fewer names than entries.
        self._names: set[bytes] = set()
        self.commits: dict[bytes, CommitId] = {}
        self._made: set[bytes] = set()
        self.problems: dict[tuple[str, str], Problem] = {}
        self.odd_modes: dict[tuple[str, str], Problem] = {}
        self.commit_count = self.directory_count = self.file_count = 0
        self.content_bytes = self.new_count = self.new_bytes = 0

    # -- what is here ------------------------------------------------------------------------

    def learn(self) -> None:
        """Find every commit of the store that came from git."""
        commits = self._store.core.commits
        stack = [id for ref in self._store.view().refs() if (id := commit_of(self._store, ref))]
        seen = set(stack)
        while stack:
            id = stack.pop()
            commit = commits.get(id)
            found = git_id(commit.extras)
            if found is not None:
                self.commits.setdefault(found, id)
            for parent in commit.parents:
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)

    def _learn_trees(self, parents: Iterable[bytes]) -> None:
        """What stands for the directories of commits that were here before, pair by pair."""
        for parent in parents:
            commit = self._store.core.commits.get(self.commits[parent])
            self._pair(commit.extras[KEY]["tree"], commit.tree)

    def _pair(self, tree: bytes, root: bytes) -> None:
        nodes = self._store.objects.tree_nodes(DIRECTORY)
        stack = [(tree, root)]
        while stack:
            theirs, ours = stack.pop()
            if theirs in self._known or not self._folder.holds(theirs):
                continue
            from_git = {name: (mode, id) for mode, name, id in self._entries(theirs)}
            here = list(paths.list_directory(ours, (), nodes))
            self._directories.add(theirs)
            self._known[theirs] = (ours, sum(entry.size for _name, entry in here))
            for name, entry in here:
                mode, id = from_git.get(name, (b"", b""))
                if entry.is_tree:
                    stack.append((id, entry.id))
                elif mode:
                    self._known[id] = (bytes(entry.id), entry.size)

    # -- what is new -------------------------------------------------------------------------

    def take(self, batch: Batch, ids: Sequence[bytes]) -> None:
        """Stage commits, parents first, with all that they name."""
        folder = self._folder
        found = [(id, data := folder.read(id, git.COMMIT), parse_commit(id, data)) for id in ids]
        self._made.update(ids)
        around = {parent for _, _, commit in found for parent in commit.parents}
        self._learn_trees(around - self._made)
        order, files = self._discover([commit.tree for _, _, commit in found])
        self._take_files(batch, files)
        nodes = _Nodes(batch)
        for id, entries in order:
            self._known[id] = self._build(entries, nodes)
            self._directories.add(id)
        self.directory_count += len(order)
        for id, data, commit in found:
            self._take_commit(batch, id, data, commit)

    def _take_commit(self, batch: Batch, id: bytes, data: bytes, found: GitCommit) -> None:
        parents = [self.commits[parent] for parent in found.parents]
        root = self._known[found.tree][0]
        commit = make_commit(id, data, found, TreeId(root), parents)
        self.commits[id] = CommitId(batch.put(Kind.COMMIT, commit.encode()))
        self.commit_count += 1

    def _entries(self, id: bytes) -> list[GitEntry]:
        return parse_tree(id, self._folder.read(id, git.TREE))

    def _discover(
        self, roots: Iterable[bytes]
    ) -> tuple[list[tuple[bytes, list[GitEntry]]], list[bytes]]:
        """Directories that are new, children before parents, and the files that are new."""
        order: list[tuple[bytes, list[GitEntry]]] = []
        files: dict[bytes, None] = {}
        known, directories = self._known, self._directories
        seen: set[bytes] = set()
        for root in roots:
            if root in seen or root in known:
                continue
            seen.add(root)
            trail = [(root, b"", entries := self._entries(root), iter(entries))]
            while trail:
                id, _name, entries, rest = trail[-1]
                for mode, name, child in rest:
                    if child in known:
                        if (mode == b"40000") != (child in directories):
                            raise two_kinds(child)
                        continue
                    if mode == b"40000":
                        if child in seen:
                            continue
                        seen.add(child)
                        if len(trail) >= PATH_DEPTH_MAX:
                            raise _too_deep([part for _, part, _, _ in trail])
                        below = self._entries(child)
                        trail.append((child, name, below, iter(below)))
                        break
                    if mode not in _MODES:
                        self._notice(mode, [part for _, part, _, _ in trail[1:]], name)
                        if mode == _SUBMODULE:
                            continue
                    files[child] = None
                else:
                    order.append((id, entries))
                    trail.pop()
        return order, list(files)

    def _notice(self, mode: bytes, above: Sequence[bytes], name: bytes) -> None:
        path = printable(b"/".join((*above, name)))
        if mode == _SUBMODULE:
            text = f"{path} is a submodule; its commit belongs to another history"
            self.problems.setdefault((path, ""), Problem(path, "submodule", text))
        else:
            shown = mode.decode()
            text = f"{path} has the mode {shown}; it is a file without an executable bit"
            self.odd_modes.setdefault((path, shown), Problem(path, "mode", text))

    def _take_files(self, batch: Batch, ids: list[bytes]) -> None:
        """Stage contents; they are read and checked on a thread of their own."""
        number = 0
        with closing(Ahead(self._folder.groups(ids), _GROUPS_AHEAD)) as groups:
            for group in groups:
                large = any(len(data) > WHOLE_BLOB_BYTES_MAX for data in group)
                if large:
                    stored = [self._put(batch, data) for data in group]
                else:
                    stored = batch.put_blobs(group)
                sizes = [len(data) for data in group]
                theirs = ids[number : number + len(group)]
                self._known.update(zip(theirs, zip(stored, sizes, strict=True), strict=True))
                number += len(group)
                self.content_bytes += sum(sizes)
        self.file_count += len(ids)

    def _put(self, batch: Batch, data: bytes) -> bytes:
        return self._store.core.put_content(batch, data)[0]

    def _build(self, entries: list[GitEntry], nodes: _Nodes) -> tuple[bytes, int]:
        """The directory of the store for one of git: (id, bytes of content)."""
        columns = Columns()
        entries = self._in_order(entries)
        if entries:
            modes, names, children = zip(*entries, strict=True)
            known = self._known
            values = [known[child] for child in children]
            columns.names = list(names)
            columns.tags = [_MODES.get(mode, 1) for mode in modes]
            columns.ids += b"".join([value[0] for value in values])
            columns.numbers = [value[1] for value in values]
        done = build_columns(DIRECTORY, columns, nodes)
        return done.root, done.number

    def _in_order(self, entries: list[GitEntry]) -> list[GitEntry]:
        """Entries in the order of their names, as git has them but for directories; submodules,
        and what no directory here can hold, are left out.
        """
        names = [entry[1] for entry in entries]
        if any(map(ge, names, names[1:])):
            entries = sorted(entries, key=_name_of)
            names.sort()
            if any(map(eq, names, names[1:])):
                entries = self._once(entries)
        if not self._names.issuperset(names):
            self._names.update(name for name in names if self._fits(name))
            entries = [entry for entry in entries if entry[1] in self._names]
        if any(entry[0] == _SUBMODULE for entry in entries):
            entries = [entry for entry in entries if entry[0] != _SUBMODULE]
        return entries

    def _fits(self, name: bytes) -> bool:
        try:
            check_entry_name(name)
        except (InvalidName, LimitExceeded) as error:
            path = printable(name)
            self.problems.setdefault((path, "name"), Problem(path, "name", error.message))
            return False
        return True

    def _once(self, entries: list[GitEntry]) -> list[GitEntry]:
        """Entries without those whose name has been there."""
        kept: list[GitEntry] = []
        for entry in entries:
            if kept and kept[-1][1] == entry[1]:
                path = printable(entry[1])
                text = f"{path} is twice in one directory of git; the first one is kept"
                self.problems.setdefault((path, "name"), Problem(path, "name", text))
            else:
                kept.append(entry)
        return kept

    def tag(self, batch: Batch, id: bytes) -> tuple[ObjectId, Kind] | None:
        """An annotated tag of git with all that it names; None when that cannot be had."""
        chain: list[tuple[bytes, bytes]] = []
        kind = "tag"
        while kind == "tag" and len(chain) < 16:
            data = self._folder.read(id, git.TAG)
            chain.append((id, data))
            id, kind = tag_target(id, data)
        target = self._tagged(batch, id, kind)
        for tag, data in reversed(chain):
            if target is None:
                return None
            value: Tag = make_tag(tag, data, *target)
            target = ObjectId(batch.put(Kind.TAG, value.encode())), Kind.TAG
        return target

    def _tagged(self, batch: Batch, id: bytes, kind: str) -> tuple[ObjectId, Kind] | None:
        if kind == "commit" and id in self.commits:
            return self.commits[id], Kind.COMMIT
        if kind == "blob":
            return ObjectId(self._put(batch, self._folder.read(id, git.BLOB))), Kind.BLOB
        if kind == "tree":
            order, files = self._discover([id])
            self._take_files(batch, files)
            nodes = _Nodes(batch)
            for tree, entries in order:
                self._known[tree] = self._build(entries, nodes)
                self._directories.add(tree)
            return ObjectId(self._known[id][0]), Kind.TREE
        return None


def _name_of(entry: GitEntry) -> bytes:
    return entry[1]


def commit_of(store: Store, ref: Ref) -> CommitId | None:
    """The commit that a ref leads to, None when that is gone or no commit."""
    try:
        return store.resolve(ref.target)
    except (NotFound, WrongKind):
        return None


def _too_deep(names: Sequence[bytes]) -> LimitExceeded:
    shown = printable(b"/".join(names[1:4]))
    return LimitExceeded(
        f"Directories below {shown!r} are nested deeper than {PATH_DEPTH_MAX} names.",
        limit="PATH_DEPTH_MAX",
        value=len(names) + 1,
        maximum=PATH_DEPTH_MAX,
    )
