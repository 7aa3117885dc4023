"""Search the files of a revision for a pattern.

Floor 8. Invariant: what is found does not depend on how many threads looked; files come in order
of path, and memory is bounded by what is read ahead.

Patterns are those of the standard library's `re`, on bytes, line by line: a match never goes over
the end of a line. The whole content is searched first, which is where almost all files end.
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

from cas.commands.target import Target, resolve
from cas.errors import Invalid, Purged
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
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
# What sees where the searched bytes end, so that lines have to be searched by themselves.
_LOOKS_AROUND: Final = re.compile(rb"\\[AZ]|\(\?<?!|\(\?<?=")


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
    store: Store, text: str, request: GrepRequest, left_out: list[str] | None = None
) -> tuple[Target, Iterator[Found]]:
    """Files below `REV[:PATH]` with a match, lazily, in order of path.

    Paths of files whose content was purged are added to `left_out`, in no order, by the end;
    without such a list they raise `Purged`. Raises `Invalid` for a pattern that is none, and what
    resolving a target raises.
    """
    pattern = _compile(request)
    chosen = _Globs(request.globs)
    target = resolve(store.view(), text)
    worker = _Worker(store.objects, pattern, request.names_only, left_out)
    return target, _search(worker, _files(target, chosen))


def _compile(request: GrepRequest) -> re.Pattern[bytes]:
    raw = to_bytes(request.pattern)
    try:
        return re.compile(
            re.escape(raw) if request.fixed else raw,
            re.MULTILINE | (re.IGNORECASE if request.ignore_case else 0),
        )
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
        worker.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Worker:
    """Searches groups of files; one for all threads."""

    def __init__(
        self,
        objects: ObjectStore,
        pattern: re.Pattern[bytes],
        names_only: bool,
        left_out: list[str] | None,
    ) -> None:
        self._left_out = left_out
        self._objects = objects
        self._pattern = pattern
        self._names_only = names_only
        self._by_line = _LOOKS_AROUND.search(pattern.pattern) is not None
        self._readers = threading.local()
        self.stopped = threading.Event()

    def search(self, group: list[_File]) -> list[Found]:
        """The files of a group that match."""
        reader = getattr(self._readers, "reader", None)
        if reader is None:
            reader = self._readers.reader = BulkReader(self._objects)
        found: list[Found] = []
        contents = (given for part in reader.read([e.id for _, e in group]) for given in part)
        for (path, entry), given in zip(group, contents, strict=True):
            if self.stopped.is_set():
                break
            try:
                if given.content is not None and given.kind == Kind.BLOB:
                    match = self._file(path, entry, bytes(given.content))
                elif entry.size > WHOLE_BLOB_BYTES_MAX:
                    match = self._stream(path, entry)
                else:
                    match = self._file(path, entry, self._objects.get(entry.id, Kind.BLOB))
            except Purged:
                if self._left_out is None:
                    raise
                self._left_out.append(path)
                continue
            if match is not None:
                found.append(match)
        return found

    def _file(self, path: str, entry: TreeEntry, content: bytes) -> Found | None:
        if not self._by_line and self._pattern.search(content) is None:
            return None
        binary = b"\0" in content[:_BINARY_BYTES]
        lines = self._lines(content, 1, first_only=binary or self._names_only)
        found = tuple(lines)
        if not found:
            return None
        return Found(path, entry, binary, () if binary else found)

    def _stream(self, path: str, entry: TreeEntry) -> Found | None:
        """A long file, in parts that end with a line; a line of over 8 MiB is cut there."""
        lines: list[Line] = []
        binary = False
        with self._objects.open(entry.id) as reader:
            number, rest = 1, b""
            while not self.stopped.is_set():
                part = reader.read(_PART_BYTES)
                if number == 1 and not rest:
                    binary = b"\0" in part[:_BINARY_BYTES]
                whole = rest + part
                stop = len(whole)
                if part and len(whole) < WHOLE_BLOB_BYTES_MAX:
                    stop = whole.rfind(b"\n") + 1
                block, rest = whole[:stop], whole[stop:]
                only = binary or self._names_only
                lines += self._lines(block, number, first_only=only)
                number += block.count(b"\n")
                if not part or (lines and only):
                    break
        return Found(path, entry, binary, () if binary else tuple(lines)) if lines else None

    def _lines(self, content: bytes, number: int, *, first_only: bool) -> list[Line]:
        """Lines of a content that match, its first line being `number`."""
        found: list[Line] = []
        at = counted = 0
        while at < len(content):
            start, last = at, at
            if not self._by_line:
                match = self._pattern.search(content, at)
                if match is None:
                    break
                if match.start() == len(content) and content.endswith(b"\n"):
                    break  # behind the last line there is none
                start = content.rfind(b"\n", 0, match.start()) + 1
                last = match.end()
            while True:
                stop = content.find(b"\n", start)
                stop = len(content) if stop < 0 else stop
                if self._pattern.search(content[start:stop]):
                    number += content.count(b"\n", counted, start)
                    counted = start
                    found.append(Line(number, content[start:stop]))
                    if first_only:
                        return found
                start = stop + 1
                if start > last or start >= len(content):
                    break
            at = start
        return found
