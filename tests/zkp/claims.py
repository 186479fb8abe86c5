"""A claim to settle: rows, sets, bills and a holder's holdings, for the tests of settlement, reversal and wallet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from functools import cache
from typing import Any

import msgspec

from tests.zkp import holders
from tests.zkp.holders import BILL, BUREAU_ACCOUNT, BUREAU_PERSON, DAY, HOSPITAL, Holder, rand_of
from wire.dates import day_of
from zkp import account, membership, pedersen
from zkp.claim import Claim, claim_id
from zkp.credentials import ENCOUNTER, PERSON
from zkp.groups import backend
from zkp.membership import Filing, PublishedSet
from zkp.policy import AGES, Diagnoses, Row
from zkp.settlement import Derive, Holdings, Outcome, Settlement, prove

TOTAL_BLINDING = 2**200 + 99

ROW = Row(
    "resident-inpatient", 3, "bureau-1", 1, True, 2025, day_of(date(2025, 1, 1)), day_of(date(2025, 12, 31)),
    "", "310", "11", "330100", "", "21", "3", *AGES, 1, 3, True, None, "CNY",
    (1000, 1000, 900, 800, 0, 0, 500, 1000), False, None, 100_000, 250_000, (700, 800, 900), False,
)  # fmt: skip
"""Three bands, eight classes, the account's deductible, the first visit."""


def row(**changes: Any) -> Row:
    return msgspec.structs.replace(ROW, **changes)


def handle_of(holder: Holder) -> bytes:
    handle = holder.person.get(PERSON, "handle")
    assert isinstance(handle, bytes)
    return handle


def filing(holder: Holder, **changes: Any) -> Filing:
    return msgspec.structs.replace(Filing(handle_of(holder), "I10.x00x002", DAY - 100, DAY + 100), **changes)


@cache
def published(kind: Any, name: str, members: tuple[Any, ...], version: int = 7) -> PublishedSet:
    secret, key = membership.new_version(kind, name, version, rand_of(f"{kind}/{name}/{version}"))
    return membership.publish(secret, key, members)


def active(*held: Holder) -> PublishedSet:
    return published("active", "active", (bytes(15) + b"\1", *(handle_of(one) for one in held)))


def derive_of(seed: str, claim: Claim) -> Derive:
    """Stands for the wallet's: bytes from a seed, the claim and a label."""
    known = claim_id(claim)
    return lambda label: hashlib.shake_256(f"{seed}/{label}/".encode() + known).digest(64)


def claim_of(holder: Holder, row: Row = ROW, standing: Sequence[bytes] = (), **changes: Any) -> Claim:
    """The claim of `holder` for her encounter under `row`, as a ledger would state it."""
    total = holder.encounter.get(ENCOUNTER, "total")
    assert isinstance(total, int)
    diagnoses = None
    if row.diagnoses is not None:
        diagnoses = the_set(holder, row.diagnoses).key
    plain = Claim(
        "demo", BUREAU_PERSON.of.issuer, HOSPITAL.of.issuer, BUREAU_ACCOUNT.of.issuer, active(holder).key, diagnoses,
        row, BILL, "hospital-1", "3", backend().encode(pedersen.commit(total, TOTAL_BLINDING)), DAY, tuple(standing),
        row.payer, hashlib.sha256(b"a nonce").digest(), "HPAYMT", "grant-1", account.spent_serial(holder.account),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def the_set(holder: Holder, named: Diagnoses) -> PublishedSet:
    """A set of that kind and name in which the holder's diagnosis stands."""
    if named.kind == "filed":
        return published("filed", named.name, (filing(holder), filing(holder, handle=bytes(15) + b"\2")))
    return published("covered", named.name, ("E11.900", "I10.x00x002"))


def holdings_of(holder: Holder, claim: Claim, standing: Sequence[tuple[int, int]] = ()) -> Holdings:
    found = None
    if claim.row.diagnoses is not None:
        member = filing(holder) if claim.row.diagnoses.kind == "filed" else "I10.x00x002"
        found = membership.find(the_set(holder, claim.row.diagnoses), member)
    return Holdings(
        holder.person,
        holder.encounter,
        holder.account,
        membership.find(active(holder), handle_of(holder)),
        found,
        TOTAL_BLINDING,
        tuple(standing),
    )


@cache
def settled(row: Row = ROW, name: str = "anna") -> tuple[Settlement, Outcome]:
    """A true settlement, proved once."""
    holder = holders.holder(name)
    claim = claim_of(holder, row)
    return prove(claim, holdings_of(holder, claim), derive_of(name, claim), rand_of("settled"))
