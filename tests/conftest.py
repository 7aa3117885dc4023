"""What every test shares: one printed seed, one hypothesis profile, an environment without `CAS_*`.

The seed comes from `tools/dev.py test --seed N` (or `CAS_TEST_SEED`), reaches hypothesis and the
`rng` fixture, and is printed in the header, so that a failing run can be repeated as it was.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.arsenal import arsenal
from tests.counts import keep, lines, tables
from tests.databases import oldest_postgres as oldest_postgres
from tests.databases import postgres as postgres
from tools import services

_SEED_VARIABLE = "CAS_TEST_SEED"

# No test judges time: a slow machine must not make one fail.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("full", **_COMMON)
settings.register_profile("quick", max_examples=20, **_COMMON)
settings.register_profile("deep", max_examples=2_000, **_COMMON)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before hypothesis reads its option; workers inherit it by environment."""
    settings.load_profile(os.environ.get("CAS_TEST_PROFILE", "full"))
    chosen = config.getoption("--hypothesis-seed", default=None)
    if chosen is None:
        chosen = os.environ.get(_SEED_VARIABLE) or str(random.SystemRandom().randrange(1 << 32))
        config.option.hypothesis_seed = chosen
    os.environ[_SEED_VARIABLE] = str(chosen)


def pytest_report_header() -> str:
    """Name the seed and how to use it again."""
    seed = os.environ[_SEED_VARIABLE]
    return f"seed {seed}: repeat with `python3 tools/dev.py test --seed {seed}`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted; name the seed again after a failure: -q hides the header."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # one of several processes: what it has counted is in the summary of all
    # The report of a teardown carries what all three phases of a test have recorded.
    reports = [one for found in terminalreporter.stats.values() for one in found]
    last = [one for one in reports if getattr(one, "when", "") == "teardown"]
    counted = tables(item for report in last for item in report.user_properties)
    for name, table in counted.items():
        terminalreporter.write_line("\n".join(["", *lines(name, table)]))
    if searched := arsenal(counted):
        terminalreporter.write_line("\n".join(["", *searched]))
    place = os.environ.get("CAS_TEST_COUNTS")
    if place and os.environ.get("CAS_TEST_PROFILE") != "quick":
        keep(Path(place), counted)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(pytest_report_header())


@pytest.fixture(scope="session")
def seed() -> str:
    """The seed of this run."""
    return os.environ[_SEED_VARIABLE]


@pytest.fixture
def rng(seed: str, request: pytest.FixtureRequest) -> random.Random:
    """A generator of its own for each test: the run's seed and the test's name decide it."""
    return random.Random(f"{seed}:{request.node.nodeid}")


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own store, flags or credentials in the environment never reach a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CAS_", "PG")) and not name.startswith("CAS_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.S3Server]:
    """A real S3 server with one empty bucket; skips where its package cannot be had."""
    try:
        with services.seaweed(tmp_path_factory.mktemp("s3")) as server:
            yield server
    except services.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def s3_url(
    s3_server: services.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Addresses of prefixes that this test alone has, with credentials where a user has them."""
    pytest.importorskip("obstore")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return lambda name: f"s3://{s3_server.bucket}{tmp_path}/{name}"
