"""What a workspace does with working folders: its verbs, of which each is told in its own room.

Floor 6. Invariant: nothing is decided here. Any thread; one at a time for one folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike
from threading import Event
from typing import TYPE_CHECKING

from cas.history.store import Store
from cas.later import Later
from cas.limits import FOLDER_NEW_MAX, LEASE_MS
from cas.workspace.artifacts import Artifact
from cas.workspace.checkouts import EXTERNAL, Checkout, checkouts
from cas.workspace.planning import Sprint
from cas.workspace.reading import Collection
from cas.workspace.registry import type_of

if TYPE_CHECKING:
    from cas.workspace import guard
    from cas.workspace.folders import FolderReport, FolderStatus
else:
    # Who has no working folder need not load what walks folders.
    guard = Later("cas.workspace.guard")


class WorkingFolders(ABC):
    """The verbs of working folders, for the workspace on one branch."""

    branch_name: str

    @abstractmethod
    def store_of(self, context: str) -> Store:
        """The store in which a context lives."""

    @abstractmethod
    def check_branch(self) -> None:
        """Raise `RefNotFound` unless this branch of the workspace is there."""

    @property
    @abstractmethod
    def sprints(self) -> Collection[Sprint]:
        """Sprints."""

    @property
    def _files(self) -> Store:
        """The store that working folders are of: where artifacts live."""
        return self.store_of(type_of(Artifact).context)

    def checkout(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        sprint: str | None = None,
        lease_ms: float = LEASE_MS,
        author: str = EXTERNAL,
        new_max: int = FOLDER_NEW_MAX,
    ) -> FolderReport:
        """Have the artifacts of this branch as files in a folder, and keep it in step.

        What stands there already is taken in, as outside changes are by `sync`. `actor` gets a
        lease of so many ms, unless somebody else's still runs: it tells who works there (for
        `sprint`, an id, if said) and refuses nothing. Raises `Invalid`, also for a folder inside
        or around another working folder, `RefNotFound` for a branch that is not there,
        `AggregateNotFound`, and what `sync` raises.
        """
        self.check_branch()
        return guard.check_out(
            self._files,
            self.branch_name,
            folder,
            actor,
            sprint=None if sprint is None else self.sprints.get(sprint).link,
            lease_ms=lease_ms,
            author=author,
            new_max=new_max,
        )

    def status(self, folder: str | PathLike[str]) -> FolderStatus:
        """How a working folder stands to its branch; changes neither. Raises `NotCheckedOut`."""
        return guard.folder_of(self._files, folder).status()

    def sync(
        self,
        folder: str | PathLike[str],
        *,
        author: str = EXTERNAL,
        new_max: int = FOLDER_NEW_MAX,
    ) -> FolderReport:
        """Take in what was changed in a working folder, and bring it up to its branch.

        Everything that stands in it is in the store before anything is overwritten. What both
        sides changed is merged by line; what cannot be is a conflict (`conflicts`, `settle`) that
        holds both contents, while the folder keeps its own. `author` is whose changes they are.
        Raises `NotCheckedOut`; `LimitExceeded` for more than `new_max` new files, and then did
        nothing; what a commit and writing files raise.
        """
        return guard.folder_of(self._files, folder).sync(author=author, new_max=new_max)

    def watch(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        on_report: Callable[[FolderReport], None],
        stop: Event,
        interval_ms: int = 1000,
        author: str = EXTERNAL,
        new_max: int = FOLDER_NEW_MAX,
    ) -> None:
        """`sync` whenever folder or branch changed, and renew the lease, until `stop` is set.

        Changes are told at once where `watchfiles` is installed (the extra `watch`), else looked
        for after each interval. `on_report` is called on this thread.
        """
        guard.watch(
            self._files,
            folder,
            actor,
            on_report,
            stop,
            interval_ms=interval_ms,
            author=author,
            new_max=new_max,
        )

    def release(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        author: str = EXTERNAL,
        new_max: int = FOLDER_NEW_MAX,
    ) -> FolderReport | None:
        """Take in what was changed in a working folder, and let go of it; its files stay.

        None for a folder that is gone. Raises as `sync`.
        """
        return guard.release(self._files, folder, actor, author=author, new_max=new_max)

    def checkouts(self) -> list[Checkout]:
        """All working folders of the store, with their leases."""
        return list(checkouts(self._files))
