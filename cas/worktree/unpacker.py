"""A tar archive becomes a directory of the store.

Floor 5. Invariant: all of an archive is taken in, or nothing; no member has two meanings. An
archive that was not made here is taken for hostile: what could lie outside the directory, or
mean another thing on another file system, is refused unless the caller trusts it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from attrs import frozen

from cas.errors import BadArchive, LimitExceeded, UnsafePath
from cas.history.store import Store
from cas.limits import RESTORE_ENTRIES_MAX
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, TreeId
from cas.model.names import Path, branch_ref, printable, quoted, split_path
from cas.model.objects import LINK, TREE, EntryKind
from cas.objects.batch import Batch
from cas.objects.content import Readable, put_stream, read_exactly
from cas.objects.store import ObjectStore
from cas.storage.streams import Decompressed
from cas.trees import paths
from cas.trees.node import DIRECTORY, EMPTY_DATA, Value
from cas.worktree.names import find_twins, is_store_name
from cas.worktree.tar import Content, Member, TarReader

_HOPS_MAX: Final = 40
"""Links that are followed one after the other, as Linux does."""
_SMALL_BYTES: Final = 1 << 20


@frozen
class UnpackReport:
    """What an archive held, and where it is now."""

    commit: CommitId
    entry: Entry
    tree: TreeId
    file_count: int
    link_count: int
    directory_count: int
    content_bytes: int
    new_count: int
    new_bytes: int


class _Unpack:
    """One archive on its way into a batch."""

    def __init__(self, objects: ObjectStore, stream: Readable, trusted: bool) -> None:
        self._objects = objects
        self._reader = TarReader(Decompressed(stream))
        self._trusted = trusted
        self._entries: dict[Path, Value] = {}
        self._links: dict[Path, bytes] = {}
        self.file_count = 0
        self.content_bytes = 0
        self.new_count = 0
        self.new_bytes = 0

    @property
    def link_count(self) -> int:
        return len(self._links)

    @property
    def directory_count(self) -> int:
        """Directories that members name or lie in."""
        above = {path[:n] for path in self._entries for n in range(1, len(path))}
        return len(above | {path for path, value in self._entries.items() if value[0] == TREE})

    def stage(self, batch: Batch) -> bytes:
        """Read all members into a batch; gives the root of the directory."""
        batch.put(Kind.TREE, EMPTY_DATA)
        for member, content in self._reader:
            self._take(batch, member, content)
        self._check_nesting()
        if not self._trusted:
            self._check_links()
            self._check_twins()
        # A directory with something in it appears by that.
        filled = {path[:-1] for path in self._entries}
        edits = {
            path: value
            for path, value in self._entries.items()
            if value[0] != TREE or path not in filled
        }
        nodes = self._objects.tree_nodes(DIRECTORY, batch)
        root = DIRECTORY.empty
        if edits:
            root = paths.edit_paths(root, edits, nodes).root
        self.new_count, self.new_bytes = batch.written_count, batch.written_bytes
        return root

    def _take(self, batch: Batch, member: Member, content: Content) -> None:
        path = self._path(member.path)
        if path is None:
            if member.kind != EntryKind.TREE:
                raise _bad(member.path, "name", "it is the directory of all, and no file")
            return
        if len(self._entries) >= RESTORE_ENTRIES_MAX:
            raise LimitExceeded(
                f"The archive has more than {RESTORE_ENTRIES_MAX} members.",
                limit="RESTORE_ENTRIES_MAX",
                value=len(self._entries) + 1,
                maximum=RESTORE_ENTRIES_MAX,
            )
        before = self._entries.get(path)
        if before is not None:
            if before[0] == TREE and member.kind == EntryKind.TREE:
                return
            raise _bad(member.path, "duplicate", "it is there twice")
        self._entries[path] = self._value(batch, path, member, content)

    def _value(self, batch: Batch, path: Path, member: Member, content: Content) -> Value:
        if member.kind == EntryKind.TREE:
            return TREE, DIRECTORY.empty, 0
        if member.is_hard_link:
            source = self._path(member.link)
            same = None if source is None else self._entries.get(source)
            if source is None or same is None or same[0] == TREE:
                raise _bad(member.path, "hard-link", "it is the same as a file before it, and "
                           f"{quoted(member.link)} is none")  # fmt: skip
            if same[0] == LINK:
                self._links[path] = self._links[source]
                return same
            self.file_count += 1
            self.content_bytes += same[2]
            return same
        if member.kind == EntryKind.LINK:
            if not member.link:
                raise _bad(member.path, "link", "it is a link to nowhere")
            self._links[path] = member.link
            return LINK, batch.put(Kind.BLOB, member.link), len(member.link)
        self.file_count += 1
        self.content_bytes += member.size_bytes
        if member.size_bytes <= _SMALL_BYTES:
            data = read_exactly(content, member.size_bytes)
            return int(member.kind), batch.put(Kind.BLOB, data), len(data)
        id, size_bytes = put_stream(content, batch, self._objects.has)
        return int(member.kind), id, size_bytes

    def _path(self, name: bytes) -> Path | None:
        """Where a member lies; None for the directory itself."""
        if name.startswith(b"/"):
            raise _unsafe(name, "absolute", "its name is absolute")
        parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
        if b".." in parts:
            raise _unsafe(name, "parent", "its name goes up with '..'")
        if not parts:
            if not name:
                raise _bad(name, "name", "a member has no name")
            return None
        split_path(b"/".join(parts))
        if not self._trusted:
            for part in parts:
                if is_store_name(part):
                    raise _bad(name, "store-name", f"{quoted(part)} is the name of a store")
        return parts

    # -- what shows only when all is known ---------------------------------------------------

    def _check_nesting(self) -> None:
        """Nothing lies below a file or a link."""
        for path in self._entries:
            for length in range(1, len(path)):
                above = self._entries.get(path[:length])
                if above is None or above[0] == TREE:
                    continue
                name = b"/".join(path)
                shown = printable(b"/".join(path[:length]))
                if above[0] == LINK:
                    raise _unsafe(name, "through-link", f"it lies behind the link {shown!r}")
                raise _bad(name, "below-file", f"it lies below the file {shown!r}")

    def _check_links(self) -> None:
        """No link leads out of the directory, whatever other links it goes through."""
        for path, target in self._links.items():
            if self._leads_out(path, target):
                raise _unsafe(
                    b"/".join(path),
                    "link-out",
                    f"it is a link that leads out, to {quoted(target)}; `--trusted` takes it",
                )

    def _leads_out(self, path: Path, target: bytes) -> bool:
        place = list(path[:-1])
        if target.startswith(b"/"):
            return True
        waiting = target.split(b"/")[::-1]
        hops = 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if not place:
                    return True
                place.pop()
                continue
            place.append(part)
            further = self._links.get(tuple(place))
            if further is None:
                continue
            hops += 1
            if further.startswith(b"/"):
                return True
            if hops > _HOPS_MAX:
                return False  # a ring of links: it leads nowhere, and opens nowhere
            place.pop()
            waiting += further.split(b"/")[::-1]
        return False

    def _check_twins(self) -> None:
        """No two names of a directory that a file system could take for one."""
        names: dict[Path, set[bytes]] = defaultdict(set)
        for path in self._entries:
            for length in range(len(path), 0, -1):
                below = names[path[: length - 1]]
                if path[length - 1] in below:
                    break
                below.add(path[length - 1])
        for above, below in names.items():
            for one, other in find_twins(sorted(below)):
                raise _bad(
                    b"/".join((*above, other)),
                    "twin",
                    f"it differs from {quoted(one)} by case or form only; `--trusted` takes both",
                )


def unpack_tar(
    store: Store,
    stream: Readable,
    *,
    branch: str = "main",
    author: str = "",
    message: str = "",
    trusted: bool = False,
) -> UnpackReport:
    """Save a tar archive (plain, gzip or zstd) as the next commit of a branch.

    All of it or nothing. Kept are names, content, links and executable bits, nothing else.
    Refused are members outside the directory (`UnsafePath`: absolute, `..`, through links), and
    devices, FIFOs, duplicates, damage (`BadArchive`), names and headers over their limits; unless
    `trusted` also links that lead out, names that differ by case only, and names of stores.
    Raises what a commit raises.
    """
    with store.begin(author=author, message=message) as tx:
        work = _Unpack(store.objects, stream, trusted)
        tree = tx.branch(branch, allow_empty=True).stage_tree(work.stage)
        entry = tx.commit()
    commit = entry.target(branch_ref(branch))
    assert commit is not None
    return UnpackReport(
        CommitId(commit),
        entry,
        tree,
        work.file_count,
        work.link_count,
        work.directory_count,
        work.content_bytes,
        work.new_count,
        work.new_bytes,
    )


def _bad(name: bytes, reason: str, text: str) -> BadArchive:
    return BadArchive(
        f"The member {quoted(name)} cannot be taken in: {text}. Nothing was committed.",
        path=printable(name),
        reason=reason,
    )


def _unsafe(name: bytes, reason: str, text: str) -> UnsafePath:
    return UnsafePath(
        f"The member {quoted(name)} cannot be taken in: {text}. Nothing was committed.",
        path=printable(name),
        reason=reason,
    )
