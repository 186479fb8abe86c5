"""A bill's amount is within a limit, shown without the amount.

Statement (public): a bill as it stands on the ledger (handle, Pedersen commitment C, currency) and a
limit L in the same currency's minor units. Witness: amount a and blinding b with ``C = a G + b H``
and ``0 <= a <= L`` as integers.

Proof: one range proof with the exact bound 0..L on C (`zkp.range_proof.Bound`). Nothing can wrap: a sum
of bits under weights that add up to L is an integer in 0..L, and a is that integer mod R.

Parties: the hospital commits (`commit_bill`), registers the bill on the ledger and hands the opening to
the insured person; the insurer asks (`LimitRequest`, with a fresh nonce); the person answers (`prove`);
the insurer, or later an auditor, checks (`verify`) against the bill *it* read from the ledger.

Adversary: a malicious prover (soundness of `zkp.range_proof`); a verifier, or several together, that
want the amount (zero knowledge; C hides perfectly); somebody who replays or re-addresses a presentation
(chain, handle, commitment, limit, currency, audience, nonce, purpose and grant are in the transcript).
Not covered: that the hospital committed to the true amount; who the prover is (whoever has the
opening can prove); that few answers to ever-changing limits narrow the amount down (the
hospital's gateway limits that, not this proof). See docs/protocols/bill-limit.md. Not reviewed by outsiders.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Handle, Hash, Name
from wire.money import LARGEST, Amount
from zkp import pedersen, range_proof
from zkp.batch import Check, settle
from zkp.groups import POINT_BYTES, SCALAR_BYTES, Backend, Rand, backend, decode_scalar, encode_scalar, random_scalar
from zkp.range_proof import Bound
from zkp.transcript import Transcript

NONCE_BYTES = 32

SHORTEST_PROOF = range_proof.proof_bytes([Bound(0, 0)])
LONGEST_PROOF = range_proof.proof_bytes([Bound(0, LARGEST)])
"""The limit fixes the length of the proof inside a presentation: 432 bytes to 816."""

EncodedPoint = Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{0,31}\Z")]
Limit = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]


class Bill(Wire, frozen=True, tag="zkp.bill"):
    """A bill as everybody sees it: public handle, commitment to its amount, currency."""

    handle: Handle
    commitment: EncodedPoint
    currency: Currency


class BillOpening(Wire, frozen=True, tag="zkp.bill_opening"):
    """What the hospital and the insured person keep. Secret. amount: minor units; blinding: a scalar."""

    amount: Limit
    blinding: Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]

    def __repr__(self) -> str:
        return "BillOpening(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class LimitRequest(Wire, frozen=True, tag="zkp.limit_request"):
    """What an insurer asks: is this bill's amount at most `limit`? Public between the two.

    limit: 0..2^40-1 minor units; audience: the asking organisation; nonce: fresh, from the asking
    organisation; purpose (an ActReason or DUO code) and grant: under which the answer is used.
    """

    chain: Name
    handle: Handle
    limit: Limit
    currency: Currency
    audience: Name
    nonce: Hash
    purpose: Code
    grant: Name


class BillLimit(Wire, frozen=True, tag="zkp.bill_limit"):
    """The statement: this bill is within the limit that was asked about. Public; a verifier makes its own.

    bill: as the *ledger* holds it under the request's handle.
    """

    request: LimitRequest
    bill: Bill


class Presentation(Wire, frozen=True, tag="zkp.presentation"):
    """The answer: evidence of kind "presentation". It holds no secret; 0.7 to 1.1 KB encoded."""

    header: Header
    chain: Name
    handle: Handle
    commitment: EncodedPoint
    limit: Limit
    currency: Currency
    audience: Name
    nonce: Hash
    purpose: Code
    grant: Name
    proof: Annotated[bytes, msgspec.Meta(min_length=SHORTEST_PROOF, max_length=LONGEST_PROOF)]

    @property
    def request(self) -> LimitRequest:
        """The request that this presentation says it answers: for an auditor, who asked none itself."""
        return LimitRequest(
            self.chain,
            self.handle,
            self.limit,
            self.currency,
            self.audience,
            self.nonce,
            self.purpose,
            self.grant,
        )


HEADER = register("presentation", 2, Presentation)


def commit_bill(handle: bytes, amount: Amount, rand: Rand, group: Backend | None = None) -> tuple[Bill, BillOpening]:
    """Hospital: commit to a bill's `amount` (secret) under its public 16-byte `handle`.

    Returns the public bill, to register on the ledger, and its secret opening. ValueError for an
    amount outside 0..2^40-1.
    """
    if not 0 <= amount.minor <= LARGEST:
        raise ValueError("a bill's amount is 0..2^40-1 minor units")
    group = group or backend()
    blinding = random_scalar(rand)
    commitment = group.encode(pedersen.commit(amount.minor, blinding, group))
    return Bill(handle, commitment, amount.currency), BillOpening(amount.minor, encode_scalar(blinding))


def check_bill(bill: Bill, opening: BillOpening, group: Backend | None = None) -> None:
    """Person: check on receipt that `opening` (secret) belongs to `bill`. Raises VerificationError or DecodeError."""
    group = group or backend()
    pedersen.check_opening(group.decode(bill.commitment), opening.amount, decode_scalar(opening.blinding), group)


def _statement(request: LimitRequest, bill: Bill) -> Transcript:
    """The transcript that binds the proof to all that is public. Raises DecodeError for values out of range."""
    try:
        asked, shown = canonical.encode(request), canonical.encode(bill)
    except OverflowError:
        raise DecodeError("wire.not_canonical", kind="LimitRequest") from None
    canonical.decode(LimitRequest, asked)
    canonical.decode(Bill, shown)
    transcript = Transcript(b"bill-limit/v2")
    transcript.append_bytes(b"header", canonical.encode(HEADER))
    transcript.append_bytes(b"request", asked)
    transcript.append_bytes(b"bill", shown)
    return transcript


def _check_same_bill(request: LimitRequest, bill: Bill) -> None:
    if request.handle != bill.handle:
        raise Refused("zkp.other_bill", handle=request.handle.hex())
    if request.currency != bill.currency:
        raise Refused("zkp.other_currency", asked=request.currency, currency=bill.currency)


def prove(
    request: LimitRequest, bill: Bill, opening: BillOpening, rand: Rand, group: Backend | None = None
) -> Presentation:
    """Person: answer `request` about `bill` with its secret `opening`. P -> V

    Raises Refused when the amount is over the limit, or the request is about another bill or currency;
    VerificationError when the opening is not the bill's; DecodeError for malformed values. Nothing is
    shown then: that a request was refused is itself for the person to tell or not.
    """
    group = group or backend()
    transcript = _statement(request, bill)
    _check_same_bill(request, bill)
    check_bill(bill, opening, group)
    if not 0 <= opening.amount <= request.limit:
        limit = str(Amount(request.limit, request.currency))
        raise Refused("zkp.over_limit", handle=bill.handle.hex(), limit=limit)
    blinding = decode_scalar(opening.blinding)
    proof = range_proof.prove(
        transcript,
        [[(1, group.decode(bill.commitment))]],
        [opening.amount],
        [blinding],
        [Bound(0, request.limit)],
        rand,
        group,
    )
    return Presentation(
        HEADER,
        request.chain,
        request.handle,
        bill.commitment,
        request.limit,
        request.currency,
        request.audience,
        request.nonce,
        request.purpose,
        request.grant,
        proof,
    )


def check(presentation: Presentation, statement: BillLimit, group: Backend | None = None) -> Check:
    """Verifier: what must hold for `presentation` to prove `statement`, its own; to be settled with others.

    Raises VerificationError or DecodeError. *Nothing is proved before the check is settled.*
    """
    request, bill = statement.request, statement.bill
    if presentation.header != HEADER:
        raise VerificationError("zkp.unknown_suite", suite=presentation.header.suite)
    for field in LimitRequest.__struct_fields__:
        if getattr(presentation, field) != getattr(request, field):
            raise VerificationError("zkp.not_as_asked", field=field)
    for field in Bill.__struct_fields__:
        if getattr(presentation, field) != getattr(bill, field):
            raise VerificationError("zkp.not_the_bill", field=field, handle=bill.handle.hex())
    transcript = _statement(request, bill)
    group = group or backend()
    found = Check(group)
    commitment = group.decode(bill.commitment)
    range_proof.verify(transcript, [[(1, commitment)]], [Bound(0, request.limit)], presentation.proof, found)
    return found


def verify(presentation: Presentation, request: LimitRequest, bill: Bill, group: Backend | None = None) -> None:
    """Insurer or auditor: check that `presentation` answers `request` about `bill`. About 6 ms.

    `request` is the verifier's own (an auditor takes ``presentation.request`` and checks the nonce,
    grant and audience against its other evidence); `bill` is what the *ledger* holds under the handle,
    never what the prover sent. A nonce is good for one answer: the caller keeps those it has used.
    Raises VerificationError or DecodeError.
    """
    group = group or backend()
    settle([check(presentation, BillLimit(request, bill), group)], group)
