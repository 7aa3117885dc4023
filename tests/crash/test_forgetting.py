"""Retention, gc and purge under power cuts: each as a whole or not at all, and no more goes."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import cas
from cas.errors import Purged, Thinned
from cas.history.horizon import horizon_now, thinned_commits
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.maintenance.copying import copy_refs
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, CommitId, ObjectId
from cas.testing.crash import Replay
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.recorder import Image, Mark, Recorder
from cas.testing.stores import SMALL, SteppedClock, build, create, scratch
from tests.crash.reporting import Note
from tests.unit.kit import commits, write

NOW = HorizonRule(Span(), 0)


@attrs.frozen
class Seen:
    """What a store shows of what was given up."""

    seq: int
    horizon: int
    thinned: frozenset[CommitId]
    holds: frozenset[ObjectId]
    purged: frozenset[ObjectId]


NOTHING = Seen(0, 0, frozenset(), frozenset(), frozenset())


def look(store: Store) -> Seen:
    """What was given up, after every state that can be read was read whole."""
    report = fsck(store)
    stones = frozenset(stone.id for stone in store.purged())
    bad = [f for f in report.findings if f.severity != Severity.NOTICE]
    # A purge that was cut short is told, and goes on; so is a pack whose writer did not come
    # to its commit, which may be newer than all that the catalog knows.
    assert {f.code for f in bad} <= {"purge-unfinished", "catalog-behind"}, bad
    for finding in bad:
        if finding.code == "purge-unfinished":
            purge(store, ObjectId.parse(finding.subject), reason="again")
    for stone in stones:
        assert not store.has(stone)
    horizon = horizon_now(store.core)
    head = store.view().seq
    gone = frozenset(thinned_commits(store.core, horizon))
    for seq in range(horizon.seq, head + 1):
        view = store.at(seq)
        for ref in view.branches() + view.tags():
            snapshot = view.snapshot(ref.target)
            for path, entry in snapshot.walk():
                try:
                    snapshot.read(path)
                except Purged:
                    assert entry.id in stones
    for ref in store.branches():
        for id, _commit in store.log(ref.short):
            if id in gone:
                with pytest.raises(Thinned):
                    store.snapshot(id)
    return Seen(head, horizon.seq, gone, frozenset(hold.id for hold in store.holds()), stones)


def grow(store: Store) -> None:
    """Branches with a common past, a tag, a hold, and a branch that is gone again."""
    commits(store, 4)
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main~1"))
        tx.tag("v1", store.resolve("main~2"), "text")
        tx.commit()
    write(store, "side", {"s": os.urandom(300)})
    write(store, "gone", {"g": b"1"})
    with store.begin() as tx:
        tx.delete("heads/gone")
        tx.commit()


def retain(store: Store, last: int, rule: HorizonRule = NOW) -> None:
    """Give up what the rule does not keep."""
    policy = RetentionPolicy((KeepRule("heads/*", last=last),), rule)
    store.apply(store.plan_retention(policy), author="keeper")


def purge_file(store: Store) -> None:
    """Purge content that lies in a pack file, beside other content."""
    draw = random.Random("purge").randbytes
    write(store, "big", {"key": b"SECRET" + draw(500), "other": draw(80_000), "more": draw(70)})
    purge(store, BlobId(store.put(store.snapshot("big")["key"])), reason="leaked")


def take(store: Store) -> None:
    """Take a branch of another store, of whose history a part was thinned there."""
    with cas.open(":memory:", create=True, clock=SteppedClock("taken")) as other:
        commits(other, 6, "taken")
        retain(other, 2)
        copy_refs(other, store, ["taken"], thinned=True)


STEPS: dict[str, Callable[[Store], object]] = {
    "grow": grow,
    "hold": lambda store: store.hold("main~1", "case"),
    "policy": lambda store: store.set_retention(
        RetentionPolicy((KeepRule("heads/*", last=1),), NOW)
    ),
    "retain some": lambda store: retain(store, 3, HorizonRule(Span(), 4)),
    "more": lambda store: commits(store, 3),
    "retain": lambda store: retain(store, 1),
    "spill": lambda store: store.spill(),
    "release": lambda store: [store.release(hold.id) for hold in store.holds()],
    "take": take,
    "gc": lambda store: store.gc(grace_us=0),
    "purge": lambda store: purge(store, BlobId(store.put(b"3")), reason="why"),
    "purge of a file": purge_file,
}


def images(recorder: Recorder, seed: str) -> Iterator[tuple[int, Image]]:
    """Every distinct state that a power cut can leave, with how many steps were done."""
    replay = Replay(recorder, seed=seed, each_max=8, subsets=2)
    seen: set[tuple[int, bytes]] = set()
    done = 0
    while replay.prefix < len(recorder.ops):
        done += isinstance(replay.step(), Mark)
        for cut in replay.cuts():
            image, key = replay.image(cut)
            if done and (done, key) not in seen:
                seen.add((done, key))
                yield done, image


@pytest.mark.parametrize(
    "steps",
    [
        ("grow", "retain", "more", "retain"),
        ("grow", "hold", "policy", "retain some", "more", "retain", "spill", "release", "retain"),
        ("grow", "more", "spill", "retain", "gc", "more", "retain", "gc"),
        ("grow", "purge", "more", "retain", "purge of a file", "gc"),
        ("grow", "take", "retain", "gc", "more"),
    ],
    ids=["twice", "holds", "gc", "purge", "taken"],
)
def test_a_power_cut_leaves_what_was_given_up_before_or_after(
    steps: tuple[str, ...], tmp_path: Path, note: Note
) -> None:
    """In every state that a power cut can leave, horizon and thinned commits are those after some
    step, none before the last acknowledged one, and all that is not given up reads whole.
    """
    with scratch() as folder:
        place = os.path.join(folder, "store")
        create(place, clock=SteppedClock("create"))
        recorder = Recorder(place)
        vfs = RecordingVFS(recorder)
        files = RecordingFiles(recorder)
        clock = SteppedClock("forget")
        store = build(place, clock=clock, files=files, vfs=vfs.name, thresholds=SMALL)
        after: list[Seen] = []
        recorder.mark("begin")
        try:
            for name in steps:
                STEPS[name](store)
                after.append(look(store))
                recorder.mark(name)
        finally:
            store.close()
            vfs.close()
        counts: Counter[str] = Counter()
        for number, (done, image) in enumerate(images(recorder, "forget")):
            cut = os.path.join(folder, f"cut-{number}")
            os.mkdir(cut)
            image.write_to(cut)
            with build(cut, clock=SteppedClock(f"cut {number}"), thresholds=SMALL) as opened:
                seen = look(opened)
            counts["states"] += 1
            acknowledged = (
                after[done - 2] if done > 1 else Seen(0, 0, frozenset(), frozenset(), frozenset())
            )
            assert seen.seq >= acknowledged.seq
            assert seen.horizon >= acknowledged.horizon
            assert seen.thinned >= acknowledged.thinned
            assert seen.purged >= acknowledged.purged
            # What is given up comes at once: as it was, or as one later step has left it.
            known = {(s.horizon, s.thinned) for s in after} | {(0, frozenset())}
            assert (seen.horizon, seen.thinned) in known
        assert counts["states"] > 40
        note("power cuts of retention", " + ".join(steps), **counts)
