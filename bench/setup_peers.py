"""Set-up of the bench: peers into a virtual environment; other programs from the system.

`bench/run.py --setup` calls `prepare`. It says what it does before it does it, installs system
packages only as root through apt-get, and leaves alone what is already there. Invariant: a failure
here costs only the peers that need what failed; their rows name them as skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"

# borg comes from the package index as source: these are the headers that its build asks for.
BORG_HEADERS = {
    "lz4.h": "liblz4-dev",
    "sys/acl.h": "libacl1-dev",
    "xxhash.h": "libxxhash-dev",
    "zstd.h": "libzstd-dev",
}


def environment(root: Path) -> Path:
    """The virtual environment of the peers below the bench folder."""
    return root / "venv"


def python_of(root: Path) -> Path:
    """The interpreter of the peers."""
    return environment(root) / "bin" / "python"


def borg_of(root: Path) -> Path:
    """The borg program."""
    return environment(root) / "bin" / "borg"


def prepare(root: Path) -> None:
    """Install strace, casync, restic, zstd and the peers; prints each command first."""
    packages = [
        name for name in ("strace", "casync", "restic", "zstd") if shutil.which(name) is None
    ]
    if not borg_of(root).exists():
        include = Path("/usr/include")
        packages += [name for header, name in BORG_HEADERS.items() if not _has(include, header)]
    if packages:
        _system_packages(packages)
    python = python_of(root)
    if not python.exists():
        _say_and_run([sys.executable, "-m", "venv", str(environment(root))])
    for requirement in _requirements():  # one by one: a peer that fails to build costs only itself
        _say_and_run([str(python), "-m", "pip", "install", "--quiet", requirement])


def _requirements() -> list[str]:
    lines = REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _has(include: Path, header: str) -> bool:
    return (include / header).exists() or any(include.glob(f"*-linux-gnu*/{header}"))


def _system_packages(packages: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"missing system packages, install them yourself: {' '.join(packages)}", flush=True)
        return
    if not _say_and_run(["apt-get", "install", "-y", "--no-install-recommends", *packages]):
        _say_and_run(["apt-get", "update"])
        _say_and_run(["apt-get", "install", "-y", "--no-install-recommends", *packages])


def _say_and_run(command: list[str]) -> bool:
    print("$ " + " ".join(command), flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        print(f"  ended with {done.returncode}", flush=True)
    return done.returncode == 0
