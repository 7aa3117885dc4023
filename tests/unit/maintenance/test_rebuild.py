"""Rebuild: a catalog that is lost comes back from packs, up to the last mirrored entry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cas
from cas.catalog.catalog import MIRRORED
from cas.errors import CannotRepair, CasError, Closed, CorruptCatalog, NotAsExpected, StoreNotFound
from cas.history.store import Store
from cas.maintenance.findings import Finding
from cas.maintenance.fsck.check import fsck
from cas.maintenance.repair.evidence import Folder
from cas.model.ids import Kind
from cas.objects.packs import bit_is_set
from cas.storage.files import Files
from cas.testing.stores import SMALL, SteppedClock, build
from cas.trees.node import encode_node
from tests.unit.kit import commits, reopened, take, tamper, write
from tests.unit.maintenance.test_backup import condemn

SUFFIXES = ("", "-wal", "-shm")


def lose_catalog(folder: Path | str) -> None:
    """Delete the catalog and what lies beside it."""
    for suffix in SUFFIXES:
        Path(f"{folder}/catalog.sqlite{suffix}").unlink(missing_ok=True)


def everything(store: Store) -> dict[bytes, bytes]:
    """Content of every object that exists, by id; segments and refs nodes left out."""
    objects = store.objects
    state = objects.lookup.refresh()
    found = {}
    for pack in state.packs.values():
        for number, slot in enumerate(objects.lookup.footer(pack).slots()):
            gone = bit_is_set(state.vectors.get(pack.number), number)
            if not gone and slot.kind not in (Kind.SEGMENT, Kind.REFS):
                found[slot.id] = objects.read(slot.id)[1]
    return found


def state_of(store: Store, seq: int) -> dict[str, bytes]:
    """Where each ref pointed after an entry."""
    return {ref.name: bytes(ref.target) for ref in store.at(seq).refs()}


def repaired(folder: Path | str, **wishes: object) -> None:
    """Plan, apply, and look that a second time there is nothing to do. Where the catalog is gone,
    what no entry leads to is left out unless said.
    """
    if not Path(folder, "catalog.sqlite").exists():
        wishes.setdefault("keep_loose", False)
    with cas.plan_repair(folder, **wishes) as plan:  # type: ignore[arg-type]
        assert plan.is_needed
        plan.apply()
    with cas.plan_repair(folder) as again:
        assert not again.is_needed
        assert not again.blocked


def test_a_lost_catalog_comes_back_up_to_the_mirror(store: Store) -> None:
    """Refs, journal and every object that an entry leads to are as they were at the mirror."""
    for at in range(8):
        write(store, files={f"d/{at}": b"%d" % at, "big": os.urandom(70_000)})
    with store.begin(key="once") as tx:
        tx.event("long", os.urandom(1000))
        tx.tag("v1", store.resolve("main"))
        tx.commit()
    store.put(os.urandom(9 << 20))
    with store.begin() as tx:
        tx.branch("other")["huge"] = os.urandom(9 << 20)
        tx.commit()
    seq = store.mirror()
    rows = [(entry.seq, entry.encode()) for entry in store.journal()]
    refs = {at: state_of(store, at) for at in range(seq + 1)}
    files = dict(store.snapshot("main"))
    huge = store.snapshot("other")["huge"]
    write(store, files={"late": b"late"})
    store.close()
    lose_catalog(store.location)
    with pytest.raises(CorruptCatalog, match="cas repair"):
        cas.open(store.location)
    with pytest.raises(CorruptCatalog, match="cas repair"):
        cas.open(store.location, create=True)
    repaired(store.location)
    with cas.open(store.location) as again:
        assert again.id == store.id
        assert [(entry.seq, entry.encode()) for entry in again.journal()] == rows
        assert {at: state_of(again, at) for at in range(seq + 1)} == refs
        assert dict(again.snapshot("main")) == files
        assert again.snapshot("other")["huge"] == huge
        assert again.outcome("once") is not None
        assert fsck(again).findings == ()
        assert again.objects.meta.lineage_id != store.objects.meta.lineage_id
        write(again, files={"new": b"new"})
        assert again.mirror() == seq + 1


def test_what_was_loose_is_told_and_can_be_kept(store: Store) -> None:
    """Without a catalog nobody can tell a loose put from what was given up: it stays out."""
    write(store)
    loose = store.put(b"loose")
    store.mirror()
    store.close()
    lose_catalog(store.location)
    with cas.plan_repair(store.location) as plan:
        assert loose in plan.loose
        assert any("--keep-loose" in sentence for sentence in plan.blocked)
        with pytest.raises(CannotRepair, match="--drop-loose"):
            plan.apply()
    assert not Path(store.location, "catalog.sqlite").exists()
    kept = Path(shutil.copytree(store.location, store.location + "-kept"))
    repaired(store.location)
    with cas.open(store.location) as again:
        assert not again.has(loose)
        assert fsck(again).ok
        assert again.put(b"loose") == loose
        assert again.get(loose) == b"loose"
    repaired(kept)
    with cas.open(kept) as again:
        assert not again.has(loose)
    repaired(kept, keep_loose=True, rebuild=True)  # what was left out can be had later
    with cas.open(kept) as again:
        assert again.get(loose) == b"loose"


def test_a_history_of_which_packs_hold_no_entry_is_no_empty_store(store: Store) -> None:
    """Commits in packs without a journal that names them: a decision, the ends of the branches
    named, and nothing done until it is taken; later it can still be taken otherwise.
    """
    write(store, files={"first": os.urandom(9 << 20)})  # so much goes into a file at once
    second = os.urandom(9 << 20)
    write(store, files={"second": second})
    head = store.resolve("main")
    store.close()
    assert len(list(Path(store.location, "packs").iterdir())) == 2
    lose_catalog(store.location)
    with cas.plan_repair(store.location) as plan:
        assert plan.blocked
        assert any(str(head) in note and "cas branch" in note for note in plan.notes)
        with pytest.raises(CannotRepair, match="--keep-loose"):
            plan.apply()
    repaired(store.location)
    with cas.open(store.location) as again:
        assert not again.has(head)
    repaired(store.location, rebuild=True, keep_loose=True)
    with cas.open(store.location) as again:
        with again.begin() as tx:
            tx.move("heads/main", head)
            tx.commit()
        assert again.snapshot("main")["second"] == second
        assert len(list(again.log("main"))) == 2
        assert fsck(again).ok


def test_what_was_given_up_comes_back_only_when_asked_for_and_is_told(store: Store) -> None:
    """A rebuild beside a readable catalog keeps to it; `keep_loose` brings back, and counts."""
    write(store)
    loose = store.put(os.urandom(300_000))
    keep = store.put(b"keep")
    store.spill()
    condemn(store, {loose})
    store.close()
    with cas.plan_repair(store.location, rebuild=True) as plan:
        plan.apply()
    with cas.open(store.location) as again:
        assert not again.has(loose)
        assert again.has(keep)
    with cas.plan_repair(store.location, rebuild=True, keep_loose=True) as plan:
        assert any("come back (1)" in note for note in plan.notes)
        plan.apply()
    with cas.open(store.location) as again:
        assert again.has(loose)
        assert fsck(again).ok


def test_nothing_condemned_comes_back_half(store: Store) -> None:
    """A parent whose child is in no file is not admitted, and a put of it writes it anew."""
    write(store, files={"keep": b"kept"})
    content = os.urandom(2 << 20)
    child = store.put(content)
    (lonely,) = Path(store.location, "packs").iterdir()
    data = encode_node(0, [b"a"], b"\1", bytes(child), [len(content)]).data
    with store.objects.batch() as batch:
        batch.rely(child)
        parent = batch.put(Kind.TREE, data)
    store.mirror()
    store.close()
    lonely.unlink()
    lose_catalog(store.location)
    repaired(store.location, keep_loose=True)
    with cas.open(store.location) as again:
        assert not again.objects.has(parent)
        assert fsck(again).ok
        assert again.put(content) == child
        with again.objects.batch() as batch:
            batch.rely(child)
            assert batch.put(Kind.TREE, data) == parent
        assert fsck(again).ok


def test_a_damaged_catalog_gives_what_it_still_has(store: Store) -> None:
    """What is not mirrored comes from the old catalog, as far as it can be read."""
    write(store, files={"a": b"1"})
    store.mirror()
    commits(store, 3)
    loose = store.put(b"loose")
    rows = [entry.encode() for entry in store.journal()]
    store.close()
    tamper(store, "DROP TABLE checkpoint")
    with cas.plan_repair(store.location) as plan:
        assert [action.kind for action in plan.actions] == ["rebuild-catalog"]
        assert plan.entry_count == 4
        plan.apply()
    with cas.open(store.location) as again:
        assert [entry.encode() for entry in again.journal()] == rows
        assert again.get(loose) == b"loose"
        assert dict(again.snapshot("main")) == {"a": b"1", "n": b"2"}
        assert fsck(again).ok
        with again.objects.catalog.read() as reader:
            assert reader.cursor(MIRRORED) == 4
    aside = min(Path(store.location).glob("catalog.damaged-*"), key=lambda path: len(path.name))
    assert aside.stat().st_size > 0
    # And once more, from packs alone.
    lose_catalog(store.location)
    repaired(store.location, keep_loose=True)
    with cas.open(store.location) as again:
        assert [entry.encode() for entry in again.journal()] == rows
        assert again.get(loose) == b"loose"


def test_what_no_pack_holds_needs_a_decision(store: Store) -> None:
    """Refs that would lack something block a rebuild; each way out that is told works."""
    write(store, files={"a": b"1"})
    store.mirror()
    write(store, files={"b": b"2"})
    store.close()
    tamper(store, "UPDATE pack SET body = zeroblob(10), footer = x'00' WHERE body IS NOT NULL")
    tamper(store, "DROP TABLE checkpoint")
    with cas.plan_repair(store.location) as plan:
        assert plan.blocked
        assert "--to 1" in plan.blocked[0]
        before = sorted(p.name for p in Path(store.location).rglob("*"))
        with pytest.raises(CannotRepair):
            plan.apply()
        assert sorted(p.name for p in Path(store.location).rglob("*")) == before
    copy = Path(shutil.copytree(store.location, store.location + "-copy"))
    with cas.plan_repair(store.location, upto=1) as plan:
        plan.apply()
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == {"a": b"1"}
        assert fsck(again).ok
    with cas.plan_repair(copy, accept_loss=True) as plan:
        plan.apply()
    with cas.open(copy) as again:
        assert len(list(again.journal())) == 2
        assert dict(again.at(1).snapshot("main")) == {"a": b"1"}
        assert not fsck(again).ok


def test_a_catalog_copied_back_from_yesterday_is_noticed(store: Store, tmp_path: Path) -> None:
    """In place, so that no inode tells: packs hold more of the journal, and repair goes on."""
    commits(store, 2)
    store.close()
    saved = Path(store.location, "catalog.sqlite").read_bytes()
    with cas.open(store.location) as later:
        commits(later, 3)
        later.mirror()
        rows = [entry.encode() for entry in later.journal()]
    with Path(store.location, "catalog.sqlite").open("r+b") as file:
        file.write(saved)
        file.truncate()
    with cas.open(store.location) as old:
        assert len(list(old.journal())) == 2
    assert "catalog-behind" in {f.code for f in fsck_of(store.location)}
    with cas.plan_repair(store.location) as plan:
        assert "put back" in plan.actions[0].message
    repaired(store.location)
    with cas.open(store.location) as again:
        assert [entry.encode() for entry in again.journal()] == rows
        assert fsck(again).ok


def fsck_of(location: str) -> tuple[Finding, ...]:
    """What a check of a folder finds."""
    with cas.open(location, read_only=True) as store:
        return fsck(store).findings


def test_two_mirrors_that_disagree_are_both_shown(store: Store) -> None:
    """A catalog of yesterday that went on has another entry 3: nobody chooses but the caller."""
    commits(store, 2)
    store.close()
    saved = Path(store.location, "catalog.sqlite").read_bytes()
    with cas.open(store.location) as later:
        write(later, files={"n": b"first"})
        later.mirror()
    with Path(store.location, "catalog.sqlite").open("r+b") as file:
        file.write(saved)
        file.truncate()
    with cas.open(store.location) as other:
        write(other, files={"n": b"second"})
        write(other, files={"n": b"third"})
        other.mirror()
    lose_catalog(store.location)
    with cas.plan_repair(store.location) as plan:
        assert sorted(tip.seq for tip in plan.tips) == [3, 4]
        assert "--tip" in plan.blocked[0]
        with pytest.raises(CannotRepair):
            plan.apply()
        tips = {tip.seq: tip.hash.hex() for tip in plan.tips}
    copy = Path(shutil.copytree(store.location, store.location + "-copy"))
    for folder, seq, content in ((store.location, 3, b"first"), (copy, 4, b"third")):
        repaired(folder, prefer=tips[seq][:16])
        with cas.open(folder) as again:
            assert again.snapshot("main")["n"] == content
            assert fsck(again).ok
            commits(again, 2)
            again.mirror()
        # What was not chosen is of an older lineage now, and no matter any more.
        lose_catalog(folder)
        repaired(folder)
        with cas.open(folder) as again:
            assert len(list(again.journal())) == seq + 2


def test_a_store_that_was_rebuilt_can_be_rebuilt(store: Store) -> None:
    """Each rebuild begins a lineage that is ordered after the one before."""
    lineages = []
    for round in range(4):
        with cas.open(store.location) as one:
            lineages.append(one.objects.meta.lineage_id)
            write(one, files={"r": b"%d" % round})
            if round % 2 == 0:
                one.mirror()
        lose_catalog(store.location)
        repaired(store.location)
    with cas.open(store.location) as again:
        ancestry = again.objects.meta.ancestry
        assert [ancestry[at : at + 16] for at in range(0, len(ancestry), 24)] == lineages
        assert again.snapshot("main")["r"] == b"2"
        assert fsck(again).ok


def test_packs_without_footer_are_found_by_their_records(store: Store) -> None:
    """A rebuild reads the records of a pack whose end is gone, deltas and recipes included."""
    big = os.urandom(9 << 20)
    text = [b"".join(b"%d %d\n" % (n, n * 7 + (n == at)) for n in range(3000)) for at in range(4)]
    for at, content in enumerate(text):
        write(store, files={"f": content, "big": big + b"%d" % at})
    store.mirror()
    files = [dict(store.snapshot(f"main~{back}")) for back in range(4)]
    store.close()
    for file in Path(store.location, "packs").iterdir():
        data = file.read_bytes()
        file.write_bytes(data[: len(data) - 60])
    lose_catalog(store.location)
    with cas.plan_repair(store.location) as plan:
        assert "rescue-pack" in {action.kind for action in plan.actions}
    repaired(store.location)
    with cas.open(store.location) as again:
        assert [dict(again.snapshot(f"main~{back}")) for back in range(4)] == files
        assert fsck(again).ok


def test_who_has_the_store_open_is_shut_out(store: Store) -> None:
    """A handle from before the rebuild neither writes nor shows what is not so any more."""
    commits(store, 2)
    store.mirror()
    with reopened(store) as other:
        write(other, files={"x": b"1"})
        with cas.plan_repair(store.location, rebuild=True) as plan:
            plan.apply()
        for handle in (store, other):
            with pytest.raises(Closed, match="Open the store again"):
                write(handle, files={"y": b"2"})
    with cas.open(store.location) as again:
        write(again, files={"z": b"3"})
        assert dict(again.snapshot("main")) == {"n": b"1", "x": b"1", "z": b"3"}


def test_a_plan_is_for_the_folder_that_it_saw(store: Store) -> None:
    """When somebody has written since, nothing is done."""
    commits(store, 2)
    with cas.plan_repair(store.location, rebuild=True) as plan:
        write(store, files={"late": b"1"})
        with pytest.raises(NotAsExpected):
            plan.apply()
    write(store, files={"later": b"1"})
    assert len(list(store.journal())) == 4


class Dying(Files):
    """Stops at the n-th call that changes a name."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def sync_folder(self, path: str) -> None:
        self._count()
        super().sync_folder(path)

    def _count(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


@pytest.mark.parametrize("calls", range(12))
@pytest.mark.parametrize("damaged", [False, True])
def test_a_rebuild_that_was_cut_short_ends_well(store: Store, calls: int, damaged: bool) -> None:
    """Killed at any change of a name, the next repair comes to the same end."""
    commits(store, 3)
    store.mirror()
    write(store, files={"inline": b"1"})
    store.close()
    if damaged:
        tamper(store, "DROP TABLE checkpoint")
    else:
        lose_catalog(store.location)
    from cas.maintenance.repair.evidence import gather
    from cas.maintenance.repair.rebuild import plan_rebuild
    from cas.maintenance.repair.renewal import carry_out

    clock = SteppedClock(calls)
    evidence = gather(Folder(store.location), clock)
    assert evidence is not None
    ended = True
    try:
        carry_out(plan_rebuild(evidence), clock, files=Dying(calls))
    except KeyboardInterrupt:
        ended = False
    evidence.objects.close()
    with cas.plan_repair(store.location) as plan:
        assert not (ended and plan.is_needed)
        plan.apply()
    with cas.plan_repair(store.location) as plan:
        assert not plan.is_needed
    with cas.open(store.location) as again:
        files = {"n": b"2", "inline": b"1"} if damaged else {"n": b"2"}
        assert dict(again.snapshot("main")) == files
        assert fsck(again).ok
        write(again)


def test_no_store_is_no_store(tmp_path: Path) -> None:
    """Nothing is made where there is nothing."""
    with pytest.raises(StoreNotFound):
        cas.plan_repair(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x")
    with pytest.raises(CasError):
        cas.plan_repair(tmp_path / "folder")
    (tmp_path / "empty" / "packs").mkdir(parents=True)
    (tmp_path / "empty" / "locks").mkdir()
    with cas.plan_repair(tmp_path / "empty") as plan:
        assert "restore a backup" in plan.blocked[0]


STEPS = [
    "commit",
    "move",
    "delete",
    "put",
    "file",
    "spill",
    "mirror",
    "reopen",
    "lose",
    "event",
    "gc",
]


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_any_history_comes_back(steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """After any steps, catalogs lost on the way included, what the mirror had reached is there:
    refs at every entry, the journal byte for byte, and every object that it leads to.
    """
    folder = str(tmp_path_factory.mktemp("rebuild") / "store")
    cas.init(folder)
    seeds = iter(range(1000))

    def opened() -> Store:
        return build(folder, clock=SteppedClock(f"rebuild {next(seeds)}"), thresholds=SMALL)

    store = opened()
    write(store)
    for at, step in enumerate([*steps, "mirror", "lose"]):
        if take(store, step, at, "d/"):
            pass
        elif step == "event":
            with store.begin() as tx:
                tx.event("e", os.urandom(400))
                tx.commit()
        elif step == "mirror":
            store.mirror()
        elif step == "gc":
            store.gc(grace_us=0)
        elif step == "reopen":
            store.close()
            store = opened()
        else:
            store = _lose_and_compare(store, folder, opened)
    store.close()


def _lose_and_compare(store: Store, folder: str, opened: object) -> Store:
    store.close()
    store = opened()  # type: ignore[operator]
    with store.objects.catalog.read() as reader:
        seq = reader.cursor(MIRRORED) or 0
    rows = [entry.encode() for entry in store.journal(limit=seq)] if seq else []
    refs = {at: state_of(store, at) for at in range(seq + 1)}
    contents = {
        commit: dict(store.snapshot(commit))
        for at in refs
        for commit in {cas.CommitId(id) for id in refs[at].values()}
    }
    lineage = store.objects.meta.lineage_id
    store.objects.close()
    lose_catalog(folder)
    if not list(Path(folder, "packs").glob("*.pack")):
        shutil.rmtree(folder)
        cas.init(folder)
        store = opened()  # type: ignore[operator]
        write(store)
        return store
    clock = SteppedClock(f"repair {lineage.hex()}")
    with cas.plan_repair(folder, clock=clock, keep_loose=False) as plan:
        plan.apply()
    store = opened()  # type: ignore[operator]
    assert [entry.encode() for entry in store.journal()] == rows
    assert {at: state_of(store, at) for at in range(seq + 1)} == refs
    for commit, files in contents.items():
        assert dict(store.snapshot(commit)) == files
    assert fsck(store).ok
    write(store, files={"after": lineage})
    return store
