"""How a caller names a moment: an entry, a time, or either as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

import cas
from cas.errors import Invalid, InvalidId, InvalidName
from cas.history.store import Store
from tests.unit.kit import write


def test_a_moment_is_an_entry_or_a_time(store: Store) -> None:
    """All forms lead to the same state."""
    write(store, "main", {"a": b"1"})
    entry = store.entry(store.view().seq)
    write(store, "main", {"a": b"2"})
    then = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=entry.time_us)
    forms = [
        entry.seq,
        str(entry.seq),
        then,
        then.isoformat(),
        then.astimezone(timezone(timedelta(hours=5))),
        then.replace(tzinfo=None).isoformat(),
    ]
    for form in forms:
        assert store.at(form).seq == entry.seq
        assert cas.Workspace(store).at(form).seq == entry.seq
    assert store.at(time_us=entry.time_us).seq == entry.seq


@pytest.mark.parametrize("form", [1.5, True, "someday", b"1", None, object()])
def test_what_is_no_moment_is_refused(store: Store, form: object) -> None:
    """By an error that says what is one."""
    with pytest.raises(Invalid, match=r"moment|sequence number"):
        store.at(form)  # type: ignore[arg-type]


def test_a_datetime_without_a_zone_is_refused(store: Store) -> None:
    """`datetime.now()` is that of the host, and would be taken for another hour."""
    write(store, "main", {"a": b"1"})
    for ask in (store.at, cas.Workspace(store).at):
        with pytest.raises(Invalid, match="needs a zone"):
            ask(datetime.now())


def test_what_is_no_name_is_refused(store: Store) -> None:
    """Never by an error of Python's own."""
    write(store, "main", {"a": b"1"})
    with pytest.raises(InvalidId):
        store.get(None)  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        list(store.diff(None, "main"))  # type: ignore[arg-type]
    with store.begin() as tx, pytest.raises(InvalidName):
        tx.branch("main")[5] = b"x"  # type: ignore[index]
    with cas.Recall(store, embedder=None) as recall, pytest.raises(Invalid):
        recall.recall(None)  # type: ignore[arg-type]
