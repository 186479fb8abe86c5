"""A query between gateways when time, money or somebody runs out: silence, crashes, budgets, outsiders."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import FixSurvivors, ProposeQuery, queries
from ledger.contracts.queries import CloseQuery
from medveil.consortium import _reception
from medveil.gateway import granting
from medveil.gateway.asking import ask
from medveil.gateway.collecting import EvidenceRequest
from medveil.gateway.organisation import Refusal
from medveil.gateway.query_board import reserved
from medveil.gateway.query_run import QueryAnswer, QueryRequest, SharesDealt, request_session, stop_session
from medveil.gateway.steps import Passing
from mpc.query import salted_hash
from mpc.release import Release
from mpc.sum_messages import Unmasking
from wire.errors import BudgetExhausted, ConsentDenied, MedveilError, ProtocolAbort, Refused, Unavailable

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]


def test_a_researcher_that_publishes_other_totals(play: Play) -> None:
    """The sites stop after phase 1: they never let phase 2 follow from sums that do not open."""

    async def story(world: Any) -> None:
        await world.grant_study()
        submit = world.researcher.submit

        async def lying(*ops: Any) -> Any:
            if isinstance(ops[0], queries.Release):
                totals = (ops[0].totals[0] + 1, *ops[0].totals[1:])
                ops = (msgspec.structs.replace(ops[0], totals=totals),)
            return await submit(*ops)

        world.researcher.submit = lying
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert (
            "zkp" in world.codes(parts)[0]
            or "mpc" in world.codes(parts)[0]
            or world.codes(parts)[0] == "gateway.stopped"
        )
        assert any(code.startswith("mpc.sum") for code in world.codes(parts))
        assert world.state_of(HANDLE).status == "spent"
        for site in world.hospitals:
            assert world.ended(site) == ["released"]

    play(story)


@pytest.mark.parametrize("when", ["answers", "phases"])
def test_nothing_stays_of_the_messages_of_a_stopped_query(play: Play, when: str) -> None:
    """Not at the researcher either, nor what comes late: it would take its senders' room for a week."""

    async def story(world: Any) -> None:
        await world.grant_study()
        wrong: Any = QueryAnswer if when == "answers" else SharesDealt
        world.alter(world.sites[1], wrong, lambda recipient, message: Refusal("sent.instead", "No."))
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, MedveilError) and all(isinstance(part, MedveilError) for part in parts[:2])
        post = world.consortium.post
        names = ["researcher", *(site.name for site in world.sites)]
        kept = [
            (name, session)
            for (name, session), inbox in post._inboxes.items()
            if name in names and (inbox._ready or inbox._early)
        ]
        assert not kept
        await world.sites[0].send("researcher", stop_session(HANDLE), Refusal("sent.late", "Late."))
        assert not post.inbox("researcher", stop_session(HANDLE))._ready

    play(story)


def test_a_researcher_that_never_fixes_the_survivors(play: Play) -> None:
    """Before the survivors stand on the ledger a site shows no share, whatever the researcher does."""

    async def story(world: Any) -> None:
        await world.grant_study()
        for site in world.sites:
            site.account.patience = 2.0
        world.researcher.patience = world.researcher.account.patience = 6.0
        submit = world.researcher.submit
        sent = []
        for site in world.sites:
            world.alter(site, Unmasking, lambda recipient, message: sent.append(message) or message)

        async def never_fixing(*ops: Any) -> Any:
            if isinstance(ops[0], FixSurvivors):
                return None
            return await submit(*ops)

        world.researcher.submit = never_fixing
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, MedveilError)
        assert all(isinstance(part, MedveilError) for part in parts)
        assert not sent
        await world.check_untouched()
        for site in world.hospitals:
            assert world.ended(site) == ["aborted"]

    play(story)


# --- budget -------------------------------------------------------------------------------------


def test_over_budget_is_refused_before_anything_is_sent(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        before = world.consortium.post.messages_carried
        query = world.query(rho_nano=world.budget + 1)
        with pytest.raises(BudgetExhausted) as refused:
            await ask(world.researcher, query, HANDLE, secrets.token_bytes(32), Passing())
        assert refused.value.code == "datasets.budget_exhausted"
        assert refused.value.facts["available"] == "1"
        assert world.consortium.post.messages_carried == before
        assert world.researcher.account.state.get(queries.query_key(HANDLE), queries.QueryState) is None
        assert (await world.population()).available == world.budget

    play(story)


def test_two_queries_at_once_cannot_both_have_the_rest(play: Play) -> None:
    """Both are proposed while the budget is free; the one that comes second is refused at its last approval."""

    async def story(world: Any) -> None:
        await world.grant_study()
        handles = (HANDLE, HANDLE[::-1])
        rho = 600_000_000
        runs = await asyncio.gather(*(world.run(world.query(rho_nano=rho), handle) for handle in handles))
        answers = [answer for answer, _ in runs]
        assert sorted(isinstance(answer, Release) for answer in answers) == [False, True]
        (refused,) = (answer for answer in answers if not isinstance(answer, Release))
        assert isinstance(refused, ConsentDenied)
        assert refused.facts["reason"] == "datasets.budget_exhausted"
        population = await world.population()
        assert (population.reserved, population.spent) == (0, rho)
        for site in world.hospitals:
            assert sorted(world.ended(site)) == ["aborted", "released"]

    play(story)


# --- the trail comes first ----------------------------------------------------------------------


def on_disk(site: Any) -> int:
    """How many entries another process would find in the file now."""
    with sqlite3.connect(f"file:{site.folder / 'audit.sqlite'}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT COUNT(*) FROM entries").fetchone()[0])


def test_the_intent_is_on_disk_before_anything_leaves(play: Play) -> None:
    class Killed(BaseException):
        """The process ends here."""

    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-1"]
        seen = []

        async def killed(*ops: Any) -> Any:
            seen.append(on_disk(site))
            raise Killed

        site.submit = killed
        site.audit.outcome = lambda *_: None  # a killed process writes nothing more
        await world.researcher.submit(
            ProposeQuery(HANDLE, salted_hash(world.query(), bytes(32)), "stays", world.hospitals, world.rho, 2)
        )
        request = QueryRequest(HANDLE, world.query(), bytes(32))
        await world.researcher.send("hospital-1", request_session(HANDLE), request)
        carried = world.consortium.post.messages_carried
        with pytest.raises(Killed):
            await world.serve(site, HANDLE)
        assert seen == [1]
        assert world.consortium.post.messages_carried == carried, "nothing was sent"
        assert len(site.audit.unfinished()) == 1
        assert site.audit.verify()

    play(story)


def test_no_log_no_release(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()

        def full(*_: Any, **_more: Any) -> int:
            raise Unavailable("privacy.store_failed", path="/home/hospital-1/audit.sqlite", reason="No space left")

        world["hospital-1"].audit.intent = full
        answer, parts = await world.run(world.query(), HANDLE)
        assert world.codes(parts)[0] == "privacy.store_failed"
        assert isinstance(answer, ConsentDenied)
        assert (answer.facts["organisation"], answer.facts["reason"]) == ("hospital-1", "gateway.trouble")
        assert "/home" not in answer.text(), "a path of one's own is not for others"
        await world.check_untouched()
        assert world.state_of(HANDLE).approvals in ((), ("hospital-2",), ("hospital-3",)) or (
            "hospital-1" not in world.state_of(HANDLE).approvals
        )

    play(story)


# --- silence and noise --------------------------------------------------------------------------


def test_a_researcher_that_falls_silent(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        world.deaf(0.5)
        query, salt = world.query(), bytes(32)

        async def asking() -> None:
            await world.researcher.submit(
                ProposeQuery(HANDLE, salted_hash(query, salt), "stays", world.hospitals, world.rho, 2)
            )
            for site in world.hospitals:
                await world.researcher.send(site, request_session(HANDLE), QueryRequest(HANDLE, query, salt))

        _, parts = await world.run(query, HANDLE, asking=asking())
        assert set(world.codes(parts)) <= {"channel.timeout", "gateway.query_closed", "account.timeout"}
        world.impatient(20)
        await world.check_untouched()
        for site in world.hospitals:
            assert world.ended(site) == ["aborted"]

    play(story)


def test_a_site_that_never_answers(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        world.deaf(0.5)
        asked = ask(world.researcher, world.query(), HANDLE, bytes(32), Passing())
        parts = [world.serve(site, HANDLE) for site in world.sites[:2]]
        answer, *rest = await asyncio.gather(asked, *parts, return_exceptions=True)
        given_up = {"channel.timeout", "account.timeout"}
        stopped = {"gateway.stopped", "gateway.query_closed"}  # by whoever gave up before
        said = set(world.codes([answer, *rest]))
        assert said & given_up and said <= given_up | stopped
        world.impatient(20)
        await world.check_untouched()

    play(story)


def test_a_site_that_is_never_asked_gives_up(play: Play) -> None:
    async def story(world: Any) -> None:
        world.impatient(0.2)
        with pytest.raises(Unavailable) as late:
            await world.serve(world["hospital-1"], HANDLE)
        assert late.value.code == "channel.timeout"
        assert not world.entries("hospital-1")

    play(story)


def test_a_cancelled_researcher_leaves_no_reservation_for_good(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        asking = asyncio.ensure_future(ask(world.researcher, world.query(), HANDLE, bytes(32), Passing()))
        parts = [asyncio.ensure_future(world.serve(site, HANDLE)) for site in world.sites]
        await world.researcher.account.until(lambda state: reserved(state, HANDLE), "the reservation")
        asking.cancel()
        world.deaf(0.5)
        _, *ended = await asyncio.gather(asking, *parts, return_exceptions=True)  # its sites close it
        assert set(world.codes(ended)) <= {"channel.timeout", "account.timeout", "gateway.query_closed"}
        for site in world.hospitals:
            assert world.ended(site) == ["aborted"]
        world.impatient(20)
        await world.check_untouched()
        await world.released()

    play(story)


@pytest.mark.parametrize("liar", ["researcher", "hospital-3"])
def test_who_says_that_it_stops_and_does_not_close(play: Play, liar: str) -> None:
    """A reservation is not kept for ever by whoever tells everybody to stop and leaves."""

    async def story(world: Any) -> None:
        await world.grant_study()
        submit = world[liar].submit

        async def leaving(*ops: Any) -> Any:
            if not isinstance(ops[0], CloseQuery):
                return await submit(*ops)
            raise Refused("gateway.trouble", organisation=liar)

        world[liar].submit = leaving
        stopping = world[liar].account.until(lambda state: reserved(state, HANDLE), "the reservation")

        async def stop() -> None:
            await stopping
            for other in ("researcher", *world.hospitals) if liar == "researcher" else ("researcher",):
                if other != liar:
                    await world[liar].send(other, stop_session(HANDLE), Refusal("gateway.trouble", "I stop."))

        (answer, parts), _ = await asyncio.gather(world.run(world.query(), HANDLE), stop())
        assert "gateway.stopped" in world.codes([answer, *parts])
        await world.check_untouched()

    play(story)


def test_outsiders_cannot_spoil_a_query(play: Play) -> None:
    """Handles are public, and so the sessions: what others put into them is dropped."""

    async def story(world: Any) -> None:
        await world.grant_study()
        for _ in range(3):
            await world.insurer.send(
                "researcher", request_session(HANDLE), QueryAnswer(HANDLE, Refusal("privacy.deny_no_grant", "no"))
            )
            await world.bureau.send("researcher", request_session(HANDLE), QueryAnswer(HANDLE))
            for site in world.hospitals:
                await world.insurer.send(
                    site, request_session(HANDLE), QueryRequest(HANDLE, world.query(rho_nano=1), bytes(32))
                )
                for stranger in (world.insurer, world["hospital-1"]):
                    stop = Refusal("gateway.trouble", "stop")
                    await stranger.send(site, stop_session(HANDLE), stop)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, Release)
        assert world.codes(parts) == ["allowed"] * 3

    play(story)


def test_outsiders_cannot_open_the_sessions_of_a_query(play: Play) -> None:
    """What an outsider begins in a session of a query becomes a flow of its own: it takes nothing from the query's."""

    async def story(world: Any) -> None:
        await world.grant_study()
        signed = await granting.issue(world.insurer, world.terms("theirs", "insurer", "researcher"), Passing())
        world.deaf(2.0)  # how long those flows listen, three times over
        parties = ("researcher", *world.hospitals)

        async def spoil(recipient: str) -> None:
            for session in (request_session(HANDLE), stop_session(HANDLE)):  # its flow listens there for minutes
                await world.bureau.send(recipient, session, EvidenceRequest(session))

        async def asking() -> Any:
            for party in parties:
                await spoil(party)
            await asyncio.sleep(1.0)
            world.deaf(20)
            asked = asyncio.ensure_future(ask(world.researcher, world.query(), HANDLE, bytes(32), Passing()))
            await world.researcher.account.until(lambda state: reserved(state, HANDLE), "the reservation")
            await world.insurer.send("researcher", request_session(HANDLE), signed)
            return await asked

        async with asyncio.TaskGroup() as tasks:
            home = world.consortium.homes
            attending = [
                tasks.create_task(_reception(world[name], home[name], tasks, world.now).attend()) for name in parties
            ]
            answer = await asyncio.gather(asking(), return_exceptions=True)
            for one in attending:
                one.cancel()
        assert isinstance(answer[0], Release), answer

    play(story)


def test_a_site_that_answers_twice_does_not_answer_for_another(play: Play) -> None:
    async def story(world: Any) -> None:
        for site in ("hospital-1", "hospital-3"):
            await world.grant(f"study-{site}", site, "researcher")
        await world["hospital-1"].send("researcher", request_session(HANDLE), QueryAnswer(HANDLE))
        await world["hospital-1"].send("researcher", request_session(HANDLE), QueryAnswer(HANDLE))
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert answer.facts["organisation"] == "hospital-2"
        await world.check_untouched()

    play(story)


def test_a_site_outside_the_roster(play: Play) -> None:
    """The other site of the population is asked with a query that is not for it."""

    async def story(world: Any) -> None:
        query = world.query()
        proposal = ProposeQuery(HANDLE, salted_hash(query, bytes(32)), "stays", world.hospitals, world.rho, 2)
        await world.researcher.submit(proposal)
        await world.researcher.send("bureau", request_session(HANDLE), QueryRequest(HANDLE, query, bytes(32)))
        with pytest.raises(Refused) as refused:
            await world.serve(world.bureau, HANDLE)
        assert refused.value.code == "gateway.not_in_roster"

    play(story)
