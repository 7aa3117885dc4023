"""The archive of the journal is safe in every reachable state, and no rule of it is idle."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.model.archiving import LOSSES, Rules, explore, row_of

NOTE = Path(__file__).parents[2] / "docs" / "design" / "027-old-entries.md"


def test_the_archive_is_safe_in_every_reachable_state() -> None:
    """With all rules no interleaving of commits, moves, forks and losses loses an entry."""
    found = explore(Rules())
    assert found.trace is None, str(found.trace)
    assert found.kinds >= {
        "archiver gives-up",
        "archiver moves",
        "everybody crashes",
        "fork begins",
        "mirror reaches",
        "mover removes",
        "pack is-lost",
        "writer commits",
    }
    line = f"{found.states:,} states, {found.transitions:,} transitions, depth {found.depth}"
    assert line in NOTE.read_text(encoding="utf-8"), f"the note lacks: {line}"


@pytest.mark.parametrize("rule", LOSSES)
def test_taking_a_rule_of_the_archive_away_gives_a_counterexample(rule: str) -> None:
    """Without the rule some interleaving breaks what the rule is there for."""
    trace = explore(attrs.evolve(Rules(), **{rule: False})).trace
    assert trace is not None, f"nothing notices that {rule} is gone"
    print(f"Without {rule}:\n{trace}")
    assert LOSSES[rule] in trace.breach
    assert row_of(rule) in NOTE.read_text(encoding="utf-8"), row_of(rule)


def test_every_rule_of_the_archive_is_tried() -> None:
    """No switch of the model is without a counterexample."""
    assert {field.name for field in attrs.fields(Rules)} == LOSSES.keys()
