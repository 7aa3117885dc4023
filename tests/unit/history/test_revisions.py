"""The grammar of revisions, ranges and targets; the history of a path."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import AmbiguousRevision, EntryNotFound, Invalid, RevisionNotFound
from cas.history.revision import Range, When, parse_range, parse_revision, parse_when, split_path
from cas.history.store import Store
from cas.model.ids import CommitId
from cas.model.objects import Commit
from tests.unit.kit import commits, write


@pytest.mark.parametrize(
    ("text", "name", "when", "steps"),
    [
        ("main", "main", None, ()),
        ("main@{5}", "main", When(5, None), ()),
        ("main@{5}~2^2", "main", When(5, None), (("~", 2), ("^", 2))),
        ("v1^{}", "v1", None, ()),
        ("v1^{commit}~1", "v1", None, (("~", 1),)),
        ("a/b@{1970-01-02}", "a/b", When(None, 86_400_000_000), ()),
        ("a@{1970-01-01T01:00:00+01:00}", "a", When(None, 0), ()),
    ],
)
def test_a_revision_has_a_name_a_moment_and_steps(
    text: str, name: str, when: When | None, steps: tuple[tuple[str, int], ...]
) -> None:
    """What people type comes apart as it is meant."""
    assert parse_revision(text) == (name, when, steps)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "~1",
        "@{1}",
        "main@{",
        "main@{}",
        "main@{x}",
        "main@{1}@{2}",
        "main~1@{2}",
        "main^{tree}",
    ],
)
def test_what_is_no_revision_is_refused(text: str) -> None:
    """Half a revision, or steps in the wrong order, are a typed error."""
    with pytest.raises(Invalid):
        parse_revision(text)


@given(st.text(alphabet="ab@{}~^:./0129", max_size=14))
def test_parsing_never_fails_in_another_way(text: str) -> None:
    """Any text is a revision, a range, a target, or a typed error; a target loses nothing."""
    for parse in (parse_revision, parse_range, parse_when):
        try:
            parse(text)
        except Invalid:
            continue
    revision, path = split_path(text)
    assert text.startswith(revision)
    assert path in text


def test_targets_and_ranges_come_apart() -> None:
    """A colon inside braces belongs to a time; two and three dots are told apart."""
    assert split_path("main@{2026-10-01T10:00:00Z}:a/b:c") == (
        "main@{2026-10-01T10:00:00Z}",
        "a/b:c",
    )
    for whole in ("main@{2026-10-01T10:00:00Z}", "v1@{2026-10-01T10:00+02:00}~1^2"):
        assert split_path(whole) == (whole, "")
    assert split_path("main:/a/") == ("main", "a")
    assert parse_range("main") is None
    assert parse_range("a..b~1") == Range("a", "b~1", False)
    assert parse_range("a...b") == Range("a", "b", True)
    for text in ("a..", "..b", "a..b..c", "...", "a....b"):
        with pytest.raises(Invalid):
            parse_range(text)


def test_a_ref_is_found_where_it_was(memory: Store) -> None:
    """`@{n}` and `@{time}` name where a branch or tag was, deleted ones included."""
    entries = commits(memory, 4)
    for number, entry in enumerate(entries, 1):
        expected = entry.target("heads/main")
        assert memory.resolve(f"main@{{{number}}}") == expected
        assert memory.resolve(f"heads/main@{{{number}}}") == expected
    assert memory.resolve("main@{4}~2") == memory.resolve("main@{2}")
    with memory.begin() as tx:
        tx.delete("heads/main")
        tx.commit()
    assert memory.resolve("main@{4}") == entries[3].target("heads/main")
    for text in ("main@{0}", "main@{5}", "other@{1}"):
        with pytest.raises(RevisionNotFound):
            memory.resolve(text)
    for text in ("main@{6}", "main@{1969-01-01}", "main@{1971-01-01}"):
        with pytest.raises(EntryNotFound):
            memory.resolve(text)


def test_a_time_finds_the_state_of_that_time(memory: Store) -> None:
    """A time between two entries is the state after the first of them."""
    entries = commits(memory, 3)
    for entry in entries:
        text = "main@{1970-01-01T00:00:00+00:00}"
        moment = memory.at(time_us=entry.time_us)
        assert moment.resolve("main") == entry.target("heads/main")
        with pytest.raises(EntryNotFound):
            memory.resolve(text)
    assert memory.resolve("main@{9998-12-31T23:59:59Z}") == memory.resolve("main")


def test_a_name_of_two_things_is_refused_with_both(memory: Store) -> None:
    """A branch and a tag of one name that differ are ambiguous, then and now."""
    commits(memory, 2)
    with memory.begin() as tx:
        tx.tag("main", memory.resolve("main~1"))
        tx.commit()
    for text in ("main", "main@{3}", "main~1"):
        with pytest.raises(AmbiguousRevision) as caught:
            memory.resolve(text)
        assert caught.value.candidates == ["heads/main", "tags/main"]
    assert memory.resolve("tags/main") == memory.resolve("heads/main~1")
    assert memory.resolve("main@{2}") == memory.resolve("heads/main")


def test_annotated_tags_are_shown_and_peeled(memory: Store) -> None:
    """A tag with a message is an object; as a revision it is its commit, `^{}` or not."""
    write(memory)
    with memory.begin(author="ada") as tx:
        tx.tag("plain", memory.resolve("main"))
        tx.tag("v1", memory.resolve("main"), "first release")
        tx.commit()
    view = memory.view()
    plain, annotated = memory.tags()
    assert view.annotation(plain) is None
    tag = view.annotation(annotated)
    assert tag is not None
    assert (tag.message, tag.tagger, tag.target) == ("first release", "ada", view.resolve("main"))
    assert view.resolve("v1^{}") == view.resolve("v1") == view.resolve("plain^{commit}")
    assert annotated.target != view.resolve("v1")


def merged(store: Store) -> None:
    """main: base, left, merge, last; side: base, right."""
    write(store, "main", {"a": b"1", "d/x": b"1"}, message="base")
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main"))
        tx.commit()
    write(store, "side", {"b": b"1"}, message="right")
    write(store, "main", {"a": b"2"}, message="left")
    store.merge("main", "side", message="merge")
    write(store, "main", {"d/x": b"2"}, message="last")


def messages(found: Iterable[tuple[CommitId, Commit]]) -> list[str]:
    """Messages of commits."""
    return [commit.message for _id, commit in found]


def test_ranges_show_what_one_side_has(memory: Store) -> None:
    """`A..B` is what B has and A has not, `A...B` what only one of them has."""
    merged(memory)
    assert messages(memory.log("side..main")) == ["last", "merge", "left"]
    assert messages(memory.log("main..side")) == []
    assert sorted(messages(memory.log("main~2...side"))) == ["left", "right"]
    assert messages(memory.log("main..main")) == []
    assert messages(memory.log("side..main", limit=1)) == ["last"]
    with pytest.raises(Invalid):
        memory.resolve("side..main")


def test_the_history_of_a_path_is_what_changed_it(memory: Store) -> None:
    """Only commits that changed a file or directory are shown; a merge that took one side's is
    not.
    """
    merged(memory)
    assert messages(memory.log("main", path="a")) == ["left", "base"]
    assert messages(memory.log("main", path="b")) == ["right"]
    assert messages(memory.log("main", path="d")) == ["last", "base"]
    assert messages(memory.log("main", path="d/x")) == ["last", "base"]
    assert messages(memory.log("main", path="d/x", limit=1)) == ["last"]
    assert messages(memory.log("side..main", path="d")) == ["last"]
    assert messages(memory.log("main", path="nothing")) == []
    assert messages(memory.log("main", path="a/below")) == []


EDITS = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "a/a", "d/d", "d/d/d"]),
        st.sampled_from([b"1", b"2", None]),
        max_size=2,
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(EDITS, st.sampled_from(["a", "a/a", "d", "d/d", "d/d/d"]))
def test_the_history_of_a_path_is_that_of_its_values(
    rounds: list[dict[str, bytes | None]], path: str
) -> None:
    """On one line of commits exactly those are shown that have another entry than their parent."""
    with cas.open(":memory:") as store:
        write(store, "main", {"start": b""})
        for edits in rounds:
            with store.begin() as tx:
                edit = tx.branch("main", allow_empty=True)
                for name, content in edits.items():
                    for above in (name[:1], name[:3]):
                        if above != name and above in edit:
                            del edit[above]
                    if edit.entry(name) is not None:
                        del edit[name]
                    if content is not None:
                        edit[name] = content
                tx.commit()
        line = [id for id, _commit in store.log("main")]
        entries = [store.snapshot(id).entry(path) for id in line] + [None]
        expected = [
            id for id, new, old in zip(line, entries, entries[1:], strict=False) if new != old
        ]
        assert [id for id, _commit in store.log("main", path=path)] == expected
