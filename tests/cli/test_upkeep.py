"""`cas fsck` and `cas stats`."""

from __future__ import annotations

import os

import pytest

import cas
from cas.maintenance.gc import counting, forward
from tests.cli.support import Shell


def test_fsck_of_a_sound_store_finds_nothing(stocked: Shell) -> None:
    """A sound store gives no finding, exit 0, and a note of what was read."""
    done = stocked("fsck")
    assert done.out == b""
    assert "all good" in done.err
    document = stocked("fsck", "--json").document
    assert document["ok"] is True
    assert document["findings"] == []
    assert document["entries"] == 2


def test_fsck_of_a_damaged_store_says_what_needs_it(stocked: Shell) -> None:
    """A damaged object is a finding that names the path which needs it, and the exit code is 5."""
    content = os.urandom(200_000)
    stocked.write("work/data/big", content)
    stocked("snapshot", "work")
    (pack,) = (stocked.store / "packs").glob("*.pack")
    stored = bytearray(pack.read_bytes())
    stored[stored.index(content[:64]) + 1000] ^= 1
    pack.write_bytes(stored)
    done = stocked("fsck", expect=5)
    assert done.lines[0].startswith("loss object-lost ")
    assert "    needed by main:data/big" in done.lines
    document = stocked("fsck", "--json", expect=5).document
    assert document["ok"] is False
    (finding,) = document["findings"]
    assert (finding["severity"], finding["code"]) == ("loss", "object-lost")
    assert finding["affected"] == ["main:data/big"]


def test_fsck_of_a_missing_pack_is_exit_5(stocked: Shell) -> None:
    """A pack file that is gone is found."""
    stocked.write("work/big", os.urandom(200_000))
    stocked("snapshot", "work")
    (pack,) = (stocked.store / "packs").glob("*.pack")
    pack.unlink()
    assert "pack-missing" in stocked("fsck", expect=5).text


def test_fsck_with_only_notices_is_exit_0(stocked: Shell) -> None:
    """A left-over temporary file is told and is no damage."""
    (stocked.store / "packs" / "0123456789abcdef.tmp").write_bytes(b"half a pack")
    done = stocked("fsck")
    assert done.lines[0].startswith("notice file-temporary ")


def test_repair_of_a_lost_catalog_asks_before_it_leaves_anything_out(shell: Shell) -> None:
    """Packs with commits that no journal in packs names: exit 5 and nothing done, until said."""
    shell("init")
    shell.write("work/big", os.urandom(9 << 20))
    shell("snapshot", "work")
    head = shell("log", "--json").document["commits"][0]["commit"]
    for path in shell.store.glob("catalog.sqlite*"):
        path.unlink()
    assert "--keep-loose" in shell("repair", expect=5).err
    assert shell("repair", "--json", expect=5).problem["code"] == "cannot-repair"
    assert head in shell("repair", "--dry-run", expect=5).text
    shell("repair", "--keep-loose", "--drop-loose", expect=2)
    shell("repair", "--drop-loose")
    assert "come back" in shell("repair", "--rebuild", "--keep-loose").text
    shell("branch", "main", head)
    shell("restore", "main", "back")


def test_fsck_changes_nothing(stocked: Shell) -> None:
    """A check leaves the journal as it is."""
    with cas.open(stocked.store, read_only=True) as store:
        before = store.view().seq
    stocked("fsck")
    with cas.open(stocked.store, read_only=True) as store:
        assert store.view().seq == before


def test_stats_tell_what_a_store_holds(stocked: Shell) -> None:
    """stats counts objects by kind, packs, refs and entries, and the bytes on the disk."""
    stocked("tag", "v1")
    document = stocked("stats", "--json").document
    contents = {
        path.read_bytes()
        for path in (stocked.folder / "work").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    contents |= {b"# Guide\n\nfirst\n", b"old\n", b"docs/guide.md"}
    assert document["objects"]["blob"]["count"] == len(contents)
    assert document["objects"]["blob"]["size"] == sum(map(len, contents))
    assert document["objects"]["commit"]["count"] == 2
    assert (document["entries"], document["branches"], document["tags"]) == (3, 1, 1)
    files = (p for p in stocked.store.rglob("*") if p.is_file())
    assert sum(document["disk"].values()) == sum(p.stat().st_size for p in files)
    lines = stocked("stats").lines
    assert lines[1].split()[:2] == ["blob", str(len(contents))]
    assert any(line.startswith("journal  3 entries, 20") for line in lines)


def test_stats_of_an_empty_store(shell: Shell) -> None:
    """A store without anything in it has numbers too."""
    shell("init")
    document = shell("stats", "--json").document
    assert document["objects"] == {}
    assert (document["entries"], document["oldest"]) == (0, None)
    assert shell("stats").code == 0


def test_gc_says_how_it_found_out(stocked: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all objects were looked at and why stands in the report, and what counts of
    references were wrong about.
    """
    assert stocked("gc", "--json").document["mark"] == "full"
    assert stocked("gc", "--json").document["mark"] == "nothing"
    assert stocked("gc").err.count("looked at") == 0
    monkeypatch.setattr(counting, "GC_COUNT_SLOTS_MIN", 0)
    done = stocked("gc", "--full")
    assert "looked at all objects: references were not counted yet" in done.err
    assert "looked at all objects: asked for" in stocked("gc", "--full").err
    monkeypatch.setattr(forward.Forward, "_raise", lambda *_words: None)
    monkeypatch.setattr(forward, "GC_COUNT_NEW_MAX", 2.0)
    stocked.write("work/more.txt", b"more\n")
    stocked("snapshot", "work", "-m", "third")
    found = stocked("gc", "--full", "--json").document
    assert (found["mark"], found["mark_reason"]) == ("full", "asked for")
    assert "would have taken" in found["mark_finding"]
    stocked.write("work/more.txt", b"again\n")
    stocked("snapshot", "work", "-m", "fourth")
    assert "warning: Counts of references would have taken" in stocked("gc", "--full").err
    assert stocked("fsck").code == 0
