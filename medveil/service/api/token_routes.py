"""The routes of programs' tokens: issue, list, revoke."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from medveil.gateway import problems
from medveil.service.accounts.rights import Principal
from medveil.service.accounts.tokens import Token, Tokens
from medveil.service.api.bodies import IssuedToken, NewToken, TokenList, TokenPath, TokenView
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from wire.signing import ED25519, VerifyKey

Owner = Annotated[Principal, Depends(May("tokens.own"))]
Reader = Annotated[Principal, Depends(May("tokens.read"))]


def _fields(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "owner": token.owner,
        "label": token.label,
        "scopes": sorted(token.scopes),
        "key": token.key.public.hex(),
        "created": token.created,
        "expires": token.expires,
        "used": token.used,
        "revoked": token.revoked,
    }


def _listed(tokens: Sequence[Token]) -> TokenList:
    return TokenList(tokens=[TokenView(**_fields(token)) for token in tokens])


def token_routes(tokens: Tokens) -> APIRouter:
    """The router of ``/v1/tokens``."""
    router = PathRouter(tags=["tokens"])

    @router.post("/v1/tokens", status_code=201, summary="Make a token", responses=problems.documented(409))
    async def issue(who: Owner, body: NewToken) -> IssuedToken:
        """For a program of yours: some of your rights, bound to the program's key. Shown this once."""
        key = VerifyKey(ED25519, bytes.fromhex(body.key))
        secret, token = await asyncio.to_thread(tokens.issue, who, body.label, body.scopes, key, days=body.days)
        return IssuedToken(**_fields(token), token=secret)

    @router.get("/v1/tokens", summary="List everybody's tokens")
    async def listed(who: Reader) -> TokenList:
        """Without their secrets."""
        return _listed(await asyncio.to_thread(tokens.all, who))

    @router.get("/v1/me/tokens", summary="List your tokens")
    async def own(who: Owner) -> TokenList:
        """Without their secrets."""
        return _listed(await asyncio.to_thread(tokens.own, who))

    @router.delete("/v1/tokens/{token}", status_code=204, summary="Revoke a token", responses=problems.documented(404))
    async def revoke(who: Owner, token: TokenPath) -> None:
        """Your own, or as an admin anybody's. It fails from the next call on."""
        await asyncio.to_thread(tokens.revoke, who, token)

    return router
