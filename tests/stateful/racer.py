"""A process at random transactions with one bug planted: proof that the checker looks.

Run by `tests.stateful.test_serializable` with the bug's name and what `races` asks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from cas.errors import CasError, RefConflict
from cas.history.branch import BranchEdit
from cas.history.publication import Publication
from cas.history.timeline import Moment, RefValue, Timeline
from cas.history.transaction import Transaction
from cas.model.entry import generate_txid
from cas.testing import mixing

BUGS: Final[dict[str, Callable[[], None]]] = {}
Plant = Callable[[], None]


def _bug(name: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        BUGS[name] = plant
        return plant

    return note


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


@_bug("reads are not compared")
def _reads() -> None:
    def make(follow: Any) -> Any:
        def wrong(edit: BranchEdit, actual: RefValue | None) -> bool:
            edit._reads.clear()
            edit._reads_above.clear()
            edit._read_all = False
            return bool(follow(edit, actual))

        return wrong

    _replace(BranchEdit, "follow", make)


@_bug("a listing is not remembered")
def _listings() -> None:
    def make(iterate: Any) -> Any:
        def wrong(edit: BranchEdit) -> Iterator[str]:
            names = list(iterate(edit))
            edit._read_all = False
            return iter(names)

        return wrong

    _replace(BranchEdit, "__iter__", make)


@_bug("a name that was not there is not remembered")
def _absent() -> None:
    def make(find: Any) -> Any:
        def wrong(edit: BranchEdit, parts: Any) -> Any:
            entry = find(edit, parts)
            if entry is None:
                edit._reads.discard(parts)
            return entry

        return wrong

    _replace(BranchEdit, "_find", make)


@_bug("expected refs are not compared")
def _expected() -> None:
    Publication._has_moved = lambda *_: False  # type: ignore[method-assign]


@_bug("refs that were only read are not compared")
def _skew() -> None:
    def make(moved: Any) -> Any:
        def wrong(self: Publication, plan: Any, moment: Moment) -> bool:
            for ref in plan.expected.keys() - plan.targets.keys():
                del plan.expected[ref]
            return bool(moved(self, plan, moment))

        return wrong

    _replace(Publication, "_has_moved", make)


@_bug("a branch is followed without what others wrote")
def _lost() -> None:
    def make(follow: Any) -> Any:
        def wrong(edit: BranchEdit, actual: RefValue | None) -> bool:
            tree = edit.tree
            done = follow(edit, actual)
            edit.tree = tree
            return bool(done)

        return wrong

    _replace(BranchEdit, "follow", make)


@_bug("what was removed stays where a branch is followed")
def _kept() -> None:
    def make(follow: Any) -> Any:
        def wrong(edit: BranchEdit, actual: RefValue | None) -> bool:
            done = follow(edit, actual)
            if done:
                edit.staged = {k: v for k, v in edit.staged.items() if v is not None}
            return bool(done)

        return wrong

    _replace(BranchEdit, "follow", make)


@_bug("a transaction begins on what this handle knows")
def _stale() -> None:
    def make(now: Any) -> Any:
        def wrong(self: Timeline, reader: Any = None, head: Any = None) -> Moment:
            known = self._moment
            if reader is None and known is not None:
                return known
            return now(self, reader, head)  # type: ignore[no-any-return]

        return wrong

    _replace(Timeline, "now", make)


@_bug("who commits with others does not see the one before")
def _group() -> None:
    def make(install: Any) -> Any:
        def wrong(self: Publication, writer: Any, plan: Any, group: Any) -> Any:
            if group.carried is not None:
                for ref in plan.expected:
                    plan.expected[ref] = self._core.timeline.get(group.carried.root, ref)
            return install(self, writer, plan, group)

        return wrong

    _replace(Publication, "_install", make)


@_bug("a rollback commits")
def _rollback() -> None:
    def wrong(self: Transaction) -> None:
        if self._open:
            with contextlib.suppress(CasError):
                self.commit()

    Transaction.rollback = wrong  # type: ignore[method-assign]


@_bug("a commit that stands is told as refused")
def _refused() -> None:
    def make(run: Any) -> Any:
        def wrong(self: Publication) -> Any:
            entry = run(self)
            if entry.seq % 50 == 0 and entry.changes:
                raise RefConflict("No.", ref=entry.changes[0].ref, expected=None, actual=None)
            return entry

        return wrong

    _replace(Publication, "run", make)


@_bug("a key is taken for new")
def _keys() -> None:
    def make(commit: Any) -> Any:
        def wrong(self: Transaction) -> Any:
            if self._staged.keyed:
                self._staged.keyed = False
                self._staged.txid = generate_txid(self._moment.seq, os.urandom(8))
            return commit(self)

        return wrong

    _replace(Transaction, "commit", make)


if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    mixing.run(json.loads(sys.argv[2]))
