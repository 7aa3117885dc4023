"""Dictionaries in a store: made where they pay, read back, never trusted, needed by no others."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.errors import CasError, CorruptObject, Invalid, NewerFormat
from cas.history.store import Store
from cas.limits import ID_BYTES, INLINE_TRANSACTION_BYTES_MAX
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId, Kind, digest_blob
from cas.objects import young
from cas.objects.bulk import BulkReader
from cas.objects.lessons import propose
from cas.objects.pipeline import Submitted
from cas.storage.codec import DICTIONARY, RAW, ZSTD
from cas.storage.dictionary import Dictionary, train
from cas.storage.header import PackHeader
from cas.storage.pack import EDGE_DICTIONARY, Slot
from cas.storage.packing import PackBuilder
from cas.storage.record import COMMON_GROUP
from cas.testing import stores
from cas.testing.memories import ENOUGH, PLENTY, memories_of
from tests.unit.maintenance.plant import Made, blob, install

SAMPLES = memories_of(random.Random(7), 600)
CONTENT = train(SAMPLES, 4096)
assert CONTENT is not None
PLANTED = Dictionary(digest_blob(CONTENT), CONTENT)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """A store that makes a dictionary of a few hundred memories."""
    folder = str(tmp_path / "small")
    stores.create(folder, clock=stores.SteppedClock("made"))
    with reopened(folder) as store:
        yield store


def reopened(folder: str) -> Store:
    """Another handle."""
    clock = stores.SteppedClock(os.urandom(4).hex())
    return stores.build(folder, clock=clock, thresholds=stores.SMALL, cached=True)


def slots(store: Store, content: bytes) -> list[Slot]:
    """The copies of a blob."""
    return [copy.slot for copy in store.objects.lookup.copies(digest_blob(content))]


def codecs(store: Store, contents: list[bytes]) -> set[int]:
    """How blobs are stored."""
    return {slot.codec for content in contents for slot in slots(store, content)}


def filled(store: Store, seed: int = 1) -> list[bytes]:
    """Memories of which a spill has made a dictionary."""
    contents = memories_of(random.Random(seed), ENOUGH)
    store.put_many(contents[:100])
    store.put_many(contents[100:])
    assert DICTIONARY not in codecs(store, contents)
    store.spill()
    return contents


def dictionary_of(store: Store) -> bytes:
    """Id of the dictionary that is written with."""
    store.objects.dictionaries.look_again(COMMON_GROUP)
    found = store.objects.dictionaries.current(COMMON_GROUP)
    assert found is not None
    return found.id


def assert_reads(store: Store, contents: list[bytes]) -> None:
    """Every way of reading gives every content."""
    ids = [BlobId(digest_blob(content)) for content in contents]
    assert [store.get(id) for id in ids] == contents
    assert list(store.get_many(ids)) == contents
    bulk = [found for group in BulkReader(store.objects).read(ids) for found in group]
    assert [bytes(found.content) for found in bulk if found.content is not None] == contents
    for id, content in zip(ids[:3], contents, strict=False):
        with store.open(id) as stream:
            assert stream.read() == content


def test_a_spill_makes_a_dictionary_and_uses_it(small: Store) -> None:
    """Small blobs lie beside one dictionary, take half or less, and are read back by any handle."""
    contents = filled(small)
    assert codecs(small, contents) == {DICTIONARY}
    stored = sum(slots(small, content)[0].stored_bytes for content in contents)
    assert 2 * stored < sum(map(len, contents))
    assert_reads(small, contents)
    id = dictionary_of(small)
    assert {slot.codec for slot in slots(small, small.get(BlobId(id)))} <= {RAW, ZSTD}
    with reopened(small.location) as again:
        assert_reads(again, contents)
        assert dictionary_of(again) == id
    with cas.open(small.location, read_only=True) as reader:
        assert_reads(reader, contents)
        assert fsck(reader).findings == ()


def test_what_comes_later_uses_it_at_once(small: Store) -> None:
    """Batches write with the dictionary, into files of their own or inline; a spill moves that."""
    first = filled(small)
    id = dictionary_of(small)
    many = memories_of(random.Random(2), ENOUGH)
    few = memories_of(random.Random(3), 20)
    one = memories_of(random.Random(4), 1)
    small.put_many(many)
    small.put_many(few)
    small.put(one[0])
    assert codecs(small, many) == codecs(small, few) == {DICTIONARY}
    assert codecs(small, one) == {RAW}
    packs = small.objects.lookup.state.packs.values()
    assert sum(pack.file is not None for pack in packs) == 2
    assert_reads(small, first + many + few + one)
    assert len(small.objects.dictionaries.users(id)) == 3
    small.spill()
    assert codecs(small, first + many + few + one) == {DICTIONARY}
    assert_reads(small, first + many + few + one)
    assert small.objects.dictionaries.copies(id, COMMON_GROUP) >= 1
    assert len(small.objects.dictionaries.users(id)) == 1
    assert fsck(small).findings == ()


def test_a_second_pack_gets_a_second_copy(small: Store) -> None:
    """The dictionary lies in two packs, so that damage to one loses nothing."""
    filled(small)
    id = dictionary_of(small)
    for seed in range(2, 9):
        small.put_many(memories_of(random.Random(seed), 4 * ENOUGH))
        small.spill()
    files = [copy.pack.number for copy in small.objects.lookup.copies(id)]
    if len(small.objects.lookup.state.packs) > 1:
        assert len(set(files)) >= 2
    assert fsck(small).findings == ()


def test_a_batch_that_brings_enough_makes_one(small: Store) -> None:
    """It is stored beside a dictionary of its own at once; the next one brings the second copy."""
    first = memories_of(random.Random(1), PLENTY)
    small.put_many(first)
    assert codecs(small, first) == {DICTIONARY}
    id = dictionary_of(small)
    assert {copy.pack.file is not None for copy in small.objects.lookup.copies(id)} == {True}
    second = memories_of(random.Random(2), PLENTY)
    with reopened(small.location) as again:
        again.put_many(second)
        assert dictionary_of(again) == id
        assert_reads(again, first + second)
    small.objects.lookup.refresh()
    assert small.objects.dictionaries.copies(id, COMMON_GROUP) == 2
    small.spill()
    assert codecs(small, first + second) == {DICTIONARY}
    assert_reads(small, first + second)
    assert fsck(small).findings == ()


def test_a_batch_of_more_than_memory_holds_makes_one(small: Store) -> None:
    """What streams into pack files stands beside it too, whatever is condemned meanwhile."""
    gone = small.put(b"condemned while the batch was written")
    contents = memories_of(random.Random(1), 6000)
    assert sum(map(len, contents)) > INLINE_TRANSACTION_BYTES_MAX
    with small.objects.batch() as batch:
        small.core.put_contents(batch, contents)
        assert [small.objects.staged(batch, digest_blob(c))[1] for c in contents[:9]] == contents[
            :9
        ]
        batch.seal()
        condemn(small, [gone])
    assert codecs(small, contents) == {DICTIONARY}
    assert_reads(small, contents[::7])
    assert fsck(small).findings == ()


@pytest.mark.parametrize("fails", [False, True], ids=["beside", "the caller does it all"])
def test_a_batch_is_encoded_by_two(
    small: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The first half of a batch is encoded beside the staging of the second, and all of it stands
    beside the dictionary; what the thread could not do the caller does.
    """
    filled(small)
    encoders: list[str] = []
    encode = Dictionary.encode

    def noted(self: Dictionary, contents: list[bytes], threads: int = 1) -> list[bytes | None]:
        who = threading.current_thread().name
        encoders.append(who)
        if fails and who == "cas-encode":
            raise MemoryError
        return encode(self, contents, threads)

    monkeypatch.setattr(Dictionary, "encode", noted)
    contents = memories_of(rng, 700)
    small.put_many(contents)
    assert encoders.count("cas-encode") == 1
    assert codecs(small, contents) == {DICTIONARY}
    assert_reads(small, contents)


def test_batches_look_again_more_and_more_rarely(
    small: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a look found nothing, 1, 3, 7 … batches go by before the next one."""
    looks: list[int] = []
    monkeypatch.setattr(young, "propose", lambda samples, _current: looks.append(len(samples)))
    for _ in range(13):
        small.put_many([rng.randbytes(300) for _ in range(PLENTY)])
    assert looks == [PLENTY] * 3
    assert small.objects.dictionaries.current(COMMON_GROUP) is None


def test_large_and_odd_blobs_are_left_alone(small: Store, rng: random.Random) -> None:
    """What does not compress, is long, or is a dictionary itself does not lie beside one."""
    filled(small)
    own = small.get(BlobId(dictionary_of(small)))
    contents = [rng.randbytes(200) for _ in range(30)]
    contents += [b"long and alike " * 4000, CONTENT, CONTENT[:4] + bytes(300), b""]
    small.put_many(contents)
    small.spill()
    assert_reads(small, [*contents, own])
    assert DICTIONARY not in codecs(small, [*contents, own])
    assert fsck(small).findings == ()


def test_nothing_is_made_where_it_does_not_pay(small: Store, rng: random.Random) -> None:
    """Contents that have nothing in common, or too few of them, make no dictionary."""
    contents = [rng.randbytes(200) for _ in range(400)]
    small.put_many(contents)
    small.put_many(memories_of(rng, 20))
    small.spill()
    assert small.objects.dictionaries.current(COMMON_GROUP) is None
    assert_reads(small, contents)


def test_another_is_made_when_contents_change(small: Store) -> None:
    """The old one serves what was written with it; new contents get one that fits them."""
    before = filled(small)
    old = dictionary_of(small)
    rng = random.Random(5)
    letters = [rng.randbytes(12).hex().encode() for _ in range(40)]
    after = [
        b"<log at='%d'>%s</log>" % (number, b" ".join(rng.choices(letters, k=8)))
        for number in range(ENOUGH)
    ]
    small.put_many(after)
    small.spill()
    new = dictionary_of(small)
    assert new != old
    more = [content.replace(b"log", b"lag") for content in after]
    small.put_many(more)
    assert_reads(small, before + after + more)
    small.spill()
    assert_reads(small, before + after + more)
    assert fsck(small).findings == ()


def test_the_same_contents_make_no_other(small: Store) -> None:
    """While they fit, the one that is there is kept."""
    filled(small)
    id = dictionary_of(small)
    for seed in range(2, 6):
        small.put_many(memories_of(random.Random(seed), ENOUGH))
        small.spill()
        assert dictionary_of(small) == id


def test_a_store_without_the_feature_writes_none(tmp_path: Path) -> None:
    """The name in the features list is what an older reader refuses; without it there are none."""
    folder = str(tmp_path / "plain")
    cas.init(folder, dictionaries=False)
    with reopened(folder) as store:
        assert store.objects.meta.features == ("deltas",)
        contents = memories_of(random.Random(1), ENOUGH)
        store.put_many(contents)
        store.spill()
        store.put_many(memories_of(random.Random(2), ENOUGH))
        store.spill()
        assert DICTIONARY not in codecs(store, contents)
        assert_reads(store, contents)


def test_an_older_reader_refuses_by_name(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know dictionaries says so, and reads nothing wrongly."""
    filled(small)
    from cas.catalog import schema

    monkeypatch.setattr(schema, "KNOWN_FEATURES", frozenset(("deltas",)))
    with pytest.raises(NewerFormat, match="dictionaries"):
        cas.open(small.location)


def test_a_staged_object_is_read_before_it_is_installed(small: Store) -> None:
    """What a batch has encoded is readable through it: in flight, written, and in a sealed pack."""
    filled(small)
    contents = memories_of(random.Random(2), 1200)
    with small.objects.batch() as batch:
        big = batch.put(Kind.BLOB, os.urandom(1 << 20))
        ids = [batch.put(Kind.BLOB, content) for content in contents]
        found = [small.objects.staged(batch, id) for id in ids]
        assert found == [(Kind.BLOB, content) for content in contents]
        assert len(small.objects.staged(batch, big)[1]) == 1 << 20
        batch.seal()
        assert [small.objects.staged(batch, id)[1] for id in ids[:50]] == contents[:50]
    assert codecs(small, contents) == {DICTIONARY}
    assert_reads(small, contents)


def test_a_dictionary_that_was_condemned_is_not_relied_on(small: Store) -> None:
    """A batch that was written beside it is refused; the next one does without."""
    contents = filled(small)
    id = dictionary_of(small)
    batch = small.objects.new_batch()
    later = memories_of(random.Random(2), 40)
    for content in later:
        batch.put(Kind.BLOB, content)
    batch.seal()
    condemn(small, [id, *[digest_blob(content) for content in contents]])
    with pytest.raises(CasError, match="condemned"):
        small.objects.commit(batch)
    batch.abandon()
    small.put_many(later)
    assert DICTIONARY not in codecs(small, later)
    assert_reads(small, later)


def condemn(store: Store, ids: list[bytes]) -> None:
    """Remove every copy of objects, as gc does."""
    lookup = store.objects.lookup
    with store.objects.catalog.write() as writer:
        lookup.refresh(writer)
        head = writer.head()
        bits: dict[int, bytearray] = {}
        for id in ids:
            for copy in lookup.copies(id):
                number = copy.pack.number
                footer = lookup.footer(copy.pack)
                vector = bits.setdefault(number, bytearray((footer.count + 7) // 8))
                slot = footer.find(id)
                vector[slot >> 3] |= 1 << (slot & 7)
        for number, vector in bits.items():
            writer.set_vector(number, head.version + 1, bytes(vector))
        writer.record_removal(head.version + 1, head.condemn_seq + 1)
    lookup.refresh()


# -- what packs may say ----------------------------------------------------------------------


def beside(content: bytes, *, dictionary: Dictionary = PLANTED) -> Made:
    """A record of a blob beside a dictionary."""
    (payload,) = dictionary.encode([content])
    assert payload is not None
    return Made(digest_blob(content), int(Kind.BLOB), payload, DICTIONARY, len(content))


def needs(id: bytes = PLANTED.id) -> tuple[bytes, int, bytes]:
    """The edge of a pack to its dictionary."""
    return b"", EDGE_DICTIONARY, id


def refused(store: Store, content: bytes, because: str) -> None:
    """The blob is an error, of every way of reading, and nothing else is."""
    other = BlobId(store.put(b"another one, that needs nothing"))
    id = BlobId(digest_blob(content))
    with pytest.raises(CorruptObject, match=because):
        store.get(id)
    with pytest.raises(CorruptObject, match=because):
        list(store.get_many([id]))
    (found,) = (found for group in BulkReader(store.objects).read([id]) for found in group)
    assert found.content is None
    assert list(store.get_many([other])) == [b"another one, that needs nothing"]
    report = fsck(store)
    assert "object-lost" in {finding.code for finding in report.findings}
    assert any(id.hex() in finding.subject for finding in report.findings)


def test_a_planted_one_is_read(store: Store) -> None:
    """What these tests plant is good as long as nothing is wrong with it."""
    install(store, [blob(CONTENT)], name=os.urandom(16))
    install(store, [beside(content) for content in SAMPLES[:9]], [needs()], name=os.urandom(16))
    assert_reads(store, SAMPLES[:9])
    assert fsck(store).findings == ()


def test_one_that_is_missing(store: Store) -> None:
    """Without a copy of it those that need it are lost, by name, and nobody else."""
    install(store, [beside(SAMPLES[0])], [needs()], name=os.urandom(16))
    refused(store, SAMPLES[0], "has no copy that serves")


def test_one_that_no_footer_names(store: Store) -> None:
    """A payload whose dictionary the footer does not name is refused."""
    install(store, [blob(CONTENT)])
    install(store, [beside(SAMPLES[0])])
    refused(store, SAMPLES[0], "does not name")


def test_one_of_another_kind(store: Store) -> None:
    """A tree node, or any blob, is no dictionary for being named as one."""
    for made in (blob(b"just text" * 50), Made(os.urandom(ID_BYTES), 2, CONTENT)):
        fake = Made(
            digest_blob(SAMPLES[0]),
            1,
            made.id[:4] + beside(SAMPLES[0]).payload[4:],
            4,
            len(SAMPLES[0]),
        )
        install(store, [made, fake], [needs(made.id)])
    refused(store, SAMPLES[0], "is none|no copy that serves")


def test_one_whose_bytes_are_others(store: Store) -> None:
    """A damaged dictionary is not used; a second copy of it is."""
    install(store, [Made(PLANTED.id, 1, CONTENT[:-1] + b"!")])
    install(store, [beside(SAMPLES[0])], [needs()])
    refused(store, SAMPLES[0], "is damaged")
    install(store, [blob(CONTENT)])
    assert store.get(BlobId(digest_blob(SAMPLES[0]))) == SAMPLES[0]
    codes = [finding.code for finding in fsck(store).findings]
    assert codes == ["copy-damaged"]


def test_fsck_counts_what_hangs_on_one(store: Store) -> None:
    """A damaged dictionary is told with the number of objects that stand beside it."""
    install(store, [Made(PLANTED.id, 1, CONTENT[:-1] + b"!")])
    install(store, [beside(content) for content in SAMPLES[:7]], [needs()])
    report = fsck(store)
    assert any("7 objects are made of it" in finding.message for finding in report.findings)


def test_one_that_stands_beside_itself(store: Store) -> None:
    """A ring of dictionaries is refused where it begins: one is read only where it stands alone."""
    (payload,) = PLANTED.encode([CONTENT])
    assert payload is not None
    ring = Made(PLANTED.id, 1, payload, DICTIONARY, len(CONTENT))
    install(store, [ring, beside(SAMPLES[0])], [needs()])
    refused(store, SAMPLES[0], "none that stands alone")


def test_a_payload_that_lies(store: Store) -> None:
    """Lengths that are not those of the content, and payloads of nothing, are refused."""
    install(store, [blob(CONTENT)])
    good = beside(SAMPLES[0])
    for number, made in enumerate(
        (
            good._replace(raw_bytes=len(SAMPLES[0]) + 1),
            good._replace(raw_bytes=1 << 24),
            good._replace(payload=good.payload[:-3]),
            good._replace(payload=good.payload[:5]),
            good._replace(payload=good.payload + b"\0"),
            beside(SAMPLES[1])._replace(id=good.id),
        )
    ):
        install(store, [made], [needs()])
        with pytest.raises(CorruptObject):
            store.get(BlobId(good.id))
        assert len(fsck(store).findings) >= 1, number
    install(store, [good], [needs()])
    assert store.get(BlobId(good.id)) == SAMPLES[0]


def test_another_group_is_not_for_these(store: Store) -> None:
    """A dictionary of one group does not serve copies of another: lengths would tell."""
    with store.objects.batch() as batch:
        batch.rewrite([Submitted(PLANTED.id, 1, CONTENT, RAW, len(CONTENT), group=2)])
    install(store, [beside(SAMPLES[0])], [needs()])
    refused(store, SAMPLES[0], "none that stands alone")


def test_footers_name_few_and_different_ones(store: Store) -> None:
    """More dictionaries than a pack may have, or two that begin alike, make no footer."""
    many = [needs(os.urandom(ID_BYTES)) for _ in range(17)]
    number = install(store, [blob(b"%d" % n) for n in range(20)], many)
    alike = [needs(b"same" + os.urandom(28)) for _ in range(2)]
    other = install(store, [blob(b"a%d" % n) for n in range(20)], alike)
    found = {finding.subject for finding in fsck(store).findings if finding.code == "pack-footer"}
    assert found == {f"inline pack {number}", f"inline pack {other}"}


def test_a_builder_wants_to_know_the_dictionary() -> None:
    """A record whose dictionary nobody named would be lost, so it is not written."""
    parts: list[bytes] = []
    builder = PackBuilder(PackHeader(bytes(16), bytes(16), bytes(16), 1), parts.append)
    made = beside(SAMPLES[0])
    record = (made.id, 1, DICTIONARY, made.payload, len(SAMPLES[0]), 0, 1)
    with pytest.raises(Invalid):
        builder.add_many([record])
    assert builder.use([PLANTED.id])
    assert not builder.use([PLANTED.tag + bytes(28)])
    assert not builder.use([os.urandom(ID_BYTES) for _ in range(16)])


def test_a_pack_may_have_several(small: Store) -> None:
    """A spill of packs with more dictionaries than one may have writes several, and loses none."""
    contents = []
    for seed in range(20):
        samples = memories_of(random.Random(seed), 300)
        content = train(samples, 1024 + 64 * seed)
        assert content is not None
        dictionary = Dictionary(digest_blob(content), content)
        install(small, [blob(content)])
        made = [beside(each, dictionary=dictionary) for each in samples[:5]]
        install(small, made, [needs(dictionary.id)])
        contents += samples[:5]
    assert_reads(small, contents)
    small.spill()
    assert_reads(small, contents)
    assert fsck(small).findings == ()
    assert max(len(pack) for pack in named(small)) <= 16


def named(store: Store) -> list[list[bytes]]:
    """What each pack names as dictionaries."""
    packs = list(store.objects.lookup.refresh().packs.values())
    return [store.objects.dictionaries.named(pack) for pack in packs]


def test_a_record_is_found_without_its_footer(small: Store) -> None:
    """A scan of a pack whose footer is damaged finds what stands beside a dictionary elsewhere."""
    filled(small)
    contents = memories_of(random.Random(2), ENOUGH)
    small.put_many(contents)
    (copy,) = small.objects.lookup.copies(digest_blob(contents[0]))
    assert copy.pack.file is not None
    path = Path(small.location, "packs", copy.pack.file)
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)
    with reopened(small.location) as again:
        report = fsck(again)
    told = [finding for finding in report.findings if finding.code == "pack-footer"]
    assert f"{ENOUGH + 1} whole objects were found" in told[0].message


def test_a_proposal_is_paid_for() -> None:
    """One is proposed only where what it saves is more than what it takes."""
    assert propose(SAMPLES, None) is not None
    assert propose(SAMPLES[:10], None) is None
    found = propose(SAMPLES, None)
    assert propose(SAMPLES, found) is None


# -- beside gc and repair --------------------------------------------------------------------


def test_gc_keeps_it_as_long_as_it_is_needed(small: Store) -> None:
    """A dictionary outlives gc while one object stands beside it, and goes with the last."""
    contents = filled(small)
    id = dictionary_of(small)
    with small.begin(author="a") as tx:
        for number, content in enumerate(contents[:5]):
            tx.branch("main")[f"m{number}"] = content
        tx.commit()
    small.gc(grace_us=0)
    assert_reads(small, contents[:5])
    assert not small.has(BlobId(digest_blob(contents[9])))
    assert small.objects.lookup.exists(id)
    assert fsck(small).ok


def test_a_lost_catalog_comes_back_with_what_stands_beside_one(small: Store) -> None:
    """A catalog put together from packs admits what has its dictionary."""
    contents = filled(small)
    later = memories_of(random.Random(2), ENOUGH)
    with small.begin(author="a") as tx:
        for number, content in enumerate([*contents, *later]):
            tx.branch("main")[f"m{number}"] = content
        tx.commit()
    small.spill()
    assert codecs(small, contents + later) == {DICTIONARY}
    folder = small.location
    small.close()
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        Path(folder, name).unlink(missing_ok=True)
    with cas.plan_repair(folder) as plan:
        plan.apply()
    with cas.open(folder) as again:
        assert_reads(again, contents + later)
        assert len(again.snapshot("main")) == len(contents + later)
        assert fsck(again).ok


def test_compaction_moves_what_stands_beside_one(small: Store) -> None:
    """A pack that is mostly waste is written anew, with the dictionary that is left over."""
    contents = filled(small)
    later = memories_of(random.Random(2), 4 * ENOUGH)
    small.put_many(later)
    kept = [*contents[::20], *later[::20]]
    with small.begin(author="a") as tx:
        for number, content in enumerate(kept):
            tx.branch("main")[f"m{number}"] = content
        tx.commit()
    before = sum(pack.body_bytes for pack in small.objects.lookup.refresh().packs.values())
    small.gc(grace_us=0)
    small.gc(grace_us=0)
    after = sum(pack.body_bytes for pack in small.objects.lookup.refresh().packs.values())
    assert 2 * after < before
    assert_reads(small, kept)
    assert DICTIONARY in codecs(small, kept)
    with reopened(small.location) as again:
        assert_reads(again, kept)
        assert fsck(again).ok
