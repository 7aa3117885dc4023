"""Scenes: what a store holds at first, who does what at once, and what must hold at the end.

Invariant: an actor acknowledges only what the store has acknowledged to it; a writer that is
refused because of what gc took begins again, as a program would.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from cas.assembly import assemble
from cas.errors import CasError, Condemned, NotFound, RefConflict, SessionExpired, Unavailable
from cas.history.store import Store
from cas.maintenance.gc.compact import compact
from cas.model.ids import BlobId, CommitId, Kind, ObjectId, digest_blob, digest_of
from cas.model.objects import Commit
from cas.objects.pipeline import Submitted
from cas.objects.promises import MARKING
from cas.objects.store import ObjectStore
from cas.testing.oracle import check_objects
from cas.testing.stores import SMALL, SteppedClock, parts
from cas.testing.versions import put_on, versions_of
from cas.trees.node import DIRECTORY, EMPTY_DATA, encode_node
from tests.schedules.baton import Baton, SteppedCatalog

LARGE: Final = 70_000
BIG: Final = random.Random(5).randbytes(2 * LARGE)


class World:
    """One store, with a handle for each actor.

    Handles draw from clocks that the name and their number decide, so that equal schedules leave
    equal bytes. A world that goes on with the folder of another needs another name: two handles of
    one clock would draw the same names for packs.
    """

    def __init__(self, folder: str, name: str, cache: str | None = None) -> None:
        self.name = name
        self.folder = folder
        self.cache = cache
        self.baton: Baton | None = None
        self.promised: list[bytes] = []
        self.handles: list[Store] = []

    def open(self) -> Store:
        """A further handle."""
        clock = SteppedClock(f"{self.name} {len(self.handles)}")
        opened, bucket = parts(self.folder, clock)
        catalog: Any = SteppedCatalog(opened, self.step)
        store = assemble(
            ObjectStore(catalog, bucket, clock, self.cache, thresholds=SMALL), self.folder
        )
        self.handles.append(store)
        return store

    def step(self) -> None:
        """A step of the actor that runs, if any does."""
        if self.baton is not None:
            self.baton.step()

    def close(self) -> None:
        """Give everything up."""
        for store in self.handles:
            store.objects.close()

    def findings(self) -> list[str]:
        """What must not be, read by a fresh handle."""
        store = self.open()
        found = list(check_objects(store))
        for ref in store.view().refs():
            if not store.objects.has(ref.target):
                found.append(f"{ref.name} points at nothing")
            elif ref.name.startswith("heads/"):
                try:
                    for path, _entry in store.snapshot(ref.target).walk():
                        store.snapshot(ref.target).read(path)
                except CasError as error:
                    found.append(f"{ref.name}: {error}")
        for id in self.promised:
            if not store.has(BlobId(id)):
                found.append(f"a put of {id.hex()[:8]} was acknowledged and is gone")
        return found


Actor = Callable[[], None]


class Scene(NamedTuple):
    """What the store holds at first, and who does what at once."""

    prepare: Callable[[Store], None]
    act: Callable[[World], list[Actor]]


C: Final = b"content that is there already"
OLD: Final = b"o" * 200


def _again(act: Callable[[], None]) -> Actor:
    """Begin again where the store says so, a few times."""

    def run() -> None:
        for _ in range(8):
            try:
                act()
            except (Condemned, NotFound, SessionExpired, RefConflict):
                continue
            return
        raise AssertionError("a writer was refused for ever")

    return run


def _gc(world: World) -> Actor:
    store = world.open()

    def run() -> None:
        try:
            store.gc(grace_us=0)
        except Unavailable:
            return

    return run


def _old(store: Store) -> None:
    store.put(C)


def dedup(world: World) -> list[Actor]:
    """A writer stages a tree over content that gc takes for garbage."""
    writer = world.open()

    def write() -> None:
        with writer.begin() as tx:
            tx.branch("main")["deep/file"] = C
            world.step()
            tx.commit()

    return [_gc(world), _again(write)]


def dedup_twice(world: World) -> list[Actor]:
    """Two writers, one after the other's commit, over the same garbage."""
    actors = dedup(world)
    other = world.open()

    def write() -> None:
        with other.begin() as tx:
            tx.branch("other")["file"] = C
            world.step()
            tx.commit()

    return [*actors, _again(write)]


FOUND: Final = Commit(DIRECTORY.empty, (), "a", "m", 5).encode()  # type: ignore[arg-type]


def _found(store: Store) -> None:
    with store.objects.batch() as batch:
        batch.put(Kind.BLOB, C)
        batch.add(DIRECTORY.empty, Kind.TREE, EMPTY_DATA)
        batch.put(Kind.COMMIT, FOUND)


def ref_move(world: World) -> list[Actor]:
    """A ref is moved to a commit that nothing leads to."""
    id = CommitId(digest_of(Kind.COMMIT, FOUND))
    writer = world.open()

    def move() -> None:
        if not writer.objects.has(id):
            return
        with writer.begin() as tx:
            tx.move("heads/found", ObjectId(id))
            world.step()
            tx.commit()

    def run() -> None:
        try:
            move()
        except (Condemned, NotFound):
            return

    return [_gc(world), run]


def loose_put(world: World) -> list[Actor]:
    """Content that is garbage is put again, and the put is acknowledged."""
    id = digest_blob(C)
    putter = world.open()
    collector = world.open()

    def put() -> None:
        inner: Any = putter.objects.catalog
        with inner.unstepped.read() as reader:
            begun = bool(reader.cursor(MARKING))
        putter.put(C)
        if begun:
            world.promised.append(id)

    def collect() -> None:
        collector.gc(grace_us=0)

    return [collect, _again(put)]


CONTENTS: Final = versions_of(b"".join(b"%d lines of text\n" % at for at in range(600)), 3)


def _base(store: Store) -> None:
    store.put_many([CONTENTS[0], bytes(LARGE)])


def bases(world: World) -> list[Actor]:
    """A writer stores a delta of content that gc takes for garbage."""
    writer = world.open()

    def write() -> None:
        put_on(writer, CONTENTS[0], CONTENTS[1:])
        with writer.begin() as tx:
            tx.branch("main")["v"] = CONTENTS[2]
            world.step()
            tx.commit()

    return [_gc(world), _again(write)]


def _apart(first: Store, *, inline: bool) -> None:
    """Garbage in two packs: a parent in one that is moved, its child in one that is not."""
    # Too long for its pack to be gathered beside the parent's.
    child = random.Random(1).randbytes(1_200_000)
    first.put(child)
    with first.objects.batch() as batch:
        node = _node(child)
        if inline:
            batch.put(Kind.BLOB, OLD)
            batch.put(Kind.TREE, node)
        else:
            kept = digest_blob(OLD)
            items = ((digest_of(Kind.TREE, node), Kind.TREE, node), (kept, Kind.BLOB, OLD))
            batch.rewrite([Submitted(id, kind, data, None, len(data)) for id, kind, data in items])
    with first.begin() as tx:
        tx.branch("main")["a"] = OLD
        tx.commit()


def moved(world: World) -> list[Actor]:
    """A spill gathers a parent that gc condemns, together with a child that lies elsewhere."""
    mover = world.open()

    def move() -> None:
        mover.spill()

    return [_gc(world), move]


def compacted(world: World) -> list[Actor]:
    """Compaction copies a parent that gc condemns, together with a child that lies elsewhere."""
    mover = world.open()

    def move() -> None:
        compact(mover.objects, waste_min=0.0, waste_max=-1.0, bytes_max=1 << 30)

    return [_gc(world), move]


def new_parent(world: World) -> list[Actor]:
    """What was committed and dropped since the mark holds old content, which another then uses."""
    putter, writer = world.open(), world.open()

    def put() -> None:
        with putter.objects.batch() as batch:
            node = _node(C)
            batch.rely(digest_blob(C))
            batch.put(Kind.TREE, node)

    def write() -> None:
        with writer.begin() as tx:
            tx.branch("main")["sub/name"] = C
            world.step()
            tx.commit()

    return [_gc(world), _again(put), _again(write)]


def _node(content: bytes) -> bytes:
    return encode_node(0, [b"name"], b"\x01", digest_blob(content), [len(content)]).data


def large_writer(world: World) -> list[Actor]:
    """A writer of pack files, whose files and session gc looks at."""
    writer = world.open()

    def write() -> None:
        with writer.begin() as tx:
            edit = tx.branch("main")
            edit["big"] = BIG
            world.step()
            edit["c"] = C
            world.step()
            tx.commit()

    return [_gc(world), _again(write)]


def two_collectors(world: World) -> list[Actor]:
    """Two runs at once, beside a writer."""
    return [*dedup(world), _gc(world)]


SCENES: Final[dict[str, Scene]] = {
    "dedup": Scene(_old, dedup),
    "dedup, two writers": Scene(_old, dedup_twice),
    "a ref is moved": Scene(_found, ref_move),
    "a loose put": Scene(_old, loose_put),
    "bases": Scene(_base, bases),
    "spill": Scene(partial(_apart, inline=True), moved),
    "compaction": Scene(partial(_apart, inline=False), compacted),
    "a new parent": Scene(_old, new_parent),
    "a writer of files": Scene(_old, large_writer),
    "two collectors": Scene(_old, two_collectors),
}
