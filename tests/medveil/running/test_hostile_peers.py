"""A member's gateway that asks nonsense: no fault of ours, no answer that is not one, and the others are served on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from ledger.contracts import AnchorGrant
from medveil.network.answers import Told
from medveil.network.certificates import PeerTls
from medveil.network.ledger_door import Blocks, Cosigned, ledger_routes
from medveil.network.post import PeerMessage
from medveil.network.replica_door import replica_routes
from wire.canonical import decode, encode
from wire.errors import DecodeError

from .conftest import now

START = 1_700_000_000_000


def _questions(draw: random.Random, count: int) -> list[tuple[str, str, bytes]]:
    good = [
        ("POST", "ledger/envelopes", draw.randbytes(300)),
        ("POST", "ledger/cosignatures", encode(Cosigned(2, "insurer", b"abcd", bytes(72)))),
        ("POST", "messages", encode(PeerMessage(b"session", 0, b"payload"))),
        ("GET", f"ledger/receipts/{bytes(32).hex()}?wait=1", b""),
        ("GET", f"ledger/refusals/{bytes(32).hex()}", b""),
        ("GET", "ledger/nonces/insurer", b""),
        ("GET", "ledger/values/6772616e7473?prove=1", b""),
        ("GET", "ledger/head", b""),
        ("GET", "ledger/blocks?after=0&wait=1", b""),
        ("GET", "ledger/handovers?after=0", b""),
    ]
    found = []
    for _ in range(count):
        method, path, body = draw.choice(good)
        text = list(path)
        for _ in range(draw.randrange(4)):
            place = draw.randrange(len(text) + 1)
            text[place : place + draw.randrange(2)] = draw.choice(
                ("%00", "..", "/", "é", "9" * 30, "-1", "?", "&", "x", "")
            )
        if body and draw.random() < 0.7:
            at = draw.randrange(len(body))
            body = body[:at] + draw.randbytes(draw.randrange(5)) + body[at + draw.randrange(3) :]
        found.append((draw.choice((method, method, method, "PUT", "DELETE")), "".join(text), body))
    return found


async def _campaign(consortium: Any, count: int) -> None:
    async with consortium.running() as gateways:
        await gateways["bureau"].account.submit(AnchorGrant("g", bytes(32), START, START + 10**12, 0))
        insurer = gateways["insurer"]
        tls = PeerTls(insurer.home.folder / "tls", "insurer", ("localhost",), now, insurer.organisation.rand)
        tls.refresh(consortium.trust.latest, insurer.organisation.tls_seed(consortium.trust.latest))
        base = consortium.addresses["bureau"] + "/peer/v1/"
        async with httpx.AsyncClient(verify=tls.towards("bureau")[0], timeout=20, trust_env=False) as client:
            told = 0
            for method, path, body in _questions(random.Random(6), count):
                answer = await client.request(method, base + path, content=body or None)
                assert answer.status_code < 500, (method, path, answer.text)
                if answer.status_code == 200:
                    try:
                        decode(Told, answer.content)
                        told += 1
                    except DecodeError:
                        assert answer.content[:1] in b"\x91\x92\x93\x94\x95\x96\x97\x98"  # another struct
            assert told > count // 10
            huge = await client.post(base + "ledger/envelopes", content=bytes(2_000_000))
            assert decode(Told, huge.content).code == "network.too_large"
        await gateways["hospital-1"].account.submit(AnchorGrant("h", bytes(32), START, START + 10**12, 0))
        assert all([await gateway.follows() for gateway in gateways.values()])


def test_a_member_reads_one_page_of_blocks_at_a_time(consortium: Any) -> None:
    """Whoever asks for the whole ledger over and over waits for itself; the others, and who awaits a block, do not."""

    async def story() -> None:
        async with consortium.running() as gateways:
            bureau, hospital = gateways["bureau"], gateways["hospital-1"]
            for number in range(3):
                await bureau.account.submit(AnchorGrant(f"g{number}", bytes(32), START, START + 10**12, 0))
            reading, most = 0, 0
            copied = hospital.engine._copy

            class Sequencer:
                head = bureau.engine.head

                async def subscribe(self, cursor: int) -> AsyncIterator[Any]:
                    nonlocal reading, most
                    async for one in bureau.engine.subscribe(cursor):
                        reading += 1
                        most = max(most, reading)
                        await asyncio.sleep(0.01)
                        reading -= 1
                        yield one

            class Slow:
                height = copied.height

                def block(self, height: int) -> Any:
                    nonlocal reading, most
                    reading += 1
                    most = max(most, reading)
                    time.sleep(0.005)
                    reading -= 1
                    return copied.block(height)

            def asking(routes: Any) -> Any:
                return httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=Starlette(routes=routes)), base_url="http://x"
                )

            async def page(client: Any, member: str, path: str) -> int:
                answer = await client.get(f"/peer/v1/{path}", headers={"member": member})
                return len(decode(Blocks, answer.content).blocks)

            sequencer: Any = Sequencer()
            async with asking(ledger_routes(sequencer, lambda request: request.headers["member"])) as client:
                head = (await bureau.engine.head()).height
                awaiting = [
                    asyncio.create_task(page(client, "a", f"ledger/blocks?after={head}&wait=20000")) for _ in range(3)
                ]
                await asyncio.sleep(0.1)
                most = 0
                pages = [page(client, "a", "ledger/blocks?after=0&wait=0") for _ in range(6)]
                assert set(await asyncio.gather(*pages)) == {head} and most == 1
                both = [page(client, member, "ledger/blocks?after=0&wait=0") for member in ("a", "b")]
                assert set(await asyncio.gather(*both)) == {head} and most == 2
                assert not any(one.done() for one in awaiting)
                await bureau.account.submit(AnchorGrant("g9", bytes(32), START, START + 10**12, 0))
                assert all(await asyncio.gather(*awaiting))
            most = 0
            routes = replica_routes(hospital.account.replica, Slow(), lambda request: request.headers["member"])
            async with asking(routes) as client:
                await asyncio.gather(*(page(client, "a", "replica/blocks?after=0") for _ in range(6)))
                assert most == 1

    asyncio.run(story())


def test_five_hundred_questions(consortium: Any) -> None:
    asyncio.run(_campaign(consortium, 500))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_questions(consortium: Any) -> None:
    asyncio.run(_campaign(consortium, 10_000))
