"""Grants: signed permission of a data holder for one recipient, and what of it the ledger holds.

    issuer -> recipient    SignedGrant: terms, salt, signature         sealed, kept in both vaults
    issuer -> ledger       AnchorGrant: grant id, commitment, period, epoch

The commitment opens to the terms with the salt, so the recipient can prove which terms it was given,
and the ledger shows neither fields nor purposes. The signature covers the terms and the commitment.
Only a grant that `check_grant` has checked can be decided on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec

from privacy import predicate as predicates
from privacy.grants.levels import IDENTIFIED, Level, StatutoryClass
from privacy.grants.purposes import CONDITIONS
from privacy.masking.masks import Mask
from privacy.predicate import Field, Predicate
from wire.canonical import Wire, encode
from wire.commitment import Place, commit, salt
from wire.dates import Instant
from wire.domains import GRANT
from wire.errors import Refused, VerificationError
from wire.identifiers import Hash, Name, check_name
from wire.signing import Signature, Signer, VerifyKey, verify

VERSION = 2
"""Of the terms that are signed today; those of version 1 are read as `GrantTerms1.in_version_2` says."""

UseKind = Literal["query", "proof", "score", "extract", "view", "export"]
USE_KINDS: tuple[UseKind, ...] = ("query", "proof", "score", "extract", "view", "export")
"""Noised sums; a proof about a record; flags of a reviewed model; a file of rows for one grant; one record looked at;
records in bulk, as they are kept."""
RECORD_KINDS: frozenset[UseKind] = frozenset(("extract", "view", "export"))
"""Uses by which cells of single records leave: those are masked."""

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
CONSENTS: frozenset[LegalBasis] = frozenset(("consent", "separate-consent"))

REFERENCE_LENGTH = 200
"""Characters at most."""
Reference = Annotated[str, msgspec.Meta(max_length=REFERENCE_LENGTH)]
"""Points to a document kept elsewhere; "" for none."""
Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]{0,31}\Z")]
Jurisdiction = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]
Epoch = Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]

HOME = "CN"
"""Jurisdiction of the consortium (ISO 3166): mainland China. Elsewhere a transfer mechanism is named."""

DAY = 86_400_000
"""Milliseconds of a day."""
SHARING_RECORD_DAYS = 3 * 365 + 1
"""How long records of sharing and impact assessments are kept at least (PIPL 56): the longest that three years are."""
MOST_KEEP_DAYS = 36_600
LAST_INSTANT = 2**63 - 1
MIN_GROUP = 5
"""Smallest group of an extract where nobody chose another."""


class GrantTerms(Wire, frozen=True, tag="privacy.grant_terms_2"):
    """What is permitted. Private to issuer and recipient.

    issuer: the organisation that holds the dataset. fields: columns that may be used, those of the
    row filter included. predicate: rows that may be used, or None for all. purposes: codes of
    `privacy.grants.purposes`; each covers what is below it. conditions: codes of DUO's modifiers. uses: ways of
    use. commercial: whether commercial use is permitted (needs legal basis "separate-consent").

    consent_ref, guardian_ref, pia_ref: where consents, those of guardians of persons under 14, and the impact
    assessment are filed. jurisdiction: where the recipient processes; outside `HOME` only with
    transfer_ref, the named transfer mechanism.

    level_ceiling: highest level (`privacy.grants.levels`) of a field that may be used, before any mask;
    class_ceiling: gravest statutory class of the dataset. masks: of fields in copies of records, where
    not those of their levels. min_group: fewest persons that share their quasi-identifiers in an extract.

    not_before <= use < expires; review: until when the issuer will have looked at the grant again: it rests from then
    on unless confirmed. keep_days: how long the recipient may keep a copy; delete_by: when it must have deleted
    all of them, at or after expires. records_until: until when the issuer keeps the records of sharing under this
    grant. epoch: revocation epoch at issue.
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
    conditions: Annotated[tuple[Code, ...], msgspec.Meta(max_length=len(CONDITIONS))]
    uses: Annotated[tuple[UseKind, ...], msgspec.Meta(min_length=1, max_length=len(USE_KINDS))]
    commercial: bool
    legal_basis: LegalBasis
    consent_ref: Reference
    guardian_ref: Reference
    pia_ref: Reference
    jurisdiction: Jurisdiction
    transfer_ref: Reference
    level_ceiling: Level
    class_ceiling: StatutoryClass
    masks: Annotated[tuple[Mask, ...], msgspec.Meta(max_length=1000)]
    min_group: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    keep_days: Annotated[int, msgspec.Meta(ge=1, le=MOST_KEEP_DAYS)]
    not_before: Instant
    review: Instant
    expires: Instant
    delete_by: Instant
    records_until: Instant
    epoch: Epoch


class GrantTerms1(Wire, frozen=True, tag="privacy.grant_terms"):
    """Terms as version 1 had them. They still stand where they were anchored; nobody signs them any more."""

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    grant: Name
    issuer: Name
    recipient: Name
    recipient_contact: Reference
    dataset: Name
    fields: Annotated[tuple[Field, ...], msgspec.Meta(min_length=1, max_length=1000)]
    predicate: Predicate | None
    purposes: Annotated[tuple[Code, ...], msgspec.Meta(min_length=1, max_length=100)]
    uses: Annotated[tuple[Literal["query", "proof", "score", "extract"], ...], msgspec.Meta(min_length=1, max_length=4)]
    commercial: bool
    legal_basis: LegalBasis
    consent_ref: Reference
    pia_ref: Reference
    jurisdiction: Jurisdiction
    transfer_ref: Reference
    not_before: Instant
    expires: Instant
    delete_by: Instant
    epoch: Epoch

    def in_version_2(self) -> GrantTerms:
        """What decisions read: the same permissions, and the mildest that version 1 promised of what it did not say.

        No guardians' consent, no conditions, no review before the end; levels up to 4, class "general", the masks
        of the levels, groups of `MIN_GROUP`; copies until delete_by; records of sharing for three years after it.
        """
        same = {name: getattr(self, name) for name in GrantTerms1.__struct_fields__ if name != "version"}
        return plain_terms(**same, keep_days=MOST_KEEP_DAYS)


AnyTerms = GrantTerms | GrantTerms1


def records_until(expires: int) -> int:
    """The earliest end of keeping records of sharing under a grant that runs out at `expires`."""
    return min(expires + SHARING_RECORD_DAYS * DAY, LAST_INSTANT)


def plain_terms(
    grant: str,
    issuer: str,
    recipient: str,
    dataset: str,
    fields: Sequence[str],
    *,
    purposes: Sequence[str],
    uses: Sequence[UseKind],
    legal_basis: LegalBasis,
    not_before: int,
    expires: int,
    **chosen: Any,
) -> GrantTerms:
    """Terms in which all that is not said is as narrow as a grant can be and still permit something.

    No references to consents or assessments, no commercial use, processed at `HOME`, levels up to 4, class
    "general", the masks of the levels, groups of `MIN_GROUP`, copies for a year and not after the end, no review
    before it, records of sharing for three years after it, revocation epoch 0. chosen: other fields of `GrantTerms`
    by name; TypeError for a name that is none. Whether the terms can be is for `check_terms`.
    """
    plain: dict[str, Any] = {
        "version": VERSION,
        "recipient_contact": "",
        "predicate": None,
        "conditions": (),
        "commercial": False,
        "consent_ref": "",
        "guardian_ref": "",
        "pia_ref": "",
        "jurisdiction": HOME,
        "transfer_ref": "",
        "level_ceiling": IDENTIFIED,
        "class_ceiling": "general",
        "masks": (),
        "min_group": MIN_GROUP,
        "keep_days": 365,
        "review": expires,
        "delete_by": expires,
        "records_until": records_until(expires),
        "epoch": 0,
    }
    said = {
        "grant": grant,
        "issuer": issuer,
        "recipient": recipient,
        "dataset": dataset,
        "fields": tuple(fields),
        "purposes": tuple(purposes),
        "uses": tuple(uses),
        "legal_basis": legal_basis,
        "not_before": not_before,
        "expires": expires,
    }
    return GrantTerms(**{**plain, **chosen, **said})


class SignedBody(Wire, frozen=True, tag="privacy.grant_body"):
    """What the issuer signs under domain GRANT."""

    terms: AnyTerms
    commitment: Hash


class SignedGrant(Wire, frozen=True, tag="privacy.signed_grant"):
    """What the recipient gets. salt: 32 secret bytes that open the ledger's commitment."""

    terms: AnyTerms
    salt: Hash
    signature: Signature

    def __repr__(self) -> str:
        return f"SignedGrant({self.terms.grant!r})"


class CheckedGrant(msgspec.Struct, frozen=True):
    """A grant whose signature and form hold; made by `check_grant` alone.

    terms: as decisions read them. commitment: to the terms that were signed, which were of `version`.
    """

    terms: GrantTerms
    commitment: bytes
    version: int = VERSION


def grant_salt(terms: AnyTerms, salt_key: bytes) -> bytes:
    """The salt (secret) of the grant's commitment. salt_key: the issuer's, of at least 16 secret bytes."""
    return salt(salt_key, Place("grants", "anchor", terms.recipient, terms.grant, "terms", terms.epoch))


def grant_commitment(terms: AnyTerms, salt_key: bytes) -> bytes:
    """The 32 public bytes that the issuer anchors on the ledger."""
    return commit(grant_salt(terms, salt_key), encode(terms))


def check_terms(terms: AnyTerms) -> None:
    """Check what the types cannot say, also of terms built in memory. Raises Refused naming the field."""
    try:
        msgspec.convert(msgspec.to_builtins(terms), type(terms))
    except msgspec.ValidationError:
        raise Refused("privacy.grant_form", grant=terms.grant[:64], field="form") from None
    for name in (terms.grant, terms.issuer, terms.recipient, terms.dataset):
        check_name(name, "grant, organisation or dataset")
    for field, wrong in (
        ("version", terms.version != (VERSION if isinstance(terms, GrantTerms) else 1)),
        ("recipient", terms.recipient == terms.issuer),
        ("fields", _repeats(terms.fields)),
        ("purposes", _repeats(terms.purposes)),
        ("uses", _repeats(terms.uses)),
        ("expires", not terms.not_before < terms.expires),
        ("delete_by", terms.delete_by < terms.expires),
        *(_wrong_in_version_2(terms) if isinstance(terms, GrantTerms) else ()),
    ):
        if wrong:
            raise Refused("privacy.grant_form", grant=terms.grant, field=field)
    if terms.predicate is not None:
        predicates.check(terms.predicate)


def _wrong_in_version_2(terms: GrantTerms) -> tuple[tuple[str, bool], ...]:
    masked = [mask.field for mask in terms.masks]
    return (
        ("conditions", _repeats(terms.conditions) or not set(terms.conditions) <= CONDITIONS.keys()),
        ("masks", _repeats(masked) or not set(masked) <= set(terms.fields) or not all(map(_whole, terms.masks))),
        ("review", not terms.not_before < terms.review <= terms.expires),
        ("records_until", terms.records_until < terms.expires),
    )


def _whole(mask: Mask) -> bool:
    """Whether a mask has the edges that its kind needs, rising, and no others."""
    rising = all(a < b for a, b in pairwise(mask.edges))
    return rising and {"band": len(mask.edges) >= 2, "identity": True}.get(mask.kind, not mask.edges)


def _repeats(values: Sequence[str]) -> bool:
    return len(set(values)) != len(values)


def sign_grant(terms: GrantTerms, signer: Signer, salt_key: bytes) -> SignedGrant:
    """Sign the terms with the issuer's envelope key.

    Raises Refused for terms that do not check, and for a row filter of columns that are not among the fields: rows that
    were chosen by a column tell it.
    """
    check_terms(terms)
    if terms.predicate is not None and not predicates.columns(terms.predicate) <= set(terms.fields):
        raise Refused("privacy.grant_form", grant=terms.grant, field="fields")
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
    terms = signed.terms
    if isinstance(terms, GrantTerms):
        return CheckedGrant(terms, commitment)
    return CheckedGrant(terms.in_version_2(), commitment, version=1)
