"""Changes of a working folder on their way into a unit of work.

Floor 6. Invariant: a content is read from the folder once, into the transaction that makes it a
version of its artifact and part of the folder's own branch, so that both have it or neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cas.history.branch import BranchEdit
from cas.history.snapshot import Change, classify
from cas.model.ids import BlobId, Kind
from cas.model.names import Path, join_path, printable
from cas.model.objects import EntryKind, TreeEntry
from cas.trees import paths
from cas.trees.node import NodeStore
from cas.workspace.artifacts import Artifact
from cas.workspace.checkouts import Checkout
from cas.workspace.codec import to_record
from cas.workspace.contexts import Context
from cas.workspace.layout import FILES
from cas.workspace.reconcile import Both, Plan, shape_clash
from cas.workspace.registry import type_of
from cas.workspace.work import UnitOfWork
from cas.worktree.below import Below
from cas.worktree.taking import take
from cas.worktree.update import Step
from cas.worktree.values import Problem

ARTIFACTS: Final = type_of(Artifact)
_NAMES_TOLD: Final = 100


class Capture:
    """One capture: `read`, `stage`, `tell`, then the commit. One thread."""

    def __init__(
        self,
        uow: UnitOfWork,
        own: BranchEdit,
        checkout: Checkout,
        plan: Plan,
        files: bytes,
        nodes: NodeStore,
    ) -> None:
        """`own` is the folder's branch in the unit's transaction, `files` the root of what the
        branch of the workspace has.
        """
        self._uow = uow
        self._own = own
        self._checkout = checkout
        self._plan = plan
        self._files = files
        self._nodes = nodes
        # What was read, None: it is gone.
        self._read: dict[Path, TreeEntry | None] = {}
        self.problems: list[Problem] = []
        self.taken: list[Step] = []
        self.merged: list[str] = []
        self.conflicts: list[str] = []

    def read(self, below: Below) -> None:
        """Take the contents of all that changed into the folder's own branch."""
        plan, own = self._plan, self._own
        every = [(step.path, step.new) for step in plan.taken]
        every += [(each.path, each.folder) for each in plan.both]
        removed = frozenset(step.path for step in plan.taken if step.new is None)
        declared = self._uow.declared(ARTIFACTS.context)
        for path, new in every:
            if new is None:
                own.drop(b"/".join(path))
                self._read[path] = None
                continue
            reason = shape_clash(path, removed, self._entry_at, self._files_below)
            reason = reason or _too_long(declared, new.size)
            if reason is not None:
                text = join_path(path)
                self.problems.append(Problem(text, "refused", f"{printable(text)}: {reason}"))
                continue
            name = b"/".join(path)

            def put(content: Any, kind: EntryKind, name: bytes = name) -> None:
                own.put(name, content, kind=kind)

            problem = take(below, path, put)
            if problem is not None:
                own.unstage(name)
                self.problems.append(problem)
                continue
            value = own.staged[path]
            assert value is not None
            self._read[path] = paths.to_entry(value)

    def _entry_at(self, path: Path) -> TreeEntry | None:
        return paths.lookup(self._files, path, self._nodes)

    def _files_below(self, path: Path) -> Iterable[Path]:
        entry = self._entry_at(path)
        assert entry is not None
        return (below for below, _ in paths.walk(entry.id, self._nodes, prefix=path))

    def stage(self) -> None:
        """Make artifacts of what was read: removals first, so that names become free."""
        artifacts = self._uow.artifacts
        files = self._uow.edit(ARTIFACTS.context)
        taken = [step for step in self._plan.taken if step.path in self._read]
        for step in taken:
            if self._read[step.path] is None:
                if artifacts.find_one(step.text) is not None:
                    artifacts.remove(step.text)
                files.drop(f"{FILES}/{step.text}")
                self.taken.append(step)
        for step in taken:
            entry = self._read[step.path]
            if entry is not None:
                artifacts.put_entry(step.text, entry)
                self.taken.append(Step(step.path, step.old, entry))
        for each in self._plan.both:
            if each.path in self._read:
                self._merge(each, self._read[each.path])

    def _merge(self, both: Both, incoming: TreeEntry | None) -> None:
        """Merge an artifact that folder and store changed, by the rules of its type."""
        name = join_path(both.path)
        settler = self._uow.settler(ARTIFACTS.context)
        current = self._uow.artifacts.find_one(name)
        model = current or Artifact(id=name, content=BlobId(bytes(32)), size_bytes=0)
        sides = [self._record(model, each) for each in (both.base, incoming)]
        kept = len(settler.kept)
        stands = None if current is None else current.origin
        settler.stage_merged(ARTIFACTS, name, sides[0], stands, sides[1])
        self._keep_kind(both, incoming, name)
        self.taken.append(Step(both.path, both.base, incoming))
        (self.conflicts if len(settler.kept) > kept else self.merged).append(name)

    def _record(self, model: Artifact, entry: TreeEntry | None) -> BlobId | None:
        """The record that an artifact would have with this content."""
        if entry is None:
            return None
        made = to_record(model.evolve(content=BlobId(entry.id), size_bytes=entry.size))
        staged = self._uow.transaction.stage(lambda batch: BlobId(batch.put(Kind.BLOB, made)))
        return BlobId(staged)

    def _keep_kind(self, both: Both, incoming: TreeEntry | None, name: str) -> None:
        """What a file is (executable, link) is merged beside its content."""
        files = self._uow.edit(ARTIFACTS.context)
        found = files.entry(f"{FILES}/{name}")
        if found is None or incoming is None:
            return
        before = None if both.base is None else both.base.kind
        mine = both.store.kind if both.store is not None else before
        kind = incoming.kind if incoming.kind != before or mine is None else mine
        if EntryKind.LINK in (kind, mine):
            kind = incoming.kind if found.id == incoming.id else (mine or kind)
        if found.kind != kind:
            files.put_entry(f"{FILES}/{name}", TreeEntry(kind, found.id, found.size))

    def tell(self) -> None:
        """The event that says what was captured."""
        checkout = self._checkout
        changed = changes_of(self.taken)
        data: dict[str, Any] = {
            "checkout": checkout.id,
            "folder": checkout.folder,
            "holder": checkout.holder,
            "count": len(changed),
            "paths": [each.path for each in changed[:_NAMES_TOLD]],
            "conflicts": self.conflicts[:_NAMES_TOLD],
        }
        about = checkout.sprint or checkout.link
        self._uow.event("folder.changed", data, about=about, context=ARTIFACTS.context)


def _too_long(declared: Context | None, size_bytes: int) -> str | None:
    """Why a file is no artifact here, for its length: it stays in the folder, and is told."""
    maximum = None if declared is None else declared.artifact_bytes_max
    if maximum is None or size_bytes <= maximum:
        return None
    return f"it has {size_bytes} bytes, and the context of artifacts allows {maximum}"


def set_entry(edit: BranchEdit, path: Path, entry: TreeEntry | None) -> None:
    """Stage an entry at a path, or its removal."""
    if entry is None:
        edit.drop(b"/".join(path))
    else:
        edit.put_entry(b"/".join(path), entry)


def changes_of(steps: Iterable[Step]) -> tuple[Change, ...]:
    """Steps as changes, in order of path."""
    every = sorted(steps, key=lambda step: step.path)
    return tuple(classify(step.text, step.old, step.new) for step in every)
