"""Declaring a bounded context, and moving it to another store by that.

Floor 6. Invariant: the declaration and, where the context lived in the store of the workspace, the
removal of its branches there are one entry, made only while these stand as they were copied; so
whoever wrote there meanwhile is copied too, and whoever writes there later is refused. The rule of
retention that it declares is that of the store in which it lives: in the same entry where that is
the store of the workspace, else before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from cas.catalog.postgres_place import is_postgres
from cas.errors import Invalid, NotAllowed, RefConflict
from cas.history.keeping import stage_retention
from cas.history.merge import until_still
from cas.history.retention import RetentionPolicy
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.history.view import Ref
from cas.later import Later
from cas.model.entry import Entry
from cas.model.names import HEADS
from cas.workspace.contexts import HOME, Context, Declared, branches_of
from cas.workspace.layout import MAIN
from cas.workspace.placement import Places
from cas.workspace.reading import Reader
from cas.workspace.unit import Asked
from cas.workspace.work import UnitOfWork

if TYPE_CHECKING:
    from urllib import parse as parsing

    from cas.maintenance import copying
else:
    # Few contexts move.
    copying = Later("cas.maintenance.copying")
    parsing = Later("urllib.parse")


def declare(places: Places, context: Context, actor: str, *, force: bool = False) -> Entry:
    """Declare a context, or change what is declared of it; gives the entry.

    Where it is to live in another store than it does, its branches are copied there first. With
    `force` a store in which it lived outside of the workspace's own is left alone: for one that is
    gone. Raises `Invalid`, `NotAllowed`, what opening a store, copying and a commit raise.
    """
    context = context.evolve(store_id=_checked(places, context))
    return until_still(lambda: _declare(places, context, actor, force))


def _checked(places: Places, context: Context) -> str:
    """The id of the store in which a context is to live; empty for that of the workspace."""
    if not context.place:
        return ""
    if context.id == HOME:
        raise NotAllowed(
            f"The context {HOME!r} tells where all others live; it stays in the store of the "
            "workspace."
        )
    if is_postgres(context.place):
        parts = parsing.urlsplit(context.place)
        if parts.password is not None or "password" in parsing.parse_qs(parts.query):
            raise Invalid(
                "The address of a context stands in the store's history for good; leave the "
                "password out of it, and give it by PGPASSWORD or a file ~/.pgpass."
            )
    store = places.at(context.place)
    if store.id == places.home.id:
        raise Invalid(
            f"{context.place} is the store of the workspace itself; leave the place of "
            f"{context.id!r} empty."
        )
    return store.id


def _declare(places: Places, context: Context, actor: str, force: bool) -> Entry:
    home = places.home
    reader = Reader(home.core, home.view(), MAIN)
    asked = Asked(actor, f"context {context.id}", None, MAIN, "raise", {})
    with UnitOfWork(home, reader, asked, Declared().now(reader)) as uow:
        old = uow.find_one(Context, context.id)
        origin = home
        if old is not None and old.place:
            stays = force or old.store_id == context.store_id
            origin = places.store_of(context if stays else old)
        there = places.store_of(context)
        refs = _branches(origin, context.id)
        if refs and origin.id != there.id:
            _carry_over(origin, there, refs, actor)
        uow.save(context.evolve(origin=None if old is None else old.origin))
        if there is not home:
            _keep_there(there, old, context, actor)
        gone = context.evolve(retention=None) if there is not home else context
        _keep(home, uow.transaction, old, gone)
        if origin is home and there is not home:
            for ref in refs:
                uow.transaction.delete(ref.name)
            if _branches(home, context.id) != refs:
                raise RefConflict(
                    f"The branches of {context.id!r} moved while they were copied; try again.",
                    ref=f"{HEADS}{context.id}/{MAIN}",
                    expected=None,
                    actual=None,
                )
        return uow.commit()


def _keep_there(store: Store, old: Context | None, context: Context, actor: str) -> None:
    """Let another store keep what is declared, in an entry of its own, unless it does."""
    with store.begin(author=actor, message=f"retention of context {context.id}") as tx:
        if _keep(store, tx, old, context):
            tx.commit()


def _keep(store: Store, tx: Transaction, old: Context | None, context: Context) -> bool:
    """Stage the rule of a context in the policy of a store; whether there was anything to do.

    A rule that somebody else has set for its branches stands where none is declared.
    """
    policy = store.retention()
    pattern = branches_of(context.id)
    rules = {rule.pattern: rule for rule in (policy.rules if policy is not None else ())}
    if context.retention is not None:
        rule = context.retention.rule(context.id)
        if rules.get(pattern) == rule:
            return False
        stage_retention(store.core, tx, (policy or RetentionPolicy()).with_rule(rule))
        return True
    was = None if old is None or old.retention is None else old.retention.rule(context.id)
    if policy is None or was is None or rules.get(pattern) != was:
        return False
    left = evolve(policy, rules=tuple(r for r in policy.rules if r.pattern != pattern))
    stage_retention(store.core, tx, None if left == RetentionPolicy() else left)
    return True


def _branches(store: Store, context: str) -> list[Ref]:
    return store.view().refs(f"{HEADS}{context}/")


def _carry_over(origin: Store, there: Store, refs: Sequence[Ref], actor: str) -> None:
    names = [each.name for each in refs]
    copying.copy_refs(origin, there, names, author=actor, thinned=True)
