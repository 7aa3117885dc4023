"""From a folder of the old kind into a workspace, and back.

Floor 6. The old kind is a folder with artifacts/, data/, code/ and docs/, JSON files beside what
they describe, and memories, sprints and projects as JSON. Invariant: nothing is lost and nothing
is guessed silently: every file becomes an artifact with its bytes under its own path, what was
understood of a JSON file becomes an aggregate besides, and what was not is told. The import is
one unit of work a store; doing it again changes only what differs. A store that lies in the folder
is no work of anybody and stays out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from cas.errors import (
    CasError,
    Invalid,
    InvalidName,
    Purged,
    StorageFailed,
    UnsafePath,
    WouldOverwrite,
)
from cas.limits import RECORD_BYTES_MAX
from cas.model.ids import digest_blob
from cas.workspace.arrivals import Arrivals, ImportReport
from cas.workspace.artifacts import Artifact, ArtifactKind
from cas.workspace.links import check_id
from cas.workspace.memories import Memory
from cas.workspace.planning import Project, ProjectState, Sprint, SprintState
from cas.workspace.registry import Aggregate
from cas.workspace.views import Artifacts
from cas.workspace.workspace import Workspace
from cas.worktree.importer import own_folder
from cas.worktree.names import MARKER, STORE_FOLDER, is_store, is_store_name

A = TypeVar("A", bound=Aggregate)

FOLDERS: Final = {
    "artifacts": ArtifactKind.ARTIFACT,
    "data": ArtifactKind.DATA,
    "code": ArtifactKind.CODE,
    "docs": ArtifactKind.DOCUMENT,
}
_SIDECARS: Final = (".meta.json", ".metadata.json", ".json")
_SPRINTS: Final = {
    "planned": SprintState.PLANNED,
    "planning": SprintState.PLANNED,
    "todo": SprintState.PLANNED,
    "active": SprintState.ACTIVE,
    "in_progress": SprintState.ACTIVE,
    "running": SprintState.ACTIVE,
    "review": SprintState.REVIEW,
    "closed": SprintState.CLOSED,
    "done": SprintState.CLOSED,
    "completed": SprintState.CLOSED,
    "cancelled": SprintState.CANCELLED,
}


class _Import:
    """One import on its way."""

    def __init__(self, root: Path, arrivals: Arrivals) -> None:
        self.root = root
        self.arrivals = arrivals
        self.tell = arrivals.tell
        # Aggregates made by this import, and where each was said.
        self._made: dict[tuple[type[Aggregate], str], tuple[Aggregate, str]] = {}

    def run(self) -> None:
        names = set()
        paths = []
        for path, file in self._walk():
            names.add(path)
            paths.append((path, file))
        for path, file in paths:
            described = self._sidecar_of(path, names)
            about = self._about(path, names)
            self._take(path, file, about)
            if path.endswith(".json") and described is None:
                self._understand(path, file)

    def _walk(self) -> Iterator[tuple[str, Path]]:
        """(path below the root, file) of each regular file, in order; the others are told."""
        stack = [self.root]
        while stack:
            folder = stack.pop()
            below = []
            try:
                items = sorted(os.scandir(folder), key=lambda each: each.name)
            except OSError as error:
                raise _failed(folder, error) from error
            if self._is_store(folder, items):
                continue
            for item in items:
                if os.fsencode(item.name).lower() in (STORE_FOLDER, MARKER):
                    continue
                place = Path(item.path)
                path = place.relative_to(self.root).as_posix()
                if item.is_symlink():
                    self.tell(path, "is a link, which is not followed; left out", kept=False)
                elif item.is_dir():
                    below.append(place)
                elif not item.is_file():
                    self.tell(path, "is no regular file; left out", kept=False)
                elif self._may_be(path):
                    yield path, place
            stack += reversed(below)

    def _is_store(self, folder: Path, items: list[os.DirEntry[str]]) -> bool:
        """Whether a folder is that of a store. Another one than that of this workspace is told."""
        if not is_store({os.fsencode(item.name) for item in items}):
            return False
        status = os.stat(folder)
        if own_folder(self.arrivals.on(Artifact).store) != (status.st_dev, status.st_ino):
            path = folder.relative_to(self.root).as_posix()
            self.tell(path, "is the folder of a store; left out", kept=False)
        return True

    def _may_be(self, path: str) -> bool:
        try:
            check_id(path, path=True)
        except InvalidName as error:
            why = f"cannot be the name of an artifact: it {error.reason}; left out"
            self.tell(path, why, kept=False)
            return False
        return True

    def _sidecar_of(self, path: str, names: set[str]) -> str | None:
        """The file that a JSON file beside it describes."""
        for ending in _SIDECARS:
            if path.endswith(ending) and path[: -len(ending)] in names:
                return path[: -len(ending)]
        return None

    def _about(self, path: str, names: set[str]) -> dict[str, Any]:
        """What the JSON file beside a file says of it."""
        for ending in _SIDECARS:
            if path + ending in names:
                found = self._json(path + ending, self.root / (path + ending))
                if isinstance(found, dict):
                    return found
                self.tell(path + ending, "describes a file and is no JSON object")
        return {}

    def _json(self, path: str, file: Path) -> Any:
        try:
            if file.stat().st_size > RECORD_BYTES_MAX:
                self.tell(path, "is too long to be looked at; its bytes were kept")
                return None
            return json.loads(file.read_bytes())
        except OSError as error:
            raise _failed(file, error) from error
        except (ValueError, RecursionError) as error:
            self.tell(path, f"is no valid JSON ({error}); its bytes were kept")
        return None

    def _take(self, path: str, file: Path, about: dict[str, Any]) -> None:
        """The file as an artifact, unless it is one already."""
        top = path.split("/", 1)[0]
        kind = FOLDERS.get(top) if "/" in path else None
        if kind is None:
            kind = ArtifactKind.DATA if path.endswith(".json") else ArtifactKind.ARTIFACT
            if not path.endswith(".json"):
                self.tell(path, "lies outside artifacts, data, code and docs; kept as an artifact")
        artifacts = self.arrivals.on(Artifact).artifacts
        old = artifacts.find_one(path)
        said = _Said(about)
        title, media_type = said.text("title", "name"), said.text("media_type", "mime_type")
        tags, by = said.texts("tags"), said.text("author", "agent", "created_by")
        for key in said.left():
            self.tell(path, f"its description has {key!r}, which means nothing here; kept as JSON")
        self.arrivals.files += 1
        if old is not None and _same(file, old.content, old.size_bytes):
            self.arrivals.unchanged += 1
            return
        made = artifacts.put(
            path, cast("Any", file), kind=kind, media_type=media_type, title=title, tags=tags
        )
        if by:
            artifacts.save(made.evolve(made_by=by))

    # -- aggregates ----------------------------------------------------------------------------

    def _understand(self, path: str, file: Path) -> None:
        """Make aggregates of a JSON file that holds such."""
        lowered = path.lower()
        make: Callable[[str, dict[str, Any]], Aggregate] | None = None
        for word, maker in (("memor", _memory), ("sprint", _sprint), ("project", _project)):
            if word in lowered:
                make = maker
        if make is None:
            if "/" not in path:
                self.tell(path, "is JSON of no known kind; kept as an artifact")
            elif file.stat().st_size <= RECORD_BYTES_MAX:
                self._json(path, file)
            return
        found = self._json(path, file)
        rows = _rows(found)
        if rows is None:
            if found is not None:
                self.tell(path, "is JSON of no known shape; kept as an artifact")
            return
        for number, row in enumerate(rows):
            place = path if len(rows) == 1 else f"{path}[{number}]"
            try:
                if not isinstance(row, dict):
                    raise Invalid("is no JSON object.")
                self._save(make(place, row), place)
            except CasError as error:
                self.tell(place, f"was kept as JSON only: {error}")

    def _save(self, value: Aggregate, place: str) -> None:
        key = (value.__class__, value.id)
        made, where = self._made.setdefault(key, (value, place))
        if made is value:
            self.arrivals.save(value)
        elif made != value:
            raise Invalid(f"has the id {value.id!r}, as {where} has, and says something else.")


class _Said:
    """A JSON object, and which of its keys were used."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found
        self._used: set[str] = set()

    def get(self, *names: str) -> Any:
        """The value of the first of these keys that is there."""
        for name in names:
            if name in self._found:
                self._used.add(name)
                return self._found[name]
        return None

    def number(self, *names: str) -> float | None:
        """A number; what is none counts as not asked for."""
        for name in names:
            value = self._found.get(name)
            if type(value) is float or (type(value) is int and abs(value) < 1 << 53):
                self._used.add(name)
                return float(value)
        return None

    def text(self, *names: str) -> str:
        """Text, empty where there is none."""
        value = self.get(*names)
        return value if isinstance(value, str) else "" if value is None else str(value)

    def texts(self, *names: str) -> frozenset[str]:
        """A set of texts."""
        value = self.get(*names)
        many = value if isinstance(value, list) else [] if value is None else [value]
        return frozenset(str(each) for each in many)

    def time(self, *names: str) -> datetime | None:
        """A time in RFC 3339, UTC unless it says another zone. Raises `Invalid`."""
        value = self.get(*names)
        if value is None or value == "":
            return None
        try:
            found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        except ValueError as error:
            raise Invalid(f"{value!r} is no time.") from error
        return found if found.tzinfo else found.replace(tzinfo=_UTC)

    def left(self) -> list[str]:
        """Keys that nothing asked for."""
        return sorted(self._found.keys() - self._used)


_UTC: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo


def _rows(found: Any) -> list[Any] | None:
    """The objects of a JSON document: a list, an object, or an object that holds one list."""
    if isinstance(found, list):
        return found
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        if len(found) == 1 and lists:
            return lists[0]
        return [found]
    return None


def _id(said: _Said, place: str) -> str:
    """The id that an object has, or one that follows from its place."""
    given = said.get("id", "uuid", "key")
    text = str(given) if given is not None else place.removesuffix(".json")
    return text.replace("/", ".").replace("[", ".").replace("]", "").strip()


def _memory(place: str, row: dict[str, Any]) -> Memory:
    said = _Said(row)
    text = said.text("text", "content", "memory")
    if not text:
        raise Invalid("has no text.")
    importance = said.number("importance")
    made = Memory(
        id=_id(said, place),
        agent=said.text("agent", "agent_id", "author") or "unknown",
        text=text,
        kind=said.text("kind", "type") or "note",
        importance=0.5 if importance is None else importance,
        tags=said.texts("tags"),
        at=said.time("at", "created_at", "timestamp"),
    )
    return _with_rest(made, said)


def _sprint(place: str, row: dict[str, Any]) -> Sprint:
    said = _Said(row)
    state = said.text("state", "status").lower() or "planned"
    if state not in _SPRINTS:
        raise Invalid(f"has the state {state!r}, which no sprint has.")
    id = _id(said, place)
    made = Sprint(
        id=id,
        name=said.text("name", "title") or id,
        goal=said.text("goal", "description"),
        state=_SPRINTS[state],
        started=said.time("started", "start", "start_date"),
        ended=said.time("ended", "end", "end_date"),
        tags=said.texts("tags"),
    )
    return _with_rest(made, said)


def _project(place: str, row: dict[str, Any]) -> Project:
    said = _Said(row)
    state = said.text("state", "status").lower() or "active"
    if state not in set(ProjectState):
        raise Invalid(f"has the state {state!r}, which no project has.")
    id = _id(said, place)
    made = Project(
        id=id,
        name=said.text("name", "title") or id,
        description=said.text("description"),
        state=ProjectState(state),
        tags=said.texts("tags"),
    )
    return _with_rest(made, said)


def _with_rest(made: A, said: _Said) -> A:
    """The aggregate with what was said beyond its fields, kept as fields it does not know."""
    rest = {f"old_{name}": said.get(name) for name in said.left()}
    return made.evolve(unknown=rest) if rest else made


def _same(file: Path, id: bytes, size_bytes: int) -> bool:
    return file.stat().st_size == size_bytes and digest_blob(file.read_bytes()) == id


def import_folder(space: Workspace, folder: str | os.PathLike[str], *, actor: str) -> ImportReport:
    """Take a folder of the old kind in, as one unit of work; tells what it did not understand.

    Raises `Invalid` when there is no such folder, and what a commit raises.
    """
    root = Path(folder)
    if not root.is_dir():
        raise Invalid(f"{root} is no folder; name the folder of the old workspace.")
    with Arrivals(space, actor, f"import of {root.name}") as arrivals:
        take_folder(root, arrivals)
        return arrivals.report(arrivals.commit())


def take_folder(root: Path, arrivals: Arrivals) -> None:
    """Stage what a folder of the old kind holds."""
    _Import(root, arrivals).run()


def export_folder(
    space: Workspace, folder: str | os.PathLike[str], left_out: list[str] | None = None
) -> int:
    """Write the contents of all artifacts into a folder that is empty or not there; how many.

    What `import_folder` took in comes out as it was. Names of artifacts whose content was purged
    are added to `left_out`; without such a list they raise `Purged`. Raises `WouldOverwrite`, and
    `UnsafePath` for a name that makes a store, or the way to one, of the folder.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(os.scandir(root))):
        raise WouldOverwrite(
            f"{root} is not empty; nothing was written. Name a new or empty folder.",
            paths=[str(root)],
        )
    artifacts = space.now().artifacts
    for name in artifacts.ids():
        if any(is_store_name(os.fsencode(part)) for part in name.split("/")):
            raise UnsafePath(
                f"{name} would be taken for a store's own; nothing was written. Remove this "
                "artifact, or put it under another name.",
                path=name,
                reason="is the name of a store",
            )
    count = 0
    for artifact in artifacts:
        try:
            save_artifact(artifacts, artifact.name, root / artifact.name)
        except Purged:
            if left_out is None:
                raise
            left_out.append(artifact.name)
            continue
        count += 1
    return count


def save_artifact(artifacts: Artifacts, name: str, file: Path) -> None:
    """Write the content of an artifact into a file, with the folders above it. Raises
    `StorageFailed`, `PathNotFound`.
    """
    with artifacts.open(name) as source:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "wb") as out:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
        except OSError as error:
            raise _failed(file, error) from error


def _failed(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"{path}: {error.strerror or error}.", path=str(path), errno=error.errno)
