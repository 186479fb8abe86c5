"""Jobs over real SQLite: what is durable, what comes again after a kill, who may end what, what is let wait."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from medveil.service.database import Database
from medveil.service.work.job_tables import Job, JobStore, State, job_steps, jobs
from medveil.service.work.job_tables import Secret as Secret_
from medveil.service.work.journal import Control, JobCancelled, Journal, sealed_under
from wire.canonical import Wire
from wire.errors import ConsentDenied, ProtocolAbort, Refused, Unavailable, VerificationError

from ..running import ANNA, BO, AesSealer, Running, Set

Make = Callable[..., Set]
Run = Callable[..., Running]


class Number(Wire, frozen=True, tag="test.number"):
    """What a step of these tests gives."""

    value: int


async def until(own: Set, job: str, *states: State) -> Job:
    """The job as soon as it is in one of these states."""
    async with asyncio.timeout(20):
        while (found := own.store.get(job)).state not in states:
            await asyncio.sleep(0.005)
        return found


def test_a_job_runs_step_by_step(make_set: Make) -> None:
    own = make_set()

    async def work(journal: Journal) -> str:
        assert journal.request == b"please" and journal.owner == "anna"
        first = await journal.once("first", Number, lambda: give(3))
        second = await journal.once("second", Number, lambda: give(first.value * 2))
        return f"/v1/results/{second.value}"

    async def give(value: int) -> Number:
        return Number(value)

    async def main() -> None:
        own.jobs.register("sum", work, steps=2)
        job = await own.jobs.start("sum", "anna", b"please")
        done = await until(own, job.id, "done")
        assert (done.result, done.steps, done.total, done.step) == ("/v1/results/6", 2, 2, "second")
        events = await own.jobs.past(job.id, 0)
        assert [event.number for event in events] == [1, 2, 3, 4, 5]
        assert [event.name for event in events] == ["state", "state", "step", "step", "state"]
        assert events[-1].last and not events[0].last
        with own.database.reading() as connection:  # what was secret has gone
            assert connection.execute(sa.select(sa.func.count()).select_from(job_steps)).scalar_one() == 0
            request, seed = connection.execute(sa.select(jobs.c.request, jobs.c.seed)).one()
        assert seed == b"" and b"please" not in request and hashlib.sha256(b"please").digest() not in request
        with pytest.raises(VerificationError):
            AesSealer(b"k" * 32).open(sealed_under(job.id, "request"), request)
        await own.jobs.close(1)

    asyncio.run(main())


def test_what_is_kept_is_sealed(make_set: Make, tmp_path: Path) -> None:
    own = make_set()
    held = asyncio.Event()

    async def work(journal: Journal) -> None:
        await journal.once("secret step", Secret, give)
        await held.wait()

    async def give() -> Secret:
        return Secret(b"a share of somebody")

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"a question of somebody")
        while own.store.get(job.id).steps < 1:
            await asyncio.sleep(0.005)
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("service.db*"))
        assert b"secret step" in stored and b"of somebody" not in stored
        held.set()
        await until(own, job.id, "done")

    asyncio.run(main())


class Secret(Wire, frozen=True, tag="test.secret"):
    """A secret that a step gives."""

    share: bytes


def test_a_restarted_job_repeats_nothing_that_was_recorded(make_set: Make) -> None:
    """The first process is cancelled in the second step; the next one goes on there, with the same randomness."""
    ran: list[tuple[str, bytes]] = []
    stuck = asyncio.Event()

    async def work(journal: Journal) -> str:
        async def draw(step: str, context: bytes = b"") -> Secret:
            ran.append((step, journal.rand(step, context)(16)))
            if step == "second" and not stuck.is_set():
                stuck.set()
                await asyncio.sleep(60)
            return Secret(ran[-1][1])

        first = await journal.once("first", Secret, lambda: draw("first"))
        second = await journal.once("second", Secret, lambda: draw("second", first.share))
        return (first.share + second.share).hex()

    async def before() -> str:
        own = make_set()
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        await stuck.wait()
        await own.jobs.close(0.05)
        assert own.store.get(job.id).state == "running"
        return job.id

    async def after(job: str) -> str:
        own = make_set()
        own.jobs.register("sum", work)
        assert await own.jobs.resume() == 1
        return (await until(own, job, "done")).result or ""

    job = asyncio.run(before())
    result = asyncio.run(after(job))
    assert [step for step, _ in ran] == ["first", "second", "second"]
    assert ran[1] == ran[2] and ran[0][1] != ran[1][1]
    assert result == (ran[0][1] + ran[1][1]).hex()


def test_randomness_differs_by_step_context_and_job(make_set: Make) -> None:
    own = make_set()

    def journal(job: str, seed: bytes = b"s" * 32) -> Journal:
        return Journal(
            job, "anna", b"", seed, store=own.store, sealer=AesSealer(b"k" * 32), clock=own.clock, control=Control(),
            told=lambda event: None,
        )  # fmt: skip

    one = journal("a" * 32)
    streams = [one.rand("x"), one.rand("y"), one.rand("x", b"c"), one.rand("x", b"", b"c"), one.rand("x", b"c", b"")]
    streams += [journal("b" * 32).rand("x"), journal("a" * 32, b"t" * 32).rand("x")]
    drawn = {stream(32) for stream in streams}
    assert len(drawn) == len(streams)
    whole = one.rand("x")(100_000)  # longer than HKDF alone gives
    parts = one.rand("x")
    assert b"".join(parts(size) for size in (1, 63, 64, 0, 99_872)) == whole
    assert len({whole[offset : offset + 32] for offset in range(0, 99_968, 32)}) == 3124


def test_a_changed_record_ends_the_job(make_set: Make) -> None:
    own = make_set()
    held = asyncio.Event()

    async def work(journal: Journal) -> None:
        await journal.once("first", Number, lambda: give(1))
        await journal.once("second", Number, lambda: give(2))
        await held.wait()

    async def give(value: int) -> Number:
        return Number(value)

    async def first() -> str:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        while own.store.get(job.id).steps < 2:
            await asyncio.sleep(0.005)
        await own.jobs.close(0)
        return job.id

    async def second(job: str) -> Job:
        again = make_set()
        again.jobs.register("sum", work)
        await again.jobs.resume()
        return await until(again, job, "failed")

    job = asyncio.run(first())
    with own.database.transaction() as connection:  # the record of one step under the name of the other
        record = connection.execute(sa.select(job_steps.c.record).where(job_steps.c.step == "second")).scalar_one()
        connection.execute(job_steps.update().where(job_steps.c.step == "first").values(record=record))
    problem = asyncio.run(second(job)).problem
    assert isinstance(problem, VerificationError) and problem.code == "jobs.bad_record"
    assert problem.facts == {"job": job, "step": "first"}


def test_a_job_is_cancelled_at_its_next_step(make_set: Make) -> None:
    own = make_set()
    reached, go_on = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def work(journal: Journal) -> None:
        await journal.once("first", Number, first)
        try:
            await journal.once("second", Number, second)
        except Exception:  # a kind's own handlers do not swallow a cancellation
            ran.append("swallowed")

    async def first() -> Number:
        reached.set()
        await go_on.wait()
        ran.append("first")
        return Number(1)

    async def second() -> Number:
        ran.append("second")
        return Number(2)

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        await reached.wait()
        with pytest.raises(Refused, match="no job"):
            await own.jobs.cancel(job.id, "bo")
        asked = await own.jobs.cancel(job.id, "anna")
        assert (asked.state, asked.cancelling) == ("running", True)
        go_on.set()
        ended = await until(own, job.id, "cancelled")
        assert ran == ["first"] and ended.steps == 1
        assert (await own.jobs.cancel(job.id, "anna")).state == "cancelled"

    asyncio.run(main())


def test_a_job_that_was_cancelled_and_killed_still_cleans_up(make_set: Make) -> None:
    """What it began before, a reservation on the ledger say, is for its work to end: that hears of it first."""
    began, cleaned = asyncio.Event(), []

    async def work(journal: Journal) -> None:
        try:
            await journal.once("first", Number, first)
        except JobCancelled:
            cleaned.append(journal.job)
            raise

    async def first() -> Number:
        began.set()
        await asyncio.sleep(60)
        return Number(1)

    async def before() -> str:
        own = make_set()
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        await began.wait()
        await own.jobs.cancel(job.id, "anna")
        await own.jobs.close(0.05)
        assert own.store.get(job.id).state == "running"
        return job.id

    async def after(job: str) -> None:
        own = make_set()
        own.jobs.register("sum", work)
        await own.jobs.resume()
        await until(own, job, "cancelled")

    job = asyncio.run(before())
    asyncio.run(after(job))
    assert cleaned == [job]


def test_a_guard_stops_a_job_at_its_next_step(make_set: Make) -> None:
    """As a revoked grant does."""
    own = make_set()
    revoked = False

    async def work(journal: Journal) -> None:
        await journal.once("first", Number, revoke)
        await journal.once("second", Number, revoke)

    async def revoke() -> Number:
        nonlocal revoked
        revoked = True
        return Number(1)

    async def guard(journal: Journal) -> None:
        if revoked:
            raise ConsentDenied("privacy.no_grant")

    async def main() -> None:
        own.jobs.register("sum", work, guard=guard)
        job = await own.jobs.start("sum", "anna", b"")
        ended = await until(own, job.id, "failed")
        assert ended.steps == 1 and isinstance(ended.problem, ConsentDenied)

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        ProtocolAbort("mpc.any", round="shares", parties=["north", "south"]),
        Unavailable("channel.timeout", organisation="south", seconds=3),
        Refused("privacy.any", field="age"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_why_a_job_failed_is_kept(make_set: Make, error: Exception) -> None:
    own = make_set()

    async def work(journal: Journal) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(journal.once("first", Number, fail))
            group.create_task(asyncio.sleep(5))

    async def fail() -> Number:
        raise error

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        problem = (await until(own, job.id, "failed")).problem
        assert type(problem) is type(error)
        assert (problem.code, problem.facts) == (error.code, error.facts)  # type: ignore[union-attr, attr-defined]

    asyncio.run(main())


def test_an_unexpected_error_is_told_without_its_text(make_set: Make) -> None:
    own = make_set()

    async def work(journal: Journal) -> None:
        raise RuntimeError("patient-110101199001011234")

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        problem = (await until(own, job.id, "failed")).problem
        assert problem is not None and problem.code == "jobs.ended_by_fault"

    asyncio.run(main())
    assert b"110101" not in own.written.getvalue()
    assert next(line for line in own.lines() if line["event"] == "fault")["fault"] == "RuntimeError"


def test_a_key_of_any_length_is_kept(either: Database) -> None:
    """The longest that a peer's session or a person's own key comes to; the column has 128 characters."""
    store, secret = JobStore(either), Secret_(b"", b"")
    for number, key in enumerate(("k" * 128, "query.serve/" + "ab" * 64, "query.serve/" + "ac" * 64)):
        job = Job(f"{number:032x}", "sum", "organisation:other", "waiting", False, 1, 1, 0, None, None, None, None, 0)
        kept, event = store.add(job, secret, key, 9)
        again, nothing = store.add(job._replace(id="f" * 32), secret, key, 9)
        assert (kept.id, again.id, nothing) == (job.id, job.id, None) and event is not None


def test_a_kind_that_is_gone_fails_with_a_reason(make_set: Make) -> None:
    async def work(journal: Journal) -> None:
        await asyncio.sleep(60)

    async def before() -> str:
        own = make_set()
        own.jobs.register("old", work)
        job = await own.jobs.start("old", "anna", b"")
        await until(own, job.id, "running")
        await own.jobs.close(0)
        return job.id

    async def after(job: str) -> None:
        own = make_set()
        await own.jobs.resume()
        problem = (await until(own, job, "failed")).problem
        assert problem is not None and problem.code == "jobs.unknown_kind"

    asyncio.run(after(asyncio.run(before())))


def test_a_step_cannot_run_twice_at_once(make_set: Make) -> None:
    own = make_set()

    async def work(journal: Journal) -> None:
        slow = asyncio.create_task(journal.once("same", Number, give))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="running already"):
            await journal.once("same", Number, give)
        assert (await slow) == await journal.once("same", Number, give) == Number(1)
        with pytest.raises(ValueError, match="characters"):
            await journal.once("x" * 101, Number, give)

    async def give() -> Number:
        await asyncio.sleep(0.01)
        return Number(1)

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        assert (await until(own, job.id, "done", "failed")).state == "done"

    asyncio.run(main())


def test_what_was_recorded_is_looked_up_once(make_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by two steps side by side: a look that ends late forgets nothing that the other one recorded since."""
    own, looks = make_set(), list[str]()
    real, first_looked = own.store.recorded, threading.Event()

    def look(job: str) -> set[str]:
        found = real(job)
        looks.append(job)
        if len(looks) == 1:  # this one ends when the other has recorded
            first_looked.wait(5)
        return found

    async def work(journal: Journal) -> None:
        slow = asyncio.create_task(journal.once("slow", Number, lambda: give(1)))
        while not looks:
            await asyncio.sleep(0.001)
        assert await journal.once("quick", Number, lambda: give(2)) == Number(2)
        first_looked.set()
        assert await slow == Number(1)
        for step, value in (("quick", 2), ("slow", 1)):
            assert await journal.once(step, Number, lambda: give(9)) == Number(value)
        assert await journal.kept("slow") and not await journal.kept("other")
        await journal.once("other", Number, lambda: give(3))

    async def give(value: int) -> Number:
        return Number(value)

    async def main() -> None:
        monkeypatch.setattr(own.store, "recorded", look)
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        assert (await until(own, job.id, "done", "failed")).state == "done"
        assert len(looks) == 2

    asyncio.run(main())


def test_old_jobs_are_forgotten_and_running_ones_are_not(make_set: Make) -> None:
    own = make_set()
    held = asyncio.Event()

    async def quick(journal: Journal) -> None: ...

    async def slow(journal: Journal) -> None:
        await held.wait()

    async def main() -> None:
        own.jobs.register("quick", quick)
        own.jobs.register("slow", slow)
        old = await own.jobs.start("quick", "anna", b"")
        kept = await own.jobs.start("slow", "anna", b"")
        await until(own, old.id, "done")
        assert own.store.forget(own.clock.now + 1000) == 1
        assert [job.id for job in await own.jobs.page("anna")] == [kept.id]
        assert await own.jobs.past(old.id, 0) == []
        held.set()
        await until(own, kept.id, "done")

    asyncio.run(main())


def test_the_routes_show_ones_own_jobs_page_by_page(make_set: Make, run: Run) -> None:
    own = make_set()

    async def work(journal: Journal) -> None:
        raise ConsentDenied("jobs.unknown", job="x")

    own.jobs.register("sum", work)
    service = run(own)
    ids = [service.do(own.jobs.start("sum", "anna", b"")).id for _ in range(5)]
    for job in ids:
        service.do(until(own, job, "failed"))
    with httpx.Client(base_url=service.address, headers=ANNA) as client:
        first = client.get("/v1/jobs?limit=2").json()
        second = client.get("/v1/jobs", params={"limit": 2, "after": first["after"]}).json()
        third = client.get("/v1/jobs", params={"limit": 2, "after": second["after"]}).json()
        assert [job["job"] for page in (first, second, third) for job in page["jobs"]] == ids[::-1]
        assert third["after"] is None
        assert client.get("/v1/jobs?state=done").json() == {"jobs": [], "after": None}
        one = client.get(f"/v1/jobs/{ids[0]}", headers={"accept-language": "zh"}).json()
        assert one["state"] == "failed" and one["problem"]["detail"] == "您没有编号为 x 的任务。"
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            theirs = client.request(method, f"/v1/jobs/{ids[0]}{path}", headers=BO)
            assert (theirs.status_code, theirs.json()["code"]) == (404, "jobs.unknown")
        assert client.get("/v1/jobs", headers=BO, params={"after": ids[0]}).status_code == 404


KILLED = """
import asyncio, pathlib, sys
sys.path.insert(0, {root!r})
from tests.medveil.service.running import Set
from tests.medveil.service.work.test_jobs import counted

async def main():
    own = Set(pathlib.Path({folder!r}))
    own.jobs.register("sum", counted(pathlib.Path({folder!r})))
    if await own.jobs.resume() == 0:
        await own.jobs.start("sum", "anna", b"")
    while any(job.state != "done" for job in await own.jobs.page("anna")):
        await asyncio.sleep(0.002)

asyncio.run(main())
"""
STEPS = 12


def counted(folder: Path) -> Callable[[Journal], object]:
    """Twelve steps, each of which leaves a line with its number and what it drew."""

    async def work(journal: Journal) -> str:
        total = 0
        for step in range(STEPS):

            async def one(step: int = step) -> Number:
                drawn = journal.rand(str(step))(4)
                with (folder / "trail").open("a") as trail:
                    trail.write(f"{step} {drawn.hex()}\n")
                await asyncio.sleep(0.01)
                return Number(int.from_bytes(drawn, "big"))

            total += (await journal.once(str(step), Number, one)).value
        return str(total)

    return work


def test_kill_9_at_any_moment_loses_and_doubles_nothing(make_set: Make, tmp_path: Path) -> None:
    """A process is killed again and again until one comes through: every step drew the same each time it ran."""
    root = Path(__file__).resolve().parents[4]
    program = KILLED.format(root=str(root), folder=str(tmp_path))
    killed = 0
    for attempt in range(30):
        process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stderr=subprocess.PIPE)
        trail = tmp_path / "trail"
        begun = len(trail.read_text().splitlines()) if trail.exists() else 0
        while process.poll() is None:
            if attempt < 5 and trail.exists() and len(trail.read_text().splitlines()) >= begun + 2:
                time.sleep(0.003 * attempt)
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
        _, said = process.communicate(timeout=30)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        killed += 1
    own = make_set()
    (job,) = own.store.page("anna", None, 10, None)
    lines = [line.split() for line in (tmp_path / "trail").read_text().splitlines()]
    drawn = {int(step): value for step, value in lines}
    assert killed >= 3 and job.state == "done" and job.steps == STEPS
    assert len({tuple(line) for line in lines}) == STEPS  # a step that ran twice drew the same
    assert [int(step) for step, _ in lines] == sorted(int(step) for step, _ in lines)  # none ran after a later one
    assert job.result == str(sum(int(value, 16) for value in drawn.values()))


def test_cancelled_and_paused_are_no_exceptions() -> None:
    assert not issubclass(JobCancelled, Exception)


def test_what_runs_already_is_not_taken_up_again(make_set: Make) -> None:
    own = make_set()
    ran = 0

    async def work(journal: Journal) -> None:
        nonlocal ran
        ran += 1
        await asyncio.sleep(0.05)

    async def main() -> None:
        own.jobs.register("sum", work)
        job = await own.jobs.start("sum", "anna", b"")
        assert await own.jobs.resume() == 0
        await until(own, job.id, "done")

    asyncio.run(main())
    assert ran == 1
