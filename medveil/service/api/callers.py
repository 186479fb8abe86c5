"""Who asks, and whether they may: the dependency that every route of the API has.

A person has a session: a browser as a cookie, the command line as ``Authorization: Bearer``. A program has a token,
as a bearer too, and signs each call that changes something. A route says its right once, ``May("people.read")``;
the application says how callers are known (`make_identify`), so that no route can know them in another way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from typing import Any, Protocol

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from medveil.service.accounts.rights import Principal, check, who_has
from medveil.service.accounts.sign_in import SignIn
from medveil.service.accounts.signatures import PlainRequest, needs_signature, verify_request
from medveil.service.accounts.standing import Standing
from medveil.service.accounts.tokens import PREFIX, Token, Tokens
from medveil.service.api.json_bodies import JsonRequest
from medveil.service.database import Database
from medveil.service.site import SESSION, Site
from wire.errors import DecodeError, MedveilError

OPEN_BODY = 16 * 1024
"""Bytes that a body may have where anybody may call: a sign-in, an invitation."""

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
        if getattr(request.state, "admitted_by", None) is self:
            return request.state.principal  # type: ignore[no-any-return]
        identify: Identify = request.app.state.identify
        principal = await identify(request)
        if self.right is not None:
            check(principal, self.right)
        request.state.principal, request.state.admitted_by = principal, self
        return principal


class GuardedRoute(APIRoute):
    """A route that knows its caller before anything of a body is parsed.

    The framework reads and parses the body first and asks dependencies after that. Here `May` comes first, and where
    anybody may call, a body is small. A body may take its time to come: what its caller lost meanwhile is lost, so a
    person is looked up once more when it is there (and a program before its signature is: `make_identify`).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute.get_route_handler`."""
        handle = super().get_route_handler()
        rights = tuple(_asked(self.dependant))
        reads = self.body_field is not None

        async def guarded(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            for may in rights:
                await may(request)
            if reads:
                length = len(await _body(request))
                if not rights and length > OPEN_BODY:
                    raise MedveilError("http.body_too_large")
                if rights and request.state.principal.kind == "person":
                    request.state.admitted_by = None
                    for may in rights:
                        await may(request)
            try:
                return await handle(request)
            except HTTPException as error:
                if isinstance(error.__cause__, DecodeError):  # the framework's word for whatever `json` raised
                    raise error.__cause__ from None
                raise

        return guarded


def _asked(dependant: Dependant) -> Iterator[May]:
    """Every `May` of a route, also of a dependency's dependency."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, May):
            yield inner.call
        yield from _asked(inner)


def make_identify(
    sign_in: SignIn,
    tokens: Tokens,
    standing: Standing,
    database: Database,
    origins: Collection[str],
    clock: Callable[[], int],
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
        principal = await person(secret)
        request.state.principal = principal
        return principal

    async def person(secret: str) -> Principal:
        stamp = await standing.now()
        known = None if stamp is None else sign_in.recalled(secret, stamp)
        return known if known is not None else await asyncio.to_thread(sign_in.principal, secret)

    async def person_by_cookie(request: Request) -> Principal:
        secret = site.cookie(request, SESSION)
        if not secret:
            raise MedveilError("http.not_signed_in")
        principal = await person(secret)
        request.state.principal = principal
        if needs_signature(request.method):
            site.check_own_page(request)
        return principal

    async def holder(secret: str) -> tuple[Principal, Token]:
        stamp = await standing.now()
        known = None if stamp is None else tokens.recalled(secret, stamp)
        return known if known is not None else await asyncio.to_thread(tokens.principal, secret)

    async def program(request: Request, secret: str) -> Principal:
        principal, token = await holder(secret)
        request.state.principal = principal
        if needs_signature(request.method):
            plain = await _plain(request, site)
            principal, token = await holder(secret)  # as it is when the body has come
            request.state.principal = principal
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
    body = await _body(request)
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
    return PlainRequest(request.method, site.target(request), headers, body)


async def _body(request: Request) -> bytes:
    """The whole body, which stays readable for the route. Its size is the doorway's matter."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise MedveilError("http.bad_request") from None
