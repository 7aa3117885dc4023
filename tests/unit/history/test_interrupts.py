"""Ctrl-C beside other threads: wherever it comes, who commits next commits."""

from __future__ import annotations

import dis
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import pytest

import cas
from cas.clock import SystemClock
from cas.history.store import Store
from cas.interrupts import STATE, deferred, wait_for
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.testing.stores import SMALL, build, create
from tests.unit.kit import write

ROOMS = ("cas/objects/committer.py", "cas/catalog/", "cas/interrupts.py")
"""Where locks are taken and given back."""

TABLES = ("cas/objects/lookup.py", "cas/objects/places.py", "cas/history/timeline.py")
"""Where what others have committed is taken in."""


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C raises here, also where the tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Injector:
    """Runs the handler of SIGINT in the main thread where Python may: at the beginning of a
    function, and behind a call. Once, at the point of this number.
    """

    def __init__(self, at: int, rooms: tuple[str, ...] = ROOMS) -> None:
        self.at = at
        self.count = 0
        self._rooms = rooms
        self._calls: dict[CodeType, frozenset[int]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not any(room in code.co_filename for room in self._rooms):
            return None
        calls = self._calls.get(code)
        if calls is None:
            calls = self._calls[code] = frozenset(
                one.offset for one in dis.get_instructions(code) if one.opname.startswith("CALL")
            )
        frame.f_trace_opcodes = True
        self._point(frame)
        return self._following(calls)

    def _following(self, calls: frozenset[int]) -> Callable[[FrameType, str, Any], Any]:
        last = -1

        # Of each frame one of its own: a table of frames would keep all of them, and cursors.
        def follow(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "opcode":
                if last in calls:
                    self._point(frame)
                last = frame.f_lasti
            return follow

        return follow

    def _point(self, frame: FrameType) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, frame)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def commits(store: Store, branch: str) -> bool:
    """Whether another thread can commit."""
    ends: list[Any] = []

    def work() -> None:
        ends.append(write(store, branch, {"f": os.urandom(9)}))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    return bool(ends)


def assert_whole(store: Store) -> None:
    """Nothing is damaged or lost; a file of a spill that was interrupted may be left."""
    bad = (Severity.LOSS, Severity.DAMAGE)
    assert not [each for each in fsck(store).findings if each.severity in bad]


def _commit(store: Store, _other: Store) -> None:
    write(store, "main", {"f": os.urandom(9)})


def _read(store: Store, other: Store) -> None:
    """What another handle has committed is made durable before it is shown."""
    with other.objects.catalog.write(durable=False) as writer:
        writer.set_cursor("x", time.monotonic_ns())
    store.objects.catalog.harden()


def _block(store: Store, _other: Store) -> None:
    with suppress(ZeroDivisionError), store.objects.catalog.write() as writer:
        writer.set_cursor("x", time.monotonic_ns())
        raise ZeroDivisionError


def _trim(store: Store, _other: Store) -> None:
    store.objects.catalog.trim()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("what", [_commit, _read, _block, _trim])
def test_an_interrupt_anywhere_stops_nobody(tmp_path: Path, what: Callable[..., None]) -> None:
    """At each point at which Python may run a handler, one that raises leaves no lock behind."""
    # Not closed where this fails: that would wait for ever too.
    store = cas.open(tmp_path / "store", create=True)
    other = cas.open(store.location)
    write(store, "main", {"f": b"0"})
    what(store, other)
    # Caches and code are warm by now: the points are the same each time.
    injector = Injector(-1)
    with injector.at_work():
        what(store, other)
    assert injector.count > 20
    raised = 0
    for at in range(injector.count):
        with suppress(KeyboardInterrupt), Injector(at).at_work():
            raised += 1
            what(store, other)
            raised -= 1
        assert commits(store, "beside"), f"nobody commits behind point {at}"
        assert commits(other, "other"), f"no other handle commits behind point {at}"
        assert (STATE.depth, STATE.open, STATE.taken, STATE.came) == (0, False, None, [])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert raised > injector.count // 2
    assert_whole(store)
    other.close()
    store.close()


@pytest.mark.slow
def test_an_interrupt_of_taking_in_what_came_takes_nothing_in_twice(tmp_path: Path) -> None:
    """Wherever it comes, the next look finds all of it, and a spill takes it out again."""
    with (
        cas.open(tmp_path / "store", create=True) as store,
        cas.open(tmp_path / "store") as other,
    ):

        def look(injector: Injector) -> bytes:
            content = os.urandom(9)
            for _ in range(2):
                write(other, "main", {"f": content})
            with injector.at_work():
                store.objects.lookup.refresh()
                store.view()
            return content

        look(Injector(-1))
        look(injector := Injector(-1, TABLES))
        for at in range(injector.count):
            with suppress(KeyboardInterrupt):
                look(Injector(at, TABLES))
            content = look(Injector(-1))
            assert store.snapshot("main")["f"] == content
            other.spill()
            store.objects.lookup.refresh()
            assert store.snapshot("main")["f"] == content
        assert injector.count > 20


@pytest.mark.slow
def test_an_interrupted_spill_can_go_on(tmp_path: Path) -> None:
    """Wherever it comes behind a commit, the lock of the handle's spills is free again."""
    create(str(tmp_path / "store"), clock=SystemClock())
    # Not closed where this fails: that would wait for the lock.
    store = build(str(tmp_path / "store"), clock=SystemClock(), thresholds=SMALL)

    def spill(injector: Injector) -> None:
        for _ in range(SMALL.spill_packs):
            write(store, "main", {"f": os.urandom(9)})
        with injector.at_work():
            store._after_write()

    rooms = ("cas/history/store.py", "cas/interrupts.py")
    spill(Injector(-1))
    spill(injector := Injector(-1, rooms))
    assert injector.count > 5
    for at in range(injector.count + 5):
        with suppress(KeyboardInterrupt):
            spill(Injector(at, rooms))
        assert not store._spill_lock.locked()
    assert_whole(store)
    store.close()


@pytest.mark.slow
def test_hundreds_of_interrupts_beside_threads_stop_nobody(store: Store, rng: Random) -> None:
    """Real signals to a main thread that commits in one group with others, and looks: all go on,
    and what was acknowledged stands.
    """
    write(store, "main", {"f": b"0"})
    until = threading.Event()
    done = [0] * 4
    acknowledged: list[int] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        while not until.is_set():
            try:
                acknowledged.append(write(store, f"b{number}", {"f": os.urandom(9)}).seq)
                done[number] += 1
            except cas.OutcomeUnknown:
                continue
            except BaseException as error:
                errors.append(error)
                return

    def interrupt() -> None:
        for delay_s in delays_s:
            wanted.acquire()
            time.sleep(delay_s)
            os.kill(os.getpid(), signal.SIGINT)
            sent.set()

    sent = threading.Event()
    delays_s = [rng.random() * 0.003 for _ in range(400)]
    wanted = threading.Semaphore(0)
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(done))]
    threads.append(threading.Thread(target=interrupt, daemon=True))
    for thread in threads:
        thread.start()
    for _ in delays_s:
        # One at a time, so that none comes where this test itself is not ready for it.
        with suppress(KeyboardInterrupt):
            sent.clear()
            wanted.release()
            more = 20
            # Python swallows one that is raised while an object is given up.
            while more:
                acknowledged.append(write(store, "main", {"f": os.urandom(9)}).seq)
                store.view()
                more -= sent.is_set()
    until.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a committer waits for ever"
    assert not errors
    assert all(done)
    assert commits(store, "later")
    seqs = [entry.seq for entry in store.journal()]
    assert set(acknowledged) <= set(seqs)
    assert_whole(store)


def test_what_comes_in_a_block_is_handled_behind_it() -> None:
    """A handler runs behind the outermost block, the handler of before is there again, and a
    thread that is not the main one defers nothing.
    """
    seen: list[str] = []
    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
    mine = signal.getsignal(signal.SIGALRM)
    try:
        with deferred():
            with deferred():
                signal.raise_signal(signal.SIGALRM)
                seen.append("inner")
            seen.append("outer")
        assert seen == ["inner", "outer", "alarm"]
        assert signal.getsignal(signal.SIGALRM) is mine
        with pytest.raises(KeyboardInterrupt), deferred():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            seen.append("on")
        assert seen[-1] == "on"

        def aside() -> None:
            with deferred():
                seen.append("open" if STATE.depth == 0 else "shut")

        thread = threading.Thread(target=aside)
        thread.start()
        thread.join()
        assert seen[-1] == "open"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_wait_is_interrupted_and_what_was_taken_is_kept() -> None:
    """While it waits a handler raises, and nothing is taken; once it has it, none does."""
    lock = threading.Lock()
    lock.acquire()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), deferred():
        wait_for(lock.acquire)
    assert lock.locked()
    lock.release()
    with pytest.raises(KeyboardInterrupt), deferred():  # noqa: PT012
        wait_for(lock.acquire)
        signal.raise_signal(signal.SIGINT)
        lock.release()
    assert not lock.locked()


def test_a_child_of_another_thread_is_not_deaf(tmp_path: Any) -> None:
    """A fork beside a block of the main thread has the handlers of before, and runs them."""
    codes: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if not pid:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(8)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with deferred():
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert codes == [7]
