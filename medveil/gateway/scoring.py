"""Encrypted scoring between gateways: the bureau's model meets a hospital's records.

    bureau    -> regulator   ModelShown      the model and its opening, sealed
    regulator -> bureau      ModelReview     its signature of the model's digest
    bureau    -> ledger      RegisterModel   digest and review
    bureau    -> hospital    ScoreRequest    the model and its purpose
    hospital                 reads the digest from the ledger, decides under its grant, audit intent
    hospital  -> bureau      ScoreAnswers    masked scores; what was scored is stored before they leave
    bureau                   decrypts: which answers reach the limit

The hospital gets no flags back (docs/protocols/encrypted-scoring.md says why). `mpc.scoring` holds the
protocol, this module carries its messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, SupportsFloat

from ledger.contracts import models
from medveil.gateway.granting import decide_use, still_granted
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from mpc import scoring
from mpc.scoring import (
    Evaluation,
    Flag,
    ModelOpening,
    PaillierSecret,
    ScoreAnswers,
    ScoreModel,
    UseBook,
    integer_features,
    model_digest,
)
from privacy.decide import Decision, UseRequest
from privacy.grants import Code
from privacy.local import RowFilter, bind
from wire.canonical import Wire, decode, encode
from wire.domains import MODEL, MODEL_REVIEW, digest
from wire.errors import MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Name
from wire.signing import Signature

Records = Callable[[str, tuple[str, ...], RowFilter], Sequence[tuple[str, Sequence[SupportsFloat | None]]]]
"""A hospital's way to its records: (dataset, columns, rows) -> (own record id, values in that order).

An id names one record over all of the hospital's datasets: a record is scored once under a model."""

_KEY = "paillier-key"
_USES = "scored-records"


class ModelShown(Wire, frozen=True, tag="medveil.model_shown"):
    """Bureau to regulator: a model and its opening. Secret."""

    model: ScoreModel
    opening: ModelOpening


class ModelReview(Wire, frozen=True, tag="medveil.model_review"):
    """Regulator to bureau: the signature of the model's digest."""

    digest: bytes
    signature: Signature


class ScoreRequest(Wire, frozen=True, tag="medveil.score_request"):
    """Bureau to hospital."""

    session: Handle
    model: ScoreModel
    dataset: Name
    purpose: Code


def review_session(model: str) -> bytes:
    """The channel session of a model's review."""
    return digest(MODEL, b"review", model.encode())[:16]


# --- bureau and regulator -----------------------------------------------------------------------


async def propose_model(bureau: Organisation, regulator: str, model: ScoreModel, opening: ModelOpening) -> None:
    """Bureau: have a model reviewed, then register it. Raises Refused with the regulator's words."""
    session = review_session(model.model)
    await bureau.send(regulator, session, ModelShown(model, opening))
    _, reply = await bureau.receive_answer(ModelReview, session, (regulator,))
    if isinstance(reply, Refusal):
        raise Refused("gateway.model_refused", model=model.model, reason=reply.code, words=reply.words)
    await bureau.submit(models.RegisterModel(model.model, model_digest(model), regulator, reply.signature))


async def review_model(regulator: Organisation, model: str) -> None:
    """Regulator: look at one shown model; sign it, or say why not."""
    session = review_session(model)
    bureau, shown = await regulator.receive(ModelShown, session)
    try:
        if shown.model.model != model:
            raise ProtocolAbort("gateway.misdirected_request", round="review", parties=(bureau,))
        review = scoring.review(shown.model, shown.opening)
    except Exception as error:
        await regulator.send(bureau, session, refusal(regulator.name, error))
        if not isinstance(error, MedveilError):
            raise
        return
    signature = regulator.signer.sign(MODEL_REVIEW, review.digest)
    await regulator.send(bureau, session, ModelReview(review.digest, signature))


def new_key(bureau: Organisation) -> PaillierSecret:
    """Bureau: a fresh Paillier key, kept in its vault."""
    secret = scoring.generate_key()
    bureau.vault.put_document("secrets", _KEY, encode(secret))
    return secret


# --- hospital -----------------------------------------------------------------------------------


async def serve_scores(
    hospital: Organisation,
    session: bytes,
    records_of: Records,
    kinds: Mapping[str, str],
    clock: Clock,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation | Decision:
    """Hospital: take one request, decide, score the records that the grant covers, or say no.

    records_of: called after the decision with the dataset, the model's columns and the grant's row
    filter. kinds: "number" or "category" by column. progress: called with 1 after each record. Returns
    the evaluation, or the denial. Raises Refused or VerificationError after the bureau was told.
    """
    bureau, request = await hospital.receive(ScoreRequest, session)
    model = request.model
    columns = tuple(feature.name for feature in model.features)
    use = UseRequest(
        holder=hospital.name,
        recipient=bureau,
        dataset=request.dataset,
        fields=tuple(sorted(columns)),
        kind="score",
        purpose=request.purpose,
    )
    name = model_digest(model)
    decision, intent = decide_use(hospital, use, clock(), name)
    if not decision.allowed:
        await hospital.send(bureau, session, Refusal(decision.code, decision.text()))
        return decision
    ended: Literal["released", "aborted"] = "aborted"
    try:
        if request.session != session:
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(bureau,))
        state = await hospital.account.caught_up()
        registered = state.get(models.model_key(model.model), models.ModelState)
        if registered is None or registered.digest != name or registered.owner != bureau:
            raise Refused("scoring.not_registered", model=model.model)
        for column in columns:
            if kinds.get(column) != "number":
                raise Refused("gateway.not_a_number", dataset=request.dataset, column=column)
        async with hospital.scoring:
            found = records_of(request.dataset, columns, bind(kinds, decision.rows))
            rows = integer_features(model.features, [values for _, values in found])
            numbered = [(record, row) for (record, _), row in zip(found, rows, strict=True)]
            result = await asyncio.to_thread(
                scoring.evaluate, model, registered.digest, session, numbered, _uses(hospital), hospital.rand, progress
            )
            if not still_granted(hospital, use, decision, clock()):
                raise Refused("gateway.grant_gone", grant=decision.grant, dataset=request.dataset)
            hospital.vault.put_document("scoring", _USES, encode(result.uses))
        ended = "released"  # from here on it may have arrived
        await hospital.send(bureau, session, result.answers)
        return result
    except Exception as error:
        with contextlib.suppress(MedveilError):
            await hospital.send(bureau, session, refusal(hospital.name, error))
        raise
    finally:
        hospital.audit.outcome(intent, ended)


def _uses(hospital: Organisation) -> UseBook:
    if _USES not in hospital.vault.documents("scoring"):
        return UseBook()
    return decode(UseBook, hospital.vault.document("scoring", _USES))


# --- bureau -------------------------------------------------------------------------------------


async def ask_scores(
    bureau: Organisation, hospital: str, request: ScoreRequest, secret: PaillierSecret
) -> tuple[tuple[Flag, ...], ScoreAnswers]:
    """Bureau: send the model, read which of the hospital's answers reach the limit. Raises Refused."""
    await bureau.send(hospital, request.session, request)
    _, reply = await bureau.receive_answer(ScoreAnswers, request.session, (hospital,))
    if isinstance(reply, Refusal):
        raise Refused("gateway.score_refused", organisation=hospital, reason=reply.code, words=reply.words)
    return scoring.read_flags(secret, request.model, request.session, hospital, reply), reply
