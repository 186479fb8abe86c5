"""Gateways with real TLS between them: one ledger, one post, restarts on either side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger.contracts import AnchorGrant
from ledger.contracts.grants import GrantState, grant_key
from ledger.engines.engine import Cursor
from ledger.reading import Selection
from ledger.receipts import verify_receipt
from medveil.service import gateway as gateway_module
from wire.errors import Refused, Unavailable

START = 1_700_000_000_000


def grant(name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), START, START + 10**12, 0)


def test_one_ledger(consortium: Any) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            receipts = await asyncio.gather(
                *(gateway.account.submit(grant(f"g-{name}")) for name, gateway in gateways.items())
            )
            for receipt in receipts:
                verify_receipt(receipt, consortium.trust)
            with pytest.raises(Refused) as caught:
                await gateways["insurer"].account.submit(grant("g-bureau"))
            assert caught.value.code == "grants.exists" or "used already" in caught.value.text()
            for gateway in gateways.values():
                state = await gateway.account.caught_up()
                assert state.get(grant_key("g-insurer"), GrantState) is not None
            roots = {gateway.account.replica.machine.state.root for gateway in gateways.values()}
            assert len(roots) == 1

    asyncio.run(test())


def test_history_is_read_as_it_grows(consortium: Any) -> None:
    """A member replays what is new alone, and finds what the sequencer has."""

    async def test() -> None:
        async with consortium.running() as gateways:
            bureau, insurer = gateways["bureau"], gateways["insurer"]
            for turn in range(3):
                for name in ("bureau", "insurer"):
                    await gateways[name].account.submit(grant(f"h-{turn}-{name}"))
                everything = await bureau.engine.entries()
                assert len(everything) == 2 * turn + 2
                assert await insurer.engine.entries() == everything
                own = Selection("insurer", kind="grants.anchor")
                assert await insurer.engine.entries(own) == tuple(one for one in everything if one.sender == "insurer")
                for at in range(len(everything)):
                    found = await insurer.engine.entries(after=Cursor.of(everything[at]), limit=2)
                    assert found == everything[at + 1 : at + 3]

    asyncio.run(test())


def test_messages_between_gateways(consortium: Any) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            one, other = gateways["hospital-1"].organisation, gateways["insurer"].organisation
            session = b"s" * 16
            for number in range(5):
                await one.send("insurer", session, grant(f"m-{number}"))
            for number in range(5):
                sender, message = await other.receive(AnchorGrant, session, timeout=10)
                assert sender == "hospital-1" and message == grant(f"m-{number}")
            assert gateways["insurer"].post.traffic.received > 0 < gateways["hospital-1"].post.traffic.sent
            with pytest.raises(Unavailable):
                await other.receive(AnchorGrant, session, timeout=0.2)

    asyncio.run(test())


def test_a_gateway_that_was_away(consortium: Any) -> None:
    """It finds what was sent meanwhile, and the ledger; the others went on."""

    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["bureau"].account.submit(grant("before"))
            await gateways["insurer"].stop()
            session = b"t" * 16
            await gateways["hospital-1"].organisation.send("insurer", session, grant("meanwhile"))
            await gateways["bureau"].account.submit(grant("meanwhile"))
            again = await consortium.start("insurer")
            try:
                sender, message = await again.organisation.receive(AnchorGrant, session, timeout=20)
                assert (sender, message) == ("hospital-1", grant("meanwhile"))
                state = await again.account.caught_up()
                assert state.get(grant_key("meanwhile"), GrantState) is not None
                await again.account.submit(grant("back"))
            finally:
                await again.stop()

    asyncio.run(test())


def test_a_sequencer_that_was_away(consortium: Any) -> None:
    async def test() -> None:
        async with consortium.running() as gateways:
            await gateways["insurer"].account.submit(grant("before"))
            await gateways["bureau"].stop()
            late = asyncio.create_task(gateways["insurer"].account.submit(grant("late")))
            await asyncio.sleep(0.5)
            again = await consortium.start("bureau")
            try:
                with_patience = await asyncio.wait_for(asyncio.gather(late, return_exceptions=True), 60)
                if isinstance(with_patience[0], Exception):
                    await gateways["insurer"].account.submit(grant("late"))
                await gateways["regulator"].account.submit(grant("after"))
                for name in ("insurer", "hospital-1", "regulator"):
                    state = await gateways[name].account.caught_up()
                    assert state.get(grant_key("after"), GrantState) is not None
                    assert await gateways[name].follows()
            finally:
                await again.stop()

    asyncio.run(test())


def test_a_gateway_whose_database_another_process_has_ends(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment, nor while the database cannot be reached: then it goes on."""
    monkeypatch.setattr(gateway_module, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(gateway_module, "_LONGEST_WITHOUT", 0.3)

    async def test() -> None:
        async with consortium.running() as gateways:
            insurer = gateways["insurer"]
            codes = iter(
                ["database.in_use", "database.unreachable", "database.in_use", ""] * 5 + ["database.in_use"] * 99
            )
            ended = asyncio.create_task(insurer.followed())

            def keep_held() -> None:
                if code := next(codes):
                    raise Unavailable(code, place="here", retry_after=5)
                assert not ended.done()

            monkeypatch.setattr(insurer.database, "keep_held", keep_held)
            with pytest.raises(Unavailable) as caught:
                await asyncio.wait_for(ended, 20)
            assert caught.value.code == "database.in_use"
            assert len(list(codes)) < 99  # it had gone on through the first twenty

    asyncio.run(test())
