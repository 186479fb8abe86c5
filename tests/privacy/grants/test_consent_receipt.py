"""A receipt says what the grant says, byte for byte, and another reader of FHIR takes it."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from fhir.resources.R4B.consent import Consent as OtherConsent

from privacy.grants.consent_receipt import (
    ConsentReceipt,
    check_receipt,
    check_receipt_of,
    consent_of,
    make_receipt,
    read_consent,
)
from privacy.grants.terms import GrantTerms, GrantTerms1, grant_commitment
from privacy.masking.masks import Mask
from privacy.predicate import Compare
from wire import evidence
from wire.canonical import decode, encode
from wire.errors import DecodeError, MedveilError, VerificationError
from wire.signing import Signer

AT = 1_780_000_000_000


@pytest.fixture
def full(terms: GrantTerms) -> GrantTerms:
    """A grant in which everything is said."""
    return msgspec.structs.replace(
        terms,
        purposes=("HMB", "DSRCH"),
        conditions=("NCU", "IRB"),
        uses=("query", "extract", "view"),
        masks=(Mask("health", "drop"), Mask("plan", "keep")),
        guardian_ref="guardians/3",
        transfer_ref="contract/9",
        level_ceiling=5,
        class_ceiling="important",
        not_before=AT,
        review=AT + 1,
        expires=AT + 10_000,
        delete_by=AT + 20_000,
        records_until=AT + 10**11,
    )


@pytest.fixture
def receipt(full: GrantTerms, signer: Signer, salt_key: bytes) -> ConsentReceipt:
    return make_receipt(full, grant_commitment(full, salt_key), "active", AT, signer)


def test_made_checked_and_the_same_every_time(
    receipt: ConsentReceipt, full: GrantTerms, signer: Signer, salt_key: bytes
) -> None:
    again = decode(ConsentReceipt, encode(receipt))
    consent = check_receipt_of(again, signer.key, full, grant_commitment(full, salt_key))
    assert consent == check_receipt(again, signer.key)
    assert (consent.status, consent.identifier[0].value) == ("active", "hospital-1/grant-1/0")
    assert make_receipt(full, grant_commitment(full, salt_key), "active", AT, signer) == receipt
    assert evidence.read(encode(receipt)) == receipt


def test_another_reader_of_fhir_takes_it(receipt: ConsentReceipt, terms: GrantTerms, salt_key: bytes) -> None:
    """fhir.resources checks the elements of R4B and their types; what it writes is the same JSON."""
    other = OtherConsent.model_validate_json(receipt.consent)
    assert json.loads(other.model_dump_json()) == json.loads(receipt.consent)
    assert other.provision.period.end.isoformat() == "2026-05-28T20:26:50+00:00"
    codes = {coding.code for coding in other.provision.purpose}
    assert codes == {"DUO_0000006", "DSRCH"}
    assert [action.coding[0].code for action in other.provision.action] == ["use", "disclose", "access"]
    assert other.scope.coding[0].code == "research"
    bare = msgspec.json.encode(consent_of(terms, grant_commitment(terms, salt_key), "inactive", AT))
    assert OtherConsent.model_validate_json(bare).status == "inactive"


# Every field of the terms that a receipt repeats, and how it reads there.
CHANGES: dict[str, Any] = {
    "grant": "grant-2",
    "issuer": "hospital-2",
    "recipient": "insurer",
    "recipient_contact": "someone else",
    "dataset": "claims-2",
    "fields": ("visits", "health"),
    "predicate": Compare("visits", "ge", 1),
    "purposes": ("HMB",),
    "conditions": ("NCU",),
    "uses": ("query", "score"),
    "commercial": True,
    "legal_basis": "statutory-duty",
    "consent_ref": "",
    "guardian_ref": "",
    "pia_ref": "pia/13",
    "jurisdiction": "US",
    "transfer_ref": "",
    "level_ceiling": 4,
    "class_ceiling": "core",
    "masks": (),
    "min_group": 6,
    "keep_days": 1,
    "not_before": AT - 60_000,
    "review": AT + 5_000,
    "expires": AT + 15_000,
    "delete_by": AT + 40_000,
    "records_until": AT + 10**11 + 5000,
    "epoch": 1,
}


def test_the_changes_name_every_field() -> None:
    assert CHANGES.keys() == set(GrantTerms.__struct_fields__) - {"version"}


@pytest.mark.parametrize("field", CHANGES)
def test_a_receipt_of_other_terms_is_refused(
    field: str, receipt: ConsentReceipt, full: GrantTerms, signer: Signer, salt_key: bytes
) -> None:
    changed = msgspec.structs.replace(full, **{field: CHANGES[field]})
    commitment = grant_commitment(full, salt_key)
    assert consent_of(changed, commitment, "active", AT) != consent_of(full, commitment, "active", AT)
    with pytest.raises(VerificationError):
        check_receipt_of(receipt, signer.key, changed, commitment)
    with pytest.raises(VerificationError):
        check_receipt_of(receipt, signer.key, full, grant_commitment(changed, salt_key))


def test_any_altered_byte_is_refused(receipt: ConsentReceipt, signer: Signer) -> None:
    data = encode(receipt)
    for position in range(len(data)):
        altered = data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            check_receipt(decode(ConsentReceipt, altered), signer.key)


def test_another_key_another_domain(receipt: ConsentReceipt, signer: Signer) -> None:
    with pytest.raises(VerificationError):
        check_receipt(receipt, Signer(b"t" * 32).key)
    swapped = msgspec.structs.replace(receipt, signature=signer.sign(b"medveil/v1/grant", receipt.consent))
    with pytest.raises(VerificationError) as refused:
        check_receipt(swapped, signer.key)
    assert refused.value.code == "privacy.consent_receipt"


def test_a_signed_receipt_names_its_own_grant(receipt: ConsentReceipt, full: GrantTerms, signer: Signer) -> None:
    """The issuer itself puts another grant's Consent under a name."""
    other = make_receipt(full, bytes(32), "active", AT, signer)
    body = msgspec.structs.replace(receipt, consent=other.consent)
    from privacy.grants.consent_receipt import ReceiptBody
    from wire.domains import CONSENT_RECEIPT

    signed = ReceiptBody(body.issuer, body.grant, body.at, body.commitment, body.consent)
    forged = msgspec.structs.replace(body, signature=signer.sign(CONSENT_RECEIPT, encode(signed)))
    with pytest.raises(VerificationError):
        check_receipt(forged, signer.key)


def test_mutated_json_is_never_read_as_something_else(receipt: ConsentReceipt) -> None:
    seeded = random.Random(7)
    for _ in range(500):
        data = bytearray(receipt.consent)
        for _ in range(seeded.randint(1, 3)):
            match seeded.randrange(3):
                case 0:
                    data[seeded.randrange(len(data))] = seeded.randrange(256)
                case 1:
                    del data[seeded.randrange(len(data))]
                case _:
                    data.insert(seeded.randrange(len(data)), seeded.randrange(256))
        try:
            consent = read_consent(bytes(data))
        except MedveilError:
            continue
        assert msgspec.json.encode(consent) == bytes(data)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"resourceType":"Patient"}', b"{" * 100_000, b" " * 300_000])
def test_what_is_no_consent(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_consent(data)


def test_purposes_decide_the_scope(terms: GrantTerms) -> None:
    for purposes, scope in (
        (("HMB", "HRESCH"), "research"),
        (("TREAT", "CC"), "treatment"),
        (("HMB", "FRAUD"), "patient-privacy"),
        (("HPAYMT",), "patient-privacy"),
    ):
        changed = msgspec.structs.replace(terms, purposes=purposes)
        assert consent_of(changed, bytes(32), "active", AT).scope.coding[0].code == scope


def test_a_receipt_of_version_1(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    told = {name: getattr(terms, name) for name in GrantTerms1.__struct_fields__ if name != "version"}
    first = GrantTerms1(version=1, **told)
    commitment = grant_commitment(first, salt_key)
    made = make_receipt(first, commitment, "active", AT, signer)
    assert check_receipt_of(made, signer.key, first, commitment).id == commitment[:16].hex()
    OtherConsent.model_validate_json(made.consent)


def test_instants_beyond_what_fhir_writes_are_left_out(terms: GrantTerms) -> None:
    far = msgspec.structs.replace(terms, expires=2**62, review=2**62, delete_by=2**62, records_until=2**62)
    data = msgspec.json.encode(consent_of(far, bytes(32), "active", AT))
    assert OtherConsent.model_validate_json(data).provision.period.end is None
