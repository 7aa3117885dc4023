"""Run a workload, take its log, and open the store in every state a crash can leave of it.

Invariant: each distinct state (by content) is opened and read by SQLite, and what it shows
(`cas.testing.staging`) is opened with the real store and read whole, once for all states that
show the same and again for some. Some are written to, closed and opened again, and some of these
recoveries are recorded and cut short in their turn. What was seen is judged against the model at
every point of the workload at which that state can come about. A failure says which operations
were done, and can be repeated from that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs

from cas.testing import oracle
from cas.testing.crash import Cut, Replay
from cas.testing.driver import Driver
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.model import Model, Progress
from cas.testing.oracle import Observation
from cas.testing.recorder import Image, Mark, Recorder, label
from cas.testing.recovery import recover
from cas.testing.staging import Stage
from cas.testing.stores import SteppedClock, create, scratch

STALE: Final = 0.1
"""How many states are opened beside a shared-memory file full of noise."""

AGAIN: Final = 0.05
"""How many of the states that show what another has shown are treated as if they did not."""

Prepare = Callable[[Driver], None]
"""Changes a driver before it runs: how the planted bugs come in."""


@attrs.frozen
class Failure:
    """A state that must not be, and how to come to it again."""

    steps: tuple[str, ...]
    seed: str
    cut: Cut
    inner: Cut | None
    last: str
    findings: tuple[str, ...]

    def __str__(self) -> str:
        inside = f", then in the recovery at {self.inner.prefix}" if self.inner else ""
        return (
            f"{' + '.join(self.steps)} (seed {self.seed}): crash at operation {self.cut.prefix} "
            f"after {self.last}, {len(self.cut.kept)} unsynced ones done{inside}: "
            + "; ".join(self.findings)
        )

    def to_json(self) -> str:
        """As `tools/simulate.py --replay` reads it."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Failure:
        """A failure that was written down."""
        fields: dict[str, Any] = json.loads(text)
        cut, inner = fields["cut"], fields["inner"]
        return cls(
            tuple(fields["steps"]),
            fields["seed"],
            _cut(cut),
            None if inner is None else _cut(inner),
            fields["last"],
            tuple(fields["findings"]),
        )


def _cut(fields: dict[str, Any]) -> Cut:
    reused = fields.get("reused")
    kept, torn = tuple(fields["kept"]), fields["torn"]
    return Cut(fields["prefix"], kept, torn, None if reused is None else tuple(reused))


@attrs.define
class Report:
    """What was tried. `states` counts by the kind of operation behind which the crash came,
    `steps` by the step of the workload that was under way; `read` are those read whole.
    """

    states: Counter[str] = attrs.field(factory=Counter)
    steps: Counter[str] = attrs.field(factory=Counter)
    read: int = 0
    judged: int = 0
    written: int = 0
    nested: int = 0
    failures: list[Failure] = attrs.field(factory=list)

    def add(self, other: Report) -> None:
        """Take in another report."""
        self.states.update(other.states)
        self.steps.update(other.steps)
        self.read += other.read
        self.judged += other.judged
        self.written += other.written
        self.nested += other.nested
        self.failures += other.failures


@attrs.frozen
class Recording:
    """A finished workload: its log, its model, where the store lies below the folder that was
    watched, and where the part begins that is crashed.
    """

    steps: tuple[str, ...]
    seed: str
    recorder: Recorder
    model: Model
    place: str
    start: int


def record(
    steps: Sequence[str],
    seed: int | str,
    *,
    tail: int | None = None,
    prepare: Prepare | None = None,
) -> Recording:
    """Run steps on a new store; crashes begin with the last `tail` steps, or with the first.

    Making the store is recorded when the first step is "init", which stands nowhere else.
    """
    seed = str(seed)
    clock = SteppedClock(f"{seed} create")
    with scratch() as folder:
        init = steps[:1] == ["init"] or steps[:1] == ("init",)
        place = "folders/above/store" if init else "store"
        path = os.path.join(folder, place)
        if not init:
            create(path, clock=clock)
        recorder = Recorder(folder)
        vfs = RecordingVFS(recorder)
        files = RecordingFiles(recorder)
        driver = Driver(path, seed=seed, recorder=recorder, files=files, vfs=vfs.name)
        start = 0
        try:
            if prepare is not None:
                prepare(driver)
            if init:
                recorder.mark(Progress("init", -1, 0, 0, 0))
                create(path, clock=clock, files=files, vfs=vfs.name)
            driver.mark()
            rest = steps[1:] if init else steps
            before = 0 if tail is None else max(0, len(rest) - tail)
            driver.run(rest[:before])
            start = len(recorder.ops) if before else 0
            driver.run(rest[before:])
            driver.step = "close"
            driver.mark()
        finally:
            driver.close()
            vfs.close()
        if driver.refused or driver.doubts:
            raise AssertionError(f"{steps} failed without a fault: {driver.refused}")
        return Recording(tuple(steps), seed, recorder, driver.model, place, start)


def record_killed(
    before: Sequence[str], step: str, seed: int | str, *, prepare: Prepare | None = None
) -> Iterator[Recording]:
    """A step whose process is killed at each operation, then done again by another process.

    What the first had written stays visible, and as uncertain as it was. The crashes of each
    recording begin at the kill. The step has to be one that may be repeated.
    """
    with scratch() as folder:
        template = os.path.join(folder, "template")
        create(template, clock=SteppedClock(f"{seed} create"))
        prelude = Driver(template, seed=f"{seed} before")
        prelude.run(before)
        prelude.close()
        model = prelude.model

        def once(name: str, after: tuple[Recorder, int] | None) -> Recording:
            place = os.path.join(folder, name)
            if after is None:
                shutil.copytree(template, place)
            else:
                os.mkdir(place)
                killed = Replay(after[0])
                while killed.prefix < after[1]:
                    killed.step()
                killed.image(Cut(killed.prefix, killed.pending()))[0].write_to(place)
            recorder = Recorder(place, after=after)
            vfs = RecordingVFS(recorder)
            driver = Driver(
                place,
                seed=f"{seed} step",
                model=model.copy(),
                recorder=recorder,
                files=RecordingFiles(recorder),
                vfs=vfs.name,
            )
            driver.clock_seed = name
            try:
                if prepare is not None:
                    prepare(driver)
                if after is None:
                    driver.mark()
                driver.run([step])
            finally:
                driver.close()
                vfs.close()
                shutil.rmtree(place)
            if driver.refused or driver.doubts:
                raise AssertionError(f"{step} failed without a fault: {driver.refused}")
            steps = (*before, step) if after is None else (*before, step, f"kill {after[1]}", step)
            start = 0 if after is None else after[1]
            return Recording(steps, str(seed), recorder, driver.model, "", start)

        whole = once("first", None).recorder
        for number in range(1, len(whole.ops)):
            yield once(f"killed-{number}", (whole, number))


class Explorer:
    """Opens the states of one recording.

    `written` of them, by chance, are written to and opened again; `nested` of them crash a second
    time while that is done, in at most `nested_states` ways. `each_max` and `subsets` say how many
    of the states behind one operation are taken (`cas.testing.crash`).
    """

    def __init__(
        self,
        recording: Recording,
        folder: str,
        *,
        written: float = 1.0,
        nested: float = 0.02,
        nested_states: int = 12,
        each_max: int = 24,
        subsets: int = 3,
        fail_fast: bool = False,
    ) -> None:
        self._recording = recording
        self._folder = folder
        self._written = written
        self._nested = nested
        self._nested_states = nested_states
        self._each_max = each_max
        self._subsets = subsets
        self._fail_fast = fail_fast
        self._random = random.Random(f"explorer {recording.seed}")
        self._count = 0
        self._stage = Stage(tempfile.mkdtemp(dir=folder), recording.place)
        self._shown: dict[bytes, Observation] = {}
        self.report = Report()

    def run(self) -> Report:
        """Every cut behind every operation from the recording's start on."""
        recording = self._recording
        ops = recording.recorder.ops
        replay = Replay(
            recording.recorder,
            seed=recording.seed,
            each_max=self._each_max,
            subsets=self._subsets,
        )
        known: dict[object, bytes] = {}
        seen: dict[bytes, Observation] = {}
        judged: set[tuple[bytes, Progress]] = set()
        progress: Progress | None = None
        last = "open"
        while replay.prefix < len(ops):
            op = replay.step()
            if isinstance(op, Mark):
                progress = op.value
            else:
                last = label(op, recording.recorder)
            if replay.prefix <= recording.start or progress is None:
                continue
            for cut in replay.cuts():
                same = replay.same(cut)
                key = known.get(same)
                if key is None:
                    image, key = replay.image(cut)
                    known[same] = key
                    if key not in seen:
                        self.report.states[last] += 1
                        self.report.steps[progress.step] += 1
                        seen[key] = self._open(image, cut, last)
                if (key, progress) in judged:
                    continue
                judged.add((key, progress))
                self.report.judged += 1
                findings = oracle.judge(seen[key], recording.model, progress)
                if findings:
                    self._fail(cut, None, last, findings)
                if self.report.failures and self._fail_fast:
                    return self.report
        return self.report

    def replay(self, cut: Cut, inner: Cut | None) -> Report:
        """One crash again."""
        recording = self._recording
        replay = Replay(recording.recorder)
        progress: Progress | None = None
        last = "open"
        while replay.prefix < cut.prefix:
            op = replay.step()
            if isinstance(op, Mark):
                progress = op.value
            else:
                last = label(op, recording.recorder)
        assert progress is not None
        image, _key = replay.image(cut)
        self._written, self._nested = 1, 0 if inner is None else 1
        self._nested_states = 1_000_000
        observed = self._open(image, cut, last)
        findings = oracle.judge(observed, recording.model, progress)
        if findings:
            self._fail(cut, None, last, findings)
        return self.report

    def _fail(self, cut: Cut, inner: Cut | None, last: str, findings: Sequence[str]) -> None:
        recording = self._recording
        self.report.failures.append(
            Failure(recording.steps, recording.seed, cut, inner, last, tuple(findings))
        )

    # -- one state ---------------------------------------------------------------------------

    def _open(self, image: Image, cut: Cut, last: str) -> Observation:
        """Look at a state; open it where it shows something new, write to it, open it again."""
        key = self._stage.shown(image, self._noise())
        known = None if key is None else self._shown.get(key)
        chance = 1.0 if known is None else AGAIN
        nested = self._random.random() < self._nested * chance
        write = nested or self._random.random() < self._written * chance
        if known is not None and not write:
            return known
        self.report.read += 1
        self.report.written += write
        recording = self._recording
        with self._place(image) as folder:
            recorder = Recorder(folder) if nested else None
            place = os.path.join(folder, recording.place)
            observed, model = recover(place, recording.model, self._name(), recorder, write=write)
        if known is not None and not observed.findings and observed != known:
            observed = attrs.evolve(observed, findings=("it shows other than its like has shown",))
        if key is not None and not observed.findings:
            self._shown[key] = observed
        if recorder is not None and not observed.findings:
            self._crash_again(recorder, observed, model, cut, last)
        return observed

    def _noise(self) -> bytes | None:
        """What SQLite shared between processes may have reached the disk, in any state."""
        return self._random.randbytes(512) if self._random.random() < STALE else None

    def _name(self) -> str:
        """A seed that no other recovery of this recording has."""
        return f"{self._recording.seed} {self._count}"

    @contextmanager
    def _place(self, image: Image) -> Iterator[str]:
        self._count += 1
        place = os.path.join(self._folder, str(self._count))
        os.mkdir(place)
        try:
            image.write_to(place)
            if self._random.random() < STALE:
                self._leave_stale_memory(place)
            yield place
        finally:
            shutil.rmtree(place)

    def _leave_stale_memory(self, place: str) -> None:
        """What SQLite shared between processes may have reached the disk, in any state."""
        catalog = os.path.join(place, self._recording.place, "catalog.sqlite")
        if os.path.exists(catalog):
            with open(catalog + "-shm", "wb") as file:
                file.write(self._random.randbytes(32 * 1024))

    def _crash_again(
        self, recorder: Recorder, observed: Observation, model: Model, cut: Cut, last: str
    ) -> None:
        """Cut a recorded recovery short, too."""
        replay = Replay(recorder, seed=self._count, each_max=6, subsets=1)
        progress = Progress("open", observed.seq, max(0, observed.seq), len(observed.puts), 0)
        found: dict[object, tuple[Cut, Progress]] = {}
        while replay.prefix < len(recorder.ops):
            op = replay.step()
            if isinstance(op, Mark):
                progress = op.value
            for inner in replay.cuts():
                found.setdefault(replay.same(inner), (inner, progress))
        drawn = list(found.values())
        if len(drawn) > self._nested_states:
            drawn = self._random.sample(drawn, self._nested_states)
        # What they leave is made only now, on a second way along the log.
        replay = Replay(recorder)
        chosen: dict[bytes, tuple[Cut, Progress, Image]] = {}
        for inner, progress in sorted(drawn, key=lambda each: each[0].prefix):
            while replay.prefix < inner.prefix:
                replay.step()
            image, key = replay.image(inner)
            chosen.setdefault(key, (inner, progress, image))
        shown: dict[bytes | None, Observation] = {}
        for inner, progress, image in chosen.values():
            self.report.nested += 1
            alike = self._stage.shown(image, self._noise())
            if alike not in shown or self._random.random() < AGAIN:
                self.report.read += 1
                with self._place(image) as folder:
                    place = os.path.join(folder, self._recording.place)
                    again, _model = recover(place, model, self._name())
            else:
                again = shown[alike]
            if alike is not None:
                shown[alike] = again
            findings = oracle.judge(again, model, progress)
            if findings:
                self._fail(cut, inner, last, findings)


def explore(
    steps: Sequence[str],
    seed: int | str,
    *,
    tail: int | None = None,
    prepare: Prepare | None = None,
    **options: Any,
) -> Report:
    """Record a workload and open every state a crash can leave of it."""
    recording = record(steps, seed, tail=tail, prepare=prepare)
    with scratch() as folder:
        return Explorer(recording, folder, **options).run()
