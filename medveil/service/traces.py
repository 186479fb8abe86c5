"""OpenTelemetry traces, off unless an address for them is configured.

The caller's W3C ``traceparent`` is taken and passed on to other gateways; baggage is neither. A span carries
attributes of a short list (method, route template, status, request id, job, step) and no exception texts,
addresses, queries or headers. Nothing global is set, so that no library adds spans of its own.

Source: W3C Trace Context; OpenTelemetry HTTP span conventions, of which the attributes that could hold what a
caller sent (url.path, url.query, client.address, user_agent) are left out on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ATTRIBUTES = frozenset(
    {
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "error.type",
        "medveil.request",
        "medveil.job",
        "medveil.job.kind",
        "medveil.step",
    }
)
"""All attributes a span may have."""


class Span(Protocol):
    """One span while it runs."""

    @property
    def trace_id(self) -> str | None:
        """32 hex digits, or None where traces are off."""
        ...

    def name(self, name: str) -> None:
        """Rename the span: a route is known only after routing."""
        ...

    def note(self, attribute: str, value: str | int) -> None:
        """Set an attribute of ATTRIBUTES. Raises ValueError for any other."""
        ...

    def failed(self, kind: str) -> None:
        """The work failed; kind: the class of the error, or a status."""
        ...


class Traces(Protocol):
    """Where spans go."""

    def span(
        self, name: str, headers: Mapping[str, str] | None = None, server: bool = False
    ) -> AbstractContextManager[Span]:
        """A span around a block; with the caller's `headers`, a part of the caller's trace."""
        ...

    def outgoing(self) -> dict[str, str]:
        """Header fields that carry the present span to another gateway."""
        ...

    def close(self) -> None:
        """Send what is left, for at most a few seconds."""
        ...


class _NoSpan:
    trace_id: str | None = None

    def name(self, name: str) -> None: ...

    def note(self, attribute: str, value: str | int) -> None:
        _check(attribute)

    def failed(self, kind: str) -> None: ...


class NoTraces:
    """Traces that are off."""

    _none: AbstractContextManager[Span] = nullcontext(_NoSpan())

    def span(
        self, name: str, headers: Mapping[str, str] | None = None, server: bool = False
    ) -> AbstractContextManager[Span]:
        """See `Traces.span`."""
        return self._none

    def outgoing(self) -> dict[str, str]:
        """See `Traces.outgoing`."""
        return {}

    def close(self) -> None:
        """See `Traces.close`."""


def _check(attribute: str) -> None:
    if attribute not in ATTRIBUTES:
        raise ValueError(f"{attribute!r} is no attribute that a span may have")


class _LiveSpan:
    def __init__(self, span: Any, error_status: Callable[[], Any]) -> None:
        self._span = span
        self._error_status = error_status

    @property
    def trace_id(self) -> str | None:
        return f"{self._span.get_span_context().trace_id:032x}"

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attribute: str, value: str | int) -> None:
        _check(attribute)
        self._span.set_attribute(attribute, value)

    def failed(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(self._error_status())


class LiveTraces:
    """Traces that go to a collector, in batches, from a thread of their own."""

    def __init__(self, organisation: str, version: str, exporter: SpanExporter, ratio: float, at_once: bool) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource(  # not Resource.create: that adds what the environment says
                {"service.name": "medveil", "service.version": version, "medveil.organisation": organisation}
            ),
            span_limits=SpanLimits(max_span_attributes=16, max_attribute_length=200),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("medveil", version)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, headers: Mapping[str, str] | None = None, server: bool = False) -> Iterator[Span]:
        """A span around a block; with the caller's `headers`, a part of the caller's trace."""
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        parent = self._propagator.extract(dict(headers), context.Context()) if headers is not None else None
        span = self._tracer.start_span(name, parent, SpanKind.SERVER if server else SpanKind.INTERNAL)
        token = context.attach(set_span_in_context(span))
        live = _LiveSpan(span, lambda: Status(StatusCode.ERROR))
        try:
            yield live
        except Exception as error:
            live.failed(type(error).__name__)
            raise
        finally:
            context.detach(token)
            span.end()

    def outgoing(self) -> dict[str, str]:
        """See `Traces.outgoing`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        """See `Traces.close`."""
        self._provider.shutdown()


def make_traces(
    organisation: str,
    version: str,
    endpoint: str | None,
    ratio: float = 0.1,
    exporter: SpanExporter | None = None,
) -> Traces:
    """Traces to `endpoint` (OTLP over HTTP, the full address of ``/v1/traces``), or none at all.

    ratio: how many traces that begin here are kept, 0 to 1. exporter: takes the place of OTLP, span by span.
    """
    if exporter is not None:
        return LiveTraces(organisation, version, exporter, ratio, at_once=True)
    if not endpoint:
        return NoTraces()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return LiveTraces(organisation, version, OTLPSpanExporter(endpoint=endpoint, timeout=5), ratio, at_once=False)
