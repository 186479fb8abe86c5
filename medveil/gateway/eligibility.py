"""Eligibility: an insured person's bill is within a limit, proven to an insurer under a grant.

    hospital -> ledger     RegisterBill     commitment to the amount, under a random handle
    hospital -> person     BillSlip         bill, opening and the hospital's signature: into the wallet
    insurer  -> hospital   ProofRequest     limit, nonce, purpose, grant; what the insurer says of the use
    hospital               decides under the grant, writes its audit intent
    person   -> insurer    Presentation     the proof, made from the wallet, carried by the hospital's gateway
    insurer                verifies against the bill that *it* reads from the ledger

A bill that an erasure has restricted, or whose wallet is gone, proves nothing, also where the proof was made and has
not left. A person may be billed after an erasure: that bill goes into another wallet.

A nonce is good for one request at the insurer and for one answer at the hospital; both remember. A hospital answers
one organisation about a few limits of a bill (`medveil.gateway.limits_asked`). Every flow here may be cut short and
taken up again: a bill is committed to once, a proof made once and kept before it leaves.

The hospital's gateway hosts the wallet here, so it carries the request to the person and the answer
back. It learns nothing new: it wrote the bill.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from ledger.contracts import bills
from medveil.gateway.granting import decide_use, end_use, refusal_of, still_granted
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.limits_asked import count_limit
from medveil.gateway.organisation import Clock, Organisation, Refusal, refusal
from medveil.gateway.steps import FlowCancelled, Steps
from medveil.gateway.waiting import answer_of
from medveil.gateway.wallets import BillSlip, HeldBill, Wallets
from privacy.decide import Decision, UseRequest
from privacy.uses import NOBODY, NOTHING_SAID, Declaration
from wire.canonical import Wire, decode, encode
from wire.domains import BILL, PRESENTATION, digest
from wire.errors import ConsentDenied, MedveilError, ProtocolAbort, Refused
from wire.identifiers import Handle, new_handle
from wire.money import Amount
from zkp import bill_limit
from zkp.bill_limit import Bill, LimitRequest, Presentation

DATASET = "bills"
FIELD = "amount"

_PRESENTATION = "presentation"
_ENDED = "ended"


class ProofRequest(Wire, frozen=True, tag="medveil.proof_request"):
    """Insurer to hospital. declared: what the insurer says of the use; the proof is about `limit` alone."""

    limit: LimitRequest
    declared: Declaration = NOTHING_SAID


class _Mark(Wire, frozen=True, tag="medveil.used_nonce"):
    """Whose use of a nonce it is: drawn by the flow, kept under the nonce."""

    flow: Handle


class _Leaving(Wire, frozen=True, tag="medveil.proof_leaving"):
    """The proof is about to leave."""


class _Answered(Wire, frozen=True, tag="medveil.limit_answered"):
    """How the hospital's part ended."""

    decision: Decision


class _Heard(Wire, frozen=True, tag="medveil.limit_heard"):
    """What the insurer was answered: a presentation that holds, or why not."""

    answer: Presentation | Refusal


def session_of(nonce: bytes) -> bytes:
    """The channel session of one request."""
    return digest(PRESENTATION, nonce)[:16]


# --- the bill -----------------------------------------------------------------------------------


async def issue_bill(hospital: Organisation, wallets: Wallets, person: str, amount: Amount, steps: Steps) -> Bill:
    """Hospital: commit to a person's bill (amount is secret), hand the slip to the person, register it on the ledger.

    person: as `Wallets.of` takes it. Raises Refused (no hospital, no identifier), ValueError for an amount beyond 2^40.
    """

    async def committing() -> BillSlip:
        bill, opening = bill_limit.commit_bill(new_handle(hospital.rand), amount, hospital.rand)
        return BillSlip(bill, opening, hospital.name, hospital.signer.sign(BILL, encode(bill)))

    await asyncio.to_thread(wallets.of, person)  # before anything is drawn: what names nobody has none
    slip = await steps.once("slip", BillSlip, committing)
    bill = slip.bill
    signing = next(key for key in hospital.keys.envelopes.keys if key.key_id() == slip.signature.key_id)
    await asyncio.to_thread(wallets.keep, person, slip, signing)
    await asyncio.to_thread(wallets.note, HeldBill(person, bill))

    def stands(state: LedgerState) -> bool:
        found = state.get(bills.bill_key(bill.handle), bills.BillState)
        return found is not None and (found.hospital, found.commitment) == (hospital.name, bill.commitment)

    await hospital.ensure(stands, bills.RegisterBill(bill.handle, bill.commitment, bill.currency))
    return bill


def _registered(state: LedgerState, handle: bytes) -> bills.BillState:
    found = state.get(bills.bill_key(handle), bills.BillState)
    if found is None:
        raise Refused("gateway.no_such_bill", handle=handle.hex())
    return found


def _person(hospital: Organisation, wallets: Wallets, handle: bytes) -> bytes:
    """Keyed id of whose bill it is, for the decision and the trail; `NOBODY` of one that proves nothing."""
    try:
        return hospital.vault.person_id(wallets.bill(handle).person)
    except Refused:
        return NOBODY


def registered_bill(organisation: Organisation, handle: bytes) -> Bill:
    """The bill under `handle` as this organisation replayed the ledger. Raises Refused."""
    found = _registered(organisation.account.state, handle)
    return Bill(found.handle, found.commitment, found.currency)


async def _use_up(organisation: Organisation, what: Literal["asked", "answered"], nonce: bytes, steps: Steps) -> None:
    """Remember a nonce, on disk when this returns. Raises Refused if another flow used it before."""

    async def drawing() -> _Mark:
        return _Mark(organisation.rand(16))

    kind = f"nonce-{what}"
    mark = encode(await steps.once("mark", _Mark, drawing))
    try:
        if organisation.vault.document(kind, nonce.hex()) == mark:
            return
    except Refused:
        organisation.vault.put_document(kind, nonce.hex(), mark)
    else:
        raise Refused("gateway.used_nonce", organisation=organisation.name)


# --- the hospital -------------------------------------------------------------------------------


async def answer(
    hospital: Organisation, insurer: str, session: bytes, wallets: Wallets, steps: Steps, clock: Clock
) -> Decision:
    """Hospital's gateway: take the request in `session`, decide, let the person's wallet answer, write the outcome.

    Returns the decision; where it allowed and no proof was sent all the same (over the limit, no such bill), the
    insurer was told why, and the outcome says "aborted". Raises Unavailable while nobody asks, ProtocolAbort for a
    message that is no request.
    """
    if not await steps.kept(_ENDED):
        _, asked = await hospital.receive(ProofRequest, session, (insurer,))
        decision = await _answer(hospital, insurer, session, asked, wallets, steps, clock)

    async def ended() -> _Answered:
        return _Answered(decision)

    answered = await steps.once(_ENDED, _Answered, ended)
    await hospital.forget(session, insurer)
    return answered.decision


async def _answer(
    hospital: Organisation,
    insurer: str,
    session: bytes,
    asked: ProofRequest,
    wallets: Wallets,
    steps: Steps,
    clock: Clock,
) -> Decision:
    request = asked.limit
    try:
        use = UseRequest(
            holder=hospital.name,
            recipient=insurer,
            dataset=DATASET,
            fields=(FIELD,),
            kind="proof",
            purpose=request.purpose,
            commercial=asked.declared.commercial,
            jurisdiction=asked.declared.jurisdiction,
            person=await asyncio.to_thread(_person, hospital, wallets, request.handle),
        )
        decision, intent = await decide_use(hospital, use, steps, clock(), digest(PRESENTATION, encode(request)))
    except MedveilError as error:
        await hospital.send(insurer, session, refusal(hospital.name, error))
        raise
    if not decision.allowed:
        await hospital.send(insurer, session, refusal_of(decision))
        return decision

    async def check_still() -> None:
        """The grant stands, the person has not opted out meanwhile, and the bill may be used."""
        if not still_granted(hospital, use, decision, clock()):
            raise ConsentDenied("gateway.grant_gone", grant=decision.grant, dataset=DATASET)
        await asyncio.to_thread(wallets.bill, request.handle)

    async def proving() -> Presentation:
        if (request.audience, request.chain, session_of(request.nonce)) != (insurer, hospital.trust.chain, session):
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(insurer,))
        if request.grant != decision.grant:
            raise Refused("gateway.other_grant", grant=request.grant, covers=decision.grant)
        if _registered(await hospital.account.caught_up(), request.handle).hospital != hospital.name:
            raise Refused("gateway.no_such_bill", handle=request.handle.hex())
        await _use_up(hospital, "answered", request.nonce, steps)
        held = await asyncio.to_thread(wallets.bill, request.handle)
        if held.bill.currency == request.currency:  # else the wallet says so, whatever the limit
            count_limit(hospital, insurer, request)  # before the wallet knows: its no says as much as its yes
        return await asyncio.to_thread(wallets.prove, held.person, request)

    async def leaving() -> _Leaving:
        return _Leaving()

    try:
        presentation = await steps.once(_PRESENTATION, Presentation, proving)
        await check_still()
        await steps.once("leaving", _Leaving, leaving)  # from here on it may have arrived
        await check_still()  # when it is taken up again, too
        await hospital.send(insurer, session, presentation)
    except (Exception, FlowCancelled) as error:
        await end_use(hospital, intent, "released" if await steps.kept("leaving") else "aborted")
        with contextlib.suppress(MedveilError):
            await hospital.send(insurer, session, refusal(hospital.name, error))
        if not isinstance(error, MedveilError):
            raise
    else:
        await end_use(hospital, intent, "released")
    return decision


# --- the insurer --------------------------------------------------------------------------------


async def check_limit(
    insurer: Organisation,
    hospital: str,
    request: LimitRequest,
    steps: Steps,
    declared: Declaration = NOTHING_SAID,
) -> Presentation:
    """Insurer: ask, and verify the answer against its own request and the bill on the ledger; keep it.

    The request's nonce must be fresh; a presentation of another request is refused. declared: what the insurer says of
    the use, by which the hospital judges. What holds is kept in the vault
    as document "presentation" under the nonce. Raises Refused (no such bill on the ledger: then nobody is asked; or
    the hospital or the person says no, with their words), VerificationError or DecodeError.
    """
    session = session_of(request.nonce)
    if not await steps.kept(_ENDED):
        bill = _registered(await insurer.account.caught_up(), request.handle)
        await _use_up(insurer, "asked", request.nonce, steps)
        await insurer.send(hospital, session, ProofRequest(request, declared))
        reply = await answer_of(insurer, Presentation, session, hospital, steps)
        if isinstance(reply, Presentation):
            bill_limit.verify(reply, request, Bill(bill.handle, bill.commitment, bill.currency))
            insurer.vault.put_document(_PRESENTATION, request.nonce.hex(), encode(reply))

    async def ended() -> _Heard:
        return _Heard(reply)

    heard = (await steps.once(_ENDED, _Heard, ended)).answer
    await insurer.forget(session, hospital)
    if isinstance(heard, Refusal):
        raise Refused("gateway.proof_refused", organisation=hospital, **heard.told())
    return heard


def presentation(insurer: Organisation, nonce: bytes) -> Presentation:
    """The presentation that answered the request of this nonce. Raises Refused where there is none."""
    return decode(Presentation, insurer.vault.document(_PRESENTATION, nonce.hex()))


def presentations(insurer: Organisation) -> tuple[Presentation, ...]:
    """Every presentation that this organisation was given and found to hold."""
    return tuple(presentation(insurer, bytes.fromhex(nonce)) for nonce in insurer.vault.documents(_PRESENTATION))
