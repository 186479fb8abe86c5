"""The routes of erasure: plans, carrying them out, receipts, checks, what is due, the key epoch, legal holds."""

import asyncio
import base64
from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from medveil.gateway import erasing, problems
from medveil.gateway.erasure_checks import kept_check, read_receipt
from medveil.gateway.erasure_told import check_told, due_told, erasure_told, hold_told
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.fields import WHOLE, Base64, Flag, HandlePath, HoldPath, Name, Person, Reference, binary
from medveil.service.api.flow_requests import CheckErasureRequest, EraseRequest, RotateVaultRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from privacy.erasure import steps
from privacy.erasure.steps import DAY_MS
from privacy.legal_holds import LegalHold, all_holds, lift_hold, place_hold
from privacy.retention import ZONE
from wire.canonical import encode
from wire.dates import NO_END, day_at, day_of
from wire.errors import Refused

Eraser = Annotated[Principal, Depends(May("records.erase"))]
Days = Annotated[int, Field(ge=1, le=366, description="Days until the key epoch is rotated."), WHOLE]
Day = Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2027-11-22"])]
Markers = Annotated[list[Annotated[str, Field(min_length=4, max_length=200)]], Field(max_length=100)]


class ErasureRequest(Sent):
    """Whose data are to be erased, why, and where the request is filed."""

    person: Person
    ground: Literal["request", "consent-withdrawn"] = "request"
    reference: Reference = ""
    rotate_days: Days = 30


class DueRequest(Sent):
    """Plan what is due."""

    rotate_days: Days = 30


class ErasureCheckRequest(Sent):
    """What to look for. receipt: base64. markers: texts of the person's that must stand in no file. Private."""

    receipt: Base64
    markers: Markers = Field(default_factory=list)


class NewHold(Sent):
    """A legal hold. person: or everybody. dataset: empty for all. until: its last day; null until it is lifted.

    not_here_yet: nothing is kept of the person so far, and the hold is for what will come.
    """

    hold: Name
    reference: Annotated[str, Field(min_length=1, max_length=200)]
    person: Person | None = None
    everybody: Flag = False
    not_here_yet: Flag = False
    dataset: Annotated[str, Field(max_length=64)] = ""
    until: Day | None = None


class ErasedRows(BaseModel):
    """Rows of one data key."""

    dataset: str
    rows: int


class RestrictedRows(ErasedRows):
    """Rows that must be kept, and are out of every use. until: the last day of that, null for no end. why: retention,
    hold."""

    until: str | None
    why: list[str]


class ExtractTold(BaseModel):
    """An extract that its recipient has to delete. told, deleted: instants; 0 for not yet."""

    recipient: str
    dataset: str
    grant: str
    told: int
    deleted: int


class ErasureView(BaseModel):
    """An erasure: what goes, what is restricted, how far it came. Instants in ms since 1970, UTC; 0 for not yet.

    state: planned, under way, "done, epoch not rotated" or done. unplanned: rows of the person that may be used now and
    came after the plan was made; null in lists, where it is not looked at.
    """

    erasure: str
    ground: str
    reference: str
    state: str
    requested: int
    erase: list[ErasedRows]
    restrict: list[RestrictedRows]
    destroyed: int
    done: int
    rotate_by: int
    rotated: int
    unplanned: int | None
    extracts: list[ExtractTold]


class ErasureList(BaseModel):
    """Erasures, the oldest first. rotate_by: when the key epoch has to be rotated for them; 0 for no need."""

    erasures: list[ErasureView]
    rotate_by: int


class DueView(BaseModel):
    """What an earlier erasure (`follows`) restricted and nothing keeps any more."""

    follows: str
    reference: str
    erase: list[ErasedRows]


class DueList(BaseModel):
    """What may be erased by now."""

    due: list[DueView]


class LeftoverView(BaseModel):
    """Something that should be gone and is not."""

    code: str
    facts: dict[str, str]
    words: str


class CheckView(BaseModel):
    """What the last check saw. leftovers: empty if all is gone; beyond: what an erasure at home does not reach.

    unread, links: files that could not be read, and links to elsewhere that were not followed; server: the vault is in
    a database server, whose own files were not seen.
    """

    erasure: str
    at: int
    keys: int
    files: int
    bytes: int
    unread: list[str]
    links: list[str]
    snapshots: int
    server: bool
    leftovers: list[LeftoverView]
    beyond: list[str]


class HoldView(BaseModel):
    """A legal hold. of: one person or everybody. since, until: days; until: null as long as it is not lifted."""

    hold: str
    of: str
    dataset: str
    since: str | None
    until: str | None
    reference: str


class HoldList(BaseModel):
    """Legal holds, ended ones too."""

    holds: list[HoldView]


def erasure_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/erasures`` and ``/v1/holds``."""
    router = PathRouter(tags=["erasure"])
    organisation = at.organisation
    vault = organisation.vault

    def planned(body: ErasureRequest) -> ErasureView:
        within = body.rotate_days * DAY_MS
        made = erasing.plan(
            organisation, body.person, at.clock(), ground=body.ground, reference=body.reference, rotate_within=within
        )
        return looked(made.name)

    def looked(name: str) -> ErasureView:
        one = steps.erasure(vault, name)
        return ErasureView(**erasure_told(one, steps.under_way(vault), steps.unplanned(vault, one)))

    def listed() -> ErasureList:
        under_way = steps.under_way(vault)
        every = [ErasureView(**erasure_told(one, under_way)) for one in steps.erasures(vault)]
        return ErasureList(erasures=every, rotate_by=erasing.rotation_due(organisation))

    def offered() -> DueList:
        return DueList(due=[DueView(**due_told(*one)) for one in erasing.due(organisation, at.clock())])

    def planned_due(body: DueRequest) -> ErasureList:
        made = erasing.plan_due(organisation, at.clock(), rotate_within=body.rotate_days * DAY_MS)
        return ErasureList(erasures=[ErasureView(**erasure_told(one)) for one in made], rotate_by=0)

    def held(body: NewHold) -> HoldView:
        if (body.person is None) is not body.everybody:
            raise Refused("privacy.hold_form", hold=body.hold, field="person")
        person = b"" if body.person is None else vault.person_id(body.person)
        try:
            until = NO_END if body.until is None else day_of(date.fromisoformat(body.until))
        except ValueError:
            raise Refused("privacy.hold_form", hold=body.hold, field="until") from None
        hold = LegalHold(body.hold, person, body.dataset, body.reference, day_at(at.clock(), ZONE), until)
        place_hold(vault, hold, not_here_yet=body.not_here_yet)
        return HoldView(**hold_told(hold))

    def lifted(name: str) -> HoldView:
        return HoldView(**hold_told(lift_hold(vault, name, day_at(at.clock(), ZONE))))

    @router.post("/v1/erasures", summary="Plan an erasure", responses=problems.documented(409))
    async def plan(_who: Eraser, body: ErasureRequest) -> ErasureView:
        """What would be erased now and what restricted until when, kept as a plan. Nothing is erased yet."""
        return await asyncio.to_thread(planned, body)

    @router.get("/v1/erasures", summary="List erasures")
    async def list_all(_who: Eraser) -> ErasureList:
        """Plans, what is under way, what was done; and when the key epoch has to be rotated."""
        return await asyncio.to_thread(listed)

    @router.get("/v1/erasures/due", summary="What may be erased by now")
    async def look_due(_who: Eraser) -> DueList:
        """What earlier erasures restricted, and no duty or hold keeps any more. Nothing is planned by asking."""
        return await asyncio.to_thread(offered)

    @router.post("/v1/erasures/due", summary="Plan what is due", responses=problems.documented(409))
    async def plan_due(_who: Eraser, body: DueRequest) -> ErasureList:
        """A plan for each of them. Nothing is erased yet."""
        return await asyncio.to_thread(planned_due, body)

    @router.post("/v1/erasures/rotate", status_code=202, summary="Rotate the key epoch", responses=BEGINS)
    async def rotate(
        request: Request, response: Response, who: Eraser, body: Nothing, idempotency_key: Key = None
    ) -> JobView:
        """Wrap every key anew and destroy the older epochs: older copies become useless. The result: `/v1/erasures`."""
        language = request.state.language
        return await at.begin("vault.rotate", who, RotateVaultRequest(), idempotency_key, response, language)

    @router.post("/v1/erasures/check", status_code=202, summary="Check an erasure", responses=BEGINS)
    async def check(
        request: Request, response: Response, who: Eraser, body: ErasureCheckRequest, idempotency_key: Key = None
    ) -> JobView:
        """Look for what a receipt says is gone: in the vault, the snapshots and every file of the home.

        The result: `/v1/erasures/{erasure}/check`.
        """
        asked = CheckErasureRequest(base64.b64decode(body.receipt), tuple(body.markers))
        read_receipt(asked.receipt, "receipt")
        return await at.begin("erasure.check", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/erasures/{erasure:handle}", summary="Look at an erasure", responses=problems.documented(404))
    async def look(_who: Eraser, erasure: HandlePath) -> ErasureView:
        """One of them, with how many rows of the person came after it was planned."""
        return await asyncio.to_thread(looked, erasure)

    @router.post("/v1/erasures/{erasure}/apply", status_code=202, summary="Carry out an erasure", responses=BEGINS)
    async def apply(
        request: Request,
        response: Response,
        who: Eraser,
        erasure: HandlePath,
        body: Nothing,
        idempotency_key: Key = None,
    ) -> JobView:
        """Destroy keys, restrict what must be kept, cut the snapshots anew. For good. The result: the erasure.

        A query that runs meanwhile sees all rows of the person in a table, or none.
        """
        await asyncio.to_thread(steps.erasure, vault, erasure)
        asked = EraseRequest(bytes.fromhex(erasure))
        return await at.begin("erasure.apply", who, asked, idempotency_key, response, request.state.language)

    @router.post(
        "/v1/erasures/{erasure}/receipt",
        summary="Get the receipt of an erasure",
        response_class=Response,
        responses={**binary("The canonical receipt, signed."), **problems.documented(404, 409)},
    )
    async def receipt(_who: Eraser, erasure: HandlePath, body: Nothing) -> Response:
        """As it stands now: each has a higher issue number. It is the person's."""
        made = await asyncio.to_thread(erasing.receipt_of, organisation, erasure, at.clock())
        return Response(encode(made), media_type="application/octet-stream")

    @router.get("/v1/erasures/{erasure}/check", summary="Read the last check", responses=problems.documented(404))
    async def checked(request: Request, _who: Eraser, erasure: HandlePath) -> CheckView:
        """What it saw, and what is left, if anything."""
        kept = await asyncio.to_thread(kept_check, organisation, erasure)
        return CheckView(**check_told(kept, request.state.language))

    @router.get("/v1/holds", summary="List legal holds")
    async def holds(_who: Eraser) -> HoldList:
        """Those that have ended, too."""
        found = await asyncio.to_thread(all_holds, vault)
        return HoldList(holds=[HoldView(**hold_told(one)) for one in found])

    @router.post("/v1/holds", summary="Place a legal hold", responses=WRITES)
    async def place(_who: Eraser, body: NewHold) -> HoldView:
        """From today on: what it names is not erased while it stands. Refused where it would hold nothing."""
        return await asyncio.to_thread(held, body)

    @router.post("/v1/holds/{hold}/lift", summary="Lift a legal hold", responses=WRITES)
    async def lift(_who: Eraser, hold: HoldPath, body: Nothing) -> HoldView:
        """It ends with yesterday. What it kept is due then, where its erasure was asked for."""
        return await asyncio.to_thread(lifted, hold)

    return router
