"""An organisation changes all of its keys: what it does goes on, what it did still holds."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import AnchorGrant, Contribute, RegisterPopulation
from ledger.contracts.membership import keys_at
from medveil.gateway import granting
from medveil.gateway.organisation import Organisation, Refusal
from medveil.gateway.rotating import rotate
from medveil.gateway.steps import Passing
from mpc.query import SUMS
from mpc.release import Release
from wire.errors import Refused, Unavailable, VerificationError

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
SESSION = b"session-of-tests"


async def blocks_until(organisation: Organisation, height: int) -> None:
    """Let blocks come until that height is final."""
    while organisation.account.state.height < height:
        name = f"blocks-{secrets.token_hex(4)}"
        await organisation.submit(RegisterPopulation(name, "row", 1, 1, ("hospital-1",)))


@pytest.mark.parametrize("name", ["hospital-1", "bureau", "researcher"])
def test_everything_goes_on_under_new_keys(play: Play, name: str) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        one = world[name]
        before = one.trust.member(name).keys
        await world.insurer.send(name, SESSION, Refusal("sent.before", "Before."))
        await one.send("insurer", SESSION, Refusal("sent.before", "Before."))
        height = await rotate(one, Passing(), notice=3)
        assert one.signer.key == before.envelope.key, "not yet"
        await blocks_until(world["hospital-1"], height)
        after = (await world.insurer.account.caught_up()) and world.insurer.trust.member(name).keys
        for use in ("envelope", "cosign", "http", "tls", "seal"):
            assert getattr(after, use).key != getattr(before, use).key, use
        await one.account.caught_up()
        assert one.signer.key == after.envelope.key
        assert one.tls_seed(one.trust.latest) == one.keys.newest.tls_seed
        # What was sent before is read after, on both sides; what is sent now too.
        assert (await one.receive(Refusal, SESSION, ("insurer",), 5))[1].code == "sent.before"
        assert (await world.insurer.receive(Refusal, SESSION, (name,), 5))[1].code == "sent.before"
        await one.send("insurer", SESSION, Refusal("sent.after", "After."))
        assert (await world.insurer.receive(Refusal, SESSION, (name,), 5))[1].code == "sent.after"
        assert isinstance(await world.released(), Release)
        assert all(checked.terms.issuer == "hospital-1" for checked in granting.issued(world["hospital-1"]))

    play(story)


@pytest.mark.parametrize("name", ["hospital-2", "researcher", "bureau"])
def test_a_query_goes_on_while_keys_change(play: Play, name: str) -> None:
    """New keys come into force between the contribution to phase 2 and its masked vector."""

    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-2"]

        async def turn(op: Contribute) -> None:
            if op.phase == SUMS:
                await blocks_until(site, await rotate(world[name], Passing(), notice=2))

        world.after(site, Contribute, turn)
        assert isinstance(await world.released(), Release)
        await world[name].account.caught_up()
        assert world[name].keys.newest is not world[name].keys.first
        assert world[name].signer.key == world[name].keys.newest.envelope.key

    play(story)


class Late:
    """Holds an organisation's replica back until it is `over`."""

    def __init__(self, organisation: Organisation) -> None:
        self.over = False
        self._cosign = organisation.account.replica.cosign
        organisation.account.replica.cosign = self._behind  # type: ignore[method-assign]

    def _behind(self, *given: Any) -> Any:
        if not self.over:
            raise VerificationError("ledger.future_block")  # not yet
        return self._cosign(*given)


def test_whoever_hears_of_new_keys_late_reads_what_was_sent_under_them(play: Play) -> None:
    """The sender's replica is a few blocks ahead."""

    async def story(world: Any) -> None:
        hospital, insurer = world["hospital-1"], world.insurer
        late = Late(insurer)
        before = hospital.signer.key
        await blocks_until(hospital, await rotate(hospital, Passing(), notice=2))
        await hospital.account.caught_up()
        assert hospital.signer.key != before and before in insurer.envelope_keys("hospital-1")
        assert hospital.signer.key not in insurer.envelope_keys("hospital-1")
        await hospital.send("insurer", SESSION, Refusal("sent.early", "Early."))
        reading = asyncio.create_task(insurer.receive(Refusal, SESSION, ("hospital-1",), 5))
        await asyncio.sleep(1)
        late.over = True
        assert (await reading)[1].code == "sent.early"

    play(story)


@pytest.mark.parametrize("away", [False, True])
def test_an_opening_under_new_keys_is_heard_by_who_hears_of_them_late(play: Play, away: bool) -> None:
    """away: the ledger, so that nobody says whose they are: others' openings come all the same, and these when it is
    back."""

    async def story(world: Any) -> None:
        hospital, insurer = world["hospital-1"], world.insurer
        late = Late(insurer)
        await blocks_until(hospital, await rotate(hospital, Passing(), notice=2))
        await hospital.account.caught_up()
        assert hospital.signer.key not in insurer.envelope_keys("hospital-1")
        for number in range(3):
            await hospital.send("insurer", b"session-%d" % number, Refusal("sent.early", "Early."))
        await world["hospital-2"].send("insurer", b"session-of-another", Refusal("sent.other", "Other."))
        heard: list[str] = []

        async def hear() -> None:
            async for opening in insurer.openings(Refusal):
                heard.append(opening.message.code)

        hearing = asyncio.create_task(hear())
        await asyncio.sleep(0.5)
        assert not heard
        late.over = not away
        await asyncio.sleep(10)
        assert heard == (["sent.other"] if away else ["sent.early"] * 3 + ["sent.other"])
        late.over = True
        await insurer.account.caught_up()
        await asyncio.sleep(10)
        hearing.cancel()
        assert sorted(heard) == ["sent.early"] * 3 + ["sent.other"]

    play(story)


def test_a_ledger_that_does_not_check_costs_no_opening(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose a key is, it does not say then: the opening comes once the ledger is whole again."""

    async def story(world: Any) -> None:
        monkeypatch.setattr("medveil.gateway.organisation._NEWS", 0.2)
        hospital, insurer = world["hospital-1"], world.insurer
        late = Late(insurer)
        await blocks_until(hospital, await rotate(hospital, Passing(), notice=2))
        await hospital.account.caught_up()
        asked: list[int] = []

        async def broken() -> None:
            asked.append(1)
            raise VerificationError("ledger.block_differs", height=3)

        heard: asyncio.Queue[str] = asyncio.Queue()

        async def hear() -> None:
            async for opening in insurer.openings(Refusal):
                heard.put_nowait(opening.message.code)

        with monkeypatch.context() as ledger:
            ledger.setattr(insurer.account, "caught_up", broken)
            await hospital.send("insurer", SESSION, Refusal("sent.early", "Early."))
            hearing = asyncio.create_task(hear())
            while not asked:
                await asyncio.sleep(0.05)
            await world["hospital-2"].send("insurer", b"session-of-another", Refusal("sent.other", "Other."))
            assert await asyncio.wait_for(heard.get(), 10) == "sent.other"
        late.over = True
        await insurer.account.caught_up()
        assert await asyncio.wait_for(heard.get(), 10) == "sent.early"
        hearing.cancel()

    play(story)


def test_openings_under_unknown_keys_of_one_sender_are_put_off_up_to_a_number(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> None:
        hospital, insurer = world["hospital-1"], world.insurer
        monkeypatch.setattr("medveil.gateway.organisation.MOST_UNHEARD", 2)
        late = Late(insurer)
        await blocks_until(hospital, await rotate(hospital, Passing(), notice=2))
        await hospital.account.caught_up()
        for number in range(4):
            await hospital.send("insurer", b"session-%d" % number, Refusal(f"sent.no{number}", "Early."))
        heard: list[str] = []

        async def hear() -> None:
            async for opening in insurer.openings(Refusal):
                heard.append(opening.message.code)

        hearing = asyncio.create_task(hear())
        await asyncio.sleep(10)
        await insurer.forget(b"session-0", "hospital-1")
        late.over = True
        await insurer.account.caught_up()
        await asyncio.sleep(10)
        hearing.cancel()
        assert heard == ["sent.no1"], "one was forgotten meanwhile, two come when the gateway starts anew"

    play(story)


def test_cut_short_at_any_step_it_is_one_rotation(play: Play) -> None:
    async def story(world: Any) -> int:
        points = 0
        for number, name in enumerate(("insurer", "hospital-1", "hospital-2", "regulator", "researcher"), start=1):
            cut = Cut(world[name], number)
            try:
                height = await cut.run(lambda steps, name=name: rotate(world[name], steps, notice=3))
            finally:
                cut.heal()
            points = max(points, len(cut.cuts.passed))
            await blocks_until(world["hospital-3"], height)
            one = world[name]
            await one.account.caught_up()
            assert one.signer.key == one.keys.newest.envelope.key
            await one.submit(AnchorGrant(f"by-{name}", bytes(32), 1_700_000_000_000, 1_900_000_000_000, 0))
        return points

    assert play(story) >= 5


def test_twice_at_once_is_refused(play: Play) -> None:
    async def story(world: Any) -> None:
        await rotate(world.insurer, Passing(), notice=50)
        with pytest.raises(Refused) as caught:
            await rotate(world.insurer, Passing(), notice=50)
        assert caught.value.code == "organisations.rotation_pending"
        # Else its certificates would be under a key that nobody will know: shut out from the height of the change on.
        state = await world.insurer.account.caught_up()
        announced = keys_at(state.view(), "insurer", state.height + 100)
        assert announced is not None and announced.tls.key == world.insurer.keys.newest.tls.key
        with pytest.raises(ValueError, match="ahead"):
            await rotate(world.insurer, Passing(), notice=1)
        await world.insurer.submit(RegisterPopulation("still", "row", 1, 1, ("hospital-1",)))

    play(story)


def test_what_was_drawn_in_vain_is_used_first(play: Play) -> None:
    """A gateway that was killed after it drew keys, and before it kept which."""

    async def story(world: Any) -> None:
        drawn = world.insurer.keys.draw()
        height = await rotate(world.insurer, Passing(), notice=3)
        await blocks_until(world["hospital-1"], height)
        await world.insurer.account.caught_up()
        assert world.insurer.signer.key == drawn.envelope.key and len(world.insurer.keys.generations) == 2

    play(story)


def test_handovers_that_nobody_shows_hold_no_writer_and_end_no_following(play: Play) -> None:
    """A change of keys came into force and the sequencer is away: writing gives up in time, following does not."""

    async def story(world: Any) -> None:
        account, engine = world.regulator.account, world.regulator.account._engine
        back, asked = asyncio.Event(), 0

        class Away:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            async def handovers(self, after: int = 0) -> Any:
                nonlocal asked
                asked += 1
                if not back.is_set():
                    raise Unavailable("network.unreachable", organisation="bureau")
                return await engine.handovers(after)

        account._engine, account.patience = Away(), 0.2
        height = await rotate(world.insurer, Passing(), notice=2)
        await blocks_until(world["hospital-1"], height)
        before = account.state.height
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await account.submit(AnchorGrant("away", secrets.token_bytes(32), 0, world.now() + 1_000_000, 0))
        while asked < 4:  # the follower's patience ended, too
            await asyncio.sleep(0.05)
        assert account.state.height == before
        back.set()
        account.patience = 20
        await account.until(lambda state: state.height >= height or None, "the new keys")
        await account.submit(AnchorGrant("back", secrets.token_bytes(32), 0, world.now() + 1_000_000, 0))

    play(story)
