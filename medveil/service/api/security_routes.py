"""The routes of the security log: read it page by page, and check its chain."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from medveil.service.accounts.rights import Principal
from medveil.service.api.bodies import Chain, EntryPage, EntryView
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from medveil.service.database import Database
from medveil.service.security import security_log
from medveil.service.security.security_trail import SecurityTrail
from wire.errors import VerificationError

Reader = Annotated[Principal, Depends(May("security.read"))]
_MOST = 2**53


def security_routes(database: Database, trail: SecurityTrail) -> APIRouter:
    """The router of ``/v1/security-log``."""
    router = PathRouter(tags=["security log"])
    checking = asyncio.Lock()  # the whole log is read: one at a time

    @router.get("/v1/security-log", summary="Read the security log")
    async def page(
        who: Reader,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, le=_MOST, description="Number of the last entry you have.")] = None,
    ) -> EntryPage:
        """The newest entries first."""
        await trail.settle()

        def read() -> list[security_log.SecurityEntry]:
            with database.reading() as connection:
                return security_log.read(connection, before=before, limit=limit)

        found = [
            EntryView(
                sequence=entry.sequence,
                at=entry.at,
                actor=entry.actor,
                event=entry.event,
                subject=entry.subject,
                reason=entry.reason,
            )
            for entry in await asyncio.to_thread(read)
        ]
        more = len(found) == limit and found[-1].sequence > 1
        return EntryPage(entries=found, before=found[-1].sequence if more else None)

    @router.get("/v1/security-log/check", summary="Check the security log's chain")
    async def check(
        who: Reader,
        entries: Annotated[int, Query(ge=0, le=_MOST, description="Of a head that you kept: its number.")] = 0,
        head: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="Of a head that you kept: its hash.")] = "",
    ) -> Chain:
        """Whether every entry follows from the one before, and the chain passes through the head that you kept."""
        kept = (entries, bytes.fromhex(head)) if entries and head else None

        def verify() -> Chain:
            with database.reading() as connection:
                count, last = security_log.head(connection)
                try:
                    security_log.verify(connection, kept)
                except VerificationError as error:
                    return Chain(holds=False, entries=count, head=last.hex(), broken_at=int(str(error.facts["entry"])))
                return Chain(holds=True, entries=count, head=last.hex(), broken_at=None)

        async with checking:
            return await asyncio.to_thread(verify)

    return router
