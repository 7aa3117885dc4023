"""What a store has purged goes from its backups, and comes back from no position of them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import Corrupt, CorruptBackup, Purged
from cas.history.store import Store
from cas.history.tombstones import Tombstone, root_at
from cas.maintenance.backups import cleanse as cleansing
from cas.maintenance.backups.make import backup as make_backup
from cas.maintenance.backups.vault import open_vault
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, Kind, digest_of
from cas.testing.memories import ENOUGH, memories_of
from tests.unit.kit import reopened, write
from tests.unit.maintenance.test_backup import condemn, flip, restored
from tests.unit.maintenance.test_expire import nudge
from tests.unit.maintenance.test_purge import PLACES, needles_of, secret_of, traces
from tests.unit.maintenance.test_purge_dictionaries import store as dictionary_store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where backups go; nothing is there yet."""
    return tmp_path / "backup"


def contents_of(store: Store, seq: int) -> dict[str, bytes]:
    """Files of all branches as of an entry; what was purged is left out."""
    found = {}
    view = store.at(seq)
    for ref in view.branches():
        snapshot = view.snapshot(ref.target)
        for path in snapshot:
            try:
                found[f"{ref.name} {path}"] = snapshot[path]
            except Purged:
                found[f"{ref.name} {path}"] = b"(purged)"
    return found


@pytest.mark.parametrize("kind", PLACES)
def test_purged_content_goes_from_the_backup(
    store: Store, place: Path, rng: random.Random, kind: str
) -> None:
    """The next backup takes it out of every position, and says so; all else can be restored."""
    secret = secret_of(rng)
    nudge(store, 2)
    cas.backup(store, place)
    PLACES[kind](store, secret)
    id = BlobId(digest_of(Kind.BLOB, secret))
    cas.backup(store, place)
    write(store, "main", {"after": rng.randbytes(80_000)})
    cas.backup(store, place)
    assert traces(place, needles_of(secret))
    last = store.view().seq
    purge(store, id, reason="leaked", author="ada")
    done = cas.backup(store, place)
    assert (done.purged, done.purge_left) == ((id,), ())
    assert traces(place, needles_of(secret)) == []
    assert cas.prove(place)[0].ok
    for seq in range(1, store.view().seq + 1):
        with restored(place, seq=seq) as other:
            assert contents_of(other, seq) == contents_of(store, seq)
            with pytest.raises(Purged, match="leaked"):
                other.get(id)
            assert list(other.journal())[:seq] == list(store.journal())[:seq]
    assert last < store.view().seq
    again = cas.backup(store, place)
    assert (again.written, again.purged) == (False, ())
    nudge(store)
    assert cas.backup(store, place).purged == ()
    with restored(place) as other:
        assert files_of_readable(other) == files_of_readable(store)


def files_of_readable(store: Store) -> dict[str, bytes]:
    """`contents_of` now."""
    return contents_of(store, store.view().seq)


def test_what_was_given_up_is_there_still(store: Store, place: Path, rng: random.Random) -> None:
    """What only an older position of the backup had is there after a purge took its neighbour."""
    secret, old = secret_of(rng, 3_000), rng.randbytes(80_000)
    secret_id, old_id = store.put_many([secret, old])
    write(store, "main", {"a": b"1"})
    cas.backup(store, place)
    seq = store.view().seq
    condemn(store, {old_id})
    nudge(store)
    purge(store, secret_id, reason="leaked")
    assert cas.backup(store, place).purged == (secret_id,)
    assert traces(place, needles_of(secret)) == []
    with restored(place, seq=seq) as other:
        assert other.get(old_id) == old
        with pytest.raises(Purged):
            other.get(secret_id)
    with restored(place) as other:
        assert not other.has(old_id)


def test_large_content_and_its_chunks(store: Store, place: Path, rng: random.Random) -> None:
    """Chunks go with it; those that other content has, in any position, stay."""
    shared, own = rng.randbytes(5 << 20), b"SECRET " + rng.randbytes(5 << 20)
    other_end = rng.randbytes(5 << 20)
    write(store, "main", {"secret": shared + own})
    cas.backup(store, place)
    write(store, "main", {"other": shared + other_end})
    cas.backup(store, place)
    entry = store.snapshot("main").entry("secret")
    assert entry is not None
    purge(store, entry.id, reason="leaked")
    assert cas.backup(store, place).purged == (entry.id,)
    needles = [own[at : at + 24] for at in range(1 << 20, 4 << 20, 1 << 19)]
    assert traces(place, needles) == []
    for seq in (1, 2, store.view().seq):
        with restored(place, seq=seq) as made:
            assert contents_of(made, seq) == contents_of(store, seq)


def test_what_stands_on_it_is_encoded_anew(store: Store, place: Path, rng: random.Random) -> None:
    """Deltas of it, and of those, read in every position."""
    versions = [rng.randbytes(6000)]
    for _ in range(3):
        at = rng.randrange(5000)
        versions.append(versions[-1][:at] + rng.randbytes(40) + versions[-1][at + 40 :])
    ids = [store.put(versions[0])]
    for before, content in itertools.pairwise(versions):
        with store.objects.batch() as batch:
            batch.hint(digest_of(Kind.BLOB, content), digest_of(Kind.BLOB, before))
            batch.put(Kind.BLOB, content)
            batch.put(Kind.BLOB, rng.randbytes(70_000))
        ids.append(BlobId(digest_of(Kind.BLOB, content)))
    nudge(store)
    cas.backup(store, place)
    purge(store, ids[0], reason="x")
    assert cas.backup(store, place).purged == (ids[0],)
    only = next(
        versions[0][at : at + 32]
        for at in range(len(versions[0]) - 32)
        if all(versions[0][at : at + 32] not in later for later in versions[1:])
    )
    assert traces(place, [only]) == []
    with restored(place, seq=1) as other:
        assert [other.get(id) for id in ids[1:]] == versions[1:]


made_with_dictionaries = dictionary_store
"""The store of the tests of purges beside dictionaries."""


def test_a_dictionary_made_of_it_goes(
    made_with_dictionaries: Store, place: Path, rng: random.Random
) -> None:
    """The dictionary holds parts of it: what stood beside it is stored without."""
    store = made_with_dictionaries
    phrase = b"the password of the vault is hunter2"
    contents = [
        content[:-1] + b", " + phrase + b"%d}" % number
        for number, content in enumerate(memories_of(rng, ENOUGH))
    ]
    ids = store.put_many(contents[:100]) + store.put_many(contents[100:])
    store.spill()
    nudge(store)
    cas.backup(store, place)
    secret, others = ids[0], dict(zip(ids[1:], contents[1:], strict=True))
    purge(store, secret, reason="leaked")
    assert cas.backup(store, place).purged == (secret,)
    with open_vault(str(place), SystemClock()) as vault:
        chain = vault.chain()
        footers = cleansing._Footers(vault)
        oldest = chain[0].state
        assert oldest is not None
        assert not any(footers.of(line).dictionaries() for line in oldest.packs)
    with restored(place, seq=1) as other:
        for id, content in others.items():
            assert other.get(id) == content
        with pytest.raises(Purged):
            other.get(secret)


def test_a_purge_that_has_not_ended_waits(store: Store, place: Path, rng: random.Random) -> None:
    """While the store itself has the content, the backup keeps it and says so; not afterwards."""
    secret = secret_of(rng)
    id = store.put(secret)
    nudge(store)
    stone = Tombstone(id, Kind.BLOB, len(secret), "leaked", "ada", 1)
    done = make_backup(store.objects, store.location, str(place), stones=lambda: [stone])
    assert (done.purged, done.purge_left) == ((), (id,))
    with restored(place) as other:
        with pytest.raises(Purged):
            other.get(id)
        assert traces(other, needles_of(secret)) == []
    purge(store, id, reason="leaked")
    assert cas.backup(store, place).purged == (id,)
    assert traces(place, needles_of(secret)) == []


def test_a_restore_honours_what_the_backup_still_has(
    store: Store, place: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that was stopped before it took the content out does not bring it back either; the
    next one takes it out.
    """
    secret = secret_of(rng, 90_000)
    id = store.put(secret)
    nudge(store)
    cas.backup(store, place)
    purge(store, id, reason="leaked")

    def stopped(*_words: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cleansing, "cleanse", stopped)
        with pytest.raises(KeyboardInterrupt):
            cas.backup(store, place)
    assert traces(place, needles_of(secret))
    target = place.with_name("honoured")
    assert cas.restore_store(place, target, seq=1).purged == (id,)
    with cas.open(target) as other:
        assert fsck(other).ok
        assert traces(other, needles_of(secret)) == []
        with pytest.raises(Purged, match="leaked"):
            other.get(id)
    assert cas.backup(store, place).purged == (id,)
    assert traces(place, needles_of(secret)) == []


def test_content_that_was_put_again(store: Store, place: Path, rng: random.Random) -> None:
    """A tombstone that was lifted holds for the positions that lost the content, and no others."""
    secret = secret_of(rng)
    id = store.put(secret)
    write(store, "main", {"a": secret})
    cas.backup(store, place)
    purge(store, id, reason="by mistake")
    cas.backup(store, place)
    store.put_purged(secret)
    assert cas.backup(store, place).purged == ()
    with restored(place) as other:
        assert other.get(id) == secret
        assert other.snapshot("main")["a"] == secret
    with restored(place, seq=1) as other, pytest.raises(Purged, match="by mistake"):
        other.get(id)


def test_looking_is_done_once(
    store: Store, place: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of a backup are looked through when something was purged since, and not again."""
    looks: list[int] = []
    look = cleansing.is_clean

    def counted(*words: object) -> bool:
        looks.append(1)
        return look(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(cleansing, "is_clean", counted)
    id = store.put(secret_of(rng))
    nudge(store)
    purge(store, id, reason="x")
    cas.backup(store, place)
    assert looks == [1]
    for _ in range(3):
        nudge(store)
        cas.backup(store, place)
    assert looks == [1]
    other = store.put(secret_of(rng))
    cas.backup(store, place)
    purge(store, other, reason="x")
    assert cas.backup(store, place).purged == (other,)
    nudge(store)
    cas.backup(store, place)
    assert looks == [1, 1]


def test_a_damaged_pack_stands_in_the_way(store: Store, place: Path, rng: random.Random) -> None:
    """Where the pack with the content is not what was backed up, nothing is changed, and it is
    told; without the positions that need it the content goes.
    """
    id, _ = store.put_many([secret_of(rng), rng.randbytes(90_000)])
    nudge(store)
    cas.backup(store, place)
    (pack,) = (place / "packs").glob("*.pack")
    flip(pack, 200)
    purge(store, id, reason="x")
    with pytest.raises(CorruptBackup, match="cas expire"):
        cas.backup(store, place)
    plan = cas.plan_expiry(place, cas.KeepRule("*", last=1))
    cas.expire(plan)
    assert not pack.exists()
    assert cas.backup(store, place).purged == ()
    assert cas.prove(place)[0].ok


def test_a_backup_by_hand_tells(store: Store, place: Path, rng: random.Random) -> None:
    """`store.backup` learns of purges as `cas.backup` does."""
    id = store.put(secret_of(rng))
    nudge(store)
    store.backup(place)
    purge(store, id, reason="x")
    with reopened(store) as other:
        assert other.backup(place).purged == (id,)


def test_damaged_tombstones_do_not_stop_a_restore(
    store: Store, place: Path, rng: random.Random
) -> None:
    """Where damage is accepted, what tells of purges may be damaged too."""
    id = store.put(secret_of(rng))
    commits_of = {"a": rng.randbytes(90_000)}
    write(store, "main", commits_of)
    cas.backup(store, place)
    purge(store, id, reason="x")
    store.spill()
    with store.begin() as tx:
        target = tx.branch("main")
        target["b"] = b"2"
        tx.commit()
    copy = store.objects.find(root_at(store.core, store.view().moment))
    assert copy is not None
    file, at = copy.pack.file, copy.slot.payload_offset
    assert file is not None
    flip(Path(store.location) / "packs" / file, at + 3)
    target_place = place.with_name("some")
    with reopened(store) as damaged:
        with pytest.raises(Corrupt):
            cas.backup(damaged, place)
        assert cas.backup(damaged, place, accept_damage=True).damage
    report = cas.restore_store(place, target_place, accept_damage=True)
    assert report.damage
    with cas.open(target_place) as other:
        assert other.snapshot("main")["a"] == commits_of["a"]
