"""From the address of a bucket to the bucket.

Floor 2. Invariant: nothing of the client is loaded before an address is opened, and it is never
called with more patience than `cas.limits` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from cas.clock import Clock
from cas.errors import AccessDenied, Invalid, Unsupported
from cas.limits import (
    BUCKET_FIRST_RETRIES,
    BUCKET_FIRST_S,
    BUCKET_READ_S,
    BUCKET_RETRIES,
    BUCKET_RETRY_S,
    BUCKET_WRITE_S,
)
from cas.storage.address import BucketAddress, check_endpoint
from cas.storage.credentials import client_settings, surroundings
from cas.storage.s3 import S3Bucket, reason


def load_client() -> Any:
    """The library. Raises `Unsupported` with what to install."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise Unsupported(
            "A bucket of an object store needs the library obstore; install agent-cas[s3].",
            library="obstore",
        ) from error
    return obstore


def shown(address: BucketAddress, environ: Mapping[str, str] | None = None) -> str:
    """An address with the server that is asked, as far as that was said."""
    endpoint = _endpoint(address, surroundings() if environ is None else environ, {})
    return f"{address.label} at {endpoint}" if endpoint else address.label


_NAMES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def _endpoint(
    address: BucketAddress, environ: Mapping[str, str], settings: Mapping[str, Any]
) -> str:
    """The server that is asked, "" for that of AWS. Raises `Invalid`, which does not repeat it."""
    said = (address.endpoint, settings.get("endpoint"), *map(environ.get, _NAMES))
    for found in filter(None, said):
        check_endpoint(str(found))
        return str(found)
    if any(name in environ for name in _NAMES):
        # The client takes an empty one for an address, and ends the process over it.
        raise Invalid(
            "The endpoint of a bucket is empty in the environment; unset AWS_ENDPOINT_URL."
        )
    return ""


def connect(
    address: BucketAddress,
    clock: Clock,
    environ: Mapping[str, str] | None = None,
    *,
    first: bool = False,
) -> S3Bucket:
    """The bucket at an address. Nothing is asked yet, so that it may be wrong or out of reach.
    With `first` it is one to ask a first question of: it gives up soon.

    Raises `Unsupported`, `AccessDenied`, `Invalid`.
    """
    library = load_client()
    environ = surroundings() if environ is None else environ
    settings = client_settings(environ)
    endpoint = _endpoint(address, environ, settings)
    if endpoint:
        settings["endpoint"] = endpoint
    if address.region is not None:
        settings["region"] = address.region
    client = {"allow_http": True} if endpoint.startswith("http://") else {}

    def store(request_s: float, retries: int, retry_s: float) -> Any:
        try:
            return library.store.S3Store(
                address.bucket,
                prefix=address.prefix or None,
                client_options={**client, "timeout": timedelta(seconds=request_s)},
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=retry_s)},
                checksum_algorithm="sha256",
                **settings,
            )
        except library.exceptions.BaseError as error:
            raise AccessDenied(
                f"The credentials for {address.label} are not whole: {reason(error)}. Give "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
                path=address.label,
            ) from error

    if first:
        asking = store(BUCKET_FIRST_S, BUCKET_FIRST_RETRIES, 2 * BUCKET_FIRST_S)
        return S3Bucket(library, asking, clock, address.label)
    reader = store(BUCKET_READ_S, BUCKET_RETRIES, BUCKET_RETRY_S)
    writer = store(BUCKET_WRITE_S, BUCKET_RETRIES, BUCKET_RETRY_S)
    return S3Bucket(library, reader, clock, address.label, writer)
