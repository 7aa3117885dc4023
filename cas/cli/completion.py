"""What the shell offers for a half-typed name: branches, tags, and paths of a revision.

Floor 9. Invariant: completion never fails aloud and never creates anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
)

from cas.cli.front import Front
from cas.errors import CasError
from cas.history.revision import split_path
from cas.history.store import Store
from cas.model.names import HEADS, TAGS, short_ref

_OFFERED_MAX = 200


class _Bash(BashComplete):
    """click's, but that a path goes on behind its directory: no blank follows a slash."""

    _END: Final = "\n    return 0\n"
    source_template = BashComplete.source_template.replace(
        _END,
        "\n    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace" + _END,
    )


class _Zsh(ZshComplete):
    """The same for zsh."""

    _ADD: Final = "        compadd -U -V unsorted -a completions\n"
    source_template = ZshComplete.source_template.replace(
        _ADD,
        "        local -a folders=(${(M)completions:#*/})\n"
        "        completions=(${completions:#*/})\n"
        "        compadd -U -S '' -V unsorted -a folders\n" + _ADD,
    )


def register() -> None:
    """Let click give these scripts to shells."""
    add_completion_class(_Bash)
    add_completion_class(_Zsh)


def complete(front: Front, incomplete: str, *, paths: bool, refs: str) -> list[CompletionItem]:
    """Names that begin with what was typed."""
    try:
        with front.store() as store:
            if paths and ":" in incomplete:
                return list(_paths(store, incomplete))
            prefixes = (refs,) if refs else (HEADS, TAGS)
            names = [ref.name for prefix in prefixes for ref in store.view().refs(prefix)]
    except (CasError, OSError):
        return []
    # Of a range the second end is completed.
    first, dots, begin = ("", "", incomplete) if refs else incomplete.rpartition("..")
    found = [name for name in _typed(names, begin) if name.startswith(begin)]
    return [CompletionItem(first + dots + name) for name in found[:_OFFERED_MAX]]


def _typed(names: list[str], begin: str) -> Iterator[str]:
    """Refs as people type them: in full where that was begun, or where the short name is that of
    a branch and a tag.
    """
    in_full = begin.startswith((HEADS, TAGS))
    times = Counter(map(short_ref, names))
    for name in names:
        short = short_ref(name)
        yield name if in_full or times[short] > 1 else short


def _paths(store: Store, incomplete: str) -> Iterator[CompletionItem]:
    revision, _path = split_path(incomplete)
    typed = incomplete[len(revision) + 1 :]
    folder, slash, begin = typed.rpartition("/")
    offered = 0
    for name, entry in store.snapshot(revision).entries(folder):
        if name.startswith(begin) and name.isprintable() and offered < _OFFERED_MAX:
            offered += 1
            yield CompletionItem(
                f"{revision}:{folder}{slash}{name}" + "/" * entry.is_tree,
                type="plain",
            )
