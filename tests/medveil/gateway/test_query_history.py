"""Queries of before: the same question gets the same answer, and single sites are not given away by a second one."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.contracts import CloseQuery, RevokeGrant, queries
from ledger.trees.state import StateTree
from medveil.gateway import query_history, serving
from medveil.gateway.asking import ask
from medveil.gateway.near_sites import NearSites
from medveil.gateway.organisation import Refusal
from medveil.gateway.query_board import read_board
from medveil.gateway.query_history import answers, earlier_queries, forgotten_queries, near_releases
from medveil.gateway.query_run import AnsweredBefore, QueryAnswer, QueryRequest
from medveil.gateway.steps import Passing
from mpc.query import GATE, SUMS
from mpc.release import Release, verify_release
from mpc.sum_messages import Masked, RoundKeys, Unmasking
from privacy.decide import Decision
from privacy.local import GroupColumn
from privacy.predicate import And, Compare, In, Not
from privacy.vault import Vault
from wire.errors import ConsentDenied, ProtocolAbort, Refused, VerificationError

from .restored_site import forget_served

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]
EAST = GroupColumn("ward", ("east",), other=False)


@pytest.fixture
def four(in_consortium: Callable[..., Any], tmp_path: Path) -> Play:
    """Tell a story among four hospitals that wait for each other for four seconds."""

    def tell(story: Callable[[Any], Awaitable[Any]]) -> Any:
        async def whole(world: Any) -> Any:
            world.deaf(6)
            await world.grant_study()
            return await story(world)

        return in_consortium(tmp_path / "consortium", whole, 4)

    return tell


def forget(world: Any) -> None:
    """The researcher's own book of answers is gone: it must ask the sites."""
    vault = world.researcher.vault
    for name in vault.documents("question"):
        vault.remove_document("question", name)


def proposals(world: Any) -> int:
    return len(list(world.researcher.account.state.items(queries.QUERIES, queries.QueryState)))


def written_otherwise(world: Any) -> Any:
    """A question that means the same as `asked`."""
    return world.query(
        filter=And((Not(Compare("cost", "ge", 90)), Not(Not(In("ward", ("west", "east")))))),
        groups=(GroupColumn("ward", ("west", "east"), other=False),),
    )


def asked(world: Any) -> Any:
    return world.query(filter=And((In("ward", ("east", "west")), Compare("cost", "lt", 90))))


def test_the_same_question_gets_the_same_answer_for_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        first = await world.released(asked(world))
        before, trails = await world.population(), [len(world.entries(site)) for site in world.hospitals]
        again = await ask(world.researcher, written_otherwise(world), HANDLE, bytes(32), Passing())
        assert again == first and proposals(world) == 1, "from its own releases, nobody was asked"
        assert [len(world.entries(site)) for site in world.hospitals] == trails

        forget(world)  # as another researcher would, it asks the sites
        again, parts = await world.run(written_otherwise(world), HANDLE)
        assert again == first and world.codes(parts) == ["allowed"] * 3
        assert await world.population() == before, "nothing is spent or reserved"
        assert world.state_of(HANDLE).status == "closed" and world.state_of(HANDLE).approvals == ()
        for site in world.hospitals:
            *_, intent, outcome = world.entries(site)
            assert (intent.use.query, outcome.outcome) == (world.state_of(first.handle).salted_hash, "released")
        assert answers(world.researcher) == {first.handle}
        verify_release(again, read_board(await world.bureau.account.caught_up(), again.handle))

    play(story)


def test_a_site_that_does_not_allow_the_use_gives_no_earlier_answer(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        await world.released()
        forget(world)
        world.now.ahead = 2 * 86_400_000  # the grants ran out
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert world.codes(parts) == ["denied"] * 3

    play(story)


def test_other_rows_are_another_question(play: Play) -> None:
    """One site's grant was for other rows the first time: what was released then is no answer now."""

    async def story(world: Any) -> None:
        await world.grant("narrow", "hospital-1", "researcher", predicate=Compare("ward", "eq", "east"))
        for site in ("hospital-2", "hospital-3"):
            await world.grant(f"study-{site}", site, "researcher")
        await world.released()
        forget(world)
        await world["hospital-1"].submit(RevokeGrant("narrow"))
        await world.grant("study-hospital-1", "hospital-1", "researcher")
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, Refused) and answer.code == "gateway.answered_in_part"
        assert answer.facts["others"] == "hospital-1"
        await world.researcher.account.caught_up()
        assert world.state_of(HANDLE).status == "closed"
        again = await world.released(world.query(rho_nano=world.rho - 1))
        assert isinstance(again, Release)

    play(story)


def test_sites_that_name_different_answers_give_none(play: Play) -> None:
    """Each of two releases has rows that one of the sites does not allow now: neither is the answer."""

    async def story(world: Any) -> None:
        one, others = "hospital-1", ("hospital-2", "hospital-3")
        narrow = Compare("ward", "eq", "east")
        await world.grant("narrow", one, "researcher", predicate=narrow)
        for site in others:
            await world.grant(f"wide-{site}", site, "researcher")
        first = await world.released()
        forget(world)
        await world[one].submit(RevokeGrant("narrow"))
        await world.grant("wide", one, "researcher")
        for site in others:
            await world[site].submit(RevokeGrant(f"wide-{site}"))
            await world.grant(f"narrow-{site}", site, "researcher", predicate=narrow)
        second = await world.released()
        assert second.handle != first.handle
        forget(world)
        for site in others:
            await world[site].submit(RevokeGrant(f"narrow-{site}"))
            await world.grant(f"again-{site}", site, "researcher")
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, Refused) and answer.code == "gateway.answered_in_part"

    play(story)


def test_a_site_that_names_another_answer_is_named(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        first = await world.released()
        other = world.query(groups=(EAST,))

        def lying(recipient: str, message: QueryAnswer) -> QueryAnswer:
            return msgspec.structs.replace(message, before=AnsweredBefore(first.handle, first.query, first.salt))

        world.alter(world["hospital-2"], QueryAnswer, lying)
        answer, _ = await world.run(other, HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.parties) == ("gateway.no_answer_before", ("hospital-2",))

    play(story)


# --- rosters ------------------------------------------------------------------------------------


def over(world: Any, *sites: str, **changes: Any) -> Any:
    return world.query(roster=sites, datasets=tuple(f"stays-{site}" for site in sites), **changes)


def test_a_roster_without_one_site_is_refused_whatever_the_filter(four: Play) -> None:
    async def story(world: Any) -> None:
        first = await world.released()
        three = world.hospitals[:3]
        world.sites = world.sites[:3]
        for changes in ({}, {"filter": Compare("cost", "lt", 50)}, {"groups": (EAST,)}, {"rho_nano": 10_000_000}):
            query = over(world, *three, **changes)
            assert [one.handle for one in near_releases(world.researcher, query)] == [first.handle]
            handle = secrets.token_bytes(16)
            answer, parts = await world.run(query, handle)
            assert isinstance(answer, ConsentDenied) and answer.facts["reason"] == "mpc.near_roster"
            assert first.handle.hex() in answer.text() and "hospital-4" in answer.text()
            assert [part.code for part in parts[:3]] == ["mpc.near_roster"] * 3
            for site in three:
                *_, intent, outcome = world.entries(site)
                assert (intent.use.allowed, outcome.outcome) == (False, "denied")
            assert world.state_of(handle).status == "closed"

    four(story)


def test_what_a_site_has_forgotten_is_taken_for_the_worst(four: Play) -> None:
    """Its home came back from a backup of before: the ledger has which queries it approved, and over which roster."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        first = await world.released()
        assert forgotten_queries(site, "stays") == ()
        for one in world.sites:
            forget_served(one)
        assert forgotten_queries(site, "stays") == ((first.handle, world.hospitals),)
        assert forgotten_queries(site, "stays", but=first.handle) == forgotten_queries(site, "others") == ()
        near = over(world, *world.hospitals[:3], filter=Compare("cost", "lt", 20))
        whole = world.query(filter=Compare("cost", "lt", 50))
        world.sites, every = world.sites[:3], world.sites
        answer, parts = await world.run(near, secrets.token_bytes(16))
        assert isinstance(answer, ConsentDenied) and answer.facts["reason"] == "mpc.near_forgotten"
        assert first.handle.hex() in answer.text() and "hospital-4" in answer.text()
        assert [part.code for part in parts[:3]] == ["mpc.near_forgotten"] * 3
        world.sites = every
        await world.released(whole)  # the roster is the same, whatever was asked
        for one in every:
            one.near = NearSites(rosters="label")
        world.sites = world.sites[:3]
        assert (await world.released(near)).phases[0].near

    four(story)


def test_what_a_site_knows_is_looked_up_and_not_gone_through(four: Play) -> None:
    """Or a site of many queries would compare every one of the ledger with every one of its own."""

    class Looked(dict[bytes, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("gone through")

    async def story(world: Any) -> None:
        site = world.sites[0]
        await world.released()
        query_history._served[site] = Looked(query_history._history(site))
        assert forgotten_queries(site, "stays") == ()

    four(story)


def test_the_ledger_is_gone_through_once(four: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """And beside the event loop: of millions of keys a query of one more would wait for seconds, and all others too."""
    walked: list[tuple[bool, bool]] = []
    news = query_history._news

    def watched(site: str, before: Any, at: Any) -> Any:
        if site == "hospital-1":
            walked.append((before is None, threading.current_thread() is threading.main_thread()))
        return news(site, before, at)

    async def story(world: Any) -> None:
        site = world.sites[0]
        monkeypatch.setattr(query_history, "_news", watched)
        first = await world.released()
        second = await world.released(world.query(filter=Compare("cost", "lt", 50)))
        assert walked[0] == (True, False) and not any(whole for whole, _ in walked[1:])
        monkeypatch.setattr(StateTree, "items", None)  # nobody goes through all of it
        assert forgotten_queries(site, "stays") == ()
        forget_served(site)
        both = tuple(sorted((first.handle, second.handle)))
        assert tuple(one.handle for one in forgotten_queries(site, "stays")) == both

    four(story)


def test_a_query_that_another_process_takes_up_goes_through_nothing_on_the_event_loop(
    four: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked before that process began, which knows nothing yet when it comes to enter the query."""
    news, documents = query_history._news, Vault.documents
    inside: list[str] = []

    def watched(site: str, before: Any, at: Any) -> Any:
        if before is None and threading.current_thread() is threading.main_thread():
            inside.append(f"ledger of {site}")
        return news(site, before, at)

    def listed(vault: Vault, kind: str) -> Any:
        if kind == "query-served" and threading.current_thread() is threading.main_thread():
            inside.append("served queries")
        return documents(vault, kind)

    async def story(world: Any) -> None:
        decide = serving.decide_use

        async def decided(site: Any, *rest: Any) -> Any:
            found = await decide(site, *rest)
            query_history._served.pop(site, None)
            query_history._approved.pop(site, None)
            return found

        monkeypatch.setattr(query_history, "_news", watched)
        monkeypatch.setattr(Vault, "documents", listed)
        monkeypatch.setattr(serving, "decide_use", decided)
        await world.released()
        assert inside == []

    four(story)


def test_a_query_that_is_entered_while_another_thread_reads_is_known(
    four: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Explaining reads in a thread: what it read before must not take the place of what was entered since."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        first = await world.released()
        entered = query_history._history(site)[first.handle]
        query_history._served.pop(site)
        documents, status, times = site.vault.documents, query_history._status, iter((b"2" * 16, b"3" * 16))

        def read(kind: str) -> Any:
            found = documents(kind)
            if kind == "query-served" and site not in query_history._served:
                query_history._served[site] = {first.handle: entered, b"1" * 16: entered}
            return found

        monkeypatch.setattr(site.vault, "documents", read)
        assert set(query_history._history(site)) == {first.handle, b"1" * 16}

        def asked(state: Any, handle: bytes) -> str:
            query_history._history(site)[next(times)] = entered
            return status(state, handle)

        monkeypatch.setattr(query_history, "_status", asked)
        assert [one.handle for one in earlier_queries(site, "stays")] == [first.handle]

    four(story)


def test_of_queries_that_do_not_matter_the_ledger_is_not_asked(four: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a site that served ten thousand would decode each of them for every new one."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        queries_of = [world.query(rho_nano=rho) for rho in (10**6, 10**6 + 1, 10**6 + 2)]
        handles = [(await world.released(query)).handle for query in queries_of]
        decision = Decision(True, "granted", "study", "", "researcher", "stays-hospital-1")
        asked: list[bytes] = []
        read = query_history.read_query
        monkeypatch.setattr(
            query_history, "read_query", lambda state, handle: asked.append(handle) or read(state, handle)
        )
        assert {one.handle for one in earlier_queries(site, "stays")} == set(handles)
        assert query_history.answered(site, world.query(rho_nano=10**6 + 3), decision) is None
        assert asked == []
        found = query_history.answered(site, queries_of[1], decision)
        assert found is not None and found.handle == handles[1] and asked == [handles[1]]

    four(story)


def test_a_closed_query_is_not_forgotten(four: Play) -> None:
    """It opened nothing: who approved it and lost its home may answer the next one."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        handle = bytes(range(16))
        world.alter(
            world.sites[1],
            QueryAnswer,
            lambda recipient, message: msgspec.structs.replace(message, refused=Refusal("mpc.near_roster", "No.")),
        )
        await world.run(world.query(), handle)
        assert world.state_of(handle).status == "closed"
        await site.account.caught_up()
        forget_served(site)
        assert forgotten_queries(site, "stays") == ()

    four(story)


def test_a_recipient_may_spend_its_share_of_a_budget_and_no_more(four: Play) -> None:
    """Where a site says so; what was closed counts for nothing, what the site has forgotten counts."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        site.recipient_percent = 70  # of 10^9
        await world.released()  # 3 * 10^8
        closed = bytes(range(16))
        world.sites[1].recipient_percent = 50
        answer, _ = await world.run(world.query(rho_nano=250_000_000), closed)
        assert isinstance(answer, ConsentDenied) and answer.facts["organisation"] == "hospital-2"
        assert answer.facts["reason"] == "gateway.recipient_share"
        assert "0.5" in answer.text() and "0.2" in answer.text() and "researcher" in answer.text()
        assert world.state_of(closed).status == "closed" and (await world.population()).spent == world.rho
        world.sites[1].recipient_percent = 100
        await world.released(world.query(rho_nano=250_000_000))
        for forget_it in (False, True):
            if forget_it:
                forget_served(site)
            answer, parts = await world.run(world.query(rho_nano=150_000_001), secrets.token_bytes(16))
            assert isinstance(answer, ConsentDenied)
            assert world.codes(parts)[0] == "gateway.recipient_share"
        await world.released(world.query(rho_nano=150_000_000))
        forget(world)
        _, parts = await world.run(world.query(rho_nano=150_000_000), secrets.token_bytes(16))
        assert world.codes(parts) == ["allowed"] * 4, "the same question is free"

    four(story)


def test_a_query_that_is_gone_on_with_keeps_its_share(four: Play) -> None:
    """Whatever the share is when its site starts again: by then it may be paid for."""

    async def story(world: Any) -> None:
        site = world.sites[0]
        release = await world.released()
        site.recipient_percent = 1
        request = QueryRequest(release.handle, release.query, release.salt)
        decision = Decision(True, "granted", "study", "", "researcher", "stays-hospital-1")
        query_history.enter(site, request, decision)
        forget_served(site)
        with pytest.raises(Refused, match="1 percent"):
            query_history.enter(site, request, decision)

    four(story)


def test_a_site_may_let_a_near_roster_be_labelled(four: Play) -> None:
    async def story(world: Any) -> None:
        first = await world.released()
        for site in world.sites:
            site.near = NearSites(rosters="label")
        world.sites = world.sites[:3]
        second = await world.released(over(world, *world.hospitals[:3]))
        assert [(near.query, near.phase, near.sums, near.sites) for near in second.phases[0].near] == [
            (first.handle, SUMS, 2, ("hospital-4",))
        ]
        words = second.disclosures()
        assert len(words) == 2 and all(first.handle.hex() in line and "hospital-4" in line for line in words)
        board = read_board(await world.bureau.account.caught_up(), second.handle)
        verify_release(second, board)
        silent = msgspec.structs.replace(
            second, phases=tuple(msgspec.structs.replace(one, near=()) for one in second.phases)
        )
        with pytest.raises(VerificationError):
            verify_release(silent, board)

    four(story)


def test_what_was_closed_gives_nobody_away(four: Play) -> None:
    async def story(world: Any) -> None:
        site = world["hospital-1"]

        async def closing(recipient: str, message: RoundKeys) -> RoundKeys:
            await site.submit(CloseQuery(HANDLE))
            return message

        heal = world.alter(site, RoundKeys, closing)
        await world.run(world.query(), HANDLE)
        await world.researcher.account.caught_up()
        assert world.state_of(HANDLE).status == "closed"
        await asyncio.gather(*(one.account.caught_up() for one in world.sites))
        assert all(earlier_queries(one, "stays") == () for one in world.sites)
        assert all(forgotten_queries(one, "stays") == () for one in world.sites)
        if heal is not None:
            heal()

    four(story)


# --- survivors ----------------------------------------------------------------------------------


def lose(world: Any, site: str, phase: int) -> None:
    """Let no masked vector of `site` leave in a phase."""
    seen: list[bytes] = []

    def kept(recipient: str, message: Masked) -> Masked | None:
        if message.session not in seen:
            seen.append(message.session)
        return None if seen.index(message.session) == phase - 1 else message

    world.alter(world[site], Masked, kept)


def test_a_site_lost_in_one_phase_is_labelled(four: Play) -> None:
    async def story(world: Any) -> None:
        lose(world, "hospital-2", SUMS)
        release = await world.released()
        assert release.lost == ("hospital-2",)
        (near,) = release.phases[1].near
        assert (near.query, near.phase, near.sums, near.sites) == (release.handle, GATE, 1, ("hospital-2",))
        assert release.phases[0].near == ()
        for language in ("en", "zh"):
            (line,) = release.disclosures(language)
            assert "hospital-2" in line
        verify_release(release, read_board(await world.bureau.account.caught_up(), release.handle))

    four(story)


def test_a_site_may_stop_instead_and_sends_no_share(four: Play) -> None:
    async def story(world: Any) -> None:
        for site in world.sites:
            site.near = NearSites(survivors="stop")
            site.last_patience = 6
        world.researcher.last_patience = 6
        shares: list[Any] = []
        for site in world.sites:
            world.alter(site, Unmasking, lambda recipient, message: shares.append(message) or message)
        lose(world, "hospital-2", SUMS)
        for one in (world.researcher, *world.sites):  # each of the three finds it by itself
            world.alter(one, Refusal, lambda recipient, message: message if recipient == "researcher" else None)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        stopped = [part for part in parts if getattr(part, "code", "") == "gateway.near_survivors"]
        assert len(stopped) == 3 and all(part.facts["sites"] == "hospital-2" for part in stopped)
        assert len(shares) == 4, "of the first phase alone"
        assert world.state_of(HANDLE).status == "spent"

    four(story)
