"""A secure sum whose researcher or site is killed at any step and starts again: it ends as if nothing had happened.

Every point of one party's run, one after the other: before and after each message, each envelope, each entry of the
trail, and around each record of a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from medveil.gateway.asking import ask
from medveil.gateway.query_run import request_session
from medveil.gateway.serving import serve_query
from mpc.release import Release

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
RHO = 10_000_000


async def query_with_a_cut(world: Any, name: str, at: int) -> Cut:
    """One query; the organisation `name` is killed at its point `at`. Everything is checked."""
    handle, salt = at.to_bytes(16, "big"), bytes(32)
    rho = RHO + at  # or it would be the same question, and get the same answer
    query = world.query(rho_nano=rho)
    before = await world.population()
    entries = {site: len(world.entries(site)) for site in world.hospitals}
    cut = Cut(world[name], at)
    try:

        async def party(organisation: Any) -> Any:
            async def flow(steps: Any) -> Any:
                if organisation is world.researcher:
                    return await ask(organisation, query, handle, salt, steps)
                tables, session = world.tables(organisation), request_session(handle)
                return await serve_query(organisation, "researcher", session, tables, steps, world.now)

            if organisation.name == name:
                return await cut.run(flow)
            return await flow(world.steps())

        answer, *parts = await asyncio.gather(*(party(one) for one in (world.researcher, *world.sites)))
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert isinstance(answer, Release), where
    assert all(part.allowed for part in parts), where
    after = await world.population()
    assert (after.reserved, after.spent - before.spent) == (0, rho), where
    assert world.state_of(handle).status == "released", where
    for site in world.hospitals:
        trail = world.entries(site)[entries[site] :]
        assert [entry.outcome for entry in trail] == ["", "released"], (where, site)
        assert not world[site].audit.unfinished(), (where, site)
    assert len(set(cut.steps.ran) - set(cut.steps.records)) == 0
    assert cut.messages_kept == 0, where
    drawn = [step for step in cut.steps.ran if step.startswith("cells/")]
    assert len(drawn) <= len(set(drawn)) + ("not kept cells" in where), where
    return cut


def cut_at_steps(play: Play, name: str, apart: int) -> None:
    """Cut short at each step, or at one of `apart`."""

    async def story(world: Any) -> int:
        await world.grant_study()
        await query_with_a_cut(world, name, 20_000)  # the first one makes the snapshots
        whole = await query_with_a_cut(world, name, 10_000)
        points = len(whole.cuts.passed)
        for at in range(1, points + 1, apart):
            cut = await query_with_a_cut(world, name, at)
            assert len(cut.cuts.passed) >= at
        return points

    assert play(story) > 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["researcher", "hospital-2"])
def test_every_third_step(play: Play, name: str) -> None:
    cut_at_steps(play, name, 3)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["researcher", "hospital-2"])
def test_every_step(play: Play, name: str) -> None:
    cut_at_steps(play, name, 1)
