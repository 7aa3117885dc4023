"""Archives: what goes out is determined by the directory, what comes in is all or nothing."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import BadArchive, CasError, Invalid, InvalidName, LimitExceeded, UnsafePath
from cas.history.store import Store
from cas.limits import ARCHIVE_HEADER_BYTES_MAX
from cas.model.ids import TreeId
from cas.model.names import to_text
from cas.model.objects import EntryKind, TreeEntry
from cas.trees.node import DIRECTORY
from cas.worktree import tar
from cas.worktree.exporter import export_tar, export_zip
from cas.worktree.unpacker import unpack_tar

Files = dict[bytes, tuple[EntryKind, bytes]]
EMPTY = DIRECTORY.empty


def save(store: Store, files: Files, branch: str = "main") -> TreeEntry:
    """A commit of exactly these files; the root of its directory."""
    with store.begin() as tx:
        edit = tx.branch(branch, allow_empty=True)
        edit.put_tree(TreeId(EMPTY))
        for path, (kind, content) in files.items():
            edit.put(path, content, kind=kind)
        tx.commit()
    entry = store.snapshot(branch).entry("")
    assert entry is not None
    return entry


def tar_of(store: Store, entry: TreeEntry) -> bytes:
    """A directory as a tar archive."""
    return b"".join(export_tar(store.objects, entry, "name"))


def unpack(store: Store, data: bytes, **how: bool) -> TreeEntry:
    """Take an archive in; the root of what it became."""
    unpack_tar(store, io.BytesIO(data), branch="in", **how)
    entry = store.snapshot("in").entry("")
    assert entry is not None
    return entry


SAMPLE: Files = {
    b"a": (EntryKind.FILE, b"content\n"),
    b"bin/run": (EntryKind.EXECUTABLE, b"#!/bin/sh\n"),
    b"bin/deep/er/empty": (EntryKind.FILE, b""),
    b"link": (EntryKind.LINK, b"bin/run"),
    b"\xc3\xa9t\xc3\xa9": (EntryKind.FILE, b"utf-8"),
    b"raw\xff": (EntryKind.FILE, b"no utf-8"),
    b"n" * 120 + b"/" + b"m" * 200: (EntryKind.FILE, b"long name"),
    b"far": (EntryKind.LINK, b"bin/" + b"../bin/" * 40 + b"run"),
    b"blocks": (EntryKind.FILE, bytes(1024)),
    b"big": (EntryKind.FILE, bytes(range(256)) * 40_000),
}


def test_an_export_is_read_by_the_standard_library(memory: Store) -> None:
    """tarfile and zipfile find every file, link, mode and content of an export."""
    entry = save(memory, SAMPLE)
    with tarfile.open(fileobj=io.BytesIO(tar_of(memory, entry))) as archive:
        members = {m.name.encode("utf-8", "surrogateescape"): m for m in archive.getmembers()}
        for path, (kind, content) in SAMPLE.items():
            member = members[path]
            if kind == EntryKind.LINK:
                assert member.linkname.encode() == content
                continue
            file = archive.extractfile(member)
            assert file is not None
            assert file.read() == content
            assert member.mode == (0o755 if kind == EntryKind.EXECUTABLE else 0o644)
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        assert members[b"bin/deep"].isdir()
    data = b"".join(export_zip(memory.objects, entry, "name"))
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        infos = {info.filename: info for info in found.infolist()}
        for path, (kind, content) in SAMPLE.items():
            name = path.decode("utf-8") if path != b"raw\xff" else path.decode("cp437")
            assert found.read(infos[name]) == content
            executable = bool(infos[name].external_attr >> 16 & 0o100)
            assert executable == (kind != EntryKind.FILE)


def test_gnu_tar_reads_an_export(memory: Store, tmp_path: Path) -> None:
    """The tar of the system unpacks an export to the same files."""
    entry = save(memory, SAMPLE)
    subprocess.run(
        ["tar", "-xf", "-"], cwd=tmp_path, input=tar_of(memory, entry), check=True, timeout=60
    )
    for path, (kind, content) in SAMPLE.items():
        file = tmp_path / to_text(path)
        if kind == EntryKind.LINK:
            assert file.is_symlink()
        else:
            assert file.read_bytes() == content
            assert bool(file.stat().st_mode & 0o100) == (kind == EntryKind.EXECUTABLE)


def test_the_same_directory_is_the_same_archive(memory: Store, tmp_path: Path) -> None:
    """Commit, time, author, branch, store and how it is stored do not show in an export."""
    entry = save(memory, SAMPLE)
    tars, zips = tar_of(memory, entry), b"".join(export_zip(memory.objects, entry, "x"))
    with cas.open(tmp_path / "other", create=True) as other:
        again = save(other, dict(reversed(SAMPLE.items())), "elsewhere")
        other.spill()
        assert tar_of(other, again) == tars
        assert b"".join(export_zip(other.objects, again, "x")) == zips


NAMES = st.sampled_from([b"a", b"B", b"c\xff", b"\xc3\xbc", b"long" * 40, b"d.txt", b" ", b"\n"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
CONTENTS = st.one_of(
    st.tuples(st.sampled_from([EntryKind.FILE, EntryKind.EXECUTABLE]), st.binary(max_size=1500)),
    st.tuples(st.just(EntryKind.LINK), PATHS),
)


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(PATHS, CONTENTS, max_size=12), directory=st.none() | PATHS)
def test_export_and_import_are_the_identity(files: Files, directory: bytes | None) -> None:
    """What is exported and taken in again has the same tree, empty directories included."""
    files = {
        path: value
        for path, value in files.items()
        if not any(other != path and other.startswith(path + b"/") for other in files)
    }
    with cas.open(":memory:") as store:
        save(store, {}, "bare")  # so that there is an empty directory to name
        save(store, files)
        with store.begin() as tx:
            edit = tx.branch("main", allow_empty=True)
            free = directory is not None and not any(
                path == directory
                or path.startswith(directory + b"/")
                or directory.startswith(path + b"/")
                for path in files
            )
            if free and directory is not None:
                edit.put_entry(directory, TreeEntry(EntryKind.TREE, TreeId(EMPTY), 0))
            tx.commit()
        entry = store.snapshot("main").entry("")
        assert entry is not None
        data = tar_of(store, entry)
        assert unpack(store, data, trusted=True) == entry
        assert tar_of(store, unpack(store, data, trusted=True)) == data


def made_by_tarfile(form: int) -> bytes:
    """SAMPLE as Python's tarfile writes it, with a hard link and './' before each name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for path, (kind, content) in SAMPLE.items():
            info = tarfile.TarInfo("./" + to_text(path))
            if kind == EntryKind.LINK:
                info.type, info.linkname = tarfile.SYMTYPE, to_text(content)
                archive.addfile(info)
            else:
                info.size, info.mtime = len(content), 1_234_567
                info.mode = 0o6755 if kind == EntryKind.EXECUTABLE else 0o600
                archive.addfile(info, io.BytesIO(content))
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "./bin/run"
        archive.addfile(hard)
    return out.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_archives_of_others_are_taken_in(
    memory: Store, form: int, pack: Callable[[bytes], bytes]
) -> None:
    """pax and GNU archives, plain and compressed, become the files they hold."""
    expected = save(memory, {**SAMPLE, b"hard": SAMPLE[b"bin/run"]})
    before = memory.snapshot("main")["hard"]
    data = pack(made_by_tarfile(form))
    # A hard link is the file it names, executable bit included.
    assert unpack(memory, data) == expected
    assert memory.snapshot("in")["hard"] == before


def test_an_archive_of_the_system_is_taken_in(memory: Store, tmp_path: Path) -> None:
    """What the tar of the system packs comes in, one file after the other in any order."""
    (tmp_path / "d").mkdir()
    for number in range(100):
        (tmp_path / "d" / f"f{number}").write_bytes(b"%d" % number)
    for form in ("ustar", "gnu", "pax", "v7"):
        data = subprocess.run(
            ["tar", f"--format={form}", "-cf", "-", "d"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        unpack(memory, data)
        assert memory.snapshot("in")["d/f77"] == b"77"
        assert len(memory.snapshot("in")) == 100


def test_a_link_of_two_names_is_one_at_each(memory: Store) -> None:
    """Of a link that has two names in a folder tar writes the second as a hard link."""
    unpack(memory, member("d/l", tarfile.SYMTYPE, "x") + member("e/h", b"1", "d/l") + END)
    snapshot = memory.snapshot("in")
    assert dict(snapshot) == {"d/l": b"x", "e/h": b"x"}
    assert {snapshot.entry(path).kind for path in snapshot} == {EntryKind.LINK}  # type: ignore[union-attr]


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    """One member with a content of zeros."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, link, size
    block = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return block + bytes(-(-size // 512) * 512)


def raw(name: bytes, *, size: bytes = b"00000000000\0", letter: bytes = b"0") -> bytes:
    """One header with these fields, its sum right."""
    block = bytearray(tar.header(name, EntryKind.FILE, 0))
    block[124:136] = size
    block[156:157] = letter
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, letter: bytes = b"x") -> bytes:
    """A header with pax records before a member."""
    size = b"%011o\0" % len(records)
    return raw(b"pax", size=size, letter=letter) + records + tar.padding(len(records))


END = bytes(1024)
FILLED = tar.header(b"a", EntryKind.FILE, 153_600) + bytes(range(256)) * 600 + END
HOSTILE: list[tuple[str, bytes, type[CasError], str]] = [
    ("absolute", member("/etc/passwd") + END, UnsafePath, "absolute"),
    ("absolute-pax", pax(b"15 path=/etc/x\n") + member("a") + END, UnsafePath, "absolute"),
    ("parent", member("a/../../b") + END, UnsafePath, "parent"),
    ("only-parent", member("..") + END, UnsafePath, "parent"),
    ("link-out", member("a/l", tarfile.SYMTYPE, "../../x") + END, UnsafePath, "link-out"),
    ("link-absolute", member("l", tarfile.SYMTYPE, "/etc") + END, UnsafePath, "link-out"),
    (
        "link-out-through-links",
        member("d/e/x")
        + member("m", tarfile.SYMTYPE, "d/e")
        + member("l", tarfile.SYMTYPE, "m/../../../x")
        + END,
        UnsafePath,
        "link-out",
    ),
    (
        "link-to-a-link-out",
        member("a", tarfile.SYMTYPE, "b")
        + member("b", tarfile.SYMTYPE, "c/..")
        + member("c", tarfile.SYMTYPE, "..")
        + END,
        UnsafePath,
        "link-out",
    ),
    (
        "through-link",
        member("l", tarfile.SYMTYPE, "d") + member("l/x") + END,
        UnsafePath,
        "through-link",
    ),
    (
        "through-link-before",
        member("l/x") + member("l", tarfile.SYMTYPE, "d") + END,
        UnsafePath,
        "through-link",
    ),
    ("below-file", member("f") + member("f/x") + END, BadArchive, "below-file"),
    ("char-device", member("d", tarfile.CHRTYPE) + END, BadArchive, "device"),
    ("block-device", member("d", tarfile.BLKTYPE) + END, BadArchive, "device"),
    ("fifo", member("d", tarfile.FIFOTYPE) + END, BadArchive, "fifo"),
    ("sparse", member("d", b"S") + END, BadArchive, "sparse"),
    ("unknown", member("d", b"Q") + END, BadArchive, "type"),
    ("duplicate", member("a") + member("./a") + END, BadArchive, "duplicate"),
    ("file-and-directory", member("a") + member("a", b"5") + END, BadArchive, "duplicate"),
    ("case-twin", member("d/Read") + member("d/read") + END, BadArchive, "twin"),
    ("directory-twin", member("D/a") + member("d/b") + END, BadArchive, "twin"),
    ("form-twin", member("\u00e9") + member("e\u0301") + END, BadArchive, "twin"),
    ("store-name", member("x/.CAS/y") + END, BadArchive, "store-name"),
    ("hard-link-later", member("h", b"1", "a") + member("a") + END, BadArchive, "hard-link"),
    ("hard-link-out", member("h", b"1", "../a") + END, UnsafePath, "parent"),
    (
        "hard-link-to-a-link-out",
        member("d/l", tarfile.SYMTYPE, "../x") + member("h", b"1", "d/l") + END,
        UnsafePath,
        "link-out",
    ),
    ("file-at-the-root", member(".", size=5) + END, BadArchive, "name"),
    ("link-at-the-root", member("./", tarfile.SYMTYPE, "x") + END, BadArchive, "name"),
    ("empty-link", member("l", tarfile.SYMTYPE, "") + END, BadArchive, "link"),
    (
        "link-with-content",
        raw(b"l", size=b"00000001000\0", letter=b"2") + END,
        BadArchive,
        "header",
    ),
    ("negative-size", raw(b"a", size=b"\xff" * 12) + END, BadArchive, "header"),
    ("no-size", raw(b"a", size=b"zzzzzzzzzzz\0") + END, BadArchive, "header"),
    ("huge-member", raw(b"a", size=b"\x80" + b"\x7f" * 11) + END, BadArchive, "truncated"),
    ("bad-sum", member("a")[:150] + b"7" + member("a")[151:] + END, BadArchive, "header"),
    ("no-tar", b"this is no archive" * 100, BadArchive, "header"),
    ("empty", b"", BadArchive, "header"),
    ("no-end", member("a", size=5), BadArchive, "truncated"),
    ("one-block-end", member("a") + bytes(512), BadArchive, "truncated"),
    ("end-inside", member("a") + bytes(512) + member("b") + END, BadArchive, "header"),
    ("short-content", member("a", size=5000)[:2000], BadArchive, "truncated"),
    ("short-header", member("a", size=5) + member("b")[:100], BadArchive, "truncated"),
    ("pax-at-end", pax(b"9 path=a\n") + END, BadArchive, "truncated"),
    ("pax-length", pax(b"99 path=a\n") + member("b") + END, BadArchive, "header"),
    ("pax-no-length", pax(b"path=a\n") + member("b") + END, BadArchive, "header"),
    ("pax-zero", pax(b"0 path=a\n") + member("b") + END, BadArchive, "header"),
    ("pax-size", pax(b"9 size=x\n") + member("b") + END, BadArchive, "header"),
    ("pax-nul", pax(b"11 path=\0a\n") + member("b") + END, BadArchive, "name"),
    ("pax-twice", pax(b"9 path=a\n") * 2 + member("b") + END, BadArchive, "header"),
    ("pax-global", pax(b"9 path=a\n", b"g") + member("b") + END, BadArchive, "header"),
    ("pax-sparse", pax(b"22 GNU.sparse.major=1\n") + member("b") + END, BadArchive, "sparse"),
    ("bzip2", b"BZh91AY", BadArchive, "compression"),
    ("xz", b"\xfd7zXZ\x00", BadArchive, "compression"),
    ("zip", b"PK\x03\x04....", BadArchive, "compression"),
    ("gzip-cut", gzip.compress(member("a", size=90_000) + END)[:60], BadArchive, "compression"),
    ("gzip-sum", gzip.compress(member("a") + END)[:-8] + bytes(8), BadArchive, "compression"),
    ("gzip-rubbish", b"\x1f\x8b" + b"x" * 50, BadArchive, "compression"),
    ("zstd-rubbish", b"\x28\xb5\x2f\xfd" + b"x" * 50, BadArchive, "compression"),
    ("zstd-cut", zstandard.compress(FILLED)[:-9], BadArchive, "truncated"),
    ("zstd-short", zstandard.compress(FILLED)[:30], BadArchive, "compression"),
    ("zstd-frames", zstandard.compress(FILLED[:99_999]), BadArchive, "truncated"),
    ("dotted", member("a/.../b") + raw(b"") + END, BadArchive, "name"),
]


@pytest.mark.parametrize(
    ("data", "error", "reason"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE]
)
def test_a_hostile_archive_is_refused_whole(
    memory: Store, data: bytes, error: type[CasError], reason: str
) -> None:
    """Each escape, trick and damage has its typed error, and nothing at all is committed."""
    with pytest.raises(error) as caught:
        unpack(memory, data)
    assert caught.value.fields["reason"] == reason
    assert memory.view().seq == 0
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (raw(b"x", size=b"\x80" + bytes(10) + b"\x7f", letter=b"x"), BadArchive),
        (raw(b"x", size=b"%011o\0" % (ARCHIVE_HEADER_BYTES_MAX + 1), letter=b"x"), LimitExceeded),
        (raw(b"x", size=b"\x80" + b"\x7f" * 11, letter=b"L"), LimitExceeded),
        (member("n" * 256) + END, LimitExceeded),
        (member("a/" * 300 + "b") + END, LimitExceeded),
        (member("a" * 200 + "/" + "/".join(["b" * 200] * 30)) + END, LimitExceeded),
    ],
)
def test_huge_headers_and_names_meet_a_limit(
    memory: Store, data: bytes, error: type[CasError]
) -> None:
    """A header or name over its limit is refused before it is read."""
    with pytest.raises(error):
        unpack(memory, data)
    assert memory.view().seq == 0


def test_what_is_trusted_is_taken_in(memory: Store) -> None:
    """With `trusted` links that lead out, twins and names of stores come in; escapes never do."""
    data = member("l", tarfile.SYMTYPE, "/etc") + member("A") + member("a") + member(".cas/x")
    unpack(memory, data + END, trusted=True)
    assert set(memory.snapshot("in")) == {"l", "A", "a", ".cas/x"}
    for name in ("/a", "../a"):
        with pytest.raises(UnsafePath):
            unpack(memory, member(name) + END, trusted=True)


def test_links_inside_are_no_escape(memory: Store) -> None:
    """Links within the archive come in, rings and links through links too."""
    data = (
        member("lib/a")
        + member("lib64", tarfile.SYMTYPE, "lib")
        + member("deep/l", tarfile.SYMTYPE, "../lib64/../lib/a")
        + member("ring", tarfile.SYMTYPE, "gnir")
        + member("gnir", tarfile.SYMTYPE, "ring")
    )
    unpack(memory, data + END)
    assert memory.snapshot("in")["deep/l"] == b"../lib64/../lib/a"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    """Any byte changed, any cut: a typed error, or a commit that reads back."""
    archive = bytearray(made_by_tarfile(tarfile.PAX_FORMAT)[:16_384] + END)
    for _ in range(data.draw(st.integers(1, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(archive)))
    with cas.open(":memory:") as store:
        for part in (bytes(archive), bytes(archive[:cut])):
            try:
                unpack(store, part)
            except (BadArchive, UnsafePath, LimitExceeded, InvalidName):
                continue
            assert all(
                isinstance(store.snapshot("in")[path], bytes) for path in store.snapshot("in")
            )


def test_large_members_pass_in_bounded_memory(memory: Store) -> None:
    """A member of many chunks goes in and out without being held; its id is that of its bytes."""
    size = 40 << 20

    class Zeros:
        def __init__(self) -> None:
            self.parts = iter([tar.header(b"big", EntryKind.FILE, size)])
            self.left = size
            self.asked = 0

        def read(self, wanted: int, /) -> bytes:
            self.asked = max(self.asked, wanted)
            if (part := next(self.parts, None)) is not None:
                self.rest = part
            if self.rest:
                part, self.rest = self.rest[:wanted], self.rest[wanted:]
                return part
            if self.left:
                part = bytes(min(wanted, self.left))
                self.left -= len(part)
                return part
            return bytes(min(wanted, 512))

    stream = Zeros()
    stream.rest = b""
    reader = tar.TarReader(stream)
    members = iter(reader)
    first, content = next(members)
    total = 0
    while part := content.read(1 << 20):
        total += len(part)
    assert (first.size_bytes, total) == (size, size)
    report = unpack_tar(memory, _join(tar.header(b"big", EntryKind.FILE, size), size))
    assert report.content_bytes == size
    with memory.snapshot("main").open("big") as blob:
        assert blob.size == size


def _join(head: bytes, size: int) -> io.BytesIO:
    return io.BytesIO(head + bytes(size) + tar.padding(size) + END)


def test_a_link_that_no_archive_can_hold_is_told(memory: Store) -> None:
    """A link to nothing, or with a NUL byte, stops an export with its path."""
    for target in (b"", b"a\0b"):
        with memory.begin() as tx:
            link = TreeEntry(EntryKind.LINK, tx.put(target), len(target))
            tx.branch("main").put_entry("l", link)  # `put` refuses it
            tx.commit()
        entry = memory.snapshot("main").entry("")
        assert entry is not None
        with pytest.raises(Invalid, match="The link 'l'"):
            tar_of(memory, entry)


def test_one_file_is_an_archive_of_one_member(memory: Store) -> None:
    """REV:PATH of a file gives an archive of that file under its own name."""
    save(memory, SAMPLE)
    entry = memory.snapshot("main").entry("bin/run")
    assert entry is not None
    data = b"".join(export_tar(memory.objects, entry, "bin/run"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["run"]
