"""Importing a folder: one walk, one transaction, one commit.

Floor 5. Invariant: what a report calls saved is durable and named by its commit when it is
returned; a folder that did not change still makes a commit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from io import FileIO

from cas.catalog.catalog import DELTAS
from cas.errors import Invalid, WasPurged
from cas.history.store import Store
from cas.limits import MIB
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digest_of, digest_parts
from cas.model.names import branch_ref, printable
from cas.model.values import frozen
from cas.objects.batch import Batch
from cas.objects.content import put_stream
from cas.objects.store import ObjectStore
from cas.trees.node import DIRECTORY, Node, NodeStore, id_of
from cas.worktree.glance import Glance, options_mark
from cas.worktree.scan import Notices, Walk
from cas.worktree.statcache import Key, Picture, load, save
from cas.worktree.values import NO_OPTIONS, ImportOptions, OnProgress, Problem, Progress
from cas.worktree.versions import Versions

__all__ = ["ImportOptions", "ImportReport", "Problem", "Progress", "import_folder"]


@frozen
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
    stores: tuple[str, ...]
    """Folders of other stores: left out, because a store is no file to be copied while it runs."""
    twins: tuple[tuple[str, str], ...]


class _BatchSink:
    """Content of a walk into a batch; `before` is the directory that the branch had, `gone` what
    was purged, with its size in bytes.
    """

    def __init__(
        self, objects: ObjectStore, batch: Batch, before: bytes, gone: Mapping[bytes, int]
    ) -> None:
        self._gone = gone
        self._objects = objects
        self._batch = batch
        self._stored = objects.tree_nodes(DIRECTORY)
        self._versions: Versions | None = None
        if before != DIRECTORY.empty and DELTAS in objects.meta.features:
            self._versions = Versions(before, self._stored)
        self._prefix = b""

    def nodes(self, prefix: bytes) -> NodeStore:
        self._prefix = prefix
        return self

    def save(self, node: Node) -> bytes:
        # Past the cache of nodes: an import makes thousands and reads none of them again.
        id = id_of(DIRECTORY, node)
        if self._batch.add(id, Kind.TREE, node.data) and self._versions is not None:
            self._batch.hint(id, self._versions.node(self._prefix, node))
        return id

    def load(self, node_id: bytes) -> Node:
        return self._stored.load(node_id)

    def blob(self, content: bytes, prefix: bytes, name: bytes) -> bytes:
        id = digest_of(Kind.BLOB, content)
        self._refuse(id)
        if self._batch.add(id, Kind.BLOB, content) and self._versions is not None:
            self._batch.hint(id, self._versions.file(prefix, name))
        return id

    def stream(self, stream: FileIO) -> tuple[bytes, int]:
        # Chunks are staged before the id of the whole is known: what may be it is hashed first.
        if self._gone and os.fstat(stream.fileno()).st_size in self._gone.values():
            self._refuse(digest_parts(iter(lambda: stream.read(MIB), b"")))
            stream.seek(0)
        return put_stream(stream, self._batch, self._objects.has)

    def _refuse(self, id: bytes) -> None:
        if id in self._gone:
            raise WasPurged("It was purged and is not taken in again.", id=ObjectId(id))

    def kept(self, id: bytes) -> bool:
        return self.known(id)

    def known(self, id: bytes) -> bool:
        if self._batch.holds(id):
            return True
        if not self._batch.finder.has(id):
            return False
        self._batch.rely(id)
        return True


class _Import:
    """One import on its way into a transaction."""

    def __init__(
        self,
        store: Store,
        folder: bytes,
        options: ImportOptions,
        progress: OnProgress,
        glance: Glance | None,
    ) -> None:
        self._glance = glance
        self._store = store
        self._folder = folder
        self._options = options
        self._progress = progress
        self._cache = store.objects.cache if options.stat_cache else None
        self._key = picture_key(store, folder, options)
        self.old: Picture | None = None
        self.picture = Picture()
        self.notices = Notices()
        self.new_count = 0
        self.new_bytes = 0

    def stage(self, batch: Batch, before: bytes) -> bytes:
        """Walk the folder into a batch; gives the root of its tree. `before` is that of the
        branch as it stands.
        """
        store = self._store
        started_ns = store.objects.clock.wall_us() * 1000
        gone: dict[bytes, int] = {bytes(s.id): s.size_bytes for s in store.purged()}
        if self._cache is not None:
            self.old = load(self._cache, self._key)
        if gone and self.old is not None and names_any(self.old, gone):
            self.old = None  # what it takes over would name what must be told
        if self._glance is not None and self.old is not None:
            self.old.seen = self._glance.changed(self.old.proof)
        walk = Walk(
            self._folder,
            _BatchSink(store.objects, batch, before, gone),
            self._options,
            started_ns=started_ns,
            old=self.old,
            own=own_folder(store),
            progress=self._progress,
        )
        self.picture = walk.run()
        self.notices = walk.notices
        self.new_count, self.new_bytes = batch.written_count, batch.written_bytes
        return self.picture.id(0)

    def keep_picture(self) -> None:
        """For the next import; only after the commit, because it names what exists by then."""
        if self._cache is not None and not self.picture.equals(self.old):
            token = self._store.objects.clock.random(8)
            save(self._cache, self._key, self.picture, token)


def import_folder(
    store: Store,
    folder: str | os.PathLike[str],
    *,
    branch: str = "main",
    author: str = "",
    message: str = "",
    options: ImportOptions = NO_OPTIONS,
    progress: OnProgress = None,
    glance: Glance | None = None,
) -> ImportReport:
    """Save a folder as the next commit of a branch; durable on return. `glance`: one that this
    command has begun.

    What cannot be saved is in `problems`, the rest is saved. Raises `NotFound`, `NotAllowed` or
    `Invalid` when `folder` is no readable folder, `RefConflict` when the branch moved meanwhile,
    and what a commit raises.
    """
    work = _Import(store, folder_to_read(store, folder), options, progress, glance)
    with store.begin(author=author, message=message) as tx:
        edit = tx.branch(branch, allow_empty=True)
        tree = edit.stage_tree(lambda batch: work.stage(batch, edit.tree))
        entry = tx.commit()
    work.keep_picture()
    ref = branch_ref(branch)
    commit = next(change.new for change in entry.changes if change.ref == ref)
    assert commit is not None
    picture, notices = work.picture, work.notices
    kinds = picture.count()
    links, directories = kinds[stat.S_IFLNK], kinds[stat.S_IFDIR]
    return ImportReport(
        CommitId(commit),
        entry,
        tree,
        len(picture) - links - directories,
        links,
        directories - 1,
        picture.numbers[0],
        work.new_count,
        work.new_bytes,
        tuple(notices.problems),
        tuple(notices.secrets),
        tuple(notices.stores),
        tuple(notices.twins),
    )


def names_any(picture: Picture, ids: Mapping[bytes, int]) -> bool:
    """Whether a picture has an object of these."""
    return any(picture.id(index) in ids for index in range(len(picture)))


def picture_key(store: Store, folder: bytes, options: ImportOptions, mark: bytes = b"") -> Key:
    """What the picture of a folder is kept under. Options that choose other files do not mix,
    nor do those who look at it in another way, as `mark` tells.
    """
    meta = store.objects.meta
    chosen = options_mark(options.skip_secrets, options.gitignore)
    return Key(meta.store_id, meta.lineage_id, folder, chosen + mark)


def folder_to_read(store: Store, folder: str | os.PathLike[str]) -> bytes:
    """The real path of a folder. Raises `Invalid` when its name is empty, or when it lies in the
    store's own folder.
    """
    if not os.fspath(folder):
        raise Invalid("The name of the folder is empty (the one you stand in is .).")
    place, own = os.path.realpath(folder), os.path.realpath(store.location)
    if own_folder(store) is not None and (place == own or place.startswith(own + os.sep)):
        raise Invalid(f"{printable(place)} lies in the store's own folder; save another one.")
    return os.fsencode(place)


def own_folder(store: Store) -> tuple[int, int] | None:
    """(device, inode) of the store's folder, or None for a store that has none."""
    try:
        found = os.stat(store.location)
    except OSError:
        return None
    return found.st_dev, found.st_ino
