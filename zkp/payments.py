"""What has been paid under one bill: the public state that the ledger keeps beside each bill handle.

A bill is registered once with a commitment `C_total` to its total. Each payment leaves a commitment `C_R` to
its amount; a claim proves that its own fits into ``C_total - sum C_R`` (`zkp.settlement`). Here is the rest of
the rule, which needs no secret: a statutory layer pays once, a commercial one once for each payer; once a
higher layer has paid, lower ones are closed; reversals go from the top down, free their layer and post a
voucher that the holder redeems once, and before that payer's layer pays the bill again; a bill is turned red
only while nothing stands paid under it, and takes no payment from then on.

Pure functions: state in, state out, `Refused` with nothing changed. The ledger's contract keeps the state,
checks the proof and the sender's right; commitments are points that it has decoded. Everything is public; the
payments of one bill are linkable to each other, by choice. Spec: DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from wire.canonical import Wire, encode
from wire.domains import VOUCHER, digest
from wire.errors import Refused, VerificationError
from wire.identifiers import Handle, Name
from zkp import pedersen
from zkp.groups import POINT_BYTES, SCALAR_BYTES, Backend, Point, decode_scalar
from zkp.policy import Currency, Layer, Minor, Year

MOST_PAYMENTS = 64
"""Payments that can stand under one bill at a time: with amounts below 2^36, their sum stays below 2^42."""

EncodedPoint = Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Payment(Wire, frozen=True, tag="zkp.payment"):
    """A payment as everybody sees it. amount: C_R; deductible: C_d where the row takes the account's, else None;
    visits: v, what it added to the account's visits; owner: a commitment to the claimant's secret."""

    payer: Name
    layer: Layer
    statutory: bool
    year: Year
    amount: EncodedPoint
    deductible: EncodedPoint | None
    visits: Annotated[int, msgspec.Meta(ge=0, le=1)]
    owner: EncodedPoint


class BillPayments(Wire, frozen=True, tag="zkp.bill_payments"):
    """The state under a handle. total: C_total; standing: payments in the order made; reversals: how many so far."""

    handle: Handle
    hospital: Name
    total: EncodedPoint
    currency: Currency
    standing: tuple[Payment, ...]
    reversals: Count
    red: bool


class Voucher(Wire, frozen=True, tag="zkp.voucher"):
    """What a reversal leaves: who holds the bill's secret may put the payment back into the account, once.

    mirror: the encoding of -C_R, the booking that cancels the payment; number: of the reversal under its handle.
    """

    handle: Handle
    number: Count
    payment: Payment
    mirror: EncodedPoint
    redeemed: bool

    @property
    def id(self) -> bytes:
        """32 bytes that name the voucher, redeemed or not."""
        return digest(VOUCHER, self.handle, self.number.to_bytes(4, "big"), encode(self.payment))


class PaymentOpening(Wire, frozen=True, tag="zkp.payment_opening"):
    """What the holder tells a commercial payer, sealed to it: how much C_R (`amount`) says. Secret between the two."""

    amount: EncodedPoint
    paid: Minor
    blinding: Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]

    def __repr__(self) -> str:
        return "PaymentOpening(...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


def check_opening(opening: PaymentOpening, payment: Payment, group: Backend) -> None:
    """Payer: check that `opening` (secret) is of the ledger's `payment`. Raises VerificationError or DecodeError."""
    if opening.amount != payment.amount:
        raise VerificationError("zkp.wrong_opening")
    pedersen.check_opening(group.decode(payment.amount), opening.paid, decode_scalar(opening.blinding), group)


def registered(handle: bytes, hospital: str, total: bytes, currency: str) -> BillPayments:
    """The state of a bill that its hospital has just registered with C_total = `total` (48 bytes)."""
    return BillPayments(handle, hospital, total, currency, (), 0, False)


def _find(bill: BillPayments, layer: int, payer: str) -> Payment | None:
    return next((one for one in bill.standing if (one.layer, one.payer) == (layer, payer)), None)


def check_open(bill: BillPayments, payer: str, layer: int, statutory: bool, currency: str) -> None:
    """Raise Refused unless `payer` could pay on `layer` now: the holder asks before it proves, the ledger again."""
    handle = bill.handle.hex()
    if bill.red:
        raise Refused("payments.red_bill", handle=handle)
    if currency != bill.currency:
        raise Refused("payments.other_currency", handle=handle, currency=bill.currency, asked=currency)
    if len(bill.standing) >= MOST_PAYMENTS:
        raise Refused("payments.too_many", handle=handle, limit=MOST_PAYMENTS)
    highest = max((one.layer for one in bill.standing), default=0)
    if highest > layer:
        raise Refused("payments.layer_closed", handle=handle, layer=layer, highest=highest)
    for one in bill.standing:
        if one.layer == layer and (one.statutory or statutory or one.payer == payer):
            raise Refused("payments.paid_already", handle=handle, layer=layer, payer=one.payer)


def pay(bill: BillPayments, payment: Payment, currency: str) -> BillPayments:
    """The state with `payment` added. Its proof has been verified against `bill`. Raises Refused."""
    check_open(bill, payment.payer, payment.layer, payment.statutory, currency)
    return msgspec.structs.replace(bill, standing=(*bill.standing, payment))


def reverse(bill: BillPayments, layer: int, payer: str, group: Backend) -> tuple[BillPayments, Voucher]:
    """Take the payment of `payer` on `layer` back: the state without it, and the voucher. Raises Refused.

    Refused while a higher layer stands paid, for what that one paid rests on this one.
    """
    handle = bill.handle.hex()
    payment = _find(bill, layer, payer)
    if payment is None:
        raise Refused("payments.not_paid", handle=handle, layer=layer, payer=payer)
    highest = max(one.layer for one in bill.standing)
    if highest > layer:
        raise Refused("payments.reverse_from_the_top", handle=handle, layer=layer, highest=highest)
    mirror = group.encode(group.neg(group.decode(payment.amount)))
    voucher = Voucher(bill.handle, bill.reversals, payment, mirror, False)
    left = tuple(one for one in bill.standing if one is not payment)
    return msgspec.structs.replace(bill, standing=left, reversals=bill.reversals + 1), voucher


def turn_red(bill: BillPayments) -> BillPayments:
    """The hospital cancels the bill: no payment from now on. Raises Refused while one stands, or if it is red."""
    if bill.red:
        raise Refused("payments.red_bill", handle=bill.handle.hex())
    if bill.standing:
        raise Refused("payments.standing", handle=bill.handle.hex(), count=len(bill.standing))
    return msgspec.structs.replace(bill, red=True)


def redeem(voucher: Voucher) -> Voucher:
    """The voucher as redeemed. Its proof has been verified (`zkp.reversal`). Raises Refused the second time."""
    check_redeemable(voucher)
    return msgspec.structs.replace(voucher, redeemed=True)


def check_redeemable(voucher: Voucher) -> None:
    """Raise Refused if `voucher` has been redeemed."""
    if voucher.redeemed:
        raise Refused("payments.redeemed", handle=voucher.handle.hex(), number=voucher.number)


def check_redeemed(bill: BillPayments, vouchers: Sequence[Voucher], payer: str, layer: int, year: int) -> None:
    """Raise Refused while a reversed payment of `payer` on `layer` in `year` has not gone back into its account.

    Otherwise the bill is claimed again from an account whose deductible the reversed payment has used up, and whose
    visits it has raised; the voucher, redeemed later, gives both back: a deductible wiped by waiting. vouchers: all
    that were posted under this handle, and under those that the bill replaces. ValueError if one of its own is missing.
    """
    if {one.number for one in vouchers if one.handle == bill.handle} != set(range(bill.reversals)):
        raise ValueError("every voucher of the bill, each once")
    for one in vouchers:
        if not one.redeemed and (one.payment.payer, one.payment.layer, one.payment.year) == (payer, layer, year):
            raise Refused("payments.unredeemed", handle=one.handle.hex(), number=one.number, layer=layer, payer=payer)


def paid(bill: BillPayments, group: Backend) -> list[Point]:
    """The points C_R that stand paid, in order; their sum commits to P. Raises DecodeError for bytes that are none."""
    return [group.decode(one.amount) for one in bill.standing]
