"""Everything a store can do, in any order, by several handles and processes, beside a dict.

Two handles on one folder, a read-only one, and a second process work in turns; transactions
stay open while others commit; handles are reopened, packs are spilled, the process is killed in
the middle of a stream of commits. After every step the store shows what the model says, at the
end every past state does, and a check of the whole store finds nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

import cas
from cas.clock import SystemClock
from cas.errors import Invalid, RefConflict, RefExists, TransactionReused
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.model.entry import Entry
from cas.model.ids import BlobId, digest_blob
from cas.testing import stores
from cas.testing.archiving import archive_all
from cas.testing.memories import ENOUGH, memories_of
from cas.testing.oracle import check_archive
from cas.testing.versions import put_on, versions_of
from tests.databases import fresh_url
from tests.stateful.oracle import Ref, State, Work, inside, read_state
from tests.stateful.remote import Remote

BRANCHES = st.sampled_from(["main", "plan", "plan/next", "a/b", "a"])
PATHS = st.sampled_from(["r", "d/x", "d/y", "d/e/z", "w/1", "w/2"])
# The last does not compress and is too long to lie inline.
CONTENT = (b"", *(b"%d" % at for at in range(20)), random.Random(1).randbytes(70_000))
CONTENTS = st.sampled_from(range(len(CONTENT))).map(CONTENT.__getitem__)
SOME = st.lists(CONTENTS, min_size=1, max_size=3)
EDITS = st.lists(
    st.tuples(BRANCHES, PATHS, st.one_of(CONTENTS, CONTENTS, CONTENTS, st.none())),
    min_size=1,
    max_size=4,
)
SLOTS = st.integers(0, 2)
KEYS = st.sampled_from(["k1", "k2", "k3"])
WHICH = st.integers(0, 1)
PLACES = st.integers(0, 10_000)

REMOTE = Remote()


@pytest.fixture(scope="module", autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """The second process ends with the tests."""
    yield
    REMOTE.kill()


class StoreMachine(RuleBasedStateMachine):
    """One store, its handles, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.place = contextlib.ExitStack()
        self.folder = self.where(self.place.enter_context(stores.scratch()))
        self.make()
        self.handles = [self.opened(), self.opened()]
        self.reader = cas.open(self.folder, read_only=True)
        self.left: list[Store] = []
        self.works: dict[int, Work] = {}
        self.states: list[State] = [{}]
        self.blobs: set[bytes] = set()
        self.keyed: dict[str, tuple[int, dict[str, dict[str, bytes]]]] = {}
        self.streamed = 0
        self.horizon = 0

    thresholds = stores.SMALL

    def where(self, scratch: str) -> str:
        """The place of the store."""
        return os.path.join(scratch, "store")

    def make(self) -> None:
        """Make the store."""
        stores.create(self.folder, clock=SystemClock())

    def opened(self) -> Store:
        """A handle whose thresholds a few steps cross."""
        return stores.build(
            self.folder, clock=SystemClock(), thresholds=self.thresholds, cached=True
        )

    @property
    def now(self) -> State:
        """What the newest state should be."""
        return self.states[-1]

    # -- objects -----------------------------------------------------------------------------

    @rule(which=WHICH, how=st.sampled_from(["put", "together", "fail", "read"]), some=SOME)
    def objects(self, which: int, how: str, some: list[bytes]) -> None:
        """Blobs alone, in a batch, in a batch that fails, and all that were ever put."""
        store = self.handles[which]
        if how == "put":
            for content in some:
                assert store.put(content) == digest_blob(content)
        elif how == "together":
            with store.batch() as batch:
                ids = [batch.put(content) for content in some]
                assert [batch.get(id) for id in ids] == some
        elif how == "fail":
            with contextlib.suppress(ZeroDivisionError), store.batch() as batch:
                for content in some:
                    batch.put(b"never " + content)
                print(1 // 0)
            for content in some:
                assert not self.handles[1 - which].has(BlobId(digest_blob(b"never " + content)))
            return
        else:
            contents = sorted(self.blobs)
            ids = [BlobId(digest_blob(content)) for content in contents]
            assert list(store.get_many(ids)) == contents
            return
        self.blobs.update(some)

    @rule(which=WHICH, first=PLACES, count=st.integers(2, 7), together=st.booleans())
    def versions(self, which: int, first: int, count: int, together: bool) -> None:
        """Later versions of a content, as deltas of the first or each of the one before."""
        contents = versions_of(random.Random(first % 5).randbytes(1500), count)
        store = self.handles[which]
        store.put(contents[0])
        if together:
            put_on(store, contents[0], contents[1:])
        else:
            for base, content in pairwise(contents):
                put_on(self.handles[1 - which], base, [content])
        self.blobs.update(contents)

    @rule(which=WHICH, seed=st.integers(0, 3), spill=st.booleans())
    def memories(self, which: int, seed: int, spill: bool) -> None:
        """Many that are alike: they make a dictionary, or stand beside it."""
        contents = memories_of(random.Random(seed), ENOUGH)
        ids = self.handles[which].put_many(contents)
        if spill:
            self.handles[1 - which].spill()
        assert list(self.handles[1 - which].get_many(ids)) == contents
        self.blobs.update(contents)

    # -- transactions ------------------------------------------------------------------------

    def work(self, slot: int) -> Work:
        """The transaction of a slot, begun on a handle of its own when there is none."""
        if slot not in self.works:
            store = self.handles[slot % 2]
            tx = store.begin(author="model")
            self.works[slot] = Work(store, tx, dict(self.now), len(self.states) - 1)
        return self.works[slot]

    @rule(slot=SLOTS, edits=EDITS)
    def stage(self, slot: int, edits: list[tuple[str, str, bytes | None]]) -> None:
        work = self.work(slot)
        for branch, path, content in edits:
            if "heads/" + branch in work.moves:
                continue
            edit, files = work.edit(branch)
            work.touch(branch, path)
            assert (path in edit) == (path in files)
            if content is not None:
                edit[path] = content
                files[path] = content
            elif path in files:
                del edit[path]
                del files[path]
            assert edit.get(path) == files.get(path)

    @rule(slot=SLOTS, branch=BRANCHES, folder=st.sampled_from(["d", "d/e", "w"]))
    def drop_folder(self, slot: int, branch: str, folder: str) -> None:
        work = self.work(slot)
        if "heads/" + branch in work.moves:
            return
        edit, files = work.edit(branch)
        below = [path for path in files if path.startswith(folder + "/")]
        if below:
            del edit[folder]
            for path in below:
                del files[path]
        assert dict(edit) == files
        work.touch(branch, None)

    @rule(slot=SLOTS, source=BRANCHES, branch=BRANCHES, tag=st.booleans())
    def move(self, slot: int, source: str, branch: str, tag: bool) -> None:
        work = self.work(slot)
        ref = work.base.get("heads/" + source)
        name = ("tags/" if tag else "heads/") + branch
        if ref is None or name in work.branches:
            return
        work.tx.move(name, ref.target)
        work.moves[name] = ref

    @rule(slot=SLOTS, branch=BRANCHES, tag=st.booleans())
    def delete_ref(self, slot: int, branch: str, tag: bool) -> None:
        work = self.work(slot)
        name = ("tags/" if tag else "heads/") + branch
        if name not in work.base or name in work.branches:
            return
        work.tx.delete(name)
        work.moves[name] = None

    @rule(slot=SLOTS, body=st.binary(max_size=300))
    def event(self, slot: int, body: bytes) -> None:
        work = self.work(slot)
        work.tx.event("told", body, {"n": str(work.events)})
        work.events += 1

    @rule(slot=SLOTS)
    def commit(self, slot: int) -> None:
        work = self.works.pop(slot, None)
        if work is None:
            return
        moved, collides = work.moved(self.now), work.collides(self.now)
        try:
            entry = work.tx.commit()
        except RefConflict as error:
            ended = error.ref in moved
        except RefExists:
            ended = collides
        except Invalid:
            # Nothing changed, and no entry was there to answer with.
            ended = work.base_seq == 0 and not work.changed(self.now) and not work.events
        else:
            self.took_in(work, entry)
            # A transaction that changes nothing has no quarrel with anybody.
            ended = (not moved and not collides) or entry.seq <= work.base_seq
        assert ended

    @rule(slot=SLOTS, edits=EDITS)
    def stage_and_commit(self, slot: int, edits: list[tuple[str, str, bytes | None]]) -> None:
        self.stage(slot, edits)
        self.commit(slot)

    @rule(slot=SLOTS, other=SLOTS, edits=EDITS, meanwhile=EDITS)
    def race(
        self,
        slot: int,
        other: int,
        edits: list[tuple[str, str, bytes | None]],
        meanwhile: list[tuple[str, str, bytes | None]],
    ) -> None:
        """One stages, another commits, the first commits."""
        self.stage(slot, edits)
        if other != slot:
            self.stage(other, meanwhile)
            self.commit(other)
        self.commit(slot)

    def took_in(self, work: Work, entry: Entry) -> None:
        """The model after an entry, or after an answer that nothing had to change."""
        changed = work.changed(self.now)
        if entry.seq < len(self.states):
            assert not changed
            assert not work.events
            return
        assert entry.seq == len(self.states)
        assert {change.ref for change in entry.changes} == changed.keys()
        assert len(entry.events) == work.events
        after = dict(self.now)
        for name, files in changed.items():
            if files is None:
                del after[name]
            else:
                target = entry.target(name)
                assert target is not None
                after[name] = Ref(dict(files), target, entry.seq)
        self.states.append(after)

    @rule(slot=SLOTS)
    def roll_back(self, slot: int) -> None:
        work = self.works.pop(slot, None)
        if work is not None:
            work.tx.rollback()

    @rule(slot=SLOTS)
    def look_again(self, slot: int) -> None:
        work = self.work(slot)
        for name, edit in work.edits.items():
            assert dict(edit) == work.branches[name]
            work.touch(name.removeprefix("heads/"), None)

    @rule(which=WHICH, key=KEYS, branch=BRANCHES, path=PATHS, content=CONTENTS)
    def commit_under_a_key(
        self, which: int, key: str, branch: str, path: str, content: bytes
    ) -> None:
        """The first request under a key counts; the same again is answered, another refused."""
        request = {branch: {path: content}}
        before = self.keyed.get(key)
        name = "heads/" + branch
        if before is None and any(inside(name, other) for other in self.now):
            return
        with self.handles[which].begin(key=key) as tx:
            tx.branch(branch, allow_empty=True)[path] = content
            if before is not None and before[1] != request:
                with pytest.raises(TransactionReused):
                    tx.commit()
                return
            entry = tx.commit()
        if before is not None:
            assert entry.seq == before[0]
            return
        assert entry.seq == len(self.states)
        self.keyed[key] = (entry.seq, request)
        old = self.now.get(name)
        target = entry.target(name)
        assert target is not None
        files = {**(old.files if old else {}), path: content}
        self.states.append({**self.now, name: Ref(files, target, entry.seq)})

    # -- handles and processes ---------------------------------------------------------------

    @rule(which=WHICH)
    def spill(self, which: int) -> None:
        self.handles[which].spill()

    @rule(which=WHICH)
    def archive(self, which: int) -> None:
        """Old entries lie in packs alone from then on, for every handle."""
        archive_all(self.handles[which])
        assert list(check_archive(self.handles[1 - which])) == []

    @rule(which=WHICH)
    def reopen(self, which: int) -> None:
        """The old handle stays: work that was begun on it may still commit."""
        self.left.append(self.handles[which])
        self.handles[which] = self.opened()

    @rule()
    def reopen_reader(self) -> None:
        self.reader.close()
        self.reader = cas.open(self.folder, read_only=True)

    @rule(
        which=WHICH, how=st.sampled_from(["put", "write", "look", "spill"]), path=PATHS, some=SOME
    )
    def child(self, which: int, how: str, path: str, some: list[bytes]) -> None:
        """What the second process does counts here, and it sees what was done here."""
        content = some[0]
        if how == "put":
            said = REMOTE.ask(self.folder, "put", content=content.hex())
            assert said == digest_blob(content).hex()
            self.blobs.add(content)
        elif how == "look":
            said = REMOTE.ask(self.folder, "refs")
            assert said == {
                name: {path: content.hex() for path, content in ref.files.items()}
                for name, ref in self.now.items()
                if name.startswith("heads/")
            }
        elif how == "spill":
            REMOTE.ask(self.folder, "spill")
        else:
            files = {path: content.hex()}
            seq = REMOTE.ask(self.folder, "commit", branch="child", files=files)
            old = self.now.get("heads/child")
            expected = {**(old.files if old else {}), path: content}
            if old is None or expected != old.files:
                assert seq == len(self.states)
            self.follow(which)
            assert self.now["heads/child"].files == expected

    @rule(which=WHICH, kill_after=st.integers(0, 12))
    def child_is_killed(self, which: int, kill_after: int) -> None:
        """Whatever was acknowledged is there; what is beyond it is whole and in order."""
        first, self.streamed = self.streamed, self.streamed + 1000
        known = len(self.states)
        acknowledged = REMOTE.stream(self.folder, "stream", first, kill_after=kill_after)
        assert acknowledged == list(range(known, known + kill_after))
        self.follow(which)
        assert len(self.states) >= known + kill_after
        for at, state in enumerate(self.states[known:]):
            assert state["heads/stream"].files == {"n": (first + at).to_bytes(4, "big")}
            assert {n for n in state if n != "heads/stream"} == {
                n for n in self.states[known - 1] if n != "heads/stream"
            }

    def follow(self, which: int) -> None:
        """Take in what another process has committed, as a handle shows it."""
        store = self.handles[which]
        for seq in range(len(self.states), store.view().seq + 1):
            self.states.append(read_state(store, seq))

    def seq_at(self, place: int) -> int:
        """An entry whose state can be seen."""
        return self.horizon + place % (len(self.states) - self.horizon)

    # -- what is always true -----------------------------------------------------------------

    # How far a killed process came is not ours to say, so nothing is drawn that depends on it.

    @rule(which=st.integers(0, 2), place=PLACES)
    def a_past_state_is_as_it_was(self, which: int, place: int) -> None:
        seq = self.seq_at(place)
        assert read_state([*self.handles, self.reader][which], seq) == self.states[seq]

    @rule(which=st.integers(0, 2), places=st.tuples(PLACES, PLACES, PLACES, PLACES))
    def a_difference_is_as_it_should_be(self, which: int, places: tuple[int, ...]) -> None:
        store = [*self.handles, self.reader][which]
        sides = []
        for place, choice in (places[:2], places[2:]):
            seq = self.seq_at(place)
            if not self.states[seq]:
                return
            name = sorted(self.states[seq])[choice % len(self.states[seq])]
            sides.append((self.states[seq][name].files, store.at(seq).snapshot(name)))
        (old, one), (new, two) = sides
        found = {
            change.path: (
                None if change.old is None else one[change.path],
                None if change.new is None else two[change.path],
            )
            for change in one.diff(two)
        }
        assert found == {
            path: (old.get(path), new.get(path))
            for path in {*old, *new}
            if old.get(path) != new.get(path)
        }

    @invariant()
    def every_handle_sees_the_newest_refs(self) -> None:
        expected = [(name, ref.target, ref.seq) for name, ref in sorted(self.now.items())]
        for store in (*self.handles, self.reader):
            view = store.view()
            assert view.seq == len(self.states) - 1
            seen = [*view.branches(), *view.tags()]
            assert [(ref.name, ref.target, ref.seq) for ref in seen] == expected

    def teardown(self) -> None:
        try:
            for store in (*self.handles, self.reader):
                for seq in range(self.horizon, len(self.states), 1 + len(self.states) // 20):
                    assert read_state(store, seq) == self.states[seq]
                for content in self.blobs:
                    assert store.get(BlobId(digest_blob(content))) == content
            journal = list(self.handles[0].journal())
            assert [entry.seq for entry in journal] == list(range(1, len(self.states)))
            report = fsck(self.handles[1])
            assert report.ok, report.findings
        finally:
            REMOTE.forget(self.folder)
            for store in (*self.handles, self.reader, *self.left):
                store.close()
            self.place.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_store_behaves_as_its_model() -> None:
    """Whatever is done in whatever order, the store shows what a dict of dicts would."""
    chosen = settings.get_profile(settings.get_current_profile_name())
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            chosen,
            max_examples=chosen.max_examples,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )


HOSTED_EXAMPLES = {"quick": 3, "deep": 400}
"""Examples of fifty steps on a server; each step is some tens of round trips."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["postgres", "s3", "postgres and s3"])
def test_a_store_on_servers_behaves_as_its_model(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the catalog on PostgreSQL, the packs in a bucket of a real S3 server, both."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    buckets = request.getfixturevalue("s3_url") if "s3" in where else None
    server = request.getfixturevalue("postgres") if "postgres" in where else None

    class HostedMachine(StoreMachine):
        def where(self, scratch: str) -> str:
            if server is None:
                return super().where(scratch)
            bucket = buckets(scratch.strip("/")) if buckets else f"{scratch}/packs"
            return fresh_url(server, bucket)

        def make(self) -> None:
            if server is None:
                assert buckets is not None
                cas.init(self.folder, bucket=buckets(self.folder.strip("/")))
            else:
                super().make()

    chosen = settings.get_profile(settings.get_current_profile_name())
    REMOTE.kill()  # the next one finds the credentials
    try:
        run_state_machine_as_test(
            HostedMachine,
            settings=settings(
                chosen,
                max_examples=HOSTED_EXAMPLES.get(os.environ.get("CAS_TEST_PROFILE", "full"), 6),
                stateful_step_count=50,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        REMOTE.kill()
