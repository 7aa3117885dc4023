"""Every state that a crash can leave of a recorded run (after Pillai et al., OSDI 2014: ALICE).

Invariant: an operation has reached the disk for certain when a later sync of its file (for bytes)
or of its folder (for names) returned; until then it may have, alone or with any others, whole or,
for the last one, torn. A sync that failed makes nothing certain, then or later (Linux marks the
lost pages clean), so what it should have covered stays in doubt until it is written again. The
room of a file that was removed or cut belongs to nobody from then on, although a crash may bring
the file back: what then stands there may be somebody else's (ext4 with data=writeback).

Left out: reordering within one write other than the torn last one, and disks that lie.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import attrs
from blake3 import blake3

from cas.testing.recorder import ROOT, Image, Mark, Names, Op, Recorder, Sync, Truncate, Write

SECTOR_BYTES: Final = 512
TEARS: Final = 8
"""At about how many sector edges a write is torn."""
BLOCK_BYTES: Final = 4096
REUSES: Final = 4
"""In about how many blocks of what was given up something else may stand."""


@attrs.frozen
class Cut:
    """A crash: the operations before `prefix` were issued; of those that no sync covers, `kept`
    reached the disk, and of the last of them only `torn` bytes when that is not None. In the room
    of `reused`, a file and a block of it, other bytes were written meanwhile.
    """

    prefix: int
    kept: tuple[int, ...]
    torn: int | None = None
    reused: tuple[int, int] | None = None


@attrs.define
class _Node:
    """A file or folder: what is certain of it, and the operations behind the first doubt."""

    data: bytes
    digest: bytes
    names: dict[str, int]
    tail: list[int] = attrs.field(factory=list)


_NOTHING: Final = blake3(b"").digest()


class Replay:
    """Walks along a log; `cuts` are the crashes at the place it has reached."""

    def __init__(
        self,
        recorder: Recorder,
        *,
        seed: int | str = 0,
        each_max: int = 24,
        subsets: int = 3,
    ) -> None:
        self._ops = recorder.ops
        base = recorder.base
        self._random = random.Random(f"replay {seed}")
        self._each_max = each_max
        self._subsets = subsets
        self._nodes = {
            number: _Node(data, blake3(data).digest(), {}) for number, data in base.files.items()
        }
        for number, names in base.folders.items():
            self._nodes[number] = _Node(b"", _NOTHING, dict(names))
        self._folders = recorder.folders
        self._dirty: set[int] = set()
        # Certain, although an operation before it on the same file is not.
        self._sure: set[int] = set()
        self._doubtful: set[int] = set()
        self._made: dict[tuple[int, tuple[int, ...], int | None], tuple[bytes, bytes]] = {}
        self.prefix = 0

    # -- moving on ---------------------------------------------------------------------------

    def step(self) -> Op:
        """Issue the next operation."""
        index, op = self.prefix, self._ops[self.prefix]
        self.prefix += 1
        if isinstance(op, Write | Truncate):
            self._node(op.file).tail.append(index)
            self._dirty.add(op.file)
        elif isinstance(op, Names):
            self._node(op.folder).tail.append(index)
            self._dirty.add(op.folder)
        elif isinstance(op, Sync):
            self._sync(op)
        return op

    def _node(self, number: int) -> _Node:
        node = self._nodes.get(number)
        if node is None:
            node = self._nodes[number] = _Node(b"", _NOTHING, {})
        return node

    def _sync(self, op: Sync) -> None:
        tail = self._node(op.target).tail
        if not op.ok:
            self._doubtful.update(index for index in tail if index not in self._sure)
            return
        self._sure.update(index for index in tail if index not in self._doubtful)
        certain = 0
        while certain < len(tail) and tail[certain] in self._sure:
            certain += 1
        if certain:
            self._settle(op.target, tuple(tail[:certain]))
            del tail[:certain]
        if not tail:
            self._dirty.discard(op.target)

    def _settle(self, number: int, indices: tuple[int, ...]) -> None:
        node = self._nodes[number]
        if number in self._folders:
            node.names = self._names_of(number, indices)
        else:
            node.data, node.digest = self._data_of(number, indices, None)
        self._sure.difference_update(indices)
        self._made = {key: value for key, value in self._made.items() if key[0] != number}

    # -- what is on the disk -----------------------------------------------------------------

    def _data_of(
        self, number: int, indices: tuple[int, ...], torn: int | None
    ) -> tuple[bytes, bytes]:
        """Bytes and digest of a file with these operations done, the last one torn."""
        node = self._nodes[number]
        if not indices:
            return node.data, node.digest
        made = self._made.get((number, indices, torn))
        if made is not None:
            return made
        data = bytearray(node.data)
        for index in indices:
            op = self._ops[index]
            if isinstance(op, Truncate):
                del data[op.size :]
                data.extend(bytes(op.size - len(data)))
            elif isinstance(op, Write):
                part = op.data[:torn] if torn is not None and index == indices[-1] else op.data
                if len(data) < op.offset:
                    data.extend(bytes(op.offset - len(data)))
                data[op.offset : op.offset + len(part)] = part
        whole = bytes(data)
        made = self._made[number, indices, torn] = (whole, blake3(whole).digest())
        return made

    def _names_of(self, number: int, indices: tuple[int, ...]) -> dict[str, int]:
        names = dict(self._node(number).names)
        for index in indices:
            op = self._ops[index]
            assert isinstance(op, Names)
            for name, target in op.changes:
                if target is None:
                    names.pop(name, None)
                else:
                    names[name] = target
        return names

    def image(self, cut: Cut) -> tuple[Image, bytes]:
        """What this crash leaves, and a digest of it. The cut must be at the present prefix."""
        assert cut.prefix == self.prefix
        kept = set(cut.kept)
        last = max(cut.kept, default=-1)
        folders: dict[int, dict[str, int]] = {}
        files: dict[int, bytes] = {}
        digest = blake3()
        pending = [ROOT]
        while pending:
            number = pending.pop()
            node = self._nodes.get(number)
            tail = () if node is None or number not in self._dirty else tuple(node.tail)
            indices = tuple(i for i in tail if i in self._sure or i in kept)
            if number in self._folders:
                names = folders[number] = self._names_of(number, indices)
                for name, child in sorted(names.items()):
                    digest.update(b"%d %s %d\n" % (number, name.encode(), child))
                    pending.append(child)
            elif number not in files and node is not None:
                torn = cut.torn if last in indices else None
                files[number], hashed = self._data_of(number, indices, torn)
                if cut.reused is not None and cut.reused[0] == number:
                    files[number] = _reused(files[number], cut.reused[1])
                    hashed = blake3(files[number]).digest()
                digest.update(b"%d %s\n" % (number, hashed))
        return Image(folders, files), digest.digest()

    def same(self, cut: Cut) -> tuple[object, ...]:
        """Equal for crashes that leave the same because the same operations were done."""
        missing = set(self.pending()).difference(cut.kept)
        last = cut.prefix - 1
        while last >= 0 and (last in missing or isinstance(self._ops[last], Sync | Mark)):
            last -= 1
        missed = tuple(sorted(index for index in missing if index < last))
        return last, missed, cut.torn, cut.reused

    # -- the crashes -------------------------------------------------------------------------

    def pending(self) -> tuple[int, ...]:
        """Operations issued that may or may not have reached the disk, ascending."""
        return tuple(
            sorted(
                index
                for number in self._dirty
                for index in self._nodes[number].tail
                if index not in self._sure
            )
        )

    def cuts(self) -> Iterator[Cut]:
        """Crashes here: nothing, everything, each alone, each missing, some, the last torn."""
        pending = self.pending()
        at = self.prefix
        yield Cut(at, ())
        if not pending:
            return
        yield Cut(at, pending)
        some = self._some(pending)
        if len(pending) > 1:
            for index in some:
                yield Cut(at, (index,))
            for index in some:
                yield Cut(at, tuple(i for i in pending if i != index))
        if len(pending) > 2:
            for _ in range(self._subsets):
                chance = self._random.random()
                yield Cut(at, tuple(i for i in pending if self._random.random() < chance))
        last = pending[-1]
        if last == at - 1:
            for torn in self._tears(last):
                yield Cut(at, pending, torn)
                yield Cut(at, (last,), torn)

        for index in some:
            for reused in self._given_up(index):
                yield Cut(at, tuple(i for i in pending if i != index), reused=reused)

    def _given_up(self, index: int) -> list[tuple[int, int]]:
        """Some blocks of files whose room is free once this operation is done."""
        op = self._ops[index]
        found: list[tuple[int, int]] = []
        if isinstance(op, Truncate):
            found += self._blocks(op.file, op.size, index)
        elif isinstance(op, Names):
            tail = self._node(op.folder).tail
            before = self._names_of(op.folder, tuple(i for i in tail if i < index))
            after = self._names_of(op.folder, tuple(i for i in tail if i <= index))
            for number in set(before.values()).difference(after.values(), self._folders):
                found += self._blocks(number, 0, index)
        return sorted(self._random.sample(found, min(REUSES, len(found))))

    def _blocks(self, number: int, start: int, index: int) -> list[tuple[int, int]]:
        """Blocks of a file behind `start`, as it was before an operation."""
        done = tuple(i for i in self._node(number).tail if i < index)
        size = len(self._data_of(number, done, None)[0])
        return [
            (number, block) for block in range(-(-start // BLOCK_BYTES), -(-size // BLOCK_BYTES))
        ]

    def _some(self, pending: tuple[int, ...]) -> list[int]:
        """All of them, or the first, the last and a sample where there are many."""
        if len(pending) <= self._each_max:
            return list(pending)
        edge = self._each_max // 3
        inner = pending[edge : len(pending) - edge]
        middle = self._random.sample(inner, self._each_max - 2 * edge)
        return [*pending[:edge], *middle, *pending[len(pending) - edge :]]

    def _tears(self, index: int) -> list[int]:
        op = self._ops[index]
        if not isinstance(op, Write) or len(op.data) < 2:
            return []
        size = len(op.data)
        sectors = (size - 1) // SECTOR_BYTES
        every = max(1, sectors // TEARS)
        edges = {1, size // 2, SECTOR_BYTES, sectors * SECTOR_BYTES}
        edges.update(number * SECTOR_BYTES for number in range(every, sectors, every))
        return sorted(edge for edge in edges if 0 < edge < size)


def _reused(data: bytes, block: int) -> bytes:
    """A file in one block of which the bytes of another one stand."""
    start, stop = block * BLOCK_BYTES, min(len(data), (block + 1) * BLOCK_BYTES)
    if start >= stop:
        return data
    other = blake3(b"%d" % block).digest(length=stop - start)
    return data[:start] + other + data[stop:]
