"""Attempts that a researcher ends before they are paid for: nothing is opened, many say no more than none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ledger.contracts import CloseQuery, FixSurvivors
from medveil.gateway.query_board import read_opened
from mpc.query import GATE
from mpc.release import Release
from mpc.sum_messages import Masked, Unmasking
from wire.errors import MedveilError

Play = Callable[[Callable[[Any], Any]], Any]
ATTEMPTS = 3


def test_attempts_that_are_ended_early_cost_nothing_and_give_nothing(play: Play) -> None:
    """A dishonest researcher gathers the masked vectors of one question, and closes the query, again and again."""

    async def story(world: Any) -> None:
        await world.grant_study()
        vectors: dict[str, list[bytes]] = {site: [] for site in world.hospitals}
        unmasked: list[Any] = []
        for site in world.sites:
            world.alter(site, Masked, lambda recipient, one: vectors[one.site].append(one.cells) or one)
            world.alter(site, Unmasking, lambda recipient, one: unmasked.append(one) or one)
        submit, early = world.researcher.submit, [True]

        async def ending(*ops: Any) -> Any:
            if early[0] and isinstance(ops[0], FixSurvivors):
                ops = (CloseQuery(ops[0].query),)
            return await submit(*ops)

        world.researcher.submit = ending
        for number in range(ATTEMPTS):
            handle = bytes([number]) * 16
            answer, _ = await world.run(world.query(), handle)
            assert isinstance(answer, MedveilError)
            await world.check_untouched(handle)
            assert read_opened(world.researcher.account.state, handle, GATE) is None
        assert not unmasked
        gathered = [np.frombuffer(cells, dtype="<u8") for site in vectors for cells in vectors[site]]
        assert len(gathered) == ATTEMPTS * len(world.hospitals)
        assert len({int(lane) for one in gathered for lane in one}) == sum(map(len, gathered)), "no lane comes twice"

        early[0] = False
        release = await world.released()
        assert isinstance(release, Release)
        assert release.budget_before_nano - release.budget_after_nano == world.rho
        assert unmasked

    play(story)
