"""Commits, tags, recipes and journal entries: bytes and values are two sides of one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CasError, Invalid, LimitExceeded, NotCanonical
from cas.model.encoding import decode, encode
from cas.model.entry import (
    Entry,
    Event,
    RefChange,
    entry_hash,
    generate_txid,
    genesis_hash,
    txid_floor,
    txid_from_key,
)
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digest_of
from cas.model.objects import Commit, Recipe, Tag

IDS = st.binary(min_size=32, max_size=32)
TIMES = st.integers(0, (1 << 64) - 1)
TEXTS = st.text(max_size=30)
EXTRAS = st.dictionaries(
    st.text(max_size=5), st.integers(0, 99) | st.binary(max_size=5) | st.none(), max_size=3
)
COMMITS = st.builds(
    Commit,
    IDS.map(TreeId),
    st.lists(IDS.map(CommitId), max_size=64).map(tuple),
    TEXTS,
    TEXTS,
    TIMES,
    EXTRAS,
)
TAGS = st.builds(
    Tag,
    IDS.map(ObjectId),
    st.sampled_from([Kind.BLOB, Kind.TREE, Kind.COMMIT, Kind.TAG]),
    TEXTS,
    TEXTS,
    TIMES,
    EXTRAS,
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes of any level."""
    sizes = draw(st.lists(st.integers(1, (1 << 64) - 1), min_size=1, max_size=20))
    ids = b"".join(draw(IDS) for _ in sizes)
    return Recipe(draw(st.integers(0, 2)), ids, tuple(sizes), draw(EXTRAS))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Journal entries with ref changes and events."""
    changes = []
    for ref in sorted(draw(st.sets(TEXTS.filter(bool), max_size=5)), key=str.encode):
        new = draw(st.none() | IDS.map(ObjectId))
        old = draw(IDS.map(ObjectId) if new is None else st.none() | IDS.map(ObjectId))
        if old != new:
            kind = 0 if new is None else draw(st.sampled_from([3, 4]))
            changes.append(RefChange(ref, kind, old, new))
    events = draw(
        st.lists(
            st.builds(Event, TEXTS, st.binary(max_size=9), st.dictionaries(TEXTS, TEXTS))
            | st.builds(Event, TEXTS, st.none(), st.dictionaries(TEXTS, TEXTS), IDS.map(ObjectId)),
            max_size=4,
        )
    )
    return Entry(
        draw(st.integers(1, (1 << 64) - 1)),
        draw(TIMES),
        draw(TIMES),
        draw(TIMES),
        draw(TEXTS),
        draw(TEXTS),
        draw(st.binary(min_size=16, max_size=16)),
        draw(IDS),
        tuple(changes),
        tuple(events),
        draw(IDS),
        draw(IDS),
        draw(EXTRAS),
    )


VALUES: st.SearchStrategy[Any] = COMMITS | TAGS | recipes() | entries()


@given(VALUES)
def test_values_round_trip(value: Any) -> None:
    """Decoding what was encoded gives an equal value, trusted or not, and the same bytes."""
    data = value.encode()
    for verified in (False, True):
        again = type(value).decode(data, verified=verified)
        assert again == value
        assert again.encode() == data


@given(VALUES, st.data())
def test_changed_bytes_are_refused_or_another_value(value: Any, draw: st.DataObject) -> None:
    """Damaged bytes never decode to a value that does not encode to them."""
    data = bytearray(value.encode())
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data))) :]
    try:
        again = type(value).decode(bytes(data))
    except NotCanonical:
        return
    assert again.encode() == data


@given(VALUES, st.integers(0, 12), st.sampled_from([None, -1, 1 << 64, "", b"", [], {}, True, [0]]))
def test_a_wrong_field_is_refused(value: Any, position: int, wrong: Any) -> None:
    """A field of another type, or out of range, is refused by name or is the value itself."""
    fields = decode(value.encode())
    position %= len(fields)
    fields[position] = wrong
    try:
        data = encode(fields)
        again = type(value).decode(data)
    except (NotCanonical, Invalid):
        return
    assert again.encode() == data


@given(VALUES)
def test_more_or_fewer_fields_are_refused(value: Any) -> None:
    """The number of fields is fixed; so is the outermost type."""
    fields = decode(value.encode())
    for wrong in ([*fields, 0], fields[:-1], [], {"fields": fields}, 7, None):
        with pytest.raises(NotCanonical):
            type(value).decode(encode(wrong))


@given(COMMITS, COMMITS)
def test_equal_commits_and_no_others_share_an_id(one: Commit, two: Commit) -> None:
    """The id of a commit is the hash of its bytes, bound to its kind."""
    assert (one.id == two.id) == (one == two)
    assert one.id == digest_of(Kind.COMMIT, one.encode())


COMMIT = Commit(TreeId(bytes(32)), (), "a", "m", 1)
TAG = Tag(ObjectId(bytes(32)), Kind.COMMIT, "t", "m", 1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: attrs.evolve(COMMIT, author="x" * 1025), LimitExceeded),
        (lambda: attrs.evolve(COMMIT, author="é" * 513), LimitExceeded),
        (lambda: attrs.evolve(COMMIT, message="x" * 65537), LimitExceeded),
        (lambda: attrs.evolve(COMMIT, author="\ud800"), Invalid),
        (lambda: attrs.evolve(COMMIT, author=b"x"), Invalid),
        (lambda: attrs.evolve(COMMIT, parents=(CommitId(bytes(32)),) * 65), LimitExceeded),
        (lambda: attrs.evolve(COMMIT, time_us=-1), Invalid),
        (lambda: attrs.evolve(COMMIT, time_us=1 << 64), Invalid),
        (lambda: attrs.evolve(COMMIT, time_us=1.5), Invalid),
        (lambda: attrs.evolve(COMMIT, extras={"x": 1.5}), Invalid),
        (lambda: attrs.evolve(COMMIT, extras={1: 2}), Invalid),
        (lambda: attrs.evolve(TAG, tagger="x" * 1025), LimitExceeded),
        (lambda: attrs.evolve(TAG, message="x" * 65537), LimitExceeded),
        (lambda: attrs.evolve(TAG, target_kind=Kind.RECIPE), Invalid),
        (lambda: attrs.evolve(TAG, target_kind=Kind.SEGMENT), Invalid),
        (lambda: attrs.evolve(TAG, time_us=-1), Invalid),
        (lambda: attrs.evolve(TAG, extras={"x": [{2: 3}]}), Invalid),
    ],
)
def test_what_a_decoder_would_refuse_is_not_encoded(
    make: Callable[[], Commit | Tag], error: type[CasError]
) -> None:
    """Values beyond a limit, or that no reader would take, cannot be stored."""
    with pytest.raises(error):
        make().encode()


@given(entries(), entries())
def test_the_hash_of_an_entry_covers_all_of_it(one: Entry, two: Entry) -> None:
    """Entries that differ anywhere have different hashes."""
    assert (entry_hash(one.encode()) == entry_hash(two.encode())) == (one == two)


def test_changes_of_an_entry_are_checked() -> None:
    """Refs out of order or twice, changes that change nothing, and odd kinds are refused."""
    id = bytes(range(32))
    good: list[Any] = ["heads/b", 3, None, id]
    base = Entry(1, 1, 0, 1, "", "", bytes(16), bytes(32), (), (), bytes(32), bytes(32))
    fields = decode(base.encode())
    for changes in (
        [good, good],
        [good, ["heads/a", 3, None, id]],
        [["heads/a", 3, id, id]],
        [["heads/a", 0, None, None]],
        [["heads/a", 0, None, id]],
        [["heads/a", 3, id, None]],
        [["heads/a", 1, None, id]],
        [["heads/a", 3, None, id[:31]]],
        [["heads/a", 3, None]],
        [[b"heads/a", 3, None, id]],
        ["heads/a"],
    ):
        fields[8] = changes
        with pytest.raises(NotCanonical):
            Entry.decode(encode(fields))
    fields[8] = [good]
    assert Entry.decode(encode(fields)).target("heads/b") == id


def test_events_of_an_entry_are_checked() -> None:
    """Types, headers and bodies of another form are refused."""
    base = Entry(1, 1, 0, 1, "", "", bytes(16), bytes(32), (), (), bytes(32), bytes(32))
    fields = decode(base.encode())
    for event in (
        ["t", {}, 0],
        ["t", {}, 2, b""],
        ["t", {}, 1, b"short"],
        ["t", {}, 0, "text"],
        ["t", {"k": 1}, 0, b""],
        [7, {}, 0, b""],
        ["t", [], 0, b""],
    ):
        fields[9] = [event]
        with pytest.raises(NotCanonical):
            Entry.decode(encode(fields))


@given(st.text(max_size=50), st.integers(0, (1 << 63) - 1), st.binary(min_size=8, max_size=8))
def test_transaction_ids_tell_where_they_come_from(key: str, seq: int, noise: bytes) -> None:
    """A generated id states the head its maker saw; that of a key is fixed and states none."""
    made = generate_txid(seq, noise)
    assert len(made) == 16
    assert txid_floor(made) == seq
    keyed = txid_from_key(key)
    assert keyed == txid_from_key(key)
    assert len(keyed) == 16
    assert txid_floor(keyed) is None
    assert keyed != made


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_each_store_has_a_genesis_of_its_own(one: bytes, two: bytes) -> None:
    """The hash before the first entry derives from the store's id."""
    assert (genesis_hash(one) == genesis_hash(two)) == (one == two)
