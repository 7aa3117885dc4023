"""What exists is answered alike from a dict, from compact columns, and from a file."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.maintenance.fsck.known import SIZE_MAX, UNREAD, Known, code_of, split_code
from cas.model.ids import Kind, digest_blob

IDS = st.integers(0, 40).map(lambda n: digest_blob(b"%d" % n))
CODES = st.integers(0, 2**64 - 1) | st.integers(2**32 - 20, 2**32 + 2) | st.integers(0, 99)
ROWS = st.lists(st.tuples(IDS, CODES | st.integers(2**64 - 20, 2**64 - 1)), max_size=60)


@given(st.lists(ROWS, max_size=4), st.integers(0, 30), st.integers(0, 80), st.booleans())
def test_it_answers_as_a_dict_does(
    batches: list[list[tuple[bytes, int]]], dict_max: int, held_max: int, aside: bool
) -> None:
    """However many ids come, in however many rounds, in memory and put aside in a file, every
    answer is that of a dict.
    """
    folder = tempfile.gettempdir() if aside else None
    with closing(Known(folder, dict_max, held_max)) as known:
        model = dict[bytes, int]()
        for rows in batches:
            half = len(rows) // 2
            known.add(rows[:half])
            known.add(rows[half:])
            known.freeze()
            model.update(rows)
            assert len(known) == len(model)
            assert sorted(known.codes()) == sorted(model.values())
            for number in range(42):
                id = digest_blob(b"%d" % number)
                assert known.get(id) == model.get(id)


@given(st.lists(IDS, min_size=1, unique=True), st.integers(0, 5))
def test_codes_can_be_replaced(ids: list[bytes], dict_max: int) -> None:
    """A tree node that was decoded gets its own size, in both forms."""
    known = Known(dict_max=dict_max)
    known.add([(id, code_of(Kind.TREE, 0)) for id in ids])
    known.freeze()
    for size, id in enumerate(ids):
        known.replace(id, code_of(Kind.TREE, size))
    for size, id in enumerate(ids):
        code = known.get(id)
        assert code is not None
        assert split_code(code) == (Kind.TREE, size)


@pytest.mark.parametrize("aside", [False, True])
def test_neighbours_are_told_apart(aside: bool, tmp_path: Path) -> None:
    """Ids that share their first eight bytes are different objects, however many there are; also
    where one is found across two others.
    """
    ids = [b"\x01" * 8 + n.to_bytes(2, "big") + bytes(22) for n in range(500)]
    ids += [b"\x01" * 7 + bytes([n]) * 25 for n in (0, 2)] + [b"\x01" * 32]
    with closing(Known(str(tmp_path) if aside else None, 0, 100)) as known:
        known.add([(id, n) for n, id in enumerate(ids)])
        known.freeze()
        assert [known.get(id) for id in ids] == list(range(503))
        for other in (b"\x01" * 8 + b"\xff" * 24, b"\x01" + bytes(31), b"\x01" + b"\xff" * 31):
            assert known.get(other) is None


@pytest.mark.parametrize("size", [0, 1, SIZE_MAX, SIZE_MAX + 1, 2**64 - 1])
def test_sizes_fit(size: int) -> None:
    """Every size fits a column of 64 bits, and none is taken for one that is not known yet."""
    code = code_of(Kind.REFS, size)
    assert code < 1 << 64
    assert split_code(code) == (Kind.REFS, min(size, SIZE_MAX))
    assert split_code(code)[1] != UNREAD


@pytest.mark.parametrize(("aside", "kept_bytes", "peak_bytes"), [(False, 22, 40), (True, 6, 14)])
def test_many_objects_take_few_bytes_each(
    aside: bool, kept_bytes: int, peak_bytes: int, tmp_path: Path
) -> None:
    """A store of many objects costs 20 bytes an object, or, where ids can be put aside, 4 of each
    and what is held before: and hardly more while it is taken in.
    """
    count = 100_000
    rows = [(digest_blob(b"%d" % n), n) for n in range(count)]
    known = Known(str(tmp_path) if aside else None, 0, 20_000)
    tracemalloc.start()
    try:
        for start in range(0, count, 5_000):
            known.add(rows[start : start + 5_000])
        known.freeze()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < kept_bytes * count
    assert peak < peak_bytes * count
    assert [known.get(id) for id, _code in rows[::77]] == list(range(count))[::77]
    known.close()
    assert not os.listdir(tmp_path)


def test_where_no_file_can_be_written_ids_stay_in_memory(tmp_path: Path) -> None:
    """A folder that is not there, or a disk that is full at any moment, costs memory, and no id."""
    rows = [(digest_blob(b"%d" % n), n) for n in range(3_000)]
    known = Known(str(tmp_path / "none"), 0, 100)
    known.add(rows)
    known.freeze()
    assert [known.get(id) for id, _code in rows] == list(range(3_000))
    for room in (0, 10_000, 45_000, 70_000, 10_000_000):
        with closing(Known(str(tmp_path), 0, 100)) as known, limited(room):
            for start in range(0, 3_000, 50):
                known.add(rows[start : start + 50])
            known.freeze()
            assert [known.get(id) for id, _code in rows] == list(range(3_000))


@contextmanager
def limited(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond this; who tries is told `EFBIG`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
