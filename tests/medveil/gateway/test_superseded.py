"""A query and tables that were superseded or retired: nothing runs on what is no more, and the budget stays one."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import RetireDataset, SupersedeDataset, datasets
from medveil.gateway.asking import ask
from medveil.gateway.steps import Passing
from medveil.gateway.tables import keep_layout
from mpc.release import Release
from wire.errors import MedveilError, Refused

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]


def successor(world: Any, name: str) -> SupersedeDataset:
    state = world.researcher.account.state
    old = datasets.current_dataset(state.view(), "stays-hospital-1")
    return SupersedeDataset(old.dataset, name, old.schema_hash, old.columns, old.row_class, secrets.token_bytes(32))


def test_a_query_on_a_superseded_table_is_refused_and_one_on_its_successor_pays_from_the_same_budget(
    play: Play,
) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        first = await world.released()
        site = world["hospital-1"]
        await world.researcher.account.caught_up()
        await site.submit(successor(world, "stays-new"))
        refused, parts = await world.run(world.query(rho_nano=world.rho - 1), HANDLE)
        assert isinstance(refused, MedveilError)
        assert isinstance(parts[0], Refused) and parts[0].code == "datasets.superseded"
        assert parts[0].facts == {"dataset": "stays-hospital-1", "successor": "stays-new"}
        assert (await world.population()).reserved == 0

        site.vault.ingest("stays-new", site.vault.read("stays-hospital-1"), schema_hash=successor_schema(world))
        keep_layout(site.vault, "stays-new", world.layout)
        await world.grant("study-new", "hospital-1", "researcher", dataset="stays-new")
        names = ("stays-new", "stays-hospital-2", "stays-hospital-3")
        again = await world.released(world.query(datasets=names))
        assert isinstance(again, Release)
        assert again.budget_before_nano == first.budget_after_nano == world.budget - world.rho

    def successor_schema(world: Any) -> bytes:
        return bytes(datasets.current_dataset(world.researcher.account.state.view(), "stays-new").schema_hash)

    play(story)


@pytest.mark.parametrize("superseded", [True, False], ids=["its successor", "itself"])
def test_a_query_on_a_retired_table_is_refused(play: Play, superseded: bool) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-1"]
        if superseded:
            await site.submit(successor(world, "stays-new"))
            await site.submit(RetireDataset("stays-new"))
        else:
            await site.submit(RetireDataset("stays-hospital-1"))
        with pytest.raises(Refused) as refused:
            await ask(world.researcher, world.query(), HANDLE, secrets.token_bytes(32), Passing())
        assert refused.value.code == "datasets.no_table", "not even proposed"
        population = await world.population()
        assert (population.reserved, population.spent) == (0, 0)

    play(story)
