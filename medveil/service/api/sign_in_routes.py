"""The routes of signing in and out: by password, by an invitation, by an OpenID Connect provider.

A browser gets its session as a cookie and never sees the secret; a command line gets it in the answer and sends it
as ``Authorization: Bearer``. Nothing here says whether an account exists.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from medveil.gateway import problems
from medveil.service.accounts.oidc import ATTEMPT_MS, ProviderSignIn
from medveil.service.accounts.passwords import HashingThreads
from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal
from medveil.service.accounts.sign_in import DEVICE_MS, SignedIn, SignIn
from medveil.service.api.bodies import Acceptance, Accepted, Credentials, Leading, Session
from medveil.service.api.callers import May
from medveil.service.api.path_router import PathRouter
from medveil.service.site import ATTEMPT, DEVICE, SESSION, Site
from wire.errors import Refused

OPEN: dict[str, list[dict[str, list[str]]]] = {"security": []}
"""``openapi_extra`` of a route that anybody may call."""

LEFT_BEHIND = '"cache", "storage"'
"""What a browser forgets when somebody signs out (Clear-Site-Data); cookies are ended one by one."""

Text = Annotated[str, Query(max_length=2048)]
Own = Annotated[Principal, Depends(May("account.own"))]


def address_of(request: Request) -> str:
    """Where the caller is, as the server believes it."""
    return request.client.host if request.client else ""


def answered(site: Site, response: Response, signed_in: SignedIn, *, bearer: bool) -> Session:
    """What the caller gets of a new session: the secrets, or cookies that hold them."""
    if not bearer:
        site.set_cookie(response, SESSION, signed_in.session)
        if signed_in.device:
            site.set_cookie(response, DEVICE, signed_in.device, seconds=DEVICE_MS // 1000)
    return Session(
        person=signed_in.person,
        expires=signed_in.expires,
        enrolling=signed_in.enrolling,
        session=signed_in.session if bearer else None,
        device=signed_in.device if bearer else None,
    )


def sign_in_routes(sign_in: SignIn, people: People, site: Site, hashing: HashingThreads) -> APIRouter:
    """The router of ``/v1/sign-in``, ``/v1/sign-out`` and ``/v1/invitations``."""
    router = PathRouter(tags=["sign-in"])

    @router.post("/v1/sign-in", summary="Sign in", openapi_extra=OPEN)
    async def enter(request: Request, response: Response, body: Credentials) -> Session:
        """Begin a session. A wrong name, password or code is one answer; too many of them wait."""
        site.check_own_page(request, said=False)
        signed_in = await hashing.run(
            address_of(request),
            sign_in.sign_in,
            body.name,
            body.password,
            body.code,
            address=address_of(request),
            device=body.device or site.cookie(request, DEVICE),
            replaces=site.cookie(request, SESSION),
        )
        return answered(site, response, signed_in, bearer=body.carrier == "bearer")

    @router.post("/v1/sign-out", status_code=204, summary="Sign out")
    async def leave(response: Response, who: Own) -> None:
        """End this session."""
        await asyncio.to_thread(sign_in.sign_out, who)
        site.drop_cookie(response, SESSION)
        response.headers["clear-site-data"] = LEFT_BEHIND

    @router.post("/v1/sign-out/everywhere", status_code=204, summary="Sign out everywhere")
    async def leave_everywhere(response: Response, who: Own) -> None:
        """End all of your sessions, and forget the devices that you signed in from."""
        await asyncio.to_thread(sign_in.sign_out, who, everywhere=True)
        site.drop_cookie(response, SESSION)
        site.drop_cookie(response, DEVICE)
        response.headers["clear-site-data"] = LEFT_BEHIND

    @router.post("/v1/invitations/accept", summary="Accept an invitation", openapi_extra=OPEN,
                 responses=problems.documented(409))  # fmt: skip
    async def accept(request: Request, body: Acceptance) -> Accepted:
        """Exchange an invitation for a password of your own; then sign in."""
        site.check_own_page(request, said=False)
        person = await hashing.run(address_of(request), people.accept, body.invitation, body.password)
        return Accepted(person=person)

    return router


def provider_routes(
    provider: ProviderSignIn, site: Site, asking: HashingThreads, after: str = "/console/"
) -> APIRouter:
    """The router of ``/v1/sign-in/provider``. asking: threads that wait for the provider, which may take its time, and
    anybody may have them wait; after: the path where a browser goes once it is signed in."""
    router = PathRouter(tags=["sign-in"])

    @router.post("/v1/sign-in/provider", summary="Begin to sign in by the provider", openapi_extra=OPEN,
                 responses=problems.documented(502))  # fmt: skip
    async def begin(request: Request, response: Response) -> Leading:
        """Where to send the browser, which gets a cookie that it needs when it comes back."""
        site.check_own_page(request, said=False)
        begun = await asking.run(address_of(request), provider.begin)
        site.set_cookie(response, ATTEMPT, begun.browser, seconds=ATTEMPT_MS // 1000, lax=True)
        return Leading(url=begun.url)

    @router.get(
        "/v1/sign-in/provider/callback",
        status_code=303,
        response_class=RedirectResponse,
        summary="Come back from the provider",
        openapi_extra=OPEN,
        responses={303: {"description": "Signed in; the session is in a cookie."}, **problems.documented(409, 502)},
    )
    async def finish(
        request: Request, state: Text = "", code: Text = "", iss: Text = "", error: Text = ""
    ) -> RedirectResponse:
        """Where the provider sends the browser."""
        given = {"state": state, "code": code, "iss": iss, "error": error}
        browser = site.cookie(request, ATTEMPT)
        if not browser or not state:
            raise Refused("oidc.no_attempt")
        signed_in = await asking.run(
            address_of(request),
            provider.finish,
            {name: value for name, value in given.items() if value},
            browser,
            replaces=site.cookie(request, SESSION),
        )
        response = RedirectResponse(after, 303)
        answered(site, response, signed_in, bearer=False)
        site.drop_cookie(response, ATTEMPT)
        return response

    return router
