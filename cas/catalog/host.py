"""What must hold of the host before a write-ahead log is trusted: engine version, file system.

Floor 2. Invariant: a combination known to corrupt is refused by name with the way out; an
unknown file system is let through, a known bad one never.
"""

from __future__ import annotations

import os
import re

from cas.errors import UnsafeEngine, UnsafeFilesystem

_UNSAFE = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "virtiofs",
        "vboxsf",
        "ceph",
        "afs",
        "ncpfs",
        "lustre",
        "gpfs",
        "beegfs",
        "fuseblk",
    ]
)


def check_engine(version: str) -> None:
    """Refuse an SQLite that can corrupt a write-ahead log. Raises `UnsafeEngine`.

    The WAL-reset race hit 3.7.0 to 3.51.2; 3.44.6 and 3.50.7 carry the fix.
    """
    parts = tuple(int(p) for p in version.split("."))
    safe = parts >= (3, 51, 3) or (3, 50, 7) <= parts < (3, 51) or (3, 44, 6) <= parts < (3, 45)
    if not safe:
        raise UnsafeEngine(
            f"SQLite {version} can corrupt a write-ahead log; install apsw-sqlite3mc 3.54 "
            "or newer.",
            version=version,
        )


def engine_version() -> str:
    """Version of the SQLite library in use."""
    import apsw

    return apsw.sqlite_lib_version()


def filesystem_of(path: str, mounts: str | None = None) -> str | None:
    """Type of the file system that holds `path`, or None where the host does not say.

    `mounts` is the text of /proc/self/mountinfo, read when not given.
    """
    if mounts is None:
        try:
            # Read at every open of a store: in bytes, and decoded at once.
            with open("/proc/self/mountinfo", "rb", buffering=0) as file:
                mounts = os.fsdecode(file.read())
        except OSError:
            return None
    target = os.path.realpath(path)
    best, found = "", None
    for line in mounts.splitlines():
        fields = line.split(" ", 5)
        if len(fields) < 6:
            continue
        point = fields[4]
        if "\\" in point:
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), point)
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best) and " - " in line:
            best, found = point, line
    return None if found is None else found.partition(" - ")[2].split(" ")[0]


def check_filesystem(path: str, mounts: str | None = None) -> None:
    """Refuse a file system on which write-ahead logging corrupts. Raises `UnsafeFilesystem`."""
    kind = filesystem_of(path, mounts)
    if kind is None:
        return
    if kind in _UNSAFE or kind == "fuse" or kind.startswith("fuse."):
        raise UnsafeFilesystem(
            f"{path} lies on {kind}, where several processes can corrupt SQLite's write-ahead "
            "log. Put the store on a local disk (ext4, xfs, btrfs, zfs, apfs).",
            path=path,
            filesystem=kind,
        )
