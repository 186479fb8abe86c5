"""Exact queries over gateways: larger groups of a public population, once a table, over the same sites throughout."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from ledger.contracts import RegisterDataset, RegisterPopulation, RetireDataset, SupersedeDataset, VoteBudget, datasets
from medveil.gateway.asking import ask
from medveil.gateway.near_sites import NearSites
from medveil.gateway.query_board import read_board, read_opened
from medveil.gateway.query_history import exact_releases
from medveil.gateway.steps import Passing
from medveil.gateway.tables import keep_layout
from mpc.budget import split
from mpc.query import GATE, SUMS, Measure
from mpc.release import Release, verify_release
from mpc.sum_messages import Masked
from privacy.local import GroupColumn
from privacy.predicate import Compare
from wire.errors import MedveilError

from .restored_site import forget_served

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]
RHO = 400_000_000
WARD = GroupColumn("ward", ("east", "west"))
COST = Measure("cost", 0, 100, 1)


def rows(site: int) -> pa.Table:
    """A hospital's table: 100 rows of ward east, 30 of west, one of neither, site after site."""
    wards = ["east"] * 100 + ["west"] * 30 + [None]
    return pa.table(
        {
            "cost": pa.array([(7 * row + site) % 101 for row in range(len(wards))], pa.int64()),
            "age": pa.array([(3 * row) % 121 for row in range(len(wards))], pa.int64()),
            "ward": pa.array(wards, pa.string()),
        }
    )


async def open_population(world: Any) -> None:
    """A population that its owners declared public, voted for and granted the researcher."""
    old = datasets.current_dataset(world.sites[0].account.state.view(), f"stays-{world.hospitals[0]}")
    await world.sites[0].submit(RegisterPopulation("open", "row", 1, 1, world.hospitals, public=True))
    for number, site in enumerate(world.sites, start=1):
        name = f"open-{site.name}"
        site.vault.ingest(name, rows(number), schema_hash=old.schema_hash)
        keep_layout(site.vault, name, world.tables(site).layout(f"stays-{site.name}"))
        await site.submit(RegisterDataset(name, "open", old.schema_hash, old.columns, 200, secrets.token_bytes(32)))
        await world.grant(f"open-{site.name}", site.name, "researcher", dataset=name)
    await asyncio.gather(*(site.submit(VoteBudget("open", 10**9)) for site in world.sites))
    await world.researcher.account.caught_up()


def question(world: Any, **changes: Any) -> Any:
    of_it = {
        "population": "open",
        "datasets": tuple(f"open-{site}" for site in world.hospitals),
        "measures": (COST,),
        "groups": (WARD,),
        "max_rows": 200,
        "exact": True,
        "rho_nano": RHO,
    }
    made = world.query(**(of_it | changes))
    own = split(made.rho_nano, any(one.edges for one in made.measures), bool(made.measures), made.exact)
    return msgspec.structs.replace(made, split=own)


async def spent(world: Any) -> int:
    state = await world.researcher.account.caught_up()
    return datasets.population(state.view(), "open").spent


def test_the_larger_groups_are_exact_and_the_next_exact_question_is_refused(play: Play) -> None:
    async def story(world: Any) -> None:
        await open_population(world)
        first = await world.released(question(world))
        (result,) = first.results
        (east,) = result.groups
        values = [one for at, _ in enumerate(world.sites, 1) for one in rows(at)["cost"].to_pylist()[:100]]
        assert (east.label, east.count.value, east.count.low) == ("ward=east", "300", "300")
        assert east.mean is not None and abs(float(east.mean.value or 0) - sum(values) / 300) < 1e-4
        assert {one.label: one.reason for one in result.hidden} == {
            "ward=other": "perhaps-small",
            "ward=west": "protects-another",
        }
        verify_release(first, read_board(await world.bureau.account.caught_up(), first.handle))

        again = await ask(world.researcher, question(world), HANDLE, bytes(32), Passing())
        assert again == first and await spent(world) == RHO, "the same question has its answer"
        vault = world.researcher.vault
        for name in vault.documents("question"):
            vault.remove_document("question", name)  # as another researcher would, it asks the sites
        again, parts = await world.run(question(world), secrets.token_bytes(16))
        assert again == first and world.codes(parts) == ["allowed"] * 3 and await spent(world) == RHO

        other = question(world, filter=Compare("cost", "lt", 90))
        assert [one.handle for one in exact_releases(world.researcher, other)] == [first.handle]
        for site in world.sites:
            site.near = NearSites(rosters="label")  # says nothing of exact numbers
        for changed in (other, question(world, measures=()), question(world, rho_nano=RHO - 1)):
            answer, parts = await world.run(changed, secrets.token_bytes(16))
            assert isinstance(answer, MedveilError) and answer.facts["reason"] == "mpc.exact_before"
            assert world.codes(parts) == ["mpc.exact_before"] * 3
        assert await spent(world) == RHO

        noised = await world.released(question(world, exact=False, filter=Compare("cost", "lt", 90)))
        assert noised.results[0].groups[0].count.low != noised.results[0].groups[0].count.high

    play(story)


def test_a_site_that_has_forgotten_what_was_asked_answers_nothing_exact(play: Play) -> None:
    """Its home came back from a backup of before: of what it approved since nobody tells it that it was not exact."""

    async def story(world: Any) -> None:
        await open_population(world)
        first = await world.released(question(world))
        forget_served(world.sites[0])
        answer, parts = await world.run(question(world, filter=Compare("cost", "lt", 90)), secrets.token_bytes(16))
        assert isinstance(answer, MedveilError) and first.handle.hex() in answer.text()
        assert world.codes(parts) == ["mpc.exact_forgotten", "mpc.exact_before", "mpc.exact_before"]
        assert await spent(world) == RHO
        await world.released(question(world, exact=False, filter=Compare("cost", "lt", 90)))

    play(story)


def test_bounds_that_would_count_the_rows_beyond_a_value_are_refused(play: Play) -> None:
    """Clamped to 99 and 100, the exact sum of a large group is how many of its rows have 100: perhaps one."""

    async def story(world: Any) -> None:
        await open_population(world)
        for narrow in (Measure("cost", 99, 100, 1), Measure("cost", 0, 1, 1), Measure("cost", 0, 99, 1, (0, 50, 99))):
            answer, parts = await world.run(question(world, measures=(narrow,)), secrets.token_bytes(16))
            assert isinstance(answer, MedveilError) and answer.facts["reason"] == "mpc.exact_bounds"
            assert world.codes(parts) == ["mpc.exact_bounds"] * 3
        assert await spent(world) == 0
        asked = await world.released(question(world, measures=(Measure("cost", 0, 100, 1, (0, 50, 100)),)))
        assert asked.results[0].groups[0].count.value == "300", "what was refused was no exact question"

    play(story)


def test_a_new_version_of_a_table_was_asked_already(play: Play) -> None:
    async def story(world: Any) -> None:
        await open_population(world)
        await world.released(question(world))
        site = world.sites[0]
        old = datasets.current_dataset(world.researcher.account.state.view(), f"open-{site.name}")
        site.vault.ingest("open-next", rows(1).slice(1), schema_hash=old.schema_hash)
        keep_layout(site.vault, "open-next", world.tables(site).layout(old.dataset))
        commitment = secrets.token_bytes(32)
        await site.submit(SupersedeDataset(old.dataset, "open-next", old.schema_hash, old.columns, 200, commitment))
        await world.grant("next", site.name, "researcher", dataset="open-next")
        newer = ("open-next", *(f"open-{name}" for name in world.hospitals[1:]))
        answer, parts = await world.run(question(world, datasets=newer), HANDLE)
        assert isinstance(answer, MedveilError)
        assert world.codes(parts) == ["mpc.exact_before"] * 3
        assert await spent(world) == RHO

    play(story)


async def load_again(world: Any, suffix: str, left_out: int = 0) -> tuple[str, ...]:
    """Every site loads its rows under another name, hospital-1 without its first ones, and grants it."""
    old = datasets.current_dataset(world.sites[0].account.state.view(), f"open-{world.hospitals[0]}")
    names = []
    for number, site in enumerate(world.sites, start=1):
        names.append(name := f"open-{site.name}-{suffix}")
        site.vault.ingest(name, rows(number).slice(left_out if number == 1 else 0), schema_hash=old.schema_hash)
        keep_layout(site.vault, name, world.tables(site).layout(f"open-{site.name}"))
        await site.submit(RegisterDataset(name, "open", old.schema_hash, old.columns, 200, secrets.token_bytes(32)))
        await world.grant(name, site.name, "researcher", dataset=name)
    await world.researcher.account.caught_up()
    return tuple(names)


def test_tables_that_every_site_loads_anew_were_asked_already(play: Play) -> None:
    """A table is loaded anew under another name, and the old one retired: next year's has most of the same rows.

    Both exact answers, subtracted, would be about who came and went: here one person.
    """

    async def story(world: Any) -> None:
        await open_population(world)
        beside = await load_again(world, "beside")  # there when the first question was asked: another table
        first = await world.released(question(world))
        newer = await load_again(world, "next", left_out=1)
        for site in world.sites:
            await site.submit(RetireDataset(f"open-{site.name}"))
        await world.researcher.account.caught_up()
        asked = question(world, datasets=newer)
        answer, parts = await world.run(asked, HANDLE)
        assert isinstance(answer, MedveilError) and answer.facts["reason"] == "mpc.exact_before"
        assert first.handle.hex() in answer.text()
        assert world.codes(parts) == ["mpc.exact_before"] * 3
        assert [one.handle for one in exact_releases(world.researcher, asked)] == [first.handle]
        assert await spent(world) == RHO
        await world.released(question(world, datasets=newer, exact=False))
        assert await spent(world) == 2 * RHO
        assert exact_releases(world.researcher, question(world, datasets=beside)) == ()

    play(story)


def test_tables_that_stood_side_by_side_are_asked_each(play: Play) -> None:
    async def story(world: Any) -> None:
        await open_population(world)
        beside = await load_again(world, "beside")
        await world.released(question(world))
        assert isinstance(await world.released(question(world, datasets=beside)), Release)
        assert await spent(world) == 2 * RHO

    play(story)


@pytest.fixture
def four(in_consortium: Callable[..., Any], tmp_path: Path) -> Play:
    """Tell a story among four hospitals that wait for each other for four seconds."""

    def tell(story: Callable[[Any], Awaitable[Any]]) -> Any:
        async def whole(world: Any) -> Any:
            world.deaf(4)
            await open_population(world)
            return await story(world)

        return in_consortium(tmp_path / "consortium", whole, 4)

    return tell


def silent(world: Any, site: str, phases: tuple[int, ...]) -> None:
    """Let no masked vector of these phases leave a site."""
    seen: list[bytes] = []

    def kept(recipient: str, message: Masked) -> Masked | None:
        if message.session not in seen:
            seen.append(message.session)
        return None if seen.index(message.session) + 1 in phases else message

    world.alter(world[site], Masked, kept)


def test_nothing_exact_is_opened_where_a_site_is_lost_after_the_groups_were_chosen(four: Play) -> None:
    async def story(world: Any) -> None:
        silent(world, "hospital-2", (SUMS,))
        answer, parts = await world.run(question(world), HANDLE)
        assert isinstance(answer, MedveilError)
        assert "mpc.exact_sites" in world.codes(parts)
        assert not {"allowed"} & set(world.codes([parts[0], *parts[2:]]))
        state = await world.researcher.account.caught_up()
        assert read_opened(state, HANDLE, GATE) is not None
        assert read_opened(state, HANDLE, SUMS) is None

    four(story)


def test_a_site_that_was_lost_from_the_beginning_is_not_missed(four: Play) -> None:
    async def story(world: Any) -> None:
        silent(world, "hospital-2", (GATE, SUMS))
        answer, _ = await world.run(question(world), HANDLE)
        assert isinstance(answer, Release)
        assert [one.lost for one in answer.survivors] == [("hospital-2",)] * 2
        assert answer.results[0].groups[0].count.value == "300"

    four(story)
