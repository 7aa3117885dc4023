"""Objects that were purged: they are read no more, and not put again unseen.

Floor 3; implements docs/format.md section 5.9. Invariant: the set that a batch is held against
inside the gate is that of a state no older than the newest removal of an id's last copy; whoever
adds a tombstone, or lifts one, counts in `condemn_seq` in the same transaction.

Where tombstones are kept is known one floor up; it says so by `follow`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from cas.errors import CasError, WasPurged
from cas.model.ids import ObjectId
from cas.storage.pack import Footer

_NONE: frozenset[bytes] = frozenset()


class Sealed(Protocol):
    """A pack that is ready to be named."""

    @property
    def footer(self) -> Footer:
        """What lies in it."""


class Absent:
    """The tombstones of one store, as its objects see them. Any thread."""

    def __init__(self) -> None:
        self._load: Callable[[], frozenset[bytes]] | None = None
        self._tell: Callable[[bytes], CasError | None] | None = None
        # -1: nobody has asked yet. A catalog that was made anew counts from 0 again.
        self._known: tuple[int, frozenset[bytes]] = (-1, _NONE)
        self._asked = threading.local()

    def follow(
        self, load: Callable[[], frozenset[bytes]], tell: Callable[[bytes], CasError | None]
    ) -> None:
        """Ask `load` for all ids of the newest state, `tell` for the error for one that is read."""
        self._load, self._tell = load, tell

    def ids(self, condemn_seq: int) -> frozenset[bytes]:
        """Ids that were purged, as of a condemn sequence or later. Raises `Corrupt`."""
        known = self._known
        if condemn_seq == known[0] or self._load is None:
            return known[1]
        ids = self._load()
        self._known = condemn_seq, ids
        return ids

    def error(self, id: bytes) -> CasError | None:
        """What to say of an id that no copy was found of; None for one that was not purged."""
        if self._tell is None or getattr(self._asked, "now", False):
            # The refs that would tell are themselves what cannot be read.
            return None
        self._asked.now = True
        try:
            return self._tell(id)
        finally:
            self._asked.now = False

    def refuse_packs(
        self, packs: Iterable[Sealed], condemn_seq: int, allowed: Iterable[bytes]
    ) -> None:
        """`refuse` for all that lies in packs."""
        if self.ids(condemn_seq):
            for pack in packs:
                self.refuse(pack.footer.ids(), condemn_seq, allowed)

    def refuse(
        self, ids: Iterable[bytes], condemn_seq: int, allowed: Iterable[bytes]
    ) -> frozenset[bytes]:
        """Raise `WasPurged` where one of these must not come back; gives all that were purged.

        Called inside the gate.
        """
        purged = self.ids(condemn_seq)
        for id in purged.intersection(ids).difference(allowed) if purged else ():
            raise WasPurged(
                f"Content {id.hex()} was purged from this store and is not taken in again; "
                "nothing was committed. Leave it out; to have it again, `cas put --allow-purged` "
                "(`store.put(..., allow_purged=True)`) takes it in, and the journal shows it.",
                id=ObjectId(id),
            )
        return purged
