"""Writing a catalog file anew, so that nothing is left in it of what was deleted.

Floor 2; implements docs/format.md section 5.9. Invariant: the rewriting is inside the gate; to the
engine it is a commit like any other, whole or not at all, and what the catalog says is the same
before and after. What it wrote is copied from the log into the file beside writers, and the log
cut in another stay at the gate.

SQLite leaves what it deletes in free pages, and inside pages, until something else is written
there; and the log keeps every page as it was. VACUUM builds the file from what is live, and
cutting the log behind it leaves nothing older.
"""

from __future__ import annotations

from cas.catalog.connections import Connections
from cas.catalog.engine import translate
from cas.catalog.trim import trim


def scrub(connections: Connections, *, rewrite: bool) -> bool:
    """Rewrite the file, unless that was done before, and cut the log.

    False while somebody still reads an older state, for whom the log has to stay: try again with
    `rewrite=False`. Raises what a commit raises.
    """
    if rewrite:
        _rewrite(connections)
    return trim(connections)


def _rewrite(connections: Connections) -> None:
    gate = connections.gate
    with connections.alone():
        connection = connections.writer()
        try:
            # The copy that VACUUM makes is as large as the file.
            connection.execute("PRAGMA temp_store=FILE")
            gate.before_commit()
            connection.execute("VACUUM")
            gate.after_commit()
            connection.execute("PRAGMA temp_store=MEMORY")
        except Exception as error:
            connections.drop_writer()
            translate(error, connections.path)
