"""What the catalog's files take, and giving back what they need not take.

Floor 2; implements docs/format.md section 9. Invariant: to the engine it is a checkpoint, so that
the catalog says the same before and after; nobody is waited for inside the gate, where only what
came during the copying is left to copy.

The log is as long as it has ever been between two checkpoints that no reader stood in the way of:
the engine uses it again and does not shorten it. Free pages are used again as well. A log that was
cut has one commit, which changes nothing, and no page as it was before.
"""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

from cas.catalog.connections import Connections
from cas.catalog.engine import translate
from cas.model.values import frozen


@frozen
class Weight:
    """Bytes of the catalog's file, those of its free pages, and those of its log."""

    file_bytes: int
    free_bytes: int
    log_bytes: int


@runtime_checkable
class Trims(Protocol):
    """A catalog in files that can be made shorter. A port of its own: others have none."""

    def weigh(self) -> Weight:
        """What its files take."""

    def trim(self) -> bool:
        """Cut the log; False while a reader of an older state needs it."""


def weigh(connections: Connections) -> Weight:
    """What the files take. Raises what a read raises."""
    connection = connections.take()
    try:
        page_bytes = int(str(connection.pragma("page_size")))
        pages, free = (int(str(connection.pragma(n))) for n in ("page_count", "freelist_count"))
    except Exception as error:
        connections.discard(connection)
        translate(error, connections.path)
    connections.give(connection)
    try:
        log_bytes = os.path.getsize(connections.path + "-wal")
    except OSError:
        log_bytes = 0
    return Weight(page_bytes * pages, page_bytes * free, log_bytes)


def trim(connections: Connections) -> bool:
    """Copy the log into the file beside writers, then cut it inside the gate. Raises `Closed` also
    where the catalog is another file by now, and what a commit raises.
    """
    if not connections.gate.marks().doubt:
        connection = connections.take()
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except Exception as error:
            connections.discard(connection)
            translate(error, connections.path)
        connections.give(connection)
    with connections.alone():
        return cut(connections)


def cut(connections: Connections) -> bool:
    """Inside the gate: cut the log, unless a reader needs it, for whom nobody waits."""
    try:
        return connections.cut_log(connections.writer())
    except Exception as error:
        connections.drop_writer()
        translate(error, connections.path)
