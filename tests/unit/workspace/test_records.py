"""Records: strict both ways, canonical, and readable by every later version of their type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.clock import SystemClock
from cas.errors import Invalid, InvalidName, InvalidRecord, NewerSchema, UnknownType
from cas.limits import RECORD_BYTES_MAX, RECORD_DEPTH_MAX
from cas.model.encoding import decode, encode, text_order
from cas.model.ids import BlobId
from cas.workspace import artifacts, links, planning, registry
from cas.workspace.codec import (
    Record,
    encode_record,
    from_fields,
    from_record,
    to_fields,
    to_record,
)
from cas.workspace.links import Link, check_id, new_id
from cas.workspace.memories import Memory
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, type_named, type_of, types
from tests.unit.kit import ManualClock
from tests.unit.workspace.strategies import aggregates

DELIVERED = ["agent", "artifact", "decision", "memory", "project", "run", "sprint"]
# Importing a module is what declares its types.
DECLARING = (artifacts, planning)


@aggregate("t_ticket", collection="t_tickets", context="support", unknown="refuse")
class Ticket(Aggregate):
    """A type that a user might define."""

    title: str = part(searchable="text")
    votes: int = part(default=0, rule="counter")
    size: Mapping[str, int] = part(factory=dict, rule="map")
    any: Any = part(default=None)


def first_to_second(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has one name where version 1 had two."""
    return {"id": fields["id"], "name": f"{fields['first']} {fields['last']}"}


def second_to_third(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 3 counts."""
    return {**fields, "count": len(fields["name"])}


@aggregate(
    "t_person",
    version=3,
    collection="t_people",
    upcasters={1: first_to_second, 2: second_to_third},
)
class Person(Aggregate):
    """A type with a past."""

    name: str = part()
    count: int = part()


# What versions 1 and 2 of `t_person` once wrote, byte by byte.
GOLDEN = {
    1: "8468745f706572736f6e01a3626964626130646c617374684c6f76656c61636565666972737463416461a0",
    2: "8468745f706572736f6e02a2626964626130646e616d656c416461204c6f76656c616365a0",
    3: "8468745f706572736f6e03a3626964626130646e616d656c416461204c6f76656c61636565636f756e740ca0",
}


@pytest.mark.parametrize("name", DELIVERED)
@given(data=st.data())
def test_a_record_gives_back_the_aggregate(name: str, data: st.DataObject) -> None:
    """What was written is read, equal in every field, and equal values have equal bytes."""
    value = data.draw(aggregates(type_named(name)))
    record = to_record(value)
    again = from_record(record)
    assert again == value
    assert to_record(again) == record
    assert encode(decode(record, verified=True)) == record


class Grade(Enum):
    """Values that are no text."""

    GOOD = 1.5
    BAD = 0.1


class Level(Enum):
    """Values that are whole numbers."""

    LOW = 1
    HIGH = 300


@attrs.frozen
class Point:
    """A value inside an aggregate."""

    x: float
    name: str = ""


@aggregate("t_mixed", collection="t_mixed")
class Mixed(Aggregate):
    """Fields of every kind, so many that a map of them has a longer head."""

    grade: Grade = part(default=Grade.GOOD)
    level: Level | None = part(default=None)
    weights: tuple[float, ...] = part(default=())
    where: Mapping[str, float] = part(factory=dict)
    points: tuple[Mapping[str, bool], ...] = part(default=())
    names: tuple[tuple[str, ...], ...] = part(default=())
    sets: tuple[frozenset[str], ...] = part(default=())
    least: float | None = part(default=None)
    blobs: frozenset[BlobId] = part(default=frozenset())
    f00: int = part(default=0)
    f01: int = part(default=0)
    f02: int = part(default=0)
    f03: int = part(default=0)
    f04: int = part(default=0)
    f05: int = part(default=0)
    f06: int = part(default=0)
    f07: int = part(default=0)
    f08: int = part(default=0)
    f09: int = part(default=0)
    f10: int = part(default=0)
    f11: int = part(default=0)
    f12: int = part(default=0)
    f13: int = part(default=0)
    f14: int = part(default=0)


@aggregate("t_spot", collection="t_spots")
class Spot(Aggregate):
    """A value of its own in a field."""

    at: Point = part(factory=lambda: Point(0.5))


@pytest.mark.parametrize("name", [*DELIVERED, "t_mixed", "t_spot", "t_person"])
@given(data=st.data())
def test_a_record_has_the_bytes_of_its_fields(name: str, data: st.DataObject) -> None:
    """What is encoded by the plan of a type is what the general encoding makes of its fields."""
    type = type_named(name)
    if name == "t_spot":
        x = data.draw(st.floats(allow_nan=False, allow_infinity=False))
        value: Aggregate = Spot(id="s", at=Point(x, "p"))
    else:
        value = data.draw(aggregates(type))
    general = encode_record(Record(type.name, type.version, to_fields(value)))
    assert to_record(value) == general == encode([type.name, type.version, to_fields(value), {}])
    assert from_record(general) == value


def test_a_value_of_a_class_below_is_stored_as_ever() -> None:
    """A time of a class below `datetime`, as other libraries have, is a time; and of two zeros,
    which are equal, each keeps its own bytes.
    """

    class Stamp(datetime):
        """Somebody else's time."""

    at = Stamp(2026, 12, 1, 10, 30, tzinfo=UTC)
    plain = Memory(id="m", agent="a", text="t", at=datetime(2026, 12, 1, 10, 30, tzinfo=UTC))
    assert to_record(plain.evolve(at=at)) == to_record(plain)
    records = [to_record(plain.evolve(importance=zero)) for zero in (0.0, -0.0, 0.0, -0.0)]
    assert records[0] == records[2] != records[1] == records[3]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=300)))
def test_texts_stand_in_the_order_of_their_encodings(texts: list[str]) -> None:
    """Sorting texts by length and bytes is sorting them by what they are encoded to."""
    assert sorted(texts, key=text_order) == sorted(texts, key=encode)


def test_all_types_of_the_issue_are_delivered() -> None:
    """Project, Sprint, Agent, Artifact, Memory, Decision and Run come with the package."""
    assert {t.name for t in types()} >= set(DELIVERED)
    assert type_of(Memory).searchable["text"] == "text"
    assert type_of(Memory).rules["tags"] == "union"


@pytest.mark.parametrize("version", sorted(GOLDEN))
def test_every_older_version_is_read(version: int) -> None:
    """A record of each version of a type, kept as bytes, gives the aggregate of the newest."""
    data = bytes.fromhex(GOLDEN[version])
    assert from_record(data) == Person(id="a0", name="Ada Lovelace", count=12)


def test_a_future_version_is_refused_by_name() -> None:
    """A record of a version that this program does not know is an error that says so."""
    data = encode_record(Record("t_person", 4, {"id": "a0"}))
    with pytest.raises(NewerSchema, match=r"version 4 .* knows version 3") as caught:
        from_record(data)
    assert (caught.value.type, caught.value.version, caught.value.known) == ("t_person", 4, 3)


def test_an_upcaster_that_fails_names_the_record() -> None:
    """A record that an upcaster cannot take is an error with its id and the version."""
    data = encode_record(Record("t_person", 1, {"id": "a0"}))
    with pytest.raises(InvalidRecord, match="'a0' cannot be brought from version 1 to 2"):
        from_record(data)


@pytest.mark.parametrize(
    "given", [None, 5, [("id", "a0")], {"name": "x"}, {"id": "b", "name": "x"}]
)
def test_an_upcaster_that_gives_no_fields_of_the_record_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: object
) -> None:
    """What is no dict, or has another id, is an error of that record; search passes it by."""
    type = type_of(Person)
    with cas.open(tmp_path / "s", create=True) as store:
        with store.begin() as tx:
            data = encode_record(Record("t_person", 2, {"id": "a0", "name": "Ada"}))
            tx.branch(f"{type.context}/main")[f"{type.collection}/a0"] = data
            tx.commit()
        with cas.Workspace(store).unit_of_work("ada") as uow:
            uow.memories.note("found", id="m")
            uow.commit()
        made = evolve(type, upcasters={**type.upcasters, 2: lambda _fields: given})
        monkeypatch.setitem(registry._BY_NAME, type.name, made)
        with pytest.raises(InvalidRecord, match="'a0' cannot be brought from version 2 to 3"):
            from_record(data)
        with cas.Recall(store, embedder=None) as recall:
            assert recall.count(Person) == 0
            assert [memory.id for memory in recall.find(cas.Memory).items] == ["m"]


WRONG: list[tuple[str, Any]] = [
    ("text", 5),
    ("text", b"x"),
    ("text", "\ud800"),
    ("agent", None),
    ("tags", "abc"),
    ("tags", ["a"]),
    ("tags", frozenset({1})),
    ("importance", 1),
    ("importance", "0.5"),
    ("importance", float("nan")),
    ("importance", True),
    ("at", datetime(2026, 1, 1)),
    ("at", 7),
    ("trust", "trusted"),
    ("source", "sprint:s1"),
    ("supersedes", frozenset({"x"})),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_of_another_type_is_refused_by_field(name: str, value: Any) -> None:
    """Nothing is converted: a wrong value is an error that names its field."""
    good = Memory(id="m", agent="a", text="t")
    with pytest.raises(InvalidRecord) as caught:
        to_record(attrs.evolve(good, **{name: value}))
    assert caught.value.field == name
    assert caught.value.id == "m"


PLAIN_WRONG: list[tuple[str, Any]] = [
    ("text", 5),
    ("importance", 1),
    ("importance", 2.0),
    ("tags", ["a", "a"]),
    ("tags", "ab"),
    ("tags", {"a": 1}),
    ("at", 1.5),
    ("trust", "good"),
    ("source", ["sprint"]),
    ("source", ["sprint", "s", b"short"]),
]


@pytest.mark.parametrize(("name", "value"), PLAIN_WRONG)
def test_a_record_of_another_type_is_refused_by_field(name: str, value: Any) -> None:
    """Stored fields that are not as the type says are an error that names the field."""
    fields = {"id": "m", "agent": "a", "text": "t", name: value}
    with pytest.raises(InvalidRecord) as caught:
        from_fields(type_named("memory"), fields)
    assert caught.value.field == name


@pytest.mark.parametrize(
    "odd",
    [1 << 64, -(1 << 70), 10**400, "\ud800", [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]], {1}],
    ids=["64 bits", "less", "long", "surrogate", "deep", "set"],
)
def test_an_unknown_field_that_would_not_be_read_again_is_refused(odd: Any) -> None:
    """What a type does not know is kept only in a form that a record gives back: a record that
    nobody can read would stand in the way of its whole collection.
    """
    memory = Memory(id="m", agent="a", text="t")
    with pytest.raises(InvalidRecord, match="'old' of memory 'm'"):
        to_record(memory.evolve(unknown={"old": odd}))
    kept = memory.evolve(unknown={"old": [1, {"a": [None, -1.5, b"x"]}]})
    assert from_record(to_record(kept)) == kept


def test_a_missing_field_is_named() -> None:
    """A record without a field that has no default is an error that names it."""
    with pytest.raises(InvalidRecord, match="'text' of memory 'm' is missing"):
        from_fields(type_named("memory"), {"id": "m", "agent": "a"})


def test_unknown_fields_are_kept() -> None:
    """What a newer program wrote comes back when an older one has edited the aggregate."""
    fields = {"id": "m", "agent": "a", "text": "t", "mood": ["calm"], "zeal": 1.5}
    value = from_fields(type_named("memory"), fields)
    assert isinstance(value, Memory)
    written = decode(to_record(value.evolve(text="new")), verified=True)[2]
    assert (written["mood"], written["zeal"], written["text"]) == (["calm"], 1.5, "new")


def test_unknown_fields_are_refused_where_the_type_says_so() -> None:
    """A type with `unknown="refuse"` refuses a record with a field that it does not know."""
    with pytest.raises(InvalidRecord) as caught:
        from_fields(type_named("t_ticket"), {"id": "m", "title": "a", "extra": 1})
    assert caught.value.field == "extra"


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), st.lists))
def test_a_field_of_any_type_holds_what_json_does(value: Any) -> None:
    """A field of type Any gives back lists, maps, numbers and text as they were, or refuses."""
    ticket = Ticket(id="t", title="x", any=value)
    if depth(value) > RECORD_DEPTH_MAX:
        with pytest.raises(InvalidRecord, match="nested deeper"):
            to_record(ticket)
    else:
        assert from_record(to_record(ticket)) == ticket


def depth(value: Any) -> int:
    """Levels of lists in a value."""
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def test_a_field_of_any_type_refuses_what_no_record_holds() -> None:
    """An object in a field of type Any is an error that names the field."""
    for value in (object(), {1: 2}, [1 << 64], float("inf"), {"a": {"b": {1}}}):
        with pytest.raises(InvalidRecord) as caught:
            to_record(Ticket(id="t", title="x", any=value))
        assert caught.value.field == "any"


def test_a_record_has_a_maximum() -> None:
    """A record that is too long says that long content belongs in an artifact."""
    with pytest.raises(InvalidRecord, match="keep long content as an artifact"):
        to_record(Memory(id="m", agent="a", text="x" * (RECORD_BYTES_MAX + 1)))


def test_what_is_no_record_is_told() -> None:
    """A file of a collection that holds something else is an error, not a traceback."""
    for value in (1, [1, 2], ["memory", 0, {}, {}], ["memory", 1, [], {}]):
        with pytest.raises(InvalidRecord, match="is no record"):
            from_record(encode(value))
    with pytest.raises(UnknownType, match="knows no type 'nobody'"):
        from_record(encode_record(Record("nobody", 1, {"id": "x"})))
    with pytest.raises(InvalidRecord, match="type 'memory'"):
        from_record(to_record(Memory(id="m", agent="a", text="")), expected=type_of(Ticket))
    for data in (b"", b'{"status": "in review"}', b"\xff" * 9):
        with pytest.raises(InvalidRecord, match="not written through a workspace"):
            from_record(data)


@pytest.mark.parametrize("id", ["", "a/b", ".", "..", "a\nb", " a", "a ", "x" * 201, "\ud800"])
def test_what_is_no_id_is_refused(id: str) -> None:
    """An id that no tree could name, or that nobody could print, is refused when it is made."""
    with pytest.raises(InvalidName):
        Memory(id=id, agent="a", text="t")


def test_ids_of_artifacts_are_paths() -> None:
    """An artifact may be named by a path, whose parts follow the rules of paths."""
    assert check_id("reviews/s12.md", path=True) == "reviews/s12.md"
    for id in ("a//b", "/a", "a/", "a/../b"):
        with pytest.raises(InvalidName):
            check_id(id, path=True)


@given(st.text("aZ0_.-/ ", max_size=8), st.integers(0, 210))
def test_simple_ids_are_told_by_the_same_rules(id: str, more: int) -> None:
    """What the short look takes for an id passes every rule, whatever its length."""
    for each in (id, id + "a" * more):
        for path in (False, True):
            try:
                allowed = check_id(each, path=path) == each
            except InvalidName:
                allowed = False
            assert allowed == (not links._fault(each, path))


def test_generated_ids_sort_by_time() -> None:
    """Ids made later sort later, and all are valid."""
    clock = ManualClock()
    ids = []
    for _ in range(50):
        clock.now_us += 1_000
        ids.append(check_id(new_id(clock)))
    assert ids == sorted(set(ids))
    assert {len(id) for id in ids} == {26}
    clock.now_us = ((1 << 48) - 1) * 1000
    assert new_id(clock).startswith("7zzzzzzzzz")
    assert new_id(SystemClock()) != new_id(SystemClock())


def test_links_are_written_and_read() -> None:
    """A link is TYPE:ID in text, with @BLOB when it is pinned; anything else is refused."""
    pinned = Link("sprint", "s@1", BlobId(b"\x07" * 32))
    assert Link.parse(str(pinned)) == pinned
    assert str(Memory(id="m", agent="a", text="t").link) == "memory:m"
    for text in ("", "memory", ":x", "memory:"):
        with pytest.raises(Invalid):
            Link.parse(text)


class Even(Enum):
    """Members with values that a record gives back."""

    TEXT = "text"
    NUMBER = 1
    FLOAT = 1.5
    BYTES = b"bytes"
    NOTHING = None


class Switch(Enum):
    """Members that are numbers only to Python."""

    OTHER = "other"
    ON = True


class Corner(Enum):
    """Members that a record gives back as lists."""

    ZERO = (0, 0)


@aggregate("t_even")
class Evens(Aggregate):
    """A field of an enum."""

    even: Even = part()


@aggregate("t_switch")
class Switches(Aggregate):
    """A field of an enum with a member that would not be read."""

    switch: Switch | None = part(default=None)


@aggregate("t_corner")
class Corners(Aggregate):
    """The same with a tuple, deeper."""

    corners: tuple[Corner, ...] = part(default=())


@pytest.mark.parametrize("member", Even)
def test_a_member_of_an_enum_is_given_back(member: Even) -> None:
    """Text, numbers, bytes and nothing are values of members that a record gives back."""
    value = Evens(id="x", even=member)
    assert from_record(to_record(value)) == value


def test_an_enum_that_would_not_be_read_again_is_refused() -> None:
    """A member whose value a record does not give back is told by its field before it is stored."""
    with pytest.raises(Invalid, match=r"'switch' of type 't_switch' .* member ON is True \(bool\)"):
        to_record(Switches(id="x", switch=Switch.ON))
    with pytest.raises(Invalid, match=r"'corners' of type 't_corner' .* ZERO is \(0, 0\) \(tuple"):
        to_record(Corners(id="x", corners=(Corner.ZERO,)))


def test_a_type_that_cannot_be_is_refused() -> None:
    """Bad names, missing upcasters, clashes and fields that no record holds are told at once."""
    with pytest.raises(Invalid, match="cannot name a type"):
        aggregate("Bad Name")(type("A", (Aggregate,), {}))
    for context in ("a/b", "a b", "-x", "a..b"):
        with pytest.raises(Invalid, match="cannot"):
            aggregate("t_x", context=context)(type("A", (Aggregate,), {}))
    with pytest.raises(Invalid, match="workspace's own"):
        aggregate("t_x", collection="files")(type("A", (Aggregate,), {}))
    with pytest.raises(Invalid, match="needs one upcaster from each"):
        aggregate("t_x", version=2)(type("A", (Aggregate,), {}))
    with pytest.raises(Invalid, match="clashes with"):
        aggregate("memory")(type("A", (Aggregate,), {}))
    with pytest.raises(Invalid, match="below `Aggregate`"):
        aggregate("t_x")(type("A", (), {}))  # type: ignore[type-var]

    @aggregate("t_strange")
    class Strange(Aggregate):
        """A field of a class that no record holds."""

        thing: complex = part(default=1j)

    with pytest.raises(Invalid, match="'thing' of type 't_strange' is a <class 'complex'>"):
        to_record(Strange(id="x"))
    with pytest.raises(UnknownType):
        type_of(Aggregate)
