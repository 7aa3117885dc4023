"""The janitor and the orphan scan: redundant copies (E9), dead packs, mirrors, unlinks.

Invariant: a file goes last, and only after a look at the catalog as it stands. Implements
docs/design/001-what-the-model-taught.md, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from tests.model.acts import Steps, bits, named, remember, transact, unlinked
from tests.model.protocol import (
    UNLINKED,
    Catalog,
    Copy,
    Packs,
    State,
    World,
    roots_of,
    segment_of,
    with_bits,
)


class Sweeping(NamedTuple):
    known: tuple[str, ...] = ()


@attrs.frozen
class Janitor:
    """Sets the bits of redundant copies (E9), unnames dead packs, unlinks files, mirrors.

    `drops` says which redundant copies it removes: none, "inline" (what a spill left), "any".
    """

    name: str = "janitor"
    drops: str = "inline"
    only: str = ""
    retires: bool = True

    def start(self) -> Sweeping:
        return Sweeping()

    def crashed(self, memory: Sweeping) -> Sweeping | None:
        return Sweeping() if memory.known else None

    def steps(self, world: World, state: State, me: int) -> Steps:
        catalog = state.catalog
        if self.drops:
            yield from self._drop(world, state)
        for pack in catalog.packs if self.retires else ():
            if pack.dead + 1 == 1 << len(pack.slots):
                packs = tuple(other for other in catalog.packs if other != pack)
                unnamed = catalog._replace(packs=packs)
                if not world.rules.version_never_falls and pack.number == catalog.version:
                    unnamed = unnamed._replace(version=catalog.version - 1)
                if pack.file:
                    doomed = (*catalog.doomed, (pack.file, catalog.seq))
                    unnamed = unnamed._replace(doomed=tuple(sorted(doomed)))
                what = f"names {pack.file} for unlinking" if pack.file else "deletes the row"
                label = f"{self.name} unnames pack {pack.number}: {what}"
                yield label, transact(world, state, unnamed)
        if world.relaxed and state.unsynced:
            yield f"{self.name} syncs the catalog", state._replace(unsynced=())
        if world.rebuilds:
            yield from self._mirror(world, state)
        yield from self._unlink(world, state, me)

    def _drop(self, world: World, state: State) -> Steps:
        catalog = state.catalog
        for oid, copies in world.live(catalog.packs).items():
            if self.only and oid not in self.only:
                continue
            for copy in copies:
                if (copy.file and self.drops == "inline") or len(copies) == 1:
                    continue
                newest_pack = max(other.number for other in copies)
                if copy.number == newest_pack and world.rules.newest_stays:
                    continue
                after = with_bits(catalog, world, bits([copy]), condemned=False)
                if self._redundant(world, catalog.packs, after.packs, copy):
                    moved = " (condemn_seq rises)" * (after.condemn_seq > catalog.condemn_seq)
                    label = f"{self.name} drops the redundant {named([copy])}{moved}"
                    yield label, transact(world, state, after)

    def _redundant(self, world: World, before: Packs, after: Packs, copy: Copy) -> bool:
        """E9: whether all that exists still has what it needs, for files among files alone."""
        rules = world.rules
        if copy.file and rules.files_alone and world.rebuilds:
            files = tuple(pack for pack in after if pack.file)
            if copy.slot.oid not in world.live(files):
                return False
            was = tuple(pack for pack in before if pack.file)
            if rules.section4 and not world.wants(files).keys() <= world.wants(was).keys():
                return False
        return not rules.section4 or not world.wants(after, chunks=rules.chunks_stay_whole)

    def _mirror(self, world: World, state: State) -> Steps:
        """Write a segment up to now, when what it names stands in installed files."""
        catalog = state.catalog
        if state.mirror is not None and state.mirror.seq >= catalog.seq:
            return
        files = world.admitted(
            tuple(pack for pack in catalog.packs if pack.file), catalog.stones, catalog.thinned
        )
        covered = roots_of(catalog, pins=False) - set(catalog.stones) <= world.live(files).keys()
        if covered or not world.rules.mirror_covered:
            segment = segment_of(catalog)
            label = f"{self.name} mirrors the journal up to {catalog.seq}"
            yield label, state._replace(mirror=segment)

    def _unlink(self, world: World, state: State, me: int) -> Steps:
        catalog, rules = state.catalog, world.rules
        memory: Sweeping = state.actors[me]
        names_now = tuple(
            file
            for file, seq in catalog.doomed
            if not (world.rebuilds and rules.mirror_first)
            or (state.mirror is not None and state.mirror.seq >= seq)
        )
        if state.unsynced and rules.durable_condemn:
            names_now = ()
        if rules.unlink_checked:
            for file in names_now:
                yield self._removed(world, state, file, "")
            return
        if names_now != memory.known and names_now:
            known = remember(state, me, Sweeping(names_now))
            yield f"{self.name} reads what to unlink: {' '.join(names_now)}", known
        for file in memory.known:
            rest = Sweeping(tuple(other for other in memory.known if other != file))
            label, after = self._removed(world, state, file, ", as it had read")
            yield label, remember(after, me, rest)

    def _removed(self, world: World, state: State, name: str, how: str) -> tuple[str, State]:
        """Unlink a file, sync its folder, drop what names it; two steps where power may fail."""
        if world.power and any(f.name == name and f.status != UNLINKED for f in state.files):
            return f"{self.name} unlinks {name}{how}", unlinked(world, state, name)
        files = tuple(file for file in state.files if file.name != name)
        doomed = tuple(pair for pair in state.catalog.doomed if pair[0] != name)
        catalog = state.catalog._replace(doomed=doomed)
        verb = "forgets" if world.power else "unlinks"
        return (
            f"{self.name} {verb} {name}{how}",
            transact(world, state._replace(files=files), catalog),
        )


class Scanning(NamedTuple):
    at: str = "idle"
    used: bool = False
    files: tuple[tuple[str, str], ...] = ()  # (name, owner) as listed
    kept: tuple[str, ...] = ()  # names and owners that count, where the catalog is read first
    lineage: int = 0


@attrs.frozen
class OrphanScan:
    """Unlinks files that no transaction can name any more: their session is gone (fenced)."""

    name: str = "scan"

    def start(self) -> Scanning:
        return Scanning()

    def crashed(self, memory: Scanning) -> Scanning | None:
        return Scanning(used=True) if memory.at != "idle" else None

    def steps(self, world: World, state: State, me: int) -> Steps:
        memory: Scanning = state.actors[me]
        listed = tuple((f.name, f.owner) for f in state.files if f.status != UNLINKED)
        lineage = state.catalog.lineage
        if memory.at == "idle":
            if memory.used:
                return
            if world.rules.orphans_listed_first:
                if listed:
                    seen = Scanning("listed", True, listed, (), lineage)
                    yield f"{self.name} lists the bucket", remember(state, me, seen)
            else:
                seen = Scanning("read", True, (), _counting(state.catalog), lineage)
                yield f"{self.name} reads the catalog", remember(state, me, seen)
            return
        if memory.at in ("listed", "read"):
            kept = memory.kept or _counting(state.catalog)
            files = memory.files if memory.at == "listed" else listed
            orphans = tuple((n, o) for n, o in files if n not in kept and o not in kept)
            found = Scanning("found" if orphans else "idle", True, orphans, (), lineage)
            if not orphans:
                found = Scanning(used=True)
            label = f"{self.name} finds orphans: {' '.join(n for n, _ in orphans) or 'none'}"
            yield label, remember(state, me, found)
            return
        fenced = memory.lineage != lineage and world.rules.unlink_checked
        after = state
        for name, _ in memory.files:
            after = after if fenced else unlinked(world, after, name)
        verb = "gives-up: another lineage" if fenced else "unlinks "
        label = f"{self.name} {verb}" + ("" if fenced else " ".join(n for n, _ in memory.files))
        yield label, remember(after, me, Scanning(used=True))


def _counting(catalog: Catalog) -> tuple[str, ...]:
    """The file names and session keys that the catalog knows."""
    files = [pack.file for pack in catalog.packs if pack.file]
    return (*files, *(file for file, _ in catalog.doomed), *(s.key for s in catalog.sessions))
