"""The golden stores: one folder of every part of the format, and one whose old entries are
archived (section 7.5); kept for ever.

`make` and `make_archived` write them with a stepped clock; `describe` says what a reader must find
in one, all of it: refs, commits, files, journal, loose objects. The folder of a format version is
never written again once that version is released; `describe` of it must give its `.json` for all
time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cas.history.store import Store
from cas.history.view import Ref
from cas.model.entry import txid_floor
from cas.model.ids import BlobId, Kind, digest_of
from cas.model.objects import EntryKind
from cas.objects.pipeline import Submitted
from cas.testing.archiving import archive_all
from cas.testing.stores import SMALL, SteppedClock, build, create

HERE = Path(__file__).resolve().parent
LOOSE = b"put by itself\n" * 3


class Zeros:
    """Nine MiB of zeros and a tail as a stream: more than one blob may hold, tiny once stored."""

    def __init__(self) -> None:
        self._left = 9 << 20
        self._tail = b"the end\n"

    def read(self, size: int, /) -> bytes:
        part = bytes(min(size, self._left))
        self._left -= len(part)
        if not part:
            part, self._tail = self._tail[:size], self._tail[size:]
        return part


class StandingClock(SteppedClock):
    """Moves when told, so that what is written does not depend on how often time is asked."""

    def wall_us(self) -> int:
        return self._wall_us


def make(folder: str) -> None:
    """Write the store of this version of the format."""
    clock = StandingClock("golden")
    create(folder, clock=clock)
    with build(folder, clock=clock, thresholds=SMALL) as store:
        _first(store)
        for number in range(4):
            clock.sleep_ms(1_000)
            with store.begin(author="bob", message=f"step {number}") as tx:
                tx.branch("main")["docs/log.txt"] = b"line\n" * (number + 1)
                tx.event("stepped", b"%d" % number, {"by": "bob"})
                tx.commit()
        store.put(LOOSE)
        store.spill()
        with store.begin(author="ada", key="sprint-12") as tx:
            tx.branch("main")["docs/keyed.txt"] = b"once\n"
            tx.commit()
    _last(folder)
    with build(folder, clock=StandingClock("golden 3", 1_800_000_120_000_000)) as store:
        _versions(store)


def make_archived(folder: str) -> None:
    """The same store, whose old entries have left the catalog in two turns, a key among them."""
    make(folder)
    for turn, rows in enumerate((7, 3)):
        clock = StandingClock(f"golden {turn + 4}", 1_800_000_180_000_000 + turn * 60_000_000)
        few = SMALL._replace(journal_rows=rows, archive_entries=2)
        with build(folder, clock=clock, thresholds=few) as store:
            archive_all(store)


def _first(store: Store) -> None:
    """Two branches in one entry: every kind of entry, a large directory, names of all bytes."""
    with store.begin(author="ada", message="first") as tx:
        main = tx.branch("main")
        main["README.md"] = b"# Golden\n"
        main.put("bin/run", b"#!/bin/sh\n", kind=EntryKind.EXECUTABLE)
        main.put("current", b"docs/log.txt", kind=EntryKind.LINK)
        main[b"odd/\xff\x01 name"] = b""
        main["odd/e\u0301"] = b"not normalised\n"
        for number in range(150):
            main[f"many/{number:04}"] = b"%d" % number
        tx.branch("draft/one")["notes.txt"] = b"draft\n"
        tx.commit()


def _versions(store: Store) -> None:
    """A file of five versions: each is a delta of the one before, the last of the first."""
    contents = [b"".join(b"line %d\n" % (at * at) for at in range(n, n + 300)) for n in range(6)]
    ids = [store.put(contents[0])]
    for content in contents[1:]:
        with store.objects.batch() as batch:
            id = digest_of(Kind.BLOB, content)
            batch.hint(id, ids[-1])
            batch.rewrite([Submitted(id, Kind.BLOB, content, None, len(content))])
        ids.append(BlobId(id))
    with store.begin(author="ada", message="versions") as tx:
        for number, content in enumerate(contents):
            tx.branch("main")[f"versions/{number}"] = content
        tx.commit()


def _last(folder: str) -> None:
    """A second handle: a stream in chunks, tags, a moved and a deleted ref, then inline packs."""
    with build(
        folder, clock=StandingClock("golden 2", 1_800_000_060_000_000), thresholds=SMALL
    ) as store:
        with store.begin(author="ada", message="big") as tx:
            tx.branch("main").put("big.bin", Zeros())
            tx.commit()
        with store.begin(author="ada") as tx:
            tx.tag("v1", store.resolve("main"), "the first")
            tx.tag("light", store.resolve("draft/one"))
            tx.delete("heads/draft/one")
            tx.event("long", b"x" * 300)
            tx.commit()
        with store.begin(author="eve", message="last") as tx:
            tx.branch("main")["last.txt"] = b"last\n"
            tx.commit()


def describe(store: Store) -> dict[str, Any]:
    """Everything that a store says, as plain values: equal stores give equal descriptions."""
    view = store.view()
    return {
        "id": store.id,
        "refs": {ref.name: _ref(ref) for ref in view.refs()},
        "commits": {
            str(id): [str(commit.tree), commit.author, commit.message, commit.time_us]
            for ref in view.branches()
            for id, commit in view.log(ref.target)
        },
        "files": {
            path: [entry.kind.name, str(entry.id), entry.size]
            for path, entry in view.snapshot("main").walk()
        },
        "journal": [
            [
                entry.seq,
                entry.time_us,
                entry.actor,
                entry.message,
                # A generated txid is random; that of a key is not.
                entry.txid.hex() if txid_floor(entry.txid) is None else None,
                [[c.ref, c.kind, str(c.old), str(c.new)] for c in entry.changes],
                [
                    [e.type, dict(e.headers), None if e.body is None else e.body.hex(), str(e.blob)]
                    for e in entry.events
                ],
                entry.root.hex(),
            ]
            for entry in store.journal()
        ],
    }


def _ref(ref: Ref) -> list[Any]:
    return [Kind(ref.kind).name, str(ref.target), ref.seq]


MAKERS: dict[str, Callable[[str], None]] = {"": make, "-archived": make_archived}
"""What makes the stores of a version, by how their names end."""
