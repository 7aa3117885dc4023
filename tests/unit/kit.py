"""Shared by the tests of floors 1 to 4: a clock that obeys, short ways to write, foreign bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw

import cas
from cas.errors import StorageFailed
from cas.history.store import Store
from cas.model.entry import Entry


class ManualClock:
    """A clock that stands where it is put; names it gives are counted, never repeated."""

    _names = itertools.count(1)

    def __init__(self, wall_us: int = 1_700_000_000_000_000) -> None:
        self.now_us = wall_us

    def wall_us(self) -> int:
        return self.now_us

    def monotonic_ms(self) -> float:
        return self.now_us / 1000

    def sleep_ms(self, duration_ms: float) -> None:
        self.now_us += int(duration_ms * 1000)

    def random(self, count: int) -> bytes:
        return next(self._names).to_bytes(8, "big").rjust(count, b"\x5a")[-count:]


def write(
    store: Store, branch: str = "main", files: Mapping[str, bytes | None] | None = None, **how: Any
) -> Entry:
    """Commit files to a branch; None deletes. `how` goes to `begin`."""
    with store.begin(**how) as tx:
        edit = tx.branch(branch)
        for path, content in ({"file": b"1"} if files is None else files).items():
            if content is None:
                del edit[path]
            else:
                edit[path] = content
        return tx.commit()


def take(store: Store, step: str, at: int, folder: str = "") -> bool:
    """One step of a random history; whether there is one of this name."""
    if step == "commit":
        write(store, files={f"{folder}f{at % 4}": b"%d" % at})
    elif step == "move":
        with store.begin() as tx:
            tx.move(f"heads/b{at}", store.resolve("main"))
            tx.commit()
    elif step == "delete":
        for ref in store.branches():
            if ref.name.startswith("heads/b"):
                with store.begin() as tx:
                    tx.delete(ref.name)
                    tx.commit()
                break
    elif step == "put":
        store.put(b"loose %d" % at)
    elif step == "file":
        write(store, files={f"big{at % 3}": bytes([at]) * 70_000 + os.urandom(70_000)})
    elif step == "spill":
        store.spill()
    else:
        return False
    return True


def commits(store: Store, number: int, branch: str = "main") -> list[Entry]:
    """That many commits to one file of a branch."""
    return [write(store, branch, {"n": b"%d" % at}) for at in range(number)]


@contextmanager
def reopened(store: Store, **how: Any) -> Iterator[Store]:
    """Another handle on the folder of a store."""
    with cas.open(store.location, **how) as other:
        yield other


def tamper(store: Store, statement: str, *arguments: object) -> None:
    """Change the catalog behind the back of everybody, as a damaged disk would."""
    with closing(apsw.Connection(str(Path(store.location) / "catalog.sqlite"))) as connection:
        connection.execute(statement, arguments)


class FailingReads:
    """A bucket two of whose reads fail, as on a line that breaks for a moment."""

    def __init__(self, inner: Any, at: int) -> None:
        self._inner = inner
        self.left = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, name: str, start: int, length: int) -> bytes:
        self.left -= 1
        if -2 < self.left <= 0:
            raise StorageFailed(f"{name} cannot be read.", path=name)
        return bytes(self._inner.read(name, start, length))
