"""A purge beside dictionaries: what was made of the content goes, what stood beside it reads."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.errors import Purged
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import ObjectId, digest_blob
from cas.storage.codec import DICTIONARY
from cas.testing import stores
from cas.testing.memories import ENOUGH, PLENTY, memories_of
from tests.unit.maintenance.test_purge import traces
from tests.unit.objects.test_dictionaries import condemn


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that makes a dictionary of a few hundred memories."""
    folder = str(tmp_path / "small")
    stores.create(folder, clock=stores.SteppedClock("made"))
    clock = stores.SteppedClock(os.urandom(4).hex())
    with stores.build(folder, clock=clock, thresholds=stores.SMALL, cached=True) as opened:
        yield opened


def dictionaries(store: Store) -> set[bytes]:
    """Ids of the dictionaries that packs name."""
    lookup = store.objects.lookup
    state = lookup.refresh()
    return {id for pack in state.packs.values() for id in lookup.footer(pack).dictionaries()}


def test_a_dictionary_made_of_purged_content_goes(store: Store) -> None:
    """The dictionary holds a part of it word for word: it goes too, and all that was stored beside
    it reads as before.
    """
    phrase = b"the password of the vault is hunter2"
    contents = [
        content[:-1] + b", " + phrase + b"%d}" % number
        for number, content in enumerate(memories_of(random.Random(3), ENOUGH))
    ]
    ids = store.put_many(contents[:100]) + store.put_many(contents[100:])
    store.spill()
    made = dictionaries(store)
    assert made
    assert any(phrase[:20] in store.get(ObjectId(id)) for id in made)
    copies = [store.objects.find(digest_blob(content)) for content in contents]
    assert any(copy is not None and copy.slot.codec == DICTIONARY for copy in copies)
    secret, others = ids[0], dict(zip(ids[1:], contents[1:], strict=True))
    purge(store, secret, reason="leaked")
    assert not dictionaries(store) & made
    for id in made:
        assert not store.has(ObjectId(id))
    with pytest.raises(Purged):
        store.get(secret)
    for id, content in others.items():
        assert store.get(id) == content
    assert fsck(store).ok


def test_a_dictionary_that_was_purged_is_not_made_again(store: Store) -> None:
    """The same batch makes the same dictionary, which is left out: all else is put."""
    contents = memories_of(random.Random(3), PLENTY)
    ids = store.put_many(contents)
    made = dictionaries(store)
    assert len(made) == 1
    for id in made:
        purge(store, ObjectId(id), reason="leaked")
    condemn(store, [*ids, *dictionaries(store)])
    assert store.put_many(contents) == ids
    assert not dictionaries(store) & made
    assert [store.get(id) for id in ids] == contents


def test_what_a_dictionary_does_not_hold_leaves_it_alone(store: Store) -> None:
    """Content that shares nothing with a dictionary goes without it, whatever lies beside it."""
    contents = memories_of(random.Random(5), ENOUGH)
    ids = store.put_many(contents[:100]) + store.put_many(contents[100:])
    store.spill()
    made = dictionaries(store)
    assert made
    secret = random.Random(9).randbytes(300)
    id = store.put(secret)
    store.spill()
    purge(store, id, reason="leaked")
    assert all(store.has(ObjectId(id)) for id in made)
    assert traces(store, [secret[:24], secret[-24:]]) == []
    assert [store.get(id) for id in ids] == contents
    assert fsck(store).ok
    store.put_many(memories_of(random.Random(6), ENOUGH))
    store.spill()
    assert fsck(store).ok
