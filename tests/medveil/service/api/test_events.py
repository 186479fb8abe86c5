"""Event streams over real sockets: taken up again, ended in order, dropped when slow, harmless when idle."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from medveil.service.api.events import Listener, StreamLimits
from medveil.service.work.job_tables import Event
from medveil.service.work.journal import Journal
from wire.canonical import Wire

from ..running import ANNA, BO, Running, Set
from ..work.test_jobs import until

Make = Callable[..., Set]
Run = Callable[..., Running]


class Nothing(Wire, frozen=True, tag="test.nothing"):
    """What a step gives that gives nothing."""


async def nothing() -> Nothing:
    return Nothing()


def stepping(own: Set, count: int) -> Callable[[], None]:
    """A kind of job of `count` steps, which begin when the returned function is called."""
    gate = threading.Event()

    async def work(journal: Journal) -> str:
        while not gate.is_set():
            await asyncio.sleep(0.005)
        for step in range(count):
            await journal.once(f"step-{step}", Nothing, nothing)
        return "/v1/about"

    own.jobs.register("steps", work, steps=count)
    return gate.set


def request_for(job: str) -> bytes:
    """What asks for a job's stream over a bare socket."""
    fields = f"host: a\r\nauthorization: {ANNA['authorization']}\r\n\r\n"
    return f"GET /v1/jobs/{job}/events HTTP/1.1\r\n{fields}".encode()


def events(answer: httpx.Response) -> Iterator[dict[str, str]]:
    """The events of a stream, until it ends."""
    event: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line and "data" in event:
            yield event
            event = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def test_a_stream_tells_all_in_order_and_ends_with_the_job(make_set: Make, run: Run) -> None:
    own = make_set()
    go = stepping(own, 20)
    service = run(own)
    job = service.do(own.jobs.start("steps", "anna", b""))
    service.do(until(own, job.id, "running"))
    with (
        httpx.Client(base_url=service.address, headers=ANNA, timeout=20) as client,
        client.stream("GET", f"/v1/jobs/{job.id}/events") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer)
        first = next(told)
        assert first["id"] == "1" and json.loads(first["data"])["state"] == "waiting"
        go()
        rest = list(told)  # ends by itself
    assert [event["id"] for event in rest] == [str(number) for number in range(2, 24)]
    assert json.loads(rest[-1]["data"])["state"] == "done"
    assert [json.loads(event["data"])["step"] for event in rest[1:-1]] == [f"step-{step}" for step in range(20)]


def test_a_stream_is_taken_up_where_it_was(make_set: Make, run: Run) -> None:
    own = make_set()
    go = stepping(own, 3)
    service = run(own)
    job = service.do(own.jobs.start("steps", "anna", b""))
    service.do(until(own, job.id, "running"))
    go()
    service.do(until(own, job.id, "done"))
    with httpx.Client(base_url=service.address, headers=ANNA, timeout=20) as client:
        path = f"/v1/jobs/{job.id}/events"
        again = list(events(client.get(path, headers={"last-event-id": "3"})))
        assert [event["id"] for event in again] == ["4", "5", "6"]
        seen = client.get(path, headers={"last-event-id": "6"})
        assert seen.status_code == 204 and not seen.content  # a browser does not come back then
        assert client.get(path, headers={"last-event-id": "-1"}).status_code == 422
        assert client.get(path, headers=BO).status_code == 404


def test_streams_have_limits(make_set: Make, run: Run) -> None:
    own = make_set(stream_limits=StreamLimits(per_owner=2, streams=3))
    stepping(own, 1)
    service = run(own)
    job = service.do(own.jobs.start("steps", "anna", b""))
    path = f"/v1/jobs/{job.id}/events"
    with httpx.Client(base_url=service.address, headers=ANNA, timeout=20) as client:
        with client.stream("GET", path) as one, client.stream("GET", path) as two:
            assert one.status_code == two.status_code == 200
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "streams.too_many")
            assert refused.headers["retry-after"] == "10"
        deadline = time.monotonic() + 10
        while own.streams._open and time.monotonic() < deadline:  # a listener that left is noticed
            time.sleep(0.01)
        assert own.streams._open == 0
        with client.stream("GET", path) as again:
            assert again.status_code == 200
    assert "medveil_event_streams 0.0" in own.metrics.render().decode() or own.streams._open <= 1


def test_a_heartbeat_keeps_an_idle_stream(make_set: Make, run: Run) -> None:
    own = make_set(stream_limits=StreamLimits(heartbeat=0.05, longest=0.6))
    stepping(own, 1)
    service = run(own)
    job = service.do(own.jobs.start("steps", "anna", b""))
    answer = httpx.get(f"{service.address}/v1/jobs/{job.id}/events", headers=ANNA, timeout=20)
    assert answer.text.count(": \n\n") >= 5  # and it ended after `longest`, so that the caller is asked again who it is


def test_a_slow_reader_is_dropped_and_nobody_waits(make_set: Make, run: Run) -> None:
    """One listener never reads; a job of many long events runs on, another listener gets all of them."""
    own = make_set(stream_limits=StreamLimits(queue=16, patience=60))
    count = 3000
    go = stepping(own, 1)
    service = run(own)
    job = service.do(own.jobs.start("steps", "anna", b""))
    service.do(until(own, job.id, "running"))
    with service.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(request_for(job.id))
        while own.streams._open < 1:
            time.sleep(0.01)

        async def flood() -> float:
            """Tell of many events; returns the longest time that telling one took."""
            longest = 0.0
            for number in range(3, count):
                begun = time.perf_counter()
                own.streams.publish(job.id, Event(number, "step", json.dumps({"job": job.id, "step": "x" * 4000})))
                longest = max(longest, time.perf_counter() - begun)
                await asyncio.sleep(0)
            return longest

        assert service.do(flood()) < 0.5
        deadline = time.monotonic() + 10
        while own.streams._open and time.monotonic() < deadline:
            time.sleep(0.01)
        assert own.streams._open == 0
        assert b"medveil_event_streams_dropped_total 1.0" in own.metrics.render()
        slow.settimeout(10)
        with pytest.raises(ConnectionResetError):  # cut, not left with a full buffer
            while slow.recv(65536):
                pass
    assert httpx.get(service.address + "/v1/about", headers=ANNA).status_code == 200
    assert [line for line in own.lines() if line["event"] == "stream.dropped"]
    go()
    service.do(until(own, job.id, "done"))


def test_a_queue_is_bounded() -> None:
    listener = Listener(2)
    for number in range(2):
        listener.offer(Event(number, "step", "{}"))
    assert not listener.dropped
    listener.offer(None)  # there is always room for the end
    assert listener.queue.qsize() == 3
    listener.offer(Event(3, "step", "{}"))
    assert listener.dropped and listener.queue.qsize() == 3


def test_a_stopping_service_ends_its_streams(make_set: Make) -> None:
    own = make_set()
    stepping(own, 1)
    with Running(own) as service:
        job = service.do(own.jobs.start("steps", "anna", b""))
        service.do(until(own, job.id, "running"))
        with httpx.stream("GET", f"{service.address}/v1/jobs/{job.id}/events", headers=ANNA, timeout=20) as answer:
            told = events(answer)
            assert next(told)["id"] == "1"
            begun = time.monotonic()
            service.stop()
            assert [event["id"] for event in told] == ["2"]  # whole, and closed in good order
            assert time.monotonic() - begun < 2
    assert service.exit_code == 0


SERVED = """
import asyncio, pathlib, sys
sys.path.insert(0, {root!r})
from tests.medveil.service.running import Set
from tests.medveil.service.api.test_events import serve_idle
asyncio.run(serve_idle(pathlib.Path({folder!r})))
"""


async def serve_idle(folder: Path) -> None:
    """A service in a process of its own, so that its memory is its own. Prints the port and a job's id."""
    from medveil.service.api.app import make_app
    from medveil.service.serve import Grace, Service, bind
    from medveil.service.serve import Listener as Listening

    own = Set(folder, stream_limits=StreamLimits(streams=1100, per_owner=1100))
    stepping(own, 1)
    bound = bind("127.0.0.1", 0)
    job = await own.jobs.start("steps", "anna", b"")
    print(bound.getsockname()[1], job.id, flush=True)
    await Service(
        listeners=[Listening(name="people", app=make_app(own.parts()), bound=bound)],
        jobs=own.jobs,
        streams=own.streams,
        health=own.health,
        log=own.log,
        vocabulary=own.vocabulary,
        grace=Grace(requests=5, jobs=0.5),
    ).run()


def _memory(process: int) -> int:
    """Resident bytes of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def _latency(client: httpx.Client, count: int = 150) -> float:
    """Median seconds of a plain request: the best of three rounds, since others use this machine too."""
    rounds = []
    for _ in range(3):
        seconds = []
        for _ in range(count):
            begun = time.perf_counter()
            assert client.get("/v1/about").status_code == 200
            seconds.append(time.perf_counter() - begun)
        rounds.append(statistics.median(seconds))
    return min(rounds)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc: run on Linux")
def test_a_thousand_idle_streams_harm_nobody(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """1,000 real sockets, each with an open stream: a plain route answers within five times its time without them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2600
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"1,000 sockets need {wanted} open files: raise the limit (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    root = Path(__file__).resolve().parents[4]
    program = SERVED.format(root=str(root), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True)
    streams: list[socket.socket] = []
    try:
        assert process.stdout is not None
        port, job = process.stdout.readline().split()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=ANNA, timeout=20) as client:
            _latency(client, 50)
            before, memory = _latency(client), _memory(process.pid)
            for _ in range(1000):
                streams.append(socket.create_connection(("127.0.0.1", int(port)), timeout=20))
                streams[-1].sendall(request_for(job))
            for stream in streams:
                seen = b""
                while b"event: state" not in seen:
                    seen += stream.recv(4096)
                assert seen.startswith(b"HTTP/1.1 200 ")
            assert "medveil_event_streams 1000.0" in client.get("/metrics").text
            after, more = _latency(client), _memory(process.pid) - memory
            record_property("latency_ms_before", round(before * 1000, 3))
            record_property("latency_ms_after", round(after * 1000, 3))
            record_property("kib_a_stream", round(more / 1000 / 1024, 1))
            print(f"{before * 1000:.2f} ms, then {after * 1000:.2f} ms; {more / 1024_000:.1f} KiB a stream")
            assert after < 5 * before
            assert more < 1000 * 100 * 1024  # 100 KiB each
            for stream in streams[:500]:  # half of them vanish without a word
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.close()
            deadline = time.monotonic() + 20
            while "medveil_event_streams 500.0" not in client.get("/metrics").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        begun = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 10
    finally:
        for stream in streams:
            stream.close()
        if process.poll() is None:
            process.kill()
        process.communicate()
