"""The folder of index runs: loaded, written, merged, dropped; without a folder, kept in memory.

Floor 3. Invariant: what lies here is a cache. A folder that cannot be written, or a store that is
opened for reading only, costs memory and time and nothing else. Used under the look-up's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress

from cas.catalog.catalog import Catalog
from cas.clock import Clock
from cas.objects.packs import PackInfo, State, file_name
from cas.storage.index import Run, load_runs, save_run
from cas.storage.merging import Merge, due_merge


def uncovered(runs: Iterable[Run], packs: Mapping[int, PackInfo]) -> list[PackInfo]:
    """The packs that no run speaks of."""
    covered = {number for run in runs for number in run.packs}
    return [pack for pack in packs.values() if pack.number not in covered]


def fits(run: Run, packs: Mapping[int, PackInfo]) -> bool:
    """Whether a run speaks of packs of this catalog: one copied back from yesterday may
    have given their numbers to others. Not for one that `is_ahead`.
    """
    known = [(packs[n], name) for n, name in zip(run.packs, run.names, strict=True) if n in packs]
    return bool(known) and all(pack.file == file_name(name) for pack, name in known)


def is_ahead(run: Run, state: State) -> bool:
    """Whether a run speaks of packs that came later. A catalog that was copied back may give their
    numbers to others yet: what lies there would be looked for in the wrong packs.
    """
    return max(run.packs, default=0) > state.version


class RunFolder:
    """The runs of one store's cache folder; `folder` None keeps them in memory."""

    def __init__(self, folder: str | None, catalog: Catalog, clock: Clock) -> None:
        self._folder = folder
        self._catalog = catalog
        self._clock = clock

    def load(self, state: State, refresh: Callable[[], State]) -> list[Run]:
        """The runs of this store's lineage that speak of the packs of this state, or of the newest
        where one may be of another process, each pack once, largest first; others are dropped.
        """
        if self._folder is None:
            return []
        loaded: list[Run] = []
        covered: set[int] = set()
        runs = load_runs(self._folder, self._catalog.meta.lineage_id)
        if any(is_ahead(run, state) for run in runs):
            state = refresh()
        for run in runs:
            if is_ahead(run, state):
                continue
            if covered.isdisjoint(run.packs) and fits(run, state.packs):
                loaded.append(run)
                covered.update(run.packs)
            else:
                self.drop(run)
        return loaded

    def save(self, run: Run) -> Run:
        """The run, mapped from a file where one can be written."""
        if self._folder is None or self._catalog.read_only:
            return run
        return save_run(run, self._folder, self._name(), self._catalog.meta.lineage_id)

    def merge(self, runs: Sequence[Run], live: Container[int]) -> list[Run]:
        """`runs`, merged where that is due; an entry whose pack is not in `live` is left out of
        what is merged. Where nothing can be written, those in files stay there.
        """
        merged = list(runs)
        may_write = self._folder is not None and not self._catalog.read_only
        while due := due_merge([run for run in merged if may_write or run.path is None]):
            merged = [run for run in merged if run not in due] + [self._merge(due, live)]
            for run in due:
                self.drop(run)
        return merged

    def _merge(self, runs: Sequence[Run], live: Container[int]) -> Run:
        merge = Merge(runs, live)
        if self._folder is None or self._catalog.read_only:
            return merge.run()
        return merge.save(self._folder, self._name(), self._catalog.meta.lineage_id)

    def _name(self) -> str:
        return self._clock.random(16).hex()

    def drop(self, run: Run) -> None:
        """Remove a run's file, if it has one."""
        if run.path is not None and not self._catalog.read_only:
            with suppress(OSError):
                os.unlink(run.path)
