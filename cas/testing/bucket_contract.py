"""The contract of the port `Bucket`, as tests that any implementation can run.

Subclass `BucketContract` in a test module, say how a bucket is opened, and pytest does the rest:

    class TestMyBucket(BucketContract):
        def open_bucket(self, folder: Path) -> Bucket:
            return MyBucket(...)

`open_bucket` is called with a fresh folder for each test, which an implementation may use or
leave alone. Called again with the same folder it gives another handle on the same files;
implementations that cannot do that set `reopens = False`. The promises stand in
`cas.storage.bucket`; each test names the one it checks. Needs pytest.
"""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from cas.errors import CasError, Closed, CorruptPack, MissingPack, StorageFailed
from cas.storage.bucket import Bucket, BucketFile, Part

MANY_FILES = 200
"""More than an implementation is likely to keep open at once."""


def pack_name(number: int) -> str:
    """A file name as the store makes them: 32 hex digits and `.pack`."""
    return f"{number:032x}.pack"


def put(bucket: Bucket, name: str, content: bytes) -> None:
    """Write one file and make its name durable."""
    upload = bucket.create()
    upload.write(content)
    upload.seal(name)
    bucket.sync()


class BucketContract:
    """The promises of a bucket. See the head of this module for how to use it."""

    reopens: ClassVar[bool] = True
    """Whether a second handle on the same folder sees the same files."""

    def open_bucket(self, folder: Path) -> Bucket:
        """A handle on the bucket of this test."""
        raise NotImplementedError

    @pytest.fixture
    def bucket(self, tmp_path: Path) -> Bucket:
        """The bucket under test, empty."""
        return self.open_bucket(tmp_path)

    def test_a_sealed_file_reads_back(self, bucket: Bucket) -> None:
        """Every range of a sealed file is exactly what was written there."""
        content = bytes(range(256)) * 40
        put(bucket, pack_name(1), content)
        assert bucket.size(pack_name(1)) == len(content)
        for start, length in ((0, len(content)), (0, 1), (255, 2), (10_239, 1), (5_000, 100)):
            assert bucket.read(pack_name(1), start, length) == content[start : start + length]

    def test_writes_of_any_size_are_one_file(self, bucket: Bucket) -> None:
        """Pieces of many sizes, empty ones and one over a megabyte, follow each other."""
        pieces = [b"a", b"", b"b" * 70_000, b"c" * 1_200_000, b"d" * 3, b""]
        upload = bucket.create()
        for piece in pieces:
            upload.write(piece)
        upload.seal(pack_name(2))
        whole = b"".join(pieces)
        assert bucket.size(pack_name(2)) == len(whole)
        assert bucket.read(pack_name(2), 0, len(whole)) == whole

    def test_an_empty_file_is_a_file(self, bucket: Bucket) -> None:
        """Nothing written and sealed is a file of no bytes."""
        put(bucket, pack_name(3), b"")
        assert bucket.size(pack_name(3)) == 0
        assert bucket.read(pack_name(3), 0, 0) == b""
        assert list(bucket.list()) == [BucketFile(pack_name(3), 0)]

    def test_an_upload_reads_back_before_it_is_sealed(self, bucket: Bucket) -> None:
        """What was written can be read from the upload, between writes too."""
        upload = bucket.create()
        upload.write(b"first ")
        assert upload.read(0, 5) == b"first"
        upload.write(b"second")
        assert upload.read(3, 6) == b"st sec"
        assert upload.read(0, 12) == b"first second"
        upload.seal(pack_name(4))
        assert bucket.read(pack_name(4), 0, 12) == b"first second"

    def test_nothing_is_visible_before_the_seal(self, bucket: Bucket) -> None:
        """An upload under way has no name, in a listing or by a guess."""
        upload = bucket.create()
        upload.write(b"unsealed" * 1000)
        assert upload.read(0, 8) == b"unsealed"
        assert list(bucket.list()) == []
        with pytest.raises(MissingPack):
            bucket.size(pack_name(5))
        upload.seal(pack_name(5))
        assert [file.name for file in bucket.list()] == [pack_name(5)]

    @pytest.mark.parametrize("again", [b"other content", b"first", b"", b"f"])
    def test_a_name_is_never_overwritten(self, bucket: Bucket, again: bytes) -> None:
        """Sealing under a taken name fails whatever the content, and the first file stays."""
        first = b"first"
        put(bucket, pack_name(6), first)
        upload = bucket.create()
        upload.write(again)
        with pytest.raises(StorageFailed):
            upload.seal(pack_name(6))
        upload.abort()
        assert bucket.read(pack_name(6), 0, 5) == first
        assert list(bucket.list()) == [BucketFile(pack_name(6), 5)]

    def test_of_many_that_seal_one_name_one_wins(self, bucket: Bucket) -> None:
        """Threads that seal the same name at once: one succeeds, the file is that one's."""
        uploads = []
        for at in range(8):
            upload = bucket.create()
            upload.write(b"%d" % at)
            uploads.append(upload)
        won: list[bytes] = []
        start = threading.Barrier(len(uploads))

        def seal(at: int) -> None:
            start.wait()
            try:
                uploads[at].seal(pack_name(7))
                won.append(b"%d" % at)
            except StorageFailed:
                uploads[at].abort()

        threads = [threading.Thread(target=seal, args=(at,)) for at in range(len(uploads))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert bucket.read(pack_name(7), 0, 1) == won[0]

    def test_an_aborted_upload_leaves_nothing(self, bucket: Bucket) -> None:
        """After an abort there is no file; aborting again, or after a seal, is harmless."""
        upload = bucket.create()
        upload.write(b"never" * 500_000)
        upload.abort()
        upload.abort()
        assert list(bucket.list()) == []
        sealed = bucket.create()
        sealed.write(b"kept")
        sealed.seal(pack_name(8))
        sealed.abort()
        assert bucket.read(pack_name(8), 0, 4) == b"kept"

    @pytest.mark.parametrize(("start", "length"), [(0, 6), (5, 1), (4, 2), (100, 1), (6, 0)])
    def test_a_read_is_exact_or_fails(self, bucket: Bucket, start: int, length: int) -> None:
        """A range beyond the end raises `CorruptPack`; nothing shorter is given for it."""
        put(bucket, pack_name(9), b"12345")
        if length == 0:
            assert bucket.read(pack_name(9), start, length) == b""
            return
        with pytest.raises(CorruptPack):
            bucket.read(pack_name(9), start, length)

    def test_reads_that_were_announced_are_exact(self, bucket: Bucket) -> None:
        """Parts that were announced read as ever, missing and too long ones among them."""
        rng = random.Random(1)
        files = {pack_name(at): rng.randbytes(200_000) for at in range(3)}
        for name, content in files.items():
            put(bucket, name, content)
        parts: list[Part] = [(pack_name(9), 0, 10), (pack_name(0), 199_999, 2)]
        for _ in range(100):
            start = rng.randrange(200_000)
            length = rng.randrange(1, min(100_000, 200_000 - start) + 1)
            parts.append((pack_name(rng.randrange(3)), start, length))
        for _ in range(2):
            bucket.prefetch(parts)
            with pytest.raises(MissingPack):
                bucket.read(*parts[0])
            with pytest.raises(CorruptPack):
                bucket.read(*parts[1])
            for name, start, length in parts[2:]:
                assert bucket.read(name, start, length) == files[name][start : start + length]
        bucket.prefetch([])

    def test_parts_of_one_file_are_read_as_one_by_one(self, bucket: Bucket) -> None:
        """Several parts come in the order asked for; a missing file or a part beyond the end raises
        what a single read raises.
        """
        content = random.Random(2).randbytes(150_000)
        put(bucket, pack_name(1), content)
        starts, lengths = [140_000, 0, 7, 7], [10_000, 1, 0, 90_000]
        found = bucket.read_all(pack_name(1), starts, lengths)
        assert found == [bucket.read(pack_name(1), *p) for p in zip(starts, lengths, strict=True)]
        assert bucket.read_all(pack_name(1), [], []) == []
        with pytest.raises(CorruptPack):
            bucket.read_all(pack_name(1), [0, 149_999], [5, 2])
        with pytest.raises(MissingPack):
            bucket.read_all(pack_name(2), [0], [1])

    def test_a_sealed_file_is_compared_with_what_was_written(self, bucket: Bucket) -> None:
        """`check` says yes to the end that was written, and no to another, a longer or shorter."""
        put(bucket, pack_name(1), b"head and a body and a tail")
        assert bucket.check(pack_name(1), b"head", 22, b"tail")
        for start, tail in (
            (22, b"TAIL"),
            (22, b"tai"),
            (22, b"tailor"),
            (21, b"tail"),
            (23, b"ail"),
        ):
            assert bucket.check(pack_name(1), b"head", start, tail) is (start == 23)

    def test_what_is_kept_can_be_forgotten(self, bucket: Bucket) -> None:
        """After `forget` every byte is had as before."""
        put(bucket, pack_name(1), b"kept")
        assert bucket.read(pack_name(1), 0, 4) == b"kept"
        bucket.forget()
        assert bucket.read(pack_name(1), 0, 4) == b"kept"
        assert bucket.size(pack_name(1)) == 4

    def test_what_is_not_there_is_missing(self, bucket: Bucket) -> None:
        """Reading or measuring an absent file raises `MissingPack`."""
        with pytest.raises(MissingPack):
            bucket.read(pack_name(10), 0, 1)
        with pytest.raises(MissingPack):
            bucket.size(pack_name(10))

    def test_deleting_twice_is_harmless(self, bucket: Bucket) -> None:
        """A deleted file is gone from reads and listings; deleting what is absent does nothing."""
        put(bucket, pack_name(11), b"to go")
        assert bucket.read(pack_name(11), 0, 5) == b"to go"
        put(bucket, pack_name(12), b"to stay")
        for _ in range(2):
            bucket.delete(pack_name(11))
            bucket.sync()
        bucket.delete(pack_name(13))
        with pytest.raises(MissingPack):
            bucket.read(pack_name(11), 0, 5)
        assert list(bucket.list()) == [BucketFile(pack_name(12), 7)]

    def test_a_listing_is_whole(self, bucket: Bucket) -> None:
        """Every sealed file is listed once with its size, however many there are."""
        expected = {pack_name(at): at % 7 for at in range(MANY_FILES)}
        for name, size_bytes in expected.items():
            put(bucket, name, bytes(size_bytes))
        listed = list(bucket.list())
        assert len(listed) == MANY_FILES
        assert {file.name: file.size_bytes for file in listed} == expected

    def test_a_listing_beside_deletes_is_never_short(self, bucket: Bucket) -> None:
        """While other files come and go, a listing works and has every file that stays."""
        staying = {pack_name(at) for at in range(20)}
        for name in staying:
            put(bucket, name, b"x")
        stop = threading.Event()
        failures: list[BaseException] = []

        def churn() -> None:
            number = 1000
            while not stop.is_set():
                number += 1
                put(bucket, pack_name(number), b"y")
                bucket.delete(pack_name(number))

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(200):
                listed = {file.name for file in bucket.list()}
                if not staying <= listed:
                    failures.append(AssertionError(staying - listed))
        except CasError as error:
            failures.append(error)
        finally:
            stop.set()
            thread.join()
        assert failures == []

    def test_threads_read_the_files_they_asked_for(self, bucket: Bucket) -> None:
        """Reads of more files than can be kept open, from many threads, are never mixed up."""
        names = [pack_name(at) for at in range(MANY_FILES)]
        for name in names:
            put(bucket, name, name.encode() * 4)
        wrong: list[object] = []

        def read(first: int) -> None:
            try:
                for turn in range(3 * MANY_FILES):
                    name = names[(first + turn * 37) % MANY_FILES]
                    if bucket.read(name, 37, 37) != name.encode():
                        wrong.append(name)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(at * 23,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_uploads_of_threads_do_not_mix(self, bucket: Bucket) -> None:
        """Files written side by side hold what their own writer wrote."""

        def write(number: int) -> None:
            upload = bucket.create()
            for _ in range(100):
                upload.write(b"%04d" % number * 64)
            upload.seal(pack_name(number))

        threads = [threading.Thread(target=write, args=(at,)) for at in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for at in range(6):
            assert bucket.read(pack_name(at), 0, 25_600) == b"%04d" % at * 6_400

    def test_a_closed_bucket_refuses_reads(self, bucket: Bucket) -> None:
        """After close, twice, a read says so: it is not mistaken for a missing file."""
        put(bucket, pack_name(14), b"x")
        assert bucket.read(pack_name(14), 0, 1) == b"x"
        bucket.close()
        bucket.close()
        with pytest.raises(Closed):
            bucket.read(pack_name(14), 0, 1)

    def test_another_handle_sees_the_same(self, bucket: Bucket, tmp_path: Path) -> None:
        """What one handle sealed or deleted, another one sees at once."""
        if not self.reopens:
            pytest.skip("this bucket lives in one handle (reopens = False)")
        other = self.open_bucket(tmp_path)
        put(bucket, pack_name(15), b"seen")
        assert other.read(pack_name(15), 0, 4) == b"seen"
        assert list(other.list()) == [BucketFile(pack_name(15), 4)]
        upload = other.create()
        upload.write(b"again")
        with pytest.raises(StorageFailed):
            upload.seal(pack_name(15))
        upload.abort()
        other.delete(pack_name(15))
        other.close()
        assert list(bucket.list()) == []
