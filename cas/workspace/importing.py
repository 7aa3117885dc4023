"""What others have made, into a workspace: by what a path turns out to be.

Floor 6. A folder of git comes with its history, a file of SQLite as one of LangGraph or AgentFS,
any other folder as one of the old kind. Invariant: that of `arrivals`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from attrs import evolve

from cas.catalog.foreign import ForeignFile, is_sqlite
from cas.errors import Invalid, NotFound
from cas.model.names import HEADS, printable
from cas.workspace.agentfs import is_agentfs, take_agentfs
from cas.workspace.arrivals import Arrivals, ImportReport
from cas.workspace.artifacts import Artifact
from cas.workspace.langgraph import is_langgraph, take_langgraph
from cas.workspace.oldlayout import import_folder, take_folder
from cas.workspace.registry import type_of
from cas.workspace.workspace import Workspace
from cas.worktree.checkout import restore
from cas.worktree.git import open_git
from cas.worktree.gitrefs import GitOptions, import_git


def import_path(space: Workspace, path: str | os.PathLike[str], *, actor: str) -> ImportReport:
    """Take in what lies at a path; tells what was not understood.

    One entry a store, and for a folder of git one before that for its history. Doing it again takes
    in what differs. Raises `NotFound`, `Invalid` for what is none of the known kinds, `BadArchive`
    for what is damaged, `StorageFailed`, `Busy`, and what a commit raises.
    """
    if not os.fspath(path):
        raise Invalid("The name of what is to be imported is empty (the folder here is .).")
    place = os.path.abspath(os.fspath(path))
    if os.path.isdir(place):
        return (
            import_git_folder(space, place, actor)
            if _is_git(place)
            else import_folder(space, place, actor=actor)
        )
    if not os.path.isfile(place):
        raise NotFound(f"There is no file or folder at {printable(place)}.", path=place)
    if not is_sqlite(place):
        raise Invalid(
            f"{printable(place)} is no file of SQLite. What can be taken in: a folder, a folder of "
            "git, a file of LangGraph's SqliteStore, a file of AgentFS; `cas artifact put` keeps "
            "any file."
        )
    return import_file(space, place, actor)


def import_file(space: Workspace, path: str, actor: str) -> ImportReport:
    """A file of LangGraph or AgentFS. Raises as `import_path`."""
    name = os.path.basename(path)
    with ForeignFile(path) as file, Arrivals(space, actor, f"import of {name}"[:200]) as arrivals:
        if is_agentfs(file):
            take_agentfs(file, arrivals, Path(path).stem)
        elif is_langgraph(file):
            take_langgraph(file, arrivals)
        else:
            named = ", ".join(map(printable, file.tables)) or "none"
            raise Invalid(
                f"{printable(path)} is of no program that is known here: it has the tables "
                f"{named}. `cas artifact put` keeps it as it is."
            )
        kept = arrivals.keep_original(file.copy, name) if arrivals.homeless else None
        return arrivals.report(arrivals.commit(), original=kept)


def import_git_folder(space: Workspace, path: str, actor: str) -> ImportReport:
    """The history of the branch that is checked out in a folder of git, as a branch of the store,
    and the files of its newest commit as those of a folder of the old kind. Raises as
    `import_path`, and what `import_git` raises.
    """
    name = os.path.basename(path).removesuffix(".git") or "git"
    target = f"git-{name}"
    with open_git(path) as folder:
        head = folder.head()
    if head is None:
        raise Invalid(
            f"No branch is checked out in {printable(path)}; check one out, or take the history in "
            "with `cas import-git`."
        )
    store = space.store_of(type_of(Artifact).context)
    options = GitOptions((head,), called=target)
    message = f"import of {name} from git"[:200]
    history = import_git(store, path, author=actor, message=message, options=options)
    snapshot = store.snapshot(HEADS + target)
    with (
        tempfile.TemporaryDirectory(prefix="cas-import-") as below,
        Arrivals(space, actor, message) as arrivals,
    ):
        restore(store, snapshot, "", os.path.join(below, name), force=False)
        take_folder(Path(below, name), arrivals)
        # What no artifact can be is in the history all the same.
        arrivals.told = [evolve(each, kept=True) for each in arrivals.told]
        for problem in history.problems:
            arrivals.tell(printable(problem.path), problem.message, kept=False)
        entry = arrivals.commit(branch=target)
        return arrivals.report(entry, branch=target)


def _is_git(folder: str) -> bool:
    """Whether a folder is one of git, or a checkout of one."""
    if os.path.exists(os.path.join(folder, ".git")):
        return True
    return all(os.path.exists(os.path.join(folder, name)) for name in ("HEAD", "objects", "refs"))
