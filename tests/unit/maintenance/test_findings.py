"""Codes are one thing said in two places: the package and docs/fsck.md."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from cas.maintenance.findings import CODES, Finding, Findings, FsckReport, Severity

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "fsck.md"


@pytest.mark.docs
def test_the_document_lists_every_code() -> None:
    """docs/fsck.md has every code with its severity and meaning, in order, and no other."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", DOCUMENT.read_text("utf-8"), re.M)
    assert rows == [(code, str(severity), text) for code, (severity, text) in CODES.items()]


@pytest.mark.docs
def test_the_document_lists_every_severity() -> None:
    """docs/fsck.md explains each severity."""
    text = DOCUMENT.read_text("utf-8")
    assert re.findall(r"^\| (loss|damage|warning|notice) \|", text, re.M) == [*map(str, Severity)]


@pytest.mark.parametrize("code", sorted(CODES))
def test_codes_are_words(code: str) -> None:
    """A code is lower-case words joined by hyphens, and its meaning a sentence."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
    assert CODES[code][1].endswith(".")


@pytest.mark.parametrize(
    ("severity", "ok"), [(s, s.value in ("warning", "notice")) for s in Severity]
)
def test_ok_means_nothing_is_lost_or_damaged(severity: Severity, ok: bool) -> None:
    """Warnings and notices leave a store good; losses and damage do not."""
    finding = Finding(severity, "more", "m.", "s")
    assert FsckReport((finding,), 1, 1, 1, 1).ok == ok
    assert FsckReport((), 1, 1, 1, 1).ok


def test_places_are_listed_once() -> None:
    """A place that needs several lost objects of one finding is named once."""
    found = Findings()
    found.add("pack-footer", "p", "m.", [b"a", b"b"])
    assert found.lost_ids() == {b"a", b"b"}
    (finding,) = found.finish({b"a": ["main", "main:x"], b"b": ["main"]})
    assert finding.affected == ("main", "main:x")


def test_values_are_frozen() -> None:
    """Nobody changes a finding or a report after it was made."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        FsckReport((), 0, 0, 0, 0).object_count = 1  # type: ignore[misc]
