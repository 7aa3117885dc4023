"""`cas find`, `recall`, `links`, `forget`, `taint`: search, context, links, forgetting, trust."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Final

import click

from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand, default_author
from cas.cli.recalled import answer, left_out_lines, reasons, safe
from cas.cli.values import aggregate_line
from cas.commands.recall import (
    MEMORY,
    condition,
    is_there,
    recalling,
    types_of,
    where_lives,
)
from cas.commands.workspace import row_of
from cas.model.names import printable
from cas.recall.forget import Policy
from cas.recall.recall import Recall
from cas.recall.taint import apply_taint, plan_taint
from cas.recall.upkeep import apply_forget, plan_forget, preview
from cas.workspace.layout import MAIN
from cas.workspace.links import Link
from cas.workspace.registry import Aggregate, type_of

_BRANCH: Final = click.option(
    "--branch", metavar="NAME", default=MAIN, help="Branch of the workspace (main)."
)
_AS_OF: Final = click.option(
    "--as-of", metavar="SEQ|TIME", help="The state after that entry, or at that time."
)
_AUTHOR: Final = click.option("--author", metavar="NAME", help="Who does it.")


_INDEX: Final = click.option(
    "--index", metavar="WHERE", help="Where the search index lies: database, cache or a file."
)


@contextmanager
def _recall(
    front: Front,
    branch: str,
    index: str | None,
    context: str = MEMORY,
    *,
    write: bool = False,
    vocabulary: str | None = None,
) -> Iterator[Recall]:
    """Recall over the store in which a context lives; its index stays for the next command."""
    with (
        front.space(branch, write=write, remember=True) as own,
        recalling(own.store_of(context), branch, index, vocabulary) as made,
    ):
        yield made


def _tell(front: Front, recall: Recall) -> None:
    for notice in recall.projection.notices:
        front.out.note(notice)


@click.command("find", cls=CasCommand)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@click.option("--type", "kind", metavar="TYPE", default="memory", help="What to find (memory).")
@click.option("-w", "--where", multiple=True, metavar="FIELD=VALUE", help="Also != < <= > >= ^.")
@click.option("--order", metavar="FIELD", help="id, time or a field; -FIELD the other way round.")
@click.option("-n", "--limit", type=int, default=50, metavar="N", help="Items of a page (50).")
@click.option("--after", metavar="CURSOR", help="The page behind the one that gave this cursor.")
@click.option("--count", is_flag=True, help="Only how many there are.")
@click.option("--facet", metavar="FIELD", help="Only how many have each value of a field.")
@click.option("--archived", is_flag=True, help="Archived ones too.")
@click.option("--explain", is_flag=True, help="Tell how the query is answered.")
@_AS_OF
@_BRANCH
@_INDEX
@pass_front
def find(
    front: Front,
    words: tuple[str, ...],
    kind: str,
    where: tuple[str, ...],
    order: str | None,
    limit: int,
    after: str | None,
    count: bool,
    facet: str | None,
    archived: bool,
    explain: bool,
    as_of: str | None,
    branch: str,
    index: str | None,
) -> None:
    """Find memories and other aggregates by words and fields.

    TEXT are words that all stand in the text, "a phrase", or the beginning of a word*.
    """
    (type,) = types_of([kind])
    wanted = condition(type, where)
    match = " ".join(words)
    with _recall(front, branch, index, type.context) as recall:
        how: dict[str, Any] = {"match": match, "as_of": as_of, "archived": archived}
        if count:
            total = recall.count(type.cls, wanted, **how)
            _one(front, "find", "count", total, str(total))
            return
        if facet is not None:
            rows = recall.facets(type.cls, facet, wanted, **how)
            values = [{"value": value, "count": number} for value, number in rows]
            if front.out.json:
                front.out.document("find", facets=values)
            else:
                front.out.lines(f"{number}\t{printable(str(v))}" for v, number in rows)
            return
        page = recall.find(type.cls, wanted, order=order, limit=limit, after=after, **how)
        plan = recall.explain(type.cls, wanted, order=order, match=match) if explain else []
        if front.out.json:
            front.out.document(
                "find",
                seq=page.seq,
                items=[_fields(value) for value in page.items],
                cursor=page.cursor,
                plan=plan,
            )
            return
        pieces = recall.snippets(page.items, match) if match else None
        front.out.lines(map(aggregate_line, page.items, pieces or repeat(None)))
        for step in plan:
            front.out.note(step)
        if page.cursor is not None:
            front.out.note(f"more: --after {page.cursor}")
        _tell(front, recall)


def _one(front: Front, schema: str, key: str, value: Any, text: str) -> None:
    if front.out.json:
        front.out.document(schema, **{key: value})
    else:
        front.out.line(text)


def _fields(value: Aggregate) -> dict[str, Any]:
    fields = row_of(value)["fields"]
    return {"type": type_of(value.__class__).name, "id": value.id, "fields": fields}


@click.command("recall", cls=CasCommand)
@click.argument("query", metavar="QUERY")
@click.option("--agent", metavar="NAME", help="Only what this agent remembers.")
@click.option("--budget", type=int, default=2000, metavar="TOKENS", help="Room to fill (2000).")
@click.option("--vocabulary", metavar="NAME", help="Count tokens exactly: o200k_base, cl100k_base.")
@click.option("--pin", multiple=True, metavar="TYPE:ID", help="Given first, and never left out.")
@click.option("--type", "kinds", multiple=True, metavar="TYPE", help="What to recall (memory).")
@click.option("-w", "--where", multiple=True, metavar="FIELD=VALUE", help="Also != < <= > >= ^.")
@click.option("--archived", is_flag=True, help="Archived ones too.")
@click.option("--trusted", is_flag=True, help="Nothing that is labelled untrusted.")
@click.option("--receipt", is_flag=True, help="Keep a receipt of the answer.")
@click.option("--explain", is_flag=True, help="Tell scores, and what was left out and why.")
@_AS_OF
@_BRANCH
@_INDEX
@pass_front
def recall_command(
    front: Front,
    query: str,
    agent: str | None,
    budget: int,
    vocabulary: str | None,
    pin: tuple[str, ...],
    kinds: tuple[str, ...],
    where: tuple[str, ...],
    archived: bool,
    trusted: bool,
    receipt: bool,
    explain: bool,
    as_of: str | None,
    branch: str,
    index: str | None,
) -> None:
    """Recall what fits a query, in a budget of tokens.

    The text is what a model would be shown; with --explain the reasons follow.
    """
    types = types_of(kinds or ("memory",))
    with _recall(front, branch, index, write=receipt, vocabulary=vocabulary) as recall:
        found = recall.recall(
            query,
            agent=agent,
            budget_tokens=budget,
            pinned=[Link.parse(text) for text in pin],
            types=[type.cls for type in types],
            where=condition(types[0], where),
            archived=archived,
            untrusted=not trusted,
            receipt=receipt,
            as_of=as_of,
        )
        if front.out.json:
            front.out.document("recall", **answer(found))
            return
        front.out.lines(safe(item.line) for item in found.items)
        if explain:
            front.out.lines(reasons(found))
        elif not found.items:
            front.out.note("; ".join(["nothing is recalled", *left_out_lines(found)]))
        for notice in found.notices:
            front.out.note(notice)
        if found.receipt is not None:
            front.out.note(f"receipt: {found.receipt}")
        _tell(front, recall)


def _tell_absent(front: Front, link: str | None) -> None:
    front.out.note(f"there is no {printable(link or '')}, and nothing links to it")


@click.command("links", cls=CasCommand)
@click.argument("link", metavar="[TYPE:ID]", required=False)
@click.option("--to", "backwards", is_flag=True, help="What links to it, not what it links to.")
@click.option("--depth", type=int, default=1, metavar="N", help="So many steps far (1).")
@click.option("--stale", is_flag=True, help="Everything that rests on a version that changed.")
@_AS_OF
@_BRANCH
@_INDEX
@pass_front
def links(
    front: Front,
    link: str | None,
    backwards: bool,
    depth: int,
    stale: bool,
    as_of: str | None,
    branch: str,
    index: str | None,
) -> None:
    """Show links between aggregates, and which went stale."""
    if (link is None) != stale:
        raise click.UsageError("Give TYPE:ID, or --stale without one.")
    there = True
    with _recall(front, branch, index, where_lives(link)) as recall:
        if link is None:
            found = [(each.because, each.link) for each in recall.stale(as_of=as_of)]
        else:
            ask = recall.links_to if backwards else recall.links_from
            start = Link.parse(link)
            found = [(each, each.source) for each in ask(start, depth=depth, as_of=as_of)]
            there = bool(found) or is_there(recall, start, as_of)
    rows = [
        {
            "source": str(source.loose),
            "field": each.field,
            "target": str(each.target),
            "stale": each.stale,
            "missing": each.missing,
            "depth": each.depth,
        }
        for each, source in found
    ]
    if front.out.json:
        front.out.document("links", links=rows, there=there)
        return
    if not there:
        _tell_absent(front, link)
    for row in rows:
        marks = "".join(f" ({name})" for name in ("stale", "missing") if row[name])
        front.out.line(printable(f"{row['source']} {row['field']} {row['target']}{marks}"))


@click.command("forget", cls=CasCommand)
@click.option("--plan", "plan_only", is_flag=True, help="Only tell what would be forgotten.")
@click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
@click.option("--type", "type_name", metavar="TYPE", default="memory", help="What (memory).")
@click.option("--agent", metavar="NAME", help="Only memories of this agent.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only memories of this kind.")
@click.option("--older-than", type=float, metavar="DAYS", help="Those written longer ago.")
@click.option("--faded-below", type=float, metavar="X", help="Those whose importance fell below.")
@click.option("--half-life", type=float, default=90.0, metavar="DAYS", help="Of importance (90).")
@click.option("--count-max", type=int, metavar="N", help="Keep the N most important, an agent.")
@click.option("--bytes-max", type=int, metavar="N", help="Keep as many as N bytes hold, an agent.")
@click.option("--remove-after", type=float, metavar="DAYS", help="Remove what was archived before.")
@_AUTHOR
@_BRANCH
@_INDEX
@pass_front
def forget(
    front: Front,
    plan_only: bool,
    yes: bool,
    type_name: str,
    agent: str | None,
    kinds: tuple[str, ...],
    older_than: float | None,
    faded_below: float | None,
    half_life: float,
    count_max: int | None,
    bytes_max: int | None,
    remove_after: float | None,
    author: str | None,
    branch: str,
    index: str | None,
) -> None:
    """Archive memories by policy; expired ones in any case.

    What is archived leaves recall and is still found with --archived; what is tagged pinned or
    held, or is linked to as evidence, stays. `cas undo` takes it back.
    """
    (type,) = types_of([type_name])
    policy = Policy(
        type=type.name,
        agent=agent,
        kinds=kinds,
        older_than_days=older_than,
        faded_below=faded_below,
        half_life_days=half_life,
        count_max=count_max,
        bytes_max=bytes_max,
        remove_after_days=remove_after,
    )
    if not plan_only and not yes:
        raise click.UsageError("Say --plan to see what would be forgotten, or --yes to do it.")
    with _recall(front, branch, index, type.context, write=not plan_only) as recall:
        plan = plan_forget(recall, policy)
        done = None
        if not plan_only:
            done = apply_forget(recall, plan, actor=author or default_author())
    if front.out.json:
        front.out.document(
            "forget",
            applied=done is not None,
            seq=None if done is None else done.seq,
            forgotten=[
                {"link": str(f.link), "action": f.action, "because": f.because, "content": f.text}
                for f in plan.forgotten
            ],
            kept=[{"link": str(link), "reason": why} for link, why in plan.kept],
            skipped=[] if done is None else [str(link) for link in done.skipped],
        )
        return
    front.out.lines(printable(preview(each)) for each in plan.forgotten)
    front.out.lines(printable(f"keep     {why:12} {link.id}") for link, why in plan.kept)
    front.out.note(plan.summary if done is None else f"entry {done.seq}: {plan.summary}")


@click.command("taint", cls=CasCommand)
@click.argument("source", metavar="[TYPE:ID]", required=False)
@click.option("--agent", metavar="NAME", help="Everything that this agent remembers.")
@click.option("--actor", metavar="NAME", help="Everything that this author committed.")
@click.option("--after", metavar="SEQ|TIME", help="Of these: only what came behind it.")
@click.option("--remove", is_flag=True, help="Remove it all, in one entry.")
@click.option("--revert", is_flag=True, help="Put back what it was before; remove the rest.")
@click.option("--distrust", is_flag=True, help="Label memories among it untrusted.")
@_AUTHOR
@_BRANCH
@_INDEX
@pass_front
def taint(
    front: Front,
    source: str | None,
    agent: str | None,
    actor: str | None,
    after: str | None,
    remove: bool,
    revert: bool,
    distrust: bool,
    author: str | None,
    branch: str,
    index: str | None,
) -> None:
    """Show everything that came from a source, and take it back.

    Without --remove, --revert or --distrust nothing is changed. Receipts tell who was shown any of
    it.
    """
    ways = {"remove": remove, "revert": revert, "distrust": distrust}
    asked: list[Any] = [name for name, is_asked in ways.items() if is_asked]
    if len(asked) > 1:
        raise click.UsageError(f"--{' and --'.join(asked)} do different things; give one.")
    with _recall(front, branch, index, write=bool(asked)) as recall:
        plan = plan_taint(
            recall,
            source=None if source is None else Link.parse(source),
            agent=agent,
            actor=actor,
            after=after,
        )
        there = source is None or bool(plan.tainted) or is_there(recall, Link.parse(source))
        done = None
        if asked:
            who = author or default_author()
            done = apply_taint(recall, plan, actor=who, action=asked[0])
    if front.out.json:
        front.out.document(
            "taint",
            applied=done is not None,
            seq=None if done is None else done.seq,
            tainted=[str(link) for link in plan.tainted],
            clean=[None if link is None else str(link) for link in plan.clean],
            receipts=[str(each.source) for each in plan.receipts],
            there=there,
            skipped=[] if done is None else [str(link) for link in done.skipped],
        )
        return
    front.out.lines(printable(str(link.loose)) for link in plan.tainted)
    front.out.lines(printable(f"shown: {each.source.loose}") for each in plan.receipts)
    if not there:
        _tell_absent(front, source)
    said = f"{len(plan.tainted)} tainted, shown in {len(plan.receipts)} receipts"
    front.out.note(said if done is None else f"entry {done.seq}: {said}")


COMMANDS: Final = {
    "find": find,
    "recall": recall_command,
    "links": links,
    "forget": forget,
    "taint": taint,
}
