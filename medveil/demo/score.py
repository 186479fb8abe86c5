"""Step 8: the bureau's secret weights meet a hospital's secret records, under encryption."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from medveil.demo import models
from medveil.demo.desk import Registered, in_words
from medveil.demo.facts import ScoreFacts
from medveil.demo.grant import terms
from medveil.demo.models import WEIGHT_RANGE, plan_model, plan_reader
from medveil.demo.play import BUREAU, REGULATOR, Play, Site, now, rand
from medveil.gateway.models import ModelPlan
from medveil.gateway.scoring import ScoreFlags
from mpc.scoring import RECORDS, declared_bounds, integer_features
from wire.errors import Refused

PURPOSE = "FRAUD"
_SETTLES = 0.5
"""Seconds for a review whose answer has arrived to end."""


async def score(play: Play) -> ScoreFacts:
    """Review and register the model, score one hospital's records, compare with the plain computation."""
    started = time.perf_counter()
    site, bureau = _scored(play), play.desks[BUREAU]
    chosen = plan_model(play.layout, rand)
    plan = ModelPlan(chosen.name, chosen.features, chosen.weights, *WEIGHT_RANGE, chosen.limit)
    with play.narrator.progress("key, model, review", 2) as done:
        refusal = await _dishonest(play, chosen)
        done(1)
        model, _ = await asyncio.gather(bureau.propose_model(REGULATOR, plan), _reviews(play, plan.model))
        done(1)
    fields = tuple(sorted(feature.name for feature in plan.features))
    granted = terms(f"score-{site.name}", site.name, BUREAU, site.dataset, fields, PURPOSE, "score", now())
    await play.desks[site.name].issue(granted)
    with play.narrator.progress("scoring under encryption", 1) as done:
        flags = await bureau.ask_scores(site.name, plan.model, site.dataset, PURPOSE)
        done(1)
    scored = await play.desks[site.name].scored(flags.session)
    facts = _facts(site, plan, model, flags, scored, refusal, time.perf_counter() - started)
    _tell(play, facts, model)
    return facts


def _scored(play: Play) -> Site:
    """The hospital whose records are scored: the second, or the first after it that has any."""
    sites = list(play.sites.values())
    for site in sites[1:] + sites[:1]:
        if site.prepared.table.num_rows:
            return site
    raise Refused("demo.no_records", layout=play.layout.name)


def _reviews(play: Play, model: str) -> Awaitable[None]:
    """The regulator's person looks at the model that is shown."""
    return play.desks[REGULATOR].review(model)


async def _dishonest(play: Play, chosen: models.ModelPlan) -> str:
    """Weights that are places of a number system would spell a record in one score: the regulator must refuse."""
    bad, declared = plan_reader(chosen)
    reader = ModelPlan(bad.name, bad.features, bad.weights, *declared, bad.limit)
    reviewing = asyncio.ensure_future(_reviews(play, reader.model))
    try:
        await play.desks[BUREAU].propose_unchecked(REGULATOR, reader)
    except Refused as refused:
        named = ", ".join(str(weight) for weight in bad.weights)
        return f"A model with weights {named}, shown to the {REGULATOR}: {in_words(refused)}"
    finally:  # where the bureau's own gateway refuses, nothing is ever shown
        await asyncio.wait((reviewing,), timeout=_SETTLES)
        reviewing.cancel()
        await asyncio.gather(reviewing, return_exceptions=True)
    raise Refused("demo.cheat_worked", what="weights that spell the record")


def _facts(
    site: Site,
    plan: ModelPlan,
    model: Registered,
    flags: ScoreFlags,
    record_of: dict[bytes, str],
    refusal: str,
    seconds: float,
) -> ScoreFacts:
    flagged = {record_of[flag.handle] for flag in flags.flags if flag.reached}
    records = site.record_ids()[:RECORDS]
    cells = [site.prepared.table[feature.name].slice(0, RECORDS).to_pylist() for feature in plan.features]
    rows = integer_features(plan.features, list(zip(*cells, strict=True)))
    plain = {
        record
        for record, row in zip(records, rows, strict=True)
        if sum(w * x for w, x in zip(plan.weights, row, strict=True)) >= plan.limit
    }
    bounds = declared_bounds(plan.features, plan.weight_low, plan.weight_high, plan.limit, model.key_bits)
    return ScoreFacts(
        model=plan.model,
        hospital=site.name,
        records=len(records),
        features=[feature.name for feature in plan.features],
        limit=plan.limit,
        flagged=len(flagged),
        plain_flagged=len(plain),
        agree=flagged == plain,
        key_bits=model.key_bits,
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


def _tell(play: Play, facts: ScoreFacts, model: Registered) -> None:
    say = play.narrator.say
    say(f"Model {facts.model}: {len(facts.features)} features, limit {facts.limit};")
    digest = model.digest.hex()[:16]
    say(f"reviewed by the {facts.reviewed_by}, registered as {digest}…; {facts.key_bits}-bit Paillier.")
    same = "the same as the plain computation" if facts.agree else "NOT the same as the plain computation"
    say(f"{facts.flagged} of {facts.records} records reach the limit: {same} ({facts.plain_flagged}).")
    for line in facts.leaks:
        say(line)
    say(facts.refusal, style="yellow")
