"""Power cuts and failing calls while a backup is written anew: positions go, or purged content."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import CasError, Purged
from cas.history.store import Store
from cas.maintenance.backups.vault import open_vault
from cas.maintenance.purge import purge
from cas.model.ids import digest_blob
from cas.storage.files import Files
from cas.testing.faults import KINDS, Fault, FaultHook
from cas.testing.layers import RecordingFiles
from cas.testing.recorder import Recorder, scan
from tests.crash.reporting import Note
from tests.crash.test_backups import checked, fill, images, one_at_a_time, store

__all__ = ["one_at_a_time", "store"]

SECRET = random.Random("secret").randbytes(70_000)
SECRET_ID = cas.BlobId(digest_blob(SECRET))
Act = Callable[[Path, Files], None]


def positions(place: Path) -> list[int]:
    """Entries at which the backup has a state."""
    with open_vault(str(place), SystemClock()) as vault:
        return [index.state.seq for index in vault.chain() if index.state is not None]


@pytest.fixture
def template(store: Store, tmp_path: Path) -> Path:
    """A backup with four positions, of which the second and third have a secret."""
    place = tmp_path / "template" / "backup"
    for round in range(4):
        fill(store, round)
        if round == 1:
            store.put_many([SECRET, random.Random("beside").randbytes(70_000)])
        cas.backup(store, place)
    return place


def expiring(store: Store) -> Act:
    """Two of the positions go."""

    def act(place: Path, files: Files) -> None:
        cas.expire(cas.plan_expiry(place, cas.KeepRule("*", last=2)), files=files)

    return act


def cleansing(store: Store) -> Act:
    """The secret goes from all of them, with a backup behind its purge."""
    purge(store, SECRET_ID, reason="leaked")

    def act(place: Path, files: Files) -> None:
        cas.backup(store, place, files=files)

    return act


ACTS = {"expiring": expiring, "cleansing": cleansing}


def check(store: Store, place: Path, name: str, before: list[int]) -> bool:
    """Whether the act was done; raises where the backup is neither what it was nor what it was to
    become.
    """
    assert checked(place) is not None
    found = positions(place)
    if name == "expiring":
        assert found in (before, before[-2:])
        return found != before
    assert found[: len(before)] == before
    return not any(SECRET in file.read_bytes() for file in place.rglob("*.pack"))


def finish(store: Store, place: Path, name: str) -> None:
    """Do it again, and see that nothing is left over."""
    ACTS_AGAIN[name](store, place)
    report, _file = cas.prove(place)
    assert report.ok, report.faults
    with open_vault(str(place), SystemClock()) as vault:
        chain = vault.chain()
        assert [index.number for index in chain] == vault.numbers()
    if name == "cleansing":
        assert not any(SECRET in file.read_bytes() for file in place.rglob("*.pack"))
        target = place.with_name("made")
        cas.restore_store(place, target, seq=positions(place)[1])
        with cas.open(target) as made, pytest.raises(Purged):
            made.get(SECRET_ID)
        shutil.rmtree(target)


def _expire_again(store: Store, place: Path) -> None:
    cas.expire(cas.plan_expiry(place, cas.KeepRule("*", last=2)))
    assert len(positions(place)) == 2


ACTS_AGAIN: dict[str, Callable[[Store, Path], object]] = {
    "expiring": _expire_again,
    "cleansing": cas.backup,
}


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("name", ACTS)
def test_a_power_cut_leaves_one_chain_or_the_other(
    store: Store, template: Path, tmp_path: Path, note: Note, name: str
) -> None:
    """In every state that a power cut can leave, the backup is whole and has the positions that it
    had, or those that were to stay; the next run ends what was begun.
    """
    before = positions(template)
    act = ACTS[name](store)
    outer = tmp_path / "outer"
    shutil.copytree(template.parent, outer)
    recorder = Recorder(str(outer))
    act(outer / "backup", RecordingFiles(recorder))
    recorder.mark(1)
    counts: Counter[str] = Counter()
    draw = random.Random("which are gone on with")
    for number, (done, image) in enumerate(images(recorder, name)):
        place = tmp_path / f"cut-{number}"
        place.mkdir()
        image.write_to(str(place))
        ended = check(store, place / "backup", name, before)
        assert ended or not done
        counts["states"] += 1
        counts["done"] += ended
        if draw.random() < 0.1:
            finish(store, place / "backup", name)
            counts["gone on with"] += 1
        shutil.rmtree(place)
    assert counts["states"] > counts["done"] > 0
    note("power cuts of a backup written anew", name, **counts)


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("name", ACTS)
def test_every_call_may_fail(
    store: Store, template: Path, tmp_path: Path, note: Note, name: str
) -> None:
    """Whatever call fails, it ends with a typed error or has succeeded, and can be done again."""
    before = positions(template)
    act = ACTS[name](store)

    def with_fault(place: Path, fault: Fault | None) -> tuple[FaultHook, CasError | None]:
        place.mkdir()
        scan(str(template.parent)).write_to(str(place))
        hook = FaultHook(fault)
        recorder = Recorder(str(place), hook)
        hook.armed = True
        try:
            act(place / "backup", RecordingFiles(recorder))
        except CasError as error:
            return hook, error
        finally:
            hook.armed = False
        return hook, None

    calls = with_fault(tmp_path / "dry", None)[0].calls
    counts: Counter[str] = Counter()
    for kind in KINDS:
        for at, call in enumerate(calls):
            fault = Fault(kind, at)
            if not fault.fits(call):
                continue
            place = tmp_path / f"fault-{kind}-{at}"
            hook, error = with_fault(place, fault)
            assert not hook.findings, (fault, hook.findings)
            ended = check(store, place / "backup", name, before)
            assert ended or error is not None, fault
            counts[kind] += 1
            finish(store, place / "backup", name)
            shutil.rmtree(place)
    note("calls of a backup written anew that fail", name, **counts)
    assert sum(counts.values()) > 20
