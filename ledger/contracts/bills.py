"""`bills`: a bill's public random handle with a commitment to its amount.

The hospital that issued the bill registers it, once; what is proved about the amount later is proved
about this commitment.

State key: ``bills/<handle in hex>`` -> BillState.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ledger.contracts.contract import Context, Contract, Event, Point, View, state_key
from ledger.contracts.membership import require_role
from wire.canonical import Wire
from wire.errors import Refused
from wire.identifiers import Handle, Name
from wire.keyset import Height

NAME = "bills"

Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]


class RegisterBill(Wire, frozen=True, tag="bills.register"):
    """A bill of the sender. commitment: Pedersen commitment to the amount in minor units."""

    handle: Handle
    commitment: Point
    currency: Currency


class BillState(Wire, frozen=True, tag="bills.bill"):
    """A registered bill."""

    handle: Handle
    hospital: Name
    commitment: Point
    currency: Currency
    height: Height


def bill_key(handle: bytes) -> bytes:
    """State key of a bill."""
    return state_key(NAME, handle)


def register(op: RegisterBill, sender: str, context: Context, view: View) -> tuple[Event, ...]:
    """Register a bill under a fresh handle."""
    require_role(view, sender, "hospital")
    if view.get(bill_key(op.handle), BillState) is not None:
        raise Refused("bills.exists", handle=op.handle.hex())
    view.put(bill_key(op.handle), BillState(op.handle, sender, op.commitment, op.currency, context.height))
    return (Event("bills.registered", op.handle.hex()),)


CONTRACT = Contract(NAME, 1, {RegisterBill: register})
