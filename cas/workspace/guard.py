"""Checking a folder out, giving it back, and keeping watch over it in between.

Floor 6. Invariant: a folder becomes a checkout with all that stands in it, and is released with
all that was done in it; a watch ends only when it is told to, or with an error that says why.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from cas.errors import Invalid, NotCheckedOut, RefNotFound
from cas.history.store import Store
from cas.limits import FOLDER_NEW_MAX, LEASE_MS
from cas.model.names import HEADS, printable
from cas.storage.files import translate
from cas.workspace.checkouts import (
    EXTERNAL,
    Checkout,
    checkouts,
    find_checkout,
    folder_branch,
    host_name,
    not_checked_out,
    now_of,
    unit_on,
)
from cas.workspace.folders import Folder, FolderReport
from cas.workspace.layout import MAIN
from cas.workspace.links import Link, new_id
from cas.worktree.importer import folder_to_read
from cas.worktree.marker import Marker, read_marker, remove_marker, write_marker
from cas.worktree.watching import wakes

OnReport = Callable[[FolderReport], None]
_RENEW_AFTER: Final = 2


def check_out(
    store: Store,
    branch: str,
    folder: str | os.PathLike[str],
    actor: str,
    *,
    sprint: Link | None = None,
    lease_ms: float = LEASE_MS,
    author: str = EXTERNAL,
    new_max: int = FOLDER_NEW_MAX,
) -> FolderReport:
    """Make a folder a checkout of a branch of the workspace, or go on with one.

    What stands in it already becomes part of the branch, as any outside change does. One of
    another branch is brought up to that first, and then to this. Raises `Invalid`, also for a
    folder inside or around another working folder, `AggregateNotFound` (the sprint), `RefNotFound`,
    `LimitExceeded`, after all of which nothing was done; and what `Folder.sync` raises.
    """
    place = folder_to_read(store, folder)
    try:
        found = find_checkout(store, place)
    except NotCheckedOut:
        found = _bind(store, branch, place, actor, new_max)
    else:
        work = Folder(store, place)
        work.check(found.evolve(branch=branch), new_max)
        if found.branch != branch:
            # What was done for a branch that was dropped goes to the next.
            with suppress(RefNotFound):
                work.sync(author=author, new_max=new_max)
    _lease(store, found, place, branch, actor, lease_ms, sprint)
    return Folder(store, place).sync(author=author, new_max=new_max)


def folder_of(store: Store, folder: str | os.PathLike[str]) -> Folder:
    """A working folder by any of its paths. Raises `Invalid`."""
    return Folder(store, folder_to_read(store, folder))


def _bind(store: Store, branch: str, place: bytes, actor: str, new_max: int) -> Checkout:
    """Make the record and the branch of a new checkout, then its marker."""
    _check_apart(store, place)
    checkout = Checkout(
        id=new_id(store.objects.clock),
        folder=printable(place),
        host=host_name(),
        branch=branch,
    )
    if os.path.isdir(place):
        Folder(store, place).check(checkout, new_max)
    try:
        os.makedirs(place, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise Invalid(f"{printable(place)} is no folder; check out into another one.") from error
    except OSError as error:
        translate(error, os.fsdecode(place))
    with unit_on(store, MAIN, actor, f"checkout {checkout.folder}"[:200]) as uow:
        uow.save(checkout.evolve(inode=os.stat(place).st_ino))
        uow.transaction.branch(folder_branch(checkout.id), allow_empty=True)
        uow.commit()
    try:
        write_marker(place, Marker(checkout.id, store.id), store.objects.clock.random(8))
    except OSError as error:
        translate(error, os.fsdecode(place))
    return find_checkout(store, place)


def _check_apart(store: Store, place: bytes) -> None:
    """Refuse a folder inside a working folder, or around one: its files would be of both."""
    mine = {each.id: each for each in checkouts(store) if each.host == host_name()}
    above = place
    while above != os.path.dirname(above):
        above = os.path.dirname(above)
        marker = read_marker(above)
        if marker is not None and (marker.store != store.id or marker.id in mine):
            raise _nested(place, f"lies in the working folder {printable(above)}")
    shown = printable(place).rstrip("/") + "/"
    for each in mine.values():
        if each.folder.startswith(shown):
            marker = read_marker(os.fsencode(each.folder))
            if marker is not None and marker.id == each.id:
                raise _nested(place, f"has the working folder {each.folder} in it")


def _nested(place: bytes, how: str) -> Invalid:
    return Invalid(
        f"{printable(place)} {how}, and a file cannot be of two. Check out into another folder, or "
        "release that one with `cas workspace release`. Nothing was changed."
    )


def _lease(
    store: Store,
    found: Checkout,
    place: bytes,
    branch: str,
    actor: str,
    lease_ms: float,
    sprint: Link | None = None,
) -> None:
    """Say who works there now, unless somebody else's lease still runs; that is left and told."""
    now = now_of(store)
    with unit_on(store, MAIN, actor, f"lease of {found.folder}"[:200]) as uow:
        old = uow.get(Checkout, found.id)
        new = old.evolve(
            folder=printable(place),
            host=host_name(),
            inode=os.stat(place).st_ino,
            branch=branch,
            sprint=sprint or old.sprint,
        )
        if not old.held_at(now) or old.holder == actor:
            new = new.leased(actor, now, lease_ms)
        uow.save(new)
        uow.commit()


def release(
    store: Store,
    folder: str | os.PathLike[str],
    actor: str,
    *,
    author: str = EXTERNAL,
    new_max: int = FOLDER_NEW_MAX,
) -> FolderReport | None:
    """Make a folder a checkout no longer: what was done in it is taken in, its files stay.

    Gives what the last look took in; None for a folder that is gone, of which only the record
    is removed. Raises `NotCheckedOut`, and what `Folder.sync` raises.
    """
    place = folder_to_read(store, folder)
    report = None
    if os.path.isdir(place):
        checkout = find_checkout(store, place)
        report = Folder(store, place).sync(author=author, new_max=new_max)
    else:
        shown, host = printable(place), host_name()
        every = [each for each in checkouts(store) if (each.folder, each.host) == (shown, host)]
        if not every:
            raise not_checked_out(place, "there is no such folder")
        checkout = every[0]
    with unit_on(store, MAIN, actor, f"release {checkout.folder}"[:200]) as uow:
        uow.remove(uow.get(Checkout, checkout.id))
        uow.transaction.delete(HEADS + folder_branch(checkout.id))
        uow.commit()
    found = read_marker(place)
    if found is not None and found.id == checkout.id:
        try:
            remove_marker(place)
        except OSError as error:
            translate(error, os.fsdecode(place))
    return report


def watch(
    store: Store,
    folder: str | os.PathLike[str],
    actor: str,
    on_report: OnReport,
    stop: threading.Event,
    *,
    interval_ms: int = 1000,
    lease_ms: float = LEASE_MS,
    author: str = EXTERNAL,
    new_max: int = FOLDER_NEW_MAX,
    told: bool = True,
) -> None:
    """Bring a folder and its branch together whenever one of them changed, until `stop` is set.

    `on_report` hears of each time that something was done or left. Raises what `Folder.sync`
    raises.
    """
    place = folder_to_read(store, folder)
    checkout = find_checkout(store, place)
    work = Folder(store, place)
    last: tuple[object, ...] = ()
    seen = -1
    for changed in wakes(place, store.objects.clock, interval_ms, stop, told=told):
        seq = store.view().seq
        if not changed and seq == seen:
            continue
        report = work.sync(author=author, new_max=new_max)
        checkout = report.checkout
        said = (report.problems, report.held)
        if report.captured or report.written or said != last:
            on_report(report)
        last = said
        left = None if checkout.until is None else checkout.until - now_of(store)
        mine = checkout.holder in ("", actor) or left is None or left < timedelta(0)
        if mine and (left is None or left < timedelta(milliseconds=lease_ms / _RENEW_AFTER)):
            _lease(store, checkout, place, checkout.branch, actor, lease_ms)
        seen = store.view().seq
