"""Use an installed `cas` as a user would: the script, then the library. Run by `dev.py wheel`.

`python -I smoke.py VERSION`, with the interpreter of the environment that has the package and an
empty folder as current directory; it ends with a line of what it did, or with a traceback.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONTENT = b"hello"


def cas(*arguments: str) -> bytes:
    """Run the `cas` script beside this interpreter and return what it prints."""
    script = Path(sys.executable).with_name("cas.exe" if os.name == "nt" else "cas")
    done = subprocess.run([str(script), *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).decode(errors="replace")
        raise SystemExit(f"`cas {' '.join(arguments)}` ended with {done.returncode}:\n{words}")
    return done.stdout


def through_the_script(version: str) -> None:
    """Store, save, restore and check a file by the command line."""
    shown = cas("--version").decode()
    assert version in shown, f"`cas --version` says {shown!r}, the wheel is {version}"
    Path("files").mkdir()
    Path("files/hello.txt").write_bytes(CONTENT)
    cas("init", "store")
    object_id = cas("put", "files/hello.txt", "--store", "store").decode().strip()
    assert cas("get", object_id, "--store", "store") == CONTENT
    revision = cas("snapshot", "files", "--store", "store").decode().strip()
    cas("restore", revision, "back", "--store", "store")
    assert Path("back/hello.txt").read_bytes() == CONTENT
    cas("fsck", "--store", "store")


def through_the_library() -> None:
    """Import the installed package, not a checkout, and put and get with it."""
    import cas as package

    assert package.__file__.startswith(sys.prefix), f"{package.__file__} is not the installed one"
    with package.open("api.cas", create=True) as store:
        assert store.get(store.put(CONTENT)) == CONTENT


if __name__ == "__main__":
    through_the_script(sys.argv[1])
    through_the_library()
    print("smoke: script and library work")
