"""The compressors beside the caller: everything, in order, or the error again and again."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from cas.objects import pipeline as module
from cas.objects.pipeline import Pipeline, Submitted
from cas.storage.codec import RAW, ZSTD, decode_payload


class Nowhere:
    """A store of nothing, for objects that come without a base."""

    lookup = None

    def find(self, id: bytes) -> None:
        raise AssertionError("nobody asked for a base")

    stored = find


NOWHERE: Any = Nowhere()


def items_of(sizes: list[int]) -> list[Submitted]:
    """Objects of these sizes, every second one hard to compress."""
    made = []
    for at, size in enumerate(sizes):
        content = os.urandom(size) if at % 2 else bytes(size)
        made.append(Submitted(at.to_bytes(32, "big"), 1, content, None, size))
    return made


@pytest.mark.parametrize(
    "sizes",
    [[], [0], [10] * 1500, [300_000] * 30, [1, 2_000_000] * 12, list(range(0, 70_000, 700))],
)
def test_all_comes_out_in_order(sizes: list[int]) -> None:
    """Whatever the sizes, records come in the order given, each with its content."""
    pipeline = Pipeline(NOWHERE)
    items = items_of(sizes)
    records = []
    for item in items:
        pipeline.submit(item)
        for group, _needs in pipeline.drain():
            records += group
    for group, _needs in pipeline.drain(everything=True):
        records += group
    pipeline.close()
    assert [record[0] for record in records] == [item.id for item in items]
    for item, (_id, kind, codec, payload, raw_bytes, *_rest) in zip(items, records, strict=True):
        assert (kind, raw_bytes) == (1, len(item.content))
        assert decode_payload(codec, payload, raw_bytes) == item.content
        assert codec in (RAW, ZSTD)


def test_what_is_encoded_passes_through() -> None:
    """Payloads that come encoded keep their place among those that do not."""
    pipeline = Pipeline(NOWHERE)
    plain = items_of([1000, 1000])
    done = Submitted(b"d" * 32, 1, b"payload as it is", 2, 12345)
    for item in (plain[0], done, plain[1]):
        pipeline.submit(item)
    ((records, _needs),) = pipeline.drain(everything=True)
    pipeline.close()
    assert records[1] == (b"d" * 32, 1, 2, b"payload as it is", 12345, 0, 1)
    assert [record[0] for record in records] == [plain[0].id, b"d" * 32, plain[1].id]


def test_pending_objects_are_found() -> None:
    """What was not drained yet can be looked at, in a group under way or not yet sent off."""
    pipeline = Pipeline(NOWHERE)
    items = items_of([700_000, 700_000, 5])
    for item in items:
        pipeline.submit(item)
    assert [pipeline.pending(item.id) for item in items] == items
    assert pipeline.pending(b"x" * 32) is None
    assert sum(len(records) for records, _needs in pipeline.drain(everything=True)) == 3
    assert pipeline.pending(items[0].id) is None
    pipeline.close()


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While workers are slow, draining waits: no more than the limit is ever in flight."""
    monkeypatch.setattr(module, "IN_FLIGHT_BYTES_MAX", 3 << 20)
    gate = threading.Semaphore(0)
    encode = module.encode_payloads

    def slow(contents: list[bytes]) -> list[tuple[int, bytes]]:
        gate.acquire()
        return encode(contents)

    monkeypatch.setattr(module, "encode_payloads", slow)
    pipeline = Pipeline(NOWHERE)
    drained = 0
    for item in items_of([1 << 20] * 20):
        pipeline.submit(item)
        gate.release()
        for group, _needs in pipeline.drain():
            drained += len(group)
        assert pipeline._in_flight_bytes <= 4 << 20
    gate.release(20)
    drained += sum(len(records) for records, _needs in pipeline.drain(everything=True))
    assert drained == 20
    pipeline.close()


def test_who_would_wait_compresses() -> None:
    """While every worker is busy with an earlier group, the caller does the next ones; they come
    out in order all the same.
    """
    caller, helped = threading.get_ident(), threading.Event()

    def beside(_group: int) -> None:
        if threading.get_ident() == caller:
            helped.set()
        else:
            assert helped.wait(60), "nobody else compresses"

    pipeline = Pipeline(NOWHERE, beside=beside)
    items = items_of([1 << 20] * 12)
    for item in items:
        pipeline.submit(item)
    records = [record for group, _needs in pipeline.drain(everything=True) for record in group]
    assert [record[0] for record in records] == [item.id for item in items]
    pipeline.close()


def test_an_error_of_a_worker_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker raises reaches the caller; the threads end all the same."""

    def broken(_contents: list[bytes]) -> list[tuple[int, bytes]]:
        raise MemoryError("no room to compress")

    monkeypatch.setattr(module, "encode_payloads", broken)
    for count, threads in ((1, False), (3, True)):
        pipeline = Pipeline(NOWHERE)
        for item in items_of([900_000] * count):
            pipeline.submit(item)
        assert bool(pipeline._threads) is threads
        with pytest.raises(MemoryError):
            list(pipeline.drain(everything=True))
        pipeline.close()
        assert not any(thread.is_alive() for thread in pipeline._threads)


def test_what_fits_into_one_group_needs_no_thread() -> None:
    """A small pack file is encoded by who asks for it; the second group starts the workers."""
    pipeline = Pipeline(NOWHERE)
    items = items_of([400, 700_000])
    for item in items:
        pipeline.submit(item)
    (drained,) = pipeline.drain(everything=True)
    assert [record[0] for record in drained[0]] == [item.id for item in items]
    assert pipeline._threads == []
    assert pipeline.pending(items[0].id) is None
    for item in items_of([700_000] * 3):
        pipeline.submit(item)
    assert len(pipeline._threads) > 0
    pipeline.close()


def test_closing_stops_the_threads() -> None:
    """After close, twice, with work left or without, no thread of the pipeline lives."""
    for left in ([], [100], [2_000_000] * 5):
        pipeline = Pipeline(NOWHERE)
        for item in items_of(left):
            pipeline.submit(item)
        threads = list(pipeline._threads)
        pipeline.close()
        pipeline.close()
        assert not any(thread.is_alive() for thread in threads)
