"""Paths over nested directories: look up, edit, walk and compare.

Floor 2; directories of docs/format.md section 5.1 whose entries tagged 4 are directories again.
Invariant: `edit_paths` gives the root that building all directories anew from the final paths
would give, except that a directory which was empty before and is not touched stays. Only
directories on the way to an edit are read. Paths are tuples of entry names in bytes; nothing
recurses, so that depth is bounded by a limit and not by the interpreter's stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cas.errors import InvalidName, LimitExceeded
from cas.limits import ID_BYTES, PATH_BYTES_MAX, PATH_DEPTH_MAX, WALK_ENTRIES_MAX
from cas.model.ids import BlobId, TreeId
from cas.model.names import Path, check_entry_name, join_path
from cas.model.objects import TREE, EntryKind, TreeEntry
from cas.trees.below import below_file
from cas.trees.build import Summary, summarize
from cas.trees.cursor import get, scan
from cas.trees.diff import Ahead, Difference, diff
from cas.trees.edit import apply, apply_one
from cas.trees.node import DIRECTORY, Item, NodeStore, Value, load_root

_EMPTY: Final = DIRECTORY.empty


def to_entry(value: Value) -> TreeEntry:
    """The public value of a directory entry."""
    tag, child, number = value
    return TreeEntry(EntryKind(tag), TreeId(child) if tag == TREE else BlobId(child), number)


def root_of(value: Value | None) -> bytes | None:
    """Root of the directory that a value is, the empty one where nothing is; None for a file."""
    if value is None:
        return _EMPTY
    return value[1] if value[0] == TREE else None


def lookup(root: bytes, parts: Path, nodes: NodeStore) -> TreeEntry | None:
    """The entry at a path, or None; the empty path is the root directory itself."""
    value = value_at(root, parts, nodes)
    return None if value is None else to_entry(value)


def value_at(root: bytes, parts: Path, nodes: NodeStore) -> Value | None:
    """`lookup`, as the tree has it: tag, id and number."""
    if not parts:
        return TREE, root, summarize(DIRECTORY, root, load_root(DIRECTORY, root, nodes)).number
    for part in parts[:-1]:
        value = get(DIRECTORY, root, part, nodes)
        if value is None or value[0] != TREE:
            return None
        root = value[1]
    return get(DIRECTORY, root, parts[-1], nodes)


def list_directory(root: bytes, parts: Path, nodes: NodeStore) -> Iterator[tuple[bytes, TreeEntry]]:
    """Entries of the directory at a path, in order of name; none when it is no directory."""
    value = value_at(root, parts, nodes) if parts else (TREE, root, 0)
    if value is not None and value[0] == TREE:
        for name, below in scan(DIRECTORY, value[1], nodes):
            yield name, to_entry(below)


# -- edit ------------------------------------------------------------------------------------


class _Directory:
    """A directory that is being edited: what is set in it, and the directories below."""

    __slots__ = ("base", "below", "edits", "name", "up", "writes")

    def __init__(self, up: _Directory | None, name: bytes) -> None:
        self.up = up
        self.name = name
        self.edits: dict[bytes, Value | None] = {}
        self.below: dict[bytes, _Directory] = {}
        # Whether anything is set here or below; a directory of deletes alone creates nothing.
        self.writes = False
        self.base = _EMPTY

    def path(self) -> Path:
        parts: list[bytes] = []
        place: _Directory = self
        while place.up is not None:
            parts.append(place.name)
            place = place.up
        return tuple(reversed(parts))


def edit_paths(root: bytes, edits: Mapping[Path, Value | None], nodes: NodeStore) -> Summary:
    """The directory `root` after `edits`; (tag, id, number) sets an entry, None deletes it.

    An edit set is read shallow first: what is set at a prefix stands before what is below it is
    edited. So `a: None` with `a/b: file` makes `a` a fresh directory, and a tree set at `a` is
    the base for edits below `a`. Directories on the way are created, and dropped when an edit
    empties them; deleting what is not there changes nothing.

    Raises `WrongKind` (fields `path`, `id`, `expected`, `actual`) for a write below an existing
    file, `InvalidName` for one below a file that the same edits set, and for illegal names,
    `LimitExceeded`, `Invalid` for illegal values, and what `nodes.load` raises.
    """
    if len(edits) == 1:
        for parts, value in edits.items():
            return edit_path(root, parts, value, nodes)
    top = _Directory(None, b"")
    top.base = root
    order = [top]
    for parts, value in edits.items():
        _plant(top, order, parts, value)
    # `order` has each directory after the one above it.
    for directory in order:
        for name, below in list(directory.below.items()):
            if not _enter(directory, name, below, nodes):
                del directory.below[name]
    result = Summary(root, 0, 0)
    for directory in reversed(order):
        up = directory.up
        if up is None:
            result = apply(DIRECTORY, root, sorted(directory.edits.items()), nodes)
        elif up.below.get(directory.name) is directory:
            done = apply(
                DIRECTORY, directory.base, sorted(directory.edits.items()), nodes, save_empty=False
            )
            if done.root != directory.base:
                up.edits[directory.name] = (TREE, done.root, done.number) if done.entries else None
    return result


def _plant(top: _Directory, order: list[_Directory], parts: Path, value: Value | None) -> None:
    """Put one edit where it belongs."""
    _check_path(parts)
    place = top
    for part in parts[:-1]:
        place.writes = place.writes or value is not None
        below = place.below.get(part)
        if below is None:
            below = place.below[part] = _Directory(place, part)
            order.append(below)
        place = below
    place.writes = place.writes or value is not None
    place.edits[parts[-1]] = value


def _enter(directory: _Directory, name: bytes, below: _Directory, nodes: NodeStore) -> bool:
    """Settle what `below` starts from; False when there is nothing to do in it."""
    own = name in directory.edits
    if own:
        value = directory.edits[name]
    elif directory.base == _EMPTY:
        value = None
    else:
        value = get(DIRECTORY, directory.base, name, nodes)
    if value is None:
        # A delete of the same name is done by starting afresh: what is set below replaces it.
        return below.writes
    if value[0] == TREE:
        below.base = value[1]
        return True
    if below.writes:
        raise below_file((*directory.path(), name), value, own)
    return False


def edit_path(root: bytes, parts: Path, value: Value | None, nodes: NodeStore) -> Summary:
    """`edit_paths` of one path, without its bookkeeping."""
    _check_path(parts)
    bases = [root]
    for depth, part in enumerate(parts[:-1]):
        base = bases[-1]
        above = None if base == _EMPTY else get(DIRECTORY, base, part, nodes)
        if above is None:
            if value is None:
                return summarize(DIRECTORY, root, load_root(DIRECTORY, root, nodes))
            bases.append(_EMPTY)
        elif above[0] == TREE:
            bases.append(above[1])
        elif value is None:
            return summarize(DIRECTORY, root, load_root(DIRECTORY, root, nodes))
        else:
            raise below_file(parts[: depth + 1], above, False)
    for depth in range(len(parts) - 1, 0, -1):
        base = bases[depth]
        done = apply_one(DIRECTORY, base, parts[depth], value, nodes, save_empty=False)
        if done.root == base:
            return summarize(DIRECTORY, root, load_root(DIRECTORY, root, nodes))
        value = (TREE, done.root, done.number) if done.entries else None
    return apply_one(DIRECTORY, root, parts[0], value, nodes)


def _check_path(parts: Path) -> None:
    if not parts:
        raise InvalidName(
            "The root directory itself cannot be set or deleted; name an entry of it.",
            name="",
            reason="empty path",
        )
    if len(parts) > PATH_DEPTH_MAX:
        raise LimitExceeded(
            f"A path of {len(parts)} names is too deep; at most {PATH_DEPTH_MAX} are allowed.",
            limit="PATH_DEPTH_MAX",
            value=len(parts),
            maximum=PATH_DEPTH_MAX,
        )
    if len(parts) > 1:
        size_bytes = sum(map(len, parts)) + len(parts) - 1
        if size_bytes > PATH_BYTES_MAX:
            raise LimitExceeded(
                f"A path of {size_bytes} bytes is too long; at most {PATH_BYTES_MAX} are allowed.",
                limit="PATH_BYTES_MAX",
                value=size_bytes,
                maximum=PATH_BYTES_MAX,
            )
        for part in parts[:-1]:
            check_entry_name(part)


# -- walk and compare --------------------------------------------------------------------------


def walk(
    root: bytes, nodes: NodeStore, *, prefix: Path = (), directories: bool = False
) -> Iterator[tuple[Path, TreeEntry]]:
    """Files and links at and below the directory `root`, depth first in order of name, lazily.

    Paths begin with `prefix`. With `directories=True` each directory comes too, before what is
    in it; otherwise empty directories do not show. Raises `LimitExceeded` below 256 names, and
    after `WALK_ENTRIES_MAX` entries.
    """
    left = WALK_ENTRIES_MAX
    stack: list[tuple[Path, Iterator[Item]]] = [(prefix, scan(DIRECTORY, root, nodes))]
    while stack:
        above, items = stack[-1]
        for name, value in items:
            path = (*above, name)
            left -= 1
            if left < 0:
                raise _too_many()
            if value[0] == TREE:
                if directories:
                    yield path, to_entry(value)
                _check_depth(path, value[1])
                stack.append((path, scan(DIRECTORY, value[1], nodes)))
                break
            yield path, to_entry(value)
        else:
            stack.pop()


PathDifference = tuple[Path, TreeEntry | None, TreeEntry | None]
"""(path, old entry or None, new entry or None) of a file or link; the two are never equal."""


def diff_paths(
    old_root: bytes,
    new_root: bytes,
    nodes: NodeStore,
    *,
    ahead: Ahead | None = None,
) -> Iterator[PathDifference]:
    """Files and links that differ between two directories, depth first in order of name, lazily.

    Directories that are on one side only are entered; they do not show themselves, nor do empty
    ones. Where a file became a directory, the file comes first. `ahead` is told of nodes that
    will be loaded. Raises as `walk` does.
    """
    for path, old, new in diff_values(old_root, new_root, nodes, ahead=ahead):
        yield (
            path,
            None if old is None else to_entry(old),
            None if new is None else to_entry(new),
        )


def diff_values(
    old_root: bytes,
    new_root: bytes,
    nodes: NodeStore,
    *,
    prefix: Path = (),
    ahead: Ahead | None = None,
) -> Iterator[tuple[Path, Value | None, Value | None]]:
    """`diff_paths` with values as the trees have them: nothing is made of each."""
    left = WALK_ENTRIES_MAX
    stack: list[tuple[Path, Iterator[Difference]]] = [
        (prefix, diff(DIRECTORY, old_root, new_root, nodes, ahead))
    ]
    while stack:
        above, differences = stack[-1]
        for name, old, new in differences:
            path = (*above, name)
            left -= 1
            if left < 0:
                raise _too_many()
            before, old_tree = split(old)
            after, new_tree = split(new)
            if before is not None or after is not None:
                yield path, before, after
            if old_tree != new_tree:
                _check_depth(path, old_tree, new_tree)
                stack.append((path, diff(DIRECTORY, old_tree, new_tree, nodes, ahead)))
                break
        else:
            stack.pop()


def total(root: bytes, nodes: NodeStore, *, directories: bool = False) -> int:
    """Files and links (with `directories=True` all entries) below the directory `root`.

    Each tree is read once, however often it is named. Raises `LimitExceeded` below 256 names.
    """
    totals: dict[bytes, int] = {_EMPTY: 0}
    # Directories under way: root, leaves met so far, the trees in it that are still to come.
    stack: list[tuple[bytes, int, list[bytes]]] = [(root, *_parts(root, nodes))]
    while stack:
        at, found, below = stack[-1]
        while below and below[-1] in totals:
            found += totals[below.pop()] + directories
        if below:
            stack[-1] = (at, found, below)
            if len(stack) > PATH_DEPTH_MAX:
                raise _too_deep("the top")
            stack.append((below[-1], *_parts(below[-1], nodes)))
        else:
            totals[at] = found
            stack.pop()
    return totals[root]


def leaves(root: bytes, nodes: NodeStore, known: dict[bytes, int]) -> int:
    """Files and links below a directory, as `total` counts them, told again after a small edit.

    `known` remembers the count of every node that was read, so that the next call with it reads
    only what an edit made anew.
    """
    known[_EMPTY] = 0
    stack = [root]
    while stack:
        id = stack[-1]
        if id not in known:
            # A root or a node below one: either counts what lies in it.
            node = nodes.load(id)
            below = [node.ids[at : at + ID_BYTES] for at in range(0, len(node.ids), ID_BYTES)]
            count = 0
            if not node.level:
                trees = [each for each, tag in zip(below, node.tags, strict=True) if tag == TREE]
                count = len(below) - len(trees)
                below = trees
            missing = [each for each in below if each not in known]
            if missing:
                stack += missing
                continue
            known[id] = count + sum([known[each] for each in below])
        stack.pop()
    return known[root]


def check_levels(root: bytes, depth: int, nodes: NodeStore) -> None:
    """Refuse the directory `root` for a place `depth` names down, if what is in it would lie
    deeper there than a path may. Each tree in it is read once. Raises `LimitExceeded`.
    """
    levels: dict[bytes, int] = {_EMPTY: 0}
    room = PATH_DEPTH_MAX - depth
    stack: list[tuple[bytes, int, list[bytes]]] = []
    if root != _EMPTY:
        stack.append((root, 0, _parts(root, nodes)[1]))
    while stack:
        at, found, below = stack[-1]
        while below and below[-1] in levels:
            found = max(found, levels[below.pop()])
        if len(stack) + found > room:
            raise LimitExceeded(
                f"A directory cannot stand {depth} names deep if paths in it get longer than "
                f"{PATH_DEPTH_MAX} names; put it higher up.",
                limit="PATH_DEPTH_MAX",
                value=depth + len(stack) + found,
                maximum=PATH_DEPTH_MAX,
            )
        if below:
            stack[-1] = (at, found, below)
            stack.append((below[-1], 0, _parts(below[-1], nodes)[1]))
        else:
            levels[at] = found + 1
            stack.pop()


def _parts(root: bytes, nodes: NodeStore) -> tuple[int, list[bytes]]:
    """How many leaves a directory has, and the directories in it."""
    below: list[bytes] = []
    leaves = 0
    for _name, value in scan(DIRECTORY, root, nodes):
        if value[0] == TREE:
            below.append(value[1])
        else:
            leaves += 1
    return leaves, below


def split(value: Value | None) -> tuple[Value | None, bytes]:
    """A value as that of a file or link, and as the root of a directory; what it is not is none,
    or empty.
    """
    if value is None:
        return None, _EMPTY
    if value[0] == TREE:
        return None, value[1]
    return value, _EMPTY


def _check_depth(path: Path, *trees: bytes) -> None:
    """Refuse a directory so deep that what is in it has no legal path."""
    if len(path) >= PATH_DEPTH_MAX and any(tree != _EMPTY for tree in trees):
        raise _too_deep(repr(join_path(path[:4])) + "…")


def _too_deep(place: str) -> LimitExceeded:
    return LimitExceeded(
        f"Directories below {place} are nested deeper than {PATH_DEPTH_MAX} names.",
        limit="PATH_DEPTH_MAX",
        value=PATH_DEPTH_MAX + 1,
        maximum=PATH_DEPTH_MAX,
    )


def _too_many() -> LimitExceeded:
    return LimitExceeded(
        f"There are more than {WALK_ENTRIES_MAX:,} entries; take the directories one by one.",
        limit="WALK_ENTRIES_MAX",
        value=WALK_ENTRIES_MAX + 1,
        maximum=WALK_ENTRIES_MAX,
    )
