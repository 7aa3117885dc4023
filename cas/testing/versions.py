"""Puts of contents with their later versions as deltas, for workloads and the state machine.

Invariant: what is put is visible together, as after any batch; whether something became a delta
shows nowhere but in size.
"""

from __future__ import annotations

from collections.abc import Sequence

from cas.history.store import Store
from cas.model.ids import BlobId, Kind, digest_blob
from cas.objects.pipeline import Submitted


def versions_of(content: bytes, count: int) -> list[bytes]:
    """A content and later versions of it, each a few bytes longer."""
    made = [content]
    for number in range(1, count):
        at = len(content) * number // count
        made.append(made[-1][:at] + b"<%d>" % number + made[-1][at:])
    return made


def put_on(store: Store, base: bytes, contents: Sequence[bytes]) -> list[BlobId]:
    """Put distinct contents into one pack file, each as a delta of `base` where that serves.

    `base` counts only if it is installed. What the store has already is written once more: a
    second copy of an object is nothing that a reader may notice.
    """
    ids = [BlobId(digest_blob(content)) for content in contents]
    with store.objects.batch() as batch:
        for content, id in zip(contents, ids, strict=True):
            batch.hint(id, digest_blob(base))
            batch.rewrite([Submitted(id, Kind.BLOB, content, None, len(content))])
    return ids
