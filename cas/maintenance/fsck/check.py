"""Check a store: every byte, every edge, every entry of the journal.

Floor 5. Invariant: whatever is damaged, a check ends with a report; findings are values, and
the first one stops nothing. It writes nothing but a note in the cache, holds no lock, and reads
the store as it stands: writers may go on beside it.

The order matters. The head of the journal is taken first and the packs after it, so that what
the entries up to that head name must be there; all footers come before the first record, so
that it is known what exists before anything is missed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from cas.catalog.catalog import ArchiveRow, CatalogReader, PackRow
from cas.errors import CasError, CorruptObject
from cas.history.horizon import horizon_now, is_thinned
from cas.history.store import Store
from cas.history.tombstones import purged_ids
from cas.later import Later
from cas.maintenance.findings import Finding, Findings, FsckReport, OnProgress, Progress, Severity
from cas.maintenance.folder import strangers
from cas.maintenance.fsck.chain import JournalCheck
from cas.maintenance.fsck.extent import WHOLE, FsckExtent, FsckLevel, Ledger, Selection
from cas.maintenance.fsck.graph import Graph
from cas.maintenance.fsck.known import Known
from cas.maintenance.fsck.packs import Pack, PackBytes, PackSurvey, is_out_of_reach
from cas.maintenance.fsck.records import RecordCheck
from cas.maintenance.fsck.unnamed import NOTHING_NAMED, list_packs, named_now, tell_unnamed
from cas.model.ids import Kind, digest_parts
from cas.model.values import frozen
from cas.objects.archive import lacking
from cas.objects.content import read_spans
from cas.storage.codec import RECIPE
from cas.trees.node import REFS

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from cas.maintenance.fsck import affected, spread
else:
    # For a store with losses, and for checks by many processes.
    affected = Later("cas.maintenance.fsck.affected")
    spread = Later("cas.maintenance.fsck.spread")

__all__ = ["Finding", "FsckReport", "Progress", "Severity", "fsck"]

ROUNDS_MAX: Final = 8
"""How often packs that appeared during the check are checked as well."""

_T = TypeVar("_T")


def fsck(
    store: Store,
    *,
    extent: FsckExtent = WHOLE,
    executor: Executor | None = None,
    progress: OnProgress = None,
) -> FsckReport:
    """Read and check everything in a store, or as far as `extent` says; what is wrong stands in
    the report.

    With an `executor`, any of `concurrent.futures` whose workers reach the folder, they read the
    pack files. `progress` is called from this thread, about once a MiB. Raises `Invalid`, `Closed`
    and `ForkedStore` for what cannot be done, and nothing for damage.
    """
    extent.check()
    return _Check(store, progress, extent, executor).run()


@frozen
class Examination:
    """A report, and what a repair needs to know of it.

    `damaged` names, by id, the packs in which a copy of an object is damaged; `lost` are those of
    which no copy is whole, `missing` what something names and nobody has, and that was not
    purged. `refused` are packs whose header or footer is damaged, `absent` those that are not
    there.
    """

    report: FsckReport
    damaged: Mapping[bytes, tuple[str, ...]]
    lost: frozenset[bytes]
    missing: frozenset[bytes]
    refused: tuple[Pack, ...]
    absent: tuple[PackRow, ...]


def examine(store: Store, *, progress: OnProgress = None) -> Examination:
    """`fsck`, with what a repair needs beside the report."""
    check = _Check(store, progress)
    return check.examined(check.run())


class _Check:
    def __init__(
        self,
        store: Store,
        progress: OnProgress,
        extent: FsckExtent = WHOLE,
        executor: Executor | None = None,
    ) -> None:
        self._store = store
        self._level = extent.level
        self._is_narrowed = extent.is_narrowed
        self._executor = executor if os.path.isdir(store.location) else None
        self._ledger = Ledger(store.objects.cache)
        self._selection = Selection(extent, self._ledger, store.objects.clock)
        self._objects = store.objects
        self._catalog = store.objects.catalog
        self._progress = progress
        self._findings = Findings()
        self._known = Known(self._objects.cache)
        self._survey = PackSurvey(self._objects, self._known, self._findings)
        self._graph = Graph(self._known, self._findings, self._objects.read, self._is_thinned)
        self._records = RecordCheck(
            self._objects,
            self._survey,
            self._findings,
            self._graph.add_many,
            self._recipe_copy,
            self._on_group,
        )
        self._journal = JournalCheck(
            self._catalog, self._objects.tree_nodes(REFS), self._graph, self._findings
        )
        self._recipes: list[tuple[bytes, bytes, int, Pack]] = []
        self._purged: frozenset[bytes] = frozenset()
        self._source = PackBytes(self._objects)
        # Without the whole list of packs nothing can be said to be missing.
        self._blind = False
        self._objects_done = self._bytes_done = self._bytes_total = 0

    def examined(self, report: FsckReport) -> Examination:
        """What a repair needs to know, once `run` has ended."""
        survey, records = self._survey, self._records
        return Examination(
            report,
            {id: tuple(label for label, _why in found) for id, found in records.bad.items()},
            frozenset(records.lost),
            frozenset(self._graph.missing.keys() - survey.hidden.keys() - self._purged),
            tuple(survey.refused),
            tuple(survey.absent),
        )

    def run(self) -> FsckReport:
        try:
            return self._run()
        finally:
            self._known.close()

    def _run(self) -> FsckReport:
        self._objects.bucket.forget()
        self._reach()
        self._report("catalog")
        for sentence in self._catalog.check():
            self._findings.add(
                "catalog-damaged",
                "catalog",
                f"The catalog is damaged ({sentence.rstrip('.')}); restore it from a backup, or "
                "rebuild it from the packs.",
            )
        self._journal.begin()
        self._packs()
        self._report("trees")
        self._graph.finish()
        self._check_recipes()
        self._check_bases()
        self._records.finish()
        self._report("journal")
        horizon = self._safely(lambda: horizon_now(self._store.core).seq, 0)
        single: Sequence[ArchiveRow] = self._safely(lambda: lacking(self._objects), [])
        self._journal.run(lambda: self._report("journal"), horizon, single)
        if not self._blind:
            self._tell_missing()
            files = list_packs(self._objects.bucket, self._findings)
            named = self._read("pack", named_now) or NOTHING_NAMED
            seen_us = max(self._survey.newest_birth_us, self._journal.newest_us)
            tell_unnamed(self._objects, self._findings, files, named, seen_us)
        self._leftovers()
        unread = self._remember()
        lost = self._findings.lost_ids()
        places = affected.places_of(lost, self._journal.refs, self._objects.read) if lost else {}
        return FsckReport(
            self._findings.finish(places, hosted=self._catalog.is_distant),
            len(self._known),
            self._records.content_bytes,
            len(self._survey.packs),
            self._journal.entry_count,
            unread,
        )

    def _remember(self) -> int:
        """Note which packs were read in full and are good; how many were not read in full."""
        files = [pack.label for pack in self._survey.packs if pack.file is not None]
        if self._level is not FsckLevel.BYTES:
            return len(files)
        bad = {label for found in self._records.bad.values() for label, _why in found}
        bad |= {subject for _code, subject, _message in self._findings.plain()}
        self._ledger.save(self._selection.read, bad, files)
        return len(set(files) - self._selection.read.keys())

    def _read(self, table: str, read: Callable[[CatalogReader], _T]) -> _T | None:
        """Something of the catalog, or None after telling that it cannot be read."""
        try:
            with self._catalog.read() as reader:
                return read(reader)
        except CasError as error:
            self._findings.add(
                "catalog-unreadable",
                table,
                f"The table {table} of the catalog cannot be read ({error}); restore the catalog "
                "from a backup, or rebuild it from the packs.",
            )
            return None

    def _is_thinned(self, id: bytes) -> bool:
        core = self._store.core
        return self._safely(lambda: is_thinned(core, horizon_now(core), id), False)

    @staticmethod
    def _safely(ask: Callable[[], _T], otherwise: _T) -> _T:
        """What cannot be read excuses nothing, and is told of where it is judged."""
        try:
            return ask()
        except CasError:
            return otherwise

    def _report(self, phase: str) -> None:
        if self._progress is not None:
            self._progress(Progress(phase, self._objects_done, self._bytes_done, self._bytes_total))

    def _on_group(self, object_count: int, stored_bytes: int) -> None:
        self._objects_done += object_count
        self._bytes_done += stored_bytes
        self._report("packs")

    # -- packs -------------------------------------------------------------------------------

    def _packs(self) -> None:
        """Check all packs, and those that a spill puts in their place meanwhile."""
        seen = 0
        for _ in range(ROUNDS_MAX):
            rows = self._rows(seen)
            if rows is None:
                self._blind = True
                return
            first = len(self._survey.packs)
            seen = max([seen, *[row.number for row in rows]])
            self._records.moved = False
            vectors = self._read("vector", lambda reader: reader.vectors()) or ()
            self._survey.survey(rows, {number: bits for number, _version, bits in vectors})
            packs = self._survey.packs[first:]
            self._bytes_total += sum([pack.body_bytes for pack in packs])
            self._read_packs(packs)
            vanished, self._survey.vanished = self._survey.vanished, []
            gone = self._vanished(vanished)
            if not gone and not self._records.moved:
                return
        self._blind = True
        self._findings.add(
            "check-moved",
            "packs",
            "Packs were replaced faster than they could be read; check again when less is written.",
        )

    def _read_packs(self, packs: Sequence[Pack]) -> None:
        """Read what is asked for of these packs; with an executor, its workers read the files."""
        learn, run = self._survey.learn, self._records.run
        if self._level is FsckLevel.STRUCTURE:
            learn()
            return
        self._records.structured_only = self._level is FsckLevel.CLOSURE
        if self._executor is None or self._level is FsckLevel.CLOSURE:
            if self._level is FsckLevel.CLOSURE:
                run(packs, learn)
            else:
                chosen = self._selection.chosen(packs)
                run(chosen, learn, () if self._is_narrowed else packs)
            return
        run([pack for pack in packs if pack.file is None], learn)
        self._records.structured_only = True
        files = {
            pack.label: pack for pack in self._selection.chosen(packs) if pack.file is not None
        }
        run(files.values(), learn)
        for verdict in spread.hand_out(self._executor, self._store.location, files.values()):
            known = {(id, label) for id, found in self._records.bad.items() for label, _ in found}
            for id, label, why in verdict.bad:
                if (id, label) not in known and label in files:
                    self._records.damaged(id, files[label], why)
            for fault in verdict.faults:
                if fault not in self._findings.plain():
                    self._findings.add(*fault)
            self._records.content_bytes += verdict.content_bytes

    def _rows(self, after: int) -> Sequence[PackRow] | None:
        return self._read("pack", lambda reader: reader.packs(after))

    def _vanished(self, rows: Sequence[PackRow]) -> bool:
        """Tell of packs that the catalog still names; whether others were replaced meanwhile."""
        if not rows:
            return False
        named = set(self._read("pack", lambda reader: reader.pack_numbers()) or ())
        for row in rows:
            if row.number in named:
                self._survey.missing(row)
        return any(row.number not in named for row in rows)

    # -- what copies need --------------------------------------------------------------------

    def _recipe_copy(self, id: bytes, recipe: bytes, size_bytes: int, pack: Pack) -> None:
        if self._graph.expect(recipe, Kind.RECIPE, f"the recipe copy of {id.hex()}"):
            self._recipes.append((id, recipe, size_bytes, pack))

    def _check_recipes(self) -> None:
        """Put the content of every recipe copy together, a chunk at a time, and hash it."""
        if self._recipes:
            self._read("pack", self._objects.lookup.refresh)
        for id, recipe, size_bytes, pack in self._recipes:
            try:
                spans = read_spans(recipe, size_bytes, self._part)
                found = digest_parts(part for _at, part in spans)
                why = None if found == id else "its recipe gives other content"
            except CasError as error:
                if is_out_of_reach(error):
                    raise
                why = str(error).rstrip(".")
            if why is not None:
                self._records.damaged(id, pack, why)
            self._report("trees")

    def _part(self, id: bytes, kind: Kind) -> bytes:
        """Content of what a recipe names: from a copy that is no recipe itself."""
        failure: CasError = CorruptObject(f"its part {id.hex()} has no whole copy", id=id)
        for copy in self._objects.lookup.copies(id):
            if copy.slot.codec != RECIPE:
                try:
                    found, content = self._objects.verified(copy)
                except CasError as error:
                    if is_out_of_reach(error):
                        raise
                    failure = error
                    continue
                if found == kind:
                    return content
        raise failure

    def _check_bases(self) -> None:
        """A delta has a base copy of smaller depth (docs/format.md section 6.2)."""
        for base, depth, label in self._records.bases:
            code = self._known.get(base)
            if code is None or not any(d < depth for d in self._depths(base)):
                self._findings.add(
                    "storage-edge",
                    base.hex(),
                    f"A delta of depth {depth} in {label} has no base {base.hex()} of smaller "
                    "depth; put the content of both again.",
                    (base,),
                )

    def _depths(self, id: bytes) -> list[int]:
        found = []
        for pack in self._survey.packs:
            footer = self._survey.footer(pack, self._source)
            number = footer.find(id)
            if number >= 0 and not self._survey.is_gone(pack, number):
                found.append(footer.slot(number).depth)
        return found

    # -- the end -----------------------------------------------------------------------------

    def _reach(self) -> None:
        """Stop where the server of the packs does not answer, or lets nobody in."""
        try:
            next(iter(self._objects.bucket.list()), None)
        except CasError as error:
            if is_out_of_reach(error):
                raise

    def _tell_missing(self) -> None:
        """Objects that are named and are not there; those found hidden were told of."""
        none: frozenset[bytes] = frozenset()
        purged = self._purged = self._safely(lambda: purged_ids(self._store.core), none)
        for id in purged:
            if self._known.get(id) is not None:
                self._findings.add(
                    "purge-unfinished",
                    id.hex(),
                    f"Object {id.hex()} was to be purged and is still there; run "
                    f"`cas purge {id.hex()[:12]}` again.",
                )
        for id, by in self._graph.missing.items():
            if id not in self._survey.hidden and id not in purged:
                self._findings.add(
                    "object-missing",
                    id.hex(),
                    f"There is no object {id.hex()}, which {by} names; put the same content "
                    "again, or restore the pack that held it from a backup.",
                    (id,),
                )

    def _leftovers(self) -> None:
        """Sessions that were not ended, and files that belong to nothing."""
        for session in self._read("session", lambda reader: reader.sessions()) or ():
            self._findings.add(
                "session-open",
                session.id.hex(),
                "A writer has begun pack files and not ended; if it is dead, gc removes what it "
                "left.",
            )
        for name, temporary in strangers(self._store.location):
            code = "file-temporary" if temporary else "file-unknown"
            what = "was never finished" if temporary else "is no part of a store"
            self._findings.add(code, name, f"The file {name} {what}; it may be deleted.")
