"""The machine of `test_machine`, with gc, retention and purge between its steps.

Nothing that the model still has may go by them, and what they give up is gone for every handle.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from cas.errors import Purged, Unavailable, WasPurged
from cas.history.horizon import horizon_now
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.maintenance.gc import told
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, digest_blob
from cas.testing.stores import SMALL
from tests.counted import against_full_marks
from tests.stateful.test_machine import REMOTE, WHICH, StoreMachine, _no_child_is_left

__all__ = ["_no_child_is_left"]

KINDS = (
    SMALL,
    SMALL._replace(dictionary_samples_bytes=1 << 40),
    SMALL._replace(spill_packs=60, mirror_entries=40),
    SMALL._replace(direct_bytes=1 << 20, checkpoint_entries=30),
)
"""Thresholds: with dictionaries and without, with patches that stay and without."""


@pytest.fixture(autouse=True)
def _short_segments_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What collections keep of segments they keep of short ones too."""
    monkeypatch.setattr(told, "_CONTENT_BYTES_MIN", 0)


@pytest.fixture(autouse=True)
def _counts_are_compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collections count references, and each that believes counts is compared with a full mark."""
    with against_full_marks(monkeypatch):
        yield


class UpkeepMachine(StoreMachine):
    """One store whose past is given up while it is used."""

    secrets = 0

    @initialize(kind=st.sampled_from(KINDS))
    def choose(self, kind: tuple[object, ...]) -> None:
        """Handles of a store that spills, or that keeps its small packs for long."""
        self.thresholds = kind  # type: ignore[assignment]
        for which in (0, 1):
            self.reopen(which)

    def alone(self) -> None:
        """Roll back what is open: what it was about may go now."""
        for slot in list(self.works):
            self.roll_back(slot)

    @rule(which=WHICH)
    def gc(self, which: int) -> None:
        """What nothing leads to is young: nothing goes, beside open work."""
        assert not self.handles[which].gc().marked.finding

    @rule(which=WHICH)
    def gc_at_once(self, which: int) -> None:
        """What no state shows may go, and all else stays."""
        self.alone()
        assert not self.handles[which].gc(grace_us=0).marked.finding
        shown = {
            content
            for state in self.states[self.horizon :]
            for ref in state.values()
            for content in ref.files.values()
        }
        self.blobs &= shown

    @rule(which=WHICH, last=st.integers(1, 3), kept=st.integers(0, 6))
    def retain(self, which: int, last: int, kept: int) -> None:
        """History is given up: what is behind the horizon cannot be seen any more."""
        self.alone()
        if not any(name.startswith("heads/") for name in self.now):
            return
        store = self.handles[which]
        policy = RetentionPolicy((KeepRule("heads/*", last=last),), HorizonRule(Span(), kept))
        store.apply(store.plan_retention(policy), author="keeper")
        self.follow(which)
        self.horizon = horizon_now(store.core).seq

    @rule(which=WHICH, size=st.sampled_from([30, 900, 70_000]))
    def purge(self, which: int, size: int) -> None:
        """Content that was put by itself goes from every handle, and cannot be put again."""
        self.alone()
        self.secrets += 1
        secret = (b"secret %d " % self.secrets) * (size // 10)
        store = self.handles[which]
        id = BlobId(digest_blob(secret))
        assert store.put(secret) == id
        try:
            purge(store, id, reason="asked for")
        except Unavailable:
            # A spill under way, of another handle, has gathered it; the tombstone stands.
            return
        finally:
            self.follow(which)
        for handle in (*self.handles, self.reader):
            assert not handle.has(id)
            with pytest.raises(Purged):
                handle.get(id)
        with pytest.raises(WasPurged):
            self.handles[1 - which].put(secret)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_upkeep_gives_up_no_more_than_it_says() -> None:
    """With gc, retention and purge between its steps a store shows all that it has not given up."""
    chosen = settings.get_profile(settings.get_current_profile_name())
    run_state_machine_as_test(
        UpkeepMachine,
        settings=settings(
            chosen,
            max_examples=max(1, chosen.max_examples * 6 // 10),
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )


_ = REMOTE
