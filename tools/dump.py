#!/usr/bin/env python3
"""Print the bytes of a store in words: `dump.py PATH [WHAT]`.

    dump.py FILE.pack          a pack file: header, every record, footer
    dump.py STORE              the catalog: meta, packs, vectors, sessions, checkpoints, head
    dump.py STORE journal      every journal entry (`journal 7`: that one)
    dump.py STORE pack 3       the pack with that number, inline or file
    dump.py STORE ID           an object by its id or 8 digits of it: node, commit, tag, recipe
    dump.py FILE --as commit   a file that holds the bytes of one node, commit, tag, recipe, entry

Nothing is changed and nothing is believed: a damaged part is printed as far as it goes, with what
is wrong with it, and the rest follows. Exit code 1 when something was damaged.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cas  # noqa: E402
from cas.catalog.catalog import EntryRow  # noqa: E402
from cas.errors import CasError, Corrupt  # noqa: E402
from cas.history.store import Store  # noqa: E402
from cas.maintenance.scan import id_of_record, scan_records  # noqa: E402
from cas.model.encoding import decode  # noqa: E402
from cas.model.entry import Entry, entry_hash, txid_floor  # noqa: E402
from cas.model.ids import Kind, digest_of  # noqa: E402
from cas.model.names import printable  # noqa: E402
from cas.model.objects import Commit, EntryKind, Recipe, Tag  # noqa: E402
from cas.objects.packs import file_name  # noqa: E402
from cas.storage.header import PACK_HEADER_BYTES, decode_header  # noqa: E402
from cas.storage.pack import (  # noqa: E402
    TRAILER_BYTES,
    WHOLE_PACK,
    check_footer,
    decode_footer,
    footer_length,
)
from cas.storage.record import RECORD_HEADER_BYTES  # noqa: E402
from cas.trees.node import Node, decode_node  # noqa: E402

Lines = Iterator[str]

CODECS = {0: "raw", 1: "zstd", 2: "recipe", 3: "delta", 4: "dictionary"}
ROLES = {1: "base", 2: "dictionary", 3: "recipe"}
SHOWN_BYTES = 64


def kind_name(kind: int) -> str:
    """Name of a kind of object."""
    return Kind(kind).name.lower() if kind in list(Kind) else f"kind {kind}?"


def when(time_us: int) -> str:
    """A time of the store for people, and as it stands."""
    try:
        text = datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        text = "no date"
    return f"{time_us} ({text})"


def indent(lines: Iterable[str], by: str = "  ") -> Lines:
    """Lines further to the right."""
    return (by + line for line in lines)


class Dump:
    """Prints; remembers whether anything was damaged."""

    def __init__(self) -> None:
        self.damaged = False

    def fault(self, error: object) -> str:
        """A line that says what is wrong."""
        self.damaged = True
        return f"DAMAGED: {error}"

    # -- packs -------------------------------------------------------------------------------

    def pack(self, data: bytes, footer: bytes | None, label: str) -> Lines:
        """A whole pack: `footer` apart for an inline one, else at the end of `data`."""
        body_bytes = len(data)
        if footer is None:
            try:
                body_bytes -= footer_length(data[-TRAILER_BYTES:], label)
            except Corrupt as error:
                yield self.fault(error)
            footer = data[body_bytes:] if 0 < body_bytes < len(data) else b""
        yield f"pack {label}: {body_bytes:,} bytes of body, {len(footer):,} of footer"
        yield from self.header(data[:PACK_HEADER_BYTES], label)
        try:
            slots = decode_footer(b"", footer, label, verified=True).slots()
            stated = {slot.offset: slot.id for slot in slots}
        except Corrupt:
            stated = {}  # told of where the footer is printed
        yield from self.records(data, min(max(body_bytes, 0), len(data)), stated, label)
        yield from self.footer(data[:PACK_HEADER_BYTES], footer, label)

    def header(self, data: bytes, label: str) -> Lines:
        """The 80 bytes in front."""
        try:
            header = decode_header(data, label)
        except CasError as error:
            yield self.fault(error)
            return
        yield f"header: store {header.store_id.hex()} lineage {header.lineage_id.hex()}"
        yield f"        session {header.session_id.hex()} birth {when(header.birth_us)}"

    def records(self, data: bytes, end: int, stated: Mapping[int, bytes], label: str) -> Lines:
        """Every record that a scan finds, and what lies between; `stated` are ids by offset."""
        covered = PACK_HEADER_BYTES
        for offset, header in scan_records(lambda a, n: data[a : a + n], end, label):
            if offset > covered:
                yield self.fault(f"{offset - covered} bytes at {covered} are no record")
            payload = data[offset + RECORD_HEADER_BYTES :][: header.stored_bytes]
            id = id_of_record(header, payload)
            text = "does not decode alone" if id is None else id.hex()
            yield (
                f"record @{offset}: {kind_name(header.kind)} {text} "
                f"{CODECS.get(header.codec, header.codec)} {header.stored_bytes} -> "
                f"{header.raw_bytes} bytes, depth {header.depth}, group {header.group}"
            )
            if stated.get(offset, id) != id and id is not None:
                yield self.fault(f"the footer says that this is {stated[offset].hex()}")
            covered = offset + RECORD_HEADER_BYTES + header.stored_bytes
        if covered < end:
            yield self.fault(f"{end - covered} bytes at {covered} are no record")

    def footer(self, head: bytes, data: bytes, label: str) -> Lines:
        """Slots and edges."""
        try:
            footer = decode_footer(head, data, label, verified=True)
            yield f"footer: {footer.count} slots, {footer.edge_count} edges"
            for number, slot in enumerate(footer.slots()):
                yield (
                    f"slot {number}: {slot.id.hex()} @{slot.offset} {kind_name(slot.kind)} "
                    f"{CODECS.get(slot.codec, slot.codec)} {slot.stored_bytes} -> {slot.raw_bytes}"
                )
            for edge in footer.all_edges():
                role = ROLES.get(edge.role, str(edge.role))
                who = "the pack" if edge.slot == WHOLE_PACK else f"slot {edge.slot}"
                yield f"edge: {who} needs {role} {edge.id.hex()}"
            decode_footer(head, data, label)
            check_footer(footer, label)
        except Corrupt as error:
            yield self.fault(error)

    # -- objects -----------------------------------------------------------------------------

    def object(self, kind: int, content: bytes) -> Lines:
        """An object in words, after its kind, id and size."""
        yield f"{kind_name(kind)} {digest_of(kind, content).hex()}, {len(content):,} bytes"
        try:
            yield from indent(self._object(kind, content))
        except Corrupt as error:
            yield self.fault(error)

    def _object(self, kind: int, content: bytes) -> Lines:
        if kind in (Kind.TREE, Kind.REFS):
            return self._node(decode_node(content, kind), kind)
        if kind == Kind.COMMIT:
            return self._commit(Commit.decode(content))
        if kind == Kind.TAG:
            return self._tag(Tag.decode(content))
        if kind == Kind.RECIPE:
            return self._recipe(Recipe.decode(content))
        if kind == Kind.SEGMENT:
            return self._segment(decode(content))
        rest = "" if len(content) <= SHOWN_BYTES else f" … and {len(content) - SHOWN_BYTES:,} more"
        return iter([repr(content[:SHOWN_BYTES]) + rest])

    @staticmethod
    def _node(node: Node, kind: int) -> Lines:
        what = "leaf" if node.level == 0 else f"inner node of level {node.level}"
        yield f"{what}, {len(node)} entries, {node.count} at or below it"
        for index, name in enumerate(node.names):
            tag, id, number = node.value(index)
            if node.level:
                text = f"{tag} entries"
            elif kind == Kind.TREE:
                text = EntryKind(tag).name.lower()
            else:
                text = kind_name(tag)
            counted = f"seq {number}" if kind == Kind.REFS else f"{number} bytes"
            yield f"{text:12} {id.hex()} {counted:>12} {printable(name)}"

    @staticmethod
    def _commit(commit: Commit) -> Lines:
        yield f"tree {commit.tree}"
        yield from (f"parent {parent}" for parent in commit.parents)
        yield f"author {commit.author!r} time {when(commit.time_us)}"
        yield f"message {commit.message!r}"
        yield from (f"extra {key} = {value!r}" for key, value in sorted(commit.extras.items()))

    @staticmethod
    def _tag(tag: Tag) -> Lines:
        yield f"target {kind_name(tag.target_kind)} {tag.target}"
        yield f"tagger {tag.tagger!r} time {when(tag.time_us)}"
        yield f"message {tag.message!r}"

    @staticmethod
    def _recipe(recipe: Recipe) -> Lines:
        yield f"level {recipe.level}, {len(recipe.sizes)} spans, {recipe.size:,} bytes"
        for index, size in enumerate(recipe.sizes):
            yield f"{recipe.span(index).hex()} {size}"

    def _segment(self, fields: Any) -> Lines:
        first, entries, _extras = fields
        yield f"entries from {first}"
        for data in entries:
            yield from self.entry(data)

    def entry(self, data: bytes, row: EntryRow | None = None) -> Lines:
        """A journal entry; `row` adds what the catalog says beside it."""
        hash = entry_hash(data)
        if row is not None and row.hash != hash:
            yield self.fault(f"entry {row.seq} has hash {hash.hex()}, its row {row.hash.hex()}")
        try:
            entry = Entry.decode(data)
        except Corrupt as error:
            yield self.fault(error)
            return
        made = "generated" if txid_floor(entry.txid) is not None else "from a key"
        yield f"entry {entry.seq} hash {hash.hex()}"
        yield f"  previous {entry.previous.hex()}"
        yield f"  time {when(entry.time_us)} wall {entry.wall_us} epoch {entry.epoch}"
        yield f"  actor {entry.actor!r} message {entry.message!r}"
        yield f"  txid {entry.txid.hex()} ({made}) request {entry.request.hex()}"
        for change in entry.changes:
            yield f"  {change.ref}: {change.old} -> {change.new}"
        for event in entry.events:
            body = f"blob {event.blob}" if event.blob is not None else repr(event.body)
            yield f"  event {event.type!r} {dict(event.headers)} {body}"
        yield f"  root {entry.root.hex()}"

    # -- the catalog -------------------------------------------------------------------------

    def catalog(self, store: Store) -> Lines:
        """Every table but the entries themselves."""
        catalog = store.objects.catalog
        meta = catalog.meta
        yield f"store {meta.store_id.hex()} lineage {meta.lineage_id.hex()} format {meta.format}"
        yield f"features {' '.join(meta.features) or 'none'} created {when(meta.created_us)}"
        with catalog.read() as reader:
            head = reader.head()
            yield f"head: entry {head.seq} {head.hash.hex()}"
            yield (
                f"catalog version {head.version}, removals up to {head.removal_version}, "
                f"condemn sequence {head.condemn_seq}"
            )
            for row in reader.packs():
                name = "inline" if row.name is None else file_name(row.name)
                yield f"pack {row.number}: {name} body {row.body_bytes:,} bytes"
            for number, version, bits in reader.vectors():
                gone = sum(byte.bit_count() for byte in bits)
                yield f"vector of pack {number}: version {version}, {gone} slots gone"
            for session in reader.sessions():
                opened = when(session.opened_us)
                yield f"session {session.id.hex()} fence {session.fence} opened {opened}"
            seq = head.seq
            while (found := reader.checkpoint(seq)) is not None:
                yield f"checkpoint at {found.seq}: {found.root.hex()}"
                seq = found.seq - 1

    def journal(self, store: Store, seq: int | None) -> Lines:
        """One entry, or all."""
        after = 0 if seq is None else seq - 1
        while True:
            with store.objects.catalog.read() as reader:
                rows = reader.entries(after, 1 if seq is not None else 1024)
            for row in rows:
                yield from self.entry(row.entry, row)
                after = row.seq
            if seq is not None or not rows:
                return

    def pack_of(self, store: Store, number: int) -> Lines:
        """The pack of this number in the catalog."""
        objects = store.objects
        with objects.catalog.read() as reader:
            rows = [row for row in reader.packs(number - 1) if row.number == number]
            body = reader.body(number)
        if not rows:
            yield f"there is no pack {number}"
        elif rows[0].name is None:
            yield from self.pack(body or b"", rows[0].footer or b"", f"inline pack {number}")
        else:
            file = file_name(rows[0].name)
            data = objects.bucket.read(file, 0, objects.bucket.size(file))
            yield from self.pack(data, None, file)


def lines_of(dump: Dump, path: Path, what: list[str], as_kind: str | None) -> Lines:
    """What was asked for."""
    if path.is_file():
        data = path.read_bytes()
        if as_kind is None:
            yield from dump.pack(data, None, path.name)
        elif as_kind == "entry":
            yield from dump.entry(data)
        else:
            kind = {"node": Kind.TREE}.get(as_kind) or Kind[as_kind.upper()]
            yield from dump.object(kind, data)
        return
    with cas.open(path, read_only=True) as store:
        word = what[0] if what else ""
        if not word:
            yield from dump.catalog(store)
        elif word == "journal":
            yield from dump.journal(store, int(what[1]) if len(what) > 1 else None)
        elif word == "pack" and len(what) > 1:
            yield from dump.pack_of(store, int(what[1]))
        elif re.fullmatch(r"[0-9a-f]{8,64}", word):
            yield from dump.object(*store.objects.read(store.find(word)))
        else:
            yield f"{' '.join(what)!r} is nothing to print; see --help"


def main(words: list[str]) -> int:
    """Print; 1 when something was damaged, 2 when nothing could be opened."""
    parser = argparse.ArgumentParser(
        prog="dump.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("what", nargs="*")
    kinds = ["node", "entry", *[kind.name.lower() for kind in Kind]]
    parser.add_argument("--as", dest="as_kind", choices=kinds, help="what a file holds")
    options = parser.parse_args(words)
    dump = Dump()
    try:
        for line in lines_of(dump, options.path, options.what, options.as_kind):
            print(line)
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing is left to be flushed into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CasError, OSError) as error:
        print(f"dump: {error}", file=sys.stderr)
        return 2
    return 1 if dump.damaged else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
