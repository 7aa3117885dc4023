"""Take in the history of a git folder.

Floor 8. Invariant: what a result calls imported is durable, and all refs moved together.
"""

from __future__ import annotations

from attrs import frozen

from cas.history.store import Store
from cas.worktree.gitrefs import ALL_REFS, GitOptions, GitReport, OnCommits, import_git


@frozen
class GitRequest:
    """Import the git folder at `path`."""

    path: str
    author: str
    message: str = ""
    options: GitOptions = ALL_REFS


def import_history(store: Store, request: GitRequest, progress: OnCommits = None) -> GitReport:
    """Import branches and tags with all that they reach. Raises as `import_git` does."""
    return import_git(
        store,
        request.path,
        author=request.author,
        message=request.message or "import from git",
        options=request.options,
        progress=progress,
    )
