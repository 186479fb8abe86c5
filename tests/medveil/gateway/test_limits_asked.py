"""How much of a bill's amount one organisation can find out by asking: a few limits, and then no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from medveil.gateway import granting
from medveil.gateway.limits_asked import answered
from wire.errors import Refused
from zkp.bill_limit import Presentation

Play = Callable[[Callable[[Any], Any]], Any]
AMOUNT = 328_640
"""What `world.bill` commits to, in fen."""


async def asked(world: Any, bill: Any, limit: int, grant: str = "proofs") -> bool | str:
    """Whether the bill is within a limit, or the reason why that is not said."""
    answer, _ = await world.limit_checked(world.request(bill, limit=limit, grant=grant))
    if isinstance(answer, Presentation):
        return True
    assert isinstance(answer, Refused), answer
    reason = str(answer.facts["reason"])
    return False if reason == "zkp.over_limit" else reason


def test_an_amount_is_not_found_by_halving(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        low, high = 0, 2**20
        heard = []
        for _ in range(20):
            limit = (low + high) // 2
            heard.append(await asked(world, bill, limit))
            low, high = (low, limit) if heard[-1] is True else (limit + 1, high)
            if isinstance(heard[-1], str):
                break
        assert heard == [True, False, True, "gateway.too_many_limits"]
        assert world.ended("hospital-1") == ["released", "aborted", "released", "aborted"]

    play(story)


def test_what_was_asked_before_is_answered_again(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        limits = [AMOUNT, AMOUNT, AMOUNT - 1, AMOUNT - 1, AMOUNT, 500_000, AMOUNT - 1]
        assert [await asked(world, bill, limit) for limit in limits] == [limit >= AMOUNT for limit in limits]
        assert answered(world["hospital-1"], bill.handle, "insurer").limits == (AMOUNT, AMOUNT - 1, 500_000)
        assert await asked(world, bill, 500_001) == "gateway.too_many_limits"
        assert await asked(world, bill, 500_000) is True
        other = await world.bill("10.00", "person-2")
        assert await asked(world, other, 500_001) is True, "each bill by itself"

    play(story)


def test_other_grants_give_no_more(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        world["hospital-1"].most_limits = 1
        await world.grant_proofs("a-grant")
        assert await asked(world, bill, 500_000, "a-grant") is True
        await world.grant_proofs("another")
        assert await asked(world, bill, 400_000, "a-grant") == "gateway.too_many_limits"
        await granting.revoke(world["hospital-1"], "a-grant")
        assert await asked(world, bill, 400_000, "another") == "gateway.too_many_limits"

    play(story)


def test_what_says_nothing_of_the_amount_does_not_count(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        assert await asked(world, bill, 1) == "privacy.deny_no_grant"
        await world.grant_proofs()
        assert await asked(world, bill, 2, "another") == "gateway.other_grant"
        answer, _ = await world.limit_checked(world.request(bill, limit=3, currency="EUR"))
        assert answer.facts["reason"] == "zkp.other_currency"
        assert answered(world["hospital-1"], bill.handle, "insurer").limits == ()

    play(story)


def test_questions_at_once_are_counted_one_by_one(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        heard = await asyncio.gather(*(asked(world, bill, AMOUNT + step) for step in range(6)))
        assert sorted(heard, key=str) == [True] * 3 + ["gateway.too_many_limits"] * 3

    play(story)


def test_the_count_is_on_disk_before_the_wallet_is_asked(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        hospital = world["hospital-1"]
        real, found = world.wallets.prove, []

        def prove(person: str, request: Any) -> Any:
            found.append(answered(hospital, request.handle, "insurer").limits)
            return real(person, request)

        world.wallets.prove = prove
        assert await asked(world, bill, AMOUNT - 1) is False
        assert found == [(AMOUNT - 1,)]

    play(story)
