"""Slots of pack files: the same answers from a table as one by one, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import cas
from cas.errors import ObjectNotFound
from cas.objects import slots as module
from cas.storage.pack import SLOT_BYTES


def _filled(folder: Path) -> list[cas.BlobId]:
    """The ids of 200 blobs that lie in one pack file; blob n is n in decimal digits."""
    with cas.open(folder, create=True) as store:
        ids = [store.put(b"%d" % number) for number in range(200)]
        store.spill()
    return ids


@pytest.mark.parametrize("room", [0, 1 << 20], ids=["no room", "room"])
def test_a_table_gives_what_single_slots_give(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is room for a table or not, every object is found; with one, slots are no
    longer read one by one.
    """
    ids = _filled(tmp_path / "s")
    monkeypatch.setattr(module, "FOOTER_CACHE_BYTES", room)
    with cas.open(tmp_path / "s") as store:
        bucket = store.objects.bucket
        alone = 0
        read = bucket.read

        def counted(name: str, start: int, length: int) -> bytes:
            nonlocal alone
            alone += length == SLOT_BYTES
            return read(name, start, length)

        monkeypatch.setattr(bucket, "read", counted)
        for number, id in enumerate(ids):
            assert store.get(id) == store.objects.quick.get(id) == b"%d" % number
        assert list(store.get_many(reversed(ids))) == [b"%d" % n for n in range(199, -1, -1)]
        assert not store.has(cas.BlobId(os.urandom(32)))
    assert alone <= 3 * len(ids) if room == 0 else alone < 20


def test_slots_without_a_table_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many reads at once read the slots of a pack that has no table at once, and give what is
    there; what is not is said in its place.
    """
    ids = _filled(tmp_path / "s")
    monkeypatch.setattr(module, "FOOTER_CACHE_BYTES", 0)
    with cas.open(tmp_path / "s") as store:
        lengths: list[int] = []
        bucket = store.objects.bucket
        read, read_all = bucket.read, bucket.read_all
        groups: list[int] = []

        def counted(name: str, start: int, length: int) -> bytes:
            lengths.append(length)
            return read(name, start, length)

        def together(name: str, starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
            groups.append(list(sizes).count(SLOT_BYTES))
            return read_all(name, starts, sizes)

        monkeypatch.setattr(bucket, "read", counted)
        monkeypatch.setattr(bucket, "read_all", together)
        # Another object that begins as one that is there is told apart by its slot.
        like = cas.BlobId(ids[7][:8] + bytes(24))
        wanted = [*ids, ids[3]]
        assert list(store.get_many(wanted)) == [b"%d" % n for n in (*range(200), 3)]
        assert groups[0] == 201
        assert SLOT_BYTES not in lengths
        found = store.get_many([ids[0], like])
        assert next(found) == b"0"
        with pytest.raises(ObjectNotFound):
            next(found)


def test_a_footer_damaged_elsewhere_hides_no_slot(tmp_path: Path) -> None:
    """What a damaged end of a pack file says of itself does not matter to a slot that is whole."""
    ids = _filled(tmp_path / "s")
    with cas.open(tmp_path / "s") as store:
        assert store.get(ids[0]) == b"0"
    (pack,) = (tmp_path / "s" / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-4:] = bytes(4)
    pack.chmod(0o644)
    pack.write_bytes(data)
    with cas.open(tmp_path / "s") as store:
        for number, id in enumerate(ids):
            assert store.get(id) == b"%d" % number
