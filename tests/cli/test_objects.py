"""`cas init`, `put` and `get`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.support import Shell

BIG = bytes(range(256)) * 4096 * 10  # over the size above which content is cut into chunks


def test_init_makes_dot_cas_here_and_says_where(shell: Shell) -> None:
    """`cas init` makes ./.cas and prints its path; again it is left alone, with the same answer."""
    first = shell("init")
    identity = (shell.store / "catalog.sqlite").stat().st_ino
    again = shell("init")
    assert first.text == again.text == f"{shell.store}\n"
    assert "there is a store already" in again.err
    assert (shell.store / "catalog.sqlite").stat().st_ino == identity


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["init", "place"], {}),
        (["init", "--store", "place"], {}),
        (["--store", "place", "init"], {}),
        (["init"], {"CAS_STORE": "place"}),
        (["init", "place", "--store", "elsewhere"], {"CAS_STORE": "other"}),
    ],
)
def test_init_makes_the_named_folder_itself_the_store(
    shell: Shell, words: list[str], env: dict[str, str]
) -> None:
    """PATH wins over --store, which wins over CAS_STORE; the named folder is the store itself."""
    shell(*words, **env)
    assert (shell.folder / "place" / "catalog.sqlite").is_file()
    assert sorted(os.listdir(shell.folder)) == ["place"]
    assert shell("put", "-", "--store", "place", stdin=b"x").code == 0


def test_init_refuses_a_folder_with_other_things(shell: Shell) -> None:
    """A folder that holds anything else is refused and left as it is."""
    shell.write("mine/notes.txt", b"keep")
    done = shell("init", "mine", expect=2)
    assert "choose another place" in done.err
    assert os.listdir(shell.folder / "mine") == ["notes.txt"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\0\xff" * 1000, BIG], ids=len)
def test_put_prints_what_b3sum_prints_and_get_gives_it_back(shell: Shell, content: bytes) -> None:
    """The id of a file or of standard input is its BLAKE3, and get gives the same bytes."""
    shell("init")
    shell.write("file", content)
    expected = blake3(content).hexdigest()
    assert shell("put", "file").text == expected + "\n"
    assert shell("put", "-", stdin=content).text == expected + "\n"
    assert shell("get", expected).out == content
    assert shell("get", expected[:12]).out == content
    shell("get", expected, "-o", "back")
    assert (shell.folder / "back").read_bytes() == content


def test_put_takes_many_files_and_prints_their_ids_in_order(shell: Shell) -> None:
    """Several files give one id a line, in the order of the words."""
    shell("init")
    names = [f"f{i}" for i in range(5)]
    for name in names:
        shell.write(name, name.encode())
    assert shell("put", *names).lines == [blake3(n.encode()).hexdigest() for n in names]


def test_put_of_many_is_all_or_nothing(shell: Shell) -> None:
    """When one of several files cannot be read, none is stored."""
    shell("init")
    shell.write("good", b"good content")
    shell("put", "good", "missing", expect=3)
    shell("get", blake3(b"good content").hexdigest(), expect=3)


def test_get_replaces_a_file_whole_and_keeps_its_mode(shell: Shell) -> None:
    """-o replaces a file in one step, keeps its mode, follows a link, and leaves no part file."""
    shell("init")
    id = shell("put", "-", stdin=b"new").text.strip()
    target = shell.write("deep/target", b"old and longer")
    target.chmod(0o751)
    (shell.folder / "way").symlink_to("deep/target")
    shell("get", id, "-o", "way")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o751
    assert (shell.folder / "way").is_symlink()
    assert os.listdir(shell.folder / "deep") == ["target"]


def test_get_writes_to_devices_and_pipes_as_they_are(shell: Shell) -> None:
    """-o to something that is no regular file writes to it and does not replace it."""
    shell("init")
    id = shell("put", "-", stdin=b"x" * 10).text.strip()
    fifo = shell.folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        shell("get", id, "-o", "fifo")
        assert os.read(reader, 100) == b"x" * 10
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_get_of_damaged_content_leaves_the_old_file(shell: Shell) -> None:
    """When the stored bytes are damaged, the file that was there stays and nothing is added."""
    shell("init")
    id = shell("put", "-", stdin=os.urandom(200_000)).text.strip()
    (pack,) = (shell.store / "packs").glob("*.pack")
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    shell.write("mine", b"before")
    done = shell("get", id, "-o", "mine", expect=5)
    assert "run `cas fsck`" in done.err
    assert (shell.folder / "mine").read_bytes() == b"before"
    assert not list(shell.folder.glob("*.part"))


def test_the_store_is_found_by_option_variable_or_upwards(shell: Shell, tmp_path: Path) -> None:
    """--store wins over CAS_STORE, which wins over the nearest .cas upwards."""
    for name in ("option", "variable"):
        shell("init", name)
    shell("init")
    for name in ("option", "variable", ".cas"):
        shell("put", "-", "--store", name, stdin=name.encode())
    (tmp_path / "a" / "b").mkdir(parents=True)
    below = Shell(tmp_path / "a" / "b")
    ids = {n: blake3(n.encode()).hexdigest() for n in ("option", "variable", ".cas")}
    variable = str(tmp_path / "variable")
    assert below("get", ids[".cas"]).out == b".cas"
    assert below("get", ids["variable"], CAS_STORE=variable).out == b"variable"
    place = str(tmp_path / "option")
    assert below("get", ids["option"], "--store", place, CAS_STORE=variable).out == b"option"
    below("get", ids[".cas"], "--store", place, expect=3)


def test_a_file_names_the_store_of_the_folders_below(shell: Shell, tmp_path: Path) -> None:
    """`.cas` may be a file that names the store, by a path from its own folder; `init` makes it."""
    (tmp_path / "project" / "a").mkdir(parents=True)
    (tmp_path / "project" / ".cas").write_text('store = "../kept/team"  # by all of us\n')
    (tmp_path / "kept").mkdir()
    project, below = Shell(tmp_path / "project"), Shell(tmp_path / "project" / "a")
    assert "cas init" in below("log", expect=3).err
    project("init")
    assert (tmp_path / "kept" / "team" / "catalog.sqlite").is_file()
    id = below("put", "-", stdin=b"one").out.decode().strip()
    assert shell("get", id, "--store", "kept/team").out == b"one"
    project.write("work/plan", b"# Plan\n")
    project("snapshot", "work")
    project("snapshot", "work")
    assert b"plan" in below("ls", "main").out


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not toml",
        b"\xff",
        b"store = 3",
        b'store = ""',
        b'store = "x"\nbucket = "y"',
        b'store = "' + b"x" * 5_000 + b'"',
    ],
)
def test_a_file_that_names_no_store_is_told(shell: Shell, text: bytes) -> None:
    """A `.cas` file of another form is refused with the form it should have, and stays as it is."""
    shell.write(".cas", text)
    for command in (["log"], ["init"]):
        assert 'store = "URL or path"' in shell(*command, expect=2).err
    assert (shell.folder / ".cas").read_bytes() == text
