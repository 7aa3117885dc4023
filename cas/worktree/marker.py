"""The marker of a checked-out folder: a small file that says which checkout of which store it is.

Floor 5. Invariant: a marker only ever names; what it names is looked up in the store, and a
folder without one is no checkout, so that one that was emptied, unmounted or made anew is never
taken for a folder in which everything was deleted.
"""

from __future__ import annotations

import json
import os
from typing import Final

from attrs import frozen

from cas.worktree.files import OPEN_FILE
from cas.worktree.names import MARKER, unfinished

_BYTES_MAX: Final = 4096
_FORMAT: Final = 1


@frozen
class Marker:
    """Which checkout a folder says it is: `id` of the checkout, `store` that it belongs to."""

    id: str
    store: str


def read_marker(folder: bytes) -> Marker | None:
    """The marker of a folder, or None where there is none, or none that can be read."""
    try:
        fd = os.open(os.path.join(folder, MARKER), OPEN_FILE)
    except OSError:
        return None
    try:
        found = json.loads(os.read(fd, _BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        return None
    id, store = found.get("checkout"), found.get("store")
    return Marker(id, store) if isinstance(id, str) and isinstance(store, str) else None


def write_marker(folder: bytes, marker: Marker, token: bytes) -> None:
    """Put a marker into a folder, in the place of any other; `token`: random bytes.

    Raises `OSError`.
    """
    said = {
        "format": _FORMAT,
        "about": "A working folder of a cas store; `cas workspace status` tells how it stands.",
        "checkout": marker.id,
        "store": marker.store,
    }
    temporary = os.path.join(folder, unfinished(token))
    with open(temporary, "xb") as file:
        file.write(json.dumps(said, indent=1).encode() + b"\n")
    os.rename(temporary, os.path.join(folder, MARKER))


def remove_marker(folder: bytes) -> None:
    """Take the marker out of a folder, if there is one. Raises `OSError`."""
    try:
        os.unlink(os.path.join(folder, MARKER))
    except (FileNotFoundError, NotADirectoryError):
        return
