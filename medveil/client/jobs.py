"""Jobs: long work at the gateway. Begin, look, follow, wait, cancel.

A job goes on at the gateway whether anybody follows it or not. Following takes up a broken stream where it broke
(Last-Event-ID), so that every event is told once and in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from medveil.client.events import EventReader
from medveil.client.exchange import Broken, Exchange, M, Next, Part, Pause, Tell, stream, verb
from medveil.client.frames import Instant, Rows
from medveil.client.line import LONGEST_PAUSE, Call, Line, fetch, get, listen, out_of_reach, post, same, shaped
from medveil.client.told import error_in, error_of
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED = frozenset({"done", "failed", "cancelled"})
PATIENCE = 600.0
"""Seconds without a connection after which following gives up."""
_SHORTEST_PAUSE = 0.2
"""Seconds, whatever a stream says about coming again."""


class Job(msgspec.Struct, frozen=True):
    """A job. steps: how many are recorded, of `total` if that is known. result: path of its result once it is done."""

    job: str
    kind: str
    state: State
    cancelling: bool
    created: Instant
    changed: Instant
    steps: int
    total: int | None
    step: str | None
    result: str | None
    problem: dict[str, Any] | None
    event: int

    @property
    def error(self) -> MedveilError | None:
        """Why it failed, in the language that the client asked for."""
        return None if self.problem is None else error_in(self.problem)

    @property
    def name(self) -> str:
        """The name of its result: the last part of the path. Raises DecodeError if it has none."""
        name = (self.result or "").rpartition("/")[2]
        if not name:
            raise DecodeError("client.unexpected_answer")
        return name


class Progress(msgspec.Struct, frozen=True):
    """What is told of a job. number: of the event, from 1. step: recorded last; at: ms since 1970, UTC."""

    number: int
    job: str
    state: State
    steps: int
    total: int | None
    at: Instant
    step: str = ""
    result: str = ""
    code: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.state in ENDED


class _Data(msgspec.Struct, frozen=True):
    job: str
    state: State
    steps: int
    at: int
    total: int | None = None
    step: str | None = None
    result: str | None = None
    code: str | None = None


class JobList(Rows, frozen=True):
    """A page of jobs, the newest first. after: give it to get the next page; None on the last one."""

    jobs: tuple[Job, ...]
    after: str | None

    def rows(self) -> tuple[Job, ...]:
        """The jobs."""
        return self.jobs


class Jobs(Part[M]):
    """``/v1/jobs``: the caller's own jobs."""

    @verb
    def list(self, *, state: State | None = None, limit: int = 50, after: str | None = None) -> Exchange[JobList]:
        """A page of your jobs, the newest first. limit: 1 to 200."""
        return (yield from fetch(self._line, get("jobs", state=state, limit=limit, after=after), JobList))

    @verb
    def get(self, job: str) -> Exchange[Job]:
        """One job of yours."""
        return (yield from look(self._line, job))

    @verb
    def cancel(self, job: str) -> Exchange[Job]:
        """Let a job end: waiting, at once; running, at its next step; ended, it stays as it is."""
        return same((yield from fetch(self._line, post("jobs", job, "cancel"), Job)), job=job)

    @stream
    def follow(self, job: str, *, after: int = 0) -> Exchange[Progress]:
        """What happens to a job, from its beginning or after event number `after`, until it has ended.

        Raises Unavailable when the gateway cannot be reached for ten minutes.
        """
        return (yield from follow(self._line, job, after))

    @verb
    def wait(self, job: str, *, told: Callable[[Progress], None] | None = None) -> Exchange[Job]:
        """Wait until a job has ended; returns it if it is done. told: called with each progress.

        Raises why it failed; Refused if it was cancelled.
        """
        return (yield from wait(self._line, job, told))


def begin(line: Line, call: Call, key: str) -> Exchange[Job]:
    """Begin a job. key: of this very use, or empty for a fresh one: asked twice, it is begun once."""
    return (yield from fetch(line, call._replace(key=key or line.rand(16).hex()), Job))


def look(line: Line, job: str) -> Exchange[Job]:
    """That job. Raises VerificationError where the gateway shows another."""
    return same((yield from fetch(line, get("jobs", job), Job)), job=job)


def wait(line: Line, job: str, told: Callable[[Progress], None] | None = None) -> Exchange[Job]:
    """See `Jobs.wait`."""
    yield from follow(line, job, 0, told)
    ended = yield from look(line, job)
    if ended.state == "done":
        return ended
    if ended.state == "cancelled":
        raise Refused("client.job_cancelled", job=ended.job)
    raise ended.error or DecodeError("client.unexpected_answer")


def follow(line: Line, job: str, after: int, told: Callable[[Progress], None] | None = None) -> Exchange[Progress]:
    """See `Jobs.follow`. Tells each `Progress`, to `told` too; returns the last one."""
    call = get("jobs", job, "events")._replace(accept="text/event-stream")
    reader, number, progress = EventReader(), after, None
    without = 0.0
    while True:
        pause, error = max(reader.retry / 1000, _SHORTEST_PAUSE), None
        try:
            answer = yield from listen(line, call, last_event_id=str(number))
            if answer.status == 204:
                break
            if answer.status != 200:
                error = error_of(answer)
            elif answer.headers.get("content-type", "").partition(";")[0].strip() != "text/event-stream":
                error = DecodeError("client.unexpected_answer")
            reader.again()
            while error is None and (chunk := (yield Next())) is not None:
                without = 0.0
                for event in reader.feed(chunk):
                    found = _progress(event.id, event.data, job)
                    if found.number <= number:
                        continue
                    number, progress = found.number, found
                    if told is not None:
                        told(found)
                    yield Tell(found)
                    if found.last:
                        return found
            if error is None and without >= PATIENCE:  # streams that end with nothing in them
                raise Unavailable("client.unreachable", address=line.origin)
        except Broken as broken:
            if not broken.trusted or broken.late or without >= PATIENCE:
                raise out_of_reach(line, call, broken) from None
        if error is not None:
            wait_s = error.retry_after if isinstance(error, Unavailable) else 0
            if not 0 < wait_s <= LONGEST_PAUSE or without >= PATIENCE:
                raise error
            pause = float(wait_s)
        without += pause
        yield Pause(pause)
    if progress is not None:
        return progress
    last = yield from look(line, job)  # ended before, and all of it was known
    return Progress(last.event, last.job, last.state, last.steps, last.total, last.changed)


def _progress(number: str, data: str, job: str) -> Progress:
    """One event of that job's stream."""
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise DecodeError("client.unexpected_answer")
    told = shaped(data.encode(), _Data)
    same(told, job=job)
    return Progress(
        int(number),
        told.job,
        told.state,
        told.steps,
        told.total,
        told.at,
        told.step or "",
        told.result or "",
        told.code or "",
    )
