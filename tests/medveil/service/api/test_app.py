"""The application over a real socket: what it answers, to whom, with which fields, and what it writes down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from medveil.gateway import problems
from medveil.service.api.doorway import SECURITY, Limits
from wire.errors import BudgetExhausted, ConsentDenied, Unavailable

from ..running import ANNA, BO, Running, Set

Make = Callable[..., Set]
Run = Callable[..., Running]

POISON = "patient-110101199001011234"


class Note(BaseModel):
    """A body of the test's own."""

    text: str
    number: int = 0


def awkward_routes() -> APIRouter:
    """Routes that go wrong in every way."""
    router = APIRouter()

    @router.post("/v1/notes/{name}")
    async def note(name: str, body: Note) -> dict[str, int]:
        return {"length": len(body.text)}

    @router.get("/v1/breaks")
    async def breaks() -> None:
        raise RuntimeError(POISON)

    @router.get("/v1/breaks-later")
    async def breaks_later() -> StreamingResponse:
        async def parts() -> Any:
            yield b"the beginning"
            raise RuntimeError(POISON)

        return StreamingResponse(parts())

    @router.get("/v1/refuses/{how}")
    async def refuses(how: str) -> None:
        if how == "consent":
            raise ConsentDenied("privacy.no_grant")
        if how == "budget":
            raise BudgetExhausted("mpc.no_budget")
        raise Unavailable("streams.too_many", retry_after=7, limit=1)

    return router


@pytest.fixture
def service(make_set: Make, run: Run) -> Running:
    return run(make_set(limits=Limits(body=10_000, body_seconds=1.0)), routers=[awkward_routes()])


@pytest.fixture
def client(service: Running) -> Any:
    with httpx.Client(base_url=service.address, headers=ANNA, timeout=20) as made:
        yield made


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert answer.headers["vary"] == "Accept-Language"
    document = answer.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"urn:medveil:problem:{code}"
    assert document["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert document["detail"] and document["fix"] and document["title"]
    return document  # type: ignore[no-any-return]


def test_about_says_whose_gateway_it_is(client: httpx.Client) -> None:
    answer = client.get("/v1/about")
    assert answer.json() == {"organisation": "north", "version": "0.1.0", "height": 7}
    for name, value in SECURITY.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers


def test_nobody_is_told_to_sign_in(client: httpx.Client) -> None:
    answer = httpx.get(str(client.base_url) + "/v1/about")
    check_problem(answer, 401, "http.not_signed_in")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_refusal_speaks_the_callers_language(client: httpx.Client) -> None:
    english = check_problem(client.get("/v1/nowhere"), 404, "http.no_such_path")
    answer = client.get("/v1/nowhere", headers={"accept-language": "fr, zh-CN;q=0.8, en;q=0.3"})
    chinese = check_problem(answer, 404, "http.no_such_path")
    assert answer.headers["content-language"] == "zh-Hans"
    assert chinese["detail"] == "这个地址上没有内容。" != english["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/about/", "/v1//about", "/v1/../v1/about", "/v1/jobs/..%2f..%2fetc", "/docs", "/redoc"]
)
def test_path_tricks_lead_nowhere(service: Running, path: str) -> None:
    """Sent as they are: a client library would tidy them."""
    with service.connect() as connection:
        connection.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        answer = connection.recv(4000)
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ", b"HTTP/1.1 401 "))
    assert problems.MEDIA_TYPE.encode() in answer and b"evil.example" not in answer


def test_a_wrong_method_names_the_right_ones(client: httpx.Client) -> None:
    answer = client.post("/v1/about")
    check_problem(answer, 405, "http.wrong_method")
    assert answer.headers["allow"] == "GET"


def test_kinds_of_errors_have_their_statuses(client: httpx.Client) -> None:
    assert client.get("/v1/refuses/consent").status_code == 403
    assert client.get("/v1/refuses/budget").status_code == 409
    answer = client.get("/v1/refuses/busy")
    check_problem(answer, 503, "streams.too_many")
    assert answer.headers["retry-after"] == "7"


def test_an_unexpected_error_tells_nothing_but_where_to_look(service: Running, client: httpx.Client) -> None:
    answer = client.get("/v1/breaks")
    document = check_problem(answer, 500, "gateway.fault")
    assert POISON not in answer.text and "RuntimeError" not in answer.text and "Traceback" not in answer.text
    line = next(line for line in service.set.lines() if line["event"] == "fault")
    assert document["instance"] == f"urn:uuid:{line['request']}"
    assert line["fault"] == "RuntimeError"
    assert POISON.encode() not in service.set.written.getvalue()
    assert b"medveil_faults_total 1.0" in service.set.metrics.render()


def test_an_answer_that_breaks_off_is_not_taken_for_whole(service: Running, client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/v1/breaks-later")
    assert [line["fault"] for line in service.set.lines() if line["event"] == "fault"] == ["RuntimeError"]
    assert POISON.encode() not in service.set.written.getvalue()
    assert client.get("/v1/about").status_code == 200


def test_a_router_that_is_included_under_a_prefix_is_counted_by_its_template(make_set: Make, run: Run) -> None:
    outer = APIRouter()
    outer.include_router(awkward_routes(), prefix="/outer")
    service = run(make_set(), routers=[outer])
    httpx.get(service.address + "/outer/v1/refuses/consent", headers=ANNA)
    service.set.answered(1)
    assert 'route="/outer/v1/refuses/{how}",status="403"} 1.0' in service.set.metrics.render().decode()


def test_a_body_that_does_not_fit_is_not_repeated(client: httpx.Client) -> None:
    document = check_problem(client.post("/v1/notes/a", json={"text": 5, "number": POISON}), 422, "http.does_not_fit")
    assert POISON not in json.dumps(document)
    assert {"place": "body.number", "rule": "int_parsing"} in document["errors"]
    for body, code in ((b"{", "http.not_json"), (b'"\xff"', "http.bad_request"), (b"[" * 5000, "http.bad_request")):
        answer = client.post("/v1/notes/a", content=body, headers={"content-type": "application/json"})
        check_problem(answer, 400, code)


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_only_json_is_taken(client: httpx.Client, media: str) -> None:
    answer = client.post("/v1/notes/a", content=b'{"text": ""}', headers={"content-type": media})
    check_problem(answer, 415, "http.wrong_type")


def test_an_announced_body_is_refused_unread(service: Running) -> None:
    with service.connect() as connection:
        connection.sendall(
            b"POST /v1/notes/a HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 10001\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_refused_when_it_is_too_long(client: httpx.Client) -> None:
    def drip() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    answer = client.post("/v1/notes/a", content=drip(), headers={"content-type": "application/json"})
    check_problem(answer, 413, "http.body_too_large")


def test_a_body_that_does_not_come_is_not_waited_for(service: Running) -> None:
    with service.connect() as connection:
        connection.sendall(
            b"POST /v1/notes/a HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_addresses_and_header_fields_have_limits(client: httpx.Client) -> None:
    check_problem(client.get("/v1/jobs?after=" + "a" * 5000), 414, "http.address_too_long")
    check_problem(client.get("/v1/" + "a" * 3000), 414, "http.address_too_long")
    check_problem(client.get("/v1/about", headers={"x-long": "a" * 20_000}), 431, "http.headers_too_large")
    many = {f"x-{number}": "a" for number in range(120)}
    check_problem(client.get("/v1/about", headers=many), 431, "http.headers_too_large")


def test_a_request_that_does_not_parse_gets_a_problem_document(service: Running) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost a\r\n\r\n")
        answer = connection.recv(4000)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "http.bad_request"


def test_rate_limits_of_addresses_and_people(make_set: Make, run: Run) -> None:
    service = run(make_set(per_address="8/minute", per_principal="3/minute"))
    with httpx.Client(base_url=service.address) as client:
        anna = [client.get("/v1/about", headers=ANNA) for _ in range(4)]
        assert [answer.status_code for answer in anna] == [200, 200, 200, 429]
        check_problem(anna[-1], 429, "http.too_many_requests")
        assert 1 <= int(anna[-1].headers["retry-after"]) <= 120
        assert client.get("/v1/about", headers=BO).status_code == 200
        assert [client.get("/health/live").status_code for _ in range(4)] == [200, 200, 200, 429]
    text = service.set.metrics.render().decode()
    assert 'medveil_requests_limited_total{limit="principal"} 1.0' in text
    assert 'medveil_requests_limited_total{limit="address"} 1.0' in text


def test_only_a_named_proxy_is_believed_about_who_calls(make_set: Make, run: Run) -> None:
    """The limit of addresses, and who may read metrics, go by the caller, not by what a caller says."""
    plain = run(make_set(per_address="3/minute"))
    said = [{"x-forwarded-for": f"203.0.113.{number}", "x-forwarded-proto": "https"} for number in range(4)]
    answers = [httpx.get(plain.address + "/metrics", headers=fields) for fields in said]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "strict-transport-security" not in answers[0].headers
    behind = run(make_set(per_address="3/minute"), proxies=("127.0.0.1",))
    answers = [httpx.get(behind.address + "/metrics", headers=fields) for fields in said * 3]
    assert [answer.status_code for answer in answers] == [403] * 12
    assert "strict-transport-security" in answers[0].headers
    chained = {"x-forwarded-for": "127.0.0.1, 203.0.113.1"}  # what the caller said comes before what the proxy saw
    assert httpx.get(behind.address + "/metrics", headers=chained).status_code == 429


def test_metrics_know_templates_and_no_paths(service: Running, client: httpx.Client) -> None:
    client.get(f"/v1/jobs/{'a' * 32}")
    client.get(f"/v1/{POISON}?name={POISON}")
    client.request("PATIENT", "/v1/about")
    text = client.get("/metrics").text
    assert 'medveil_requests_total{method="GET",route="/v1/jobs/{job}",status="404"} 1.0' in text
    assert 'medveil_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert POISON not in text and "a" * 32 not in text and "PATIENT" not in text
    assert "medveil_ledger_height 7.0" in text


def test_the_log_holds_one_line_a_request_and_nothing_that_was_sent(service: Running, client: httpx.Client) -> None:
    client.post(
        f"/v1/notes/{POISON}?q={POISON}", json={"text": POISON}, headers={"cookie": POISON, "user-agent": POISON}
    )
    client.get("/v1/jobs", headers={"authorization": "Bearer " + POISON, "x-request-id": POISON})
    service.set.answered(2)
    written = service.set.written.getvalue()
    assert POISON.encode() not in written and b"token-of-anna" not in written
    lines = [line for line in service.set.lines() if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/notes/{name}", 200),
        ("GET", "/v1/jobs", 401),
    ]
    assert all(line["organisation"] == "north" and line["duration_ms"] >= 0 for line in lines)
    assert all(re.fullmatch(r"[0-9a-f-]{36}", line["request"]) for line in lines)


def test_readiness_names_what_fails_and_not_why(service: Running, client: httpx.Client) -> None:
    assert client.get("/health/ready").json() == {"ready": True, "checks": {"serving": True}}

    async def broken() -> bool:
        raise RuntimeError(POISON)

    service.set.health.add("database", broken)
    service.set.health._answer = None
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"database": False, "serving": True}}
    assert POISON.encode() not in service.set.written.getvalue()


def test_the_description_is_whole_and_loads_nothing(client: httpx.Client) -> None:
    description = client.get("/v1/openapi.json").json()
    assert "http://" not in json.dumps(description["paths"]) and "HTTPValidationError" not in json.dumps(description)
    reference = f"#/components/schemas/{problems.COMPONENT}"
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            for status in problems.GENERAL:
                content = operation["responses"][str(status)]["content"]
                if (path, status) != ("/health/ready", 503):
                    assert content == {problems.MEDIA_TYPE: {"schema": {"$ref": reference}}}, (path, method, status)
    assert description["components"]["schemas"][problems.COMPONENT]["required"][0] == "type"


def test_the_frameworks_own_telemetry_stays_off(make_set: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    from medveil.service.api.app import make_app

    app = make_app(make_set().parts())
    assert not any(app._telemetry[name] for name in ("tracing", "metrics", "logs", "operation_spans", "auto_configure"))


def test_a_console_has_its_door(make_set: Make, run: Run) -> None:
    async def console(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-security-policy", b"own")]})
        await send({"type": "http.response.body", "body": b"console"})

    service = run(make_set(), console=console)
    answer = httpx.get(service.address + "/console/")
    assert answer.text == "console" and answer.headers["content-security-policy"] == "own"
    assert answer.headers["x-content-type-options"] == "nosniff"
