"""Spill: what was readable stays readable, whoever works beside it and whatever is damaged."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import CasError
from cas.history.store import Store
from cas.model.ids import BlobId
from cas.objects.packs import bit_is_set
from cas.testing import stores
from tests.unit.kit import commits, reopened, tamper, write

SLOTS = 24
"""Where the slots of a footer begin."""

Row = tuple[bytearray, bytearray]


def outcomes(store: Store, ids: list[BlobId]) -> list[str]:
    """What a fresh handle says of each object: ok, or the code of the error."""
    said = []
    with reopened(store) as other:
        for id in ids:
            try:
                other.get(id)
                said.append("ok")
            except CasError as error:
                said.append(error.code)
    return said


def inline_row(store: Store, number: int) -> Row:
    """Footer and body of an inline pack."""
    with store.objects.catalog.read() as reader:
        ((found, footer, body),) = reader.bodies(number - 1, 1)
    assert found == number
    assert footer is not None
    return bytearray(footer), bytearray(body)


def put_back(store: Store, number: int, row: Row) -> None:
    """Replace footer and body of an inline pack."""
    footer, body = map(bytes, row)
    tamper(store, "UPDATE pack SET footer = ?, body = ? WHERE number = ?", footer, body, number)


def test_everything_moves_into_one_file(store: Store) -> None:
    """After a spill there are no inline packs, one file, and every byte is where it was named."""
    contents = [os.urandom(at * 40) for at in range(60)]
    ids = [store.put(content) for content in contents]
    commits(store, 5)
    assert store.spill() == 65
    assert [(p.file is None) for p in store.objects.lookup.state.packs.values()] == [False]
    assert list(store.get_many(ids)) == contents
    assert dict(store.snapshot("main~2")) == {"n": b"2"}
    with reopened(store) as other:
        assert list(other.get_many(ids)) == contents
        assert [entry.seq for entry in other.journal()] == [1, 2, 3, 4, 5]
    assert store.spill() == 0


def test_small_files_are_gathered_too(store: Store) -> None:
    """Packs below a mebibyte that lie in files become one file, and the old files go."""
    contents = [[os.urandom(70_000) for _ in range(3)] for _ in range(4)]
    ids = [store.put_many(group) for group in contents]
    packs = Path(store.location) / "packs"
    assert len(list(packs.iterdir())) == 4
    assert store.spill() == 4
    assert len(list(packs.iterdir())) == 1
    for group, named in zip(contents, ids, strict=True):
        assert list(store.get_many(named)) == group


def test_one_pack_alone_stays(store: Store) -> None:
    """There is nothing to gather from a single pack or from none."""
    assert store.spill() == 0
    store.put(b"alone")
    assert store.spill() == 0


def test_another_handle_reads_on(store: Store) -> None:
    """A handle whose snapshot is from before the spill finds everything: the index catches up."""
    ids = [store.put(b"%d" % at) for at in range(20)]
    big = store.put(os.urandom(9 << 20))
    write(store, files={"a/b": b"c"})
    with reopened(store) as old, reopened(store, read_only=True) as reader:
        handles = (old, reader)
        views = [handle.view() for handle in handles]
        for handle in handles:
            assert handle.get(ids[0]) == b"0"
        store.spill()
        for handle, view in zip(handles, views, strict=True):
            assert [handle.get(id) for id in ids] == [b"%d" % at for at in range(20)]
            assert list(handle.get_many(ids)) == [b"%d" % at for at in range(20)]
            assert view.snapshot("main")["a/b"] == b"c"
            assert len(handle.open(big).read()) == 9 << 20
        assert old.put(b"7") == ids[7]


def test_a_large_blob_is_opened_after_its_pack_has_moved(store: Store) -> None:
    """`open` of content in chunks looks again when the pack with its recipe was gathered."""
    content = os.urandom(9 << 20)
    store.put(content)
    changed = store.put(content[:-5] + b"ABCDE")
    with reopened(store) as other:
        assert other.size(changed) == len(content)
        found = other.objects.lookup.find(changed)
        assert found is not None
        store.put(b"a second inline pack")
        store.spill()
        state = store.objects.lookup.state
        assert found.pack.number not in state.packs, "the recipe copy must have moved"
        with other.open(changed) as stream:
            stream.seek(-5, 2)
            assert stream.read() == b"ABCDE"


def test_two_spills_at_once_lose_nothing(store: Store) -> None:
    """A task is elected; whoever spills beside another gathers nothing or the same."""
    ids = [store.put(b"%d" % at) for at in range(30)]
    with reopened(store) as other:
        with other.objects.catalog.elect("spill") as elected:
            assert elected
            assert store.spill() == 0
        assert store.spill() == 30
        assert other.spill() == 0
        assert [other.get(id) for id in ids] == [b"%d" % at for at in range(30)]


def test_what_vanishes_meanwhile_is_born_gone(store: Store) -> None:
    """An object condemned while it was gathered does not come back with its new copy (E4)."""
    ids = [store.put(b"%d" % at) for at in range(5)]
    spill = store._spill
    assert spill._begin()
    run = spill._run
    assert run is not None
    while spill._gather(run, 64):
        pass
    with store.objects.catalog.write() as writer:
        ((number, slot),) = store.objects.lookup.young.all(ids[2])
        version = writer.head().version + 1
        writer.record_removal(version, 1)
        writer.set_vector(number, version, bytes([1 << slot]))
    assert store.spill() == 5
    said = outcomes(store, ids)
    assert said == ["ok", "ok", "object-not-found", "ok", "ok"]
    (pack,) = store.objects.lookup.state.packs.values()
    bits = store.objects.lookup.state.vectors[pack.number]
    footer = store.objects.lookup.footer(pack)
    assert [bit_is_set(bits, n) for n in range(5)] == [id == ids[2] for id in footer.ids()]
    again = store.put(b"2")
    assert store.get(again) == b"2"


def _resize(row: Row) -> Row:
    row[0][SLOTS + 36 : SLOTS + 40] = struct.pack("<I", 7)
    return row


def _move(row: Row) -> Row:
    row[0][SLOTS + 32 : SLOTS + 36] = struct.pack("<I", 70_000)
    return row


def _byte(at: int, value: int) -> Callable[[Row], Row]:
    def change(row: Row) -> Row:
        row[0][at] = value
        return row

    return change


DAMAGES: dict[str, Callable[[Row], Row]] = {
    "a stored length": _resize,
    "an offset": _move,
    "a kind": _byte(SLOTS + 48, 9),
    "the codec delta": _byte(SLOTS + 49, 3),
    "the codec recipe": _byte(SLOTS + 49, 2),
    "a footer cut short": lambda row: (row[0][:50], row[1]),
    "no footer": lambda row: (bytearray(), row[1]),
    "a body cut short": lambda row: (row[0], row[1][:100]),
    "a payload": lambda row: (row[0], row[1][:-1] + b"?"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_stays_where_it_is(store: Store, damage: str) -> None:
    """One damaged inline pack costs its own objects, before a spill and after it, and no other."""
    ids = [store.put(b"object number %d " % at * 10) for at in range(6)]
    row = DAMAGES[damage](inline_row(store, 3))
    store.close()
    put_back(store, 3, row)
    expected = ["ok", "ok", "corrupt-object", "ok", "ok", "ok"]
    assert outcomes(store, ids) == expected
    with cas.open(store.location) as again:
        assert again.spill() >= 5
    assert outcomes(store, ids) == expected


@pytest.mark.parametrize("damaged", [1, 2])
def test_the_good_copy_of_two_is_kept(store: Store, damaged: int) -> None:
    """Of an object that two writers put inline at once, one damaged copy never costs the other."""
    with reopened(store) as other:
        other.objects.lookup.ensure()
        id = store.put(b"the same object" * 10)
        assert other.put(b"the same object" * 10) == id
    with store.objects.catalog.read() as reader:
        assert list(reader.pack_numbers()) == [1, 2]
    beside = store.put(b"beside")
    footer, body = inline_row(store, damaged)
    store.close()
    put_back(store, damaged, (footer, body[:-1] + b"?"))
    assert outcomes(store, [id, beside]) == ["ok", "ok"]
    with cas.open(store.location) as again:
        again.spill()
    assert outcomes(store, [id, beside]) == ["ok", "ok"]


def test_the_older_copy_serves_when_the_newer_pack_goes(store: Store) -> None:
    """A handle that knows two inline copies finds the older one once the newer was removed."""
    with reopened(store) as other:
        other.objects.lookup.ensure()
        id = store.put(b"twice")
        other.put(b"twice")
        with other.objects.catalog.write() as writer:
            assert list(writer.pack_numbers()) == [1, 2]
        assert store.objects.lookup.refresh().version == 2
        with store.objects.catalog.write() as writer:
            writer.remove_packs([2], 3, 0)
        for handle in (store, other):
            handle.objects.lookup.refresh()
            assert handle.get(id) == b"twice"


def test_commits_carry_a_spill_in_slices(tmp_path: Path) -> None:
    """With thresholds that a few commits cross, spills run by themselves and nothing is lost."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL) as store:
        for at in range(100):
            write(store, files={f"f{at}": b"%d" % at})
        assert store.objects.lookup.inline_count < 20
    with cas.open(folder) as again:
        assert dict(again.snapshot("main")) == {f"f{at}": b"%d" % at for at in range(100)}
        assert all(len(again.at(seq).snapshot("main")) == seq for seq in range(1, 101))


def test_a_spill_that_fails_is_not_the_error_of_the_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit before it stands and is answered with its entry; the log says why."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL) as store:
        (tmp_path / "store" / "packs").rename(tmp_path / "away")
        entries = [write(store, files={f"f{at}": b"%d" % at}) for at in range(30)]
        assert [entry.seq for entry in entries] == list(range(1, 31))
        assert "spill" in caplog.text
        (tmp_path / "away").rename(tmp_path / "store" / "packs")
        assert len(store.snapshot("main")) == 30
