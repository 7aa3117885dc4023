"""`cas branch` and `cas tag`: names for commits."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import columns, subject
from cas.cli.front import Front, pass_front
from cas.cli.options import BRANCH, REVISION, TAG, CasCommand, default_author, raw_option
from cas.commands.refs import Moved, Named, delete_ref, list_refs, make_branch, make_tag
from cas.history.revision import when
from cas.model.names import HEADS, MAIN, TAGS, branch_ref, printable, tag_ref
from cas.model.objects import Tag


@click.command("branch", cls=CasCommand)
@click.argument("name", metavar="[NAME", required=False, type=BRANCH)
@click.argument("revision", metavar="[REV]]", required=False, type=REVISION)
@click.option("-d", "--delete", is_flag=True, help="Delete the branch NAME.")
@click.option("-f", "--force", is_flag=True, help="Move a branch that exists.")
@raw_option
@pass_front
def branch(front: Front, name: str | None, revision: str | None, delete: bool, force: bool) -> None:
    """List, make, move or delete branches.

    Without arguments the branches are listed: name, commit, time, subject. With NAME a branch is
    made at REV (main unless said). What a deleted or moved branch pointed at is still in
    `cas journal --long`.
    """
    _check(name, revision, delete, force)
    if name is None:
        _list(front, HEADS)
        return
    author = default_author()
    with front.store(write=True) as store:
        front.check_branches(store, name, new=True)
        if delete:
            moved = delete_ref(store, branch_ref(name), author=author)
        else:
            moved = make_branch(store, name, revision or MAIN, author=author, force=force)
    _tell(front, "branch", moved)


@click.command("tag", cls=CasCommand)
@click.argument("name", metavar="[NAME", required=False, type=TAG)
@click.argument("revision", metavar="[REV]]", required=False, type=REVISION)
@click.option("-m", "--message", metavar="TEXT", default="", help="Make it an annotated tag.")
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME.")
@click.option("-f", "--force", is_flag=True, help="Move a tag that exists.")
@pass_front
def tag(
    front: Front,
    name: str | None,
    revision: str | None,
    message: str,
    delete: bool,
    force: bool,
) -> None:
    """List, make or delete tags.

    Without arguments the tags are listed: name, commit, time, subject. With NAME a tag is made
    at REV (main unless said).
    """
    _check(name, revision, delete, force or bool(message))
    if name is None:
        _list(front, TAGS)
        return
    author = default_author()
    with front.store(write=True) as store:
        if delete:
            moved = delete_ref(store, tag_ref(name), author=author)
        else:
            moved = make_tag(
                store, name, revision or MAIN, author=author, message=message, force=force
            )
    _tell(front, "tag", moved)


def _check(name: str | None, revision: str | None, delete: bool, making: bool) -> None:
    if name is None and (delete or making):
        raise click.UsageError("Give the NAME that is meant.")
    if delete and (revision is not None or making):
        raise click.UsageError("--delete takes a NAME and nothing else.")


def _list(front: Front, prefix: str) -> None:
    with front.store() as store:
        rows = list(list_refs(store, prefix))
    if front.out.json:
        kind = "branch" if prefix == HEADS else "tag"
        front.out.document(kind, refs=[_fields(row) for row in rows])
        return
    lines = columns([(printable(row.ref.short), *_about(row)) for row in rows])
    front.out.lines(lines)


def _about(row: Named) -> tuple[str, str, str]:
    if row.id is None or row.commit is None:
        return "gone", "", ""
    if row.tag is not None:
        return row.id.short, when(row.tag.time_us), subject(row.tag.message)
    return row.id.short, when(row.commit.time_us), subject(row.commit.message)


def _fields(row: Named) -> dict[str, Any]:
    return {
        "name": row.ref.short,
        "ref": row.ref.name,
        "target": str(row.ref.target),
        "commit": None if row.id is None else str(row.id),
        "seq": row.ref.seq,
        **_annotation(row.tag),
    }


def _annotation(tag: Tag | None) -> dict[str, Any]:
    if tag is None:
        return {}
    time = when(tag.time_us, exact=True)
    return {"tagger": tag.tagger, "message": tag.message, "time": time}


def _tell(front: Front, kind: str, moved: Moved) -> None:
    old = None if moved.old is None else str(moved.old)
    new = None if moved.new is None else str(moved.new)
    if front.out.json:
        front.out.document(kind, name=moved.short, ref=moved.ref, old=old, new=new, entry=moved.seq)
    elif moved.new is None:
        assert moved.old is not None
        front.out.note(f"deleted {kind} {moved.short}, which was at {moved.old}")
    elif moved.old is None:
        front.out.note(f"{kind} {moved.short} is at {moved.new.short}")
    else:
        front.out.note(f"{kind} {moved.short} is at {moved.new.short}, was at {moved.old}")


COMMANDS: Final = {"branch": branch, "tag": tag}
