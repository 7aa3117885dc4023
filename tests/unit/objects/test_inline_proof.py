"""An object that hides behind a turned bit of a footer is damaged, not absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cas
from cas.catalog.statements import SqliteReader
from cas.errors import Corrupt, ObjectNotFound
from cas.history.store import Store
from cas.model.ids import BlobId
from cas.objects.proof import InlineProof
from cas.storage.pack import FOOTER_HEAD_BYTES, SLOT_BYTES
from tests.unit.kit import commits, tamper

ABSENT = BlobId(b"\x07" * 32)


def turn(store: Store, number: int, at: int) -> None:
    """Turn a bit of the footer of an inline pack."""
    with store.objects.catalog.read() as reader:
        ((_number, footer, _body),) = reader.bodies(number - 1, 1)
    assert footer is not None
    bad = bytearray(footer)
    bad[at] ^= 1
    tamper(store, "UPDATE pack SET footer = ? WHERE number = ?", bytes(bad), number)


@pytest.mark.parametrize("at", [24, 40, 55])
def test_a_turned_bit_of_an_id_is_told_as_damage(store: Store, at: int) -> None:
    """The object whose id is damaged, and any other that is not found: `Corrupt`, as fsck says."""
    ids = [store.put(b"%d" % number) for number in range(5)]
    turn(store, 3, at)
    with cas.open(store.location, read_only=True) as other:
        for id in (ids[2], ABSENT):
            for ask in (other.get, other.open, other.size):
                with pytest.raises(Corrupt) as caught:
                    ask(id)
                assert "inline pack 3" in caught.value.message
        assert [other.get(id) for id in ids if id != ids[2]] == [b"0", b"1", b"3", b"4"]


def test_what_is_absent_from_sound_packs_is_absent(store: Store) -> None:
    """Proving the footers changes no answer where they hold, whatever comes and goes."""
    for number in range(6):
        store.put(b"%d" % number)
        with pytest.raises(ObjectNotFound):
            store.get(ABSENT)
    store.spill()
    with pytest.raises(ObjectNotFound):
        store.get(ABSENT)


def test_each_footer_is_proved_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking again for what is not there reads no body again, and a look-up reads none at all."""
    for number in range(10):
        store.put(b"%d" % number)
    read: list[int] = []
    real = SqliteReader.bodies

    def counted(self: SqliteReader, after: int, limit: int) -> object:
        rows = real(self, after, limit)
        read.extend(number for number, _footer, _body in rows)
        return rows

    monkeypatch.setattr(SqliteReader, "bodies", counted)
    assert not store.has(ABSENT)
    assert read == []
    for _ in range(3):
        with pytest.raises(ObjectNotFound):
            store.get(ABSENT)
    assert read == list(range(1, 11))
    store.put(b"one more")
    with pytest.raises(ObjectNotFound):
        store.get(ABSENT)
    assert read == list(range(1, 12))


def test_others_may_commit_while_a_miss_is_proved(store: Store) -> None:
    """Packs that come in from other threads meanwhile are not in the way."""
    commits(store, 3)
    proof = InlineProof(store.objects.catalog)
    packs: dict[int, Any] = dict(store.objects.lookup.refresh().packs)

    class Growing:
        """A pack whose look shows that another thread has just committed."""

        label = "inline pack 999"

        @property
        def file(self) -> None:
            packs[1_000 + len(packs)] = self

    packs[999] = Growing()
    assert proof.faults(packs) == {}


def test_a_turned_bit_behind_a_kept_index_is_damage(store: Store) -> None:
    """An id that turned in a footer, of which a kept index knows, is told as damage, not as
    absent; what was never there is absent, and what stands elsewhere is read.
    """
    ids = [store.put(b"%d" % at) for at in range(40)]
    store.spill()
    store.get(ids[0])
    store.close()
    (file,) = Path(store.location, "packs").glob("*.pack")
    data = bytearray(file.read_bytes())
    with cas.open(store.location) as other:
        (pack,) = other.objects.lookup.refresh().packs.values()
        number = other.objects.lookup.footer(pack).find(ids[7])
        # Its last byte: the index keeps the first ones.
        data[pack.body_bytes + FOOTER_HEAD_BYTES + number * SLOT_BYTES + 31] ^= 1
    file.write_bytes(data)
    with cas.open(store.location) as other:
        with pytest.raises(ObjectNotFound):
            other.open(ABSENT)
        for ask in (other.get, other.open, other.size):
            with pytest.raises(Corrupt) as told:
                ask(ids[7])
            assert file.name in told.value.message
        assert other.get(ids[8]) == b"8"
