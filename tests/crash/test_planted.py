"""Each probe finds nothing in the code as it is, and each planted bug is found by its probe."""

from __future__ import annotations

import pytest

from cas.errors import CasError
from tests.arsenal import board
from tests.crash.planted import BUGS, Planted
from tests.crash.probes import PROBES


@pytest.mark.parametrize("name", PROBES)
def test_the_code_as_it_is_passes(name: str) -> None:
    """A probe of the protocol finds nothing wrong."""
    assert PROBES[name]() == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug planted into the protocol is found by the probe that is named for it."""
    bug.plant(monkeypatch)
    try:
        findings = PROBES[bug.killer]()
    except (AssertionError, CasError) as error:
        # The workload itself noticed: an assertion of the driver, or the store refused to go on.
        findings = [f"{type(error).__name__}: {error}"]
    monkeypatch.undo()
    assert findings, f"{bug.name}: not found by {bug.killer}"
    print(f"{bug.name} <- {bug.killer}: {findings[0][:160]}")


def test_the_board_is_large_enough() -> None:
    """There are at least forty planted bugs, each with a name of its own and a probe that is."""
    assert sum(not name.startswith("the model") for name, _killer, _test in board()) >= 40
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert {bug.killer for bug in BUGS} <= PROBES.keys()
