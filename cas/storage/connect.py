"""From the address of a bucket to the bucket.

Floor 2. Invariant: nothing of the client is loaded before an address is opened, and it is never
called with more patience than `cas.limits` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cas.clock import Clock
from cas.errors import Unsupported
from cas.limits import BUCKET_READ_S, BUCKET_RETRIES, BUCKET_RETRY_S, BUCKET_WRITE_S
from cas.storage.address import BucketAddress
from cas.storage.credentials import client_settings, surroundings
from cas.storage.s3 import S3Bucket


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


def connect(
    address: BucketAddress, clock: Clock, environ: Mapping[str, str] | None = None
) -> S3Bucket:
    """The bucket at an address. Nothing is asked yet, so that it may be wrong or out of reach.

    Raises `Unsupported`, `AccessDenied`.
    """
    library = load_client()
    environ = surroundings() if environ is None else environ
    settings = client_settings(environ)
    if address.endpoint is not None:
        settings["endpoint"] = address.endpoint
    if address.region is not None:
        settings["region"] = address.region
    endpoint = settings.get("endpoint") or environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_ENDPOINT") or ""
    client = {"allow_http": True} if endpoint.startswith("http://") else {}

    def store(request_s: int) -> Any:
        return library.store.S3Store(
            address.bucket,
            prefix=address.prefix or None,
            client_options={**client, "timeout": timedelta(seconds=request_s)},
            retry_config={
                "max_retries": BUCKET_RETRIES,
                "retry_timeout": timedelta(seconds=BUCKET_RETRY_S),
            },
            checksum_algorithm="sha256",
            **settings,
        )

    return S3Bucket(library, store(BUCKET_READ_S), clock, address.label, store(BUCKET_WRITE_S))
