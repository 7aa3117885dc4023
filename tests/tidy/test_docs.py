"""What the documentation shows runs, what it links to exists, and its byte tables add up.

A block fenced as `python` runs, in the order of its file, in one namespace and an empty folder;
one that holds `>>>` is a doctest. A preparation that readers need not see goes into a comment
`<!-- python ... -->` on lines of its own. Code that is not meant to run is fenced as `text`.
Blocks fenced as `sh` run the same way, in bash and with the command `cas` at hand, see
`tests/cli/test_shell_examples.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, assert_clean, plant

pytestmark = pytest.mark.docs

REQUIRED = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/errors.md",
    "docs/format.md",
    "docs/guarantees.md",
)
FENCE = re.compile(r"^(?P<mark>`{3,}|~{3,})(?P<kind>[\w-]*)")
LINK = re.compile(
    r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)"
)
NAMED = re.compile(r"`((?:bench|cas|docs|tests|tools)/[\w./-]+)`")
"""A file or folder of this repository; notes are named by their numbers, files without `.py`."""
RUNNER = """
import doctest, json, sys
blocks = json.load(sys.stdin)
space = {"__name__": "__main__"}
for line, code in blocks["code"]:
    if ">>>" in code:
        parser = doctest.DocTestParser()
        test = parser.get_doctest(code, space, blocks["name"], blocks["name"], line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, clear_globs=False)
        if runner.failures:
            sys.exit(1)
        space.update(test.globs)
    else:
        exec(compile("\\n" * line + code, blocks["name"], "exec"), space)
"""


def documents(root: Path) -> list[Path]:
    """The Markdown files at the top and below docs/."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


def code_blocks(text: str, kind: str) -> list[tuple[int, str]]:
    """Code of one kind that runs, each block with the count of lines before it."""
    blocks: list[tuple[int, str]] = []
    inside: list[str] | None = None
    closing = ""
    wanted = False
    start = 0
    for number, line in enumerate(text.splitlines(), 1):
        if inside is None:
            fence = FENCE.match(line)
            if fence or line.strip() == f"<!-- {kind}":
                closing = fence["mark"] if fence else "-->"
                wanted = not fence or fence["kind"] == kind
                inside, start = [], number
        elif line.startswith(closing):
            if wanted:
                blocks.append((start, "\n".join(inside) + "\n"))
            inside = None
        else:
            inside.append(line)
    return blocks


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced blocks."""
    mark = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if mark:
            mark = "" if line.startswith(mark) else mark
        elif fence:
            mark = fence["mark"]
        else:
            yield number, line


def run_document(document: Path, folder: Path) -> list[str]:
    """Run the blocks of one file; a finding holds the traceback."""
    code = code_blocks(document.read_text(encoding="utf-8"), "python")
    if not code:
        return []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CAS_")}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps({"name": document.name, "code": code}),
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"{document.name}:\n{done.stdout}{done.stderr}"] if done.returncode else []


def anchors(text: str) -> set[str]:
    """The names under which the headings of a document can be linked to."""
    found: set[str] = set()
    for _, line in prose(text):
        if heading := re.match(r"#{1,6} (.+)", line):
            plain = re.sub(r"[^\w\- ]", "", heading[1].strip().lower())
            found.add(plain.replace(" ", "-"))
    return found


def check_links(root: Path) -> list[str]:
    """Relative links to files or headings, and files named in backquotes, that do not exist."""
    findings: list[str] = []
    for document in documents(root):
        name = document.relative_to(root).as_posix()
        text = document.read_text(encoding="utf-8")
        for number, line in prose(text):
            for place in NAMED.findall(line):
                if not any((root / place).parent.glob(Path(place).name + "*")):
                    findings.append(f"{name}:{number}: there is no {place}")
            for link in LINK.finditer(re.sub(r"`[^`]*`", "``", line)):
                target, _, anchor = (link["target"] or link["image"]).partition("#")
                if re.match(r"[a-z]+:", target):
                    continue
                file = document.parent / target if target else document
                if not file.exists():
                    findings.append(f"{name}:{number}: {target} does not exist")
                elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
                    findings.append(f"{name}:{number}: no heading #{anchor} in {file.name}")
    return findings


def check_tables(root: Path) -> list[str]:
    """Tables with ragged rows, and byte tables whose offsets do not follow from the widths."""
    findings: list[str] = []
    for document in documents(root):
        name = document.relative_to(root).as_posix()
        heading, header, expected = "", None, 0
        text = document.read_text(encoding="utf-8") + "\n\n"  # so that each table has an end
        for number, line in prose(text):
            if line.startswith("#"):
                heading = line
            if not line.startswith("|"):
                findings += _total(f"{name}:{number - 1}", heading, header, expected)
                header = None
                continue
            plain = re.sub(r"\\\||`[^`]*`", "x", line)
            cells = [cell.strip() for cell in plain.strip().strip("|").split("|")]
            if header is None:
                header, expected = cells, 0
                continue
            if len(cells) != len(header):
                findings.append(f"{name}:{number}: {len(cells)} cells below {len(header)} columns")
            if header[:2] == ["Offset", "Width"] and expected >= 0 and "-" not in cells[0]:
                if cells[0].isdigit() and int(cells[0]) != expected:
                    findings.append(f"{name}:{number}: offset {cells[0]}, not {expected}")
                fixed = cells[0].isdigit() and cells[1].isdigit()
                expected = int(cells[0]) + int(cells[1]) if fixed else -1
    return findings


def _total(place: str, heading: str, header: list[str] | None, end: int) -> list[str]:
    stated = re.search(r", (\d+) bytes$", heading)
    if header is None or header[:2] != ["Offset", "Width"] or not stated:
        return []
    if int(stated[1]) == end:
        return []
    return [f"{place}: the table ends at {end}, its heading says {stated[1]}"]


def test_the_documents_are_there() -> None:
    """Every document that the project promises exists and is not empty."""
    assert_clean([name for name in REQUIRED if not (ROOT / name).is_file()])


@pytest.mark.parametrize("name", [path.relative_to(ROOT).as_posix() for path in documents(ROOT)])
def test_examples_run(name: str, tmp_path: Path) -> None:
    """The Python of this document runs from top to bottom in an empty folder."""
    assert_clean(run_document(ROOT / name, tmp_path))


def test_links_lead_somewhere() -> None:
    """Every relative link names a file, and every anchor a heading."""
    assert_clean(check_links(ROOT))


def test_tables_add_up() -> None:
    """No table is ragged, and offsets and widths of the format agree."""
    assert_clean(check_tables(ROOT))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nx = 1\nraise KeyError(x)\n```\n", "KeyError: 1"),
        ("```python\nx = 1\n```\ntext\n```python\nassert x == 2\n```\n", "line 6"),
        ("```python\n>>> 1 + 1\n3\n```\n", "Expected:\n    3"),
        ("<!-- python\nassert False\n-->\n", "AssertionError"),
    ],
)
def test_a_planted_example_fails(tmp_path: Path, text: str, expected: str) -> None:
    """A block that raises, or a doctest that differs, is found with its line."""
    plant(tmp_path, {"README.md": text})
    (finding,) = run_document(tmp_path / "README.md", tmp_path)
    assert expected in finding


def test_examples_share_names_and_skip_what_is_no_python(tmp_path: Path) -> None:
    """Blocks see those before them; text blocks and nested fences do not run."""
    text = (
        "<!-- python\nx = 1\n-->\n```text\nraise SystemExit(3)\n```\n````md\n```python\n1/0\n```\n"
        "````\n```python\nopen('f', 'w').write(str(x))\n```\n```python\n>>> x + 1\n2\n```\n"
    )
    plant(tmp_path, {"docs/a.md": text})
    assert run_document(tmp_path / "docs" / "a.md", tmp_path) == []
    assert (tmp_path / "f").read_text() == "1"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[a](docs/missing.md)", "docs/missing.md does not exist"),
        ("![a](picture.png)", "picture.png does not exist"),
        ("[a](docs/a.md#two)", "no heading #two"),
        ("[a](#elsewhere)", "no heading #elsewhere"),
        ("`docs/b.md`", "there is no docs/b.md"),
        ("`docs/a/c`", "there is no docs/a/c"),
    ],
)
def test_a_planted_link_is_found(tmp_path: Path, line: str, expected: str) -> None:
    """A dead link, anchor or name gives one finding; good ones, addresses and code give none."""
    good = "[a](docs/a.md#1-one-two) [b](https://example.org/x) `[c](nowhere)` `docs/a` `docs/`\n"
    plant(tmp_path, {"README.md": good, "docs/a.md": "## 1. One, `two`\n"})
    assert check_links(tmp_path) == []
    (finding,) = check_links(plant(tmp_path, {"README.md": f"# Me\n{good}{line}\n"}))
    assert expected in finding


COLUMNS = "| Offset | Width | Field |\n|---|---|---|\n"
TABLE = f"### Header, 12 bytes\n{COLUMNS}| 0 | 8 | a |\n| 8 | 4 | b |\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TABLE.replace("| 8 | 4 |", "| 9 | 3 |"), "offset 9, not 8"),
        (TABLE.replace("12 bytes", "16 bytes"), "ends at 12, its heading says 16"),
        (TABLE.replace("| a |", "| a | b |"), "4 cells below 3 columns"),
    ],
)
def test_a_planted_table_is_found(tmp_path: Path, text: str, expected: str) -> None:
    """A wrong offset, a wrong sum and a ragged row give one finding each."""
    assert check_tables(plant(tmp_path, {"docs/format.md": TABLE})) == []
    (finding,) = check_tables(plant(tmp_path, {"docs/format.md": text}))
    assert expected in finding
