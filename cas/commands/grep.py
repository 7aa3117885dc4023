"""Search the files of a revision for a pattern.

Floor 8. Invariant: what is found does not depend on how many threads looked; files come in order
of path, and memory is bounded by what is read ahead.

A pattern is held against lines by `lines`, which runs beside this process where it could take
long (`searching`).
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import translate
from itertools import islice
from typing import Final, NamedTuple

from attrs import frozen

from cas.commands.searching import Part, Search, choose, escaped
from cas.commands.target import Target, resolve
from cas.errors import Invalid, Purged
from cas.history.store import Store
from cas.limits import GREP_CPU_S, WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind
from cas.model.names import to_bytes
from cas.model.objects import EntryKind, TreeEntry
from cas.objects.bulk import BulkReader
from cas.objects.store import ObjectStore

_GROUP_FILES: Final = 64
_GROUP_BYTES: Final = 4 << 20
_AHEAD: Final = 4
"""Groups a thread that wait to be asked for."""
_BINARY_BYTES: Final = 8000
"""A NUL byte among so many at the beginning makes a file binary, as in git."""
_PART_BYTES: Final = 1 << 20


class Line(NamedTuple):
    """A line that matches; the first of a file is 1."""

    number: int
    text: bytes


@frozen
class Found:
    """A file with matches. Of a binary one no lines are given; else `lines` has one or more."""

    path: str
    entry: TreeEntry
    binary: bool
    lines: tuple[Line, ...]


@frozen
class GrepRequest:
    """What is looked for. With `names_only` a file is left at its first match.

    `globs` choose paths, relative to what is searched: `*.py`, `docs/*`; `!GLOB` leaves out. A
    star goes over slashes; a glob without a slash is held against the last name too.
    """

    pattern: str
    ignore_case: bool = False
    fixed: bool = False
    names_only: bool = False
    globs: tuple[str, ...] = ()


def grep(
    store: Store,
    text: str,
    request: GrepRequest,
    left_out: list[str] | None = None,
    *,
    cpu_s: float = GREP_CPU_S,
) -> tuple[Target, Iterator[Found]]:
    """Files below `REV[:PATH]` with a match, lazily, in order of path.

    Paths of files whose content was purged are added to `left_out`, in no order, by the end;
    without such a list they raise `Purged`. Raises `Invalid` for a pattern that is none, what
    resolving a target raises, and `LimitExceeded` for a pattern that takes more than `cpu_s`
    seconds of processor time in one file (or in 8 MiB of a longer one).
    """
    pattern = _compile(request, cpu_s)
    chosen = _Globs(request.globs)
    target = resolve(store.view(), text)
    worker = _Worker(store.objects, pattern, request.names_only, left_out)
    return target, _search(worker, _files(target, chosen))


def _compile(request: GrepRequest, cpu_s: float) -> Search:
    raw = to_bytes(request.pattern)
    flags = re.MULTILINE | (re.IGNORECASE if request.ignore_case else 0)
    try:
        return choose(escaped(raw) if request.fixed else raw, int(flags), cpu_s)
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(
            f"{request.pattern!r} is no regular expression ({error}); -F takes it as it stands.",
            pattern=request.pattern,
        ) from error


class _Globs:
    """Which paths are searched."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._kept = [_glob(glob) for glob in globs if not glob.startswith("!")]
        self._left = [_glob(glob[1:]) for glob in globs if glob.startswith("!")]

    def take(self, path: str) -> bool:
        if any(_fits(rule, path) for rule in self._left):
            return False
        return not self._kept or any(_fits(rule, path) for rule in self._kept)


_Rule = tuple[re.Pattern[str], bool]


def _glob(glob: str) -> _Rule:
    return re.compile(translate(glob.strip("/"))), "/" not in glob


def _fits(rule: _Rule, path: str) -> bool:
    pattern, by_name = rule
    if pattern.match(path):
        return True
    return by_name and pattern.match(path.rsplit("/", 1)[-1]) is not None


_File = tuple[str, TreeEntry]


def _files(target: Target, chosen: _Globs) -> Iterator[_File]:
    """Paths relative to the target, in order; links are not read."""
    if not target.entry.is_tree:
        yield target.path.rsplit("/", 1)[-1], target.entry
        return
    start = len(target.path) + 1 if target.path else 0
    for path, entry in target.snapshot.walk(target.path):
        if entry.kind != EntryKind.LINK and chosen.take(path[start:]):
            yield path[start:], entry


def _groups(files: Iterator[_File]) -> Iterator[list[_File]]:
    while batch := list(islice(files, _GROUP_FILES)):
        group: list[_File] = []
        size_bytes = 0
        for file in batch:
            group.append(file)
            size_bytes += file[1].size
            if size_bytes >= _GROUP_BYTES:
                yield group
                group, size_bytes = [], 0
        if group:
            yield group


def _search(worker: _Worker, files: Iterator[_File]) -> Iterator[Found]:
    """Read and search on threads of their own; decompression and hashing let others run."""
    thread_count = min(4, os.cpu_count() or 1)
    waiting: deque[Future[list[Found]]] = deque()
    pool = ThreadPoolExecutor(thread_count, "cas-grep")
    try:
        for group in _groups(files):
            waiting.append(pool.submit(worker.search, group))
            while len(waiting) >= _AHEAD * thread_count or (waiting and waiting[0].done()):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        worker.stop()
        pool.shutdown(cancel_futures=True)


class _Worker:
    """Searches groups of files; one for all threads."""

    def __init__(
        self,
        objects: ObjectStore,
        pattern: Search,
        names_only: bool,
        left_out: list[str] | None,
    ) -> None:
        self._left_out = left_out
        self._objects = objects
        self._pattern = pattern
        self._names_only = names_only
        self._readers = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the searches under way."""
        self._stopped.set()
        self._pattern.close()

    def search(self, group: list[_File]) -> list[Found]:
        """The files of a group that match."""
        reader = getattr(self._readers, "reader", None)
        if reader is None:
            reader = self._readers.reader = BulkReader(self._objects)
        whole: dict[int, Part] = {}
        found: dict[int, Found] = {}
        contents = (given for part in reader.read([e.id for _, e in group]) for given in part)
        for at, ((path, entry), given) in enumerate(zip(group, contents, strict=True)):
            if self._stopped.is_set():
                break
            try:
                if given.content is not None and given.kind == Kind.BLOB:
                    whole[at] = self._part(path, bytes(given.content))
                elif entry.size > WHOLE_BLOB_BYTES_MAX:
                    if (match := self._stream(path, entry)) is not None:
                        found[at] = match
                else:
                    whole[at] = self._part(path, self._objects.get(entry.id, Kind.BLOB))
            except Purged:
                if self._left_out is None:
                    raise
                self._left_out.append(path)
        every = self._pattern.search(list(whole.values())) if whole else ()
        for at, lines in zip(whole, every, strict=True):
            if lines:
                path, entry = group[at]
                found[at] = _found(path, entry, _is_binary(whole[at].content), lines)
        return [found[at] for at in sorted(found)]

    def _part(self, path: str, content: bytes) -> Part:
        return Part(path, content, 1, self._names_only or _is_binary(content))

    def _stream(self, path: str, entry: TreeEntry) -> Found | None:
        """A long file, in parts that end with a line; a line of over 8 MiB is cut there."""
        lines: list[tuple[int, bytes]] = []
        binary = False
        with self._objects.open(entry.id) as reader:
            number, rest = 1, b""
            while not self._stopped.is_set():
                part = reader.read(_PART_BYTES)
                if number == 1 and not rest:
                    binary = _is_binary(part)
                whole = rest + part
                stop = len(whole)
                if part and len(whole) < WHOLE_BLOB_BYTES_MAX:
                    stop = whole.rfind(b"\n") + 1
                block, rest = whole[:stop], whole[stop:]
                only = binary or self._names_only
                lines += self._pattern.search([Part(path, block, number, only)])[0]
                number += block.count(b"\n")
                if not part or (lines and only):
                    break
        return _found(path, entry, binary, lines) if lines else None


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:_BINARY_BYTES]


def _found(path: str, entry: TreeEntry, binary: bool, lines: list[tuple[int, bytes]]) -> Found:
    return Found(path, entry, binary, () if binary else tuple(Line(*line) for line in lines))
