"""`cas workspace`: the domain as a whole from the command line.

Floor 9. Invariant: each writing action is one unit of work, or says what it did in parts; what is
printed was read from the state that it made. Working folders, contexts and conflicts have rooms of
their own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from cas.cli.form import columns, count
from cas.cli.front import Front, pass_front, tell_purged
from cas.cli.options import CasCommand, default_author, needed
from cas.cli.output import Output
from cas.commands.workspace import archived_count
from cas.model.names import printable, quoted
from cas.workspace.layout import MAIN
from cas.workspace.oldlayout import export_folder
from cas.workspace.subscriptions import DeadLetter
from cas.workspace.workspace import Workspace

READING: Final = (
    "status",
    "branches",
    "export",
    "conflicts",
    "contexts",
    "folders",
    "subscriptions",
)
"""Actions that change nothing in the store."""
WRITING: Final = ("branch", "merge", "drop", "import")
ELSEWHERE: Final = {
    **dict.fromkeys(("checkout", "sync", "watch", "release", "folders"), "folders"),
    **dict.fromkeys(("contexts", "context", "exchange"), "contexts"),
    **dict.fromkeys(("conflicts", "settle"), "settling"),
    "subscriptions": "subscriptions",
}
"""Action -> the module of `cas.cli` that does it."""
NAMELESS: Final = ("branches", "folders", "contexts", "exchange")
_LIMIT: Final = click.IntRange(0)
ACTIONS: Final = (*dict.fromkeys((*READING, *WRITING, *ELSEWHERE)),)


@click.command("workspace", cls=CasCommand)
@click.argument("action", metavar="ACTION", type=click.Choice(ACTIONS))
@click.argument("name", metavar="[NAME|DIR|ID]", required=False)
@click.option("--keep", is_flag=True, help="With merge: keep conflicts instead of refusing.")
@click.option("--sprint", metavar="ID", help="With checkout: the sprint that it is for.")
@click.option("--author", metavar="NAME", help="Whose the changes in DIR are; else external.")
@click.option("--new-max", metavar="N", type=click.IntRange(0), help="New files taken in at once.")
@click.option("--for", "seconds", metavar="S", type=float, help="With watch, exchange: so long.")
@click.option("--follow", is_flag=True, help="With exchange: go on until interrupted.")
@click.option("--place", metavar="ADDRESS", help="With context: the store in which it lives.")
@click.option("--home", is_flag=True, help="With context: it lives in this store.")
@click.option("--publish", metavar="TYPE", multiple=True, help="With context: others see these.")
@click.option("--unpublish", metavar="TYPE", multiple=True, help="With context: no longer these.")
@click.option("--describe", metavar="TEXT", help="With context: what it is for.")
@click.option("--record-max", metavar="N", type=_LIMIT, help="With context: bytes of a record.")
@click.option("--artifact-max", metavar="N", type=_LIMIT, help="With context: of an artifact.")
@click.option("--count-max", metavar="N", type=_LIMIT, help="With context: aggregates.")
@click.option("--total-max", metavar="N", type=_LIMIT, help="With context: bytes of all it has.")
@click.option("--retain", metavar="RULE", help="With context: what stays, last=9,daily=30; or all.")
@click.option("--force", is_flag=True, help="With context: give up the store it lived in.")
@click.option("--take", type=click.Choice(["current", "incoming", "base"]), help="With settle.")
@click.option("--set", "values", metavar="FIELD=VALUE", multiple=True, help="With settle.")
@click.option("--content", metavar="FILE", help="With settle: the content of an artifact; or -.")
@click.option("-b", "--branch", metavar="BRANCH", default=MAIN, help="The branch of the workspace.")
@pass_front
def workspace(front: Front, /, action: str, name: str | None, branch: str, **said: Any) -> None:
    """Look at a workspace, branch it, and have it as files.

    `status`; `branches`; `branch NAME` makes one, `merge NAME` brings it back, `drop NAME`
    removes it; `import DIR` takes a folder of the old layout in and tells what it did not
    understand; `export DIR` writes the artifacts out.

    `conflicts` lists those to be settled, `conflicts ID` shows both sides, `settle ID` settles one
    with --take, --set or --content.

    `contexts` lists bounded contexts; `context NAME` shows one, or with an option declares it;
    `exchange` carries what they publish between the stores in which they live. `subscriptions`
    tells who has handled events up to where, `subscriptions NAME` what nobody could handle.

    `checkout DIR` makes DIR a working folder; `status DIR` tells how it stands; `sync DIR` takes in
    what was changed there and brings it up; `watch DIR` goes on doing so; `release DIR` lets go of
    it; `folders` lists them all.
    """
    if name == "":
        raise click.UsageError("What is named after the action is empty; . is the folder here.")
    out = front.out
    if name is not None and action in NAMELESS:
        raise click.UsageError(f"`{action}` takes no NAME, and {quoted(name)} is one too many.")
    room = "folders" if action == "status" and name is not None else ELSEWHERE.get(action)
    with front.space(branch, write=action not in READING) as space:
        if room is not None:
            # Most invocations need none of these.
            import_module(f"cas.cli.{room}").act(out, space, action, name, said)
        elif action == "status":
            _status(out, space)
        elif action == "branches":
            names = space.branches()
            if out.json:
                out.document("workspace", branches=names)
            else:
                out.lines(map(printable, names))
        elif action == "export":
            gone: list[str] = []
            number = export_folder(space, needed(name, "the folder to write"), gone)
            tell(out, f"{count(number, 'artifact')} written", files=number, purged=gone)
            tell_purged(front, gone)
        elif action == "import":
            import_module("cas.cli.importing").act(front, space, needed(name, "what to import"))
        else:
            _branching(out, space, action, needed(name, "the NAME of a branch"), said["keep"])


def tell(out: Output, text: str, **fields: Any) -> None:
    """Say one thing, in a line or as a document."""
    if out.json:
        out.document("workspace", **fields)
    else:
        out.line(text)


def _status(out: Output, space: Workspace) -> None:
    view = space.now()
    counts = {
        "projects": sum(1 for _ in view.projects.ids()),
        "sprints": sum(1 for _ in view.sprints.ids()),
        "agents": sum(1 for _ in view.agents.ids()),
        "decisions": sum(1 for _ in view.decisions.ids()),
        "runs": sum(1 for _ in view.runs.ids()),
        "memories": sum(1 for _ in view.memories.ids()),
        "archived memories": archived_count(view),
        "artifacts": sum(1 for _ in view.artifacts.ids()),
        "conflicts": sum(1 for _ in view.conflicts()),
        "dead letters": sum(1 for _ in view.collection(DeadLetter).ids()),
    }
    if out.json:
        named = {name.replace(" ", "_"): count for name, count in counts.items()}
        out.document("workspace", seq=view.seq, counts=named, contexts=view.context_names())
    else:
        out.lines(columns([(name, str(count)) for name, count in counts.items()]))


def _branching(out: Output, space: Workspace, action: str, name: str, keep: bool) -> None:
    author = default_author()
    if action == "branch":
        there = name in space.branches()
        space.branch(name, actor=author)
        what = "was there already, and was left as it is"
        if not there:
            what = f"stands where {printable(space.branch_name)} does"
        tell(out, f"{printable(name)} {what}", branch=name, made=not there)
    elif action == "drop":
        space.drop_branch(name, actor=author)
        tell(out, f"{name} was dropped; `cas undo` brings it back", branch=name)
    else:
        done = space.merge(name, actor=author, on_conflict="keep" if keep else "raise")
        seq = None if done.entry is None else done.entry.seq
        text = f"{', '.join(done.contexts) or 'nothing'} merged, {done.merged_count} field by field"
        tell(out, text, branch=name, entry=seq, contexts=list(done.contexts))


COMMANDS: Final = {"workspace": workspace}
