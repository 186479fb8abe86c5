"""Who may call what: every route beside every role, no login, and every fault of a token and its signature.

The routes are the application's own and the expectations come from the table of rights, so that a new route is
tested as soon as it is there, and one without a right fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from medveil.gateway import problems
from medveil.service.accounts.rights import RIGHTS, ROLES
from medveil.service.accounts.signatures import needs_signature
from medveil.service.api.callers import May
from wire.signing import Signer

from ..staffed import KEY, OTHER_KEY, UNBOUNDED, Staffed
from ..working import Consorted

OPEN = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/organisation"),
    ("POST", "/v1/sign-in"),
    ("POST", "/v1/invitations/accept"),
    ("POST", "/v1/sign-in/provider"),
    ("GET", "/v1/sign-in/provider/callback"),
}
"""Routes that anybody may call: a new one is named here, on purpose."""

WHOEVER_IS_SIGNED_IN = {("GET", "/v1/me")}


class Asked(NamedTuple):
    """A route and what it asks: rights of `May`, None for whoever is signed in."""

    method: str
    path: str
    asks: tuple[str | None, ...]


def routes(app: FastAPI) -> list[Asked]:
    """Every route of an application, by every method it takes."""
    found = []
    for context in iter_route_contexts(app.routes):
        dependant: Any = getattr(context, "dependant", None)
        asks = tuple(_asks(dependant)) if dependant is not None else ()
        for method in sorted((context.methods or set()) - {"HEAD", "OPTIONS"}):
            found.append(Asked(method, context.path_format or "", asks))
    return found


def _asks(dependant: Any) -> Iterator[str | None]:
    for inner in dependant.dependencies:
        if isinstance(inner.call, May):
            yield inner.call.right
        yield from _asks(inner)


def unguarded(found: Sequence[Asked]) -> list[Asked]:
    """Routes that break the rule: one right each, but for those named above."""
    return [
        route
        for route in found
        if (not route.asks) != ((route.method, route.path) in OPEN)
        or len(route.asks) > 1
        or (route.asks == (None,)) != ((route.method, route.path) in WHOEVER_IS_SIGNED_IN)
    ]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    """The service of a hospital, before a real consortium in this process."""
    folder = tmp_path_factory.mktemp("access")
    with (
        Consorted(folder / "consortium") as consorted,
        consorted.service(
            "hospital-1", folder / "service", folder, bounds=UNBOUNDED, issuer="https://id.example.org"
        ) as staffed,
    ):
        yield staffed


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    """Another organisation's service."""
    with Staffed(tmp_path_factory.mktemp("abroad")) as staffed:
        staffed.rand(1000)  # other secrets
        yield staffed


def guarded(service: Staffed) -> list[Asked]:
    found = [route for route in routes(service.running.app) if route.asks]
    assert len(found) > 20
    return found


def path_of(route: Asked, **known: str) -> str:
    """A path of the route, of things that are not there unless they are known."""
    handles = ("job", "query", "handle", "session", "review", "evidence", "ask", "extract", "erasure")
    names = ("person", "population", "dataset", "grant", "hold")
    filled = dict.fromkeys(handles, "0" * 32) | dict.fromkeys(names, "nobody-here") | {"token": "0" * 16}
    filled |= {"nonce": "0" * 64, "envelope": "0" * 64, **known}
    return route.path.format(**filled)


def check_denied(
    service: Staffed,
    route: Asked,
    status: int,
    code: str,
    actor: str = "",
    bearer: str = "",
    signer: Signer | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """The call is refused, with a document in both languages and an entry in the security log each time."""
    said = {}
    for language in ("en", "zh"):
        answer = service.send(route.method, path_of(route), bearer, signer=signer, headers=headers, language=language)
        place = (route, language, answer.text)
        assert answer.status_code == status, place
        assert answer.headers["content-type"] == problems.MEDIA_TYPE, place
        assert answer.headers["cache-control"] == "no-store", place
        document = answer.json()
        assert document["code"] == code and document["detail"] and document["fix"], place
        assert bearer == "" or bearer not in answer.text
        said[language] = document["detail"]
        entry = service.last_entry()
        expected = (actor or "-", "denied", f"{route.method} {route.path}", code)
        assert (entry.actor, entry.event, entry.subject, entry.reason) == expected, place
    assert said["en"] != said["zh"]


def check_admitted(route: Asked, answer: httpx.Response) -> None:
    assert answer.status_code not in (401, 403) and answer.status_code < 500, (route, answer.text)


def test_every_route_asks_one_right_or_is_named_as_open(service: Staffed) -> None:
    assert unguarded(routes(service.running.app)) == [] and len(guarded(service)) > 70


def test_a_route_without_a_right_is_found() -> None:
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> None: ...

    app.include_router(router)
    assert unguarded(routes(app)) == [Asked("GET", "/v1/forgotten", ())]


def test_nobody_is_let_in_anywhere(service: Staffed) -> None:
    for route in guarded(service):
        check_denied(service, route, 401, "http.not_signed_in")
        check_denied(service, route, 401, "accounts.no_session", bearer="A" * 43)
        check_denied(service, route, 401, "tokens.unknown", bearer="medveil_" + "A" * 43)


@pytest.mark.parametrize("role", ROLES)
def test_a_session_gets_what_the_table_of_rights_says(service: Staffed, role: str) -> None:
    actor = f"person:{role}"
    for route in guarded(service):
        (right,) = route.asks
        session = service.session(role)  # a new one each time: signing out ends them
        if right is not None and role not in RIGHTS[right].roles:
            check_denied(service, route, 403, "rights.not_yours", actor, session)
            continue
        token = service.token(role, {"ledger.read"})[1] if "{token}" in route.path else ""
        known = {"token": token} if token else {}
        check_admitted(route, service.send(route.method, path_of(route, **known), session))


@pytest.mark.parametrize("role", ROLES)
def test_a_session_in_a_cookie_must_come_from_our_own_page(service: Staffed, role: str) -> None:
    cookie = {"cookie": f"medveil-session={service.session(role)}"}
    actor = f"person:{role}"
    for route in guarded(service):
        if not needs_signature(route.method):
            continue
        for page in (
            {},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "origin": service.address},
            {"sec-fetch-site": "none"},
        ):
            check_denied(service, route, 403, "http.cross_site", actor, headers=cookie | page)


@pytest.mark.parametrize("role", ROLES)
def test_a_token_needs_scope_and_signature(service: Staffed, abroad: Staffed, role: str) -> None:
    without, its_id = service.token(role, {"ledger.read"})
    foreign, _ = abroad.token(role, {"ledger.read"})
    for route in guarded(service):
        (right,) = route.asks
        check_denied(service, route, 401, "tokens.unknown", "", foreign, KEY)
        if needs_signature(route.method):
            check_denied(service, route, 401, "signatures.missing", f"program:{its_id}", without)
            check_denied(service, route, 401, "signatures.other_key", f"program:{its_id}", without, OTHER_KEY)
        signer = KEY if needs_signature(route.method) else None
        if right is not None and right != "ledger.read":
            check_denied(service, route, 403, "rights.not_in_scope", f"program:{its_id}", without, signer)
        if right is None or (RIGHTS[right].programs and role in RIGHTS[right].roles):
            scoped, name = service.token(role, {right or "ledger.read"})
            check_admitted(route, service.send(route.method, path_of(route), scoped, signer=signer))
            service.staff.tokens.revoke(service.staff.sign_in.principal(service.session(role)), name)


def test_tokens_that_ended_are_named_in_the_log(service: Staffed) -> None:
    secret, its_id = service.token("officer", {"ledger.read"})
    service.staff.tokens.revoke(service.staff.sign_in.principal(service.session("officer")), its_id)
    check_denied(service, guarded(service)[0], 401, "tokens.revoked", f"program:{its_id}", secret)


def test_whoever_has_not_set_up_codes_gets_no_further(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("codes")
    with (
        Consorted(folder / "consortium") as consorted,
        consorted.service("insurer-1", folder / "service", folder, bounds=UNBOUNDED, codes_for=ROLES) as service,
    ):
        for route in guarded(service):
            (right,) = route.asks
            session = service.session("admin")
            if right in (None, "account.own"):
                check_admitted(route, service.send(route.method, path_of(route), session))
            else:
                check_denied(service, route, 403, "rights.enrol_first", "person:admin", session)
