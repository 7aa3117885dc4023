"""What a command has to hand: its settings, its output, the store, and the code to end with.

Floor 9. Invariant: a store is opened only when a command asks for it, and closed before the
process ends, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from cas.cli.ahead import cache_of
from cas.cli.output import Output, Settings
from cas.errors import NotAllowed, Purged, Unavailable

if TYPE_CHECKING:
    from cas.history.store import Store
    from cas.workspace.workspace import Workspace
    from cas.worktree.glance import Glance

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Front:
    """One invocation of the command line. One thread."""

    def __init__(self, *, alone: bool = False, ahead: Glance | None = None) -> None:
        self._alone = alone
        self._ahead = ahead
        self.settings = Settings()
        self.out = Output(self.settings)
        self.exit_code = 0
        self.raw = False
        """Whether branches of the workspace may be changed past it."""
        self.interrupted = ""
        """What an interrupt leaves, where it is something."""

    def location(self) -> str:
        """Where the store is. Raises `StoreNotFound`."""
        from cas.assembly import discover

        place = self.settings.store
        if place is None:
            place = discover(os.getcwd(), os.environ.get("CAS_STORE"))
        if place in ("", ":memory:"):
            raise click.UsageError(
                f"A store of the command line is a folder, not {place!r}; name one with --store."
            )
        return place

    def glance(self, folder: str, chosen: bytes, *, wanted: bool) -> Glance:
        """A look at a folder that goes on until the store is open, where this process is the
        command's alone: the one that was begun before all else, if it is this one.
        """
        cache = cache_of(self.settings.store) if wanted and self._alone else ""
        if self._ahead is not None and self._ahead.is_of(cache, folder, chosen):
            return self._ahead
        from cas.worktree.glance import Glance

        return Glance(cache, folder, chosen)

    def store(self, *, write: bool = False, remember: bool = False) -> Store:
        """Open the store; for reading unless `write`. Raises as `cas.assembly.open` does.

        `remember`: only read, but for writing where it can be, so that what reading makes beside
        the store (an index, trails) is there the next time.
        """
        from cas.assembly import open as open_store

        if remember and not write:
            with suppress(NotAllowed, Unavailable):
                return open_store(self.location())
        return open_store(self.location(), read_only=not write)

    def check_branches(self, store: Store, *names: str, new: bool = False) -> None:
        """Refuse to change branches that belong to the workspace, unless --raw was given, and to
        make one that has the name of a tag, unless `new` says that it is asked for by that name.

        Raises `NotAllowed`, `RefExists`.
        """
        from cas.commands.raw import check_branches, check_new

        if not new:
            check_new(store, names)
        if not self.raw:
            check_branches(store, names)

    @contextmanager
    def space(
        self, branch: str = "main", *, write: bool = False, remember: bool = False
    ) -> Iterator[Workspace]:
        """The workspace of the store on a branch, with all stores in which its contexts live.

        As `store` opens it; others are opened for reading unless `write`. Raises as `store`, and
        `RefNotFound` for a branch that is not there.
        """
        from cas.assembly import open as open_store
        from cas.workspace.workspace import Workspace

        places = partial(open_store, read_only=not write)
        with (
            self.store(write=write, remember=remember) as store,
            Workspace(store, branch=branch, places=places) as space,
        ):
            space.check_branch()
            yield space


def tell_purged(front: Front, paths: Sequence[str]) -> None:
    """Name files whose content was purged, and end as with one that was asked for."""
    if paths:
        front.out.warn_each([f"{path}: was purged" for path in paths], "all else is there")
        front.exit_code = Purged.exit_code


def pass_front(command: Callable[Concatenate[Front, _P], _R]) -> Callable[_P, _R]:
    """Give a command its `Front` as first argument."""
    return click.make_pass_decorator(Front, ensure=True)(command)
