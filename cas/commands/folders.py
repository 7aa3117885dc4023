"""Working folders as plain values that fronts share.

Floor 8. Invariant: what is given here is text, numbers, lists and maps that JSON holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cas.history.revision import when
from cas.history.snapshot import Change
from cas.model.names import printable
from cas.workspace.checkouts import Checkout
from cas.workspace.folders import FolderReport, FolderStatus
from cas.worktree.values import Problem


def checkout_row(checkout: Checkout, now: datetime) -> dict[str, Any]:
    """A checkout with its lease; `holder` and `until` are null when nobody's runs."""
    held = checkout.held_at(now) and checkout.until is not None
    return {
        "id": checkout.id,
        "folder": checkout.folder,
        "host": checkout.host,
        "branch": checkout.branch,
        "sprint": None if checkout.sprint is None else checkout.sprint.id,
        "holder": checkout.holder if held else None,
        "until": when(checkout.until, exact=True) if held and checkout.until else None,
    }


def status_row(status: FolderStatus, now: datetime) -> dict[str, Any]:
    """How a folder stands."""
    return {
        "checkout": checkout_row(status.checkout, now),
        "clean": status.clean,
        "outside": _changes(status.outside),
        "incoming": _changes(status.incoming),
        "both": list(map(printable, status.both)),
        "held": list(map(printable, status.held)),
        "problems": _problems(status.problems),
    }


def report_row(report: FolderReport, now: datetime) -> dict[str, Any]:
    """What bringing a folder and its branch together did."""
    return {
        "checkout": checkout_row(report.checkout, now),
        "entry": None if report.entry is None else report.entry.seq,
        "captured": _changes(report.captured),
        "merged": list(map(printable, report.merged)),
        "new_conflicts": list(map(printable, report.conflicts)),
        "written": _changes(report.written),
        "held": list(map(printable, report.held)),
        "secrets": list(map(printable, report.secrets)),
        "problems": _problems(report.problems),
    }


def _changes(changes: Iterable[Change]) -> list[dict[str, str]]:
    return [{"change": each.kind.value, "path": printable(each.path)} for each in changes]


def _problems(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [
        {"path": printable(each.path), "reason": each.reason, "message": each.message}
        for each in problems
    ]
