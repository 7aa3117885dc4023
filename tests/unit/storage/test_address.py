"""Addresses of buckets and where credentials come from; what is refused, and that nothing leaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas.errors import AccessDenied, CasError, Invalid
from cas.storage.address import BucketAddress, is_address, parse_address
from cas.storage.credentials import client_settings

SECRET = "swordfish-swordfish"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", BucketAddress("bucket")),
        ("s3://bucket/", BucketAddress("bucket")),
        ("s3://bucket/a/b/", BucketAddress("bucket", "a/b")),
        ("s3://bucket/a?region=eu-central-1", BucketAddress("bucket", "a", None, "eu-central-1")),
        (
            "s3://b-1.x/a?endpoint=http://127.0.0.1:8333/&region=r",
            BucketAddress("b-1.x", "a", "http://127.0.0.1:8333", "r"),
        ),
    ],
)
def test_an_address_says_bucket_prefix_and_server(text: str, expected: BucketAddress) -> None:
    """What an address says is read, and written again it says the same."""
    found = parse_address(text)
    assert found == expected
    assert parse_address(found.url) == found
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/a",
        f"s3://{SECRET}@bucket",
        "gs://bucket/a",
        "s3:///a",
        "s3://x",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket/a b",
        "s3://bucket/a?secret_access_key=" + SECRET,
        f"s3://bucket/a?endpoint=http://u:{SECRET}@host",
        "s3://bucket/a?endpoint=ftp://host",
        "s3://bucket/a?endpoint=http://host:port",
        "s3://bucket/a?region=../etc",
        "s3://bucket/a#b",
        "s3://[::1/a",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(text: str) -> None:
    """An address with credentials, unknown parts or an odd prefix is refused; none is repeated."""
    with pytest.raises(Invalid) as caught:
        parse_address(text)
    assert SECRET not in f"{caught.value!r} {caught.value.fields}"
    assert not is_address("./" + text)


def write(folder: Path, credentials: str = "", config: str = "") -> dict[str, str]:
    """An environment whose home has these two files."""
    (folder / ".aws").mkdir()
    (folder / ".aws" / "credentials").write_text(credentials)
    (folder / ".aws" / "config").write_text(config)
    return {"HOME": str(folder)}


def test_keys_of_the_environment_come_first(tmp_path: Path) -> None:
    """Keys in the environment are used whatever a profile says."""
    keys = "[default]\naws_access_key_id = file\naws_secret_access_key = file\n"
    environ = write(tmp_path, keys, "[default]\nregion = eu-west-1\n")
    named = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert client_settings({**environ, **named}) == {}
    assert client_settings(environ) == {
        "access_key_id": "file",
        "secret_access_key": "file",
        "region": "eu-west-1",
    }


def test_a_profile_is_read_from_both_files(tmp_path: Path) -> None:
    """AWS_PROFILE chooses: keys of the one file, server and region of the other."""
    environ = write(
        tmp_path,
        "[default]\naws_access_key_id = d\naws_secret_access_key = d\n"
        f"[work]\naws_access_key_id = k\naws_secret_access_key = {SECRET}\naws_session_token = t\n",
        "[profile work]\nregion = eu-north-1\nendpoint_url = https://s3.example.org\n",
    )
    found = client_settings({**environ, "AWS_PROFILE": "work"})
    assert found == {
        "access_key_id": "k",
        "secret_access_key": SECRET,
        "session_token": "t",
        "region": "eu-north-1",
        "endpoint": "https://s3.example.org",
    }
    here = {"AWS_PROFILE": "work", "AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://h"}
    assert client_settings({**environ, **here}).keys() == {
        "access_key_id",
        "secret_access_key",
        "session_token",
    }


def test_without_files_there_is_nothing_to_add(tmp_path: Path) -> None:
    """Where no file says anything the client looks for itself; a profile that is named and not
    there is refused.
    """
    environ = {"HOME": str(tmp_path)}
    assert client_settings(environ) == {}
    with pytest.raises(AccessDenied, match="work"):
        client_settings({**environ, "AWS_PROFILE": "work"})


@pytest.mark.parametrize("text", ["[default\n" + SECRET, SECRET, "[default]\n" + SECRET + "\n"])
def test_a_damaged_file_of_profiles_is_told_without_its_lines(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is named, and what stands in it is not."""
    with pytest.raises(CasError) as caught:
        client_settings(write(tmp_path, text))
    assert "credentials" in str(caught.value)
    assert SECRET not in f"{caught.value!r} {caught.value.fields} {caught.value.__cause__}"
