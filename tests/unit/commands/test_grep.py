"""`cas.commands.grep`: what is found is what a search of every line by itself would find."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cas
from cas.commands.grep import Found, GrepRequest, grep
from cas.errors import Invalid, LimitExceeded, RevisionNotFound
from cas.history.store import Store
from cas.model.objects import EntryKind
from tests.unit.kit import write


def found(store: Store, pattern: str, target: str = "main", **how: object) -> dict[str, list[int]]:
    """Path -> numbers of the lines that match."""
    request = GrepRequest(pattern, **how)  # type: ignore[arg-type]
    return {f.path: [line.number for line in f.lines] for f in grep(store, target, request)[1]}


def searching() -> list[str]:
    """Children of this process that search."""
    every = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parent = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                every.append(Path("/proc", pid, "cmdline").read_text())
    return [line for line in every if "lines.py" in line]


PATTERNS = [
    "a",
    "^a",
    "a$",
    "^$",
    "^",
    "$",
    "a.b",
    r"a\sb",
    r"[^x]a",
    "a*",
    r"\Aa",
    r"a\Z",
    r"a(?!\n)",
    r"(?<!\n)a",
    r"(?=b)",
    r"a\n",
    r"(a|b)+\s*a",
    r"\Wb",
]
TEXT = st.lists(st.sampled_from([b"a", b"b", b"\n", b" ", b"\r", b"x"]), max_size=14).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(content=TEXT, pattern=st.sampled_from(PATTERNS))
@example(b"a\nb\na b", r"a\sb")
@example(b"\n\n", "^$")
@example(b"ab\na", "b*$")
def test_lines_are_searched_one_by_one(content: bytes, pattern: str) -> None:
    """A line is found if and only if the pattern is in it alone; no match goes over its end."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    wanted = [
        number
        for number, line in enumerate(lines, 1)
        if re.search(pattern.encode(), line, re.MULTILINE)
    ]
    with cas.open(":memory:") as store:
        write(store, "main", {"f": content})
        assert found(store, pattern).get("f", []) == wanted


def test_options_choose_what_counts(memory: Store) -> None:
    """Case, fixed text, globs and the part of the tree that is named decide what is found."""
    files = {"src/a.py": b"Alpha\nb+\n", "src/sub/b.py": b"alpha\n", "doc/a.md": b"x\nalpha\n"}
    write(memory, "main", files)
    assert found(memory, "alpha") == {"doc/a.md": [2], "src/sub/b.py": [1]}
    assert list(found(memory, "ALPHA", ignore_case=True)) == sorted(files)
    assert found(memory, "b+", fixed=True) == {"src/a.py": [2]}
    assert found(memory, "B+", fixed=True, ignore_case=True) == {"src/a.py": [2]}
    assert list(found(memory, "a", "main:src")) == ["a.py", "sub/b.py"]
    assert list(found(memory, "a", "main:doc/a.md")) == ["a.md"]
    assert list(found(memory, "a", globs=("*.py",))) == ["src/a.py", "src/sub/b.py"]
    assert list(found(memory, "a", globs=("a.*", "!doc/*"))) == ["src/a.py"]
    assert list(found(memory, "a", globs=("src/*",))) == ["src/a.py", "src/sub/b.py"]
    assert found(memory, "nothing") == {}


def test_binary_files_are_named_and_links_are_not_read(memory: Store) -> None:
    """A file with a NUL byte at its beginning is told without lines; a link is no content."""
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit["bin"] = b"\0needle"
        edit["late"] = b"x" * 9000 + b"\0\nneedle"
        edit.put("link", b"needle", kind=EntryKind.LINK)
        tx.commit()
    files = {f.path: f for f in grep(memory, "main", GrepRequest("needle"))[1]}
    assert set(files) == {"bin", "late"}
    assert (files["bin"].binary, files["bin"].lines) == (True, ())
    assert (files["late"].binary, files["late"].lines[0].number) == (False, 2)


def test_long_files_are_searched_in_parts(memory: Store) -> None:
    """A file of many chunks gives the lines and numbers that it has, wherever it is cut."""
    lines = [b"line %d " % number + b"." * 90 for number in range(120_000)]
    for at in (0, 10_000, 77_777, 119_999):
        lines[at] += b" needle"
    write(memory, "main", {"long": b"\n".join(lines), "one": b"y" * (9 << 20) + b"needle"})
    result = found(memory, "needle$")
    assert result["long"] == [1, 10_001, 77_778, 120_000]
    assert result["one"] == [1]
    only = list(grep(memory, "main", GrepRequest("needle", names_only=True))[1])
    assert [(f.path, len(f.lines)) for f in only] == [("long", 1), ("one", 1)]


def test_many_files_come_in_order(memory: Store) -> None:
    """However many threads look, files come in order of path, each once."""
    with memory.begin() as tx:
        edit = tx.branch("main")
        for number in range(1500):
            edit[f"d{number % 7}/f{number:04}"] = b"%d\n" % number
        tx.commit()
    paths = list(found(memory, "7"))
    assert paths == sorted(paths)
    assert len(paths) == sum("7" in str(number) for number in range(1500))


def test_a_search_that_is_left_leaves_no_thread(memory: Store) -> None:
    """Who stops in the middle ends the threads too."""
    write(memory, "main", {f"f{number:04}": b"x" for number in range(3000)})
    _target, files = grep(memory, "main", GrepRequest("x"))
    first: Found = next(files)
    assert first.path == "f0000"
    files.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("cas-grep")]


@pytest.mark.parametrize("long", [False, True])
def test_a_pattern_that_explodes_is_stopped(memory: Store, long: bool) -> None:
    """It ends with an error that names the file, whatever else is searched, and leaves no thread
    and no process.
    """
    size = 9 << 20 if long else 0
    files = {f"f{number:04}": b"x" for number in range(300)}
    write(memory, "main", {**files, "slow": b"a" * 40 + b"\n" + b"." * size, "z": b"aab"})
    _target, matches = grep(memory, "main", GrepRequest("(a+)+b"), cpu_s=0.3)
    with pytest.raises(LimitExceeded, match=r"0\.3 s of processor time in slow") as caught:
        list(matches)
    assert caught.value.fields["limit"] == "GREP_CPU_S"
    assert not [t for t in threading.enumerate() if t.name.startswith("cas-grep")]
    assert searching() == []
    _target, matches = grep(memory, "main", GrepRequest("(a+)+b", globs=("!slow",)), cpu_s=5)
    assert [match.path for match in matches] == ["z"]


def test_a_search_that_is_left_ends_its_process(memory: Store) -> None:
    """However long it would go on: who stops asking ends it."""
    write(memory, "main", {"a": b"aab", **{f"b{n:03}": b"x" for n in range(70)}, "z": b"a" * 60})
    _target, files = grep(memory, "main", GrepRequest("(a+)+b"), cpu_s=10_000)
    assert next(files).path == "a"
    assert len(searching()) >= 1
    files.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("cas-grep")]
    assert searching() == []


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{99999999999}"])
def test_a_pattern_that_is_none_is_refused(memory: Store, pattern: str) -> None:
    """A broken pattern is told before anything is read; as fixed text it is one."""
    write(memory, "main", {"f": pattern.encode()})
    with pytest.raises(Invalid, match="-F"):
        grep(memory, "main", GrepRequest(pattern))
    assert found(memory, pattern, fixed=True) == {"f": [1]}
    with pytest.raises(RevisionNotFound):
        grep(memory, "nowhere", GrepRequest("a"))
