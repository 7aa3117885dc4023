"""What clashes when a branch moved: told to whoever staged there, who may settle it.

Floor 4. Invariant: every path that others changed, and that this transaction has read, written or
watches, is told once before anything is published; what is not settled is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cas.model.names import Path
from cas.model.objects import TreeEntry
from cas.model.values import frozen


@frozen
class Clash:
    """A path that others changed: `old` as this transaction saw it, `new` as they left it.

    `written`, `read` and `watched` say what this transaction has to do with it.
    """

    path: Path
    old: TreeEntry | None
    new: TreeEntry | None
    written: bool
    read: bool
    watched: bool


Settle = Callable[[Sequence[Clash]], None]
"""Stages anew what clashes, or raises: then nothing is committed. It may run inside the gate."""
