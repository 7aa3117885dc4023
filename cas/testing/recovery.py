"""Open a store after something happened to it: look, write, close, look again.

Invariant: what comes back is what the first handle saw; whatever goes wrong afterwards (a commit
refused, a second handle that sees something else, any error) is added to its findings.
"""

from __future__ import annotations

import os
from contextlib import suppress

import attrs

from cas.errors import CasError
from cas.testing import oracle
from cas.testing.driver import Driver
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.model import Model
from cas.testing.oracle import Observation
from cas.testing.recorder import Recorder
from cas.testing.stores import SteppedClock, create

NOTHING: Observation = Observation(-1, {}, frozenset(), ())
"""No store at this place."""


def recover(
    place: str,
    model: Model,
    seed: str,
    recorder: Recorder | None = None,
    *,
    write: bool = True,
    cached: bool = False,
) -> tuple[Observation, Model]:
    """What the store shows; with `write` also that it takes one more put and commit, which a new
    handle must show.

    Where there is no store one is made. The model that comes back is that of the store behind
    the two additions; with a recorder everything is done through its layers.
    """
    driver = Driver(place, seed=seed, recorder=recorder)
    driver.cached = cached
    vfs = None
    if recorder is not None:
        vfs = RecordingVFS(recorder)
        driver.files, driver.vfs = RecordingFiles(recorder), vfs.name
    observed, after = NOTHING, model
    try:
        if os.path.exists(os.path.join(place, "catalog.sqlite")):
            observed = oracle.observe(driver.store, model)
        else:
            clock = SteppedClock(f"{seed} again")
            create(place, clock=clock, files=driver.files, vfs=driver.vfs)
        if observed.findings or not write:
            return observed, model
        after = driver.model = shown(model, observed)
        driver.acked_seq, driver.acked_puts = max(0, observed.seq), len(after.puts)
        driver.step = "recovery"
        driver.mark()
        driver.run(("put", "commit", "reopen"))
        findings = [f"refused: {error}" for error in driver.refused]
        findings += oracle.judge(oracle.observe(driver.store, after), after, driver.progress)
        driver.close()
    except Exception as error:  # one that is not the store's own is the worse finding
        findings = [f"{type(error).__name__}: {error}"]
    finally:
        with suppress(CasError):
            driver.close()
        if vfs is not None:
            vfs.close()
    found = tuple(f"after recovery: {finding}" for finding in findings)
    return attrs.evolve(observed, findings=observed.findings + found), after


def shown(model: Model, observed: Observation) -> Model:
    """The model of a store as it was observed: what is shown now counts as acknowledged."""
    result = Model()
    result.entries = model.entries[: max(0, observed.seq) + 1]
    result.puts = [model.puts[number] for number in sorted(observed.puts)]
    return result
