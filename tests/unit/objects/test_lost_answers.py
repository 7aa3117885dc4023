"""A commit whose answer was lost is settled from what the catalog still shows of it."""

from __future__ import annotations

import os

from cas.history.store import Store
from cas.model.ids import Kind
from cas.objects.batch import Batch


def test_one_pack_that_is_left_proves_the_commit(store: Store) -> None:
    """Two packs are named, the answer is lost, a spill gathers one: the other is not deleted."""
    batch = store.objects.new_batch()
    large = batch.put(Kind.BLOB, os.urandom(1 << 20))
    _roll(batch)
    batch.put(Kind.BLOB, b"small")
    assert len(batch.seal()) == 2
    with store.objects.catalog.write() as writer:
        batch.install(writer, writer.head())
    with store.objects.catalog.write() as writer:
        head = writer.head()
        writer.remove_packs([head.version], head.version + 1, head.condemn_seq)
    # What `ObjectStore.commit` does once the answer is lost.
    if not store.objects.settle(batch.is_installed):
        batch.abandon()
    assert len(store.objects.read(large)[1]) == 1 << 20


def _roll(batch: Batch) -> None:
    """End the pack file at hand, as its size would."""
    file = batch._file
    assert file is not None
    for records, dictionaries in file._pipeline.drain(everything=True):
        file._write(records, dictionaries)
    file._roll()
