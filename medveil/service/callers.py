"""Who asks, and whether they may: the dependency that every route of the API has.

A person has a session: a browser as a cookie, the command line as ``Authorization: Bearer``. A program has a token,
as a bearer too, and signs each call that changes something. A route says its right once, ``May("people.read")``;
the application says how callers are known (`make_identify`), so that no route can know them in another way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from starlette.requests import ClientDisconnect, Request

from medveil.service.database import Database
from medveil.service.rights import Principal, check, who_has
from medveil.service.sign_in import SignIn
from medveil.service.signatures import PlainRequest, needs_signature, verify_request
from medveil.service.site import SESSION, Site
from medveil.service.tokens import PREFIX, Tokens
from wire.errors import MedveilError

Identify = Callable[[Request], Awaitable[Principal]]
"""Who sends this request. Raises ``MedveilError("http.not_signed_in")`` for nobody, or another refusal."""


class Caller(Protocol):
    """A person or program that has signed in."""

    @property
    def id(self) -> str:
        """Stable, unique in the organisation, at most 128 characters; owns jobs and counts for rate limits."""
        ...


class May:
    """A route's dependency: whoever calls, with the right that the route needs.

    right: of `rights.RIGHTS`; None where whoever is signed in may call.
    """

    def __init__(self, right: str | None) -> None:
        if right is not None:
            who_has(right)
        self.right = right

    async def __call__(self, request: Request) -> Principal:
        identify: Identify = request.app.state.identify
        principal = await identify(request)
        if self.right is not None:
            check(principal, self.right)
        return principal


def make_identify(
    sign_in: SignIn, tokens: Tokens, database: Database, origins: Collection[str], clock: Callable[[], int]
) -> Identify:
    """How callers are known. origins: where this service answers, as ``https://host:port``.

    The result raises MedveilError or Refused (nobody; a session or token that does not hold; a page of another
    site), VerificationError (a signature that is missing or does not hold), Unavailable (store). It leaves the
    caller in ``request.state.principal`` as soon as the secret is known, so that a denial can name who it is of.
    A body that it reads stays readable for the route.
    """
    site = Site(origins)

    async def identify(request: Request) -> Principal:
        given = request.headers.getlist("authorization")
        if not given:
            return await person_by_cookie(request)
        secret = _bearer(given)
        if secret.startswith(PREFIX):
            return await program(request, secret)
        principal = await asyncio.to_thread(sign_in.principal, secret)
        request.state.principal = principal
        return principal

    async def person_by_cookie(request: Request) -> Principal:
        secret = site.cookie(request, SESSION)
        if not secret:
            raise MedveilError("http.not_signed_in")
        principal = await asyncio.to_thread(sign_in.principal, secret)
        request.state.principal = principal
        if needs_signature(request.method):
            site.check_own_page(request)
        return principal

    async def program(request: Request, secret: str) -> Principal:
        principal, token = await asyncio.to_thread(tokens.principal, secret)
        request.state.principal = principal
        if needs_signature(request.method):
            plain = await _plain(request, site)
            await asyncio.to_thread(
                verify_request, plain, token.key, database=database, clock=clock, origins=site.origins
            )
        return principal

    return identify


def _bearer(given: list[str]) -> str:
    scheme, _, secret = given[0].partition(" ")
    if len(given) != 1 or scheme.lower() != "bearer" or not secret.strip():
        raise MedveilError("http.not_signed_in")
    return secret.strip()


async def _plain(request: Request, site: Site) -> PlainRequest:
    """The request as it was signed: fields and target as they arrived, the whole body."""
    try:
        body = await request.body()
    except ClientDisconnect:
        raise MedveilError("http.bad_request") from None
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
    return PlainRequest(request.method, site.target(request), headers, body)
