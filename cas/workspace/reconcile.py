"""What is to become of a working folder and of its branch: three trees compared, path by path.

Floor 6; pure. `base` is what stood in the folder when it was last in step, `folder` what stands
there now, `store` what the branch has. Invariants: a path that only one side changed goes to the
other; one that both changed is merged, never chosen between; one with an open conflict stays as
it is in the folder until somebody settles that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

from cas.model.names import Path
from cas.model.objects import TreeEntry
from cas.worktree.update import Step

Side = Mapping[Path, tuple[TreeEntry | None, TreeEntry | None]]
"""What a side changed: path -> (entry in the base, entry there), which are never equal."""


@frozen
class Both:
    """A path that the folder and the store changed, each in its way."""

    path: Path
    base: TreeEntry | None
    folder: TreeEntry | None
    store: TreeEntry | None


@frozen
class Plan:
    """`taken` changes only of the folder, `both` of both sides, `equal` of both to the same,
    `steps` only of the store; of `held` the folder keeps its own while a conflict is open.
    """

    taken: tuple[Step, ...]
    both: tuple[Both, ...]
    equal: tuple[Step, ...]
    steps: tuple[Step, ...]
    held: tuple[Path, ...]

    @property
    def outside(self) -> bool:
        """Whether something was changed in the folder that the store does not have."""
        return bool(self.taken or self.both)


def decide(folder: Side, store: Side, is_open: Callable[[Path], bool]) -> Plan:
    """The plan for what the folder and the store changed since their base."""
    taken: list[Step] = []
    both: list[Both] = []
    equal: list[Step] = []
    for path, (old, new) in folder.items():
        if path not in store:
            taken.append(Step(path, old, new))
        elif store[path][1] == new:
            equal.append(Step(path, old, new))
        else:
            both.append(Both(path, old, new, store[path][1]))
    steps: list[Step] = []
    held: list[Path] = []
    for path, (old, new) in store.items():
        if path in folder:
            continue
        if is_open(path):
            held.append(path)
        else:
            steps.append(Step(path, old, new))
    return Plan(tuple(taken), tuple(both), tuple(equal), tuple(steps), tuple(held))


def shape_clash(
    path: Path,
    removed: frozenset[Path],
    entry_at: Callable[[Path], TreeEntry | None],
    below: Callable[[Path], Iterable[Path]],
) -> str | None:
    """Why a file cannot come to a path of the store, or None: a file in the place of a folder
    above it, or a folder of its name, unless all that stands in the way is in `removed`.

    `entry_at` reads the store, `below` gives the files of a folder there.
    """
    for length in range(1, len(path)):
        above = entry_at(path[:length])
        if above is None:
            return None
        if not above.is_tree:
            way = path[:length]
            return None if way in removed else "the store has a file where its folder would be"
    there = entry_at(path)
    if there is None or not there.is_tree or all(each in removed for each in below(path)):
        return None
    return "the store has a folder of this name"
