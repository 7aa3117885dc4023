#!/usr/bin/env python3
"""Write the reference of API and command line, and build the site of all documentation.

`python tools/reference.py FOLDER` writes `api.md`, `aio.md` and `commands.md` into a folder;
`python tools/reference.py --site FOLDER` builds a site of them and `docs/` with zensical, without
fonts or scripts of other hosts. Both come from the code itself: signatures, docstrings, help. Tests
fail where a public name or a command would be missing.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

from aio import imports_of, public  # noqa: E402

WORD = re.compile(r"[A-Za-z_]\w*")


def reachable() -> dict[str, type]:
    """Name -> class, of all that the public calls take and give, the public classes included."""
    import cas

    found: dict[str, type] = {}
    waiting = [getattr(cas, name) for name in cas.__all__]
    waiting = [item for item in waiting if inspect.isclass(item)]
    while waiting:
        cls = waiting.pop()
        if found.get(cls.__name__) is cls or not cls.__module__.startswith("cas."):
            continue
        found[cls.__name__] = cls
        notes = [(field.type, cls.__module__) for field in getattr(cls, "__attrs_attrs__", ())]
        for value in public(cls).values():
            call = value.fget if isinstance(value, property) else value
            if inspect.isfunction(call):
                notes.append((call.__annotations__.get("return"), call.__module__))
        for note, module in notes:
            waiting += classes_in(note, module)
    return dict(sorted(found.items()))


def classes_in(note: Any, module: str) -> list[type]:
    """Classes of the package that an annotation of a module names."""
    known = imports_of(module)
    found = []
    for word in WORD.findall(note if isinstance(note, str) else ""):
        if word in known and known[word].startswith("from cas."):
            item = getattr(importlib.import_module(known[word].split()[1]), word, None)
            if inspect.isclass(item):
                found.append(item)
    return found


def doc_of(item: Any, name: str) -> str:
    """The docstring. An item without one has no place in a reference."""
    text = inspect.getdoc(item)
    assert text, f"{name} has no docstring"
    return text


def signature_of(call: Any) -> str:
    """Parameters and result as one writes them."""
    text = str(inspect.signature(call)).replace("'", "")
    text = re.sub(r"<EntryKind\.(\w+): \d+>", r"EntryKind.\1", text)
    return re.sub(r"\(self(, )?", "(", text)


def class_page(cls: type) -> list[str]:
    """One class: what it is, its members, its values where it is an enumeration."""
    name = cls.__name__
    lines = [f"## {name}", "", f"`{cls.__module__}.{name}`", "", doc_of(cls, name), ""]
    if issubclass(cls, Enum):
        lines += [f"- `{member.name}` = `{member.value!r}`" for member in cls]
        return [*lines, ""]
    fields = getattr(cls, "__attrs_attrs__", ())
    if fields:
        lines += [f"- `{field.name}`: `{field.type}`" for field in fields]
        lines.append("")
    for member, value in public(cls).items():
        if (
            member in {field.name for field in fields}
            or type(value).__name__ == "member_descriptor"
        ):
            continue
        if isinstance(value, property):
            result = value.fget.__annotations__.get("return", "") if value.fget else ""
            lines += [f"### {name}.{member}", "", f"`{member}: {result}`", ""]
            lines += [doc_of(value, f"{name}.{member}"), ""]
        elif inspect.isfunction(value) or isinstance(value, classmethod | staticmethod):
            call = getattr(cls, member)
            lines += [f"### {name}.{member}", "", "```text", f"{member}{signature_of(call)}", "```"]
            text = inspect.getdoc(call)
            lines += ["", text, ""] if text else [""]
    return lines


def api() -> str:
    """The Python API: every name of `cas`, and every class that its calls give."""
    import cas

    lines = ["# Python API", "", doc_of(cas, "cas"), ""]
    for name in cas.__all__:
        item = getattr(cas, name)
        if inspect.isfunction(item):
            lines += [f"## {name}", "", "```text", f"cas.{name}{signature_of(item)}", "```", ""]
            lines += [doc_of(item, name), ""]
        elif not inspect.isclass(item):
            lines += [f"## {name}", "", f"`cas.{name}` is `{item!r}`.", ""]
    for cls in reachable().values():
        lines += class_page(cls)
    lines += ["## Errors", "", "All of them, with codes and what to do: [errors](errors.md).", ""]
    return "\n".join(lines)


def aio() -> str:
    """The asyncio face."""
    import cas.aio

    lines = ["# asyncio", "", doc_of(cas.aio, "cas.aio"), ""]
    for name in cas.aio.__all__:
        item = getattr(cas.aio, name)
        if inspect.isfunction(item):
            lines += [f"## {name}", "", "```text", f"cas.aio.{name}{signature_of(item)}", "```", ""]
            lines += [doc_of(item, name), ""]
        elif inspect.isclass(item) and item.__module__.startswith("cas."):
            lines += class_page(item)
        else:
            lines += [f"## {name}", "", f"`{item}`", ""]
    return "\n".join(lines)


def commands() -> str:
    """Every command with its help, as `--help` gives it."""
    from cas.cli.app import COMMANDS, cli

    lines = ["# Commands", "", "What `cas COMMAND --help` says. The whole of it, with JSON, exit "]
    lines[-1] += "codes and environment: [the command line](cli.md)."
    with click.Context(cli, info_name="cas", terminal_width=96, max_content_width=96) as context:
        lines += ["", "## cas", "", "```text", cli.get_help(context), "```", ""]
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            with click.Context(
                command, info_name=name, parent=context, terminal_width=96, max_content_width=96
            ) as inner:
                lines += [f"## cas {name}", "", "```text", command.get_help(inner), "```", ""]
    return "\n".join(lines)


PAGES = {"api.md": api, "aio.md": aio, "commands.md": commands}
TITLES = {
    "index.md": "Start",
    "tutorial.md": "Tutorial",
    "cli.md": "Command line",
    "commands.md": "Commands",
    "api.md": "Python API",
    "aio.md": "asyncio",
    "guarantees.md": "Guarantees",
    "errors.md": "Errors",
    "format.md": "Format",
}


def write(folder: Path) -> None:
    """Write the reference."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make() + "\n", encoding="utf-8")


def configuration(source: Path, site: Path) -> str:
    """What zensical reads: an mkdocs.yml. The theme's fonts come from another host; none here."""
    pages = [name for name in TITLES if (source / name).exists()]
    others = sorted(
        path.relative_to(source).as_posix()
        for path in source.rglob("*.md")
        if path.relative_to(source).as_posix() not in TITLES
    )
    nav = [f"  - {TITLES[name]}: {name}" for name in pages] + [f"  - {name}" for name in others]
    return "\n".join(
        [
            "site_name: cas",
            f"docs_dir: {source.name}",
            f"site_dir: {site}",
            "theme:",
            "  name: material",
            "  font: false",
            "nav:",
            *nav,
            "",
        ]
    )


def build(site: Path) -> None:
    """Build the site."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "docs"
        shutil.copytree(ROOT / "docs", source)
        write(source)
        for page in ROOT.glob("*.md"):
            text = re.sub(r"\]\(docs/", "](", page.read_text(encoding="utf-8"))
            name = "index.md" if page.name == "README.md" else page.name
            (source / name).write_text(text, encoding="utf-8")
        settings = Path(folder) / "mkdocs.yml"
        made = Path(folder) / "site"
        settings.write_text(configuration(source, made), encoding="utf-8")
        zensical = shutil.which("zensical") or str(Path(sys.executable).parent / "zensical")
        subprocess.run([zensical, "build", "--clean", "-f", str(settings)], cwd=folder, check=True)
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(made, site)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write the reference, or the whole site.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", action="store_true", help="build the site with zensical")
    chosen = parser.parse_args()
    (build if chosen.site else write)(chosen.folder.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
