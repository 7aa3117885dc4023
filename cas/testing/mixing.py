"""A process whose threads do random transactions on one store, and write down what they saw.

Run as a program by `races`, with one JSON object as its argument. Invariant: every transaction
that could leave an entry is announced in a log before its commit (`attempts`); what is drawn
follows from the seed alone, what comes of it from whoever else is at work.

Branches are few and files are few, so that transactions meet. Some read much and write little,
some only read; some write where others read (write skew); some point one ref at the commit of
another, delete refs, remove whole directories, put a file where a directory was; some carry a key
and are asked for again, at once or by the process that comes after a killed one.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from cas.clock import SystemClock
from cas.errors import CasError, OutcomeUnknown, RefConflict, TransactionReused
from cas.history.branch import BranchEdit
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.limits import THRESHOLDS
from cas.model.entry import txid_floor
from cas.model.ids import CommitId, digest_blob
from cas.model.names import branch_ref
from cas.testing import stores
from cas.testing.attempts import AttemptLog, Op, left_open

BRANCHES: Final = ("main", "plan", "plan2", "notes")
SPARE: Final = ("spare/a", "spare/b")
"""Branches that are moved and deleted as a whole."""
PATHS: Final = (
    *(f"d{folder}/f{name}" for folder in range(3) for name in range(6)),
    *(f"d{folder}/e/g{name}" for folder in range(2) for name in range(3)),
    *(f"t{name}" for name in range(8)),
)
ODD_PATHS: Final = ("d2", "t0/below")
"""A file where a directory may be, and a directory where a file may be."""
FOLDERS: Final = ("d0", "d1", "d2", "d0/e", "d9")
LARGE_BYTES: Final = 70_000

Request = tuple[str, list[tuple[str, str, str]]]
"""A key, and what is to be written: (branch, path, mark of the content)."""


def content(mark: str) -> bytes:
    """Content that no other write has; some of it is too long to lie inline."""
    data = mark.encode()
    return random.Random(mark).randbytes(LARGE_BYTES) if mark.endswith("L") else data


class Mixer:
    """One thread's transactions. One thread."""

    def __init__(self, store: Store, who: str, seed: str, log: AttemptLog) -> None:
        self._store = store
        self._who = who
        self._draw = random.Random(f"{seed} {who}")
        self._log = log
        self._count = 0
        self._marks = 0
        self.requests: list[Request] = []

    def step(self) -> None:
        """One transaction, whatever becomes of it."""
        draw = self._draw
        self._count += 1
        if self.requests and draw.random() < 0.5:
            self._keyed(self.requests.pop())
            return
        if draw.random() < 0.06:
            key = f"{self._who} {self._count}"
            branch = draw.choice(BRANCHES)
            writes = [(branch, draw.choice(PATHS), self._mark()) for _ in range(draw.randint(1, 3))]
            request = (key, writes)
            self._keyed(request)
            if draw.random() < 0.5:
                if draw.random() < 0.2:
                    request = (key, [*writes, (branch, "more", self._mark())])
                self.requests.append(request)
            return
        self._free()

    def _mark(self) -> str:
        self._marks += 1
        large = "L" if self._draw.random() < 0.002 else ""
        return f"{self._who} {self._marks}{large}"

    # -- transactions ------------------------------------------------------------------------

    def _keyed(self, request: Request) -> None:
        key, writes = request
        began = time.monotonic_ns()
        with self._store.begin(author=self._who, message=key, key=key) as tx:
            ops: list[Op] = []
            for name, path, mark in writes:
                self._write(tx.branch(name), ops, path, mark)
            self._commit(tx, began, ops, request)

    def _free(self) -> None:
        draw = self._draw
        began = time.monotonic_ns()
        with self._store.begin(author=self._who, message="m") as tx:
            ops: list[Op] = []
            try:
                self._work(tx, ops)
            except CasError:
                # Something that could not be asked for there: as if the program had given up.
                self._drop(tx, began, ops)
                return
            if draw.random() < 0.05:
                self._drop(tx, began, ops)
            else:
                self._commit(tx, began, ops, None)

    def _work(self, tx: Transaction, ops: list[Op]) -> None:
        draw = self._draw
        kind = draw.random()
        if kind < 0.05:
            self._whole_refs(tx, ops)
            return
        names = draw.sample(BRANCHES, draw.choice((1, 1, 1, 2, 2, 3)))
        if kind < 0.25:
            # Reads of some, a write to another: what write skew is made of.
            for name in names:
                self._look(tx.branch(name), ops)
            self._write(tx.branch(draw.choice(BRANCHES)), ops, draw.choice(PATHS), self._mark())
            return
        for name in names:
            edit = tx.branch(name)
            if draw.random() < 0.5:
                self._look(edit, ops)
            if kind < 0.35:
                continue  # reads only
            for _ in range(draw.randint(1, 3)):
                self._change(edit, ops)
            if draw.random() < 0.2:
                self._look(edit, ops, own=True)
        if draw.random() < 0.1:
            tx.event("mixed", b"x" * draw.randint(0, 300))

    def _whole_refs(self, tx: Transaction, ops: list[Op]) -> None:
        draw = self._draw
        ref = branch_ref(draw.choice(SPARE))
        if draw.random() < 0.3:
            tx.delete(ref)
            ops.append(Op("drop", ref))
            return
        edit = tx.branch(draw.choice(BRANCHES))
        if edit.base is not None:
            target = CommitId(edit.base.target)
            tx.move(ref, target)
            ops.append(Op("move", ref, "", bytes(target)))
        if draw.random() < 0.5:
            self._write(edit, ops, draw.choice(PATHS), self._mark())

    def _look(self, edit: BranchEdit, ops: list[Op], own: bool = False) -> None:
        draw = self._draw
        kind = draw.random()
        if kind < 0.12:
            ops.append(Op("list", edit.ref, "", tuple(edit)))
        elif kind < 0.3 and not own:
            path = draw.choice(FOLDERS)
            entry = edit.entry(path)
            does = "folder" if entry is None or entry.is_tree else "read"
            ops.append(Op(does, edit.ref, path, None if entry is None else bytes(entry.id)))
        else:
            for _ in range(draw.randint(1, 3)):
                path = draw.choice(PATHS)
                found = edit.get(path)
                value = None if found is None else bytes(digest_blob(found))
                ops.append(Op("read", edit.ref, path, value))

    def _change(self, edit: BranchEdit, ops: list[Op]) -> None:
        draw = self._draw
        kind = draw.random()
        if kind < 0.7:
            self._write(edit, ops, draw.choice(PATHS), self._mark())
        elif kind < 0.71:
            self._write(edit, ops, draw.choice(ODD_PATHS), self._mark())
        else:
            path = draw.choice(FOLDERS if kind < 0.75 else PATHS)
            if edit.entry(path) is None:
                ops.append(Op("folder", edit.ref, path))
                ops.append(Op("read", edit.ref, path))
            else:
                del edit[path]
                ops.append(Op("delete", edit.ref, path))

    def _write(self, edit: BranchEdit, ops: list[Op], path: str, mark: str) -> None:
        for op in ops:
            if op.ref == edit.ref and op.does == "write" and _clash(op.path, path):
                # A file and something below it, in one transaction: it would only be refused.
                return
        ops.append(Op("write", edit.ref, path, bytes(edit.put(path, content(mark)))))

    # -- ends --------------------------------------------------------------------------------

    def _drop(self, tx: Transaction, began: int, ops: Sequence[Op]) -> None:
        self._log.announce(tx.txid, txid_floor(tx.txid), began, ops)
        tx.rollback()
        self._log.end(time.monotonic_ns(), "dropped")

    def _commit(
        self, tx: Transaction, began: int, ops: Sequence[Op], request: Request | None
    ) -> None:
        log = self._log
        log.announce(tx.txid, txid_floor(tx.txid), began, ops, request)
        try:
            entry = tx.commit()
        except OutcomeUnknown:
            return
        except RefConflict as error:
            log.end(time.monotonic_ns(), "refused", None, error.ref)
        except TransactionReused as error:
            log.end(time.monotonic_ns(), "reused", error.seq)
        except CasError:
            log.end(time.monotonic_ns(), "refused")
        else:
            if entry.txid == tx.txid:
                log.end(time.monotonic_ns(), "committed", entry.seq)
            else:
                log.end(time.monotonic_ns(), "nothing", entry.seq)


def _clash(one: str, other: str) -> bool:
    return one.startswith(other + "/") or other.startswith(one + "/")


def run(order: dict[str, Any]) -> None:
    """Do what `races` asked for: threads on one store, each with a log of its own."""
    thresholds = stores.SMALL if order["small"] else THRESHOLDS
    store = stores.build(order["folder"], clock=SystemClock(), thresholds=thresholds, cached=True)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        who = f"{order['who']}.{number}"
        log = AttemptLog(os.path.join(order["logs"], f"{who}.log"), who)
        mixer = Mixer(store, who, order["seed"], log)
        before = os.path.join(order["logs"], f"{order['before']}.{number}.log")
        if os.path.exists(before):
            mixer.requests = list(left_open(before))
        try:
            for _ in range(order["count"]):
                mixer.step()
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            log.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(order["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    if failures:
        sys.exit(3)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
