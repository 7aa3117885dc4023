"""Deltas that a check makes beside their bases: its report is that of a check that does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from cas.limits import DELTA_DEPTH_MAX, INLINE_OBJECT_BYTES_MAX
from cas.maintenance.findings import Finding, Findings
from cas.maintenance.fsck import hanging
from cas.maintenance.fsck.check import fsck
from cas.maintenance.fsck.known import Known
from cas.maintenance.fsck.packs import PackSurvey
from cas.maintenance.fsck.records import RecordCheck
from cas.model.ids import Kind
from cas.storage.codec import DELTA
from cas.storage.pack import Slot
from cas.worktree.importer import import_folder
from tests.unit.maintenance.plant import flip
from tests.unit.objects.test_deltas import allow_chains, changed, text

FLIPS = 60


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> Store:
    """Six states of a folder, each in a pack of its own; files and nodes are chains of deltas."""
    allow_chains(monkeypatch, DELTA_DEPTH_MAX)
    folder = tmp_path / "folder"
    store = cas.open(tmp_path / "store", create=True, deltas=True)
    contents = {f"{at % 3}/file number {at}.txt": text(rng, 60) for at in range(60)}
    for number in range(6):
        for name in contents if not number else rng.sample(sorted(contents), 12):
            contents[name] = changed(contents[name], number)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(contents[name])
        # Too long for an inline pack: what is saved with it goes into a pack file.
        (folder / "noise").write_bytes(rng.randbytes(INLINE_OBJECT_BYTES_MAX + 1))
        import_folder(store, folder)
    return store


def copies(store: Store) -> list[tuple[Path, Slot]]:
    """Every copy in a pack file."""
    store.objects.lookup.refresh()
    return [
        (Path(store.location, "packs", pack.file), slot)
        for pack in store.objects.lookup.state.packs.values()
        if pack.file is not None
        for slot in store.objects.lookup.footer(pack).slots()
    ]


def told(
    location: str, monkeypatch: pytest.MonkeyPatch, bytes_max: int
) -> tuple[set[Finding], int, int]:
    """What a new handle finds, in no order, with so much room for what is made beside its base;
    objects and bytes of content that it counts.
    """
    with monkeypatch.context() as patched, cas.open(location, read_only=True) as store:
        patched.setattr(hanging, "_BYTES_MAX", bytes_max)
        report = fsck(store)
    return set(report.findings), report.object_count, report.content_bytes


def test_deltas_of_later_packs_are_made_with_their_bases(states: Store) -> None:
    """Files and nodes, at every depth: no base is read again, and each delta counts once."""
    found = copies(states)
    depths = {kind: {s.depth for _file, s in found if s.kind == kind} for kind in (1, 2)}
    assert depths[Kind.BLOB] >= {0, 1, 2}
    assert depths[Kind.TREE] >= {0, 1, 2}
    findings, named = Findings(), set()
    survey = PackSurvey(states.objects, Known(), findings)
    with states.objects.catalog.read() as reader:
        survey.survey(reader.packs(), {})
    check = RecordCheck(
        states.objects,
        survey,
        findings,
        lambda some: named.update([id for id, _kind, _content in some]),
        lambda id, recipe, size, pack: None,
        lambda count, stored: None,
    )
    check.run(survey.packs, survey.learn, survey.packs)
    assert check._deltas._reader is None
    assert check.content_bytes == sum(slot.raw_bytes for _file, slot in found)
    assert {slot.id for _file, slot in found if slot.kind != Kind.BLOB} == named
    assert not check.bad
    assert not list(findings.plain())


@pytest.mark.parametrize(
    ("room", "most"), [("_BYTES_MAX", 2_000), ("_KEPT_BYTES_MAX", 2_000), ("_COUNT_MAX", 3)]
)
def test_what_finds_no_room_is_judged_where_it_lies(
    states: Store, monkeypatch: pytest.MonkeyPatch, room: str, most: int
) -> None:
    """Nothing is left out, and nothing counts twice."""
    full = fsck(states)
    monkeypatch.setattr(hanging, room, most)
    assert fsck(states) == full
    assert full.findings == ()


def test_damage_is_told_as_without_it(
    states: Store, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    """A flipped bit of a base, of a delta, of a header or of a footer."""
    found = copies(states)
    deltas = [(file, slot) for file, slot in found if slot.codec == DELTA]
    spots = [(file, slot.payload_offset + 32 + 9) for file, slot in rng.sample(deltas, FLIPS // 3)]
    for file, slot in rng.choices(found, k=FLIPS // 3):
        spots.append((file, slot.offset + rng.randrange(28 + slot.stored_bytes)))
    for file, _slot in rng.choices(found, k=FLIPS // 3):
        spots.append((file, rng.randrange(file.stat().st_size)))
    location = states.location
    states.close()
    for file, at in spots:
        flip(file, at)
        without = told(location, monkeypatch, 0)
        assert told(location, monkeypatch, 1 << 20) == without, (file.name, at)
        flip(file, at)
    assert not told(location, monkeypatch, 1 << 20)[0]
