"""`cas fsck`: is everything there, and is it what it should be?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import click

from cas.cli.form import count, size
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.cli.output import Output
from cas.cli.progress import Bar
from cas.errors import Corrupt
from cas.maintenance.findings import Finding, FsckReport, Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.fsck.extent import FsckExtent, FsckLevel
from cas.model.names import printable

_COLORS: Final = {
    Severity.LOSS: "red",
    Severity.DAMAGE: "red",
    Severity.WARNING: "yellow",
    Severity.NOTICE: "cyan",
}


@click.command("fsck", cls=CasCommand)
@click.option(
    "--level",
    type=click.Choice([level.value for level in FsckLevel]),
    default=FsckLevel.BYTES.value,
    help="What is read of packs: their ends, what names others, or every byte.",
)
@click.option(
    "--sample",
    metavar="PERCENT",
    type=click.FloatRange(0, 100, min_open=True),
    help="Read so much of the bytes, chosen by chance.",
)
@click.option(
    "--seconds", type=click.FloatRange(0), help="Read no further pack after so many seconds."
)
@click.option("--oldest-first", is_flag=True, help="Begin with the packs read longest ago.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, help="Processes that read packs.")
@pass_front
def fsck_command(
    front: Front,
    level: str,
    sample: float | None,
    seconds: float | None,
    oldest_first: bool,
    jobs: int,
) -> None:
    """Check every object, every history and the journal.

    Every byte of every pack is read and hashed, everything that something names is looked for,
    and the journal is followed from its first entry. Nothing is changed, and others may go on
    writing. A finding is: severity, code, what it is about, and what to do; losses come first.
    The exit code is 5 when something is lost or damaged, else 0.
    """
    extent = FsckExtent(
        FsckLevel(level),
        None if sample is None else sample / 100,
        None if seconds is None else seconds * 1000,
        oldest_first,
    )
    with front.store() as store, Bar(front.settings) as bar, ExitStack() as stack:
        executor = None
        if jobs > 1:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
            executor = stack.enter_context(pool)
        report = fsck(store, extent=extent, executor=executor, progress=bar.check)
    front.exit_code = 0 if report.ok else Corrupt.exit_code
    if front.out.json:
        front.out.document("fsck", **_fields(report))
        return
    front.out.lines(line for finding in report.findings for line in _lines(front.out, finding))
    entries = count(report.entry_count, "journal entry", "journal entries")
    objects, packs = count(report.object_count, "object"), count(report.pack_count, "pack")
    seen = f"{objects}, {size(report.content_bytes)} in {packs}, {entries}"
    if report.unread_count:
        seen += f"; {count(report.unread_count, 'pack file')} not read in full"
    bad = sum(f.severity in (Severity.LOSS, Severity.DAMAGE) for f in report.findings)
    front.out.note(f"checked {seen}: " + ("all good" if report.ok else count(bad, "fault")))


def _fields(report: FsckReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "objects": report.object_count,
        "size": report.content_bytes,
        "packs": report.pack_count,
        "entries": report.entry_count,
        "unread_packs": report.unread_count,
        "findings": [
            {
                "severity": finding.severity.value,
                "code": finding.code,
                "subject": printable(finding.subject),
                "message": printable(finding.message),
                "affected": [printable(name) for name in finding.affected],
                "repair": finding.repair,
            }
            for finding in report.findings
        ],
    }


def _lines(out: Output, finding: Finding) -> Iterator[str]:
    severity = out.paint(str(finding.severity), _COLORS[finding.severity])
    subject, message = printable(finding.subject), printable(finding.message)
    yield f"{severity} {finding.code} {subject}: {message}"
    for name in finding.affected:
        yield f"    needed by {printable(name)}"
    if finding.repair:
        yield f"    repair with {finding.repair}"


COMMANDS: Final = {"fsck": fsck_command}
