"""The tools a user would pick instead, run as whole commands on folders: git, borg, and others.

Each tool does the same things: make a place, save a folder (first time and again), write it back,
check everything. A *home* is a fresh folder that holds all a tool writes, its caches included.
Invariant: a tool that is not there says why through `missing_because()` and is skipped by that
name; no tool reads the settings of the user who runs the bench.

Settings. git: defaults, except gc.auto=0, because a gc that `git commit` starts on its own would
work beside the steps after it and delete thousands of files; `add -f`, because the others save
ignored files too; `commit --allow-empty`, because the others record an unchanged folder too.
borg: `-e none`, `--compression zstd,3`. restic: as it comes. cp: `-a`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from bench.harness import Size, Step, size


class Tool(Protocol):
    """A program that keeps snapshots of a folder.

    A snapshot is named by its label; where a tool has branches, by how many lie after it.
    """

    @property
    def name(self) -> str: ...
    def missing_because(self) -> str | None: ...
    def version(self) -> str: ...
    def make(self, home: Path) -> None: ...
    def save(self, home: Path, source: Path, label: str) -> Step: ...
    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step: ...
    def verify(self, home: Path) -> Step: ...
    def size(self, home: Path) -> Size: ...


def output_of(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Standard output of an untimed command; raises CalledProcessError with what it said."""
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


@attrs.frozen
class Git:
    """`git add && git commit`, `git checkout`, `git fsck`."""

    name: str = "git"

    def missing_because(self) -> str | None:
        return None if shutil.which("git") else "git is not on the path"

    def version(self) -> str:
        return output_of(["git", "--version"], Path.cwd()).split()[2]

    def make(self, home: Path) -> None:
        env = self._env(home, home)
        output_of(["git", "init", "-q", "-b", "main"], home, env)
        output_of(["git", "config", "gc.auto", "0"], home, env)

    def save(self, home: Path, source: Path, label: str) -> Step:
        commands = (
            ("git", "add", "-A", "-f", "."),
            ("git", "commit", "-q", "--allow-empty", "-m", label),
        )
        return Step(commands, source, self._env(home, source))

    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step:
        # An index of its own: the checkout meets an empty folder and writes every file.
        index = str(target.with_name(target.name + ".index"))
        env = {**self._env(home, target), "GIT_INDEX_FILE": index}
        return Step((("git", "checkout", "-q", "-f", f"main~{back}"),), target, env)

    def verify(self, home: Path) -> Step:
        return Step((("git", "fsck", "--full"),), home, self._env(home, home))

    def size(self, home: Path) -> Size:
        return size(home / "repo.git", lambda relative: relative == "index")

    def pack(self, home: Path, packed_home: Path) -> None:
        """Make `packed_home` hold the same history in one pack, deleting nothing in `home`."""
        packed_home.mkdir(parents=True)
        origin = (home / "repo.git").resolve().as_uri()  # a URL, so that git packs, not copies
        command = ["git", "clone", "-q", "--bare", origin, str(packed_home / "repo.git")]
        env = self._env(packed_home, packed_home)
        env = {key: value for key, value in env.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
        output_of(command, packed_home, env)
        output_of(["git", "config", "core.bare", "false"], packed_home / "repo.git", env)

    def _env(self, home: Path, work_tree: Path) -> dict[str, str]:
        return {
            "GIT_DIR": str(home / "repo.git"),
            "GIT_WORK_TREE": str(work_tree),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "bench",
            "GIT_AUTHOR_EMAIL": "bench@example.invalid",
            "GIT_COMMITTER_NAME": "bench",
            "GIT_COMMITTER_EMAIL": "bench@example.invalid",
        }


@attrs.frozen
class Borg:
    """borg without encryption, zstd level 3, from the virtual environment of the bench."""

    program: Path
    name: str = "borg"

    def missing_because(self) -> str | None:
        return None if self.program.exists() else "borg is not installed; run.py --setup does it"

    def version(self) -> str:
        return output_of([str(self.program), "--version"], Path.cwd()).split()[1]

    def make(self, home: Path) -> None:
        command = [str(self.program), "init", "-e", "none", str(home / "repo")]
        output_of(command, home, self._env(home))

    def save(self, home: Path, source: Path, label: str) -> Step:
        archive = f"{home / 'repo'}::{label}"
        command = (str(self.program), "create", "--compression", "zstd,3", archive, ".")
        return Step((command,), source, self._env(home))

    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step:
        command = (str(self.program), "extract", f"{home / 'repo'}::{label}")
        return Step((command,), target, self._env(home))

    def verify(self, home: Path) -> Step:
        command = (str(self.program), "check", "--verify-data", str(home / "repo"))
        return Step((command,), home, self._env(home))

    def size(self, home: Path) -> Size:
        return size(home, lambda relative: relative.startswith("base" + os.sep))

    def _env(self, home: Path) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(home / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_HOST_ID": "bench",  # else each command asks the resolver for the host's name
        }


@attrs.frozen
class Restic:
    """restic, version 2 of its format; it always encrypts, and its key takes time each command."""

    name: str = "restic"

    def missing_because(self) -> str | None:
        return None if shutil.which("restic") else "restic is not on the path"

    def version(self) -> str:
        return output_of(["restic", "version"], Path.cwd()).split()[1]

    def make(self, home: Path) -> None:
        output_of([*self._command(home), "init"], home, self._env(home))

    def save(self, home: Path, source: Path, label: str) -> Step:
        command = (*self._command(home), "backup", "--tag", label, "--host", "bench", ".")
        return Step((command,), source, self._env(home))

    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step:
        words = ("restore", "latest", "--tag", label, "--target", str(target))
        return Step(((*self._command(home), *words),), home, self._env(home))

    def verify(self, home: Path) -> Step:
        return Step(((*self._command(home), "check", "--read-data"),), home, self._env(home))

    def size(self, home: Path) -> Size:
        return size(home, lambda relative: relative.startswith("cache" + os.sep))

    def _command(self, home: Path) -> tuple[str, ...]:
        return ("restic", "--quiet", "--repo", str(home / "repo"))

    def _env(self, home: Path) -> dict[str, str]:
        return {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(home / "cache")}


@attrs.frozen
class Casync:
    """casync with a chunk store of its own; chunks of 64 KiB on average, zstd, as it comes."""

    name: str = "casync"

    def missing_because(self) -> str | None:
        return None if shutil.which("casync") else "casync is not on the path"

    def version(self) -> str:
        return output_of(["casync", "--version"], Path.cwd()).split()[1]

    def make(self, home: Path) -> None:
        (home / "chunks.castr").mkdir()

    def save(self, home: Path, source: Path, label: str) -> Step:
        index = str(home / f"{label}.caidx")
        command = ("casync", "make", f"--store={home / 'chunks.castr'}", "--without=all")
        return Step(((*command, index, str(source)),), home)

    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step:
        index = str(home / f"{label}.caidx")
        command = ("casync", "extract", f"--store={home / 'chunks.castr'}", "--without=all")
        return Step(((*command, index, str(target)),), home)

    def verify(self, home: Path) -> Step:
        """It has no check; a digest over what its newest index gives comes nearest."""
        index = str(max(home.glob("*.caidx"), key=lambda path: path.stat().st_mtime))
        command = ("casync", "digest", f"--store={home / 'chunks.castr'}", index)
        return Step((command,), home)

    def size(self, home: Path) -> Size:
        return size(home)


def tar_step(source: Path, target: Path) -> Step:
    """`tar | zstd -3` of a folder into a file."""
    return Step((("sh", "-c", 'tar -cf - . | zstd -q -3 -o "$0"', str(target)),), source)


def copy_step(source: Path, target: Path) -> Step:
    """`cp -a` of a folder into a folder that is there and empty."""
    return Step((("cp", "-a", f"{source}/.", str(target)),), source)
