"""The flows of an organisation as its service runs them: the routes that begin them, and the kinds of their jobs.

A job's work reads its request and runs the flow, with the journal as its steps. What the flow is called by (a query's
handle, a nonce) comes from the job's own randomness: the same when the job is taken up again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter

from medveil.gateway import (
    asking,
    eligibility,
    erasing,
    exporting,
    extract_delivery,
    extract_wanted,
    extracting,
    granting,
    loading,
    models,
    rotating,
    scoring,
)
from medveil.gateway.erasure_checks import CheckKept, keep_check, read_receipt
from medveil.gateway.long_work import at_length
from medveil.gateway.scoring import ScoreRequest
from medveil.gateway.wallets import Wallets
from medveil.service.api.audit_routes import audit_routes
from medveil.service.api.bill_routes import bill_routes
from medveil.service.api.classification_routes import classification_routes
from medveil.service.api.dataset_routes import dataset_routes
from medveil.service.api.erasure_routes import erasure_routes
from medveil.service.api.evidence_routes import FOLDER, evidence_routes
from medveil.service.api.extract_routes import extract_routes
from medveil.service.api.flow_requests import (
    AskExtractRequest,
    AskRequest,
    BillRequest,
    CheckErasureRequest,
    CheckRequest,
    DeclineRequest,
    DeliverRequest,
    EraseRequest,
    ExportRequest,
    IssueRequest,
    LoadRequest,
    MakeExtractRequest,
    ProposeRequest,
    ReviewRequest,
    RotateRequest,
    RotateVaultRequest,
    ScoreJobRequest,
)
from medveil.service.api.grant_routes import grant_routes
from medveil.service.api.handover_routes import handover_routes
from medveil.service.api.ledger_routes import ledger_routes
from medveil.service.api.member_routes import member_routes
from medveil.service.api.opt_out_routes import opt_out_routes
from medveil.service.api.person_routes import person_routes
from medveil.service.api.query_routes import query_routes
from medveil.service.api.recall_routes import recall_routes
from medveil.service.api.score_routes import score_routes
from medveil.service.api.service_routes import service_routes
from medveil.service.api.workplace import Workplace
from medveil.service.work.journal import Journal
from wire.canonical import Wire, decode
from wire.errors import Refused
from zkp.bill_limit import LimitRequest

R = TypeVar("R", bound=Wire)

MAKE_EXTRACT = "extract.make"
"""The kind of job that makes an extract and delivers it."""


class _Finished(Wire, frozen=True, tag="medveil.at_home_finished"):
    """A step that keeps nothing but that it was done, and when."""

    at: int


def flow_routers(at: Workplace) -> list[APIRouter]:
    """For `Parts.routers`."""
    return [
        member_routes(at),
        handover_routes(at.engine, at.organisation.trust.sequencer),
        ledger_routes(at),
        dataset_routes(at),
        classification_routes(at),
        grant_routes(at),
        opt_out_routes(at),
        erasure_routes(at),
        person_routes(at),
        query_routes(at),
        bill_routes(at),
        score_routes(at),
        extract_routes(at),
        recall_routes(at),
        audit_routes(at),
        evidence_routes(at),
        service_routes(at),
    ]


def register_flows(at: Workplace, wallets: Wallets) -> None:
    """Make the kinds of jobs known that this organisation's people begin. wallets: those that it hosts."""
    organisation = at.organisation

    def kind(name: str, request: type[R], work: Callable[[R, Journal], Awaitable[str]], **others: Any) -> None:
        async def run(journal: Journal) -> str:
            return await work(decode(request, journal.request), journal)

        at.jobs.register(name, run, **others)

    async def load(asked: LoadRequest, journal: Journal) -> str:
        if at.data is None:
            raise Refused("gateway.no_source", source=asked.source, table=asked.table)
        found = await asyncio.to_thread(loading.source_in, at.data, asked.source, asked.table)
        await loading.load_table(
            organisation, asked.dataset, found.layout, found.read, journal, asked.source, asked.table
        )
        return f"/v1/datasets/{asked.dataset}"

    async def issue(asked: IssueRequest, journal: Journal) -> str:
        await granting.issue(organisation, asked.terms, journal)
        return "/v1/grants"

    async def ask(asked: AskRequest, journal: Journal) -> str:
        rand = journal.rand("query")
        handle, salt = rand(16), rand(32)
        release = await asking.ask(organisation, asked.query, handle, salt, journal, declared=asked.declared)
        return f"/v1/queries/{release.handle.hex()}"

    async def bill(asked: BillRequest, journal: Journal) -> str:
        issued = await eligibility.issue_bill(organisation, wallets, asked.person, asked.amount, journal)
        return f"/v1/bills/{issued.handle.hex()}"

    async def check(asked: CheckRequest, journal: Journal) -> str:
        nonce = journal.rand("nonce")(32)
        request = LimitRequest(
            chain=organisation.trust.chain,
            handle=asked.handle,
            limit=asked.limit.minor,
            currency=asked.limit.currency,
            audience=organisation.name,
            nonce=nonce,
            purpose=asked.purpose,
            grant=asked.grant,
        )
        await eligibility.check_limit(organisation, asked.hospital, request, journal, asked.declared)
        return f"/v1/eligibility/{nonce.hex()}"

    async def propose(asked: ProposeRequest, journal: Journal) -> str:
        await models.propose_model(organisation, asked.regulator, asked.plan, journal)
        return "/v1/models"

    async def review(asked: ReviewRequest, journal: Journal) -> str:
        await models.review_model(organisation, asked.review.hex(), journal, asked.approve)
        return "/v1/models/shown"

    async def score(asked: ScoreJobRequest, journal: Journal) -> str:
        session = journal.rand("session")(16)
        model = models.own_model(organisation, asked.model)
        request = ScoreRequest(session, model, asked.dataset, asked.purpose, asked.declared)
        await scoring.ask_scores(organisation, asked.hospital, request, journal)
        return f"/v1/scores/{session.hex()}"

    async def ask_extract(asked: AskExtractRequest, journal: Journal) -> str:
        one = await extract_wanted.ask_extract(organisation, asked.request, journal, at.clock)
        return f"/v1/extracts/asked/{one.ask.hex()}"

    async def make_extract(asked: MakeExtractRequest, journal: Journal) -> str:
        facts = await extracting.make_extract(organisation, at.tables, asked.wish, journal, at.clock)
        await extract_delivery.deliver(organisation, facts.cover.extract, journal, at.clock)
        return f"/v1/extracts/made/{facts.cover.extract.hex()}"

    async def deliver(asked: DeliverRequest, journal: Journal) -> str:
        await extract_delivery.deliver(organisation, asked.extract, journal, at.clock)
        return f"/v1/extracts/made/{asked.extract.hex()}"

    async def decline(asked: DeclineRequest, journal: Journal) -> str:
        await extract_wanted.decline(organisation, asked.ask, journal)
        return "/v1/extracts/wanted"

    async def export(asked: ExportRequest, journal: Journal) -> str:
        name = journal.rand("evidence")(16).hex()
        folder = organisation.folder / FOLDER / name
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        await exporting.export_folder(organisation, folder, journal, at.clock, asked.collect)
        return f"/v1/evidence/{name}"

    async def rotate(asked: RotateRequest, journal: Journal) -> str:
        height = await rotating.rotate(organisation, journal, asked.notice)
        return f"/v1/members/handovers?after={height - 1}"  # the change itself, with what proves it, once it holds

    async def erase(asked: EraseRequest, journal: Journal) -> str:
        name = asked.erasure.hex()

        async def applying() -> _Finished:
            done = await erasing.carry_out(organisation, name, at.clock, at.snapshots, wallets)
            return _Finished(done.done)

        await journal.once("applied", _Finished, applying)
        return f"/v1/erasures/{name}"

    async def check_erasure(asked: CheckErasureRequest, journal: Journal) -> str:
        receipt = read_receipt(asked.receipt, "receipt")

        def look() -> None:
            report = erasing.check(
                organisation, receipt, organisation.folder, markers=asked.markers, snapshots=at.snapshots
            )
            keep_check(organisation, CheckKept.of(receipt, report, at.clock()))

        async def checking() -> _Finished:
            await at_length(look)
            return _Finished(at.clock())

        await journal.once("checked", _Finished, checking)
        return f"/v1/erasures/{receipt.erasure.hex()}/check"

    async def rotate_vault(_asked: RotateVaultRequest, journal: Journal) -> str:
        async def wrapping() -> _Finished:
            await erasing.rotate_beside(organisation, at.clock)
            return _Finished(at.clock())

        await journal.once("rotated", _Finished, wrapping)
        return "/v1/erasures"

    kind("dataset.load", LoadRequest, load)
    kind("grant.issue", IssueRequest, issue)
    kind("query.ask", AskRequest, ask, sent=lambda request: decode(AskRequest, request).sent)
    kind("bill.issue", BillRequest, bill)
    kind("eligibility.ask", CheckRequest, check)
    kind("model.propose", ProposeRequest, propose)
    kind("model.review", ReviewRequest, review)
    kind("score.ask", ScoreJobRequest, score)
    kind("extract.ask", AskExtractRequest, ask_extract)
    kind(MAKE_EXTRACT, MakeExtractRequest, make_extract)
    kind("extract.deliver", DeliverRequest, deliver)
    kind("extract.decline", DeclineRequest, decline)
    kind("evidence.export", ExportRequest, export)
    kind("members.rotate", RotateRequest, rotate)
    kind("erasure.apply", EraseRequest, erase)
    kind("erasure.check", CheckErasureRequest, check_erasure)
    kind("vault.rotate", RotateVaultRequest, rotate_vault)
