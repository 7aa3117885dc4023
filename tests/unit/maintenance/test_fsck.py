"""Each kind of damage has its code, is found with its subject, and stops nothing else."""

from __future__ import annotations

import itertools
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import attrs
import pytest

import cas
from cas.errors import Closed
from cas.history.store import Store
from cas.maintenance import findings as findings_room
from cas.maintenance.findings import AFFECTED_MAX, CODES, Progress, Severity
from cas.maintenance.fsck import check as fsck_room
from cas.maintenance.fsck.check import fsck
from cas.model.ids import Kind, digest_of
from cas.testing.stores import SMALL, SteppedClock, build, create
from tests.unit.kit import commits, tamper, write
from tests.unit.maintenance.plant import blob, codes, flip, install, pack_file, rewrite_header
from tests.unit.maintenance.plants import PLANTS

ELSEWHERE = {"more", "check-moved"}
"""Codes with tests of their own below."""

CASES = [(code, number) for code, plants in PLANTS.items() for number in range(len(plants))]


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    """A store of a few commits."""
    with cas.open(tmp_path / "filled", create=True) as store:
        commits(store, 3)
        yield store


def test_every_code_is_planted() -> None:
    """No code is without a test that finds it."""
    assert set(PLANTS) | ELSEWHERE == set(CODES)


@pytest.mark.parametrize(("code", "number"), CASES)
def test_planted_damage_is_found(code: str, number: int, filled: Store) -> None:
    """Damage is found under its code with its subject, and the store is not called good."""
    assert fsck(filled).findings == ()
    subject = PLANTS[code][number](filled)
    with cas.open(filled.location, read_only=True) as fresh:
        checked = filled if code == "pack-unreadable" else fresh
        report = fsck(checked)
    found = [f for f in report.findings if f.code == code]
    assert subject in [f.subject for f in found]
    severity = CODES[code][0]
    assert all(f.severity == severity for f in found)
    assert report.ok == (severity in (Severity.WARNING, Severity.NOTICE))
    for finding in report.findings:
        assert finding.message.endswith(".")
        assert len(finding.message) < 600


@pytest.mark.parametrize("form", ["folder", "memory", "inline", "spilled"])
def test_a_good_store_has_no_findings(form: str, tmp_path: Path) -> None:
    """Stores of every form are clean, and what was seen is counted."""
    place = ":memory:" if form == "memory" else str(tmp_path / "store")
    with cas.open(place, create=True) as store:
        assert fsck(store).findings == ()
        if form != "folder":
            write(store, files={f"d/{n}": b"%d" % n for n in range(200)})
            write(store, files={"d/7": None, "empty/x": b""})
            write(store, files={"empty/x": None})
            with store.begin() as tx:
                tx.tag("v", store.resolve("main"), "m")
                tx.event("e", b"x" * 300)
                tx.commit()
            store.put(b"loose")
        if form == "spilled":
            store.spill()
        report = fsck(store)
    assert report.findings == ()
    assert report.ok
    if form != "folder":
        assert report.object_count > 200
        assert report.entry_count == 4
        assert report.pack_count == (1 if form == "spilled" else 5)
        assert report.content_bytes > 1000


def test_affected_names_refs_and_paths(tmp_path: Path) -> None:
    """A lost file is told with the branch, the tag and the older commits that need it."""
    with cas.open(tmp_path / "store", create=True) as store:
        first = write(store, files={"a/lost.txt": b"to be lost", "kept": b"1"})
        write(store, files={"kept": b"2"})
        write(store, branch="other", files={"a/copy.txt": b"to be lost"})
        with store.begin() as tx:
            tx.tag("v1", store.resolve("main"))
            tx.commit()
        lost = digest_of(Kind.BLOB, b"to be lost")
        file = pack_file(store)
        copy = store.objects.find(lost)
        assert copy is not None
        flip(file, copy.slot.payload_offset)
        (finding,) = fsck(store).findings
    oldest = first.changes[0].new
    assert oldest is not None
    assert finding.code == "object-lost"
    assert set(finding.affected) == {
        "main:a/lost.txt",
        "other:a/copy.txt",
        "v1:a/lost.txt",
        f"{oldest.short}:a/lost.txt",
    }


def test_objects_of_a_pack_without_a_footer_are_found_again(filled: Store) -> None:
    """A damaged footer is one finding: what it hides is whole and told with who needs it."""
    file = pack_file(filled)
    flip(file, -50)
    with cas.open(filled.location, read_only=True) as fresh:
        (finding,) = fsck(fresh).findings
    assert finding.code == "pack-footer"
    assert "10 whole objects" in finding.message
    assert "main" in finding.affected


def test_records_far_apart_are_read_apart(filled: Store) -> None:
    """Between records that lie megabytes apart nothing is read: only the gap is told of."""
    far = bytes(40 << 20)
    install(filled, [blob(b"near", gap=far), blob(b"far")], name=b"\x22" * 16)
    filled.close()
    tracemalloc.start()
    with cas.open(filled.location, read_only=True) as store:
        try:
            report = fsck(store)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert codes(report) == ["pack-gap"]
    assert peak < 16 << 20


def test_affected_is_bounded(filled: Store) -> None:
    """However many paths need what is lost, a finding names a few."""
    write(filled, files={f"many/{n}": b"the same" for n in range(100)})
    lost = digest_of(Kind.BLOB, b"the same")
    file = pack_file(filled)
    copy = filled.objects.find(lost)
    assert copy is not None
    flip(file, copy.slot.payload_offset)
    (finding,) = fsck(filled).findings
    assert len(finding.affected) == AFFECTED_MAX


def test_findings_of_one_code_are_bounded(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store full of damage gives a short report that says how much was left out."""
    monkeypatch.setattr(findings_room, "PER_CODE_MAX", 3)
    for number in range(10):
        content = b"damaged %d" % number
        install(filled, [blob(content)._replace(payload=content[::-1])])
    report = fsck(filled)
    assert codes(report).count("object-lost") == 3
    (more,) = [finding for finding in report.findings if finding.code == "more"]
    assert more.subject == "object-lost"
    assert more.message.startswith("7 more")


def test_the_worst_comes_first(filled: Store) -> None:
    """Losses come before damage, warnings and notices."""
    for code in ("session-open", "tree-statement", "object-lost", "catalog-behind"):
        PLANTS[code][0](filled)
    order = [finding.severity for finding in fsck(filled).findings]
    assert order == sorted(order, key=list(Severity).index)
    assert len(set(order)) == 4


def test_a_spill_beside_the_check_is_no_damage(tmp_path: Path) -> None:
    """Packs that another handle replaces meanwhile are looked for where they are now."""
    folder = str(tmp_path / "store")
    create(folder, clock=SteppedClock(1))
    never = SMALL._replace(spill_packs=10_000)
    with (
        build(folder, clock=SteppedClock(2), thresholds=never) as store,
        build(folder, clock=SteppedClock(3), thresholds=never) as other,
    ):
        commits(store, 10)
        moved = 0

        def meanwhile(progress: Progress) -> None:
            nonlocal moved
            if progress.phase == "catalog":
                return
            if moved < 3:
                moved += 1
                commits(other, 3)
                other.spill()

        report = fsck(store, progress=meanwhile)
        assert moved == 3
        assert report.ok, report.findings
        assert {"session-open"} >= set(codes(report))


def test_a_pack_of_another_store_is_no_newer_catalog(filled: Store, tmp_path: Path) -> None:
    """A stray pack is told with whose it is; a repair would find nothing to do about it."""
    with cas.open(tmp_path / "other", create=True) as stranger:
        commits(stranger, 2)
        file = pack_file(stranger)
        whose = stranger.objects.meta.store_id.hex()
    shutil.copy(file, Path(filled.location, "packs"))
    report = fsck(filled)
    assert [(f.code, f.subject) for f in report.findings] == [("file-unknown", file.name)]
    assert whose in report.findings[0].message


def test_a_pack_on_its_way_out_is_no_newer_catalog(filled: Store) -> None:
    """Its row was taken out and it is listed to go: the next collection removes it."""
    name = PLANTS["catalog-behind"][0](filled)
    assert codes(fsck(filled)) == ["catalog-behind"]
    tamper(filled, "INSERT INTO unlinked(name, seq) VALUES (?, 1)", bytes.fromhex(name[:32]))
    assert codes(fsck(filled)) == ["pack-unnamed"]


def test_entries_that_come_beside_the_check_are_known_to_it(filled: Store) -> None:
    """What a stopped writer left is not newer than a catalog that went on meanwhile."""
    file = pack_file(filled)
    left = file.with_name("11" * 16 + ".pack")

    def meanwhile(progress: Progress) -> None:
        if progress.phase == "journal" and not left.exists():
            shutil.copy(file, left)
            rewrite_header(left, birth_us=filled.objects.clock.wall_us())
            commits(filled, 1)

    assert codes(fsck(filled, progress=meanwhile)) == ["pack-unnamed"]


def test_a_store_that_never_stands_still(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot keep up says so instead of going on for ever."""
    monkeypatch.setattr(fsck_room, "ROUNDS_MAX", 1)
    with cas.open(filled.location) as other:
        spilled = []

        def meanwhile(progress: Progress) -> None:
            if progress.phase == "catalog" and not spilled:
                spilled.append(other)

        store = filled
        original = store.objects.catalog.inline_body

        def moving(number: int) -> bytes | None:
            if spilled:
                spilled.clear()
                other.spill()
            return original(number)

        monkeypatch.setattr(store.objects.catalog, "inline_body", moving)
        report = fsck(store, progress=meanwhile)
    assert "check-moved" in codes(report)
    assert report.ok


def test_progress_goes_forward(filled: Store) -> None:
    """Progress names the four phases in turn and never counts backwards."""
    seen: list[Progress] = []
    fsck(filled, progress=seen.append)
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == ["catalog", "packs", "trees", "journal"]
    for before, after in itertools.pairwise(seen):
        assert attrs.astuple(before)[1:] <= attrs.astuple(after)[1:]
    assert seen[-1].object_count == 9
    assert 0 < seen[-1].stored_bytes <= seen[-1].bytes_total


def test_a_closed_store_is_told(filled: Store) -> None:
    """A check of a handle that was closed is the caller's mistake, not a finding."""
    filled.close()
    with pytest.raises(Closed):
        fsck(filled)


def test_a_check_changes_nothing(filled: Store) -> None:
    """A check writes no file but into the cache, and leaves no row."""
    pack_file(filled)
    filled.close()
    before = {p: p.read_bytes() for p in Path(filled.location).rglob("*") if p.is_file()}
    with cas.open(filled.location, read_only=True) as store:
        assert fsck(store).ok
    after = {p: p.read_bytes() for p in Path(filled.location).rglob("*") if p.is_file()}
    assert before == {p: after[p] for p in before}
    # Beside what the engine leaves: the index, and a note of what was checked, both disposable.
    new = [p for p in after.keys() - before.keys() if p.parent.name != "cache"]
    assert {p.suffix for p in new} <= {".sqlite-wal", ".sqlite-shm"}


def test_a_damaged_journal_does_not_hide_the_packs(filled: Store) -> None:
    """With the journal gone, damage in packs is still found."""
    subject = PLANTS["object-lost"][0](filled)
    tamper(filled, "DELETE FROM journal")
    report = fsck(filled)
    assert subject in [finding.subject for finding in report.findings]
    assert report.entry_count == 0


def test_the_replay_goes_on_at_a_checkpoint(tmp_path: Path) -> None:
    """Behind a damaged entry the next checkpoint tells the refs again, and later roots hold."""
    folder = str(tmp_path / "store")
    create(folder, clock=SteppedClock(1))
    with build(folder, clock=SteppedClock(2), thresholds=SMALL) as store:
        commits(store, 9)
        tamper(store, "UPDATE journal SET entry = x'80' WHERE seq = 2")
        assert codes(fsck(store)) == ["journal-entry"]
        tamper(store, "UPDATE journal SET hash = zeroblob(32) WHERE seq = 8")
        assert sorted(codes(fsck(store))) == ["journal-chain", "journal-entry", "journal-entry"]
