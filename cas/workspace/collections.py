"""Typed collections inside a unit of work, with the verbs of memories and artifacts.

Floor 6. Invariant: whatever is staged here is part of the one commit of its unit of work.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Generic, TypeVar

from cas.errors import Invalid, InvalidRecord
from cas.model.ids import BlobId
from cas.model.objects import EntryKind, TreeEntry
from cas.objects.content import Readable
from cas.trees.node import Value
from cas.workspace.artifacts import Artifact, ArtifactKind
from cas.workspace.codec import pinned
from cas.workspace.layout import file_parts, file_path
from cas.workspace.links import Link
from cas.workspace.memories import Memory, Trust
from cas.workspace.quotas import bounded
from cas.workspace.reading import Where
from cas.workspace.registry import Aggregate, not_valid, type_of
from cas.workspace.strict import moment
from cas.workspace.unit import UnitCore

T = TypeVar("T", bound=Aggregate)
Target = Aggregate | Link
"""What is linked: an aggregate as it is now, which pins the link, or a link as it stands."""


def link_to(target: Target) -> Link:
    """A link to a target, pinned where an aggregate is given. Raises `Invalid` for what is none."""
    if isinstance(target, Aggregate):
        return pinned(target)
    if not isinstance(target, Link):
        raise Invalid(f"Give an aggregate or a link to one, not {target!r}. Nothing was stored.")
    return target


class UnitCollection(Generic[T]):
    """The aggregates of one type, as a unit of work sees and changes them."""

    def __init__(self, unit: UnitCore, cls: type[T]) -> None:
        self._unit = unit
        self._cls = cls
        self.type = type_of(cls)

    def get(self, id: str) -> T:
        """The aggregate of this id; the reading is recorded. Raises `AggregateNotFound`."""
        return self._unit.get(self._cls, id)

    def find_one(self, id: str) -> T | None:
        """The aggregate of this id, or None."""
        return self._unit.find_one(self._cls, id)

    def find(self, where: Where | None = None, *, guard: bool = False) -> Iterator[T]:
        """The aggregates of which `where` is true; with `guard` the answer is a condition."""
        return self._unit.find(self._cls, where, guard=guard)

    def add(self, value: T) -> T:
        """Stage a new aggregate. Raises `AggregateExists`."""
        return self._unit.add(value)

    def save(self, value: T) -> T:
        """Stage a new aggregate, or what became of one. See `UnitOfWork.save`."""
        return self._unit.save(value)

    def remove(self, value: T | str) -> None:
        """Stage a removal, by value or id. Raises `AggregateNotFound`."""
        self._unit.remove(self.get(value) if isinstance(value, str) else value)


def _now(unit: UnitCore) -> datetime:
    return moment(unit.clock.wall_us())


class UnitMemories(UnitCollection[Memory]):
    """Memories in a unit of work."""

    def __init__(self, unit: UnitCore) -> None:
        super().__init__(unit, Memory)

    def note(
        self,
        text: str,
        *,
        agent: str = "",
        kind: str = "note",
        importance: float = 0.5,
        tags: Iterable[str] = (),
        source: Target | None = None,
        trust: Trust | str = Trust.UNVERIFIED,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        supersedes: Iterable[Target] = (),
        at: datetime | None = None,
        id: str = "",
    ) -> Memory:
        """Stage a new memory of the actor, or of another agent. Gives it.

        A source that is given as an aggregate is pinned to what it is now. `at` is now unless
        said; a caller who retries with a key gives `id` and `at`. Raises `InvalidRecord`, also for
        a text that is empty, and a validity that ends before it begins.
        """
        if isinstance(text, str) and not text.strip():
            raise not_valid("memory", id or None, "text", "is empty")
        if _ends_before(valid_from, valid_to):
            raise not_valid("memory", id or None, "valid_to", "is before `valid_from`")
        made = Memory(
            id=id or self._unit.new_id(),
            agent=agent or self._unit.actor,
            text=text,
            kind=kind,
            importance=importance,
            tags=_texts(tags, "memory", id, "tags"),
            source=None if source is None else link_to(source),
            trust=_trust(trust),
            at=at or _now(self._unit),
            valid_from=valid_from,
            valid_to=valid_to,
            supersedes=frozenset(link_to(each).loose for each in supersedes),
        )
        return self._unit.add(made) if id else self._unit.add_fresh(made)


def _ends_before(start: datetime | None, end: datetime | None) -> bool:
    """Whether a time is before another; what is none that can be stored is told elsewhere."""
    if start is None or end is None:
        return False
    times = [each for each in (start, end) if isinstance(each, datetime) and each.tzinfo]
    return len(times) == 2 and times[1] < times[0]


def _texts(values: Iterable[str], type: str, id: str, field: str) -> frozenset[str]:
    """A set of texts. One text is not taken for one of its letters each: nothing is converted."""
    if isinstance(values, str | bytes):
        raise not_valid(type, id or None, field, f"is a set of texts, not the one text {values!r}")
    return frozenset(values)


def _trust(value: Trust | str) -> Trust:
    if isinstance(value, Trust):
        return value
    try:
        return Trust(value)
    except ValueError as error:
        named = ", ".join(Trust)
        raise InvalidRecord(
            f"Trust is one of {named}, not {value!r}. Nothing was stored.",
            type="memory",
            id=None,
            field="trust",
            reason=f"is one of {named}",
        ) from error


class UnitArtifacts(UnitCollection[Artifact]):
    """Artifacts in a unit of work."""

    def __init__(self, unit: UnitCore) -> None:
        super().__init__(unit, Artifact)

    def put(
        self,
        name: str,
        content: bytes | Readable,
        *,
        kind: ArtifactKind | None = None,
        media_type: str = "",
        title: str = "",
        tags: Iterable[str] = (),
        made_from: Iterable[Target] = (),
        cites: Iterable[Target] = (),
        run: Target | None = None,
    ) -> Artifact:
        """Stage an artifact, or a new version of it: content of any size, as bytes, a path
        (`pathlib.Path`) or a readable stream. Gives its record.

        What `made_from` and `cites` name is pinned where an aggregate is given. What is not said
        stays as it was; the media type is guessed from the name. Raises `AggregateExists` for a
        name that is a folder of artifacts, or has an artifact for a folder, and `LimitExceeded` for
        more than the context allows.
        """
        # All of it is looked at before anything is staged: a refusal leaves no half of an artifact.
        labels = _texts(tags, "artifact", name, "tags")
        origins = frozenset(link_to(each) for each in (*made_from, *cites))
        self._unit.check_room(self.type, name)
        edit = self._unit.edit(self.type.context)
        place = file_parts(name)
        before = edit.find(place)
        executable = before is not None and before[0] == EntryKind.EXECUTABLE
        mode = EntryKind.EXECUTABLE if executable else EntryKind.FILE
        allowed = bounded(self._unit.declared(self.type.context), name, content)
        edit.put_at(place, allowed, mode)
        file = edit.find(place)
        assert file is not None
        return self._record(
            name,
            file,
            kind=kind,
            media_type=media_type,
            title=title,
            labels=labels,
            origins=origins,
            run=None if run is None else link_to(run),
        )

    def put_entry(self, name: str, entry: TreeEntry) -> Artifact:
        """Stage an artifact, or a new version of it, whose content was staged in this unit's
        transaction, or exists. Gives its record. Raises as `put`.
        """
        self._unit.check_room(self.type, name)
        declared = self._unit.declared(self.type.context)
        if declared is not None:
            declared.check_content(name, entry.size)
        edit = self._unit.edit(self.type.context)
        edit.put_entry(file_path(name), entry)
        file = edit.find(file_parts(name))
        assert file is not None
        return self._record(name, file)

    def _record(
        self,
        name: str,
        file: Value,
        *,
        kind: ArtifactKind | None = None,
        media_type: str = "",
        title: str = "",
        labels: frozenset[str] = frozenset(),
        origins: frozenset[Link] = frozenset(),
        run: Link | None = None,
    ) -> Artifact:
        """Stage the record of an artifact whose file is staged."""
        old = self.find_one(name)
        _kind, content, size_bytes = file
        blob = BlobId(content)
        guessed = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        if old is None:
            made = Artifact(
                id=name,
                content=blob,
                size_bytes=size_bytes,
                kind=kind or ArtifactKind.ARTIFACT,
                media_type=guessed,
                title=title,
                tags=labels,
                made_by=self._unit.actor,
                made_from=origins,
                run=run,
                at=_now(self._unit),
            )
            # That nobody has it was found out just now.
            return self._unit.add_fresh(made)
        made = old.evolve(
            content=blob,
            size_bytes=size_bytes,
            kind=kind or old.kind,
            media_type=media_type or old.media_type,
            title=title or old.title,
            tags=old.tags | labels,
            made_by=self._unit.actor,
            made_from=origins or old.made_from,
            run=old.run if run is None else run,
            at=_now(self._unit),
        )
        return self._unit.save(made)

    def read(self, name: str) -> bytes:
        """The content of an artifact, what is staged included. Raises `PathNotFound`."""
        return self._unit.edit(self.type.context)[file_path(name)]
