"""People and programs over a real socket: signing in by cookie and by bearer, their accounts, tokens and signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from medveil.service.accounts.rights import Principal, rights_of
from medveil.service.accounts.signatures import PlainRequest, sign_request
from medveil.service.api.callers import May
from medveil.service.api.doorway import Limits
from medveil.service.security.security_trail import HOUR_MS, Bounds

from ..api.test_app import check_problem
from ..oidc_provider import Provider
from ..staffed import KEY, OTHER_KEY, PASSWORD, Staffed

NEW = "copper moth reads braille"
TYPE = {"content-type": "application/json"}


class Note(BaseModel):
    text: str


def notes() -> APIRouter:
    """A route for programs that reads a body."""
    router = APIRouter()

    @router.post("/v1/notes/{name}")
    async def note(who: Annotated[Principal, Depends(May("datasets.load"))], name: str, body: Note) -> dict[str, Any]:
        return {"who": who.id, "name": name, "length": len(body.text)}

    return router


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as started:
        yield started


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Staffed]:
    with Staffed(tmp_path, routers=[notes()], settings={"limits": Limits(body=10_000)}) as staffed:
        yield staffed


class Browser:
    """Keeps cookies, and says where its pages are from."""

    def __init__(self, service: Staffed) -> None:
        self.client = httpx.Client(
            base_url=service.address,
            headers={"origin": service.address, "sec-fetch-site": "same-origin"},
            timeout=20,
            trust_env=False,
        )

    def __enter__(self) -> httpx.Client:
        return self.client

    def __exit__(self, *_given: object) -> None:
        self.client.close()


def enter(client: httpx.Client, name: str = "officer", password: str = PASSWORD, **more: str) -> httpx.Response:
    return client.post("/v1/sign-in", json={"name": name, "password": password, **more})


def test_a_browser_never_sees_its_secrets_in_an_answer(service: Staffed) -> None:
    with Browser(service) as browser:
        answer = enter(browser)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
        assert answer.json()["session"] is None is answer.json()["device"]
        cookies = answer.headers.get_list("set-cookie")
        assert {cookie.partition("=")[0] for cookie in cookies} == {"medveil-session", "medveil-device"}
        for cookie in cookies:
            attributes = cookie.lower()
            assert "httponly" in attributes and "samesite=strict" in attributes and "path=/" in attributes
            assert "domain" not in attributes and cookie.partition("=")[2].partition(";")[0] not in answer.text
        me = browser.get("/v1/me").json()
        assert (me["kind"], me["name"], me["roles"]) == ("person", "officer", ["officer"])
        assert me["rights"] == sorted(rights_of({"officer"}))
        left = browser.post("/v1/sign-out")
        assert left.status_code == 204 and left.headers["clear-site-data"] == '"cache", "storage"'
        assert "medveil-session" not in browser.cookies
        check_problem(browser.get("/v1/me"), 401, "http.not_signed_in")


def test_behind_tls_cookies_are_for_this_host_and_secure_alone(tmp_path: Path) -> None:
    with Staffed(tmp_path, origins=["https://gateway.example.org"]) as service:
        answer = service.send(
            "POST", "/v1/sign-in", body=json.dumps({"name": "officer", "password": PASSWORD}).encode()
        )
        cookies = answer.headers.get_list("set-cookie")
        assert cookies and all(cookie.startswith("__Host-medveil-") and "Secure" in cookie for cookie in cookies)
        session = cookies[0].partition("=")[2].partition(";")[0]
        good = service.send("GET", "/v1/me", headers={"cookie": f"__Host-medveil-session={session}"})
        assert good.status_code == 200
        plain = service.send("GET", "/v1/me", headers={"cookie": f"medveil-session={session}"})
        check_problem(plain, 401, "http.not_signed_in")


def test_a_sign_in_ends_the_session_that_it_replaces(service: Staffed) -> None:
    with Browser(service) as browser:
        enter(browser)
        first = browser.cookies["medveil-session"]
        enter(browser)
        assert browser.cookies["medveil-session"] != first
        check_problem(service.send("GET", "/v1/me", first), 401, "accounts.no_session")


def test_a_command_line_gets_its_secrets_and_sends_them_as_bearer(service: Staffed) -> None:
    body = json.dumps({"name": "officer", "password": PASSWORD, "carrier": "bearer"}).encode()
    answer = service.send("POST", "/v1/sign-in", body=body)
    assert "set-cookie" not in answer.headers
    session = answer.json()["session"]
    assert session and answer.json()["device"]
    assert service.send("GET", "/v1/about", session).status_code == 200
    changed = service.send("POST", "/v1/me/password", session, body=json.dumps({"old": PASSWORD, "new": NEW}).encode())
    assert "set-cookie" not in changed.headers
    check_problem(service.send("GET", "/v1/me", session), 401, "accounts.no_session")
    again = changed.json()["session"]
    assert service.send("POST", "/v1/sign-out/everywhere", again).status_code == 204
    check_problem(service.send("GET", "/v1/me", again), 401, "accounts.no_session")


def test_people_see_their_sessions_and_end_one(service: Staffed) -> None:
    first = service.session("officer")
    service.clock.pass_time(60)
    second, other = service.session("officer"), service.session("clerk")
    (new, old) = service.send("GET", "/v1/me/sessions", second).json()["sessions"]
    assert (new["own"], old["own"]) == (True, False) and new["created"] - old["created"] == 60_000
    assert not any(one["session"] in secret for one in (new, old) for secret in (first, second))
    check_problem(service.send("DELETE", f"/v1/me/sessions/{old['session']}", other), 404, "accounts.unknown_session")
    assert service.send("DELETE", f"/v1/me/sessions/{old['session']}", second).status_code == 204
    check_problem(service.send("GET", "/v1/me", first), 401, "accounts.no_session")
    assert service.send("GET", "/v1/me", second).status_code == 200
    check_problem(service.send("DELETE", f"/v1/me/sessions/{old['session']}", second), 404, "accounts.unknown_session")
    service.clock.pass_time(1801)
    assert len(service.send("GET", "/v1/me/sessions", service.session("officer")).json()["sessions"]) == 1


def test_nobody_learns_whether_an_account_exists(service: Staffed) -> None:
    service.staff.people.add(service.staff.sign_in.principal(service.session("root")), "invited", {"clerk"})
    answers = []
    for name in ("officer", "nobody-of-that-name", "invited", "officer' --", "\u0000"):
        body = json.dumps({"name": name, "password": "not the right password"}).encode()
        answer = service.send("POST", "/v1/sign-in", body=body)
        check_problem(answer, 401, "accounts.not_signed_in")
        answers.append({key: value for key, value in answer.json().items() if key != "instance"})
        service.clock.pass_time(3600)
    assert all(answer == answers[0] for answer in answers)


def test_guessing_meets_a_wait_that_is_said(service: Staffed) -> None:
    body = json.dumps({"name": "officer", "password": "not the right password"}).encode()
    answer = service.send("POST", "/v1/sign-in", body=body)
    for _ in range(40):
        if answer.status_code == 429:
            break
        answer = service.send("POST", "/v1/sign-in", body=body)
    check_problem(answer, 429, "accounts.wait")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("page", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_no_other_site_signs_anybody_in(service: Staffed, page: dict[str, str]) -> None:
    body = json.dumps({"name": "officer", "password": PASSWORD}).encode()
    check_problem(service.send("POST", "/v1/sign-in", body=body, headers=page), 403, "http.cross_site")


def test_codes_are_set_up_and_asked_for(tmp_path: Path) -> None:
    with Staffed(tmp_path, codes_for=["officer"]) as service, Browser(service) as browser:
        assert enter(browser).json()["enrolling"]
        check_problem(browser.get("/v1/about"), 403, "rights.enrol_first")
        check_problem(
            browser.post("/v1/me/codes", json={"password": "wrong " + PASSWORD}), 403, "accounts.not_confirmed"
        )
        uri = browser.post("/v1/me/codes", json={"password": PASSWORD}).json()["uri"]
        totp = pyotp.TOTP(parse_qs(urlsplit(uri).query)["secret"][0])
        check_problem(browser.post("/v1/me/codes/confirm", json={"code": "000000x"}), 409, "accounts.wrong_code")
        codes = browser.post("/v1/me/codes/confirm", json={"code": totp.at(service.clock() // 1000)}).json()["codes"]
        assert len(codes) == 10
        assert browser.get("/v1/about").status_code == 200
        check_problem(enter(browser), 401, "accounts.code_needed")
        assert enter(browser, code=codes[0]).status_code == 200
        renewed = browser.post("/v1/me/recovery-codes", json={"password": PASSWORD}).json()["codes"]
        assert not set(renewed) & set(codes)


def test_an_admin_adds_changes_and_resets_and_an_invitation_works_once(service: Staffed) -> None:
    admin = service.session("root")

    def ask(method: str, path: str, **body: Any) -> httpx.Response:
        return service.send(method, path, admin, body=json.dumps(body).encode())

    made = ask("POST", "/v1/people", name="ada", roles=["researcher"])
    assert made.status_code == 201
    check_problem(ask("POST", "/v1/people", name="ada", roles=["clerk"]), 409, "accounts.exists")
    accepted = {"invitation": made.json()["invitation"], "password": NEW}
    weak = service.send("POST", "/v1/invitations/accept", body=json.dumps(accepted | {"password": "short"}).encode())
    check_problem(weak, 409, "accounts.password_short")
    once = service.send("POST", "/v1/invitations/accept", body=json.dumps(accepted).encode())
    assert once.json() == {"person": "ada"}
    twice = service.send("POST", "/v1/invitations/accept", body=json.dumps(accepted).encode())
    check_problem(twice, 403, "accounts.no_invitation")
    ada = service.staff.sign_in.sign_in("ada", NEW, address="192.0.2.1").session
    assert ask("PUT", "/v1/people/ada/roles", roles=["auditor", "clerk"]).status_code == 204
    check_problem(service.send("GET", "/v1/me", ada), 401, "accounts.no_session")
    ada = service.staff.sign_in.sign_in("ada", NEW, address="192.0.2.1").session
    assert service.send("GET", "/v1/me", ada).json()["roles"] == ["auditor", "clerk"]
    assert ask("POST", "/v1/people/ada/disable").status_code == 204
    check_problem(service.send("GET", "/v1/me", ada), 401, "accounts.no_session")
    assert ask("POST", "/v1/people/ada/enable").status_code == 204
    check_problem(ask("POST", "/v1/people/ada/reset", codes=1), 422, "http.does_not_fit")
    assert ask("POST", "/v1/people/ada/reset", codes=True).json()["invitation"]
    listed = {person["name"]: person for person in service.send("GET", "/v1/people", admin).json()["people"]}
    assert listed["ada"] | {"created": 0} == {
        "name": "ada",
        "roles": ["auditor", "clerk"],
        "created": 0,
        "disabled": False,
        "has_password": False,
        "has_codes": False,
        "issuer": "",
    }
    check_problem(ask("POST", "/v1/people/nobody-here/disable"), 404, "accounts.unknown")


def make_token(service: Staffed, scopes: list[str]) -> tuple[str, str]:
    """Over the API: secret and id."""
    wanted = {"label": "nightly load", "scopes": scopes, "key": KEY.key.public.hex(), "days": 30}
    answer = service.send("POST", "/v1/tokens", service.session("officer"), body=json.dumps(wanted).encode())
    assert answer.status_code == 201, answer.text
    return answer.json()["token"], answer.json()["id"]


def test_a_program_signs_and_the_route_still_reads_its_body(service: Staffed) -> None:
    secret, its_id = make_token(service, ["datasets.load"])
    body = json.dumps({"text": "x" * 9000}).encode()
    path = "/v1/notes/a-b?x=%20y&x="
    answer = service.send("POST", path, secret, signer=KEY, body=body)
    assert answer.json() == {"who": f"program:{its_id}", "name": "a-b", "length": 9000}
    too_large = service.send("POST", path, secret, signer=KEY, body=body + b" " * 2000)
    check_problem(too_large, 413, "http.body_too_large")
    me = service.send("GET", "/v1/me", secret).json()
    assert (me["kind"], me["owner"], me["rights"]) == ("program", "officer", ["datasets.load"])
    session = service.session("officer")
    assert [token["id"] for token in service.send("GET", "/v1/me/tokens", session).json()["tokens"]] == [its_id]
    assert secret not in service.send("GET", "/v1/tokens", service.session("auditor")).text
    assert service.send("DELETE", f"/v1/tokens/{its_id}", session).status_code == 204
    check_problem(service.send("GET", "/v1/me", secret), 401, "tokens.revoked")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"path": "/v1/notes/b"}, "signatures.does_not_hold"),
        ({"path": "/v1/notes/aa"}, "signatures.does_not_hold"),
        ({"path": "/v1/notes/a?x=1"}, "signatures.does_not_hold"),
        ({"body": b'{"text": "other"}'}, "signatures.other_body"),
        ({"host": "elsewhere.example"}, "signatures.other_host"),
        ({"digest": "sha-256=:AAAA:"}, "signatures.other_body"),
        ({"late": 301}, "signatures.expired"),
        ({"again": True}, "signatures.replayed"),
        ({"twice": True}, "signatures.malformed"),
    ],
)
def test_a_signed_call_is_for_one_place_one_body_one_time(service: Staffed, change: dict[str, Any], code: str) -> None:
    secret, its_id = make_token(service, ["datasets.load"])
    url, body = f"{service.address}/v1/notes/a", b'{"text": "hello"}'
    fields = {"authorization": f"Bearer {secret}", **TYPE}
    signed = fields | sign_request(
        PlainRequest("POST", url, tuple(fields.items()), body), KEY, clock=service.clock, rand=service.rand
    )
    sent: list[tuple[str, str]] = list(signed.items())
    if "host" in change:
        sent.append(("host", change["host"]))
    if "digest" in change:
        sent = [(name, change["digest"] if name == "Content-Digest" else value) for name, value in sent]
    if "twice" in change:
        sent.append(("Signature-Input", signed["Signature-Input"]))
    service.clock.pass_time(change.get("late", 0))
    with httpx.Client(timeout=20, trust_env=False) as client:
        if "again" in change:
            assert client.post(url, headers=sent, content=body).status_code == 200
        to = service.address + change.get("path", "/v1/notes/a")
        answer = client.post(to, headers=sent, content=change.get("body", body))
    check_problem(answer, 401, code)
    entry = service.last_entry()
    assert (entry.actor, entry.subject, entry.reason) == (f"program:{its_id}", "POST /v1/notes/{name}", code)


def test_two_tokens_at_once_are_nobody(service: Staffed) -> None:
    session = service.session("officer")
    with httpx.Client(timeout=20, trust_env=False) as client:
        twice = [("authorization", f"Bearer {session}"), ("authorization", f"Bearer {session}")]
        check_problem(client.get(f"{service.address}/v1/me", headers=twice), 401, "http.not_signed_in")
        for scheme in ("Basic ", "Bearer", "Bearer ", ""):
            answer = client.get(f"{service.address}/v1/me", headers={"authorization": (scheme + session)[:300]})
            if scheme != "Bearer ":
                check_problem(answer, 401, "http.not_signed_in")


def test_the_security_log_is_read_page_by_page_and_its_chain_checked(service: Staffed) -> None:
    auditor = service.session("auditor")
    head = service.send("GET", "/v1/security-log/check", auditor).json()
    assert head["holds"] and head["broken_at"] is None
    for _ in range(5):
        service.send("GET", "/v1/people", service.session("clerk"))
    seen: list[int] = []
    before = ""
    while True:
        page = service.send("GET", f"/v1/security-log?limit=7{before}", auditor).json()
        seen += [entry["sequence"] for entry in page["entries"]]
        if page["before"] is None:
            break
        before = f"&before={page['before']}"
    assert seen == list(range(len(seen), 0, -1)) and len(seen) > head["entries"]
    kept = f"/v1/security-log/check?entries={head['entries']}&head={head['head']}"
    assert service.send("GET", kept, auditor).json()["holds"]
    other = f"/v1/security-log/check?entries={head['entries']}&head={'0' * 64}"
    found = service.send("GET", other, auditor).json()
    assert not found["holds"] and found["broken_at"] == head["entries"]


def test_denials_do_not_fill_the_disk_but_are_counted(tmp_path: Path) -> None:
    with Staffed(tmp_path, bounds=Bounds(address=3, nobody=100, actor=4)) as service:
        start = len(service.entries())
        for _ in range(25):
            check_problem(service.send("GET", "/v1/people"), 401, "http.not_signed_in")
        written = [(entry.event, entry.reason) for entry in service.entries()][:-start][::-1]
        assert written == [("denied", "http.not_signed_in")] * 3 + [("denied.more", "1"), ("denied.more", "10")]
        clerk = service.session("clerk")
        for _ in range(6):
            check_problem(service.send("GET", "/v1/people", clerk), 403, "rights.not_yours")
        of_clerk = [entry.event for entry in service.entries() if entry.actor == "person:clerk"]
        assert of_clerk.count("denied") == 4 and of_clerk.count("denied.more") == 1
        service.clock.now += HOUR_MS
        service.send("GET", "/v1/people")
        newest = [(entry.actor, entry.event, entry.reason) for entry in service.entries(3)]
        assert newest == [
            ("-", "denied", "http.not_signed_in"),
            ("person:clerk", "denied.more", "2"),
            ("-", "denied.more", "22"),
        ]
        assert "127.0.0.1" not in repr(service.entries())


def test_somebody_comes_in_by_the_provider(tmp_path: Path, provider: Provider) -> None:
    with Staffed(tmp_path, issuer=provider.issuer) as service, Browser(service) as browser:
        provider.reset(lambda: service.clock() // 1000)
        begun = browser.post("/v1/sign-in/provider")
        (cookie,) = begun.headers.get_list("set-cookie")
        assert "SameSite=lax" in cookie and "HttpOnly" in cookie and "Max-Age=600" in cookie
        back = urlsplit(browser.get(begun.json()["url"]).headers["location"]).query
        with Browser(service) as stranger:
            path = f"/v1/sign-in/provider/callback?{back}"
            check_problem(stranger.get(path), 401, "oidc.no_attempt")
            assert service.last_entry().reason == "oidc.no_attempt"
        done = browser.get(path, headers={"sec-fetch-site": "cross-site"})
        assert (done.status_code, done.headers["location"]) == (303, "/console/")
        assert browser.get("/v1/me").json()["roles"] == ["clerk"]
        check_problem(browser.get(path), 401, "oidc.no_attempt")


def test_another_key_cannot_use_a_token(service: Staffed) -> None:
    secret, _ = make_token(service, ["datasets.load"])
    answer = service.send("POST", "/v1/notes/a", secret, signer=OTHER_KEY, body=b'{"text": ""}')
    check_problem(answer, 401, "signatures.other_key")
    assert base64.b64encode(KEY.key.public).decode() not in answer.text


def test_a_wrong_method_names_all_the_right_ones_of_the_address(service: Staffed) -> None:
    answer = service.send("PATCH", "/v1/people")
    check_problem(answer, 405, "http.wrong_method")
    assert answer.headers["allow"] == "GET, POST"
