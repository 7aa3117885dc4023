#!/usr/bin/env python3
"""Write the asynchronous face from the synchronous one: `python tools/aio.py`, or `--check`.

Every public call of the classes below gets an asynchronous form with the same name, parameters and
docstring in `cas/aio/`. A test compares what stands there with what this gives.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cas.history.verbs import HistoryVerbs  # noqa: E402 - the checkout, wherever this is started

WRAPPED = {
    "Transaction": "AsyncTransaction",
    "BranchEdit": "AsyncBranch",
    "View": "AsyncView",
    "Snapshot": "AsyncSnapshot",
    "BlobReader": "AsyncReader",
    "Workspace": "AsyncWorkspace",
    "WorkspaceView": "AsyncWorkspaceView",
}
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Class(NamedTuple):
    """A class of the store, what its face is called, and what is not generated for it."""

    module: str
    name: str
    face: str
    base: str
    by_hand: frozenset[str] = frozenset()
    inside: frozenset[str] = frozenset()
    """What is public for other rooms of the package only."""
    stands: tuple[tuple[str, str], ...] = ()
    """Type variables of a base, and what they stand for here."""
    held: str = "sync"
    """The attribute of the face that holds the synchronous one."""


class File(NamedTuple):
    """A generated module: its place, its docstring, its classes, what it takes from others."""

    name: str
    title: str
    classes: tuple[Class, ...]
    faces: dict[str, str]
    loads: tuple[str, ...] = ()
    """Lines that import what the bases of its classes name."""
    parts: str = "parts"
    """The module that has those parts of its classes which are written by hand."""


def public(cls: type) -> dict[str, Any]:
    """Public names that a class and its bases in the package define, in their order."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("cas."):
            for name, value in vars(base).items():
                if not name.startswith("_"):
                    found[name] = value
    abstract: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    return {name: value for name, value in found.items() if name not in abstract}


READING = File(
    "reading",
    "Views and snapshots for an event loop.",
    (
        Class(
            "cas.history.snapshot", "Snapshot", "AsyncSnapshot", "SnapshotParts",
            frozenset(("size", "get")),
        ),
        Class("cas.history.view", "View", "AsyncView", "ViewParts", frozenset(("seq",))),
    ),
    {},
)  # fmt: skip
WRITING = File(
    "writing",
    "Transactions and batches for an event loop.",
    (
        Class(
            "cas.history.branch", "BranchEdit", "AsyncBranch", "BranchParts", frozenset(("get",)),
            inside=frozenset(("finish", "request", "extras", "follow", "put_at", "find", "look")),
        ),
        Class(
            "cas.history.transaction", "Transaction", "AsyncTransaction", "TransactionParts",
            frozenset(("commit", "rollback")), frozenset(("batch",)),
        ),
        Class("cas.history.store", "PutBatch", "AsyncPutBatch", "BatchParts"),
    ),
    {"AsyncSnapshot": "reading"},
)  # fmt: skip
VERBS = File(
    "verbcalls",
    "Merging, undoing, tags and what is kept, for an event loop.",
    (Class("cas.history.verbs", "HistoryVerbs", "VerbCalls", "Face[Store]"),),
    {"AsyncSnapshot": "reading", "AsyncView": "reading"},
)
CALLS = File(
    "calls",
    "Calls of a store for an event loop.",
    (
        Class(
            "cas.history.store", "Store", "StoreCalls", "VerbCalls",
            frozenset(("begin", "batch", "close", "on_commit", "follow", "id", "read_only"))
            | frozenset(public(HistoryVerbs)),
        ),
    ),
    {"AsyncSnapshot": "reading", "AsyncView": "reading"},
    ("from cas.aio.verbcalls import VerbCalls",),
)  # fmt: skip
_BY_HAND = frozenset(("collection",))
_MEMORY, _ARTIFACT = (("T", "Memory"),), (("T", "Artifact"),)
UNITS = File(
    "unitcalls",
    "Collections of aggregates, and units of work, for an event loop.",
    (
        Class("cas.workspace.reading", "Collection", "AsyncCollection",
              "CollectionParts[Collection[T]], Generic[T]"),
        Class("cas.workspace.views", "Artifacts", "AsyncArtifacts",
              "CollectionParts[Artifacts]", stands=_ARTIFACT),
        Class("cas.workspace.collections", "UnitCollection", "AsyncUnitCollection",
              "Face[UnitCollection[T]], Generic[T]"),
        Class("cas.workspace.collections", "UnitMemories", "AsyncUnitMemories",
              "Face[UnitMemories]", stands=_MEMORY),
        Class("cas.workspace.collections", "UnitArtifacts", "AsyncUnitArtifacts",
              "Face[UnitArtifacts]", stands=_ARTIFACT),
        Class("cas.workspace.work", "UnitOfWork", "UnitCalls", "Face[UnitOfWork]",
              frozenset(("commit", "rollback", "collection")),
              frozenset(("edit", "settler", "transaction", "declared"))),
    ),
    {},
    (
        "from typing import Generic",
        "from cas.aio.spaceparts import CollectionParts",
        "from cas.aio.threads import Face",
        "from cas.workspace.collections import UnitArtifacts, UnitCollection, UnitMemories",
        "from cas.workspace.reading import Collection, T",
        "from cas.workspace.views import Artifacts",
        "from cas.workspace.work import UnitOfWork",
    ),
)  # fmt: skip
SPACES = File(
    "spacecalls",
    "Workspaces for an event loop.",
    (
        Class("cas.workspace.views", "WorkspaceView", "ViewCalls", "Face[WorkspaceView]",
              _BY_HAND),
        Class("cas.workspace.workspace", "Workspace", "SpaceCalls", "SpaceParts",
              _BY_HAND | {"unit_of_work", "watch", "close", "now", "at",
                                              "branch", "place"},
              frozenset(("core",)), held="space"),
    ),
    {},
    (
        "from cas.aio.threads import Face",
        "from cas.workspace.views import WorkspaceView",
    ),
    "spaceparts",
)  # fmt: skip
FILES = (READING, WRITING, VERBS, CALLS, UNITS, SPACES)


def imports_of(module: str) -> dict[str, str]:
    """Name -> the line that imports it, of all that a module has, blocks for checkers included."""
    file = inspect.getsourcefile(importlib.import_module(module))
    assert file is not None
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                named = f" as {alias.asname}" if alias.asname else ""
                line = f"from {node.module} import {alias.name}{named}"
                found[alias.asname or alias.name] = line
        elif isinstance(node, ast.ClassDef):
            found[node.name] = f"from {module} import {node.name}"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, f"from {module} import {node.targets[0].id}")
    return found


class Writer:
    """One generated module."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.needed: dict[str, str] = {}
        self.stands: dict[str, str] = {}
        self.held = "sync"
        self.shared: set[str] = set()

    def text(self) -> str:
        classes = [self._class(cls) for cls in self.file.classes]
        own = {cls.face for cls in self.file.classes}
        lines = [
            f'"""{self.file.title}',
            "",
            "Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these",
            "are; do not edit. Invariant: a call does what the synchronous one of that name does.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from typing import TYPE_CHECKING",
            "",
        ]
        bases = {cls.base for cls in self.file.classes}
        parts = sorted(base for base in bases if base.endswith("Parts"))
        lines += self.file.loads
        for line in self.file.loads:
            for name in line.partition(" import ")[2].split(", "):
                self.needed.pop(name, None)
        if parts:
            lines.append(f"from cas.aio.{self.file.parts} import {', '.join(parts)}")
        for name, module in self.file.faces.items():
            if name in self.shared and name not in own:
                lines.append(f"from cas.aio.{module} import {name}")
        streams = sorted(self.shared & {"AsyncReader", "Items", "bridged"})
        if streams:
            lines.append(f"from cas.aio.streams import {', '.join(streams)}")
        if any(base.startswith("Face") for base in bases) and not self.file.loads:
            lines.append("from cas.aio.threads import Face")
            lines.append("from cas.history.store import Store")
            self.needed.pop("Store", None)
        lines += ["", "if TYPE_CHECKING:"]
        lines += [f"    {line}" for line in sorted(set(self.needed.values()))]
        return "\n".join([*lines, "", *classes])

    def _class(self, cls: Class) -> str:
        sync = getattr(importlib.import_module(cls.module), cls.name)
        self.stands, self.held = dict(cls.stands), cls.held
        text = [f"\nclass {cls.face}({cls.base}):", f'    """`{cls.name}` for an event loop."""\n']
        for name, value in public(sync).items():
            if name in cls.by_hand | cls.inside or isinstance(value, property):
                continue
            text.append(self._call(value))
        return "\n".join(text)

    def _annotation(self, text: str, call: Any) -> str:
        known = imports_of(call.__module__)
        for name, meant in self.stands.items():
            text = re.sub(rf"\b{name}\b", meant, text)
        for name in IDENTIFIER.findall(re.sub(r"'[^']*'", "", text)):
            if name in known and not hasattr(builtins, name):
                self.needed[name] = known[name]
        return text

    def _call(self, call: Any) -> str:
        signature = inspect.signature(call)
        head, passed, waits, kind = ["self"], [], False, ""
        for parameter in list(signature.parameters.values())[1:]:
            note = self._annotation(parameter.annotation, call)
            given = parameter.name
            if parameter.name == "content":
                note = note.replace("Readable", "Readable | AsyncSource")
                self.needed["AsyncSource"] = "from cas.aio.streams import AsyncSource"
                self.shared.add("bridged")
                given = "given"
                waits = True
            if "Snapshot" in note:
                note = note.replace("Snapshot", "Snapshot | AsyncSnapshot")
                self.shared.add("AsyncSnapshot")
                given = f"{given}.sync if isinstance({given}, AsyncSnapshot) else {given}"
            if parameter.kind == inspect.Parameter.VAR_KEYWORD:
                head.append(f"**{given}: {note}")
                passed.append(f"**{given}")
                continue
            if parameter.kind == inspect.Parameter.KEYWORD_ONLY:
                if kind != "keyword":
                    head.append("*")
                    kind = "keyword"
                given = f"{parameter.name}={given}"
            default = ""
            if parameter.default is not inspect.Parameter.empty:
                value = parameter.default
                default = f" = {value!r}"
                if hasattr(value, "name") and hasattr(type(value), "__members__"):
                    # So that the class of an enum is not needed when the module is loaded.
                    default = " = None"
                    note += " | None"
                    name = parameter.name
                    given = f"**({{}} if {name} is None else {{{name!r}: {name}}})"
            head.append(f"{parameter.name}: {note}{default}")
            passed.append(given)
        result = self._annotation(signature.return_annotation, call)
        return self._body(call, ", ".join(head), ", ".join(passed), result, waits=waits)

    def _body(self, call: Any, head: str, passed: str, result: str, *, waits: bool) -> str:
        lines = inspect.getdoc(call) or ""
        doc = "\n        ".join(lines.splitlines()).replace("\n        \n", "\n\n")
        doc = f'        """{doc}"""' if "\n" not in lines else f'        """{doc}\n        """'
        invoked = f"self.{self.held}.{call.__name__}({passed})"
        name = call.__name__
        if result.startswith("Iterator["):
            self.shared.add("Items")
            self.needed.pop("Iterator", None)
            item = result.removeprefix("Iterator")
            return (
                f"    def {name}({head}) -> Items{item}:\n{doc}\n"
                f"        return Items(self._threads, lambda: {invoked})\n"
            )
        before = after = ""
        if waits:
            before = "        given, waits = bridged(content)\n"
            after = ", waits=waits"
        wrapped = WRAPPED.get(result)
        if wrapped is None:
            return (
                f"    async def {name}({head}) -> {result}:\n{doc}\n{before}"
                f"        return await self._run(lambda: {invoked}{after})\n"
            )
        self.shared.add(wrapped)
        return (
            f"    async def {name}({head}) -> {wrapped}:\n{doc}\n{before}"
            f"        made = await self._run(lambda: {invoked}{after})\n"
            f"        return {wrapped}(made, self._threads, self._lock)\n"
        )


def generate() -> dict[Path, str]:
    """Path -> text of each generated module, formatted."""
    made: dict[Path, str] = {}
    for file in FILES:
        text = Writer(file).text()
        for words in (("check", "--fix", "--quiet", "--select", "I,F401,TC,UP"), ("format",)):
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "ruff",
                    *words,
                    "--stdin-filename",
                    f"cas/aio/{file.name}.py",
                    "-",
                ],
                cwd=ROOT,
                input=text,
                capture_output=True,
                text=True,
                check=False,
            )
            text = done.stdout or text
        made[ROOT / "cas" / "aio" / f"{file.name}.py"] = text
    return made


def main() -> int:
    """Write the modules, or with --check tell whether they are as they would be written."""
    stale = []
    for path, text in generate().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    print("stale: " + ", ".join(stale) if stale else "as it should be")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
