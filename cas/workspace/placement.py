"""Where contexts live: in the store of the workspace, or in another one.

Floor 6. Invariant: a context that was declared to live elsewhere is read and written there, and
nowhere else. A store is opened when it is first needed, is taken only if it is the one that was
declared (by its id), and is closed by whoever opened it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cas.errors import AcrossStores, Invalid, NotAsExpected, StoreNotFound
from cas.history.store import Store
from cas.workspace.contexts import Context
from cas.workspace.layout import branch_names, no_branch

Given = Callable[[str], Store] | Mapping[str, Store] | None
"""How a workspace comes to other stores: a function that opens an address, such as `cas.open`, or
handles by address, which stay their owner's."""

_SCHEME: Final = "://"


class Places:
    """The stores of one workspace. Any thread may use it."""

    def __init__(self, home: Store, given: Given = None) -> None:
        self.home = home
        self._given = given
        self._lock = threading.Lock()
        self._opened: dict[str, Store] = {}

    def store_of(self, context: Context | None) -> Store:
        """The store in which a context lives, as it is declared; None: it is not.

        Raises `StoreNotFound` where there is no way to it, `NotAsExpected` where another store
        lies at its address, and what opening raises.
        """
        if context is None or not context.place:
            return self.home
        store = self.at(context.place)
        if store.id != context.store_id:
            raise NotAsExpected(
                f"The context {context.id!r} lives in the store {context.store_id}, but at "
                f"{context.place} is {store.id}. Put the right one there, or declare the context "
                "with the address at which its store is now.",
                path=context.place,
                expected=context.store_id,
                actual=store.id,
            )
        return store

    def at(self, place: str) -> Store:
        """The store at an address. Raises `StoreNotFound`, `Invalid`, and what opening raises."""
        given = self._given
        if isinstance(given, Mapping):
            found = given.get(place)
            if found is None:
                raise self._no_way(place, "among the stores that it was given there is none for it")
            return found
        if given is None:
            raise self._no_way(place, "this workspace was given no way to open it")
        with self._lock:
            found = self._opened.get(place)
            if found is None:
                found = self._opened[place] = given(self._whole(place))
            return found

    def _whole(self, place: str) -> str:
        """An address as it is opened: a relative path begins where the store of the workspace
        lies.
        """
        if _SCHEME in place or os.path.isabs(place):
            return place
        if not os.path.isabs(self.home.location):
            raise Invalid(
                f"The address {place!r} begins beside the store of the workspace, and that lies in "
                "no folder; give the whole path, or a URL."
            )
        return os.path.normpath(os.path.join(os.path.dirname(self.home.location), place))

    def _no_way(self, place: str, why: str) -> StoreNotFound:
        return StoreNotFound(
            f"A context of this workspace lives in the store {place}, and {why}; make it with "
            "`cas.Workspace(store, places=cas.open)`, or with a map of addresses to open stores.",
            path=place,
        )

    def check_branch(self, name: str, contexts: Iterable[Context]) -> None:
        """Refuse a branch of the workspace that nobody has made: `space.branch` does, writing to
        a name does not. Raises `RefNotFound`, and what `store_of` does.
        """
        placed = (context for context in contexts if context.place)
        if name not in branch_names(self.home.view()) and not any(
            name in branch_names(self.store_of(each).view(), (each.id,)) for each in placed
        ):
            raise no_branch(name)

    def close(self) -> None:
        """Close what was opened here; what is needed again is opened again."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for store in opened.values():
            store.close()


def across_stores(context: str, there: Store, here: Store) -> AcrossStores:
    """The error for a unit of work that touches contexts of two stores."""
    return AcrossStores(
        f"The context {context!r} lives in the store at {there.location}, and this unit of work "
        f"has begun in that at {here.location}: a commit is whole in one store only, so nothing "
        "was done. Make two units of work, and let the second follow from an event that the first "
        "records: `cas.exchange` carries it over, a subscription there handles it. What is only to "
        "be read, read from the workspace itself.",
        context=context,
        path=there.location,
    )
