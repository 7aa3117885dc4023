"""Which lines of a content match a pattern; also the whole program of a process that searches.

Floor 8. Invariant: standard library only, and nothing of this package: this file is
given to an interpreter as it stands (`cas.commands.searching`).

Patterns are those of `re`, on bytes, line by line: a match never goes over the end of a line. The
whole content is searched first, which is where almost all files end.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
from typing import Any, Final

Found = list[tuple[int, bytes]]
"""Lines with a match: number and text."""

# What sees where the searched bytes end, so that lines have to be searched by themselves.
_LOOKS_AROUND: Final = re.compile(rb"\\[AZ]|\(\?<?!|\(\?<?=")

BEGIN: Final = struct.Struct("<dII")
"""What a searching process is told first: seconds a content, flags, and bytes of the pattern."""
COUNT: Final = struct.Struct("<I")
ITEM: Final = struct.Struct("<QQ?")
"""Of each content of a group: bytes, number of its first line, whether one line is enough."""
LINE: Final = struct.Struct("<QQ")


class Searcher:
    """Searches contents for one pattern. Raises `re.error` and its like for one that is none."""

    def __init__(self, pattern: bytes, flags: int) -> None:
        self._pattern = re.compile(pattern, flags)
        self._by_line = _LOOKS_AROUND.search(pattern) is not None

    def lines(self, content: bytes, number: int, first_only: bool) -> Found:
        """Lines of a content that match, its first line being `number`."""
        found: Found = []
        search = self._pattern.search
        at = counted = 0
        while at < len(content):
            start, last = at, at
            if not self._by_line:
                match = search(content, at)
                if match is None:
                    break
                if match.start() == len(content) and content.endswith(b"\n"):
                    break  # behind the last line there is none
                start = content.rfind(b"\n", 0, match.start()) + 1
                last = match.end()
            while True:
                stop = content.find(b"\n", start)
                stop = len(content) if stop < 0 else stop
                if search(content[start:stop]):
                    number += content.count(b"\n", counted, start)
                    counted = start
                    found.append((number, content[start:stop]))
                    if first_only:
                        return found
                start = stop + 1
                if start > last or start >= len(content):
                    break
            at = start
        return found


def serve(source: Any, target: int) -> None:
    """Search groups of contents until there is no more. A content that takes too long ends the
    process, by a signal that nothing holds up.
    """
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    cpu_s, flags, length = BEGIN.unpack(source.read(BEGIN.size))
    searcher = Searcher(source.read(length), flags)
    while head := source.read(COUNT.size):
        (count,) = COUNT.unpack(head)
        items = [ITEM.unpack(source.read(ITEM.size)) for _ in range(count)]
        # All of a group is taken before the first answer, so that neither side waits for the other.
        contents = [source.read(size) for size, _number, _only in items]
        for content, (_size, number, first_only) in zip(contents, items, strict=True):
            signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
            found = searcher.lines(content, number, first_only)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            answer = [COUNT.pack(len(found))]
            for line, text in found:
                answer += (LINE.pack(line, len(text)), text)
            rest = memoryview(b"".join(answer))
            while rest:
                rest = rest[os.write(target, rest) :]


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.fileno())
