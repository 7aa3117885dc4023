"""`cas workspace import` from the command line.

Floor 9. Invariant: everything that was not understood is told, one line each.
"""

from __future__ import annotations

from cas.cli.options import default_author
from cas.cli.output import Output
from cas.model.names import printable
from cas.workspace.importing import import_path
from cas.workspace.workspace import Workspace


def act(out: Output, space: Workspace, path: str) -> None:
    """Take in what lies at a path and show what became of it."""
    done = import_path(space, path, actor=default_author())
    if out.json:
        out.document(
            "workspace",
            entry=None if done.entry is None else done.entry.seq,
            files=done.files,
            unchanged=done.unchanged,
            aggregates=done.aggregates,
            not_understood=[{"path": n.path, "reason": n.reason} for n in done.not_understood],
            original=done.original,
            branch=done.branch,
        )
        return
    out.line(f"{done.files} files, {done.unchanged} as before; {done.aggregates} aggregates")
    if done.branch is not None:
        out.line(f"history: {printable(done.branch)}")
    out.note_each([f"{each.path} {each.reason}" for each in done.not_understood])
    if done.original is not None:
        out.note(f"all of it is kept as the artifact {printable(done.original)}")
