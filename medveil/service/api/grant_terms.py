"""The terms of a grant as bodies carry them, sent and shown."""

from typing import Annotated

from pydantic import BaseModel, Field

from medveil.service.api.bodies import Sent
from medveil.service.api.fields import WHOLE, Code, Column, Filter, FilterView, Flag, Instant, Name, Reference
from privacy.filters import show_filter
from privacy.grants.levels import IDENTIFIED, StatutoryClass, mask_of, mask_text
from privacy.grants.purposes import CONDITIONS
from privacy.grants.terms import (
    HOME,
    MIN_GROUP,
    MOST_KEEP_DAYS,
    USE_KINDS,
    VERSION,
    CheckedGrant,
    GrantTerms,
    LegalBasis,
    UseKind,
    check_terms,
    records_until,
)

MaskText = Annotated[str, Field(max_length=1200, examples=["surname"], description="A kind, then :level and :edges.")]
Jurisdiction = Annotated[str, Field(pattern="^[A-Z]{2}$", examples=[HOME])]


class Terms(Sent):
    """What is permitted, to whom. `privacy.grants.terms.GrantTerms` says what each field means; the issuer is you.

    filter: which rows, null for all. purposes: each covers what is below it. conditions: codes of DUO's modifiers.
    consent_ref, guardian_ref, pia_ref: where consents, those of guardians, and the impact assessment are filed.
    level_ceiling, class_ceiling: of the data that may be used. masks: by field, in copies of records, instead of its
    level's. review: null for expires. delete_by: at or after expires. records_until: null for three years after.
    """

    grant: Name
    recipient: Name
    recipient_contact: Reference = ""
    dataset: Name
    fields: Annotated[list[Column], Field(min_length=1, max_length=1000)]
    filter: Filter | None = None
    purposes: Annotated[list[Code], Field(min_length=1, max_length=100)]
    conditions: Annotated[list[Code], Field(default_factory=list, max_length=len(CONDITIONS))]
    uses: Annotated[list[UseKind], Field(min_length=1, max_length=len(USE_KINDS))]
    commercial: Flag = False
    legal_basis: LegalBasis
    consent_ref: Reference = ""
    guardian_ref: Reference = ""
    pia_ref: Reference = ""
    jurisdiction: Jurisdiction = HOME
    transfer_ref: Reference = ""
    level_ceiling: Annotated[int, Field(ge=1, le=5), WHOLE] = IDENTIFIED
    class_ceiling: StatutoryClass = "general"
    masks: Annotated[dict[Column, MaskText], Field(default_factory=dict, max_length=1000)]
    min_group: Annotated[int, Field(ge=1, le=10**6), WHOLE] = MIN_GROUP
    keep_days: Annotated[int, Field(ge=1, le=MOST_KEEP_DAYS), WHOLE] = MOST_KEEP_DAYS
    not_before: Instant
    review: Instant | None = None
    expires: Instant
    delete_by: Instant
    records_until: Instant | None = None
    epoch: Annotated[int, Field(ge=0, le=2**53), WHOLE] = 0


class TermsView(BaseModel):
    """The full terms of a grant: known to its issuer and its recipient alone. version: as they were signed."""

    version: int
    grant: str
    issuer: str
    recipient: str
    recipient_contact: str
    dataset: str
    fields: list[str]
    filter: FilterView | None
    purposes: list[str]
    conditions: list[str]
    uses: list[str]
    commercial: bool
    legal_basis: str
    consent_ref: str
    guardian_ref: str
    pia_ref: str
    jurisdiction: str
    transfer_ref: str
    level_ceiling: int
    class_ceiling: str
    masks: dict[str, str]
    min_group: int
    keep_days: int
    not_before: int
    review: int
    expires: int
    delete_by: int
    records_until: int
    epoch: int


def terms_of(body: Terms, issuer: str) -> GrantTerms:
    """The struct that a body says. Raises Refused for terms that cannot be."""
    terms = GrantTerms(
        version=VERSION,
        grant=body.grant,
        issuer=issuer,
        recipient=body.recipient,
        recipient_contact=body.recipient_contact,
        dataset=body.dataset,
        fields=tuple(body.fields),
        predicate=body.filter,
        purposes=tuple(body.purposes),
        conditions=tuple(body.conditions),
        uses=tuple(body.uses),
        commercial=body.commercial,
        legal_basis=body.legal_basis,
        consent_ref=body.consent_ref,
        guardian_ref=body.guardian_ref,
        pia_ref=body.pia_ref,
        jurisdiction=body.jurisdiction,
        transfer_ref=body.transfer_ref,
        level_ceiling=body.level_ceiling,
        class_ceiling=body.class_ceiling,
        masks=tuple(mask_of(field, text) for field, text in sorted(body.masks.items())),
        min_group=body.min_group,
        keep_days=body.keep_days,
        not_before=body.not_before,
        review=body.expires if body.review is None else body.review,
        expires=body.expires,
        delete_by=body.delete_by,
        records_until=records_until(body.expires) if body.records_until is None else body.records_until,
        epoch=body.epoch,
    )
    check_terms(terms)
    return terms


def shown(grant: CheckedGrant) -> TermsView:
    """The terms of a grant as people read them."""
    terms = grant.terms
    return TermsView(
        version=grant.version,
        grant=terms.grant,
        issuer=terms.issuer,
        recipient=terms.recipient,
        recipient_contact=terms.recipient_contact,
        dataset=terms.dataset,
        fields=list(terms.fields),
        filter=None if terms.predicate is None else show_filter(terms.predicate),
        purposes=list(terms.purposes),
        conditions=list(terms.conditions),
        uses=list(terms.uses),
        commercial=terms.commercial,
        legal_basis=terms.legal_basis,
        consent_ref=terms.consent_ref,
        guardian_ref=terms.guardian_ref,
        pia_ref=terms.pia_ref,
        jurisdiction=terms.jurisdiction,
        transfer_ref=terms.transfer_ref,
        level_ceiling=terms.level_ceiling,
        class_ceiling=terms.class_ceiling,
        masks={mask.field: mask_text(mask) for mask in terms.masks},
        min_group=terms.min_group,
        keep_days=terms.keep_days,
        not_before=terms.not_before,
        review=terms.review,
        expires=terms.expires,
        delete_by=terms.delete_by,
        records_until=terms.records_until,
        epoch=terms.epoch,
    )
