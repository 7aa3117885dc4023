"""What `decode` meets when somebody chose the bytes, and with them the id: never a tag followed."""

from __future__ import annotations

import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Corrupt, NotCanonical
from cas.history.store import Store
from cas.limits import ENTRY_BYTES_MAX, STRUCTURED_BYTES_MAX
from cas.model import encoding
from cas.model.encoding import decode, decode_columns, encode
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, TreeId
from cas.model.objects import Commit
from cas.objects.children import children
from tests.unit.maintenance.plant import put

PAYLOADS = (
    cbor2.dumps("(a+)+$"),
    cbor2.dumps([b"\x01" * 8, 3]),
    cbor2.dumps(1),
    cbor2.dumps(["a", "b"]),
    cbor2.dumps("2026-01-01"),
)


def heads(tag: int) -> list[bytes]:
    """Every way to write the head of a tag."""
    widths = ((24, "B"), (25, ">H"), (26, ">I"), (27, ">Q"))
    written = [bytes([0xC0 | tag])] if tag < 24 else []
    for info, width in widths:
        if tag < 1 << (8 * struct.calcsize(width)):
            written.append(bytes([0xC0 | info]) + struct.pack(width, tag))
    return written


@pytest.mark.parametrize("tag", [*range(300), 1004, 43000, 43001, 55799, (1 << 64) - 1])
def test_no_tag_is_followed(tag: int) -> None:
    """Whatever a tag would make of what it holds, trusted or not: refused, at any depth."""
    for head in heads(tag):
        for payload in PAYLOADS:
            for data in (
                head + payload,
                b"\x82\x01" + head + payload,
                b"\xa1\x61x" + head + payload,
            ):
                for verified in (False, True):
                    with pytest.raises(NotCanonical):
                        decode(data, verified=verified)
                assert decode_columns(data) is None


def test_every_decoder_of_the_library_is_covered() -> None:
    """A version of cbor2 that follows further tags on its own is noticed here."""
    followed = set()
    for tag in range(1 << 16):
        for payload in PAYLOADS:
            try:
                value = cbor2.loads(b"\xd9" + struct.pack(">H", tag) + payload)
            except (cbor2.CBORDecodeError, ValueError, TypeError):
                followed.add(tag)
                break
            if not isinstance(value, cbor2.CBORTag):
                followed.add(tag)
                break
    assert followed <= set(encoding._TAGS)


@given(st.binary(max_size=200))
def test_trusted_bytes_give_a_value_or_a_typed_error(data: bytes) -> None:
    """Any bytes whose hash is right: plain values, or `NotCanonical`; no other exception."""
    try:
        value = decode(data, verified=True)
    except NotCanonical:
        return
    open_values = [value]
    while open_values:
        item = open_values.pop()
        if isinstance(item, list | tuple):
            open_values += item
        elif isinstance(item, dict):
            open_values += [*item, *item.values()]
        else:
            known = int | float | bytes | str | None | cbor2.CBORSimpleValue
            assert isinstance(item, known) or item is cbor2.undefined, item


@pytest.mark.parametrize("depth", [18, 1_000, 200_000])
def test_trusted_bytes_cannot_nest_without_bound(depth: int) -> None:
    """Arrays in arrays end at the limit, not at the end of the stack."""
    with pytest.raises(NotCanonical):
        decode(b"\x81" * depth + b"\x00", verified=True)


TAGGED = (b"\xd8\x23" + cbor2.dumps("(a+)+$"), b"\xd8\x1c\x81\xd8\x1d\x00")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.BLOB])
@pytest.mark.parametrize("tagged", TAGGED, ids=["expression", "cycle"])
def test_an_object_with_a_tag_and_the_right_hash_is_damage(
    store: Store, kind: Kind, tagged: bytes
) -> None:
    """A structured object with a regular expression or a cycle in it gives `Corrupt`."""
    for content in (
        tagged,
        b"\x83\x00" + tagged + b"\xa0",
        b"\x86" + tagged + b"\x80\x60\x60\x00\xa0",
    ):
        id = put(store, kind, content)
        with pytest.raises(Corrupt):
            children(kind, store.objects.get(id, kind))


@pytest.mark.parametrize("tagged", TAGGED, ids=["expression", "cycle"])
def test_a_hostile_version_ends_in_a_typed_error(store: Store, tagged: bytes) -> None:
    """A commit, and the folder of one, that were made to be followed: told as damage."""
    commit = put(store, Kind.COMMIT, b"\x86" + tagged + b"\x80\x61a\x60\x00\xa0")
    with pytest.raises(Corrupt):
        store.commit(CommitId(commit))
    tree = put(store, Kind.TREE, b"\x86\x00" + tagged + b"\x40\x80\x80\xa0")
    outer = Commit(TreeId(tree), (), "a", "", 0).encode()
    snapshot = store.snapshot(CommitId(put(store, Kind.COMMIT, outer)))
    with pytest.raises(Corrupt):
        list(snapshot)


@pytest.mark.parametrize("hex", ["80", "00", "8300f6a0", "83008100a0", "830081f6a0", "f6"])
def test_a_segment_of_another_shape_is_damage(hex: str) -> None:
    """What is no journal segment is told by a typed error."""
    with pytest.raises(NotCanonical):
        children(Kind.SEGMENT, bytes.fromhex(hex))


def test_an_entry_beyond_its_limit_is_refused() -> None:
    """An entry of more than 8 MiB could not stand in a segment: no reader takes it."""
    entry = Entry(
        1, 0, 0, 0, "", "x" * ENTRY_BYTES_MAX, bytes(16), bytes(32), (), (), bytes(32), bytes(32)
    )
    data = entry.encode()
    for verified in (False, True):
        with pytest.raises(NotCanonical):
            Entry.decode(data, verified=verified)
    segment = encode([1, [data[:ENTRY_BYTES_MAX]], {}])
    assert len(segment) < STRUCTURED_BYTES_MAX
