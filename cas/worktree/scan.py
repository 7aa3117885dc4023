"""The walk of a folder: every file that changed read once, every directory made a tree.

Floor 5. Invariant: the walk stays below the folder's own descriptor and follows no link, so
that what is swapped under it can make it fail but never lead it outside. What cannot be saved
becomes a `Problem`, and the rest is saved. Used by one thread.

With a picture of an earlier walk, every entry is looked at first, in one pass. A directory
whose own status did not change has the same names; where nothing below it changed either, its
tree is taken over whole. Directories on file systems that do not promise to stamp a directory
when its names change are listed each time.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Callable
from io import FileIO
from typing import Final, Protocol

from attrs import define, field

from cas.catalog.host import filesystem_of
from cas.errors import Invalid, WasPurged
from cas.limits import ID_BYTES, WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind, digest_of
from cas.model.names import printable, to_text
from cas.model.objects import EXECUTABLE, FILE, LINK, TREE
from cas.trees.build import Columns, build_columns
from cas.trees.node import DIRECTORY, NodeStore, Value
from cas.worktree.files import (
    OPEN_FILE,
    Content,
    Fault,
    failure,
    kind_of,
    left_out,
    no_folder,
    read_file,
    same,
    special,
    tag_of,
)
from cas.worktree.ignore import CASIGNORE, GITIGNORE, Rules
from cas.worktree.looking import Status, status_of
from cas.worktree.names import find_twins, is_store
from cas.worktree.place import ALIAS, Place, kinds_in, read_rules
from cas.worktree.secrets import is_private_key, is_secret_name
from cas.worktree.statcache import Picture, settled, unsettled
from cas.worktree.values import ImportOptions, OnProgress, Problem, Progress

_NO_RULES: Final = Rules()
_NO_ID: Final = bytes(ID_BYTES)
_NO_STATUS: Final[Status] = (0, 0, 0, 0, 0)
_PROGRESS_FILES: Final = 256
_AT_ONCE: Final = 2048
"""Paths of entries below a directory that are read together, to take those straight in it."""

# File systems known to stamp a directory whenever a name in it comes, goes or moves. Where the
# host does not say which one it is, directories are listed each time: 40 ms for 5,000 of them.
_STAMPING: Final = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "f2fs", "bcachefs", "overlay", "apfs")
)


class Sink(Protocol):
    """Where content goes."""

    def blob(self, content: bytes, prefix: bytes, name: bytes) -> bytes:
        """Take content of up to 8 MiB at `prefix` + `name`; its id. May raise `WasPurged`."""

    def stream(self, stream: FileIO) -> tuple[bytes, int]:
        """Take a file of any size; (blob id, bytes). May raise `WasPurged`."""

    def known(self, id: bytes) -> bool:
        """Whether an object of an earlier walk still exists; if so it is relied on."""

    def kept(self, id: bytes) -> bool:
        """Whether content of an earlier walk can be taken over; if so it is relied on."""

    def nodes(self, prefix: bytes) -> NodeStore:
        """Where the nodes of the directory at `prefix` go."""


@define
class Notices:
    """What a walk has to tell."""

    problems: list[Problem] = field(factory=list)
    secrets: list[str] = field(factory=list)
    stores: list[str] = field(factory=list)
    twins: list[tuple[str, str]] = field(factory=list)


class Walk:
    """One walk of one folder.

    `own` is (device, inode) of the store's folder, which is left out; `old` the picture of an
    earlier walk; `started_ns` the time before it began; `keep` tells of a path whether it is
    saved although ignore files leave it out; `on_read` hears of each file and link that was read.
    """

    def __init__(
        self,
        folder: bytes,
        sink: Sink,
        options: ImportOptions,
        *,
        started_ns: int,
        old: Picture | None = None,
        own: tuple[int, int] | None = None,
        progress: OnProgress = None,
        keep: Callable[[bytes], bool] | None = None,
        on_read: Callable[[bytes], None] | None = None,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._on_read = on_read
        self._sink = sink
        self._options = options
        self._own = own
        self._progress = progress
        self._started_ns = started_ns
        self._old = old or Picture()
        self._changed: list[int] = []
        self._changed_too: frozenset[int] = frozenset()  # the same, to ask for one
        self._rule_files = (GITIGNORE, CASIGNORE) if options.gitignore else (CASIGNORE,)
        self._device = -1
        self._file_count = 0
        self._byte_count = 0
        self.picture = Picture()
        self.notices = Notices()

    def run(self) -> Picture:
        """The folder as it is; the root's id and size are those of entry 0.

        Raises `NotFound`, `NotAllowed`, `Invalid` when it is no readable folder.
        """
        try:
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise no_folder(self._folder, error) from error
        place = Place(self._folder, None, b"", fd)
        try:
            if filesystem_of(os.fsdecode(self._folder)) in _STAMPING:
                self._device = os.fstat(fd).st_dev
            if self._old:
                self._look_again()
            if self._is_clean(0, len(self._old)):
                self.picture = self._old
                self.notices.secrets = [to_text(path) for path in self._old.secrets]
            elif self._directory(place, 0 if self._old else -1, relist=False) is None:
                raise self._no_folder()
            return self.picture
        finally:
            place.close()

    def _no_folder(self) -> Invalid:
        shown = printable(self._folder)
        if self.notices.stores:
            return Invalid(f"{shown} is the folder of a store; save another one.")
        return Invalid(f"{shown} cannot be read as a folder{self.notices.problems[-1].message}.")

    def _look_again(self) -> None:
        """Find what changed since the old picture was made."""
        old = self._old
        changed = old.changed()
        if old.rules:
            top = self._folder + b"/"
            stale = {top + prefix for prefix in old.rules if not self._same_rules(prefix)}
            changed += [i for i, path in enumerate(old.paths) if path + b"/" in stale]
        self._changed_too = frozenset(changed)
        self._changed = sorted(self._changed_too)

    def _same_rules(self, prefix: bytes) -> bool:
        """Whether the ignore files of a directory are those that were met before."""
        try:
            fd = os.open(self._folder + b"/" + prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            contents = read_rules(fd, self._rule_files)
        finally:
            os.close(fd)
        return [digest_of(Kind.BLOB, found) for found in contents] == self._old.rules[prefix]

    def _is_clean(self, start: int, count: int) -> bool:
        """Whether a subtree of the old picture is as it was, and the store holds it."""
        changed = self._changed
        at = bisect_left(changed, start)
        if count == 0 or (at < len(changed) and changed[at] < start + count):
            return False
        return self._sink.known(self._old.id(start))

    # -- directories -------------------------------------------------------------------------

    def _directory(self, place: Place, at: int, *, relist: bool) -> Value | None:
        """Save a directory; `at` is its index in the old picture, or -1. None: a problem."""
        old, picture = self._old, self.picture
        index = picture.add(place.path, _NO_STATUS, _NO_ID, 0)
        try:
            if at >= 0 and not relist and at not in self._changed_too:
                status = old.status_of(at)
                names = self._names_before(place, at)
            else:
                listed = self._list(place, at, relist)
                if listed is None:
                    picture.truncate(index)
                    self.notices.stores.append(to_text(place.prefix[:-1]))
                    return None
                status, names, relist = listed
        except OSError as error:
            picture.truncate(index)
            self._fault(place.prefix[:-1], failure(error))
            return None
        columns = Columns()
        noticed = False
        room = place.room
        for name, kind, before in names:
            if len(name) > room or kind == ALIAS:
                self._fault(place.prefix + name, _TOO_LONG if len(name) > room else left_out(name))
                value = None
            elif kind != TREE:
                value = self._leaf(place, name, kind, before)
            elif before >= 0 and not relist and self._is_clean(before, old.spans[before]):
                picture.copy(old, before, before + old.spans[before])
                self._keep_notes(place.prefix + name + b"/")
                value = (TREE, old.id(before), old.numbers[before])
            else:
                below = Place(place.path + b"/" + name, place, name)
                try:
                    value = self._directory(below, before, relist=relist)
                finally:
                    below.close()
            if value is None:
                noticed = True
            else:
                columns.append(name, value)
        done = build_columns(DIRECTORY, columns, self._sink.nodes(place.prefix))
        if self._note_twins(place.prefix, columns.names) or noticed:
            status = unsettled(status)  # so that the next walk tells it again
        picture.finish(index, status, done.root, done.number)
        return TREE, done.root, done.number

    def _names_before(self, place: Place, at: int) -> list[tuple[bytes, int, int]]:
        """(name, kind, index in the old picture) of what a directory has, as it had it."""
        old = self._old
        start = len(place.path) + 1
        if place.prefix in old.rules:
            self.picture.rules[place.prefix] = old.rules[place.prefix]
        below, first = old.spans[at] - 1, at + 1
        if below == 0 or below > _AT_ONCE:
            return [(old.paths[i][start:], kind_of(old.mode(i)), i) for i in old.children(at)]
        paths = old.paths.part(first, first + below)
        return [(paths[i - first][start:], kind_of(old.mode(i)), i) for i in old.children(at)]

    def _list(
        self, place: Place, at: int, relist: bool
    ) -> tuple[Status, list[tuple[bytes, int, int]], bool] | None:
        """Status, names as `_names_before` gives them, and whether to list all below anew.

        None for the folder of a store. Its catalog must not even be opened: to close it again
        would drop the locks that SQLite in this process may hold on it.
        """
        fd = place.fd()
        found = os.fstat(fd)
        status = settled(status_of(found), self._started_ns)
        if found.st_dev != self._device:
            status = unsettled(status)
        kinds = kinds_in(fd, self._own)
        if is_store(kinds):
            return None
        contents: list[bytes] = []
        if not kinds.keys().isdisjoint(self._rule_files):
            contents = read_rules(fd, self._rule_files)
        before: dict[bytes, int] = {}
        if at >= 0:
            old_names = self._names_before(place, at)
            before = {name: i for name, kind, i in old_names if kinds.get(name) == kind}
        rules_seen = self.picture.rules
        rules_seen.pop(place.prefix, None)
        if contents:
            rules_seen[place.prefix] = [digest_of(Kind.BLOB, content) for content in contents]
        if rules_seen.get(place.prefix) != self._old.rules.get(place.prefix):
            relist = True
        rules = self._rules(place, contents)
        prefix = place.prefix
        names = [
            (name, kinds[name], before.get(name, -1))
            for name in sorted(kinds)
            if not (
                rules
                and rules.leaves_out(prefix + name, kinds[name] == TREE)
                and not (self._keep is not None and self._keep(prefix + name))
            )
        ]
        return status, names, relist

    def _rules(self, place: Place, contents: list[bytes] | None = None) -> Rules:
        """The rules above a directory and those of its own ignore files, `contents`."""
        if place.rules is None:
            above = _NO_RULES if place.up is None else self._rules(place.up)
            if contents is None:
                # Not listed in this walk, so it is as it was.
                seen = place.prefix in self._old.rules
                contents = read_rules(place.fd(), self._rule_files) if seen else []
            place.rules = above.below(place.prefix, contents) if contents else above
        return place.rules

    def _keep_notes(self, prefix: bytes) -> None:
        """Take over what the old picture says of all below a directory."""
        for above, ids in self._old.rules.items():
            if above.startswith(prefix):
                self.picture.rules[above] = ids
        for path in self._old.secrets:
            if path.startswith(prefix):
                self._note_secret(path)

    def _note_twins(self, prefix: bytes, names: list[bytes]) -> bool:
        """Tell of names that some file systems take for one; whether there are any."""
        twins = find_twins(names)
        self.notices.twins += [(to_text(prefix + a), to_text(prefix + b)) for a, b in twins]
        return bool(twins)

    # -- files and links ---------------------------------------------------------------------

    def _leaf(self, place: Place, name: bytes, kind: int, at: int) -> Value | None:
        """Save a file or link; None: left out with a notice."""
        old = self._old
        if at >= 0 and at not in self._changed_too:
            id = old.id(at)
            if self._sink.kept(id):
                self.picture.copy(old, at, at + 1)
                if old.secrets and place.prefix + name in old.secrets:
                    self._note_secret(place.prefix + name)
                return tag_of(old.mode(at)), id, old.numbers[at]
        try:
            if kind == FILE:
                found = self._file(place, name)
            elif kind == LINK:
                found = self._link(place, name)
            else:
                found = special(os.stat(name, dir_fd=place.fd(), follow_symlinks=False).st_mode)
        except (OSError, WasPurged) as error:
            found = failure(error)
        if isinstance(found, Fault):
            self._fault(place.prefix + name, found)
            return None
        if self._on_read is not None:
            self._on_read(place.prefix + name)
        return found

    def _file(self, place: Place, name: bytes) -> Value | Fault | None:
        found = read_file(place.fd(), name, WHOLE_BLOB_BYTES_MAX)
        secret = is_secret_name(name)
        torn = False
        if isinstance(found, Content):
            data, status, torn = found
            secret = secret or is_private_key(data)
            if secret and self._note_secret(place.prefix + name):
                return None
            id, size = self._sink.blob(data, place.prefix, name), len(data)
        elif isinstance(found, Fault):
            return found
        else:
            status = found
            if secret and self._note_secret(place.prefix + name):
                return None
            streamed = self._stream(place.fd(), name, status)
            if isinstance(streamed, Fault):
                return streamed
            id, size, torn = streamed
        kept = settled(status_of(status), self._started_ns)
        if torn:
            kept = unsettled(kept)
            self._fault(place.prefix + name, _TORN)
        self.picture.add(place.path + b"/" + name, kept, id, size)
        self._count(size)
        return EXECUTABLE if status.st_mode & 0o100 else FILE, id, size

    def _stream(
        self, fd: int, name: bytes, before: os.stat_result
    ) -> tuple[bytes, int, bool] | Fault:
        """(id, bytes, whether it changed meanwhile) of a long file, read once. Raises `OSError`."""
        file = os.open(name, OPEN_FILE, dir_fd=fd)
        with os.fdopen(file, "rb", buffering=0) as stream:
            now = os.fstat(file)
            if not (stat.S_ISREG(now.st_mode) and os.path.samestat(now, before)):
                return special(now.st_mode)
            id, size = self._sink.stream(stream)
            after = os.fstat(file)
        return id, size, size != before.st_size or not same(before, after)

    def _link(self, place: Place, name: bytes) -> Value:
        fd = place.fd()
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        target = os.fsencode(os.readlink(name, dir_fd=fd))
        id = self._sink.blob(target, place.prefix, name)
        kept = settled(status_of(status), self._started_ns)
        self.picture.add(place.path + b"/" + name, kept, id, len(target))
        return LINK, id, len(target)

    def _note_secret(self, path: bytes) -> bool:
        """Name a secret in the notice; whether it is to be left out."""
        self.notices.secrets.append(to_text(path))
        if not self._options.skip_secrets:
            self.picture.secrets.append(path)
        return self._options.skip_secrets

    def _fault(self, path: bytes, fault: Fault) -> None:
        text = to_text(path)
        message = f"{printable(text)}: {fault.message}"
        self.notices.problems.append(Problem(text, fault.reason, message))

    def _count(self, size: int) -> None:
        self._file_count += 1
        self._byte_count += size
        if self._progress is not None and self._file_count % _PROGRESS_FILES == 0:
            self._progress(Progress("read", self._file_count, self._byte_count))


_TORN: Final = Fault(
    "changed-while-reading", "it changed each time it was read; what was read last is saved"
)
_TOO_LONG: Final = Fault("name", "the name or the path is too long, or too deep, to be saved")
