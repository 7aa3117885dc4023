"""Salvage: everything of a store that can be read, copied into a new one.

Floor 5; implements docs/design/015. Invariant: the source is read and never written; what is copied
was hashed, and in the new store everything that exists is whole. What could not be copied is told.
What was purged or thinned on purpose is so there too, for the same reason, and not lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from attrs import frozen

from cas.clock import Clock
from cas.errors import CannotRepair, CasError, StoreNotFound
from cas.history.horizon import Thinning, read_horizon, thinned_commits, thinning_of
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.tombstones import Tombstone, stage_tombstones, tombstones_below
from cas.history.transaction import Transaction
from cas.limits import ID_BYTES
from cas.maintenance.newstore import refuse_taken
from cas.maintenance.repair.admission import admit
from cas.maintenance.repair.evidence import Evidence, Folder, gather
from cas.maintenance.repair.rebuild import (
    Rebuild,
    core_of,
    plan_rebuild,
    purged_by,
    thinned_by,
)
from cas.model.ids import CommitId, Kind, ObjectId, TreeId
from cas.model.names import HORIZON_REF, PURGED_REF, short_ref
from cas.model.objects import Commit, EntryKind, Tag
from cas.objects.batch import Batch
from cas.storage.codec import RECIPE
from cas.trees.node import DIRECTORY, NodeStore

SALVAGED: Final = "heads/salvaged/"
"""Where files of a branch go whose history is not whole."""

_KEPT_MAX: Final = 1000
_SKIPPED: Final = frozenset((int(Kind.REFS), int(Kind.SEGMENT)))


@frozen
class SalvageReport:
    """What was copied, and what was not. `refs` stand as they were; `partial` are branches of
    which the readable files are one commit below `salvaged/`; `lost_refs` have nothing. `lost`
    are objects that could not be read, `lost_paths` files (`main:docs/a.md`) that miss there;
    of both the first thousand.
    """

    object_count: int
    refs: tuple[str, ...]
    partial: tuple[str, ...]
    lost_refs: tuple[str, ...]
    lost_count: int
    lost: tuple[ObjectId, ...]
    lost_paths: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all of it could be copied."""
        return not (self.lost_count or self.partial or self.lost_refs)


def salvage(
    path: str,
    target: str,
    clock: Clock,
    open_store: Callable[..., Store],
    *,
    prefer: str = "",
) -> SalvageReport:
    """Copy what can be read at `path` into a new store at `target`. Raises `StoreNotFound`,
    `CannotRepair` where packs disagree on the journal, `NotAStore` where `target` is taken, and
    for it what `cas.open` does.
    """
    refuse_taken(target)
    folder = Folder(os.path.abspath(path))
    evidence = gather(folder, clock) if os.path.exists(folder.packs) else None
    if evidence is None:
        raise StoreNotFound(f"There is nothing of a store at {folder.path}.", path=folder.path)
    try:
        loose = True if evidence.live is None else None
        plan = plan_rebuild(evidence, prefer=prefer, keep_loose=loose, accept_loss=True)
        if plan.refs is None:
            raise CannotRepair(
                f"The packs at {folder.path} hold journals that disagree; look which is right "
                "with `cas repair --dry-run`, and name its hash with `--tip`.",
                path=folder.path,
            )
        with open_store(target, create=True) as store:
            return _Copy(evidence, plan, store).run()
    finally:
        evidence.objects.close()


class _Copy:
    def __init__(self, evidence: Evidence, plan: Rebuild, target: Store) -> None:
        self._evidence = evidence
        self._objects = evidence.objects
        self._plan = plan
        self._target = target
        self._lost: set[bytes] = set(plan.admission.missing)
        self._lost_paths: list[str] = []
        self._count = 0
        self._admitted = plan.admission.admitted
        assert plan.refs is not None
        self._state = plan.refs.state
        # What a readable catalog says was given up is not copied, nor what was purged.
        self._unwanted = evidence.dead | purged_by(evidence, plan.refs)

    def run(self) -> SalvageReport:
        """Objects first, then the refs that lead to them in one transaction."""
        with self._target.objects.batch() as batch:
            self._copy_objects(batch)
        admitted = self._admitted
        whole: dict[str, ObjectId] = {}
        broken: dict[str, tuple[int, bytes]] = {}
        for ref, (kind, id, _seq) in sorted(self._state.items()):
            if not ref.startswith(("heads/", "tags/")):
                continue
            if id in admitted and self._target.has(ObjectId(id)):
                whole[ref] = ObjectId(id)
            else:
                broken[ref] = kind, id
        partial = [ref for ref, value in broken.items() if self._files_of(ref, *value)]
        stones, thinnings = self._tombstones(), self._thinnings()
        if whole or stones:
            with self._target.begin(author="cas salvage", message="what could be read") as tx:
                for ref, target in whole.items():
                    tx.move(ref, target)
                if stones:
                    self._bury(tx, stones)
                if thinnings:
                    stage_raise(self._target.core, tx, 0, thinnings)
                tx.commit()
        return SalvageReport(
            self._count,
            tuple(map(short_ref, whole)),
            tuple(map(short_ref, partial)),
            tuple(short_ref(ref) for ref in broken if ref not in partial),
            len(self._lost),
            tuple(ObjectId(id) for id in sorted(self._lost)[:_KEPT_MAX]),
            tuple(self._lost_paths[:_KEPT_MAX]),
        )

    def _copy_objects(self, batch: Batch) -> None:
        """Blobs first: of what names one that cannot be read, nothing is taken as it is."""
        self._copy_kinds(batch, blobs=True)
        found = self._evidence.found
        if self._lost:
            found.exist.difference_update(self._lost)
            found.recipes[:] = [row for row in found.recipes if row[0] not in self._lost]
            assert self._plan.refs is not None
            evidence, refs = self._evidence, self._plan.refs
            admission = admit(found, thinned_by(evidence, refs), purged_by(evidence, refs))
            self._admitted = admission.admitted
        self._copy_kinds(batch, blobs=False)

    def _copy_kinds(self, batch: Batch, *, blobs: bool) -> None:
        admitted = self._admitted
        done: set[bytes] = set()
        for source in self._evidence.found.sources:
            for slot in source.footer.slots():
                id = slot.id
                if (slot.kind == Kind.BLOB) != blobs or slot.kind in _SKIPPED:
                    continue
                if id in done or id in self._unwanted or id not in admitted:
                    continue
                done.add(id)
                try:
                    if slot.codec == RECIPE:
                        with self._objects.open(id) as stream:
                            self._target.core.put_content(batch, stream)
                    else:
                        kind, content = self._objects.read(id)
                        batch.add(id, kind, content)
                    self._count += 1
                except CasError:
                    self._lost.add(id)

    # -- what was given up -----------------------------------------------------------------------

    def _tombstones(self) -> dict[bytes, Tombstone]:
        """What was purged, as far as it can be read."""
        found: dict[bytes, Tombstone] = {}
        value = self._state.get(PURGED_REF)
        with suppress(CasError):
            if value is not None:
                for stone in tombstones_below(core_of(self._evidence), value[1]):
                    found[bytes(stone.id)] = stone
        return found

    def _bury(self, tx: Transaction, stones: Mapping[bytes, Tombstone]) -> None:
        core = self._target.core
        moment = core.timeline.now()

        def stage(batch: Batch) -> ObjectId:
            return stage_tombstones(core, batch, moment, stones, tx.author, tx.message)

        tx.move(PURGED_REF, tx.stage(stage))

    def _thinnings(self) -> dict[CommitId, Thinning]:
        """Which of the commits that were copied are thinned, as far as it can be read."""
        found: dict[CommitId, Thinning] = {}
        value = self._state.get(HORIZON_REF)
        with suppress(CasError):
            if value is not None:
                core = core_of(self._evidence)
                horizon = read_horizon(core, None, value[1])
                for id in thinned_commits(core, horizon):
                    thinning = thinning_of(core, horizon, id)
                    if thinning is not None and self._target.has(id):
                        found[id] = thinning
        return found

    # -- refs that are not whole -----------------------------------------------------------------

    def _files_of(self, ref: str, kind: int, id: bytes) -> bool:
        """Commit the readable files of a ref as one commit; False where there is none."""
        name = SALVAGED + ref.partition("/")[2]
        try:
            if kind == Kind.TAG:
                id = Tag.decode(self._objects.get(id, Kind.TAG), verified=True).target
            commit = Commit.decode(self._objects.get(id, Kind.COMMIT), verified=True)
        except CasError:
            return False
        nodes = self._objects.tree_nodes(DIRECTORY)
        with self._target.begin(
            author=commit.author, message=f"salvaged of {short_ref(ref)}: {commit.message}"
        ) as tx:
            edit = tx.branch(name)
            found = False
            for path, entry_kind, blob in self._walk(nodes, commit.tree, b"", short_ref(ref)):
                try:
                    content = self._objects.read(blob)[1]
                except CasError:
                    self._miss(short_ref(ref), path, blob)
                    continue
                edit.put(path, content, kind=EntryKind(entry_kind))
                found = True
            if found:
                tx.commit()
        return found

    def _walk(
        self, nodes: NodeStore, tree: TreeId | bytes, prefix: bytes, ref: str
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(path, kind, blob) of every file below a directory, as far as its nodes can be read."""
        waiting = [(bytes(tree), prefix)]
        while waiting:
            id, above = waiting.pop()
            try:
                node = nodes.load(id)
            except CasError:
                self._miss(ref, above or b".", id)
                continue
            for at, name in enumerate(node.names):
                child = node.ids[at * ID_BYTES : (at + 1) * ID_BYTES]
                if node.level:
                    waiting.append((child, above))
                elif node.tags[at] == EntryKind.TREE:
                    waiting.append((child, above + name + b"/"))
                else:
                    yield above + name, int(node.tags[at]), child

    def _miss(self, ref: str, path: bytes, id: bytes) -> None:
        self._lost.add(id)
        with suppress(UnicodeError):
            self._lost_paths.append(f"{ref}:{os.fsdecode(path)}")
