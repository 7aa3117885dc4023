"""Deltas in a store: chosen where they pay, read back, bounded, and never trusted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

import cas
from cas.errors import CasError, Condemned, CorruptObject, ObjectNotFound
from cas.history.store import Store
from cas.limits import DELTA_DEPENDANTS_MAX, DELTA_DEPTH_MAX
from cas.maintenance.fsck.check import fsck
from cas.model.ids import Kind, digest_of
from cas.objects import deltas as chooser
from cas.objects.bulk import _TABLE_FROM, BulkReader
from cas.objects.packs import Copy
from cas.objects.pipeline import Submitted
from cas.storage.codec import DELTA, RAW, compressed_sizes
from cas.storage.delta import encode_delta
from cas.storage.pack import EDGE_BASE, Slot
from tests.unit.maintenance.plant import Made, flip, install


def text(rng: random.Random, lines: int = 200) -> bytes:
    """Something that compresses by about half."""
    return b"".join(b"%x\n" % rng.getrandbits(200) for _ in range(lines))


def get(store: Store, id: bytes) -> bytes:
    """A blob of a store."""
    return store.objects.get(id, Kind.BLOB)


def changed(content: bytes, number: int) -> bytes:
    """The next version: one line more, somewhere in the middle."""
    at = len(content) // 2
    return content[:at] + b"\nversion %d\n" % number + content[at:]


def put_on(
    store: Store, pairs: Sequence[tuple[bytes, bytes | None]], kind: Kind = Kind.BLOB
) -> None:
    """Contents into one pack file, each with the base that it may become a delta of."""
    with store.objects.batch() as batch:
        items = []
        for content, base in pairs:
            id = digest_of(kind, content)
            batch.hint(id, base)
            items.append(Submitted(id, kind, content, None, len(content)))
        batch.rewrite(items)


def versions(store: Store, count: int, rng: random.Random) -> list[bytes]:
    """A content and its later versions, each put with the one before as base."""
    contents = [text(rng)]
    store.put(contents[0])
    for number in range(1, count):
        contents.append(changed(contents[-1], number))
        put_on(store, [(contents[-1], digest_of(Kind.BLOB, contents[-2]))])
    return contents


def allow_chains(monkeypatch: pytest.MonkeyPatch, depth_max: int) -> None:
    """Have deltas made of deltas, however short these are."""
    monkeypatch.setattr(chooser, "DELTA_DEPTH_WRITTEN", depth_max)
    monkeypatch.setattr(chooser, "_DRIFTED", 1 << 30)


def slots(store: Store, content: bytes, kind: Kind = Kind.BLOB) -> list[Slot]:
    """The copies of an object."""
    return [copy.slot for copy in store.objects.lookup.copies(digest_of(kind, content))]


@pytest.mark.parametrize("depth_max", range(1, DELTA_DEPTH_MAX + 1))
def test_versions_are_deltas_and_read_back(
    store: Store, rng: random.Random, depth_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depths rise to the limit and begin anew; every way of reading gives every version."""
    allow_chains(monkeypatch, depth_max)
    contents = versions(store, 12, rng)
    depths = [slots(store, content)[0].depth for content in contents]
    assert depths == [0, *[number % depth_max + 1 for number in range(11)]]
    assert all(slots(store, c)[0].stored_bytes < 400 for c in contents[1:])
    ids = [digest_of(Kind.BLOB, content) for content in contents]
    assert [get(store, id) for id in ids] == contents
    assert [content for _id, _kind, content in store.objects.get_many(ids)] == contents
    found = [item for group in BulkReader(store.objects).read(ids) for item in group]
    assert [bytes(item.content) for item in found] == contents
    assert [store.objects.open(id).read() for id in ids] == contents
    with cas.open(store.location, read_only=True) as other:
        assert [get(other, id) for id in ids] == contents
    report = fsck(store)
    assert report.findings == ()
    assert report.object_count == len(contents)


def test_a_version_that_has_hardly_changed_is_no_base(store: Store, rng: random.Random) -> None:
    """While the delta before is short the next one is made of the same whole object; of a version
    that has drifted away it is made of that, at depth 2, and the one after it goes back.
    """
    old = [b"%050x\n" % rng.getrandbits(200) for _ in range(200)]
    versions = [old]
    for number in range(8):
        first = 6 * number
        new = [b"%050x\n" % rng.getrandbits(200) for _ in range(6)]
        versions.append(versions[-1][:first] + new + versions[-1][first + 6 :])
    contents = [b"".join(version) for version in versions]
    store.put(contents[0])
    for below, content in pairwise(contents):
        put_on(store, [(content, digest_of(Kind.BLOB, below))])
    made = [slots(store, content)[0] for content in contents]
    assert [slot.depth for slot in made[:3]] == [0, 1, 1]
    assert max(slot.depth for slot in made) == 2
    for slot, after in pairwise(made[1:]):
        drifted = slot.depth == 1 and slot.stored_bytes * 16 > slot.raw_bytes
        assert after.depth == 1 + drifted


def test_the_edge_of_a_delta_is_its_base(store: Store, rng: random.Random) -> None:
    """The footer says what the payload says."""
    first, second = versions(store, 2, rng)
    (pack,) = [p for p in store.objects.lookup.state.packs.values() if p.file is not None]
    footer = store.objects.lookup.footer(pack)
    ((number, role, target),) = footer.edges()
    assert (role, target) == (EDGE_BASE, digest_of(Kind.BLOB, first))
    assert footer.id_at(number) == digest_of(Kind.BLOB, second)


def test_what_a_delta_is_made_of_is_told_with_and_without_a_table(
    store: Store, rng: random.Random
) -> None:
    """A pack that is asked often is asked once for all edges of its footer."""
    first = text(rng)
    base = store.put(first)
    later = [changed(first, number) for number in range(2 * _TABLE_FROM)]
    put_on(store, [(content, base) for content in later])
    reader = BulkReader(store.objects)
    for content in later:
        id = digest_of(Kind.BLOB, content)
        place = reader.find(id)
        assert place is not None
        assert reader.base_of(id, place) == base
    assert [set(table.bases.values()) for table in reader._tables] == [{base}]


def test_what_would_not_pay_is_stored_whole(store: Store, rng: random.Random) -> None:
    """Short contents, contents that share nothing, bases that are far too long or not there."""
    base = text(rng)
    store.put(base)
    id = digest_of(Kind.BLOB, base)
    others = [b"short\n" * 20, text(rng), changed(base, 1)]
    put_on(store, [(others[0], id), (others[1], id), (others[2], bytes(32))])
    huge = rng.randbytes(1 << 20)
    store.put(huge)
    others.append(huge[:1000])
    put_on(store, [(others[3], digest_of(Kind.BLOB, huge))])
    assert {slots(store, content)[0].codec == DELTA for content in others} == {False}
    assert [get(store, digest_of(Kind.BLOB, content)) for content in others] == others


@pytest.mark.parametrize("new_share", [0.1, 0.9])
@pytest.mark.parametrize("is_digits", [True, False])
def test_a_delta_is_two_thirds_of_the_whole_at_most(
    store: Store, rng: random.Random, is_digits: bool, new_share: float
) -> None:
    """However far both can be compressed, which the frame of the older version tells, or samples
    where it has none.
    """

    def lines(count: int) -> list[bytes]:
        if is_digits:
            return [b"%0100d" % rng.randrange(10**100) for _ in range(count)]
        return [rng.randbytes(100) for _ in range(count)]

    old = lines(400)
    kept_count = round(len(old) * (1 - new_share))
    content = b"".join(old[:kept_count] + lines(len(old) - kept_count))
    store.put(b"".join(old))
    put_on(store, [(content, digest_of(Kind.BLOB, b"".join(old)))])
    (slot,) = slots(store, content)
    (whole_bytes,) = compressed_sizes([content])
    assert (slot.codec == DELTA) == (new_share < 0.5)
    assert slot.stored_bytes < 0.6 * whole_bytes or slot.codec != DELTA


def test_a_base_of_another_kind_or_group_is_none(store: Store, rng: random.Random) -> None:
    """Lengths leak between groups; a node is no base of a blob."""
    base = text(rng)
    put_on(store, [(base, None)], Kind.TREE)
    put_on(store, [(changed(base, 1), digest_of(Kind.TREE, base))])
    assert slots(store, changed(base, 1))[0].codec != DELTA
    content = text(rng)
    id = digest_of(Kind.BLOB, content)
    with store.objects.batch() as batch:
        batch.rewrite([Submitted(id, 1, content, None, len(content), group=2)])
    put_on(store, [(changed(content, 1), id)])
    assert slots(store, changed(content, 1))[0].codec != DELTA


def test_a_store_without_the_feature_imports_no_deltas(tmp_path: Path, rng: random.Random) -> None:
    """The name in the features list is what an older reader refuses; without it there are none."""
    folder = tmp_path / "folder"
    folder.mkdir()
    from cas.worktree.importer import import_folder

    for deltas, expected in ((False, False), (True, True)):
        with cas.open(tmp_path / f"store {deltas}", create=True, deltas=deltas) as opened:
            assert opened.objects.meta.features == ("deltas",) * deltas + ("dictionaries",)
            for number in range(3):
                for name in range(40):
                    content = text(random.Random(name), 2000)
                    (folder / str(name)).write_bytes(changed(content, number))
                import_folder(opened, folder)
            copies = [
                slot.codec
                for pack in opened.objects.lookup.state.packs.values()
                for slot in opened.objects.lookup.footer(pack).slots()
            ]
            assert (DELTA in copies) == expected
            assert fsck(opened).findings == ()


def test_a_base_with_many_dependants_gets_a_second_copy(store: Store, rng: random.Random) -> None:
    """Damage to one copy of it then loses nothing."""
    base = text(rng)
    put_on(store, [(base, None)])
    first = slots(store, base)
    made = [changed(base, number) for number in range(DELTA_DEPENDANTS_MAX + 6)]
    id = digest_of(Kind.BLOB, base)
    put_on(store, [(content, id) for content in made])
    copies = list(store.objects.lookup.copies(id))
    assert len(first) == 1
    assert len(copies) == 2
    assert {copy.slot.depth for copy in copies} == {0}
    oldest = min(copies, key=lambda copy: copy.pack.number)
    assert oldest.pack.file is not None
    flip(Path(store.location, "packs", oldest.pack.file), oldest.slot.payload_offset + 50)
    for content in made:
        assert get(store, digest_of(Kind.BLOB, content)) == content
    report = fsck(store)
    assert [finding.code for finding in report.findings] == ["copy-damaged"]
    assert f"{len(made)} objects are made of it" in report.findings[0].message


def test_damage_to_a_base_is_told_for_all_that_hangs_on_it(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every version above it is an error, every one below it stays; fsck counts them."""
    allow_chains(monkeypatch, DELTA_DEPTH_MAX)
    contents = versions(store, 5, rng)
    (copy,) = store.objects.lookup.copies(digest_of(Kind.BLOB, contents[2]))
    assert copy.pack.file is not None
    flip(Path(store.location, "packs", copy.pack.file), copy.slot.payload_offset + 50)
    with cas.open(store.location, read_only=True) as fresh:
        for content in contents[:2]:
            assert get(fresh, digest_of(Kind.BLOB, content)) == content
        for content in contents[2:]:
            with pytest.raises(CorruptObject):
                get(fresh, digest_of(Kind.BLOB, content))
        report = fsck(fresh)
    lost = {f.subject: f.message for f in report.findings if f.code == "object-lost"}
    assert lost.keys() == {digest_of(Kind.BLOB, content).hex() for content in contents[2:]}
    assert "2 objects are made of it" in lost[digest_of(Kind.BLOB, contents[2]).hex()]
    store.put(contents[2] + b"!")
    with store.objects.batch() as batch:
        id = digest_of(Kind.BLOB, contents[2])
        batch.rewrite([Submitted(id, 1, contents[2], None, len(contents[2]))])
    assert [get(store, digest_of(Kind.BLOB, content)) for content in contents] == contents


def planted(store: Store, chain: Sequence[tuple[bytes, bytes, int]], codec: int = DELTA) -> None:
    """Copies by hand: (content, content of the base, depth)."""
    records, edges = [], []
    for content, base, depth in chain:
        id, below = digest_of(Kind.BLOB, content), digest_of(Kind.BLOB, base)
        frame = encode_delta(content, base)
        assert frame is not None
        records.append(Made(id, 1, below + frame, codec, len(content), depth))
        edges.append((id, EDGE_BASE, below))
    install(store, records, edges)
    store.objects.lookup.refresh()


def refused(store: Store, content: bytes) -> None:
    """Neither way of reading gives the object, and fsck does not call the store good."""
    id = digest_of(Kind.BLOB, content)
    with pytest.raises((CorruptObject, ObjectNotFound)):
        get(store, id)
    ((item,),) = BulkReader(store.objects).read([id])
    assert item.content is None
    assert not fsck(store).ok


def test_deltas_of_each_other_end(store: Store) -> None:
    """Two that name each other, and one that names itself, whatever their depths say."""
    first, second = b"first " * 100, b"second " * 100
    planted(store, [(first, second, 1), (second, first, 1)])
    refused(store, first)
    refused(store, second)
    third = b"third " * 100
    planted(store, [(third, third, 4)])
    refused(store, third)


def test_depths_that_lie_are_refused(store: Store) -> None:
    """A base is read from a copy of smaller depth only, though another would give the bytes."""
    whole, middle, top = b"whole " * 100, b"middle " * 100, b"top " * 100
    store.put(whole)
    planted(store, [(middle, whole, 3), (top, middle, 3)])
    assert get(store, digest_of(Kind.BLOB, middle)) == middle
    refused(store, top)


@pytest.mark.parametrize("depth", [0, DELTA_DEPTH_MAX + 1, 255])
def test_depths_that_cannot_be_hide_no_other_pack(store: Store, depth: int) -> None:
    """A pack that states them is refused by name; the rest stays."""
    whole, above = b"whole " * 100, b"above " * 100
    store.put(whole)
    planted(store, [(above, whole, depth)])
    assert get(store, digest_of(Kind.BLOB, whole)) == whole
    refused(store, above)


def test_a_missing_base_is_damage(store: Store) -> None:
    """Not "there is no such object": the object is named, and it cannot be had."""
    planted(store, [(b"above " * 100, b"never put " * 100, 1)])
    id = digest_of(Kind.BLOB, b"above " * 100)
    with pytest.raises(CorruptObject, match="is a delta of"):
        get(store, id)
    refused(store, b"above " * 100)


def test_a_base_whose_bit_is_set_is_none(store: Store, rng: random.Random) -> None:
    """A condemned copy is no base."""
    contents = versions(store, 2, rng)
    (copy,) = store.objects.lookup.copies(digest_of(Kind.BLOB, contents[0]))
    with store.objects.catalog.write() as writer:
        head = writer.head()
        writer.set_vector(copy.pack.number, head.version + 1, b"\x01")
        writer.remove_packs([], head.version + 1, head.condemn_seq + 1)
    store.objects.lookup.refresh()
    refused(store, contents[1])


def test_contents_of_another_make_are_refused(store: Store) -> None:
    """A frame that gives other bytes than the id says."""
    base, content = b"base " * 100, b"content " * 100
    store.put(base)
    frame = encode_delta(content, base)
    assert frame is not None
    id = digest_of(Kind.BLOB, b"another")
    below = digest_of(Kind.BLOB, base)
    install(store, [Made(id, 1, below + frame, DELTA, len(content), 1)], [(id, EDGE_BASE, below)])
    store.objects.lookup.refresh()
    refused(store, b"another")


def test_a_spill_moves_deltas_as_they_are(store: Store, rng: random.Random) -> None:
    """Small pack files are gathered; depth, group and edges go with their records."""
    contents = versions(store, 7, rng)
    # As sets: one in so many objects has a second copy, which a spill takes for superfluous.
    before = {c: {s[5:] for s in slots(store, c)} for c in contents}
    store.spill()
    assert len(store.objects.lookup.state.packs) == 1
    assert {c: {s[5:] for s in slots(store, c)} for c in contents} == before
    (pack,) = store.objects.lookup.state.packs.values()
    assert len(store.objects.lookup.footer(pack).edges()) == 6
    assert [get(store, digest_of(Kind.BLOB, content)) for content in contents] == contents
    assert fsck(store).findings == ()


def test_a_spill_keeps_the_copy_that_others_hang_on(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two copies of a base the lower one is not given up for the deeper one."""
    allow_chains(monkeypatch, 2)
    base, other, above = versions(store, 3, rng)[0], text(rng), b""
    chain = [other, changed(other, 1), changed(changed(other, 1), 2)]
    store.put(chain[0])
    for below, content in pairwise(chain):
        put_on(store, [(content, digest_of(Kind.BLOB, below))])
    middle = changed(base, 1)
    above = changed(middle, 2)
    assert slots(store, above)[0].depth == 2
    deeper = digest_of(Kind.BLOB, chain[2])
    frame = encode_delta(middle, chain[2])
    assert frame is not None
    id = digest_of(Kind.BLOB, middle)
    made = Made(id, 1, deeper + frame, DELTA, len(middle), 3)
    install(store, [made], [(id, EDGE_BASE, deeper)], name=rng.randbytes(16))
    store.objects.lookup.refresh()
    assert sorted(slot.depth for slot in slots(store, middle)) == [1, 3]
    for _ in range(3):
        store.spill()
        assert get(store, digest_of(Kind.BLOB, above)) == above
        assert fsck(store).ok


def test_a_batch_reads_the_deltas_that_it_has_staged(store: Store, rng: random.Random) -> None:
    """On their way, written to the file at hand, and in a pack that is full."""
    base = text(rng)
    store.put(base)
    made = [changed(base, number) for number in range(40)]
    below = digest_of(Kind.BLOB, base)
    with store.objects.batch() as batch:
        for content in made:
            id = digest_of(Kind.BLOB, content)
            batch.hint(id, below)
            batch.rewrite([Submitted(id, 1, content, None, len(content))])
            assert store.objects.staged(batch, id) == (1, content)
        batch.seal()
        for content in made:
            id = digest_of(Kind.BLOB, content)
            assert store.objects.staged(batch, id) == (1, content)
            assert store.objects.measure(batch, id) == (1, len(content))
    assert {slots(store, content)[0].codec for content in made} == {DELTA}
    assert slots(store, base)[0].codec in (RAW, 1)


def test_a_base_that_was_condemned_meanwhile_stops_the_commit(
    store: Store, rng: random.Random
) -> None:
    """What a delta is made of is looked up again at the commit, like whatever it names (E6)."""
    base = text(rng)
    put_on(store, [(base, None)])
    (copy,) = store.objects.lookup.copies(digest_of(Kind.BLOB, base))
    batch = store.objects.new_batch()
    content = changed(base, 1)
    id = digest_of(Kind.BLOB, content)
    batch.hint(id, digest_of(Kind.BLOB, base))
    batch.rewrite([Submitted(id, 1, content, None, len(content))])
    batch.seal()
    with store.objects.catalog.write() as writer:
        head = writer.head()
        writer.set_vector(copy.pack.number, head.version + 1, b"\x01")
        writer.remove_packs([], head.version + 1, head.condemn_seq + 1)
    with pytest.raises(Condemned, match="was condemned"):
        store.objects.commit(batch)
    batch.abandon()


def test_every_flipped_byte_is_told_or_harmless(store: Store, rng: random.Random) -> None:
    """Of a pack of deltas: each object is its right bytes or a typed error, and fsck ends."""
    base = text(rng, 12)
    store.put(base)
    made = [changed(base, number) for number in range(2)]
    put_on(store, [(content, digest_of(Kind.BLOB, base)) for content in made])
    assert {slots(store, content)[0].codec for content in made} == {DELTA}
    (pack,) = Path(store.location, "packs").iterdir()
    whole = pack.read_bytes()
    for at in range(len(whole)):
        pack.write_bytes(whole[:at] + bytes((whole[at] ^ 1 << at % 8,)) + whole[at + 1 :])
        with cas.open(store.location, read_only=True) as fresh:
            assert get(fresh, digest_of(Kind.BLOB, base)) == base
            for content in made:
                with suppress(CasError):
                    assert get(fresh, digest_of(Kind.BLOB, content)) == content
            if at % 20 == 0:
                fsck(fresh)
    pack.write_bytes(whole)
    assert fsck(store).findings == ()


def test_a_base_is_decoded_once_for_many_deltas(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions read again and again cost one decoding of their base, and give the same bytes."""
    rng = random.Random(17)
    base = text(rng)
    store.put(base)
    store.spill()
    later = [changed(base, number) for number in range(8)]
    for content in later:
        put_on(store, [(content, digest_of(Kind.BLOB, base))])
    assert all(slots(store, content)[0].codec == DELTA for content in later)
    asked: list[bytes] = []
    load = store.objects._load

    def counted(copy: Copy, *more: object) -> tuple[int, bytes]:
        asked.append(copy.slot.id)
        return load(copy, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(store.objects, "_load", counted)
    for _ in range(2):
        assert [get(store, digest_of(Kind.BLOB, content)) for content in later] == later
    assert asked.count(digest_of(Kind.BLOB, base)) <= 1
