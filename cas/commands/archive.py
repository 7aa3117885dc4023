"""Revisions as archives, and archives as commits.

Floor 8. Invariant: an archive depends on the directory that it holds and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from cas.commands.target import Target, resolve
from cas.errors import Invalid
from cas.history.store import Store
from cas.objects.content import Readable
from cas.worktree.exporter import Form, export_tar, export_zip
from cas.worktree.unpacker import UnpackReport, unpack_tar

FORMS: Final[dict[str, Form]] = {"tar": export_tar, "zip": export_zip}


def export_archive(
    store: Store, text: str, form: str, left_out: list[str]
) -> tuple[Target, Iterator[bytes]]:
    """What `REV[:PATH]` names as an archive, `tar` or `zip`, lazily in parts.

    Paths of files that were purged, relative to the directory, are added to `left_out`. Raises
    `Invalid` for another form and for links that no archive can hold, and what resolving a target
    raises.
    """
    if form not in FORMS:
        raise Invalid(f"An archive is one of {', '.join(FORMS)}, not {form!r}.")
    target = resolve(store.view(), text)
    return target, FORMS[form](store.objects, target.entry, target.path, left_out)


class PartsReader:
    """Parts as a stream."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""
        self.count_bytes = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._rest = part
        given, self._rest = self._rest[:size], self._rest[size:]
        self.count_bytes += len(given)
        return given


@frozen
class UnpackRequest:
    """Save an archive as the next commit of `branch`."""

    branch: str
    author: str
    message: str = ""
    trusted: bool = False


def import_archive(store: Store, stream: Readable, request: UnpackRequest) -> UnpackReport:
    """Save a tar archive. Raises as `unpack_tar` does."""
    return unpack_tar(
        store,
        stream,
        branch=request.branch,
        author=request.author,
        message=request.message,
        trusted=request.trusted,
    )
