"""Queries of several measures between gateways, and of rows alone: what leaves, and which grants they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medveil.gateway.query_board import check_declared
from medveil.gateway.serving import use_request
from mpc.budget import split
from mpc.query import Measure
from wire.errors import ConsentDenied, Refused

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]

AGE = Measure("age", 0, 120, 1, (0, 60, 120))
COST = Measure("cost", 0, 100, 1)


async def granted(world: Any, *fields: str) -> None:
    for site in world.sites:
        await world.grant(f"study-{site.name}", site.name, "researcher", fields=fields)


def noise_of(release: Any, measure: str, kind: str) -> float:
    (found,) = [float(one.pooled) for one in release.noise if (one.measure, one.kind) == (measure, kind)]
    return found


def pooled(world: Any, column: str, ward: str) -> list[int]:
    rows = [row for site in world.sites for row in site.vault.read(f"stays-{site.name}").to_pylist()]
    return [row[column] for row in rows if row["ward"] == ward and row[column] is not None]


def test_two_measures_are_answered_in_one_query(play: Play) -> None:
    async def story(world: Any) -> None:
        await granted(world, "age", "cost", "ward")
        release = await world.released(world.query(measures=(AGE, COST)))
        assert [one.measure for one in release.results] == ["age", "cost"]
        for result in release.results:
            for group in result.groups:
                values = pooled(world, result.measure, group.values[0])
                counts, sums = (noise_of(release, result.measure, kind) for kind in ("counts", "sums"))
                assert abs(float(group.count.value) - len(values)) < 8 * counts
                spread = (8 * sums + 60 * 8 * counts) / len(values)
                assert abs(float(group.mean.value) - sum(values) / len(values)) < spread
                assert len(group.bins) == (2 if result.measure == "age" else 0)
        assert sum(len(one.groups) for one in release.results) >= 2

    play(story)


def test_a_grant_and_the_declarations_must_cover_every_measure(play: Play) -> None:
    async def story(world: Any) -> None:
        await granted(world, "cost", "ward")
        answer, parts = await world.run(world.query(measures=(AGE, COST)), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert world.codes(parts) == ["denied"] * 3
        await world.check_untouched()
        state = world.researcher.account.state
        check_declared(world.query(measures=(AGE, COST)), state, "")
        for second in (Measure("cost", 0, 101, 1), Measure("salary", 0, 100, 1), Measure("ward", 0, 100, 1)):
            with pytest.raises(Refused) as caught:
                check_declared(world.query(measures=(AGE, second)), state, "")
            assert (caught.value.code, caught.value.facts["column"]) == ("gateway.not_declared", second.column)

    play(story)


def test_rows_are_counted_without_a_measured_column(play: Play) -> None:
    """Sites read the group's column and nothing else, and no other needs to be granted."""

    async def story(world: Any) -> None:
        await granted(world, "ward")
        query = world.query(measures=(), split=split(world.rho, histogram=False, measures=False))
        release = await world.released(query)
        (result,) = release.results
        assert (result.measure, {one.kind for one in release.noise}) == ("", {"gate", "counts"})
        for group in result.groups:
            assert (group.mean, group.sd, group.bins) == (None, None, ())
            assert abs(float(group.count.value) - len(pooled(world, "ward", group.values[0]))) < 8 * noise_of(
                release, "", "counts"
            )
        assert result.groups
        assert use_request(query, "hospital-1", "researcher").fields == ("ward",)

    play(story)
