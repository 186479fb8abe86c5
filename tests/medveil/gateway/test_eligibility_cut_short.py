"""Bills and proofs about them, with either side killed at any step: one bill, one proof, one use in the trail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import bills
from medveil.gateway import eligibility, limits_asked
from medveil.gateway.eligibility import ProofRequest, session_of
from medveil.gateway.organisation import Refusal
from medveil.gateway.steps import FlowCancelled, FlowPaused, Passing
from wire.errors import Refused
from wire.money import parse_amount
from zkp.bill_limit import Presentation

from .cutting import Cut, Cuts, KeptSteps

Play = Callable[[Callable[[Any], Any]], Any]
NOWHERE = 10_000


async def billed_with_a_cut(world: Any, at: int) -> Cut:
    """A bill of hospital-1 whose flow is cut at its point `at`. Everything is checked."""
    hospital, wallet = world["hospital-1"], world.wallets.of("person-1")
    held, noted, written = len(wallet.bills()), len(world.wallets.bills()), len(hospital.account.receipts)
    cut = Cut(hospital, at)
    try:
        amount = parse_amount("12.00", "CNY")
        bill = await cut.run(lambda steps: eligibility.issue_bill(hospital, world.wallets, "person-1", amount, steps))
    finally:
        cut.heal()
    assert (len(wallet.bills()), len(world.wallets.bills())) == (held + 1, noted + 1)
    assert len(hospital.account.receipts) == written + 1
    found = hospital.account.state.get(bills.bill_key(bill.handle), bills.BillState)
    assert found is not None and found.commitment == bill.commitment
    assert world.wallets.bill(bill.handle).person == "person-1" and bill.handle in wallet.bills()
    return cut


def test_a_bill_is_issued_once_wherever_its_flow_is_cut(play: Play) -> None:
    async def story(world: Any) -> None:
        points = len((await billed_with_a_cut(world, NOWHERE)).cuts.passed)
        assert points >= 7
        for at in range(1, points + 1):
            await billed_with_a_cut(world, at)

    play(story)


async def proven_with_a_cut(world: Any, bill: Any, name: str, at: int, limit: int = 500_000) -> Cut:
    """One request whose flow at `name` is cut at its point `at`. Everything is checked."""
    hospital, request = world["hospital-1"], world.request(bill, limit=limit)
    session, trail = session_of(request.nonce), len(world.entries("hospital-1"))
    sent: list[Any] = []
    world.alter(hospital, (Presentation, Refusal), lambda recipient, message: sent.append(message) or message)
    cut = Cut(world[name], at)

    async def asking(steps: Any) -> Any:
        return await eligibility.check_limit(world.insurer, "hospital-1", request, steps)

    async def answering(steps: Any) -> Any:
        return await eligibility.answer(hospital, "insurer", session, world.wallets, steps, world.now)

    try:
        asked = cut.run(asking) if name == "insurer" else asking(Passing())
        answered = cut.run(answering) if name != "insurer" else answering(Passing())
        answer, decision = await asyncio.gather(asked, answered, return_exceptions=True)
    finally:
        cut.heal()
        del hospital.send
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert decision.allowed, where
    intent, outcome = world.entries("hospital-1")[trail:]
    if limit > 328_640:
        assert isinstance(answer, Presentation), where
        assert outcome.outcome == "released", where
        assert eligibility.presentation(world.insurer, request.nonce) == answer, where
        assert {one.proof for one in sent} == {answer.proof}, where  # never two proofs for one request
    else:
        assert isinstance(answer, Refused), where
        assert outcome.outcome == "aborted", where
        assert all(isinstance(one, Refusal) for one in sent), where
    assert outcome.intent == intent.sequence, where
    assert not hospital.audit.unfinished(), where
    return cut


@pytest.mark.parametrize("name", ["insurer", "hospital-1"])
def test_a_proof_is_made_and_logged_once_whoever_is_killed(play: Play, name: str) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        world["hospital-1"].most_limits = NOWHERE
        points = len((await proven_with_a_cut(world, bill, name, NOWHERE)).cuts.passed)
        assert points >= 8
        asked = tuple(range(500_000, 500_001 + points))
        for at in range(1, points + 1):
            await proven_with_a_cut(world, bill, name, at, asked[at])
        assert limits_asked.answered(world["hospital-1"], bill.handle, "insurer").limits == asked, "each counts once"

    play(story)


def test_a_refused_proof_stays_refused_wherever_the_insurer_is_killed(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        points = len((await proven_with_a_cut(world, bill, "insurer", NOWHERE, limit=1)).cuts.passed)
        for at in range(1, points + 1):
            await proven_with_a_cut(world, bill, "insurer", at, limit=1)

    play(story)


async def served(world: Any, steps: Any, request: Any) -> Any:
    session = session_of(request.nonce)
    return await eligibility.answer(world["hospital-1"], "insurer", session, world.wallets, steps, world.now)


def test_a_use_whose_end_is_written_does_not_go_on_after_a_kill(play: Play) -> None:
    """The insurer hears of it all the same."""

    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        hospital, request = world["hospital-1"], world.request(bill, limit=1)
        cut = Cut(hospital, NOWHERE)
        await world.insurer.send("hospital-1", session_of(request.nonce), ProofRequest(request))
        await cut.run(lambda steps: served(world, steps, request))
        cut.heal()
        at = cut.cuts.passed.index("after outcome") + 1

        request = world.request(bill, limit=2)
        cut = Cut(hospital, at)
        await world.insurer.send("hospital-1", session_of(request.nonce), ProofRequest(request))
        with pytest.raises(Refused) as refused:
            await cut.run(lambda steps: served(world, steps, request))
        cut.heal()
        assert refused.value.code == "gateway.use_ended"
        _, told = await world.insurer.receive_answer(Presentation, session_of(request.nonce))
        assert isinstance(told, Refusal) and told.code == "gateway.use_ended"
        assert world.ended("hospital-1") == ["aborted", "aborted"]

    play(story)


class Ending(KeptSteps):
    """Steps whose boundary ends the flow from the `after`th on."""

    def __init__(self, ending: BaseException, after: int) -> None:
        super().__init__(Cuts())
        self.ending = ending
        self.left = after

    async def boundary(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.ending

    async def once(self, step: str, kind: Any, work: Any) -> Any:
        if step not in self.records:
            await self.boundary()
        return await super().once(step, kind, work)


def test_a_paused_flow_leaves_its_use_open_and_goes_on(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        for after in range(5):
            request = world.request(bill)
            await world.insurer.send("hospital-1", session_of(request.nonce), ProofRequest(request))
            before = len(world.ended("hospital-1"))
            steps = Ending(FlowPaused(), after)
            channel = Cut(world["hospital-1"], NOWHERE)
            with pytest.raises(FlowPaused):
                await served(world, steps, request)
            assert "aborted" not in world.ended("hospital-1")
            steps.left = 1000
            channel._channel.rewind()
            assert (await served(world, steps, request)).allowed
            channel.heal()
            assert world.ended("hospital-1") == ["released"] * (before + 1)
            _, answer = await world.insurer.receive_answer(Presentation, session_of(request.nonce))
            assert isinstance(answer, Presentation)

    play(story)


def test_a_cancelled_flow_ends_its_use_and_says_so(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        request = world.request(bill)
        await world.insurer.send("hospital-1", session_of(request.nonce), ProofRequest(request))
        with pytest.raises(FlowCancelled):
            await served(world, Ending(FlowCancelled(), 3), request)
        assert world.ended("hospital-1") == ["aborted"]
        _, told = await world.insurer.receive_answer(Presentation, session_of(request.nonce))
        assert isinstance(told, Refusal) and told.code == "gateway.cancelled"

    play(story)
