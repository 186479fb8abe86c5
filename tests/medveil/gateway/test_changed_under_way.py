"""Queries under way while grants are revoked, tables superseded, retired or classified anew, and people opt out.

At random moments at one site or two of four. However it ends, trails, budget and ledger agree, nobody waits for good,
and no share leaves a site that does not allow the use by then.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.contracts import (
    AnnounceContribution,
    ApproveQuery,
    Contribute,
    RetireDataset,
    RevokeGrant,
    SupersedeDataset,
    datasets,
)
from medveil.gateway import granting, serving, use_state
from medveil.gateway.organisation import Organisation
from medveil.gateway.query_board import read_board, read_survivors
from medveil.gateway.query_run import SharesDealt
from mpc.query import GATE, SUMS, Query
from mpc.release import Release, verify_release
from mpc.sum_messages import Masked, RoundKeys, Unmasking
from privacy.grants.levels import ColumnFacts, DatasetFacts
from privacy.grants.opt_outs import OptOut
from wire.errors import MedveilError

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]
WRITTEN, SENT = (ApproveQuery, AnnounceContribution, Contribute), (RoundKeys, SharesDealt, Masked, Unmasking)
CHANGES = ("revoke", "retire", "supersede", "classify", "opt out", "opt out and withdraw")
DENIES = frozenset({"revoke", "classify", "opt out"})


@pytest.fixture
def play(in_consortium: Callable[..., Any], tmp_path: Path) -> Play:
    """Tell a story among four hospitals who wait for each other for six seconds, and for twelve once it is paid."""

    def tell(story: Callable[[Any], Awaitable[Any]]) -> Any:
        async def whole(world: Any) -> Any:
            world.deaf(6)
            for one in world.consortium.organisations.values():
                one.last_patience = 12
            await world.grant_study()
            return await story(world)

        return in_consortium(tmp_path / "consortium", whole, 4)

    return tell


async def change(world: Any, site: Organisation, what: str) -> None:
    """One change at a site."""
    table = f"stays-{site.name}"
    match what:
        case "revoke":
            await site.submit(RevokeGrant(f"study-{site.name}"))
        case "retire":
            await site.submit(RetireDataset(table))
        case "supersede":
            old = datasets.current_dataset(site.account.state.view(), table)
            terms = old.schema_hash, old.columns, old.row_class, secrets.token_bytes(32)
            await site.submit(SupersedeDataset(table, f"{table}-new", *terms))
        case "classify":
            levels = ColumnFacts("ward", 2), ColumnFacts("age", 3), ColumnFacts("cost", 5)
            use_state.classify(site, DatasetFacts(table, levels))
        case _:
            use_state.opt_out(site, "wang", OptOut("all", "", world.now() - 1))
            if what != "opt out":
                use_state.withdraw(site, "wang", "all", world.now())


def watch(world: Any, site: Organisation, query: Query, unjust: list[str]) -> None:
    """Note whoever sends its shares although it does not allow the use by then."""
    use, send = serving.use_request(query, site.name, "researcher"), site.send

    async def watched(recipient: str, session: bytes, message: Any) -> None:
        if isinstance(message, Unmasking) and not granting.judge(site, use, world.now()).allowed:
            unjust.append(site.name)
        await send(recipient, session, message)

    site.send = watched  # type: ignore[method-assign]


def at(world: Any, site: Organisation, kind: type[Any], phase: int, then: Callable[[], Awaitable[None]]) -> None:
    """Have it happen once a site has written, or sent, its first or second of a kind."""
    seen = 0

    async def after(_written: Any = None) -> None:
        nonlocal seen
        seen += 1
        if seen == phase:
            await then()

    if kind in WRITTEN:
        world.after(site, kind, after)
        return
    send = site.send

    async def followed(recipient: str, session: bytes, message: Any) -> None:
        await send(recipient, session, message)
        if isinstance(message, kind):
            await after()

    site.send = followed  # type: ignore[method-assign]


async def campaign(world: Any, rng: random.Random) -> None:
    query, unjust, made = world.query(), list[str](), dict[str, str]()
    for site in rng.sample(world.sites, rng.choice((1, 1, 2))):
        what, kind, phase = rng.choice(CHANGES), rng.choice((*WRITTEN, *SENT)), rng.choice((GATE, SUMS))

        async def then(site: Organisation = site, what: str = what) -> None:
            made[site.name] = what
            await change(world, site, what)

        at(world, site, kind, phase, then)
    for site in world.sites:
        watch(world, site, query, unjust)
    answer, parts = await world.run(query, HANDLE)
    assert not unjust, made
    status, population = world.state_of(HANDLE).status, await world.population()
    assert status in ("closed", "spent", "released")
    assert (population.reserved, population.spent) == (0, 0 if status == "closed" else world.rho)
    assert isinstance(answer, Release if status == "released" else MedveilError)
    state = await world.bureau.account.caught_up()
    fixed = [read_survivors(state, HANDLE, phase) for phase in (GATE, SUMS)] if status != "closed" else []
    for name, part in zip(world.hospitals, parts, strict=True):
        summed = any(one is not None and name in one.sites for one in fixed)
        assert world.ended(name) == ["released" if summed else "aborted"], (name, made)
        code = part.code if isinstance(part, MedveilError) else ""
        assert code in {"", "gateway.stopped", "gateway.query_closed", "gateway.grant_gone", "queries.superseded"}, code
        if code == "gateway.grant_gone":
            assert made[name] in DENIES and "has changed" in str(part), (made, str(part))
        if code == "queries.superseded":
            assert made[name] in ("retire", "supersede"), made
    if isinstance(answer, Release):
        verify_release(answer, read_board(state, HANDLE))
    elif made and not DENIES.isdisjoint(made.values()):
        assert len(made) == 2, "one of four may be lost"


@pytest.mark.parametrize("seed", [2, 6, 8, 15, 19, 24])
def test_a_few_changes(play: Play, seed: int) -> None:
    play(lambda world: campaign(world, random.Random(seed)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 300))
def test_two_hundred_changes(play: Play, seed: int) -> None:
    play(lambda world: campaign(world, random.Random(seed)))
