"""Importing a folder: one walk, one transaction, one commit.

Floor 5. Invariant: what a report calls saved is durable and named by its commit when it is
returned; a folder that did not change still makes a commit.
"""

from __future__ import annotations

import os
from functools import partial

import attrs

from cas.history.store import Store
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, TreeId, digest_of
from cas.model.names import branch_ref
from cas.objects.batch import Batch
from cas.objects.content import Readable, put_stream
from cas.objects.store import ObjectStore
from cas.trees.node import DIRECTORY, NodeStore
from cas.worktree.scan import Walk
from cas.worktree.values import ImportOptions, OnProgress, Problem, Progress

__all__ = ["ImportOptions", "ImportReport", "Problem", "Progress", "import_folder"]

_DEFAULTS = ImportOptions()


@attrs.frozen(slots=True)
class ImportReport:
    """What an import saved. Counts are of the whole folder; `new_*` is what was written."""

    commit: CommitId
    entry: Entry
    tree: TreeId
    file_count: int
    link_count: int
    directory_count: int
    content_bytes: int
    new_count: int
    new_bytes: int
    problems: tuple[Problem, ...]
    secrets: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]


class _BatchSink:
    """Content of a walk into a batch."""

    batch: Batch
    nodes: NodeStore

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def open(self, batch: Batch) -> None:
        self.batch = batch
        self.nodes = self._objects.tree_nodes(DIRECTORY, batch)

    def blob(self, content: bytes) -> bytes:
        id = digest_of(Kind.BLOB, content)
        self.batch.add(id, Kind.BLOB, content)
        return id

    def stream(self, stream: Readable) -> tuple[bytes, int]:
        return put_stream(stream, self.batch, self._objects.has)


def import_folder(
    store: Store,
    folder: str | os.PathLike[str],
    *,
    branch: str = "main",
    author: str = "",
    message: str = "",
    options: ImportOptions = _DEFAULTS,
    progress: OnProgress = None,
) -> ImportReport:
    """Save a folder as the next commit of a branch; durable on return.

    What cannot be saved is in `problems`, the rest is saved. Raises `Invalid` when `folder` is
    no readable folder, `RefConflict` when the branch moved meanwhile, and what a commit raises.
    """
    place = os.path.abspath(os.fspath(folder))
    with store.begin(author=author, message=message) as tx:
        sink = _BatchSink(store.objects)
        walk = Walk(place, sink, options, own_folder(store), progress)
        tree = tx.branch(branch, allow_empty=True).stage_tree(partial(_stage, sink, walk))
        entry = tx.commit()
    tally = walk.tally
    ref = branch_ref(branch)
    commit = next(change.new for change in entry.changes if change.ref == ref)
    assert commit is not None
    return ImportReport(
        CommitId(commit),
        entry,
        tree,
        tally.file_count,
        tally.link_count,
        tally.directory_count,
        tally.content_bytes,
        sink.batch.written_count,
        sink.batch.written_bytes,
        tuple(tally.problems),
        tuple(tally.secrets),
        tuple(tally.twins),
    )


def _stage(sink: _BatchSink, walk: Walk, batch: Batch) -> bytes:
    sink.open(batch)
    return walk.run()[0]


def own_folder(store: Store) -> tuple[int, int] | None:
    """(device, inode) of the store's folder, or None for a store that has none."""
    try:
        found = os.stat(store.location)
    except OSError:
        return None
    return found.st_dev, found.st_ino
