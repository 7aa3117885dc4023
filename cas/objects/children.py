"""What an object names: the edges of the graph that existence and gc follow.

Floor 3; implements docs/format.md section 5. Invariant: every id in a structured object's
canonical bytes that must exist for the object to be whole is given, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from cas.limits import ID_BYTES
from cas.model.ids import Kind
from cas.model.objects import Commit, Recipe, Tag
from cas.model.segment import named_blobs
from cas.trees.node import decode_node


def children(kind: int, content: bytes, *, verified: bool = True) -> Sequence[bytes]:
    """Ids that an object of `kind` names. Raises `NotCanonical`.

    `verified=False` checks the whole encoding, as for bytes from elsewhere.
    """
    if kind == Kind.BLOB:
        return ()
    if kind == Kind.TREE or kind == Kind.REFS:
        return _split(decode_node(content, kind, verified=verified).ids)
    if kind == Kind.COMMIT:
        commit = Commit.decode(content, verified=verified)
        if commit.conflicts is not None:
            return (commit.tree, commit.conflicts, *commit.parents)
        return (commit.tree, *commit.parents)
    if kind == Kind.TAG:
        return (Tag.decode(content, verified=verified).target,)
    if kind == Kind.RECIPE:
        return _split(Recipe.decode(content, verified=verified).ids)
    return named_blobs(content, verified=verified)


def _split(ids: bytes) -> list[bytes]:
    return [ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES)]
