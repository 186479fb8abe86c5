"""Encrypted scoring between gateways: the bureau's model meets a hospital's records.

    bureau    -> regulator   ModelShown      the model and its opening, sealed
    regulator -> bureau      ModelReview     its signature of the model's digest
    bureau    -> ledger      RegisterModel   digest and review
    bureau    -> hospital    ScoreRequest    the model and its purpose
    hospital                 reads the digest from the ledger, decides under its grant, audit intent
    hospital  -> bureau      ScoreAnswers    masked scores; what was scored is stored before they leave
    bureau                   decrypts: which answers reach the limit

The hospital gets no flags back (docs/protocols/encrypted-scoring.md says why). `mpc.scoring` holds the protocol,
this module carries its messages; `medveil.gateway.models` has the models' way from the bureau to the ledger. Both
flows here may be cut short and taken up again: records are scored once in a session, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ledger.contracts import models
from medveil.gateway.granting import decide_use, end_use, refusal_of, still_granted
from medveil.gateway.long_work import reading
from medveil.gateway.models import key_of
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.tables import Tables
from medveil.gateway.waiting import answer_of
from mpc import scoring
from mpc.scoring import ScoreAnswers, ScoreModel, UseBook, integer_features, model_digest
from privacy.decide import Decision, UseRequest
from privacy.grants.terms import Code
from privacy.local import bind
from privacy.uses import NOTHING_SAID, Declaration
from wire.canonical import Wire, decode, encode
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, Name

_KIND = "scoring"
_BOOK = "scored-records"
_SCORED = "scored"
_FLAGS = "flags"
_ENDED = "ended"


class ScoreRequest(Wire, frozen=True, tag="medveil.score_request"):
    """Bureau to hospital. declared: what the bureau says of the use."""

    session: Handle
    model: ScoreModel
    dataset: Name
    purpose: Code
    declared: Declaration = NOTHING_SAID


class Scored(Wire, frozen=True, tag="medveil.scored"):
    """A hospital's evaluation of one request. records: (handle, own record id), private."""

    answers: ScoreAnswers
    records: tuple[tuple[Handle, str], ...]

    def __repr__(self) -> str:
        return f"Scored({len(self.records)} records)"


class ScoreBook(Wire, frozen=True, tag="medveil.score_book"):
    """What a hospital has scored, and the evaluations that have not left for certain: written in one go. Private."""

    uses: UseBook = UseBook()
    pending: tuple[Scored, ...] = ()

    def of(self, session: bytes) -> Scored | None:
        """The evaluation of a session that is still here."""
        return next((scored for scored in self.pending if scored.answers.session == session), None)


class FlagOf(Wire, frozen=True, tag="medveil.flag_of"):
    """Whether the record behind a handle, which the hospital alone knows, reaches the limit."""

    handle: Handle
    reached: bool


class ScoreFlags(Wire, frozen=True, tag="medveil.score_flags"):
    """What the bureau learned in one session. Private."""

    session: Handle
    hospital: Name
    model: Name
    dataset: Name
    flags: tuple[FlagOf, ...]


class _Leaving(Wire, frozen=True, tag="medveil.scores_leaving"):
    """The answers are about to leave."""


class _Served(Wire, frozen=True, tag="medveil.scores_served"):
    """How the hospital's part ended."""

    outcome: Scored | Decision


class _Heard(Wire, frozen=True, tag="medveil.scores_heard"):
    """What the bureau was answered: flags, or why not."""

    answer: ScoreFlags | Refusal


# --- the hospital -------------------------------------------------------------------------------


async def serve_scores(
    hospital: Organisation,
    bureau: str,
    session: bytes,
    tables: Tables,
    steps: Steps,
    clock: Clock,
    progress: Callable[[int], None] = lambda done: None,
) -> Scored | Decision:
    """Hospital: take the request in `session`, decide, score the records that the grant covers, or say no.

    Records are read after the decision only. progress: called with 1 after each record. Returns what was scored, or
    the denial. Raises Refused or VerificationError after the bureau was told.
    """
    if not await steps.kept(_ENDED):
        _, request = await hospital.receive(ScoreRequest, session, (bureau,))
        try:
            outcome = await _serve(hospital, bureau, session, request, tables, steps, clock, progress)
        except (Exception, FlowCancelled):
            async with hospital.scoring:
                _let_go(hospital, session)  # it stays known what was scored, but nobody will send it any more
            raise

    async def ended() -> _Served:
        return _Served(outcome)

    served = (await steps.once(_ENDED, _Served, ended)).outcome
    async with hospital.scoring:
        _let_go(hospital, session)
    await hospital.forget(session, bureau)
    return served


async def _serve(
    hospital: Organisation,
    bureau: str,
    session: bytes,
    request: ScoreRequest,
    tables: Tables,
    steps: Steps,
    clock: Clock,
    progress: Callable[[int], None],
) -> Scored | Decision:
    model = request.model
    name = model_digest(model)
    use = UseRequest(
        holder=hospital.name,
        recipient=bureau,
        dataset=request.dataset,
        fields=tuple(sorted(feature.name for feature in model.features)),
        kind="score",
        purpose=request.purpose,
        commercial=request.declared.commercial,
        jurisdiction=request.declared.jurisdiction,
    )
    try:
        decision, intent = await decide_use(hospital, use, steps, clock(), name)
    except MedveilError as error:
        await hospital.send(bureau, session, refusal(hospital.name, error))
        raise
    if not decision.allowed:
        await hospital.send(bureau, session, refusal_of(decision))
        return decision

    def check_grant() -> None:
        if not still_granted(hospital, use, decision, clock()):
            raise ConsentDenied("gateway.grant_gone", grant=decision.grant, dataset=request.dataset)

    async def scoring_them() -> Scored:
        if request.session != session:
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(bureau,))
        state = await hospital.account.caught_up()
        registered = state.get(models.model_key(model.model), models.ModelState)
        if registered is None or registered.digest != name or registered.owner != bureau:
            raise Refused("scoring.not_registered", model=model.model)
        async with hospital.scoring:
            return await _scored(hospital, request, decision, tables, check_grant, progress)

    async def leaving() -> _Leaving:
        return _Leaving()

    try:
        scored = await steps.once("scored", Scored, scoring_them)
        check_grant()
        await steps.once("leaving", _Leaving, leaving)  # from here on it may have arrived
        check_grant()  # when it is taken up again, too
        await hospital.send(bureau, session, scored.answers)
    except (Exception, FlowCancelled) as error:
        await end_use(hospital, intent, "released" if await steps.kept("leaving") else "aborted")
        with contextlib.suppress(MedveilError):
            await hospital.send(bureau, session, refusal(hospital.name, error))
        raise
    await end_use(hospital, intent, "released")
    return scored


async def _scored(
    hospital: Organisation,
    request: ScoreRequest,
    decision: Decision,
    tables: Tables,
    check_grant: Callable[[], None],
    progress: Callable[[int], None],
) -> Scored:
    """The evaluation of a request, made once: what was scored is in the book before anybody has the answers."""
    model, session = request.model, request.session
    name = model_digest(model)
    book = _book(hospital)
    earlier = book.of(session)
    if earlier is not None:  # of a run that was cut short before it kept its step
        if earlier.answers.model != name:
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(decision.recipient,))
        return earlier
    kinds = tables.layout(request.dataset).kinds()
    columns = tuple(feature.name for feature in model.features)
    for column in columns:
        if kinds.get(column) != "number":
            raise Refused("gateway.not_a_number", dataset=request.dataset, column=column)
    rows_of = bind(kinds, decision.rows)
    found = await reading(tables.records, request.dataset, columns, rows_of, decision.excluded)
    rows = integer_features(model.features, [values for _, values in found])
    numbered = [(record, row) for (record, _), row in zip(found, rows, strict=True)]
    result = await asyncio.to_thread(
        scoring.evaluate, model, name, session, numbered, book.uses, hospital.rand, progress
    )
    check_grant()
    scored = Scored(result.answers, result.records)
    _keep_book(hospital, ScoreBook(result.uses, (*book.pending, scored)))
    return scored


def scored_in(hospital: Organisation, session: bytes) -> Scored:
    """What this hospital scored in a session: whose record a handle stands for. Private. Raises Refused if nothing."""
    return decode(Scored, hospital.vault.document(_SCORED, session.hex()))


def _let_go(hospital: Organisation, session: bytes) -> None:
    """Move the evaluation of a session that has ended out of the book, which keeps that its records were scored."""
    book = _book(hospital)
    scored = book.of(session)
    if scored is not None:
        hospital.vault.put_document(_SCORED, session.hex(), encode(scored))
        left = tuple(other for other in book.pending if other.answers.session != session)
        _keep_book(hospital, ScoreBook(book.uses, left))


def _book(hospital: Organisation) -> ScoreBook:
    if _BOOK not in hospital.vault.documents(_KIND):
        return ScoreBook()
    return decode(ScoreBook, hospital.vault.document(_KIND, _BOOK))


def _keep_book(hospital: Organisation, book: ScoreBook) -> None:
    hospital.vault.put_document(_KIND, _BOOK, encode(book))


# --- the bureau ---------------------------------------------------------------------------------


async def ask_scores(bureau: Organisation, hospital: str, request: ScoreRequest, steps: Steps) -> ScoreFlags:
    """Bureau: send a model, read which of the hospital's answers reach the limit; keep that.

    What it learned is kept in the vault as document "flags" under the session. Raises Refused: there is no key, or
    the hospital says no, with its words; ProtocolAbort for answers that cannot be.
    """
    session = request.session
    if not await steps.kept(_ENDED):
        secret = key_of(bureau)
        await bureau.send(hospital, session, request)
        reply = await answer_of(bureau, ScoreAnswers, session, hospital, steps)
        heard: ScoreFlags | Refusal
        if isinstance(reply, Refusal):
            heard = reply
        else:
            found = await asyncio.to_thread(scoring.read_flags, secret, request.model, session, hospital, reply)
            flags = tuple(FlagOf(flag.handle, flag.reached) for flag in found)
            heard = ScoreFlags(session, hospital, request.model.model, request.dataset, flags)
            bureau.vault.put_document(_FLAGS, session.hex(), encode(heard))

    async def ended() -> _Heard:
        return _Heard(heard)

    answer = (await steps.once(_ENDED, _Heard, ended)).answer
    await bureau.forget(session, hospital)
    if isinstance(answer, Refusal):
        raise Refused("gateway.score_refused", organisation=hospital, **answer.told())
    return answer


def flags_of(bureau: Organisation, session: bytes) -> ScoreFlags:
    """What this bureau learned in a session. Raises Refused where there is nothing."""
    return decode(ScoreFlags, bureau.vault.document(_FLAGS, session.hex()))
