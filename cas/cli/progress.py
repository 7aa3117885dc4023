"""Progress on standard error, for work that lasts long enough to be waited for.

Floor 9. Invariant: nothing is shown, and rich is not even loaded, before the work has lasted
half a second; what was shown is wiped away when the work ends, however it ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from cas.cli.form import count, size
from cas.cli.output import Output, Settings
from cas.clock import SystemClock

if TYPE_CHECKING:
    from cas.maintenance.findings import Progress as CheckProgress
    from cas.worktree.values import Progress as FileProgress

DELAY_MS: Final = 500.0
PAUSE_MS: Final = 100.0
TELL_S: Final = 1.5


def wanted(settings: Settings) -> bool:
    """Whether progress is shown: as the option says, else where a person watches."""
    if settings.progress is not None:
        return settings.progress
    if settings.quiet or settings.json or os.environ.get("CI"):
        return False
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def telling(out: Output, text: str) -> Iterator[None]:
    """Say what is waited for, if the block lasts longer than one likes to wait unknowing."""
    timer = threading.Timer(TELL_S, out.note, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Bar:
    """`with Bar(settings) as bar`: `bar.files`, `bar.check` or `bar.commits` goes to the work as
    its callback.
    """

    def __init__(self, settings: Settings) -> None:
        self._clock = SystemClock()
        self._next_ms = self._clock.monotonic_ms() + DELAY_MS
        self._rich: Any = None
        self._task: Any = None
        self._wanted = wanted(settings)
        # None leaves it to rich, which knows NO_COLOR.
        self._no_color = True if settings.color == "never" else None

    @property
    def files(self) -> Callable[[FileProgress], None] | None:
        """The callback of imports and restores; None when nothing is to be shown."""
        return self._on_files if self._wanted else None

    @property
    def check(self) -> Callable[[CheckProgress], None] | None:
        """The callback of a check; None when nothing is to be shown."""
        return self._on_check if self._wanted else None

    @property
    def commits(self) -> Callable[[int, int], None] | None:
        """The callback of an import of history; None when nothing is to be shown."""
        return self._on_commits if self._wanted else None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def _on_files(self, progress: FileProgress) -> None:
        if self._is_due():
            done, total = progress.content_bytes, progress.bytes_total
            if total is None and progress.file_total is not None:
                done, total = progress.file_count, progress.file_total
            text = f"{count(progress.file_count, 'file')}, {size(progress.content_bytes)}"
            self._show(progress.phase, done, total, text)

    def _on_check(self, progress: CheckProgress) -> None:
        if self._is_due():
            done, total = progress.stored_bytes, progress.bytes_total
            text = f"{count(progress.object_count, 'object')}, {size(done)} of {size(total)}"
            self._show(progress.phase, done, total, text)

    def _on_commits(self, done: int, total: int) -> None:
        if self._is_due():
            self._show("commits", done, total, f"{done:,} of {count(total, 'commit')}")

    def _is_due(self) -> bool:
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._next_ms:
            return False
        self._next_ms = now_ms + PAUSE_MS
        return True

    def _show(self, phase: str, done: int, total: int | None, text: str) -> None:
        if self._rich is None:
            self._start()
        self._rich.update(self._task, description=phase, completed=done, total=total, text=text)
        self._rich.refresh()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        # Refreshed by the work itself: no second thread touches the terminal.
        self._rich = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, no_color=self._no_color),
            transient=True,
            auto_refresh=False,
        )
        self._rich.start()
        self._task = self._rich.add_task("", total=None, text="")
