"""The routes of encrypted scoring: models proposed, shown and reviewed, and scores asked under them."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import models
from medveil.gateway import problems
from medveil.gateway.models import ModelPlan, ShownModel, own_model, shown_models
from medveil.gateway.scoring import flags_of, scored_in
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import WHOLE, Code, Flag, HandlePath, Name
from medveil.service.api.flow_requests import ProposeRequest, ReviewRequest, ScoreJobRequest
from medveil.service.api.grant_terms import Jurisdiction
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, Key, Workplace
from mpc.scoring import FEATURES, LARGEST_BOUND, LARGEST_SCALE, LARGEST_WEIGHT, Feature, declared_bounds
from privacy.grants.terms import HOME
from privacy.uses import Declaration
from wire.errors import Refused

Proposer = Annotated[Principal, Depends(May("models.propose"))]
Reviewer = Annotated[Principal, Depends(May("models.review"))]
Server = Annotated[Principal, Depends(May("scores.serve"))]
Asker = Annotated[Principal, Depends(May("scores.ask"))]

ReviewPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="`review` of the model that was shown.")]
Bound = Annotated[int, Field(ge=-LARGEST_BOUND, le=LARGEST_BOUND), WHOLE]
Weight = Annotated[int, Field(ge=-LARGEST_WEIGHT, le=LARGEST_WEIGHT), WHOLE]


class NewFeature(Sent):
    """One input of a model: clamped to low..high, multiplied by `scale` and rounded.

    missing: what counts for a missing value; by default the middle.
    """

    name: Name
    low: Bound
    high: Bound
    scale: Annotated[int, Field(ge=1, le=LARGEST_SCALE), WHOLE] = 1
    missing: Bound | None = None


class NewModel(Sent):
    """A model: flags a record whose weighted sum reaches `limit`. weights: secret, one a feature, within the range."""

    model: Name
    features: Annotated[list[NewFeature], Field(min_length=1, max_length=FEATURES)]
    weights: Annotated[list[Weight], Field(min_length=1, max_length=FEATURES)]
    weight_low: Weight
    weight_high: Weight
    limit: Annotated[int, Field(ge=-(2**53), le=2**53), WHOLE]
    regulator: Name


class ModelView(BaseModel):
    """A model that was reviewed and registered: the ledger holds its digest."""

    model: str
    owner: str
    reviewer: str
    digest: str
    height: int


class ModelList(BaseModel):
    """Every registered model, by name."""

    models: list[ModelView]


class FeatureView(BaseModel):
    """One input of a model."""

    name: str
    low: int
    high: int
    scale: int
    missing: int


class ShownView(BaseModel):
    """A model that was shown to this organisation, to be reviewed by one of its people.

    review: what its review is called. weights: until there is a reply; status: what the reply was.
    """

    review: str
    model: str
    owner: str
    features: list[FeatureView]
    weights: list[int] | None
    weight_low: int
    weight_high: int
    limit: int
    status: Literal["waiting", "signed", "refused"]


class ShownList(BaseModel):
    """Models that were shown, those with a reply too."""

    models: list[ShownView]


class Verdict(Sent):
    """approve: sign the model, if its check passes too; otherwise its owner is told no."""

    approve: Flag


class NewScores(Sent):
    """Whose records to score under which model. commercial: whether it serves somebody's sales; jurisdiction: where you
    work with the scores."""

    hospital: Name
    model: Name
    dataset: Name
    purpose: Code
    commercial: Flag = False
    jurisdiction: Jurisdiction = HOME


class FlagView(BaseModel):
    """Of one record, known by a random handle: whether it reaches the model's limit."""

    handle: str
    reached: bool


class ScoresView(BaseModel):
    """What a hospital answered."""

    session: str
    hospital: str
    model: str
    dataset: str
    flags: list[FlagView]


class ScoredRecord(BaseModel):
    """One record of this organisation that was scored."""

    handle: str
    record: str


class ScoredView(BaseModel):
    """Whose records the handles of a session stand for: this organisation alone knows."""

    session: str
    records: list[ScoredRecord]


def plan_of(body: NewModel) -> ModelPlan:
    """What a model is built from. Raises Refused where its declarations cannot be."""
    features = tuple(
        Feature(
            one.name,
            one.low,
            one.high,
            one.scale,
            (one.low + one.high) // 2 if one.missing is None else one.missing,
        )
        for one in body.features
    )
    declared_bounds(features, body.weight_low, body.weight_high, body.limit)
    if len(body.weights) != len(features) or not all(
        body.weight_low <= weight <= body.weight_high for weight in body.weights
    ):
        raise Refused("gateway.model_weights", model=body.model, low=body.weight_low, high=body.weight_high)
    return ModelPlan(body.model, features, tuple(body.weights), body.weight_low, body.weight_high, body.limit)


def _shown(one: ShownModel) -> ShownView:
    model = one.model
    return ShownView(
        review=one.review,
        model=model.model,
        owner=one.bureau,
        features=[
            FeatureView(
                name=feature.name,
                low=feature.low,
                high=feature.high,
                scale=feature.scale,
                missing=feature.missing,
            )
            for feature in model.features
        ],
        weights=None if one.opening is None else list(one.opening.weights),
        weight_low=model.weight_low,
        weight_high=model.weight_high,
        limit=model.limit,
        status="waiting" if one.reply is None else "signed" if one.signed else "refused",
    )


def score_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/models`` and ``/v1/scores``."""
    router = PathRouter(tags=["scores"])
    organisation = at.organisation

    @router.post("/v1/models", status_code=202, summary="Propose a model", responses=BEGINS)
    async def propose(
        request: Request, response: Response, who: Proposer, body: NewModel, idempotency_key: Key = None
    ) -> JobView:
        """Encrypt its weights, have it reviewed by the regulator, register it. The result: `/v1/models`."""
        at.check_others(body.regulator)
        asked = ProposeRequest(plan_of(body), body.regulator)
        return await at.begin("model.propose", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/models", summary="List the models")
    async def listed(_who: Proposer) -> ModelList:
        """Every model that was reviewed and registered."""
        state = organisation.account.state

        def read() -> ModelList:
            found = state.items(b"models/", models.ModelState)
            return ModelList(
                models=[
                    ModelView(
                        model=one.model,
                        owner=one.owner,
                        reviewer=one.reviewer,
                        digest=one.digest.hex(),
                        height=one.height,
                    )
                    for _, one in found
                ]
            )

        return await asyncio.to_thread(read)

    @router.get("/v1/models/shown", summary="List the models shown to you")
    async def shown(_who: Reviewer) -> ShownList:
        """What others want this organisation to review, with the weights: look at what they would find."""
        return ShownList(models=[_shown(one) for one in await asyncio.to_thread(shown_models, organisation)])

    @router.post("/v1/models/shown/{review}/review", status_code=202, summary="Review a model", responses=BEGINS)
    async def review(
        request: Request,
        response: Response,
        who: Reviewer,
        review: ReviewPath,
        body: Verdict,
        idempotency_key: Key = None,
    ) -> JobView:
        """Sign it, if its check passes too, or say no. The result: `/v1/models/shown`."""
        if not any(one.review == review for one in await asyncio.to_thread(shown_models, organisation)):
            raise Refused("gateway.no_model", model=review)
        asked = ReviewRequest(bytes.fromhex(review), body.approve)
        return await at.begin("model.review", who, asked, idempotency_key, response, request.state.language)

    @router.post("/v1/scores", status_code=202, summary="Ask for scores", responses=BEGINS)
    async def ask(
        request: Request, response: Response, who: Asker, body: NewScores, idempotency_key: Key = None
    ) -> JobView:
        """Have a hospital score its records under a model of yours. The result: `/v1/scores/{session}`."""
        at.check_others(body.hospital)
        await asyncio.to_thread(own_model, organisation, body.model)
        declared = Declaration(body.commercial, body.jurisdiction)
        asked = ScoreJobRequest(body.hospital, body.model, body.dataset, body.purpose, declared)
        return await at.begin("score.ask", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/scores/{session}", summary="Look at scores", responses=problems.documented(404))
    async def scores(_who: Asker, session: HandlePath) -> ScoresView:
        """Which records reach the limit, by handles that the hospital alone can tell apart."""
        try:
            found = await asyncio.to_thread(flags_of, organisation, bytes.fromhex(session))
        except Refused:
            raise Refused("scores.unknown", session=session) from None
        return ScoresView(
            session=session,
            hospital=found.hospital,
            model=found.model,
            dataset=found.dataset,
            flags=[FlagView(handle=flag.handle.hex(), reached=flag.reached) for flag in found.flags],
        )

    @router.get(
        "/v1/scores/{session}/records", summary="Look at what was scored here", responses=problems.documented(404)
    )
    async def records(_who: Server, session: HandlePath) -> ScoredView:
        """As the hospital: which own records were scored in a session, by the handles that the asker was given."""
        try:
            found = await asyncio.to_thread(scored_in, organisation, bytes.fromhex(session))
        except Refused:
            raise Refused("scores.unknown", session=session) from None
        return ScoredView(
            session=session,
            records=[ScoredRecord(handle=handle.hex(), record=record) for handle, record in found.records],
        )

    return router
