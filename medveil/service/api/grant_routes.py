"""The routes of grants: preview, issue, list, explain, confirm, hand out, revoke; and those that this gateway holds."""

import asyncio
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import grants as board
from medveil.gateway import granting, problems, use_state
from medveil.gateway.eligibility import DATASET as BILLS
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import COLUMN, NAME, Code, Column, Filter, Flag, GrantPath, Instant, Written, binary
from medveil.service.api.flow_requests import IssueRequest
from medveil.service.api.grant_terms import Jurisdiction, Terms, TermsView, shown, terms_of
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from privacy.decide import AnchoredGrant, UseRequest, decide
from privacy.explain import uses, who_sees
from privacy.grants.consent_receipt import ConsentStatus, make_receipt
from privacy.grants.levels import mask_text
from privacy.grants.terms import HOME, CheckedGrant, UseKind, grant_commitment
from wire.canonical import encode
from wire.errors import Refused

Previewer = Annotated[Principal, Depends(May("grants.preview"))]
Issuer = Annotated[Principal, Depends(May("grants.issue"))]
Reader = Annotated[Principal, Depends(May("grants.read"))]
Holder = Annotated[Principal, Depends(May("grants.held"))]
Revoker = Annotated[Principal, Depends(May("grants.revoke"))]
Reviewer = Annotated[Principal, Depends(May("grants.review"))]
RecipientName = Annotated[str, Query(max_length=64, pattern=NAME, description="Who would use it.")]
DatasetName = Annotated[str, Query(max_length=64, pattern=NAME, description="A dataset of yours.")]
ColumnName = Annotated[str, Query(pattern=COLUMN, description="A column of it.")]

Status = Literal["not-anchored", "not-yet", "in-force", "expired", "revoked"]


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


class GrantView(BaseModel):
    """A grant and how it stands on the ledger. revoked_at: time of the block that revoked it, or null.

    reviewed_until: the next review that was set when the grant was last confirmed, or null; of one's own grants.
    """

    terms: TermsView
    status: Status
    revoked_at: int | None
    reviewed_until: int | None


class NextReview(Sent):
    """When the grant is to be looked at again."""

    next: Instant


class ReviewView(BaseModel):
    """A grant was confirmed. at: now."""

    grant: str
    at: int
    next: int


class ColumnUseView(BaseModel):
    """A column that may be used. mask: what becomes of its cells where records leave, else keep."""

    column: str
    level: int
    mask: str


class GrantedUseView(BaseModel):
    """One way in which a grant can be used now, or cannot. words: all of it, in the caller's language.

    columns: those that can be used so; none where it is not allowed at all. not_met: the rules that a use of all
    granted columns would not meet. excluded: scopes of opt-outs that are left out. until: when it ends or rests.
    """

    grant: str
    recipient: str
    kind: str
    purpose: str
    allowed: bool
    columns: list[ColumnUseView]
    not_met: list[str]
    excluded: list[str]
    until: int
    words: str


class GrantedUses(BaseModel):
    """What somebody may do with a dataset, grant by grant. Empty: nothing, there is no grant."""

    uses: list[GrantedUseView]


class SightView(BaseModel):
    """A way in which somebody gets at a column. cell: records' own cells leave; otherwise it counts in results."""

    grant: str
    recipient: str
    kind: str
    purpose: str
    cell: bool
    mask: str
    until: int
    words: str


class Sights(BaseModel):
    """Everybody who gets at a column now."""

    sights: list[SightView]


class GrantList(BaseModel):
    """Grants, by id."""

    grants: list[GrantView]


def _listed(at: Workplace, grants: list[CheckedGrant]) -> GrantList:
    state, now = at.organisation.account.state, at.clock()
    found = []
    for one in grants:
        anchor = state.get(board.grant_key(one.terms.grant), board.GrantState)
        mine = anchor is not None and (anchor.issuer, anchor.commitment) == (one.terms.issuer, one.commitment)
        status: Status = "not-anchored" if anchor is None or not mine else anchor.status(now)
        revoked = anchor.revoked_at if anchor is not None and mine else None
        review = use_state.reviewed(at.organisation, one) if one.terms.issuer == at.organisation.name else None
        until = None if review is None else review.next
        found.append(GrantView(terms=shown(one), status=status, revoked_at=revoked, reviewed_until=until))
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
    tried = CheckedGrant(terms, commitment)
    state = msgspec.structs.replace(use_state.state_of(at.organisation, [tried], when), anchored=(anchor,))
    decision = decide(use, [tried], state, when)
    return DecisionView(
        decision=decision.text(language), allowed=decision.allowed, rule=decision.rule, missing=decision.missing
    )


def _issued(at: Workplace, grant: str) -> CheckedGrant:
    """One of this organisation's own grants. Raises Refused where there is none of that id."""
    for one in granting.issued(at.organisation):
        if one.terms.grant == grant:
            return one
    raise Refused("grants.unknown", grant=grant)


def _check_dataset(at: Workplace, dataset: str) -> None:
    """Raises Refused for a name that no table here has and no grant: "nobody may" would be no answer to it."""
    if dataset != BILLS and all(
        entry.terms.dataset != dataset for entry in granting.book_of(at.organisation).entries()
    ):
        at.organisation.vault.info(dataset)


def explained(at: Workplace, recipient: str, dataset: str, language: str) -> GrantedUses:
    """What `recipient` may do with a dataset of this organisation now, and why not. Raises Refused: no such dataset."""
    book = granting.book_of(at.organisation)
    _check_dataset(at, dataset)
    parties = (at.organisation.name, recipient, dataset)
    state = use_state.state_of(at.organisation, (entry.checked for entry in book.of(*parties)), at.clock())
    return GrantedUses(
        uses=[
            GrantedUseView(
                grant=one.terms.grant,
                recipient=recipient,
                kind=one.kind,
                purpose=one.purpose,
                allowed=one.allowed,
                columns=[ColumnUseView(column=c.field, level=c.level, mask=mask_text(c.mask)) for c in one.columns],
                not_met=[verdict.rule for verdict in one.verdicts.verdicts if not verdict.met],
                excluded=list(one.excluded),
                until=one.until,
                words=one.text(language),
            )
            for one in uses(*parties, book, state, at.clock())
        ]
    )


def seen(at: Workplace, dataset: str, column: str, language: str) -> Sights:
    """Who gets at a column of a dataset of this organisation now. Raises Refused: no such dataset or column."""
    book = granting.book_of(at.organisation)
    _check_dataset(at, dataset)
    use_state.check_columns(at.organisation, dataset, (column,))
    of_it = [entry.checked for entry in book.entries() if entry.terms.dataset == dataset]
    state = use_state.state_of(at.organisation, of_it, at.clock())
    return Sights(
        sights=[
            SightView(
                grant=one.grant,
                recipient=one.recipient,
                kind=one.kind,
                purpose=one.purpose,
                cell=one.cell,
                mask=one.mask,
                until=one.until,
                words=one.text(language),
            )
            for one in who_sees(column, dataset, of_it, state, at.clock())
        ]
    )


def _receipt(at: Workplace, grant: str) -> bytes:
    organisation, one = at.organisation, _issued(at, grant)
    anchor = organisation.account.state.get(board.grant_key(grant), board.GrantState)
    mine = anchor is not None and (anchor.issuer, anchor.commitment) == (organisation.name, one.commitment)
    if anchor is None or not mine:
        raise Refused("gateway.grant_not_anchored", grant=grant, organisation=organisation.name)
    now = at.clock()
    status: ConsentStatus = "active" if anchor.status(now) in ("in-force", "not-yet") else "inactive"
    return encode(
        make_receipt(granting.signed_terms(organisation, grant), one.commitment, status, now, organisation.signer)
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
        return await asyncio.to_thread(lambda: _listed(at, granting.issued(at.organisation)))

    @router.get("/v1/grants/held", summary="List the grants that you hold")
    async def held(_who: Holder) -> GrantList:
        """What others granted this organisation, each with its status on the ledger."""
        return await asyncio.to_thread(lambda: _listed(at, granting.held(at.organisation)))

    @router.get("/v1/grants/explained", summary="Explain what somebody may do", responses=problems.documented(409))
    async def explain(request: Request, _who: Reader, recipient: RecipientName, dataset: DatasetName) -> GrantedUses:
        """What a recipient may do with a dataset of yours now and why not: every grant, way of use and purpose."""
        return await asyncio.to_thread(explained, at, recipient, dataset, request.state.language)

    @router.get("/v1/grants/seen", summary="Explain who gets at a column", responses=problems.documented(409))
    async def see(request: Request, _who: Reader, dataset: DatasetName, column: ColumnName) -> Sights:
        """By whom, in which ways and for what a column of a dataset of yours can be used now."""
        return await asyncio.to_thread(seen, at, dataset, column, request.state.language)

    @router.post("/v1/grants/{grant}/review", summary="Confirm a grant", responses=WRITES)
    async def review(_who: Reviewer, grant: GrantPath, body: NextReview) -> ReviewView:
        """You looked at it again, and it goes on until the next review, or its end. A revoked one stays revoked."""
        one = await asyncio.to_thread(_issued, at, grant)
        made = await asyncio.to_thread(use_state.review, at.organisation, one, at.clock(), body.next)
        return ReviewView(grant=made.grant, at=made.at, next=made.next)

    @router.get(
        "/v1/grants/{grant}/receipt",
        summary="Get a grant as a signed FHIR Consent",
        response_class=Response,
        responses={**binary("The canonical consent receipt."), **problems.documented(404, 409)},
    )
    async def receipt(_who: Reader, grant: GrantPath) -> Response:
        """A receipt to hand out: what the grant says, as FHIR R4B, under your organisation's signature."""
        return Response(await asyncio.to_thread(_receipt, at, grant), media_type="application/octet-stream")

    @router.post("/v1/grants/{grant}/revoke", summary="Revoke a grant", responses=WRITES)
    async def revoke(_who: Revoker, grant: GrantPath, body: Nothing) -> Written:
        """For good. Running uses stop at their next step; what was read before cannot be recalled."""
        return await at.write(board.RevokeGrant(grant))

    return router
