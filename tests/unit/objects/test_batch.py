"""Batches of objects: together or not at all, and never quietly less than was taken."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import CasError, Closed, Invalid, StorageFailed
from cas.history.store import Store
from cas.model.ids import BlobId, Kind, digest_blob
from cas.storage.files import Files
from cas.testing import stores
from tests.unit.kit import reopened

LARGE = 70_000
"""Bytes of an object that does not compress and is too long to lie inline."""


class StubbornFiles(Files):
    """Files of which the `fail_at`-th to be made is refused, once."""

    def __init__(self, fail_at: int) -> None:
        self.left = fail_at

    def create(self, path: str) -> int:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().create(path)


def test_a_batch_appears_whole(store: Store) -> None:
    """Staged objects are readable in the batch only, until the block has ended."""
    with store.batch() as batch:
        ids = [batch.put(b"%d" % at) for at in range(10)]
        assert batch.get(ids[3]) == b"3"
        assert not any(store.has(id) for id in ids)
    assert list(store.get_many(ids)) == [b"%d" % at for at in range(10)]
    assert list(store.journal()) == []


def test_an_exception_drops_the_batch(store: Store) -> None:
    """What the block raises comes out unchanged and nothing of the batch exists."""
    for size in (5, LARGE):
        contents = [os.urandom(size) for _ in range(30)]

        def stage(contents: list[bytes]) -> None:
            with store.batch() as batch:
                for content in contents:
                    batch.put(content)
                print(1 // 0)

        with pytest.raises(ZeroDivisionError):
            stage(contents)
        assert not any(store.has(BlobId(digest_blob(content))) for content in contents)
    assert list((Path(store.location) / "packs").iterdir()) == []


def test_an_ended_batch_refuses(store: Store) -> None:
    """A put after the end would never exist, so it is refused, whether or not it is new."""
    with store.batch() as batch:
        id = batch.put(b"in time")
    for late in (b"in time", b"too late", os.urandom(LARGE)):
        with pytest.raises(Closed):
            batch.put(late)
        with pytest.raises(Closed):
            batch.put(io.BytesIO(late))
    assert store.get(id) == b"in time"


def test_a_put_of_no_content_spoils_nothing_else(store: Store) -> None:
    """A refused put leaves the batch usable: nothing of it was staged."""
    with store.batch() as batch:
        first = batch.put(b"first")
        with pytest.raises(Invalid):
            batch.put("text")  # type: ignore[arg-type]
        second = batch.put(b"second")
    assert list(store.get_many([first, second])) == [b"first", b"second"]


def test_a_failed_write_fails_the_batch_for_good(tmp_path: Path) -> None:
    """Whoever catches a write error and goes on cannot commit: objects taken before are lost."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), files=StubbornFiles(1)) as store:
        ids = []

        def stage() -> None:
            with store.batch() as batch:
                for _ in range(60):
                    try:
                        ids.append(batch.put(os.urandom(LARGE)))
                    except StorageFailed:
                        continue

        with pytest.raises(CasError):
            stage()
        assert ids
        assert not any(store.has(id) for id in ids)
        assert list((tmp_path / "store" / "packs").iterdir()) == []
        assert store.get(store.put(b"the store goes on")) == b"the store goes on"


def test_a_transaction_with_a_failed_write_cannot_commit(tmp_path: Path) -> None:
    """Nor can a transaction publish a tree whose files were lost on the way."""
    folder = str(tmp_path / "store")
    stores.create(folder, clock=SystemClock())
    with stores.build(folder, clock=SystemClock(), files=StubbornFiles(1)) as store:

        def work() -> None:
            with store.begin() as tx:
                edit = tx.branch("main")
                for at in range(60):
                    try:
                        edit[f"f{at}"] = os.urandom(LARGE)
                    except StorageFailed:
                        continue
                tx.commit()

        with pytest.raises(CasError):
            work()
        assert store.branches() == []


def test_what_exists_is_not_written_again(store: Store) -> None:
    """Equal content is one object, in one batch, over batches, and over handles."""
    content = os.urandom(LARGE)
    with store.batch() as batch:
        assert batch.put(content) == batch.put(content) == batch.put(io.BytesIO(content))
    stored = store.objects.lookup.refresh().version
    with reopened(store) as other:
        other.put(content)
        with other.batch() as batch:
            batch.put(content)
        assert other.objects.lookup.refresh().version == stored


def test_an_empty_batch_writes_nothing(store: Store) -> None:
    """A block without a put ends without a trace."""
    with store.batch():
        pass
    assert store.put_many([]) == []
    assert store.objects.lookup.refresh().version == 0


def test_a_large_batch_reads_back_while_it_is_staged(store: Store) -> None:
    """Objects on their way through the compressors, and in packs not yet sealed, are readable."""
    contents = [os.urandom(100) + bytes(at) for at in range(3000)] + [
        os.urandom(LARGE) for _ in range(40)
    ]
    with store.batch() as batch:
        ids = [batch.put(content) for content in contents]
        for at in (0, 1, 1500, 2999, 3000, 3039):
            assert batch.get(ids[at]) == contents[at]
    assert list(store.get_many(ids)) == contents
    with reopened(store) as other:
        assert list(other.get_many(reversed(ids))) == contents[::-1]


def test_kinds_are_kept(memory: Store) -> None:
    """An object keeps the kind it was staged with, and other readers are told."""
    with memory.objects.batch() as batch:
        id = batch.put(Kind.RECIPE, b"\x84\x00")
    assert memory.objects.read(id) == (Kind.RECIPE, b"\x84\x00")
    with pytest.raises(cas.errors.WrongKind):
        memory.get(BlobId(id))


def test_only_who_verified_every_record_states_a_digest_of_the_body(store: Store) -> None:
    """A pack file of new objects states the BLAKE3 of its body; one whose records a spill has
    moved as they lay does not, be they moved one by one or as a whole.
    """
    with store.batch() as batch:
        ids = [batch.put(os.urandom(LARGE)) for _ in range(3)]
    assert all(store.get(id) for id in ids)
    packs = list(store.objects.lookup.ensure().packs.values())
    assert len(packs) == 1
    footer = store.objects.lookup.footer(packs[0])
    assert packs[0].file is not None
    body = store.objects.bucket.read(packs[0].file, 0, packs[0].body_bytes)
    assert footer.body_digest == digest_blob(body)
    for number in range(3):
        store.put(b"small %d" % number)
    assert store.spill() == 4
    (spilled,) = store.objects.lookup.ensure().packs.values()
    assert store.objects.lookup.footer(spilled).body_digest == b""
