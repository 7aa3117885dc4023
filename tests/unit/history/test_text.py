"""Lines in common, and the merge of three texts: laws that hold for any texts."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.history import text
from cas.history.text import Part, common, lines_of, merge_contents, merge_lines, merge_text

LINE = st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"}\n", b"\n"])
UNIQUE = st.integers(0, 40).map(lambda at: b"%d\n" % at)
LINES = st.one_of(st.lists(LINE, max_size=14), st.lists(UNIQUE, max_size=25))
CONTENT = st.one_of(
    st.builds(b"".join, LINES),
    st.builds(lambda lines, end: b"".join(lines) + end, LINES, st.sampled_from([b"a", b"end"])),
)


@given(LINES, LINES)
def test_common_lines_are_equal_ascend_and_do_not_touch(old: list[bytes], new: list[bytes]) -> None:
    """Every block holds equal lines, in order, and two blocks that touch would be one."""
    at = other = 0
    for number, block in enumerate(common(old, new)):
        assert block.size > 0
        assert old[block.old : block.old + block.size] == new[block.new : block.new + block.size]
        assert block.old >= at
        assert block.new >= other
        assert number == 0 or block.old > at or block.new > other
        at, other = block.old + block.size, block.new + block.size


@given(st.lists(LINE, max_size=14), st.lists(LINE, max_size=14))
def test_texts_without_anchors_are_compared_as_well_as_can_be(
    old: list[bytes], new: list[bytes]
) -> None:
    """Where no line is unique on both sides, as many lines as possible are found in common."""
    if any(old.count(line) == 1 == new.count(line) for line in old):
        return
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, line in enumerate(old):
        for j, other in enumerate(new):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if line == other else max(table[i][j + 1], table[i + 1][j])
            )
    longest = table[-1][-1]
    found = common(old, new)
    trimmed = old[:1] == new[:1] or old[-1:] == new[-1:]
    assert sum(block.size for block in found) == longest or trimmed


@given(LINES, LINES, LINES)
def test_no_line_is_lost_or_made_up(
    base: list[bytes], ours: list[bytes], theirs: list[bytes]
) -> None:
    """The parts of a merge, one after the other, are each of the three texts again."""
    parts = merge_lines(base, ours, theirs)
    assert [line for part in parts for line in part.base] == base
    assert [line for part in parts for line in part.ours] == ours
    assert [line for part in parts for line in part.theirs] == theirs


@given(CONTENT, CONTENT)
def test_a_side_that_did_nothing_changes_nothing(base: bytes, side: bytes) -> None:
    """merge(a, a, b) = merge(a, b, a) = merge(a, b, b) = b."""
    assert merge_text(base, base, side) == side
    assert merge_text(base, side, base) == side
    assert merge_text(base, side, side) == side


@given(CONTENT, CONTENT, CONTENT)
@example(b"a\n", b"a\nb", b"a\nc\n")
def test_merging_is_commutative(base: bytes, ours: bytes, theirs: bytes) -> None:
    """Both directions are clean or neither is, and clean ones give one text."""
    merged = merge_text(base, ours, theirs)
    assert merged == merge_text(base, theirs, ours)
    if merged is not None:
        for line in (lines_of(merged) or [])[:-1]:
            assert line.endswith(b"\n")


@given(st.lists(UNIQUE, min_size=1, max_size=12), st.data())
def test_changes_that_do_not_touch_are_both_made(keep: list[bytes], data: st.DataObject) -> None:
    """One side edits what stands before some lines, the other what stands behind: both are in."""
    middle = [b"m%d " % at + line for at, line in enumerate(keep)]
    first, last, new_first, new_last = (data.draw(st.lists(UNIQUE, max_size=6)) for _ in range(4))
    join = b"".join
    merged = merge_text(
        join(first + middle + last),
        join(new_first + middle + last),
        join(first + middle + new_last),
    )
    assert merged == join(new_first + middle + new_last)


def test_changes_that_touch_are_a_conflict() -> None:
    """Two changes of neighbouring lines, or two insertions at one place, are not put together."""
    assert merge_text(b"a\nb\n", b"A\nb\n", b"a\nB\n") is None
    assert merge_text(b"a\n", b"a\nx\n", b"a\ny\n") is None
    assert merge_text(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nC\n") == b"A\nb\nC\n"


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"a\n" * (4 << 20) + b"b"])
def test_what_is_no_text_stays_whole(content: bytes) -> None:
    """NUL bytes, bytes that are not UTF-8 and content beyond the limit are not merged by line."""
    assert lines_of(content) is None
    assert merge_text(content, b"a", b"b") is None
    assert merge_contents(b"a", b"b", content) is None


def test_lines_end_at_newlines_only() -> None:
    """A form feed, a carriage return and a line separator end no line."""
    content = "a\rb\x0cc\u2028d\r\ne".encode()
    assert lines_of(content) == ["a\rb\x0cc\u2028d\r\n".encode(), b"e"]


def test_markers_show_all_three_sides() -> None:
    """A text with markers has the clean parts once and each conflict with all its sides."""
    parts = merge_contents(b"1\n2\n3\n4", b"1\nx\n3\n4", b"0\n1\ny\n3\n4")
    assert parts is not None
    assert text.with_markers(parts, "main", "draft") == (
        b"0\n1\n<<<<<<< main\nx\n||||||| base\n2\n=======\ny\n>>>>>>> draft\n3\n4"
    )


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that only repeat a few lines end within the budget, and what is found is still true."""
    monkeypatch.setattr(text, "TEXT_DIFFERENCES_MAX", 10)
    old = [b"%d\n" % (at * at % 7) for at in range(3000)]
    new = [b"%d\n" % (at * 3 % 5) for at in range(3000)]
    parts = merge_lines(old, new, old)
    assert [line for part in parts for line in part.ours] == new
    assert [line for part in parts for line in part.clean or ()] == new


@given(LINES, LINES, LINES, st.integers(0, 60))
def test_what_the_budget_does_not_reach_counts_as_changed(
    base: list[bytes], ours: list[bytes], theirs: list[bytes], budget: int
) -> None:
    """With any budget the parts are the three texts, and what is clean is no less true."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "TEXT_WORK_MIN", budget)
        patch.setattr(text, "TEXT_WORK_FACTOR", 0)
        parts = merge_lines(base, ours, theirs)
        alone = merge_lines(base, base, theirs)
    assert [line for part in parts for line in part.base] == base
    assert [line for part in parts for line in part.ours] == ours
    assert [line for part in parts for line in part.theirs] == theirs
    assert [line for part in alone for line in part.clean or ()] == theirs


def test_a_moved_function_keeps_its_neighbours_together() -> None:
    """Anchors hold a real text together at least as well as the standard library does."""
    old = [b"def f():\n", b"    return 1\n", b"\n", b"def g():\n", b"    return 2\n", b"\n"]
    new = [b"import x\n", b"\n", *old, b"def h():\n", b"    return 3\n"]
    blocks = common(old, new)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    theirs = sum(match.size for match in matcher.get_matching_blocks())
    assert sum(block.size for block in blocks) == theirs == len(old)


def test_a_part_says_what_it_becomes() -> None:
    """A part is clean where the sides agree or one of them did nothing."""
    a, b, c = [b"a"], [b"b"], [b"c"]
    assert Part(a, a, b).clean == Part(a, b, a).clean == Part(a, b, b).clean == b
    assert Part(a, b, c).clean is None
