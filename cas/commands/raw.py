"""Which branches a command changes that was not asked for branches.

Floor 8. Invariant: a branch of a bounded context is changed through the workspace, unless somebody
says that it is to be changed raw; none comes to be by the name of a tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from cas.errors import NotAllowed, RefExists
from cas.history.store import Store
from cas.later import Later
from cas.model.names import TAGS, branch_ref, printable, short_ref

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


def check_new(store: Store, names: Iterable[str]) -> None:
    """Refuse branches that a change would make, where a tag has the name: who writes to a tag by
    mistake would have a branch of one file, and a name that is either. Raises `RefExists`.
    """
    timeline, moment = store.core.timeline, store.core.now()
    for ref in sorted(map(branch_ref, set(names))):
        tag = TAGS + short_ref(ref)
        branch_value, tag_value = (
            timeline.recall(moment, partial(timeline.get, ref=name)) for name in (ref, tag)
        )
        if branch_value is None and tag_value is not None:
            name = short_ref(ref)
            raise RefExists(
                f"{name!r} is a tag, and there is no branch of that name. Nothing was done; name "
                f"a branch, or make one that shares the name, with `cas branch --force {name}`.",
                ref=ref,
                other=tag,
            )
