"""Who calls is known before a body is read or parsed: strangers and people without the right cost no parsing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medveil.service.accounts.rights import RIGHTS
from medveil.service.accounts.signatures import PlainRequest, sign_request
from medveil.service.api.callers import OPEN_BODY
from medveil.service.api.doorway import Limits
from medveil.service.api.json_bodies import JsonRequest

from ..api.test_access import OPEN, Asked, path_of, routes
from ..api.test_app import check_problem
from ..staffed import KEY, ROOT, UNBOUNDED, Staffed
from ..working import Consorted

BOMB = b"[" * 200_000
TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    folder = tmp_path_factory.mktemp("first")
    settings = {"limits": Limits(body_seconds=1.0)}
    more: dict[str, Any] = {"bounds": UNBOUNDED, "issuer": "https://id.example.org", "settings": settings}
    with (
        Consorted(folder / "consortium") as consorted,
        consorted.service("hospital-1", folder / "service", folder, **more) as staffed,
    ):
        yield staffed


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths whose body the framework parsed."""
    seen: list[str] = []
    whole = JsonRequest.json

    async def json_of(request: JsonRequest) -> object:
        seen.append(request.scope["path"])
        return await whole(request)

    monkeypatch.setattr(JsonRequest, "json", json_of)
    return seen


def changing(service: Staffed) -> list[Asked]:
    """Every route that asks a right and takes a method that may have a body."""
    found = [route for route in routes(service.running.app) if route.asks and route.method in ("POST", "PUT", "PATCH")]
    assert len(found) > 30
    return found


def roles_with(right: str | None) -> frozenset[str]:
    return RIGHTS[right].roles if right is not None else frozenset()


def test_a_stranger_s_body_is_never_parsed(service: Staffed, parsed: list[str]) -> None:
    for route in changing(service):
        for bearer in ("", "A" * 43, "medveil_" + "A" * 43):
            answer = service.send(route.method, path_of(route), bearer, body=BOMB)
            assert answer.status_code == 401, (route, answer.text)
    assert parsed == []


def test_nor_is_that_of_somebody_without_the_right(service: Staffed, parsed: list[str]) -> None:
    refused = 0
    for route in changing(service):
        (right,) = route.asks
        if right is None or "auditor" in roles_with(right):
            continue
        answer = service.send(route.method, path_of(route), service.session("auditor"), body=BOMB)
        assert answer.status_code == 403, (route, answer.text)
        refused += 1
    assert refused > 10 and parsed == []


def test_a_program_s_body_is_parsed_only_under_its_signature(service: Staffed, parsed: list[str]) -> None:
    secret, _ = service.token("officer", {"ledger.read"})
    for route in changing(service):
        answer = service.send(route.method, path_of(route), secret, body=BOMB)
        check_problem(answer, 401, "signatures.missing")
        answer = service.send(route.method, path_of(route), secret, signer=KEY, body=BOMB)
        assert answer.status_code == 403, (route, answer.text)
    assert parsed == []


def test_whoever_may_call_gets_as_far_as_the_parser(service: Staffed, parsed: list[str]) -> None:
    session = service.session("root")
    check_problem(service.send("POST", "/v1/people", session, body=BOMB), 400, "http.bad_request")
    check_problem(service.send("POST", "/v1/people", session, body=b"{"), 400, "http.not_json")
    assert parsed == ["/v1/people"] * 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"name": "dora", "roles": ["clerk"], "roles": ["admin"]}', "wire.name_twice"),
        (b'{"name": "dora", "roles": {"inner": 1, "inner": 2}}', "wire.name_twice"),
        (b'{"name": "dora", "\\u0072oles": ["clerk"], "roles": ["admin"]}', "wire.name_twice"),
        (b'{"name": "dora", "roles": NaN}', "http.not_json"),
        (b'{"name": "dora", "roles": -Infinity}', "http.not_json"),
        ('{"name": "dora", "roles": ["clerk"]}'.encode("utf-16"), "http.bad_request"),
        ('{"name": "dora", "roles": ["clerk"]}'.encode("utf-32-le"), "http.not_json"),
    ],
)
def test_a_body_that_may_mean_two_things_is_refused(service: Staffed, body: bytes, code: str) -> None:
    session = service.session("root")
    document = check_problem(service.send("POST", "/v1/people", session, body=body), 400, code)
    if code == "wire.name_twice":
        assert document["detail"].startswith(("roles", "inner")) and document["kind"] == "DecodeError"
    shown = service.send("POST", "/v1/people", session, body=b'{"<b>": 1, "<b>": 2}').json()
    assert shown["code"] == "wire.name_twice" and "<b>" not in str(shown)
    assert "dora" not in service.send("GET", "/v1/people", session).text


def test_a_stranger_s_body_is_not_even_waited_for(service: Staffed) -> None:
    """Its fields come, its body does not: the answer is there at once, long before the body's time is over."""
    for route in changing(service):
        with service.running.connect() as connection:
            connection.settimeout(0.9)
            head = f"{route.method} {path_of(route)} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            connection.sendall(head.encode() + b"content-length: 1000000\r\n\r\n[")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 "), route


def test_where_anybody_may_call_a_body_is_small(service: Staffed, parsed: list[str]) -> None:
    taking = [path for method, path in OPEN if method == "POST" and path != "/v1/sign-in/provider"]
    assert len(taking) >= 2
    for path in taking:
        check_problem(service.send("POST", path, body=b"[" * (OPEN_BODY + 1)), 413, "http.body_too_large")
        assert parsed == []
    for path in taking:
        check_problem(service.send("POST", path, body=b"[" * OPEN_BODY), 400, "http.bad_request")
    longest = {"name": "a" * 200, "password": "\u00e9" * 1024, "code": "1" * 64, "device": "d" * 200}
    answer = service.send("POST", "/v1/sign-in", body=json.dumps(longest).encode())
    check_problem(answer, 401, "accounts.not_signed_in")


def test_a_body_that_never_comes_ends_with_its_connection(service: Staffed) -> None:
    """Whoever may call is waited for, for as long as a body may take, and no longer."""
    session = service.session("root")
    with service.running.connect() as connection:
        head = f"POST /v1/people HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {session}\r\n"
        connection.sendall(head.encode() + b"content-type: application/json\r\ncontent-length: 10\r\n\r\n")
        said = _rest(connection)
    assert said.startswith(b"HTTP/1.1 408 ") and b"http.too_slow" in said


@pytest.mark.parametrize("who", ["person", "program"])
def test_what_was_lost_while_a_body_came_is_lost(tmp_path: Path, who: str) -> None:
    """Let in by its fields, reset or revoked before the rest of the body: nothing is made."""
    with Staffed(tmp_path) as service:
        if who == "person":
            session = service.session("researcher")
            path, bearer, signer = "/v1/tokens", session, None
            given: dict[str, object] = {"label": "run", "scopes": ["queries.read"], "days": 365}
            given["key"] = KEY.key.public.hex()
        else:
            bearer, _ = service.token("admin", {"people.read"})
            path, signer, given = "/v1/people", KEY, {"name": "eve", "roles": ["admin"]}
        body = json.dumps(given).encode()
        fields = {"host": service.address.partition("//")[2], "authorization": f"Bearer {bearer}", **TYPE}
        if signer is not None:
            request = PlainRequest("POST", service.address + path, tuple(fields.items()), body)
            fields |= sign_request(request, signer, clock=service.clock, rand=service.rand)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with service.running.connect() as connection:
            head = f"POST {path} HTTP/1.1\r\n{lines}connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:5])
            time.sleep(0.5)  # as far as it gets without the rest
            service.staff.people.reset(ROOT, "researcher" if who == "person" else "admin")
            connection.sendall(body[5:])
            said = _rest(connection)
        expected = b"accounts.no_session" if who == "person" else b"tokens.revoked"
        assert said.startswith(b"HTTP/1.1 401 ") and expected in said
        assert [one.revoked for one in service.staff.tokens.all(ROOT)] == ([] if who == "person" else [True])


@pytest.mark.parametrize("who", ["person", "program"])
def test_a_call_with_a_body_counts_once(tmp_path: Path, who: str) -> None:
    """A person is looked up twice in one: before the body and after it."""
    with Staffed(tmp_path, settings={"per_principal": "4/hour"}) as service:
        if who == "person":
            path, sent = "/v1/tokens", {"bearer": service.session("officer")}
        else:
            path, sent = "/v1/jobs/" + "0" * 32 + "/cancel", {"bearer": service.token("officer", {"jobs.cancel"})[0]}
        signer = KEY if who == "program" else None
        answers = [service.send("POST", path, **sent, signer=signer).status_code for _ in range(5)]
        assert answers == [422 if who == "person" else 404] * 4 + [429]


def _rest(connection: socket.socket) -> bytes:
    said = b""
    while more := connection.recv(65_536):
        said += more
    return said
