"""A workload: named steps on a store, beside a plain model of what must come of them.

Invariant: the model knows, at every moment, what was acknowledged and what is under way; both are
marked in the recorder's log, so that every state a crash can leave can be judged. Steps draw their
content from a seed: equal seeds give equal operations.

An error of the store (`CasError`) is taken as its answer: the model forgets what was refused and
keeps what turned out committed, and `doubts` holds what not even its txid could resolve.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cas.errors import CasError, OutcomeUnknown
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.limits import KIB, MIB, Thresholds
from cas.model.ids import BlobId, Kind, digest_of
from cas.storage.files import OS_FILES, Files
from cas.testing.archiving import archive_behind
from cas.testing.memories import MEMORY_STEPS
from cas.testing.model import Expected, Model, Progress
from cas.testing.recorder import Beside, Recorder
from cas.testing.stores import SMALL, SteppedClock, build, copy_the_log, cut_the_log
from cas.testing.versions import put_on, versions_of


class Driver:
    """Runs steps on one store folder. One thread."""

    def __init__(
        self,
        folder: str,
        *,
        seed: int | str,
        model: Model | None = None,
        recorder: Recorder | None = None,
        files: Files = OS_FILES,
        vfs: str | None = None,
        thresholds: Thresholds = SMALL,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.clock_seed = str(seed)
        self.model = model or Model()
        self.recorder = recorder
        self.files = files
        self.vfs = vfs
        self.thresholds = thresholds
        self.cached = False
        self.step = "open"
        self.acked_seq = len(self.model.entries) - 1
        self.acked_puts = len(self.model.puts)
        self.refused: list[CasError] = []
        self.doubts: list[bytes] = []
        self._random = random.Random(f"driver {seed}")
        self._handles = 0
        self._second: Store | None = None
        self._store: Store | None = None

    # -- handles -----------------------------------------------------------------------------

    def open(self) -> Store:
        """A further handle, with a clock of its own."""
        self._handles += 1
        clock = SteppedClock(f"{self.clock_seed} {self._handles}")
        return build(
            self.folder,
            clock=clock,
            files=self.files,
            vfs=self.vfs,
            thresholds=self.thresholds,
            cached=self.cached,
        )

    @property
    def store(self) -> Store:
        """The handle that the steps use."""
        if self._store is None:
            self._store = self.open()
        return self._store

    @property
    def second(self) -> Store:
        """Another handle on the same folder, as another process would have."""
        if self._second is None:
            self._second = self.open()
        return self._second

    def close(self) -> None:
        """Close every handle, whatever one of them says; raises the last error."""
        handles = [self._second, self._store]
        self._second = self._store = None
        failure: CasError | None = None
        for store in handles:
            if store is not None:
                try:
                    store.close()
                except CasError as error:
                    failure = error
        if failure is not None:
            raise failure

    # -- what the steps are made of ----------------------------------------------------------

    def fresh(self, size_bytes: int) -> bytes:
        """New content that does not compress."""
        return self._random.randbytes(size_bytes)

    @property
    def progress(self) -> Progress:
        """Where the workload is."""
        model = self.model
        return Progress(
            self.step, self.acked_seq, len(model.entries) - 1, self.acked_puts, len(model.puts)
        )

    def mark(self) -> None:
        """Write the progress into the log."""
        if self.recorder is not None:
            self.recorder.mark(self.progress)

    def put(self, contents: Sequence[bytes], call: Callable[[], Iterable[BlobId]]) -> None:
        """Put what `call` puts, visible together."""
        model = self.model
        before = len(model.puts)
        model.puts += [digest_of(Kind.BLOB, content) for content in contents]
        model.groups.append((before, len(model.puts)))
        self.mark()
        try:
            ids = list(call())
        except CasError as error:
            self.refused.append(error)
            del model.puts[before:]
            model.groups.pop()
        else:
            assert ids == model.puts[before:], "put gave another id"
            self.acked_puts = len(model.puts)
        self.mark()

    def commit(
        self,
        changes: Mapping[str, Mapping[str, bytes | None]],
        *,
        store: Store | None = None,
        events: Sequence[tuple[str, bytes]] = (),
        key: str | None = None,
        tag: str | None = None,
        delete: str | None = None,
        forget: bool = False,
    ) -> None:
        """Commit changes to branches (None removes a path), events, a tag of the first branch;
        `forget` raises the horizon to what is there.
        """
        model = self.model
        refs = {name: dict(files) for name, files in model.entries[-1].refs.items()}
        for branch, files in changes.items():
            after = refs.setdefault("heads/" + branch, {})
            for path, content in files.items():
                if content is None:
                    del after[path]
                else:
                    after[path] = digest_of(Kind.BLOB, content)
        if tag is not None:
            refs["tags/" + tag] = dict(refs["heads/main"])
        if delete is not None:
            del refs[delete]
        model.entries.append(Expected(refs, tuple(events), key))
        self.mark()
        txid = b""
        try:
            with (store or self.store).begin(
                author="driver", message=f"entry {len(model.entries) - 1}", key=key
            ) as tx:
                txid = tx.txid
                for branch, files in changes.items():
                    edit = tx.branch(branch)
                    for path, content in files.items():
                        if content is None:
                            del edit[path]
                        else:
                            edit[path] = content
                for kind, body in events:
                    tx.event(kind, body)
                if tag is not None:
                    tx.tag(tag, self.store.resolve("main"))
                if delete is not None:
                    tx.delete(delete)
                if forget:
                    stage_raise(self.store.core, tx, self.store.view().seq, {})
                entry = tx.commit()
                assert entry.seq == len(model.entries) - 1, "an entry has another number"
        except OutcomeUnknown as error:
            self._doubt(error, txid)
        except CasError as error:
            self.refused.append(error)
            model.entries.pop()
        self.acked_seq = len(model.entries) - 1 - len(self.doubts)
        self.mark()

    def _doubt(self, error: OutcomeUnknown, txid: bytes) -> None:
        assert error.txid == txid, "an unknown outcome names its transaction"
        self.doubts.append(txid)
        self.resolve()

    def resolve(self) -> None:
        """Ask what became of the transaction in doubt, if the store can be asked now."""
        if not self.doubts:
            return
        try:
            entry = self.store.outcome(self.doubts[-1])
        except CasError as error:
            self.refused.append(error)
            return
        self.doubts.pop()
        if entry is None:
            self.model.entries.pop()
        self.acked_seq = len(self.model.entries) - 1

    def run(self, steps: Iterable[str]) -> None:
        """Run named steps; stops early while an outcome is in doubt."""
        for name in steps:
            if self.doubts:
                return
            self.step = name
            try:
                STEPS[name](self)
            except CasError as error:
                self.refused.append(error)


# -- the steps -------------------------------------------------------------------------------

LARGE: Final = 70 * KIB
"""Above what lies inline: such an object goes into a pack file."""


def _put(driver: Driver) -> None:
    content = driver.fresh(300)
    driver.put([content], lambda: [driver.store.put(content)])


def _put_many(driver: Driver) -> None:
    contents = [driver.fresh(200) for _ in range(3)]
    driver.put(contents, lambda: driver.store.put_many(contents))


def _put_file(driver: Driver) -> None:
    contents = [driver.fresh(LARGE), driver.fresh(LARGE), driver.fresh(LARGE)]
    driver.put(contents, lambda: driver.store.put_many(contents))


def _put_files(driver: Driver) -> None:
    """More than one group of the compressors, so that the batch rolls to a second pack."""
    contents = [driver.fresh(LARGE) for _ in range(16)]
    driver.put(contents, lambda: driver.store.put_many(contents))


def _versions(driver: Driver) -> None:
    """A content, then later ones as deltas of it, then of one of those."""
    contents = versions_of(driver.fresh(3000), 5)
    driver.put(contents[:1], lambda: [driver.store.put(contents[0])])
    driver.put(contents[1:3], lambda: put_on(driver.store, contents[0], contents[1:3]))
    driver.put(contents[3:], lambda: put_on(driver.store, contents[2], contents[3:]))


def _stream(driver: Driver) -> None:
    # Long enough for a recipe; all zeros but for its end, so that it is stored in a few chunks.
    content = bytes(9 * MIB) + driver.fresh(64)
    driver.put([content], lambda: [driver.store.put(io.BytesIO(content))])


def _commit(driver: Driver) -> None:
    driver.commit({"main": {f"notes/{driver.fresh(2).hex()}.md": driver.fresh(100)}})


def _multi(driver: Driver) -> None:
    driver.commit(
        {
            "main": {"status": driver.fresh(50)},
            "plans/main": {f"sprints/{driver.fresh(2).hex()}": driver.fresh(50)},
            "audit/main": {"log": driver.fresh(50)},
        },
        events=[("Reviewed", driver.fresh(20)), ("Measured", driver.fresh(400))],
    )


def _keyed(driver: Driver) -> None:
    """Two attempts with one key at once, and a third later: all give one entry."""
    path, content = f"once/{driver.fresh(2).hex()}", driver.fresh(60)
    key = driver.fresh(8).hex()
    refused = len(driver.refused)
    seq = len(driver.model.entries)

    def again() -> Transaction:
        tx = driver.store.begin(author="driver", message=f"entry {seq}", key=key)
        tx.branch("main")[path] = content
        return tx

    with again() as late:
        driver.commit({"main": {path: content}}, key=key)
        if len(driver.refused) > refused or driver.doubts:
            return
        assert late.commit().seq == seq, "a key committed twice"
    with again() as later:
        assert later.commit().seq == seq, "a key committed twice"


def _commit_file(driver: Driver) -> None:
    name = driver.fresh(2).hex()
    files = {f"data/{name}.bin": driver.fresh(LARGE), f"data/{name}.txt": driver.fresh(80)}
    driver.commit({"main": files})


def _remove(driver: Driver) -> None:
    files = driver.model.entries[-1].refs.get("heads/main", {})
    if files:
        driver.commit({"main": {min(files): None}})
    else:
        driver.commit({"main": {"first": driver.fresh(10)}})


def _tag(driver: Driver) -> None:
    refs = driver.model.entries[-1].refs
    old = [name for name in refs if name.startswith("tags/")]
    if old:
        driver.commit({}, delete=old[0])
    elif "heads/main" in refs:
        driver.commit({}, tag=f"v{len(driver.model.entries)}")
    else:
        driver.commit({"main": {"first": driver.fresh(10)}})


def _second(driver: Driver) -> None:
    changes = {"main": {f"other/{driver.fresh(2).hex()}": driver.fresh(100)}}
    driver.commit(changes, store=driver.second)


def _crossed(driver: Driver, step: Callable[[Driver], object], other: Callable[[], None]) -> None:
    """A step, and in its middle what another handle does; one after the other if unwatched."""
    _ = driver.second
    if driver.recorder is None:
        other()
        step(driver)
        return
    hook = driver.recorder.hook
    driver.recorder.hook = Beside(hook, other)
    try:
        step(driver)
    finally:
        driver.recorder.hook = hook


def _spill_crossed(driver: Driver) -> None:
    _put(driver)
    _crossed(driver, _spill, lambda: _second(driver))


def _put_crossed(driver: Driver) -> None:
    def beside() -> None:
        _second(driver)
        driver.second.spill()

    _commit(driver)
    _crossed(driver, _put_file, beside)


def _spill(driver: Driver) -> None:
    driver.store.spill()


def _mirror(driver: Driver) -> None:
    _commit(driver)
    driver.store.mirror()


def _gc(driver: Driver) -> None:
    """A branch comes and goes, is forgotten, and what it held is collected."""
    _draft(driver)
    driver.store.gc()


def _draft(driver: Driver) -> None:
    name = f"draft/{driver.fresh(2).hex()}"
    kept, large, other = driver.fresh(2).hex(), driver.fresh(LARGE), driver.fresh(LARGE)
    files = {"main": {f"kept/{kept}": large}, name: {"data": other, "note": driver.fresh(50)}}
    changes: tuple[Callable[[], None], ...] = (
        lambda: driver.commit(files),
        lambda: driver.commit({}, delete="heads/" + name),
        lambda: driver.commit({}, forget=True),
    )
    refused = len(driver.refused)
    for change in changes:
        if len(driver.refused) == refused and not driver.doubts:
            change()


def _gc_crossed(driver: Driver) -> None:
    """A commit of another handle while gc writes what it moves."""
    _draft(driver)
    _crossed(driver, lambda driver: driver.store.gc(), lambda: _second(driver))


def _reopen(driver: Driver) -> None:
    driver.close()
    _ = driver.store


STEPS: Final[Mapping[str, Callable[[Driver], None]]] = {
    "put": _put,
    "put many": _put_many,
    "put file": _put_file,
    "put files": _put_files,
    **MEMORY_STEPS,
    "versions": _versions,
    "stream": _stream,
    "commit": _commit,
    "multi": _multi,
    "keyed": _keyed,
    "commit file": _commit_file,
    "remove": _remove,
    "tag": _tag,
    "second": _second,
    "spill": _spill,
    "spill beside a commit": _spill_crossed,
    "put beside a spill": _put_crossed,
    "mirror": _mirror,
    "archive": lambda driver: archive_behind(driver, _keyed, _commit),
    "gc": _gc,
    "gc beside a commit": _gc_crossed,
    "wal": lambda driver: cut_the_log(driver.store),
    "passive": lambda driver: copy_the_log(driver.store, driver.vfs),
    "reopen": _reopen,
}
