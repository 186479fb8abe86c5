"""The reception against members that begin what they should not, or too much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from medveil.gateway import reception
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.organisation import Opening
from medveil.gateway.reception import Reception
from wire.errors import Unavailable

OTHERS = [Opening("greedy", bytes([number]) * 16, EvidenceRequest(bytes(16))) for number in range(50)]
HONEST = Opening("honest", b"h" * 16, EvidenceRequest(bytes(16)))


class Arriving:
    """An organisation at which these openings arrive."""

    def __init__(self, *openings: Opening) -> None:
        self.arriving = openings

    async def openings(self, kinds: Any) -> AsyncIterator[Opening]:
        for opening in self.arriving:
            yield opening
        await asyncio.Event().wait()


def test_a_fault_over_one_opening_leaves_the_others(monkeypatch: Any) -> None:
    begun, told = [], []

    async def begin(kind: str, peer: str, session: bytes) -> None:
        if peer == "greedy":
            raise ValueError("a constraint of the database was broken")
        begun.append(peer)

    async def main() -> None:
        attending = asyncio.ensure_future(
            Reception(cast(Any, Arriving(OTHERS[0], HONEST)), begin, told.append).attend()
        )
        async with asyncio.timeout(10):
            while not begun:
                await asyncio.sleep(0.01)
        attending.cancel()

    asyncio.run(main())
    assert begun == ["honest"] and [type(error) for error in told] == [ValueError]


def test_who_has_no_room_is_tried_once_a_round(monkeypatch: Any) -> None:
    monkeypatch.setattr(reception, "AGAIN", 0.05)
    tries: list[str] = []

    async def begin(kind: str, peer: str, session: bytes) -> None:
        tries.append(peer)
        if peer == "greedy" or tries.count("honest") < 2:
            raise Unavailable("jobs.too_many", retry_after=10, unfinished=64)

    async def main() -> None:
        attending = asyncio.ensure_future(Reception(cast(Any, Arriving(*OTHERS, HONEST)), begin).attend())
        async with asyncio.timeout(10):
            while tries.count("honest") < 2:
                await asyncio.sleep(0.01)
        attending.cancel()

    asyncio.run(main())
    assert tries.count("greedy") == len(OTHERS) + 1, "each as it came, and one in the round after"


def test_what_is_kept_for_another_try_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(reception, "AGAIN", 0.05)
    monkeypatch.setattr(reception, "MOST_LATER", 20)
    tries: list[bytes] = []

    async def begin(kind: str, peer: str, session: bytes) -> None:
        tries.append(session)
        if peer == "greedy" and len(tries) <= len(OTHERS):
            raise Unavailable("jobs.too_many", retry_after=10, unfinished=64)

    async def main() -> None:
        attending = asyncio.ensure_future(Reception(cast(Any, Arriving(*OTHERS, HONEST)), begin).attend())
        await asyncio.sleep(0.5)
        attending.cancel()

    asyncio.run(main())
    first = [opening.session for opening in OTHERS]
    assert tries == [*first, HONEST.session, *first[:20]]


def test_a_fault_that_is_raised_ends_the_reception_also_in_a_later_try(monkeypatch: Any) -> None:
    monkeypatch.setattr(reception, "AGAIN", 0.05)
    tries: list[str] = []

    async def begin(kind: str, peer: str, session: bytes) -> None:
        tries.append(peer)
        raise Unavailable("jobs.too_many", retry_after=10, unfinished=64) if len(tries) == 1 else ValueError("a fault")

    async def main() -> None:
        async with asyncio.timeout(10):
            await Reception(cast(Any, Arriving(HONEST)), begin).attend()

    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(main())
