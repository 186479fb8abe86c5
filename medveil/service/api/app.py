"""The HTTP application of one organisation's gateway, for people and programs: versioned under ``/v1``.

`make_app` puts together what the parts give: the doorway around everything, health and metrics, the API's
routers, the OpenAPI description (JSON alone: no page that loads scripts from elsewhere), and a place where a web
console can be mounted. FastAPI's own telemetry is off: it would export query strings and texts of exceptions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from medveil.gateway import problems
from medveil.service.accounts.rights import Principal
from medveil.service.api.callers import Identify, May
from medveil.service.api.doorway import Doorway, Limits, route_template
from medveil.service.api.job_routes import job_routes
from medveil.service.api.path_router import PathRouter, Paths
from medveil.service.api.rates import Rates
from medveil.service.health import Health
from medveil.service.logs import Log, Vocabulary
from medveil.service.metrics import MEDIA_TYPE, Metrics
from medveil.service.security.security_trail import SecurityTrail, actor_of
from medveil.service.traces import Traces
from medveil.service.work.jobs import Jobs
from mpc import query_document
from privacy import filters
from wire.errors import MedveilError, Refused

TELEMETRY_OFF: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,  # said outright: an environment variable would turn it on
}

_BEARER = {"type": "http", "scheme": "bearer", "description": "A session's or a program's token."}
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What an application is made of. height: of the latest final block. rand: random bytes, for request ids.

    identify: how callers are known. trail: where denials are written. routers: of the API's other parts, each with
    whole paths (``/v1/...``); every route asks its right by `callers.May`, or says that it is open to anybody.
    console: an ASGI application for ``/console``, if there is one.
    """

    organisation: str
    version: str
    height: Callable[[], int]
    identify: Identify
    trail: SecurityTrail
    jobs: Jobs
    health: Health
    metrics: Metrics
    log: Log
    traces: Traces
    rates: Rates
    vocabulary: Vocabulary
    rand: Callable[[int], bytes]
    limits: Limits = field(default_factory=Limits)
    routers: Sequence[APIRouter] = ()
    console: ASGIApp | None = None


class Whose(BaseModel):
    """Whose gateway this is."""

    organisation: str


class About(BaseModel):
    """Whose gateway this is."""

    organisation: str
    version: str
    height: int = Field(ge=0, description="Height of the latest final block of the ledger that it has replayed.")


class Liveness(BaseModel):
    """The process answers."""

    live: bool


class Readiness(BaseModel):
    """Whether it can work. checks: each by name, passed or not."""

    ready: bool
    checks: dict[str, bool]


def make_app(parts: Parts) -> FastAPI:
    """The application. It does no work until a server runs it; closing the parts is the caller's."""
    app = FastAPI(
        title="medveil gateway",
        version=parts.version,
        description="Use each other's health-insurance data without seeing it.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host header
        responses=problems.documented(*problems.GENERAL),
        telemetry=TELEMETRY_OFF,
    )
    furnish(app, parts)
    app.state.identify, app.state.known = _counted(parts), parts.identify
    paths = Paths(app)
    for router in (_watching(parts), _about(parts), job_routes(parts.jobs), *parts.routers):
        paths.include(router)
    if parts.console is not None:
        app.mount("/console", parts.console, name="console")
    parts.vocabulary.add(*(context.path_format for context in iter_route_contexts(app.routes) if context.path_format))
    return app


def furnish(app: FastAPI, parts: Parts) -> None:
    """Put the doorway, the problem documents and the OpenAPI description into any application of the gateway."""
    app.add_middleware(
        cast(Any, Doorway),
        log=parts.log,
        metrics=parts.metrics,
        traces=parts.traces,
        rates=parts.rates,
        rand=parts.rand,
        limits=parts.limits,
    )
    app.state.trail, app.state.log = parts.trail, parts.log
    app.add_exception_handler(MedveilError, _refused)
    app.add_exception_handler(HTTPException, _framework_refused)
    app.add_exception_handler(RequestValidationError, _did_not_fit)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        import msgspec

        return Response(msgspec.json.encode(app.openapi()), media_type="application/json")


def _answered(request: Request, answer: problems.Answer) -> Response:
    return Response(answer.body, answer.status, headers=dict(answer.headers))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, MedveilError)
    state = request.state
    await _keep_denial(request, error)
    return _answered(request, problems.answer(error, state.request, state.language))


async def _framework_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    state, kind = request.state, problems.of_status(error.status_code)
    await _keep_denial(request, kind)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_at(request))
    return _answered(request, problems.answer(kind, state.request, state.language, headers=headers))


def _methods_at(request: Request) -> list[str]:
    """Every method that the address takes: the framework names only those of the first route that it found.

    An address that is itself a route's path is no value of another route's parameter.
    """
    path, found, exact = request.scope["path"], set[str](), set[str]()
    for context in iter_route_contexts(request.app.routes):
        pattern = getattr(context, "path_regex", None)
        if pattern is not None and pattern.match(path):
            found |= context.methods or set()
            exact |= (context.methods or set()) if context.path_format == path else set()
    return sorted(exact or found)


async def _did_not_fit(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    state, (kind, places) = request.state, problems.misfit(error.errors())
    return _answered(request, problems.answer(kind, state.request, state.language, places))


async def _keep_denial(request: Request, error: MedveilError) -> None:
    """Write a denial into the security log. A store that cannot take it is no reason to let anybody in."""
    if problems.status_of(error) not in (401, 403):
        return
    trail: SecurityTrail = request.app.state.trail
    address = request.client.host if request.client else ""
    route = f"{request.method} {route_template(request.scope)}"
    try:
        await trail.denied(actor_of(request.state, error), address, route, error.code)
    except MedveilError as failure:
        log: Log = request.app.state.log
        log.error("denial_not_kept", request=request.state.request, reason=failure.code)


def _counted(parts: Parts) -> Identify:
    """`identify`, with the caller's own rate limit. Who is looked up again when the body has come counts once."""

    async def identified(request: Request) -> Principal:
        caller = await parts.identify(request)
        if getattr(request.state, "counted", "") != caller.id:
            parts.rates.principal(caller.id)
            request.state.counted = caller.id
        return caller

    return identified


def _about(parts: Parts) -> APIRouter:
    router = PathRouter(tags=["about"])

    @router.get("/v1/about", summary="Whose gateway this is")
    async def about(_caller: Annotated[Principal, Depends(May("members.read"))]) -> About:
        """Organisation, version and how far it follows the ledger."""
        return About(organisation=parts.organisation, version=parts.version, height=parts.height())

    @router.get("/v1/organisation", summary="Whose gateway this is, for anybody", openapi_extra={"security": []})
    async def organisation() -> Whose:
        """Its name alone: what a client compares before it says who calls."""
        return Whose(organisation=parts.organisation)

    return router


def _watching(parts: Parts) -> APIRouter:
    """Health for whoever restarts or balances, metrics for the machine's own monitoring."""
    router = PathRouter(tags=["health"])

    @router.get("/health/live", summary="Does the process answer?")
    async def live() -> Liveness:
        """Answers as long as the process runs."""
        return Liveness(live=True)

    @router.get(
        "/health/ready",
        summary="Can it work?",
        responses={503: {"description": "Not ready: some check failed.", "model": Readiness}},
    )
    async def ready(response: Response) -> Readiness:
        """Whether every named check passes."""
        checks = await parts.health.ready()
        if not all(checks.values()):
            response.status_code = 503
        return Readiness(ready=all(checks.values()), checks=checks)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"description": "Text format.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def metrics(request: Request) -> Response:
        """Counts for Prometheus, to callers on this machine."""
        if request.client is None or request.client.host not in _LOOPBACK:
            raise Refused("http.watchers_only")
        parts.metrics.ledger_height.set(parts.height())
        return Response(parts.metrics.render(), headers={"content-type": MEDIA_TYPE})

    return router


def _description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the one component of problem documents.

    What is under ``/v1/`` needs a token, unless the route's own ``openapi_extra`` says ``{"security": []}``.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        made.setdefault("components", {})["securitySchemes"] = {"bearer": dict(_BEARER)}
        for path, operations in made["paths"].items():
            for operation in operations.values():
                operation.setdefault("security", [{"bearer": []}] if path.startswith("/v1/") else [])
        components = made["components"].setdefault("schemas", {})
        components[problems.COMPONENT] = problems.schema()
        components[filters.COMPONENT] = filters.schema()
        components[query_document.COMPONENT] = query_document.schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema
