"""`cas find`, `recall`, `links`, `forget` and `taint`, as a user types them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import cas
from tests.cli.support import Shell


@pytest.fixture
def remembering(shell: Shell) -> Shell:
    """A store in which two agents remember a few things."""
    past = datetime.now(UTC) - timedelta(days=1)
    with cas.open(shell.store, create=True) as store:
        space = cas.Workspace(store)
        with space.unit_of_work("planner") as uow:
            uow.memories.add(cas.Memory(id="ship", agent="planner", text="We ship on Tuesdays."))
            uow.memories.add(
                cas.Memory(id="port", agent="scribe", text="The port is 80.", importance=0.9)
            )
            uow.memories.add(
                cas.Memory(id="old", agent="planner", text="Lunch is free.", valid_to=past)
            )
            uow.commit()
        pin = cas.Recall(store, embedder=None).recall("port").items[0].link
        with space.unit_of_work("scribe") as uow:
            uow.memories.add(
                cas.Memory(id="open", agent="scribe", text="Open port 80.", source=pin)
            )
            uow.commit()
    return shell


def test_find_by_words_and_fields(remembering: Shell) -> None:
    """Words, conditions, orders, counts and facets give what fits, a line each."""
    assert remembering("find", "ship*").lines == ["memory:ship\tWe [ship] on Tuesdays."]
    found = remembering("find", "-w", "importance>=0.8", "--json").document
    assert [item["id"] for item in found["items"]] == ["port"]
    assert remembering("find", "--count", "-w", "agent=scribe").lines == ["2"]
    assert remembering("find", "--facet", "agent").lines == ["2\tplanner", "2\tscribe"]
    first = remembering("find", "-n", "3", "--order", "-id", "--json").document
    rest = remembering("find", "--order", "-id", "--after", first["cursor"], "--json").document
    assert [item["id"] for item in (*first["items"], *rest["items"])] == [
        "ship",
        "port",
        "open",
        "old",
    ]
    assert remembering("find", "--count", "--as-of", "1").lines == ["3"]
    assert "walk" in remembering("find", "--explain").err


def test_recall_says_what_and_why(remembering: Shell) -> None:
    """The text comes first; with --explain scores and what was left out; a receipt is kept."""
    done = remembering("recall", "when do we ship", "--explain", "--receipt")
    assert done.lines[0].startswith("[memory:ship ")
    assert any("left out: expired" in line for line in done.lines)
    assert "receipt: receipt:" in done.err
    answer = remembering("recall", "ship", "--agent", "planner", "--json").document
    assert answer["items"][0]["link"].startswith("memory:ship@")
    assert remembering("find", "--type", "receipt", "--count").lines == ["1"]


def test_links_and_what_went_stale(remembering: Shell) -> None:
    """Links are shown both ways; a pinned one is stale once its target has changed."""
    assert remembering("links", "memory:open").lines[0].startswith("memory:open source memory:port")
    assert remembering("links", "memory:port", "--to").lines != []
    assert remembering("links", "--stale").lines == []
    with cas.open(remembering.store) as store:
        space = cas.Workspace(store)
        with space.unit_of_work("scribe") as uow:
            uow.memories.save(space.memories.get("port").evolve(text="The port is 443."))
            uow.commit()
    assert "(stale)" in remembering("links", "--stale").lines[0]
    assert "(stale)" in remembering("links", "memory:open").lines[0]


def test_forget_plans_and_then_does(remembering: Shell) -> None:
    """--plan changes nothing, --yes archives in one entry, and undo takes it back."""
    plan = remembering("forget", "--plan", "--count-max", "0")
    assert [line.split()[:3] for line in plan.lines[:3]] == [
        ["archive", "expired", "old"],
        ["archive", "too-many", "open"],
        ["archive", "too-many", "ship"],
    ]
    assert [line.split() for line in plan.lines[3:]] == [
        ["keep", "linked", "by", "memory:open", "port"]
    ]
    assert remembering("find", "--count").lines == ["4"]
    done = remembering("forget", "--yes", "--json").document
    assert [f["because"] for f in done["forgotten"]] == ["expired"]
    assert remembering("find", "--count").lines == ["3"]
    assert remembering("find", "--count", "--archived").lines == ["4"]
    remembering("undo")
    assert remembering("find", "--count").lines == ["4"]
    remembering("forget", expect=2)


def test_taint_shows_and_takes_back(remembering: Shell) -> None:
    """What rests on a source is listed with the receipts that show it, and removed when told."""
    remembering("recall", "port", "--receipt")
    lines = remembering("taint", "memory:port").lines
    assert lines[:2] == ["memory:open", "memory:port"]
    assert lines[2].startswith("shown: receipt:")
    assert remembering("find", "--count").lines == ["4"]
    remembering("taint", "memory:port", "--remove")
    assert remembering("find", "--count").lines == ["2"]


@pytest.mark.parametrize(
    "words",
    [
        ["find", "-w", "agent"],
        ["find", "-w", "colour=red"],
        ["find", "-w", "importance>high"],
        ["find", "--order", "text"],
        ["find", "--after", "nonsense"],
        ["find", "-n", "0"],
        ["recall", "x", "--budget", "-1"],
        ["recall", "x", "--pin", "memory"],
        ["recall", "x", "--as-of", "someday"],
        ["links"],
        ["links", "memory"],
        ["taint"],
    ],
)
def test_bad_words_are_told(remembering: Shell, words: list[str]) -> None:
    """What cannot be asked ends with exit 2 and one line that says what could be."""
    done = remembering(*words, expect=None)
    assert done.code == 2
    assert done.err.strip()
    assert "Traceback" not in done.err


def test_every_delivered_type_can_be_found(remembering: Shell) -> None:
    """Those that no module of a command imports by itself too; another one is told with them."""
    with cas.open(remembering.store) as store, cas.Workspace(store).unit_of_work("planner") as uow:
        uow.decisions.add(cas.Decision(id="d1", title="Ship on Tuesdays"))
        uow.sprints.add(cas.Sprint(id="s1", name="One"))
        uow.commit()
    assert remembering("find", "--type", "decision").lines[0].split()[0] == "decision:d1"
    assert remembering("find", "--type", "sprint", "--count").lines == ["1"]
    done = remembering("find", "--type", "dragon", expect=2)
    assert "artifact" in done.err
    assert "sprint" in done.err


def test_a_memory_without_a_line_is_forgotten_like_any_other(shell: Shell) -> None:
    """What is shown of it is empty, and the commit is told of."""
    with (
        cas.open(shell.store, create=True) as store,
        cas.Workspace(store).unit_of_work("planner") as uow,
    ):
        uow.memories.add(cas.Memory(id="blank", agent="planner", text=" \n"))
        uow.memories.add(cas.Memory(id="none", agent="planner", text="\n"))
        uow.commit()
    assert len(shell("forget", "--older-than", "0", "--plan").lines) >= 2
    shell("forget", "--older-than", "0", "--yes")
    assert shell("find", "--count").lines == ["0"]


def test_a_recall_that_gives_nothing_says_so(remembering: Shell) -> None:
    """With what was left out, on standard error."""
    done = remembering("recall", "port", "--budget", "1")
    assert done.lines == []
    assert "nothing is recalled" in done.err
    assert "left out" in done.err
    assert "nothing is recalled" in remembering("recall", "port", "--agent", "nobody").err


@pytest.mark.parametrize("words", [["links"], ["links", "--to"], ["taint"]])
def test_a_link_to_nothing_is_told(remembering: Shell, words: list[str]) -> None:
    """A slip looks like no other empty answer: that there is nothing of the name is a note."""
    assert "there is no memory:nobody" in remembering(*words, "memory:nobody").err
    assert remembering(*words, "memory:nobody", "--json").document["there"] is False
    with cas.open(remembering.store) as store, cas.Workspace(store).unit_of_work("planner") as uow:
        uow.sprints.add(cas.Sprint(id="s1", name="One"))
        uow.artifacts.put("d/a", b"1")
        uow.commit()
    for link in ("memory:ship", "memory:old", "sprint:s1", "artifact:d/a", "dragon:x"):
        assert "there is no" not in remembering(*words, link).err
        assert remembering(*words, link, "--json").document["there"] is True


def test_a_line_says_what_it_finds(remembering: Shell) -> None:
    """Of a type without a text the name stands in the line."""
    remembering("sprint", "add", "s1", "One")
    assert remembering("find", "--type", "sprint").lines == ["sprint:s1\tOne"]


def test_the_index_stays_for_the_next_command(remembering: Shell) -> None:
    """What one command has indexed the next one finds."""
    folder = Path(remembering.store, "cache", "recall")
    assert remembering("find", "ship*").lines == ["memory:ship\tWe [ship] on Tuesdays."]
    before = {file.name: file.stat().st_ino for file in folder.iterdir() if file.suffix == ".db"}
    assert before
    assert remembering("recall", "port").lines
    after = {file.name: file.stat().st_ino for file in folder.iterdir() if file.suffix == ".db"}
    assert before.items() <= after.items()
