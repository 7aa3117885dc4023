#!/usr/bin/env python3
"""Compare the golden vectors with what the code gives, or write them: `golden.py [--write]`.

The vectors stand in `tests/golden/vectors.txt` and, the shorter part, in docs/format.md section
12; beside them lie whole stores of each version, `store-N/` and `store-N-archived/`, and what a
reader must find in them, `store-N.json` and so on. Writing refuses to change or drop any of it
unless `FORMAT_VERSION` is larger than the one it was written for: a store that exists must stay
readable. New vectors may be added at any time. While docs/format.md says that the version is not
released, `--unreleased` lets a change through.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cas  # noqa: E402
from cas.storage.header import FORMAT_VERSION  # noqa: E402
from tests.golden.store import MAKERS, describe  # noqa: E402
from tests.golden.vectors import Vectors, example, from_lines, to_lines, vectors  # noqa: E402

FILE = "tests/golden/vectors.txt"
STORE = f"tests/golden/store-{FORMAT_VERSION}"
DOCUMENT = "docs/format.md"
OPENING = "```golden\n"
NOT_RELEASED = f"Version {FORMAT_VERSION} is not released yet"


def read(root: Path) -> tuple[int, Vectors]:
    """Format version and vectors of the file; (0, {}) when there is none."""
    file = root / FILE
    if not file.exists():
        return 0, {}
    text = file.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    return int(first.removeprefix("# format ")), from_lines(text)


def read_example(root: Path) -> Vectors:
    """The vectors in the document; what is not closed yet is read to its end."""
    text = (root / DOCUMENT).read_text(encoding="utf-8")
    return from_lines(text.partition(OPENING)[2].partition("```")[0])


def differences(old: Vectors, new: Vectors) -> list[str]:
    """What changed or is gone, one line each. What is only new is no difference."""
    found = [f"{name} is gone" for name in old.keys() - new.keys()]
    found += [f"{name} changed" for name in old.keys() & new.keys() if old[name] != new[name]]
    return sorted(found)


def refusal(version: int, changed: list[str], *, unreleased: bool, document: str) -> str | None:
    """Why the vectors may not be written, or None."""
    if not changed or version < FORMAT_VERSION:
        return None
    if unreleased:
        if NOT_RELEASED in document:
            return None
        return f"format {FORMAT_VERSION} is released, --unreleased does not apply"
    return (
        f"the format changed ({', '.join(changed)}) and FORMAT_VERSION is still {FORMAT_VERSION}: "
        "raise it, and keep the old version readable"
    )


def write(root: Path, new: Vectors, shown: Vectors) -> None:
    """Write file and document."""
    (root / FILE).write_text(f"# format {FORMAT_VERSION}\n{to_lines(new)}", encoding="utf-8")
    document = root / DOCUMENT
    before, _opening, rest = document.read_text(encoding="utf-8").partition(OPENING)
    after = rest.partition("```\n")[2]
    document.write_text(f"{before}{OPENING}{to_lines(shown)}```\n{after}", encoding="utf-8")


def make_store(folder: Path, make: Callable[[str], None]) -> str:
    """Write a store to a new folder, without its cache; its description as JSON."""
    make(str(folder))
    with cas.open(folder, read_only=True) as store:
        text = json.dumps(describe(store), indent=1, sort_keys=True) + "\n"
    shutil.rmtree(folder / "cache")
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    for lock in (folder / "locks").iterdir():
        if lock.name not in ("main", "next"):
            lock.unlink()
    return text


def store_differs(root: Path, kept: str, described: str) -> list[str]:
    """Whether a store that is kept for this version says something else; nothing while there is
    none.
    """
    file = root / f"{kept}.json"
    same = not file.exists() or file.read_text(encoding="utf-8") == described
    return [] if same else [f"{kept} changed"]


def main(words: list[str], root: Path = ROOT) -> int:
    """Exit code 0: the same, or written; 1: different, or refused."""
    parser = argparse.ArgumentParser(prog="golden.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write what the code gives now")
    parser.add_argument("--unreleased", action="store_true", help="the version is not released")
    options = parser.parse_args(words)
    _version, old = read(root)
    new, shown = vectors(), example()
    with tempfile.TemporaryDirectory(prefix="cas-golden-") as name:
        described = {
            ending: make_store(Path(name) / f"store{ending}", make)
            for ending, make in MAKERS.items()
        }
        changed = differences(old, new)
        for ending, text in described.items():
            changed += store_differs(root, STORE + ending, text)
        if options.write:
            return _write(root, changed, new, shown, Path(name), described, options.unreleased)
    changed += [f"{name} is not in {FILE}" for name in sorted(new.keys() - old.keys())]
    changed += [f"{DOCUMENT}: {line}" for line in differences(read_example(root), shown)]
    for ending in MAKERS:
        if not (root / f"{STORE}{ending}.json").exists():
            changed.append(f"{STORE}{ending} is not there")
    for line in changed:
        print(line)
    print(f"golden: {len(new)} vectors and {len(MAKERS)} stores, {len(changed)} differ")
    return 1 if changed else 0


def _write(
    root: Path,
    changed: list[str],
    new: Vectors,
    shown: Vectors,
    made: Path,
    described: Mapping[str, str],
    unreleased: bool,
) -> int:
    document = (root / DOCUMENT).read_text(encoding="utf-8")
    why = refusal(read(root)[0], changed, unreleased=unreleased, document=document)
    if why is not None:
        print(f"golden: refused: {why}")
        return 1
    write(root, new, shown)
    # A store that says the same stays as it was written first.
    for ending, text in described.items():
        kept = STORE + ending
        if not (root / f"{kept}.json").exists() or store_differs(root, kept, text):
            shutil.rmtree(root / kept, ignore_errors=True)
            shutil.copytree(made / f"store{ending}", root / kept)
            (root / f"{kept}.json").write_text(text, encoding="utf-8")
    print(f"golden: {len(new)} vectors and the stores written for format {FORMAT_VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
