"""The history of a git folder: every commit, tree and file comes in, equal to git's."""

from __future__ import annotations

import subprocess
import zlib
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.errors import (
    BadArchive,
    CasError,
    Invalid,
    LimitExceeded,
    NotFound,
    RefNotFound,
    WrongKind,
)
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.maintenance.stats import stats
from cas.model.ids import Kind
from cas.model.names import to_bytes
from cas.model.objects import EntryKind, Tag
from cas.worktree.gitimport import GitImport
from cas.worktree.gitrefs import GitOptions, GitReport, import_git
from cas.worktree.gitvalues import git_bytes, git_id, make_commit, parse_commit
from tests.unit.kit import write

pygit2 = pytest.importorskip("pygit2", reason="pygit2 is not installed; `pip install .[git]`")

PERSON = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0130",
    "GIT_COMMITTER_NAME": "Bob",
    "GIT_COMMITTER_EMAIL": "bob@example.org",
    "GIT_COMMITTER_DATE": "1700000100 -0800",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}


class Git:
    """A folder of git that is being made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self("init", "-q", "-b", "main")

    def __call__(self, *words: str, stdin: bytes = b"", **env: str) -> bytes:
        """Run git; its output without the newline."""
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            input=stdin,
            env={**PERSON, **env},
            capture_output=True,
            check=True,
            timeout=60,
        )
        return done.stdout.rstrip(b"\n")

    def write(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """A file of the checkout."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if executable else 0o644)

    def commit(self, message: str, **env: str) -> bytes:
        """Commit all of the checkout; the id."""
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", message, **env)
        return self("rev-parse", "HEAD")

    def object(self, kind: str, data: bytes) -> bytes:
        """An object with exactly these bytes, checked by nobody; its id in hex."""
        return self("hash-object", "-t", kind, "-w", "--stdin", "--literally", stdin=data)

    def point(self, ref: str, id: bytes) -> None:
        """A ref at an object, whatever git thinks of it."""
        path = self.folder / ".git" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(id + b"\n")


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """A folder of git with a history: merges, renames, links, modes, a large file, tags."""
    git = Git(tmp_path / "git")
    git.write("README", b"one\n")
    git.write("src/a.py", b"print(1)\n")
    git.write("src.txt", b"sorts between src and src/ in git\n")
    git.write("src-x/deep/er/run.sh", b"#!/bin/sh\n", executable=True)
    (git.folder / "link").symlink_to("src/a.py")
    git.commit("first\n\nwith a body\n")
    git("checkout", "-q", "-b", "side")
    git.write("src/b.py", b"print(2)\n")
    git.write("big", bytes(range(256)) * 36_000)
    git.commit("side")
    git("checkout", "-q", "main")
    git.write("README", b"two\n")
    git("mv", "src/a.py", "src/c.py")
    git.commit("renamed")
    git("merge", "-q", "--no-ff", "-m", "merged", "side")
    git.commit("empty commit")
    git("tag", "light")
    git("tag", "-a", "-m", "annotated\n\nwith text", "v1", "HEAD~1")
    git("tag", "-a", "-m", "of a tag", "v1-again", "v1")
    git("tag", "-a", "-m", "of a file", "file", "HEAD:README")
    git("tag", "-a", "-m", "of a directory", "folder", "HEAD:src")
    for number in range(70):
        git.write(f"wide/f{number:03}", b"%d" % number)
    git.commit("a wide directory")
    return git


MODES = {
    EntryKind.FILE: b"100644",
    EntryKind.EXECUTABLE: b"100755",
    EntryKind.LINK: b"120000",
    EntryKind.TREE: b"40000",
}


def git_hash(kind: bytes, data: bytes) -> bytes:
    """What git would call these bytes."""
    return sha1(b"%b %d\0" % (kind, len(data)) + data).digest()


class Compare:
    """Trees of the store, hashed as git does; equal ids are equal trees, contents included."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.blobs: dict[bytes, bytes] = {}
        self.trees: dict[bytes, bytes] = {}

    def tree(self, root: Any, odd: Any = ()) -> bytes:
        """git's id of a directory of the store; `odd`: (path, mode, id) as git has them."""
        if odd or root not in self.trees:
            here = {path: (mode, at) for path, mode, at in odd if b"/" not in path}
            rows = [
                (path, mode + b" " + path + b"\0" + at)
                for path, (mode, at) in here.items()
                if mode == b"160000"
            ]
            for name, entry in Snapshot(self.store.objects, root, None, None).entries():
                raw = to_bytes(name)
                if entry.is_tree:
                    start = raw + b"/"
                    inside = [(p[len(start) :], m, at) for p, m, at in odd if p.startswith(start)]
                    id = self.tree(entry.id, inside)
                else:
                    if entry.id not in self.blobs:
                        content = self.store.get(entry.id)
                        assert len(content) == entry.size
                        self.blobs[entry.id] = git_hash(b"blob", content)
                    id = self.blobs[entry.id]
                key = raw + b"/" if entry.is_tree else raw
                mode = here[raw][0] if raw in here else MODES[entry.kind]
                rows.append((key, mode + b" " + raw + b"\0" + id))
            found = git_hash(b"tree", b"".join(row for _key, row in sorted(rows)))
            if odd:
                return found
            self.trees[root] = found
        return self.trees[root]

    def history(self, revision: str) -> list[bytes]:
        """git's ids of the commits of a revision; each is proved from what the store holds."""
        found = []
        for _id, commit in self.store.log(revision):
            theirs = git_id(commit.extras)
            assert theirs is not None
            about = commit.extras["git"]
            assert self.tree(commit.tree, about.get("odd", ())) == about["tree"]
            parents = [git_id(self.store.commit(p).extras) or b"" for p in commit.parents]
            data = git_bytes(commit, parents)
            assert data is not None
            assert git_hash(b"commit", data) == theirs
            found.append(theirs)
        return found


def assert_equal(store: Store, git: Git) -> None:
    """Every branch and tag with every commit and tree is what it is in git."""
    compare = Compare(store)
    refs = git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags").decode().split()
    assert refs
    for ref in refs:
        ours = store.view().ref(ref.removeprefix("refs/"))
        assert ours is not None, ref
        if ours.kind == Kind.TAG:
            tag = Tag.decode(store.objects.get(ours.target, Kind.TAG))
            assert git_id(tag.extras) == bytes.fromhex(git("rev-parse", ref).decode())
            if tag.target_kind != Kind.COMMIT:
                continue
        ids = git("rev-list", ref).decode().split()
        assert sorted(compare.history(ours.name)) == sorted(map(bytes.fromhex, ids))


def take(store: Store, git: Git, **options: Any) -> GitReport:
    """Import."""
    return import_git(store, str(git.folder), author="me", options=GitOptions(**options))


def test_everything_comes_in_equal(store: Store, git: Git) -> None:
    """Commits, trees, files, modes, links, merges and tags are git's, hashed anew and compared."""
    report = take(store, git)
    assert not report.problems
    assert not report.odd_modes
    assert report.commit_count == 6
    assert stats(store).mirrored_seq == report.seq  # it does not hang on the catalog alone
    assert_equal(store, git)
    (entry,) = store.journal()
    assert entry.seq == report.seq
    assert {change.ref for change in entry.changes} == {moved.ref for moved in report.refs}
    assert store.snapshot("main")["src/c.py"] == b"print(1)\n"
    assert store.snapshot("v1-again").id == store.resolve("main~2")


def test_authors_and_times_are_kept(store: Store, git: Git) -> None:
    """Author and committer, their times and zones stand in the commit."""
    take(store, git)
    commit = store.commit("main")
    assert commit.author == "Ada <ada@example.org>"
    assert commit.message == "a wide directory\n"
    assert commit.time_us == 1_700_000_100_000_000
    found = commit.extras["git"]
    assert (found["author_s"], found["author_zone"]) == (1_700_000_000, "+0130")
    assert (found["committer"], found["zone"]) == ("Bob <bob@example.org>", "-0800")
    assert "raw" not in found


def test_a_second_run_brings_what_is_new_and_reads_no_more(store: Store, git: Git) -> None:
    """Nothing new makes no entry and no object; new commits come alone, on the old ones."""
    first = take(store, git)
    again = take(store, git)
    assert (again.seq, again.commit_count, again.new_count, again.refs) == (None, 0, 0, ())
    git.write("README", b"three\n")
    git.commit("later")
    git("branch", "another", "HEAD~3")
    second = take(store, git)
    assert (second.commit_count, second.directory_count, second.file_count) == (1, 1, 1)
    assert {moved.ref for moved in second.refs} == {"heads/main", "heads/another"}
    assert second.new_count <= 4
    assert store.entry(second.seq or 0).seq == (first.seq or 0) + 1
    assert_equal(store, git)


def test_an_import_goes_on_after_another_store_has_begun(store: Store, git: Git) -> None:
    """Branches can be chosen; the others come later, their common history is not read again."""
    only = take(store, git, branches=("side",))
    assert [moved.ref for moved in only.refs] == ["heads/side"]
    assert only.commit_count == 2
    rest = take(store, git)
    assert rest.commit_count == 4
    assert_equal(store, git)
    with pytest.raises(RefNotFound):
        take(store, git, branches=("nowhere",))


def test_a_prefix_keeps_the_branches_of_the_store(store: Store, git: Git) -> None:
    """With a prefix git's main and the store's own stand beside each other."""
    write(store, "main", {"own": b"1"})
    report = take(store, git, prefix="their")
    assert not report.problems
    assert store.snapshot("main")["own"] == b"1"
    assert store.snapshot("their/main")["README"] == b"two\n"
    assert store.view().ref("tags/their/v1") is not None


def test_a_branch_moves_only_forward(store: Store, git: Git) -> None:
    """One that has own commits here, or was rewritten in git, stays, is told, and can be forced."""
    take(store, git)
    write(store, "side", {"own": b"1"})
    git("checkout", "-q", "main")
    git.write("README", b"rewritten\n")
    git("commit", "-q", "-a", "--amend", "-m", "rewritten")
    git("tag", "-f", "light", "HEAD")
    before = store.view().refs()
    report = take(store, git)
    assert {p.path for p in report.problems} == {"heads/main", "heads/side", "tags/light"}
    assert {p.reason for p in report.problems} == {"not-moved"}
    assert store.view().refs() == before
    forced = take(store, git, force=True)
    assert not forced.problems
    assert_equal(store, git)


def tree(*rows: tuple[bytes, bytes, bytes]) -> bytes:
    """Bytes of a tree: (mode, name, id in hex)."""
    return b"".join(m + b" " + n + b"\0" + bytes.fromhex(i.decode()) for m, n, i in rows)


def raw_commit(root: bytes, more: bytes = b"", message: bytes = b"odd\n") -> bytes:
    """Bytes of a commit of a tree."""
    return (
        b"tree " + root + b"\n" + more + b"author A <a@b> 1 +0000\n"
        b"committer A <a@b> 2 +0000\n\n" + message
    )  # fmt: skip


def test_submodules_odd_modes_and_names_are_told(store: Store, git: Git) -> None:
    """What has no place here is left out and named; the rest of the commit comes in."""
    blob = git.object("blob", b"content")
    sub = git.object(
        "tree",
        tree(
            (b"160000", b"module", b"11" * 20),
            (b"100664", b"group", blob),
            (b"100644", b"n" * 256, blob),
            (b"100644", b"..", blob),
            (b"100644", b"good", blob),
        ),
    )
    root = git.object("tree", tree((b"040000", b"old-mode", sub)))
    git.point("refs/heads/odd", git.object("commit", raw_commit(root)))
    git.point("refs/heads/@", git.object("commit", raw_commit(root)))
    git.point("refs/tags/content", blob)
    report = take(store, git)
    assert {p.reason for p in report.problems} == {"submodule", "name", "ref"}
    assert "old-mode/module" in {p.path for p in report.problems}
    assert [p.path for p in report.odd_modes] == ["old-mode/group"]
    assert set(store.snapshot("odd")) == {"old-mode/group", "old-mode/good"}
    assert store.snapshot("main")["README"] == b"two\n"


def test_a_commit_says_which_submodules_it_had(store: Store, git: Git) -> None:
    """Submodules are left out of directories, and kept beside them: trees can be proved whole."""
    for number, at in enumerate(("a", "deep/er/b", "src/c"), 1):
        git("update-index", "--add", "--cacheinfo", f"160000,{f'{number}' * 40},{at}")
        git("commit", "-q", "-m", f"submodule {at}")
    report = take(store, git)
    assert {p.path for p in report.problems} == {"a", "deep/er/b", "src/c"}
    assert [row[0] for row in store.commit("main").extras["git"]["odd"]] == [
        b"a",
        b"deep/er/b",
        b"src/c",
    ]
    assert_equal(store, git)
    git(
        "update-index",
        "--add",
        "--cacheinfo",
        f"100644,{git('rev-parse', 'HEAD:README').decode()},z",
    )
    git("commit", "-q", "-m", "later")
    assert take(store, git).commit_count == 1
    assert_equal(store, git)


def test_trees_with_odd_modes_can_be_proved(store: Store, git: Git) -> None:
    """Modes as old programs wrote them are kept beside the commit, so that git's ids come out."""
    blob = git.object("blob", b"content")
    deep = git.object("tree", tree((b"100664", b"group", blob), (b"100644", b"plain", blob)))
    root = git.object("tree", tree((b"040000", b"old", deep), (b"40000", b"same", deep)))
    git.point("refs/heads/odd", git.object("commit", raw_commit(root)))
    take(store, git)
    assert_equal(store, git)


COMMITS = [
    b"encoding ISO-8859-1\n",
    b"gpgsig -----BEGIN\n more\n -----END\n",
    b"mergetag object 1\n tag x\n",
]


@pytest.mark.parametrize("header", COMMITS)
def test_what_has_no_field_is_kept_whole(store: Store, git: Git, header: bytes) -> None:
    """Signatures, encodings and headers of any kind survive byte by byte."""
    root = git("rev-parse", "HEAD^{tree}")
    data = raw_commit(root, message=b"gr\xfc\xdfe\n").replace(b"\n\ngr", b"\n" + header + b"\ngr")
    git.point("refs/heads/odd", git.object("commit", data))
    take(store, git)
    assert store.commit("odd").message == "grüße\n"
    assert_equal(store, git)


NAMES = st.binary(max_size=12).map(lambda b: bytes(c for c in b if c not in b"\n\0<>"))
TIMES = st.integers(-(10**17), 10**17)


@settings(max_examples=300, deadline=None)
@given(
    name=NAMES,
    times=st.tuples(TIMES, TIMES),
    zone=st.sampled_from([b"+0000", b"-1200", b"+9999", b"+051800", b"-7", b"", b"EST", b"0000"]),
    message=st.binary(max_size=40),
    parents=st.integers(0, 70),
)
def test_any_commit_gives_its_bytes_back(
    name: bytes, times: tuple[int, int], zone: bytes, message: bytes, parents: int
) -> None:
    """A commit of git with any names, times and text can be rebuilt from the one of the store."""
    ids = [bytes([number]) * 20 for number in range(parents)]
    data = b"tree " + b"ab" * 20 + b"\n"
    data += b"".join(b"parent " + id.hex().encode() + b"\n" for id in ids)
    data += b"author %b <x> %d %b\n" % (name, times[0], zone)
    data += b"committer %b <y> %d %b\n\n%b" % (name, times[1], zone, message)
    found = parse_commit(b"\1" * 20, data)
    commit = make_commit(b"\1" * 20, data, found, b"t" * 32, [b"p" * 32] * parents)  # type: ignore
    assert git_bytes(type(commit).decode(commit.encode()), ids) == data


def corrupted(git: Git, kind: str, data: bytes) -> bytes:
    """A commit that reaches a bad object of this kind."""
    bad = git.object(kind, data)
    if kind == "commit":
        return bad
    mode = b"40000" if kind == "tree" else b"100644"
    return git.object("commit", raw_commit(git.object("tree", tree((mode, b"x", bad)))))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("commit", b"no commit"),
        ("commit", raw_commit(b"11" * 20)),
        ("commit", b"tree 1234\nauthor x\n"),
        ("tree", b"100644 no end"),
        ("tree", b"rubbish\0" + bytes(20)),
        ("tree", b"100644 missing\0" + b"\1" * 20),
        ("tree", b"40000 missing\0" + b"\1" * 20),
    ],
)
def test_a_damaged_folder_brings_nothing(store: Store, git: Git, kind: str, data: bytes) -> None:
    """An object that is missing, or is not what it should be, ends the import with its id."""
    git.point("refs/heads/bad", corrupted(git, kind, data))
    with pytest.raises((BadArchive, WrongKind)) as caught:
        take(store, git)
    assert "git fsck" in caught.value.message
    assert store.view().refs() == []


@pytest.mark.parametrize("content", [b"5" * 40, b"ref: refs/heads/nowhere"])
def test_a_branch_whose_commit_is_lost_is_told(store: Store, git: Git, content: bytes) -> None:
    """It is left out and named, and all others come in; asked for alone it is no success."""
    git.point("refs/heads/lost", content)
    report = import_git(store, str(git.folder))
    assert {"heads/main", "heads/side"} <= {moved.ref for moved in report.refs}
    (problem,) = [each for each in report.problems if "leads to nothing" in each.message]
    assert problem.message.startswith("refs/heads/lost ")
    alone = import_git(store, str(git.folder), options=GitOptions(branches=("lost",)))
    assert (alone.refs, len(alone.problems)) == ((), 1)


def test_a_shallow_clone_is_refused_until_it_is_whole(
    store: Store, git: Git, tmp_path: Path
) -> None:
    """A history that ends before its first commit is told as such, and nothing comes of it."""
    part = tmp_path / "shallow"
    git("clone", "-q", "--depth", "1", f"file://{git.folder}", str(part))
    with pytest.raises(BadArchive, match="a shallow or partial clone has to be completed"):
        import_git(store, str(part))
    assert store.branches() == []
    git("-C", str(part), "fetch", "-q", "--unshallow")
    import_git(store, str(part))
    assert [commit.message.strip() for _id, commit in store.log("main", limit=2)] == [
        "a wide directory",
        "empty commit",
    ]


def test_a_changed_object_is_found(store: Store, git: Git) -> None:
    """Bytes that do not hash to their name are refused, though the library would give them."""
    id = git("rev-parse", "HEAD:README").decode()
    path = git.folder / ".git" / "objects" / id[:2] / id[2:]
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"blob 4\0xxx\n"))
    with pytest.raises(BadArchive, match="damaged"):
        take(store, git)


def test_one_object_as_two_kinds_is_refused(store: Store, git: Git) -> None:
    """A directory that is also used as a file is a lie that does not come in."""
    folder = git("rev-parse", "HEAD:src")
    for rows in (
        tree((b"40000", b"a", folder), (b"100644", b"b", folder)),
        tree((b"100644", b"a", folder), (b"40000", b"b", folder)),
    ):
        git.point("refs/heads/bad", git.object("commit", raw_commit(git.object("tree", rows))))
        with pytest.raises(BadArchive, match="another kind"):
            take(store, git)


def test_directories_without_end_meet_the_limit(store: Store, git: Git) -> None:
    """300 directories inside each other are refused with the limit, not with a crash."""
    id, mode = git.object("blob", b""), b"100644"
    for _ in range(300):
        id, mode = git.object("tree", tree((mode, b"d", id))), b"40000"
    git.point("refs/heads/deep", git.object("commit", raw_commit(id)))
    with pytest.raises(LimitExceeded):
        take(store, git)


def test_no_folder_of_git_is_told(store: Store, tmp_path: Path) -> None:
    """A missing folder and one without git are told apart."""
    with pytest.raises(NotFound):
        import_git(store, str(tmp_path / "nowhere"))
    (tmp_path / "plain").mkdir()
    with pytest.raises(Invalid):
        import_git(store, str(tmp_path / "plain"))


def test_an_interrupted_import_is_taken_up(
    store: Store, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that ends in the middle moves no ref; the next one brings everything."""
    real = GitImport._take_commit
    calls = iter(range(3))

    def broken(self: GitImport, *arguments: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(GitImport, "_take_commit", broken)
        with pytest.raises(KeyboardInterrupt):
            take(store, git)
    assert store.view().refs() == []
    take(store, git)
    assert_equal(store, git)


def test_errors_of_the_store_pass_through(git: Git, memory: Store) -> None:
    """A ref that collides with one of the store is the store's own error."""
    write(memory, "main/below", {"a": b"1"})
    with pytest.raises(CasError):
        take(memory, git)
    assert [ref.short for ref in memory.branches()] == ["main/below"]
