"""Contenders of the row `commit-peers`, alone in a process: dulwich, ZODB, agentfs-sdk.

`python workers_peers.py KIND` talks as `workers.py` does, under the interpreter of the peers.
Invariant: each does what it calls a commit, as it comes, of the same 1 KB and the same names.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file, see workers_batch.py
    del sys.path[0]
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.workers import Writer, entry_name, serve

Request = dict[str, Any]


class Dulwich(Writer):
    """blob + tree + commit as loose objects and a ref, in a folder of `entries` names."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.objects: Any = importlib.import_module("dulwich.objects")
        repo: Any = importlib.import_module("dulwich.repo")
        self.path.mkdir()
        self.store = repo.Repo.init_bare(str(self.path))
        self.tree: Any = self.objects.Tree()
        self.head: bytes | None = None

    def do_fill(self, request: Request) -> dict[str, Any]:
        self.entries = request["entries"]
        blob = self.objects.Blob.from_string(b"first content\n")
        self.store.object_store.add_object(blob)
        for number in range(self.entries):
            self.tree.add(entry_name(number).encode(), 0o100644, blob.id)
        self._move()
        return {}

    def commit(self, name: str, content: bytes) -> None:
        blob = self.objects.Blob.from_string(content)
        self.store.object_store.add_object(blob)
        self.tree.add(name.encode(), 0o100644, blob.id)
        self._move()

    def _move(self) -> None:
        commit = self.objects.Commit()
        commit.tree = self.tree.id
        commit.parents = [self.head] if self.head else []
        commit.author = commit.committer = b"bench <bench@example.invalid>"
        commit.author_time = commit.commit_time = 0
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"m"
        self.store.object_store.add_object(self.tree)
        self.store.object_store.add_object(commit)
        self.head = commit.id
        self.store.refs[b"refs/heads/" + self.branch.encode()] = self.head

    def do_version(self, request: Request) -> dict[str, Any]:
        dulwich: Any = importlib.import_module("dulwich")
        return {"version": ".".join(map(str, dulwich.__version__))}


class Zodb(Writer):
    """FileStorage, an OOBTree of `entries` names, one transaction a commit."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        zodb: Any = importlib.import_module("ZODB")
        files: Any = importlib.import_module("ZODB.FileStorage")
        trees: Any = importlib.import_module("BTrees.OOBTree")
        self.transaction: Any = importlib.import_module("transaction")
        self.db = zodb.DB(files.FileStorage(str(self.path)))
        root = self.db.open().root()
        self.tree = root["tree"] = trees.OOBTree()

    def do_fill(self, request: Request) -> dict[str, Any]:
        self.entries = request["entries"]
        for number in range(self.entries):
            self.tree[entry_name(number)] = b"first content\n"
        self.transaction.commit()
        return {}

    def commit(self, name: str, content: bytes) -> None:
        self.tree[name] = content
        self.transaction.commit()

    def close(self) -> None:
        self.db.close()

    def do_version(self, request: Request) -> dict[str, Any]:
        return {"version": importlib.import_module("importlib.metadata").version("ZODB")}


class Agentfs(Writer):
    """`kv.set` of agentfs-sdk: one key a commit, no versions."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        sdk: Any = importlib.import_module("agentfs_sdk")
        self.loop = asyncio.new_event_loop()
        os.chdir(self.path.parent)
        options = sdk.AgentFSOptions(path=str(self.path))
        self.fs = self.loop.run_until_complete(sdk.AgentFS.open(options))

    def do_fill(self, request: Request) -> dict[str, Any]:
        self.entries = request["entries"]
        for number in range(self.entries):
            self.commit(entry_name(number), b"first content\n")
        return {}

    def commit(self, name: str, content: bytes) -> None:
        self.loop.run_until_complete(self.fs.kv.set(name, content.hex()))

    def close(self) -> None:
        self.loop.run_until_complete(self.fs.close())

    def do_version(self, request: Request) -> dict[str, Any]:
        return {"version": importlib.import_module("importlib.metadata").version("agentfs-sdk")}


KINDS: dict[str, type[Writer]] = {"dulwich": Dulwich, "zodb": Zodb, "agentfs": Agentfs}

if __name__ == "__main__":
    serve(KINDS[sys.argv[1]])
