#!/usr/bin/env python3
"""Compare the golden vectors with what the code gives, or write them: `golden.py [--write]`.

The vectors stand in `tests/golden/vectors.txt` and, the shorter part, in docs/format.md section
12. Writing refuses to change or drop a vector unless `FORMAT_VERSION` is larger than the one that
the file was written for: a store that exists must stay readable. New vectors may be added at any
time. While docs/format.md says that the version is not released, `--unreleased` lets a change
through.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cas.storage.pack import FORMAT_VERSION  # noqa: E402
from tests.golden.vectors import Vectors, example, from_lines, to_lines, vectors  # noqa: E402

FILE = "tests/golden/vectors.txt"
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


def main(words: list[str], root: Path = ROOT) -> int:
    """Exit code 0: the same, or written; 1: different, or refused."""
    parser = argparse.ArgumentParser(prog="golden.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write what the code gives now")
    parser.add_argument("--unreleased", action="store_true", help="the version is not released")
    options = parser.parse_args(words)
    version, old = read(root)
    new, shown = vectors(), example()
    changed = differences(old, new)
    if options.write:
        document = (root / DOCUMENT).read_text(encoding="utf-8")
        why = refusal(version, changed, unreleased=options.unreleased, document=document)
        if why is not None:
            print(f"golden: refused: {why}")
            return 1
        write(root, new, shown)
        print(f"golden: {len(new)} vectors written for format {FORMAT_VERSION}")
        return 0
    changed += [f"{name} is not in {FILE}" for name in sorted(new.keys() - old.keys())]
    changed += [f"{DOCUMENT}: {line}" for line in differences(read_example(root), shown)]
    for line in changed:
        print(line)
    print(f"golden: {len(new)} vectors, {len(changed)} differ")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
