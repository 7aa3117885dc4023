"""Words: two are banned for having two meanings, and nothing names a machine or an undone task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, assert_clean, plant

FOLDERS = ("cas", "docs", "tests", "tools", "bench", ".ci", ".")
ITSELF = "tests/tidy/test_words.py"

# Say Store, bucket or catalog. A word in quotes is spoken of, not used.
TWO_MEANINGS = re.compile(
    r"(?<![\"“*`'])\b(repositor(?:y|ies)|backends?)\b(?![\"”*`'])", re.IGNORECASE
)
UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE = re.compile(
    r"(?<![\w.~/-])/(?:root|home|Users|work)/[\w.]+|(?<![\w.~/-])/tmp/v\b"
    r"|\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org)\b|https?://[^\s)>\"']*/simple\b"
)


def _texts(root: Path) -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        pattern = "*" if folder == "." else "**/*"
        for file in sorted((root / folder).glob(pattern)):
            name = file.relative_to(root).as_posix()
            parts = name.removeprefix(".ci/").split("/")
            hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
            if hidden or not file.is_file() or name == ITSELF:
                continue
            try:
                yield name, file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a golden store, an image


def check_words(root: Path) -> list[str]:
    """Lines with a banned word, an undone task, a path of one machine or a registry host."""
    findings: list[str] = []
    for name, text in _texts(root):
        speaks_for_us = name.startswith(("cas/", "docs/")) or name.endswith(".md")
        rules = [(UNDONE, "undone"), (MACHINE, "names a machine")]
        if speaks_for_us:
            rules.append((TWO_MEANINGS, "banned for its two meanings"))
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, why in rules:
                for match in pattern.finditer(line):
                    findings.append(f"{name}:{number}: {match[0]!r}: {why}")
    return findings


def test_words_are_kept() -> None:
    """No banned word, undone task, machine path or registry host stands in the tree."""
    assert_clean(check_words(ROOT))


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("cas/a.py", "# the Repository of files", "two meanings"),
        ("docs/design/001.md", "Storage backends differ.", "two meanings"),
        ("README.md", "Clone the repository.", "two meanings"),
        ("tests/test_a.py", "x = 1  # TODO later", "undone"),
        ("tools/a.py", "# FIXME", "undone"),
        ("bench/a.py", "CORPUS = '/home/alice/corpus'", "names a machine"),
        ("docs/a.md", "see /work/shared", "names a machine"),
        (".ci/run", "/tmp/v/bin/python", "names a machine"),
        ("tools/a.sh", "pip install -i https://files.example.net/a/simple x", "names a machine"),
        ("pyproject.toml", 'url = "https://pypi.org/project/cas"', "names a machine"),
    ],
)
def test_a_planted_word_is_found(tmp_path: Path, file: str, line: str, expected: str) -> None:
    """One planted line gives one finding with its place."""
    (finding,) = check_words(plant(tmp_path, {file: f"first line\n{line}\n"}))
    assert finding.startswith(f"{file}:2: ")
    assert expected in finding


def test_what_only_looks_alike_is_accepted(tmp_path: Path) -> None:
    """Spoken-of words, relative paths, tables' build-backend and test data pass."""
    files = {
        "CONTRIBUTING.md": 'The words "repository" and "backend" are banned.\n',
        "pyproject.toml": 'build-backend = "hatchling.build"\n',
        "docs/a.md": "`a/work/b`, ~/work/x, /tmp/x, homework/root/x\n",
        "tests/a.py": "backend = 'a repository'\n",
    }
    assert check_words(plant(tmp_path, files)) == []
