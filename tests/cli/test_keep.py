"""`cas pin`, `cas unpin` and `cas protect` on the command line."""

from __future__ import annotations

from tests.cli.support import Shell


def test_pins_are_made_listed_and_lifted(stocked: Shell) -> None:
    """A revision or an id is pinned with a reason; the list shows it; unpin ends it."""
    commit = stocked("pin", "main~1", "-m", "the first", "--author", "ada").text.strip()
    blob = stocked("put", "work/run.sh").text.strip()
    stocked("pin", blob[:10])
    lines = stocked("pin").lines
    assert len(lines) == 2
    assert any(commit[:12] in line and "ada" in line and "the first" in line for line in lines)
    rows = stocked("pin", "--json").document["pins"]
    assert {row["kind"] for row in rows} == {"commit", "blob"}
    stocked("unpin", blob)
    stocked("unpin", "main~1", "--json")
    assert stocked("pin").out == b""
    stocked("unpin", "main", expect=3)
    stocked("pin", "nowhere", expect=3)
    stocked("pin", "-m", "what", expect=2)


def test_a_protected_branch_is_not_deleted_or_moved_back(stocked: Shell) -> None:
    """`cas protect` stops deletion and moves back with code 6, and lifting it lets them pass."""
    stocked("branch", "release/1")
    assert stocked("protect", "release/*").lines == ["heads/release/*  forward"]
    problem = stocked("branch", "-d", "release/1", "--json", expect=6).problem
    assert problem["code"] == "ref-protected"
    assert problem["fields"] == {
        "ref": "heads/release/1",
        "pattern": "heads/release/*",
        "rule": "forward",
    }
    stocked("branch", "-f", "release/1", "main~1", expect=6)
    stocked("write", "release/1:more", stdin=b"1")
    stocked("protect", "release/*", "--rule", "frozen")
    stocked("write", "release/1:more", stdin=b"2", expect=6)
    assert stocked("protect", "--json").document["rules"] == [
        {"pattern": "heads/release/*", "rule": "frozen"}
    ]
    assert stocked("protect", "-d", "release/*").out == b""
    stocked("branch", "-d", "release/1")
    for words in (["-d"], ["--rule", "keep"], ["x", "-d", "--rule", "keep"]):
        stocked("protect", *words, expect=2)
    stocked("protect", "-d", "release/*", expect=3)
