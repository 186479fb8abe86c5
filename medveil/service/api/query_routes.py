"""The routes of queries: preview a question, ask it, read what was released, and what this organisation served."""

import asyncio
import base64
import hashlib
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from ledger.contracts import datasets, queries
from ledger.engines.engine import Cursor
from ledger.reading import Selection
from medveil.gateway import problems, question
from medveil.service.accounts.rights import Principal
from medveil.service.api.audit_routes import FlowView, uses
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import (
    WHOLE,
    Code,
    Column,
    Decimal,
    Filter,
    Flag,
    HandlePath,
    Name,
    Number,
    PageLimit,
    binary,
)
from medveil.service.api.flow_requests import AskRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.release_view import (
    EpsilonView,
    NoiseView,
    QueryTerms,
    ReleaseView,
    epsilon_views,
    noise_views,
    release_view,
    terms_view,
)
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from mpc.query import MOST_SITES
from mpc.release import Release
from wire.canonical import decode, encode
from wire.errors import Refused

Asker = Annotated[Principal, Depends(May("queries.ask"))]
Reader = Annotated[Principal, Depends(May("queries.read"))]
TrailReader = Annotated[Principal, Depends(May("audit.read"))]
_PATIENCE = 20.0
RELEASES = "release"
"""Kind of the vault's documents that hold releases, by handle in hex."""


class Question(Sent):
    """A question over several sites. `medveil.gateway.question.Question` says what each field means.

    low, high, edges: decimals within the declared bounds of the measure; by default as wide as those. rho: privacy
    budget as a decimal. minimum_group: groups whose noisy count is below it are hidden.
    """

    population: Name
    sites: Annotated[tuple[Name, ...], Field(max_length=MOST_SITES, description="Empty: every site with a table.")] = ()
    datasets: Annotated[
        tuple[Name, ...], Field(max_length=MOST_SITES, description="Which table, where a site has several.")
    ] = ()
    measure: Column
    low: Decimal | None = None
    high: Decimal | None = None
    edges: Annotated[tuple[Decimal, ...], Field(max_length=200)] = ()
    by: Annotated[tuple[Column, ...], Field(max_length=8)] = ()
    other: Flag = True
    filter: Filter | None = None
    purpose: Code
    person: Annotated[str, Field(pattern="^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""
    rho: Annotated[str, Field(pattern="^[0-9]{1,6}(\\.[0-9]{1,9})?$", examples=["0.25"])]
    delta_exponent: Annotated[int, Field(ge=3, le=15), WHOLE] = 6
    minimum_group: Annotated[int, Field(ge=2, le=10**9), WHOLE] = 10


class PreviewView(BaseModel):
    """What would be asked. cells: numbers that leave at most; before, after: available budget in 10^-9 rho.

    enough: whether the budget covers it.
    """

    query: QueryTerms
    cells: int
    noise: list[NoiseView]
    epsilons: list[EpsilonView]
    before: int
    after: int
    enough: bool


class QueryView(BaseModel):
    """A query as the ledger has it. status: proposed, reserved, spent, released or closed."""

    query: str
    researcher: str
    population: str
    roster: list[str]
    rho_nano: int
    status: str
    approvals: list[str]
    height: int
    budget_before: int


class QueryList(BaseModel):
    """Queries, the newest first."""

    queries: list[QueryView]


class QueryDetail(QueryView):
    """A query; of one that this organisation asked, once it is released, the release."""

    release: ReleaseView | None


class ServedView(FlowView):
    """A part that was asked of this organisation. query: the handle, or null if the ledger shows no such query."""

    query: str | None
    status: str | None


class ServedList(BaseModel):
    """Parts, the oldest first. next: number of the first entry of the audit trail to go on from, or null."""

    served: list[ServedView]
    next: int | None


class ReceiptList(BaseModel):
    """Canonical receipts in base64, in the ledger's order."""

    receipts: list[Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]]


class ProofList(BaseModel):
    """Canonical proven values in base64."""

    proofs: list[Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]]


def _asked(body: Question) -> question.Question:
    fields: dict[str, Any] = {name: getattr(body, name) for name in Question.model_fields}
    return question.Question(**fields | {"low": body.low or "", "high": body.high or ""})


def _view(state: queries.QueryState) -> QueryView:
    return QueryView(
        query=state.query.hex(),
        researcher=state.researcher,
        population=state.population,
        roster=list(state.roster),
        rho_nano=state.rho_nano,
        status=state.status,
        approvals=list(state.approvals),
        height=state.height,
        budget_before=state.budget_before,
    )


def query_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/queries``."""
    router = PathRouter(tags=["queries"])
    organisation = at.organisation

    def known() -> list[queries.QueryState]:
        found = organisation.account.state.items(b"queries/query/", queries.QueryState)
        return sorted((state for _, state in found), key=lambda state: (-state.height, state.query))

    def released(handle: str) -> bytes:
        """The canonical release under a handle. Raises Refused."""
        try:
            return organisation.vault.document(RELEASES, handle)
        except Refused:
            raise Refused("queries.no_release", query=handle) from None

    @router.post("/v1/queries/preview", summary="Try a question out", responses=WRITES)
    async def try_out(_who: Asker, body: Question) -> PreviewView:
        """What will be asked, the noise the answer will carry, and the budget before and after. Nothing is spent."""
        account = organisation.account
        found = await asyncio.to_thread(question.preview, _asked(body), account.state, account.trust.chain)
        at.check_others(*found.query.roster)
        return PreviewView(
            query=terms_view(found.query),
            cells=found.cells,
            noise=noise_views(found.noise),
            epsilons=epsilon_views(found.epsilons),
            before=found.before,
            after=found.after,
            enough=found.after >= 0,
        )

    @router.post("/v1/queries", status_code=202, summary="Ask a question", responses=BEGINS)
    async def ask(
        request: Request, response: Response, who: Asker, body: Question, idempotency_key: Key = None
    ) -> JobView:
        """Propose it, have every site answer, release the sums. The result: `/v1/queries/{query}`."""
        account, language, asked = organisation.account, request.state.language, _asked(body)
        sent = hashlib.sha256(msgspec.json.encode(asked)).digest()
        begun = await at.begun("query.ask", who, sent, idempotency_key, response, language)
        if begun is not None:
            return begun
        query = await asyncio.to_thread(question.make_query, asked, account.state, account.trust.chain)
        at.check_others(*query.roster)
        return await at.begin("query.ask", who, AskRequest(query, sent), idempotency_key, response, language)

    @router.get("/v1/queries", summary="List your queries")
    async def listed(_who: Reader) -> QueryList:
        """Those that this organisation asked."""
        return QueryList(queries=[_view(one) for one in known() if one.researcher == organisation.name])

    @router.get("/v1/queries/served", summary="List the parts that you took")
    async def served(_who: TrailReader, first: Number = 1, limit: PageLimit = 100) -> ServedList:
        """Queries that asked for this organisation's data, allowed or denied, from the audit trail."""
        found = await asyncio.to_thread(uses, organisation.audit, first, limit + 1, "query")
        handles = {state.salted_hash.hex(): state for state in known()}
        page = []
        for one in found[:limit]:
            state = handles.get(one.use.query)
            page.append(
                ServedView(
                    **one.model_dump(),
                    query=None if state is None else state.query.hex(),
                    status=None if state is None else state.status,
                )
            )
        return ServedList(served=page, next=found[limit].intent if len(found) > limit else None)

    @router.get("/v1/queries/{query:handle}", summary="Look at a query", responses=problems.documented(404))
    async def look(_who: Reader, query: HandlePath) -> QueryDetail:
        """How it stands on the ledger; of your own, once it is released, what was released."""
        state = queries.query(organisation.account.state.view(), bytes.fromhex(query))
        release = None
        if state.researcher == organisation.name:
            try:
                release = release_view(decode(Release, await asyncio.to_thread(released, query)))
            except Refused:
                pass  # not yet
        return QueryDetail(**_view(state).model_dump(), release=release)

    @router.get(
        "/v1/queries/{query}/evidence",
        summary="Get a release as evidence",
        response_class=Response,
        responses={**binary("The canonical release."), **problems.documented(404)},
    )
    async def evidence(_who: Reader, query: HandlePath) -> Response:
        """What anybody checks offline against the ledger."""
        return Response(await asyncio.to_thread(released, query), media_type="application/octet-stream")

    @router.get("/v1/queries/{query}/receipts", summary="Get a query's receipts", responses=problems.documented(404))
    async def receipts(_who: Reader, query: HandlePath) -> ReceiptList:
        """The receipts of what this organisation wrote about a query."""
        state = queries.query(organisation.account.state.view(), bytes.fromhex(query))
        found, after = [], Cursor(state.height - 1)
        while True:
            page = await at.engine.entries(Selection(organisation.name, kind=queries.NAME), after, 1000)
            found += [one for one in page if any(event.subject == query for event in one.result.events)]
            if len(page) < 1000:
                break
            after = Cursor.of(page[-1])
        kept = [await at.engine.wait(one.result.envelope, _PATIENCE) for one in found]
        return ReceiptList(receipts=[base64.b64encode(encode(one)).decode("ascii") for one in kept])

    @router.get("/v1/queries/{query}/proofs", summary="Get what the ledger says", responses=problems.documented(404))
    async def proofs(_who: Reader, query: HandlePath) -> ProofList:
        """Of a released query of yours: its own state, its population and the tables in it, each proven."""
        release = await asyncio.to_thread(lambda: decode(Release, released(query)))
        handle, asked = release.handle, release.query
        population = datasets.population(organisation.account.state.view(), asked.population)
        keys = [queries.query_key(handle), datasets.population_key(asked.population)]
        for record in release.phases:
            keys += [queries.phase_key(handle, record.phase), queries.release_key(handle, record.phase)]
        keys += [datasets.dataset_key(name) for name in sorted({*asked.datasets, *population.datasets})]
        found = [await at.engine.query(key, prove=True) for key in keys]
        return ProofList(proofs=[base64.b64encode(encode(one)).decode("ascii") for one in found])

    return router
