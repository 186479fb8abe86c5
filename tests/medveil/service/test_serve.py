"""The process: signals, order of the end, exit codes; and connections that are slow or hostile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import Response

from medveil.service import serve
from medveil.service.http_protocol import PatientProtocol
from medveil.service.serve import CUT_SHORT, FAILED, STOPPED, Closing, Followed, Grace, Listener, Service, bind
from wire.errors import Unavailable

from .api.test_events import stepping
from .running import ANNA, Running, Set

Make = Callable[..., Set]
Run = Callable[..., Running]

PROGRAM = """
import pathlib, sys
sys.path.insert(0, {root!r})
from medveil.service.serve import run
from tests.medveil.service.test_serve import served
sys.exit(run(lambda: served(pathlib.Path({folder!r}), {how!r})))
"""


def slow_routes() -> APIRouter:
    """Routes that take a while. /v1/slow says on standard output that it has begun."""
    router = APIRouter()

    @router.get("/v1/slow")
    async def slow() -> dict[str, bool]:
        print("asked", flush=True)
        await asyncio.sleep(2.0)
        return {"whole": True}

    @router.get("/v1/large")
    async def large() -> Response:
        return Response(b"x" * 50_000_000, media_type="application/octet-stream")

    return router


async def served(folder: Path, how: str) -> int:
    """A service with a job that waits for ever, and a trail of what was closed. Prints its port."""
    from medveil.service.api.app import make_app

    own = Set(folder)
    stepping(own, 1)
    bound = bind("127.0.0.1", 0)

    async def follow() -> None:
        await asyncio.sleep(0.3 if how == "breaks" else 3600)
        raise RuntimeError("patient-110101199001011234")

    async def close_ledger() -> None:
        print("ledger closed", flush=True)

    def close_database() -> None:
        own.database.close()
        print("database closed", flush=True)

    await own.jobs.start("steps", "anna", b"", key="one")
    service = Service(
        listeners=[Listener(name="people", app=make_app(own.parts(routers=[slow_routes()])), bound=bound)],
        jobs=own.jobs,
        streams=own.streams,
        health=own.health,
        log=own.log,
        vocabulary=own.vocabulary,
        follow=[Followed("ledger", follow)],
        close=[Closing("ledger", close_ledger), Closing("database", close_database)],
        grace=Grace(requests=5, jobs=30.0 if how == "patient" else 0.3),
        on_listening=lambda: print(bound.getsockname()[1], flush=True),
    )
    code = await service.run()
    print(json.dumps([line["event"] + ":" + line.get("part", "") for line in own.lines()]), flush=True)
    assert b"110101" not in own.written.getvalue()
    return code


@pytest.fixture
def process(tmp_path: Path) -> Any:
    """Start the program; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str = "") -> tuple[subprocess.Popen[str], int]:
        root = Path(__file__).resolve().parents[3]
        program = PROGRAM.format(root=str(root), folder=str(tmp_path), how=how)
        started.append(subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        return started[-1], int(started[-1].stdout.readline())

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def until_closed(port: int) -> None:
    """Wait until no new connection is taken there: the signal has arrived."""
    deadline = time.monotonic() + 20
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(process: Any, number: signal.Signals) -> None:
    running, port = process()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
        asking.sendall(b"GET /v1/slow HTTP/1.1\r\nhost: a\r\n\r\n")
        assert running.stdout is not None and running.stdout.readline() == "asked\n"
        os.kill(running.pid, number)
        until_closed(port)
        answer = b""
        while part := asking.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'{"whole":true}')  # what had begun is finished
    said = running.communicate(timeout=20)[0].splitlines()
    assert running.returncode == STOPPED
    assert said[:2] == ["ledger closed", "database closed"]
    events = json.loads(said[2])
    assert events[-3:] == ["part.closed:ledger", "part.closed:database", "stopped:"]
    assert events.index("stopping:") < events.index("request:")  # it was asked to stop before the answer was whole


def test_a_second_signal_cuts_it_short(process: Any) -> None:
    running, port = process("patient")  # a job that would be waited for, for 30 seconds
    os.kill(running.pid, signal.SIGTERM)
    until_closed(port)
    time.sleep(0.5)
    assert running.poll() is None
    begun = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    said = running.communicate(timeout=20)[0].splitlines()
    assert time.monotonic() - begun < 15 and running.returncode == CUT_SHORT
    assert said[:2] == ["ledger closed", "database closed"]  # even then


def test_a_part_that_breaks_ends_the_process_with_a_code(process: Any) -> None:
    running, _ = process("breaks")
    said = running.communicate(timeout=20)[0].splitlines()
    assert running.returncode == FAILED
    assert "part.failed:ledger" in json.loads(said[2])


def test_a_stopped_process_takes_its_job_up_again(process: Any) -> None:
    for _ in range(2):
        running, port = process()
        jobs = httpx.get(f"http://127.0.0.1:{port}/v1/jobs", headers=ANNA).json()["jobs"]
        assert len(jobs) == 1 and jobs[0]["state"] in {"waiting", "running"}
        os.kill(running.pid, signal.SIGTERM)
        said = running.communicate(timeout=20)[0]
        assert running.returncode == STOPPED, said
    assert '"job.resumed:"' in said


def test_a_port_that_is_taken_is_said() -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} cannot be listened on"):
            bind("127.0.0.1", port)
    with pytest.raises(Unavailable):
        bind("192.0.2.1", 0)
    with pytest.raises(Unavailable):
        bind("127.0.0.1", 70_000)


class Hasty(PatientProtocol):
    """The same, with less patience."""

    header_seconds = 0.4
    header_bytes = 8192
    write_seconds = 0.5
    linger_seconds = 0.4
    most_connections = 40


class Crowded(Hasty):
    """Few connections, each for long."""

    header_seconds = 60


def closed_after(connection: socket.socket, limit: float) -> float:
    """Seconds until the other side closes; fails after `limit`."""
    begun = time.monotonic()
    connection.settimeout(limit)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - begun


@pytest.fixture
def hasty(make_set: Make, run: Run) -> Running:
    return run(make_set(), protocol=Hasty, routers=[slow_routes()])


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /v1/about HTTP/1.1\r\nhost: a\r\nx-slow: "])
def test_a_connection_that_says_nothing_whole_is_closed(hasty: Running, sent: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(sent)
        assert closed_after(connection, 5) < 2


def test_drips_do_not_extend_the_time(hasty: Running) -> None:
    """Slow-loris, on a fresh connection and on one that was used before."""
    for used in (False, True):
        with hasty.connect() as connection:
            if used:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
                assert b"200 OK" in connection.recv(4096)
            connection.sendall(b"GET /v1/about HTTP/1.1\r\n")
            begun = time.monotonic()
            with pytest.raises(OSError):
                while time.monotonic() - begun < 5:
                    connection.sendall(b"x-a: b\r\n")
                    time.sleep(0.05)
            assert time.monotonic() - begun < 2


def test_header_fields_without_end_are_refused(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /v1/about HTTP/1.1\r\nx-long: ")
        answer = b""
        try:
            for _ in range(64):
                connection.sendall(b"a" * 1024)
                time.sleep(0.001)
        except OSError:
            pass
        try:
            answer = connection.recv(4096)
        except OSError:
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


def test_a_body_that_nobody_waits_for_does_not_hold_the_connection(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(
            b"POST /v1/nowhere HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begun < 5:
                connection.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - begun < 3


def test_a_caller_that_sends_first_still_reads_the_refusal(make_set: Make, run: Run) -> None:
    """A body of 8 MiB, refused by its length: a client that sends all of it before it reads gets the document."""
    service = run(make_set())
    body = b'"' + b"x" * (8 * 1024 * 1024) + b'"'
    answer = httpx.post(service.address + "/v1/about", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["code"] == "http.body_too_large"


def test_a_caller_that_does_not_read_is_cut(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /v1/large HTTP/1.1\r\nhost: a\r\n\r\n")
        hasty.set.answered(1)  # it was given up on
        time.sleep(1.0)
        connection.settimeout(5)
        with pytest.raises(ConnectionResetError):
            while connection.recv(1 << 20):
                pass
    assert "medveil_requests_in_flight 1.0" in httpx.get(hasty.address + "/metrics").text  # that of this request


def test_more_connections_than_it_carries_are_closed(make_set: Make, run: Run) -> None:
    crowded = run(make_set(), protocol=Crowded, routers=[slow_routes()])
    held, closed = [], 0
    for _ in range(60):
        try:
            held.append(crowded.connect())
        except ConnectionResetError:  # closed before this end had heard that it was open
            closed += 1
    while closed < 10:  # the last that came
        closed_after(held[-1], 20)
        held.pop().close()
        closed += 1
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 10
    while True:  # what this end has closed is noticed there a little later
        try:
            answer = httpx.get(crowded.address + "/health/live")
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert answer.status_code == 200


def test_nonsense_is_answered_and_costs_nothing(hasty: Running) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"G" * 9000, b"\x00" * 100):
        with hasty.connect() as connection:
            connection.sendall(sent)
            connection.settimeout(5)
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in answer, sent
    with hasty.connect() as connection:  # two requests in one: the second one's framing is ambiguous
        framing = b"host: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(b"POST /v1/about HTTP/1.1\r\n" + framing + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(hasty.address + "/v1/about", headers=ANNA).status_code == 200
    assert not [line for line in hasty.set.lines() if line["event"] == "fault"]


def test_tls_adds_its_header(make_set: Make, tmp_path: Path) -> None:
    """Real TLS 1.3 with a certificate of the test's own."""
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import NameOID

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.sign(key, None).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "both.pem").write_bytes(secret + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tmp_path / "both.pem")
    from medveil.service.api.app import make_app

    own = make_set()
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]

    async def main() -> int:
        stop = asyncio.Event()
        service = Service(
            listeners=[Listener(name="people", app=make_app(own.parts()), bound=bound, tls=context)],
            jobs=own.jobs,
            streams=own.streams,
            health=own.health,
            log=own.log,
            vocabulary=own.vocabulary,
        )
        running = asyncio.create_task(service.run(stop))
        trusting = ssl.create_default_context(cadata=certificate.decode())
        async with httpx.AsyncClient(verify=trusting, headers=ANNA) as client:
            answer = await client.get(f"https://localhost:{port}/v1/about")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        stop.set()
        return await running

    assert asyncio.run(main()) == STOPPED


def test_uvloop_runs_it_where_it_is_installed() -> None:
    async def which() -> int:
        return int(type(asyncio.get_running_loop()).__module__.startswith("uvloop"))

    pytest.importorskip("uvloop", reason="install uvicorn[standard]")
    assert serve.run(which) == 1


def test_a_process_that_listens_keeps_its_program_out_of_the_collectors_rounds() -> None:
    program = """
import gc
from medveil.service.serve import settle
settle()
assert gc.get_freeze_count() > 10_000 and gc.isenabled() and gc.get_threshold()[0] >= 10_000
class Knot: pass
import weakref
knots = []
for _ in range(60_000):
    knot = Knot(); knot.self = knot
    knots.append(weakref.ref(knot))
del knot
assert sum(one() is not None for one in knots) < 55_000, "cycles of later are still collected"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
