"""What clashes when a context moved meanwhile, settled by the rules of the types.

Floor 6. Invariant: a path that this unit of work wrote is merged three ways from the record that
it was written upon; one that it only read, or that a condition watches, refuses the commit;
content of an artifact is settled with its record, never apart from it. May run inside the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from attrs import frozen

from cas.errors import AggregateConflict, ConditionFailed, InvalidRecord, RefConflict
from cas.history.branch import BranchEdit
from cas.history.clash import Clash
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.model.ids import BlobId, Kind
from cas.model.names import join_path
from cas.model.objects import EntryKind, TreeEntry
from cas.workspace.artifacts import Artifact
from cas.workspace.clashes import OpenConflict, conflict_error, read_changed, shape_error
from cas.workspace.codec import (
    decode_record,
    from_fields,
    from_record,
    to_fields,
    to_record,
    upcast,
)
from cas.workspace.layout import (
    Place,
    conflict_path,
    content_path,
    file_path,
    place_of,
    record_path,
)
from cas.workspace.links import Link, new_id
from cas.workspace.reading import Where
from cas.workspace.registry import Aggregate, AggregateType, Fields, type_in
from cas.workspace.rules import Contents, FieldClash, Merged, merge_fields, merge_nothing
from cas.workspace.strict import moment


@frozen
class Condition:
    """Nothing of which `where` is true may come, change or go."""

    type: AggregateType
    where: Where
    what: str


class Settler:
    """Settles what clashes in one context of one unit of work."""

    def __init__(self, store: Store, tx: Transaction, edit: BranchEdit, on_conflict: str) -> None:
        self._store = store
        self._tx = tx
        self._edit = edit
        self._keep = on_conflict == "keep"
        self.conditions: list[Condition] = []
        self.kept: list[OpenConflict] = []
        """Conflicts that were kept, oldest first."""
        self.ours: Snapshot | None = None
        """In a merge of two trees, what `current` is of: where it alone left a file as it was, that
        of the other side stands, or none."""
        self._contents = Contents(
            lambda id: self._blob(BlobId(id)), lambda data: bytes(self._make(data))
        )

    # -- what others did meanwhile -------------------------------------------------------------

    def __call__(self, clashes: Sequence[Clash]) -> None:
        """Stage anew what both sides changed. Raises `AggregateConflict`, `ConditionFailed`."""
        files: dict[str, Clash] = {}
        records = []
        for clash in clashes:
            if clash.watched:
                self._check_conditions(clash)
            if not (clash.written or clash.read):
                continue
            place = place_of(join_path(clash.path))
            if place.kind == "file":
                files[place.id] = clash
                continue
            type = type_in(place.collection) if place.collection else None
            if type is None:
                raise self._moved(clash)
            if place.kind != "record":
                raise conflict_error(type, place.id, ())
            if not clash.written:
                raise read_changed(type, place.id)
            records.append((type, place.id, clash))
        for type, id, clash in records:
            files.pop(id, None)
            self._settle(type, id, clash)
        for clash in files.values():
            raise self._moved(clash)

    def _moved(self, clash: Clash) -> RefConflict:
        path = join_path(clash.path)
        return RefConflict(
            f"{path} in {self._edit.ref} was changed by another unit of work; nothing was "
            "committed. Begin again from the new state.",
            ref=self._edit.ref,
            expected=None if clash.old is None else clash.old.id,
            actual=None if clash.new is None else clash.new.id,
        )

    def _check_conditions(self, clash: Clash) -> None:
        place = place_of(join_path(clash.path))
        for condition in self.conditions:
            if place.kind != "record" or condition.type.collection != place.collection:
                continue
            for entry in (clash.new, clash.old):
                if entry is None:
                    continue
                value = from_record(self._blob(BlobId(entry.id)), expected=condition.type)
                if condition.where(value):
                    raise ConditionFailed(
                        f"{condition.what}: {condition.type.name} {place.id!r} was changed by "
                        "another unit of work; nothing was committed. Read again, decide anew.",
                        condition=condition.what,
                        found=Link(condition.type.name, place.id),
                    )

    def _settle(self, type: AggregateType, id: str, clash: Clash) -> None:
        if any(entry is not None and entry.is_tree for entry in (clash.old, clash.new)):
            # An id that is a path, and others below it: no record can be merged with a folder.
            raise shape_error(type, id)
        staged = self._edit.staged[clash.path]
        incoming = None if staged is None else BlobId(staged[1])
        self.stage_merged(type, id, _blob_of(clash.old), _blob_of(clash.new), incoming)

    def stage_merged(
        self,
        type: AggregateType,
        id: str,
        base: BlobId | None,
        current: BlobId | None,
        incoming: BlobId | None,
    ) -> None:
        """Stage what a merge of two records gives. Raises `AggregateConflict`."""
        if type.event_sourced and current != incoming:
            # Two streams that went apart: only whoever decided on the events can tell.
            raise conflict_error(type, id, ())
        value = self.merge(type, id, base, current, incoming)
        path = record_path(type, id)
        if value is None:
            self._edit.drop(path)
        else:
            self._edit[path] = to_record(value)
        if type.name == "artifact":
            self._settle_file(id, value, None if current is None else self._load(type, current))

    def no_rule(self, path: str, place: Place) -> AggregateConflict:
        """The error for a path that both sides changed and that no type has rules for."""
        type = type_in(place.collection) if place.collection else None
        if type is not None:
            return conflict_error(type, place.id, ())
        return AggregateConflict(
            f"Both sides changed {path!r} in {self._edit.ref}, and this program knows no rule for "
            "it; nothing was committed. Import the module that declares its type, or make both "
            "sides equal.",
            type=place.collection or place.kind,
            id=place.id,
            conflicts=(),
            removed="",
        )

    def _settle_file(self, name: str, value: Aggregate | None, current: Aggregate | None) -> None:
        """Make the file what the merged record says."""
        if value is None:
            self._edit.drop(file_path(name))
            return
        assert isinstance(value, Artifact)
        path = file_path(name)
        if isinstance(current, Artifact) and current.content == value.content:
            self._edit.unstage(path)
            was = None if self.ours is None else self.ours.entry(path)
            if was is not None:
                stands = self._edit.entry(path)
                if stands is None or stands.id != was.id:
                    self._edit.put_entry(path, was)
            return
        entry = TreeEntry(EntryKind.FILE, value.content, value.size_bytes)
        self._edit.put_entry(path, entry)

    # -- merging -------------------------------------------------------------------------------

    def merge_old(self, type: AggregateType, value: Aggregate, current: BlobId | None) -> Aggregate:
        """A value that was read before others changed it, brought onto what stands."""
        incoming = BlobId(self._make(to_record(value)))
        merged = self.merge(type, value.id, value.origin, current, incoming)
        if merged is None:
            raise conflict_error(type, value.id, (), "current")
        return merged

    def merge(
        self,
        type: AggregateType,
        id: str,
        base: BlobId | None,
        current: BlobId | None,
        incoming: BlobId | None,
    ) -> Aggregate | None:
        """The aggregate with the changes of both sides; None where it is to be removed.

        Raises `AggregateConflict` for what no rule merges, unless conflicts are kept.
        """
        # Two that removed it agree, whatever two equal edits would be.
        if incoming == base or (incoming == current and not (current and type.sums)):
            return None if current is None else self._load(type, current)
        if current == base:
            return None if incoming is None else self._load(type, incoming)
        if current is None or incoming is None:
            return self._one_removed(type, id, current, incoming)
        sides = [None if each is None else self._fields(type, each) for each in (base, current)]
        mine = sides[1]
        assert mine is not None
        merged = merge_fields(type, sides[0], mine, self._fields(type, incoming), self._contents)
        value = None
        with suppress(InvalidRecord):
            value = from_fields(type, merged.fields)
        if value is None:
            # Each field by its rule, and together what the type refuses: all that came clashes.
            merged = merge_nothing(sides[0], mine, self._fields(type, incoming))
            value = from_fields(type, merged.fields)
        if merged.clashes:
            self._clash(type, id, merged)
        object.__setattr__(value, "origin", current)
        return value

    def _one_removed(
        self, type: AggregateType, id: str, current: BlobId | None, incoming: BlobId | None
    ) -> Aggregate:
        """One side removed what the other changed: what was changed stands, and is a conflict."""
        removed = "current" if current is None else "incoming"
        kept = incoming if current is None else current
        assert kept is not None
        if not self._keep:
            raise conflict_error(type, id, (), removed)
        fields = self._fields(type, kept)
        every = tuple(
            FieldClash(name, None, *((None, value) if current is None else (value, None)))
            for name, value in sorted(fields.items())
        )
        self._keep_conflict(type, id, every, removed)
        return self._load(type, kept)

    def _clash(self, type: AggregateType, id: str, merged: Merged) -> None:
        if not self._keep:
            raise conflict_error(type, id, merged.clashes)
        self._keep_conflict(type, id, merged.clashes, "")

    def _keep_conflict(
        self, type: AggregateType, id: str, clashes: tuple[FieldClash, ...], removed: str
    ) -> None:
        clock = self._store.objects.clock
        now = moment(clock.wall_us())
        conflict = OpenConflict(
            # An id of its own, so that no two conflicts ever clash themselves.
            id=f"{type.collection}/{id}/{new_id(clock)}",
            about=Link(type.name, id),
            clashes=clashes,
            actor=self._tx.author,
            at=now,
            removed=removed,
        )
        self._edit[conflict_path(conflict.id)] = to_record(conflict)
        self.kept.append(conflict)
        if type.name == "artifact" and not removed:
            self._keep_content(conflict)

    def _keep_content(self, conflict: OpenConflict) -> None:
        """Put the content that did not come to stand into the tree: an id in a record is no edge
        that keeps it.
        """
        for clash in conflict.clashes:
            if clash.field == "content" and type(clash.incoming) is bytes:
                id = BlobId(clash.incoming)
                _kind, size = self._store.objects.measure(self._tx.batch, id)
                entry = TreeEntry(EntryKind.FILE, id, size)
                self._edit.put_entry(content_path(conflict.id), entry)

    # -- records -------------------------------------------------------------------------------

    def _blob(self, id: BlobId) -> bytes:
        return self._tx.get(id)

    def _make(self, data: bytes) -> BlobId:
        return BlobId(self._tx.stage(lambda batch: BlobId(batch.put(Kind.BLOB, data))))

    def _load(self, type: AggregateType, record: BlobId) -> Aggregate:
        return from_record(self._blob(record), expected=type, origin=record)

    def _fields(self, type: AggregateType, record: BlobId) -> Fields:
        """The fields of a record in the newest version of its type."""
        found = decode_record(self._blob(record))
        if found.type != type.name:
            raise InvalidRecord(
                f"A record of {found.type!r} lies in the collection of {type.name!r}.",
                type=type.name,
                id=None,
                field=None,
                reason="is of another type",
            )
        return to_fields(from_fields(type, upcast(type, found)))


def _blob_of(entry: TreeEntry | None) -> BlobId | None:
    return None if entry is None or entry.is_tree else BlobId(entry.id)
