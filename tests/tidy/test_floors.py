"""The floors of ARCHITECTURE.md: imports go strictly down, and none hides in a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy.source import ROOT, Module, assert_clean, imports_of, plant, read_package

FLOORS: dict[str, int] = {
    "errors": 0,
    "limits": 0,
    "clock": 0,
    "later": 0,
    "interrupts": 0,
    "model": 1,
    "storage": 2,
    "catalog": 2,
    "trees": 2,
    "objects": 3,
    "history": 4,
    "maintenance": 5,
    "worktree": 5,
    "workspace": 6,
    "recall": 7,
    "commands": 8,
    "assembly": 8,
    "aio": 9,
    "cli": 9,
    "server": 9,
    "mcp": 9,
    "adapters": 9,
    "": 9,  # cas/__init__.py, the face
}
FRONTS = {room for room, floor in FLOORS.items() if floor == 9}
OUTSIDE = "testing"  # may import any floor, is imported by none


def check_floors(root: Path) -> list[str]:
    """Every import between rooms that does not go down, and every hidden one."""
    modules = {module.name: module for module in read_package(root)}
    findings: list[str] = []
    for module in modules.values():
        room = module.room
        if room not in FLOORS and room != OUTSIDE:
            findings.append(module.at(1, f"room {room!r} stands on no floor"))
            continue
        for item in imports_of(module, modules):
            if item.target.split(".")[0] != "cas":
                continue
            other = Module("", item.target, False, "", module.tree).room
            if item.in_function and room not in FRONTS and room != OUTSIDE:
                findings.append(module.at(item.line, f"{item.target} imported in a function"))
            if other == room or room == OUTSIDE:
                continue
            if other == OUTSIDE:
                findings.append(module.at(item.line, f"imports {item.target}, which is for tests"))
            elif other in FLOORS and FLOORS[other] >= FLOORS[room]:
                where = f"floor {FLOORS[room]} imports {item.target} of floor {FLOORS[other]}"
                findings.append(module.at(item.line, where))
    return findings


def check_cycles(root: Path) -> list[str]:
    """Modules that import each other, in a ring of any length, type-checking imports included."""
    modules = {module.name: module for module in read_package(root)}
    edges = {
        name: sorted({i.target for i in imports_of(module, modules)} & modules.keys() - {name})
        for name, module in modules.items()
    }
    findings: list[str] = []
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            ring = [*trail[trail.index(name) :], name]
            findings.append(modules[name].at(1, "cycle " + " -> ".join(ring)))
            return
        if name in done:
            return
        for target in edges[name]:
            visit(target, [*trail, name])
        done.add(name)

    for name in edges:
        visit(name, [])
    return findings


def check_outside(root: Path) -> list[str]:
    """What the package imports of the folders around it, and what those import of each other.

    Tools may use the package, the bench both of them; a soak counts what the tests say they count.
    """
    above = {"cas": {"tools", "bench", "tests"}, "tools": {"bench"}}
    return [
        module.at(item.line, f"{folder}/ imports {item.target}")
        for folder, refused in above.items()
        for module in read_package(root, folder)
        for item in imports_of(module, set())
        if item.target.split(".")[0] in refused
    ]


def test_nothing_below_imports_the_bench_or_the_tools() -> None:
    """The package stands alone, tools stand on it, the bench on both."""
    assert_clean(check_outside(ROOT))


def test_an_import_that_points_back_is_found(tmp_path: Path) -> None:
    """A tool that imports the bench, or a room of the package a tool."""
    plant(tmp_path, {"tools/a.py": "from bench import corpus\n", "cas/a.py": "import tools.dev\n"})
    assert len(check_outside(tmp_path)) == 2


def test_imports_go_strictly_down() -> None:
    """Each room imports only rooms on lower floors, and never inside a function."""
    assert_clean(check_floors(ROOT))


def test_no_module_imports_itself_in_a_ring() -> None:
    """The import graph of the package has no cycle."""
    assert_clean(check_cycles(ROOT))


CLEAN = {
    "cas/__init__.py": "def __getattr__(name):\n    from cas.history import store\n",
    "cas/errors.py": "",
    "cas/model/__init__.py": "",
    "cas/model/ids.py": "from cas.errors import X\n",
    "cas/model/names.py": "from cas.model import ids\nfrom .ids import y\n",
    "cas/history/__init__.py": "",
    "cas/history/store.py": "from cas.model.ids import x\n",
    "cas/cli/main.py": "def f():\n    from cas.history import store\n",
    "cas/testing/suite.py": "from cas.history.store import x\ndef f():\n    import cas\n",
}


def test_a_tree_that_keeps_the_rules_has_no_finding(tmp_path: Path) -> None:
    """Downward imports, the lazy face, lazy fronts and the testing room are accepted."""
    plant(tmp_path, CLEAN)
    assert check_floors(tmp_path) == []
    assert check_cycles(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("cas/model/up.py", "import cas.history.store\n", "floor 1 imports"),
        ("cas/errors.py", "from cas import limits\n", "floor 0 imports"),
        ("cas/trees/edit.py", "from cas.storage.pack import x\n", "of floor 2"),
        ("cas/history/refs.py", "from cas import open\n", "imports cas of floor 9"),
        ("cas/cli/log.py", "from cas.server import app\n", "floor 9 imports"),
        ("cas/commands/a.py", "from cas.assembly import b\n", "floor 8 imports"),
        ("cas/objects/a.py", "from ..worktree import scan\n", "floor 3 imports"),
        ("cas/objects/a.py", "def f():\n    from cas.model import ids\n", "in a function"),
        ("cas/objects/a.py", "from cas.testing import x\n", "which is for tests"),
        ("cas/helpers/a.py", "", "stands on no floor"),
        ("cas/objects/a.py", "import importlib\nimportlib.import_module('cas.cli.x')", "floor 3"),
        (
            "cas/model/a.py",
            "import typing\nif typing.TYPE_CHECKING:\n    from cas.history import store\n",
            "floor 1 imports",
        ),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, text: str, expected: str) -> None:
    """Each way of breaking the floors gives exactly one finding that names it."""
    files = {**CLEAN, "cas/limits.py": "", "cas/server/__init__.py": "", file: text}
    (finding,) = check_floors(plant(tmp_path, files))
    assert finding.startswith(file)
    assert expected in finding


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    """A ring of three modules of one room is found once."""
    ring = {
        "cas/model/a.py": "from cas.model import b\n",
        "cas/model/b.py": "from cas.model.c import x\n",
        "cas/model/c.py": "if 0:\n    import cas.model.a\n",
    }
    (finding,) = check_cycles(plant(tmp_path, {**CLEAN, **ring}))
    assert "cas.model.a -> cas.model.b -> cas.model.c -> cas.model.a" in finding
