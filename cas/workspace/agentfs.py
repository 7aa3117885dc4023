"""From a file of AgentFS into a workspace: its files, its keys and values, its calls of tools.

Floor 6. The tables are those of AgentFS schema 0.4. Invariant: a file becomes an artifact of the
same name with the same bytes, a key an artifact `kv/KEY.json` with the JSON as it stands, a call of
a tool a run; what each was besides stands in a field that the type does not know. What is none of
these is told, and then the whole file is kept.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from cas.catalog.foreign import ForeignFile
from cas.errors import BadArchive, CasError, InvalidName, LimitExceeded
from cas.limits import FOREIGN_HOLE_BYTES_MAX, PATH_DEPTH_MAX
from cas.model.names import printable
from cas.model.objects import EntryKind
from cas.objects.content import Readable
from cas.workspace.arrivals import Arrivals
from cas.workspace.artifacts import Artifact, ArtifactKind
from cas.workspace.layout import file_path
from cas.workspace.links import check_id
from cas.workspace.planning import Run, RunState
from cas.workspace.registry import type_of

INODES: Final = "fs_inode"
NAMES: Final = "fs_dentry"
DATA: Final = "fs_data"
KEYS: Final = "kv_store"
CALLS: Final = "tool_calls"
_KNOWN: Final = (INODES, NAMES, DATA, KEYS, CALLS, "fs_config", "fs_symlink")
_ROOT: Final = 1
_CHUNK_BYTES: Final = 4096
_FIELD: Final = "agentfs"
_INODE: Final = ("ino", "mode", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime", "rdev")
_KEY: Final = ("key", "value", "created_at", "updated_at")
_CALL: Final = (
    "id",
    "name",
    "parameters",
    "result",
    "error",
    "status",
    "started_at",
    "completed_at",
    "duration_ms",
)
_STATES: Final = {
    "pending": RunState.RUNNING,
    "success": RunState.SUCCEEDED,
    "error": RunState.FAILED,
}
_PLAIN_FILE: Final = 0o644
_PLAIN_FOLDER: Final = 0o755


def is_agentfs(file: ForeignFile) -> bool:
    """Whether a file is one of AgentFS, by its tables."""
    tables = file.tables
    return {"ino", "mode"} <= set(tables.get(INODES, ())) and NAMES in tables and DATA in tables


def take_agentfs(file: ForeignFile, arrivals: Arrivals, source: str) -> None:
    """Stage what such a file holds; `source` names it in the ids of runs."""
    _Files(file, arrivals).run()
    if KEYS in file.tables:
        for row in file.rows(KEYS, _KEY, "key"):
            _take_key(arrivals, dict(zip(_KEY, row, strict=True)))
    if CALLS in file.tables:
        for row in file.rows(CALLS, _CALL, "id"):
            _take_call(arrivals, dict(zip(_CALL, row, strict=True)), source)
    for table in file.tables:
        if table not in _KNOWN and (count := file.count(table)):
            why = f"is a table of no known meaning ({count:,} rows)"
            arrivals.tell(table, why, homeless=True)


@frozen
class _Inode:
    """What the file system knows of a file."""

    ino: int
    mode: int
    size: int
    mtime: int | None
    said: dict[str, Any]


class _Content(Readable):
    """The content of a file, chunk by chunk, with zeros where there is none."""

    def __init__(self, chunks: Iterator[tuple[Any, ...]], chunk_bytes: int, inode: _Inode) -> None:
        self._pieces = _pieces(chunks, chunk_bytes, inode)
        self._waiting = b""
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes. Raises `LimitExceeded`, `BadArchive`."""
        while not self._waiting:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._waiting = piece
        made, self._waiting = self._waiting[:size], self._waiting[size:]
        self.read_bytes += len(made)
        return made


def _pieces(chunks: Iterator[tuple[Any, ...]], chunk_bytes: int, inode: _Inode) -> Iterator[bytes]:
    place = 0
    for index, data in chunks:
        content = data.encode() if isinstance(data, str) else data
        if not isinstance(index, int) or not isinstance(content, bytes):
            raise _bad(f"inode {inode.ino} has a chunk that is none")
        yield from _zeros(index * chunk_bytes - place)
        place = max(place, index * chunk_bytes)
        yield content
        place += len(content)
    yield from _zeros(inode.size - place)


def _zeros(count: int) -> Iterator[bytes]:
    """A hole. Raises `LimitExceeded`."""
    if count > FOREIGN_HOLE_BYTES_MAX:
        raise LimitExceeded(
            f"There is a hole of {count:,} bytes in a file; {FOREIGN_HOLE_BYTES_MAX:,} are the "
            "most.",
            limit="FOREIGN_HOLE_BYTES_MAX",
            value=count,
            maximum=FOREIGN_HOLE_BYTES_MAX,
        )
    while count > 0:
        yield bytes(min(count, _CHUNK_BYTES))
        count -= _CHUNK_BYTES


def _bad(reason: str) -> BadArchive:
    return BadArchive(
        f"This is no file system that AgentFS could have made: {reason}. Nothing was taken in.",
        path="",
        reason=reason,
    )


class _Files:
    """The files of one file system, on their way."""

    def __init__(self, file: ForeignFile, arrivals: Arrivals) -> None:
        self._file = file
        self._arrivals = arrivals
        self._chunk_bytes = self._chunk()
        self._inodes = {each.ino: each for each in self._all()}
        self._below: dict[int, list[tuple[str, int]]] = {}
        for parent, name, ino in file.rows(NAMES, ("parent_ino", "name", "ino"), "parent_ino name"):
            if not isinstance(name, str):
                raise _bad("a name that is no text")
            self._below.setdefault(parent, []).append((name, ino))
        self._seen: set[int] = {_ROOT}

    def _chunk(self) -> int:
        if "fs_config" not in self._file.tables:
            return _CHUNK_BYTES
        found = dict(self._file.rows("fs_config", ("key", "value"), "key"))
        text = str(found.get("chunk_size") or _CHUNK_BYTES)
        return int(text) if text.isdecimal() and 0 < int(text) <= 1 << 30 else _CHUNK_BYTES

    def _all(self) -> Iterator[_Inode]:
        for row in self._file.rows(INODES, _INODE, "ino"):
            said = dict(zip(_INODE, row, strict=True))
            numbers = (said["ino"], said["mode"], said["size"] or 0)
            if not all(isinstance(each, int) for each in numbers):
                raise _bad("an inode whose number, mode or size is no number")
            kept = {name: each for name, each in said.items() if each is not None and name != "ino"}
            yield _Inode(said["ino"], said["mode"], said["size"] or 0, said["mtime"], kept)

    def run(self) -> None:
        """Every file that has a name, in the order of names; then those that have none."""
        stack: list[tuple[str, int]] = [("", _ROOT)]
        while stack:
            path, folder = stack.pop()
            below = []
            for name, ino in self._below.get(folder, ()):
                inner = f"{path}/{name}" if path else name
                again = ino in self._seen
                self._seen.add(ino)
                if self._is_folder(inner, name, ino, again=again):
                    below.append((inner, ino))
            stack += reversed(below)
        for ino in sorted(self._inodes.keys() - self._seen):
            self._arrivals.tell(f"inode {ino}", "has no name that leads to it", homeless=True)

    def _is_folder(self, path: str, name: str, ino: int, *, again: bool) -> bool:
        """Take in what a name stands for; whether it is a folder that is to be entered."""
        tell = self._arrivals.tell
        inode = self._inodes.get(ino)
        if inode is None or "/" in name:
            tell(path, "names nothing" if inode is None else "is no name", homeless=True)
        elif stat.S_ISDIR(inode.mode):
            if again or path.count("/") >= PATH_DEPTH_MAX:
                tell(path, "is a folder that lies in itself, or too deep", homeless=True)
                return False
            if ino not in self._below:
                tell(path, "is an empty folder, and folders are kept by what is in them")
                self._arrivals.homeless = True
            elif stat.S_IMODE(inode.mode) != _PLAIN_FOLDER:
                tell(path, f"is a folder with mode {inode.mode:o}, which has no place")
                self._arrivals.homeless = True
            return True
        elif stat.S_ISREG(inode.mode):
            self._take(path, inode)
        else:
            kind = "a link" if stat.S_ISLNK(inode.mode) else f"of kind {inode.mode:o}"
            tell(path, f"is {kind}, and no file that an artifact can hold", homeless=True)
        return False

    def _take(self, path: str, inode: _Inode) -> None:
        """A file as an artifact, unless it is one already."""
        try:
            check_id(path, path=True)
        except InvalidName as error:
            why = f"cannot be the name of an artifact: {error.reason}"
            self._arrivals.tell(path, why, homeless=True)
            return
        chunks = self._file.rows(DATA, ("chunk_index", "data"), "chunk_index", "ino", inode.ino)
        content = _Content(chunks, self._chunk_bytes, inode)
        mode = EntryKind.EXECUTABLE if inode.mode & stat.S_IXUSR else EntryKind.FILE
        said = {} if _is_plain(inode) else {_FIELD: inode.said}
        at = None if inode.mtime is None else _time(inode.mtime)
        try:
            put_artifact(self._arrivals, path, content, mode, at, said)
        except LimitExceeded as error:
            self._arrivals.tell(path, f"was left out: {error}", homeless=True)
            return
        if content.read_bytes != inode.size:
            why = f"has {content.read_bytes:,} bytes, not {inode.size:,} as its file system says"
            self._arrivals.tell(path, why, homeless=True)


def _is_plain(inode: _Inode) -> bool:
    """Whether a file has nothing but bytes and a time."""
    said = inode.said
    ours = stat.S_IMODE(inode.mode) in (_PLAIN_FILE, _PLAIN_FOLDER)
    return ours and not said.get("uid") and not said.get("gid") and said.get("nlink") == 1


def put_artifact(
    arrivals: Arrivals,
    name: str,
    content: bytes | Readable,
    mode: EntryKind,
    at: datetime | None,
    unknown: dict[str, Any],
) -> None:
    """Stage an artifact with what was said of it elsewhere, unless it is there as it is."""
    unit = arrivals.on(Artifact)
    edit = unit.edit(type_of(Artifact).context)
    before, old = edit.entry(file_path(name)), unit.artifacts.find_one(name)
    edit.put(file_path(name), content, kind=mode)
    entry = edit.entry(file_path(name))
    assert entry is not None
    arrivals.files += 1
    if old is not None and entry == before:
        arrivals.unchanged += 1
        return
    made = unit.artifacts.put_entry(name, entry)
    kind = made.kind if old is not None else ArtifactKind.DATA
    unit.artifacts.save(
        made.evolve(at=at or made.at, kind=kind, unknown={**made.unknown, **unknown})
    )


def _take_key(arrivals: Arrivals, row: dict[str, Any]) -> None:
    """A key with its value as an artifact of JSON."""
    name = f"kv/{row['key']}.json"
    try:
        check_id(name, path=True)
    except InvalidName as error:
        why = f"cannot be the name of an artifact: {error.reason}"
        arrivals.tell(name, why, homeless=True)
        return
    value = row["value"]
    content = value if isinstance(value, bytes) else str(value).encode()
    said = {name: each for name, each in row.items() if name != "value" and each is not None}
    at = _time(row["updated_at"])
    put_artifact(arrivals, name, content, EntryKind.FILE, at, {_FIELD: said})


def _take_call(arrivals: Arrivals, row: dict[str, Any], source: str) -> None:
    """A call of a tool as a run."""
    place = f"{CALLS}[{row['id']}]"
    said = {name: each for name, each in row.items() if each is not None}
    state = _STATES.get(str(row["status"]))
    if state is None:
        arrivals.tell(place, f"has the status {row['status']!r}, which no run has", homeless=True)
        return
    try:
        id = check_id(f"{source}-{row['id']}")
        old = arrivals.on(Run).find_one(Run, id)
        if old is not None and old.unknown.get(_FIELD) == said:
            return
        made = Run(
            id=id,
            agent=source,
            task=str(row["name"]),
            state=state,
            started=_time(row["started_at"]),
            ended=_time(row["completed_at"]),
            error=str(row["error"] or ""),
            unknown={_FIELD: said},
        )
        arrivals.save(made)
    except CasError as error:
        arrivals.tell(place, f"fits no run: {printable(str(error))}", homeless=True)


def _time(seconds: Any) -> datetime | None:
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
