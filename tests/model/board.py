"""The board: which scenario finds out that which rule is gone, and which rules are spares.

Invariant: every switch of `Rules` stands here; the test checks it. Implements
docs/design/001-what-the-model-taught.md, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class Loss:
    """Rules taken away, the scenario that finds out, and words of the breach that it must show."""

    rule: str
    section: str
    scenario: str
    says: str
    also: tuple[str, ...] = ()  # rules that must go with it before harm shows

    @property
    def name(self) -> str:
        return " + ".join((self.rule, *self.also))

    @property
    def changes(self) -> Mapping[str, bool]:
        return dict.fromkeys((self.rule, *self.also), False)


BOARD = (
    Loss("version_on_install", "E0", "loose put", "was condemned by that run"),
    Loss("version_on_removal", "E0", "cache", "its child C does not"),
    Loss("version_never_falls", "E0", "dead output", "was condemned by that run"),
    Loss("condemn_counts", "E0", "dedup", "does not exist"),
    Loss("rank_counts", "E0, E9", "bases", "of smaller depth"),
    Loss("bits_stay", "E1", "loose put", "was condemned by that run"),
    Loss("all_copies", "E2", "copies", "its child C does not"),
    Loss("ids_not_packs", "E2", "spill", "its child C does not"),
    Loss("parents_first", "E2", "dedup", "its child C does not"),
    Loss("slices_look_again", "E2", "dedup", "its child C does not"),
    Loss("storage_order", "E2", "cross deltas", "of smaller depth"),
    Loss("roots_again", "E2", "dedup", "root P does not exist"),
    Loss("pins_are_roots", "E2", "pins", "root P does not exist"),
    Loss("mark_one_snapshot", "E3", "loose put", "was condemned by that run"),
    Loss("newer_kept", "E3", "loose put", "was condemned by that run"),
    Loss("newer_traced", "E3", "loose parent", "its child C does not"),
    Loss("outputs_newer", "E3", "loose put", "was condemned by that run"),
    Loss("loose_fresh", "E3", "loose put", "was condemned by that run"),
    Loss("dead_sources", "E4", "spill", "its child C does not"),
    Loss("output_edges", "E4, E6", "re-encoding", "of smaller depth"),
    Loss("storage_edges", "E5", "bases", "can be decoded"),
    Loss("storage_edges", "E5", "recipes", "can be decoded"),
    Loss("recheck", "E6", "dedup", "does not exist"),
    Loss("storage_hits", "E6", "bases", "of smaller depth"),
    Loss("storage_hits", "E6", "recipes", "can be decoded"),
    Loss("targets_are_hits", "E6", "dedup", "root P does not exist"),
    Loss("retry_looks_again", "E6", "dedup", "its child C does not"),
    Loss("own_s0", "E6", "session", "its child C does not"),
    Loss("fresh_hits", "E7", "cache", "its child C does not"),
    Loss("lineage_stamp", "E7, 10", "rebuild, gap", "its child C does not"),
    Loss("one_snapshot", "E7", "reader, moved", "false Gone"),
    Loss("cache_dropped", "E7", "relaxed", "its child C does not"),
    Loss("next_copy", "E8", "reader, damage", "false Damaged"),
    Loss("refresh", "E8", "reader, moved", "false Gone"),
    Loss("gone_is_shown", "E8", "reader, moved", "false Gone"),
    Loss("restart", "E8", "reader, delta", "false Gone"),
    Loss("verify", "E8", "rebuild, reader", "wrong bytes"),
    Loss("verify", "E8", "reader, rows", "wrong bytes", ("unique_numbers",)),
    Loss("section4", "E9", "bases", "of smaller depth"),
    Loss("looks_in_transaction", "E9", "re-encoding", "of smaller depth"),
    Loss("newest_stays", "E9", "loose put", "was condemned by that run"),
    Loss("chunks_stay_whole", "E9", "recipes", "no copy that is no recipe"),
    Loss("files_alone", "E9, 10", "rebuild, moves", "root L does not exist"),
    Loss("depths", "4", "cross deltas", "can be decoded"),
    Loss("bytes_first", "2", "orphans", "is not durable"),
    Loss("answers_asked", "7", "lost answers", "has gone"),
    Loss("unique_names", "2", "file names", "has gone"),
    Loss("unique_numbers", "2", "pack numbers", "its child C does not"),
    Loss("fence", "7", "orphans", "has gone"),
    Loss("orphans_listed_first", "7", "orphans", "has gone"),
    Loss("late_unlink", "8", "dedup", "has gone"),
    Loss("durable_condemn", "8", "relaxed", "has gone"),
    Loss("unlink_checked", "8, 10", "rebuild, moves", "has gone"),
    Loss("run_checks_lineage", "10", "rebuild, loose", "was condemned by that run"),
    Loss("mirror_covered", "10", "rebuild", "root Q does not exist"),
    Loss("mirror_first", "10", "rebuild", "root P does not exist"),
    Loss("admit_bottom_up", "10", "rebuild", "its child C does not", ("unreachable_dead",)),
    Loss("rebuild_fences", "10", "rebuild", "its child C does not"),
    Loss("rebuild_syncs", "10", "rebuild, power", "is not durable"),
    Loss("rebuild_mirrors", "10", "rebuild, twice", "root Q does not exist"),
    Loss("lineages_ordered", "10", "rebuild, twice", "root Q does not exist"),
    Loss("rebuild_knows", "9, 10", "purge, rebuild", "root P does not exist"),
    Loss("stones_first", "9", "purge", "its child C does not"),
    Loss("stones_refuse", "9", "purge", "was purged and lies in"),
    Loss("purge_counts", "9", "purge, bases", "can be decoded"),
    Loss("purge_reencodes", "9", "purge, bases", "can be decoded"),
    Loss("purge_takes_dead", "9", "purge", "lies in pack", ("purge_looks_at_files",)),
    Loss("purge_looks_at_files", "9", "purge", "was purged and lies in file"),
    Loss("thin_checks_refs", "8", "thinning", "which was thinned"),
    Loss("refs_check_thinned", "8", "thinning", "which was thinned"),
    Loss("backup_one_snapshot", "4.6", "backup", "the backup lacks"),
    Loss("backup_starts_again", "4.6", "backup", "the backup lacks"),
)

# What may be taken away alone without a breach in any scenario named: (change, scenarios).
SPARES: tuple[tuple[Mapping[str, bool], tuple[str, ...]], ...] = (
    ({"hits_by_condemn_seq": True}, ("cache", "cached base", "relaxed", "rebuild, gap")),
    ({"verify": False}, ("reader, moved", "reader, gone", "reader, delta")),
    ({"admit_bottom_up": False}, ("rebuild", "rebuild, gap", "rebuild, twice")),
    ({"unreachable_dead": False}, ("rebuild", "rebuild, gap", "rebuild, moves")),
    ({"next_copy": False}, ("reader, moved", "reader, gone", "reader, delta")),
)
