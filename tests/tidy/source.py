"""Read a tree of sources for the style tests: modules, their imports, their texts.

Every checker in this folder is a function of a root path that returns findings, one string each
(`path:line: what is wrong`), so that a test can run it on this checkout and on a planted tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One source file. `name` is dotted; a package has the name of its folder."""

    path: str
    name: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part after `cas.`: a folder or a single module; empty for the face."""
        room = self.name.partition(".")[2].partition(".")[0]
        return "cli" if room == "__main__" else room

    def at(self, node: ast.AST | int, what: str) -> str:
        """A finding at a node or line."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {what}"


class Import(NamedTuple):
    """One imported module as written, resolved to a full dotted name."""

    target: str
    line: int
    in_function: bool


def read_module(root: Path, file: Path) -> Module:
    """Parse one file below `root`."""
    parts = list(file.relative_to(root).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(file))
    return Module(file.relative_to(root).as_posix(), name, is_package, text, tree)


def read_package(root: Path, folder: str = "cas") -> list[Module]:
    """Every module of a package, sorted by path; an empty package is an error of the caller."""
    modules = [read_module(root, file) for file in sorted((root / folder).rglob("*.py"))]
    assert modules, f"no sources below {root / folder}"
    return modules


def imports_of(module: Module, known: Mapping[str, Module] | set[str]) -> Iterator[Import]:
    """Yield every import, wherever it stands; `from a import b` gives `a.b` where that is known.

    `importlib.import_module("...")` and `__import__("...")` with a literal name count too.
    """
    for node, in_function in _walk(module.tree, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in known else base, node.lineno, in_function)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            first = node.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(str(first.value), node.lineno, in_function)


def _base_of(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    keep = len(package) - node.level + (1 if module.is_package else 0)
    return ".".join([*package[:keep], *([node.module] if node.module else [])])


def _walk(node: ast.AST, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    waiting = [(child, in_function) for child in ast.iter_child_nodes(node)][::-1]
    while waiting:
        child, inside = waiting.pop()
        yield child, inside
        inside = inside or isinstance(child, FunctionNode | ast.Lambda)
        waiting += [(inner, inside) for inner in ast.iter_child_nodes(child)][::-1]


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write a small tree for a checker to find fault with."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def assert_clean(findings: list[str]) -> None:
    """Fail with one finding a line."""
    assert not findings, f"{len(findings)} finding(s)\n" + "\n".join(findings)
