"""A look at a folder that `cas snapshot` begins before anything else of the program is loaded.

Floor 9. Invariant: what is guessed here of a command line decides only when a folder is looked
at. `Front.glance` takes the look over if it is the one that was asked for, once the words are
parsed, and begins another if not; what a look says is believed for the picture of which it is.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from cas.model.names import CACHE, STORE_FOLDER

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cas.worktree.glance import Glance


def guess(words: list[str]) -> AbstractContextManager[Glance | None]:
    """A look, begun, where these words mean a snapshot of one folder."""
    plain = [word for word in words if not word.startswith("-")]
    given = _store(words)
    if given in plain:
        plain.remove(given)
    folders = {word for word in plain[1:] if os.path.isdir(word)}
    if plain[:1] != ["snapshot"] or len(folders) != 1 or "--no-stat-cache" in words:
        return nullcontext()
    from cas.worktree.glance import Glance, options_mark

    chosen = options_mark("--skip-secrets" in words, "--gitignore" in words)
    return Glance(cache_of(given), folders.pop(), chosen)


def _store(words: list[str]) -> str:
    """The value of --store, or nothing."""
    for at, word in enumerate(words):
        if word == "--store":
            return "".join(words[at + 1 : at + 2])
        if word.startswith("--store="):
            return word.removeprefix("--store=")
    return ""


def cache_of(store: str | None) -> str:
    """The cache folder of the store that is probably meant, which nobody has found yet; `store`
    is the value of --store.
    """
    return os.path.join(store or os.environ.get("CAS_STORE") or _nearest(os.getcwd()), CACHE)


def _nearest(folder: str) -> str:
    """The first store folder here or above, or file that names one, by its name alone."""
    while not os.path.exists(os.path.join(folder, STORE_FOLDER)):
        if folder == os.path.dirname(folder):
            return ""
        folder = os.path.dirname(folder)
    return os.path.join(folder, STORE_FOLDER)
