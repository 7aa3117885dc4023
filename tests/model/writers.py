"""Writers: sessions, look-ups from snapshots, delta and recipe copies, loose puts, commits.

Invariant: what a writer found is only as good as its commit makes it. Implements
docs/design/001-what-the-model-taught.md, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import attrs

from tests.model.acts import Steps, remember, shown, sync_file, transact, unlinked, write_file
from tests.model.protocol import (
    ABSENT,
    ANY,
    RECIPE,
    WHOLE,
    Catalog,
    Packs,
    Slot,
    State,
    World,
    has_session,
    with_pack,
    with_ref,
    with_session,
    without_session,
)


class Snapshot(NamedTuple):
    """A remembered index, pack list and vectors, with its stamp."""

    lineage: int
    version: int
    condemn_seq: int
    packs: Packs


def snapshot(catalog: Catalog) -> Snapshot:
    """Index, pack list and vectors as they stand."""
    return Snapshot(catalog.lineage, catalog.version, catalog.condemn_seq, catalog.packs)


class Writing(NamedTuple):
    at: str = "idle"
    used: int = 0  # sessions and files begun
    key: str = ""
    s0: int = 0
    started: int = 0  # catalog_version when the session began
    hits: tuple[tuple[str, int], ...] = ()  # (id, the rank a copy must stay below)
    own: tuple[Slot, ...] = ()
    file: str = ""
    cache: Snapshot | None = None


@attrs.frozen
class Writer:
    """Puts `top` and what it needs, then moves `ref` to it; without a ref it is a loose put.

    `deltas` names the base that an id is encoded against where the base exists; `by_recipe` the
    recipe that an id is stored by. `one_shot` looks up and writes in one transaction without a
    session. `session` is a key shared with other writers of one process. `tries` bounds sessions
    and files; `caches` lets the writer keep a snapshot from before its session. With
    `loses_answers` a commit may end without word of whether it counts.
    """

    name: str
    top: str
    ref: str = ""
    deltas: Mapping[str, str] = attrs.field(factory=dict)
    by_recipe: Mapping[str, str] = attrs.field(factory=dict)
    inline: bool = False
    one_shot: bool = False
    session: str = ""
    tries: int = 2
    caches: bool = False
    loses_answers: bool = False

    def start(self) -> Writing:
        return Writing()

    def crashed(self, memory: Writing) -> Writing | None:
        if memory.at in ("idle", "done"):
            return None
        return Writing(at="idle" if memory.used < self.tries else "done", used=memory.used)

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Writing = state.actors[me]
        if memory.at == "idle":
            yield from self._begin(world, state, me, memory)
        elif memory.at == "open":
            found = self._look_up(world, state, memory)
            hits = " ".join(oid for oid, _ in found.hits) or "nothing"
            new = " ".join(shown(slot) for slot in found.own) or "nothing"
            yield f"{self.name} looks-up and finds {hits}; new: {new}", remember(state, me, found)
        elif memory.at == "encoded":
            written = write_file(state, memory.file, memory.own, memory.key)
            if world.power:
                after = remember(written, me, memory._replace(at="written"))
                yield f"{self.name} writes file {memory.file}", after
                if not world.rules.bytes_first:
                    yield from self._commit(world, written, me, memory)
            else:
                written = sync_file(written, memory.file)
                after = remember(written, me, memory._replace(at="ready"))
                yield f"{self.name} writes and syncs file {memory.file}", after
        elif memory.at == "written":
            synced = sync_file(state, memory.file)
            after = remember(synced, me, memory._replace(at="ready"))
            yield f"{self.name} syncs file {memory.file}", after
        elif memory.at == "ready":
            yield from self._commit(world, state, me, memory)
            if self.loses_answers:
                yield from self._lose_answer(world, state, me, memory)
        elif memory.at == "unknown":
            yield self._ask(world, state, me, memory)

    def _lose_answer(self, world: World, state: State, me: int, memory: Writing) -> Steps:
        """The commit without its answer: what was done stands, and this writer does not know."""
        unknown = memory._replace(at="unknown")
        yield f"{self.name} fails-unheard", remember(state, me, unknown)
        for label, after in self._commit(world, state, me, memory):
            if after.actors[me].at == "done":
                told = label.replace(" commits ", " commits-unheard ")
                yield told, remember(after, me, unknown)

    def _ask(self, world: World, state: State, me: int, memory: Writing) -> tuple[str, State]:
        """Whether the commit counts; only if it does not are its files removed."""
        over = Writing("idle" if memory.used < self.tries else "done", memory.used)
        named = any(pack.file == memory.file for pack in state.catalog.packs)
        moved = any(file == memory.file for file, _ in state.catalog.doomed)
        if world.rules.answers_asked and (named or moved):
            return f"{self.name} finds-its-commit", remember(state, me, Writing("done"))
        state = unlinked(world, state, memory.file)
        state = transact(world, state, without_session(state.catalog, memory.key))
        return f"{self.name} removes file {memory.file}", remember(state, me, over)

    def _begin(self, world: World, state: State, me: int, memory: Writing) -> Steps:
        catalog = state.catalog
        if self.caches and memory.cache != snapshot(catalog):
            kept = memory._replace(cache=snapshot(catalog))
            label = f"{self.name} remembers the index at version {catalog.version}"
            yield label, remember(state, me, kept)
        if self.one_shot:
            opened = memory._replace(s0=catalog.condemn_seq, started=catalog.version)
            found = self._look_up(world, state, opened)
            yield from self._commit(world, state, me, found)
            return
        key = self.session or f"{self.name}#{memory.used + 1}"
        opened = memory._replace(
            at="open",
            used=memory.used + 1,
            key=key,
            s0=catalog.condemn_seq,
            started=catalog.version,
        )
        if not has_session(catalog, key):
            pinned = tuple(oid for ref, oid in catalog.refs if ref == self.ref)
            state = transact(world, state, with_session(catalog, key, pinned))
        if not world.rules.own_s0 and state.shared_s0 < 0:
            state = state._replace(shared_s0=catalog.condemn_seq)
        label = f"{self.name} opens session {key}, s0 = {catalog.condemn_seq}"
        yield label, remember(state, me, opened)

    # -- look-up and encoding -------------------------------------------------------------

    def _may_use(self, world: World, catalog: Catalog, memory: Writing) -> bool:
        """E7: whether a hit counts that comes from the remembered snapshot."""
        cache, rules = memory.cache, world.rules
        if cache is None:
            return False
        if rules.lineage_stamp and cache.lineage != catalog.lineage:
            return False
        if not rules.fresh_hits:
            return True
        if rules.hits_by_condemn_seq:
            return cache.condemn_seq >= memory.s0
        return cache.version >= memory.started

    def _look_up(self, world: World, state: State, memory: Writing) -> Writing:
        view = state.catalog.packs
        if memory.cache is not None and self._may_use(world, state.catalog, memory):
            view = memory.cache.packs
        own: dict[str, Slot] = {}
        hits: dict[str, int] = {}
        fresh = not self.ref and world.rules.loose_fresh

        def need(oid: str, bound: int) -> None:
            if oid in own:
                return
            if world.rank(view, oid) < bound and not (fresh and oid == self.top):
                hits[oid] = min(bound, hits.get(oid, ANY))
                return
            base = self.deltas.get(oid, "")
            recipe = self.by_recipe.get(oid, "")
            if base and world.rank(view, base) < RECIPE:
                own[oid] = Slot(oid, world.rank(view, base) + 1, base)
                if world.rules.storage_hits:
                    hits[base] = min(world.bound(own[oid]), hits.get(base, ANY))
            elif recipe:
                own[oid] = Slot(oid, RECIPE, recipe)
                if world.rank(view, recipe) == ABSENT or world.rules.storage_hits:
                    need(recipe, RECIPE)
            else:
                own[oid] = Slot(oid, WHOLE, "")
            for child in world.children.get(oid, ""):
                need(child, world.child_bound(oid))

        need(self.top, ANY)
        if self.top not in own and not world.rules.targets_are_hits:
            del hits[self.top]
        return self._prepared(world, memory, tuple(own.values()), hits)

    def _prepared(
        self, world: World, memory: Writing, own: tuple[Slot, ...], hits: Mapping[str, int]
    ) -> Writing:
        file = ""
        if own and not self.inline and not self.one_shot:
            content = "".join(slot.oid for slot in own)
            file = f"{self.name}.{memory.used}" if world.rules.unique_names else f"={content}"
        at = "encoded" if file else "ready"
        ordered = tuple(sorted(hits.items()))
        return memory._replace(at=at, own=own, hits=ordered, file=file, cache=None)

    # -- the commit -----------------------------------------------------------------------

    def _commit(self, world: World, state: State, me: int, memory: Writing) -> Steps:
        catalog, rules = state.catalog, world.rules
        over = Writing("idle" if memory.used < self.tries else "done", memory.used)
        if rules.fence and memory.key and not has_session(catalog, memory.key):
            yield f"{self.name} is-refused: its session was fenced", remember(state, me, over)
            return
        purged = [slot.oid for slot in memory.own if slot.oid in catalog.stones]
        if rules.stones_refuse and purged:
            state = unlinked(world, state, memory.file)
            state = transact(world, state, without_session(state.catalog, memory.key))
            label = f"{self.name} is-refused: {' '.join(purged)} was purged"
            yield label, remember(state, me, Writing("done"))
            return
        if rules.refs_check_thinned and self.ref and self.top in catalog.thinned:
            state = unlinked(world, state, memory.file)
            state = transact(world, state, without_session(state.catalog, memory.key))
            label = f"{self.name} is-refused: {self.top} was thinned"
            yield label, remember(state, me, Writing("done"))
            return
        s0 = memory.s0 if rules.own_s0 or state.shared_s0 < 0 else state.shared_s0
        if rules.recheck and catalog.condemn_seq != s0:
            missing = [o for o, b in memory.hits if world.rank(catalog.packs, o) >= b]
            if missing:
                label = f"{self.name} must-retry: {' '.join(missing)} no longer there"
                yield label, remember(state, me, self._retry(world, state, memory, missing))
                return
        after = catalog
        if memory.own:
            after = self._installed(world, catalog, memory)
        if self.ref:
            after = with_ref(after, self.ref, self.top)
        if memory.key and not self.session:
            after = without_session(after, memory.key)
        state = transact(world, state, after)
        if not rules.own_s0:
            state = state._replace(shared_s0=catalog.condemn_seq)
        if not self.ref:
            state = state._replace(young=tuple(sorted({*state.young, self.top})))
        what = " ".join(shown(slot) for slot in memory.own) or "nothing new"
        where = f"as file {memory.file}" if memory.file else "inline"
        to = f", ref {self.ref} -> {self.top}" if self.ref else ", a loose put"
        label = f"{self.name} commits {what} {where}{to} (version {after.version})"
        yield label, remember(state, me, Writing("done"))

    def _installed(self, world: World, catalog: Catalog, memory: Writing) -> Catalog:
        if not world.rules.bits_stay and len(memory.own) == 1:
            for pack in catalog.packs:  # the tempting shortcut: bring the old copy back
                for index, slot in enumerate(pack.slots):
                    if slot == memory.own[0] and pack.dead >> index & 1:
                        revived = pack._replace(dead=pack.dead & ~(1 << index))
                        packs = tuple(revived if p == pack else p for p in catalog.packs)
                        return catalog._replace(packs=packs, version=catalog.version + 1)
        return with_pack(catalog, world.rules, memory.file, memory.own)

    def _retry(self, world: World, state: State, memory: Writing, missing: list[str]) -> Writing:
        if memory.used >= self.tries:
            return Writing("done")
        again = memory._replace(used=memory.used + 1, s0=state.catalog.condemn_seq)
        if world.rules.retry_looks_again:
            return Writing("open", again.used, again.key, again.s0, state.catalog.version)
        own = (*memory.own, *(Slot(oid, WHOLE, "") for oid in missing))
        hits = {oid: bound for oid, bound in memory.hits if oid not in missing}
        return self._prepared(world, again, own, hits)
