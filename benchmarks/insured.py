"""An insured person with three credentials, a bill and a policy row: what eligibility and settlement are measured on.

Signed directly, not issued blindly: the credentials are the same. Three bands, eight classes; the row asks for
region, kinds, level and an age, and takes the account's deductible; the credential is in the active set.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import date

import msgspec

from wire.dates import day_of
from zkp import account, bbs, eligibility, membership, pedersen, settlement
from zkp.attributes import Credential, Value, credential
from zkp.claim import Claim
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER, PERSON, Issuer, issuer
from zkp.groups import backend, encode_scalar, random_scalar
from zkp.policy import Row

DAY = day_of(date(2026, 5, 20))
ROW = Row(
    "resident-inpatient", 1, "bureau-1", 1, True, 2026, day_of(date(2026, 1, 1)), day_of(date(2026, 12, 31)),
    "", "310", "11", "330100", "", "21", "3", 18, 70, 1, 3, True, None, "CNY",
    (1000, 1000, 900, 800, 700, 600, 500, 1000), False, None, 100_000, 250_000, (700, 800, 900), False,
)  # fmt: skip


def _signed(by: Issuer, values: dict[str, Value]) -> Credential:
    scalars = by.of.schema.scalars(values)
    signature = bbs.sign_scalars(by.sk, by.of.issuer, by.of.schema.header, scalars)
    return credential(by.of.schema, by.of.issuer, values, signature)


def _scalar() -> bytes:
    return encode_scalar(random_scalar(secrets.token_bytes))


@dataclass(frozen=True)
class Insured:
    """Holdings and what is asked about them."""

    claim: Claim
    holdings: settlement.Holdings
    request: eligibility.EligibilityRequest
    shown: eligibility.Holdings

    def asked_anew(self) -> Insured:
        """The same under fresh nonces."""
        return replace(
            self,
            claim=msgspec.structs.replace(self.claim, nonce=secrets.token_bytes(32)),
            request=msgspec.structs.replace(self.request, nonce=secrets.token_bytes(32)),
        )


def insured() -> Insured:
    """Everything fresh."""
    bureau, purse, hospital = (issuer(secrets.token_bytes(32), one) for one in (PERSON, ACCOUNT, ENCOUNTER))
    handle, bill, secret = secrets.token_bytes(16), secrets.token_bytes(16), _scalar()
    person = _signed(
        bureau,
        {
            "secret": secret, "scheme": "390", "insutype": "310", "psn_type": "11", "region": "330100", "sex": "2",
            "birth": 29_000, "valid_from": 40_000, "valid_to": 60_000, "handle": handle, "blind": _scalar(),
        },
    )  # fmt: skip
    own = _signed(
        purse,
        {
            "secret": secret, "payer": "bureau-1", "layer": 1, "year": 2026, "visits": 0, "cap": 20_000_000,
            "deductible": 80_000, "serial": _scalar(), "blind": _scalar(),
        },
    )  # fmt: skip
    classes = dict(zip(CLASSES, (250_000, 130_050, 9_999, 40_000, 5, 1, 120, 77), strict=True))
    encounter = _signed(
        hospital,
        {
            "secret": secret, "bill": bill, "hospital": "hospital-1", "level": "3", "med_type": "21", "day": DAY,
            "diagnosis": "I10.x00x002", "total": sum(classes.values()), **classes, "blind": _scalar(),
        },
    )  # fmt: skip
    key, set_key = membership.new_version("active", "active", 1, secrets.token_bytes)
    row = membership.find(membership.publish(key, set_key, [handle]), handle)
    blinding = random_scalar(secrets.token_bytes)
    claim = Claim(
        "bench", bureau.of.issuer, hospital.of.issuer, purse.of.issuer, set_key, None, ROW, bill, "hospital-1", "3",
        backend().encode(pedersen.commit(sum(classes.values()), blinding)), DAY, (), "bureau-1", bytes(32), "HPAYMT",
        "grant-1", account.spent_serial(own),
    )  # fmt: skip
    request = eligibility.EligibilityRequest(
        "bench", bureau.of.issuer, hospital.of.issuer, set_key, None, eligibility.conditions_of(ROW), bill,
        "hospital-1", DAY, "insurer-1", bytes(32), "ELIGVER", "grant-1",
    )  # fmt: skip
    return Insured(
        claim,
        settlement.Holdings(person, encounter, own, row, None, blinding, ()),
        request,
        eligibility.Holdings(person, encounter, row),
    )
