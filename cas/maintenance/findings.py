"""What a check found: findings with stable codes, and the report that holds them.

Floor 5. Invariant: a finding is a value, never an exception; its code is in `CODES`, and a code
has one severity and one meaning for ever. However much is damaged, a report stays bounded: of
each code so many findings are kept, the others are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final

from cas.model.values import frozen

PER_CODE_MAX: Final = 1000
"""Findings of one code that a report spells out."""

AFFECTED_MAX: Final = 16
"""Refs and paths that a finding names."""


class Severity(Enum):
    """How bad it is: `loss` cannot be read any more, `damage` is wrong and can be repaired from
    what the store still has, `warning` should be looked at, `notice` is for information.
    """

    LOSS = "loss"
    DAMAGE = "damage"
    WARNING = "warning"
    NOTICE = "notice"

    def __str__(self) -> str:
        return self.value


CODES: Final[Mapping[str, tuple[Severity, str]]] = {
    "catalog-unreadable": (Severity.LOSS, "A table of the catalog cannot be read."),
    "catalog-damaged": (Severity.DAMAGE, "The engine finds its own file damaged."),
    "catalog-behind": (Severity.WARNING, "Pack files are newer than all the catalog knows."),
    "pack-row": (Severity.DAMAGE, "A row of the catalog says of a pack what is not so."),
    "pack-missing": (Severity.LOSS, "The catalog names a pack that is not there."),
    "pack-unreadable": (Severity.LOSS, "The pack cannot be read for I/O errors."),
    "pack-header": (Severity.DAMAGE, "The first 80 bytes of a pack are damaged."),
    "pack-foreign": (Severity.DAMAGE, "A pack was written for another store."),
    "pack-footer": (Severity.DAMAGE, "The footer that lists a pack's objects is damaged."),
    "pack-gap": (Severity.DAMAGE, "A pack has bytes that belong to no record, or overlaps."),
    "record-header": (Severity.DAMAGE, "The bytes before a payload contradict the footer."),
    "storage-edge": (Severity.DAMAGE, "A copy needs a base or recipe that does not fit it."),
    "copy-damaged": (Severity.DAMAGE, "One copy of an object is damaged, another one is whole."),
    "copy-condemned": (Severity.NOTICE, "A copy that was given up before is damaged."),
    "object-lost": (Severity.LOSS, "Every copy of an object is damaged."),
    "object-missing": (Severity.LOSS, "Something names an object of which there is no copy."),
    "object-kind": (Severity.DAMAGE, "Something names an object of another kind than it has."),
    "not-canonical": (Severity.DAMAGE, "An object is no canonical encoding of its kind."),
    "tree-statement": (Severity.DAMAGE, "A tree node says of what lies below it what is not so."),
    "recipe-statement": (Severity.DAMAGE, "A recipe says of its spans what is not so."),
    "journal-entry": (Severity.LOSS, "A journal entry is missing or does not match its hash."),
    "journal-chain": (Severity.DAMAGE, "A journal entry does not follow the one before it."),
    "journal-root": (Severity.DAMAGE, "A journal entry's root is not what its changes give."),
    "journal-row": (Severity.DAMAGE, "The columns beside a journal entry contradict it."),
    "ref-name": (Severity.DAMAGE, "A ref has a name that is not allowed."),
    "checkpoint": (Severity.DAMAGE, "A checkpoint of the refs is not that of its entry."),
    "purge-unfinished": (Severity.WARNING, "A purge was begun and not ended."),
    "session-open": (Severity.NOTICE, "A writer has not ended its session."),
    "pack-unnamed": (Severity.NOTICE, "A pack file that no row of the catalog names."),
    "file-temporary": (Severity.NOTICE, "A file whose writing was never finished."),
    "file-unknown": (Severity.NOTICE, "A file that is no part of a store."),
    "check-moved": (Severity.NOTICE, "The store changed too fast to be checked to the end."),
    "more": (Severity.NOTICE, "Further findings of a code were counted and not kept."),
    "archive-single": (Severity.WARNING, "Old journal entries have lost their second pack."),
}
"""Every code that a finding can have: its severity and what it means. Append-only."""


REBUILD: Final = "cas repair --rebuild"
_MEND: Final = "cas repair"
_FETCH: Final = "cas repair --from PATH"

REPAIRS: Final[Mapping[str, str]] = {
    "catalog-unreadable": _MEND,
    "catalog-damaged": _MEND,
    "catalog-behind": _MEND,
    "pack-row": REBUILD,
    "pack-missing": _FETCH,
    "pack-unreadable": _FETCH,
    "pack-header": _MEND,
    "pack-footer": _MEND,
    "record-header": _MEND,
    "storage-edge": _FETCH,
    "copy-damaged": _MEND,
    "object-lost": _FETCH,
    "object-missing": _FETCH,
    "journal-entry": REBUILD,
    "journal-row": REBUILD,
    "checkpoint": REBUILD,
    "archive-single": "cas maintain",
    "session-open": "cas gc",
    "pack-unnamed": "cas gc",
}
"""The command that helps against a code; one without is repaired from where the content came."""


@frozen
class Finding:
    """One thing that is not as it should be.

    `message` is one sentence with the next step. `subject` is the pack, object, entry or file
    it is about; `affected` names refs (`main`) and paths (`main:docs/a.md`) that need it, at
    most `AFFECTED_MAX` of them. `repair` is the command that would help, empty where none does.
    """

    severity: Severity
    code: str
    message: str
    subject: str
    affected: tuple[str, ...] = ()
    repair: str = ""


@frozen
class FsckReport:
    """What a check saw. Counts are of what was read: objects each once, content bytes likewise,
    packs (inline ones included), journal entries.
    """

    findings: tuple[Finding, ...]
    object_count: int
    content_bytes: int
    pack_count: int
    entry_count: int
    unread_count: int = 0
    """Pack files of which not every byte was read, because less was asked for."""

    @property
    def ok(self) -> bool:
        """Whether nothing is lost or damaged; warnings and notices may stand."""
        return not any(f.severity in (Severity.LOSS, Severity.DAMAGE) for f in self.findings)


@frozen
class Progress:
    """How far a check is. `phase` is catalog, packs, trees or journal; bytes are stored bytes."""

    phase: str
    object_count: int
    stored_bytes: int
    bytes_total: int


OnProgress = Callable[[Progress], None] | None


@frozen
class _Draft:
    code: str
    message: str
    subject: str
    ids: tuple[bytes, ...]


class Findings:
    """Findings on their way into a report. One thread."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._drafts)

    def add(self, code: str, subject: str, message: str, ids: Iterable[bytes] = ()) -> None:
        """Note one; `ids` are the objects that cannot be read because of it."""
        self._counts[code] += 1
        if self._counts[code] <= PER_CODE_MAX:
            self._drafts.append(_Draft(code, message, subject, tuple(ids)))

    def plain(self) -> list[tuple[str, str, str]]:
        """(code, subject, message) of each."""
        return [(draft.code, draft.subject, draft.message) for draft in self._drafts]

    def lost_ids(self) -> set[bytes]:
        """Objects that some finding says cannot be read."""
        return {id for draft in self._drafts for id in draft.ids}

    def finish(
        self, places: Mapping[bytes, Iterable[str]], *, hosted: bool = False
    ) -> tuple[Finding, ...]:
        """All findings, the worst first; `places` tells which refs and paths need an object. In a
        store on a server (`hosted`) there is nothing that `cas repair` would do.
        """
        order = list(Severity)
        repairs = {
            code: command
            for code, command in REPAIRS.items()
            if not (hosted and command.startswith(_MEND))
        }
        found = [
            Finding(
                CODES[d.code][0],
                d.code,
                d.message,
                d.subject,
                _affected(d.ids, places),
                repairs.get(d.code, ""),
            )
            for d in self._drafts
        ]
        for code, count in sorted(self._counts.items()):
            if count > PER_CODE_MAX:
                message = (
                    f"{count - PER_CODE_MAX} more findings of {code} were counted and left out; "
                    "repair those above and check again."
                )
                found.append(Finding(CODES["more"][0], "more", message, code))
        return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _affected(ids: Iterable[bytes], places: Mapping[bytes, Iterable[str]]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for id in ids:
        for name in places.get(id, ()):
            names[name] = None
            if len(names) == AFFECTED_MAX:
                return tuple(names)
    return tuple(names)
