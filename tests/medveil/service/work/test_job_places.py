"""Which jobs run, and which wait: places by owner, and one job for one key."""

from __future__ import annotations

import asyncio

import pytest

from medveil.service.work.jobs import JobLimits
from medveil.service.work.journal import Journal
from wire.errors import Refused, Unavailable

from ..work.test_jobs import Make, until


def test_limits_let_others_pass(make_set: Make) -> None:
    own = make_set(job_limits=JobLimits(running=3, per_owner=2, waiting=2))
    open_ = asyncio.Event()
    most = 0

    async def work(journal: Journal) -> None:
        nonlocal most
        most = max(most, len(own.jobs._running))
        await open_.wait()

    async def main() -> None:
        own.jobs.register("sum", work)
        anna = [await own.jobs.start("sum", "anna", b"") for _ in range(4)]
        with pytest.raises(Unavailable, match="4 jobs of yours"):
            await own.jobs.start("sum", "anna", b"")
        bo = await own.jobs.start("sum", "bo", b"")
        for job in (*anna[:2], bo):
            await until(own, job.id, "running")
        assert [own.store.get(job.id).state for job in anna] == ["running", "running", "waiting", "waiting"]
        cancelled = await own.jobs.cancel(anna[3].id, "anna")
        assert cancelled.state == "cancelled"  # waiting: at once
        open_.set()
        for job in (*anna[:3], bo):
            await until(own, job.id, "done")
        await own.jobs.close(5)  # a count follows what it counts

    asyncio.run(main())
    assert most == 3
    text = own.metrics.render().decode()
    assert 'medveil_jobs{kind="sum",state="running"} 0.0' in text
    assert 'medveil_jobs{kind="sum",state="waiting"} 0.0' in text
    assert 'medveil_jobs_ended_total{kind="sum",state="done"} 4.0' in text


def test_peers_have_places_of_their_own(make_set: Make) -> None:
    """What other organisations begin takes no place from the own people, nor one of them from another."""
    own = make_set(job_limits=JobLimits(running=1, per_owner=1, of_peers=3, per_peer=2))

    async def main() -> None:
        open_ = asyncio.Event()
        running: list[str] = []

        async def work(journal: Journal) -> None:
            running.append(journal.owner)
            await open_.wait()

        own.jobs.register("sum", work)
        started = [
            await own.jobs.start("sum", owner, b"") for owner in ("organisation:a",) * 3 + ("organisation:b",) * 2
        ]
        started += [await own.jobs.start("sum", "anna", b"") for _ in range(2)]
        async with asyncio.timeout(10):
            while len(running) < 4:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert sorted(running) == ["anna", "organisation:a", "organisation:a", "organisation:b"]
        open_.set()
        for job in started:
            await until(own, job.id, "done")

    asyncio.run(main())


def test_peers_that_take_all_places_keep_no_other_out(make_set: Make) -> None:
    """Whoever has nothing running begins one: members that fill every place with what waits stop nobody's query."""
    own = make_set(job_limits=JobLimits(of_peers=2, per_peer=2))

    async def main() -> None:
        open_ = asyncio.Event()

        async def work(journal: Journal) -> None:
            await open_.wait()

        own.jobs.register("sum", work)
        taking = [await own.jobs.start("sum", "organisation:a", b"") for _ in range(4)]
        others = [await own.jobs.start("sum", owner, b"") for owner in ("organisation:b", "organisation:c") * 2]
        for job in (*taking[:2], *others[:2]):
            await until(own, job.id, "running")
        await asyncio.sleep(0.1)
        assert [own.store.get(job.id).state for job in (*taking[2:], *others[2:])] == ["waiting"] * 4
        open_.set()
        for job in (*taking, *others):
            await until(own, job.id, "done")

    asyncio.run(main())


def test_programs_that_take_all_places_keep_no_person_out(make_set: Make) -> None:
    """An officer's erasure does not wait until colleagues' programs have what they wait for."""
    own = make_set(job_limits=JobLimits(running=2, per_owner=1))

    async def main() -> None:
        open_ = asyncio.Event()

        async def work(journal: Journal) -> None:
            await open_.wait()

        own.jobs.register("sum", work)
        programs = [await own.jobs.start("sum", f"program:{name}", b"") for name in "abc"]
        officer = [await own.jobs.start("sum", "person:officer", b"") for _ in range(2)]
        for job in (*programs[:2], officer[0]):
            await until(own, job.id, "running")
        await asyncio.sleep(0.1)
        assert [own.store.get(job.id).state for job in (programs[2], officer[1])] == ["waiting"] * 2
        open_.set()
        for job in (*programs, *officer):
            await until(own, job.id, "done")

    asyncio.run(main())


def test_a_repeated_request_is_one_job(make_set: Make) -> None:
    own = make_set()
    ran = 0

    async def main() -> None:
        open_ = asyncio.Event()

        async def work(journal: Journal) -> None:
            nonlocal ran
            ran += 1
            await open_.wait()

        own.jobs.register("sum", work)
        first, second = await asyncio.gather(*(own.jobs.start("sum", "anna", b"", key="use-1") for _ in range(2)))
        other = await own.jobs.start("sum", "bo", b"", key="use-1")
        assert first.id == second.id != other.id
        with pytest.raises(Refused) as used:
            await own.jobs.start("sum", "anna", b"something else", key="use-1")
        assert (used.value.code, used.value.facts["job"]) == ("jobs.key_used", first.id)
        open_.set()
        await until(own, first.id, "done")
        await until(own, other.id, "done")
        # Ended, it is still known what it was asked.
        assert (await own.jobs.start("sum", "anna", b"", key="use-1")).id == first.id
        with pytest.raises(Refused) as used:
            await own.jobs.start("sum", "anna", b"something else", key="use-1")
        assert (used.value.code, used.value.facts["job"]) == ("jobs.key_used", first.id)

    asyncio.run(main())
    assert ran == 2


def test_a_key_names_one_request_however_its_job_ended(make_set: Make) -> None:
    own = make_set(job_limits=JobLimits(running=1))

    async def main() -> None:
        async def fails(journal: Journal) -> None:
            raise Refused("jobs.unknown", job=journal.job)

        async def waits(journal: Journal) -> None:
            await asyncio.Event().wait()

        own.jobs.register("fails", fails)
        own.jobs.register("waits", waits)
        failed = await own.jobs.start("fails", "anna", b"asked", key="failed")
        await until(own, failed.id, "failed")
        blocking = await own.jobs.start("waits", "bo", b"")
        waiting = await own.jobs.start("fails", "anna", b"asked", key="cancelled")
        assert (await own.jobs.cancel(waiting.id, "anna")).state == "cancelled"
        for key, job in (("failed", failed), ("cancelled", waiting)):
            assert (await own.jobs.start("fails", "anna", b"asked", key=key)).id == job.id
            for kind, request in (("fails", b"another"), ("fails", b""), ("waits", b"asked")):
                with pytest.raises(Refused) as used:
                    await own.jobs.start(kind, "anna", request, key=key)
                assert used.value.code == "jobs.key_used"
        assert blocking.state == "waiting"
        await own.jobs.close(0.0)

    asyncio.run(main())
