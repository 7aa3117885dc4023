"""The demo holds its proofs, and says so when one does not hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.tidy.source import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The demo, with four releases made here instead of fetched from the registry."""
    spec = importlib.util.spec_from_file_location("cas_demo", ROOT / "tools" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    releases = []
    for number in range(1, 5):
        folder = tmp_path / f"release-{number}"
        (folder / "package").mkdir(parents=True)
        same = "".join(f"def f{i}():\n    return {i}\n" for i in range(20_000))
        (folder / "package" / "same.py").write_text(same)
        changed = f"VERSION = {number}\n" + "# a line that is always there\n" * 200
        (folder / "package" / "version.py").write_text(changed)
        (folder / "package" / f"only-in-{number}.txt").write_text("new\n" * number)
        (folder / "package" / "run.sh").write_text("#!/bin/sh\n")
        (folder / "package" / "run.sh").chmod(0o755)
        (folder / "package" / "link").symlink_to("same.py")
        releases.append((f"{number}.0", folder))
    monkeypatch.setattr(module, "demo_releases", lambda: releases)
    return module


def test_every_proof_of_the_demo_holds(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo runs through, ends with 0, and each part of it has a proof."""
    assert demo.main() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.rstrip().endswith("Every proof holds.")
    assert shown.out.count("proved: ") >= 12


def test_a_proof_that_fails_ends_the_demo(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a restored file differs from the release in one byte, the demo ends with 1."""
    save = demo.save_releases

    def save_then_change(home: Path, releases: list[tuple[str, Path]]) -> dict[str, str]:
        commits: dict[str, str] = save(home, releases)
        file = releases[0][1] / "package" / "same.py"
        file.write_text(file.read_text().replace("1", "2", 1))
        return commits

    monkeypatch.setattr(demo, "save_releases", save_then_change)
    assert demo.main() == 1
    shown = capsys.readouterr()
    assert "NOT SO: 1.0 is what was downloaded" in shown.err
    assert "Every proof holds" not in shown.out
