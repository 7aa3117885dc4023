"""What somebody means who asks why something is kept, or what has to go.

Floor 8. Invariant: nothing here writes.
"""

from __future__ import annotations

from cas.commands.target import resolve
from cas.errors import ObjectNotFound, RevisionNotFound, WrongKind
from cas.history.revision import split_path
from cas.history.store import Store
from cas.history.view import View
from cas.maintenance.why import Why, why
from cas.model.ids import ObjectId, is_abbreviation


def explain(store: Store, text: str) -> Why:
    """Why the object is kept that `REV`, `REV:PATH` or an id names. Raises as `named_object`."""
    return why(store, named_object(store, text))


def named_object(store: Store, text: str) -> ObjectId:
    """The object that `REV`, `REV:PATH` or an id names; a whole id need not exist.

    Raises `RevisionNotFound`, `PathNotFound`, `AmbiguousRevision`, `ObjectNotFound`.
    """
    view = store.view()
    revision, path = split_path(text)
    if path:
        return resolve(view, text).entry.id
    lowered = revision.lower()
    if is_abbreviation(lowered) and len(lowered) == 64:
        return ObjectId.parse(lowered)
    try:
        return ObjectId(view.resolve(revision))
    except (RevisionNotFound, WrongKind):
        if not is_abbreviation(lowered):
            raise
        return _find(store, view, revision)


def _find(store: Store, view: View, digits: str) -> ObjectId:
    """The object whose id begins so; of what was purged the tombstone still tells it."""
    try:
        return view.find(digits)
    except ObjectNotFound:
        gone = [stone.id for stone in store.purged() if stone.id.hex().startswith(digits.lower())]
        if len(gone) != 1:
            raise
        return gone[0]
