"""Put files as objects, and get objects back.

Floor 8. Invariant: what `put_files` returns is durable, all of it or nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import BinaryIO

from cas.errors import Invalid, NotAllowed, NotFound, StorageFailed, WasPurged
from cas.history.store import Store
from cas.model.ids import BlobId, ObjectId
from cas.model.names import printable
from cas.model.values import frozen
from cas.objects.content import BlobReader


@frozen
class Stored:
    """A file that is an object now. `name` is what the caller named."""

    name: str
    id: BlobId
    size_bytes: int


def put_files(
    store: Store,
    names: Sequence[str],
    standard_input: BinaryIO,
    *,
    purged_by: str | None = None,
) -> list[Stored]:
    """Store the files of these names (`-` is `standard_input`), durable together.

    With `purged_by`, an author, what was purged is taken in again: an entry of the journal a file.
    Raises `NotFound`, `NotAllowed`, `Invalid` for a file that cannot be read; then nothing was
    stored.
    """
    stored: list[Stored] = []
    if purged_by is not None:
        for name in names:
            with nullcontext(standard_input) if name == "-" else open_file(name) as file:
                stream = Counted(file)
                id = store.put_purged(stream, author=purged_by)
            stored.append(Stored(name, id, stream.count_bytes))
        return stored
    try:
        with store.batch() as batch:
            for name in names:
                with nullcontext(standard_input) if name == "-" else open_file(name) as file:
                    stream = Counted(file)
                    id = batch.put(stream)
                stored.append(Stored(name, id, stream.count_bytes))
    except WasPurged as error:
        raise name_purged(error, {bytes(each.id): each.name for each in stored}) from error
    return stored


def name_purged(error: WasPurged, names: Mapping[bytes, str]) -> WasPurged:
    """The same refusal, of the file that is meant. `names`: of what was to be stored, by id."""
    name = names.get(bytes(error.fields["id"]))
    if name is None:
        return error
    shown = "Standard input" if name == "-" else printable(name)
    return WasPurged(
        f"{shown} has content that was purged, {error.fields['id'].hex()}, and that is not taken "
        "in again; nothing was stored. Leave it out; to have it again, `cas put --allow-purged` "
        "takes it in, and the journal shows it.",
        id=error.fields["id"],
        path=name,
    )


class Counted:
    """A stream that knows how much was read from it, and whose errors are typed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count_bytes = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes. Raises `StorageFailed`."""
        try:
            part = self._stream.read(size)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise Invalid("Standard input is closed; name a file.") from error
            raise StorageFailed(
                f"Reading failed: {error.strerror}.", path=None, errno=error.errno
            ) from error
        self.count_bytes += len(part)
        return part


def open_file(name: str) -> BinaryIO:
    """A file to read. Raises `NotFound`, `NotAllowed`, `Invalid`, `StorageFailed`."""
    shown = printable(name)
    try:
        return open(name, "rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"There is no file {shown}.", path=name) from error
    except PermissionError as error:
        raise NotAllowed(f"{shown} may not be read by this user.", path=name) from error
    except IsADirectoryError as error:
        raise Invalid(
            f"{shown} is a folder; save it with `cas snapshot {shown}`.", path=name
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno is None:
            raise Invalid(f"{shown!r} cannot be a file name.", path=name) from error
        raise StorageFailed(
            f"{shown} cannot be read: {os.strerror(error.errno)}.", path=name, errno=error.errno
        ) from error


def open_object(store: Store, text: str) -> tuple[ObjectId, BlobReader]:
    """The blob that an id, or 8 digits or more of it, names. Raises as `Store.open` does."""
    id = store.find(text)
    return id, store.open(id)
