"""Branches and tags: list, make, move, delete. Each change is one transaction.

Floor 8. Invariant: a ref is never moved or deleted by a request that has seen another target
than the one it had when the transaction began.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from cas.errors import NotFound, RefExists, RefNotFound
from cas.history.store import Store
from cas.history.view import Ref, View
from cas.model.ids import CommitId, ObjectId
from cas.model.names import HEADS, TAGS, branch_ref, short_ref, tag_ref
from cas.model.objects import Commit, Tag


@frozen
class Named:
    """A branch or tag with the commit it leads to; `commit` is None when that is gone.

    `tag` is the tag object of an annotated tag.
    """

    ref: Ref
    id: CommitId | None
    commit: Commit | None
    tag: Tag | None = None


@frozen
class Moved:
    """What became of a ref: `old` and `new` targets, None where there was or is none.

    `seq` is the journal entry that did it, None when nothing had to be done.
    """

    ref: str
    old: ObjectId | None
    new: ObjectId | None
    seq: int | None

    @property
    def short(self) -> str:
        """The name without `heads/` or `tags/`."""
        return short_ref(self.ref)


def list_refs(store: Store, prefix: str) -> Iterator[Named]:
    """Branches (`heads/`) or tags (`tags/`), ascending by name."""
    view = store.view()
    return (_named(view, ref) for ref in view.refs(prefix))


def _named(view: View, ref: Ref) -> Named:
    try:
        id = view.resolve(ref.target)
        return Named(ref, id, view.commit(id), view.annotation(ref))
    except NotFound:
        return Named(ref, None, None)


def make_branch(
    store: Store, name: str, revision: str, *, author: str, force: bool = False
) -> Moved:
    """Point a branch at the commit of a revision.

    Raises `RefExists` unless `force`, `InvalidName`, and what resolving a revision raises.
    """
    ref = branch_ref(name)
    target = store.resolve(revision)
    return _point(store, ref, target, author, f"branch {short_ref(ref)}", force=force)


def make_tag(
    store: Store, name: str, revision: str, *, author: str, message: str = "", force: bool = False
) -> Moved:
    """Point a tag at the commit of a revision; with a message an annotated one.

    Raises as `make_branch` does.
    """
    ref = tag_ref(name)
    target = store.resolve(revision)
    note = f"tag {short_ref(ref)}"
    return _point(store, ref, target, author, note, force=force, tag_message=message)


def _point(
    store: Store,
    ref: str,
    target: CommitId,
    author: str,
    message: str,
    *,
    force: bool,
    tag_message: str = "",
) -> Moved:
    # The view is newer than the transaction's base. A ref made or moved between the two is seen
    # here or found by the commit, which compares with the base: nothing is moved unseen.
    with store.begin(author=author, message=message) as tx:
        view = store.view()
        before = view.ref(ref)
        old = None if before is None else before.target
        if old is not None and not force:
            kind = "branch" if ref.startswith(HEADS) else "tag"
            raise RefExists(
                f"There is a {kind} {short_ref(ref)!r} already; choose another name, or move it "
                "with --force.",
                ref=ref,
                other=ref,
            )
        if old is None and not force:
            _refuse_twin(view, ref)
        if tag_message:
            tx.tag(short_ref(ref), target, tag_message)
        elif old == target:
            return Moved(ref, old, old, None)
        else:
            tx.move(ref, target)
        entry = tx.commit()
    return Moved(ref, old, entry.target(ref), entry.seq)


def _refuse_twin(view: View, ref: str) -> None:
    """Raise `RefExists` where the short name of a new ref would name two things from then on."""
    short, is_branch = short_ref(ref), ref.startswith(HEADS)
    other = (TAGS if is_branch else HEADS) + short
    if view.ref(other) is not None:
        raise RefExists(
            f"There is a {'tag' if is_branch else 'branch'} {short!r} already, and {short!r} would "
            "then be either; choose another name, or have both with --force and write heads/ or "
            "tags/ before it.",
            ref=ref,
            other=other,
        )


def delete_ref(store: Store, ref: str, *, author: str) -> Moved:
    """Delete a branch or tag by full name; what it pointed at stays in the journal.

    Raises `RefNotFound`, `RefConflict`.
    """
    kind = "branch" if ref.startswith(HEADS) else "tag"
    with store.begin(author=author, message=f"delete {kind} {short_ref(ref)}") as tx:
        found = store.view().ref(ref)
        if found is None:
            raise RefNotFound(
                f"There is no {kind} {short_ref(ref)!r}; `cas {kind}` lists what there is.",
                ref=ref,
            )
        tx.delete(ref)
        entry = tx.commit()
    return Moved(ref, found.target, None, entry.seq)
