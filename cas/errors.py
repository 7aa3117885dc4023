"""The one error tree: families say what the caller does next, codes never change meaning.

Floor 0. Every error that leaves the package is a `CasError`. A class belongs to exactly one
family (the direct children of `CasError`); `code` is a stable string, append-only, that appears
in JSON and in documentation; `fields` holds what a program may want to read, so that nobody
parses the message. `exit_code` is what the command line returns.

A message is one sentence that says what is wrong, followed where useful by the next step.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CasError(Exception):
    """Base of every error raised on purpose by this package."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __str__(self) -> str:
        return self.message

    def __getattr__(self, name: str) -> Any:
        # Only called for names that are not attributes: the fields, readable as `error.path`.
        fields: dict[str, Any] = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.fields))


def _rebuild(cls: type[CasError], message: str, fields: dict[str, Any]) -> CasError:
    return cls(message, **fields)


# -- NotFound: what was named is not there; name something else -----------------------------


class NotFound(CasError, KeyError):
    """What was asked for does not exist."""

    code = "not-found"
    exit_code = 3


class ObjectNotFound(NotFound):
    """No installed pack holds a copy of this id. Fields: `id`."""

    code = "object-not-found"


class RefNotFound(NotFound):
    """No ref has this name. Fields: `ref`."""

    code = "ref-not-found"


class PathNotFound(NotFound):
    """The snapshot has no such path. Fields: `path`."""

    code = "path-not-found"


class RevisionNotFound(NotFound):
    """A revision names nothing. Fields: `revision`."""

    code = "revision-not-found"


class StoreNotFound(NotFound):
    """There is no store at this place. Fields: `path`."""

    code = "store-not-found"


class EntryNotFound(NotFound):
    """The journal has no entry at this position or time. Fields: `seq` or `time_us`."""

    code = "entry-not-found"


class BackupNotFound(NotFound):
    """There is no backup at this place. Fields: `path`."""

    code = "backup-not-found"


class AggregateNotFound(NotFound):
    """The collection has no aggregate of this id. Fields: `type`, `id`."""

    code = "aggregate-not-found"


class NotCheckedOut(NotFound):
    """The folder is no working folder of this store. Fields: `path`, `reason`."""

    code = "not-checked-out"


class Gone(NotFound):
    """It existed and was given up on purpose. Fields: `id` or `seq`, `boundary`."""

    code = "gone"


class BeforeHorizon(Gone):
    """A state of the store older than its horizon. Fields: `seq`, `boundary`."""

    code = "before-horizon"


class UndoBeforeHorizon(Gone):
    """An entry cannot be taken back: what was before it was given up. Fields: `seq`, `boundary`."""

    code = "undo-before-horizon"


class Purged(Gone):
    """Content was removed from all history on purpose. Fields: `id`, `reason`, `author`,
    `time_us`.
    """

    code = "purged"


class Thinned(Gone):
    """A commit has given up its content. Fields: `id`, `boundary`, `reason`, `time_us`."""

    code = "thinned"


# -- Conflict: somebody else was faster; look at both sides and try again --------------------


class Conflict(CasError):
    """The world moved in a way that touches this change."""

    code = "conflict"
    exit_code = 4


class RefConflict(Conflict):
    """A ref moved since it was read. Fields: `ref`, `expected`, `actual`."""

    code = "ref-conflict"


class RefExists(Conflict):
    """A ref of this name, or of a name that collides with it, exists. Fields: `ref`, `other`."""

    code = "ref-exists"


class TransactionReused(Conflict):
    """A transaction id was used before for a different request. Fields: `txid`, `seq`."""

    code = "transaction-reused"


class WouldOverwrite(Conflict):
    """Unsaved work stands in the way. Fields: `paths`."""

    code = "would-overwrite"


class NotAsExpected(Conflict):
    """A path or branch is not what the request said it is. Fields: `path`, `expected`, `actual`."""

    code = "not-as-expected"


class BackupMismatch(Conflict):
    """The backup is of another store, or of another history of it. Fields: `path`, `reason`."""

    code = "backup-mismatch"


class BucketTaken(Conflict):
    """Another store keeps its packs below this prefix, or in this folder. Fields: `path`."""

    code = "bucket-taken"


class AggregateExists(Conflict):
    """An aggregate of this id is there already. Fields: `type`, `id`."""

    code = "aggregate-exists"


class AggregateConflict(Conflict):
    """Another unit of work changed the same fields. Fields: `type`, `id`, `conflicts`."""

    code = "aggregate-conflict"


class ConditionFailed(Conflict):
    """What a unit of work relied on has come or gone since. Fields: `condition`, `found`."""

    code = "condition-failed"


class SessionExpired(Conflict):
    """The session was fenced off; begin the work again. Fields: `session`."""

    code = "session-expired"


class Condemned(Conflict):
    """A collection took content that this work rested on; nothing was committed. Fields: `id`."""

    code = "condemned"


# -- Invalid: the request can never work as it stands; change it -----------------------------


class Invalid(CasError, ValueError):
    """The caller passed something that is not allowed."""

    code = "invalid"
    exit_code = 2


class InvalidName(Invalid):
    """A path, entry name or ref name breaks the grammar. Fields: `name`, `reason`."""

    code = "invalid-name"


class InvalidId(Invalid):
    """This text is no object id. Fields: `text`."""

    code = "invalid-id"


class AmbiguousRevision(Invalid):
    """A revision could mean several things. Fields: `revision`, `candidates`."""

    code = "ambiguous-revision"


class UnrelatedHistories(Invalid):
    """Two revisions have no commit in common. Fields: `ours`, `theirs`."""

    code = "unrelated-histories"


class LimitExceeded(Invalid):
    """A limit of `cas.limits` would be exceeded. Fields: `limit`, `value`, `maximum`."""

    code = "limit-exceeded"


class WrongKind(Invalid):
    """The object exists but is of another kind. Fields: `id`, `expected`, `actual`."""

    code = "wrong-kind"


class NotAStore(Invalid):
    """The place exists but is not a store, and is not empty. Fields: `path`."""

    code = "not-a-store"


class NotABackup(Invalid):
    """The place exists and holds other things than a backup. Fields: `path`."""

    code = "not-a-backup"


class BadArchive(Invalid):
    """An archive is damaged, or holds what cannot be taken in. Fields: `path`, `reason`."""

    code = "bad-archive"


class UnsafePath(Invalid):
    """Writing there could leave the target directory. Fields: `path`, `reason`."""

    code = "unsafe-path"


class InvalidRecord(Invalid):
    """A field is not as its type says. Fields: `type`, `id`, `field`, `reason`."""

    code = "invalid-record"


class AcrossStores(Invalid):
    """A unit of work touches contexts that live in two stores. Fields: `context`, `path`."""

    code = "across-stores"


class ImpossibleState(Invalid):
    """A state cannot follow the one that stands. Fields: `type`, `id`, `state`, `asked`,
    `allowed`.
    """

    code = "impossible-state"


# -- Corrupt: bytes are not what they were; stop and run fsck --------------------------------


class Corrupt(CasError):
    """Stored bytes are damaged. Run `cas fsck`; nothing wrong was returned."""

    code = "corrupt"
    exit_code = 5


class CorruptObject(Corrupt):
    """An object does not decode or does not hash to its id. Fields: `id`, `pack`."""

    code = "corrupt-object"


class CorruptPack(Corrupt):
    """A pack's header, record or footer is damaged. Fields: `pack`, `offset`."""

    code = "corrupt-pack"


class CorruptCatalog(Corrupt):
    """The catalog is damaged or contradicts itself. Fields: `detail`."""

    code = "corrupt-catalog"


class CorruptJournal(Corrupt):
    """A journal entry or the chain of their hashes is damaged. Fields: `seq`."""

    code = "corrupt-journal"


class CorruptBackup(Corrupt):
    """A file of a backup is damaged or missing. Fields: `path`."""

    code = "corrupt-backup"


class CorruptIndex(Corrupt):
    """The search index cannot be read; it is made anew, so no caller meets this. Fields: none."""

    code = "corrupt-index"


class CannotRepair(Corrupt):
    """A repair cannot go on without a decision, or without more bytes. Fields: `path`."""

    code = "cannot-repair"


class MissingPack(Corrupt):
    """The catalog names a pack file that the bucket does not have. Fields: `pack`."""

    code = "missing-pack"


class HistoryLost(Corrupt):
    """An entry is missing that was seen from here, or by a subscription. Fields: `seq`, `found`."""

    code = "history-lost"


class NotCanonical(Corrupt, ValueError):
    """Bytes are no canonical encoding of the structure they claim. Fields: `reason`."""

    code = "not-canonical"


# -- Unavailable: nothing is wrong with the request; try again later ------------------------


class Unavailable(CasError):
    """The store could not do it now."""

    code = "unavailable"
    exit_code = 7


class Busy(Unavailable):
    """A program that is no store handle holds the catalog; certainly not committed.

    Fields: `waited_ms`. Behind other writers of the store one waits in turn, without limit.
    """

    code = "busy"


class StorageFull(Unavailable):
    """The disk is full; nothing was committed. Fields: `path`."""

    code = "storage-full"


class StorageFailed(Unavailable):
    """An I/O operation failed, here or on a server. Fields: `path`, `errno`."""

    code = "storage-failed"


class ModelUnavailable(Unavailable):
    """An embedder cannot be asked now; recall goes on by words alone. Fields: `path`."""

    code = "model-unavailable"


class Uncounted(Unavailable):
    """Counts of references cannot be brought forward; gc looks at all objects then."""

    code = "uncounted"


class OutcomeUnknown(Unavailable):
    """The answer of a commit was lost; resolve it by its transaction id. Fields: `txid`."""

    code = "outcome-unknown"
    exit_code = 8


# -- NotAllowed: this handle or this caller may not do that ----------------------------------


class NotAllowed(CasError):
    """The operation is not allowed here."""

    code = "not-allowed"
    exit_code = 6


class ReadOnly(NotAllowed):
    """The store was opened read-only, or its folder cannot be written. Fields: `path`."""

    code = "read-only"


class AccessDenied(NotAllowed):
    """A server refuses the credentials, or there are none; or this user may not read a folder.

    Fields: `path`.
    """

    code = "access-denied"


class RefProtected(NotAllowed):
    """A rule protects this ref from that change. Fields: `ref`, `pattern`, `rule`."""

    code = "ref-protected"


class OnHold(NotAllowed):
    """A legal hold keeps this object, and nothing overrides it. Fields: `id`, `hold`."""

    code = "on-hold"


class WasPurged(NotAllowed):
    """What is put was purged, and is not taken in again unseen. Fields: `id`, `path`."""

    code = "was-purged"


class HorizonFixed(NotAllowed):
    """The horizon never moves back, and what was thinned stays so. Fields: `boundary`."""

    code = "horizon-fixed"


class Closed(NotAllowed):
    """The handle was closed, committed or rolled back before."""

    code = "closed"


class ForkedStore(NotAllowed):
    """The handle belongs to the parent process; open the store again in the child."""

    code = "forked-store"


class StoreMoved(NotAllowed):
    """The folder is a copy of a store, or was moved. Fields: `path`."""

    code = "store-moved"


# -- Unsupported: this program is too old, or the platform cannot do it ----------------------


class Unsupported(CasError):
    """This version or this platform cannot do that."""

    code = "unsupported"
    exit_code = 1


class NewerFormat(Unsupported):
    """The store needs a newer version of this package. Fields: `needs`, `known`."""

    code = "newer-format"


class UnsafeEngine(Unsupported):
    """The SQLite library has a known corruption bug. Fields: `version`."""

    code = "unsafe-engine"


class UnsafeFilesystem(Unsupported):
    """Write-ahead logging is unsafe on this file system. Fields: `path`, `filesystem`."""

    code = "unsafe-filesystem"


class UnsafeBucket(Unsupported):
    """The server of a bucket overwrites what it was told not to. Fields: `path`, `reason`."""

    code = "unsafe-bucket"


class NewerSchema(Unsupported):
    """A record needs a newer version of its type. Fields: `type`, `version`, `known`."""

    code = "newer-schema"


class UnknownType(Unsupported):
    """This program has no such type of aggregate. Fields: `type`."""

    code = "unknown-type"
