"""A bucket in an object store that speaks S3, through obstore.

Floor 2; implements docs/format.md section 8.3. Invariant: a name is given only by a put that the
server makes conditional on its absence, and an answer that was lost is settled by asking who has
the name: each upload carries a mark of its own. What fails is told as `StorageFailed`, never as
damage and never as an empty answer.

A pack is held in memory until it is sealed, and sent in one request: a conditional put exists for
whole objects, and a pack is bounded.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from cas.clock import Clock
from cas.errors import AccessDenied, CasError, Closed, CorruptPack, MissingPack, StorageFailed
from cas.limits import MIB
from cas.storage.bucket import BucketFile, Part, UnfinishedFile

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_T = TypeVar("_T")

_Page = list[tuple[str, int]]

_MARK: Final = "cas-upload"
"""Key of the metadata that says whose a file is."""

_ATTEMPTS: Final = 5
_PAUSE_MS: Final = 200
"""Between attempts, doubled each time. The client below repeats on its own what it knows to be
harmless; these are for what it does not.
"""

_PART_BYTES: Final = 8 * MIB
_PARTS_AT_ONCE: Final = 8
"""A large read is sent as so many requests beside each other."""

_LIST_AT_ONCE: Final = 1000

_NO_CREDENTIALS: Final = "/latest/api/token"
_ANSWERED: Final = "status code:"
_REFUSED: Final = ("status code: 401", "status code: 403")


class S3Upload:
    """A pack file that has no name yet: nothing of it is on the server."""

    def __init__(self, bucket: S3Bucket, mark: str) -> None:
        self._bucket = bucket
        self._mark = mark
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data

    def read(self, start: int, length: int) -> bytes:
        return bytes(memoryview(self._data)[start : start + length])

    def seal(self, name: str) -> None:
        data, self._data = self._data, bytearray()
        try:
            self._bucket.put(name, data, self._mark)
        except BaseException:
            self._data = data
            raise

    def abort(self) -> None:
        self._data = bytearray()


class S3Bucket:
    """Files below one prefix of a bucket. Any number of hosts may share it.

    `label` is what messages call it: an address without credentials.
    """

    far: ClassVar = True

    def __init__(
        self,
        library: Any,
        store: ObjectStore,
        clock: Clock,
        label: str,
        writer: ObjectStore | None = None,
    ) -> None:
        self._obstore = library
        self._store = store
        # A client with more patience: an upload takes as long as the line is slow.
        self._writer = store if writer is None else writer
        self.clock = clock
        self.label = label
        self._closed = False
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"S3Bucket({self.label!r})"

    # -- writing -----------------------------------------------------------------------------

    def create(self, owner: str = "") -> S3Upload:
        return S3Upload(self, self.clock.random(16).hex())

    def put(self, name: str, data: bytes | bytearray, mark: str) -> None:
        """Give a file its name, once. Raises as `Upload.seal` does.

        A request that failed may have arrived, or arrive late: the same bytes with the same mark
        are sent again under the same name, so that whichever comes first is right.
        """
        self.refuse_closed()
        exists = self._obstore.exceptions.AlreadyExistsError
        attributes = {_MARK: mark, "Content-Type": "application/octet-stream"}
        failure: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.clock.sleep_ms(_PAUSE_MS << attempt)
            try:
                self._obstore.put(self._writer, name, data, mode="create", attributes=attributes)
                return
            except Exception as error:
                self._refuse_denied(error)
                failure = error
            try:
                found = self.mark_of(name)
            except StorageFailed:
                continue  # it cannot even be asked; perhaps later
            if found is not None:
                if found == (len(data), mark):
                    return
                raise StorageFailed(
                    f"{self.label}/{name} exists and is never overwritten.",
                    path=f"{self.label}/{name}",
                    errno=errno.EEXIST,
                ) from failure
            if not isinstance(failure, (exists, self._obstore.exceptions.GenericError)):
                break
        assert failure is not None
        raise self._failed("write", name, failure) from failure

    def mark_of(self, name: str) -> tuple[int, str] | None:
        """Size of a file, and the mark of the upload it came from; None where there is none."""
        try:
            found = self._obstore.get(self._store, name, options={"head": True})
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed("look at", name, error) from error
        return int(found.meta["size"]), str(found.attributes.get(_MARK, ""))

    def ask(self, name: str) -> None:
        """Whether anybody answers, and the bucket is there: some servers make one that a put names.
        Raises `StorageFailed` where not, `AccessDenied`.
        """
        try:
            self._obstore.head(self._store, name)
        except FileNotFoundError as error:
            missing = self._missing(name)
            if not isinstance(missing, MissingPack):
                raise missing from error
        except Exception as error:
            self._refuse_denied(error)
            if _ANSWERED in str(error):
                return  # those who go on asking can say more of it
            raise StorageFailed(
                f"Nobody answers for {self.label}: {reason(error)}. Check the address and the "
                "network, and try again.",
                path=self.label,
                errno=None,
            ) from error

    def replace(self, name: str, data: bytes, tag: str) -> str:
        """Put a file in the place of the version with this tag; for the probe alone.

        `replaced`, `refused`, or `unsupported` where the server does not know such puts.
        """
        try:
            self._obstore.put(self._writer, name, data, mode={"e_tag": tag})
        except (self._obstore.exceptions.PreconditionError, FileNotFoundError):
            return "refused"
        except Exception as error:
            self._refuse_denied(error)
            if "status code: 501" in str(error):
                return "unsupported"
            raise self._failed("write", name, error) from error
        return "replaced"

    def sync(self) -> None:
        # A put or a delete that was answered is durable, and its name with it.
        return

    # -- reading -----------------------------------------------------------------------------

    def read(self, name: str, start: int, length: int) -> bytes:
        if length <= 0:
            self.size(name)
            return b""
        if length > _PART_BYTES:
            bounds = [*range(start, start + length, _PART_BYTES), start + length]
            self.refuse_closed()
            parts = [(name, at, end - at) for at, end in pairwise(bounds)]
            return b"".join(self._at_once(self._read, parts))
        return self._read((name, start, length))

    def read_all(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        return [self.read(name, *part) for part in zip(starts, lengths, strict=True)]

    def prefetch(self, parts: Sequence[Part]) -> None:
        return  # what is kept is kept before this

    def fetch_many(self, parts: Sequence[Part]) -> list[bytes | CasError]:
        """Each part, or the error that a read of it raises, beside each other. A part may end with
        the file: then it is shorter, if not empty.
        """
        self.refuse_closed()

        def fetch(part: Part) -> bytes | CasError:
            try:
                return self._fetch(part)
            except CasError as error:
                return error

        return self._at_once(fetch, parts)

    def _at_once(self, call: Callable[[Part], _T], parts: Sequence[Part]) -> list[_T]:
        if len(parts) < 2:
            return [call(part) for part in parts]
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_PARTS_AT_ONCE, "cas-s3")
        return list(self._threads.map(call, parts))

    def _read(self, part: Part) -> bytes:
        data = self._fetch(part)
        if len(data) != part[2]:
            raise cut_short(*part)
        return data

    def _fetch(self, part: Part) -> bytes:
        name, start, length = part
        self.refuse_closed()
        try:
            # With the range that the server says it gives: an answer that is less than that was cut
            # short on its way, and is not the end of the file.
            options = {"range": (start, start + length)}
            found = self._obstore.get(self._store, name, options=options)
            data, (first, end) = bytes(found.bytes()), found.range
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except Exception as error:
            # A range behind the end is an error of its own in each kind of store: look instead.
            self._refuse_denied(error)
            if self._ends_before(name, start):
                raise cut_short(name, start, length) from error
            raise self._failed("read", name, error) from error
        if len(data) != end - first:
            less = EOFError(f"{len(data)} of {end - first} bytes came")
            raise self._failed("read", name, less)
        return data

    def _ends_before(self, name: str, start: int) -> bool:
        try:
            return self.size(name) <= start
        except StorageFailed:
            return False

    def check(self, name: str, head: bytes, start: int, tail: bytes) -> bool:
        # One request: the server has compared all that it took with the digest sent along, so
        # what the head would tell is told by its answer to the put.
        return self._fetch((name, start, len(tail) + 1)) == tail

    def forget(self) -> None:
        return

    def size(self, name: str) -> int:
        self.refuse_closed()
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except Exception as error:
            self._refuse_denied(error)
            raise self._failed("look at", name, error) from error

    def _missing(self, name: str) -> CasError:
        """What to say of an answer that a name is not there: a bucket that is gone, or that was
        mistyped, answers in the same way, and is no damage.
        """
        try:
            next(iter(self._obstore.list(self._store, chunk_size=1)), None)
        except Exception as listing:
            self._refuse_denied(listing)
            return self._failed("list", "", listing)
        return MissingPack(f"The pack file {name} is missing; run `cas fsck`.", pack=name)

    def list(self) -> Iterator[BucketFile]:
        self.refuse_closed()
        after: str | None = None
        while True:
            page = self._page(after)
            for name, size_bytes in page:
                # What lies deeper is of stores whose prefix begins with this one.
                if name.endswith(".pack") and "/" not in name:
                    yield BucketFile(name, size_bytes)
            # A listing that was cut short looks like one that ended: ask what comes behind it.
            if not page:
                return
            after = page[-1][0]

    def _page(self, after: str | None) -> _Page:
        """Names behind `after` with their sizes, ascending, as far as one listing gave them."""
        found: _Page = []
        try:
            stream = self._obstore.list(self._store, offset=after, chunk_size=_LIST_AT_ONCE)
            for chunk in stream:
                found += [(str(meta["path"]), int(meta["size"])) for meta in chunk]
        except Exception as error:
            self._refuse_denied(error)
            raise self._failed("list", "", error) from error
        found.sort()
        return [pair for pair in found if after is None or pair[0] > after]

    def unfinished(self) -> Iterator[UnfinishedFile]:
        # What was begun is in the memory of whoever began it, and gone with them.
        return iter(())

    def discard(self, name: str) -> None:
        return

    def delete(self, name: str) -> None:
        self.refuse_closed()
        try:
            self._obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except Exception as error:
            self._refuse_denied(error)
            raise self._failed("delete", name, error) from error

    def close(self) -> None:
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- errors ------------------------------------------------------------------------------

    def refuse_closed(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed("The store is closed; open it again.")

    def _refuse_denied(self, error: Exception) -> None:
        known = self._obstore.exceptions
        if _NO_CREDENTIALS in str(error):
            # Where none are found, the client asks the machine it runs on, as in a cloud.
            raise AccessDenied(
                f"There are no credentials for {self.label}; give AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
                path=self.label,
            ) from error
        refused = isinstance(error, (known.PermissionDeniedError, known.UnauthenticatedError))
        # A listing that is refused comes as an error of no kind.
        if refused or any(status in str(error) for status in _REFUSED):
            raise AccessDenied(
                f"{self.label} refuses the credentials at hand: {reason(error)}. Check AWS_PROFILE "
                "or AWS_ACCESS_KEY_ID and what they may do.",
                path=self.label,
            ) from error

    def _failed(self, verb: str, name: str, error: Exception) -> StorageFailed:
        path = f"{self.label}/{name}".rstrip("/")
        return StorageFailed(
            f"Could not {verb} {path}: {reason(error)}. Try again when the server can be reached.",
            path=path,
            errno=None,
        )


def cut_short(name: str, start: int, length: int) -> CorruptPack:
    """A file that ends before what was asked of it."""
    return CorruptPack(
        f"The pack {name} ends before byte {start + length}; run `cas fsck`.",
        pack=name,
        offset=start,
    )


def reason(error: Exception) -> str:
    """The sentence of a client's error and of the server, without their inner workings."""
    sentence, _, document = str(error).partition("\n\nDebug source")[0].partition("<?xml")
    said = re.search(r"<Code>([^<]*)</Code>(?:\s*<Message>([^<]*)</Message>)?", document)
    words = "" if said is None else ", ".join(filter(None, said.groups()))
    sentence = sentence.removeprefix("Generic S3 error: ").strip(" :\n.")
    return ": ".join(filter(None, (sentence, words.strip(" ."))))
