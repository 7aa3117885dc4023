"""Any history of commits, purges, backups and expiries: each position keeps its word."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from cas.errors import Gone, Purged
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, digest_blob
from tests.unit.kit import write
from tests.unit.maintenance.test_cleanse import contents_of
from tests.unit.maintenance.test_gc import forget
from tests.unit.maintenance.test_purge import needles_of, secret_of, traces


class Keeper:
    """Does random things to a store and its backup, and remembers what was purged."""

    def __init__(self, store: Store, place: Path, rng: random.Random) -> None:
        self.store = store
        self.place = place
        self.rng = rng
        self.purged: dict[BlobId, bytes] = {}
        self._secrets: list[bytes] = []
        self._changing = rng.randbytes(9_000)

    def commit(self) -> None:
        """A file of any size on one of two branches."""
        size = self.rng.choice([10, 3_000, 90_000])
        branch = self.rng.choice(["main", "side"])
        write(self.store, branch, {f"f{self.rng.randrange(5)}": self.rng.randbytes(size)})

    def change(self) -> None:
        """A file that is stored as a delta of what it was."""
        at = self.rng.randrange(8_000)
        self._changing = self._changing[:at] + self.rng.randbytes(40) + self._changing[at + 40 :]
        write(self.store, "main", {"changing": self._changing, "big": self.rng.randbytes(70_000)})

    def hide(self) -> None:
        """A file that may be purged."""
        secret = secret_of(self.rng, self.rng.choice([100, 5_000, 100_000]))
        self._secrets.append(secret)
        write(self.store, "main", {f"s{len(self._secrets)}": secret})

    def purge(self) -> None:
        """One of these goes."""
        if self._secrets:
            secret = self._secrets.pop(self.rng.randrange(len(self._secrets)))
            id = BlobId(digest_blob(secret))
            if self.store.has(id):
                purge(self.store, id, reason="leaked")
                self.purged[id] = secret

    def collect(self) -> None:
        """All that nothing leads to goes, and now and then all but the newest state."""
        if self.rng.random() < 0.2:
            forget(self.store)
        self.store.gc(grace_us=0)

    def spill(self) -> None:
        """Young packs become a file."""
        self.store.spill()

    def backup(self) -> None:
        """The next position."""
        cas.backup(self.store, self.place)

    def expire(self) -> None:
        """Old positions go."""
        if self.place.exists():
            rule = cas.KeepRule("*", last=self.rng.randrange(1, 5))
            cas.expire(cas.plan_expiry(self.place, rule))


@pytest.mark.parametrize("number", range(4))
def test_any_history(store: Store, tmp_path: Path, rng: random.Random, number: int) -> None:
    """Each position that can be restored is whole, shows what the store shows of it, and has
    nothing that was purged; no file of the backup does; and it proves.
    """
    keeper = Keeper(store, tmp_path / "backup", rng)
    write(store, "main", {"first": b"1"})
    acts: list[Callable[[], None]] = [
        *[keeper.commit, keeper.change, keeper.hide, keeper.backup] * 2,
        *[keeper.purge, keeper.expire, keeper.spill, keeper.collect],
    ]
    for _ in range(20):
        rng.choice(acts)()
    write(store, "main", {"last": b"2"})
    keeper.backup()
    report, _file = cas.prove(keeper.place)
    assert report.ok, report.faults
    for secret in keeper.purged.values():
        assert traces(keeper.place, needles_of(secret)) == []
    newest = store.view().seq
    for seq in {1, newest, *[rng.randint(1, newest) for _ in range(3)]}:
        target = tmp_path / f"restored-{seq}"
        try:
            cas.restore_store(keeper.place, target, seq=seq)
        except Gone:
            assert seq < newest
            continue
        with cas.open(target) as other:
            assert fsck(other).ok
            if seq >= store.view().horizon():
                assert contents_of(other, seq) == contents_of(store, seq)
            for id in keeper.purged:
                with pytest.raises(Purged):
                    other.get(id)
