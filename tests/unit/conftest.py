"""Fixtures of the unit tests: a store in a folder, one in memory, a disk that is soon full."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cas
from cas.history.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Store]:
    """A new store in memory, where a test does not care."""
    with cas.open(":memory:") as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB, where this host lets us mount one."""
    with _mounted(tmp_path / "disk", "3m") as place:
        yield place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB, likewise: room for a store that keeps a reserve."""
    with _mounted(tmp_path / "disk", "32m") as place:
        yield place


@contextmanager
def _mounted(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, f"size={size}".encode()) != 0:
        pytest.skip(f"no tmpfs can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        libc.umount2(os.fsencode(place), 2)
