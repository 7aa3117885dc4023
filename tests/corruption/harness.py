"""Damage a store, read everything, check it, and judge the outcome.

The promise: whatever bytes of a store are damaged, a read gives the right bytes or a typed
error, within 64 MiB and without end; and the check names the damage. `judge` fails the test
where a read gives something else, or an error is not of the package.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from cas.errors import CasError
from cas.history.store import Store
from cas.maintenance.findings import FsckReport
from cas.maintenance.fsck.check import fsck
from cas.model.ids import ObjectId
from tests.corruption.reference import Found, Reference, changed, open_read, refs_at

HANG_SECONDS = 60
MEMORY_BYTES_MAX = 64 << 20


class Verdict(NamedTuple):
    """What came of one damaged store. `failed` are reads that raised a typed error; `newest` is
    the entry that the store took for its newest.
    """

    refused: str
    right: int
    failed: int
    report: FsckReport | None
    newest: int | None = None

    @property
    def named(self) -> bool:
        """Whether the damage was told of: at opening, or by the check."""
        return self.report is None or bool(self.report.findings)

    @property
    def codes(self) -> set[str]:
        """Codes of the findings."""
        return {finding.code for finding in self.report.findings} if self.report else set()


class WrongOutcome(AssertionError):
    """A read gave other bytes, or raised what no caller expects."""


class _Hang(BaseException):
    """Raised by the alarm; no handler of the package catches it."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Fail instead of computing for ever; what only waits is ended by the timeout of the run."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    try:
        yield
    except _Hang as hang:
        raise WrongOutcome(f"nothing came back within {HANG_SECONDS} s of work") from hang
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Reads:
    """Tries reads one by one."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.right = 0
        self.failed = 0

    def expect(self, name: str, read: Callable[[], Any], *allowed: Any) -> Any:
        """The value read, when it is one that is allowed; None after a typed error."""
        try:
            found = read()
        except CasError:
            self.failed += 1
            return None
        except Exception as error:
            raise WrongOutcome(f"{self._what}: {name} raised {error!r}") from error
        if found not in allowed:
            raise WrongOutcome(f"{self._what}: {name} gave {_short(found)}")
        self.right += 1
        return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"


def judge(
    folder: Path, reference: Reference, what: str, *, older: bool = False, cached: bool = False
) -> Verdict:
    """Open, read everything, check. `older`: the store may be in one of its earlier states;
    `cached`: with the index files of the cache.
    """
    with no_hang():
        try:
            store = open_read(folder, cached=cached)
        except CasError as error:
            return Verdict(type(error).__name__, 0, 0, None)
        except Exception as error:
            raise WrongOutcome(f"{what}: opening raised {error!r}") from error
        with store:
            reads = _Reads(what)
            _read_objects(store, reads, reference)
            newest = _read_history(store, reads, reference.found, older=older)
            try:
                report = fsck(store)
            except Exception as error:
                raise WrongOutcome(f"{what}: the check raised {error!r}") from error
    return Verdict("", reads.right, reads.failed, report, newest)


def _read_objects(store: Store, reads: _Reads, reference: Reference) -> None:
    found = reference.found.objects
    for id, value in found.items():
        reads.expect(f"read {id.hex()}", lambda id=id: store.objects.read(id), value)
    for id in reference.blobs:
        _read_blob(store, reads, ObjectId(id), found[id][1])
    many = [ObjectId(id) for id in reference.blobs]
    expected = [found[id][1] for id in reference.blobs]
    reads.expect("get_many", lambda: list(store.get_many(many)), expected)


def _read_blob(store: Store, reads: _Reads, id: ObjectId, content: bytes) -> None:
    reads.expect(f"open {id}", lambda: store.open(id).read(), content)
    reads.expect(f"range of {id}", lambda: _range(store, id), content[3:9])
    reads.expect(f"size of {id}", lambda: store.size(id), len(content))
    try:
        found = store.find(id.hex()[:16])
    except CasError:
        reads.failed += 1
        return
    # A footer may name an id that nothing has; then there is nothing to be read under it.
    if found != id and store.objects.has(found):
        reads.expect(f"what {id} was taken for", lambda: store.get(found))


def _range(store: Store, id: ObjectId) -> bytes:
    stream = store.open(id)
    stream.seek(3)
    return stream.read(6)


def _read_history(store: Store, reads: _Reads, found: Found, *, older: bool) -> int | None:
    entries = found.entries
    newest = reads.expect("the head", lambda: store.view().seq, *range(len(entries) + 1))
    if newest is None:
        return None
    if newest != len(entries) and not older:
        raise WrongOutcome(f"the newest entry is {newest}, not {len(entries)}")
    for seq in range(newest + 1):
        reads.expect(f"refs at {seq}", lambda seq=seq: refs_at(store, seq), found.refs[seq])
    for entry in entries[:newest]:
        reads.expect(f"entry {entry.seq}", lambda seq=entry.seq: store.entry(seq), entry)
    reads.expect("journal", lambda: tuple(store.journal()), entries[:newest])
    if newest == len(entries):
        reads.expect("files", lambda: dict(store.snapshot("main").items()), found.files)
        reads.expect("diff", lambda: changed(store), found.changed)
        reads.expect("log", lambda: [id for id, _ in store.log("main")], _log(found))
        for entry in entries:
            # None says that it never committed: the check has to name that (journal-row).
            reads.expect("outcome", lambda txid=entry.txid: store.outcome(txid), entry, None)
    return int(newest)


def _log(found: Found) -> list[bytes]:
    """Ids of the main branch's commits, newest first."""
    seen = [refs["heads/main"] for refs in found.refs if "heads/main" in refs]
    return list(dict.fromkeys(reversed(seen)))


# -- damage ----------------------------------------------------------------------------------


@contextmanager
def patched(path: Path, edits: Sequence[tuple[int, bytes]]) -> Iterator[None]:
    """Other bytes at some offsets of a file, for as long as the block lasts."""
    with open(path, "r+b", buffering=0) as file:
        before = []
        for offset, data in edits:
            file.seek(offset)
            before.append((offset, file.read(len(data))))
            file.seek(offset)
            file.write(data)
        try:
            yield
        finally:
            for offset, data in reversed(before):
                file.seek(offset)
                file.write(data)


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """One bit of a file the other way round."""
    with open(path, "rb") as file:
        file.seek(bit >> 3)
        byte = file.read(1)[0]
    with patched(path, [(bit >> 3, bytes([byte ^ 1 << (bit & 7)]))]):
        yield


@contextmanager
def replaced(path: Path, data: bytes | None) -> Iterator[None]:
    """Another content for a file, or none at all."""
    before = path.read_bytes()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def without_logs(folder: Path) -> None:
    """Remove what SQLite left beside the catalog: the log is empty, nothing was written."""
    for suffix in ("-wal", "-shm"):
        folder.joinpath("catalog.sqlite" + suffix).unlink(missing_ok=True)


# -- counting and memory ---------------------------------------------------------------------


class Tally:
    """Outcomes of one test, by what came of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()

    def add(self, verdict: Verdict) -> None:
        """Count one case."""
        self.counts["cases"] += 1
        self.counts["right reads"] += verdict.right
        self.counts["typed errors"] += verdict.failed
        if verdict.refused:
            self.counts["refused at opening"] += 1
        elif verdict.named:
            self.counts["named by fsck"] += 1
        elif verdict.failed:
            self.counts["typed error only"] += 1
        else:
            self.counts["changed nothing"] += 1

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{n:,} {what}" for what, n in self.counts.items())


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1]) << 10
    raise AssertionError(f"no {key} in /proc/self/status")


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail when the process grows by more than 64 MiB over what it had, at any moment."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak begins anew
    before = _status("VmRSS")
    yield
    grown = _status("VmHWM") - before
    assert grown <= MEMORY_BYTES_MAX, f"{grown:,} bytes more were used"
