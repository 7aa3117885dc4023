"""Single calls of the Python API under pytest-benchmark; never part of the tests.

`python3 tools/dev.py bench --micro` runs them. They watch for a change from commit to commit of
one call; the promises against peers are rows of `run.py`. No timing is asserted; what a call
returns is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cas
from bench.workers import entry_content, entry_name

Benchmark = Callable[..., Any]

FOLDER = 1_000
OBJECTS = 2_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """An empty store."""
    with cas.open(tmp_path / "agents.cas", create=True) as opened:
        yield opened


@pytest.fixture
def filled(store: Any) -> Any:
    """A store whose branch main holds one folder of 1,000 small files."""
    with store.begin(author="bench", message="fill") as tx:
        branch = tx.branch("main")
        for number in range(FOLDER):
            branch[entry_name(number)] = entry_content(number)
        tx.commit()
    return store


def _contents(count: int, size_bytes: int = 1_024) -> list[bytes]:
    rng = random.Random(5)
    return [rng.randbytes(size_bytes) for _ in range(count)]


def test_put(benchmark: Benchmark, store: Any) -> None:
    """One durable put of a new 1 KB blob."""
    contents = iter(_contents(100_000))
    found = benchmark(lambda: store.put(next(contents)))
    assert store.has(found)


def test_put_many(benchmark: Benchmark, store: Any) -> None:
    """A thousand new 1 KB blobs in one durable batch."""
    rng = random.Random(6)
    found = benchmark(lambda: store.put_many([rng.randbytes(1_024) for _ in range(1_000)]))
    assert len(set(found)) == 1_000


def test_put_known(benchmark: Benchmark, store: Any) -> None:
    """A put of content that is there already."""
    content = _contents(1)[0]
    wanted = store.put(content)
    assert benchmark(store.put, content) == wanted


def test_put_large(benchmark: Benchmark, store: Any) -> None:
    """A put of 32 MiB of new content, cut into chunks."""
    rng = random.Random(7)
    found = benchmark.pedantic(  # type: ignore[attr-defined]
        store.put, setup=lambda: ((rng.randbytes(32 << 20),), {}), rounds=5
    )
    assert store.size(found) == 32 << 20


def test_get(benchmark: Benchmark, store: Any) -> None:
    """One verified get of a random 1 KB blob among 2,000."""
    contents = _contents(OBJECTS)
    ids = store.put_many(contents)
    rng = random.Random(8)
    assert len(benchmark(lambda: store.get(ids[rng.randrange(OBJECTS)]))) == 1_024


def test_get_many(benchmark: Benchmark, store: Any) -> None:
    """All of 2,000 blobs of 1 KB in one call."""
    contents = _contents(OBJECTS)
    ids = store.put_many(contents)
    assert benchmark(lambda: list(store.get_many(ids))) == contents


def test_range_read(benchmark: Benchmark, store: Any) -> None:
    """4 KiB at a random place of a 32 MiB blob."""
    content = random.Random(9).randbytes(32 << 20)
    places = random.Random(10)
    with store.open(store.put(content)) as reader:

        def read() -> tuple[int, bytes]:
            place = places.randrange(len(content) - 4_096)
            reader.seek(place)
            return place, reader.read(4_096)

        place, found = benchmark(read)
    assert found == content[place : place + 4_096]


def test_commit(benchmark: Benchmark, filled: Any) -> None:
    """One durable commit of a new 1 KB file into a folder of 1,000."""
    rng = random.Random(11)

    def commit() -> str:
        name = f"{entry_name(rng.randrange(FOLDER))}-{rng.getrandbits(40):x}"
        with filled.begin(author="bench", message="m") as tx:
            tx.branch("main")[name] = rng.randbytes(1_024)
            tx.commit()
        return name

    assert benchmark(commit) in filled.snapshot("main")


def test_read_path(benchmark: Benchmark, filled: Any) -> None:
    """The bytes of a random path of a snapshot of 1,000 files."""
    snapshot = filled.snapshot("main")
    rng = random.Random(12)

    def read() -> tuple[int, bytes]:
        number = rng.randrange(FOLDER)
        return number, snapshot[entry_name(number)]

    number, found = benchmark(read)
    assert found == entry_content(number)


def test_diff(benchmark: Benchmark, filled: Any) -> None:
    """The diff of two commits that differ in one file of 1,000."""
    with filled.begin(author="bench", message="m") as tx:
        tx.branch("main")[entry_name(500)] = b"changed"
        tx.commit()
    (change,) = benchmark(lambda: list(filled.diff("main~1", "main")))
    assert change.path == entry_name(500)


def test_open(benchmark: Benchmark, filled: Any, tmp_path: Path) -> None:
    """Opening and closing a second handle of a store with 1,000 files."""

    def again() -> bool:
        with cas.open(tmp_path / "agents.cas") as opened:
            return bool(opened.branches())

    assert benchmark(again)


def test_has_not(benchmark: Benchmark, store: Any) -> None:
    """A look-up of an object that is not there, beside 2,000 that are."""
    store.put_many(_contents(OBJECTS))
    store.spill()
    absent = cas.BlobId(bytes(32))
    assert not benchmark(store.has, absent)


def test_get_packed(benchmark: Benchmark, store: Any) -> None:
    """One verified get of a random 1 KB blob among 2,000 that lie in a pack file."""
    ids = store.put_many(_contents(OBJECTS))
    store.spill()
    rng = random.Random(13)
    assert len(benchmark(lambda: store.get(ids[rng.randrange(OBJECTS)]))) == 1_024


def test_put_many_known(benchmark: Benchmark, store: Any) -> None:
    """A thousand blobs that are there already, in one batch."""
    contents = _contents(1_000)
    ids = store.put_many(contents)
    assert benchmark(store.put_many, contents) == ids
