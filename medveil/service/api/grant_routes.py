"""The routes of grants: preview, issue, list, revoke; and those that this organisation holds."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import grants as board
from medveil.gateway import granting
from medveil.gateway.filters import show_filter
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import (
    NAME,
    WHOLE,
    Code,
    Column,
    Filter,
    FilterView,
    Flag,
    GrantPath,
    Instant,
    Name,
    Reference,
    Written,
)
from medveil.service.api.flow_requests import IssueRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from privacy.decide import AnchoredGrant, GrantState, UseRequest, decide
from privacy.grants import HOME, VERSION, CheckedGrant, GrantTerms, LegalBasis, UseKind, check_terms, grant_commitment

Previewer = Annotated[Principal, Depends(May("grants.preview"))]
Issuer = Annotated[Principal, Depends(May("grants.issue"))]
Reader = Annotated[Principal, Depends(May("grants.read"))]
Holder = Annotated[Principal, Depends(May("grants.held"))]
Revoker = Annotated[Principal, Depends(May("grants.revoke"))]

Jurisdiction = Annotated[str, Field(pattern="^[A-Z]{2}$", examples=[HOME])]
Status = Literal["not-anchored", "not-yet", "in-force", "expired", "revoked"]


class Terms(Sent):
    """What is permitted, to whom. `privacy.grants.GrantTerms` says what each field means; the issuer is you.

    filter: which rows, null for all. purposes: each covers what is below it. consent_ref, pia_ref: where consents and
    the impact assessment are filed. delete_by: at or after expires.
    """

    grant: Name
    recipient: Name
    recipient_contact: Reference = ""
    dataset: Name
    fields: Annotated[list[Column], Field(min_length=1, max_length=1000)]
    filter: Filter | None = None
    purposes: Annotated[list[Code], Field(min_length=1, max_length=100)]
    uses: Annotated[list[UseKind], Field(min_length=1, max_length=4)]
    commercial: Flag = False
    legal_basis: LegalBasis
    consent_ref: Reference = ""
    pia_ref: Reference = ""
    jurisdiction: Jurisdiction = HOME
    transfer_ref: Reference = ""
    not_before: Instant
    expires: Instant
    delete_by: Instant
    epoch: Annotated[int, Field(ge=0, le=2**53), WHOLE] = 0


class Use(Sent):
    """A use that somebody might ask for. recipient, dataset: by default those of the terms."""

    recipient: Annotated[str, Field(max_length=64, pattern=f"{NAME}|^$")] = ""
    dataset: Annotated[str, Field(max_length=64, pattern=f"{NAME}|^$")] = ""
    fields: Annotated[list[Column], Field(min_length=1, max_length=1000)]
    kind: UseKind
    purpose: Code
    filter: Filter | None = None
    commercial: Flag = False
    jurisdiction: Jurisdiction = HOME


class Preview(Sent):
    """Terms that are not issued yet, and a use to try them with. at: when it would be; by default now."""

    terms: Terms
    use: Use
    at: Instant | None = None


class DecisionView(BaseModel):
    """What would be decided. decision: in words. rule: which decided; missing: the condition that is not met."""

    decision: str
    allowed: bool
    rule: str
    missing: str


class TermsView(BaseModel):
    """The full terms of a grant: known to its issuer and its recipient alone."""

    grant: str
    issuer: str
    recipient: str
    recipient_contact: str
    dataset: str
    fields: list[str]
    filter: FilterView | None
    purposes: list[str]
    uses: list[str]
    commercial: bool
    legal_basis: str
    consent_ref: str
    pia_ref: str
    jurisdiction: str
    transfer_ref: str
    not_before: int
    expires: int
    delete_by: int
    epoch: int


class GrantView(BaseModel):
    """A grant and how it stands on the ledger. revoked_at: time of the block that revoked it, or null."""

    terms: TermsView
    status: Status
    revoked_at: int | None


class GrantList(BaseModel):
    """Grants, by id."""

    grants: list[GrantView]


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
        uses=tuple(body.uses),
        commercial=body.commercial,
        legal_basis=body.legal_basis,
        consent_ref=body.consent_ref,
        pia_ref=body.pia_ref,
        jurisdiction=body.jurisdiction,
        transfer_ref=body.transfer_ref,
        not_before=body.not_before,
        expires=body.expires,
        delete_by=body.delete_by,
        epoch=body.epoch,
    )
    check_terms(terms)
    return terms


def _shown(terms: GrantTerms) -> TermsView:
    return TermsView(
        grant=terms.grant,
        issuer=terms.issuer,
        recipient=terms.recipient,
        recipient_contact=terms.recipient_contact,
        dataset=terms.dataset,
        fields=list(terms.fields),
        filter=None if terms.predicate is None else show_filter(terms.predicate),
        purposes=list(terms.purposes),
        uses=list(terms.uses),
        commercial=terms.commercial,
        legal_basis=terms.legal_basis,
        consent_ref=terms.consent_ref,
        pia_ref=terms.pia_ref,
        jurisdiction=terms.jurisdiction,
        transfer_ref=terms.transfer_ref,
        not_before=terms.not_before,
        expires=terms.expires,
        delete_by=terms.delete_by,
        epoch=terms.epoch,
    )


def _listed(at: Workplace, grants: list[CheckedGrant]) -> GrantList:
    state, now = at.organisation.account.state, at.clock()
    found = []
    for one in grants:
        anchor = state.get(board.grant_key(one.terms.grant), board.GrantState)
        mine = anchor is not None and (anchor.issuer, anchor.commitment) == (one.terms.issuer, one.commitment)
        status: Status = "not-anchored" if anchor is None or not mine else anchor.status(now)
        revoked = anchor.revoked_at if anchor is not None and mine else None
        found.append(GrantView(terms=_shown(one.terms), status=status, revoked_at=revoked))
    return GrantList(grants=found)


def preview(at: Workplace, body: Preview, language: str) -> DecisionView:
    """What `privacy.decide` says of the use, were the terms issued as they are. Nothing is written."""
    terms = terms_of(body.terms, at.organisation.name)
    commitment = grant_commitment(terms, at.organisation.salt_key)
    anchor = AnchoredGrant(
        terms.grant, terms.issuer, commitment, terms.not_before, terms.expires, terms.epoch, revoked=False
    )
    use = UseRequest(
        holder=terms.issuer,
        recipient=body.use.recipient or terms.recipient,
        dataset=body.use.dataset or terms.dataset,
        fields=tuple(sorted(set(body.use.fields))),
        kind=body.use.kind,
        purpose=body.use.purpose,
        predicate=body.use.filter,
        commercial=body.use.commercial,
        jurisdiction=body.use.jurisdiction,
    )
    when = at.clock() if body.at is None else body.at
    decision = decide(use, [CheckedGrant(terms, commitment)], GrantState((anchor,)), when)
    return DecisionView(
        decision=decision.text(language), allowed=decision.allowed, rule=decision.rule, missing=decision.missing
    )


def grant_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/grants``."""
    router = PathRouter(tags=["grants"])

    @router.post("/v1/grants/preview", summary="Try terms out", responses=WRITES)
    async def try_out(request: Request, _who: Previewer, body: Preview) -> DecisionView:
        """What would be decided of a use under these terms. Nothing is issued and nothing written."""
        return await asyncio.to_thread(preview, at, body, request.state.language)

    @router.post("/v1/grants", status_code=202, summary="Issue a grant", responses=BEGINS)
    async def issue(
        request: Request, response: Response, who: Issuer, body: Terms, idempotency_key: Key = None
    ) -> JobView:
        """Sign the terms, anchor their commitment, send them to the recipient. The result: `/v1/grants`."""
        terms = terms_of(body, at.organisation.name)
        asked = IssueRequest(terms)
        return await at.begin("grant.issue", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/grants", summary="List the grants that you issued")
    async def issued(_who: Reader) -> GrantList:
        """This organisation's own, each with its status on the ledger."""
        return _listed(at, await asyncio.to_thread(granting.issued, at.organisation))

    @router.get("/v1/grants/held", summary="List the grants that you hold")
    async def held(_who: Holder) -> GrantList:
        """What others granted this organisation, each with its status on the ledger."""
        return _listed(at, await asyncio.to_thread(granting.held, at.organisation))

    @router.post("/v1/grants/{grant}/revoke", summary="Revoke a grant", responses=WRITES)
    async def revoke(_who: Revoker, grant: GrantPath, body: Nothing) -> Written:
        """For good. Running uses stop at their next step; what was read before cannot be recalled."""
        return await at.write(board.RevokeGrant(grant))

    return router
