"""What the command line looks like: help, documentation, options in both places, completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cas.cli.app import COMMANDS, cli
from cas.cli.options import COMMON
from tests.cli.support import PROGRAM, Shell, environment, process
from tests.tidy.source import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NAMES = sorted(COMMANDS)


def command(name: str) -> click.Command:
    """The loaded command of this name."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def section(name: str) -> str:
    """What docs/cli.md says of a command."""
    match = re.search(rf"^### cas {name}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert match, f"docs/cli.md has no section on {name}"
    return match[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name: str) -> None:
    """A command has the name and line of help that the list shows, and a word on each option."""
    found = command(name)
    assert found.name == name
    assert found.get_short_help_str(100) == COMMANDS[name][1]
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_is_documented(name: str) -> None:
    """docs/cli.md has a section on each command that names each of its options."""
    text = section(name)
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            for form in parameter.opts:
                assert re.search(rf"`(?:[^`]* )?{re.escape(form)}\b", text), form


def test_no_message_names_a_command_that_is_not_there() -> None:
    """Commands that messages and docstrings tell to run can be run."""
    for source in sorted((ROOT / "cas").rglob("*.py")):
        named = re.findall(r"`cas ([a-z][a-z-]*)", source.read_text())
        assert set(named) <= set(COMMANDS), source


def test_the_documentation_names_no_command_that_is_not_there() -> None:
    """Sections and schemas of docs/cli.md belong to commands that exist."""
    assert sorted(re.findall(r"^### cas ([\w-]+)$", PAGE, re.MULTILINE)) == NAMES
    for option in COMMON:
        assert all(f"`{form}" in PAGE for form in option.opts), option.opts


def documented_keys() -> dict[str, set[str]]:
    """Schema -> every key that its row names, at any depth."""
    rows = re.findall(r"^\| `(cas\.[\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    return {schema: set(re.findall(r"`(\w+)`", keys)) for schema, keys in rows}


DOCUMENTS = [
    ["init"],
    ["init", "--moved"],
    ["put", "work/run.sh"],
    ["get", "ID"],
    ["get", "ID", "-o", "out"],
    ["snapshot", "work"],
    ["restore", "main", "back"],
    ["restore", "main", "back", "--dry-run"],
    ["ls", "main"],
    ["cat", "main:run.sh"],
    ["show", "main"],
    ["show", "main:link"],
    ["show", "main:docs"],
    ["show", "v1"],
    ["write", "main:x", "work/run.sh"],
    ["rm", "main:run.sh"],
    ["mv", "main:run.sh", "main:x"],
    ["cp", "main~1:old.txt", "main:old.txt"],
    ["grep", "second", "main"],
    ["export", "main", "-o", "out.tar"],
    ["diff", "main~1", "main"],
    ["diff", "main~1", "main", "--patch"],
    ["diff", "main~1", "main", "--renames"],
    ["log"],
    ["blame", "main:docs/guide.md"],
    ["blame", "main"],
    ["merge", "main~1"],
    ["merge", "main~1", "--dry-run"],
    ["conflicts"],
    ["undo"],
    ["undo", "--dry-run"],
    ["rewind", "--to", "1"],
    ["rewind", "main:run.sh", "--to", "1"],
    ["journal"],
    ["branch"],
    ["branch", "b"],
    ["tag"],
    ["tag", "t"],
    ["pin", "main"],
    ["protect", "main"],
    ["hold", "main", "-m", "case"],
    [
        "retain",
        "--keep-last",
        "1",
        "--horizon",
        "0h",
        "--horizon-entries",
        "0",
        "--paths",
        "--kept",
    ],
    ["retain", "--keep-last", "1", "--save"],
    ["retain", "--list"],
    ["why", "main:run.sh"],
    ["purge", "main:run.sh", "--dry-run"],
    ["purge", "main:run.sh", "--reason", "leaked"],
    ["purge"],
    ["find"],
    ["find", "word", "--count"],
    ["find", "--facet", "agent"],
    ["recall", "what was decided"],
    ["links", "memory:m"],
    ["links", "--stale"],
    ["forget", "--plan"],
    ["forget", "--yes"],
    ["taint", "memory:m"],
    ["taint", "--agent", "bot", "--remove"],
    ["fsck"],
    ["backup", "backup"],
    ["backup", "backup", "--prove"],
    ["prove", "proved"],
    ["restore-store", "proved", "again"],
    ["expire", "proved", "--keep-last", "1", "--dry-run"],
    ["expire", "proved", "--keep-daily", "7"],
    ["maintain"],
    ["maintain", "--dry-run"],
    ["maintain", "--auto", "2s"],
    ["gc"],
    ["gc", "--dry-run", "--grace", "0"],
    ["gc", "--full"],
    ["copy", ".cas", "copied"],
    ["stats"],
    ["workspace", "status"],
    ["workspace", "import", "work"],
    ["workspace", "conflicts"],
    ["workspace", "checkout", "work"],
    ["workspace", "folders"],
    ["memory", "add", "a text"],
    ["memory", "list"],
    ["artifact", "put", "a", "work/run.sh"],
    ["artifact", "list"],
    ["sprint", "add", "s1"],
    ["sprint", "list"],
    ["events"],
    ["bench", "--seconds", "1"],
    ["--version"],
]


@pytest.mark.parametrize("words", DOCUMENTS, ids=" ".join)
def test_json_is_one_document_with_the_documented_keys(stocked: Shell, words: list[str]) -> None:
    """With --json: one line, schema and version, the keys of docs/cli.md, nothing beside it."""
    stocked("tag", "v1", "-m", "a tag with a text")
    if "proved" in words:
        stocked("backup", "proved")
    if words[0] == "get":
        blob = stocked("show", "main:run.sh", "--json").document["id"]
        words = [blob if word == "ID" else word for word in words]
    # A folder of the old layout has no links; that of this test has one, which is left out.
    done = stocked("--json", *words, expect=1 if words[:2] == ["workspace", "import"] else 0)
    document = done.document
    assert done.out.count(b"\n") == 1
    assert document.pop("version") == 1
    known = documented_keys()[document.pop("schema").replace("cas.tag", "cas.branch")]
    assert set(document) <= known
    for value in document.values():
        for row in value if isinstance(value, list) else []:
            assert isinstance(row, str) or set(row) <= known, row


@pytest.mark.parametrize("name", NAMES)
def test_common_options_stand_before_or_after(name: str, stocked: Shell) -> None:
    """Every command takes --store, --json and --quiet on either side of its name."""
    for words in ([name, "--help"], ["--json", "-q", "--store", "x", name, "--help"]):
        assert "--store PATH" in stocked(*words).text
    options = {form for p in command(name).get_params(click.Context(cli)) for form in p.opts}
    assert {"--store", "--json", "--quiet", "-q", "--color", "--progress"} <= options


def test_before_and_after_are_the_same_request(stocked: Shell) -> None:
    """`cas --json --store S log` and `cas log --json --store S` give the same; the later wins."""
    store = str(stocked.store)
    first = stocked("--json", "--store", store, "log", CAS_STORE="nowhere").out
    assert stocked("log", "--json", "--store", store, CAS_STORE="nowhere").out == first
    assert stocked("--store", "nowhere", "log", "--json", "--store", store).out == first
    assert json.loads(first)["schema"] == "cas.log"
    stocked("--store", store, "log", "--store", "nowhere", expect=3)


def test_a_value_that_looks_like_an_option_is_a_value(stocked: Shell) -> None:
    """`-m --json` is a message and asks for nothing."""
    assert len(stocked("snapshot", "work", "-m", "--json").text) == 65
    assert stocked("log", "-n", "1").lines[0].endswith(" --json")


def test_quiet_leaves_results_only(stocked: Shell) -> None:
    """With -q standard error is empty where all went well, and results are the same."""
    loud, quiet = stocked("put", "work/run.sh"), stocked("-q", "put", "work/run.sh")
    assert loud.err
    assert quiet.err == ""
    assert quiet.out == loud.out
    assert stocked("fsck", "--quiet").err == ""


def test_version_names_what_it_stands_on(stocked: Shell) -> None:
    """--version shows the package, the format, SQLite, zstd and blake3; it needs no store."""
    versions = stocked("--version", "--json").document["versions"]
    assert set(versions) == {"cas", "format", "python", "sqlite", "zstd", "blake3"}
    text = stocked("--version").text
    assert all(version in text for version in versions.values())


def test_colours_are_for_terminals_and_those_who_ask(stocked: Shell) -> None:
    """A pipe gets no escape codes, unless --color=always or FORCE_COLOR; never wins over both."""
    assert b"\x1b" not in stocked("log").out
    assert b"\x1b" in stocked("log", "--color", "always").out
    assert b"\x1b" in stocked("log", FORCE_COLOR="1").out
    assert b"\x1b" not in stocked("log", FORCE_COLOR="1", NO_COLOR="1").out
    assert b"\x1b" not in stocked("log", "--color", "never", FORCE_COLOR="1").out


def test_a_terminal_of_another_encoding_ends_no_command(stocked: Shell) -> None:
    """Names that the output's encoding does not have are escaped."""
    stocked.write("work/ünï", b"")
    stocked("snapshot", "work", "-m", "grüße")
    done = stocked.process("ls", "main", env={"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.lines[-1]) == (0, "\\xfcn\\xef")
    assert stocked.process("log", env={"PYTHONIOENCODING": "ascii"}).code == 0


HEAVY = ("rich", "pathspec", "pyfastcdc", "zstandard", "sqlite3", "difflib", "email", "asyncio")
LOADED = """
import sys
from cas.cli.app import main
code = main(sys.argv[1:])
sys.stdout.flush()
print("\\n" + " ".join(m for m in sys.modules if "." not in m or m.startswith("cas.")))
"""


def loaded(folder: Path, *words: str) -> set[str]:
    """Modules that a command line leaves loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_command_and_no_store(stocked: Shell) -> None:
    """`cas --help` loads neither a command's module, nor the store, nor a library but click."""
    modules = loaded(stocked.folder, "--help")
    commands = {f"cas.cli.{module}" for module, _help in COMMANDS.values()}
    assert not modules & {*commands, *HEAVY, "cas.assembly", "apsw", "blake3", "cbor2"}


def test_an_unchanged_snapshot_loads_nothing_heavy(stocked: Shell) -> None:
    """A snapshot of an unchanged folder loads no progress bar, patterns, cutter or diff."""
    modules = loaded(stocked.folder, "--quiet", "snapshot", "work")
    assert not modules & {*HEAVY, "cas.worktree.checkout", "cas.worktree.compare", "json"} - {
        "zstandard",  # a commit of a few bytes is compressed like any other
        "difflib",  # click looks for near misses before it finds a short option
    }
    assert not loaded(stocked.folder, "ls", "main") & {*HEAVY, "cas.worktree"}


RARE = frozenset(
    {
        "cas.catalog.adopt",
        "cas.catalog.postgres_place",
        "cas.catalog.scrub",
        "cas.catalog.trim",
        "cas.history.clash",
        "cas.history.conflicts",
        "cas.history.kept",
        "cas.history.live",
        "cas.history.log",
        "cas.history.thinning",
        "cas.maintenance.newstore",
        "cas.objects.spill",
        "cas.storage.memory",
        "cas.trees.merge",
        "pathlib",
    }
)
"""Rooms for what a store seldom has, or is seldom asked for."""

WRITING = frozenset({"cas.history.policy", "cas.history.transaction", "cas.objects.batch"})


def test_a_command_waits_for_no_room_that_it_does_not_need(stocked: Shell) -> None:
    """A snapshot loads no room for what is rare; a check and a restore none that writes to a store
    either, and a check none that reads revisions."""
    assert not loaded(stocked.folder, "--quiet", "snapshot", "work") & {*RARE, "cas.history.view"}
    assert not loaded(stocked.folder, "--quiet", "restore", "main", "again") & {*RARE, *WRITING}
    checked = loaded(stocked.folder, "--quiet", "fsck")
    assert not checked & {*RARE, *WRITING, "cas.history.view", "cas.maintenance.fsck.spread"}


def complete(folder: Path, *words: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last of these words."""
    done = process(
        cwd=folder,
        env={
            "_CAS_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": " ".join(["cas", *words]),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert (done.code, done.err) == (0, "")
    return [line.split(",", 1)[1] for line in done.lines if line]


def test_completion_offers_commands_branches_tags_and_paths(stocked: Shell) -> None:
    """A shell completes commands, options, branches, tags, and paths of a revision."""
    stocked("branch", "feature/one")
    stocked("tag", "fresh")
    assert complete(stocked.folder, "sn") == ["snapshot"]
    assert "--skip-secrets" in complete(stocked.folder, "snapshot", "--")
    assert complete(stocked.folder, "log", "f") == ["feature/one", "fresh"]
    assert complete(stocked.folder, "snapshot", "-b", "f") == ["feature/one"]
    assert complete(stocked.folder, "tag", "-d", "f") == ["fresh"]
    assert complete(stocked.folder, "cat", "main:d") == ["main:docs/"]
    assert complete(stocked.folder, "cat", "main:docs/") == ["main:docs/guide.md"]
    store = ["--store", str(stocked.store)]
    assert complete(stocked.folder.parent, *store, "log", "m") == ["main"]


@pytest.mark.parametrize(
    "words",
    [
        ["log"],
        ["branch", "new"],
        ["rewind", "--to", "0"],
        ["snapshot", "work", "-b"],
        ["diff", "main"],
    ],
    ids=lambda words: words[0],
)
def test_an_empty_name_is_none(stocked: Shell, words: list[str]) -> None:
    """A script with a variable that is not set does not get what no name at all means: not the
    branch main, and not the rewind of everything.
    """
    refused = stocked(*words, "", expect=2)
    assert "the name is empty" in refused.err
    assert stocked("journal").lines[-1].endswith("second")


def test_completion_offers_names_that_mean_one_thing(stocked: Shell) -> None:
    """A name that a branch and a tag share is offered in full, and any name that was begun so."""
    stocked("tag", "two")
    stocked("branch", "two", "main~1", "--force")
    assert complete(stocked.folder, "log", "t") == ["tags/two"]
    assert complete(stocked.folder, "log", "main..heads/") == [
        "main..heads/main",
        "main..heads/two",
    ]
    assert complete(stocked.folder, "tag", "-d", "t") == ["two"]


@pytest.mark.parametrize("kind", ["bash", "zsh"])
def test_no_blank_follows_a_directory_that_was_completed(stocked: Shell, kind: str) -> None:
    """The path goes on behind it; behind a file a blank follows."""
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    script = process(cwd=stocked.folder, env={"_CAS_COMPLETE": f"{kind}_source"}).out.decode()
    stubs = {
        "bash": """
            complete() { :; }
            compopt() { echo "compopt $2"; }
            ask() { COMP_WORDS=(cas cat "$1"); COMP_CWORD=2; COMPREPLY=()
                _cas_completion cas; echo "${COMPREPLY[*]}"; }
            """,
        "zsh": """
            compdef() { :; }
            commands[cas]=cas
            compadd() { print -r -- "${@[1,-2]}" "${(P)@[-1]}"; }
            ask() { words=(cas cat "$1"); CURRENT=3; _cas_completion; }
            """,
    }
    told = subprocess.run(
        [kind, "-c", f"{stubs[kind]}\n{script}\nask main:d; ask main:docs/"],
        cwd=stocked.folder,
        env={**environment(), "PATH": f"{_commands(stocked.folder)}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    want = {
        "bash": ["compopt nospace", "main:docs/", "main:docs/guide.md"],
        "zsh": [
            "-U -S  -V unsorted -a main:docs/",
            "-U -V unsorted -a main:docs/guide.md",
        ],
    }
    assert [line for line in told if ":" in line or "compopt" in line] == want[kind]


def _commands(folder: Path) -> Path:
    """A folder with the command `cas` in it, as an installation has it."""
    place = folder / "commands"
    place.mkdir()
    command = place / "cas"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cas "$@"\n')
    command.chmod(0o755)
    return place


def test_completion_without_a_store_is_silent(tmp_path: Path) -> None:
    """Where there is no store, or a broken one, nothing is offered and nothing is said."""
    assert complete(tmp_path, "log", "m") == []
    (tmp_path / ".cas").mkdir()
    (tmp_path / ".cas" / "catalog.sqlite").write_bytes(os.urandom(4096))
    assert complete(tmp_path, "log", "m") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_given(tmp_path: Path, shell: str) -> None:
    """Each shell's script is printed on demand."""
    done = process(cwd=tmp_path, env={"_CAS_COMPLETE": f"{shell}_source"})
    assert done.code == 0
    assert "_CAS_COMPLETE" in done.text


def test_the_module_is_the_script(tmp_path: Path) -> None:
    """`python -m cas` is the command that the package installs."""
    assert PROGRAM[1:] == ("-m", "cas")
    text = (ROOT / "pyproject.toml").read_text()
    assert 'cas = "cas.cli.main:run"' in text
    assert process("--version", cwd=tmp_path).text.startswith("cas ")
