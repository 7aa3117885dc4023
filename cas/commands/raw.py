"""Changes of branches past what they belong to.

Floor 8. Invariant: a branch of a bounded context is changed through the workspace, unless somebody
says that it is to be changed raw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cas.errors import NotAllowed
from cas.history.store import Store
from cas.later import Later
from cas.model.names import branch_ref, printable, short_ref

if TYPE_CHECKING:
    from cas.workspace import belonging
else:
    # Most branches have no slash in their names, and belong to nothing.
    belonging = Later("cas.workspace.belonging")


def check_branches(store: Store, names: Iterable[str]) -> None:
    """Refuse branches, by short name, that belong to contexts. Raises `NotAllowed`."""
    for name in sorted(set(names)):
        ref = branch_ref(name)
        if "/" not in short_ref(ref):
            continue
        context = belonging.context_that_has(store.core, store.view(), ref)
        if context is not None:
            raise NotAllowed(
                f"{printable(short_ref(ref))} is a branch of the context {context!r} of the "
                "workspace, and what is written there past it has no record. Nothing was done. Use "
                "`cas artifact`, `memory`, `sprint` or `workspace`, or say --raw."
            )
