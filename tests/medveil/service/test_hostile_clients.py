"""Hostile bytes on the people's listener: tricks with addresses, hosts and framing, slow and endless requests."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from medveil.service.api.doorway import Limits
from medveil.service.http_protocol import PatientProtocol

from .bare_line import Answer, Bystander, check_document, read_answer
from .staffed import Staffed

SLOWEST = 3.0


class Hasty(PatientProtocol):
    """With less patience, so that the tests are soon over."""

    header_seconds = 1.0
    linger_seconds = 0.5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    settings = {"limits": Limits(body_seconds=1.0)}
    with Staffed(tmp_path_factory.mktemp("hostile"), settings=settings, protocol=Hasty) as staffed:
        yield staffed


def answers(service: Staffed, sent: bytes, most: int = 5) -> list[Answer]:
    """What comes back until the connection ends, or nothing comes for a while."""
    found = []
    with service.running.connect() as connection:
        connection.sendall(sent)
        connection.settimeout(1.5)
        rest = connection.makefile("rb")
        while len(found) < most:
            try:
                answer = _next(rest)
            except OSError:
                break
            if answer is None:
                break
            found.append(answer)
    return found


def _next(rest: object) -> Answer | None:
    """The next answer of a connection that carries several."""
    lines = []
    while (line := rest.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
        lines.append(line.decode("latin-1").strip())
    if not lines:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in lines[1:])}
    body = rest.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]
    return Answer(int(lines[0].split(" ")[1]), headers, body)


def requested(service: Staffed) -> int:
    """How many requests the log has."""
    time.sleep(0.1)
    return sum(line["event"] == "request" for line in service.set.lines())


# --- addresses


PATHS = {
    "encoded slash": b"/v1/people/officer%2fdisable",
    "encoded slash in capitals": b"/v1%2Fpeople",
    "twice encoded": b"/v1/%252e%252e/people",
    "dots": b"/v1/me/../people",
    "encoded dots": b"/v1/me/%2e%2e/people",
    "dot": b"/v1/./people",
    "two slashes": b"//v1/people",
    "slash at the end": b"/v1/people/",
    "backslash": b"/v1\\people",
    "encoded backslash": b"/v1/me/..%5c..%5cpeople",
    "parameter": b"/v1/people;a=b",
    "capitals": b"/V1/People",
    "null": b"/v1/people%00",
    "null and an ending": b"/v1/people%00.html",
    "raw null": b"/v1/people\x00",
    "raw bytes": b"/v1/pe\xc3\xb6ple",
    "overlong slash": b"/v1%c0%afpeople",
    "overlong dots": b"/v1/me/%c0%ae%c0%ae/people",
    "raw overlong": b"/v1\xc0\xafpeople",
    "half an escape": b"/v1/people%",
    "no escape": b"/v1/people%zz",
    "unicode escape": b"/v1/people%u002f",
    "tab": b"/v1/people\t",
    "line end": b"/v1/people%0d%0aset-cookie:%20a=b",
    "fragment": b"/v1/people#/v1/me",
    "asterisk": b"*",
    "nothing": b"",
    "no slash": b"v1/people",
    "other scheme": b"file:///etc/passwd",
    "authority": b"evil.example:443",
    "far away": b"http://evil.example/v1/people",
    "with a user": b"http://root@evil.example/v1/people",
}


@pytest.mark.parametrize("name", sorted(PATHS))
@pytest.mark.parametrize("who", ["officer", "root"])
def test_a_trick_with_the_address_gets_nobody_further(service: Staffed, name: str, who: str) -> None:
    """The same for somebody who may list the accounts as for somebody who may not, but for plain other spellings."""
    head = b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer "
    found = answers(service, b"GET " + PATHS[name] + head + service.session(who).encode() + b"\r\n\r\n")
    assert len(found) == 1, name
    if name in ("far away", "with a user", "fragment") and who == "root":  # RFC 9112, 3.2.2: it is taken, as our own
        assert found[0].status in (200, 400)
        return
    assert found[0].status in (400, 403, 404), (name, found)
    check_document(found[0], name)
    assert "set-cookie" not in found[0].headers and b"evil.example" not in found[0].body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "PRI", "patient", "G\x00T", "GET\t"])
def test_other_methods_do_nothing(service: Staffed, method: str) -> None:
    for target in ("/v1/me", "*", "evil.example:443"):
        sent = f"{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-secret: echo-me\r\n\r\n"
        found = answers(service, sent.encode("latin-1"))
        assert len(found) == 1 and found[0].status in (400, 404, 405), (method, target, found)
        check_document(found[0], method)
        assert b"echo-me" not in found[0].body


@pytest.mark.parametrize(
    "hosts", [[], ["a", "a"], ["a", "b"], ["", "b"]], ids=["none", "the same twice", "two", "an empty one"]
)
def test_a_request_names_one_host(service: Staffed, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    found = answers(service, f"GET /health/live HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
    assert [answer.status for answer in found] == [400]
    assert check_document(found[0], str(hosts)) == "http.bad_request"


def test_older_and_newer_versions(service: Staffed) -> None:
    old = answers(service, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert [answer.status for answer in old] == [200]
    for sent in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health/live HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET /health/live\r\n\r\n",
        b"GET /health/live HTTP/1.1 HTTP/1.1\r\nhost: a\r\n\r\n",
    ):
        found = answers(service, sent)
        assert len(found) == 1 and found[0].status == 400, (sent, found)
        check_document(found[0], str(sent))


# --- where a request ends


INSIDE = b"GET /v1/people HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %s\r\n\r\n"
FRAMINGS = {
    "both": b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way round": b"transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 0\r\ncontent-length: 60\r\n\r\n",
    "two lengths in one": b"content-length: 0, 60\r\n\r\n",
    "a signed length": b"content-length: +0\r\n\r\n",
    "a length in words": b"content-length: 0x10\r\n\r\n",
    "a length too long": b"content-length: 99999999999999999999999\r\n\r\n",
    "a length below nothing": b"content-length: -1\r\n\r\n",
    "an encoding of no kind": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"x-a: b\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"x-a: b\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"x-a: b\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that is too long": b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
}


@pytest.mark.parametrize("name", sorted(FRAMINGS))
def test_a_request_that_ends_in_two_ways_carries_no_other(service: Staffed, name: str) -> None:
    """What stands behind it is not answered: one refusal, and the connection ends."""
    session = service.session("root").encode()
    for opening in (b"POST /v1/people HTTP/1.1\r\n", b"POST /v1/nowhere HTTP/1.1\r\n"):
        head = opening + b"host: a\r\ncontent-type: application/json\r\nauthorization: Bearer " + session + b"\r\n"
        found = answers(service, head + FRAMINGS[name] + INSIDE % session)
        assert len(found) <= 1 and not any(answer.status < 400 for answer in found), (name, found)
        for answer in found:
            check_document(answer, name)


def test_an_unread_body_is_never_a_request(service: Staffed) -> None:
    """The body of a refused call looks like a call by an admin."""
    inside = INSIDE % service.session("root").encode()
    before = requested(service)
    for refused, announced in ((b"/v1/people", len(inside)), (b"/v1/nowhere", len(inside)), (b"/v1/people", 2 << 20)):
        head = b"POST " + refused + b" HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: "
        found = answers(service, head + str(announced).encode() + b"\r\n\r\n" + inside)
        assert [answer.status in (401, 404, 413) for answer in found] == [True], found
    assert requested(service) - before == 3


def test_calls_in_one_piece_are_each_their_own_caller_s(service: Staffed) -> None:
    def call(path: str, who: str) -> bytes:
        field = f"authorization: Bearer {service.session(who)}\r\n" if who else ""
        return f"GET {path} HTTP/1.1\r\nhost: a\r\n{field}\r\n".encode()

    sent = [
        ("/v1/people", "root"),
        ("/v1/people", "officer"),
        ("/v1/people", ""),
        ("/v1/me", "officer"),
        ("/v1/me", ""),
    ]
    found = answers(service, b"".join(call(*one) for one in sent))
    assert [answer.status for answer in found] == [200, 403, 401, 200, 401]
    assert b'"name":"officer"' in found[3].body and b'"name":"root"' not in found[3].body
    many = answers(service, call("/v1/me", "officer") * 300, most=300)
    assert [answer.status for answer in many] == [200] * 300


# --- too slow, too much


def test_a_hundred_slow_callers_harm_nobody(service: Staffed) -> None:
    """Heads and bodies that come a byte at a time: all are ended, and somebody else is served all the while."""
    bearer = f"authorization: Bearer {service.session('root')}\r\n"
    heads = [b"GET /v1/me HTTP/1.1\r\nhost: a\r\nx-slow: "] * 50
    body = f"POST /v1/people HTTP/1.1\r\nhost: a\r\n{bearer}content-type: application/json\r\n"
    bodies = [(body + "content-length: 1000\r\n\r\n").encode(), (body + "transfer-encoding: chunked\r\n\r\n").encode()]
    with Bystander(service) as other:
        slow = {service.running.connect(): sent for sent in [*heads, *(bodies * 25)]}
        for connection, sent in slow.items():
            connection.sendall(sent)
        began = time.monotonic()
        ended: dict[socket.socket, float] = {}
        while len(ended) < len(slow) and time.monotonic() - began < 10:
            for connection, sent in slow.items():
                if connection not in ended and not _drip(connection, b"1\r\n[\r\n" if b"chunked" in sent else b"["):
                    ended[connection] = time.monotonic() - began
            time.sleep(0.05)
    for connection in slow:
        connection.close()
    assert len(ended) == len(slow) and max(ended.values()) < 5
    assert not other.wrong and len(other.waits) > 10 and max(other.waits) < SLOWEST


def _drip(connection: socket.socket, piece: bytes) -> bool:
    """Send a piece; whether the other side still listens."""
    try:
        connection.sendall(piece)
        connection.setblocking(False)
        try:
            while connection.recv(4096):
                pass
            return False
        except BlockingIOError:
            return True
        finally:
            connection.setblocking(True)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"content-length: 10000000000\r\n", 413),
        (b"transfer-encoding: chunked\r\n", 413),
        (b"x-long: " + b"a" * 40_000 + b"\r\ncontent-length: 2\r\n", 431),
        (b"".join(b"x-%d: a\r\n" % number for number in range(400)) + b"content-length: 2\r\n", 431),
        (b"x-long: " + b"a" * 2_000_000 + b"\r\n", 431),
    ],
    ids=["announced", "endless", "a long field", "many fields", "a field without end"],
)
def test_too_much_is_refused_before_it_is_read(service: Staffed, fields: bytes, status: int) -> None:
    session = service.session("root").encode()
    head = b"POST /v1/people HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer " + session
    with service.running.connect() as connection:
        sent = 0
        try:
            connection.sendall(head + b"\r\n" + fields + b"\r\n")
            while sent < 20_000_000:
                connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n" if b"chunked" in fields else b" " * 65_536)
                sent += 65_536
        except OSError:
            pass
        answer = read_answer(connection, "POST")
    assert sent < 20_000_000
    if answer is not None:  # a reset may overtake it, where all was sent and nothing read
        assert answer.status == status
        check_document(answer, str(fields[:40]))
    assert service.send("GET", "/v1/people", session.decode()).status_code == 200
