"""Renames: which files that appeared are files that went.

Floor 4. Invariant: content decides, never a record of what somebody did; every path of the
changes that come in comes out once, alone or as one half of a rename; the work is bounded, and
what the bounds leave out stays an addition and a removal.

Equal content is a rename at once. Files that differ are compared by the bytes of the lines that
they share (long lines and binary content in pieces of 64 bytes), as git does it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from attrs import frozen

from cas.errors import Purged
from cas.history.snapshot import Change, ChangeKind, classify
from cas.limits import (
    RENAME_BYTES_MAX,
    RENAME_CANDIDATES_MAX,
    RENAME_FILE_BYTES_MAX,
    RENAME_PAIRS_MAX,
    RENAME_STEPS_MAX,
)
from cas.model.ids import ObjectId
from cas.model.names import Path, join_path, split_path
from cas.model.objects import EntryKind
from cas.trees.node import NodeStore
from cas.trees.paths import diff_paths

Read = Callable[[ObjectId], bytes]
"""Content of a blob."""

SIMILAR: Final = 50
"""Percent of the longer content that two files share, at least, to be one that was renamed."""

_PIECE_BYTES: Final = 64


def with_renames(
    changes: Iterable[Change], read: Read, *, similar: int = SIMILAR
) -> Iterator[Change]:
    """The changes with pairs of a removed and an added file told as one `RENAMED` change.

    Such a change has the new path in `path`, the old one in `origin`, and how much of the
    content stayed in `similarity` (percent, 100 when all of it). Ascending by path.
    """
    every = list(changes)
    search = _Search(read, similar)
    for change in every:
        search.take(change)
    search.equal()
    search.alike()
    gone = {pair.old.path for pair in search.pairs}
    came = {pair.new.path: pair for pair in search.pairs}
    for change in every:
        if change.kind == ChangeKind.ADDED and change.path in came:
            pair = came[change.path]
            yield Change(
                ChangeKind.RENAMED,
                change.path,
                pair.old.old,
                change.new,
                pair.old.path,
                pair.score,
            )
        elif change.kind != ChangeKind.REMOVED or change.path not in gone:
            yield change


def origins(old: bytes, new: bytes, nodes: NodeStore, read: Read) -> Mapping[Path, Path]:
    """Where the renamed files of a directory were in an older one: new path to old path.

    None is found where more than RENAME_CANDIDATES_MAX files went and came.
    """
    every = (
        classify(join_path(path), before, after)
        for path, before, after in diff_paths(old, new, nodes)
        if before is None or after is None
    )
    changes = list(islice(every, RENAME_CANDIDATES_MAX + 1))
    if len(changes) > RENAME_CANDIDATES_MAX:
        return {}
    return {
        split_path(change.path): split_path(change.origin)
        for change in with_renames(changes, read)
        if change.origin is not None
    }


@frozen
class _Pair:
    """A removed and an added file; `score` is what they share, in percent."""

    score: int
    old: Change
    new: Change

    @property
    def order(self) -> tuple[bool, int, str, str]:
        return _name(self.old) != _name(self.new), -self.score, self.new.path, self.old.path


class _Search:
    """The files that went and came, and the pairs that were found so far."""

    def __init__(self, read: Read, similar: int) -> None:
        self.read = read
        self.similar = similar
        self.gone: dict[str, Change] = {}
        self.came: dict[str, Change] = {}
        self.pairs: list[_Pair] = []
        self.budget_bytes = RENAME_BYTES_MAX
        self.budget_steps = RENAME_STEPS_MAX
        self.pieces: dict[bytes, Counter[bytes]] = {}

    def take(self, change: Change) -> None:
        """A change that may be half of a rename; empty files and links are none."""
        entry = change.new if change.old is None else change.old if change.new is None else None
        if entry is None or entry.size == 0:
            return
        if entry.kind in (EntryKind.FILE, EntryKind.EXECUTABLE):
            (self.came if change.old is None else self.gone)[change.path] = change

    def _pair(self, pair: _Pair) -> None:
        if pair.old.path in self.gone and pair.new.path in self.came:
            del self.gone[pair.old.path], self.came[pair.new.path]
            self.pairs.append(pair)

    def equal(self) -> None:
        """Pair files of equal content; those that kept their name first."""
        self._pair_by(lambda path, id: (id, _name_of(path)))
        self._pair_by(lambda _path, id: id)

    def _pair_by(self, key: Callable[[str, ObjectId], object]) -> None:
        """Pair what is alike by a key, in order of path: a walk, however many are alike."""
        olds: dict[object, deque[Change]] = {}
        for old in list(self.gone.values()):
            assert old.old is not None
            olds.setdefault(key(old.path, old.old.id), deque()).append(old)
        for new in list(self.came.values()):
            assert new.new is not None
            waiting = olds.get(key(new.path, new.new.id))
            if waiting:
                self._pair(_Pair(100, waiting.popleft(), new))

    def alike(self) -> None:
        """Pair files of similar content, the most similar first, within the bounds."""
        olds, news = list(self.gone.values()), list(self.came.values())
        found = []
        if len(olds) * len(news) <= RENAME_PAIRS_MAX:
            pairs = ((old, new) for new in news for old in olds)
        else:
            # Too many to try all: files that kept their name are the likely ones.
            named: dict[str, list[Change]] = {}
            for old in olds:
                named.setdefault(_name(old), []).append(old)
            pairs = (
                (old, new)
                for new in news
                for old in (named[_name(new)] if len(named.get(_name(new), ())) == 1 else ())
            )
        for old, new in pairs:
            score = self._score(old, new)
            if score >= self.similar:
                found.append(_Pair(score, old, new))
        for pair in sorted(found, key=lambda pair: (-pair.score, *pair.order)):
            self._pair(pair)

    def _score(self, old: Change, new: Change) -> int:
        assert old.old is not None
        assert new.new is not None
        short, long = sorted((old.old.size, new.new.size))
        if 100 * short < self.similar * long or long > RENAME_FILE_BYTES_MAX:
            return 0
        before, after = self._pieces(old.old.id), self._pieces(new.new.id)
        if before is None or after is None:
            return 0
        if len(before) > len(after):
            before, after = after, before
        self.budget_steps -= len(before)
        if self.budget_steps < 0:
            return 0
        shared = sum(len(piece) * count for piece, count in (before & after).items())
        return 100 * shared // long

    def _pieces(self, id: ObjectId) -> Counter[bytes] | None:
        """The lines of a blob, long ones cut; None when as much was read as is allowed, or
        it was purged.
        """
        found = self.pieces.get(id)
        if found is None:
            if self.budget_bytes <= 0:
                return None
            try:
                content = self.read(id)
            except Purged:
                return None
            self.budget_bytes -= len(content)
            found = self.pieces[id] = Counter(
                line[at : at + _PIECE_BYTES]
                for line in content.splitlines(keepends=True)
                for at in range(0, len(line), _PIECE_BYTES)
            )
        return found


def _name(change: Change) -> str:
    return _name_of(change.path)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]
