"""Links between aggregates: from, to, onwards, and which of them have gone stale.

Floor 7. Invariant: a link is stale when it is pinned to a version and its target has another one,
or none, in the state that is asked about; what was made from something stale is stale too, and says
through what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import frozen

from cas.model.ids import BlobId
from cas.recall.database import Database
from cas.workspace.links import Link

DEPTH_MAX: Final = 64


@frozen
class Linked:
    """A link that an aggregate has. Both ends are pinned: `source` to the version that has the
    link, `target` to that which it was made against, if it says so. `depth` is 1 for a direct one.
    """

    source: Link
    field: str
    target: Link
    stale: bool
    missing: bool
    depth: int


@frozen
class Stale:
    """An aggregate that rests on what has changed. `because` is the link that went stale."""

    link: Link
    because: Linked
    depth: int


_SELECT: Final = (
    "SELECT s.type_name, s.id, s.blob, f.name, l.type, l.id, l.pin, t.blob FROM "
    "(SELECT i.doc, n.name AS type_name, i.id, i.blob FROM @item i JOIN @name n ON n.code = i.type "
    "WHERE i.since <= :seq AND coalesce(i.until, :seq + 1) > :seq AND {source}) s "
    "CROSS JOIN @link l JOIN @name f ON f.code = l.field "
    "LEFT JOIN @name tn ON tn.name = l.type "
    "LEFT JOIN @item t ON t.id = l.id AND t.type = tn.code AND t.since <= :seq "
    "AND coalesce(t.until, :seq + 1) > :seq "
    "WHERE l.doc = s.doc AND {test} ORDER BY 1, 2, 4, 5, 6"
)


def links_from(db: Database, link: Link, seq: int, depth: int) -> list[Linked]:
    """What an aggregate links to, and what that links to, `depth` steps far."""
    return _walk(db, link, seq, depth, _from_one, lambda found: found.target)


def links_to(db: Database, link: Link, seq: int, depth: int) -> list[Linked]:
    """What links to an aggregate, and what links to that."""
    return _walk(db, link, seq, depth, _to_one, lambda found: found.source)


def _walk(
    db: Database,
    link: Link,
    seq: int,
    depth: int,
    step: Callable[[Database, Link, int, int], list[Linked]],
    onwards: Callable[[Linked], Link],
) -> list[Linked]:
    seen = {(link.type, link.id)}
    found: list[Linked] = []
    front = [link]
    for at in range(1, min(depth, DEPTH_MAX) + 1):
        after: list[Link] = []
        for each in front:
            for one in step(db, each, seq, at):
                found.append(one)
                end = onwards(one)
                if (end.type, end.id) not in seen:
                    seen.add((end.type, end.id))
                    after.append(end)
        front = after
    return found


def _from_one(db: Database, link: Link, seq: int, depth: int) -> list[Linked]:
    sql = _SELECT.format(source="i.id = :id AND n.name = :type", test="TRUE")
    return _rows(db, sql, {"seq": seq, "id": link.id, "type": link.type}, depth)


def _to_one(db: Database, link: Link, seq: int, depth: int) -> list[Linked]:
    source = "i.doc IN (SELECT doc FROM @link WHERE id = :id AND type = :type)"
    sql = _SELECT.format(source=source, test="l.id = :id AND l.type = :type")
    return _rows(db, sql, {"seq": seq, "id": link.id, "type": link.type}, depth)


def _rows(db: Database, sql: str, values: dict[str, object], depth: int) -> list[Linked]:
    found = []
    for type, id, blob, field, to_type, to_id, pin, now in db.rows(sql, values):
        target = Link(to_type, to_id, None if pin is None else BlobId(pin))
        stale = pin is not None and pin != now
        source = Link(type, id, BlobId(blob))
        name = str(field).partition(".")[2]
        found.append(Linked(source, name, target, stale, now is None, depth))
    return found


def stale(db: Database, seq: int) -> list[Stale]:
    """Aggregates with a stale link, then those that link to them, and so on; each once."""
    sql = _SELECT.format(
        source="i.doc IN (SELECT doc FROM @link WHERE pin IS NOT NULL)",
        test="l.pin IS NOT NULL AND (t.blob IS NULL OR t.blob <> l.pin)",
    )
    first = _rows(db, sql, {"seq": seq}, 1)
    found: dict[tuple[str, str], Stale] = {}
    front: list[Stale] = []
    for each in first:
        _add(found, front, [Stale(each.source, each, 1)])
    for depth in range(2, DEPTH_MAX + 1):
        after: list[Stale] = []
        for known in front:
            above = _to_one(db, known.link, seq, depth)
            _add(found, after, (Stale(one.source, known.because, depth) for one in above))
        front = after
    return list(found.values())


def _add(found: dict[tuple[str, str], Stale], front: list[Stale], more: Iterable[Stale]) -> None:
    for each in more:
        key = (each.link.type, each.link.id)
        if key not in found:
            found[key] = each
            front.append(each)
