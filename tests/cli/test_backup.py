"""`cas backup`, `cas prove` and `cas restore-store`, as a user calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.support import Shell, tree


@pytest.fixture
def place(stocked: Shell) -> Path:
    """Where the backup goes."""
    return stocked.folder / "backup"


def test_a_backup_and_the_way_back(stocked: Shell, place: Path) -> None:
    """The lines that each command prints, and that the files are those of the original."""
    done = stocked("backup", "backup")
    assert done.lines == [f"{place} 1 @2"]
    assert "2 entries" in done.err
    done = stocked("backup", "backup")
    assert done.lines == [f"{place} 1 @2"]
    assert "nothing has changed" in done.err
    stocked.write("work/more", b"more")
    stocked("snapshot", "work")
    assert stocked("backup", "backup", "-q").lines == [f"{place} 2 @3"]
    assert stocked("restore-store", "backup", "again").lines == [str(stocked.folder / "again")]
    stocked("restore", "main", "one")
    stocked("--store", "again", "restore", "main", "two")
    assert tree(stocked.folder / "one") == tree(stocked.folder / "two")
    stocked("restore-store", "backup", "earlier", "--at", "1")
    assert stocked("--store", "earlier", "cat", "main:docs/guide.md").text.endswith("first\n")
    time = stocked("--json", "journal").document["entries"][1]["time"]
    restored = stocked("restore-store", "backup", "timely", "--at", time, "--json").document
    assert restored["seq"] == 2
    assert restored["path"] == str(stocked.folder / "timely")


def test_problems_end_with_their_codes(stocked: Shell, place: Path) -> None:
    """Each refusal has its code and exit code, and says what to do next."""
    place.mkdir()
    (place / "letter").write_text("dear")
    for words, code, exit_code in (
        (["backup", "backup"], "not-a-backup", 2),
        (["backup", ".cas/inside"], "invalid", 2),
        (["prove", "nowhere"], "backup-not-found", 3),
        (["restore-store", "nowhere", "x"], "backup-not-found", 3),
    ):
        problem = stocked("--json", *words, expect=exit_code).problem
        assert problem["code"] == code
    (place / "letter").unlink()
    stocked("backup", "backup")
    for words, code, exit_code in (
        (["restore-store", "backup", "x", "--at", "9"], "entry-not-found", 3),
        (["restore-store", "backup", "work"], "not-a-store", 2),
        (["restore-store", "backup", "x", "--at", "yesterday"], "invalid", 2),
    ):
        problem = stocked("--json", *words, expect=exit_code).problem
        assert problem["code"] == code
    stocked("--store", "other", "init", "other")
    assert stocked("--store", "other", "backup", "backup", "--json", expect=4).problem[
        "fields"
    ] == {
        "path": str(place),
        "reason": "store",
    }


def test_damage_ends_with_5_and_is_named(stocked: Shell, place: Path) -> None:
    """Damage in the store: refused, then accepted; damage in the backup: told by the proof."""
    stocked.write("work/big", os.urandom(200_000))
    stocked("snapshot", "work")
    stocked("backup", "whole")
    (pack,) = (stocked.store / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[100_000] ^= 1
    pack.write_bytes(data)
    assert "cas fsck" in stocked("backup", "backup", expect=5).err
    done = stocked("backup", "backup", "--accept-damage", expect=5)
    assert "cannot be read" in done.err
    assert f"{pack.name} has lost " in done.err
    assert "\\n" not in done.err
    document = stocked("backup", "backup", "--accept-damage", "--json", expect=5).document
    (damaged,) = document["damaged"]
    assert stocked("prove", "backup", expect=5).lines
    proof = stocked("prove", "backup", "--json", expect=5).document
    assert proof["known_damage"] == [damaged]
    assert json.loads(Path(proof["file"]).read_text())["faults"] == proof["faults"]
    stocked("restore-store", "backup", "rest", expect=5)
    stocked("restore-store", "backup", "rest", "--accept-damage", expect=5)
    assert stocked("--store", "rest", "cat", "main:run.sh").text == "#!/bin/sh\n"
    assert stocked("prove", "whole").err.count("proved") == 1


def test_backup_and_proof_in_one_go(stocked: Shell, place: Path) -> None:
    """`--prove` proves what was just backed up, and compares the packs of the store."""
    stocked.write("work/big", os.urandom(200_000))
    stocked("snapshot", "work")
    document = stocked("backup", "backup", "--prove", "--json").document
    assert document["proof"]["ok"] is True
    assert document["proof"]["compared_packs"] == 1
    assert document["proof"]["seq"] == document["seq"] == 3
    (file,) = (place / "proofs").iterdir()
    assert str(file) == document["proof"]["file"]
    stocked("backup", "backup", "--prove", "--scratch", "nowhere", expect=7)


def test_old_positions_go(stocked: Shell) -> None:
    """What would go and what stays is told, with times and reasons; nothing goes with --dry-run."""
    for at in range(3):
        stocked.write("work/more", b"%d" % at)
        stocked("snapshot", "work")
        stocked("backup", "backup")
    plan = stocked("expire", "backup", "--keep-last", "1", "--dry-run")
    assert [line.split()[:2] for line in plan.lines] == [
        ["goes", "@3"],
        ["goes", "@4"],
        ["keep", "@5"],
    ]
    assert "2 positions would go" in plan.err
    assert plan.lines[-1].endswith("last")
    done = stocked("expire", "backup", "--keep-last", "1")
    assert [line.split()[0] for line in done.lines] == ["gone", "gone", "keep"]
    assert "2 positions went" in done.err
    again = stocked("expire", "backup", "--keep-last", "1")
    assert (len(again.lines), "nothing to do" in again.err) == (1, True)
    stocked("expire", "backup", expect=2)
    stocked("expire", "nowhere", "--keep-last", "1", expect=3)
    stocked("prove", "backup")


def test_a_purge_reaches_the_backup(stocked: Shell) -> None:
    """The answer of the next backup says what went, and a restore what it left out."""
    stocked("backup", "backup")
    stocked("purge", "main:run.sh", "--reason", "leaked")
    done = stocked("backup", "backup")
    assert "purged: 1 object taken out" in done.err
    stocked("restore-store", "backup", "again", "--at", "1")
    stocked("--store", "again", "cat", "main:run.sh", expect=3)
    assert stocked("backup", "backup", "--json").document["purged"] == []
