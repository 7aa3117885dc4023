"""Rows on backups: the first one beside `cp -a` of the store, and one after ten files have changed.

The first is of a store that holds corpus A's newest state and so many MB of incompressible blobs
(`large`, in the key); whole commands, and the call in a fresh process that has done one before.
`cp -a` syncs nothing, so it is measured with `sync -f` behind it as well. The second: `cas backup`
after a snapshot, where borg and restic save the folder once more; `both` is the snapshot and the
backup together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bench import corpus, harness
from bench.context import Context
from bench.harness import Contender, Series, Step
from bench.peers import Borg, Restic, Tool, copy_step
from bench.setup_peers import borg_of

LARGE_MB = 2_000
LARGE_MB_QUICK = 200

_FILL = """
import random, sys, cas
draw = random.Random(7)
with cas.open(sys.argv[1]) as store:
    for _ in range(int(sys.argv[2]) // 50):
        store.put_many([draw.randbytes(1_000_000) for _ in range(50)])
"""

_CALL = """
import sys, time, cas
with cas.open(sys.argv[1], create=True) as small:
    small.put(b"x")
    cas.backup(small, sys.argv[1] + "-backup")
with cas.open(sys.argv[2], read_only=True) as store:
    started = time.perf_counter()
    cas.backup(store, sys.argv[3])
    print(time.perf_counter() - started)
"""


def row_backup(ctx: Context) -> None:
    """A first backup of a large store, and one after ten files have changed."""
    if ctx.product.lacks("backup") is not None:
        ctx.skip("cas backup", "this version has no backups")
        return
    _first(ctx)
    _second(ctx)


def _first(ctx: Context) -> None:
    large = LARGE_MB_QUICK if ctx.quick else LARGE_MB
    home = ctx.new_home(ctx.product, "backup-large")
    harness.run(ctx.product.save(home, ctx.source(), "s0"))
    store = ctx.product.store(home)
    filler = (*ctx.product.command()[:1], "-c", _FILL, str(store), str(large))
    harness.run(Step((filler,), home, ctx.product.environment))

    def command(turn: int) -> Step:
        place = ctx.fresh("backup") / "backup"
        words = ("backup", str(place), "--store", str(store))
        return Step((ctx.product.command(*words),), home, ctx.product.environment)

    def call(turn: int) -> Callable[[], float]:
        folder = ctx.fresh("backup")

        def measured() -> float:
            python = ctx.product.command()[0]
            words = (python, "-c", _CALL, str(folder / "small"), str(store), str(folder / "b"))
            answer = folder / "seconds"
            harness.run(Step((words,), folder, ctx.product.environment, output=answer))
            return float(answer.read_text())

        return measured

    def copied(*, synced: bool) -> Callable[[int], Step]:
        def prepare(turn: int) -> Step:
            target = ctx.fresh("copied")
            step = copy_step(store, target)
            commands = (*step.commands, ("sync", "-f", str(target))) if synced else step.commands
            return Step(commands, step.cwd)

        return prepare

    times = harness.interleave(
        [
            Contender("cas", command),
            Contender("cas-call", call),
            Contender("cp", copied(synced=False)),
            Contender("cp-synced", copied(synced=True)),
        ],
        ctx.rounds,
    )
    for name, series in times.items():
        ctx.run.add(f"backup-{large}/{name}/first", series)


def _second(ctx: Context) -> None:
    work = ctx.work()
    peers: list[Tool] = []
    for peer in (Borg(borg_of(ctx.root)), Restic()):
        reason = peer.missing_because()
        if reason is None:
            peers.append(peer)
        else:
            ctx.skip(peer.name, reason)
    home = ctx.home_with(ctx.product, work, "backup-ten")
    place = home / "backup"
    words = ("backup", str(place), "--store", str(ctx.product.store(home)))
    backed = Step((ctx.product.command(*words),), work, ctx.product.environment)
    harness.run(backed)
    homes = {peer.name: ctx.home_with(peer, work, "backup-ten") for peer in peers}
    added: dict[str, list[float]] = {}

    def saved(turn: int) -> Step:
        first = ctx.product.save(home, work, f"ten-{turn}")
        return Step((*first.commands, *backed.commands), work, ctx.product.environment)

    def alone(turn: int) -> Step:
        # Ten other files, so that this one has as much to do.
        corpus.change_files(work, seed=ctx.next_seed())
        harness.run(ctx.product.save(home, work, f"alone-{turn}"))
        return backed

    def contender(peer: Tool) -> Contender:
        return Contender(peer.name, lambda turn: peer.save(homes[peer.name], work, f"ten-{turn}"))

    def change(_turn: int) -> None:
        corpus.change_files(work, seed=ctx.next_seed())

    def sized(prepare: Callable[[int], Step]) -> Callable[[int], Step]:
        def measured(turn: int) -> Step:
            step = prepare(turn)
            added.setdefault("cas", []).append(_bytes_of(place))
            return step

        return measured

    contenders = [Contender("both", sized(saved)), Contender("cas", alone)]
    times = harness.interleave(
        [*contenders, *map(contender, peers)], ctx.rounds, before_turn=change
    )
    ctx.run.add("backup-ten/cas/both", times.pop("both"))
    for name, series in times.items():
        ctx.run.add(f"backup-ten/{name}/seconds", series)
    grown = [after - before for before, after in zip(added["cas"], added["cas"][1:], strict=False)]
    if grown:
        ctx.run.add("backup-ten/cas/added_bytes", Series(tuple(grown), "B", max(grown)))


def _bytes_of(place: Path) -> float:
    return float(
        sum(
            os.path.getsize(os.path.join(folder, name))
            for folder, _folders, names in os.walk(place)
            for name in names
        )
    )
