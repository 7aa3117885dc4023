"""A working folder: artifacts of a branch as files, and what others do to them taken in.

Floor 6. Invariants: what stands in the folder is in the store, by content and durably, before
anything of it is overwritten; a change that was made in the folder becomes one of the branch, by
the author `external` unless somebody says whose it is, and is never reset away; what both sides
changed is merged three ways, and what stays is a conflict that holds both contents, while the
folder keeps its own. A call that was cut short is made good by the next.

What stood in the folder is the tree of a branch of its own, `checkout-ID`: the base of the next
comparison, and a history of the folder. It is written with what was captured, and again when the
folder was brought up to the branch. One thread uses a folder; processes that meet at one folder
go by that branch, and the later one looks again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from attrs import define, evolve, field, frozen

from cas.errors import (
    AggregateConflict,
    ConditionFailed,
    CorruptObject,
    InvalidName,
    LimitExceeded,
    Purged,
    RefConflict,
    RefNotFound,
    UnsafePath,
    WrongKind,
)
from cas.history.branch import BranchEdit
from cas.history.snapshot import Change, Snapshot
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.limits import FOLDER_NEW_MAX, FOLDER_ROUNDS_MAX, WORK_ATTEMPTS_MAX
from cas.model.entry import Entry
from cas.model.ids import CommitId, TreeId
from cas.model.names import HEADS, Path, join_path, printable, to_text
from cas.trees import paths
from cas.trees.node import DIRECTORY, NodeStore
from cas.workspace.belonging import unexplained
from cas.workspace.capturing import ARTIFACTS, Capture, changes_of, set_entry
from cas.workspace.checkouts import EXTERNAL, Checkout, find_checkout, folder_branch, unit_on
from cas.workspace.layout import CONFLICTS, FILES, context_branch, snapshot_of
from cas.workspace.links import check_id
from cas.workspace.reading import Reader
from cas.workspace.reconcile import Plan, Side, decide
from cas.workspace.work import UnitOfWork
from cas.worktree.below import Below
from cas.worktree.checkout import restore
from cas.worktree.compare import Look, look_at
from cas.worktree.update import Step, update
from cas.worktree.values import Problem


@frozen
class FolderStatus:
    """How a working folder stands to its branch.

    `outside`: changes in the folder that the store does not have. `incoming`: changes of the
    branch that the folder does not have. `both`: paths of both, to be merged. `held`: paths of
    which the folder keeps its own while a conflict is open. `problems`: what cannot be kept.
    """

    checkout: Checkout
    outside: tuple[Change, ...]
    incoming: tuple[Change, ...]
    both: tuple[str, ...]
    held: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def clean(self) -> bool:
        """Whether folder and branch say the same, as far as they can be compared."""
        return not (self.outside or self.incoming or self.held or self.problems)


@frozen
class FolderReport:
    """What bringing a folder and its branch together did.

    `captured`: changes of the folder that the branch has now. `merged`: paths that both had
    changed and that were brought together; `conflicts`: those that were not. `written`: changes
    of the branch that the folder has now. `held` and `problems` as in `FolderStatus`; problems
    are also paths that others kept changing. `entry` is that of what was captured last.
    """

    checkout: Checkout
    captured: tuple[Change, ...]
    merged: tuple[str, ...]
    conflicts: tuple[str, ...]
    written: tuple[Change, ...]
    held: tuple[str, ...]
    problems: tuple[Problem, ...]
    secrets: tuple[str, ...]
    entry: Entry | None


@frozen
class _Sides:
    """The three sides of a folder as of one moment, and the plan for them."""

    checkout: Checkout
    base: bytes
    files: bytes
    folder: Side
    look: Look
    plan: Plan
    problems: tuple[Problem, ...]


@define
class _Done:
    """What was done so far, in all rounds."""

    captured: dict[str, Change] = field(factory=dict)
    merged: dict[str, None] = field(factory=dict)
    conflicts: dict[str, None] = field(factory=dict)
    written: dict[str, Change] = field(factory=dict)
    secrets: dict[str, None] = field(factory=dict)
    entry: Entry | None = None


class Folder:
    """One working folder, by its real path."""

    def __init__(self, store: Store, place: bytes) -> None:
        self._store = store
        self._place = place
        self._nodes: NodeStore = store.objects.tree_nodes(DIRECTORY)

    # -- looking -----------------------------------------------------------------------------

    def status(self) -> FolderStatus:
        """How the folder stands. Raises `NotCheckedOut`, `Invalid`."""
        sides = self._sides()
        plan = sides.plan
        every = (*plan.taken, *(Step(b.path, b.base, b.folder) for b in plan.both))
        there = (*plan.steps, *(Step(b.path, b.base, b.store) for b in plan.both))
        return FolderStatus(
            sides.checkout,
            changes_of(every),
            changes_of(there),
            tuple(join_path(each.path) for each in plan.both),
            tuple(map(join_path, plan.held)),
            sides.problems,
        )

    def check(self, checkout: Checkout, new_max: int) -> None:
        """Whether `sync` would take the folder in as this checkout, which need not exist yet.

        Raises `LimitExceeded` and `RefNotFound` where it would not; does nothing.
        """
        self._check_count(self._sides_of(checkout, new_max).plan, new_max)

    def _sides(self, new_max: int | None = None) -> _Sides:
        return self._sides_of(find_checkout(self._store, self._place), new_max)

    def _sides_of(self, checkout: Checkout, new_max: int | None) -> _Sides:
        """All sides; the look ends with `LimitExceeded` at more than `new_max` new files."""
        base, files = self._roots(checkout)

        def is_known(path: bytes) -> bool:
            return self._is_known(path, base, files)

        look = look_at(
            self._store,
            self._place,
            keep=is_known,
            mark=checkout.id.encode(),
            remember=True,
            on_read=None if new_max is None else self._counter(is_known, new_max),
        )
        problems = list(look.notices.problems)
        folder = self._outside(base, look, problems)
        incoming = _diff(base, files, self._nodes)
        plan = decide(folder, incoming, self._open_conflicts(checkout))
        left = unexplained(self._snapshot(checkout), plan.steps)
        problems.extend(left.values())
        plan = evolve(plan, steps=tuple(step for step in plan.steps if step.path not in left))
        return _Sides(checkout, base, files, folder, look, plan, tuple(problems))

    def _roots(self, checkout: Checkout) -> tuple[bytes, bytes]:
        """Roots of what stood in the folder, and of what the branch has. Raises `RefNotFound`."""
        view = self._store.view()
        own = view.ref(HEADS + folder_branch(checkout.id))
        seen = None if own is None else CommitId(own.target)
        base = bytes(snapshot_of(self._store.core, seen).tree)
        ref = HEADS + context_branch(ARTIFACTS.context, checkout.branch)
        if base != DIRECTORY.empty and view.ref(ref) is None:
            # A branch that was dropped must not look like one from which all was removed.
            raise RefNotFound(
                f"The branch {checkout.branch!r} of {checkout.folder} is gone, or never had an "
                "artifact; check another one out there, or bring it back with `cas undo`. Nothing "
                "was changed.",
                ref=ref,
            )
        entry = self._snapshot(checkout).entry(FILES)
        return base, bytes(entry.id) if entry is not None and entry.is_tree else DIRECTORY.empty

    def _snapshot(self, checkout: Checkout) -> Snapshot:
        reader = Reader(self._store.core, self._store.view(), checkout.branch)
        return reader.snapshot(ARTIFACTS.context)

    def _is_known(self, path: bytes, *roots: bytes) -> bool:
        """Whether a path is one of the checkout's, whatever ignore files say of it."""
        parts = tuple(path.split(b"/"))
        return any(paths.lookup(root, parts, self._nodes) is not None for root in roots)

    def _outside(self, base: bytes, look: Look, problems: list[Problem]) -> Side:
        """What was changed in the folder; what cannot be told is left out and a problem."""
        unclear = {each.path for each in problems} | set(look.notices.stores)
        found = {}
        for path, change in _diff(base, look.root, look.nodes).items():
            old, new = change
            if new is None and unclear and _is_below(join_path(path), unclear):
                continue
            if old is None:
                try:
                    check_id(join_path(path), path=True)
                except InvalidName as error:
                    text = join_path(path)
                    message = (
                        f"{printable(text)}: no artifact can have this name: it {error.reason}"
                    )
                    problems.append(Problem(text, "name", message))
                    continue
            found[path] = change
        return found

    def _open_conflicts(self, checkout: Checkout) -> Callable[[Path], bool]:
        """Whether the artifact at a path has a conflict that is still to be settled."""
        entry = self._snapshot(checkout).entry(f"{CONFLICTS}/{ARTIFACTS.collection}")
        if entry is None or not entry.is_tree:
            return lambda _path: False
        root = bytes(entry.id)

        def is_open(path: Path) -> bool:
            below = paths.list_directory(root, path, self._nodes)
            return any(not each.is_tree for _name, each in below)

        return is_open

    # -- bringing together -------------------------------------------------------------------

    def sync(self, *, author: str = EXTERNAL, new_max: int = FOLDER_NEW_MAX) -> FolderReport:
        """Take in what was changed in the folder, and bring it up to its branch.

        Raises `NotCheckedOut`, `LimitExceeded` (nothing was done), `Invalid`, and what a commit
        and writing files raise.
        """
        done = _Done()
        problems: tuple[Problem, ...] = ()
        held: tuple[Path, ...] = ()
        checkout = find_checkout(self._store, self._place)
        before: tuple[Problem, ...] = ()
        rounds = tries = 0
        while rounds < FOLDER_ROUNDS_MAX:
            sides = self._sides(new_max)
            checkout = sides.checkout
            done.secrets.update(dict.fromkeys(sides.look.notices.secrets))
            self._check_count(sides.plan, new_max)
            try:
                problems = sides.problems + self._capture(sides, author, done)
                left, held = self._bring(sides, done)
            except (RefConflict, AggregateConflict, ConditionFailed, WrongKind):
                # Somebody else was at this folder, or its branch took another shape.
                tries += 1
                if tries == WORK_ATTEMPTS_MAX:
                    raise
                continue
            rounds += 1
            problems += left
            if left == before or not any(each.reason == "changed" for each in left):
                break
            before = left
        return FolderReport(
            checkout,
            tuple(done.captured.values()),
            tuple(done.merged),
            tuple(done.conflicts),
            tuple(done.written.values()),
            tuple(map(join_path, held)),
            problems,
            tuple(done.secrets),
            done.entry,
        )

    def _counter(self, is_known: Callable[[bytes], bool], new_max: int) -> Callable[[bytes], None]:
        """Hears of files as they are read, and ends the look when too many of them are new."""
        new: list[str] = []

        def heard(path: bytes) -> None:
            if is_known(path):
                return
            with suppress(InvalidName):
                new.append(check_id(to_text(path), path=True))
            if len(new) > new_max:
                raise self._too_many(min(new), new_max)

        return heard

    def _check_count(self, plan: Plan, new_max: int) -> None:
        new = [step for step in plan.taken if step.old is None]
        if len(new) > new_max:
            raise self._too_many(new[0].text, new_max)

    def _too_many(self, one: str, new_max: int) -> LimitExceeded:
        return LimitExceeded(
            f"{printable(self._place)} has more than {new_max:,} files that nobody knows, such as "
            f"{printable(one)}; nothing was done. Name what is nobody's work in a .casignore file "
            "there, or allow more with `new_max` (--new-max at the command line).",
            limit="FOLDER_NEW_MAX",
            value=new_max + 1,
            maximum=new_max,
        )

    def _capture(self, sides: _Sides, author: str, done: _Done) -> tuple[Problem, ...]:
        """Make what was changed in the folder a commit of its branch, and of the folder's own."""
        plan, checkout = sides.plan, sides.checkout
        if not (plan.outside or plan.equal):
            return ()
        message = f"changes in {checkout.folder}"
        with unit_on(self._store, checkout.branch, author, message) as uow:
            own = self._own(uow.transaction, checkout, sides.base)
            files = self._files_of(uow)
            if files != sides.files:
                # The branch moved since it was looked at: what came must not be written over.
                incoming = _diff(sides.base, files, self._nodes)
                plan = decide(sides.folder, incoming, self._open_conflicts(checkout))
            for step in plan.equal:
                set_entry(own, step.path, step.new)
            if plan.outside:
                work = Capture(uow, own, checkout, plan, files, self._nodes)
                with closing(Below(self._place)) as below:
                    work.read(below)
                work.stage()
                work.tell()
            entry = uow.commit()
        if not plan.outside:
            return ()
        done.entry = entry
        done.captured.update((each.path, each) for each in changes_of(work.taken))
        done.merged.update(dict.fromkeys(work.merged))
        done.conflicts.update(dict.fromkeys(work.conflicts))
        return tuple(work.problems)

    def _bring(self, sides: _Sides, done: _Done) -> tuple[tuple[Problem, ...], tuple[Path, ...]]:
        """Write into the folder what its branch has and it has not; (what was left, held)."""
        checkout = sides.checkout
        base, files = self._roots(checkout)
        plan = decide({}, _diff(base, files, self._nodes), self._open_conflicts(checkout))
        stays = unexplained(self._snapshot(checkout), plan.steps)
        steps = tuple(step for step in plan.steps if step.path not in stays)
        if not steps:
            return (), plan.held
        left: tuple[Problem, ...] = ()
        if base != DIRECTORY.empty or sides.look.root != base or plan.held or not self._fill(files):
            updated = update(self._store.objects, self._place, steps)
            steps, left = updated.done, updated.left
        message = f"{checkout.folder} as {ARTIFACTS.context}/{checkout.branch}"
        with self._store.begin(author=checkout.holder, message=message) as tx:
            own = self._own(tx, checkout, base)
            if len(steps) == len(plan.steps) and not plan.held:
                own.put_tree(TreeId(files))
            else:
                for step in steps:
                    set_entry(own, step.path, step.new)
            tx.commit()
        done.written.update((each.path, each) for each in changes_of(steps))
        return left, plan.held

    def _files_of(self, uow: UnitOfWork) -> bytes:
        """Root of the files that a unit of work begins from."""
        base = uow.edit(ARTIFACTS.context).base
        commit = None if base is None else CommitId(base.target)
        entry = snapshot_of(self._store.core, commit).entry(FILES)
        return bytes(entry.id) if entry is not None and entry.is_tree else DIRECTORY.empty

    def _own(self, tx: Transaction, checkout: Checkout, base: bytes) -> BranchEdit:
        """The folder's own branch, if it still is what was looked at. Raises `RefConflict`."""
        own = tx.branch(folder_branch(checkout.id), on_move="conflict")
        if own.tree != base:
            raise RefConflict(
                f"Somebody else brought {checkout.folder} up meanwhile; look again.",
                ref=own.ref,
                expected=TreeId(base),
                actual=TreeId(own.tree),
            )
        return own

    def _fill(self, files: bytes) -> bool:
        """Fill an empty folder the fast way; False where single files have to be judged."""
        tree = Snapshot(self._store.objects, TreeId(files), None, None)
        try:
            restore(self._store, tree, "", os.fsdecode(self._place))
        except (UnsafePath, CorruptObject, Purged):
            return False
        os.sync()  # what is noted has to be there after a power cut, and a restore syncs nothing
        return True


def _diff(old: bytes, new: bytes, nodes: NodeStore) -> dict[Path, Any]:
    return {path: (before, after) for path, before, after in paths.diff_paths(old, new, nodes)}


def _is_below(path: str, places: set[str]) -> bool:
    """Whether a path is one of these, or lies below one."""
    at = len(path)
    while at > 0:
        if path[:at] in places:
            return True
        at = path.rfind("/", 0, at)
    return "" in places
