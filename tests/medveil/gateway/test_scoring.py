"""Encrypted scoring between gateways: which model, which records, how often."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import msgspec
import pytest

from medveil.gateway import scoring
from medveil.gateway.models import ModelShown
from medveil.gateway.scoring import Scored, ScoreRequest, flags_of
from medveil.gateway.steps import Passing
from medveil.gateway.tables import Tables
from mpc.scoring import PaillierSecret, ScoreAnswers, ScoreModel
from privacy.predicate import Compare
from privacy.uses import NOTHING_SAID, Declaration
from wire.canonical import encode
from wire.errors import ProtocolAbort, Refused

Play = Callable[[Callable[[Any], Any]], Any]
Build = Callable[..., Any]


async def register(world: Any, built: Any) -> ScoreModel:
    """Have a model reviewed and registered."""
    shown = ModelShown(*built)
    await world.register_model(shown)
    return shown.model


async def grant(world: Any, **changes: Any) -> None:
    """hospital-1 grants the bureau scores of cost and age."""
    made = {"fields": ("age", "cost"), "purposes": ("FRAUD",), "uses": ("score",)} | changes
    await world.grant("scores", "hospital-1", "bureau", **made)


class Reading:
    """A hospital's tables that remember what was read of them. most: records that it scores."""

    def __init__(self, tables: Tables, most: int = 6) -> None:
        self.read: list[str] = []
        self._tables = tables
        self._most = most

    def layout(self, dataset: str) -> Any:
        return self._tables.layout(dataset)

    def records(self, dataset: str, columns: tuple[str, ...], rows: Any, excluded: Any) -> Any:
        self.read.append(dataset)
        return self._tables.records(dataset, columns, rows, excluded)[: self._most]


class Asked:
    """One request: what the bureau and the hospital got, and which datasets were read for it."""

    def __init__(self, flags: Any, served: Any, read: list[str]) -> None:
        self.flags, self.served, self.read = flags, served, read

    @property
    def reason(self) -> str:
        """Why the bureau was refused."""
        assert isinstance(self.flags, Refused), self.flags
        assert self.flags.code == "gateway.score_refused"
        return str(self.flags.facts["reason"])


async def ask(
    world: Any,
    secret: PaillierSecret,
    model: ScoreModel,
    clock: Any = None,
    session: bytes | None = None,
    dataset: str = "stays-hospital-1",
    declared: Declaration = NOTHING_SAID,
) -> Asked:
    """Let the bureau ask hospital-1."""
    world.bureau.vault.put_document("secrets", "paillier-key", encode(secret))
    hospital = world["hospital-1"]
    tables = Reading(world.tables(hospital))
    request = ScoreRequest(session or secrets.token_bytes(16), model, dataset, "FRAUD", declared)
    flags, served = await asyncio.gather(
        scoring.ask_scores(world.bureau, hospital.name, request, Passing()),
        scoring.serve_scores(hospital, "bureau", request.session, tables, Passing(), clock or world.now),
        return_exceptions=True,
    )
    return Asked(flags, served, tables.read)


def row(number: int) -> str:
    """What hospital-1 calls a record."""
    return f"stays-hospital-1/{number}"


def test_flags_are_the_plain_ones_and_each_record_is_scored_once(
    play: Play, build: Build, paillier: PaillierSecret
) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)
        first = await ask(world, paillier, model)
        assert isinstance(first.served, Scored)
        record_of = dict(first.served.records)
        reached = {record_of[flag.handle] for flag in first.flags.flags if flag.reached}
        assert flags_of(world.bureau, first.flags.session) == first.flags
        table = world["hospital-1"].vault.read("stays-hospital-1").slice(0, 6).to_pylist()
        assert reached == {row(n) for n, one in enumerate(table, start=1) if 2 * one["cost"] - one["age"] >= 60}
        sent: list[Any] = []
        world.alter(world["hospital-1"], ScoreAnswers, lambda recipient, message: sent.append(message))
        again = await ask(world, paillier, model)
        assert again.reason == "scoring.already_scored"
        assert not sent
        assert world.ended("hospital-1") == ["released", "aborted"]

    play(story)


def test_two_requests_at_once_score_the_records_once(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)
        both = await asyncio.gather(ask(world, paillier, model), ask(world, paillier, model))
        assert sorted(isinstance(asked.served, Scored) for asked in both) == [False, True]
        (refused,) = (asked for asked in both if not isinstance(asked.served, Scored))
        assert refused.reason == "scoring.already_scored"
        assert sorted(world.ended("hospital-1")) == ["aborted", "released"]

    play(story)


def test_without_a_grant(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        asked = await ask(world, paillier, model)
        assert asked.reason == "privacy.deny_no_grant"
        assert not asked.served.allowed
        assert not asked.read, "no record was fetched"
        await grant(world, fields=("cost",))
        asked = await ask(world, paillier, model)
        assert asked.reason == "privacy.deny_fields"
        assert not asked.read
        assert world.ended("hospital-1") == ["denied", "denied"]

    play(story)


def test_models_that_nobody_reviewed(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        await grant(world)
        model, opening = build()
        asked = await ask(world, paillier, model)
        assert asked.reason == "scoring.not_registered"
        await register(world, (model, opening))
        others = (
            msgspec.structs.replace(model, limit=61),
            msgspec.structs.replace(model, ciphertexts=model.ciphertexts[::-1]),
            msgspec.structs.replace(model, model="another"),
            build(weights=(3, -1))[0],
        )
        for other in others:
            asked = await ask(world, paillier, other)
            assert asked.reason == "scoring.not_registered"
            assert not asked.read, "no record was fetched"
        assert world.ended("hospital-1") == ["aborted"] * 5
        assert isinstance((await ask(world, paillier, model)).served, Scored), "refusals used no record up"

    play(story)


def test_the_grants_rows_and_no_others(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world, predicate=Compare("age", "ge", 6))
        asked = await ask(world, paillier, model)
        assert isinstance(asked.served, Scored)
        table = world["hospital-1"].vault.read("stays-hospital-1").to_pylist()
        allowed = [row(n) for n, one in enumerate(table, start=1) if one["age"] >= 6][:6]
        assert allowed[0] != row(1)
        assert {record for _, record in asked.served.records} == set(allowed)

    play(story)


def test_a_column_without_numbers(play: Play, build: Build, paillier: PaillierSecret) -> None:
    """Not even an error may show a cell: the column is refused before it is read."""

    async def story(world: Any) -> None:
        model = await register(world, build(columns=("cost", "ward")))
        await grant(world, fields=("cost", "ward"))
        asked = await ask(world, paillier, model)
        assert asked.reason == "gateway.not_a_number"
        assert not asked.read
        assert isinstance(asked.served, Refused)
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_a_grant_that_ends_while_records_are_scored(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)
        times = chain([0], repeat(2 * 86_400_000))
        asked = await ask(world, paillier, model, clock=lambda: world.now() + next(times))
        assert asked.reason == "gateway.grant_gone"
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_what_was_scored_is_kept_before_the_answers_leave(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)
        hospital = world["hospital-1"]
        kept = []

        def look(recipient: str, message: ScoreAnswers) -> ScoreAnswers:
            kept.append((hospital.vault.documents("scoring"), len(hospital.audit.unfinished())))
            return message

        world.alter(hospital, ScoreAnswers, look)
        await ask(world, paillier, model)
        assert kept == [(("scored-records",), 1)]

    play(story)


def test_answers_that_the_hospital_changed(play: Play, build: Build, paillier: PaillierSecret) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)
        answers: list[ScoreAnswers] = []

        def another(recipient: str, message: ScoreAnswers) -> ScoreAnswers:
            answers.append(message)
            first = msgspec.structs.replace(message.answers[0], ciphertext=secrets.token_bytes(512))
            return msgspec.structs.replace(message, answers=(first, *message.answers[1:]))

        world.alter(world["hospital-1"], ScoreAnswers, another)
        asked = await ask(world, paillier, model)
        assert isinstance(asked.flags, ProtocolAbort)
        assert (asked.flags.code, asked.flags.parties) == ("scoring.bad_answer", ("hospital-1",))
        assert len(answers) == 1

    play(story)


def test_breakage_at_the_hospital_is_told_without_a_value(
    play: Play, build: Build, paillier: PaillierSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> None:
        model = await register(world, build())
        await grant(world)

        def broken(*_: Any) -> Any:
            raise ValueError("could not convert string to float: 'Zhang San'")

        monkeypatch.setattr(Reading, "records", broken)
        asked = await ask(world, paillier, model)
        assert asked.reason == "gateway.trouble"
        assert "Zhang" not in asked.flags.text()
        assert isinstance(asked.served, ValueError)
        assert world.ended("hospital-1") == ["aborted"]

    play(story)
