"""Compare two targets, or a target with a folder; text of what changed on request.

Floor 8. Invariant: comparing writes nothing. Paths of changes are relative to what was named.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from attrs import field, frozen

from cas.commands.browse import subtree
from cas.commands.target import Target, at_path, resolve
from cas.errors import Invalid, Purged, RevisionNotFound, StorageFailed
from cas.history.renames import with_renames
from cas.history.snapshot import Change, classify
from cas.history.store import Store
from cas.history.view import View
from cas.model.ids import Kind
from cas.model.names import printable, quoted, to_bytes
from cas.model.objects import EntryKind, TreeEntry
from cas.worktree.compare import TEXT_BYTES_MAX, diff_folder, patch_text
from cas.worktree.values import NO_OPTIONS, ImportOptions, Problem


@frozen
class DiffRequest:
    """Compare `old` (REV[:PATH]) with `new` (REV[:PATH] or a folder), or with `folder`."""

    old: str
    new: str | None = None
    folder: str | None = None
    options: ImportOptions = NO_OPTIONS
    renames: bool = False


@frozen
class Comparison:
    """Two sides and what changes from one to the other. `new` is None for a folder.

    `problems` fills while the changes are read: entries of the folder that could not be saved
    either, and count as not there.
    """

    store: Store
    old: Target
    new: Target | None
    folder: str | None
    changes: Iterator[Change]
    problems: list[Problem] = field(factory=list)

    def patch(self, change: Change) -> str | None:
        """A change as a patch; None where one side is binary or too long.

        Raises `Purged`, with the path, where a side of it is.
        """
        before, after = change.old, change.new
        if _long(before) or _long(after):
            return None
        origin = change.path if change.origin is None else change.origin
        old = None if before is None else self._stored(origin, before)
        new = None if after is None else self._new_side(change.path, after)
        return patch_text(change, old, new)

    def _stored(self, path: str, entry: TreeEntry) -> bytes:
        try:
            return self.store.objects.get(entry.id, Kind.BLOB)
        except Purged as error:
            raise at_path(error, path) from error

    def _new_side(self, path: str, entry: TreeEntry) -> bytes:
        if self.folder is None:
            return self._stored(path, entry)
        return _read(os.path.join(os.fsencode(self.folder), to_bytes(path)), entry.kind)


def compare(store: Store, request: DiffRequest) -> Comparison:
    """Compare as the request says; the changes are found while they are read.

    Raises what resolving a target raises, `Invalid` and `WrongKind` for what cannot be compared.
    """
    view = store.view()
    old = resolve(view, request.old)
    new, folder = _new_side(view, request)
    problems: list[Problem] = []
    if folder is not None:
        if request.renames:
            raise Invalid("Renames are found between revisions; save the folder first.")
        changes = diff_folder(
            store,
            subtree(store, old),
            folder,
            request.options,
            lambda notices: problems.extend(notices.problems),
        )
    else:
        assert new is not None
        if old.entry.is_tree or new.entry.is_tree:
            changes = subtree(store, old).diff(subtree(store, new))
            if request.renames:
                changes = with_renames(changes, lambda id: store.objects.get(id, Kind.BLOB))
        else:
            changes = _two_files(old, new)
    return Comparison(store, old, new, folder, changes, problems)


def _new_side(view: View, request: DiffRequest) -> tuple[Target | None, str | None]:
    """A revision where the words can be one, else the folder of that name."""
    if request.folder is not None:
        return None, request.folder
    if request.new is None:
        raise Invalid("Say what to compare with: another revision, or a folder.")
    try:
        return resolve(view, request.new), None
    except (RevisionNotFound, Invalid) as error:
        if os.path.isdir(request.new):
            return None, request.new
        if isinstance(error, RevisionNotFound):
            raise RevisionNotFound(
                f"{quoted(request.new)} is neither a branch, tag or commit nor a folder.",
                revision=request.new,
            ) from error
        raise


def _two_files(old: Target, new: Target) -> Iterator[Change]:
    if old.entry != new.entry:
        yield classify(new.path, old.entry, new.entry)


def _long(entry: TreeEntry | None) -> bool:
    return entry is not None and entry.size > TEXT_BYTES_MAX


def _read(path: bytes, kind: EntryKind) -> bytes:
    """A file or link of a folder, never through a link that took its place meanwhile."""
    try:
        if kind == EntryKind.LINK:
            return os.readlink(path)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise StorageFailed(
            f"{printable(path)} changed while it was compared ({reason}); compare again.",
            path=path,
            errno=error.errno,
        ) from error
