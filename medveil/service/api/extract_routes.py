"""The routes of extracts: asked for, wanted, looked at, made, delivered; and those that this organisation holds."""

import asyncio
from collections.abc import Iterator
from io import BytesIO
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from medveil.extracts.opening import FORMATS
from medveil.gateway import extract_drafts, extract_leaving, extract_wanted, held_extracts, made_extracts, problems
from medveil.gateway.extract_drafts import Draft
from medveil.gateway.extracting import ExtractWish, cut_of, other_cut
from medveil.gateway.long_work import at_length
from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Sent
from medveil.service.api.callers import May
from medveil.service.api.extract_views import (
    AskList,
    AskView,
    ExtractList,
    HeldView,
    MadeView,
    NewAsk,
    NewExtract,
    PreviewView,
    asked_view,
    denied_view,
    draft_view,
    held_view,
    made_view,
    wish_of,
)
from medveil.service.api.fields import binary
from medveil.service.api.flow_requests import AskExtractRequest, DeclineRequest, DeliverRequest, MakeExtractRequest
from medveil.service.api.job_routes import JobView
from medveil.service.api.member_routes import Nothing
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import BEGINS, WRITES, Key, Workplace
from privacy.uses import UseRequest

Asker = Annotated[Principal, Depends(May("extracts.ask"))]
Reader = Annotated[Principal, Depends(May("extracts.read"))]
Previewer = Annotated[Principal, Depends(May("extracts.preview"))]
Maker = Annotated[Principal, Depends(May("extracts.make"))]
Opener = Annotated[Principal, Depends(May("extracts.open"))]
Deleter = Annotated[Principal, Depends(May("extracts.delete"))]
AskPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the request: 32 hex digits.")]
ExtractPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the extract: 32 hex digits.")]

_EXACT = frozenset({"extracts.preview", "audit.read"})
"""Whoever has one of these rights sees exact counts of own extracts; noise is for colleagues who ask, as for others."""
_CHUNK = 256 * 1024
_HANDED: dict[int | str, dict[str, Any]] = {**binary("The file."), **problems.documented(404, 409)}


class Opening(Sent):
    """How the rows are written."""

    format: Literal["parquet", "arrow", "csv"] = "parquet"


def _chunks(whole: BinaryIO) -> Iterator[bytes]:
    while data := whole.read(_CHUNK):
        yield data


class _Handed(StreamingResponse):
    """Bytes as an answer, closed however the answer ends: whoever asked may be gone before it begins."""

    def __init__(self, whole: BinaryIO, name: str) -> None:
        named = {"content-disposition": f'attachment; filename="{name}"'}
        super().__init__(_chunks(whole), media_type="application/octet-stream", headers=named)
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._whole.close()


def _opened(at: Workplace, extract: bytes, form: str) -> BytesIO:
    """The rows of a held extract in the clear, in memory."""
    _, rows = held_extracts.open_held(at.organisation, extract, at.clock)
    written = BytesIO()
    FORMATS[f".{form}"](rows, written)
    written.seek(0)
    return written


def preview(at: Workplace, wish: ExtractWish, language: str) -> PreviewView:
    """What would leave, and how far it names persons. Nothing is written."""
    choice = wish.choice
    found = extract_drafts.draft(at.organisation, at.tables, wish.request, choice, at.clock, wish.grant)
    if not isinstance(found, Draft):
        return denied_view(found, language)
    if not found.measured.report.within and not choice.withhold:  # what withholding would cost
        found = found.withholding()
    organisation, grant = at.organisation, found.decision.grant
    other = other_cut(organisation, grant, cut_of(organisation, wish.request))
    return draft_view(found, choice, made_extracts.made(organisation), other, language)


def extract_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/extracts``."""
    router = PathRouter(tags=["extracts"])
    organisation = at.organisation

    @router.post("/v1/extracts/asked", status_code=202, summary="Ask for an extract", responses=BEGINS)
    async def ask(
        request: Request, response: Response, who: Asker, body: NewAsk, idempotency_key: Key = None
    ) -> JobView:
        """Of another's dataset; its data officer answers. The result: `/v1/extracts/asked/{ask}`."""
        at.check_others(body.holder)
        wanted = UseRequest(
            holder=body.holder,
            recipient=organisation.name,
            dataset=body.dataset,
            fields=tuple(dict.fromkeys(body.columns)),
            kind="extract",
            purpose=body.purpose,
            predicate=body.filter,
            commercial=body.commercial,
            jurisdiction=body.jurisdiction,
        )
        extract_wanted.check_request(wanted)
        asked = AskExtractRequest(wanted)
        return await at.begin("extract.ask", who, asked, idempotency_key, response, request.state.language)

    @router.get("/v1/extracts/asked", summary="List the extracts that you asked for")
    async def asked(_who: Reader) -> AskList:
        """What this organisation asked others for, and what they answered."""
        found = await asyncio.to_thread(extract_wanted.asked, organisation)
        return AskList(asks=[asked_view(one) for one in found])

    @router.get("/v1/extracts/asked/{ask}", summary="Look at a request of yours", responses=problems.documented(404))
    async def own_ask(_who: Reader, ask: AskPath) -> AskView:
        """How it stands."""
        return asked_view(await asyncio.to_thread(extract_wanted.asked_of, organisation, bytes.fromhex(ask)))

    @router.get("/v1/extracts/wanted", summary="List the extracts that others want")
    async def wanted(_who: Previewer) -> AskList:
        """What others asked this organisation for, and what became of it."""
        found = await asyncio.to_thread(extract_wanted.wanted, organisation)
        return AskList(asks=[asked_view(one) for one in found])

    @router.post("/v1/extracts/wanted/{ask}/decline", status_code=202, summary="Decline a request", responses=BEGINS)
    async def decline(
        request: Request, response: Response, who: Maker, ask: AskPath, body: Nothing, idempotency_key: Key = None
    ) -> JobView:
        """Whoever asked is told that you said no, and nothing else. The result: `/v1/extracts/wanted`."""
        await asyncio.to_thread(extract_wanted.wanted_of, organisation, bytes.fromhex(ask))
        said = DeclineRequest(bytes.fromhex(ask))
        return await at.begin("extract.decline", who, said, idempotency_key, response, request.state.language)

    @router.post("/v1/extracts/preview", summary="Look at what an extract would be", responses=WRITES)
    async def look(request: Request, _who: Previewer, body: NewExtract) -> PreviewView:
        """The decision, rows and masks, and the risk that single persons are found in it. Nothing is written."""
        wish = await asyncio.to_thread(wish_of, body, organisation)
        await organisation.account.present()
        return await at_length(preview, at, wish, request.state.language)

    @router.post("/v1/extracts", status_code=202, summary="Make an extract", responses=BEGINS)
    async def make(
        request: Request, response: Response, who: Maker, body: NewExtract, idempotency_key: Key = None
    ) -> JobView:
        """Make it, announce it on the ledger, deliver it. The result: `/v1/extracts/made/{extract}`."""
        wish = await asyncio.to_thread(wish_of, body, organisation)
        said = MakeExtractRequest(wish)
        return await at.begin("extract.make", who, said, idempotency_key, response, request.state.language)

    @router.get("/v1/extracts", summary="List the extracts")
    async def listed(who: Reader) -> ExtractList:
        """Those that this organisation made, and those that it holds or held."""
        exact = not who.rights.isdisjoint(_EXACT)

        def read() -> ExtractList:
            here = {one.extract for one in held_extracts.held(organisation)}
            return ExtractList(
                made=[made_view(one, exact) for one in made_extracts.made(organisation)],
                held=[held_view(one, one.extract in here) for one in held_extracts.ever_held(organisation)],
            )

        return await asyncio.to_thread(read)

    @router.get(
        "/v1/extracts/made/{extract}", summary="Look at an extract that you made", responses=problems.documented(404)
    )
    async def own(who: Reader, extract: ExtractPath) -> MadeView:
        """How it stands, and what it says of itself."""
        one = await asyncio.to_thread(made_extracts.made_of, organisation, bytes.fromhex(extract))
        return made_view(one, not who.rights.isdisjoint(_EXACT))

    @router.post(
        "/v1/extracts/{extract}/deliver", status_code=202, summary="Deliver an extract again", responses=BEGINS
    )
    async def deliver(
        request: Request, response: Response, who: Maker, extract: ExtractPath, body: Nothing,
        idempotency_key: Key = None,
    ) -> JobView:  # fmt: skip
        """One that was made and did not reach its recipient. The result: `/v1/extracts/made/{extract}`."""
        await asyncio.to_thread(made_extracts.made_of, organisation, bytes.fromhex(extract))
        said = DeliverRequest(bytes.fromhex(extract))
        return await at.begin("extract.deliver", who, said, idempotency_key, response, request.state.language)

    @router.post("/v1/extracts/{extract}/withdraw", summary="Withdraw an extract", responses=WRITES)
    async def withdraw(_who: Maker, extract: ExtractPath, body: Nothing) -> MadeView:
        """Remove one that was not delivered. Where its recipient may have it already, it is told to delete it."""
        code = "gateway.extract_declined"
        one = await asyncio.to_thread(extract_leaving.withdraw, organisation, bytes.fromhex(extract), code, at.clock)
        return made_view(one, True)

    @router.get(
        "/v1/extracts/{extract}/file",
        summary="Get a held extract, sealed",
        response_class=Response,
        responses=_HANDED,
    )
    async def file(_who: Opener, extract: ExtractPath) -> Response:
        """As it came. `medveil extract open` opens it, with the keys of this organisation's home. Noted in the audit
        trail like an opening; refused where it may not be opened here either: after its day of deletion, when it is
        recalled, when the grant is revoked."""
        await organisation.account.present()
        whole = await asyncio.to_thread(held_extracts.hand_out, organisation, bytes.fromhex(extract), at.clock)
        return _Handed(whole, f"{extract}.extract")

    @router.post(
        "/v1/extracts/{extract}/rows",
        summary="Open a held extract",
        response_class=Response,
        responses=_HANDED,
    )
    async def rows(_who: Opener, extract: ExtractPath, body: Opening) -> Response:
        """Its rows in the clear, decrypted in memory. Noted in the audit trail; refused after its day of deletion."""
        await organisation.account.present()
        whole = await at_length(_opened, at, bytes.fromhex(extract), body.format)
        return _Handed(whole, f"{extract}.{body.format}")

    @router.post("/v1/extracts/{extract}/delete", summary="Delete a held extract", responses=WRITES)
    async def delete(_who: Deleter, extract: ExtractPath, body: Nothing) -> HeldView:
        """The file goes; that it was here stays noted. Copies that somebody opened are theirs to delete."""
        one = await asyncio.to_thread(held_extracts.forget, organisation, bytes.fromhex(extract), "person", at.clock)
        return held_view(one, False)

    return router
