"""A grant as a signed FHIR Consent: the receipt that a data officer hands out, and that other systems can read.

    consent    FHIR R4B Consent as JSON, exact bytes: who may use which data, for what, until when
    receipt    issuer, grant, time, commitment on the ledger, consent, signature; evidence kind "consent-receipt"

The issuer's envelope key signs the exact bytes of the JSON under domain CONSENT_RECEIPT, with the grant's
commitment, so that the receipt can be held against the ledger. `check_receipt` checks the signature and the JSON;
`check_receipt_of` also that it says what a grant's terms say. The Consent is about a dataset and names no patient.

What FHIR has no place for stands in extensions `urn:medveil:grant:*`: fields, row filter (in words), masks, level
and class ceilings, conditions, dates of review and deletion, references. A row filter is shown in words and is not
to be executed; the terms are what decides.

Departures: a plain JOSE library does not check the signature (`medveil grants receipt --check` does). Of FHIR only
the subset below is written, and nothing else is read.

Spec: FHIR R4B (4.3.0), Consent; HL7 Terminology consentscope, consentaction, v3-ActCode IDSCL, v3-ParticipationType
IRCP, v3-RoleClass; v3-Confidentiality by level. Review status: not reviewed outside the project.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from privacy.explain import in_words
from privacy.grants.levels import mask_text
from privacy.grants.purposes import CONDITIONS, PURPOSES, covering
from privacy.grants.terms import AnyTerms, GrantTerms, UseKind
from wire import evidence
from wire.canonical import Wire, encode
from wire.dates import Instant, format_instant
from wire.domains import CONSENT_RECEIPT
from wire.errors import DecodeError, VerificationError
from wire.evidence import Header
from wire.identifiers import Hash, Name
from wire.signing import Signature, Signer, VerifyKey, verify

LARGEST = 256 * 1024
"""Longest Consent in bytes: a thousand fields with long names fit."""

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_DUO = "http://purl.obolibrary.org/obo/"
_GRANT = "urn:medveil:grant"
_ACTIONS: dict[UseKind, str] = {
    "query": "use",
    "proof": "use",
    "score": "use",
    "extract": "disclose",
    "view": "access",
    "export": "disclose",
}
_CONFIDENTIALITY = {1: "U", 2: "L", 3: "N", 4: "R", 5: "V"}

ConsentStatus = Literal["active", "inactive"]


class _Fhir(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """An element of FHIR, of which the subset below is known."""


class Coding(_Fhir, frozen=True):
    """A code of a vocabulary."""

    system: str
    code: str
    display: str = ""


class Concept(_Fhir, frozen=True):
    """CodeableConcept."""

    coding: tuple[Coding, ...] = ()
    text: str = ""


class Identifier(_Fhir, frozen=True):
    """A name within a system."""

    system: str
    value: str


class Reference(_Fhir, frozen=True):
    """To something that is named, not fetched. type: the FHIR type."""

    type: str = ""
    identifier: Identifier | None = None
    display: str = ""


class Extension(_Fhir, frozen=True):
    """One of medveil's: a text, a whole number or an instant, or further extensions."""

    url: str
    extension: tuple[Extension, ...] = ()
    value_string: str | None = None
    value_integer: int | None = None
    value_date_time: str | None = None


class Period(_Fhir, frozen=True):
    """From when until when."""

    start: str = ""
    end: str = ""


class Actor(_Fhir, frozen=True):
    """Who, and as what."""

    role: Concept
    reference: Reference


class Data(_Fhir, frozen=True):
    """What is controlled."""

    meaning: str
    reference: Reference


class Policy(_Fhir, frozen=True):
    """The rule that it rests on."""

    uri: str


class Provision(_Fhir, frozen=True):
    """What is permitted."""

    extension: tuple[Extension, ...]
    type: Literal["permit"]
    period: Period
    actor: tuple[Actor, ...]
    action: tuple[Concept, ...]
    security_label: tuple[Coding, ...]
    purpose: tuple[Coding, ...]
    data: tuple[Data, ...]


class Consent(_Fhir, frozen=True, tag_field="resourceType", tag="Consent"):
    """FHIR R4B Consent, the subset that a grant needs."""

    id: str
    identifier: tuple[Identifier, ...]
    status: ConsentStatus
    scope: Concept
    category: tuple[Concept, ...]
    organization: tuple[Reference, ...]
    policy: tuple[Policy, ...]
    provision: Provision
    date_time: str = ""
    source_reference: Reference | None = None


class ConsentReceipt(Wire, frozen=True, tag="privacy.consent_receipt"):
    """What the data officer hands out. at: when it was made; commitment: of the terms, as the ledger has it."""

    header: Header
    issuer: Name
    grant: Name
    at: Instant
    commitment: Hash
    consent: Annotated[bytes, msgspec.Meta(max_length=LARGEST)]
    signature: Signature


class ReceiptBody(Wire, frozen=True, tag="privacy.consent_receipt_body"):
    """What is signed under domain CONSENT_RECEIPT."""

    issuer: Name
    grant: Name
    at: Instant
    commitment: Hash
    consent: bytes


HEADER = evidence.register("consent-receipt", 1, ConsentReceipt)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Consent)


def consent_of(terms: AnyTerms, commitment: bytes, status: ConsentStatus, at: int) -> Consent:
    """The Consent that says what `terms` say, as of instant `at`. status: "inactive" once revoked or expired."""
    now = terms if isinstance(terms, GrantTerms) else terms.in_version_2()
    recipient, issuer = _organisation(now.recipient), _organisation(now.issuer)
    return Consent(
        id=commitment[:16].hex(),
        identifier=(Identifier(_GRANT, f"{now.issuer}/{now.grant}/{now.epoch}"),),
        status=status,
        scope=Concept((Coding(_TERMINOLOGY + "consentscope", _scope(now)),)),
        category=(Concept((Coding(_TERMINOLOGY + "v3-ActCode", "IDSCL", "information disclosure"),)),),
        organization=(issuer,),
        policy=(Policy(f"urn:medveil:legal-basis:{now.legal_basis}"),),
        provision=Provision(
            extension=_extensions(now, commitment),
            type="permit",
            period=Period(_time(now.not_before), _time(now.expires)),
            actor=(
                Actor(
                    Concept((Coding(_TERMINOLOGY + "v3-ParticipationType", "IRCP", "information recipient"),)),
                    recipient,
                ),
                Actor(Concept((Coding(_TERMINOLOGY + "v3-ParticipationType", "CST", "custodian"),)), issuer),
            ),
            action=tuple(
                Concept((Coding(_TERMINOLOGY + "consentaction", action),))
                for action in dict.fromkeys(_ACTIONS[kind] for kind in now.uses)
            ),
            security_label=(Coding(_TERMINOLOGY + "v3-Confidentiality", _CONFIDENTIALITY[now.level_ceiling]),),
            purpose=tuple(_purpose(code) for code in now.purposes),
            data=(Data("instance", Reference(identifier=Identifier("urn:medveil:dataset", now.dataset))),),
        ),
        date_time=_time(at),
        source_reference=(
            Reference("DocumentReference", Identifier("urn:medveil:consent", now.consent_ref))
            if now.consent_ref
            else None
        ),
    )


def _organisation(name: str) -> Reference:
    return Reference("Organization", Identifier("urn:medveil:organisation", name), name)


def _scope(terms: GrantTerms) -> str:
    wider = [covering(code) for code in terms.purposes]
    for scope, root in (("research", "HRESCH"), ("treatment", "TREAT")):
        if all(root in codes for codes in wider):
            return scope
    return "patient-privacy"


def _purpose(code: str) -> Coding:
    known = PURPOSES[code]
    if known.standard.startswith("DUO:"):
        return Coding(_DUO, known.standard.replace(":", "_"), known.english)
    return Coding(_TERMINOLOGY + "v3-ActReason", code, known.english)


def _time(instant: int) -> str:
    text = format_instant(instant)
    return text if text.endswith("Z") else ""  # beyond the years that FHIR can write: left out


def _extensions(terms: GrantTerms, commitment: bytes) -> tuple[Extension, ...]:
    def text(name: str, *values: str) -> tuple[Extension, ...]:
        return tuple(Extension(f"{_GRANT}:{name}", value_string=value) for value in values if value)

    def number(name: str, value: int) -> tuple[Extension, ...]:
        return (Extension(f"{_GRANT}:{name}", value_integer=value),)

    def time(name: str, instant: int) -> tuple[Extension, ...]:
        written = _time(instant)
        return (Extension(f"{_GRANT}:{name}", value_date_time=written),) if written else ()

    masks = tuple(
        Extension(f"{_GRANT}:mask", (*text("field", mask.field), *text("mask", mask_text(mask))))
        for mask in terms.masks
    )
    return (
        *text("commitment", commitment.hex()),
        *text("use", *terms.uses),
        *text("field", *terms.fields),
        *text("rows", "" if terms.predicate is None else in_words(terms.predicate)),
        *masks,
        *text("condition", *(CONDITIONS[code].standard for code in terms.conditions)),
        *text("commercial", "yes" if terms.commercial else "no"),
        *text("guardian-reference", terms.guardian_ref),
        *text("impact-assessment", terms.pia_ref),
        *text("jurisdiction", terms.jurisdiction),
        *text("transfer-mechanism", terms.transfer_ref),
        *text("recipient-contact", terms.recipient_contact),
        *number("level-ceiling", terms.level_ceiling),
        *text("class-ceiling", terms.class_ceiling),
        *number("smallest-group", terms.min_group),
        *number("days-kept", terms.keep_days),
        *time("review", terms.review),
        *time("delete-by", terms.delete_by),
        *time("records-kept-until", terms.records_until),
    )


def make_receipt(terms: AnyTerms, commitment: bytes, status: ConsentStatus, at: int, signer: Signer) -> ConsentReceipt:
    """Issuer: the receipt of a grant as it stands at instant `at`. signer: of the envelope key."""
    consent = _encoder.encode(consent_of(terms, commitment, status, at))
    body = ReceiptBody(terms.issuer, terms.grant, at, commitment, consent)
    signature = signer.sign(CONSENT_RECEIPT, encode(body))
    return ConsentReceipt(HEADER, body.issuer, body.grant, at, commitment, consent, signature)


def check_receipt(receipt: ConsentReceipt, issuer_key: VerifyKey) -> Consent:
    """Check signature and JSON; returns the Consent. issuer_key: envelope key of `receipt.issuer`, then.

    Raises VerificationError: whether the grant stands is the ledger's to say, by `receipt.commitment`.
    """
    body = ReceiptBody(receipt.issuer, receipt.grant, receipt.at, receipt.commitment, receipt.consent)
    try:
        if receipt.header != HEADER:
            raise VerificationError("privacy.consent_receipt", grant=receipt.grant)
        verify(issuer_key, CONSENT_RECEIPT, encode(body), receipt.signature)
        consent = read_consent(receipt.consent)
    except (VerificationError, DecodeError):
        raise VerificationError("privacy.consent_receipt", grant=receipt.grant) from None
    named = Identifier(_GRANT, f"{receipt.issuer}/{receipt.grant}/")
    if consent.id != receipt.commitment[:16].hex() or not consent.identifier[0].value.startswith(named.value):
        raise VerificationError("privacy.consent_receipt", grant=receipt.grant)
    return consent


def check_receipt_of(receipt: ConsentReceipt, issuer_key: VerifyKey, terms: AnyTerms, commitment: bytes) -> Consent:
    """As `check_receipt`, and that it says what these terms say. Raises VerificationError."""
    consent = check_receipt(receipt, issuer_key)
    if consent != consent_of(terms, commitment, consent.status, receipt.at) or receipt.commitment != commitment:
        raise VerificationError("privacy.consent_receipt", grant=receipt.grant)
    return consent


def read_consent(data: bytes) -> Consent:
    """The Consent in JSON bytes that this program wrote. Raises DecodeError for anything else."""
    if len(data) > LARGEST:
        raise DecodeError("wire.too_long", kind="Consent", length=len(data), limit=LARGEST)
    try:
        consent = _decoder.decode(data)
        again = _encoder.encode(consent)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise DecodeError("wire.not_canonical", kind="Consent") from None
    if again != data or not consent.identifier:
        raise DecodeError("wire.not_canonical", kind="Consent")
    return consent
