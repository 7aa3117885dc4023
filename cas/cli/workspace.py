"""`cas workspace`, `memory`, `artifact` and `sprint`: the domain from the command line.

Floor 9. Invariant: each writing command is one unit of work; what it prints was read from the
state that it made.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from cas.cli.form import columns, when
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand, default_author
from cas.cli.output import Output
from cas.commands.workspace import SPRINT_VERBS, move_sprint, row_of
from cas.model.names import printable
from cas.workspace.layout import MAIN
from cas.workspace.memories import Memory
from cas.workspace.oldlayout import export_folder, import_folder, save_artifact
from cas.workspace.planning import Sprint
from cas.workspace.reading import Collection
from cas.workspace.registry import Aggregate
from cas.workspace.workspace import Artifacts, Workspace

_BRANCH = click.option(
    "-b", "--branch", metavar="BRANCH", default=MAIN, help="The branch of the workspace."
)
FOLDERS: Final = ("checkout", "sync", "watch", "release", "folders")
"""Actions on working folders, told in `cas.cli.folders`."""
_WRITING: Final = ("branch", "merge", "drop", "import", "checkout", "sync", "watch", "release")
_AT = click.option("--at", metavar="SEQ", type=click.IntRange(0), help="As of this journal entry.")


def _argument(name: str | None, what: str) -> str:
    if name is None:
        raise click.UsageError(f"Give {what}.")
    return name


def _show(out: Output, schema: str, values: list[Aggregate], lines: Iterator[str]) -> None:
    if out.json:
        out.document(schema, items=[row_of(value) for value in values])
    else:
        out.lines(lines)


def _history(out: Output, schema: str, collection: Collection[Any], id: str) -> None:
    found = list(collection.history(id))
    if out.json:
        rows = [
            {
                "commit": str(each.commit),
                "author": each.author,
                "message": each.message,
                "time": when(each.time_us, exact=True),
                "value": None if each.value is None else row_of(each.value),
            }
            for each in found
        ]
        out.document(schema, versions=rows)
        return
    for each in found:
        text = "removed" if each.value is None else _first_line(each.value)
        out.line(f"{each.commit.short} {when(each.time_us)} {printable(each.author)} {text}")


def _first_line(value: Any) -> str:
    text = getattr(value, "text", None) or getattr(value, "name", "") or value.id
    return printable(str(text).split("\n", 1)[0][:100])


def _fields(value: Aggregate) -> Iterator[str]:
    row = row_of(value)
    yield from columns(
        [("id", printable(value.id))]
        + [(name, printable(str(each))) for name, each in sorted(row["fields"].items())]
    )


@click.command("memory", cls=CasCommand)
@click.argument("action", metavar="ACTION", type=click.Choice(["add", "list", "show", "history"]))
@click.argument("text", metavar="[TEXT|ID]", required=False)
@click.option("--agent", metavar="NAME", default="", help="Whose memory it is; else the author's.")
@click.option("--kind", metavar="KIND", default="note", help="What kind of memory it is.")
@click.option("-t", "--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@click.option("--importance", type=float, default=0.5, help="From 0.0 to 1.0.")
@_BRANCH
@_AT
@pass_front
def memory(
    front: Front,
    action: str,
    text: str | None,
    agent: str,
    kind: str,
    tags: tuple[str, ...],
    importance: float,
    branch: str,
    at: int | None,
) -> None:
    """Add, list and show what agents remember.

    `add TEXT`; `list`, those of --agent and with every --tag where these are given; `show ID`;
    `history ID`, its versions, newest first: an edit erases none.
    """
    out = front.out
    with front.store(write=action == "add") as store:
        space = Workspace(store, branch=branch)
        if action == "add":
            with space.unit_of_work(default_author(), "a memory") as uow:
                made = uow.memories.note(
                    _argument(text, "the TEXT to remember"),
                    agent=agent,
                    kind=kind,
                    tags=tags,
                    importance=importance,
                )
                uow.event("memory.added", {"id": made.id}, about=made)
                uow.commit()
            stored: Memory = space.memories.get(made.id)
            _show(out, "memory", [stored], iter([stored.id]))
            return
        memories = (space if at is None else space.at(at)).memories
        if action == "list":
            wanted = frozenset(tags)
            found = [m for m in memories if (not agent or m.agent == agent) and wanted <= m.tags]
            rows = [(m.id, printable(m.agent), _first_line(m)) for m in found]
            _show(out, "memory", list(found), iter(columns(rows)))
        elif action == "show":
            one = memories.get(_argument(text, "the ID of a memory"))
            _show(out, "memory", [one], _fields(one))
        else:
            _history(out, "memory", memories, _argument(text, "the ID of a memory"))


@click.command("artifact", cls=CasCommand)
@click.argument(
    "action", metavar="ACTION", type=click.Choice(["put", "get", "list", "show", "history", "rm"])
)
@click.argument("name", metavar="[NAME", required=False)
@click.argument("file", metavar="[FILE]]", required=False, type=click.Path(path_type=Path))
@click.option("--title", metavar="TEXT", default="", help="A title.")
@click.option("-t", "--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@_BRANCH
@_AT
@pass_front
def artifact(
    front: Front,
    action: str,
    name: str | None,
    file: Path | None,
    title: str,
    tags: tuple[str, ...],
    branch: str,
    at: int | None,
) -> None:
    """Keep content with a name, its versions and its origin.

    `put NAME FILE` (standard input without FILE); `get NAME` prints the content, or writes it to
    FILE; `list`; `show NAME`; `history NAME`; `rm NAME`.
    """
    out = front.out
    with front.store(write=action in ("put", "rm")) as store:
        space = Workspace(store, branch=branch)
        if action in ("put", "rm"):
            target = _argument(name, "the NAME of an artifact")
            with space.unit_of_work(default_author(), f"{action} {target}"[:200]) as uow:
                if action == "put":
                    content: Any = sys.stdin.buffer if file is None else file
                    made = uow.artifacts.put(target, content, title=title, tags=tags)
                    uow.event("artifact.put", {"name": target}, about=made)
                else:
                    uow.artifacts.remove(target)
                    uow.event("artifact.removed", {"name": target})
                uow.commit()
            stored = space.artifacts.find_one(target)
            shown: list[Aggregate] = [] if stored is None else [stored]
            lines = [] if stored is None else [str(stored.content)]
            _show(out, "artifact", shown, iter(lines))
            return
        artifacts = (space if at is None else space.at(at)).artifacts
        if action == "list":
            found = list(artifacts)
            rows = [(str(a.size_bytes), a.kind.value, printable(a.name)) for a in found]
            _show(out, "artifact", list(found), iter(columns(rows)))
            return
        target = _argument(name, "the NAME of an artifact")
        if action == "get":
            _get(out, artifacts, target, file)
        elif action == "show":
            one = artifacts.get(target)
            _show(out, "artifact", [one], _fields(one))
        else:
            _history(out, "artifact", artifacts, target)


def _get(out: Output, artifacts: Artifacts, name: str, file: Path | None) -> None:
    """Print a content, or write it to a file."""
    one = artifacts.get(name)
    if file is not None:
        save_artifact(artifacts, name, file)
    elif out.json:
        content = base64.b64encode(artifacts.read(name)).decode()
        out.document("artifact", id=name, size=one.size_bytes, content_base64=content)
    else:
        out.data(artifacts.read(name))


@click.command("sprint", cls=CasCommand)
@click.argument(
    "action", metavar="ACTION", type=click.Choice(["add", "list", "show", "history", *SPRINT_VERBS])
)
@click.argument("id", metavar="[ID", required=False)
@click.argument("name", metavar="[NAME]]", required=False)
@click.option("--goal", metavar="TEXT", default="", help="What it is for.")
@_BRANCH
@_AT
@pass_front
def sprint(
    front: Front,
    action: str,
    id: str | None,
    name: str | None,
    goal: str,
    branch: str,
    at: int | None,
) -> None:
    """Plan sprints and move them through their states.

    `add ID NAME`; `list`; `show ID`; `history ID`; `start`, `review`, `close` or `cancel ID`. A
    state that cannot follow is refused.
    """
    out = front.out
    writes = action == "add" or action in SPRINT_VERBS
    with front.store(write=writes) as store:
        space = Workspace(store, branch=branch)
        if action in SPRINT_VERBS:
            now_us = store.objects.clock.wall_us()
            which = _argument(id, "the ID of a sprint")
            move_sprint(space, which, action, actor=default_author(), now_us=now_us)
        elif action == "add":
            with space.unit_of_work(default_author(), "a sprint") as uow:
                which = _argument(id, "the ID of the new sprint")
                made = uow.sprints.add(Sprint(id=which, name=name or which, goal=goal))
                uow.event("sprint.planned", {"id": which}, about=made)
                uow.commit()
        sprints = (space if at is None or writes else space.at(at)).sprints
        if action == "list":
            found = list(sprints)
            rows = [(printable(s.id), s.state.value, printable(s.name)) for s in found]
            _show(out, "sprint", list(found), iter(columns(rows)))
        elif action == "history":
            _history(out, "sprint", sprints, _argument(id, "the ID of a sprint"))
        else:
            one = sprints.get(_argument(id, "the ID of a sprint"))
            lines = iter([f"{one.id} {one.state}"]) if writes else _fields(one)
            _show(out, "sprint", [one], lines)


@click.command("workspace", cls=CasCommand)
@click.argument(
    "action",
    metavar="ACTION",
    type=click.Choice(
        ["status", "branches", "branch", "merge", "drop", "conflicts", "import", "export", *FOLDERS]
    ),
)
@click.argument("name", metavar="[NAME|DIR]", required=False)
@click.option("--keep", is_flag=True, help="With merge: keep conflicts instead of refusing.")
@click.option("--sprint", metavar="ID", help="With checkout: the sprint that it is for.")
@click.option("--author", metavar="NAME", help="Whose the changes in DIR are; else external.")
@click.option("--new-max", metavar="N", type=click.IntRange(0), help="New files taken in at once.")
@click.option("--for", "seconds", metavar="S", type=float, help="With watch: end after so long.")
@_BRANCH
@pass_front
def workspace(
    front: Front,
    action: str,
    name: str | None,
    keep: bool,
    sprint: str | None,
    author: str | None,
    new_max: int | None,
    seconds: float | None,
    branch: str,
) -> None:
    """Look at a workspace, branch it, and have it as files.

    `status`; `branches`; `branch NAME` makes one, `merge NAME` brings it back, `drop NAME`
    removes it; `conflicts` lists those to be settled; `import DIR` takes a folder of the old
    layout in and tells what it did not understand; `export DIR` writes the artifacts out.

    `checkout DIR` makes DIR a working folder; `status DIR` tells how it stands; `sync DIR` takes in
    what was changed there and brings it up; `watch DIR` goes on doing so; `release DIR` lets go of
    it; `folders` lists them all.
    """
    out = front.out
    actor = default_author()
    with front.store(write=action in _WRITING) as store:
        space = Workspace(store, branch=branch)
        if action in FOLDERS or (action == "status" and name is not None):
            from cas.cli import folders

            asked = folders.Asked(actor, author, sprint, new_max, seconds)
            folders.act(out, space, action, name, asked)
        elif action == "status":
            _status(out, space)
        elif action == "branches":
            names = space.branches()
            if out.json:
                out.document("workspace", branches=names)
            else:
                out.lines(map(printable, names))
        elif action == "conflicts":
            _conflicts(out, space)
        elif action in ("branch", "merge", "drop"):
            _branching(out, space, action, _argument(name, "the NAME of a branch"), actor, keep)
        elif action == "import":
            _import(out, space, _argument(name, "the folder to import"), actor)
        else:
            count = export_folder(space, _argument(name, "the folder to write"))
            _tell(out, f"{count} artifacts written", files=count)


def _tell(out: Output, text: str, **fields: Any) -> None:
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
        "artifacts": sum(1 for _ in view.artifacts.ids()),
        "conflicts": sum(1 for _ in view.conflicts()),
    }
    if out.json:
        out.document("workspace", seq=view.seq, counts=counts, contexts=view.context_names())
    else:
        out.lines(columns([(name, str(count)) for name, count in counts.items()]))


def _conflicts(out: Output, space: Workspace) -> None:
    found = list(space.conflicts())
    if out.json:
        out.document("workspace", conflicts=[row_of(each) for each in found])
        return
    for each in found:
        for clash in each.clashes:
            out.line(
                printable(
                    f"{each.about} {clash.field}: {clash.base!r} became {clash.current!r} here "
                    f"and {clash.incoming!r} by {each.actor}"
                )
            )


def _branching(
    out: Output, space: Workspace, action: str, name: str, author: str, keep: bool
) -> None:
    if action == "branch":
        space.branch(name, actor=author)
        _tell(out, f"{name} stands where {space.branch_name} does", branch=name)
    elif action == "drop":
        space.drop_branch(name, actor=author)
        _tell(out, f"{name} was dropped; `cas undo` brings it back", branch=name)
    else:
        done = space.merge(name, actor=author, on_conflict="keep" if keep else "raise")
        seq = None if done.entry is None else done.entry.seq
        text = f"{', '.join(done.contexts) or 'nothing'} merged, {done.merged_count} field by field"
        _tell(out, text, branch=name, entry=seq, contexts=list(done.contexts))


def _import(out: Output, space: Workspace, folder: str, author: str) -> None:
    done = import_folder(space, folder, actor=author)
    if out.json:
        out.document(
            "workspace",
            entry=None if done.entry is None else done.entry.seq,
            files=done.files,
            unchanged=done.unchanged,
            aggregates=done.aggregates,
            not_understood=[{"path": n.path, "reason": n.reason} for n in done.not_understood],
        )
        return
    out.line(f"{done.files} files, {done.unchanged} as before; {done.aggregates} aggregates")
    out.note_each([f"{each.path} {each.reason}" for each in done.not_understood])


COMMANDS: Final = {
    "workspace": workspace,
    "memory": memory,
    "artifact": artifact,
    "sprint": sprint,
}
