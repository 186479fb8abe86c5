"""Score models: built once, reviewed by a person at the regulator, registered; with either side killed at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.contracts import models as board
from medveil.gateway import models
from medveil.gateway.models import (
    ModelPlan,
    ModelReview,
    ModelShown,
    keep_shown,
    own_model,
    own_models,
    propose_model,
    register_model,
    review_model,
    review_session,
    shown_models,
)
from medveil.gateway.organisation import Refusal
from medveil.gateway.steps import Passing
from mpc import scoring
from mpc.scoring import Feature, PaillierSecret, model_digest
from wire.canonical import encode
from wire.errors import Refused, VerificationError

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
Build = Callable[..., Any]
NOWHERE = 10_000
FEATURES = (Feature("cost", 0, 100, 1, 50), Feature("age", 0, 100, 1, 50))
PLAN = ModelPlan("over-use", FEATURES, (2, -1), -9, 9, 60)


async def both(world: Any, shown: ModelShown, approve: bool = True) -> list[Any]:
    """What proposing and reviewing a model come to."""
    proposing = register_model(world.bureau, "regulator", shown, Passing())
    return list(await asyncio.gather(proposing, world.review_next(approve), return_exceptions=True))


def registered(world: Any, name: str) -> Any:
    return world.bureau.account.state.get(board.model_key(name), board.ModelState)


def test_a_plan_becomes_a_registered_model_under_a_durable_key(
    play: Play, paillier: PaillierSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(scoring, "generate_key", lambda: made.append(1) or paillier)

    async def story(world: Any) -> None:
        plan = ModelPlan(
            "over-use", (Feature("cost", 0, 100, 1, 50), Feature("age", 0, 100, 1, 50)), (2, -1), -9, 9, 60
        )
        with pytest.raises(Refused) as refused:
            models.key_of(world.bureau)
        assert refused.value.code == "gateway.no_model_key"
        for name in ("over-use", "quiet"):
            named = msgspec.structs.replace(plan, model=name)
            model, shown = await asyncio.gather(
                propose_model(world.bureau, "regulator", named, Passing()), world.review_next()
            )
            assert shown.signed and shown.opening is None, "the regulator keeps no weights"
            assert registered(world, name).digest == model_digest(model)
            assert own_model(world.bureau, name) == model
        assert len(own_models(world.bureau)) == 2
        assert made == [1], "one key for all models"
        assert repr(plan) == "ModelPlan('over-use')"
        with pytest.raises(Refused) as refused:
            await propose_model(world.bureau, "regulator", msgspec.structs.replace(plan, weights=(10, 0)), Passing())
        assert refused.value.code == "gateway.model_weights"
        with pytest.raises(Refused) as refused:
            await propose_model(world.bureau, "regulator", plan, Passing())
        assert refused.value.code == "models.exists", "nobody was asked for a name that is taken"

    play(story)


def test_others_cannot_answer_for_the_regulator(play: Play, build: Build) -> None:
    async def story(world: Any) -> None:
        shown = ModelShown(*build())
        session = review_session(shown.model)
        await world.insurer.send("bureau", session, Refusal("a.b", "no"))
        forged = world.insurer.signer.sign(b"medveil/v1/model-review", bytes(32))
        await world.insurer.send("bureau", session, ModelReview(model_digest(shown.model), forged))
        assert (await both(world, shown))[0] is None
        assert registered(world, "over-use") is not None

    play(story)


def test_a_model_that_does_not_pass_is_refused_whatever_a_person_says(play: Play, build: Build) -> None:
    async def story(world: Any) -> None:
        model, opening = build()
        wrong = ModelShown(model, msgspec.structs.replace(opening, weights=(1, 1)))
        refused, judged = await both(world, wrong)
        assert isinstance(refused, Refused) and refused.code == "gateway.model_refused"
        assert refused.facts["reason"] == "scoring.other_ciphertext"
        assert not judged.signed
        assert registered(world, "over-use") is None
        with pytest.raises(VerificationError):
            scoring.review(model, wrong.opening)

    play(story)


def test_a_model_that_is_larger_than_any_is_not_kept(play: Play, build: Build) -> None:
    """All that were shown are read to list them: a hundred of 16 MiB would take the regulator's memory."""

    async def story(world: Any) -> None:
        model, opening = build()
        most = ModelShown(model, msgspec.structs.replace(opening, weights=(0,) * models.LARGEST_SHOWN))
        with pytest.raises(Refused):
            await models.keep_shown(world.regulator, "bureau", most)
        assert not models.shown_models(world.regulator)

    play(story)


def test_a_person_says_no_and_nobody_says_yes_after_that(play: Play, build: Build) -> None:
    async def story(world: Any) -> None:
        shown = ModelShown(*build())
        refused, judged = await both(world, shown, approve=False)
        assert refused.facts["reason"] == "gateway.model_not_approved"
        assert not judged.signed
        again = await review_model(world.regulator, judged.review, Passing())
        assert not again.signed, "one reply for one model"
        # The corrected model under the same name is another one.
        other = ModelShown(*build(limit=61))
        assert (await both(world, other))[0] is None
        with pytest.raises(Refused) as late:
            await review_model(world.regulator, review_session(other.model).hex(), Passing(), approve=False)
        assert late.value.code == "gateway.model_reviewed"
        for unknown in ("", "00" * 16, "../x"):
            with pytest.raises(Refused) as refused:
                await review_model(world.regulator, unknown, Passing())
            assert refused.value.code == "gateway.no_model"

    play(story)


def test_who_may_show_and_how_many(play: Play, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        model, opening = build()
        for sender, taker in (("insurer", world.regulator), ("bureau", world.insurer)):
            with pytest.raises(Refused) as refused:
                await keep_shown(taker, sender, ModelShown(model, opening))
            assert refused.value.code == "organisations.role"
            assert not shown_models(taker)
        monkeypatch.setattr(models, "MOST_SHOWN", 2)
        for limit in (60, 60, 61):
            await keep_shown(
                world.regulator, "bureau", ModelShown(msgspec.structs.replace(model, limit=limit), opening)
            )
        assert len(shown_models(world.regulator)) == 2
        with pytest.raises(Refused) as refused:
            await keep_shown(world.regulator, "bureau", ModelShown(msgspec.structs.replace(model, limit=62), opening))
        assert refused.value.code == "gateway.too_many_shown"

    play(story)


def test_a_bureau_that_registers_what_was_not_reviewed(play: Play, build: Build) -> None:
    async def story(world: Any) -> None:
        model, opening = build()
        other, _ = build(weights=(5, 5))
        session = review_session(model)
        await world.bureau.send("regulator", session, ModelShown(model, opening))
        await world.review_next()
        _, review = await world.bureau.receive(ModelReview, session)
        with pytest.raises(Refused) as refused:
            signature = review.signature
            await world.bureau.submit(board.RegisterModel(model.model, model_digest(other), "regulator", signature))
        assert refused.value.code == "models.review"

    play(story)


async def proposed_with_a_cut(world: Any, plan: ModelPlan, name: str, at: int) -> Cut:
    """A model whose proposal (at the bureau) or review (at the regulator) is cut at its point `at`."""
    named = msgspec.structs.replace(plan, model=f"{name}-{at}")
    written, known = len(world.bureau.account.receipts), len(shown_models(world.regulator))
    cut = Cut(world[name], at)
    try:

        def proposing(steps: Any) -> Any:
            return propose_model(world.bureau, "regulator", named, steps)

        if name == "bureau":
            model, judged = await asyncio.gather(cut.run(proposing), world.review_next())
        else:
            model, judged = await asyncio.gather(proposing(Passing()), world.review_next(run=cut.run))
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert judged.signed and judged.model == model, where
    assert registered(world, named.model).digest == model_digest(model), where
    assert len(world.bureau.account.receipts) == written + 1, where
    assert len(shown_models(world.regulator)) == known + 1, where
    assert own_model(world.bureau, named.model) == model, where
    return cut


@pytest.mark.parametrize("name", ["bureau", "regulator"])
def test_a_model_is_built_reviewed_and_registered_once_whoever_is_killed(
    play: Play, paillier: PaillierSecret, name: str
) -> None:
    async def story(world: Any) -> None:
        world.bureau.vault.put_document("secrets", "paillier-key", encode(paillier))
        points = len((await proposed_with_a_cut(world, PLAN, name, NOWHERE)).cuts.passed)
        assert points >= 6
        for at in range(1, points + 1):
            await proposed_with_a_cut(world, PLAN, name, at)

    play(story)
