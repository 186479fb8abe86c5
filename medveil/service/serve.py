"""One organisation's process: its listeners, its jobs and what it follows, in one event loop, ended in order.

SIGTERM or SIGINT ends it: not ready any more, no new connections, requests finish within a time, event streams
end, jobs stop at a step, what is followed is left, parts close in the order given. A second signal cuts that
short; nothing durable is lost by it.

Exit codes: 0 stopped as asked; 1 a part that must run failed (the log names it); 3 cut short by a second signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from medveil.service.api.events import Streams
from medveil.service.health import Health
from medveil.service.http_protocol import PatientProtocol
from medveil.service.logs import Log, Vocabulary, about
from medveil.service.work.jobs import Jobs
from wire.errors import Unavailable

STOPPED = 0
FAILED = 1
CUT_SHORT = 3

_BACKLOG = 1024
_GARBAGE = 50_000
"""Objects that may be made and not freed before the collector looks: some megabytes."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A socket and the application behind it.

    tls: the server's context, or None for plain HTTP. proxies: addresses whose X-Forwarded-For is believed. last:
    stays open until the jobs have stopped (their messages come in here).
    """

    name: str
    app: ASGIApp
    bound: socket.socket
    tls: ssl.SSLContext | None = None
    protocol: type[PatientProtocol] = PatientProtocol
    proxies: Sequence[str] = ()
    last: bool = False
    keep_alive: int = 30


class Followed(NamedTuple):
    """Something that runs as long as the process does (following the ledger). If it ends, the process does."""

    name: str
    run: Callable[[], Awaitable[object]]


class Closing(NamedTuple):
    """A part to close at the end, in the order given. A plain function runs in a thread."""

    name: str
    close: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Grace:
    """Seconds given at the end: to requests, and to jobs on their way to a step's end."""

    requests: int = 10
    jobs: float = 20.0


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`; port 0 takes any free one. Raises Unavailable if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, since asyncio sends small writes at once (TCP_NODELAY) only where it is.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except (OSError, OverflowError):
        bound.close()
        raise Unavailable("serve.port_taken", host=host, port=port) from None
    bound.setblocking(False)
    return bound


class _Server(uvicorn.Server):
    """uvicorn's server, whose signals are the process's matter."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _server(listener: Listener, grace: Grace) -> _Server:
    context = listener.tls
    config = uvicorn.Config(
        listener.app,
        http=listener.protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(listener.proxies),
        forwarded_allow_ips=list(listener.proxies) or "",
        timeout_keep_alive=listener.keep_alive,
        timeout_graceful_shutdown=grace.requests,
        backlog=_BACKLOG,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )
    return _Server(config)


@dataclass(kw_only=True)
class Service:
    """A process's parts, ready to run."""

    listeners: Sequence[Listener]
    jobs: Jobs
    streams: Streams
    health: Health
    log: Log
    vocabulary: Vocabulary
    follow: Sequence[Followed] = ()
    close: Sequence[Closing] = ()
    grace: Grace = field(default_factory=Grace)
    on_listening: Callable[[], None] | None = None
    """Called when every socket answers (a service manager's "ready")."""

    async def run(self, stop: asyncio.Event | None = None) -> int:
        """Run until a signal, `stop`, or the failure of a part that must run. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for parts in (self.listeners, self.follow, self.close):
            self.vocabulary.add(*(part.name for part in parts))
        asked, hurried = stop or asyncio.Event(), asyncio.Event()
        caught = _catch_signals(loop, self.log, asked, hurried)
        servers = [(listener, _server(listener, self.grace)) for listener in self.listeners]
        # what must run: a name for the log, and the task
        running = {loop.create_task(_as_coroutine(part.run), name=part.name): part.name for part in self.follow}
        serving = {
            loop.create_task(server.serve(sockets=[listener.bound]), name=listener.name): listener.name
            for listener, server in servers
        }
        await self.jobs.resume()
        while not all(server.started for _, server in servers) and not any(task.done() for task in serving):
            await asyncio.sleep(0.01)
        for listener, _ in servers:
            self.log.info("listening", part=listener.name, port=listener.bound.getsockname()[1])
        if self.on_listening is not None:
            self.on_listening()
        asking = loop.create_task(asked.wait())
        hurry = loop.create_task(hurried.wait())
        await asyncio.wait({asking, *running, *serving}, return_when=asyncio.FIRST_COMPLETED)
        failed = self._failures({**running, **serving})
        self.log.info("stopping")
        ending = loop.create_task(self._end(servers, dict(zip(serving, servers, strict=True)), running))
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        cut = not ending.done()
        ending.cancel()
        for task in (asking, hurry):
            task.cancel()
        await asyncio.gather(ending, asking, hurry, return_exceptions=True)
        if cut:
            await self._cut(servers, [*running, *serving])
        failed = await self._close_parts() or failed
        for number in caught:
            loop.remove_signal_handler(number)
        self.log.info("stopped")
        return CUT_SHORT if cut else FAILED if failed else STOPPED

    def _failures(self, tasks: dict[asyncio.Task[Any], str]) -> bool:
        """Whether something that must run has ended; says what."""
        for task, name in tasks.items():
            if task.done():
                error = None if task.cancelled() else task.exception()
                self.log.error("part.failed", part=name, **({} if error is None else about(error)))
        return any(task.done() for task in tasks)

    async def _end(
        self,
        servers: Sequence[tuple[Listener, _Server]],
        serving: dict[asyncio.Task[None], tuple[Listener, _Server]],
        running: dict[asyncio.Task[object], str],
    ) -> None:
        """The stop, in its order."""
        self.health.stopping = True
        for last in (False, True):
            for listener, server in servers:
                server.should_exit = server.should_exit or listener.last is last
            if not last:
                self.streams.close()
            here = [task for task, (listener, _) in serving.items() if listener.last is last]
            if here:
                await asyncio.wait(here)
            if not last:
                await self.jobs.close(self.grace.jobs)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _cut(self, servers: Sequence[tuple[Listener, _Server]], tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Leave everything where it is."""
        for _, server in servers:
            server.should_exit = server.force_exit = True
            for connection in list(server.server_state.connections):
                connection.transport.abort()
        await self.jobs.close(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_parts(self) -> bool:
        """Close each part, whatever the others do. Returns whether one failed."""
        failed = False
        for part in self.close:
            try:
                made = part.close() if inspect.iscoroutinefunction(part.close) else asyncio.to_thread(part.close)
                await made
                self.log.info("part.closed", part=part.name)
            except Exception as error:
                failed = True
                self.log.error("part.failed", part=part.name, **about(error))
        return failed


async def _as_coroutine(run: Callable[[], Awaitable[object]]) -> object:
    return await run()


def _catch_signals(
    loop: asyncio.AbstractEventLoop, log: Log, asked: asyncio.Event, hurried: asyncio.Event
) -> list[signal.Signals]:
    """The first signal asks, the second hurries. Returns the signals taken: none outside the main thread."""

    def caught(number: signal.Signals) -> None:
        (hurried if asked.is_set() else asked).set()
        log.info("stopping", signal=number.name)

    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, caught, number)
        except (ValueError, RuntimeError, NotImplementedError):
            continue
        taken.append(number)
    return taken


def settle() -> None:
    """Leave what stands now out of the cycle collector's rounds, and let those be rarer. For a process that listens.

    The program itself is most of the heap and is never garbage; without this, requests that wait for the disk together
    make the collector walk much of it again and again: a seventh of the time of each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 10, 10)


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run `main` in a new event loop (uvloop where it is installed) and return its exit code."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_coroutine(main))


async def _coroutine(main: Callable[[], Awaitable[int]]) -> int:
    return await main()
