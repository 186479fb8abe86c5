"""Progress of jobs as server-sent events: what happened since, then what happens, until the job has ended.

A stream can be taken up again with Last-Event-ID: every event is in the table, numbered. Each listener has a
queue of its own, of bounded length; whoever reads too slowly is dropped and nobody waits for it. An idle stream
costs a task, a queue and, now and then, a comment line that keeps proxies from closing it. Before each of these, and
before an event, its reader is asked again who it is: what was withdrawn meanwhile ends the stream.

Spec: WHATWG HTML, 9.2 server-sent events (204 tells a client not to come back).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medveil.service.logs import Log
from medveil.service.metrics import Metrics
from medveil.service.work.job_tables import Event
from wire.errors import Unavailable

MEDIA_TYPE = "text/event-stream"
_FIELDS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # a proxy must not gather the events
]
_HEARTBEAT = b": \n\n"
_PAGE = 500
_KNOWN_SECONDS = 1.0  # for which a reader is not asked again


@dataclass(frozen=True, kw_only=True)
class StreamLimits:
    """streams: at once, in all and of one owner. queue: events that one listener may lag behind. heartbeat: seconds
    between comments. patience: seconds one write may take. longest: seconds after which the client must come
    again, and be asked again who it is. retry: ms after which it should."""

    streams: int = 2000
    per_owner: int = 50
    queue: int = 64
    heartbeat: float = 15.0
    patience: float = 20.0
    longest: float = 900.0
    retry: int = 2000


class Listener:
    """One open stream's queue. A None in it ends the stream."""

    def __init__(self, most: int) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(most + 1)
        self._most = most
        self.task: asyncio.Task[object] | None = None
        self.dropped = False

    def offer(self, event: Event | None) -> None:
        """Hand over an event without waiting; a listener that is too far behind is dropped."""
        if self.dropped:
            return
        if event is not None and self.queue.qsize() >= self._most:
            self.drop()
        elif not self.queue.full():
            self.queue.put_nowait(event)

    def drop(self) -> None:
        """End the stream at once, in the middle of a write if need be."""
        self.dropped = True
        if self.task is not None:
            self.task.cancel()


class Streams:
    """All open streams of one process."""

    def __init__(self, log: Log, metrics: Metrics, limits: StreamLimits | None = None) -> None:
        self.limits = limits or StreamLimits()
        self._log = log
        self._metrics = metrics
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._owners: Counter[str] = Counter()
        self._open = 0
        self._closing = False

    def publish(self, job: str, event: Event) -> None:
        """Tell the listeners of `job`. Never waits. Call it in the order of the events' numbers."""
        for listener in tuple(self._listeners.get(job, ())):
            listener.offer(event)

    @contextmanager
    def listen(self, job: str, owner: str) -> Iterator[Listener]:
        """A listener for the length of the block. Raises Unavailable if there are too many, or the service stops."""
        for limit, count in ((self.limits.per_owner, self._owners[owner]), (self.limits.streams, self._open)):
            if count >= limit or self._closing:
                raise Unavailable("streams.too_many", retry_after=10, limit=limit)
        listener = Listener(self.limits.queue)
        self._listeners[job].add(listener)
        self._owners[owner] += 1
        self._open += 1
        self._metrics.streams.inc()
        try:
            yield listener
        finally:
            self._listeners[job].discard(listener)
            if not self._listeners[job]:
                del self._listeners[job]
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
            self._open -= 1
            self._metrics.streams.dec()

    def note_dropped(self) -> None:
        """A slow reader was dropped."""
        self._metrics.streams_dropped.inc()
        self._log.warning("stream.dropped")

    def close(self) -> None:
        """End every stream in good order, and open no more."""
        self._closing = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.offer(None)


class EventStream(Response):
    """The answer that streams one job's events.

    after: number of the last event that the client has. past: reads events after a number from the table, at most
    500 at once. stands: whether the reader still may.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        streams: Streams,
        job: str,
        owner: str,
        after: int,
        past: Callable[[str, int], Awaitable[list[Event]]],
        stands: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__()
        self._streams = streams
        self._job = job
        self._owner = owner
        self._after = after
        self._past = past
        self._stands = stands

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `starlette.responses.Response.__call__`. Raises Unavailable before anything is sent."""
        with self._streams.listen(self._job, self._owner) as listener:
            listener.task = asyncio.current_task()
            gone = asyncio.create_task(_gone(receive, listener))
            try:
                await self._run(listener, send)
            except (asyncio.CancelledError, TimeoutError) as error:
                slow = listener.dropped or isinstance(error, TimeoutError)
                if not slow:
                    raise
                if isinstance(error, asyncio.CancelledError) and listener.task is not None:
                    listener.task.uncancel()
                self._streams.note_dropped()
                abort = scope.get("extensions", {}).get("medveil.abort")
                if abort is not None:
                    abort()  # what is buffered for a reader that does not read is thrown away
                    await asyncio.sleep(0)  # until the server knows that the connection has gone
            finally:
                gone.cancel()

    async def _run(self, listener: Listener, send: Send) -> None:
        limits = self._streams.limits
        clock = asyncio.get_running_loop().time
        until = clock() + limits.longest

        async def write(data: bytes, more: bool = True) -> None:
            async with asyncio.timeout(limits.patience):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        async with asyncio.timeout(limits.patience):
            await send({"type": "http.response.start", "status": 200, "headers": list(_FIELDS)})
        await write(b"retry: %d\n\n" % limits.retry)
        sent = self._after
        while page := await self._past(self._job, sent):
            for event in page:
                await write(_line(event))
                sent = event.number
            if page[-1].last:
                await write(b"", more=False)
                return
        known = clock()
        while clock() < until:
            event_or_end: Event | None = None
            try:
                async with asyncio.timeout(limits.heartbeat):
                    event_or_end = await listener.queue.get()
                if event_or_end is None:
                    break
            except TimeoutError:
                pass
            if clock() - known >= _KNOWN_SECONDS:
                if not await self._stands():
                    break
                known = clock()
            if event_or_end is None:
                await write(_HEARTBEAT)
                continue
            if event_or_end.number > sent:
                await write(_line(event_or_end))
                sent = event_or_end.number
            if event_or_end.last:
                break
        await write(b"", more=False)


async def _gone(receive: Receive, listener: Listener) -> None:
    """Wait until the client has gone, then end the stream."""
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.offer(None)


def _line(event: Event) -> bytes:
    """One event as it is sent. Its data is one line of JSON."""
    return f"id: {event.number}\nevent: {event.name}\ndata: {event.data}\n\n".encode()
