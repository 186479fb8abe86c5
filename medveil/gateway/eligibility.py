"""Eligibility: an insured person's bill is within a limit, proven to an insurer under a grant.

    hospital -> ledger     RegisterBill     commitment to the amount, under a random handle
    hospital -> person     BillSlip         bill, opening and the hospital's signature: into the wallet
    insurer  -> hospital   LimitRequest     limit, nonce, purpose, grant
    hospital               decides under the grant, writes its audit intent
    person   -> insurer    Presentation     the proof, made from the wallet, carried by the hospital's gateway
    insurer                verifies against the bill that *it* reads from the ledger

A nonce is good for one request at the insurer and for one answer at the hospital; both remember.

The hospital's gateway hosts the wallet here, so it carries the request to the person and the answer
back. It learns nothing new: it wrote the bill.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from ledger.contracts import bills
from medveil.gateway.granting import decide_use, still_granted
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.organisation import Clock, Organisation, Rand, Refusal, refusal
from privacy.decide import Decision, UseRequest
from privacy.keys import FileKeyProvider
from privacy.vault import Vault
from wire.canonical import Wire, decode, encode
from wire.domains import BILL, PRESENTATION, digest
from wire.errors import MedveilError, ProtocolAbort, Refused
from wire.money import Amount
from wire.signing import Signature, VerifyKey, verify
from zkp import bill_limit
from zkp.bill_limit import Bill, BillOpening, LimitRequest, Presentation

DATASET = "bills"
FIELD = "amount"


class BillSlip(Wire, frozen=True, tag="medveil.bill_slip"):
    """What the person gets from the hospital. Secret: it holds the opening."""

    bill: Bill
    opening: BillOpening
    hospital: str
    signature: Signature

    def __repr__(self) -> str:
        return f"BillSlip({self.bill.handle.hex()})"


class Wallet:
    """An insured person's wallet: a small vault of its own. One process at a time."""

    def __init__(self, folder: Path, person: str, vault: Vault) -> None:
        self.folder = folder
        self.person = person
        self._vault = vault

    @classmethod
    def create(cls, folder: Path, person: str, passphrase: str, rand: Rand) -> Wallet:
        """A new wallet in `folder`, which must not exist. passphrase: the person's."""
        folder.mkdir(mode=0o700, parents=True)
        provider = FileKeyProvider.create(folder / "keys", passphrase, rand=rand)
        return cls(folder, person, Vault.create(folder / "vault", provider, person, rand=rand))

    def keep(self, slip: BillSlip, hospital_key: VerifyKey) -> None:
        """Take a bill in, after checking the hospital's signature and that the opening is the bill's."""
        verify(hospital_key, BILL, encode(slip.bill), slip.signature)
        bill_limit.check_bill(slip.bill, slip.opening)
        self._vault.put_document("bill", slip.bill.handle.hex(), encode(slip))

    def bills(self) -> tuple[bytes, ...]:
        """Handles of the bills in this wallet."""
        return tuple(bytes.fromhex(name) for name in self._vault.documents("bill"))

    def prove(self, request: LimitRequest, rand: Rand) -> Presentation:
        """Answer a request from this wallet. Raises Refused: no such bill, or its amount is over the limit."""
        if request.handle not in self.bills():
            raise Refused("gateway.no_such_bill", handle=request.handle.hex())
        slip = decode(BillSlip, self._vault.document("bill", request.handle.hex()))
        return bill_limit.prove(request, slip.bill, slip.opening, rand)

    def close(self) -> None:
        """Close the files."""
        self._vault.close()


async def issue_bill(hospital: Organisation, wallet: Wallet, handle: bytes, amount: Amount) -> Bill:
    """Hospital: commit to a bill (amount is secret), register it on the ledger, hand the slip to the person."""
    bill, opening = bill_limit.commit_bill(handle, amount, hospital.rand)
    await hospital.submit(bills.RegisterBill(bill.handle, bill.commitment, bill.currency))
    slip = BillSlip(bill, opening, hospital.name, hospital.signer.sign(BILL, encode(bill)))
    wallet.keep(slip, hospital.trust.member(hospital.name).keys.envelope.key)
    return bill


def session_of(nonce: bytes) -> bytes:
    """The channel session of one request."""
    return digest(PRESENTATION, nonce)[:16]


def _registered(state: LedgerState, handle: bytes) -> bills.BillState:
    found = state.get(bills.bill_key(handle), bills.BillState)
    if found is None:
        raise Refused("gateway.no_such_bill", handle=handle.hex())
    return found


def registered_bill(organisation: Organisation, handle: bytes) -> Bill:
    """The bill under `handle` as this organisation replayed the ledger. Raises Refused."""
    found = _registered(organisation.account.state, handle)
    return Bill(found.handle, found.commitment, found.currency)


def _use_up(organisation: Organisation, what: Literal["asked", "answered"], nonce: bytes) -> None:
    """Remember a nonce, on disk when this returns. Raises Refused if it was used before."""
    kind = f"nonce-{what}"
    try:
        organisation.vault.document(kind, nonce.hex())
    except Refused:
        organisation.vault.put_document(kind, nonce.hex(), b"")
    else:
        raise Refused("gateway.used_nonce", organisation=organisation.name)


async def answer(hospital: Organisation, wallet: Wallet, nonce: bytes, clock: Clock) -> Decision:
    """Hospital's gateway: take one request, decide, let the person's wallet answer, write the outcome.

    Returns the decision; where it allowed and no proof was sent all the same (over the limit, no such
    bill), the insurer was told why, and the outcome says "aborted". Raises Unavailable while nobody asks,
    ProtocolAbort for a message that is no request.
    """
    insurer, request = await hospital.receive(LimitRequest, session_of(nonce))
    use = UseRequest(
        holder=hospital.name,
        recipient=insurer,
        dataset=DATASET,
        fields=(FIELD,),
        kind="proof",
        purpose=request.purpose,
    )
    decision, intent = decide_use(hospital, use, clock(), digest(PRESENTATION, encode(request)))
    if not decision.allowed:
        await hospital.send(insurer, session_of(nonce), Refusal(decision.code, decision.text()))
        return decision
    ended: Literal["released", "aborted"] = "aborted"
    try:
        if (request.audience, request.chain, request.nonce) != (insurer, hospital.trust.chain, nonce):
            raise ProtocolAbort("gateway.misdirected_request", round="request", parties=(insurer,))
        if request.grant != decision.grant:
            raise Refused("gateway.other_grant", grant=request.grant, covers=decision.grant)
        if _registered(await hospital.account.caught_up(), request.handle).hospital != hospital.name:
            raise Refused("gateway.no_such_bill", handle=request.handle.hex())
        _use_up(hospital, "answered", nonce)
        presentation = wallet.prove(request, hospital.rand)
        if not still_granted(hospital, use, decision, clock()):
            raise Refused("gateway.grant_gone", grant=decision.grant, dataset=DATASET)
        ended = "released"  # from here on it may have arrived
        await hospital.send(insurer, session_of(nonce), presentation)
    except Exception as error:
        with contextlib.suppress(MedveilError):
            await hospital.send(insurer, session_of(nonce), refusal(hospital.name, error))
        if not isinstance(error, MedveilError):
            raise
    finally:
        hospital.audit.outcome(intent, ended)
    return decision


async def check_limit(insurer: Organisation, hospital: str, request: LimitRequest) -> Presentation:
    """Insurer: ask, and verify the answer against its own request and the bill on the ledger.

    The request's nonce must be fresh; a presentation of another request is refused. Raises Refused
    (no such bill on the ledger: then nobody is asked; or the hospital or the person says no, with their
    words), VerificationError or DecodeError.
    """
    bill = _registered(await insurer.account.caught_up(), request.handle)
    _use_up(insurer, "asked", request.nonce)
    await insurer.send(hospital, session_of(request.nonce), request)
    _, reply = await insurer.receive_answer(Presentation, session_of(request.nonce), (hospital,))
    if isinstance(reply, Refusal):
        raise Refused("gateway.proof_refused", organisation=hospital, reason=reply.code, words=reply.words)
    bill_limit.verify(reply, request, Bill(bill.handle, bill.commitment, bill.currency))
    return reply
