"""Checks of a part: what they read they judge, what they left they say, and they come round."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import cas
from cas.errors import Invalid
from cas.history.store import Store
from cas.maintenance.findings import REPAIRS
from cas.maintenance.fsck.check import fsck
from cas.maintenance.fsck.extent import FsckExtent, FsckLevel
from cas.maintenance.stats import stats
from cas.model.ids import BlobId
from tests.unit.kit import commits, write

FILES = 5


@pytest.fixture
def filled(store: Store) -> Store:
    """Five pack files of a megabyte and more, and a few inline packs."""
    for at in range(FILES):
        write(store, files={f"f{at}": os.urandom(1_300_000)})
    commits(store, 2)
    return store


def flip_payload(store: Store, path: str) -> Path:
    """Turn a bit in the content of a file."""
    copy = store.objects.find(BlobId(store.snapshot("main").entry(path).id))
    assert copy is not None
    assert copy.pack.file is not None
    file = Path(store.location, "packs", copy.pack.file)
    data = bytearray(file.read_bytes())
    data[copy.slot.payload_offset + 1000] ^= 1
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("level", list(FsckLevel))
def test_each_level_finds_what_it_reads(filled: Store, level: FsckLevel) -> None:
    """A whole store is good at every level; a damaged content shows where bytes are read, a
    damaged footer everywhere.
    """
    report = fsck(filled, extent=FsckExtent(level))
    assert report.findings == ()
    assert report.unread_count == (0 if level is FsckLevel.BYTES else FILES)
    file = flip_payload(filled, "f2")
    assert fsck(filled, extent=FsckExtent(level)).ok is (level is not FsckLevel.BYTES)
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)
    with cas.open(filled.location) as fresh:
        assert not fsck(fresh, extent=FsckExtent(level)).ok


def test_closure_reads_what_names_others(filled: Store) -> None:
    """A damaged directory, and one whose file is gone, are found without reading a file."""
    filled.spill()
    tree = filled.objects.find(filled.commit("main").tree)
    assert tree is not None
    file = Path(filled.location, "packs", tree.pack.file or "")
    data = bytearray(file.read_bytes())
    data[tree.slot.payload_offset + 3] ^= 1
    file.write_bytes(data)
    assert fsck(filled, extent=FsckExtent(FsckLevel.STRUCTURE)).ok
    assert not fsck(filled, extent=FsckExtent(FsckLevel.CLOSURE)).ok


def test_a_sample_reads_a_part(filled: Store) -> None:
    """About so much as was asked for, and the rest is counted."""
    report = fsck(filled, extent=FsckExtent(sample=0.35))
    assert report.ok
    assert report.unread_count == FILES - 2
    assert fsck(filled, extent=FsckExtent(sample=1.0)).unread_count == 0


def test_short_checks_come_round(filled: Store) -> None:
    """No time reads no file; a pack a time, oldest first, all are read once before any is again."""
    assert stats(filled).verified_us is None
    report = fsck(filled, extent=FsckExtent(budget_ms=0.0, oldest_first=True))
    assert (report.ok, report.unread_count) == (True, FILES)
    for done in range(FILES):
        assert stats(filled).verified_us is None
        report = fsck(filled, extent=FsckExtent(sample=0.1, oldest_first=True))
        assert report.unread_count == FILES - 1, done
    first = stats(filled).verified_us
    assert first is not None
    fsck(filled, extent=FsckExtent(sample=0.1, oldest_first=True))
    second = stats(filled).verified_us
    assert second is not None
    assert second > first
    write(filled, files={"new": os.urandom(1_300_000)})
    assert stats(filled).verified_us is None


def test_what_is_damaged_was_not_verified(filled: Store) -> None:
    """A pack with a fault does not count as read and found good."""
    fsck(filled)
    assert stats(filled).verified_us is not None
    flip_payload(filled, "f1")
    fsck(filled)
    assert stats(filled).verified_us is None


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_executor_finds_the_same(filled: Store, kind: str) -> None:
    """Workers give what one thread gives: counts, and the same findings of the same damage."""
    pool: Executor = (
        ThreadPoolExecutor(2)
        if kind == "threads"
        else ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    )
    with pool:
        assert fsck(filled, executor=pool) == fsck(filled)
        flip_payload(filled, "f0")
        flip_payload(filled, "f3")
        alone = fsck(filled)
        assert not alone.ok
        assert fsck(filled, executor=pool) == alone


def test_findings_name_the_repair(filled: Store) -> None:
    """Loss asks for another place, and the command stands in the finding."""
    flip_payload(filled, "f0")
    (finding,) = fsck(filled).findings
    assert (finding.code, finding.repair) == ("object-lost", REPAIRS["object-lost"])
    assert "--from" in finding.repair


@pytest.mark.parametrize(
    "extent",
    [
        FsckExtent(sample=0.0),
        FsckExtent(sample=1.5),
        FsckExtent(budget_ms=-1.0),
        FsckExtent(FsckLevel.CLOSURE, 0.5),
    ],
)
def test_what_cannot_be_asked_for(filled: Store, extent: FsckExtent) -> None:
    """Samples and times that are none are refused."""
    with pytest.raises(Invalid):
        fsck(filled, extent=extent)
