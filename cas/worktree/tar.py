"""The tar format: members out of a stream, and headers for members.

Floor 5. Invariant: what is read is taken at its word only where there is one meaning: every header
is checked, nothing is guessed, and memory is bounded whatever a header says. What is written
depends on the name, kind and size of a member and on nothing else.

POSIX.1-2001 (pax) with the GNU records for long names, which most archives have. The standard
library's reader was left aside: it takes a damaged header for the end of the archive, reads a
header of any size into memory, and resolves what it should refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from cas.errors import BadArchive, LimitExceeded
from cas.limits import ARCHIVE_HEADER_BYTES_MAX
from cas.model.names import printable, quoted
from cas.model.objects import EntryKind
from cas.objects.content import Readable, read_exactly

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
_RECORD: Final = 20 * BLOCK
_OCTAL_SIZE_MAX: Final = 8**11
_NAME: Final = 100

HARD_LINK: Final = b"1"
_FILES: Final = (b"0", b"\0", b"7")
_KINDS: Final = {b"2": EntryKind.LINK, b"5": EntryKind.TREE}
_REFUSED: Final = {
    b"3": "device",
    b"4": "device",
    b"6": "fifo",
    b"S": "sparse",
    b"M": "several volumes",
    b"V": "volume label",
    b"D": "dump directory",
}


class Member(NamedTuple):
    """A member of an archive. `link` is where a link leads, or what a hard link is the same as."""

    path: bytes
    kind: EntryKind
    is_hard_link: bool
    link: bytes
    size_bytes: int


# -- writing ---------------------------------------------------------------------------------


def header(path: bytes, kind: EntryKind, size_bytes: int, link: bytes = b"") -> bytes:
    """The header of a member; long and non-ASCII names in a pax header before it."""
    records = b""
    if not (path + link).isascii():
        try:
            path.decode("utf-8")
            link.decode("utf-8")
        except UnicodeDecodeError:
            records += _record(b"hdrcharset", b"BINARY")
    name = path + b"/" if kind == EntryKind.TREE else path
    if len(name) > _NAME or not name.isascii():
        records += _record(b"path", name)
    if len(link) > _NAME or not link.isascii():
        records += _record(b"linkpath", link)
    if size_bytes >= _OCTAL_SIZE_MAX:
        records += _record(b"size", b"%d" % size_bytes)
        size_bytes = 0
    before = b""
    if records:
        before = _block(b"pax", 0o644, len(records), b"x") + records + padding(len(records))
    mode = 0o755 if kind in (EntryKind.EXECUTABLE, EntryKind.TREE) else 0o644
    letter = {EntryKind.LINK: b"2", EntryKind.TREE: b"5"}.get(kind, b"0")
    if kind == EntryKind.LINK:
        mode = 0o777
    return before + _block(name[:_NAME], mode, size_bytes, letter, link[:_NAME])


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value newline`; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(name: bytes, mode: int, size_bytes: int, letter: bytes, link: bytes = b"") -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size_bytes, 0)
    head = name.ljust(_NAME, b"\0") + numbers
    tail = letter + link.ljust(_NAME, b"\0") + b"ustar\00000" + bytes(64)
    tail += b"%07o\0%07o\0" % (0, 0)
    tail = tail.ljust(BLOCK - len(head) - 8, b"\0")
    total = sum(head) + 8 * 32 + sum(tail)
    return head + b"%06o\0 " % total + tail


def padding(size_bytes: int) -> bytes:
    """What fills the last block of so many bytes."""
    return bytes(-size_bytes % BLOCK)


def end(written_bytes: int) -> bytes:
    """The end of an archive of so many bytes: two empty blocks, filled up to a whole record."""
    return bytes(len(END) + -(written_bytes + len(END)) % _RECORD)


# -- reading ---------------------------------------------------------------------------------


class Content:
    """The content of one member as a stream; it has to be read before the next member."""

    def __init__(self, stream: Readable, size_bytes: int, path: bytes) -> None:
        self._stream = stream
        self._path = path
        self.left_bytes = size_bytes

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes. Raises `BadArchive` when the archive ends first."""
        if self.left_bytes == 0:
            return b""
        part = self._stream.read(min(size, self.left_bytes))
        if not part:
            raise _truncated(self._path)
        self.left_bytes -= len(part)
        return part


class TarReader:
    """Members of an archive, in order. Raises `BadArchive`, `LimitExceeded`. One thread."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._content = Content(stream, 0, b"")
        self._fill = 0

    def __iter__(self) -> Iterator[tuple[Member, Content]]:
        first = True
        while (block := self._next_block(first=first)) is not None:
            first = False
            block, extended = self._extended(block)
            member = _member(block, extended)
            self._content = Content(self._stream, member.size_bytes, member.path)
            self._fill = -member.size_bytes % BLOCK
            yield member, self._content

    def _next_block(self, *, first: bool) -> bytes | None:
        """The next header, behind what is left of the member before; None at the end."""
        while self._content.read(1 << 20):
            pass
        self._exactly(self._fill)
        self._fill = 0
        block = self._exactly(BLOCK, empty=first)
        if any(block):
            _check_sum(block)
            return block
        if any(self._exactly(BLOCK)):
            raise _bad(b"", "header", "one empty block stands between members")
        while self._stream.read(1 << 20):
            pass  # to the end of the stream, where a compressed one has its own check
        return None

    def _exactly(self, size_bytes: int, *, empty: bool = False) -> bytes:
        part = read_exactly(self._stream, size_bytes)
        if len(part) < size_bytes:
            if empty and not part:
                raise _bad(b"", "header", "it is empty, not even an archive without members")
            raise _truncated(b"")
        return part

    def _extended(self, block: bytes) -> tuple[bytes, dict[bytes, bytes]]:
        """The header of the member itself, and what the headers before it say of it."""
        found: dict[bytes, bytes] = {}
        while (letter := block[156:157]) in (b"x", b"g", b"L", b"K"):
            size_bytes = _number(block[124:136], "size")
            if size_bytes > ARCHIVE_HEADER_BYTES_MAX:
                raise LimitExceeded(
                    f"A header of {size_bytes} bytes is too long; at most "
                    f"{ARCHIVE_HEADER_BYTES_MAX} are allowed.",
                    limit="ARCHIVE_HEADER_BYTES_MAX",
                    value=size_bytes,
                    maximum=ARCHIVE_HEADER_BYTES_MAX,
                )
            data = self._exactly(size_bytes)
            self._exactly(-size_bytes % BLOCK)
            if letter in (b"L", b"K"):
                more = {b"path" if letter == b"L" else b"linkpath": data.rstrip(b"\0")}
            else:
                more = _records(data)
            if letter == b"g":
                if more.keys() & {b"path", b"linkpath", b"size"}:
                    raise _bad(b"", "header", "a header for all members names one")
            elif found.keys() & more.keys():
                raise _bad(more.get(b"path", b""), "header", "two headers say where it lies")
            else:
                found.update(more)
            block = self._exactly(BLOCK)
            if not any(block):
                raise _truncated(found.get(b"path", b""))
            _check_sum(block)
        return block, found


def _member(block: bytes, extended: dict[bytes, bytes]) -> Member:
    letter = block[156:157]
    path = extended.get(b"path") or _name(block)
    link = extended.get(b"linkpath") or block[157:257].partition(b"\0")[0]
    if any(key.startswith(b"GNU.sparse") for key in extended):
        letter = b"S"
    if letter in _REFUSED:
        what = _REFUSED[letter]
        raise _bad(path, what, f"{what} cannot be stored")
    size_bytes = _number(block[124:136], "size")
    if b"size" in extended:
        digits = extended[b"size"]
        if not digits.isdigit() or len(digits) > 19:
            raise _bad(path, "header", "its size is no number")
        size_bytes = int(digits)
    if letter in _FILES:
        mode = _number(block[100:108], "mode")
        kind = EntryKind.EXECUTABLE if mode & 0o100 else EntryKind.FILE
        if letter == b"\0" and path.endswith(b"/"):
            kind = EntryKind.TREE  # how archives before POSIX have them
    elif letter == HARD_LINK:
        kind = EntryKind.FILE
    elif letter in _KINDS:
        kind = _KINDS[letter]
    else:
        raise _bad(path, "type", f"its type {letter!r} is not known")
    if (letter == HARD_LINK or kind in (EntryKind.LINK, EntryKind.TREE)) and size_bytes:
        raise _bad(path, "header", "it is no file and has content")
    if b"\0" in path or b"\0" in link:
        raise _bad(path, "name", "its name holds a NUL byte")
    return Member(path, kind, letter == HARD_LINK, link, size_bytes)


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix:
        return prefix + b"/" + name
    return name


def _number(field: bytes, what: str) -> int:
    """A number in octal digits, or (GNU) in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise _bad(b"", "header", f"its {what} is no number")
    return int(digits or b"0", 8)


def _check_sum(block: bytes) -> None:
    """A header's sum, over bytes without sign or (old programs) with."""
    stated = _number(block[148:156], "sum")
    others = block[:148] + b" " * 8 + block[156:]
    total = sum(others)
    if stated not in (total, total - 256 * sum(byte > 127 for byte in others)):
        raise _bad(_name(block), "header", "its sum is wrong: this is damaged, or no tar archive")


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits, space, _rest = data[at : at + 21].partition(b" ")
        if not space or not digits.isdigit():
            raise _bad(b"", "header", "a pax record has no length")
        stop = at + int(digits)
        key, equals, value = data[at + len(digits) + 1 : stop - 1].partition(b"=")
        if stop > len(data) or stop <= at or not equals or data[stop - 1 : stop] != b"\n":
            raise _bad(b"", "header", "a pax record has a wrong length")
        found[key] = value
        at = stop
    return found


def _bad(path: bytes, reason: str, text: str) -> BadArchive:
    shown = f"The member {quoted(path)}" if path else "The archive"
    return BadArchive(
        f"{shown} cannot be taken in: {text}. Nothing was committed.",
        path=printable(path),
        reason=reason,
    )


def _truncated(path: bytes) -> BadArchive:
    return _bad(path, "truncated", "the archive ends too early")
