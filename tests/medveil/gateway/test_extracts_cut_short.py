"""Extracts whose holder or recipient is killed at any step: one intent, one outcome, one file, and none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway import extract_delivery, extract_wanted, extracting, held_extracts, use_state
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extract_wanted import ExtractRequest
from medveil.gateway.extracting import FOLDER, MADE, made, made_of
from medveil.gateway.granting import revoke
from medveil.gateway.held_extracts import HELD
from medveil.gateway.steps import FlowCancelled, Passing
from privacy.copies.extract_file import ExtractFacts
from wire.errors import ConsentDenied, MedveilError, Refused

from .cutting import Cut
from .extracts_world import HOLDER, RECIPIENT, grant, load, offered, request, wish

Play = Callable[[Callable[[Any], Any]], Any]
NOWHERE = 10_000


def files(world: Any, name: str, folder: str) -> list[str]:
    """What lies in one of an organisation's folders of extracts."""
    place: Path = world[name].folder / FOLDER / folder
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


async def asked(world: Any) -> bytes:
    """A request that reached the holder."""
    one = await extract_wanted.ask_extract(world[RECIPIENT], request(), Passing(), world.now)
    sender, session, asking = await anext(world[HOLDER].openings(ExtractRequest))
    await extract_wanted.take_request(world[HOLDER], sender, session, asking, world.now)
    return one.ask


async def brought(world: Any, name: str, at: int) -> Cut:
    """One extract asked for, made and delivered; the flow at `name` is cut at its point `at`. Everything is checked."""
    holder, recipient = world[HOLDER], world[RECIPIENT]
    ask = await asked(world)
    trail = len(world.entries(HOLDER))
    cut = Cut(world[name], at)
    tables = world.tables(holder)

    async def sending(steps: Any) -> ExtractFacts:
        fault = cut.cuts.point if name == HOLDER else extracting.no_fault
        facts = await extracting.make_extract(holder, tables, wish(ask), steps, world.now, fault)
        await extract_delivery.deliver(holder, facts.cover.extract, steps, world.now, fault)
        return facts

    async def taking() -> None:
        _, session, _ = await anext(recipient.openings(ExtractOffer))
        fault = cut.cuts.point if name == RECIPIENT else extracting.no_fault

        async def flow(steps: Any) -> Any:
            return await extract_delivery.take_extract(recipient, HOLDER, session, steps, world.now, fault)

        await (cut.run(flow) if name == RECIPIENT else flow(Passing()))

    try:
        facts, _ = await asyncio.gather(cut.run(sending) if name == HOLDER else sending(Passing()), taking())
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    extract = facts.cover.extract
    intent, outcome = world.entries(HOLDER)[trail:]
    assert (intent.nonce, intent.sequence) == (extract, facts.audit), where
    assert (outcome.intent, outcome.outcome) == (intent.sequence, "released"), where
    one = made_of(holder, extract)
    assert (one.state, one.facts) == ("delivered", facts), where
    assert files(world, HOLDER, MADE) == [], where
    assert files(world, RECIPIENT, HELD).count(f"{extract.hex()}.extract") == 1, where
    assert all(name.endswith(".extract") and name[0] != "." for name in files(world, RECIPIENT, HELD)), where
    assert [one.extract for one in held_extracts.held(recipient)].count(extract) == 1, where
    found, rows = held_extracts.open_held(recipient, extract, world.now)
    assert found == facts and rows.num_rows == facts.rows, where
    assert extract_wanted.wanted_of(holder, ask).state == "delivered", where
    assert extract_wanted.asked_of(recipient, ask).extract == extract, where
    return cut


@pytest.mark.parametrize("name", [HOLDER, RECIPIENT])
def test_one_file_and_one_entry_whoever_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extract_delivery, "PIECE", 1500)
    monkeypatch.setattr(extract_delivery, "WINDOW", 3000)  # so that there are several windows of several pieces

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        world.tables(world[HOLDER]).rows("visits", ())  # the first use of a table makes its snapshot
        points = (await brought(world, name, NOWHERE)).cuts.passed
        assert len(points) > (30 if name == HOLDER else 20), points
        for at in range(1, len(points) + 1):
            await brought(world, name, at)

    play(story)


@pytest.mark.parametrize("step", ["anchor", "offer", "window-1"])
def test_a_grant_revoked_on_the_way_keeps_the_rest_at_home(
    play: Play, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The end of the file, with its key, comes last: what came before it is noise."""
    monkeypatch.setattr(extract_delivery, "PIECE", 700)
    monkeypatch.setattr(extract_delivery, "WINDOW", 700)

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]

        class Revoking(Passing):
            async def boundary(self) -> None:  # the extract is staged and waits for the ledger
                if step == "anchor":
                    await self.revoked()

            async def once(self, name: str, kind: Any, work: Any) -> Any:
                if name == step:
                    await self.revoked()
                return await super().once(name, kind, work)

            async def revoked(self) -> None:
                if not use_state.anchored(holder, ["copies"])[0].revoked:
                    await revoke(holder, "copies")

        async def sending() -> None:
            steps = Revoking()
            facts = await extracting.make_extract(holder, world.tables(holder), wish(), steps, world.now)
            await extract_delivery.deliver(holder, facts.cover.extract, steps, world.now)

        async def taking() -> Any:
            session, _ = await offered(world)
            return await extract_delivery.take_extract(recipient, HOLDER, session, Passing(), world.now)

        reading = asyncio.create_task(taking())
        with pytest.raises(ConsentDenied) as denied:
            await sending()
        if step == "anchor":
            assert denied.value.code == "privacy.deny_revocation" and world.ended(HOLDER) == ["aborted"]
            assert made(holder) == ()
        else:
            assert denied.value.code == "gateway.grant_gone" and world.ended(HOLDER) == ["released"]
            assert [one.state for one in made(holder)] == ["withdrawn"]
        if step == "window-1":
            with pytest.raises(Refused) as refused:
                await reading
            assert refused.value.code == "gateway.extract_refused"
        reading.cancel()  # else it waits for an offer
        assert files(world, HOLDER, MADE) == [] and files(world, RECIPIENT, HELD) == []
        assert held_extracts.ever_held(recipient) == ()

    play(story)


@pytest.mark.parametrize("where", ["staged", "released"])
def test_a_cancelled_extract_does_not_leave(play: Play, where: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        ask = await asked(world)

        class Cancelled(Passing):
            async def boundary(self) -> None:
                raise FlowCancelled

        if where == "staged":
            with pytest.raises(FlowCancelled):
                await extracting.make_extract(holder, world.tables(holder), wish(ask), Cancelled(), world.now)
            assert world.ended(HOLDER) == ["aborted"] and made(holder) == ()
            assert extract_wanted.wanted_of(holder, ask).state == "waiting"
        else:
            facts = await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now)
            with pytest.raises(FlowCancelled):
                await extract_delivery.deliver(holder, facts.cover.extract, Cancelled(), world.now)
            assert made_of(holder, facts.cover.extract).state == "released"  # it may be delivered, or withdrawn
            extract_delivery.withdraw(holder, facts.cover.extract, "gateway.extract_declined", world.now)
            assert extract_wanted.wanted_of(holder, ask).state == "waiting"
            with pytest.raises(MedveilError) as gone:
                await extract_delivery.deliver(holder, facts.cover.extract, Passing(), world.now)
            assert gone.value.code == "gateway.extract_withdrawn"
        assert files(world, HOLDER, MADE) == [] and not list(world[RECIPIENT].folder.glob("extracts/*/*"))

    play(story)
