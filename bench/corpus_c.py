"""Corpus C: two sets of large files, 1.3 GiB in all; the second is the first, edited and shifted.

Everything in it is real, and every edit is seeded: an environment as a tar archive (the edited one
has lines inserted in one member of fifty, one of a hundred gone and one of a hundred twice),
sources of four projects as a tar archive (the edited one holds their next releases: states v5 and
v6 of corpus A), wheels behind each other (in the edited file another one stands in front, so that
all else is shifted) and the memories of corpus B as one log (with forty insertions). Invariant: a
set is only returned after its files had the SHA-256 pinned here.

    python bench/corpus_c.py          build both sets, print what they hold
"""

from __future__ import annotations

import hashlib
import io
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import corpus, corpus_b
from tools.releases import CorpusError, ready

SEED: Final = 20_261_124

PINNED: Final[dict[str, str]] = {
    "base/environment.tar": "924d8cce0fc5251ea2815c7f26e8c8803377125f78747081401f9b33f7a3ef0f",
    "base/projects.tar": "7b72135a99690d1d46549284ce83ab7ad92f5546c67c0921a6dc10a5214f8dd5",
    "base/wheels.bin": "85579be378df4a0d767a54bc44c21d7c0827a96baa644b8d9c54bdc0a2141c96",
    "base/memories.log": "76f6a4f2f923d73124f76dcc0910d2510dfe7be83c283879ae393f899aab0c5d",
    "edited/environment.tar": "5c177cea00e5615c018e7a06ca3d05f13d3f5b2f1569cd9188039c420c860bdf",
    "edited/projects.tar": "7d799b983ac038d6f2b839e63bd62077e3debbd789f50507c133b20a35c3a4bd",
    "edited/wheels.bin": "b3476db7f6d042f21fd4cf3f047ef62a216d42414ba0ba7910132178f6d9e660",
    "edited/memories.log": "bfb9bdbc804f2defcb323f4d7ebd6c3af06fd9d0e3f3d93602bb442299d83b5f",
}
"""SHA-256 of each file, by set and name."""

Writer = Callable[[BinaryIO, bool], None]
Member = tuple[str, bytes, bool]
"""Name, content, executable."""


def sets(root: Path | None = None) -> tuple[Path, Path]:
    """The folders of the first and of the edited set, built where missing. Raises CorpusError."""
    root = ready(root)
    return _set(root, "base", edited=False), _set(root, "edited", edited=True)


def _set(root: Path, name: str, *, edited: bool) -> Path:
    folder = root / "corpus-c" / name
    if folder.exists():
        return folder
    building = folder.with_name(name + ".building")
    building.mkdir(parents=True, exist_ok=True)
    for file_name, write in _writers(root).items():
        target = building / file_name
        with open(target, "wb") as file:
            write(file, edited)
        found = digest(target)
        wanted = PINNED.get(f"{name}/{file_name}")
        if found != wanted:
            raise CorpusError(f"{target} has SHA-256 {found}, pinned is {wanted}.")
    building.rename(folder)
    return folder


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _writers(root: Path) -> dict[str, Writer]:
    wheels = corpus_b.wheels(root)

    def environment(file: BinaryIO, edited: bool) -> None:
        members: Iterable[Member] = (m for wheel in wheels for m in _members_of(wheel))
        _tar(file, _edited(members) if edited else members)

    def projects(file: BinaryIO, edited: bool) -> None:
        _tar(file, _members_below(corpus.states(root)[5 if edited else 4]))

    def bundle(file: BinaryIO, edited: bool) -> None:
        first, second, third = wheels
        for wheel in (third, first, second) if edited else (first, second):
            file.write(wheel.read_bytes())

    def log(file: BinaryIO, edited: bool) -> None:
        content = b"\n".join(corpus_b.memories(root))
        file.write(_inserted(content) if edited else content)

    return {
        "environment.tar": environment,
        "projects.tar": projects,
        "wheels.bin": bundle,
        "memories.log": log,
    }


def _members_of(wheel: Path) -> Iterator[Member]:
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            if not member.is_dir():
                yield member.filename, archive.read(member), bool(member.external_attr >> 22 & 1)


def _members_below(tree: Path) -> Iterator[Member]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            executable = bool(path.stat().st_mode & 0o100)
            yield path.relative_to(tree).as_posix(), path.read_bytes(), executable


def _tar(file: BinaryIO, members: Iterable[Member]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content, executable in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if executable else 0o644
            archive.addfile(info, io.BytesIO(content))


def _edited(members: Iterable[Member]) -> Iterator[Member]:
    rng = random.Random(SEED)
    for name, content, executable in members:
        fate = rng.random()
        if fate < 0.01:
            continue
        if fate < 0.03:
            lines = content.splitlines(keepends=True)
            lines.insert(len(lines) // 2, b"# edit %016x\n" % rng.getrandbits(64))
            content = b"".join(lines)
        yield name, content, executable
        if fate > 0.99:
            yield name + ".copy", content, executable


def _inserted(content: bytes) -> bytes:
    rng = random.Random(SEED)
    cuts = sorted(rng.randrange(len(content)) for _ in range(40))
    parts, start = [], 0
    for cut in cuts:
        # What is inserted is prose too: a piece from elsewhere.
        source, length = rng.randrange(len(content) - 3_000), rng.randint(1, 3_000)
        parts += [content[start:cut], content[source : source + length]]
        start = cut
    return b"".join([*parts, content[start:]])


def main() -> None:
    """Build, or check, both sets and print what they hold."""
    for folder in sets():
        for file in sorted(folder.iterdir()):
            print(f"{folder.name}/{file.name}: {file.stat().st_size:,} bytes, {digest(file)}")


if __name__ == "__main__":
    main()
