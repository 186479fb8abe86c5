"""Jobs through the client: followed, taken up after a break, asked once, waited for, left behind clean."""

from __future__ import annotations

import asyncio
import gc
import threading
from itertools import pairwise
from typing import Any

import pytest
from fastapi import APIRouter, Request
from hypothesis import given
from hypothesis import strategies as st
from service.staffed import Staffed

from medveil.client import AsyncClient, Client, Session
from medveil.client.events import EventReader
from medveil.client.exchange import Exchange, Part, verb
from medveil.client.jobs import Job, begin
from medveil.client.line import post
from medveil.service.api.callers import May
from medveil.service.api.events import StreamLimits
from medveil.service.api.job_routes import view
from wire.canonical import Wire
from wire.errors import DecodeError, MedveilError, ProtocolAbort, Refused, Unavailable

from .wayward import Rule, Wayward

WHAT_HAPPENS = [
    ("waiting", 0),
    ("running", 0),
    ("running", 1),
    ("running", 2),
    ("running", 3),
    ("running", 4),
    ("running", 5),
    ("done", 5),
]


class Nothing(Wire, frozen=True, tag="test.client_nothing"):
    """What a step gives that gives nothing."""


class Begun(Part[Any]):
    """The test's own route that begins jobs."""

    @verb
    def start(self, kind: str, key: str = "") -> Exchange[Job]:
        return (yield from begin(self._line, post("begin", kind), key))


class Working:
    """A service whose jobs wait for the test."""

    def __init__(self, folder: Any) -> None:
        router = APIRouter()
        self.gate, self.started = threading.Event(), 0

        @router.post("/v1/begin/{kind}", status_code=202)
        async def start(request: Request, kind: str) -> Any:
            who = await May("jobs.read")(request)
            key = request.headers.get("idempotency-key")
            return view(await self.service.set.jobs.start(kind, who.id, b"", key), "en")

        soon = StreamLimits(retry=200)  # whoever was cut comes again after this, and not after seconds
        self.service = Staffed(folder, routers=[router], settings={"stream_limits": soon})

        async def steps(journal: Any) -> str:
            self.started += 1
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
            for step in range(5):
                await journal.once(f"step-{step}", Nothing, _nothing)
            return "/v1/about"

        async def fails(journal: Any) -> str:
            raise ProtocolAbort("gateway.stopped", round="shares", parties=("east", "west"), reason="r", words="w")

        self.service.set.jobs.register("steps", steps, steps=5)
        self.service.set.jobs.register("fails", fails)

    def client(self, address: str = "", **more: Any) -> Client:
        who = Session(self.service.session("officer"))
        return Client(address or self.service.address, who, clock=self.service.clock, **more)


async def _nothing() -> Nothing:
    return Nothing()


@pytest.fixture
def working(tmp_path: Any) -> Any:
    made = Working(tmp_path)
    with made.service:
        yield made
        made.gate.set()


def begun(client: Any) -> Any:
    return Begun(client._line, client._carrier)


def test_a_job_is_followed_to_its_end(working: Any) -> None:
    working.gate.set()
    with working.client() as client:
        job = begun(client).start("steps")
        happened = [*client.jobs.follow(job.job)]
        assert [(one.state, one.steps) for one in happened] == WHAT_HAPPENS
        assert [one.number for one in happened] == [*range(1, 9)] and happened[-1].result == "/v1/about"
        assert [one.number for one in client.jobs.follow(job.job, after=6)] == [7, 8]
        assert [*client.jobs.follow(job.job, after=8)] == []
        told: list[Any] = []
        ended = client.jobs.wait(job.job, told=told.append)
        assert told == happened and ended.state == "done" and ended.name == "about"
        listed = client.jobs.list(state="done")
        assert listed.jobs == (ended,) and client.jobs.get(job.job) == ended
        assert listed.to_pandas()["state"].tolist() == ["done"]


def test_a_job_that_fails_raises_why(working: Any) -> None:
    with working.client() as client:
        with pytest.raises(ProtocolAbort) as stopped:
            client.jobs.wait(begun(client).start("fails").job)
        assert (stopped.value.round, stopped.value.parties) == ("shares", ("east", "west"))
        assert stopped.value.code == "gateway.stopped"


def test_a_job_that_is_cancelled(working: Any) -> None:
    with working.client() as client:
        job = begun(client).start("steps")
        assert client.jobs.cancel(job.job).cancelling
        working.gate.set()
        with pytest.raises(Refused) as cancelled:
            client.jobs.wait(job.job)
        assert cancelled.value.code == "client.job_cancelled" and job.job in cancelled.value.text("zh")


def cut_streams(after: list[int]) -> Rule:
    """Each stream is cut after so many bytes of its answer; the rest passes."""

    def rule(_number: int, request: bytes) -> str:
        return f"cut:{after.pop(0)}" if b"/events" in request and after else "pass"

    return rule


@pytest.mark.parametrize(
    ("at", "known"), [([0, 0], False), ([900, 700, 650, 800], True), ([1, 1100], True), ([1300], True)]
)
def test_a_stream_that_breaks_is_taken_up_where_it_broke(working: Any, at: list[int], known: bool) -> None:
    """Wherever it is cut, in the head, between events or within one: all events once, in order."""
    working.gate.set()
    with Wayward(working.service.running.port, cut_streams(at)) as network:
        with working.client(network.address) as client:
            job = begun(client).start("steps")
            with working.client() as straight:
                straight.jobs.wait(job.job)
            happened = [*client.jobs.follow(job.job)]
        asked = [request for request in network.seen if b"/events" in request]
    assert [(one.state, one.steps) for one in happened] == WHAT_HAPPENS
    assert not at and len(asked) >= 2
    numbers = [int(_field(request, b"last-event-id")) for request in asked]
    assert numbers == sorted(numbers) and numbers[0] == 0 and (numbers[-1] > 0) == known


def test_following_later_in_a_loop(working: Any) -> None:
    async def test() -> None:
        who = Session(working.service.session("officer"))
        with Wayward(working.service.running.port, cut_streams([900, 700])) as network:
            async with AsyncClient(network.address, who) as client:
                job = await begun(client).start("steps")
                asyncio.get_running_loop().call_later(0.2, working.gate.set)
                happened = [one async for one in client.jobs.follow(job.job)]
                assert [(one.state, one.steps) for one in happened] == WHAT_HAPPENS
                assert (await client.jobs.wait(job.job)).state == "done"

    asyncio.run(test())


def test_an_answer_that_is_lost_begins_no_second_job(working: Any) -> None:
    """The request reached the gateway, the answer nobody: the client asks again with the same key."""
    lost = ["swallow", "cut:20"]

    def rule(_number: int, request: bytes) -> str:
        return lost.pop(0) if b"/v1/begin" in request and lost else "pass"

    with Wayward(working.service.running.port, rule) as network, working.client(network.address) as client:
        job = begun(client).start("steps")
        assert not lost and [one.job for one in client.jobs.list().jobs] == [job.job]
        asked = {_field(request, b"idempotency-key") for request in network.seen if b"/v1/begin" in request}
        assert len(asked) == 1 and len(asked.pop()) == 32
        other = begun(client).start("steps")
        assert other.job != job.job
        mine = begun(client).start("steps", key="mine")
        assert begun(client).start("steps", key="mine").job == mine.job


def _field(request: bytes, name: bytes) -> bytes:
    return next(line for line in request.split(b"\r\n") if line.lower().startswith(name + b":")).partition(b": ")[2]


def test_what_changes_something_is_asked_once(working: Any) -> None:
    def rule(_number: int, request: bytes) -> str:
        return "swallow" if request.startswith(b"POST") else "pass"

    with Wayward(working.service.running.port, rule) as network:
        root = Client(network.address, Session(working.service.session("root")))
        with root, pytest.raises(Unavailable) as unknown:
            root.people.add("mei", ["clerk"])
        assert unknown.value.code == "client.unknown_outcome" and len(network.seen) == 1
    with Client(working.service.address, Session(working.service.session("root"))) as root:
        assert "mei" in [person.name for person in root.people.list().people]  # it did take effect


BUSY = b"HTTP/1.1 503 x\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nbusy"


def test_what_only_reads_is_asked_again(working: Any) -> None:
    answers: list[str | bytes] = ["refuse", "cut:30", BUSY]

    def rule(_number: int, _request: bytes) -> str | bytes:
        return answers.pop(0) if answers else "pass"

    with Wayward(working.service.running.port, rule) as network, working.client(network.address) as client:
        assert client.account.me().name == "officer" and len(network.seen) == 4


def json_answer(status: int, body: bytes, more: bytes = b"", kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %d x\r\ncontent-type: %s\r\n%scontent-length: %d\r\n\r\n%s" % (
        status,
        kind,
        more,
        len(body),
        body,
    )


ELSEWHERE = b"location: http://evil.example/\r\n"
PROBLEM = b"application/problem+json"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (BUSY, "client.no_gateway"),
        (json_answer(200, b"[1"), "client.unexpected_answer"),
        (json_answer(200, b'{"kind": 1}'), "client.unexpected_answer"),
        (json_answer(200, b"[" * 100_000), "client.unexpected_answer"),
        (json_answer(200, b"{}", b"content-encoding: gzip\r\n"), "client.unexpected_answer"),
        (json_answer(307, b"", ELSEWHERE), "client.not_a_gateway"),
        (json_answer(404, b"<html>", kind=b"text/html"), "client.not_a_gateway"),
        (json_answer(409, b"{", kind=PROBLEM), "client.not_a_gateway"),
        (json_answer(409, b'{"code": "a\\u001b[2Jb"}', kind=PROBLEM), "client.not_a_gateway"),
        (json_answer(409, b'{"code": "new.code", "kind": "Newer"}', kind=PROBLEM), "new.code"),
        (b"nonsense\r\n\r\n", "client.unreachable"),
    ],
)
def test_what_is_no_gateway_is_told_from_one(working: Any, answer: bytes, code: str) -> None:
    with Wayward(0, lambda _number, _request: answer) as network, working.client(network.address) as client:
        with pytest.raises(MedveilError) as strange:
            client.account.me()
        assert strange.value.code == code
        assert len(network.seen) == (4 if code in ("client.no_gateway", "client.unreachable") else 1)


def test_a_gateway_that_says_when_is_asked_then_and_not_for_hours(working: Any) -> None:
    body = b'{"code": "http.too_many_requests", "kind": "Unavailable", "detail": "d", "fix": "f"}'
    answers = [json_answer(429, body, b"retry-after: 1\r\n", PROBLEM)]
    hours = json_answer(429, body, b"retry-after: 7200\r\n", PROBLEM)

    def rule(number: int, _request: bytes) -> str | bytes:
        return answers[number] if number < len(answers) else "pass"

    with Wayward(working.service.running.port, rule) as network, working.client(network.address) as client:
        assert client.account.me().name == "officer" and len(network.seen) == 2
        answers.extend([hours] * 9)
        with pytest.raises(Unavailable) as later:
            client.account.me()
        assert later.value.retry_after == 7200 and len(network.seen) == 3


def test_an_answer_without_end_is_not_taken(working: Any) -> None:
    endless = b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n" + b" " * 10**6
    from medveil.client import carriers

    with Wayward(0, lambda *_: endless + b" " * carriers.LARGEST) as network, working.client(network.address) as client:
        with pytest.raises(DecodeError) as large:
            client.account.me()
        assert large.value.code == "client.too_large"


def test_whoever_is_cancelled_leaves_nothing_behind(working: Any) -> None:
    """Cancelled in the middle of a stream, of a wait between tries, and of a call: no task, no connection."""
    who = Session(working.service.session("officer"))

    async def test() -> None:
        for rule in (lambda *_: "pass", lambda *_: "refuse", lambda *_: "swallow"):
            with Wayward(working.service.running.port, rule) as network:
                async with AsyncClient(working.service.address, who) as straight:
                    job = await begun(straight).start("steps")
                async with AsyncClient(network.address, who) as client:
                    waiting = asyncio.create_task(client.jobs.wait(job.job))
                    while not network.seen:
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.1)
                    waiting.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await waiting
                    following = client.jobs.follow(job.job)
                    if rule(0, b"") == "pass":
                        assert (await anext(following)).state == "waiting"
                        await following.aclose()  # type: ignore[attr-defined]
                assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await asyncio.to_thread(working.client) is not None

    asyncio.run(test())
    gc.collect()
    assert not _open_streams(working)


def _open_streams(working: Any) -> float:
    """How many streams the service holds open, once it has had time to see that their readers are gone."""
    streams, waiting = working.service.set.metrics.streams._value, threading.Event()
    for _ in range(200):
        if not streams.get():
            break
        waiting.wait(0.02)
    return float(streams.get())


def test_a_closed_client_ends_its_streams(working: Any) -> None:
    client = working.client()
    job = begun(client).start("steps")
    following = client.jobs.follow(job.job)
    assert next(following).state == "waiting"
    assert working.service.set.metrics.streams._value.get() == 1
    client.close()
    following.close()
    with pytest.raises(ValueError, match="closed"):
        next(client.jobs.follow(job.job))
    assert not _open_streams(working)


def test_a_client_starts_no_threads(working: Any) -> None:
    """What it waits for, it waits for where it was called: nothing of it is left when it is closed."""
    begins = threading.Thread.start
    started: list[str] = []

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is threading.main_thread():  # the service starts its own elsewhere
            started.append(thread.name)
        begins(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with working.client() as client:
            job = begun(client).start("steps")
            following = client.jobs.follow(job.job)
            assert next(following).state == "waiting"
            following.close()
    assert not started


EVENTS = (
    b'retry: 10\n\n: \n\nid: 1\nevent: state\ndata: {"a"\ndata: :1}\n\n'
    b"id: 2\r\ndata:x\r\n\r\nevent: e\n\ndata\rid: 3\r\r"
)


@given(st.lists(st.integers(0, len(EVENTS)), max_size=8))
def test_events_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    reader, places = EventReader(), [0, *sorted(cuts), len(EVENTS)]
    found = [event for start, end in pairwise(places) for event in reader.feed(EVENTS[start:end])] + reader.feed(b"\n")
    shown = [(event.id, event.name, event.data) for event in found]
    assert shown == [("1", "state", '{"a"\n:1}'), ("2", "message", "x"), ("3", "message", "")]
    assert reader.retry == 10 and reader.last == "3"


def test_an_event_without_end_is_not_taken() -> None:
    reader = EventReader()
    with pytest.raises(DecodeError):
        for _ in range(3000):
            reader.feed(b"data: " + b"x" * 1000 + b"\n")
    assert EventReader("7").feed(b"retry: 99999999999\nid: a\0b\n\n") == []
