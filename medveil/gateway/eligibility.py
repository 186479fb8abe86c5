"""Eligibility: an insured person's bill is within a limit, proven to an insurer under a grant.

    hospital -> ledger     RegisterBill     commitment to the amount, under a random handle
    hospital -> person     BillSlip         bill, opening and the hospital's signature: into the wallet
    insurer  -> hospital   LimitRequest     limit, nonce, purpose, grant
    hospital               decides under the grant, writes its audit intent
    person   -> insurer    Presentation     the proof, made from the wallet, carried by the hospital's gateway
    insurer                verifies against the bill that *it* reads from the ledger

The hospital's gateway hosts the wallet here, so it carries the request to the person and the answer
back. It learns nothing new: it wrote the bill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ledger.contracts import bills
from medveil.gateway.granting import decide_use, still_granted
from medveil.gateway.organisation import Clock, Organisation, Rand, Refusal
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


def registered_bill(organisation: Organisation, handle: bytes) -> Bill:
    """The bill under `handle` as this organisation replayed the ledger. Raises Refused."""
    found = organisation.account.state.get(bills.bill_key(handle), bills.BillState)
    if found is None:
        raise Refused("gateway.no_such_bill", handle=handle.hex())
    return Bill(found.handle, found.commitment, found.currency)


async def answer(hospital: Organisation, wallet: Wallet, nonce: bytes, clock: Clock) -> Decision:
    """Hospital's gateway: take one request, decide, let the person's wallet answer, write the outcome."""
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
        presentation = wallet.prove(request, hospital.rand)
        if not still_granted(hospital, use, decision, clock()):
            raise Refused("gateway.grant_gone", grant=decision.grant, dataset=DATASET)
        await hospital.send(insurer, session_of(nonce), presentation)
        ended = "released"
    except MedveilError as error:
        await hospital.send(insurer, session_of(nonce), Refusal(error.code, error.text()))
    finally:
        hospital.audit.outcome(intent, ended)
    return decision


async def check_limit(insurer: Organisation, hospital: str, request: LimitRequest) -> Presentation:
    """Insurer: ask, and verify the answer against its own request and the bill on the ledger.

    The request's nonce must be fresh: a presentation of another request is refused. Raises Refused
    (the hospital or the person says no, with their words), VerificationError or DecodeError.
    """
    await insurer.send(hospital, session_of(request.nonce), request)
    sender, reply = await insurer.receive_answer(Presentation, session_of(request.nonce))
    if sender != hospital:
        raise ProtocolAbort("gateway.misdirected_request", round="answer", parties=(sender,))
    if isinstance(reply, Refusal):
        raise Refused("gateway.proof_refused", organisation=hospital, reason=reply.code, words=reply.words)
    bill_limit.verify(reply, request, registered_bill(insurer, request.handle))
    return reply
