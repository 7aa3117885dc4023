"""The store at work on real releases of a real project, each claim proved before it is made.

`python3 tools/dev.py demo`. Takes four releases of the library pygments from the package registry
(4.9 MB, pinned by SHA-256), saves each as a commit of one branch, and looks at what came of it:
history, changes, sizes, a restore compared byte for byte with what was downloaded, a check of
the whole store, the store as of an earlier moment, and one transaction over two branches; then a
team of agents works two sprints (`demo_team`). Works in a temporary folder and leaves nothing
behind. Ends with 1 when a proof fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cas  # noqa: E402 - the checkout, wherever this is started
from cas.cli.form import size  # noqa: E402
from tools.demo_team import sprints  # noqa: E402
from tools.releases import CorpusError, demo_releases  # noqa: E402
from tools.stage import ProofFailed, note, paint, proved, run, title  # noqa: E402


def files_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and link below a folder: path -> (kind, content)."""
    return dict(sorted(_walk(folder)))


def _walk(folder: Path) -> Iterator[tuple[str, tuple[str, bytes]]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield name, ("link", os.readlink(path).encode())
        elif path.is_file():
            kind = "executable" if path.stat().st_mode & 0o100 else "file"
            yield name, (kind, path.read_bytes())


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder, caches left out."""
    return sum(
        p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.parent.name != "cache"
    )


def save_releases(home: Path, releases: list[tuple[str, Path]]) -> dict[str, str]:
    """One commit a release on the branch main; release -> commit."""
    title("Save each release as a commit")
    run("init", folder=home)
    commits = {}
    for version, folder in releases:
        shutil.rmtree(home / "work", ignore_errors=True)
        shutil.copytree(folder, home / "work", symlinks=True)
        commits[version] = run("snapshot", "work", "-m", f"pygments {version}", folder=home).strip()
    note("The store is .cas; `work` held one release after the other, as a working folder does.")
    return commits


def look_back(home: Path, releases: list[tuple[str, Path]]) -> None:
    """History and changes, the latter compared with the downloaded folders."""
    title("Look back")
    log = run("log", folder=home)
    proved("every release is a commit", len(log.splitlines()) == len(releases))
    told = run("diff", "main~1", "main", folder=home).splitlines()
    before, after = files_of(releases[-2][1]), files_of(releases[-1][1])
    names = [n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n)]
    proved("exactly the paths that differ are named", sorted(t[2:] for t in told) == names)
    changed = next(t[2:] for t in told if t.startswith("M ") and t.endswith(".py"))
    print()
    run("diff", "--patch", f"main~1:{changed}", f"main:{changed}", folder=home, lines_max=14)


def weigh(home: Path, releases: list[tuple[str, Path]]) -> None:
    """What deduplication and compression make of the releases."""
    title("Sizes")
    contents: list[bytes] = []
    for _version, folder in releases:
        contents += [content for _kind, content in files_of(folder).values()]
    total = sum(map(len, contents))
    once = sum(map(len, set(contents)))
    squeezed = sum(min(len(c), len(zlib.compress(c, 6))) for c in set(contents))
    stored = bytes_below(home / ".cas")
    rows = [
        (f"all files of {len(releases)} releases", total),
        ("each distinct content once", once),
        ("the same, each compressed by zlib", squeezed),
        ("the store, history and catalog included", stored),
    ]
    for words, count_bytes in rows:
        bar = "#" * round(40 * count_bytes / total)
        print(f"  {words:40} {size(count_bytes):>9}  {paint(bar, '36')}")
    proved("the store is smaller than each distinct content once", stored < once)


def restore(home: Path, releases: list[tuple[str, Path]]) -> None:
    """Every release comes back byte for byte; unsaved work is safe."""
    title("Restore, and prove it byte for byte")
    mine = max((home / "work").rglob("*.py"), key=lambda path: path.stat().st_size)
    mine.write_text("# hours of unsaved work\n")
    print(paint("$ cas restore main work", "1"))
    refused = subprocess.run(
        [sys.executable, "-m", "cas", "restore", "main", "work"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    note(textwrap.fill(refused.stderr.strip(), 96, initial_indent="  ", subsequent_indent="  "))
    kept = mine.read_text() == "# hours of unsaved work\n"
    proved("unsaved work is not overwritten (exit 4)", refused.returncode == 4 and kept)
    for age, (version, folder) in enumerate(reversed(releases)):
        place = f"back-{version}"
        run("restore", f"main~{age}", place, folder=home)
        proved(
            f"{version} is what was downloaded, every byte, link and executable bit",
            files_of(home / place) == files_of(folder),
        )


def check(home: Path) -> None:
    """The whole store is read, hashed and followed."""
    title("Check the store")
    run("fsck", folder=home)
    proved("every object, every history and the journal are sound", True)


def in_python(home: Path) -> None:
    """The embedded store: another moment, and two branches in one transaction."""
    title("The same store in Python")
    with cas.open(home / ".cas") as store:
        note('with cas.open(".cas") as store:')
        then = store.at(1)
        first, now = then.snapshot("main"), store.snapshot("main")
        print(f"  store.at(1)    main is {first!r}, {len(first)} files")
        print(f"  store.view()   main is {now!r}, {len(now)} files")
        proved("store.at shows the store as it was", first.id == store.resolve("main~3"))

        note("\nwith store.begin(...) as tx:   # two branches, one event, all or nothing")
        with store.begin(author="planner", message="sprint 12 review") as tx:
            tx.branch("artifacts/main")["reviews/s12.md"] = b"# Review\n"
            tx.branch("planning/main")["sprints/s12"] = b'{"status": "closed"}\n'
            tx.event("sprint.closed", b"s12")
            unseen = store.view().ref("heads/planning/main") is None
            entry = tx.commit()
        proved("before the commit nobody sees any of it", unseen)
        moved = [change.ref for change in entry.changes]
        print(f"  entry {entry.seq}: {', '.join(moved)} and {len(entry.events)} event")
        proved(
            "one journal entry moved both branches",
            moved == ["heads/artifacts/main", "heads/planning/main"],
        )

        note("\n# somebody else writes the same file while a transaction is open")
        seq = store.view().seq
        refused = conflicting(store)
        print(f"  {type(refused).__name__}: {str(refused)[:90]}…")
        proved(
            "then nothing of it is committed, the other branch neither",
            store.view().seq == seq + 1 and "late" not in store.snapshot("artifacts/main"),
        )
    print()
    run("journal", "-n", "3", folder=home)
    run("fsck", folder=home)


def conflicting(store: cas.Store) -> cas.RefConflict:
    """Two transactions that write one file: the second is refused."""
    with store.begin(author="slow", message="both branches") as slow:
        slow.branch("artifacts/main")["late"] = b"1"
        slow.branch("planning/main")["sprints/s13"] = b"2"
        with store.begin(author="fast", message="was faster") as fast:
            fast.branch("planning/main")["sprints/s13"] = b"new"
            fast.commit()
        try:
            slow.commit()
        except cas.RefConflict as conflict:
            return conflict
    raise ProofFailed("two that write one file are a conflict")


def main() -> int:
    """Run the demo; 0 when every proof holds."""
    title("Releases from the package registry")
    try:
        releases = demo_releases()
    except CorpusError as error:
        print(f"demo: the releases cannot be had: {error}", file=sys.stderr)
        return 1
    for version, folder in releases:
        found = files_of(folder)
        total = sum(len(content) for _kind, content in found.values())
        print(f"  pygments {version:8} {len(found):3} files {size(total):>9}")
    with tempfile.TemporaryDirectory(prefix="cas-demo-") as name:
        home = Path(name)
        try:
            save_releases(home, releases)
            look_back(home, releases)
            weigh(home, releases)
            restore(home, releases)
            check(home)
            in_python(home)
            sprints(home / "team")
        except ProofFailed as failure:
            print(paint("NOT SO: ", "1;31") + str(failure), file=sys.stderr)
            return 1
    print("\n" + paint("Every proof holds.", "1;32"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
