"""One decoder under a fuzzer that sees which code an input reaches: atheris, with libFuzzer in it.

Run as a program by `tests/fuzz/driving.py`, because the fuzzer's main loop ends its process. The
code of `cas` is instrumented, and nothing else. Invariant: what is found lies in a file whose bytes
are the input, so that `soak --decoder TARGET --input HEX` gives it to the decoder again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.fuzz.driving import PLANTED  # noqa: E402

with atheris.instrument_imports(include=["cas"]):
    from tests.fuzz.targets import TARGETS


@atheris.instrument_func  # type: ignore[untyped-decorator]
def _planted(data: bytes) -> bool:
    if len(data) > 5 and data[0] == 0xC3 and data[1] == 0x11 and data[2] == 0x7E:  # noqa: SIM102
        if data[3] == 0x5A and data[4] == 0x29:
            raise IndexError("planted")
    return True


def main(name: str, corpus: str, *options: str) -> None:
    """Fuzz one decoder; `options` are those of libFuzzer."""
    target = _planted if name == PLANTED else TARGETS[name]

    def once(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *options, corpus], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
