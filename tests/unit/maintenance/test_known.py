"""What exists is answered alike from a dict and from the compact arrays."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.maintenance.fsck.known import SIZE_MAX, UNREAD, Known, code_of, split_code
from cas.model.ids import Kind, digest_blob

IDS = st.integers(0, 40).map(lambda n: digest_blob(b"%d" % n))
CODES = st.integers(0, 2**64 - 1) | st.integers(2**32 - 20, 2**32 + 2) | st.integers(0, 99)
ROWS = st.lists(st.tuples(IDS, CODES | st.integers(2**64 - 20, 2**64 - 1)), max_size=60)


@given(st.lists(ROWS, max_size=4), st.integers(0, 30))
def test_it_answers_as_a_dict_does(batches: list[list[tuple[bytes, int]]], dict_max: int) -> None:
    """However many ids come, and in however many rounds, every answer is that of a dict."""
    known, model = Known(dict_max), dict[bytes, int]()
    for rows in batches:
        known.add(rows)
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
    known = Known(dict_max)
    known.add([(id, code_of(Kind.TREE, 0)) for id in ids])
    known.freeze()
    for size, id in enumerate(ids):
        known.replace(id, code_of(Kind.TREE, size))
    for size, id in enumerate(ids):
        code = known.get(id)
        assert code is not None
        assert split_code(code) == (Kind.TREE, size)


def test_neighbours_are_told_apart() -> None:
    """Ids that share their first eight bytes are different objects."""
    ids = [b"\x01" * 8 + bytes([n]) * 24 for n in range(5)]
    known = Known(0)
    known.add([(id, n) for n, id in enumerate(ids)])
    known.freeze()
    assert [known.get(id) for id in ids] == [0, 1, 2, 3, 4]
    assert known.get(b"\x01" * 8 + bytes([9]) * 24) is None


@pytest.mark.parametrize("size", [0, 1, SIZE_MAX, SIZE_MAX + 1, 2**64 - 1])
def test_sizes_fit(size: int) -> None:
    """Every size fits a column of 64 bits, and none is taken for one that is not known yet."""
    code = code_of(Kind.REFS, size)
    assert code < 1 << 64
    assert split_code(code) == (Kind.REFS, min(size, SIZE_MAX))
    assert split_code(code)[1] != UNREAD


def test_many_objects_take_20_bytes_each() -> None:
    """A store of many objects costs 20 bytes an object, and hardly more while it is taken in."""
    count = 100_000
    rows = [(digest_blob(b"%d" % n), n) for n in range(count)]
    tracemalloc.start()
    try:
        known = Known(0)
        for start in range(0, count, 5_000):
            known.add(rows[start : start + 5_000])
        known.freeze()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 22 * count
    assert peak < 40 * count
    assert known.get(rows[77][0]) == 77
