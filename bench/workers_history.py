"""The history rows, alone in a process: merges, undos, and the log of a path.

`python workers_history.py cas` talks as `workers.py` does. Invariant: what is timed is the call
under test alone; branches and edits are made before the clock starts, and every answer is checked.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.workers import Cas, entry_name, serve

Request = dict[str, Any]


class History(Cas):
    """The product, asked for what it does with history."""

    def do_fork(self, request: Request) -> dict[str, Any]:
        """Two branches from the filled one, each with `changes` edits of entries of its own."""
        names = self.rng.sample(range(self.entries), 2 * request["changes"])
        head = self.store.resolve(self.branch)
        for side, branch in enumerate(request["branches"]):
            with self.store.begin(author="bench", message="fork") as tx:
                tx.move("heads/" + branch, head)
                tx.commit()
            with self.store.begin(author="bench", message="edit") as tx:
                edit = tx.branch(branch)
                for number in names[side::2]:
                    edit[entry_name(number)] = self.rng.randbytes(100)
                tx.commit()
        return {}

    def do_merge(self, request: Request) -> dict[str, Any]:
        """Seconds of one merge, its commit included."""
        into, other = request["branches"]
        self.store.resolve(into)
        started = time.perf_counter()
        done = self.store.merge(into, other, author="bench", message="merge")
        seconds = time.perf_counter() - started
        changed = sum(1 for _ in self.store.diff(f"{into}~1", into))
        if not done.clean or changed != request["changes"]:
            raise AssertionError(f"{changed} changes arrived, {len(done.conflicts)} conflicts")
        return {"seconds": seconds}

    def do_entries(self, request: Request) -> dict[str, Any]:
        """That many entries, every other of them to a branch that no later one moves."""
        for number in range(request["count"]):
            with self.store.begin(author="bench", message="m") as tx:
                branch = f"one/{number + 1}" if number % 2 else "main"
                tx.branch(branch)["file"] = b"%d" % number
                tx.commit()
        return {}

    def do_undo(self, request: Request) -> dict[str, Any]:
        """Seconds of each undo of `count` entries drawn from all."""
        seconds = []
        for seq in self.rng.sample(range(2, request["entries"] + 1, 2), request["count"]):
            started = time.perf_counter()
            done = self.store.undo(seq, author="bench")
            seconds.append(time.perf_counter() - started)
            if done.entry is None or self.store.view().ref(f"heads/one/{seq}") is not None:
                raise AssertionError(f"entry {seq} was not undone")
        return {"seconds": seconds}

    def do_room(self, request: Request) -> dict[str, Any]:
        """A folder of this writer alone with `entries` names in it."""
        self.room = request["folder"]
        self.entries = request["entries"]
        with self.store.begin(author="bench", message="room") as tx:
            branch = tx.branch(self.branch)
            for number in range(self.entries):
                branch[f"{self.room}/{entry_name(number)}"] = b"%d" % number
            tx.commit()
        return {}

    def do_prepare_room(self, request: Request) -> dict[str, Any]:
        """Names in that folder and contents for at most `count` commits."""
        self.prepared = [
            (f"{self.room}/{name}", content) for name, content in self.work(request["count"])
        ]
        return {}

    def do_race_room(self, request: Request) -> dict[str, Any]:
        """Commits from `start` to `stop`, and how many of them were shown a conflict."""
        ahead = request["start"] - time.monotonic()
        time.sleep(max(0.0, ahead))
        commits = conflicts = 0
        for name, content in self.prepared:
            if time.monotonic() >= request["stop"]:
                break
            try:
                self.commit(name, content)
                commits += 1
            except self.cas.RefConflict:
                conflicts += 1
        enough = commits < len(self.prepared)
        return {"commits": commits, "conflicts": conflicts, "valid": enough and ahead >= 0}

    def do_import_git(self, request: Request) -> dict[str, Any]:
        """Seconds of taking in a folder of git, the close that carries the rest included."""
        take = importlib.import_module("cas.worktree.gitrefs").import_git
        started = time.perf_counter()
        report = take(self.store, request["git"])
        return {"seconds": time.perf_counter() - started, "commits": report.commit_count}

    def do_compare_git(self, request: Request) -> dict[str, Any]:
        """Compare the tree of every commit with the one that git names."""
        values = importlib.import_module("cas.worktree.gitvalues")
        known: dict[bytes, bytes] = {}
        seen: set[bytes] = set()
        for ref in self.store.view().refs():
            for id, commit in self.store.log(ref.target):
                if id in seen:
                    continue
                seen.add(id)
                git = commit.extras[values.KEY]
                if self._git_tree(commit.tree, git.get("odd", ()), known) != git["tree"]:
                    raise AssertionError(f"{id} has another tree than {git['id'].hex()} in git")
        return {"trees": len(seen)}

    def _git_tree(self, root: bytes, odd: Any, known: dict[bytes, bytes]) -> bytes:
        """What git calls a directory of the store; `odd` is what git has beside it."""
        if not odd and root in known:
            return known[root]
        paths = importlib.import_module("cas.trees.paths")
        nodes = self.store.objects.tree_nodes(importlib.import_module("cas.trees.node").DIRECTORY)
        rows: dict[bytes, tuple[bytes, bytes]] = {}
        below: dict[bytes, list[Any]] = {}
        for path, mode, id in odd:
            name, slash, rest = path.partition(b"/")
            if slash:
                below.setdefault(name, []).append((rest, mode, id))
            else:
                rows[name] = (mode, id)
        for name, entry in paths.list_directory(root, (), nodes):
            if entry.is_tree:
                rows[name] = (b"40000", self._git_tree(entry.id, below.get(name, ()), known))
            elif name not in rows:
                if entry.id not in known:
                    data = self.store.get(entry.id)
                    known[entry.id] = sha1(b"blob %d\0" % len(data) + data).digest()
                mode = {1: b"100644", 2: b"100755", 3: b"120000"}[int(entry.kind)]
                rows[name] = (mode, known[entry.id])
        order = sorted(rows, key=lambda name: name + b"/" * (rows[name][0] == b"40000"))
        data = b"".join(b"%b %b\0%b" % (rows[name][0], name, rows[name][1]) for name in order)
        id = sha1(b"tree %d\0" % len(data) + data).digest()
        if not odd:
            known[root] = id
        return id

    def do_history(self, request: Request) -> dict[str, Any]:
        """A folder, then `count` commits of one file each, here and in a git folder beside it."""
        importer = importlib.import_module("cas.worktree.importer")
        importer.import_folder(self.store, request["folder"], branch=self.branch, message="m")
        paths = [path for path, _entry in self.store.snapshot(self.branch).walk()]
        hot = request["hot"] = self.rng.choice(paths)
        plan = [
            hot if self.rng.random() < 0.01 else self.rng.choice(paths)
            for _ in range(request["count"])
        ]
        for number, path in enumerate(plan):
            with self.store.begin(author="bench", message=f"change {number}") as tx:
                tx.branch(self.branch)[path] = b"%d" % number
                tx.commit()
        self.store.spill()
        git = ["git", "-C", request["git"]]
        subprocess.run([*git, "init", "-q", "--bare", "-b", "main"], check=True)
        feed = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
        assert feed.stdin is not None
        for part in self._stream(plan):
            feed.stdin.write(part)
        feed.stdin.close()
        if feed.wait():
            raise AssertionError("git fast-import failed")
        subprocess.run([*git, "repack", "-adq"], check=True)
        return {"path": hot}

    def _stream(self, plan: list[str]) -> Iterator[bytes]:
        """The same history for `git fast-import`, paths by paths as bytes."""
        first = self.store.snapshot(f"{self.branch}~{len(plan)}")
        yield _commit(0, b"m")
        for path, entry in first.walk():
            yield _file(path, b"" if entry.kind == 3 else first[path])
        for number, path in enumerate(plan):
            yield _commit(number + 1, b"change %d" % number)
            yield _file(path, b"%d" % number)

    def do_log(self, request: Request) -> dict[str, Any]:
        """Seconds of the whole log of a path, as often as asked, and how many commits it has."""
        seconds, found = [], 0
        for _ in range(request["count"]):
            started = time.perf_counter()
            found = sum(1 for _ in self.store.log(self.branch, path=request["path"]))
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "found": found}


def _commit(number: int, message: bytes) -> bytes:
    who = b"committer bench <bench@localhost> %d +0000" % (1_700_000_000 + number)
    return b"commit refs/heads/main\n%s\ndata %d\n%s\n" % (who, len(message), message)


def _file(path: str, content: bytes) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    quoted = b'"%s"' % name.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b"M 644 inline %s\ndata %d\n%s\n" % (quoted, len(content), content)


if __name__ == "__main__":
    serve({"cas": History}[sys.argv[1]])
