"""A claim: the public statement of a settlement. Who claims what under which keys, row and state of the ledger.

A verifier makes its own from what it knows (the ledger's contract: keys, newest sets, the agreed row, what stands
paid under the bill); the prover's is compared with it, and every byte of it enters the proof's transcript.
`check_bill` ties it to the bill as the ledger holds it.

Everything here is public. Spec: DESIGN section 6; docs/protocols/settlement.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.dates import Day
from wire.domains import CLAIM, digest
from wire.errors import DecodeError, Refused
from wire.identifiers import Handle, Hash, Name
from zkp import policy
from zkp.attributes import Schema, Value
from zkp.bbs_presentation import Issued
from zkp.credentials import ACCOUNT, ENCOUNTER, PERSON
from zkp.membership import SetKey
from zkp.payments import MOST_PAYMENTS, BillPayments, EncodedPoint, Voucher, check_open, check_redeemed
from zkp.policy import KeyCode, Row

EncodedKey = Annotated[bytes, msgspec.Meta(min_length=96, max_length=96)]
Purpose = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{0,31}\Z")]


class Claim(Wire, frozen=True, tag="zkp.claim"):
    """What is claimed, and under which keys and state.

    keys: of the issuers, 96 bytes; active, diagnoses: the sets' newest versions; level: the hospital's in the
    registry; total: C_total; standing: C_R of the payments under the bill, in order; purpose (an ActReason or DUO
    code) and grant: under which the answer is used; serial: of the spent account.
    """

    chain: Name
    person_key: EncodedKey
    encounter_key: EncodedKey
    account_key: EncodedKey
    active: SetKey
    diagnoses: SetKey | None
    row: Row
    bill: Handle
    hospital: Name
    level: KeyCode
    total: EncodedPoint
    service_day: Day
    standing: Annotated[tuple[EncodedPoint, ...], msgspec.Meta(max_length=MOST_PAYMENTS - 1)]
    audience: Name
    nonce: Hash
    purpose: Purpose
    grant: Name
    serial: Hash

    @property
    def issuers(self) -> dict[str, Issued]:
        """The issuers of the three credentials, by the prefix under which each is shown."""
        return {
            "person": Issued(PERSON, self.person_key),
            "encounter": Issued(ENCOUNTER, self.encounter_key),
            "account": Issued(ACCOUNT, self.account_key),
        }

    @property
    def disclosed(self) -> dict[str, dict[str, Value]]:
        """What the claim says of each credential in the open, by prefix and attribute."""
        row = self.row
        account: dict[str, Value] = {"payer": row.payer, "layer": row.layer, "year": row.year, "serial": self.serial}
        if row.any_visit_from is None:
            account["visits"] = row.visit - row.visits_added
        encounter: dict[str, Value] = {"bill": self.bill, "hospital": self.hospital, "day": self.service_day}
        return {
            "person": dict(row.person_keys),
            "encounter": encounter | dict(row.encounter_keys),
            "account": account,
        }


def integers(schema: Schema, values: dict[str, Value]) -> dict[str, int]:
    """The integers that stand for `values`. Raises DecodeError."""
    return {name: schema.scalar(name, value) for name, value in values.items()}


def encoded(claim: Claim) -> bytes:
    """The canonical bytes. Raises DecodeError for a claim that no decoder would accept."""
    try:
        data = canonical.encode(claim)
    except OverflowError:
        raise DecodeError("wire.not_canonical", kind="Claim") from None
    canonical.decode(Claim, data)
    return data


def claim_id(claim: Claim) -> bytes:
    """32 bytes over the whole claim. Raises DecodeError."""
    return digest(CLAIM, encoded(claim))


def check_claim(claim: Claim) -> None:
    """Raise Refused or DecodeError for a claim that no proof could be about: to be seen from the claim alone."""
    encoded(claim)
    row = claim.row
    policy.encoded(row)
    policy.check_in_force(row, claim.service_day)
    row.births(claim.service_day)  # somebody can be of that age
    if row.level not in ("", claim.level):
        raise Refused("settlement.other_level", hospital=claim.hospital, level=claim.level, asked=row.level)
    wanted = None if row.diagnoses is None else (row.diagnoses.kind, row.diagnoses.name)
    given = None if claim.diagnoses is None else (claim.diagnoses.kind, claim.diagnoses.name)
    if wanted != given:
        raise Refused("settlement.other_set", set="-" if claim.diagnoses is None else claim.diagnoses.name)
    if claim.active.kind != "active":
        raise Refused("settlement.other_set", set=claim.active.name)


def check_bill(claim: Claim, bill: BillPayments, vouchers: Sequence[Voucher] = ()) -> None:
    """Raise Refused unless `claim` is about `bill` as the ledger holds it, and a payment could be added to it now.

    The claim's handle, hospital and C_total are the bill's; the row's payer may pay on its layer, in the bill's
    currency (`zkp.payments.check_open`); what it paid before and was reversed has gone back (`check_redeemed`:
    vouchers are all that were posted under this handle, and under those that the bill replaces); what the claim names
    as standing is every payment that stands, in the order made, so that ``C_total - sum C_R`` is what the bill has
    left. The proof says nothing of this: without it an old or invented state would do. ValueError if a voucher of the
    bill's is missing.
    """
    _check_same(claim.bill == bill.handle, bill, "bill")
    _check_same(claim.hospital == bill.hospital, bill, "hospital")
    _check_same(claim.total == bill.total, bill, "total")
    row = claim.row
    check_open(bill, row.payer, row.layer, row.statutory, row.currency)
    check_redeemed(bill, vouchers, row.payer, row.layer, row.year)
    _check_same(claim.standing == tuple(one.amount for one in bill.standing), bill, "standing")


def _check_same(same: bool, bill: BillPayments, field: str) -> None:
    if not same:
        raise Refused("payments.other_state", handle=bill.handle.hex(), field=field)
