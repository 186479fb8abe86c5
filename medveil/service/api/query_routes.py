"""The routes of queries: a query document explained and asked, what was released, what was served."""

import asyncio
import base64
import hashlib
from typing import Annotated

import msgspec
from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from ledger.contracts import datasets, queries
from ledger.engines.engine import Cursor, Engine
from ledger.reading import Entry, Selection
from medveil.gateway import explaining, problems, question
from medveil.gateway.ledger_account import LedgerState
from medveil.gateway.query_history import RELEASES, answers
from medveil.service.accounts.rights import Principal
from medveil.service.api.audit_routes import FlowView, uses
from medveil.service.api.callers import May
from medveil.service.api.explanation_view import ExplanationView, explanation_view
from medveil.service.api.fields import HandlePath, Number, PageLimit, binary
from medveil.service.api.flow_requests import AskRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.release_view import ReleaseView, release_view
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from mpc.query_document import COMPONENT, QueryDocument, parse_document
from mpc.release import Release
from wire.canonical import decode, encode
from wire.errors import Refused

Asker = Annotated[Principal, Depends(May("queries.ask"))]
Explainer = Annotated[Principal, Depends(May("queries.explain"))]
Reader = Annotated[Principal, Depends(May("queries.read"))]
TrailReader = Annotated[Principal, Depends(May("audit.read"))]
_PATIENCE = 20.0


Document = Annotated[
    QueryDocument,
    Body(),
    PlainValidator(parse_document),
    WithJsonSchema({"$ref": f"#/components/schemas/{COMPONENT}"}),
]
"""What is asked: `mpc.query_document`, which says what is wrong with one."""


async def written_about(
    engine: Engine, state: LedgerState, organisation: str, handle: bytes, page: int = 1000
) -> list[Entry]:
    """What an organisation wrote about a query, in the ledger's order: from its proposal to the last sums, behind which
    nothing about it takes effect. page: entries that are read at once. Raises Refused for a query that is not there."""
    asked = queries.query(state.view(), handle)
    last = state.get(queries.release_key(handle, asked.phases), queries.ReleaseState)
    found: list[Entry] = []
    after = Cursor(asked.height - 1)
    while True:
        read = await engine.entries(Selection(organisation, kind=queries.NAME), after, page)
        found += [one for one in read if any(event.subject == handle.hex() for event in one.result.events)]
        if len(read) < page or (last is not None and read[-1].height > last.height):
            return found
        after = Cursor.of(read[-1])


class QueryView(BaseModel):
    """A query as the ledger has it. status: proposed, reserved, spent, released or closed.

    salted_hash: of the canonical query under a salt that the release opens.
    """

    query: str
    salted_hash: str
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
    """A query; the release where it was given to this organisation."""

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


def _view(state: queries.QueryState) -> QueryView:
    return QueryView(
        query=state.query.hex(),
        salted_hash=state.salted_hash.hex(),
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
        """All that the ledger has, the newest first. Takes a while: the whole state is walked."""
        found = organisation.account.state.items(queries.QUERIES, queries.QueryState)
        return sorted((state for _, state in found), key=lambda state: (-state.height, state.query))

    def released(handle: str) -> bytes:
        """The canonical release under a handle. Raises Refused."""
        try:
            return organisation.vault.document(RELEASES, handle)
        except Refused:
            raise Refused("queries.no_release", query=handle) from None

    @router.post("/v1/queries/explain", summary="Have a query explained", responses=WRITES)
    async def explain(request: Request, who: Explainer, document: Document) -> ExplanationView:
        """What each site would compute, what would leave it, how noisy the answer will be and what it costs.

        Nothing is proposed, nothing spent. Where it asks this organisation too, also what its own grants would answer,
        for whoever may read them.
        """
        when = at.clock() if "grants.read" in who.rights else None
        found = await asyncio.to_thread(explaining.explain, organisation, document, when)
        at.check_others(*(site for site in found.query.roster if site != organisation.name))
        return explanation_view(found, request.state.language)

    @router.post("/v1/queries", status_code=202, summary="Ask a query", responses=BEGINS)
    async def ask(
        request: Request, response: Response, who: Asker, document: Document, idempotency_key: Key = None
    ) -> JobView:
        """Propose it, have every site answer, release the sums. The result: `/v1/queries/{query}`."""
        account, language = organisation.account, request.state.language
        sent = hashlib.sha256(msgspec.json.encode(document)).digest()
        begun = await at.begun("query.ask", who, sent, idempotency_key, response, language)
        if begun is not None:
            return begun
        query = await asyncio.to_thread(question.make_query, document, account.state, account.trust.chain)
        at.check_others(*query.roster)
        wanted = AskRequest(query, sent, question.declaration(document))
        return await at.begin("query.ask", who, wanted, idempotency_key, response, language)

    @router.get("/v1/queries", summary="List your queries")
    async def listed(_who: Reader) -> QueryList:
        """Those that this organisation asked, and those of others that answered it."""

        def read() -> QueryList:
            own, name = answers(organisation), organisation.name
            return QueryList(queries=[_view(one) for one in known() if one.researcher == name or one.query in own])

        return await asyncio.to_thread(read)

    @router.get("/v1/queries/served", summary="List the parts that you took")
    async def served(_who: TrailReader, first: Number = 1, limit: PageLimit = 100) -> ServedList:
        """Queries that asked for this organisation's data, allowed or denied, from the audit trail."""
        found = await asyncio.to_thread(uses, organisation.audit, first, limit + 1, "query")
        handles = {state.salted_hash.hex(): state for state in await asyncio.to_thread(known)}
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

    @router.get(
        "/v1/queries/served/{query:handle}/explanation",
        summary="Have a query that you served explained",
        responses=problems.documented(404),
    )
    async def explain_served(request: Request, _who: TrailReader, query: HandlePath) -> ExplanationView:
        """What one that asked for this organisation's data computes and discloses, while it runs and later."""
        found = await asyncio.to_thread(explaining.explain_served, organisation, bytes.fromhex(query))
        return explanation_view(found, request.state.language)

    @router.get("/v1/queries/{query:handle}", summary="Look at a query", responses=problems.documented(404))
    async def look(request: Request, _who: Reader, query: HandlePath) -> QueryDetail:
        """How it stands on the ledger; once what was released of it was given to you, that too."""
        state = queries.query(organisation.account.state.view(), bytes.fromhex(query))
        try:
            found = decode(Release, await asyncio.to_thread(released, query))
            release = release_view(found, request.state.language)
        except Refused:
            release = None  # not yet, or not yours
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
        found = await written_about(at.engine, organisation.account.state, organisation.name, bytes.fromhex(query))
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
