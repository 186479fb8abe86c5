"""Step 6: the bureau's secret weights meet a hospital's secret records, under encryption."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from medveil.demo.facts import ScoreFacts
from medveil.demo.grant import terms
from medveil.demo.models import WEIGHT_RANGE, ModelPlan, plan_model
from medveil.demo.play import BUREAU, REGULATOR, Play, Site, now, rand
from medveil.gateway import granting, scoring
from medveil.gateway.scoring import ScoreRequest
from mpc.scoring import (
    RECORDS,
    Evaluation,
    Flag,
    PaillierSecret,
    ScoreModel,
    build_model,
    declared_bounds,
    encrypt_weights,
    integer_features,
    model_digest,
)
from privacy.local import RowFilter
from wire.errors import Refused
from wire.identifiers import new_handle

PURPOSE = "FRAUD"


async def score(play: Play) -> tuple[ScoreFacts, ScoreModel]:
    """Review and register the model, score one hospital's records, compare with the plain computation."""
    started = time.perf_counter()
    site = _scored(play)
    bureau, hospital = play.consortium[BUREAU], site.organisation
    plan = plan_model(play.layout, bureau.rand)
    with play.narrator.progress("key, model, review", 3) as done:
        secret = await asyncio.to_thread(scoring.new_key, bureau)
        done(1)
        refusal = await _dishonest(play, secret, plan)
        done(1)
        model = await _register(play, secret, plan)
        done(1)
    dataset = site.dataset
    fields = tuple(sorted(feature.name for feature in plan.features))
    granted = terms(f"score-{hospital.name}", hospital.name, BUREAU, dataset, fields, PURPOSE, "score", now())
    await granting.issue(hospital, granted)
    await granting.accept(bureau, granted.grant)
    request = ScoreRequest(new_handle(rand), model, dataset, PURPOSE)
    most = min(RECORDS, site.prepared.table.num_rows)
    with play.narrator.progress("scoring under encryption", most) as done:
        async with asyncio.TaskGroup() as tasks:
            served = tasks.create_task(
                scoring.serve_scores(hospital, request.session, site.records, play.layout.kinds(), now, done)
            )
            asked = tasks.create_task(scoring.ask_scores(bureau, hospital.name, request, secret))
    flags, _ = asked.result()
    evaluation = served.result()
    if not isinstance(evaluation, Evaluation):
        raise Refused("demo.not_scored", hospital=hospital.name)
    records = site.records(dataset, tuple(feature.name for feature in plan.features), RowFilter(None))
    facts = _facts(hospital.name, plan, model, records, flags, evaluation, refusal, time.perf_counter() - started)
    _tell(play, facts, model)
    return facts, model


def _scored(play: Play) -> Site:
    """The hospital whose records are scored: the second, or the first after it that has any."""
    sites = list(play.sites.values())
    for site in sites[1:] + sites[:1]:
        if site.prepared.table.num_rows:
            return site
    raise Refused("demo.no_records", layout=play.layout.name)


async def _review(play: Play, model: str, proposing: Awaitable[None]) -> None:
    """Bureau and regulator at the same time; raises what the bureau was told."""
    regulator = play.consortium[REGULATOR]
    proposed, _ = await asyncio.gather(
        proposing,
        scoring.review_model(regulator, model),
        return_exceptions=True,
    )
    if isinstance(proposed, BaseException):
        raise proposed


async def _register(play: Play, secret: PaillierSecret, plan: ModelPlan) -> ScoreModel:
    model, opening = build_model(secret, plan.name, plan.features, plan.weights, *WEIGHT_RANGE, plan.limit, rand)
    await _review(play, plan.name, scoring.propose_model(play.consortium[BUREAU], REGULATOR, model, opening))
    return model


async def _dishonest(play: Play, secret: PaillierSecret, plan: ModelPlan) -> str:
    """Weights 1, 10^3, 10^6 would spell a record in one score: the regulator must refuse. Says how it did."""
    name = f"{plan.name}-reader"
    features = plan.features[:3]
    weights = (1, 10**3, 10**6)[-len(features) :]
    limit = sum(f.high * f.scale for f in features)
    model, shown = encrypt_weights(secret, name, features, weights, *WEIGHT_RANGE, limit, rand)
    try:
        await _review(play, name, scoring.propose_model(play.consortium[BUREAU], REGULATOR, model, shown))
    except Refused as refusal:
        named = ", ".join(str(weight) for weight in weights)
        return f"A model with weights {named}, shown to the {REGULATOR}: {refusal.facts['words']}"
    raise Refused("demo.cheat_worked", what="weights that spell the record")


def _facts(
    hospital: str,
    plan: ModelPlan,
    model: ScoreModel,
    records: Sequence[tuple[str, tuple[Any, ...]]],
    flags: Sequence[Flag],
    evaluation: Evaluation,
    refusal: str,
    seconds: float,
) -> ScoreFacts:
    record_of = dict(evaluation.records)
    flagged = {record_of[flag.handle] for flag in flags if flag.reached}
    rows = integer_features(plan.features, [values for _, values in records])
    plain = {
        record
        for (record, _), row in zip(records, rows, strict=True)
        if sum(w * x for w, x in zip(plan.weights, row, strict=True)) >= plan.limit
    }
    bounds = declared_bounds(model.features, model.weight_low, model.weight_high, model.limit, 8 * len(model.key))
    return ScoreFacts(
        model=plan.name,
        hospital=hospital,
        records=len(records),
        features=[feature.name for feature in plan.features],
        limit=plan.limit,
        flagged=len(flagged),
        plain_flagged=len(plain),
        agree=flagged == plain,
        key_bits=8 * len(model.key),
        reviewed_by=REGULATOR,
        leaks=[
            (
                f"The bureau learns which of {len(records)} answers reach the limit, and hardly more: at most "
                f"{bounds.leak_per_mille / 10:g} % of the time a value bounds how far a score is from it."
            ),
            "The hospital learns the model's features, range and limit; no weight, and no flag.",
            f"The {REGULATOR} learns the weights, which it was shown; nobody else does.",
        ],
        refusal=refusal,
        seconds=seconds,
    )


def _tell(play: Play, facts: ScoreFacts, model: ScoreModel) -> None:
    say = play.narrator.say
    say(f"Model {model.model}: {len(facts.features)} features, limit {facts.limit};")
    digest = model_digest(model).hex()[:16]
    say(f"reviewed by the {facts.reviewed_by}, registered as {digest}…; {facts.key_bits}-bit Paillier.")
    same = "the same as the plain computation" if facts.agree else "NOT the same as the plain computation"
    say(f"{facts.flagged} of {facts.records} records reach the limit: {same} ({facts.plain_flagged}).")
    for line in facts.leaks:
        say(line)
    say(facts.refusal, style="yellow")
