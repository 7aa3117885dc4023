"""Pinned releases of real projects: fetched, verified, and unpacked as folders.

Downloads go through pip, whatever index it is set up for, and are checked against SHA-256 pins.
Nothing is built; for a source archive pip itself asks the project for its metadata, which runs that
project's set-up file. Links and executable bits are those of the archives; the folder that an
archive opens with is cut off, so that paths stay the same from release to release. Invariant: a
folder with a pinned count is only returned after its file count, byte count and digest over (kind,
path, content) were found equal to it. The demo saves such releases, the bench makes its corpora of
them. Standard library only: this runs on a fresh machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT_VARIABLE = "CAS_BENCH_DIR"
REPOSITORY_ROOT = Path(__file__).resolve().parent.parent


class CorpusError(RuntimeError):
    """A download or a state is not what is pinned here."""


class Archive(NamedTuple):
    """One release of a project (it unpacks into a folder of that name) and its file's SHA-256."""

    project: str
    wheel: bool
    version: str
    sha256: str


class Count(NamedTuple):
    """What a state holds: regular files (executables among them), links, bytes of files."""

    files: int
    executables: int
    links: int
    file_bytes: int
    digest: str


_DEMO = (
    "pygments",
    True,
    {
        "2.18.0": "b8e6aca0523f3ab76fee51799c488e38782ac06eafcf95e7ba832985c8e7b13a",
        "2.19.0": "4755e6e64d22161d5b61432c0600c923c5927214e7c956e31c23923c89251a9b",
        "2.19.1": "9ea1544ad55cecf4b8242fab6dd35a93bbce657034b0611ee383099054ab6d8c",
        "2.19.2": "86540386c03d588bb81d44bc3928634ff26449851e99741617ecb9037ee5ec0b",
    },
)


def default_root() -> Path:
    """The folder that holds downloads, states and runs: `$CAS_BENCH_DIR`, else `.bench/`."""
    named = os.environ.get(ROOT_VARIABLE)
    return Path(named) if named else REPOSITORY_ROOT / ".bench"


def demo_releases(root: Path | None = None) -> list[tuple[str, Path]]:
    """(version, unpacked folder) of four releases of one small pure-Python project, oldest first.

    About 344 files and 4.5 MB each, 4.9 MB to download. Raises CorpusError when a download differs
    from its pin.
    """
    root = ready(root)
    return [
        (release.version, unpacked(root, "demo", release.version, [release], None))
        for release in archives_of(*_DEMO)
    ]


def archives_of(project: str, wheel: bool, pins: dict[str, str]) -> list[Archive]:
    """The releases of one project, in the order of its pins (version -> SHA-256)."""
    return [Archive(project, wheel, version, sha256) for version, sha256 in pins.items()]


def count(tree: Path) -> Count:
    """What `tree` holds, with a SHA-256 over (kind, path, content) in path order."""
    total = hashlib.sha256()
    files = executables = links = file_bytes = 0
    for relative, path in walk(tree):
        if path.is_symlink():
            kind, content = b"l", os.readlink(os.fsencode(path))
            links += 1
        else:
            content = path.read_bytes()
            executable = bool(path.stat().st_mode & 0o100)
            kind = b"x" if executable else b"f"
            files += 1
            executables += executable
            file_bytes += len(content)
        total.update(kind + b" " + relative + b"\0" + hashlib.sha256(content).digest())
    return Count(files, executables, links, file_bytes, total.hexdigest())


def walk(tree: Path) -> Iterator[tuple[bytes, Path]]:
    """(relative path, path) of every file and link below `tree`, in bytewise order of the first."""
    found = []
    for folder, names, files in os.walk(os.fsencode(tree)):
        linked = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in files + linked:
            path = os.path.join(folder, name)
            found.append((os.path.relpath(path, os.fsencode(tree)), Path(os.fsdecode(path))))
    found.sort()
    return iter(found)


def ready(root: Path | None) -> Path:
    """The bench folder, made where it is missing."""
    root = (root or default_root()).resolve()
    root.mkdir(parents=True, exist_ok=True)
    ignore = root / ".gitignore"  # a root inside a working copy never shows up in its status
    if not ignore.exists():
        ignore.write_text("*\n")
    return root


def unpacked(
    root: Path, group: str, name: str, archives: list[Archive], pinned: Count | None
) -> Path:
    """The folder `group/name` below `root`, one sub-folder a project; made unless it is there.

    Raises CorpusError when an archive differs from its pin, or what was unpacked from `pinned`.
    """
    folder, receipt = root / group / name, root / group / f"{name}.json"
    wanted = [list(archive) for archive in archives]
    if receipt.exists() and folder.exists():
        known = json.loads(receipt.read_text())
        if known["archives"] == wanted and (pinned is None or known["count"] == list(pinned)):
            return folder
        raise CorpusError(f"{folder} was built from other pins; move it aside and build it again.")
    files = [(archive, download(root, archive)) for archive in archives]
    building = root / group / f"{name}.building"
    if building.exists():
        shutil.rmtree(building)
    for archive, file in files:
        target = building / archive.project
        target.mkdir(parents=True)
        (_unzip if archive.wheel else _untar)(file, target)
    found = count(building)
    if pinned is not None and found != pinned:
        raise CorpusError(f"State {name} is {found}, pinned is {pinned}; look in {building}.")
    os.rename(building, folder)
    receipt.write_text(json.dumps({"archives": wanted, "count": list(found)}, indent=1) + "\n")
    return folder


def download(root: Path, archive: Archive) -> Path:
    """The archive's file, fetched by pip unless a file with its SHA-256 is already there."""
    folder = root / "downloads" / f"{archive.project}-{archive.version}"
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        form = ["--only-binary", ":all:"] if archive.wheel else ["--no-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        command += ["--dest", str(partial), f"{archive.project}=={archive.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CorpusError(f"pip could not download {archive.project}: {done.stderr[-2000:]}")
        os.rename(partial, folder)
    (file,) = folder.iterdir()
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != archive.sha256:
        raise CorpusError(f"{file} has SHA-256 {found}, pinned is {archive.sha256}.")
    return file


def _untar(file: Path, target: Path) -> None:
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            _, _, rest = member.name.partition("/")
            if rest:
                # The data filter refuses devices and anything that would leave the target.
                archive.extract(member.replace(name=rest, deep=False), target, filter="data")


def _unzip(file: Path, target: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            path = Path(archive.extract(member, target))
            mode = member.external_attr >> 16
            if path.is_file():
                path.chmod(0o755 if mode & 0o100 else 0o644)
