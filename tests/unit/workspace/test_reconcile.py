"""What becomes of a folder and its branch: every change goes exactly one way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cas.model.ids import BlobId, TreeId
from cas.model.objects import EntryKind, TreeEntry
from cas.workspace.reconcile import Side, decide, shape_clash

Parts = tuple[bytes, ...]


def entry(number: int) -> TreeEntry | None:
    """A file of its own for each number; 0 is none."""
    return TreeEntry(EntryKind.FILE, BlobId(bytes([number]) * 32), number) if number else None


STATES = st.dictionaries(
    st.sampled_from([(b"a",), (b"b",), (b"d", b"a"), (b"d", b"b"), (b"e",)]),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)


@given(STATES, st.sets(st.sampled_from([(b"a",), (b"b",), (b"d", b"a")])))
def test_every_change_goes_exactly_one_way(
    states: dict[Parts, tuple[int, int, int]], conflicts: set[Parts]
) -> None:
    """A path that one side changed goes to the other, or is held; one that both changed is equal
    or merged; one that nobody changed is in no list. Nothing is in two.
    """
    folder = {p: (entry(b), entry(f)) for p, (b, f, _s) in states.items() if b != f}
    store = {p: (entry(b), entry(s)) for p, (b, _f, s) in states.items() if b != s}
    plan = decide(folder, store, conflicts.__contains__)
    listed = [
        *(("taken", each.path) for each in plan.taken),
        *(("both", each.path) for each in plan.both),
        *(("equal", each.path) for each in plan.equal),
        *(("steps", each.path) for each in plan.steps),
        *(("held", path) for path in plan.held),
    ]
    expected = set()
    for path, (base, mine, theirs) in states.items():
        if base != mine:
            kind = "taken" if base == theirs else "equal" if mine == theirs else "both"
            expected.add((kind, path))
        elif base != theirs:
            expected.add(("held" if path in conflicts else "steps", path))
    assert sorted(listed) == sorted(expected)
    assert plan.outside == any(kind in ("taken", "both") for kind, _path in expected)
    for step in (*plan.taken, *plan.equal):
        assert (step.old, step.new) == folder[step.path]
    for both in plan.both:
        assert (both.base, both.folder) == folder[both.path]
        assert (both.base, both.store) == store[both.path]


def test_a_name_clashes_in_shape_unless_what_is_in_the_way_goes() -> None:
    """A file above, or a folder of the name, is in the way; what is removed is not."""
    tree = TreeEntry(EntryKind.TREE, TreeId(bytes(32)), 0)
    store: dict[Parts, TreeEntry | None] = {
        (b"f",): entry(1),
        (b"d",): tree,
        (b"d", b"x"): entry(1),
        (b"d", b"y"): entry(1),
    }

    def below(path: Parts) -> list[Parts]:
        return [each for each in store if each[: len(path)] == path and each != path]

    def clash(path: Parts, *removed: Parts) -> str | None:
        return shape_clash(path, frozenset(removed), store.get, below)

    assert clash((b"new",)) is clash((b"d", b"new")) is clash((b"d", b"x")) is None
    assert clash((b"none", b"deep", b"er")) is None
    assert clash((b"f", b"x")) == "the store has a file where its folder would be"
    assert clash((b"f", b"x"), (b"f",)) is None
    assert clash((b"d",)) == "the store has a folder of this name"
    assert clash((b"d",), (b"d", b"x")) == "the store has a folder of this name"
    assert clash((b"d",), (b"d", b"x"), (b"d", b"y")) is None


def test_sides_are_read_only_values() -> None:
    """Nothing to do gives an empty plan."""
    nothing: Side = {}
    plan = decide(nothing, nothing, lambda _path: True)
    assert (plan.taken, plan.both, plan.equal, plan.steps, plan.held) == ((), (), (), (), ())
