"""What a killed move has left twice: the next collection gives one of each up, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cas
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import collect, compact, doubles, reencode
from cas.maintenance.gc.compact import compact as compacted
from cas.maintenance.gc.condemn import Condemnation
from cas.maintenance.stats import stats
from cas.model.ids import Kind, digest_blob
from cas.objects.pipeline import Submitted
from tests.unit.kit import write
from tests.unit.maintenance.test_gc import put_on, versions_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True) as opened:
        yield opened


def packs_of(store: Store) -> set[str]:
    """Names of the files."""
    return {path.name for path in Path(store.location, "packs").iterdir()}


def wasteful(store: Store, rng: Random) -> dict[str, bytes]:
    """Three packs of which a tenth is needed, one with deltas and one with a large content."""
    kept = {f"k{n}": rng.randbytes(60_000) for n in range(6)}
    names = list(kept)
    for at in range(0, 6, 2):
        both = [kept[name] for name in names[at : at + 2]]
        store.put_many([*both, *(rng.randbytes(50_000) for _ in range(20))])
    base = rng.randbytes(80_000)
    later = versions_of(base, 3)[1:]
    store.put_many([base, rng.randbytes(900_000)])
    put_on(store, base, later)
    kept |= {"base": base, "later": later[-1], "large": rng.randbytes(9_000_000)}
    store.put(kept["large"])
    write(store, "main", dict(kept))
    return kept


class Killed(BaseException):
    """The end of a run in its middle: nobody catches it."""


def gc_killed_at(store: Store, place: Any, name: str) -> None:
    """Collect, and end where a call is made: what is behind it never happens."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, kill)
        with pytest.raises(Killed):
            store.gc(grace_us=0)


def test_what_a_killed_compaction_left_twice_goes(store: Store, rng: Random) -> None:
    """The packs that were to go go with the next run, also where nothing else is to be done; what
    each object needs stays, and the run after it finds nothing.
    """
    kept = wasteful(store, rng)
    gc_killed_at(store, compact, "remove_moved")
    before = packs_of(store)
    assert stats(store).duplicate_count > 5
    assert fsck(store).ok
    with cas.open(store.location) as other:
        other.gc()
        assert stats(other).duplicate_count == 0
        assert dict(other.snapshot("main")) == kept
        assert not fsck(other).findings
        assert len(before - packs_of(other)) >= 3
        left = packs_of(other)
        other.gc()
        assert packs_of(other) == left


@pytest.mark.parametrize("victim", ["source", "output"])
def test_what_has_changed_meanwhile_stays(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    """Judged outside, and held against the catalog inside: where a bit was set in one of the
    packs since, or one is gone, nothing goes this time.
    """
    kept = wasteful(store, rng)
    gc_killed_at(store, compact, "remove_moved")
    remove = doubles.Doubles._remove

    def late(self: Any, state: Any, going: dict[int, set[int]]) -> bool:
        number = min(going) if victim == "source" else max(set().union(*going.values()))
        footer = store.objects.lookup.footer(state.packs[number])
        bits = bytearray(state.vectors.get(number) or bytes((footer.count + 7) // 8))
        free = next(n for n in range(footer.count) if not bits[n >> 3] >> (n & 7) & 1)
        bits[free >> 3] |= 1 << (free & 7)
        with store.objects.catalog.write() as writer:
            writer.set_vector(number, writer.head().version + 1, bytes(bits))
        return remove(self, state, going)

    looking = doubles.Doubles(store.objects)
    with monkeypatch.context() as patch:
        patch.setattr(doubles.Doubles, "_remove", late)
        assert looking.take_out() == 0
    assert dict(store.snapshot("main")) == kept
    # The next look judges what is there now.
    doubles.Doubles(store.objects).take_out()
    assert dict(store.snapshot("main")) == kept
    assert fsck(store).ok


def test_a_pack_that_holds_something_alone_stays(store: Store, rng: Random) -> None:
    """Put again on purpose, half of a pack lies in a newer one: it is no double."""
    contents = [rng.randbytes(70_000) for _ in range(10)]
    store.put_many(contents)
    (first,) = store.objects.lookup.refresh().packs.values()
    batch = store.objects.new_batch()
    for content in contents[:5]:
        batch.rewrite([_raw(content)])
    batch.seal()
    with store.objects.catalog.write() as writer:
        batch.install(writer, writer.head())
    batch.resolved()
    assert stats(store).duplicate_count == 5
    assert doubles.Doubles(store.objects).take_out() == 0
    assert first.number in store.objects.lookup.refresh().packs
    assert all(store.get(cas.BlobId(digest_blob(content))) == content for content in contents)


def _raw(content: bytes) -> Submitted:
    return Submitted(digest_blob(content), Kind.BLOB, content, None, len(content))


def test_packs_that_were_looked_at_are_not_looked_at_again(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process and in the next: only what came since is."""
    seen: list[int] = []
    beside = doubles.Doubles._beside

    def spying(self: Any, state: Any, pack: Any) -> Any:
        seen.append(pack.number)
        return beside(self, state, pack)

    monkeypatch.setattr(doubles.Doubles, "_beside", spying)
    for _ in range(3):
        store.put_many([rng.randbytes(60_000) for _ in range(5)])
    store.gc()
    assert len(seen) == 3
    with cas.open(store.location) as other:
        other.gc()
        assert len(seen) == 3
        other.put_many([rng.randbytes(60_000) for _ in range(5)])
        other.gc()
        assert len(seen) == 4


def test_what_was_stored_anew_before_a_kill_is_not_stored_a_third_time(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas whose base goes: killed between their new copies and the condemn transaction, the
    next run takes these for what they are, and writes nothing.
    """
    base = rng.randbytes(60_000)
    store.put_many([base, rng.randbytes(300_000)])
    later = versions_of(base, 6)[1:]
    put_on(store, base, later)
    write(store, "main", {f"v{n}": content for n, content in enumerate(later)})
    monkeypatch.setattr(collect, "keep_cheap_bases", lambda *_: None)
    gc_killed_at(store, Condemnation, "run")
    twice = stats(store).duplicate_count
    assert twice == len(later)

    def again(*_: object) -> int:
        raise AssertionError("written a third time")

    monkeypatch.setattr(reencode, "_write", again)
    with cas.open(store.location) as other:
        done = other.gc(grace_us=0)
        assert done.object_count >= 1
        assert stats(other).duplicate_count == 0
        assert [other.snapshot("main")[f"v{n}"] for n in range(len(later))] == later
        assert not other.has(cas.BlobId(digest_blob(base)))
        assert not fsck(other).findings


_KILLED = """
import os, sys
import cas
from cas.maintenance.gc import compact, doubles, collect
step = sys.argv[2]
store = cas.open(sys.argv[1])
if step == "moved":
    compact.remove_moved = lambda *_: os._exit(9)
elif step == "judged":
    doubles.Doubles._remove = lambda *_: os._exit(9)
elif step == "unnamed":
    collect.remove_unlinked = lambda *_: os._exit(9)
store.gc(grace_us=0)
os._exit(0)
"""


def test_a_process_that_is_killed_at_each_step(store: Store, rng: Random) -> None:
    """Behind the new packs, before the old ones of an earlier kill go, and behind their rows: after
    each a reader finds all, and the run that is let through leaves nothing twice.
    """
    kept = wasteful(store, rng)
    location = store.location
    store.close()
    for step in ("moved", "judged", "unnamed", "none"):
        code = subprocess.run(
            [sys.executable, "-c", _KILLED, location, step],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).returncode
        assert code == (0 if step == "none" else 9), step
        with cas.open(location, read_only=True) as reader:
            assert dict(reader.snapshot("main")) == kept
            assert fsck(reader).ok
    with cas.open(location) as again:
        assert stats(again).duplicate_count == 0
        assert not fsck(again).findings


def test_two_that_move_do_not_take_out_twice(store: Store, rng: Random) -> None:
    """Another handle compacts between the look and the transaction: nothing is lost by it."""
    kept = wasteful(store, rng)
    gc_killed_at(store, compact, "remove_moved")
    with cas.open(store.location) as other:
        looking = doubles.Doubles(store.objects)
        remove = looking._remove

        def late(state: Any, going: dict[int, set[int]]) -> bool:
            doubles.Doubles(other.objects).take_out()
            compacted(other.objects, waste_min=0.0, bytes_max=1 << 30, waste_max=-1)
            return remove(state, going)

        looking._remove = late  # type: ignore[method-assign]
        assert looking.take_out() == 0
        assert dict(store.snapshot("main")) == kept
        store.gc()
        assert dict(other.snapshot("main")) == kept
        assert not fsck(other).findings
