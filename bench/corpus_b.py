"""Corpus B: 100,000 memories of an agent, 200 B to 2 KB each, of real prose.

The prose is paragraphs of documentation, changelogs, docstrings and API descriptions out of pinned
releases: Django, sympy and ansible-core (the source archives of corpus A), and the wheels of
ansible, botocore and google-api-python-client. Each paragraph is used once, in neighbourhoods of
its source, so that a memory speaks of one thing. Seven in ten are JSON with eight fields, the
others Markdown with front matter; lengths follow a log-normal law. Invariant: the file that is
returned has the SHA-256 pinned here, so that every run measures the same bytes.

    python bench/corpus_b.py          build it, print what it holds

File: for each memory its length (4 bytes, little-endian) and its bytes. Standard library only.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import random
import re
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.corpus import releases_of
from tools.releases import Archive, CorpusError, download, ready

COUNT: Final = 100_000
SEED: Final = 20_261_123
BYTES_MIN: Final = 200
BYTES_MAX: Final = 2_048

PINNED: Final = "374baae4a34ead74f5ae2543b284bcfddfc4c70b8ef5bff1a79d7a017b2ff85a"
"""SHA-256 of the file."""

_WHEELS: Final = (
    Archive(
        "ansible",
        True,
        "11.8.0",
        "a2cd44c0d2c03972f5d676d1b024d09dd3d3edbd418fb0426f4dd356fca9e5b1",
    ),
    Archive(
        "botocore",
        True,
        "1.40.0",
        "2063e6d035a6a382b2ae37e40f5144044e55d4e091910d0c9f1be3121ad3e4e6",
    ),
    Archive(
        "google-api-python-client",
        True,
        "2.177.0",
        "f2f50f11105ab883eb9b6cf38ec54ea5fd4b429249f76444bec90deba5be79b3",
    ),
)

_PROSE: Final = (".md", ".rst", ".txt")
_DESCRIPTIONS: Final = frozenset({"documentation", "description"})
_TAG = re.compile(r"<[^>]{1,200}>")
_BLANK = re.compile(r"\n\s*\n")
_WORD = re.compile(r"[A-Za-z][a-z'-]+")
_LIST_ITEM = re.compile(r"^\s*-\s+", re.MULTILINE)

_AGENTS: Final = ("planner", "reviewer", "researcher", "builder", "tester", "scribe", "triage")
_KINDS: Final = ("fact", "decision", "preference", "observation", "summary", "warning")


def memories(root: Path | None = None, count: int = COUNT) -> list[bytes]:
    """The first `count` memories. Builds the file where it is missing. Raises CorpusError."""
    found: list[bytes] = []
    with open(path(root), "rb") as file:
        while len(found) < count and (head := file.read(4)):
            found.append(file.read(*struct.unpack("<I", head)))
    return found


def path(root: Path | None = None) -> Path:
    """The file of all memories, built where it is missing. Raises CorpusError."""
    root = ready(root)
    target = root / "corpus-b" / "memories.bin"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        partial = target.with_suffix(".partial")
        digest = _write(partial, build(paragraphs(root)))
        if digest != PINNED:
            raise CorpusError(f"{partial} has SHA-256 {digest}, pinned is {PINNED}.")
        partial.rename(target)
    return target


def wheels(root: Path) -> list[Path]:
    """The wheels that the prose comes from, for other corpora made from the same downloads."""
    return [download(root, archive) for archive in _WHEELS]


def _write(target: Path, contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        for content in contents:
            part = struct.pack("<I", len(content)) + content
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


# -- prose -----------------------------------------------------------------------------------


def paragraphs(root: Path) -> list[tuple[str, list[str]]]:
    """(source, its paragraphs) of everything, none twice, in the order of names."""
    seen: set[bytes] = set()
    found = []
    for archive in (*releases_of("django", "5.2.8"), *releases_of("sympy", "1.14.0"), *_WHEELS):
        file = download(root, archive)
        for name, text in _texts(file, archive.wheel):
            kept = []
            for paragraph in text:
                key = hashlib.blake2b(paragraph.lower().encode(), digest_size=12).digest()
                if key not in seen:
                    seen.add(key)
                    kept.append(paragraph)
            if kept:
                found.append((f"{archive.project}/{name}", kept))
    return found


def _texts(file: Path, wheel: bool) -> Iterator[tuple[str, list[str]]]:
    for name, content in sorted(_members(file, wheel)):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        if name.endswith(".json"):
            yield name, [p for part in _descriptions(text) for p in _split(part)]
        elif name.endswith(".py"):
            yield name, [p for part in _strings(text) for p in _split(part)]
        else:
            yield name, list(_split(text))


def _members(file: Path, wheel: bool) -> Iterator[tuple[str, bytes]]:
    wanted = (*_PROSE, ".py", ".json")
    if wheel:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".json.gz"):
                    yield name.removesuffix(".gz"), gzip.decompress(archive.read(name))
                elif name.endswith(wanted):
                    yield name, archive.read(name)
        return
    with tarfile.open(file) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if member.isfile() and name.endswith(wanted) and (handle := tar.extractfile(member)):
                yield name, handle.read()


def _descriptions(text: str) -> Iterator[str]:
    """What a JSON document says of itself, in its own order."""
    try:
        pending = [json.loads(text)]
    except ValueError:
        return
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, below in reversed(value.items()):
                if isinstance(below, str) and key in _DESCRIPTIONS:
                    yield _TAG.sub(" ", below.replace("</p>", "\n\n").replace("</li>", "\n\n"))
                else:
                    pending.append(below)
        elif isinstance(value, list):
            pending.extend(reversed(value))


def _strings(text: str) -> Iterator[str]:
    """Docstrings, and long strings that a module keeps at its top (documentation of plugins)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            value = statement.value.value
            if isinstance(value, str) and len(value) > 500:
                yield _LIST_ITEM.sub("\n\n", value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found:
                yield found


def _split(text: str) -> Iterator[str]:
    for part in _BLANK.split(text):
        paragraph = " ".join(part.split())
        if 60 <= len(paragraph) <= 3 * BYTES_MAX and _is_prose(paragraph):
            yield paragraph


def _is_prose(paragraph: str) -> bool:
    """Mostly words: no tables, no code, no lists of names."""
    letters = sum(len(word) for word in _WORD.findall(paragraph))
    return letters >= 0.62 * len(paragraph) and paragraph.count(" ") >= len(paragraph) / 10


# -- memories --------------------------------------------------------------------------------


def build(sources: list[tuple[str, list[str]]], count: int = COUNT) -> Iterator[bytes]:
    """Memories of all sources, mixed. Raises CorpusError when the prose does not suffice."""
    rng = random.Random(SEED)
    pieces: list[tuple[str, str]] = []
    for source, found in sources:
        at = 0
        while at < len(found):
            wanted = min(BYTES_MAX - 420, max(90, int(rng.lognormvariate(6.0, 0.62))))
            text = found[at]
            at += 1
            while len(text) < wanted and at < len(found):
                text += "\n\n" + found[at]
                at += 1
            pieces.append((source, text))
    rng.shuffle(pieces)
    made = 0
    for source, text in pieces:
        content = _memory(rng, made, source, text)
        if BYTES_MIN <= len(content) <= BYTES_MAX:
            yield content
            made += 1
            if made == count:
                return
    raise CorpusError(f"The prose suffices for {made} memories, {count} are wanted.")


def _memory(rng: random.Random, number: int, source: str, text: str) -> bytes:
    fields = {
        "id": f"mem-{rng.getrandbits(48):012x}",
        "agent": rng.choice(_AGENTS),
        "kind": rng.choice(_KINDS),
        "created": f"2026-{rng.randint(1, 10):02}-{rng.randint(1, 28):02}T"
        f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}Z",
        "sprint": f"s{1 + number // 2_000}",
        "importance": rng.randint(1, 10),
        "source": source[-60:],
    }
    if rng.random() < 0.7:
        return json.dumps({**fields, "text": text}, ensure_ascii=False).encode()
    front = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return f"---\n{front}---\n{text}\n".encode()


def main() -> None:
    """Build, or check, the file and print what it holds."""
    found = memories()
    sizes = sorted(map(len, found))
    shares = ", ".join(f"p{share} {sizes[len(sizes) * share // 100]}" for share in (10, 50, 90, 99))
    print(f"{len(found):,} memories, {sum(sizes) / 1e6:.1f} MB, {shares} bytes")


if __name__ == "__main__":
    main()
