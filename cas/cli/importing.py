"""`cas workspace import` from the command line.

Floor 9. Invariant: everything that was not understood is told, one line each, and what could not
be taken in makes the exit code 1.
"""

from __future__ import annotations

from cas.cli.form import count
from cas.cli.front import Front
from cas.cli.options import default_author
from cas.model.names import printable
from cas.workspace.importing import import_path
from cas.workspace.workspace import Workspace


def act(front: Front, space: Workspace, path: str) -> None:
    """Take in what lies at a path and show what became of it."""
    out = front.out
    done = import_path(space, path, actor=default_author())
    front.exit_code = 1 if done.left_out else 0
    if out.json:
        out.document(
            "workspace",
            entry=None if done.entry is None else done.entry.seq,
            files=done.files,
            unchanged=done.unchanged,
            aggregates=done.aggregates,
            not_understood=[
                {"path": n.path, "reason": n.reason, "kept": n.kept} for n in done.not_understood
            ],
            original=done.original,
            branch=done.branch,
        )
        return
    files, made = count(done.files, "file"), count(done.aggregates, "aggregate")
    out.line(f"{files}, {done.unchanged} as before; {made}")
    if done.branch is not None:
        out.line(f"history: {printable(done.branch)}")
    out.note_each([f"{each.path} {each.reason}" for each in done.not_understood if each.kept])
    out.warn_each([f"{each.path} {each.reason}" for each in done.left_out])
    if done.original is not None:
        out.note(f"all of it is kept as the artifact {printable(done.original)}")
