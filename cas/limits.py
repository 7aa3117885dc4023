"""Every maximum and default of the store, with unit and reason; relations are asserted here.

Floor 0. What exceeds a maximum raises `LimitExceeded` (or, in a decoder, `NotCanonical` or a
`Corrupt` error) and names the limit. `docs/format.md` section 11 lists the ones that are part
of the format; the others are defaults that a later version may change.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- part of the format ----------------------------------------------------------------------

ID_BYTES: Final = 32
"""BLAKE3-256."""

ENTRY_NAME_BYTES_MAX: Final = 255
"""What common file systems take for one name."""

PATH_BYTES_MAX: Final = 4096
"""PATH_MAX on Linux: a longer path could be stored but not restored."""

PATH_DEPTH_MAX: Final = 256
"""Directories below each other; bounds every walk and every nested edit."""

LINK_TARGET_BYTES_MAX: Final = 4095
"""Of a symbolic link: what Linux takes, its NUL left out."""

REF_NAME_BYTES_MAX: Final = 255
"""A ref name is one key of the refs tree."""

MESSAGE_BYTES_MAX: Final = 64 * KIB
ACTOR_BYTES_MAX: Final = 1 * KIB

NODE_SINGLE_ENTRIES_MAX: Final = 64
"""At every level of a tree, this many entries or fewer are one node."""

NODE_BOUNDARY_MEAN: Final = 32
"""One name in this many ends a node. The node a random name falls in has twice the mean."""

NODE_ENTRIES_MAX: Final = 256
"""A node is ended by force here, so that hostile names cannot grow one without bound."""

NODE_NAME_BYTES_MAX: Final = 32 * KIB
"""A node is ended by force when its names reach this many bytes."""

NODE_BYTES_MAX: Final = 128 * KIB
"""Encoded size no node exceeds: asserted below from the two limits above."""

TREE_LEVELS_MAX: Final = 32
"""Inner nodes hold two entries or more but for the last of a level: 2^32 names at least."""

STRUCTURED_BYTES_MAX: Final = 16 * MIB
"""Encoded size of a commit, tag, recipe or journal segment, and content of any one record."""

ENTRY_BYTES_MAX: Final = 8 * MIB
"""A journal entry: half of what the segment may have that holds it alone."""

STRUCTURED_DEPTH_MAX: Final = 16
"""Nesting a decoder follows."""

COMMIT_PARENTS_MAX: Final = 64

ENTRY_CHANGES_MAX: Final = 100_000
"""Refs that one journal entry may move."""

FOLLOW_CHANGES_MAX: Final = 10_000
"""Files that others may have changed in a branch for a commit to follow it: all are looked at,
perhaps inside the gate, where nobody stays for more than 50 ms."""

EVENTS_MAX: Final = 100_000
EVENT_INLINE_BYTES_MAX: Final = 256
"""A longer event body is a blob that the entry names."""

WHOLE_BLOB_BYTES_MAX: Final = 8 * MIB
"""Content above this is stored as a recipe of chunks."""

CHUNK_BYTES_MIN: Final = 16 * KIB
CHUNK_BYTES_MEAN: Final = 64 * KIB
CHUNK_BYTES_MAX: Final = 512 * KIB

RECIPE_SPANS_MAX: Final = 1024
RECIPE_LEVEL_MAX: Final = 2
"""Three levels of 1,024 spans of 64 KiB: 64 TiB."""

DELTA_DEPTH_MAX: Final = 4
"""Copies that are read one after the other for one content, the whole one not counted."""

DELTA_BYTES_MAX: Final = WHOLE_BLOB_BYTES_MAX
"""Neither a delta's content nor its base is longer."""

DICTIONARY_BYTES_MAX: Final = 1 * MIB
"""Content of a dictionary: each one that is used is held in memory, with tables of its length."""

DICTIONARIES_A_PACK_MAX: Final = 16
"""Dictionaries that the copies of one pack may need."""

PACK_BYTES_MAX: Final = 1 * GIB
"""Hard limit of one pack file; offsets in a footer are 32 bits wide."""

PACK_SLOTS_MAX: Final = 1 << 20

# -- defaults --------------------------------------------------------------------------------

PACK_BYTES_TARGET: Final = 64 * MIB
"""A pack file is ended after the record that reaches this size."""

SENT_BYTES: Final = 10 * MIB
"""In an object store the first two pack files of a batch end here, the next two at twice as much,
and so on up to the target: what is sent while the rest is made is not waited for."""

SENDING_BYTES_MAX: Final = 64 * MIB
"""Pack files of a batch that are on their way at once."""

INLINE_OBJECT_BYTES_MAX: Final = 64 * KIB
INLINE_TRANSACTION_BYTES_MAX: Final = 1 * MIB
"""Above either, stored bytes, a transaction writes pack files and not an inline pack."""

DIRECT_BYTES: Final = 128 * KIB
"""From here, stored bytes, a batch of objects alone is a pack file of its own: two syncs more, and
its bytes are written once instead of three times."""

SPILL_BYTES: Final = 8 * MIB
SPILL_PACKS: Final = 4096
"""Inline packs, and small pack files, are gathered into a pack file when either is reached."""

SPILL_SMALL_PACK_BYTES: Final = 1 * MIB
"""File packs below this are gathered too."""

CHECKPOINT_ENTRIES: Final = 256
CHECKPOINT_BYTES: Final = 64 * KIB
"""The refs tree is stored after this many entries, or bytes of changes."""

MIRROR_ENTRIES: Final = 256
MIRROR_BYTES: Final = 1 * MIB
"""A handle that closes on so much journal that is in no pack writes it into one. Every spill
writes what there is."""

JOURNAL_ROWS: Final = 10_000
"""Newest entries that are rows of the catalog: undo, followers and keys look among them. The
others lie in packs, and a row stands for some thousands of them."""

ARCHIVE_ENTRIES: Final = 1024
"""Older entries that are worth moving: each move is two pack files."""

DICTIONARY_SAMPLES_BYTES: Final = 1 * MIB
"""Small contents that a spill must have gathered before a dictionary is made of them."""

DICTIONARY_BATCH_BYTES: Final = 512 * KIB
"""Small contents of one batch of puts that a dictionary is made of where the store has none."""

DICTIONARY_SHARE: Final = 3
DICTIONARY_BYTES_TARGET: Final = 256 * KIB
"""A new dictionary has one byte for so many of samples, and no more than this: twice as much makes
small prose 1.5 % smaller. Where that does not pay, a quarter of it is tried."""

DICTIONARY_CONTENT_BYTES_MAX: Final = 16 * KIB
"""What is longer finds enough of itself in itself."""


class Thresholds(NamedTuple):
    """When a store tidies up, in one value: tests and small stores pass their own."""

    pack_bytes: int = PACK_BYTES_TARGET
    spill_packs: int = SPILL_PACKS
    spill_bytes: int = SPILL_BYTES
    spill_small_pack_bytes: int = SPILL_SMALL_PACK_BYTES
    checkpoint_entries: int = CHECKPOINT_ENTRIES
    checkpoint_bytes: int = CHECKPOINT_BYTES
    mirror_entries: int = MIRROR_ENTRIES
    mirror_bytes: int = MIRROR_BYTES
    direct_bytes: int = DIRECT_BYTES
    dictionary_samples_bytes: int = DICTIONARY_SAMPLES_BYTES
    dictionary_batch_bytes: int = DICTIONARY_BATCH_BYTES
    journal_rows: int = JOURNAL_ROWS
    archive_entries: int = ARCHIVE_ENTRIES


THRESHOLDS: Final = Thresholds()

DELTA_DEPENDANTS_MAX: Final = 64
"""Deltas on one base in one batch; more, and the batch writes a second copy of the base."""

DELTA_DEPTH_WRITTEN: Final = 2
"""Depth that a writer makes: less than what may be read, because each step costs every read."""

ZSTD_LEVEL: Final = 3
ZSTD_WINDOW_LOG_MAX: Final = 27

WHOLE_READ_BYTES_MAX: Final = 1 * GIB
"""Content that is put together in memory in one call: three recipes can state any size."""

WALK_ENTRIES_MAX: Final = 50_000_000
"""Entries of one walk or comparison: a few small nodes that name each other have any number."""

RESTORE_ENTRIES_MAX: Final = 5_000_000
"""Entries of one restore, which keeps them in memory while it plans."""

RESTORE_ENTRIES_UNCOUNTED: Final = 200_000
"""Behind this many a restore counts what is to come before it reads on."""

TEXT_MERGE_BYTES_MAX: Final = 8 * MIB
"""Longer content is merged whole: line by line it would take seconds in Python."""

TEXT_DIFFERENCES_MAX: Final = 400
"""Lines that one search between two anchors may find changed; its memory grows by the square."""

TEXT_WORK_FACTOR: Final = 6
TEXT_WORK_MIN: Final = 200_000
"""Steps of half a microsecond that comparing two texts may take: so many a line, and so many
more; what is left then counts as changed.
"""

ARCHIVE_HEADER_BYTES_MAX: Final = 1 * MIB
"""Header of one member of an archive that is taken in; a path has 4 KiB."""

HORIZON_DAYS: Final = 30
HORIZON_ENTRIES: Final = 100
"""How far back undo and `at` reach when a policy does not say: whichever of both is further, so
that a clock that jumps ahead does not take the last hour's undo with it."""

RETENTION_COUNT_MAX: Final = 10_000_000
"""Commits, periods or entries that a rule may ask for; more is `unlimited`."""

RETENTION_RULES_MAX: Final = 1_000
"""Patterns of a policy: each is held against each branch."""

RETENTION_TRIES: Final = 5
"""How often a retention is planned again because branches have moved meanwhile."""

PURGE_TRIES: Final = 20
"""How often a purge begins its packs anew because others removed copies meanwhile."""

PURGE_WAIT_MS: Final = 30_000
"""How long a purge waits for readers of older states, for whom the catalog's log has to stay."""

UNDO_SCAN_ENTRIES_MAX: Final = 10_000
"""How far back the newest entry that can be undone is looked for."""

RENAME_PAIRS_MAX: Final = 40_000
"""Pairs of a removed and an added file that are compared; beyond, only files of one name."""

RENAME_CANDIDATES_MAX: Final = 50_000
"""Files that came and went from one directory to another; beyond, no rename is followed."""

RENAME_STEPS_MAX: Final = 3_000_000
"""Lines that are compared in one search for renames: about two seconds."""

RENAME_FILE_BYTES_MAX: Final = 1 * MIB
RENAME_BYTES_MAX: Final = 64 * MIB
"""Longest file that is compared for similarity, and bytes that one search reads."""

TRAIL_CHANGES_MAX: Final = 512
"""Paths that one commit may have changed to be remembered one by one."""

TRAILS_BYTES_MAX: Final = 64 * MIB
"""Length of the file that remembers what commits changed: about 500,000 of them."""

TRAILS_UNSAVED_MAX: Final = 64
"""So many commits are looked at anew before the file is written again."""

VIRTUAL_BASES_MAX: Final = 16
"""Levels of crossed merges that a merge follows down; each merges its bases first."""

MERGE_ATTEMPTS_MAX: Final = 16
"""How often a merge is planned again because others moved the branch meanwhile."""

DAY_US: Final = 24 * 3600 * 1_000_000

MAINTAIN_BUDGET_MS: Final = 60_000
"""How long a run of maintenance takes when nobody says."""

MAINTAIN_ENTRIES: Final = 64
"""Entries after which maintenance that runs by itself looks again what is due."""

MAINTAIN_CHECK_DAYS: Final = 30
"""A pack that was not read for so long is due to be checked."""

LOG_BYTES_MAX: Final = 16 * MIB
"""A longer log of the catalog is cut."""

CATALOG_REWRITE_BYTES_MAX: Final = 16 * MIB
"""A catalog with no more than this in use may be written anew to give free pages back: writers wait
for so long, about 50 ms."""

CATALOG_FREE_BYTES_MIN: Final = 4 * MIB
"""Free pages that are worth it; they would be used again."""

GC_GRACE_US: Final = 14 * DAY_US
"""How long an object is kept that nothing ever led to."""

GC_CREDIT_US: Final = DAY_US
"""What one run of gc adds to the age of a pack at the most, whatever the clock says."""

GC_COUNT_SLOTS_MIN: Final = 1 << 15
"""Slots of a store from which on gc counts references: a mark of fewer costs no more than that."""

GC_COUNTED_RUNS_MAX: Final = 30
"""Runs of gc that believe counts of references before one marks everything, and compares."""

GC_COUNT_NEW_MAX: Final = 0.3
"""The part of all slots that may be new to counts of references; with more a mark is cheaper."""

GC_COUNT_UNKEPT_MAX: Final = 1 << 19
"""Objects that nothing keeps of which counts of references are kept: each is held in memory, 100 to
200 bytes, and looked up by every run."""

GC_COUNT_CHANGED_MAX: Final = 0.125
"""Counts that may stand beside those they replace, as a part of these, before all are written."""

GC_MOVED_BYTES_MAX: Final = 4 * GIB
"""What one run of gc writes anew at the most, to make room."""

GC_WASTE_MIN: Final = 0.06
"""The part of a pack file that nobody needs from which on it may be written anew."""

GC_WASTE_SURE: Final = 0.5
"""From here on it always is: it gives back more than it moves."""

GC_WASTE_MAX: Final = 0.01
"""The part of all pack files that nobody needs and that may stay, in those that waste least."""

GC_BASE_WASTE_MAX: Final = 0.06
"""The part of a fresh store that a store may take more than that, so that what goes can stay
where others are deltas of it, and these need not be written anew."""

GC_LATE_SLOTS_MAX: Final = 1000
"""Slots that may have come since gc looked for it to look at them inside the gate."""

AGGREGATE_ID_BYTES_MAX: Final = 200
"""Length of the id of an aggregate; a few more bytes make a name or a path of it."""

RECORD_BYTES_MAX: Final = 1 * MIB
"""Length of the record of an aggregate: what is longer is content and belongs in an artifact."""

RECORD_DEPTH_MAX: Final = 8
"""Levels of lists and maps in a field of any type; a record nests three levels around it."""

WORK_OPTIMISTIC_MAX: Final = 2
"""Tries of a unit of work before it queues behind others that try again."""

FOREIGN_HOLE_BYTES_MAX: Final = 1 * GIB
"""A hole in a file of a foreign file system: one number there would else be any work here."""

FOLDER_NEW_MAX: Final = 10_000
"""New files that a working folder takes for artifacts at once: more are hardly anybody's work, but
an environment or a cache that no ignore file names.
"""

FOLDER_ROUNDS_MAX: Final = 5
"""How often a working folder is looked at again in one call while others keep changing it."""

LEASE_MS: Final = 15 * 60 * 1000
"""How long a lease of a working folder says that somebody works there."""

WORK_ATTEMPTS_MAX: Final = 64
"""How often a unit of work is tried when others keep changing what it rests on."""

HANDLER_ATTEMPTS_MAX: Final = 3
"""Tries of a handler before its event becomes a dead letter."""

SUBSCRIPTION_LAG_MAX: Final = 1024
"""Entries of no interest that a subscription reads again before it saves a position behind them."""

NODE_CACHE_BYTES: Final = 32 * MIB
LEAF_CACHE_BYTES: Final = 72 * MIB
"""Leaves that are only looked into, as their bytes: those of a million names. A process that does
not look names up at random in that many never fills it."""
FOOTER_CACHE_BYTES: Final = 8 * MIB

CATALOG_CACHE_KIB: Final = 4096

RANGE_CACHE_BYTES: Final = 512 * MIB
RANGE_MEMORY_BYTES: Final = 64 * MIB
"""What is kept of the packs of a bucket: in the folder of the store, and by one handle."""

RESERVE_STORE_BYTES_MIN: Final = 8 * MIB
RESERVE_SHARE: Final = 32
RESERVE_BYTES_MIN: Final = 1 * MIB
RESERVE_BYTES_MAX: Final = 8 * MIB
RESERVE_FREE_BYTES_MAX: Final = 16 << 30
"""Room on the disk that is kept for a collection when there is no other, of stores from 8 MiB on:
a thirty-second of the packs and half of what lies in the catalog, for that has to go into a pack
before a file may go; what gathers there before a spill is 8 MiB at the most. It is kept while less
than the last number is free: a disk that has more will not be full before a writer looks again.
"""

PAGE_ITEMS_MAX: Final = 1_000
"""Items of one page of `Recall.find`: the next page goes on behind it."""

CONDITIONS_MAX: Final = 200
"""Comparisons in one condition: SQLite takes 1,000 terms, and each is a look into an index."""

GREP_CPU_S: Final = 10.0
"""Seconds of processor time that a pattern may take in one file: a search of 8 MiB line by line
takes one; a pattern that explodes takes years.
"""

BUCKET_READ_S: Final = 60
BUCKET_WRITE_S: Final = 600
"""How long one request to the server of a bucket may take: a part of 8 MiB on its way here, or a
whole pack on its way there over a line of 1 Mbit/s.
"""

BUCKET_FIRST_S: Final = 4
BUCKET_FIRST_RETRIES: Final = 1
"""How long the first request of a store that is to be made may take, and how often it is sent
again: an address where nobody answers is mostly a wrong one.
"""

BUCKET_RETRIES: Final = 5
BUCKET_RETRY_S: Final = 60
"""How often, and until when, a request that failed is sent again; pauses double from 0.1 s."""

assert PACK_BYTES_TARGET + WHOLE_BLOB_BYTES_MAX + STRUCTURED_BYTES_MAX < PACK_BYTES_MAX < 1 << 32
assert WHOLE_BLOB_BYTES_MAX >= 2 * CHUNK_BYTES_MAX, "a recipe has at least two chunks"
assert CHUNK_BYTES_MIN < CHUNK_BYTES_MEAN < CHUNK_BYTES_MAX
assert DIRECT_BYTES < INLINE_TRANSACTION_BYTES_MAX <= SPILL_SMALL_PACK_BYTES
assert INLINE_OBJECT_BYTES_MAX <= INLINE_TRANSACTION_BYTES_MAX < SPILL_BYTES < PACK_BYTES_TARGET
assert 1 <= DELTA_DEPTH_WRITTEN <= DELTA_DEPTH_MAX
assert CHECKPOINT_ENTRIES < JOURNAL_ROWS, "who follows the newest entries finds rows"
assert 2 * DELTA_BYTES_MAX <= 1 << ZSTD_WINDOW_LOG_MAX, "a base and what is made of it"
assert DICTIONARY_BYTES_TARGET <= DICTIONARY_BYTES_MAX <= WHOLE_BLOB_BYTES_MAX
assert NODE_BOUNDARY_MEAN < NODE_SINGLE_ENTRIES_MAX < NODE_ENTRIES_MAX
# Names, their CBOR heads (3), id, kind, two numbers of 9 bytes each; one name may overshoot.
assert (
    NODE_NAME_BYTES_MAX + ENTRY_NAME_BYTES_MAX + NODE_ENTRIES_MAX * (3 + ID_BYTES + 18) + 64
    < NODE_BYTES_MAX
)
assert RECORD_DEPTH_MAX + 3 < STRUCTURED_DEPTH_MAX
assert AGGREGATE_ID_BYTES_MAX < ENTRY_NAME_BYTES_MAX
assert ENTRY_BYTES_MAX + 1 * KIB < STRUCTURED_BYTES_MAX, "a segment holds any entry"
assert WHOLE_BLOB_BYTES_MAX < STRUCTURED_BYTES_MAX < WHOLE_READ_BYTES_MAX
assert RESTORE_ENTRIES_UNCOUNTED < RESTORE_ENTRIES_MAX <= WALK_ENTRIES_MAX
assert RECIPE_SPANS_MAX * (ID_BYTES + 9) + 64 < STRUCTURED_BYTES_MAX
