"""A long file is set off to the disk while it is written, which changes nothing else about it."""

from __future__ import annotations

import os
from pathlib import Path

from cas.clock import SystemClock
from cas.storage.files import OS_FILES, Files
from cas.storage.local import LocalBucket


class Told(Files):
    """The real calls; notes what was set off, and of a file how much was written by then."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int, int]] = []

    def begin_sync(self, fd: int, start: int, length: int) -> None:
        self.begun.append((start, length, os.fstat(fd).st_size))
        super().begin_sync(fd, start, length)


def test_a_long_file_is_set_off_part_by_part(tmp_path: Path) -> None:
    """Each byte at most once, only what was written, in order; the file is what was given."""
    files = Told()
    upload = LocalBucket(str(tmp_path), SystemClock(), files).create()
    pieces = [os.urandom(700_000 + 10_000 * number) for number in range(20)]
    for piece in pieces:
        upload.write(piece)
    upload.seal("whole")
    assert (tmp_path / "whole").read_bytes() == b"".join(pieces)
    ends = [start + length for start, length, _size in files.begun]
    assert [start for start, _length, _size in files.begun] == [0, *ends[:-1]]
    assert ends == [size for _start, _length, size in files.begun]
    assert len(ends) >= 2


def test_a_short_file_is_left_to_its_sync(tmp_path: Path) -> None:
    """Nothing is set off of a file that is written in one piece."""
    files = Told()
    upload = LocalBucket(str(tmp_path), SystemClock(), files).create()
    upload.write(b"short")
    upload.seal("whole")
    assert files.begun == []


def test_to_set_off_never_fails() -> None:
    """It is advice: where it cannot be given, the sync does all."""
    read, write = os.pipe()
    try:
        OS_FILES.begin_sync(write, 0, 1)
    finally:
        os.close(read)
        os.close(write)
    OS_FILES.begin_sync(write, 0, 1)
