"""Make any call to the operating system fail, and see that the store says what became of its work.

Invariant: after a fault every step of the workload has ended in one of three ways, and the model
holds what it said: acknowledged, refused with a typed error, or unknown until its txid resolved
it. The handle goes on working once the fault has passed, and the store that is opened afterwards
shows exactly what the model holds: after a close, after a kill (the files as they stand, without
the shared memory), and after a power cut.

A failed sync makes nothing durable, then or later. No file of the store's own is synced or
written to again after its sync failed, and nothing is written through a handle of SQLite whose
sync failed: it writes its log anew, through another one.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs

from cas.errors import CasError
from cas.testing import oracle
from cas.testing.crash import Cut, Replay
from cas.testing.driver import Driver
from cas.testing.explore import AGAIN, Prepare
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.model import Model, Progress
from cas.testing.oracle import Observation
from cas.testing.recorder import (
    Image,
    Injected,
    Names,
    Op,
    Recorder,
    Sync,
    Truncate,
    Write,
    scan,
)
from cas.testing.recovery import recover
from cas.testing.staging import Stage
from cas.testing.stores import SteppedClock, Template, create, scratch

SPACE: Final = frozenset(("create", "write", "link", "mkdir", "open"))
"""Calls that can find the disk full."""

AFTERWARDS: Final = ("commit", "put", "commit file")
"""What the handle has to do once the fault has passed: the first of these, or more of them."""

SYNCS: Final = frozenset(("sync", "sync folder"))

KINDS: Final = (
    "lost sync",
    "no sync from then on",
    "short write",
    "disk full",
    "EIO once",
    "EIO from then on",
)


@attrs.frozen
class Call:
    """One call as the hook saw it."""

    name: str
    path: str
    size_bytes: int


@attrs.frozen
class Fault:
    """What happens at which call; calls are counted from 0."""

    kind: str
    at: int

    def fits(self, call: Call) -> bool:
        """Whether this kind of fault can happen to this call."""
        if self.kind == "disk full":
            return call.name in SPACE
        if self.kind == "short write":
            return call.name == "write" and call.size_bytes > 1
        if self.kind in ("lost sync", "no sync from then on"):
            return call.name in SYNCS
        return call.name not in SYNCS or self.kind == "EIO from then on"


class FaultHook:
    """Counts calls and makes the planned one fail, until it is disarmed."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.calls: list[Call] = []
        self.hit: Call | None = None
        self.armed = False
        self.poisoned: set[object] = set()
        self.findings: list[str] = []

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if handle in self.poisoned and self._forbidden(call, path, handle):
            self.findings.append(f"{call} of {os.path.basename(path)} after its sync had failed")
        if not self.armed:
            return
        number = len(self.calls)
        self.calls.append(Call(call, os.path.basename(path), size_bytes))
        fault = self.fault
        if fault is None or number < fault.at:
            return
        if number == fault.at:
            self.hit = self.calls[-1]
        elif fault.kind == "disk full":
            if call not in SPACE:
                return
        elif fault.kind == "no sync from then on":
            if call not in SYNCS:
                return
        elif fault.kind != "EIO from then on":
            return
        if call == "sync":
            self.poisoned.add(handle)
        if fault.kind == "disk full":
            raise Injected(errno.ENOSPC)
        if fault.kind == "short write":
            raise Injected(errno.ENOSPC, size_bytes // 2)
        raise Injected(errno.EIO)

    @staticmethod
    def _forbidden(call: str, path: str, handle: object) -> bool:
        """SQLite may still checkpoint, which writes all pages anew, but never add to the log."""
        if isinstance(handle, int):
            return call in ("write", "sync")
        return call == "write" and path.endswith("-wal")


@attrs.frozen
class FaultFailure:
    """A fault after which something is not as the store said, and how to come to it again."""

    before: tuple[str, ...]
    steps: tuple[str, ...]
    seed: str
    fault: Fault
    call: Call | None
    findings: tuple[str, ...]

    def __str__(self) -> str:
        where = "" if self.call is None else f" in {self.call.name} of {self.call.path}"
        return (
            f"{' + '.join(self.steps)} (seed {self.seed}): {self.fault.kind} at call "
            f"{self.fault.at}{where}: " + "; ".join(self.findings)
        )

    def to_json(self) -> str:
        """As `tools/simulate.py --replay` reads it."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> FaultFailure:
        """A failure that was written down."""
        fields: dict[str, Any] = json.loads(text)
        call = fields["call"]
        return cls(
            tuple(fields["before"]),
            tuple(fields["steps"]),
            fields["seed"],
            Fault(**fields["fault"]),
            None if call is None else Call(**call),
            tuple(fields["findings"]),
        )


@attrs.define
class FaultReport:
    """What was tried, by kind of fault; how the steps of all runs ended."""

    faults: Counter[str] = attrs.field(factory=Counter)
    answers: Counter[str] = attrs.field(factory=Counter)
    opened: int = 0
    failures: list[FaultFailure] = attrs.field(factory=list)

    def add(self, other: FaultReport) -> None:
        """Take in another report."""
        self.faults.update(other.faults)
        self.answers.update(other.answers)
        self.opened += other.opened
        self.failures += other.failures


class Sweep:
    """One workload under every fault. `before` is done once and is not disturbed."""

    def __init__(
        self,
        before: Sequence[str],
        steps: Sequence[str],
        seed: int | str,
        *,
        prepare: Prepare | None = None,
        power_cuts: int = 4,
        written: float = 1.0,
        fail_fast: bool = False,
    ) -> None:
        """`power_cuts` is how many of the states that a power cut leaves are looked at after each
        fault; `written` how many of those that show something new are written to as well.
        """
        self.before = tuple(before)
        self.steps = tuple(steps)
        self.seed = str(seed)
        self._prepare = prepare
        self._power_cuts = power_cuts
        self._fail_fast = fail_fast
        self._written = written
        self._random = random.Random(f"looks {self.seed}")
        self._shown: dict[object, Observation] = {}
        self._stage: Stage | None = None
        self.report = FaultReport()

    def run(
        self,
        *,
        chosen: Sequence[Fault] | None = None,
        share: float = 1.0,
        most: int | None = None,
    ) -> FaultReport:
        """Every fault that fits, or those chosen; `share` of them or at `most` so many, drawn by
        the seed.
        """
        with scratch() as folder:
            self._stage = Stage(tempfile.mkdtemp(dir=folder), "")
            first = os.path.join(folder, "template")
            create(first, clock=SteppedClock(f"{self.seed} create"))
            driver = Driver(first, seed=f"{self.seed} before")
            driver.run(self.before)
            driver.close()
            assert not driver.refused, driver.refused
            template = Template(first)
            model = driver.model
            calls = self._one(folder, template, model, None)
            faults = chosen if chosen is not None else list(self._fitting(calls, share))
            if most is not None and len(faults) > most:
                faults = random.Random(f"most {self.seed}").sample(faults, most)
            for fault in faults:
                self._one(folder, template, model, fault)
                if self._fail_fast and self.report.failures:
                    break
        return self.report

    def _fitting(self, calls: Sequence[Call], share: float) -> Iterator[Fault]:
        draw = random.Random(f"faults {self.seed}")
        for kind in KINDS:
            for at, call in enumerate(calls):
                fault = Fault(kind, at)
                if fault.fits(call) and draw.random() < share:
                    yield fault

    # -- one fault ---------------------------------------------------------------------------

    def _one(self, folder: str, template: Template, base: Model, fault: Fault | None) -> list[Call]:
        place = os.path.join(folder, "store")
        template.lay_out(place)
        try:
            hook = FaultHook(fault)
            recorder = Recorder(place, hook)
            vfs = RecordingVFS(recorder)
            driver = Driver(
                place,
                seed=self.seed,
                model=base.copy(),
                recorder=recorder,
                files=RecordingFiles(recorder),
                vfs=vfs.name,
            )
            try:
                findings = self._disturb(driver, hook, recorder, folder)
            finally:
                with suppress(CasError):
                    driver.close()
                vfs.close()
            findings += self._look_at(scan(place), folder, driver, driver.progress, "a close")
        finally:
            shutil.rmtree(place)
        if fault is not None:
            self.report.faults[fault.kind] += 1
            assert hook.hit is not None, f"{fault} never came: the calls are not the same"
        if findings or hook.findings:
            found = (*hook.findings, *findings)
            blame = fault or Fault("no fault", 0)
            self.report.failures.append(
                FaultFailure(self.before, self.steps, self.seed, blame, hook.hit, found)
            )
        return hook.calls

    def _disturb(
        self, driver: Driver, hook: FaultHook, recorder: Recorder, folder: str
    ) -> list[str]:
        """Run the steps under the fault; then what must hold before the handle is closed."""
        if self._prepare is not None:
            self._prepare(driver)
        driver.mark()
        hook.armed = True
        try:
            driver.run(self.steps)
        except Exception as error:
            return [f"{type(error).__name__} came out of {driver.step}: {error}"]
        finally:
            hook.armed = False
        self.report.answers["refused"] += len(driver.refused)
        self.report.answers["unknown"] += len(driver.doubts)
        if hook.fault is None and driver.refused:
            return [f"refused without a fault: {driver.refused}"]
        findings = []
        if driver.doubts:
            # Nobody has asked yet: both answers are right, a mixture is not.
            findings += self._look_everywhere(driver, recorder, folder, "in doubt, ")
        driver.resolve()
        if driver.doubts:
            return [f"the outcome of {driver.doubts[-1].hex()} cannot be resolved"]
        findings += self._look_everywhere(driver, recorder, folder, "")
        refused = len(driver.refused)
        driver.step = "afterwards"
        try:
            driver.run(AFTERWARDS[: self._random.choices((1, 2, 3), (6, 3, 1))[0]])
        except Exception as error:
            return [*findings, f"afterwards {type(error).__name__}: {error}"]
        findings += [f"refused afterwards: {error}" for error in driver.refused[refused:]]
        return findings

    def _power(self, recorder: Recorder) -> Iterator[tuple[Cut, Image]]:
        replay = Replay(recorder, seed=self.seed, each_max=3, subsets=self._power_cuts)
        while replay.prefix < len(recorder.ops):
            replay.step()
        seen: set[bytes] = set()
        for cut in (*self._before_failed_syncs(recorder, replay), *replay.cuts()):
            image, key = replay.image(cut)
            if key not in seen and len(seen) < self._power_cuts:
                seen.add(key)
                yield cut, image

    def _before_failed_syncs(self, recorder: Recorder, replay: Replay) -> Iterator[Cut]:
        """What a failed sync should have made durable is on the disk after all; of what came
        later nothing, or nothing of that file.
        """
        ops, pending = recorder.ops, replay.pending()
        for index, op in enumerate(ops):
            if isinstance(op, Sync) and not op.ok:
                yield Cut(replay.prefix, tuple(i for i in pending if i < index))
                others = (i for i in pending if i < index or _target(ops[i]) != op.target)
                yield Cut(replay.prefix, tuple(others))

    def _look_everywhere(
        self, driver: Driver, recorder: Recorder, folder: str, when: str
    ) -> list[str]:
        """What a kill now, and a power cut now, would leave."""
        progress = driver.progress
        images = [("a kill", scan(driver.folder))]
        for cut, image in self._power(recorder):
            images.append((f"a power cut that kept {len(cut.kept)}", image))
        return [
            finding
            for what, image in images
            for finding in self._look_at(image, folder, driver, progress, when + what)
        ]

    def _look_at(
        self, image: Image, folder: str, driver: Driver, progress: Progress, what: str
    ) -> list[str]:
        """Judge what an image shows; the store is opened where that is not known yet."""
        assert self._stage is not None
        model = driver.model
        key = self._stage.shown(image)
        like = (key, tuple(model.puts), len(model.entries), repr(model.entries[-1]))
        known = None if key is None else self._shown.get(like)
        chance = 1.0 if known is None else AGAIN
        write = self._random.random() < self._written * chance
        observed = known if known is not None and not write else None
        if observed is None:
            self.report.opened += 1
            other = os.path.join(folder, "other")
            os.mkdir(other)
            try:
                image.write_to(other)
                observed, _after = recover(other, model, f"{self.seed} {what}", write=write)
            finally:
                shutil.rmtree(other)
            if not observed.findings:
                self._shown[like] = observed
        return [f"after {what}: {found}" for found in oracle.judge(observed, model, progress)]


def _target(op: Op) -> int | None:
    """The file or folder that an operation changes."""
    if isinstance(op, Names):
        return op.folder
    return op.file if isinstance(op, Write | Truncate) else None
