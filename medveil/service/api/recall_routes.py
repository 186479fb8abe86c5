"""The route of recalls: extracts of this organisation that others have to delete, and what they say of it."""

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from medveil.service.api.workplace import Workplace
from privacy.erasure.deletion import reach_text
from privacy.erasure.recalls import Recall, recalls
from wire.canonical import encode

Reader = Annotated[Principal, Depends(May("extracts.read"))]


class RecallView(BaseModel):
    """An extract that its recipient has to delete, or deleted. Instants: ms UTC, 0 for not yet.

    why: erasure; consent-revoked; withdrawn (taken back when it may have left); due or chosen where the recipient did
    so unasked. told: when the notice was first sent. answer: deleted, not-held (it never came there), or "" for none
    yet; answered: when, by the recipient's clock. beyond: what that does not reach, in words. deletion: its signed
    word, an evidence file in base64, or "".
    """

    extract: str
    recipient: str
    dataset: str
    grant: str
    released: int
    why: str
    since: int
    delete_by: int
    told: int
    answer: str
    answered: int
    beyond: list[str]
    deletion: str


class RecallList(BaseModel):
    """Recalls, the oldest first."""

    recalls: list[RecallView]


def recall_routes(at: Workplace) -> APIRouter:
    """For the flows' routers."""
    router = PathRouter(tags=["extracts"])

    @router.get("/v1/extracts/recalled", summary="List what recipients have to delete")
    async def listed(request: Request, _who: Reader) -> RecallList:
        """Extracts of this organisation after an erasure or a revoked consent, and those that recipients deleted."""
        found = await asyncio.to_thread(recalls, at.organisation.vault)
        return RecallList(recalls=[_view(one, request.state.language) for one in found])

    return router


def _view(one: Recall, language: str) -> RecallView:
    heard = one.heard
    return RecallView(
        extract=one.extract.hex(),
        recipient=one.recipient,
        dataset=one.dataset,
        grant=one.grant,
        released=one.released,
        why=one.why,
        since=one.since,
        delete_by=one.delete_by,
        told=one.told,
        answer=heard.found if heard is not None else "",
        answered=heard.at if heard is not None else 0,
        beyond=[reach_text(what, language) for what in heard.beyond] if heard is not None else [],
        deletion=base64.b64encode(encode(heard)).decode("ascii") if heard is not None else "",
    )
