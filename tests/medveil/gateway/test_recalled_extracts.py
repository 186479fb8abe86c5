"""Recalls of extracts that were really made, delivered and opened, through the reception of either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from medveil.gateway import erasing, extract_delivery, extract_taking, granting, held_extracts
from medveil.gateway.held_extracts import held_path, open_held
from medveil.gateway.made_extracts import made_of, made_path
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import AGAIN_MS, keep_up
from medveil.gateway.reception import Reception
from medveil.gateway.steps import Passing
from privacy.erasure import recalls, steps
from tests.medveil.gateway.extracts_world import HOLDER, RECIPIENT, deliver, grant, load, make, wish
from wire.errors import Refused

Play = Callable[[Callable[[Any], Any]], Any]


@asynccontextmanager
async def attended(world: Any) -> AsyncIterator[None]:
    """Both receptions are open."""

    async def begin(kind: str, peer: str, session: bytes) -> None:
        raise AssertionError(f"nobody begins {kind} here")

    tasks = [
        asyncio.ensure_future(Reception(world[name], begin, clock=world.now).attend()) for name in (HOLDER, RECIPIENT)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rounds(world: Any, until: Callable[[], bool], later: int = 0) -> None:
    """Rounds at both sides until something holds."""
    async with asyncio.timeout(30):
        while not until():
            for name in (HOLDER, RECIPIENT):
                await keep_up(world[name], ExtractsHere(world[name], world.now), lambda: world.now() + later)
            await asyncio.sleep(0.05)


def heard(world: Any, extract: bytes) -> Any:
    found = recalls.recall_of(world[HOLDER].vault, extract)
    return found.heard if found is not None else None


@pytest.mark.parametrize("opened", [True, False])
def test_somebody_is_erased(play: Play, opened: bool) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        facts = await make(world, wish())
        assert (await deliver(world, facts))[1].facts == facts
        holder, recipient, extract = world[HOLDER], world[RECIPIENT], facts.cover.extract
        if opened:
            await asyncio.to_thread(open_held, recipient, extract, world.now)
        assert held_path(recipient, extract).exists()
        name = erasing.plan(holder, "person-3", world.now()).name
        await asyncio.to_thread(erasing.apply, holder, name, world.now)
        async with attended(world):
            await rounds(world, lambda: heard(world, extract) is not None)
        said = heard(world, extract)
        assert (said.found, said.why, said.beyond) == (
            "deleted",
            "erasure",
            ("opened", "copies") if opened else ("copies",),
        )
        assert not held_path(recipient, extract).exists()
        (kept,) = held_extracts.ever_held(recipient)
        assert kept.deleted and kept.why == "erasure"
        with pytest.raises(Refused):
            open_held(recipient, extract, world.now)
        (given,) = steps.erasure(holder.vault, name).given
        assert given.told and given.deleted == said.at
        (told,) = erasing.receipt_of(holder, name, world.now()).recipients
        assert (told.recipient, told.entry, told.acknowledged) == (RECIPIENT, facts.audit, said.at)

    play(story)


def test_a_consent_is_revoked_before_the_extract_has_left(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        facts = await make(world, wish())
        holder, recipient, extract = world[HOLDER], world[RECIPIENT], facts.cover.extract
        await granting.revoke(holder, "copies")
        async with attended(world):
            await rounds(world, lambda: heard(world, extract) is not None)
        assert heard(world, extract).found == "not-held"
        one = made_of(holder, extract)
        assert (one.state, one.code) == ("withdrawn", "gateway.extract_recalled")
        assert not made_path(holder, extract).exists()
        # What is offered all the same, by a holder that had not heard of it, is not taken.
        session = b"s" * 16
        offer = extract_delivery.ExtractOffer(extract, b"", "copies", "visits", 10, bytes(32))
        await holder.send(RECIPIENT, session, offer)
        with pytest.raises(Refused) as refused:
            await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now)
        assert refused.value.code == "gateway.extract_recalled"

    play(story)


def test_one_that_its_recipient_deleted_on_its_day(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        facts = await make(world, wish())
        assert (await deliver(world, facts))[1].facts == facts
        recipient, extract = world[RECIPIENT], facts.cover.extract
        held_extracts.tidy_held(recipient, lambda: facts.delete_by)
        async with attended(world):
            await rounds(world, lambda: heard(world, extract) is not None)
        said = heard(world, extract)
        assert (said.found, said.why, said.notice, said.at) == ("deleted", "due", b"", facts.delete_by)

    play(story)


def test_a_recipient_that_is_away_is_asked_until_it_answers(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        facts = await make(world, wish())
        assert (await deliver(world, facts))[1].facts == facts
        holder, extract = world[HOLDER], facts.cover.extract
        await granting.revoke(holder, "copies")
        for days in range(3):
            await keep_up(holder, ExtractsHere(holder, world.now), lambda days=days: world.now() + days * AGAIN_MS)
        assert heard(world, extract) is None
        async with attended(world):
            await rounds(world, lambda: heard(world, extract) is not None, later=3 * AGAIN_MS)
        assert heard(world, extract).found == "deleted" and not held_path(world[RECIPIENT], extract).exists()

    play(story)
