"""A grant is its issuer's word, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from privacy.decide import UseRequest, decide
from privacy.grants.purposes import CONDITIONS
from privacy.grants.terms import (
    LEGAL_BASES,
    USE_KINDS,
    GrantTerms,
    GrantTerms1,
    LegalBasis,
    SignedBody,
    SignedGrant,
    UseKind,
    check_grant,
    check_terms,
    grant_commitment,
    grant_salt,
    plain_terms,
    records_until,
    sign_grant,
)
from privacy.masking.masks import Mask
from privacy.predicate import And, Compare, IsNull, Not, Predicate
from wire import commitment
from wire.canonical import decode, encode
from wire.domains import GRANT
from wire.errors import DecodeError, MedveilError, Refused, VerificationError
from wire.signing import Signer


def test_sign_and_check(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    signed = sign_grant(terms, signer, salt_key)
    again = decode(SignedGrant, encode(signed))
    checked = check_grant(again, signer.key)
    assert checked.terms == terms
    assert checked.commitment == grant_commitment(terms, salt_key)
    commitment.check(checked.commitment, signed.salt, encode(terms))


def test_the_commitment_hides_and_is_the_places_own(terms: GrantTerms, salt_key: bytes) -> None:
    found = {
        grant_commitment(changed, key)
        for changed in (
            terms,
            msgspec.structs.replace(terms, recipient="insurer"),
            msgspec.structs.replace(terms, epoch=1),
            msgspec.structs.replace(terms, grant="grant-2"),
        )
        for key in (salt_key, b"j" * 32)
    }
    assert len(found) == 8
    assert len(grant_salt(terms, salt_key)) == 32


def test_its_text_shows_neither_salt_nor_terms(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    assert repr(sign_grant(terms, signer, salt_key)) == "SignedGrant('grant-1')"


def test_any_altered_byte_is_refused(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    data = encode(sign_grant(terms, signer, salt_key))
    for position in range(len(data)):
        altered = data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            check_grant(decode(SignedGrant, altered), signer.key)


def _mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Bits flipped, bytes cut, doubled, or taken from another grant of the same issuer."""
    at, length = draw.randrange(len(data)), draw.randrange(1, 40)
    match draw.randrange(4):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[: at + length] + data[at:]
    return data[:at] + other[at : at + length] + data[at + length :]


def _no_mutation_passes(terms: GrantTerms, signer: Signer, salt_key: bytes, count: int) -> None:
    data = encode(sign_grant(terms, signer, salt_key))
    wider = msgspec.structs.replace(terms, grant="grant-2", fields=("visits", "health", "name"), level_ceiling=5)
    other = encode(sign_grant(wider, signer, salt_key))
    draw, tried = random.Random(17), 0
    while tried < count:
        bad = _mutated(data, other, draw)
        if bad in (data, other):
            continue
        tried += 1
        with pytest.raises((DecodeError, VerificationError)):
            check_grant(decode(SignedGrant, bad), signer.key)


def test_500_mutated_grants_are_refused(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    _no_mutation_passes(terms, signer, salt_key, 500)


@pytest.mark.long
def test_10_000_mutated_grants_are_refused(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    _no_mutation_passes(terms, signer, salt_key, 10_000)


def test_another_key_is_refused(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    with pytest.raises(VerificationError) as raised:
        check_grant(sign_grant(terms, signer, salt_key), Signer(b"t" * 32).key)
    assert raised.value.code == "privacy.grant_signature"
    signed = msgspec.structs.replace(sign_grant(terms, signer, salt_key), salt=b"short")
    with pytest.raises(VerificationError):
        check_grant(signed, signer.key)


def _too_deep() -> Predicate:
    deep: Predicate = IsNull("visits")
    for _ in range(40):
        deep = Not(deep)
    return deep


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": 3},
        {"recipient": "hospital-1"},
        {"fields": ()},
        {"fields": ("visits", "visits")},
        {"fields": ("not a field",)},
        {"purposes": ()},
        {"purposes": ("HRESCH", "HRESCH")},
        {"uses": ()},
        {"uses": ("query", "query")},
        {"uses": ("everything",)},
        {"legal_basis": "because"},
        {"jurisdiction": "china"},
        {"expires": 1_000_000},
        {"delete_by": 2_999_999},
        {"epoch": -1},
        {"epoch": True},
        {"commercial": 1},
        {"dataset": "Bad Name"},
        {"grant": ""},
        {"predicate": Compare("visits", "eq", "\x00")},
        {"predicate": _too_deep()},
        {"consent_ref": "r" * 201},
        {"guardian_ref": "r" * 201},
        {"conditions": ("NCU", "NCU")},
        {"conditions": ("NOPE",)},
        {"level_ceiling": 0},
        {"level_ceiling": 6},
        {"class_ceiling": "secret"},
        {"masks": (Mask("visits", "drop"), Mask("visits", "keep"))},
        {"masks": (Mask("income", "drop"),)},
        {"masks": (Mask("visits", "blur"),)},  # type: ignore[arg-type]
        {"masks": (Mask("visits", "band"),)},
        {"masks": (Mask("visits", "band", (5, 5)),)},
        {"masks": (Mask("visits", "keep", (1, 5)),)},
        {"masks": (Mask("visits", "identity", (9, 5)),)},
        {"min_group": 0},
        {"keep_days": 0},
        {"keep_days": 36_601},
        {"review": 1_000_000},
        {"review": 3_000_001},
        {"records_until": 2_999_999},
    ],
)
def test_malformed_terms_are_never_signed_nor_accepted(
    change: dict[str, Any], terms: GrantTerms, signer: Signer, salt_key: bytes
) -> None:
    bad = msgspec.structs.replace(terms, **change)
    with pytest.raises(MedveilError) as raised:
        check_terms(bad)
    assert isinstance(raised.value, (Refused, DecodeError))
    with pytest.raises(MedveilError):
        sign_grant(bad, signer, salt_key)


def test_terms_at_every_bound_stand(terms: GrantTerms, signer: Signer, salt_key: bytes) -> None:
    wide = msgspec.structs.replace(
        terms,
        not_before=terms.expires - 1,
        review=terms.expires,
        delete_by=terms.expires,
        records_until=terms.expires,
        conditions=tuple(CONDITIONS),
        masks=tuple(Mask(field, "drop") for field in terms.fields),
        predicate=And(tuple(IsNull(field) for field in terms.fields)),
    )
    check_grant(sign_grant(wide, signer, salt_key), signer.key)


def test_the_lists_are_the_types() -> None:
    assert UseKind.__args__ == USE_KINDS  # type: ignore[attr-defined]
    assert LegalBasis.__args__ == LEGAL_BASES  # type: ignore[attr-defined]


# --- terms of version 1 -----------------------------------------------------------------------------


def _first(**changes: Any) -> GrantTerms1:
    first = GrantTerms1(
        version=1,
        grant="grant-1",
        issuer="hospital-1",
        recipient="university",
        recipient_contact="data office",
        dataset="claims-1",
        fields=("visits", "health", "plan"),
        predicate=Compare("visits", "ge", 0),
        purposes=("HRESCH",),
        uses=("query", "extract"),
        commercial=False,
        legal_basis="consent",
        consent_ref="consents/2025-07",
        pia_ref="pia/12",
        jurisdiction="CN",
        transfer_ref="",
        not_before=1_000_000,
        expires=3_000_000,
        delete_by=3_001_000,
        epoch=0,
    )
    return msgspec.structs.replace(first, **changes)


def _signed_1(terms: GrantTerms1, signer: Signer, salt_key: bytes) -> SignedGrant:
    body = SignedBody(terms, grant_commitment(terms, salt_key))
    return SignedGrant(terms, grant_salt(terms, salt_key), signer.sign(GRANT, encode(body)))


def test_terms_of_version_1_still_stand(signer: Signer, salt_key: bytes) -> None:
    signed = _signed_1(_first(), signer, salt_key)
    checked = check_grant(decode(SignedGrant, encode(signed)), signer.key)
    assert checked.version == 1
    assert checked.commitment == grant_commitment(_first(), salt_key)
    terms = checked.terms
    for name in GrantTerms1.__struct_fields__:
        if name != "version":
            assert getattr(terms, name) == getattr(_first(), name)
    assert (terms.version, terms.level_ceiling, terms.class_ceiling, terms.masks) == (2, 4, "general", ())
    assert (terms.guardian_ref, terms.conditions, terms.review) == ("", (), 3_000_000)
    check_terms(terms)
    # Nobody can make it say more by writing it out in version 2.
    assert grant_commitment(terms, salt_key) != checked.commitment


def test_any_altered_byte_of_version_1_is_refused(signer: Signer, salt_key: bytes) -> None:
    data = encode(_signed_1(_first(), signer, salt_key))
    for position in range(len(data)):
        altered = data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]
        with pytest.raises((DecodeError, VerificationError)):
            check_grant(decode(SignedGrant, altered), signer.key)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"uses": ("view",)}, {"delete_by": 0}, {"fields": ()}, {"recipient": "hospital-1"}]
)
def test_malformed_terms_of_version_1_are_refused(change: dict[str, Any], signer: Signer, salt_key: bytes) -> None:
    with pytest.raises(Refused):
        check_grant(_signed_1(_first(**change), signer, salt_key), signer.key)


def test_rows_are_not_chosen_by_a_column_that_is_not_granted(
    terms: GrantTerms, signer: Signer, salt_key: bytes
) -> None:
    """Everybody in them has what was chosen by, and nobody would find the column among the fields."""
    with pytest.raises(Refused) as refused:
        sign_grant(msgspec.structs.replace(terms, fields=("plan",)), signer, salt_key)
    assert refused.value.facts["field"] == "fields"


def test_plain_terms_permit_nothing_that_was_not_said(issue: Callable[..., Any]) -> None:
    """No consent, assessment or commercial use comes by itself: as they are, a decision denies them."""
    plain = plain_terms(
        "g",
        "hospital-1",
        "university",
        "claims",
        ["visits"],
        purposes=["HRESCH"],
        uses=["query"],
        legal_basis="consent",
        not_before=10,
        expires=20,
    )
    check_terms(plain)
    assert (plain.version, plain.commercial, plain.jurisdiction, plain.level_ceiling) == (2, False, "CN", 4)
    assert (plain.review, plain.delete_by, plain.records_until) == (20, 20, records_until(20))
    request = UseRequest("hospital-1", "university", "claims", ("visits",), "query", "HRESCH")
    for chosen, rule in (
        ({}, "legal-basis"),
        ({"consent_ref": "filed"}, "impact-assessment"),
        ({"consent_ref": "filed", "pia_ref": "filed"}, "granted"),
    ):
        grant, state = issue(msgspec.structs.replace(plain, **chosen))
        assert decide(request, [grant], state, 15).rule == rule
    names = {name: getattr(plain, name) for name in GrantTerms.__struct_fields__ if name != "version"}
    assert plain_terms(**{**names, "min_group": 9}).min_group == 9
    with pytest.raises(TypeError):
        plain_terms(**names, anything=1)
