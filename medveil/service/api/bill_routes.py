"""The routes of bills and eligibility: a hospital issues bills, an insurer asks whether one is within a limit."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from ledger.contracts import bills
from medveil.gateway import problems
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import Code, Currency, Flag, Handle, HandlePath, Money, Name, NoncePath, Person, binary
from medveil.service.api.flow_requests import BillRequest, CheckRequest
from medveil.service.api.grant_terms import Jurisdiction
from medveil.service.api.job_routes import JobView
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, Key, Workplace
from privacy.grants.terms import HOME
from privacy.uses import Declaration
from wire.canonical import decode
from wire.errors import DecodeError, Refused
from wire.money import Amount, parse_amount
from zkp.bill_limit import Presentation

Biller = Annotated[Principal, Depends(May("bills.issue"))]
Asker = Annotated[Principal, Depends(May("eligibility.ask"))]
PRESENTATIONS = "presentation"
"""Kind of the vault's documents that hold presentations, by nonce in hex."""


class NewBill(Sent):
    """A bill to issue. person: whose wallet takes it: where it is as the tables name the person, in any spelling, an
    erasure of the person finds wallet and bill; amount: a decimal."""

    person: Person
    amount: Money
    currency: Currency


class BillView(BaseModel):
    """A bill on the ledger: its amount stands there as a commitment alone."""

    handle: str
    hospital: str
    currency: str
    commitment: str
    height: int


class BillList(BaseModel):
    """This organisation's bills."""

    bills: list[BillView]


class LimitCheck(Sent):
    """Whether the bill under `handle` is at most `limit` (a decimal), asked of its hospital under a grant of its.

    commercial: whether it serves somebody's sales; jurisdiction: where you work with the answer.
    """

    hospital: Name
    handle: Handle
    limit: Money
    currency: Currency
    purpose: Code
    grant: Name
    commercial: Flag = False
    jurisdiction: Jurisdiction = HOME


class PresentationView(BaseModel):
    """A proof that was verified: the bill's amount is at most `limit`. It says nothing else of the amount."""

    nonce: str
    handle: str
    limit: str
    currency: str
    audience: str
    purpose: str
    grant: str
    chain: str
    commitment: str


def amount_of(text: str, currency: str) -> Amount:
    """The amount that a decimal text is. Raises Refused where the currency has not so many places."""
    try:
        return parse_amount(text, currency)
    except DecodeError:
        raise Refused("money.no_amount", currency=currency) from None


def _bill(state: bills.BillState) -> BillView:
    return BillView(
        handle=state.handle.hex(),
        hospital=state.hospital,
        currency=state.currency,
        commitment=state.commitment.hex(),
        height=state.height,
    )


def _presentation(found: Presentation) -> PresentationView:
    return PresentationView(
        nonce=found.nonce.hex(),
        handle=found.handle.hex(),
        limit=str(Amount(found.limit, found.currency)).partition(" ")[0],
        currency=found.currency,
        audience=found.audience,
        purpose=found.purpose,
        grant=found.grant,
        chain=found.chain,
        commitment=found.commitment.hex(),
    )


def bill_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/bills`` and ``/v1/eligibility``."""
    router = PathRouter(tags=["bills"])
    organisation = at.organisation

    def presented(nonce: str) -> bytes:
        """The canonical presentation that answered a nonce. Raises Refused."""
        try:
            return organisation.vault.document(PRESENTATIONS, nonce)
        except Refused:
            raise Refused("eligibility.unknown", nonce=nonce) from None

    @router.post("/v1/bills", status_code=202, summary="Issue a bill", responses=BEGINS)
    async def issue(
        request: Request, response: Response, who: Biller, body: NewBill, idempotency_key: Key = None
    ) -> JobView:
        """Commit to its amount, register it, hand the slip to the person's wallet. The result: `/v1/bills/{handle}`."""
        asked = BillRequest(body.person, amount_of(body.amount, body.currency))
        return await at.begin("bill.issue", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/bills", summary="List your bills")
    async def listed(_who: Biller) -> BillList:
        """Those that this organisation registered."""
        state = organisation.account.state

        def read() -> BillList:
            found = state.items(b"bills/", bills.BillState)
            return BillList(bills=[_bill(bill) for _, bill in found if bill.hospital == organisation.name])

        return await asyncio.to_thread(read)

    @router.get("/v1/bills/{handle}", summary="Look at a bill", responses=problems.documented(404))
    async def look(_who: Biller, handle: HandlePath) -> BillView:
        """One bill as the ledger has it."""
        found = organisation.account.state.get(bills.bill_key(bytes.fromhex(handle)), bills.BillState)
        if found is None:
            raise Refused("bills.unknown", handle=handle)
        return _bill(found)

    @router.post("/v1/eligibility", status_code=202, summary="Ask for a proof", responses=BEGINS)
    async def ask(
        request: Request, response: Response, who: Asker, body: LimitCheck, idempotency_key: Key = None
    ) -> JobView:
        """Have the insured person prove that a bill is within a limit. The result: `/v1/eligibility/{nonce}`."""
        at.check_others(body.hospital)
        limit = amount_of(body.limit, body.currency)
        declared = Declaration(body.commercial, body.jurisdiction)
        asked = CheckRequest(body.hospital, bytes.fromhex(body.handle), limit, body.purpose, body.grant, declared)
        return await at.begin("eligibility.ask", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/eligibility/{nonce}", summary="Look at a proof", responses=problems.documented(404))
    async def proof(_who: Asker, nonce: NoncePath) -> PresentationView:
        """What was proven and verified."""
        return _presentation(decode(Presentation, await asyncio.to_thread(presented, nonce)))

    @router.get(
        "/v1/eligibility/{nonce}/evidence",
        summary="Get a proof as evidence",
        response_class=Response,
        responses={**binary("The canonical presentation."), **problems.documented(404)},
    )
    async def evidence(_who: Asker, nonce: NoncePath) -> Response:
        """What anybody checks offline against the bill on the ledger."""
        return Response(await asyncio.to_thread(presented, nonce), media_type="application/octet-stream")

    return router
