"""What this machine and this disk give: a store measured in a folder that is removed again.

Floor 8. Invariant: nothing that was there is read or changed; whatever happens, the folder that is
made is removed. Every figure is of calls that a user makes, durable where they promise it, on
generated content; it says what one process reached here and now, and nothing of another machine.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from cas.clock import Clock
from cas.commands.restore import restore_folder
from cas.errors import Invalid, NotAllowed, NotFound, StorageFailed
from cas.history.store import Store
from cas.limits import MIB
from cas.model.ids import BlobId
from cas.worktree.importer import import_folder

SECONDS: Final = 20.0
SECONDS_MIN: Final = 1.0

_RECORD_BYTES: Final = 1024
_MEMORY_WORDS: Final = 120
_THREADS: Final = 8
_SYNC_BYTES: Final = 4096

_TEXT: Final = (
    "the a of to and in that it is was for on with as by at from this be or an are not which "
    "agent plan sprint review status memory report tree commit branch store entry object test "
    "change value error result because before after small large open close write read keep"
)


class _Source:
    """Content and time, both from the clock."""

    def __init__(self, clock: Clock) -> None:
        self.bytes = clock.random
        self._clock = clock
        self._words = [word.encode() for word in _TEXT.split()]

    def now(self) -> float:
        """Seconds since some moment."""
        return self._clock.monotonic_ms() / 1000

    def numbers(self, count: int, below: int) -> list[int]:
        """`count` random numbers from 0 on."""
        return [n % below for n in struct.unpack(f"{count}I", self.bytes(4 * count))]

    def memory(self) -> bytes:
        """A note of some hundred bytes of words; no two are alike."""
        drawn = self.bytes(8 + _MEMORY_WORDS)
        words = self._words
        count = _MEMORY_WORDS // 2 + drawn[0] % _MEMORY_WORDS // 2
        text = b" ".join([words[one % len(words)] for one in drawn[8 : 8 + count]])
        return b"note %s: %s.\n" % (drawn[:8].hex().encode(), text)


@frozen
class Amounts:
    """What is done at least once, however short the time: so much of it. Figures name it."""

    rounds: int
    batch: int
    large_bytes: int
    files: int


FULL: Final = Amounts(rounds=10, batch=1000, large_bytes=32 * MIB, files=1000)
QUICK: Final = Amounts(rounds=3, batch=200, large_bytes=4 * MIB, files=100)
FULL_SECONDS: Final = 5.0
"""From here on `FULL` is no more than the time that was asked for, on a machine of today."""


def amounts_for(seconds: float) -> Amounts:
    """What goes into so many seconds."""
    return FULL if seconds >= FULL_SECONDS else QUICK


@frozen
class Figure:
    """One line of the answer: what was measured, how much, of what; higher is better unless the
    unit is a time. `count` is how many calls it is made of.
    """

    name: str
    value: float
    unit: str
    count: int


@frozen
class BenchReport:
    """All figures, in the order measured, and the seconds that it took."""

    folder: str
    figures: tuple[Figure, ...]
    seconds: float


def measure(
    place: str,
    open_store: Callable[[str], Store],
    clock: Clock,
    seconds: float = SECONDS,
) -> BenchReport:
    """Measure in a new folder below `place`, for about `seconds`; `open_store` makes a store.

    Raises `Invalid`, `NotFound`, `NotAllowed`, `StorageFailed`, and what a store raises.
    """
    if not SECONDS_MIN <= seconds <= 600:
        raise Invalid(f"A bench lasts {SECONDS_MIN:g} to 600 seconds, not {seconds:g}.")
    source = _Source(clock)
    started = source.now()
    try:
        with tempfile.TemporaryDirectory(prefix=".cas-bench-", dir=place) as folder:
            figures = tuple(_figures(Path(folder), open_store, source, seconds))
    except FileNotFoundError as error:
        raise NotFound(f"There is no folder {place}.", path=place) from error
    except PermissionError as error:
        raise NotAllowed(f"{place} may not be written by this user.", path=place) from error
    except OSError as error:
        raise StorageFailed(
            f"{place} cannot be measured: {error.strerror}.", path=place, errno=error.errno
        ) from error
    return BenchReport(os.path.abspath(place), figures, source.now() - started)


def _figures(
    folder: Path, open_store: Callable[[str], Store], source: _Source, seconds: float
) -> Iterator[Figure]:
    """Each step has a share of the time; the shares leave room for making content."""
    amounts = amounts_for(seconds)
    yield from _syncs(folder, source, 0.05 * seconds, amounts)
    with open_store(str(folder / "bench.cas")) as store:
        yield from _commits(store, source, 0.15 * seconds, amounts)
        yield _threads(store, source, 0.1 * seconds)
        yield from _objects(store, source, 0.25 * seconds, amounts)
        yield from _large(store, source, 0.15 * seconds, amounts)
        yield from _folder(store, source, folder, amounts)


def _rounds(
    source: _Source, seconds: float, call: Callable[[], object], least: int = 1
) -> list[float]:
    """Seconds of each call, as many as go into the time; `least` of them anyway."""
    found: list[float] = []
    end = source.now() + seconds
    while len(found) < least or source.now() < end:
        started = source.now()
        call()
        found.append(source.now() - started)
    return found


def _at(spent: list[float], share: float) -> float:
    ordered = sorted(spent)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _syncs(folder: Path, source: _Source, seconds: float, amounts: Amounts) -> Iterator[Figure]:
    """What one write of 4 KiB to a file costs until it is durable: most of a small commit."""
    handle = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    try:

        def write() -> None:
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, bytes(_SYNC_BYTES))
            os.fsync(handle)

        write()
        spent = _rounds(source, seconds, write, amounts.rounds)
    finally:
        os.close(handle)
    yield Figure("sync of 4 KiB, median", _at(spent, 0.5), "s", len(spent))
    yield Figure("sync of 4 KiB, 99 of 100", _at(spent, 0.99), "s", len(spent))


def _commits(store: Store, source: _Source, seconds: float, amounts: Amounts) -> Iterator[Figure]:
    """Commits of 1 KB each into a folder of some hundred files, by one thread."""
    contents = [source.bytes(_RECORD_BYTES) for _ in range(64)]
    turn = 0

    def commit() -> None:
        nonlocal turn
        turn += 1
        with store.begin(author="bench", message="m") as tx:
            content = b"%08d" % turn + contents[turn % len(contents)]
            tx.branch("commits")[f"items/item-{turn % 500:03d}"] = content
            tx.commit()

    spent = _rounds(source, seconds, commit, amounts.rounds)
    yield Figure("small commits, one thread", len(spent) / sum(spent), "/s", len(spent))
    yield Figure("small commit, median", _at(spent, 0.5), "s", len(spent))
    yield Figure("small commit, 99 of 100", _at(spent, 0.99), "s", len(spent))


def _threads(store: Store, source: _Source, seconds: float) -> Figure:
    """The same by eight threads, on a branch each."""
    counts = [0] * _THREADS
    errors: list[BaseException] = []
    started = source.now()
    end = started + seconds

    def work(which: int) -> None:
        try:
            while not counts[which] or source.now() < end:
                content = source.bytes(_RECORD_BYTES)
                with store.begin(author="bench", message="m") as tx:
                    tx.branch(f"thread/{which}")[f"item-{counts[which] % 500:03d}"] = content
                    tx.commit()
                counts[which] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    rate = sum(counts) / (source.now() - started)
    return Figure(f"small commits, {_THREADS} threads", rate, "/s", sum(counts))


def _objects(store: Store, source: _Source, seconds: float, amounts: Amounts) -> Iterator[Figure]:
    """Notes put many at a time, durable each time, and got at random, verified."""
    batch = amounts.batch
    ids: list[BlobId] = []
    spent, end = 0.0, source.now() + 0.6 * seconds
    while not ids or source.now() < end:
        notes = [source.memory() for _ in range(batch)]
        started = source.now()
        ids += store.put_many(notes)
        spent += source.now() - started
    yield Figure(f"put_many, {batch:,} notes a call", len(ids) / spent, "/s", len(ids))
    store.spill()
    asked = iter([ids[at] for at in source.numbers(1 << 17, len(ids))])
    single = _rounds(source, 0.2 * seconds, lambda: store.get(next(asked, ids[0])), amounts.rounds)
    yield Figure("get, at random", len(single) / sum(single), "/s", len(single))
    groups = [[ids[at] for at in source.numbers(batch, len(ids))] for _ in range(32)]
    turns = iter(groups * 64)
    many = _rounds(source, 0.2 * seconds, lambda: list(store.get_many(next(turns, groups[0]))))
    count = batch * len(many)
    yield Figure(f"get_many, {batch:,} at random", count / sum(many), "/s", count)


def _large(store: Store, source: _Source, seconds: float, amounts: Amounts) -> Iterator[Figure]:
    """Large contents, half of each random, half words: put durable, got and verified."""
    large_bytes = amounts.large_bytes
    words = b"".join(source.memory() for _ in range(2_000))
    ids: list[BlobId] = []
    spent, end = 0.0, source.now() + 0.8 * seconds
    while not ids or source.now() < end:
        half = source.bytes(large_bytes // 2)
        (start,) = source.numbers(1, len(words))
        text = (words[start:] + words[:start]) * (1 + large_bytes // 2 // len(words))
        content = half + text[: large_bytes // 2]
        started = source.now()
        ids.append(store.put(content))
        spent += source.now() - started
    total = large_bytes * len(ids)
    yield Figure(f"put of {large_bytes // MIB} MiB", total / spent, "B/s", len(ids))
    got = [_rounds(source, 0, lambda id=id: store.get(id))[0] for id in ids]  # type: ignore[misc]
    yield Figure(f"get of {large_bytes // MIB} MiB", total / sum(got), "B/s", len(ids))


def _folder(store: Store, source: _Source, folder: Path, amounts: Amounts) -> Iterator[Figure]:
    """Generated files saved, saved again unchanged, and restored."""
    files = folder / "files"
    for number in range(amounts.files):
        path = files / f"part-{number // 100}" / f"file-{number:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(source.memory() for _ in range(1 + number % 12)))

    def save() -> None:
        import_folder(store, str(files), branch="folder", author="bench", message="m")

    (first,) = _rounds(source, 0, save)
    yield Figure(
        f"snapshot of {amounts.files:,} files", amounts.files / first, "files/s", amounts.files
    )
    again = _rounds(source, 0, save)
    yield Figure("snapshot again, nothing changed", again[0], "s", 1)
    (spent,) = _rounds(source, 0, lambda: restore_folder(store, "folder", str(folder / "back")))
    yield Figure(
        f"restore of {amounts.files:,} files", amounts.files / spent, "files/s", amounts.files
    )
