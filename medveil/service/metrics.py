"""What the service counts, for Prometheus: its own registry, labels from the program's source alone.

A label is a route's template, a method of a short list, a status, a kind of job or a state: never a path, an
address or a name that somebody sent. So the number of series is bounded, and no series tells of a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from medveil.service.logs import Vocabulary

if TYPE_CHECKING:
    from medveil.network.post import Traffic

MEDIA_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the durations' histogram, in seconds."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Network(Collector):
    """What the network's parts count themselves."""

    def __init__(self, traffic: Callable[[], Traffic], refusals: Callable[[], Mapping[str, Mapping[str, int]]]) -> None:
        self._traffic = traffic
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        seen = self._traffic()
        yield GaugeMetricFamily(
            "medveil_channel_sessions", "Open sessions with other organisations.", value=seen.sessions
        )
        carried = CounterMetricFamily(
            "medveil_channel_bytes", "Payload bytes to and from other organisations.", labels=("direction",)
        )
        carried.add_metric(("sent",), seen.sent)
        carried.add_metric(("received",), seen.received)
        yield carried
        refused = CounterMetricFamily(
            "medveil_tls_refused", "TLS handshakes that failed.", labels=("listener", "reason")
        )
        for listener, reasons in self._refusals().items():
            for reason, count in reasons.items():
                refused.add_metric((listener, reason), count)
        yield refused


class Metrics:
    """The counters of one organisation's process. vocabulary: the names that may be labels."""

    def __init__(self, organisation: str, version: str, vocabulary: Vocabulary) -> None:
        self.registry = CollectorRegistry()
        self._vocabulary = vocabulary
        own = self.registry
        self._requests = Counter(
            "medveil_requests_total", "Answered requests.", ("method", "route", "status"), registry=own
        )
        self._durations = Histogram(
            "medveil_request_seconds",
            "From request to end of answer.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=own,
        )
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.in_flight = Gauge("medveil_requests_in_flight", "Requests being answered, streams included.", registry=own)
        self.streams = Gauge("medveil_event_streams", "Open event streams.", registry=own)
        self.streams_dropped = Counter(
            "medveil_event_streams_dropped_total", "Streams whose reader was too slow.", registry=own
        )
        self.limited = Counter(
            "medveil_requests_limited_total", "Requests over a rate limit.", ("limit",), registry=own
        )
        self.faults = Counter("medveil_faults_total", "Unexpected errors.", registry=own)
        self._jobs = Gauge("medveil_jobs", "Jobs in this process.", ("kind", "state"), registry=own)
        self._ended = Counter("medveil_jobs_ended_total", "Jobs that ended.", ("kind", "state"), registry=own)
        self.ledger_height = Gauge("medveil_ledger_height", "Height of the latest final block seen.", registry=own)
        about = Gauge("medveil_about", "What runs here; always 1.", ("organisation", "version"), registry=own)
        about.labels(organisation, version).set(1)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered. route: its template; anything that is none counts as "other"."""
        method = method if method in METHODS else "OTHER"
        key = (method, self._vocabulary.known(route), status)
        counts = self._answers.get(key)
        if counts is None:  # `labels` is looked up once: it costs as much as the counting
            requests, durations = self._requests.labels(*key), self._durations.labels(*key[:2])
            counts = self._answers[key] = (requests, durations)
        counts[0].inc()
        counts[1].observe(seconds)

    def job_moved(self, kind: str, before: str | None, after: str | None) -> None:
        """A job changed its state; None: it was not there, or is no longer looked after."""
        kind = self._vocabulary.known(kind)
        if before is not None:
            self._jobs.labels(kind, before).dec()
        if after in {"done", "failed", "cancelled"}:
            self._ended.labels(kind, after).inc()
        elif after is not None:
            self._jobs.labels(kind, after).inc()

    def watch(self, traffic: Callable[[], Traffic], refusals: Callable[[], Mapping[str, Mapping[str, int]]]) -> None:
        """Read these whenever somebody asks. refusals: failed TLS handshakes by listener, by OpenSSL's reason."""
        self.registry.register(_Network(traffic, refusals))

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
