"""Old positions of a backup are given up by rules: planned, shown, then done.

Floor 5. Invariant: the newest position always stays, and so does one that a plan did not name; the
journal stays whole; a position that is left can be restored as before. A run that is stopped leaves
the backup as it was, or without the positions, and the next one removes what it left.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

from cas.clock import Clock
from cas.errors import Invalid
from cas.history.retention import Candidate, KeepRule, decide
from cas.maintenance.backups.increment import Index
from cas.maintenance.backups.rewrite import Rewriting, names_of, sweep
from cas.maintenance.backups.vault import Vault, increment_file


@frozen
class BackupState:
    """One state of a backup: its increment, the entry that it reaches, when it was made (µs since
    1970 UTC), and why it stays.
    """

    increment: int
    seq: int
    time_us: int
    reasons: tuple[str, ...] = ()


@frozen
class ExpiryPlan:
    """Which positions of a backup would go. `pack_count` packs with `pack_bytes` are in no other;
    `kept` are those that stay, oldest first; `newest` is the id of what the backup ended with.
    """

    place: str
    rule: KeepRule
    going: tuple[BackupState, ...]
    kept: tuple[BackupState, ...]
    pack_count: int
    pack_bytes: int
    newest: bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not self.going


@frozen
class Expired:
    """What was done: the plan, and the files and bytes that the backup has less."""

    plan: ExpiryPlan
    file_count: int
    freed_bytes: int


def plan_expiry(vault: Vault, rule: KeepRule) -> ExpiryPlan:
    """What a rule would give up; the newest state always stays. Raises `BackupNotFound`,
    `CorruptBackup`.
    """
    chain = vault.chain()
    found = vault.newest()
    assert found is not None
    states = _states(chain)
    if not states:
        return ExpiryPlan(vault.place, rule, (), (), 0, 0, found[0])
    reasons = decide(
        # Of those of one time the one that came later is the newer one.
        [Candidate(_key(index), index.wall_us) for index in reversed(states)],
        rule,
    )
    newest = _key(states[-1])
    reasons.setdefault(newest, ("newest",))
    kept = [index for index in states if _key(index) in reasons]
    going = [index for index in states if _key(index) not in reasons]
    named = set(names_of([index.state for index in kept if index.state is not None]))
    alone = set(names_of([index.state for index in going if index.state is not None])) - named
    sizes = {file.name: file.size_bytes for file in vault.packs.list() if file.name in alone}
    return ExpiryPlan(
        vault.place,
        rule,
        tuple(map(_position, going)),
        tuple([evolve(_position(index), reasons=reasons[_key(index)]) for index in kept]),
        len(sizes),
        sum(sizes.values()),
        found[0],
    )


def expire(vault: Vault, clock: Clock, plan: ExpiryPlan) -> Expired:
    """Give up the positions that a plan names. Raises `Invalid` where the backup has changed
    since it was made by more than new positions, and what reading and writing raise.
    """
    chain = vault.chain()
    states = _states(chain)
    going = {item.increment for item in plan.going}
    if plan.newest not in {vault.reader(index.number).index()[0] for index in chain}:
        raise Invalid(
            f"The backup at {vault.place} was written anew since this plan was made; plan again."
        )
    count_before, bytes_before = _weight(vault)
    if going:
        kept = {index.number: index for index in states if index.number not in going}
        Rewriting(vault, clock, chain).run(kept, {})
    sweep(vault)
    count, size_bytes = _weight(vault)
    return Expired(plan, count_before - count, bytes_before - size_bytes)


def _states(chain: Iterable[Index]) -> list[Index]:
    return [index for index in chain if index.state is not None]


def _seq(index: Index) -> int:
    return 0 if index.state is None else index.state.seq


def _key(index: Index) -> bytes:
    return increment_file(index.number).encode()


def _position(index: Index) -> BackupState:
    return BackupState(index.number, _seq(index), index.wall_us)


def _weight(vault: Vault) -> tuple[int, int]:
    """Files of a vault, and their bytes."""
    files = [file for bucket in (vault.packs, vault.increments) for file in bucket.list()]
    return len(files), sum(file.size_bytes for file in files)
