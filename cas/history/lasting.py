"""History as it reads where commits were thinned: each commit after the nearest with content.

Floor 4. Invariant: only commits that have their content are given, and each is given as its
parents the nearest ancestors that have theirs; so what a thinned commit changed is told of the
commit behind it, and nothing that can be read is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from attrs import evolve

from cas.history.core import Core
from cas.history.horizon import Horizon, horizon_now, is_thinned, thinned_error
from cas.model.ids import CommitId
from cas.model.objects import Commit
from cas.trees.node import DIRECTORY


class Commits(Protocol):
    """Decoded commits by id."""

    def get(self, id: bytes) -> Commit:
        """The commit of this id. Raises `ObjectNotFound`, `WrongKind`, `Corrupt`."""


def lasting(core: Core) -> Commits:
    """The commits of a store, without those that were thinned."""
    horizon = horizon_now(core)
    return core.commits if horizon.thinned == DIRECTORY.empty else LastingCommits(core, horizon)


class LastingCommits:
    """`Commits` of which each is followed by the nearest that have content. One thread."""

    def __init__(self, core: Core, horizon: Horizon) -> None:
        self._core = core
        self._horizon = horizon
        self._commits: dict[bytes, Commit] = {}

    def get(self, id: bytes) -> Commit:
        """The commit of this id. Raises also `Thinned`."""
        commit = self._commits.get(id)
        if commit is None:
            if is_thinned(self._core, self._horizon, id):
                raise thinned_error(self._core, self._horizon, CommitId(id))
            commit = self._core.commits.get(id)
            parents = tuple(dict.fromkeys(self._nearest(commit.parents)))
            if parents != commit.parents:
                commit = evolve(commit, parents=parents)
            self._commits[id] = commit
        return commit

    def _nearest(self, parents: tuple[CommitId, ...]) -> Iterator[CommitId]:
        """The nearest commits with content, at or behind some commits, in their order."""
        seen: set[CommitId] = set()
        stack = list(reversed(parents))
        while stack:
            id = stack.pop()
            if id in seen:
                continue
            seen.add(id)
            if is_thinned(self._core, self._horizon, id):
                stack += reversed(self._core.commits.get(id).parents)
            else:
                yield id
