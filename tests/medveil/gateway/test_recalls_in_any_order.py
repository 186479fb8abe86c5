"""Recalls of two holders whose messages come in any order, twice, late or never, while everybody is killed at times."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway import erasing, granting, recalling
from medveil.gateway.organisation import Organisation
from medveil.gateway.recalling import Arrived
from privacy.audit import Use
from privacy.erasure import recalls, steps
from privacy.erasure.deletion import DeleteNotice, Deletion
from tests.medveil.gateway.cutting import Killed
from tests.medveil.gateway.test_recalling import DATASET, Shelf
from wire.errors import MedveilError

Play = Callable[[Callable[[Any], Any]], Any]
HOLDERS, RECIPIENT = ("hospital-1", "hospital-2"), "researcher"
CAMPAIGNS = int(os.environ.get("MEDVEIL_RECALLS", "3"))
STEPS = 60


class Hall:
    """Two holders, their recipient, and the messages that are under way between them."""

    def __init__(self, world: Any, folder: Path, rng: random.Random) -> None:
        self.world, self.rng, self.later = world, rng, 0
        self.recipient: Organisation = world[RECIPIENT]
        self.holders: dict[str, Organisation] = {name: world[name] for name in HOLDERS}
        self.held = Shelf(folder / "held", self.clock)
        self.made = {name: Shelf(folder / name, self.clock) for name in HOLDERS}
        self.given: dict[str, dict[bytes, bool]] = {name: {} for name in HOLDERS}  # extract -> whether it came
        self.erasures: list[tuple[str, str]] = []
        self.revoked: set[str] = set()
        self.bag: list[tuple[str, str, Any]] = []
        for organisation in (self.recipient, *self.holders.values()):
            self._carry(organisation)

    def clock(self) -> int:
        return int(self.world.now()) + self.later

    def _carry(self, organisation: Organisation) -> None:
        async def send(to: str, session: bytes, message: Any) -> None:
            if isinstance(message, DeleteNotice | Deletion):
                self.bag.append((organisation.name, to, message))

        organisation.send = send  # type: ignore[method-assign]

    async def begin(self) -> None:
        for name, holder in self.holders.items():
            people = [f"{name}-{number}" for number in range(8)]
            holder.vault.ingest(DATASET, pa.table({"cost": list(range(8))}), persons=people)

    async def grants(self) -> None:
        for name, holder in self.holders.items():
            changes = {"dataset": DATASET, "uses": ("extract",)}
            await granting.issue(holder, self.world.terms(f"of-{name}", name, RECIPIENT, **changes), self.world.steps())

    def strike(self) -> Callable[[str], None]:
        """Kills at one of the steps, at times."""
        left = [self.rng.randrange(4) if self.rng.random() < 0.3 else -1]

        def fault(step: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise Killed(step)

        if left[0] < 0:
            return recalling.no_fault
        return fault

    def give(self) -> None:
        name = self.rng.choice(HOLDERS)
        if name in self.revoked:
            return
        extract = secrets.token_bytes(16)
        use = Use(RECIPIENT, DATASET, "extract", "HMB", f"of-{name}", b"", True, "granted")
        holder = self.holders[name]
        holder.audit.outcome(holder.audit.intent(use, extract), "released")
        self.given[name][extract] = False

    def arrive(self) -> None:
        """One that is on its way comes, unless its recipient was told before; or its file was whole and unlisted."""
        waiting = [(name, extract) for name in HOLDERS for extract, came in self.given[name].items() if not came]
        if waiting:
            name, extract = self.rng.choice(waiting)
            if recalling.is_recalled(self.recipient, name, extract) and self.rng.random() < 0.5:
                return
            self.held.known[extract] = Arrived(extract, name, 0, "due")
            self.held.path(extract).write_bytes(b"sealed")
            self.given[name][extract] = True

    def due(self) -> None:
        """The recipient deletes one by itself."""
        standing = [one.extract for one in self.held.arrived() if not one.deleted]
        if standing:
            self.held.forget(self.rng.choice(standing), "due")

    def erase(self) -> None:
        name = self.rng.choice(HOLDERS)
        person = f"{name}-{self.rng.randrange(8)}"
        if self.holders[name].vault.keys_of(person):
            erasure = erasing.plan(self.holders[name], person, self.clock()).name
            erasing.apply(self.holders[name], erasure, self.clock)
            self.erasures.append((name, erasure))

    async def revoke(self) -> None:
        name = self.rng.choice(HOLDERS)
        if name not in self.revoked and self.rng.random() < 0.3:
            self.revoked.add(name)
            await granting.revoke(self.holders[name], f"of-{name}")

    async def round_of(self, name: str) -> None:
        extracts = self.held if name == RECIPIENT else self.made[name]
        organisation = self.recipient if name == RECIPIENT else self.holders[name]
        await recalling.keep_up(organisation, extracts, self.clock, self.strike())

    async def carry(self) -> None:
        """One of the messages comes: it may come again, or never."""
        if not self.bag:
            return
        place = self.rng.randrange(len(self.bag))
        sender, to, message = self.bag[place]
        if self.rng.random() < 0.7:
            del self.bag[place]
        if self.rng.random() > 0.1:
            await self.take(sender, to, message, self.strike())

    async def take(self, sender: str, to: str, message: Any, fault: Callable[[str], None]) -> None:
        if isinstance(message, DeleteNotice):
            await recalling.take_notice(self.recipient, self.held, sender, message, self.clock, fault)
        else:
            await recalling.take_deletion(self.holders[to], self.made[to], sender, message, self.clock(), fault)

    async def step(self) -> None:
        turn = self.rng.randrange(12)
        try:
            match turn:
                case 0 | 1:
                    self.give()
                case 2 | 3:
                    self.arrive()
                case 4:
                    self.erase()
                case 5:
                    await self.revoke()
                case 6:
                    self.due()
                case 7:
                    self.later += recalling.AGAIN_MS // 3
                case 8:
                    await self.round_of(RECIPIENT)
                case 9:
                    await self.round_of(self.rng.choice(HOLDERS))
                case _:
                    await self.carry()
        except (Killed, MedveilError):
            pass

    async def settle(self) -> None:
        """Nobody is killed any more, and what is sent arrives, the last first."""
        for _ in range(4):
            self.later += recalling.AGAIN_MS
            for name in (*HOLDERS, RECIPIENT):
                await recalling.keep_up(
                    self.recipient if name == RECIPIENT else self.holders[name],
                    self.held if name == RECIPIENT else self.made[name],
                    self.clock,
                )
            while self.bag:
                try:
                    await self.take(*self.bag.pop(), recalling.no_fault)
                except MedveilError as error:
                    assert error.code == "privacy.no_notice", error

    def check(self) -> None:
        for name, holder in self.holders.items():
            book = {one.extract: one for one in recalls.recalls(holder.vault)}
            assert set(book) <= set(self.given[name])
            erased = {given.entry for mine, erasure in self.erasures if mine == name for given in self.listed(erasure)}
            for extract, came in self.given[name].items():
                (entry,) = holder.audit.intents("nonce", extract)
                one, here = book.get(extract), self.held.known.get(extract)
                if name in self.revoked or entry.sequence in erased:
                    assert one is not None and one.heard is not None, "asked, and answered"
                if one is None:
                    assert here is None or not here.deleted
                    continue
                assert one.heard is not None
                assert (one.heard.found == "deleted") == came, (one.heard.found, came)
                if came:
                    assert here is not None and here.deleted <= one.deleted < here.deleted + 1000
                    assert not self.held.path(extract).exists()
            for mine, erasure in self.erasures:
                for given in self.listed(erasure) if mine == name else ():
                    (entry,) = holder.audit.entries(given.entry, given.entry)
                    assert (given.told > 0, given.deleted) == (
                        book[entry.nonce].told > 0,
                        book[entry.nonce].deleted,
                    )

    def listed(self, erasure: str) -> Any:
        name = next(mine for mine, one in self.erasures if one == erasure)
        return steps.erasure(self.holders[name].vault, erasure).given


@pytest.mark.parametrize("seed", range(CAMPAIGNS))
def test_whatever_comes_when_it_ends_deleted_and_said(play: Play, tmp_path: Path, seed: int) -> None:
    async def story(world: Any) -> None:
        hall = Hall(world, tmp_path, random.Random(seed))
        await hall.begin()
        for holder in hall.holders.values():
            del holder.send  # grants go by the post
        await hall.grants()
        for holder in hall.holders.values():
            hall._carry(holder)
        for _ in range(STEPS):
            await hall.step()
        await hall.settle()
        hall.check()

    play(story)
