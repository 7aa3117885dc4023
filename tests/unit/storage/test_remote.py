"""Claims, probes and the file of a store whose packs lie in a bucket."""

from __future__ import annotations

import json
import os
import socket
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import (
    AccessDenied,
    BucketTaken,
    CorruptCatalog,
    Invalid,
    NewerFormat,
    StorageFailed,
    UnsafeBucket,
)
from cas.maintenance.fsck.check import fsck
from cas.model.names import CLAIM
from cas.storage import connect as connecting
from cas.storage.address import parse_address
from cas.storage.connect import connect
from cas.storage.probe import probe
from cas.storage.remote import claim, release
from cas.testing.bucket_contract import pack_name, put
from tests.servers.careless import CarelessServer, careless
from tools.services import S3Server

pytest.importorskip("obstore")

SECRET = "swordfish-swordfish"


def keys(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Credentials in the environment, as a user has them."""
    found = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": SECRET, **more}
    for name, value in found.items():
        monkeypatch.setenv(name, value)


def at(server: CarelessServer, prefix: str = "a") -> str:
    """An address on a server of the tests."""
    return f"s3://bucket/{prefix}?endpoint={server.endpoint}"


@pytest.fixture
def real(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A prefix on a real server, whose credentials are in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}{tmp_path}"


def test_a_server_that_honours_conditions_is_recorded(real: str, tmp_path: Path) -> None:
    """The probe finds one winner, and its result stands in the store."""
    cas.init(tmp_path / "store", bucket=real)
    document = json.loads((tmp_path / "store" / "packs").read_text())
    found = document["probe"]
    assert (found["create"], found["winners"], found["stale"]) == (True, 1, "refused")
    assert document["url"] == real
    bucket = connect(parse_address(real), SystemClock())
    assert list(bucket.list()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ignores-create", "replaced the first"),
        ("ignores-match", "If-Match"),
        ("loses-metadata", "metadata"),
        ("lets-racers-win", "8 were accepted"),
    ],
)
def test_a_server_that_ignores_conditions_is_refused(
    fault: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No store is made where a put that should fail does not, and nothing is left there."""
    keys(monkeypatch)
    with careless(fault) as server:
        with pytest.raises(UnsafeBucket, match=words):
            cas.init(tmp_path / "store", bucket=at(server))
        assert server.objects == {}
    assert os.listdir(tmp_path) == []


def test_a_careful_server_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of these tests passes when it has no fault: it is the fault that is refused."""
    keys(monkeypatch)
    with careless() as server:
        cas.init(tmp_path / "store", bucket=at(server))
        assert list(server.objects) == ["/bucket/a/cas-store.json"]
        bucket = connect(parse_address(at(server)), SystemClock())
        assert probe(bucket).winners == 1


def test_a_prefix_belongs_to_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second store below a prefix is refused, and its refusal clears nothing."""
    keys(monkeypatch)
    with careless() as server:
        with cas.open(tmp_path / "one", create=True, bucket=at(server)) as store:
            oid = store.put(os.urandom(200_000))
            with pytest.raises(BucketTaken):
                cas.init(tmp_path / "two", bucket=at(server))
            assert len(store.get(oid)) == 200_000
        assert not (tmp_path / "two").exists()
        assert cas.init(tmp_path / "one", bucket=at(server)) is False
        cas.init(tmp_path / "two", bucket=at(server, "b"))
        with pytest.raises(Invalid, match="lie in"):
            cas.open(tmp_path / "one", bucket=at(server, "b"))


def test_a_prefix_may_begin_with_that_of_another_store(real: str, tmp_path: Path) -> None:
    """What lies below a longer prefix is of the store there: it is not listed here, no finding of a
    check, and nothing that a collection, or a store that never came to be, takes along.
    """
    with cas.open(tmp_path / "inner", create=True, bucket=f"{real}/b") as inner:
        oid = inner.put(os.urandom(200_000))
        release(claim(parse_address(real), SystemClock()), SystemClock())
        with cas.open(tmp_path / "outer", create=True, bucket=real) as outer:
            outer.put(os.urandom(200_000))
            assert len(list(outer.objects.bucket.list())) == 1
            assert fsck(outer).findings == ()
            outer.gc()
        inner.objects.bucket.forget()
        assert len(inner.get(oid)) == 200_000
        assert fsck(inner).findings == ()


def test_a_prefix_with_packs_and_no_claim_is_left_as_it_is(real: str, tmp_path: Path) -> None:
    """Packs of a store whose claim is gone are somebody's; who is refused leaves no claim there."""
    bucket = connect(parse_address(real), SystemClock())
    put(bucket, pack_name(1), b"somebody's")
    for _ in range(2):
        with pytest.raises(BucketTaken, match=f"remove {CLAIM}"):
            cas.init(tmp_path / "store", bucket=real)
    assert bucket.mark_of(CLAIM) is None
    assert bucket.read(pack_name(1), 0, 10) == b"somebody's"


def test_a_store_in_a_folder_is_not_opened_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming a bucket for a store that has its packs in its folder is refused."""
    keys(monkeypatch)
    cas.init(tmp_path / "store")
    with careless() as server, pytest.raises(Invalid, match="the folder itself"):
        cas.open(tmp_path / "store", create=True, bucket=at(server))


def test_a_copied_folder_does_not_become_a_fork_on_the_same_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores never share a prefix: a fork of a copied folder is refused."""
    keys(monkeypatch)
    with careless() as server:
        cas.init(tmp_path / "one", bucket=at(server))
        os.rename(tmp_path / "one", tmp_path / "two")
        with pytest.raises(Invalid, match="cas copy"):
            cas.adopt(tmp_path / "two", fork=True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", CorruptCatalog),
        ("[]", CorruptCatalog),
        ('{"schema": "cas.bucket", "version": 1}', CorruptCatalog),
        ('{"schema": "other", "version": 1}', CorruptCatalog),
        ('{"schema": "cas.bucket", "version": 2}', NewerFormat),
    ],
)
def test_a_damaged_file_is_told(
    text: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that does not say where the packs lie is an error that names it, at each opening."""
    keys(monkeypatch)
    with careless() as server:
        cas.init(tmp_path / "store", bucket=at(server))
        (tmp_path / "store" / "packs").write_text(text)
        with pytest.raises(error, match="packs"):
            cas.open(tmp_path / "store")


def test_a_server_out_of_reach_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its server a store opens and says what it cannot do; nothing is called missing, a
    check stops, and a repair does not begin.
    """
    keys(monkeypatch)
    monkeypatch.setattr(connecting, "BUCKET_RETRIES", 0)
    with (
        careless() as server,
        cas.open(tmp_path / "store", create=True, bucket=at(server)) as store,
    ):
        oid = store.put(os.urandom(200_000))
    with cas.open(tmp_path / "store") as store:
        with pytest.raises(StorageFailed):
            store.get(oid)
        with pytest.raises(StorageFailed):
            cas.fsck(store)
    with pytest.raises(StorageFailed):
        cas.plan_repair(tmp_path / "store", rebuild=True)


def test_an_address_where_nobody_answers_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is to be made asks twice, and no more: a server that hangs up, one that is
    silent, and none at all end in one error, and nothing is left.
    """
    keys(monkeypatch)
    monkeypatch.setattr(connecting, "BUCKET_FIRST_S", 0.3)
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as hanging_up:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = hanging_up.accept()
                    calls.append(1)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = hanging_up.getsockname()[1]
        with pytest.raises(StorageFailed, match="Nobody answers"):
            cas.init(tmp_path / "store", bucket=f"s3://bucket/a?endpoint=http://127.0.0.1:{port}")
        hanging_up.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert 1 <= len(calls) <= 2
    with pytest.raises(StorageFailed, match="Nobody answers"):
        cas.init(tmp_path / "store", bucket=f"s3://bucket/a?endpoint=http://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StorageFailed, match="Nobody answers"):
            cas.init(tmp_path / "store", bucket=f"s3://bucket/a?endpoint=http://127.0.0.1:{port}")
    assert os.listdir(tmp_path) == []


def test_a_bucket_that_is_not_there_is_not_made(
    real: str, s3_server: S3Server, tmp_path: Path
) -> None:
    """A mistyped bucket is told, also by a server that makes one where a put names it."""
    missing = real.replace(s3_server.bucket, "mistyped")
    for _ in range(2):
        with pytest.raises(StorageFailed, match="NoSuchBucket"):
            cas.init(tmp_path / "store", bucket=missing)
    assert os.listdir(tmp_path) == []


def test_a_refused_key_is_no_damage(
    real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check, a collection and a repair with a wrong key are denied, and call nothing lost."""
    with cas.open(tmp_path / "store", create=True, bucket=real) as store:
        store.put(os.urandom(200_000))
    keys(monkeypatch)
    with cas.open(tmp_path / "store") as store:
        for act in (lambda: cas.fsck(store), store.gc):
            with pytest.raises(AccessDenied):
                act()
    with pytest.raises(AccessDenied):
        cas.plan_repair(tmp_path / "store")


def test_no_secret_is_told(
    real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused key says so; key and token stand in no message, field, log, repr or file."""
    keys(monkeypatch, AWS_SESSION_TOKEN=SECRET)
    bucket = connect(parse_address(real), SystemClock())
    with pytest.raises(AccessDenied) as caught:
        cas.init(tmp_path / "store", bucket=real)
    told = f"{caught.value!r} {caught.value.fields} {bucket!r} {vars(bucket)} {caplog.text}"
    cause: BaseException | None = caught.value
    while cause is not None:
        told += f" {cause!r}"
        cause = cause.__cause__ or cause.__context__
    assert SECRET not in told
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "profile"])
@pytest.mark.parametrize("endpoint", [f"http://me:{SECRET}@127.0.0.1:9", "", "127.0.0.1:9"])
def test_an_endpoint_is_the_address_of_a_server_and_nothing_more(
    endpoint: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes from, one with credentials, or of no scheme, is refused and not repeated:
    the client would say it in each of its errors. An empty one is refused in the environment.
    """
    keys(monkeypatch)
    if name == "profile":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "team")
        words = f"[profile team]\nendpoint_url = {endpoint}\naws_access_key_id = x\n"
        (tmp_path / "config").write_text(words + f"aws_secret_access_key = {SECRET}\n")
    else:
        monkeypatch.setenv(name, endpoint)
    if name == "profile" and not endpoint:
        assert SECRET not in repr(connect(parse_address("s3://bucket/a"), SystemClock()))
        return
    with pytest.raises(Invalid, match="endpoint of a bucket") as caught:
        cas.init(tmp_path / "store", bucket="s3://bucket/a")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("given", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_a_key_is_denied(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key without its secret, or the other way round, is an error of the one tree."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(given, SECRET)
    with pytest.raises(AccessDenied, match="not whole") as caught:
        cas.init(tmp_path / "store", bucket="s3://bucket/a?endpoint=http://127.0.0.1:9")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_the_place_of_a_bucket_is_not_repeated() -> None:
    """`s3://KEY:SECRET/…` is no address, and the refusal does not say it again."""
    with pytest.raises(Invalid) as caught:
        parse_address(f"s3://key:{SECRET}/bucket")
    assert SECRET not in str(caught.value)
