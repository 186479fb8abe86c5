"""What every request passes first and every answer last: one ASGI layer around the routes.

In the order it happens: a request id; a span; limits on address, header fields, media type and body; the
routes; problem documents for what was refused and for what nobody expected; security header fields; one line
in the log and one count. It is plain ASGI, so that streams stream and a slow reader holds up nobody.

Body limit and deadline: what a Content-Length announces is refused before a byte is read; what comes without
one is counted as it comes, and no more is read. Starlette's own limit answers in plain text, so it is not used.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medveil.gateway import problems
from medveil.service.api.rates import Rates
from medveil.service.logs import Log, about
from medveil.service.metrics import METHODS, Metrics
from medveil.service.traces import Span, Traces
from wire.errors import MedveilError

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Header fields of every answer that does not set them itself (OWASP ASVS 5.0, 3.4)."""
_TRANSPORT = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
_SECURITY = tuple((name.encode(), value.encode()) for name, value in SECURITY.items())
_CONSOLE = "/console/"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may be. Bytes and seconds."""

    body: int = 1024 * 1024
    body_seconds: float = 30.0
    path: int = 2048
    query: int = 4096
    headers: int = 16 * 1024
    header_count: int = 100
    media_types: frozenset[str] = frozenset({"application/json"})


class Doorway:
    """The layer. rand: `rand(n)` gives n random bytes, for request ids."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: Log,
        metrics: Metrics,
        traces: Traces,
        rates: Rates,
        rand: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics
        self._traces = traces
        self._rates = rates
        self._rand = rand
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # none is offered
            return
        started = perf_counter()
        headers = dict(scope["headers"])
        request = str(uuid.UUID(bytes=self._rand(16), version=4))
        language = problems.language_of(headers.get(b"accept-language", b"").decode("latin-1"))
        state = scope.setdefault("state", {})
        state["request"], state["language"] = request, language
        leaving = _Leaving(send, request, scope.get("scheme") == "https")
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        carried = _carried(headers)
        with self._traces.span(method, carried, server=True) as span:
            self._metrics.in_flight.inc()
            try:
                self._check(scope, headers)
                await self._app(scope, self._measured(scope, headers, receive), leaving)
            except MedveilError as error:
                await leaving.problem(error, language)
            except HTTPException as error:
                await leaving.problem(problems.of_status(error.status_code), language)
            except Exception as error:
                self._metrics.faults.inc()
                self._log.error("fault", request=request, trace=span.trace_id, **about(error))
                await leaving.problem(problems.fault(), language)
            finally:
                self._metrics.in_flight.dec()
                self._record(scope, span, method, request, leaving.status, perf_counter() - started)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Raises what refuses a request before it is routed."""
        client = scope.get("client")
        self._rates.address(client[0] if client else "")
        limits, fields = self._limits, scope["headers"]
        hosts = sum(name == b"host" for name, _ in fields)
        if hosts > 1 or (not hosts and scope.get("http_version") != "1.0"):  # RFC 9112, 3.2
            raise MedveilError("http.bad_request")
        if b"%" in (scope.get("raw_path") or b"") and not scope["path"].startswith(_CONSOLE):
            raise MedveilError("http.bad_request")  # no address of the API needs it, and a proxy may read it otherwise
        if len(scope.get("raw_path") or scope["path"]) > limits.path or len(scope["query_string"]) > limits.query:
            raise MedveilError("http.address_too_long")
        if len(fields) > limits.header_count or sum(len(name) + len(value) for name, value in fields) > limits.headers:
            raise MedveilError("http.headers_too_large")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limits.body:
            raise MedveilError("http.body_too_large")
        if announced.strip(b"0") or b"transfer-encoding" in headers:
            media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
            if scope["method"] in _WITH_BODY and media not in limits.media_types:
                raise MedveilError("http.wrong_type")

    def _measured(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """`receive`, with the body counted and its time limited. A request without a body keeps its own."""
        if not headers.get(b"content-length", b"").strip(b"0") and b"transfer-encoding" not in headers:
            return receive
        seen, more = 0, True
        deadline = asyncio.get_running_loop().time() + self._limits.body_seconds

        async def measured() -> Message:
            nonlocal seen, more
            if not more:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408) from None  # passes through the framework's reading of bodies
            seen += len(message.get("body", b""))
            more = message.get("more_body", False)
            if seen > self._limits.body:
                raise HTTPException(413)
            return message

        return measured

    def _record(self, scope: Scope, span: Span, method: str, request: str, status: int, seconds: float) -> None:
        route = route_template(scope)
        self._metrics.answered(method, route, status, seconds)
        self._log.info(
            "request",
            request=request,
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            trace=span.trace_id,
        )
        span.name(f"{method} {route}")
        span.note("http.request.method", method)
        span.note("http.route", route)
        span.note("http.response.status_code", status)
        span.note("medveil.request", request)
        if status >= 500 or not status:
            span.failed(str(status))


class _Leaving:
    """`send`, which knows whether the answer has begun and adds the fields that every answer has.

    status: of the answer, 0 if none was begun (the caller went away, or the process stops).
    """

    def __init__(self, send: Send, request: str, encrypted: bool) -> None:
        self._send = send
        self._request = request
        self._encrypted = encrypted
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            fields = list(message.get("headers", ()))
            names = {name for name, _ in fields}
            fields += [field for field in _SECURITY if field[0] not in names]
            fields.append((b"x-request-id", self._request.encode()))
            if self._encrypted:
                fields.append(_TRANSPORT)
            message["headers"] = fields
        await self._send(message)

    async def problem(self, error: MedveilError, language: str) -> None:
        """Answer with a problem document. Once an answer has begun it is cut off instead: the server closes."""
        if self.status:
            return
        answer = problems.answer(error, self._request, language)
        await send_answer(answer, self)


async def send_answer(answer: problems.Answer, send: Send) -> None:
    """Send a problem document."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": answer.body})


def _carried(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The caller's trace, if it sent one."""
    return {
        name: headers[name.encode()].decode("latin-1")
        for name in ("traceparent", "tracestate")
        if name.encode() in headers
    }


def route_template(scope: Mapping[str, Any]) -> str:
    """The template of the route that took a request ("/v1/jobs/{job}"), or "other"."""
    inner = scope.get("fastapi")
    context = inner.get("effective_route_context") if isinstance(inner, dict) else None
    for candidate in (context, scope.get("route")):
        template = getattr(candidate, "path_format", None)
        if isinstance(template, str) and template:
            return template
    return "other"
