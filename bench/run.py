"""Measure: `python bench/run.py [--rows import,again] [--rounds 5] [--quick]`.

Writes every sample to `bench/results/<time>-<commit>.json` and prints the table of bars.
`--setup` installs the peers, `--clean` deletes the folders of earlier runs (never shortly before a
measurement), `--list` names the rows.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import corpus, corpus_b, corpus_c, report, setup_peers
from bench.bars import BARS, ROWS
from bench.calibrate import calibrate
from bench.context import Context, clean
from bench.product import Cas, freeze
from bench.record import new_run, note_load
from tools import releases

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Exit code 0 when every row asked for ran; missed bars do not change it, failures do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", help="comma-separated; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a row (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes: not the bars' own")
    parser.add_argument("--root", type=Path, help=f"bench folder (${releases.ROOT_VARIABLE})")
    parser.add_argument("--note", default="", help="what else ran on the machine; kept in the file")
    parser.add_argument("--commit", help="measure the package as of this commit, not as it lies")
    parser.add_argument("--setup", action="store_true", help="install peers and strace")
    parser.add_argument("--clean", action="store_true", help="delete folders of earlier runs")
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args()
    root = (options.root or releases.default_root()).resolve()
    if options.list:
        print(
            "\n".join(
                f"{name:15}{(row.__doc__ or '').splitlines()[0]}" for name, row in ROWS.items()
            )
        )
        return 0
    if options.setup or options.clean:
        if options.clean:
            clean(root)
        if options.setup:
            setup_peers.prepare(root)
            corpus.states(root)
            corpus_b.path(root)
            corpus_c.sets(root)
        return 0
    names = list(ROWS) if options.rows is None else options.rows.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; --list names them")
    return measure(root, names, options)


def measure(root: Path, names: list[str], options: argparse.Namespace) -> int:
    """Run rows in the order of ROWS, saving after each."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = root / "runs" / stamp
    folder.mkdir(parents=True)
    corpus.states(root)  # checks the pins and writes the ignore file before anything is timed
    circumstances = {"rounds": options.rounds, "quick": options.quick, "note": options.note}
    run = new_run(folder, {"rows": names, **circumstances}, options.commit)
    product = Cas(freeze(folder, options.commit))
    ctx = Context(root, folder, run, product, options.rounds, options.quick)
    result = RESULTS / f"{stamp}-{run.commit[:12]}.json"
    run.options["instruments"] = calibrate(ctx.fresh("calibrate"), ctx.has_strace())
    note_load(run, "before")
    for name, row in ROWS.items():
        if name not in names:
            continue
        started = time.monotonic()
        print(f"{name} …", flush=True)
        try:
            row(ctx)
        except Exception as error:  # the other rows still tell something; this one is recorded
            run.failed[name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        note_load(run, "after")
        run.save(result)
    print(report.render(run, BARS))
    print(f"\n{result}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
