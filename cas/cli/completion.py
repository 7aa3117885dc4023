"""What the shell offers for a half-typed name: branches, tags, and paths of a revision.

Floor 9. Invariant: completion never fails aloud and never creates anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from click.shell_completion import CompletionItem

from cas.cli.front import Front
from cas.errors import CasError
from cas.history.revision import split_path
from cas.history.store import Store
from cas.model.names import HEADS, TAGS, short_ref

_OFFERED_MAX = 200


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
    found = [name for name in map(short_ref, names) if name.startswith(begin)]
    return [CompletionItem(first + dots + name) for name in found[:_OFFERED_MAX]]


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
