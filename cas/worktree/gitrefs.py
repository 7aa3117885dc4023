"""The history of a git folder becomes history of the store.

Floor 5. Invariant: all refs move together, in one transaction, when all objects are there; a ref
moves only forward along git's history, unless it is forced.

Objects come first, in batches of their own. What an interrupted import has left is reached by
nothing, and the next one finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from attrs import frozen

from cas.errors import CasError, Invalid, InvalidName, NotFound, RefNotFound
from cas.history.core import warn
from cas.history.store import Store
from cas.history.view import Ref, View
from cas.model.ids import Kind, ObjectId
from cas.model.names import HEADS, TAGS, check_ref_name, printable, quoted
from cas.model.objects import Tag
from cas.objects.batch import Batch
from cas.worktree import git
from cas.worktree.git import GitFolder, GitRef, open_git
from cas.worktree.gitimport import GitImport, commit_of
from cas.worktree.gitvalues import git_id, tag_target
from cas.worktree.values import Problem

_THEIR_HEADS: Final = "refs/heads/"
_THEIR_TAGS: Final = "refs/tags/"
_WINDOW_COMMITS: Final = 2048
"""Commits of one batch: what it has brought serves the next one as bases of deltas."""

OnCommits = Callable[[int, int], None] | None
"""Called with the commits that are done, and all of them."""


@frozen
class GitMoved:
    """A ref that was made or moved; `old` and `new` are targets here, `git` the one in git."""

    ref: str
    old: ObjectId | None
    new: ObjectId
    git: str


@frozen
class GitReport:
    """What an import brought. Counts are of what was new; `seq` is None when no ref moved.

    `problems`: what could not be taken in (submodules, names, refs). `odd_modes`: files with
    modes that no git of today writes; they are files without an executable bit.
    """

    refs: tuple[GitMoved, ...]
    seq: int | None
    commit_count: int
    directory_count: int
    file_count: int
    content_bytes: int
    new_count: int
    new_bytes: int
    problems: tuple[Problem, ...]
    odd_modes: tuple[Problem, ...]


@frozen
class GitOptions:
    """Which branches (short names; none: all, and all tags), and where they go.

    With `prefix` the branch `main` becomes `PREFIX/main`, tags likewise; with `called` the one
    branch that is asked for has that name here. `force` moves refs that do not lead forward.
    """

    branches: tuple[str, ...] = ()
    prefix: str = ""
    force: bool = False
    called: str = ""


ALL_REFS: Final = GitOptions()


@frozen
class _Wanted:
    """A ref of git, what it is to be called here, and the commit that it leads to, if any."""

    ref: str
    source: GitRef
    commit: bytes | None


def import_git(
    store: Store,
    path: str,
    *,
    author: str = "",
    message: str = "",
    options: GitOptions = ALL_REFS,
    progress: OnCommits = None,
    check: Callable[[Sequence[str]], None] | None = None,
) -> GitReport:
    """Import branches and tags of the git folder at `path`, with every commit that they reach.

    Ids of git, authors, committers, times and zones are kept in each commit. What an import has
    brought before is not read again. Raises `NotFound`, `Invalid` for a path that is no folder of
    git, `Unsupported` without the library, `BadArchive` for damage, `RefNotFound` for a branch
    that git does not have, and what a commit raises. `check` is given the branches that will be
    made or moved here, before anything is read, and may refuse them by raising.
    """
    problems: list[Problem] = []
    with open_git(path) as folder:
        view = store.view()
        wanted = _wanted(folder, options, problems)
        if check is not None:
            check([ref.ref for ref in wanted if ref.ref.startswith(HEADS)])
        work = GitImport(store, folder)
        targets: dict[str, ObjectId] = {}
        if any(not _is_here(store, view, ref) for ref in wanted):
            work.learn()
            _take_commits(store, work, folder, wanted, progress)
            with store.objects.batch() as batch:
                for ref in wanted:
                    target = _target(work, batch, ref, problems)
                    if target is not None:
                        targets[ref.ref] = target
                work.count(batch)
        moved, seq = _move(store, folder, wanted, targets, (author, message), options, problems)
    if moved:
        _mirror(store)
    problems += work.problems.values()
    return GitReport(
        moved,
        seq,
        work.commit_count,
        work.directory_count,
        work.file_count,
        work.content_bytes,
        work.new_count,
        work.new_bytes,
        tuple(problems),
        tuple(work.odd_modes.values()),
    )


def _mirror(store: Store) -> None:
    """Put the import into packs, so that it does not hang on the catalog alone."""
    try:
        store.mirror()
    except CasError as error:
        # The import stands; a spill or `cas maintain` does it later.
        warn(f"the journal was not mirrored: {error}")


def _wanted(folder: GitFolder, options: GitOptions, problems: list[Problem]) -> list[_Wanted]:
    """The refs that are to be here."""
    if options.called and len(options.branches) != 1:
        raise Invalid("One branch can be called otherwise here; name it.")
    refs = folder.refs()
    if options.branches:
        names = {_THEIR_HEADS + branch for branch in options.branches}
        refs = [ref for ref in refs if ref.name in names]
        for missing in sorted(names - {ref.name for ref in refs}):
            short = missing.removeprefix(_THEIR_HEADS)
            raise RefNotFound(f"git has no branch {quoted(short)} there.", ref=short)
    wanted = []
    above = f"{options.prefix.strip('/')}/" if options.prefix.strip("/") else ""
    for ref in refs:
        is_head = ref.name.startswith(_THEIR_HEADS)
        start, rest = (_THEIR_HEADS, HEADS) if is_head else (_THEIR_TAGS, TAGS)
        try:
            own = options.called or ref.name.removeprefix(start)
            name = check_ref_name(rest + above + own)
        except InvalidName as error:
            problems.append(Problem(printable(ref.name), "ref", error.message))
            continue
        wanted.append(_Wanted(name, ref, _peel(folder, ref)))
    return wanted


def _peel(folder: GitFolder, ref: GitRef) -> bytes | None:
    """The commit that a ref of git leads to, through tags."""
    id, kind = ref.target, ref.kind
    for _ in range(16):
        if kind != git.TAG:
            break
        id, name = tag_target(id, folder.read(id, git.TAG))
        kind = {"commit": git.COMMIT, "tag": git.TAG}.get(name, git.BLOB)
    return id if kind == git.COMMIT else None


def _is_here(store: Store, view: View, wanted: _Wanted) -> bool:
    """Whether a ref points here at what it points at in git; no history is followed."""
    ref = view.ref(wanted.ref)
    if ref is None:
        return False
    try:
        if ref.kind == Kind.TAG:
            extras = Tag.decode(store.objects.get(ref.target, Kind.TAG), verified=True).extras
        else:
            extras = store.commit(ref.target).extras
    except NotFound:
        return False
    return git_id(extras) == wanted.source.target


def _take_commits(
    store: Store,
    work: GitImport,
    folder: GitFolder,
    wanted: Sequence[_Wanted],
    progress: OnCommits,
) -> None:
    heads = {ref.commit for ref in wanted if ref.commit is not None}
    missing = [id for id in folder.walk(heads, ()) if id not in work.commits]
    waiting = iter(missing)
    while window := list(islice(waiting, _WINDOW_COMMITS)):
        with store.objects.batch() as batch:
            work.take(batch, window)
            work.count(batch)
        work.settle()
        if progress is not None:
            progress(work.commit_count, len(missing))


def _target(
    work: GitImport, batch: Batch, wanted: _Wanted, problems: list[Problem]
) -> ObjectId | None:
    """What a ref points at here."""
    name = printable(wanted.source.name)
    if wanted.source.kind == git.COMMIT and wanted.commit is not None:
        return work.commits[wanted.commit]
    if wanted.source.kind == git.TAG:
        made = work.tag(batch, wanted.source.target)
        if made is not None:
            return made[0]
    why = "leads to no commit and is no annotated tag"
    if wanted.source.kind == git.NOWHERE:
        why = "leads to nothing that is there; `git fsck` tells what is lost"
    problems.append(Problem(name, "ref", f"{name} {why}"))
    return None


def _move(
    store: Store,
    folder: GitFolder,
    wanted: Sequence[_Wanted],
    targets: dict[str, ObjectId],
    signed: tuple[str, str],
    options: GitOptions,
    problems: list[Problem],
) -> tuple[tuple[GitMoved, ...], int | None]:
    """One transaction for all refs."""
    author, message = signed
    moved = []
    with store.begin(author=author, message=message) as tx:
        view = store.view()
        for ref in wanted:
            target = targets.get(ref.ref)
            before = view.ref(ref.ref)
            old = None if before is None else before.target
            if target is None or old == target:
                continue
            if before is not None and not (options.force or _leads_on(store, folder, before, ref)):
                text = (
                    f"{ref.ref} was moved here, or git has rewritten it; it stays where it is "
                    "(--force moves it)"
                )
                problems.append(Problem(ref.ref, "not-moved", text))
                continue
            tx.move(ref.ref, target)
            moved.append(GitMoved(ref.ref, old, target, ref.source.target.hex()))
        seq = tx.commit().seq if moved else None
    return tuple(moved), seq


def _leads_on(store: Store, folder: GitFolder, before: Ref, wanted: _Wanted) -> bool:
    """Whether git's branch goes on from where this one is. A tag is never moved."""
    commit = commit_of(store, before)
    if commit is None or wanted.commit is None or not before.name.startswith(HEADS):
        return False
    theirs = git_id(store.commit(commit).extras)
    return theirs is not None and folder.leads(theirs, wanted.commit)
