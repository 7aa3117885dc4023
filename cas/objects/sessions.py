"""Sessions: the word of a writer that pack files are being made which no row names yet.

Floor 3; implements docs/format.md section 7.1 (session). Invariant: the row can be seen before
the first file is there. It need not be durable: a power failure that takes it back ends the
writer too, and what that leaves is leftovers. A server fails without its writers: there it is.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from cas.catalog.catalog import SessionRow
from cas.errors import OutcomeUnknown
from cas.objects.committer import not_committed
from cas.objects.parts import Parts


def begin_session(parts: Parts, condemn_seq: int) -> tuple[SessionRow, Callable[[], None]]:
    """The row of a new session of a writer that relies on what it saw at `condemn_seq`, and what
    lets go of it: a session that nobody holds is taken for dead.
    """
    session = SessionRow(
        parts.clock.random(16),
        int.from_bytes(parts.clock.random(6), "big"),
        condemn_seq,
        0,
        parts.clock.wall_us(),
    )
    # Before the row is there.
    release = parts.catalog.hold(session.fence)
    try:
        with parts.catalog.write(durable=parts.catalog.is_distant) as writer:
            writer.put_session(evolve(session, base_seq=writer.head().seq))
    except OutcomeUnknown as error:
        # Whether the row is there or not: nobody will use this session.
        release()
        raise not_committed(error) from error
    except BaseException:
        release()
        raise
    return session, release
