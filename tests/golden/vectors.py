"""The golden vectors: fixed values and the bytes that the format gives for them.

`EXAMPLE` is what docs/format.md section 12 shows; `vectors()` has more. Both map a name to
bytes. Nothing here is random, timed or compressed, so that every machine gives the same.
"""

from __future__ import annotations

from cas.model.encoding import encode
from cas.model.entry import (
    Entry,
    Event,
    RefChange,
    entry_hash,
    generate_txid,
    genesis_hash,
    request_digest,
    txid_from_key,
)
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digest_of
from cas.model.objects import Commit, EntryKind, Recipe, Tag
from cas.storage.codec import DELTA, RAW, RECIPE
from cas.storage.header import PackHeader
from cas.storage.pack import Made
from cas.storage.packing import PackBuilder
from cas.trees.build import build
from cas.trees.node import DIRECTORY, EMPTY_DATA, REFS, Flavour, Item, Node, encode_node, id_of

Vectors = dict[str, bytes]

STORE_ID = bytes(range(16))
LINEAGE_ID = bytes(range(16, 32))
TIME_US = 1_790_000_000_000_000

GREETING = b"hello world\n"
HALVES = b"hello ", b"world\n"

OLD = b"The quick brown fox jumps over the lazy dog.\n" * 2
NEW = b"Today: The quick brown fox jumps over the lazy dog.\nAnd the dog sleeps.\n"
FRAME = bytes.fromhex(
    "28b52ffd0000fd0000b0546f6461793a20416e64646f6720736c656570732e0a0200491086d75446"
)
"""NEW with OLD beside it. Fixed: another version of zstd may write another frame for the same."""


class Kept:
    """A node store in memory."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.nodes: dict[bytes, Node] = {}

    def load(self, node_id: bytes) -> Node:
        return self.nodes[node_id]

    def save(self, node: Node) -> bytes:
        id = id_of(self.flavour, node)
        self.nodes[id] = node
        return id


def blob_id(content: bytes) -> bytes:
    """Id of a blob."""
    return digest_of(Kind.BLOB, content)


def numbered(count: int) -> list[Item]:
    """That many files `f00000`, `f00001`, … which hold their own names."""
    names = [b"f%05d" % n for n in range(count)]
    return [(name, (int(EntryKind.FILE), blob_id(name), len(name))) for name in names]


def example() -> Vectors:
    """What section 12 of docs/format.md shows, in its order."""
    leaf = encode_node(
        0,
        [b"greeting.txt", b"sub"],
        bytes([EntryKind.FILE, EntryKind.TREE]),
        blob_id(GREETING) + DIRECTORY.empty,
        [len(GREETING), 0],
    )
    tree = Kept(DIRECTORY)
    root = build(DIRECTORY, numbered(100), tree).root
    commit = Commit(TreeId(id_of(DIRECTORY, leaf)), (), "ada", "first", TIME_US)
    tag = Tag(commit.id, Kind.COMMIT, "ada", "release", TIME_US)
    recipe = Recipe(0, b"".join(map(blob_id, HALVES)), tuple(map(len, HALVES)))
    refs = encode_node(0, [b"heads/main"], bytes([Kind.COMMIT]), commit.id, [1])
    entry = _entry(commit.id, id_of(REFS, refs))
    found: Vectors = {
        "blob": GREETING,
        "blob.id": blob_id(GREETING),
        "empty-tree": EMPTY_DATA,
        "empty-tree.id": DIRECTORY.empty,
        "leaf": leaf.data,
        "leaf.id": id_of(DIRECTORY, leaf),
        "inner": tree.nodes[root].data,
        "inner.id": root,
        "commit": commit.encode(),
        "commit.id": commit.id,
        "tag": tag.encode(),
        "tag.id": digest_of(Kind.TAG, tag.encode()),
        "recipe": recipe.encode(),
        "recipe.id": digest_of(Kind.RECIPE, recipe.encode()),
        "refs": refs.data,
        "refs.id": id_of(REFS, refs),
        "store-id": STORE_ID,
        "genesis.hash": genesis_hash(STORE_ID),
        "key": b"sprint-12",
        "key.txid": txid_from_key("sprint-12"),
        "entry": entry.encode(),
        "entry.hash": entry_hash(entry.encode()),
    }
    found["pack"] = _pack(found, leaf.data, commit.encode())
    return found


def _entry(target: ObjectId, root: bytes) -> Entry:
    changes = (RefChange("heads/main", int(Kind.COMMIT), None, target),)
    events = (Event("sprint.closed", b"\x01", {"cause": "42"}),)
    return Entry(
        seq=1,
        wall_us=TIME_US,
        epoch=0,
        time_us=TIME_US,
        actor="ada",
        message="first",
        txid=txid_from_key("sprint-12"),
        request=request_digest("ada", "first", [], [("heads/main", target, None)], [], events),
        changes=changes,
        events=events,
        root=root,
        previous=genesis_hash(STORE_ID),
    )


def _pack(found: Vectors, leaf: bytes, commit: bytes) -> bytes:
    """A pack of two chunks, their recipe, the blob rebuilt by it, a leaf and a commit."""
    objects = [
        (Kind.BLOB, HALVES[0]),
        (Kind.BLOB, HALVES[1]),
        (Kind.RECIPE, found["recipe"]),
        (Kind.TREE, leaf),
        (Kind.COMMIT, commit),
    ]
    records: list[Made] = [(digest_of(k, c), int(k), RAW, c, len(c), 0, 1) for k, c in objects]
    payload = blob_id(GREETING) + found["recipe.id"]
    records.append((blob_id(GREETING), int(Kind.BLOB), RECIPE, payload, len(GREETING), 0, 1))
    return _packed(records)


def _packed(records: list[Made]) -> bytes:
    parts: list[bytes] = []
    builder = PackBuilder(PackHeader(STORE_ID, LINEAGE_ID, bytes(16), TIME_US), parts.append)
    builder.add_many(records)
    return b"".join([*parts, builder.footer()])


def _deltas() -> Vectors:
    """A blob, and a later one as a delta of it; both in one pack."""
    payload = blob_id(OLD) + FRAME
    return {
        "delta.base": OLD,
        "delta.content": NEW,
        "delta.payload": payload,
        "delta.pack": _packed(
            [
                (blob_id(OLD), int(Kind.BLOB), RAW, OLD, len(OLD), 0, 1),
                (blob_id(NEW), int(Kind.BLOB), DELTA, payload, len(NEW), 1, 1),
            ]
        ),
    }


def vectors() -> Vectors:
    """All golden vectors: the example, then corners of every structure."""
    found = example()
    found.update(_numbers())
    found.update(_trees())
    found.update(_values())
    found.update(_journal())
    found.update(_deltas())
    return found


def _numbers() -> Vectors:
    """Integers at every width, and the other simple values."""
    edges = [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -(2**64)]
    found = {f"cbor.int.{n}": encode(n) for n in edges}
    found["cbor.map"] = encode({"b": 1, "aa": 2, "a": [True, False, None], "ü": b"\x00"})
    found["cbor.long"] = encode(["x" * 24, b"y" * 256])
    return found


def _trees() -> Vectors:
    """Roots of directories around every limit of the shape, with hostile names, and of refs."""
    found: Vectors = {}
    for count in (1, 64, 65, 1_000, 10_000):
        found[f"tree.{count}.id"] = build(DIRECTORY, numbered(count), Kept(DIRECTORY)).root
    names = [
        b"\x01",
        b" ",
        b"-",
        b"A",
        b"a",
        b"a.b",
        b"a\xff",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"x" * 255,
    ]
    odd = [(name, (int(EntryKind.LINK), blob_id(name), 2**59)) for name in sorted(names)]
    found["tree.names.id"] = build(DIRECTORY, odd, Kept(DIRECTORY)).root
    # Names that are no boundary make the forced ends at 256 entries and at 32 KiB of names.
    dull = [item for item in numbered(20_000) if not _is_end(item[0])][:600]
    found["tree.forced-count.id"] = build(DIRECTORY, dull, Kept(DIRECTORY)).root
    long = [(b"%0250d" % n, (1, blob_id(b""), 0)) for n in range(20_000)]
    long = [item for item in long if not _is_end(item[0])][:300]
    found["tree.forced-bytes.id"] = build(DIRECTORY, long, Kept(DIRECTORY)).root
    refs = [(b"heads/b%04d" % n, (3, blob_id(b"%d" % n), n + 1)) for n in range(300)]
    found["refs.300.id"] = build(REFS, refs, Kept(REFS)).root
    return found


def _is_end(name: bytes) -> bool:
    return int.from_bytes(blob_id(b"\0" + name)[:4], "little") < 2**32 // 32


def _values() -> Vectors:
    tree = TreeId(blob_id(b"tree"))
    parents = tuple(CommitId(blob_id(b"%d" % n)) for n in range(3))
    full = Commit(tree, parents, "Ada ✓", "two\nlines", 2**53, {"based_on": bytes(parents[0])})
    nested = Recipe(2, b"".join(parents), (1, 2**40, 300))
    return {
        "commit.full": full.encode(),
        "commit.full.id": full.id,
        "commit.oldest": Commit(tree, (), "", "", 0).encode(),
        "tag.blob": Tag(ObjectId(tree), Kind.BLOB, "", "m", 1).encode(),
        "recipe.nested": nested.encode(),
        "segment": encode([1, [example()["entry"]], {}]),
        "segment.id": digest_of(Kind.SEGMENT, encode([1, [example()["entry"]], {}])),
    }


def _journal() -> Vectors:
    ids = [ObjectId(blob_id(b"%d" % n)) for n in range(3)]
    events = (Event("note", b"x"), Event("file", None, {"b": "2", "a": "1"}, ids[0]))
    changes = (
        RefChange("heads/gone", 0, ids[0], None),
        RefChange("heads/moved", 3, ids[0], ids[1]),
        RefChange("tags/v1", 4, None, ids[2]),
    )
    entry = Entry(
        7, 5, 1, 6, "", "", generate_txid(6, bytes(8)), bytes(32), changes, events, ids[0], ids[1]
    )
    return {
        "entry.full": entry.encode(),
        "entry.full.hash": entry_hash(entry.encode()),
        "entry.full.txid": entry.txid,
        "request": request_digest(
            "a",
            "m",
            [
                ("heads/main", False, [(b"b", 1, ids[0]), (b"a/c", 0, None)]),
                ("heads/empty", True, []),
            ],
            [("tags/v2", ids[2], "annotated"), ("tags/v1", None, None)],
            [ids[1], ids[0], ids[1]],
            events,
        ),
    }


def to_lines(found: Vectors) -> str:
    """`name = hex`, one a line."""
    return "".join(f"{name} = {value.hex()}\n" for name, value in found.items())


def from_lines(text: str) -> Vectors:
    """What `to_lines` has written; lines that begin with # are left out."""
    rows = [line.split(" = ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: bytes.fromhex(value) for name, value in rows}
