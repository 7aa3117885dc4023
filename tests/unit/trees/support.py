"""Shared by the tests of trees: a counting node store, an oracle, names found by brute force.

The oracle is written from docs/format.md alone and shares no code with `cas.trees`, so that an
error in the shape policy cannot agree with itself.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import count

import cbor2
from blake3 import blake3

from cas.trees.node import DIRECTORY, Flavour, Item, Node, decode_node, id_of

CONTEXTS = {2: "cas 2026-11 tree node v1", 6: "cas 2026-11 refs node v1"}


class DictNodes:
    """A node store in memory that counts; bytes in, so that every load decodes what was saved."""

    def __init__(self, flavour: Flavour = DIRECTORY) -> None:
        self.flavour = flavour
        self.data: dict[bytes, bytes] = {}
        self.loaded: list[bytes] = []
        self.saved: list[bytes] = []

    def load(self, node_id: bytes) -> Node:
        self.loaded.append(node_id)
        return decode_node(self.data[node_id], self.flavour.kind, verified=True)

    def save(self, node: Node) -> bytes:
        node_id = id_of(self.flavour, node)
        self.data[node_id] = node.data
        self.saved.append(node_id)
        return node_id

    def reset(self) -> None:
        self.loaded.clear()
        self.saved.clear()


def value_of(seed: int, tag: int = 1) -> tuple[int, bytes, int]:
    """A leaf value made from a number; sizes take every width that CBOR has."""
    width = (3, 7, 12, 20, 40, 60)[seed % 6]
    return tag, blake3(struct.pack("<Q", seed)).digest(), (seed * 2654435761) % (1 << width)


def oracle_hit(level: int, name: bytes) -> bool:
    """Whether a name is a hit on a level, as the format says it."""
    return struct.unpack("<I", blake3(bytes([level]) + name).digest()[:4])[0] < 134_217_728


def oracle_level(level: int, names: list[bytes]) -> list[list[int]]:
    """Positions of each node's entries, by the rule as it is written."""
    if len(names) <= 64:
        return [list(range(len(names)))]
    groups: list[list[int]] = []
    group: list[int] = []
    size = 0
    for at, name in enumerate(names):
        group.append(at)
        size += len(name)
        hit = oracle_hit(level, name) and not (level >= 1 and len(group) == 1)
        if len(group) == 256 or size >= 32_768 or hit:
            groups.append(group)
            group, size = [], 0
    if group:
        groups.append(group)
    return groups


def oracle(entries: dict[bytes, tuple[int, bytes, int]], kind: int = 2) -> tuple[bytes, dict]:
    """Root id and all nodes (id -> bytes) of the tree of these entries."""
    nodes: dict[bytes, bytes] = {}
    rows = [(name, *entries[name]) for name in sorted(entries)]
    level = 0
    while True:
        made = []
        groups = oracle_level(level, [row[0] for row in rows])
        for group in groups:
            part = [rows[at] for at in group]
            tags = [row[1] for row in part]
            numbers = [row[3] for row in part]
            fields = [
                level,
                [row[0] for row in part],
                bytes(tags) if level == 0 else tags,
                b"".join(row[2] for row in part),
                numbers,
                {},
            ]
            data = cbor2.dumps(fields, canonical=True)
            node_id = blake3(data, derive_key_context=CONTEXTS[kind]).digest()
            nodes[node_id] = data
            below = len(part) if level == 0 else sum(tags)
            folded = sum(numbers) if kind == 2 else max(numbers, default=0)
            made.append((part[-1][0] if part else b"", below, node_id, folded))
        if len(rows) <= 64:
            return made[0][2], nodes
        rows = made
        level += 1


@lru_cache
def crafted(levels: tuple[int, ...], misses: tuple[int, ...], number: int) -> tuple[bytes, ...]:
    """The first `number` names that are hits on `levels` and none on `misses`."""
    found = []
    for at in count():
        name = b"%x" % (at * 0x9E3779B1 & 0xFFFFFFFF)
        if all(oracle_hit(level, name) for level in levels) and not any(
            oracle_hit(level, name) for level in misses
        ):
            found.append(name)
            if len(found) == number:
                return tuple(found)
    raise AssertionError


@lru_cache
def long_names(number: int, length: int = 255) -> tuple[bytes, ...]:
    """Names of `length` bytes without a hit on level 0: only the limit of name bytes ends them."""
    found = []
    for at in count():
        name = (b"%08x" % (at * 0x9E3779B1 & 0xFFFFFFFF)).ljust(length, b"~")
        if not oracle_hit(0, name):
            found.append(name)
            if len(found) == number:
                return tuple(found)
    raise AssertionError


POOLS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "each name ends a leaf": ((0,), (), 300),
    "each name ends a leaf and an inner node": ((0, 1), (), 280),
    "no name ends anything": ((), (0, 1), 600),
    "each name ends a leaf, none an inner node": ((0,), (1,), 300),
}


@lru_cache
def pool(*names: str) -> tuple[bytes, ...]:
    """Names to draw from, ascending; "long" are names of 255 bytes, "any" are natural ones."""
    found: set[bytes] = set()
    for name in names:
        if name == "long":
            found.update(long_names(400))
        elif name == "any":
            found.update(b"file-%04d.txt" % at for at in range(700))
        else:
            found.update(crafted(*POOLS[name]))
    return tuple(sorted(found))


def items(entries: dict[bytes, tuple[int, bytes, int]]) -> list[Item]:
    """Entries in order, as `build` takes them."""
    return sorted(entries.items())
