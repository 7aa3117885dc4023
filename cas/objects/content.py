"""Content of any size: cut into chunks on the way in, put together on the way out.

Floor 3; implements docs/format.md sections 5.4 and 6.2 (codec recipe). Invariant: the id of
content is the hash of its bytes; where it was cut never shows. Memory stays bounded: one chunk
and one recipe a level are held, whatever the size.

Cuts are content-defined (FastCDC 2020, Xia et al., IEEE TPDS 31(9)), so that a later version
shares the chunks it did not change.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from blake3 import blake3

from cas.errors import Closed, CorruptObject, Invalid, LimitExceeded
from cas.limits import (
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MEAN,
    CHUNK_BYTES_MIN,
    RECIPE_LEVEL_MAX,
    RECIPE_SPANS_MAX,
    WHOLE_BLOB_BYTES_MAX,
    WHOLE_READ_BYTES_MAX,
)
from cas.model.ids import Kind, blob_hasher, digest_of
from cas.model.objects import Recipe

Load = Callable[[bytes, Kind], bytes]
"""Verified content of an object of a kind."""

_READ_BYTES: Final = 1 << 20


class Readable(Protocol):
    """Anything with a `read` that gives bytes, and b"" at the end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class Sink(Protocol):
    """Where chunks and recipes go: a batch."""

    def add(self, id: bytes, kind: int, content: bytes) -> bool:
        """Stage an object; whether it had to be written."""

    def rely(self, id: bytes) -> None:
        """Note an object that exists and is named."""

    def holds(self, id: bytes) -> bool:
        """Whether the object is staged here."""

    def add_recipe_copy(self, id: bytes, recipe: bytes, size_bytes: int) -> None:
        """Stage a copy of a blob that a recipe rebuilds."""


def put_stream(stream: Readable, sink: Sink, exists: Callable[[bytes], bool]) -> tuple[bytes, int]:
    """Stage everything `stream` gives; (blob id, bytes). Raises `Invalid` when it is no stream.

    Content of up to 8 MiB is one blob; what is longer becomes chunks and a recipe.
    """
    head = read_exactly(stream, WHOLE_BLOB_BYTES_MAX + 1)
    if len(head) <= WHOLE_BLOB_BYTES_MAX:
        id = digest_of(Kind.BLOB, head)
        sink.add(id, Kind.BLOB, head)
        return id, len(head)
    hasher = blob_hasher()
    recipes = _RecipeWriter(sink)
    size_bytes = 0
    source = _Chained(head, stream, hasher)
    del head  # else 8 MiB are held to the end
    for chunk in cut(source):
        source.check(chunk)
        id = digest_of(Kind.BLOB, chunk)
        sink.add(id, Kind.BLOB, chunk)
        recipes.add(id, len(chunk))
        size_bytes += len(chunk)
    source.check_end()
    id = hasher.digest()
    if sink.holds(id):
        return id, size_bytes
    if exists(id):
        sink.rely(id)
        return id, size_bytes
    sink.add_recipe_copy(id, recipes.finish(), size_bytes)
    return id, size_bytes


def cut(stream: Readable) -> Iterator[bytes]:
    """Chunks of a stream, at least two for anything longer than a chunk may be."""
    from pyfastcdc import FastCDC

    chunker = FastCDC(avg_size=CHUNK_BYTES_MEAN, min_size=CHUNK_BYTES_MIN, max_size=CHUNK_BYTES_MAX)
    for chunk in chunker.cut_stream(stream):
        yield bytes(chunk.data)


def read_exactly(stream: Readable, size_bytes: int) -> bytes:
    """`size_bytes` of a stream, or all it has; a raw stream may give less at a time."""
    parts: list[bytes] = []
    missing = size_bytes
    while missing > 0:
        part = stream.read(min(missing, _READ_BYTES))
        if not isinstance(part, bytes | bytearray | memoryview):
            raise Invalid(
                f"A stream must give bytes, not {type(part).__name__}; open the file in "
                "binary mode."
            )
        if not part:
            break
        if len(part) > missing:
            raise Invalid(
                f"A stream gave {len(part)} bytes when {missing} were asked for; its read(size) "
                "must not give more than size."
            )
        parts.append(bytes(part))
        missing -= len(part)
    return b"".join(parts)


class _Chained:
    """What was read ahead, then the rest; every byte passes the hasher once.

    What was given and did not come back as chunks yet is kept, and compared when it comes: the
    blob's id is that of the stream, so the chunks must be the stream (a comparison costs less
    than a tenth of the cutting).
    """

    def __init__(self, head: bytes, stream: Readable, hasher: blake3) -> None:
        self._head = memoryview(head)
        self._stream = stream
        self._hasher = hasher
        self._given: deque[bytes] = deque()
        self._at = 0

    def read(self, size: int, /) -> bytes:
        if self._head:
            part, self._head = bytes(self._head[:size]), self._head[size:]
            if not self._head:
                self._head = memoryview(b"")  # an empty slice holds all of it
        else:
            part = read_exactly(self._stream, size)
        self._hasher.update(part)
        if part:
            self._given.append(part)
        return part

    def check(self, chunk: bytes) -> None:
        """Raise `CorruptObject` unless this is what was given next."""
        done = 0
        while done < len(chunk):
            if not self._given:
                raise _miscut()
            part = self._given[0]
            count = min(len(part) - self._at, len(chunk) - done)
            piece = chunk if count == len(chunk) else chunk[done : done + count]
            if not part.startswith(piece, self._at):
                raise _miscut()
            done += count
            self._at += count
            if self._at == len(part):
                self._given.popleft()
                self._at = 0

    def check_end(self) -> None:
        """Raise `CorruptObject` unless all that was given came back."""
        if self._given:
            raise _miscut()


def _miscut() -> CorruptObject:
    return CorruptObject(
        "Content was cut into chunks that are not its bytes; nothing of it was stored. "
        "Check this host's memory, and the installation of pyfastcdc."
    )


class _RecipeWriter:
    """Recipes bottom up: a full one becomes a span of the level above."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._levels: list[tuple[list[bytes], list[int]]] = [([], [])]

    def add(self, id: bytes, size_bytes: int, level: int = 0) -> None:
        if level > RECIPE_LEVEL_MAX:
            raise LimitExceeded(
                "The content is too large for three levels of recipes.",
                limit="RECIPE_LEVEL_MAX",
                value=level,
                maximum=RECIPE_LEVEL_MAX,
            )
        if level == len(self._levels):
            self._levels.append(([], []))
        ids, sizes = self._levels[level]
        if len(ids) == RECIPE_SPANS_MAX:
            self._flush(level)
            ids, sizes = self._levels[level]
        ids.append(id)
        sizes.append(size_bytes)

    def _flush(self, level: int) -> None:
        ids, sizes = self._levels[level]
        self._levels[level] = ([], [])
        self.add(self._store(level, ids, sizes), sum(sizes), level + 1)

    def _store(self, level: int, ids: list[bytes], sizes: list[int]) -> bytes:
        data = Recipe(level, b"".join(ids), tuple(sizes)).encode()
        id = digest_of(Kind.RECIPE, data)
        self._sink.add(id, Kind.RECIPE, data)
        return id

    def finish(self) -> bytes:
        """Id of the one recipe on top."""
        level = 0
        while level + 1 < len(self._levels):
            if self._levels[level][0]:
                self._flush(level)
            level += 1
        return self._store(level, *self._levels[level])


# -- reading ---------------------------------------------------------------------------------


def walk_recipe(recipe: bytes, load: Load, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """(chunk id, offset, size) of the chunks from the one that holds byte `start`, in order."""
    top = Recipe.decode(load(recipe, Kind.RECIPE), verified=True)
    pending = [(top, 0, 0)]
    while pending:
        value, index, offset = pending.pop()
        sizes = value.sizes
        while index < len(sizes) and offset + sizes[index] <= start:
            offset += sizes[index]
            index += 1
        if index == len(sizes):
            continue
        id, size = value.span(index), sizes[index]
        pending.append((value, index + 1, offset + size))
        if value.level == 0:
            yield id, offset, size
            continue
        below = Recipe.decode(load(id, Kind.RECIPE), verified=True)
        if below.level != value.level - 1 or below.size != size:
            raise CorruptObject(
                f"Recipe {id.hex()} does not fit the one above it; run `cas fsck`.", id=id
            )
        pending.append((below, 0, offset))


def read_spans(
    recipe: bytes, size_bytes: int, load: Load, start: int = 0
) -> Iterator[tuple[int, bytes]]:
    """(offset, content) of the chunks from byte `start` on, each verified.

    Raises `CorruptObject` where sizes do not add up to `size_bytes`, before a chunk too many.
    """
    end = start
    for chunk, offset, size in walk_recipe(recipe, load, start):
        if offset + size > size_bytes:
            end = offset + size
            break
        content = load(chunk, Kind.BLOB)
        if len(content) != size:
            raise CorruptObject(
                f"Recipe {recipe.hex()} states a wrong size; run `cas fsck`.", id=recipe
            )
        end = offset + size
        yield offset, content
    if end < size_bytes or (start < size_bytes and end != size_bytes):
        raise CorruptObject(
            f"Recipe {recipe.hex()} gives {end} bytes, not {size_bytes}; run `cas fsck`.",
            id=recipe,
        )


def check_whole(size_bytes: int) -> None:
    """Refuse content too large to be had in one piece. Raises `LimitExceeded`."""
    if size_bytes > WHOLE_READ_BYTES_MAX:
        raise LimitExceeded(
            f"{size_bytes:,} bytes are more than are read into memory at once; read them in "
            "pieces with `open`, or with `cas get -o FILE`.",
            limit="WHOLE_READ_BYTES_MAX",
            value=size_bytes,
            maximum=WHOLE_READ_BYTES_MAX,
        )


class BlobReader(io.RawIOBase):
    """A blob as a readable, seekable stream. One chunk is held at a time. One thread."""

    def __init__(self, size_bytes: int, recipe: bytes | None, content: bytes, load: Load) -> None:
        super().__init__()
        self._size = size_bytes
        self._recipe = recipe
        self._load = load
        self._position = 0
        self._start = 0
        self._chunk = content
        self._spans: Iterator[tuple[int, bytes]] | None = None
        self._next = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._size

    def spans(self) -> Iterator[tuple[bytes, int, int]] | None:
        """(chunk id, offset, size) of its chunks in order; None for what lies in one piece."""
        return None if self._recipe is None else walk_recipe(self._recipe, self._load)

    def load(self, chunk: bytes) -> bytes:
        """Verified content of one of its chunks, alone."""
        return self._load(chunk, Kind.BLOB)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if self.closed:
            raise Closed("This blob stream is closed.")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise Invalid(f"A blob cannot be read from {offset} (whence {whence}).")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        # The items of a buffer need not be bytes; what is counted is.
        view = memoryview(buffer).cast("B")
        part = self.read(len(view))
        view[: len(part)] = part
        return len(part)

    def read(self, size: int = -1, /) -> bytes:
        if self.closed:
            raise Closed("This blob stream is closed.")
        if size is None or size < 0:
            check_whole(self._size - self._position)
            end = self._size
        else:
            end = min(self._size, self._position + size)
        parts: list[bytes] = []
        while self._position < end:
            if not self._start <= self._position < self._start + len(self._chunk):
                self._advance()
            at = self._position - self._start
            part = self._chunk[at : at + end - self._position]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Up to and with the next line feed, at most `size` bytes; not byte by byte as above."""
        if self.closed:
            raise Closed("This blob stream is closed.")
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        parts: list[bytes] = []
        while self._position < end:
            if not self._start <= self._position < self._start + len(self._chunk):
                self._advance()
            at = self._position - self._start
            stop = min(at + end - self._position, len(self._chunk))
            found = self._chunk.find(b"\n", at, stop)
            part = self._chunk[at : stop if found < 0 else found + 1]
            parts.append(part)
            self._position += len(part)
            if found >= 0:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _advance(self) -> None:
        """Hold the chunk at the position; going on in order walks the recipe only once."""
        assert self._recipe is not None
        if self._spans is None or self._position != self._next:
            self._spans = read_spans(self._recipe, self._size, self._load, self._position)
        found = next(self._spans, None)
        if found is None:
            raise CorruptObject(
                f"Recipe {self._recipe.hex()} ends too early; run `cas fsck`.", id=self._recipe
            )
        self._start, self._chunk = found
        self._next = self._start + len(self._chunk)
