"""The route of handovers: evidence of every change of members and keys, which clients follow with their trust file.

What the members are *now* anybody may say. A client that pinned a trust file believes a change only by its handover,
cosigned by as many of the members before it as were needed (`ledger.handovers`).
"""

import asyncio
import base64
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from ledger.receipts import ProvenValue
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from wire.canonical import encode
from wire.errors import Unavailable

PAGE = 50
"""Most handovers of one answer: each is a few kilobytes."""
PATIENCE = 20.0
"""Seconds to wait for whoever keeps them."""
_HIGHEST = 2**53

Reader = Annotated[Principal, Depends(May("members.read"))]


class Engine(Protocol):
    """The ledger, as far as this file needs it."""

    async def handovers(self, after: int = 0) -> tuple[ProvenValue, ...]:
        """See `ledger.engines.Engine.handovers`."""
        ...


class HandoverPage(BaseModel):
    """Handovers in the order of their heights, at most 50; ask again after the height of the last one."""

    handovers: list[str] = Field(max_length=PAGE, description="Canonical proven values, base64 (RFC 4648, 4).")


def handover_routes(engine: Engine, sequencer: str = "sequencer") -> APIRouter:
    """The router of ``/v1/members/handovers``. sequencer: who keeps them."""
    router = PathRouter(tags=["members"])

    @router.get("/v1/members/handovers", summary="Evidence of changes of members and keys")
    async def handovers(
        _who: Reader,
        after: Annotated[int, Query(ge=0, le=_HIGHEST, description="Height from which you know them already.")] = 0,
    ) -> HandoverPage:
        """The changes that hold from a block above `after` on, each with what proves it."""
        try:
            async with asyncio.timeout(PATIENCE):  # the engine itself asks until somebody answers
                found = await engine.handovers(after)
        except TimeoutError:
            raise Unavailable("network.unreachable", retry_after=30, organisation=sequencer) from None
        return HandoverPage(handovers=[base64.b64encode(encode(one)).decode() for one in found[:PAGE]])

    return router
