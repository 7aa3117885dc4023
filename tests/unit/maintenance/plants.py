"""What is planted for each code of a finding: a change to a good store, and its subject.

Each function damages a store of three commits and gives the subject under which fsck has to tell
of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cas
from cas.errors import StorageFailed
from cas.history.store import Store
from cas.history.tombstones import Tombstone
from cas.limits import NODE_SINGLE_ENTRIES_MAX
from cas.maintenance.purge import _bury
from cas.model.entry import Event, RefChange
from cas.model.ids import Kind, ObjectId, TreeId, digest_of
from cas.model.objects import Commit, EntryKind, Recipe, Tag
from cas.objects.packs import file_name
from cas.storage.bucket import Bucket
from cas.storage.header import PackHeader
from cas.testing.archiving import archive_all
from cas.trees.build import build as build_tree
from cas.trees.node import DIRECTORY, Node, encode_node
from tests.golden.vectors import Kept, numbered
from tests.unit.kit import tamper
from tests.unit.maintenance.plant import (
    Made,
    append,
    blob,
    flip,
    install,
    pack_file,
    put,
    rewrite_header,
)

NOWHERE = b"\x07" * 32
FILE = int(EntryKind.FILE)


def leaf(*entries: tuple[bytes, int, bytes, int]) -> bytes:
    """Bytes of a leaf: (name, tag, id, size) each."""
    names, tags, ids, sizes = zip(*entries, strict=True)
    return encode_node(0, list(names), bytes(tags), b"".join(ids), list(sizes)).data


def commit_of(tree: bytes, *parents: bytes) -> bytes:
    """Bytes of a commit."""
    return Commit(TreeId(tree), tuple(map(cas.CommitId, parents)), "", "", 0).encode()


def large(store: Store, change: Callable[[Node, list[Node]], Node] | None = None) -> bytes:
    """Store a directory of several nodes, its root changed; gives the root's id."""
    nodes = Kept(DIRECTORY)
    root = nodes.nodes[build_tree(DIRECTORY, numbered(200), nodes).root]
    children = [nodes.nodes[root.child_id(index)] for index in range(len(root))]
    for name, _value in numbered(200):
        put(store, Kind.BLOB, name)
    if change is not None:
        root = change(root, children)
    for child in children:
        put(store, Kind.TREE, child.data)
    return put(store, Kind.TREE, root.data)


def other_counts(root: Node, _children: list[Node]) -> Node:
    """An inner node that counts wrongly."""
    counts = [n + 1 for n in root.tags]
    return encode_node(1, root.names, counts, root.ids, root.numbers)


def other_name(root: Node, _children: list[Node]) -> Node:
    """An inner node that states another last name."""
    names = [*root.names[:-1], root.names[-1] + b"x"]
    return encode_node(1, names, root.tags, root.ids, root.numbers)


def other_size(root: Node, _children: list[Node]) -> Node:
    """An inner node that states another size."""
    return encode_node(1, root.names, root.tags, root.ids, [*root.numbers[:-1], 1])


def other_end(root: Node, children: list[Node]) -> Node:
    """Two children in one: a node that goes on behind its end."""
    a, b = children[0], children[1]
    both = encode_node(
        0, [*a.names, *b.names], bytes([*a.tags, *b.tags]), a.ids + b.ids, [*a.numbers, *b.numbers]
    )
    children[:2] = [both]
    return encode_node(
        1,
        root.names[1:],
        [root.tags[0] + root.tags[1], *root.tags[2:]],
        digest_of(Kind.TREE, both.data) + root.ids[64:],
        [root.numbers[0] + root.numbers[1], *root.numbers[2:]],
    )


# -- what is planted, by the code it must be found under ---------------------------------------


def _lose_blob(store: Store) -> str:
    content = b"a blob whose payload is damaged"
    return _subject(install(store, [blob(content)._replace(payload=content[::-1])]), content)


def _subject(_number: int, content: bytes) -> str:
    return digest_of(Kind.BLOB, content).hex()


def _second_copy_damaged(store: Store) -> str:
    content = b"a blob of which one copy is good"
    install(store, [blob(content)])
    return _subject(install(store, [blob(content)._replace(payload=content[::-1])]), content)


def _condemned_copy_damaged(store: Store) -> str:
    content = b"a blob that was given up"
    number = install(store, [blob(content)._replace(payload=content[::-1])])
    with store.objects.catalog.write() as writer:
        version = writer.head().version + 1
        writer.set_vector(number, version, b"\x01")
        writer.record_removal(version, 1)
    return _subject(number, content)


def _recipe_of_other_content(store: Store) -> str:
    parts = [put(store, Kind.BLOB, b"one"), put(store, Kind.BLOB, b"two")]
    recipe = put(store, Kind.RECIPE, Recipe(0, b"".join(parts), (3, 3)).encode())
    id = digest_of(Kind.BLOB, b"something else")
    install(store, [Made(id, 1, id + recipe, 2, 6)], [(id, 3, recipe)])
    return id.hex()


def _recipe_of_a_recipe(store: Store) -> str:
    """A blob whose chunk is itself rebuilt: readers refuse it, or it could double at each step."""
    one = put(store, Kind.BLOB, b"one")
    inner = put(store, Kind.RECIPE, Recipe(0, one * 2, (3, 3)).encode())
    half = digest_of(Kind.BLOB, b"oneone")
    outer = put(store, Kind.RECIPE, Recipe(0, half + one, (6, 3)).encode())
    whole = digest_of(Kind.BLOB, b"oneoneone")
    records = [Made(half, 1, half + inner, 2, 6), Made(whole, 1, whole + outer, 2, 9)]
    install(store, records, [(half, 3, inner), (whole, 3, outer)])
    return whole.hex()


def _recipe_without_edge(store: Store) -> str:
    parts = [put(store, Kind.BLOB, b"one"), put(store, Kind.BLOB, b"two")]
    recipe = put(store, Kind.RECIPE, Recipe(0, b"".join(parts), (3, 3)).encode())
    id = digest_of(Kind.BLOB, b"onetwo")
    return f"inline pack {install(store, [Made(id, 1, id + recipe, 2, 6)])}"


def _recipe_with_another_edge(store: Store) -> str:
    one = put(store, Kind.BLOB, b"one")
    recipes = [put(store, Kind.RECIPE, Recipe(0, one * n, (3,) * n).encode()) for n in (2, 3)]
    id = digest_of(Kind.BLOB, b"oneone")
    install(store, [Made(id, 1, id + recipes[0], 2, 6)], [(id, 3, recipes[1])])
    return id.hex()


def _delta_without_base(store: Store) -> str:
    id = digest_of(Kind.BLOB, b"a delta")
    install(store, [Made(id, 1, NOWHERE + b"frame", 3, 7, depth=1)], [(id, 1, NOWHERE)])
    return NOWHERE.hex()


def _delta_on_a_deeper_base(store: Store) -> str:
    ids = [digest_of(Kind.BLOB, b"first"), digest_of(Kind.BLOB, b"second")]
    install(
        store,
        [
            Made(ids[0], 1, ids[1] + b"f", 3, 5, depth=2),
            Made(ids[1], 1, ids[0] + b"f", 3, 6, depth=2),
        ],
        [(ids[0], 1, ids[1]), (ids[1], 1, ids[0])],
    )
    return ids[0].hex()


def _other_record_header(store: Store) -> str:
    content = b"a record that begins with other bytes"
    return f"inline pack {install(store, [blob(content, head=bytes(28))])}"


def _between(store: Store) -> str:
    return f"inline pack {install(store, [blob(b'first', gap=b'between'), blob(b'second')])}"


def _foreign_pack(store: Store) -> str:
    meta = store.objects.meta
    header = PackHeader(bytes(16), meta.lineage_id, bytes(16), 1)
    return f"inline pack {install(store, [blob(b'foreign')], header=header)}"


def _header_flipped(store: Store) -> str:
    file = pack_file(store)
    flip(file, 20)
    return file.name


def _footer_flipped(store: Store) -> str:
    file = pack_file(store)
    flip(file, -50)
    return file.name


def _tail_lost(store: Store) -> str:
    file = pack_file(store)
    os.truncate(file, file.stat().st_size - 7)
    return file.name


def _nothing_left(store: Store) -> str:
    file = pack_file(store)
    os.truncate(file, 0)
    return file.name


def _file_deleted(store: Store) -> str:
    file = pack_file(store)
    file.unlink()
    return file.name


class _Unreadable:
    """A bucket on a disk that gives I/O errors for one file."""

    def __init__(self, bucket: Bucket, file: str) -> None:
        self._bucket = bucket
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)

    def read(self, name: str, start: int, length: int) -> bytes:
        if name == self._file:
            raise StorageFailed("Input/output error", path=name, errno=5)
        return self._bucket.read(name, start, length)


def _file_unreadable(store: Store) -> str:
    file = pack_file(store)
    store.objects.bucket = _Unreadable(store.objects.bucket, file.name)  # type: ignore[assignment]
    return file.name


def _row_contradicts(store: Store) -> str:
    tamper(store, "UPDATE pack SET body_bytes = body_bytes + 1 WHERE number = 1")
    return "inline pack 1"


def _table_unreadable(store: Store) -> str:
    catalog = Path(store.location, "catalog.sqlite")
    tamper(store, "PRAGMA wal_checkpoint(TRUNCATE)")
    with store.objects.catalog.read() as reader:
        page = reader._run(  # type: ignore[attr-defined]
            "SELECT rootpage FROM sqlite_schema WHERE name = 'session'"
        ).fetchone()[0]
    data = bytearray(catalog.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[(page - 1) * size : page * size] = bytes(size)
    catalog.write_bytes(data)
    return "session"


def _engine_complains(store: Store) -> str:
    tamper(
        store,
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql,"
        " 'body_bytes INTEGER NOT NULL', 'body_bytes INTEGER') WHERE name = 'pack'",
    )
    tamper(store, "UPDATE pack SET body_bytes = NULL WHERE number = 1")
    tamper(
        store,
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql,"
        " 'body_bytes INTEGER', 'body_bytes INTEGER NOT NULL') WHERE name = 'pack'",
    )
    return "catalog"


def _unnamed_pack(store: Store) -> str:
    file = pack_file(store)
    shutil.copy(file, file.with_name(file_name(b"\x11" * 16)))
    return file_name(b"\x11" * 16)


def _newer_pack(store: Store) -> str:
    name = _unnamed_pack(store)
    rewrite_header(Path(store.location, "packs", name), birth_us=2**60)
    return name


def _entry_damaged(store: Store) -> str:
    tamper(store, "UPDATE journal SET entry = CAST(entry || x'00' AS BLOB) WHERE seq = 2")
    return "entry 2"


def _chain_broken(store: Store) -> str:
    return f"entry {append(store, previous=NOWHERE).seq}"


def _root_wrong(store: Store) -> str:
    return f"entry {append(store, root=NOWHERE).seq}"


def _moved_from_elsewhere(store: Store) -> str:
    target = store.resolve("main")
    change = RefChange("heads/main", 3, ObjectId(NOWHERE), target)
    return f"entry {append(store, changes=(change,)).seq}"


def _time_backwards(store: Store) -> str:
    return f"entry {append(store, time_us=5, wall_us=5).seq}"


def _txid_column(store: Store) -> str:
    tamper(store, "UPDATE journal SET txid = zeroblob(16) WHERE seq = 3")
    return "entry 3"


def _bad_ref_name(store: Store) -> str:
    target = store.resolve("main")
    change = RefChange("heads/..", 3, None, target)
    return f"entry {append(store, changes=(change,)).seq}"


def _event_blob_missing(store: Store) -> str:
    append(store, events=(Event("gone", None, {}, ObjectId(NOWHERE)),), root=_root(store))
    return NOWHERE.hex()


def _root(store: Store) -> bytes:
    return store.entry(store.view().seq).root


def _checkpoint_wrong(store: Store) -> str:
    tamper(store, "INSERT INTO checkpoint VALUES (2, zeroblob(32))")
    return "entry 2"


def _checkpoint_nowhere(store: Store) -> str:
    tamper(store, "INSERT INTO checkpoint VALUES (99, zeroblob(32))")
    return "entry 99"


def _archived_and(store: Store, change: str) -> str:
    store.objects.thresholds = store.objects.thresholds._replace(journal_rows=1, archive_entries=1)
    assert archive_all(store) == 2
    tamper(store, f"UPDATE archive SET {change}")
    return "entry 1"


def _session_left(store: Store) -> str:
    tamper(store, "INSERT INTO session VALUES (zeroblob(16), 1, 0, 0, 5)")
    return bytes(16).hex()


def _purge_begun(store: Store) -> str:
    id = store.put(b"half purged")
    _bury(store, Tombstone(id, Kind.BLOB, 11, "leaked", "ada", 5))
    return id.hex()


def _file_left(store: Store) -> str:
    Path(store.location, "packs", "0a.tmp").write_bytes(b"half")
    return os.path.join("packs", "0a.tmp")


def _stranger(store: Store) -> str:
    Path(store.location, "notes.txt").write_bytes(b"?")
    return "notes.txt"


def _tall_root(store: Store) -> str:
    dull = [item for item in numbered(9_000) if not _ends(item[0])][: NODE_SINGLE_ENTRIES_MAX + 9]
    for name, _value in dull:
        put(store, Kind.BLOB, name)
    node = leaf(*[(name, *value) for name, value in dull])
    tall = put(store, Kind.TREE, node)
    put(store, Kind.COMMIT, commit_of(tall))
    return tall.hex()


def _ends(name: bytes) -> bool:
    return int.from_bytes(digest_of(Kind.BLOB, b"\0" + name)[:4], "little") < 2**32 // 32


def _not_canonical(kind: Kind, store: Store) -> str:
    return put(store, kind, b"\x18\x01").hex()


def _small(store: Store, content: bytes = b"x") -> bytes:
    """A blob that exists."""
    return put(store, Kind.BLOB, content)


PLANTS: dict[str, list[Callable[[Store], Any]]] = {
    "catalog-unreadable": [_table_unreadable],
    "catalog-damaged": [_engine_complains],
    "catalog-behind": [_newer_pack],
    "pack-row": [_row_contradicts],
    "pack-missing": [_file_deleted],
    "pack-unreadable": [_file_unreadable],
    "pack-header": [_header_flipped, _nothing_left],
    "pack-foreign": [_foreign_pack],
    "pack-footer": [_footer_flipped, _tail_lost, _nothing_left],
    "pack-gap": [_between],
    "record-header": [_other_record_header],
    "storage-edge": [
        _recipe_without_edge,
        _recipe_with_another_edge,
        _delta_without_base,
        _delta_on_a_deeper_base,
    ],
    "copy-damaged": [_second_copy_damaged],
    "copy-condemned": [_condemned_copy_damaged],
    "object-lost": [_lose_blob, _recipe_of_other_content, _recipe_of_a_recipe],
    "object-missing": [
        lambda store: put(store, Kind.COMMIT, commit_of(NOWHERE)) and NOWHERE.hex(),
        lambda store: put(store, Kind.TREE, leaf((b"a", FILE, NOWHERE, 1))) and NOWHERE.hex(),
        lambda store: put(store, Kind.RECIPE, Recipe(1, NOWHERE, (5,)).encode()) and NOWHERE.hex(),
        lambda store: (
            put(store, Kind.TAG, Tag(ObjectId(NOWHERE), Kind.BLOB, "", "", 0).encode())
            and NOWHERE.hex()
        ),
        _event_blob_missing,
    ],
    "object-kind": [
        lambda store: put(store, Kind.COMMIT, commit_of(_small(store))) and _small(store).hex(),
        lambda store: (
            put(store, Kind.TREE, leaf((b"a", 4, _small(store), 1))) and _small(store).hex()
        ),
        lambda store: (
            put(store, Kind.RECIPE, Recipe(1, _small(store), (1,)).encode()) and _small(store).hex()
        ),
        _tall_root,
    ],
    "not-canonical": [partial(_not_canonical, kind) for kind in list(Kind)[1:]],
    "tree-statement": [
        lambda store: put(store, Kind.TREE, leaf((b"a", FILE, _small(store), 99))).hex(),
        lambda store: put(
            store,
            Kind.TREE,
            leaf((b"d", 4, put(store, Kind.TREE, leaf((b"a", FILE, _small(store), 1))), 7)),
        ).hex(),
        lambda store: large(store, other_counts).hex(),
        lambda store: large(store, other_name).hex(),
        lambda store: large(store, other_size).hex(),
        lambda store: large(store, other_end).hex(),
    ],
    "recipe-statement": [
        lambda store: put(store, Kind.RECIPE, Recipe(0, _small(store) * 2, (1, 2)).encode()).hex(),
    ],
    "journal-entry": [
        _entry_damaged,
        lambda store: tamper(store, "DELETE FROM journal WHERE seq = 2") or "entry 2",
    ],
    "journal-chain": [_chain_broken, _moved_from_elsewhere, _time_backwards],
    "journal-root": [_root_wrong],
    "journal-row": [
        _txid_column,
        partial(_archived_and, change="time_us = 5"),
        partial(_archived_and, change="epoch = 1"),
    ],
    "ref-name": [_bad_ref_name],
    "checkpoint": [_checkpoint_wrong, _checkpoint_nowhere],
    "archive-single": [partial(_archived_and, change="other = 1000")],
    "session-open": [_session_left],
    "purge-unfinished": [_purge_begun],
    "pack-unnamed": [_unnamed_pack],
    "file-temporary": [_file_left],
    "file-unknown": [_stranger],
}
