"""What callers and the world get wrong: each a typed error, and nothing is lost by it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

import cas
from cas.errors import (
    CasError,
    Invalid,
    InvalidId,
    RevisionNotFound,
    UnknownType,
)
from cas.history.store import Store
from cas.model.ids import BlobId, CommitId
from tests.unit.kit import reopened, write

# -- content ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["text", "/etc/hostname", None, 7, 1.5, [b"x"], object()])
def test_what_is_no_content_is_refused(store: Store, content: object) -> None:
    """Text, path names as `str`, and other values are Invalid, and the message says what works."""
    with store.begin() as tx, pytest.raises(Invalid, match="Path"):
        tx.branch("main").put("a", content)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="Path"):
        store.put(content)  # type: ignore[arg-type]
    assert store.objects.lookup.refresh().version == 0


def test_an_id_is_no_content(store: Store) -> None:
    """An id is bytes to Python; who writes `branch[path] = id` means what it names, and would
    have got a file of the 32 bytes of the id itself.
    """
    id = store.put(b"content")
    for put in (store.put, lambda wrong: store.put_many([wrong])):
        with pytest.raises(Invalid, match="put_entry"):
            put(id)
    with store.begin() as tx, pytest.raises(Invalid, match="put_entry"):
        tx.branch("main")["a"] = id
    assert store.get(store.put(bytes(id))) == bytes(id)


def test_streams_that_give_no_bytes(store: Store, tmp_path: Path) -> None:
    """Text files, closed streams, and streams that are not ready are Invalid."""
    file = tmp_path / "file"
    file.write_text("text")
    closed = io.BytesIO(b"x")
    closed.close()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(file) as text, open(reader, "rb", buffering=0) as unready:
        for stream in (text, io.StringIO(""), closed, unready):
            with pytest.raises(Invalid):
                store.put(stream)  # type: ignore[arg-type]
    os.close(writer)


@pytest.mark.parametrize("size", [0, 1000, 9 << 20])
def test_a_stream_that_raises_takes_nothing_along(store: Store, size: int) -> None:
    """The exception of a stream comes out as it is; the transaction goes on without the file."""

    class Broken(io.RawIOBase):
        left = size

        def read(self, want: int = -1, /) -> bytes:
            if self.left <= 0:
                raise ConnectionResetError("gone")
            part = os.urandom(min(want, self.left))
            self.left -= len(part)
            return part

    with pytest.raises(ConnectionResetError):
        store.put(Broken())
    assert store.objects.lookup.refresh().packs == {}
    with store.begin() as tx:
        edit = tx.branch("main")
        edit["kept"] = b"1"
        with pytest.raises(ConnectionResetError):
            edit.put("broken", Broken())
        tx.commit()
    assert dict(store.snapshot("main")) == {"kept": b"1"}


def test_paths_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    """Missing files, directories, and paths with a NUL are Invalid and name the path."""
    for path in (tmp_path / "absent", tmp_path, Path("a\0b")):
        with pytest.raises(Invalid):
            store.put(path)


# -- names and ids ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["\udc80", "a\0b", "", "x" * 300, "é", "ab", "main~", "0" * 64])
def test_revisions_that_name_nothing(store: Store, name: str) -> None:
    """Whatever text is asked for, the answer is a typed error."""
    write(store, "other")
    for ask in (store.resolve, store.snapshot, store.commit):
        with pytest.raises(CasError):
            ask(name)
    with pytest.raises(RevisionNotFound):
        store.resolve("absent")


@pytest.mark.parametrize("text", ["", "xyz", "abc", "g" * 64, "g" * 63, "0" * 65, "é" * 8])
def test_texts_that_are_no_ids(store: Store, text: str) -> None:
    """What is neither an id nor an abbreviation of eight digits is InvalidId."""
    for ask in (store.get, store.size, store.open, store.find):
        with pytest.raises(cas.errors.InvalidId) as caught:
            ask(text)
    assert "the first 8 are enough" in caught.value.message


@pytest.mark.parametrize("txid", [b"", b"x", bytes(15), bytes(17), bytes(1000)])
def test_transaction_ids_of_a_wrong_length(store: Store, txid: bytes) -> None:
    """A txid that cannot be one is Invalid; one that never committed is None."""
    with pytest.raises(Invalid):
        store.outcome(txid)
    assert store.outcome(bytes(16)) is None
    assert store.outcome("a key nobody used") is None


def test_events_that_no_reader_would_take(store: Store) -> None:
    """Odd events are refused before they close the journal for everybody."""
    wrong: list[tuple[object, object, object]] = [
        (5, b"", None),
        (None, b"", None),
        ("", b"", None),
        ("t", "text", None),
        ("t", 5, None),
        ("t", b"", {"n": 1}),
        ("t", b"", {1: "n"}),
        ("\udc80", b"", None),
        ("t", b"", {"k": "\udc80"}),
    ]
    with store.begin() as tx:
        for kind, body, headers in wrong:
            with pytest.raises(Invalid):
                tx.event(kind, body, headers)  # type: ignore[arg-type]
        tx.event("good", bytearray(b"x"), {"cause": "ü"})
        tx.event("long", memoryview(b"y" * 257))
        tx.commit()
    with reopened(store) as other:
        (entry,) = other.journal()
        good, long = entry.events
        assert (good.type, good.body, dict(good.headers)) == ("good", b"x", {"cause": "ü"})
        assert long.blob is not None
        assert other.get(long.blob) == b"y" * 257


def test_ids_of_absent_objects(store: Store) -> None:
    """Asking for what was never put says so, by id and in a list."""
    with pytest.raises(cas.NotFound):
        store.get(BlobId(bytes(32)))
    with pytest.raises(cas.NotFound):
        list(store.get_many([store.put(b"x"), BlobId(bytes(32))]))
    with pytest.raises(cas.NotFound):
        store.snapshot(CommitId(bytes(32)))
    assert not store.has(BlobId(bytes(32)))


def test_ids_may_be_text_wherever_one_is_taken(store: Store) -> None:
    """`has` and `get_many` take what `get` takes; what spells no id is told, and no puzzle."""
    id = store.put(b"x")
    for text in (id, str(id), id.short):
        assert store.has(text)
        assert list(store.get_many([id, text])) == [b"x", b"x"]
    assert not store.has("0" * 64)
    assert not store.has("0" * 8)
    for wrong in ("zz", b"abc", bytes(id), 5, None):
        with pytest.raises(InvalidId):
            store.has(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidId):
            list(store.get_many([id, wrong]))  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", [None, 5, "a/store"])
def test_a_handle_of_another_kind_is_told_at_once(memory: Store, wrong: object) -> None:
    """What is no store, branch, type, agent or time is named where it is given."""
    for make in (cas.Workspace, cas.Recall):
        with pytest.raises(cas.Invalid, match="open store"):
            make(wrong)  # type: ignore[arg-type]
    if not isinstance(wrong, str):
        with memory.begin() as tx, pytest.raises(cas.Invalid, match="branch is text"):
            tx.branch(wrong)  # type: ignore[arg-type]
    if not isinstance(wrong, int):
        with pytest.raises(cas.Invalid, match="number"):
            memory.at(time_us=wrong)  # type: ignore[arg-type]
    with cas.Recall(memory, embedder=None) as recall:
        with pytest.raises(UnknownType):
            recall.find(wrong)  # type: ignore[type-var,arg-type]
        if wrong == 5:
            with pytest.raises(cas.Invalid, match="agent is text"):
                recall.recall("x", agent=wrong)  # type: ignore[arg-type]
