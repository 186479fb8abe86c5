"""Score models on their way from the bureau to the ledger: built, shown, reviewed, registered.

    bureau    -> regulator   ModelShown      the model and its opening, sealed; a person looks at it later
    regulator -> bureau      ModelReview     its signature of the model's digest, or a refusal
    bureau    -> ledger      RegisterModel   digest and review

The bureau's Paillier key and its models stay in its vault. Flows may be cut short and taken up again: a model is
built once, and replied to once.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from ledger.contracts import models
from ledger.contracts.membership import MemberState, member_key
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.organisation import Organisation, Refusal, refusal, said
from medveil.gateway.steps import Steps
from medveil.gateway.waiting import answer_of
from mpc import scoring
from mpc.scoring import Feature, ModelOpening, PaillierSecret, ScoreModel, model_digest
from wire.canonical import Wire, decode, encode
from wire.domains import MODEL, MODEL_REVIEW, digest
from wire.errors import DecodeError, Refused, VerificationError
from wire.identifiers import Name
from wire.signing import Signature

MOST_SHOWN = 100
"""Models that one organisation may have waiting for a review here."""
LARGEST_SHOWN = 512 * 1024
"""Bytes of a model and its opening: several times what `scoring.FEATURES` features need. All of them are read to list
them."""

_KEY = "paillier-key"
_OWN = "model"
_SHOWN = "model-shown"
_ENDED = "ended"


class ModelShown(Wire, frozen=True, tag="medveil.model_shown"):
    """Bureau to regulator: a model and its opening. Secret."""

    model: ScoreModel
    opening: ModelOpening


class ModelReview(Wire, frozen=True, tag="medveil.model_review"):
    """Regulator to bureau: the signature of the model's digest."""

    digest: bytes
    signature: Signature


class ModelPlan(Wire, frozen=True, tag="medveil.model_plan"):
    """What a bureau builds a model from. weights: secret, one a feature, within low..high; the rest is public."""

    model: Name
    features: Annotated[tuple[Feature, ...], msgspec.Meta(max_length=scoring.FEATURES)]
    weights: Annotated[tuple[int, ...], msgspec.Meta(max_length=scoring.FEATURES)]
    weight_low: int
    weight_high: int
    limit: int

    def __repr__(self) -> str:
        return f"ModelPlan({self.model!r})"


class ShownModel(Wire, frozen=True, tag="medveil.shown_model"):
    """A model that was shown to this regulator, and its reply. The opening (secret) is dropped with the reply."""

    bureau: Name
    model: ScoreModel
    opening: ModelOpening | None
    reply: ModelReview | Refusal | None

    @property
    def signed(self) -> bool:
        """Whether this regulator signed it."""
        return isinstance(self.reply, ModelReview)

    @property
    def review(self) -> str:
        """What this review is called: 32 hex digits."""
        return review_session(self.model).hex()


class _Reply(Wire, frozen=True, tag="medveil.model_reply"):
    """A regulator's reply as it was received."""

    reply: ModelReview | Refusal


def review_session(model: ScoreModel) -> bytes:
    """The channel session of a model's review: another one for each model, whatever its name."""
    return digest(MODEL, b"review", model_digest(model))[:16]


# --- the bureau ---------------------------------------------------------------------------------


def key_of(bureau: Organisation) -> PaillierSecret:
    """The bureau's Paillier key. Raises Refused where it has none."""
    if _KEY not in bureau.vault.documents("secrets"):
        raise Refused("gateway.no_model_key", organisation=bureau.name)
    return decode(PaillierSecret, bureau.vault.document("secrets", _KEY))


async def made_key(bureau: Organisation) -> PaillierSecret:
    """The bureau's Paillier key, made now if there is none: seconds, in a thread. There is one for all its models."""
    async with bureau.scoring:
        if _KEY not in bureau.vault.documents("secrets"):
            bureau.vault.put_document("secrets", _KEY, encode(await asyncio.to_thread(scoring.generate_key)))
    return key_of(bureau)


async def propose_model(bureau: Organisation, regulator: str, plan: ModelPlan, steps: Steps) -> ScoreModel:
    """Bureau: build a model, have it reviewed by a person at the regulator, then register it; returns it.

    Waits for the review as long as it takes, up to `Organisation.last_patience`. Raises Refused: a plan that is not
    acceptable, a name that is taken, or the regulator's no, with its words.
    """

    async def building() -> ModelShown:
        _check_weights(plan)
        secret = await made_key(bureau)
        bounds = plan.weight_low, plan.weight_high, plan.limit
        model, opening = await asyncio.to_thread(
            scoring.build_model, secret, plan.model, plan.features, plan.weights, *bounds, bureau.rand
        )
        return ModelShown(model, opening)

    shown = await steps.once("model", ModelShown, building)
    await register_model(bureau, regulator, shown, steps)
    return shown.model


def _check_weights(plan: ModelPlan) -> None:
    fits = len(plan.weights) == len(plan.features)
    if not fits or not all(plan.weight_low <= weight <= plan.weight_high for weight in plan.weights):
        raise Refused("gateway.model_weights", model=plan.model, low=plan.weight_low, high=plan.weight_high)


async def register_model(bureau: Organisation, regulator: str, shown: ModelShown, steps: Steps) -> None:
    """Bureau: have a model that is built reviewed, then register it, and keep it. Raises Refused as `propose_model`."""
    model, session = shown.model, review_session(shown.model)
    name = model_digest(model)

    def stands(state: LedgerState) -> bool:
        found = state.get(models.model_key(model.model), models.ModelState)
        if found is not None and (found.owner, found.digest) != (bureau.name, name):
            raise Refused("models.exists", model=model.model)
        return found is not None

    if not await steps.kept("review"):
        stands(await bureau.account.caught_up())
        await bureau.send(regulator, session, shown)
        reply = await answer_of(bureau, ModelReview, session, regulator, steps, bureau.last_patience)

    async def reviewed() -> _Reply:
        return _Reply(reply)

    verdict = (await steps.once("review", _Reply, reviewed)).reply
    await bureau.forget(session, regulator)
    if isinstance(verdict, Refusal):
        raise Refused("gateway.model_refused", model=model.model, **verdict.told())
    bureau.vault.put_document(_OWN, model.model, encode(model))
    await bureau.ensure(stands, models.RegisterModel(model.model, name, regulator, verdict.signature))


def own_model(bureau: Organisation, model: str) -> ScoreModel:
    """A model of this bureau that was reviewed. Raises Refused where there is none."""
    if model not in bureau.vault.documents(_OWN):
        raise Refused("gateway.no_model", model=model[:64])
    return decode(ScoreModel, bureau.vault.document(_OWN, model))


def own_models(bureau: Organisation) -> tuple[ScoreModel, ...]:
    """The models of this bureau that were reviewed, by name."""
    return tuple(own_model(bureau, name) for name in bureau.vault.documents(_OWN))


# --- the regulator ------------------------------------------------------------------------------


async def keep_shown(regulator: Organisation, bureau: str, shown: ModelShown) -> None:
    """Regulator: keep a model that was shown, for one of its people to review. Again with the same it changes nothing.

    Raises Refused if the sender is no bureau, this organisation no regulator, the model larger than any, or too many
    are waiting.
    """
    state = await regulator.account.caught_up()
    sender = state.get(member_key(bureau), MemberState)
    if sender is None or "bureau" not in sender.roles or "regulator" not in regulator.roles:
        raise Refused("organisations.role", organisation=bureau, roles="bureau")
    if len(encode(shown)) > LARGEST_SHOWN:
        raise Refused("scoring.bad_features", limit=scoring.FEATURES)
    known = await asyncio.to_thread(shown_models, regulator)
    one = ShownModel(bureau, shown.model, shown.opening, None)
    if any(other.review == one.review for other in known):
        return
    if sum(other.bureau == bureau and other.reply is None for other in known) >= MOST_SHOWN:
        raise Refused("gateway.too_many_shown", organisation=bureau, limit=MOST_SHOWN)
    await asyncio.to_thread(_keep, regulator, one)


def shown_models(regulator: Organisation) -> tuple[ShownModel, ...]:
    """The models that were shown to this regulator, those with a reply too."""
    found = (regulator.vault.document(_SHOWN, name) for name in regulator.vault.documents(_SHOWN))
    return tuple(decode(ShownModel, one) for one in found)


async def review_model(regulator: Organisation, review: str, steps: Steps, approve: bool = True) -> ShownModel:
    """Regulator: check a model that was shown, sign it, or say why not; returns it with the reply.

    review: `ShownModel.review`. approve: False if a person said no. What does not pass the check is refused, whatever
    a person says. A model gets one reply: who comes later is given the first, and sends it again. Raises Refused: no
    such model, or a person's no came after the signature.
    """
    if not await steps.kept(_ENDED):
        shown = _shown(regulator, review)
        if shown.reply is None:
            reply = await _judged(regulator, shown, approve)
            shown = _shown(regulator, review)
            if shown.reply is None:  # else somebody else has replied meanwhile
                shown = ShownModel(shown.bureau, shown.model, None, reply)
                _keep(regulator, shown)
        if shown.reply is None or (shown.signed and not approve):
            raise Refused("gateway.model_reviewed", model=shown.model.model)
        await regulator.send(shown.bureau, review_session(shown.model), shown.reply)

    async def ended() -> ShownModel:
        return shown

    shown = await steps.once(_ENDED, ShownModel, ended)
    await regulator.forget(review_session(shown.model), shown.bureau)
    return shown


async def _judged(regulator: Organisation, shown: ShownModel, approve: bool) -> ModelReview | Refusal:
    """The reply to a model that has none yet."""
    if not approve:
        return refusal(regulator.name, Refused("gateway.model_not_approved", organisation=regulator.name))
    opening = shown.opening or ModelOpening((), ())
    try:
        found = await asyncio.to_thread(scoring.review, shown.model, opening)
    except (Refused, VerificationError, DecodeError) as error:
        return said(error)
    return ModelReview(found.digest, regulator.signer.sign(MODEL_REVIEW, found.digest))


def _shown(regulator: Organisation, review: str) -> ShownModel:
    if review not in regulator.vault.documents(_SHOWN):
        raise Refused("gateway.no_model", model=review[:64])
    return decode(ShownModel, regulator.vault.document(_SHOWN, review))


def _keep(regulator: Organisation, shown: ShownModel) -> None:
    regulator.vault.put_document(_SHOWN, shown.review, encode(shown))
