"""What imports, restores and comparisons say about a folder: options, progress, problems.

Floor 5. Invariant: paths are relative to the folder, `str` with surrogateescape, joined by "/".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cas.model.values import frozen


@frozen
class Progress:
    """How far long work is. Totals are None while they are unknown."""

    phase: str
    file_count: int
    content_bytes: int
    file_total: int | None = None
    bytes_total: int | None = None


OnProgress = Callable[[Progress], None] | None


@frozen
class Problem:
    """A path that could not be saved or written as it is.

    `reason` is one of fifo, socket, device, unreadable, vanished, changed-while-reading, name,
    purged, link, unfinished, refused, changed (something else stands there than was expected),
    damaged (the store cannot give the content), unexplained (gone from its branch, but not removed
    there); of git also mode, submodule, ref and not-moved.
    """

    path: str
    reason: str
    message: str


@frozen
class ImportOptions:
    """How a folder is read. `gitignore` honours .gitignore files beside .casignore."""

    skip_secrets: bool = False
    gitignore: bool = False
    stat_cache: bool = True


NO_OPTIONS: Final = ImportOptions()
