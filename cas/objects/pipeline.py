"""Compression beside the caller: contents go in, payloads come out in the same order.

Floor 3. Invariant: what `drain` gives is what was submitted, in order, each payload decoded
again and compared by the worker (and, behind their group, second copies of much used bases);
at most `IN_FLIGHT_BYTES_MAX` wait at any time, so memory is bounded whatever the caller reads.

Contents travel in groups: a worker that needs the GIL back for each small object would wait
for the caller's switch interval (5 ms) each time, so a group is one call that holds no GIL.
Used by one thread, the caller's.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from cas.limits import DICTIONARIES_A_PACK_MAX
from cas.objects.bulk import Source
from cas.objects.deltas import Deltas, Target, may_have_base
from cas.storage.codec import DICTIONARY, RAW, ZSTD, decode_payload, encode_payloads
from cas.storage.dictionary import Dictionary, takes_dictionary
from cas.storage.pack import Made
from cas.storage.record import COMMON_GROUP, NO_GROUP, TAG_BYTES

GROUP_BYTES: Final = 1 << 20
GROUP_COUNT_MAX: Final = 512
_WORKERS: Final = max(1, min(4, (os.cpu_count() or 1) - 1))
"""The caller is busy too, and compresses whenever it would have to wait."""
IN_FLIGHT_BYTES_MAX: Final = 16 << 20
_ITEM_BYTES: Final = 256
"""About what an object takes beside its content: else 800,000 tiny ones would be in flight."""

_DICTIONARIES_MAX: Final = DICTIONARIES_A_PACK_MAX // 2
"""Dictionaries that the records of one group need: they fit into any pack that is begun anew."""


class Submitted(NamedTuple):
    """One object on its way into a pack file. `codec` is None until a worker has encoded it;
    what comes encoded already (`content` is a payload then) passes through, with its `depth`.
    `base` is the id of an installed object that it may become a delta of; beside a payload of
    codec 4, that of its dictionary.
    """

    id: bytes
    kind: int
    content: bytes
    codec: int | None
    raw_bytes: int
    depth: int = 0
    group: int = COMMON_GROUP
    base: bytes | None = None


def _with_base(item: Submitted, base: bytes | None) -> Submitted:
    """An object that may become a delta; one that was compressed already is content again."""
    if (
        base is None
        or item.codec not in (None, ZSTD)
        or not may_have_base(item.kind, item.raw_bytes)
    ):
        return item
    content = item.content
    if item.codec == ZSTD:
        content = decode_payload(ZSTD, content, item.raw_bytes)
    return item._replace(content=content, codec=None, base=base)


Beside = Callable[[int], "Dictionary | None"]
"""The dictionary that contents of a group are encoded beside; None: there is none."""


class _Group:
    __slots__ = ("done", "error", "items", "records", "size_bytes", "used")

    def __init__(self) -> None:
        self.items: list[Submitted] = []
        # Dictionaries that its records need, by tag: what comes encoded first.
        self.used: dict[bytes, bytes] = {}
        self.size_bytes = 0
        self.records: list[Made] = []
        self.error: BaseException | None = None
        self.done = threading.Event()

    def takes(self, dictionary: bytes) -> bool:
        """Whether a record that needs this dictionary may join: so many fit into one pack."""
        known = self.used.get(dictionary[:TAG_BYTES])
        return known == dictionary or (known is None and len(self.used) < _DICTIONARIES_MAX)

    def encode(self, deltas: Deltas, beside: Beside) -> None:
        """Make records of the items; runs in a worker."""
        made, second = self._deltas(deltas)
        todo = [i for i in self.items if i.codec is None and i.id not in made]
        small = self._small(todo, beside)
        encoded = iter(encode_payloads([i.content for i in todo if i.id not in small]))
        for id, kind, content, codec, raw_bytes, depth, group, _base in self.items:
            if id in made:
                self.records.append(made[id])
                continue
            if codec is None:
                codec, content = small[id] if id in small else next(encoded)
            self.records.append((id, kind, codec, content, raw_bytes, depth, group))
        self.records += second

    def _small(self, items: Sequence[Submitted], beside: Beside) -> dict[bytes, tuple[int, bytes]]:
        """(codec, payload) by id of those that are encoded beside a dictionary."""
        found: dict[bytes, tuple[int, bytes]] = {}
        for group in {item.group for item in items} - {NO_GROUP}:
            dictionary = beside(group)
            if dictionary is None or not self.takes(dictionary.id):
                continue
            taken = [i for i in items if i.group == group and takes_dictionary(i.kind, i.content)]
            payloads = dictionary.encode([item.content for item in taken])
            if any(payloads):
                self.used[dictionary.tag] = dictionary.id
            for item, payload in zip(taken, payloads, strict=True):
                whole = RAW, item.content
                found[item.id] = whole if payload is None else (DICTIONARY, payload)
        return found

    def _deltas(self, deltas: Deltas) -> tuple[dict[bytes, Made], list[Made]]:
        """Deltas by id of the items that become one, and second copies of their bases."""
        targets = [
            Target(item.id, item.kind, item.content, item.group, item.base)
            for item in self.items
            if item.base is not None
            and item.codec is None
            and may_have_base(item.kind, item.raw_bytes)
        ]
        if not targets:
            return {}, []
        made, second = deltas.encode(targets)
        return {delta[0]: delta for delta in made if delta is not None}, second


class Pipeline:
    """Worker threads that compress; they end with `close` and never outlive the process.

    There are none until a group is full.
    """

    def __init__(
        self,
        source: Source,
        hints: dict[bytes, bytes] | None = None,
        beside: Beside = lambda _group: None,
    ) -> None:
        self._beside = beside
        self._hints = {} if hints is None else hints
        self._deltas = Deltas(source)
        self._group = _Group()
        self._waiting: deque[_Group] = deque()
        self._queue: deque[_Group] = deque()
        self._ready = threading.Semaphore(0)
        self._in_flight_bytes = 0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def submit(self, item: Submitted) -> bool:
        """Take one object; `drain` gives its record. Whether now is a time to drain."""
        group = self._group
        full = group.size_bytes >= GROUP_BYTES or len(group.items) >= GROUP_COUNT_MAX
        dictionary = item.base if item.codec == DICTIONARY else None
        if dictionary is not None:
            full = full or not group.takes(dictionary)
        if full:
            # Only now: who gives an object says what it may be a delta of when it was taken.
            self._dispatch()
            group = self._group
        if dictionary is not None:
            group.used[dictionary[:TAG_BYTES]] = dictionary
        group.items.append(item)
        group.size_bytes += len(item.content) + _ITEM_BYTES
        return full

    def _dispatch(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._work, name="cas-compress", daemon=True)
                for _ in range(_WORKERS)
            ]
            for thread in self._threads:
                thread.start()
        self._queue.append(self._take())
        self._ready.release()

    def _take(self) -> _Group:
        """The group at hand, as complete as it will be, on its way; another takes its place."""
        group, self._group = self._group, _Group()
        if self._hints:
            take = self._hints.pop
            group.items = [_with_base(item, take(item.id, None)) for item in group.items]
        self._in_flight_bytes += group.size_bytes
        self._waiting.append(group)
        return group

    def drain(self, *, everything: bool = False) -> Iterator[tuple[list[Made], list[bytes]]]:
        """Records that are ready, in order and in groups of about a MiB, and the dictionaries
        that those of a group need.

        Waits while too much is in flight, or for all of it.
        """
        if everything and self._group.items:
            if self._threads:
                self._dispatch()
            else:
                # All there is: to wait for a thread would cost its start and spare nothing.
                self._encode(self._take())
        waiting = self._waiting
        while waiting and (
            everything or waiting[0].done.is_set() or self._in_flight_bytes > IN_FLIGHT_BYTES_MAX
        ):
            group = waiting.popleft()
            while not group.done.is_set() and self._work_once():
                pass
            group.done.wait()
            self._in_flight_bytes -= group.size_bytes
            if group.error is not None:
                raise group.error
            yield group.records, list(group.used.values())

    def pending(self, id: bytes) -> Submitted | None:
        """The object of this id, if it has not been drained yet. Linear: for rare reads."""
        for group in (*self._waiting, self._group):
            for item in group.items:
                if item.id == id:
                    return item
        return None

    def close(self) -> None:
        """Stop the workers; what was not drained is forgotten."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            for _ in self._threads:
                self._ready.release()
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while True:
            self._ready.acquire()
            if not self._work_once() and self._closed:
                return

    def _work_once(self) -> bool:
        """Encode the group that waits longest; False when none does."""
        try:
            group = self._queue.popleft()
        except IndexError:
            return False
        self._encode(group)
        return True

    def _encode(self, group: _Group) -> None:
        try:
            group.encode(self._deltas, self._beside)
        except BaseException as error:
            group.error = error
        group.done.set()
