"""How a demo shows what it does: titles, notes, commands as a user types them, claims proved.

Invariant: a claim is printed as proved only when it holds; one that does not ends the demo.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLOR = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class ProofFailed(Exception):
    """What the demo was about to claim is not so."""


def paint(text: str, code: str) -> str:
    """Text in a colour, on a terminal that wants one."""
    return f"\x1b[{code}m{text}\x1b[0m" if COLOR else text


def title(text: str) -> None:
    """A new part of the demo."""
    print("\n" + paint(f"== {text} ", "1;36") + paint("=" * max(0, 76 - len(text)), "36"))


def note(text: str) -> None:
    """A word of explanation."""
    print(paint(text, "2"))


def proved(claim: str, holds: bool) -> None:
    """Say a claim that holds; end the demo at one that does not."""
    if not holds:
        raise ProofFailed(claim)
    print(paint("proved: ", "1;32") + claim)


def run(*words: str, folder: Path, quiet: bool = False, lines_max: int = 12) -> str:
    """Run `cas WORDS` as a user would, show it, and give its standard output."""
    print(paint("$ " + shlex.join(["cas", *words]), "1"))
    done = subprocess.run(
        [sys.executable, "-m", "cas", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CAS_AUTHOR": "demo", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProofFailed(f"`cas {' '.join(words)}` ends with 0:\n{done.stderr}")
    shown = done.stdout.splitlines()
    for line in shown[: 0 if quiet else lines_max]:
        print("  " + line[:110])
    if len(shown) > lines_max and not quiet:
        note(f"  … {len(shown) - lines_max:,} more lines")
    for line in done.stderr.splitlines():
        note("  " + line[:110])
    return done.stdout
