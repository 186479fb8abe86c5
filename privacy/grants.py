"""Grants: signed permission of a data holder for one recipient, and what of it the ledger holds.

    issuer -> recipient    SignedGrant: terms, salt, signature         sealed, kept in both vaults
    issuer -> ledger       AnchorGrant: grant id, commitment, period, epoch

The commitment opens to the terms with the salt, so the recipient can prove which terms it was given,
and the ledger shows neither fields nor purposes. The signature covers the terms and the commitment.
Only a grant that `check_grant` has checked can be decided on.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from privacy import predicate as predicates
from privacy.predicate import Field, Predicate
from wire.canonical import Wire, encode
from wire.commitment import Place, commit, salt
from wire.dates import Instant
from wire.domains import GRANT
from wire.errors import Refused, VerificationError
from wire.identifiers import Hash, Name, check_name
from wire.signing import Signature, Signer, VerifyKey, verify

VERSION = 1

UseKind = Literal["query", "proof", "score", "extract"]
USE_KINDS: tuple[UseKind, ...] = ("query", "proof", "score", "extract")

LegalBasis = Literal[
    "consent", "separate-consent", "contract", "statutory-duty", "public-health-emergency", "public-record", "other-law"
]
LEGAL_BASES: tuple[LegalBasis, ...] = (
    "consent",
    "separate-consent",
    "contract",
    "statutory-duty",
    "public-health-emergency",
    "public-record",
    "other-law",
)
"""Bases of processing after PIPL article 13, and the separate consent of articles 23, 29 and 39."""

Reference = Annotated[str, msgspec.Meta(max_length=200)]
"""Points to a document kept elsewhere; "" for none."""
Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{0,31}\Z")]
Jurisdiction = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]

HOME = "CN"
"""Jurisdiction of the consortium (ISO 3166): mainland China. Elsewhere a transfer mechanism is named."""


class GrantTerms(Wire, frozen=True, tag="privacy.grant_terms"):
    """What is permitted. Private to issuer and recipient.

    issuer: the organisation that holds the dataset. fields: columns that may be used, those of the
    row filter included. predicate: rows that may be used, or None for all. purposes: codes of
    `privacy.purposes`; each covers what is below it. uses: ways of use. commercial: whether commercial
    use is permitted (needs legal basis "separate-consent"). consent_ref, pia_ref: where consents and
    the impact assessment are filed. jurisdiction: where the recipient processes; outside `HOME` only
    with transfer_ref, the named transfer mechanism. not_before <= use < expires; delete_by: when the
    recipient must have deleted what it got, at or after expires. epoch: revocation epoch at issue.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    grant: Name
    issuer: Name
    recipient: Name
    recipient_contact: Reference
    dataset: Name
    fields: Annotated[tuple[Field, ...], msgspec.Meta(min_length=1, max_length=1000)]
    predicate: Predicate | None
    purposes: Annotated[tuple[Code, ...], msgspec.Meta(min_length=1, max_length=100)]
    uses: Annotated[tuple[UseKind, ...], msgspec.Meta(min_length=1, max_length=4)]
    commercial: bool
    legal_basis: LegalBasis
    consent_ref: Reference
    pia_ref: Reference
    jurisdiction: Jurisdiction
    transfer_ref: Reference
    not_before: Instant
    expires: Instant
    delete_by: Instant
    epoch: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]


class SignedBody(Wire, frozen=True, tag="privacy.grant_body"):
    """What the issuer signs under domain GRANT."""

    terms: GrantTerms
    commitment: Hash


class SignedGrant(Wire, frozen=True, tag="privacy.signed_grant"):
    """What the recipient gets. salt: 32 secret bytes that open the ledger's commitment."""

    terms: GrantTerms
    salt: Hash
    signature: Signature

    def __repr__(self) -> str:
        return f"SignedGrant({self.terms.grant!r})"


class CheckedGrant(msgspec.Struct, frozen=True):
    """A grant whose signature and form hold; made by `check_grant` alone. commitment: to its terms."""

    terms: GrantTerms
    commitment: bytes


def grant_salt(terms: GrantTerms, salt_key: bytes) -> bytes:
    """The salt (secret) of the grant's commitment. salt_key: the issuer's, of at least 16 secret bytes."""
    return salt(salt_key, Place("grants", "anchor", terms.recipient, terms.grant, "terms", terms.epoch))


def grant_commitment(terms: GrantTerms, salt_key: bytes) -> bytes:
    """The 32 public bytes that the issuer anchors on the ledger."""
    return commit(grant_salt(terms, salt_key), encode(terms))


def check_terms(terms: GrantTerms) -> None:
    """Check what the types cannot say, also of terms built in memory. Raises Refused naming the field."""
    try:
        msgspec.convert(msgspec.to_builtins(terms), GrantTerms)
    except msgspec.ValidationError:
        raise Refused("privacy.grant_form", grant=terms.grant[:64], field="form") from None
    for name in (terms.grant, terms.issuer, terms.recipient, terms.dataset):
        check_name(name, "grant, organisation or dataset")
    for field, wrong in (
        ("version", terms.version != VERSION),
        ("recipient", terms.recipient == terms.issuer),
        ("fields", len(set(terms.fields)) != len(terms.fields)),
        ("purposes", len(set(terms.purposes)) != len(terms.purposes)),
        ("uses", len(set(terms.uses)) != len(terms.uses)),
        ("expires", not terms.not_before < terms.expires),
        ("delete_by", terms.delete_by < terms.expires),
    ):
        if wrong:
            raise Refused("privacy.grant_form", grant=terms.grant, field=field)
    if terms.predicate is not None:
        predicates.check(terms.predicate)


def sign_grant(terms: GrantTerms, signer: Signer, salt_key: bytes) -> SignedGrant:
    """Sign the terms with the issuer's envelope key. Raises Refused for terms that do not check."""
    check_terms(terms)
    opening = grant_salt(terms, salt_key)
    body = SignedBody(terms, commit(opening, encode(terms)))
    return SignedGrant(terms, opening, signer.sign(GRANT, encode(body)))


def check_grant(signed: SignedGrant, issuer_key: VerifyKey) -> CheckedGrant:
    """Check the issuer's signature, then the form. issuer_key: envelope key of `signed.terms.issuer`.

    Raises VerificationError (signature), Refused (terms that do not check). Whether the grant stands on
    the ledger, with this commitment and unrevoked, is for `privacy.decide`.
    """
    if len(signed.salt) != 32:
        raise VerificationError("privacy.grant_signature", grant=signed.terms.grant)
    commitment = commit(signed.salt, encode(signed.terms))
    try:
        verify(issuer_key, GRANT, encode(SignedBody(signed.terms, commitment)), signed.signature)
    except VerificationError:
        raise VerificationError("privacy.grant_signature", grant=signed.terms.grant) from None
    check_terms(signed.terms)
    return CheckedGrant(signed.terms, commitment)
