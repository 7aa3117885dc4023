"""Group commit: threads of one handle that want to commit at once do it in one transaction.

Floor 3; implements docs/format.md section 7.2. Invariant: members are installed one after the
other, each against the state that the member before has left; one that is refused has written
nothing and costs the others nothing; what the engine says of the whole, every member is told.

The first to come leads: it enters the gate, installs itself and all that have queued up behind
it meanwhile, commits, and hands the lead on once that is durable. So the others sleep instead of
waking at every call of the leader that lets go of the interpreter's lock, and all that come while
it commits and syncs share the next transaction; one thread alone pays for two locks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from typing import Any, Final

from cas.catalog.catalog import Catalog, CatalogWriter
from cas.clock import PROCESS
from cas.errors import CasError, ForkedStore, OutcomeUnknown, StorageFailed
from cas.interrupts import deferred, wait_for

GROUP_MAX: Final = 64
"""Members of one transaction: it stays at the gate well under 50 ms."""


class Group:
    """What the members of one transaction hand on, from each to the next."""

    __slots__ = ("batches", "bound", "carried", "closed")

    def __init__(self) -> None:
        self.batches: list[Any] = []
        """What the members before have written: only from there can it be read as yet."""
        self.carried: Any = None
        """State that the next member starts from; None: that of the catalog."""
        self.closed = False
        """Set by a member behind which no other may come in this transaction."""
        self.bound = False
        """Set by a member that took what it had made ready apart, for the state it was given: it
        cannot be installed again when that state is rolled back.
        """


class _Member:
    __slots__ = ("alone", "bound", "done", "error", "finish", "install", "leads", "result", "wake")

    def __init__(
        self,
        install: Callable[[CatalogWriter, Group], Any],
        finish: Callable[[Any, int], None],
        alone: bool,
    ) -> None:
        self.install = install
        self.finish = finish
        self.alone = alone
        self.result: Any = None
        self.error: BaseException | None = None
        self.leads = False
        self.bound = False
        self.done = False
        self.wake: threading.Lock | None = None


class Committer:
    """The queue in front of the gate, for all threads of one handle."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._pid = PROCESS.id
        self._lock = threading.Lock()
        self._queue: deque[_Member] = deque()
        self._led = False

    def run(
        self,
        install: Callable[[CatalogWriter, Group], Any],
        finish: Callable[[Any, int], None],
        *,
        alone: bool = False,
    ) -> Any:
        """What `install` gives, once it is durable.

        `alone`: it reads what only the catalog tells, so that nobody may be installed before it in
        the same transaction.

        `install` runs inside the write transaction, perhaps in another thread, and writes
        nothing if it raises; what it raises is raised here. `finish` gets its result when the
        transaction has committed, and the last one the catalog's mark, the others 0: the mark
        names the state behind all of them, which no earlier one has reached. They run in the
        order of the members and must not raise. Raises what `Catalog.write` raises.
        """
        if self._pid != PROCESS.id:
            # Its locks may be held for ever by threads that only the parent has.
            raise ForkedStore(
                "This handle belongs to the parent process; open the store again in the child."
            )
        member = _Member(install, finish, alone)
        if self._catalog.is_distant:
            # Its waits are for a server, perhaps for long.
            return self._run(member)
        with deferred():
            return self._run(member)

    def _run(self, member: _Member) -> Any:
        with self._lock:
            if self._led:
                member.wake = threading.Lock()
                member.wake.acquire()
                self._queue.append(member)
            else:
                self._led = member.leads = True
        if not member.leads:
            self._wait(member)
        if member.leads:
            while not self._try(member):
                pass
        if member.error is not None:
            # What others have committed may stand in it, and is not shown before it is durable.
            with suppress(CasError):
                self._catalog.harden()
            raise member.error
        return member.result

    def _wait(self, member: _Member) -> None:
        """Sleep until done, or until it is this one's turn to lead."""
        wake = member.wake
        assert wake is not None
        try:
            wait_for(wake.acquire)
        except BaseException:
            with self._lock:
                if member in self._queue:
                    self._queue.remove(member)
                    raise
            # Somebody has taken it already, or left the lead to it: that is seen through.
            if not (member.leads or member.done):
                wake.acquire()
            if member.leads:
                self._hand_on()
            raise

    def _try(self, own: _Member) -> bool:
        """One transaction; False when it ended because of another member than `own`."""
        group: list[_Member] = [own]
        installed = again = False
        try:
            with self._catalog.write() as writer:
                self._install(own, writer, group)
                installed = True
        except BaseException as error:
            if installed:
                self._tell(group, own, error)
                raise
            culprit = group[-1]
            others = culprit is not own and isinstance(error, Exception)
            if others:
                culprit.error = _told(error)
            self._put_back(group, own, error)
            again = others and not own.bound
            if not again:
                raise
        finally:
            # Not before COMMIT, though the next one could make itself ready during the sync: most
            # transactions then had one member, and no sync was spared (docs/design/011).
            if not again:
                self._hand_on()
        if again:
            return False
        done = [member for member in group if member.error is None]
        try:
            for member in done:
                member.finish(member.result, writer.mark if member is done[-1] else 0)
        finally:
            self._wake(group)
        return True

    def _install(self, own: _Member, writer: CatalogWriter, members: list[_Member]) -> None:
        """Install `own` and those who queue, in order; one that raises is only refused itself."""
        group = Group()
        members.clear()
        member: _Member | None = own
        while member is not None:
            members.append(member)
            group.bound = False
            try:
                member.result = member.install(writer, group)
            except CasError as error:
                # Refused. What the engine itself says is of the transaction, and ends it.
                member.error = error
            finally:
                member.bound = group.bound
            member = None
            if self._queue and not group.closed and len(members) < GROUP_MAX:
                with self._lock:
                    if self._queue and not self._queue[0].alone:
                        member = self._queue.popleft()

    def _hand_on(self) -> None:
        """The next in the queue leads the next transaction."""
        with self._lock:
            if not self._queue:
                self._led = False
                return
            following = self._queue.popleft()
            following.leads = True
        assert following.wake is not None
        following.wake.release()

    def _put_back(self, group: list[_Member], own: _Member, error: BaseException) -> None:
        """Nothing was committed, and it was not their doing: the others come first next time, but
        for those that are bound, who are told.
        """
        for member in group:
            if member is not own and member.error is None and member.bound:
                member.error = _told(error)
        others = [member for member in group if member is not own and member.error is None]
        with self._lock:
            self._queue.extendleft(reversed(others))
        self._wake([member for member in group if member.error is not None])

    def _tell(self, group: list[_Member], own: _Member, error: BaseException) -> None:
        """The transaction as a whole has failed: each member is told, and asks for itself."""
        for member in group:
            if member is not own and member.error is None:
                member.error = _told(error)
        self._wake([member for member in group if member is not own])

    @staticmethod
    def _wake(group: list[_Member]) -> None:
        for member in group:
            member.done = True
            if member.wake is not None and member.wake.locked():
                member.wake.release()


def _told(error: BaseException) -> Exception:
    """What other members are told of an error that ended the transaction of all."""
    if isinstance(error, Exception):
        return _again(error)
    return OutcomeUnknown(
        "The thread that committed for others was interrupted; ask again with the transaction id.",
        txid=None,
    )


def _again(error: Exception) -> Exception:
    """The same error for another thread: one instance must not be raised in two."""
    try:
        found = copy(error)
    except Exception:  # an error that cannot be copied is shared rather than lost
        return error
    found.__cause__ = error
    return found


def not_committed(error: OutcomeUnknown) -> CasError:
    """The error to raise once a lost answer has turned out to be no."""
    cause = error.__cause__
    if isinstance(cause, CasError):
        return cause
    return StorageFailed(
        f"The commit failed and nothing was committed: {cause or error}", path="", errno=None
    )
