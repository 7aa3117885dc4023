"""Files and functions stay small enough to be read at one sitting."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, FunctionNode, assert_clean, plant, read_package

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 80

# What may be longer, and how long: "path" or "path:function". Each line says why in a comment.
ALLOWED: dict[str, int] = {
    "cas/errors.py": 560,  # one tree, read as a table: a class is six lines
}


def check_sizes(root: Path, allowed: Mapping[str, int] = ALLOWED) -> list[str]:
    """Files and functions above their limit, and allowances that nothing needs any more."""
    findings: list[str] = []
    needed: set[str] = set()

    def judge(key: str, lines: int, maximum: int, line: int) -> None:
        if lines > maximum:
            needed.add(key)
            if lines > allowed.get(key, maximum):
                limit = allowed.get(key, maximum)
                findings.append(f"{key.split(':')[0]}:{line}: {key} has {lines} lines, not {limit}")

    for folder in ("cas", "tools"):
        if not (root / folder).exists():
            continue
        for module in read_package(root, folder):
            judge(module.path, len(module.text.splitlines()), FILE_LINES_MAX, 1)
            for node in ast.walk(module.tree):
                if isinstance(node, FunctionNode):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    judge(f"{module.path}:{node.name}", lines, FUNCTION_LINES_MAX, node.lineno)
    findings += [f"{key}: allowed to be long, but is not" for key in sorted(set(allowed) - needed)]
    return findings


def test_files_and_functions_are_short() -> None:
    """No file of the package or its tools passes 450 lines, no function 80."""
    assert_clean(check_sizes(ROOT))


@pytest.mark.parametrize(
    ("text", "allowed", "expected"),
    [
        ("x = 1\n" * 451, {}, "has 451 lines, not 450"),
        ("class A:\n    def f(self):\n" + "        x = 1\n" * 80, {}, "has 81 lines, not 80"),
        ("x = 1\n" * 501, {"cas/a.py": 500}, "has 501 lines, not 500"),
        ("x = 1\n", {"cas/a.py": 500}, "allowed to be long, but is not"),
    ],
)
def test_a_planted_length_is_found(
    tmp_path: Path, text: str, allowed: dict[str, int], expected: str
) -> None:
    """One line too many is found, in a file, a method, beyond an allowance, or a stale one."""
    (finding,) = check_sizes(plant(tmp_path, {"cas/a.py": text}), allowed)
    assert expected in finding


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    """Exactly 450 and 80 lines pass, and so does what an allowance covers."""
    text = "def f():\n" + "    x = 1\n" * 79 + "x = 1\n" * 370
    assert check_sizes(plant(tmp_path, {"cas/a.py": text}), {}) == []
    assert check_sizes(plant(tmp_path, {"cas/a.py": "x = 1\n" * 460}), {"cas/a.py": 460}) == []
