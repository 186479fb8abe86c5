"""The reception against members that begin what they should not, or too much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from medveil.gateway import reception
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.extract_wanted import ExtractRequest
from medveil.gateway.organisation import Opening
from medveil.gateway.reception import Reception
from privacy.erasure.deletion import DELETION_HEADER, NOTICE_HEADER, UNSIGNED, DeleteNotice, Deletion
from privacy.grants.terms import SignedGrant
from privacy.uses import UseRequest
from tests.medveil.leaping import leap
from wire.errors import ProtocolAbort, Unavailable

OTHERS = [Opening("greedy", bytes([number]) * 16, EvidenceRequest(bytes(16))) for number in range(50)]
HONEST = Opening("honest", b"h" * 16, EvidenceRequest(bytes(16)))


class Arriving:
    """An organisation at which these openings arrive."""

    name = "here"

    def __init__(self, *openings: Opening) -> None:
        self.arriving = openings
        self.forgotten: list[tuple[bytes, str]] = []

    async def forget(self, session: bytes, *peers: str) -> None:
        self.forgotten += [(session, peer) for peer in peers]

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

    leap(main())
    assert begun == ["honest"] and [type(error) for error in told] == [ValueError]


def test_a_forged_grant_while_the_disk_is_away_leaves_the_others(monkeypatch: Any) -> None:
    monkeypatch.setattr(reception, "AGAIN", 0.05)
    begun: list[str] = []

    class Away(Arriving):
        tries = 0

        async def forget(self, session: bytes, *peers: str) -> None:
            self.tries += 1
            if self.tries < 3:
                raise Unavailable("database.unreachable", place="here")
            await super().forget(session, *peers)

    async def begin(kind: str, peer: str, session: bytes) -> None:
        begun.append(peer)

    def check(*_: Any) -> None:
        raise ProtocolAbort("gateway.grant_of_others", round="delivery", parties=("greedy",))

    monkeypatch.setattr(reception.granting, "check_delivered", check)

    async def main() -> None:
        forged = Opening("greedy", b"g" * 16, SignedGrant(cast(Any, None), bytes(32), bytes(64)))
        here = Away(forged, HONEST)
        attending = asyncio.ensure_future(Reception(cast(Any, here), begin).attend())
        async with asyncio.timeout(10):
            while not (begun and here.forgotten):
                assert not attending.done()
                await asyncio.sleep(0.01)
        attending.cancel()
        assert here.forgotten == [(b"g" * 16, "greedy")]

    leap(main())
    assert begun == ["honest"]


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

    leap(main())
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

    leap(main())
    first = [opening.session for opening in OTHERS]
    assert tries == [*first, HONEST.session, *first[:20]]


def refused_openings() -> list[Opening]:
    """What is kept or done at once, each of it such that it is refused."""
    request = UseRequest("elsewhere", "greedy", "visits", ("cost",), "extract", "HMB")
    nobodys = Deletion(DELETION_HEADER, b"", "here", "other", bytes(16), "deleted", "due", 1, ("copies",), UNSIGNED)
    kept = [
        ExtractRequest(bytes(16), request),
        DeleteNotice(NOTICE_HEADER, "erasure", "other", "here", "visits", "g", bytes(16), 1, 1, 1, UNSIGNED),
        nobodys,
    ]
    return [Opening("greedy", bytes([number]) * 16, one) for number, one in enumerate(kept)]


def test_what_is_refused_is_forgotten() -> None:
    """It would be looked at again at every start, and count as its sender's, for a week."""
    openings = refused_openings()
    here = Arriving(*openings)

    async def begin(kind: str, peer: str, session: bytes) -> None:
        raise AssertionError(kind)

    async def main() -> None:
        attending = asyncio.ensure_future(Reception(cast(Any, here), begin).attend())
        async with asyncio.timeout(10):
            while len(here.forgotten) < len(openings):
                await asyncio.sleep(0.01)
        attending.cancel()

    leap(main())
    assert here.forgotten == [(one.session, "greedy") for one in openings]


def test_who_sends_much_keeps_nobody_else_waiting(monkeypatch: Any) -> None:
    """One after the other for each peer, side by side for several; after the disk's no, all of that peer's wait."""
    monkeypatch.setattr(reception, "AGAIN", 0.2)
    monkeypatch.setattr(reception, "MOST_LATER", 30)
    request = UseRequest("here", "any", "visits", ("cost",), "extract", "HMB")
    many = [Opening("greedy", bytes([number]) * 16, ExtractRequest(bytes(16), request)) for number in range(50)]
    honest = Opening("honest", b"h" * 16, ExtractRequest(bytes(16), request))
    here = Arriving(*many, honest)
    taken: list[str] = []
    full = True

    async def main() -> None:
        held = asyncio.Event()

        async def take(_: Any, peer: str, session: bytes, asking: Any, clock: Any) -> None:
            if peer == "greedy":
                await held.wait()
                if full:
                    taken.append("full")
                    raise Unavailable("privacy.store_failed", path="-", reason="no room")
            taken.append(peer)

        async def begin(kind: str, peer: str, session: bytes) -> None:
            raise AssertionError(kind)

        nonlocal full
        monkeypatch.setattr(reception, "take_request", take)
        attending = asyncio.ensure_future(Reception(cast(Any, here), begin).attend())
        async with asyncio.timeout(10):
            while not taken:
                await asyncio.sleep(0.01)
            assert taken == ["honest"]
            held.set()
            while taken.count("full") < 2:
                await asyncio.sleep(0.01)
            full = False
            while taken.count("greedy") < 30:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        attending.cancel()

    leap(main())
    assert taken.count("full") < 6, "one try a round"
    assert taken.count("greedy") == 30, "more are left to the post"


def test_a_fault_over_one_of_many_leaves_the_others(monkeypatch: Any) -> None:
    request = UseRequest("here", "any", "visits", ("cost",), "extract", "HMB")
    many = [Opening("greedy", bytes([number]) * 16, ExtractRequest(bytes([number]) * 16, request)) for number in (1, 2)]
    here = Arriving(*many)
    told: list[Exception] = []

    async def take(_: Any, peer: str, session: bytes, asking: Any, clock: Any) -> None:
        if session == many[0].session:
            raise ValueError("a fault")

    async def begin(kind: str, peer: str, session: bytes) -> None:
        raise AssertionError(kind)

    async def main() -> None:
        monkeypatch.setattr(reception, "take_request", take)
        attending = asyncio.ensure_future(Reception(cast(Any, here), begin, told.append).attend())
        async with asyncio.timeout(10):
            while not here.forgotten:
                await asyncio.sleep(0.01)
        attending.cancel()

    leap(main())
    assert [type(error) for error in told] == [ValueError] and here.forgotten == [(many[1].session, "greedy")]


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
        leap(main())
