"""The shell commands that the documentation shows run, in an empty folder, with the real command.

Blocks fenced as `sh` run in bash from top to bottom, all of one file in one folder, each stopped
by its first error. What readers need not see stands in `<!-- sh ... -->`; what is not meant to
run is fenced as `text`. The command is that of pyproject.toml: installed where it is, else a
script that does what the installed one would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.support import environment
from tests.tidy.source import ROOT, assert_clean, plant
from tests.tidy.test_docs import code_blocks, documents

pytestmark = pytest.mark.docs

BASH = shutil.which("bash")
SCRIPT = """#!{python}
import sys
from {module} import {function}
sys.exit({function}())
"""


def entry_point(folder: Path) -> Path:
    """A folder with the command `cas` in it: the installed one, or one that is made here."""
    installed = Path(sys.executable).with_name("cas")
    if installed.exists():
        return installed.parent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder.mkdir()
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        file = folder / name
        file.write_text(SCRIPT.format(python=sys.executable, module=module, function=function))
        file.chmod(0o755)
    return folder


def run_shell(document: Path, folder: Path) -> list[str]:
    """Run the blocks of one file; a finding holds the line of its block and what was printed."""
    code = code_blocks(document.read_text(encoding="utf-8"), "sh")
    if not code:
        return []
    assert BASH is not None
    tools = entry_point(folder / "bin")
    home = folder / "home"
    home.mkdir()
    env = environment(HOME=str(home), PATH=os.pathsep.join((str(tools), os.environ["PATH"])))
    for line, block in code:
        done = subprocess.run(
            [BASH, "--noprofile", "--norc", "-euo", "pipefail", "-c", block],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode:
            shown = done.stdout + done.stderr
            return [f"{document.name}:{line}: ended with {done.returncode}\n{shown}"]
    return []


@pytest.fixture(autouse=True)
def _needs_bash() -> None:
    if BASH is None:
        pytest.skip("there is no bash here to run the examples in")


@pytest.mark.parametrize("name", [path.relative_to(ROOT).as_posix() for path in documents(ROOT)])
def test_shell_examples_run(name: str, tmp_path: Path) -> None:
    """Every command that this document shows works as it stands, one after the other."""
    assert_clean(run_shell(ROOT / name, tmp_path))


def test_there_are_examples() -> None:
    """README and the page on the command line show commands that run."""
    for name in ("README.md", "docs/cli.md"):
        assert code_blocks((ROOT / name).read_text(encoding="utf-8"), "sh"), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```sh\ncas init\ncas cat main:none\n```\n", "no branch"),
        ("```sh\nfalse | true\n```\n", "README.md:1: ended with 1"),
        ("```sh\ntrue\n```\n\n```sh\necho $undefined\n```\n", "README.md:5"),
        ("<!-- sh\nexit 3\n-->\n", "ended with 3"),
        ("```sh\ncas snapshoot work\n```\n", "Did you mean snapshot"),
    ],
)
def test_a_planted_example_fails(tmp_path: Path, text: str, expected: str) -> None:
    """A command that fails anywhere in a block is found with the line of the block."""
    plant(tmp_path, {"README.md": text})
    (finding,) = run_shell(tmp_path / "README.md", tmp_path)
    assert expected in finding


def test_blocks_share_a_folder_and_what_is_text_does_not_run(tmp_path: Path) -> None:
    """Files of earlier blocks are there in later ones; `text` and other languages stay unread."""
    text = (
        "<!-- sh\ncas init -q\n-->\n```text\nexit 3\n```\n```sh\nprintf 1 | cas put -\n```\n"
        "```python\n1/0\n```\n```sh\ncas stats > out\n```\n"
    )
    plant(tmp_path, {"a.md": text})
    assert run_shell(tmp_path / "a.md", tmp_path) == []
    assert (tmp_path / "home" / "out").read_text()
