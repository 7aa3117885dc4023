"""What a store tells a program beside its answers goes to the logger `cas`, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cas.errors import StorageFull
from cas.history.store import Store
from cas.objects.lookup import Lookup
from cas.objects.spill import Spill
from tests.tidy.source import ROOT
from tests.unit.kit import write

PROGRAM = """
import sys, cas
from cas.errors import StorageFull
from cas.objects.lookup import Lookup
from cas.objects.spill import Spill
def full(self):
    raise StorageFull("No space is left.", path="x")
Spill.step = full
Lookup.outgrows = lambda *_limits: True
if sys.argv[1:]:
    import logging
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
with cas.open(":memory:") as store:
    for content in (b"1", b"2"):
        with store.begin() as tx:
            tx.branch("main")["a"] = content
            tx.commit()
    print(store.view().seq)
"""


@pytest.mark.parametrize("listening", [False, True])
def test_a_warning_reaches_only_who_listens(listening: bool) -> None:
    """A spill that was put off prints nothing in a program that set up no logging."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(["listen"] if listening else [])],
        env={"PYTHONPATH": str(ROOT)},
        cwd=Path(ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    line = "cas WARNING a spill was put off: No space is left.\n"
    assert done.stderr == (2 * line if listening else "")


def test_a_warning_is_a_record_of_the_logger_cas(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit that the spill followed stands, and its record says why the spill did not."""

    def full(self: Spill) -> None:
        raise StorageFull("No space is left.", path="x")

    monkeypatch.setattr(Spill, "step", full)
    monkeypatch.setattr(Lookup, "outgrows", lambda *_limits: True)
    assert write(store).seq == 1
    assert [(r.name, r.levelname) for r in caplog.records] == [("cas", "WARNING")]
