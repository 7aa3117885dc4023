"""Every decoder of bytes that come from outside, as a function that a fuzzer can call.

Invariant: a target returns whether its input was well formed, and raises only what is a bug: a
typed error is an answer. What is well formed has one encoding, so that encoding the value again
gives the input.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from cas.errors import CasError
from cas.history.horizon import decode_horizon, decode_thinning
from cas.history.policy import decode_policy
from cas.history.retention import decode_retention
from cas.history.revision import parse_range, parse_revision
from cas.history.tombstones import decode_tombstone
from cas.maintenance.backups.increment import decode_index
from cas.model.encoding import decode, encode
from cas.model.entry import Entry
from cas.model.ids import Kind, digest_blob
from cas.model.names import check_entry_name, check_ref_name
from cas.model.objects import Commit, Recipe, Tag
from cas.model.patch import apply_patch
from cas.model.segment import Segment
from cas.objects.children import children
from cas.storage.codec import RAW, ZSTD, decode_payload
from cas.storage.delta import decode_delta
from cas.storage.header import decode_header
from cas.storage.pack import TRAILER_BYTES, check_footer, decode_footer
from cas.storage.record import decode_record_header
from cas.trees.node import decode_node
from cas.worktree.gitvalues import parse_commit, parse_tree

Target = Callable[[bytes], bool]


class Broken(AssertionError):
    """A decoder took what it must not take."""


def _typed(read: Callable[[bytes], Any]) -> Target:
    def target(data: bytes) -> bool:
        try:
            read(data)
        except CasError:
            return False
        return True

    return target


def _canonical(read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Target:
    def target(data: bytes) -> bool:
        try:
            value = read(data)
        except CasError:
            return False
        if write(value) != data:
            raise Broken("a value is read from what is not its encoding")
        return True

    return target


def _structured(kind: Kind, read: Callable[[bytes], Any]) -> Target:
    whole = _canonical(read, lambda value: value.encode())

    def target(data: bytes) -> bool:
        good = whole(data)
        # Readers of verified bytes leave the comparison out, and still must not stumble.
        with suppress(CasError):
            children(kind, data)
        return good

    return target


def _node(kind: Kind) -> Target:
    def target(data: bytes) -> bool:
        try:
            node = decode_node(data, kind)
        except CasError:
            return False
        if node.data != data:
            raise Broken("a node keeps other bytes than it was read from")
        return True

    return target


HEADER: Final = bytes(80)


def _footer(data: bytes) -> bool:
    """With the digest that it should have: what a writer with a bug, or with intent, makes."""
    if len(data) > TRAILER_BYTES:
        end = len(data) - TRAILER_BYTES
        tail = data[end + 32 :]
        data = (
            data[:end]
            + digest_blob(HEADER + data[:end])
            + len(data).to_bytes(4, "little")
            + (tail[4:])
        )
    try:
        footer = decode_footer(HEADER, data, "fuzzed")
        check_footer(footer, "fuzzed")
    except CasError:
        return False
    list(footer.slots())
    list(footer.all_edges())
    return True


def _summed(read: Callable[[bytes], Any], fields_bytes: int) -> Target:
    """A structure of fixed size with a sum behind it, which is made right."""

    def target(data: bytes) -> bool:
        fields = data[:fields_bytes].ljust(fields_bytes, b"\0")
        try:
            read(fields + zlib.crc32(fields).to_bytes(4, "little"))
        except CasError:
            return False
        return True

    return target


BASE: Final = b"".join(b"%d lines of text\n" % at for at in range(60))


def _sized(read: Callable[[bytes, int], bytes]) -> Target:
    """The first two bytes say how long the content should be; what comes out is as long."""

    def target(data: bytes) -> bool:
        size = int.from_bytes(data[:2], "little")
        try:
            content = read(data[2:], size)
        except CasError:
            return False
        if len(content) != size:
            raise Broken(f"{len(content)} bytes instead of {size}")
        return True

    return target


def _text(read: Callable[[str], Any]) -> Target:
    def target(data: bytes) -> bool:
        try:
            read(data.decode("utf-8", "surrogateescape"))
        except CasError:
            return False
        return True

    return target


TARGETS: Final[dict[str, Target]] = {
    "encoding": _canonical(decode, encode),
    "entry": _canonical(Entry.decode, Entry.encode),
    "commit": _structured(Kind.COMMIT, Commit.decode),
    "tag": _structured(Kind.TAG, Tag.decode),
    "recipe": _structured(Kind.RECIPE, Recipe.decode),
    "segment": _structured(Kind.SEGMENT, Segment.decode),
    "tree-node": _node(Kind.TREE),
    "refs-node": _node(Kind.REFS),
    "footer": _footer,
    "header": _summed(lambda data: decode_header(data, "fuzzed"), 76),
    "record-header": _summed(lambda data: decode_record_header(data, 0, "fuzzed"), 24),
    "frame": _sized(lambda data, size: decode_payload(ZSTD, data, size)),
    "raw": _sized(lambda data, size: decode_payload(RAW, data, size)),
    "delta": _sized(lambda data, size: decode_delta(data, BASE, size)),
    "patch": _sized(lambda data, size: apply_patch(data, BASE, size)),
    "backup-index": _typed(lambda data: decode_index(data, "fuzzed")),
    "policy": _typed(decode_policy),
    "horizon": _typed(decode_horizon),
    "thinning": _typed(decode_thinning),
    "tombstone": _typed(lambda data: decode_tombstone(bytes(32), data)),
    "retention": _typed(decode_retention),
    "revision": _text(parse_revision),
    "range": _text(parse_range),
    "ref-name": _text(check_ref_name),
    "entry-name": _typed(check_entry_name),
    "git-tree": _typed(lambda data: parse_tree(bytes(20), data)),
    "git-commit": _typed(lambda data: parse_commit(bytes(20), data)),
}
