"""The grammar of entry names, paths and ref names."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.errors import CasError, InvalidName, LimitExceeded
from cas.model.names import (
    branch_ref,
    check_entry_name,
    check_ref_name,
    printable,
    short_ref,
    split_path,
    tag_ref,
    to_bytes,
    to_text,
)


@given(st.binary(max_size=300))
@example(b"\x00")
@example(b".")
@example(b"..")
@example(b"...")
@example(b"a" * 255)
@example(b"a" * 256)
def test_entry_names_are_what_the_format_says(name: bytes) -> None:
    """1 to 255 bytes without slash and NUL, and not the two names of directories."""
    legal = 1 <= len(name) <= 255 and not set(name) & {0, 47} and name not in (b".", b"..")
    if legal:
        assert check_entry_name(name) == name
        assert split_path(name) == (name,)
    else:
        with pytest.raises((InvalidName, LimitExceeded)):
            check_entry_name(name)


@given(st.binary(max_size=100))
def test_names_survive_as_text(name: bytes) -> None:
    """Any bytes become text and come back; what is shown can be shown anywhere."""
    text = to_text(name)
    assert to_bytes(text) == to_bytes(name) == name
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(codec=None, categories=None), max_size=20))
@example("\ud800")
@example("\udc7f")
@example("\udd00")
def test_text_that_stands_for_no_bytes_is_refused(text: str) -> None:
    """Surrogates that are no escaped byte have no name; every other text round-trips."""
    try:
        name = to_bytes(text)
    except InvalidName:
        assert any(0xD800 <= ord(c) <= 0xDFFF for c in text)
        return
    if not re.search("[\udc80-\udcff]", text):
        assert to_text(name) == text


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6))
def test_paths_are_names_with_slashes(names: list[bytes]) -> None:
    """A path splits into its names exactly when each of them is one."""
    path = b"/".join(names)
    try:
        expected = tuple(check_entry_name(part) for part in path.split(b"/"))
    except CasError:
        with pytest.raises(CasError):
            split_path(path)
        return
    assert split_path(path) == split_path(to_text(path)) == expected


LEGAL_REFS = [
    "heads/main",
    "heads/a/b/c",
    "heads/2026",
    "heads/20261001",
    "heads/12345678",
    "heads/deadbee",
    "heads/a" + "b" * 64,
    "heads/é",
    "heads/a.b",
    "heads/a-b",
    "heads/a@b",
    "heads/{x}",
    "heads/.x"[:6] + "x.y.z",
    "heads/heads/x",
    "heads/lock",
    "heads/x.locks",
    "heads/dead/beefcafe",
    "tags/v1.0",
    "tags/" + "x" * 250,
]
ILLEGAL_REFS = [
    "",
    "heads",
    "heads/",
    "main",
    "refs/heads/main",
    "HEADS/main",
    "/heads/main",
    "heads//main",
    "heads/main/",
    "heads/.hidden",
    "heads/a/.hidden",
    "heads/-x",
    "heads/a/-x",
    "heads/x.",
    "heads/x./y",
    "heads/x.lock",
    "heads/x.lock/y",
    "heads/@",
    "heads/a/@",
    "heads/a@{1}",
    "heads/a..b",
    "heads/..",
    "heads/.",
    *(f"heads/a{c}b" for c in "~^:?*[\\ \0\t\n\r\x1f\x7f"),
    "heads/deadbeef",
    "heads/DEADBEEF",
    "heads/1234567a",
    "heads/" + "a" * 64,
    "heads/\ud800",
    "heads/\udc80",
    "heads/" + "x" * 250,
    "heads/" + "é" * 125,
]


@pytest.mark.parametrize("name", LEGAL_REFS)
def test_legal_ref_names(name: str) -> None:
    """These may stand in the refs tree."""
    assert check_ref_name(name) == name


@pytest.mark.parametrize("name", ILLEGAL_REFS)
def test_illegal_ref_names(name: str) -> None:
    """These are refused with a reason, also when they are short names."""
    with pytest.raises(InvalidName) as caught:
        check_ref_name(name)
    assert caught.value.reason
    assert caught.value.name == name


@given(st.text(st.sampled_from("abf09./-@~^ {}é"), max_size=12))
def test_ref_names_are_what_the_format_says(rest: str) -> None:
    """The grammar agrees with the one written from docs/format.md section 4."""
    legal = (
        all(
            part
            and part[0] not in ".-"
            and not part.endswith((".", ".lock"))
            and part != "@"
            and not re.search(r"[\x00-\x20\x7f~^:?*\[\\]|@\{|\.\.", part)
            for part in rest.split("/")
        )
        and not (re.fullmatch("[0-9a-fA-F]{8,64}", rest) and re.search("[a-fA-F]", rest))
        and len(("heads/" + rest).encode()) <= 255
    )
    try:
        check_ref_name("heads/" + rest)
    except InvalidName:
        assert not legal
    else:
        assert legal


def test_short_and_full_names() -> None:
    """A branch and a tag may be named short or in full, and shown short."""
    assert branch_ref("main") == branch_ref("heads/main") == "heads/main"
    assert tag_ref("v1") == tag_ref("tags/v1") == "tags/v1"
    for wrong in (lambda: branch_ref("tags/v1"), lambda: tag_ref("heads/main")):
        with pytest.raises(InvalidName):
            wrong()
    assert [short_ref(n) for n in ("heads/a/b", "tags/v1", "other/x")] == ["a/b", "v1", "other/x"]
