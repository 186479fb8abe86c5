"""Denials of what other organisations begin: many of one member put off that member, and nobody else."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from medveil.service.work import denials as module
from medveil.service.work import receiving as room
from medveil.service.work.denials import Denials
from medveil.service.work.jobs import PEER
from wire.errors import ProtocolAbort, Refused, Unavailable

from ..work.test_jobs import Make, until

KIND = "eligibility.answer"


def test_who_is_denied_too_often_waits_until_the_first_is_long_enough_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    now = 0.0
    denials = Denials(lambda: now)
    told = []
    while now < 400.0:
        now += 100.0
        told.append(denials.count("a"))
    assert told == [False, False, True, False], "said once"
    with pytest.raises(Unavailable) as waits:
        denials.check("a")
    assert waits.value.code == "jobs.denied_often" and waits.value.retry_after == 3401
    denials.check("b")
    now = 3800.0
    denials.check("a")
    assert denials.count("a"), "the second to the fourth are within the hour still"
    now = 3899.0
    with pytest.raises(Unavailable):
        denials.check("a")
    now = 3900.1
    denials.check("a")


@pytest.mark.parametrize("ends", ["denied", "refused"])
def test_a_member_that_is_denied_too_often_begins_no_more_jobs(
    make_set: Make, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Each was a job for a month and two entries of the trail for years, for one message of a member without a grant.

    What was allowed, what failed by nobody's fault or another's, and what others begin are not counted.
    """
    monkeypatch.setattr(module, "MOST", 4)
    how: list[str] = []

    async def answers(kind: str, organisation: Any, home: Any, opened: Any, steps: Any, clock: Any) -> bool:
        match how[-1]:
            case "refused":
                raise Refused("organisations.role", organisation=opened.peer, roles="bureau")
            case "away":
                raise Unavailable("channel.timeout", organisation=opened.peer, seconds=1)
            case "aborted":
                raise ProtocolAbort("mpc.incomplete", round="keys", parties=("c",))
        return how[-1] == "allowed"

    monkeypatch.setattr(room, "answer", answers)
    own = make_set()

    async def main() -> None:
        nothing: Any = None
        own.jobs._kinds.pop(KIND, None)
        reception = room.receiving(nothing, nothing, own.jobs, lambda: 0)

        async def begins(peer: str, ending: str) -> None:
            how.append(ending)
            session = secrets.token_bytes(16)
            await reception._begin(KIND, peer, session)
            key = f"{KIND}/{session.hex()}"
            job = own.store.find(PEER + peer, key)
            assert job is not None
            await until(own, job.id, "failed" if ending in ("refused", "away", "aborted") else "done")

        for ending in ("allowed", "away", "aborted") * 3 + (ends,) * 4:
            await begins("a", ending)
        before = len(own.store.page(PEER + "a", None, 100, None))
        with pytest.raises(Unavailable) as waits:
            await begins("a", "allowed")
        assert waits.value.code == "jobs.denied_often"
        assert len(own.store.page(PEER + "a", None, 100, None)) == before
        await begins("b", ends)

    asyncio.run(main())
