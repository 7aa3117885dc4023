"""Rules of docs/design/001 taken out of the real code, one at a time, each with its scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from cas.catalog.statements import SqliteWriter
from cas.maintenance.gc import collect as gc
from cas.maintenance.gc import condemn, moving
from cas.maintenance.gc.colors import FREE, KEPT
from cas.maintenance.gc.reach import Marks
from cas.objects import batch as batches
from cas.objects import relied
from cas.objects import spill as spills
from cas.objects import store as stores
from cas.objects.batch import Batch

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: Final[dict[str, tuple[str, Plant]]] = {}
"""Name -> (scene, what plants it). Names begin with the rule."""


def _bug(name: str, scene: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        BUGS[name] = (scene, plant)
        return plant

    return note


@_bug("E2 roots are not read again", "a ref is moved")
def _roots_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(condemn, "named_in", lambda entry: ([], []))


@_bug("E3 what is newer is not kept", "dedup")
def _newer_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Marks, "keep_packs", lambda self, numbers, dropped=True: None)
    patch.setattr(condemn, "named_in", lambda entry: ([], []))


@_bug("E3 what is newer is kept and not traced", "a new parent")
def _newer_traced(patch: pytest.MonkeyPatch) -> None:
    def keep(self: Marks, numbers: Any, *, dropped: bool = True) -> None:
        for number in numbers:
            self.colors[number][:] = self.colors[number].replace(bytes([FREE]), bytes([KEPT]))

    patch.setattr(Marks, "keep_packs", keep)


@_bug("E0 condemning does not count", "dedup")
def _condemn_counts(patch: pytest.MonkeyPatch) -> None:
    remove = SqliteWriter.remove_packs

    def quiet(self: Any, numbers: Any, version: int, condemn_seq: int) -> None:
        remove(self, numbers, version, self.head().condemn_seq)

    patch.setattr(SqliteWriter, "remove_packs", quiet)


@_bug("E6 hits are not looked up again", "dedup")
def _recheck(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batch, "_check_relied", lambda self, writer: None)


@_bug("E6 targets of refs are no hits", "a ref is moved")
def _targets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batch, "rely", lambda self, id: None)


@_bug("E6 bases are not looked up again", "bases")
def _storage_hits(patch: pytest.MonkeyPatch) -> None:
    check = relied.check_relied
    patch.setattr(
        batches, "check_relied", lambda lookup, named, bases, holds: check(lookup, named, {}, holds)
    )


@_bug("E6 the mark of a batch moves on without its hits", "dedup")
def _own_s0(patch: pytest.MonkeyPatch) -> None:
    seal = Batch.seal

    def late(self: Any, **how: Any) -> Any:
        self._condemn_seq = self._lookup.refresh().condemn_seq
        return seal(self, **how)

    patch.setattr(Batch, "seal", late)


@_bug("a put of what is there writes nothing", "a loose put")
def _loose_fresh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stores, "stale_copies", lambda objects, ids: iter(()))


@_bug("E4 a spill believes what it saw", "spill")
def _dead_sources(patch: pytest.MonkeyPatch) -> None:
    class Everything(set[bytes]):
        def __contains__(self, _id: object) -> bool:
            return True

    patch.setattr(spills, "still_existing", lambda *_words: Everything())


@_bug("E4 compaction believes what it saw", "compaction")
def _dead_moved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(moving, "_died", lambda *_words: set())


@_bug("E5 storage edges are no edges", "bases")
def _storage_edges(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Marks, "keep_bases", lambda self: None)
    patch.setattr(gc, "reencode", lambda objects, marks, bytes_max: 0)
    patch.setattr(
        Marks, "deferring", property(lambda self: True, lambda self, value: None), raising=False
    )


@_bug("the fence is not looked at, and the living are taken for dead", "a writer of files")
def _fence(patch: pytest.MonkeyPatch) -> None:
    from tests.schedules.baton import SteppedCatalog

    patch.setattr(SteppedCatalog, "is_held", lambda self, number: False, raising=False)
    patch.setattr(SqliteWriter, "session", lambda self, id: _anything(), raising=False)


def _anything() -> Any:
    class Row:
        fence = property(lambda self: self)

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    row = Row()
    return type("Found", (), {"fence": row})()
