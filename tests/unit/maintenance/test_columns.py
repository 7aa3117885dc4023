"""Sorted columns on disk: what is read is what was written, or an error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cas.errors import Uncounted
from cas.maintenance.gc import columns
from cas.maintenance.gc.columns import (
    KEY_BYTES,
    Column,
    Gathering,
    entries_in,
    entry,
    merged_pairs,
    merged_sums,
    split,
    write_column,
)

TOKEN = b"t" * 16
KEYS = st.integers(0, 40).map(lambda at: bytes([at * 6 % 256, at]) + b"k" * (KEY_BYTES - 2))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three entries, and few of all that is bounded."""
    monkeypatch.setattr(columns, "_BLOCK_ENTRIES", 3)
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 3 * 20)
    monkeypatch.setattr(columns, "_BLOCKS_KEPT", 2)
    monkeypatch.setattr(columns, "_HELD_MAX", 5)
    monkeypatch.setattr(columns, "_FEW", 2)


SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@SETTINGS
@given(st.lists(KEYS, max_size=60), st.dictionaries(KEYS, st.integers(0, 9), max_size=20))
def test_counts_are_those_of_a_dictionary(
    tmp_path: Path, keys: list[bytes], changed: dict[bytes, int]
) -> None:
    """What was gathered, then changed, and written anew each time, is what a dictionary says."""
    gathering = Gathering(str(tmp_path))
    for at in range(0, len(keys), 4):
        gathering.add(keys[at : at + 4])
    path = str(tmp_path / "column")
    write_column(path, TOKEN, gathering.parts())
    gathering.close()
    expected = Counter(keys)
    column = Column(path, TOKEN)
    assert [split(e) for block in column.blocks() for e in entries_in(block)] == sorted(
        expected.items()
    )
    asked = sorted({*keys, *changed})
    assert column.among(asked) == set(keys)
    write_column(path + "2", TOKEN, merged_sums(column, changed))
    after = Column(path + "2", TOKEN)
    both = {key: count for key, count in {**expected, **changed}.items() if count}
    for key in asked:
        assert column.numbers(key) == ([expected[key]] if key in expected else [])
        assert after.numbers(key) == ([both[key]] if key in both else [])
    assert after.count == len(both)
    column.close()
    after.close()


@SETTINGS
@given(
    st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=40),
    st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=20),
    st.sets(st.integers(0, 5)),
)
def test_pairs_are_those_of_a_set(
    tmp_path: Path,
    first: list[tuple[bytes, int]],
    more: list[tuple[bytes, int]],
    alive: set[int],
) -> None:
    """Several numbers of a key are all found, also across blocks, and dead ones go."""
    gathering = Gathering(str(tmp_path), pairs=True)
    gathering.add([entry(*pair) for pair in first])
    path = str(tmp_path / "column")
    write_column(path, TOKEN, gathering.parts())
    gathering.close()
    column = Column(path, TOKEN)
    for key, _number in first:
        assert column.numbers(key) == sorted({n for k, n in first if k == key})
    fresh = [entry(*pair) for pair in more]
    write_column(path + "2", TOKEN, merged_pairs(column, fresh, alive))
    after = Column(path + "2", TOKEN)
    expected = sorted({pair for pair in (*first, *more) if pair[1] in alive})
    assert [split(e) for block in after.blocks() for e in entries_in(block)] == expected
    column.close()
    after.close()


def test_each_bit_of_a_column_counts(tmp_path: Path) -> None:
    """Whatever bit was flipped, and wherever the file was cut: nothing wrong is read."""
    path = tmp_path / "column"
    keys = [bytes([at]) * KEY_BYTES for at in range(8)]
    write_column(str(path), TOKEN, [[entry(key, at + 1) for at, key in enumerate(keys)]])
    whole = path.read_bytes()

    def is_right() -> bool:
        try:
            column = Column(str(path), TOKEN)
        except Uncounted:
            return True
        try:
            return [column.numbers(key) for key in keys] == [[at + 1] for at in range(8)]
        except Uncounted:
            return True
        finally:
            column.close()

    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert is_right(), at
        path.write_bytes(whole[:at])
        assert is_right(), at
    path.write_bytes(whole)
    with pytest.raises(Uncounted):
        Column(str(path), b"u" * 16)
