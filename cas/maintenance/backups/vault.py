"""A place of backups: pack files, and increments that say which of them made up a store, when.

Floor 5; implements docs/format.md sections 13 and 13.1. Invariant: nothing in a vault is ever
changed or overwritten, and an increment counts from the moment its file has its name: everything
that it needs was durable before. Over two buckets and nothing else, so that it can lie anywhere.

An increment is a pack file: its objects are the bodies of inline packs and deletion vectors (as
blobs) and journal segments; the last record is its index.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from cas.catalog.catalog import Meta
from cas.clock import Clock
from cas.errors import (
    BackupNotFound,
    Busy,
    Corrupt,
    CorruptBackup,
    Invalid,
    MissingPack,
    NotABackup,
    NotCanonical,
)
from cas.limits import ID_BYTES, MIB
from cas.maintenance.backups.increment import Held, Index, Origin, decode_index
from cas.model.ids import Kind, body_hasher, digest_of
from cas.model.segment import Segment
from cas.objects.packs import read_footer
from cas.storage.bucket import Bucket, Upload
from cas.storage.codec import decode_payload, encode_payloads
from cas.storage.files import OS_FILES, Files, translate, translate_read
from cas.storage.header import PackHeader
from cas.storage.local import LocalBucket
from cas.storage.pack import TRAILER_BYTES
from cas.storage.packing import PackBuilder
from cas.storage.place import folder_of
from cas.storage.record import COMMON_GROUP

PACKS: Final = "packs"
INCREMENTS: Final = "increments"
PROOFS: Final = "proofs"
_LOCK: Final = "lock"
_PARTS: Final = frozenset((PACKS, INCREMENTS, PROOFS, _LOCK))
_INCREMENT = re.compile(r"([0-9a-f]{32})\.pack")
_NO_SESSION: Final = bytes(16)


_WITHOUT: Final = (
    "; what came behind it cannot be read without it. Back up to another folder while there is a "
    "store; `cas restore-store --accept-damage` makes one of what is before it."
)


def increment_file(number: int) -> str:
    """File of an increment."""
    return f"{number:032x}.pack"


class IncrementReader:
    """One increment, opened: its objects by id, each proved by it."""

    def __init__(self, bucket: Bucket, number: int) -> None:
        self._bucket = bucket
        self.file = increment_file(number)
        try:
            _header, self.footer = read_footer(bucket, self.file)
        except MissingPack as error:
            raise CorruptBackup(
                f"The increment {number} of the backup is missing ({self.file}){_WITHOUT}",
                path=self.file,
            ) from error
        except Corrupt as error:
            raise CorruptBackup(
                f"The increment {number} of the backup is damaged ({self.file}){_WITHOUT}",
                path=self.file,
            ) from error

    def _at(self, number: int) -> tuple[int, bytes]:
        slot = self.footer.slot(number)
        try:
            payload = self._bucket.read(self.file, slot.payload_offset, slot.stored_bytes)
            content = decode_payload(slot.codec, payload, slot.raw_bytes)
        except Corrupt as error:
            raise self._damaged(slot.id) from error
        if digest_of(slot.kind, content) != slot.id:
            raise self._damaged(slot.id)
        return slot.kind, content

    def _damaged(self, id: bytes) -> CorruptBackup:
        return CorruptBackup(
            f"{id.hex()} in the increment {self.file} of the backup is damaged; `cas prove` tells "
            "all that is.",
            path=self.file,
        )

    def get(self, id: bytes) -> bytes:
        """Content of an object of the increment. Raises `CorruptBackup`."""
        number = self.footer.find(id)
        if number < 0:
            raise CorruptBackup(
                f"The increment {self.file} of the backup lacks {id.hex()}.", path=self.file
            )
        return self._at(number)[1]

    def index(self) -> tuple[bytes, Index]:
        """(id, value) of the index: the last record. Raises `CorruptBackup`, `NewerFormat`."""
        order = self.footer.by_offset()
        if not order:
            raise CorruptBackup(f"The increment {self.file} has no index.", path=self.file)
        kind, content = self._at(order[-1])
        if kind != Kind.BLOB:
            raise CorruptBackup(f"The increment {self.file} ends without index.", path=self.file)
        return self.footer.id_at(order[-1]), decode_index(content, self.file)

    def check(self) -> int:
        """Read every byte and prove every object; how many there are. Raises `CorruptBackup`."""
        hasher = body_hasher()
        for start in range(0, self.footer.body_bytes, MIB):
            length = min(MIB, self.footer.body_bytes - start)
            hasher.update(self._bucket.read(self.file, start, length))
        if hasher.digest() != self.footer.body_digest:
            raise CorruptBackup(
                f"The increment {self.file} of the backup holds other bytes than were written.",
                path=self.file,
            )
        for number in range(self.footer.count):
            self._at(number)
        return self.footer.count


class IncrementWriter:
    """Writes one increment. Used by one thread; `seal` or `abort` ends it."""

    def __init__(self, bucket: Bucket, meta: Meta, wall_us: int) -> None:
        self._bucket = bucket
        self._upload: Upload = bucket.create()
        self._hasher = body_hasher()
        self._known: set[bytes] = set()
        header = PackHeader(meta.store_id, meta.lineage_id, _NO_SESSION, wall_us)
        self._builder = PackBuilder(header, self._append)

    def _append(self, data: bytes) -> None:
        self._hasher.update(data)
        self._upload.write(data)

    @property
    def size_bytes(self) -> int:
        """Bytes so far."""
        return self._builder.body_bytes

    def add(self, kind: int, content: bytes) -> bytes:
        """Append an object, if it is not here yet; its id."""
        id = digest_of(kind, content)
        if id not in self._known:
            self._known.add(id)
            ((codec, payload),) = encode_payloads([content])
            self._builder.add_many([(id, kind, codec, payload, len(content), 0, COMMON_GROUP)])
        return id

    def seal(self, index: Index) -> int:
        """End with the index; the increment counts when this returns. Its bytes in all.

        Raises `StorageFailed` when there is an increment of this number already.
        """
        content = index.encode()
        self.add(Kind.BLOB, content)
        footer = self._builder.footer(self._hasher.digest())
        self._upload.write(footer)
        self._upload.seal(increment_file(index.number))
        self._bucket.sync()
        return self._builder.body_bytes + len(footer)

    def abort(self) -> None:
        """Forget it."""
        self._upload.abort()


class Vault:
    """A place of backups. One thread."""

    def __init__(self, packs: Bucket, increments: Bucket, place: str) -> None:
        self.packs = packs
        self.increments = increments
        self.place = place
        self._readers: dict[int, IncrementReader] = {}

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up handles."""
        self.packs.close()
        self.increments.close()

    def numbers(self) -> list[int]:
        """Numbers of all increments, ascending."""
        found = [_INCREMENT.fullmatch(file.name) for file in self.increments.list()]
        return sorted(int(match.group(1), 16) for match in found if match)

    def reader(self, number: int) -> IncrementReader:
        """One increment. Raises `CorruptBackup`."""
        reader = self._readers.get(number)
        if reader is None:
            reader = self._readers[number] = IncrementReader(self.increments, number)
        return reader

    def forget(self, number: int) -> None:
        """Drop what is known of an increment that is gone."""
        self._readers.pop(number, None)

    def newest(self) -> tuple[bytes, Index] | None:
        """The newest increment: the id of its index, and the index; None in an empty vault.

        Those that were to replace others and were not finished do not count. Raises
        `CorruptBackup`, also where these others are gone and the last of the new is not there.
        """
        numbers = self.numbers()
        for number in reversed(numbers):
            id, index = self._index(number)
            if not index.is_building:
                return id, index
            if numbers[0] >= index.base:
                raise CorruptBackup(
                    f"The newest increment of {self.place} is missing, behind {number}; a store of "
                    "what is before it is made where damage is accepted.",
                    path=increment_file(number + 1),
                )
        return None

    def _index(self, number: int) -> tuple[bytes, Index]:
        id, index = self.reader(number).index()
        if index.number != number:
            raise CorruptBackup(
                f"The increment {increment_file(number)} says that it is {index.number}.",
                path=increment_file(number),
            )
        return id, index

    def chain(self) -> list[Index]:
        """All increments, oldest first, each proved by the one behind it.

        Raises `BackupNotFound` in an empty vault, `CorruptBackup`.
        """
        newest = self.newest()
        if newest is None:
            raise BackupNotFound(
                f"{self.place} holds no finished backup; make one with `cas backup`.",
                path=self.place,
            )
        return self._back(newest[1])

    def left(self) -> tuple[list[Index], list[CorruptBackup]]:
        """The chain that ends with the newest increment from which all before it can be read, and
        what is wrong with those behind: for who takes what there is of a damaged backup.

        Where nothing is wrong it is `chain`. Raises `BackupNotFound`, `CorruptBackup`.
        """
        wrong: list[CorruptBackup] = []
        try:
            return self.chain(), wrong
        except CorruptBackup as error:
            wrong.append(error)
        numbers = self.numbers()
        for number in reversed(numbers):
            try:
                _id, index = self._index(number)
                # Of a chain that was never finished, beside the one that was to go.
                if not (index.is_building and numbers[0] < index.base):
                    return self._back(index), wrong
            except CorruptBackup as error:
                if error.fields["path"] not in {each.fields["path"] for each in wrong}:
                    wrong.append(error)
        raise wrong[0]

    def _back(self, last: Index) -> list[Index]:
        """The increments that end with this one, oldest first."""
        indexes: list[Index] = []
        wanted: bytes | None = None
        for number in range(last.number, last.base - 1, -1):
            id, index = self._index(number)
            if wanted not in (None, id):
                raise CorruptBackup(
                    f"The increment {number} of {self.place} is not the one that the next names.",
                    path=increment_file(number),
                )
            wanted = index.previous
            indexes.append(index)
        return indexes[::-1]

    def held(self, place: Held) -> bytes:
        """Bytes that lie in an increment. Raises `CorruptBackup`."""
        return self.reader(place.increment).get(place.id)

    def entries(self, chain: Sequence[Index]) -> Iterator[bytes]:
        """Every journal entry of a chain, from the first, as it was written."""
        seq = 1
        for index in chain:
            for line in index.segments:
                try:
                    found = Segment.decode(self.reader(index.number).get(line.id))
                except NotCanonical as error:
                    raise CorruptBackup(
                        f"A journal segment of {self.place} is damaged: {error}", path=self.place
                    ) from error
                if (found.first_seq, found.last_seq) != (seq, line.last_seq):
                    raise CorruptBackup(
                        f"The journal of {self.place} has a gap at entry {seq}.", path=self.place
                    )
                yield from found.entries
                seq = line.last_seq + 1


def origin_of(meta: Meta) -> Origin:
    """What an increment says of the store."""
    return Origin(
        meta.store_id,
        meta.lineage_id,
        meta.ancestry,
        meta.format,
        meta.features,
        meta.created_us,
    )


def check_of(footer: bytes) -> bytes:
    """The check of an inline pack: the digest that its footer ends with."""
    return footer[-TRAILER_BYTES : ID_BYTES - TRAILER_BYTES]


# -- a vault in a folder ---------------------------------------------------------------------


@contextmanager
def open_vault(
    folder: str, clock: Clock, *, write: bool = False, files: Files = OS_FILES
) -> Iterator[Vault]:
    """The vault in a folder. To `write` it is made where there is none, and held alone.

    What a writer that was killed has left is removed. Raises `BackupNotFound`, `NotABackup`,
    `Busy` while another backup is written there, and what the system refuses.
    """
    folder = folder_of(folder, "A backup")
    _refuse_other(folder, write=write)
    if not write:
        with _vault(folder, clock, files) as vault:
            yield vault
        return
    try:
        _make(folder, files)
        fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        translate(error, folder)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                f"Another backup is being written to {folder}; wait until it has ended.",
                waited_ms=0,
            ) from error
        _clean(folder, files)
        with _vault(folder, clock, files) as vault:
            yield vault
    finally:
        os.close(fd)


def _vault(folder: str, clock: Clock, files: Files) -> Vault:
    return Vault(
        LocalBucket(os.path.join(folder, PACKS), clock, files),
        LocalBucket(os.path.join(folder, INCREMENTS), clock, files),
        folder,
    )


def _refuse_other(folder: str, *, write: bool) -> None:
    """Raise unless the folder is a vault, or (to write) one can be made there."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        names = set()
    except NotADirectoryError as error:
        raise NotABackup(f"{folder} is no folder; name another place.", path=folder) from error
    except OSError as error:
        translate_read(error, folder)
    if names - _PARTS:
        raise NotABackup(
            f"{folder} holds other things than a backup ({min(names - _PARTS)!r}); name "
            f"{'a new or empty folder' if write else 'the folder of a backup'}.",
            path=folder,
        )
    if not write and INCREMENTS not in names:
        raise BackupNotFound(
            f"There is no backup at {folder}; make one with `cas backup {folder}`.", path=folder
        )


def _make(folder: str, files: Files) -> None:
    """The folders of a vault, each durable."""
    missing = []
    above = folder
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    for path in (*reversed(missing), *(os.path.join(folder, name) for name in (PACKS, INCREMENTS))):
        if not os.path.isdir(path):
            with suppress(FileExistsError):
                files.mkdir(path)
            files.sync_folder(os.path.dirname(path))


def _clean(folder: str, files: Files) -> None:
    """Remove files that were never finished: who holds the lock knows that nobody writes them."""
    for name in (PACKS, INCREMENTS):
        below = os.path.join(folder, name)
        try:
            for file in os.listdir(below):
                if file.endswith(".tmp"):
                    files.unlink(os.path.join(below, file))
        except OSError as error:
            translate(error, below)


def refuse_nested(one: str, other: str) -> None:
    """Raise `Invalid` where one of two folders lies in the other."""
    if "://" in one or "://" in other:
        return
    first, second = os.path.realpath(one), os.path.realpath(other)
    if os.path.commonpath([first, second]) in (first, second):
        raise Invalid(f"{one} and {other} lie in each other; name a folder outside.")
