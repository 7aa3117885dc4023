"""What imports have in common: what they tell, and units of work wherever contexts live.

Floor 6. Invariant: nothing is lost and nothing is guessed silently: what was not understood is
told, and what could not be kept in another form is kept as the bytes it came in.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, cast

from attrs import field, frozen

from cas.errors import InvalidName
from cas.model.entry import Entry
from cas.model.names import printable
from cas.workspace.artifacts import Artifact, ArtifactKind
from cas.workspace.links import check_id
from cas.workspace.registry import Aggregate, type_of
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace


@frozen
class NotUnderstood:
    """Something that was kept as it is, or (not `kept`) could not be taken in, and why."""

    path: str
    reason: str
    kept: bool = True


@frozen
class ImportReport:
    """What an import did: files taken in and left as they were, aggregates made, and the rest.

    `original` is the artifact that holds the whole source, where something of it had no other
    place; `branch` the branch of the store that holds its history, where it had one.
    """

    entry: Entry | None
    files: int
    unchanged: int
    aggregates: int
    not_understood: tuple[NotUnderstood, ...] = field(repr=False)
    original: str | None = None
    branch: str | None = None

    @property
    def left_out(self) -> tuple[NotUnderstood, ...]:
        """What is in the workspace in no form."""
        return tuple(each for each in self.not_understood if not each.kept)


class Arrivals:
    """One import on its way: its units of work, and what it has come to.

    Contexts that live in one store share a unit, so that an import is one entry a store.
    """

    def __init__(self, space: Workspace, actor: str, message: str) -> None:
        self._space = space
        self._actor = actor
        self._message = message
        self._units: dict[str, UnitOfWork] = {}
        self.files = self.unchanged = self.aggregates = 0
        self.told: list[NotUnderstood] = []
        self.homeless = False
        """Whether something of the source has no place but the source itself."""

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for unit in self._units.values():
            unit.rollback()

    def on(self, cls: type[Aggregate]) -> UnitOfWork:
        """The unit of work in the store in which aggregates of a type live."""
        store = self._space.store_of(type_of(cls).context)
        found = self._units.get(store.id)
        if found is None:
            found = self._units[store.id] = self._space.unit_of_work(self._actor, self._message)
        return found

    def tell(self, path: str, reason: str, *, homeless: bool = False, kept: bool = True) -> None:
        """Something was not understood; with `homeless` it is in nothing that was made of it, and
        not `kept` not even in the source that is kept whole.
        """
        self.told.append(NotUnderstood(printable(path), reason, kept))
        self.homeless = self.homeless or homeless

    def save(self, value: Aggregate) -> None:
        """Make an aggregate what the source says, unless it is that already."""
        unit = self.on(value.__class__)
        old = unit.find_one(value.__class__, value.id)
        if old is None:
            unit.add(value)
        elif old == value:
            return
        else:
            unit.save(value.evolve(origin=old.origin))
        self.aggregates += 1

    def keep_original(self, file: str, name: str) -> str:
        """Keep the whole source as an artifact, unless it is there as it is; gives its name."""
        target = f"imports/{name}"
        try:
            check_id(target, path=True)
        except InvalidName:
            target = "imports/source"
        artifacts = self.on(Artifact).artifacts
        old = artifacts.find_one(target)
        made = artifacts.put(target, cast("Any", Path(file)), kind=ArtifactKind.DATA)
        self.files += 1
        if old is not None and old.content == made.content:
            self.unchanged += 1
        return target

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self.files > self.unchanged or self.aggregates > 0

    def commit(self, **said: Any) -> Entry | None:
        """Make it visible, store by store, with an event in the first; its entry.

        None when there was nothing to do. Raises what a commit raises.
        """
        entries = []
        for number, unit in enumerate(self._units.values() if self.changed else ()):
            if number == 0:
                counts = {"files": self.files, "aggregates": self.aggregates}
                unit.event("workspace.imported", {**counts, **said})
            entries.append(unit.commit())
        return entries[0] if entries else None

    def report(self, entry: Entry | None, **said: Any) -> ImportReport:
        """What was done."""
        told = tuple(self.told)
        return ImportReport(entry, self.files, self.unchanged, self.aggregates, told, **said)
