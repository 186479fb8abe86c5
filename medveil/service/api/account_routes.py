"""The routes of one's own account: who one is, password, one-time codes, recovery codes."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from medveil.gateway import problems
from medveil.service.accounts.passwords import HashingThreads
from medveil.service.accounts.rights import Principal
from medveil.service.accounts.sign_in import SignIn
from medveil.service.api.bodies import (
    Confirmation,
    FirstCode,
    Me,
    PasswordChange,
    RecoveryCodes,
    Seed,
    Session,
    SessionList,
    SessionPath,
    SessionView,
)
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from medveil.service.api.sign_in_routes import Own, address_of, answered
from medveil.service.site import Site


def account_routes(sign_in: SignIn, site: Site, hashing: HashingThreads) -> APIRouter:
    """The router of ``/v1/me``."""
    router = PathRouter(tags=["account"])

    @router.get("/v1/me", summary="Who you are")
    async def me(who: Annotated[Principal, Depends(May(None))]) -> Me:
        """Name, roles and rights of the caller, person or program."""
        return Me(
            kind=who.kind,
            name=who.name,
            owner=who.owner,
            roles=sorted(who.roles),
            rights=sorted(who.rights),
            enrolling=who.enrolling,
        )

    @router.post("/v1/me/password", summary="Change your password", responses=problems.documented(409))
    async def change_password(request: Request, response: Response, who: Own, body: PasswordChange) -> Session:
        """All of your sessions end; the answer begins a new one, carried as this call was."""
        address = address_of(request)
        signed_in = await hashing.run(address, sign_in.change_password, who, body.old, body.new, address=address)
        return answered(site, response, signed_in, bearer="authorization" in request.headers)

    @router.get("/v1/me/sessions", summary="List your sessions")
    async def sessions(who: Own) -> SessionList:
        """Wherever you are signed in, the newest first."""
        found = await asyncio.to_thread(sign_in.sessions_of, who)
        return SessionList(sessions=[SessionView(**one._asdict()) for one in found])

    @router.delete("/v1/me/sessions/{session}", status_code=204, summary="End one of your sessions",
                   responses=problems.documented(404))  # fmt: skip
    async def end_session(who: Own, session: SessionPath) -> None:
        """From the next call on."""
        await asyncio.to_thread(sign_in.end_session, who, session)

    @router.post("/v1/me/codes", summary="Begin to set up one-time codes", responses=problems.documented(409))
    async def begin_codes(request: Request, who: Own, body: Confirmation) -> Seed:
        """The secret for an authenticator app. It counts once it is confirmed with the first code."""
        address = address_of(request)
        return Seed(uri=await hashing.run(address, sign_in.begin_codes, who, body.password, address=address))

    @router.post("/v1/me/codes/confirm", summary="Confirm one-time codes", responses=problems.documented(409))
    async def finish_codes(who: Own, body: FirstCode) -> RecoveryCodes:
        """Codes are needed from now on; your other sessions end. The answer holds recovery codes, shown once."""
        return RecoveryCodes(codes=await asyncio.to_thread(sign_in.finish_codes, who, body.code))

    @router.post("/v1/me/recovery-codes", summary="New recovery codes", responses=problems.documented(409))
    async def recovery_codes(request: Request, who: Own, body: Confirmation) -> RecoveryCodes:
        """Ten new ones, shown once; the old ones end."""
        address = address_of(request)
        codes = await hashing.run(address, sign_in.new_recovery_codes, who, body.password, address=address)
        return RecoveryCodes(codes=codes)

    return router
