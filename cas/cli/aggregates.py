"""`cas memory`, `artifact` and `sprint`: aggregates from the command line.

Floor 9. Invariant: each writing command is one unit of work; what it prints was read from the
state that it made.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from cas.cli.files import write_file
from cas.cli.form import columns, size
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand, default_author, needed
from cas.cli.output import Output
from cas.commands.objects import Counted, open_file
from cas.commands.workspace import SPRINT_VERBS, linked, move_sprint, row_of, time_of
from cas.errors import AggregateNotFound, Invalid
from cas.history.revision import when
from cas.model.names import printable
from cas.workspace.artifacts import Artifact, ArtifactKind
from cas.workspace.codec import to_fields
from cas.workspace.layout import MAIN
from cas.workspace.memories import ARCHIVED, Memory, Trust
from cas.workspace.planning import Sprint
from cas.workspace.reading import Collection
from cas.workspace.registry import Aggregate
from cas.workspace.views import Artifacts

_BRANCH = click.option(
    "-b", "--branch", metavar="BRANCH", default=MAIN, help="The branch of the workspace."
)
_STREAM: Final = (None, Path("-"))
"""Files that are standard input, or output."""
_MEMORY_VERBS: Final = ("add", "list", "show", "history", "rm")
_PART_BYTES: Final = 1 << 20
_SHORT: Final = 8
"""Characters of an id that stand for it where no other begins so."""
_AT = click.option("--at", metavar="SEQ", type=click.IntRange(0), help="As of this journal entry.")


@contextmanager
def _in_words() -> Iterator[None]:
    """What is not there, told in the words of the command line."""
    try:
        yield
    except AggregateNotFound as error:
        if error.type not in COMMANDS:
            raise  # what something is linked to, and no command lists
        raise AggregateNotFound(
            f"There is no {error.type} {printable(error.id)}; `cas {error.type} list` shows what "
            f"there is, `cas {error.type} history` what was there.",
            type=error.type,
            id=error.id,
        ) from error


def _none(given: str | Path | None, action: str) -> None:
    if given is not None:
        shown = printable(str(given))
        raise click.UsageError(f"`{action}` takes no more words, and {shown!r} is one.")


def _text(given: str) -> str:
    """The text of a memory; - is standard input, without the end of its last line."""
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("What standard input gave is no text in UTF-8.") from error


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
    """What tells one version of an aggregate from another, in a line."""
    if isinstance(value, Artifact):
        return f"{size(value.size_bytes)} {value.content.short}"
    if isinstance(value, Sprint):
        return f"{value.state} {printable(value.name)}"
    return _text_of(value)


def _text_of(value: Any) -> str:
    text = getattr(value, "text", None) or getattr(value, "name", "") or value.id
    return printable(str(text).split("\n", 1)[0][:100])


def _fields(value: Aggregate) -> Iterator[str]:
    """The fields of an aggregate that say something, for people."""
    unknown = value.unknown or {}
    every = [
        (name, unknown[name] if name in unknown else getattr(value, name))
        for name in sorted(to_fields(value))
        if name != "id"
    ]
    yield from columns(
        [("id", printable(value.id))]
        + [(name, text) for name, each in every if (text := _said(each)) != ""]
    )


def _said(value: Any) -> str:
    """A value of a field, empty where it says nothing."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return when(value, exact=True)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(key))}={_said(each)}" for key, each in value.items())
    if isinstance(value, frozenset | set):
        return ", ".join(sorted(map(_said, value)))
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return printable(str(value))


@click.command("memory", cls=CasCommand)
@click.argument("action", metavar="ACTION", type=click.Choice(_MEMORY_VERBS))
@click.argument("text", metavar="[TEXT|ID]", required=False)
@click.option("--agent", metavar="NAME", default="", help="Whose memory it is; else the author's.")
@click.option("--kind", metavar="KIND", default="note", help="What kind of memory it is.")
@click.option("-t", "--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@click.option("--importance", type=float, default=0.5, help="From 0.0 to 1.0.")
@click.option(
    "--source", metavar="TYPE:ID", help="With add: what it was learnt from, as it is now."
)
@click.option(
    "--trust", type=click.Choice([each.value for each in Trust]), help="With add: else unverified."
)
@click.option("--valid-from", metavar="TIME", help="With add: since when what it says is true.")
@click.option("--valid-to", metavar="TIME", help="With add: until when.")
@click.option("--supersedes", metavar="ID", multiple=True, help="With add: what it replaces.")
@click.option("--archived", "all_of_them", is_flag=True, help="With list: archived ones too.")
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
    source: str | None,
    trust: str | None,
    valid_from: str | None,
    valid_to: str | None,
    supersedes: tuple[str, ...],
    all_of_them: bool,
    branch: str,
    at: int | None,
) -> None:
    """Add, list, show and remove what agents remember.

    `add TEXT` (- is standard input); `list`, those of --agent and with every --tag where these are
    given, but for archived ones; `show ID`; `history ID`, its versions, newest first: an edit
    erases none; `rm ID`. Of an ID the first 8 characters are enough where no other begins so.
    """
    out = front.out
    if action == "list":
        _none(text, action)
    with _in_words(), front.space(branch, write=action in ("add", "rm")) as space:
        if action == "add":
            learnt = None if source is None else linked(space, source)
            with space.unit_of_work(default_author(), "a memory") as uow:
                made = uow.memories.note(
                    _text(needed(text, "the TEXT to remember")),
                    agent=agent,
                    kind=kind,
                    tags=tags,
                    importance=importance,
                    source=learnt,
                    trust=trust or Trust.UNVERIFIED,
                    valid_from=None if valid_from is None else time_of(valid_from),
                    valid_to=None if valid_to is None else time_of(valid_to),
                    supersedes=[uow.memories.get(each) for each in supersedes],
                )
                uow.event("memory.added", {"id": made.id}, about=made)
                uow.commit()
            stored: Memory = space.memories.get(made.id)
            _show(out, "memory", [stored], iter([stored.id]))
            return
        if action == "rm":
            id = _whole(space.memories, needed(text, "the ID of a memory"))
            with space.unit_of_work(default_author(), f"remove memory {id}") as uow:
                gone = uow.memories.get(id)
                uow.memories.remove(gone)
                uow.event("memory.removed", {"id": id}, about=gone)
                uow.commit()
            _show(out, "memory", [], iter(()))
            return
        memories = (space if at is None else space.at(at)).memories
        if action == "list":
            wanted = frozenset(tags)
            found = [m for m in memories if (not agent or m.agent == agent) and wanted <= m.tags]
            listed = [m for m in found if all_of_them or ARCHIVED not in m.tags]
            rows = [(m.id, printable(m.agent), _marked(m)) for m in listed]
            _show(out, "memory", list(listed), iter(columns(rows)))
            if len(listed) < len(found):
                out.note(f"{len(found) - len(listed)} archived left out; --archived lists them")
        elif action == "show":
            one = memories.get(_whole(memories, needed(text, "the ID of a memory")))
            _show(out, "memory", [one], _fields(one))
        else:
            id = needed(text, "the ID of a memory")
            with suppress(AggregateNotFound):
                id = _whole(memories, id)  # One that was removed has to be named whole.
            _history(out, "memory", memories, id)


def _whole(memories: Collection[Memory], given: str) -> str:
    """The id that `given` is, or begins. Raises `AggregateNotFound`, `Invalid`."""
    if given in memories:
        return given
    found = [id for id in memories.ids() if id.startswith(given)] if len(given) >= _SHORT else []
    if len(found) > 1:
        raise Invalid(f"{len(found)} memories have ids that begin with {given!r}; give more of it.")
    return found[0] if found else memories.get(given).id


def _marked(value: Memory) -> str:
    return ("[archived] " if ARCHIVED in value.tags else "") + _first_line(value)


@click.command("artifact", cls=CasCommand)
@click.argument(
    "action", metavar="ACTION", type=click.Choice(["put", "get", "list", "show", "history", "rm"])
)
@click.argument("name", metavar="[NAME", required=False)
@click.argument("file", metavar="[FILE]]", required=False, type=click.Path(path_type=Path))
@click.option("--title", metavar="TEXT", default="", help="A title.")
@click.option("-t", "--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@click.option(
    "--kind",
    type=click.Choice([each.value for each in ArtifactKind]),
    help="With put: else artifact.",
)
@click.option("--media-type", metavar="TYPE", default="", help="With put: else by the name.")
@click.option("--made-from", metavar="TYPE:ID", multiple=True, help="With put: as it is now.")
@click.option("--run", metavar="ID", help="With put: the run that made it.")
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
    kind: str | None,
    media_type: str,
    made_from: tuple[str, ...],
    run: str | None,
    branch: str,
    at: int | None,
) -> None:
    """Keep content with a name, its versions and its origin.

    `put NAME FILE` (standard input without FILE, or with -); `get NAME` prints the content, or
    writes it to FILE; `list`; `show NAME`; `history NAME`; `rm NAME`.
    """
    out = front.out
    if action == "list":
        _none(name, action)
    if action not in ("put", "get"):
        _none(file, action)
    with _in_words(), front.space(branch, write=action in ("put", "rm")) as space:
        if action in ("put", "rm"):
            target = needed(name, "the NAME of an artifact")
            origins = [linked(space, each) for each in made_from]
            with space.unit_of_work(default_author(), f"{action} {target}"[:200]) as uow:
                if action == "put":
                    piped = file in _STREAM
                    source = nullcontext(sys.stdin.buffer) if piped else open_file(str(file))
                    with source as content:
                        held: Any = Counted(content)
                        made = uow.artifacts.put(
                            target,
                            held,
                            kind=None if kind is None else ArtifactKind(kind),
                            media_type=media_type,
                            title=title,
                            tags=tags,
                            made_from=origins,
                            run=None if run is None else space.runs.get(run),
                        )
                    uow.event("artifact.put", {"name": target}, about=made)
                else:
                    removed = uow.artifacts.get(target)
                    uow.artifacts.remove(removed)
                    uow.event("artifact.removed", {"name": target}, about=removed)
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
        target = needed(name, "the NAME of an artifact")
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
    if file not in _STREAM:
        assert file is not None
        with artifacts.open(name) as reader:
            write_file(str(file), reader)
    elif out.json:
        content = base64.b64encode(artifacts.read(name)).decode()
        out.document("artifact", id=name, size=one.size_bytes, content_base64=content)
    else:
        with artifacts.open(name) as reader:
            while part := reader.read(_PART_BYTES):
                out.data(part)


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
    if action == "list":
        _none(id, action)
    if action != "add":
        _none(name, action)
    with _in_words(), front.space(branch, write=writes) as space:
        if action in SPRINT_VERBS:
            now_us = space.store.objects.clock.wall_us()
            which = needed(id, "the ID of a sprint")
            move_sprint(space, which, action, actor=default_author(), now_us=now_us)
        elif action == "add":
            with space.unit_of_work(default_author(), "a sprint") as uow:
                which = needed(id, "the ID of the new sprint")
                made = uow.sprints.add(Sprint(id=which, name=name or which, goal=goal))
                uow.event("sprint.planned", {"id": which}, about=made)
                uow.commit()
        sprints = (space if at is None or writes else space.at(at)).sprints
        if action == "list":
            found = list(sprints)
            rows = [(printable(s.id), s.state.value, printable(s.name)) for s in found]
            _show(out, "sprint", list(found), iter(columns(rows)))
        elif action == "history":
            _history(out, "sprint", sprints, needed(id, "the ID of a sprint"))
        else:
            one = sprints.get(needed(id, "the ID of a sprint"))
            lines = iter([f"{one.id} {one.state}"]) if writes else _fields(one)
            _show(out, "sprint", [one], lines)


COMMANDS: Final = {"memory": memory, "artifact": artifact, "sprint": sprint}
