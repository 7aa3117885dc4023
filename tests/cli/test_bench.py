"""`cas bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.commands import bench
from cas.errors import Invalid
from tests.cli.support import Shell


def test_bench_tells_figures_and_leaves_nothing(stocked: Shell) -> None:
    """bench measures beside the store, which stays as it is, and removes what it made."""
    before = sorted(stocked.store.parent.iterdir())
    journal = stocked("journal").out
    document = stocked("bench", "--seconds", "1", "--json").document
    assert sorted(stocked.store.parent.iterdir()) == before
    assert stocked("journal").out == journal
    assert Path(document["folder"]) == stocked.store.parent
    names = [figure["name"] for figure in document["figures"]]
    assert len(set(names)) == len(names)
    for wanted in ("sync of 4 KiB", "small commits, one thread", "small commits, 8 threads"):
        assert any(name.startswith(wanted) for name in names)
    for wanted in ("put_many", "get,", "get_many", "put of 4 MiB", "snapshot of 100", "restore"):
        assert any(name.startswith(wanted) for name in names)
    for figure in document["figures"]:
        assert figure["value"] > 0
        assert figure["count"] > 0
        assert figure["unit"] in ("s", "/s", "B/s", "files/s")


def test_a_short_bench_does_less_of_each(tmp_path: Path) -> None:
    """However slow the machine is, no step does more than its share asks for, and figures say of
    what they are: where each call takes longer than the whole time, each is made as few times as
    a figure needs.
    """

    class Slow(SystemClock):
        passed_ms = 0

        def monotonic_ms(self) -> int:
            self.passed_ms += 2_000
            return self.passed_ms

    def counts(seconds: float) -> dict[str, int]:
        opened = partial(cas.open, create=True)
        report = bench.measure(str(tmp_path), opened, Slow(), seconds)
        return {figure.name: figure.count for figure in report.figures}

    short, long = counts(1), counts(bench.FULL_SECONDS)
    assert len(short) == len(long)
    assert short["small commits, one thread"] == bench.QUICK.rounds
    assert sum(short.values()) * 4 < sum(long.values())
    assert {"put of 4 MiB", "snapshot of 100 files"} <= short.keys()
    assert {"put of 32 MiB", "snapshot of 1,000 files"} <= long.keys()


def test_bench_needs_no_store_when_told_where(shell: Shell, tmp_path: Path) -> None:
    """--at names the folder; one that is not there is told, and so is a time that is none."""
    place = tmp_path / "place"
    place.mkdir()
    done = shell("bench", "--at", str(place), "--seconds", "1")
    assert len(done.lines) == 14
    assert list(place.iterdir()) == []
    shell("bench", "--at", str(tmp_path / "nowhere"), "--seconds", "1", expect=3)
    shell("bench", "--at", str(place), "--seconds", "0", expect=2)


def test_bench_removes_its_folder_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle leaves no folder behind."""

    def fail(*_: object) -> None:
        raise Invalid("no")

    monkeypatch.setattr(bench, "_large", fail)
    with pytest.raises(Invalid):
        bench.measure(str(tmp_path), partial(cas.open, create=True), SystemClock(), 1)
    assert list(tmp_path.iterdir()) == []
