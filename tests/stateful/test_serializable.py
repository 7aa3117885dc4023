"""Histories of many processes and threads are strictly serializable, and the checker would see
it if they were not.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.testing.attempts import Attempt, AttemptLog, History, Made, Moved, Op, left_open, read_log
from cas.testing.races import Race, run
from cas.testing.serializable import check
from cas.testing.stores import scratch
from tests.databases import fresh_url
from tests.stateful.racer import BUGS

RACER: Final = (sys.executable, "-m", "tests.stateful.racer")
REFS: Final = ("heads/a", "heads/b")
PATHS: Final = ("d/x", "d/y", "e", "f")
COUNTS: Final = {"quick": 300, "deep": 40_000}
"""Transactions of one thread; six threads run in each of two races."""


def raced(race: Race, seed: str, *program: str) -> History:
    """A race in memory, where the host has such a file system."""
    with scratch() as place:
        return run(race, place, seed, program) if program else run(race, place, seed)


# -- the store -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1_500)  # 100,000 transactions: a minute or two where nobody else is at work
@pytest.mark.parametrize("small", [False, True], ids=["as it is", "spills and checkpoints"])
def test_recorded_histories_are_strictly_serializable(
    small: bool, rng: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """Processes of some threads, some of them killed: one order explains all that they saw."""
    count = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 17_000)
    processes, threads = (2, 3) if small else (3, 2)
    race = Race(processes, threads, count, kills=6, small=small)
    history = raced(race, f"{rng.random()}")
    ends = Counter(one.end for one in history.attempts)
    row = "spilling all the time" if small else "as it is"
    counts = {"entries": len(history.entries), **dict(sorted(ends.items()))}
    record_property("counts", {"table": "transactions", "row": row, "counts": counts})
    assert check(history) == []
    assert ends.keys() >= {"committed", "refused", "nothing", "dropped"}
    followed = sum(
        1
        for one in history.attempts
        if one.end == "committed" and one.base is not None and one.seq != one.base + 1
    )
    assert followed, "no transaction met another"


HOSTED_COUNTS: Final = {"quick": 40, "deep": 4_000}


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("where", ["postgres", "s3", "postgres and s3"])
def test_recorded_histories_on_servers_are_strictly_serializable(
    where: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    rng: random.Random,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same where writers queue at a row of PostgreSQL, where packs lie in a bucket, and where
    both is so; some of them are killed.
    """
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    count = HOSTED_COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 250)
    bucket = str(tmp_path / "packs")
    if "s3" in where:
        bucket = request.getfixturevalue("s3_url")("packs")
    url = ""
    if "postgres" in where:
        url = fresh_url(request.getfixturevalue("postgres"), bucket)
        bucket = ""
    race = Race(3, 2, count, kills=3, small=True, url=url, bucket=bucket)
    history = raced(race, f"{rng.random()}")
    ends = Counter(one.end for one in history.attempts)
    counts = {"entries": len(history.entries), **dict(sorted(ends.items()))}
    record_property("counts", {"table": "transactions", "row": f"on {where}", "counts": counts})
    assert check(history) == []
    assert ends.keys() >= {"committed", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, rng: random.Random) -> None:
    """A store that gets this wrong gives histories that the checker refuses."""
    race = Race(processes=2, threads=2, count=300, kills=0)
    for _ in range(6):
        if found := check(raced(race, f"{rng.random()}", *RACER, bug)):
            print(f"{bug}: {found[0]}")
            return
    pytest.fail(f"{bug}: not found")


# -- the checker -----------------------------------------------------------------------------


@attrs.define
class Script:
    """A history that is serializable because it was made one by one."""

    attempts: list[Attempt] = attrs.field(factory=list)
    entries: list[Made] = attrs.field(factory=list)
    states: dict[int, dict[str, dict[str, bytes]]] = attrs.field(factory=dict)

    @property
    def history(self) -> History:
        """As it would be collected."""
        return History(self.attempts, self.entries, {}, self.states)


def scripted(draw: random.Random, count: int) -> Script:
    """Transactions of overlapping times, each with its effect at a moment between them."""
    script = Script()
    refs: dict[str, tuple[bytes, dict[str, bytes]]] = {}
    for number in range(count):
        at = 1_000 * (number + 1)
        began, ended = at - draw.randint(1, 3_000), at + draw.randint(1, 3_000)
        seq = len(script.entries)
        now = {ref: dict(files) for ref, (_target, files) in refs.items()}
        ops: list[Op] = []
        for _ in range(draw.randint(1, 4)):
            ref, path = draw.choice(REFS), draw.choice(PATHS)
            files = now.get(ref, {})
            kind = draw.random()
            if kind < 0.4:
                ops.append(Op("read", ref, path, files.get(path)))
            elif kind < 0.6:
                ops.append(Op("list", ref, "", tuple(sorted(files))))
            elif kind < 0.9 or path not in files:
                value = b"%d %d" % (number, len(ops))
                now.setdefault(ref, {})[path] = value
                ops.append(Op("write", ref, path, value))
            else:
                del files[path]
                ops.append(Op("delete", ref, path))
        moves = []
        for ref, files in sorted(now.items()):
            target, before = refs.get(ref, (None, {}))
            differ = {
                path: files.get(path)
                for path in sorted(files.keys() | before.keys())
                if files.get(path) != before.get(path)
            }
            if differ:
                new = b"%d %b" % (number, ref.encode())
                moves.append(Moved(ref, target, new, differ, () if target is None else (target,)))
        txid = b"%016d" % number
        end: Any = "nothing"
        base = seq
        if moves and draw.random() < 0.8:
            end = draw.choice(("committed", "committed", "open"))
            seq += 1
            script.entries.append(Made(seq, txid, tuple(moves)))
            for moved in moves:
                assert moved.new is not None
                refs[moved.ref] = moved.new, now[moved.ref]
            script.states[seq] = {ref: dict(files) for ref, (_target, files) in refs.items()}
        elif moves:
            end = "dropped"
        # The effect is at `at`: nobody else's lies between the base and it.
        told = None if end in ("open", "dropped") else seq
        script.attempts.append(
            Attempt(f"w{number % 3}", txid, base, began, tuple(ops), ended, end, told)
        )
    _settle(script)
    return script


def _settle(script: Script) -> None:
    """Shorten times so that who began behind an entry began after nothing newer had ended."""
    for at, one in enumerate(script.attempts):
        place = 1_000 * (at + 1)
        script.attempts[at] = attrs.evolve(
            one, began_ns=max(one.began_ns, place - 400), ended_ns=max(one.ended_ns, place + 1)
        )


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_what_was_done_one_by_one_passes(seed: int, count: int) -> None:
    """A history that has an order is not refused."""
    assert check(scripted(random.Random(seed), count).history) == []


def _change_read(script: Script, draw: random.Random) -> bool:
    for at in draw.sample(range(len(script.attempts)), len(script.attempts)):
        one = script.attempts[at]
        for place, op in enumerate(one.ops):
            if op.does in ("read", "list") and one.end != "open":
                value = b"other" if op.does == "read" else ("other",)
                ops = (*one.ops[:place], op._replace(value=value), *one.ops[place + 1 :])
                script.attempts[at] = attrs.evolve(one, ops=ops)
                return True
    return False


def _lose_write(script: Script, draw: random.Random) -> bool:
    if not script.entries:
        return False
    at = draw.randrange(len(script.entries))
    entry = script.entries[at]
    moved = entry.moves[0]
    files = dict(list(moved.files.items())[1:])
    moves = (attrs.evolve(moved, files=files), *entry.moves[1:])
    script.entries[at] = attrs.evolve(entry, moves=moves)
    return True


def _add_write(script: Script, draw: random.Random) -> bool:
    if not script.entries:
        return False
    at = draw.randrange(len(script.entries))
    entry = script.entries[at]
    moved = entry.moves[0]
    moves = (attrs.evolve(moved, files={**moved.files, "phantom": b"p"}), *entry.moves[1:])
    script.entries[at] = attrs.evolve(entry, moves=moves)
    return True


def _lose_entry(script: Script, draw: random.Random) -> bool:
    told = [one.seq for one in script.attempts if one.end == "committed"]
    if not told:
        return False
    seq = draw.choice(told)
    assert seq is not None
    script.entries = [
        attrs.evolve(entry, seq=entry.seq - (entry.seq > seq))
        for entry in script.entries
        if entry.seq != seq
    ]
    return True


def _repeat_entry(script: Script, draw: random.Random) -> bool:
    if not script.entries:
        return False
    entry = draw.choice(script.entries)
    script.entries.append(attrs.evolve(entry, seq=len(script.entries) + 1))
    return True


def _foreign_entry(script: Script, draw: random.Random) -> bool:
    moved = Moved("heads/c", None, b"c", {"c": b"c"})
    script.entries.append(Made(len(script.entries) + 1, b"f" * 16, (moved,)))
    return True


def _refuse_made(script: Script, draw: random.Random) -> bool:
    made = [at for at, one in enumerate(script.attempts) if one.end == "committed"]
    if not made:
        return False
    at = draw.choice(made)
    script.attempts[at] = attrs.evolve(script.attempts[at], end="refused", seq=None)
    return True


def _swap_times(script: Script, draw: random.Random) -> bool:
    """A transaction that ended before one that it stands behind began."""
    made = [at for at, one in enumerate(script.attempts) if one.end == "committed"]
    if len(made) < 2:
        return False
    first, second = script.attempts[made[0]], script.attempts[made[-1]]
    script.attempts[made[-1]] = attrs.evolve(
        second, began_ns=first.began_ns - 20, ended_ns=first.began_ns - 10
    )
    return True


def _see_old(script: Script, draw: random.Random) -> bool:
    """A transaction that begins after another has ended, on the state before it."""
    made = [one for one in script.attempts if one.end == "committed"]
    if not made:
        return False
    last = max(one.ended_ns for one in script.attempts)
    script.attempts.append(
        Attempt("late", b"l" * 16, 0, last + 1, (), last + 2, "nothing", 0),
    )
    return True


def _refuse_freely(script: Script, draw: random.Random) -> bool:
    last = max(one.ended_ns for one in script.attempts)
    op = Op("write", "heads/a", "nobody/else", b"x")
    script.attempts.append(
        Attempt(
            "late",
            b"l" * 16,
            len(script.entries),
            last + 1,
            (op,),
            last + 2,
            "refused",
            None,
            "heads/a",
        ),
    )
    return True


def _show_other(script: Script, draw: random.Random) -> bool:
    if not script.states:
        return False
    state = script.states[draw.choice(sorted(script.states))]
    state[draw.choice(sorted(state))]["stray"] = b"s"
    return True


SPOILED: Final[list[Callable[[Script, random.Random], bool]]] = [
    _change_read,
    _lose_write,
    _add_write,
    _lose_entry,
    _repeat_entry,
    _foreign_entry,
    _refuse_made,
    _swap_times,
    _see_old,
    _refuse_freely,
    _show_other,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 30))
def test_what_has_no_order_is_refused(
    spoil: Callable[[Script, random.Random], bool], seed: int, count: int
) -> None:
    """One thing changed in a history that had an order is told."""
    draw = random.Random(seed)
    script = scripted(draw, count)
    if spoil(script, draw):
        assert check(script.history) != []


def test_write_skew_is_refused() -> None:
    """Two that each read what the other writes, both from the state before: there is no order."""

    def one(number: int, reads: str, writes: str) -> Attempt:
        ops = (Op("read", reads, "x"), Op("write", writes, "x", b"%d" % number))
        txid = b"%016d" % number
        return Attempt(f"w{number}", txid, 0, 0, ops, 9, "committed", number)

    tried = [one(1, "heads/a", "heads/b"), one(2, "heads/b", "heads/a")]
    entries = [
        Made(1, tried[0].txid, (Moved("heads/b", None, b"c1", {"x": b"1"}),)),
        Made(2, tried[1].txid, (Moved("heads/a", None, b"c2", {"x": b"2"}),)),
    ]
    found = check(History(tried, entries, {}, {}))
    assert len(found) == 1
    assert "read nothing at heads/b:x" in found[0]


def test_an_attempt_is_read_back_as_it_was_announced(tmp_path: Path) -> None:
    """A log that was cut off by a kill gives all whole attempts; the last one is open."""
    path = str(tmp_path / "log")
    log = AttemptLog(path, "w")
    log.announce(b"1" * 16, 3, 10, [Op("read", "heads/a", "x", b"v")], "again 1")
    log.end(20, "committed", 4)
    log.announce(b"2" * 16, None, 30, [Op("write", "heads/a", "x", b"w")], "again 2")
    log.close()
    whole = list(read_log(path, "w", 99))
    assert [(one.end, one.ended_ns, one.seq) for one in whole] == [
        ("committed", 20, 4),
        ("open", 99, None),
    ]
    assert whole[0].ops == (Op("read", "heads/a", "x", b"v"),)
    assert list(left_open(path)) == ["again 2"]
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:-1])
    assert [one.end for one in read_log(path, "w", 99)] == ["committed"]
    assert list(left_open(path)) == []
