"""Commits, tags and trees of git as values of the store, and back.

Floor 5; implements the key `git` of extras in docs/format.md section 5.2. Invariant: nothing that
a commit or tag of git says is lost: what its fields here do not give back byte by byte is kept
whole beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cas.errors import BadArchive
from cas.limits import ACTOR_BYTES_MAX, COMMIT_PARENTS_MAX, MESSAGE_BYTES_MAX
from cas.model.ids import CommitId, Kind, ObjectId, TreeId
from cas.model.objects import Commit, Tag

KEY: Final = "git"
_TIME_S_MAX: Final = 253_402_300_799  # the end of the year 9999
_PERSON: Final = re.compile(rb"(.*?) ?(-?[0-9]{1,18}) ([+-][0-9]{1,9})", re.DOTALL)
_TREE_ENTRY: Final = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)

_MODES: Final = frozenset((b"100644", b"100755", b"120000", b"40000"))

GitEntry = tuple[bytes, bytes, bytes]
"""(mode in octal digits, name, git's id) of a directory of git."""


Odd = Sequence[tuple[bytes, bytes, bytes]]
"""(path, mode in git, id in git) of what a directory here does not say of one of git: submodules,
and modes that git of today writes otherwise.
"""


class Person(NamedTuple):
    """Who did something, and when: seconds since 1970 UTC, and the zone as git writes it."""

    name: bytes
    time_s: int
    zone: bytes


class GitCommit(NamedTuple):
    """What a commit of git says, as far as the store has fields for it."""

    tree: bytes
    parents: tuple[bytes, ...]
    author: Person
    committer: Person
    message: bytes


def parse_tree(id: bytes, data: bytes) -> list[GitEntry]:
    """Entries of a directory of git, in git's order. Raises `BadArchive`."""
    entries: list[GitEntry] = _TREE_ENTRY.findall(data)
    if sum([len(mode) + len(name) for mode, name, _id in entries]) + 22 * len(entries) != len(data):
        raise _bad(id, "tree")
    return entries


def odd_entries(entries: Sequence[GitEntry]) -> list[GitEntry]:
    """Entries with a mode that a directory here has no kind for, or that git writes otherwise."""
    if _MODES.issuperset([mode for mode, _name, _id in entries]):
        return []
    return [entry for entry in entries if entry[0] not in _MODES]


def parse_commit(id: bytes, data: bytes) -> GitCommit:
    """What a commit says. Raises `BadArchive`."""
    head, _empty, message = data.partition(b"\n\n")
    lines = head.split(b"\n")
    try:
        tree = _id_of(id, lines[0], b"tree ")
        parents = []
        at = 1
        while lines[at].startswith(b"parent "):
            parents.append(_id_of(id, lines[at], b"parent "))
            at += 1
        author = _person(id, lines[at], b"author ")
        committer = _person(id, lines[at + 1], b"committer ")
    except (ValueError, IndexError) as error:  # too few lines, or no hex digits
        raise _bad(id, "commit") from error
    return GitCommit(tree, tuple(parents), author, committer, message)


def _id_of(id: bytes, line: bytes, key: bytes) -> bytes:
    if not line.startswith(key) or len(line) != len(key) + 40:
        raise _bad(id, "commit or tag")
    return bytes.fromhex(line[len(key) :].decode("ascii"))


def _person(id: bytes, line: bytes, key: bytes) -> Person:
    if not line.startswith(key):
        raise _bad(id, "commit")
    match = _PERSON.fullmatch(line, len(key))
    if match is None:
        # Old programs wrote lines that git reads all the same: the whole commit is kept beside.
        return Person(line[len(key) :], 0, b"+0000")
    return Person(match[1], int(match[2]), match[3])


def make_commit(
    id: bytes,
    data: bytes,
    found: GitCommit,
    tree: TreeId,
    parents: Sequence[CommitId],
    odd: Odd = (),
) -> Commit:
    """The commit of the store for one of git. `time_us` is the committer's time, the author's
    and both zones stand in extras; what does not fit into text or time is kept whole as `raw`.
    """
    author, message = _text(found.author.name), _text(found.message)
    extras: dict[str, Any] = {
        "id": id,
        "tree": found.tree,
        "author_s": found.author.time_s,
        "author_zone": found.author.zone.decode("ascii"),
        "zone": found.committer.zone.decode("ascii"),
    }
    if found.committer.name != found.author.name:
        extras["committer"] = _text(found.committer.name)
    time_s = min(max(0, found.committer.time_s), _TIME_S_MAX)
    if time_s != found.committer.time_s:
        extras["time_s"] = found.committer.time_s
    if odd:
        extras["odd"] = [[path, mode, at] for path, mode, at in odd]
    if _rebuild(found) != data or not _is_plain(found):
        extras["raw"] = data
    return Commit(
        tree,
        tuple(parents[:COMMIT_PARENTS_MAX]),
        _cut(author, ACTOR_BYTES_MAX),
        _cut(message, MESSAGE_BYTES_MAX),
        time_s * 1_000_000,
        {KEY: extras},
    )


def _is_plain(found: GitCommit) -> bool:
    """Whether the fields of a commit hold all of these without loss."""
    try:
        for data in (found.author.name, found.committer.name, found.message):
            data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return (
        len(found.author.name) <= ACTOR_BYTES_MAX
        and len(found.committer.name) <= ACTOR_BYTES_MAX
        and len(found.message) <= MESSAGE_BYTES_MAX
        and len(found.parents) <= COMMIT_PARENTS_MAX
    )


def _rebuild(found: GitCommit) -> bytes:
    """The bytes that these fields alone would be in git."""
    parents = b"".join([b"parent %b\n" % parent.hex().encode() for parent in found.parents])
    author, committer = found.author, found.committer
    return b"tree %b\n%bauthor %b %d %b\ncommitter %b %d %b\n\n%b" % (
        found.tree.hex().encode(),
        parents,
        author.name,
        author.time_s,
        author.zone,
        committer.name,
        committer.time_s,
        committer.zone,
        found.message,
    )


def git_bytes(commit: Commit, parents: Sequence[bytes]) -> bytes | None:
    """The commit of git that one of the store came from; `parents` are git's ids of its parents.

    None for a commit that did not come from git. Hashed as git does it gives `extras["git"]["id"]`.
    """
    extras = commit.extras.get(KEY)
    if not isinstance(extras, Mapping):
        return None
    if "raw" in extras:
        return bytes(extras["raw"])
    author = commit.author.encode()
    time_s = extras.get("time_s", commit.time_us // 1_000_000)
    committer = Person(
        extras.get("committer", commit.author).encode(), time_s, extras["zone"].encode()
    )
    return _rebuild(
        GitCommit(
            extras["tree"],
            tuple(parents),
            Person(author, extras["author_s"], extras["author_zone"].encode()),
            committer,
            commit.message.encode(),
        )
    )


def git_id(extras: Mapping[str, Any]) -> bytes | None:
    """The id that a commit or tag of the store has in git, None for one that is not from there."""
    found = extras.get(KEY)
    id = found.get("id") if isinstance(found, Mapping) else None
    return id if isinstance(id, bytes) and len(id) == 20 else None


def make_tag(id: bytes, data: bytes, target: ObjectId, kind: Kind) -> Tag:
    """The tag of the store for an annotated one of git, which is kept whole as `raw`."""
    head, _empty, message = data.partition(b"\n\n")
    tagger, time_s = b"", 0
    for line in head.split(b"\n"):
        if line.startswith(b"tagger "):
            match = _PERSON.fullmatch(line, len(b"tagger "))
            if match is not None:
                tagger, time_s = match[1], int(match[2])
    return Tag(
        target,
        kind,
        _cut(_text(tagger), ACTOR_BYTES_MAX),
        _cut(_text(message), MESSAGE_BYTES_MAX),
        min(max(0, time_s), _TIME_S_MAX) * 1_000_000,
        {KEY: {"id": id, "raw": data}},
    )


def tag_target(id: bytes, data: bytes) -> tuple[bytes, str]:
    """(id, kind) of what a tag of git names. Raises `BadArchive`."""
    lines = data.split(b"\n", 2)
    try:
        return _id_of(id, lines[0], b"object "), lines[1].removeprefix(b"type ").decode("ascii")
    except (ValueError, IndexError) as error:
        raise _bad(id, "tag") from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _cut(text: str, bytes_max: int) -> str:
    """As much of a text as there is room for."""
    data = text.encode()
    if len(data) <= bytes_max:
        return text
    return data[:bytes_max].decode("utf-8", "ignore")


def _bad(id: bytes, kind: str) -> BadArchive:
    return BadArchive(
        f"The {kind} {id.hex()} of git is damaged; check the folder with `git fsck`.",
        path=id.hex(),
        reason="git",
    )
