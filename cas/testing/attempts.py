"""What transactions of many processes did and saw, as they wrote it down, and what became of it.

Invariant: an attempt that could commit is in its log before the commit is asked for, and its end
is added afterwards, each by one call of the system; so a process that is killed leaves attempts
whose end is open, and never a commit that nobody had announced.

Contents are told by their blob ids. Times are those of the host's monotonic clock, which all
processes share.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import attrs

End = Literal["committed", "nothing", "refused", "dropped", "reused", "open"]
"""How an attempt ended: with an entry; with nothing to change; refused by the store; rolled back
by its program; refused because its key had another request; not known, its process was killed."""

_LENGTH: Final = struct.Struct("<I")


class Op(NamedTuple):
    """One thing a transaction did: what, on which ref, at which path, and what it saw or put.

    `read`: value is what lay at the path (a blob id, None for nothing). `folder`: the id of the
    directory at the path, None where there was none. `list`: the names of all files. `write`:
    value is put at the path. `delete`: the path is removed with all below it. `move`: the ref is
    pointed at the commit `value`. `drop`: the ref is deleted.
    """

    does: str
    ref: str
    path: str = ""
    value: Any = None


@attrs.frozen
class Attempt:
    """One transaction that was tried. `base` is the entry it began behind, None for one with a
    key; `seq` is the entry that the commit gave; `ref` the one that a refusal named.
    """

    who: str
    txid: bytes
    base: int | None
    began_ns: int
    ops: tuple[Op, ...]
    ended_ns: int
    end: End
    seq: int | None = None
    ref: str | None = None


@attrs.frozen
class Moved:
    """One ref change of an entry: commits before and after, and the files that differ.

    `files` maps a path to the blob id after it, None where the file is gone. `parents` are those
    of the commit after it.
    """

    ref: str
    old: bytes | None
    new: bytes | None
    files: Mapping[str, bytes | None]
    parents: tuple[bytes, ...] = ()


@attrs.frozen
class Made:
    """One entry of the journal as the store has it afterwards."""

    seq: int
    txid: bytes
    moves: tuple[Moved, ...]


@attrs.frozen
class History:
    """All that was tried, and all that the store shows: entries, directories, refs at some
    points (entry -> ref -> files).
    """

    attempts: Sequence[Attempt]
    entries: Sequence[Made]
    folders: Mapping[bytes, Mapping[str, bytes]]
    states: Mapping[int, Mapping[str, Mapping[str, bytes]]]


class AttemptLog:
    """The log of one thread. One thread."""

    def __init__(self, path: str, who: str) -> None:
        self._who = who
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def announce(
        self,
        txid: bytes,
        base: int | None,
        began_ns: int,
        ops: Sequence[Op],
        again: object = None,
    ) -> None:
        """Say what is about to be committed; `again` is what asks for the same once more."""
        self._write((txid, base, began_ns, [tuple(op) for op in ops], again))

    def end(self, ended_ns: int, end: End, seq: int | None = None, ref: str | None = None) -> None:
        """Say what became of what was announced last."""
        self._write((ended_ns, end, seq, ref))

    def close(self) -> None:
        """Give up the file."""
        os.close(self._fd)

    def _write(self, value: object) -> None:
        data = pickle.dumps(value)
        os.write(self._fd, _LENGTH.pack(len(data)) + data)


def read_log(path: str, who: str, gone_ns: int) -> Iterator[Attempt]:
    """Attempts of one log, in order; `gone_ns` is when its process was known to be dead."""
    announced: tuple[Any, ...] | None = None
    for value in _values(path):
        if isinstance(value[0], bytes):
            if announced is not None:
                yield _attempt(who, announced, (gone_ns, "open", None, None))
            announced = value
        elif announced is not None:
            yield _attempt(who, announced, value)
            announced = None
    if announced is not None:
        yield _attempt(who, announced, (gone_ns, "open", None, None))


def left_open(path: str) -> Iterator[Any]:
    """What `announce` was given as `again` for attempts whose end is open."""
    waiting = None
    for value in _values(path):
        if isinstance(value[0], bytes):
            if waiting is not None:
                yield waiting
            waiting = value[4]
        else:
            waiting = None
    if waiting is not None:
        yield waiting


def _values(path: str) -> Iterator[tuple[Any, ...]]:
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            return  # torn by the kill: it was never announced
        yield pickle.loads(data[at : at + length])
        at += length


def _attempt(who: str, announced: tuple[Any, ...], ended: tuple[Any, ...]) -> Attempt:
    txid, base, began_ns, ops, _again = announced
    ended_ns, end, seq, ref = ended
    return Attempt(who, txid, base, began_ns, tuple(Op(*op) for op in ops), ended_ns, end, seq, ref)
