"""Purge: the bytes are in no file of the store afterwards, and everything else is as it was."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

import cas
from cas.catalog import scrub as scrubbing
from cas.catalog.connections import Connections
from cas.errors import (
    Busy,
    Corrupt,
    HorizonFixed,
    Invalid,
    NotCanonical,
    ObjectNotFound,
    OnHold,
    Purged,
    StorageFailed,
    Unavailable,
    WasPurged,
    WrongKind,
)
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.history.tombstones import Tombstone, decode_tombstone, encode_tombstone
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.maintenance import purge as purging
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import plan_purge, purge
from cas.model.encoding import encode
from cas.model.ids import BlobId, Kind, ObjectId, digest_of
from cas.model.names import PURGED_REF
from cas.objects.packs import Copy
from tests.unit.kit import commits, reopened, write
from tests.unit.maintenance.test_backup import flip_object


def everywhere(store: Store | Path) -> dict[str, bytes]:
    """Every file of a store, or of a folder, as it is on the disk."""
    root = Path(store.location) if isinstance(store, Store) else store
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def traces(store: Store | Path, needles: list[bytes]) -> list[str]:
    """Files that hold one of these, as it is or in any record that unpacks to something with it."""
    found = [
        f"{name}: raw"
        for name, data in everywhere(store).items()
        if any(needle in data for needle in needles)
    ]
    unpack = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1)
    for name, data in everywhere(store).items():
        at = data.find(b"\x28\xb5\x2f\xfd")
        while at >= 0:
            try:
                content = unpack.decompressobj().decompress(data[at:])
            except zstandard.ZstdError:
                content = b""
            if any(needle in content for needle in needles):
                found.append(f"{name}: a frame at {at}")
            at = data.find(b"\x28\xb5\x2f\xfd", at + 4)
    return found


def secret_of(rng: random.Random, size_bytes: int = 400) -> bytes:
    """Content that appears nowhere by chance."""
    return b"SECRET " + rng.randbytes(size_bytes)


def needles_of(secret: bytes) -> list[bytes]:
    """Pieces of a content, from its beginning, middle and end."""
    middle = len(secret) // 2
    return [secret[:24], secret[middle : middle + 24], secret[-24:]]


def check(store: Store) -> None:
    """A purged store is whole."""
    report = fsck(store)
    assert report.ok, report.findings
    # A file that a spill has emptied waits for the mirror.
    assert {f.code for f in report.findings} <= {"pack-gap", "pack-unnamed"}


def inline(store: Store, secret: bytes) -> None:
    """The content is young, and lies in the catalog."""
    write(store, "main", {"secret": secret, "beside": b"stays"})


def spilled(store: Store, secret: bytes) -> None:
    """The content lay in the catalog, and was moved into a pack file."""
    inline(store, secret)
    write(store, "main", {"other": b"1"})
    store.spill()


def in_file(store: Store, secret: bytes) -> None:
    """The content came in a pack file, with others."""
    write(store, "main", {"secret": secret, "big": random.Random(1).randbytes(90_000)})


def twice(store: Store, secret: bytes) -> None:
    """There are several copies, in files and in the catalog."""
    in_file(store, secret)
    with store.objects.batch() as batch:
        batch.rewrite([])
    spilled(store, secret)
    write(store, "main", {"secret": b"another", "more": b"2"})


PLACES: dict[str, Callable[[Store, bytes], None]] = {
    "inline": inline,
    "spilled": spilled,
    "file": in_file,
    "twice": twice,
}


@pytest.mark.parametrize("place", PLACES)
def test_no_file_of_the_store_holds_the_bytes(store: Store, rng: random.Random, place: str) -> None:
    """Packs, catalog, log, free pages: the bytes are nowhere, and all else reads as before."""
    secret = secret_of(rng)
    PLACES[place](store, secret)
    id = BlobId(store.put(secret))
    others = {
        (commit, path): store.snapshot(commit)[path]
        for commit, _c in store.log("main")
        for path in store.snapshot(commit)
        if store.snapshot(commit)[path] != secret
    }
    assert traces(store, needles_of(secret))
    before = [entry.seq for entry in store.journal()]
    done = purge(store, id, reason="a key leaked", author="ada")
    assert traces(store, needles_of(secret)) == []
    assert done.entry is not None
    assert [entry.seq for entry in store.journal()][: len(before)] == before
    for (commit, path), content in others.items():
        assert store.snapshot(commit)[path] == content
    with pytest.raises(Purged) as caught:
        store.get(id)
    error = caught.value
    assert (error.id, error.reason, error.author) == (id, "a key leaked", "ada")
    assert error.time_us == done.tombstone.time_us
    check(store)
    with reopened(store) as other:
        with pytest.raises(Purged):
            other.get(id)
        check(other)
    store.gc(grace_us=0)
    check(store)


def test_what_stands_on_purged_content_stays(store: Store, rng: random.Random) -> None:
    """Deltas of the purged content, and deltas of those, are encoded anew and read as before."""
    versions = [rng.randbytes(6000)]
    for _ in range(4):
        at = rng.randrange(5000)
        versions.append(versions[-1][:at] + rng.randbytes(40) + versions[-1][at + 40 :])
    ids = [store.put(versions[0])]
    for before, content in pairwise(versions):
        with store.objects.batch() as batch:
            batch.hint(digest_of(Kind.BLOB, content), digest_of(Kind.BLOB, before))
            batch.put(Kind.BLOB, content)
            batch.put(Kind.BLOB, rng.randbytes(70_000))
        ids.append(BlobId(digest_of(Kind.BLOB, content)))
    depths = [copy.slot.depth for id in ids if (copy := store.objects.find(id)) is not None]
    assert max(depths) >= 1
    plan = plan_purge(store, ids[0])
    assert plan.dependent_count >= 1
    purge(store, ids[0], reason="x")
    assert [store.get(id) for id in ids[1:]] == versions[1:]
    check(store)
    # Its own bytes may well stand in what was made of it; what only it had is gone.
    only = next(
        versions[0][at : at + 32]
        for at in range(len(versions[0]) - 32)
        if all(versions[0][at : at + 32] not in later for later in versions[1:])
    )
    assert traces(store, [only]) == []


def test_large_content_goes_with_its_chunks(store: Store, rng: random.Random) -> None:
    """Chunks and recipe go; chunks that other content has too stay, and the answer lists them."""
    shared = rng.randbytes(5 << 20)
    own = b"SECRET " + rng.randbytes(5 << 20)
    write(store, "main", {"secret": shared + own})
    write(store, "main", {"other": shared + rng.randbytes(5 << 20)})
    entry = store.snapshot("main").entry("secret")
    assert entry is not None
    plan = plan_purge(store, entry.id)
    assert plan.part_ids
    assert plan.shared_ids
    done = purge(store, entry.id, reason="x")
    assert done.plan == plan
    assert traces(store, needles_of(own)) == []
    assert len(store.snapshot("main")["other"]) == 10 << 20
    with pytest.raises(Purged):
        store.snapshot("main")["secret"]
    for part in plan.part_ids:
        assert not store.has(part)
    for part in plan.shared_ids:
        assert store.has(part)
    check(store)


def test_a_chunk_that_is_a_file_too_stays(store: Store, rng: random.Random) -> None:
    """A part that a directory names as a file is shared, although no other recipe has it."""
    content = rng.randbytes(WHOLE_BLOB_BYTES_MAX + 200_000)
    blob = store.put(content)
    chunk = plan_purge(store, blob).part_ids
    part = next(id for id in chunk if store.objects.measure(None, id)[0] == Kind.BLOB)
    write(store, "main", {"part": store.get(part)})
    plan = plan_purge(store, blob)
    assert plan.shared_ids == (part,)
    purge(store, blob, reason="x")
    assert store.snapshot("main")["part"]
    check(store)


def test_purged_content_is_not_put_again_unseen(store: Store, rng: random.Random) -> None:
    """Every way to put it is refused, for every handle; `allow_purged` does it by an entry."""
    secret = secret_of(rng)
    id = store.put(secret)
    with reopened(store) as other:
        late = other.begin(message="late")
        late.branch("main")["again"] = secret  # found, and relied on
        purge(store, id, reason="leaked")
        with pytest.raises(WasPurged):
            late.commit()
        for handle in (store, other):
            with pytest.raises(WasPurged):
                handle.put(secret)
            with pytest.raises(WasPurged):
                handle.put_many([b"x", secret])
            with pytest.raises(WasPurged):
                write(handle, "main", {"again": secret})
            with handle.begin() as tx:
                tx.branch("main")["big"] = rng.randbytes(80_000)
                tx.branch("main")["again"] = secret
                with pytest.raises(WasPurged):
                    tx.commit()
        assert traces(store, needles_of(secret)) == []
        assert other.put(b"something else")
        seq = store.view().seq
        assert other.put(secret, allow_purged=True) == id
        assert store.get(id) == secret
        assert store.purged() == []
        (entry,) = store.journal(seq)
        assert entry.message == f"put {id.short} again, which was purged"
        assert store.put(secret) == id
        write(store, "main", {"again": secret})
    check(store)
    purge(store, id, reason="leaked again")
    assert traces(store, needles_of(secret)) == []


def test_a_purge_is_not_taken_back(store: Store, rng: random.Random) -> None:
    """Undo, rewind and moving the ref leave the tombstone where it is."""
    inline(store, secret_of(rng))
    entry = store.snapshot("main").entry("secret")
    assert entry is not None
    done = purge(store, entry.id, reason="x")
    assert done.entry is not None
    with pytest.raises(HorizonFixed):
        store.undo(done.entry.seq)
    store.restore(seq=0)
    assert [stone.id for stone in store.purged()] == [entry.id]
    with store.begin() as tx:
        tx.delete(PURGED_REF)
        with pytest.raises(HorizonFixed):
            tx.commit()
    with store.begin() as tx:
        tx.branch("x")["a"] = b"1"
        tx.commit()
    with store.begin() as tx:
        tx.move(PURGED_REF, store.resolve("x"))
        with pytest.raises(Invalid):
            tx.commit()


def test_a_held_object_is_not_purged(store: Store, rng: random.Random) -> None:
    """A legal hold on it, or on a commit behind which it lies, stands in the way until lifted."""
    secret = secret_of(rng)
    inline(store, secret)
    id = store.put(secret)
    write(store, "main", {"secret": None})
    store.hold("main", "case")
    with pytest.raises(OnHold):
        purge(store, id, reason="x")
    store.release("main")
    store.hold(id, "case")
    with pytest.raises(OnHold):
        purge(store, id, reason="x")
    assert store.get(id) == secret
    store.release(id)
    purge(store, id, reason="x")
    check(store)


@pytest.mark.parametrize("on_the_way", ["directory", "commit", "tag"])
def test_a_hold_that_cannot_be_followed_stands_in_the_way(
    store: Store, rng: random.Random, on_the_way: str
) -> None:
    """Damage between a legal hold and what it covers never lets a purge pass: it is told, and the
    content stays.
    """
    secret = secret_of(rng)
    write(store, "main", {"d/secret": secret, "beside": b"stays"})
    id = store.put(secret)
    held = store.resolve("main")
    entry = store.snapshot(held).entry("d")
    assert entry is not None
    write(store, "main", {"d/secret": None, "d/other": b"1"})
    store.hold("main", "case")
    (hold,) = store.view().refs("holds/")
    store.spill()
    flip_object(store, {"directory": entry.id, "commit": held, "tag": hold.target}[on_the_way])
    with reopened(store) as other:
        with pytest.raises(Corrupt):
            purge(other, id, reason="x")
        assert other.get(id) == secret
        assert not other.purged()


def test_a_file_that_cannot_be_read_proves_nothing(store: Store, rng: random.Random) -> None:
    """Success is not told while a file of the bucket fails to be read; it is once that is over."""
    secret = secret_of(rng)
    inline(store, secret)
    id = store.put(secret)
    # A directory lies there, long enough for a pack: reading it fails, as on a failing disk.
    odd = Path(store.location, "packs", "ab" * 16 + ".pack")
    odd.mkdir()
    for at in range(100):
        (odd / str(at)).touch()
    with pytest.raises(StorageFailed):
        purge(store, id, reason="x")
    shutil.rmtree(odd)
    purge(store, id, reason="x")
    assert not traces(store, needles_of(secret))
    check(store)


def test_history_goes_on_around_it(store: Store, rng: random.Random) -> None:
    """Directories that name it are read and changed, branches merge, retention and gc run."""
    secret = secret_of(rng)
    inline(store, secret)
    commits(store, 2)
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main"))
        tx.commit()
    open_tx = store.begin(message="begun before")
    open_tx.branch("main")["n2"] = b"1"
    id = store.put(secret)
    purge(store, id, reason="x")
    open_tx.commit()
    write(store, "main", {"beside": b"changed"})
    write(store, "side", {"more": b"1"})
    assert store.merge("main", "side").conflicts == ()
    listed = dict(store.snapshot("main").walk())
    assert listed["secret"].id == id
    assert list(store.diff("main~1", "main")) != []
    store.gc(grace_us=0)
    store.apply(
        store.plan_retention(
            RetentionPolicy((KeepRule("heads/*", last=1),), HorizonRule(Span(), 0))
        )
    )
    store.gc(grace_us=0)
    check(store)


def test_only_blobs_are_purged_and_only_with_a_reason(store: Store) -> None:
    """A commit, a directory, an unknown id, no reason: each is told, and nothing is done."""
    inline(store, b"SECRET content")
    seq = store.view().seq
    blob = store.put(b"SECRET content")
    with pytest.raises(Invalid):
        purge(store, blob, reason=" ")
    for id in (store.resolve("main"), store.commit("main").tree):
        with pytest.raises(WrongKind):
            purge(store, ObjectId(id), reason="x")
    with pytest.raises(ObjectNotFound):
        purge(store, ObjectId(b"\1" * 32), reason="x")
    assert store.view().seq == seq
    assert store.purged() == []


def test_a_reader_of_an_older_state_is_waited_for(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a reader keeps the log, success is not told; the same purge then goes on."""
    secret = secret_of(rng)
    inline(store, secret)
    id = store.put(secret)
    monkeypatch.setattr(purging, "PURGE_WAIT_MS", 50)
    with store.objects.catalog.read() as reader:
        reader.head()
        with pytest.raises(Busy):
            purge(store, id, reason="x")
    with pytest.raises(Purged):
        store.get(id)
    done = purge(store, id, reason="x")
    assert done.entry is None
    assert len(store.purged()) == 1
    assert traces(store, needles_of(secret)) == []


def test_a_purge_that_was_cut_short_is_told_and_goes_on(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind each step an error may come: fsck tells of it, and the next purge ends it."""
    for step in ("take_out", "_unlink", "_scrub", "_prove"):
        secret = secret_of(rng)
        spilled(store, secret)
        id = store.put(secret)

        def broken(*_arguments: object) -> bool:
            raise cas.Unavailable("cut")

        with monkeypatch.context() as patched:
            patched.setattr(purging, step, broken)
            with pytest.raises(cas.Unavailable):
                purge(store, id, reason="x")
        codes = {finding.code for finding in fsck(store).findings}
        assert ("purge-unfinished" in codes) == (step == "take_out")
        write(store, "main", {f"after {step}": b"1"})
        other = secret_of(rng)
        inline(store, other)
        # Of another one: it ends the first as well.
        purge(store, store.put(other), reason="y")
        assert traces(store, needles_of(secret) + needles_of(other)) == []
        check(store)


def test_writers_go_on_while_it_purges(store: Store, rng: random.Random) -> None:
    """Commits and puts of other threads beside purges are all there, and the purged bytes not."""
    secrets = [secret_of(rng) for _ in range(4)]
    errors: list[BaseException] = []
    ids = store.put_many(secrets)
    done = threading.Event()

    def work(number: int) -> None:
        try:
            count = 0
            while not done.is_set() and count < 200:
                write(store, f"b{number}", {"x": b"%d" % count})
                if count % 5 == 0:
                    store.put(b"%d put %d" % (number, count))
                count += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for id in ids:
        purge(store, id, reason="x")
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert traces(store, [n for secret in secrets for n in needles_of(secret)]) == []
    check(store)


STONE = Tombstone(ObjectId(b"\1" * 32), Kind.BLOB, 7, "leaked", "ada", 1_700_000_000_000_000)


@pytest.mark.parametrize(
    "value",
    [[2, 1, 7, "a", "b", 1, {}], [1, 3, 7, "a", "b", 1, {}], [1, 1, "7", "a", "b", 1, {}],
     [1, 1, 7, 1, "b", 1, {}], [1, 1, 7, "a", "b", 1], {}],
)  # fmt: skip
def test_only_tombstones_decode(value: object) -> None:
    """Another version, another shape: none is taken for a tombstone."""
    with pytest.raises(NotCanonical):
        decode_tombstone(STONE.id, encode(value))
    assert decode_tombstone(STONE.id, encode_tombstone(STONE)) == STONE


def test_copies_that_do_not_exist_any_more_go_too(store: Store, rng: random.Random) -> None:
    """A copy whose bit is set still lies in its pack: a purge takes it out as well."""
    secret = secret_of(rng)
    write(store, "main", {"big": rng.randbytes(90_000), "secret": secret})
    id = store.put(secret)
    copy = store.objects.find(id)
    assert isinstance(copy, Copy)
    with store.objects.catalog.write() as writer:
        head = writer.head()
        footer = store.objects.lookup.footer(copy.pack)
        bits = bytearray((footer.count + 7) // 8)
        at = footer.find(id)
        bits[at >> 3] |= 1 << (at & 7)
        writer.set_vector(copy.pack.number, head.version + 1, bytes(bits))
        writer.record_removal(head.version + 1, head.condemn_seq + 1)
    store.objects.lookup.refresh()
    assert not store.has(id)
    store.put(secret)
    purge(store, id, reason="x")
    assert traces(store, needles_of(secret)) == []
    check(store)


def test_backups_know_what_was_purged(store: Store, rng: random.Random, tmp_path: Path) -> None:
    """A backup of a purged store proves; a restore to before the purge knows of it all the same."""
    secret = secret_of(rng)
    inline(store, secret)
    id = store.put(secret)
    before = store.view().seq
    purge(store, id, reason="leaked")
    write(store, "main", {"later": b"1"})
    cas.backup(store, tmp_path / "backup")
    report, _file = cas.prove(tmp_path / "backup")
    assert report.ok
    for seq in (None, before):
        place = tmp_path / f"restored-{seq}"
        cas.restore_store(tmp_path / "backup", place, seq=seq)
        with cas.open(place) as restored:
            with pytest.raises(Purged):
                restored.get(id)
            with pytest.raises(WasPurged):
                restored.put(secret)
            check(restored)
    assert traces(store, needles_of(secret)) == []


def test_writers_come_between_rewriting_and_emptying_the_log(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is open while what the rewriting wrote is copied into the file; what is committed
    then stays, and nothing of the content does.
    """
    secret = secret_of(rng)
    inline(store, secret)
    id = store.put(secret)
    between: list[int] = []
    trim = scrubbing.trim

    def committing(connections: Connections) -> bool:
        assert not connections.writer_lock.locked()
        if not between:
            with reopened(store) as other:
                between.append(write(other, "main", {"between": b"1"}).seq)
        return trim(connections)

    monkeypatch.setattr(scrubbing, "trim", committing)
    purge(store, id, reason="leaked")
    assert len(between) == 1
    assert traces(store, needles_of(secret)) == []
    assert store.snapshot("main")["between"] == b"1"
    check(store)


def test_a_rebuilt_catalog_knows_what_was_purged(store: Store, rng: random.Random) -> None:
    """Directories that name purged content come back from packs alone, and so do tombstones."""
    secret = secret_of(rng)
    inline(store, secret)
    commits(store, 3)
    id = store.put(secret)
    purge(store, id, reason="leaked")
    store.apply(
        store.plan_retention(
            RetentionPolicy((KeepRule("heads/*", last=2),), HorizonRule(Span(), 0))
        )
    )
    store.gc(grace_us=0)
    write(store, "main", {"later": b"1"})
    store.mirror()
    head, log = store.resolve("main"), [id for id, _commit in store.log("main")]
    place = store.location
    store.close()
    for path in Path(place).glob("catalog.sqlite*"):
        path.unlink()
    with cas.plan_repair(place) as plan:
        plan.apply()
    with cas.open(place) as rebuilt:
        assert rebuilt.resolve("main") == head
        assert [id for id, _commit in rebuilt.log("main")] == log
        assert rebuilt.snapshot("main")["beside"] == b"stays"
        with pytest.raises(Purged):
            rebuilt.snapshot("main")["secret"]
        with pytest.raises(WasPurged):
            rebuilt.put(secret)
        check(rebuilt)


def test_a_catalog_that_a_repair_put_aside_is_no_place_to_keep_it(
    store: Store, rng: random.Random
) -> None:
    """The old catalog has small content in its pages: a purge is not told as done beside it, and
    deletes nothing that may be the last of something else.
    """
    secret = secret_of(rng)
    inline(store, secret)
    id = digest_of(Kind.BLOB, secret)
    store.mirror()
    place = Path(store.location)
    store.close()
    with cas.plan_repair(place, rebuild=True) as plan:
        plan.apply()
    aside = sorted(path.name for path in place.glob("catalog.damaged-*"))
    assert aside
    with cas.open(place) as rebuilt:
        with pytest.raises(Unavailable, match=", ".join(aside)):
            purge(rebuilt, BlobId(id), reason="leaked")
        with pytest.raises(Purged):
            rebuilt.get(BlobId(id))
        assert sorted(path.name for path in place.glob("catalog.damaged-*")) == aside
        for name in aside:
            (place / name).unlink()
        purge(rebuilt, BlobId(id), reason="leaked")
        check(rebuilt)
    assert not [path for path in place.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_repair_does_not_miss_what_was_purged(
    store: Store, rng: random.Random, tmp_path: Path
) -> None:
    """Purged content is not lost, and does not come back from a place that still has it."""
    secret = secret_of(rng)
    write(store, "main", {"secret": secret, "beside": b"stays"})
    other = tmp_path / "other"
    cas.copy(store, other)
    id = store.resolve("main")
    blob = store.snapshot("main").entry("secret").id
    purge(store, blob, reason="leaked")
    place = store.location
    store.close()
    for sources in ((), (other,)):
        with cas.plan_repair(place, sources=sources) as plan:
            assert (plan.actions, plan.notes, plan.lost) == ((), (), ())
            plan.apply()
    with cas.open(place) as again:
        assert again.resolve("main") == id
        with pytest.raises(Purged):
            again.get(blob)
        check(again)
