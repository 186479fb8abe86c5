"""The audit trail on its way to the ledger: every entry once, in order, whatever happens to the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import access as board
from medveil.gateway.accounting import anchor_audit, keep_anchoring
from privacy.audit import Use
from wire.errors import Refused, Unavailable

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
USE = Use("researcher", "stays-hospital-1", "query", "HMB", "", bytes(32), False, "no-grant")
NOWHERE = 10_000


def use(world: Any, count: int = 1) -> None:
    """Uses that were denied: two entries each."""
    trail = world["hospital-1"].audit
    for _ in range(count):
        trail.outcome(trail.intent(USE), "denied")


def chain(world: Any) -> Any:
    """hospital-1's chain on the ledger."""
    return world["hospital-1"].account.state.get(board.chain_key("hospital-1"), board.ChainState)


async def anchored_with_a_cut(world: Any, at: int) -> Cut:
    """Two more entries anchored by a flow that is cut at its point `at`."""
    hospital = world["hospital-1"]
    use(world)
    assert hospital.audit.waiting() == 2
    batches = len(hospital.audit.batches())
    cut = Cut(hospital, at)
    try:
        await cut.run(lambda steps: anchor_audit(hospital))
    finally:
        cut.heal()
    assert hospital.audit.waiting() == 0
    state = chain(world)
    assert (state.batches, len(hospital.audit.batches())) == (batches + 1, batches + 1)
    assert state.last == hospital.audit.batches()[-1].last
    assert all(receipt.result.accepted for receipt in hospital.account.receipts)
    return cut


def test_a_batch_is_anchored_once_wherever_its_flow_is_cut(play: Play) -> None:
    async def story(world: Any) -> None:
        points = len((await anchored_with_a_cut(world, NOWHERE)).cuts.passed)
        assert points == 4
        for at in range(1, points + 1):
            await anchored_with_a_cut(world, at)

    play(story)


def test_two_that_anchor_at_once_do_not_trip_over_each_other(play: Play) -> None:
    async def story(world: Any) -> None:
        use(world, 2)
        hospital = world["hospital-1"]
        first, second = await asyncio.gather(anchor_audit(hospital), anchor_audit(hospital))
        assert sorted([len(first), len(second)]) == [0, 1]
        assert chain(world).last == 4

    play(story)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


def test_entries_are_anchored_after_a_time_or_when_many_wait(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        use(world)
        soon = asyncio.ensure_future(keep_anchoring(hospital, every_seconds=0.05))
        await until(lambda: hospital.audit.waiting() == 0)
        soon.cancel()
        await asyncio.gather(soon, return_exceptions=True)

        many = asyncio.ensure_future(keep_anchoring(hospital, every_seconds=3600, most=6))
        use(world, 2)
        await asyncio.sleep(1.2)
        assert hospital.audit.waiting() == 4, "neither old enough nor many"
        use(world)
        await until(lambda: hospital.audit.waiting() == 0)
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        assert chain(world).batches == 2

    play(story)


def test_a_ledger_that_cannot_be_reached_is_tried_again(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        use(world)
        submit, tries = hospital.submit, []

        async def failing(*ops: Any) -> Any:
            tries.append(ops)
            if len(tries) < 3:
                raise Unavailable("account.timeout", organisation="hospital-1", what="a block")
            return await submit(*ops)

        hospital.submit = failing
        keeping = asyncio.ensure_future(keep_anchoring(hospital, every_seconds=0.02))
        await until(lambda: hospital.audit.waiting() == 0)
        assert len(tries) == 3 and not keeping.done()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    play(story)


def test_another_batch_in_its_place_stops_it(play: Play) -> None:
    """Somebody with this organisation's key, or an older copy of its trail, wrote first."""

    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        use(world)
        await hospital.submit(board.AnchorAccess(1, 2, bytes(32), bytes([1]) * 32, bytes(32)))
        with pytest.raises(Refused) as refused:
            await keep_anchoring(hospital, every_seconds=0.01)
        assert refused.value.code == "access.gap"
        assert hospital.audit.waiting() == 2

    play(story)
