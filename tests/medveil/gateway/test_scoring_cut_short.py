"""Encrypted scoring whose bureau or hospital is killed at any step: each record scored and logged once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from medveil.gateway import scoring
from medveil.gateway.granting import revoke
from medveil.gateway.models import ModelShown
from medveil.gateway.organisation import Refusal
from medveil.gateway.scoring import ScoreBook, Scored, ScoreRequest
from medveil.gateway.steps import FlowPaused, Passing
from mpc.scoring import PaillierSecret, ScoreAnswers, ScoreModel
from privacy.predicate import Compare
from wire.canonical import encode
from wire.errors import Refused

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
Build = Callable[..., Any]
NOWHERE = 10_000


class One:
    """A hospital's tables with one record, another one for each number."""

    def __init__(self, tables: Any, number: int) -> None:
        self._tables = tables
        self._number = number

    def layout(self, dataset: str) -> Any:
        return self._tables.layout(dataset)

    def records(self, dataset: str, columns: Any, rows: Any, excluded: Any) -> Any:
        return self._tables.records(dataset, columns, rows, excluded)[self._number : self._number + 1]


def records(book: ScoreBook) -> int:
    """How many records have been scored."""
    return sum(len(use.records) for use in book.uses.uses)


async def ready(world: Any, build: Build, secret: PaillierSecret) -> ScoreModel:
    """A registered model, the bureau's key, a grant; the first use of a table, which makes its snapshot, is over."""
    world.tables(world["hospital-1"]).engine("stays-hospital-1", ())
    shown = ModelShown(*build())
    await world.register_model(shown)
    world.bureau.vault.put_document("secrets", "paillier-key", encode(secret))
    made: dict[str, Any] = {"fields": ("age", "cost"), "purposes": ("FRAUD",), "uses": ("score",)}
    await world.grant("scores", "hospital-1", "bureau", predicate=Compare("age", "ge", 0), **made)
    return shown.model


async def scored_with_a_cut(world: Any, model: ScoreModel, name: str, at: int, number: int) -> Cut:
    """One record scored; the flow at `name` is cut at its point `at`. Everything is checked."""
    hospital = world["hospital-1"]
    tables = One(world.tables(hospital), number)
    request = ScoreRequest(secrets.token_bytes(16), model, "stays-hospital-1", "FRAUD")
    trail, book = len(world.entries("hospital-1")), scoring._book(hospital)
    sent: list[Any] = []
    world.alter(hospital, ScoreAnswers, lambda recipient, message: sent.append(message) or message)
    cut = Cut(world[name], at)

    def asking(steps: Any) -> Any:
        return scoring.ask_scores(world.bureau, "hospital-1", request, steps)

    def serving(steps: Any) -> Any:
        return scoring.serve_scores(hospital, "bureau", request.session, tables, steps, world.now)

    try:
        asked = cut.run(asking) if name == "bureau" else asking(Passing())
        served = cut.run(serving) if name != "bureau" else serving(Passing())
        flags, scored = await asyncio.gather(asked, served)
    finally:
        cut.heal()
        del hospital.send
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert isinstance(scored, Scored), where
    assert [flag.handle for flag in flags.flags] == [handle for handle, _ in scored.records], where
    assert scoring.flags_of(world.bureau, request.session) == flags, where
    assert scoring.scored_in(hospital, request.session) == scored, where
    intent, outcome = world.entries("hospital-1")[trail:]
    assert (outcome.intent, outcome.outcome) == (intent.sequence, "released"), where
    assert all(one == scored.answers for one in sent), where  # a second set of masks would tell more
    after = scoring._book(hospital)
    assert after.pending == book.pending, where
    assert sum(len(use.records) for use in after.uses.uses) == 1 + sum(len(use.records) for use in book.uses.uses), (
        where
    )
    return cut


@pytest.mark.parametrize("name", ["bureau", "hospital-1"])
def test_records_are_scored_and_logged_once_whoever_is_killed(
    play: Play, build: Build, paillier: PaillierSecret, name: str
) -> None:
    async def story(world: Any) -> None:
        model = await ready(world, build, paillier)
        points = (await scored_with_a_cut(world, model, name, NOWHERE, 0)).cuts.passed
        assert len(points) >= 6
        if name != "bureau":
            assert "not kept scored" in points
        for at in range(1, len(points) + 1):
            await scored_with_a_cut(world, model, name, at, at)

    play(story)


def test_another_flow_scores_between_two_lives(play: Play, build: Build, paillier: PaillierSecret) -> None:
    """A flow is killed after its evaluation is in the book; another is run to its end; then the first goes on."""

    async def story(world: Any) -> None:
        model = await ready(world, build, paillier)
        hospital = world["hospital-1"]
        request = ScoreRequest(secrets.token_bytes(16), model, "stays-hospital-1", "FRAUD")
        whole = await scored_with_a_cut(world, model, "hospital-1", NOWHERE, 0)
        at = whole.cuts.passed.index("not kept scored") + 1
        cut = Cut(hospital, at)
        await world.bureau.send("hospital-1", request.session, request)
        lives = []

        async def living(steps: Any) -> Any:
            if lives:  # dead
                cut.heal()
                await scored_with_a_cut(world, model, "bureau", NOWHERE, 2)
                cut._channel.rewind()
                hospital.connect(cut._channel, hospital.account)
            lives.append(1)
            tables = One(world.tables(hospital), 1)
            return await scoring.serve_scores(hospital, "bureau", request.session, tables, steps, world.now)

        scored = await cut.run(living)
        assert len(lives) == 2 and isinstance(scored, Scored)
        hospital.connect(cut._real, hospital.account)
        book = scoring._book(hospital)
        assert sorted(book.uses.uses[0].records) == [f"stays-hospital-1/{number}" for number in (1, 2, 3)]
        assert book.pending == ()

    play(story)


@pytest.mark.parametrize(("point", "ended"), [("kept scored", "aborted"), ("kept leaving", "released")])
def test_a_grant_revoked_between_two_lives_stops_the_answers(
    play: Play, build: Build, paillier: PaillierSecret, point: str, ended: str
) -> None:
    """What was kept but had not left does not leave any more; the trail says "released" where it may have."""

    async def story(world: Any) -> None:
        model = await ready(world, build, paillier)
        hospital = world["hospital-1"]
        points = (await scored_with_a_cut(world, model, "hospital-1", NOWHERE, 0)).cuts.passed
        request = ScoreRequest(secrets.token_bytes(16), model, "stays-hospital-1", "FRAUD")
        cut = Cut(hospital, points.index(point) + 1)
        await world.bureau.send("hospital-1", request.session, request)
        lives = []

        async def living(steps: Any) -> Any:
            if lives:
                await revoke(hospital, "scores")
            lives.append(1)
            tables = One(world.tables(hospital), 1)
            return await scoring.serve_scores(hospital, "bureau", request.session, tables, steps, world.now)

        with pytest.raises(Refused) as refused:
            await cut.run(living)
        cut.heal()
        assert refused.value.code == "gateway.grant_gone"
        assert world.ended("hospital-1") == ["released", ended]
        _, told = await world.bureau.receive_answer(ScoreAnswers, request.session)
        assert isinstance(told, Refusal) and told.code == "gateway.grant_gone"

    play(story)


def test_a_paused_flow_leaves_its_use_open(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await ready(world, build, paillier)
        hospital = world["hospital-1"]

        class Stopping(Passing):
            async def once(self, step: str, kind: Any, work: Any) -> Any:
                if step == "leaving":
                    raise FlowPaused
                return await super().once(step, kind, work)

        request = ScoreRequest(secrets.token_bytes(16), model, "stays-hospital-1", "FRAUD")
        await world.bureau.send("hospital-1", request.session, request)
        with pytest.raises(FlowPaused):
            tables = One(world.tables(hospital), 0)
            await scoring.serve_scores(hospital, "bureau", request.session, tables, Stopping(), world.now)
        assert world.ended("hospital-1") == ["open"]

    play(story)
