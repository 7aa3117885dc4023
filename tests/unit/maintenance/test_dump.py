"""The dump tool prints every structure, and goes on behind what is damaged."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.golden.store import HERE
from tests.golden.vectors import example

_PATH = HERE.parents[1] / "tools" / "dump.py"
_spec = importlib.util.spec_from_file_location("cas_dump", _PATH)
assert _spec is not None
assert _spec.loader is not None
dump = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dump)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """The pack of the worked example as a file."""
    file = tmp_path / "example.pack"
    file.write_bytes(example()["pack"])
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The golden store."""
    shutil.copytree(HERE / "store-1", tmp_path / "store")
    return tmp_path / "store"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and output of the tool."""
    code = dump.main([str(word) for word in words])
    return code, capsys.readouterr().out


def test_a_pack_is_printed_whole(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Header, each record with its id, each slot and the edge of a pack are printed."""
    code, out = run(capsys, pack)
    assert code == 0
    for name in ("blob", "recipe", "leaf", "commit"):
        assert out.count(example()[f"{name}.id"].hex()) >= 2
    assert example()["store-id"].hex() in out
    assert "needs recipe " + example()["recipe.id"].hex() in out
    assert "DAMAGED" not in out


@pytest.mark.parametrize(
    ("at", "expected"),
    [(20, "header"), (90, "no record"), (110, "the footer says that this is"), (-20, "footer")],
)
def test_damage_is_told_and_the_rest_is_printed(
    pack: Path, at: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped byte in header, record, payload or trailer hides nothing else."""
    data = bytearray(pack.read_bytes())
    data[at] ^= 1
    pack.write_bytes(data)
    _code, out = run(capsys, pack)
    assert "DAMAGED" in out
    assert out.count("record @") >= 5
    assert out.count("slot ") >= 6
    assert expected in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "checkpoint at 6"),
        (("journal",), "event 'long'"),
        (("journal", "7"), "message 'big'"),
        (("pack", "16"), "slot 0:"),
        (("pack", "15"), "inline pack 15"),
        (("pack", "99"), "there is no pack 99"),
        (("nonsense",), "nothing to print"),
    ],
)
def test_a_store_is_printed(
    folder: Path, words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catalog, journal, and packs of both forms are printed from a store."""
    code, out = run(capsys, folder, *words)
    assert code == 0
    assert expected in out


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("node", "inner", "inner node of level 1, 5 entries, 100 at or below it"),
        ("node", "leaf", "greeting.txt"),
        ("refs", "refs", "heads/main"),
        ("commit", "commit", "author 'ada'"),
        ("tag", "tag", "tagger 'ada'"),
        ("recipe", "recipe", "level 0, 2 spans, 12 bytes"),
        ("entry", "entry", "from a key"),
        ("blob", "blob", "hello world"),
    ],
)
def test_bytes_of_one_object_are_printed(
    tmp_path: Path, kind: str, name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that holds one node, commit, tag, recipe or entry is printed in words."""
    file = tmp_path / "object"
    file.write_bytes(example()[name])
    code, out = run(capsys, file, "--as", kind)
    assert code == 0
    assert expected in out
    file.write_bytes(example()[name] + b"\0")
    code, out = run(capsys, file, "--as", kind)
    assert (code == 1) == (kind != "blob")


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A place that is no store gives exit code 2."""
    assert dump.main([str(tmp_path / "none")]) == 2
