"""Content of any size: one id however it is cut, and a stream that behaves as a file."""

from __future__ import annotations

import array
import io
import random
from collections.abc import Iterator

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import cas
from cas.errors import Closed, Corrupt, Invalid, LimitExceeded
from cas.history import core
from cas.history.store import Store
from cas.model.ids import BlobId, Kind, digest_blob
from cas.model.objects import Recipe
from cas.objects import content as module
from cas.objects.content import cut, read_exactly

WHOLE = 2000
"""Content above this becomes chunks in these tests, of 256 bytes in the mean."""

SMALL = {
    "WHOLE_BLOB_BYTES_MAX": WHOLE,
    "CHUNK_BYTES_MIN": 64,
    "CHUNK_BYTES_MEAN": 256,
    "CHUNK_BYTES_MAX": 1024,
    "RECIPE_SPANS_MAX": 5,
}


@pytest.fixture(scope="module", autouse=True)
def _small_limits() -> Iterator[None]:
    """Limits of content that a few kilobytes cross, so that recipes have three levels."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(module, name, value)
        patch.setattr(core, "WHOLE_BLOB_BYTES_MAX", WHOLE)
        yield


def made_of(seed: int, size: int) -> bytes:
    """Bytes that do not compress and repeat nothing."""
    return random.Random(seed).randbytes(size)


def top_recipe(store: Store, id: BlobId) -> Recipe:
    """The recipe of a blob that was stored in chunks."""
    copy = store.objects.find(id)
    assert copy is not None
    return Recipe.decode(store.objects.get(store.objects.payload(copy)[32:], Kind.RECIPE))


def chunks_of(store: Store, recipe: Recipe) -> list[tuple[bytes, int]]:
    """(id, size) of the chunks below a recipe, each level checked on the way."""
    assert len(recipe.ids) == 32 * len(recipe.sizes) <= 32 * 5
    found = []
    for at, size in enumerate(recipe.sizes):
        if recipe.level == 0:
            found.append((recipe.span(at), size))
        else:
            below = Recipe.decode(store.objects.get(recipe.span(at), Kind.RECIPE))
            assert (below.level, below.size) == (recipe.level - 1, size)
            found += chunks_of(store, below)
    return found


@pytest.mark.parametrize(
    "size", [0, 1, WHOLE - 1, WHOLE, WHOLE + 1, 2 * WHOLE, 5_000, 10_000, 20_000]
)
def test_content_comes_back_at_every_size(memory: Store, size: int) -> None:
    """Below, at and above each limit: the id is that of the bytes, and the bytes come back."""
    content = made_of(size, size)
    id = memory.put(content)
    assert id == blake3(content).digest()
    assert memory.get(id) == content
    assert memory.size(id) == size
    assert list(memory.get_many([id, id])) == [content, content]
    assert memory.put(io.BytesIO(content)) == id
    with memory.open(id) as stream:
        assert stream.size == size
        assert stream.read() == content
    with memory.begin() as tx:
        tx.branch("main")["file"] = content
        assert tx.branch("main")["file"] == content
        tx.commit()
    entry = memory.snapshot("main").entry("file")
    assert entry is not None
    assert (entry.size, memory.snapshot("main")["file"]) == (size, content)


@pytest.mark.parametrize(("size", "level"), [(WHOLE + 1, 0), (5_000, 1), (15_000, 2)])
def test_recipes_grow_upwards(memory: Store, size: int, level: int) -> None:
    """Recipes have as many levels as their spans need, and each states what is below it."""
    content = made_of(7, size) if level else made_of(7, WHOLE // 2) + bytes(WHOLE // 2 + 1)
    recipe = top_recipe(memory, memory.put(content))
    chunks = chunks_of(memory, recipe)
    assert recipe.level == level == (len(chunks) > 5) + (len(chunks) > 25)
    assert sum(size for _id, size in chunks) == size
    joined = b"".join(memory.get(BlobId(id)) for id, _size in chunks)
    assert joined == content
    assert all(64 <= size <= 1024 for _id, size in chunks[:-1])


def test_content_beyond_three_levels_is_refused(memory: Store) -> None:
    """What does not fit into three levels is LimitExceeded; nothing of it is named."""
    content = made_of(1, 120_000)
    with pytest.raises(LimitExceeded):
        memory.put(content)
    assert not memory.has(BlobId(digest_blob(content)))
    assert memory.get(memory.put(b"goes on")) == b"goes on"


@given(st.integers(0, 99), st.integers(WHOLE + 1, 12_000), st.data())
def test_an_edit_shares_the_chunks_it_did_not_touch(
    seed: int, size: int, draw: st.DataObject
) -> None:
    """A changed byte changes a few chunks; all before it and most behind it stay the same."""
    content = bytearray(made_of(seed, size))
    before = [digest_blob(chunk) for chunk in cut(io.BytesIO(bytes(content)))]
    assert len(before) >= 2
    at = draw.draw(st.integers(0, size - 1))
    content[at] ^= 0xFF
    after = [digest_blob(chunk) for chunk in cut(io.BytesIO(bytes(content)))]
    sizes = [len(chunk) for chunk in cut(io.BytesIO(bytes(content)))]
    assert sum(sizes) == size
    first = next(i for i, (one, two) in enumerate(zip(before, after, strict=False)) if one != two)
    assert sum(sizes[:first]) <= at
    assert sum(sizes[: first + 1]) >= at - 1024
    assert before[:first] == after[:first]


class Trickle(io.RawIOBase):
    """A stream that gives at most a few bytes at a time, as sockets do."""

    def __init__(self, content: bytes, steps: list[int]) -> None:
        super().__init__()
        self._left = memoryview(content)
        self._steps = steps or [1]
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        step = self._steps[self._at % len(self._steps)]
        self._at += 1
        part = self._left[: min(step, size)]
        self._left = self._left[len(part) :]
        return bytes(part)


@given(
    st.integers(0, 9),
    st.sampled_from([0, 1, WHOLE, WHOLE + 1, 4_567]),
    st.lists(st.integers(1, 900), max_size=4),
)
def test_pieces_of_a_stream_never_show(seed: int, size: int, steps: list[int]) -> None:
    """However little a stream gives at a time, the id and the cuts are the same."""
    content = made_of(seed, size)
    with cas.open(":memory:") as store:
        id = store.put(Trickle(content, steps))
        assert id == digest_blob(content)
        version = store.objects.lookup.refresh().version
        assert store.put(content) == id
        assert store.objects.lookup.refresh().version == version
        assert store.get(id) == content


@given(st.binary(max_size=50), st.integers(0, 60), st.lists(st.integers(1, 20), max_size=3))
def test_reading_exactly(content: bytes, size: int, steps: list[int]) -> None:
    """Up to the size asked for, in however many pieces; less only at the end."""
    assert read_exactly(Trickle(content, steps), size) == content[:size]


@pytest.mark.parametrize("fault", ["change", "drop", "double", "lose the end"])
def test_a_chunker_that_errs_is_caught(
    memory: Store, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that are not the bytes of the stream are never stored under its id."""
    right = module.cut

    def wrong(stream: module.Readable) -> Iterator[bytes]:
        chunks = list(right(stream))
        if fault == "change":
            chunks[1] = bytes([chunks[1][0] ^ 1]) + chunks[1][1:]
        elif fault == "drop":
            del chunks[1]
        elif fault == "double":
            chunks.insert(1, chunks[1])
        else:
            chunks.pop()
        return iter(chunks)

    content = made_of(4, 6_000)
    monkeypatch.setattr(module, "cut", wrong)
    with pytest.raises(Corrupt):
        memory.put(content)
    assert not memory.has(BlobId(digest_blob(content)))


@pytest.mark.parametrize("made", ["size", "order", "missing", "level"])
def test_recipes_that_do_not_fit_are_damage(memory: Store, made: str) -> None:
    """A recipe copy whose parts do not make the blob is an error, whole and in every range."""
    content = made_of(3, 9_000)
    objects = memory.objects
    chunks = [bytes(chunk) for chunk in cut(io.BytesIO(content))]
    sizes = [len(chunk) for chunk in chunks]
    ids = [digest_blob(chunk) for chunk in chunks]
    if made == "size":
        sizes[1] += 1
    elif made == "order":
        ids[0], ids[1] = ids[1], ids[0]
        sizes[0], sizes[1] = sizes[1], sizes[0]
    elif made == "missing":
        ids[2] = bytes(32)
    with objects.batch() as batch:
        for chunk in chunks:
            batch.put(Kind.BLOB, chunk)
        recipe = batch.put(
            Kind.RECIPE, Recipe(int(made == "level"), b"".join(ids), tuple(sizes)).encode()
        )
        id = BlobId(digest_blob(content))
        batch.add_recipe_copy(id, recipe, sum(sizes))
    with pytest.raises(Corrupt):
        memory.get(id)
    if made != "order":
        with memory.open(id) as stream, pytest.raises(cas.CasError):
            stream.read()
    with memory.begin() as tx, pytest.raises(cas.CasError):
        tx.get(id)


# -- the stream as a file --------------------------------------------------------------------


class BlobFile(RuleBasedStateMachine):
    """A blob read beside `io.BytesIO` of the same bytes: every call gives the same."""

    @initialize(size=st.sampled_from([0, 1, 700, WHOLE + 1, 9_999]), seed=st.integers(0, 9))
    def open(self, size: int, seed: int) -> None:
        content = made_of(seed, size)
        self.store = cas.open(":memory:")
        self.blob = self.store.open(self.store.put(content))
        self.file = io.BytesIO(content)

    @rule(size=st.one_of(st.none(), st.integers(-2, 3_000)))
    def read(self, size: int | None) -> None:
        assert self.blob.read(-1 if size is None else size) == self.file.read(size)

    @rule(offset=st.integers(-11_000, 11_000), whence=st.sampled_from([0, 1, 2, 7]))
    def seek(self, offset: int, whence: int) -> None:
        # BytesIO stops at 0 where a raw file refuses, so what is below 0 is asked here.
        base = {0: 0, 1: self.file.tell(), 2: len(self.file.getvalue())}.get(whence)
        if base is None or base + offset < 0:
            with pytest.raises(Invalid):
                self.blob.seek(offset, whence)
        else:
            assert self.blob.seek(offset, whence) == self.file.seek(offset, whence)

    @rule(size=st.integers(0, 2_000))
    def readinto(self, size: int) -> None:
        one, two = bytearray(b"\xee" * size), bytearray(b"\xee" * size)
        assert self.blob.readinto(one) == self.file.readinto(two)
        assert one == two

    @rule(size=st.none() | st.integers(-1, 600))
    def readline(self, size: int | None) -> None:
        assert self.blob.readline(size) == self.file.readline(size)

    @rule(count=st.integers(1, 5))
    def lines(self, count: int) -> None:
        for _ in range(count):
            assert next(self.blob, None) == next(self.file, None)

    @rule()
    def readall(self) -> None:
        assert self.blob.readall() == self.file.read()

    @rule(size=st.integers(1, 500))
    def through_a_buffer(self, size: int) -> None:
        buffered = io.BufferedReader(self.blob, 64)
        assert buffered.read(size) == self.file.read(size)
        buffered.detach()
        self.blob.seek(self.file.tell())

    @invariant()
    def stands_at_the_same_place(self) -> None:
        if hasattr(self, "blob"):
            assert self.blob.tell() == self.file.tell()

    def teardown(self) -> None:
        if not hasattr(self, "blob"):
            return
        assert self.blob.readable()
        assert self.blob.seekable()
        assert not self.blob.writable()
        self.blob.close()
        for use in (self.blob.read, self.blob.readline, lambda: self.blob.seek(0)):
            with pytest.raises(Closed):
                use()
        self.store.close()


TestBlobFile = BlobFile.TestCase


def test_other_buffers_are_filled_by_bytes(memory: Store) -> None:
    """`readinto` counts bytes, whatever the items of the buffer are."""
    content = made_of(5, 5_000)
    with memory.open(memory.put(content)) as stream:
        numbers = array.array("I", bytes(4_000))
        assert stream.readinto(numbers) == 4_000
        assert numbers.tobytes() == content[:4_000]


@pytest.fixture
def memory() -> Iterator[Store]:
    """A new store in memory."""
    with cas.open(":memory:") as opened:
        yield opened


def test_lines_are_found_chunk_by_chunk(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterating over lines asks for no bytes one by one, and loads each chunk once."""
    content = b"".join(b"%d %s\n" % (at, b"x" * (at % 97)) for at in range(600)) + b"the end"
    id = memory.put(content)
    chunks = chunks_of(memory, top_recipe(memory, id))
    with memory.open(id) as stream:
        assert len(chunks) > 20
        advanced = []
        real = module.BlobReader._advance
        monkeypatch.setattr(module.BlobReader, "_advance", lambda self: advanced.append(real(self)))
        monkeypatch.delattr(module.BlobReader, "read")
        monkeypatch.delattr(module.BlobReader, "readinto")
        assert list(stream) == content.splitlines(keepends=True)
        assert len(advanced) == len(chunks)
