"""`cas stats`: what a store holds, and what it takes on the disk."""

from __future__ import annotations

from typing import Any, Final

import click
from attrs import asdict

from cas.cli.form import columns, count, size
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.history.revision import when
from cas.maintenance.stats import StoreStats, stats

_RIGHT: Final = frozenset((1, 2, 3))


@click.command("stats", cls=CasCommand)
@pass_front
def stats_command(front: Front) -> None:
    """Show what the store holds and what it takes.

    Objects by kind, each counted once: how many, their bytes as they are read, and as they are
    stored. Then packs, history, and the files of the store. No content is read.
    """
    with front.store() as store:
        found = stats(store)
    if front.out.json:
        front.out.document("stats", **_fields(found))
        return
    rows = [("", "objects", "bytes", "stored")]
    for kind in found.kinds:
        numbers = (f"{kind.object_count:,}", _exact(kind.content_bytes), size(kind.stored_bytes))
        rows.append((kind.kind.name.lower(), *numbers))
    total = (f"{found.object_count:,}", _exact(found.content_bytes), size(found.stored_bytes))
    rows.append(("all", *total))
    front.out.lines(columns(rows, _RIGHT))
    front.out.lines(["", *columns(_about(found)), "", *columns(_files(found), frozenset((1,)))])


def _exact(count_bytes: int) -> str:
    return f"{count_bytes:,}"


def _about(found: StoreStats) -> list[tuple[str, str]]:
    """Packs and history, in words."""
    files = count(found.file_pack_count, "pack file")
    rows = [
        (
            "packs",
            f"{files}, {size(found.file_pack_bytes)}; {found.inline_pack_count:,} inline in the "
            f"catalog, {size(found.inline_pack_bytes)}",
        )
    ]
    if found.bucket is not None:
        rows.append(("bucket", found.bucket))
    if found.unreadable_pack_count:
        packs = count(found.unreadable_pack_count, "pack")
        rows.append(("damaged", f"{packs} cannot be read; run `cas fsck`"))
    if found.duplicate_count:
        copies = count(found.duplicate_count, "further copy", "further copies")
        rows.append(("twice", f"{copies} of objects, {size(found.duplicate_bytes)}"))
    if found.chunked_count:
        blobs = count(found.chunked_count, "large blob")
        rows.append(("chunked", f"{blobs}, {size(found.chunked_bytes)} as one piece each"))
    branches = count(found.branch_count, "branch", "branches")
    rows.append(("refs", f"{branches}, {count(found.tag_count, 'tag')}"))
    entries = count(found.entry_count, "entry", "entries")
    if found.oldest_us is not None and found.newest_us is not None:
        entries += f", {when(found.oldest_us)} to {when(found.newest_us)}"
        mirrored = f"up to entry {found.mirrored_seq:,}" if found.mirrored_seq else "not yet"
        entries += f"; in packs too: {mirrored}"
    rows.append(("journal", entries))
    if found.verified_us is not None:
        rows.append(("checked", f"every byte of every pack file since {when(found.verified_us)}"))
    return rows


def _files(found: StoreStats) -> list[tuple[str, str]]:
    """What the folder takes, by what it is."""
    parts = asdict(found.files)
    return [("on disk", "bytes"), *((name, _exact(value)) for name, value in parts.items())]


def _fields(found: StoreStats) -> dict[str, Any]:
    return {
        "objects": {
            kind.kind.name.lower(): {
                "count": kind.object_count,
                "size": kind.content_bytes,
                "stored": kind.stored_bytes,
            }
            for kind in found.kinds
        },
        "packs": {
            "files": found.file_pack_count,
            "files_size": found.file_pack_bytes,
            "inline": found.inline_pack_count,
            "inline_size": found.inline_pack_bytes,
            "unreadable": found.unreadable_pack_count,
        },
        "duplicates": {"count": found.duplicate_count, "size": found.duplicate_bytes},
        "chunked": {"count": found.chunked_count, "size": found.chunked_bytes},
        "entries": found.entry_count,
        "mirrored": found.mirrored_seq,
        "verified": None if found.verified_us is None else when(found.verified_us, exact=True),
        "branches": found.branch_count,
        "tags": found.tag_count,
        "oldest": None if found.oldest_us is None else when(found.oldest_us, exact=True),
        "newest": None if found.newest_us is None else when(found.newest_us, exact=True),
        "disk": asdict(found.files),
        "bucket": found.bucket,
    }


COMMANDS: Final = {"stats": stats_command}
