"""Copies between stores: whole ones, those that are brought up, branches and tags of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.catalog.place import ancestor
from cas.errors import (
    BackupMismatch,
    Condemned,
    Corrupt,
    CorruptPack,
    Invalid,
    NotAStore,
    Purged,
    RefConflict,
    RefNotFound,
    Thinned,
    WasPurged,
)
from cas.history.horizon import Thinning, horizon_now, thinned_commits, thinning_of
from cas.history.retain import stage_raise
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.maintenance import copying
from cas.maintenance import purge as purging
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId, CommitId, Kind, digest_of
from cas.testing.stores import scratch
from tests.unit.kit import commits, reopened, write
from tests.unit.maintenance.test_backup import big, condemn, files_of, flip_object


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """Another store, empty."""
    with cas.open(tmp_path / "other", create=True) as opened:
        yield opened


def blob(content: bytes) -> BlobId:
    """The id of a content."""
    return BlobId(digest_of(Kind.BLOB, content))


def copied(store: Store, name: str = "copy") -> Store:
    """A copy of the whole of it, opened."""
    place = Path(store.location).with_name(name)
    assert cas.copy(store, place).created
    return cas.open(place)


def same(one: Store, two: Store) -> bool:
    """Whether two stores say the same: refs, files, journal; and the second is sound."""
    assert fsck(two).ok
    return (
        one.view().refs() == two.view().refs()
        and files_of(one) == files_of(two)
        and list(one.journal()) == list(two.journal())
    )


# -- whole stores ----------------------------------------------------------------------------


def test_a_copy_of_a_store_is_the_store(store: Store) -> None:
    """Ids, refs, journal, loose objects and what was given up; in a lineage of its own."""
    gone, kept = big(store, 2)
    young = store.put(b"young")
    commits(store, 4)
    store.spill()
    write(store, "draft", {"n": b"x"})
    condemn(store, {gone})
    with copied(store) as copy:
        assert same(store, copy)
        assert copy.get(kept) == store.get(kept)
        assert copy.get(young) == b"young"
        assert not copy.has(gone)
        meta, before = copy.objects.meta, store.objects.meta
        assert meta.store_id == before.store_id
        assert meta.ancestry == ancestor(before.lineage_id, 5)
        commits(copy, 1)


def test_a_copy_is_brought_up(store: Store) -> None:
    """Only what is new comes, entries as they stand; a second time nothing does."""
    commits(store, 3)
    with copied(store) as copy:
        for round in range(3):
            write(store, files={"n": b"%d" % round, f"d/{round}": os.urandom(90_000)})
            write(store, f"b{round}", {"n": b"%d" % round})
            with store.begin() as tx:
                tx.event("long", os.urandom(3000))
                tx.tag(f"t{round}", store.resolve("main"), "annotated")
                tx.commit()
            report = cas.copy(store, copy)
            assert (report.created, report.entry_count) == (False, 3)
            assert report.seq == store.view().seq
            assert 90_000 < report.new_bytes < 100_000
            assert same(store, copy)
            assert copy.at(report.seq - 1).refs() == store.at(report.seq - 1).refs()
        again = cas.copy(store, copy)
        assert (again.entry_count, again.object_count, again.refs) == (0, 0, ())
        copy.spill()
        with reopened(copy) as later:
            assert same(store, later)


def test_what_was_given_up_meanwhile_does_not_come(store: Store) -> None:
    """A horizon and thinned commits come with the journal: the copy lacks what the source does."""
    first = write(store, files={"a": b"1"})
    with copied(store) as copy:
        write(store, "draft", {"only": b"here"})
        draft = store.resolve("draft")
        tree, blob = store.commit(draft).tree, store.snapshot("draft").entry("only")
        assert blob is not None
        write(store, files={"a": b"2"})
        middle = store.resolve("main")
        write(store, files={"a": b"3"})
        with store.begin() as tx:
            tx.delete("heads/draft")
            tx.commit()
        with store.begin() as tx:
            fresh = {CommitId(middle): Thinning("old", "ada", 1)}
            stage_raise(store.core, tx, 5, fresh)
            tx.commit()
        condemn(store, {draft, tree, blob.id, store.commit(middle).tree})
        assert fsck(store).ok
        report = cas.copy(store, copy)
        assert report.entry_count == 5
        assert same(store, copy)
        assert copy.view().horizon() == 5
        assert not copy.has(draft)
        with pytest.raises(Thinned):
            copy.snapshot(middle)
    with copied(store, "again") as again:
        assert same(store, again)
    assert first.seq == 1


def test_only_a_copy_without_entries_of_its_own_is_brought_up(store: Store, other: Store) -> None:
    """Another store, a copy that was committed to, the original as target: each refused."""
    commits(store, 2)
    with pytest.raises(BackupMismatch) as caught:
        cas.copy(store, other)
    assert caught.value.reason == "lineage"
    with copied(store) as copy:
        with pytest.raises(BackupMismatch):
            cas.copy(copy, store)
        write(copy, files={"own": b"1"})
        with pytest.raises(BackupMismatch) as caught:
            cas.copy(store, copy)
        assert caught.value.reason == "history"
        write(store, files={"n": b"more"})
        write(store, files={"n": b"and more"})
        with pytest.raises(BackupMismatch):
            cas.copy(store, copy)
    with pytest.raises(Invalid):
        cas.copy(store, store)


def test_places_for_a_whole_copy(store: Store, tmp_path: Path) -> None:
    """A folder that holds anything is not touched, nor is one inside the store."""
    commits(store, 1)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter").write_text("dear")
    with pytest.raises(NotAStore):
        cas.copy(store, taken)
    with pytest.raises(Invalid):
        cas.copy(store, Path(store.location) / "inside")
    with pytest.raises(Invalid):
        cas.copy(store, tmp_path / "none", ["main"])
    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".new")]


def test_damage_stops_a_whole_copy_and_not_what_is_whole(store: Store, other: Store) -> None:
    """A damaged object is named and nothing is made; a branch that does not need it comes."""
    ids = big(store)
    commits(store, 2)
    write(store, "damaged", {"x": os.urandom(90_000)})
    entry = store.snapshot("damaged").entry("x")
    assert entry is not None
    flip_object(store, entry.id)
    flip_object(store, ids[0])
    with reopened(store) as again:
        place = Path(store.location).with_name("none")
        with pytest.raises(CorruptPack):
            cas.copy(again, place)
        assert not place.exists()
        cas.copy(again, other, ["main"])
        assert files_of(other) == {"heads/main": dict(store.snapshot("main").items())}
        with pytest.raises(Corrupt):
            cas.copy(again, other, ["damaged"])
        assert other.view().ref("heads/damaged") is None
    assert fsck(other).ok


# -- branches and tags -----------------------------------------------------------------------


def test_a_branch_comes_with_all_that_it_reaches(store: Store, other: Store) -> None:
    """Files of every size, links, deltas, merges, tags: the ids are the same, as one entry."""
    lines = [b"line %d\n" % number for number in range(3000)]
    for round in range(4):
        lines[round * 7] = b"changed %d\n" % round
        write(store, files={"text": b"".join(lines), "n": b"%d" % round})
    write(store, files={"big": os.urandom(9 << 20)})
    write(store, "side", {"s": b"1"})
    with store.begin() as tx:
        tx.tag("v1", store.resolve("main"), "annotated")
        tx.commit()
    report = cas.copy(store, other, ["main", "v1"], author="ada")
    assert report.entry_count == other.view().seq == 1
    assert other.entry(1).actor == "ada"
    assert store.id in other.entry(1).message
    assert {ref.name for ref in other.view().refs()} == {"heads/main", "tags/v1"}
    for name in ("main", "v1"):
        assert other.resolve(name) == store.resolve(name)
    assert dict(other.snapshot("main").items()) == dict(store.snapshot("main").items())
    assert [id for id, _ in other.log("main")] == [id for id, _ in store.log("main")]
    assert fsck(other).ok
    assert cas.copy(store, other, ["main", "heads/side"]).object_count == 2
    again = cas.copy(store, other, ["main", "side"])
    assert (again.refs, again.entry_count, again.seq) == ((), 0, 2)


def test_branches_move_only_forward(store: Store, other: Store) -> None:
    """What the other store has of its own stays, unless it is forced; nothing half is done."""
    write(store, files={"n": b"1"})
    cas.copy(store, other, ["main"])
    write(store, files={"n": b"2"})
    assert [ref.ref for ref in cas.copy(store, other, ["main"]).refs] == ["heads/main"]
    write(other, files={"own": b"1"})
    mine = other.resolve("main")
    write(store, "side", {"n": b"3"})
    with pytest.raises(RefConflict) as caught:
        cas.copy(store, other, ["side", "main"])
    assert caught.value.ref == "heads/main"
    assert other.view().ref("heads/side") is None
    cas.copy(store, other, ["side", "main"], force=True)
    assert other.resolve("main") == store.resolve("main")
    assert other.has(mine)
    with store.begin() as tx:
        tx.tag("t", store.resolve("main~1"))
        tx.commit()
    cas.copy(store, other, ["t"])
    with store.begin() as tx:
        tx.move("tags/t", store.resolve("main"))
        tx.commit()
    with pytest.raises(RefConflict):
        cas.copy(store, other, ["t"])
    with pytest.raises(RefNotFound):
        cas.copy(store, other, ["nothing"])
    with pytest.raises(RefNotFound):
        cas.copy(store, other, [str(store.resolve("main"))])


def test_a_history_that_was_thinned_does_not_come_by_itself(store: Store, other: Store) -> None:
    """The other store could not know that a tree is missing on purpose."""
    write(store, files={"a": b"1"})
    old = store.resolve("main")
    write(store, files={"a": b"2"})
    with store.begin() as tx:
        stage_raise(store.core, tx, 2, {old: Thinning("old", "ada", 1)})
        tx.commit()
    with pytest.raises(Thinned):
        cas.copy(store, other, ["main"])
    assert other.view().seq == 0


def test_what_is_left_of_a_thinned_history_comes_where_that_is_asked_for(
    store: Store, other: Store
) -> None:
    """Thinned commits come as records and are thinned there for the reason told here, by the entry
    that brings them; what the other store has of the same history keeps its content.
    """
    commits(store, 2)
    cas.copy(store, other, ["main"])
    whole = other.resolve("main")
    commits(store, 4)
    policy = RetentionPolicy((KeepRule("heads/*", last=2),), HorizonRule(Span(), 0))
    store.apply(store.plan_retention(policy), author="keeper")
    store.gc(grace_us=0)
    with pytest.raises(Thinned):
        cas.copy(store, other, ["main"])
    report = cas.copy(store, other, ["main"], thinned=True, author="ada")
    assert (report.entry_count, [ref.ref for ref in report.refs]) == (1, ["heads/main"])
    assert [id for id, _ in other.log("main")] == [id for id, _ in store.log("main")]
    gone = {CommitId(id) for id in thinned_commits(other.core, horizon_now(other.core))}
    here = set(thinned_commits(store.core, horizon_now(store.core)))
    assert gone == here - {whole, other.resolve("main~5")}
    assert len(gone) == 2
    for id in gone:
        told = [thinning_of(each.core, horizon_now(each.core), id) for each in (store, other)]
        assert told[0] == told[1]
        assert told[0] is not None
        with pytest.raises(Thinned):
            other.snapshot(id)
    assert other.snapshot(whole)["n"] == b"1"
    assert horizon_now(other.core).seq == 0
    assert other.at(1).snapshot("main")["n"] == b"1"
    assert fsck(other).ok
    other.gc(grace_us=0)
    assert fsck(other).ok
    assert cas.copy(store, other, ["main"], thinned=True).entry_count == 0
    commits(store, 1)
    assert cas.copy(store, other, ["main"]).entry_count == 1
    write(other, files={"own": b"1"})
    assert cas.copy(other, store, ["main"]).entry_count == 1
    assert fsck(store).ok


def test_a_branch_with_purged_content_comes_with_its_tombstone(store: Store, other: Store) -> None:
    """The other store learns what was purged and why, by the entry that brings the branch; what it
    has of it stays its own, and tombstones that do not concern the branch stay away.
    """
    secrets = {f"s{n}": os.urandom(5000) for n in range(4)}
    write(store, files={**secrets, "beside": b"stays"})
    write(store, "apart", {"apart": b"apart" * 100})
    ids = {name: blob(content) for name, content in secrets.items()}
    apart = store.snapshot("apart").entry("apart")
    assert apart is not None
    other.put(secrets["s2"])
    other.put(secrets["s3"])
    cas.purge(other, ids["s3"], reason="told there")
    for id in (ids["s1"], ids["s2"], ids["s3"], apart.id):
        cas.purge(store, id, reason="leaked", author="ada")
    report = cas.copy(store, other, ["main"], author="ben")
    assert report.entry_count == 1
    assert report.purged == (ids["s1"],)
    found = other.snapshot("main")
    assert found["s0"] == secrets["s0"]
    assert found["s2"] == secrets["s2"]
    told = {stone.id: stone for stone in other.purged()}
    assert told.keys() == {ids["s1"], ids["s3"]}
    assert told[ids["s1"]] == next(s for s in store.purged() if s.id == ids["s1"])
    assert told[ids["s3"]].reason == "told there"
    for name in ("s1", "s3"):
        with pytest.raises(Purged):
            found[name]
        with pytest.raises(WasPurged):
            other.put(secrets[name])
    assert fsck(other).ok
    write(store, files={"more": b"1"})
    assert cas.copy(store, other, ["main"]).purged == ()
    other.gc(grace_us=0)
    assert fsck(other).ok


def test_what_the_other_store_has_purged_is_left_out(store: Store, other: Store) -> None:
    """Its tombstone stands, whatever is copied there; all else comes, and the report says what did
    not. Large content goes without its chunks.
    """
    small, large = os.urandom(5000), os.urandom(9_000_000)
    for content in (small, large):
        other.put(content)
        cas.purge(other, blob(content), reason="told there", author="ada")
    stones = other.purged()
    write(store, files={"d/small": small, "large": large, "beside": b"stays"})
    report = cas.copy(store, other, ["main"])
    assert set(report.left_out) == {blob(small), blob(large)}
    assert report.purged == ()
    assert report.entry_count == 1
    found = other.snapshot("main")
    assert found["beside"] == b"stays"
    for path in ("d/small", "large"):
        with pytest.raises(Purged, match="told there"):
            found[path]
    assert other.purged() == stones
    assert other.objects.lookup.find(blob(small)) is None
    assert fsck(other).ok
    write(store, files={"more": b"1"})
    assert cas.copy(store, other, ["main"]).entry_count == 1
    other.gc(grace_us=0)
    assert fsck(other).ok
    # What gives its old place up is not moved without it.
    write(store, "again", {"by another name": small})
    with pytest.raises(WasPurged):
        copying.copy_refs(store, other, ["again"])


def test_a_purge_that_was_cut_short_gives_nothing_away(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that has its tombstone is not copied, though it can still be read here."""
    content = os.urandom(5000)
    write(store, files={"s": content})
    monkeypatch.setattr(purging, "_remove", lambda *_: None)
    cas.purge(store, blob(content), reason="leaked")
    assert store.get(blob(content)) == content
    cas.copy(store, other, ["main"])
    with pytest.raises(Purged):
        other.snapshot("main")["s"]


def test_a_purge_meanwhile_does_not_hold_up_what_comes_with_tombstones(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something is condemned in the other store during the copy: what is looked up again is not
    what was purged here.
    """
    content = os.urandom(5000)
    write(store, files={"s": content, "t": b"2"})
    cas.purge(store, blob(content), reason="leaked")
    gone = other.put(b"gone")
    bring = copying._Carrier.bring

    def slow(*words: Any) -> None:
        bring(*words)
        condemn(other, {gone})

    monkeypatch.setattr(copying._Carrier, "bring", slow)
    assert cas.copy(store, other, ["main"]).purged == (blob(content),)
    assert fsck(other).ok


def test_a_copy_is_brought_up_over_purges(store: Store) -> None:
    """Tombstones come with the entries, the copy gives up what it had of it, and content that was
    allowed again comes back, though all that names it was there.
    """
    early, late = os.urandom(5000), os.urandom(6000)
    write(store, files={"early": early})
    with copied(store) as copy:
        write(store, files={"late": late})
        cas.purge(store, blob(late), reason="leaked")
        cas.purge(store, blob(early), reason="leaked")
        write(store, files={"more": b"1"})
        report = cas.copy(store, copy)
        assert report.entry_count == 4
        assert set(report.purged) == {blob(early), blob(late)}
        assert not copy.has(blob(early))
        with pytest.raises(Purged):
            copy.snapshot("main")["early"]
        assert copy.purged() == store.purged()
        assert fsck(copy).ok
        with reopened(copy) as again, pytest.raises(WasPurged):
            again.put(late)
        store.put(early, allow_purged=True)
        cas.copy(store, copy)
        assert copy.snapshot("main")["early"] == early
        assert [stone.id for stone in copy.purged()] == [blob(late)]
        assert fsck(copy).ok


def test_a_copy_that_was_killed_behind_tombstones_is_ended_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was purged is still in its files then; the next run removes it."""
    content = os.urandom(5000)
    write(store, files={"early": content})
    with copied(store) as copy:
        cas.purge(store, blob(content), reason="leaked")
        with monkeypatch.context() as patch:
            patch.setattr(copying, "finish_purges", lambda _store: frozenset())
            cas.copy(store, copy)
        assert copy.get(blob(content)) == content
        cas.copy(store, copy)
        assert not copy.has(blob(content))
        assert fsck(copy).ok


def test_a_reused_object_that_was_condemned_meanwhile_is_noticed(
    store: Store, other: Store
) -> None:
    """What the other store had when it was looked at, and had no more at the commit (E6)."""
    content = os.urandom(50)
    id = other.put(content)
    write(store, files={"x": content})
    with other.begin() as tx:
        carrier = copying._Carrier(store, other, None, thinned=False)
        target = store.resolve("main")
        tx.stage(lambda batch: (carrier.bring(batch, [target]), target)[1])
        tx.move("heads/main", target)
        assert other.has(BlobId(id))
        condemn(other, {id})
        with pytest.raises(Condemned):
            tx.commit()
    assert other.view().refs() == []
    cas.copy(store, other, ["main"])
    assert fsck(other).ok


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["main", "side"]),
            st.dictionaries(
                st.sampled_from(["a", "b", "d/x", "d/y"]),
                st.none() | st.binary(max_size=40),
                min_size=1,
            ),
            st.sampled_from(["", "spill", "mirror", "take", "merge"]),
        ),
        max_size=8,
    )
)
def test_any_history_is_copied(
    steps: list[tuple[str, dict[str, bytes | None], str]],
) -> None:
    """Random histories, brought up and taken by branch at random moments: always the same."""
    with (
        scratch() as folder,
        cas.open(os.path.join(folder, "one"), create=True) as one,
        cas.open(os.path.join(folder, "three"), create=True) as three,
    ):
        cas.copy(one, os.path.join(folder, "two"))
        with cas.open(os.path.join(folder, "two")) as two:
            for branch, files, then in steps:
                there = dict(one.snapshot(branch)) if one.view().ref(f"heads/{branch}") else {}
                staged = {n: c for n, c in files.items() if c is not None or n in there}
                if not staged:
                    continue
                write(one, branch, staged)
                if then == "spill":
                    one.spill()
                elif then == "mirror":
                    cas.copy(one, two)
                    assert same(one, two)
                elif then == "take":
                    cas.copy(one, three, [branch])
                    assert dict(three.snapshot(branch)) == dict(one.snapshot(branch))
                elif then == "merge" and len(one.branches()) == 2:
                    one.merge("main", "side", on_conflict="ours", allow_unrelated=True)
            cas.copy(one, two)
            assert same(one, two)
            names = [ref.name for ref in one.branches()]
            if names:
                cas.copy(one, three, names)
            assert files_of(one) == files_of(three)
            assert fsck(three).ok
