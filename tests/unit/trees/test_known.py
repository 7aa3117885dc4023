"""Looking up paths with what was found on the way remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cas.model.names import Path
from cas.trees.known import Known
from cas.trees.node import DIRECTORY
from cas.trees.paths import edit_paths, value_at
from tests.unit.trees.support import DictNodes, oracle, value_of

NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


def leaves_only(wanted: list[Path]) -> list[Path]:
    """Those of which none lies below another."""
    kept: list[Path] = []
    for path in wanted:
        if not any(path[: len(each)] == each or each[: len(path)] == path for each in kept):
            kept.append(path)
    return kept


@given(st.lists(PATHS, max_size=8), st.lists(PATHS, max_size=8), st.lists(PATHS, max_size=20))
def test_what_is_remembered_is_what_is_there(
    first: list[Path], second: list[Path], asked: list[Path]
) -> None:
    """Whatever was asked before, of this root or of another, the answer is that of the tree, and
    what was asked before loads nothing.
    """
    nodes = DictNodes()
    nodes.data[DIRECTORY.empty] = oracle({})[1][DIRECTORY.empty]
    roots = []
    for each in (first, second):
        files = {path: value_of(at) for at, path in enumerate(leaves_only(each))}
        roots.append(edit_paths(DIRECTORY.empty, files, nodes).root)
    known = Known(nodes)
    for root in (*roots, roots[0]):
        expected = [value_at(root, path, nodes) for path in asked]
        assert [known.look(root, path) for path in asked] == expected
        nodes.reset()
        assert [known.look(root, path) for path in asked] == expected
        assert not nodes.loaded
