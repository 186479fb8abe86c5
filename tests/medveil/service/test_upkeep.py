"""The gateway's round: old jobs go, and what was turned away at the door is said once a minute."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from medveil.gateway.held_extracts import Tidied
from medveil.network.post import Traffic
from medveil.service.upkeep import KEPT_MS, Upkeep
from medveil.service.work.journal import Journal
from wire.errors import Unavailable

from .running import Set

Make = Callable[..., Set]


async def quick(journal: Journal) -> None: ...


async def until_done(own: Set, job: str) -> None:
    while (await own.jobs.get(job, "anna")).state != "done":
        await asyncio.sleep(0.01)


def test_jobs_that_ended_long_ago_go(make_set: Make) -> None:
    own = make_set()
    own.vocabulary.add("upkeep")
    at = [own.clock.now]
    upkeep = Upkeep(own.jobs, dict, log=own.log, clock=lambda: at[0])

    async def main() -> None:
        own.jobs.register("quick", quick)
        old = await own.jobs.start("quick", "anna", b"", key="once")
        await until_done(own, old.id)
        at[0] += KEPT_MS
        await upkeep.round()
        assert (await own.jobs.start("quick", "anna", b"", key="once")).id == old.id  # the last day on which it is
        at[0] += 60_000
        await upkeep.round()
        assert len(await own.jobs.page("anna")) == 1  # it looks once an hour
        at[0] += 3_600_000
        await upkeep.round()
        assert await own.jobs.page("anna") == []
        again = await own.jobs.start("quick", "anna", b"", key="once")
        assert again.id != old.id
        await until_done(own, again.id)

    asyncio.run(main())
    assert [line["count"] for line in own.lines() if line["event"] == "jobs.forgotten"] == [1]


def test_the_vault_is_tidied_once_an_hour(make_set: Make) -> None:
    own = make_set()
    own.vocabulary.add("upkeep")
    start, tidied = own.clock.now, list[int]()
    at = [start]

    def tidy() -> None:
        tidied.append(at[0])
        if len(tidied) == 2:
            raise Unavailable("privacy.store_failed", path="bucket", reason="I/O")

    upkeep = Upkeep(own.jobs, dict, log=own.log, clock=lambda: at[0], tidy=tidy)

    async def main() -> None:
        for minutes in (0, 1, 60, 61, 62):
            at[0] = start + minutes * 60_000
            await upkeep.round()

    asyncio.run(main())
    assert [(when - start) // 60_000 for when in tidied] == [0, 60, 61], "again at once where it failed"
    assert [line["event"] for line in own.lines()] == ["part.failed"]


def test_a_store_that_is_away_does_not_end_the_process(make_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_set()
    own.vocabulary.add("upkeep")
    upkeep = Upkeep(own.jobs, dict, log=own.log, clock=own.clock)
    asked = []

    def away(before: int) -> int:
        asked.append(before)
        raise Unavailable("database.busy", retry_after=1)

    monkeypatch.setattr(own.store, "forget", away)

    async def main() -> None:
        for _ in range(2):
            await upkeep.round()

    asyncio.run(main())
    assert len(asked) == 2 and [line["part"] for line in own.lines()] == ["upkeep"] * 2


def test_refused_handshakes_are_said_and_counted(make_set: Make) -> None:
    own = make_set()
    own.vocabulary.add("peers")
    refused: Counter[str] = Counter()
    counts: dict[str, Any] = {"peers": refused}
    own.metrics.watch(lambda: Traffic(3, 100, 50), lambda: counts)
    upkeep = Upkeep(own.jobs, lambda: counts, log=own.log, clock=own.clock)

    async def main() -> None:
        await upkeep.round()
        refused["CERTIFICATE_VERIFY_FAILED"] += 1000
        await upkeep.round()
        await upkeep.round()
        refused["HTTP_REQUEST"] += 2
        await upkeep.round()

    asyncio.run(main())
    said = [(line["part"], line["count"]) for line in own.lines() if line["event"] == "tls.refused"]
    assert said == [("peers", 1000), ("peers", 2)]
    text = own.metrics.render().decode()
    assert 'medveil_tls_refused_total{listener="peers",reason="CERTIFICATE_VERIFY_FAILED"} 1000.0' in text
    assert "medveil_channel_sessions 3.0" in text
    assert 'medveil_channel_bytes_total{direction="sent"} 100.0' in text
    assert 'medveil_channel_bytes_total{direction="received"} 50.0' in text


def test_extracts_whose_day_has_come_go_each_round(make_set: Make) -> None:
    own = make_set()
    own.vocabulary.add("upkeep")
    one: Any = object()
    trouble = Unavailable("privacy.store_failed", path="-", reason="I/O")
    rounds = [Tidied((one, one)), Tidied(), Tidied((one,), trouble=trouble), Tidied(listed=3)]
    upkeep = Upkeep(own.jobs, dict, due=lambda: rounds.pop(0), log=own.log, clock=own.clock)

    async def main() -> None:
        for _ in range(4):
            await upkeep.round()

    asyncio.run(main())
    said = [(line["event"], line.get("count")) for line in own.lines() if line["event"] != "job.waiting"]
    assert said == [("extracts.deleted", 2), ("part.failed", None), ("extracts.deleted", 1), ("extracts.listed", 3)]
