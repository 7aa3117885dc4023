"""The code map of ARCHITECTURE.md: whoever asks what a file is for finds it named there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, assert_clean, plant, read_package

FOLDERS = (
    "model",
    "storage",
    "catalog",
    "trees",
    "objects",
    "history",
    "maintenance",
    "worktree",
    "workspace",
    "recall",
    "aio",
)
"""Of `cli/` and `commands/` the files are named as the commands are; `testing/` is for tests."""


def map_of(text: str) -> dict[str, set[str]]:
    """What the code map names, by folder: in its paragraph, or in its line of a list below one."""
    section = text.partition("## Code map")[2].partition("\n## ")[0]
    pieces = re.split(r"(?:\*\*\d · |^- )`(\w+)/`", section, flags=re.MULTILINE)
    return {
        folder: {name.removesuffix(".py") for name in re.findall(r"`([\w.]+)`", said)}
        for folder, said in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def check_map(root: Path, folders: tuple[str, ...] = FOLDERS) -> list[str]:
    """Files of these folders that the map does not name where their folder is described."""
    named = map_of((root / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    findings: list[str] = []
    for module in read_package(root):
        *above, stem = module.name.split(".")
        folder = above[-1] if above else ""
        if module.is_package or module.room not in folders or stem in named.get(folder, ()):
            continue
        findings.append(module.at(1, f"not named in the code map, under {folder}/"))
    return findings


def test_every_file_is_on_the_map() -> None:
    """Each file of the floors 1 to 7, and of the asyncio face, has its word in the code map."""
    assert_clean(check_map(ROOT))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("**2 · `storage/`.** `pack`. Folders:\n- `deep/`: `well`.", 0),
        ("**2 · `storage/`.** `pack`.", 1),
        ("**2 · `storage/`.** Folders:\n- `deep/`: `well`, `pack`.", 1),
        ("**2 · `trees/`.** `pack`, `well`.", 2),
    ],
)
def test_a_file_that_is_not_named_is_found(tmp_path: Path, said: str, found: int) -> None:
    """Named in the paragraph of another folder is not named."""
    plant(
        tmp_path,
        {
            "ARCHITECTURE.md": f"## Code map\n\n{said}\n\n## Next\n`pack`\n",
            "cas/storage/__init__.py": "",
            "cas/storage/pack.py": "",
            "cas/storage/deep/__init__.py": "",
            "cas/storage/deep/well.py": "",
        },
    )
    assert len(check_map(tmp_path)) == found
