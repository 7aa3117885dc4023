"""Pins and protected refs: what is kept is kept, and no writer passes a rule by."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import cas
from cas.errors import (
    CorruptObject,
    Invalid,
    InvalidName,
    NotCanonical,
    ObjectNotFound,
    RefNotFound,
    RefProtected,
    RevisionNotFound,
)
from cas.history.policy import Protection, RefRule, decode_policy, encode_policy
from cas.history.store import Store
from cas.model.encoding import encode
from cas.model.ids import Kind, ObjectId
from cas.model.names import POLICY_REF
from tests.unit.kit import commits, reopened, write


def test_objects_of_every_kind_are_pinned(store: Store) -> None:
    """A revision, a blob, a directory and a tag are pinned with a reason, and listed by id."""
    write(store, "main", {"d/a": b"1"})
    with store.begin() as tx:
        tx.tag("v1", store.resolve("main"), "text")
        tx.commit()
    blob = store.put(b"loose")
    tree = store.commit("main").tree
    tag = store.tags()[0].target
    made = [
        store.pin("main", "release", author="ada"),
        store.pin(blob, "wanted"),
        store.pin(tree),
        store.pin(tag, "t"),
    ]
    assert [pin.kind for pin in made] == [Kind.COMMIT, Kind.BLOB, Kind.TREE, Kind.TAG]
    assert store.pins() == sorted(made, key=lambda pin: pin.id)
    assert (made[0].reason, made[0].author) == ("release", "ada")
    with reopened(store) as other:
        assert other.pins() == store.pins()
    assert [ref.short for ref in store.branches()] == ["main"]
    assert [ref.short for ref in store.tags()] == ["v1"]


def test_a_pin_is_changed_and_lifted(store: Store) -> None:
    """Pinning again changes the reason; unpinning is an entry, and what was not pinned is told."""
    blob = store.put(b"loose")
    store.pin(blob, "first")
    store.pin(str(blob), "second")
    assert [pin.reason for pin in store.pins()] == ["second"]
    entry = store.unpin(str(blob)[:12])
    assert entry.message.startswith("unpin")
    assert store.pins() == []
    assert len(store.at(1).refs("pins/")) == 1
    with pytest.raises(RefNotFound):
        store.unpin(blob)


def test_what_is_not_there_cannot_be_pinned(store: Store) -> None:
    """Unknown ids and revisions are refused, and no entry is made."""
    with pytest.raises(ObjectNotFound):
        store.pin(ObjectId(b"\1" * 32))
    with pytest.raises(RevisionNotFound):
        store.pin("nowhere")
    with pytest.raises(ObjectNotFound):
        store.pin("ab" * 32)
    assert store.view().seq == 0


def test_pins_are_no_place_for_other_refs(store: Store) -> None:
    """Only an id stands behind pins/, and only the rules at policy/refs."""
    write(store)
    head = store.resolve("main")
    for name in ("pins/x", "pins/" + "AB" * 32, "pins/" + "ab" * 31, "policy/x", "policy/refs/x"):
        with store.begin() as tx, pytest.raises(InvalidName):
            tx.move(name, head)


def break_rule(store: Store, act: str) -> None:
    """Delete main, move it back, move it on, or make a branch `made`."""
    with store.begin() as tx:
        if act == "delete":
            tx.delete("heads/main")
        elif act == "back":
            tx.move("heads/main", store.resolve("main~1"))
        elif act == "on":
            tx.branch("main")["more"] = act.encode()
        else:
            tx.move("heads/made", store.resolve("main"))
        tx.commit()


RULES = {
    "keep": {"delete"},
    "forward": {"delete", "back"},
    "frozen": {"delete", "back", "on", "made"},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("act", ["delete", "back", "on", "made"])
def test_a_rule_forbids_what_it_says(store: Store, rule: str, act: str) -> None:
    """keep: no deletion; forward: nor a move back; frozen: nothing. The rest goes on as before."""
    commits(store, 3)
    store.protect("ma*", rule)
    before = store.view()
    if act in RULES[rule]:
        with pytest.raises(RefProtected) as caught:
            break_rule(store, act)
        assert caught.value.fields["pattern"] == "heads/ma*"
        assert caught.value.fields["rule"] == rule
        assert store.view().seq == before.seq
        assert store.view().refs() == before.refs()
        store.unprotect("ma*")
    break_rule(store, act)
    assert store.view().seq > before.seq


def test_a_merge_leads_forward(store: Store) -> None:
    """A branch may move to a commit that has it among its ancestors, not only as first parent."""
    commits(store, 2)
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main~1"))
        tx.commit()
    write(store, "side", {"side": b"1"})
    store.merge("side", "main")
    store.protect("main")
    with store.begin() as tx:
        tx.move("heads/main", store.resolve("side"))
        tx.commit()
    with pytest.raises(RefProtected):
        break_rule(store, "back")


def test_rules_hold_for_every_handle_at_once(store: Store) -> None:
    """A transaction that was begun before a rule, in another handle, is refused at its commit."""
    write(store)
    with reopened(store) as other, other.begin() as tx:
        tx.delete("heads/main")
        store.protect("*", "keep")
        with pytest.raises(RefProtected):
            tx.commit()
        other.unprotect("*")
        with other.begin() as again:
            again.delete("heads/main")
            again.commit()
    assert store.branches() == []


def test_rules_are_listed_replaced_and_lifted(store: Store) -> None:
    """A pattern has one rule; tags are named in full; the last rule that goes leaves nothing."""
    write(store)
    store.protect("release/*")
    store.protect("tags/v*", RefRule.FROZEN)
    rules = store.protect("release/*", "keep")
    assert rules == store.protections()
    assert rules == (
        Protection("heads/release/*", RefRule.KEEP),
        Protection("tags/v*", RefRule.FROZEN),
    )
    with store.begin() as tx:
        tx.tag("v1", store.resolve("main"))
        with pytest.raises(RefProtected, match="made"):
            tx.commit()
    with pytest.raises(RefNotFound):
        store.unprotect("other")
    store.unprotect("tags/v*")
    assert store.unprotect("release/*") == ()
    assert store.view().ref(POLICY_REF) is None
    for bad in ("", "a\nb", "x" * 300):
        with pytest.raises(Invalid):
            store.protect(bad)
    with pytest.raises(Invalid):
        store.protect("a", "strict")


def test_rules_of_the_past_are_what_they_were(store: Store) -> None:
    """The journal shows who set a rule; an older state has the older rules."""
    write(store)
    store.protect("main", author="ada")
    store.unprotect("main", author="bob")
    entries = list(store.journal())
    assert [(e.actor, e.message) for e in entries[1:]] == [
        ("ada", "protect heads/main: forward"),
        ("bob", "unprotect heads/main"),
    ]
    assert store.at(2).ref(POLICY_REF) is not None


def test_rules_cannot_be_replaced_by_rubbish(store: Store) -> None:
    """What is no list of rules cannot be put in their place: it would stop every commit."""
    write(store)
    with store.begin() as tx:
        tx.move(POLICY_REF, store.resolve("main"))
        with pytest.raises(Invalid, match="no list of rules"):
            tx.commit()
    write(store, "main", {"x": b"2"})


@pytest.mark.parametrize(
    "value",
    [
        [2, [], {}],
        [1, [["a"]], {}],
        [1, [["a", "strict"]], {}],
        [1, [["a", 1]], {}],
        [1, {}, {}],
        {},
        [1, []],
    ],
)
def test_only_lists_of_rules_decode(value: object) -> None:
    """Another version, another shape, another rule: none is taken for a policy."""
    with pytest.raises(NotCanonical):
        decode_policy(encode(value))
    assert decode_policy(encode_policy([])) == ()


def test_a_ref_of_a_store_is_checked_by_fsck(store: Store) -> None:
    """Pins and rules are refs like any other to a check of the whole store."""
    from cas.maintenance.fsck.check import fsck

    write(store)
    store.pin(store.put(b"x" * 100), "why")
    store.protect("main")
    report = fsck(store)
    assert not report.findings


def test_a_protected_ref_is_no_reason_to_wait(tmp_path: Path) -> None:
    """Writers that are refused and writers that are not go on beside each other."""
    with cas.open(tmp_path / "s", create=True) as store:
        write(store)
        store.protect("main", "frozen")
        refused: list[RefProtected] = []

        def stubborn() -> None:
            for _ in range(20):
                try:
                    write(store, "main", {"x": b"2"})
                except RefProtected as error:
                    refused.append(error)

        threads = [threading.Thread(target=stubborn) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(20):
            write(store, "free", {"n": b"%d" % number})
        for thread in threads:
            thread.join()
        assert len(refused) == 40
        assert store.snapshot("free")["n"] == b"19"


def test_a_policy_that_is_damaged_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that cannot be read stop commits with an error that says so, never let them pass."""
    write(store)
    store.protect("main")
    from cas.history import policy

    def broken(data: bytes) -> tuple[Protection, ...]:
        raise NotCanonical("Damaged.", reason="x")

    with monkeypatch.context() as patched, reopened(store) as other:
        patched.setattr(policy, "decode_policy", broken)
        with pytest.raises(CorruptObject):
            write(other, "main", {"y": b"1"})
