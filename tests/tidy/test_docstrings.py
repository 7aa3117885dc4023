"""Whoever opens a public name finds a sentence there."""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, FunctionNode, Module, assert_clean, plant, read_package

Methods = dict[str, set[str]]


def _base_names(node: ast.ClassDef) -> list[str]:
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [getattr(base, "attr", getattr(base, "id", "")) for base in plain]


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in node.body:
        if isinstance(child, FunctionNode):
            yield child


def _decorators(node: FunctionNode) -> set[str]:
    plain = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {getattr(d, "attr", getattr(d, "id", "")) for d in plain}


def _promises(modules: list[Module]) -> tuple[Methods, Methods]:
    """Methods by class name: those of Protocols, and documented ones of any class."""
    protocols: Methods = {}
    documented: Methods = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                names = {method.name for method in _methods(node)}
                told = {method.name for method in _methods(node) if ast.get_docstring(method)}
                documented.setdefault(node.name, set()).update(told)
                if "Protocol" in _base_names(node):
                    protocols.setdefault(node.name, set()).update(names)
    return protocols, documented


def _provided(node: ast.ClassDef) -> set[str]:
    """Names a class gives its users: methods, declared attributes, `self.name = ...`."""
    names = {method.name for method in _methods(node)}
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            if getattr(child.value, "id", "") == "self":
                names.add(child.attr)
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            names.add(child.target.id)
    return names


def _explained_elsewhere(node: ast.ClassDef, protocols: Methods, documented: Methods) -> set[str]:
    """Methods whose promise stands at a Protocol, at a base class, or in the standard library."""
    own = _provided(node)
    known: set[str] = set()
    for base in _base_names(node):
        known |= documented.get(base, set())
        for library in (io, collections.abc, contextlib):
            known |= set(dir(getattr(library, base, None))) if hasattr(library, base) else set()
    for name, promised in protocols.items():
        public = {method for method in promised if not method.startswith("__")}
        if node.name != name and (name in _base_names(node) or (public and public <= own)):
            known |= promised
    return known


def check_docstrings(root: Path) -> list[str]:
    """Modules, public classes, functions and methods that say nothing."""
    modules = read_package(root)
    protocols, documented = _promises(modules)
    findings: list[str] = []
    for module in modules:
        if not ast.get_docstring(module.tree):
            findings.append(module.at(1, "the module has no docstring"))
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                findings += _check_class(module, node, protocols, documented)
            elif isinstance(node, FunctionNode):
                silent = not ast.get_docstring(node) and "overload" not in _decorators(node)
                if silent and not node.name.startswith("_"):
                    findings.append(module.at(node, f"{node.name} has no docstring"))
    return findings


def _check_class(
    module: Module, node: ast.ClassDef, protocols: Methods, documented: Methods
) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield module.at(node, f"class {node.name} has no docstring")
    elsewhere = _explained_elsewhere(node, protocols, documented)
    for method in _methods(node):
        silent = method.name.startswith("_") or ast.get_docstring(method)
        if silent or method.name in elsewhere or _decorators(method) & {"overload", "setter"}:
            continue
        yield module.at(method, f"{node.name}.{method.name} has no docstring")


def test_everything_public_has_a_docstring() -> None:
    """Every module, public class, function and method explains itself or its Protocol does."""
    assert_clean(check_docstrings(ROOT))


PORT = '''"""M."""
import io
from typing import Protocol
class Port(Protocol):
    """P."""
    def put(self):
        """D."""
    def get(self):
        """D."""
    @property
    def size(self):
        """D."""
'''


def test_what_may_stay_silent_is_accepted(tmp_path: Path) -> None:
    """Private names, dunder methods, ports' methods and overrides of the library pass."""
    text = (
        PORT
        + '''
class Local:
    """L."""
    def __init__(self):
        self.size = 0
    def put(self): pass
    def get(self): pass
    def _help(self): pass
class Named(Port):
    """N."""
    def put(self): pass
class Stream(io.RawIOBase):
    """S."""
    def readinto(self, b): pass
def _private():
    def inner(): pass
'''
    )
    assert check_docstrings(plant(tmp_path, {"cas/a.py": text})) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "the module has no docstring"),
        ('"""M."""\nclass A:\n    pass\n', "class A has no docstring"),
        ('"""M."""\ndef f(): pass\n', "f has no docstring"),
        ('"""M."""\nasync def f(): pass\n', "f has no docstring"),
        ('"""M."""\nclass A:\n    """A."""\n    def f(self): pass\n', "A.f has no docstring"),
        (PORT + 'class Half:\n    """H."""\n    def put(self): pass\n', "Half.put has no"),
        (PORT.replace('put(self):\n        """D."""', "put(self): ..."), "Port.put has no"),
    ],
)
def test_a_planted_silence_is_found(tmp_path: Path, text: str, expected: str) -> None:
    """Each silent public thing gives one finding, the Protocol's own methods included."""
    (finding,) = check_docstrings(plant(tmp_path, {"cas/a.py": text}))
    assert expected in finding
