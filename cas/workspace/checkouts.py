"""Which folders are checked out, who works there, and until when that is said.

Floor 6. Invariant: a lease only ever tells: nothing is refused because of one, and nothing is
safe because of one. Which folder a checkout is follows from the marker in it and from the record
in the store, together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from cas.errors import NotCheckedOut
from cas.history.store import Store
from cas.model.names import HEADS, printable
from cas.workspace.contexts import Declared
from cas.workspace.layout import MAIN
from cas.workspace.links import Link
from cas.workspace.parts import part
from cas.workspace.reading import Collection, Reader
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.strict import moment
from cas.workspace.unit import Asked
from cas.workspace.work import UnitOfWork
from cas.worktree.marker import read_marker

EXTERNAL: Final = "external"
"""The author of what was done in a folder by nobody knows whom."""


@aggregate("checkout", collection="checkouts", context="workspace")
class Checkout(Aggregate):
    """A folder that holds the artifacts of a branch of the workspace as files.

    `holder` works there until `until`, as far as anybody said; `sprint` is what for. `folder` is
    its real path on `host`, `inode` its number there, by which a folder that was moved is known
    from one that was copied.
    """

    folder: str = part(rule="last")
    host: str = part(default="", rule="last")
    inode: int = part(default=0, rule="last")
    branch: str = part(default=MAIN, rule="last")
    sprint: Link | None = part(default=None, rule="last")
    holder: str = part(default="", rule="last")
    since: datetime | None = part(default=None, rule="last")
    until: datetime | None = part(default=None, rule="last")

    def held_at(self, now: datetime) -> bool:
        """Whether somebody's lease runs at a time."""
        return bool(self.holder) and self.until is not None and now < self.until

    def leased(self, holder: str, now: datetime, lease_ms: float) -> Checkout:
        """The checkout with a lease from now on, or a longer one of the same holder."""
        going_on = self.holder == holder and self.held_at(now)
        since = self.since if going_on else now
        until = now + timedelta(milliseconds=lease_ms)
        return self.evolve(holder=holder, since=since, until=until)


def folder_branch(id: str) -> str:
    """The branch of the store that holds what stood in a folder, each time it was looked at."""
    return f"checkout-{id}"


def unit_on(store: Store, branch: str, actor: str, message: str) -> UnitOfWork:
    """A unit of work on a branch of the workspace that keeps conflicts."""
    reader = Reader(store.core, store.view(), branch)
    asked = Asked(actor, message, None, branch, "keep", {})
    return UnitOfWork(store, reader, asked, Declared().now(reader))


def checkouts(store: Store) -> Iterator[Checkout]:
    """All checkouts of a store, whatever branch they are of."""
    return iter(Collection(Reader(store.core, store.view(), MAIN), Checkout))


def now_of(store: Store) -> datetime:
    """The time, as leases have it."""
    return moment(store.objects.clock.wall_us())


def host_name() -> str:
    """The name of this host."""
    return os.uname().nodename


def find_checkout(store: Store, place: bytes) -> Checkout:
    """The checkout that a folder is, by its real path. Raises `NotCheckedOut`."""
    marker = read_marker(place)
    if marker is None:
        raise not_checked_out(place, "it has no marker")
    if marker.store != store.id:
        raise not_checked_out(place, "it belongs to another store")
    view = store.view()
    found = Collection(Reader(store.core, view, MAIN), Checkout).find_one(marker.id)
    if found is None or view.ref(HEADS + folder_branch(found.id)) is None:
        raise not_checked_out(place, "it was released")
    if found.folder != printable(place) and found.inode != os.stat(place).st_ino:
        raise not_checked_out(place, f"it is a copy of the checkout {found.folder}")
    return found


def not_checked_out(place: bytes, reason: str) -> NotCheckedOut:
    """The error for a folder that is no checkout."""
    shown = printable(place)
    return NotCheckedOut(
        f"{shown} is no working folder: {reason}. Nothing was changed. Make it one with "
        "`cas workspace checkout`, which keeps what stands there.",
        path=shown,
        reason=reason,
    )
