"""What README, ARCHITECTURE and the pages on promises and commands point at is there."""

from __future__ import annotations

import re

import pytest

from tests.tidy.source import ROOT

PAGES = ("README.md", "ARCHITECTURE.md", "docs/guarantees.md", "docs/cli.md")
LINES_MAX = {"README.md": 120, "ARCHITECTURE.md": 250}
PLACE = re.compile(r"`((?:cas|docs|tests|tools|bench)/[\w./-]*)`")


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_is_named_exists(page: str) -> None:
    """A file or folder that a page names in the tree is there; a number names its document."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for place in PLACE.findall(text):
        found = list(ROOT.glob(place.rstrip("/") + ("*" if re.search(r"/\d+$", place) else "")))
        assert found, f"{page} names {place}"


@pytest.mark.docs
def test_every_room_is_on_the_map() -> None:
    """ARCHITECTURE.md names every room of the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "cas").iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`{path.name}/`" in text, path.name


@pytest.mark.docs
@pytest.mark.parametrize("page", LINES_MAX)
def test_pages_stay_short(page: str) -> None:
    """README and ARCHITECTURE can be read at one sitting."""
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= LINES_MAX[page]


def test_exit_codes_are_told_alike() -> None:
    """docs/cli.md and docs/errors.md list the same exit codes."""
    codes = [
        re.findall(r"^\| (\d+) \|", (ROOT / "docs" / name).read_text(), re.MULTILINE)
        for name in ("cli.md", "errors.md")
    ]
    assert codes[0] == codes[1]
