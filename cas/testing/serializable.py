"""Whether a recorded history is strictly serializable: as if each transaction had run alone, at
one moment between its beginning and its end.

Invariant: pure. The store claims one order, that of its journal, so nothing has to be searched:
every transaction is run again in that order on a dictionary, and what it read has to be what it
reads there, what the store changed has to be what it changes there. Time and memory grow with
what was recorded, but for one sort.

What is looked for:

- a read, a missing name or a listing that is not that of the state just before the entry (stale
  reads, lost updates, phantoms, write skew between refs);
- an entry that nobody asked for, that stands twice, or that a refused transaction left;
- a commit that was acknowledged and has no entry, or changed more or less than was asked;
- a transaction that began behind an entry older than one acknowledged before, or ran at a place
  in the order that its times forbid;
- a transaction, be it refused later, that did not see exactly one moment;
- a refusal without anybody having touched what was read or written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import attrs

from cas.testing.attempts import Attempt, History, Made, Moved, Op

Files = dict[str, bytes]


@attrs.define
class _Branch:
    """A ref of the model: where it points, and the files there."""

    target: bytes
    files: Files


_State = dict[str, _Branch]


@attrs.define
class _Run:
    """What a transaction does to a state, and where it read something else than it says."""

    wrong: list[str] = attrs.field(factory=list)
    # Files of edited refs as they are afterwards, by what differs.
    edits: dict[str, dict[str, bytes | None]] = attrs.field(factory=dict)
    moves: dict[str, bytes | None] = attrs.field(factory=dict)


def check(history: History, *, findings_max: int = 20) -> list[str]:
    """What is wrong with a history; nothing where it is strictly serializable."""
    found: list[str] = []
    for finding in _Check(history).findings():
        found.append(finding)
        if len(found) == findings_max:
            break
    return found


class _Check:
    def __init__(self, history: History) -> None:
        self._history = history
        self._entries = history.entries
        self._state: _State = {}
        self._tried: dict[bytes, list[Attempt]] = defaultdict(list)
        self._begun: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in history.attempts:
            self._tried[attempt.txid].append(attempt)
            if attempt.base is not None:
                self._begun[attempt.base].append(attempt)
        # Commits that a ref was moved to: their files are kept when they appear.
        self._wanted = {op.value for one in history.attempts for op in one.ops if op.does == "move"}
        self._files: dict[bytes, Files] = {}
        # Ref -> entries that changed it, and what: paths, or None for all of it.
        self._touched: dict[str, tuple[list[int], list[frozenset[str] | None]]] = {}

    def findings(self) -> Iterator[str]:
        """Everything that is wrong, in order of the journal."""
        yield from self._journal()
        for at, entry in enumerate(self._entries):
            yield from self._began(at)
            yield from self._entry(entry)
            yield from self._compare(entry.seq)
        yield from self._began(len(self._entries))
        late = [base for base in self._begun if base > len(self._entries)]
        if late:
            yield f"transactions began behind entry {max(late)}, which the journal does not have"
        yield from self._ends()
        yield from _times(self._history.attempts, self._entries, self._tried)

    # -- order -------------------------------------------------------------------------------

    def _journal(self) -> Iterator[str]:
        """Entries without gaps, each made once, by somebody."""
        seen: dict[bytes, int] = {}
        for at, entry in enumerate(self._entries, 1):
            if entry.seq != at:
                yield f"entry {entry.seq} stands at place {at} of the journal"
            if entry.txid in seen:
                yield f"entries {seen[entry.txid]} and {entry.seq} are one transaction, twice"
            seen[entry.txid] = entry.seq
        for one in self._history.attempts:
            seq = seen.get(one.txid)
            if one.end == "committed" and seq != one.seq:
                yield f"{_name(one)} was told entry {one.seq}, and the journal has it at {seq}"
            elif one.end == "reused" and seq is None:
                yield f"{_name(one)} was refused for a key that nobody has used"

    # -- states ------------------------------------------------------------------------------

    def _began(self, seq: int) -> Iterator[str]:
        """Transactions that began behind this entry saw its state, whatever became of them."""
        for one in self._begun.get(seq, ()):
            for text in self._run(one).wrong:
                yield f"{_name(one)} began behind entry {seq} and {text}"

    def _entry(self, entry: Made) -> Iterator[str]:
        """One of those who tried explains the entry whole."""
        tried = _makers(entry, self._tried.get(entry.txid, ()))
        if not tried:
            yield f"nobody who could have made entry {entry.seq} says so"
        best: list[str] | None = None
        for one in tried:
            run = self._run(one)
            wrong = [f"{_name(one)}, entry {entry.seq}: {text}" for text in run.wrong]
            wrong += [
                f"entry {entry.seq} of {_name(one)}: {text}" for text in self._did(run, entry)
            ]
            if best is None or len(wrong) < len(best):
                best = wrong
        yield from best or ()
        for moved in entry.moves:
            self._apply(entry.seq, moved)

    def _did(self, run: _Run, entry: Made) -> Iterator[str]:
        """Where what the store changed is not what the transaction asked for."""
        asked: dict[str, tuple[bytes | None, Mapping[str, bytes | None] | None]] = {}
        for ref, target in run.moves.items():
            branch = self._state.get(ref)
            if (None if branch is None else branch.target) != target:
                asked[ref] = (target, None)
        for ref, files in run.edits.items():
            if files:
                asked[ref] = (None, files)
        done = {moved.ref: moved for moved in entry.moves}
        for ref in asked.keys() - done.keys():
            yield f"{ref} was changed by the transaction and not by the entry"
        for ref in done.keys() - asked.keys():
            yield f"{ref} was changed by the entry and not by the transaction"
        for ref in asked.keys() & done.keys():
            target, files_asked = asked[ref]
            moved = done[ref]
            before = self._state.get(ref)
            old = None if before is None else before.target
            if moved.old != old:
                yield f"{ref} came from {_short(moved.old)} and was at {_short(old)}"
            if files_asked is None:
                if moved.new != target:
                    yield f"{ref} went to {_short(moved.new)}, not to {_short(target)}"
                continue
            if dict(moved.files) != dict(files_asked):
                yield f"{ref} got {_shown(moved.files)} where {_shown(files_asked)} was asked"
            if moved.parents != (() if old is None else (old,)):
                yield f"the new commit of {ref} does not follow the one before"

    def _run(self, one: Attempt) -> _Run:
        """A transaction alone, on the state at hand."""
        run = _Run()
        for op in one.ops:
            if op.does == "move":
                run.moves[op.ref] = op.value
            elif op.does == "drop":
                if op.ref not in self._state:
                    run.wrong.append(f"found {op.ref} to delete, and there was none")
                run.moves[op.ref] = None
            else:
                self._step(run, op)
        return run

    def _step(self, run: _Run, op: Op) -> None:
        branch = self._state.get(op.ref)
        base: Mapping[str, bytes] = {} if branch is None else branch.files
        edits = run.edits.setdefault(op.ref, {})
        path = op.path
        if op.does == "write":
            _remove(edits, base, path)
            _set(edits, base, path, op.value)
            return
        if op.does == "delete":
            _remove(edits, base, path)
            _set(edits, base, path, None)
            return
        if op.does == "read":
            seen: object = edits[path] if path in edits else base.get(path)
            if seen != op.value:
                run.wrong.append(
                    f"read {_short(op.value)} at {op.ref}:{path}, where {_short(seen)} was"
                )
            return
        now = {**base, **edits}
        if op.does == "list":
            names = sorted(name for name, value in now.items() if value is not None)
            if list(op.value) != names:
                differ = sorted(set(op.value) ^ set(names))
                run.wrong.append(f"listed {op.ref} with {differ} wrong")
            return
        assert op.does == "folder", op.does
        start = path + "/"
        below = {
            name[len(start) :]: value
            for name, value in now.items()
            if value is not None and name.startswith(start)
        }
        if op.value is None:
            told: Mapping[str, bytes] = {}
        elif op.value in self._history.folders:
            told = self._history.folders[op.value]
        else:
            run.wrong.append(f"saw {op.ref}:{path} as a directory that the store does not have")
            return
        if told != below:
            run.wrong.append(f"saw {_shown(told)} in {op.ref}:{path}, where {_shown(below)} was")

    def _apply(self, seq: int, moved: Moved) -> None:
        """The entry as the store has it; what was wrong with it was told already."""
        seqs, paths = self._touched.setdefault(moved.ref, ([], []))
        branch = self._state.get(moved.ref)
        seqs.append(seq)
        whole = branch is None or moved.new is None or moved.parents != (branch.target,)
        paths.append(None if whole else frozenset(moved.files))
        if moved.new is None:
            self._state.pop(moved.ref, None)
            return
        if branch is None:
            branch = self._state[moved.ref] = _Branch(moved.new, {})
        branch.target = moved.new
        if moved.new in self._files:
            branch.files = dict(self._files[moved.new])
        else:
            for path, value in moved.files.items():
                if value is None:
                    branch.files.pop(path, None)
                else:
                    branch.files[path] = value
        if moved.new in self._wanted and moved.new not in self._files:
            self._files[moved.new] = dict(branch.files)

    def _compare(self, seq: int) -> Iterator[str]:
        """Where the store was read as a whole it shows all of the state, and nothing else."""
        shown = self._history.states.get(seq)
        if shown is None:
            return
        for ref in sorted(shown.keys() | self._state.keys()):
            here = self._state.get(ref)
            if (None if here is None else here.files) != shown.get(ref):
                yield f"{ref} behind entry {seq} is not what the transactions up to it made"

    # -- refusals ----------------------------------------------------------------------------

    def _ends(self) -> Iterator[str]:
        """A refusal that names a ref has a reason: somebody touched what was touched here."""
        invoked = [
            min((one.began_ns for one in self._tried.get(entry.txid, ())), default=0)
            for entry in self._entries
        ]
        for one in self._history.attempts:
            if one.end != "refused" or one.ref is None or one.base is None:
                continue
            seqs, paths = self._touched.get(one.ref, ([], []))
            first = bisect_right(seqs, one.base)
            ops = [op for op in one.ops if op.ref == one.ref]
            if not any(
                invoked[seqs[at] - 1] <= one.ended_ns and _concerns(ops, paths[at])
                for at in range(first, len(seqs))
            ):
                yield f"{_name(one)} was refused for {one.ref}, where nobody touched its paths"


def _concerns(ops: Sequence[Op], paths: frozenset[str] | None) -> bool:
    """Whether a change of these paths touches what was read or written."""
    if paths is None or any(op.does in ("move", "drop", "list") for op in ops):
        return True
    return any(
        op.path == path or op.path.startswith(path + "/") or path.startswith(op.path + "/")
        for op in ops
        for path in paths
    )


def _remove(edits: dict[str, bytes | None], base: Mapping[str, bytes], path: str) -> None:
    """Everything below a path goes."""
    start = path + "/"
    for name in [name for name in edits if name.startswith(start)]:
        _set(edits, base, name, None)
    for name in base:
        if name.startswith(start):
            edits[name] = None


def _set(
    edits: dict[str, bytes | None], base: Mapping[str, bytes], path: str, value: bytes | None
) -> None:
    """Note a difference, or that there is none any more."""
    if base.get(path) == value:
        edits.pop(path, None)
    else:
        edits[path] = value


def _times(
    attempts: Sequence[Attempt], entries: Sequence[Made], tried: Mapping[bytes, Sequence[Attempt]]
) -> Iterator[str]:
    """Places in the order that times forbid: one sweep over beginnings and ends.

    An entry `n` stands at place 2n; who only saw the state behind it, at 2n + 1. Who begins after
    another has ended stands behind it, and has begun behind it.
    """
    # (time, 1 for an end, place): ends come after beginnings of the same time, which is lenient.
    sweep: list[tuple[int, int, int, str]] = []
    for entry in entries:
        those = _makers(entry, tried.get(entry.txid, ()))
        if not those:
            continue
        first = min(one.began_ns for one in those)
        name = f"entry {entry.seq} of {_name(those[0])}"
        sweep.append((first, 0, 2 * entry.seq, name))
        told = [one.ended_ns for one in those if one.end == "committed"]
        # Who was killed is known to be gone, and its entry to be there or not.
        ended = min(told) if told else max(one.ended_ns for one in those)
        sweep.append((ended, 1, 2 * entry.seq, name))
    for one in attempts:
        if one.base is None:
            continue
        sweep.append((one.began_ns, 0, 2 * one.base + 1, f"{_name(one)} behind entry {one.base}"))
        if one.end != "open":
            sweep.append((one.ended_ns, 1, 2 * one.base + 1, _name(one)))
    sweep.sort()
    place, whose = 0, ""
    for _time, ends, at, name in sweep:
        if ends:
            if at > place:
                place, whose = at, name
        elif at < place:
            yield f"{name} began after {whose} had ended, and stands before it"


def _makers(entry: Made, tried: Sequence[Attempt]) -> list[Attempt]:
    """Who may have made an entry: who was told so, or was killed before it was told anything."""
    return [
        one
        for one in tried
        if one.end == "open" or (one.end == "committed" and one.seq == entry.seq)
    ]


def _name(one: Attempt) -> str:
    return f"{one.who}/{one.txid.hex()[:20]}"


def _short(value: object) -> str:
    return value.hex()[:8] if isinstance(value, bytes) else "nothing"


def _shown(files: Mapping[str, bytes | None]) -> str:
    names = [f"{name}={_short(value)}" for name, value in sorted(files.items())]
    return "{" + ", ".join(names[:4]) + (", …" if len(names) > 4 else "") + "}"
