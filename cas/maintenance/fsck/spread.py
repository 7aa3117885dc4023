"""A check of every byte on many workers: threads, processes, or the machines of a cluster.

Floor 5. Invariant: a worker gets the place of a store and names of packs, opens the store itself,
for reading, and gives a plain value; so any `concurrent.futures` executor serves that reaches the
folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from cas.catalog.sqlite import open_catalog
from cas.clock import SystemClock
from cas.maintenance.findings import Findings
from cas.maintenance.folder import CATALOG, LOCKS
from cas.maintenance.fsck.known import Known
from cas.maintenance.fsck.packs import Pack, PackSurvey
from cas.maintenance.fsck.records import RecordCheck
from cas.model.values import frozen
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore
from cas.storage.place import bucket_in

if TYPE_CHECKING:
    from concurrent.futures import Executor

_TASK_BYTES: Final = 256 << 20
"""What one task reads, about: few enough to send, and enough to be worth an opening."""


@frozen
class Verdict:
    """What a worker found: damaged copies as (id, pack, why), other faults as (code, subject,
    message), and how much content it read.
    """

    bad: tuple[tuple[bytes, str, str], ...]
    faults: tuple[tuple[str, str, str], ...]
    content_bytes: int


def verify(location: str, names: Sequence[str]) -> Verdict:
    """Read every byte of these pack files of a store. For workers."""
    clock = SystemClock()
    catalog = open_catalog(
        os.path.join(location, CATALOG), os.path.join(location, LOCKS), read_only=True
    )
    objects = ObjectStore(catalog, bucket_in(location, clock), clock)
    try:
        findings = Findings()
        survey = PackSurvey(objects, Known(), findings)
        wanted = set(names)
        with catalog.read() as reader:
            rows = [r for r in reader.packs() if r.name is not None and file_name(r.name) in wanted]
            vectors = {number: bits for number, _version, bits in reader.vectors()}
        numbers = {row.number for row in rows}
        survey.survey(rows, {n: bits for n, bits in vectors.items() if n in numbers})
        records = RecordCheck(
            objects, survey, findings, _nothing, _nothing_of_recipe, lambda _objects, _bytes: None
        )
        records.run(survey.packs, survey.learn, survey.packs)
        bad = [(id, label, why) for id, found in records.bad.items() for label, why in found]
        return Verdict(tuple(bad), tuple(findings.plain()), records.content_bytes)
    finally:
        objects.close()


def _nothing(_named: object) -> None:
    """What objects name is followed by whoever hands out the work."""


def _nothing_of_recipe(_id: bytes, _recipe: bytes, _size: int, _pack: Pack) -> None:
    """Likewise."""


def hand_out(executor: Executor, location: str, packs: Iterable[Pack]) -> list[Verdict]:
    """The verdicts on these packs, in no order. Raises what a worker raises."""
    tasks = []
    part: list[str] = []
    size = 0
    for pack in packs:
        part.append(pack.label)
        size += pack.body_bytes
        if size >= _TASK_BYTES:
            tasks.append(executor.submit(verify, location, tuple(part)))
            part, size = [], 0
    if part:
        tasks.append(executor.submit(verify, location, tuple(part)))
    return [task.result() for task in tasks]
