"""Extracts whose holder or recipient is killed at any step: one intent, one outcome, one file, and none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medveil.gateway import (
    extract_delivery,
    extract_leaving,
    extract_taking,
    extract_wanted,
    extracting,
    held_extracts,
    use_state,
)
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extract_wanted import ExtractRequest
from medveil.gateway.granting import revoke
from medveil.gateway.held_extracts import HELD
from medveil.gateway.made_extracts import FOLDER, MADE, made, made_of, made_path
from medveil.gateway.recalled_extracts import ExtractsHere
from medveil.gateway.recalling import keep_up
from medveil.gateway.steps import FlowCancelled, Passing
from privacy.copies.extract_file import ExtractFacts
from wire.errors import ConsentDenied, MedveilError, Refused, Unavailable

from .cutting import Cut, Cuts, KeptSteps, Killed
from .extracts_world import HOLDER, RECIPIENT, grant, load, offered, request, wish

Play = Callable[[Callable[[Any], Any]], Any]
NOWHERE = 10_000


def files(world: Any, name: str, folder: str) -> list[str]:
    """What lies in one of an organisation's folders of extracts."""
    place: Path = world[name].folder / FOLDER / folder
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


async def asked(world: Any) -> bytes:
    """A request that reached the holder."""
    one = await extract_wanted.ask_extract(world[RECIPIENT], request(), Passing(), world.now)
    sender, session, asking = await anext(world[HOLDER].openings(ExtractRequest))
    await extract_wanted.take_request(world[HOLDER], sender, session, asking, world.now)
    return one.ask


async def brought(world: Any, name: str, at: int) -> Cut:
    """One extract asked for, made and delivered; the flow at `name` is cut at its point `at`. Everything is checked."""
    holder, recipient = world[HOLDER], world[RECIPIENT]
    ask = await asked(world)
    trail = len(world.entries(HOLDER))
    cut = Cut(world[name], at)
    tables = world.tables(holder)

    async def sending(steps: Any) -> ExtractFacts:
        fault = cut.cuts.point if name == HOLDER else extracting.no_fault
        facts = await extracting.make_extract(holder, tables, wish(ask), steps, world.now, fault)
        await extract_delivery.deliver(holder, facts.cover.extract, steps, world.now, fault)
        return facts

    async def taking() -> None:
        _, session, _ = await anext(recipient.openings(ExtractOffer))
        fault = cut.cuts.point if name == RECIPIENT else extracting.no_fault

        async def flow(steps: Any) -> Any:
            return await extract_taking.take_extract(recipient, HOLDER, session, steps, world.now, fault)

        await (cut.run(flow) if name == RECIPIENT else flow(Passing()))

    try:
        facts, _ = await asyncio.gather(cut.run(sending) if name == HOLDER else sending(Passing()), taking())
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    extract = facts.cover.extract
    intent, outcome = world.entries(HOLDER)[trail:]
    assert (intent.nonce, intent.sequence) == (extract, facts.audit), where
    assert (outcome.intent, outcome.outcome) == (intent.sequence, "released"), where
    one = made_of(holder, extract)
    assert (one.state, one.facts) == ("delivered", facts), where
    assert files(world, HOLDER, MADE) == [], where
    assert files(world, RECIPIENT, HELD).count(f"{extract.hex()}.extract") == 1, where
    assert all(name.endswith(".extract") and name[0] != "." for name in files(world, RECIPIENT, HELD)), where
    assert [one.extract for one in held_extracts.held(recipient)].count(extract) == 1, where
    found, rows = held_extracts.open_held(recipient, extract, world.now)
    assert found == facts and rows.num_rows == facts.rows, where
    assert extract_wanted.wanted_of(holder, ask).state == "delivered", where
    assert extract_wanted.asked_of(recipient, ask).extract == extract, where
    return cut


@pytest.mark.parametrize("name", [HOLDER, RECIPIENT])
def test_one_file_and_one_entry_whoever_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extract_delivery, "PIECE", 1500)
    monkeypatch.setattr(extract_delivery, "WINDOW", 3000)  # so that there are several windows of several pieces

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        world.tables(world[HOLDER]).rows("visits", ())  # the first use of a table makes its snapshot
        points = (await brought(world, name, NOWHERE)).cuts.passed
        assert len(points) > (30 if name == HOLDER else 20), points
        for at in range(1, len(points) + 1):
            await brought(world, name, at)

    play(story)


@pytest.mark.parametrize("step", ["anchor", "offer", "window-1"])
def test_a_grant_revoked_on_the_way_keeps_the_rest_at_home(
    play: Play, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The end of the file, with its key, comes last: what came before it is noise."""
    monkeypatch.setattr(extract_delivery, "PIECE", 700)
    monkeypatch.setattr(extract_delivery, "WINDOW", 700)

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, recipient = world[HOLDER], world[RECIPIENT]

        class Revoking(Passing):
            async def boundary(self) -> None:  # the extract is staged and waits for the ledger
                if step == "anchor":
                    await self.revoked()

            async def once(self, name: str, kind: Any, work: Any) -> Any:
                if name == step:
                    await self.revoked()
                return await super().once(name, kind, work)

            async def revoked(self) -> None:
                if not use_state.anchored(holder, ["copies"])[0].revoked:
                    await revoke(holder, "copies")

        async def sending() -> None:
            steps = Revoking()
            facts = await extracting.make_extract(holder, world.tables(holder), wish(), steps, world.now)
            await extract_delivery.deliver(holder, facts.cover.extract, steps, world.now)

        async def taking() -> Any:
            session, _ = await offered(world)
            return await extract_taking.take_extract(recipient, HOLDER, session, Passing(), world.now)

        reading = asyncio.create_task(taking())
        with pytest.raises(ConsentDenied) as denied:
            await sending()
        if step == "anchor":
            assert denied.value.code == "privacy.deny_revocation" and world.ended(HOLDER) == ["aborted"]
            assert made(holder) == ()
        else:
            assert denied.value.code == "gateway.grant_gone" and world.ended(HOLDER) == ["released"]
            assert [one.state for one in made(holder)] == ["withdrawn"]
        if step == "window-1":
            with pytest.raises(Refused) as refused:
                await reading
            assert refused.value.code == "gateway.extract_refused"
        reading.cancel()  # else it waits for an offer
        assert files(world, HOLDER, MADE) == [] and files(world, RECIPIENT, HELD) == []
        assert held_extracts.ever_held(recipient) == ()

    play(story)


@pytest.mark.parametrize("where", ["staged", "released"])
def test_a_cancelled_extract_does_not_leave(play: Play, where: str) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        ask = await asked(world)

        class Cancelled(Passing):
            async def boundary(self) -> None:
                raise FlowCancelled

        if where == "staged":
            with pytest.raises(FlowCancelled):
                await extracting.make_extract(holder, world.tables(holder), wish(ask), Cancelled(), world.now)
            assert world.ended(HOLDER) == ["aborted"] and made(holder) == ()
            assert extract_wanted.wanted_of(holder, ask).state == "waiting"
        else:
            facts = await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now)
            with pytest.raises(FlowCancelled):
                await extract_delivery.deliver(holder, facts.cover.extract, Cancelled(), world.now)
            assert made_of(holder, facts.cover.extract).state == "released"  # it may be delivered, or withdrawn
            extract_leaving.withdraw(holder, facts.cover.extract, "gateway.extract_declined", world.now)
            assert extract_wanted.wanted_of(holder, ask).state == "waiting"
            with pytest.raises(MedveilError) as gone:
                await extract_delivery.deliver(holder, facts.cover.extract, Passing(), world.now)
            assert gone.value.code == "gateway.extract_withdrawn"
        assert files(world, HOLDER, MADE) == [] and not list(world[RECIPIENT].folder.glob("extracts/*/*"))

    play(story)


class Stopped(Passing):
    """A process that is killed, or a job that is cancelled, while the extract waits for the ledger."""

    def __init__(self, by: type[BaseException]) -> None:
        super().__init__()
        self.by = by

    async def boundary(self) -> None:
        raise self.by


async def killed_at_anchor(world: Any) -> tuple[bytes, bytes]:
    """A request, and the extract that was being made for it: staged, its intent open, its job killed."""
    holder, ask = world[HOLDER], await asked(world)
    with pytest.raises(Killed):
        await extracting.make_extract(holder, world.tables(holder), wish(ask), Stopped(Killed), world.now)
    (one,) = made(holder)
    assert one.state == "staged" and world.ended(HOLDER) == ["open"]
    assert extract_wanted.wanted_of(holder, ask).state == "making"
    return ask, one.extract


def test_a_job_that_is_cancelled_before_it_goes_on_closes_what_it_began(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, ask = world[HOLDER], await asked(world)
        cuts = Cuts()

        class Job(KeptSteps):
            async def boundary(self) -> None:
                raise Killed

            async def once(self, step: str, kind: Any, work: Any) -> Any:
                if self.ran and step not in self.records and self.cancelled:
                    raise FlowCancelled  # as a journal does before a step that was not kept
                return await super().once(step, kind, work)

        job = Job(cuts)
        job.cancelled = False  # type: ignore[attr-defined]
        tables = world.tables(holder)
        with pytest.raises(Killed):
            await extracting.make_extract(holder, tables, wish(ask), job, world.now)
        assert world.ended(HOLDER) == ["open"]
        job.cancelled = True  # type: ignore[attr-defined]
        with pytest.raises(FlowCancelled):
            await extracting.make_extract(holder, tables, wish(ask), job, world.now)
        assert world.ended(HOLDER) == ["aborted"] and made(holder) == ()
        assert extract_wanted.wanted_of(holder, ask).state == "waiting"

    play(story)


def test_what_nobody_goes_on_with_is_closed_by_the_rounds(play: Play) -> None:
    """As of a job that a restore has ended, or whose request can be read no more."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        ask, _ = await killed_at_anchor(world)
        await keep_up(holder, ExtractsHere(holder, world.now, lambda: True), world.now)
        assert world.ended(HOLDER) == ["open"], "a job is to be taken up again"
        await keep_up(holder, ExtractsHere(holder, world.now), world.now)
        assert world.ended(HOLDER) == ["aborted"] and made(holder) == ()
        assert extract_wanted.wanted_of(holder, ask).state == "waiting"
        assert extracting.tidy(holder) == 1 and files(world, HOLDER, MADE) == []

    play(story)


def test_what_is_being_made_is_closed_by_nobody(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, ask = world[HOLDER], await asked(world)

        def fault(step: str) -> None:
            if step in ("staged", "anchored"):
                assert extracting.close_unfinished(holder, world.now, lambda: False) == 0

        facts = await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now, fault)
        assert world.ended(HOLDER) == ["released"] and made_of(holder, facts.cover.extract).state == "released"

    play(story)


def test_another_job_takes_what_was_killed_and_the_first_finds_it_taken(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, tables, ask = world[HOLDER], world.tables(world[HOLDER]), await asked(world)
        job = KeptSteps(Cuts())
        job.boundary = Stopped(Killed).boundary  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await extracting.make_extract(holder, tables, wish(ask), job, world.now)
        await extracting.make_extract(holder, tables, wish(ask), Passing(), world.now)
        del job.boundary  # type: ignore[method-assign]
        with pytest.raises(Refused) as taken:
            await extracting.make_extract(holder, tables, wish(ask), job, world.now)
        assert taken.value.code == "gateway.extract_answered"
        assert sorted(world.ended(HOLDER)) == ["aborted", "released"]
        (one,) = made(holder)
        assert extract_wanted.wanted_of(holder, ask).extract == one.extract

    play(story)


def test_a_release_that_could_not_be_noted_is_noted_by_the_rounds(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stands and the disk was full: it is released, whatever its job came to."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, ask = world[HOLDER], await asked(world)
        put = holder.vault.put_document

        def full(kind: str, name: str, content: bytes) -> None:
            if list((holder.folder / FOLDER / MADE).glob("[!.]*")):
                raise Unavailable("privacy.store_failed", path="vault", reason="no room", retry_after=1)
            put(kind, name, content)

        with monkeypatch.context() as disk:
            disk.setattr(holder.vault, "put_document", full)
            with pytest.raises(Unavailable):
                await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now)
        (one,) = made(holder)
        assert one.state == "staged" and extract_wanted.wanted_of(holder, ask).state == "making"
        with pytest.raises(Refused) as refused:  # nor is it made a second time meanwhile
            await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now)
        assert refused.value.code == "gateway.extract_answered"
        await keep_up(holder, ExtractsHere(holder, world.now), world.now)
        assert made_of(holder, one.extract).state == "released" and world.ended(HOLDER) == ["released"]
        assert extract_wanted.wanted_of(holder, ask).state == "released"

    play(story)


def test_a_file_that_was_taken_back_by_a_killed_process_goes(play: Play) -> None:
    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder = world[HOLDER]
        facts = await extracting.make_extract(holder, world.tables(holder), wish(), Passing(), world.now)
        path = made_path(holder, facts.cover.extract)
        whole = path.read_bytes()
        extract_leaving.withdraw(holder, facts.cover.extract, "gateway.extract_declined", world.now)
        path.write_bytes(whole)  # it was killed between the note and the file
        extracting.tidy(holder)
        assert not path.exists()

    play(story)


@pytest.mark.parametrize("said", [True, False])
def test_a_file_that_was_damaged_before_it_was_noted_keeps_nothing_waiting(
    play: Play, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when it stood, and the disk has lost its end: nobody can open it. said: the trail has its release."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        holder, ask = world[HOLDER], await asked(world)

        def killed(step: str) -> None:
            if step == "linked":
                raise Killed

        outcome = holder.audit.outcome

        def noting(*which: Any) -> Any:
            if not said:
                raise Killed
            return outcome(*which)

        with monkeypatch.context() as trail, pytest.raises(Killed):
            trail.setattr(holder.audit, "outcome", noting)
            await extracting.make_extract(holder, world.tables(holder), wish(ask), Passing(), world.now, killed)
        (one,) = made(holder)
        path = made_path(holder, one.extract)
        path.write_bytes(path.read_bytes()[:-100])
        await keep_up(holder, ExtractsHere(holder, world.now), world.now)
        assert not path.exists() and world.ended(HOLDER) == ["released" if said else "aborted"]
        assert [each.state for each in made(holder)] == (["recalled"] if said else [])
        assert extract_wanted.wanted_of(holder, ask).state == "waiting"

    play(story)
