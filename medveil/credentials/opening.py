"""What a payer may know of a payment: the holder opens its commitment to it, in a file between the two.

opened    holder   from her wallet, of a claim that is final and caught up    H -> payer
amount    payer    the amount, checked against what stands in the contract
"""

from __future__ import annotations

from pathlib import Path

from medveil.credentials import contract, wallets
from wire.canonical import Wire
from wire.errors import Refused
from wire.evidence import Header, register
from zkp import payments
from zkp.groups import backend
from zkp.payments import Payment, PaymentOpening
from zkp.settlement import Settlement
from zkp.wallet import booking_of, opening_for


class OpeningFile(Wire, frozen=True, tag="medveil.payment_opening"):
    """H -> payer. Between the two alone: it holds the amount."""

    header: Header
    opening: PaymentOpening


OPENING = register("payment-opening", 1, OpeningFile)


def opened(wallet: Path, passphrase: str, op: Settlement) -> OpeningFile:
    """Holder: the opening of her payment. Raises Refused for one that the wallet does not know."""
    with wallets.opened(wallet, passphrase) as kept:
        return OpeningFile(OPENING, opening_for(booking_of(kept.wallet, op.paid)))


def amount(state: Path, opening: PaymentOpening) -> tuple[str, Payment]:
    """Payer: the payment that stands under some bill and that `opening` is of, with the bill's handle in hex; how much
    it is, the opening then says. Raises VerificationError, DecodeError; Refused if no such payment stands."""
    for bill in contract.read(state).bills:
        for payment in bill.standing:
            if payment.amount == opening.amount:
                payments.check_opening(opening, payment, backend())
                return bill.handle.hex(), payment
    raise Refused("credential_files.not_standing")
