"""A store whose catalog is on a server: made, opened, filled, removed.

Floor 5. Invariant: the bucket is there, durably, before a row names it; a store has its name once
it is whole; and where it lies is shown without what may be secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import evolve

from cas.catalog.catalog import Meta
from cas.catalog.postgres import PostgresCatalog, open_postgres
from cas.catalog.postgres_place import PostgresPlace, parse
from cas.catalog.postgres_schema import add, drop, exists, migrate, rename
from cas.clock import Clock
from cas.errors import BucketTaken, CasError, Invalid, NotAStore, StorageFailed
from cas.maintenance.buckets import Begun, begin, claim_of
from cas.model.names import CLAIM
from cas.objects.store import ObjectStore
from cas.storage.address import is_address, parse_address
from cas.storage.bucket import Bucket
from cas.storage.place import bucket_at

_BUILDING: Final = ".new"

_WAITS: Final = 20
_WAIT_MS: Final = 50
"""How often, and after which pauses, it is looked whether another has made the store."""


def parse_hosted(url: str) -> PostgresPlace:
    """Where a URL leads. Raises `Invalid`, `Unsupported`; neither repeats it."""
    return parse(url)


def open_hosted(
    place: PostgresPlace,
    bucket: str | None,
    clock: Clock,
    read_only: bool = False,
    caches: str | None = None,
) -> ObjectStore:
    """Open a store; `bucket` says where its bucket is found from here, else as it was made.

    `caches` is a folder for caches of all such stores. Raises what `open_postgres` does.
    """
    catalog = open_postgres(place, read_only=read_only)
    try:
        where = _bucket_of(catalog, _named(bucket or place.bucket))
        cache = None if caches is None else _cache_of(catalog, caches)
        if cache is not None:
            catalog.remember(cache)
        return ObjectStore(catalog, bucket_at(where, clock, cache), clock, cache)
    except BaseException:
        catalog.close()
        raise


def _bucket_of(catalog: PostgresCatalog, named: str | None) -> str:
    """Where the bucket of a store is found from here, which has to be the one it was made with:
    packs that go elsewhere are lost to all others, and those of another store would be taken for
    leftovers. Raises `Invalid` for another one that was named, `StorageFailed` for a folder that
    is not there, as a mount that is missing.
    """
    made, where = catalog.bucket, named or catalog.bucket
    far = is_address(where)
    if far != is_address(made) or (far and parse_address(where).label != parse_address(made).label):
        raise _another(catalog, where)
    if far or catalog.claim is None or (named is None and catalog.read_only):
        return where
    found = claim_of(where)
    if found == catalog.claim:
        return where
    if found is not None and named is not None:
        raise _another(catalog, where)
    raise StorageFailed(
        f"The folder {where} is not the bucket of {catalog.place.shown}: {CLAIM} is missing there, "
        f"or has not the claim {catalog.claim}. Mount it, or say with `bucket=` where it is.",
        path=where,
        errno=None,
    )


def _another(catalog: PostgresCatalog, where: str) -> Invalid:
    shown = parse_address(where).label if is_address(where) else where
    return Invalid(
        f"The packs of {catalog.place.shown} lie in {catalog.bucket}, and {shown} is another "
        "place; where they lie is settled when a store is made. Copy it to have them elsewhere."
    )


def accept_hosted(place: PostgresPlace, caches: str | None) -> bool:
    """Take the state that the server has as the truth, whatever was seen of it from here; False
    where it has all of that. Raises what `open_postgres` does.
    """
    catalog = open_postgres(place)
    try:
        cache = None if caches is None else _cache_of(catalog, caches)
        return cache is not None and catalog.remember(cache, accept=True)
    finally:
        catalog.close()


def _named(bucket: str | None) -> str | None:
    if bucket is None or is_address(bucket):
        return bucket
    return os.path.abspath(bucket)


def _cache_of(catalog: PostgresCatalog, caches: str) -> str | None:
    """A folder for caches of one store, or None where none can be made."""
    folder = os.path.join(caches, catalog.meta.store_id.hex())
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


def is_there(place: PostgresPlace) -> bool:
    """Whether there is a store of this name."""
    return exists(place)


def taken(place: PostgresPlace) -> NotAStore:
    """The error for a name that a store has already."""
    return NotAStore(f"There is a store at {place.shown}; name another.", path=place.shown)


def make_hosted(place: PostgresPlace, bucket: str | None, meta: Meta, clock: Clock) -> bool:
    """Make an empty store, and the schema where there is none, or bring that forward; False
    when there is a store of this name.

    Raises `Invalid` without a bucket, or where the store has another, `NotAStore` for one that is
    not empty, `BucketTaken`, `AccessDenied`, `StorageFailed`, `NewerFormat`.
    """
    migrate(place)
    if exists(place):
        if bucket or place.bucket:
            open_hosted(place, bucket, clock, read_only=True).close()
        return False
    try:
        begun = _begin_bucket(bucket or place.bucket, clock)
    except BucketTaken:
        if _comes_to_be(place, clock):
            return False
        raise
    try:
        made = add(place, meta, begun.where, begun.mark)
    except BaseException:
        # The answer may be lost, and the store be there: only the claim of an empty place goes.
        with suppress(CasError):
            if not exists(place):
                begun.let_go(clock)
        raise
    if not made:
        begun.release(clock)
    return made


def _comes_to_be(place: PostgresPlace, clock: Clock) -> bool:
    """Whether a store is there by now: who claimed its bucket may be making it at this moment."""
    for _ in range(_WAITS):
        if exists(place):
            return True
        clock.sleep_ms(_WAIT_MS)
    return False


def _begin_bucket(where: str | None, clock: Clock) -> Begun:
    if where is None:
        raise Invalid(
            "A store on PostgreSQL needs a bucket for its packs; name one: `bucket=`, `cas init "
            "--bucket`, or `bucket=` in its URL."
        )
    return begin(where, clock)


def fill_hosted(
    place: PostgresPlace,
    bucket: str | None,
    clock: Clock,
    fill: Callable[[Bucket, Callable[[Meta], ObjectStore]], None],
) -> bool:
    """Make a store with something in it; False when there is one of this name.

    `fill` is given the new bucket and what makes and opens the catalog; the store has its name
    once it is filled. Raises as `make_hosted` does.
    """
    if exists(place):
        return False
    migrate(place)
    begun = _begin_bucket(bucket or place.bucket, clock)
    named = begun.where
    building = evolve(place, store=f".{place.store}.{clock.random(8).hex()}{_BUILDING}")

    def open_new(filled: Meta) -> ObjectStore:
        add(building, filled, named, begun.mark)
        return ObjectStore(open_postgres(building), bucket_at(named, clock), clock)

    try:
        fill(bucket_at(named, clock), open_new)
    except BaseException:
        # Nobody knows of it by the name that it has yet, also where that cannot be taken back.
        with suppress(CasError):
            drop(building)
        begun.release(clock)
        raise
    try:
        made = rename(building, place)
    except BaseException:
        # Where the answer is lost it may have its name; the bucket stays in any case.
        with suppress(CasError):
            drop(building)
        raise
    if not made:
        with suppress(CasError):
            drop(building)
        begun.release(clock)
    return made
