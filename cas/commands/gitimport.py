"""Take in the history of a git folder.

Floor 8. Invariant: what a result calls imported is durable, and all refs moved together.
"""

from __future__ import annotations

from functools import partial

from attrs import frozen

from cas.commands.raw import check_branches
from cas.history.store import Store
from cas.worktree.gitrefs import ALL_REFS, GitOptions, GitReport, OnCommits, import_git


@frozen
class GitRequest:
    """Import the git folder at `path`."""

    path: str
    author: str
    message: str = ""
    options: GitOptions = ALL_REFS


def import_history(
    store: Store, request: GitRequest, progress: OnCommits = None, *, raw: bool = False
) -> GitReport:
    """Import branches and tags with all that they reach; with `raw` also to branches of contexts.

    Raises `NotAllowed` for these, and as `import_git` does.
    """
    return import_git(
        store,
        request.path,
        author=request.author,
        message=request.message or "import from git",
        options=request.options,
        progress=progress,
        check=None if raw else partial(check_branches, store),
    )
