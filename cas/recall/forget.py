"""Forgetting by policy: a plan that names each memory and why, and doing it.

Floor 7. Invariant: nothing goes that a hold, a pin or a link to its version protects; a plan is no
change, and applying it looks again and leaves alone what has changed since. What was archived or
removed is one entry of the journal, which `undo` takes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from attrs import field, frozen

from cas.errors import Invalid
from cas.recall.score import DAY_US
from cas.workspace.links import Link
from cas.workspace.memories import ARCHIVED, Memory
from cas.workspace.registry import Aggregate

Action = Literal["archive", "remove", "replace"]
Because = Literal["expired", "too-old", "faded", "too-many", "too-large", "consolidated"]
PINNED: Final = "pinned"
"""The tag that protects a memory from every policy."""
HELD: Final = "held"
"""The tag of a legal hold: like `pinned`, and `undo` of a removal is not needed for it."""


def _count(_instance: Any, attribute: Any, value: object) -> None:
    if value is not None and (not isinstance(value, int | float) or value < 0):
        raise Invalid(f"The policy's {attribute.name} is a number from 0 on, not {value!r}.")


def _names(_instance: Any, attribute: Any, value: object) -> None:
    # Of one text each piece would be a kind: more would be forgotten than was meant.
    if not isinstance(value, tuple) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"The policy's {attribute.name} are a tuple of texts, not {value!r}.")


@frozen
class Policy:
    """What is forgotten of one type. Each rule that is given takes what it names; protection wins
    over all. A rule asks what the type has: without an importance all weigh the same, without
    `valid_to` nothing expires, and what has no tags cannot be archived and is removed at once.

    `expired`: memories whose `valid_to` has passed. `older_than_days`: those written before.
    `faded_below`: those whose importance, halved each `half_life_days` and never below `floor`, is
    less. `count_max` and `bytes_max`: the least important beyond so many, an agent. `agent` and
    `kinds` say whose and which memories the policy is for. What is archived is removed by a later
    run, once it was archived for `remove_after_days`.
    """

    agent: str | None = None
    kinds: tuple[str, ...] = field(default=(), validator=_names)
    type: str = "memory"
    expired: bool = True
    older_than_days: float | None = field(default=None, validator=_count)
    faded_below: float | None = field(default=None, validator=_count)
    half_life_days: float = field(default=90.0, validator=_count)
    floor: float = field(default=0.0, validator=_count)
    count_max: int | None = field(default=None, validator=_count)
    bytes_max: int | None = field(default=None, validator=_count)
    remove_after_days: float | None = field(default=None, validator=_count)


@frozen
class Known:
    """An aggregate as a policy sees it: the version that holds, when it was written, its text, and
    how long that, or the content of an artifact, is.
    """

    value: Aggregate
    link: Link
    written_us: int
    protected: str | None
    text: str
    size_bytes: int

    @property
    def agent(self) -> str:
        """Whose it is."""
        return str(getattr(self.value, "agent", getattr(self.value, "made_by", "")))

    @property
    def importance(self) -> float:
        """How much it weighs."""
        return float(getattr(self.value, "importance", 0.5))

    @property
    def tags(self) -> frozenset[str] | None:
        """Its tags; None where its type has none."""
        found: frozenset[str] | None = getattr(self.value, "tags", None)
        return found

    @property
    def is_archived(self) -> bool:
        """Whether it was forgotten before."""
        return ARCHIVED in (self.tags or ())


@frozen
class Forgotten:
    """What a plan would do with one memory, and why. `link` is pinned to the version it saw."""

    link: Link
    action: Action
    because: Because
    text: str
    importance: float


@frozen
class ForgetPlan:
    """What a policy would do to the state after entry `seq`."""

    policy: Policy
    seq: int
    forgotten: tuple[Forgotten, ...]
    kept: tuple[tuple[Link, str], ...]
    """What a rule names and protection keeps, with what protects it."""

    @property
    def summary(self) -> str:
        """In one line."""
        by: dict[str, int] = {}
        for each in self.forgotten:
            key = f"{each.action} ({each.because})"
            by[key] = by.get(key, 0) + 1
        said = ", ".join(f"{count} {key}" for key, count in sorted(by.items())) or "nothing to do"
        return f"{said}; {len(self.kept)} protected"


def decide(policy: Policy, known: Iterable[Known], now_us: int, seq: int) -> ForgetPlan:
    """The plan of a policy over memories. Pure."""
    forgotten: list[Forgotten] = []
    kept: list[tuple[Link, str]] = []
    rest: list[Known] = []
    for each in known:
        if not _is_meant(policy, each):
            continue
        found = _verdict(policy, each, now_us)
        if found is None:
            if not each.is_archived:
                rest.append(each)
        elif each.protected is not None:
            kept.append((each.link, each.protected))
        else:
            forgotten.append(_forgotten(each, *found))
    for each, because in _beyond(policy, rest, now_us):
        if each.protected is not None:
            kept.append((each.link, each.protected))
        else:
            forgotten.append(_forgotten(each, _way(each), because))
    forgotten.sort(key=lambda one: (one.link.type, one.link.id))
    return ForgetPlan(policy, seq, tuple(forgotten), tuple(kept))


def _is_meant(policy: Policy, each: Known) -> bool:
    if policy.agent is not None and each.agent != policy.agent:
        return False
    return not policy.kinds or str(getattr(each.value, "kind", "")) in policy.kinds


def _way(each: Known) -> Action:
    return "remove" if each.tags is None else "archive"


def _verdict(policy: Policy, each: Known, now_us: int) -> tuple[Action, Because] | None:
    if each.is_archived:
        limit = policy.remove_after_days
        if limit is not None and now_us - each.written_us >= limit * DAY_US:
            return "remove", "too-old"
        return None
    ends = getattr(each.value, "valid_to", None)
    if policy.expired and ends is not None and ends.timestamp() * 1_000_000 <= now_us:
        return _way(each), "expired"
    age_us = now_us - _born_us(each)
    if policy.older_than_days is not None and age_us >= policy.older_than_days * DAY_US:
        return _way(each), "too-old"
    if policy.faded_below is not None and faded(policy, each, now_us) < policy.faded_below:
        return _way(each), "faded"
    return None


def faded(policy: Policy, each: Known, now_us: int) -> float:
    """What is left of a memory's importance."""
    days = max(0.0, (now_us - _born_us(each)) / DAY_US)
    left = each.importance * 2.0 ** (-days / max(policy.half_life_days, 1e-6))
    return float(max(policy.floor, left))


def _born_us(each: Known) -> int:
    at = getattr(each.value, "at", None)
    return each.written_us if at is None else int(at.timestamp() * 1_000_000)


def _beyond(policy: Policy, rest: Sequence[Known], now_us: int) -> Iterator[tuple[Known, Because]]:
    """The least important beyond the most that an agent may have, and which limit that is; what is
    protected counts too, before all else.
    """
    by_agent: dict[str, list[Known]] = {}
    for each in rest:
        by_agent.setdefault(each.agent, []).append(each)
    for every in by_agent.values():
        every.sort(
            key=lambda each: (
                each.protected is None,
                -faded(policy, each, now_us),
                -_born_us(each),
                each.value.id,
            )
        )
        size_bytes = 0
        for number, each in enumerate(every):
            size_bytes += each.size_bytes
            if policy.count_max is not None and number >= policy.count_max:
                yield each, "too-many"
            elif policy.bytes_max is not None and size_bytes > policy.bytes_max:
                yield each, "too-large"


def _forgotten(each: Known, action: Action, because: Because) -> Forgotten:
    return Forgotten(each.link, action, because, each.text[:200], each.importance)


def archived(each: Known) -> Aggregate:
    """The aggregate, out of recall."""
    return each.value.evolve(tags=(each.tags or frozenset()) | {ARCHIVED})


Summariser = Callable[[Sequence[Memory]], str]
"""Makes one text of several memories."""


def consolidated(group: Sequence[Memory], summarise: Summariser, id: str) -> Memory:
    """One memory in place of several, which names them. Raises `Invalid`."""
    if len(group) < 2:
        raise Invalid("To consolidate takes two memories or more.")
    agents = {each.agent for each in group}
    if len(agents) > 1:
        raise Invalid(f"Memories of several agents are not made one: {', '.join(sorted(agents))}.")
    return Memory(
        id=id,
        agent=group[0].agent,
        text=summarise(group),
        kind="summary",
        importance=max(each.importance for each in group),
        tags=frozenset().union(*(each.tags for each in group)) - {ARCHIVED},
        trust=min(group, key=lambda each: _TRUST[each.trust.value]).trust,
        supersedes=frozenset(each.link for each in group),
    )


_TRUST: Final = {"untrusted": 0, "unverified": 1, "trusted": 2}
