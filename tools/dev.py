#!/usr/bin/env python3
"""Every chore of this checkout behind one command: `python3 tools/dev.py COMMAND [ARGUMENTS]`.

Standard library only, so that it runs on a bare Python 3.11. It keeps a virtual environment in
`.venv` (one more, `.venv-3.x`, for each further interpreter) and installs only when
`pyproject.toml`, the interpreter or the place of the checkout changed. Deleting these folders is
always safe. `python3 tools/dev.py` alone lists the commands; each has `--help`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.environment import (  # noqa: E402
    SUPPORTED,
    Failed,
    capture,
    ensure,
    interpreters,
    keep_bytecode,
    make_environment,
    pip,
    run,
    say,
    tee,
)

SMOKE = ROOT / "tools" / "smoke.py"
OLDEST = (3, 11)
# The line with which pytest ends, with or without its frame of equal signs.
CLOSING = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


# -- commands --------------------------------------------------------------------------------


def parser_of(command: str, text: str | None) -> argparse.ArgumentParser:
    """A parser that shows the docstring of its command as its help."""
    return argparse.ArgumentParser(
        prog=f"dev.py {command}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def program(name: str, path: str, *groups: str) -> Callable[[list[str]], int]:
    """A command that runs one program of this checkout with the arguments it was given."""

    def call(arguments: list[str]) -> int:
        if not (ROOT / path).is_file():
            raise Failed(f"{path} is not in this checkout, so `{name}` has nothing to run")
        return run([ensure(*groups), ROOT / path, *arguments])

    return call


def with_services(*groups: str, **choices: str) -> Path:
    """The environment of the tests, with the servers and the fuzzer where those can be had."""
    for some in (("services", "fuzz"), ("services",)):
        try:
            return ensure("test", *some, *groups, **choices)
        except Failed as error:
            say(f"without {some[-1]}, so the tests that need it are skipped: {error}")
    return ensure("test", *groups, **choices)


def command_soak(arguments: list[str]) -> int:
    """Searches with new seeds, with all that the tests can have."""
    return run([with_services(), ROOT / "tools" / "soak.py", *arguments])


MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 << 30


@contextlib.contextmanager
def in_memory() -> Iterator[list[str]]:
    """Options with which the folders of tests lie in memory, where the host has room for them.

    Each commit of a test waits for the disk otherwise, some fifty thousand times in a run. What a
    sync is for is tested where it is recorded (`cas/testing`); tests marked `alone` and those of
    `versions` stay on the disk.
    """
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        room = None
    if room is None or room.f_bavail * room.f_frsize < ROOM_BYTES or not os.access(MEMORY, os.W_OK):
        yield []
        return
    with tempfile.TemporaryDirectory(
        prefix="cas-tests-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        yield ["--basetemp", f"{folder}/t", "-o", "tmp_path_retention_policy=failed"]


def tally(lines: Sequence[str]) -> dict[str, int]:
    """Sum the outcomes of every closing line of pytest among these lines."""
    sums: dict[str, int] = {}
    for line in lines:
        if closing := CLOSING.match(ANSI.sub("", line)):
            for count, word in re.findall(r"(\d+) ([a-z]+)", closing[1]):
                sums[word] = sums.get(word, 0) + int(count)
    return sums


def pytest_environment(seed: str, profile: str) -> None:
    """Hand seed and profile to `tests/conftest.py`."""
    os.environ["CAS_TEST_SEED"] = seed
    os.environ["CAS_TEST_PROFILE"] = profile
    say(f"seed {seed}, profile {profile}: repeat with `test --seed {seed} --profile {profile}`")


def seed_of_code() -> str:
    """A seed that the committed code and tests decide, whatever the documents say; without git a
    random one.
    """
    with contextlib.suppress(Failed, OSError):
        trees = capture(["git", "rev-parse", "HEAD:cas", "HEAD:tests"])
        return str(zlib.crc32(trees.encode()))
    return str(random.SystemRandom().randrange(1 << 32))


def command_test(arguments: list[str]) -> int:
    """Run the tests; what is not listed below goes to pytest.

    All tests: those marked `alone` run after the others in one process of their own.
    With a path (`test tests/model -k ids`): one plain pytest call on it.
    """
    parser = parser_of("test", command_test.__doc__)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    parser.add_argument("--profile", choices=("quick", "full", "deep"), default="full")
    parser.add_argument("-j", "--jobs", default="2", help="processes beside each other (2)")
    options, rest = parser.parse_known_args(arguments)
    python = with_services()
    pytest_environment(options.seed, options.profile)
    color = ["--color=yes"] if sys.stdout.isatty() else []
    base = [str(python), "-m", "pytest", "--durations=10", "--durations-min=0.5", *color, *rest]
    if any(not word.startswith("-") and (ROOT / word.split("::")[0]).exists() for word in rest):
        return run(base)
    lonely = any("mark.alone" in file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    with in_memory() as room:
        selected = ["-m", "not alone"] if lonely else []
        code, lines = tee([*base, "-n", options.jobs, *room, *selected])
    if lonely:
        second, more = tee([*base, "-m", "alone"])
        lines += more
        code = code or (0 if second == 5 else second)  # 5: nothing left after -k
        sums = tally(lines)
        bad = sums.get("failed", 0) + sums.get("error", 0) + sums.get("errors", 0)
        skipped = f", {sums['skipped']} skipped" if "skipped" in sums else ""
        say(f"both parts: {sums.get('passed', 0)} passed, {bad} failed{skipped}")
    return code


def command_lint(arguments: list[str]) -> int:
    """Check style and format with ruff; `--fix` repairs what it can."""
    parser = parser_of("lint", command_lint.__doc__)
    parser.add_argument("--fix", action="store_true")
    fix = parser.parse_args(arguments).fix
    python = ensure("lint")
    style = run([python, "-m", "ruff", "check", *(["--fix"] if fix else []), "."])
    layout = run([python, "-m", "ruff", "format", *([] if fix else ["--check"]), "."])
    return style or layout


def command_types(arguments: list[str]) -> int:
    """Check types with mypy --strict; arguments go to mypy."""
    return run([ensure("lint"), "-m", "mypy", "--strict", *(arguments or ["cas", "tools/dev.py"])])


def command_bench(arguments: list[str]) -> int:
    """Run bench/run.py with the arguments given; `bench --micro` runs the pytest benchmarks."""
    if arguments[:1] == ["--micro"]:
        python = ensure("test", "bench")
        place = Path(os.environ.get("CAS_BENCH_DIR", ROOT / ".bench")) / "calls"
        place.mkdir(parents=True, exist_ok=True)
        # Each run is kept, and compared with the one before it on this machine.
        kept = ["--benchmark-autosave", f"--benchmark-storage=file://{place}"]
        if any(place.glob("*/*.json")):
            kept.append("--benchmark-compare")
        return run([python, "-m", "pytest", "bench", "--benchmark-only", *kept, *arguments[1:]])
    return program("bench", "bench/run.py", "test", "bench")(arguments)


def command_docs(arguments: list[str]) -> int:
    """Check the documentation: links, examples that run, format and error tables."""
    return run([ensure("test"), "-m", "pytest", "-m", "docs", "tests", *arguments])


def command_wheel(arguments: list[str]) -> int:
    """Build the wheel, install it into a fresh environment, use it there."""
    parser_of("wheel", command_wheel.__doc__).parse_args(arguments)
    python = ensure()
    with tempfile.TemporaryDirectory(prefix="cas-wheel-") as name:
        folder = Path(name)
        pip(python, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        say(f"built {wheel.name}, {wheel.stat().st_size:,} bytes")
        with zipfile.ZipFile(wheel) as archive:
            packed = set(archive.namelist())
        sources = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "cas").rglob("*")
            if path.is_file() and path.suffix in (".py", ".typed", ".sql", ".npz", ".md")
        }
        if lost := sorted(sources - packed):
            raise Failed(f"the wheel lacks {', '.join(lost)}")
        if not any(entry.endswith("licenses/LICENSE") for entry in packed):
            raise Failed("the wheel lacks LICENSE")
        clean = make_environment(sys.executable, folder / "env")
        pip(clean, "install", wheel)
        # -I: neither the checkout nor the environment of this process may be found instead.
        say(capture([clean, "-I", SMOKE, wheel.name.split("-")[1]], cwd=folder).rstrip())
    say("wheel: 1 passed, 0 failed")
    return 0


def command_versions(arguments: list[str]) -> int:
    """Run the tests on the other interpreters of this machine, each in its own environment.

    `--quick` takes one of them (the newest) and leaves out slow and alone tests, those of style,
    and the searches, whose code and findings do not depend on the interpreter.
    """
    parser = parser_of("versions", command_versions.__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="make the environments, no more")
    parser.add_argument("--only", metavar="3.X", choices=SUPPORTED, help="this one only")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    options, rest = parser.parse_known_args(arguments)
    found = interpreters()
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for wanted in SUPPORTED:
        if wanted not in found and wanted != here:
            say(f"{wanted}: no working interpreter on this machine, not tested")
    chosen = [wanted for wanted in found if options.only in (None, wanted)]
    if options.only and not chosen:
        raise Failed(f"there is no working Python {options.only} beside {here} on this machine")
    selection: list[str] = []
    if options.quick:
        chosen = chosen[-1:]
        left_out = ("tidy", "crash", "schedules", "corruption", "model")
        selection = ["-m", "not slow and not alone", *[f"--ignore=tests/{n}" for n in left_out]]
    pytest_environment(options.seed, "quick" if options.quick else "full")
    results: dict[str, int] = {}
    for wanted in chosen:
        say(f"-- {wanted}: {found[wanted]}")
        python = with_services(base=found[wanted], name=f".venv-{wanted}")
        if options.prepare:
            continue
        results[wanted] = run([python, "-m", "pytest", "-n", "2", *selection, *rest])
    bad = [wanted for wanted, code in results.items() if code]
    say(f"versions: {len(results) - len(bad)} passed, {len(bad)} failed {' '.join(bad)}".rstrip())
    return 1 if bad else 0


BESIDE = (("lint",), ("types",), ("wheel",), ("versions", "--quick", "--prepare"))
"""Steps of `check` that keep one processor busy or wait for the network: beside `test`."""

CHECK = (("test",), ("versions", "--quick"))


class Step(NamedTuple):
    """A step of `check` that has ended."""

    words: tuple[str, ...]
    code: int
    lines: list[str]
    duration_s: float


def step_of(words: tuple[str, ...], seed: str, *, beside: bool = False) -> Step:
    """Run one step of `check`; what it prints appears as it comes, or, `beside` others, at once."""
    started = time.monotonic()
    seeded = ["--seed", seed] if words[0] in ("test", "versions") else []
    command = [sys.executable, str(Path(__file__)), *words, *seeded]
    if beside:
        out = subprocess.STDOUT
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            errors="replace",
            check=False,
        )
        code, lines = done.returncode, done.stdout.splitlines()
        say(f"\n==== {' '.join(words)} ====\n{done.stdout}==== beside the tests ====\n")
    else:
        say(f"\n==== {' '.join(words)} ====")
        code, lines = tee(command)
    return Step(words, code, lines, time.monotonic() - started)


def command_check(arguments: list[str]) -> int:
    """Do what CI does: lint, types, wheel, test, versions --quick; every step, then the sum.

    `test` reads the documentation too, so that `docs` is no step of its own; what keeps one
    processor busy runs beside it. The last line counts the tests of `test`, and each other step
    as one. The seed follows from the code, so that a red run of it is red again; `test` alone
    draws a new one each time.
    """
    parser = parser_of("check", command_check.__doc__)
    parser.add_argument("--seed", default=seed_of_code())
    seed = parser.parse_args(arguments).seed
    # Nothing may be installed into the environment of tests that run.
    with_services("lint")
    with ThreadPoolExecutor(1) as aside:
        others = [aside.submit(step_of, words, seed, beside=True) for words in BESIDE]
        first = step_of(CHECK[0], seed)
    steps = [*(other.result() for other in others), first]
    steps += [step_of(words, seed) for words in CHECK[1:]]
    passed = failed = 0
    rows: list[str] = []
    for step in steps:
        sums = tally(step.lines)
        if step.words == ("test",):
            bad = sum(sums.get(word, 0) for word in ("failed", "error", "errors"))
            passed += sums.get("passed", 0)
            failed += max(bad, 1 if step.code else 0)
        else:
            passed, failed = passed + (step.code == 0), failed + (step.code != 0)
        detail = ", ".join(f"{count} {word}" for word, count in sums.items())
        verdict = "ok    " if step.code == 0 else "FAILED"
        rows.append(f"{verdict} {' '.join(step.words):26} {step.duration_s:6.0f} s  {detail}")
    say("\n" + "\n".join(rows))
    say(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "demo": ("show the store at work on real releases", program("demo", "tools/demo.py")),
    "test": ("run the tests; arguments go to pytest", command_test),
    "lint": ("ruff: style and format (--fix)", command_lint),
    "types": ("mypy --strict", command_types),
    "bench": ("measure against peers (--micro: pytest benchmarks)", command_bench),
    "docs": ("check links, examples and tables of the documentation", command_docs),
    "golden": ("write or compare the golden stores", program("golden", "tools/golden.py", "test")),
    "dump": ("print the bytes of a store in words", program("dump", "tools/dump.py")),
    "simulate": ("search crash and race states", program("simulate", "tools/simulate.py", "test")),
    "services": (
        "run the servers that tests use, until the end of input",
        program("services", "tools/services.py", "test", "services"),
    ),
    "fuzz": (
        "fuzz decoders by coverage (--seconds N of each)",
        program("fuzz", "tools/fuzz.py", "test", "fuzz"),
    ),
    "soak": ("search longer, each family of tests to its bar", command_soak),
    "wheel": ("build, install and use the wheel", command_wheel),
    "versions": ("run the tests on other interpreters", command_versions),
    "check": ("all that CI does", command_check),
}


def main(words: list[str]) -> int:
    """Find the command and run it; without one, or with an unknown one, list them."""
    if sys.version_info < OLDEST:
        say(f"python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}")
        return 2
    name = words[0] if words else ""
    if name not in COMMANDS:
        if name not in ("", "-h", "--help", "help"):
            say(f"there is no command {name!r}; these exist:")
        else:
            say("usage: python3 tools/dev.py COMMAND [ARGUMENTS]\n")
        for command, (text, _) in COMMANDS.items():
            say(f"  {command:9} {text}")
        return 2 if name not in ("-h", "--help", "help") else 0
    keep_bytecode()
    call = COMMANDS[name][1]
    if words[1:] in (["-h"], ["--help"]) and call in (command_types, command_bench, command_docs):
        parser_of(name, call.__doc__).print_help()  # theirs would be that of another program
        return 0
    try:
        return call(words[1:])
    except Failed as error:
        say(f"dev.py {name}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
