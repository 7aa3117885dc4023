"""A workload on a real file system, and what a crash may have left of that, mounted again.

Invariant: an image holds all that was written up to a flush of the disk, and of what came after it
up to the next some writes, the last of them perhaps torn between blocks: what a disk with a cache
may hold when the power goes. The kernel that wrote it mounts it, its journal is replayed, and the
store there is judged as after every other crash (`cas.testing.oracle`), and by its own fsck.

What the file system writes when is its own business (its journal has a thread), so that equal
seeds do not give equal logs: a failure carries its log with it.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs

from cas.errors import CasError
from cas.limits import MIB
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.testing import fuse, oracle
from cas.testing.driver import Driver
from cas.testing.fuse import Disk, Flushed, Op, Said, Wrote
from cas.testing.model import Model, Progress
from cas.testing.mounting import (
    die_with_parent,
    loop_device,
    make_file_system,
    mount,
    mount_fuse,
    room,
    unmount,
)
from cas.testing.oracle import Observation
from cas.testing.processes import Child
from cas.testing.recorder import Recorder
from cas.testing.recovery import recover
from cas.testing.stores import SteppedClock, build, create

PLACE: Final = "folders/above/store"
BLOCK_BYTES: Final = 4096
"""What a disk writes whole. The super block of ext4 itself does not survive a tear within it."""
_CHUNK_BYTES: Final = 64 * 1024

AT_ONCE: Final = 50
"""So many images are mounted by one process, which has only so much patience."""

Prepare = Callable[[], None]
"""Changes the code before the workload runs: how the planted bugs come in."""


@attrs.frozen
class FileSystem:
    """A kind of file system and how it is made and mounted."""

    kind: str
    size_bytes: int
    make: tuple[str, ...] = ()
    options: str = ""


_EXT4: Final = ("-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")

FILE_SYSTEMS: Final[Mapping[str, FileSystem]] = {
    "ext4": FileSystem("ext4", 32 * MIB, _EXT4),
    "ext4 with blocks of 1 KiB": FileSystem("ext4", 32 * MIB, (*_EXT4, "-b", "1024")),
    "ext4, data=writeback": FileSystem("ext4", 32 * MIB, _EXT4, "data=writeback"),
    "ext4, data=journal": FileSystem("ext4", 32 * MIB, _EXT4, "data=journal"),
    "xfs": FileSystem("xfs", 320 * MIB, ("-K",)),
    "btrfs": FileSystem("btrfs", 128 * MIB, ("-K",)),
}


@attrs.frozen
class DiskLog:
    """What a workload wrote to a disk, from its making on; crashes begin at `start`."""

    steps: tuple[str, ...]
    seed: str
    system: str
    ops: tuple[Op, ...]
    start: int
    model: Model


@attrs.frozen
class Loss:
    """A crash: the flush behind which it came, as an operation; the writes that were done all the
    same; of the last of those only so many blocks where not -1.
    """

    flush: int
    kept: tuple[int, ...] = ()
    blocks: int = -1


@attrs.frozen
class ImageFailure:
    """An image that must not be, with all that is needed to mount it again."""

    log: DiskLog
    loss: Loss
    findings: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{' + '.join(self.log.steps)} (seed {self.log.seed}) on {self.log.system}: crash "
            f"behind flush {self.loss.flush}, {len(self.loss.kept)} writes done: "
            + "; ".join(self.findings)
        )


@attrs.define
class ImageReport:
    """How many images were mounted, how many of them written to; what was wrong."""

    images: int = 0
    written: int = 0
    flushes: int = 0
    failures: list[ImageFailure] = attrs.field(factory=list)


# -- recording -------------------------------------------------------------------------------


class _Marking(Recorder):
    """Puts the driver's marks into the log of the disk instead of one of its own."""

    def __init__(self, root: str, control: socket.socket) -> None:
        super().__init__(root)
        self._control = control

    def mark(self, value: Any) -> None:
        self.ops.clear()
        fuse.mark(self._control, value)


def record(
    steps: Sequence[str], seed: int | str, system: str = "ext4", *, prepare: Prepare | None = None
) -> DiskLog:
    """Make a store on a new file system, run steps on it, close it; what the disk was told."""
    log: DiskLog = Child(lambda: _record(tuple(steps), str(seed), system, prepare)).wait()
    return log


def _record(steps: tuple[str, ...], seed: str, system: str, prepare: Prepare | None) -> DiskLog:
    how = FILE_SYSTEMS[system]
    with room() as place:
        mine, control = socket.socketpair()
        # Its name tells whose it is, as long as the system shows it.
        below, above = os.path.join(place, f"disk-{os.getpid()}"), os.path.join(place, "mounted")
        os.mkdir(above)
        with open(below, "xb"):
            pass
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        mount_fuse(device, below)
        if os.fork() == 0:
            mine.close()
            _serve(device, control, how.size_bytes, [above, below])
        control.close()
        os.close(device)
        with loop_device(below) as loop:
            make_file_system(loop, how.kind, how.make)
            mount(loop, above, how.kind, how.options)
        try:
            # A store keeps locks open for its process: nobody could unmount below it.
            model: Model = Child(lambda: _run(above, steps, seed, mine, prepare)).wait()
        finally:
            unmount(above)
            unmount(below, detach=True)
        answer = fuse.receive(mine)
        os.wait()
    if answer is None:
        raise AssertionError("the disk is gone")
    ops: tuple[Op, ...] = tuple(pickle.loads(answer))
    start = next(number for number, op in enumerate(ops) if isinstance(op, Said))
    return DiskLog(steps, seed, system, ops, start, model)


def _serve(device: int, control: socket.socket, size_bytes: int, places: list[str]) -> None:
    """The process that is the disk; it outlives who made it until nothing rests on it any more."""

    def leave() -> None:
        for place in places:
            with suppress(OSError):
                unmount(place, detach=True)

    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        fuse.serve(device, control, Disk(size_bytes), leave)
        code = 0
    finally:
        os._exit(code)


def _run(
    above: str, steps: Sequence[str], seed: str, control: socket.socket, prepare: Prepare | None
) -> Model:
    die_with_parent()
    place = os.path.join(above, PLACE)
    recorder = _Marking(above, control)
    driver = Driver(place, seed=seed, recorder=recorder)
    driver.cached = True
    try:
        if prepare is not None:
            prepare()
        recorder.mark(Progress("init", -1, 0, 0, 0))
        create(place, clock=SteppedClock(f"{seed} create"))
        driver.mark()
        driver.run(steps)
        driver.step = "close"
        driver.mark()
    finally:
        driver.close()
    driver.mark()
    if driver.refused or driver.doubts:
        raise AssertionError(f"{steps} failed without a fault: {driver.refused}")
    return driver.model


# -- crashes ---------------------------------------------------------------------------------


def losses(log: DiskLog, count: int, draw: random.Random) -> list[Loss]:
    """So many different crashes, if there are as many: behind each flush first, then at random.

    Behind a flush: nothing of what came next, each beginning of it, each write alone, each
    missing, some at random, a beginning whose last write is torn.
    """
    firsts: list[Loss] = []
    others: list[Loss] = []
    for flush, writes in _intervals(log):
        firsts.append(Loss(flush))
        some = {writes[:size] for size in range(1, len(writes))}
        some |= {(one,) for one in writes}
        some |= {tuple(other for other in writes if other != one) for one in writes}
        for _ in range(4):
            some.add(tuple(one for one in writes if draw.random() < 0.5))
        # All of them is what the next flush makes durable.
        others += [Loss(flush, kept) for kept in sorted(some - {(), writes})]
        for size in range(1, len(writes) + 1):
            op = log.ops[writes[size - 1]]
            assert isinstance(op, Wrote)
            blocks = len(op.data) // BLOCK_BYTES
            if blocks > 1:
                others.append(Loss(flush, writes[:size], draw.randrange(1, blocks)))
    draw.shuffle(firsts)
    draw.shuffle(others)
    # A third at least between flushes, however many flushes there are.
    behind = firsts[: max(count - len(others), count * 2 // 3)]
    return sorted(behind + others[: count - len(behind)], key=lambda loss: (loss.flush, loss.kept))


def _intervals(log: DiskLog) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(flush, writes up to the next), for crashes from the recording's start on."""
    flush, writes = -1, []
    for number, op in enumerate(log.ops):
        if isinstance(op, Wrote):
            writes.append(number)
        elif isinstance(op, Flushed):
            if flush >= 0 and number > log.start:
                yield flush, tuple(writes)
            flush, writes = number, []
    yield flush, tuple(writes)


def moments(log: DiskLog, loss: Loss) -> list[Progress]:
    """Where the workload may have been when this crash came: one or more, in order.

    Not before the last write that was done, and not behind the next flush; where nothing was done
    since the flush, from the last write before it on.
    """
    ops = log.ops
    last = loss.kept[-1] if loss.kept else loss.flush
    while not loss.kept and last > 0 and not isinstance(ops[last], Wrote):
        last -= 1
    found: list[Progress] = []
    for number, op in enumerate(ops):
        if number > loss.flush and isinstance(op, Flushed):
            break
        if isinstance(op, Said):
            if number < last:
                found.clear()
            found.append(op.value)
    return found


class Replayer:
    """Mounts one image after another. One thread, in a process of its own."""

    def __init__(self, log: DiskLog, room: str, *, written: float = 0.3) -> None:
        self._log = log
        self._room = room
        self._written = written
        self._random = random.Random(f"images {log.seed}")
        self._content = bytearray(FILE_SYSTEMS[log.system].size_bytes)
        self._chunks: set[int] = set()
        self._reached = 0
        self._mounted = os.path.join(room, "image")
        os.mkdir(self._mounted)
        self.report = ImageReport()

    def run(self, chosen: Sequence[Loss], *, fail_fast: bool = False) -> ImageReport:
        """Every crash of these, in the order of the log."""
        for number, loss in enumerate(chosen):
            findings = self._judged(loss, str(number))
            self.report.images += 1
            if findings:
                self.report.failures.append(ImageFailure(self._log, loss, tuple(findings)))
                if fail_fast:
                    break
        return self.report

    def _judged(self, loss: Loss, name: str) -> list[str]:
        log = self._log
        image = self._image(loss, name)
        write = self._random.random() < self._written
        self.report.written += write
        try:
            with self._at(image):
                looking = Child(lambda: self._look(f"{log.seed} {name}", write))
                observed, findings = looking.wait()
        except OSError as error:
            return [f"the image cannot be mounted: {error}"]
        finally:
            os.unlink(image)
        for progress in moments(log, loss):
            findings += oracle.judge(observed, log.model, progress)
        return list(dict.fromkeys(findings))

    def _look(self, seed: str, write: bool) -> tuple[Observation, list[str]]:
        die_with_parent()
        place = os.path.join(self._mounted, PLACE)
        observed, _model = recover(place, self._log.model, seed, write=write, cached=True)
        return observed, _checked(place, seed)

    @contextmanager
    def _at(self, image: str) -> Iterator[None]:
        how = FILE_SYSTEMS[self._log.system]
        with loop_device(image) as loop:
            mount(loop, self._mounted, how.kind, how.options)
        try:
            yield
        finally:
            unmount(self._mounted)

    def _image(self, loss: Loss, name: str) -> str:
        ops = self._log.ops
        while self._reached < loss.flush:
            op = ops[self._reached]
            if isinstance(op, Wrote):
                self._content[op.offset : op.offset + len(op.data)] = op.data
                self._touch(op)
            self._reached += 1
        path = os.path.join(self._room, f"image-{name}")
        with open(path, "xb", buffering=0) as file:
            file.truncate(len(self._content))
            view = memoryview(self._content)
            for chunk in sorted(self._chunks):
                at = chunk * _CHUNK_BYTES
                os.pwrite(file.fileno(), view[at : at + _CHUNK_BYTES], at)
            for number in loss.kept:
                op = ops[number]
                assert isinstance(op, Wrote)
                data = op.data
                if loss.blocks >= 0 and number == loss.kept[-1]:
                    data = data[: loss.blocks * BLOCK_BYTES]
                os.pwrite(file.fileno(), data, op.offset)
        return path

    def _touch(self, op: Wrote) -> None:
        last = op.offset + len(op.data) - 1
        self._chunks.update(range(op.offset // _CHUNK_BYTES, last // _CHUNK_BYTES + 1))


STOPPED: Final = ("catalog-behind",)
"""What fsck may say after a crash beside notices: a writer ended before its commit."""


def _checked(place: str, seed: str) -> list[str]:
    """What the store's own check finds."""
    if not os.path.exists(os.path.join(place, "catalog.sqlite")):
        return []
    try:
        with build(place, clock=SteppedClock(f"{seed} fsck"), cached=True) as store:
            found = fsck(store).findings
    except CasError as error:
        return [f"fsck: {type(error).__name__}: {error}"]
    return [
        f"fsck: {finding.code}: {finding.message}"
        for finding in found
        if finding.severity is not Severity.NOTICE and finding.code not in STOPPED
    ]


def replay(
    log: DiskLog, chosen: Sequence[Loss], *, written: float = 0.3, fail_fast: bool = False
) -> ImageReport:
    """Mount these images, some at a time in a process that has mounts of its own."""
    whole = ImageReport(flushes=sum(isinstance(op, Flushed) for op in log.ops))
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        report: ImageReport = Child(partial(_replay, log, part, written, fail_fast)).wait()
        whole.images += report.images
        whole.written += report.written
        whole.failures += report.failures
        if whole.failures and fail_fast:
            break
    return whole


def _replay(log: DiskLog, chosen: Sequence[Loss], written: float, fail_fast: bool) -> ImageReport:
    with room() as place:
        return Replayer(log, place, written=written).run(chosen, fail_fast=fail_fast)


def explore(
    steps: Sequence[str],
    seed: int | str,
    count: int,
    system: str = "ext4",
    *,
    prepare: Prepare | None = None,
    fail_fast: bool = False,
) -> ImageReport:
    """Record a workload and mount so many images of what crashes leave of it."""
    log = record(steps, seed, system, prepare=prepare)
    chosen = losses(log, count, random.Random(f"losses {seed}"))
    return replay(log, chosen, fail_fast=fail_fast)
