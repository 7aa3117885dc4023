"""The reference store of the corruption tests: small, and one of everything.

Blobs raw, compressed and rebuilt by a recipe; nested directories, one of several nodes; commits,
tags, events, a deleted ref; inline packs and pack files; a deletion vector; checkpoints of the
refs. `Reference` knows what each read of it must give.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cas.catalog.sqlite import open_catalog
from cas.clock import SystemClock
from cas.history.store import Store
from cas.model.entry import Entry
from cas.model.ids import Kind, digest_of
from cas.model.objects import EntryKind, Recipe
from cas.objects.store import ObjectStore
from cas.storage.local import LocalBucket
from cas.testing.stores import SMALL, SteppedClock, build, create

KEY = "the-keyed-one"
NO_SPILL = SMALL._replace(spill_packs=1000, spill_small_pack_bytes=0)
"""Spills when told, and leaves pack files as they are."""

PARTS = (b"part one, " * 40, b"part two, " * 50, b"part three" * 3)


class Found(NamedTuple):
    """What the reads of a store give: objects by id, refs after each entry, and so on."""

    objects: dict[bytes, tuple[int, bytes]]
    refs: tuple[dict[str, bytes], ...]
    files: dict[str, bytes]
    entries: tuple[Entry, ...]
    changed: tuple[str, ...]


class Reference:
    """A folder with the store, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clock = SteppedClock("corruption")
        create(str(folder), clock=clock)
        with build(str(folder), clock=clock, thresholds=NO_SPILL) as store:
            self._early(store)
        shutil.copytree(folder, folder.with_name("earlier"))
        # A second handle writes a second pack file, and inline packs that stay.
        later = SteppedClock("later", 1_800_000_100_000_000)
        with build(str(folder), clock=later, thresholds=NO_SPILL) as store:
            self._late(store)
            self.found = read_all(store)
            # What a crash leaves: the newest commits in the log, not in the catalog's file.
            shutil.copytree(folder, folder.with_name("crashed"))
        self.blobs = [id for id, (kind, _) in self.found.objects.items() if kind == Kind.BLOB]

    def _early(self, store: Store) -> None:
        text = random.Random(1)
        with store.begin(author="ada", message="first") as tx:
            main = tx.branch("main")
            main["README.md"] = b"# reference\n" + b"compressible " * 30
            main.put("bin/run", b"#!/bin/sh\n", kind=EntryKind.EXECUTABLE)
            main.put("link", b"README.md", kind=EntryKind.LINK)
            main["a/b/c/deep.txt"] = b"deep\n"
            main["noise.bin"] = text.randbytes(300)
            main["empty"] = b""
            for number in range(70):
                main[f"many/{number:02}"] = b"same"
            tx.branch("draft")["notes.txt"] = b"draft\n"
            tx.commit()
        with store.begin(author="bob", key=KEY) as tx:
            tx.branch("main")["a/b/two.txt"] = b"two\n" * 20
            tx.event("stepped", b"short", {"by": "bob"})
            tx.event("long", b"long body " * 40)
            tx.commit()
        _put_recipe(store, PARTS)
        store.spill()

    def _late(self, store: Store) -> None:
        store.put(b"a blob of the second file" * 5)
        with store.batch() as batch:
            condemned = batch.put(b"to be condemned")
            batch.put(b"beside it")
        store.spill()
        _condemn(store, condemned)
        with store.begin(author="ada", message="tags") as tx:
            tx.tag("v1", store.resolve("main"), "a message")
            tx.delete("heads/draft")
            tx.commit()
        store.put(b"put by itself")
        _put_recipe(store, PARTS[::-1])
        with store.begin(author="eve", message="last") as tx:
            tx.branch("main")["last.txt"] = b"last\n" + b"more " * 40
            tx.commit()

    @property
    def earlier(self) -> Path:
        """The folder as it was after the first pack file."""
        return self.folder.with_name("earlier")

    @property
    def crashed(self) -> Path:
        """The folder as it was while the last writer ran."""
        return self.folder.with_name("crashed")

    @property
    def packs(self) -> list[Path]:
        """Pack files, the largest first."""
        return sorted((self.folder / "packs").iterdir(), key=lambda path: -path.stat().st_size)

    @property
    def catalog(self) -> Path:
        """The catalog's file."""
        return self.folder / "catalog.sqlite"


def _put_recipe(store: Store, parts: Sequence[bytes]) -> None:
    """A small blob that only a recipe of a recipe rebuilds."""
    whole = b"".join(parts)
    with store.objects.batch() as batch:
        ids = [batch.put(Kind.BLOB, part) for part in parts]
        recipe = Recipe(0, b"".join(ids), tuple(map(len, parts)))
        top = Recipe(1, batch.put(Kind.RECIPE, recipe.encode()), (len(whole),))
        id = digest_of(Kind.BLOB, whole)
        batch.add_recipe_copy(id, batch.put(Kind.RECIPE, top.encode()), len(whole))


def _condemn(store: Store, id: bytes) -> None:
    """Set the bit of one copy, as the collector will."""
    copy = store.objects.find(id)
    assert copy is not None
    footer = store.objects.lookup.footer(copy.pack)
    slot = footer.find(id)
    bits = bytearray((footer.count + 7) // 8)
    bits[slot >> 3] |= 1 << (slot & 7)
    with store.objects.catalog.write() as writer:
        head = writer.head()
        writer.set_vector(copy.pack.number, head.version + 1, bytes(bits))
        writer.record_removal(head.version + 1, head.condemn_seq + 1)


def open_read(folder: Path, *, cached: bool = False) -> Store:
    """Open for reading. Without the cache, whose index is kept in memory then, no file changes."""
    clock = SystemClock()
    catalog = open_catalog(str(folder / "catalog.sqlite"), str(folder / "locks"), read_only=True)
    bucket = LocalBucket(str(folder / "packs"), clock)
    cache = str(folder / "cache") if cached else None
    return Store(ObjectStore(catalog, bucket, clock, cache), str(folder))


def read_all(store: Store) -> Found:
    """Every read that a store offers, once."""
    objects = store.objects
    ids: set[bytes] = set()
    for pack in objects.lookup.refresh().packs.values():
        for number, id in enumerate(objects.lookup.footer(pack).ids()):
            if not objects.lookup.is_gone(pack.number, number):
                ids.add(id)
    entries = tuple(store.journal())
    return Found(
        {id: objects.read(id) for id in sorted(ids)},
        tuple(refs_at(store, seq) for seq in range(len(entries) + 1)),
        dict(store.snapshot("main").items()),
        entries,
        changed(store),
    )


def refs_at(store: Store, seq: int) -> dict[str, bytes]:
    """Refs after an entry, without when they moved."""
    return {ref.name: bytes(ref.target) for ref in store.at(seq).refs()}


def changed(store: Store) -> tuple[str, ...]:
    """Paths that the last commit of the main branch changed."""
    return tuple(change.path for change in store.diff("main~1", "main"))


def warm(folder: Path) -> Path:
    """Write the index of a store to its cache anew; gives the folder of the cache."""
    cache = folder / "cache"
    shutil.rmtree(cache)
    cache.mkdir()
    with build(str(folder), clock=SteppedClock("warm"), cached=True) as store:
        store.objects.has(bytes(32))
    assert list(cache.iterdir()), "no index was written"
    return cache
