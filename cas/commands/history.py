"""What led to a revision, and what was done to the store.

Floor 8. Invariant: nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from cas.errors import RevisionNotFound
from cas.history.horizon import Thinning, horizon_now, thinning_of
from cas.history.store import Store
from cas.history.view import View
from cas.model.entry import Entry
from cas.model.ids import CommitId
from cas.model.names import MAIN
from cas.model.objects import Commit
from cas.model.values import frozen


@frozen
class Logged:
    """A commit of a log, with the names that point at it."""

    id: CommitId
    commit: Commit
    names: tuple[str, ...]
    thinned: Thinning | None
    """Why its content was given up, if it was."""


def log(
    store: Store,
    revision: str | None,
    *,
    limit: int | None = None,
    path: str = "",
    follow: bool = False,
) -> Iterator[Logged]:
    """Commits reachable from a revision (the branch `main`) or in a range, newest first, lazily.

    With `path` only those that changed what lies there, with `follow` under older names of a file
    too. Raises `RevisionNotFound`, `AmbiguousRevision`, `Invalid` at once.
    """
    view = store.view()
    if revision is None and view.ref("heads/" + MAIN) is None:
        raise RevisionNotFound(_no_main(view), revision=MAIN)
    names: dict[bytes, list[str]] = {}
    for ref in view.refs():
        names.setdefault(ref.target, []).append(ref.short)
    commits = view.log(revision or MAIN, limit=limit, path=path, follow=follow)
    core, horizon = store.core, horizon_now(store.core)
    return (
        Logged(id, commit, tuple(names.get(id, ())), thinning_of(core, horizon, id))
        for id, commit in commits
    )


def _no_main(view: View) -> str:
    others = [ref.short for ref in view.branches()[:8]]
    if not others:
        return "There is no commit yet; make the first with `cas snapshot DIR`."
    return f"There is no branch {MAIN!r}; name one of: {', '.join(others)}."


def journal(store: Store, *, after: int = 0, newest: int | None = None) -> Iterator[Entry]:
    """Journal entries behind `after`, oldest first; with `newest` only so many of the last."""
    if newest is not None:
        after = max(after, store.view().seq - newest)
    return store.journal(after, limit=newest)
