"""The routes of the ledger as this organisation replayed it: its head, its history, and its own receipts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from ledger.contracts import membership
from ledger.engines.engine import Cursor
from ledger.reading import Entry, Selection, known_kinds
from ledger.receipts import verify_receipt
from medveil.gateway import problems
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.fields import NAME, PageLimit, binary
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import Workplace
from wire.canonical import encode
from wire.errors import Refused

Reader = Annotated[Principal, Depends(May("ledger.read"))]
Keeper = Annotated[Principal, Depends(May("receipts.read"))]


def _known(kind: str) -> str:
    if kind and kind not in known_kinds():
        raise PydanticCustomError("enum", "no kind of op")
    return kind


Kind = Annotated[
    str,
    Query(description="A contract, or an op.", json_schema_extra={"enum": ["", *known_kinds()]}),
    AfterValidator(_known),
]
After = Annotated[str, Query(pattern="^[0-9]{1,15}\\.[0-9]{1,6}$", description="`place` of the last entry you have.")]
When = Annotated[int | None, Query(ge=0, le=253_402_300_799_999, description="ms since 1970, UTC, of the block.")]

EnvelopePath = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The envelope's id: 64 hex digits.")]

_PATIENCE = 20.0
"""Seconds to wait for a receipt of what is on its way."""


class HeadView(BaseModel):
    """The latest final block that this organisation replayed. time: its own, ms since 1970, UTC."""

    chain: str
    genesis: str
    height: int
    time: int
    state_root: str


class EventView(BaseModel):
    """What an op did: `contract.what`, to what, numbers of it."""

    name: str
    subject: str
    values: list[int]


class EntryView(BaseModel):
    """One envelope of final history.

    place: where it stands, to go on from. codes: of each op, empty where it took effect; code: of the first refusal,
    or empty.
    """

    place: str
    height: int
    time: int
    organisation: str
    nonce: int
    envelope: str
    kinds: list[str]
    accepted: bool
    code: str
    codes: list[str]
    events: list[EventView]


class EntryList(BaseModel):
    """A page of history, the oldest first. after: give this to get the next page; null where no more is final yet."""

    entries: list[EntryView]
    after: str | None
    height: int = Field(description="History was read up to this block.")


def _view(entry: Entry) -> EntryView:
    result = entry.result
    return EntryView(
        place=f"{entry.height}.{entry.entry}",
        height=entry.height,
        time=entry.time,
        organisation=entry.sender,
        nonce=result.nonce,
        envelope=result.envelope.hex(),
        kinds=list(entry.kinds),
        accepted=result.accepted,
        code=result.code,
        codes=[op.code for op in result.ops],
        events=[
            EventView(name=event.name, subject=event.subject, values=list(event.values)) for event in result.events
        ],
    )


def ledger_routes(at: Workplace) -> APIRouter:
    """The router of ``/v1/ledger`` and ``/v1/receipts``."""
    router = PathRouter(tags=["ledger"])

    async def page(selection: Selection, after: str, limit: int) -> EntryList:
        state = at.organisation.account.state
        height, _, entry = after.partition(".")
        found = await at.engine.entries(selection, Cursor(int(height), int(entry)) if after else Cursor(), limit)
        kept = [one for one in found if one.height <= state.height]  # final as this organisation knows it
        more = len(kept) == limit
        return EntryList(
            entries=[_view(one) for one in kept],
            after=f"{kept[-1].height}.{kept[-1].entry}" if more else None,
            height=state.height,
        )

    @router.get("/v1/ledger/head", summary="How far the ledger is")
    async def head(_who: Reader) -> HeadView:
        """The head of what this organisation replayed and k members stand behind."""
        account = at.organisation.account
        header = account.state.header
        return HeadView(
            chain=account.trust.chain,
            genesis=account.trust.genesis_hash.hex(),
            height=header.height,
            time=header.time,
            state_root=header.state_root.hex(),
        )

    @router.get("/v1/ledger/entries", summary="Read the history", responses=problems.documented(404))
    async def entries(
        _who: Reader,
        organisation: Annotated[str, Query(max_length=64, pattern=NAME)] = "",
        kind: Kind = "",
        since: When = None,
        until: When = None,
        after: After = "",
        limit: PageLimit = 100,
    ) -> EntryList:
        """Envelopes of final history, by organisation, time of the block and kind of op."""
        if organisation:
            membership.member(at.organisation.account.state.view(), organisation)
        return await page(Selection(organisation, since, until, kind), after, limit)

    @router.get("/v1/receipts", summary="List this organisation's envelopes")
    async def receipts(_who: Keeper, after: After = "", limit: PageLimit = 100) -> EntryList:
        """What this organisation wrote, the oldest first; each has a receipt."""
        return await page(Selection(at.organisation.name), after, limit)

    @router.get(
        "/v1/receipts/{envelope}",
        summary="Get a receipt",
        response_class=Response,
        responses={**binary("The canonical receipt."), **problems.documented(404)},
    )
    async def receipt(_who: Keeper, envelope: EnvelopePath) -> Response:
        """Evidence of one envelope of this organisation: check it with `medveil verify` against your trust file."""
        try:
            found = await at.engine.wait(bytes.fromhex(envelope), _PATIENCE)
        except Refused:
            raise Refused("receipts.unknown", envelope=envelope) from None
        if found.result.sender != at.organisation.name or found.result.envelope.hex() != envelope:
            raise Refused("receipts.unknown", envelope=envelope)
        verify_receipt(found, at.organisation.trust)
        return Response(encode(found), media_type="application/octet-stream")

    return router
