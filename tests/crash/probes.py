"""Named probes: each looks at the real thing and gives what it finds wrong, which is nothing.

`test_planted.py` runs each on the code as it is, and again with a bug planted that it must find.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

import apsw

from cas.catalog import engine
from cas.errors import (
    Condemned,
    Corrupt,
    ForkedStore,
    RefConflict,
    SessionExpired,
    StorageFailed,
)
from cas.history.store import Store
from cas.model.entry import Entry, entry_hash
from cas.objects.archive import archive_some
from cas.storage.local import LocalBucket
from cas.testing import oracle
from cas.testing.driver import LARGE
from cas.testing.explore import Explorer, explore, record_killed
from cas.testing.faults import Sweep
from cas.testing.layers import RecordingFiles
from cas.testing.recorder import Recorder
from cas.testing.stores import SMALL, SteppedClock, build, create, scratch

Probe = Callable[[], list[str]]


def _crash(*steps: str, tail: int | None = None) -> Probe:
    def probe() -> list[str]:
        report = explore(
            steps, "probe", tail=tail, written=0.1, each_max=6, subsets=1, fail_fast=True
        )
        return [str(failure) for failure in report.failures]

    return probe


def _faults(*steps: str) -> Probe:
    def probe() -> list[str]:
        sweep = Sweep(["commit", "commit"], steps, "probe", fail_fast=True, power_cuts=3)
        return [str(failure) for failure in sweep.run().failures]

    return probe


def _synced_by_commit(*steps: str) -> Probe:
    """Faults where COMMIT itself syncs, and so can fail once the log holds all of it.

    In NORMAL mode only what cannot be made to fail here comes between: the shared memory.
    """
    faults = _faults(*steps)

    def probe() -> list[str]:
        configure = engine._configure

        def stricter(connection: apsw.Connection, read_only: bool) -> None:
            configure(connection, read_only)
            connection.execute("PRAGMA synchronous=FULL")

        with patch.object(engine, "_configure", stricter):
            return faults()

    return probe


def _retry() -> list[str]:
    with scratch() as folder:
        for recording in record_killed(["commit"], "keyed", "probe"):
            explorer = Explorer(
                recording, folder, written=0, nested=0, each_max=3, subsets=0, fail_fast=True
            )
            for failure in explorer.run().failures:
                return [str(failure)]
    return []


@contextmanager
def _store(files: int = 0) -> Iterator[tuple[str, Callable[[], Store]]]:
    """A new store folder, and what opens a handle on it; each with a clock of its own."""
    with scratch() as folder:
        place = os.path.join(folder, "store")
        create(place, clock=SteppedClock("probe create"))
        opened: list[Store] = []

        def open_store() -> Store:
            opened.append(build(place, clock=SteppedClock(f"probe {len(opened)}")))
            return opened[-1]

        try:
            yield place, open_store
        finally:
            for store in opened:
                store.close()


def _commit(store: Store, path: str, content: bytes) -> Entry:
    with store.begin(author="driver", message=path) as tx:
        tx.branch("main")[path] = content
        return tx.commit()


def _lost_update() -> list[str]:
    with _store() as (_place, open_store):
        one, two = open_store(), open_store()
        _commit(one, "a", b"1")
        with one.begin() as first, two.begin() as second:
            first.branch("main")["a"] = b"2"
            second.branch("main")["a"] = b"3"
            first.commit()
            try:
                second.commit()
            except RefConflict:
                return []
        return ["a transaction overwrote what another had committed meanwhile"]


def _archive_ahead() -> list[str]:
    """Entries whose objects lie inline as yet stay rows."""
    with _store() as (_place, open_store):
        store = open_store()
        store.objects.thresholds = SMALL
        for number in range(4):
            _commit(store, "a", b"%d" % number)
        archive_some(store.objects)
        return [*oracle.check_mirror(store), *oracle.check_archive(store)]


def _stale_read() -> list[str]:
    with _store() as (_place, open_store):
        one, two = open_store(), open_store()
        _commit(one, "a", b"1")
        with one.begin() as first, two.begin() as second:
            edit = second.branch("main")
            edit["copy of a"] = edit["a"]
            first.branch("main")["a"] = b"2"
            first.commit()
            try:
                second.commit()
            except RefConflict:
                return []
        return ["a transaction committed what it had made of something that is no more"]


def _fenced_writer() -> list[str]:
    with _store() as (_place, open_store):
        store = open_store()
        with store.begin() as tx:
            tx.branch("main")["large"] = os.urandom(LARGE)
            with store.objects.catalog.write() as writer:
                for row in writer.sessions():
                    writer.drop_session(row.id)
            try:
                tx.commit()
            except SessionExpired:
                return []
        return ["a session committed after its row was gone"]


def _execute(place: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = apsw.Connection(os.path.join(place, "catalog.sqlite"))
    try:
        return list(connection.execute(sql, values))  # type: ignore[arg-type]
    finally:
        connection.close()


def _forged_entry() -> list[str]:
    with _store() as (place, open_store):
        store = open_store()
        for number in range(4):
            _commit(store, f"f{number}", b"x")
        entry = store.entry(2)
        store.close()
        import attrs

        forged = attrs.evolve(entry, message="never said").encode()
        _execute(
            place,
            "UPDATE journal SET entry = ?, hash = ? WHERE seq = 2",
            forged,
            entry_hash(forged),
        )
        findings = []
        for name, look in (
            ("view", lambda s: s.view()),
            ("journal", lambda s: list(s.journal())),
        ):
            try:
                look(open_store())
            except Corrupt:
                continue
            findings.append(f"a forged entry passed {name}")
        return findings


def _flipped_byte() -> list[str]:
    content = os.urandom(300)
    with _store() as (place, open_store):
        store = open_store()
        id = store.put(content)
        store.close()
        ((body,),) = _execute(place, "SELECT body FROM pack")
        assert isinstance(body, bytes)
        at = body.index(content[:100])
        flipped = body[: at + 50] + bytes([body[at + 50] ^ 1]) + body[at + 51 :]
        _execute(place, "UPDATE pack SET body = ?", flipped)
        try:
            found = open_store().get(id)
        except Corrupt:
            return []
        return ["get gave other bytes than were put"] if found != content else []


def _never_overwritten() -> list[str]:
    with scratch() as folder:
        bucket = LocalBucket(folder, SteppedClock("probe"), RecordingFiles(Recorder(folder)))
        name = "00" * 16 + ".pack"
        for content in (b"first", b"other"):
            upload = bucket.create()
            upload.write(content)
            try:
                upload.seal(name)
            except StorageFailed:
                upload.abort()
        found = bucket.read(name, 0, 5)
        bucket.close()
        return [] if found == b"first" else ["a sealed name was given to other bytes"]


def _condemn(store: Store, id: bytes) -> None:
    """What gc will do: set the bits of every copy of an object, and say so."""
    with store.objects.catalog.write() as writer:
        state = store.objects.lookup.refresh(writer)
        version = writer.head().version + 1
        for pack in state.packs.values():
            footer = store.objects.lookup.footer(pack)
            number = footer.find(id)
            if number >= 0:
                bits = bytearray((footer.count + 7) // 8)
                bits[number >> 3] |= 1 << (number & 7)
                writer.set_vector(pack.number, version, bytes(bits))
        writer.record_removal(version, writer.head().condemn_seq + 1)


def _condemned_hit() -> list[str]:
    with _store() as (_place, open_store):
        store, collector = open_store(), open_store()
        content = b"put by somebody, used by nobody"
        id = store.put(content)
        with store.begin() as tx:
            tx.branch("main")["a"] = content
            _condemn(collector, id)
            try:
                tx.commit()
            except Condemned:
                return []
        return ["a commit names an object that gc took", *oracle.check_objects(open_store())]


class _During:
    """A hook that does something at the first sync of a file of the store's own."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if call == "sync" and self._act is not None:
            act, self._act = self._act, None
            act()


def _condemned_in_spill() -> list[str]:
    with _store() as (place, open_store):
        id = open_store().put(b"condemned while a spill runs")
        open_store().put(b"kept")
        collector = open_store()
        recorder = Recorder(place, _During(lambda: _condemn(collector, id)))
        files = RecordingFiles(recorder)
        spilling = build(place, clock=SteppedClock("probe spill"), files=files)
        gathered = spilling.spill()
        spilling.close()
        if gathered != 2:
            return [f"the spill gathered {gathered} packs, not 2"]
        return ["a spill brought a condemned object back"] if open_store().has(id) else []


@contextmanager
def started(act: Callable[[], str]) -> Iterator[Callable[[], str]]:
    """Run `act` in a forked child that then ends without any cleaning up; ask what it gave."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)  # a child that waits for ever is a finding, not a test that hangs
        try:
            said = act()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        try:
            yield pipe.read
        finally:
            os.waitpid(pid, 0)


def in_child(act: Callable[[], str]) -> str:
    """What `act` gives in a forked child."""
    with started(act) as answer:
        return answer()


def _forked() -> list[str]:
    with _store() as (_place, open_store):
        store = open_store()
        _commit(store, "a", b"1")
        with store.begin() as tx:
            tx.branch("main")["large"] = os.urandom(LARGE)

            def use() -> str:
                outcomes = []
                for attempt in (store.view, lambda: store.put(b"x"), tx.commit, store.close):
                    try:
                        attempt()
                        outcomes.append("done")
                    except ForkedStore:
                        outcomes.append("ForkedStore")
                return " ".join(outcomes)

            said = in_child(use)
            entry = tx.commit()
        findings = [] if said == "ForkedStore ForkedStore ForkedStore done" else [f"child: {said}"]
        findings += oracle.check_objects(open_store())
        return findings if entry.seq == 2 else [*findings, "the parent's commit went wrong"]


def _forked_and_opened() -> list[str]:
    """The child opens the store for itself, the parent closes it, the child goes on."""
    with _store() as (place, open_store):
        store = open_store()
        _commit(store, "parent", b"1")
        go, went = os.pipe()
        heard, said_so = os.pipe()

        def use() -> str:
            own = build(place, clock=SteppedClock("probe child"))
            _commit(own, "child", b"2")
            os.write(said_so, b"x")  # and is at no gate any more, where a close would leave the log
            os.read(go, 1)
            _commit(own, "child again", b"3")
            own.close()
            return "done"

        with started(use) as answer:
            os.read(heard, 1)
            store.close()
            os.write(went, b"x")
            said = answer()
        for end in (go, went, heard, said_so):
            os.close(end)
        seq = open_store().view().seq
        findings = [] if said == "done" else [f"child: {said}"]
        return (
            findings if seq == 3 else [*findings, f"3 commits were acknowledged, {seq} are there"]
        )


PROBES: Final[dict[str, Probe]] = {
    "crash: inline commits": _crash("commit", "put", "multi"),
    "crash: a commit with a pack file": _crash("commit", "commit file", tail=1),
    "crash: a spill": _crash("commit", "commit", "put file", "spill", tail=1),
    "crash: an archive": _crash("archive", "archive", tail=1),
    "crash: a spill behind an archive": _crash("archive", "archive", "put file", "spill", tail=1),
    "an archive ahead of the mirror": _archive_ahead,
    "crash: a log that is cut": _crash("commit", "multi", "commit", "wal", "put", tail=2),
    "crash: checkpoints of refs": _crash("commit", "commit", "commit", "commit"),
    "crash: making a store": _crash("init", "put"),
    "kill, retry, power cut": _retry,
    "faults: an inline commit": _faults("commit"),
    "faults: a commit with a pack file": _faults("commit file"),
    "faults: a put of a pack file": _faults("put file"),
    "faults: a commit, synced by COMMIT": _synced_by_commit("commit"),
    "faults: a commit with a pack file, synced by COMMIT": _synced_by_commit("commit file"),
    "two writers of one ref": _lost_update,
    "a read that others changed": _stale_read,
    "a fenced writer": _fenced_writer,
    "a forged entry": _forged_entry,
    "a flipped byte": _flipped_byte,
    "a name sealed twice": _never_overwritten,
    "a condemned hit": _condemned_hit,
    "condemned in a spill": _condemned_in_spill,
    "a forked child": _forked,
    "a forked child with a store of its own": _forked_and_opened,
}
