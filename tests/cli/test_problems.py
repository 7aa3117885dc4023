"""Every exit code, each from a real cause; one sentence or one JSON document; no traceback."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import click
import pytest
from blake3 import blake3

from cas import errors
from cas.cli.problems import problem_of
from cas.errors import CasError
from tests.cli.support import PROGRAM, Done, Shell, environment

ZEROS = "0" * 64
LOG_BYTES = 40_000
"""Room for the 32 KiB of shared memory beside SQLite's log, and not for a log of 50,000 bytes."""


def all_errors() -> Iterator[type[CasError]]:
    """Every class of the error tree."""
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, CasError):
            yield value


def assert_told(done: Done, code: int, *words: str) -> None:
    """The form that every problem has: one line, an exit code, no traceback."""
    assert done.code == code, done
    assert done.out == b""
    assert "Traceback" not in done.err
    (line,) = done.err.splitlines()
    assert line.startswith("cas: ")
    assert line.endswith((".", "?"))
    for word in words:
        assert word in line


@pytest.mark.parametrize("kind", list(all_errors()), ids=lambda kind: str(kind.code))
def test_every_error_becomes_a_problem(kind: type[CasError]) -> None:
    """Each error keeps its code, fields and exit code, in words and in JSON."""
    error = kind("It went wrong; do this.", path=b"\xff".hex(), id=bytes(32), seq=3, paths=["a"])
    problem = problem_of(error)
    assert problem.exit_code == kind.exit_code
    assert problem.sentence() == "cas: It went wrong; do this."
    document = json.loads(problem.document())
    assert (document["schema"], document["version"]) == ("cas.problem", 1)
    assert (document["code"], document["exit_code"]) == (kind.code, kind.exit_code)
    assert document["fields"] == {"path": "ff", "id": ZEROS, "seq": 3, "paths": ["a"]}


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (click.UsageError("Missing argument"), "usage", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (OSError(5, "Input/output error", "x"), "storage-failed", 7),
        (MemoryError(), "out-of-memory", 1),
        (ModuleNotFoundError("x", name="blake3"), "missing-library", 1),
        (ModuleNotFoundError("x", name="cas.nowhere"), "internal", 1),
        (ZeroDivisionError("oops\nthere"), "internal", 1),
    ],
)
def test_every_other_exception_becomes_a_problem(
    error: BaseException, code: str, exit_code: int
) -> None:
    """What is no CasError has a code of its own, and is told in one line."""
    problem = problem_of(error)
    assert (problem.code, problem.exit_code) == (code, exit_code)
    assert "\n" not in problem.sentence()


@pytest.mark.parametrize(
    ("library", "advice"),
    [("numpy", "'agent-cas[search]'"), ("obstore.store", "'agent-cas[s3]'"), ("cbor2", "again")],
)
def test_a_library_that_is_missing_names_what_to_install(library: str, advice: str) -> None:
    """A library of an extra names the extra, one that always comes along the package."""
    assert advice in problem_of(ModuleNotFoundError("x", name=library)).message


BAD_WORDS: list[tuple[int, list[str], str]] = [
    (2, [], "cas --help"),
    (2, ["unknown"], "no command 'unknown'"),
    (2, ["snapshto", "."], "Did you mean snapshot?"),
    (2, ["put"], "cas put --help"),
    (2, ["put", "--nothing"], "cas put --help"),
    (2, ["log", "-n", "-1"], "-1"),
    (2, ["log", "-n", "many"], "many"),
    (2, ["ls", "-lz", "main"], "-z"),
    (2, ["diff", "main"], "--folder"),
    (2, ["diff", "main", "main", "--folder", "."], "only one"),
    (2, ["diff", "main", "main", "-p", "-z"], "-z"),
    (2, ["branch", "-d"], "NAME"),
    (2, ["branch", "-d", "x", "main"], "--delete"),
    (2, ["cat", "main"], "REV:PATH"),
    (2, ["get", "xyz"], "64 hex digits"),
    (2, ["get", "abc"], "64 hex digits"),
    (2, ["ls", "main^^x"], "~N or ^N"),
    (2, ["ls", ":docs"], "begins with"),
    (2, ["ls", "main:docs/../x"], "parent"),
    (2, ["ls", "main:" + "n" * 300], "255"),
    (2, ["branch", "bad..name"], "'..'"),
    (2, ["branch", "deadbeef"], "object id"),
    (2, ["put", "work"], "cas snapshot"),
    (2, ["put", "nul\0byte"], "file name"),
    (3, ["get", ZEROS], "no object"),
    (3, ["get", ZEROS[:8]], "begins with"),
    (3, ["log", "nowhere"], "cas branch"),
    (3, ["log", "main~9"], "too far"),
    (3, ["cat", "main:nowhere"], "cas ls main"),
    (3, ["ls", "main:run.sh/x"], "cas ls main"),
    (3, ["put", "missing"], "missing"),
    (3, ["diff", "main", "missing"], "nor a folder"),
    (3, ["get", "-o", "no/folder/here"], "no/folder"),
    (3, ["--store", "missing", "log"], "cas init"),
    (2, ["--store", "work", "log"], "not a store"),
    (2, ["--color", "sometimes", "log"], "sometimes"),
    (4, ["branch", "main"], "--force"),
]


@pytest.mark.parametrize(("code", "words", "told"), BAD_WORDS, ids=lambda value: repr(value)[:40])
def test_bad_input_is_told_in_one_sentence(
    stocked: Shell, code: int, words: list[str], told: str
) -> None:
    """Each bad input gives its exit code and one sentence; with --json one document."""
    if words[:1] == ["get"] and len(words) == 3:
        blob = stocked("show", "main:new.bin", "--json").document["id"]
        words = ["get", blob, *words[1:]]
    assert_told(stocked(*words, expect=None), code, told)
    again = stocked(*words, "--json", expect=code) if words else stocked("--json", expect=code)
    assert again.out == b""
    assert again.problem["exit_code"] == code


def test_a_mistake_in_the_program_is_called_one(
    stocked: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody expected is told as such, with a traceback only on request."""

    def broken(*words: object, **more: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("cas.cli.history.log", broken)
    assert_told(stocked("log", expect=None), 1, "mistake in cas itself", "CAS_DEBUG")
    assert "Traceback" in stocked("log", expect=1, CAS_DEBUG="1").err


def test_no_store_names_the_three_ways(shell: Shell) -> None:
    """Without a store the sentence names init, --store and CAS_STORE."""
    assert_told(shell("log", expect=None), 3, "cas init", "--store", "CAS_STORE")


def test_an_ambiguous_name_lists_what_it_could_be(stocked: Shell) -> None:
    """A name that is a branch and a tag at different commits is refused with both."""
    stocked("branch", "twin", "main")
    stocked("tag", "twin", "main~1", "--force")
    done = stocked("log", "twin", "--json", expect=2)
    assert done.problem["code"] == "ambiguous-revision"
    assert done.problem["fields"]["candidates"] == ["heads/twin", "tags/twin"]
    assert stocked("log", "tags/twin").lines[0].endswith("first")


def edit_catalog(store: Path, statement: str) -> None:
    """Change the catalog behind the store's back."""
    connection = apsw.Connection(str(store / "catalog.sqlite"))
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE meta SET value = 99 WHERE key = 'format'", "99"),
        ("UPDATE meta SET value = 'from-tomorrow' WHERE key = 'features'", "from-tomorrow"),
        ("PRAGMA user_version = 99", "99"),
    ],
)
def test_a_store_of_a_newer_format_is_refused_by_name(
    stocked: Shell, statement: str, told: str
) -> None:
    """A newer store is refused with what it needs, and not touched."""
    edit_catalog(stocked.store, statement)
    for words in (["log"], ["put", "work/run.sh"], ["init"]):
        assert_told(stocked(*words, expect=None), 1, told, "newer version")
    assert stocked("log", "--json", expect=1).problem["code"] == "newer-format"


def test_a_damaged_catalog_is_told(stocked: Shell) -> None:
    """A catalog that is no database, or another program's, is an error and stays as it is."""
    catalog = stocked.store / "catalog.sqlite"
    content = os.urandom(8192)
    catalog.write_bytes(content)
    assert_told(stocked("log", expect=None), 5, "damaged")
    assert catalog.read_bytes() == content
    catalog.unlink()
    connection = apsw.Connection(str(catalog))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert_told(stocked("log", expect=None), 2, "not the catalog")


def pack_with(shell: Shell) -> tuple[str, Path]:
    """A store whose branch main has one large file, and the pack file in which it lies."""
    shell("init")
    shell.write("work/big", os.urandom(300_000))
    shell("snapshot", "work")
    (pack,) = (shell.store / "packs").glob("*.pack")
    return "main:big", pack


def cut_short(pack: Path) -> None:
    """Lose the second half."""
    os.truncate(pack, pack.stat().st_size // 2)


def flip(pack: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 4
    pack.write_bytes(content)


def spoil_footer(pack: Path) -> None:
    """Overwrite the end."""
    content = pack.read_bytes()
    pack.write_bytes(content[:-64] + bytes(64))


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, flip, spoil_footer])
def test_damage_is_told_and_nothing_wrong_is_given(
    shell: Shell, damage: Callable[[Path], None]
) -> None:
    """A damaged, cut or missing pack gives exit 5 and not one wrong byte."""
    target, pack = pack_with(shell)
    right = shell("cat", target).out
    damage(pack)
    done = shell("cat", target, expect=None)
    assert done.out in (b"", right)
    if done.code:
        assert_told(done, 5)
    assert_told(shell("restore", "main", "back", expect=None), 5)


def test_a_damaged_object_is_put_again(shell: Shell) -> None:
    """Putting the same content again makes the object whole: the damaged copy is passed over."""
    shell("init")
    content = os.urandom(300_000)
    shell.write("big", content)
    id = shell("put", "big").text.strip()
    (pack,) = (shell.store / "packs").glob("*.pack")
    pack.unlink()
    shell("get", id, expect=5)
    assert shell("put", "big").text.strip() == id
    assert shell("get", id).out == content


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder below the system's temporary one that any user may enter."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


AS_NOBODY = """
import importlib, os, pkgutil, sys
import apsw, difflib, json, locale, pwd, shutil, textwrap, traceback, zstandard
import cas
for room in ("cli", "commands", "worktree", "maintenance", "catalog", "storage", "objects"):
    for module in pkgutil.iter_modules([os.path.join(cas.__path__[0], room)], f"cas.{room}."):
        importlib.import_module(module.name)
from cas.cli.app import main
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
code = main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""
"""A process that gives its rights up once all is loaded: the interpreter may lie out of reach."""


def as_nobody(shell: Shell, *words: str) -> Done:
    """Run as a user who may write nothing here."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words],
        cwd=shell.folder,
        env=environment(),
        capture_output=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def test_a_read_only_folder_can_be_read_and_not_written(open_place: Path) -> None:
    """Where a store may not be written, looking works and writing is denied with exit 6."""
    shell = Shell(open_place)
    shell("init")
    shell.write("work/a", b"content")
    shell("snapshot", "work")
    for folder, folders, files in os.walk(open_place):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            os.chmod(path, 0o555 if os.path.isdir(path) else 0o444)
    os.chmod(open_place, 0o555)
    try:
        seen = as_nobody(shell, "cat", "main:a")
        assert (seen.code, seen.out, seen.err) == (0, b"content", "")
        assert as_nobody(shell, "log").code == 0
        for words in (["put", "work/a"], ["snapshot", "work"], ["branch", "b"]):
            assert_told(as_nobody(shell, *words), 6)
        assert_told(as_nobody(shell, "init", "elsewhere"), 6)
        assert_told(as_nobody(shell, "get", "-o", "new", seen_id(shell)), 6)
    finally:
        os.chmod(open_place, 0o755)
        for folder, folders, _files in os.walk(open_place):
            for name in folders:
                os.chmod(os.path.join(folder, name), 0o755)


def seen_id(shell: Shell) -> str:
    """Id of the file `a`."""
    return str(shell("show", "main:a", "--json").document["id"])


def test_a_file_that_may_not_be_read_is_denied(open_place: Path) -> None:
    """put of an unreadable file is exit 6 and stores nothing."""
    shell = Shell(open_place)
    shell("init")
    for folder, _folders, files in os.walk(shell.store):
        os.chmod(folder, 0o777)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o666)
    shell.write("private", b"x").chmod(0o600)
    if os.geteuid() != 0:
        (shell.folder / "private").chmod(0)
    assert_told(as_nobody(shell, "put", "private"), 6, "private")


def limited(size_bytes: int) -> Callable[[], None]:
    """Let a process write no file beyond so many bytes: what a full disk does, at a set place."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


def test_a_full_disk_is_told_and_nothing_is_lost(stocked: Shell) -> None:
    """A pack that cannot be written is exit 7; nothing is stored and nothing is left behind."""
    before = sorted(os.listdir(stocked.store / "packs"))
    stocked.write("big", os.urandom(3_000_000))
    done = stocked.process("put", "big", preexec_fn=limited(1_000_000))
    assert_told(done, 7)
    assert sorted(os.listdir(stocked.store / "packs")) == before
    assert len(stocked("log").lines) == 2
    stocked("put", "big")


@pytest.mark.parametrize("words", [["put", "work/more"], ["snapshot", "work"]])
def test_a_catalog_that_cannot_be_written_is_told(stocked: Shell, words: list[str]) -> None:
    """When the commit itself fails, what became of it is found out: exit 7, and nothing there."""
    content = os.urandom(50_000)
    stocked.write("work/more", content)
    before = stocked("journal").out
    assert_told(stocked.process(*words, preexec_fn=limited(LOG_BYTES)), 7)
    assert stocked("journal").out == before
    stocked("get", blake3(content).hexdigest(), expect=3)
    stocked(*words)
    assert stocked("get", blake3(content).hexdigest()).out == content


def test_an_unknown_outcome_is_exit_8(stocked: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """When even asking again cannot tell whether a commit counts, the exit code is 8."""

    def lost(*words: object, **more: object) -> None:
        raise errors.OutcomeUnknown("The answer was lost; ask again.", txid=bytes(16))

    monkeypatch.setattr("cas.commands.save.save_folder", lost)
    assert_told(stocked("snapshot", "work", expect=None), 8)
    fields = stocked("snapshot", "work", "--json", expect=8).problem["fields"]
    assert fields == {"txid": "00" * 16}


def test_a_full_standard_output_is_told(stocked: Shell) -> None:
    """A result that cannot be written is a failure, and a closed output too."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "ls", "main"],
            cwd=stocked.folder,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert_told(Done(done.returncode, b"", done.stderr.decode()), 7, "No space left")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "ls", "main"],
        cwd=stocked.folder,
        env=environment(),
        stderr=subprocess.PIPE,
        check=False,
    )
    assert_told(Done(closed.returncode, b"", closed.stderr.decode()), 7)


def test_a_closed_output_never_hits_the_store(stocked: Shell) -> None:
    """With standard streams closed no file of the store takes their place."""
    words = [*PROGRAM, "snapshot", "work"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words],
        cwd=stocked.folder,
        env=environment(),
        check=False,
    )
    assert done.returncode == 7
    assert len(stocked("log").lines) == 3
    back = stocked.folder / "back"
    stocked("restore", "main", "back")
    assert (back / "new.bin").read_bytes() == bytes(range(256)) * 4
    shutil.rmtree(back)


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "main", ""),
        ("snapshot", ""),
        ("backup", ""),
        ("workspace", "checkout", ""),
        ("workspace", "import", ""),
        ("copy", "", "x"),
        ("prove", ""),
    ],
)
def test_an_empty_name_is_not_the_folder_here(stocked: Shell, words: tuple[str, ...]) -> None:
    """A script whose variable is not set touches nothing."""
    before = sorted(stocked.folder.rglob("*"))
    assert "empty" in stocked(*words, expect=2).err
    assert sorted(stocked.folder.rglob("*")) == before


@pytest.mark.parametrize("place", ["s3://b/p", "http://user:secret@x/y", "gs://b"])
def test_an_address_is_not_a_folder(shell: Shell, place: str) -> None:
    """A store, a backup or a copy by URL is refused, without what may be secret in it."""
    told = shell("init", place, expect=2).err
    assert "is a folder" in told
    assert "secret" not in told
    shell("init")
    shell("backup", place, expect=2)
    shell("copy", ".cas", place, expect=2)
    assert sorted(path.name for path in shell.folder.iterdir()) == [".cas"]
