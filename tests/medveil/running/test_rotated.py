"""Gateways whose organisations change their keys: certificates, lines and cosignatures follow, without a restart."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.contracts.grants import GrantState, grant_key
from medveil.gateway.organisation import Refusal
from medveil.gateway.rotating import rotate
from medveil.gateway.steps import Passing
from wire.errors import Unavailable

START = 1_700_000_000_000
SESSION = b"session-of-tests"


def grant(name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), START, START + 10**12, 0)


async def turned(gateways: dict[str, Any], name: str) -> None:
    """`name` has new keys, everybody knows, and its certificate is under the new one."""
    height = await rotate(gateways[name].organisation, Passing(), notice=3)
    other = next(gateway for one, gateway in gateways.items() if one != name)
    while other.account.state.height < height:
        await other.account.submit(grant(f"blocks-{secrets.token_hex(6)}"))
    organisation = gateways[name].organisation
    async with asyncio.timeout(30):
        while any(gateway.home.trust.latest.from_height < height for gateway in gateways.values()):
            await asyncio.sleep(0.1)
    assert organisation.signer.key == organisation.keys.newest.envelope.key


@pytest.mark.parametrize("name", ["insurer", "bureau"])
def test_a_member_turns_and_starts_again(consortium: Any, name: str) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await turned(gateways, name)
            for one, gateway in gateways.items():
                await gateway.account.submit(grant(f"after-{one}"))
                assert await gateway.follows()
            await gateways["hospital-1"].organisation.send(name, SESSION, Refusal("to.it", "x"))
            assert (await gateways[name].organisation.receive(Refusal, SESSION, (), 20))[1].code == "to.it"
            await gateways[name].organisation.send("hospital-1", SESSION, Refusal("from.it", "x"))
            assert (await gateways["hospital-1"].organisation.receive(Refusal, SESSION, (), 20))[1].code == "from.it"
        for again in (name, None):  # all of them start again, and again
            async with consortium.running() as gateways:
                for one, gateway in gateways.items():
                    await gateway.account.submit(grant(f"again-{one}-{again or 'twice'}"))
                state = await gateways["regulator"].account.caught_up()
                assert state.get(grant_key("after-insurer"), GrantState) is not None

    asyncio.run(test())


def test_who_was_away_while_another_turned(consortium: Any) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["hospital-1"].stop()
            rest = {name: gateway for name, gateway in gateways.items() if name != "hospital-1"}
            await turned(rest, "insurer")
            again = await consortium.start("hospital-1")
            try:
                await again.account.submit(grant("back"))
                async with asyncio.timeout(30):
                    while again.home.trust.latest.from_height == 0:
                        await asyncio.sleep(0.1)
                await again.organisation.send("insurer", SESSION, Refusal("to.it", "x"))
                assert (await rest["insurer"].organisation.receive(Refusal, SESSION, (), 30))[1].code == "to.it"
            finally:
                await again.stop()

    asyncio.run(test())


def test_who_was_away_while_the_sequencer_turned_is_given_the_newer_trust_file(consortium: Any) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["hospital-1"].stop()
            rest = {name: gateway for name, gateway in gateways.items() if name != "hospital-1"}
            await turned(rest, "bureau")
            alone = await consortium.start("hospital-1")
            alone.account.patience = alone.engine._patience = 2
            try:
                with pytest.raises(Unavailable):  # it cannot know that this is the bureau
                    await alone.account.submit(grant("alone"))
            finally:
                await alone.stop()
            with consortium.home("hospital-1") as home:
                home.join(rest["insurer"].home.trust)  # handed over by another member, as `medveil trust update` checks
            again = await consortium.start("hospital-1")
            try:
                await again.account.submit(grant("back"))
            finally:
                await again.stop()

    asyncio.run(test())


@pytest.mark.parametrize("name", ["insurer", "bureau"])
def test_a_home_that_did_not_see_its_own_keys_come_into_force(consortium: Any, name: str) -> None:
    """It was killed, or stopped, between the block and the moment at which it wrote the newer membership down."""

    async def test() -> None:
        pinned = (consortium.folder / name / "consortium.json").read_bytes()
        async with consortium.running() as gateways:
            await turned(gateways, name)
        (consortium.folder / name / "consortium.json").write_bytes(pinned)
        async with consortium.running() as gateways:
            for one, gateway in gateways.items():
                await gateway.account.submit(grant(f"again-{one}"))
            await gateways["hospital-1"].organisation.send(name, SESSION, Refusal("to.it", "x"))
            assert (await gateways[name].organisation.receive(Refusal, SESSION, (), 20))[1].code == "to.it"
            async with asyncio.timeout(30):
                while gateways[name].home.trust.latest.from_height == 0:
                    await asyncio.sleep(0.1)

    asyncio.run(test())
