"""Repair: look first, say what would be done, then do it; and again, with nothing left to do.

Floor 5; implements docs/design/015. Invariant: a plan writes nothing; applying it leaves everything
readable that was readable before, whatever a crash leaves of it; what cannot be made good is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen

from cas.catalog.catalog import PackRow
from cas.clock import Clock
from cas.errors import (
    CannotRepair,
    CasError,
    Corrupt,
    NewerFormat,
    NotAStore,
    StoreNotFound,
)
from cas.history.store import Store
from cas.maintenance.findings import (
    REBUILD,
    REPAIRS,
    Finding,
    OnProgress,
    Progress,
    Severity,
)
from cas.maintenance.fsck.check import examine
from cas.maintenance.repair import mend as mending
from cas.maintenance.repair.evidence import Folder, gather
from cas.maintenance.repair.lineages import Tip
from cas.maintenance.repair.mend import Mend, plan_mend
from cas.maintenance.repair.origins import Origin, origin_at
from cas.maintenance.repair.rebuild import Rebuild, plan_rebuild
from cas.maintenance.repair.renewal import carry_out, finish, is_unfinished
from cas.model.ids import Kind, ObjectId, digest_of
from cas.model.names import count, short_ref
from cas.model.segment import Segment
from cas.objects.packs import file_name, read_footer
from cas.storage.bucket import Bucket
from cas.storage.codec import decode_payload
from cas.storage.pack import Footer
from cas.storage.place import bucket_in

_SHOWN: Final = 1000
_HEADS: Final = 5
_MISSING: Final = "pack-missing"

OpenStore = Callable[..., Store]


@frozen
class Action:
    """One thing that a repair would do. `kind` is stable: finish-rebuild, rebuild-catalog,
    rescue-pack, bring-back-pack, replace-object, renew-archive, accept-loss.
    """

    kind: str
    subject: str
    message: str


@define
class RepairPlan:
    """What is wrong, what would be done, and what would stay lost. Close it, or use `with`.

    `blocked` says why nothing can be done as it stands, each with the next step. `unmended` are
    findings of damage that this plan leaves as they are. `lost` names what nobody has; `loose`
    what exists and no entry leads to, which a rebuild gives up. `tips` are the newest entries of
    journals that disagree.
    """

    place: str
    findings: tuple[Finding, ...] = ()
    actions: tuple[Action, ...] = ()
    blocked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unmended: tuple[Finding, ...] = ()
    lost: tuple[ObjectId, ...] = ()
    lost_count: int = 0
    loose: tuple[ObjectId, ...] = ()
    tips: tuple[Tip, ...] = ()
    entry_count: int = 0
    object_count: int = 0
    _apply: Callable[[], None] = field(default=lambda: None, repr=False, eq=False)
    _close: Callable[[], None] = field(default=lambda: None, repr=False, eq=False)

    def __enter__(self) -> RepairPlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.actions)

    def apply(self) -> None:
        """Do it. Raises `CannotRepair` where something is in the way, `NotAsExpected` when the
        store has changed since, `StorageFull`, `StorageFailed`; then nothing readable is lost,
        and it may be tried again.
        """
        if self.blocked:
            raise CannotRepair(" ".join(self.blocked), path=self.place)
        if self.actions:
            self._apply()

    def close(self) -> None:
        """Give up what the plan holds open."""
        self._close()


@frozen
class Wishes:
    """What the caller wants of a repair."""

    sources: tuple[str, ...] = ()
    prefer: str = ""
    upto: int | None = None
    keep_loose: bool | None = None
    accept_loss: bool = False
    rebuild: bool = False


def plan_repair(
    path: str, wishes: Wishes, clock: Clock, open_store: OpenStore, progress: OnProgress = None
) -> RepairPlan:
    """Look at the store at `path` and plan. Raises `StoreNotFound`, `NotAStore`, `NewerFormat`."""
    folder = Folder(os.path.abspath(path))
    if is_unfinished(folder):
        action = Action("finish-rebuild", folder.catalog, "Give the rebuilt catalog its name.")
        return RepairPlan(folder.path, actions=(action,), apply=lambda: finish(folder, clock))
    reason = "it was asked for" if wishes.rebuild else why_rebuild(folder, clock, open_store)
    if reason is not None:
        return _rebuilding(folder, reason, wishes, clock, progress)
    return _mending(folder, wishes, clock, open_store, progress)


# -- the catalog -------------------------------------------------------------------------------


def why_rebuild(folder: Folder, clock: Clock, open_store: OpenStore) -> str | None:
    """Why the catalog cannot serve, None if it can. Raises `NewerFormat`, `StoreNotFound`,
    `NotAStore` for a folder that never was a store.
    """
    if not os.path.exists(folder.catalog):
        if not os.path.exists(folder.packs):
            if os.path.isdir(folder.path) and os.listdir(folder.path):
                raise NotAStore(f"{folder.path} is not a store.", path=folder.path)
            raise StoreNotFound(f"There is no store at {folder.path}.", path=folder.path)
        return "the catalog is missing"
    try:
        with open_store(folder.path, read_only=True) as store:
            catalog = store.objects.catalog
            faults = list(catalog.check())
            if faults:
                return f"the catalog is damaged ({faults[0].rstrip('.')})"
            with catalog.read() as reader:
                head = reader.head()
                names = {row.name for row in reader.packs() if row.name is not None}
                reader.sessions()
                reader.vectors()
                after = 0
                while rows := reader.entries(after, 1024):
                    after = rows[-1].seq
            store.view().refs()
            behind = _newest_mirror(folder, clock, names, store.objects.meta.store_id)
            if behind > head.seq:
                return (
                    f"the catalog ends at entry {head.seq}, and packs hold the journal up to entry "
                    f"{behind}: it is an old one that was put back"
                )
    except NewerFormat:
        raise
    except (Corrupt, NotAStore) as error:
        return f"the catalog cannot be used ({str(error).rstrip('.')})"
    return None


def _newest_mirror(folder: Folder, clock: Clock, names: set[bytes], store_id: bytes) -> int:
    """Seq of the newest entry in segments of pack files that the catalog does not name."""
    bucket = bucket_in(folder.path, clock)
    known = {file_name(name) for name in names}
    newest = 0
    try:
        for file in sorted(found.name for found in bucket.list()):
            if file in known:
                continue
            try:
                header, footer = read_footer(bucket, file)
            except CasError:
                continue
            if header.store_id != store_id:
                continue
            newest = max([newest, *_ends_of_segments(bucket, file, footer)])
    finally:
        bucket.close()
    return newest


def _ends_of_segments(bucket: Bucket, file: str, footer: Footer) -> Iterator[int]:
    for slot in footer.slots():
        if slot.kind == Kind.SEGMENT:
            with suppress(CasError):
                payload = bucket.read(file, slot.payload_offset, slot.stored_bytes)
                content = decode_payload(slot.codec, payload, slot.raw_bytes)
                if digest_of(Kind.SEGMENT, content) == slot.id:
                    yield Segment.decode(content).last_seq


def _rebuilding(
    folder: Folder, reason: str, wishes: Wishes, clock: Clock, progress: OnProgress
) -> RepairPlan:
    def tell(phase: str, _what: str) -> None:
        if progress is not None:
            progress(Progress(phase, 0, 0, 0))

    evidence = gather(folder, clock, tell)
    if evidence is None:
        return RepairPlan(
            folder.path,
            blocked=(
                f"A catalog is needed, because {reason}, and no pack file in {folder.packs} says "
                "what store this was: restore a backup.",
            ),
        )
    rebuild = plan_rebuild(
        evidence,
        prefer=wishes.prefer,
        upto=wishes.upto,
        keep_loose=wishes.keep_loose,
        accept_loss=wishes.accept_loss,
    )
    tip = rebuild.tip
    if rebuild.disagreement is not None:
        tips = rebuild.disagreement.tips
        return RepairPlan(
            folder.path,
            blocked=(
                f"A catalog is needed, because {reason}, and packs hold journals that disagree, up "
                + " and ".join(f"to entry {t.seq} ({t.hash.hex()[:16]}, {t.source})" for t in tips)
                + ". Look which one is right and name its hash with `--tip`.",
            ),
            tips=tips,
        )
    return RepairPlan(
        folder.path,
        actions=tuple(_rebuild_actions(rebuild, reason, wishes)),
        blocked=tuple(_rebuild_blocks(rebuild, wishes)),
        notes=tuple(_rebuild_notes(rebuild)),
        lost=tuple(ObjectId(id) for id in sorted(rebuild.admission.missing)[:_SHOWN]),
        lost_count=len(rebuild.admission.missing),
        loose=rebuild.loose,
        entry_count=0 if tip is None else tip.seq,
        object_count=rebuild.object_count,
        apply=lambda: carry_out(rebuild, clock),
        close=evidence.objects.close,
    )


def _rebuild_actions(rebuild: Rebuild, reason: str, wishes: Wishes) -> Iterator[Action]:
    evidence, tip = rebuild.evidence, rebuild.tip
    where = f"up to entry {tip.seq}" if tip is not None and tip.seq else "without any entry"
    yield Action(
        "rebuild-catalog",
        evidence.folder.catalog,
        f"Make the catalog from {count(len(evidence.packs), 'pack')}, because {reason}: "
        f"{count(rebuild.object_count, 'object')}, the journal {where}.",
    )
    for file in evidence.damaged:
        yield Action("rescue-pack", file, f"Gather the whole records of {file} in a new pack.")
    if wishes.accept_loss and rebuild.admission.missing:
        lost = count(len(rebuild.admission.missing), "object")
        yield Action("accept-loss", "", f"Go on without {lost} named and lost.")


def _rebuild_blocks(rebuild: Rebuild, wishes: Wishes) -> Iterator[str]:
    if rebuild.undecided:
        yield (
            "Packs hold objects that no entry of the journal in them leads to "
            f"({rebuild.given_up_count}), and with the catalog went what says which of them were "
            "given up. Put the catalog back if there is a copy of it; or run `cas repair` with "
            "`--keep-loose` to keep all that are whole, or with `--drop-loose` to leave them out."
        )
    if rebuild.broken and not wishes.accept_loss:
        names = ", ".join(short_ref(ref) for ref in rebuild.broken[:5])
        more = ", …" if len(rebuild.broken) > 5 else ""
        whole = rebuild.mirrored_seq
        tip = rebuild.tip
        earlier = (
            f", `--to {whole}` to go back to the newest entry that packs hold with all it names"
            if tip is not None and 0 < whole < tip.seq
            else ""
        )
        yield (
            f"{names}{more} would lack objects that no pack holds. Bring their packs back; or run "
            f"`cas repair` with `--accept-loss` to keep what can be read{earlier}."
        )


def _rebuild_notes(rebuild: Rebuild) -> Iterator[str]:
    journal, evidence = rebuild.journal, rebuild.evidence
    assert journal is not None
    if not evidence.remains.is_store:
        yield (
            "What was committed behind the last entry that packs hold is gone with the catalog, "
            "and so is what was put and never committed."
        )
    if journal.gap is not None:
        yield f"Entries {journal.gap[0]} to {journal.gap[1]} of the journal are lost."
    if rebuild.refs is not None and not rebuild.refs.proved:
        yield "The refs cannot be proved by the newest entry's root: entries before it are lost."
    if rebuild.returned_count:
        yield (
            f"Objects that the old catalog had given up come back ({rebuild.returned_count}); gc "
            "gives them up again once their grace is over."
        )
    if rebuild.given_up_count and not rebuild.undecided:
        yield (
            f"{rebuild.given_up_count} objects that no entry leads to stay out. Run "
            "`cas repair --rebuild --keep-loose` to have them, as long as gc has not been at work."
        )
    if rebuild.heads and (rebuild.undecided or rebuild.heads[0] in rebuild.alive):
        ids = ", ".join(str(id) for id in rebuild.heads[:_HEADS])
        more = ", …" if len(rebuild.heads) > _HEADS else ""
        yield (
            "Commits among the objects that no entry leads to, and that no other commit goes on "
            f"from: {ids}{more}. Once they are kept, `cas branch NAME ID` gives one a branch."
        )
    for file in evidence.foreign:
        yield f"{file} was written for another store and stays out."
    for file in evidence.unreadable:
        yield f"{file} cannot be read and stays out."


# -- a catalog that serves ---------------------------------------------------------------------


def _mending(
    folder: Folder, wishes: Wishes, clock: Clock, open_store: OpenStore, progress: OnProgress
) -> RepairPlan:
    origins: list[Origin] = []
    store = open_store(folder.path, read_only=True)
    try:
        for source in wishes.sources:
            origins.append(origin_at(source, clock, lambda path: open_store(path, read_only=True)))
        found = examine(store, progress=progress)
        plan = plan_mend(store, found, origins)
    except BaseException:
        _close_all(origins)
        raise
    finally:
        store.close()
    unmended = _unmended(found.report.findings, {_file_of(row) for row in plan.absent})
    lost = [*plan.left, *(id for id in found.lost if id not in plan.left and not _gets(plan, id))]

    def apply() -> None:
        with open_store(folder.path) as writable:
            mending.carry_out(writable, found, plan, origins)

    return RepairPlan(
        folder.path,
        findings=found.report.findings,
        actions=tuple(_mend_actions(plan)),
        notes=(*_mend_notes(plan), *_unmended_notes(unmended)),
        unmended=unmended,
        lost=tuple(ObjectId(id) for id in sorted(set(lost))[:_SHOWN]),
        lost_count=len(set(lost)),
        entry_count=found.report.entry_count,
        object_count=found.report.object_count,
        apply=apply,
        close=lambda: _close_all(origins),
    )


def _unmended(findings: Sequence[Finding], absent: set[str]) -> tuple[Finding, ...]:
    """Damage that no copy of an object makes good, and no pack that somebody has."""
    bad = [each for each in findings if each.severity in (Severity.LOSS, Severity.DAMAGE)]
    return tuple(
        [
            each
            for each in bad
            if REPAIRS.get(each.code, REBUILD) == REBUILD
            or (each.code == _MISSING and each.subject in absent)
        ]
    )


def _file_of(row: PackRow) -> str:
    return file_name(row.name) if row.name is not None else f"inline pack {row.number}"


def _gets(plan: Mend, id: bytes) -> bool:
    return any(id == fresh for fresh, _source in plan.contents)


def _close_all(origins: Sequence[Origin]) -> None:
    for origin in origins:
        origin.close()


def _mend_actions(plan: Mend) -> Iterator[Action]:
    for row, origin in plan.files:
        file = file_name(row.name or b"")
        yield Action("bring-back-pack", file, f"Bring {file} back from {origin.label}.")
    for pack in plan.packs:
        yield Action(
            "rescue-pack", pack.label, f"Gather the whole records of {pack.label} in a new pack."
        )
    for id, source in plan.contents[:_SHOWN]:
        yield Action("replace-object", id.hex(), f"Write {id.hex()} anew, from {source}.")
    if len(plan.contents) > _SHOWN:
        more = len(plan.contents) - _SHOWN
        yield Action("replace-object", "", f"Write {more} more objects anew.")
    for held in plan.single:
        span = f"entries {held.first_seq} to {held.last_seq}"
        yield Action("renew-archive", held.segment.hex(), f"Write {span} into a second pack again.")


def _mend_notes(plan: Mend) -> Iterator[str]:
    for row in plan.absent:
        yield (
            f"{_file_of(row)} is missing; name a store, backup or folder that may have it with "
            f"`--from`. Where nothing is lost with it, or nobody has it, `{REBUILD}` goes on "
            "without it."
        )
    if plan.left:
        yield f"{len(plan.left)} objects are nowhere to be had; `--from` names further places."


def _unmended_notes(findings: Sequence[Finding]) -> Iterator[str]:
    anew = [each for each in findings if each.code in REPAIRS and each.code != _MISSING]
    if anew:
        yield (
            f"{anew[0].message} Such findings ({len(anew)}) need a catalog that is made anew: "
            f"`{REBUILD}`."
        )
    rest = [each for each in findings if each.code not in REPAIRS]
    if rest:
        yield f"{rest[0].message} For such findings ({len(rest)}) there is no command."
