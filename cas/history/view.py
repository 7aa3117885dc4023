"""A view: all refs and objects of the store as of one journal entry, read-only.

Floor 4. Invariant: a view shows one moment and never moves; what it resolves, lists and
compares is consistent across all refs. Any thread may use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cas.errors import (
    AmbiguousRevision,
    EntryNotFound,
    Invalid,
    InvalidId,
    ObjectNotFound,
    RefNotFound,
    RevisionNotFound,
    WrongKind,
)
from cas.history.core import Core
from cas.history.horizon import (
    Thinning,
    check_content,
    check_seq,
    horizon_at,
    horizon_now,
    thinning_of,
)
from cas.history.revision import When, parse_range, parse_revision
from cas.history.snapshot import Change, Snapshot
from cas.history.timeline import Moment, RefValue
from cas.later import Later
from cas.limits import ID_BYTES
from cas.model.ids import CommitId, Kind, ObjectId, is_abbreviation
from cas.model.names import HEADS, TAGS, count, quoted, short_ref, split_path
from cas.model.objects import Commit, Tag
from cas.model.values import frozen

if TYPE_CHECKING:
    from cas.history import blame as blaming
    from cas.history import graph
    from cas.history import log as logging
    from cas.history import renames as renaming
    from cas.history.blame import BlamedEntry, BlamedLine
else:
    blaming = Later("cas.history.blame")
    graph = Later("cas.history.graph")
    logging = Later("cas.history.log")
    renaming = Later("cas.history.renames")


@frozen
class Ref:
    """A name and where it points; `seq` is the journal entry that moved it last."""

    name: str
    kind: Kind
    target: ObjectId
    seq: int

    @property
    def short(self) -> str:
        """The name without `heads/` or `tags/`."""
        return short_ref(self.name)


class View:
    """The store after one journal entry."""

    def __init__(self, core: Core, moment: Moment) -> None:
        self._core = core
        self._objects = core.objects
        self._timeline = core.timeline
        self._commits = core.commits
        self.moment = moment

    @property
    def seq(self) -> int:
        """The entry this view stands after; 0 before the first."""
        return self.moment.seq

    def __repr__(self) -> str:
        return f"<View after entry {self.seq}>"

    # -- refs --------------------------------------------------------------------------------

    def ref(self, name: str) -> Ref | None:
        """The ref of this full name, or None."""
        value = self._timeline.recall(self.moment, lambda root: self._timeline.get(root, name))
        return None if value is None else _ref(name, value)

    def refs(self, prefix: str = "") -> list[Ref]:
        """Refs whose full names begin with `prefix`, ascending."""
        timeline = self._timeline
        found = timeline.recall(self.moment, lambda root: list(timeline.list(root, prefix)))
        return [_ref(name, value) for name, value in found]

    def branches(self) -> list[Ref]:
        """All branches, ascending by name."""
        return self.refs(HEADS)

    def tags(self) -> list[Ref]:
        """All tags, ascending by name."""
        return self.refs(TAGS)

    # -- revisions ---------------------------------------------------------------------------

    def resolve(self, revision: str | ObjectId) -> CommitId:
        """The commit that a revision names.

        Raises `RevisionNotFound`, `AmbiguousRevision`, `Invalid`, and `WrongKind` for an id of
        something that is no commit.
        """
        if isinstance(revision, ObjectId):
            return self._peel(revision)
        name, when, steps = parse_revision(revision)
        id = self._peel(self._named(name) if when is None else self._named_then(name, when))
        for mark, number in steps:
            id = self._step(id, mark, number, revision)
        return id

    def _named_then(self, name: str, when: When) -> ObjectId:
        """Where a ref was. Raises `EntryNotFound`, and `RevisionNotFound` if it was not there."""
        seq = when.seq
        with self._objects.catalog.read() as reader:
            if seq is None:
                assert when.time_us is not None
                seq = self._timeline.seq_at(reader, self.seq, when.time_us)
            if seq > self.seq:
                raise EntryNotFound(
                    f"The journal has no entry {seq}; its newest is {self.seq}.", seq=seq
                )
            check_seq(self._core, seq)
            then = View(self._core, self._timeline.at(reader, seq))
        candidates = then._refs_named(name)
        if not candidates:
            raise RevisionNotFound(
                f"{name!r} was no branch or tag after entry {seq}; `cas journal` tells what was.",
                revision=name,
            )
        return _only(name, candidates)

    def _refs_named(self, name: str) -> dict[str, ObjectId]:
        """Refs that a name could mean."""
        found = map(self.ref, (name, HEADS + name, TAGS + name))
        return {ref.name: ref.target for ref in found if ref is not None}

    def _named(self, name: str) -> ObjectId:
        candidates = self._refs_named(name)
        lowered = name.lower()
        if is_abbreviation(lowered):
            for id in self._objects.lookup.abbreviated(lowered):
                candidates[id.hex()] = ObjectId(id)
        if not candidates:
            raise RevisionNotFound(
                f"{quoted(name)} names no branch, tag or commit; `cas branch` lists the branches.",
                revision=name,
            )
        return _only(name, candidates)

    def find(self, text: str) -> ObjectId:
        """The object that an id or an abbreviation of 8 digits or more names.

        Raises `InvalidId`, `ObjectNotFound`, `AmbiguousRevision`.
        """
        if not isinstance(text, str):
            raise InvalidId(
                f"An id is an ObjectId, or text that spells one, not {text!r}.", text=text
            )
        lowered = text.strip().lower()
        if not is_abbreviation(lowered):
            raise InvalidId(
                f"{text!r} is no object id: it has 64 hex digits, of which the first 8 are enough.",
                text=text,
            )
        if len(lowered) == 2 * ID_BYTES:
            return ObjectId.parse(lowered)
        found = self._objects.lookup.abbreviated(lowered)
        if not found:
            raise ObjectNotFound(f"No object's id begins with {text}.", id=text)
        if len(found) > 1:
            raise AmbiguousRevision(
                f"{text} could be any of: {', '.join(id.hex() for id in found[:8])}"
                f"{' and others' if len(found) > 8 else ''}. Give more digits.",
                revision=text,
                candidates=[id.hex() for id in found],
            )
        return ObjectId(found[0])

    def _peel(self, id: ObjectId) -> CommitId:
        """Follow tags to a commit."""
        for _ in range(16):
            kind, content = self._objects.read(id)
            if kind == Kind.COMMIT:
                return CommitId(id)
            if kind != Kind.TAG:
                raise WrongKind(
                    f"{id.short} is a {Kind(kind).name.lower()}, not a commit.",
                    id=id,
                    expected=Kind.COMMIT,
                    actual=Kind(kind),
                )
            id = Tag.decode(content, verified=True).target
        raise WrongKind(
            f"{id.short} is a tag of tags without end.",
            id=id,
            expected=Kind.COMMIT,
            actual=Kind.TAG,
        )

    def _step(self, id: CommitId, mark: str, number: int, revision: str) -> CommitId:
        if mark == "~":
            for _ in range(number):
                id = self._parent(id, 1, revision)
            return id
        return id if number == 0 else self._parent(id, number, revision)

    def _parent(self, id: CommitId, number: int, revision: str) -> CommitId:
        parents = self._commits.get(id).parents
        if number > len(parents):
            raise RevisionNotFound(
                f"{revision!r} goes back too far: commit {id.short} has "
                f"{count(len(parents), 'parent') if parents else 'no parent'}.",
                revision=revision,
            )
        return parents[number - 1]

    # -- reading -----------------------------------------------------------------------------

    def commit(self, revision: str | ObjectId) -> Commit:
        """The commit that a revision names."""
        return self._commits.get(self.resolve(revision))

    def snapshot(self, revision: str | ObjectId) -> Snapshot:
        """The files of a revision. Raises as `resolve` does, and `Thinned` for a commit whose
        content was given up.
        """
        id = self.resolve(revision)
        commit = self._commits.get(id)
        check_content(self._core, id)
        return Snapshot(self._objects, commit.tree, commit, id)

    def thinning(self, revision: str | ObjectId) -> Thinning | None:
        """Why and when the content of a commit was given up; None where it was not."""
        return thinning_of(self._core, horizon_now(self._core), self.resolve(revision))

    def horizon(self) -> int:
        """The oldest state that can be read, as of this one: `store.at` is answered from it on."""
        return horizon_at(self._core, self.moment).seq

    def diff(
        self,
        old: str | ObjectId | Snapshot,
        new: str | ObjectId | Snapshot,
        *,
        renames: bool = False,
    ) -> Iterator[Change]:
        """What changes from one revision to another, lazily; walks only what differs.

        With `renames` files that went and files that came are compared, by content and by
        similarity, and told as one change; all changes are then found before the first is given.
        """
        before = old if isinstance(old, Snapshot) else self.snapshot(old)
        after = new if isinstance(new, Snapshot) else self.snapshot(new)
        changes = before.diff(after)
        if not renames:
            return changes
        return renaming.with_renames(changes, lambda id: self._objects.get(id, Kind.BLOB))

    def blame(self, revision: str | ObjectId, path: str | bytes) -> list[BlamedLine]:
        """The lines of a text file, each with the commit that brought it, in order.

        Raises `PathNotFound`, `WrongKind` for what is no file, `Invalid` for what is no text,
        and as `resolve` does.
        """
        return blaming.blame_lines(self._core, self.resolve(revision), split_path(path))

    def blame_entries(
        self, revision: str | ObjectId, path: str | bytes = ""
    ) -> Iterator[BlamedEntry]:
        """The entries of a directory, each with the commit that made it what it is, by name.

        Raises `PathNotFound`, `WrongKind` for a file, and as `resolve` does, at once.
        """
        parts = split_path(path) if path else ()
        return blaming.blame_entries(self._core, self.resolve(revision), parts)

    def log(
        self,
        revision: str | ObjectId,
        *,
        limit: int | None = None,
        path: str | bytes = "",
        follow: bool = False,
    ) -> Iterator[tuple[CommitId, Commit]]:
        """Commits reachable from a revision, newest first, read as they are asked for.

        A commit comes behind the child through which it was met, and behind all of its children
        where no commit is dated before its parent. `A..B` gives what B has and A has not,
        `A...B` what only one of them has. With `path` only commits that changed what lies
        there; of a merge that took it from one parent, only that parent is followed. With
        `follow` the history of a file that was renamed goes on under its older name. Raises as
        `resolve` does, and `Invalid` for `follow` without a path, at once.
        """
        if follow and not path:
            raise Invalid("Only the history of a path can be followed; name it.")
        starts, within = self._ends(revision)
        if path:
            parts = split_path(path)
            return logging.path_log(
                self._core, starts, parts, within=within, limit=limit, follow=follow
            )
        return logging.newest_first(self._commits, starts, limit, within)

    def _ends(self, revision: str | ObjectId) -> tuple[list[CommitId], set[CommitId] | None]:
        """Where a log begins, and for a range the commits that it may show."""
        ends = None if isinstance(revision, ObjectId) else parse_range(revision)
        if ends is None:
            return [self.resolve(revision)], None
        first, second = self.resolve(ends.first), self.resolve(ends.second)
        within = graph.only_in(self._commits, [second], [first])
        if not ends.both:
            return [second], within
        return [first, second], within | graph.only_in(self._commits, [first], [second])

    def annotation(self, ref: Ref) -> Tag | None:
        """The annotated tag that a ref points at; None for a branch or a plain tag."""
        if ref.kind != Kind.TAG:
            return None
        return Tag.decode(self._objects.get(ref.target, Kind.TAG), verified=True)

    def branch(self, name: str) -> Ref:
        """A branch by short or full name. Raises `RefNotFound`."""
        full = name if name.startswith(HEADS) else HEADS + name
        found = self.ref(full)
        if found is None:
            raise RefNotFound(
                f"There is no branch {name!r}; `cas branch` lists the branches.", ref=full
            )
        return found


def _only(name: str, candidates: dict[str, ObjectId]) -> ObjectId:
    """The one id that a name means. Raises `AmbiguousRevision`."""
    if len(set(candidates.values())) > 1:
        listed = ", ".join(sorted(candidates))
        raise AmbiguousRevision(
            f"{name!r} could be any of: {listed}. Use one of these in full.",
            revision=name,
            candidates=sorted(candidates),
        )
    return next(iter(candidates.values()))


def _ref(name: str, value: RefValue) -> Ref:
    return Ref(name, Kind(value.kind), value.target, value.seq)
