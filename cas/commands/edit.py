"""Change files of a branch without a folder: write, remove, move, copy, edit.

Floor 8. Invariant: one call is one transaction, and so at most one commit a branch, however many
paths it names; what a call expects of a path is compared in that transaction, so that nothing is
changed that looks otherwise than its caller said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, Final

from attrs import evolve, frozen

from cas.commands.objects import Counted, name_purged, open_file
from cas.commands.target import resolve
from cas.errors import Invalid, NotAsExpected, PathNotFound, WasPurged, WrongKind
from cas.history.branch import BranchEdit
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.model.ids import CommitId, is_abbreviation
from cas.model.names import branch_ref, join_path, printable, quoted, short_ref, split_path
from cas.model.objects import EntryKind, TreeEntry
from cas.objects.content import BlobReader, Readable

NOTHING: Final = "none"
"""What `if_match` says of a path that must not be there."""


@frozen
class Place:
    """A path of a branch. `into`: it was written with a slash at its end."""

    ref: str
    path: str
    into: bool = False

    @property
    def branch(self) -> str:
        """The short name of the branch."""
        return short_ref(self.ref)

    def __str__(self) -> str:
        return f"{self.branch}:{self.path}"


@frozen
class Touched:
    """A path and what became of it: None where nothing was or is."""

    branch: str
    path: str
    old: TreeEntry | None
    new: TreeEntry | None


@frozen
class Edited:
    """What a call changed. Without a change there is no commit, and `seq` is None."""

    commits: tuple[tuple[str, CommitId], ...]
    seq: int | None
    changes: tuple[Touched, ...]


@frozen
class EditRequest:
    """Who, why, and what the paths must be before they are touched.

    `if_match` is an id of 8 digits or more: of the object at the path, or of the commit that the
    branch is at; `none` where nothing may be there.
    """

    author: str
    message: str = ""
    if_match: str | None = None


def parse_place(text: str) -> Place:
    """The place that `BRANCH:PATH` names. Raises `Invalid`, `InvalidName`, `LimitExceeded`."""
    branch, colon, path = text.partition(":")
    if not colon or not branch or not path.strip("/"):
        raise Invalid(f"Name a file as BRANCH:PATH; {quoted(text)} names none.", place=text)
    clean = join_path(split_path(path.strip("/")))
    return Place(branch_ref(branch), clean, path.endswith("/"))


class _Work:
    """One call on its way: the transaction, and what was touched in it."""

    def __init__(self, tx: Transaction, if_match: str | None) -> None:
        self.tx = tx
        self._if_match = _checked(if_match)
        self._before: dict[Place, TreeEntry | None] = {}

    def branch(self, place: Place) -> BranchEdit:
        return self.tx.branch(place.ref)

    def touch(self, place: Place) -> TreeEntry | None:
        """What lies there; to be told as changed if it is by the end."""
        edit = self.branch(place)
        found = edit.entry(place.path)
        self._before.setdefault(evolve(place, into=False), found)
        return found

    def expect(self, place: Place, found: TreeEntry | None) -> None:
        """Raise `NotAsExpected` unless the place is what the request says."""
        expected = self._if_match
        if expected is None:
            return
        base = self.branch(place).base
        if expected == NOTHING:
            fits = found is None
        else:
            fits = found is not None and found.id.hex().startswith(expected)
            if not fits and base is not None and base.target.hex().startswith(expected):
                # The whole branch has to stay what it was, not this path alone.
                self.tx.branch(place.ref, on_move="conflict")
                fits = True
        if not fits:
            actual = None if found is None else str(found.id)
            there = "nothing" if found is None else found.id.short
            raise NotAsExpected(
                f"{printable(str(place))} is {there}, not {expected}: somebody changed it. "
                "Nothing was committed; look at it and ask again.",
                path=place.path,
                expected=expected,
                actual=actual,
            )

    def put_entry(self, place: Place, entry: TreeEntry) -> None:
        self.touch(place)
        self.branch(place).put_entry(place.path, entry)

    def remove(self, place: Place) -> None:
        self.touch(place)
        del self.branch(place)[place.path]

    def finish(self) -> Edited:
        """Commit if anything is another than before."""
        changes = []
        for place, old in self._before.items():
            new = self.branch(place).entry(place.path)
            if new != old:
                changes.append(Touched(place.branch, place.path, old, new))
        if not changes:
            return Edited((), None, ())
        try:
            entry = self.tx.commit()
        except WasPurged as error:
            names = {bytes(t.new.id): f"{t.branch}:{t.path}" for t in changes if t.new is not None}
            raise name_purged(error, names) from error
        touched = {place.ref for place in self._before}
        commits = tuple(
            (short_ref(change.ref), CommitId(change.new))
            for change in entry.changes
            if change.ref in touched and change.new is not None
        )
        return Edited(commits, entry.seq, tuple(changes))


def _checked(if_match: str | None) -> str | None:
    if if_match is None or if_match == NOTHING:
        return if_match
    lowered = if_match.strip().lower()
    if not is_abbreviation(lowered):
        raise Invalid(
            f"--if-match takes an id of 8 digits or more, or `{NOTHING}`; "
            f"{quoted(if_match)} is neither."
        )
    return lowered


def _run(
    store: Store,
    request: EditRequest,
    verb: str,
    names: Sequence[str],
    act: Callable[[_Work], None],
) -> Edited:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    message = request.message or f"{verb} {printable(names[0])}{more}"
    with store.begin(author=request.author, message=message) as tx:
        work = _Work(tx, request.if_match)
        act(work)
        return work.finish()


# -- the calls -------------------------------------------------------------------------------


@frozen
class Write:
    """Content for a place: a file by name, or `-` for standard input."""

    place: Place
    source: str


def write_files(
    store: Store,
    writes: Sequence[Write],
    request: EditRequest,
    standard_input: BinaryIO,
    *,
    kind: EntryKind | None = None,
) -> Edited:
    """Write files into branches; a branch that is not there is made.

    Without `kind` a file that is there keeps its executable bit, and a new one has none. Raises
    `Invalid` for a place that is named twice, `NotAsExpected`, `WrongKind` for a directory,
    `NotFound` and `NotAllowed` for a source that cannot be read, and what a commit raises.
    """

    seen: set[Place] = set()
    for write in writes:
        if write.place in seen:
            raise Invalid(
                f"{printable(str(write.place))} is named twice, and holds one content; leave out "
                "the other."
            )
        seen.add(write.place)

    def act(work: _Work) -> None:
        for write in writes:
            found = work.touch(write.place)
            work.expect(write.place, found)
            if write.source == "-":
                put_content(work.branch(write.place), write.place, standard_input, kind)
            else:
                with open_file(write.source) as file:
                    put_content(work.branch(write.place), write.place, file, kind)

    return _run(store, request, "write", [write.place.path for write in writes], act)


def put_content(
    edit: BranchEdit, place: Place, content: BinaryIO, kind: EntryKind | None = None
) -> None:
    """Stage what a stream gives. Raises `WrongKind` for a directory, `StorageFailed`."""
    found = edit.entry(place.path)
    if found is not None and found.is_tree:
        raise _is_directory(place, found, "remove it first, or name a file in it")
    if kind is None:
        keeps = found is not None and found.kind == EntryKind.EXECUTABLE
        kind = EntryKind.EXECUTABLE if keeps else EntryKind.FILE
    stream: Readable = Counted(content)
    edit.put(place.path, stream, kind=kind)


def remove_files(
    store: Store,
    places: Sequence[Place],
    request: EditRequest,
    *,
    recursive: bool = False,
    force: bool = False,
) -> Edited:
    """Remove files, and with `recursive` directories; with `force` what is not there is passed.

    Raises `PathNotFound`, `WrongKind` for a directory, `NotAsExpected`, and what a commit raises.
    """

    def act(work: _Work) -> None:
        for place in dict.fromkeys(places):
            found = work.touch(place)
            work.expect(place, found)
            if found is None:
                if not force:
                    raise _missing(place)
            elif found.is_tree and not recursive:
                raise _is_directory(place, found, "-r removes it with all that is in it")
            else:
                work.remove(place)

    return _run(store, request, "remove", [place.path for place in places], act)


def move_files(
    store: Store, sources: Sequence[Place], target: Place, request: EditRequest
) -> Edited:
    """Move files and directories, between branches too; no content is read or written.

    A target that is a directory, or ends in a slash, takes them under their own names. Raises
    `PathNotFound`, `Invalid`, `WrongKind` where a directory would be replaced, `NotAsExpected`
    (of the sources), and what a commit raises.
    """

    def act(work: _Work) -> None:
        into = _is_folder(work, target, len(sources))
        for source in sources:
            found = work.touch(source)
            work.expect(source, found)
            if found is None:
                raise _missing(source)
            place = _below(target, source.path) if into else target
            if (place.ref, place.path) == (source.ref, source.path):
                continue
            if place.ref == source.ref and place.path.startswith(source.path + "/"):
                raise Invalid(f"{printable(str(source))} cannot be moved into itself.")
            _refuse_directory(work, place)
            work.remove(source)
            work.put_entry(place, found)

    return _run(store, request, "move", [place.path for place in sources], act)


def copy_files(store: Store, sources: Sequence[str], target: Place, request: EditRequest) -> Edited:
    """Copy what `REV:PATH` names, of any revisions, into a branch; no content moves.

    Targets as in `move_files`; `REV` or `REV:` alone is the whole tree of a revision. Raises
    `PathNotFound`, `RevisionNotFound`, `WrongKind`, `NotAsExpected` (of the targets), and what a
    commit raises.
    """
    view = store.view()
    found = [resolve(view, source) for source in sources]

    def act(work: _Work) -> None:
        into = _is_folder(work, target, len(sources))
        for source in found:
            place = target
            if into:
                if not source.path:
                    raise Invalid(
                        f"{quoted(source.text)} has no name of its own; give the copy one: "
                        f"{printable(str(target))}/NAME."
                    )
                place = _below(target, source.path)
            work.expect(place, work.touch(place))
            _refuse_directory(work, place)
            work.put_entry(place, source.entry)

    return _run(store, request, "copy", [source.text for source in found], act)


def _is_folder(work: _Work, target: Place, source_count: int) -> bool:
    """Whether a target takes things under their own names."""
    there = work.branch(target).entry(target.path)
    if there is not None and there.is_tree:
        return True
    if target.into or source_count > 1:
        if there is not None:
            raise WrongKind(
                f"{printable(str(target))} is a file, not a directory.",
                id=there.id,
                expected="tree",
                actual=there.kind.name.lower(),
            )
        return True
    return False


def _below(target: Place, path: str) -> Place:
    return Place(target.ref, f"{target.path}/{path.rsplit('/', 1)[-1]}")


def _refuse_directory(work: _Work, place: Place) -> None:
    there = work.branch(place).entry(place.path)
    if there is not None and there.is_tree:
        raise _is_directory(place, there, "remove it first")


def _is_directory(place: Place, entry: TreeEntry, hint: str) -> WrongKind:
    return WrongKind(
        f"{printable(str(place))} is a directory; {hint}.",
        id=entry.id,
        expected="file",
        actual="tree",
    )


def _missing(place: Place) -> PathNotFound:
    return PathNotFound(
        f"There is no {quoted(place.path)} in {place.branch}; `cas ls {place.branch}` lists "
        "what there is.",
        path=place.path,
    )


# -- editing ---------------------------------------------------------------------------------


@frozen
class Opened:
    """A file as an editor is given it; `entry` and `reader` are None for one that is new."""

    place: Place
    entry: TreeEntry | None
    reader: BlobReader | None


def open_to_edit(store: Store, place: Place, if_match: str | None = None) -> Opened:
    """The file at a place. Raises `WrongKind` for a directory, `Invalid` for a link,
    `NotAsExpected`.
    """
    with store.begin() as tx:
        work = _Work(tx, if_match)
        found = work.touch(place)
        work.expect(place, found)
    if found is None:
        return Opened(place, None, None)
    if found.is_tree:
        raise _is_directory(place, found, "name a file in it")
    if found.kind == EntryKind.LINK:
        raise Invalid(f"{printable(str(place))} is a link; edit the file that it leads to.")
    return Opened(place, found, store.open(found.id))


def save_edit(store: Store, opened: Opened, content: BinaryIO, request: EditRequest) -> Edited:
    """Commit what an editor left. Other paths of the branch may have changed meanwhile.

    Raises `NotAsExpected` when this one did, and what a commit raises.
    """

    def act(work: _Work) -> None:
        place = opened.place
        found = work.touch(place)
        if found != opened.entry:
            raise NotAsExpected(
                f"{printable(str(place))} was changed by somebody else while it was edited; "
                "nothing was committed.",
                path=place.path,
                expected=None if opened.entry is None else str(opened.entry.id),
                actual=None if found is None else str(found.id),
            )
        put_content(work.branch(place), place, content)

    return _run(store, request, "edit", [opened.place.path], act)
