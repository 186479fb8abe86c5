"""Traces: off unless asked for; the caller's trace goes on; no attribute that is not on the list."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from medveil.service.traces import ATTRIBUTES, NoTraces, make_traces
from medveil.service.work.journal import Journal

from .running import ANNA, Running, Set

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_off_imports_no_library() -> None:
    program = "import sys; from medveil.service.traces import make_traces\n"
    program += "with make_traces('a', '1', None).span('x') as span: span.note('http.route', '/')\n"
    program += "print('opentelemetry' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_no_other_attribute_is_taken() -> None:
    for traces in (NoTraces(), make_traces("north", "1", None, exporter=InMemorySpanExporter())):
        with traces.span("x") as span, pytest.raises(ValueError, match=r"url\.query"):
            span.note("url.query", "name=Zhang")


def test_a_request_goes_on_with_its_callers_trace(make_set: Callable[..., Set], run: Callable[..., Running]) -> None:
    exporter = InMemorySpanExporter()
    own = make_set(traces=make_traces("north", "1", None, ratio=1.0, exporter=exporter))

    async def work(journal: Journal) -> str:
        return own.traces.outgoing()["traceparent"]

    own.jobs.register("kind", work)
    service = run(own)
    fields = {**ANNA, "traceparent": PARENT, "baggage": "name=Zhang", "tracestate": "a=b", "user-agent": "Zhang"}
    httpx.get(service.address + "/v1/jobs?state=done&after=" + "a" * 32, headers=fields)
    httpx.get(service.address + "/v1/nowhere/Zhang")
    own.answered(2)
    while len(exporter.get_finished_spans()) < 2:
        time.sleep(0.002)
    named = {span.name: span for span in exporter.get_finished_spans()}
    span = named["GET /v1/jobs"]
    assert f"{span.context.trace_id:032x}" == PARENT[3:35] and f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert span.attributes["http.route"] == "/v1/jobs" and span.attributes["http.response.status_code"] == 404
    assert set(named) == {"GET /v1/jobs", "GET other"}
    for each in named.values():
        assert set(each.attributes) <= ATTRIBUTES and not each.events
        assert "Zhang" not in each.to_json()
    request = next(line for line in own.lines() if line["event"] == "request" and line["route"] == "/v1/jobs")
    assert request["trace"] == PARENT[3:35] and request["request"] == span.attributes["medveil.request"]
    job = service.do(own.jobs.start("kind", "anna", b""))
    while service.do(own.jobs.get(job.id, "anna")).state != "done":
        pass
    while len(exporter.get_finished_spans()) < 3:
        time.sleep(0.002)
    found = next(each for each in exporter.get_finished_spans() if each.name == "job kind")
    carried = service.do(own.jobs.get(job.id, "anna")).result
    assert carried.startswith(f"00-{found.context.trace_id:032x}-{found.context.span_id:016x}-")


def test_spans_reach_a_collector_over_http() -> None:
    """OTLP to a real listener on this machine."""
    taken: list[tuple[str, str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((self.path, self.headers["content-type"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_given: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            traces = make_traces("north", "0.1.0", f"http://127.0.0.1:{server.server_port}/v1/traces", ratio=1.0)
            with pytest.raises(RuntimeError), traces.span("job x") as span:
                span.note("medveil.job", "a" * 32)
                raise RuntimeError("Zhang San")
            traces.close()
        finally:
            server.shutdown()
            thread.join()
    ((path, media, body),) = taken
    assert (path, media) == ("/v1/traces", "application/x-protobuf")
    assert b"job x" in body and b"north" in body and b"RuntimeError" in body and b"Zhang" not in body
