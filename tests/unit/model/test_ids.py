"""Ids: what `b3sum` prints, told apart by kind, compared and shortened as text is."""

from __future__ import annotations

import copy
import os
import pickle

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidId
from cas.model.ids import (
    CONTEXTS,
    BlobId,
    CommitId,
    Kind,
    ObjectId,
    RecipeId,
    TagId,
    TreeId,
    blob_hasher,
    digest_blob,
    digest_of,
    is_abbreviation,
)

# The official test vectors of BLAKE3: input byte i is i mod 251; hash and derive_key mode with
# the context string of the vectors. First 32 bytes of each.
VECTORS = {
    0: (
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
    ),
    1: (
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c",
    ),
    1024: (
        "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        "7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706",
    ),
    102400: (
        "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
        "4652cff7a3f385a6103b5c260fc1593e13c778dbe608efb092fe7ee69df6e9c6",
    ),
}
VECTOR_CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"


def vector(length: int) -> bytes:
    """Input of the official vectors."""
    return bytes(at % 251 for at in range(length))


@pytest.mark.parametrize("length", VECTORS)
def test_a_blob_has_the_id_that_b3sum_prints(length: int) -> None:
    """The id of content is plain BLAKE3, as the official vectors give it."""
    plain, derived = VECTORS[length]
    content = vector(length)
    assert str(BlobId(digest_of(Kind.BLOB, content))) == plain
    assert blake3(content, derive_key_context=VECTOR_CONTEXT).hexdigest() == derived


@pytest.mark.parametrize("size", [0, 1, 64, 1 << 20, (1 << 20) + 1, 3_000_001])
def test_one_hash_whatever_the_size_and_the_pieces(size: int) -> None:
    """Content hashed at once, by threads, or piece by piece has one id."""
    content = os.urandom(size)
    hasher = blob_hasher()
    for at in range(0, size, 77_777):
        hasher.update(content[at : at + 77_777])
    assert digest_blob(content) == digest_blob(memoryview(content)) == hasher.digest()
    assert digest_blob(content) == blake3(content).digest()


def test_kinds_never_share_an_id() -> None:
    """The same bytes have another id for each kind, and each context is used once."""
    content = b"\x80"
    digests = {digest_of(kind, content) for kind in Kind}
    assert len(digests) == len(Kind)
    assert len(set(CONTEXTS.values())) == len(Kind) - 1
    for kind, context in CONTEXTS.items():
        expected = blake3(content, derive_key_context=context).digest()
        assert digest_of(kind, content) == expected


@given(st.binary(min_size=32, max_size=32))
def test_text_and_back(digest: bytes) -> None:
    """An id survives its text in either case, with spaces around, pickle and copy."""
    for kind in (ObjectId, BlobId, TreeId, CommitId, TagId, RecipeId):
        id = kind(digest)
        assert str(id) == digest.hex()
        assert kind.parse(str(id)) == kind.parse(f" {str(id).upper()}\n") == id
        assert type(kind.parse(str(id))) is kind
        for twin in (pickle.loads(pickle.dumps(id)), copy.copy(id), copy.deepcopy(id)):
            assert twin == id
            assert type(twin) is kind
        assert id.short == str(id)[:12]
        assert id.short in repr(id)


@given(st.lists(st.binary(min_size=32, max_size=32)))
def test_ids_sort_as_bytes_and_as_text(digests: list[bytes]) -> None:
    """Ids compare and hash as their bytes do, and their texts sort the same way."""
    ids = [BlobId(digest) for digest in digests]
    assert sorted(ids) == sorted(digests)
    assert [str(id) for id in sorted(ids)] == sorted(map(str, ids))
    assert set(ids) == set(digests)


@pytest.mark.parametrize("length", [0, 1, 16, 31, 33, 64])
def test_an_id_has_32_bytes(length: int) -> None:
    """No other length is taken."""
    with pytest.raises(InvalidId):
        ObjectId(bytes(length))


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "g" * 64, "0x" + "0" * 62, "٠" * 64, "0" * 63 + "\0"]
)
def test_other_texts_are_refused(text: str) -> None:
    """Only 64 hex digits of ASCII spell an id."""
    with pytest.raises(InvalidId):
        ObjectId.parse(text)


@given(st.text("0123456789abcdef", max_size=70))
def test_abbreviations_have_8_to_64_digits(text: str) -> None:
    """Lower-case hex of that length could be an id or begin one; nothing else could."""
    assert is_abbreviation(text) == (8 <= len(text) <= 64)
    if text:
        assert not is_abbreviation(text[:-1] + "g")
