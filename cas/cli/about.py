"""Versions: of the package, of the format, and of the libraries that hold the bytes.

Floor 9. People who help others need them, so they come in one command.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

from cas.catalog.host import engine_version
from cas.catalog.schema import FORMAT_VERSION
from cas.cli.front import Front
from cas.storage.codec import zstd_version


def print_versions(front: Front) -> None:
    """`cas --version`."""
    versions = {
        # The face stands on this floor and is loaded as the parent of every module here.
        "cas": sys.modules["cas"].__version__,
        "format": str(FORMAT_VERSION),
        "python": platform.python_version(),
        "sqlite": engine_version(),
        "zstd": zstd_version(),
        "blake3": version("blake3"),
    }
    if front.out.json:
        front.out.document("version", versions=versions, platform=sys.platform)
        return
    (_, own), *others = versions.items()
    front.out.line(f"cas {own} (" + ", ".join(f"{name} {v}" for name, v in others) + ")")
