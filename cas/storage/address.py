"""Addresses of buckets: `s3://bucket/prefix?endpoint=URL&region=NAME`, read and written.

Floor 2; implements docs/format.md section 8.3. Invariant: an address has no credentials; one that
was given with some is refused, and the refusal does not repeat it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from attrs import frozen

from cas.errors import Invalid

SCHEME: Final = "s3"
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PART: Final = re.compile(r"[A-Za-z0-9!_.*'()-]{1,255}")
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,63}")


@frozen
class BucketAddress:
    """A prefix of a bucket. `endpoint` and `region` are None where surroundings say them."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None

    @property
    def label(self) -> str:
        """Bucket and prefix: what messages say."""
        return f"{SCHEME}://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def url(self) -> str:
        """The whole address, as `parse_address` takes it."""
        named = {"endpoint": self.endpoint, "region": self.region}
        query = {key: value for key, value in named.items() if value is not None}
        return self.label + ("?" + urlencode(query, safe=":/", quote_via=quote) if query else "")


def is_address(text: str) -> bool:
    """Whether something that names a place is meant as an address, and not as a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def parse_address(text: str) -> BucketAddress:
    """Read an address. Raises `Invalid`."""
    try:
        parts = urlsplit(text)
        has_credentials = "@" in parts.netloc
    except ValueError:
        raise Invalid("This is no address of a bucket; write s3://BUCKET/PREFIX.") from None
    if has_credentials:
        raise Invalid(
            "An address of a bucket holds no credentials: they come from AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or from a profile (AWS_PROFILE)."
        )
    if parts.scheme != SCHEME:
        raise Invalid(
            f"A bucket is named as s3://BUCKET/PREFIX, not by {parts.scheme or 'a path'}."
        )
    if not _BUCKET.fullmatch(parts.netloc):
        # Not repeated: KEY:SECRET might stand there.
        raise Invalid(
            "A bucket is named with 2 to 63 letters, digits and `._-`; write s3://BUCKET/PREFIX."
        )
    prefix = unquote(parts.path).strip("/")
    for part in prefix.split("/") if prefix else ():
        if not _PART.fullmatch(part) or part in (".", ".."):
            raise Invalid(
                f"{part!r} cannot be a part of a bucket's prefix; use letters, digits, -_."
            )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(given.keys() - {"endpoint", "region"})
    if unknown or parts.fragment:
        # Only the key is repeated: a value may be a secret in the wrong place.
        raise Invalid(
            f"An address of a bucket takes endpoint and region, not {', '.join(unknown) or '#'}."
        )
    endpoint, region = given.get("endpoint"), given.get("region")
    if endpoint is not None:
        check_endpoint(endpoint)
        endpoint = endpoint.rstrip("/")
    if region is not None and not _REGION.fullmatch(region):
        raise Invalid(f"{region!r} is no name of a region.")
    return BucketAddress(parts.netloc, prefix, endpoint, region)


def check_endpoint(endpoint: str) -> None:
    """Raise `Invalid` unless this is the address of a server and nothing more, no secret for one.
    The refusal does not repeat it.
    """
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        good = good and not parts.query and not parts.fragment
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        good = False
    if not good:
        raise Invalid("The endpoint of a bucket is http://HOST:PORT or https://HOST, no more.")
