"""One bureau, one hospital and a holder with her three credentials, for the tests of what stands on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from wire.dates import NO_END
from zkp import issuance
from zkp.attributes import Credential, Value
from zkp.credentials import ACCOUNT, CLASSES, ENCOUNTER, PERSON, issuer
from zkp.groups import Rand
from zkp.issuance import AccountScope, Occasion

BUREAU_PERSON = issuer(b"the bureau's key material: 32 by", PERSON)
BUREAU_ACCOUNT = issuer(b"the bureau's key material: 32 by", ACCOUNT)
HOSPITAL = issuer(b"a hospital's key material: 32 by", ENCOUNTER)
OTHER_HOSPITAL = issuer(b"another hospital's key material:", ENCOUNTER)

DAY = 46_000
"""The service day of these tests: in December 2025."""

BILL = hashlib.sha256(b"a bill").digest()[:16]
SCOPE = AccountScope("demo", "bureau-1", 1, 2025)


def rand_of(seed: str) -> Rand:
    """The same bytes in every run."""
    count = 0

    def rand(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rand


def occasion(name: str, by: str = "bureau-1") -> Occasion:
    return Occasion("demo", by, hashlib.sha256(name.encode()).digest())


def person_values(**changes: Value) -> dict[str, Value]:
    return {
        "scheme": "390",
        "insutype": "310",
        "psn_type": "11",
        "region": "330100",
        "sex": "2",
        "birth": 29_000,
        "valid_from": 40_000,
        "valid_to": NO_END,
        "handle": hashlib.sha256(b"a handle").digest()[:16],
        **changes,
    }


def account_values(**changes: Value) -> dict[str, Value]:
    return {
        "payer": "bureau-1",
        "layer": 1,
        "year": 2025,
        "visits": 0,
        "cap": 20_000_000,
        "deductible": 80_000,
        **changes,
    }


def encounter_values(**changes: Value) -> dict[str, Value]:
    classes = dict(zip(CLASSES, (250_000, 130_050, 0, 40_000, 5, 0, 0, 0), strict=True))
    return {
        "bill": BILL,
        "hospital": "hospital-1",
        "level": "3",
        "med_type": "21",
        "day": DAY,
        "diagnosis": "I10.x00x002",
        "total": sum(classes.values()),
        **classes,
        **changes,
    }


@dataclass(frozen=True)
class Holder:
    """A person's three credentials. `name` seeds her randomness, so that two names are two people."""

    name: str
    person: Credential
    account: Credential
    encounter: Credential


def _frozen(values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


@cache
def _person(name: str, values: tuple[tuple[str, Value], ...]) -> Credential:
    when = occasion(f"person/{name}")
    pending = issuance.request_person(BUREAU_PERSON.of, when, rand_of(f"person/{name}"))
    answer = issuance.issue_person(BUREAU_PERSON, when, pending.request, name.encode(), dict(values), {})
    return issuance.finish(pending, dict(values), answer)


def person(name: str = "anna", **changes: Value) -> Credential:
    return _person(name, _frozen(person_values(**changes)))


@cache
def _encounter(held: Credential, name: str, values: tuple[tuple[str, Value], ...]) -> Credential:
    when = occasion(f"encounter/{name}", "hospital-1")
    rand = rand_of(f"encounter/{name}")
    pending = issuance.request_encounter(HOSPITAL.of, when, held, BUREAU_PERSON.of, ("birth", "sex"), rand)
    shown: dict[str, Value] = {name: held.get(PERSON, name) for name in ("birth", "sex")}
    answer = issuance.issue_encounter(HOSPITAL, BUREAU_PERSON.of, when, pending.request, shown, dict(values), {})
    return issuance.finish(pending, dict(values), answer)


def encounter(held: Credential, name: str = "anna", **changes: Value) -> Credential:
    return _encounter(held, name, _frozen(encounter_values(**changes)))


@cache
def _account(held: Credential, name: str, values: tuple[tuple[str, Value], ...]) -> Credential:
    when, known = occasion(f"account/{name}"), dict(values)
    scope = AccountScope("demo", str(known["payer"]), int(known["layer"]), int(known["year"]))
    disclosed: dict[str, Value] = {name: held.get(PERSON, name) for name in ("insutype", "psn_type")}
    pending = issuance.request_account(
        BUREAU_ACCOUNT.of, when, scope, held, BUREAU_PERSON.of, tuple(disclosed), rand_of(f"account/{name}")
    )
    answer = issuance.open_account(BUREAU_ACCOUNT, BUREAU_PERSON.of, when, scope, pending.request, disclosed, known, {})
    return issuance.finish(pending, known, answer)


def account(held: Credential, name: str = "anna", **changes: Value) -> Credential:
    return _account(held, name, _frozen(account_values(**changes)))


def holder(name: str = "anna", **changes: Value) -> Holder:
    """A person with an account and an encounter; `changes` by attribute of whichever credential has it."""
    of_kind = [
        {key: value for key, value in changes.items() if key in known}
        for known in (person_values(), account_values(), encounter_values())
    ]
    held = person(name, **of_kind[0])
    return Holder(name, held, account(held, name, **of_kind[1]), encounter(held, name, **of_kind[2]))
