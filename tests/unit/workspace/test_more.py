"""Events, subscriptions, projections, streams, contexts and branches of a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import (
    AggregateConflict,
    AggregateExists,
    AggregateNotFound,
    EntryNotFound,
    HistoryLost,
    Invalid,
    InvalidName,
    InvalidRecord,
    LimitExceeded,
    NotAllowed,
    RefNotFound,
)
from cas.limits import WORK_ATTEMPTS_MAX
from cas.workspace.contexts import Context
from cas.workspace.events import Position
from cas.workspace.parts import part
from cas.workspace.planning import Sprint
from cas.workspace.projections import Projection
from cas.workspace.registry import aggregate
from cas.workspace.streams import Sourced, StreamEvent
from cas.workspace.subscriptions import carry, subscribe
from cas.workspace.workspace import Workspace


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    with cas.open(tmp_path / "s", create=True) as store:
        yield Workspace(store)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace in another store."""
    with cas.open(tmp_path / "t", create=True) as store:
        yield Workspace(store)


def say(space: Workspace, *types: str, actor: str = "a") -> cas.Entry:
    """Record events in one entry."""
    with space.unit_of_work(actor) as uow:
        for number, type in enumerate(types):
            uow.event(type, {"n": number}, context="planning")
        return uow.commit()


# -- events --------------------------------------------------------------------------------------


def test_events_are_read_from_any_position(space: Workspace) -> None:
    """Events come in order behind a position, of the types asked for, with their data whole."""
    say(space, "a.x", "b.y", "a.z")
    with space.unit_of_work("b", correlation="talk") as uow:
        uow.memories.note("x")
        uow.event("a.long", {"text": "y" * 5_000})
        uow.commit()
    assert [e.type for e in space.events()] == ["a.x", "b.y", "a.z", "a.long"]
    assert [e.id for e in space.events("1.0")] == ["1.1", "1.2", "2.0"]
    assert [e.id for e in space.events(1)] == ["2.0"]
    assert [e.type for e in space.events(types=["a.*"])] == ["a.x", "a.z", "a.long"]
    assert [e.type for e in space.events(types=["b.y"], limit=5)] == ["b.y"]
    last = list(space.events())[-1]
    assert (last.data, last.correlation) == ({"text": "y" * 5_000}, "talk")
    assert Position.parse(last.id) == last.position


def test_causes_are_passed_on(space: Workspace) -> None:
    """What an event causes names it, and belongs to the conversation of its cause."""
    say(space, "first")
    (first,) = space.events()
    with space.unit_of_work("b", cause=first) as uow:
        uow.event("second")
        uow.commit()
    second = list(space.events())[-1]
    assert (second.cause, second.correlation) == (first.id, first.id)
    with space.unit_of_work("c", cause=second) as uow:
        uow.event("third")
        uow.commit()
    assert list(space.events())[-1].correlation == first.id


# -- subscriptions -------------------------------------------------------------------------------


def test_a_subscription_goes_on_where_it_was(space: Workspace) -> None:
    """A named subscription hands out each event once, over restarts, with its effects."""
    say(space, "a.one", "b.two")

    def handler(event, uow):
        uow.memories.note(event.type, id=f"m{event.id}")

    assert subscribe(space, "notes", ["a.*"]).poll(handler) == 1
    say(space, "a.three")
    again = subscribe(space, "notes", ["a.*"])
    assert again.poll(handler) == 1
    assert again.poll(handler) == 0
    assert sorted(m.text for m in space.memories) == ["a.one", "a.three"]
    assert (again.saved.handled_count, again.position) == (2, Position(3, 0))


def test_a_batch_shares_a_commit(space: Workspace) -> None:
    """With `batch_count` several events take effect in one entry."""
    say(space, *(f"t{n}" for n in range(5)))
    before = space.store.view().seq
    seen = []
    subscription = subscribe(space, "batch")
    assert subscription.poll(lambda e, _u: seen.append(e.type), batch_count=3, limit=4) == 4
    assert seen == ["t0", "t1", "t2", "t3"]
    assert space.store.view().seq == before + 2


def test_an_event_that_cannot_be_handled_is_seen(space: Workspace) -> None:
    """A handler that keeps raising makes a dead letter; the others go on; a retry clears it."""
    say(space, "good", "bad", "good")
    tries = []

    def handler(event, uow):
        tries.append(event.type)
        uow.memories.note(event.type)
        if event.type == "bad":
            raise ValueError("no idea")

    subscription = subscribe(space, "s", attempts_max=2)
    assert subscription.poll(handler) == 3
    assert tries == ["good", "bad", "bad", "good"]
    assert [m.text for m in space.memories] == ["good", "good"]
    (letter,) = subscription.dead_letters()
    assert (letter.type, letter.error, letter.attempts) == ("bad", "ValueError: no idea", 2)
    assert subscription.saved.dead_count == 1
    with pytest.raises(ValueError, match="no idea"):
        subscription.retry(letter, handler)
    subscription.retry(letter, lambda e, uow: uow.memories.note("mended", id="x"))
    assert list(subscription.dead_letters()) == []
    assert space.memories.get("x").text == "mended"


def test_replay_hands_out_again(space: Workspace) -> None:
    """Rewound to a position, a subscription hands out what is behind it once more."""
    say(space, "a", "b", "c")
    seen = []
    subscription = subscribe(space, "s")
    subscription.poll(lambda e, _u: seen.append(e.type))
    subscription.rewind("1.0")
    subscription.poll(lambda e, _u: seen.append(e.type))
    assert seen == ["a", "b", "c", "b", "c"]


def test_two_workers_share_a_subscription(space: Workspace) -> None:
    """Two of one name take turns: each event takes effect once, though both were handed it."""
    say(space, "a", "b")
    one, two = subscribe(space, "s"), subscribe(space, "s")

    def handler(event, uow):
        uow.memories.note(event.type)
        if event.type == "a" and one.position == Position():
            two.poll(lambda e, u: u.memories.note(e.type), limit=1)

    one.poll(handler)
    assert sorted(m.text for m in space.memories) == ["a", "b"]
    assert one.saved.handled_count == 2


def test_events_are_carried_once(space: Workspace, other: Workspace) -> None:
    """Events of one store come into another once each, whenever the carrier stopped."""
    say(space, "a.x", "b.y", actor="ada")
    assert carry(space, other, "from-s", ["a.*"]) == 1
    say(space, "a.z")
    assert carry(space, other, "from-s", ["a.*"]) == 1
    assert carry(space, other, "from-s", ["a.*"]) == 0
    first, second = other.events(types=["a.*"])
    assert (first.type, second.type) == ("a.x", "a.z")
    assert first.headers["carried-from"] == f"{space.store.id}/1.0"
    assert first.headers["carried-by"] == "ada"
    with pytest.raises(Invalid, match="reads the store"):
        carry(other, other, "from-s", ["a.*"])


def test_what_is_no_event_and_no_handler_is_refused(space: Workspace) -> None:
    """A handler that cannot be called makes no dead letter; an event about what is no aggregate, or
    of a context that cannot be, and a position that is none are refused before anything is staged.
    """
    say(space, "a.x")
    with pytest.raises(Invalid, match="handler"):
        subscribe(space, "r").poll(None)  # type: ignore[arg-type]
    assert list(subscribe(space, "r").dead_letters()) == []
    for position in (None, -1, True, 1.0):
        with pytest.raises(Invalid, match="position"):
            list(space.events(position))  # type: ignore[arg-type]
    with space.unit_of_work("a") as uow:
        with pytest.raises(Invalid, match="is about an aggregate"):
            uow.event("a.y", about="sprint:s1")  # type: ignore[arg-type]
        with pytest.raises(InvalidName):
            uow.event("a.y", context="../x")
        uow.event("a.z")
        entry = uow.commit()
    assert [event.type for event in entry.events] == ["a.z"]


@pytest.mark.parametrize("types", [["*"], ["sprint*"], ["a.*.b"], [".*", "*.*"], [5]])
def test_what_no_type_of_event_can_be_is_refused(space: Workspace, types: list[str]) -> None:
    """It would match nothing, for ever and without a word."""
    with pytest.raises(Invalid, match="neither a type of event"):
        subscribe(space, "r", types)
    with pytest.raises(Invalid, match="neither a type of event"):
        list(space.events(types=types))


@pytest.mark.parametrize("batch_count", [1, 3])
def test_a_handler_that_can_never_commit_makes_a_dead_letter(
    space: Workspace, batch_count: int
) -> None:
    """One that raises conflicts, or changes what it has read by another unit of work, is not called
    for ever; the events around it take effect.
    """
    say(space, "x.good", "x.raises", "x.disturbs", "x.good")
    with space.unit_of_work("a") as uow:
        uow.sprints.add(Sprint(id="s", name="S"))
        uow.commit()
    calls = []

    def handle(event: cas.DomainEvent, uow: cas.UnitOfWork) -> None:
        calls.append(event.type)
        if event.type == "x.good":
            uow.memories.note("good", id=f"m{event.position.index}")
        elif event.type == "x.raises":
            raise AggregateConflict("no", type="t", id="i", conflicts=(), removed="")
        else:
            uow.sprints.get("s")
            with space.unit_of_work("b") as beside:
                beside.sprints.save(beside.sprints.get("s").note("again"))
                beside.commit()

    subscription = subscribe(space, "r", ["x.*"])
    assert subscription.poll(handle, batch_count=batch_count) == 4
    assert subscription.poll(handle) == 0
    letters = [(each.type, each.error.split(":")[0]) for each in subscription.dead_letters()]
    assert letters == [("x.raises", "AggregateConflict"), ("x.disturbs", "AggregateConflict")]
    assert all(each.attempts == WORK_ATTEMPTS_MAX for each in subscription.dead_letters())
    assert [memory.id for memory in space.memories] == ["m0", "m3"]
    assert calls.count("x.disturbs") <= 2 * WORK_ATTEMPTS_MAX


def test_a_dead_letter_is_tried_again_only_by_its_own_subscription(space: Workspace) -> None:
    """A letter of another name, one that is gone, and one whose event the source does not have are
    refused before the handler is called.
    """
    say(space, "a.x", "a.x")

    def fails(_event, _uow):
        raise ValueError("no")

    called: list[int] = []

    def counts(_event, _uow):
        called.append(1)

    mine = subscribe(space, "r", attempts_max=1)
    assert mine.poll(fails) == 2
    first, second = mine.dead_letters()
    with pytest.raises(Invalid, match="not of 'other'"):
        subscribe(space, "other").retry(first, counts)
    with pytest.raises(HistoryLost, match=r"no event a\.x at 1\.7"):
        mine.retry(second.evolve(index=7), counts)
    mine.retry(second, counts)
    with pytest.raises(AggregateNotFound):
        mine.retry(second, counts)
    assert called == [1]
    assert list(mine.dead_letters()) == [first]


def test_a_projection_is_a_function_and_a_position(space: Workspace) -> None:
    """A projection folds on from where it was, and gives the same from the first event on."""

    def count(state, event):
        return {**state, event.type: state.get(event.type, 0) + 1}

    projection = Projection(space, "counts", count, {}, ["a", "b"])
    say(space, "a", "b", "c")
    assert projection.catch_up() == {"a": 1, "b": 1}
    entry = say(space, "a")
    assert projection.value == {"a": 1, "b": 1}
    assert projection.catch_up() == projection.rebuild() == {"a": 2, "b": 1}
    assert projection.rebuild(as_of=entry.seq - 1) == {"a": 1, "b": 1}
    assert projection.rebuild(as_of=Position(1, 0)) == projection.rebuild(as_of="1.0") == {"a": 1}
    with pytest.raises(Invalid, match="position"):
        projection.rebuild(as_of=-1)


def test_a_fold_may_change_its_state_in_place(space: Workspace) -> None:
    """A projection that began with a list or a map begins with the same one each time, though its
    function changes what it is given.
    """

    def collect(state, event):
        state.append(event.type)
        return state

    said: list[str] = []
    projection = Projection(space, "said", collect, said)
    say(space, "a", "b")
    assert projection.catch_up() == ["a", "b"]
    assert projection.rebuild() == projection.rebuild() == ["a", "b"]
    assert said == []


# -- streams -------------------------------------------------------------------------------------


@aggregate("t_account", collection="t_accounts", context="bank", event_sourced=True)
class Account(Sourced):
    """An aggregate that is the sum of its events."""

    balance: int = part(default=0)

    def apply(self, event: StreamEvent) -> Account:
        """The account after an event."""
        change = event.data["amount"] * (1 if event.type == "deposited" else -1)
        if self.balance + change < 0:
            raise Invalid("An account is never below zero.")
        return self.evolve(balance=self.balance + change)


def test_an_event_sourced_aggregate_is_its_events(space: Workspace) -> None:
    """State is saved with the events, the fold gives the same at every moment and version."""
    with space.unit_of_work("a") as uow:
        account = uow.emit(Account.begin("x"), "deposited", {"amount": 10})
        uow.emit(account, "withdrawn", {"amount": 3})
        first = uow.commit()
    with space.unit_of_work("b") as uow:
        account = uow.emit(uow.get(Account, "x"), "deposited", {"amount": 5})
        with pytest.raises(Invalid, match="below zero"):
            uow.emit(account, "withdrawn", {"amount": 99})
        uow.commit()
    assert space.collection(Account).get("x") == space.rebuild(Account, "x")
    assert space.rebuild(Account, "x").balance == 12
    assert space.at(first.seq).rebuild(Account, "x").balance == 7
    assert space.rebuild(Account, "x", version=1).balance == 10
    assert [e.type for e in space.stream(Account, "x")] == ["deposited", "withdrawn", "deposited"]
    assert [e.type for e in space.events(first.seq)] == ["t_account.deposited"]
    with pytest.raises(AggregateNotFound):
        space.rebuild(Account, "nobody")


def test_an_event_upon_an_older_state_of_the_same_unit_is_refused(space: Workspace) -> None:
    """It would take the place of the one before it in the stream, which the journal tells."""
    with space.unit_of_work("a") as uow:
        begun = Account.begin("x")
        account = uow.emit(begun, "deposited", {"amount": 10})
        for older in (begun, Account.begin("x")):
            with pytest.raises(Invalid, match="go on from what that `emit` gave"):
                uow.emit(older, "deposited", {"amount": 5})
        uow.emit(account, "deposited", {"amount": 5})
        uow.commit()
    with space.unit_of_work("a") as uow:
        account = uow.get(Account, "x")
        uow.emit(account, "withdrawn", {"amount": 1})
        with pytest.raises(Invalid, match="go on from what that `emit` gave"):
            uow.emit(account, "withdrawn", {"amount": 2})
        uow.commit()
    assert space.collection(Account).get("x") == space.rebuild(Account, "x")
    assert space.rebuild(Account, "x").balance == 14
    assert [e.number for e in space.stream(Account, "x")] == [1, 2, 3]
    assert len(list(space.events())) == 3
    with space.unit_of_work("a") as uow:
        account = uow.get(Account, "x")
        uow.remove(account)
        with pytest.raises(Invalid, match="begin it anew"):
            uow.emit(account, "deposited", {"amount": 5})
        uow.emit(Account.begin("x"), "deposited", {"amount": 2})
        uow.commit()
    assert space.collection(Account).get("x") == space.rebuild(Account, "x")
    assert space.rebuild(Account, "x").balance == 2


def test_two_writers_of_one_stream_conflict(space: Workspace) -> None:
    """The second of two units that add to one stream is refused; `run` decides anew."""
    with space.unit_of_work("a") as uow:
        uow.emit(Account.begin("x"), "deposited", {"amount": 10})
        uow.commit()
    slow = space.unit_of_work("slow")
    slow.emit(slow.get(Account, "x"), "deposited", {"amount": 1})

    def fast(uow):
        return uow.emit(uow.get(Account, "x"), "deposited", {"amount": 2})

    assert space.run(fast, "fast").balance == 12
    with pytest.raises(AggregateConflict):
        slow.commit()
    assert space.rebuild(Account, "x") == space.collection(Account).get("x")


def test_only_events_change_an_event_sourced_aggregate(space: Workspace) -> None:
    """A state that does not follow from events is refused, and so are events of what has none; a
    removed one ends with its stream, and another of its id begins anew.
    """
    with space.unit_of_work("a") as uow:
        account = uow.emit(Account.begin("x"), "deposited", {"amount": 10})
        for change in (uow.save, uow.add, uow.collection(Account).save):
            with pytest.raises(Invalid, match=r"uow\.emit"):
                change(account.evolve(balance=99))
        with pytest.raises(Invalid, match="does not follow from its events"):
            uow.emit(Sprint(id="s", name="s"), "started")  # type: ignore[type-var]
        with pytest.raises(Invalid, match="map of plain values"):
            uow.emit(account, "deposited", [1])  # type: ignore[arg-type]
        uow.emit(account, "deposited", {"amount": 1})
        both = uow.commit()
    with pytest.raises(Invalid, match="does not follow"):
        space.rebuild(Sprint, "s")  # type: ignore[type-var]
    with pytest.raises(Invalid, match="first version"):
        space.rebuild(Account, "x", version=0)
    with space.unit_of_work("a") as uow:
        uow.remove(uow.get(Account, "x"))
        gone = uow.commit()
    with pytest.raises(AggregateNotFound):
        space.rebuild(Account, "x")
    with space.unit_of_work("a") as uow:
        first = uow.emit(Account.begin("x"), "deposited", {"amount": 3})
        uow.remove(first)
        again = uow.emit(Account.begin("x"), "deposited", {"amount": 2})
        uow.commit()
    assert again.version == 1
    assert space.rebuild(Account, "x") == space.collection(Account).get("x") == again
    assert space.rebuild(Account, "x", as_of=both.seq).balance == 11
    with pytest.raises(AggregateNotFound):
        space.rebuild(Account, "x", as_of=gone.seq)
    with pytest.raises(EntryNotFound):
        space.rebuild(Account, "x", as_of=99)


def test_a_decision_on_an_older_state_is_not_counted_twice(space: Workspace) -> None:
    """An event that is emitted on a state that others have gone beyond is refused, also where both
    look the same: two deposits of one amount are two.
    """
    with space.unit_of_work("a") as uow:
        uow.emit(Account.begin("x"), "deposited", {"amount": 10})
        uow.commit()
    old = space.collection(Account).get("x")
    with space.unit_of_work("b") as uow:
        uow.emit(old, "deposited", {"amount": 2})
        uow.commit()
    for how in ("raise", "keep"):
        with (
            space.unit_of_work("c", on_conflict=how) as uow,  # type: ignore[arg-type]
            pytest.raises(AggregateConflict),
        ):
            uow.emit(old, "deposited", {"amount": 2})
    with space.unit_of_work("c") as uow:
        uow.emit(uow.get(Account, "x"), "deposited", {"amount": 2})
        uow.commit()
    assert space.rebuild(Account, "x") == space.collection(Account).get("x")
    assert space.rebuild(Account, "x").balance == 14


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["emit", "stale", "remove", "both"]),
            st.sampled_from(["x", "y"]),
            st.integers(1, 3),
        ),
        max_size=12,
    )
)
@settings(max_examples=30)
def test_the_fold_is_the_record_at_every_entry(steps: list[tuple[str, str, int]]) -> None:
    """Whatever is emitted, on newer and older states, removed and begun anew, the fold of the
    events gives the record at every entry, and an event that was accepted is counted once.
    """
    with cas.open(":memory:", create=True) as store:
        space = Workspace(store)
        known: dict[str, Account] = {}
        for verb, id, amount in steps:
            with space.unit_of_work("a") as uow:
                found = uow.find_one(Account, id)
                if verb == "remove":
                    if found is None:
                        continue
                    uow.remove(found)
                else:
                    state = known.get(id, found) if verb == "stale" else found
                    state = state or Account.begin(id)
                    try:
                        for _ in range(1 + (verb == "both")):
                            state = uow.emit(state, "deposited", {"amount": amount})
                    except (AggregateConflict, AggregateExists):
                        continue
                uow.commit()
            if found is not None:
                known[id] = found
        for seq in range(store.view().seq + 1):
            then = space.at(seq)
            for each in then.collection(Account):
                events = list(then.stream(Account, each.id))
                assert then.rebuild(Account, each.id) == each
                assert each.balance == sum(event.data["amount"] for event in events)
                assert [event.number for event in events] == list(range(1, each.version + 1))


# -- contexts ------------------------------------------------------------------------------------


def test_a_declared_context_has_limits(space: Workspace) -> None:
    """Types and lengths that a context does not allow are refused; others are as before."""
    space.declare(Context(id="planning", types=frozenset({"project"})), "admin")
    space.declare(Context(id="memory", record_bytes_max=250), "admin")
    with space.unit_of_work("a") as uow:
        with pytest.raises(NotAllowed, match="does not hold sprint"):
            uow.sprints.save(Sprint(id="s", name="S"))
        with pytest.raises(LimitExceeded, match="allows 250"):
            uow.memories.note("x" * 200)
        uow.memories.note("short")
        uow.commit()
    space.declare(space.contexts()["planning"].evolve(types=frozenset({"sprint"})), "admin")
    with space.unit_of_work("a") as uow:
        uow.sprints.save(Sprint(id="s", name="S"))
        uow.commit()
    for wrong in ({"id": "a b"}, {"id": "x", "record_bytes_max": 0}):
        with pytest.raises((cas.Invalid, InvalidRecord)):
            Context(**wrong)
    with pytest.raises(Invalid):
        Context(id="x", publishes=frozenset({"not a type"}))


def test_a_context_sees_what_others_publish(space: Workspace) -> None:
    """A context reads its own events and the published ones of others."""
    space.declare(Context(id="planning", publishes=frozenset({"sprint.*"})), "admin")
    say(space, "sprint.closed", "secret.told")
    with space.unit_of_work("a") as uow:
        uow.event("note.made", about=uow.memories.note("x"))
        uow.commit()
    seen = [e.type for e in space.events(seen_by="memory")]
    assert seen == ["sprint.closed", "note.made"]
    assert [e.type for e in space.events(seen_by="planning")] == ["sprint.closed", "secret.told"]


# -- branches ------------------------------------------------------------------------------------


def put_sprint(space: Workspace, **fields: object) -> None:
    """Make or change the sprint s1."""
    with space.unit_of_work("a") as uow:
        old = uow.sprints.find_one("s1")
        made = Sprint(id="s1", name="One") if old is None else old
        uow.sprints.save(made.evolve(**fields))
        uow.commit()


def test_a_branch_is_tried_and_merged(space: Workspace) -> None:
    """What an agent does on its branch is seen there alone, and comes back merged, in one entry
    with both parents.
    """
    put_sprint(space, notes=("base",))
    with space.unit_of_work("a") as uow:
        uow.artifacts.put("doc", b"1\n2\n3\n")
        uow.commit()
    branch = space.branch("try/agent-7", actor="agent-7")
    put_sprint(branch, notes=("base", "theirs"))
    with branch.unit_of_work("agent-7") as uow:
        uow.artifacts.put("doc", b"1\n2\n3 theirs\n")
        uow.memories.note("found it")
        uow.commit()
    put_sprint(space, notes=("base", "ours"), tags=frozenset({"x"}))
    with space.unit_of_work("a") as uow:
        uow.artifacts.put("doc", b"1 ours\n2\n3\n")
        uow.commit()
    assert list(space.memories) == []
    before = space.store.view().seq
    done = space.merge("try/agent-7", actor="lead")
    assert space.store.view().seq == before + 1
    assert done.merged_count >= 2
    found = space.sprints.get("s1")
    assert (found.notes, found.tags) == (("base", "ours", "theirs"), {"x"})
    assert space.artifacts.read("doc") == b"1 ours\n2\n3 theirs\n"
    assert space.artifacts.get("doc").size_bytes == len(b"1 ours\n2\n3 theirs\n")
    assert [m.text for m in space.memories] == ["found it"]
    assert len(space.store.commit("planning/main").parents) == 2
    assert space.merge("try/agent-7", actor="lead").entry is None
    assert space.branches() == ["main", "try/agent-7"]


def test_a_merge_that_clashes_is_refused_or_kept(space: Workspace) -> None:
    """A strict field that both branches changed refuses the merge whole, or becomes a conflict."""
    put_sprint(space)
    branch = space.branch("b", actor="x")
    put_sprint(branch, name="B", notes=("b",))
    put_sprint(space, name="A")
    with pytest.raises(AggregateConflict, match="'s1'"):
        space.merge("b", actor="x")
    assert space.sprints.get("s1").notes == ()
    space.merge("b", actor="x", on_conflict="keep")
    assert (space.sprints.get("s1").name, space.sprints.get("s1").notes) == ("A", ("b",))
    (conflict,) = space.conflicts()
    assert conflict.taking("incoming") == {"name": "B"}


def test_no_aggregate_is_a_renamed_one(space: Workspace) -> None:
    """A sprint that a branch removed, beside a new one that is like it: a change of the first is a
    conflict, and never goes to the second.
    """
    notes = tuple(f"a long note, number {number}" for number in range(20))
    put_sprint(space, notes=notes)
    branch = space.branch("b", actor="x")
    with branch.unit_of_work("x") as uow:
        old = uow.sprints.get("s1")
        uow.sprints.add(cas.Sprint(id="s2", name=old.name, notes=notes))
        uow.sprints.remove(old)
        uow.commit()
    put_sprint(space, notes=(*notes, "done"))
    with pytest.raises(AggregateConflict, match="'s1'"):
        space.merge("b", actor="x")
    assert space.store.plan_merge("planning/main", "planning/b").followed  # as files they are


def test_a_branch_is_dropped(space: Workspace) -> None:
    """A dropped branch is gone as a whole, the main one stays, and wrong names are told."""
    with pytest.raises(RefNotFound, match="nothing is in it"):
        space.branch("b")
    put_sprint(space)
    put_sprint(space.branch("b"), name="B")
    space.drop_branch("b", actor="x")
    assert space.branches() == ["main"]
    space.store.undo()
    assert Workspace(space.store, branch="b").sprints.get("s1").name == "B"
    with pytest.raises(Invalid):
        space.drop_branch("main", actor="x")
    with pytest.raises(RefNotFound):
        space.branch("c", create=False)
    with pytest.raises(RefNotFound):
        space.merge("c", actor="x")
    with pytest.raises(cas.CasError):
        space.branch("bad name")
    with pytest.raises(Invalid):
        space.merge("main", actor="x")


@aggregate("tally_of_branches", context="tallies")
class Tally(cas.Aggregate):
    """A sum."""

    count: int = part(default=0, rule="counter")


def test_a_context_that_began_on_both_branches_is_merged(space: Workspace) -> None:
    """A context that was empty when a branch was made, and has been begun on both since, merges:
    what one side has comes, and one aggregate that both made goes by the rules of its type.
    """
    put_sprint(space)
    branch = space.branch("b", actor="x")
    for each, text in ((space, "ours"), (branch, "theirs")):
        with each.unit_of_work("a") as uow:
            uow.memories.note(text, id=text)
            uow.save(Tally(id="t", count=2))
            uow.commit()
    space.merge("b", actor="x")
    assert sorted(space.memories.ids()) == ["ours", "theirs"]
    assert space.collection(Tally).get("t").count == 4
    assert space.merge("b", actor="x").entry is None
    with branch.unit_of_work("a") as uow:
        uow.memories.remove("theirs")
        uow.commit()
    space.merge("b", actor="x")
    assert list(space.memories.ids()) == ["ours"]


def test_a_branch_that_is_gone_is_not_begun_anew(space: Workspace) -> None:
    """Who still works on a branch that was dropped, or on a name that nobody made a branch of, is
    told; nothing appears that could not be merged.
    """
    put_sprint(space)
    stale = space.branch("b", actor="x")
    space.drop_branch("b", actor="x")
    for each in (stale, Workspace(space.store, branch="typo")):
        with pytest.raises(RefNotFound, match="has no branch"), each.unit_of_work("a") as uow:
            uow.memories.note("late")
    assert space.branches() == ["main"]
    assert Workspace(space.store).branch("b", actor="x").sprints.get("s1").name == "One"


def test_one_text_is_no_set_of_letters(space: Workspace) -> None:
    """Nothing is converted: a text where a set of texts belongs, and a memory without a text, are
    refused by the name of the field.
    """
    uow = space.unit_of_work("a")
    for refused, field in (
        (lambda: uow.memories.note("x", tags="abc"), "tags"),
        (lambda: uow.artifacts.put("x", b"", tags="abc"), "tags"),
        (lambda: uow.memories.note(" "), "text"),
    ):
        with pytest.raises(InvalidRecord) as caught:
            refused()
        assert caught.value.fields["field"] == field
    with pytest.raises(Invalid, match="a link to one"):
        uow.memories.note("x", supersedes="abc")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="a link to one"):
        uow.artifacts.put("x", b"", cites="abc")  # type: ignore[arg-type]
    uow.memories.note("y", tags=["abc"])
    uow.artifacts.put("y", b"", tags=(each for each in ("abc", "d")))
    uow.commit()
    assert space.artifacts.get("y").tags == {"abc", "d"}
    assert [path for path, _ in space.store.snapshot("artifacts/main").walk()] == [
        "artifacts/y",
        "files/y",
    ]
    assert [memory.tags for memory in space.memories] == [{"abc"}]


@pytest.mark.parametrize("id", ["a/b", "", "a\nb"])
def test_no_context_has_an_id_that_no_record_can_have(space: Workspace, id: str) -> None:
    """A context with such an id is refused, and the workspace is what it was."""
    with pytest.raises(InvalidName):
        space.declare(Context(id=id), "admin")
    assert space.contexts() == {}
    with space.unit_of_work("a") as uow:
        uow.memories.note("goes on")
        uow.commit()


def test_a_type_that_declares_its_id_anew_is_checked_too(space: Workspace) -> None:
    """An id with a slash is refused when it is saved, whatever the type says of ids."""

    @cas.aggregate("loose_id", context="support")
    class LooseId(cas.Aggregate):
        id: str = cas.part(default="a/b")

    with space.unit_of_work("a") as uow:
        with pytest.raises(InvalidName, match="slash"):
            uow.save(LooseId())
        uow.save(LooseId(id="fine"))
        uow.commit()
    assert [each.id for each in space.collection(LooseId)] == ["fine"]


@pytest.mark.parametrize("take", ["current", "incoming"])
@pytest.mark.parametrize("removes", ["branch", "main"])
def test_a_kept_artifact_keeps_its_content_when_a_branch_is_merged(
    space: Workspace, removes: str, take: str
) -> None:
    """One side removes an artifact of which the other changes the record alone: what is kept of it
    has its file, until the conflict is settled.
    """
    with space.unit_of_work("a") as uow:
        uow.artifacts.put("docs/a.md", b"text\n")
        uow.commit()
    branch = space.branch("try/b", actor="a")
    gone, stays = (branch, space) if removes == "branch" else (space, branch)
    with gone.unit_of_work("a") as uow:
        uow.artifacts.remove(uow.artifacts.get("docs/a.md"))
        uow.commit()
    with stays.unit_of_work("b") as uow:
        uow.artifacts.save(uow.artifacts.get("docs/a.md").evolve(title="A"))
        uow.commit()
    space.merge("try/b", actor="lead", on_conflict="keep")
    kept = space.artifacts.get("docs/a.md")
    assert (kept.title, kept.size_bytes) == ("A", 5)
    entry = space.store.snapshot("artifacts/main").entry("files/docs/a.md")
    assert entry is not None
    assert entry.id == kept.content
    (conflict,) = space.conflicts()
    with space.unit_of_work("lead") as uow:
        uow.settle(conflict, take=take)  # type: ignore[arg-type]
        uow.commit()
    removed = take == ("incoming" if removes == "branch" else "current")
    assert ("docs/a.md" in space.artifacts) is not removed
    found = space.store.snapshot("artifacts/main").entry("files/docs/a.md")
    assert (found is None) is removed
