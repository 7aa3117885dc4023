"""The reference is complete: no public name, call, command or option is missing from it."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import click
import pytest

import cas
import cas.aio
from cas.cli.app import COMMANDS, cli
from tests.tidy.source import ROOT

pytestmark = pytest.mark.docs

sys.path.insert(0, str(ROOT / "tools"))
reference = importlib.import_module("reference")
ZENSICAL = shutil.which("zensical") or shutil.which(str(Path(sys.executable).parent / "zensical"))


@cache
def made_of(write: Callable[[], str]) -> str:
    """A part of the reference: written once for all tests."""
    return write()


def headings(text: str) -> set[str]:
    """Titles of all sections."""
    return set(re.findall(r"^#{2,3} (.+)$", text, re.MULTILINE))


def missing_names(text: str, names: list[str], home: object) -> list[str]:
    """Public names, and public members of classes of ours, without a section of their own."""
    found = headings(text)
    missing = [name for name in names if name not in found]
    for name in names:
        cls = getattr(home, name)
        if (
            not inspect.isclass(cls)
            or _is_error(home, name, found)
            or hasattr(cls, "__attrs_attrs__")
        ):
            continue
        for member, value in reference.public(cls).items():
            shown = inspect.isfunction(value) or isinstance(value, property)
            if shown and f"{name}.{member}" not in found:
                missing.append(f"{name}.{member}")
    return missing


def _is_error(home: object, name: str, found: set[str]) -> bool:
    item = getattr(home, name)
    return name in found and inspect.isclass(item) and issubclass(item, BaseException)


def test_every_public_name_has_its_section() -> None:
    """Each name of `cas` and `cas.aio`, and each call and property of each class, is there."""
    assert missing_names(made_of(reference.api), cas.__all__, cas) == []
    assert missing_names(made_of(reference.aio), cas.aio.__all__, cas.aio) == []


def test_what_calls_give_is_explained_too() -> None:
    """Classes that a public call returns are in the reference, also those that nobody imports."""
    found = headings(made_of(reference.api))
    assert {"BranchEdit", "Follower", "Subscription", "Pin", "Protection", "RefRule"} <= found
    assert {"BranchEdit.put", "Follower.poll", "BlobReader.seek", "PutBatch.put"} <= found


def test_every_command_and_option_is_there() -> None:
    """Each command has a section with every one of its options and arguments."""
    text = reference.commands()
    for name in COMMANDS:
        section = text.partition(f"\n## cas {name}\n")[2].partition("\n## ")[0]
        assert section, name
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.get_params(click.Context(cli)):
            if isinstance(parameter, click.Option):
                assert all(form in section for form in parameter.opts), (name, parameter.name)


def test_a_missing_name_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the reference does not have is told; one without a docstring stops it."""
    text = made_of(reference.api)
    assert missing_names(text.replace("### Store.pin\n", ""), cas.__all__, cas) == ["Store.pin"]
    assert missing_names(text.replace("## View\n", ""), cas.__all__, cas) == ["View"]

    def silent() -> None:
        raise AssertionError

    monkeypatch.setattr(cas, "silent", silent, raising=False)
    monkeypatch.setattr(cas, "__all__", [*cas.__all__, "silent"])
    with pytest.raises(AssertionError, match="silent has no docstring"):
        reference.api()


@pytest.mark.skipif(ZENSICAL is None, reason="zensical is not installed (dependency group docs)")
def test_the_site_is_built(tmp_path: Path) -> None:
    """zensical builds all pages, finds no dead link, and asks no other host for anything."""
    done = subprocess.run(
        [sys.executable, "tools/reference.py", "--site", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "does not exist" not in done.stdout + done.stderr
    pages = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {"api", "aio", "commands", "cli", "tutorial", "asyncio", "format"} <= pages
    for path in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]+(?:src|href)=[\"']?(https?://[^\"' >]+)", path.read_text()
        )
        assert not [url for url in loaded if "zensical.org" not in url], path
