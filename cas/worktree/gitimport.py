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
from itertools import repeat
from operator import eq, ge
from typing import Final

from cas.errors import InvalidName, LimitExceeded, NotFound, WrongKind
from cas.history.store import Store
from cas.history.view import Ref
from cas.limits import NODE_SINGLE_ENTRIES_MAX, PATH_DEPTH_MAX, WHOLE_BLOB_BYTES_MAX
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digests_of
from cas.model.names import check_entry_name, printable
from cas.model.objects import EXECUTABLE, FILE, LINK, TREE, Tag
from cas.objects.batch import Batch
from cas.objects.bulk import Ahead
from cas.trees import paths
from cas.trees.build import Columns, build_columns
from cas.trees.node import DIRECTORY, Node, id_of
from cas.worktree import git
from cas.worktree.git import GitFolder, no_parent, two_kinds
from cas.worktree.gitvalues import (
    KEY,
    GitCommit,
    GitEntry,
    Odd,
    git_id,
    make_commit,
    make_tag,
    odd_entries,
    parse_commit,
    parse_tree,
    tag_target,
)
from cas.worktree.values import Problem

_MODES: Final = {
    b"40000": TREE,
    b"100644": FILE,
    b"100755": EXECUTABLE,
    b"120000": LINK,
}
_SUBMODULE: Final = b"160000"
_GROUPS_AHEAD: Final = 4


class GitImport:
    """One import: what is known of git's objects, and what was noticed."""

    def __init__(self, store: Store, folder: GitFolder) -> None:
        self._store = store
        self._folder = folder
        # git's id of a directory or file -> (id, bytes of content) here.
        self._known: dict[bytes, tuple[bytes, int]] = {}
        self._directories: set[bytes] = set()
        # git's id of a directory -> what is odd in and below it, by paths from there.
        self._odd: dict[bytes, Odd] = {}
        # Names that a directory here can hold: there are far fewer names than entries.
        self._names: set[bytes] = set()
        # Path -> newest version of what lies there: installed, and staged in the batch at hand.
        self._installed: dict[bytes, bytes] = {}
        self._latest: dict[bytes, bytes] = {}
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
            found = commit.extras[KEY]
            self._pair(found["tree"], commit.tree, found.get("odd", ()))

    def _pair(self, tree: bytes, root: bytes, odd: Odd) -> None:
        nodes = self._store.objects.tree_nodes(DIRECTORY)
        stack = [(tree, root, b"")]
        while stack:
            theirs, ours, place = stack.pop()
            if theirs in self._known or not self._folder.holds(theirs):
                continue
            from_git = {name: (mode, id) for mode, name, id in self._entries(theirs)}
            if below := _below(odd, place):
                self._odd[theirs] = below
            here = list(paths.list_directory(ours, (), nodes))
            self._directories.add(theirs)
            self._known[theirs] = (ours, sum(entry.size for _name, entry in here))
            for name, entry in here:
                mode, id = from_git.get(name, (b"", b""))
                if entry.is_tree:
                    stack.append((id, entry.id, place + name + b"/"))
                elif mode:
                    self._known[id] = (bytes(entry.id), entry.size)

    # -- what is new -------------------------------------------------------------------------

    def take(self, batch: Batch, ids: Sequence[bytes]) -> None:
        """Stage commits, parents first, with all that they name."""
        folder = self._folder
        found = [(id, data := folder.read(id, git.COMMIT), parse_commit(id, data)) for id in ids]
        self._made.update(ids)
        around = {parent for _, _, commit in found for parent in commit.parents} - self._made
        if absent := around - self.commits.keys():
            # The library takes the edge of a shallow clone for the beginning.
            raise no_parent(min(absent))
        self._learn_trees(around)
        order, files = self._discover([commit.tree for _, _, commit in found])
        self._take_files(batch, files)
        nodes = _Nodes(batch, self)
        for id, path, entries in order:
            nodes.path = path
            self._keep(id, entries, nodes)
        self.directory_count += len(order)
        for id, data, commit in found:
            self._take_commit(batch, id, data, commit)

    def _take_commit(self, batch: Batch, id: bytes, data: bytes, found: GitCommit) -> None:
        parents = [self.commits[parent] for parent in found.parents]
        root = self._known[found.tree][0]
        odd = self._odd.get(found.tree, ())
        commit = make_commit(id, data, found, TreeId(root), parents, odd)
        self.commits[id] = CommitId(batch.put(Kind.COMMIT, commit.encode()))
        self.commit_count += 1

    def _entries(self, id: bytes) -> list[GitEntry]:
        """Entries of a directory, their modes as git of today would write them."""
        entries = parse_tree(id, self._folder.read(id, git.TREE))
        odd = odd_entries(entries)
        if odd:
            self._odd[id] = tuple((name, mode, child) for mode, name, child in odd)
            entries = [(mode.lstrip(b"0"), name, child) for mode, name, child in entries]
        return entries

    def _discover(
        self, roots: Iterable[bytes]
    ) -> tuple[list[tuple[bytes, bytes, list[GitEntry]]], dict[bytes, bytes]]:
        """Directories that are new, children before parents: (git's id, path, entries); and the
        files that are new: git's id -> path.
        """
        order: list[tuple[bytes, bytes, list[GitEntry]]] = []
        files: dict[bytes, bytes] = {}
        known, directories = self._known, self._directories
        seen: set[bytes] = set()
        for root in roots:
            if root in seen or root in known:
                continue
            seen.add(root)
            trail = [(root, b"", entries := self._entries(root), iter(entries))]
            place = b""
            while trail:
                id, _above, entries, rest = trail[-1]
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
                            raise _too_deep(place)
                        below = self._entries(child)
                        trail.append((child, place, below, iter(below)))
                        place += name + b"/"
                        break
                    if mode not in _MODES:
                        self._notice(mode, place + name)
                        if mode == _SUBMODULE:
                            continue
                    files.setdefault(child, place + name)
                else:
                    order.append((id, place, entries))
                    place = trail.pop()[1]
        return order, files

    def _notice(self, mode: bytes, place: bytes) -> None:
        path = printable(place)
        if mode == _SUBMODULE:
            text = f"{path} is a submodule; its commit belongs to another history"
            self.problems.setdefault((path, ""), Problem(path, "submodule", text))
        else:
            shown = mode.decode()
            text = f"{path} has the mode {shown}; it is a file without an executable bit"
            self.odd_modes.setdefault((path, shown), Problem(path, "mode", text))

    def _take_files(self, batch: Batch, files: dict[bytes, bytes]) -> None:
        """Stage contents; they are read and checked on a thread of their own."""
        waiting = iter(files.items())
        with closing(Ahead(self._folder.groups(files), _GROUPS_AHEAD)) as groups:
            for group in groups:
                digests = digests_of(repeat(int(Kind.BLOB), len(group)), group)
                for data, id, (theirs, path) in zip(group, digests, waiting, strict=False):
                    self._known[theirs] = (id, len(data))
                    self._latest[path] = id
                    self.content_bytes += len(data)
                    if len(data) > WHOLE_BLOB_BYTES_MAX:
                        self._put(batch, data)
                        continue
                    self._hint(batch, id, path)
                    batch.add(id, Kind.BLOB, data)
        self.file_count += len(files)

    def _hint(self, batch: Batch, id: bytes, path: bytes) -> None:
        """Name what was at this path when the last batch ended: it may serve as base of a delta."""
        base = self._installed.get(path)
        if base is None or base == id or batch.holds(id):
            return
        if not batch.finder.has(id):
            batch.hint(id, base)

    def note(self, batch: Batch, id: bytes, node: Node, path: bytes) -> None:
        """A node of the directory at a path; nodes of one directory are told by where they end."""
        place = path + (node.names[-1] if len(node.names) > NODE_SINGLE_ENTRIES_MAX else b"") + b"/"
        self._hint(batch, id, place)
        self._latest[place] = id

    def count(self, batch: Batch) -> None:
        """Add what a batch has written."""
        self.new_count += batch.written_count
        self.new_bytes += batch.written_bytes

    def settle(self) -> None:
        """What was staged is installed now."""
        self._installed.update(self._latest)
        self._latest.clear()

    def _put(self, batch: Batch, data: bytes) -> bytes:
        return self._store.core.put_content(batch, data)[0]

    def _keep(self, id: bytes, entries: list[GitEntry], nodes: _Nodes) -> None:
        """Stage a directory, whose files and directories are staged or here."""
        self._known[id] = self._build(entries, nodes)
        self._directories.add(id)
        if not self._odd:
            return
        odd = list(self._odd.get(id, ()))
        for mode, name, child in entries:
            if mode == b"40000" and child in self._odd:
                odd += [(name + b"/" + path, raw, at) for path, raw, at in self._odd[child]]
        if odd:
            self._odd[id] = tuple(odd)

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
            nodes = _Nodes(batch, self)
            for tree, nodes.path, entries in order:
                self._keep(tree, entries, nodes)
            return ObjectId(self._known[id][0]), Kind.TREE
        return None


def _below(odd: Odd, place: bytes) -> Odd:
    """What is odd in and below a directory, by paths from there."""
    start = len(place)
    return tuple((path[start:], mode, id) for path, mode, id in odd if path.startswith(place))


def _name_of(entry: GitEntry) -> bytes:
    return entry[1]


def commit_of(store: Store, ref: Ref) -> CommitId | None:
    """The commit that a ref leads to, None when that is gone or no commit."""
    try:
        return store.resolve(ref.target)
    except (NotFound, WrongKind):
        return None


def _too_deep(place: bytes) -> LimitExceeded:
    shown = printable(b"/".join(place.split(b"/", 3)[:3]))
    return LimitExceeded(
        f"Directories below {shown!r} are nested deeper than {PATH_DEPTH_MAX} names.",
        limit="PATH_DEPTH_MAX",
        value=place.count(b"/") + 1,
        maximum=PATH_DEPTH_MAX,
    )


class _Nodes:
    """Where nodes of directories go: into the batch, past the cache. `path` ends in a slash."""

    def __init__(self, batch: Batch, work: GitImport) -> None:
        self._batch = batch
        self._work = work
        self.path = b""

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        self._work.note(self._batch, id, node, self.path)
        self._batch.add(id, int(Kind.TREE), node.data)
        return id

    def load(self, node_id: bytes) -> Node:
        raise AssertionError("an import reads no node that it has made")
