"""Writing to a damaged store: a typed error or a commit, and nothing readable is lost by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cas.errors import CasError
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.testing.stores import SMALL, SteppedClock, build
from tests.corruption.conftest import Sample
from tests.corruption.harness import WrongOutcome, bounded_memory, flipped, no_hang, without_logs
from tests.corruption.reference import Reference, open_read


def readable(folder: Path, reference: Reference) -> dict[bytes, bytes]:
    """Objects of the reference that can be read, with their content."""
    found = {}
    try:
        with open_read(folder) as store:
            for id in reference.found.objects:
                try:
                    found[id] = store.objects.read(id)[1]
                except CasError:
                    continue
    except CasError:
        return {}
    return found


def _steps(store: Store) -> int:
    """Put, commit, commit with a key, spill; how many of them went well."""
    done = 0
    for number in range(4):
        try:
            if number == 0:
                store.put(b"put after the damage" * 30)
            elif number == 3:
                store.spill()
            else:
                with store.begin(key="again" if number == 2 else None) as tx:
                    tx.branch("main")[f"new/{number}"] = b"%d" % number
                    tx.commit()
            done += 1
        except CasError:
            continue
    return done


def _write(folder: Path, what: str) -> int:
    """Write to a damaged store with every threshold low; how many steps went well."""
    try:
        with build(str(folder), clock=SteppedClock(what), thresholds=SMALL) as store:
            return _steps(store)
    except CasError:
        return -1
    except Exception as error:
        raise WrongOutcome(f"{what}: writing raised {error!r}") from error


@pytest.mark.parametrize("where", ["packs", "catalog"])
def test_writing_to_a_damaged_store(where: str, reference: Reference, sample: Sample[int]) -> None:
    """After puts, commits and a spill every object that could be read still can, unchanged."""
    without_logs(reference.folder)
    files = reference.packs if where == "packs" else [reference.catalog]
    spots = [(file, bit) for file in files for bit in range(8 * file.stat().st_size)]
    outcomes = set()
    with bounded_memory():
        for at in sample(range(len(spots)), 90):
            file, bit = spots[at]
            what = f"bit {bit & 7} of byte {bit >> 3} of {file.name}"
            folder = reference.folder.with_name("written")
            with flipped(file, bit):
                shutil.copytree(reference.folder, folder)
            try:
                before = readable(folder, reference)
                with no_hang():
                    outcomes.add(_write(folder, what))
                after = readable(folder, reference)
                lost = [id.hex() for id, content in before.items() if after.get(id) != content]
                assert not lost, f"{what}: {lost} cannot be read after writing"
                _check(folder, what)
            finally:
                shutil.rmtree(folder)
    assert 4 in outcomes, "no damage left the store writable"


def _check(folder: Path, what: str) -> None:
    """The check ends with a report, whatever was written on top of the damage."""
    try:
        with open_read(folder) as store:
            fsck(store)
    except CasError:
        return
    except Exception as error:
        raise WrongOutcome(f"{what}: the check raised {error!r}") from error
