"""A disk of a few MiB that is filled up to some level, and a store at work on what is left.

Invariant: everything is done on a real file system with that little room, in processes that have
mounts of their own; the store's handle stays the same while the disk is full and when there is room
again.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import attrs

from cas.errors import CasError, StorageFull
from cas.limits import KIB, MIB
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.testing import oracle
from cas.testing.driver import Driver
from cas.testing.model import Model
from cas.testing.mounting import (
    die_with_parent,
    loop_device,
    make_file_system,
    mount,
    room,
    unmount,
)
from cas.testing.processes import Child
from cas.testing.stores import SMALL, SteppedClock, Template, build, create

BEFORE: Final = (
    *("commit", "put file", "versions", "commit file", "multi", "memories", "remove"),
    *("commit", "tag", "put many", "commit file"),
)
"""What there is to spill, to archive and to collect."""

_MAKE: Final = ("-m", "0", "-b", "4096", "-E", "lazy_itable_init=0,nodiscard")
"""With blocks of 1 KiB, which are what mkfs takes for so small a disk, SQLite is killed by a full
one: it makes sure of one byte in each page of its shared memory, which is one block of four.
"""

_QUIET: Final = SMALL._replace(spill_packs=10_000, spill_bytes=64 * MIB, spill_small_pack_bytes=KIB)
"""Nothing is spilled before the disk is full."""


def _large(driver: Driver) -> None:
    content = driver.fresh(3 * MIB)
    driver.put([content], lambda: [driver.store.put(io.BytesIO(content))])


def _steps(*names: str) -> Callable[[Driver], None]:
    return lambda driver: driver.run(names)


def _open(driver: Driver) -> None:
    driver.close()
    _steps("commit", "reopen", "put")(driver)


WORK: Final[Mapping[str, Callable[[Driver], None]]] = {
    "commits": _steps("commit", "multi", "commit file", "keyed", "tag", "commit"),
    "puts": _steps("put", "put many", "put file", "memories", "versions"),
    "a large stream": _large,
    "a spill": _steps("spill", "commit"),
    "an archive": _steps("archive", "commit"),
    "gc": _steps("gc", "commit"),
    "a checkpoint of the log": _steps("commit", "wal", "commit", "passive"),
    "opening": _open,
}

LEVELS: Final = (
    *range(0, 96 * KIB, 4 * KIB),
    *range(96 * KIB, 512 * KIB, 16 * KIB),
    *range(512 * KIB, 4 * MIB, 256 * KIB),
)
"""How many bytes are left."""


@contextmanager
def small_disk(place: str, system: str) -> Iterator[str]:
    """A small file system of this kind, below a room."""
    path = os.path.join(place, "small")
    os.mkdir(path)
    if system == "tmpfs":
        mount("cas", path, "tmpfs", "size=16m")
    else:
        image = os.path.join(place, "disk")
        with open(image, "xb") as file:
            file.truncate(16 * MIB)
        with loop_device(image) as loop:
            make_file_system(loop, system, _MAKE)
            mount(loop, path, system)
    try:
        yield path
    finally:
        unmount(path, detach=True)


def fill(disk: str, left_bytes: int) -> str:
    """A file that leaves only so much of a disk."""
    path = os.path.join(disk, "ballast")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        size = 0
        # A file has blocks of its own that say where its blocks are: by and by.
        for _ in range(8):
            found = os.statvfs(disk)
            more = found.f_bavail * found.f_frsize - left_bytes
            if more <= 0:
                break
            try:
                os.posix_fallocate(fd, size, more)
                size += more
            except OSError:
                size = os.fstat(fd).st_size
                break
    finally:
        os.close(fd)
    return path


@attrs.frozen
class Filled:
    """What was tried at some levels: how often something was refused, and what was wrong."""

    tried: int
    refused: int
    findings: tuple[str, ...]


def sweep(system: str, name: str, levels: Sequence[int], seed: str) -> Filled:
    """One kind of work at these levels, each on a store of its own."""
    answer: Filled = Child(lambda: _sweep(system, name, levels, seed)).wait()
    return answer


def _sweep(system: str, name: str, levels: Sequence[int], seed: str) -> Filled:
    refused = 0
    findings: list[str] = []
    with room() as place:
        with_room = os.path.join(place, "template")
        create(with_room, clock=SteppedClock(f"{seed} create"))
        prelude = Driver(with_room, seed=f"{seed} before", thresholds=_QUIET)
        prelude.run(BEFORE)
        prelude.close()
        template = Template(with_room)
        with small_disk(place, system) as disk:
            for level in levels:
                store = os.path.join(disk, "store")
                template.lay_out(store)
                model = prelude.model.copy()
                count, found = Child(
                    partial(_work, disk, name, level, f"{seed} {level}", model)
                ).wait()
                refused += count
                findings += [f"{name}, {level:,} bytes left on {system}: {one}" for one in found]
                shutil.rmtree(store)
    return Filled(len(levels), refused, tuple(findings))


def _work(disk: str, name: str, level: int, seed: str, model: Model) -> tuple[int, list[str]]:
    """The work on a disk that is full, then on one with room; how often it was refused."""
    die_with_parent()
    driver = Driver(os.path.join(disk, "store"), seed=seed, model=model)
    driver.cached = True
    driver.store.view()
    ballast = fill(disk, level)
    _try(driver, WORK[name])
    refused, findings = len(driver.refused), list(_untyped(driver))
    if driver.doubts:
        driver.resolve()
        findings += ["what became of a commit is in doubt"] * len(driver.doubts)
    findings += _seen(driver, "on the full disk")
    os.unlink(ballast)
    driver.refused.clear()
    for act in (WORK["commits"], WORK["puts"], WORK[name], WORK["a spill"], WORK["gc"]):
        _try(driver, act)
    findings += [f"with room again: {type(e).__name__}: {e}" for e in driver.refused]
    findings += _seen(driver, "with room again")
    driver.close()
    with build(driver.folder, clock=SteppedClock(f"{seed} fsck"), cached=True) as again:
        findings += [
            f"fsck: {finding.code}: {finding.message}"
            for finding in fsck(again).findings
            if finding.severity is not Severity.NOTICE
        ]
    driver.step = "again"
    findings += _seen(driver, "opened again")
    driver.close()
    return refused, findings


def _try(driver: Driver, act: Callable[[Driver], None]) -> None:
    try:
        act(driver)
    except CasError as error:
        driver.refused.append(error)


def _untyped(driver: Driver) -> Iterator[str]:
    for error in driver.refused:
        if not isinstance(error, StorageFull) or error.code != "storage-full":
            yield f"{type(error).__name__} instead of storage-full: {error}"


def _seen(driver: Driver, when: str) -> list[str]:
    """What the handle shows against what was acknowledged."""
    observed = oracle.observe(driver.store, driver.model)
    judged = oracle.judge(observed, driver.model, driver.progress)
    return [f"{when}: {finding}" for finding in judged]
