"""Corpus A: six successive states of one workspace, built from pinned releases of real projects.

A state is a folder with one sub-folder per project: `django/`, `sympy/`, `ansible-core/` (source
archives, tests included) and `babel/` (a wheel), as `tools/releases.py` fetches and unpacks them.
Invariant: a state is only ever returned after its file count, byte count and digest over (kind,
path, content) were found equal to the pins below, so that every run measures the same bytes.

    python bench/corpus.py            build everything, print the counts
    python bench/corpus.py --verify   hash every file of every state again
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools.releases import (
    ROOT_VARIABLE,
    Archive,
    Count,
    archives_of,
    count,
    ready,
    unpacked,
    walk,
)

# (project, is a wheel, releases oldest first: version -> SHA-256 of the file).
_CORPUS_A: tuple[tuple[str, bool, dict[str, str]], ...] = (
    (
        "django",
        False,
        {
            "5.0": "7d29e14dfbc19cb6a95a4bd669edbde11f5d4c6a71fdaa42c2d40b6846e807f7",
            "5.1": "848a5980e8efb76eea70872fb0e4bc5e371619c70fffbe48e3e1b50b2c09455d",
            "5.1.4": "de450c09e91879fa5a307f696e57c851955c910a438a35e6b4c895e86bedc82a",
            "5.2": "1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89",
            "5.2.4": "a1228c384f8fa13eebc015196db7b3e08722c5058d4758d20cb287503a540d8f",
            "5.2.8": "23254866a5bb9a2cfa6004e8b809ec6246eba4b58a7589bc2772f1bcc8456c7f",
        },
    ),
    (
        "sympy",
        False,
        {
            "1.11.1": "e32380dce63cb7c0108ed525570092fd45168bdae2faa17e528221ef72e88658",
            "1.12": "ebf595c8dac3e0fdc4152c51878b498396ec7f30e7a914d6071e674d49420fb8",
            "1.12.1": "2877b03f998cd8c08f07cd0de5b767119cd3ef40d09f41c30d722f6686b0fb88",
            "1.13.1": "9cebf7e04ff162015ce31c9c6c9144daa34a93bd082f54fd8f12deca4f47515f",
            "1.13.3": "b27fd2c6530e0ab39e275fc9b683895367e51d5da91baa8d3d64db2565fec4d9",
            "1.14.0": "d3d3fe8df1e5a0b42f0e7bdf50541697dbe7d23746e894990c030e2b05e72517",
        },
    ),
    (
        "ansible-core",
        False,
        {
            "2.12.5": "1ccc9944f101331adad1ed40d5ac66a8149133052ae34db0267a74aa73beebb3",
            "2.12.6": "5f366e851159d8f72ce68d32b8c0edda56ee537c01e9f68eca382bd1510af65d",
            "2.12.7": "a31c1b0a3e2efedcb4c48cf95d36aa0ab19cef40eba1719ddb0d92ba1a9cf62a",
            "2.12.8": "bb938ce5888a4083cb37774e5ab1523f258fd468049e8c7d23c6f658b90efe99",
            "2.12.9": "f3ed79d8c9ad4decca2bf43aae223a9c976caaa514bf1fff2bb8b809b1f157f6",
            "2.12.10": "feb1df61738cfc1f5e893b42a2ec1a7de32977d67e86707b45eb63d0c5c3c236",
        },
    ),
    (
        "babel",
        True,
        {
            "2.12.1": "b4246fb7677d3b98f501a39d43396d3cafdc8eadb045f4a31be01863f655c610",
            "2.13.1": "7077a4984b02b6727ac10f1f7294484f737443d7e2e66c5e4380e41a3ae0b4ed",
            "2.14.0": "efb1a25b7118e67ce3a259bed20545c29cb68be8ad2c784c83689981b7a57287",
            "2.15.0": "08706bdad8d0a3413266ab61bd6c34d0c28d6e1e7badf40a2cebe67644e2e1fb",
            "2.16.0": "368b5b98b37c06b7daf6696391c3240c938b37767d4584413e8438c5c435fa8b",
            "2.17.0": "4d0b53093fdfb4b21c92b5213dba5a1b23885afa8383709427046b21c366e5f2",
        },
    ),
)

# Filled from a build on a clean machine; what a later build finds must equal this.
PINNED: tuple[Count, ...] = (
    Count(
        14422,
        225,
        33,
        141910987,
        "f594d9c02f705d70da9952d9129f510b932a399df0e73915917805ee4b558832",
    ),
    Count(
        14460,
        225,
        33,
        128840875,
        "8027ccb1ca67904dede7bf6af2ce1d15d2043c10695ff4d264c0d68206db7e33",
    ),
    Count(
        14667,
        225,
        33,
        132216685,
        "312abaaf1df9c1ee9f30e22b8d1880c294dc6bccf045984d96b5e0ece25f7260",
    ),
    Count(
        14858,
        225,
        33,
        129729001,
        "6ac4f75ccbb3e4d758ca0285bbc927142cf4a6cb9ae4a2d625e0314959830713",
    ),
    Count(
        14871,
        225,
        33,
        129680887,
        "c6eec6f74b802b7a7c15f5d91e6b19abe1da0e4e52bdbbc321acc47efb76fc32",
    ),
    Count(
        14900,
        192,
        33,
        132668277,
        "c1e2381cfb72857f0701c3e1da995c2d7e51aad3bec8b2cf11c2f5f6384e5d92",
    ),
)


def states(root: Path | None = None) -> list[Path]:
    """The six states of corpus A, oldest first, built where missing.

    Raises CorpusError when a download or a state differs from its pin.
    """
    root = ready(root)
    releases = [archives_of(*project) for project in _CORPUS_A]
    return [
        unpacked(root, "corpus-a", f"v{number}", archives, pinned)
        for number, (pinned, *archives) in enumerate(zip(PINNED, *releases, strict=True), start=1)
    ]


def releases_of(project: str, *versions: str) -> list[Archive]:
    """Releases of a project of corpus A, for other corpora made from the same downloads."""
    found = [archive for entry in _CORPUS_A for archive in archives_of(*entry)]
    return [a for v in versions for a in found if (a.project, a.version) == (project, v)]


def change_files(tree: Path, seed: int, how_many: int = 10) -> list[Path]:
    """Insert one line in the middle of `how_many` seeded Python files of `tree`, in place.

    The same tree and seed change the same files; another seed changes others, and the line holds
    the seed, so no two calls give the same content. Returns the paths changed.
    """
    rng = random.Random(seed)
    candidates = [
        path
        for relative, path in walk(tree)
        if relative.endswith(b".py") and not path.is_symlink() and path.stat().st_size > 200
    ]
    chosen = rng.sample(candidates, how_many)
    for path in chosen:
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(len(lines) // 2, b"# edit %d %016x\n" % (seed, rng.getrandbits(64)))
        path.write_bytes(b"".join(lines))
    return chosen


def main() -> None:
    """Build, or verify, every state and print what it holds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--root", type=Path, help=f"cache folder (${ROOT_VARIABLE}, .bench/)")
    parser.add_argument("--verify", action="store_true", help="hash every file again")
    options = parser.parse_args()
    for folder, pinned in zip(states(options.root), PINNED, strict=True):
        found = count(folder) if options.verify else pinned
        verdict = "as pinned" if found == pinned else f"DIFFERS from {pinned}"
        print(
            f"{folder}: {found.files} files ({found.executables} executable), {found.links} links,"
            f" {found.file_bytes / 1e6:.1f} MB, {verdict}"
        )
        if found != pinned:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
