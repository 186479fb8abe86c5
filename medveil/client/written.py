"""What the gateway wrote on the ledger for a caller: believed by its receipt, and by what stands in it.

The receipt must lead to a head that enough members cosigned, its envelope must have taken effect and hold the very op
that was asked for: a gateway that votes 50 where 5 was asked is found out. Whose envelope it is stands in it: where the
client was told which organisation it works for, another's is refused; `Written.organisation` says it in any case. That
the envelope is of today, and no earlier one of the same words, is the gateway's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ledger.receipts import Receipt
from medveil.client.exchange import Exchange
from medveil.client.line import Call, Line, fetch
from medveil.client.pinned import believe, bytes_of
from wire.errors import VerificationError

if TYPE_CHECKING:
    from ledger.contracts import Op


class Written(msgspec.Struct, frozen=True):
    """An envelope that is final and took effect, verified. organisation: who signed it; height: of its block;
    receipt: the evidence.
    """

    envelope: str
    organisation: str
    height: int
    receipt: Receipt


class _Answer(msgspec.Struct, frozen=True):
    envelope: str
    height: int
    receipt: str


def write(line: Line, call: Call, op: Op) -> Exchange[Written]:
    """Have the gateway write `op` by `call`, and verify that it did.

    Raises Refused (``client.no_trust`` before anything is sent; or the contract's reason), VerificationError or
    QuorumNotMet for a receipt that does not hold: then nobody knows what the gateway did.
    """
    line.pinned.needed()
    told = yield from fetch(line, call, _Answer)
    receipt = receipt_of(bytes_of(told.receipt))
    yield from believe(line, [receipt])
    from ledger.envelope import envelope_id, open_envelope

    result = receipt.result
    ops = open_envelope(receipt.envelope).envelope.ops
    if (told.envelope, told.height) != (envelope_id(receipt.envelope).hex(), receipt.block.height):
        raise VerificationError("client.other_receipt", part="envelope")
    if not result.accepted:
        raise VerificationError("client.other_receipt", part="result")
    if ops != (op,):
        raise VerificationError("client.other_receipt", part="ops")
    if line.organisation not in ("", result.sender):
        raise VerificationError("client.other_receipt", part="organisation")
    return Written(told.envelope, result.sender, told.height, receipt)


def receipt_of(data: bytes) -> Receipt:
    """A receipt from its canonical bytes, not yet verified. Raises DecodeError."""
    from wire.canonical import decode

    return decode(Receipt, data)
