"""The whole content of a large blob, read and decoded on a thread ahead of the one who takes it.

Floor 3. Invariant: what is given is the blob's bytes in order, each part proved by its id and the
lengths by the recipe, or an error ends it. Memory is bounded by a few groups of about a MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Final

from cas.errors import CorruptObject
from cas.model.ids import Kind
from cas.objects.bulk import Ahead, BulkReader, Content
from cas.objects.store import ObjectStore

_GROUPS_AHEAD: Final = 3


def contents_ahead(objects: ObjectStore, id: bytes) -> Generator[Content, None, None]:
    """A blob in parts. Close the iterator when it is not read to its end.

    Raises `ObjectNotFound`, `WrongKind`, `Corrupt`.
    """
    stream = objects.open(id)
    spans = stream.spans()
    if spans is None:
        yield stream.read()
        return
    # Lengths beside the ids that go to the reader, in the same order.
    sizes: deque[int] = deque()

    def ids() -> Iterator[bytes]:
        for chunk, _offset, size in spans:
            sizes.append(size)
            yield chunk

    done = 0
    with closing(Ahead(BulkReader(objects).read(ids()), _GROUPS_AHEAD)) as groups:
        for group in groups:
            for found in group:
                content = found.content
                if content is None or found.kind != Kind.BLOB:
                    content = stream.load(found.id)
                size = sizes.popleft()
                done += size
                if len(content) != size or done > stream.size:
                    raise _unfit(id)
                yield content
    if done != stream.size:
        raise _unfit(id)


def _unfit(id: bytes) -> CorruptObject:
    return CorruptObject(
        f"The recipe of {id.hex()} does not fit its size or its chunks; run `cas fsck`.", id=id
    )
