"""A path is a file or a directory: what is told of edits that would make one both.

Floor 2. Invariant: what is to be removed is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from cas.errors import InvalidName, WrongKind
from cas.model.ids import BlobId
from cas.model.names import Path, join_path
from cas.model.objects import TREE, EntryKind
from cas.trees.node import Value


def refuse_both(
    staged: Mapping[Path, Value | None], above: Container[Path], parts: Path, tag: int
) -> None:
    """Raise `InvalidName` where a write of kind `tag` at a path and one that is staged would make
    a path a file and a directory at once. `above` has all paths with something staged below.
    """
    for length in range(1, len(parts)):
        value = staged.get(parts[:length])
        if value is not None and value[0] != TREE:
            raise both_kinds(parts[:length], value[0])
    if tag != TREE and parts in above:
        depth = len(parts)
        for other, value in staged.items():
            if value is not None and len(other) > depth and other[:depth] == parts:
                raise both_kinds(parts, tag)


def both_kinds(parts: Path, tag: int) -> InvalidName:
    """The error for edits that set a path as a file or link, and something below it."""
    path = join_path(parts)
    kind = EntryKind(tag).name.lower()
    return InvalidName(
        f"The same edits set {path!r} as a {kind} and something below it; leave out one.",
        name=path,
        reason="a file and a directory at once",
    )


def below_file(parts: Path, value: Value, own: bool) -> WrongKind | InvalidName:
    """The error for a write below a file or link; `own`: the same edits have set that."""
    if own:
        return both_kinds(parts, value[0])
    path = join_path(parts)
    kind = EntryKind(value[0]).name.lower()
    return WrongKind(
        f"{path!r} is a {kind}, so nothing can be written below it; "
        "delete it in the same edits to make a directory of it.",
        path=path,
        id=BlobId(value[1]),
        expected="tree",
        actual=kind,
    )
