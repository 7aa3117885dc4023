"""How the chores run programs, and the virtual environments they run them in.

Standard library only; `tools/dev.py` is the way in. An environment is installed anew only when
`pyproject.toml`, the interpreter or the place of the checkout changed; `cas-dev.json` in it says
what it was made from. Invariant: two runs that start together do not install into one at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
PIP_FLOOR = "pip>=25.1"  # the first that reads dependency groups
NETWORK_TROUBLE = re.compile(
    r"timed out|connection (broken|reset|refused|aborted)|temporary failure|name resolution"
    r"|IncompleteRead|ProtocolError|NewConnectionError|too many requests"
    r"|\b(429|500|502|503|504) (client|server) error",
    re.IGNORECASE,
)


class Failed(Exception):
    """A step did not succeed; the message says which, and what to do."""


def keep_bytecode() -> None:
    """Let every Python that this process starts keep what it compiled, beside the environments.

    A test that runs the command line compiles all of it otherwise, where an environment says
    that no bytecode is to be written: half of its time.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".venv-bytecode"))


# -- running things --------------------------------------------------------------------------


def say(text: str) -> None:
    """Print at once, so that lines keep their place between those of child processes."""
    print(text, flush=True)


def run(
    command: Sequence[str | Path], *, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> int:
    """Show a command, run it on this terminal, return its exit code."""
    words = [str(word) for word in command]
    shown = [
        os.path.relpath(word, ROOT) if word.startswith(str(ROOT) + os.sep) else word
        for word in words
    ]
    say("$ " + shlex.join(shown))
    return subprocess.run(words, cwd=cwd, env=env, check=False).returncode


def capture(command: Sequence[str | Path], *, cwd: Path = ROOT) -> str:
    """Run quietly and return what the command printed; `Failed` with its words otherwise."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(
            f"`{shlex.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def tee(command: Sequence[str | Path]) -> tuple[int, list[str]]:
    """Run, pass the output through as it comes, and return it by lines beside the exit code."""
    words = [str(word) for word in command]
    lines: list[str] = []
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        words, cwd=ROOT, stdout=pipe, stderr=out, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    return child.returncode, lines


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip; a hiccup of the network is tried again, any other failure is not."""
    command = [str(python), "-m", "pip", *map(str, arguments), "--quiet"]
    for pause_s in (3, 10, None):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        words = done.stdout + done.stderr
        if pause_s is None or not NETWORK_TROUBLE.search(words):
            raise Failed(f"`pip {shlex.join(map(str, arguments))}` failed:\n{words}")
        say(f"  the network failed pip; once more in {pause_s} s")
        time.sleep(pause_s)


# -- environments ----------------------------------------------------------------------------


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_environment(base: str | Path, environment: Path) -> Path:
    """Create a virtual environment anew and return its interpreter."""
    try:
        capture([base, "-m", "venv", "--clear", environment])
    except Failed as error:
        advice = "if `venv` or `ensurepip` is missing: apt-get install python3-venv"
        raise Failed(f"{base} cannot make a virtual environment; {advice}\n{error}") from None
    python = python_of(environment)
    pip(python, "install", "--upgrade", PIP_FLOOR)
    return python


@contextlib.contextmanager
def locked(environment: Path) -> Iterator[None]:
    """Two runs that start together do not install into one environment at once."""
    digest = hashlib.sha256(str(environment).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"cas-dev-{digest}.lock", "w") as handle:
        try:
            import fcntl
        except ImportError:  # no advisory locks on this system: runs must not overlap there
            yield
            return
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure(*groups: str, base: str | Path = sys.executable, name: str = ".venv") -> Path:
    """Return an interpreter with the package (editable) and these dependency groups."""
    environment = ROOT / name
    version = capture([base, "-c", "import sys; print(sys.version, sys.base_prefix)"])
    pyproject = ROOT / "pyproject.toml"
    facts = [pyproject.read_text(), version, str(ROOT), PIP_FLOOR]
    key = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    stamp = environment / "cas-dev.json"
    with locked(environment):
        try:
            state = json.loads(stamp.read_text())
        except (OSError, ValueError):
            state = {}
        python = python_of(environment)
        installed = set(state.get("groups", ())) if state.get("key") == key else set()
        fresh = not installed or not python.exists()
        missing = sorted({"", *groups} - ({""} if not fresh else set()) - installed)
        if not missing:
            return python
        started = time.monotonic()
        wanted = [group for group in sorted({*groups, *installed}) if group]
        say(f"{name}: installing the package" + (f" and {', '.join(wanted)}" if wanted else ""))
        if fresh:
            make_environment(base, environment)
        choices = [word for group in wanted for word in ("--group", f"{pyproject}:{group}")]
        pip(python, "install", "-e", ROOT, *choices)
        stamp.write_text(json.dumps({"key": key, "groups": ["", *wanted]}))
        say(f"{name}: ready after {time.monotonic() - started:.0f} s")
    return python


def interpreters() -> dict[str, str]:
    """Other supported interpreters of this machine that work and can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    probe = "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3])"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found: dict[str, str] = {}
    for wanted in SUPPORTED:
        if wanted == here:
            continue
        # pyenv's own folders first: its shims on PATH run only versions that are switched on.
        candidates = [str(path) for path in sorted(pyenv.glob(f"{wanted}.*/bin/python{wanted}"))]
        on_path = shutil.which(f"python{wanted}")
        for candidate in [*reversed(candidates), *([on_path] if on_path else [])]:
            done = subprocess.run(
                [candidate, "-c", probe], capture_output=True, text=True, check=False
            )
            if done.returncode == 0 and done.stdout.startswith(wanted + "."):
                found[wanted] = candidate
                break
    return found
