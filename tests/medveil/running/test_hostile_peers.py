"""A member's gateway that asks nonsense: no fault of ours, no answer that is not one, and the others are served on."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from ledger.contracts import AnchorGrant
from medveil.network.answers import Told
from medveil.network.certificates import PeerTls
from medveil.network.ledger_door import Cosigned
from medveil.network.post import PeerMessage
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


def test_five_hundred_questions(consortium: Any) -> None:
    asyncio.run(_campaign(consortium, 500))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_questions(consortium: Any) -> None:
    asyncio.run(_campaign(consortium, 10_000))
