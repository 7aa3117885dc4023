"""Bytes written by any version of this format mean the same for ever."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from types import ModuleType

import cbor2
import pytest
from blake3 import blake3

import cas
from cas.errors import TransactionReused
from cas.maintenance.fsck.check import fsck
from cas.model.entry import Entry
from cas.model.ids import Kind
from cas.model.objects import Commit, Recipe, Tag
from cas.trees.node import decode_node
from tests.golden.store import HERE, describe
from tests.golden.vectors import Vectors, example, from_lines, to_lines, vectors

ROOT = HERE.parents[1]
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
STORES = sorted(path.parent / path.stem for path in HERE.glob("store-*.json"))

ARCHIVED = [path for path in STORES if path.name.endswith("-archived")]

DECODERS = {
    "commit": Commit.decode,
    "tag": Tag.decode,
    "recipe": Recipe.decode,
    "entry": Entry.decode,
}


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cas_golden", ROOT / "tools" / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _tool()


@pytest.fixture(scope="module")
def shown() -> Vectors:
    """The worked example as it stands in the document."""
    return golden.read_example(ROOT)


def test_the_code_gives_the_vectors() -> None:
    """Every golden vector is what the code of today makes of the same values."""
    _version, kept = golden.read(ROOT)
    assert golden.differences(kept, vectors()) == []
    assert len(kept) >= 50


def test_the_document_shows_what_the_code_gives(shown: Vectors) -> None:
    """The worked example of docs/format.md is complete, in order, and true."""
    assert to_lines(shown) == to_lines(example())


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_values_decode_and_encode_to_the_same_bytes(name: str) -> None:
    """Every vector of a structured value is accepted as canonical and gives its bytes again."""
    found = {k: v for k, v in vectors().items() if k.split(".")[0] == name and "id" not in k}
    bodies = [v for k, v in found.items() if not k.endswith((".hash", ".txid"))]
    assert len(bodies) >= 2
    for data in bodies:
        assert DECODERS[name](data).encode() == data


def test_nodes_decode_strictly() -> None:
    """The nodes of the example pass every rule of section 5.1."""
    for name, kind in (("leaf", 2), ("inner", 2), ("empty-tree", 2), ("refs", 6)):
        assert decode_node(example()[name], kind).data == example()[name]


def _contexts() -> dict[int, str]:
    """Kind -> hash context, read from the table of section 2."""
    rows = re.findall(r"^\| [\w ]+ \| (\d) \| .*`(cas 2026-11 [\w ]+)` \|$", FORMAT, re.M)
    return {int(number): context for number, context in rows}


def _hash(kind: int, content: bytes) -> bytes:
    """An id as section 2 tells it, without a line of the package."""
    contexts = _contexts()
    if kind == 1:
        return blake3(content).digest()
    return blake3(content, derive_key_context=contexts[kind]).digest()


def test_ids_follow_from_the_document_alone(shown: Vectors) -> None:
    """Whoever reads section 2 and owns BLAKE3 gets every id, hash and txid of the example."""
    assert sorted(_contexts()) == [2, 3, 4, 5, 6, 7]
    kinds = {"blob": 1, "leaf": 2, "inner": 2, "empty-tree": 2, "commit": 3, "tag": 4}
    for name, kind in {**kinds, "recipe": 5, "refs": 6}.items():
        assert _hash(kind, shown[name]) == shown[f"{name}.id"]

    def derived(context: str, data: bytes) -> bytes:
        assert f"`{context}`" in FORMAT
        return blake3(data, derive_key_context=context).digest()

    assert derived("cas 2026-11 journal entry v1", shown["entry"]) == shown["entry.hash"]
    genesis = derived("cas 2026-11 journal genesis v1", shown["store-id"])
    assert genesis == shown["genesis.hash"]
    txid = derived("cas 2026-11 transaction key v1", shown["key"])[:16]
    assert bytes([txid[0] | 0x80]) + txid[1:] == shown["key.txid"]
    fields = cbor2.loads(shown["entry"])
    moves = [["heads/main", shown["commit.id"], None]]
    request = [fields[4], fields[5], [], moves, [], fields[9], {}]
    encoded = cbor2.dumps(request, canonical=True)
    assert fields[7] == derived("cas 2026-11 request digest v1", encoded)
    assert (fields[6], fields[10], fields[11]) == (shown["key.txid"], shown["refs.id"], genesis)


def test_the_pack_can_be_read_from_the_document_alone(shown: Vectors) -> None:
    """A reader written from section 6 finds and proves every object of the example's pack."""
    pack = shown["pack"]
    magic, version, suite, zero = struct.unpack_from("<8sHHI", pack)
    assert (magic, version, suite, zero) == (b"casPACK\n", 1, 0, 0)
    assert pack[16:32] == shown["store-id"]
    assert struct.unpack_from("<I", pack, 76)[0] == zlib.crc32(pack[:76])
    digest, length, end = struct.unpack_from("<32sI4s", pack, len(pack) - 40)
    body_bytes = len(pack) - length
    footer = pack[body_bytes:]
    assert end == bytes.fromhex("CA534531")
    assert blake3(pack[:80] + footer[:-40]).digest() == digest
    magic, count, edge_count, stated = struct.unpack_from("<8sIIQ", footer)
    assert (magic, count, edge_count, stated) == (b"casFOOT\n", 6, 1, body_bytes)
    slots = list(struct.iter_unpack("<32sIIQBBBBI", footer[24 : 24 + 56 * count]))
    assert slots == sorted(slots)
    covered = 80
    for id, offset, stored, raw, kind, codec, depth, flags, group in sorted(
        slots, key=lambda slot: slot[1]
    ):
        head = pack[offset : offset + 28]
        assert offset == covered
        fields = struct.pack("<BBBBIIQ", kind, codec, depth, flags, group, stored, raw)
        assert head[:24] == bytes.fromhex("CA535231") + fields
        assert struct.unpack("<I", head[24:])[0] == zlib.crc32(head[:24])
        payload = pack[offset + 28 : offset + 28 + stored]
        if codec == 2:
            assert payload == id + shown["recipe.id"]
            assert (id, raw) == (shown["blob.id"], len(shown["blob"]))
        else:
            assert _hash(kind, payload) == id
        covered = offset + 28 + stored
    assert covered == body_bytes
    slot, role, target = struct.unpack_from("<II32s", footer, 24 + 56 * count)
    assert (slots[slot][0], role, target) == (shown["blob.id"], 3, shown["recipe.id"])


@pytest.mark.parametrize("kept", STORES, ids=lambda path: path.name)
def test_a_kept_store_reads_the_same(kept: Path, tmp_path: Path) -> None:
    """A store of any version opens, is whole, says what it said, and can be written to."""
    folder = tmp_path / "store"
    shutil.copytree(kept, folder)
    expected = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    with cas.open(folder, read_only=True) as store:
        assert describe(store) == expected
        report = fsck(store)
        assert report.ok, report.findings
        assert [f.code for f in report.findings] == []
    assert cas.adopt(folder, fork=True) is True
    with cas.open(folder) as store:
        with store.begin() as tx:
            tx.branch("main")["new.txt"] = b"new"
            tx.commit()
        store.spill()
        assert fsck(store).ok
        assert len(expected["files"]) + 1 == len(store.snapshot("main"))


@pytest.mark.parametrize("kept", STORES, ids=lambda path: path.name)
def test_a_kept_store_comes_back_from_its_packs(kept: Path, tmp_path: Path) -> None:
    """Without its catalog a store of any version gives refs, files and journal again, wherever its
    entries lay: all of what packs hold.
    """
    folder = tmp_path / "store"
    shutil.copytree(kept, folder)
    expected = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    assert cas.adopt(folder, fork=True) is True
    with cas.open(folder) as store:
        store.mirror()
    (folder / "catalog.sqlite").unlink()
    with cas.plan_repair(folder, keep_loose=True) as plan:
        plan.apply()
    with cas.open(folder) as store:
        assert describe(store) == expected
        assert fsck(store).ok


@pytest.mark.parametrize("kept", ARCHIVED, ids=lambda path: path.name)
def test_archived_entries_of_a_kept_store_are_no_rows(kept: Path, tmp_path: Path) -> None:
    """Old entries of this store lie in packs alone: a reader finds them by number, time and key,
    tells a key that was used, and holds each of them in two packs.
    """
    folder = tmp_path / "store"
    shutil.copytree(kept, folder)
    expected = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    with cas.open(folder, read_only=True) as store:
        assert "archive" in store.objects.meta.features
        with store.objects.catalog.read() as reader:
            rows = reader.archived()
        assert (rows[0].first_seq, len(rows)) == (1, 2)
        assert all(row.pack != row.other for row in rows)
        assert store.at(2).seq == 2
        found = store.outcome("sprint-12")
        assert found is not None
        assert rows[1].first_seq <= found.seq <= rows[1].last_seq
        entry = next(entry for entry in expected["journal"] if entry[0] == found.seq)
        assert entry[4] == found.txid.hex()
    assert cas.adopt(folder, fork=True) is True
    with cas.open(folder) as store:
        with store.begin(key="sprint-12") as tx:
            tx.branch("main")["other"] = b"1"
            with pytest.raises(TransactionReused):
                tx.commit()
        store.gc(grace_us=0)
        assert describe(store) == expected
        assert fsck(store).ok


def test_there_are_stores_of_this_version() -> None:
    """The format that is written today has golden stores, with and without archived entries."""
    kept = {path.relative_to(ROOT).as_posix() for path in STORES}
    assert {golden.STORE, f"{golden.STORE}-archived"} <= kept


def _copy(root: Path) -> Path:
    """The files that the tool reads and writes, elsewhere."""
    stores = [golden.STORE + ending for ending in golden.MAKERS]
    for name in (golden.FILE, golden.DOCUMENT, *(f"{kept}.json" for kept in stores)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for kept in stores:
        shutil.copytree(ROOT / kept, root / kept)
    return root


def _change(root: Path, old: str, new: str) -> None:
    file = root / golden.FILE
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_writing_what_is_there_changes_nothing(tmp_path: Path) -> None:
    """`--write` on an unchanged format gives the same files, and a comparison is silent."""
    root = _copy(tmp_path)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert golden.main([], root) == 0
    assert golden.main(["--write"], root) == 0
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_a_changed_vector_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A format that changed without a new version is told of, and never written."""
    root = _copy(tmp_path)
    _change(root, "blob = 68", "blob = 69")
    kept = (root / golden.FILE).read_bytes()
    assert golden.main([], root) == 1
    assert golden.main(["--write"], root) == 1
    assert "blob changed" in capsys.readouterr().out
    assert (root / golden.FILE).read_bytes() == kept


def test_a_new_version_may_change_vectors(tmp_path: Path) -> None:
    """Vectors of an older version are replaced once `FORMAT_VERSION` is larger."""
    root = _copy(tmp_path)
    _change(root, "blob = 68", "blob = 69")
    _change(root, "# format 1", "# format 0")
    assert golden.main(["--write"], root) == 0
    assert golden.main([], root) == 0


def test_only_what_is_not_released_may_change_freely(tmp_path: Path) -> None:
    """`--unreleased` works while the document says so, and not a day longer."""
    root = _copy(tmp_path)
    _change(root, "blob = 68", "blob = 69")
    document = root / golden.DOCUMENT
    released = document.read_text(encoding="utf-8").replace(golden.NOT_RELEASED, "Released")
    was_open = golden.NOT_RELEASED in FORMAT
    assert golden.main(["--write", "--unreleased"], root) == (0 if was_open else 1)
    _change(root, "blob = 68" if was_open else "blob = 69", "blob = 6a")
    document.write_text(released, encoding="utf-8")
    assert golden.main(["--write", "--unreleased"], root) == 1


@pytest.mark.parametrize("ending", golden.MAKERS)
def test_a_store_that_says_something_else_is_refused(tmp_path: Path, ending: str) -> None:
    """A kept store is never replaced by one with another content."""
    root = _copy(tmp_path)
    described = root / f"{golden.STORE}{ending}.json"
    described.write_text(described.read_text(encoding="utf-8").replace("last.txt", "lost.txt"))
    assert golden.main(["--write"], root) == 1


def test_new_vectors_may_be_added() -> None:
    """What the file does not have yet is no change of the format."""
    assert golden.differences({"a": b"1"}, {"a": b"1", "b": b"2"}) == []
    assert golden.differences({"a": b"1", "b": b"2"}, {"a": b"3"}) == ["a changed", "b is gone"]


def test_lines_survive_the_trip() -> None:
    """Vectors are the same after they were written and read."""
    assert from_lines("# format 1\n" + to_lines(vectors())) == vectors()
    assert Kind.SEGMENT in _contexts()
