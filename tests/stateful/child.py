"""A process that does as it is told over a pipe: one JSON command a line, one answer a line.

Run by `tests.stateful.remote`. It holds one store open at a time and lives until its input ends
or it is killed, which may happen in the middle of anything.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cas.clock import SystemClock
from cas.errors import CasError
from cas.history.store import Store
from cas.testing import stores


def _commit(store: Store, branch: str, files: dict[str, str | None]) -> int:
    with store.begin(author="child") as tx:
        edit = tx.branch(branch)
        for path, content in files.items():
            if content is None:
                if path in edit:
                    del edit[path]
            else:
                edit[path] = bytes.fromhex(content)
        return tx.commit().seq


def _answer(store: Store | None, order: dict[str, Any]) -> tuple[Store | None, object]:
    """The store that is open afterwards, and what to say."""
    does = order["do"]
    if does == "open":
        assert store is None, "close the other store first"
        folder = order["folder"]
        opened = stores.build(folder, clock=SystemClock(), thresholds=stores.SMALL, cached=True)
        return opened, "open"
    assert store is not None, "open a store first"
    if does == "close":
        store.close()
        return None, "closed"
    if does == "put":
        return store, store.put(bytes.fromhex(order["content"])).hex()
    if does == "commit":
        return store, _commit(store, order["branch"], order["files"])
    if does == "spill":
        return store, store.spill()
    if does == "refs":
        return store, {
            ref.name: {path: data.hex() for path, data in store.snapshot(ref.target).items()}
            for ref in store.branches()
        }
    if does == "stream":
        for at in range(order["first"], order["first"] + order["count"]):
            seq = _commit(store, order["branch"], {"n": f"{at:08x}"})
            print(json.dumps(seq), flush=True)
        return store, "done"
    raise AssertionError(does)


def main() -> None:
    """Obey until there is nothing more to read."""
    store: Store | None = None
    for line in sys.stdin:
        try:
            store, said = _answer(store, json.loads(line))
        except CasError as error:
            said = {"error": error.code, "message": str(error)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
